"""Where the daemon's directories are, and that they can be used (architecture §6)."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from openbits.monitor import lock, places
from openbits.monitor.log import StartError
from openbits.monitor.places import Mode, Places
from openbits.privileges import Identity, current_identity


@pytest.fixture
def own() -> Identity:
    identity = current_identity()
    assert identity is not None
    return identity


def in_directory(directory: Path) -> Places:
    return places.choose(Mode.USER, config=None, state_dir=str(directory / "state"), runtime_dir=str(directory / "run"))


def test_system_defaults() -> None:
    chosen = places.choose(Mode.SYSTEM, config=None, state_dir=None, runtime_dir=None)
    assert chosen == Places(
        mode=Mode.SYSTEM, config="/etc/openbits/bitsd.toml", state_dir="/var/lib/openbits", runtime_dir="/run/openbits"
    )
    assert chosen.socket_path == "/run/openbits/bitsd.sock"


def test_user_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("CONFIG_HOME", "/c"), ("STATE_HOME", "/s"), ("RUNTIME_DIR", "/r")):
        monkeypatch.setenv(f"XDG_{name}", value)
    chosen = places.choose(Mode.USER, config=None, state_dir=None, runtime_dir=None)
    assert chosen == Places(
        mode=Mode.USER, config="/c/openbits/bitsd.toml", state_dir="/s/openbits", runtime_dir="/r/openbits"
    )


def test_relative_paths_are_taken_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = places.choose(Mode.USER, config=None, state_dir="s", runtime_dir="r")
    assert (chosen.state_dir, chosen.runtime_dir) == (f"{tmp_path}/s", f"{tmp_path}/r")


def test_named_configuration_must_exist(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no configuration file") as raised:
        places.choose(Mode.USER, config=str(tmp_path / "missing"), state_dir=None, runtime_dir=None)
    assert raised.value.exit_status == 2


def test_socket_path_must_fit(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="too long"):
        places.choose(Mode.USER, config=None, state_dir=None, runtime_dir=str(tmp_path / ("ä" * 60)))


def test_directories_are_made_private(tmp_path: Path, own: Identity) -> None:
    chosen = in_directory(tmp_path / "deep" / "er")
    places.prepare(chosen, own)
    for path in (chosen.state_dir, chosen.runtime_dir):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    places.prepare(chosen, own)


def test_file_in_the_place_of_a_directory(tmp_path: Path, own: Identity) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StartError, match="Not a directory") as raised:
        places.prepare(in_directory(tmp_path), own)
    assert raised.value.exit_status == 2


def test_names_that_are_no_text(tmp_path: Path, own: Identity) -> None:
    name = os.fsdecode(b"\xff\xfe")
    chosen = places.choose(Mode.USER, config=None, state_dir=str(tmp_path / name), runtime_dir=str(tmp_path / "run"))
    places.prepare(chosen, own)
    assert os.path.isdir(os.path.join(os.fsencode(tmp_path), b"\xff\xfe"))


def test_lock_is_refused_to_a_second_daemon(tmp_path: Path, own: Identity) -> None:
    chosen = in_directory(tmp_path)
    places.prepare(chosen, own)
    fd = lock.take(chosen, own)
    try:
        assert not os.get_inheritable(fd)
        # The record lock belongs to a process, so only another process can be refused.
        code = f"""
from openbits.monitor import lock, places
from openbits.privileges import current_identity
given = dict(state_dir={chosen.state_dir!r}, runtime_dir={chosen.runtime_dir!r})
lock.take(places.choose(places.Mode.USER, config=None, **given), current_identity())
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
        assert f"another bitsd already works in {chosen.state_dir}" in done.stderr
    finally:
        os.close(fd)


def test_lock_of_remains_is_waited_for(tmp_path: Path, own: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = in_directory(tmp_path)
    places.prepare(chosen, own)
    monkeypatch.setattr(lock, "_PATIENCE_S", 0.05)
    with open(f"{chosen.state_dir}/bitsd.lock", "wb") as remains:
        fcntl.flock(remains, fcntl.LOCK_EX)
        with pytest.raises(StartError, match="does not end"):
            lock.take(chosen, own)
    os.close(lock.take(chosen, own))
