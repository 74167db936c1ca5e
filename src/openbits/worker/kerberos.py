"""The computer's Kerberos tickets, from its keytab, by libkrb5.

The library is found when this module is imported, which is before any right is given up; the
functions here wait for name servers and KDCs, so they are called in a helper thread.  Nothing of a keytab or a ticket
is ever written to a file that has a name: what comes out is the content of a credential cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import struct
import sys
from collections.abc import Iterator, Mapping
from ctypes import POINTER, Structure, byref, c_char_p, c_int32, c_uint, c_uint32, c_void_p
from dataclasses import dataclass
from typing import Any, Final

import openbits.worker.engine

CACHE_LIMIT_BYTES: Final = 1 << 20
"""No credential cache of one ticket is larger."""
_CACHE_HEADER: Final = b"\x05\x04\x00\x00"
"""A credential cache file of version 4 without header fields."""
_CLIENT_UNKNOWN: Final = -1765328378
"""KRB5KDC_ERR_C_PRINCIPAL_UNKNOWN: the KDC gives tickets to another of the keytab's names only."""
_CLOCK_SKEW: Final = -1765328347
_KDC_UNREACHABLE: Final = -1765328228
_KEYTAB_END: Final = -1765328202
_TEXT_LIMIT: Final = 400
_ENTRIES_READ: Final = 1000
"""No keytab of a computer has more."""
_MAPPED: Final = re.compile(r" (/.*/lib(krb5|gssapi_krb5)[-.][^/]*)$")
_SYSTEM: Final = {"krb5": "libkrb5.so.3", "gssapi_krb5": "libgssapi_krb5.so.2"}


class NoTickets(Exception):
    """There are no tickets; the text is a clause that says why."""


def load_library(name: str, prototypes: Mapping[str, tuple[Any, ...]]) -> ctypes.CDLL | None:
    """Load `krb5` or `gssapi_krb5`, and tell ctypes what its functions take; None where there is none that has them.

    The system's is the better one: it knows all ways to KDCs and credential caches that this system has, where the one
    that libcurl may have brought along knows neither the system's plugins nor the kernel's keyrings.
    """
    for path in (_SYSTEM[name], *_brought_along(name)):
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(path)
            for function, arguments in prototypes.items():
                getattr(library, function).argtypes = arguments
            return library
    return None


def readable(text: bytes) -> str:
    """What a library says, for a sentence: a part of it may come from whoever answered in a KDC's name."""
    decoded = text.decode("utf-8", "replace")
    return "".join(char if char.isprintable() else " " for char in decoded).strip()[:_TEXT_LIMIT]


def _brought_along(name: str) -> list[str]:
    """The libraries of that name that came into this process with libcurl, which comes with the engine."""
    assert "pycurl" in sys.modules, openbits.worker.engine
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        matches = [_MAPPED.search(line.rstrip("\n")) for line in maps]
    return list(dict.fromkeys(match[1] for match in matches if match is not None and match[2] == name))


# --- libkrb5 as ctypes sees it -----------------------------------------------------------------------


class _Data(Structure):
    _fields_ = (("magic", c_int32), ("length", c_uint), ("data", c_void_p))


class _PrincipalData(Structure):
    _fields_ = (
        ("magic", c_int32),
        ("realm", _Data),
        ("components", POINTER(_Data)),
        ("length", c_int32),
        ("type", c_int32),
    )


class _Keyblock(Structure):
    _fields_ = (("magic", c_int32), ("enctype", c_int32), ("length", c_uint), ("contents", c_void_p))


class _Times(Structure):
    _fields_ = (("authtime", c_int32), ("starttime", c_int32), ("endtime", c_int32), ("renew_till", c_int32))


class _Creds(Structure):
    _fields_ = (
        ("magic", c_int32),
        ("client", c_void_p),
        ("server", c_void_p),
        ("keyblock", _Keyblock),
        ("times", _Times),
        ("is_skey", c_uint),
        ("ticket_flags", c_int32),
        ("addresses", c_void_p),
        ("ticket", _Data),
        ("second_ticket", _Data),
        ("authdata", c_void_p),
    )


class _KeytabEntry(Structure):
    _fields_ = (
        ("magic", c_int32),
        ("principal", POINTER(_PrincipalData)),
        ("timestamp", c_int32),
        ("vno", c_uint),
        ("key", _Keyblock),
    )


