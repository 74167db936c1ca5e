"""The error table: BITS's names and numbers, and one way to show each (inventory section 7, E2, M4)."""

import pickle
import re
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.errors import (
    CONTEXT_DESCRIPTIONS,
    ERRORS,
    BitsError,
    ErrorContext,
    ExitCode,
    Fault,
    by_hresult,
    error_code,
    http_error_name,
)

BITSMSG = """
    01 NOT_FOUND
    02 INVALID_STATE
    03 EMPTY
    04 FILE_NOT_AVAILABLE
    05 PROTOCOL_NOT_AVAILABLE
    07 ERROR_CONTEXT_UNKNOWN
    08 ERROR_CONTEXT_GENERAL_QUEUE_MANAGER
    09 ERROR_CONTEXT_LOCAL_FILE
    0A ERROR_CONTEXT_REMOTE_FILE
    0B ERROR_CONTEXT_GENERAL_TRANSPORT
    0C ERROR_CONTEXT_QUEUE_MANAGER_NOTIFICATION
    0D DESTINATION_LOCKED
    0E VOLUME_CHANGED
    0F ERROR_INFORMATION_UNAVAILABLE
    10 NETWORK_DISCONNECTED
    11 MISSING_FILE_SIZE
    12 INSUFFICIENT_HTTP_SUPPORT
    13 INSUFFICIENT_RANGE_SUPPORT
    14 REMOTE_NOT_SUPPORTED
    15 NEW_OWNER_DIFF_MAPPING
    16 NEW_OWNER_NO_FILE_ACCESS
    18 PROXY_LIST_TOO_LARGE
    19 PROXY_BYPASS_LIST_TOO_LARGE
    1B INVALID_SERVER_RESPONSE
    1C TOO_MANY_FILES
    1D LOCAL_FILE_CHANGED
    1E ERROR_CONTEXT_REMOTE_APPLICATION
    1F SESSION_NOT_FOUND
    20 TOO_LARGE
    21 STRING_TOO_LONG
    22 CLIENT_SERVER_PROTOCOL_MISMATCH
    23 SERVER_EXECUTE_ENABLED
    24 NO_PROGRESS
    25 USERNAME_TOO_LARGE
    26 PASSWORD_TOO_LARGE
    27 INVALID_AUTH_TARGET
    28 INVALID_AUTH_SCHEME
    29 FILE_NOT_FOUND
    2B INVALID_RANGE
    2C OVERLAPPING_RANGES
    2D CONNECT_FAILURE
    2E CONNECTION_CLOSED
    3E BLOCKED_BY_POLICY
    3F INVALID_PROXY_INFO
    40 INVALID_CREDENTIALS
    41 INVALID_HASH_ALGORITHM
    42 RECORD_DELETED
    43 COMMIT_IN_PROGRESS
    44 DISCOVERY_IN_PROGRESS
    45 UPNP_ERROR
    46 TEST_OPTION_BLOCKED_DOWNLOAD
    47 PEERCACHING_DISABLED
    48 BUSYCACHERECORD
    49 TOO_MANY_JOBS_PER_USER
    50 TOO_MANY_JOBS_PER_MACHINE
    51 TOO_MANY_FILES_IN_JOB
    52 TOO_MANY_RANGES_IN_FILE
    53 VALIDATION_FAILED
    54 MAXDOWNLOAD_TIMEOUT
    56 TOKEN_REQUIRED
    57 UNKNOWN_PROPERTY_ID
    58 READ_ONLY_PROPERTY
    59 BLOCKED_BY_COST_TRANSFER_POLICY
    60 PROPERTY_SUPPORTED_FOR_DOWNLOAD_JOBS_ONLY
    61 READ_ONLY_PROPERTY_AFTER_ADDFILE
    62 READ_ONLY_PROPERTY_AFTER_RESUME
    63 MAX_DOWNLOAD_SIZE_INVALID_VALUE
    64 MAX_DOWNLOAD_SIZE_LIMIT_REACHED
    65 STANDBY_MODE
    66 USE_STORED_CREDENTIALS_NOT_SUPPORTED
    67 BLOCKED_BY_BATTERY_POLICY
    68 BLOCKED_BY_BATTERY_SAVER
    69 WATCHDOG_TIMEOUT
    6A APP_PACKAGE_NOT_FOUND
    6B APP_PACKAGE_SCENARIO_NOT_SUPPORTED
    6C DATABASE_CORRUPT
    6D RANDOM_ACCESS_NOT_SUPPORTED
    6E BLOCKED_BY_BACKGROUND_ACCESS_POLICY
    6F BLOCKED_BY_GAME_MODE
    70 BLOCKED_BY_SYSTEM_POLICY
    71 NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD
    72 UNSUPPORTED_JOB_CONFIGURATION
    73 REMOTE_FILE_CHANGED
    74 SERVER_CERT_VALIDATION_INTERFACE_REQUIRED
    75 READ_ONLY_WHEN_JOB_ACTIVE
    76 ERROR_CONTEXT_SERVER_CERTIFICATE_CALLBACK
"""
"""The low byte of every BG_E code of bitsmsg.h; the rest is 0x802000."""


