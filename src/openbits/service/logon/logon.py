"""Who counts as logged on, and who wants to know when that changes (inventory I2; architecture, section 4)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from typing import Final

from openbits.core.model import AccountKind
from openbits.service.logon.source import Source

log = logging.getLogger(__name__)

START_PATIENCE_S: Final = 3.0
"""How long the service's start waits for a first answer; until there is one, nobody is logged on."""

Observer = Callable[[frozenset[int], frozenset[int]], None]


class Logon:
    """The log-on rule; `observers` are called with (came, went), both sets of uids, after every change.

    Where the source itself changes, from everybody to those that are known or back, the sets hold the
    uids among those that `concerned` gives: nobody can list everybody.
    """

    def __init__(self, make_source: Callable[[Callable[[], None]], Source]) -> None:
        self._source = make_source(self._changed)
        self._logged_on: frozenset[int] | None = frozenset()
        self._name = ""
        self._is_started = False
        self.observers: list[Observer] = []
        self.concerned: list[Callable[[], Iterable[int]]] = []

    def __repr__(self) -> str:
        known = "everybody" if self._logged_on is None else sorted(self._logged_on)
        return f"<Logon {self._source.name} logged_on={known}>"

    @property
    def logged_on(self) -> frozenset[int] | None:
        """The uids of the people who are logged on; None: everybody counts as logged on."""
        return self._logged_on

    @property
    def problem(self) -> str:
        """Why it is not known who is logged on, as a clause; empty when it is known."""
        return self._source.problem

    def is_logged_on(self, uid: int, kind: AccountKind = AccountKind.USER) -> bool:
        """Whether an account counts as logged on; those of services always do."""
        return kind is not AccountKind.USER or self._logged_on is None or uid in self._logged_on

    async def start(self) -> None:
        """Begin, and wait a moment for the first answer: who is logged on does not start as logged off."""
        self._source.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_PATIENCE_S):
                await self._source.ready.wait()
        self._logged_on = self._source.logged_on
        self._is_started = True
        self._tell_source()

    def close(self) -> None:
        """End; nobody is told of changes any more."""
        self.observers.clear()
        self._source.close()

    def health(self) -> str:
        """A sentence for `bits doctor`: which source is in force, and what it knows."""
        name, problem = self._source.name, self._source.problem
        if problem:
            match len(self._logged_on or ()):
                case 0:
                    until = ""
                case 1:
                    until = "; until it is, the one person who was logged on counts as logged on"
                case known:
                    until = f"; until it is, those {known} who were logged on count as logged on"
            return f"by {name}, but it is not known who is logged on: {problem}{until}"
        match self._logged_on:
            case None:
                return f"by {name}: everybody counts as logged on"
            case uids:
                return f"by {name}: {len(uids)} {'person is' if len(uids) == 1 else 'people are'} logged on"

    def _changed(self) -> None:
        if not self._is_started:
            return
        self._tell_source()
        before, after = self._logged_on, self._source.logged_on
        if before == after:
            return
        self._logged_on = after
        came, went = self._difference(before, after)
        log.info("action=logon came=%s went=%s", sorted(came), sorted(went))
        for observer in tuple(self.observers):
            observer(came, went)

    def _difference(
        self, before: frozenset[int] | None, after: frozenset[int] | None
    ) -> tuple[frozenset[int], frozenset[int]]:
        if before is not None and after is not None:
            return after - before, before - after
        everybody = frozenset(uid for concerned in self.concerned for uid in concerned())
        if before is None and after is not None:
            return frozenset(), everybody - after
        assert before is not None
        return everybody - before, frozenset()

    def _tell_source(self) -> None:
        if self._source.name != self._name:
            self._name = self._source.name
            log.info("action=logon-provider provider=%s", self._name)
