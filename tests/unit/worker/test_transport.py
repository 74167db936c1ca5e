"""worker.transport: every error of libcurl is one of ours (R4, R5)."""

from __future__ import annotations

import errno

import pytest

from openbits.errors import ErrorContext, error_code
from openbits.worker.transport import map_error


@pytest.mark.parametrize(
    ("code", "text", "number", "connected", "name", "transient"),
    [
        (6, "", 0, False, "ERROR_WINHTTP_NAME_NOT_RESOLVED", True),
        (7, "", errno.ECONNREFUSED, False, "ERROR_WINHTTP_CANNOT_CONNECT", True),
        (28, "", 0, False, "ERROR_WINHTTP_CANNOT_CONNECT", True),
        (28, "", 0, True, "ERROR_WINHTTP_TIMEOUT", True),
        (60, "self-signed certificate", 0, False, "ERROR_WINHTTP_SECURE_FAILURE", False),
        (35, "wrong version number", 0, False, "ERROR_WINHTTP_SECURE_FAILURE", False),
        (35, "OpenSSL SSL_connect: SSL_ERROR_SYSCALL", 0, False, "ERROR_WINHTTP_CONNECTION_ERROR", True),
        (35, "", errno.ECONNRESET, False, "ERROR_WINHTTP_CONNECTION_ERROR", True),
        (56, "tlsv13 alert certificate required", 0, True, "ERROR_WINHTTP_CLIENT_AUTH_CERT_NEEDED", False),
        (3, "", 0, False, "ERROR_WINHTTP_INVALID_URL", False),
        (1, "Received HTTP/0.9 when not allowed", 0, True, "ERROR_WINHTTP_INVALID_SERVER_RESPONSE", True),
        (8, "", 0, True, "ERROR_WINHTTP_INVALID_SERVER_RESPONSE", True),
        (18, "", 0, True, "BG_E_CONNECTION_CLOSED", True),
        (52, "", 0, True, "BG_E_CONNECTION_CLOSED", True),
        (56, "Recv failure: Connection reset by peer", 104, True, "ERROR_WINHTTP_CONNECTION_ERROR", True),
        (92, "HTTP/2 stream 1 was reset", 0, True, "ERROR_WINHTTP_CONNECTION_ERROR", True),
        (100, "", 0, True, "BG_E_INVALID_SERVER_RESPONSE", False),
        (27, "", 0, True, "ERROR_NOT_ENOUGH_MEMORY", True),
    ],
)
def test_mapping(code: int, text: str, number: int, connected: bool, name: str, transient: bool) -> None:
    failure = map_error(code, text, host="example.com", os_errno=number, is_connected=connected, connect_timeout_s=9)
    assert (failure.name, failure.transient) == (name, transient)
    assert failure.context is ErrorContext.GENERAL_TRANSPORT
    assert not (failure.is_break and not failure.transient)


def test_every_number_has_a_row_in_the_table() -> None:
    for code in range(1, 110):
        failure = map_error(code, "x", host="h", os_errno=0, is_connected=True, connect_timeout_s=1)
        assert error_code(failure.name).name == failure.name
        assert failure.message
