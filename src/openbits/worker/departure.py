"""Everything that has to be known before a request may go: by which proxy it goes, and what proves who asks.

The stages follow one another, and each may take its time; most requests need none of them to.  A challenge is answered
by the same request once more, on the same way, with what proves more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from openbits.core.http import Response
from openbits.worker.answers import status_failure
from openbits.worker.asking import Preparing, Request
from openbits.worker.challenges import ASKED_BY, NOTHING, Answers, Challenges
from openbits.worker.failure import Failure, TransferError
from openbits.worker.proxies import Proxies


@dataclass(frozen=True, slots=True, kw_only=True)
class Departure:
    """A request that may go."""

    request: Request
    bare: Request
    """The same without what proves who asks: that is of use once."""
    answers: Answers = NOTHING
    """What it proves of the account."""


Done = Callable[[Departure | Failure], None]


class Departures:
    """Gets the requests of a transfer ready."""

    def __init__(self, proxies: Callable[[], Proxies], challenges: Challenges) -> None:
        self._proxies = proxies
        self._challenges = challenges

    def ready(self, request: Request, *, meant_for: str, done: Done) -> Preparing:
        """Get a request ready and tell `done`, maybe before this returns, but never after the result was cancelled.

        `meant_for` is the address for which the job may prove who it is.
        """
        preparing, proxies = Preparing(), self._proxies()
        if proxies.is_known(request.url):
            self._choose(request, meant_for, preparing, done)
            return preparing

        def known(failure: Failure | None) -> None:
            if preparing.is_cancelled:
                return
            if failure is None:
                self._choose(request, meant_for, preparing, done)
            else:
                preparing.is_over = True
                done(failure)

        proxies.find_out(request.url, known)
        return preparing

    def _choose(self, request: Request, meant_for: str, preparing: Preparing, done: Done) -> None:
        try:
            # Anew for each request: a redirect may have led elsewhere, and a proxy may have failed.
            request = replace(request, proxy=self._proxies().choose(request.url))
        except TransferError as error:
            preparing.is_over = True
            done(error.failure)
            return
        if not self._challenges.is_asked(meant_for, request.url, proxy_host(request)):
            preparing.is_over = True
            done(Departure(request=request, bare=request))
            return
        self._prove(request, meant_for, None, preparing, done)

    def again(self, departure: Departure, challenge: Response, *, meant_for: str, done: Done) -> Preparing:
        """Get a request ready that was challenged: on the same way, with what the challenge asks for."""
        preparing = Preparing()
        self._prove(departure.bare, meant_for, challenge, preparing, done)
        return preparing

    def refusal(self, departure: Departure, challenge: Response, *, meant_for: str) -> Failure | None:
        """Why a challenge is not answered; None when it is."""
        request = departure.request
        reason = self._challenges.reason_against(
            challenge,
            ASKED_BY[challenge.status],
            first_url=meant_for,
            url=request.url,
            proxy_host=proxy_host(request),
            sent=departure.answers,
        )
        return status_failure(challenge, request.url, reason, proxy=request.proxy) if reason else None

    def _prove(
        self, bare: Request, meant_for: str, challenge: Response | None, preparing: Preparing, done: Done
    ) -> None:
        def proved(answers: Answers, reason: str) -> None:
            preparing.is_over = True
            if reason:
                assert challenge is not None
                done(status_failure(challenge, bare.url, reason, proxy=bare.proxy))
                return
            request = replace(
                bare, headers=bare.headers + answers.server, proxy_headers=bare.proxy_headers + answers.proxy
            )
            done(Departure(request=request, bare=bare, answers=answers))

        self._challenges.prepare(
            first_url=meant_for,
            url=bare.url,
            proxy_host=proxy_host(bare),
            asked_now=None if challenge is None else ASKED_BY[challenge.status],
            preparing=preparing,
            done=proved,
        )


def proxy_host(request: Request) -> str:
    """The name of the proxy that a request goes through; empty without one."""
    return "" if request.proxy is None else request.proxy.host.strip("[]")
