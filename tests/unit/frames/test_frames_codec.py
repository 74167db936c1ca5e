"""Frames between the programs: what is sent arrives, and nothing else gets through."""

import dataclasses
import json
import math
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbits.frames import monitor, operations, worker
from openbits.frames.codec import MAX_FRAME_BYTES, Codec, FrameError

CODECS = {
    "service to monitor": monitor.SERVICE_TO_MONITOR,
    "monitor to service": monitor.MONITOR_TO_SERVICE,
    "monitor to zygote": monitor.MONITOR_TO_ZYGOTE,
    "zygote to monitor": monitor.ZYGOTE_TO_MONITOR,
    "service to worker": worker.SERVICE_TO_WORKER,
    "worker to service": worker.WORKER_TO_SERVICE,
}
CODEC = worker.WORKER_TO_SERVICE
FRAMES = [(codec, kind) for codec in CODECS.values() for kind in codec._kinds.values()]


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Everything that may stand in a field with this annotation."""
    if hint is int:
        return st.integers(1 - 2**63, 2**63 - 1)
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if hint is str:
        return st.text(st.characters(), max_size=30)
    if hint is type(None):
        return st.none()
    if hint is bool:
        return st.booleans()
    if typing.get_origin(hint) is tuple:
        return st.lists(values(typing.get_args(hint)[0]), max_size=3).map(tuple)
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return messages(hint)
    return st.one_of(*map(values, typing.get_args(hint)))


def messages(cls: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(cls)
    return st.builds(cls, **{field.name: values(hints[field.name]) for field in dataclasses.fields(cls)})


def check(codec: Codec, packet: bytes) -> None:
    """Decoding gives a frame that can travel on, or FrameError, and nothing else."""
    try:
        message = codec.decode(packet)
    except FrameError:
        return
    assert codec.decode(codec.encode(message)) == message


@pytest.mark.parametrize(("codec", "kind"), FRAMES, ids=[kind.__name__ for _, kind in FRAMES])
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_what_is_sent_arrives(codec: Codec, kind: type, data: st.DataObject) -> None:
    message = data.draw(messages(kind))
    packet = codec.encode(message)
    assert packet.isascii()
    assert codec.decode(packet) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@given(packet=st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_bytes_are_a_frame_or_an_error(codec: Codec, packet: bytes) -> None:
    check(codec, packet)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@given(data=st.data(), document=json_values)
@settings(max_examples=50, deadline=None)
def test_json_is_a_frame_or_an_error(codec: Codec, data: st.DataObject, document: Any) -> None:
    check(codec, json.dumps(document).encode())
    kind = data.draw(st.sampled_from(sorted(codec._kinds)))
    check(codec, json.dumps([kind, document]).encode())


@pytest.mark.parametrize(("codec", "kind"), FRAMES, ids=[kind.__name__ for _, kind in FRAMES])
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_a_frame_with_one_thing_wrong_is_a_frame_or_an_error(codec: Codec, kind: type, data: st.DataObject) -> None:
    name, fields = json.loads(codec.encode(data.draw(messages(kind))))
    key = data.draw(st.sampled_from([*fields, "more"]))
    if data.draw(st.booleans()):
        fields.pop(key, None)
    else:
        fields[key] = data.draw(json_values)
    check(codec, json.dumps([name, fields]).encode())


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\0",
        b"null",
        b"[]",
        b'["TransferEnded"]',
        b'["TransferEnded",{}]',
        b'["TransferEnded",{"transfer":1},3]',
        b'["TransferEnded",{"transfer":true}]',
        b'["TransferEnded",{"transfer":1.0}]',
        b'["TransferEnded",{"transfer":"1"}]',
        b'["TransferEnded",{"transfer":NaN}]',
        b'["TransferEnded",{"transfer":1,"else":1}]',
        b'["TransferEnded",{"transfer":1,"transient":1}]',
        b'["TransferEnded",{"transfer":1,"index":[]}]',
        b'["StartTransfer",{"transfer":1}]',
        b'["FilesDone",{"transfer":1,"files":{}}]',
        b'["FilesDone",{"transfer":1,"files":[[1,2]]}]',
        b'["FilesDone",{"transfer":1,"files":[{"index":1}]}]',
        b'["FilesStarted",{"transfer":1,"files":[{"transfer":1,"index":0}]}]',
        b'{"TransferEnded":{"transfer":1}}',
        b'["TransferEnded",{"transfer":1}] ',
        '["TransferEnded",{"transfer":1,"message":"é"}]'.encode(),
        b"[" * 100_000,
        b'["TransferEnded",{"transfer":' + b"1" * 5000 + b"}]",
    ],
)
def test_what_is_no_frame_is_an_error(packet: bytes) -> None:
    if packet.endswith(b"] "):
        # JSON may have white space around it: harmless, and the same frame.
        assert CODEC.decode(packet) == worker.TransferEnded(transfer=1)
        return
    with pytest.raises(FrameError):
        CODEC.decode(packet)


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity", "1" * 400])
def test_a_number_without_an_end_does_not_travel(number: str) -> None:
    """A pause of infinite length would never end, and nothing can be compared with NaN."""
    start = worker.StartTransfer(
        transfer=1,
        foreground=False,
        file_concurrency=1,
        umask=0o022,
        stall_timeout_s=60,
        connect_timeout_s=30,
        break_patience_s=30.5,
        checkpoint_bytes=1,
        checkpoint_s=5.0,
        strict_http=False,
        dynamic_content=False,
        high_performance=False,
        max_download_bytes=None,
        custom_headers="",
    )
    packet = worker.SERVICE_TO_WORKER.encode(start)
    assert worker.SERVICE_TO_WORKER.decode(packet) == start
    with pytest.raises(FrameError):
        worker.SERVICE_TO_WORKER.decode(packet.replace(b"30.5", number.encode()))
    for wrong in (math.inf, math.nan):
        with pytest.raises(FrameError):
            worker.SERVICE_TO_WORKER.decode(
                worker.SERVICE_TO_WORKER.encode(dataclasses.replace(start, break_patience_s=wrong))
            )


def test_a_whole_number_may_stand_for_a_float_and_becomes_one() -> None:
    @dataclasses.dataclass(frozen=True)
    class Wait:
        seconds: float

    codec = Codec()
    codec.frame(Wait)
    decoded = codec.decode(b'["Wait",{"seconds":3}]')
    assert decoded == Wait(3.0)
    assert isinstance(decoded, Wait)
    assert type(decoded.seconds) is float


def test_a_frame_travels_on_its_own_channel_only() -> None:
    with pytest.raises(FrameError, match="does not travel here"):
        CODEC.encode(worker.StopTransfer(transfer=1))
    with pytest.raises(FrameError, match="does not travel here"):
        CODEC.encode(worker.RangeSpec(offset=0, length=1))
    with pytest.raises(FrameError, match="does not travel here"):
        CODEC.decode(worker.SERVICE_TO_WORKER.encode(worker.StopTransfer(transfer=1)))


def test_another_class_of_the_same_name_does_not_travel() -> None:
    impostor = dataclasses.make_dataclass("TransferEnded", [("transfer", int)])
    with pytest.raises(FrameError, match="does not travel here"):
        CODEC.encode(impostor(1))


def test_two_frames_of_a_channel_have_two_names() -> None:
    codec = Codec()
    codec.frame(worker.StopTransfer)
    with pytest.raises(AssertionError):
        codec.frame(worker.StopTransfer)


def test_a_frame_has_a_largest_size() -> None:
    room = MAX_FRAME_BYTES - len(CODEC.encode(worker.TransferEnded(transfer=1, message="x"))) + 1
    fits = worker.TransferEnded(transfer=1, message="x" * room)
    assert len(CODEC.encode(fits)) == MAX_FRAME_BYTES
    with pytest.raises(FrameError, match="too large"):
        CODEC.encode(dataclasses.replace(fits, message="x" * (room + 1)))


def test_names_of_any_bytes_travel() -> None:
    """Local names are bytes: what is no UTF-8 comes as lone surrogates and leaves as they came."""
    raw = bytes(range(1, 256))
    result = operations.FileResult(index=0, message=raw.decode("utf-8", "surrogateescape"))
    message = operations.OperationResults(operation=1, results=(result,), last=True)
    decoded = CODEC.decode(CODEC.encode(message))
    assert isinstance(decoded, operations.OperationResults)
    assert decoded.results[0].message.encode("utf-8", "surrogateescape") == raw
