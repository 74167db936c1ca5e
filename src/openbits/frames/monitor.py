"""What service and monitor, and monitor and zygote, say to each other.

The service asks for workers; the monitor decides what an account may have, lets the zygote fork,
and tells of ends.  A descriptor goes with SpawnWorker and ForkWorker (the worker's end of its
channel) and with WorkerForked (a pidfd).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from openbits.frames.codec import Codec

SERVICE_TO_MONITOR: Final = Codec()
MONITOR_TO_SERVICE: Final = Codec()
MONITOR_TO_ZYGOTE: Final = Codec()
ZYGOTE_TO_MONITOR: Final = Codec()


@SERVICE_TO_MONITOR.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceReady:
    """The service takes calls; the monitor says so to whoever started it."""

    socket_path: str


@SERVICE_TO_MONITOR.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceStopping:
    """The service ends by its own will; the monitor ends too and starts nothing again."""

    exit_status: int


@SERVICE_TO_MONITOR.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnWorker:
    """A worker is wanted for this identity; one descriptor travels along."""

    request: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    runs_program: bool = False
    """Whether it is to be no worker but the keeper of one program of the account's (N10)."""


@SERVICE_TO_MONITOR.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class KillWorker:
    """A worker does not answer: kill it."""

    pid: int


@MONITOR_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpawned:
    """The worker runs with this identity, which is never more than was asked for."""

    request: int
    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]


@MONITOR_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class SpawnRefused:
    """There will be no worker; `error` is a BITS error name, `message` a sentence."""

    request: int
    error: str
    message: str


@MONITOR_TO_SERVICE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerExited:
    """A worker has ended, for whatever reason."""

    pid: int


@MONITOR_TO_ZYGOTE.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class ForkWorker:
    """Fork a worker with this identity; one descriptor travels along."""

    request: int
    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str = ""
    """What the account is called, for process lists."""
    runs_program: bool = False
    """See SpawnWorker."""


@ZYGOTE_TO_MONITOR.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteReady:
    """Everything is imported; forking may begin."""


@ZYGOTE_TO_MONITOR.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerForked:
    """The worker exists; a pidfd travels along."""

    request: int
    pid: int


@ZYGOTE_TO_MONITOR.frame
@dataclass(frozen=True, slots=True, kw_only=True)
class ForkFailed:
    """The kernel refused to fork."""

    request: int
    message: str
