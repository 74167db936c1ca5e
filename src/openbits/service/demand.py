"""Calls about pieces of files (J67, F11–F13): who may change a job may ask for pieces of its files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openbits.core import access, names, quotas
from openbits.core.demand import ranges_here
from openbits.core.events import MovePosition, RequestRanges
from openbits.core.model import ByteRange, Caller, Demand, Job
from openbits.core.pieces import merged
from openbits.errors import BitsError
from openbits.service.calls import Outcome
from openbits.service.configuration import Configuration
from openbits.service.ledger import Draft, Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class PiecesKnown:
    """What is wanted of a file, what is here, and from where on it is fetched first."""

    wanted: tuple[ByteRange, ...]
    filled: tuple[ByteRange, ...]
    position: int | None


class DemandCalls:
    """RequestFileRanges, UpdateDownloadPosition, GetFilledFileRanges."""

    def __init__(self, ledger: Ledger, configuration: Callable[[], Configuration]) -> None:
        self._ledger = ledger
        self._configuration = configuration

    def __repr__(self) -> str:
        return "<DemandCalls>"

    async def request(self, caller: Caller, job_id: str, index: int, ranges: Sequence[ByteRange]) -> Outcome:
        """F12. A job that is SUSPENDED fetches them when it is resumed.

        Raises BG_E_RANDOM_ACCESS_NOT_SUPPORTED, BG_E_INVALID_RANGE, BG_E_TOO_MANY_RANGES_IN_FILE, BG_E_INVALID_STATE.
        """
        self._changeable(caller, self._ledger.jobs.get(job_id), index)
        for piece in ranges:
            # One by one, since they may overlap each other.
            names.check_ranges((piece,), None)
        # What counts against the limit is what they make together.
        limits = self._configuration().quotas
        limit = quotas.range_limit(limits, caller)
        if (count := len(merged(ranges))) > limit:
            raise BitsError(
                "BG_E_TOO_MANY_RANGES_IN_FILE",
                f"{count} ranges were requested at once; {limit} are allowed ({limits.named('max_ranges_per_file')})",
            )
        return await self._apply(caller, job_id, RequestRanges(index=index, ranges=tuple(ranges)))

    async def move(self, caller: Caller, job_id: str, index: int, offset: int) -> Outcome:
        """F11. Raises BG_E_RANDOM_ACCESS_NOT_SUPPORTED, BG_E_INVALID_RANGE, BG_E_INVALID_STATE."""
        self._changeable(caller, self._ledger.jobs.get(job_id), index)
        return await self._apply(caller, job_id, MovePosition(index=index, offset=offset))

    def known(self, caller: Caller, job_id: str, index: int) -> PiecesKnown:
        """F13. Raises BG_E_RANDOM_ACCESS_NOT_SUPPORTED for uploads and files with a list of ranges."""
        job = access.existing(self._ledger.jobs.get(job_id))
        access.may_read(caller, job.owner)
        _check_index(job, index)
        demand = job.files[index].demand or Demand()
        return PiecesKnown(wanted=demand.wanted, filled=ranges_here(job, index), position=demand.position)

    async def _apply(self, caller: Caller, job_id: str, event: RequestRanges | MovePosition) -> Outcome:
        def apply(draft: Draft) -> Outcome:
            self._changeable(caller, draft.get(job_id), event.index)
            draft.by = caller
            changed = draft.apply(job_id, event)
            assert changed is not None
            return Outcome(result="S_OK", job=changed)

        return await self._ledger.submit(apply)

    @staticmethod
    def _changeable(caller: Caller, job: Job | None, index: int) -> None:
        job = access.existing(job)
        access.may_change(caller, job.owner)
        _check_index(job, index)


def _check_index(job: Job, index: int) -> None:
    if not 0 <= index < len(job.files):
        raise BitsError("BG_E_FILE_NOT_FOUND", f"the job has no file {index}; it has {len(job.files)}")
