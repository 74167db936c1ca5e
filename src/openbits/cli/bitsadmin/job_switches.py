"""The switches that make, show, move and end jobs (inventory B1 to B21), as data."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from openbits.cli.bitsadmin.switches import ANYWHERE, Switch

JOB: Final = "<job>"
_ONE: Final = (1, 1)


def _getter(name: str, row: str, what: str) -> Switch:
    return Switch(
        name=name,
        row=row,
        syntax=JOB,
        arguments=_ONE,
        help=f"Get the {what} of a job",
        function=f"values.{name[1:]}",
        is_raw=True,
        action=f"get {what}",
    )


def _verb(name: str, text: str) -> Switch:
    return Switch(
        name=f"/{name}",
        row="B13",
        syntax=JOB,
        arguments=_ONE,
        help=text,
        function=f"jobs.{name}",
        action=f"{name} job",
    )


_ALL_USERS: Final = MappingProxyType({"/allusers": False})

JOB_SWITCHES: Final[tuple[Switch, ...]] = (
    Switch(
        name="/list",
        row="B2",
        syntax="[/ALLUSERS] [/VERBOSE]",
        options=MappingProxyType({"/allusers": False, "/verbose": False}),
        help="List the jobs",
        function="show.list_jobs",
        action="list jobs",
        details=("/ALLUSERS lists those of every account, for administrators.",),
    ),
    Switch(
        name="/monitor",
        row="B3",
        syntax="[/ALLUSERS] [/REFRESH sec]",
        options=MappingProxyType({"/allusers": False, "/refresh": True}),
        help="Show the jobs anew every 5 or so many seconds",
        function="show.monitor",
        action="list jobs",
        details=("Ctrl+C ends it. Where there is no console, the jobs are shown once.",),
    ),
    Switch(
        name="/reset",
        row="B4",
        syntax="[/ALLUSERS]",
        options=_ALL_USERS,
        help="Cancel all jobs",
        function="jobs.reset",
        action="list jobs",
    ),
    Switch(
        name="/transfer",
        row="B5",
        syntax="<job name> [type] [/PRIORITY priority] [/ACLFLAGS flags] [/DYNAMIC] remote_url local_name ...",
        arguments=(3, ANYWHERE),
        options=MappingProxyType(
            {"/download": False, "/upload": False, "/priority": True, "/aclflags": True, "/dynamic": False}
        ),
        options_until=1,
        help="Transfer files and wait for them",
        function="transfer.transfer",
        starts_service=True,
        action="transfer",
        details=(
            "[type] is /DOWNLOAD (the default) or /UPLOAD; priority FOREGROUND, HIGH, NORMAL (the default) or LOW;",
            "flags any of OGDS, see /SETACLFLAGS. Several pairs of names may follow each other.",
            "/DYNAMIC takes servers that cannot say how long a file is: such a file always begins anew.",
            "The job is completed when all is transferred, and canceled when that is impossible.",
            "Ctrl+C ends the command, and the job goes on. <job name> is a name, not a GUID.",
        ),
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
        name="/info",
        row="B7",
        syntax="<job> [/VERBOSE]",
        arguments=_ONE,
        options=MappingProxyType({"/verbose": False}),
        help="Show a job",
        function="show.info",
        action="get job",
    ),
    Switch(
        name="/addfile",
        row="B8",
        syntax="<job> <remote_url> <local_name>",
        arguments=(3, 3),
        help="Add a file to a job",
        function="jobs.add_file",
        action="add file to job",
        details=("The URL is one of http, https or file; the local name is an absolute path.",),
    ),
    Switch(
        name="/addfileset",
        row="B9",
        syntax="<job> <textfile>",
        arguments=(2, 2),
        help="Add the files that a text file names",
        function="jobs.add_file_set",
        action="add files to job",
        details=(
            "Each line has a URL, a space and a local name; a line that begins with '#' is a comment.",
            "All files are added, or none.",
        ),
    ),
    Switch(
        name="/addfilewithranges",
        row="B10",
        syntax="<job> <remote_url> <local_name> <range_list>",
        arguments=(4, 4),
        help="Add parts of a file to a job",
        function="jobs.add_file_with_ranges",
        action="add file to job",
        details=("range_list has pairs of offset and length, such as 0:100,2000:100,5000:eof",),
    ),
    Switch(
        name="/replaceremoteprefix",
        row="B11",
        syntax="<job> <old_prefix> <new_prefix>",
        arguments=(3, 3),
        help="Change the beginning of URLs",
        function="jobs.replace_remote_prefix",
        action="replace remote prefix",
    ),
    Switch(
        name="/listfiles",
        row="B12",
        syntax=JOB,
        arguments=_ONE,
        help="List the files of a job",
        function="show.list_files",
        action="list files",
    ),
    _verb("suspend", "Stop a job until it is resumed"),
    _verb("resume", "Start a job, or try it again at once"),
    _verb("cancel", "Delete a job and what it has fetched"),
    _verb("complete", "Give a job's files their names and end it"),
    _getter("/gettype", "B14", "type"),
    _getter("/getaclflags", "B15", "ACL flags"),
    Switch(
        name="/setaclflags",
        row="B15",
        aliases=("/setaclflag",),
        syntax="<job> <ACL_flags>",
        arguments=(2, 2),
        help="Set what of a file's rights is copied",
        function="jobs.set_acl_flags",
        action="set ACL flags",
        details=(
            "Any of O - owner, G - group, D - access control list, S - extended attributes; for file:// sources.",
        ),
    ),
    _getter("/getbytestotal", "B16", "size"),
    _getter("/getbytestransferred", "B16", "number of bytes transferred"),
    _getter("/getfilestotal", "B16", "number of files"),
    _getter("/getfilestransferred", "B16", "number of files transferred"),
    _getter("/getcreationtime", "B17", "creation time"),
    _getter("/getmodificationtime", "B17", "modification time"),
    _getter("/getcompletiontime", "B17", "completion time"),
    _getter("/getstate", "B18", "state"),
    _getter("/geterror", "B19", "error"),
    _getter("/geterrorcount", "B20", "number of errors"),
    _getter("/getowner", "B21", "owner"),
)
