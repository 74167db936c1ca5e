"""One file on its way over HTTP: asking, following redirects, connecting again, giving up, ending.

What the bytes are and where they belong is for the subclasses (`download`, `rangedownload`).  A
fetch ends exactly once: `on_done`, or `on_closed`, which `on_failed` may have announced.  Nothing
is decided inside libcurl's callbacks that would have to send: they leave a follow-up behind.
"""

from __future__ import annotations

import enum
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from openbits.core.http import REDIRECT_LIMIT, Response, method_after
from openbits.core.names import check_remote_name, request_url
from openbits.core.redirects import HTTPS_TO_HTTP, RedirectPolicy, RedirectRefused, policy_of, redirect_target
from openbits.core.retry import GiveUp, Patience
from openbits.errors import BitsError
from openbits.frames.worker import FileSpec, FileStarted
from openbits.worker.answers import (
    disallowed_redirect,
    refused_redirect,
    stalled,
    status_failure,
    too_large,
    too_many_redirects,
)
from openbits.worker.asking import Body, Preparing, Request
from openbits.worker.challenges import ASKED_BY
from openbits.worker.checksum import Checksum
from openbits.worker.departure import Departure
from openbits.worker.failure import Failure, TransferError, local_failure
from openbits.worker.finishing import Finishing
from openbits.worker.headers import lines_for
from openbits.worker.loop import Timer
from openbits.worker.run import Lane, Run
from openbits.worker.sink import Sink


class Phase(enum.Enum):
    """Where a fetch stands."""

    NETWORK = "network"
    PAUSING = "pausing"
    FINISHING = "finishing"
    CLOSED = "closed"


