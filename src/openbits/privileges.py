"""Giving up rights: everything that changes what a process may do stands here.  Standard library only.

The rule: a right is given up for good, and the kernel is asked afterwards.  A process whose answers
are not exactly the expected ones ends at once, without unwinding: an exception could be caught by
somebody who then goes on as root.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, NoReturn

EXIT_NOT_DROPPED: Final = 77
"""Exit status of a process that could not give up its rights (EX_NOPERM)."""

_PR_SET_PDEATHSIG: Final = 1
_PR_GET_PDEATHSIG: Final = 2
_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_GET_NO_NEW_PRIVS: Final = 39
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_CAPABILITY_VERSION_3: Final = 0x2008_0522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


class Capability(enum.IntEnum):
    """The capabilities that OpenBITS has a use for."""

    KILL = 5
    SETGID = 6
    SETUID = 7
    SETPCAP = 8


class Identity(NamedTuple):
    """Who a process is; `groups` are the supplementary groups, sorted."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}:{','.join(str(gid) for gid in self.groups)}"

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Read what `str` writes: `uid:gid:group,group`. Raises ValueError."""
        uid, gid, groups = text.split(":")
        return cls(int(uid), int(gid), tuple(sorted({int(group) for group in groups.split(",") if group})))


class _CapabilityHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapabilityWord(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def prctl(option: int, value: int = 0, value2: int = 0) -> int:
    """Call prctl(2). Raises OSError."""
    result: int = _libc.prctl(option, value, value2, 0, 0)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
    return result


def current_identity() -> Identity | None:
    """Return the identity of this process, or None while its real, effective and saved ids differ."""
    uids, gids = set(os.getresuid()), set(os.getresgid())
    if len(uids) != 1 or len(gids) != 1:
        return None
    return Identity(uids.pop(), gids.pop(), tuple(sorted(set(os.getgroups()))))


def capabilities() -> frozenset[int]:
    """Return the numbers of all capabilities that this process holds in any of its sets but the bounding set."""
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    words = (_CapabilityWord * 2)()
    if _libc.capget(ctypes.byref(header), ctypes.byref(words)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capget: {os.strerror(number)}")
    bits = 0
    for index, word in enumerate(words):
        bits |= (word.effective | word.permitted | word.inheritable) << (32 * index)
    return frozenset(bit for bit in range(64) if bits >> bit & 1)


def _set_capabilities(kept: Iterable[int]) -> None:
    bits = sum(1 << capability for capability in set(kept))
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    words = (_CapabilityWord * 2)()
    for index, word in enumerate(words):
        word.effective = word.permitted = bits >> (32 * index) & 0xFFFF_FFFF
    if _libc.capset(ctypes.byref(header), ctypes.byref(words)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")


def limit_capabilities(kept: frozenset[Capability]) -> None:
    """Keep of the capabilities at most these, also in the bounding set where this process may lower it.

    No program that is executed later can have more: no_new_privs is set, without which the kernel
    gives uid 0 its whole bounding set at every execve.
    """
    held = capabilities()
    if Capability.SETPCAP in held:
        for capability in range(64):
            try:
                bounded = prctl(_PR_CAPBSET_READ, capability)
            except OSError:
                break  # beyond the last capability of this kernel
            if bounded and capability not in kept:
                prctl(_PR_CAPBSET_DROP, capability)
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _set_capabilities(held & kept)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if capabilities() - kept:
        _abort(f"capabilities {sorted(capabilities() - kept)} are still there")


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, however it ends."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)  # it ended before the kernel knew


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent ends."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_inspection() -> None:
    """Keep other processes of the same account from tracing this one, and its memory out of core dumps.

    The limit is for whatever it starts: what is executed becomes dumpable again, until it has said the same.
    """
    prctl(_PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def become(uid: int, gid: int, groups: Iterable[int]) -> None:
    """Be this account from now on, with no capability and no way back; ends the process where that fails.

    This holds for uid 0 too: root's transfers have the rights of the owner of root's files, not the
    power to pass over everybody else's permissions.  A process that already is this account needs no
    right to change its identity (`--user`).  The parent-death signal, which the kernel forgets at a change
    of identity, is kept.
    """
    wanted = Identity(uid, gid, tuple(sorted(set(groups))))
    try:
        death_signal = ctypes.c_int(0)
        prctl(_PR_GET_PDEATHSIG, ctypes.addressof(death_signal))
        if current_identity() != wanted:
            os.setgroups(list(wanted.groups))
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        limit_capabilities(frozenset())
        forbid_inspection()
        prctl(_PR_SET_PDEATHSIG, death_signal.value)
        problem = _difference(wanted)
    except OSError as error:
        problem = str(error)
    if problem:
        _abort(f"cannot become uid {uid}: {problem}")


def _difference(wanted: Identity) -> str:
    found = current_identity()
    if found != wanted:
        return f"is {os.getresuid()}, {os.getresgid()}, {os.getgroups()} instead of {wanted}"
    if capabilities():
        return f"capabilities {sorted(capabilities())} are still there"
    if prctl(_PR_GET_NO_NEW_PRIVS) != 1 or prctl(_PR_GET_DUMPABLE) != 0:
        return "no_new_privs or dumpable was not taken"
    ways_back: list[Callable[[], None]] = [lambda: _set_capabilities([Capability.SETUID])]
    if wanted.uid != 0:
        ways_back += [lambda: os.setresuid(0, 0, 0), lambda: os.setgroups([0])]
        if wanted.gid != 0:
            ways_back.append(lambda: os.setresgid(0, 0, 0))
    for way_back in ways_back:
        try:
            way_back()
        except PermissionError:
            continue
        return "the rights can be regained"
    return ""


@contextlib.contextmanager
def acting_as(identity: Identity) -> Iterator[None]:
    """See the file system as another account for the length of a `with` block.

    Only for a process with a single thread, and only around plain file calls: what is started inside
    could become root again.
    """
    before = os.getgroups()
    try:
        os.setgroups(list(identity.groups))
        os.setegid(identity.gid)
        os.seteuid(identity.uid)
        yield
    finally:
        os.seteuid(os.getuid())
        os.setegid(os.getgid())
        os.setgroups(before)


def _abort(problem: str) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(2, f"bitsd: fatal: {problem}\n".encode("utf-8", "backslashreplace"))
    os._exit(EXIT_NOT_DROPPED)
