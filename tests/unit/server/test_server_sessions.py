"""U1–U12, U40–U45: uploads against real files, without a network: restarts, power cuts, clients that speak twice."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from openbits.server import dealing, sessions
from openbits.server.settings import Settings, parse_settings
from openbits.server.storage import StorageError
from openbits.server.uploads import Uploads
from openbits.upload.packets import PROTOCOL, render_guid
from support.exchanges import FakeExchange

CREATE = {"BITS-Packet-Type": "Create-Session", "BITS-Supported-Protocols": render_guid(PROTOCOL)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    made.mkdir()
    return made


def settings(root: Path, **properties: Any) -> Settings:
    table = {"upload_enabled": True, **properties}
    return parse_settings({"root": str(root), "directory": {"/": table}}, source="test")


class Client:
    """Says packets to a server without a network between."""

    def __init__(self, uploads: Uploads, path: str = "/file.bin", **who: Any) -> None:
        self.uploads = uploads
        self.path = path
        self.who = who
        self.id = ""

    async def say(self, headers: dict[str, str], body: bytes = b"", path: str | None = None) -> FakeExchange:
        exchange = FakeExchange(path or self.path, headers, body, **self.who)
        await self.uploads.answer(exchange)
        return exchange

    async def create(self) -> FakeExchange:
        found = await self.say(CREATE)
        self.id = found.headers.get("bits-session-id", "")
        return found

    def fragment(self, offset: int, body: bytes, total: int, path: str | None = None) -> FakeExchange:
        headers = {
            "BITS-Packet-Type": "Fragment",
            "BITS-Session-Id": self.id,
            "Content-Range": f"bytes {offset}-{offset + len(body) - 1}/{total}",
        }
        return FakeExchange(path or self.path, headers, body, **self.who)

    async def send(self, offset: int, body: bytes, total: int) -> tuple[int, int | None]:
        exchange = self.fragment(offset, body, total)
        await self.uploads.answer(exchange)
        received = exchange.headers.get("bits-received-content-range")
        return exchange.status, int(received) if received is not None else None

    async def end(self, kind: str = "Close-Session") -> FakeExchange:
        return await self.say({"BITS-Packet-Type": kind, "BITS-Session-Id": self.id})


@contextlib.asynccontextmanager
async def serving(found: Settings) -> AsyncIterator[Uploads]:
    uploads = Uploads(found)
    uploads.start()
    try:
        yield uploads
    finally:
        await uploads.close()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what a timer of the server does; nobody tells of it."""
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 -- see above
            await asyncio.sleep(0.02)


def parts(root: Path) -> list[str]:
    return sorted(name for name in os.listdir(root / ".bits-sessions") if not name.startswith("sessions."))


# --- one upload --------------------------------------------------------------------------------


def test_u42_file_appears_with_the_last_fragment_and_nothing_is_left_after_close(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads)
            assert (await client.create()).status == 200
            assert await client.send(0, b"hello ", 11) == (200, 6)
            assert os.listdir(root) == [".bits-sessions"]
            assert await client.send(6, b"world", 11) == (200, 11)
            assert (root / "file.bin").read_bytes() == b"hello world"
            assert (await client.end()).status == 200
            assert parts(root) == []
            assert (await client.end()).headers["bits-error-code"] == "0x8020001f"

    run(test)


def test_working_directory_is_private_and_the_file_has_the_mode_that_the_umask_leaves(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads)
            await client.create()
            await client.send(0, b"x", 1)

    before = os.umask(0o027)
    try:
        run(test)
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / ".bits-sessions").stat().st_mode) == 0o700
    assert stat.S_IMODE((root / "file.bin").stat().st_mode) == 0o640


def test_directory_with_group_bit_gives_its_group(root: Path) -> None:
    os.chown(root, -1, 4242)
    root.chmod(0o2775)

    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads)
            await client.create()
            await client.send(0, b"x", 1)

    run(test)
    assert (root / "file.bin").stat().st_gid == 4242


@pytest.mark.parametrize("form", ["bytes 0-18446744073709551615/0", "bytes */0", "bytes 0-0/0", "Bytes 0--1/0"])
def test_empty_file_in_every_form(root: Path, form: str) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads)
            await client.create()
            said = await client.say(
                {"BITS-Packet-Type": "fragment", "BITS-Session-Id": client.id, "Content-Range": form}
            )
            assert (said.status, said.headers["bits-received-content-range"]) == (200, "0")
            assert (root / "file.bin").read_bytes() == b""

    run(test)


