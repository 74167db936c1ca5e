"""The path of a URL becomes names of directory entries or nothing; opening follows no link (issue: path tricks)."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

import pytest

from openbits.server import beneath
from openbits.server.beneath import UnfitPath, open_beneath, open_directory, open_parent, open_regular, parse_url_path


@pytest.fixture(params=["openat2", "one by one"])
def root(request: pytest.FixtureRequest, tmp_path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    if request.param == "one by one":
        monkeypatch.setattr(beneath, "_has_openat2", lambda: False)
    elif not beneath._has_openat2():
        pytest.skip("this kernel has no openat2")
    os.makedirs(os.path.join(tmp_path, "root", "sub"))
    outside = os.path.join(tmp_path, "outside")
    with open(outside, "wb") as file:
        file.write(b"secret")
    with open(os.path.join(tmp_path, "root", "sub", "file"), "wb") as file:
        file.write(b"inside")
    os.symlink(outside, os.path.join(tmp_path, "root", "link"))
    os.symlink("sub", os.path.join(tmp_path, "root", "inner"))
    os.mkfifo(os.path.join(tmp_path, "root", "fifo"))
    fd = os.open(os.path.join(tmp_path, "root"), os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    ("raw", "components", "ends_with_slash"),
    [
        (b"/", (), True),
        (b"/a", (b"a",), False),
        (b"/a/b/", (b"a", b"b"), True),
        (b"/a%20b", (b"a b",), False),
        (b"/%C3%A4", ("ä".encode(),), False),
        (b"/%252e%252e", (b"%2e%2e",), False),
        (b"/...", (b"...",), False),
        (b"/.hidden", (b".hidden",), False),
        (b"/a%3Fb", (b"a?b",), False),
        (b"/" + b"x" * 255, (b"x" * 255,), False),
    ],
)
def test_a_path_is_decoded_once(raw: bytes, components: tuple[bytes, ...], ends_with_slash: bool) -> None:
    path = parse_url_path(raw)
    assert (path.components, path.ends_with_slash) == (components, ends_with_slash)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"a",
        b"*",
        b"http://x/a",
        b"//",
        b"//a",
        b"/a//b",
        b"/.",
        b"/..",
        b"/../a",
        b"/a/../b",
        b"/a/./b",
        b"/%2e%2e/a",
        b"/%2E%2e",
        b"/.%2e",
        b"/a%2fb",
        b"/..%2fa",
        b"/..%5ca",
        b"/..\\a",
        b"/a%5Cb",
        b"/a%00",
        b"/a%00.txt",
        b"/a%0a",
        b"/a%7f",
        b"/a%1b",
        b"/%c0%ae%c0%ae",
        b"/%c0%af",
        b"/%e0%80%af",
        b"/%f0%80%80%af",
        b"/%ff",
        b"/%ed%a0%80",
        b"/%",
        b"/%2",
        b"/%zz",
        b"/%u002e",
        b"/a#b",
        b"/" + b"x" * 256,
        b"/" + b"%41" * 256,
        b"/x" * 257,
    ],
)
def test_what_could_mean_something_else_is_refused(raw: bytes) -> None:
    with pytest.raises(UnfitPath):
        parse_url_path(raw)


def test_opening_gives_the_file_that_is_named(root: int) -> None:
    fd, found = open_regular(root, (b"sub", b"file"))
    with os.fdopen(fd, "rb") as file:
        assert file.read() == b"inside"
    assert stat.S_ISREG(found.st_mode)


def test_no_link_is_followed_not_even_one_that_stays_below(root: int) -> None:
    for components in [(b"link",), (b"inner", b"file"), (b"inner",)]:
        with pytest.raises(OSError, check=lambda error: error.errno in (errno.ELOOP, errno.ENOTDIR)):
            os.close(open_beneath(root, components, os.O_RDONLY))
    with pytest.raises(OSError, check=lambda error: error.errno == errno.ELOOP):
        os.close(open_beneath(root, (b"link",), os.O_PATH))
    with pytest.raises(OSError, check=lambda error: error.errno in (errno.ELOOP, errno.EEXIST)):
        os.close(open_beneath(root, (b"link",), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


@pytest.mark.parametrize(
    "components", [(b"..",), (b"sub", b".."), (b".",), (b"",), (b"sub/file",), (b"/etc",), (b"a\0",)]
)
def test_names_that_are_paths_are_refused_even_after_parsing(root: int, components: tuple[bytes, ...]) -> None:
    with pytest.raises(UnfitPath):
        open_beneath(root, components, os.O_RDONLY)


def test_only_regular_files_are_handed_out(root: int) -> None:
    with pytest.raises(IsADirectoryError):
        open_regular(root, (b"sub",))
    with pytest.raises(PermissionError):
        open_regular(root, (b"fifo",))
    with pytest.raises(FileNotFoundError):
        open_regular(root, (b"sub", b"nothing"))
    with pytest.raises(NotADirectoryError):
        open_regular(root, (b"sub", b"file", b"x"))


def test_the_parent_and_the_name_can_make_a_file(root: int) -> None:
    parent, name = open_parent(root, (b"sub", b"new"))
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent))
    os.close(parent)
    fd = open_beneath(root, (b"sub", b"new"), os.O_RDONLY)
    os.close(fd)
    with pytest.raises(UnfitPath):
        open_parent(root, ())
    os.close(open_directory(root, ()))


def test_descriptors_are_not_inherited(root: int) -> None:
    fd = open_beneath(root, (b"sub", b"file"), os.O_RDONLY)
    assert not os.get_inheritable(fd)
    os.close(fd)
