"""A service with nothing to do does nothing: no process of it is switched to, however many jobs lie in its queue."""

from __future__ import annotations

import time

import pytest

from openbits.client import calls
from support.accounts import needs_root
from support.daemon import running_daemon, wait_until
from support.switches import has_settled, switches

JOBS = 1_000
WINDOW_S = 10.0
CONFIG = """
[worker]
idle_s = 1
"""


@needs_root
@pytest.mark.parametrize("mode", ["system", "user"])
def test_an_idle_service_never_wakes_up(mode: str) -> None:
    """Issue, "Fast": 1,000 suspended jobs, open connections of clients, and not one switch in ten seconds."""
    with running_daemon(mode, config=CONFIG) as daemon:
        jobs = [
            calls.job_in(f"job {number}", files=[calls.file_in("http://127.0.0.1:9/x", f"/tmp/x{number}")])
            for number in range(JOBS)
        ]
        assert len(daemon.session.perform(calls.create_jobs(jobs))) == JOBS
        wait_until(lambda: not daemon.workers(), "the worker that looked at the directory to leave", timeout_s=60)
        wait_until(lambda: has_settled(daemon), "the service to come to rest")
        before = switches(daemon.processes())
        assert len(before) >= 3
        time.sleep(WINDOW_S)
        assert switches(daemon.processes()) == before
