"""Temporary files that another account's process opens (T3): asked for in time, looked at, and never leaked.

With a helper token for one side only, a process of the files' account opens the file, makes its name durable and
hands over the descriptor; this process, which speaks to the network, could not open the file itself.  It takes the
descriptor for what it can see of it: a regular file on a disk, open for reading and writing.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from openbits.errors import ErrorContext
from openbits.frames.worker import HANDLES_AHEAD, FileHandle, FileSpec, FileWanted
from openbits.worker.failure import Failure, shown
from openbits.worker.files import Directory
from openbits.worker.syscalls import file_system_type

MOST_OPEN: Final = 64
"""How many files of a transfer may be open at once, those that are being finished included: a descriptor that
came from elsewhere cannot be closed before its file is synced."""
_NO_DISKS: Final = frozenset(
    (
        0x9FA0,  # proc
        0x62656572,  # sysfs
        0x27E0EB,  # cgroup
        0x63677270,  # cgroup2
        0x64626720,  # debugfs
        0x74726163,  # tracefs
        0x73636673,  # securityfs
        0xCAFE4A11,  # bpf
        0x6E736673,  # nsfs
        0xF97CFF8C,  # selinuxfs
        0x62656570,  # configfs
        0xDE5E81E4,  # efivarfs
    )
)
"""File systems whose regular files are doors into the kernel: what is written there is judged by who writes."""


class Handle:
    """A file that another process has opened; the descriptor is this object's until it is taken."""

    directory: Directory | None = None

    def __init__(self, path: str, fd: int, *, kept: bool) -> None:
        self.path = path
        self._fd = fd
        self._kept = kept

    def __repr__(self) -> str:
        return f"<Handle fd={self._fd} kept={self._kept} {self.path!r}>"

    def take_up(self, least_bytes: int) -> int | None:
        """See `places.Place`."""
        if not self._kept or os.fstat(self._fd).st_size < least_bytes:
            return None
        return self.take_fd()

    def make(self, umask: int) -> int:  # noqa: ARG002 -- it was made by who opened it
        """See `places.Place`."""
        os.ftruncate(self._fd, 0)
        return self.take_fd()

    def take_fd(self) -> int:
        """The descriptor, which is the caller's from now on."""
        fd, self._fd = self._fd, -1
        return fd

    def set_modified(self, fd: int, epoch_s: float | None) -> None:
        """Not by this process: the file is not its own.  Who renames the file does it."""

    def hand_over(self) -> Directory | None:
        """See `places.Place`."""
        return None

    def release(self) -> None:
        """See `places.Place`."""
        if self._fd >= 0:
            os.close(self.take_fd())


class Handles:
    """The handles of one transfer: asked for a few files ahead, and kept until their files' turn comes."""

    def __init__(self, transfer: int, send: Callable[[object], None]) -> None:
        self._transfer = transfer
        self._send = send
        self._asked: dict[int, FileSpec] = {}
        self._sources: set[int] = set()
        """Which of them are to be read, and not to be written."""
        self._here: dict[int, Handle | Failure] = {}

    def __repr__(self) -> str:
        return f"<Handles asked={sorted(self._asked)} here={sorted(self._here)}>"

    def ask_ahead(self, queue: Iterable[FileSpec]) -> None:
        """Ask for the files that come next."""
        for spec in islice(queue, HANDLES_AHEAD):
            if spec.index not in self._asked and spec.index not in self._here:
                self._asked[spec.index] = spec
                self._send(FileWanted(transfer=self._transfer, index=spec.index))

    def ask_source(self, spec: FileSpec) -> None:
        """Ask for what is to be uploaded."""
        self._asked[spec.index] = spec
        self._sources.add(spec.index)
        self._send(FileWanted(transfer=self._transfer, index=spec.index))

    def receive(self, message: FileHandle, fd: int | None) -> None:
        """An answer came; the descriptor is ours from now on."""
        spec = self._asked.pop(message.index, None)
        if spec is None:
            # Nobody asked.
            if fd is not None:
                os.close(fd)
        elif fd is None:
            self._here[spec.index] = _refusal(message)
        elif spec.index in self._sources:
            self._keep(spec, fd, _source_problem(fd, spec.local_name), kept=False)
        else:
            self._keep(spec, fd, _problem(fd, spec.temporary_name), kept=message.kept)

    def _keep(self, spec: FileSpec, fd: int, problem: Failure | None, *, kept: bool) -> None:
        if problem is None:
            self._here[spec.index] = Handle(spec.temporary_name, fd, kept=kept)
        else:
            os.close(fd)
            self._here[spec.index] = problem

    def take(self, index: int) -> Handle | Failure | None:
        """The handle of a file, or why there is none; None while the answer is on its way."""
        return self._here.pop(index, None)

    def close(self) -> None:
        """Give back what nobody has taken, and ask for nothing any more."""
        self._asked.clear()
        here, self._here = self._here, {}
        for handle in here.values():
            if isinstance(handle, Handle):
                handle.release()


def _refusal(message: FileHandle) -> Failure:
    return Failure(
        name=message.error or "E_FAIL",
        context=ErrorContext.LOCAL_FILE,
        message=message.message or "the temporary file was not handed over",
        transient=message.transient,
    )


def _problem(fd: int, path: str) -> Failure | None:
    return _judged(fd, path, frozenset((os.O_RDWR,)), "is no file that can be written to: choose another directory")


def _source_problem(fd: int, path: str) -> Failure | None:
    modes = frozenset((os.O_RDONLY, os.O_RDWR))
    return _judged(fd, path, modes, "is no file that can be read: upload another file")


def _judged(fd: int, path: str, modes: frozenset[int], complaint: str) -> Failure | None:
    """Why the descriptor is not taken; None when it is one of a regular file on a disk, open in one of the modes."""
    try:
        is_file = stat.S_ISREG(os.fstat(fd).st_mode) and file_system_type(fd) not in _NO_DISKS
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    except OSError as error:
        complaint = f"cannot be used here: {error.strerror}"
    else:
        if is_file and flags & os.O_ACCMODE in modes and not flags & (os.O_APPEND | os.O_PATH | os.O_DIRECT):
            return None
    return Failure(
        name="E_ACCESSDENIED",
        context=ErrorContext.LOCAL_FILE,
        message=f"{shown(path)}: what the helper's processes handed over {complaint}",
        transient=False,
    )
