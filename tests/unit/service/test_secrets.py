"""What is sealed, and who opens it: the right key, at the right place, and nobody else (I14)."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core.model import CredentialSlot
from openbits.errors import BitsError
from openbits.service.sealing import opened_credential, sealed_credential
from openbits.service.secrets import KEY_BYTES, Secrets, credential_place, headers_place, userinfo_place

KEY = bytes(range(KEY_BYTES))
SLOT = CredentialSlot("server", "basic")


@given(text=st.text(), place=st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_sealed_is_opened_at_its_place(text: str, place: str) -> None:
    secrets = Secrets(KEY, "a test")
    sealed = secrets.seal(text, place)
    assert sealed.isascii()
    assert secrets.open(sealed, place) == text
    assert secrets.seal(text, place) != sealed, "the same text twice shows that it is the same"


@given(
    place=st.sampled_from([headers_place("a"), credential_place("a", "server", "basic"), userinfo_place("a", 1)]),
    other=st.sampled_from(
        [headers_place("b"), credential_place("a", "proxy", "basic"), userinfo_place("a", 2), userinfo_place("b", 1)]
    ),
)
def test_a_sealed_value_that_is_moved_does_not_open(place: str, other: str) -> None:
    secrets = Secrets(KEY, "a test")
    with pytest.raises(BitsError, match="BG_E_INVALID_CREDENTIALS"):
        secrets.open(secrets.seal("secret", place), other)


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_value_that_was_changed_does_not_open(position: int, flip: int) -> None:
    secrets = Secrets(KEY, "a test")
    raw = bytearray(base64.b64decode(secrets.seal("a secret", "place").removeprefix("v1:")))
    raw[position % len(raw)] ^= flip
    with pytest.raises(BitsError, match="BG_E_INVALID_CREDENTIALS") as caught:
        secrets.open("v1:" + base64.b64encode(raw).decode("ascii"), "place")
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("text", ["", "v1:", "v1:!", "v1:AAAA", "v2:AAAA", "\xff"])
def test_what_was_never_sealed_does_not_open(text: str) -> None:
    with pytest.raises(BitsError, match="BG_E_INVALID_CREDENTIALS"):
        Secrets(KEY, "a test").open(text, "place")


def test_another_key_opens_nothing() -> None:
    sealed = sealed_credential(Secrets(KEY, "a test"), "job", SLOT, "alice", "secret")
    assert opened_credential(Secrets(KEY, "a test"), "job", SLOT, sealed) == ("alice", "secret")
    with pytest.raises(BitsError, match="BG_E_INVALID_CREDENTIALS"):
        opened_credential(Secrets(bytes(KEY_BYTES), "a test"), "job", SLOT, sealed)


def test_nothing_of_the_key_is_in_what_is_printed() -> None:
    assert repr(Secrets(KEY, "a test")) == "<Secrets a test>"


def test_health_says_where_the_key_is_and_who_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    secrets = Secrets(KEY, str(path))
    is_well, text = secrets.health()
    assert not is_well
    assert "is gone" in text
    path.write_text("key", encoding="ascii")
    path.chmod(0o600)
    is_well, text = secrets.health()
    assert is_well
    assert str(path) in text
    assert ("only root" if os.geteuid() == 0 else "only this account") in text
    path.chmod(0o640)
    is_well, text = secrets.health()
    assert not is_well
    assert "others may read" in text
    assert Secrets(KEY, "the systemd credential openbits.key").health() == (
        True,
        "sealed by AES-256-GCM with the systemd credential openbits.key",
    )