def test_overlap_keeps_what_came_first(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads)
            await client.create()
            await client.send(0, b"aaaa", 10)
            assert await client.send(2, b"bbbb", 10) == (200, 6)
            assert await client.send(0, b"cccccccccc", 10) == (200, 10)
            assert (root / "file.bin").read_bytes() == b"aaaabbcccc"

    run(test)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/a/../b", 400),
        ("/%2e%2e/b", 400),
        ("/a%2Fb", 400),
        ("/a%00b", 400),
        ("//b", 400),
        ("/", 400),
        ("/dir", 400),
        ("/dir/", 400),
        ("/file.bin/", 400),
        ("/none/b", 404),
        ("/link/b", 404),
        ("/.bits-sessions/x", 403),
        ("/.BITS-Sessions/x", 403),
        ("/.bits-sessions", 403),
        ("/BITS-Sessions/x", 403),
        ("/dir/bits-sessions", 403),
        ("/pipe", 403),
    ],
)
def test_paths_that_are_no_destination(root: Path, path: str, status: int) -> None:
    (root / "dir").mkdir()
    (root / "link").symlink_to("/tmp")
    os.mkfifo(root / "pipe")

    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads, path)
            found = await client.create()
            assert found.status == status
            assert len(uploads._sessions) == 0

    run(test)


def test_session_belongs_to_its_url_and_its_user(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads, user="alice")
            await client.create()
            for other in (Client(uploads, user="bob"), Client(uploads), Client(uploads, "/other", user="alice")):
                other.id = client.id
                assert await other.send(0, b"evil", 4) == (500, None)
            stranger = Client(uploads, user="alice")
            stranger.id = client.id.lower()
            assert (await stranger.send(0, b"evil", 4))[0] == 500, "ids are compared exactly"
            assert await client.send(0, b"good", 4) == (200, 4)
        assert (root / "file.bin").read_bytes() == b"good"

    run(test)


# --- publishing --------------------------------------------------------------------------------


def test_u8_existing_file_is_refused_at_create_and_when_publishing(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:
            first, second = Client(uploads), Client(uploads)
            await first.create()
            await second.create()
            assert await first.send(0, b"first", 5) == (200, 5)
            assert (await second.send(0, b"other", 5))[0] == 403
            assert (root / "file.bin").read_bytes() == b"first"
            assert (await Client(uploads).create()).status == 403

    run(test)


def test_u8_overwriting_replaces_in_one_step_and_a_link_as_a_link(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (root / "file.bin").symlink_to(outside)

    async def test() -> None:
        async with serving(settings(root, allow_overwrites=True)) as uploads:
            for body in (b"one", b"two"):
                client = Client(uploads)
                assert (await client.create()).status == 200
                assert await client.send(0, body, 3) == (200, 3)
                assert (root / "file.bin").read_bytes() == body
                assert not (root / "file.bin").is_symlink()

    run(test)
    assert outside.read_bytes() == b"precious"


def test_directory_that_became_a_link_is_not_followed_when_publishing(root: Path, tmp_path: Path) -> None:
    (root / "d").mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()

    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads, "/d/f")
            await client.create()
            (root / "d").rmdir()
            (root / "d").symlink_to(outside)
            assert (await client.send(0, b"x", 1))[0] == 404
            assert list(outside.iterdir()) == []

    run(test)


def test_fifty_uploads_to_one_name_one_wins_none_mixes(root: Path) -> None:
    async def one(uploads: Uploads, number: int) -> int:
        client = Client(uploads)
        await client.create()
        body = bytes([number]) * 3000
        for offset in range(0, 2000, 1000):
            await client.send(offset, body[offset : offset + 1000], 3000)
        status, _ = await client.send(2000, body[2000:], 3000)
        return status

    async def test() -> None:
        async with serving(settings(root)) as uploads:
            statuses = await asyncio.gather(*(one(uploads, number) for number in range(50)))
            assert sorted(statuses) == [200] + [403] * 49
            found = (root / "file.bin").read_bytes()
            assert found == bytes([statuses.index(200)]) * 3000

    run(test)


# --- bodies that do not come -------------------------------------------------------------------


def test_prefix_of_a_broken_body_is_kept_and_said(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads)
            await client.create()
            broken = client.fragment(0, b"0123456789", 20)
            broken.cut_after = 4
            await uploads.answer(broken)
            assert not broken.is_answered
            assert await client.send(10, b"x" * 10, 20) == (416, 4)
            assert await client.send(4, b"456789" + b"x" * 10, 20) == (200, 20)
            assert (root / "file.bin").read_bytes() == b"0123456789" + b"x" * 10

    run(test)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_said_with_what_is_kept(root: Path, code: int) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads)
            await client.create()
            full = client.fragment(0, b"0123456789", 20)
            full.write_error = OSError(code, os.strerror(code))
            await uploads.answer(full)
            assert (full.status, full.headers["bits-error-code"]) == (500, "0x80070070")
            assert full.headers["bits-received-content-range"] == "5"
            assert await client.send(5, b"56789" + b"x" * 10, 20) == (200, 20)

    run(test)


