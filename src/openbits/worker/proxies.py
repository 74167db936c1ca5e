"""Which proxies the requests of one run take, and what it means when one of them fails.

The rule: a request goes through a proxy of the list that its run was given, in the order of the list, or directly where
the list says so; settings that cannot be understood or followed end the run with BG_E_INVALID_PROXY_INFO, and never
lead to a direct connection.  file: names are none of this module's business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from openbits.core.http import Verdict, classify_status
from openbits.core.proxylist import InvalidProxyInfo, Proxy, ProxyTable, parse_table
from openbits.errors import ErrorContext, error_code, http_error_name
from openbits.frames.network import ProxySpec
from openbits.worker.desktop import read_desktop
from openbits.worker.failure import Failure, TransferError
from openbits.worker.tlserrors import secure_failure
from openbits.worker.transport import TLS_ERRORS, reason_of

_RECV_ERROR: Final = 56
_COULDNT_RESOLVE_PROXY: Final = 5
_COULDNT_CONNECT: Final = 7
_WEIRD_SERVER_REPLY: Final = 8
_OPERATION_TIMEDOUT: Final = 28
"""Only ever while a connection is made: whether bytes keep coming is for the watchdog."""
_SSL_CONNECT_ERROR: Final = 35
_GOT_NOTHING: Final = 52
_PROXY: Final = 97
_REFUSED: Final = frozenset((_COULDNT_CONNECT, _RECV_ERROR, _PROXY))
_SERVERS_KEPT: Final = 256
_BY_WHOM_IT_IS_FOUND: Final = (
    "proxies can neither be detected nor found by a script yet: name them with "
    "'bits proxy set manual_proxy LIST', or say 'bits proxy set no_proxy'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What proxy settings come to."""

    source: str
    table: ProxyTable | None = None
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
            case _:
                return _unusable(spec, _BY_WHOM_IT_IS_FOUND)
    except InvalidProxyInfo as error:
        return _unusable(spec, f"{error}: correct it, then resume the job")


def _desktop_plan(spec: ProxySpec) -> Plan:
    try:
        found = read_desktop()
    except OSError as error:
        # It may be a home that is not mounted yet; what stands there must not be passed over.
        advice = "give the account access to it, or store settings of its own with 'bits proxy set'"
        return _unusable(spec, f"{error.filename}: {error.strerror}: {advice}", transient=True)
    if found.script_url is not None:
        return _unusable(spec, _BY_WHOM_IT_IS_FOUND)
    return Plan(source=spec.source, table=found.table)


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
    def proxy(self) -> Proxy | None:
        """Through which proxy it went."""


class Proxies:
    """The choice of a run, which remembers the proxies that could not be reached."""

    def __init__(self, plan: Plan, on_chosen: Callable[[str], None]) -> None:
        self._plan = plan
        self._on_chosen = on_chosen
        self._by_server: dict[str, tuple[Proxy, ...]] = {}
        self._failed: set[Proxy] = set()
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"<Proxies {self._plan.source} failed={len(self._failed)}>"

    @property
    def source(self) -> str:
        """Whose settings these are."""
        return self._plan.source

    def choose(self, url: str) -> Proxy | None:
        """Return the proxy for the next request to a URL, None for a direct one. Raises TransferError."""
        if self._plan.problem is not None:
            raise TransferError(self._plan.problem)
        proxies = self._listed(url)
        chosen = next((proxy for proxy in proxies if proxy not in self._failed), None)
        if proxies and chosen is None:
            # All of them failed once: they are tried again, in order, at the next attempt.
            self._failed.difference_update(proxies)
            chosen = proxies[0]
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

    def has_other(self, url: str, failed: Proxy) -> bool:
        """Note that a proxy could not be reached; return whether another one may be tried for this URL at once."""
        self._failed.add(failed)
        self._told.clear()
        return any(proxy not in self._failed for proxy in self._listed(url))

    def _listed(self, url: str) -> tuple[Proxy, ...]:
        """The proxies for a URL. Many files come from one server: it is looked up once."""
        table = self._plan.table
        if table is None:
            return ()
        server = "/".join(url.split("/", 3)[:3])
        proxies = self._by_server.get(server)
        if proxies is None:
            if len(self._by_server) >= _SERVERS_KEPT:
                self._by_server.clear()
            proxies = self._by_server[server] = table.proxies_for(url)
        return proxies


