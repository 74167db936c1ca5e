"""Where files come to stand: memory, the disk, and new file systems; and files to download.

The rule: whoever is measured finds the destination in the same condition: empty, with the memory behind it
touched once already, because a first touch costs more than anything that is measured here.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bench.running import Command, run

MIB: Final = 1024 * 1024
_BLOCK_BYTES: Final = 4 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The directories of a run of the suite."""

    memory: str
    """On tmpfs."""
    disk: str
    """On a disk, as far as there is one."""
    served: str
    """What the origin serves, in memory: the origin's disk is not what is measured."""


@contextlib.contextmanager
def open_places(*, memory_parent: str, disk_parent: str) -> Iterator[Places]:
    """Make the directories, and remove them in the end with everything in them."""
    with contextlib.ExitStack() as stack:
        memory, disk = (stack.enter_context(_new_directory(parent)) for parent in (memory_parent, disk_parent))
        served = os.path.join(memory, "served")
        os.mkdir(served)
        yield Places(memory=memory, disk=disk, served=served)


@contextlib.contextmanager
def _new_directory(parent: str) -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="openbits-bench-", dir=parent)
    # Other accounts download to places below.
    os.chmod(path, 0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def make_file(path: str, size_bytes: int) -> str:
    """Write a file of random bytes and return their SHA-256."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        left = size_bytes
        while left > 0:
            block = os.urandom(min(left, _BLOCK_BYTES))
            file.write(block)
            digest.update(block)
            left -= len(block)
    os.chmod(path, 0o644)
    return digest.hexdigest()


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def touch_memory(directory: str, size_bytes: int) -> None:
    """Write and delete a file, so that the memory for the next one is there."""
    path = os.path.join(directory, "touched")
    block = bytes(_BLOCK_BYTES)
    with open(path, "wb", buffering=0) as file:
        left = size_bytes
        while left > 0:
            left -= file.write(block[: min(left, _BLOCK_BYTES)])
    os.unlink(path)


@contextlib.contextmanager
def image_file(directory: str, size_bytes: int) -> Iterator[str]:
    """Make a file to put file systems into; its memory is touched."""
    path = os.path.join(directory, "image")
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
    try:
        yield path
    finally:
        os.unlink(path)


@contextlib.contextmanager
def new_file_system(image: str) -> Iterator[str]:
    """Make an empty ext4 in an image and mount it; yields the directory. Needs root.

    ext4 is slower soon after many files were deleted, so every run gets one of its own.
    """
    # All tables are written now: the kernel would write them in the background while something is measured.
    options = ["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]
    run(Command(arguments=["mkfs.ext4", *options, image]))
    directory = tempfile.mkdtemp(prefix="fs-", dir=os.path.dirname(image))
    try:
        run(Command(arguments=["mount", "-o", "loop,noatime", image, directory]))
        try:
            yield directory
        finally:
            run(Command(arguments=["umount", directory]))
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(directory)
