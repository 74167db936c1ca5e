"""Where the server's tasks are started: each has a name, and none dies unheard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class Tasks:
    """The tasks of one part of the server."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._expected: dict[asyncio.Task[Any], tuple[type[Exception], ...]] = {}

    def __repr__(self) -> str:
        return f"<Tasks {sorted(task.get_name() for task in self._running)}>"

    def __len__(self) -> int:
        return len(self._running)

    def start(
        self, name: str, work: Coroutine[Any, Any, _T], *, expected: tuple[type[Exception], ...] = ()
    ) -> asyncio.Task[_T]:
        """Do the work in the background; ends by `expected` exceptions are looked at by whoever awaits the task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        if expected:
            self._expected[task] = expected
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        expected = self._expected.pop(task, ())
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, expected):
            log.error("action=task-died task=%s", task.get_name(), exc_info=error)

    async def wait_finished(self, limit_s: float) -> None:
        """Let them finish, and cancel what has not after the limit."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=limit_s)
        rest = set(self._running)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
