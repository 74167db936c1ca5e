"""What answers that bring no file mean: Failures from statuses and from broken rules of HTTP."""

from __future__ import annotations

import datetime as dt

from openbits.core.http import Response, Verdict, classify_status, host_of
from openbits.core.proxylist import Proxy
from openbits.errors import ErrorContext, error_code, http_error_name
from openbits.worker.failure import Failure

_MAY_WANT_CERTIFICATE = frozenset((400, 403))
"""How servers answer who shows no client certificate: nginx and IIS."""
_ADVICE = {
    401: "the server wants to know who asks",
    403: "the server does not let this account have it",
    404: "check the address",
    407: "the proxy wants to know who asks",
    410: "check the address: the server says that it is gone for good",
    429: "the server is asked too often: it is tried again later",
    503: "the server is busy or being maintained: it is tried again later",
}


def status_failure(response: Response, url: str, reason: str = "", *, proxy: Proxy | None = None) -> Failure:
    """An HTTP status that is no success (inventory R1); `reason` says more than the status does.

    What a proxy on the way asks of us (407) is its own affair, and not the server's.
    """
    name = http_error_name(min(max(response.status, 100), 999))
    is_transient = classify_status(response.status) is Verdict.TRANSIENT
    default = "it is tried again later" if is_transient else "ask whoever runs the server"
    who = f"the proxy {proxy}" if proxy is not None and response.status == 407 else host_of(url)
    why = reason or _ADVICE.get(response.status, default)
    return Failure(
        name=name,
        context=ErrorContext.REMOTE_FILE,
        message=f"{who}: {error_code(name).text} for {_short(url)}: {why}",
        transient=is_transient,
        refused_url=refused_url(response.status, url),
        retry_after_s=response.retry_after_s(now=dt.datetime.now(dt.UTC)) if response.status in (429, 503) else None,
    )


def refused_url(status: int, url: str) -> str:
    """The address, if an answer may mean that a client certificate is wanted."""
    return url if status in _MAY_WANT_CERTIFICATE and url[:6].lower() == "https:" else ""


def invalid_answer(url: str, clause: str) -> Failure:
    """The server's answer contradicts itself or the request."""
    return remote_failure("BG_E_INVALID_SERVER_RESPONSE", url, f"{clause}: ask whoever runs the server")


def remote_failure(name: str, url: str, clause: str, *, transient: bool = False) -> Failure:
    """An error of the remote file; `clause` goes on after the server's name."""
    return Failure(
        name=name, context=ErrorContext.REMOTE_FILE, message=f"{host_of(url)}: {clause}", transient=transient
    )


def too_many_redirects(response: Response, url: str) -> Failure:
    """A chain of redirects has no end."""
    return Failure(
        name=http_error_name(response.status),
        context=ErrorContext.REMOTE_FILE,
        message=f"{host_of(url)}: {_short(url)} redirects in a circle, or too often: check the address",
        transient=False,
    )


def disallowed_redirect(response: Response, url: str, target: str) -> Failure:
    """The job follows no redirects (H7); `target` is where it would have led, empty when it may not lead there."""
    name = http_error_name(response.status)
    what = (
        f"its remote name is now {_short(target)}: resume the job to fetch it from there"
        if target
        else ("what it points to is no place for a download")
    )
    return Failure(
        name=name,
        context=ErrorContext.REMOTE_FILE,
        message=f"{host_of(url)}: {error_code(name).text} for {_short(url)}, and the job follows no redirects: {what}",
        transient=False,
    )


def no_ranges_with(method: str, url: str) -> Failure:
    """Byte ranges are asked for by GET, and the job has another method (H10)."""
    return remote_failure(
        "BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD",
        url,
        f"byte ranges cannot be asked for by the method {method}: fetch the whole file, or use GET",
    )


def refused_redirect(url: str, reason: str) -> Failure:
    """A redirect may not be followed."""
    return Failure(
        name="ERROR_WINHTTP_REDIRECT_FAILED",
        context=ErrorContext.REMOTE_FILE,
        message=f"{host_of(url)}: the redirect of {_short(url)} is not followed: {reason}",
        transient=False,
    )


def stalled(url: str, after_s: float) -> Failure:
    """Nothing came in for too long."""
    return Failure(
        name="ERROR_WINHTTP_TIMEOUT",
        context=ErrorContext.GENERAL_TRANSPORT,
        message=f"{host_of(url)} sent nothing for {after_s:g} s",
        transient=True,
        is_break=True,
    )


def too_large(url: str, limit: int) -> Failure:
    """The job has fetched as much as it may (J64)."""
    return Failure(
        name="BG_E_MAX_DOWNLOAD_SIZE_LIMIT_REACHED",
        context=ErrorContext.REMOTE_FILE,
        message=f"{_short(url)} would take the job over its maximum download size ({limit} more bytes were allowed): "
        "raise max_download_size, then resume the job",
        transient=False,
    )


def _short(url: str) -> str:
    """The URL for a sentence: not too long, and without the password that it may carry."""
    scheme, mark, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    url = f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"
    return url if len(url) <= 200 else url[:199] + "…"
