"""WWW-Authenticate and Proxy-Authenticate as RFC 9110 has them, and as hostile servers have them (I9)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.core.challenges import TEXT_LIMIT, Challenge, parse_challenges


def schemes(*values: str) -> list[str]:
    return [challenge.scheme for challenge in parse_challenges(values)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Negotiate", [Challenge(scheme="negotiate")]),
        ("NTLM TlRMTVNTUAAC==", [Challenge(scheme="ntlm", token68="TlRMTVNTUAAC==")]),
        (
            'Basic realm="a, \\"b\\" = c"',
            [Challenge(scheme="basic", parameters={"realm": 'a, "b" = c'})],
        ),
        (
            # The example of RFC 9110, section 11.6.1.
            'Basic realm="simple", Newauth realm="apps", type=1, title="Login to \\"apps\\""',
            [
                Challenge(scheme="basic", parameters={"realm": "simple"}),
                Challenge(scheme="newauth", parameters={"realm": "apps", "type": "1", "title": 'Login to "apps"'}),
            ],
        ),
        (
            " , ,Negotiate ,, BASIC  Realm = x ,",
            [Challenge(scheme="negotiate"), Challenge(scheme="basic", parameters={"realm": "x"})],
        ),
        (
            "Negotiate oYG2, NTLM, Basic realm=x",
            [
                Challenge(scheme="negotiate", token68="oYG2"),
                Challenge(scheme="ntlm"),
                Challenge(scheme="basic", parameters={"realm": "x"}),
            ],
        ),
    ],
)
def test_i9_challenges_as_the_rfc_has_them(text: str, expected: list[Challenge]) -> None:
    assert list(parse_challenges([text])) == expected


def test_i9_fields_are_read_one_after_the_other() -> None:
    assert schemes("Negotiate", "NTLM", 'Digest realm="r", nonce="n"') == ["negotiate", "ntlm", "digest"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Digest realm="open, Basic realm=x', []),
        ("Digest realm=x, realm=y, Basic realm=z", ["basic"]),
        ("Digest qop=x, nonce=, Basic realm=z", ["basic"]),
        ("Basic realm=\x00", []),
        ("\x1b[2J", []),
        ("", []),
        (",,,,", []),
        ('"Basic" realm=x', ["realm"]),
    ],
)
def test_i9_what_is_broken_is_left_out(text: str, expected: list[str]) -> None:
    found = schemes(text)
    assert "digest" not in found
    assert [scheme for scheme in found if scheme in ("basic", "negotiate", "ntlm")] == [
        scheme for scheme in expected if scheme in ("basic", "negotiate", "ntlm")
    ]


def test_i9_a_hostile_field_costs_nothing() -> None:
    began = time.monotonic()
    for piece in (
        "a ",
        "a=",
        'a="',
        "a,",
        "Basic realm=x, ",
        "=",
        '"\\',
        "a\t",
        "Negotiate ",
        'x="\\\\',
        "a" * 50 + " ",
    ):
        text = (piece * TEXT_LIMIT)[:TEXT_LIMIT]
        assert len(parse_challenges([text])) <= 32
    assert len(parse_challenges(["Basic realm=x"] * 100_000)) <= 32
    assert parse_challenges(["Basic realm=" + "x" * (1 << 20)]) == ()
    assert time.monotonic() - began < 2


@given(st.lists(st.text(), max_size=5))
def test_i9_no_text_makes_it_fail(values: list[str]) -> None:
    for challenge in parse_challenges(values):
        assert challenge.scheme == challenge.scheme.lower()


_NAMES = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8)


@given(
    st.lists(
        st.tuples(
            _NAMES, st.dictionaries(_NAMES, st.text(st.characters(min_codepoint=32, max_codepoint=126)), max_size=32)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_i9_what_is_written_by_the_rules_is_read_back(wanted: list[tuple[str, dict[str, str]]]) -> None:
    parts = []
    for scheme, parameters in wanted:
        quoted = (
            name + '="' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for name, value in parameters.items()
        )
        parts.append(f"{scheme} {', '.join(quoted)}" if parameters else scheme)
    found = parse_challenges([", ".join(parts)])
    assert [(challenge.scheme, challenge.parameters) for challenge in found] == wanted
