"""The commands about certificates, and security flags in words (H1-H4, H7, H10)."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest

from openbits.cli import main, securityflags
from openbits.cli.properties import parse_assignments, show
from openbits.cli.show import certificate_rows
from openbits.client.certificates import SecurityFlags
from support.fake_api import FakeApi, Reply

ID = "00000000-0000-4000-8000-000000000001"
OUTCOME = {"result": "S_OK", "hresult": 0, "job": {"id": ID}}
SHA1 = "00112233445566778899aabbccddeeff00112233"


def bits(api: FakeApi, *arguments: str) -> int:
    return main.run([*arguments, "--socket", api.path])


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (["--sha1", SHA1], {"location": "current_user", "store": "MY", "sha1": SHA1}),
        (
            ["--location", "local_machine", "--store", "Web", "--subject", "Anna,Staff"],
            {"location": "local_machine", "store": "Web", "subject": "Anna,Staff"},
        ),
    ],
)
def test_h1_h2_a_client_certificate_is_named_by_its_hash_or_its_subject(
    arguments: list[str], body: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeApi({f"PUT /v1/jobs/{ID}/client-certificate": Reply(json=OUTCOME)}) as api:
        assert bits(api, "set-client-certificate", ID, *arguments) == 0
        assert api.requests[-1].json == body
        assert bits(api, "set-client-certificate", ID, *arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out) == OUTCOME


@pytest.mark.parametrize("arguments", [[], ["--sha1", SHA1, "--subject", "x"], ["--sha1", SHA1, "--location", "moon"]])
def test_what_names_no_client_certificate_is_wrong_usage(arguments: list[str]) -> None:
    with FakeApi({}) as api:
        assert bits(api, "set-client-certificate", ID, *arguments) == 2
        assert api.requests == []


def test_h3_removing_none_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    routes = {f"DELETE /v1/jobs/{ID}/client-certificate": Reply(json={**OUTCOME, "result": "S_FALSE", "hresult": 1})}
    with FakeApi(routes) as api:
        assert bits(api, "remove-client-certificate", ID) == 0
    assert "S_FALSE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("0", 0),
        ("none", 0),
        ("0x109", 0x109),
        ("265", 0x109),
        ("ssl_enable_crl_check,ssl_ignore_unknown_ca,http_redirect_policy_allow_report", 0x109),
        ("BG_SSL_IGNORE_CERT_CN_INVALID | BG_SSL_IGNORE_CERT_DATE_INVALID", 0x06),
        ("http-redirect-policy-allow-silent", 0),
        ("ssl_ignore_cert_wrong_usage 0x0800", 0x0810),
    ],
)
def test_h7_flags_are_numbers_or_words(text: str, flags: int) -> None:
    assert parse_assignments([f"security_flags={text}"]) == {"security_flags": flags}
    assert securityflags.parse(show("security_flags", flags)) == flags


@pytest.mark.parametrize("text", ["", ",", "ssl_ignore_everything", "0x1g", "http_redirect_policy_mask"])
def test_h7_what_are_no_flags(text: str) -> None:
    with pytest.raises(click.UsageError, match="security_flags takes a number"):
        parse_assignments([f"security_flags={text}"])


def test_h7_flags_are_shown_as_words_and_a_number() -> None:
    assert show("security_flags", 0) == "none"
    assert show("security_flags", 0x109) == (
        "ssl_enable_crl_check,ssl_ignore_unknown_ca,http_redirect_policy_allow_report (0x0109)"
    )
    assert show("security_flags", 0x0200) == "http_redirect_policy_disallow (0x0200)"
    for flags in range(0x1000):
        assert securityflags.parse(securityflags.words_of(flags)) == flags


def test_h7_every_flag_of_bits_has_its_number() -> None:
    assert {flag.name: int(flag) for flag in SecurityFlags} == {
        "BG_SSL_ENABLE_CRL_CHECK": 1,
        "BG_SSL_IGNORE_CERT_CN_INVALID": 2,
        "BG_SSL_IGNORE_CERT_DATE_INVALID": 4,
        "BG_SSL_IGNORE_UNKNOWN_CA": 8,
        "BG_SSL_IGNORE_CERT_WRONG_USAGE": 0x10,
        "BG_HTTP_REDIRECT_POLICY_ALLOW_REPORT": 0x100,
        "BG_HTTP_REDIRECT_POLICY_DISALLOW": 0x200,
        "BG_HTTP_REDIRECT_POLICY_ALLOW_HTTPS_TO_HTTP": 0x800,
    }
    assert int(SecurityFlags.BG_HTTP_REDIRECT_POLICY_MASK) == 0x700


def test_h10_j65_method_and_stored_credentials_are_set_like_properties() -> None:
    assert parse_assignments(["http_method=POST", "use_stored_credentials=proxy"]) == {
        "http_method": "POST",
        "use_stored_credentials": "proxy",
    }
    assert parse_assignments(["use_stored_credentials=none"]) == {"use_stored_credentials": None}


def test_h4_the_owner_sees_which_certificate_is_presented() -> None:
    of = {"location": "current_user", "store": "MY"}
    assert certificate_rows({"client_certificate": None, "validates_certificates": False}) == []
    assert certificate_rows({}) == []
    assert certificate_rows({"client_certificate": {**of, "sha1": SHA1, "subject": None}}) == [
        ("client certificate", f"sha1 {SHA1}, in the store MY of current_user")
    ]
    rows = certificate_rows(
        {
            "client_certificate": {**of, "sha1": None, "subject": "An\x1bna"},
            "validates_certificates": True,
            "has_certificate_validator": True,
        }
    )
    assert rows == [
        ("client certificate", r"subject An\x1bna, in the store MY of current_user"),
        ("server certificates", "a program judges them, besides the system"),
    ]
    [(_, text)] = certificate_rows({"validates_certificates": True, "has_certificate_validator": False})
    assert text.endswith("and is not there now")
