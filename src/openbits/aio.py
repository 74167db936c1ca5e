"""The asyncio client: as `openbits`, with `await`."""

from __future__ import annotations

from openbits.client.aio import File, Job, JobError, Manager, TokenOptions

__all__ = ["File", "Job", "JobError", "Manager", "TokenOptions"]
