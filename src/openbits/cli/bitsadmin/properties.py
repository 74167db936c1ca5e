"""The switches for what a job is told about itself: names, priority, times, proxies, notifications (B22 to B30).

A setter prints what stands after it, which is not always what was given: the service raises a retry delay of 1 s.
"""

from __future__ import annotations

from typing import Final

from openbits.cli.bitsadmin.invocation import Invocation, UsageFailure, number
from openbits.cli.bitsadmin.jobs import say_remark
from openbits.cli.bitsadmin.lines import command_words, or_null
from openbits.cli.bitsadmin.output import NULL, note
from openbits.cli.text import safe
from openbits.client.network_identity import ProxyUsage
from openbits.client.values import Priority

DEFAULT_DOWNLOAD_TIME_S: Final = 7_776_000
"""What counts, unless a policy or the configuration says otherwise, for a job without a limit of its own (J53)."""
_NOTHING: Final = frozenset({"null", "", '""'})


def or_none(text: str) -> str | None:
    """Return an argument, None for NULL and nothing."""
    return None if text.lower() in _NOTHING else text


# --- descriptions (B22, B23) ----------------------------------------------------------------------


def get_display_name(call: Invocation) -> None:
    """Print the display name."""
    call.output.value(safe(call.job.get_display_name()))


def set_display_name(call: Invocation) -> None:
    """Set the display name."""
    say_remark(call.job.set_display_name(call.arguments[1]))
    call.output.line(f"Display name set to '{safe(call.arguments[1])}'.")


def get_description(call: Invocation) -> None:
    """Print the description."""
    call.output.value(safe(call.job.get_description()))


def set_description(call: Invocation) -> None:
    """Set the description."""
    say_remark(call.job.set_description(call.arguments[1]))
    call.output.line(f"Description set to '{safe(call.arguments[1])}'.")


def get_priority(call: Invocation) -> None:
    """Print the priority."""
    call.output.value(call.job.get_priority().name)


def set_priority(call: Invocation) -> None:
    """Set the priority."""
    found = Priority.__members__.get(call.arguments[1].upper())
    if found is None:
        raise UsageFailure(f"{safe(call.arguments[1])!r} is no priority: write {', '.join(Priority.__members__)}")
    say_remark(call.job.set_priority(found))
    call.output.line(f"Priority set to {found.name}.")


# --- notifications (B24, B25, B30) ----------------------------------------------------------------


def get_notify_flags(call: Invocation) -> None:
    """Print the notification flags."""
    call.output.value(int(call.job.get_notify_flags()))


def set_notify_flags(call: Invocation) -> None:
    """Set the notification flags."""
    flags = number(call.arguments[1], "<notify_flags>")
    say_remark(call.job.set_notify_flags(flags))
    call.output.line(f"Notification flags set to {flags}.")


def get_notify_interface(call: Invocation) -> None:
    """Print whether a program is there that takes notifications."""
    call.output.value("REGISTERED" if call.detail()["has_notify_interface"] else "UNREGISTERED")


def get_notify_command_line(call: Invocation) -> None:
    """Print the notification command line."""
    call.output.value(command_words(call.detail()["notify_command"]))


def set_notify_command_line(call: Invocation) -> None:
    """Set the notification command line, or take it off the job.

    The Windows tool's manual gives the parameters as one word in one place, and as several in another.
    """
    program, words = or_none(call.arguments[1]), call.arguments[2:]
    parameters = or_none(words[0]) if len(words) == 1 else words or None
    say_remark(call.job.set_notify_cmd_line(program, parameters))
    shown = [f"'{safe(program)}'" if program else NULL]
    shown.append(f"'{safe(' '.join(words))}'" if parameters else NULL)
    call.output.line(f"Notification command line set to {' '.join(shown)}.")


# --- times (B26) ----------------------------------------------------------------------------------


def get_min_retry_delay(call: Invocation) -> None:
    """Print the retry delay."""
    call.output.value(call.job.get_minimum_retry_delay())


def set_min_retry_delay(call: Invocation) -> None:
    """Set the retry delay."""
    say_remark(call.job.set_minimum_retry_delay(number(call.arguments[1], "<retry_delay>")))
    call.output.line(f"Minimum retry delay set to {call.job.get_minimum_retry_delay()}.")


def get_no_progress_timeout(call: Invocation) -> None:
    """Print the no progress timeout."""
    call.output.value(call.job.get_no_progress_timeout())


def set_no_progress_timeout(call: Invocation) -> None:
    """Set the no progress timeout."""
    say_remark(call.job.set_no_progress_timeout(number(call.arguments[1], "<timeout>")))
    call.output.line(f"No progress timeout set to {call.job.get_no_progress_timeout()}.")


def get_max_download_time(call: Invocation) -> None:
    """Print the download timeout; BITS's default where the job has none of its own."""
    seconds = call.job.get_maximum_download_time()
    if seconds is None and not call.output.is_raw:
        note("bitsadmin: the job has no timeout of its own: policy decides, and else it is this one")
    call.output.value(DEFAULT_DOWNLOAD_TIME_S if seconds is None else seconds)


def set_max_download_time(call: Invocation) -> None:
    """Set the download timeout."""
    say_remark(call.job.set_maximum_download_time(number(call.arguments[1], "<timeout>")))
    call.output.line(f"Maximum download time set to {call.job.get_maximum_download_time()}.")


# --- proxies (B27, B28) ---------------------------------------------------------------------------


def set_proxy_settings(call: Invocation) -> None:
    """Set which proxies the job uses. The service divides the list by spaces, and this command by commas (J23)."""
    usage = next((one for one in ProxyUsage if one.name == call.arguments[1].upper()), None)
    if usage is None:
        names = ", ".join(one.name for one in ProxyUsage)
        raise UsageFailure(f"{safe(call.arguments[1])!r} is no usage: write {names}")
    proxies, bypass = (*map(or_none, call.arguments[2:]), None, None)[:2]
    if usage is ProxyUsage.OVERRIDE and proxies is None:
        raise UsageFailure("OVERRIDE must be followed by a proxy list")
    if usage is not ProxyUsage.OVERRIDE and (proxies or bypass):
        raise UsageFailure(f"{usage.name} takes no lists")
    proxies = None if proxies is None else " ".join(proxies.replace(",", " ").split())
    say_remark(call.job.set_proxy_settings(usage, proxies, bypass))
    call.output.line(f"Proxy usage set to {usage.name}.")
    if usage is ProxyUsage.OVERRIDE:
        call.output.line(f"Proxy list set to {or_null(proxies)}.")
        call.output.line(f"Proxy bypass list set to {or_null(bypass)}.")


def get_proxy_usage(call: Invocation) -> None:
    """Print the proxy usage."""
    call.output.value(call.job.get_proxy_settings().usage.name)


def get_proxy_list(call: Invocation) -> None:
    """Print the proxies, divided by spaces; NULL for none."""
    call.output.value(or_null(call.job.get_proxy_settings().proxy_list))


def get_proxy_bypass_list(call: Invocation) -> None:
    """Print the hosts that are reached without a proxy; NULL for none."""
    call.output.value(or_null(call.job.get_proxy_settings().bypass_list))


# --- ownership (B29) ------------------------------------------------------------------------------


def take_ownership(call: Invocation) -> None:
    """Make the job the caller's."""
    say_remark(call.job.take_ownership())
    call.output.line("Ownership of the job taken.")
