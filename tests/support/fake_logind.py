"""A logind of our own on a message bus of our own: it says what the test wants, and signals what the test wants.

`private_bus` starts a real dbus-daemon.  `FakeLogind` answers as logind does, from a thread of its own, so that the
tests of real daemons, which do not run an event loop, can use it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dbus_fast import Message, MessageType, NameFlag, Variant
from dbus_fast.aio import MessageBus

NAME = "org.freedesktop.login1"
ROOT = "/org/freedesktop/login1"
TIMEOUT_S = 20.0

_T = TypeVar("_T")

_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  {services}
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"""


class PrivateBus:
    """A dbus-daemon in a directory of its own, which everybody may connect to; it can be ended and started again."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.socket = os.path.join(directory, "bus", "socket")
        self.services: dict[str, str] = {}
        """Names that the daemon can be asked to start, and what it then executes."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What DBUS_SYSTEM_BUS_ADDRESS is to be."""
        return f"unix:path={self.socket}"

    def start(self) -> None:
        """Start the daemon; it listens when this returns."""
        os.makedirs(os.path.dirname(self.socket), exist_ok=True)
        configuration = os.path.join(self.directory, "bus.conf")
        services = os.path.join(self.directory, "services")
        os.makedirs(services, exist_ok=True)
        for name, command in self.services.items():
            with open(os.path.join(services, f"{name}.service"), "w", encoding="ascii") as file:
                file.write(f"[D-BUS Service]\nName={name}\nExec={command}\nUser=root\n")
        with open(configuration, "w", encoding="ascii") as file:
            file.write(_CONFIGURATION.format(path=self.socket, services=f"<servicedir>{services}</servicedir>"))
        self._process = subprocess.Popen(
            ["dbus-daemon", "--nofork", "--nopidfile", f"--config-file={configuration}", "--print-address=1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "dbus-daemon does not start"

    def stop(self) -> None:
        """End the daemon, and its socket with it."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=TIMEOUT_S)
            assert process.stdout is not None
            process.stdout.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.socket)

    def freeze(self) -> None:
        """Let the daemon hang: it takes connections, as the kernel does that for it, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def private_bus(*, is_started: bool = True) -> Iterator[PrivateBus]:
    """A message bus for the length of a `with` block."""
    directory = tempfile.mkdtemp(prefix="obt-bus-")
    os.chmod(directory, 0o755)
    bus = PrivateBus(directory)
    try:
        if is_started:
            bus.start()
        yield bus
    finally:
        bus.stop()
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(kw_only=True)
class Session:
    """A session as logind shows it; `properties` are put over what it usually says, None takes one out."""

    uid: int
    kind: str = "user"
    state: str = "active"
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class User:
    """A user as logind shows it."""

    uid: int
    state: str = "active"
    lingers: bool = False
    properties: dict[str, Any] = field(default_factory=dict)


class FakeLogind:
    """Answers for org.freedesktop.login1.  What stands in `sessions` and `users` is what is so."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.sessions: dict[str, Session] = {}
        self.users: dict[int, User] = {}
        self.calls: list[str] = []
        """The members that were called."""
        self.overrides: dict[str, Callable[[Message], Message | None]] = {}
        """By member: what answers in place of the usual; None: nothing does."""
        self.vanished: set[str] = set()
        """Sessions that are still listed and are gone when they are asked for."""
        self._bus: MessageBus | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake logind", daemon=True)
        self._thread.start()

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect to the bus and take logind's name."""
        self._do(self._connect())

    def stop(self) -> None:
        """Leave the bus; what is known stays."""
        self._do(self._disconnect())

    def close(self) -> None:
        """End."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=TIMEOUT_S)
        self._loop.close()

    async def _connect(self, name: str = NAME) -> None:
        bus = await MessageBus(bus_address=self._address).connect()
        bus.add_message_handler(self._answer)
        await bus.request_name(name, NameFlag.REPLACE_EXISTING)
        self._bus = bus

    async def _disconnect(self) -> None:
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.disconnect()
            with contextlib.suppress(Exception):
                await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]  # the library has no types there

    def _do(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)

    # --- what happens on the machine ------------------------------------------------------------------

    def log_on(self, uid: int, *, session: str = "", kind: str = "user", state: str = "active") -> str:
        """Somebody logs on: a session is new, and so is its user, perhaps."""
        name = session or f"c{uid}"
        self.sessions[name] = Session(uid=uid, kind=kind, state=state)
        if uid not in self.users:
            self.users[uid] = User(uid=uid)
            self.signal("UserNew", "uo", uid, user_path(uid))
        self.signal("SessionNew", "so", name, session_path(name))
        return name

    def log_off(self, uid: int) -> None:
        """All sessions of a user end, and the user with them, unless it lingers."""
        for name, session in list(self.sessions.items()):
            if session.uid == uid:
                del self.sessions[name]
                self.signal("SessionRemoved", "so", name, session_path(name))
        user = self.users.get(uid)
        if user is not None and not user.lingers:
            del self.users[uid]
            self.signal("UserRemoved", "uo", uid, user_path(uid))

    def signal(self, member: str, signature: str, *arguments: Any) -> None:
        """Send a signal of logind's manager."""
        message = Message.new_signal(ROOT, f"{NAME}.Manager", member, signature, list(arguments))
        self._do(self._send(message))

    def change(self, path: str, interface: str, **changed: Variant) -> None:
        """Send PropertiesChanged."""
        message = Message.new_signal(
            path,
            "org.freedesktop.DBus.Properties",
            "PropertiesChanged",
            "sa{sv}as",
            [f"{NAME}.{interface}", changed, []],
        )
        self._do(self._send(message))

    async def _send(self, message: Message) -> None:
        if self._bus is not None:
            await self._bus.send(message)

    # --- answers ----------------------------------------------------------------------------------------

    def _answer(self, message: Message) -> Message | bool | None:
        if message.message_type is not MessageType.METHOD_CALL or not (message.path or "").startswith(ROOT):
            return None
        member = message.member or ""
        self.calls.append(member)
        override = self.overrides.get(member)
        if override is not None:
            return override(message) or True
        match member:
            case "ListSessions":
                rows = [[name, each.uid, "x", "", session_path(name)] for name, each in self.sessions.items()]
                return Message.new_method_return(message, "a(susso)", [rows])
            case "ListUsers":
                rows = [[uid, "x", user_path(uid)] for uid in self.users]
                return Message.new_method_return(message, "a(uso)", [rows])
            case "GetAll":
                found = self._properties(message.path or "")
                if found is None:
                    name = "org.freedesktop.DBus.Error.UnknownObject"
                    return Message.new_error(message, name, "there is no such object")
                return Message.new_method_return(message, "a{sv}", [found])
        return None

    def _properties(self, path: str) -> dict[str, Variant] | None:
        for name, session in self.sessions.items():
            if path == session_path(name) and name not in self.vanished:
                shown = {
                    "Id": Variant("s", name),
                    "User": Variant("(uo)", [session.uid, user_path(session.uid)]),
                    "Class": Variant("s", session.kind),
                    "State": Variant("s", session.state),
                    "Active": Variant("b", session.state == "active"),
                }
                return _overlaid(shown, session.properties)
        for uid, user in self.users.items():
            if path == user_path(uid):
                shown = {
                    "UID": Variant("u", uid),
                    "State": Variant("s", user.state),
                    "Linger": Variant("b", user.lingers),
                }
                return _overlaid(shown, user.properties)
        return None


@contextlib.contextmanager
def fake_logind(bus: PrivateBus) -> Iterator[FakeLogind]:
    """A logind on this bus for the length of a `with` block."""
    logind = FakeLogind(bus.address)
    try:
        logind.start()
        yield logind
    finally:
        logind.close()


def session_path(name: str) -> str:
    """As logind escapes it."""
    escaped = "".join(
        each if each.isalnum() and not (at == 0 and each.isdigit()) else f"_{ord(each):02x}"
        for at, each in enumerate(name)
    )
    return f"{ROOT}/session/{escaped}"


def user_path(uid: int) -> str:
    """As logind writes it."""
    return f"{ROOT}/user/_{uid}"


def _overlaid(shown: dict[str, Variant], properties: dict[str, Any]) -> dict[str, Variant]:
    result = {**shown, **properties}
    return {name: value for name, value in result.items() if value is not None}
