"""One call of `bitsadmin`: its switch, arguments and options, and the way to the service, opened when it is used."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final

from openbits.cli.bitsadmin import targets
from openbits.cli.bitsadmin.output import Output
from openbits.cli.bitsadmin.switches import Switch
from openbits.cli.text import safe
from openbits.client import calls
from openbits.client.calls import Json
from openbits.client.discovery import Endpoint
from openbits.client.manager import Job, Manager
from openbits.client.session import Session
from openbits.errors import BitsError

_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20}")


class UsageFailure(Exception):
    """The command line is wrong; the text says how, and the help of the switch follows it."""


class Failure(Exception):
    """What could not be done: `action` stands behind `Unable to`."""

    def __init__(self, action: str, error: BitsError) -> None:
        super().__init__(action)
        self.action = action
        self.error = error


@contextlib.contextmanager
def attempt(action: str) -> Iterator[None]:
    """Say of a BitsError inside what it kept us from: `with attempt("add file"): …`."""
    try:
        yield
    except BitsError as error:
        raise Failure(action, error) from error


class SharedManager(Manager):
    """A manager that goes the way that was already found."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session


class Invocation:
    """What a switch's function gets."""

    def __init__(
        self, switch: Switch, arguments: Sequence[str], options: Mapping[str, str | None], output: Output
    ) -> None:
        self.switch = switch
        self.arguments = tuple(arguments)
        self.options = options
        """The options that were given, in lower case, with their values."""
        self.output = output

    def __repr__(self) -> str:
        return f"<Invocation of {self.switch.full_name} with {len(self.arguments)} arguments>"

    def has(self, option: str) -> bool:
        """Whether an option was given."""
        return option in self.options

    @cached_property
    def session(self) -> Session:
        """The way to the service: BITS_SOCKET, else the system's, else the user's."""
        return Session(Endpoint(None, start=_start_user_service if self.switch.starts_service else None))

    @cached_property
    def manager(self) -> Manager:
        """The client's manager."""
        return SharedManager(self.session)

    @cached_property
    def job_id(self) -> str:
        """The id of the job that the first argument names."""
        with attempt("find job"):
            return targets.find_job(self.session, self.arguments[0])

    @cached_property
    def job(self) -> Job:
        """The job that the first argument names, as the client's object."""
        return Job(self.session, self.job_id)

    def detail(self) -> Json:
        """Return everything about that job in one call."""
        return self.session.perform(calls.job(self.job_id))


def _start_user_service() -> None:
    from openbits.client.autostart import start_user_service  # noqa: PLC0415 - most calls find a service

    start_user_service()


def number(text: str, what: str) -> int:
    """Read a number that is not negative, decimal or with 0x; raises UsageFailure."""
    if _NUMBER.fullmatch(text) is None:
        raise UsageFailure(f"{what} is a number, not {safe(text)!r}")
    return int(text, 16 if text[:2].lower() == "0x" else 10)
