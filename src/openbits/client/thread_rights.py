"""The rights of one thread: read, exchanged for somebody's, put back.  By raw system calls.

The rules:

- One thread only.  The kernel keeps credentials per thread; the C library's setuid() and its kind change *all*
  threads of a process, so they are never used here.
- Effective ids only.  Alice may send signals to a thread that has her uid as its real or saved one.  What the thread
  really is stays what it was, where she has no say, and it is the way back.
- No capability is worn with somebody else's uid.
- The kernel is asked afterwards, every time.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from dataclasses import dataclass
from typing import Final, NamedTuple

from openbits.client.identity import Identity
from openbits.errors import BitsError

_CAP_SETGID: Final = 1 << 6
_CAP_SETUID: Final = 1 << 7
_NEEDED: Final = _CAP_SETGID | _CAP_SETUID

_CAPABILITY_VERSION_3: Final = 0x2008_0522
_PR_SET_PDEATHSIG: Final = 1
_PR_GET_PDEATHSIG: Final = 2


class _Numbers(NamedTuple):
    setgroups: int
    setresuid: int
    setresgid: int


# The system calls have other numbers on each kind of machine, and on a 64-bit kernel a 32-bit program uses
# those of the 32-bit machine: a wrong number would be some other system call.
_NUMBERS: Final = {
    ("x86_64", True): _Numbers(setgroups=116, setresuid=117, setresgid=119),
    ("aarch64", True): _Numbers(setgroups=159, setresuid=147, setresgid=149),
}.get((os.uname().machine, sys.maxsize > 2**32))

_KEEP: Final = ctypes.c_long(-1)
"""For setresuid and setresgid: leave this one as it is."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)


class NotWorn(Exception):
    """The kernel took the calls, but the thread is not what it was meant to be."""


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Word(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class Capabilities(NamedTuple):
    """Three of a thread's sets of capabilities, as bits."""

    effective: int
    permitted: int
    inheritable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Everything about a thread that an exchange touches; ids are real, effective, saved."""

    uids: tuple[int, int, int]
    gids: tuple[int, int, int]
    groups: tuple[int, ...]
    capabilities: Capabilities
    death_signal: int
    """What the kernel sends it when its parent ends; forgotten by the kernel at every exchange."""

    @property
    def identity(self) -> Identity:
        """Who the kernel says that calls of this thread come from."""
        return Identity(self.uids[1], self.gids[1], self.groups)


def read() -> Rights:
    """Return the rights of the calling thread. Raises OSError."""
    death_signal = ctypes.c_int(0)
    _prctl(_PR_GET_PDEATHSIG, ctypes.addressof(death_signal))
    return Rights(
        uids=os.getresuid(),
        gids=os.getresgid(),
        groups=_groups(),
        capabilities=_capabilities(),
        death_signal=death_signal.value,
    )


def check(base: Rights) -> None:
    """Say whether a thread with these rights can take on other identities, and come back. Nothing is changed.

    Raises E_NOTIMPL, ERROR_PRIVILEGE_NOT_HELD, E_ILLEGAL_METHOD_CALL.
    """
    if _NUMBERS is None:
        raise BitsError("E_NOTIMPL", f"impersonation is not implemented for {os.uname().machine}")
    if base.capabilities.permitted & _NEEDED != _NEEDED:
        raise BitsError(
            "ERROR_PRIVILEGE_NOT_HELD",
            "to impersonate, a process must hold CAP_SETUID and CAP_SETGID: run the service as root or give it"
            " both (AmbientCapabilities=CAP_SETUID CAP_SETGID in its unit)",
        )
    real_uid, effective_uid, saved_uid = base.uids
    real_gid, effective_gid, saved_gid = base.gids
    if effective_uid not in {real_uid, saved_uid} or effective_gid not in {real_gid, saved_gid}:
        raise BitsError(
            "E_ILLEGAL_METHOD_CALL",
            "the thread's effective ids are neither its real nor its saved ones: there would be no way back",
        )


def wear(base: Rights, wanted: Identity) -> None:
    """Exchange the rights of the calling thread, whatever they are now, for those of `wanted`.

    `base` is what the thread is by itself; wanting its identity means to get back all of its rights. May be called
    again after a failure. Raises OSError, NotWorn.
    """
    is_return = wanted == base.identity
    _be_able(base)
    _set_groups(wanted.groups)
    _set_effective("setresgid", wanted.gid)
    _set_effective("setresuid", wanted.uid)
    effective = base.capabilities.effective if is_return or wanted.uid == 0 else 0
    _set_capabilities(base.capabilities._replace(effective=effective))
    if base.death_signal:
        _prctl(_PR_SET_PDEATHSIG, base.death_signal)
    found = read()
    expected = Rights(
        uids=(base.uids[0], wanted.uid, base.uids[2]),
        gids=(base.gids[0], wanted.gid, base.gids[2]),
        groups=wanted.groups,
        capabilities=base.capabilities._replace(effective=effective),
        death_signal=base.death_signal,
    )
    if found != expected:
        raise NotWorn(f"the thread has {found} instead of {expected}")


def _be_able(base: Rights) -> None:
    """Have the capabilities for an exchange in effect, whoever the thread is now."""
    if base.uids[1] == 0 and os.geteuid() != 0:
        # The kernel gives uid 0 its capabilities back by itself, and lets nobody keep it from being who it really is.
        _set_effective("setresuid", 0)
    now = _capabilities()
    if now.effective & _NEEDED != _NEEDED:
        _set_capabilities(now._replace(effective=now.effective | _NEEDED))


def _set_effective(call: str, wanted: int) -> None:
    if (os.geteuid() if call == "setresuid" else os.getegid()) != wanted:
        _system_call(call, _KEEP, ctypes.c_long(wanted), _KEEP)


def _set_groups(groups: tuple[int, ...]) -> None:
    if _groups() != groups:
        array = (ctypes.c_uint32 * len(groups))(*groups)
        _system_call("setgroups", ctypes.c_long(len(groups)), ctypes.byref(array))


def _system_call(name: str, *arguments: object) -> None:
    if _NUMBERS is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _libc.syscall(ctypes.c_long(getattr(_NUMBERS, name)), *arguments) != 0:
        _fail(name)


def _groups() -> tuple[int, ...]:
    return tuple(sorted(set(os.getgroups())))


def _capabilities() -> Capabilities:
    words = (_Word * 2)()
    if _libc.capget(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), ctypes.byref(words)) != 0:
        _fail("capget")
    low, high = words
    return Capabilities(
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def _set_capabilities(wanted: Capabilities) -> None:
    if _capabilities() == wanted:
        return
    words = (_Word * 2)(*(_Word(*(bits >> shift & 0xFFFF_FFFF for bits in wanted)) for shift in (0, 32)))
    if _libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), ctypes.byref(words)) != 0:
        _fail("capset")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) < 0:
        _fail(f"prctl({option})")


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")
