"""Write the manual pages of our commands: options as the programs describe them, between hand-written sections.

generate_manual.py           writes the pages
generate_manual.py --check   writes nothing; exit status 1 when a page is not what its program says
"""

from __future__ import annotations

import argparse
import inspect
import pathlib
import sys
from collections.abc import Iterator, Sequence

import click
import manual_bits_server
import manual_bitsadmin

from openbits.cli.main import bits
from openbits.server.cli import bits_server

MANUALS = pathlib.Path(__file__).resolve().parent.parent / "docs" / "man"

HEAD = r""".\" Written by scripts/generate_manual.py from the program's own help. Change that, not this page.
.TH BITS 1 "" "OpenBITS" "User Commands"
.SH NAME
bits \- transfer files in the background
.SH SYNOPSIS
.B bits
.RB [ \-\-socket
.IR PATH ]
.I COMMAND
.RI [ OPTIONS "] [" ARGUMENTS ]
.SH DESCRIPTION
.B bits
drives OpenBITS, the Background Intelligent Transfer Service for Linux.
A
.I job
belongs to the account that made it and holds files: each a remote name (a URL of http, https or file) and a local name
(an absolute path).
A job is created SUSPENDED, starts with
.BR resume ,
and moves through QUEUED, CONNECTING and TRANSFERRING to TRANSFERRED;
.B complete
then gives the files their names, and the job is ACKNOWLEDGED.
An upload job has one file, which is read at its local name and sent to its remote name; what the server replies to an
upload\-reply job gets a name of its own.
After an error that may pass a job is in TRANSIENT_ERROR and is tried again by itself; after one that will not, it is in
ERROR and waits for somebody.
.B bits get
and
.B bits put
do all of it in one go.
.PP
Jobs do not need this program once they run: they go on after it has ended, after the session, and after a restart of
the service or of the machine.
.PP
.I JOB
is a job's id, the beginning of one, or its name, as far as only one job fits; jobs in the queue go before jobs that
have left it.
.PP
The service is looked for at the socket that
.B \-\-socket
names, else at the one that
.B BITS_SOCKET
names, else at the system's, else at the user's.
Where nothing was named and none answers,
.BR "bits get" ", " "bits put"
and
.B bits create
start the user's.
"""

TAIL = r""".SH JSON
With
.B \-\-json
a job has the fields
.IR id ", " name ", " type ", " state ", " owner
(with
.IR uid ", " name ", " kind ),
.IR priority ", " bytes_total
(null while it is unknown),
.IR bytes_transferred ", " files_total ", " files_transferred ", " error
(null, or with
.IR code ", " hresult ", " context ", " message ),
.I reply
(null, or a file: what the server replies to an upload\-reply job), and times in ISO 8601 UTC; a file has
.IR remote_name ", " local_name ", " temporary_name ", " bytes_total ", " bytes_transferred ", " completed .
.B bits list
prints an array,
.B bits create
an object with
.IR id ,
.B bits events
one object a line.
Bytes of names that are not UTF\-8 stand as lone surrogates, \(lq\eudc80\(rq to \(lq\eudcff\(rq.
.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
The transfer failed (the job is in ERROR or was cancelled), or the time of
.B bits wait
was over.
.TP
.B 2
Wrong usage.
.TP
.B 3
There is no such job.
.TP
.B 4
Access is denied.
.TP
.B 5
The service cannot be reached.
.TP
.B 6
The job's state does not allow it.
.TP
.B 130
Interrupted; the job goes on, and the command says how to follow it.
.PP
Errors are one line on standard error: the BITS name, the hexadecimal code, what happened and what to do.
.SH ENVIRONMENT
.TP
.B BITS_SOCKET
The socket of the service; then no other is tried and none is started.
.TP
.BR XDG_RUNTIME_DIR ", " XDG_STATE_HOME
Where the user's service has its socket, and its jobs and its log.
.SH FILES
.TP
.I /run/openbits/bitsd.sock
The socket of the system's service.
.TP
.I $XDG_RUNTIME_DIR/openbits/bitsd.sock
The socket of the user's service.
.TP
.I $XDG_STATE_HOME/openbits/bitsd.log
What the user's service says, when
.B bits
started it.
.SH EXAMPLES
.nf
.RB "$ " "bits get https://example.org/image.iso \-\-checksum sha256:9f86\[u2026]"
.RB "$ " "bits get \-\-input\-file list \-d /srv/mirror"
.RB "$ " "job=$(bits get \-\-async \-\-priority low https://example.org/image.iso)"
.RB "$ " "bits why $job"
.RB "$ " "bits wait $job \-\-complete"
.PP
.RB "$ " "bits create kernel"
.RB "$ " "bits add kernel https://example.org/linux.tar.xz /srv/linux.tar.xz"
.RB "$ " "bits set kernel priority=high minimum_retry_delay=60"
.RB "$ " "bits resume kernel"
.PP
.RB "$ " "bits put report.pdf https://example.org/in/"
.RB "$ " "bits put order.xml https://example.org/orders \-\-reply receipt.xml"
.fi
.SH SEE ALSO
.BR bitsd (8),
.BR curl (1)
"""


def roff(text: str) -> str:
    """Return text with everything escaped that roff would obey."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "\\[u2026]").replace("–", "\\(en")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


def option_lines(parameter: click.Parameter, context: click.Context) -> Iterator[str]:
    """Return an option as a tagged paragraph."""
    record = parameter.get_help_record(context)
    if not isinstance(parameter, click.Option) or record is None:
        return
    names, text = record
    yield ".TP"
    yield f".B {roff(names)}"
    yield roff(" ".join(text.split()))


def command_lines(name: str, command: click.Command) -> Iterator[str]:
    """Return a command as a subsection; `name` begins with the program's."""
    context = click.Context(command, info_name=name, **bits.context_settings)
    yield f'.SS "{roff(name)} {roff(" ".join(command.collect_usage_pieces(context)))}"'
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield roff(" ".join(paragraph.split()))
        yield ".PP"
    for parameter in command.params:
        yield from option_lines(parameter, context)
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            yield from command_lines(f"{name} {inner.name}", inner)


def page(program: click.Group, introduction: str, head: str, tail: str) -> str:
    """Return a whole manual page."""
    name = str(program.name)
    lines = [".SH OPTIONS", *([introduction] if introduction else [])]
    context = click.Context(program, info_name=name, **bits.context_settings)
    for parameter in program.get_params(context):
        lines += option_lines(parameter, context)
    lines.append(".SH COMMANDS")
    for each in program.list_commands(context):
        command = program.get_command(context, each)
        assert command is not None
        lines += command_lines(f"{name} {each}", command)
    return head + "\n".join(lines) + "\n" + tail


def pages() -> Iterator[tuple[pathlib.Path, str]]:
    """Return where each page is, and what is to stand there."""
    yield MANUALS / "bits.1", page(bits, "Before or after every command:", HEAD, TAIL)
    yield MANUALS / "bitsadmin.1", manual_bitsadmin.page(roff)
    yield MANUALS / "bits-server.1", page(bits_server, "", manual_bits_server.HEAD, manual_bits_server.TAIL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the pages are up to date")
    options = parser.parse_args(arguments)
    status = 0
    for path, text in pages():
        if not options.check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"{path.name} is not what the program says: run scripts/generate_manual.py", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
