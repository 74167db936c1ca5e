"""Events for the system's journal, by its own protocol: one datagram an event, fields and no text to be parsed.

The rules:

- Only what has been written down is told, once: a crash between the two loses the line in the journal, not the event.
- The service never waits for the journal. What finds its buffer full waits in a queue; what finds the queue full is
  dropped, counted, and the count is told when there is room again. Where there is no journal, nothing happens.
- Whatever a name, a URL or a server's answer holds: a value cannot become a field. Each is sent with its length when
  it has a line break, and names of fields are ours alone.
- What is too large for a datagram goes as a sealed memory file, which the journal reads by its descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import pwd
import re
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from openbits.core.eventlog import Level, level_of, message_id
from openbits.service.records import EventRecord

log = logging.getLogger(__name__)

SOCKET: Final = "/run/systemd/journal/socket"
VARIABLE: Final = "OPENBITS_JOURNAL_SOCKET"
"""Names another socket; empty: there is no journal."""
IDENTIFIER: Final = "bitsd"
_PRIORITIES: Final = {Level.ERROR: "3", Level.WARNING: "4", Level.INFORMATION: "6", Level.VERBOSE: "7"}
_LENGTH: Final = struct.Struct("<Q")
_TOO_LARGE: Final = (errno.EMSGSIZE, errno.ENOBUFS)
MOST_WAITING: Final = 20_000
"""Some megabytes: 1,000 jobs that end at once make a few events each."""
_BUFFER_BYTES: Final = 8 * 2**20
_USERINFO: Final = re.compile(r"((?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]+://)[^/?#\s]*@")
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
_MESSAGE_DROPPED: Final = message_id(0)


def encode(fields: Iterable[tuple[str, str]]) -> bytes:
    """Return fields as the journal reads them: NAME=value, or the name, a length and any bytes."""
    parts: list[bytes] = []
    for name, value in fields:
        data = value.encode("utf-8", "surrogateescape" if _is_of_bytes(value) else "surrogatepass")
        if b"\n" in data:
            parts += (name.encode("ascii"), b"\n", _LENGTH.pack(len(data)), data, b"\n")
        else:
            parts += (name.encode("ascii"), b"=", data, b"\n")
    return b"".join(parts)


def _is_of_bytes(value: str) -> bool:
    """Whether all lone surrogates of a text stand for bytes of a file name."""
    return all("\udc80" <= each <= "\udcff" for each in value if "\ud800" <= each <= "\udfff")


def fields_of(record: EventRecord, owner_name: str) -> list[tuple[str, str]]:
    """Return what the journal is told of an event."""
    own = dict(record.fields)
    name = record.job.settings.name if record.job is not None else own.get("job_title", "")
    about = f"{record.job_id[:8]} {name}: " if record.job_id else ""
    fields = [
        ("MESSAGE", _without_userinfo(f"{about}{record.text or record.kind}")),
        ("PRIORITY", _PRIORITIES[level_of(record.event_id, record.kind)]),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
        ("BITS_KIND", record.kind),
        ("BITS_EVENT", str(record.id)),
        ("BITS_OWNER", str(record.owner_uid)),
    ]
    if record.event_id:
        fields += [("MESSAGE_ID", message_id(record.event_id)), ("BITS_EVENT_ID", str(record.event_id))]
    if record.job_id:
        fields += [("BITS_JOB_ID", record.job_id), ("BITS_JOB_NAME", name)]
    if owner_name:
        fields.append(("BITS_OWNER_NAME", owner_name))
    taken = {name for name, _ in fields}
    # A field of its own must not look like one of ours.
    own_fields = ((f"BITS_{name.upper()}", _without_userinfo(value)) for name, value in record.fields if _is_name(name))
    return [*fields, *((name, value) for name, value in own_fields if name not in taken)]


def _without_userinfo(text: str) -> str:
    """Nothing gets here that has a password; if something ever does, it does not get further."""
    return _USERINFO.sub(r"\1***@", text) if "@" in text else text


def _is_name(name: str) -> bool:
    return name.isascii() and name.replace("_", "").isalnum() and len(name) < 60


def name_of_account(uid: int) -> str:
    """The account's name; empty when it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


