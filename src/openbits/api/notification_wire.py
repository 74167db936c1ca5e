"""The shapes of what goes over the local API about notifications (section 4 of the inventory, J18, J30)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from openbits.api.wire import ErrorOut, NotifyCommandOut, RangeOut, Request, Response


class NotifyCommandIn(Request):
    """What is run when the job is TRANSFERRED or in ERROR (J30)."""

    program: str
    """Its full path."""
    arguments: list[str] | None = None
    """The whole argument vector; its first is the program, as its path or its name. Null: the path alone."""
    parameters: str | None = None
    """The same as one text, which is divided at blanks, with a shell's quotation marks; in place of `arguments`."""


class NotifyCommandState(Response):
    """What is run, if anything."""

    notify_command: NotifyCommandOut | None


class ListeningBegun(Response):
    """The program is known; PUT /v1/jobs/{job_id}/notify-interface names its stream for each job it is to hear of.

    The stream is the program's life: when the connection ends, it is told nothing any more.
    """

    stream: str
    """What stands for the program, for as long as the stream lasts; nobody else may know it."""
    answer_s: int
    """How long an answer may take, in seconds."""


class NoticeOut(Response):
    """Something that the program is told, and has to answer."""

    notice: str
    """What the answer names: POST /v1/notifications/{stream}/acknowledgements."""
    job_id: str
    event: Literal["job_transferred", "job_error", "job_modification", "file_transferred", "file_ranges_transferred"]
    file: int | None
    """Index of the file that it is about; of an upload's reply 1. Null: it is about the job."""
    ranges: list[RangeOut]
    """Which pieces of the file have come."""
    error: ErrorOut | None
    """Why the job is in ERROR, for those who may see the job."""
    registration: int
    """The number that the program gave when it was set."""


class ListeningOver(Response):
    """The program is told nothing more of this job."""

    job_id: str
    reason: Literal["replaced", "cleared", "ended"]
    """Another program was set, or none; or the job has ended."""
    registration: int


class NotifyInterfaceIn(Request):
    """Which program is told of the job (J18)."""

    stream: str
    registration: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    """A number of the program's choice, which comes back with all that it is told of the job."""


class AcknowledgementIn(Request):
    """The answer to a notice: null acknowledges it, the name of an error has it told again (N4)."""

    notice: str
    error: str | None = None
    message: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    """Why, for people."""
