"""When an account's own credentials may answer a challenge (I4, I10, I11, J35, J37; architecture, section 4)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from openbits.core.credentials import (
    PASSWORD_LIMIT,
    USER_NAME_LIMIT,
    SpeaksAs,
    change_credentials,
    check_credentials,
    implicit_terms,
    may_answer,
    slot_of,
)
from openbits.core.model import AccountKind, CredentialSlot, SealedCredential
from openbits.errors import BitsError
from support.jobs import a_job

NOTHING: frozenset[CredentialSlot] = frozenset()
SERVER = frozenset({CredentialSlot("server", "negotiate")})
PROXY = frozenset({CredentialSlot("proxy", "negotiate")})
KINDS = list(AccountKind)


@pytest.mark.parametrize(
    ("kind", "speaks_as"),
    [
        (AccountKind.LOCAL_SYSTEM, SpeaksAs.COMPUTER),
        (AccountKind.NETWORK_SERVICE, SpeaksAs.COMPUTER),
        (AccountKind.LOCAL_SERVICE, SpeaksAs.NOBODY),
        (AccountKind.USER, SpeaksAs.ITSELF),
    ],
)
def test_rule_5_whose_credentials_an_account_has(kind: AccountKind, speaks_as: SpeaksAs) -> None:
    assert implicit_terms(SERVER, kind, use_lm_compat=2).speaks_as is speaks_as


@pytest.mark.parametrize(
    ("slots", "allowed"),
    [
        (NOTHING, (False, False)),
        (SERVER, (True, False)),
        (PROXY, (True, True)),
        (SERVER | PROXY, (True, True)),
        (frozenset({CredentialSlot("server", "ntlm")}), (True, False)),
    ],
)
def test_i10_i11_only_what_the_job_allows(slots: frozenset[CredentialSlot], allowed: tuple[bool, bool]) -> None:
    for kind in KINDS:
        terms = implicit_terms(slots, kind, use_lm_compat=2)
        expected = (False, False) if kind is AccountKind.LOCAL_SERVICE else allowed
        assert (terms.server, terms.proxy) == expected


@pytest.mark.parametrize("policy", [0, 1])
def test_i11_always_but_for_local_service(policy: int) -> None:
    for kind, slots in itertools.product(KINDS, (NOTHING, SERVER, PROXY)):
        terms = implicit_terms(slots, kind, use_lm_compat=policy)
        is_known = kind is not AccountKind.LOCAL_SERVICE
        assert (terms.server, terms.proxy) == (is_known, is_known)


def test_j65_stored_credentials_are_for_the_proxy_alone() -> None:
    for kind in KINDS:
        terms = implicit_terms(NOTHING, kind, use_lm_compat=2, stored_for="proxy")
        assert (terms.server, terms.proxy) == (False, kind is not AccountKind.LOCAL_SERVICE)


# --- SetCredentials ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ntlm", "negotiate"])
@pytest.mark.parametrize("target", ["server", "proxy"])
def test_j35_the_accounts_own(target: str, scheme: str) -> None:
    assert check_credentials(target, scheme, None, None) == CredentialSlot(target, scheme)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("nobody", "negotiate", None, None), "BG_E_INVALID_AUTH_TARGET"),
        (("", "negotiate", None, None), "BG_E_INVALID_AUTH_TARGET"),
        (("server", "kerberos", None, None), "BG_E_INVALID_AUTH_SCHEME"),
        (("server", "", None, None), "BG_E_INVALID_AUTH_SCHEME"),
        (("server", "basic", None, None), "E_INVALIDARG"),
        (("server", "digest", None, None), "E_INVALIDARG"),
        (("server", "passport", None, None), "E_NOTIMPL"),
        (("server", "negotiate", "alice", None), "E_INVALIDARG"),
        (("server", "negotiate", None, "secret"), "E_INVALIDARG"),
        (("server", "passport", "a@example.org", "secret"), "E_NOTIMPL"),
        (("server", "basic", "a" * (USER_NAME_LIMIT + 1), "secret"), "BG_E_USERNAME_TOO_LARGE"),
        (("server", "basic", "alice", "secret" * PASSWORD_LIMIT), "BG_E_PASSWORD_TOO_LARGE"),
        (("server", "basic", "alice", None), "E_INVALIDARG"),
        (("server", "basic", "al:ice", "secret"), "E_INVALIDARG"),
        (("server", "digest", "", "secret"), "E_INVALIDARG"),
        (("server", "basic", "alice\r\nX: y", "secret"), "E_INVALIDARG"),
        (("server", "ntlm", "alice", "secret\n"), "E_INVALIDARG"),
        (("server", "digest", "alice", "secret\x85"), "E_INVALIDARG"),
        (("server", "digest", "alice", "secret\udc80"), "E_INVALIDARG"),
    ],
)
def test_j35_what_is_refused(arguments: tuple[str, str, str | None, str | None], name: str) -> None:
    with pytest.raises(BitsError) as caught:
        check_credentials(*arguments)
    assert caught.value.name == name
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("target", ["server", "proxy"])
@pytest.mark.parametrize(
    ("scheme", "user_name", "password"),
    [
        ("basic", "alice", ""),
        ("basic", "", "a token"),
        ("basic", "a" * USER_NAME_LIMIT, "s" * PASSWORD_LIMIT),
        ("digest", "al:ice", "ö€😀"),
        ("ntlm", "EXAMPLE\\alice", "secret"),
        ("negotiate", "alice@EXAMPLE.ORG", "secret"),
    ],
)
def test_j35_a_name_and_a_password(target: str, scheme: str, user_name: str, password: str) -> None:
    assert check_credentials(target, scheme, user_name, password) == CredentialSlot(target, scheme)


def test_j35_a_pair_is_one_thing_at_a_time() -> None:
    slot, other = CredentialSlot("server", "ntlm"), CredentialSlot("proxy", "ntlm")
    job = a_job(
        implicit_credentials=frozenset({slot, other}),
        explicit_credentials=(SealedCredential(slot=CredentialSlot("server", "basic"), sealed="b"),),
    )
    change = change_credentials(job, slot, sealed="x")
    assert change.implicit == {other}
    assert [(each.slot, each.sealed) for each in change.explicit] == [
        (CredentialSlot("server", "basic"), "b"),
        (slot, "x"),
    ]
    job = replace(job, implicit_credentials=change.implicit, explicit_credentials=change.explicit)
    replaced = change_credentials(job, slot, sealed="y")
    assert [each.sealed for each in replaced.explicit] == ["b", "y"]
    back = change_credentials(job, slot, implicit=True)
    assert back.implicit == {slot, other}
    assert [each.sealed for each in back.explicit] == ["b"]
    gone = change_credentials(job, CredentialSlot("server", "basic"))
    assert gone.implicit == {other}
    assert [each.sealed for each in gone.explicit] == ["x"]


def test_j36_any_known_pair_may_be_removed() -> None:
    assert slot_of("proxy", "passport") == CredentialSlot("proxy", "passport")
    with pytest.raises(BitsError, match="BG_E_INVALID_AUTH_SCHEME"):
        slot_of("proxy", "kerberos")


# --- challenges --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first_url", "url", "allowed"),
    [
        ("http://a.test/x", "http://a.test/y", True),
        ("http://A.test/x", "http://a.TEST:80/y", True),
        ("http://a.test/x", "https://a.test/y", True),
        ("http://a.test:8080/x", "https://a.test/y", False),
        ("http://a.test/x", "https://a.test:8443/y", False),
        ("http://a.test/x", "http://a.test:8080/y", False),
        ("http://a.test/x", "http://b.test/y", False),
        ("https://a.test/x", "https://b.a.test/y", False),
        ("https://a.test/x", "https://a.test/y", True),
    ],
)
def test_i9_no_server_gets_what_another_asked_for(first_url: str, url: str, *, allowed: bool) -> None:
    assert may_answer(first_url, url) is allowed
