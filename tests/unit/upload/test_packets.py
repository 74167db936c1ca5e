"""The headers of every packet (U40–U45): digest sections 2, 3, 6 and 9."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.errors import error_code
from openbits.upload import packets
from openbits.upload.packets import Ack, BadPacket, FragmentRange, PacketType, Request

SESSION = "{A0FF5911-4144-45B3-BF27-27AFC8EC8A67}"


def refusal(headers: dict[str, str], content_length: int | None = 0) -> BadPacket:
    with pytest.raises(BadPacket) as caught:
        packets.parse_request(headers.items(), content_length)
    return caught.value


def test_the_protocol_guid_is_compared_as_a_guid() -> None:
    for text in (
        "{7df0354d-249b-430f-820d-3d2a9bef4931}",
        "{7df0354d-249b-430f-820D-3D2A9BEF4931}",
        "{7DF0354D-249B-430F-820D-3D2A9BEF4931}",
        "7df0354d-249b-430f-820d-3d2a9bef4931",
    ):
        assert packets.parse_guid(text) == packets.PROTOCOL
    for text in ("", "{7df0354d249b430f820d3d2a9bef4931}", "{7df0354d-249b-430f-820d-3d2a9bef4931", "x" * 36):
        assert packets.parse_guid(text) is None
    assert packets.render_guid(packets.PROTOCOL) == "{7df0354d-249b-430f-820d-3d2a9bef4931}"


@pytest.mark.parametrize(
    "request_",
    [
        Request(packet_type=PacketType.PING),
        Request(
            packet_type=PacketType.CREATE_SESSION,
            supported_protocols=(packets.PROTOCOL, uuid.UUID(int=7)),
            content_name="a b",
        ),
        Request(packet_type=PacketType.FRAGMENT, session_id=SESSION, range=FragmentRange(offset=5, length=3, total=10)),
        Request(packet_type=PacketType.FRAGMENT, session_id="-17", range=FragmentRange(offset=0, length=0, total=0)),
        Request(packet_type=PacketType.CLOSE_SESSION, session_id=SESSION),
        Request(packet_type=PacketType.CANCEL_SESSION, session_id=SESSION),
    ],
)
def test_a_request_that_is_written_is_read_again(request_: Request) -> None:
    length = request_.range.length if request_.range is not None else 0
    assert packets.parse_request(packets.render_request(request_), length) == request_


def test_the_captured_create_session_is_read() -> None:
    """Digest, section 10."""
    headers = {
        "Accept": "*/*",
        "BITS-Packet-Type": "Create-Session",
        "BITS-Supported-Protocols": "{7df0354d-249b-430f-820d-3d2a9bef4931}",
        "Content-Name": "rfc2119.txt",
        "User-Agent": "Microsoft BITS/6.7",
    }
    request = packets.parse_request(headers.items(), 0)
    assert request.packet_type is PacketType.CREATE_SESSION
    assert request.supported_protocols == (packets.PROTOCOL,)
    assert request.content_name == "rfc2119.txt"


@pytest.mark.parametrize("text", ["CREATE-SESSION", "create-session", "Create-Session"])
def test_packet_types_and_header_names_match_in_any_case(text: str) -> None:
    request = packets.parse_request([("bits-PACKET-type", text)], 0)
    assert request.packet_type is PacketType.CREATE_SESSION
    assert request.supported_protocols == ()


def test_protocols_are_separated_by_blanks_or_commas_and_the_first_hundred_count() -> None:
    """[N6]"""
    ours, other = packets.render_guid(packets.PROTOCOL), packets.render_guid(uuid.UUID(int=1))
    for text in (f"{other} {ours}", f"{other},{ours}", f" {other} ,\t{ours},"):
        assert packets.parse_protocols(text) == (uuid.UUID(int=1), packets.PROTOCOL)
    assert packets.PROTOCOL in packets.parse_protocols(" ".join([other] * 99 + [ours]))
    assert packets.PROTOCOL not in packets.parse_protocols(" ".join([other] * 100 + [ours]))
    assert packets.parse_protocols("nonsense") == ()


@pytest.mark.parametrize(
    ("headers", "length", "status"),
    [
        ({}, 0, 400),
        ({"BITS-Packet-Type": "Hello"}, 0, 400),
        ({"BITS-Packet-Type": "Ack"}, 0, 400),
        ({"BITS-Packet-Type": "Ping"}, 1, 400),
        ({"BITS-Packet-Type": "Ping"}, None, 411),
        ({"BITS-Packet-Type": "Create-Session"}, 5, 400),
        ({"BITS-Packet-Type": "Close-Session"}, 0, 400),
        ({"BITS-Packet-Type": "Cancel-Session"}, 0, 400),
        ({"BITS-Packet-Type": "Close-Session", "BITS-Session-Id": "x" * 101}, 0, 400),
        ({"BITS-Packet-Type": "Close-Session", "BITS-Session-Id": "a b"}, 0, 400),
        ({"BITS-Packet-Type": "Fragment", "Content-Range": "bytes 0-1/2"}, 2, 400),
        ({"BITS-Packet-Type": "Fragment", "BITS-Session-Id": "s"}, 2, 400),
        ({"BITS-Packet-Type": "Fragment", "BITS-Session-Id": "s", "Content-Range": "bytes 0-1/2"}, None, 411),
        (
            {"BITS-Packet-Type": "Ping", "Content-Name": "x" * 4097},
            0,
            400,
        ),
        (
            {
                "BITS-Packet-Type": "Fragment",
                "BITS-Session-Id": "s",
                "Content-Range": "bytes 0-1/2",
                "Content-Encoding": "gzip",
            },
            2,
            400,
        ),
    ],
)
def test_a_malformed_request_gets_its_status(headers: dict[str, str], length: int | None, status: int) -> None:
    caught = refusal(headers, length)
    assert (caught.status, caught.name) == (status, "E_INVALIDARG")


def test_a_header_that_is_there_twice_must_say_the_same() -> None:
    twice = [("BITS-Packet-Type", "Close-Session"), ("BITS-Session-Id", "a"), ("bits-session-id", "b")]
    with pytest.raises(BadPacket):
        packets.parse_request(twice, 0)
    twice[-1] = ("bits-session-id", "a")
    assert packets.parse_request(twice, 0).session_id == "a"


def test_a_header_of_4096_characters_is_read_and_others_may_be_longer() -> None:
    headers = {"BITS-Packet-Type": "Ping", "Content-Name": "x" * 4096, "Authorization": "x" * 20_000}
    assert len(packets.parse_request(headers.items(), 0).content_name) == 4096


def test_a_ping_may_carry_a_session_id() -> None:
    """Digest, section 2 (1)."""
    request = packets.parse_request({"BITS-Packet-Type": "Ping", "BITS-Session-Id": SESSION}.items(), 0)
    assert request == Request(packet_type=PacketType.PING)


@pytest.mark.parametrize("method", ["BITS_POST", "POST"])
def test_a_method_may_be_overridden(method: str) -> None:
    override = [("x-http-method-override", "BITS_POST")]
    assert packets.is_upload_request(method, override)
    assert packets.is_upload_request(method, ()) == (method == "BITS_POST")
    assert not packets.is_upload_request("GET", override)
    assert not packets.is_upload_request("bits_post", ())


@pytest.mark.parametrize(
    ("value", "length", "expected"),
    [
        ("bytes 0-4891/4892", 4892, (0, 4892, 4892)),
        ("Bytes 128-212/213", 85, (128, 85, 213)),
        ("bytes 4294967296-4294967296/4294967297", 1, (2**32, 1, 2**32 + 1)),
        (f"bytes {2**63 - 2}-{2**63 - 2}/{2**63 - 1}", 1, (2**63 - 2, 1, 2**63 - 1)),
        ("bytes 0 - 1 / 2", 2, (0, 2, 2)),
        ("bytes */0", 0, (0, 0, 0)),
        ("bytes 0-0/0", 0, (0, 0, 0)),
        ("bytes 0--1/0", 0, (0, 0, 0)),
        ("bytes 0-18446744073709551615/0", 0, (0, 0, 0)),
        ("bytes 10-9/10", 0, (10, 0, 10)),
    ],
)
def test_content_range_is_read(value: str, length: int, expected: tuple[int, int, int]) -> None:
    """Digest, sections 2 (4), 9.5 and 9.6."""
    read = packets.parse_range(value, length)
    assert (read.offset, read.length, read.total) == expected


@pytest.mark.parametrize(
    ("value", "length"),
    [
        ("", 1),
        ("bytes 0-1", 2),
        ("bytes=0-1/2", 2),
        ("items 0-1/2", 2),
        ("bytes 0-1/*", 2),
        ("bytes 0-1/1", 2),
        ("bytes 1-0/2", 0),
        ("bytes 0-1/2", 3),
        ("bytes 0-1/2", 0),
        ("bytes 5-4/10", 0),
        ("bytes */0", 1),
        ("bytes */10", 0),
        ("bytes 0-0/0", 1),
        ("bytes 0--1/0", 1),
        ("bytes 0-18446744073709551615/0", 1),
        ("bytes 0-18446744073709551615/18446744073709551616", 0),
        (f"bytes {2**63}-{2**63}/{2**63 + 1}", 1),
        ("bytes -1-1/3", 3),
        ("bytes 0-0x1/2", 2),
        ("bytes ٠-1/2", 2),
        ("bytes 0-1/2\n", 2),
        ("bytes " + "9" * 4000 + "-1/2", 2),
    ],
)
def test_content_range_that_cannot_be_true_is_refused(value: str, length: int) -> None:
    with pytest.raises(BadPacket):
        packets.parse_range(value, length)


def test_every_form_of_an_empty_range_that_a_client_tries_is_read_by_a_server() -> None:
    for form in packets.EMPTY_RANGES:
        request = Request(
            packet_type=PacketType.FRAGMENT, session_id="s", range=FragmentRange(offset=0, length=0, total=0)
        )
        assert packets.parse_request(packets.render_request(request, empty_range=form), 0) == request


@given(st.integers(0, 2**62), st.integers(1, 2**40), st.integers(0, 2**40))
def test_any_range_that_is_written_is_read_again(offset: int, length: int, rest: int) -> None:
    carried = FragmentRange(offset=offset, length=length, total=offset + length + rest)
    assert packets.parse_range(packets.render_range(carried), length) == carried


@pytest.mark.parametrize(
    "ack",
    [
        Ack(status=200),
        Ack(status=201, session_id=SESSION, protocol=packets.PROTOCOL, host_id="b", host_id_fallback_timeout_s=110),
        Ack(status=200, received_bytes=213, reply_url="a/b"),
        Ack(status=416, received_bytes=0),
        Ack(status=500, error=error_code("BG_E_SESSION_NOT_FOUND").hresult, error_context=5),
    ],
)
def test_an_ack_that_is_written_is_read_again(ack: Ack) -> None:
    headers = packets.render_ack(ack)
    assert ("Content-Length", "0") in headers
    assert packets.parse_ack(ack.status, headers) == ack


def test_a_create_ack_says_that_only_identity_is_taken() -> None:
    headers = dict(packets.render_ack(Ack(status=200, protocol=packets.PROTOCOL)))
    assert headers["Accept-Encoding"] == "identity"


def test_an_answer_that_does_not_call_itself_an_ack_is_none() -> None:
    assert packets.parse_ack(200, ()) is None
    assert packets.parse_ack(200, [("BITS-Packet-Type", "Ping")]) is None
    assert packets.parse_ack(200, [("bits-packet-type", "ACK")]) is not None


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("BITS-Error-Code", "0x8020001F", 0x8020_001F),
        ("BITS-Error-Code", "8020001f", 0x8020_001F),
        ("BITS-Error", "0X80070005", 0x8007_0005),
        ("BITS-Error-Code", "1", 1),
        ("BITS-Error-Code", "", None),
        ("BITS-Error-Code", "-5", None),
        ("BITS-Error-Code", "0x1234567890", None),
    ],
)
def test_error_codes_are_read_in_every_form(name: str, value: str, expected: int | None) -> None:
    ack = packets.parse_ack(500, [("BITS-Packet-Type", "Ack"), (name, value)])
    assert ack is not None
    assert ack.error == expected


@pytest.mark.parametrize("value", ["", "-1", "1e3", "bytes 0-1", "0x10", str(2**63), "9" * 4000, "1 2", "٣"])
def test_a_received_range_that_is_no_number_counts_as_absent(value: str) -> None:
    ack = packets.parse_ack(200, [("BITS-Packet-Type", "Ack"), ("BITS-Received-Content-Range", value)])
    assert ack is not None
    assert ack.received_bytes is None


@pytest.mark.parametrize(("value", "expected"), [("110", 110), ("4294967295", None), ("", None), ("soon", None)])
def test_a_host_id_without_a_time_out_holds_for_ever(value: str, expected: int | None) -> None:
    headers = [("BITS-Packet-Type", "Ack"), ("BITS-Host-Id", "b"), ("BITS-Host-Id-Fallback-Timeout", value)]
    ack = packets.parse_ack(200, headers)
    assert ack is not None
    assert ack.host_id_fallback_timeout_s == expected


def test_any_visible_text_of_a_hundred_characters_is_a_session_id() -> None:
    for text in ("-12345", SESSION, "a0ff5911", "x" * 100, "../../etc/passwd"):
        assert packets.is_session_id(text)
    for text in ("", "x" * 101, "a b", "ä", "a\x00", "a\n"):
        assert not packets.is_session_id(text)
    guid = uuid.UUID("a0ff5911-4144-45b3-bf27-27afc8ec8a67")
    assert packets.render_session_id(guid) == SESSION


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rfc2119.txt", "rfc2119.txt"),
        ('a/b\\c:d*e?f"g<h>i|j', "a_b_c_d_e_f_g_h_i_j"),
        ("naïve\udcff\r\nX: y", "na_ve___X_ y"),
        ("x" * 300, "x" * 260),
    ],
)
def test_a_local_name_becomes_one_that_a_header_can_hold(name: str, expected: str) -> None:
    """[N3]"""
    assert packets.sendable_name(name) == expected
