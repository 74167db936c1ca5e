"""NTLM handshakes against the server's side of the same library, and what is no handshake (J35)."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import spnego

from openbits.worker import ntlm
from openbits.worker.gss import NoToken
from openbits.worker.ntlm import NtlmHandshake


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "users"
    path.write_text("DOM:me:secret\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(path))


def handshake(password: str = "secret", *, is_in_spnego: bool = False) -> NtlmHandshake:
    return NtlmHandshake(user_name=r"DOM\me", password=password, host="a.test", is_in_spnego=is_in_spnego)


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("is_in_spnego", [False, True])
def test_j35_a_server_learns_who_asks(is_in_spnego: bool) -> None:
    server = spnego.server(
        protocol="negotiate" if is_in_spnego else "ntlm",
        options=spnego.NegotiateOptions.use_negotiate if is_in_spnego else spnego.NegotiateOptions.use_ntlm,
    )
    mine = handshake(is_in_spnego=is_in_spnego)
    greeting = mine.step(b"")
    assert mine.may_go_on
    challenge = server.step(greeting)
    assert challenge is not None
    server.step(mine.step(challenge))
    assert server.complete
    assert server.client_principal == r"DOM\me"


@pytest.mark.usefixtures("users")
def test_j35_a_wrong_password_is_refused() -> None:
    server = spnego.server(protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm)
    mine = handshake("wrong")
    challenge = server.step(mine.step(b""))
    assert challenge is not None
    with pytest.raises(spnego.exceptions.SpnegoError):
        server.step(mine.step(challenge))


@pytest.mark.parametrize("said", [b"", b"NTLMSSP\0", bytes(range(64)), b"NTLMSSP\0\2\0\0\0" + b"\xff" * 60, b"`\x82"])
@pytest.mark.parametrize("is_in_spnego", [False, True])
def test_j35_hostile_tokens_end_the_handshake(said: bytes, is_in_spnego: bool) -> None:
    mine = handshake(is_in_spnego=is_in_spnego)
    mine.step(b"")
    with contextlib.suppress(NoToken):
        assert mine.step(said)


@pytest.mark.usefixtures("users")
def test_j35_nothing_is_looked_up_for_what_is_missing() -> None:
    """The environment's file would be asked for an empty password."""
    with pytest.raises(NoToken, match="not empty"):
        handshake("")


def test_j35_where_it_cannot_be_spoken_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ntlm, "UNAVAILABLE", "NTLM cannot be spoken on this machine: no MD5")
    with pytest.raises(NoToken, match="no MD5"):
        handshake()
