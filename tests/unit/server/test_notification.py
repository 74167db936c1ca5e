"""U4, U5, U30–U32, R2: uploads handed to server applications that behave, and to others."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from openbits.server.notification import NoTarget, target_of
from openbits.server.settings import Settings, parse_settings
from openbits.server.uploads import Uploads
from openbits.upload.packets import PROTOCOL, render_guid
from support.exchanges import FakeExchange

CREATE = {"BITS-Packet-Type": "Create-Session", "BITS-Supported-Protocols": render_guid(PROTOCOL)}
EXAMPLE = Path(__file__).parents[3] / "examples" / "server_application.py"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, "Said"], Awaitable[None]]


# --- where it goes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path", "query", "wanted"),
    [
        ("http://app/x", "/d/f", "", ("app", 80, "app", "/x")),
        ("http://app:8080", "/d/f", "", ("app", 8080, "app:8080", "/")),
        ("http://app/x?a=1", "/d/f", "b=2", ("app", 80, "app", "/x?a=1&b=2")),
        ("http://app/x", "/d/f", "b=2", ("app", 80, "app", "/x?b=2")),
        ("http://[::1]:9/x", "/f", "", ("::1", 9, "[::1]:9", "/x")),
        ("take", "/d/f", "q=1", ("127.0.0.1", 8080, "client.says", "/d/take?q=1")),
        ("../take?a=1", "/d/e/f", "", ("127.0.0.1", 8080, "client.says", "/d/take?a=1")),
        ("/take", "/d/%7Be%7D/f", "", ("127.0.0.1", 8080, "client.says", "/take")),
    ],
)
def test_u5_address_of_the_application(url: str, path: str, query: str, wanted: tuple[str, int, str, str]) -> None:
    found = target_of(
        url, original_url=f"http://client.says{path}", path=path, query=query, own_address=("127.0.0.1", 8080)
    )
    assert (found.host, found.port, found.authority, found.target) == wanted


def test_relative_address_never_leads_to_where_the_client_says() -> None:
    with pytest.raises(NoTarget):
        target_of("take", original_url="http://internal/d/f", path="/d/f", query="", own_address=None)
    with pytest.raises(NoTarget):
        target_of("//evil/x", original_url="http://o/d/f", path="/d/f", query="", own_address=("::1", 80))


# --- an application of the test ----------------------------------------------------------------


@dataclass
class Said:
    """A request as the application got it."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class App:
    """Answers with what the test has prepared, one after the other."""

    answers: list[bytes | Handler]
    heard: list[Said] = field(default_factory=list)
    port: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = self.answers.pop(0)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *fields = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in fields)}
            said = Said(line, headers, b"")
            self.heard.append(said)
            if not isinstance(answer, bytes):
                await answer(reader, writer, said)
                return
            said.body = await reader.readexactly(int(headers["content-length"]))
            writer.write(answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def reply(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines, "", ""]).encode("latin-1") + body


@contextlib.asynccontextmanager
async def playing(root: Path, *answers: bytes | Handler, **properties: Any) -> AsyncIterator[tuple[Uploads, App]]:
    app = App(list(answers))
    server = await asyncio.start_server(app.handle, "127.0.0.1", 0)
    app.port = server.sockets[0].getsockname()[1]
    found = settings(root, f"http://127.0.0.1:{app.port}/take?fixed=1", **properties)
    uploads = Uploads(found)
    uploads.start()
    try:
        yield uploads, app
    finally:
        await uploads.close()
        server.close()
        await server.wait_closed()


def settings(root: Path, url: str, **properties: Any) -> Settings:
    table = {
        "upload_enabled": True,
        "server_notification_type": "value",
        "server_notification_url": url,
        "notification_timeout": 2,
        **properties,
    }
    return parse_settings({"root": str(root), "directory": {"/": table}}, source="test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "in"
    (made / "d").mkdir(parents=True)
    return made


async def create(uploads: Uploads) -> str:
    exchange = FakeExchange("/d/f", CREATE)
    await uploads.answer(exchange)
    return exchange.headers["bits-session-id"]


async def send(uploads: Uploads, session_id: str, body: bytes = b"upload", query: str = "q=1") -> FakeExchange:
    headers = {
        "BITS-Packet-Type": "Fragment",
        "BITS-Session-Id": session_id,
        "Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}",
    }
    exchange = FakeExchange("/d/f", headers, body, query=query)
    await uploads.answer(exchange)
    return exchange


async def close(uploads: Uploads, session_id: str) -> int:
    exchange = FakeExchange("/d/f", {"BITS-Packet-Type": "Close-Session", "BITS-Session-Id": session_id})
    await uploads.answer(exchange)
    return exchange.status


def read_reply(uploads: Uploads, url: str, user: str | None = None) -> bytes | None:
    """What a GET of the reply gets, the URL resolved as clients do."""
    fd = uploads.open_reply((b"d", *url.encode().split(b"/")), user)
    if fd is None:
        return None
    try:
        return os.pread(fd, 1_000_000, 0)
    finally:
        os.close(fd)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 30))


