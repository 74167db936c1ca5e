"""Which paths callers may name, when what they see is known, hidden, or changes under the question (I4, I8)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openbits.core.model import AccountKind, Caller, Identity
from openbits.errors import BitsError
from openbits.service.mounts import LARGEST_TABLE_BYTES, Paths, Tables, read_table, read_tables
from openbits.service.worker import WorkerGone
from openbits.service.workers import WorkerPool

PERSON = Caller(
    identity=Identity(uid=1000, gid=1000), name="alice", kind=AccountKind.USER, is_administrator=False, pid=10
)
SERVICE = replace(PERSON, name="dave", kind=AccountKind.LOCAL_SERVICE)
ROOT = b"27 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
PRIVATE = ROOT + b"30 27 0:40 / /tmp rw - tmpfs private rw\n"
SESSION = ROOT + b"33 27 0:43 / /run/user/1000 rw - tmpfs tmpfs rw\n"


class Walker:
    """A pool of one worker, which finds no links."""

    ask: Any = WorkerPool.ask

    def __init__(self, *, deaths: int = 0) -> None:
        self.walked: list[list[str]] = []
        self._deaths = deaths

    async def get(self, _identity: Identity) -> Walker:
        return self

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        yield

    async def walk(self, paths: list[str]) -> list[list[str]]:
        self.walked.append(paths)
        if len(self.walked) <= self._deaths:
            raise WorkerGone
        return [[path] for path in paths]


def problem(caller: Caller, *paths: str, tables: Tables, walker: Walker | None = None) -> str | None:
    async def read(pid: int) -> Tables:
        assert pid == caller.pid
        return tables

    pool: Any = walker or Walker()
    return asyncio.run(Paths(pool, read=read).problem(caller, caller.as_owner(), paths))


def test_a_person_in_the_services_namespace_costs_no_walk() -> None:
    walker = Walker()
    assert problem(PERSON, "/run/user/1000/x", tables=(SESSION, SESSION), walker=walker) is None
    assert walker.walked == []


def test_rule_4_a_services_path_is_walked_and_judged() -> None:
    walker = Walker()
    refused = problem(SERVICE, "/srv/x", "/run/user/1000/x", "/srv/x", tables=(SESSION, SESSION), walker=walker)
    assert refused is not None
    assert "/run/user/1000 (tmpfs)" in refused
    assert walker.walked == [["/srv/x", "/run/user/1000/x"]]


@pytest.mark.parametrize("caller", [PERSON, SERVICE])
def test_i8_another_place_is_refused_to_everybody(caller: Caller) -> None:
    refused = problem(caller, "/tmp/x", tables=(ROOT, PRIVATE))
    assert refused is not None
    assert "/tmp/x" in refused
    assert problem(caller, "/srv/x", tables=(ROOT, PRIVATE)) is None


def test_who_cannot_be_seen_is_refused_as_a_service_and_believed_as_a_person() -> None:
    assert problem(PERSON, "/tmp/x", tables=(ROOT, None)) is None
    refused = problem(SERVICE, "/tmp/x", tables=(ROOT, None))
    assert refused is not None
    assert "cannot be seen" in refused


def test_no_paths_are_no_question() -> None:
    assert problem(SERVICE, tables=(None, None)) is None


def test_a_worker_that_dies_is_asked_again_and_not_for_ever() -> None:
    assert problem(SERVICE, "/srv/x", tables=(ROOT, ROOT), walker=Walker(deaths=2)) is None
    with pytest.raises(BitsError):
        problem(SERVICE, "/srv/x", tables=(ROOT, ROOT), walker=Walker(deaths=9))


def test_a_table_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    for name, size in (("1", 100), ("2", LARGEST_TABLE_BYTES), ("3", LARGEST_TABLE_BYTES + 1), ("4", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mountinfo").write_bytes(b"x" * size)
    found = [read_table(name, proc=str(tmp_path)) for name in ("1", "2", "3", "4", "5")]
    assert [None if table is None else len(table) for table in found] == [100, LARGEST_TABLE_BYTES, None, None, None]


def test_ones_own_table_is_the_services() -> None:
    ours, theirs = asyncio.run(read_tables(os.getpid()))
    assert ours == theirs
    assert ours
    assert asyncio.run(read_tables(2**22 + 1))[1] is None
