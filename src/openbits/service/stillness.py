"""Jobs that are held still: while one is, no run of it begins and none of its files is renamed or deleted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Hold:
    """One job's; `wanted` counts who has it or waits for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    free: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: int = 0


class Holds:
    """Who holds a job still has it alone; others wait."""

    def __init__(self) -> None:
        self._holds: dict[str, _Hold] = {}

    def __repr__(self) -> str:
        return f"<Holds {len(self._holds)}>"

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._holds

    @contextlib.asynccontextmanager
    async def hold(self, job_id: str) -> AsyncIterator[None]:
        """Hold a job still for the length of a `with` block."""
        hold = self._holds.setdefault(job_id, _Hold())
        hold.wanted += 1
        try:
            async with hold.lock:
                yield
        finally:
            hold.wanted -= 1
            if not hold.wanted:
                del self._holds[job_id]
                hold.free.set()

    async def wait_free(self, job_id: str) -> None:
        """Wait until nobody holds a job still."""
        while (hold := self._holds.get(job_id)) is not None:
            await hold.free.wait()
