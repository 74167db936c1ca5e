"""What a file on its way knows of the transfer that it belongs to, and the line over which it asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from openbits.core.model import ByteRange
from openbits.frames.worker import FileSpec, FileStarted, StartTransfer
from openbits.worker.challenges import Challenges
from openbits.worker.client import Client
from openbits.worker.departure import Departures
from openbits.worker.failure import Failure
from openbits.worker.files import Directories
from openbits.worker.helper import Helper
from openbits.worker.loop import Loop
from openbits.worker.pace import Pace
from openbits.worker.pacscript import Scripts
from openbits.worker.places import Place
from openbits.worker.proxies import Proxies
from openbits.worker.revocation import Crls
from openbits.worker.sink import SinkSettings
from openbits.worker.splice import SplicePipe
from openbits.worker.syncer import Syncer
from openbits.worker.tickets import Tickets
from openbits.worker.watchdog import Watchdog


class Tools:
    """What all transfers of a worker share."""

    def __init__(
        self,
        loop: Loop,
        syncer: Syncer,
        reader: Helper,
        pipe: SplicePipe,
        tickets: Tickets,
        scripts: Scripts,
    ) -> None:
        self.loop = loop
        self.syncer = syncer
        self.reader = reader
        self.pipe = pipe
        self.tickets = tickets
        self.scripts = scripts
        self.crls = Crls()


class Run(Protocol):
    """The transfer that a fetch belongs to."""

    tools: Tools
    settings: StartTransfer
    sink_settings: SinkSettings
    directories: Directories
    header_lines: tuple[str, ...]
    challenges: Challenges
    proxies: Proxies
    departures: Departures
    has_progressed: bool
    meant_for: str
    """For which address the job may prove who it is, where that is not the file's own: a reply's is the server's
    choice."""
    allowance: int | None
    """How many more bytes may be fetched (J64)."""
    pace: Pace

    def place(self, spec: FileSpec) -> Place:
        """Where the file's temporary file comes from."""

    def on_started(self, message: FileStarted) -> None:
        """The server has answered."""

    def on_redirected(self, index: int, remote_name: str) -> None:
        """The file is to have this remote name from now on."""

    def on_headers(self, index: int, response_headers: str) -> None:
        """The last answer had these headers, and it is not the one that `on_started` told of."""

    def on_received(self, index: int, received_bytes: int) -> None:
        """Bytes have come in."""

    def on_durable(self, index: int, durable_bytes: int) -> None:
        """Bytes are on the disk."""

    def on_filled(self, index: int, ranges: tuple[ByteRange, ...]) -> None:
        """Pieces are on the disk (F13)."""

    def on_broken(self, index: int, message: str) -> None:
        """A connection is about to be taken up again."""

    def on_network_done(self, fetch: Fetch) -> None:
        """The fetch needs its connection no more: the next file may use it."""

    def on_done(self, fetch: Fetch, size: int) -> None:
        """The file is whole, verified and durable."""

    def on_failed(self, fetch: Fetch, failure: Failure) -> None:
        """The file cannot be fetched; `on_closed` follows."""

    def on_closed(self, fetch: Fetch) -> None:
        """Nothing of the fetch is open any more; what it received is durable."""


class Fetch(Protocol):
    """A file on its way, over whatever protocol."""

    spec: FileSpec

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End early; what is finishing may still finish."""


class Lane:
    """A client and its watchdog, used by one file after the other."""

    def __init__(self, client: Client, loop: Loop, stall_timeout_s: float) -> None:
        self.client = client
        self.on_stall: Callable[[], None] | None = None
        self.watchdog = Watchdog(loop, stall_timeout_s, self._stalled)

    def _stalled(self) -> None:
        if self.on_stall is not None:
            self.on_stall()

    def close(self) -> None:
        """Give everything back."""
        self.watchdog.close()
        self.client.close()
