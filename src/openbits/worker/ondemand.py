"""A file over HTTP of which pieces are asked for, each put in its own place in the file (J67, F11, F12).

The rules:

- A request asks for what is wanted and missing, in the order of the wish, and for no more than takes about a second:
  so a new wish is heard soon, and the connection stays as it is.
- Only what was asked for is written; whatever else a server sends is dropped.
- All pieces are of one version, or none is kept: the server must tell versions apart, as the size of the file.
- What is gone is written down before anything takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from openbits.core.http import Response, host_of
from openbits.core.model import TO_EOF, ByteRange, Validator
from openbits.core.pieces import count_bytes, end_of, from_position, merged, name_of, outside, within, without
from openbits.core.ranges import Layout, Segment, range_header
from openbits.core.resume import is_same_version
from openbits.errors import ErrorContext
from openbits.frames.worker import FileSpec, FileStarted, RangeSpec
from openbits.worker.answers import invalid_answer, remote_failure
from openbits.worker.asking import Body
from openbits.worker.checksum import Checksum
from openbits.worker.failure import Failure, TransferError, local_failure
from openbits.worker.fetch import HttpFetch, Phase
from openbits.worker.parts import Parts
from openbits.worker.piecesink import PieceSink
from openbits.worker.run import Lane, Run

_AT_ONCE: Final = 64
_FIRST_BYTES: Final = 1024 * 1024
_LEAST_BYTES: Final = 256 * 1024
_MOST_BYTES: Final = 64 * 1024 * 1024
_SOON_S: Final = 0.5
_LATE_S: Final = 2.0
NOT_SUPPORTED: Final = "BG_E_RANDOM_ACCESS_NOT_SUPPORTED"


class OnDemand(HttpFetch):
    """A file of a job in on-demand mode; it rests when everything that is wanted is here."""

    def __init__(self, run: Run, lane: Lane, spec: FileSpec) -> None:
        super().__init__(run, lane, spec)
        self._wanted = ranges_of(spec.wanted)
        self._position = spec.position
        self._known = Validator(etag=spec.etag, last_modified=spec.last_modified, size=spec.size)
        self._checksum = Checksum(spec.checksum) if spec.checksum else None
        self._asked: tuple[Segment, ...] = ()
        self._layout = Layout(())
        self._most = _AT_ONCE
        self._piece_bytes = _FIRST_BYTES
        self._asked_at = 0.0
        self._parts: Parts | None = None
        self._stored = self._stored_before = 0
        self._changes = 0
        self._reason = ""
        self._is_announced = False
        self.was_dropped = False
        """Whether the file has to begin anew, in another run: that it does must be written down first."""

    # --- what is wanted ----------------------------------------------------------------------

    @property
    def sink(self) -> PieceSink:
        """The temporary file, with holes in it."""
        if self._sink is None:
            run, index = self.run, self.spec.index
            self._sink = PieceSink(
                self._loop,
                run.tools.syncer,
                run.place(self.spec),
                run.sink_settings,
                lambda ranges: run.on_filled(index, ranges),
                self._on_disk_failed,
            )
        assert isinstance(self._sink, PieceSink)
        return self._sink

    def want(self, wanted: Sequence[RangeSpec], position: int | None) -> None:
        """This is wanted from now on, as far as it is not here. The request that is under way goes on."""
        self._wanted, self._position = ranges_of(wanted), position
        if self._is_announced and self._phase in (Phase.NETWORK, Phase.PAUSING):
            try:
                self._cut_to_size()
            except TransferError as error:
                self.fail(error.failure)

    def as_left(self) -> FileSpec:
        """The file as another fetch can take it up: with what is durable, and what is still wanted."""
        filled = self.sink.filled if self._sink is not None else ranges_of(self.spec.filled)
        return replace(
            self.spec,
            wanted=range_specs(without(self._wanted, filled)),
            filled=range_specs(filled),
            position=self._position,
            durable_bytes=end_of(filled),
            size=self._known.size,
            etag=self._known.etag,
            last_modified=self._known.last_modified,
        )

    @property
    def _missing(self) -> tuple[ByteRange, ...]:
        return without(self._wanted, self.sink.written)

    @property
    def _has_version(self) -> bool:
        return bool(self._known.etag or self._known.last_modified)

    # --- the course of things ----------------------------------------------------------------

    def start(self) -> None:
        """Take up what is here already, then get what is missing."""
        try:
            filled = ranges_of(self.spec.filled)
            if filled and not self._take_up(filled):
                self._wanted = merged((*self._wanted, *filled))
                self.was_dropped = True
                self._tell_dropped("the temporary file is not as it was left: what was requested is fetched again")
                # The next run begins when that is written down: until then the new pieces could be taken for the old.
                self._loop.post(self._rest)
                return
            self._go_on()
        except TransferError as error:
            self.fail(error.failure)

    def _take_up(self, filled: tuple[ByteRange, ...]) -> bool:
        if self._known.size is None or not self._has_version or not self.sink.continue_with(filled):
            return False
        self._stored = self._furthest = count_bytes(filled)
        return True

    def _go_on(self) -> None:
        if self._known.size is not None and self._stored == self._known.size:
            self.complete(self._known.size, self._known.last_modified, self._checksum)
        elif self._missing:
            self.send()
        else:
            self._rest()

    def _rest(self) -> None:
        """Everything that was wanted is here: make it durable, and leave the connection to others."""
        if self._phase is Phase.CLOSED:
            return
        self.hand_on_network()
        self._phase = Phase.CLOSED
        self._close_sink(self._rested)

    def _rested(self, error: OSError | None) -> None:
        if error is not None:
            self.run.on_failed(self, local_failure(error, self.spec.temporary_name))
        self.run.on_closed(self)

    def handle(self, failure: Failure) -> None:
        """See `HttpFetch`; what breaks when everything is here does not matter."""
        if failure.is_break and self._is_announced and not self._missing:
            self._go_on()
        else:
            super().handle(failure)

    # --- asking and judging ------------------------------------------------------------------

    def ask(self) -> tuple[str, ...]:
        """See `HttpFetch`."""
        left = self._piece_bytes
        picked: list[Segment] = []
        for piece in from_position(self._missing, self._position):
            length = left if piece.length == TO_EOF else min(left, piece.length)
            picked.append(Segment(piece.offset, length, piece.offset))
            left -= length
            if not left or len(picked) == self._most:
                break
        value, count = range_header(picked, most=self._most)
        self._asked = tuple(picked[:count])
        self._layout = Layout(self._asked)
        self._asked_at = self._loop.now
        self._stored_before = self._stored
        if_range = self._known.etag or self._known.last_modified
        return (f"Range: {value}", f"If-Range: {if_range}") if if_range else (f"Range: {value}",)

    def judge(self, response: Response) -> Body:
        """See `HttpFetch`."""
        match response.status:
            case 206:
                return self._judge_parts(response)
            case 200:
                return self._judge_whole(response)
            case 416:
                return self._judge_nothing(response)
            case _:
                return self.refuse_status(response)

    def _judge_parts(self, response: Response) -> Body:
        parts = self._parts = Parts(response, self._url, on_part=self._on_part, on_bytes=self._store)
        if self._is_other_version(response, parts.total):
            return self.follow_up(self._changed)
        parts.begin()
        return Body.TAKE

    def _judge_whole(self, response: Response) -> Body:
        if self._is_other_version(response, response.content_length):
            return self.follow_up(self._changed)
        if response.content_length == 0:
            self._announce(0)
            return self.follow_up(self._go_on)
        if len(self._asked) > 1:
            # Some servers know ranges and ignore a request for several.
            self._most = 1
            return self.follow_up(self.send)
        raise self._not_supported("it does not give parts of the file")

    def _judge_nothing(self, response: Response) -> Body:
        if self._has_version:
            return self.follow_up(self._changed)
        part = response.content_range
        if part is not None and part.total is not None:
            # Fails for what lies outside; of an empty file all can be had.
            self._announce(part.total)
            if part.total == 0:
                return self.follow_up(self._go_on)
        clause = "a range that was requested is outside of the file"
        raise TransferError(remote_failure("BG_E_INVALID_RANGE", self._url, clause))

    def _is_other_version(self, response: Response, total: int | None) -> bool:
        return self._has_version and not is_same_version(self._known, response, total)

    def _not_supported(self, clause: str) -> TransferError:
        self._tell(self._response, resumable=False)
        advice = "fetch the whole file, with a job that is not in on-demand mode"
        return TransferError(remote_failure(NOT_SUPPORTED, self._url, f"{clause}: {advice}"))

    # --- versions ----------------------------------------------------------------------------

    def _changed(self) -> None:
        """Another version: what was requested of the old one is wanted of the new one. Once."""
        self._changes += 1
        if self._changes > 1:
            clause = "the file changes while it is being fetched: it is tried again later"
            raise TransferError(remote_failure("BG_E_REMOTE_FILE_CHANGED", self._url, clause, transient=True))
        written = self.sink.written
        if written:
            self._reason = "the remote file has changed: what was requested is fetched again"
        self._wanted = merged((*self._wanted, *written))
        self._known = Validator()
        self.uncount(self._stored)
        self._stored = self._furthest = 0
        self._is_announced = False
        self.sink.reset()
        self.send()

    def _announce(self, total: int | None) -> None:
        """The first answer for this version."""
        response = self._response
        assert response is not None
        if total is None:
            raise self._not_supported("it does not tell the size of the file")
        if total and response.status == 206 and not (response.etag or response.last_modified):
            raise self._not_supported("it gives nothing by which versions of the file could be told apart")
        if self._reason:
            # What was wanted before the file changed, and is not in it any more, was not asked of this version.
            self._wanted = within(self._wanted, total)
        self._known = Validator(etag=response.etag, last_modified=response.last_modified, size=total)
        self._is_announced = True
        self._tell(response, resumable=True)
        self._reason = ""
        self._cut_to_size()

    def _tell(self, response: Response | None, *, resumable: bool) -> None:
        assert response is not None
        message = FileStarted(
            transfer=self.run.settings.transfer,
            index=self.spec.index,
            bytes_total=self._known.size,
            size=self._known.size,
            etag=self._known.etag,
            last_modified=self._known.last_modified,
            offset=self._stored,
            restarted=self._reason,
            resumable=resumable,
            response_headers=response.header_text,
        )
        self.tell_started(message, response)

    def _tell_dropped(self, reason: str) -> None:
        self.run.on_started(
            FileStarted(
                transfer=self.run.settings.transfer,
                index=self.spec.index,
                bytes_total=self._known.size,
                size=self._known.size,
                etag=None,
                last_modified=None,
                offset=0,
                restarted=reason,
                resumable=True,
            )
        )

    def _cut_to_size(self) -> None:
        """What is wanted behind the end of the file is an error, and is not wanted any more (F12)."""
        size = self._known.size
        assert size is not None
        beyond = outside(self._wanted, size)
        self._wanted = within(self._wanted, size)
        if beyond is not None:
            raise TransferError(
                Failure(
                    name="BG_E_INVALID_RANGE",
                    context=ErrorContext.REMOTE_FILE,
                    message=f"{host_of(self.spec.remote_name)}: the range {name_of(beyond)} was requested of a file of "
                    f"{size} bytes: Resume fetches what lies in it",
                    transient=False,
                )
            )

    # --- parts -------------------------------------------------------------------------------

    def _on_part(self, total: int | None) -> None:
        if self._known.size is not None and total is not None and total != self._known.size:
            raise TransferError(invalid_answer(self._url, "its parts do not agree about the size of the file"))
        if not self._is_announced:
            self._announce(self._known.size if total is None else total)

    def on_data(self, data: bytes) -> None:
        """See `engine.Handler`."""
        assert self._parts is not None, "other answers have no body that is taken"
        self._parts.feed(data)
        self.count(len(data), self._stored)

    def _store(self, position: int, data: bytes) -> None:
        for start, offset, length in self._layout.places(position, len(data)):
            self.sink.write(offset, data[start : start + length])
            self._stored += length

    # --- the end -----------------------------------------------------------------------------

    def ended(self) -> None:
        """See `HttpFetch`."""
        self._stored = self.sink.coverage.total
        if self._parts is not None and self._parts.is_cut:
            self.handle(
                Failure(
                    name="BG_E_CONNECTION_CLOSED",
                    context=ErrorContext.GENERAL_TRANSPORT,
                    message=f"{host_of(self._url)} sent less than it had said",
                    transient=True,
                    is_break=True,
                )
            )
            return
        if self._stored <= self._stored_before:
            if self._most == 1:
                raise TransferError(invalid_answer(self._url, "it sent other ranges than it was asked for"))
            self._most = 1
        self._fit_pieces()
        self.sink.checkpoint()
        self._go_on()

    def _fit_pieces(self) -> None:
        took_s = self._loop.now - self._asked_at
        if took_s > _LATE_S:
            self._piece_bytes = max(_LEAST_BYTES, self._piece_bytes // 2)
        elif took_s < _SOON_S and self._stored - self._stored_before >= self._piece_bytes:
            self._piece_bytes = min(_MOST_BYTES, 2 * self._piece_bytes)

    def report_dropped(self, reason: str) -> None:
        """See `HttpFetch`."""
        self._wanted = merged((*self._wanted, *((ByteRange(0, self._stored),) if self._stored else ())))
        self._tell_dropped(reason)


def ranges_of(specs: Sequence[RangeSpec]) -> tuple[ByteRange, ...]:
    """Ranges out of a frame."""
    return merged(ByteRange(piece.offset, piece.length) for piece in specs)


def range_specs(ranges: Sequence[ByteRange]) -> tuple[RangeSpec, ...]:
    """Ranges for a frame."""
    return tuple(RangeSpec(offset=piece.offset, length=piece.length) for piece in ranges)
