"""Why a file could not be fetched: one error of the table, with its context and a sentence.

Foreign errors become one of these exactly once, where they appear: errno here, libcurl's in
`engine`, statuses in `answers`.
"""

from __future__ import annotations

import errno
import os
import pwd
from dataclasses import dataclass
from typing import Final

from openbits.errors import ErrorContext
from openbits.worker.paths import ForeignLink

MESSAGE_LIMIT: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What TransferEnded says."""

    name: str
    context: ErrorContext
    message: str
    transient: bool
    is_break: bool = False
    """Whether the connection failed, rather than the server refused: only then is it taken up again."""
    retry_after_s: int | None = None
    retry_within_s: int | None = None
    may_try_next_proxy: bool = False
    """Whether it was the proxy that could not be reached: the next one of the list may know better."""
    refused_url: str = ""
    """An https server that may have refused for want of a client certificate: it may say so no other way."""
    has_other_key: bool = False
    """Whether the server showed another key than the one that was checked: it may be one of many."""

    def __post_init__(self) -> None:
        if len(self.message) > MESSAGE_LIMIT:
            object.__setattr__(self, "message", self.message[: MESSAGE_LIMIT - 1] + "…")


class TransferError(Exception):
    """Carries a Failure to where the file is given up."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def shown(path: str) -> str:
    """A path for a sentence; bytes that are no text are shown as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def account_name() -> str:
    """Whose rights this process has, for a sentence.

    By name: an administrator may have made the call, and the files may be a helper's.  "You" would be somebody else.
    """
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


# name, transient, what happened, what to do
_LOCAL: Final[dict[int, tuple[str, bool, str, str]]] = {
    errno.ENOSPC: ("ERROR_DISK_FULL", True, "there is no room left", "make room; the transfer then goes on by itself"),
    errno.EDQUOT: (
        "ERROR_DISK_QUOTA_EXCEEDED",
        True,
        "the disk quota is used up",
        "make room; the transfer then goes on by itself",
    ),
    errno.EIO: ("ERROR_WRITE_FAULT", False, "the disk reported an error", "check the disk, then resume the job"),
    errno.EACCES: (
        "E_ACCESSDENIED",
        False,
        "access is denied",
        "give the job's owner, or the helper who opens its files, write access to the directory, then resume the job",
    ),
    errno.EROFS: (
        "E_ACCESSDENIED",
        False,
        "the file system is read-only",
        "mount it for writing or choose another directory",
    ),
    errno.ENOENT: ("ERROR_PATH_NOT_FOUND", False, "the directory does not exist", "create it, then resume the job"),
    errno.ENOTDIR: (
        "ERROR_PATH_NOT_FOUND",
        False,
        "a part of the path is no directory",
        "choose another path or make it one",
    ),
    errno.EFBIG: (
        "ERROR_FILE_TOO_LARGE",
        False,
        "the file is larger than the file system or the limit of the account allows",
        "choose another file system or raise the limit",
    ),
    errno.ENAMETOOLONG: (
        "ERROR_PATH_NOT_FOUND",
        False,
        "the name is too long for the file system",
        "choose a shorter name",
    ),
    errno.ESTALE: ("ERROR_PATH_NOT_FOUND", True, "the directory is gone from its server", "mount it again"),
    errno.EISDIR: ("ERROR_FILE_EXISTS", False, "a directory has this name", "choose another name or move it away"),
    errno.EEXIST: ("ERROR_FILE_EXISTS", False, "something else has this name", "move it away, then resume the job"),
    errno.ELOOP: (
        "ERROR_FILE_EXISTS",
        False,
        "a symbolic link stands where a file was expected",
        "remove it, then resume the job",
    ),
    errno.EMFILE: ("ERROR_NOT_ENOUGH_MEMORY", True, "too many files are open", "it is tried again"),
    errno.ENFILE: ("ERROR_NOT_ENOUGH_MEMORY", True, "too many files are open on the machine", "it is tried again"),
    errno.ENOMEM: ("ERROR_NOT_ENOUGH_MEMORY", True, "there is not enough memory", "it is tried again"),
}
_LOCAL[errno.EPERM] = _LOCAL[errno.EACCES]


def local_failure(error: OSError, path: str) -> Failure:
    """What an error of the file system means for the file at `path`."""
    if isinstance(error, ForeignLink):
        return Failure(
            name="E_ACCESSDENIED",
            context=ErrorContext.LOCAL_FILE,
            message=f"{shown(error.filename)} is a symbolic link of another account, and such links are not followed: "
            "name the directory that it leads to, or have root own the link",
            transient=False,
        )
    name, transient, happened, advice = _LOCAL.get(
        error.errno or 0,
        ("ERROR_WRITE_FAULT", False, os.strerror(error.errno or 0), "check the file system, then resume the job"),
    )
    return Failure(
        name=name,
        context=ErrorContext.LOCAL_FILE,
        message=f"{shown(path)}: {happened}: {advice}",
        transient=transient,
    )
