"""The event stream: parsed however it is cut, taken up where it broke off."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import openbits
from openbits import JobState
from openbits.client.discovery import Endpoint
from openbits.client.events import PATIENCE_S, EventParser, EventStream, Message, Reconnect
from openbits.client.manager import Manager
from openbits.client.pool import ConnectionPool
from openbits.errors import BitsError
from support.fake_api import HANG_UP, FakeApi, Reply, Request, event, job_out, problem

STREAM = (
    b": hello\n\n"
    b'event: snapshot\ndata: {"a": 1}\n\n'
    b'id: 7\r\nevent: job\r\ndata: {"b":\r\ndata:  2}\r\n\r\n'
    b'event: progress\ndata: {"c": 3}\nretry: 5\nunknown\n\n'
)
MESSAGES = [Message("snapshot", {"a": 1}), Message("job", {"b": 2}), Message("progress", {"c": 3})]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_are_the_same_however_they_are_cut(places: list[int]) -> None:
    parser = EventParser()
    edges = [0, *sorted(places), len(STREAM)]
    messages = [message for start, end in itertools.pairwise(edges) for message in parser.feed(STREAM[start:end])]
    assert messages == MESSAGES
    assert parser.last_id == 7


def test_half_a_message_is_forgotten_at_a_new_connection() -> None:
    parser = EventParser()
    parser.feed(b'event: job\ndata: {"half":')
    parser.begin()
    assert parser.feed(b'event: job\ndata: {"whole": 1}\n\n') == [Message("job", {"whole": 1})]


def test_an_event_that_is_not_json_is_an_error() -> None:
    with pytest.raises(BitsError, match="not JSON"):
        EventParser().feed(b"data: {\n\n")


def test_pauses_grow_and_end() -> None:
    reconnect = Reconnect()
    assert [reconnect.pause_after_failure(100.0) for _ in range(7)] == [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert reconnect.pause_after_failure(100.0 + PATIENCE_S + 1) is None
    reconnect.succeeded()
    assert reconnect.pause_after_failure(1000.0) == 0.0


def stream(api: FakeApi, **options: bool | int | str) -> EventStream:
    return EventStream(ConnectionPool(Endpoint(api.path)), **options)  # type: ignore[arg-type]  # the test's shorthand


def read(events: EventStream, count: int) -> list[Message]:
    messages: list[Message] = []
    deadline = time.monotonic() + 10
    while len(messages) < count and time.monotonic() < deadline:
        messages += events.wait_messages(10)
    return messages


def test_a_broken_stream_goes_on_after_the_last_event() -> None:
    first = Reply(parts=(event("job", {"n": 1}, 41), event("progress", {"n": 2})), close=True)
    second = Reply(parts=(event("job", {"n": 3}, 42),), close=True)
    with FakeApi({"GET /v1/events": [first, HANG_UP, second]}) as api, stream(api, after=0) as events:
        assert [message.data["n"] for message in read(events, 3)] == [1, 2, 3]
        assert [request.query.get("after") for request in api.requests] == ["0", None, None]
        assert [request.headers.get("last-event-id") for request in api.requests] == [None, "41", "41"]


def test_a_service_that_restarts_is_waited_for() -> None:
    first = Reply(parts=(event("job", {"n": 1}, 1),), close=True)
    second = Reply(parts=(event("job", {"n": 2}, 2),), close=True)
    with FakeApi({"GET /v1/events": [first, second]}) as api, stream(api) as events:
        assert len(read(events, 1)) == 1
        api.stop()
        assert events.wait_messages(0.2) == []
        api.listen()
        assert [message.data["n"] for message in read(events, 1)] == [2]


def test_a_first_connection_to_nobody_fails_at_once() -> None:
    with FakeApi({}) as api:
        api.stop()
        began = time.monotonic()
        with stream(api) as events, pytest.raises(BitsError) as caught:
            events.wait_messages()
        assert caught.value.name == "ERROR_SERVICE_NOT_ACTIVE"
        assert time.monotonic() - began < 1
        api.listen()


def test_a_refusal_is_an_error_and_is_not_tried_again() -> None:
    with FakeApi({"GET /v1/events": problem("E_ACCESSDENIED", 0x80070005, "no")}) as api:
        with stream(api, all_users=True) as events, pytest.raises(BitsError) as caught:
            events.wait_messages(10)
        assert caught.value.name == "E_ACCESSDENIED"
        assert api.targets() == ["GET /v1/events?all_users=1"]


def test_kept_events_end_when_nobody_follows() -> None:
    with FakeApi({"GET /v1/events": Reply(parts=(event("job", {"n": 1}, 1),))}) as api:
        with stream(api, after=0, follow=False) as events:
            assert len(read(events, 1)) == 1
            assert events.is_over or events.wait_messages(10) == []
            assert events.is_over
        assert api.targets() == ["GET /v1/events?after=0&follow=0"]


def test_a_time_limit_ends_the_wait() -> None:
    hold = threading.Event()
    with FakeApi({"GET /v1/events": Reply(parts=(b": x\n\n", b": y\n\n"), wait=hold)}) as api, stream(api) as events:
        began = time.monotonic()
        assert events.wait_messages(0.1) == []
        assert 0.09 < time.monotonic() - began < 2
        hold.set()


def changed(state: str, event_id: int) -> bytes:
    data = {
        "id": event_id,
        "time": "2026-01-02T03:04:05Z",
        "kind": "state",
        "job_id": "1",
        "text": "",
        "job": job_out(state=state),
    }
    return event("job", data, event_id)


def test_wait_ends_with_a_state_that_was_asked_for_or_a_final_one() -> None:
    parts = (
        event("snapshot", job_out(state="QUEUED")),
        changed("TRANSFERRING", 5),
        changed("TRANSFERRED", 6),
        changed("CANCELLED", 7),
    )
    with FakeApi({"GET /v1/jobs/1": Reply(json=job_out(id="1")), "GET /v1/events": Reply(parts=parts)}) as api:
        job = Manager(api.path).get_job("{1}")
        assert job.wait() is JobState.TRANSFERRED
        assert job.wait({JobState.TRANSFERRING}) is JobState.TRANSFERRING
        assert job.wait({JobState.ERROR}) is JobState.CANCELLED
        assert api.targets()[1] == "GET /v1/events?job=1"


def test_wait_gives_up_in_time() -> None:
    hold = threading.Event()
    routes = {
        "GET /v1/jobs/1": Reply(json=job_out(id="1")),
        "GET /v1/events": Reply(parts=(event("snapshot", job_out()), changed("TRANSFERRED", 6)), wait=hold),
    }
    with FakeApi(routes) as api:
        job = Manager(api.path).get_job("1")
        with pytest.raises(TimeoutError):
            job.wait(timeout=0.1)
        hold.set()


def test_events_of_a_job_are_typed() -> None:
    def answer(request: Request) -> Reply:
        assert request.query == {"job": "1"}
        progress = {
            "job_id": "1",
            "bytes_transferred": 5,
            "bytes_total": None,
            "files_transferred": 0,
            "files_total": 1,
        }
        return Reply(parts=(event("snapshot", job_out(id="1")), event("progress", progress), changed("ERROR", 9)))

    with FakeApi({"GET /v1/jobs/1": Reply(json=job_out(id="1")), "GET /v1/events": answer}) as api:
        events = Manager(api.path).get_job("1").events()
        snapshot, progress, error = next(events), next(events), next(events)
        events.close()
    assert snapshot.type == "snapshot"
    assert snapshot.job is not None
    assert progress.progress is not None
    assert (progress.progress.bytes_transferred, progress.progress.bytes_total) == (5, None)
    assert (error.id, error.kind) == (9, "state")
    assert error.job is not None
    assert error.job.state is JobState.ERROR


def test_the_asyncio_twin_waits_and_takes_a_broken_stream_up_again() -> None:
    first = Reply(parts=(event("snapshot", job_out(state="QUEUED")), changed("TRANSFERRING", 5)), close=True)
    second = Reply(parts=(changed("TRANSFERRED", 6),))
    hold = threading.Event()
    silent = Reply(parts=(b": x\n\n", b": y\n\n"), wait=hold)

    async def follow(path: str) -> None:
        async with openbits.aio.Manager(path) as manager:
            job = await manager.get_job("1")
            assert await job.wait() is JobState.TRANSFERRED
            with pytest.raises(TimeoutError):
                await job.wait(timeout=0.1)
            hold.set()

    with FakeApi({"GET /v1/jobs/1": Reply(json=job_out(id="1")), "GET /v1/events": [first, second, silent]}) as api:
        asyncio.run(follow(api.path))
        assert [request.headers.get("last-event-id") for request in api.requests[1:]] == [None, "5", None]