_PROTOTYPES: Final[dict[str, tuple[Any, ...]]] = {
    "krb5_init_context": (POINTER(c_void_p),),
    "krb5_free_context": (c_void_p,),
    "krb5_cc_default_name": (c_void_p,),
    "krb5_get_error_message": (c_void_p, c_int32),
    "krb5_free_error_message": (c_void_p, c_void_p),
    "krb5_parse_name": (c_void_p, c_char_p, POINTER(c_void_p)),
    "krb5_unparse_name": (c_void_p, c_void_p, POINTER(c_void_p)),
    "krb5_free_unparsed_name": (c_void_p, c_void_p),
    "krb5_free_principal": (c_void_p, c_void_p),
    "krb5_kt_resolve": (c_void_p, c_char_p, POINTER(c_void_p)),
    "krb5_kt_close": (c_void_p, c_void_p),
    "krb5_kt_start_seq_get": (c_void_p, c_void_p, POINTER(c_void_p)),
    "krb5_kt_next_entry": (c_void_p, c_void_p, POINTER(_KeytabEntry), POINTER(c_void_p)),
    "krb5_kt_end_seq_get": (c_void_p, c_void_p, POINTER(c_void_p)),
    "krb5_free_keytab_entry_contents": (c_void_p, POINTER(_KeytabEntry)),
    "krb5_get_init_creds_opt_alloc": (c_void_p, POINTER(c_void_p)),
    "krb5_get_init_creds_opt_free": (c_void_p, c_void_p),
    "krb5_get_init_creds_keytab": (c_void_p, POINTER(_Creds), c_void_p, c_void_p, c_int32, c_char_p, c_void_p),
    "krb5_free_cred_contents": (c_void_p, POINTER(_Creds)),
    "krb5_timeofday": (c_void_p, POINTER(c_int32)),
    "krb5_marshal_credentials": (c_void_p, POINTER(_Creds), POINTER(POINTER(_Data))),
    "krb5_free_data": (c_void_p, c_void_p),
}
_RESULTS: Final = {
    "krb5_cc_default_name": c_char_p,
    "krb5_get_error_message": c_void_p,
    **dict.fromkeys(
        (
            "krb5_free_context",
            "krb5_free_error_message",
            "krb5_free_unparsed_name",
            "krb5_free_principal",
            "krb5_get_init_creds_opt_free",
            "krb5_free_cred_contents",
            "krb5_free_data",
        )
    ),
}


def _load() -> ctypes.CDLL | None:
    library = load_library("krb5", _PROTOTYPES)
    if library is not None:
        for name, result in _RESULTS.items():
            getattr(library, name).restype = result
    return library


_LIBRARY: Final = _load()


