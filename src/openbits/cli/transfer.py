"""What `bits get` and `bits put` share: the job that is created, followed and completed on behalf of a person.

The job belongs to the service from the moment it is created: whoever interrupts the command is told how to find it.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import click

from openbits.cli import proxyenv, targets
from openbits.cli.commandline import split_command
from openbits.cli.common import PRIORITIES, Context, hint, json_option, print_json, say, socket_option
from openbits.cli.display import choose_display
from openbits.cli.follow import Follower, raise_if_failed
from openbits.cli.passwords import PasswordSource, password_options
from openbits.cli.text import safe
from openbits.client import calls, notifications
from openbits.client.calls import Call, Json, Script
from openbits.client.session import Session
from openbits.errors import BitsError, ExitCode

NAME_LIMIT: Final = 256
MANY_FILES: Final = 20
SCHEMES: Final = ("negotiate", "ntlm", "digest", "basic")
"""A person knows a password, not what the server asks for it by; the strongest that it offers is used."""

_OPTIONS: Final = (
    click.option("--name", metavar="NAME", help="Display name of the job. Else: the name of the first file."),
    click.option(
        "--priority",
        type=click.Choice(PRIORITIES),
        default="foreground",
        show_default=True,
        help="How urgent the job is; all but foreground stand back for other traffic.",
    ),
    click.option(
        "--async", "is_async", is_flag=True, help="Print the job's id and do not wait. 'bits complete' ends it."
    ),
    click.option(
        "--header", "headers", metavar="'NAME: VALUE'", multiple=True, help="Header to send; may be repeated."
    ),
    click.option(
        "--retry-delay",
        metavar="S",
        type=click.IntRange(min=0),
        default=5,
        show_default=True,
        help="Minimum retry delay after a transient error, in seconds.",
    ),
    click.option(
        "--no-proxy-env",
        is_flag=True,
        help="Leave out the proxies of this shell's http_proxy, https_proxy, all_proxy and no_proxy.",
    ),
    click.option(
        "--user", metavar="NAME", help="User name for a server that asks for one; the password is asked for, or read."
    ),
    click.option(
        "--notify-url",
        metavar="URL",
        help="Where the service announces by a POST that the job is TRANSFERRED, or in ERROR (needs --async).",
    ),
    click.option(
        "--notify-command",
        metavar="'PROGRAM ARG...'",
        help="What the service runs then, as you; no shell reads it (needs --async). See 'bits notify'.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Show no progress."),
    json_option,
    socket_option,
)


@dataclass(frozen=True, slots=True)
class Login:
    """A user name and a password for the servers of a job."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the options say that both commands have."""

    name: str | None
    priority: str
    is_async: bool
    headers: Sequence[str]
    retry_delay: int
    no_proxy_env: bool
    user: str | None
    notify_url: str | None
    notify_command: str | None
    quiet: bool
    as_json: bool
    password: PasswordSource

    def settings(self, urls: Iterable[str]) -> dict[str, Any]:
        """Return the job's properties; says which proxies the shell's environment brings in. Raises UsageError."""
        settings: dict[str, Any] = {"priority": self.priority, "minimum_retry_delay": self.retry_delay}
        if not self.is_async and (self.notify_url or self.notify_command):
            raise click.UsageError("who waits for the job needs no notification: say --async")
        if self.notify_url:
            settings["notify_url"] = targets.checked_url(self.notify_url)
        if self.headers:
            settings["custom_headers"] = targets.checked_headers(self.headers)
        if not self.no_proxy_env:
            proxies, line = proxyenv.settings_of(os.environ, urls)
            settings |= proxies
            if line:
                hint(line)
        return settings

    def login(self) -> Login | None:
        """Return the user name and the password, which is asked for now; None without. Raises UsageError."""
        if self.user is None:
            if self.password.is_named:
                raise click.UsageError("the password needs a user name: give --user NAME")
            return None
        return Login(self.user, self.password.read(f"Password of {safe(self.user)}: "))

    def display_name(self, path: str) -> str:
        """Return the job's name: the one that was asked for, or that of its first file."""
        return self.name or safe(os.path.basename(path))[:NAME_LIMIT]


