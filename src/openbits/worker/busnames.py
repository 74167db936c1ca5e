"""Calls the notification interface of a D-Bus name (J61): one connection, one call, one answer.

The rule: a program is told of what happened by a method of `org.openbits.Notifications1` on the object
`/org/openbits/Notifications`; the bus starts it where it does not run; its return acknowledges, and nothing else does.
People have it on the bus of their session, service accounts on the system's: this process speaks as its account.

Not by the library that the service uses: what a worker has imported every worker has in memory, and this is one
conversation of three messages.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from openbits.frames.operations import CallBusName, NoticeEnded
from openbits.worker import dbus
from openbits.worker.dbus import BusError, Message
from openbits.worker.failure import MESSAGE_LIMIT, account_name
from openbits.worker.loop import READABLE, WRITABLE, Loop, Timer

INTERFACE: Final = "org.openbits.Notifications1"
PATH: Final = "/org/openbits/Notifications"
SYSTEM_BUS: Final = "/run/dbus/system_bus_socket"
_SYSTEM_BUS_VARIABLE: Final = "DBUS_SYSTEM_BUS_ADDRESS"
_HELLO_SERIAL: Final = 1
_CALL_SERIAL: Final = 2
_MOST_BYTES: Final = 1024 * 1024
"""Of everything that the bus says beside the answer: signals to which nobody has subscribed."""
_LONGEST_LINE: Final = 1024
_DBUS_ERROR: Final = "org.freedesktop.DBus.Error."
_NAMES: Final = {
    "ServiceUnknown": "REGDB_E_CLASSNOTREG",
    "NameHasNoOwner": "REGDB_E_CLASSNOTREG",
    "UnknownMethod": "E_NOINTERFACE",
    "UnknownObject": "E_NOINTERFACE",
    "UnknownInterface": "E_NOINTERFACE",
    "InvalidArgs": "E_NOINTERFACE",
    "AccessDenied": "E_ACCESSDENIED",
    "AuthFailed": "E_ACCESSDENIED",
    "NoReply": "RPC_S_CALL_FAILED",
    "Disconnected": "RPC_S_CALL_FAILED",
    "Timeout": "ERROR_TIMEOUT",
    "TimedOut": "ERROR_TIMEOUT",
    "NoMemory": "ERROR_NOT_ENOUGH_MEMORY",
    "LimitsExceeded": "ERROR_NOT_ENOUGH_MEMORY",
}
_ADVICE: Final = {
    "REGDB_E_CLASSNOTREG": "install its .service file for D-Bus, or set another name",
    "E_NOINTERFACE": f"it has to implement {INTERFACE} on {PATH}",
}


def bus_path(*, of_system: bool) -> str:
    """Where the bus listens. Raises OSError for one that is no socket in the file system."""
    if not of_system:
        return f"/run/user/{os.getuid()}/bus"
    address = os.environ.get(_SYSTEM_BUS_VARIABLE, "")
    if not address:
        return SYSTEM_BUS
    scheme, _, path = address.partition("unix:path=")
    if scheme or not path.startswith("/") or set(path) & set(",;%"):
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT), address)
    return path


class BusCall:
    """One call; it ends exactly once, unless it was dropped."""

    def __init__(self, order: CallBusName, loop: Loop, done: Callable[[NoticeEnded], None]) -> None:
        self._order = order
        self._loop = loop
        self._done = done
        self._socket: socket.socket | None = None
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._received_bytes = 0
        self._is_authenticated = False
        self._is_writing = False
        self._deadline: Timer | None = None
        self._is_over = False

    def __repr__(self) -> str:
        return f"<BusCall {self._order.method} of {self._order.name}>"

    def start(self) -> None:
        """Connect, and say who we are."""
        order = self._order
        if not dbus.is_name(order.name):
            self._loop.post(lambda: self._end("E_INVALIDARG", f"{order.name[:300]!r} is no name of the D-Bus"))
            return
        self._deadline = self._loop.call_later(order.limit_s, self._on_deadline)
        try:
            self._connect(bus_path(of_system=order.on_system_bus))
        except OSError as error:
            unreachable = error
            self._loop.post(lambda: self._unreachable(unreachable))

    def drop(self) -> None:
        """Nobody wants to know any more."""
        self._is_over = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _connect(self, path: str) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            # On Unix sockets this is done at once or not at all; EAGAIN says that the bus has no room for us now.
            sock.connect(path)
            if not self._order.on_system_bus:
                _expect_own(sock, path)
        except OSError:
            sock.close()
            raise
        self._socket = sock
        self._loop.watch(sock.fileno(), READABLE, self._on_event)
        self._send(b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n")

    # --- the connection ----------------------------------------------------------------------

    def _on_event(self, events: int) -> None:
        try:
            if events & WRITABLE:
                self._send(b"")
            if events & ~WRITABLE:
                self._receive()
        except BusError as error:
            self._end("RPC_S_CALL_FAILED", f"what the bus answers for {self._order.name} makes no sense: {error}")
        except OSError as error:
            self._unreachable(error)

    def _send(self, data: bytes) -> None:
        assert self._socket is not None
        self._outgoing += data
        with contextlib.suppress(BlockingIOError):
            del self._outgoing[: self._socket.send(self._outgoing)]
        if bool(self._outgoing) is not self._is_writing:
            self._is_writing = bool(self._outgoing)
            self._loop.change(self._socket.fileno(), READABLE | WRITABLE if self._is_writing else READABLE)

    def _receive(self) -> None:
        assert self._socket is not None
        try:
            # No descriptors were negotiated, and who reads without asking for them gets none.
            data = self._socket.recv(16 * 1024)
        except BlockingIOError:
            return
        if not data:
            raise OSError(errno.ECONNRESET, "the bus ended the connection")
        self._received_bytes += len(data)
        if self._received_bytes > _MOST_BYTES:
            raise BusError("it is more than an answer")
        self._incoming += data
        if not self._is_authenticated:
            self._read_line()
        if self._is_authenticated:
            self._read_messages()

    def _read_messages(self) -> None:
        while not self._is_over and (message := self._next_message()) is not None:
            self._on_message(message)

    def _read_line(self) -> None:
        line, end, rest = bytes(self._incoming).partition(b"\r\n")
        if not end:
            if len(line) > _LONGEST_LINE:
                raise BusError("its greeting has no end")
            return
        if not line.startswith(b"OK "):
            self._end("E_ACCESSDENIED", f"the bus does not let {account_name()} in")
            return
        self._is_authenticated = True
        self._incoming[:] = rest
        order = self._order
        bus = "org.freedesktop.DBus"
        self._send(
            b"BEGIN\r\n"
            + dbus.call(_HELLO_SERIAL, destination=bus, path="/org/freedesktop/DBus", interface=bus, member="Hello")
            + dbus.call(
                _CALL_SERIAL,
                destination=order.name,
                path=PATH,
                interface=INTERFACE,
                member=order.method,
                arguments=(order.job_id, *order.arguments),
            )
        )

    def _next_message(self) -> Message | None:
        if len(self._incoming) < dbus.HEAD_BYTES:
            return None
        length = dbus.length_of(bytes(self._incoming[: dbus.HEAD_BYTES]))
        if len(self._incoming) < length:
            return None
        packet = bytes(self._incoming[:length])
        del self._incoming[:length]
        return dbus.read(packet)

    def _on_message(self, message: Message) -> None:
        match (message.kind, message.reply_serial):
            case (dbus.METHOD_RETURN, serial) if serial == _CALL_SERIAL:
                self._end()
            case (dbus.ERROR, serial) if serial in (_HELLO_SERIAL, _CALL_SERIAL):
                self._refused(message)
            case _:
                return  # the answer to Hello, and signals: of no interest

    # --- the end -----------------------------------------------------------------------------

    def _refused(self, message: Message) -> None:
        order, name = self._order, message.error_name
        known = ""
        if name.startswith(_DBUS_ERROR):
            clause = name.removeprefix(_DBUS_ERROR)
            known = "RPC_S_SERVER_UNAVAILABLE" if clause.startswith("Spawn.") else _NAMES.get(clause, "")
        error = known or "E_FAIL"
        said = f"{order.name} was told {order.method} and answered {name}: {message.text}"
        advice = _ADVICE.get(error)
        self._end(error, f"{said}: {advice}" if advice else said)

    def _unreachable(self, error: OSError) -> None:
        order = self._order
        which = "the system bus" if order.on_system_bus else f"the session bus of {account_name()}"
        reason = error.strerror or str(error)
        self._end(
            "RPC_S_SERVER_UNAVAILABLE", f"{which} cannot be reached to tell {order.name} of {order.method}: {reason}"
        )

    def _on_deadline(self) -> None:
        order = self._order
        self._deadline = None
        self._end("ERROR_TIMEOUT", f"{order.name} did not return from {order.method} within {order.limit_s:g} s")

    def _end(self, error: str = "", message: str = "") -> None:
        if self._is_over:
            return
        self.drop()
        if len(message) > MESSAGE_LIMIT:
            message = f"{message[: MESSAGE_LIMIT - 1]}…"
        self._done(NoticeEnded(operation=self._order.operation, error=error, message=message))


def _expect_own(sock: socket.socket, path: str) -> None:
    """A session's bus is run by the session's account; what else listens there is told nothing."""
    _pid, uid, _gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != os.getuid():
        raise OSError(errno.EACCES, f"{path} is held open by uid {uid}")