def test_file_that_no_disk_can_hold_is_refused_before_its_first_byte(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads)
            await client.create()
            early = client.fragment(0, b"x", 2**60)
            await uploads.answer(early)
            assert (early.status, early.headers["bits-error-code"]) == (500, "0x80070070")
            assert parts(root) == [], "nothing half-made is left"

    run(test)


def test_newer_request_takes_over_and_nothing_mixes(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads)
            await client.create()
            stuck = client.fragment(0, b"a" * 10, 10)
            stuck.cut_after, stuck.hold = 4, asyncio.Event()
            first = asyncio.ensure_future(uploads.answer(stuck))
            await stuck.is_held.wait()
            assert await client.send(0, b"b" * 10, 10) == (200, 10)
            await first
            assert (stuck.status, stuck.headers["bits-received-content-range"]) == (416, "4")
            assert (root / "file.bin").read_bytes() == b"aaaabbbbbb"
            assert uploads.statistics() == {"sessions": 1, "busy": 0}

    run(test)


def test_cancel_takes_over_from_a_fragment_that_hangs(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads)
            await client.create()
            stuck = client.fragment(0, b"a" * 10, 10)
            stuck.cut_after, stuck.hold = 4, asyncio.Event()
            first = asyncio.ensure_future(uploads.answer(stuck))
            await stuck.is_held.wait()
            assert (await client.end("Cancel-Session")).status == 200
            await first
            assert parts(root) == []

    run(test)


def test_many_at_once_on_one_session_end_in_one_whole_file(root: Path) -> None:
    body = bytes(range(256)) * 40

    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads)
            await client.create()
            found = await asyncio.gather(*(client.send(0, body, len(body)) for _ in range(10)))
            assert (200, len(body)) in found
            assert {status for status, _ in found} <= {200, 416}
            assert (root / "file.bin").read_bytes() == body

    run(test)


# --- restarts ----------------------------------------------------------------------------------


def test_sessions_are_found_again_with_what_their_files_hold(root: Path) -> None:
    found = settings(root)

    async def test() -> None:
        async with serving(found) as uploads:
            client = Client(uploads, user="alice")
            await client.create()
            await client.send(0, b"01234", 10)
        async with serving(found) as uploads:
            client.uploads = uploads
            assert await client.send(7, b"789", 10) == (416, 5)
            assert await client.send(5, b"5", 11) == (400, 5), "the total is remembered"
            assert await client.send(5, b"56789", 10) == (200, 10)
        async with serving(found) as uploads:
            client.uploads = uploads
            assert await client.send(5, b"56789", 10) == (200, 10), "the last answer may have been lost"
            assert (await client.end()).status == 200
        assert (root / "file.bin").read_bytes() == b"0123456789"
        async with serving(found) as uploads:
            client.uploads = uploads
            assert await client.send(5, b"56789", 10) == (500, None)

    run(test)


