"""The switches behind /util: versions, repair, the proxies of service accounts, the analytic channel (B40 to B44)."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any, Final

from openbits.cli.bitsadmin.invocation import Invocation, UsageFailure
from openbits.cli.bitsadmin.jobs import say_remark
from openbits.cli.bitsadmin.output import NULL, note
from openbits.cli.bitsadmin.properties import or_none
from openbits.cli.text import safe
from openbits.client.eventlog import set_event_log
from openbits.client.network_identity import AccountProxySettings, AccountProxyUsage
from openbits.errors import BitsError, ExitCode
from openbits.version import __version__

BITS_VERSION: Final = "10.3"
"""The newest of BITS's interfaces that there are: what scripts compare (section "API generations")."""
UNIT: Final = "openbits.service"
SYSTEMD: Final = "/run/systemd/system"
"""It exists where systemd is in charge."""
SYSTEM_PATH: Final = "/usr/bin:/bin"
START_S: Final = 60.0
_ACCOUNTS: Final = {
    "LOCALSYSTEM": "LocalSystem",
    "NETWORKSERVICE": "NetworkService",
    "LOCALSERVICE": "LocalService",
}
_TAKES: Final = {"NO_PROXY": 0, "AUTODETECT": 0, "MANUAL_PROXY": 2, "AUTOSCRIPT": 1, "RESET": 0}
_EMPTY: Final = "<empty>"
_SWITCHED: Final = {"true": True, "false": False}


# --- versions and repair (B40, B41) ---------------------------------------------------------------


def version(call: Invocation) -> int | None:
    """Print the version of BITS; with /verbose also those of the programs, and whether the service is in order."""
    call.output.line(BITS_VERSION)
    if not call.has("/verbose"):
        return None
    call.output.line()
    call.output.line(f"bitsadmin {__version__}")
    checks = _checks(call)
    _print(call, checks)
    return _status_of(checks)


def repair_service(call: Invocation) -> int | None:
    """Check the service, and start it if that is what it lacks; with /force restart it."""
    checks = _checks(call)
    was_reached = _status_of(checks) != ExitCode.NO_SERVICE
    if not was_reached or call.has("/force"):
        starter = None if _is_elsewhere() else shutil.which("systemctl", path=SYSTEM_PATH)
        if starter is None or not os.path.isdir(SYSTEMD):
            _print(call, checks)
            note("bitsadmin: systemd is not in charge of the service here: whoever started it has to start it again")
            return 1 if was_reached else ExitCode.NO_SERVICE
        _start(starter)
        checks = _checks(call)
        if _status_of(checks) != ExitCode.NO_SERVICE:
            call.output.line("Service restarted." if was_reached else "Service started.")
    _print(call, checks)
    status = _status_of(checks)
    call.output.line("Nothing to repair." if status is None else "The lines with FAIL say what is to be done.")
    return status


def _is_elsewhere() -> bool:
    """Whether the service that is meant is not the system's."""
    return bool(os.environ.get("BITS_SOCKET"))


def _start(starter: str) -> None:
    if os.geteuid() != 0:
        raise BitsError("E_ACCESSDENIED", "only root may start the system's service: run the command with sudo")
    try:
        # What failed too often is not tried again before it is forgiven.
        _systemctl(starter, "reset-failed")
        done = _systemctl(starter, "restart")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BitsError("ERROR_SERVICE_NOT_ACTIVE", f"systemctl came to nothing: {safe(str(error))}") from None
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        reason = safe(lines[0]) if lines else f"systemctl ended with {done.returncode}"
        raise BitsError("ERROR_SERVICE_NOT_ACTIVE", f"{reason}: see 'journalctl -u {UNIT}'")


def _systemctl(starter: str, verb: str) -> subprocess.CompletedProcess[bytes]:
    command = [starter, verb, UNIT]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=START_S, check=False)


def _checks(call: Invocation) -> list[dict[str, Any]]:
    from openbits.cli.doctor import advice, service_checks, socket_check  # noqa: PLC0415 - they need click
    from openbits.client.discovery import candidates  # noqa: PLC0415

    places = candidates(None)
    checks = [socket_check(place) for place in places]
    if not any(check["ok"] for check in checks):
        return [*checks, {"name": "service", "ok": False, "message": advice(places), "is_missing": True}]
    return [check | {"ok": True} for check in checks] + service_checks(call.session)


def _print(call: Invocation, checks: list[dict[str, Any]]) -> None:
    for one in checks:
        call.output.line(f"{'ok  ' if one['ok'] else 'FAIL'}  {safe(one['name'])}: {safe(one['message'])}")


