"""Names and passwords of a transfer: in parts, from URLs, and shown nowhere (J35)."""

from __future__ import annotations

import pytest

from openbits.core.model import AuthScheme, AuthTarget
from openbits.frames.worker import TakeCredential
from openbits.worker.logins import Explicit, login_of_url


def test_j35_a_long_password_comes_in_parts() -> None:
    explicit = Explicit()
    for part, last in (("one ", False), ("two ", False), ("three", True)):
        assert explicit.get(AuthTarget.SERVER, AuthScheme.BASIC) is None
        explicit.take(
            TakeCredential(transfer=1, target="server", scheme="basic", user_name="me", password=part, last=last)
        )
    login = explicit.get(AuthTarget.SERVER, AuthScheme.BASIC)
    assert login is not None
    assert (login.user_name, login.password) == ("me", "one two three")
    assert explicit.get(AuthTarget.PROXY, AuthScheme.BASIC) is None
    assert explicit.get(AuthTarget.SERVER, AuthScheme.DIGEST) is None
    assert "three" not in repr(explicit) + repr(login)
    explicit.clear()
    assert not explicit


@pytest.mark.parametrize(
    ("userinfo", "expected"),
    [
        ("me:secret", ("me", "secret")),
        ("me", ("me", "")),
        ("m%3Ae:a%40b:c", ("m:e", "a@b:c")),
        ("%C3%BC:%e2%82%ac", ("ü", "€")),
        (":x", ("", "x")),
        ("j%FCrgen:w%F6rd", ("j\udcfcrgen", "w\udcf6rd")),
    ],
)
def test_j35_userinfo_of_a_url(userinfo: str, expected: tuple[str, str]) -> None:
    login = login_of_url(userinfo)
    assert login is not None
    assert (login.user_name, login.password) == expected
    assert login_of_url("") is None
