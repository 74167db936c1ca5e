"""POSIX access lists as values: what the kernel writes is what is read, and no joining gives anybody more (J42)."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.worker.acl import AccessList

PERMISSIONS = st.integers(0, 7)
USER, GROUP = 0x02, 0x08
WHO = st.tuples(st.sampled_from((USER, GROUP)), st.integers(0, 70_000))
LISTS = st.builds(
    AccessList,
    owner=PERMISSIONS,
    group=PERMISSIONS,
    others=PERMISSIONS,
    named=st.dictionaries(WHO, PERMISSIONS, max_size=6),
)


@given(LISTS)
def test_what_is_written_is_read(wanted: AccessList) -> None:
    assert AccessList.parse(wanted.encode()) == wanted


@given(LISTS, LISTS)
def test_joining_leaves_everybody_of_the_first_what_he_has(wanted: AccessList, inherited: AccessList) -> None:
    joined = wanted.joined(inherited)
    assert (joined.owner, joined.group, joined.others) == (wanted.owner, wanted.group, wanted.others)
    assert joined.named == {**inherited.named, **wanted.named}
    assert joined.joined(inherited) == joined


def test_a_mask_is_taken_off_at_once() -> None:
    """Else a wider mask, for somebody who is added, would give back what the mask had taken."""
    entries = [(0x01, 7, -1), (USER, 7, 1000), (0x04, 7, -1), (0x10, 4, -1), (0x20, 0, -1)]
    raw = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    parsed = AccessList.parse(raw)
    assert parsed.group == 4
    assert parsed.named == {(USER, 1000): 4}
    wider = parsed.joined(AccessList(owner=0, group=0, others=0, named={(USER, 2000): 6}))
    assert AccessList.parse(wider.encode()).named == {(USER, 1000): 4, (USER, 2000): 6}


@given(st.integers(0, 0o777))
def test_permission_bits_are_a_list_without_names(mode: int) -> None:
    assert AccessList.of_mode(mode).mode == mode
    assert AccessList.of_mode(mode | 0o7000).mode == mode


@pytest.mark.parametrize("raw", [b"", b"\2\0\0\0", b"\1\0\0\0" + b"\0" * 8, b"\2\0\0\0\1", b"\2\0\0\0" + b"\0" * 8])
def test_what_is_no_list_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="access list"):
        AccessList.parse(raw)


@given(LISTS)
def test_the_kernel_takes_every_list_and_gives_it_back(wanted: AccessList) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp"), f"obt-acl-{os.getpid()}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        path.unlink()
        os.setxattr(fd, "system.posix_acl_access", wanted.encode())
        if wanted.named:
            assert AccessList.parse(os.getxattr(fd, "system.posix_acl_access")) == wanted
        else:
            assert os.fstat(fd).st_mode & 0o777 == wanted.mode
    finally:
        os.close(fd)
