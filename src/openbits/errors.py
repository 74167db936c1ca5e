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

_DEFAULTS: Final = {
    Fault.CALLER: (ExitCode.USAGE, HTTPStatus.BAD_REQUEST),
    Fault.REMOTE: (ExitCode.TRANSFER_FAILED, HTTPStatus.BAD_GATEWAY),
    Fault.LOCAL: (ExitCode.TRANSFER_FAILED, HTTPStatus.UNPROCESSABLE_ENTITY),
    Fault.CONDITION: (ExitCode.TRANSFER_FAILED, HTTPStatus.SERVICE_UNAVAILABLE),
    Fault.INTERNAL: (ExitCode.TRANSFER_FAILED, HTTPStatus.INTERNAL_SERVER_ERROR),
}


def _row(
    name: str,
    hresult: int,
    fault: Fault,
    text: str,
    *,
    exit_code: ExitCode | None = None,
    status: HTTPStatus | None = None,
) -> None:
    default_exit, default_status = _DEFAULTS[fault]
    row = ErrorCode(
        name=name,
        hresult=hresult,
        fault=fault,
        text=text,
        exit_code=default_exit if exit_code is None else exit_code,
        http_status=int(default_status if status is None else status),
    )
    if name in ERRORS or hresult in _BY_HRESULT:
        raise AssertionError(f"{name} ({hresult:#010x}) stands in the table twice")
    ERRORS[name] = row
    _BY_HRESULT[hresult] = row


