"""Where the temporary file of a transfer comes from; this process can make most of them itself.

The other sort of place is a handle (see `handles`).  A sink works the same way on either.
"""

from __future__ import annotations

from typing import Protocol

from openbits.worker.files import Directories, Directory, create, reopen, set_modified


class Place(Protocol):
    """Where one temporary file comes from; every method raises OSError."""

    path: str

    @property
    def directory(self) -> Directory | None:
        """What has to be synced for the file's name to last; None where that has been done."""

    def take_up(self, least_bytes: int) -> int | None:
        """The file of an earlier run, or None when it is not there as it was left."""

    def make(self, umask: int) -> int:
        """An empty file."""

    def set_modified(self, fd: int, epoch_s: float | None) -> None:
        """Give it the server's date (D9), if this process may."""

    def hand_over(self) -> Directory | None:
        """Give the directory to whoever syncs the file; he releases it."""

    def release(self) -> None:
        """Give back what is still held."""


class OwnPlace:
    """A name in a directory in which this process may make files."""

    def __init__(self, directories: Directories, path: str) -> None:
        self.path = path
        self._directories = directories
        self._held: tuple[Directory, str] | None = None

    def __repr__(self) -> str:
        return f"<OwnPlace {self.path!r}>"

    def _hold(self) -> tuple[Directory, str]:
        if self._held is None:
            self._held = self._directories.hold(self.path)
        return self._held

    @property
    def directory(self) -> Directory | None:
        """See `Place`."""
        return self._held[0] if self._held is not None else None

    def take_up(self, least_bytes: int) -> int | None:
        """See `Place`."""
        directory, name = self._hold()
        return reopen(directory, name, least_bytes=least_bytes)

    def make(self, umask: int) -> int:
        """See `Place`."""
        directory, name = self._hold()
        return create(directory, name, umask=umask)

    def set_modified(self, fd: int, epoch_s: float | None) -> None:
        """See `Place`."""
        set_modified(fd, epoch_s)

    def hand_over(self) -> Directory | None:
        """See `Place`."""
        directory = self.directory
        self._held = None
        return directory

    def release(self) -> None:
        """See `Place`."""
        directory = self.hand_over()
        if directory is not None:
            directory.release()
