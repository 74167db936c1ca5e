"""Challenges and their answers in one transfer: who gets a proof, and why nobody does (I9, I10, J35-J37)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from openbits.core.http import Response
from openbits.core.model import AuthTarget
from openbits.core.proxylist import Proxy
from openbits.frames.network import ImplicitSpec
from openbits.frames.worker import TakeCredential
from openbits.worker.asking import Preparing, Request
from openbits.worker.challenges import NOTHING, Answers, Challenges
from openbits.worker.gss import NoToken, Trouble
from openbits.worker.logins import Login, Source
from openbits.worker.netrc import Netrc
from openbits.worker.proving import Prover

URL = "http://a.test/file"
GET = Request(url=URL)
PROXY = Proxy("http", "proxy.test", 3128)
THROUGH = Request(url=URL, proxy=PROXY)
ALICE = ImplicitSpec(server=True, account="alice")
NOBODY = ImplicitSpec(account="alice")
USER = "Aladdin"
SECRET = "open sesame"
BASIC = "Basic " + base64.b64encode(f"{USER}:{SECRET}".encode()).decode()


def asks(*challenges: str) -> Response:
    return Response(status=401, version="1.1", fields={"www-authenticate": list(challenges)})


def proxy_asks(*challenges: str) -> Response:
    return Response(status=407, version="1.1", fields={"proxy-authenticate": list(challenges)})


ASKS = asks("Negotiate")
PROXY_ASKS = proxy_asks("Negotiate")

NTLM_CHALLENGE = base64.b64encode(
    bytes.fromhex(
        "4e544c4d53535000020000000800080038000000358289e20102030405060708000000000000000018001800400000000a00614a0000000f"
        "5400450053005400020008005400450053005400070008000090d336b734c30100000000"
    )
).decode()


class FakeTickets:
    """Makes tokens when the test says so; what is computed is computed at once."""

    def __init__(self) -> None:
        self.principal = ""
        self.wanted: list[tuple[str, bool]] = []
        self._waiting: list[Callable[[bytes | NoToken], None]] = []

    def make_token(self, host: str, *, of_computer: bool, done: Callable[[bytes | NoToken], None]) -> None:
        self.wanted.append((host, of_computer))
        self._waiting.append(done)

    def give(self, token: bytes | NoToken = b"token") -> None:
        self._waiting.pop(0)(token)

    def perform(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        done(work())

    def submit(self, work: Callable[[], None]) -> None:
        work()


class FakeReader:
    """Knows one ~/.netrc."""

    def __init__(self, netrc: Netrc) -> None:
        self._netrc = netrc
        self.reads = 0

    def submit(self, _work: Callable[[], Netrc], done: Callable[[Netrc], None]) -> None:
        self.reads += 1
        done(self._netrc)


def challenges(spec: ImplicitSpec, *lines: str, netrc: Netrc | None = None) -> tuple[Challenges, FakeTickets]:
    tickets: Any = FakeTickets()
    reader: Any = FakeReader(netrc or Netrc())
    return Challenges(spec, Prover(tickets, reader), lines, uses_netrc=netrc is not None), tickets


def with_logins(*pairs: str, spec: ImplicitSpec = NOBODY) -> Challenges:
    """With `target/scheme` each having a name and a password."""
    found, _ = challenges(spec)
    for pair in pairs:
        target, scheme = pair.split("/")
        found.explicit.take(
            TakeCredential(transfer=1, target=target, scheme=scheme, user_name=USER, password=SECRET, last=True)
        )
    return found


def reason(
    found: Challenges, response: Response = ASKS, request: Request = GET, sent: Answers = NOTHING, meant_for: str = URL
) -> str:
    return found.reason_against(response, request, meant_for=meant_for, sent=sent)


class Chain:
    """One request, and the same again and again while somebody asks."""

    def __init__(self, found: Challenges, request: Request = GET, meant_for: str = URL) -> None:
        self.found, self.request, self.meant_for = found, request, meant_for
        self.sent = NOTHING
        self.why = ""
        self.preparing = Preparing()

    def _done(self, answers: Answers, why: str) -> None:
        self.sent, self.why = answers, why

    def depart(self) -> Chain:
        """Send it, with what is proved early."""
        if self.found.is_asked(self.request, self.meant_for):
            self.found.prepare(self.request, meant_for=self.meant_for, preparing=self.preparing, done=self._done)
        return self

    def challenged(self, response: Response = ASKS) -> Chain:
        """Somebody asks."""
        self.why = reason(self.found, response, self.request, self.sent, self.meant_for)
        if not self.why:
            self.found.answer(
                response,
                self.request,
                meant_for=self.meant_for,
                sent=self.sent,
                preparing=self.preparing,
                done=self._done,
            )
        return self

    @property
    def server(self) -> str:
        """What the server is told."""
        return "".join(self.sent.lines(AuthTarget.SERVER)).removeprefix("Authorization: ")

    @property
    def proxy(self) -> str:
        """What the proxy is told."""
        return "".join(self.sent.lines(AuthTarget.PROXY)).removeprefix("Proxy-Authorization: ")


# --- the account's own credentials ----------------------------------------------------------------------


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
    found, tickets = challenges(ALICE)
    chain = Chain(found).challenged()
    tickets.give()
    assert chain.server.startswith("Negotiate ")
    assert "does not let alice in" in chain.challenged().why


def test_i9_other_server_other_scheme_own_header() -> None:
    elsewhere = Request(url="http://b.test/file")
    assert "redirect" in reason(challenges(ALICE)[0], request=elsewhere)
    basic = asks("Basic realm=x")
    for found in (challenges(NOBODY)[0], challenges(NOBODY, "authorization: Bearer x")[0]):
        # Whatever one set for the job, it would not go there.
        assert "does not get the credentials of the job" in reason(found, basic, elsewhere)
    assert "does not offer Negotiate" in reason(challenges(ALICE)[0], basic)
    assert "asks by basic, and the job has no user name" in reason(challenges(NOBODY)[0], basic)
    assert "header that the job brings" in reason(challenges(ALICE, "authorization: Bearer x")[0])


@pytest.mark.parametrize("said", [(), ("= = =",)])
def test_j37_who_names_no_scheme_cannot_be_told_anything(said: tuple[str, ...]) -> None:
    for found in (challenges(NOBODY)[0], with_logins("server/basic")):
        why = Chain(found).challenged(asks(*said)).why
        assert "does not say by which scheme" in why
        assert "set-credentials" not in why


def test_407_without_a_proxy_gets_no_answer() -> None:
    found, _ = challenges(ImplicitSpec(server=True, proxy=True, account="alice"))
    assert "as a proxy does" in reason(found, PROXY_ASKS)
    assert reason(found, PROXY_ASKS, THROUGH) == ""
    said = reason(challenges(NOBODY)[0], proxy_asks("Basic realm=x"), THROUGH)
    assert "bits set-credentials --target proxy'" in said
    assert "as a proxy does" in reason(with_logins("proxy/basic"), proxy_asks("Basic realm=x"))


@pytest.mark.parametrize("protocol", ["http", "https", "socks5"])
def test_i9_what_a_server_behind_a_tunnel_asks_is_not_the_proxys_question(protocol: str) -> None:
    """The proxy would be told a password that it has never asked for, and by a scheme that the server chose."""
    found = with_logins("proxy/basic", "proxy/ntlm")
    request = Request(url="https://a.test/file", proxy=Proxy(protocol, "proxy.test", 3128))
    asked = replace(proxy_asks("Basic realm=x"), raw=b"HTTP/1.1 407 Who?\r\n\r\n")
    assert "as a proxy does, and stands behind" in reason(found, asked, request, meant_for=request.url)
    if protocol != "socks5":
        assert reason(found, replace(asked, raw=b""), request, meant_for=request.url) == ""
        assert reason(found, asked, replace(request, url=URL)) == ""


def test_i9_nothing_is_proved_before_somebody_asks() -> None:
    found, tickets = challenges(ALICE)
    assert not found.is_asked(GET, URL)
    assert tickets.wanted == []
    found = with_logins("server/basic", "proxy/basic")
    assert not found.is_asked(THROUGH, URL)


def test_i9_who_has_asked_is_answered_from_then_on_and_nobody_else() -> None:
    found, tickets = challenges(ALICE)
    chain = Chain(found).challenged()
    tickets.give(b"\xff\x01")
    assert (chain.server, chain.why) == ("Negotiate /wE=", "")
    assert tickets.wanted == [("a.test", False)]
    assert found.is_asked(Request(url="http://a.test/other"), URL)
    for url in ("http://b.test/file", "https://a.test/file", "http://a.test:81/file"):
        assert not found.is_asked(Request(url=url), url)


def test_i9_a_redirect_from_elsewhere_proves_nothing_to_who_has_asked() -> None:
    """Another server of the job could have the account fetch what it likes."""
    found, tickets = challenges(ALICE)
    Chain(found).challenged()
    tickets.give()
    elsewhere = "http://evil.test/file"
    assert not found.is_asked(GET, elsewhere)
    found = with_logins("server/basic")
    Chain(found).challenged(asks("Basic realm=x"))
    assert found.is_asked(GET, URL)
    assert not found.is_asked(GET, elsewhere)
    assert "redirect" in reason(found, asks("Basic realm=x"), GET, meant_for=elsewhere)


def test_proxy_and_server_get_tokens_of_their_own() -> None:
    found, tickets = challenges(ImplicitSpec(server=True, proxy=True, is_computer=True))
    chain = Chain(found, THROUGH).challenged(PROXY_ASKS)
    tickets.give(b"p1")
    chain.challenged()
    tickets.give(b"s1")
    tickets.give(b"p2")
    assert chain.why == ""
    assert chain.sent.targets == {AuthTarget.PROXY, AuthTarget.SERVER}
    assert (chain.proxy, chain.server) == ("Negotiate cDI=", "Negotiate czE=")
    assert [host for host, _ in tickets.wanted] == ["proxy.test", "a.test", "proxy.test"]


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
    chain = Chain(found).challenged()
    tickets.give(error)
    assert chain.sent == NOTHING
    assert words in chain.why
    # The next request does not try again by itself: it finds out whether it still is asked.
    assert not found.is_asked(GET, URL)


def test_no_token_for_who_asked_earlier_leaves_it_out() -> None:
    found, tickets = challenges(ALICE)
    Chain(found).challenged()
    tickets.give()
    chain = Chain(found).depart()
    tickets.give(NoToken(Trouble.EXPIRED, "too late"))
    assert (chain.server, chain.why) == ("", "")


def test_nobody_hears_of_a_token_that_is_no_longer_wanted() -> None:
    found, tickets = challenges(ALICE)
    chain = Chain(found).challenged()
    chain.preparing.cancel()
    tickets.give()
    assert chain.server == ""


def test_403_is_explained_for_anonymous_accounts_only() -> None:
    assert "anonymous" in challenges(ImplicitSpec(is_anonymous=True, account="daemon"))[0].reason_for_refusal(403)
    assert challenges(ImplicitSpec(is_anonymous=True, account="daemon"))[0].reason_for_refusal(404) == ""
    assert challenges(ALICE)[0].reason_for_refusal(403) == ""


# --- names and passwords --------------------------------------------------------------------------------


def test_j35_basic_is_answered_once_and_then_early() -> None:
    found = with_logins("server/basic")
    chain = Chain(found).challenged(asks("Basic realm=x"))
    assert chain.server == BASIC
    assert Chain(found, Request(url="http://a.test/other")).depart().server == BASIC
    chain.challenged(asks("Basic realm=x"))
    assert "does not take the user name and password that the job has for server and basic" in chain.why
    assert "bits set-credentials" in chain.why
    assert USER not in chain.why
    assert SECRET not in chain.why
    assert not found.is_asked(GET, URL)


@pytest.mark.parametrize(
    ("offer", "scheme"),
    [
        (("Basic realm=x", 'Digest realm="x", nonce="n"'), "Digest"),
        (("Basic realm=x", "NTLM", 'Digest realm="x", nonce="n"'), "NTLM"),
        (("NTLM, Basic realm=x",), "NTLM"),
        (("Basic realm=x", "Kerberos"), "Basic"),
    ],
)
def test_i9_strongest_offered_scheme_that_has_credentials(offer: tuple[str, ...], scheme: str) -> None:
    found = with_logins("server/basic", "server/digest", "server/ntlm")
    assert Chain(found).challenged(asks(*offer)).server.partition(" ")[0] == scheme


def test_i9_only_schemes_that_have_credentials() -> None:
    offer = asks("Negotiate", "NTLM", 'Digest realm="x", nonce="n"', "Basic realm=x")
    assert Chain(with_logins("server/basic")).challenged(offer).server == BASIC
    chain = Chain(with_logins("server/ntlm")).challenged(asks("Basic realm=x"))
    assert chain.server == ""
    assert "it asks by basic" in chain.why
    assert "has credentials for server and ntlm only" in chain.why


def test_i9_what_is_refused_gives_way_to_the_next_and_each_is_tried_once() -> None:
    offer = asks("NTLM", 'Digest realm="x", nonce="n", qop=auth', "Basic realm=x")
    chain = Chain(with_logins("server/basic", "server/digest", "server/ntlm"))
    said = [chain.challenged(offer).server.partition(" ")[0] for _ in range(3)]
    assert said == ["NTLM", "Digest", "Basic"]
    chain.challenged(offer)
    for scheme in ("(ntlm)", "(digest)", "(basic)"):
        assert scheme in chain.why


def test_i10_explicit_beats_implicit_for_its_scheme() -> None:
    found = with_logins("server/basic", spec=ALICE)
    chain = Chain(found).challenged(asks("Negotiate", "Basic realm=x"))
    tickets: Any = found._prover._tickets
    assert tickets.wanted == [("a.test", False)]
    tickets.give(NoToken(Trouble.NO_TICKET, "no cache"))
    # The account has no ticket: the next scheme has credentials.
    assert chain.server == BASIC


def test_j35_credentials_of_the_proxy_are_not_the_servers() -> None:
    found = with_logins("proxy/basic")
    assert "job has no user name" in reason(found, asks("Basic realm=x"), THROUGH)
    chain = Chain(found, THROUGH).challenged(proxy_asks("Basic realm=x"))
    assert (chain.proxy, chain.server) == (BASIC, "")
    found = with_logins("server/basic")
    assert "job has no user name" in reason(found, proxy_asks("Basic realm=x"), THROUGH)


def test_j35_https_credentials_do_not_go_over_http() -> None:
    found = with_logins("server/basic")
    over_http = Request(url="http://a.test/file")
    why = reason(found, asks("Basic realm=x"), over_http, meant_for="https://a.test/file")
    assert "redirect" in why


def test_j35_a_stale_nonce_is_no_refusal() -> None:
    found = with_logins("server/digest")
    chain = Chain(found).challenged(asks('Digest realm="x", nonce="1", qop=auth'))
    chain.challenged(asks('Digest realm="x", nonce="2", qop=auth, stale=true'))
    assert 'nonce="2"' in chain.server
    # Used early, an old nonce is old even if nobody says so …
    later = Chain(found).depart()
    assert "nc=00000002" in later.server
    later.challenged(asks('Digest realm="x", nonce="3", qop=auth'))
    assert 'nonce="3"' in later.server
    # … and a server that finds every nonce stale comes to an end.
    for number in range(20):
        later.challenged(asks(f'Digest realm="x", nonce="s{number}", qop=auth, stale=true'))
        if later.why:
            break
    assert "again and again" in later.why


def test_j35_digest_says_what_goes_over_the_line() -> None:
    offer = 'Digest realm="x", nonce="1", qop=auth'
    chain = Chain(with_logins("server/digest"), Request(url="http://a.test/f?q=%41", proxy=PROXY, head=True))
    assert 'uri="/f?q=%41"' in chain.challenged(asks(offer)).server
    chain = Chain(with_logins("proxy/digest"), THROUGH)
    assert 'uri="http://a.test/file"' in chain.challenged(proxy_asks(offer)).proxy
    secure = Request(url="https://a.test/file", proxy=PROXY)
    chain = Chain(with_logins("proxy/digest"), secure, "https://a.test/file")
    assert 'uri="a.test:443"' in chain.challenged(proxy_asks(offer)).proxy


# --- handshakes -------------------------------------------------------------------------------------------


def test_j35_ntlm_is_a_handshake_on_a_connection_of_its_own() -> None:
    found = with_logins("server/ntlm")
    chain = Chain(found).challenged(asks("NTLM"))
    first = chain.sent
    assert (first.is_greeting, first.goes_on, first.connection > 0) == (True, False, True)
    chain.challenged(asks(f"NTLM {NTLM_CHALLENGE}"))
    assert (chain.sent.is_greeting, chain.sent.goes_on, chain.sent.connection) == (False, True, first.connection)
    assert chain.server.startswith("NTLM ")
    # From then on the connection knows; on another one the handshake begins anew.
    later = Chain(found).depart()
    assert (later.server, later.sent.connection) == ("", first.connection)
    assert later.challenged(asks("NTLM")).sent.is_greeting
    # Who was sent there from elsewhere does not get that connection.
    assert not found.is_asked(GET, "http://evil.test/")


def test_j35_ntlm_refused_or_spoilt_gives_way() -> None:
    found = with_logins("server/ntlm", "server/basic")
    chain = Chain(found).challenged(asks("NTLM", "Basic realm=x"))
    chain.challenged(asks(f"NTLM {NTLM_CHALLENGE}", "Basic realm=x"))
    assert chain.challenged(asks("NTLM", "Basic realm=x")).server == BASIC
    assert chain.sent.connection == 0
    for spoilt in ("AAAA", "not-base-64", base64.b64encode(b"NTLMSSP\0" + b"\xff" * 40).decode()):
        chain = Chain(with_logins("server/ntlm", "server/basic")).challenged(asks("NTLM", "Basic realm=x"))
        assert chain.challenged(asks(f"NTLM {spoilt}", "Basic realm=x")).server == BASIC


def test_j35_proxy_in_front_of_a_handshake() -> None:
    """A new connection has to pass the proxy first, and what greets the server is kept until it has."""
    found = with_logins("proxy/ntlm", "server/ntlm")
    chain = Chain(found, THROUGH).challenged(asks("NTLM"))
    greeting = chain.server
    chain.challenged(proxy_asks("NTLM"))
    assert chain.server == greeting
    assert chain.proxy.startswith("NTLM ")
    chain.challenged(proxy_asks(f"NTLM {NTLM_CHALLENGE}"))
    assert chain.server == greeting
    chain.challenged(asks(f"NTLM {NTLM_CHALLENGE}"))
    assert chain.proxy == ""
    assert chain.server not in ("", greeting)
    assert chain.why == ""


# --- URLs and ~/.netrc ------------------------------------------------------------------------------------


def test_j35_names_in_urls_are_for_that_file() -> None:
    found, _ = challenges(NOBODY)
    mine = Request(url=URL, userinfo="Aladdin:open%20sesame")
    assert Chain(found, mine).challenged(asks("Basic realm=x")).server == BASIC
    assert not found.is_asked(GET, URL)
    assert "in the file's URL" in Chain(found, mine).depart().challenged(asks("Basic realm=x")).why
    # Negotiate is not for them.
    assert "it asks by negotiate" in Chain(found, mine).challenged(asks("Negotiate")).why


def test_j35_the_jobs_own_come_before_the_urls() -> None:
    found = with_logins("server/basic")
    mine = Request(url=URL, userinfo="other:one")
    assert Chain(found, mine).challenged(asks("Basic realm=x")).server == BASIC


def test_i9_netrc_is_read_when_somebody_asks() -> None:
    login = Login(source=Source.NETRC, user_name=USER, password=SECRET)
    found, _ = challenges(NOBODY, netrc=Netrc(machines=(("A.test.", login),)))
    reader: Any = found._prover._reader
    assert reader.reads == 0
    assert Chain(found).challenged(asks("Basic realm=x")).server == BASIC
    elsewhere = "http://b.test/"
    why = Chain(found, Request(url=elsewhere), elsewhere).challenged(asks("Basic realm=x")).why
    assert "~/.netrc of alice has nothing for it" in why
    assert reader.reads == 1


def test_i9_netrc_that_cannot_be_used_says_so() -> None:
    found, _ = challenges(NOBODY, netrc=Netrc(trouble="/home/alice/.netrc is not used, because others may read it"))
    assert "others may read it" in Chain(found).challenged(asks("Basic realm=x")).why


def test_j35_a_transfer_forgets_what_it_knew() -> None:
    found = with_logins("server/basic")
    Chain(found).challenged(asks("Basic realm=x"))
    found.close()
    assert not found.explicit
    assert not found.is_asked(GET, URL)
    for shown in (found, found.explicit, Login(source=Source.JOB, user_name=USER, password=SECRET)):
        assert SECRET not in repr(shown)
        assert USER not in repr(shown)
