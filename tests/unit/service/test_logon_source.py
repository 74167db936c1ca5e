"""Which source is in force, and who is told of changes (I2; architecture, section 4)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from openbits.core.model import AccountKind
from openbits.service.logon import source as source_module
from openbits.service.logon.bus import socket_of
from openbits.service.logon.logon import Logon
from openbits.service.logon.source import AlwaysSource, AutoSource, make_source
from openbits.service.logon.utmp import UtmpSource
from openbits.service.tasks import Tasks
from support import virtual

NOBODY: frozenset[int] = frozenset()


class FakeSource:
    """Says what the test says."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self.name = "fake"
        self.ready = asyncio.Event()
        self.seen = self.works = False
        self.problem = "not asked yet"
        self.logged_on: frozenset[int] | None = NOBODY

    def start(self) -> None:
        """See Source."""

    def close(self) -> None:
        """See Source."""

    def say(self, *uids: int, problem: str = "", seen: bool = True, works: bool = True) -> None:
        """Know something new."""
        self.logged_on, self.problem, self.seen, self.works = frozenset(uids), problem, seen, works
        self.ready.set()
        self._on_change()


class Auto:
    """`auto`, over two fakes."""

    def __init__(self) -> None:
        self.changes = 0
        made: list[FakeSource] = []

        def make(on_change: Callable[[], None]) -> FakeSource:
            made.append(FakeSource(on_change))
            return made[-1]

        self.source = AutoSource(make_logind=make, make_utmp=make, on_change=self._changed)  # type: ignore[arg-type]  # a fake
        self.logind, self.utmp = made

    def _changed(self) -> None:
        self.changes += 1

    def now(self) -> tuple[str, frozenset[int] | None]:
        return self.source.name, self.source.logged_on


def test_auto_before_anything_is_known_has_nobody_logged_on() -> None:
    async def main() -> None:
        auto = Auto()
        assert auto.now() == ("logind", NOBODY)
        auto.utmp.say(7)
        assert auto.now() == ("logind", NOBODY)
        assert not auto.source.ready.is_set()
        auto.logind.say(seen=False, problem="there is none")
        assert auto.source.ready.is_set()
        assert auto.now() == ("utmp", frozenset({7}))
        assert auto.source.problem == ""

    asyncio.run(main())


def test_auto_without_logind_takes_utmp_if_something_keeps_it_else_everybody_counts() -> None:
    async def main() -> None:
        auto = Auto()
        auto.logind.say(seen=False, problem="there is none")
        assert not auto.source.ready.is_set(), "utmp was not read yet"
        auto.utmp.say(works=False, problem="there is no utmp")
        assert auto.now() == ("always", None)
        auto.utmp.say(7)
        assert auto.now() == ("utmp", frozenset({7}))
        auto.utmp.say(works=False)
        assert auto.now() == ("always", None)
        assert auto.changes == 4

    asyncio.run(main())


def test_auto_never_gives_logind_up_once_it_was_seen() -> None:
    async def main() -> None:
        auto = Auto()
        auto.utmp.say(7)
        auto.logind.say(seen=False, problem="there is none")
        auto.logind.say(8)
        assert auto.now() == ("logind", frozenset({8}))
        auto.logind.say(problem="it has gone")
        assert auto.now() == ("logind", NOBODY)
        assert auto.source.problem == "it has gone"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("provider", "is_system", "expected"),
    [
        ("always", True, "always"),
        ("always", False, "always"),
        ("utmp", True, "utmp"),
        ("utmp", False, "utmp"),
        ("logind", True, "logind"),
        ("logind", False, "logind"),
        ("auto", True, "logind"),
        ("auto", False, "always"),
    ],
)
def test_the_configuration_says_which_provider(provider: str, is_system: bool, expected: str) -> None:
    """A user's own service runs for somebody who is there."""

    async def main() -> None:
        tasks = Tasks(lambda _name, _error: None)
        source = make_source(provider, is_system=is_system, tasks=tasks, on_change=lambda: None)
        assert source.name == expected

    asyncio.run(main())


def test_a_machine_that_systemd_booted_is_expected_to_have_a_logind(tmp_path: Path) -> None:
    async def main() -> None:
        for marker, seen in ((tmp_path, True), (tmp_path / "none", False)):
            source = make_source(
                "auto",
                is_system=True,
                tasks=Tasks(lambda _name, _error: None),
                on_change=lambda: None,
                systemd_marker=str(marker),
            )
            assert isinstance(source, AutoSource)
            assert source._logind.seen is seen

    asyncio.run(main())


