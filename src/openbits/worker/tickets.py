"""Kerberos in a worker: the computer's tickets come and go through here, and tokens are made, all in one helper thread.

The rule: the loop never waits for a name server or a KDC, and tickets never have a name in the file system.  What
the service hands out is sealed and the same for all accounts; a worker uses a copy of its own.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Final, TypeVar

from openbits.frames.operations import ObtainTickets, TicketsObtained
from openbits.worker import gss, kerberos
from openbits.worker.helper import Helper
from openbits.worker.loop import Loop

_T = TypeVar("_T")

SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
TOKEN_TIMEOUT_S: Final = 60.0
"""libkrb5 gives KDCs that are silent half a minute or so; what takes longer hangs, and the job is told so."""


class Tickets:
    """The credential cache that was handed to this worker, if any, and the thread that speaks Kerberos."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._helper = Helper(loop, "kerberos")
        self._fd = -1
        """Belongs to the thread, in which it is replaced: nothing else may get its number while it is in use."""
        self.principal = ""
        """The computer's name, once its tickets were handed over."""

    def __repr__(self) -> str:
        return f"<Tickets {self.principal or 'none'}>"

    def take(self, principal: str, fd: int) -> None:
        """Use these tickets of the computer from now on; the descriptor becomes this object's."""
        self.principal = principal
        self._helper.submit(lambda: self._replace(fd))

    def _replace(self, fd: int) -> None:
        try:
            content = os.pread(fd, kerberos.CACHE_LIMIT_BYTES, 0)
        finally:
            os.close(fd)
        before, self._fd = self._fd, _in_memory(content)
        if before >= 0:
            os.close(before)

    def obtain(self, order: ObtainTickets, answer: Callable[[TicketsObtained, tuple[int, ...]], None]) -> None:
        """Get the computer's tickets; `answer` gets the frame and, unless it reports an error, a sealed file."""

        def work() -> tuple[TicketsObtained, int]:
            try:
                tickets = kerberos.obtain_machine_tickets(order.keytab, order.principal)
            except kerberos.NoTickets as error:
                refusal = TicketsObtained(
                    operation=order.operation, error="BG_E_INVALID_CREDENTIALS", message=str(error)
                )
                return refusal, -1
            fd = _in_memory(tickets.cache)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            obtained = TicketsObtained(
                operation=order.operation, principal=tickets.principal, expires_s=tickets.expires_s
            )
            return obtained, fd

        def done(result: tuple[TicketsObtained, int] | OSError) -> None:
            if isinstance(result, OSError):
                raise result
            frame, fd = result
            if fd < 0:
                answer(frame, ())
                return
            try:
                answer(frame, (fd,))
            finally:
                os.close(fd)

        self._helper.submit(work, done)

    def make_token(self, host: str, *, of_computer: bool, done: Callable[[bytes | gss.NoToken], None]) -> None:
        """Make a token for the web server on `host`, from the computer's tickets or from the account's own."""

        def work() -> bytes | gss.NoToken:
            try:
                if not of_computer:
                    return gss.make_token(host, None)
                if self._fd < 0:
                    # Never the cache that an account with this uid may have: root's own is an administrator's.
                    return gss.NoToken(gss.Trouble.NO_TICKET, "no tickets were handed over")
                return gss.make_token(host, f"FILE:/proc/self/fd/{self._fd}")
            except gss.NoToken as error:
                return error

        self.perform(work, done)

    def submit(self, work: Callable[[], None]) -> None:
        """Run something in the thread whose end nobody waits for."""
        self._helper.submit(work)

    def perform(self, work: Callable[[], _T | gss.NoToken], done: Callable[[_T | gss.NoToken], None]) -> None:
        """Run something in the thread; `done` gets what it returns.

        A library that hangs, on a credential cache that does not answer say, costs the job its token and not its life.
        """
        is_answered = False

        def deliver(result: _T | gss.NoToken | OSError) -> None:
            nonlocal is_answered
            deadline.cancel()
            if is_answered:
                return
            is_answered = True
            if isinstance(result, OSError):
                raise result
            done(result)

        clause = f"Kerberos did not answer within {TOKEN_TIMEOUT_S:g} s"
        deadline = self._loop.call_later(TOKEN_TIMEOUT_S, lambda: deliver(gss.NoToken(gss.Trouble.OTHER, clause)))
        self._helper.submit(work, deliver)


def _in_memory(content: bytes) -> int:
    # Without MFD_NOEXEC_SEAL, which kernels before 6.3 refuse; nothing executes it anyway.
    fd = os.memfd_create("tickets", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.fchmod(fd, 0o600)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    return fd
