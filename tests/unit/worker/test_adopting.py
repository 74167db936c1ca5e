"""Temporary files from hand to hand, and ways that are walked (I4, I8): the part of the workers."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openbits.frames.operations import AdoptFile, FileResult
from openbits.worker import adopting, files
from openbits.worker.adopting import LOST, Adoption, open_for_reading, sync_directories
from openbits.worker.walking import walk

CONTENT = os.urandom(300_000)


@pytest.fixture(autouse=True)
def the_umask_stays() -> Iterator[None]:
    """A worker sets the umask of its process, which here is that of all tests that come after."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
    files._current_umask = -1


def source_of(tmp_path: Path, content: bytes = CONTENT) -> int:
    path = tmp_path / "source"
    path.write_bytes(content)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return os.open(path, os.O_RDONLY)


def adopt(
    target: Path, source: int, length: int, *, is_cancelled: Callable[[], bool] = lambda: False
) -> list[FileResult]:
    order = AdoptFile(operation=1, temporary_name=str(target), length=length, umask=0o027)
    adoption = Adoption(order, source, is_cancelled)
    return adoption.begin() or adoption.copy()


def is_closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


# --- adopting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 1000, len(CONTENT)])
def test_i8_exactly_the_bytes_that_count_are_taken(tmp_path: Path, length: int) -> None:
    source = source_of(tmp_path)
    target = tmp_path / ".BITnew.tmp"
    assert adopt(target, source, length) == []
    assert target.read_bytes() == CONTENT[:length]
    found = target.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime) == (0o640, 1_600_000_000)
    assert is_closed(source)


def test_i8_many_files_are_synced_together(tmp_path: Path) -> None:
    assert sync_directories([str(tmp_path), "/"]) == []
    [result] = sync_directories([str(tmp_path), str(tmp_path / "missing")])
    assert result.error == "ERROR_PATH_NOT_FOUND"


def test_i8_large_files_are_copied_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopting, "_SLICE_BYTES", 1000)
    assert adopt(tmp_path / "new", source_of(tmp_path), 12_345) == []
    assert (tmp_path / "new").read_bytes() == CONTENT[:12_345]


def test_i8_too_short_a_file_is_a_lost_one(tmp_path: Path) -> None:
    source = source_of(tmp_path, b"short")
    [result] = adopt(tmp_path / "new", source, 6)
    assert result.error == LOST
    assert is_closed(source)
    assert not (tmp_path / "new").exists()


def test_i8_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A pipe would hold the thread for as long as its owner likes."""
    reading, writing = os.pipe()
    [result] = adopt(tmp_path / "new", reading, 0)
    os.close(writing)
    assert result.error == LOST
    assert is_closed(reading)


def test_i8_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = source_of(tmp_path)
    [result] = adopt(tmp_path / "missing" / "new", source, 10)
    assert result.error == "ERROR_PATH_NOT_FOUND"
    assert is_closed(source)


def test_i8_a_copy_that_is_cut_off_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopting, "_SLICE_BYTES", 1000)
    turns = iter([False, False, True])
    [result] = adopt(tmp_path / "new", source_of(tmp_path), 100_000, is_cancelled=lambda: next(turns))
    assert result.error == "E_FAIL"
    assert not (tmp_path / "new").exists()


def test_i8_a_source_that_shrinks_meanwhile_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopting, "_SLICE_BYTES", 1000)

    def shrink() -> bool:
        os.truncate(tmp_path / "source", 500)
        return False

    [result] = adopt(tmp_path / "new", source_of(tmp_path), 100_000, is_cancelled=shrink)
    assert result.error == "ERROR_WRITE_FAULT"
    assert not (tmp_path / "new").exists()


# --- giving --------------------------------------------------------------------------------------


def test_i8_a_file_of_ours_is_opened_for_reading_only(tmp_path: Path) -> None:
    (tmp_path / "own").write_bytes(b"12345")
    answer, fd = open_for_reading(7, str(tmp_path / "own"), 5)
    assert fd is not None
    with os.fdopen(fd, "rb") as file:
        assert (answer.operation, answer.error, file.read()) == (7, "", b"12345")
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x")


def plant_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def plant_hard_link(path: Path) -> None:
    (path.parent / "other").write_bytes(b"12345")
    os.link(path.parent / "other", path)


PLANTS: dict[str, Callable[[Path], object]] = {
    "link": plant_link,
    "hard link": plant_hard_link,
    "fifo": os.mkfifo,
    "directory": Path.mkdir,
    "short": lambda path: path.write_bytes(b"1"),
    "nothing": lambda _path: None,
}


@pytest.mark.parametrize("plant", PLANTS)
def test_i8_what_is_not_the_file_that_was_left_is_lost(tmp_path: Path, plant: str) -> None:
    PLANTS[plant](tmp_path / "own")
    answer, fd = open_for_reading(1, str(tmp_path / "own"), 5)
    assert (answer.error, fd) == (LOST, None)


# --- walking ---------------------------------------------------------------------------------------


def test_i4_a_way_without_links_is_its_end(tmp_path: Path) -> None:
    assert walk(f"{tmp_path}//./") == [str(tmp_path)]
    assert walk("/") == ["/"]


def test_i4_links_count_where_they_stand_and_where_they_lead(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "one").symlink_to("real/../real")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    ends = walk(str(tmp_path / "two" / "deep"))
    assert ends == [str(tmp_path / "two"), str(tmp_path / "one"), str(tmp_path / "real" / "deep")]


def test_i4_what_is_not_there_is_taken_as_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/nowhere/at")
    assert walk(str(tmp_path / "link" / "all")) == [str(tmp_path / "link"), "/nowhere/at/all"]


def test_i4_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert 1 < len(walk(str(tmp_path / "a"))) < 50


def test_i4_names_of_any_bytes_are_walked(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n \xe9")
    os.mkdir(odd)
    assert walk(odd) == [odd]
