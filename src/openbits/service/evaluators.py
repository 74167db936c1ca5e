"""Evaluators of PAC scripts, brought to the workers that want them (inventory J22).

The rule: an evaluator belongs to one run, is a process of the account that speaks to the network, and does not outlive
the run, whatever its script does: what does not end by itself is killed.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from typing import Final

from openbits.core.model import Identity
from openbits.errors import BitsError
from openbits.frames.channel import Channel
from openbits.frames.worker import Evaluator
from openbits.service.tasks import Tasks
from openbits.service.worker import Worker, WorkerGone
from openbits.service.workers import WorkerPool

log = logging.getLogger(__name__)

FILTERED_MACHINES: Final = ("x86_64", "aarch64")
"""For which `worker.seccomp` has a filter."""
_SECCOMP: Final = "/proc/sys/kernel/seccomp/actions_avail"


def evaluation_health() -> tuple[bool, str]:
    """Whether scripts for proxies (PAC) can be evaluated here, and how much the kernel does to confine them."""
    if importlib.util.find_spec("_quickjs") is None:
        return False, "PAC scripts cannot be evaluated: the package quickjs-ng is missing"
    if os.path.exists(_SECCOMP) and os.uname().machine in FILTERED_MACHINES:
        what = "seccomp takes everything else from it"
    else:
        what = "this kernel has no seccomp filter that would take more from it"
    return True, f"PAC is evaluated by quickjs-ng, with little memory and time and no descriptors; {what}"


class Evaluators:
    """Those of all runs, by the number of the run's transfer."""

    def __init__(self, pool: WorkerPool, tasks: Tasks) -> None:
        self._pool = pool
        self._tasks = tasks
        self._pids: dict[int, int] = {}
        self._wanted: set[int] = set()
        """Transfers for which one is being started."""

    def __repr__(self) -> str:
        return f"<Evaluators alive={len(self._pids)} wanted={len(self._wanted)}>"

    def want(self, transfer: int, worker: Worker, identity: Identity) -> None:
        """Bring a new evaluator to a worker; the one that the transfer had is ended."""
        if transfer in self._wanted:
            return  # a worker that is itself asks once, and waits
        self._kill(transfer)
        self._wanted.add(transfer)
        self._tasks.start(f"evaluator for transfer {transfer}", self._bring(transfer, worker, identity))

    def end(self, transfer: int) -> None:
        """The transfer is over."""
        self._wanted.discard(transfer)
        self._kill(transfer)

    def _kill(self, transfer: int) -> None:
        pid = self._pids.pop(transfer, None)
        if pid is not None:
            self._pool.end_evaluator(pid)

    async def _bring(self, transfer: int, worker: Worker, identity: Identity) -> None:
        ours, theirs = Channel.pair()
        with ours, theirs:
            try:
                pid = await self._pool.start_evaluator(identity, theirs.fileno())
            except (BitsError, WorkerGone) as error:
                message = error.message if isinstance(error, BitsError) else "the process for it has died"
                log.warning("action=no-evaluator uid=%d reason=%s", identity.uid, message)
                worker.send(Evaluator(transfer=transfer, error="E_FAIL", message=message))
                return
            finally:
                is_wanted = transfer in self._wanted
                self._wanted.discard(transfer)
            if not is_wanted:
                self._pool.end_evaluator(pid)
                return
            self._pids[transfer] = pid
            worker.send(Evaluator(transfer=transfer), (ours.fileno(),))
