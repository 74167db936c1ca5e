"""Who calls: what the kernel says of a connection, and nothing else.

SO_PEERCRED and SO_PEERGROUPS hold the credentials of the thread that called connect(), for ever.
A caller from another user namespace is refused (architecture, section 4, rule 8): the same uid
means another account there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from openbits.core.accounts import AccountRules, is_administrator, kind_of
from openbits.core.model import Caller, Identity
from openbits.errors import BitsError

SO_PEERGROUPS: Final = 59
_UCRED: Final = struct.Struct("3i")
_FEW_GROUPS: Final = 256
"""Python reads at most 1,024 bytes of a socket option."""
_MOST_GROUPS: Final = 65_536
"""The kernel's limit; directory servers give some people hundreds."""
NAME_CACHE_S: Final = 60.0
_libc: Final = ctypes.CDLL(None, use_errno=True)


class PeerSocket(Protocol):
    """What is needed of a socket; asyncio hands out a wrapper."""

    def getsockopt(self, level: int, option: int, size: int, /) -> Any:
        """socket.getsockopt with a buffer."""

    def fileno(self) -> int:
        """Its descriptor."""


def read_uid(sock: PeerSocket) -> int:
    """Return the uid of the other end of a Unix socket."""
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return int(uid) & 0xFFFF_FFFF


def read_identity(sock: PeerSocket) -> tuple[Identity, int]:
    """Return the identity and pid of the other end of a Unix socket. Raises E_ACCESSDENIED."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        raw = _read_groups(sock)
    except OSError as error:
        raise BitsError("E_ACCESSDENIED", f"the groups of the caller cannot be read ({error.strerror})") from None
    groups = struct.unpack(f"{len(raw) // 4}I", raw)
    identity = Identity(uid=uid & 0xFFFF_FFFF, gid=gid & 0xFFFF_FFFF, groups=tuple(sorted(set(groups))))
    return identity, pid


def _read_groups(sock: PeerSocket) -> bytes:
    try:
        return bytes(sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * _FEW_GROUPS))
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
    buffer = ctypes.create_string_buffer(4 * _MOST_GROUPS)
    length = ctypes.c_uint32(len(buffer))
    if _libc.getsockopt(sock.fileno(), socket.SOL_SOCKET, SO_PEERGROUPS, buffer, ctypes.byref(length)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw[: length.value]


def check_namespace(pid: int, *, proc: str = "/proc") -> None:
    """Refuse a process whose uids are not ours. Raises E_ACCESSDENIED.

    The maps of a process's user namespace are readable for everybody; the link that names the namespace is not.
    A namespace below ours tells its maps in our numbers, so the same text means that every account in it is itself:
    only root can make such a one, and there is nothing to refuse.
    """
    try:
        same = all(_map(f"{proc}/self/{name}") == _map(f"{proc}/{pid}/{name}") for name in ("uid_map", "gid_map"))
    except OSError:
        raise BitsError(
            "E_ACCESSDENIED", "the calling process cannot be seen from here: it may be gone, or in another namespace"
        ) from None
    if not same:
        raise BitsError("E_ACCESSDENIED", "calls from another user namespace are refused: its accounts are not ours")


def _map(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


class Accounts:
    """Turns identities into callers; account names are looked up once a minute, and anew when /etc/passwd has changed.

    A name decides about the kind of an account, and a new account may have the uid of one that was just removed.
    """

    def __init__(
        self,
        rules: Callable[[], AccountRules],
        administrators_gid: Callable[[], int | None],
        *,
        account_file: str = "/etc/passwd",
    ) -> None:
        self._rules = rules
        self._administrators_gid = administrators_gid
        self._account_file = account_file
        self._version: tuple[int, ...] = ()
        self._names: dict[int, tuple[float, str]] = {}

    def caller(self, identity: Identity, pid: int) -> Caller:
        """Return the caller with this identity."""
        name = self.name_of(identity.uid)
        kind, _ = kind_of(identity.uid, name, self._rules())
        return Caller(
            identity=identity,
            name=name,
            kind=kind,
            is_administrator=is_administrator(identity, self._administrators_gid()),
            pid=pid,
        )

    def kind_reason(self, caller: Caller) -> str:
        """Why the caller's account is of its kind, as a sentence."""
        return kind_of(caller.identity.uid, caller.name, self._rules())[1]

    def name_of(self, uid: int) -> str:
        """The account's name, or its number when it has none."""
        now = time.monotonic()
        self._forget_if_changed()
        known = self._names.get(uid)
        if known is not None and known[0] > now:
            return known[1]
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = str(uid)
        if len(self._names) > 10_000:
            self._names.clear()
        self._names[uid] = (now + NAME_CACHE_S, name)
        return name

    def _forget_if_changed(self) -> None:
        try:
            status = os.stat(self._account_file)
        except OSError:
            version: tuple[int, ...] = ()
        else:
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if version != self._version:
            self._version = version
            self._names.clear()
