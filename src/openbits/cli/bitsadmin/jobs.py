"""The switches that make jobs, fill them, move them and end them (inventory B4, B6, B8 to B11, B13, B15)."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable
from typing import Final

from openbits.cli.bitsadmin.invocation import Invocation, UsageFailure
from openbits.cli.bitsadmin.lines import url_shown
from openbits.cli.bitsadmin.output import guid, note
from openbits.cli.bitsadmin.words import ACL_LETTERS, acl_flags, acl_letters
from openbits.cli.text import safe
from openbits.client import calls
from openbits.client.manager import Job
from openbits.client.values import LENGTH_TO_EOF, JobType, Range, Result
from openbits.errors import BitsError

TYPES: Final = {"/download": JobType.DOWNLOAD, "/upload": JobType.UPLOAD, "/upload-reply": JobType.UPLOAD_REPLY}
_RANGE: Final = re.compile(r"([0-9]{1,20}):([0-9]{1,20}|eof)", re.IGNORECASE)
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def create(call: Invocation) -> None:
    """Create a job and print its GUID (B6)."""
    chosen = [job_type for option, job_type in TYPES.items() if call.has(option)]
    if len(chosen) > 1:
        raise UsageFailure("a job has one type")
    job = call.manager.create_job(call.arguments[0], chosen[0] if chosen else JobType.DOWNLOAD)
    call.output.value(guid(job.id), sentence=f"Created job {guid(job.id)}.")


def add_file(call: Invocation) -> None:
    """Add a file (B8)."""
    _, url, path = call.arguments
    call.job.add_file(url, path)
    _say_added(call, url, path)


def add_file_set(call: Invocation) -> None:
    """Add the files that a text file names, all or none (B9)."""
    pairs = read_file_set(call.arguments[1])
    call.job.add_file_set(pairs)
    for url, path in pairs:
        _say_added(call, url, path)


def add_file_with_ranges(call: Invocation) -> None:
    """Add parts of a file (B10)."""
    _, url, path, text = call.arguments
    ranges = read_ranges(text)
    call.job.add_file_with_ranges(url, path, ranges)
    _say_added(call, url, path)


def _say_added(call: Invocation, url: str, path: str) -> None:
    call.output.line(f"Added {url_shown(url)} -> {safe(path)} to job.")


def read_ranges(text: str) -> list[Range]:
    """Read `offset:length,offset:eof`; raises UsageFailure (B10)."""
    ranges = []
    for one in text.split(","):
        match = _RANGE.fullmatch(one.strip())
        if match is None:
            raise UsageFailure(f"{safe(one)!r} is no range: write offset:length,offset:eof")
        length = LENGTH_TO_EOF if match[2].lower() == "eof" else int(match[2])
        ranges.append(Range(int(match[1]), length))
    return ranges


def read_file_set(path: str) -> list[tuple[str, str]]:
    """Read a text file of URLs and paths; raises UsageFailure (B9).

    A URL has no space, so everything behind the first is the path, spaces in it included. Text files of Windows begin
    with a mark that says how they are encoded; without one, bytes stay what they are.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UsageFailure(f"{safe(path)} cannot be read: {error.strerror}") from None
    pairs = []
    for number, line in enumerate(_decoded(content, path).splitlines(), 1):
        words = line.split(maxsplit=1)
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2:
            raise UsageFailure(f"{safe(path)}, line {number}: there is no local name behind {url_shown(words[0])}")
        pairs.append((words[0], words[1].rstrip()))
    if not pairs:
        raise UsageFailure(f"{safe(path)} names no file")
    return pairs


def _decoded(content: bytes, path: str) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                return content[len(mark) :].decode(encoding)
            except UnicodeDecodeError:
                raise UsageFailure(f"{safe(path)} is not the {encoding} that it says it is") from None
    return os.fsdecode(content)


def replace_remote_prefix(call: Invocation) -> None:
    """Change the URLs of the files that begin so (B11)."""
    _, old, new = call.arguments
    if call.job.replace_remote_prefix(old, new) is Result.S_FALSE:
        call.output.line(f"No remote name begins with {url_shown(old)}.")
        return
    call.output.line(f"Replaced remote prefix {url_shown(old)} with {url_shown(new)}.")


def suspend(call: Invocation) -> None:
    """Suspend a job (B13)."""
    _move(call, Job.suspend, "Job suspended.")


def resume(call: Invocation) -> None:
    """Resume a job (B13)."""
    _move(call, Job.resume, "Job resumed.")


def cancel(call: Invocation) -> None:
    """Cancel a job (B13)."""
    _move(call, Job.cancel, "Job canceled.")


def complete(call: Invocation) -> None:
    """Complete a job (B13)."""
    _move(call, Job.complete, "Job completed.")


def _move(call: Invocation, verb: Callable[[Job], Result], sentence: str) -> None:
    say_remark(verb(call.job))
    call.output.line(sentence)


def say_remark(result: Result) -> None:
    """Say on standard error what a call that went well remarks, such as BG_S_PARTIAL_COMPLETE."""
    if result is not Result.S_OK:
        note(f"bitsadmin: {result.value} ({result.hresult:#010x}): {result.text}")


def reset(call: Invocation) -> int | None:
    """Cancel all jobs (B4); the status is 0 only if all are."""
    jobs = call.session.perform(calls.all_jobs(all_users=call.has("/allusers")))
    canceled, status = 0, None
    for job in jobs:
        try:
            call.session.perform(calls.cancel(job["id"]))
        except BitsError as error:
            call.output.failure(f"cancel {guid(job['id'])}", error)
            status = int(error.code.exit_code)
        else:
            canceled += 1
            call.output.line(f"{guid(job['id'])} canceled.")
    call.output.line(f"{canceled} out of {len(jobs)} jobs canceled.")
    return status


def set_acl_flags(call: Invocation) -> None:
    """Set what of a source's rights is kept (B15)."""
    flags = wanted_acl_flags(call.arguments[1])
    say_remark(call.job.set_property("acl_flags", flags))
    call.output.line(f"ACL flags set to {acl_letters(flags)}.")


def wanted_acl_flags(letters: str) -> int:
    """Read ACL letters; raises UsageFailure."""
    flags = acl_flags(letters)
    if flags is None:
        raise UsageFailure(f"{safe(letters)!r} are no ACL flags: write any of {ACL_LETTERS}")
    return flags
