"""Which proxies the requests of one run take.

The rule: a request goes through a proxy of the list that its run was given, in the order of the list, or directly where
the list says so; settings that cannot be understood or followed end the run with BG_E_INVALID_PROXY_INFO, and never
lead to a direct connection.  file: names are none of this module's business.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from openbits.core.pac import Way
from openbits.core.proxylist import InvalidProxyInfo, Proxy, ProxyTable, parse_table
from openbits.errors import ErrorContext
from openbits.frames.network import ProxySpec
from openbits.worker.desktop import read_desktop
from openbits.worker.failure import Failure, TransferError
from openbits.worker.pac import Found, Means, PacScript

_SERVERS_KEPT: Final = 256
_UNREACHED: Final = frozenset(("ERROR_WINHTTP_CANNOT_CONNECT", "ERROR_WINHTTP_NAME_NOT_RESOLVED"))
"""What a direct connection fails with where a script's next way may lead on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What proxy settings come to."""

    source: str
    table: ProxyTable | None = None
    script_url: str | None = None
    """Where the script is that must be asked for each URL; empty where it must be detected."""
    problem: Failure | None = None
    """Why no request may be made."""


def needs_reading(spec: ProxySpec) -> bool:
    """Whether `make_plan` has to read the account's files, which may take its time."""
    return spec.usage == "desktop"


def make_plan(spec: ProxySpec) -> Plan:
    """Understand proxy settings, as late as BITS does: when the job runs (J22)."""
    try:
        match spec.usage:
            case "direct":
                return Plan(source=spec.source)
            case "manual":
                return Plan(source=spec.source, table=parse_table(spec.proxies, spec.bypass))
            case "desktop":
                return _desktop_plan(spec)
            case "script":
                return Plan(source=spec.source, script_url=spec.script_url)
            case "detect":
                return Plan(source=spec.source, script_url="")
            case _:
                return _unusable(spec, "these settings are not known to this version")
    except InvalidProxyInfo as error:
        return _unusable(spec, f"{error}: correct it, then resume the job")


def _desktop_plan(spec: ProxySpec) -> Plan:
    try:
        found = read_desktop()
    except OSError as error:
        # It may be a home that is not mounted yet; what stands there must not be passed over.
        advice = "give the account access to it, or store settings of its own with 'bits proxy set'"
        return _unusable(spec, f"{error.filename}: {error.strerror}: {advice}", transient=True)
    return Plan(source=spec.source, table=found.table, script_url=found.script_url)


def _unusable(spec: ProxySpec, clause: str, *, transient: bool = False) -> Plan:
    failure = Failure(
        name="BG_E_INVALID_PROXY_INFO",
        context=ErrorContext.GENERAL_TRANSPORT,
        message=f"{spec.source}: {clause}",
        transient=transient,
    )
    return Plan(source=spec.source, problem=failure)


class Routed(Protocol):
    """A request, as far as it matters here."""

    @property
    def url(self) -> str:
        """What was asked for."""

    @property
    def proxy(self) -> Proxy | None:
        """Through which proxy it went."""


