"""Opens temporary files for a worker of another identity (T3): the name is durable before the descriptor leaves.

The other worker writes to the file and syncs its content; it could neither make the file nor sync its directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from openbits.frames.operations import FileOpened, OpenFile
from openbits.worker.failure import local_failure
from openbits.worker.files import Directories, Directory, create, reopen
from openbits.worker.helper import Helper
from openbits.worker.loop import Loop

Send = Callable[[object, tuple[int, ...]], None]


class Opener:
    """Answers each OpenFile with one FileOpened."""

    def __init__(self, loop: Loop, send: Send) -> None:
        self._send = send
        # A thread of its own: a long piece of work for a transfer must not keep another account waiting.
        self._helper = Helper(loop, "opener")

    def __repr__(self) -> str:
        return f"<Opener {self._helper!r}>"

    def close(self) -> None:
        """Finish what was begun."""
        self._helper.close()

    def open(self, wanted: OpenFile) -> None:
        """Take up the file of an earlier run or make an empty one, then hand it over.

        In the loop's thread, as all files are made: the process has one umask.
        """
        directories = Directories()
        try:
            directory, name = directories.hold(wanted.temporary_name)
        except OSError as error:
            self._refuse(wanted, error)
            return
        finally:
            directories.close()
        try:
            fd = reopen(directory, name, least_bytes=wanted.durable_bytes) if wanted.durable_bytes else None
            if fd is not None:
                directory.release()
                self._answer(wanted, fd, kept=True)
                return
            fd = create(directory, name, umask=wanted.umask)
        except OSError as error:
            directory.release()
            self._refuse(wanted, error)
            return
        self._make_durable(wanted, directory, fd)

    def _make_durable(self, wanted: OpenFile, directory: Directory, fd: int) -> None:
        def done(result: OSError | None) -> None:
            directory.release()
            if isinstance(result, OSError):
                os.close(fd)
                self._refuse(wanted, result)
            else:
                self._answer(wanted, fd, kept=False)

        self._helper.submit(directory.sync, done)

    def _answer(self, wanted: OpenFile, fd: int, *, kept: bool) -> None:
        try:
            self._send(FileOpened(operation=wanted.operation, kept=kept), (fd,))
        finally:
            os.close(fd)

    def _refuse(self, wanted: OpenFile, error: OSError) -> None:
        failure = local_failure(error, wanted.temporary_name)
        answer = FileOpened(
            operation=wanted.operation, error=failure.name, message=failure.message, transient=failure.transient
        )
        self._send(answer, ())
