"""The calls of IBitsPeerCacheAdministration (C6): settings of the machine are kept, and there are no records, no peers.

The rule: a call is answered when what it changed would survive a power cut; what a policy says is asked with each call.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from openbits.core import peercaching
from openbits.core.model import Caller
from openbits.core.peercaching import Flag, PeerCachingSettings, overrides_of
from openbits.core.policy import PeerCaching as PeerCachingPolicy
from openbits.errors import BitsError
from openbits.service.ledger import Draft, Ledger

log = logging.getLogger(__name__)

SETTING: Final = "peer_caching"
"""Its name among the settings of the machine."""
_GUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerCachingState:
    """What was set, what counts, and which of it a policy has replaced."""

    settings: PeerCachingSettings
    in_force: PeerCachingSettings
    overridden: tuple[str, ...]


class PeerCaching:
    """See the module's rule."""

    def __init__(self, ledger: Ledger, policy: Callable[[], PeerCachingPolicy], *, is_system: bool) -> None:
        self._ledger = ledger
        self._policy = policy
        self._is_system = is_system

    def __repr__(self) -> str:
        return f"<PeerCaching {self.state().in_force}>"

    def state(self) -> PeerCachingState:
        """GetConfigurationFlags, GetMaximumCacheSize, GetMaximumContentAge."""
        settings, decided = peercaching.from_stored(self._ledger.machine.get(SETTING)), overrides_of(self._policy())
        return PeerCachingState(
            settings=settings,
            in_force=peercaching.in_force(settings, decided),
            overridden=peercaching.overridden(settings, decided),
        )

    async def change(self, caller: Caller, changes: Mapping[str, int]) -> PeerCachingState:
        """SetConfigurationFlags, SetMaximumCacheSize, SetMaximumContentAge: all that is named, or nothing.

        Raises E_ACCESSDENIED, E_NOTIMPL and E_INVALIDARG.
        """
        peercaching.may_change(caller, is_system=self._is_system)

        def work(draft: Draft) -> None:
            changed = peercaching.change(peercaching.from_stored(draft.machine_setting(SETTING)), changes)
            draft.machine[SETTING] = dataclasses.asdict(changed)

        await self._ledger.submit(work)
        log.info("action=peer-caching uid=%d settings=%s", caller.identity.uid, dict(changes))
        return self.state()

    # --- the cache and the peers ------------------------------------------------------------------

    def clear_records(self, caller: Caller) -> None:
        """ClearRecords."""
        self._require(caller, Flag.CLIENT | Flag.SERVER, "no cache")

    def get_record(self, record_id: str) -> None:
        """GetRecord: there is none of this name. Raises E_INVALIDARG and BG_E_RECORD_DELETED."""
        if _GUID.fullmatch(record_id.strip("{}").lower()) is None:
            raise BitsError("E_INVALIDARG", f"{ascii(record_id)[:60]} is no identifier of a cache record")
        raise BitsError("BG_E_RECORD_DELETED", f"the cache has no record {record_id.lower()}")

    def delete_record(self, caller: Caller, record_id: str) -> None:
        """DeleteRecord. Raises what GetRecord does."""
        self._require(caller, Flag.CLIENT | Flag.SERVER, "no cache")
        self.get_record(record_id)

    def delete_url(self, caller: Caller) -> str:
        """DeleteUrl: S_FALSE, for no address is in the cache."""
        self._require(caller, Flag.CLIENT | Flag.SERVER, "no cache")
        return "S_FALSE"

    def clear_peers(self, caller: Caller) -> None:
        """ClearPeers."""
        self._require(caller, Flag.CLIENT, "no list of peers")

    def discover_peers(self, caller: Caller) -> str:
        """DiscoverPeers: S_FALSE, which BITS 4.0 answers where there is no peer caching of this kind (C1)."""
        self._require(caller, Flag.CLIENT, "nobody to look for")
        return "S_FALSE"

    def _require(self, caller: Caller, roles: Flag, what: str) -> None:
        peercaching.may_change(caller, is_system=self._is_system)
        peercaching.require(self.state().in_force, roles, what)
