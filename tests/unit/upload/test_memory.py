"""What a later run finds: whole, or nothing; never an exception."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openbits.upload import bitsmemory
from openbits.upload.bitsmemory import Memory
from openbits.upload.conversation import MEMORY_LIMIT, Begin, Upload
from openbits.upload.memory import BadMemory, Fields, protocol_of, read_memory, write_memory
from openbits.upload.pace import MOST_BYTES, Pace
from openbits.upload.progress import Progress
from openbits.upload.protocols import start

UPLOAD = Upload(url="http://server/f", name="f", size=100)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)
KEYS = st.sampled_from(
    [
        "protocol",
        "version",
        "target",
        "size",
        "session",
        "host",
        "fallback_s",
        "unreachable_since",
        "mark",
        "setbacks",
        "is_received",
        "reply_url",
        "has_reply",
        "highest",
        "lost",
        "empty_form",
        "cap_bytes",
        "good_bytes",
        "location",
        "least_bytes",
        "most_bytes",
    ]
)


def test_what_was_written_is_read_again() -> None:
    memory = Memory(
        session="{A}",
        host="[::1]",
        fallback_s=0,
        unreachable_since=12.5,
        is_received=True,
        reply_url="http://server/r",
        has_reply=True,
        empty_form=2,
        progress=Progress(mark=5, setbacks=3, highest=2**40, lost=2),
        pace=Pace(next_bytes=10_000, cap_bytes=10_000, good_bytes=9_000),
    )
    text = bitsmemory.write(memory, UPLOAD)
    assert bitsmemory.read(read_memory(text, "bits", UPLOAD)) == memory
    assert protocol_of(text) == "bits"


def test_the_longest_memory_fits() -> None:
    memory = Memory(
        session="x" * 100,
        host="h" * 300,
        unreachable_since=1e11 + 0.123456,
        is_received=True,
        reply_url="http://" + "u" * 2_193,
        progress=Progress(mark=2**63 - 1, setbacks=10, highest=2**63 - 1, lost=5),
        pace=Pace(cap_bytes=MOST_BYTES, good_bytes=MOST_BYTES),
    )
    assert len(bitsmemory.write(memory, UPLOAD)) <= MEMORY_LIMIT


def test_a_memory_of_another_target_or_protocol_is_none() -> None:
    text = write_memory("bits", UPLOAD, {})
    assert read_memory(text, "bits", UPLOAD) is not None
    assert read_memory(text, "tus", UPLOAD) is None
    assert read_memory(text, "bits", Upload(url="http://server/g", name="f", size=100)) is None


@pytest.mark.parametrize("value", ["x", None, -1, 1.5, True, 11])
def test_a_number_is_a_number(value: object) -> None:
    with pytest.raises(BadMemory):
        Fields({"n": value}).number("n", 10)


@given(st.text() | JSON.map(json.dumps))
def test_no_text_is_an_exception(text: str) -> None:
    for protocol in ("auto", "bits", "tus", "ietf", "put"):
        assert start(protocol, UPLOAD, text, 5).step(Begin(), 0.0).effects


@given(st.dictionaries(KEYS, JSON, max_size=4), st.integers(-5, 200), st.sampled_from(["bits", "tus", "ietf"]))
def test_no_damage_is_an_exception(damage: dict[str, object], acknowledged_bytes: int, protocol: str) -> None:
    good = json.loads(write_memory(protocol, UPLOAD, {"session": "S", "location": "http://server/7"}))
    text = json.dumps(good | damage)
    assert start("auto", UPLOAD, text, acknowledged_bytes).step(Begin(), 0.0).effects