def _status_of(checks: list[dict[str, Any]]) -> int | None:
    if any(one.get("is_missing") for one in checks):
        return ExitCode.NO_SERVICE
    return None if all(one["ok"] for one in checks) else 1


# --- proxies of service accounts (B42, B43, I20) --------------------------------------------------


def set_account_proxy(call: Invocation) -> None:
    """Set which proxies the jobs of a service account use; what other usages were given is kept."""
    account, usage = _account(call), call.arguments[1].upper()
    given = call.arguments[2:]
    if usage not in _TAKES:
        raise UsageFailure(f"{safe(call.arguments[1])!r} is no usage: write {', '.join(_TAKES)}")
    if len(given) > _TAKES[usage]:
        raise UsageFailure(f"{usage} takes {('no parameter', 'a URL', 'two lists, in quotes')[_TAKES[usage]]}")
    _say_connection(call)
    if usage == "RESET":
        say_remark(call.manager.reset_account_proxy_settings(account))
    else:
        say_remark(_set(call, AccountProxyUsage[usage], given, account))
    settings = call.manager.get_account_proxy_settings(account)
    call.output.line(f"Internet proxy settings for account {_ACCOUNTS[account]} were set.")
    call.output.line("(connection = default)")
    call.output.line()
    call.output.line(f"Proxy usage set to       {'RESET' if usage == 'RESET' else _usage(settings)}")
    if usage == "MANUAL_PROXY":
        call.output.line(f"Proxy list set to        {safe(settings.proxy_list) or _EMPTY}")
        call.output.line(f"Proxy bypass list set to {safe(settings.bypass_list) or _EMPTY}")
    elif usage == "AUTOSCRIPT":
        call.output.line(f"Script URL set to        {safe(settings.script_url) or _EMPTY}")


def _set(call: Invocation, usage: AccountProxyUsage, given: tuple[str, ...], account: str) -> Any:
    set_settings = call.manager.set_account_proxy_settings
    if usage is AccountProxyUsage.AUTOSCRIPT:
        return set_settings(usage, script_url=given[0] if given else None, account=account)
    proxies = " ".join(given[0].replace(",", " ").split()) if given else None
    # A list without a second one has none: the hosts of an earlier call belong to the proxies of that call.
    bypass = None if not given else or_none(given[1]) or "" if len(given) > 1 else ""
    return set_settings(usage, proxy_list=proxies, bypass_list=bypass, account=account)


def get_account_proxy(call: Invocation) -> None:
    """Print which proxies the jobs of a service account use, and what the other usages were given."""
    account = _account(call)
    _say_connection(call)
    settings = call.manager.get_account_proxy_settings(account)
    call.output.line(f"Internet proxy settings for account {_ACCOUNTS[account]}:")
    call.output.line("(connection = default)")
    call.output.line()
    call.output.line(f"Proxy usage:  {_usage(settings)}")
    call.output.line(f"Proxy list:  {safe(settings.proxy_list) or NULL}")
    call.output.line(f"Proxy bypass list:  {safe(settings.bypass_list) or NULL}")
    call.output.line(f"Script URL:  {safe(settings.script_url) or NULL}")
    note(f"bitsadmin: {safe(settings.applies_to)}")


def _account(call: Invocation) -> str:
    account = call.arguments[0].upper()
    if account not in _ACCOUNTS:
        raise UsageFailure(
            f"{safe(call.arguments[0])!r} is no service account: write {', '.join(_ACCOUNTS)}; "
            "'bits proxy' takes any account"
        )
    return account


def _usage(settings: AccountProxySettings) -> str:
    """Return the active usage; nothing stored is NO_PROXY, for that is what it comes to."""
    return "NO_PROXY" if settings.usage is None else settings.usage.name


def _say_connection(call: Invocation) -> None:
    if call.has("/conn"):
        note("bitsadmin: /conn has no effect: there are no settings for single connections here")


# --- the analytic channel (B44) -------------------------------------------------------------------


def enable_analytic_channel(call: Invocation) -> None:
    """Let the service log verbose events, or not."""
    wanted = _SWITCHED.get(call.arguments[0].lower())
    if wanted is None:
        raise UsageFailure(f"write TRUE or FALSE, not {safe(call.arguments[0])!r}")
    answer = call.session.perform(set_event_log(analytic=wanted))
    call.output.line(f"Analytic channel {'enabled' if answer['analytic'] else 'disabled'}.")
