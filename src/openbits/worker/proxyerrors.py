"""Errors of a proxy, told apart from those of the server behind it (inventory R4, J22).

The rule: what went wrong before the proxy had passed anything on is the proxy's, and names it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from openbits.core.http import Verdict, classify_status
from openbits.core.proxylist import Proxy
from openbits.errors import ErrorContext, error_code, http_error_name
from openbits.worker.failure import Failure
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
_SOCKS_ANSWER: Final = re.compile(r"\([0-9]+\)")
_LONG_PASSWORD: Final = 10
_LONG_USER_NAME: Final = 11
_NO_METHOD: Final = 12
_USER_REJECTED: Final = 33
_NOT_KNOWN_BECAUSE: Final = {
    _LONG_PASSWORD: "can be told no password that has more than 255 bytes: set another one",
    _LONG_USER_NAME: "can be told no user name that has more than 255 bytes: set another one",
    _NO_METHOD: "wants to know who asks: set a user name and a password",
    _USER_REJECTED: "does not take the user name and password that the job has for proxy and basic: set others",
}
"""Numbers of libcurl's CURLINFO_PROXY_ERROR, as clauses about a SOCKS proxy."""
_REFUSED: Final = frozenset((_COULDNT_CONNECT, _RECV_ERROR, _PROXY))


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
    socks_error: int = 0
    """What libcurl says in particular of a SOCKS proxy."""
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
            # Where it is asked for no tunnel, all that there is before the request is its own connection, TLS included.
            is_reached = attempt.is_proxy_reached and (attempt.is_tunnel or proxy.is_socks)
            what = f"reach {attempt.host}" if is_reached else "take the connection"
            sentence = f"the proxy {proxy} did not {what} within {attempt.connect_timeout_s} s"
            return _gone("ERROR_WINHTTP_CANNOT_CONNECT", sentence, may_try_next=not is_reached)
        case _ if code == _PROXY and proxy.is_socks and attempt.socks_error in _NOT_KNOWN_BECAUSE:
            return _not_known(proxy, _NOT_KNOWN_BECAUSE[attempt.socks_error])
        case _ if code == _PROXY and proxy.is_socks:
            # With a number it is what the proxy answered, about the server or about who asks.
            sentence = f"the proxy {proxy} made no connection to {attempt.host}: {detail}"
            is_answer = _SOCKS_ANSWER.search(detail) is not None
            return _gone("ERROR_WINHTTP_CANNOT_CONNECT", sentence, may_try_next=not is_answer)
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


def _not_known(proxy: Proxy, clause: str) -> Failure:
    """A SOCKS proxy lets nobody in whom it does not know: the same error as that of a proxy that speaks HTTP (J37)."""
    advice = "with 'bits set-credentials --target proxy --scheme basic', then resume the job"
    return Failure(
        name=http_error_name(407),
        context=ErrorContext.GENERAL_TRANSPORT,
        message=f"the proxy {proxy} {clause} {advice}",
        transient=False,
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
