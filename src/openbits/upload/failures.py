"""What answers that are no success mean to an upload, whatever the protocol: one error of the table, and a sentence.

Transient or fatal is inventory R1, and 429 with it as everywhere in OpenBITS.  Nothing of what a server sends gets into
a sentence unless it is cut and quoted.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import re
from typing import Final
from urllib.parse import urlsplit

from openbits.errors import ErrorContext, error_code, http_error_name
from openbits.upload.conversation import DAY_S, Answered, Broken, Failure

RETRY_AFTER_LIMIT_S: Final = 7 * DAY_S

_NUMBER: Final = re.compile(r"[0-9]{1,18}\Z")
_TRANSIENT_4XX: Final = frozenset((408, 409, 429))
_FATAL_3XX: Final = frozenset((300, 301, 302, 303, 304, 305, 307))
_FATAL_5XX: Final = frozenset((501, 505))
_ADVICE: Final = {
    401: "the server wants to know who sends: set credentials, then resume the job",
    403: "the server does not let this account write there, or something stands there already",
    404: "check the address: there is no such directory, or it takes no uploads",
    405: "the server takes no such uploads there",
    407: "the proxy wants to know who sends: set credentials for it, then resume the job",
    409: "something else stands there, or the server is busy with it",
    410: "check the address: the server says that it is gone for good",
    411: "a proxy on the way spoils the upload",
    413: "the server takes no requests of the smallest useful size, or no file of this size",
    415: "the server does not take uploads in this form",
    429: "the server is asked too often: it is tried again later",
    501: "the server takes no uploads",
    503: "the server is busy or being maintained: it is tried again later",
    507: "the server has no room left: it is tried again later",
}
_ADVICE_BY_NAME: Final = {
    "BG_E_TOO_LARGE": "send a smaller file, or ask whoever runs the server to allow more",
    "E_INVALIDARG": "check whether the address is that of a directory, or ask whoever runs the server",
    "ERROR_DISK_FULL": "the server has no room left: it is tried again later",
}


def is_transient(status: int) -> bool:
    """Whether trying again later can help after a status that is no success (R1)."""
    if 300 <= status <= 399:
        return status not in _FATAL_3XX
    if 400 <= status <= 499:
        return status in _TRANSIENT_4XX
    return status not in _FATAL_5XX


def http_failure(
    answer: Answered,
    url: str,
    now: float,
    *,
    name: str = "",
    context: ErrorContext = ErrorContext.REMOTE_FILE,
    transient: bool | None = None,
) -> Failure:
    """The failure that a status means; `name` and `transient` where the protocol knows more than HTTP does."""
    status = min(max(answer.status, 100), 999)
    by_status = http_error_name(status)
    if transient is None:
        transient = is_transient(status)
    said = f"{error_code(by_status).text} to the upload to {short(url)}"
    if name and name != by_status:
        said += f", and reports {name} ({error_code(name).text})"
    location = answer.get("location")
    default = "it is tried again later" if transient else "ask whoever runs the server"
    advice = _ADVICE_BY_NAME.get(name) or _ADVICE.get(status, default)
    if 300 <= status <= 399 and location is not None:
        advice = f"uploads are not redirected: if {location[:200]!r} is right, make the job for that address"
    return Failure(
        name=name or by_status,
        context=context,
        message=f"{host_of(url)}: {said}: {advice}",
        transient=transient,
        retry_after_s=retry_after_s(answer, now) if transient else None,
    )


def broken_failure(event: Broken, url: str) -> Failure:
    """The connection broke, or there was none."""
    if event.was_reached:
        name, clause = "ERROR_WINHTTP_CONNECTION_ERROR", "the connection broke during the upload"
    else:
        name, clause = "ERROR_WINHTTP_CANNOT_CONNECT", "the server cannot be reached"
    return Failure(
        name=name,
        context=ErrorContext.GENERAL_TRANSPORT,
        message=f"{host_of(url)}: {clause} to {short(url)}: it is tried again later",
        transient=True,
    )


def invalid_answer(url: str, clause: str, *, transient: bool = False) -> Failure:
    """The server's answer contradicts the protocol; `clause` says how."""
    return remote_failure("BG_E_INVALID_SERVER_RESPONSE", url, f"{clause}: ask whoever runs it", transient=transient)


def mismatch(url: str, clause: str) -> Failure:
    """No upload protocol in common; `clause` goes on after the server's name."""
    return remote_failure(
        "BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH",
        url,
        f"{clause}: a server that takes plain files is sent to with 'bits put --protocol put'",
    )


def remote_failure(name: str, url: str, clause: str, *, transient: bool = False) -> Failure:
    """An error of the remote file; `clause` goes on after the server's name."""
    return Failure(
        name=name, context=ErrorContext.REMOTE_FILE, message=f"{host_of(url)}: {clause}", transient=transient
    )


def retry_after_s(answer: Answered, now: float) -> int | None:
    """Read Retry-After, in seconds or as a date; None when there is none. At most a week."""
    value = (answer.get("retry-after") or "").strip()
    if _NUMBER.match(value):
        return min(int(value), RETRY_AFTER_LIMIT_S)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        at = (moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(0, int(at - now)), RETRY_AFTER_LIMIT_S)


def host_of(url: str) -> str:
    """The server's name for a sentence; never the user name or password that a URL may carry."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or "the server"
        return f"{host}:{parts.port}" if parts.port else host
    except ValueError:
        return "the server"


def short(url: str) -> str:
    """The URL for a sentence: not too long, and without the password that it may carry."""
    scheme, mark, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    url = f"{scheme}{mark}{authority.rpartition('@')[2]}{slash}{path}"
    return url if len(url) <= 200 else url[:199] + "…"
