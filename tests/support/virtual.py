"""An event loop in which time passes only when nothing else is left to do: an hour takes no time at all."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

EPOCH = 1_800_000_000.0
_T = TypeVar("_T")


class NothingLeft(BaseException):
    """Everybody waits, and nothing can happen any more: the program under test is stuck."""


class Interrupted(BaseException):
    """The loop has taken as many turns as it was to take."""


class _Selector(selectors.DefaultSelector):
    """Asks the kernel without waiting; where it should wait, time jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.turns = 0
        self.last_turn: int | None = None

    def select(self, timeout: float | None = None) -> Any:
        if self.turns == self.last_turn:
            raise Interrupted
        self.turns += 1
        events = super().select(0)
        if not events and timeout is None:
            raise NothingLeft
        if not events and timeout is not None:
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time jumps to the next timer whenever nothing is ready. Threads have no place here: see InlineExecutor."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    @property
    def turns(self) -> int:
        """How many turns it has taken."""
        return self._virtual.turns

    def interrupt_after(self, turns: int | None) -> None:
        """Raise Interrupted when it has taken so many turns in all; None: never."""
        self._virtual.last_turn = turns

    def wall(self) -> float:
        """What the service takes for the time of day."""
        return EPOCH + self.time()


class InlineExecutor(Executor):
    """Does what it is given at once, in the caller's thread."""

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        future: Future[_T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - a future holds any error
            future.set_exception(error)
        return future


class Clock:
    """The service's clock in a VirtualLoop."""

    @staticmethod
    def now() -> float:
        """Seconds since the epoch."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop.wall()


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a test in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


async def rest() -> None:
    """Let everything happen that can happen now; no more than a millionth of a second passes."""
    await asyncio.sleep(1e-6)
