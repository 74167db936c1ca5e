"""How far jobs have come, for those who follow: at most four times a second for each, never written down.

The rule: while nobody follows it costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from openbits.core.model import Job
from openbits.service.feed import Feed
from openbits.service.records import ProgressReport

INTERVAL_S: Final = 0.25


class ProgressNews:
    """See the module's rule; `received_bytes` is what has come of a job, durable or not."""

    def __init__(self, *, feed: Feed, jobs: Mapping[str, Job], received_bytes: Callable[[Job], int]) -> None:
        self._feed = feed
        self._jobs = jobs
        self._received_bytes = received_bytes
        self._moving: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<ProgressNews of {len(self._moving)} jobs>"

    def moved(self, job_id: str) -> None:
        """More of a job has come, or gone."""
        if not len(self._feed):
            return
        self._moving.add(job_id)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._tell)

    def _tell(self) -> None:
        self._timer = None
        moving, self._moving = self._moving, set()
        for job_id in moving:
            job = self._jobs.get(job_id)
            if job is not None and job.state.is_active:
                self._feed.publish(
                    ProgressReport(
                        job_id=job_id,
                        owner_uid=job.owner.identity.uid,
                        bytes_transferred=self._received_bytes(job),
                        bytes_total=job.bytes_total,
                        files_transferred=job.files_transferred,
                        files_total=len(job.files),
                    )
                )
