"""The commands about the service itself: doctor and version."""

from __future__ import annotations

import os
import stat
from typing import Any

import click

from openbits import paths
from openbits.cli.common import Context, json_option, pass_context, print_json, say, socket_option
from openbits.cli.text import safe
from openbits.client import calls
from openbits.client.discovery import Candidate, candidates
from openbits.client.session import Session
from openbits.client.transport import connect_unix
from openbits.errors import BitsError, ExitCode
from openbits.version import __version__

Check = dict[str, Any]


def _check(name: str, ok: bool, message: str) -> Check:
    return {"name": name, "ok": ok, "message": message}


@click.command()
@json_option
@socket_option
@pass_context
def doctor(context: Context, as_json: bool) -> None:
    """Check the way to the service, from this side, and the service, from its own.

    The exit status is 0 if all is well, 1 if a check failed, 5 if no service can be reached.
    """
    places = candidates(context.socket)
    checks = [socket_check(place) for place in places]
    reached = any(check["ok"] for check in checks)
    if reached:
        # A place that nobody listens on is no fault where another answers.
        checks = [check | {"ok": True} for check in checks]
        checks += service_checks(context.session())
    else:
        checks.append(_check("service", False, advice(places)))
    if as_json:
        print_json({"checks": checks})
    else:
        for check in checks:
            say(f"{'ok  ' if check['ok'] else 'FAIL'}  {safe(check['name'])}: {safe(check['message'])}")
    if not reached:
        raise click.exceptions.Exit(ExitCode.NO_SERVICE)
    if not all(check["ok"] for check in checks):
        raise click.exceptions.Exit(1)


def socket_check(place: Candidate) -> Check:
    """Look at one place where a service may answer."""
    name = f"socket ({place.source})"
    try:
        status = os.stat(place.path)
    except OSError as error:
        return _check(name, False, f"{place.path}: {error.strerror}")
    what = f"{place.path} (owner uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o})"
    if not stat.S_ISSOCK(status.st_mode):
        return _check(name, False, f"{what} is no socket")
    try:
        connect_unix(place.path).close()
    except PermissionError:
        return _check(name, False, f"{what} may not be connected to by uid {os.geteuid()}")
    except ConnectionRefusedError:
        return _check(name, False, f"{what} was left behind: nobody listens")
    except OSError as error:
        return _check(name, False, f"{what}: {error.strerror}")
    return _check(name, True, f"{what} answers")


def service_checks(session: Session) -> list[Check]:
    """Ask the service: its version, whom it takes us for, and what it thinks of itself."""
    try:
        version = session.perform(calls.version())
        same = version["version"] == __version__
        message = f"{version['program']} {version['version']} ({version['mode']} mode), client {__version__}"
        checks = [_check("version", same, message if same else f"{message}: restart the service")]
        who = session.perform(calls.whoami())
        rights = "administrator" if who["is_administrator"] else "no administrator"
        kind = f"{who['kind']}, because {who['kind_reason']}"
        checks.append(_check("caller", True, f"uid {who['uid']} ({who['name']}): {kind}; {rights}"))
        own = session.perform(calls.doctor())
        return checks + [_check(one["name"], one["ok"], one["message"]) for one in own["checks"]]
    except BitsError as error:
        return [_check("service", False, str(error))]


def advice(places: tuple[Candidate, ...]) -> str:
    """Say how to get a service."""
    if places[0].source in ("--socket", "BITS_SOCKET"):
        return f"no service answers at {places[0].path}, the only place that {places[0].source} names"
    return (
        "no service answers: an administrator starts the system's with 'systemctl start openbits'; "
        f"'bits get' starts your own by itself (its log: {paths.user_state_dir()}/bitsd.log)"
    )


@click.command()
@json_option
@socket_option
@pass_context
def version(context: Context, as_json: bool) -> None:
    """Show the versions of this client and of the service that it reaches."""
    session = context.session()
    service: dict[str, Any] | None = None
    place = "no service answers"
    try:
        service = session.perform(calls.version())
        place = session.pool.endpoint.path()
    except BitsError as error:
        if error.name != "ERROR_SERVICE_NOT_ACTIVE":
            raise
    if as_json:
        print_json({"client": __version__, "service": service, "socket": place if service else None})
        return
    say(f"bits {__version__}")
    say(f"{service['program']} {service['version']} ({service['mode']} mode) at {place}" if service else place)
