"""HTTP methods of a job's own (H10).

The rule: a request with a method of one's own may change something at the server, and only its sender knows what.  So
the job is FOREGROUND and loses its slot to nobody, an error is final until Resume, and every run asks for everything,
from the first byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from openbits.core.events import Failure
from openbits.core.model import File, Job, JobType, Priority, Settings, Validator
from openbits.errors import BitsError

DEFAULT_METHODS: Final = {JobType.DOWNLOAD: "GET", JobType.UPLOAD: "BITS_POST", JobType.UPLOAD_REPLY: "BITS_POST"}
"""What GetHttpMethod says of a job that has no method of its own; setting it is setting nothing."""
WITHOUT_CONTENT: Final = frozenset({"HEAD", "CONNECT", "TRACE"})
"""Methods whose answer cannot be the file."""


def checked_method(method: str, job_type: JobType) -> str:
    """Return a method as settings keep it: empty for the type's default. Raises E_INVALIDARG, E_NOTIMPL."""
    if method in ("", DEFAULT_METHODS[job_type]):
        return ""
    if job_type is not JobType.DOWNLOAD:
        raise BitsError(
            "E_NOTIMPL",
            "an upload uses the methods of its protocol: set upload_protocol, which is 'put' for one plain PUT",
        )
    if method.upper() in WITHOUT_CONTENT:
        raise BitsError("E_INVALIDARG", f"the answer to {method.upper()} holds no file: use another method")
    return method


def consequences(
    settings: Settings, changes: Mapping[str, Any], *, job_type: JobType, has_ranges: bool
) -> dict[str, Any]:
    """Return what has to change beside checked changes: a method of one's own makes the job FOREGROUND, for good.

    Raises BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD for what does not go with one.
    """
    method = checked_method(changes.get("http_method", settings.http_method), job_type)
    also: dict[str, Any] = {"http_method": method} if "http_method" in changes else {}
    if not method:
        return also
    if changes.get("priority", Priority.FOREGROUND) is not Priority.FOREGROUND:
        raise _refused(f"a job with the method {method} is FOREGROUND and stays so")
    if changes.get("dynamic_content", settings.dynamic_content):
        raise _refused(f"dynamic_content is not possible together with the method {method}")
    if has_ranges:
        raise _refused(f"byte ranges are asked for with GET and cannot be had with the method {method}")
    return {**also, "priority": Priority.FOREGROUND}


def refuse_ranges(settings: Settings) -> None:
    """Raises BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD for a job that cannot ask for byte ranges."""
    if settings.http_method:
        raise _refused(f"byte ranges are asked for with GET and cannot be had with the method {settings.http_method}")


def judged(job: Job, failure: Failure) -> Failure:
    """Return a failure as it counts for the job: what was sent with a method of its own is not sent again unasked.

    A job that has not sent anything, since there is no network, may well wait for one.
    """
    if not job.settings.http_method or not failure.transient or not job.state.is_active:
        return failure
    return replace(failure, transient=False)


def from_zero(job: Job) -> dict[int, File]:
    """Return the files that a new run must begin again, by index."""
    if not job.settings.http_method:
        return {}
    return {
        index: replace(file, bytes_transferred=0, validator=Validator())
        for index, file in enumerate(job.files)
        if not file.transferred and (file.bytes_transferred or file.validator != Validator())
    }


def _refused(text: str) -> BitsError:
    return BitsError("BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD", text)
