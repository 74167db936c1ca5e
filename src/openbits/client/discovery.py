"""Which service is meant: --socket, BITS_SOCKET, the system's socket, the user's socket, in that order.

A name that was given is the only one that is tried.  A socket file that nobody listens on counts as
no service, because that is what a service that was killed leaves behind.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from openbits import paths
from openbits.client.transport import Connection, connect_unix
from openbits.errors import BitsError

_NOBODY_THERE: Final = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A place where a service may answer."""

    path: str
    source: str
    """`--socket`, `BITS_SOCKET`, `system` or `user`."""


def candidates(given: str | None = None, environment: Mapping[str, str] = os.environ) -> tuple[Candidate, ...]:
    """Return the places where the service is looked for, in order."""
    if given:
        return (Candidate(path=given, source="--socket"),)
    if environment.get("BITS_SOCKET"):
        return (Candidate(path=environment["BITS_SOCKET"], source="BITS_SOCKET"),)
    return (
        Candidate(path=paths.SYSTEM_SOCKET, source="system"),
        Candidate(path=paths.user_socket(environment), source="user"),
    )


def no_service(message: str) -> BitsError:
    """The error for a service that cannot be reached."""
    return BitsError("ERROR_SERVICE_NOT_ACTIVE", message)


class Endpoint:
    """Connects to the first candidate that answers; `start`, if given, is called where none does.

    Once one has answered it is the only one: a service that goes away is waited for, and neither exchanged for
    another one, which would have other jobs, nor started by us, because somebody may have stopped it.
    """

    def __init__(self, given: str | None = None, *, start: Callable[[], None] | None = None) -> None:
        self.candidates = candidates(given)
        self._start = start

    def __repr__(self) -> str:
        return f"Endpoint({', '.join(candidate.path for candidate in self.candidates)})"

    def path(self) -> str:
        """Return the socket that answers; raises ERROR_SERVICE_NOT_ACTIVE, E_ACCESSDENIED."""
        connection = self.connect()
        connection.close()
        return connection.path

    def connect(self) -> Connection:
        """Connect; raises ERROR_SERVICE_NOT_ACTIVE, or E_ACCESSDENIED if a socket is there that may not be used."""
        connection = self._connect_to_first()
        if connection is None and self._start is not None:
            start, self._start = self._start, None
            start()
            connection = self._connect_to_first()
        if connection is None:
            raise no_service(f"no service answers at {self._places()}: start bitsd, or name its socket with --socket")
        return connection

    def _connect_to_first(self) -> Connection | None:
        denied: BitsError | None = None
        for candidate in self.candidates:
            try:
                connection = Connection(connect_unix(candidate.path), candidate.path)
            except PermissionError as error:
                denied = BitsError("E_ACCESSDENIED", f"{candidate.path} may not be connected to: {error.strerror}")
            except OSError as error:
                if error.errno not in _NOBODY_THERE:
                    raise no_service(f"{candidate.path} cannot be connected to: {error.strerror}") from error
            else:
                self.candidates, self._start = (candidate,), None
                return connection
        if denied is not None:
            raise denied
        return None

    def _places(self) -> str:
        return " or ".join(candidate.path for candidate in self.candidates)
