"""Accounts of the database as identities, and how long they are remembered."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator

import pytest

from openbits.client import accounts
from openbits.client.accounts import MEMORY_S, identity_of
from openbits.client.identity import Identity
from openbits.errors import BitsError


class Database:
    """A database of one account, and the files and the clock that the module sees."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, "group")
        self.groups = [7, 20, 5, 7]
        self.lookups = 0
        self.now = 100.0
        self.change()

    def change(self) -> None:
        """As the account tools do: a new file takes the place of the old one."""
        with open(f"{self.path}.new", "w", encoding="ascii") as file:
            file.write("x")
        os.rename(f"{self.path}.new", self.path)

    def entry(self, account: str | int) -> pwd.struct_passwd:
        self.lookups += 1
        if account not in {"anna", 1000}:
            raise KeyError(account)
        return pwd.struct_passwd(("anna", "x", 1000, 7, "", "/", "/bin/sh"))


@pytest.fixture
def database(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    found = Database(str(tmp_path))
    monkeypatch.setattr(accounts, "_FILES", (found.path, "/there/is/no/such/file"))
    monkeypatch.setattr("pwd.getpwnam", found.entry)
    monkeypatch.setattr("pwd.getpwuid", found.entry)
    monkeypatch.setattr("os.getgrouplist", lambda *_: list(found.groups))
    monkeypatch.setattr("time.monotonic", lambda: found.now)
    accounts._remembered.clear()
    yield found
    accounts._remembered.clear()


@pytest.mark.usefixtures("database")
def test_an_identity_has_the_accounts_groups_sorted() -> None:
    assert identity_of("anna") == identity_of(1000) == Identity(1000, 7, (5, 7, 20))
    assert identity_of("anna", [9, 9, 1]) == Identity(1000, 7, (1, 9))
    assert identity_of("anna", ()) == Identity(1000, 7, ())


def test_a_lookup_is_remembered_for_a_moment(database: Database) -> None:
    identity_of("anna")
    database.now += MEMORY_S / 2
    database.groups = [7]
    assert identity_of("anna").groups == (5, 7, 20)
    assert database.lookups == 1
    database.now += MEMORY_S
    assert identity_of("anna").groups == (7,)
    assert database.lookups == 2


def test_a_change_of_the_files_counts_at_once(database: Database) -> None:
    """Who was taken out of a group does not go on with it."""
    identity_of("anna")
    database.groups = [7]
    database.change()
    assert identity_of("anna").groups == (7,)


def test_what_does_not_exist_is_looked_up_each_time(database: Database) -> None:
    for _ in range(2):
        with pytest.raises(BitsError) as caught:
            identity_of("bert")
        assert caught.value.name == "ERROR_NO_SUCH_USER"
    assert database.lookups == 2


def test_memory_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "_MAX_REMEMBERED", 1)
    for account in ("anna", 1000, "anna"):
        identity_of(account)
        assert len(accounts._remembered) == 1
    assert database.lookups == 3


@pytest.mark.parametrize("account", [True, None, 1.5, b"anna", ("anna",)], ids=str)
def test_an_account_is_a_name_or_a_uid(account: object) -> None:
    with pytest.raises(BitsError) as caught:
        identity_of(account)  # type: ignore[arg-type]  # that is the test
    assert caught.value.name == "E_INVALIDARG"
