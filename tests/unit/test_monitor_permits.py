"""The table of permits: every state, every frame (architecture §2)."""

from __future__ import annotations

import enum
import inspect

import pytest

from openbits.frames import monitor as frames
from openbits.monitor.permits import (
    SERVICE_PERMITS,
    ZYGOTE_PERMITS,
    ServiceState,
    Table,
    Violation,
    ZygoteState,
    check,
)

ALL_FRAMES = [cls for _, cls in inspect.getmembers(frames, inspect.isclass) if cls.__module__ == frames.__name__]

S, Z = ServiceState, ZygoteState
ALLOWED = {
    (S.STARTING, frames.ServiceReady): S.SERVING,
    (S.STARTING, frames.ServiceStopping): S.LEAVING,
    (S.STARTING, frames.SpawnWorker): S.STARTING,
    (S.STARTING, frames.KillWorker): S.STARTING,
    (S.SERVING, frames.ServiceStopping): S.LEAVING,
    (S.SERVING, frames.SpawnWorker): S.SERVING,
    (S.SERVING, frames.KillWorker): S.SERVING,
    (Z.IMPORTING, frames.ZygoteReady): Z.FORKING,
    (Z.FORKING, frames.WorkerForked): Z.FORKING,
    (Z.FORKING, frames.ForkFailed): Z.FORKING,
}
WITH_DESCRIPTOR = {frames.SpawnWorker, frames.WorkerForked}


def blank(cls: type) -> object:
    """A frame of a class, whatever is in it."""
    return object.__new__(cls)


@pytest.mark.parametrize("cls", ALL_FRAMES)
@pytest.mark.parametrize(
    ("table", "state"), [(SERVICE_PERMITS, state) for state in S] + [(ZYGOTE_PERMITS, state) for state in Z]
)
def test_what_is_not_in_the_table_is_a_violation(table: Table, state: enum.Enum, cls: type) -> None:
    after = ALLOWED.get((state, cls))
    descriptors = [0] if cls in WITH_DESCRIPTOR else []
    if after is None:
        with pytest.raises(Violation, match=cls.__name__):
            check(table, state, blank(cls), descriptors, who="peer")
    else:
        assert check(table, state, blank(cls), descriptors, who="peer") is after


@pytest.mark.parametrize("count", [0, 1, 2])
def test_number_of_descriptors_is_exact(count: int) -> None:
    for state, cls in ALLOWED:
        table = SERVICE_PERMITS if isinstance(state, ServiceState) else ZYGOTE_PERMITS
        if count != (cls in WITH_DESCRIPTOR):
            with pytest.raises(Violation, match=f"{count} descriptors"):
                check(table, state, blank(cls), [0] * count, who="peer")


def test_every_state_stands_in_a_table() -> None:
    assert set(SERVICE_PERMITS) == set(ServiceState)
    assert set(ZYGOTE_PERMITS) == set(ZygoteState)
