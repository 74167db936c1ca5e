"""Watching paths that come and go (I2: hints)."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from openbits.service.logon import inotify, pathwatch
from openbits.service.logon.inotify import Inotify, split_events
from openbits.service.logon.pathwatch import PathWatch

TIMEOUT_S = 20.0


class Heard:
    """Counts hints."""

    def __init__(self) -> None:
        self.count = 0
        self._came = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self._came.set()

    async def after(self, act: Callable[[], object]) -> None:
        """Do something, and wait for the hint that it leads to."""
        self._came.clear()
        act()
        async with asyncio.timeout(TIMEOUT_S):
            await self._came.wait()


def test_a_path_is_followed_through_everything_that_can_happen_to_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c"

    async def main() -> None:
        heard = Heard()
        watch = PathWatch(str(path), mask=inotify.MOVED_TO | inotify.DELETE, on_change=heard)
        watch.start()
        assert "absent" in repr(watch)
        await heard.after(path.parent.parent.mkdir)
        await heard.after(lambda: path.mkdir(parents=True))
        assert "there" in repr(watch)
        (path / "new").touch()
        await heard.after(lambda: (path / "new").rename(path / "x"))
        await heard.after(lambda: path.rename(tmp_path / "elsewhere"))
        assert "absent" in repr(watch)
        await heard.after(lambda: (tmp_path / "elsewhere").rename(path))
        await heard.after((path / "x").unlink)
        await heard.after(lambda: shutil.rmtree(tmp_path / "a"))
        await heard.after(lambda: path.mkdir(parents=True))
        (path / "new").touch()
        await heard.after((path / "new").unlink)
        watch.close()

    asyncio.run(main())


def test_a_directory_that_somebody_holds_open_is_seen_to_be_made_anew(tmp_path: Path) -> None:
    """The kernel says that a directory itself is gone only when nobody has it open any more."""
    path = tmp_path / "d"
    path.mkdir()

    async def main() -> None:
        heard = Heard()
        watch = PathWatch(str(path), mask=inotify.MOVED_TO, on_change=heard)
        watch.start()
        held = os.open(path, os.O_RDONLY)
        await heard.after(path.rmdir)
        await heard.after(path.mkdir)
        (tmp_path / "x").touch()
        await heard.after(lambda: (tmp_path / "x").rename(path / "x"))
        os.close(held)
        watch.close()

    asyncio.run(main())


def test_a_socket_that_is_bound_anew_is_heard_of(tmp_path: Path) -> None:
    path = tmp_path / "bus" / "socket"

    async def main() -> None:
        heard = Heard()
        watch = PathWatch(str(path), mask=0, on_change=heard)
        watch.start()
        await heard.after(path.parent.mkdir)
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as sock:
                await heard.after(lambda sock=sock: sock.bind(str(path)))  # type: ignore[misc]  # mypy infers no default
            await heard.after(path.unlink)
        watch.close()

    asyncio.run(main())


def test_what_happens_beside_the_path_is_not_heard(tmp_path: Path) -> None:
    path = tmp_path / "d" / "file"
    path.parent.mkdir()
    path.touch()

    async def main() -> None:
        heard = Heard()
        watch = PathWatch(str(path), mask=inotify.MODIFY, on_change=heard)
        watch.start()
        (path.parent / "other").write_text("x", encoding="ascii")
        (path.parent / "other").unlink()
        (tmp_path / "file").write_text("x", encoding="ascii")
        await heard.after(lambda: path.write_text("x", encoding="ascii"))
        assert heard.count == 1
        watch.close()
        path.write_text("y", encoding="ascii")

    asyncio.run(main())


@pytest.mark.parametrize("number", [23, 24, 28])
def test_a_kernel_without_watches_left_is_a_problem_and_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse() -> Inotify:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(pathwatch, "Inotify", refuse)

    async def main() -> None:
        watch = PathWatch(str(tmp_path), mask=inotify.MODIFY, on_change=lambda: None)
        watch.start()
        assert os.strerror(number) in watch.problem
        watch.close()

    asyncio.run(main())


def test_a_way_that_grows_while_it_is_being_watched_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made between the look at the path and the watch of the directory above it."""
    path = tmp_path / "a" / "b" / "c"

    class Racing(Inotify):
        def add(self, watched: str, mask: int) -> int:
            try:
                return super().add(watched, mask)
            except FileNotFoundError:
                # Too late for the watch of this directory, and too early for that of the one above.
                os.makedirs(watched, exist_ok=True)
                raise

    monkeypatch.setattr(pathwatch, "Inotify", Racing)

    async def main() -> None:
        heard = Heard()
        watch = PathWatch(str(path), mask=inotify.MOVED_TO, on_change=heard)
        watch.start()
        path.mkdir(exist_ok=True)
        (tmp_path / "x").touch()
        await heard.after(lambda: (tmp_path / "x").rename(path / "x"))
        assert "there" in repr(watch)
        watch.close()

    asyncio.run(main())


def test_lost_events_are_a_hint(tmp_path: Path) -> None:
    async def main() -> None:
        heard = Heard()
        watch = PathWatch(str(tmp_path), mask=0, on_change=heard)
        watch.start()

        class Overflowing(Inotify):
            def read(self) -> list[inotify.Event]:  # type: ignore[override]  # an iterable is enough
                list(super().read())
                return [inotify.Event(watch=-1, mask=inotify.OVERFLOW, name=b"")]

        assert watch._inotify is not None
        watch._inotify.__class__ = Overflowing
        watch._read()
        assert heard.count == 1
        assert "there" in repr(watch)
        watch.close()

    asyncio.run(main())


def test_events_are_split_at_their_lengths() -> None:
    data = b"\x01\0\0\0\x02\0\0\0\0\0\0\0\x10\0\0\0name\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x00\x04\0\0\0\0\0\0\0\0\0\0"
    assert [(event.watch, event.mask, event.name) for event in split_events(data)] == [
        (1, inotify.MODIFY, b"name"),
        (2, inotify.DELETE_SELF, b""),
    ]


def test_a_path_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    watcher = Inotify()
    with pytest.raises(FileNotFoundError, match="nothing"):
        watcher.add(str(tmp_path / "nothing"), inotify.MODIFY)
    watcher.close()
