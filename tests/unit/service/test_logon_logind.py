"""logind on a real message bus, with everything that can be wrong with either (I2)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from dbus_fast import Message, Variant

from openbits.service.logon import bus as bus_module
from openbits.service.logon.logind import SETTLE_S, LogindSource
from openbits.service.tasks import Tasks
from support.fake_logind import (
    NAME,
    FakeLogind,
    PrivateBus,
    Session,
    User,
    fake_logind,
    private_bus,
    session_path,
    user_path,
)

TIMEOUT_S = 20.0
ALICE, BOB = 4001, 4002


class Watcher:
    """A source, what it says, and a way to wait for what it says."""

    def __init__(self, address: str, directory: Path, *, is_expected: bool = True, grace_s: float = 30.0) -> None:
        self.died: list[str] = []
        self.said: list[frozenset[int]] = []
        self._changed = asyncio.Condition()
        self.tasks = Tasks(lambda name, error: self.died.append(f"{name}: {error!r}"))
        self._told = asyncio.Event()
        self.source = LogindSource(
            tasks=self.tasks,
            on_change=self._on_change,
            address=address,
            is_expected=is_expected,
            directories=(str(directory / "users"), str(directory / "sessions")),
            grace_s=grace_s,
        )

    def _on_change(self) -> None:
        if not self.said or self.said[-1] != self.source.logged_on:
            self.said.append(self.source.logged_on)
        self._told.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a change makes it true."""
        async with asyncio.timeout(TIMEOUT_S):
            while not condition():
                self._told.clear()
                await self._told.wait()

    async def until_known(self, *uids: int) -> None:
        """Wait until these, and no others, are known to be logged on."""
        try:
            await self.until(lambda: self.source.logged_on == set(uids) and not self.source.problem)
        except TimeoutError:
            raise AssertionError(f"{self.source!r} says {self.source.logged_on}") from None

    async def until_looked(self, looks: int) -> None:
        """Wait until everything was asked for so often."""
        await self.until(lambda: self.source.looks >= looks and not self.source.problem)


@contextlib.asynccontextmanager
async def watching(address: str, directory: Path, **options: Any) -> AsyncIterator[Watcher]:
    watcher = Watcher(address, directory, **options)
    watcher.source.start()
    try:
        yield watcher
        assert watcher.died == []
    finally:
        watcher.source.close()
        await watcher.tasks.cancel()


@pytest.fixture
def bus() -> Iterator[PrivateBus]:
    with private_bus() as running:
        yield running


