"""Tokens from a name and a password: SPNEGO around Kerberos, and names that have a domain (J35)."""

from __future__ import annotations

import pytest
from spnego._spnego import NegTokenInit, unpack_token

from openbits.worker.gss import NoToken, PasswordCredential, in_spnego


@pytest.mark.parametrize("size", [1, 100, 127, 128, 255, 256, 5000, 70_000])
def test_j35_spnego_around_a_token(size: int) -> None:
    """Read back by an implementation that is not ours; lengths of all forms that DER has."""
    token = bytes(number % 251 for number in range(size))
    read = unpack_token(in_spnego(token), unwrap=False)
    assert isinstance(read, NegTokenInit)
    assert read.mech_types == ["1.2.840.113554.1.2.2"]
    assert read.mech_token == token


@pytest.mark.parametrize("password", ["", "a\0b"])
def test_j35_passwords_that_kerberos_cannot_use(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_CONFIG", "/dev/null")
    with pytest.raises(NoToken):
        PasswordCredential("me@NOWHERE.TEST", password).make_token("a.test")


def test_j35_without_a_kdc_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRB5_CONFIG", "/dev/null")
    credential = PasswordCredential(r"NOWHERE\me", "secret")
    with pytest.raises(NoToken) as caught:
        credential.make_token("a.test")
    assert "secret" not in caught.value.text
    assert "secret" not in repr(credential)
    credential.close()