def test_power_cut_leaves_what_was_durable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dealing, "CHECKPOINT_BYTES", 8)
    found = settings(root)

    async def test() -> None:
        async with serving(found) as uploads:
            client = Client(uploads)
            await client.create()
            await client.send(0, b"01234567", 20)
            await uploads._tasks.wait_finished(5)
            await client.send(8, b"89", 20)
        monkeypatch.setattr(sessions, "_boot_id", lambda: "another boot")
        async with serving(found) as uploads:
            client.uploads = uploads
            assert await client.send(10, b"x" * 10, 20) == (416, 8)
        # A second start in the same boot cuts nothing any more.
        async with serving(found) as uploads:
            client.uploads = uploads
            assert (await client.send(8, b"89012345678", 20))[0] == 200
        async with serving(found) as uploads:
            client.uploads = uploads
            assert await client.send(20, b"", 20) == (416, 19)

    run(test)


def test_file_published_just_before_a_crash_is_done(root: Path) -> None:
    found = settings(root)

    async def test() -> None:
        async with serving(found) as uploads:
            client = Client(uploads)
            await client.create()
            await client.send(0, b"01234", 10)
            # The crash: the intent is durable, the rename is done, and nothing after it was written down.
            record = uploads._sessions.find(client.id)
            assert record is not None
            monkey = pytest.MonkeyPatch()
            monkey.setattr(uploads._sessions, "note", lambda record: None)
            assert await client.send(5, b"56789", 10) == (200, 10)
            monkey.undo()
        async with serving(found) as uploads:
            client.uploads = uploads
            assert await client.send(5, b"56789", 10) == (200, 10)
            assert (await client.end()).status == 200
        assert (root / "file.bin").read_bytes() == b"0123456789"

    run(test)


def test_strays_are_deleted_at_start_and_nothing_else(root: Path) -> None:
    found = settings(root)

    async def test() -> None:
        async with serving(found):
            pass
        for name in (f"{'0' * 32}.part", f"{'0' * 32}.reply", "notes.txt"):
            (root / ".bits-sessions" / name).write_bytes(b"x")
        async with serving(found):
            assert parts(root) == ["notes.txt"]

    run(test)


def test_second_server_on_one_working_directory_is_refused(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root)):
            with pytest.raises(StorageError, match="is in use by another server"):
                Uploads(settings(root))

    run(test)


def test_working_directory_of_somebody_else_is_refused(root: Path) -> None:
    (root / ".bits-sessions").mkdir()
    os.chown(root / ".bits-sessions", 4242, 4242)
    with pytest.raises(StorageError, match="belongs to uid 4242"):
        Uploads(settings(root))


def test_damaged_journal_is_an_error_that_says_what_to_do(root: Path) -> None:
    (root / ".bits-sessions").mkdir(0o700)
    (root / ".bits-sessions" / "sessions.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageError, match="move it away"):
        Uploads(settings(root))


def test_journal_that_cannot_be_written_makes_no_session(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:

            def fail(changes: object, *, is_durable: bool) -> None:
                raise OSError(errno.ENOSPC, "full")

            monkey = pytest.MonkeyPatch()
            monkey.setattr(uploads._journal, "_commit", fail)
            client = Client(uploads)
            found = await client.create()
            assert (found.status, found.headers["bits-error-code"]) == (500, "0x80070070")
            assert len(uploads._sessions) == 0
            monkey.undo()
            assert (await client.create()).status == 200

    run(test)


# --- limits ------------------------------------------------------------------------------------


def test_u1_disabled_uploads_are_501_whatever_is_said(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root, upload_enabled=False)) as uploads:
            client = Client(uploads)
            for headers in (CREATE, {"BITS-Packet-Type": "Ping"}, {}, {"BITS-Packet-Type": "Fragment"}):
                found = await client.say(headers)
                assert (found.status, found.headers["bits-error-code"]) == (501, "0x80070005")

    run(test)


def test_u2_session_without_progress_is_gone_at_once_and_its_files_with_the_cleanup(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root, session_timeout=1)) as uploads:
            client, other = Client(uploads), Client(uploads, "/other")
            await client.create()
            await client.send(0, b"x", 2)
            await other.create()
            await asyncio.sleep(0.6)
            assert await other.send(0, b"x", 3) == (200, 1), "progress begins the time anew"
            await asyncio.sleep(0.6)
            assert await client.send(1, b"x", 2) == (500, None)
            assert await other.send(1, b"x", 3) == (200, 2)
            await until(lambda: not parts(root))
            assert len(uploads._sessions) == 0

    run(test)


