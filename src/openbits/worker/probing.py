"""A look at a server before anything is asked of it: what it shows is judged, and maybe looked up (H7, H8, I13).

libcurl verifies everything or nothing.  So where a job overlooks something, a connection is made that carries no
request, on the way that the requests will take; what the server shows on it is judged here; and the requests go only
to who has the key that was judged.  Whatever the job does not overlook libcurl verifies on that connection as on all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from openbits.core.http import host_of
from openbits.worker.asking import Belief, Identity, Probe, Request
from openbits.worker.certificates import CHECK_CRL, IGNORE_NAME, JUDGED_HERE, Judged, judge
from openbits.worker.client import Client
from openbits.worker.failure import Failure
from openbits.worker.helper import Helper
from openbits.worker.inquiry import Door, Inquiry
from openbits.worker.loop import Loop
from openbits.worker.proxies import Proxies
from openbits.worker.revocation import (
    FETCH_LIMIT_S,
    MOST_BYTES,
    Crls,
    Fetched,
    RevocationCheck,
    Subject,
    revoked,
    unknown,
)
from openbits.worker.tlserrors import certificate_needed

_PEER_FAILED_VERIFICATION: Final = 60
_OTHER_KEY: Final = 90
_INVALID_STATUS: Final = 91
_REVOKED_TEXT: Final = "revocation reason"
"""What libcurl says only of a certificate that its own authority calls revoked."""
_PATIENCE_S: Final = 60.0
"""Beyond the connect timeout, for the proofs that proxies want; a look that takes longer has gone wrong."""


@dataclass(frozen=True, kw_only=True)
class LookTools:
    """What a look needs of the transfer."""

    loop: Loop
    reader: Helper
    crls: Crls
    ca_file: str
    connect_timeout_s: int
    make_client: Callable[[], Client]
    door: Callable[[], Door]
    proxies: Callable[[], Proxies]

    def inquire(
        self,
        request: Request,
        done: Callable[[Inquiry, Failure | None], None],
        *,
        limit_s: float,
        limit_bytes: int = 0,
    ) -> Inquiry:
        """Ask something beside the files."""
        inquiry = Inquiry(
            self.make_client(), self.door(), self.loop, limit_s=limit_s, limit_bytes=limit_bytes, done=done
        )
        inquiry.start(request)
        return inquiry


class Look:
    """A look at one server; it ends exactly once, unless it was dropped."""

    def __init__(
        self,
        url: str,
        tools: LookTools,
        *,
        flags: int,
        identity: Identity | None,
        refuses_to_be_asked: bool,
        done: Callable[[Judged | Failure], None],
    ) -> None:
        self._url = url
        self._tools = tools
        self._flags = flags
        self._identity = identity
        self._refuses_to_be_asked = refuses_to_be_asked
        """Whether a server that would take a client certificate is not asked for anything without one (I13)."""
        self._done = done
        self._inquiry: Inquiry | None = None
        self._is_over = False

    def __repr__(self) -> str:
        return f"<Look at {self._url}>"

    def start(self) -> None:
        """Make the connection."""
        self._probe(Probe.CERTIFICATE, self._belief(), self._on_shown)

    def drop(self) -> None:
        """Nobody wants to know any more."""
        self._is_over = True
        if self._inquiry is not None:
            self._inquiry.drop()
            self._inquiry = None

    def _belief(self) -> Belief:
        return Belief(
            verifies_chain=not self._flags & JUDGED_HERE,
            verifies_name=not self._flags & IGNORE_NAME,
            identity=self._identity,
        )

    def _probe(self, probe: Probe, belief: Belief, done: Callable[[Inquiry, Failure | None], None]) -> None:
        request = Request(url=self._url, fresh=True, probe=probe, belief=belief)
        self._ask(request, done, limit_s=self._tools.connect_timeout_s + _PATIENCE_S)

    def _ask(
        self,
        request: Request,
        done: Callable[[Inquiry, Failure | None], None],
        *,
        limit_s: float,
        limit_bytes: int = 0,
    ) -> None:
        def ended(inquiry: Inquiry, failure: Failure | None) -> None:
            self._inquiry = None
            if self._is_over:
                return
            proxies, sent = self._tools.proxies(), inquiry.request
            if failure is not None and sent is not None:
                # As for a request: the next proxy of the list may know better.
                if proxies.has_other_way(failure, sent):
                    self._ask(request, done, limit_s=limit_s, limit_bytes=limit_bytes)
                    return
                failure = proxies.named(failure, sent)
            done(inquiry, failure)

        inquiry = self._tools.inquire(request, ended, limit_s=limit_s, limit_bytes=limit_bytes)
        if not inquiry.is_over:
            self._inquiry = inquiry

    def _end(self, outcome: Judged | Failure) -> None:
        if not self._is_over:
            self._is_over = True
            self._done(outcome)

    # --- what it shows -----------------------------------------------------------------------

    def _on_shown(self, inquiry: Inquiry, failure: Failure | None) -> None:
        whose = host_of(self._url)
        if failure is not None:
            self._end(failure)
            return
        if self._refuses_to_be_asked and self._identity is None and inquiry.client.wants_certificate:
            self._end(certificate_needed(whose))
            return
        chain = inquiry.client.shown_chain

        def judged(outcome: Judged | Failure | OSError) -> None:
            assert not isinstance(outcome, OSError)
            if self._is_over:
                return
            if isinstance(outcome, Failure) or not self._flags & CHECK_CRL:
                self._end(outcome)
            else:
                self._ask_status(outcome)

        self._tools.reader.submit(lambda: judge(chain, self._flags, whose, self._tools.ca_file), judged)

    # --- whether it has been revoked ---------------------------------------------------------

    def _ask_status(self, judged: Judged) -> None:
        """Have the server bring along what its authority says of it (OCSP stapling): that needs nobody else.

        Only libcurl gets to see it, and believes it from an authority that it trusts: here, the one that was judged.
        """

        def on_status(inquiry: Inquiry, failure: Failure | None) -> None:
            code, text = inquiry.client.error or (0, "")
            if failure is None:
                self._look_up(judged, judged.path[1:])
            elif code == _INVALID_STATUS and _REVOKED_TEXT in text:
                self._end(revoked(host_of(self._url)))
            elif code in (_INVALID_STATUS, _PEER_FAILED_VERIFICATION, _OTHER_KEY):
                # None was brought along, or none that can be used: the list says it.
                self._look_up(judged, judged.path)
            else:
                self._end(failure)

        belief = Belief(
            verifies_name=False,
            keys=(judged.key,),
            authorities=judged.path[-1].public_bytes(Encoding.PEM),
            identity=self._identity,
        )
        self._probe(Probe.STATUS, belief, on_status)

    def _look_up(self, judged: Judged, path: tuple[object, ...]) -> None:
        """Look the end of the chain up that begins with `path`, without the one that is trusted."""
        first = len(judged.path) - len(path)
        host = host_of(self._url)
        if not judged.is_rooted:
            # The end of the chain is no root: somebody unknown may have revoked it.
            self._end(unknown(host, "who issued its certificate, or that of its authority, is unknown"))
            return
        subjects = [
            Subject(
                certificate=judged.path[at],
                issuer=judged.path[at + 1],
                whose=host if at == 0 else f"the authority {judged.path[at].subject.rfc4514_string()[:100]}",
            )
            for at in range(first, len(judged.path) - 1)
        ]

        def looked_up(failure: Failure | None) -> None:
            self._end(failure or judged)

        RevocationCheck(
            subjects, crls=self._tools.crls, reader=self._tools.reader, fetch=self._fetch_list, done=looked_up
        ).start()

    def _fetch_list(self, url: str, done: Fetched) -> None:
        def fetched(inquiry: Inquiry, failure: Failure | None) -> None:
            if failure is not None:
                done(failure.message)
            elif inquiry.status != 200:
                done(f"the answer was {inquiry.status}")
            else:
                done(bytes(inquiry.content))

        if not self._is_over:
            self._ask(Request(url=url), fetched, limit_s=FETCH_LIMIT_S, limit_bytes=MOST_BYTES)
