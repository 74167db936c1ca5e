"""The switches behind /peercaching, /cache and /peers (inventory B45 to B47).

The rule: the service checks and keeps what is set, and each setter says on standard error that it has no effect yet.
"""

from __future__ import annotations

from typing import Final

from openbits.cli.bitsadmin.invocation import Invocation, UsageFailure, number
from openbits.cli.bitsadmin.jobs import say_remark
from openbits.cli.bitsadmin.lines import peer_caching_lines
from openbits.cli.bitsadmin.output import date_time, note
from openbits.cli.bitsadmin.targets import is_guid
from openbits.cli.text import safe
from openbits.client.peercaching import CacheRecord, PeerCacheAdministration
from openbits.client.values import Result

NO_EFFECT: Final = (
    "bitsadmin: kept, and without effect yet: this version fetches nothing from peers and gives nothing to them"
)


def flag_lines(flags: int) -> list[str]:
    """Return peer caching flags as a number, and what they mean."""
    return [f"Peercaching flags: {flags}", *peer_caching_lines(flags)]


def _yes(value: int) -> str:
    return "true" if value else "false"


def _administration(call: Invocation) -> PeerCacheAdministration:
    return call.manager.peer_cache_administration()


def _kept(result: Result) -> None:
    if result is Result.S_FALSE:
        note("bitsadmin: S_FALSE: kept, but a policy says something else, which counts")
    else:
        say_remark(result)
    note(NO_EFFECT)


# --- the machine (B45) ----------------------------------------------------------------------------


def get_configuration_flags(call: Invocation) -> None:
    """Print the machine's flags, as they count. A job that is named, as the documentation does it, decides nothing."""
    flags = int(_administration(call).get_configuration_flags())
    call.output.value(flags, sentence="\n".join(flag_lines(flags)))


def set_configuration_flags(call: Invocation) -> None:
    """Set the machine's flags."""
    flags = number(call.arguments[-1], "<value>")
    result = _administration(call).set_configuration_flags(flags)
    call.output.line(f"Peercaching flags set to {flags}.")
    _kept(result)


# --- the cache (B46) ------------------------------------------------------------------------------


def list_records(call: Invocation) -> None:
    """List what is in the cache."""
    records = _administration(call).enum_records()
    for record in records:
        for line in record_lines(record, is_verbose=call.has("/verbose")):
            call.output.line(line)
    call.output.line(f"Listed {len(records)} record(s).")


def show_record(call: Invocation) -> None:
    """Show a record of the cache."""
    for line in record_lines(_administration(call).get_record(_record(call)), is_verbose=call.has("/verbose")):
        call.output.line(line)


def record_lines(record: CacheRecord, *, is_verbose: bool) -> list[str]:
    """Return a record as one line, or with everything."""
    lines = [f"{{{record.id.upper()}}} {record.file_size} {safe(record.origin_url)}"]
    if is_verbose:
        lines += [
            f"\tMODIFICATION TIME: {date_time(record.file_modification_time)}",
            f"\tLAST ACCESS TIME: {date_time(record.last_access_time)}",
            f"\tVALIDATED: {_yes(record.is_validated)}",
        ]
    return lines


def delete_record(call: Invocation) -> None:
    """Remove a record from the cache."""
    record_id = _record(call)
    say_remark(_administration(call).delete_record(record_id))
    call.output.line(f"{record_id.upper()} deleted.")


def _record(call: Invocation) -> str:
    if not is_guid(call.arguments[0]):
        raise UsageFailure(f"{safe(call.arguments[0])!r} is no record: write its {{GUID}} in braces")
    return call.arguments[0]


def delete_url(call: Invocation) -> None:
    """Remove the records of an address from the cache."""
    result = _administration(call).delete_url(call.arguments[0])
    if result is Result.S_FALSE:
        call.output.line("The cache has no record of the URL.")
    else:
        call.output.line("The records of the URL were deleted.")


def clear_records(call: Invocation) -> None:
    """Empty the cache."""
    say_remark(_administration(call).clear_records())
    call.output.line("Cache cleared.")


def get_limit(call: Invocation) -> None:
    """Print how much of the disk the cache may take, in percent."""
    call.output.value(_administration(call).get_maximum_cache_size())


def set_limit(call: Invocation) -> None:
    """Set how much of the disk the cache may take."""
    percent = number(call.arguments[0], "<percent>")
    result = _administration(call).set_maximum_cache_size(percent)
    call.output.line(f"Cache limit set to {percent} percent.")
    _kept(result)


def get_expiration_time(call: Invocation) -> None:
    """Print how long a file that nobody asks for stays in the cache, in seconds."""
    call.output.value(_administration(call).get_maximum_content_age())


def set_expiration_time(call: Invocation) -> None:
    """Set how long a file that nobody asks for stays in the cache."""
    seconds = number(call.arguments[0], "<seconds>")
    result = _administration(call).set_maximum_content_age(seconds)
    call.output.line(f"Cache expiration time set to {seconds} seconds.")
    _kept(result)


# --- the peers (B47) ------------------------------------------------------------------------------


def list_peers(call: Invocation) -> None:
    """List the peers that are known."""
    peers = _administration(call).enum_peers()
    for peer in peers:
        states = f"AUTHENTICATED: {_yes(peer.is_authenticated)} AVAILABLE: {_yes(peer.is_available)}"
        call.output.line(f"{safe(peer.name)} {states}")
    call.output.line(f"Listed {len(peers)} peer(s).")


def discover_peers(call: Invocation) -> None:
    """Look for peers."""
    if _administration(call).discover_peers() is Result.S_FALSE:
        call.output.line("No peer is looked for.")
        note(NO_EFFECT)
    else:
        call.output.line("Peers are being looked for.")


def clear_peers(call: Invocation) -> None:
    """Forget the peers."""
    say_remark(_administration(call).clear_peers())
    call.output.line("Peers cleared.")
