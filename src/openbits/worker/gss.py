"""Tokens that prove an account's identity to a server, by GSS-API.

libcurl itself is never told to authenticate: it would ask name servers and KDCs in the middle of the worker's loop, and
would answer before it is asked.  `make_token` waits for them too, and is called in a helper thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import Any, Final

from openbits.worker import kerberos
from openbits.worker.caches import ForeignCache, own_cache
from openbits.worker.kerberos import load_library, readable

_SERVICE: Final = "HTTP"
_INITIATE: Final = 1
_INDEFINITE: Final = 0xFFFF_FFFF
_GSS_CODE: Final = 1
_MECHANISM_CODE: Final = 2
_TEXTS_AT_MOST: Final = 8


class Trouble(enum.Enum):
    """Why there is no token."""

    NO_TICKET = "no ticket"
    EXPIRED = "expired"
    WRONG_PASSWORD = "wrong password"  # noqa: S105 - a word for it, and no password
    OTHER = "other"


_TROUBLES: Final = {7: Trouble.NO_TICKET, 11: Trouble.EXPIRED}
"""GSS_S_NO_CRED and GSS_S_CREDENTIALS_EXPIRED."""
_WRONG_PASSWORD: Final = frozenset((-1765328360, -1765328353))
"""KRB5KDC_ERR_PREAUTH_FAILED and KRB5KRB_AP_ERR_BAD_INTEGRITY, in which a wrong password shows."""


class NoToken(Exception):
    """There is no token; `text` is what the library says."""

    def __init__(self, trouble: Trouble, text: str) -> None:
        super().__init__(text)
        self.trouble = trouble
        self.text = text


class _Buffer(Structure):
    _fields_ = (("length", c_size_t), ("value", c_char_p))


class _OutBuffer(Structure):
    _fields_ = (("length", c_size_t), ("value", c_void_p))


class _Oid(Structure):
    _fields_ = (("length", c_uint32), ("elements", c_char_p))


class _OidSet(Structure):
    _fields_ = (("count", c_size_t), ("elements", POINTER(_Oid)))


class _KeyValue(Structure):
    _fields_ = (("key", c_char_p), ("value", c_char_p))


class _Store(Structure):
    _fields_ = (("count", c_uint32), ("elements", POINTER(_KeyValue)))


def _oid(text: bytes) -> _Oid:
    return _Oid(len(text), text)


_USER_NAME: Final = _oid(b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x01\x01")
_HOSTBASED: Final = _oid(b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x01\x04")
_KERBEROS: Final = _oid(b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x02")
_SPNEGO: Final = _oid(b"\x2b\x06\x01\x05\x05\x02")
_BOTH: Final = _OidSet(2, (_Oid * 2)(_KERBEROS, _SPNEGO))
_KERBEROS_ONLY: Final = _OidSet(1, ctypes.pointer(_KERBEROS))

_Minor = POINTER(c_uint32)
_PROTOTYPES: Final[dict[str, tuple[Any, ...]]] = {
    "gss_import_name": (_Minor, POINTER(_Buffer), POINTER(_Oid), POINTER(c_void_p)),
    "gss_release_name": (_Minor, POINTER(c_void_p)),
    "gss_acquire_cred_from": (
        _Minor,
        c_void_p,
        c_uint32,
        POINTER(_OidSet),
        c_int,
        POINTER(_Store),
        POINTER(c_void_p),
        c_void_p,
        c_void_p,
    ),
    "gss_acquire_cred_with_password": (
        _Minor,
        c_void_p,
        POINTER(_Buffer),
        c_uint32,
        POINTER(_OidSet),
        c_int,
        POINTER(c_void_p),
        c_void_p,
        c_void_p,
    ),
    "gss_canonicalize_name": (_Minor, c_void_p, POINTER(_Oid), POINTER(c_void_p)),
    "gss_display_name": (_Minor, c_void_p, POINTER(_OutBuffer), c_void_p),
    "gss_release_cred": (_Minor, POINTER(c_void_p)),
    "gss_init_sec_context": (
        _Minor,
        c_void_p,
        POINTER(c_void_p),
        c_void_p,
        POINTER(_Oid),
        c_uint32,
        c_uint32,
        c_void_p,
        c_void_p,
        c_void_p,
        POINTER(_OutBuffer),
        c_void_p,
        c_void_p,
    ),
    "gss_delete_sec_context": (_Minor, POINTER(c_void_p), c_void_p),
    "gss_release_buffer": (_Minor, POINTER(_OutBuffer)),
    "gss_display_status": (_Minor, c_uint32, c_int, POINTER(_Oid), POINTER(c_uint32), POINTER(_OutBuffer)),
}


NO_LIBRARY: Final = "this machine has no Kerberos library"
_LIBRARY: Final = load_library("gssapi_krb5", _PROTOTYPES)
for _name in _PROTOTYPES if _LIBRARY is not None else ():
    getattr(_LIBRARY, _name).restype = c_uint32


def make_token(host: str, cache: str | None) -> bytes:
    """Return a SPNEGO token for the web server on `host`.

    `cache` is the credential cache (`FILE:…`); None is the account's own, as libkrb5 finds it, if it is the account's.
    Nothing is delegated: the server learns who asks, and cannot ask others in that name. Raises NoToken.
    """
    if cache is not None:
        return _made(host, cache)
    if _LIBRARY is None or os.environ.get("KRB5CCNAME"):
        # Who started this service has said which cache it is.
        return _made(host, None)
    try:
        name = kerberos.default_cache()
        with own_cache(name) as used:
            try:
                return _made(host, used)
            except NoToken as error:
                # The descriptor's number says nothing to whoever reads the error.
                text = error.text if used is None else error.text.replace(used.partition(":")[2], name)
                raise NoToken(error.trouble, text) from error
    except (ForeignCache, kerberos.NoTickets) as error:
        raise NoToken(Trouble.OTHER, str(error)) from error


class PasswordCredential:
    """What a name and a password are good for: tickets in the library's memory, and nowhere else.

    The account's own credential cache is neither read nor written. Used in one thread, and closed there.
    """

    def __init__(self, user_name: str, password: str) -> None:
        self._name, self._password = user_name, password
        self._credential: c_void_p | None = None

    def __repr__(self) -> str:
        return f"<PasswordCredential {'acquired' if self._credential is not None else 'unused'}>"

    def make_token(self, host: str) -> bytes:
        """Return a SPNEGO token with Kerberos inside for the web server on `host`. Raises NoToken."""
        was_kept = self._credential is not None
        try:
            return self._made(host)
        except NoToken:
            self.close()
            if not was_kept:
                raise
        # What was acquired earlier may have expired.
        return self._made(host)

    def _made(self, host: str) -> bytes:
        if _LIBRARY is None:
            raise NoToken(Trouble.OTHER, NO_LIBRARY)
        with contextlib.ExitStack() as stack:
            target = _imported(stack, f"{_SERVICE}@{host}".encode(), _HOSTBASED)
            if self._credential is None:
                self._credential = self._acquired(stack)
            return in_spnego(_token(stack, self._credential, target, _KERBEROS))

    def _acquired(self, stack: contextlib.ExitStack) -> c_void_p:
        assert _LIBRARY is not None
        if not self._password or "\0" in self._name + self._password:
            raise NoToken(Trouble.OTHER, "Kerberos needs a password")
        minor, credential = c_uint32(), c_void_p()
        name = _imported(stack, _principal(stack, self._name).encode(), _USER_NAME)
        password = self._password.encode()
        major = _LIBRARY.gss_acquire_cred_with_password(
            byref(minor),
            name,
            byref(_Buffer(len(password), password)),
            _INDEFINITE,
            # Kerberos alone: of several mechanisms one may fail unseen, and use what is the account's own instead.
            byref(_KERBEROS_ONLY),
            _INITIATE,
            byref(credential),
            None,
            None,
        )
        _check(major, minor, _KERBEROS)
        return credential

    def close(self) -> None:
        """Forget the tickets; they are got again when they are wanted again."""
        credential, self._credential = self._credential, None
        if credential is not None and _LIBRARY is not None:
            _LIBRARY.gss_release_cred(byref(c_uint32()), byref(credential))


def in_spnego(token: bytes) -> bytes:
    """Put a token of Kerberos into the first token of a negotiation that knows nothing else (RFC 4178, section 4.2.1).

    The library's own SPNEGO would ask the KDC for everything once more, and could offer what else is installed.
    """
    mechanisms = _der(0xA0, _der(0x30, _der(0x06, _KERBEROS.elements or b"")))
    first = _der(0xA0, _der(0x30, mechanisms + _der(0xA2, _der(0x04, token))))
    return _der(0x60, _der(0x06, _SPNEGO.elements or b"") + first)


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content


def _principal(stack: contextlib.ExitStack, user_name: str) -> str:
    r"""Read `DOMAIN\user`, `user@REALM` or `user`; a domain is the realm of that name, or the machine's."""
    domain, backslash, user = user_name.partition("\\")
    if not backslash:
        return user_name
    realm = domain.upper()
    if "." not in realm:
        default = _display(_imported(stack, user.encode(), _USER_NAME)).rpartition("@")[2]
        if default.partition(".")[0].upper() == realm:
            realm = default
    return f"{user}@{realm}"


