"""What workers report of the files of a run, as events for the ledger.

A worker may have been taken over by a hostile server: what cannot be is no report, and there is no event of it.
"""

from __future__ import annotations

from typing import Final

from openbits.core.events import FileCheckpoint, FilesAnswered, FilesFetched, HeadersSeen, Report
from openbits.core.events import RangesFilled as PiecesFilled
from openbits.core.model import Job
from openbits.frames.worker import FileDurable, FilesDone, FilesStarted, FileStarted, LastHeaders, RangesFilled
from openbits.service.pieces import pieces_came
from openbits.service.run import Run
from openbits.service.wording import answered, can_be, can_be_filled

PROGRESS: Final = (FileCheckpoint, FilesFetched, PiecesFilled)
"""Events that mean that bytes have come."""


def report_of(run: Run, job: Job, message: object) -> Report | None:
    """Return the event of a report on files, or None for everything else."""
    known = range(job.part_count)
    match message:
        case FileDurable(index=index, durable_bytes=durable) if index in known and durable >= 0:
            return FileCheckpoint(run=run.run, index=index, durable_bytes=durable)
        case FilesDone(files=files) if all(done.index in known and done.size >= 0 for done in files):
            run.has_filled = run.has_filled or bool(files)
            for done in files:
                run.received.pop(done.index, None)
                run.unfinished.discard(done.index)
            return FilesFetched(run=run.run, files=tuple((done.index, done.size) for done in files))
        case RangesFilled() if can_be_filled(message, job):
            return pieces_came(run, message)
        case FileStarted(index=index) if can_be(message, known):
            run.received.pop(index, None)
            return answered(run.run, message)
        case FilesStarted(files=files) if all(can_be(started, known) for started in files):
            for started in files:
                run.received.pop(started.index, None)
            return FilesAnswered(answers=tuple(answered(run.run, started) for started in files))
        case LastHeaders(index=index, response_headers=headers) if index in known:
            return HeadersSeen(run=run.run, index=index, response_headers=headers)
        case _:
            return None
