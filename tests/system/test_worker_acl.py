"""Copies of file:// sources keep what was asked for of them, on real file systems and by real accounts (J42)."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openbits.errors import ErrorContext
from openbits.frames.worker import FileSpec, TransferEnded
from support.accounts import TestAccount, needs_root, temporary_account, temporary_group
from support.worker_process import WorkerProcess

pytestmark = needs_root

OWNER, GROUP, DACL, SACL, ALL = 1, 2, 4, 8, 15
CONTENT = b"kept\n" * 1000
_BECOME = """
import socket, sys
from openbits import privileges
from openbits.worker.main import run
privileges.become({uid}, {gid}, {groups})
sys.exit(run(socket.socket(fileno=int(sys.argv[1]))))
"""
_numbers = iter(range(1, 100_000))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Alice, who copies; bob, who does not; a source for her, and her worker."""

    alice: TestAccount
    bob: TestAccount
    worker: WorkerProcess
    directory: Path

    @property
    def source(self) -> str:
        return str(self.directory / "source")

    @property
    def target(self) -> str:
        return str(self.directory / "target.tmp")

    def copy(self, flags: int, *, target: str = "", **changes: Any) -> TransferEnded:
        """Fetch the source."""
        name = target or self.target
        spec = FileSpec(
            index=0, remote_name=f"file://{self.source}", local_name=name.removesuffix(".tmp"), temporary_name=name
        )
        return self.worker.fetch(spec, transfer=next(_numbers), acl_flags=flags, **changes)


@pytest.fixture(scope="module")
def people() -> Iterator[tuple[TestAccount, TestAccount]]:
    with temporary_account(extra_groups=1) as alice, temporary_account() as bob:
        yield alice, bob


@pytest.fixture(scope="module")
def worker(people: tuple[TestAccount, TestAccount]) -> Iterator[WorkerProcess]:
    alice = people[0]
    program = _BECOME.format(uid=alice.uid, gid=alice.gid, groups=alice.groups)
    with WorkerProcess(program=program) as process:
        yield process


@pytest.fixture
def place(people: tuple[TestAccount, TestAccount], worker: WorkerProcess) -> Place:
    alice, bob = people
    directory = Path(alice.home, f"case-{next(_numbers)}")
    directory.mkdir(mode=0o700)
    os.chown(directory, alice.uid, alice.gid)
    found = Place(alice=alice, bob=bob, worker=worker, directory=directory)
    Path(found.source).write_bytes(CONTENT)
    os.chown(found.source, alice.uid, alice.gid)
    os.chmod(found.source, 0o640)
    return found


def acl(*change: str, path: str) -> None:
    subprocess.run(["setfacl", *change, path], check=True, timeout=20)


def list_of(path: str) -> set[str]:
    output = subprocess.run(
        ["getfacl", "--absolute-names", "--omit-header", "--numeric", "--no-effective", path],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    ).stdout
    return {line for line in output.splitlines() if line}


def mode_of(path: str) -> int:
    return os.stat(path).st_mode & 0o7777


def test_without_flags_the_copy_is_a_new_file(place: Place) -> None:
    acl("-m", f"u:{place.bob.uid}:rwx", path=place.source)
    os.setxattr(place.source, "user.note", b"x")
    assert place.copy(0, umask=0o027).error == ""
    assert mode_of(place.target) == 0o640
    assert list_of(place.target) == {"user::rw-", "group::r--", "other::---"}
    assert os.listxattr(place.target) == []


def test_permission_bits_are_kept_whatever_the_mask(place: Place) -> None:
    os.chmod(place.source, 0o606)
    assert place.copy(DACL, umask=0o077).error == ""
    assert mode_of(place.target) == 0o606
    assert Path(place.target).read_bytes() == CONTENT


def test_a_copy_that_may_only_be_read_is_whole_all_the_same(place: Place) -> None:
    """Its date, its checksum and its attributes come although nobody may write to it any more."""
    os.chmod(place.source, 0o444)
    os.setxattr(place.source, "user.note", b"x")
    os.utime(place.source, (1_000_000_000, 1_000_000_000))
    assert place.copy(ALL).error == ""
    assert mode_of(place.target) == 0o444
    assert os.getxattr(place.target, "user.note") == b"x"
    assert os.stat(place.target).st_mtime == 1_000_000_000


def test_set_user_id_is_not_kept(place: Place) -> None:
    os.chmod(place.source, 0o6755)
    assert place.copy(DACL).error == ""
    assert mode_of(place.target) == 0o755


def test_the_access_list_is_kept(place: Place) -> None:
    acl("-m", f"u:{place.bob.uid}:rw,g:{place.bob.gid}:r,m::rw", path=place.source)
    assert place.copy(DACL, umask=0o077).error == ""
    assert list_of(place.target) == list_of(place.source)
    with open(place.target, "rb") as file:
        assert file.read() == CONTENT
    place.directory.chmod(0o711)
    Path(place.alice.home).chmod(0o711)
    reading = subprocess.run(
        ["setpriv", f"--reuid={place.bob.uid}", f"--regid={place.bob.gid}", "--clear-groups", "cat", place.target],
        capture_output=True,
        check=True,
        timeout=20,
    )
    assert reading.stdout == CONTENT


