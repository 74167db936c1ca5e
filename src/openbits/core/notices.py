"""What a job's owner is told, and until when it is owed (section 4 of the inventory).

The rules:

- Entering TRANSFERRED or ERROR owes one notice; leaving the state takes it back, unless it is for `notify_url`: a
  program that completes the job at once must not keep the web from hearing of it.
- What is owed stands in the store until somebody has acknowledged it: at least once, also after a crash, and also
  to whoever asks to be told only afterwards (N5).
- Who is told, and when again, is decided in `service.notifications`; here stands only what is owed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from openbits.core.events import FilesAnnounced, Noted, NoticeTaken, Step
from openbits.core.model import REPLY_INDEX, File, Job, JobState, Notice

_OWING = {JobState.TRANSFERRED: Notice.TRANSFERRED, JobState.ERROR: Notice.ERROR}


def owing(job: Job, target: JobState) -> Job:
    """Return the job, which enters another state, with what it then owes."""
    if target is job.state:
        return job
    notice = _OWING.get(target)
    owed_webhook = job.owed_webhook if target is JobState.ACKNOWLEDGED else notice
    if (notice, owed_webhook) == (job.owed_notice, job.owed_webhook):
        return job
    return replace(job, owed_notice=notice, owed_webhook=owed_webhook)


def apply(job: Job, event: NoticeTaken | FilesAnnounced | Noted) -> Step | None:
    """Apply what concerns the telling, and moves no job."""
    match event:
        case NoticeTaken(notice=notice, by_webhook=True):
            return Step(job=replace(job, owed_webhook=None)) if job.owed_webhook is notice else None
        case NoticeTaken(notice=notice):
            return Step(job=replace(job, owed_notice=None)) if job.owed_notice is notice else None
        case FilesAnnounced(indices=indices):
            return _announced(job, indices)
        case Noted(entries=entries):
            return Step(job=job, entries=entries)
        case _:
            assert_never(event)


def _announced(job: Job, indices: tuple[int, ...]) -> Step | None:
    changed: dict[int, File] = {}
    for index in indices:
        if index < job.part_count and job.part(index).transferred and not job.part(index).was_announced:
            changed[index] = replace(job.part(index), was_announced=True)
    if not changed:
        return None
    reply, files = job.reply, list(job.files)
    for index, file in changed.items():
        if reply is not None and index == REPLY_INDEX:
            reply = file
        else:
            files[index] = file
    return Step(job=replace(job, files=tuple(files), reply=reply), changed_files=tuple(changed))