def transfer_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `Wishes`, and give them to the command as `wishes`."""

    @functools.wraps(function)
    def command(*arguments: Any, **options: Any) -> None:
        wishes = Wishes(**{name: options.pop(name) for name in Wishes.__slots__})
        function(*arguments, wishes=wishes, **options)

    for option in reversed(_OPTIONS):
        command = option(command)
    return password_options(command)


def start_service_if_needed() -> None:
    """Start the per-user service; the module behind is loaded only then."""
    from openbits.client.autostart import start_user_service  # noqa: PLC0415 - most calls find a service

    start_user_service()


def carry_out(context: Context, job: Json, wishes: Wishes) -> None:
    """Create a job and see it to its end, or print its id where nobody is to wait."""
    login = wishes.login()
    command = None if wishes.notify_command is None else split_command(wishes.notify_command)
    session = context.session(start=start_service_if_needed)
    preparing = preparations(login, command)
    job_id = session.perform(create_with(job, preparing) if preparing else calls.create_large_job(job))
    if wishes.is_async:
        print_json({"id": job_id}) if wishes.as_json else say(job_id)
        return
    ended = see_to_end(session, job_id, job["name"], wishes)
    files = [
        {"remote_name": targets.shown_url(file["remote_name"]), "local_name": file["local_name"]}
        for file in job["files"]
    ]
    if wishes.as_json:
        print_json({**ended, "files": files})
    raise_if_failed(ended)
    if not wishes.as_json:
        print_paths(results(ended, files))


def preparations(login: Login | None, command: tuple[str, Sequence[str]] | None) -> list[Callable[[str], Call[Json]]]:
    """Return what is to be done with a job before it runs.

    A user name and a password are for whatever scheme its servers ask for.
    """
    preparing: list[Callable[[str], Call[Json]]] = []
    if command is not None:
        preparing.append(lambda job_id: notifications.set_command(job_id, *command))
    if login is not None:
        preparing += (functools.partial(_login, login, scheme) for scheme in SCHEMES)
    return preparing


def _login(login: Login, scheme: str, job_id: str) -> Call[Json]:
    return calls.set_credentials(job_id, "server", scheme, login.user, login.password)


def create_with(job: Json, preparing: Iterable[Callable[[str], Call[Json]]]) -> Script[str]:
    """Create a job, prepare it, then resume it."""
    job_id = yield from calls.create_large_job({**job, "resume": False})
    try:
        for prepare in preparing:
            yield prepare(job_id)
        yield calls.resume(job_id)
    except BitsError:
        yield calls.cancel(job_id)
        raise
    return job_id


def see_to_end(session: Session, job_id: str, name: str, wishes: Wishes) -> Json:
    """Wait for a job, complete it and return it as it then is; Ctrl+C leaves it to the service."""
    try:
        job = Follower(session, job_id, choose_display(name, quiet=wishes.quiet)).wait_settled()
        assert job is not None
        return complete_or_explain(session, job_id) if job["state"] == "TRANSFERRED" else job
    except KeyboardInterrupt:
        raise interrupted(job_id) from None


def results(job: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a completed job has made: paths of files, that of the reply, or where the file went."""
    if job["type"] == "download":
        return [file["local_name"] for file in files]
    if job["type"] == "upload-reply" and job.get("reply"):
        return [job["reply"]["local_name"]]
    return [targets.shown_url(file["remote_name"]) for file in files]


def complete_or_explain(session: Session, job_id: str) -> Json:
    """Complete a TRANSFERRED job; an error says that nothing is lost and what to do."""
    try:
        outcome = session.perform(calls.complete(job_id))
    except BitsError as error:
        if error.name == "BG_E_INVALID_STATE":
            # Somebody else completed or cancelled it in the same moment.
            return session.perform(calls.job(job_id))
        raise BitsError(error.name, f"{error.message}: then call 'bits complete {job_id}' again") from error
    if outcome["result"] != "S_OK":
        hint(f"bits: {BitsError(outcome['result'])}")
    job: Json = outcome["job"]
    return job


def interrupted(job_id: str) -> click.exceptions.Exit:
    """Say how to go on with a job that nobody waits for any more."""
    hint(
        f"bits: the job goes on in the background: follow it with 'bits wait {job_id} --complete', "
        f"stop it with 'bits cancel {job_id}'"
    )
    return click.exceptions.Exit(ExitCode.INTERRUPTED)


def hint_at_passwords(urls: Iterable[str]) -> None:
    """Say that what stands on a command line is no secret, where it is a password."""
    if any(":" in url.partition("://")[2].partition("/")[0].rpartition("@")[0] for url in urls):
        hint("bits: every account can see the password in the URL while this command runs: give --user instead")


def print_paths(paths: Sequence[str]) -> None:
    """Print where the files are: every path for a program, a summary of many for a person."""
    if len(paths) > MANY_FILES and sys.stdout.isatty():
        common = os.path.commonpath(paths)
        say(f"{len(paths)} files in {safe(common)}")
        return
    say("\n".join(safe(path) for path in paths))
