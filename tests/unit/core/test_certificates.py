"""Which client certificate a job means, and where it lies (H1, H2)."""

from __future__ import annotations

import pytest

from openbits.core.certificates import LOCATIONS, check_by_id, check_by_name, is_named, store_directory
from openbits.core.model import ClientCertificate
from openbits.errors import BitsError

SHA1 = "0123456789abcdef0123456789abcdef01234567"


def raised(*arguments: str | int | None, by_name: bool = False) -> str:
    with pytest.raises(BitsError) as caught:
        (check_by_name if by_name else check_by_id)(*arguments)  # type: ignore[arg-type]  # three of them
    return caught.value.name


@pytest.mark.parametrize(("number", "name"), list(enumerate(LOCATIONS)))
def test_h1_locations_have_numbers_and_names(number: int, name: str) -> None:
    store = "svc\\MY" if name in ("services", "users") else "MY"
    expected = ClientCertificate(location=name, store=store, sha1=SHA1)
    for spelling in (number, str(number), name, name.upper()):
        assert check_by_id(spelling, store, SHA1) == expected


@pytest.mark.parametrize("location", [8, -1, "8", "07", "²", "", "my", "current user", "LOCATION"])
def test_h1_other_locations_are_e_notimpl(location: str | int) -> None:
    assert raised(location, "MY", SHA1) == "E_NOTIMPL"
    assert raised(location, "MY", "x", by_name=True) == "E_NOTIMPL"


def test_h1_what_is_missing_is_a_null_pointer() -> None:
    for arguments in ((None, "MY", SHA1), (0, None, SHA1), (0, "MY", None)):
        assert raised(*arguments) == "RPC_X_NULL_REF_POINTER"
        assert raised(*arguments, by_name=True) == "RPC_X_NULL_REF_POINTER"


@pytest.mark.parametrize("sha1", ["", "00", SHA1[:-1], SHA1 + "00", "g" * 40, "１" * 40, SHA1 + "\n"])
def test_h1_a_hash_of_other_than_20_bytes_is_bad_stub_data(sha1: str) -> None:
    assert raised(0, "MY", sha1) == "RPC_X_BAD_STUB_DATA"


def test_h1_a_hash_as_programs_print_it() -> None:
    printed = ":".join(SHA1[at : at + 2] for at in range(0, 40, 2)).upper()
    assert check_by_id(0, "my", printed) == ClientCertificate(location="current_user", store="MY", sha1=SHA1)


def test_h1_h2_lengths_count_the_nul() -> None:
    assert check_by_id(0, "x" * 255, SHA1).store == "x" * 255
    assert raised(0, "x" * 256, SHA1) == "BG_E_STRING_TOO_LONG"
    assert check_by_name(0, "MY", "x" * 255).subject == "x" * 255
    assert raised(0, "MY", "x" * 256, by_name=True) == "BG_E_STRING_TOO_LONG"


@pytest.mark.parametrize("store", ["", ".", "..", ".hidden", "a/b", "../MY", "a\0b", "a\nb", "svc\\MY", "\\MY"])
def test_h1_a_stores_name_leads_nowhere(store: str) -> None:
    assert raised(0, store, SHA1) == "E_INVALIDARG"


@pytest.mark.parametrize("store", ["MY", "\\MY", "svc\\", "..\\MY", "svc\\..", "a/b\\MY", "a\\b\\MY"])
def test_h1_stores_of_other_accounts_name_the_account(store: str) -> None:
    assert raised("services", store, SHA1) == "E_INVALIDARG"
    assert raised("users", store, SHA1) == "E_INVALIDARG"


@pytest.mark.parametrize("subject", ["", "   ", "a\nb", "a\0"])
def test_h2_a_subject_is_a_text(subject: str) -> None:
    assert raised(0, "MY", subject, by_name=True) == "E_INVALIDARG"


def test_h1_every_location_has_a_directory_of_its_own() -> None:
    found = [
        store_directory(location, "bob\\MY" if location in ("services", "users") else "MY", home="/h", account="alice")
        for location in LOCATIONS
    ]
    assert found == [
        "/h/.config/openbits/certificates/MY",
        "/etc/openbits/certificates/MY",
        "/etc/openbits/services/alice/certificates/MY",
        "/etc/openbits/services/bob/certificates/MY",
        "/etc/openbits/users/bob/certificates/MY",
        "/etc/openbits/policy/users/alice/certificates/MY",
        "/etc/openbits/policy/certificates/MY",
        "/etc/openbits/enterprise/certificates/MY",
    ]


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("alice", True),
        ("ALI", True),
        ("Example, Ltd, Sales, Alice", True),
        ("ltd,sales", True),
        ("Alice, Sales", False),
        ("Example, Alice", False),
        ("CN=Alice", False),
        ("bob", False),
    ],
)
def test_h2_a_subject_is_a_part_of_the_simple_name_in_the_order_of_encoding(subject: str, expected: bool) -> None:
    assert is_named(("DE", "Example, Ltd", "Sales", "Alice"), subject) is expected
