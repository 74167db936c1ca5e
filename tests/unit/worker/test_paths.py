"""The way to a directory: which links are followed (D8)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from openbits.worker.paths import ForeignLink, open_directory


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "file").write_text("x", encoding="ascii")
    (tmp_path / "relative").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative" / "inner")
    (tmp_path / "up").symlink_to(f"../{tmp_path.name}/./real//inner/..")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    return tmp_path


def where(path: Path | str) -> str:
    fd = open_directory(str(path))
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("real", "real"),
        ("real//inner/", "real/inner"),
        ("relative", "real"),
        ("relative/inner", "real/inner"),
        ("absolute", "real/inner"),
        ("up", "real"),
        ("up/inner", "real/inner"),
        ("absolute/..", "real"),
    ],
)
def test_ones_own_links_lead_where_the_kernel_says(tree: Path, path: str, wanted: str) -> None:
    assert where(f"{tree}/{path}") == f"{tree}/{wanted}" == os.path.realpath(f"{tree}/{path}")


def test_the_root_directory() -> None:
    assert where("/") == "/"


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("loop", errno.ELOOP),
        ("file", errno.ENOTDIR),
        ("file/x", errno.ENOTDIR),
        ("dangling", errno.ENOENT),
        ("nothing", errno.ENOENT),
        ("x" * 300, errno.ENAMETOOLONG),
    ],
)
def test_what_cannot_be_opened(tree: Path, path: str, number: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        open_directory(f"{tree}/{path}")
    assert raised.value.errno == number
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="gives links away, which only root can")
@pytest.mark.parametrize("path", ["foreign", "foreign/inner", "behind"])
def test_a_link_of_another_account_is_not_followed(tree: Path, path: str) -> None:
    (tree / "foreign").symlink_to("real")
    (tree / "behind").symlink_to("foreign/inner")
    os.chown(tree / "foreign", 12345, 12345, follow_symlinks=False)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ForeignLink) as raised:
        open_directory(f"{tree}/{path}")
    assert raised.value.filename == f"{tree}/foreign"
    assert len(os.listdir("/proc/self/fd")) == before
