"""One upload whose remote name is file://: copied to a hidden file beside its destination, which then is renamed.

The destination appears whole or not at all, durable and with the time of the source (D9).  What an HTTP server calls
a session is the hidden file here: its name is written down before it is made, so that a cancelled job can delete it
and the next run goes on after its durable bytes.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

from openbits.core.names import file_path, temporary_name
from openbits.errors import BitsError, ErrorContext
from openbits.frames.operations import FileResult, RenameSpec
from openbits.frames.worker import FileStarted, StartTransfer, UploadFile, UploadMoved
from openbits.worker.failure import Failure, TransferError, local_failure
from openbits.worker.filecopy import copy_slice
from openbits.worker.files import Directories
from openbits.worker.operations import delete_files, rename_files
from openbits.worker.places import OwnPlace
from openbits.worker.run import Tools
from openbits.worker.sink import Sink, SinkSettings
from openbits.worker.source import Source, changed, is_as_before

_SLICE_BYTES: Final = 8 * 1024 * 1024
_PROTOCOL: Final = "file"


class Run(Protocol):
    """The transfer that the upload belongs to."""

    tools: Tools
    settings: StartTransfer
    sink_settings: SinkSettings
    directories: Directories
    has_progressed: bool

    def open_source(self, upload: FileUpload) -> None:
        """Have the source opened by whoever may: `source_opened` follows."""

    def send_started(self, message: FileStarted) -> None:
        """The copy begins."""

    def send_moved(self, message: UploadMoved) -> None:
        """The service is to write something down."""

    def on_received(self, index: int, received_bytes: int) -> None:
        """So much has been copied, for people to see."""

    def on_done(self, fetch: FileUpload, size: int) -> None:
        """The destination is there."""

    def on_failed(self, fetch: FileUpload, failure: Failure) -> None:
        """It cannot be made; `on_closed` follows."""

    def on_closed(self, fetch: FileUpload) -> None:
        """Nothing of it is open any more."""


class _Phase(enum.Enum):
    OPENING = "opening"
    KEEPING = "keeping"
    COPYING = "copying"
    FINISHING = "finishing"
    CLOSED = "closed"


class _Dated(OwnPlace):
    """A place whose file gets the source's time, which is more exact than a server's."""

    def __init__(self, directories: Directories, path: str, modified_ns: int) -> None:
        super().__init__(directories, path)
        self._modified_ns = modified_ns

    def set_modified(self, fd: int, epoch_s: float | None) -> None:  # noqa: ARG002 -- it has a better one
        """See `places.Place`; a file system that cannot hold the time keeps its own."""
        with contextlib.suppress(OSError, OverflowError):
            os.utime(fd, ns=(self._modified_ns, self._modified_ns))


class FileUpload:
    """See the module."""

    def __init__(self, run: Run, order: UploadFile) -> None:
        self.run = run
        self.spec = order.file
        self.source: Source | None = None
        self._order = order
        self._phase = _Phase.OPENING
        self._temporary = _remembered(order.memory)
        self._target = ""
        self._position = 0
        self._moves = 0
        self._is_busy = False
        """Whether the source's thread uses the files."""
        self._is_stopping = False
        self._failed_meanwhile: Failure | None = None
        """Why it ends as soon as the thread uses the files no more."""
        self._sink: Sink | None = None

    def __repr__(self) -> str:
        return f"<FileUpload {self._phase.value} at {self._position} to {self._target!r}>"

    def start(self) -> None:
        """Find out where it goes, then have the source opened."""
        try:
            self._target = file_path(self.spec.remote_name)
        except BitsError as error:
            self.fail(
                Failure(name=error.name, context=ErrorContext.REMOTE_FILE, message=error.message, transient=False)
            )
            return
        if self._temporary.rpartition("/")[0] != self._target.rpartition("/")[0]:
            self._temporary = ""
        if self._order.only_cancels:
            self._delete()
        else:
            self.run.open_source(self)

    def source_opened(self, source: Source | Failure) -> None:
        """The source is open, or why it is not."""
        if isinstance(source, Source) and self._phase is _Phase.CLOSED:
            source.close()
        elif isinstance(source, Failure):
            self.fail(source)
        else:
            self.source = source
            if not is_as_before(source.opened, self.spec):
                self.fail(changed(self.spec.local_name))
            elif self._temporary:
                self._begin()
            else:
                self._temporary = temporary_name(self._target, secrets.token_hex(8))
                self._phase = _Phase.KEEPING
                self._move(0, is_awaited=True)

    def kept(self, number: int) -> None:
        """The name of the hidden file is on the disk."""
        if self._phase is _Phase.KEEPING and number == self._moves:
            self._begin()

    def reply_fetched(self) -> None:
        """Nobody replies to a file."""
        raise AssertionError(f"{self!r} has no reply")

    def _move(self, durable_bytes: int, *, is_awaited: bool = False) -> None:
        self._moves += 1
        self.run.send_moved(
            UploadMoved(
                transfer=self._order.transfer,
                number=self._moves,
                memory=json.dumps({"protocol": _PROTOCOL, "temporary": self._temporary}),
                acknowledged_bytes=durable_bytes,
                is_awaited=is_awaited,
            )
        )

    # --- copying -----------------------------------------------------------------------------

    def _begin(self) -> None:
        source = self.source
        assert source is not None
        self._phase = _Phase.COPYING
        run, size = self.run, source.opened.size
        sink = self._sink = Sink(
            run.tools.loop,
            run.tools.syncer,
            _Dated(run.directories, self._temporary, source.opened.modified_ns),
            run.sink_settings,
            self._move,
            lambda error: self.fail(self._target_failure(error)),
        )
        durable = self.spec.durable_bytes
        try:
            if self.spec.size is not None and 0 < durable <= size and sink.continue_from(durable):
                self._position = durable
            self._tell_started(source)
            sink.reserve(size)
            # An empty file has to be made, too.
            _ = sink.fd
        except TransferError as error:
            self.fail(self._remote(error.failure))
            return
        self._next_slice()

    def _tell_started(self, source: Source) -> None:
        dropped = self.spec.durable_bytes and not self._position
        opened = source.opened
        self.run.send_started(
            FileStarted(
                transfer=self._order.transfer,
                index=self.spec.index,
                bytes_total=opened.size,
                size=opened.size,
                etag=None,
                last_modified=str(opened.modified_ns),
                offset=self._position,
                restarted="the hidden file is not as it was left: the file is copied from the beginning"
                if dropped
                else "",
            )
        )

    def _next_slice(self) -> None:
        source, sink = self.source, self._sink
        assert source is not None
        assert sink is not None
        if self._is_stopping:
            self._close()
            return
        left, position, target = source.opened.size - self._position, self._position, sink.fd
        if not left:
            self._is_busy = True
            source.check(self._checked)
            return
        count = min(_SLICE_BYTES, left)
        fd = source.opened.fd
        self._is_busy = True
        source.submit(lambda: _copied(fd, target, count, position), self._on_copied)

    def _on_copied(self, result: int | OSError | Failure) -> None:
        self._is_busy = False
        if self._failed_meanwhile is not None:
            self.fail(self._failed_meanwhile)
        elif isinstance(result, Failure):
            self.fail(result)
        elif isinstance(result, OSError):
            self.fail(self._target_failure(result))
        elif not result:
            self.fail(changed(self.spec.local_name))
        else:
            assert self._sink is not None
            self._sink.note_written(self._position, self._position + result)
            self._position += result
            self.run.has_progressed = True
            self.run.on_received(self.spec.index, self._position)
            self._next_slice()

    # --- the end -----------------------------------------------------------------------------

    def _checked(self, failure: Failure | None) -> None:
        """The last byte has been copied; it is of the same file if the source is what it was."""
        self._is_busy = False
        source, sink = self.source, self._sink
        failure = self._failed_meanwhile or failure
        if failure is not None:
            self.fail(failure)
            return
        assert source is not None
        assert sink is not None
        size = source.opened.size
        self._close_source()
        self._phase = _Phase.FINISHING
        try:
            sink.finish(size, None, lambda error: self._synced(size, error))
            # There is no other file to wait for.
            self.run.tools.syncer.flush()
        except TransferError as error:
            self.fail(self._remote(error.failure))

    def _synced(self, size: int, error: OSError | None) -> None:
        if error is not None:
            self.fail(self._target_failure(error))
            return
        spec = RenameSpec(index=self.spec.index, temporary_name=self._temporary, local_name=self._target, size=size)
        self._operate(lambda: rename_files([spec]), lambda: self.run.on_done(self, size))

    def _delete(self) -> None:
        """The job is cancelled: what an earlier run left is deleted, and the destination is not touched."""
        self._phase = _Phase.FINISHING
        paths = [self._temporary] if self._temporary else []
        self._operate(lambda: delete_files(paths), lambda: self.run.on_done(self, 0))

    def _operate(self, work: Callable[[], list[FileResult]], done: Callable[[], None]) -> None:
        def on_done(results: list[FileResult] | OSError) -> None:
            if isinstance(results, OSError):
                self.fail(self._target_failure(results))
            elif results:
                failed = results[0]
                context = ErrorContext.REMOTE_FILE
                self.fail(Failure(name=failed.error, context=context, message=failed.message, transient=False))
            else:
                self._phase = _Phase.CLOSED
                done()

        self.run.tools.reader.submit(work, on_done)

    def fail(self, failure: Failure) -> None:
        """Give up; what was copied stays in the hidden file."""
        if self._is_busy:
            self._failed_meanwhile = failure
        elif self._phase is not _Phase.CLOSED:
            self.run.on_failed(self, failure)
            self._close()

    def stop(self) -> None:
        """End early; what is being made durable and renamed still is."""
        self._is_stopping = True
        if not self._is_busy and self._phase is not _Phase.FINISHING:
            self._close()

    def _close(self) -> None:
        if self._phase is _Phase.CLOSED:
            return
        self._phase = _Phase.CLOSED
        self._close_source()
        if self._sink is None:
            self.run.tools.loop.post(lambda: self.run.on_closed(self))
        else:
            self._sink.close(lambda _error: self.run.on_closed(self))

    def _close_source(self) -> None:
        if self.source is not None:
            self.source.close()
            self.source = None

    def _target_failure(self, error: OSError) -> Failure:
        return self._remote(local_failure(error, self._target))

    @staticmethod
    def _remote(failure: Failure) -> Failure:
        """The destination is what the remote name says, whatever disk it is on (E2)."""
        return replace(failure, context=ErrorContext.REMOTE_FILE)


def _copied(source: int, target: int, count: int, position: int) -> int | OSError:
    try:
        return copy_slice(source, target, count, position, position)
    except OSError as error:
        # What reading fails by is told in the source's words: asking again tells the two apart.
        os.pread(source, 1, position)
        return error


def _remembered(memory: str) -> str:
    """The name of the hidden file of an earlier run; empty when there is none."""
    try:
        values: Any = json.loads(memory) if memory else {}
    except ValueError:
        return ""
    name = values.get("temporary", "") if isinstance(values, dict) and values.get("protocol") == _PROTOCOL else ""
    return name if isinstance(name, str) else ""