def test_what_a_mask_takes_from_people_stays_taken(place: Place) -> None:
    acl("-m", f"u:{place.bob.uid}:rwx,m::r", path=place.source)
    assert place.copy(DACL).error == ""
    assert f"user:{place.bob.uid}:r--" in list_of(place.target)


def test_what_the_folder_hands_down_is_added(place: Place) -> None:
    """J42: explicit entries of the source, and inheritable ones of the folder; the source's word counts for those
    of whom both speak."""
    with temporary_group() as other:
        acl("-d", "-m", f"u:{place.bob.uid}:rwx,g:{other}:r", path=str(place.directory))
        acl("-m", f"u:{place.bob.uid}:r", path=place.source)
        assert place.copy(DACL, umask=0o077).error == ""
        entries = list_of(place.target)
        assert f"user:{place.bob.uid}:r--" in entries
        assert f"group:{other}:r--" in entries
        # Without the flag: what the folder says, and nothing else.
        assert place.copy(0, umask=0o077, target=str(place.directory / "plain.tmp")).error == ""
        assert f"user:{place.bob.uid}:rwx" in list_of(str(place.directory / "plain.tmp"))


def test_attributes_of_the_owner_are_kept_byte_for_byte(place: Place) -> None:
    os.setxattr(place.source, "user.binary", bytes(range(256)))
    os.setxattr(place.source, "user.empty", b"")
    os.setxattr(place.source, "user.Grüße", "📦".encode())
    os.setxattr(place.source, "trusted.secret", b"the machine's")
    os.setxattr(place.source, "security.openbits", b"the machine's")
    assert place.copy(SACL).error == ""
    kept = {name: os.getxattr(place.target, name) for name in os.listxattr(place.target)}
    assert kept == {"user.binary": bytes(range(256)), "user.empty": b"", "user.Grüße": "📦".encode()}


def test_a_group_of_the_owners_is_kept(place: Place) -> None:
    (group,) = set(place.alice.groups) - {place.alice.gid}
    os.chown(place.source, place.alice.uid, group)
    assert place.copy(GROUP).error == ""
    assert os.stat(place.target).st_gid == group
    assert place.copy(OWNER | DACL, target=str(place.directory / "other.tmp")).error == ""
    assert os.stat(place.directory / "other.tmp").st_gid == place.alice.gid


@pytest.mark.parametrize("flag", [OWNER, GROUP])
def test_lacking_the_right_is_an_error_that_is_tried_again(place: Place, flag: int) -> None:
    """J42: TRANSIENT_ERROR, E_ACCESSDENIED; and when the right is there, the same copy is finished."""
    os.chown(place.source, place.bob.uid, place.bob.gid)
    os.chmod(place.source, 0o644)
    ended = place.copy(flag)
    assert (ended.error, ended.transient, ended.context) == ("E_ACCESSDENIED", True, ErrorContext.LOCAL_FILE)
    assert place.alice.name in ended.message
    assert "acl_flags" in ended.message
    assert place.copy(DACL | SACL).error == ""
    os.chown(place.source, place.alice.uid, place.alice.gid)
    assert place.copy(ALL).error == ""
    assert Path(place.target).read_bytes() == CONTENT


def test_a_source_that_is_linked_to_is_what_is_kept(place: Place) -> None:
    """By descriptor: not the link's own bits, which say nothing."""
    link = place.directory / "link"
    link.symlink_to(place.source)
    os.chmod(place.source, 0o604)
    spec = FileSpec(
        index=0, remote_name=f"file://{link}", local_name=f"{place.directory}/x", temporary_name=place.target
    )
    assert place.worker.fetch(spec, transfer=next(_numbers), acl_flags=ALL).error == ""
    assert mode_of(place.target) == 0o604


def test_an_empty_file_keeps_as_much(place: Place) -> None:
    os.truncate(place.source, 0)
    os.chmod(place.source, 0o604)
    os.setxattr(place.source, "user.note", b"x")
    assert place.copy(ALL).error == ""
    assert (mode_of(place.target), os.getxattr(place.target, "user.note")) == (0o604, b"x")


@contextlib.contextmanager
def poor_disk(path: Path, account: TestAccount) -> Iterator[None]:
    """A file system that knows permission bits and nothing more."""
    path.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "openbits-test", path], check=True, timeout=20)
    try:
        os.chown(path, account.uid, account.gid)
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True, timeout=20)
        path.rmdir()


def test_what_the_file_system_has_no_place_for_is_lost(place: Place) -> None:
    """J42: as on FAT. The bits come nearest, and give nobody more than the list did."""
    acl("-m", f"u:{place.bob.uid}:rwx,g::r,m::rwx", path=place.source)
    os.setxattr(place.source, "user.note", b"x")
    poor = place.directory / "poor"
    with poor_disk(poor, place.alice):
        assert place.copy(ALL, target=str(poor / "target.tmp")).error == ""
        assert mode_of(str(poor / "target.tmp")) == 0o640
        assert os.listxattr(poor / "target.tmp") == []
        assert (poor / "target.tmp").read_bytes() == CONTENT


def test_a_copy_that_was_cut_off_keeps_as_much(place: Place) -> None:
    """What stands there of an earlier run may already be closed to writing: the copy begins again."""
    os.chmod(place.source, 0o444)
    acl("-m", f"u:{place.bob.uid}:r", path=place.source)
    assert place.copy(ALL).error == ""
    assert place.copy(ALL).error == ""
    assert list_of(place.target) == list_of(place.source)
