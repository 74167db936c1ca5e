"""The switches for single files of a job, for peers, and for what a server replies (inventory B36 to B38)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from openbits.cli.bitsadmin.invocation import Invocation, UsageFailure, number
from openbits.cli.bitsadmin.jobs import say_remark
from openbits.cli.bitsadmin.lines import or_null
from openbits.cli.bitsadmin.output import note, total
from openbits.cli.bitsadmin.peercaching import NO_EFFECT, flag_lines
from openbits.cli.bitsadmin.properties import or_none
from openbits.cli.text import safe
from openbits.client.manager import File

BYTES_IN_A_LINE: Final = 16
_STATES: Final = {"true": True, "false": False}


def _index(call: Invocation) -> int:
    return number(call.arguments[1], "<file-index>")


def _file(call: Invocation) -> File:
    return File(call.session, call.job_id, _index(call))


# --- single files (B36) ---------------------------------------------------------------------------


def set_validation_state(call: Invocation) -> None:
    """Declare the content of a file valid or not."""
    state = _STATES.get(call.arguments[2].lower())
    if state is None:
        raise UsageFailure(f"a validation state is TRUE or FALSE, not {safe(call.arguments[2])!r}")
    say_remark(_file(call).set_validation_state(state))
    call.output.line(f"Validation state of file {_index(call)} set to {str(state).upper()}.")


def get_validation_state(call: Invocation) -> None:
    """Print whether the content was declared valid; FALSE while nobody did."""
    call.output.value(str(bool(_file(call).get_validation_state())).upper())


def get_temporary_name(call: Invocation) -> None:
    """Print where a file stands while it grows; NULL for a file that has no such place."""
    call.output.value(or_null(_file(call).get_temporary_name()))


def get_peer_stats(call: Invocation) -> None:
    """Print how many bytes of a file came from where it comes from, and how many from peers."""
    stats = _file(call).get_peer_download_stats()
    sentence = f"Bytes from the origin server: {stats.from_origin}\nBytes from peers: {stats.from_peers}"
    call.output.value(f"{stats.from_origin} {stats.from_peers}", sentence=sentence)


# --- peer caching (B37) ---------------------------------------------------------------------------


def set_peer_caching_flags(call: Invocation) -> None:
    """Set whether the files may come from peers, and be given to them."""
    flags = number(call.arguments[1], "<value>")
    say_remark(call.job.set_peer_caching_flags(flags))
    call.output.line(f"Peer caching flags set to {flags}.")
    note(NO_EFFECT)


def get_peer_caching_flags(call: Invocation) -> None:
    """Print whether the files may come from peers, and be given to them; with /rawreturn as a number."""
    flags = int(call.job.get_peer_caching_flags())
    call.output.value(flags, sentence="\n".join(flag_lines(flags)))


# --- replies (B38) --------------------------------------------------------------------------------


def get_reply_file_name(call: Invocation) -> None:
    """Print where the reply is to stand; NULL before it has a name."""
    call.output.value(or_null(call.job.get_reply_file_name()))


def set_reply_file_name(call: Invocation) -> None:
    """Set where the reply is to stand; NULL: beside the file, under a name that is made for it."""
    path = or_none(call.arguments[1])
    say_remark(call.job.set_reply_file_name(path))
    call.output.line(f"Reply file name set to {or_null(path)}.")


def get_reply_progress(call: Invocation) -> None:
    """Print how many bytes of how many are here."""
    progress = call.job.get_reply_progress()
    here, whole = progress.bytes_transferred, total(progress.bytes_total)
    call.output.value(f"{here} / {whole}")


def get_reply_data(call: Invocation) -> None:
    """Print the reply as hexadecimal digits, 16 bytes a line; with /rawreturn as digits alone."""
    data = call.job.get_reply_data()
    if data is None:
        call.output.value("", sentence="The server has not replied anything.")
    else:
        call.output.value(data.hex().upper(), sentence="\n".join(dumped(data)))


def dumped(data: bytes) -> Iterator[str]:
    """Yield the lines of a dump: offset, bytes, and what can be read of them."""
    for offset in range(0, len(data), BYTES_IN_A_LINE):
        part = data[offset : offset + BYTES_IN_A_LINE]
        digits = part.hex(" ").upper()
        text = "".join(chr(octet) if 0x20 <= octet < 0x7F else "." for octet in part)
        yield f"{offset:08X}: {digits:<{3 * BYTES_IN_A_LINE - 1}}  {text}"
