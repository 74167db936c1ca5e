"""What a run believes of each server, and what it shows to it: the stage between the proxy and the proof (H1, H7, 4.6).

The rule: nothing is asked of a server before it has been looked at, where the job's terms want that, and a program has
approved of its certificate, where the job has one that judges; a verdict holds for the key that was judged, for a
short time, in this run.  A client certificate is shown only to the server that the job names: not to whom a redirect
leads to.  Ordinary jobs do not come here: libcurl verifies for them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from openbits.core.credentials import may_answer
from openbits.core.http import host_of
from openbits.errors import ErrorContext
from openbits.frames.network import CertificateSpec, TlsSpec
from openbits.frames.worker import CertificateJudged, CertificateSeen, StartTransfer
from openbits.worker.asking import BELIEF, Belief, Identity, Preparing, Probe, Request
from openbits.worker.certificates import CHECK_CRL, IGNORE_NAME, JUDGED_HERE, Judged
from openbits.worker.client import Client
from openbits.worker.clientcerts import load_identity
from openbits.worker.failure import Failure, TransferError
from openbits.worker.inquiry import Door, Inquiry
from openbits.worker.probing import Look, LookTools
from openbits.worker.proxies import Proxies
from openbits.worker.run import Tools
from openbits.worker.tlserrors import certificate_needed

_VERDICT_S: Final = 600.0
_CRL_VERDICT_S: Final = 60.0
"""H8 has each file checked; many small files come from one server within a minute."""
_MOST_KEYS: Final = 16
"""Of one server, which may be many machines, each with a key of its own."""
_MOST_CHAIN_CHARACTERS: Final = 60_000

_EXPLANATION_S: Final = 5.0
"""How long the end of a run may wait to be explained."""

Found = Callable[[Belief | Failure], None]


@dataclass(slots=True, kw_only=True)
class _Server:
    """What is known of a server."""

    place: str
    shows_identity: bool
    keys: dict[str, float] = field(default_factory=dict)
    """Keys that were judged, and until when that holds."""
    is_fresh: bool = False
    """Whether there is no reason to look again before the last of them runs out."""
    belief: Belief = BELIEF
    surprises: int = 0
    waiting: list[tuple[Preparing, Found]] = field(default_factory=list)
    look: Look | None = None
    is_with_people: bool = False


class Trust:
    """The terms of one run."""

    def __init__(
        self,
        spec: TlsSpec,
        tools: LookTools,
        *,
        transfer: int,
        is_strict: bool,
        ask: Callable[[CertificateSeen], None],
    ) -> None:
        self._spec = spec
        self._tools = tools
        self._transfer = transfer
        self._is_strict = is_strict
        self._ask = ask
        flags = spec.security_flags
        self._looks = bool(flags & (CHECK_CRL | JUDGED_HERE)) or spec.asks or (is_strict and spec.certificate is None)
        self._lasts_s = _CRL_VERDICT_S if flags & CHECK_CRL else _VERDICT_S
        self._has_own_terms = bool(flags & IGNORE_NAME) or spec.certificate is not None
        self._identity: Identity | Failure | None = None
        self._is_loading = False
        self._wants_identity: list[Callable[[], None]] = []
        self._servers: dict[tuple[str, bool], _Server] = {}
        self._approved: set[tuple[str, bytes]] = set()
        self._questions: dict[int, Callable[[CertificateJudged], None]] = {}
        self._number = 0
        self._inquiries: set[Inquiry] = set()

    def __repr__(self) -> str:
        return f"<Trust flags={self._spec.security_flags:#x} servers={len(self._servers)}>"

    @property
    def is_ordinary(self) -> bool:
        """Whether there is nothing to find out about any server."""
        return not self._looks and not self._has_own_terms

    def close(self) -> None:
        """Drop what is on the way."""
        for server in self._servers.values():
            if server.look is not None:
                server.look.drop()
        for inquiry in list(self._inquiries):
            inquiry.drop()
        self._questions.clear()

    # --- the stage ---------------------------------------------------------------------------

    def find_out(self, request: Request, meant_for: str, preparing: Preparing, done: Found) -> None:
        """Tell `done` what a request to an https server is to believe, maybe before this returns."""
        if preparing.is_cancelled:
            return
        spec = self._spec.certificate
        if spec is not None and self._identity is None:
            self._wants_identity.append(lambda: self.find_out(request, meant_for, preparing, done))
            self._load(spec)
            return
        shows = spec is not None and may_answer(meant_for, request.url)
        if shows and isinstance(self._identity, Failure):
            done(self._identity)
            return
        server = self._server(request.url, shows_identity=shows)
        if server.is_fresh and (not self._looks or self._renewed(server)):
            done(server.belief)
            return
        server.waiting.append((preparing, done))
        preparing.is_for_people = server.is_with_people
        if server.look is None and not server.is_with_people:
            self._look(server, request)

    def _server(self, url: str, *, shows_identity: bool) -> _Server:
        place = place_of(url)
        server = self._servers.get((place, shows_identity))
        if server is None:
            server = _Server(place=place, shows_identity=shows_identity)
            self._servers[place, shows_identity] = server
            if not self._looks:
                server.is_fresh = True
                server.belief = self._belief(server)
        return server

    def _renewed(self, server: _Server) -> bool:
        """Whether a key that was judged still counts; the others are forgotten."""
        now = self._tools.loop.now
        gone = [key for key, until in server.keys.items() if until <= now]
        if gone:
            for key in gone:
                del server.keys[key]
            server.belief = self._belief(server)
        return bool(server.keys)

    def _belief(self, server: _Server) -> Belief:
        flags, identity = self._spec.security_flags, self._identity
        return Belief(
            verifies_chain=not flags & JUDGED_HERE,
            verifies_name=not flags & IGNORE_NAME,
            keys=tuple(server.keys),
            identity=identity if server.shows_identity and isinstance(identity, Identity) else None,
        )

    def _load(self, spec: CertificateSpec) -> None:
        if self._is_loading:
            return
        self._is_loading = True

        def work() -> Identity | Failure:
            try:
                return load_identity(spec)
            except TransferError as error:
                return error.failure

        def loaded(identity: Identity | Failure | OSError) -> None:
            assert not isinstance(identity, OSError)
            self._identity = identity
            wanting, self._wants_identity = self._wants_identity, []
            for again in wanting:
                again()

        self._tools.reader.submit(work, loaded)

    # --- looking at a server -----------------------------------------------------------------

    def _look(self, server: _Server, request: Request) -> None:
        def judged(outcome: Judged | Failure) -> None:
            server.look = None
            if isinstance(outcome, Failure):
                self._answer(server, outcome)
            elif self._spec.asks:
                self._ask_people(server, outcome, request.index)
            else:
                self._believe(server, outcome)

        identity = self._identity if server.shows_identity and isinstance(self._identity, Identity) else None
        server.look = Look(
            server.place,
            self._tools,
            flags=self._spec.security_flags,
            identity=identity,
            refuses_to_be_asked=self._is_strict,
            done=judged,
        )
        server.look.start()

    def _believe(self, server: _Server, judged: Judged) -> None:
        while len(server.keys) >= _MOST_KEYS:
            del server.keys[next(iter(server.keys))]
        server.keys[judged.key] = self._tools.loop.now + self._lasts_s
        server.belief = self._belief(server)
        server.is_fresh = True
        self._answer(server, server.belief)

    def _answer(self, server: _Server, outcome: Belief | Failure) -> None:
        waiting, server.waiting = server.waiting, []
        for preparing, done in waiting:
            preparing.is_for_people = False
            if not preparing.is_cancelled:
                done(outcome)

    def distrust(self, request: Request) -> bool:
        """A server showed another key than those that were judged: return whether it is worth to look again."""
        found = [server for (place, _), server in self._servers.items() if place == place_of(request.url)]
        for server in found:
            server.is_fresh = False
            server.surprises += 1
        return bool(found) and all(server.surprises < _MOST_KEYS for server in found)

    # --- people ------------------------------------------------------------------------------

    def _ask_people(self, server: _Server, judged: Judged, index: int) -> None:
        seen = (server.place, judged.path[0].fingerprint(hashes.SHA256()))
        if seen in self._approved:
            self._believe(server, judged)
            return

        def answered(message: CertificateJudged) -> None:
            server.is_with_people = False
            if message.error:
                self._answer(server, _refused(message, host_of(server.place)))
                return
            self._approved.add(seen)
            self._believe(server, judged)

        server.is_with_people = True
        for preparing, _ in server.waiting:
            preparing.is_for_people = True
        self._number += 1
        self._questions[self._number] = answered
        parts = urlsplit(server.place)
        self._ask(
            CertificateSeen(
                transfer=self._transfer,
                index=index,
                number=self._number,
                server=parts.netloc,
                chain=_encoded(judged),
            )
        )

    def judged(self, message: CertificateJudged) -> None:
        """What a program thinks of a certificate."""
        answered = self._questions.pop(message.number, None)
        if answered is not None:
            answered(message)

    # --- afterwards --------------------------------------------------------------------------

    def explain(self, request: Request, failure: Failure, done: Callable[[Failure], None]) -> None:
        """Find out whether a server refused because it wants a client certificate: it may say so no other way."""

        def shown(inquiry: Inquiry, _failure: Failure | None) -> None:
            self._inquiries.discard(inquiry)
            if inquiry.client.wants_certificate:
                needed = certificate_needed(host_of(request.url))
                done(replace(needed, message=f"{needed.message} ({failure.name})"))
            else:
                done(failure)

        # Nothing is asked, and nothing is believed.
        belief = Belief(verifies_chain=False, verifies_name=False)
        probe = Request(url=place_of(request.url), fresh=True, probe=Probe.CERTIFICATE, belief=belief)
        inquiry = self._tools.inquire(probe, shown, limit_s=_EXPLANATION_S)
        if not inquiry.is_over:
            self._inquiries.add(inquiry)


def trust_of(
    settings: StartTransfer,
    tools: Tools,
    *,
    ca_file: str,
    make_client: Callable[[], Client],
    door: Callable[[], Door],
    proxies: Callable[[], Proxies],
    ask: Callable[[CertificateSeen], None],
) -> Trust:
    """Return the terms of a transfer."""
    look_tools = LookTools(
        loop=tools.loop,
        reader=tools.reader,
        crls=tools.crls,
        ca_file=ca_file,
        connect_timeout_s=settings.connect_timeout_s,
        make_client=make_client,
        door=door,
        proxies=proxies,
    )
    return Trust(settings.tls, look_tools, transfer=settings.transfer, is_strict=settings.strict_http, ask=ask)


def place_of(url: str) -> str:
    """The server of a URL, as a URL of its own."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    return f"{parts.scheme.lower()}://{f'[{host}]' if ':' in host else host}:{parts.port or 443}"


def _encoded(judged: Judged) -> tuple[str, ...]:
    """What the server showed, as far as it fits into a frame; its own certificate always does."""
    found: list[str] = []
    room = _MOST_CHAIN_CHARACTERS
    for certificate in judged.shown:
        text = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode("ascii")
        room -= len(text)
        if room < 0:
            break
        found.append(text)
    return tuple(found)


def _refused(message: CertificateJudged, host: str) -> Failure:
    return Failure(
        name=message.error,
        context=ErrorContext.SERVER_CERTIFICATE_CALLBACK,
        message=message.message or f"the program that judges certificates does not accept that of {host}",
        transient=True,
    )