class _Context:
    """A libkrb5 context; `call` raises NoTickets."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._context = c_void_p()
        if library.krb5_init_context(byref(self._context)) != 0:
            raise NoTickets("the Kerberos configuration cannot be read: check /etc/krb5.conf")

    def close(self) -> None:
        self._library.krb5_free_context(self._context)

    def raw(self, name: str, *arguments: Any) -> int:
        return int(getattr(self._library, name)(self._context, *arguments) or 0)

    def call(self, name: str, *arguments: Any) -> None:
        code = self.raw(name, *arguments)
        if code != 0:
            raise NoTickets(self.text(code))

    def text(self, code: int) -> str:
        pointer = self._library.krb5_get_error_message(self._context, code)
        try:
            text = readable(ctypes.string_at(pointer))
        finally:
            self._library.krb5_free_error_message(self._context, pointer)
        match code:
            case _ if code == _CLOCK_SKEW:
                return f"{text}: set this machine's clock"
            case _ if code == _KDC_UNREACHABLE:
                return f"{text}: check /etc/krb5.conf and the network"
            case _:
                return text

    def default_cache(self) -> str:
        return os.fsdecode(self._library.krb5_cc_default_name(self._context) or b"")

    def name(self, principal: Any) -> str:
        text = c_void_p()
        self.call("krb5_unparse_name", principal, byref(text))
        try:
            assert text.value is not None
            return ctypes.string_at(text.value).decode("utf-8", "surrogateescape")
        finally:
            self.raw("krb5_free_unparsed_name", text)


def default_cache() -> str:
    """Return which credential cache libkrb5 takes for this account, such as FILE:/tmp/krb5cc_1000. Raises NoTickets."""
    if _LIBRARY is None:
        raise NoTickets("this machine has no libkrb5 of version 1.20 or newer")
    context = _Context(_LIBRARY)
    try:
        return context.default_cache()
    finally:
        context.close()


# --- tickets for the computer ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineTickets:
    """What a KDC gave: a credential cache with a ticket-granting ticket."""

    principal: str
    expires_s: int
    """How long it is good for, from now."""
    cache: bytes


def obtain_machine_tickets(keytab: str, principal: str) -> MachineTickets:
    """Get the computer's ticket. An empty principal stands for the keytab's first host principal.

    Where the KDC gives no ticket to that one, as in Active Directory, the account of the machine is tried
    (`NAME$`), which stands in the same keytab. Raises NoTickets.
    """
    _check_readable(keytab)
    if _LIBRARY is None:
        raise NoTickets("this machine has no libkrb5 of version 1.20 or newer")
    with contextlib.ExitStack() as stack:
        context = _Context(_LIBRARY)
        stack.callback(context.close)
        table = c_void_p()
        context.call("krb5_kt_resolve", b"FILE:" + os.fsencode(keytab), byref(table))
        stack.callback(context.raw, "krb5_kt_close", table)
        names = [principal] if principal else _candidates(context, table, keytab)
        for name in names[:-1]:
            with contextlib.suppress(_UnknownClient):
                return _initial_ticket(context, table, name)
        return _initial_ticket(context, table, names[-1])


class _UnknownClient(NoTickets):
    """The KDC knows no such client."""


def _check_readable(keytab: str) -> None:
    try:
        os.close(os.open(keytab, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK))
    except FileNotFoundError:
        raise NoTickets(f"{keytab} does not exist") from None
    except PermissionError:
        raise NoTickets(f"{keytab} cannot be read by root without its special powers: let root own it") from None
    except OSError as error:
        raise NoTickets(f"{keytab} cannot be read: {error.strerror}") from None


def _candidates(context: _Context, table: c_void_p, keytab: str) -> list[str]:
    names = list(dict.fromkeys(_principals(context, table)))
    hosts = [name for name in names if name.startswith("host/")][:1]
    machines = [name for name in names if re.match(r"[^/@]+\$@", name)][:1]
    if not hosts and not machines:
        raise NoTickets(f"{keytab} holds no key of a host principal")
    return hosts + machines


def _principals(context: _Context, table: c_void_p) -> Iterator[str]:
    cursor = c_void_p()
    context.call("krb5_kt_start_seq_get", table, byref(cursor))
    try:
        for _ in range(_ENTRIES_READ):
            entry = _KeytabEntry()
            code = context.raw("krb5_kt_next_entry", table, byref(entry), byref(cursor))
            if code == _KEYTAB_END:
                return
            if code != 0:
                raise NoTickets(context.text(code))
            try:
                yield context.name(entry.principal)
            finally:
                context.raw("krb5_free_keytab_entry_contents", byref(entry))
    finally:
        context.raw("krb5_kt_end_seq_get", table, byref(cursor))


def _initial_ticket(context: _Context, table: c_void_p, name: str) -> MachineTickets:
    with contextlib.ExitStack() as stack:
        client = c_void_p()
        context.call("krb5_parse_name", os.fsencode(name), byref(client))
        stack.callback(context.raw, "krb5_free_principal", client)
        options = c_void_p()
        context.call("krb5_get_init_creds_opt_alloc", byref(options))
        stack.callback(context.raw, "krb5_get_init_creds_opt_free", options)
        creds = _Creds()
        code = context.raw("krb5_get_init_creds_keytab", byref(creds), client, table, 0, None, options)
        if code != 0:
            cause = f"{name}: {context.text(code)}"
            raise _UnknownClient(cause) if code == _CLIENT_UNKNOWN else NoTickets(cause)
        stack.callback(context.raw, "krb5_free_cred_contents", byref(creds))
        now = c_int32()
        context.call("krb5_timeofday", byref(now))
        return MachineTickets(
            principal=context.name(creds.client),
            # Times are unsigned numbers of 32 bits, whatever their type says: they last until 2106.
            expires_s=c_uint32(creds.times.endtime - now.value).value,
            cache=_as_cache(context, creds),
        )


def _as_cache(context: _Context, creds: _Creds) -> bytes:
    data = POINTER(_Data)()
    context.call("krb5_marshal_credentials", byref(creds), byref(data))
    try:
        marshalled = ctypes.string_at(data.contents.data, data.contents.length)
    finally:
        context.raw("krb5_free_data", data)
    # A cache is its owner's name and then credentials; a credential begins with its owner's name.
    return _CACHE_HEADER + marshalled[: _length_of_principal(marshalled)] + marshalled


def _length_of_principal(marshalled: bytes) -> int:
    """Return how many bytes the principal at the beginning takes: type, count, realm, components."""
    _, count = struct.unpack_from(">II", marshalled)
    end = 8
    for _ in range(count + 1):
        (length,) = struct.unpack_from(">I", marshalled, end)
        end += 4 + length
    return end
