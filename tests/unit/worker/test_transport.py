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
        (
            60,
            "no alternative certificate subject name matches",
            0,
            False,
            "ERROR_WINHTTP_SECURE_CERT_CN_INVALID",
            False,
        ),
        (35, "wrong version number", 0, False, "ERROR_WINHTTP_SECURE_CHANNEL_ERROR", False),
        (35, "ssl/tls alert handshake failure", 0, False, "ERROR_WINHTTP_SECURE_CHANNEL_ERROR", False),
        (77, "error adding trust anchors", 0, False, "ERROR_WINHTTP_SECURE_FAILURE", False),
        (90, "public key does not match", 0, False, "ERROR_WINHTTP_SECURE_CHANNEL_ERROR", True),
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


@pytest.mark.parametrize(
    ("result", "name"),
    [
        (9, "ERROR_WINHTTP_SECURE_CERT_DATE_INVALID"),
        (10, "ERROR_WINHTTP_SECURE_CERT_DATE_INVALID"),
        (18, "ERROR_WINHTTP_SECURE_INVALID_CA"),
        (19, "ERROR_WINHTTP_SECURE_INVALID_CA"),
        (20, "ERROR_WINHTTP_SECURE_INVALID_CA"),
        (23, "ERROR_WINHTTP_SECURE_CERT_REVOKED"),
        (26, "ERROR_WINHTTP_SECURE_CERT_WRONG_USAGE"),
        (62, "ERROR_WINHTTP_SECURE_CERT_CN_INVALID"),
        (7, "ERROR_WINHTTP_SECURE_INVALID_CERT"),
        (66, "ERROR_WINHTTP_SECURE_INVALID_CERT"),
        (999, "ERROR_WINHTTP_SECURE_INVALID_CERT"),
    ],
)
def test_i13_what_is_wrong_with_a_certificate_goes_by_openssls_number(result: int, name: str) -> None:
    failure = map_error(
        60, "x", host="h.example", os_errno=0, is_connected=False, connect_timeout_s=9, verify_result=result
    )
    assert (failure.name, failure.transient) == (name, False)
    assert "h.example" in failure.message


def test_h2_an_alert_of_which_libcurl_tells_only_that_there_was_one() -> None:
    failure = map_error(
        60,
        "SSL certificate verification failed",
        host="h",
        os_errno=0,
        is_connected=False,
        connect_timeout_s=9,
        verify_result=1,
        shown="CN=alice",
    )
    assert (failure.name, failure.transient) == ("BG_E_HTTP_ERROR_403", False)


@pytest.mark.parametrize("alert", ["tlsv1 alert unknown ca, errno 0", "ssl/tls alert bad certificate"])
@pytest.mark.parametrize("code", [35, 56])
def test_h2_a_client_certificate_that_is_not_accepted(alert: str, code: int) -> None:
    text = f"OpenSSL SSL_read: error:0A000418:SSL routines::{alert}"
    failure = map_error(code, text, host="h", os_errno=0, is_connected=True, connect_timeout_s=9, shown="CN=alice")
    assert (failure.name, failure.transient) == ("BG_E_HTTP_ERROR_403", False)
    assert "CN=alice" in failure.message


def test_every_number_has_a_row_in_the_table() -> None:
    for code in range(1, 110):
        failure = map_error(code, "x", host="h", os_errno=0, is_connected=True, connect_timeout_s=1)
        assert error_code(failure.name).name == failure.name
        assert failure.message
