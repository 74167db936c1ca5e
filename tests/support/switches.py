"""How often the threads of a daemon were switched to: what does nothing is not switched to at all."""

from __future__ import annotations

import contextlib
import os
import time

from support.daemon import Daemon, Process


def switches(processes: list[Process]) -> dict[str, int]:
    """How often each thread of the daemon was switched to; by process, for a message that says who it was."""
    counts = {}
    for process in processes:
        for thread in os.listdir(f"/proc/{process.pid}/task"):
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{process.pid}/task/{thread}/status") as file:
                counts[f"{process.name} {thread}"] = sum(
                    int(line.split()[1]) for line in file if "ctxt_switches" in line
                )
    return counts


def has_settled(daemon: Daemon) -> bool:
    """Whether nothing has happened for half a second."""
    before = switches(daemon.processes())
    time.sleep(0.5)
    return switches(daemon.processes()) == before
