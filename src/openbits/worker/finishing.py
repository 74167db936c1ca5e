"""The way from the last byte to a finished file: checksum, date, disk."""

from __future__ import annotations

from collections.abc import Callable

from openbits.core.http import date_to_epoch_s, host_of
from openbits.errors import ErrorContext
from openbits.frames.worker import FileSpec
from openbits.worker.checksum import Checksum
from openbits.worker.failure import Failure, TransferError, local_failure
from openbits.worker.helper import Helper
from openbits.worker.sink import Sink


class Finishing:
    """Ends with exactly one of `on_done(size)`, `on_failed(failure)` and `on_cancelled()`."""

    def __init__(
        self,
        *,
        spec: FileSpec,
        sink: Sink,
        reader: Helper,
        checksum: Checksum | None,
        on_done: Callable[[int], None],
        on_failed: Callable[[Failure], None],
        on_cancelled: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._sink = sink
        self._reader = reader
        self._checksum = checksum
        self._on_done = on_done
        self._on_failed = on_failed
        self._on_cancelled = on_cancelled
        self._is_cancelled = False
        self._is_reading = False

    def __repr__(self) -> str:
        return f"<Finishing {self._spec.index}>"

    def start(self, total: int, last_modified: str | None) -> None:
        """Every byte has been received; there are `total`."""
        checksum = self._checksum
        if checksum is None:
            self._sync(total, last_modified)
            return
        if checksum.is_complete(total):
            self._verified(checksum, total, last_modified)
            return
        try:
            self._sink.flush()
            fd = self._sink.fd
        except TransferError as error:
            self._on_failed(error.failure)
            return
        self._is_reading = True

        def on_read(result: OSError | None) -> None:
            self._is_reading = False
            if self._is_cancelled:
                self._on_cancelled()
            elif isinstance(result, OSError):
                self._on_failed(local_failure(result, self._sink.path))
            else:
                self._verified(checksum, total, last_modified)

        self._reader.submit(lambda: checksum.read_back(fd, total, lambda: self._is_cancelled), on_read)

    def cancel(self) -> None:
        """Stop reading back, if that is what takes long; syncing is let run to its end."""
        self._is_cancelled = self._is_reading

    def _verified(self, checksum: Checksum, total: int, last_modified: str | None) -> None:
        if checksum.matches:
            self._sync(total, last_modified)
            return
        self._on_failed(
            Failure(
                name="ERROR_CRC",
                context=ErrorContext.REMOTE_FILE,
                message=(
                    f"{host_of(self._spec.remote_name)} sent a file with the {checksum.algorithm} checksum "
                    f"{checksum.actual}, but {checksum.expected} was asked for: check the checksum; "
                    "Resume fetches the file again"
                ),
                transient=False,
            )
        )

    def _sync(self, total: int, last_modified: str | None) -> None:
        def on_synced(error: OSError | None) -> None:
            if error is not None:
                self._on_failed(local_failure(error, self._sink.path))
            else:
                self._on_done(total)

        try:
            self._sink.finish(total, date_to_epoch_s(last_modified), on_synced)
        except TransferError as error:
            self._on_failed(error.failure)
