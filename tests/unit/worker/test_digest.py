"""Digest answers: the examples of RFC 7616 and RFC 2069, and what is not answered (I9, J35)."""

from __future__ import annotations

import hashlib

import pytest

from openbits.core.challenges import parse_challenges
from openbits.worker.digest import Session, is_same_nonce, read_digest, strongest_digest

_OPAQUE = "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"
_NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
_CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"


def session(text: str, user: str = "Mufasa", password: str = "Circle of Life", cnonce: str = _CNONCE) -> Session:
    asked = strongest_digest(parse_challenges([text]))
    assert asked is not None
    return Session(challenge=asked, user_name=user, password=password, make_cnonce=lambda: cnonce)


def fields(answer: str) -> dict[str, str]:
    [challenge] = parse_challenges([answer])
    assert challenge.scheme == "digest"
    return challenge.parameters


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_j35_example_of_rfc_7616(algorithm: str, response: str) -> None:
    """Section 3.9.1."""
    asked = (
        f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={algorithm}, '
        f'nonce="{_NONCE}", opaque="{_OPAQUE}"'
    )
    found = fields(session(asked).answer("GET", "/dir/index.html"))
    assert found == {
        "username": "Mufasa",
        "realm": "http-auth@example.org",
        "uri": "/dir/index.html",
        "algorithm": algorithm,
        "nonce": _NONCE,
        "nc": "00000001",
        "cnonce": _CNONCE,
        "qop": "auth",
        "response": response,
        "opaque": _OPAQUE,
    }


def test_j35_hashed_user_name_of_rfc_7616() -> None:
    """Section 3.9.2; by SHA-256, for which Python's own hash is the witness."""
    asked = 'Digest realm="api@example.org", qop="auth", algorithm=SHA-256, nonce="n", charset=UTF-8, userhash=true'
    user = "J\u00e4s\u00f8n Doe"
    found = fields(session(asked, user, "Secret, or not?").answer("GET", "/doe.json"))
    assert found["username"] == hashlib.sha256(f"{user}:api@example.org".encode()).hexdigest()
    assert found["userhash"] == "true"


def test_j35_example_of_rfc_2069() -> None:
    """The example with the erratum's number, since the printed one is wrong: no qop, no count."""
    asked = (
        'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    found = fields(session(asked, "Mufasa", "CircleOfLife").answer("GET", "/dir/index.html"))
    assert found["response"] == "1949323746fe6a43ef61f9606e7febea"
    assert not {"qop", "nc", "cnonce", "algorithm"} & set(found)


def test_j35_example_of_rfc_2617() -> None:
    asked = (
        'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    found = fields(session(asked, "Mufasa", "Circle Of Life", "0a4f113b").answer("GET", "/dir/index.html"))
    assert found["response"] == "6629fae49393a05397450978507c4ef1"


def test_j35_every_use_of_a_nonce_is_counted() -> None:
    one = session('Digest realm="r", nonce="n", qop="auth"')
    assert [fields(one.answer("GET", "/"))["nc"] for _ in range(3)] == ["00000001", "00000002", "00000003"]


def test_j35_a_session_keeps_its_first_client_nonce() -> None:
    names = iter(("first", "second"))
    asked = strongest_digest(parse_challenges(['Digest realm="r", nonce="n", qop="auth", algorithm=MD5-sess']))
    assert asked is not None
    one = Session(challenge=asked, user_name="u", password="p", make_cnonce=lambda: next(names))

    def md5(text: str) -> str:
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    secret = md5(f"{md5('u:r:p')}:n:first")
    for count in ("00000001", "00000002"):
        found = fields(one.answer("GET", "/"))
        assert found["cnonce"] == "first"
        assert found["response"] == md5(f"{secret}:n:{count}:first:auth:{md5('GET:/')}")


def test_j35_the_strongest_algorithm_is_answered() -> None:
    asked = strongest_digest(
        parse_challenges(
            ['Digest realm="r", nonce="1", algorithm=MD5', 'Digest realm="r", nonce="2", algorithm=SHA-256-sess']
        )
    )
    assert asked is not None
    assert (asked.nonce, asked.is_session) == ("2", True)


@pytest.mark.parametrize(
    "text",
    [
        'Digest realm="r"',
        'Digest nonce="n"',
        'Digest realm="r", nonce=""',
        'Digest realm="r", nonce="n", algorithm=SHA-1024',
        'Digest realm="r", nonce="n", algorithm=-sess',
        'Digest realm="r", nonce="n", qop="auth-int"',
        'Digest realm="r", nonce="' + "n" * 5000 + '"',
        'Basic realm="r"',
    ],
)
def test_j35_what_cannot_be_answered(text: str) -> None:
    [challenge] = parse_challenges([text])
    assert read_digest(challenge) is None


def test_j35_bytes_of_the_realm_go_back_as_they_came() -> None:
    """A server that writes UTF-8 gets UTF-8, one that writes Latin-1 gets Latin-1."""
    for sent in ("Größe".encode(), "Größe".encode("latin-1")):
        text = f'Digest realm="{sent.decode("latin-1")}", nonce="n"'
        line = session(text).answer("GET", "/")
        assert b'realm="' + sent + b'"' in line.encode("utf-8", "surrogateescape")


def test_j35_names_beyond_ascii_and_with_quotes() -> None:
    plain = 'Digest realm="r", nonce="n", qop=auth'
    assert fields(session(plain, 'a"b\\c').answer("GET", "/"))["username"] == 'a"b\\c'
    assert "username*=UTF-8''J%C3%A4s%20n" in session(f"{plain}, charset=UTF-8", "Jäs n").answer("GET", "/")


def test_i9_a_name_of_netrc_that_is_no_text_goes_as_the_bytes_that_it_is() -> None:
    user = b"j\xfcrgen".decode("utf-8", "surrogateescape")
    line = session('Digest realm="r", nonce="n", qop=auth, charset=UTF-8', user).answer("GET", "/")
    assert b'username="j\xfcrgen"' in line.encode("utf-8", "surrogateescape")


def test_j35_same_nonce_again() -> None:
    asked = read_digest(parse_challenges(['Digest realm="r", nonce="n", stale=TRUE'])[0])
    assert asked is not None
    assert asked.is_stale
    assert is_same_nonce(session('Digest realm="r", nonce="n"'), asked)
    assert not is_same_nonce(session('Digest realm="r", nonce="m"'), asked)
