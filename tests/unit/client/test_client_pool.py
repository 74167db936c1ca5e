"""How a call travels: kept connections, restarts of the service, and when a request is sent twice."""

from __future__ import annotations

import os
import threading

import pytest

from openbits.client import calls
from openbits.client.discovery import Endpoint, candidates
from openbits.client.identity import Identity, current_identity
from openbits.client.session import Session
from openbits.client.transport import Connection
from openbits.errors import BitsError, ExitCode
from support.fake_api import HANG_UP, FakeApi, Reply, problem

OK = Reply(json={"ok": 1})


def session(api: FakeApi) -> Session:
    return Session(Endpoint(api.path))


def connections(api: FakeApi) -> list[int]:
    return [request.connection for request in api.requests]


def test_one_connection_is_kept_for_all_calls() -> None:
    with FakeApi({"GET /v1/version": OK}) as api:
        client = session(api)
        for _ in range(3):
            assert client.perform(calls.version()) == {"ok": 1}
        assert connections(api) == [1, 1, 1]
        assert client.pool.statistics() == {"identities": 1, "idle": 1, "opened": 1}
        client.close()


def test_threads_never_share_a_connection_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=10)

    def slowly(_: object) -> Reply:
        both.wait()
        return OK

    with FakeApi({"GET /v1/version": slowly}) as api:
        client = session(api)
        threads = [threading.Thread(target=client.perform, args=(calls.version(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sorted(connections(api)) == [1, 2]
        client.close()


def test_each_identity_has_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    opened_as: list[Identity] = []

    def connect(endpoint: Endpoint, identity: Identity) -> Connection:
        opened_as.append(identity)
        return endpoint.connect()

    monkeypatch.setattr("openbits.client.pool.connect_as", connect)
    anna, bert, bert_with_group = Identity(7, 7, ()), Identity(8, 7, ()), Identity(8, 7, (9,))
    with FakeApi({"GET /v1/version": OK}) as api:
        client = session(api)
        for identity in (anna, bert, anna, bert_with_group, bert):
            client.perform(calls.version(), identity)
        assert connections(api) == [1, 2, 1, 3, 2]
        assert opened_as == [anna, bert, bert_with_group]
        client.close()


def test_who_says_nothing_calls_as_the_process() -> None:
    with FakeApi({"GET /v1/version": OK}) as api:
        client = session(api)
        client.perform(calls.version())
        client.perform(calls.version(), current_identity())
        assert connections(api) == [1, 1]
        client.close()


def test_a_connection_that_the_service_closed_is_replaced_before_anything_is_sent() -> None:
    with FakeApi({"POST /v1/jobs/1/cancel": OK, "GET /v1/version": OK}) as api:
        client = session(api)
        client.perform(calls.version())
        api.stop()
        api.listen()
        client.perform(calls.cancel("1"))
        assert api.targets() == ["GET /v1/version", "POST /v1/jobs/1/cancel"]
        client.close()


def test_a_repeatable_call_without_an_answer_is_sent_once_more() -> None:
    with FakeApi({"GET /v1/version": [HANG_UP, OK]}) as api:
        assert session(api).perform(calls.version()) == {"ok": 1}
        assert connections(api) == [1, 2]


def test_a_call_that_may_have_been_carried_out_is_not_sent_again() -> None:
    with FakeApi({"POST /v1/jobs": HANG_UP}) as api:
        with pytest.raises(BitsError) as caught:
            session(api).perform(calls.create_job(calls.job_in("x")))
        assert caught.value.name == "RPC_S_CALL_FAILED"
        assert len(api.requests) == 1


def test_an_answer_that_ends_in_the_middle_is_an_error() -> None:
    half = Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", close=True)
    with FakeApi({"GET /v1/version": half}) as api:
        with pytest.raises(BitsError, match="ended in the middle"):
            session(api).perform(calls.version())
        assert len(api.requests) == 1


def test_connection_close_is_obeyed() -> None:
    answer = Reply(raw=b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", close=True)
    with FakeApi({"GET /v1/version": answer}) as api:
        client = session(api)
        client.perform(calls.version())
        client.perform(calls.version())
        assert connections(api) == [1, 2]


def test_problems_become_the_error_of_the_table() -> None:
    routes = {"POST /v1/jobs/1/resume": problem("BG_E_EMPTY", 0x80200003, "the job has no files: add one", status=409)}
    with FakeApi(routes) as api:
        with pytest.raises(BitsError) as caught:
            session(api).perform(calls.resume("1"))
        assert str(caught.value) == "BG_E_EMPTY (0x80200003): the job has no files: add one"
        assert caught.value.code.exit_code is ExitCode.WRONG_STATE


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (
            problem("BG_E_FROM_THE_FUTURE", 0x80200001, "soon"),
            "BG_E_NOT_FOUND (0x80200001): BG_E_FROM_THE_FUTURE: soon",
        ),
        (problem("BG_E_FROM_THE_FUTURE", 0x8FFFFFFF, "soon"), "E_FAIL (0x80004005): BG_E_FROM_THE_FUTURE: soon"),
        (Reply(status=500, json=None), "RPC_S_CALL_FAILED"),
        (Reply(status=500, json=[1]), "RPC_S_CALL_FAILED"),
        (Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{"), "RPC_S_CALL_FAILED"),
        (Reply(raw=b"nonsense\r\n\r\n"), "RPC_S_CALL_FAILED"),
    ],
)
def test_every_other_answer_is_still_an_error_of_the_table(reply: Reply, expected: str) -> None:
    with FakeApi({"GET /v1/jobs/1": reply}) as api:
        with pytest.raises(BitsError) as caught:
            session(api).perform(calls.job("1"))
        assert str(caught.value).startswith(expected)


def test_an_answer_of_another_shape_is_an_error() -> None:
    answer = Reply(status=201, json={"identity": "1"})
    with FakeApi({"POST /v1/jobs": answer}) as api, pytest.raises(BitsError, match="another shape"):
        session(api).perform(calls.create_job(calls.job_in("x")))


def test_a_socket_that_nobody_listens_on_counts_as_no_service() -> None:
    with FakeApi({}) as api:
        api.stop()
        assert os.path.exists(api.path)
        with pytest.raises(BitsError) as caught:
            session(api).perform(calls.version())
        assert caught.value.name == "ERROR_SERVICE_NOT_ACTIVE"
        assert caught.value.code.exit_code is ExitCode.NO_SERVICE
        api.listen()


def test_a_path_longer_than_a_socket_address_is_reached(tmp_path: object) -> None:
    with FakeApi({"GET /v1/version": OK}) as api:
        deep = os.path.join(str(tmp_path), "d" * 100)
        os.mkdir(deep)
        os.rename(api.path, os.path.join(deep, "bitsd.sock"))
        assert Session(Endpoint(os.path.join(deep, "bitsd.sock"))).perform(calls.version()) == {"ok": 1}
        os.rename(os.path.join(deep, "bitsd.sock"), api.path)


def test_places_are_tried_in_order_and_a_named_one_alone() -> None:
    environment = {"XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/anna"}
    assert [place.path for place in candidates(None, environment)] == [
        "/run/openbits/bitsd.sock",
        "/run/user/7/openbits/bitsd.sock",
    ]
    environment["BITS_SOCKET"] = "/a"
    assert [(place.path, place.source) for place in candidates(None, environment)] == [("/a", "BITS_SOCKET")]
    assert [(place.path, place.source) for place in candidates("/b", environment)] == [("/b", "--socket")]


def test_start_is_called_once_and_only_where_nobody_answers() -> None:
    started: list[int] = []
    with FakeApi({"GET /v1/version": OK}) as api:
        api.stop()

        def start() -> None:
            started.append(1)
            api.listen()

        client = Session(Endpoint(api.path, start=start))
        client.perform(calls.version())
        client.perform(calls.version())
        assert started == [1]
        client.close()


def test_a_service_that_has_answered_is_neither_exchanged_nor_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeApi({"GET /v1/version": OK}) as first, FakeApi({"GET /v1/version": OK}) as second:
        monkeypatch.setattr("openbits.paths.SYSTEM_SOCKET", first.path)
        monkeypatch.setattr("openbits.paths.user_socket", lambda _: second.path)
        monkeypatch.delenv("BITS_SOCKET", raising=False)
        client = Session(Endpoint(start=lambda: pytest.fail("it was started")))
        client.perform(calls.version())
        first.stop()
        with pytest.raises(BitsError) as caught:
            client.perform(calls.version())
        assert caught.value.name == "ERROR_SERVICE_NOT_ACTIVE"
        assert second.requests == []
        first.listen()


def test_a_child_leaves_its_parents_connections_alone() -> None:
    with FakeApi({"GET /v1/version": OK}) as api:
        client = session(api)
        client.perform(calls.version())
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if client.perform(calls.version()) == {"ok": 1} else 1)
            finally:
                os._exit(2)
        assert os.waitpid(pid, 0)[1] == 0
        client.perform(calls.version())
        assert connections(api) == [1, 2, 1]
        client.close()
