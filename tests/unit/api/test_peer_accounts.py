"""Of which kind a caller's account is goes by its name as it is now (architecture, section 4)."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from openbits.api.peer import Accounts
from openbits.core.accounts import AccountRules
from openbits.core.model import AccountKind, Identity


def test_a_new_account_with_the_uid_of_a_removed_one_has_its_own_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {990: "updater"}
    looked_up: list[int] = []

    def getpwuid(uid: int) -> pwd.struct_passwd:
        looked_up.append(uid)
        return pwd.struct_passwd((names[uid], "x", uid, uid, "", "/", "/bin/false"))

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    passwd = tmp_path / "passwd"
    passwd.write_text("updater\n")
    rules = AccountRules(uid_min=1000, network_service=frozenset({"updater"}), local_service=frozenset())
    accounts = Accounts(lambda: rules, lambda: None, account_file=str(passwd))
    identity = Identity(uid=990, gid=990, groups=())
    assert accounts.caller(identity, 1).kind is AccountKind.NETWORK_SERVICE
    assert accounts.caller(identity, 1).name == "updater"
    assert looked_up == [990], "remembered for a minute"

    names[990] = "somebody"
    (tmp_path / "passwd.new").write_text("somebody\n")
    os.rename(tmp_path / "passwd.new", passwd)
    assert accounts.caller(identity, 1).name == "somebody"
    assert accounts.caller(identity, 1).kind is AccountKind.LOCAL_SERVICE
    assert looked_up == [990, 990]
