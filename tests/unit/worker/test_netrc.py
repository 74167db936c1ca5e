"""~/.netrc: what stands in it, for which host, and when it is not used (I9)."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.worker.netrc import Netrc, parse_netrc, read_netrc


def found(text: str, host: str) -> tuple[str, str] | None:
    login = Netrc(machines=parse_netrc(text)).login_for(host)
    return None if login is None else (login.user_name, login.password)


@pytest.mark.parametrize(
    "text",
    [
        "machine a.test login me password secret",
        "machine a.test\n\tlogin\n  me\n\n password\tsecret\n",
        "# a comment\nmachine a.test # mine\nlogin me password secret",
        'machine "a.test" login "me" password "secret"',
        "machine A.TEST. login me account x password secret",
        "machine b.test login no password no machine a.test login me password secret default login no password no",
        "machine a.test password secret login me login other",
        "macdef init\nmachine a.test login no password no\n\nmachine a.test login me password secret",
        "machine a.test login nobody\nmachine a.test login me password secret",
        "default login me password secret",
    ],
)
def test_i9_odd_formatting(text: str) -> None:
    assert found(text, "a.test") == ("me", "secret")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "machine",
        "machine a.test",
        "machine a.test login me",
        "machine a.test password secret",
        "machine aa.test login me password secret",
        "machine a.test.evil login me password secret",
        "login me password secret",
        'machine a.test login me password "unending',
        "macdef x\nmachine a.test login me password secret",
    ],
)
def test_i9_nothing_for_the_host(text: str) -> None:
    assert found(text, "a.test") in (None, ("me", "unending"))


def test_i9_words_in_quotes() -> None:
    text = r'machine a.test login "a \"b\" c" password "x\ty # z\\"'
    assert found(text, "a.test") == ('a "b" c', "x\ty # z\\")


@given(st.text(), st.text('machinedefaultloginpasswordmacdef \n"#\\'))
def test_i9_any_text_can_be_read(text: str, likely: str) -> None:
    for _, login in parse_netrc(text) + parse_netrc(likely):
        assert repr(login) == "Login(source=<Source.NETRC: 'netrc'>)"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    own = pwd.getpwuid(os.getuid())
    account = pwd.struct_passwd((*own[:5], str(tmp_path), own.pw_shell))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: account)
    return tmp_path


def test_i9_the_accounts_own_file(home: Path) -> None:
    path = home / ".netrc"
    path.write_text("machine a.test login me password secret")
    path.chmod(0o600)
    read = read_netrc()
    assert read.trouble == ""
    assert read.login_for("a.test") is not None
    assert "secret" not in repr(read)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_i9_a_file_that_others_can_read_is_refused(home: Path, mode: int) -> None:
    path = home / ".netrc"
    path.write_text("machine a.test login me password secret")
    path.chmod(mode)
    read = read_netrc()
    assert read.machines == ()
    assert "others may read it: run chmod 600" in read.trouble


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_i9_somebody_elses_file_is_refused(home: Path) -> None:
    path = home / ".netrc"
    path.write_text("machine a.test login me password secret")
    path.chmod(0o600)
    os.chown(path, 12345, 12345)
    read = read_netrc()
    assert read.machines == ()
    assert "belongs to another account (uid 12345)" in read.trouble


def test_i9_what_is_no_file_does_not_stop_anybody(home: Path) -> None:
    assert "cannot be read" in read_netrc().trouble
    os.mkfifo(home / ".netrc", 0o600)
    assert "is no file" in read_netrc().trouble
    (home / ".netrc").unlink()
    (home / ".netrc").mkdir(0o700)
    assert "is no file" in read_netrc().trouble
    (home / ".netrc").rmdir()
    (home / ".netrc").touch(0o600)
    os.truncate(home / ".netrc", 2 << 20)
    assert "larger" in read_netrc().trouble
