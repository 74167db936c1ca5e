"""The analytic channel (B44): whether events of the level verbose are logged, as a setting of the machine.

The rule: everybody sees how it stands, administrators switch it, and what is off costs neither room nor time.
"""

from __future__ import annotations

import logging

from openbits.core.model import Caller
from openbits.errors import BitsError
from openbits.service.ledger import VERBOSE_EVENTS, Draft, Ledger

log = logging.getLogger(__name__)


class AnalyticChannel:
    """See the module's rule."""

    def __init__(self, ledger: Ledger, *, is_system: bool) -> None:
        self._ledger = ledger
        self._is_system = is_system

    def __repr__(self) -> str:
        return f"<AnalyticChannel enabled={self.is_enabled}>"

    @property
    def is_enabled(self) -> bool:
        """Whether verbose events are logged."""
        return bool(self._ledger.machine.get(VERBOSE_EVENTS))

    async def enable(self, caller: Caller, enabled: bool) -> bool:
        """Switch it on or off; it survives a restart. Raises E_ACCESSDENIED."""
        if self._is_system and not caller.is_administrator:
            raise BitsError("E_ACCESSDENIED", "the event log is the machine's: only administrators may switch levels")

        def work(draft: Draft) -> None:
            draft.machine[VERBOSE_EVENTS] = True if enabled else None

        await self._ledger.submit(work)
        log.info("action=analytic-channel enabled=%s uid=%d", enabled, caller.identity.uid)
        return self.is_enabled