def _table() -> None:
    caller, remote, local = Fault.CALLER, Fault.REMOTE, Fault.LOCAL
    condition, internal = Fault.CONDITION, Fault.INTERNAL
    conflict = HTTPStatus.CONFLICT
    state = ExitCode.WRONG_STATE
    denied = ExitCode.ACCESS_DENIED

    def bits(code: int, name: str, fault: Fault, text: str, **more: object) -> None:
        exit_code = more.get("exit_code")
        status = more.get("status")
        assert exit_code is None or isinstance(exit_code, ExitCode)
        assert status is None or isinstance(status, HTTPStatus)
        _row(f"BG_E_{name}", 0x8020_0000 + code, fault, text, exit_code=exit_code, status=status)

    _row("S_OK", 0, caller, "done", exit_code=ExitCode.DONE, status=HTTPStatus.OK)
    _row("S_FALSE", 1, caller, "nothing to do", exit_code=ExitCode.DONE, status=HTTPStatus.OK)
    for name, hresult, text in (
        ("BG_S_ERROR_CONTEXT_NONE", 0x0020_0006, "there is no error context"),
        ("BG_S_PARTIAL_COMPLETE", 0x0020_0017, "only the files that were finished were kept"),
        ("BG_S_UNABLE_TO_DELETE_FILES", 0x0020_001A, "done, but some temporary files are left"),
        ("BG_S_OVERRIDDEN_BY_POLICY", 0x0020_0055, "saved, but a policy has precedence"),
    ):
        _row(name, hresult, caller, text, exit_code=ExitCode.DONE, status=HTTPStatus.OK)

    bits(0x01, "NOT_FOUND", caller, "there is no such job", exit_code=ExitCode.NO_SUCH_JOB, status=HTTPStatus.NOT_FOUND)
    bits(0x02, "INVALID_STATE", caller, "the job's state does not allow this", exit_code=state, status=conflict)
    bits(0x03, "EMPTY", caller, "the job has no files", exit_code=state, status=conflict)
    bits(0x04, "FILE_NOT_AVAILABLE", caller, "the error does not concern a file", status=conflict)
    bits(0x05, "PROTOCOL_NOT_AVAILABLE", caller, "the error does not concern a protocol", status=conflict)
    bits(0x0D, "DESTINATION_LOCKED", condition, "the destination volume is locked")
    bits(0x0E, "VOLUME_CHANGED", local, "another volume is mounted at the destination")
    bits(
        0x0F,
        "ERROR_INFORMATION_UNAVAILABLE",
        caller,
        "the job has no error to report",
        exit_code=state,
        status=conflict,
    )
    bits(0x10, "NETWORK_DISCONNECTED", condition, "there is no network")
    bits(0x11, "MISSING_FILE_SIZE", remote, "the server does not tell the size of the file")
    bits(0x12, "INSUFFICIENT_HTTP_SUPPORT", remote, "the server does not support the HTTP features that are needed")
    bits(0x13, "INSUFFICIENT_RANGE_SUPPORT", remote, "the server or a proxy does not support byte ranges")
    bits(
        0x14,
        "REMOTE_NOT_SUPPORTED",
        caller,
        "the service takes calls from this machine only",
        exit_code=denied,
        status=HTTPStatus.FORBIDDEN,
    )
    bits(0x15, "NEW_OWNER_DIFF_MAPPING", caller, "the path means another place for the new owner", status=conflict)
    bits(0x16, "NEW_OWNER_NO_FILE_ACCESS", caller, "the new owner cannot access the temporary files", status=conflict)
    bits(0x18, "PROXY_LIST_TOO_LARGE", caller, "the proxy list is too long")
    bits(0x19, "PROXY_BYPASS_LIST_TOO_LARGE", caller, "the proxy bypass list is too long")
    bits(0x1B, "INVALID_SERVER_RESPONSE", remote, "the server's answer makes no sense")
    bits(0x1C, "TOO_MANY_FILES", caller, "an upload job takes exactly one file")
    bits(0x1D, "LOCAL_FILE_CHANGED", local, "the local file was changed during the upload")
    bits(0x1F, "SESSION_NOT_FOUND", remote, "the server does not know the upload session")
    bits(0x20, "TOO_LARGE", remote, "the file or the reply is larger than allowed")
    bits(0x21, "STRING_TOO_LONG", caller, "a text is longer than allowed")
    bits(0x22, "CLIENT_SERVER_PROTOCOL_MISMATCH", remote, "client and server have no upload protocol in common")
    bits(0x23, "SERVER_EXECUTE_ENABLED", remote, "the server's directory allows scripts to run")
    bits(0x24, "NO_PROGRESS", remote, "no progress was made")
    bits(0x25, "USERNAME_TOO_LARGE", caller, "the user name is too long")
    bits(0x26, "PASSWORD_TOO_LARGE", caller, "the password is too long")
    bits(0x27, "INVALID_AUTH_TARGET", caller, "the authentication target is unknown")
    bits(0x28, "INVALID_AUTH_SCHEME", caller, "the authentication scheme is unknown")
    bits(0x29, "FILE_NOT_FOUND", caller, "there is no such file", status=HTTPStatus.NOT_FOUND)
    bits(0x2B, "INVALID_RANGE", caller, "the byte range is invalid or outside the file")
    bits(0x2C, "OVERLAPPING_RANGES", caller, "the byte ranges overlap")
    bits(0x2D, "CONNECT_FAILURE", remote, "the server could not be connected to")
    bits(0x2E, "CONNECTION_CLOSED", remote, "the server closed the connection too early")
    bits(0x3E, "BLOCKED_BY_POLICY", condition, "the bandwidth policy blocks background transfers")
    bits(0x3F, "INVALID_PROXY_INFO", caller, "the proxy or proxy bypass list is invalid")
    bits(0x40, "INVALID_CREDENTIALS", caller, "the credentials are not well-formed")
    bits(0x41, "INVALID_HASH_ALGORITHM", caller, "the hash algorithm is not supported")
    bits(0x49, "TOO_MANY_JOBS_PER_USER", caller, "the account has as many jobs as it may have", status=conflict)
    bits(0x50, "TOO_MANY_JOBS_PER_MACHINE", caller, "the machine has as many jobs as it may have", status=conflict)
    bits(0x51, "TOO_MANY_FILES_IN_JOB", caller, "the job has as many files as it may have", status=conflict)
    bits(0x52, "TOO_MANY_RANGES_IN_FILE", caller, "the file has more ranges than it may have")
    bits(0x53, "VALIDATION_FAILED", local, "the content was declared invalid")
    bits(0x54, "MAXDOWNLOAD_TIMEOUT", condition, "the job ran longer than its maximum download time")
    bits(0x56, "TOKEN_REQUIRED", condition, "the helper token that the job needs is gone")
    bits(0x57, "UNKNOWN_PROPERTY_ID", caller, "there is no such property")
    bits(0x58, "READ_ONLY_PROPERTY", caller, "the property cannot be set")
    bits(0x59, "BLOCKED_BY_COST_TRANSFER_POLICY", condition, "the network's cost blocks the transfer")
    bits(0x60, "PROPERTY_SUPPORTED_FOR_DOWNLOAD_JOBS_ONLY", caller, "the property exists for download jobs only")
    bits(
        0x61,
        "READ_ONLY_PROPERTY_AFTER_ADDFILE",
        caller,
        "the property must be set before files are added",
        exit_code=state,
        status=conflict,
    )
    bits(
        0x62,
        "READ_ONLY_PROPERTY_AFTER_RESUME",
        caller,
        "the property must be set before the job is first resumed",
        exit_code=state,
        status=conflict,
    )
    bits(0x63, "MAX_DOWNLOAD_SIZE_INVALID_VALUE", caller, "the maximum download size is invalid")
    bits(0x64, "MAX_DOWNLOAD_SIZE_LIMIT_REACHED", condition, "the job reached its maximum download size")
    bits(0x66, "USE_STORED_CREDENTIALS_NOT_SUPPORTED", caller, "stored credentials exist for proxies only")
    bits(0x67, "BLOCKED_BY_BATTERY_POLICY", condition, "the machine runs on battery")
    bits(0x68, "BLOCKED_BY_BATTERY_SAVER", condition, "the battery is low")
    bits(0x69, "WATCHDOG_TIMEOUT", internal, "a part of the service did not answer")
    bits(0x6C, "DATABASE_CORRUPT", internal, "the job store is damaged")
    bits(0x6D, "RANDOM_ACCESS_NOT_SUPPORTED", remote, "the file cannot be fetched on demand")
    bits(0x70, "BLOCKED_BY_SYSTEM_POLICY", condition, "the system blocks background transfers")
    bits(
        0x71,
        "NOT_SUPPORTED_WITH_CUSTOM_HTTP_METHOD",
        caller,
        "not possible together with a custom HTTP method",
        status=conflict,
    )
    bits(0x72, "UNSUPPORTED_JOB_CONFIGURATION", caller, "these properties exclude each other", status=conflict)
    bits(0x73, "REMOTE_FILE_CHANGED", remote, "the remote file was changed during the transfer")
    bits(0x74, "SERVER_CERT_VALIDATION_INTERFACE_REQUIRED", condition, "the program that checks certificates is gone")
    bits(0x75, "READ_ONLY_WHEN_JOB_ACTIVE", caller, "the job must be suspended first", exit_code=state, status=conflict)

    _row("E_INVALIDARG", 0x8007_0057, caller, "an argument is invalid")
    _row("E_ACCESSDENIED", 0x8007_0005, caller, "access is denied", exit_code=denied, status=HTTPStatus.FORBIDDEN)
    _row("E_NOTIMPL", 0x8000_4001, caller, "this is not implemented", status=HTTPStatus.NOT_IMPLEMENTED)
    _row("E_FAIL", 0x8000_4005, internal, "the service failed; its log says why")
    _row("ERROR_NOT_ENOUGH_MEMORY", 0x8007_0008, internal, "there is not enough memory")
    _row("E_PENDING", 0x8000_000A, caller, "the file is not finished", exit_code=state, status=conflict)
    _row("ERROR_RESOURCE_LANG_NOT_FOUND", 0x8007_1717, caller, "there is no text in that language")
    _row("ERROR_FILE_NOT_FOUND", 0x8007_0002, local, "the file does not exist")
    _row("ERROR_PATH_NOT_FOUND", 0x8007_0003, local, "the directory does not exist")
    _row("ERROR_FILE_EXISTS", 0x8007_0050, local, "something else stands at the file's name")
    _row("ERROR_WRITE_FAULT", 0x8007_001D, local, "the disk reported an error while it was written to")
    _row("ERROR_READ_FAULT", 0x8007_001E, local, "the disk reported an error while it was read from")
    _row("ERROR_DISK_FULL", 0x8007_0070, condition, "there is no room on the disk")
    _row("ERROR_DISK_QUOTA_EXCEEDED", 0x8007_050F, condition, "the account's disk quota is used up")
    _row("ERROR_FILE_TOO_LARGE", 0x8007_00DF, local, "the file is larger than the file system or the limit allows")
    _row("ERROR_NO_SUCH_USER", 0x8007_0525, condition, "the account does not exist")
    _row("ERROR_CRC", 0x8007_0017, remote, "the content does not have the checksum that was asked for")
    _row("ERROR_WINHTTP_TIMEOUT", 0x8007_2EE2, remote, "the server sent nothing for too long")
    _row("ERROR_WINHTTP_NAME_NOT_RESOLVED", 0x8007_2EE7, remote, "the server's name could not be resolved")
    _row("ERROR_WINHTTP_INVALID_URL", 0x8007_2EE5, remote, "the URL is invalid")
    _row("ERROR_WINHTTP_CANNOT_CONNECT", 0x8007_2EFD, remote, "no connection to the server could be made")
    _row("ERROR_WINHTTP_CONNECTION_ERROR", 0x8007_2EFE, remote, "the connection to the server broke")
    _row("ERROR_WINHTTP_INVALID_SERVER_RESPONSE", 0x8007_2F78, remote, "the server's answer is not HTTP")
    _row(
        "ERROR_WINHTTP_REDIRECT_FAILED",
        0x8007_2F7C,
        remote,
        "the server redirected to a place that may not be followed",
    )
    _row("ERROR_WINHTTP_SECURE_FAILURE", 0x8007_2F8F, remote, "the server's identity could not be verified")
    _row("ERROR_WINHTTP_CLIENT_AUTH_CERT_NEEDED", 0x8007_2F0C, remote, "the server asks for a client certificate")
    _row("ERROR_SERVICE_NOT_ACTIVE", 0x8007_0426, condition, "the service does not run", exit_code=ExitCode.NO_SERVICE)
    _row("RPC_S_CALL_FAILED", 0x8007_06BE, condition, "the service broke off the call", exit_code=ExitCode.NO_SERVICE)


_table()

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
    row = ErrorCode(
        name=http_error_name(status),
        hresult=_HTTP_BASE + status,
        fault=Fault.REMOTE,
        text=f"the server answered {status} ({phrase})",
        exit_code=ExitCode.TRANSFER_FAILED,
        http_status=int(HTTPStatus.BAD_GATEWAY),
    )
    return row


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
