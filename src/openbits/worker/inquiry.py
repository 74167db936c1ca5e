"""A request of the worker's own, beside those for files: what a server shows, what an authority has published.

It goes by the same door as the others and meets the challenges of proxies as they do.  No server learns by it whose
job it is: only proxies are ever told who asks.  An inquiry ends exactly once, unless it was dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from openbits.core.http import Response, host_of
from openbits.errors import ErrorContext
from openbits.worker.asking import Body, Preparing, Request
from openbits.worker.client import Client
from openbits.worker.departure import Departure
from openbits.worker.failure import Failure, TransferError
from openbits.worker.loop import Loop

NOBODY: Final = ""
"""The address for which the job may prove who it is: none."""
_PROXY_AUTHENTICATION: Final = 407


class Door(Protocol):
    """See `departure.Departures`."""

    def ready(self, request: Request, *, meant_for: str, done: Callable[[Departure | Failure], None]) -> Preparing:
        """Get a request ready."""

    def again(
        self,
        departure: Departure,
        challenge: Response,
        *,
        meant_for: str,
        done: Callable[[Departure | Failure], None],
    ) -> Preparing:
        """Get a request ready that was challenged."""

    def refusal(self, departure: Departure, challenge: Response, *, meant_for: str) -> Failure | None:
        """Why a challenge is not answered."""


class Inquiry:
    """One question; it is the client's handler, and the client is its own."""

    def __init__(
        self,
        client: Client,
        door: Door,
        loop: Loop,
        *,
        limit_s: float,
        limit_bytes: int,
        done: Callable[[Inquiry, Failure | None], None],
    ) -> None:
        self.client = client
        self.content = bytearray()
        self.status = 0
        self._door = door
        self._limit_bytes = limit_bytes
        self._limit_s = limit_s
        self._done = done
        self._departure: Departure | None = None
        self._preparing: Preparing | None = None
        self._follow_up: Callable[[], None] | None = None
        self._url = ""
        self._deadline = loop.call_later(limit_s, self._on_deadline)
        self.is_over = False

    def __repr__(self) -> str:
        return f"<Inquiry {self._url}>"

    @property
    def request(self) -> Request | None:
        """What was asked last, and on which way."""
        return None if self._departure is None else self._departure.request

    def start(self, request: Request) -> None:
        """Ask."""
        self._url = request.url
        self._wait_for(self._door.ready(request, meant_for=NOBODY, done=self._depart))

    def drop(self) -> None:
        """Nobody wants to know any more; nothing is heard of it."""
        self.is_over = True
        self._deadline.cancel()
        if self._preparing is not None:
            self._preparing.cancel()
            self._preparing = None
        self.client.close()

    def _wait_for(self, preparing: Preparing) -> None:
        if not preparing.is_over:
            self._preparing = preparing

    def _depart(self, outcome: Departure | Failure) -> None:
        self._preparing = None
        if isinstance(outcome, Failure):
            self._end(outcome)
            return
        self._departure = outcome
        self.client.send(outcome.request, self)

    def _end(self, failure: Failure | None) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._deadline.cancel()
        self._done(self, failure)
        self.client.close()

    def _on_deadline(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            self._preparing = None
        self.client.abort()
        self._end(
            Failure(
                name="ERROR_WINHTTP_TIMEOUT",
                context=ErrorContext.GENERAL_TRANSPORT,
                message=f"{host_of(self._url)} did not answer within {self._limit_s:g} s",
                transient=True,
                is_break=True,
            )
        )

    # --- the client's handler ----------------------------------------------------------------

    def on_response(self, response: Response) -> Body:
        """See `asking.Handler`."""
        self.status = response.status
        departure = self._departure
        assert departure is not None
        if response.status != _PROXY_AUTHENTICATION:
            return Body.TAKE if response.status == 200 else Body.DISCARD
        refusal = self._door.refusal(departure, response, meant_for=NOBODY)
        if refusal is not None:
            self._follow_up = lambda: self._end(refusal)
        else:
            self._follow_up = lambda: self._wait_for(
                self._door.again(departure, response, meant_for=NOBODY, done=self._depart)
            )
        return Body.DISCARD

    def on_data(self, data: bytes) -> None:
        """See `asking.Handler`."""
        self.content += data
        if len(self.content) > self._limit_bytes:
            raise TransferError(
                Failure(
                    name="BG_E_TOO_LARGE",
                    context=ErrorContext.GENERAL_TRANSPORT,
                    message=f"{host_of(self._url)} sends more than {self._limit_bytes} bytes",
                    transient=False,
                )
            )

    def on_socket(self, fd: int) -> None:
        """See `asking.Handler`."""
        raise AssertionError(f"{self!r} did not ask for descriptor {fd}")

    def on_end(self, failure: Failure | None) -> None:
        """See `asking.Handler`."""
        follow_up, self._follow_up = self._follow_up, None
        if follow_up is not None:
            follow_up()
        else:
            self._end(failure)
