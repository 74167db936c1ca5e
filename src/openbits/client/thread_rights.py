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
import os
import sys
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


_NONE: Final = _Numbers(setgroups=-1, setresuid=-1, setresgid=-1)
"""No system calls at all: the kernel answers ENOSYS."""
# The system calls have other numbers on each kind of machine, and on a 64-bit kernel a 32-bit program uses
# those of the 32-bit machine: a wrong number would be some other system call.
_NUMBERS: Final = {
    ("x86_64", True): _Numbers(setgroups=116, setresuid=117, setresgid=119),
    ("aarch64", True): _Numbers(setgroups=159, setresuid=147, setresgid=149),
}.get((os.uname().machine, sys.maxsize > 2**32), _NONE)

_KEEP: Final = -1
"""For setresuid and setresgid: leave this one as it is."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
_syscall = _libc["syscall"]
_syscall.argtypes = (ctypes.c_long,) * 4
_syscall.restype = ctypes.c_long
_CapabilityWords = ctypes.c_uint32 * 6
"""Effective, permitted and inheritable, the lower halves first."""
_header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
"""Of the version that six words belong to, and about the calling thread."""


class NotWorn(Exception):
    """The kernel took the calls, but the thread is not what it was meant to be."""


class Capabilities(NamedTuple):
    """Three of a thread's sets of capabilities, as bits."""

    effective: int
    permitted: int
    inheritable: int


class Rights(NamedTuple):
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
        return Identity(self.uids[1], self.gids[1], tuple(sorted(set(self.groups))))


def read() -> Rights:
    """Return the rights of the calling thread. Raises OSError."""
    death_signal = ctypes.c_int(0)
    _prctl(_PR_GET_PDEATHSIG, ctypes.addressof(death_signal))
    return _read(death_signal.value)


def _read(death_signal: int) -> Rights:
    return Rights(os.getresuid(), os.getresgid(), tuple(os.getgroups()), _capabilities(), death_signal)


def check(base: Rights) -> None:
    """Say whether a thread with these rights can take on other identities, and come back. Nothing is changed.

    Raises E_NOTIMPL, ERROR_PRIVILEGE_NOT_HELD, E_ILLEGAL_METHOD_CALL.
    """
    if _NUMBERS is _NONE:
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
    if is_return:
        # To the letter: the kernel keeps a group twice that was set twice.
        wanted = wanted._replace(groups=base.groups)
    if base.uids[1] == 0 and os.geteuid() != 0:
        # The kernel lets nobody keep a thread from being who it really is, and gives uid 0 its capabilities back.
        _call(_NUMBERS.setresuid, _KEEP, 0, _KEEP)
    try:
        _exchange(wanted)
    except PermissionError:
        now = _capabilities()
        _set_capabilities(now._replace(effective=now.effective | _NEEDED))
        _exchange(wanted)
    capabilities = base.capabilities
    if wanted.uid != 0 and not is_return:
        capabilities = capabilities._replace(effective=0)
    if base.death_signal:
        _prctl(_PR_SET_PDEATHSIG, base.death_signal)
    expected = Rights(
        uids=(base.uids[0], wanted.uid, base.uids[2]),
        gids=(base.gids[0], wanted.gid, base.gids[2]),
        groups=wanted.groups,
        capabilities=capabilities,
        death_signal=base.death_signal,
    )
    found = _read(base.death_signal)
    if found.capabilities != capabilities:
        _set_capabilities(capabilities)
        found = _read(base.death_signal)
    if found != expected:
        raise NotWorn(f"the thread has {found} instead of {expected}")


def _exchange(wanted: Identity) -> None:
    groups = (ctypes.c_uint32 * len(wanted.groups))(*wanted.groups)
    _call(_NUMBERS.setgroups, len(wanted.groups), ctypes.addressof(groups), 0)
    _call(_NUMBERS.setresgid, _KEEP, wanted.gid, _KEEP)
    _call(_NUMBERS.setresuid, _KEEP, wanted.uid, _KEEP)


def _call(number: int, *arguments: int) -> None:
    if _syscall(number, *arguments) != 0:
        _fail(f"system call {number}")


def _capabilities() -> Capabilities:
    words = _CapabilityWords()
    if _libc.capget(_header, words) != 0:
        _fail("capget")
    low, high = words[:3], words[3:]
    if not any(high):
        return Capabilities(*low)
    return Capabilities(*(one | more << 32 for one, more in zip(low, high, strict=True)))


def _set_capabilities(wanted: Capabilities) -> None:
    words = _CapabilityWords(*(bits >> shift & 0xFFFF_FFFF for shift in (0, 32) for bits in wanted))
    if _libc.capset(_header, words) != 0:
        _fail("capset")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) < 0:
        _fail(f"prctl({option})")


def _fail(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")
