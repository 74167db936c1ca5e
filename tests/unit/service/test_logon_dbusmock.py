"""python-dbusmock's logind, which others test with: it lacks some of what logind does, and must do all the same (I2).

It sends no SessionNew, SessionRemoved, UserNew or UserRemoved, its object paths are not those of logind, and GetUser
raises.  It runs under the system's Python only, so it is a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from dbus_fast import Message, MessageType, NameFlag, Variant
from dbus_fast.aio import MessageBus

from openbits.service.logon.logind import LogindSource
from openbits.service.tasks import Tasks
from support.fake_logind import PrivateBus, private_bus

PYTHON = "/usr/bin/python3"
TIMEOUT_S = 20.0
LOGIN, ROOT, MOCK = "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.DBus.Mock"
ALICE = 4001

pytestmark = pytest.mark.skipif(
    subprocess.run([PYTHON, "-c", "import dbusmock"], check=False, capture_output=True, timeout=60).returncode != 0,
    reason="python3-dbusmock is not installed",
)


@contextlib.contextmanager
def dbusmock(bus: PrivateBus) -> Iterator[None]:
    """dbusmock's logind on this bus for the length of a `with` block."""
    mock = subprocess.Popen(
        [PYTHON, "-m", "dbusmock", "--system", "--template", "logind"],
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        mock.terminate()
        mock.wait(timeout=TIMEOUT_S)


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    """A bus with dbusmock's logind on it."""
    with private_bus() as running, dbusmock(running):
        yield running


class Mock:
    """What a test tells the mock to do."""

    def __init__(self, bus: MessageBus) -> None:
        self._bus = bus

    async def call(self, path: str, interface: str, member: str, signature: str, *body: Any) -> list[Any]:
        message = Message(
            destination=LOGIN, path=path, interface=interface, member=member, signature=signature, body=list(body)
        )
        async with asyncio.timeout(TIMEOUT_S):
            reply = await self._bus.call(message)
        assert reply.message_type is MessageType.METHOD_RETURN, reply.body
        return reply.body

    async def do(self, member: str, signature: str, *body: Any) -> None:
        await self.call(ROOT, MOCK, member, signature, *body)

    async def update(self, path: str, interface: str, **properties: Variant) -> None:
        await self.call(path, MOCK, "UpdateProperties", "sa{sv}", f"{LOGIN}.{interface}", properties)


@contextlib.asynccontextmanager
async def watching(bus: PrivateBus) -> AsyncIterator[tuple[LogindSource, Mock, asyncio.Event]]:
    told = asyncio.Event()
    died: list[str] = []
    tasks = Tasks(lambda name, error: died.append(f"{name}: {error!r}"))
    source = LogindSource(
        tasks=tasks, on_change=told.set, address=bus.address, is_expected=True, directories=(), grace_s=30
    )
    source.start()
    connection = await MessageBus(bus_address=bus.address).connect()
    try:
        await connection.request_name("org.example.Test", NameFlag.NONE)
        await until(source, told)
        yield source, Mock(connection), told
        assert died == []
    finally:
        source.close()
        connection.disconnect()
        await tasks.cancel()


async def until(source: LogindSource, told: asyncio.Event, *uids: int) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while source.problem or source.logged_on != frozenset(uids):
            told.clear()
            await told.wait()


def test_dbusmock_sessions_and_lingering_are_followed(bus: PrivateBus) -> None:
    async def main() -> None:
        async with watching(bus) as (source, mock, told):
            await mock.do("AddSession", "ssusb", "c1", "seat0", ALICE, "alice", True)
            await until(source, told, ALICE)
            session, user = f"{ROOT}/session/c1", f"{ROOT}/user/{ALICE}"
            await mock.update(session, "Session", State=Variant("s", "closing"))
            await until(source, told)
            await mock.update(user, "User", Linger=Variant("b", True))
            await until(source, told, ALICE)
            await mock.update(user, "User", Linger=Variant("b", False), State=Variant("s", "closing"))
            await until(source, told)
            await mock.update(session, "Session", State=Variant("s", "online"))
            await until(source, told, ALICE)
            await mock.update(session, "Session", Class=Variant("s", "background"))
            await until(source, told)

    asyncio.run(main())


def test_dbusmock_users_that_are_removed_or_broken_break_nothing(bus: PrivateBus) -> None:
    async def main() -> None:
        async with watching(bus) as (source, mock, told):
            await mock.do("AddSession", "ssusb", "c1", "seat0", ALICE, "alice", True)
            await mock.do("AddSession", "ssusb", "c2", "seat0", ALICE + 1, "bob", True)
            await until(source, told, ALICE, ALICE + 1)
            await mock.do("RemoveObject", "s", f"{ROOT}/user/{ALICE}")
            await mock.do("RemoveObject", "s", f"{ROOT}/session/c1")
            # A property without a type that logind knows: what matters is that it is heard.
            await mock.update(f"{ROOT}/session/c2", "Session", Class=Variant("u", 3))
            await until(source, told)

    asyncio.run(main())


def test_dbusmock_that_is_not_there_yet_is_waited_for() -> None:
    with private_bus() as running:

        async def main() -> None:
            told = asyncio.Event()
            tasks = Tasks(lambda _name, _error: None)
            source = LogindSource(
                tasks=tasks, on_change=told.set, address=running.address, is_expected=True, directories=()
            )
            source.start()
            async with asyncio.timeout(TIMEOUT_S):
                await source.ready.wait()
            assert source.problem == "logind is not there"
            try:
                with dbusmock(running):
                    await until(source, told)
            finally:
                source.close()
                await tasks.cancel()

        asyncio.run(main())