def error_of(exchange: FakeExchange) -> tuple[int, str | None, str | None]:
    found = exchange.headers
    return exchange.status, found.get("bits-error-code"), found.get("bits-error-context")


def turn_round(said: Said) -> None:
    """An application by reference whose reply is the upload from its end."""
    upload = Path(said.headers["bits-request-datafile-name"]).read_bytes()
    Path(said.headers["bits-response-datafile-name"]).write_bytes(upload[::-1])


# --- by value and by reference -----------------------------------------------------------------


def test_u31_by_value_the_body_is_the_upload_and_the_answer_the_reply(root: Path) -> None:
    async def test() -> None:
        async with playing(root, reply(b"the reply")) as (uploads, app):
            session_id = await create(uploads)
            last = await send(uploads, session_id)
            assert (last.status, last.headers["bits-received-content-range"]) == (200, "6")
            url = last.headers["bits-reply-url"]
            assert url == f"BITS-Sessions/Replies/{session_id}/responsefile.bin"
            (said,) = app.heard
            assert said.line == "POST /take?fixed=1&q=1 HTTP/1.1"
            assert said.body == b"upload"
            assert said.headers["bits-original-request-url"] == "http://server.example/d/f"
            assert said.headers["host"] == f"127.0.0.1:{app.port}"
            assert read_reply(uploads, url) == b"the reply"
            assert read_reply(uploads, url, user="somebody") is None
            assert not (root / "d" / "f").exists(), "nobody asked for that"
            again = await send(uploads, session_id)
            assert again.headers["bits-reply-url"] == url
            assert len(app.heard) == 1
            assert await close(uploads, session_id) == 200
            assert read_reply(uploads, url) is None

    run(test)


def test_u30_by_reference_both_paths_are_said_and_the_file_is_the_reply(root: Path) -> None:
    async def write(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: Said) -> None:
        turn_round(said)
        writer.write(reply(BITS_Copy_File_To_Destination="yes"))

    async def test() -> None:
        async with playing(root, write, server_notification_type="reference") as (uploads, app):
            session_id = await create(uploads)
            last = await send(uploads, session_id)
            assert last.status == 200
            assert app.heard[0].headers["content-length"] == "0"
            assert read_reply(uploads, last.headers["bits-reply-url"]) == b"daolpu"
            assert (root / "d" / "f").read_bytes() == b"upload"
            await close(uploads, session_id)
            assert (root / "d" / "f").exists()

    run(test)


def test_u30_application_that_writes_no_reply_has_none(root: Path) -> None:
    async def test() -> None:
        async with playing(root, reply(), server_notification_type="reference") as (uploads, _):
            last = await send(uploads, await create(uploads))
            assert last.status == 200
            assert "bits-reply-url" not in last.headers

    run(test)


def test_u31_empty_answer_is_an_empty_reply(root: Path) -> None:
    async def test() -> None:
        async with playing(root, reply(status="204 No Content")) as (uploads, _):
            last = await send(uploads, await create(uploads))
            assert read_reply(uploads, last.headers["bits-reply-url"]) == b""

    run(test)


def test_u30_static_reply_is_passed_on_as_it_is(root: Path) -> None:
    url = "http://cdn.example/r/1"

    async def test() -> None:
        async with playing(root, reply(BITS_Static_Response_URL=url)) as (uploads, _):
            last = await send(uploads, await create(uploads))
            assert last.headers["bits-reply-url"] == url

    run(test)


@pytest.mark.parametrize(
    "url",
    [
        "/relative",
        "ftp://x/y",
        "http://o/" + "x" * 2300,
        "http://[",
        "http://o:99999/",
        "http://:80/",
        "http://o/\x1b",
        "http://o/a b",
        "http://o/\xe9",
    ],
)
def test_static_reply_that_no_client_could_fetch_is_the_applications_mistake(root: Path, url: str) -> None:
    async def test() -> None:
        async with playing(root, reply(BITS_Static_Response_URL=url)) as (uploads, _):
            last = await send(uploads, await create(uploads))
            assert error_of(last) == (400, "0x80070057", "0x7")

    run(test)


