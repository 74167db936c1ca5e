"""Who descends from a process: what is needed to leave nobody behind.  Standard library only.

The rule: the answer is about this moment, and whoever wants to end a family asks again until there is nobody left.
A process whose parent ends becomes a child of the nearest ancestor that adopts orphans, so such an ancestor finds
everybody in the end, however they tried to get away.
"""

from __future__ import annotations

import os


def children_of(pid: int) -> list[int]:
    """Return the children of a process, those included that have ended and were not waited for."""
    try:
        # Of each thread, since a child is that of the thread that made it.
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found: list[int] = []
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += (int(child) for child in file.read().split())
        except FileNotFoundError:
            if not os.path.exists(f"/proc/{pid}/task/{task}"):
                continue
            # A kernel without CONFIG_PROC_CHILDREN.
            return [child for child, parent in _parents().items() if parent == pid]
        except OSError:
            continue
    return found


def descendants_of(pid: int) -> list[int]:
    """Return the children of a process and theirs, parents before their children."""
    found = children_of(pid)
    for child in found:  # which grows meanwhile
        found += children_of(child)
    return found


def _parents() -> dict[int, int]:
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            continue
    return parents
