"""`bits show`: what a job may prove to whom (J35)."""

from __future__ import annotations

import pytest

from openbits.cli.show import credential_rows


@pytest.mark.parametrize("credentials", [None, []])
def test_nothing_is_said_of_nothing(credentials: list[object] | None) -> None:
    assert credential_rows({"credentials": credentials}) == []
    assert credential_rows({}) == []


def test_j35_what_the_owner_allowed() -> None:
    slots = [
        {"target": "proxy", "scheme": "negotiate", "implicit": True},
        {"target": "server", "scheme": "ntlm", "implicit": True},
    ]
    assert credential_rows({"credentials": slots}) == [
        ("credentials", "the account's own, for the proxy (negotiate) and the server (ntlm)")
    ]


def test_j35_which_slots_are_set_and_never_with_what() -> None:
    slots = [
        {"target": "proxy", "scheme": "basic", "implicit": False},
        {"target": "server", "scheme": "basic", "implicit": False},
        {"target": "server", "scheme": "digest", "implicit": False},
        {"target": "server", "scheme": "negotiate", "implicit": True},
    ]
    assert credential_rows({"credentials": slots}) == [
        ("credentials", "a user name and a password, for the proxy (basic) and the server (basic, digest)"),
        ("credentials", "the account's own, for the server (negotiate)"),
    ]
