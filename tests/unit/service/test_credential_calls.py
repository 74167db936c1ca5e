"""SetCredentials, RemoveCredentials, and what a run is told of them (A2, I10, I11, J35, J36)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openbits.core.model import CredentialSlot, Identity, JobState
from openbits.errors import BitsError
from openbits.frames.network import ImplicitSpec
from openbits.frames.worker import StartTransfer
from openbits.service.configuration import Configuration, Credentials
from support import virtual
from support.service import ALICE, ROOT, Service, running

BOB = replace(ALICE, identity=Identity(uid=1001, gid=1001), name="bob")
PAIR = {"target": "server", "scheme": "negotiate"}
NEITHER: dict[str, Any] = {"user_name": None, "password": None}


def told(service: Service) -> ImplicitSpec:
    return service.worker.last(StartTransfer).implicit


def test_j35_j36_set_and_removed_and_told_to_the_run() -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.credentials
            job = await service.create(resume=False)
            assert (await calls.set_credentials(ALICE, job, **PAIR, **NEITHER)).result == "S_OK"
            assert service.job(job).implicit_credentials == {CredentialSlot("server", "negotiate")}
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert told(service) == ImplicitSpec(server=True, account="alice")
            # A run that may no longer prove who asks ends, and the next one knows.
            assert (await calls.remove_credentials(ALICE, job, **PAIR)).result == "S_OK"
            await virtual.rest()
            await service.say(service.worker.ended())
            assert told(service) == ImplicitSpec(account="alice")
            assert (await calls.remove_credentials(ALICE, job, **PAIR)).result == "S_FALSE"

    virtual.run(story())


def test_a2_neither_another_account_nor_an_administrator() -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.credentials
            job = await service.create(resume=False)
            for caller in (BOB, ROOT):
                with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                    await calls.set_credentials(caller, job, **PAIR, **NEITHER)
                with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                    # Also with what is wrong anyway: who may not ask learns nothing.
                    await calls.remove_credentials(caller, job, target="x", scheme="y")
            with pytest.raises(BitsError, match="BG_E_NOT_FOUND"):
                await calls.set_credentials(ALICE, "no such job", **PAIR, **NEITHER)
            assert service.job(job).implicit_credentials == frozenset()

    virtual.run(story())


def test_j35_ended_job_refuses() -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.credentials
            job = await service.create(resume=False)
            await service.manager.cancel(ALICE, job)
            assert service.state(job) is JobState.CANCELLED
            with pytest.raises(BitsError, match="BG_E_INVALID_STATE"):
                await calls.set_credentials(ALICE, job, **PAIR, **NEITHER)
            with pytest.raises(BitsError, match="BG_E_INVALID_STATE"):
                await calls.remove_credentials(ALICE, job, **PAIR)

    virtual.run(story())


@pytest.mark.parametrize("policy", [0, 1, 2])
def test_i11_policy_is_read_when_a_run_begins(policy: int) -> None:
    async def story() -> None:
        configuration = Configuration(credentials=Credentials(use_lm_compat=policy))
        async with running(configuration=configuration) as service:
            await service.create()
            assert told(service) == ImplicitSpec(server=policy < 2, proxy=policy < 2, account="alice")

    virtual.run(story())


def test_computer_without_tickets_runs_all_the_same() -> None:
    """Root's job is told why there are none: here the worker that is asked for them ends."""

    async def story() -> None:
        async with running(configuration=Configuration(credentials=Credentials(use_lm_compat=0))) as service:
            service.monitor.on_worker = lambda worker: worker.die() if not worker.identity.groups else worker.be_ready()
            await service.create(caller=replace(ROOT, identity=Identity(uid=0, gid=0, groups=(0,))))
            spec = next(worker for worker in service.monitor.workers if worker.is_alive).last(StartTransfer).implicit
            assert spec.is_computer
            assert spec.trouble.startswith("the computer has no Kerberos credentials: ")

    virtual.run(story())