def test_u2_bytes_that_came_before_a_break_are_progress(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root, session_timeout=1)) as uploads:
            client = Client(uploads)
            await client.create()
            long = client.fragment(0, b"0123456789", 20)
            long.cut_after, long.hold = 4, asyncio.Event()
            first = asyncio.ensure_future(uploads.answer(long))
            await long.is_held.wait()
            await asyncio.sleep(1.1)
            broken = uploads._turns[uploads._sessions.find(client.id).key]  # type: ignore[union-attr] # it is there
            assert broken.receiving is not None
            broken.receiving.cancel()
            await asyncio.wait((first,))
            assert await client.send(10, b"x" * 10, 20) == (416, 4)

    run(test)


def test_u2_time_goes_on_while_the_server_does_not_run(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with serving(settings(root, session_timeout=100)) as uploads:
            client = Client(uploads)
            await client.create()
            await client.send(0, b"x", 2)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 101)
        async with serving(settings(root, session_timeout=100)) as uploads:
            client.uploads = uploads
            assert await client.send(1, b"x", 2) == (500, None)
        assert parts(root) == []

    run(test)


def test_u11_cleanup_deletes_the_newest_sessions_above_the_limit(root: Path) -> None:
    properties = {
        "number_of_sessions_limit": 2,
        "cleanup_use_default": False,
        "cleanup_units": "minutes",
        "cleanup_count": 1,
    }

    async def test() -> None:
        async with serving(settings(root, **properties)) as uploads:
            mine = [Client(uploads, f"/f{number}") for number in range(4)]
            for client in mine:
                assert (await client.create()).status == 200, "nobody is turned away at the door"
            other = Client(uploads, "/other", host="192.0.2.2")
            await other.create()
            uploads._cleanup._run()
            await uploads._cleanup._tasks.wait_finished(5)
            assert [(await client.send(0, b"x", 1))[0] for client in mine] == [200, 200, 500, 500]
            assert (await other.send(0, b"x", 1))[0] == 200

    run(test)


def test_open_sessions_have_a_limit_of_their_own(root: Path) -> None:
    document = {"root": str(root), "maximum_open_sessions": 1, "directory": {"/": {"upload_enabled": True}}}

    async def test() -> None:
        async with serving(parse_settings(document, source="test")) as uploads:
            client = Client(uploads)
            await client.create()
            found = await Client(uploads, "/b").create()
            assert (found.status, found.headers["retry-after"]) == (503, "60")
            assert "bits-error-code" not in found.headers
            await client.end("Cancel-Session")
            assert (await Client(uploads, "/b").create()).status == 200

    run(test)


def test_a_session_that_is_spoken_to_again_is_not_cleaned_up(root: Path) -> None:
    """Between the look at a session and its end a request may have begun: it would be left without its file."""

    async def test() -> None:
        async with serving(settings(root)) as uploads:
            client = Client(uploads)
            await client.create()
            await client.send(0, b"x", 2)
            record = uploads._sessions.find(client.id)
            assert record is not None
            async with uploads._turn(record.key):
                await uploads._end(record, "too-many")
            assert (await client.send(1, b"y", 2))[0] == 200
            assert (root / "file.bin").read_bytes() == b"xy"

    run(test)


def test_one_client_does_not_take_the_places_of_all_others(root: Path) -> None:
    """U11 is enforced by a cleanup that may be hours away; the limit of all sessions holds now."""
    table = {"upload_enabled": True, "number_of_sessions_limit": 2}
    document = {"root": str(root), "maximum_open_sessions": 10, "directory": {"/": table}}

    async def test() -> None:
        async with serving(parse_settings(document, source="test")) as uploads:
            greedy = [await Client(uploads, f"/g{number}", user="greedy").create() for number in range(12)]
            assert [found.status for found in greedy] == [200] * 5 + [503] * 7
            others = [Client(uploads, "/o", user=f"user{number}") for number in range(3)]
            assert [(await client.create()).status for client in (*others, *others)] == [200] * 5 + [503]

    run(test)


def test_idle_sessions_hold_no_descriptor_and_no_task(root: Path) -> None:
    async def test() -> None:
        async with serving(settings(root)) as uploads:
            before = len(os.listdir("/proc/self/fd"))
            for number in range(100):
                client = Client(uploads, f"/f{number}")
                await client.create()
                await client.send(0, b"x", 2)
            assert len(os.listdir("/proc/self/fd")) == before
            assert len(asyncio.all_tasks()) <= 2

    run(test)
