"""The command `bits-server`: its options, and the commands that speak to a running server (U50, U51)."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from openbits.paths import SYSTEM_SERVER_SOCKET, user_server_socket
from openbits.version import __version__

EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

_DURATION: Final = re.compile(r"([0-9]{1,9})([smhd]?)")
_UNIT_S: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_NEWLINES: Final = re.compile(r"\s*\n\s*")


class Whole(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """A whole number that is not below a limit."""

    name = "number"

    def __init__(self, low: int) -> None:
        self._low = low

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it."""
        text = str(value)
        if not (text.isascii() and text.isdecimal()) or len(text) > 19 or int(text) < self._low:
            self.fail(f"{text!r} is not a whole number from {self._low} on", param, ctx)
        return int(text)


class Fault(click.ClickException):
    """Something that cannot be done; the message is one line."""

    exit_code = EXIT_FAILED


@click.group(
    "bits-server",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--root", metavar="DIR", help="The directory that is served: uploads go below it, downloads come from it."
)
@click.option(
    "--listen", metavar="HOST:PORT", help="Where to listen; 127.0.0.1:8080 unless set. Port 0 is any free one."
)
@click.option("--allow-overwrites", is_flag=True, help="Let an upload replace a file that is there already.")
@click.option("--max-upload-size", metavar="BYTES", type=Whole(0), help="Refuse larger uploads.")
@click.option(
    "--session-timeout",
    metavar="S",
    type=Whole(1),
    help="Forget uploads without progress for so many seconds; 14 days unless set.",
)
@click.option("--notify-url", metavar="URL", help="Tell a server application of each upload.")
@click.option(
    "--notify-type",
    type=click.Choice(["reference", "value"]),
    help="How it gets the upload: as the name of a file, or as the body of the request.",
)
@click.option("--host-id", metavar="H", help="The host that clients shall send the rest of an upload to.")
@click.option(
    "--host-id-fallback-timeout",
    metavar="S",
    type=Whole(0),
    help="After so many seconds without reaching that host, clients return to the first one.",
)
@click.option("--tls-cert", metavar="FILE", help="Serve https with this certificate (PEM, with its chain).")
@click.option("--tls-key", metavar="FILE", help="The certificate's key (PEM, without a password).")
@click.option("--config", metavar="FILE", help="More settings, in TOML; options go before it.")
@click.option("--control-socket", metavar="PATH", help="Where publish, unpublish and list reach this server.")
@click.version_option(__version__, "--version", prog_name="bits-server", message="%(prog)s %(version)s")
@click.pass_context
def bits_server(ctx: click.Context, /, **options: Any) -> None:
    """Take resumable uploads by the BITS protocol, and hand out files for download.

    It serves until it is stopped: `bits-server --root /srv/files`. Only this machine can connect until --listen says
    otherwise. The commands below speak to a server that runs.
    """
    if ctx.invoked_subcommand is None:
        serve(options)


def serve(options: dict[str, Any]) -> None:
    """Run the server."""
    from openbits.server.configuration import Configuration, read_configuration  # noqa: PLC0415 - see `publish`
    from openbits.server.main import CannotStart, run  # noqa: PLC0415
    from openbits.server.tables import SettingsError  # noqa: PLC0415

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="bits-server: %(levelname)s %(message)s")
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    top, properties = settings_of(options)
    if not options["root"] and not options["config"]:
        raise click.UsageError("say which directory is served, such as --root /srv/files")

    def read() -> Configuration:
        return read_configuration(options["config"], top=top, root_properties=properties)

    try:
        run(read(), read)
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    except CannotStart as error:
        raise Fault(str(error)) from None


