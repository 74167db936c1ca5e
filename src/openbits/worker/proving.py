"""Proofs of who asks: one after the other, as they are wanted, and those that were made before once more.

Whatever waits for somebody, or computes for long, does so in the thread that speaks Kerberos.  The rule: what is of use
to whoever sees it is made anew for each request, and nothing of a password stands in anything that is shown.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar
from urllib.parse import urlsplit

from openbits.core.http import wire_url
from openbits.core.model import AuthTarget
from openbits.worker.asking import Request
from openbits.worker.digest import DigestChallenge, Session, can_be_sent
from openbits.worker.gss import NoToken, PasswordCredential, Trouble
from openbits.worker.helper import Helper
from openbits.worker.logins import Login
from openbits.worker.netrc import Netrc, read_netrc
from openbits.worker.ntlm import NtlmHandshake
from openbits.worker.tickets import Tickets
from openbits.worker.ways import SCHEME_OF, Attempt, Way, advice, whose

_T = TypeVar("_T")
_WORDS: Final = {
    Way.TICKETS: "Negotiate",
    Way.KERBEROS: "Negotiate",
    Way.SPNEGO_NTLM: "Negotiate",
    Way.NTLM: "NTLM",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a request carries for one target."""

    attempt: Attempt
    text: str = field(default="", repr=False)
    """The value of the header field; empty where the connection knows already."""
    session: Session | None = None
    handshake: NtlmHandshake | None = field(default=None, repr=False)
    is_greeting: bool = False
    """Whether it opens a handshake, so that a challenge is the only answer to be expected."""
    goes_on: bool = False
    """Whether it answers what was said on the same connection."""
    is_early: bool = False
    """Whether nobody has asked for it with this request: it is proved to who has asked before."""

    @property
    def scheme(self) -> str:
        """The scheme, as challenges name it."""
        return SCHEME_OF[self.attempt.way].value


_NO_TUNNEL: Final = "a tunnel through a proxy that is reached by TLS cannot be had by a handshake: use basic or digest"


class NoProof(NoToken):
    """There is no proof by this way; `is_hopeless`: nor by another with the same credentials."""

    def __init__(self, text: str, *, is_hopeless: bool = False) -> None:
        super().__init__(Trouble.OTHER, text)
        self.is_hopeless = is_hopeless


Done = Callable[[Proof | NoToken], None]


class Prover:
    """Makes proofs for one transfer."""

    def __init__(self, tickets: Tickets, reader: Helper) -> None:
        self._tickets = tickets
        self._reader = reader
        self._kept: dict[Login, PasswordCredential] = {}
        """Tickets that were got with a password; touched in the thread only."""

    @property
    def principal(self) -> str:
        """The computer's name, once its tickets were handed over."""
        return self._tickets.principal

    def close(self) -> None:
        """Forget everything."""

        def forget() -> None:
            while self._kept:
                self._kept.popitem()[1].close()

        if self._kept:
            self._tickets.submit(forget)

    def read_netrc(self, done: Callable[[Netrc], None]) -> None:
        """Read ~/.netrc of the worker's account."""

        def deliver(result: Netrc | OSError) -> None:
            done(
                Netrc(trouble=f"~/.netrc cannot be read ({result.strerror})") if isinstance(result, OSError) else result
            )

        self._reader.submit(read_netrc, deliver)

    def prove(
        self,
        attempt: Attempt,
        *,
        target: AuthTarget,
        request: Request,
        of_computer: bool,
        digest: DigestChallenge | None,
        done: Done,
    ) -> None:
        """Make a first proof by one way. `done` gets it, or why there is none, maybe before this returns."""
        host, login = _host(target, request), attempt.login
        if login is None:
            self._prove_by_tickets(attempt, host, of_computer=of_computer, done=done)
            return
        match attempt.way:
            case Way.KERBEROS:
                self._make(attempt, lambda: self._kerberos(login).make_token(host), done)
            case Way.NTLM | Way.SPNEGO_NTLM:
                if target is AuthTarget.PROXY and request.is_tunnelled and "https" in str(request.proxy)[:5]:
                    done(NoProof(_NO_TUNNEL))
                else:
                    self._greet(attempt, login, host, done)
            case Way.DIGEST:
                assert digest is not None
                session = Session(
                    challenge=digest,
                    user_name=login.user_name,
                    password=login.password,
                    make_cnonce=lambda: secrets.token_urlsafe(24),
                )
                done(_digest_proof(attempt, session, target, request))
            case _:
                done(_basic_proof(attempt, login))

    def repeat(self, last: Proof, *, target: AuthTarget, request: Request, of_computer: bool, done: Done) -> None:
        """Prove the same to the same once more, before it asks."""
        attempt = last.attempt
        match attempt.way:
            case Way.DIGEST:
                assert last.session is not None
                done(_digest_proof(attempt, last.session, target, request))
            case Way.BASIC:
                done(last)
            case Way.NTLM | Way.SPNEGO_NTLM:
                # The connection knows; where it is another one by now, it will ask.
                done(Proof(attempt=attempt))
            case _:
                self.prove(attempt, target=target, request=request, of_computer=of_computer, digest=None, done=done)

    def go_on(self, proof: Proof, said: str, done: Done) -> None:
        """Answer what was said in a handshake."""
        handshake = proof.handshake
        assert handshake is not None

        def step() -> bytes:
            try:
                token = base64.b64decode(said, validate=True)
            except ValueError:
                raise NoToken(Trouble.OTHER, "what the other side says cannot be read") from None
            return handshake.step(token)

        goes_on = replace(proof, text="", is_greeting=False, goes_on=True, is_early=False)
        self._perform(step, lambda token: done(token if isinstance(token, NoToken) else _with_token(goes_on, token)))

    def _prove_by_tickets(self, attempt: Attempt, host: str, *, of_computer: bool, done: Done) -> None:
        def deliver(token: bytes | NoToken) -> None:
            done(token if isinstance(token, NoToken) else _with_token(Proof(attempt=attempt), token))

        self._tickets.make_token(host, of_computer=of_computer, done=deliver)

    def _kerberos(self, login: Login) -> PasswordCredential:
        return self._kept.setdefault(login, PasswordCredential(login.user_name, login.password))

    def _greet(self, attempt: Attempt, login: Login, host: str, done: Done) -> None:
        def begin() -> tuple[NtlmHandshake, bytes]:
            handshake = NtlmHandshake(
                user_name=login.user_name,
                password=login.password,
                host=host,
                is_in_spnego=attempt.way is Way.SPNEGO_NTLM,
            )
            return handshake, handshake.step(b"")

        def deliver(result: tuple[NtlmHandshake, bytes] | NoToken) -> None:
            if isinstance(result, NoToken):
                done(result)
                return
            handshake, token = result
            done(_with_token(Proof(attempt=attempt, handshake=handshake, is_greeting=True), token))

        self._perform(begin, deliver)

    def _make(self, attempt: Attempt, make: Callable[[], bytes], done: Done) -> None:
        def deliver(token: bytes | NoToken) -> None:
            if isinstance(token, NoToken):
                is_wrong = token.trouble is Trouble.WRONG_PASSWORD
                done(NoProof(token.text, is_hopeless=True) if is_wrong else token)
            else:
                done(_with_token(Proof(attempt=attempt), token))

        self._perform(make, deliver)

    def _perform(self, work: Callable[[], _T], done: Callable[[_T | NoToken], None]) -> None:
        def guarded() -> _T | NoToken:
            try:
                return work()
            except NoToken as error:
                return error

        self._tickets.perform(guarded, done)


