"""The files of a transfer of which pieces are wanted: who hears a new wish, and what is left when a fetch rests (F12).

The rule: a wish reaches the file wherever it is, in the queue, under way, or resting with everything that it had been
asked for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from openbits.frames.worker import FileSpec, WantRanges
from openbits.worker.ondemand import OnDemand
from openbits.worker.run import Fetch


class Pieces:
    """One for each transfer; for other transfers it is empty."""

    def __init__(self) -> None:
        self._under_way: dict[int, OnDemand] = {}
        self._resting: dict[int, FileSpec] = {}

    def __repr__(self) -> str:
        return f"<Pieces under_way={sorted(self._under_way)} resting={sorted(self._resting)}>"

    def begin(self, fetch: OnDemand) -> OnDemand:
        """A file is under way."""
        self._under_way[fetch.spec.index] = fetch
        return fetch

    def want(self, order: WantRanges, queue: deque[FileSpec]) -> bool:
        """Let the file hear a new wish; return whether it came into the queue by that."""
        fetch = self._under_way.get(order.index)
        if fetch is not None:
            fetch.want(order.wanted, order.position)
            return False
        for place, spec in enumerate(queue):
            if spec.index == order.index:
                queue[place] = replace(spec, wanted=order.wanted, position=order.position)
                return False
        left = self._resting.pop(order.index, None)
        if left is None:
            return False
        queue.append(replace(left, wanted=order.wanted, position=order.position))
        return True

    def finished(self, fetch: Fetch) -> None:
        """The file is whole: no wish is left."""
        self._under_way.pop(fetch.spec.index, None)

    def ended(self, fetch: Fetch, queue: deque[FileSpec]) -> bool:
        """A fetch rests, or has failed; return whether it came into the queue again, as it was asked for more."""
        if not isinstance(fetch, OnDemand):
            return False
        del self._under_way[fetch.spec.index]
        left = fetch.as_left()
        if left.wanted and not fetch.was_dropped:
            queue.append(left)
            return True
        self._resting[left.index] = left
        return False
