"""The switches that make jobs and move them: /create, /suspend, /resume, /cancel, /complete (inventory B6, B13)."""

from __future__ import annotations

from openbits.cli.bitsadmin.invocation import Invocation
from openbits.cli.bitsadmin.output import guid
from openbits.client.values import JobType

TYPES = {"/download": JobType.DOWNLOAD, "/upload": JobType.UPLOAD, "/upload-reply": JobType.UPLOAD_REPLY}


def create(call: Invocation) -> None:
    """Create a job and print its GUID (B6)."""
    job_type = next((one for option, one in TYPES.items() if call.has(option)), JobType.DOWNLOAD)
    job = call.manager.create_job(call.arguments[0], job_type)
    call.output.value(guid(job.id), sentence=f"Created job {guid(job.id)}.")


def cancel(call: Invocation) -> None:
    """Cancel a job (B13)."""
    call.job.cancel()
    call.output.line("Job canceled.")
