"""libcurl's error numbers, as errors of the table (inventory R4, R5).

Numbers and not pycurl's names, so that the mapping is a table that needs no library to be read.
"""

from __future__ import annotations

import errno
from typing import Final

from openbits.errors import ErrorContext
from openbits.worker.failure import Failure
from openbits.worker.tlserrors import alert_failure, secure_failure

_UNSUPPORTED_PROTOCOL: Final = 1
_URL_MALFORMAT: Final = 3
_COULDNT_RESOLVE_HOST: Final = 6
_COULDNT_CONNECT: Final = 7
_WEIRD_SERVER_REPLY: Final = 8
_PARTIAL_FILE: Final = 18
_OUT_OF_MEMORY: Final = 27
_OPERATION_TIMEDOUT: Final = 28
_SSL_CONNECT_ERROR: Final = 35
_GOT_NOTHING: Final = 52
_RECV_ERROR: Final = 56
_TOO_LARGE: Final = 100
TLS_ERRORS: Final = frozenset((53, 54, 58, 59, 60, 64, 66, 77, 80, 82, 83, 90, 91, 98))
_BROKEN_ERRNOS: Final = frozenset((errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.ECONNABORTED))


def map_error(
    code: int,
    text: str,
    *,
    host: str,
    os_errno: int,
    is_connected: bool,
    connect_timeout_s: int,
    verify_result: int = 0,
    shown: str = "",
) -> Failure:
    """What a libcurl error means for the transfer.

    `verify_result` is OpenSSL's opinion of the server's certificate, `shown` the client certificate that was presented.
    """
    detail = text.strip().rstrip(".")
    alert = alert_failure(detail, host, shown=shown)
    if alert is not None:
        return alert
    if code in TLS_ERRORS or (code == _SSL_CONNECT_ERROR and not _is_cut(os_errno, detail)):
        return secure_failure(code, detail, verify_result, host, shown=shown)
    match code:
        case _ if code == _COULDNT_RESOLVE_HOST:
            return _broken("ERROR_WINHTTP_NAME_NOT_RESOLVED", f"the name {host} could not be resolved: check it")
        case _ if code == _COULDNT_CONNECT:
            return _broken(
                "ERROR_WINHTTP_CANNOT_CONNECT", f"no connection to {host} could be made: {reason_of(os_errno, detail)}"
            )
        case _ if code == _OPERATION_TIMEDOUT and not is_connected:
            return _broken(
                "ERROR_WINHTTP_CANNOT_CONNECT", f"{host} did not take the connection within {connect_timeout_s} s"
            )
        case _ if code == _OPERATION_TIMEDOUT:
            return _broken("ERROR_WINHTTP_TIMEOUT", f"{host} sent nothing for too long")
        case _ if code == _URL_MALFORMAT:
            return _fatal("ERROR_WINHTTP_INVALID_URL", f"the URL cannot be used: {detail}")
        case _ if code in (_UNSUPPORTED_PROTOCOL, _WEIRD_SERVER_REPLY):
            return _broken("ERROR_WINHTTP_INVALID_SERVER_RESPONSE", f"{host} does not answer in HTTP: {detail}")
        case _ if code == _TOO_LARGE:
            return _fatal("BG_E_INVALID_SERVER_RESPONSE", f"{host} sent more headers than anyone needs")
        case _ if code in (_PARTIAL_FILE, _GOT_NOTHING):
            return _broken("BG_E_CONNECTION_CLOSED", f"{host} closed the connection before everything was sent")
        case _ if code == _OUT_OF_MEMORY:
            return Failure(
                name="ERROR_NOT_ENOUGH_MEMORY",
                context=ErrorContext.GENERAL_TRANSPORT,
                message="there is not enough memory for the transfer: it is tried again",
                transient=True,
            )
        case _:
            return _broken("ERROR_WINHTTP_CONNECTION_ERROR", f"the connection to {host} broke: {detail}")


def _is_cut(os_errno: int, detail: str) -> bool:
    """Whether a TLS handshake ended because the line went dead, not because somebody said no."""
    return os_errno in _BROKEN_ERRNOS or "SSL_ERROR_SYSCALL" in detail or "unexpected eof" in detail.lower()


def reason_of(os_errno: int, detail: str) -> str:
    """Why no connection could be made, and what to do."""
    match os_errno:
        case errno.ECONNREFUSED:
            return "it was refused: check that the server runs and the port is right"
        case errno.ENETUNREACH | errno.EHOSTUNREACH:
            return "there is no route to it: check the network"
        case _:
            return detail


def _broken(name: str, message: str) -> Failure:
    return Failure(name=name, context=ErrorContext.GENERAL_TRANSPORT, message=message, transient=True, is_break=True)


def _fatal(name: str, message: str) -> Failure:
    return Failure(name=name, context=ErrorContext.GENERAL_TRANSPORT, message=message, transient=False)
