"""One request of an upload and its answer: by which proxy, with which proof of who asks, and how long to wait.

A request ends with exactly one of `on_answer`, `on_broken` and `on_failed`.  Challenges that can be met are met, by
sending the same request again; redirects are answers like any other.  An answer whose header block is whole counts,
whatever became of the connection after it: who refuses a body need not read it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from openbits.core.http import Response, host_of
from openbits.errors import ErrorContext
from openbits.frames.worker import StartTransfer
from openbits.worker.answers import invalid_answer, refused_url
from openbits.worker.asking import Body, Preparing, Request
from openbits.worker.challenges import ASKED_BY
from openbits.worker.departure import Departure, Departures
from openbits.worker.failure import Failure, shown
from openbits.worker.loop import Loop
from openbits.worker.pace import Pace
from openbits.worker.proxies import Proxies
from openbits.worker.run import Lane
from openbits.worker.source import Pieces

ANSWER_PATIENCE_S: Final = 300.0
"""How long the server may work at what it has got whole: it may have an application to ask (U30)."""
_LOOK_S: Final = 0.25
_IDLE_S: Final = 1.0
"""A kept connection that was in use so short a time ago has not been closed for being idle: it broke."""


class Surroundings(Protocol):
    """The transfer, as far as it matters here."""

    settings: StartTransfer
    proxies: Proxies
    departures: Departures
    pace: Pace


class Exchange:
    """One request at a time; it is the client's handler."""

    def __init__(
        self,
        run: Surroundings,
        lane: Lane,
        loop: Loop,
        *,
        meant_for: str,
        userinfo: str = "",
        on_answer: Callable[[Response], None],
        on_broken: Callable[[Failure, bool], None],
        on_failed: Callable[[Failure], None],
        on_sent: Callable[[int], None],
    ) -> None:
        self._run = run
        self._lane = lane
        self._loop = loop
        self._meant_for = meant_for
        """The address for which the job may prove who it is."""
        self._userinfo = userinfo
        self._on_answer = on_answer
        self._on_broken = on_broken
        self._on_failed = on_failed
        self._on_sent = on_sent
        self._request: Request | None = None
        self._pieces: Pieces | None = None
        self._preparing: Preparing | None = None
        self._departure: Departure | None = None
        self._follow_up: Callable[[], None] | None = None
        self._response: Response | None = None
        self.last_response: Response | None = None
        """The last answer of the server, whatever became of it (F10)."""
        self.refused_url = ""
        """See `Failure.refused_url`: of the last answer."""
        self._answer_patience_s = 0.0
        self._answer_due_at: float | None = None
        self._acknowledged_bytes = 0
        self._base_bytes: int | None = None
        self._look_at = 0.0
        self._answered_at: float | None = None
        self._was_idle = False
        self.is_body_sent = True
        """Whether libcurl had taken the whole body when the last answer came."""
        lane.on_stall = self._on_stall

    def __repr__(self) -> str:
        return f"<Exchange {self._request.url if self._request is not None else 'idle'}>"

    # --- asking ------------------------------------------------------------------------------

    def send(
        self,
        method: str,
        url: str,
        headers: tuple[str, ...],
        pieces: Pieces | None,
        *,
        fresh: bool,
        may_take_long: bool,
    ) -> None:
        """Make a request; `may_take_long`: the server has something to do before it answers."""
        self._pieces = pieces
        if pieces is not None:
            pieces.on_take = self._on_take
        self._answer_patience_s = ANSWER_PATIENCE_S if may_take_long else 0.0
        self._was_idle = self._answered_at is None or self._loop.now - self._answered_at > _IDLE_S
        self._begin(
            Request(url=url, headers=headers, method=method, outgoing=pieces, fresh=fresh, userinfo=self._userinfo)
        )

    def _begin(self, request: Request) -> None:
        self._request = request
        self._wait_for(self._run.departures.ready(request, meant_for=self._meant_for, done=self._depart))

    def _wait_for(self, preparing: Preparing) -> None:
        if not preparing.is_over:
            self._preparing = preparing

    def _depart(self, outcome: Departure | Failure) -> None:
        self._preparing = None
        if isinstance(outcome, Failure):
            self._refused(outcome)
            return
        self._departure = outcome
        self._request = outcome.request
        self._response = self._follow_up = None
        self._answer_due_at = None
        self._acknowledged_bytes = 0
        self._base_bytes = None
        self._look_at = 0.0
        self._lane.watchdog.touch()
        self._lane.client.send(outcome.request, self)

    def _refused(self, failure: Failure) -> None:
        """The request could not even begin."""
        if not failure.is_break:
            self._fail(failure)
            return
        self._lane.watchdog.rest()
        self._stop_reading()
        self._on_broken(self._run.proxies.named(failure, self._request), False)

    def abort(self) -> None:
        """Drop the request, if there is one; nothing more is heard of it."""
        if self._preparing is not None:
            self._preparing.cancel()
            self._preparing = None
        self._lane.watchdog.rest()
        self._lane.client.abort()
        self._stop_reading()

    def _stop_reading(self) -> None:
        if self._pieces is not None:
            self._pieces.on_take = None
            self._pieces.stop()
            self._pieces = None

    # --- challenges --------------------------------------------------------------------------

    def _challenged(self, response: Response) -> Callable[[], None]:
        departure, meant_for = self._departure, self._meant_for
        assert departure is not None
        refusal = self._run.departures.refusal(departure, response, meant_for=meant_for)
        if refusal is not None:
            return lambda: self._fail(refusal)

        def answer() -> None:
            self._lane.watchdog.touch()
            self._wait_for(self._run.departures.again(departure, response, meant_for=meant_for, done=self._depart))

        return answer

    def _fail(self, failure: Failure) -> None:
        self._lane.watchdog.rest()
        self._stop_reading()
        self._on_failed(self._run.proxies.named(failure, self._request))

    # --- the client's handler ----------------------------------------------------------------

    def on_response(self, response: Response) -> Body:
        """See `asking.Handler`: of an answer only the header block is of use."""
        self._lane.watchdog.touch()
        if response.status in ASKED_BY:
            self._follow_up = self._challenged(response)
        elif response.status < 300 and self._departure is not None and self._departure.lacks_body:
            # What it takes for done was never sent to it: only a greeting was.
            failure = invalid_answer(self._departure.request.url, "took a handshake that had only begun for the file")
            self._follow_up = lambda: self._fail(failure)
        self._response = self.last_response = response
        return Body.DISCARD

    def on_data(self, data: bytes) -> None:
        """See `asking.Handler`."""
        raise AssertionError(f"{self!r} did not ask for {len(data)} bytes")

    def on_socket(self, fd: int) -> None:
        """See `asking.Handler`."""
        raise AssertionError(f"{self!r} did not ask for descriptor {fd}")

    def on_end(self, failure: Failure | None) -> None:
        """See `asking.Handler`."""
        self._lane.watchdog.rest()
        response, follow_up = self._response, self._follow_up
        self.is_body_sent = self._pieces is None or self._lane.client.handed_bytes >= self._pieces.length
        self._answered_at = self._loop.now
        if failure is not None and failure.has_other_key and self._run.departures.distrust(self._bare()):
            self._begin(self._bare())
        elif failure is not None and not failure.is_break:
            self._fail(failure)
        elif response is None:
            assert failure is not None
            self._lost(failure)
        elif follow_up is not None:
            follow_up()
        else:
            self._stop_reading()
            self.refused_url = refused_url(response.status, self._bare().url)
            self._on_answer(response)

    def _lost(self, failure: Failure) -> None:
        request = self._request
        assert request is not None
        if self._was_idle and self._lane.client.was_reused and not request.fresh:
            # The server had closed the kept connection: nothing is wrong with the upload.
            self._begin(replace(self._bare(), fresh=True))
            return
        if self._run.proxies.has_other_way(failure, request):
            self._begin(self._bare())
            return
        self._give_up(failure)

    def _bare(self) -> Request:
        assert self._departure is not None
        return self._departure.bare

    def _give_up(self, failure: Failure) -> None:
        was_reached = self._lane.client.was_connected
        self._stop_reading()
        self._on_broken(self._run.proxies.named(failure, self._request), was_reached)

    # --- how far it has come -----------------------------------------------------------------

    def _on_take(self) -> None:
        """libcurl takes a piece: time to look, now and then, how much of it has arrived."""
        if self._loop.now >= self._look_at:
            self._look_at = self._loop.now + _LOOK_S
            self._loop.post(self._look)

    def _look(self) -> None:
        if self._pieces is None:
            return
        flow = self._lane.client.outflow()
        if flow is None:
            return
        if self._base_bytes is None or flow.acknowledged_bytes < self._base_bytes:
            # What was acknowledged before does not belong to this request; less than before is another connection,
            # to which libcurl has turned because the kept one was dead.
            self._base_bytes = self._acknowledged_bytes = flow.acknowledged_bytes
            return
        self._on_sent(min(flow.acknowledged_bytes - self._base_bytes, self._pieces.length))

    def _on_stall(self) -> None:
        """Nothing came in for the stall timeout: only now is it asked whether anything went out."""
        is_for_people = self._preparing is not None and self._preparing.is_for_people
        if is_for_people or not self._run.pace.may_go:
            self._lane.watchdog.touch()
            return
        request, pieces, client = self._request, self._pieces, self._lane.client
        assert request is not None
        timeout_s = self._run.settings.stall_timeout_s
        flow = client.outflow()
        if pieces is not None and flow is not None and flow.acknowledged_bytes != self._acknowledged_bytes:
            self._acknowledged_bytes = flow.acknowledged_bytes
            self._lane.watchdog.touch()
            return
        is_sent = pieces is None or client.handed_bytes >= pieces.length
        if is_sent and flow is not None and not flow.queued_bytes and self._has_patience(timeout_s):
            self._lane.watchdog.touch()
            return
        if pieces is not None and pieces.is_waiting:
            failure = Failure(
                name="ERROR_READ_FAULT",
                context=ErrorContext.LOCAL_FILE,
                message=f"{shown(pieces.path)} gave no bytes for {timeout_s} s: it is tried again later",
                transient=True,
            )
            self.abort()
            self._on_failed(failure)
            return
        what = "did not answer" if is_sent else "took no bytes"
        failure = Failure(
            name="ERROR_WINHTTP_TIMEOUT",
            context=ErrorContext.GENERAL_TRANSPORT,
            message=f"{host_of(request.url)} {what} for too long",
            transient=True,
            is_break=True,
        )
        was_reached = client.was_connected
        self.abort()
        self._on_broken(self._run.proxies.named(failure, request), was_reached)

    def _has_patience(self, waited_s: float) -> bool:
        if self._answer_due_at is None:
            self._answer_due_at = self._loop.now - waited_s + self._answer_patience_s
        return self._loop.now < self._answer_due_at
