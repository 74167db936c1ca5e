"""SetCredentials, RemoveCredentials, and what a run is told of them (A2, I10, I11, J35, J36)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from openbits.core.model import CredentialSlot, Identity, JobState
from openbits.errors import BitsError
from openbits.frames.network import ImplicitSpec
from openbits.frames.worker import StartTransfer
from openbits.service.configuration import Configuration, Credentials
from openbits.service.secrets import KEY_BYTES, Secrets
from openbits.service.workers import HANDED_OUT_S
from support import virtual
from support.service import ALICE, ROOT, Service, running, taken

BOB = replace(ALICE, identity=Identity(uid=1001, gid=1001), name="bob")
PAIR = {"target": "server", "scheme": "negotiate"}
NEITHER: dict[str, Any] = {"user_name": None, "password": None}


BASIC = {"target": "server", "scheme": "basic"}
MARKER = "Tr0ub4dor-marker"


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


# --- a name and a password ---------------------------------------------------------------------------


def test_j35_given_to_the_run_before_its_files_and_written_down_sealed() -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.credentials
            job = await service.create(resume=False)
            password = MARKER * 3 + "ä€😀" * 20_000
            await calls.set_credentials(ALICE, job, **BASIC, user_name="alice", password=password)
            await calls.set_credentials(
                ALICE, job, target="proxy", scheme="ntlm", user_name="EXAMPLE\\alice", password=""
            )
            assert MARKER not in repr(service.disk)
            assert "alice" not in repr(service.job(job).explicit_credentials)
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            given = taken(service.worker)
            server = [frame for frame in given if frame.target == "server"]
            assert [frame.last for frame in server] == [False] * (len(server) - 1) + [True]
            assert len(server) > 1
            assert "".join(frame.password for frame in server) == password
            assert {(frame.scheme, frame.user_name) for frame in server} == {("basic", "alice")}
            [proxy] = given[len(server) :]
            assert (proxy.target, proxy.scheme, proxy.user_name, proxy.password, proxy.last) == (
                "proxy",
                "ntlm",
                "EXAMPLE\\alice",
                "",
                True,
            )
            assert MARKER not in repr(given)

    virtual.run(story())


def test_j37_others_after_401_and_the_run_has_those_alone() -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.credentials
            job = await service.create(resume=False)
            await calls.set_credentials(ALICE, job, **BASIC, user_name="alice", password="wrong")
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            await service.say(service.worker.ended("BG_E_HTTP_ERROR_401", context=5, message="no", index=0))
            assert service.state(job) is JobState.ERROR
            await calls.set_credentials(ALICE, job, **BASIC, user_name="alice", password="right")
            assert service.state(job) is JobState.ERROR, "only Resume begins again"
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert [frame.password for frame in taken(service.worker)] == ["right"]

    virtual.run(story())


def test_j35_one_pair_is_implicit_or_explicit() -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.credentials
            job = await service.create(resume=False)
            await calls.set_credentials(ALICE, job, **PAIR, user_name="alice", password="x")
            await calls.set_credentials(ALICE, job, **PAIR, **NEITHER)
            assert service.job(job).explicit_credentials == ()
            assert service.job(job).implicit_credentials == {CredentialSlot("server", "negotiate")}
            await calls.set_credentials(ALICE, job, **PAIR, user_name="alice", password="x")
            assert service.job(job).implicit_credentials == frozenset()
            assert (await calls.remove_credentials(ALICE, job, **PAIR)).result == "S_OK"
            assert (await calls.remove_credentials(ALICE, job, **PAIR)).result == "S_FALSE"
            assert (await calls.remove_credentials(ALICE, job, target="proxy", scheme="passport")).result == "S_FALSE"
            assert service.job(job).explicit_credentials == ()

    virtual.run(story())


def test_a2_root_sets_no_password_for_others() -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.credentials
            job = await service.create(resume=False)
            for caller in (BOB, ROOT):
                with pytest.raises(BitsError, match="E_ACCESSDENIED") as caught:
                    await calls.set_credentials(caller, job, **BASIC, user_name="x", password=MARKER)
                assert MARKER not in str(caught.value)
                for name, value in (("use_netrc", True), ("use_netrc", False), ("use_stored_credentials", "proxy")):
                    with pytest.raises(BitsError, match="E_ACCESSDENIED"):
                        await service.manager.change_settings(caller, job, {name: value})
            await service.manager.change_settings(ALICE, job, {"use_netrc": True})
            assert service.job(job).settings.use_netrc

    virtual.run(story())


def test_i14_another_key_ends_the_job_in_error_until_they_are_set_again() -> None:
    async def story() -> None:
        async with running() as service:
            calls = service.runtime.services.credentials
            job = await service.create(resume=False, custom_headers="X-Token: t", priority="foreground")
            await calls.set_credentials(ALICE, job, **BASIC, user_name="alice", password=MARKER)
            await service.manager.set_remote_name(ALICE, job, 0, f"http://u:{MARKER}@origin.example/0")
            for holder in (service.runtime.terms, calls, service.runtime.services.headers, service.runtime):
                holder._secrets = Secrets(b"k" * KEY_BYTES, "another key")
            is_well, text = service.runtime.terms.health(service.runtime.ledger.jobs.values())
            assert (is_well, "one job has credentials that it does not open" in text) == (False, True)
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            other = await service.create()
            error = service.job(job).error
            assert error is not None
            assert (service.state(job), error.name) == (JobState.ERROR, "BG_E_INVALID_CREDENTIALS")
            for what in ("custom headers", "credentials for server and basic", "remote name of file 0", "resume"):
                assert what in error.message
            assert service.state(other) is JobState.CONNECTING
            assert service.runtime.services.headers.shown(ALICE, service.job(job)) is None
            with pytest.raises(BitsError, match="BG_E_INVALID_CREDENTIALS"):
                service.runtime.services.headers.get(ALICE, job)
            # What is in the way goes away as it came.
            await calls.set_credentials(ALICE, job, **BASIC, user_name="alice", password="again")
            await service.runtime.services.headers.set(ALICE, job, None)
            await service.manager.set_remote_name(ALICE, job, 0, "http://@origin.example/0")
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert [frame.password for frame in taken(service.worker)] == ["again"]

    virtual.run(story())


def test_i14_a_worker_that_knew_a_password_ends_with_its_last_work() -> None:
    """Others stay for a while, for the next job."""

    async def story() -> None:
        async with running() as service:
            plain = await service.create()
            await service.say(service.worker.started(), service.worker.done(0), service.worker.ended())
            assert service.state(plain) is JobState.TRANSFERRED
            first = service.worker
            assert [each.is_alive for each in service.monitor.workers] == [True]
            job = await service.create(resume=False)
            calls = service.runtime.services.credentials
            await calls.set_credentials(ALICE, job, **BASIC, user_name="alice", password=MARKER)
            await service.manager.resume(ALICE, job)
            await virtual.rest()
            assert service.worker is first
            await service.say(first.started(), first.done(0), first.ended())
            assert service.state(job) is JobState.TRANSFERRED
            await asyncio.sleep(HANDED_OUT_S + 0.1)
            await virtual.rest()
            assert [each.is_alive for each in service.monitor.workers] == [False]
            # What is left to be done is done by another one.
            assert (await service.manager.complete(ALICE, job)).result == "S_OK"
            assert service.worker is not first

    virtual.run(story())
