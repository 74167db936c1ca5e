"""One whole file over HTTP: which bytes are kept, where each answer's bytes go, when it is whole.

`core.resume` judges; this module does what it says.  A file whose version changes on the way begins
again once; if it changes again, the job waits (BG_E_REMOTE_FILE_CHANGED), and never are bytes of
two versions put together (D3).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from openbits.core.http import InvalidAnswer, Response, date_to_epoch_s, host_of
from openbits.core.model import Validator
from openbits.core.resume import Ask, Keep, Ruling, judge, plan, whole_by_head
from openbits.errors import ErrorContext
from openbits.frames.worker import FileSpec, FileStarted
from openbits.worker.answers import invalid_answer, remote_failure, too_large
from openbits.worker.asking import Body
from openbits.worker.challenges import ASKED_BY
from openbits.worker.checksum import Checksum
from openbits.worker.decoding import CodingError, Decoder, can_decode, describes_the_file
from openbits.worker.failure import Failure, TransferError, local_failure
from openbits.worker.fetch import HttpFetch
from openbits.worker.run import Lane, Run
from openbits.worker.sink import Sink
from openbits.worker.smallfile import MOST_BYTES, PATIENCE_S, write_small
from openbits.worker.splice import Splice

_SPLICE_FROM: Final = 4 * 1024 * 1024


class Download(HttpFetch):
    """A file without ranges."""

    def __init__(self, run: Run, lane: Lane, spec: FileSpec) -> None:
        super().__init__(run, lane, spec)
        # What another method than GET brings is made for this request: there is nothing to go on with (H10).
        self._is_dynamic = run.settings.dynamic_content or bool(self._method)
        self._known = Validator(etag=spec.etag, last_modified=spec.last_modified, size=spec.size)
        self._ask = Ask()
        self._last_modified = spec.last_modified
        self._position = 0
        self._expect: int | None = None
        self._changes = 0
        self._reason = ""
        self._checksum = Checksum(spec.checksum) if spec.checksum else None
        self._decoder: Decoder | None = None
        self._splice: Splice | None = None
        self._judge_instead: Callable[[Response], Body] | None = None
        self._small: list[bytes] | None = None
        """The content so far, as long as the file may be written in one go."""
        self._small_until = 0.0

    @property
    def sink(self) -> Sink:
        """See `HttpFetch`; what was to be written in one go goes there first."""
        sink = super().sink
        if self._small is not None:
            chunks, self._small = self._small, None
            offset = 0
            for chunk in chunks:
                sink.write(offset, chunk)
                offset += len(chunk)
        return sink

    def start(self) -> None:
        """Take up what an earlier run left, or begin."""
        try:
            if self.spec.durable_bytes and not self._take_up():
                self.uncount(self.spec.durable_bytes)
                self._reason = "the temporary file is not as it was left: the file is fetched again from the beginning"
            size = self._known.size
            if self._position and size == self._position:
                self._complete()
                return
            if self._position and size is not None:
                self.sink.reserve(size)
            self._ask_next()
        except TransferError as error:
            self.fail(error.failure)

    def _take_up(self) -> bool:
        durable, size = self.spec.durable_bytes, self._known.size
        ask = plan(have_bytes=durable, validator=self._known, dynamic_content=self._is_dynamic)
        if not ask.offset or (size is not None and durable > size) or not self.sink.continue_from(durable):
            return False
        self._position = self._furthest = durable
        return True

    # --- asking and judging ------------------------------------------------------------------

    def _ask_next(self, *, fresh: bool = False) -> None:
        self._plan()
        self.send(fresh=fresh)

    def _plan(self) -> None:
        self._ask = plan(
            have_bytes=self._position,
            validator=self._known,
            dynamic_content=self._is_dynamic,
            strict_http=self.run.settings.strict_http,
        )

    def ask(self) -> tuple[str, ...]:
        """See `HttpFetch`."""
        return () if self._method else self._ask.headers

    def before_retry(self) -> None:
        """See `HttpFetch`."""
        self._plan()

    def judge(self, response: Response) -> Body:
        """See `HttpFetch`."""
        if response.status not in (200, 206, 416) or (response.status == 416 and self._method):
            return self.refuse_status(response)
        try:
            ruling = judge(self._ask, self._known, response)
        except InvalidAnswer as error:
            raise TransferError(invalid_answer(self._url, str(error))) from None
        match ruling.keep:
            case Keep.APPEND:
                return self._accept(response, ruling)
            case Keep.REPLACE:
                if self._position:
                    self._drop(ruling)
                return self._accept(response, ruling)
            case Keep.ASK_AGAIN:
                return self.follow_up(lambda: self._begin_again(ruling))
            case Keep.CHECK_END:
                return self.follow_up(self._check_end)
            case Keep.INVALID:
                if response.status == 416:
                    return self.refuse_status(response)
                raise TransferError(invalid_answer(self._url, "it sent a part where the whole file was asked for"))

    def _drop(self, ruling: Ruling) -> None:
        self._reason = ruling.reason or (
            "the transfer was interrupted and the server gives nothing to continue by: "
            "the file is fetched again from the beginning"
        )
        if ruling.changed:
            self._changes += 1
            if self._changes > 1:
                raise TransferError(
                    remote_failure(
                        "BG_E_REMOTE_FILE_CHANGED",
                        self._url,
                        "the file changes while it is being fetched: it is tried again later",
                        transient=True,
                    )
                )
        self.sink.reset()
        if self._checksum is not None:
            self._checksum.reset()
        self.uncount(self._position)
        self._position = 0
        self._known = Validator()

    def _begin_again(self, ruling: Ruling) -> None:
        if self._position:
            self._drop(ruling)
        self._ask = Ask()
        self.send()

    def _check_end(self) -> None:
        """416: the server has nothing behind our bytes.  HEAD tells whether they are the whole file."""

        def judge_head(response: Response) -> Body:
            if whole_by_head(self._position, self._known, response):
                return self.follow_up(self._complete)
            reason = "the server has no bytes behind those that were kept: the file is fetched again from the beginning"
            ruling = Ruling(keep=Keep.ASK_AGAIN, reason=reason, changed=True)
            return self.follow_up(lambda: self._begin_again(ruling))

        self._judge_instead = judge_head
        self._ask = Ask()
        self.send(head=True)

    def on_response(self, response: Response) -> Body:
        """See `engine.Handler`."""
        assert self._request is not None
        if self._request.head and not response.is_redirect and response.status not in ASKED_BY:
            assert self._judge_instead is not None
            self._response = response
            return self._judge_instead(response)
        return super().on_response(response)

    # --- an answer that brings the file ------------------------------------------------------

    def _accept(self, response: Response, ruling: Ruling) -> Body:
        codings = response.content_codings
        is_coded = bool(codings) and not describes_the_file(self._url, codings)
        if is_coded and not can_decode(codings):
            clause = f"it sent the file in the coding {codings[0][:40]!r}, which was not asked for"
            raise TransferError(invalid_answer(self._url, clause))
        self._decoder = Decoder(codings[0]) if is_coded else None
        size = None if is_coded else ruling.size
        if self.run.settings.strict_http and not self._is_dynamic:
            self._check_strict(size, response, ruling)
        self._expect = None if is_coded else ruling.expect
        allowance = self.run.allowance
        if allowance is not None and self._expect is not None and self._expect > allowance:
            raise TransferError(too_large(self.spec.remote_name, allowance))
        self._last_modified = response.last_modified or self._last_modified
        if ruling.keep is Keep.REPLACE:
            self._last_modified = response.last_modified
            keeps_validator = not is_coded and not self._is_dynamic
            self._known = Validator(
                etag=response.etag if keeps_validator else None,
                last_modified=response.last_modified if keeps_validator else None,
                size=size,
            )
        else:
            self._known = replace(self._known, size=size)
        self._report(response, ruling)
        if self._is_small(response):
            self._small = []
            self._small_until = self._loop.now + PATIENCE_S
        elif size is not None:
            self.sink.reserve(size)
        return Body.TAKE_SOCKET if self._can_splice(response) else Body.TAKE

    def _is_small(self, response: Response) -> bool:
        return (
            self._sink is None
            and not self.run.settings.takes_handles
            and response.status == 200
            and self._expect is not None  # then it is Content-Length, and libcurl delivers no byte more
            and self._expect <= MOST_BYTES
            and self._checksum is None
        )

    def _check_strict(self, size: int | None, response: Response, ruling: Ruling) -> None:
        if size is None:
            clause = "it does not tell the size of the file, and the job demands strict HTTP"
            raise TransferError(remote_failure("BG_E_MISSING_FILE_SIZE", self._url, clause))
        if ruling.no_ranges or response.refuses_ranges:
            clause = "it does not serve byte ranges, and the job demands strict HTTP"
            raise TransferError(remote_failure("BG_E_INSUFFICIENT_RANGE_SUPPORT", self._url, clause))

    def _report(self, response: Response, ruling: Ruling) -> None:
        known = self._known
        has_validator = bool(known.etag or known.last_modified)
        serves_ranges = response.status == 206 or (response.offers_ranges and not ruling.no_ranges)
        self.tell_started(
            FileStarted(
                transfer=self.run.settings.transfer,
                index=self.spec.index,
                bytes_total=known.size,
                size=known.size,
                etag=known.etag,
                last_modified=known.last_modified,
                offset=self._position,
                restarted=self._reason,
                resumable=has_validator and serves_ranges and not self._is_dynamic,
                response_headers=response.header_text,
            ),
            response,
        )
        self._reason = ""

    def _can_splice(self, response: Response) -> bool:
        return (
            self._expect is not None
            and self._expect >= _SPLICE_FROM
            # The kernel would bring more at once than there is to be.
            and not self.run.pace.is_on
            and self._checksum is None
            and response.version in ("1.1", "1.0")
            and response.content_length == self._expect
            and self._url.startswith("http:")
            # What comes from a proxy that is spoken to by TLS must be decrypted, which the kernel does not do.
            and (self._request is None or self._request.proxy is None or self._request.proxy.protocol == "http")
        )

    # --- bytes -------------------------------------------------------------------------------

    def on_data(self, data: bytes) -> None:
        """See `engine.Handler`."""
        if self._small is not None and self._loop.now < self._small_until:
            assert self._expect is not None
            self._small.append(data)
            self._position += len(data)
            self._expect -= len(data)
        elif self._decoder is None:
            self._store(data)
        else:
            before = self._position
            try:
                for piece in self._decoder.feed(data):
                    self._store(piece)
            except CodingError as error:
                raise TransferError(self._bad_coding(error)) from None
            self.count(len(data), self._position, stored=self._position - before)
            return
        self.count(len(data), self._position)

    def _store(self, data: bytes) -> None:
        sink = self.sink
        if self._expect is not None:
            self._expect -= len(data)
            if self._expect < 0:
                raise TransferError(invalid_answer(self._url, "it sent more bytes than it had said"))
        if self._checksum is not None:
            self._checksum.feed(self._position, data)
        sink.write(self._position, data)
        self._position += len(data)

    def _bad_coding(self, error: CodingError) -> Failure:
        return Failure(
            name="BG_E_INVALID_SERVER_RESPONSE",
            context=ErrorContext.REMOTE_FILE,
            message=f"{host_of(self._url)}: the compressed file that it sent is damaged: {error}",
            transient=True,
        )

    def on_socket(self, fd: int) -> None:
        """See `engine.Handler`: from here the kernel moves the bytes."""
        assert self._expect is not None
        try:
            self.sink.flush()
        except TransferError as error:
            os.close(fd)
            self.fail(error.failure)
            return
        self._splice = Splice(
            self._loop,
            self.run.tools.pipe,
            sock=fd,
            file=self.sink.fd,
            offset=self._position,
            length=self._expect,
            pace=self.run.pace,
            on_progress=self._on_spliced,
            on_end=self._on_splice_end,
        )

    def set_width(self, window_bytes: int) -> None:
        """There is another limit, or none any more: what was taken from libcurl gets other room, too."""
        if self._splice is not None:
            self._splice.set_width(window_bytes)

    def _on_spliced(self, position: int) -> None:
        assert self._expect is not None
        count = position - self._position
        self.sink.note_written(self._position, position)
        self._position = position
        self._expect -= count
        try:
            self.count(count, position)
        except TransferError as error:
            self.fail(error.failure)

    def _on_splice_end(self, error: OSError | EOFError | None) -> None:
        self._splice = None
        self._lane.client.abort()
        if error is None:
            self.on_end(None)
        elif isinstance(error, EOFError):
            self.on_end(self._cut("BG_E_CONNECTION_CLOSED", "closed the connection before everything was sent"))
        elif error.filename is None:
            self.on_end(self._cut("ERROR_WINHTTP_CONNECTION_ERROR", f"broke the connection: {error.strerror}"))
        else:
            self._on_disk_failed(error)

    def _cut(self, name: str, clause: str) -> Failure:
        return Failure(
            name=name,
            context=ErrorContext.GENERAL_TRANSPORT,
            message=f"{host_of(self._url)} {clause}",
            transient=True,
            is_break=True,
        )

    def leave_network(self) -> None:
        """See `HttpFetch`."""
        if self._splice is not None:
            self._splice.close()
            self._splice = None
        super().leave_network()

    # --- the end -----------------------------------------------------------------------------

    def ended(self) -> None:
        """See `HttpFetch`."""
        if self._decoder is not None:
            before = self._position
            try:
                for piece in self._decoder.finish():
                    self._store(piece)
            except CodingError as error:
                raise TransferError(self._bad_coding(error)) from None
            self.count(0, self._position, stored=self._position - before)
        size = self._known.size
        if self._expect or (size is not None and self._position < size):
            if not self._attempt_bytes or self._expect:
                self.handle(self._cut("BG_E_CONNECTION_CLOSED", "sent less than it had said"))
            else:
                self._ask_next()  # a part that was whole, and shorter than what was asked for
            return
        self._complete()

    def _complete(self) -> None:
        if self._small is not None:
            self._complete_small(self._small)
            return
        self.complete(self._position, self._last_modified, self._checksum)

    def _complete_small(self, chunks: list[bytes]) -> None:
        self._small = None
        self.hand_on_network()
        run = self.run
        try:
            fd, directory = write_small(
                run.directories,
                self.spec.temporary_name,
                chunks,
                umask=run.settings.umask,
                modified_epoch_s=date_to_epoch_s(self._last_modified),
            )
        except OSError as error:
            self.fail(local_failure(error, self.spec.temporary_name))
            return
        run.tools.syncer.finish(fd, directory, self._on_small_synced, is_known_here=False)

    def _on_small_synced(self, error: OSError | None) -> None:
        if error is None:
            self.on_done(self._position)
        else:
            self.fail(local_failure(error, self.spec.temporary_name))

    def report_dropped(self, reason: str) -> None:
        """See `HttpFetch`."""
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
            )
        )
