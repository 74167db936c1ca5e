"""A run of a job in on-demand mode: how its worker hears which pieces are wanted, also while it is at work (J67, F12).

The rule: what is wanted is always told as a whole, and the worker leaves out what it has.  So it does not matter what
crosses what on the way, and nothing is fetched twice.
"""

from __future__ import annotations

from openbits.core.events import RangesFilled as PiecesFilled
from openbits.core.lifecycle import unfinished
from openbits.core.model import ByteRange, Demand, File, Job
from openbits.core.pieces import is_asked_for
from openbits.frames.worker import FileSpec, RangesFilled, TransferFiles, WantRanges
from openbits.service.run import Run
from openbits.service.terms import NetworkTerms
from openbits.service.wording import demanded_spec_of, range_specs, room
from openbits.service.worker import Worker, chunked


def hand_over_pieces(run: Run, worker: Worker, job: Job, terms: NetworkTerms) -> None:
    """Tell the worker of the files of which anything is wanted."""
    run.userinfo_of = terms.userinfo_of
    specs = [_spec(run, index, file) for index, file in unfinished(job) if is_asked_for(file)]
    chunks = chunked(specs, room)
    for position, chunk in enumerate(chunks, 1):
        _send(run, worker, chunk, last=position == len(chunks))


def ask_for_pieces(run: Run, job: Job, index: int) -> None:
    """Tell the run's worker what is wanted of a file now, if it has been told of the job's files at all."""
    worker, file = run.worker, job.files[index]
    if worker is None or run.userinfo_of is None or run.is_stopping or file.transferred:
        return
    spec = _spec(run, index, file)
    if index not in run.pieces:
        _send(run, worker, [spec], last=True)
        return
    if run.hand_over is not None:
        run.hand_over.offer_pieces([spec])
    wanted = range_specs((file.demand or Demand()).wanted)
    worker.send(WantRanges(transfer=run.number, index=index, wanted=wanted, position=spec.position))


def pieces_came(run: Run, message: RangesFilled) -> PiecesFilled:
    """Take note of what is durable now; return the event of it."""
    run.has_filled = True
    if run.hand_over is not None and message.ranges:
        run.hand_over.grown(message.index, max(piece.offset + piece.length for piece in message.ranges))
    ranges = tuple(ByteRange(piece.offset, piece.length) for piece in message.ranges)
    return PiecesFilled(run=run.run, index=message.index, ranges=ranges)


def _spec(run: Run, index: int, file: File) -> FileSpec:
    assert run.userinfo_of is not None
    return demanded_spec_of(index, file, run.userinfo_of(index))


def _send(run: Run, worker: Worker, specs: list[FileSpec], *, last: bool) -> None:
    run.pieces.update(spec.index for spec in specs)
    if run.hand_over is not None:
        run.hand_over.offer_pieces(specs)
    worker.send(TransferFiles(transfer=run.number, files=tuple(specs), last=last))
