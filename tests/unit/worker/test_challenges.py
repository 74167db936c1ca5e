"""Challenges and their answers in one transfer: who gets a token, and what is said when nobody does (I9, I10, J37)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from openbits.core.http import Response
from openbits.core.model import AuthTarget
from openbits.frames.network import ImplicitSpec
from openbits.worker.asking import Preparing
from openbits.worker.challenges import NOTHING, Answers, Challenges
from openbits.worker.gss import NoToken, Trouble

URL = "http://a.test/file"
ASKS = Response(status=401, version="1.1", fields={"www-authenticate": ["Negotiate"]})
PROXY_ASKS = Response(status=407, version="1.1", fields={"proxy-authenticate": ["Negotiate"]})
ALICE = ImplicitSpec(server=True, account="alice")


class FakeTickets:
    """Makes tokens when the test says so."""

    def __init__(self) -> None:
        self.principal = ""
        self.wanted: list[tuple[str, bool]] = []
        self._waiting: list[Callable[[bytes | NoToken], None]] = []

    def make_token(self, host: str, *, of_computer: bool, done: Callable[[bytes | NoToken], None]) -> None:
        self.wanted.append((host, of_computer))
        self._waiting.append(done)

    def give(self, token: bytes | NoToken = b"token") -> None:
        self._waiting.pop(0)(token)


def challenges(spec: ImplicitSpec, *lines: str) -> tuple[Challenges, FakeTickets]:
    tickets: Any = FakeTickets()
    return Challenges(spec, tickets, lines), tickets


def reason(found: Challenges, response: Response = ASKS, **changes: Any) -> str:
    values: dict[str, Any] = {"first_url": URL, "url": URL, "proxy_host": "", "sent": NOTHING}
    return found.reason_against(response, AuthTarget.SERVER, **{**values, **changes})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (ImplicitSpec(is_anonymous=True, account="daemon"), "daemon is anonymous"),
        (ImplicitSpec(server=True, proxy=True, is_anonymous=True, account="daemon"), "daemon is anonymous"),
        (ImplicitSpec(account="alice"), "does not allow the credentials of alice"),
        (ImplicitSpec(proxy=True, account="alice"), "does not allow the credentials of alice"),
        (ImplicitSpec(server=True, is_computer=True, trouble="the computer has none"), "the computer has none"),
        (ALICE, ""),
    ],
)
def test_j37_reason_by_cause(spec: ImplicitSpec, words: str) -> None:
    found = reason(challenges(spec)[0])
    assert words in found
    assert bool(words) == bool(found)


def test_j37_rejected_when_it_was_sent_already() -> None:
    assert "does not let alice in" in reason(challenges(ALICE)[0], sent=Answers(server=("Authorization: x",)))
    # What a proxy took is no proof to the server.
    assert reason(challenges(ALICE)[0], sent=Answers(proxy=("Proxy-Authorization: x",))) == ""


def test_i9_other_server_other_scheme_own_header() -> None:
    assert "redirect" in reason(challenges(ALICE)[0], url="http://b.test/file")
    basic = Response(status=401, version="1.1", fields={"www-authenticate": ["Basic realm=x"]})
    assert "does not offer Negotiate" in reason(challenges(ALICE)[0], basic)
    assert "does not speak" in reason(challenges(ImplicitSpec(account="alice"))[0], basic)
    assert "header that the job brings" in reason(challenges(ALICE, "authorization: Bearer x")[0])


def test_407_without_a_proxy_gets_no_answer() -> None:
    found, _ = challenges(ImplicitSpec(server=True, proxy=True, account="alice"))
    more: dict[str, Any] = {"first_url": URL, "url": URL, "sent": NOTHING}
    assert "as a proxy does" in found.reason_against(PROXY_ASKS, AuthTarget.PROXY, proxy_host="", **more)
    assert found.reason_against(PROXY_ASKS, AuthTarget.PROXY, proxy_host="proxy.test", **more) == ""


def prepare(
    found: Challenges,
    got: list[tuple[Answers, str]],
    asked_now: AuthTarget | None,
    *,
    first_url: str = URL,
    proxy_host: str = "",
) -> Preparing:
    preparing = Preparing()
    found.prepare(
        first_url=first_url,
        url=URL,
        proxy_host=proxy_host,
        asked_now=asked_now,
        preparing=preparing,
        done=lambda *answer: got.append(answer),
    )
    return preparing


def test_i9_nothing_is_proved_before_somebody_asks() -> None:
    found, tickets = challenges(ALICE)
    assert not found.is_asked(URL, URL, "")
    assert tickets.wanted == []


def test_i9_who_has_asked_is_answered_from_then_on_and_nobody_else() -> None:
    found, tickets = challenges(ALICE)
    got: list[tuple[Answers, str]] = []
    found.prepare(
        first_url=URL,
        url=URL,
        proxy_host="",
        asked_now=AuthTarget.SERVER,
        preparing=Preparing(),
        done=lambda *a: got.append(a),
    )
    tickets.give(b"\xff\x01")
    assert got == [(Answers(server=("Authorization: Negotiate /wE=",)), "")]
    assert tickets.wanted == [("a.test", False)]
    assert found.is_asked(URL, "http://a.test/other", "")
    for url in ("http://b.test/file", "https://a.test/file", "http://a.test:81/file"):
        assert not found.is_asked(url, url, "")


def test_i9_a_redirect_from_elsewhere_proves_nothing_to_who_has_asked() -> None:
    """Another server of the job could have the account fetch what it likes."""
    found, tickets = challenges(ALICE)
    got: list[tuple[Answers, str]] = []
    found.prepare(
        first_url=URL,
        url=URL,
        proxy_host="",
        asked_now=AuthTarget.SERVER,
        preparing=Preparing(),
        done=lambda *a: got.append(a),
    )
    tickets.give()
    elsewhere = "http://evil.test/file"
    assert not found.is_asked(elsewhere, URL, "")
    found.prepare(
        first_url=elsewhere,
        url=URL,
        proxy_host="",
        asked_now=None,
        preparing=Preparing(),
        done=lambda *a: got.append(a),
    )
    assert got[1:] == [(NOTHING, "")]


def test_proxy_and_server_get_tokens_of_their_own() -> None:
    found, tickets = challenges(ImplicitSpec(server=True, proxy=True, is_computer=True))
    got: list[tuple[Answers, str]] = []
    for target, tokens in ((AuthTarget.PROXY, [b"p1"]), (AuthTarget.SERVER, [b"p2", b"s1"])):
        found.prepare(
            first_url=URL,
            url=URL,
            proxy_host="proxy.test",
            asked_now=target,
            preparing=Preparing(),
            done=lambda *a: got.append(a),
        )
        for token in tokens:
            tickets.give(token)
    answers, why = got[-1]
    assert why == ""
    assert answers.targets == {AuthTarget.PROXY, AuthTarget.SERVER}
    assert answers.proxy[0].startswith("Proxy-Authorization: ")
    assert answers.server[0].startswith("Authorization: ")
    assert answers.proxy[0].partition(": ")[2] != answers.server[0].partition(": ")[2]
    assert [host for host, _ in tickets.wanted] == ["proxy.test", "proxy.test", "a.test"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            NoToken(Trouble.NO_TICKET, "no cache"),
            "alice has no Kerberos ticket: run kinit, then resume the job (no cache)",
        ),
        (NoToken(Trouble.OTHER, "Ticket expired"), "the Kerberos ticket of alice has expired: run kinit"),
        (NoToken(Trouble.EXPIRED, "too late"), "the Kerberos ticket of alice has expired: run kinit"),
        (NoToken(Trouble.OTHER, "Cannot contact any KDC"), "could be had for alice: Cannot contact any KDC"),
    ],
)
def test_j37_no_token_for_who_has_just_asked(error: NoToken, words: str) -> None:
    found, tickets = challenges(ALICE)
    got: list[tuple[Answers, str]] = []
    found.prepare(
        first_url=URL,
        url=URL,
        proxy_host="",
        asked_now=AuthTarget.SERVER,
        preparing=Preparing(),
        done=lambda *a: got.append(a),
    )
    tickets.give(error)
    [(answers, why)] = got
    assert answers == NOTHING
    assert words in why
    # The next request does not try again by itself: it finds out whether it is still asked.
    assert not found.is_asked(URL, URL, "")


def test_no_token_for_who_asked_earlier_leaves_it_out() -> None:
    found, tickets = challenges(ALICE)
    got: list[tuple[Answers, str]] = []
    found.prepare(
        first_url=URL,
        url=URL,
        proxy_host="",
        asked_now=AuthTarget.SERVER,
        preparing=Preparing(),
        done=lambda *a: got.append(a),
    )
    tickets.give()
    found.prepare(
        first_url=URL, url=URL, proxy_host="", asked_now=None, preparing=Preparing(), done=lambda *a: got.append(a)
    )
    tickets.give(NoToken(Trouble.EXPIRED, "too late"))
    assert got[-1] == (NOTHING, "")


def test_nobody_hears_of_a_token_that_is_no_longer_wanted() -> None:
    found, tickets = challenges(ALICE)
    got: list[tuple[Answers, str]] = []
    preparing = prepare(found, got, AuthTarget.SERVER)
    preparing.cancel()
    tickets.give()
    assert got == []


def test_403_is_explained_for_anonymous_accounts_only() -> None:
    assert "anonymous" in challenges(ImplicitSpec(is_anonymous=True, account="daemon"))[0].reason_for_refusal(403)
    assert challenges(ImplicitSpec(is_anonymous=True, account="daemon"))[0].reason_for_refusal(404) == ""
    assert challenges(ALICE)[0].reason_for_refusal(403) == ""
