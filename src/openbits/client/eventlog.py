"""The calls about the event log itself (B44); see `calls`."""

from __future__ import annotations

from openbits.client.calls import Call, Json

_TARGET = "/v1/event-log"


def event_log() -> Call[Json]:
    """What is logged: `analytic` says whether verbose events are."""
    return Call("GET", _TARGET, repeatable=True)


def set_event_log(*, analytic: bool) -> Call[Json]:
    """Let verbose events be logged, or not; for administrators."""
    return Call("PUT", _TARGET, {"analytic": analytic}, repeatable=True)
