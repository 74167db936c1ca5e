"""The switches that make, show, move and end jobs (inventory B1 to B21), as data."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from openbits.cli.bitsadmin.switches import Switch

JOB: Final = "<job>"
_ONE: Final = (1, 1)


def _getter(name: str, row: str, text: str) -> Switch:
    return Switch(
        name=name,
        row=row,
        syntax=JOB,
        arguments=_ONE,
        help=text,
        function=f"values.{name[1:]}",
        is_raw=True,
        action=text[0].lower() + text[1:],
    )


JOB_SWITCHES: Final[tuple[Switch, ...]] = (
    Switch(
        name="/list",
        row="B2",
        syntax="[/ALLUSERS] [/VERBOSE]",
        options=MappingProxyType({"/allusers": False, "/verbose": False}),
        help="List the jobs",
        function="show.list_jobs",
        action="list jobs",
    ),
    Switch(
        name="/create",
        row="B6",
        syntax="[type] <job name>",
        arguments=_ONE,
        options=MappingProxyType({"/download": False, "/upload": False, "/upload-reply": False}),
        options_until=0,
        help="Create a job",
        function="jobs.create",
        is_raw=True,
        starts_service=True,
        action="create job",
        details=(
            "[type] is /DOWNLOAD (the default), /UPLOAD or /UPLOAD-REPLY.",
            "The job is SUSPENDED. <job name> is a name, not a GUID.",
        ),
    ),
    Switch(
        name="/cancel",
        row="B13",
        syntax=JOB,
        arguments=_ONE,
        help="Delete a job and what it has fetched",
        function="jobs.cancel",
        action="cancel job",
    ),
    _getter("/getstate", "B18", "Get the state of a job"),
)