def test_a_user_s_service_does_not_load_the_bus_library() -> None:
    code = (
        "import sys; import openbits.service.logon.logon, openbits.service.logon.source;"
        "sys.exit('dbus_fast' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("unix:path=/run/dbus/system_bus_socket", "/run/dbus/system_bus_socket"),
        ("unix:guid=1,path=/a%20b", "/a b"),
        ("tcp:host=localhost,port=1;unix:path=/x", "/x"),
        ("unix:abstract=/x", None),
        ("unix:path=relative", None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_the_socket_of_a_bus_address(address: str, path: str | None) -> None:
    assert socket_of(address) == path


# --- the rule ----------------------------------------------------------------------------------------------------


class Rule:
    """A log-on rule over a fake, and what its observers hear."""

    def __init__(self) -> None:
        made: list[FakeSource] = []

        def make(on_change: Callable[[], None]) -> FakeSource:
            made.append(FakeSource(on_change))
            return made[-1]

        self.logon = Logon(make)
        [self.source] = made
        self.heard: list[tuple[set[int], set[int]]] = []
        self.logon.observers.append(lambda came, went: self.heard.append((set(came), set(went))))
        self.logon.concerned.append(lambda: [1, 2, 3])


def test_observers_hear_who_came_and_who_went() -> None:
    async def main() -> None:
        rule = Rule()
        rule.source.say(1, 2)
        await rule.logon.start()
        assert rule.logon.logged_on == frozenset({1, 2})
        assert rule.heard == [], "the start is no change"
        rule.source.say(2, 9)
        rule.source.say(2, 9)
        assert rule.heard == [({9}, {1})]
        rule.source.say(2, 9, problem="it is away")
        assert rule.logon.problem == "it is away"
        rule.logon.close()
        rule.source.say()
        assert len(rule.heard) == 1

    virtual.run(main())


def test_a_source_that_does_not_answer_delays_the_start_a_moment_only() -> None:
    async def main() -> None:
        rule = Rule()
        await rule.logon.start()
        assert asyncio.get_running_loop().time() == pytest.approx(3.0)
        assert rule.logon.logged_on == NOBODY
        rule.source.say(1)
        assert rule.heard == [({1}, set())]

    virtual.run(main())


def test_where_everybody_counted_those_who_matter_are_named() -> None:
    async def main() -> None:
        rule = Rule()
        rule.source.ready.set()
        rule.source.logged_on = None
        await rule.logon.start()
        assert rule.logon.is_logged_on(77)
        rule.source.say(2)
        assert rule.heard == [(set(), {1, 3})]
        assert not rule.logon.is_logged_on(77)
        rule.source.logged_on = None
        rule.source._on_change()
        assert rule.heard[1:] == [({1, 3}, set())]

    virtual.run(main())


@pytest.mark.parametrize("kind", [kind for kind in AccountKind if kind is not AccountKind.USER])
def test_accounts_of_services_are_always_logged_on(kind: AccountKind) -> None:
    async def main() -> None:
        rule = Rule()
        assert not rule.logon.is_logged_on(1)
        assert rule.logon.is_logged_on(1, kind)

    virtual.run(main())


def test_doctor_is_told_what_is_known() -> None:
    async def main() -> None:
        rule = Rule()
        await rule.logon.start()
        assert rule.logon.health() == "by fake, but it is not known who is logged on: not asked yet"
        rule.source.say(1)
        assert rule.logon.health() == "by fake: 1 person is logged on"
        rule.source.say(1, 2)
        assert rule.logon.health() == "by fake: 2 people are logged on"
        rule.source.say(1, 2, problem="the bus is away")
        assert rule.logon.health().startswith("by fake, but it is not known who is logged on: the bus is away; until")
        rule.source.logged_on, rule.source.problem = None, ""
        rule.source._on_change()
        assert rule.logon.health() == "by fake: everybody counts as logged on"

    virtual.run(main())


def test_always() -> None:
    async def main() -> None:
        source = AlwaysSource()
        source.start()
        assert source.ready.is_set()
        assert source.logged_on is None
        source.close()

    asyncio.run(main())


def test_nothing_of_the_real_machine_is_asked_here() -> None:
    """The tests above make sources and do not start them."""
    assert source_module.BOOTED_BY_SYSTEMD == "/run/systemd/system"
    assert UtmpSource.name == "utmp"
