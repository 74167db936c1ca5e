"""What a connected program may leave unread (J18, N5)."""

from __future__ import annotations

import asyncio

import pytest

from openbits.core.model import Caller, JobState
from openbits.errors import BitsError
from openbits.service.listeners import MOST_UNREAD, Listeners
from support.jobs import ALICE, job_in

CALLER = Caller(identity=ALICE.identity, name=ALICE.name, kind=ALICE.kind, is_administrator=False)


def test_a_program_that_reads_nothing_is_let_go() -> None:
    """Otherwise another program of its account, setting and clearing the interface, would fill the service's memory."""

    async def play() -> None:
        job = job_in(JobState.SUSPENDED)
        looks: list[str] = []
        listeners = Listeners(job={job.id: job}.get, changed=looks.append, late=lambda *_: None)
        deaf, other = listeners.open(CALLER), listeners.open(CALLER)
        for turn in range(MOST_UNREAD + 1):
            listeners.attach(CALLER, job.id, deaf.name)
            if turn == MOST_UNREAD - 1:
                assert listeners.statistics()["listening_programs"] == 2, "so many may wait"
            listeners.attach(CALLER, job.id, other.name)
            while not other.messages.empty():
                other.messages.get_nowait()
        assert listeners.statistics()["listening_programs"] == 1
        with pytest.raises(BitsError) as raised:
            listeners.attach(CALLER, job.id, deaf.name)
        assert raised.value.name == "RPC_E_DISCONNECTED"
        assert deaf.messages.qsize() <= MOST_UNREAD + 2

    asyncio.run(play())
