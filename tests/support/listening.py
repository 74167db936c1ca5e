"""A program of an account that takes notifications, for tests: says on its output what it hears, does as it is told.

Started as `python listening.py SOCKET WAY JOB...`.  WAY: `ok`, `raise` (each callback fails), `hang` (each waits for
ever), `complete` (completes the job), `slow` (a callback takes a moment), `fork` (has a child that stays).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Any

import openbits


def say(*words: object) -> None:
    """One line, at once."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Listener:
    """Takes everything."""

    def __init__(self, way: str) -> None:
        self.way = way

    def act(self, event: str, job: Any, *more: object) -> None:
        """Say what was heard, and do as was said."""
        say(event, job.id, *more)
        match self.way:
            case "raise":
                raise RuntimeError("it was told to fail")
            case "hang":
                threading.Event().wait()
            case "slow":
                time.sleep(0.02)
            case "complete" if event == "job_transferred":
                say("completed", job.id, job.complete().value)

    def job_transferred(self, job: Any) -> None:
        """N1."""
        self.act("job_transferred", job)

    def job_error(self, job: Any, error: Any) -> None:
        """N1."""
        self.act("job_error", job, error.code if error is not None else None)

    def file_transferred(self, job: Any, file: Any) -> None:
        """N2."""
        self.act("file_transferred", job, file.index)


def main() -> None:
    """See the module's docstring."""
    socket, way, *jobs = sys.argv[1:]
    manager = openbits.Manager(socket)
    listener = Listener(way)
    for job_id in jobs:
        manager.get_job(job_id).set_notify_interface(listener)
    if way == "fork" and os.fork() == 0:
        time.sleep(120)
        os._exit(0)
    say("listening")
    threading.Event().wait()


if __name__ == "__main__":
    main()
