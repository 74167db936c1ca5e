"""Keeping the daemon together: both programs are started, watched, started again, and ended together.

The rule: the service may die and comes back, after its workers have gone; the zygote likewise; but
who breaks the table of permits ends the daemon, and nothing outlives the monitor.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass
from typing import Final

from openbits.descendants import children_of
from openbits.frames import monitor as frames
from openbits.frames.channel import Channel
from openbits.frames.codec import Codec, FrameError
from openbits.monitor import children
from openbits.monitor.accounts import IdentityRule
from openbits.monitor.children import Child, Program
from openbits.monitor.log import say
from openbits.monitor.permits import (
    SERVICE_PERMITS,
    ZYGOTE_PERMITS,
    ServiceState,
    Violation,
    ZygoteState,
    check,
)
from openbits.monitor.reactor import Link, Reactor
from openbits.monitor.restarts import Restarts
from openbits.monitor.startup import Notifier
from openbits.monitor.workforce import Workforce

STOP_PATIENCE_S: Final = 20.0
"""How long the service has to bring its workers to a checkpoint and end."""
_END_PATIENCE_S: Final = 2.0
"""How long who has closed its channel may take to end, and workers without a service."""
_KILL_PATIENCE_S: Final = 5.0
"""How long killed processes are waited for: one that is stuck in the kernel may take longer."""


@dataclass(slots=True, kw_only=True)
class _Run:
    """One life of the service or the zygote."""

    child: Child
    link: Link
    state: ServiceState | ZygoteState
    ended: bool = False


class Supervisor:
    """The monitor itself; `run` returns the exit status of the daemon."""

    def __init__(self, *, service: Program, zygote: Program, rule: IdentityRule, notifier: Notifier) -> None:
        self._programs = {"service": service, "zygote": zygote}
        self._restarts = {"service": Restarts(), "zygote": Restarts()}
        self._notifier = notifier
        self._reactor = Reactor()
        self._workforce = Workforce(
            rule=rule, reactor=self._reactor, on_empty=self._workers_gone, kill_orphans=self._kill_orphans
        )
        self._service: _Run | None = None
        self._zygote: _Run | None = None
        self._service_waits_for_workers = False
        self._socket_path: str | None = None
        self._was_ready = False
        self._stopping = False
        self._status_after_stop = 0
        self._exit_status: int | None = None

    def run(self) -> int:
        """Run the daemon until it ends."""
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        with self._reactor.signals(signals, self._on_signal):
            try:
                # The service first: its imports take longer.
                self._start_service()
                self._start_zygote()
                while self._exit_status is None:
                    self._reactor.turn()
            except (Violation, FrameError, OSError) as error:
                # An OSError is this machine out of processes or descriptors: who started us may try again.
                say(f"fatal: {error}")
                self._exit_status = 1
            finally:
                self._end_everything()
        self._reactor.close()
        return self._exit_status

    # --- signals ---

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGTERM:
                self._stop()
            case signal.SIGINT if self._stopping:
                say("interrupted again: ending at once")
                self._exit_status = self._status_after_stop
            case signal.SIGINT:
                self._stop()
            case signal.SIGHUP:
                self._forward_reload()

    def _stop(self) -> None:
        if self._stopping:
            return
        self._leave(0)
        if self._service is not None:
            self._service.child.signal(signal.SIGTERM)

    def _forward_reload(self) -> None:
        # Before it serves, the service reads its configuration anyway.
        if self._service is not None and self._service.state is ServiceState.SERVING:
            self._service.child.signal(signal.SIGHUP)

    def _reap(self) -> None:
        while self._exit_status is None:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._service is not None and pid == self._service.child.pid:
                self._service_died(self._service, status)
            elif self._zygote is not None and pid == self._zygote.child.pid:
                self._zygote_died(self._zygote, status)
            else:
                # A worker whose zygote has died (its pidfd tells of its end), or what a worker has left behind;
                # whose parent it was is an orphan now.
                self._kill_orphans()

    def _kill_orphans(self) -> list[int]:
        """Kill the children that this process has but did not start; return them.

        They are what the program of a notification left behind whose keeper was killed: whoever else starts a
        program is ended by the kernel together with it.
        """
        own = {run.child.pid for run in (self._service, self._zygote) if run is not None}
        orphans = [pid for pid in children_of(os.getpid()) if pid not in own]
        for pid in orphans:
            # Its number is its own until it is waited for, which only this process does.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return orphans

    # --- the service ---

    def _start_service(self) -> None:
        self._service_waits_for_workers = False
        child, channel = self._start("service", outgoing=frames.MONITOR_TO_SERVICE, incoming=frames.SERVICE_TO_MONITOR)
        link = Link(
            "service", channel, reactor=self._reactor, on_frame=self._service_says, on_end=self._service_hung_up
        )
        self._service = _Run(child=child, link=link, state=ServiceState.STARTING)
        self._workforce.service_came(link)

    def _service_says(self, frame: object, descriptors: list[int]) -> None:
        run = self._service
        assert run is not None
        state = check(SERVICE_PERMITS, run.state, frame, descriptors, who="service")
        assert isinstance(state, ServiceState)
        run.state = state
        match frame:
            case frames.ServiceStopping(exit_status=status):
                self._leave(status & 0xFF)
            case _ if run.ended:
                pass  # it died with this still on the way; only why it ended is of interest now
            case frames.ServiceReady(socket_path=path):
                self._socket_path = path
                self._announce()
            case frames.SpawnWorker():
                self._workforce.spawn(frame, descriptors[0])
            case frames.KillWorker():
                self._workforce.kill(frame)

    def _service_hung_up(self) -> None:
        run = self._service
        if run is not None and not self._stopping:
            self._reactor.after("service hung up", _END_PATIENCE_S, lambda: run.child.signal(signal.SIGKILL))

    def _service_died(self, run: _Run, status: int) -> None:
        run.ended = True
        run.link.read()
        was_serving = run.state is not ServiceState.STARTING
        self._service = None
        self._socket_path = None
        self._workforce.service_left()
        self._reactor.cancel("service hung up")
        run.link.close()
        run.child.close()
        if self._stopping:
            self._exit_status = self._status_after_stop
            return
        self._reactor.after("workers linger", _END_PATIENCE_S, self._workforce.kill_left_behind)
        self._plan_restart("service", status, was_ready=was_serving or self._was_ready)

    def _workers_gone(self) -> None:
        self._reactor.cancel("workers linger")
        if self._service_waits_for_workers:
            self._start_service()

    def _restart_service(self) -> None:
        # A new service would have its workers write to files that the old ones still have open.
        if self._workforce.is_empty:
            self._start_service()
        else:
            self._service_waits_for_workers = True

    # --- the zygote ---

    def _start_zygote(self) -> None:
        child, channel = self._start("zygote", outgoing=frames.MONITOR_TO_ZYGOTE, incoming=frames.ZYGOTE_TO_MONITOR)
        link = Link("zygote", channel, reactor=self._reactor, on_frame=self._zygote_says, on_end=self._zygote_hung_up)
        self._zygote = _Run(child=child, link=link, state=ZygoteState.IMPORTING)

    def _zygote_says(self, frame: object, descriptors: list[int]) -> None:
        run = self._zygote
        assert run is not None
        state = check(ZYGOTE_PERMITS, run.state, frame, descriptors, who="zygote")
        assert isinstance(state, ZygoteState)
        run.state = state
        match frame:
            case frames.WorkerForked():
                self._workforce.forked(frame, descriptors[0])
            case frames.ForkFailed():
                self._workforce.fork_failed(frame)
            case frames.ZygoteReady() if not run.ended:
                self._workforce.zygote_came(run.link)
                self._announce()

    def _zygote_hung_up(self) -> None:
        run = self._zygote
        if run is not None:
            self._reactor.after("zygote hung up", _END_PATIENCE_S, lambda: run.child.signal(signal.SIGKILL))

    def _zygote_died(self, run: _Run, status: int) -> None:
        run.ended = True
        run.link.read()
        self._zygote = None
        self._workforce.zygote_left()
        self._reactor.cancel("zygote hung up")
        run.link.close()
        run.child.close()
        if not self._stopping:
            was_forking = run.state is ZygoteState.FORKING
            self._plan_restart("zygote", status, was_ready=was_forking or self._was_ready)

    # --- both ---

    def _start(self, name: str, **codecs: Codec) -> tuple[Child, Channel]:
        ours, theirs = Channel.pair()
        with theirs:
            child = children.start(self._programs[name], theirs.fileno())
        return child, Channel(ours, **codecs)

    def _plan_restart(self, name: str, status: int, *, was_ready: bool) -> None:
        end = f"the {name} {children.describe_end(status)}"
        if not was_ready and not os.WIFSIGNALED(status):
            # It ended by itself before it ever worked: it would do so again.
            say(f"fatal: {end} before it was ready")
            self._exit_status = 1
            return
        delay_s = self._restarts[name].delay_s(time.monotonic(), killed=children.was_killed(status))
        if delay_s is None:
            say(f"fatal: {end}, and did so too often within a minute")
            self._exit_status = 1
            return
        say(f"{end}; it is started again in {delay_s:.1f} s")
        again = {"service": self._restart_service, "zygote": self._start_zygote}[name]
        self._reactor.after(f"start {name}", delay_s, again)

    def _announce(self) -> None:
        zygote = self._zygote
        if self._socket_path is None or zygote is None or zygote.state is not ZygoteState.FORKING or self._stopping:
            return
        say(f"ready{' again' if self._was_ready else ''}, socket {self._socket_path}")
        self._was_ready = True
        self._notifier.tell_once("READY=1")

    # --- the end ---

    def _leave(self, exit_status: int) -> None:
        """End in order: with this status, once the service has ended."""
        self._status_after_stop = exit_status
        if self._stopping:
            return
        self._stopping = True
        self._workforce.stop_hiring()
        self._notifier.tell_once("STOPPING=1")
        if self._service is None:
            self._exit_status = exit_status
        else:
            self._reactor.after("stop", STOP_PATIENCE_S, self._stop_takes_too_long)

    def _stop_takes_too_long(self) -> None:
        say(f"the service has not ended after {STOP_PATIENCE_S:.0f} s and is killed")
        self._exit_status = self._status_after_stop

    def _end_everything(self) -> None:
        """Kill what still runs and wait until it has gone, so that a next start finds nobody."""
        runs = [run for run in (self._service, self._zygote) if run is not None]
        for run in runs:
            run.child.signal(signal.SIGKILL)
        self._workforce.kill_all()
        deadline = time.monotonic() + _KILL_PATIENCE_S
        left = _wait_for_ends({run.child.pidfd for run in runs} | set(self._workforce.pidfds), deadline)
        self._service = self._zygote = None
        while (orphans := self._kill_orphans()) and time.monotonic() < deadline:
            # Whoever has ended is waited for here: what he leaves behind is there in the next round.
            pidfds = {os.pidfd_open(pid) for pid in orphans}
            left = _wait_for_ends(pidfds, deadline)
            for pid in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            for pidfd in pidfds:
                os.close(pidfd)
        if left:
            say(f"{left} processes were killed, but have not ended")


def _wait_for_ends(pidfds: set[int], deadline: float) -> int:
    """Wait until these processes have ended; return how many have not."""
    waiting = set(pidfds)
    poll = select.poll()
    for pidfd in waiting:
        poll.register(pidfd, select.POLLIN)
    while waiting and (left_s := deadline - time.monotonic()) > 0:
        for pidfd, _events in poll.poll(left_s * 1000):
            poll.unregister(pidfd)
            waiting.discard(pidfd)
    return len(waiting)
