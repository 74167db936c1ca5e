"""What is published where, for whom and for how long (U50, U51)."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator

import pytest

from openbits.server.beneath import parse_url_path
from openbits.server.exchange import Head
from openbits.server.publications import (
    NotPublished,
    Prefix,
    Publication,
    Publications,
    check_descriptor,
    is_member,
    parse_prefix,
)


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def publications(clock: Clock) -> Iterator[Publications]:
    made = Publications(names_users=False, now=clock)
    yield made
    made.close()


def publish(
    publications: Publications,
    prefix: str,
    *,
    is_directory: bool = False,
    uid: int = 5,
    expires_at: float | None = None,
) -> Publication:
    made = Publication(
        prefix=parse_prefix(prefix),
        shown_prefix=prefix,
        path="/somewhere",
        fd=os.open("/", os.O_RDONLY),
        is_directory=is_directory,
        publisher_uid=uid,
        published_at=1_000.0,
        expires_at=expires_at,
    )
    try:
        publications.add(made, is_master=True)
    except NotPublished:
        os.close(made.fd)
        raise
    return made


def find(publications: Publications, path: str, *, authority: str = "x", scheme: str = "http") -> str | None:
    head = Head(method="GET", target=b"/", path=b"/", authority=authority, scheme=scheme)
    found = publications.find(head, parse_url_path(path.encode()))
    return None if found is None else found.shown_prefix


def test_the_most_special_prefix_counts(publications: Publications) -> None:
    publish(publications, "/a", is_directory=True)
    publish(publications, "/a/b", is_directory=True)
    publish(publications, "/a/b/file")
    assert find(publications, "/a/x") == "/a"
    assert find(publications, "/a/b/x") == "/a/b"
    assert find(publications, "/a/b/file") == "/a/b/file"
    # A file has nothing below it: what is asked for there lies in the directory.
    assert find(publications, "/a/b/file/x") == "/a/b"
    assert find(publications, "/ab") is None
    assert find(publications, "/") is None


def test_a_host_counts_with_its_port(publications: Publications) -> None:
    publish(publications, "http://Files.Example/x")
    publish(publications, "https://files.example:8443/y")
    assert find(publications, "/x", authority="files.example") is not None
    assert find(publications, "/x", authority="FILES.example:80") is not None
    assert find(publications, "/x", authority="files.example:8080") is None
    assert find(publications, "/x", authority="files.example", scheme="https") is None
    assert find(publications, "/y", authority="files.example:8443", scheme="https") is not None


def test_it_is_over_in_time(publications: Publications, clock: Clock) -> None:
    made = publish(publications, "/x", expires_at=1_010.0)
    clock.now = 1_009.9
    assert find(publications, "/x") == "/x"
    clock.now = 1_010.0
    assert find(publications, "/x") is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(made.fd)


def test_only_who_published_and_masters_take_back(publications: Publications) -> None:
    publish(publications, "/x", uid=5)
    with pytest.raises(NotPublished, match="uid 5"):
        publications.remove("/x", uid=6, is_master=False)
    publications.remove("/x", uid=5, is_master=False)
    publish(publications, "/x", uid=5)
    publications.remove("/x", uid=0, is_master=True)
    with pytest.raises(NotPublished, match="is not published"):
        publications.remove("/x", uid=0, is_master=True)


def test_one_thing_in_one_place(publications: Publications) -> None:
    publish(publications, "/x")
    for same in ["/x", "/x/", "/%78"]:
        with pytest.raises(NotPublished, match="published already"):
            publish(publications, same)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "x",
        "http://h",
        "http://h/",
        "ftp://h/x",
        "http://u@h/x",
        "http://h/x?y",
        "http://h/x#y",
        "/a//b",
        "/../x",
        "http://h:x/y",
        "/a\\b",
    ],
)
def test_prefixes_that_are_none(text: str) -> None:
    with pytest.raises(NotPublished):
        parse_prefix(text)


def test_a_prefix() -> None:
    assert parse_prefix("https://h/a/b/") == Prefix(components=(b"a", b"b"), scheme="https", host="h", port=443)


def test_what_a_publisher_may_hand_over(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    for path, flags, expected in [(file, os.O_RDONLY, False), (file, os.O_RDWR, False), (tmp_path, os.O_RDONLY, True)]:
        fd = os.open(path, flags)
        assert check_descriptor(fd) is expected
        os.close(fd)
    for bad, flags in [
        (file, os.O_WRONLY),
        (file, os.O_PATH),
        (tmp_path, os.O_PATH),
        (pathlib.Path("/dev/null"), os.O_RDONLY),
    ]:
        fd = os.open(bad, flags)
        with pytest.raises(NotPublished):
            check_descriptor(fd)
        os.close(fd)


def test_members_of_this_machines_groups() -> None:
    assert is_member("root", "root")
    assert not is_member("nobody", "root")
    assert not is_member(None, "root")
    assert not is_member("no-such-account", "root")
    assert not is_member("root", "no-such-group")
