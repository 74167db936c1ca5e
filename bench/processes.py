"""What a tree of processes costs: processor time, memory and wake-ups, as the kernel counts them.

The rule: everything is read from /proc for a process and all its descendants, so nothing of ours can hide in a
helper; time of children that have ended and were waited for counts, because the kernel adds it to their parent.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_SAMPLE_INTERVAL_S: Final = 0.05
_GONE: Final = (FileNotFoundError, ProcessLookupError)


def tree(root_pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = []
    pending = [root_pid]
    while pending:
        pid = pending.pop()
        with contextlib.suppress(*_GONE):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(*_GONE), open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                    pending += [int(child) for child in file.read().split()]
            found.append(pid)
    return found


def name_of(pid: int) -> str:
    """Return the name that a process list shows."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except _GONE:
        return ""


def cpu_s(pids: list[int]) -> float:
    """User and system time of processes and of those children of theirs that have ended, in seconds."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(*_GONE), open(f"/proc/{pid}/stat", "rb") as file:
            # utime, stime, cutime and cstime; the name before may hold anything, but no later parenthesis.
            ticks += sum(int(field) for field in file.read().rpartition(b")")[2].split()[11:15])
    return ticks * _TICK_S


def rss_bytes(pids: list[int]) -> int:
    """Resident memory of processes; a page that several share counts for each, so this is never too little."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(*_GONE), open(f"/proc/{pid}/statm", "rb") as file:
            pages += int(file.read().split()[1])
    return pages * _PAGE_BYTES


def pss_bytes(pids: list[int]) -> int:
    """Proportional memory of processes: a page that several share counts once in all. 0 where it may not be read."""
    total_kib = 0
    for pid in pids:
        with contextlib.suppress(*_GONE, PermissionError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            total_kib += sum(int(line.split()[1]) for line in file if line.startswith(b"Pss:"))
    return total_kib * 1024


def context_switches(pids: list[int]) -> dict[int, int]:
    """Return how often the threads of each process have been given the processor, by thread."""
    counts = {}
    for pid in pids:
        with contextlib.suppress(*_GONE):
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(*_GONE), open(f"/proc/{pid}/task/{task}/status", "rb") as file:
                    counts[int(task)] = sum(
                        int(line.split()[1]) for line in file if b"voluntary_ctxt_switches:" in line
                    )
    return counts


@dataclass(slots=True)
class MemoryPeak:
    """The most memory that was seen."""

    rss_bytes: int = 0
    pss_bytes: int = 0


@contextlib.contextmanager
def watch_memory(roots: list[int]) -> Iterator[MemoryPeak]:
    """Follow the memory of trees of processes; roots may be added while it runs.

    Looked at from outside: ru_maxrss of a child is useless here, for it begins with the size of whoever forked it.
    Sums of one moment are taken, because the peaks of several processes need not fall together.
    """
    peak = MemoryPeak()
    over = threading.Event()

    def follow() -> None:
        rounds = 0
        while True:
            pids = [pid for root in tuple(roots) for pid in tree(root)]
            peak.rss_bytes = max(peak.rss_bytes, rss_bytes(pids))
            # Adding up mappings is dear, and holds up the process that is looked at: seldom.
            if rounds % 10 == 1:
                peak.pss_bytes = max(peak.pss_bytes, pss_bytes(pids))
            rounds += 1
            if over.wait(_SAMPLE_INTERVAL_S if rounds > 1 else 0.01):
                return

    watcher = threading.Thread(target=follow, name="memory", daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
