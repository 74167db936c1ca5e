"""How the challenges of servers and proxies are answered in one transfer (I9, I10, J35-J37; architecture, section 4).

The rule: a request carries credentials only to a server that has asked for them in this transfer, and only to the one
that the transfer was meant for.  From then on that server gets them with each request; what is refused, or cannot be
made, gives way to the next that was offered (see `ways`), each once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from openbits.core import credentials
from openbits.core.challenges import Challenge, parse_challenges
from openbits.core.http import Response
from openbits.core.model import AuthTarget
from openbits.core.proxylist import Proxy
from openbits.frames.network import ImplicitSpec
from openbits.worker.asking import Preparing, Request
from openbits.worker.digest import is_same_nonce, strongest_digest
from openbits.worker.gss import NoToken
from openbits.worker.logins import Explicit, Login, login_of_url
from openbits.worker.netrc import Netrc
from openbits.worker.proving import NoProof, Proof, Prover, why_not
from openbits.worker.ways import (
    BOUND,
    SCHEME_OF,
    Attempt,
    Way,
    advice,
    attempts,
    may_need_netrc,
    offered_schemes,
    whose,
)

ASKED_BY: Final = {401: AuthTarget.SERVER, 407: AuthTarget.PROXY}
_FIELDS: Final = {AuthTarget.SERVER: "Authorization", AuthTarget.PROXY: "Proxy-Authorization"}
_ASKS_BY: Final = {AuthTarget.SERVER: "www-authenticate", AuthTarget.PROXY: "proxy-authenticate"}
_MOST_LEGS: Final = 12
"""So often one request is sent again because somebody asks: three ways of both, and nonces that are stale."""

_SET: Final = {
    AuthTarget.SERVER: "set them with 'bits set-credentials', then resume the job",
    AuthTarget.PROXY: "set them with 'bits set-credentials --target proxy', then resume the job",
}

_Key = tuple[AuthTarget, str, str]
"""Who has asked: the target, where it is, and the user name and password of the URL, which are for its file alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one request proves, and what was tried before it."""

    proofs: dict[AuthTarget, Proof] = field(default_factory=dict)
    tried: frozenset[tuple[AuthTarget, Attempt]] = frozenset()
    notes: tuple[str, ...] = ()
    """Why what was tried was of no use, as clauses."""
    legs: int = 0
    connection: int = 0
    """The number of what is proved once for a connection; 0 for a connection that anyone may use."""

    def lines(self, target: AuthTarget) -> tuple[str, ...]:
        """Header lines that prove to a target who asks."""
        proof = self.proofs.get(target)
        return () if proof is None or not proof.text else (f"{_FIELDS[target]}: {proof.text}",)

    @property
    def targets(self) -> frozenset[AuthTarget]:
        """To whom something is proved with this request."""
        return frozenset(target for target, proof in self.proofs.items() if proof.text)

    @property
    def is_greeting(self) -> bool:
        """Whether the request only opens a handshake: nobody takes a body along with it."""
        return any(proof.is_greeting for proof in self.proofs.values())

    @property
    def shakes_hands_with_proxy(self) -> bool:
        """Whether it is by a handshake that the proxy learns who asks, or has learned it."""
        proof = self.proofs.get(AuthTarget.PROXY)
        return proof is not None and proof.attempt.is_handshake

    @property
    def goes_on(self) -> bool:
        """Whether the request has to go over the connection of the one before it."""
        return any(proof.goes_on for proof in self.proofs.values())


NOTHING: Final = Answers()
Done = Callable[[Answers, str], None]


@dataclass(slots=True, kw_only=True)
class _Work:
    """The proofs of one request, made one after the other."""

    request: Request
    meant_for: str
    wanted: list[AuthTarget]
    preparing: Preparing
    done: Done
    asked_now: AuthTarget | None = None
    challenges: tuple[Challenge, ...] = ()
    waiting: list[Attempt] = field(default_factory=list)
    """What is left to be tried for who has just asked."""
    sent: Answers = NOTHING
    proofs: dict[AuthTarget, Proof] = field(default_factory=dict)
    tried: set[tuple[AuthTarget, Attempt]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)


class Challenges:
    """What a transfer may answer, and who has asked in it."""

    def __init__(
        self, spec: ImplicitSpec, prover: Prover, header_lines: Iterable[str], *, uses_netrc: bool = False
    ) -> None:
        self.explicit = Explicit()
        self._spec = spec
        self._prover = prover
        self._uses_netrc = uses_netrc
        self._netrc: Netrc | None = None
        self._known: dict[_Key, Proof] = {}
        """Who has asked, and what was proved last."""
        self._connections: dict[tuple[object, ...], int] = {}
        names = {line.partition(":")[0].strip().lower() for line in header_lines}
        self._has_own = {target for target, name in _FIELDS.items() if name.lower() in names}

    def __repr__(self) -> str:
        return f"<Challenges of={self._spec.account!r} asking={len(self._known)}>"

    def close(self) -> None:
        """The transfer is over: forget what it knew."""
        self.explicit.clear()
        self._known.clear()
        self._netrc = None
        self._prover.close()

    @property
    def _who(self) -> str:
        if self._spec.is_computer:
            principal = self._prover.principal
            return f"the computer ({principal})" if principal else "the computer"
        return self._spec.account or "the account"

    # --- judging -----------------------------------------------------------------------------

    def reason_against(self, response: Response, request: Request, *, meant_for: str, sent: Answers) -> str:
        """Why this challenge is certainly not answered, as a clause; empty when it may be."""
        target = ASKED_BY[response.status]
        if target is AuthTarget.PROXY and not request.may_come_from_proxy(response):
            # A server could else have the proxy told a password that it never wanted, by the weakest of schemes.
            through = "and none is used" if request.proxy is None else "and stands behind the one that is used"
            return f"it asks as a proxy does, {through}: ask whoever runs the server"
        if not self._has_logins(target, request):
            return self._reason_against_tickets(response, request, meant_for, sent)
        if target is AuthTarget.SERVER and not credentials.may_answer(meant_for, request.url):
            return credentials.not_for_others("the job")
        if target in self._has_own:
            return f"it does not take the {_FIELDS[target]} header that the job brings along"
        if sent.legs >= _MOST_LEGS:
            return _joined((*sent.notes, f"it asks again and again: ask whoever runs the {target.value}"))
        return ""

    def _has_logins(self, target: AuthTarget, request: Request) -> bool:
        if self.explicit.schemes(target):
            return True
        return target is AuthTarget.SERVER and (self._uses_netrc or bool(request.userinfo))

    def _reason_against_tickets(self, response: Response, request: Request, meant_for: str, sent: Answers) -> str:
        """The same for a transfer that has nothing but the account's own credentials."""
        target, spec = ASKED_BY[response.status], self._spec
        if spec.is_anonymous:
            return credentials.anonymous(self._who)
        if target is AuthTarget.SERVER and not credentials.may_answer(meant_for, request.url):
            # Before any advice: whatever is set for the job, it does not go there.
            return credentials.not_for_others("the job" if not self._allows_tickets(target) else self._who)
        if target in self._has_own:
            return f"it does not take the {_FIELDS[target]} header that the job brings along"
        offered = offered_schemes(parse_challenges(response.fields.get(_ASKS_BY[target], ())))
        if SCHEME_OF[Way.TICKETS].value not in offered:
            if self._allows_tickets(target):
                return credentials.no_other_scheme(self._who)
            if not offered:
                return _asks_by_nothing(target)
            return _joined(
                (f"it asks by {_listed(offered)}, and the job has no user name and password for that", _SET[target])
            )
        if not self._allows_tickets(target):
            return credentials.not_allowed(target, self._who)
        if target in sent.targets:
            return credentials.rejected(self._who)
        return spec.trouble

    def _allows_tickets(self, target: AuthTarget) -> bool:
        return self._spec.server if target is AuthTarget.SERVER else self._spec.proxy

    def reason_for_refusal(self, status: int) -> str:
        """What an answer that forbids has to do with the account, as a clause; empty for nothing."""
        if status == 403 and self._spec.is_anonymous:
            return credentials.anonymous(self._who)
        return ""

    def socks_login(self) -> tuple[str, str] | None:
        """The name and the password for SOCKS proxies, which have nothing but those of Basic: in clear."""
        login = self.explicit.get(AuthTarget.PROXY, SCHEME_OF[Way.BASIC])
        return None if login is None else (login.user_name, login.password)

    # --- answering ---------------------------------------------------------------------------

    def is_asked(self, request: Request, meant_for: str) -> bool:
        """Whether a request is to carry answers: somebody on the way has asked in this transfer."""
        return bool(self._known) and bool(self._wanted(request, meant_for))

    def _wanted(self, request: Request, meant_for: str) -> list[AuthTarget]:
        wanted = []
        if request.proxy is not None and _key(AuthTarget.PROXY, request) in self._known:
            wanted.append(AuthTarget.PROXY)
        # What a server has asked for another file is not for whoever sends this one there by a redirect.
        if _key(AuthTarget.SERVER, request) in self._known and credentials.may_answer(meant_for, request.url):
            wanted.append(AuthTarget.SERVER)
        return wanted

    def prepare(self, request: Request, *, meant_for: str, preparing: Preparing, done: Done) -> None:
        """Make what a request is to prove to those who have asked before; `done` gets it.

        What cannot be made any more is left out: the request then finds out whether it still is wanted.
        """
        wanted = self._wanted(request, meant_for)
        self._next(_Work(request=request, meant_for=meant_for, wanted=wanted, preparing=preparing, done=done))

    def answer(
        self, response: Response, request: Request, *, meant_for: str, sent: Answers, preparing: Preparing, done: Done
    ) -> None:
        """Make what a challenged request is to prove; `done` gets it, or why it cannot be made."""
        target = ASKED_BY[response.status]
        work = _Work(
            request=request,
            meant_for=meant_for,
            wanted=[other for other in self._wanted(request, meant_for) if other is not target],
            preparing=preparing,
            done=done,
            asked_now=target,
            challenges=parse_challenges(response.fields.get(_ASKS_BY[target], ())),
            sent=sent,
            tried=set(sent.tried),
            notes=list(sent.notes),
        )
        if target is AuthTarget.SERVER:
            # The proxy has let it pass: what it asks for next time is another question.
            work.tried = {tried for tried in work.tried if tried[0] is AuthTarget.SERVER}
        else:
            self._forget_unheard(work)
        needs_netrc = self._uses_netrc and target is AuthTarget.SERVER and may_need_netrc(work.challenges)
        if needs_netrc and self._netrc is None:

            def on_netrc(netrc: Netrc) -> None:
                self._netrc = netrc
                if not preparing.is_cancelled:
                    self._answer(work, target)

            self._prover.read_netrc(on_netrc)
        else:
            self._answer(work, target)

    def _forget_unheard(self, work: _Work) -> None:
        """The proxy did not pass on what the server was to be told; a handshake begins anew on another connection."""
        unheard = work.sent.proofs.get(AuthTarget.SERVER)
        if unheard is not None and unheard.handshake is not None and not unheard.is_greeting:
            work.tried.discard((AuthTarget.SERVER, unheard.attempt))
            self._known.pop(_key(AuthTarget.SERVER, work.request), None)
            work.wanted = [target for target in work.wanted if target is not AuthTarget.SERVER]

    def _answer(self, work: _Work, target: AuthTarget) -> None:
        sent = work.sent.proofs.get(target)
        said = ""
        if sent is not None and sent.handshake is not None and sent.handshake.may_go_on:
            said = next((one.token68 for one in work.challenges if one.scheme == sent.scheme and one.token68), "")
        if sent is not None and not said:
            self._judge(work, target, sent)
            key = _key(target, work.request)
            known = self._known.get(key)
            if known is not None and known.attempt == sent.attempt:
                # Unless another file of the transfer has found something better meanwhile.
                del self._known[key]
        work.waiting = [one for one in self._attempts(work, target) if (target, one) not in work.tried]
        if sent is not None and said:
            self._prover.go_on(sent, said, self._taker(work, target, sent.attempt))
        else:
            self._try_next(work, target)

    def _attempts(self, work: _Work, target: AuthTarget) -> list[Attempt]:
        is_server = target is AuthTarget.SERVER
        return attempts(
            target,
            work.challenges,
            explicit=self.explicit.get,
            others=(login_of_url(work.request.userinfo), self._netrc_login(work.request)) if is_server else (),
            allows_tickets=self._allows_tickets(target) and not self._spec.is_anonymous,
        )

    def _netrc_login(self, request: Request) -> Login | None:
        return None if self._netrc is None else self._netrc.login_for(urlsplit(request.url).hostname or "")

    def _judge(self, work: _Work, target: AuthTarget, sent: Proof) -> None:
        """Something was proved, and it asks again: was it refused?"""
        asked = strongest_digest(work.challenges)
        if sent.session is not None and asked is not None:
            # A nonce has its time. One that was used for long is old even if the server does not say so.
            is_old = asked.is_stale or sent.is_early
            if is_old and not is_same_nonce(sent.session, asked):
                work.tried.discard((target, sent.attempt))
                return
        if sent.is_early and not sent.text:
            # The connection that knew who asks is gone.
            return
        work.tried.add((target, sent.attempt))
        if sent.attempt.login is None:
            work.notes.append(credentials.rejected(self._who))
        else:
            said = f"it does not take {whose(sent.attempt, target, self._who)}"
            work.notes.append(f"{said} ({sent.attempt.way.value}): {advice(sent.attempt, target)}")

    def _try_next(self, work: _Work, target: AuthTarget) -> None:
        while work.waiting:
            attempt = work.waiting.pop(0)
            if attempt.login is None and self._spec.trouble:
                work.notes.append(self._spec.trouble)
                continue
            work.tried.add((target, attempt))
            self._prover.prove(
                attempt,
                target=target,
                request=work.request,
                of_computer=self._spec.is_computer,
                digest=strongest_digest(work.challenges),
                done=self._taker(work, target, attempt),
            )
            return
        work.done(NOTHING, self._sum_up(work, target))

    def _taker(self, work: _Work, target: AuthTarget, attempt: Attempt) -> Callable[[Proof | NoToken], None]:
        """What to do with a proof for who has just asked, or with why there is none."""

        def take(proof: Proof | NoToken) -> None:
            if work.preparing.is_cancelled:
                return
            if isinstance(proof, NoToken):
                work.notes.append(why_not(proof, attempt, target, self._who, is_computer=self._spec.is_computer))
                if isinstance(proof, NoProof) and proof.is_hopeless:
                    # The same name and password would be refused by any other way of the same scheme.
                    scheme = SCHEME_OF[attempt.way]
                    work.waiting = [other for other in work.waiting if SCHEME_OF[other.way] is not scheme]
                self._try_next(work, target)
                return
            work.proofs[target] = proof
            self._known[_key(target, work.request)] = proof
            self._next(work)

        return take

    def _sum_up(self, work: _Work, target: AuthTarget) -> str:
        if work.notes:
            return _joined(work.notes)
        if not work.challenges:
            return _asks_by_nothing(target)
        offered = _listed(offered_schemes(work.challenges))
        trouble = self._netrc.trouble if self._netrc is not None and target is AuthTarget.SERVER else ""
        if not trouble and self._uses_netrc and target is AuthTarget.SERVER and may_need_netrc(work.challenges):
            trouble = f"~/.netrc of {self._who} has nothing for it"
        has = ", ".join(self.explicit.schemes(target))
        for_what = f"the job has credentials for {target.value} and {has} only" if has else "the job has none for that"
        return _joined(filter(None, (f"it asks by {offered}", for_what, trouble, _SET[target])))

    # --- what is proved to those who asked before ---------------------------------------------

    def _next(self, work: _Work) -> None:
        if not work.wanted:
            work.done(
                Answers(
                    proofs=work.proofs,
                    tried=frozenset(work.tried),
                    notes=tuple(work.notes),
                    legs=work.sent.legs + (work.asked_now is not None),
                    connection=self._connection(work),
                ),
                "",
            )
            return
        target = work.wanted.pop(0)
        sent = work.sent.proofs.get(target)
        if sent is not None and sent.is_greeting:
            # Who asked now stands before the one that was greeted, and has kept it from hearing so.
            work.proofs[target] = sent
            self._next(work)
            return
        key = _key(target, work.request)

        def take(proof: Proof | NoToken) -> None:
            if work.preparing.is_cancelled:
                return
            if isinstance(proof, NoToken):
                self._known.pop(key, None)
            else:
                work.proofs[target] = replace(proof, is_early=True)
            self._next(work)

        self._prover.repeat(
            self._known[key], target=target, request=work.request, of_computer=self._spec.is_computer, done=take
        )

    def _connection(self, work: _Work) -> int:
        """Whose connection a request takes: one that has proved something carries nothing that could not prove it."""
        parts: list[object] = []
        for target in AuthTarget:
            proof = work.proofs.get(target)
            if proof is not None and proof.attempt.way in BOUND:
                parts += (target, proof.attempt)
        return self._connections.setdefault(tuple(parts), len(self._connections) + 1) if parts else 0


def _joined(clauses: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(clauses))


def _listed(offered: list[str]) -> str:
    return ", ".join(name[:40] for name in offered[:6])


def _asks_by_nothing(target: AuthTarget) -> str:
    """Whatever one set for the job, it could not be told to who asks so."""
    return f"it does not say by which scheme, or nothing that can be understood: ask whoever runs the {target.value}"


def _key(target: AuthTarget, request: Request) -> _Key:
    if target is AuthTarget.PROXY:
        return target, _place_of_proxy(request.proxy), ""
    parts = urlsplit(request.url)
    return target, f"{parts.scheme}://{parts.hostname}:{parts.port}", request.userinfo


def _place_of_proxy(proxy: Proxy | None) -> str:
    return "" if proxy is None else str(proxy)
