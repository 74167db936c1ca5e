"""From what a program asks for to the JSON of a request."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from openbits.client import calls
from openbits.client.calls import Json

if TYPE_CHECKING:
    from openbits.client.values import FileSpec, JobSpec


def local_path(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> str:
    """Return a path as the API takes it: text, bytes that are not UTF-8 as surrogates. It must be absolute (D7)."""
    return os.fsdecode(path)


def process_umask() -> int | None:
    """The umask of this process, read without changing it: os.umask would, for all threads, for a moment."""
    try:
        with open("/proc/self/status", "rb") as status:
            for line in status:
                if line.startswith(b"Umask:"):
                    return int(line.split()[1], 8)
    except (OSError, ValueError, IndexError):
        return None
    return None


def default_settings(settings: Mapping[str, Any] | None = None) -> Json:
    """Settings of a new job: the caller's umask, unless `settings` says otherwise, and `settings`."""
    umask = process_umask()
    return {**({} if umask is None else {"umask": umask}), **(settings or {})}


def file_json(spec: FileSpec) -> Json:
    """Return the FileIn of a file to add."""
    ranges = [(one.offset, one.length) for one in spec.ranges]
    return calls.file_in(spec.remote_name, local_path(spec.local_name), ranges=ranges, checksum=spec.checksum)


def job_json(spec: JobSpec) -> Json:
    """Return the JobIn of a job to create; the umask of this process goes along."""
    return calls.job_in(
        spec.name,
        job_type=spec.type.value,
        settings=default_settings(spec.settings),
        files=[file_json(one) for one in spec.files],
        resume=spec.resume,
        reply_file_name=None if spec.reply_file_name is None else local_path(spec.reply_file_name),
    )
