"""Running programs under measurement: wall time, processor time and memory of one run.

The rule: the wall time is that of the commands, from the start of the first to the end of the last; the
processor time and the memory are of the commands *and* of the processes in the background that work for them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Final

from bench import processes

TIMEOUT_S: Final = 600.0
_SETTLE_S: Final = 0.25
"""What the background still does when the command has ended is part of the bill."""


class BenchError(Exception):
    """A number would be wrong or cannot be had; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program to run; `account` is (uid, gid) where that is another one."""

    arguments: Sequence[str]
    environment: Mapping[str, str] | None = None
    account: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one run cost."""

    wall_s: float
    cpu_s: float
    rss_bytes: int
    pss_bytes: int


def measure(commands: Sequence[Command], *, background: int | None = None) -> Sample:
    """Run commands at the same time, with the tree of processes under `background` on the bill. Raises BenchError."""
    before_s = 0.0 if background is None else processes.cpu_s(processes.tree(background))
    roots = [] if background is None else [background]
    with contextlib.ExitStack() as stack:
        peak = stack.enter_context(processes.watch_memory(roots))
        begun = time.perf_counter()
        started = [stack.enter_context(_running(command)) for command in commands]
        roots += [program.process.pid for program in started]
        own_s = sum(program.finish() for program in started)
        wall_s = time.perf_counter() - begun
    if background is not None:
        time.sleep(_SETTLE_S)
        own_s += processes.cpu_s(processes.tree(background)) - before_s
    return Sample(wall_s=wall_s, cpu_s=own_s, rss_bytes=peak.rss_bytes, pss_bytes=peak.pss_bytes)


def run(command: Command) -> bytes:
    """Run a program that is not measured and return what it printed. Raises BenchError."""
    with tempfile.TemporaryFile() as output, _running(command, output) as program:
        program.finish()
        output.seek(0)
        return output.read()


@dataclass(slots=True)
class _Program:
    process: subprocess.Popen[bytes]
    words: IO[bytes]
    line: str

    def finish(self) -> float:
        """Wait for the end and return the processor time, that of children included."""
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode != 0:
            self.words.seek(0)
            said = self.words.read().decode("utf-8", "replace").strip()[-500:]
            raise BenchError(f"'{self.line}' ended with {self.process.returncode}: {said or 'it said nothing'}")
        return usage.ru_utime + usage.ru_stime


@contextlib.contextmanager
def _running(command: Command, output: IO[bytes] | None = None) -> Iterator[_Program]:
    uid, gid = command.account or (None, None)
    # A file, not a pipe: nobody reads while several programs run.
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            command.arguments,
            stdin=subprocess.DEVNULL,
            stdout=output or subprocess.DEVNULL,
            stderr=words,
            env=command.environment,
            user=uid,
            group=gid,
            extra_groups=None if gid is None else [],
        )
        watchdog = threading.Timer(TIMEOUT_S, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield _Program(process, words, " ".join(command.arguments)[:200])
        finally:
            watchdog.cancel()
            if process.returncode is None:
                process.kill()
                process.wait()
