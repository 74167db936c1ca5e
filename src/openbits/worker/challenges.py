"""How the challenges of servers and proxies are answered in one transfer (I9, I10, J37; architecture, section 4).

The rule: a request carries credentials only to a server that has asked for them in this transfer, and only to the one
that the transfer was meant for.  Every answer is a new token: none is of use to whoever saw it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from openbits.core import credentials
from openbits.core.http import Response
from openbits.core.model import AuthTarget
from openbits.frames.network import ImplicitSpec
from openbits.worker.asking import Preparing
from openbits.worker.gss import NoToken, Trouble
from openbits.worker.tickets import Tickets

ASKED_BY: Final = {401: AuthTarget.SERVER, 407: AuthTarget.PROXY}
_FIELDS: Final = {AuthTarget.SERVER: "Authorization", AuthTarget.PROXY: "Proxy-Authorization"}


@dataclass(frozen=True, slots=True)
class Answers:
    """Header lines that prove who asks, for one request."""

    server: tuple[str, ...] = ()
    proxy: tuple[str, ...] = ()

    @property
    def targets(self) -> frozenset[AuthTarget]:
        """To whom something is proved."""
        found = ((AuthTarget.SERVER, self.server), (AuthTarget.PROXY, self.proxy))
        return frozenset(target for target, lines in found if lines)


NOTHING: Final = Answers()


@dataclass(slots=True, kw_only=True)
class _Work:
    """The tokens of one request, made one after the other."""

    url: str
    proxy_host: str
    wanted: list[AuthTarget]
    asked_now: AuthTarget | None
    lines: dict[AuthTarget, tuple[str, ...]] = field(default_factory=dict)


class Challenges:
    """What a transfer may answer, and who has asked in it."""

    def __init__(self, spec: ImplicitSpec, tickets: Tickets, header_lines: Iterable[str]) -> None:
        self._spec = spec
        self._tickets = tickets
        self._asking: set[tuple[AuthTarget, str]] = set()
        names = {line.partition(":")[0].strip().lower() for line in header_lines}
        self._has_own = {target for target, name in _FIELDS.items() if name.lower() in names}

    def __repr__(self) -> str:
        return f"<Challenges of={self._spec.account!r} asking={len(self._asking)}>"

    @property
    def _who(self) -> str:
        if self._spec.is_computer:
            return f"the computer ({self._tickets.principal})" if self._tickets.principal else "the computer"
        return self._spec.account or "the account"

    # --- judging -----------------------------------------------------------------------------

    def reason_against(
        self, response: Response, target: AuthTarget, *, first_url: str, url: str, proxy_host: str, sent: Answers
    ) -> str:
        """Why this challenge is not answered, as a clause; empty when it is."""
        spec = self._spec
        if target is AuthTarget.PROXY and not proxy_host:
            return "it asks as a proxy does, and none is used: ask whoever runs the server"
        if spec.is_anonymous:
            return credentials.anonymous(self._who)
        if target in self._has_own:
            return f"it does not take the {_FIELDS[target]} header that the job brings along"
        is_allowed = spec.server if target is AuthTarget.SERVER else spec.proxy
        if credentials.challenged_by(response) is not target:
            if is_allowed:
                return credentials.no_other_scheme(self._who)
            return f"the {target.value} wants to know who asks, by a scheme that this service does not speak"
        if not is_allowed:
            return credentials.not_allowed(target, self._who)
        if target is AuthTarget.SERVER and not credentials.may_answer(first_url, url):
            return credentials.not_for_others(self._who)
        if target in sent.targets:
            return credentials.rejected(self._who)
        return spec.trouble

    def reason_for_refusal(self, status: int) -> str:
        """What an answer that forbids has to do with the account, as a clause; empty for nothing."""
        if status == 403 and self._spec.is_anonymous:
            return credentials.anonymous(self._who)
        return ""

    # --- answering ---------------------------------------------------------------------------

    def is_asked(self, first_url: str, url: str, proxy_host: str) -> bool:
        """Whether a request to `url` is to carry answers: somebody on the way has asked in this transfer."""
        return bool(self._asking) and bool(self._wanted(first_url, url, proxy_host))

    def _wanted(self, first_url: str, url: str, proxy_host: str) -> list[AuthTarget]:
        wanted = []
        if (AuthTarget.PROXY, proxy_host) in self._asking:
            wanted.append(AuthTarget.PROXY)
        # What a server has asked for another file is not for whoever sends this one there by a redirect.
        if (AuthTarget.SERVER, _place(url)) in self._asking and credentials.may_answer(first_url, url):
            wanted.append(AuthTarget.SERVER)
        return wanted

    def prepare(
        self,
        *,
        first_url: str,
        url: str,
        proxy_host: str,
        asked_now: AuthTarget | None,
        preparing: Preparing,
        done: Callable[[Answers, str], None],
    ) -> None:
        """Make the answers that a request to `url` is to carry; `asked_now` has just asked.

        `done` gets them, and why the one that was asked for now could not be made. What was asked for earlier
        and cannot be made any more is left out: the request then finds out whether it still is wanted.
        """
        if asked_now is not None:
            self._asking.add((asked_now, proxy_host if asked_now is AuthTarget.PROXY else _place(url)))
        work = _Work(
            url=url,
            proxy_host=proxy_host,
            wanted=self._wanted(first_url, url, proxy_host),
            asked_now=asked_now,
        )
        self._next(work, preparing, done)

    def _next(self, work: _Work, preparing: Preparing, done: Callable[[Answers, str], None]) -> None:
        if not work.wanted:
            answers = Answers(server=work.lines.get(AuthTarget.SERVER, ()), proxy=work.lines.get(AuthTarget.PROXY, ()))
            done(answers, "")
            return
        target = work.wanted.pop(0)
        is_proxy = target is AuthTarget.PROXY
        host = work.proxy_host if is_proxy else urlsplit(work.url).hostname or ""

        def on_token(token: bytes | NoToken) -> None:
            if preparing.is_cancelled:
                return
            if not isinstance(token, NoToken):
                work.lines[target] = (f"{_FIELDS[target]}: Negotiate {base64.b64encode(token).decode('ascii')}",)
            else:
                self._asking.discard((target, host if is_proxy else _place(work.url)))
                if target is work.asked_now:
                    done(NOTHING, self._why_not(token))
                    return
            self._next(work, preparing, done)

        self._tickets.make_token(host, of_computer=self._spec.is_computer, done=on_token)

    def _why_not(self, error: NoToken) -> str:
        who = self._who
        if self._spec.is_computer:
            return f"no Kerberos ticket for it could be had for {who}: {error.text}"
        if error.trouble is Trouble.EXPIRED or "expired" in error.text.lower():
            return f"the Kerberos ticket of {who} has expired: run kinit, then resume the job"
        if error.trouble is Trouble.NO_TICKET:
            return f"{who} has no Kerberos ticket: run kinit, then resume the job ({error.text})"
        return f"no Kerberos ticket for it could be had for {who}: {error.text}"


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}"
