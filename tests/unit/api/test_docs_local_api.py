"""docs/local-api.md names every call that the service answers, and none besides."""

from __future__ import annotations

import pathlib
import re

from openbits.api.routes import ROUTES

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "local-api.md"
_ROW = re.compile(r"^\| ([A-Z, ]+) (/v1/[^|]*?) \|", re.MULTILINE)


def named() -> set[tuple[str, str]]:
    """Every method and path of the table; `resume · suspend` stands for two paths."""
    found = set()
    for methods, text in _ROW.findall(PAGE.read_text(encoding="utf-8")):
        first, *others = text.split(" · ")
        path = without_names(first)
        paths = [path, *(re.sub(r"[^/]+$", other, path) for other in others)]
        found |= {(method, path) for method in methods.split(", ") for path in paths}
    return found


def without_names(path: str) -> str:
    """A path of which only the places of its parts count."""
    return re.sub(r"\{[^}]*\}", "{}", path.partition("?")[0])


def test_every_call_stands_in_the_page_and_nothing_else() -> None:
    served = {(route.method, without_names(route.path)) for route in ROUTES}
    assert named() == served