# --- errors of the proxy, told apart from the server's ---------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What libcurl says of a request that failed on its way through a proxy."""

    proxy: Proxy
    host: str
    is_tunnel: bool
    connect_status: int
    """What the proxy answered to CONNECT; 0 where it did not."""
    is_proxy_reached: bool
    is_old: bool
    """Whether an earlier request had made the connection."""
    os_errno: int
    connect_timeout_s: int
    verify_result: int = 0
    """What OpenSSL thinks of the proxy's certificate; the job's security flags are not about proxies."""


def map_proxy_error(code: int, text: str, attempt: Attempt) -> Failure | None:
    """What a libcurl error means if it is the proxy's; None if it is the server's, or anybody's."""
    detail, proxy = text.strip().rstrip("."), attempt.proxy
    if attempt.is_tunnel and code in _REFUSED and attempt.connect_status >= 300:
        return refused_tunnel(attempt.connect_status, proxy, attempt.host)
    is_before_server = attempt.connect_status == 0 and not attempt.is_old
    if proxy.protocol == "https" and code in TLS_ERRORS | {_SSL_CONNECT_ERROR} and is_before_server:
        return secure_failure(code, detail, attempt.verify_result, f"the proxy {proxy}")
    match code:
        case _ if code == _COULDNT_RESOLVE_PROXY:
            return _gone("ERROR_WINHTTP_NAME_NOT_RESOLVED", f"the name of the proxy {proxy} could not be resolved")
        case _ if code == _COULDNT_CONNECT:
            reason = reason_of(attempt.os_errno, detail)
            return _gone("ERROR_WINHTTP_CANNOT_CONNECT", f"no connection to the proxy {proxy} could be made: {reason}")
        case _ if code == _OPERATION_TIMEDOUT:
            what = f"reach {attempt.host}" if attempt.is_proxy_reached else "take the connection"
            sentence = f"the proxy {proxy} did not {what} within {attempt.connect_timeout_s} s"
            return _gone("ERROR_WINHTTP_CANNOT_CONNECT", sentence, may_try_next=not attempt.is_proxy_reached)
        case _ if (
            code in (_WEIRD_SERVER_REPLY, _RECV_ERROR, _GOT_NOTHING, _PROXY) and attempt.is_tunnel and is_before_server
        ):
            sentence = f"the proxy {proxy} broke off when it was asked for {attempt.host}: {detail}"
            return _gone("ERROR_WINHTTP_CONNECTION_ERROR", sentence)
        case _:
            return None


def refused_tunnel(status: int, proxy: Proxy, host: str) -> Failure:
    """The proxy's answer to CONNECT was no."""
    name = http_error_name(min(max(status, 100), 999))
    is_transient = classify_status(status) is Verdict.TRANSIENT
    advice = {
        403: "the proxy does not let anyone, or this account, go there",
        407: "the proxy wants to know who asks",
    }.get(status, "it is tried again later" if is_transient else "ask whoever runs the proxy")
    return Failure(
        name=name,
        context=ErrorContext.GENERAL_TRANSPORT,
        message=f"the proxy {proxy} answered {status} ({error_code(name).text}) when it was asked for {host}: {advice}",
        transient=is_transient,
        # A server that restarts cannot be reached for a moment, with a proxy in between as without one.
        is_break=status in (502, 503, 504),
    )


def _gone(name: str, message: str, *, may_try_next: bool = True) -> Failure:
    return Failure(
        name=name,
        context=ErrorContext.GENERAL_TRANSPORT,
        message=message,
        transient=True,
        is_break=True,
        may_try_next_proxy=may_try_next,
    )