@pytest.fixture
def logind(bus: PrivateBus) -> Iterator[FakeLogind]:
    with fake_logind(bus) as running:
        yield running


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def write(directory: Path, name: str) -> None:
    """Write a file as logind does."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f".#{name}").write_text("STATE=whatever\n", encoding="ascii")
    os.rename(directory / f".#{name}", directory / name)


# --- facts --------------------------------------------------------------------------------------------------


def test_log_on_and_log_off_are_seen(bus: PrivateBus, logind: FakeLogind, tmp_path: Path) -> None:
    logind.log_on(ALICE)

    async def main() -> None:
        async with watching(bus.address, tmp_path) as watcher:
            await watcher.until_known(ALICE)
            logind.log_on(BOB)
            await watcher.until_known(ALICE, BOB)
            logind.log_off(ALICE)
            await watcher.until_known(BOB)
            logind.log_off(BOB)
            await watcher.until_known()

    run(main())


def test_a_changed_state_is_seen_by_its_signal(bus: PrivateBus, logind: FakeLogind, tmp_path: Path) -> None:
    name = logind.log_on(ALICE, state="opening")

    async def main() -> None:
        async with watching(bus.address, tmp_path) as watcher:
            await watcher.until_known(ALICE)
            logind.sessions[name].state = "closing"
            logind.change(session_path(name), "Session", Active=Variant("b", False))
            await watcher.until_known()
            logind.users[ALICE].lingers = True
            logind.change(user_path(ALICE), "User", Linger=Variant("b", True))
            await watcher.until_known(ALICE)

    run(main())


@pytest.mark.parametrize("exists", [True, False])
def test_a_session_that_closes_without_a_signal_is_seen_by_logind_s_files(
    bus: PrivateBus, logind: FakeLogind, tmp_path: Path, exists: bool
) -> None:
    """Also where the directories come only later."""
    name = logind.log_on(ALICE)
    if exists:
        (tmp_path / "users").mkdir()
        (tmp_path / "sessions").mkdir()

    async def main() -> None:
        async with watching(bus.address, tmp_path) as watcher:
            await watcher.until_known(ALICE)
            logind.sessions[name].state = "closing"
            write(tmp_path / "users", str(ALICE))
            await watcher.until_known()
            logind.sessions[name].state = "active"
            write(tmp_path / "sessions", name)
            await watcher.until_known(ALICE)

    run(main())


def test_files_are_hints_and_no_facts(bus: PrivateBus, logind: FakeLogind, tmp_path: Path) -> None:
    logind.log_on(ALICE)

    async def main() -> None:
        async with watching(bus.address, tmp_path) as watcher:
            await watcher.until_known(ALICE)
            looks = watcher.source.looks
            write(tmp_path / "users", str(BOB))
            await watcher.until_looked(looks + 1)
            assert watcher.said == [{ALICE}]

    run(main())


def test_directories_that_are_removed_and_made_anew_go_on_hinting(
    bus: PrivateBus, logind: FakeLogind, tmp_path: Path
) -> None:
    name = logind.log_on(ALICE)
    users = tmp_path / "deep" / "users"

    async def main() -> None:
        async with watching(bus.address, tmp_path / "deep") as watcher:
            await watcher.until_known(ALICE)
            for state, expected in (("closing", ()), ("active", (ALICE,)), ("closing", ())):
                write(users, "1")
                await watcher.until_looked(watcher.source.looks)
                (users / "1").unlink()
                users.rmdir()
                users.parent.rmdir()
                logind.sessions[name].state = state
                write(users, "2")
                await watcher.until_known(*expected)
                (users / "2").unlink()

    run(main())


def test_a_hint_during_a_look_leads_to_exactly_one_more_look(
    bus: PrivateBus, logind: FakeLogind, tmp_path: Path
) -> None:
    logind.log_on(ALICE)

    async def main() -> None:
        async with watching(bus.address, tmp_path) as watcher:
            await watcher.until_known(ALICE)
            asked = asyncio.Event()
            loop = asyncio.get_running_loop()
            held: list[Message] = []

            def hold(message: Message) -> None:
                held.append(message)
                loop.call_soon_threadsafe(asked.set)

            logind.overrides["ListSessions"] = hold
            logind.signal("SeatNew", "so", "seat9", "/org/freedesktop/login1/seat/seat9")
            async with asyncio.timeout(TIMEOUT_S):
                await asked.wait()
            looks = watcher.source.looks
            for _ in range(20):
                logind.signal("SeatNew", "so", "seat9", "/org/freedesktop/login1/seat/seat9")
            del logind.overrides["ListSessions"]
            [message] = held
            answer = Message.new_method_return(message, "a(susso)", [[["1", BOB, "b", "", session_path("none")]]])
            logind._do(logind._send(answer))
            await watcher.until_known()
            await watcher.until_known(ALICE)
            assert watcher.source.looks == looks + 1

    run(main())


def test_a_session_that_vanishes_while_it_is_asked_for_breaks_nothing(
    bus: PrivateBus, logind: FakeLogind, tmp_path: Path
) -> None:
    logind.vanished.add(logind.log_on(ALICE))
    logind.log_on(BOB)

    async def main() -> None:
        async with watching(bus.address, tmp_path) as watcher:
            await watcher.until_known(BOB)

    run(main())


@pytest.mark.parametrize("error", ["NoReply", "ServiceUnknown", "NameHasNoOwner"])
def test_logind_that_ends_in_the_middle_of_a_look_logs_nobody_off(
    bus: PrivateBus, logind: FakeLogind, tmp_path: Path, error: str
) -> None:
    async def main() -> None:
        logind.log_on(ALICE)
        async with watching(bus.address, tmp_path) as watcher:
            await watcher.until_known(ALICE)

            # What the bus answers in its place to the questions that follow on the lists of sessions and users.
            name = f"org.freedesktop.DBus.Error.{error}"
            logind.overrides["GetAll"] = lambda message: Message.new_error(message, name, "it has left the bus")
            logind.signal("SessionNew", "so", "cx", session_path("cx"))
            await watcher.until(lambda: bool(watcher.source.problem))
            assert watcher.source.logged_on == {ALICE}

            del logind.overrides["GetAll"]
            await watcher.until_known(ALICE)
            assert watcher.said == [frozenset({ALICE})], "a log-off was reported that there was not"

    run(main())


@pytest.mark.parametrize(
    "properties",
    [
        {"Class": None},
        {"State": None, "Active": None},
        {"Class": Variant("u", 7)},
        {"State": Variant("as", ["active"])},
        {"Class": Variant("v", Variant("i", 1))},
    ],
)
def test_a_session_with_odd_properties_counts_for_nothing_and_breaks_nothing(
    bus: PrivateBus, logind: FakeLogind, tmp_path: Path, properties: dict[str, Any]
) -> None:
    logind.sessions["1"] = Session(uid=ALICE, properties=properties)
    logind.users[ALICE] = User(uid=ALICE, properties={"Linger": None, "State": None, "UID": None})
    logind.log_on(BOB)

    async def main() -> None:
        async with watching(bus.address, tmp_path) as watcher:
            await watcher.until_known(BOB)

    run(main())


@pytest.mark.parametrize(
    ("member", "signature", "body"),
    [
        ("ListSessions", "", []),
        ("ListSessions", "s", ["none"]),
        ("ListSessions", "a(sssso)", [[["1", "alice", "x", "", "/x"]]]),
        ("ListSessions", "a(su)", [[["1", ALICE]]]),
        ("ListSessions", "a(sisso)", [[["1", -1, "x", "", "/x"]]]),
        ("ListSessions", "a(susso)as", [[["1", ALICE, "x", "", "/x"]], ["y"]]),
        ("GetAll", "", []),
        ("GetAll", "a{ss}", [{"Class": "user"}]),
        ("GetAll", "as", [["user"]]),
        ("GetNameOwner", "u", [3]),
    ],
)
def test_answers_of_any_other_shape_count_for_nothing(
    bus: PrivateBus, logind: FakeLogind, tmp_path: Path, member: str, signature: str, body: list[Any]
) -> None:
    logind.log_on(ALICE)
    logind.users[BOB] = User(uid=BOB, lingers=True)
    logind.overrides[member] = lambda message: Message.new_method_return(message, signature, body)

    async def main() -> None:
        async with watching(bus.address, tmp_path) as watcher:
            await watcher.until(lambda: watcher.source.looks > 0 and not watcher.source.problem)
            if member == "ListSessions":
                assert watcher.source.logged_on == {BOB}

    run(main())


def test_signals_of_others_do_not_make_us_work(bus: PrivateBus, logind: FakeLogind, tmp_path: Path) -> None:
    logind.log_on(ALICE)
    callers: set[str] = set()

    def note(message: Message) -> Message:
        callers.add(message.sender or "")
        return _active(message)

    with fake_stranger(bus) as stranger:

        async def main() -> None:
            async with watching(bus.address, tmp_path) as watcher:
                logind.overrides["GetAll"] = note
                await watcher.until_known(ALICE)
                looks = watcher.source.looks
                [us] = callers
                for _ in range(10):
                    signal = Message.new_signal("/org/freedesktop/login1", f"{NAME}.Manager", "SessionNew")
                    signal.destination = us
                    stranger._do(stranger._send(signal))
                    # Each would have a look of its own.
                    await asyncio.sleep(2 * SETTLE_S)
                # What comes after them is answered, and they were not.
                logind.log_on(BOB)
                await watcher.until_known(ALICE, BOB)
                assert watcher.source.looks <= looks + 2

        run(main())


def _active(message: Message) -> Message:
    shown = {"Class": Variant("s", "user"), "State": Variant("s", "active")}
    return Message.new_method_return(message, "a{sv}", [shown])


@contextlib.contextmanager
def fake_stranger(bus: PrivateBus) -> Iterator[FakeLogind]:
    """Somebody else on the bus."""
    stranger = FakeLogind(bus.address)
    try:
        stranger._do(stranger._connect("org.example.Stranger"))
        yield stranger
    finally:
        stranger.close()


# --- the bus and logind come and go ----------------------------------------------------------------------------


def test_a_bus_that_is_restarted_is_found_again_and_facts_outlive_it(
    bus: PrivateBus, logind: FakeLogind, tmp_path: Path
) -> None:
    logind.log_on(ALICE)

    async def main() -> None:
        async with watching(bus.address, tmp_path) as watcher:
            await watcher.until_known(ALICE)
            for _ in range(3):
                bus.stop()
                await watcher.until(lambda: watcher.source.problem != "")
                assert bus.socket in watcher.source.problem
                assert watcher.source.logged_on == {ALICE}, "the grace is not over"
                bus.start()
                logind.start()
                await watcher.until_known(ALICE)
            assert watcher.said == [{ALICE}], "nobody was told of anything"

    run(main())


def test_facts_are_forgotten_after_the_grace_and_known_again_later(
    bus: PrivateBus, logind: FakeLogind, tmp_path: Path
) -> None:
    """Fail closed: who cannot be seen is not logged on."""
    logind.log_on(ALICE)

    async def main() -> None:
        async with watching(bus.address, tmp_path, grace_s=0.2) as watcher:
            await watcher.until_known(ALICE)
            bus.stop()
            await watcher.until(lambda: watcher.source.logged_on == frozenset())
            assert watcher.source.problem
            bus.start()
            logind.start()
            await watcher.until_known(ALICE)

    run(main())


def test_a_grace_that_was_not_needed_to_its_end_ends_nothing_later(
    bus: PrivateBus, logind: FakeLogind, tmp_path: Path
) -> None:
    logind.log_on(ALICE)

    async def main() -> None:
        async with watching(bus.address, tmp_path, grace_s=1.0) as watcher:
            await watcher.until_known(ALICE)
            logind.stop()
            await watcher.until(lambda: watcher.source.problem != "")
            logind.start()
            await watcher.until_known(ALICE)
            # The time is the test: the grace would end in it.
            await asyncio.sleep(1.1)
            assert watcher.said == [{ALICE}]

    run(main())


def test_a_bus_that_is_absent_at_start_is_waited_for_without_waking(tmp_path: Path) -> None:
    with private_bus(is_started=False) as bus:
        turns = _Turns()

        async def main() -> None:
            async with watching(bus.address, tmp_path) as watcher:
                await watcher.source.ready.wait()
                assert watcher.source.logged_on == frozenset()
                assert "No such file" in watcher.source.problem
                before = turns.count
                # The time is the test: in it nothing happens.
                await asyncio.sleep(1.0)
                assert turns.count <= before + 3, "an idle service does not wake"
                bus.start()
                with fake_logind(bus) as logind:
                    logind.log_on(ALICE)
                    await watcher.until_known(ALICE)

        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(turns)) as runner:
            runner.run(main())


class _Turns(selectors.DefaultSelector):
    """Counts how often an event loop wakes."""

    count = 0

    def select(self, timeout: float | None = None) -> Any:
        self.count += 1
        return super().select(timeout)


def test_logind_that_is_restarted_is_asked_again(bus: PrivateBus, logind: FakeLogind, tmp_path: Path) -> None:
    logind.log_on(ALICE)

    async def main() -> None:
        async with watching(bus.address, tmp_path) as watcher:
            await watcher.until_known(ALICE)
            logind.stop()
            await watcher.until(lambda: watcher.source.problem == "logind is not there")
            assert watcher.source.logged_on == {ALICE}
            logind.log_off(ALICE)
            logind.start()
            await watcher.until_known()

    run(main())


def test_logind_that_refuses_to_answer_is_no_logind_without_anybody(
    bus: PrivateBus, logind: FakeLogind, tmp_path: Path
) -> None:
    name = "org.freedesktop.DBus.Error.AccessDenied"
    logind.overrides["ListSessions"] = lambda message: Message.new_error(message, name, "not for you")

    async def main() -> None:
        async with watching(bus.address, tmp_path, is_expected=False) as watcher:
            await watcher.source.ready.wait()
            assert watcher.source.seen
            assert "not for you" in watcher.source.problem
            del logind.overrides["ListSessions"]
            logind.log_on(ALICE)
            await watcher.until_known(ALICE)

    run(main())


def test_a_bus_that_hangs_wedges_nothing(
    bus: PrivateBus, logind: FakeLogind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "CONNECT_TIMEOUT_S", 0.3)
    monkeypatch.setattr(bus_module, "CALL_TIMEOUT_S", 0.3)
    logind.log_on(ALICE)

    async def main() -> None:
        async with watching(bus.address, tmp_path) as watcher:
            await watcher.until_known(ALICE)
            bus.freeze()
            write(tmp_path / "users", "1")
            await watcher.until(lambda: "does not answer" in watcher.source.problem)
            bus.thaw()
            await watcher.until_known(ALICE)

    run(main())


def test_something_else_at_the_socket_wedges_nothing(tmp_path: Path) -> None:
    with private_bus(is_started=False) as bus:
        os.makedirs(os.path.dirname(bus.socket))

        async def main() -> None:
            async def garble(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)
                writer.close()

            server = await asyncio.start_unix_server(garble, bus.socket)
            async with watching(bus.address, tmp_path) as watcher:
                await watcher.source.ready.wait()
                assert watcher.source.problem
                server.close()
                await server.wait_closed()
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(bus.socket)
                bus.start()
                with fake_logind(bus) as logind:
                    logind.log_on(ALICE)
                    await watcher.until_known(ALICE)

        run(main())


# --- is there a logind at all? -------------------------------------------------------------------------------------


def test_a_bus_without_logind_has_none_until_one_comes(bus: PrivateBus, tmp_path: Path) -> None:
    async def main() -> None:
        async with watching(bus.address, tmp_path, is_expected=False) as watcher:
            await watcher.source.ready.wait()
            assert not watcher.source.seen
            with fake_logind(bus) as logind:
                logind.log_on(ALICE)
                await watcher.until_known(ALICE)
            await watcher.until(lambda: watcher.source.problem != "")
            assert watcher.source.seen, "once seen, it is never given up"

    run(main())


def test_a_logind_that_can_only_be_named_is_none(tmp_path: Path) -> None:
    """A container has logind's activation file and nothing to activate."""
    with private_bus(is_started=False) as bus:
        bus.services["org.freedesktop.login1"] = "/bin/false"
        bus.start()

        async def main() -> None:
            async with watching(bus.address, tmp_path, is_expected=False) as watcher:
                await watcher.source.ready.wait()
                assert not watcher.source.seen
            async with watching(bus.address, tmp_path, is_expected=True) as watcher:
                await watcher.source.ready.wait()
                assert watcher.source.problem == "logind is not there"

        run(main())
