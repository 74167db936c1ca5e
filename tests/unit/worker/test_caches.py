"""Whose credential cache it is, before anything is taken from it (I1, I10; architecture, section 4)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openbits.worker.caches import ForeignCache, own_cache
from support.accounts import needs_root

OTHER_UID = 4001


def refused(name: str) -> str:
    with pytest.raises(ForeignCache) as caught, own_cache(name):
        pass
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["FILE:", ""])
def test_own_file_is_used_by_its_descriptor(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "cache"
    path.write_bytes(b"mine")
    with own_cache(f"{prefix}{path}") as name:
        assert name is not None
        assert name.startswith("FILE:/proc/self/fd/")
        path.unlink()
        path.write_bytes(b"another")
        assert Path(name.removeprefix("FILE:")).read_bytes() == b"mine"
    assert not os.path.exists(name.removeprefix("FILE:"))


def test_what_does_not_exist_or_is_no_file_is_left_to_the_library(tmp_path: Path) -> None:
    for name in (f"FILE:{tmp_path}/none", "KEYRING:persistent:1000", "KCM:", "MEMORY:x", f"DIR:{tmp_path}/none"):
        with own_cache(name) as used:
            assert used is None, name
    with own_cache(f"DIR:{tmp_path}") as used:
        assert used is None


@needs_root
def test_what_another_account_has_put_there_is_refused(tmp_path: Path) -> None:
    path, link, directory = tmp_path / "cache", tmp_path / "link", tmp_path / "directory"
    path.write_bytes(b"his")
    directory.mkdir()
    link.symlink_to(path)
    for each in (path, directory):
        os.chown(each, OTHER_UID, OTHER_UID)
    for name in (f"FILE:{path}", f"FILE:{link}", f"DIR:{directory}", f"DIR::{path}"):
        assert "belongs to another account (uid 4001)" in refused(name)


def test_what_is_no_file_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in refused(f"FILE:{tmp_path}/pipe")
    assert "no regular file" in refused("FILE:/dev/zero")
    assert "no regular file" in refused(f"FILE:{tmp_path}")
    assert "no directory" in refused("DIR:/dev/null")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot be read" in refused(f"FILE:{tmp_path}/loop")
