"""The files of uploads: private while they grow, whole when they appear, nowhere where a client says so.

The rules:

- What arrives goes to the working directory, which is nobody else's (0700), under a name that the server made.
- The size of a file there is the truth: it holds so many bytes, without holes.  Room is reserved without changing it.
- The destination is opened from the root's descriptor, link-free (`beneath`), and used by descriptor: what was looked
  at is what is written to.
- A file gets its name by one rename, after all of it is durable; the name is durable before anybody is told.

Every function blocks: they are called from threads.  The file's mode is what the server's umask makes of 0666, its
owner the server's account; in a directory with the set-group-ID bit it gets that directory's group.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import stat
from typing import Final

from openbits.server import beneath
from openbits.server.syscalls import mount_of, rename_new, reserve
from openbits.upload.session import Place, Trouble

RESERVED_FROM_BYTES: Final = 2**20
"""Smaller files are not worth the call: they are here, or refused, with the first fragment."""
REPLIES: Final = b"BITS-Sessions"
"""The name under which replies are handed out: no file can be put below it."""

log = logging.getLogger(__name__)

_OURS: Final = re.compile(r"([0-9a-f]{32})\.(?:part|reply)\Z")
_FILE_FLAGS: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class StorageError(Exception):
    """The working directory or the root cannot be used; the message says why, for whoever starts the server."""


def trouble_of(error: OSError) -> Trouble:
    """What an error of the file system means to an upload."""
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return Trouble.NO_ROOM
        case errno.EFBIG:
            return Trouble.TOO_LARGE
        case _:
            return Trouble.BROKEN


class Storage:
    """The root that is served, and the working directory."""

    def __init__(self, root: str, working_directory: str) -> None:
        """Open both, make the working directory where it is missing; raises StorageError."""
        self.working_directory = working_directory
        self.root_fd = _open_directory(root, "the root directory")
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(working_directory, 0o700)
            # A link would have been put there by somebody else: what it leads to must not become ours.
            self.working_fd = _open_directory(working_directory, "the working directory", os.O_NOFOLLOW)
        except OSError as error:
            os.close(self.root_fd)
            raise StorageError(f"the working directory {working_directory} cannot be made: {error.strerror}") from error
        except StorageError:
            os.close(self.root_fd)
            raise
        try:
            self._guard()
        except BaseException:
            self.close()
            raise
        self.private = os.fstat(self.working_fd)
        """What the working directory is, under whatever name."""
        relative = os.fsencode(os.path.relpath(os.path.realpath(working_directory), os.path.realpath(root)))
        parts = tuple(relative.split(b"/"))
        self._hidden = () if parts[0] == b".." else parts

    def __repr__(self) -> str:
        return f"<Storage working_directory={self.working_directory!r}>"

    def close(self) -> None:
        """Let both go; another server may then have the working directory."""
        os.close(self.root_fd)
        os.close(self.working_fd)

    def _guard(self) -> None:
        """Nobody else may look into the working directory, and no other server may work in it."""
        found = os.fstat(self.working_fd)
        if os.path.samestat(found, os.fstat(self.root_fd)):
            raise StorageError(
                f"the working directory {self.working_directory} is the root itself, where everybody could get at"
                " unfinished uploads; name a directory of its own"
            )
        if found.st_uid != os.geteuid():
            raise StorageError(
                f"the working directory {self.working_directory} belongs to uid {found.st_uid}, not to the server's"
                " account: what it holds could be changed by somebody else; choose another one"
            )
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(self.working_fd, 0o700)
        try:
            fcntl.flock(self.working_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"the working directory {self.working_directory} is in use by another server: end that one first"
            ) from None

    # --- destinations ---

    def is_hidden(self, components: tuple[bytes, ...]) -> bool:
        """Whether a path is one that is neither served nor written to: the working directory and replies."""
        if REPLIES.lower() in (name.lower() for name in components):
            return True
        depth = len(self._hidden)
        return depth > 0 and [name.lower() for name in components[:depth]] == [name.lower() for name in self._hidden]

    def look(self, components: tuple[bytes, ...]) -> Place:
        """What stands at the destination (U20: its directory must be there already)."""
        if self.is_hidden(components):
            return Place.FORBIDDEN
        if not components:
            return Place.DIRECTORY
        try:
            parent_fd, name = beneath.open_parent(self.root_fd, components)
        except OSError as error:
            return Place.FORBIDDEN if error.errno in (errno.EACCES, errno.EPERM) else Place.MISSING
        try:
            return self._look_in(parent_fd, name)
        finally:
            os.close(parent_fd)

    def _look_in(self, parent_fd: int, name: bytes) -> Place:
        parent = os.fstat(parent_fd)
        if os.path.samestat(parent, self.private):
            return Place.FORBIDDEN
        mode, owner = 0, os.geteuid()
        try:
            found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            mode, owner = found.st_mode, found.st_uid
        except FileNotFoundError:
            pass
        except OSError:
            return Place.FORBIDDEN
        if stat.S_ISDIR(mode):
            return Place.DIRECTORY
        # A rename does not lead from one mount to another, not even to another of the same file system.
        if parent.st_dev != self.private.st_dev or mount_of(parent_fd) != mount_of(self.working_fd):
            log.error(
                "action=upload-refused: the destination is on another file system, or another mount of one, than the"
                " working directory %s: give it a server of its own",
                self.working_directory,
            )
            return Place.FORBIDDEN
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=parent_fd, effective_ids=True):
            return Place.FORBIDDEN
        if mode == 0:
            return Place.FREE
        if parent.st_mode & stat.S_ISVTX and os.geteuid() not in (0, owner, parent.st_uid):
            # Said by the kernel only when the file is to be replaced: after the last byte.
            return Place.FORBIDDEN
        # A link is replaced as a link; what it points to is never touched.
        return Place.FILE if stat.S_ISREG(mode) or stat.S_ISLNK(mode) else Place.FORBIDDEN

    def publish(self, key: str, components: tuple[bytes, ...], *, may_overwrite: bool) -> Trouble | None:
        """Give the file of a session its name, durably; None when that is done."""
        if self.is_hidden(components):
            return Trouble.FORBIDDEN
        part = _part(key)
        try:
            parent_fd, name = beneath.open_parent(self.root_fd, components)
        except OSError as error:
            return Trouble.FORBIDDEN if error.errno in (errno.EACCES, errno.EPERM) else Trouble.MISSING
        try:
            if os.path.samestat(os.fstat(parent_fd), self.private):
                return Trouble.FORBIDDEN
            self._adopt_group(part, parent_fd)
            if may_overwrite:
                os.rename(part, name, src_dir_fd=self.working_fd, dst_dir_fd=parent_fd)
            else:
                rename_new(part, self.working_fd, name, parent_fd)
            os.fsync(parent_fd)
        except FileNotFoundError:
            return Trouble.VANISHED
        except FileExistsError:
            return Trouble.DIRECTORY if may_overwrite else Trouble.EXISTS
        except IsADirectoryError:
            return Trouble.DIRECTORY
        except PermissionError:
            return Trouble.FORBIDDEN
        except OSError as error:
            log.error("action=publish-failed session=%s: %s", key, error)
            return Trouble.DIRECTORY if error.errno == errno.ENOTEMPTY else trouble_of(error)
        finally:
            os.close(parent_fd)
        return None

    def _adopt_group(self, part: bytes, parent_fd: int) -> None:
        parent = os.fstat(parent_fd)
        if parent.st_mode & stat.S_ISGID:
            with contextlib.suppress(PermissionError):
                os.chown(part, -1, parent.st_gid, dir_fd=self.working_fd, follow_symlinks=False)

    # --- files that grow ---

    def open_part(self, key: str, *, total_bytes: int) -> int:
        """Open the file of a session, made where it is missing, with room for all of it; raises OSError."""
        part = _part(key)
        try:
            return os.open(part, _FILE_FLAGS, dir_fd=self.working_fd)
        except FileNotFoundError:
            fd = os.open(part, _FILE_FLAGS | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=self.working_fd)
        try:
            if total_bytes >= RESERVED_FROM_BYTES:
                self._reserve(fd, total_bytes)
        except BaseException:
            os.close(fd)
            os.unlink(part, dir_fd=self.working_fd)
            raise
        return fd

    def _reserve(self, fd: int, total_bytes: int) -> None:
        # Looked at before, because to find out by trying may take a disk that is almost large enough minutes.
        free = os.fstatvfs(fd)
        if free.f_blocks and total_bytes > free.f_bavail * free.f_frsize:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(fd, total_bytes)

    def sync_part(self, fd: int) -> None:
        """Make what a session's file has so far durable, its name in the working directory too."""
        os.fdatasync(fd)
        os.fsync(self.working_fd)

    def seal(self, key: str) -> None:
        """Make the whole file of a session durable; raises OSError."""
        fd = os.open(_part(key), _FILE_FLAGS, dir_fd=self.working_fd)
        try:
            self.sync_part(fd)
        finally:
            os.close(fd)

    def part_size(self, key: str) -> tuple[int, float] | None:
        """How many bytes the file of a session has, and when the last came; None when there is no file."""
        try:
            found = os.stat(_part(key), dir_fd=self.working_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime

    def cut_part(self, key: str, size: int) -> None:
        """Shorten the file of a session to what is known to be good, durably."""
        fd = os.open(_part(key), _FILE_FLAGS, dir_fd=self.working_fd)
        try:
            os.ftruncate(fd, size)
            os.fdatasync(fd)
        finally:
            os.close(fd)

    # --- for the server application ---

    def request_path(self, key: str) -> str:
        """Where a server application finds the upload (BITS-Request-DataFile-Name)."""
        return os.path.join(self.working_directory, os.fsdecode(_part(key)))

    def reply_path(self, key: str) -> str:
        """Where a server application writes its reply to (BITS-Response-DataFile-Name)."""
        return os.path.join(self.working_directory, os.fsdecode(_reply(key)))

    def open_part_to_read(self, key: str) -> int:
        """Open the upload for reading; raises OSError."""
        return os.open(_part(key), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.working_fd)

    def delete_reply(self, key: str) -> None:
        """Delete what an earlier attempt left."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_reply(key), dir_fd=self.working_fd)

    def make_reply(self, key: str) -> int:
        """Open an empty file for the reply."""
        self.delete_reply(key)
        return os.open(_reply(key), _FILE_FLAGS | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self.working_fd)

    def open_reply(self, key: str) -> int:
        """Open the reply for reading; raises OSError, also when an application left anything but a file there."""
        fd, _ = beneath.open_regular(self.working_fd, (_reply(key),))
        return fd

    def seal_reply(self, key: str) -> bool:
        """Make the reply durable; whether there is one."""
        try:
            fd = self.open_reply(key)
        except FileNotFoundError:
            return False
        try:
            self.sync_part(fd)
        finally:
            os.close(fd)
        return True

    # --- the end ---

    def delete(self, key: str) -> None:
        """Delete what is left of a session's files."""
        for name in (_part(key), _reply(key)):
            try:
                os.unlink(name, dir_fd=self.working_fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.error("action=delete-failed session=%s: %s", key, error)

    def delete_strays(self, known: frozenset[str]) -> int:
        """Delete files of sessions that nobody knows any more; return how many sessions those were."""
        strays = {match[1] for name in os.listdir(self.working_fd) if (match := _OURS.match(name))} - known
        for key in strays:
            self.delete(key)
        return len(strays)


def _part(key: str) -> bytes:
    return f"{key}.part".encode("ascii")


def _reply(key: str) -> bytes:
    return f"{key}.reply".encode("ascii")


def _open_directory(path: str, what: str, more_flags: int = 0) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | more_flags)
    except OSError as error:
        if more_flags & os.O_NOFOLLOW and os.path.islink(path):
            raise StorageError(f"{what} {path} is a symbolic link: remove it, or name another directory") from error
        raise StorageError(f"{what} {path} cannot be opened: {error.strerror}") from error