@pytest.mark.parametrize("line", BITSMSG.split("\n")[1:-1])
def test_every_code_of_bitsmsg_h_has_its_number(line: str) -> None:
    low, name = line.split()
    assert ERRORS[f"BG_E_{name}"].hresult == 0x8020_0000 + int(low, 16)


@pytest.mark.parametrize(
    ("name", "hresult"),
    [
        ("BG_S_ERROR_CONTEXT_NONE", 0x0020_0006),
        ("BG_S_PARTIAL_COMPLETE", 0x0020_0017),
        ("BG_S_UNABLE_TO_DELETE_FILES", 0x0020_001A),
        ("BG_S_PROXY_CHANGED", 0x0020_002A),
        ("BG_S_OVERRIDDEN_BY_POLICY", 0x0020_0055),
        ("E_INVALIDARG", 0x8007_0057),
        ("E_ACCESSDENIED", 0x8007_0005),
        ("E_NOTIMPL", 0x8000_4001),
        ("E_PENDING", 0x8000_000A),
        ("S_OK", 0),
        ("S_FALSE", 1),
        ("BG_E_HTTP_ERROR_404", 0x8019_0194),
        ("BG_E_HTTP_ERROR_100", 0x8019_0064),
        ("ERROR_WINHTTP_NAME_NOT_RESOLVED", 0x8007_2EE7),
        ("ERROR_WINHTTP_CLIENT_AUTH_CERT_NEEDED", 0x8007_2F0C),
        ("ERROR_WINHTTP_INVALID_SERVER_RESPONSE", 0x8007_2F78),
    ],
)
def test_other_codes_have_their_numbers(name: str, hresult: int) -> None:
    assert error_code(name).hresult == hresult
    assert by_hresult(hresult) == error_code(name)


def test_nothing_stands_in_the_table_twice_and_every_name_is_its_key() -> None:
    assert all(row.name == name for name, row in ERRORS.items())
    assert len({row.hresult for row in ERRORS.values()}) == len(ERRORS)
    assert all(by_hresult(row.hresult) is row for row in ERRORS.values())


@pytest.mark.parametrize("name", ERRORS)
def test_every_row_can_be_shown(name: str) -> None:
    row = ERRORS[name]
    assert re.fullmatch(r"[^A-Z].*[^.]|BITS.*[^.]", row.text), "a sentence in lower case without a full stop"
    HTTPStatus(row.http_status)
    assert row.is_success == (row.exit_code is ExitCode.DONE) == (row.http_status == HTTPStatus.OK)
    assert row.exit_code is not ExitCode.INTERRUPTED, "that is the command's own"


