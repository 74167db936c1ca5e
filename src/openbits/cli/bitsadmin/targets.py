"""Which job is meant: a {GUID} in braces, or the display name of one of the caller's jobs (inventory section 9).

A name is looked for among the caller's own jobs in the queue only, for an administrator too: `bitsadmin /cancel update`
in root's shell must not hit a user's job that happens to be called so. A {GUID} reaches every job the caller may see,
also one that has left the queue while it is kept.
"""

from __future__ import annotations

import re
from typing import Final

from openbits.cli.bitsadmin.output import guid
from openbits.cli.text import safe
from openbits.client import calls
from openbits.client.session import Session
from openbits.errors import BitsError

_GUID: Final = re.compile(r"\{[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}")
_MAX_CANDIDATES: Final = 10


def is_guid(text: str) -> bool:
    """Whether the text is a GUID in braces, as every switch takes it but /create and /transfer."""
    return _GUID.fullmatch(text.lower()) is not None


def find_job(session: Session, reference: str) -> str:
    """Return the id of the one job that is meant. Raises BG_E_NOT_FOUND, E_INVALIDARG where several are."""
    if is_guid(reference):
        return reference[1:-1].lower()
    fitting = session.perform(calls.all_jobs(name=reference)) if reference else []
    # Names are compared here as well: the service's filter may be wider one day, a cancelled job stays cancelled.
    ids = [str(job["id"]) for job in fitting if job["name"] == reference]
    if len(ids) > 1:
        shown = ", ".join(guid(one) for one in ids[:_MAX_CANDIDATES])
        more = f" and {len(ids) - _MAX_CANDIDATES} more" if len(ids) > _MAX_CANDIDATES else ""
        raise BitsError(
            "E_INVALIDARG", f"{len(ids)} jobs are named {safe(reference)!r}: give one of {shown}{more} instead"
        )
    if not ids:
        hint = "see 'bitsadmin /list'; jobs of other accounts are named by their {GUID}"
        if is_guid(f"{{{reference}}}"):
            hint = f"a GUID stands in braces, {guid(reference)}"
        raise BitsError("BG_E_NOT_FOUND", f"no job of yours is named {safe(reference)!r}: {hint}")
    return ids[0]
