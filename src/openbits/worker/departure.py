"""Everything that has to be known before a request may go: by which proxy, whom it believes, what proves who asks.

The stages follow one another, and each may take its time; most requests need none of them to.  A challenge is answered
by the same request once more, on the same way, with what proves more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from openbits.core.http import Response
from openbits.core.model import AuthTarget
from openbits.worker.answers import status_failure
from openbits.worker.asking import Belief, Preparing, Probe, Request
from openbits.worker.challenges import NOTHING, Answers, Challenges
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

    @property
    def lacks_body(self) -> bool:
        """Whether the body was left out, because only a challenge is to be expected."""
        return self.bare.outgoing is not None and self.request.outgoing is None


Done = Callable[[Departure | Failure], None]


class Trust(Protocol):
    """See `trust.Trust`."""

    def find_out(
        self, request: Request, meant_for: str, preparing: Preparing, done: Callable[[Belief | Failure], None]
    ) -> None:
        """Tell `done` what a request to an https server is to believe."""

    def distrust(self, request: Request) -> bool:
        """A server showed another key than those that were judged: return whether it is worth to look again."""


class Departures:
    """Gets the requests of a transfer ready."""

    def __init__(self, proxies: Callable[[], Proxies], challenges: Challenges, trust: Trust | None = None) -> None:
        self._proxies = proxies
        self._challenges = challenges
        self._trust = trust
        """None for ordinary jobs."""

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
            proxy = self._proxies().choose(request.url)
        except TransferError as error:
            preparing.is_over = True
            done(error.failure)
            return
        if proxy is not None or request.proxy is not None:
            login = self._challenges.socks_login() if proxy is not None and proxy.is_socks else None
            request = replace(request, proxy=proxy, proxy_login=login)
        if self._trust is None or request.url[:6].lower() != "https:" or request.probe is not Probe.NO:
            self._prove(request, meant_for, preparing, done)
            return

        def believing(belief: Belief | Failure) -> None:
            if preparing.is_cancelled:
                return
            if isinstance(belief, Failure):
                preparing.is_over = True
                done(belief)
            else:
                self._prove(replace(request, belief=belief), meant_for, preparing, done)

        self._trust.find_out(request, meant_for, preparing, believing)

    def distrust(self, request: Request) -> bool:
        """Whether a request is worth to be sent again whose server has shown a key that nobody has judged."""
        return self._trust is not None and self._trust.distrust(request)

    def _prove(self, request: Request, meant_for: str, preparing: Preparing, done: Done) -> None:
        if not self._challenges.is_asked(request, meant_for):
            preparing.is_over = True
            done(Departure(request=request, bare=request))
            return

        def proved(answers: Answers, _reason: str) -> None:
            preparing.is_over = True
            done(_proving(request, answers))

        self._challenges.prepare(request, meant_for=meant_for, preparing=preparing, done=proved)

    def again(self, departure: Departure, challenge: Response, *, meant_for: str, done: Done) -> Preparing:
        """Get a request ready that was challenged: on the same way, with what the challenge asks for."""
        preparing, bare = Preparing(), departure.bare

        def proved(answers: Answers, reason: str) -> None:
            preparing.is_over = True
            done(status_failure(challenge, bare.url, reason, proxy=bare.proxy) if reason else _proving(bare, answers))

        self._challenges.answer(
            challenge, bare, meant_for=meant_for, sent=departure.answers, preparing=preparing, done=proved
        )
        return preparing

    def refusal(self, departure: Departure, challenge: Response, *, meant_for: str) -> Failure | None:
        """Why a challenge is not answered; None when it is."""
        request = departure.request
        reason = self._challenges.reason_against(challenge, request, meant_for=meant_for, sent=departure.answers)
        proxy = request.proxy if request.may_come_from_proxy(challenge) else None
        return status_failure(challenge, request.url, reason, proxy=proxy) if reason else None


def _proving(bare: Request, answers: Answers) -> Departure:
    """The request with what it is to prove, over a connection that may prove it."""
    request = replace(
        bare,
        headers=bare.headers + answers.lines(AuthTarget.SERVER),
        proxy_headers=bare.proxy_headers + answers.lines(AuthTarget.PROXY),
        connection=answers.connection,
        digs=bare.is_tunnelled and answers.shakes_hands_with_proxy,
        # What opens a handshake is refused whatever comes along with it.
        outgoing=None if answers.is_greeting else bare.outgoing,
        # On a connection that knows somebody already, servers take no other handshake.
        fresh=(bare.fresh or answers.is_greeting) and not answers.goes_on,
    )
    return Departure(request=request, bare=bare, answers=answers)
