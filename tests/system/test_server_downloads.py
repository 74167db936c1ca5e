"""bits-server as the other end of downloads: files, ranges, conditions, and what is never handed out."""

from __future__ import annotations

import concurrent.futures
import email
import hashlib
import os
import re
from collections.abc import Iterator

import pytest

from support.bits_server import BitsServer, running_bits_server
from support.raw_client import RawAnswer, RawClient

CONTENT = os.urandom(300_000)


@pytest.fixture(scope="module")
def server() -> Iterator[BitsServer]:
    with running_bits_server() as running:
        for name in ["file.bin", "page.html", "a b%ü.txt"]:
            with open(os.path.join(running.root, name), "wb") as file:
                file.write(CONTENT)
        with open(os.path.join(running.root, "empty"), "wb"):
            pass
        os.makedirs(os.path.join(running.root, "sub", ".hidden"))
        for name in [".secret", "sub/.hidden/file", "sub/plain"]:
            with open(os.path.join(running.root, name), "w", encoding="utf-8") as file:
                file.write("content")
        os.mkfifo(os.path.join(running.root, "fifo"))
        yield running
        assert running.log is not None
        assert "Traceback" not in running.log.text


@pytest.fixture
def client(server: BitsServer) -> Iterator[RawClient]:
    with RawClient(server.port) as raw:
        yield raw


def get(client: RawClient, path: str, *headers: str, method: str = "GET") -> RawAnswer:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]
    return client.ask("\r\n".join(lines).encode(), to_head=method == "HEAD")


def test_a_file_comes_with_what_a_resumption_needs(client: RawClient) -> None:
    answer = get(client, "/file.bin")
    assert (answer.status, answer.body) == (200, CONTENT)
    assert answer.get("accept-ranges") == "bytes"
    assert re.fullmatch(r'"[0-9a-f]+"', answer.get("etag") or "")
    assert (answer.get("last-modified") or "").endswith(" GMT")
    assert answer.get("content-type") == "application/octet-stream"
    head = get(client, "/file.bin", method="HEAD")
    assert [pair for pair in head.headers if pair[0] != "date"] == [
        pair for pair in answer.headers if pair[0] != "date"
    ]


def test_names_in_any_encoding(client: RawClient) -> None:
    for path in ["/a%20b%25%C3%BC.txt", "/%61%20b%25%c3%bc.txt", "/a%20b%25%C3%BC.txt?query=1"]:
        answer = get(client, path)
        assert (answer.status, answer.get("content-type")) == (200, "text/plain")
    assert get(client, "/page.html").get("x-content-type-options") == "nosniff"
    assert get(client, "/empty").body == b""


def test_a_range(client: RawClient) -> None:
    answer = get(client, "/file.bin", "Range: bytes=1000-1999")
    assert (answer.status, answer.get("content-range"), answer.body) == (
        206,
        "bytes 1000-1999/300000",
        CONTENT[1000:2000],
    )
    answer = get(client, "/file.bin", "Range: bytes=-5")
    assert (answer.status, answer.body) == (206, CONTENT[-5:])
    answer = get(client, "/file.bin", "Range: bytes=300000-")
    assert (answer.status, answer.get("content-range")) == (416, "bytes */300000")
    assert get(client, "/file.bin", "Range: bytes=0-4", method="HEAD").status == 200


def test_several_ranges(client: RawClient) -> None:
    answer = get(client, "/file.bin", "Range: bytes=5-9, 299990-, 0-1")
    assert answer.status == 206
    message = email.message_from_bytes(f"Content-Type: {answer.get('content-type')}\r\n\r\n".encode() + answer.body)
    parts = [
        (part["content-range"], part.get_payload(decode=True)) for part in message.walk() if not part.is_multipart()
    ]
    assert [place for place, _ in parts] == ["bytes 5-9/300000", "bytes 299990-299999/300000", "bytes 0-1/300000"]
    assert answer.body.count(CONTENT[5:10]) >= 1
    assert CONTENT[299_990:] in answer.body


def test_conditions(server: BitsServer, client: RawClient) -> None:
    first = get(client, "/file.bin")
    etag, date = first.get("etag"), first.get("last-modified")
    not_modified = get(client, "/file.bin", f"If-None-Match: {etag}")
    assert (not_modified.status, not_modified.get("etag"), not_modified.get("content-length")) == (304, etag, None)
    assert get(client, "/file.bin", f"If-Modified-Since: {date}").status == 304
    assert get(client, "/file.bin", "Range: bytes=0-9", f"If-Range: {etag}").status == 206
    assert get(client, "/file.bin", "Range: bytes=0-9", f"If-Range: {date}").status == 206
    assert get(client, "/file.bin", 'If-Match: "other"').status == 412
    path = os.path.join(server.root, "file.bin")
    found = os.stat(path)
    with open(path, "r+b") as file:
        file.write(CONTENT[:1])
    # The old date on a new content does not deceive.
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    changed = get(client, "/file.bin", "Range: bytes=0-9", f"If-Range: {etag}")
    assert (changed.status, len(changed.body)) == (200, len(CONTENT))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/sub",
        "/sub/",
        "/.secret",
        "/sub/.hidden/file",
        "/file.bin/",
        "/nothing",
        "/.bits-sessions",
        "/BITS-Sessions",
    ],
)
def test_what_does_not_exist_for_anybody_outside(client: RawClient, path: str) -> None:
    assert get(client, path).status == 404


def test_the_working_directory_is_never_served(server: BitsServer, client: RawClient) -> None:
    for name in os.listdir(os.path.join(server.root, ".bits-sessions")):
        assert get(client, f"/.bits-sessions/{name}").status == 404
        assert get(client, f"/%2ebits-sessions/{name}").status == 404


def test_only_regular_files(client: RawClient) -> None:
    assert get(client, "/fifo").status == 403


def test_a_file_that_shrinks_ends_the_connection(server: BitsServer) -> None:
    path = os.path.join(server.root, "shrinking")
    with open(path, "wb") as file:
        file.truncate(100_000_000)
    with RawClient(server.port) as client:
        client.send(b"GET /shrinking HTTP/1.1\r\nHost: x\r\n\r\n")
        head = client.read_head()
        assert head.get("content-length") == "100000000"
        os.truncate(path, 50_000_000)
        assert len(client.read_end()) < 100_000_000
    with RawClient(server.port) as client:
        assert get(client, "/sub/plain").body == b"content"


def test_many_at_once(server: BitsServer) -> None:
    with open(os.path.join(server.root, "big"), "wb") as file:
        file.write(CONTENT * 40)
    wanted = hashlib.sha256(CONTENT * 40).digest()

    def fetch(_number: int) -> bool:
        with RawClient(server.port) as client:
            return all(hashlib.sha256(get(client, "/big").body).digest() == wanted for _ in range(3))

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert all(pool.map(fetch, range(20)))


def test_without_downloads_nothing_is_handed_out() -> None:
    with running_bits_server(config="downloads = false\n") as server, RawClient(server.port) as client:
        with open(os.path.join(server.root, "file"), "w", encoding="utf-8") as file:
            file.write("content")
        assert get(client, "/file").status == 404
