"""bitsadmin(1): the hand-written sections, and the switches as the program's own table has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from openbits.cli.bitsadmin.switches import GROUPS, Switch, all_switches

HEAD = r""".\" Written by scripts/generate_manual.py from the program's own help. Change that, not this page.
.TH BITSADMIN 1 "" "OpenBITS" "User Commands"
.SH NAME
bitsadmin \- administer background transfers as on Windows
.SH SYNOPSIS
.B bitsadmin
.RB [ /rawreturn ]
.RB [ /wrap " | " /nowrap ]
.I SWITCH
.RI [ ARGUMENTS ]
.SH DESCRIPTION
.B bitsadmin
drives OpenBITS with the switches of the Windows tool of this name, and prints what scripts for that tool read.
.BR bits (1)
does the same with less typing.
Switches may be written in capitals.
.PP
.I <job>
is the display name of one of your own jobs, or the GUID of any job in braces (quote it in your shell).
A name that several of your jobs have is an error.
.B /create
and
.B /transfer
take names only.
.SH OPTIONS
These stand before the switch:
.TP
.B /rawreturn
Print only the value, without banner and newline: for
.B /create
and the switches that begin with
.BR /get .
Errors then go to standard error.
.TP
.B /wrap
Break long lines at the width of the terminal, as is done on a terminal anyway; elsewhere at 80 columns.
.TP
.B /nowrap
Break no lines.
"""

TAIL = r""".SH EXIT STATUS
0 if all that was asked for is done, else a status of
.BR bits (1):
1 the transfer failed, 2 wrong usage, 3 no such job, 4 access denied, 5 the service cannot be reached, 6 the job's state
does not allow it, 130 interrupted.
The HRESULT, which is the Windows tool's exit status, stands in the output:
.B "Unable to find job \- 0x80200001"
and below it the error's name, what happened and what to do.
.SH ENVIRONMENT
.TP
.B BITS_SOCKET
The socket of the service; else the system's, else the user's, which
.B /create
and
.B /transfer
start.
.SH EXAMPLES
.nf
.RB "$ " "bitsadmin /transfer myDownloadJob https://example.org/a.iso /srv/a.iso"
.PP
.RB "$ " "job=$(bitsadmin /rawreturn /create myDownloadJob)"
.RB "$ " "bitsadmin /addfile \(dq$job\(dq https://example.org/a.iso /srv/a.iso"
.RB "$ " "bitsadmin /resume \(dq$job\(dq"
.RB "$ " "bitsadmin /rawreturn /getstate \(dq$job\(dq"
.RB "$ " "bitsadmin /complete \(dq$job\(dq"
.fi
.SH SEE ALSO
.BR bits (1),
.BR bitsd (8);
docs/from\-windows.md says what each switch is in
.B bits
and in Python.
"""


def page(roff: Callable[[str], str]) -> str:
    """Return the whole page; `roff` escapes what roff would obey."""
    lines = [".SH SWITCHES"]
    for group in ("", *GROUPS):
        if group:
            lines.append(f'.SS "Switches behind {roff(group)}"')
        for switch in all_switches():
            if switch.group == group:
                lines += _switch(switch, roff)
    return HEAD + "\n".join(lines) + "\n" + TAIL


def _switch(switch: Switch, roff: Callable[[str], str]) -> Iterator[str]:
    yield ".TP"
    yield f".B {roff(f'{switch.full_name} {switch.syntax}'.rstrip())}".replace('"', "\\(dq")
    needs = f" ({switch.needs})" if switch.needs else ""
    yield roff(f"{switch.help}{needs}.")
    for detail in switch.details:
        yield ".br"
        yield roff(detail.strip())
