"""A thread that impersonates starts nothing.

The rule: what a thread starts inherits its effective identity *and* its real one.  A thread would be somebody else for
ever, past the end of the block; a program could take the real uid, root's in most services, whatever identity it was
started with.  So both are refused while, and where, the calling thread impersonates.  Other threads are not concerned,
and what they start is what they are.

The interpreter announces most starts to audit hooks; the few that it does not announce are announced here.  What C
code starts by itself is beyond us.
"""

from __future__ import annotations

import _posixsubprocess
import _thread
import functools
import os
import sys
import threading
from collections.abc import Callable
from types import CodeType
from typing import Any, Final

from openbits.client.identity import here
from openbits.errors import BitsError

_PROBE: Final = "openbits.client.starts.probe"
_FORK: Final = "os.fork"
_STARTS: Final = frozenset(
    {
        "_posixsubprocess.fork_exec",
        "_thread.start_joinable_thread",
        "_thread.start_new_thread",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.system",
        "pty.spawn",
        "subprocess.Popen",
        _FORK,
    }
)

_is_watching = False


def refuse_starts() -> None:
    """From now on refuse what the module says, in the whole process; raises E_ACCESSDENIED if that cannot be.

    Two threads that come here at once do it twice, which does no harm; a lock could be forked while it is held.
    """
    if _is_watching:
        return
    _announce_everything()
    sys.addaudithook(_hook)
    # Another hook may have kept ours out, and the interpreter does not say so.
    sys.audit(_PROBE)
    if not _is_watching:
        raise BitsError(
            "E_ACCESSDENIED", "an audit hook of this process allows no other one: impersonation would not be safe"
        )


def _hook(event: str, _: tuple[Any, ...]) -> None:
    if event in _STARTS:
        if here.blocks and (event != _FORK or _forks_to_start(sys._getframe(1).f_code)):
            raise BitsError(
                "E_ILLEGAL_METHOD_CALL",
                "a thread that impersonates starts no threads and no programs: they would have its rights for good."
                " Start them before or after the block",
            )
    elif event == _PROBE:
        global _is_watching  # noqa: PLW0603 - set by the one hook there is
        _is_watching = True


def _forks_to_start(code: CodeType) -> bool:
    """Whether it is os.spawn*() or multiprocessing that forks: their children never come back to leave the block."""
    if code is os._spawnvef.__code__:  # type: ignore[attr-defined]  # private, and behind all of os.spawn*
        return True
    module = sys.modules.get("multiprocessing.popen_fork")
    return module is not None and code is module.Popen._launch.__code__


def _announce_everything() -> None:
    """Announce what the interpreter does not: threads (before 3.12), and the programs of multiprocessing."""
    if hasattr(_posixsubprocess.fork_exec, "__wrapped__"):
        return
    if sys.version_info < (3, 12):
        announced = _announcing("_thread.start_new_thread", _thread.start_new_thread)
        for module, name in ((_thread, "start_new_thread"), (_thread, "start_new"), (threading, "_start_new_thread")):
            setattr(module, name, announced)
    # The standard library's multiprocessing looks it up at each call; subprocess has an event of its own.
    _posixsubprocess.fork_exec = _announcing("_posixsubprocess.fork_exec", _posixsubprocess.fork_exec)


def _announcing(event: str, start: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(start)
    def announce(*arguments: Any, **named: Any) -> Any:
        sys.audit(event)
        return start(*arguments, **named)

    return announce
