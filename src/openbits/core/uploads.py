"""What is different about upload jobs: one file, a reply, a session at the server that must not be left behind.

An upload job has exactly one file (M7).  It can be completed only when the server has that file, and the reply is
here (J7).  Cancelled, it tells the server so for as long as a day, after the job has gone from its owner's view (J6).
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from openbits.core import entries, moves
from openbits.core.environment import Environment
from openbits.core.events import SetReplyName, Step
from openbits.core.model import DAY_S, File, Job, JobState, JobType
from openbits.core.names import temporary_name
from openbits.core.states import Trigger, next_state
from openbits.errors import BitsError

PROTOCOLS: Final = ("auto", "bits", "tus", "ietf", "put")
REPLY_LIMIT_BYTES: Final = 1024 * 1024
"""GetReplyData gives no more (J32)."""


def refuse_for_upload(job: Job, what: str) -> None:
    """Raises E_NOTIMPL for an upload job (F4, J40, J41)."""
    if job.is_upload:
        raise BitsError("E_NOTIMPL", f"{what} in download jobs only")


def refuse_without_reply(job: Job) -> None:
    """Raises E_NOTIMPL for a job that no reply belongs to (J31–J34)."""
    if job.type is not JobType.UPLOAD_REPLY:
        raise BitsError("E_NOTIMPL", "the server replies to upload-reply jobs only: create the job with that type")


def refuse_second_file(job: Job, new: int) -> None:
    """Raises BG_E_TOO_MANY_FILES (J1)."""
    if job.is_upload and len(job.files) + new > 1:
        raise BitsError("BG_E_TOO_MANY_FILES", "an upload job has one file: create another job for another file")


def refuse_early_complete(job: Job) -> None:
    """Raises BG_E_INVALID_STATE for an upload that has not ended: there is nothing to keep of a part of it (J7)."""
    if job.is_upload and job.state is not JobState.TRANSFERRED:
        raise BitsError(
            "BG_E_INVALID_STATE",
            f"the job is {job.state.name}: an upload can be completed when it is TRANSFERRED, and cancelled before",
        )


def set_reply_name(job: Job, event: SetReplyName, env: Environment) -> Step:
    """J33. Raises E_NOTIMPL, and BG_E_INVALID_STATE once the reply has begun to come."""
    next_state(job.state, Trigger.CHANGE)
    moves.refuse_while_closing(job)
    refuse_without_reply(job)
    if job.reply is not None and (job.reply.resumable is not None or job.reply.transferred):
        raise BitsError("BG_E_INVALID_STATE", "the reply is being downloaded already: it stays where it is")
    reply = None
    if event.local_name:
        refuse_reply_over_source(event.local_name, job.files)
        reply = File(remote_name="", local_name=event.local_name, temporary_name=event.temporary_name)
    job = replace(moves.touched(job, env), reply=reply)
    if job.was_resumed:
        job = with_reply_name(job)
    entry = entries.changed("reply file name", f"set: reply file name {event.local_name or '(generated)'}")
    return replace(moves.restarted(job, env), entries=(entry,))


def refuse_reply_over_source(reply_name: str, files: Sequence[File]) -> None:
    """Raises E_INVALIDARG for a reply that would take the place of the file that is uploaded."""
    if any(file.local_name == reply_name for file in files):
        raise BitsError("E_INVALIDARG", "the reply would take the place of the file that is uploaded: name another one")


def with_reply_name(job: Job) -> Job:
    """J34: without a name of its owner's choice, the reply stands beside the file that is uploaded."""
    if job.type is not JobType.UPLOAD_REPLY or job.reply is not None:
        return job
    directory = posixpath.dirname(job.files[0].local_name)
    local_name = posixpath.join(directory, f"BITS-reply-{job.id}")
    temporary = temporary_name(local_name, job.id.replace("-", "")[:16])
    return replace(job, reply=File(remote_name="", local_name=local_name, temporary_name=temporary))


def cancel_until(job: Job, env: Environment) -> float | None:
    """Until when the server is told that the job is cancelled; None when it knows of no session (J6)."""
    # A run that is under way may have begun a session that has not been written down yet.
    if not job.is_upload or not (job.upload_memory or job.state.is_active):
        return None
    return env.now + min(DAY_S, job.settings.no_progress_timeout)
