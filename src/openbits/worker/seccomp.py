"""A filter that leaves a process nothing but memory, the time, and the descriptors that it has.

The rule: a list of what is allowed, a few dozen system calls long; anything else kills the process on the spot.  The
filter cannot be taken off, and is there for every thread and child, of which there can be none.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final, NamedTuple

from openbits.privileges import prctl

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_GET_SECCOMP: Final = 21
_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2

_LOAD_WORD: Final = 0x20
_JUMP_IF_EQUAL: Final = 0x15
_JUMP_IF_AT_LEAST: Final = 0x35
_JUMP_IF_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_KILL_PROCESS: Final = 0x8000_0000
_ALLOW: Final = 0x7FFF_0000
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_THIRD_ARGUMENT_AT: Final = 32
"""Its lower half, on machines that put that first."""
_PROT_EXEC: Final = 4


class _Calls(NamedTuple):
    """The system calls of one architecture: its number in a filter, what is allowed, and what maps memory."""

    architecture: int
    beyond: int
    """Numbers from here on belong to another way of calling."""
    allowed: tuple[int, ...]
    mapping: tuple[int, ...]
    """mmap and mprotect: allowed as long as nothing becomes code."""


# read write close sendto recvfrom sendmsg recvmsg munmap mremap madvise brk futex sched_yield setitimer getrusage
# clock_gettime clock_getres gettimeofday getrandom rt_sigprocmask rt_sigreturn sigaltstack restart_syscall exit
# exit_group; and time, where there is such a call.  No way to install a signal handler: a timer must kill.
_BY_MACHINE: Final = {
    "x86_64": _Calls(
        architecture=0xC000_003E,
        beyond=0x4000_0000,
        allowed=(
            *(0, 1, 3, 44, 45, 46, 47, 11, 25, 28, 12, 202, 24, 38, 98),
            *(228, 229, 96, 318, 14, 15, 131, 219, 60, 231, 201),
        ),
        mapping=(9, 10),
    ),
    "aarch64": _Calls(
        architecture=0xC000_00B7,
        beyond=0x4000_0000,
        allowed=(
            *(63, 64, 57, 206, 207, 211, 212, 215, 216, 233, 214, 98, 124, 103, 165),
            *(113, 114, 169, 278, 135, 139, 132, 128, 93, 94),
        ),
        mapping=(222, 226),
    ),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confine() -> str:
    """Put the filter on this process, for good; return why that cannot be, empty when it was done."""
    calls = _BY_MACHINE.get(os.uname().machine)
    if calls is None:
        return f"there is no filter of system calls for {os.uname().machine}"
    instructions = _filter(calls)
    program = _Program(len(instructions) // 8, instructions)
    try:
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
        prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(program))
    except OSError as error:
        return f"this kernel takes no filter of system calls: {error.strerror}"
    return ""


def _filter(calls: _Calls) -> bytes:
    """The filter's instructions; jumps are relative to the next one."""
    mapping, allowed = len(calls.mapping), len(calls.allowed)
    # Where what follows the comparisons stands: kill, allow, and the look at what a mapping is for.
    steps = [
        (_LOAD_WORD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_IF_EQUAL, 1, 0, calls.architecture),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD_WORD, 0, 0, _NUMBER_AT),
        (_JUMP_IF_AT_LEAST, mapping + allowed, 0, calls.beyond),
    ]
    for at, number in enumerate((*calls.mapping, *calls.allowed)):
        left = mapping + allowed - at - 1
        # From here `left` comparisons to the kill; behind that the allow, then the look.
        steps.append((_JUMP_IF_EQUAL, left + (2 if at < mapping else 1), 0, number))
    steps += [
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD_WORD, 0, 0, _THIRD_ARGUMENT_AT),
        (_JUMP_IF_ANY_BIT, 0, 1, _PROT_EXEC),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
