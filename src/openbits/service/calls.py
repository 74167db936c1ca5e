"""What goes into the calls of BITS and comes out of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from openbits.core.model import ByteRange, Job, JobType


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFile:
    """A file to add; nothing in it has been checked."""

    remote_name: str
    local_name: str
    ranges: tuple[ByteRange, ...] | None = None
    """None: the whole file. An empty tuple is an error (J41)."""
    checksum: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to create; nothing in it has been checked. `settings` has the names of core.model.Settings."""

    name: str
    type: JobType
    settings: Mapping[str, Any]
    files: Sequence[NewFile] = ()
    resume: bool = False
    reply_file_name: str = ""
    """Where the server's reply is to stand (J33); empty: it gets a name when the job is resumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call ended: the name of a success code (S_OK, S_FALSE, BG_S_…) and the job after it."""

    result: str
    job: Job


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One line of `bits doctor`."""

    name: str
    ok: bool
    message: str