def test_chunked_answer_and_one_without_length(root: Path) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    unending = b"HTTP/1.0 200 OK\r\n\r\nabcde"

    async def test() -> None:
        async with playing(root, chunked, unending, reply(b"x", status="100 Continue")[:25] + reply(b"abcde")) as (
            uploads,
            _,
        ):
            for _ in range(2):
                session_id = await create(uploads)
                last = await send(uploads, session_id)
                assert read_reply(uploads, last.headers["bits-reply-url"]) == b"abcde"

    run(test)


# --- applications that fail --------------------------------------------------------------------


@pytest.mark.parametrize("status", ["302 Found", "404 Not Found", "500 Internal", "503 Busy"])
def test_u32_failure_is_the_clients_to_know_and_the_next_try_notifies_again(root: Path, status: str) -> None:
    code = int(status[:3])

    async def test() -> None:
        async with playing(root, reply(b"no", status, Location="http://evil/"), reply(b"yes")) as (uploads, app):
            session_id = await create(uploads)
            failed = await send(uploads, session_id)
            assert error_of(failed) == (code, f"{0x80190000 + code:#x}", "0x7")
            assert "location" not in failed.headers
            last = await send(uploads, session_id)
            assert read_reply(uploads, last.headers["bits-reply-url"]) == b"yes"
            assert [said.body for said in app.heard] == [b"upload"] * 2

    run(test)


def test_r2_403_is_final_also_over_a_restart(root: Path) -> None:
    async def test() -> None:
        async with playing(root, reply(status="403 Forbidden")) as (uploads, app):
            session_id = await create(uploads)
            for _ in range(2):
                assert error_of(await send(uploads, session_id)) == (403, "0x80190193", "0x7")
            assert len(app.heard) == 1
        async with playing(root) as (uploads, app):
            assert error_of(await send(uploads, session_id)) == (403, "0x80190193", "0x7")
            assert app.heard == []

    run(test)


def test_u32_application_that_is_silent_for_too_long(root: Path) -> None:
    async def sleep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: Said) -> None:
        await reader.read()

    async def test() -> None:
        async with playing(root, sleep, notification_timeout=1) as (uploads, _):
            assert error_of(await send(uploads, await create(uploads))) == (408, "0x80072ee2", "0x7")

    run(test)


def test_u32_answer_that_never_ends(root: Path) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: Said) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def test() -> None:
        async with playing(root, drip, notification_timeout=1) as (uploads, _):
            assert error_of(await send(uploads, await create(uploads))) == (408, "0x80072ee2", "0x7")

    run(test)


def test_application_that_is_not_there(root: Path) -> None:
    async def test() -> None:
        uploads = Uploads(settings(root, "http://127.0.0.1:1/"))
        uploads.start()
        assert error_of(await send(uploads, await create(uploads))) == (502, "0x80072efd", "0x7")
        await uploads.close()

    run(test)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "0x80072f78"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "0x80072f78"),
        (b"", "0x80072f78"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "0x80072f78"),
    ],
)
def test_application_that_does_not_speak_http(root: Path, answer: bytes, code: str) -> None:
    async def test() -> None:
        async with playing(root, answer) as (uploads, _):
            assert error_of(await send(uploads, await create(uploads))) == (502, code, "0x7")

    run(test)


def test_reply_has_a_limit(root: Path) -> None:
    async def test() -> None:
        async with playing(root, reply(b"x" * 11), maximum_reply_size=10) as (uploads, _):
            assert error_of(await send(uploads, await create(uploads))) == (500, "0x80200020", "0x7")

    run(test)


def test_application_that_refuses_before_it_has_read_the_body(root: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: Said) -> None:
        writer.write(reply(b"too much", "507 Insufficient Storage"))
        await writer.drain()

    async def test() -> None:
        async with playing(root, refuse) as (uploads, _):
            last = await send(uploads, await create(uploads), b"u" * 20_000_000)
            assert error_of(last)[0] in (507, 502), "507, unless the answer was lost with the connection"

    run(test)


