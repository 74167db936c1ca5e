"""A worker whose service brings it evaluators of PAC scripts, as the real one does."""

from __future__ import annotations

import socket
import subprocess

from openbits.frames.worker import BecomeEvaluator, Evaluator, EvaluatorWanted
from support.worker_process import TIMEOUT_S, WorkerProcess


class PacWorker(WorkerProcess):
    """A context manager; `evaluators` are the processes that were started, the last one last."""

    def __init__(self, *, env: dict[str, str] | None = None) -> None:
        self.evaluators: list[subprocess.Popen[bytes]] = []
        self.refusal = ""
        """Why there is no evaluator, for tests in which there is none."""
        super().__init__(env=env)

    def receive(self, timeout_s: float = TIMEOUT_S) -> object | None:
        """See WorkerProcess: what wants an evaluator gets one."""
        message = super().receive(timeout_s)
        if isinstance(message, EvaluatorWanted):
            self._bring(message.transfer)
        return message

    def _bring(self, transfer: int) -> None:
        if self.refusal:
            self.send(Evaluator(transfer=transfer, error="E_FAIL", message=self.refusal))
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
