"""The properties of a job that have a number in BITS (J60–J68): by number, by BITS's name, or by ours.

Every other property is set by the name that `bits set` takes.
"""

from __future__ import annotations

import enum
from typing import Any

from openbits.client.network_identity import AuthTarget
from openbits.errors import BitsError

_PREFIX = "bits_job_property_id_"
_SHORT_PREFIX = "bits_job_property_"


class JobProperty(enum.IntEnum):
    """BITS_JOB_PROPERTY_ID; 6 and 8 are not given to anything (J68)."""

    COST_FLAGS = 1
    NOTIFICATION_CLSID = 2
    DYNAMIC_CONTENT = 3
    HIGH_PERFORMANCE = 4
    MAX_DOWNLOAD_SIZE = 5
    USE_STORED_CREDENTIALS = 7
    MINIMUM_NOTIFICATION_INTERVAL_MS = 9
    ON_DEMAND_MODE = 10


def property_name(which: JobProperty | int | str) -> str:
    """Return the name that `bits set` takes. Raises BG_E_UNKNOWN_PROPERTY_ID for a number without a property."""
    if isinstance(which, str):
        name = which.lower()
        for prefix in (_PREFIX, _SHORT_PREFIX):
            name = name.removeprefix(prefix)
        return name
    try:
        return JobProperty(which).name.lower()
    except ValueError:
        raise BitsError("BG_E_UNKNOWN_PROPERTY_ID", f"no property of a job has the number {which}") from None


def property_value(name: str, value: Any) -> Any:
    """Return a value as the service takes it."""
    if isinstance(value, AuthTarget):
        return value.value
    if name == "notification_clsid" and value is None:
        return ""
    return int(value) if isinstance(value, enum.IntFlag) else value


def read_property(name: str, value: Any) -> Any:
    """Return a value as programs get it: what is a target in BITS is one here."""
    if name == "use_stored_credentials":
        return AuthTarget(value) if value else None
    return value
