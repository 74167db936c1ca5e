"""What notification command lines leave behind keeps no more than its share, and not for ever (N6, N10)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from openbits.core.events import FilesFetched
from openbits.core.model import Caller, Identity
from openbits.frames.monitor import KillWorker
from openbits.frames.operations import NoticeEnded, RunCommand
from openbits.service.configuration import Configuration, Notifications
from openbits.service.room import MOST_OF_ACCOUNT, PATIENCE_S
from support import virtual
from support.service import ALICE, FakeWorker, Service, running

LIMIT_S = 900
BOB = replace(ALICE, identity=Identity(uid=1001, gid=1001), name="bob")
Story = Callable[[Service], Awaitable[None]]


def play(story: Story) -> None:
    async def main() -> None:
        async with serving() as service:
            await story(service)

    virtual.run(main())


@asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    configuration = Configuration(notifications=Notifications(command_limit_s=LIMIT_S))
    async with running(configuration=configuration) as service:
        yield service


async def finished_job(service: Service, caller: Caller = ALICE) -> None:
    """A job that is done, and has a program run that ends at once and leaves another one behind."""
    job = await service.create(caller=caller, resume=False)
    await service.runtime.services.notify_commands.set(caller, job, "/usr/bin/tell", None)
    await service.manager.resume(caller, job)
    await virtual.rest()
    run = service.runtime.ledger.jobs[job].run
    service.runtime.ledger.post(job, FilesFetched(run=run, files=((0, 10),)))
    await virtual.rest()
    for keeper in keepers(service, caller):
        order = keeper.last(RunCommand)
        keeper.send(NoticeEnded(operation=order.operation, status=0))
    await virtual.rest()


def keepers(service: Service, caller: Caller = ALICE) -> list[FakeWorker]:
    """Who keeps a program, or what it has left behind."""
    return [
        worker
        for worker in service.monitor.workers
        if worker.is_alive and worker.identity.uid == caller.identity.uid and worker.count(RunCommand)
    ]


def test_n6_leftovers_take_no_more_than_their_accounts_share() -> None:
    async def story(service: Service) -> None:
        for _ in range(MOST_OF_ACCOUNT + 8):
            await finished_job(service)
        assert len(keepers(service)) == MOST_OF_ACCOUNT
        await finished_job(service, BOB)
        assert len(keepers(service, BOB)) == 1, "another account has a share of its own"
        keepers(service)[0].die()
        await virtual.rest()
        assert len(keepers(service)) == MOST_OF_ACCOUNT, "the next has its turn as soon as there is room"
        await asyncio.sleep(PATIENCE_S + 1)
        [told, *_] = [event for event in service.disk.events if event.event_id == 64]
        assert "leave nothing behind" in told.text

    play(story)


def test_n10_leftovers_that_hold_their_keeper_up_do_not_outlive_the_limit() -> None:
    async def story(service: Service) -> None:
        await finished_job(service)
        [keeper] = keepers(service)
        # Stopped by what it keeps, it neither ends it nor sees the end of its channel.
        keeper._loop.remove_reader(keeper._channel.fileno())
        await asyncio.sleep(LIMIT_S - 1)
        assert KillWorker(pid=keeper.pid) not in service.monitor.heard
        await asyncio.sleep(60)
        assert KillWorker(pid=keeper.pid) in service.monitor.heard

    play(story)


def test_a_keeper_that_ended_is_not_killed() -> None:
    async def story(service: Service) -> None:
        await finished_job(service)
        [keeper] = keepers(service)
        keeper.die()
        await asyncio.sleep(2 * LIMIT_S)
        assert KillWorker(pid=keeper.pid) not in service.monitor.heard

    play(story)


def test_what_fits_into_no_frame_is_a_failure_of_its_notice_alone() -> None:
    async def story(service: Service) -> None:
        service.runtime.notifications.messengers.body_of = lambda _job, _kind: "x" * 200_000
        job = await service.create(notify_url="http://hook.example/")
        run = service.runtime.ledger.jobs[job].run
        service.runtime.ledger.post(job, FilesFetched(run=run, files=((0, 10),)))
        await virtual.rest()
        assert service.gave_up == []
        assert "BG_E_STRING_TOO_LONG" in service.runtime.notifications.remark(service.job(job))

    play(story)
