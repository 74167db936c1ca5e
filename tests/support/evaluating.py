"""A worker whose service brings it evaluators of PAC scripts, as the real one does."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Mapping

from openbits.frames.worker import BecomeEvaluator, Evaluator, EvaluatorWanted
from support.worker_process import TIMEOUT_S, WorkerProcess

_PROGRAM = """
import socket, sys
import openbits.worker.pac as pac, openbits.worker.pacscript as pacscript
{changes}
from openbits.worker.main import run
sys.exit(run(socket.socket(fileno=int(sys.argv[1]))))
"""


class PacWorker(WorkerProcess):
    """A context manager; `evaluators` are the processes that were started, the last one last.

    `limits` are constants of the worker's modules for this test, such as `pacscript.FETCH_LIMIT_S`.
    """

    def __init__(self, *, env: dict[str, str] | None = None, limits: Mapping[str, float] | None = None) -> None:
        self.evaluators: list[subprocess.Popen[bytes]] = []
        self.brings = True
        """Whether the service answers at all."""
        self.refusal = ""
        """Why there is no evaluator, for tests in which there is none."""
        self.impostor: socket.socket | None = None
        """What the worker gets in place of an evaluator, for tests in which that has been taken over."""
        changes = "\n".join(f"{name} = {value}" for name, value in (limits or {}).items())
        super().__init__(env=env, program=_PROGRAM.format(changes=changes))

    def receive(self, timeout_s: float = TIMEOUT_S) -> object | None:
        """See WorkerProcess: what wants an evaluator gets one."""
        message = super().receive(timeout_s)
        if isinstance(message, EvaluatorWanted) and self.brings:
            self._bring(message.transfer)
        return message

    def _bring(self, transfer: int) -> None:
        if self.refusal:
            self.send(Evaluator(transfer=transfer, error="E_FAIL", message=self.refusal))
            return
        if self.impostor is not None:
            self.channel.send(Evaluator(transfer=transfer), (self.impostor.fileno(),))
            return
        process = WorkerProcess()
        self.evaluators.append(process.process)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        with ours, theirs:
            process.channel.send(BecomeEvaluator(), (theirs.fileno(),))
            process.channel.close()
            self.channel.send(Evaluator(transfer=transfer), (ours.fileno(),))

    def __exit__(self, *what: object) -> None:
        try:
            super().__exit__(*what)
        finally:
            for process in self.evaluators:
                try:
                    # They end by themselves: the worker that asked is gone.
                    process.wait(TIMEOUT_S)
                finally:
                    if process.poll() is None:
                        process.kill()
                        process.wait()
