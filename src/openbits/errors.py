"""Every error that OpenBITS reports stands in the table below, under its BITS name.

An error is *data*: a name, an HRESULT, who has to act, a sentence, the exit status of the command
line and the HTTP status of the local API.  Processes pass errors to each other by name; nothing
else in the project invents a code.  Sources: inventory sections 6.4 and 7, WinError.h, WinHTTP.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final


class Fault(enum.Enum):
    """Who has to act for the error to go away."""

    CALLER = "caller"
    REMOTE = "remote"
    LOCAL = "local"
    CONDITION = "condition"
    INTERNAL = "internal"


class ExitCode(enum.IntEnum):
    """Exit statuses of `bits` (architecture, section 6)."""

    DONE = 0
    TRANSFER_FAILED = 1
    USAGE = 2
    NO_SUCH_JOB = 3
    ACCESS_DENIED = 4
    NO_SERVICE = 5
    WRONG_STATE = 6
    INTERRUPTED = 130


class ErrorContext(enum.IntEnum):
    """Where a transfer error happened (BG_ERROR_CONTEXT, inventory E2)."""

    NONE = 0
    UNKNOWN = 1
    GENERAL_QUEUE_MANAGER = 2
    QUEUE_MANAGER_NOTIFICATION = 3
    LOCAL_FILE = 4
    REMOTE_FILE = 5
    GENERAL_TRANSPORT = 6
    REMOTE_APPLICATION = 7
    SERVER_CERTIFICATE_CALLBACK = 8


CONTEXT_DESCRIPTIONS: Final = {
    ErrorContext.NONE: "no error has occurred",
    ErrorContext.UNKNOWN: "the error's context is not known",
    ErrorContext.GENERAL_QUEUE_MANAGER: "the error occurred in the service's queue manager",
    ErrorContext.QUEUE_MANAGER_NOTIFICATION: "the error occurred while a program was being notified",
    ErrorContext.LOCAL_FILE: "the error occurred while the local file was being processed",
    ErrorContext.REMOTE_FILE: "the error occurred while the remote file was being processed",
    ErrorContext.GENERAL_TRANSPORT: "the error occurred on the way between the two",
    ErrorContext.REMOTE_APPLICATION: "the error occurred in the server application",
    ErrorContext.SERVER_CERTIFICATE_CALLBACK: "the server's certificate was refused by the program",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorCode:
    """One row of the table: what a code means and how each surface shows it."""

    name: str
    hresult: int
    fault: Fault
    text: str
    exit_code: ExitCode
    http_status: int

    @property
    def is_success(self) -> bool:
        """Whether the code reports success with a remark (a BG_S code)."""
        return self.hresult < 0x8000_0000


ERRORS: Final[dict[str, ErrorCode]] = {}
_BY_HRESULT: Final[dict[int, ErrorCode]] = {}

_ROWS: Final[dict[tuple[Fault, ExitCode, HTTPStatus], tuple[tuple[str, int, str], ...]]] = {
    (Fault.CALLER, ExitCode.DONE, HTTPStatus.OK): (
        ("S_OK", 0, "done"),
        ("S_FALSE", 1, "nothing to do"),
        ("BG_S_ERROR_CONTEXT_NONE", 0x0020_0006, "there is no error context"),
        ("BG_S_PARTIAL_COMPLETE", 0x0020_0017, "only the files that were finished were kept"),
        ("BG_S_UNABLE_TO_DELETE_FILES", 0x0020_001A, "done, but some temporary files are left"),
        ("BG_S_PROXY_CHANGED", 0x0020_002A, "the proxy settings were changed"),
        ("BG_S_OVERRIDDEN_BY_POLICY", 0x0020_0055, "saved, but a policy has precedence"),
    ),
    (Fault.CALLER, ExitCode.USAGE, HTTPStatus.BAD_REQUEST): (
        ("BG_E_ERROR_CONTEXT_UNKNOWN", 0x8020_0007, "the error's context is not known"),
        ("BG_E_ERROR_CONTEXT_GENERAL_QUEUE_MANAGER", 0x8020_0008, "the error occurred in the queue manager"),
        ("BG_E_ERROR_CONTEXT_LOCAL_FILE", 0x8020_0009, "the error occurred with the local file"),
        ("BG_E_ERROR_CONTEXT_REMOTE_FILE", 0x8020_000A, "the error occurred with the remote file"),
        ("BG_E_ERROR_CONTEXT_GENERAL_TRANSPORT", 0x8020_000B, "the error occurred on the way"),
        ("BG_E_ERROR_CONTEXT_QUEUE_MANAGER_NOTIFICATION", 0x8020_000C, "the error occurred while notifying a program"),
        ("BG_E_ERROR_CONTEXT_REMOTE_APPLICATION", 0x8020_001E, "the error occurred in the server application"),
        ("BG_E_ERROR_CONTEXT_SERVER_CERTIFICATE_CALLBACK", 0x8020_0076, "a program refused the server's certificate"),
        ("BG_E_PROXY_LIST_TOO_LARGE", 0x8020_0018, "the proxy list is too long"),
        ("BG_E_PROXY_BYPASS_LIST_TOO_LARGE", 0x8020_0019, "the proxy bypass list is too long"),
        ("BG_E_TOO_MANY_FILES", 0x8020_001C, "an upload job takes exactly one file"),
        ("BG_E_STRING_TOO_LONG", 0x8020_0021, "a text is longer than allowed"),
        ("BG_E_USERNAME_TOO_LARGE", 0x8020_0025, "the user name is too long"),
        ("BG_E_PASSWORD_TOO_LARGE", 0x8020_0026, "the password is too long"),
        ("BG_E_INVALID_AUTH_TARGET", 0x8020_0027, "the authentication target is unknown"),
        ("BG_E_INVALID_AUTH_SCHEME", 0x8020_0028, "the authentication scheme is unknown"),
        ("BG_E_INVALID_RANGE", 0x8020_002B, "the byte range is invalid or outside the file"),
        ("BG_E_OVERLAPPING_RANGES", 0x8020_002C, "the byte ranges overlap"),
        ("BG_E_INVALID_PROXY_INFO", 0x8020_003F, "the proxy or proxy bypass list is invalid"),
        ("BG_E_INVALID_CREDENTIALS", 0x8020_0040, "the credentials are not well-formed"),
        ("BG_E_INVALID_HASH_ALGORITHM", 0x8020_0041, "the hash algorithm is not supported"),
        ("BG_E_TOO_MANY_RANGES_IN_FILE", 0x8020_0052, "the file has more ranges than it may have"),
        ("BG_E_UNKNOWN_PROPERTY_ID", 0x8020_0057, "there is no such property"),
        ("BG_E_READ_ONLY_PROPERTY", 0x8020_0058, "the property cannot be set"),
        ("BG_E_PROPERTY_SUPPORTED_FOR_DOWNLOAD_JOBS_ONLY", 0x8020_0060, "the property exists for download jobs only"),
        ("BG_E_MAX_DOWNLOAD_SIZE_INVALID_VALUE", 0x8020_0063, "the maximum download size is invalid"),
        ("BG_E_USE_STORED_CREDENTIALS_NOT_SUPPORTED", 0x8020_0066, "stored credentials exist for proxies only"),
        ("E_INVALIDARG", 0x8007_0057, "an argument is invalid"),
        ("RPC_X_NULL_REF_POINTER", 0x8007_06F4, "an argument is missing"),
        ("RPC_X_BAD_STUB_DATA", 0x8007_06F7, "an argument is not what it should be, or there is nothing to return"),
        ("ERROR_RESOURCE_LANG_NOT_FOUND", 0x8007_1717, "there is no text in that language"),
    ),
    (Fault.CALLER, ExitCode.USAGE, HTTPStatus.NOT_FOUND): (
        ("BG_E_FILE_NOT_FOUND", 0x8020_0029, "there is no such file"),
    ),
    (Fault.CALLER, ExitCode.USAGE, HTTPStatus.CONFLICT): (
        ("BG_E_FILE_NOT_AVAILABLE", 0x8020_0004, "the error does not concern a file"),
        ("BG_E_PROTOCOL_NOT_AVAILABLE", 0x8020_0005, "the error does not concern a protocol"),
        ("BG_E_NEW_OWNER_DIFF_MAPPING", 0x8020_0015, "the path means another place for the new owner"),
        ("BG_E_TOO_MANY_JOBS_PER_USER", 0x8020_0049, "the account has as many jobs as it may have"),
        ("BG_E_TOO_MANY_JOBS_PER_MACHINE", 0x8020_0050, "the machine has as many jobs as it may have"),
        ("BG_E_TOO_MANY_FILES_IN_JOB", 0x8020_0051, "the job has as many files as it may have"),
        ("BG_E_NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD", 0x8020_0071, "not possible together with a custom HTTP method"),
        ("BG_E_UNSUPPORTED_JOB_CONFIGURATION", 0x8020_0072, "these properties exclude each other"),
    ),
    (Fault.CALLER, ExitCode.USAGE, HTTPStatus.NOT_IMPLEMENTED): (
        ("E_NOTIMPL", 0x8000_4001, "this is not implemented"),
        ("E_NOINTERFACE", 0x8000_4002, "the object does not offer this"),
    ),
    (Fault.CALLER, ExitCode.NO_SUCH_JOB, HTTPStatus.NOT_FOUND): (
        ("BG_E_NOT_FOUND", 0x8020_0001, "there is no such job"),
        ("RPC_E_DISCONNECTED", 0x8001_0108, "the object is gone from the service"),
    ),
    (Fault.CALLER, ExitCode.ACCESS_DENIED, HTTPStatus.FORBIDDEN): (
        ("BG_E_REMOTE_NOT_SUPPORTED", 0x8020_0014, "the service takes calls from this machine only"),
        ("BG_E_NEW_OWNER_NO_FILE_ACCESS", 0x8020_0016, "the new owner cannot access the temporary files"),
        ("E_ACCESSDENIED", 0x8007_0005, "access is denied"),
        ("ERROR_PRIVILEGE_NOT_HELD", 0x8007_0522, "the process lacks the privilege"),
        ("CO_E_FAILEDTOIMPERSONATE", 0x8001_0123, "the identity of the caller cannot be taken"),
    ),
    (Fault.CALLER, ExitCode.WRONG_STATE, HTTPStatus.CONFLICT): (
        ("BG_E_INVALID_STATE", 0x8020_0002, "the job's state does not allow this"),
        ("BG_E_EMPTY", 0x8020_0003, "the job has no files"),
        ("BG_E_ERROR_INFORMATION_UNAVAILABLE", 0x8020_000F, "the job has no error to report"),
        ("BG_E_READ_ONLY_PROPERTY_AFTER_ADDFILE", 0x8020_0061, "the property must be set before files are added"),
        (
            "BG_E_READ_ONLY_PROPERTY_AFTER_RESUME",
            0x8020_0062,
            "the property must be set before the job is first resumed",
        ),
        ("BG_E_READ_ONLY_WHEN_JOB_ACTIVE", 0x8020_0075, "the job must be suspended first"),
        ("E_PENDING", 0x8000_000A, "the file is not finished"),
        ("E_ILLEGAL_METHOD_CALL", 0x8000_000E, "this is not possible at this moment"),
        ("RPC_E_TOO_LATE", 0x8001_0119, "security is settled already: it is set once, before the first object"),
    ),
    (Fault.REMOTE, ExitCode.TRANSFER_FAILED, HTTPStatus.BAD_GATEWAY): (
        ("BG_E_MISSING_FILE_SIZE", 0x8020_0011, "the server does not tell the size of the file"),
        (
            "BG_E_INSUFFICIENT_HTTP_SUPPORT",
            0x8020_0012,
            "the server does not support the HTTP features that are needed",
        ),
        ("BG_E_INSUFFICIENT_RANGE_SUPPORT", 0x8020_0013, "the server or a proxy does not support byte ranges"),
        ("BG_E_INVALID_SERVER_RESPONSE", 0x8020_001B, "the server's answer makes no sense"),
        ("BG_E_SESSION_NOT_FOUND", 0x8020_001F, "the server does not know the upload session"),
        ("BG_E_TOO_LARGE", 0x8020_0020, "the file or the reply is larger than allowed"),
        ("BG_E_CLIENT_SERVER_PROTOCOL_MISMATCH", 0x8020_0022, "client and server have no upload protocol in common"),
        ("BG_E_SERVER_EXECUTE_ENABLED", 0x8020_0023, "the server's directory allows scripts to run"),
        ("BG_E_NO_PROGRESS", 0x8020_0024, "no progress was made"),
        ("BG_E_CONNECT_FAILURE", 0x8020_002D, "the server could not be connected to"),
        ("BG_E_CONNECTION_CLOSED", 0x8020_002E, "the server closed the connection too early"),
        ("BG_E_RANDOM_ACCESS_NOT_SUPPORTED", 0x8020_006D, "the file cannot be fetched on demand"),
        ("BG_E_REMOTE_FILE_CHANGED", 0x8020_0073, "the remote file was changed during the transfer"),
        ("ERROR_CRC", 0x8007_0017, "the content does not have the checksum that was asked for"),
        ("ERROR_WINHTTP_TIMEOUT", 0x8007_2EE2, "the server sent nothing for too long"),
        ("ERROR_WINHTTP_NAME_NOT_RESOLVED", 0x8007_2EE7, "the server's name could not be resolved"),
        ("ERROR_WINHTTP_INVALID_URL", 0x8007_2EE5, "the URL is invalid"),
        ("ERROR_WINHTTP_CANNOT_CONNECT", 0x8007_2EFD, "no connection to the server could be made"),
        ("ERROR_WINHTTP_CONNECTION_ERROR", 0x8007_2EFE, "the connection to the server broke"),
        ("ERROR_WINHTTP_INVALID_SERVER_RESPONSE", 0x8007_2F78, "the server's answer is not HTTP"),
        ("ERROR_WINHTTP_REDIRECT_FAILED", 0x8007_2F7C, "the server redirected to a place that may not be followed"),
        ("ERROR_WINHTTP_SECURE_FAILURE", 0x8007_2F8F, "the server's identity could not be verified"),
        ("ERROR_WINHTTP_SECURE_CERT_DATE_INVALID", 0x8007_2F05, "the server's certificate is not valid at this time"),
        ("ERROR_WINHTTP_SECURE_CERT_CN_INVALID", 0x8007_2F06, "the server's certificate is for another name"),
        ("ERROR_WINHTTP_SECURE_INVALID_CA", 0x8007_2F0D, "nobody who is trusted here issued the server's certificate"),
        (
            "ERROR_WINHTTP_SECURE_CERT_REV_FAILED",
            0x8007_2F19,
            "nobody could say whether the certificate is revoked",
        ),
        ("ERROR_WINHTTP_SECURE_CHANNEL_ERROR", 0x8007_2F7D, "the secure connection could not be set up"),
        ("ERROR_WINHTTP_SECURE_INVALID_CERT", 0x8007_2F89, "the server's certificate is invalid"),
        ("ERROR_WINHTTP_SECURE_CERT_REVOKED", 0x8007_2F8A, "the server's certificate has been revoked"),
        ("ERROR_WINHTTP_SECURE_CERT_WRONG_USAGE", 0x8007_2F93, "the server's certificate is not for servers"),
        ("ERROR_WINHTTP_CLIENT_AUTH_CERT_NEEDED", 0x8007_2F0C, "the server asks for a client certificate"),
        ("CERT_E_UNTRUSTEDROOT", 0x800B_0109, "a program does not trust who issued the server's certificate"),
        ("CERT_E_CN_NO_MATCH", 0x800B_010F, "a program wants the server's certificate to be for another name"),
        ("TRUST_E_EXPLICIT_DISTRUST", 0x800B_0111, "a program distrusts the server's certificate"),
    ),
    (Fault.LOCAL, ExitCode.TRANSFER_FAILED, HTTPStatus.UNPROCESSABLE_ENTITY): (
        ("BG_E_VOLUME_CHANGED", 0x8020_000E, "another volume is mounted at the destination"),
        ("BG_E_LOCAL_FILE_CHANGED", 0x8020_001D, "the local file was changed during the upload"),
        ("BG_E_VALIDATION_FAILED", 0x8020_0053, "the content was declared invalid"),
        ("ERROR_FILE_NOT_FOUND", 0x8007_0002, "the file does not exist"),
        ("ERROR_PATH_NOT_FOUND", 0x8007_0003, "the directory does not exist"),
        ("ERROR_FILE_EXISTS", 0x8007_0050, "something else stands at the file's name"),
        ("ERROR_WRITE_FAULT", 0x8007_001D, "the disk reported an error while it was written to"),
        ("ERROR_READ_FAULT", 0x8007_001E, "the disk reported an error while it was read from"),
        ("ERROR_FILE_TOO_LARGE", 0x8007_00DF, "the file is larger than the file system or the limit allows"),
        ("ERROR_BAD_EXE_FORMAT", 0x8007_00C1, "the file is no program that this machine can run"),
        ("ERROR_PROCESS_ABORTED", 0x8007_042B, "the program ended without success"),
        ("ERROR_TIMEOUT", 0x8007_05B4, "a program did not do in time what was asked of it"),
        ("REGDB_E_CLASSNOTREG", 0x8004_0154, "nobody has registered this name"),
        ("RPC_S_SERVER_UNAVAILABLE", 0x8007_06BA, "the program that is to be told cannot be reached"),
    ),
    (Fault.CONDITION, ExitCode.TRANSFER_FAILED, HTTPStatus.SERVICE_UNAVAILABLE): (
        ("BG_E_RECORD_DELETED", 0x8020_0042, "the cache record is gone"),
        ("BG_E_COMMIT_IN_PROGRESS", 0x8020_0043, "the cache record is being written"),
        ("BG_E_DISCOVERY_IN_PROGRESS", 0x8020_0044, "peers are being looked for already"),
        ("BG_E_UPNP_ERROR", 0x8020_0045, "the gateway reported an error"),
        ("BG_E_TEST_OPTION_BLOCKED_DOWNLOAD", 0x8020_0046, "a test blocks the download"),
        ("BG_E_PEERCACHING_DISABLED", 0x8020_0047, "peer caching is switched off"),
        ("BG_E_BUSYCACHERECORD", 0x8020_0048, "the cache record is in use"),
        ("BG_E_STANDBY_MODE", 0x8020_0065, "the machine is in standby"),
        ("BG_E_APP_PACKAGE_NOT_FOUND", 0x8020_006A, "the application's package is gone"),
        ("BG_E_APP_PACKAGE_SCENARIO_NOT_SUPPORTED", 0x8020_006B, "not possible for a packaged application"),
        ("BG_E_BLOCKED_BY_BACKGROUND_ACCESS_POLICY", 0x8020_006E, "the system blocks background activity"),
        ("BG_E_BLOCKED_BY_GAME_MODE", 0x8020_006F, "the system gives precedence to a game"),
        ("BG_E_DESTINATION_LOCKED", 0x8020_000D, "the destination volume is locked"),
        ("BG_E_NETWORK_DISCONNECTED", 0x8020_0010, "there is no network"),
        ("BG_E_BLOCKED_BY_POLICY", 0x8020_003E, "the bandwidth policy blocks background transfers"),
        ("BG_E_MAXDOWNLOAD_TIMEOUT", 0x8020_0054, "the job ran longer than its maximum download time"),
        ("BG_E_TOKEN_REQUIRED", 0x8020_0056, "the helper token that the job needs is gone"),
        ("BG_E_BLOCKED_BY_COST_TRANSFER_POLICY", 0x8020_0059, "the network's cost blocks the transfer"),
        ("BG_E_MAX_DOWNLOAD_SIZE_LIMIT_REACHED", 0x8020_0064, "the job reached its maximum download size"),
        ("BG_E_BLOCKED_BY_BATTERY_POLICY", 0x8020_0067, "the machine runs on battery"),
        ("BG_E_BLOCKED_BY_BATTERY_SAVER", 0x8020_0068, "the battery is low"),
        ("BG_E_BLOCKED_BY_SYSTEM_POLICY", 0x8020_0070, "the system blocks background transfers"),
        ("BG_E_SERVER_CERT_VALIDATION_INTERFACE_REQUIRED", 0x8020_0074, "the program that checks certificates is gone"),
        ("ERROR_DISK_FULL", 0x8007_0070, "there is no room on the disk"),
        ("ERROR_DISK_QUOTA_EXCEEDED", 0x8007_050F, "the account's disk quota is used up"),
        ("ERROR_NO_SUCH_USER", 0x8007_0525, "the account does not exist"),
        ("ERROR_WINHTTP_CLIENT_CERT_NO_PRIVATE_KEY", 0x8007_2F99, "the client certificate has no private key"),
        (
            "ERROR_WINHTTP_CLIENT_CERT_NO_ACCESS_PRIVATE_KEY",
            0x8007_2F9A,
            "the private key of the client certificate cannot be used",
        ),
        ("CRYPT_E_NOT_FOUND", 0x8009_2004, "there is no such certificate"),
    ),
    (Fault.CONDITION, ExitCode.NO_SERVICE, HTTPStatus.SERVICE_UNAVAILABLE): (
        ("ERROR_SERVICE_NOT_ACTIVE", 0x8007_0426, "the service does not run"),
        ("RPC_S_CALL_FAILED", 0x8007_06BE, "the service broke off the call"),
    ),
    (Fault.INTERNAL, ExitCode.TRANSFER_FAILED, HTTPStatus.INTERNAL_SERVER_ERROR): (
        ("BG_E_WATCHDOG_TIMEOUT", 0x8020_0069, "a part of the service did not answer"),
        ("BG_E_DATABASE_CORRUPT", 0x8020_006C, "the job store is damaged"),
        ("E_FAIL", 0x8000_4005, "the service failed; its log says why"),
        ("ERROR_NOT_ENOUGH_MEMORY", 0x8007_0008, "there is not enough memory"),
    ),
}


def _fill() -> None:
    for (fault, exit_code, status), rows in _ROWS.items():
        for name, hresult, text in rows:
            row = ErrorCode(
                name=name, hresult=hresult, fault=fault, text=text, exit_code=exit_code, http_status=int(status)
            )
            if name in ERRORS or hresult in _BY_HRESULT:
                raise AssertionError(f"{name} ({hresult:#010x}) stands in the table twice")
            ERRORS[name] = row
            _BY_HRESULT[hresult] = row


_fill()

_HTTP_BASE: Final = 0x8019_0000


def error_code(name: str) -> ErrorCode:
    """Return the row called `name`; BG_E_HTTP_ERROR_nnn rows exist for every status 100–999.

    Raises KeyError for a name that is not in the table.
    """
    row = ERRORS.get(name)
    if row is not None:
        return row
    prefix, _, digits = name.rpartition("_")
    if (
        prefix == "BG_E_HTTP_ERROR"
        and digits.isascii()
        and digits.isdigit()
        and len(digits) == 3
        and int(digits) >= 100
    ):
        return _http_row(int(digits))
    raise KeyError(name)


def is_failure(name: str) -> bool:
    """Whether there is an error of this name that is no success."""
    try:
        return not error_code(name).is_success
    except KeyError:
        return False


def http_error_name(status: int) -> str:
    """Return the BITS name of an HTTP status, e.g. BG_E_HTTP_ERROR_404."""
    return f"BG_E_HTTP_ERROR_{status:03d}"


def by_hresult(hresult: int) -> ErrorCode | None:
    """Return the row with this HRESULT, or None (inventory M4)."""
    row = _BY_HRESULT.get(hresult)
    if row is None and 100 <= hresult - _HTTP_BASE <= 999:
        row = _http_row(hresult - _HTTP_BASE)
    return row


def _http_row(status: int) -> ErrorCode:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "unknown status"
    return ErrorCode(
        name=http_error_name(status),
        hresult=_HTTP_BASE + status,
        fault=Fault.REMOTE,
        text=f"the server answered {status} ({phrase})",
        exit_code=ExitCode.TRANSFER_FAILED,
        http_status=int(HTTPStatus.BAD_GATEWAY),
    )


class BitsError(Exception):
    """A call failed: `code` is the row of the table, `message` one sentence for a person.

    The message says what happened, to what, and what to do; it defaults to the row's text.
    """

    def __init__(self, name: str, message: str | None = None) -> None:
        self.code = error_code(name)
        self.message = message or self.code.text
        super().__init__(self.message)

    @property
    def name(self) -> str:
        """The BITS name, e.g. BG_E_EMPTY."""
        return self.code.name

    @property
    def hresult(self) -> int:
        """The HRESULT as an unsigned 32-bit number."""
        return self.code.hresult

    def __str__(self) -> str:
        return f"{self.name} ({self.hresult:#010x}): {self.message}"

    def __repr__(self) -> str:
        return f"BitsError({self.name!r}, {self.message!r})"

    def __reduce__(self) -> tuple[type[BitsError], tuple[str, str]]:
        return BitsError, (self.name, self.message)