@pytest.mark.parametrize(
    ("name", "exit_code"),
    [
        ("BG_E_NOT_FOUND", ExitCode.NO_SUCH_JOB),
        ("E_ACCESSDENIED", ExitCode.ACCESS_DENIED),
        ("BG_E_REMOTE_NOT_SUPPORTED", ExitCode.ACCESS_DENIED),
        ("BG_E_INVALID_STATE", ExitCode.WRONG_STATE),
        ("BG_E_EMPTY", ExitCode.WRONG_STATE),
        ("E_PENDING", ExitCode.WRONG_STATE),
        ("BG_E_READ_ONLY_PROPERTY_AFTER_RESUME", ExitCode.WRONG_STATE),
        ("E_INVALIDARG", ExitCode.USAGE),
        ("BG_E_HTTP_ERROR_404", ExitCode.TRANSFER_FAILED),
        ("ERROR_DISK_FULL", ExitCode.TRANSFER_FAILED),
        ("ERROR_SERVICE_NOT_ACTIVE", ExitCode.NO_SERVICE),
    ],
)
def test_exit_codes(name: str, exit_code: ExitCode) -> None:
    assert error_code(name).exit_code is exit_code


@pytest.mark.parametrize("status", [100, 404, 451, 599, 999])
def test_every_http_status_has_a_code(status: int) -> None:
    row = error_code(http_error_name(status))
    assert row.hresult == 0x8019_0000 + status
    assert row.fault is Fault.REMOTE
    assert str(status) in row.text
    assert by_hresult(row.hresult) == row


@pytest.mark.parametrize(
    "name",
    [
        "",
        "E_",
        "BG_E_HTTP_ERROR_99",
        "BG_E_HTTP_ERROR_099",
        "BG_E_HTTP_ERROR_1000",
        "BG_E_HTTP_ERROR_²²²",
        "bg_e_empty",
    ],
)
def test_what_is_not_in_the_table_is_no_error(name: str) -> None:
    with pytest.raises(KeyError):
        error_code(name)
    with pytest.raises(KeyError):
        BitsError(name)


@given(st.integers(-(2**33), 2**33))
def test_a_number_is_an_error_or_none(number: int) -> None:
    row = by_hresult(number)
    assert row is None or row.hresult == number


@pytest.mark.parametrize("hresult", [0x8019_0000, 0x8019_0063, 0x8019_03E8, -1, 0x8020_0000])
def test_numbers_beside_the_table_are_none(hresult: int) -> None:
    assert by_hresult(hresult) is None


def test_contexts_have_bitss_numbers_and_a_sentence_each() -> None:
    assert [context.name for context in sorted(ErrorContext)] == [
        "NONE",
        "UNKNOWN",
        "GENERAL_QUEUE_MANAGER",
        "QUEUE_MANAGER_NOTIFICATION",
        "LOCAL_FILE",
        "REMOTE_FILE",
        "GENERAL_TRANSPORT",
        "REMOTE_APPLICATION",
        "SERVER_CERTIFICATE_CALLBACK",
    ]
    assert sorted(ErrorContext) == list(range(9))
    assert CONTEXT_DESCRIPTIONS.keys() == set(ErrorContext)


def test_an_error_says_its_name_its_number_and_what_to_do() -> None:
    error = BitsError("BG_E_EMPTY", "the job has no files: add one with 'bits add'")
    assert str(error) == "BG_E_EMPTY (0x80200003): the job has no files: add one with 'bits add'"
    assert error.message.startswith("the job has no files")
    assert str(BitsError("BG_E_EMPTY")) == "BG_E_EMPTY (0x80200003): the job has no files"


def test_an_error_can_be_passed_between_processes() -> None:
    error = pickle.loads(pickle.dumps(BitsError("BG_E_HTTP_ERROR_503", "come back later")))
    assert repr(error) == "BitsError('BG_E_HTTP_ERROR_503', 'come back later')"
    assert error.hresult == 0x8019_01F7
