"""A helper thread does, one after the other, what would block the loop: syncing, reading back, renaming.

Its thread starts with the first piece of work, long after the rights were dropped: a thread that
was born earlier would have kept them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from openbits.worker.loop import Loop

_T = TypeVar("_T")


class Helper:
    """Runs pieces of work in order and brings each result back to the loop."""

    def __init__(self, loop: Loop, name: str) -> None:
        self._loop = loop
        self._name = name
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_let_go = False

    def __repr__(self) -> str:
        return f"<Helper {self._name} waiting={self._queue.qsize()}>"

    def submit(self, work: Callable[[], _T], done: Callable[[_T | OSError], None] | None = None) -> None:
        """Run `work` in the thread, then `done` with its result, or the OSError that it raised, in the loop.

        Any other exception is a defect: it is raised again in the loop and ends the worker.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

        def piece() -> None:
            try:
                result: _T | OSError = work()
            except OSError as error:
                result = error
            except Exception as error:  # noqa: BLE001 -- it is raised again in the loop
                self._loop.post(_raiser(error))
                return
            if done is not None and not self._is_let_go:
                self._loop.post(lambda: done(result))

        self._queue.put(piece)

    def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def let_go(self) -> None:
        """End the thread after what was submitted, without waiting: it may hang. Nothing is told any more."""
        self._is_let_go = True
        if self._thread is not None:
            self._queue.put(None)
            self._thread = None

    def _run(self) -> None:
        while (piece := self._queue.get()) is not None:
            piece()


def _raiser(error: Exception) -> Callable[[], None]:
    def raise_it() -> None:
        raise error

    return raise_it
