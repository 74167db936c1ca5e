"""U40–U45 over the wire: every rule of a server, and every quirk of clients, against the real bits-server."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.accounts import needs_root
from support.bits_server import BitsServer, running_bits_server
from support.mounts import fill, small_disk
from support.raw_bits import PROTOCOL, Heard, RawBits

INVALID = "0x80070057"
DENIED = "0x80070005"
UNKNOWN = "0x8020001f"
TOO_LARGE = "0x80200020"
DISK_FULL = "0x80070070"
MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[BitsServer]:
    with running_bits_server() as running:
        yield running


_numbers = iter(range(10**6))


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"file-{next(_numbers)}.bin"


@pytest.fixture
def client(server: BitsServer, name: str) -> Iterator[RawBits]:
    with RawBits(server.port, f"/{name}") as made:
        yield made


@pytest.fixture
def target(server: BitsServer, name: str) -> Path:
    return Path(server.root) / name


def working_files(server: BitsServer) -> list[str]:
    return [each for each in os.listdir(os.path.join(server.root, ".bits-sessions")) if each.endswith(".part")]


def check_bare(heard: Heard) -> None:
    """What every Ack has, and no Ack has."""
    assert heard.headers["bits-packet-type"] == "Ack"
    assert heard.headers["content-length"] == "0"
    assert heard.body == b""
    if heard.status == 200:
        assert not {"bits-error-code", "bits-error", "bits-error-context"} & heard.headers.keys()


# --- the plain way -----------------------------------------------------------------------------


def test_whole_conversation_as_windows_has_it(client: RawBits, target: Path) -> None:
    body = os.urandom(4892)
    ack = client.create(**{"Content-Name": "rfc2119.txt", "User-Agent": "Microsoft BITS/7.8", "Accept": "*/*"})
    check_bare(ack)
    assert ack.status == 200
    assert ack.headers["bits-protocol"].lower() == PROTOCOL
    assert ack.headers["accept-encoding"].lower() == "identity"
    assert re.fullmatch(r"\{[0-9A-F-]{36}\}", client.id)
    assert "bits-received-content-range" not in ack.headers
    assert "bits-host-id" not in ack.headers
    ack = client.fragment(0, body, len(body))
    check_bare(ack)
    assert (ack.status, ack.received, ack.headers["bits-session-id"]) == (200, 4892, client.id)
    assert "bits-reply-url" not in ack.headers
    check_bare(client.ping())
    ack = client.end()
    check_bare(ack)
    assert ack.status == 200
    assert target.read_bytes() == body


def test_u42_many_fragments_over_one_connection(client: RawBits, target: Path) -> None:
    body = os.urandom(1_000_003)
    client.create()
    for offset in range(0, len(body), 65_536):
        piece = body[offset : offset + 65_536]
        assert client.fragment(offset, piece, len(body)).received == offset + len(piece)
        assert target.exists() == (offset + len(piece) == len(body))
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(body).digest()


def test_u42_every_fragment_over_a_connection_of_its_own(client: RawBits, target: Path) -> None:
    client.create()
    for offset in range(0, 50, 10):
        client.reconnect()
        assert client.fragment(offset, b"0123456789", 50).received == offset + 10
    client.reconnect()
    assert client.end().status == 200
    assert target.read_bytes() == b"0123456789" * 5


def test_u41_ids_are_not_used_twice(server: BitsServer) -> None:
    ids = set()
    with RawBits(server.port) as client:
        for number in range(50):
            client.path = f"/ids-{number}"
            client.create()
            ids.add(client.id)
            client.end("Cancel-Session")
    assert len(ids) == 50


# --- packets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["CREATE-SESSION", "create-session", "Create-session"])
def test_packet_types_know_no_case(client: RawBits, kind: str) -> None:
    assert client.say(kind, {"bits-supported-protocols": PROTOCOL}).status == 200


@pytest.mark.parametrize(
    "protocols",
    [
        "{7DF0354D-249B-430F-820D-3D2A9BEF4931}",
        "{7df0354d-249b-430f-820D-3D2A9BEF4931}",
        "7df0354d-249b-430f-820d-3d2a9bef4931",
        "{00000000-0000-0000-0000-000000000001} {7df0354d-249b-430f-820d-3d2a9bef4931}",
        "{00000000-0000-0000-0000-000000000001},{7df0354d-249b-430f-820d-3d2a9bef4931}",
        "{00000000-0000-0000-0000-000000000001},  {7df0354d-249b-430f-820d-3d2a9bef4931} rubbish",
    ],
)
def test_u41_protocols_in_every_spelling(client: RawBits, protocols: str) -> None:
    heard = client.say("Create-Session", {"BITS-Supported-Protocols": protocols})
    assert heard.status == 200
    assert heard.headers["bits-protocol"].lower() == PROTOCOL


@pytest.mark.parametrize(
    "protocols", ["", "{00000000-0000-0000-0000-000000000001}", "7df0354d249b430f820d3d2a9bef4931", "bits"]
)
def test_u41_no_protocol_in_common(client: RawBits, protocols: str) -> None:
    assert client.say("Create-Session", {"BITS-Supported-Protocols": protocols}).error == (400, INVALID, "0x5")
    assert client.say("Create-Session").error == (400, INVALID, "0x5")


@pytest.mark.parametrize("kind", ["Ack", "Pong", "Get-Session", "", "Create-Session, Fragment"])
def test_u45_unexpected_packet(client: RawBits, kind: str) -> None:
    heard = client.say(kind)
    check_bare(heard)
    assert heard.error == (400, INVALID, "0x5")


def test_packet_without_type(client: RawBits) -> None:
    assert client.say(None).error == (400, INVALID, "0x5")


@pytest.mark.parametrize("override", ["X-HTTP-Method-Override", "x-http-method-override"])
def test_post_with_an_override(client: RawBits, target: Path, override: str) -> None:
    extra = {override: "BITS_POST"}
    heard = client.say("Create-Session", {"BITS-Supported-Protocols": PROTOCOL, **extra}, method="POST")
    assert heard.status == 200
    client.id = heard.headers["bits-session-id"]
    said = {"BITS-Session-Id": client.id, "Content-Range": "bytes 0-2/3", **extra}
    assert client.say("Fragment", said, b"abc", method="POST").received == 3
    assert target.read_bytes() == b"abc"


@pytest.mark.parametrize("method", ["POST", "bits_post", "BITS_PUT", "PUT"])
def test_other_methods_are_no_packets(client: RawBits, method: str) -> None:
    heard = client.say("Create-Session", {"BITS-Supported-Protocols": PROTOCOL}, method=method)
    assert heard.status in (405, 501)
    assert "bits-session-id" not in heard.headers


def test_u40_ping_needs_nothing_and_says_nothing(server: BitsServer, client: RawBits) -> None:
    for path in (client.path, "/none/at/all", "/"):
        heard = client.say("Ping", path=path)
        check_bare(heard)
        assert heard.status == 200
        assert heard.headers.keys() <= {"bits-packet-type", "content-length", "date", "server", "connection"}
    assert client.say("Ping", {"BITS-Session-Id": "{unknown}"}).status == 200


def test_length_must_be_said(client: RawBits) -> None:
    heard = client.say("Create-Session", {"BITS-Supported-Protocols": PROTOCOL}, length=None)
    assert heard.error == (411, INVALID, "0x5")


def test_chunked_fragment_is_refused_and_the_connection_ends(client: RawBits, target: Path) -> None:
    client.create()
    said = {"BITS-Session-Id": client.id, "Content-Range": "bytes 0-2/3", "Transfer-Encoding": "chunked"}
    client.send(client.head("Fragment", said, length=None) + b"3\r\nabc\r\n0\r\n\r\n")
    assert client.hear().status == 411
    assert client.is_closed()
    assert not target.exists()


@pytest.mark.parametrize("kind", ["Ping", "Create-Session", "Close-Session", "Cancel-Session"])
def test_body_where_none_belongs(client: RawBits, kind: str) -> None:
    client.create()
    said = {"BITS-Session-Id": client.id, "BITS-Supported-Protocols": PROTOCOL}
    assert client.say(kind, said, b"body").error == (400, INVALID, "0x5")
    assert client.fragment(0, b"x", 2).status == 200, "the session and the connection go on"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Name": "n" * 4096}, 200),
        ({"Content-Name": "n" * 4097}, 400),
        ({"BITS-Supported-Protocols": PROTOCOL + " " * 10 + "x" * 4096}, 400),
    ],
)
def test_headers_of_4_kib_and_above(client: RawBits, headers: dict[str, str], status: int) -> None:
    assert client.say("Create-Session", {"BITS-Supported-Protocols": PROTOCOL, **headers}).status == status


def test_header_that_is_there_twice_with_two_values(client: RawBits) -> None:
    client.create()
    head = client.fragment_head(0, 2, 4)[:-2] + b"Content-Range: bytes 2-3/4\r\n\r\n"
    client.send(head + b"xx")
    assert client.hear().error == (400, INVALID, "0x5")


@pytest.mark.parametrize("length", ["-1", "+3", "3, 4", "0x3", "3 3", "99999999999999999999999"])
def test_lengths_that_are_none(client: RawBits, target: Path, length: str) -> None:
    client.create()
    said = {"BITS-Session-Id": client.id, "Content-Range": "bytes 0-2/3", "Content-Length": length}
    client.send(client.head("Fragment", said, length=None) + b"abc")
    assert client.hear().status == 400
    assert not target.exists()


# --- ids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "made",
    [
        "{00000000-0000-0000-0000-000000000000}",
        "../../../../etc/passwd",
        "%2e%2e%2f",
        "sessions.sqlite",
        "*",
        "-1",
        "x" * 100,
    ],
)
@pytest.mark.parametrize("kind", ["Fragment", "Close-Session", "Cancel-Session"])
def test_u45_ids_that_nobody_gave_out(client: RawBits, made: str, kind: str) -> None:
    said = {"BITS-Session-Id": made, "Content-Range": "bytes 0-0/1"}
    body = b"x" if kind == "Fragment" else b""
    heard = client.say(kind, said, body)
    check_bare(heard)
    assert heard.error == (500, UNKNOWN, "0x5")


@pytest.mark.parametrize("made", ["", "x" * 101, "a b", "\xe9"])
def test_ids_that_cannot_be(client: RawBits, made: str) -> None:
    assert client.say("Close-Session", {"BITS-Session-Id": made}).error == (400, INVALID, "0x5")


def test_ids_are_compared_exactly(client: RawBits) -> None:
    client.create()
    mine = client.id
    for other in (mine.lower(), mine.strip("{}"), mine + "0", mine[:-1]):
        client.id = other
        assert client.fragment(0, b"x", 2).error == (500, UNKNOWN, "0x5")
    client.id = mine
    assert client.fragment(0, b"x", 2).received == 1


def test_session_belongs_to_its_url(client: RawBits, server: BitsServer) -> None:
    client.create()
    mine, client.path = client.path, "/somewhere-else"
    assert client.fragment(0, b"evil", 4).error == (500, UNKNOWN, "0x5")
    assert client.end().error == (500, UNKNOWN, "0x5")
    client.path = mine
    assert client.fragment(0, b"good", 4).status == 200
    assert not (Path(server.root) / "somewhere-else").exists()


@pytest.mark.parametrize("end", ["Close-Session", "Cancel-Session"])
def test_u43_u44_ended_session_is_unknown(client: RawBits, end: str) -> None:
    client.create()
    client.fragment(0, b"x", 1)
    assert client.end(end).status == 200
    assert client.end(end).error == (500, UNKNOWN, "0x5")
    assert client.fragment(0, b"x", 1).error == (500, UNKNOWN, "0x5")


# --- fragments ---------------------------------------------------------------------------------


def test_u42_gap(client: RawBits, target: Path) -> None:
    client.create()
    heard = client.fragment(5, b"56789", 10)
    check_bare(heard)
    assert (heard.status, heard.received) == (416, 0)
    assert client.fragment(0, b"01234", 10).received == 5
    heard = client.fragment(7, b"789", 10)
    assert (heard.status, heard.received) == (416, 5)
    assert client.fragment(5, b"56789", 10).received == 10
    assert target.read_bytes() == b"0123456789"


def test_u42_overlap_keeps_the_first_bytes(client: RawBits, target: Path) -> None:
    client.create()
    assert client.fragment(0, b"a" * 101, 200).received == 101
    assert client.fragment(50, b"b" * 101, 200).received == 151
    assert client.fragment(0, b"c" * 100, 200).received == 151
    assert client.fragment(0, b"d" * 200, 200).received == 200
    assert target.read_bytes() == b"a" * 101 + b"b" * 50 + b"d" * 49


def test_u42_large_overlap_whose_body_is_mostly_left_out(client: RawBits, target: Path) -> None:
    body = os.urandom(3 * MIB)
    client.create()
    client.fragment(0, body[: 2 * MIB + 17], len(body))
    assert client.fragment(0, body, len(body)).received == len(body)
    assert target.read_bytes() == body
    assert client.ping().status == 200


def test_gap_with_a_large_body_is_heard_and_the_connection_goes_on(client: RawBits) -> None:
    client.create()
    client.fragment(0, b"x" * 10, 10 * MIB)
    heard = client.fragment(100, b"y" * (5 * MIB), 10 * MIB)
    assert (heard.status, heard.received) == (416, 10)
    assert client.fragment(10, b"z" * MIB, 10 * MIB).received == 10 + MIB


@pytest.mark.parametrize("total", [9, 11, 2**62])
def test_changed_total(client: RawBits, target: Path, total: int) -> None:
    client.create()
    client.fragment(0, b"01234", 10)
    assert client.fragment(5, b"5", total).error == (400, INVALID, "0x5")
    assert client.fragment(5, b"56789", 10).received == 10
    assert client.fragment(5, b"5", total).error == (400, INVALID, "0x5")
    assert target.read_bytes() == b"0123456789"


@pytest.mark.parametrize(
    "said",
    [
        "",
        "bytes",
        "bytes 0-2",
        "bytes 0-2/*",
        "bytes */3",
        "bytes 2-0/3",
        "bytes 0-3/3",
        "bytes 0-2/2",
        "bytes 1-3/3",
        "bytes -1-2/3",
        "bytes 0-2/3 ",
        "bytes 0-2/3, 0-2/3",
        "octets 0-2/3",
        "bytes=0-2/3",
        "bytes 0x0-0x2/0x3",
        "bytes 18446744073709551615-18446744073709551617/18446744073709551618",
        "bytes 0-2/9223372036854775808",
        "bytes ٠-٢/٣".encode().decode("latin-1"),
    ],
)
def test_content_ranges_that_are_none(client: RawBits, target: Path, said: str) -> None:
    client.create()
    heard = client.ranged(said, b"abc")
    if said.endswith(" "):
        assert heard.received == 3, "blanks around a value are no part of it"
        return
    assert heard.error == (400, INVALID, "0x5")
    assert not target.exists()


@pytest.mark.parametrize("said", ["Bytes 0-2/3", "BYTES 0-2/3", "bytes  0-2/3", "bytes 0 - 2 / 3"])
def test_content_ranges_in_other_spellings(client: RawBits, target: Path, said: str) -> None:
    client.create()
    assert client.ranged(said, b"abc").received == 3
    assert target.read_bytes() == b"abc"


def test_content_range_must_agree_with_the_length(client: RawBits) -> None:
    client.create()
    assert client.ranged("bytes 0-2/10", b"abcd").error == (400, INVALID, "0x5")
    assert client.ranged("bytes 0-4/10", b"abcd").error == (400, INVALID, "0x5")
    assert client.fragment(0, b"abcd", 10).received == 4


@pytest.mark.parametrize("said", ["bytes 0-18446744073709551615/0", "bytes 0--1/0", "bytes */0", "bytes 0-0/0"])
def test_empty_file_in_every_form_that_was_seen(client: RawBits, target: Path, said: str) -> None:
    client.create()
    heard = client.ranged(said)
    assert (heard.status, heard.received) == (200, 0)
    assert target.read_bytes() == b""
    assert client.ranged(said).received == 0
    assert client.end().status == 200


def test_extra_fragment_after_the_last_one(client: RawBits, target: Path) -> None:
    client.create()
    client.fragment(0, b"0123456789", 10)
    heard = client.ranged("bytes 10-9/10")
    assert (heard.status, heard.received) == (200, 10)
    assert target.read_bytes() == b"0123456789"
    assert client.end().status == 200


def test_content_encoding_that_is_none_of_ours(client: RawBits) -> None:
    client.create()
    said = {"BITS-Session-Id": client.id, "Content-Range": "bytes 0-0/1", "Content-Encoding": "gzip"}
    assert client.say("Fragment", said, b"x").error == (400, INVALID, "0x5")
    assert client.say("Fragment", {**said, "Content-Encoding": "identity"}, b"x").received == 1


def test_last_fragment_again_is_acknowledged(client: RawBits, target: Path) -> None:
    client.create()
    client.fragment(0, b"01234", 10)
    first = client.fragment(5, b"56789", 10)
    target.unlink()
    again = client.fragment(5, b"XXXXX", 10)
    assert (again.status, again.received, first.received) == (200, 10, 10)
    assert not target.exists(), "it is not put there a second time"


def test_unasked_session_id_in_create_and_ping_changes_nothing(client: RawBits) -> None:
    heard = client.say("Create-Session", {"BITS-Supported-Protocols": PROTOCOL, "BITS-Session-Id": "{mine}"})
    assert heard.status == 200
    assert heard.headers["bits-session-id"] != "{mine}"


# --- close and cancel --------------------------------------------------------------------------


def test_u43_close_of_a_part_deletes_it(server: BitsServer, client: RawBits, target: Path) -> None:
    before = set(working_files(server))
    client.create()
    client.fragment(0, b"x" * 1000, 2000)
    assert len(set(working_files(server)) - before) == 1
    assert client.end().status == 200
    assert set(working_files(server)) == before
    assert not target.exists()


def test_u44_cancel_takes_back_what_is_not_whole_only(client: RawBits, target: Path) -> None:
    client.create()
    client.fragment(0, b"x", 2)
    assert client.end("Cancel-Session").status == 200
    assert not target.exists()
    client.create()
    client.fragment(0, b"xx", 2)
    assert client.end("Cancel-Session").status == 200
    assert target.read_bytes() == b"xx"


# --- destinations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/../{}",
        "/a/../{}",
        "/./{}",
        "/a/./{}",
        "//{}",
        "/a//{}",
        "/%2e%2e/{}",
        "/%2E%2e/{}",
        "/.%2e/{}",
        "/..%2f{}",
        "/..%2F..%2F{}",
        "/..%5c{}",
        "/..\\{}",
        "/%2f{}",
        "/a%00{}",
        "/%c0%ae%c0%ae/{}",
        "/%c0%af{}",
        "/%uff0e%uff0e/{}",
        "/%{}",
        "/%zz{}",
        "/a%0d%0aX: y{}",
        "/%ff{}",
        "/" + "n" * 256 + "{}",
    ],
)
def test_path_tricks_are_refused(server: BitsServer, client: RawBits, name: str, path: str) -> None:
    before = sorted(os.listdir(os.path.dirname(server.root)))
    client.path = path.replace("{}", name)
    assert client.create().status == 400
    client.reconnect()
    assert client.ping().status == 400
    assert sorted(os.listdir(os.path.dirname(server.root))) == before


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 400),
        ("/dir", 400),
        ("/dir/", 400),
        ("/dir/new/", 400),
        ("/none/new", 404),
        ("/plain/new", 404),
        ("/out/new", 404),
        ("/.bits-sessions/new", 403),
        ("/.bits-sessions", 403),
        ("/.BITS-sessions/new", 403),
        ("/%2ebits-sessions/new", 403),
        ("/BITS-Sessions/new", 403),
        ("/BITS-Sessions", 403),
        ("/dir/BITS-Sessions/Replies/x/responsefile.bin", 403),
    ],
)
def test_u41_destinations_that_cannot_be(server: BitsServer, client: RawBits, path: str, status: int) -> None:
    root = Path(server.root)
    (root / "dir").mkdir(exist_ok=True)
    (root / "plain").touch()
    if not (root / "out").is_symlink():
        (root / "out").symlink_to("/tmp")
    client.path = path
    heard = client.create()
    check_bare(heard)
    assert heard.status == status
    assert "bits-session-id" not in heard.headers


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("/na%20me", "na me"),
        ("/na+me", "na+me"),
        ("/%C3%A9", "é"),
        ("/a%25b", "a%b"),
        ("/%7Bb%7D", "{b}"),
        ("/...", "..."),
        ("/a..b", "a..b"),
        ("/-rf", "-rf"),
        ("/%3Cscript%3E", "<script>"),
        ("/COM1", "COM1"),
        ("/" + "%F0%9F%90%A7" * 30, "🐧" * 30),
    ],
)
def test_names_are_decoded_once_and_only_once(server: BitsServer, client: RawBits, sent: str, stored: str) -> None:
    client.path = sent
    assert client.create().status == 200
    assert client.fragment(0, b"x", 1).status == 200
    assert (Path(server.root) / stored).read_bytes() == b"x"
    (Path(server.root) / stored).unlink()


def test_query_is_no_part_of_the_name(client: RawBits, target: Path) -> None:
    client.path += "?a=/../b"
    client.create()
    assert client.fragment(0, b"x", 1).status == 200
    assert target.exists()


def test_u8_existing_file(client: RawBits, target: Path) -> None:
    target.write_bytes(b"old")
    assert client.create().error == (403, DENIED, "0x5")
    assert target.read_bytes() == b"old"


def test_u8_file_that_came_meanwhile(client: RawBits, target: Path) -> None:
    client.create()
    client.fragment(0, b"01234", 10)
    target.write_bytes(b"old")
    heard = client.fragment(5, b"56789", 10)
    assert heard.error == (403, DENIED, "0x5")
    assert client.end().error == (403, DENIED, "0x5")
    assert target.read_bytes() == b"old"
    assert client.end().error == (500, UNKNOWN, "0x5")


def test_fifty_uploads_to_one_name_one_wins_none_mixes(server: BitsServer, name: str, target: Path) -> None:
    size = 200_000
    statuses: dict[int, int] = {}
    ready = threading.Barrier(50)

    def upload(number: int) -> None:
        with RawBits(server.port, f"/{name}") as client:
            assert client.create().status == 200
            body = bytes([number]) * size
            ready.wait(timeout=20)
            for offset in range(0, size, 50_000):
                statuses[number] = client.fragment(offset, body[offset : offset + 50_000], size).status
            client.end()

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    winners = [number for number, status in statuses.items() if status == 200]
    assert len(winners) == 1
    assert sorted(statuses.values()) == [200] + [403] * 49
    assert target.read_bytes() == bytes(winners) * size


# --- connections -------------------------------------------------------------------------------


def test_body_that_breaks_off_is_kept_as_far_as_it_came(client: RawBits, target: Path) -> None:
    body = os.urandom(500_000)
    client.create()
    client.send(client.fragment_head(0, len(body), len(body)) + body[:300_000])
    client.reconnect()
    heard = client.fragment(len(body) - 1, body[-1:], len(body))
    assert heard.status == 416
    assert heard.received is not None
    assert 0 <= heard.received <= 300_000
    assert client.fragment(heard.received, body[heard.received :], len(body)).received == len(body)
    assert target.read_bytes() == body


def test_silent_first_connection_does_not_keep_the_session(client: RawBits, server: BitsServer, target: Path) -> None:
    client.create()
    client.send(client.fragment_head(0, 100, 100) + b"a" * 40)
    with RawBits(server.port, client.path, session_id=client.id) as other:
        heard = other.fragment(0, b"b" * 100, 100)
        assert (heard.status, heard.received) == (200, 100)
    found = target.read_bytes()
    kept = len(found) - len(found.lstrip(b"a"))
    assert found == b"a" * kept + b"b" * (100 - kept)
    assert kept <= 40


def test_expect_continue_is_asked_for_before_the_body_and_not_for_what_is_refused(client: RawBits) -> None:
    client.create()
    expect = b"Expect: 100-continue\r\n\r\n"
    client.send(client.fragment_head(0, 5, 10)[:-2] + expect)
    assert client.hear().status == 100
    client.send(b"01234")
    assert client.hear().received == 5
    client.send(client.fragment_head(7, 3, 10)[:-2] + expect)
    assert client.hear().status == 416


def test_pipelined_packets_are_answered_in_order(client: RawBits, target: Path) -> None:
    client.create()
    client.send(
        client.fragment_head(0, 5, 10)
        + b"01234"
        + client.head("Ping")
        + client.fragment_head(5, 5, 10)
        + b"56789"
        + client.head("Close-Session", {"BITS-Session-Id": client.id})
    )
    assert [client.hear().received for _ in range(4)] == [5, None, 10, None]
    assert target.read_bytes() == b"0123456789"


def test_body_of_a_refused_packet_is_never_a_request(server: BitsServer, client: RawBits, name: str) -> None:
    smuggled = client.head("Create-Session", {"BITS-Supported-Protocols": PROTOCOL}, path=f"/smuggled-{name}")
    said = {"BITS-Session-Id": "{unknown}", "Content-Range": f"bytes 0-{len(smuggled) - 1}/{len(smuggled)}"}
    assert client.say("Fragment", said, smuggled).error == (500, UNKNOWN, "0x5")
    heard = client.ping()
    assert heard.status == 200
    assert "bits-session-id" not in heard.headers


# --- limits ------------------------------------------------------------------------------------


def test_u3_maximum_size_is_said_at_the_first_fragment() -> None:
    with running_bits_server("--max-upload-size", "1000") as server, RawBits(server.port) as client:
        client.create()
        assert client.fragment(0, b"x", 1001).error == (500, TOO_LARGE, "0x5")
        assert client.fragment(0, b"x" * 1000, 1000).status == 200
        assert (Path(server.root) / "file.bin").stat().st_size == 1000


def test_u6_u7_host_id() -> None:
    arguments = ("--host-id", "node7.example", "--host-id-fallback-timeout", "110")
    with running_bits_server(*arguments) as server, RawBits(server.port) as client:
        ack = client.create()
        assert ack.headers["bits-host-id"] == "node7.example"
        assert ack.headers["bits-host-id-fallback-timeout"] == "110"
        assert "bits-host-id" not in client.fragment(0, b"x", 1).headers


def test_u8_overwriting() -> None:
    with running_bits_server("--allow-overwrites") as server, RawBits(server.port) as client:
        target = Path(server.root) / "file.bin"
        for body in (b"one", b"two"):
            assert client.create().status == 200
            assert client.fragment(0, body, 3).status == 200
            assert target.read_bytes() == body
            client.end()


def test_u1_u2_directories_have_properties_of_their_own() -> None:
    config = """
        [directory."/"]
        upload_enabled = true
        overlap = "refuse"
        finalize = "close"
        [directory."/off"]
        [directory."/on"]
        upload_enabled = true
        overlap = "dedupe"
        """
    with running_bits_server(config=config) as server, RawBits(server.port) as client:
        root = Path(server.root)
        (root / "off").mkdir()
        (root / "on").mkdir()
        client.path = "/off/f"
        for heard in (client.create(), client.ping(), client.say("Fragment"), client.end()):
            assert heard.error == (501, DENIED, "0x5")
        client.path = "/f"
        client.create()
        client.fragment(0, b"0123", 10)
        heard = client.fragment(2, b"23456789", 10)
        assert (heard.status, heard.received) == (416, 4)
        assert client.fragment(4, b"456789", 10).received == 10
        assert not (root / "f").exists()
        assert client.end().status == 200
        assert (root / "f").read_bytes() == b"0123456789"
        client.path = "/on/f"
        client.create()
        client.fragment(0, b"0123", 10)
        assert client.fragment(2, b"23456789", 10).received == 10


def test_u2_session_without_progress_is_closed_and_deleted() -> None:
    with running_bits_server("--session-timeout", "1") as server, RawBits(server.port) as client:
        client.create()
        client.fragment(0, b"x", 2)
        assert len(working_files(server)) == 1
        deadline = time.monotonic() + 10
        while working_files(server) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert working_files(server) == []
        assert client.fragment(1, b"x", 2).error == (500, UNKNOWN, "0x5")


@needs_root
def test_full_disk_is_found_before_the_first_byte_or_said_with_what_is_kept(tmp_path: Path) -> None:
    with small_disk(str(tmp_path / "disk"), 8 * MIB) as base, running_bits_server(base=base) as server:
        root = Path(server.root)
        with RawBits(server.port) as client:
            client.create()
            assert client.fragment(0, b"x" * 100, 64 * MIB).error == (500, DISK_FULL, "0x5")
            assert working_files(server) == []
            body = os.urandom(2 * MIB)
            client.path = "/second"
            client.create()
            assert client.fragment(0, body[:1000], len(body)).received == 1000
            ballast = fill(base)
            # What was reserved is there, however full the disk is.
            assert client.fragment(1000, body[1000:], len(body)).received == len(body)
            assert (root / "second").read_bytes() == body
            client.path = "/third"
            heard = client.create()
            if heard.status == 200:
                heard = client.fragment(0, b"y" * 500_000, 500_000)
            assert heard.error == (500, DISK_FULL, "0x5")
            os.unlink(ballast)
            if client.id:
                client.reconnect()
                rest = heard.received or 0
                assert client.fragment(rest, b"y" * (500_000 - rest), 500_000).received == 500_000
                assert (root / "third").read_bytes() == b"y" * 500_000


def test_10000_idle_sessions_cost_little() -> None:
    with running_bits_server() as server, contextlib.ExitStack() as stack:
        before = resident_kib(server.pid)
        clients = [stack.enter_context(RawBits(server.port)) for _ in range(50)]
        for number in range(200):
            # All at once: those who wait at the same moment share one sync.
            for index, client in enumerate(clients):
                client.path = f"/f{number}-{index}"
                client.send(client.head("Create-Session", {"BITS-Supported-Protocols": PROTOCOL}))
            assert [client.hear().status for client in clients] == [200] * len(clients)
        assert resident_kib(server.pid) - before < 60 * 1024
        assert len(os.listdir(f"/proc/{server.pid}/fd")) < 40 + len(clients)


def resident_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        found = re.search(r"VmRSS:\s+(\d+) kB", file.read())
    assert found is not None
    return int(found[1])


def test_random_conversations_end_in_the_right_file(server: BitsServer, name: str, target: Path) -> None:
    """A client that forgets, repeats, overlaps and hangs up: whatever it does, following the server makes it whole."""
    chance = random.Random(20)
    body = chance.randbytes(300_000)
    with RawBits(server.port, f"/{name}") as client:
        client.create()
        offset = 0
        for _ in range(2_000):
            start = max(0, min(len(body) - 1, offset + chance.choice([0, 0, 0, -5_000, -1, 1, 7_000])))
            piece = body[start : start + chance.randrange(1, 20_000)]
            data = client.fragment_head(start, len(piece), len(body)) + piece
            if chance.random() < 0.2:
                client.send(data[: chance.randrange(len(data))])
                client.sock.shutdown(socket.SHUT_WR)
                client.reconnect()
                continue
            client.send(data)
            heard = client.hear()
            assert heard.status in (200, 416)
            assert heard.received is not None
            offset = heard.received
            if offset == len(body):
                break
        assert client.end().status == 200
    assert target.read_bytes() == body