def _display(name: c_void_p) -> str:
    assert _LIBRARY is not None
    minor, buffer = c_uint32(), _OutBuffer()
    canonical = c_void_p()
    # Only a mechanism's own name has a realm.
    _check(_LIBRARY.gss_canonicalize_name(byref(minor), name, byref(_KERBEROS), byref(canonical)), minor, _KERBEROS)
    try:
        _check(_LIBRARY.gss_display_name(byref(minor), canonical, byref(buffer), None), minor, _KERBEROS)
        text = ctypes.string_at(buffer.value, buffer.length) if buffer.value else b""
        _LIBRARY.gss_release_buffer(byref(minor), byref(buffer))
    finally:
        _LIBRARY.gss_release_name(byref(minor), byref(canonical))
    return text.decode("utf-8", "replace")


def _made(host: str, cache: str | None) -> bytes:
    if _LIBRARY is None:
        raise NoToken(Trouble.OTHER, NO_LIBRARY)
    with contextlib.ExitStack() as stack:
        target = _imported(stack, f"{_SERVICE}@{host}".encode(), _HOSTBASED)
        # The mechanism is asked for credentials before SPNEGO is, whose word for every lack is the same.
        return _token(stack, _acquired(stack, cache), target)


def _token(stack: contextlib.ExitStack, credential: c_void_p, target: c_void_p, mechanism: _Oid = _SPNEGO) -> bytes:
    assert _LIBRARY is not None
    minor, context, token = c_uint32(), c_void_p(), _OutBuffer()
    major = _LIBRARY.gss_init_sec_context(
        byref(minor),
        credential,
        byref(context),
        target,
        byref(mechanism),
        0,
        0,
        None,
        None,
        None,
        byref(token),
        None,
        None,
    )
    stack.callback(_LIBRARY.gss_delete_sec_context, byref(minor), byref(context), None)
    stack.callback(_LIBRARY.gss_release_buffer, byref(minor), byref(token))
    _check(major, minor, mechanism)
    if not token.value:
        raise NoToken(Trouble.OTHER, "the Kerberos library made no token")
    return ctypes.string_at(token.value, token.length)