def why_not(error: NoToken, attempt: Attempt, target: AuthTarget, who: str, *, is_computer: bool) -> str:
    """Why there is no proof, as a clause that says what to do."""
    if attempt.login is not None:
        mine = whose(attempt, target, who)
        if isinstance(error, NoProof) and error.is_hopeless:
            return f"the Kerberos realm does not take {mine} ({error.text}): {advice(attempt, target)}"
        return f"{mine} could not be used by {attempt.way.value} ({error.text}): {advice(attempt, target)}"
    if is_computer:
        return f"no Kerberos ticket for it could be had for {who}: {error.text}"
    if error.trouble is Trouble.EXPIRED or "expired" in error.text.lower():
        return f"the Kerberos ticket of {who} has expired: run kinit, then resume the job"
    if error.trouble is Trouble.NO_TICKET:
        return f"{who} has no Kerberos ticket: run kinit, then resume the job ({error.text})"
    return f"no Kerberos ticket for it could be had for {who}: {error.text}"


def _with_token(proof: Proof, token: bytes) -> Proof:
    return replace(proof, text=f"{_WORDS[proof.attempt.way]} {base64.b64encode(token).decode('ascii')}")


def _basic_proof(attempt: Attempt, login: Login) -> Proof | NoToken:
    if ":" in login.user_name:
        return NoProof("a user name with a colon in it cannot be sent so")
    pair = f"{login.user_name}:{login.password}".encode("utf-8", "surrogateescape")
    return Proof(attempt=attempt, text=f"Basic {base64.b64encode(pair).decode('ascii')}")


def _digest_proof(attempt: Attempt, session: Session, target: AuthTarget, request: Request) -> Proof | NoToken:
    if not can_be_sent(session.user_name):
        return NoProof("a user name with control characters in it cannot be sent so")
    method, uri = _request_line(target, request)
    return Proof(attempt=attempt, text=session.answer(method, uri), session=session)


def _host(target: AuthTarget, request: Request) -> str:
    if target is AuthTarget.PROXY:
        assert request.proxy is not None
        return request.proxy.host.strip("[]")
    return urlsplit(request.url).hostname or ""


def _request_line(target: AuthTarget, request: Request) -> tuple[str, str]:
    """Method and target of the request as it goes over the line."""
    url = wire_url(request.url).decode("ascii").partition("#")[0]
    parts = urlsplit(url)
    if target is AuthTarget.PROXY and request.is_tunnelled:
        return "CONNECT", f"{parts.netloc.rpartition('@')[2].removesuffix(':')}{'' if parts.port else ':443'}"
    path = url.partition("://")[2].partition(parts.netloc)[2]
    if not path.startswith("/"):
        path = f"/{path}"
    return request.verb, f"{parts.scheme}://{parts.netloc}{path}" if target is AuthTarget.PROXY else path