def settings_of(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the options set at the top level of the configuration, and for the root as an upload directory."""
    top: dict[str, Any] = {
        "root": _absolute(options["root"]),
        "listen": options["listen"],
        "tls_certificate": _absolute(options["tls_cert"]),
        "tls_key": _absolute(options["tls_key"]),
        "publish": None if options["control_socket"] is None else {"socket": _absolute(options["control_socket"])},
    }
    if (options["notify_url"] is None) != (options["notify_type"] is None):
        raise click.UsageError("--notify-url and --notify-type belong together")
    properties: dict[str, Any] = {
        "allow_overwrites": options["allow_overwrites"] or None,
        "maximum_upload_size": options["max_upload_size"],
        "session_timeout": options["session_timeout"],
        "server_notification_url": options["notify_url"],
        "server_notification_type": options["notify_type"],
        "host_id": options["host_id"],
        "host_id_fallback_timeout": options["host_id_fallback_timeout"],
    }
    return _given(top), _given(properties)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else path


# --- the commands that speak to a server ---------------------------------------------------------


def _socket_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--socket",
        "socket_path",
        metavar="PATH",
        help="The server's control socket. Else: $BITS_SERVER_SOCKET, yours, the system's.",
    )(function)


@bits_server.command("publish", short_help="Hand out a file or directory under a URL of your choice.")
@click.argument("prefix")
@click.argument("path")
@click.option("--expires", metavar="WHEN", help="Until when: 90m, 12h, 7d, or a time such as 2026-12-31T18:00.")
@click.option("--allow", metavar="GROUP", help="Only for members of this group (a trusted proxy says who asks).")
@_socket_option
def publish(prefix: str, path: str, expires: str | None, allow: str | None, socket_path: str | None) -> None:
    """Hand out PATH under PREFIX, such as /drivers, until the server stops.

    PATH is a file, or a directory with all that is below it; it is opened with your rights. A file that takes its place
    later is not handed out: publish it again.
    """
    lasts_s = None if expires is None else _lasts_s(expires)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Fault(f"{path} cannot be opened: {error.strerror}") from None
    try:
        request = {"do": "publish", "prefix": prefix, "path": os.path.abspath(path), "lasts_s": lasts_s, "allow": allow}
        _ask(socket_path, request, fd=fd)
    finally:
        os.close(fd)


@bits_server.command("unpublish", short_help="Hand it out no more.")
@click.argument("prefix")
@_socket_option
def unpublish(prefix: str, socket_path: str | None) -> None:
    """Hand out no more what was published under PREFIX."""
    _ask(socket_path, {"do": "unpublish", "prefix": prefix})


@bits_server.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@_socket_option
def list_published(*, as_json: bool, socket_path: str | None) -> None:
    """List what is published."""
    found = _ask(socket_path, {"do": "list"})["publications"]
    for each in found:
        for key in ("published_at", "expires_at"):
            each[key] = None if each[key] is None else _time_text(each[key])
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for each in found:
        allow = f" for {each['allow']}" if each["allow"] else ""
        until = f" until {each['expires_at']}" if each["expires_at"] else ""
        slash = "/" if each["directory"] else ""
        click.echo(f"{_safe(each['prefix'])}  {_safe(each['path'])}{slash}{allow}{until}")


def _ask(socket_path: str | None, request: dict[str, Any], *, fd: int | None = None) -> dict[str, Any]:
    # A command that only asks does not pay for the server's modules, nor `--help` for either.
    from openbits.server.control import call  # noqa: PLC0415
    from openbits.server.publications import NotPublished  # noqa: PLC0415

    paths = [socket_path] if socket_path else _candidates()
    for path in paths:
        try:
            return call(path, request, fd=fd)
        except NotPublished as refusal:
            raise Fault(str(refusal)) from None
        except (FileNotFoundError, ConnectionRefusedError):
            continue
        except OSError as error:
            raise Fault(f"the server at {path} cannot be asked: {error.strerror or error}") from None
    raise Fault(f"no server answers at {' or '.join(paths)}: start one, or name its socket with --socket")


def _candidates() -> list[str]:
    named = os.environ.get("BITS_SERVER_SOCKET")
    if named:
        return [named]
    # One's own before the machine's, which may belong to somebody who lets nobody publish.
    return [SYSTEM_SERVER_SOCKET] if os.geteuid() == 0 else [user_server_socket(), SYSTEM_SERVER_SOCKET]


def _lasts_s(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is not None:
        return float(int(found[1]) * _UNIT_S[found[2]])
    try:
        # A time without a zone is the reader's own.
        until = dt.datetime.fromisoformat(text).astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise click.UsageError(f"--expires {text} is no time: write 90m, 12h, 7d or 2026-12-31T18:00") from None
    return (until - dt.datetime.now(dt.UTC)).total_seconds()


def _time_text(epoch_s: float) -> str:
    return dt.datetime.fromtimestamp(epoch_s, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _safe(text: str) -> str:
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `bits-server` and return its exit status."""
    try:
        with bits_server.make_context("bits-server", list(sys.argv[1:] if arguments is None else arguments)) as ctx:
            bits_server.invoke(ctx)
    except click.ClickException as error:
        line = _NEWLINES.sub(" ", error.format_message())
        hint = " (see 'bits-server --help')" if isinstance(error, click.UsageError) else ""
        click.echo(f"bits-server: {line}{hint}", err=True)
        return EXIT_USAGE if isinstance(error, click.UsageError) else EXIT_FAILED
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