class Proxies:
    """The choice of a run, which remembers the proxies that could not be reached.

    What a script says of a URL counts for all requests for it, and is asked anew for the next one (I16).
    """

    def __init__(
        self, plan: Plan | None, on_chosen: Callable[[str], None], means: Means | None = None, *, dhcp_url: str = ""
    ) -> None:
        """Without a plan it comes by `planned`; `means` are needed where a script decides."""
        self._plan = plan
        self._on_chosen = on_chosen
        self._means = means
        self._dhcp_url = dhcp_url
        self._script: PacScript | None = None
        self._found: dict[str, Found] = {}
        self._waiting: list[tuple[str, Callable[[Failure | None], None]]] = []
        self._by_server: dict[str, tuple[Proxy, ...]] = {}
        self._failed: set[Proxy | str] = set()
        """Proxies, and servers that could not be reached directly."""
        self._told: set[str] = set()
        self._source = plan.source if plan is not None else ""

    def __repr__(self) -> str:
        return f"<Proxies {self.source} failed={len(self._failed)}>"

    @property
    def source(self) -> str:
        """Whose settings these are, and what they led to last."""
        return self._source

    def close(self) -> None:
        """The run is over: nothing that is being found out is told any more."""
        self._waiting.clear()
        if self._script is not None:
            self._script.close()

    # --- what has to be found out --------------------------------------------------------------

    @property
    def is_scripted(self) -> bool:
        """Whether a script decides."""
        return self._plan is not None and self._plan.script_url is not None

    def is_known(self, url: str) -> bool:
        """Whether `choose` can answer for this URL now; otherwise `find_out` comes first."""
        return self._plan is not None and (self._plan.script_url is None or url in self._found)

    def find_out(self, url: str, done: Callable[[Failure | None], None]) -> None:
        """Tell `done` when `choose` can answer, or why it never will; maybe before this returns."""
        if self._plan is None:
            self._waiting.append((url, done))
            return
        if self.is_known(url):
            done(None)
            return
        script = self._script or self._make_script(self._plan)

        def told(found: Found | Failure) -> None:
            if isinstance(found, Failure):
                done(found)
                return
            if len(self._found) >= _SERVERS_KEPT:
                del self._found[next(iter(self._found))]
            self._found[url] = found
            done(None)

        script.ask(url, told)

    def _make_script(self, plan: Plan) -> PacScript:
        assert self._means is not None
        assert plan.script_url is not None
        self._script = PacScript(self._means, source=plan.source, script_url=plan.script_url, dhcp_url=self._dhcp_url)
        return self._script

    def planned(self, plan: Plan) -> None:
        """The account's settings have been read."""
        self._plan, self._source = plan, plan.source
        waiting, self._waiting = self._waiting, []
        for url, done in waiting:
            self.find_out(url, done)

    def evaluator_came(self, fd: int | None, message: str) -> None:
        """See `PacScript.receive`."""
        if self._script is not None:
            self._script.receive(fd, message)
        elif fd is not None:
            os.close(fd)

    # --- choosing ------------------------------------------------------------------------------

    def choose(self, url: str) -> Proxy | None:
        """Return the proxy for the next request to a URL, None for a direct one. Raises TransferError."""
        plan = self._plan
        assert plan is not None, "the settings are known before anything is chosen"
        if plan.problem is not None:
            raise TransferError(plan.problem)
        ways = self._listed(url)
        untried = [way for way in ways if self._mark(way, url) not in self._failed]
        if ways and not untried:
            # All of them failed once: they are tried again, in order, at the next attempt.
            self._failed.difference_update(self._mark(way, url) for way in ways)
            untried = list(ways)
        chosen = untried[0] if untried else None
        way = f"through the proxy {chosen}" if chosen is not None else "without a proxy"
        # Once each: a job whose servers take turns would say something with every file.
        if way not in self._told:
            self._told.add(way)
            self._on_chosen(f"{way} ({self.source})")
        return chosen

    def named(self, failure: Failure, request: Routed | None) -> Failure:
        """Say by which proxy a request went that failed, and whose settings chose it: that may be the reason."""
        proxy = request.proxy if request is not None else None
        if proxy is None or failure.context is ErrorContext.LOCAL_FILE:
            return failure
        way = self.source if str(proxy) in failure.message else f"through the proxy {proxy}: {self.source}"
        return failure if way in failure.message else replace(failure, message=f"{failure.message} ({way})")

    def has_other_way(self, failure: Failure, request: Routed) -> bool:
        """Whether a request that failed may be sent by another way at once: its own could not be reached.

        That is noted. A direct connection gives way to a proxy only where a script lists one behind it.
        """
        is_unreached = failure.may_try_next_proxy
        if request.proxy is None:
            is_unreached = failure.name in _UNREACHED and len(self._listed(request.url)) > 1
        if not is_unreached:
            return False
        self._failed.add(self._mark(request.proxy, request.url))
        self._told.clear()
        return any(self._mark(way, request.url) not in self._failed for way in self._listed(request.url))

    @staticmethod
    def _mark(way: Way, url: str) -> Proxy | str:
        """Under which a way is remembered: a proxy is gone for all servers, a direct way for its own."""
        return "/".join(url.split("/", 3)[:3]) if way is None else way

    def _listed(self, url: str) -> tuple[Way, ...]:
        """The ways for a URL; none is a direct one. Many files come from one server: a list is looked up once."""
        plan = self._plan
        if plan is None or plan.table is None:
            found = self._found.get(url)
            if found is None:
                return ()
            self._source = found.source
            return found.ways
        server = "/".join(url.split("/", 3)[:3])
        proxies = self._by_server.get(server)
        if proxies is None:
            if len(self._by_server) >= _SERVERS_KEPT:
                self._by_server.clear()
            proxies = self._by_server[server] = plan.table.proxies_for(url)
        return proxies
