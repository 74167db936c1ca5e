"""What an owner entrusts to a job: credentials, header lines, what stands before the @ of a remote name (I14, J35, H5).

The rule: it is there for as long as the job may need it, sealed, and not a moment longer.  Only `service.secrets` can
read what is sealed; here it is put down and thrown away.
"""

from __future__ import annotations

from dataclasses import replace

from openbits.core.events import Entry, SealOld, Step
from openbits.core.model import Job
from openbits.core.moves import with_files


def wiped(job: Job) -> tuple[Job, tuple[int, ...]]:
    """Return a job that needs nothing any more without what was entrusted to it, and which of its files have changed.

    Of the account's own credentials only that they were allowed is known: there is nothing to throw away.
    """
    files = {index: replace(file, sealed_userinfo="") for index, file in enumerate(job.files) if file.sealed_userinfo}
    return replace(with_files(job, files), explicit_credentials=(), sealed_headers=""), tuple(files)


def seal_old(job: Job, event: SealOld) -> Step:
    """Take what an earlier version of the program wrote down in clear, now that it is sealed.

    It does not count as a change of the job: nobody asked for one, and nothing runs yet.
    """
    files = {
        index: replace(job.files[index], remote_name=remote_name, sealed_userinfo=sealed)
        for index, remote_name, sealed in event.files
    }
    job = with_files(replace(job, sealed_headers=event.headers), files)
    if job.is_upload and files:
        # It may quote the address as it was, and belongs to that: the upload begins anew.
        job = replace(job, upload_memory="")
    changed = tuple(files)
    if job.state.is_final and job.cancel_until is None:
        job, _ = wiped(job)
    entry = Entry(kind="changed", text="what its owner entrusted to it is sealed now")
    return Step(job=job, changed_files=changed, entries=(entry,))
