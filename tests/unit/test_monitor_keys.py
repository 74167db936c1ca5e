"""Where the key for stored credentials comes from, and what is not believed (I14)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openbits.monitor import keys
from openbits.monitor.log import StartError
from openbits.monitor.places import Mode, Places

HEX = "0123456789abcdef" * 4


def places(tmp_path: Path, mode: Mode = Mode.SYSTEM) -> Places:
    state = tmp_path / "state"
    state.mkdir(exist_ok=True)
    return Places(mode=mode, config="/nowhere", state_dir=str(state), runtime_dir=str(tmp_path / "run"))


def bytes_of(key: keys.Key) -> bytes:
    try:
        return os.pread(key.fd, 100, 0)
    finally:
        os.close(key.fd)


def put(path: Path, text: str, mode: int = 0o600) -> None:
    path.write_text(text, encoding="ascii")
    path.chmod(mode)


@pytest.mark.parametrize(("mode", "name"), [(Mode.SYSTEM, "state.key"), (Mode.USER, "state/credentials.key")])
def test_it_is_made_once_and_found_again(tmp_path: Path, mode: Mode, name: str) -> None:
    where = places(tmp_path, mode)
    first = keys.provide(where, {})
    assert first.source == str(tmp_path / name)
    made = bytes_of(first)
    assert len(made) == keys.KEY_BYTES
    assert made != bytes(keys.KEY_BYTES)
    found = os.stat(first.source)
    assert found.st_mode & 0o777 == 0o600
    assert bytes_of(keys.provide(where, {})) == made
    assert sorted(os.listdir(os.path.dirname(first.source))) in (["state", "state.key"], ["credentials.key"])


def test_a_systemd_credential_goes_first_and_no_child_hears_of_it(tmp_path: Path) -> None:
    put(tmp_path / keys.CREDENTIAL_NAME, HEX)
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path), "PATH": "/bin"}
    key = keys.provide(places(tmp_path), environment)
    assert bytes_of(key) == bytes.fromhex(HEX)
    assert key.source == "the systemd credential openbits.key"
    assert environment == {"PATH": "/bin"}
    assert not (tmp_path / "state.key").exists()


def test_a_directory_of_credentials_without_ours_means_the_file(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    key = keys.provide(places(tmp_path), {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")})
    os.close(key.fd)
    assert key.source == str(tmp_path / "state.key")


@pytest.mark.parametrize("text", ["", "\n", HEX[:-1], HEX + "0", HEX + "\n\n", "g" * 64, HEX[:32] + "\n" + HEX[:31]])
def test_what_is_no_key_is_never_used(tmp_path: Path, text: str) -> None:
    where = places(tmp_path)
    put(tmp_path / "state.key", text)
    with pytest.raises(StartError, match="is no key"):
        keys.provide(where, {})
    assert (tmp_path / "state.key").read_text(encoding="ascii") == text, "it may be a key that somebody needs"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_what_others_may_read_is_no_secret(tmp_path: Path, mode: int) -> None:
    put(tmp_path / "state.key", HEX, mode)
    with pytest.raises(StartError, match="others may read"):
        keys.provide(places(tmp_path), {})


def test_links_and_other_things_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", HEX)
    path = tmp_path / "state.key"
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError):
        keys.provide(places(tmp_path), {})
    path.unlink()
    os.link(tmp_path / "elsewhere", path)
    with pytest.raises(StartError, match="is no file of"):
        keys.provide(places(tmp_path), {})
    path.unlink()
    os.mkfifo(path, 0o600)
    with pytest.raises(StartError, match="is no file of"):
        keys.provide(places(tmp_path), {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_the_services_account_is_not_the_key(tmp_path: Path) -> None:
    put(tmp_path / "state.key", HEX)
    os.chown(tmp_path / "state.key", 12345, 12345)
    with pytest.raises(StartError, match="is no file of root"):
        keys.provide(places(tmp_path), {})
