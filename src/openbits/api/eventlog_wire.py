"""The shapes of the calls about the event log itself (B44); see `wire`."""

from __future__ import annotations

from openbits.api.wire import Request, Response


class EventLogIn(Request):
    """What is logged."""

    analytic: bool
    """Whether events of the level verbose are logged too."""


class EventLogOut(Response):
    """What is logged."""

    analytic: bool