@pytest.mark.parametrize(("head", "status"), [(b"507 Full", 507), (b"200 OK", 500)])
def test_application_that_answers_and_takes_no_more_of_the_body(root: Path, head: bytes, status: int) -> None:
    """Its answer counts, and nobody waits for it to take the rest."""

    async def stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: Said) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined] # nothing else stops a StreamReader
        writer.write(b"HTTP/1.1 " + head + b"\r\nContent-Length: 20\r\n\r\n" + b"x" * 20)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        await asyncio.sleep(5)

    async def test() -> None:
        async with playing(root, stay, maximum_reply_size=10, notification_timeout=4) as (uploads, _):
            async with asyncio.timeout(3):
                last = await send(uploads, await create(uploads), b"u" * 20_000_000)
            assert last.status == status

    run(test)


def test_application_that_hangs_up_within_the_body_is_no_mistake_of_ours(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: Said) -> None:
        writer.transport.abort()

    async def test() -> None:
        async with playing(root, hang_up) as (uploads, _):
            last = await send(uploads, await create(uploads), b"u" * 20_000_000)
            assert error_of(last)[::2] == (502, "0x7")

    run(test)
    assert [record.message for record in caplog.records if record.exc_info or record.levelname == "ERROR"] == []


def test_large_upload_by_value_is_whole(root: Path) -> None:
    body = os.urandom(9_000_001)

    async def test() -> None:
        async with playing(root, reply()) as (uploads, app):
            assert (await send(uploads, await create(uploads), body)).status == 200
            assert hashlib.sha256(app.heard[0].body).digest() == hashlib.sha256(body).digest()

    run(test)


def test_application_that_was_told_before_a_crash_is_told_again(root: Path) -> None:
    """Between the notification and its answer nothing is certain; afterwards everything is."""

    async def test() -> None:
        async with playing(root, reply(b"first", "500 No")) as (uploads, _):
            session_id = await create(uploads)
            await send(uploads, session_id)
        async with playing(root, reply(b"second")) as (uploads, app):
            last = await send(uploads, session_id)
            assert (last.status, len(app.heard)) == (200, 1)
        async with playing(root) as (uploads, app):
            again = await send(uploads, session_id)
            assert again.headers["bits-reply-url"] == last.headers["bits-reply-url"]
            assert read_reply(uploads, again.headers["bits-reply-url"]) == b"second"

    run(test)


@pytest.mark.parametrize(
    "path",
    [
        "BITS-Sessions/Replies/{ID}",
        "BITS-Sessions/Replies/{ID}/../{ID}/responsefile.bin",
        "bits-sessions/Replies/{ID}/responsefile.bin",
        "x/BITS-Sessions/Replies/{ID}/responsefile.bin",
        "BITS-Sessions/Replies/{id}/responsefile.bin",
        "BITS-Sessions/Replies/x/responsefile.bin",
        "BITS-Sessions/Requests/{ID}/responsefile.bin",
    ],
)
def test_reply_is_at_its_own_url_only(root: Path, path: str) -> None:
    async def test() -> None:
        async with playing(root, reply(b"secret")) as (uploads, _):
            session_id = await create(uploads)
            await send(uploads, session_id)
            tried = path.replace("{ID}", session_id).replace("{id}", session_id.lower())
            assert read_reply(uploads, tried) is None

    run(test)


def test_reply_that_is_a_link_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: Said) -> None:
        os.symlink(tmp_path / "secret", said.headers["bits-response-datafile-name"])
        writer.write(reply())

    async def test() -> None:
        async with playing(root, link, server_notification_type="reference") as (uploads, _):
            last = await send(uploads, await create(uploads))
            assert last.status == 500
            assert "bits-reply-url" not in last.headers

    run(test)


# --- the example -------------------------------------------------------------------------------


@pytest.fixture
def example() -> Iterator[str]:
    """The application of examples/, as it stands there."""
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


@pytest.mark.parametrize("kind", ["reference", "value"])
@pytest.mark.parametrize("query", ["", "keep=yes"])
def test_example_application_takes_uploads_and_replies(root: Path, example: str, kind: str, query: str) -> None:
    async def test() -> None:
        uploads = Uploads(settings(root, f"{example}receipts", server_notification_type=kind))
        uploads.start()
        session_id = await create(uploads)
        last = await send(uploads, session_id, query=query)
        assert last.status == 200
        receipt = read_reply(uploads, last.headers["bits-reply-url"])
        assert receipt is not None
        assert json.loads(receipt) == {
            "url": "http://server.example/d/f",
            "bytes": 6,
            "sha256": hashlib.sha256(b"upload").hexdigest(),
        }
        assert (root / "d" / "f").exists() is (query == "keep=yes")
        await uploads.close()

    run(test)
