"""Who the calling thread is, now and outside of all `impersonate` blocks.

The rule: the kernel is asked each time, because it is the kernel that tells the service who calls.  Remembered is only
what it cannot tell: the blocks that a thread is in, and what it was before the first.  (No ctypes here: what never
impersonates should not pay for it.)
"""

from __future__ import annotations

import os
import threading
from typing import Any, NamedTuple, Protocol


class Identity(NamedTuple):
    """Whose rights a call carries; `groups` are the supplementary groups, sorted."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class Block(Protocol):
    """A stretch of code that runs as somebody else."""

    wanted: Identity
    on_event_loop: bool
    """Whether it was begun by code that an event loop was running."""


class Outside(Protocol):
    """What a thread is by itself (`thread_rights.Rights`)."""

    @property
    def identity(self) -> Identity:
        """Who it is."""


class ThreadState(threading.local):
    """What is remembered of the calling thread; a child goes on with what its parent's forking thread had."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        """The blocks that it is in; it wears the identity of the last."""
        self.outside: Any = None
        """What it is outside of them, as `Outside`, from before the first is begun until after the last is left."""


here = ThreadState()


def current_identity() -> Identity:
    """Who the calling thread is at this moment."""
    return Identity(os.geteuid(), os.getegid(), tuple(sorted(set(os.getgroups()))))


def base_identity() -> Identity:
    """Who the calling thread is outside of all `impersonate` blocks."""
    outside: Outside | None = here.outside
    return current_identity() if outside is None else outside.identity


def is_impersonated_on_event_loop() -> bool:
    """Whether the calling thread began to be somebody else while it ran an event loop."""
    return any(block.on_event_loop for block in here.blocks)
