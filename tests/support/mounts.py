"""Small file systems for tests that need a disk of their own, full or not. Only root can mount them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator


@contextlib.contextmanager
def small_disk(path: str, size_bytes: int, *, uid: int = 0) -> Iterator[str]:
    """Mount a tmpfs of so many bytes at `path`, which is made, for the length of a `with` block."""
    os.mkdir(path)
    options = f"size={size_bytes},mode=0755,uid={uid},gid={uid}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "openbits-test", path], check=True, timeout=20)
    try:
        yield path
    finally:
        # Lazily: a daemon that a failed test has left behind must not keep it mounted.
        subprocess.run(["umount", "--lazy", path], check=True, timeout=20)
        os.rmdir(path)


def fill(directory: str, *, leave_bytes: int = 0) -> str:
    """Take the room of a small disk, all but so many bytes, with one file; return its path."""
    path = os.path.join(directory, "ballast")
    with open(path, "wb") as file:
        free = os.statvfs(directory)
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - leave_bytes)
    return path
