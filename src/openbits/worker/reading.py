"""Files of the account that are read for the service: may they be uploaded, open one, copy one to be shown.

The rules for what is opened are those of `source`: regular files, and links only of root and of the account.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from typing import Final

from openbits.errors import ErrorContext
from openbits.frames.operations import CopyFile, FileOpened, FileResult, OpenSource
from openbits.worker.failure import Failure, shown
from openbits.worker.source import Opened, open_source, source_failure

_READ_BYTES: Final = 256 * 1024
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def check_sources(paths: Iterable[str]) -> list[FileResult]:
    """Those files that this process could not upload, by position (J1)."""
    results = []
    for index, path in enumerate(paths):
        found = _open(path)
        if isinstance(found, Failure):
            results.append(FileResult(index=index, error=found.name, message=found.message))
        else:
            os.close(found.fd)
    return results


def open_for_upload(order: OpenSource) -> tuple[FileOpened, int | None]:
    """Open what a worker of another identity uploads (T3)."""
    found = _open(order.path)
    if isinstance(found, Failure):
        return _refusal(order.operation, found), None
    return FileOpened(operation=order.operation), found.fd


def copy_file(order: CopyFile) -> tuple[FileOpened, int | None]:
    """Copy a file into memory that nobody can change any more (J32)."""
    found = _open(order.path)
    if isinstance(found, Failure):
        return _refusal(order.operation, found), None
    try:
        content = _content(found, order.most_bytes)
    except OSError as error:
        return _refusal(order.operation, source_failure(error, order.path)), None
    finally:
        os.close(found.fd)
    if content is None:
        return _refusal(order.operation, _too_large(order)), None
    return FileOpened(operation=order.operation), _sealed(content)


def _open(path: str) -> Opened | Failure:
    try:
        return open_source(path)
    except OSError as error:
        return source_failure(error, path)


def _content(found: Opened, most_bytes: int) -> bytes | None:
    """The file's bytes; None when there are more than that, now or by the time they are read."""
    content = bytearray()
    while found.size <= most_bytes and len(content) <= most_bytes:
        piece = os.pread(found.fd, min(_READ_BYTES, most_bytes + 1 - len(content)), len(content))
        if not piece:
            return bytes(content)
        content += piece
    return None


def _sealed(content: bytes) -> int:
    fd = os.memfd_create("copy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _too_large(order: CopyFile) -> Failure:
    return Failure(
        name="BG_E_TOO_LARGE",
        context=ErrorContext.LOCAL_FILE,
        message=f"{shown(order.path)} is larger than {order.most_bytes:,} bytes: read the file itself",
        transient=False,
    )


def _refusal(operation: int, failure: Failure) -> FileOpened:
    return FileOpened(operation=operation, error=failure.name, message=failure.message, transient=failure.transient)
