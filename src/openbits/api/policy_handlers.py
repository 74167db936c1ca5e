"""The calls about policies: everybody may see what holds, administrators have it read anew."""

from __future__ import annotations

import os

from aiohttp import web

from openbits.api.base import CALLER, HandlerBase, answer
from openbits.api.policy_wire import PolicyLimits, PolicyOut, PolicyValue
from openbits.api.render import iso_time
from openbits.core.bandwidth import Limit
from openbits.errors import BitsError
from openbits.service.policies import Policies
from openbits.service.policyfiles import PolicyFileError


class PolicyHandlers(HandlerBase):
    """One method for each row of api.routes.ROUTES about policies."""

    async def policy(self, _request: web.Request) -> web.StreamResponse:
        """GET /v1/policy."""
        return answer(_rendered(self._services.policies))

    async def reload_policy(self, request: web.Request) -> web.StreamResponse:
        """POST /v1/policy/reload."""
        caller = request[CALLER]
        is_own_service = self._mode == "user" and caller.identity.uid == os.geteuid()
        if not caller.is_administrator and not is_own_service:
            raise BitsError("E_ACCESSDENIED", "only administrators may have the policy read anew")
        try:
            self._services.policies.reload()
        except PolicyFileError as error:
            raise BitsError("E_INVALIDARG", f"{error}; the policy that was in force goes on") from None
        return answer(_rendered(self._services.policies))


def _rendered(policies: Policies) -> PolicyOut:
    current = policies.in_force()
    limits, loaded = current.limits, policies.loaded
    return PolicyOut(
        directory=policies.directory,
        files=list(loaded.files),
        loaded_at=iso_time(policies.loaded_at),
        problem=policies.problem or None,
        timezone=loaded.zone_name,
        slot=current.slot,
        until=None if current.until is None else iso_time(current.until),
        limits=PolicyLimits(
            together=_kbps(limits.together),
            high=_kbps(limits.high),
            normal=_kbps(limits.normal),
            low=_kbps(limits.low),
        ),
        values=[
            PolicyValue(
                name=each.name,
                inventory=each.inventory,
                text=each.text,
                value=each.value,
                unit=each.unit,
                source=each.source,
                is_set=each.is_set,
                lacks_effect=each.lacks_effect,
            )
            for each in policies.shown()
        ],
    )


def _kbps(limit: Limit | None) -> int | None:
    return None if limit is None else limit.kbps