class HttpFetch(ABC):
    """The part that all HTTP fetches have in common; it is the engine's handler."""

    def __init__(self, run: Run, lane: Lane, spec: FileSpec) -> None:
        self.run = run
        self.spec = spec
        self._lane = lane
        self._loop = run.tools.loop
        self._phase = Phase.NETWORK
        # libcurl takes hosts in ASCII only; most names are that already.
        self._first_url = spec.remote_name if spec.remote_name.isascii() else request_url(spec.remote_name)
        self._meant_for = run.meant_for or spec.meant_for or self._first_url
        self._url = self._first_url
        self._redirects = 0
        # The reply to an upload is part of it: the job's wishes for downloads say nothing of it (H9).
        is_reply = bool(run.meant_for)
        self._redirect_flags = 0 if is_reply else run.settings.redirects
        self._method = "" if is_reply else run.settings.http_method
        """How the next request asks, where that is not GET (H10)."""
        self._may_repeat = not self._method
        self._reported_url = self._first_url
        self._response: Response | None = None
        self._told: Response | None = None
        """The last answer, and the last whose headers were told (F10)."""
        self._follow_up: Callable[[], None] | None = None
        self._request: Request | None = None
        self._preparing: Preparing | None = None
        self._departure: Departure | None = None
        """How the last request went."""
        self._attempt_bytes = 0
        self._furthest = 0
        # Most files never see a break: their patience is made when they do.
        self._patience: Patience | None = None
        self._progress_at: float | None = self._loop.now if run.has_progressed else None
        self._pause: Timer | None = None
        self._finishing: Finishing | None = None
        self._sink: Sink | None = None

    @property
    def sink(self) -> Sink:
        """The temporary file; made when it is first needed, which for many small files is never."""
        if self._sink is None:
            run, index = self.run, self.spec.index
            self._sink = Sink(
                self._loop,
                run.tools.syncer,
                run.place(self.spec),
                run.sink_settings,
                lambda durable: run.on_durable(index, durable),
                self._on_disk_failed,
            )
        return self._sink

    def _close_sink(self, done: Callable[[OSError | None], None]) -> None:
        if self._sink is None:
            self._loop.post(lambda: done(None))
        else:
            self._sink.close(done)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.spec.index} {self._phase.value} {self._url!r}>"

    # --- for the subclasses ------------------------------------------------------------------

    @abstractmethod
    def start(self) -> None:
        """Begin."""

    @abstractmethod
    def ask(self) -> tuple[str, ...]:
        """The header lines of the next request that say which bytes are wanted."""

    def before_retry(self) -> None:
        """A connection is about to be made again: what is wanted may be less by now."""
        return

    @abstractmethod
    def judge(self, response: Response) -> Body:
        """What to do with an answer that is no redirect; may leave a follow-up; may raise TransferError."""

    @abstractmethod
    def on_data(self, data: bytes) -> None:
        """Bytes of a body that was taken."""

    @abstractmethod
    def ended(self) -> None:
        """A body that was taken is complete."""

    def on_socket(self, fd: int) -> None:
        """See `engine.Handler`; only those who ask for the socket get it."""
        raise AssertionError(f"{self!r} did not ask for descriptor {fd}")

    def leave_network(self) -> None:
        """Let go of connection and timers."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._lane.on_stall == self._on_stall:
            self._abort()
            self._lane.watchdog.rest()
            self._lane.on_stall = None

    # --- asking ------------------------------------------------------------------------------

    def send(self, *, head: bool = False, fresh: bool = False) -> None:
        """Ask the server."""
        self._phase = Phase.NETWORK
        self._attempt_bytes = 0
        self._follow_up = None
        self._lane.on_stall = self._on_stall
        self._lane.watchdog.touch()
        lines = lines_for(self.run.header_lines, self._meant_for, self._url)
        # A kept connection may be closed by now, and what may change something is never sent a second time unasked.
        is_fresh = fresh or bool(self._method)
        self._request = Request(
            url=self._url,
            headers=lines + self.ask(),
            head=head,
            fresh=is_fresh,
            download_method=self._method,
            userinfo=self.spec.userinfo,
            index=self.spec.index,
        )
        self._wait_for(self.run.departures.ready(self._request, meant_for=self._meant_for, done=self._depart))

    def _wait_for(self, preparing: Preparing) -> None:
        if not preparing.is_over:
            self._preparing = preparing

    def _depart(self, outcome: Departure | Failure) -> None:
        self._preparing = None
        if isinstance(outcome, Failure):
            self._lane.watchdog.rest()
            if outcome.is_break and self._may_repeat:
                self._break(outcome)
            else:
                self.fail(outcome)
            return
        self._departure = outcome
        self._request = outcome.request
        self._lane.watchdog.touch()
        self._lane.client.send(outcome.request, self)

    def _challenged(self, response: Response) -> Body:
        departure, meant_for = self._departure, self._meant_for
        assert departure is not None
        refusal = self.run.departures.refusal(departure, response, meant_for=meant_for)
        if refusal is not None:
            return self.follow_up(lambda: self.fail(refusal))

        def answer() -> None:
            self._lane.watchdog.touch()
            self._wait_for(self.run.departures.again(departure, response, meant_for=meant_for, done=self._depart))

        return self.follow_up(answer)

    def _abort(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            self._preparing = None
        self._lane.client.abort()

    def _status_failure(self, response: Response, reason: str) -> Failure:
        proxy = self._request.proxy if self._request is not None else None
        return status_failure(response, self._url, reason, proxy=proxy)

    def follow_up(self, action: Callable[[], None]) -> Body:
        """Do this when the answer is over; its body is of no use."""
        self._follow_up = action
        return Body.DISCARD

    def on_response(self, response: Response) -> Body:
        """See `engine.Handler`."""
        self._lane.watchdog.touch()
        self._response = response
        if response.is_redirect:
            return self.follow_up(lambda: self._redirect(response))
        if response.status in ASKED_BY:
            return self._challenged(response)
        return self.judge(response)

    def on_end(self, failure: Failure | None) -> None:
        """See `engine.Handler`."""
        self._lane.watchdog.rest()
        follow_up, self._follow_up = self._follow_up, None
        try:
            if follow_up is not None:
                follow_up()
            elif failure is None:
                self.ended()
            else:
                self.handle(failure)
        except TransferError as error:
            self.fail(error.failure)

    def _redirect(self, response: Response) -> None:
        self._redirects += 1
        if self._redirects > REDIRECT_LIMIT:
            self.fail(too_many_redirects(response, self.spec.remote_name))
            return
        policy = policy_of(self._redirect_flags)
        is_refused = policy is RedirectPolicy.REFUSE
        target = reason = ""
        try:
            may_leave = not is_refused and bool(self._redirect_flags & HTTPS_TO_HTTP)
            target = redirect_target(self._url, response.get("location") or "", may_leave_https=may_leave)
        except RedirectRefused as error:
            reason = str(error)
        if is_refused:
            renamed = self._rename(target) if target else ""
            self.fail(disallowed_redirect(response, self._url, renamed))
        elif reason:
            self.fail(refused_redirect(self._url, reason))
        else:
            assert self._request is not None
            self._url = target
            self._method = method_after(self._method, response.status)
            self.send(head=self._request.head)

    def _rename(self, url: str) -> str:
        """Have the job remember where the file is (H7), unless no remote name may look like that; return the name."""
        try:
            check_remote_name(url)
        except BitsError:
            return ""
        if url != self._reported_url:
            self._reported_url = url
            self.run.on_redirected(self.spec.index, url)
        return url

    def tell_started(self, message: FileStarted, response: Response) -> None:
        """The server has answered with something that is taken: say so, and where that was (H7)."""
        if self._url != self._reported_url and policy_of(self._redirect_flags) is RedirectPolicy.REPORT:
            self._rename(self._url)
        self._told = response
        self.run.on_started(message)

    def _tell_headers(self) -> None:
        # What a proxy answered before there was a way to the server is no answer for the file, and has no header block.
        response = self._response
        if response is not None and response is not self._told and response.raw:
            self._told = response
            self.run.on_headers(self.spec.index, response.header_text)

    def refuse_status(self, response: Response) -> Body:
        """The answer is an error: fail with it, unless a connection is just being taken up again."""
        failure = self._status_failure(response, self.run.challenges.reason_for_refusal(response.status))

        def act() -> None:
            # A server that restarts answers 502 or 503 for a moment: part of the same interruption.
            if failure.transient and self._patience is not None and response.status >= 500:
                self._break(failure)
            else:
                self.fail(failure)

        return self.follow_up(act)

    # --- progress, breaks and ends -----------------------------------------------------------

    def count(self, count: int, position: int, *, stored: int | None = None) -> None:
        """`count` bytes came in, and the file is whole up to `position`.

        `stored` is how many bytes of the file they are, where that is another number: the limit is one for files.
        """
        self._attempt_bytes += count
        self._lane.watchdog.touch()
        run = self.run
        if position > self._furthest:
            self._furthest = position
            self._progress_at = self._loop.now
            run.has_progressed = True
        if run.allowance is not None:
            run.allowance -= count if stored is None else stored
            if run.allowance < 0:
                raise TransferError(too_large(self.spec.remote_name, run.settings.max_download_bytes or 0))
        run.on_received(self.spec.index, position)

    def uncount(self, dropped_bytes: int) -> None:
        """So many bytes are gone again: what the job may not exceed is what it has (J64)."""
        if self.run.allowance is not None:
            self.run.allowance += dropped_bytes

    def handle(self, failure: Failure) -> None:
        """A request failed."""
        assert self._request is not None
        if failure.has_other_key and self.run.departures.distrust(self._request):
            # Nothing had been sent yet, whatever the method.
            self.send(head=self._request.head, fresh=self._request.fresh)
            return
        if not failure.is_break:
            self.fail(failure)
            return
        if self._lane.client.was_reused and not self._attempt_bytes and not self._request.fresh:
            # The server had closed the kept connection: that is no failure of this file.
            self.send(head=self._request.head, fresh=True)
            return
        if self.run.proxies.has_other_way(failure, self._request):
            self.send(head=self._request.head, fresh=self._request.fresh)
            return
        if self._may_repeat:
            self._break(failure)
        else:
            self.fail(failure)

    def _break(self, failure: Failure) -> None:
        now = time.monotonic()
        patience = self._patience or Patience(limit_s=self.run.settings.break_patience_s)
        if self._progress_at is not None:
            patience = patience.after_progress(self._progress_at)
            self._progress_at = None
        self._patience, decision = patience.after_break(now, not_before_s=failure.retry_after_s or 0)
        if isinstance(decision, GiveUp):
            self.fail(failure)
            return
        self._lane.watchdog.rest()
        self._phase = Phase.PAUSING
        failure = self.run.proxies.named(failure, self._request)
        self.run.on_broken(self.spec.index, f"{failure.message}; connecting again")
        self._pause = self._loop.call_later(decision.pause_s, self._try_again)

    def _try_again(self) -> None:
        self._pause = None
        # From the beginning of the chain: where a redirect led may be gone by now.
        self._url = self._first_url
        self._redirects = 0
        self.before_retry()
        self.send(fresh=True)

    def _on_stall(self) -> None:
        is_for_people = self._preparing is not None and self._preparing.is_for_people
        if is_for_people or not self.run.pace.may_go:
            self._lane.watchdog.touch()
            return
        self._abort()
        self.on_end(stalled(self._url, self.run.settings.stall_timeout_s))

    def _on_disk_failed(self, error: OSError) -> None:
        self.fail(local_failure(error, self.spec.temporary_name))

    def fail(self, failure: Failure) -> None:
        """Give up; what was received stays."""
        if self._phase is Phase.CLOSED:
            return
        self._phase = Phase.CLOSED
        self.leave_network()
        self._tell_headers()
        self.run.on_failed(self, self.run.proxies.named(failure, self._request))
        self._close_sink(lambda _error: self.run.on_closed(self))

    def complete(self, total: int, last_modified: str | None, checksum: Checksum | None) -> None:
        """Every byte has been received."""
        self._finishing = Finishing(
            spec=self.spec,
            sink=self.sink,
            reader=self.run.tools.reader,
            checksum=checksum,
            on_done=self.on_done,
            on_failed=self._on_finish_failed,
            on_cancelled=self._on_finish_cancelled,
        )
        self.hand_on_network()
        self._finishing.start(total, last_modified)

    def hand_on_network(self) -> None:
        """First the next request goes out, then this file is written: the server works meanwhile."""
        self._phase = Phase.FINISHING
        self.leave_network()
        self._tell_headers()
        self.run.on_network_done(self)

    @abstractmethod
    def report_dropped(self, reason: str) -> None:
        """Tell that the file begins again at its first byte, and with no validator."""

    def on_done(self, size: int) -> None:
        """The file is whole and durable."""
        self._phase = Phase.CLOSED
        self.run.on_done(self, size)

    def _on_finish_failed(self, failure: Failure) -> None:
        if failure.name == "ERROR_CRC":
            # Nothing of it can be trusted: Resume begins with an empty file.
            self.sink.reset()
            self.report_dropped("the content does not have the checksum that was asked for: it is dropped")
        self.fail(failure)

    def _on_finish_cancelled(self) -> None:
        self._phase = Phase.CLOSED
        self.sink.close(self._on_stopped)

    def stop(self) -> None:
        """End early."""
        if self._phase is Phase.FINISHING and self._finishing is not None:
            self._finishing.cancel()
        elif self._phase in (Phase.NETWORK, Phase.PAUSING):
            self._phase = Phase.CLOSED
            self.leave_network()
            self._close_sink(self._on_stopped)

    def _on_stopped(self, error: OSError | None) -> None:
        if error is not None:
            self.run.on_failed(self, local_failure(error, self.spec.temporary_name))
        self.run.on_closed(self)
