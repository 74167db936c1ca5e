"""One run of one job: which file is on the way, what the service hears of it, and how it ends.

Files are begun in the order in which they came (Q2); `file_concurrency` of them may be on the way
at once.  The first failure ends the run: the other files are stopped, what they have is made
durable, and only then comes TransferEnded, when nothing of the run is open any more.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from openbits.core.model import REPLY_INDEX, ByteRange
from openbits.frames.worker import (
    DoneFile,
    Evaluator,
    EvaluatorWanted,
    FileDurable,
    FileHandle,
    FileRedirected,
    FilesDone,
    FileSpec,
    FileStarted,
    LastHeaders,
    ProxyChosen,
    SetPace,
    StartTransfer,
    TakeCredential,
    TransferBroken,
    TransferEnded,
    UploadFile,
    UploadMoved,
    WantRanges,
)
from openbits.worker.asking import Request
from openbits.worker.challenges import Challenges
from openbits.worker.client import Client
from openbits.worker.departure import Departures
from openbits.worker.download import Download
from openbits.worker.engine import Engine
from openbits.worker.failure import Failure
from openbits.worker.filecopy import FileCopy
from openbits.worker.files import Directories
from openbits.worker.fileupload import FileUpload
from openbits.worker.handles import MOST_OPEN, Handle, Handles
from openbits.worker.headers import download_lines
from openbits.worker.ondemand import OnDemand
from openbits.worker.pac import Means
from openbits.worker.pace import LEAST_WINDOW_BYTES, Pace
from openbits.worker.pieces import Pieces
from openbits.worker.places import OwnPlace, Place
from openbits.worker.proving import Prover
from openbits.worker.proxies import Plan, Proxies, make_plan, needs_reading
from openbits.worker.rangedownload import RangeDownload
from openbits.worker.reports import Reports
from openbits.worker.run import Fetch, Lane, Tools
from openbits.worker.sink import SinkSettings
from openbits.worker.source import Source
from openbits.worker.trust import trust_of
from openbits.worker.upload import Upload

_DONE_PER_FRAME: Final = 1_000


class Transfer:
    """See `run.Run` for what the files tell it."""

    def __init__(
        self,
        settings: StartTransfer,
        *,
        tools: Tools,
        engine: Engine,
        send: Callable[[object], None],
        is_congested: Callable[[], bool],
        on_unexpected: Callable[[Exception], None],
        on_ended: Callable[[int], None],
    ) -> None:
        self.settings = settings
        self.tools = tools
        self.sink_settings = SinkSettings(
            umask=settings.umask,
            checkpoint_bytes=settings.checkpoint_bytes,
            checkpoint_s=settings.checkpoint_s,
            takes_checkpoints=not settings.high_performance,
        )
        self.directories = Directories()
        self.header_lines = download_lines(settings.custom_headers)
        self.challenges = Challenges(
            settings.implicit, Prover(tools.tickets, tools.reader), self.header_lines, uses_netrc=settings.uses_netrc
        )
        self.has_progressed = False
        self.meant_for = ""
        self.allowance = settings.max_download_bytes
        self._engine = engine
        self._engines_left: list[Engine] = []
        """Those of its own that it makes no new connections with."""
        self._send = send
        self.pace = Pace(tools.loop, settings.transfer, send)
        if settings.is_paced:
            self.pace.set(is_on=True, window_bytes=self._window(settings.window_bytes))
        self.trust = trust_of(
            settings,
            tools,
            ca_file=engine.ca_file,
            make_client=self._make_client,
            door=lambda: self.departures,
            proxies=lambda: self.proxies,
            ask=send,
        )
        self.departures = Departures(
            lambda: self.proxies, self.challenges, None if self.trust.is_ordinary else self.trust
        )
        self._is_apart = False
        """Whether no other transfer uses the engine."""
        self._reports = Reports(tools.loop, settings.transfer, send, is_congested)
        self._on_unexpected = on_unexpected
        self._on_ended = on_ended
        self._queue: deque[FileSpec] = deque()
        self._has_all = False
        self._upload: Upload | FileUpload | None = None
        self._upload_lane: Lane | None = None
        self._lanes: dict[Fetch, Lane | None] = {}
        """Files that are on the way, with the lane that each uses."""
        self._idle_lanes: list[Lane] = []
        self._open: set[Fetch] = set()
        """Files that are on the way or being finished."""
        self._pieces = Pieces()
        self._handles = Handles(settings.transfer, send) if settings.takes_handles else None
        self._taken: dict[int, Handle] = {}
        """Handles of files that have been begun, by index."""
        self._failure: tuple[Failure, int] | None = None
        self._is_stopping = False
        self._is_ending = False
        self._is_advancing = False
        self._done: list[DoneFile] = []
        means = Means(loop=tools.loop, scripts=tools.scripts, want_evaluator=self._want_evaluator)
        plan = None if needs_reading(settings.proxy) else make_plan(settings.proxy)
        self.proxies = Proxies(plan, self._on_proxy_chosen, means, dhcp_url=settings.proxy.dhcp_url)
        if plan is None:
            tools.reader.submit(lambda: make_plan(settings.proxy), self._on_proxies_read)

    def _on_proxies_read(self, plan: Plan | OSError) -> None:
        assert isinstance(plan, Plan), "make_plan says itself what went wrong"
        self.proxies.planned(plan)

    def _want_evaluator(self) -> None:
        self._send(EvaluatorWanted(transfer=self.settings.transfer))

    def receive_evaluator(self, message: Evaluator, fd: int | None) -> None:
        """An evaluator of the PAC script, or why there is none; the descriptor is ours from now on."""
        self.proxies.evaluator_came(fd, message.message)

    def _on_proxy_chosen(self, way: str) -> None:
        self._send(ProxyChosen(transfer=self.settings.transfer, way=way))

    def __repr__(self) -> str:
        return f"<Transfer {self.settings.transfer} waiting={len(self._queue)} open={len(self._open)}>"

    # --- from the service --------------------------------------------------------------------

    def take_credential(self, message: TakeCredential) -> None:
        """A user name and a password of the job's, before any of its files."""
        self.challenges.explicit.take(message)
        self._keep_apart()

    def set_pace(self, message: SetPace) -> None:
        """Another limit, or none any more, from now on."""
        window_bytes = self._window(message.window_bytes) if message.is_paced else 0
        for lane in (*self._lanes.values(), self._upload_lane):
            if lane is not None:
                # First the width: what waits may go on at once.
                lane.client.set_width(window_bytes)
        for fetch in self._lanes:
            if isinstance(fetch, Download):
                fetch.set_width(window_bytes)
        if message.is_paced is not self.pace.is_on:
            self._renew_engine()
        self.pace.set(is_on=message.is_paced, window_bytes=window_bytes)

    def _window(self, window_bytes: int) -> int:
        """The part of one connection."""
        if not window_bytes:
            return 0
        return max(LEAST_WINDOW_BYTES, window_bytes // max(1, self.settings.file_concurrency))

    def _renew_engine(self) -> None:
        """Make no new connections with those that others use, nor with those that were made for another limit."""
        if self._is_apart:
            self._engines_left.append(self._engine)
        self._is_apart = True
        self._engine = self._engine.another()
        while self._idle_lanes:
            self._idle_lanes.pop().close()

    def _keep_apart(self) -> None:
        """What this transfer can prove is its own, and so are its connections from now on.

        Servers and proxies may remember of a connection whose it is.
        """
        if not self._is_apart:
            self._renew_engine()

    def add(self, files: tuple[FileSpec, ...], *, last: bool) -> None:
        """More files."""
        if not self._is_apart and any(spec.userinfo for spec in files):
            self._keep_apart()
        self._queue.extend(files)
        self._has_all = self._has_all or last
        self._advance()

    def want(self, order: WantRanges) -> None:
        """Other pieces of a file are wanted, or in another order."""
        if not self._is_stopping and self._failure is None and self._pieces.want(order, self._queue):
            self._advance()

    def upload(self, order: UploadFile) -> None:
        """The file that is sent, instead of files that are fetched; its reply may follow as one."""
        self._has_all = True
        if order.file.userinfo:
            self._keep_apart()
        if order.file.remote_name[:5].lower() == "file:":
            self._upload = FileUpload(self, order)
        else:
            self._upload_lane = self._make_lane()
            self._upload = Upload(self, self._upload_lane, order)
        self._open.add(self._upload)
        self._upload.start()

    def kept(self, number: int) -> None:
        """What an UploadMoved said is on the disk."""
        if self._upload is not None:
            self._upload.kept(number)

    def receive_handle(self, message: FileHandle, fd: int | None) -> None:
        """A temporary file that was asked for, or why there is none; the descriptor is ours from now on."""
        if self._handles is not None:
            self._handles.receive(message, fd)
            if self._upload is not None:
                self._take_source(self._handles, self._upload)
            self._advance()
        elif fd is not None:
            os.close(fd)

    def stop(self) -> None:
        """End the run; what was received is kept."""
        if self._is_stopping:
            return
        self._is_stopping = True
        if self._handles is not None:
            self._handles.close()
        self._queue.clear()
        for fetch in list(self._open):
            fetch.stop()
        self.tools.syncer.flush()
        self._end_if_over()

    # --- files on their way ------------------------------------------------------------------

    def _advance(self) -> None:
        if self._is_advancing:
            return  # a file that ended inside its `start`: the loop that started it goes on
        self._is_advancing = True
        most = max(1, self.settings.file_concurrency)
        while self._queue and not self._is_stopping and self._failure is None and len(self._lanes) < most:
            if self._handles is not None and not self._take_handle(self._handles, self._queue[0]):
                break
            spec = self._queue.popleft()
            lane: Lane | None = None
            fetch: Fetch
            if spec.remote_name[:5].lower() == "file:":
                fetch = FileCopy(self, spec)
            else:
                lane = self._idle_lanes.pop() if self._idle_lanes else self._make_lane()
                fetch = self._make_fetch(lane, spec)
            self._lanes[fetch] = lane
            self._open.add(fetch)
            fetch.start()
        self._is_advancing = False
        if self._has_all and not self._queue and not self._lanes:
            # Once the last file has been handed over too, which its caller is about to do.
            self.tools.loop.post(self.tools.syncer.flush)
        self._end_if_over()

    def _make_fetch(self, lane: Lane, spec: FileSpec) -> Fetch:
        if spec.on_demand:
            return self._pieces.begin(OnDemand(self, lane, spec))
        return RangeDownload(self, lane, spec) if spec.ranges else Download(self, lane, spec)

    def _take_handle(self, handles: Handles, spec: FileSpec) -> bool:
        """Whether the file can be begun; if not, its handle's coming or another file's end will let us try again."""
        handles.ask_ahead(self._queue)
        handle = handles.take(spec.index) if len(self._open) < MOST_OPEN else None
        if isinstance(handle, Failure):
            self._fail(handle, spec.index)
        elif handle is not None:
            self._taken[spec.index] = handle
        return spec.index in self._taken

    # --- an upload ---------------------------------------------------------------------------

    def open_source(self, upload: Upload | FileUpload) -> None:
        """See `upload.Run`."""
        if self._handles is not None:
            self._handles.ask_source(upload.spec)
            return
        source = Source(self.tools.loop, upload.spec.local_name)
        source.open(lambda failure: upload.source_opened(failure or source))

    def _take_source(self, handles: Handles, upload: Upload | FileUpload) -> None:
        handle = handles.take(upload.spec.index)
        if isinstance(handle, Handle):
            source = Source(self.tools.loop, upload.spec.local_name)
            source.take(handle.take_fd(), lambda failure: upload.source_opened(failure or source))
        elif handle is not None:
            upload.source_opened(handle)

    def fetch_reply(self, spec: FileSpec, meant_for: str) -> None:
        """See `upload.Run`: it is fetched as any file is."""
        self.meant_for = meant_for
        # The reply comes from whom the file went to, and is asked for in the same name.
        userinfo = self._upload.spec.userinfo if self._upload is not None else ""
        self._queue.append(replace(spec, userinfo=userinfo))
        self._advance()

    def fail_reply(self, failure: Failure) -> None:
        """See `upload.Run`."""
        self._fail(failure, REPLY_INDEX)

    def send_started(self, message: FileStarted) -> None:
        """See `upload.Run`."""
        self._send(message)

    def send_moved(self, message: UploadMoved) -> None:
        """See `upload.Run`."""
        self._send(message)

    # --- places ------------------------------------------------------------------------------

    def place(self, spec: FileSpec) -> Place:
        """See `run.Run`."""
        return OwnPlace(self.directories, spec.temporary_name) if self._handles is None else self._taken[spec.index]

    def _release_handle(self, index: int) -> None:
        """The file is done with: of its handle, what was not used is given back."""
        handle = self._taken.pop(index, None)
        if handle is not None:
            handle.release()
            self._advance()

    def _make_client(self) -> Client:
        return Client(
            self._engine, connect_timeout_s=self.settings.connect_timeout_s, on_unexpected=self._on_unexpected
        )

    def _make_lane(self) -> Lane:
        client = Client(
            self._engine,
            connect_timeout_s=self.settings.connect_timeout_s,
            on_unexpected=self._on_unexpected,
            pace=self.pace,
        )
        return Lane(client, self.tools.loop, self.settings.stall_timeout_s)

    def _release_lane(self, fetch: Fetch) -> None:
        lane = self._lanes.pop(fetch, None)
        if lane is None:
            return
        if lane.client.belongs_to(self._engine):
            self._idle_lanes.append(lane)
        else:
            lane.close()

    def _end_if_over(self) -> None:
        is_over = self._is_stopping or (self._has_all and not self._queue)
        if not is_over or self._open or self._is_ending:
            return
        self._is_ending = self._is_stopping = True
        # Later, because a file that ends inside `start` still stands on the stack above us.
        self.tools.loop.post(self._end)

    def _end(self) -> None:
        if self._failure is not None and self._failure[0].refused_url and self.settings.tls.certificate is None:
            failure, index = self._failure
            request = Request(url=failure.refused_url)
            # Once: what comes back names no address.
            self.trust.explain(request, replace(failure, refused_url=""), lambda why: self._explained(why, index))
            return
        self._reports.close()
        if self._handles is not None:
            self._handles.close()
        self._send_done()
        for lane in self._idle_lanes:
            lane.close()
        if self._upload_lane is not None:
            self._upload_lane.close()
        self.trust.close()
        self.challenges.close()
        if self._is_apart:
            self._engine.close_soon()
        for engine in self._engines_left:
            engine.close_soon()
        self.pace.close()
        self.directories.close()
        self.proxies.close()
        transfer = self.settings.transfer
        if self._failure is None:
            self._send(TransferEnded(transfer=transfer))
        else:
            failure, index = self._failure
            self._send(
                TransferEnded(
                    transfer=transfer,
                    error=failure.name,
                    context=int(failure.context),
                    message=failure.message,
                    index=index,
                    transient=failure.transient,
                    retry_after_s=failure.retry_after_s,
                    retry_within_s=failure.retry_within_s,
                )
            )
        self._on_ended(transfer)

    def _explained(self, failure: Failure, index: int) -> None:
        self._failure = failure, index
        self._end()

    # --- what the files tell -----------------------------------------------------------------

    def on_started(self, message: FileStarted) -> None:
        """See `run.Run`."""
        self._reports.started(message)

    def on_redirected(self, index: int, remote_name: str) -> None:
        """See `run.Run`."""
        self._reports.send(FileRedirected(transfer=self.settings.transfer, index=index, remote_name=remote_name))

    def on_headers(self, index: int, response_headers: str) -> None:
        """See `run.Run`."""
        self._reports.send(LastHeaders(transfer=self.settings.transfer, index=index, response_headers=response_headers))

    def on_received(self, index: int, received_bytes: int) -> None:
        """See `run.Run`."""
        self._reports.received(index, received_bytes)

    def on_durable(self, index: int, durable_bytes: int) -> None:
        """See `run.Run`."""
        self._reports.send(FileDurable(transfer=self.settings.transfer, index=index, durable_bytes=durable_bytes))

    def on_filled(self, index: int, ranges: tuple[ByteRange, ...]) -> None:
        """See `run.Run`."""
        self._reports.filled(index, ranges)

    def on_broken(self, index: int, message: str) -> None:
        """See `run.Run`."""
        self._reports.send(TransferBroken(transfer=self.settings.transfer, index=index, message=message))

    def on_network_done(self, fetch: Fetch) -> None:
        """See `run.Run`."""
        self._reports.forget(fetch.spec.index)
        self._release_lane(fetch)
        self._advance()

    def on_done(self, fetch: Fetch, size: int) -> None:
        """See `run.Run`."""
        self._open.discard(fetch)
        self._pieces.finished(fetch)
        if not self._done:
            self.tools.loop.post(self._send_done)
        self._done.append(DoneFile(index=fetch.spec.index, size=size))
        self._release_handle(fetch.spec.index)
        if self._upload is not None and fetch is not self._upload:
            # Told before anything else is: whatever follows can only be done because the reply is here.
            self._send_done()
            self._upload.reply_fetched()
        self._end_if_over()

    def _send_done(self) -> None:
        self._reports.flush()
        done, self._done = self._done, []
        for start in range(0, len(done), _DONE_PER_FRAME):
            files = tuple(done[start : start + _DONE_PER_FRAME])
            self._send(FilesDone(transfer=self.settings.transfer, files=files))

    def on_failed(self, fetch: Fetch, failure: Failure) -> None:
        """See `run.Run`."""
        self._fail(failure, fetch.spec.index)

    def _fail(self, failure: Failure, index: int) -> None:
        if self._failure is None:
            self._failure = failure, index
        if not self._is_stopping:
            self.tools.loop.post(self.stop)

    def on_closed(self, fetch: Fetch) -> None:
        """See `run.Run`."""
        self._open.discard(fetch)
        self._reports.forget(fetch.spec.index)
        self._release_lane(fetch)
        self._release_handle(fetch.spec.index)
        if self._pieces.ended(fetch, self._queue) and not self._is_stopping and self._failure is None:
            self._advance()
        self._end_if_over()
