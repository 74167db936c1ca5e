"""A policy in the whole service, in virtual time: hours that come and go, times that a policy sets (P1, P2, S6, R7)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from openbits.core.model import JobState, Priority
from openbits.service.policies import Policies
from support import virtual
from support.service import Service, running
from support.virtual import EPOCH, Clock

DAY_S = 86_400


def policies_of(service: Service, directory: Path, text: str) -> Policies:
    """Let the service have this policy from now on."""
    policies = service.runtime.policies
    (directory / "50.toml").write_text(text)
    (directory / "50.toml").chmod(0o644)
    directory.chmod(0o755)
    policies.directory = str(directory)
    policies.reload()
    return policies


def test_p1_a_job_that_nothing_happens_to_is_cancelled_after_the_days_of_the_policy(tmp_path: Path) -> None:
    async def main() -> None:
        async with running() as service:
            job = await service.create(resume=False)
            policies_of(service, tmp_path, "[jobs]\ninactivity_timeout_days = 3\n")
            await asyncio.sleep(3 * DAY_S - 60)
            assert service.job(job).state is JobState.SUSPENDED
            await asyncio.sleep(120)
            assert service.job(job).state is JobState.CANCELLED

    virtual.run(main())


def test_p2_s5_s6_a_job_waits_for_the_end_of_the_hours_and_one_timer_tells_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with running() as service:
            policies = policies_of(
                service,
                tmp_path,
                'timezone = "America/New_York"\n'
                "[max_internet_bandwidth]\nfrom_hour = 0\nto_hour = 12\nlimit_kbps = 0\n",
            )
            first = policies.in_force()
            assert first.until is not None
            if not first.limits.blocked:
                await asyncio.sleep(first.until - Clock.now() + 1)
            until = policies.in_force().until
            assert until is not None
            job = await service.create(resume=True)
            await virtual.rest()
            blocked = service.job(job)
            assert blocked.state is JobState.TRANSIENT_ERROR
            assert blocked.error is not None
            assert blocked.error.name == "BG_E_BLOCKED_BY_POLICY"
            assert blocked.retry_at is None
            await asyncio.sleep(until - Clock.now() - 1)
            assert service.job(job).state is JobState.TRANSIENT_ERROR
            await asyncio.sleep(2)
            assert service.job(job).state.is_active

    virtual.run(main())


def test_s6_a_network_that_comes_back_ends_no_block(tmp_path: Path) -> None:
    async def main() -> None:
        async with running() as service:
            policies_of(service, tmp_path, "[max_internet_bandwidth]\nlimit_kbps = 0\nlimit_outside_kbps = 0\n")
            job = await service.create(resume=True)
            service.runtime._network_changed(True)
            await virtual.rest()
            error = service.job(job).error
            assert error is not None
            assert error.name == "BG_E_BLOCKED_BY_POLICY"
            assert service.runtime.conditions.environment().blocked_priorities == {
                Priority.HIGH,
                Priority.NORMAL,
                Priority.LOW,
            }

    virtual.run(main())


def test_a_policy_without_hours_has_no_timer(tmp_path: Path) -> None:
    async def main() -> None:
        async with running() as service:
            policies = policies_of(service, tmp_path, "[quotas]\nmax_jobs_per_user = 4\n")
            assert policies._timer is None
            assert service.runtime.policies.effective().quotas.max_jobs_per_user == 4
            assert policies.loaded_at >= EPOCH

    virtual.run(main())