def _imported(stack: contextlib.ExitStack, text: bytes, kind: _Oid) -> c_void_p:
    assert _LIBRARY is not None
    minor, name = c_uint32(), c_void_p()
    major = _LIBRARY.gss_import_name(byref(minor), byref(_Buffer(len(text), text)), byref(kind), byref(name))
    _check(major, minor, _KERBEROS)
    stack.callback(_LIBRARY.gss_release_name, byref(minor), byref(name))
    return name


def _acquired(stack: contextlib.ExitStack, cache: str | None) -> c_void_p:
    assert _LIBRARY is not None
    minor, credential = c_uint32(), c_void_p()
    store = None
    if cache is not None:
        pair = _KeyValue(b"ccache", cache.encode())
        store = byref(_Store(1, ctypes.pointer(pair)))
    major = _LIBRARY.gss_acquire_cred_from(
        byref(minor), None, _INDEFINITE, byref(_BOTH), _INITIATE, store, byref(credential), None, None
    )
    _check(major, minor, _KERBEROS)
    stack.callback(_LIBRARY.gss_release_cred, byref(minor), byref(credential))
    return credential


def _check(major: int, minor: c_uint32, mechanism: _Oid) -> None:
    if not major & 0xFFFF_0000:
        return
    text = _text(minor.value, _MECHANISM_CODE, mechanism) or _text(major, _GSS_CODE, mechanism)
    if ctypes.c_int32(minor.value).value in _WRONG_PASSWORD:
        raise NoToken(Trouble.WRONG_PASSWORD, text)
    raise NoToken(_TROUBLES.get(major >> 16 & 0xFF, Trouble.OTHER), text)


def _text(code: int, kind: int, mechanism: _Oid) -> str:
    assert _LIBRARY is not None
    texts: list[str] = []
    minor, more = c_uint32(), c_uint32()
    for _ in range(_TEXTS_AT_MOST):
        buffer = _OutBuffer()
        if _LIBRARY.gss_display_status(byref(minor), code, kind, byref(mechanism), byref(more), byref(buffer)):
            break
        if buffer.value:
            texts.append(readable(ctypes.string_at(buffer.value, buffer.length)))
        _LIBRARY.gss_release_buffer(byref(minor), byref(buffer))
        if not more.value:
            break
    return ": ".join(text for text in texts if text)
