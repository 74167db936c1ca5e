"""The calls about the proxy settings of accounts (I20, B42, B43)."""

from __future__ import annotations

from aiohttp import web

from openbits.api import wire
from openbits.api.base import CALLER, HandlerBase, answer
from openbits.core.proxies import AccountProxyChange
from openbits.service.proxies import AccountProxyState


class ProxyHandlers(HandlerBase):
    """One method for each row of api.routes.ROUTES about proxy settings."""

    async def proxy_settings(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/proxy-settings."""
        return answer(_rendered(await self._services.proxies.get(request[CALLER], request.query.get("account"))))

    async def set_proxy_settings(self, request: web.Request) -> web.StreamResponse:
        """PUT /v1/proxy-settings."""
        body: wire.ProxySettingsIn = await self._body(request, wire.ProxySettingsIn)
        change = AccountProxyChange(
            usage=body.usage, proxy_list=body.proxy_list, bypass_list=body.bypass_list, script_url=body.script_url
        )
        account = request.query.get("account")
        return answer(_rendered(await self._services.proxies.set(request[CALLER], account, change)))

    async def reset_proxy_settings(self, request: web.Request) -> web.StreamResponse:
        """DELETE /v1/proxy-settings."""
        return answer(_rendered(await self._services.proxies.reset(request[CALLER], request.query.get("account"))))


def _rendered(state: AccountProxyState) -> wire.ProxySettingsOut:
    settings = state.settings
    return wire.ProxySettingsOut(
        account=state.account,
        usage=settings.usage.value if settings is not None else None,
        proxy_list=settings.proxy_list if settings is not None else "",
        bypass_list=settings.bypass_list if settings is not None else "",
        script_url=settings.script_url if settings is not None else "",
        applies_to=state.applies_to,
    )
