"""What a worker gives up beyond its identity, and where the kernel is told so.

The rule: a worker fetches bytes and writes files; it runs no program, makes nothing but files and
directories, and signals nobody.  Best effort: what a kernel does not know is left out, because the account's own
rights are the border that counts.  Landlock also ties every file to its directory (no rename or
link into another one), which is where temporary files stand anyway.  Libraries may still be loaded, as
name service modules are.
"""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

# The same on every architecture.
_SYS_LANDLOCK_CREATE_RULESET: Final = 444
_SYS_LANDLOCK_RESTRICT_SELF: Final = 446
_CREATE_RULESET_VERSION: Final = 1

_ACCESS_EXECUTE: Final = 1 << 0
_ACCESS_MAKE_CHAR: Final = 1 << 6
_ACCESS_MAKE_SOCK: Final = 1 << 9
_ACCESS_MAKE_FIFO: Final = 1 << 10
_ACCESS_MAKE_BLOCK: Final = 1 << 11
_SCOPE_ABSTRACT_UNIX_SOCKET: Final = 1 << 0
_SCOPE_SIGNAL: Final = 1 << 1

_ABI_WITH_SCOPES: Final = 6
_MEMORY_LIMIT_BYTES: Final = 1 << 30
"""Of data, not of address space: threads and the allocator reserve address space that they never use."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


def enter_sandbox() -> int:
    """Restrict this process for good; return the Landlock version of the kernel, 0 without it.

    Call it after the identity is taken (it needs no_new_privs) and before there are threads.
    """
    _limit_resources()
    return _restrict_by_landlock()


def landlock_version() -> int:
    """Return the version of Landlock that this kernel has, 0 without."""
    version: int = _libc.syscall(_SYS_LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    return max(0, version)


def _limit_resources() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most_bytes = resource.getrlimit(resource.RLIMIT_DATA)
    if most_bytes == resource.RLIM_INFINITY or most_bytes > _MEMORY_LIMIT_BYTES:
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_LIMIT_BYTES, _MEMORY_LIMIT_BYTES))
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))


def _restrict_by_landlock() -> int:
    version = landlock_version()
    if version == 0:
        return 0
    attributes = _RulesetAttributes(
        handled_access_fs=_ACCESS_EXECUTE
        | _ACCESS_MAKE_CHAR
        | _ACCESS_MAKE_SOCK
        | _ACCESS_MAKE_FIFO
        | _ACCESS_MAKE_BLOCK
    )
    size = ctypes.sizeof(ctypes.c_uint64)
    if version >= _ABI_WITH_SCOPES:
        attributes.scoped = _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL
        size = ctypes.sizeof(attributes)
    ruleset: int = _libc.syscall(
        _SYS_LANDLOCK_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0)
    )
    if ruleset < 0:
        return 0
    try:
        restricted = _libc.syscall(_SYS_LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)) == 0
    finally:
        os.close(ruleset)
    return version if restricted else 0
