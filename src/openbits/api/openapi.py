"""The OpenAPI description of the local API, drawn from the route table and the wire types."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from openbits.api import service_wire
from openbits.api.route import Parameter, Route
from openbits.api.routes import ROUTES
from openbits.version import __version__

_PATH_PARAMETER = re.compile(r"\{(\w+)\}")
_QUERY_SCHEMAS: dict[type, dict[str, Any]] = {
    int: {"type": "integer", "minimum": 0},
    bool: {"type": "boolean"},
    str: {"type": "string"},
}
_PATH_SCHEMAS: dict[str, dict[str, Any]] = {
    "job_id": {"type": "string", "format": "uuid"},
    "index": {"type": "integer", "minimum": 0},
    "code": {"type": "string"},
    "capability": {"type": "string"},
    "question": {"type": "string"},
    "stream": {"type": "string"},
    "record_id": {"type": "string"},
}


def describe() -> dict[str, Any]:
    """Return the description, an OpenAPI 3.1 document."""
    types = list(
        dict.fromkeys([service_wire.Problem, *(t for route in ROUTES for t in (*_answers(route), route.body) if t)])
    )
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "OpenBITS local API",
            "version": __version__,
            "description": "Served on a Unix socket; the kernel says who calls.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _answers(route: Route) -> tuple[Any, ...]:
    """The types of the answers; of bytes there is nothing to say but their media type."""
    answers = route.answer if isinstance(route.answer, tuple) else (route.answer,)
    return tuple(answer for answer in answers if answer is not bytes)


def _operation(route: Route, by_type: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS[name]}
        for name in _PATH_PARAMETER.findall(route.path)
    ]
    parameters += [_query(parameter) for parameter in route.query]
    answers = [by_type[answer] for answer in _answers(route)]
    content = {"schema": answers[0] if len(answers) == 1 else {"anyOf": answers}} if answers else {}
    operation: dict[str, Any] = {
        "operationId": route.handler,
        "summary": route.text,
        "parameters": parameters,
        "responses": {
            str(route.status): {
                "description": "done",
                "content": {route.media_type: content},
            },
            "default": {
                "description": "an error of BITS",
                "content": {"application/problem+json": {"schema": by_type[service_wire.Problem]}},
            },
        },
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": by_type[route.body]}},
        }
    return operation


def _query(parameter: Parameter) -> dict[str, Any]:
    schema = dict(_QUERY_SCHEMAS[parameter.kind])
    if parameter.name == "limit":
        schema |= {"minimum": 1, "maximum": 10_000, "default": 500}
    return {"name": parameter.name, "in": "query", "description": parameter.text, "schema": schema}
