"""POSTs a notice to the URL that a job's owner has named: ours beyond BITS.

The rule: one request, to that URL and no other, by the proxy and with the trust that the order says, over a connection
that nobody else uses.  It proves to nobody who asks, except to a proxy what its address says: a URL that wants to know
its caller has a secret in its path.  A status from 200 to 299 acknowledges, whatever follows it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from openbits.core.http import Response, host_of
from openbits.errors import ErrorContext
from openbits.frames.network import ImplicitSpec
from openbits.frames.operations import NoticeEnded, PostNotice
from openbits.worker.answers import refused_redirect, status_failure
from openbits.worker.asking import Body, Preparing, Request
from openbits.worker.challenges import Challenges
from openbits.worker.client import Client
from openbits.worker.departure import Departure, Departures
from openbits.worker.engine import Engine
from openbits.worker.failure import Failure
from openbits.worker.inquiry import NOBODY
from openbits.worker.loop import Timer
from openbits.worker.pac import Means
from openbits.worker.probing import LookTools
from openbits.worker.proving import Prover
from openbits.worker.proxies import Plan, Proxies, make_plan, needs_reading
from openbits.worker.run import Tools
from openbits.worker.trust import Trust

_CONNECT_TIMEOUT_S: Final = 30
_PROXY_AUTHENTICATION: Final = 407
_HEADERS: Final = ("Content-Type: application/json",)


class _Text:
    """See `asking.Outgoing`: all of it is there."""

    def __init__(self, content: bytes) -> None:
        self.length = len(content)
        self._content = content
        self._position = 0

    def rewind(self, position: int, wake: Callable[[], None]) -> None:  # noqa: ARG002 - nothing is waited for
        """See `asking.Outgoing`."""
        self._position = position

    def take(self, most: int) -> bytes | None:
        """See `asking.Outgoing`."""
        start, self._position = self._position, min(self._position + most, self.length)
        return self._content[start : self._position]


class Webhook:
    """One notice on its way; it ends exactly once, unless it was dropped. It is its client's handler."""

    def __init__(
        self,
        order: PostNotice,
        tools: Tools,
        *,
        want_evaluator: Callable[[], None],
        on_unexpected: Callable[[Exception], None],
        done: Callable[[NoticeEnded], None],
    ) -> None:
        self._order = order
        self.transfer = order.transfer
        self._tools = tools
        self._done = done
        self._on_unexpected = on_unexpected
        self._engine = Engine(tools.loop)
        means = Means(loop=tools.loop, scripts=tools.scripts, want_evaluator=want_evaluator)
        plan = None if needs_reading(order.proxy) else make_plan(order.proxy)
        self._proxies = Proxies(plan, lambda _way: None, means, dhcp_url=order.proxy.dhcp_url)
        if plan is None:
            tools.reader.submit(lambda: make_plan(order.proxy), self._on_proxies_read)
        self._challenges = Challenges(ImplicitSpec(), Prover(tools.tickets, tools.reader), ())
        self._trust = self._make_trust()
        self._departures = Departures(
            lambda: self._proxies, self._challenges, None if self._trust.is_ordinary else self._trust
        )
        self._client = self._make_client()
        self._departure: Departure | None = None
        self._preparing: Preparing | None = None
        self._follow_up: Callable[[], None] | None = None
        self._status: int | None = None
        self._deadline: Timer | None = None
        self._is_over = False

    def __repr__(self) -> str:
        return f"<Webhook for {host_of(self._order.url)}>"

    def _make_client(self) -> Client:
        return Client(self._engine, connect_timeout_s=_CONNECT_TIMEOUT_S, on_unexpected=self._on_unexpected)

    def _make_trust(self) -> Trust:
        tools = self._tools
        looking = LookTools(
            loop=tools.loop,
            reader=tools.reader,
            crls=tools.crls,
            ca_file=self._engine.ca_file,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            make_client=self._make_client,
            door=lambda: self._departures,
            proxies=lambda: self._proxies,
        )
        # The job's certificate is for the job's server, and the program that judges certificates is asked about that.
        spec = replace(self._order.tls, certificate=None, asks=False)
        return Trust(spec, looking, transfer=0, is_strict=False, ask=lambda _seen: None)

    # --- asking ------------------------------------------------------------------------------

    def start(self) -> None:
        """Send it; `done` is never called before this returns."""
        self._deadline = self._tools.loop.call_later(self._order.limit_s, self._on_deadline)
        self._tools.loop.post(self._ask)

    def receive_evaluator(self, fd: int | None, message: str) -> None:
        """An evaluator of the PAC script, or why there is none; the descriptor is ours from now on."""
        if not self._is_over:
            self._proxies.evaluator_came(fd, message)
        elif fd is not None:
            os.close(fd)

    def drop(self) -> None:
        """Nobody wants to know any more."""
        if self._is_over:
            return
        self._is_over = True
        if self._deadline is not None:
            self._deadline.cancel()
        if self._preparing is not None:
            self._preparing.cancel()
        self._trust.close()
        self._client.close()
        self._challenges.close()
        self._proxies.close()
        self._engine.close_soon()

    def _on_proxies_read(self, plan: Plan | OSError) -> None:
        assert isinstance(plan, Plan), "make_plan says itself what went wrong"
        if not self._is_over:
            self._proxies.planned(plan)

    def _ask(self) -> None:
        if self._is_over:
            return
        request = Request(
            url=self._order.url,
            headers=_HEADERS,
            method="POST",
            outgoing=_Text(self._order.body.encode("utf-8", "backslashreplace")),
            fresh=True,
        )
        self._wait_for(self._departures.ready(request, meant_for=NOBODY, done=self._depart))

    def _wait_for(self, preparing: Preparing) -> None:
        if not preparing.is_over:
            self._preparing = preparing

    def _depart(self, outcome: Departure | Failure) -> None:
        self._preparing = None
        if self._is_over:
            return
        if isinstance(outcome, Failure):
            self._fail(outcome)
            return
        self._departure = outcome
        self._status = None
        self._client.send(outcome.request, self)

    # --- the client's handler ----------------------------------------------------------------

    def on_response(self, response: Response) -> Body:
        """See `asking.Handler`."""
        self._status = response.status
        departure = self._departure
        assert departure is not None
        request = departure.request
        if response.status == _PROXY_AUTHENTICATION:
            self._follow_up = self._after_challenge(departure, response)
        elif response.is_redirect:
            reason = "a notice goes to the URL that its owner has named: name the new one"
            failure = refused_redirect(self._order.url, reason)
            self._follow_up = lambda: self._fail(failure)
        elif not 200 <= response.status < 300:
            failure = status_failure(response, self._order.url, proxy=request.proxy)
            self._follow_up = lambda: self._fail(failure)
        else:
            # What the server adds is read, so that it is not cut off, up to the client's limit.
            self._follow_up = self._end
        return Body.DISCARD

    def _after_challenge(self, departure: Departure, response: Response) -> Callable[[], None]:
        refusal = self._departures.refusal(departure, response, meant_for=NOBODY)
        if refusal is not None:
            return lambda: self._fail(refusal)

        def answer() -> None:
            self._wait_for(self._departures.again(departure, response, meant_for=NOBODY, done=self._depart))

        return answer

    def on_data(self, data: bytes) -> None:
        """See `asking.Handler`; nobody reads it."""

    def on_socket(self, fd: int) -> None:
        """See `asking.Handler`."""
        raise AssertionError(f"{self!r} did not ask for descriptor {fd}")

    def on_end(self, failure: Failure | None) -> None:
        """See `asking.Handler`."""
        follow_up, self._follow_up = self._follow_up, None
        request = self._departure.request if self._departure is not None else None
        if follow_up is not None:
            follow_up()
        elif failure is not None and request is not None and self._has_other_way(failure, request):
            self._ask()
        elif failure is not None:
            self._fail(failure)
        else:
            self._end()

    def _has_other_way(self, failure: Failure, request: Request) -> bool:
        """Whether nothing was sent, and there is somebody else to send it to."""
        if failure.has_other_key:
            return self._departures.distrust(request)
        return self._proxies.has_other_way(failure, request)

    # --- the end -----------------------------------------------------------------------------

    def _on_deadline(self) -> None:
        self._deadline = None
        if self._follow_up is not None and self._status is not None and 200 <= self._status < 300:
            # It has acknowledged, and only goes on talking.
            self._end()
            return
        self._fail(
            Failure(
                name="ERROR_WINHTTP_TIMEOUT",
                context=ErrorContext.GENERAL_TRANSPORT,
                message=f"{host_of(self._order.url)} did not take the notice within {self._order.limit_s:g} s",
                transient=True,
            )
        )

    def _fail(self, failure: Failure) -> None:
        departure = self._departure
        failure = self._proxies.named(failure, departure.request if departure is not None else None)
        self._tell(failure.name, failure.message)

    def _end(self) -> None:
        self._tell("", "")

    def _tell(self, error: str, message: str) -> None:
        if self._is_over:
            return
        self.drop()
        self._done(NoticeEnded(operation=self._order.operation, error=error, message=message, status=self._status))
