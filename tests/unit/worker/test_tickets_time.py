"""A Kerberos library that hangs does not hang the job (J37)."""

from __future__ import annotations

import threading

import pytest

from openbits.worker import gss, tickets
from openbits.worker.loop import Loop
from openbits.worker.tickets import Tickets


@pytest.mark.parametrize("hangs", [True, False])
def test_j37_a_library_that_hangs_costs_the_token_and_answers_once(
    monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    goes_on = threading.Event()
    if not hangs:
        goes_on.set()

    def make_token(_host: str, _cache: str | None) -> bytes:
        assert goes_on.wait(20)
        return b"token"

    monkeypatch.setattr(gss, "make_token", make_token)
    monkeypatch.setattr(tickets, "TOKEN_TIMEOUT_S", 0.05 if hangs else 20.0)
    loop = Loop()
    answers: list[bytes | gss.NoToken] = []
    kerberos = Tickets(loop)

    def note(answer: bytes | gss.NoToken) -> None:
        answers.append(answer)
        goes_on.set()
        # What the library says too late comes before this, and changes nothing.
        kerberos._helper.submit(lambda: None, lambda _: loop.stop())

    kerberos.make_token("server.example", of_computer=False, done=note)
    loop.run()
    loop.close()
    if hangs:
        [answer] = answers
        assert isinstance(answer, gss.NoToken)
        assert "did not answer" in answer.text
    else:
        assert answers == [b"token"]
