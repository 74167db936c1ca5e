"""Channels: frames and descriptors over a SEQPACKET socket, without ever blocking."""

import array
import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openbits.frames.channel import MAX_DESCRIPTORS, Channel, ChannelClosed
from openbits.frames.codec import MAX_FRAME_BYTES, FrameError
from openbits.frames.worker import SERVICE_TO_WORKER, WORKER_TO_SERVICE, FileReceived, StopTransfer, TransferEnded


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert open_descriptors() == before


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = Channel.pair()
    service = Channel(ours, outgoing=SERVICE_TO_WORKER, incoming=WORKER_TO_SERVICE)
    worker = Channel(theirs, outgoing=WORKER_TO_SERVICE, incoming=SERVICE_TO_WORKER)
    yield service, worker
    service.close()
    worker.close()


def receive(channel: Channel) -> object:
    received = channel.receive()
    assert received is not None
    message, descriptors = received
    assert descriptors == []
    return message


def test_frames_arrive_in_order(ends: tuple[Channel, Channel]) -> None:
    service, worker = ends
    assert worker.receive() is None
    for number in range(3):
        service.send(StopTransfer(transfer=number))
    assert [receive(worker) for _ in range(3)] == [StopTransfer(transfer=number) for number in range(3)]
    assert worker.receive() is None
    worker.send(TransferEnded(transfer=1))
    assert receive(service) == TransferEnded(transfer=1)


def test_a_frame_of_the_largest_size_arrives(ends: tuple[Channel, Channel]) -> None:
    service, worker = ends
    room = MAX_FRAME_BYTES - len(WORKER_TO_SERVICE.encode(TransferEnded(transfer=1, message="x"))) + 1
    message = TransferEnded(transfer=1, message="x" * room)
    worker.send(message)
    assert receive(service) == message


def test_descriptors_travel_along_and_are_duplicates(ends: tuple[Channel, Channel]) -> None:
    service, worker = ends
    with open("/proc/self/status", "rb") as one, open("/proc/self/stat", "rb") as two:
        service.send(StopTransfer(transfer=1), (one.fileno(), two.fileno()))
        received = worker.receive()
    assert received is not None
    message, descriptors = received
    assert message == StopTransfer(transfer=1)
    assert len(descriptors) == 2
    for fd, name in zip(descriptors, ("status", "stat"), strict=True):
        assert os.readlink(f"/proc/self/fd/{fd}").endswith(name)
        assert not os.get_inheritable(fd)
        os.close(fd)


def test_too_many_descriptors_are_refused(ends: tuple[Channel, Channel]) -> None:
    service, _ = ends
    with pytest.raises(FrameError):
        service.send(StopTransfer(transfer=1), (0,) * (MAX_DESCRIPTORS + 1))


@pytest.mark.parametrize("count", [1, MAX_DESCRIPTORS, MAX_DESCRIPTORS + 1, 100])
def test_descriptors_of_a_packet_that_is_no_frame_are_closed(ends: tuple[Channel, Channel], count: int) -> None:
    service, worker = ends
    before = open_descriptors()
    socket.send_fds(_raw(worker), [b"nonsense"], [0] * count)
    with pytest.raises(FrameError):
        service.receive()
    assert open_descriptors() == before


def test_descriptors_beyond_the_limit_are_an_error_even_with_a_good_frame(ends: tuple[Channel, Channel]) -> None:
    service, worker = ends
    before = open_descriptors()
    packet = WORKER_TO_SERVICE.encode(TransferEnded(transfer=1))
    socket.send_fds(_raw(worker), [packet], [0] * (MAX_DESCRIPTORS + 1))
    with pytest.raises(FrameError, match="cut off"):
        service.receive()
    assert open_descriptors() == before


def test_a_packet_that_is_too_large_is_an_error(ends: tuple[Channel, Channel]) -> None:
    service, worker = ends
    _raw(worker).send(b" " * (MAX_FRAME_BYTES + 1))
    with pytest.raises(FrameError, match="cut off"):
        service.receive()


def test_the_end_of_the_other_side_is_told_after_what_it_said(ends: tuple[Channel, Channel]) -> None:
    service, worker = ends
    worker.send(TransferEnded(transfer=1))
    worker.close()
    assert receive(service) == TransferEnded(transfer=1)
    with pytest.raises(ChannelClosed):
        service.receive()
    with pytest.raises(ChannelClosed):
        service.send(StopTransfer(transfer=1))


def test_what_the_kernel_does_not_take_waits_in_order(ends: tuple[Channel, Channel]) -> None:
    """Back pressure: the owner is told to watch for writing, and when all is sent."""
    service, worker = ends
    told: list[bool] = []
    worker.on_wants_write = told.append
    big = "x" * 50_000
    sent = 0
    while not worker.wants_write:
        worker.send(TransferEnded(transfer=sent, message=big))
        sent += 1
    with open("/proc/self/status", "rb") as file:
        worker.send(TransferEnded(transfer=sent), (file.fileno(),))
    sent += 1
    assert told == [True]
    seen: list[int] = []
    while len(seen) < sent:
        received = service.receive()
        if received is None:
            worker.flush()
            continue
        message, descriptors = received
        assert isinstance(message, TransferEnded)
        seen.append(message.transfer)
        for fd in descriptors:
            assert os.readlink(f"/proc/self/fd/{fd}").endswith("status"), "a descriptor that was closed meanwhile"
            os.close(fd)
    assert seen == list(range(sent))
    assert told == [True, False]
    assert not worker.wants_write


def test_what_waits_is_dropped_with_its_descriptors_when_the_channel_is_closed(ends: tuple[Channel, Channel]) -> None:
    _, worker = ends
    while not worker.wants_write:
        worker.send(TransferEnded(transfer=1, message="x" * 50_000))
    before = open_descriptors()
    worker.send(TransferEnded(transfer=1), (0, 1))
    assert len(open_descriptors()) == len(before) + 2
    worker.close()
    assert len(open_descriptors()) == len(before) - 1, "all but the channel's own, which is closed too"


def test_flushing_to_nobody_is_told(ends: tuple[Channel, Channel]) -> None:
    service, worker = ends
    while not worker.wants_write:
        worker.send(TransferEnded(transfer=1, message="x" * 50_000))
    service.close()
    with pytest.raises(ChannelClosed):
        worker.flush()


def test_only_a_seqpacket_socket_keeps_frames_apart() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs, pytest.raises(ValueError, match="SEQPACKET"):
        Channel(ours, outgoing=SERVICE_TO_WORKER, incoming=WORKER_TO_SERVICE)


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=5))
@settings(deadline=None, max_examples=50)
def test_any_packet_is_a_frame_or_an_error(packets: list[bytes]) -> None:
    ours, theirs = Channel.pair()
    service = Channel(ours, outgoing=SERVICE_TO_WORKER, incoming=WORKER_TO_SERVICE)
    with theirs:
        for packet in packets:
            socket.send_fds(theirs, [packet], array.array("i", [0]))
            with contextlib.suppress(FrameError):
                service.receive()
        theirs.send(WORKER_TO_SERVICE.encode(FileReceived(transfer=1, index=2, received_bytes=3)))
        assert receive(service) == FileReceived(transfer=1, index=2, received_bytes=3)
    service.close()


def _raw(channel: Channel) -> socket.socket:
    return channel._sock
