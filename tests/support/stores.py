"""Jobs and stores for tests: ordinary ones, and the oddest that can be."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from openbits.core.model import (
    AccountKind,
    ByteRange,
    Closing,
    File,
    Identity,
    Job,
    JobError,
    JobState,
    JobType,
    Owner,
    Priority,
    Settings,
    Validator,
)
from openbits.errors import ErrorContext
from openbits.store.records import PendingEffect, StoredEvent

ALICE = Owner(identity=Identity(uid=1000, gid=1000, groups=(4, 24)), name="alice", kind=AccountKind.USER)


def job_id(number: int) -> str:
    """The id of the job with a number."""
    return f"00000000-0000-4000-8000-{number:012x}"


def make_file(number: int) -> File:
    """An ordinary file."""
    return File(
        remote_name=f"http://127.0.0.1:8080/data/file{number}",
        local_name=f"/home/alice/file{number}",
        temporary_name=f"/home/alice/.BIT{number:016x}.tmp",
    )


def make_job(number: int, *, files: int = 1, owner: Owner = ALICE) -> Job:
    """An ordinary job."""
    return Job(
        id=job_id(number),
        type=JobType.DOWNLOAD,
        owner=owner,
        settings=Settings(name=f"job {number}"),
        created_at=float(number),
        modified_at=float(number),
        files=tuple(make_file(index) for index in range(files)),
    )


def make_event(number: int, *, job: int = 1, time: float | None = None, uid: int = 1000) -> StoredEvent:
    """An ordinary event."""
    return StoredEvent(
        id=number,
        time=float(number) if time is None else time,
        kind="state",
        job_id=job_id(job),
        text=f"event {number}",
        owner_uid=uid,
    )


def make_effect(number: int, *, job: int = 1) -> PendingEffect:
    """An ordinary effect."""
    return PendingEffect(id=number, job_id=job_id(job), kind="complete", payload="{}")


# --- everything that can be ------------------------------------------------------------------

uids = st.integers(0, 2**32 - 2)
sizes = st.integers(0, 2**63 - 1)
times = st.floats(0, 4e10)
any_text = st.text(st.characters(), max_size=40)
"""Any text at all, lone surrogates included."""
clean_text = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40)
paths = st.binary(max_size=40).map(lambda raw: "/" + raw.replace(b"\0", b"").decode("utf-8", "surrogateescape"))

validators = st.builds(Validator, etag=st.none() | any_text, last_modified=st.none() | any_text, size=st.none() | sizes)
files = st.builds(
    File,
    remote_name=clean_text,
    local_name=paths,
    temporary_name=paths,
    ranges=st.lists(st.builds(ByteRange, sizes, st.integers(-1, 2**63 - 1)), max_size=3).map(tuple),
    checksum=st.none() | st.text(string.hexdigits, max_size=10).map(lambda digits: f"sha256:{digits}"),
    bytes_total=st.none() | sizes,
    bytes_transferred=sizes,
    validator=validators,
    transferred=st.booleans(),
    completed=st.booleans(),
    validation=st.none() | st.booleans(),
    resumable=st.none() | st.booleans(),
    restarts=st.integers(0, 1000),
    response_headers=any_text,
)
owners = st.builds(
    Owner,
    identity=st.builds(Identity, uid=uids, gid=uids, groups=st.lists(uids, max_size=4).map(tuple)),
    name=any_text,
    kind=st.sampled_from(AccountKind),
)
settings = st.builds(
    Settings,
    name=clean_text,
    description=any_text,
    priority=st.sampled_from(Priority),
    maximum_download_time=st.none() | st.integers(0, 2**32 - 1),
    cost_flags=st.none() | st.integers(0, 2**32 - 1),
    max_download_size=st.none() | sizes,
    dynamic_content=st.booleans(),
    security_flags=st.integers(0, 0x0F1F),
    http_method=st.sampled_from(["", "POST"]),
    use_netrc=st.booleans(),
)
errors = st.builds(
    JobError,
    name=st.sampled_from(["E_ACCESSDENIED", "BG_E_HTTP_ERROR_404", "ERROR_DISK_FULL"]),
    context=st.sampled_from(ErrorContext),
    message=any_text,
    file_index=st.none() | st.integers(0, 9),
    protocol=st.none() | st.sampled_from(["http", "file"]),
)


def jobs(number: int, max_files: int = 4) -> st.SearchStrategy[Job]:
    """Every job that there can be under one id."""
    return st.builds(
        Job,
        id=st.just(job_id(number)),
        type=st.sampled_from(JobType),
        owner=owners,
        settings=settings,
        state=st.sampled_from(JobState),
        files=st.lists(files, max_size=max_files).map(tuple),
        error=st.none() | errors,
        error_count=st.integers(0, 10**6),
        created_at=times,
        modified_at=times,
        transferred_at=st.none() | times,
        ended_at=st.none() | times,
        was_resumed=st.booleans(),
        run=st.integers(0, 10**6),
        active_s=times,
        active_since=st.none() | times,
        retry_at=st.none() | times,
        no_progress_since=st.none() | times,
        closing=st.none() | st.sampled_from(Closing),
        result=st.sampled_from(["", "S_OK", "BG_S_PARTIAL_COMPLETE"]),
        reply=st.none() | files,
        upload_memory=any_text,
        cancel_until=st.none() | times,
    )
