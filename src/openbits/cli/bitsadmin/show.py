"""The switches that show jobs: /list, /info, /listfiles (inventory B2, B7, B12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openbits.cli.bitsadmin.invocation import Invocation
from openbits.cli.bitsadmin.output import guid, total
from openbits.cli.bitsadmin.words import state_word
from openbits.cli.text import safe
from openbits.client import calls


def list_jobs(call: Invocation) -> None:
    """List the jobs in the queue (B2)."""
    jobs = call.session.perform(calls.all_jobs(all_users=call.has("/allusers")))
    for job in jobs:
        call.output.line(summary(job))
    call.output.line()
    call.output.line(f"Listed {len(jobs)} job(s).")


def summary(job: Mapping[str, Any]) -> str:
    """Return a job as one line: `{GUID} 'name' STATE files / files bytes / bytes`."""
    return (
        f"{guid(job['id'])} '{safe(job['name'])}' {state_word(job['state'])} "
        f"{job['files_transferred']} / {job['files_total']} "
        f"{job['bytes_transferred']} / {total(job['bytes_total'])}"
    )
