"""Who may say what when: the table of frames that the monitor takes.

The rule: what does not stand in the table is not known, or not now, and ends the daemon.  A peer that
says something else is broken or has been taken over; there is nothing to discuss with it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from openbits.frames import monitor as frames


class Violation(Exception):
    """A peer did what it may not do: the daemon ends."""


class ServiceState(enum.Enum):
    """What the service has told so far."""

    STARTING = "it was starting"
    SERVING = "it was serving"
    LEAVING = "it was leaving"


class ZygoteState(enum.Enum):
    """What the zygote has told so far."""

    IMPORTING = "it was importing"
    FORKING = "it was ready to fork"


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """A frame that is allowed: how many descriptors travel with it, and the state after it (None: the same)."""

    descriptors: int = 0
    after: enum.Enum | None = None


Table = Mapping[enum.Enum, Mapping[type, Permit]]

_WORKERS: Final[Mapping[type, Permit]] = {frames.SpawnWorker: Permit(descriptors=1), frames.KillWorker: Permit()}
_LEAVE: Final[Mapping[type, Permit]] = {frames.ServiceStopping: Permit(after=ServiceState.LEAVING)}

SERVICE_PERMITS: Final[Table] = {
    # Effects that an earlier run left undone may need workers before the first call is taken.
    ServiceState.STARTING: {frames.ServiceReady: Permit(after=ServiceState.SERVING), **_WORKERS, **_LEAVE},
    ServiceState.SERVING: {**_WORKERS, **_LEAVE},
    ServiceState.LEAVING: {},
}

ZYGOTE_PERMITS: Final[Table] = {
    ZygoteState.IMPORTING: {frames.ZygoteReady: Permit(after=ZygoteState.FORKING)},
    ZygoteState.FORKING: {frames.WorkerForked: Permit(descriptors=1), frames.ForkFailed: Permit()},
}


def check(table: Table, state: enum.Enum, frame: object, descriptors: list[int], *, who: str) -> enum.Enum:
    """Return the state after the frame. Raises Violation."""
    permit = table[state].get(type(frame))
    if permit is None:
        raise Violation(f"the {who} sent {type(frame).__name__} while {state.value}")
    if len(descriptors) != permit.descriptors:
        raise Violation(f"the {who} sent {type(frame).__name__} with {len(descriptors)} descriptors")
    return permit.after or state