class Journal:
    """The way to the journal; belongs to the loop that calls it."""

    def __init__(self, path: str, owner_name: Callable[[int], str] = lambda _uid: "") -> None:
        self._path = path
        self._owner_name = owner_name
        self._socket: socket.socket | None = None
        self._waiting: deque[bytes] = deque()
        """What the journal has no room for yet; the loop says when it has."""
        self.sent = 0
        self.dropped = 0
        self._untold = 0
        """How many were dropped since one got through."""

    def __repr__(self) -> str:
        return f"<Journal {self._path or 'nowhere'} sent={self.sent} dropped={self.dropped}>"

    def write(self, record: EventRecord) -> None:
        """Tell the journal of an event that has been written down."""
        if not self._path:
            return
        job = record.job
        # A job that somebody has taken over since has another owner's name.
        is_known = job is not None and job.owner.identity.uid == record.owner_uid
        name = job.owner.name if is_known and job is not None else self._owner_name(record.owner_uid)
        self.send(fields_of(record, name))

    def send(self, fields: Iterable[tuple[str, str]]) -> None:
        """Send an entry, now or as soon as there is room."""
        if not self._path:
            return
        if self._waiting:
            self._keep(encode(fields))
        elif (data := encode(fields)) and not self._put(data):
            self._keep(data)
            self._wait_for_room()

    def send_now(self, fields: Iterable[tuple[str, str]]) -> bool:
        """Send an entry if there is room for it at this moment; needs no loop."""
        return bool(self._path) and self._put(encode(fields))

    def close(self) -> None:
        """Send what can be sent at once, and let go of the socket."""
        self._go_on()
        if self._socket is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        self._path = ""

    def health(self) -> tuple[bool, str]:
        """Whether events get into the journal, as a sentence."""
        if not self._path or not os.path.exists(self._path):
            return True, "there is none here: 'bits events' has the events"
        if self.dropped:
            return False, f"{self.sent} events told, {self.dropped} dropped: it takes them too slowly"
        return True, f"{self.sent} events told since the service started"

    # --- sending ------------------------------------------------------------------------------------

    def _keep(self, data: bytes) -> None:
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(data)
        else:
            self.dropped += 1
            self._untold += 1

    def _wait_for_room(self) -> None:
        assert self._socket is not None
        asyncio.get_running_loop().add_writer(self._socket, self._go_on)

    def _go_on(self) -> None:
        while self._waiting and self._put(self._waiting[0]):
            self._waiting.popleft()
        if self._waiting:
            return
        if self._untold:
            log.warning("action=journal-full dropped=%d", self._untold)
            told, self._untold = encode(_of_dropped(self._untold)), 0
            if not self._put(told):
                self._waiting.append(told)
                return
        if self._socket is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_writer(self._socket)

    def _put(self, data: bytes) -> bool:
        """Send one entry; False when there is no room for it now. One that nobody can take is gone."""
        for _ in range(2):
            if self._socket is None and not self._connect():
                return True
            assert self._socket is not None
            try:
                try:
                    self._socket.send(data)
                except OSError as error:
                    if error.errno not in _TOO_LARGE:
                        raise
                    _send_large(self._socket, data)
            except BlockingIOError:
                return False
            except OSError as error:
                # The journal has begun anew, with another socket; or there is none any more.
                log.debug("action=journal-gone error=%s", error)
                self._disconnect()
                continue
            self.sent += 1
            return True
        self.dropped += 1
        return True

    def _connect(self) -> bool:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            # As much as the system lets us: thousands of jobs may end at once.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            sock.connect(self._path)
        except OSError:
            sock.close()
            return False
        self._socket = sock
        return True

    def _disconnect(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_writer(self._socket)
            self._socket.close()
            self._socket = None


def tell_of_failure(number: int, text: str, exit_status: int) -> None:
    """Tell the journal that the service fails (16392, 16404): its own table is out of reach then.

    Once, and without waiting: nothing comes after it.
    """
    fields = (("error_code", str(exit_status)),)
    record = EventRecord(
        id=0, time=0.0, kind="service", job_id="", text=text, owner_uid=0, event_id=number, fields=fields
    )
    journal = Journal(os.environ.get(VARIABLE, SOCKET))
    try:
        journal.send_now(fields_of(record, ""))
    finally:
        journal.close()


def _send_large(sock: socket.socket, data: bytes) -> None:
    with os.fdopen(os.memfd_create("bits-event", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb") as file:
        file.write(data)
        file.flush()
        # The journal takes what cannot change under it, and nothing else.
        fcntl.fcntl(file.fileno(), fcntl.F_ADD_SEALS, _SEALS)
        sock.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file.fileno()))])


def _of_dropped(count: int) -> list[tuple[str, str]]:
    return [
        ("MESSAGE", f"{count} events are missing here: the journal took them too slowly; 'bits events' has them"),
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
        ("MESSAGE_ID", _MESSAGE_DROPPED),
        ("BITS_KIND", "journal"),
        ("BITS_DROPPED", str(count)),
    ]
