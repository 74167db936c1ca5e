"""U4, U5, U30–U32 with the real programs: bits-server, and the application of examples/ as it stands there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bits_server import running_bits_server
from support.raw_bits import RawBits

EXAMPLE = Path(__file__).parents[2] / "examples" / "server_application.py"


@pytest.fixture(scope="module")
def application() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE), "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+/", process.stdout.readline())
        assert found is not None
        yield found[0]
    finally:
        process.terminate()
        process.communicate(timeout=10)


def reply_path(client: RawBits, said: str) -> str:
    """Where the reply is, as clients make it out."""
    directory = client.path.partition("?")[0].rpartition("/")[0]
    return f"{directory}/{said}".replace("{", "%7B").replace("}", "%7D")


@pytest.mark.parametrize("kind", ["reference", "value"])
def test_upload_reply_with_ranges_until_close(application: str, kind: str) -> None:
    body = os.urandom(3_000_000)
    arguments = ("--notify-type", kind, "--notify-url", f"{application}receipts")
    with running_bits_server(*arguments) as server, RawBits(server.port, "/in/report.pdf") as client:
        Path(server.root, "in").mkdir()
        assert client.create().status == 200
        assert client.fragment(0, body[:1_000_000], len(body)).headers.get("bits-reply-url") is None
        last = client.fragment(1_000_000, body[1_000_000:], len(body))
        assert (last.status, last.received) == (200, len(body))
        path = reply_path(client, last.headers["bits-reply-url"])
        whole = client.say(None, method="GET", path=path, length=None)
        assert whole.status == 200
        assert json.loads(whole.body) == {
            "url": "http://server.example/in/report.pdf",
            "bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        part = client.say(None, {"Range": "bytes=5-9"}, method="GET", path=path, length=None)
        assert (part.status, part.body) == (206, whole.body[5:10])
        again = client.fragment(1_000_000, body[1_000_000:], len(body))
        assert again.headers["bits-reply-url"] == last.headers["bits-reply-url"]
        assert client.end().status == 200
        assert client.say(None, method="GET", path=path, length=None).status == 404
        assert not Path(server.root, "in", "report.pdf").exists()
        names = os.listdir(os.path.join(server.root, ".bits-sessions"))
        assert [name for name in names if not name.startswith("sessions.")] == []


def test_query_reaches_the_application_which_may_have_the_file_placed(application: str) -> None:
    arguments = ("--notify-type", "value", "--notify-url", f"{application}receipts?server=1")
    with running_bits_server(*arguments) as server, RawBits(server.port, "/report.pdf?keep=yes") as client:
        client.create()
        assert client.fragment(0, b"kept", 4).status == 200
        assert Path(server.root, "report.pdf").read_bytes() == b"kept"


def test_relative_address_is_this_server_whatever_host_the_client_names() -> None:
    """Where nothing takes a POST: which the client is told as the application's answer."""
    with running_bits_server("--notify-type", "value", "--notify-url", "app/take") as server:
        with RawBits(server.port, "/file.bin") as client:
            client.create()
            heard = client.fragment(0, b"x", 1)
        assert heard.error == (405, "0x80190195", "0x7")


def test_application_that_is_not_there_is_a_transient_error_and_nothing_is_lost() -> None:
    arguments = ("--notify-type", "value", "--notify-url", "http://127.0.0.1:1/")
    with running_bits_server(*arguments) as server, RawBits(server.port, "/file.bin") as client:
        client.create()
        assert client.fragment(0, b"x", 1).error == (502, "0x80072efd", "0x7")
        heard = client.fragment(0, b"x", 1)
        assert (heard.status, heard.received) == (502, 1)
        assert client.end().status == 200
