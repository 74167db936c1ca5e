"""Some ranges of a file over HTTP, written back to back in the order in which they were asked for (J41, D2).

Servers differ: they answer with one part per range, merge parts, reorder them, send only the first,
or know no more than one range at a time.  So every part is put where its own Content-Range says
that it belongs, what nobody asked for is dropped, and what is missing is asked for again, in the
end one by one.  Several answers make one file only if a validator shows that they are of one version.
"""

from __future__ import annotations

from typing import Final

from openbits.core.http import Response, host_of
from openbits.core.model import TO_EOF, ByteRange, Validator
from openbits.core.ranges import Layout, as_segments, range_header, resolve
from openbits.core.resume import is_same_version
from openbits.errors import BitsError, ErrorContext
from openbits.frames.worker import FileSpec, FileStarted
from openbits.worker.answers import invalid_answer, no_ranges_with, remote_failure, too_large
from openbits.worker.asking import Body
from openbits.worker.checksum import Checksum
from openbits.worker.failure import Failure, TransferError
from openbits.worker.fetch import HttpFetch
from openbits.worker.parts import Parts
from openbits.worker.run import Lane, Run

_AT_ONCE: Final = 64
_NO_RANGES: Final = "it does not serve byte ranges: ask for the whole file instead"


class RangeDownload(HttpFetch):
    """A file with ranges."""

    def __init__(self, run: Run, lane: Lane, spec: FileSpec) -> None:
        super().__init__(run, lane, spec)
        self._ranges = [ByteRange(piece.offset, piece.length) for piece in spec.ranges]
        self._known = Validator(etag=spec.etag, last_modified=spec.last_modified, size=spec.size)
        self._layout: Layout | None = None
        self._most = _AT_ONCE
        self._asked = 0
        self._parts: Parts | None = None
        self._stored = 0
        self._stored_before = 0
        self._changes = 0
        self._reason = ""
        self._is_announced = False
        self._response: Response | None = None
        self._checksum = Checksum(spec.checksum) if spec.checksum else None

    @property
    def _has_validator(self) -> bool:
        return bool(self._known.etag or self._known.last_modified)

    def start(self) -> None:
        """Take up what an earlier run left, or begin."""
        if self._method:
            self.fail(no_ranges_with(self._method, self._url))
            return
        try:
            if self.spec.durable_bytes and not self._take_up():
                self.uncount(self.spec.durable_bytes)
                self._reason = "the ranges cannot be continued: they are fetched again from the beginning"
                self._known = Validator()
            if self._layout is not None and self._stored == self._layout.total:
                self._complete()
                return
            self.send()
        except TransferError as error:
            self.fail(error.failure)

    def _take_up(self) -> bool:
        durable, size = self.spec.durable_bytes, self._known.size
        if size is None or not self._has_validator:
            return False
        layout = self._lay_out(size)
        if durable > layout.total or not self.sink.continue_from(durable):
            return False
        self._layout = layout
        self._stored = self._furthest = durable
        return True

    def _lay_out(self, size: int | None) -> Layout:
        if size is None:
            # Without an open end the ranges need no size; whether they lie in the file, the parts will show.
            size = max(piece.offset + piece.length for piece in self._ranges)
        try:
            return Layout(resolve(self._ranges, size))
        except BitsError as error:
            raise TransferError(
                Failure(
                    name=error.name,
                    context=ErrorContext.REMOTE_FILE,
                    message=f"{host_of(self.spec.remote_name)}: {error.message}",
                    transient=False,
                )
            ) from None

    # --- asking and judging ------------------------------------------------------------------

    def ask(self) -> tuple[str, ...]:
        """See `HttpFetch`."""
        layout = self._layout
        wanted = as_segments(self._ranges) if layout is None else layout.missing(self.sink.coverage)
        value, self._asked = range_header(wanted, most=self._most)
        if_range = self._known.etag or self._known.last_modified
        return (f"Range: {value}", f"If-Range: {if_range}") if if_range else (f"Range: {value}",)

    def before_retry(self) -> None:
        """See `HttpFetch`."""
        if self._stored and not self._has_validator:
            self._drop("the transfer was interrupted and the server gives nothing to continue by")

    def judge(self, response: Response) -> Body:
        """See `HttpFetch`."""
        match response.status:
            case 206:
                return self._judge_parts(response)
            case 200:
                return self._judge_whole(response)
            case 416 if self._stored or self._has_validator:
                return self.follow_up(self._changed)
            case 416:
                clause = "a range is outside the file: check the ranges"
                raise TransferError(remote_failure("BG_E_INVALID_RANGE", self._url, clause))
            case _:
                return self.refuse_status(response)

    def _judge_whole(self, response: Response) -> Body:
        known = self._known
        if self._has_validator and not is_same_version(known, response, None):
            return self.follow_up(self._changed)
        if self._asked > 1:
            # Some servers know ranges and ignore a request for several.
            self._most = 1
            return self.follow_up(self.send)
        raise TransferError(remote_failure("BG_E_INSUFFICIENT_RANGE_SUPPORT", self._url, _NO_RANGES))

    def _judge_parts(self, response: Response) -> Body:
        self._response = response
        parts = self._parts = Parts(response, self._url, on_part=self._on_part, on_bytes=self._store)
        # A multipart answer tells the size in its parts only, but its version in its header.
        if self._is_other_version(response, parts.total):
            return self.follow_up(self._changed)
        parts.begin()
        return Body.TAKE

    def _is_other_version(self, response: Response, total: int | None) -> bool:
        return bool(self._stored or self._has_validator) and not is_same_version(self._known, response, total)

    def _changed(self) -> None:
        """Another version: begin again, once."""
        self._changes += 1
        if self._changes > 1:
            clause = "the file changes while it is being fetched: it is tried again later"
            raise TransferError(remote_failure("BG_E_REMOTE_FILE_CHANGED", self._url, clause, transient=True))
        self._drop("the remote file has changed")
        self.send()

    def _drop(self, why: str) -> None:
        self._reason = f"{why}: the ranges are fetched again from the beginning"
        self._known = Validator()
        self._layout = None
        self.uncount(self._stored)
        self._stored = self._stored_before = 0
        self._is_announced = False
        self.sink.reset()

    # --- parts -------------------------------------------------------------------------------

    def _on_part(self, total: int | None) -> None:
        if self._known.size is not None and total is not None and total != self._known.size:
            raise TransferError(invalid_answer(self._url, "its parts do not agree about the size of the file"))
        if not self._is_announced:
            self._announce(total)

    def _announce(self, total: int | None) -> None:
        response = self._response
        assert response is not None
        size = self._known.size if total is None else total
        if size is None and any(piece.length == TO_EOF for piece in self._ranges):
            clause = "it does not tell the size of the file, and a range reaches to its end"
            raise TransferError(remote_failure("BG_E_INSUFFICIENT_RANGE_SUPPORT", self._url, clause))
        layout = self._layout = self._lay_out(size)
        allowance = self.run.allowance
        if allowance is not None and layout.total - self._stored > allowance:
            raise TransferError(too_large(self.spec.remote_name, allowance))
        self._known = Validator(etag=response.etag, last_modified=response.last_modified, size=size)
        self._is_announced = True
        self.tell_started(
            FileStarted(
                transfer=self.run.settings.transfer,
                index=self.spec.index,
                bytes_total=layout.total,
                size=size,
                etag=response.etag,
                last_modified=response.last_modified,
                offset=self._stored,
                restarted=self._reason,
                resumable=self._has_validator,
                response_headers=response.header_text,
            ),
            response,
        )
        self._reason = ""
        self.sink.reserve(layout.total)

    def on_data(self, data: bytes) -> None:
        """See `engine.Handler`."""
        assert self._parts is not None, "other answers have no body that is taken"
        self._parts.feed(data)
        self.count(len(data), self._stored)

    def _store(self, position: int, data: bytes) -> None:
        assert self._layout is not None
        for start, local_offset, length in self._layout.places(position, len(data)):
            self.sink.write(local_offset, data[start : start + length])
            self._stored += length

    # --- the end -----------------------------------------------------------------------------

    def ended(self) -> None:
        """See `HttpFetch`."""
        coverage = self.sink.coverage
        if self._layout is not None:
            self._stored = coverage.total
            if self._stored == self._layout.total:
                self._complete()
                return
        if self._parts is not None and self._parts.is_cut:
            self.handle(
                Failure(
                    name="BG_E_CONNECTION_CLOSED",
                    context=ErrorContext.GENERAL_TRANSPORT,
                    message="the server sent less than it had said",
                    transient=True,
                    is_break=True,
                )
            )
            return
        if self._layout is None or self._stored <= self._stored_before:
            if self._most == 1:
                raise TransferError(invalid_answer(self._url, "it sent other ranges than it was asked for"))
            self._most = 1
        if self._stored and not self._has_validator:
            clause = "it sends the ranges one by one, and nothing that tells whether they are of one version"
            raise TransferError(remote_failure("BG_E_INSUFFICIENT_RANGE_SUPPORT", self._url, clause))
        self._stored_before = self._stored
        self.send()

    def _complete(self) -> None:
        assert self._layout is not None
        self.complete(self._layout.total, self._known.last_modified, self._checksum)

    def report_dropped(self, reason: str) -> None:
        """See `HttpFetch`."""
        self.run.on_started(
            FileStarted(
                transfer=self.run.settings.transfer,
                index=self.spec.index,
                bytes_total=self._layout.total if self._layout is not None else None,
                size=self._known.size,
                etag=None,
                last_modified=None,
                offset=0,
                restarted=reason,
            )
        )
