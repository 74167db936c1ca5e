"""A small file that came in one go: one write, and no more bookkeeping than that.

Ten thousand files of ten kilobytes are a common job, and for each of them everything that a large
file needs (checkpoints, room reserved, bytes counted by interval) would cost more than the file.
"""

from __future__ import annotations

import os
from typing import Final

from openbits.worker.files import Directories, Directory, create, set_modified

MOST_BYTES: Final = 64 * 1024
PATIENCE_S: Final = 2.0
"""A file that takes longer than this to come in is treated as a large one, with checkpoints."""


def write_small(
    directories: Directories, path: str, chunks: list[bytes], *, umask: int, modified_epoch_s: float | None
) -> tuple[int, Directory]:
    """Make the file; the caller owns the descriptor and releases the directory. Raises OSError."""
    directory, name = directories.hold(path)
    try:
        fd = create(directory, name, umask=umask)
    except BaseException:
        directory.release()
        raise
    try:
        if chunks:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            written = os.write(fd, data)
            while written < len(data):
                written += os.write(fd, data[written:])
        set_modified(fd, modified_epoch_s)
    except BaseException:
        os.close(fd)
        directory.release()
        raise
    return fd, directory
