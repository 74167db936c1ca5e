"""Client certificates, security flags, methods, and programs that judge, in both clients (H1-H4, H7, H10, H12, 4.6)."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import openbits
from openbits import BitsError, CertificateStoreLocation, Result, SecurityFlags
from openbits.client.validation import BROKEN, REFUSED, word_of, word_of_failure
from support.fake_api import FakeApi, Reply, Request, event, job_out, problem

SHA1 = bytes(range(20))
DETAIL = {**job_out(id="1"), "settings": {"security_flags": 0x109, "http_method": ""}}
OK = Reply(json={"result": "S_OK", "hresult": 0, "job": job_out()})
SERVER_LEAF, ISSUER = b"leaf \xff", b"issuer"
TARGET = "/v1/jobs/1/certificate-validation"


def question(number: int) -> bytes:
    return event(
        "question",
        {
            "question": f"{number:032x}",
            "job_id": "1",
            "file": number,
            "server": "host:443",
            "certificate": base64.b64encode(SERVER_LEAF).decode(),
            "chain": [base64.b64encode(ISSUER).decode()],
        },
    )


BEGUN = event("begun", {"job_id": "1", "answer_s": 60})
OVER = event("over", {"reason": "replaced"})


async def call_async(path: str, name: str, *arguments: Any) -> Any:
    async with openbits.aio.Manager(path) as manager:
        return await getattr(await manager.get_job("1"), name)(*arguments)


def call_blocking(path: str, name: str, *arguments: Any) -> Any:
    return getattr(openbits.Manager(path).get_job("1"), name)(*arguments)


def call_awaited(path: str, name: str, *arguments: Any) -> Any:
    return asyncio.run(call_async(path, name, *arguments))


both = pytest.mark.parametrize("call", [call_blocking, call_awaited], ids=["blocking", "asyncio"])


@both
def test_h1_h4_client_certificates(call: Callable[..., Any]) -> None:
    shown = {"location": "local_machine", "store": "MY", "sha1": SHA1.hex(), "subject": None}
    target = "/v1/jobs/1/client-certificate"
    routes = {
        "GET /v1/jobs/1": Reply(json=DETAIL),
        f"PUT {target}": OK,
        f"DELETE {target}": Reply(json={"result": "S_FALSE", "hresult": 1, "job": job_out()}),
        f"GET {target}": Reply(json=shown),
    }
    with FakeApi(routes) as api:
        assert call(api.path, "set_client_certificate_by_id", CertificateStoreLocation.LOCAL_MACHINE, "MY", SHA1) is (
            Result.S_OK
        )
        assert api.requests[-1].json == {"location": "local_machine", "store": "MY", "sha1": SHA1.hex()}
        call(api.path, "set_client_certificate_by_id", "current_user", "MY", "AA:BB")
        assert api.requests[-1].json["sha1"] == "AA:BB"
        call(api.path, "set_client_certificate_by_name", "current_user", "MY", "Anna")
        assert api.requests[-1].json == {"location": "current_user", "store": "MY", "subject": "Anna"}
        found = call(api.path, "get_client_certificate")
        assert (found.location, found.store, found.sha1) == (CertificateStoreLocation.LOCAL_MACHINE, "MY", SHA1)
        assert found.subject is None
        assert call(api.path, "remove_client_certificate") is Result.S_FALSE
        with pytest.raises(BitsError) as caught:
            call(api.path, "set_client_certificate_by_id", "moon", "MY", SHA1)
        assert caught.value.name == "E_NOTIMPL"


@both
def test_h7_h10_security_flags_and_method(call: Callable[..., Any]) -> None:
    with FakeApi({"GET /v1/jobs/1": Reply(json=DETAIL), "PATCH /v1/jobs/1": OK}) as api:
        flags = SecurityFlags.BG_SSL_IGNORE_UNKNOWN_CA | SecurityFlags.BG_HTTP_REDIRECT_POLICY_ALLOW_REPORT
        assert call(api.path, "set_security_flags", flags) is Result.S_OK
        assert api.requests[-1].json == {"security_flags": 0x108}
        assert call(api.path, "get_security_flags") == SecurityFlags.BG_SSL_ENABLE_CRL_CHECK | flags
        assert call(api.path, "get_http_method") == "GET"
        call(api.path, "set_http_method", "POST")
        assert api.requests[-1].json == {"http_method": "POST"}
        with pytest.raises(BitsError, match="E_INVALIDARG"):
            call(api.path, "set_http_method", "")
    upload = {**DETAIL, "type": "upload", "settings": {"http_method": ""}}
    with FakeApi({"GET /v1/jobs/1": Reply(json=upload)}) as api:
        assert call(api.path, "get_http_method") == "BITS_POST"


# --- programs that judge ----------------------------------------------------------------------------


class Judged:
    """A service that asks what the test says, and remembers the answers."""

    def __init__(self, *parts: bytes) -> None:
        self.answers: list[dict[str, Any]] = []
        self.all_answered = threading.Event()
        self._wanted = sum(b"event: question" in part for part in parts)
        routes: dict[str, Any] = {
            "GET /v1/jobs/1": Reply(json=DETAIL),
            f"POST {TARGET}": Reply(parts=(*parts, OVER), wait=self.all_answered),
            f"DELETE {TARGET}": OK,
        }
        for number in range(10):
            routes[f"PUT {TARGET}/{number:032x}"] = self._take
        self.api = FakeApi(routes)

    def _take(self, request: Request) -> Reply:
        self.answers.append(request.json)
        if len(self.answers) == self._wanted:
            self.all_answered.set()
        return Reply(json={"result": "S_OK"})


@contextmanager
def judging(*parts: bytes) -> Iterator[Judged]:
    judged = Judged(*parts)
    with judged.api:
        yield judged
        assert judged.all_answered.wait(10)


def set_blocking(path: str, callback: Any, done: threading.Event) -> None:
    assert openbits.Manager(path).get_job("1").set_server_certificate_validation_interface(callback) is Result.S_OK
    assert done.wait(10)


def set_awaited(path: str, callback: Any, done: threading.Event) -> None:
    async def story() -> None:
        async with openbits.aio.Manager(path) as manager:
            job = await manager.get_job("1")
            assert await job.set_server_certificate_validation_interface(callback) is Result.S_OK
            assert await asyncio.to_thread(done.wait, 10)

    asyncio.run(story())


both_set = pytest.mark.parametrize("set_callback", [set_blocking, set_awaited], ids=["blocking", "asyncio"])


@both_set
def test_46_a_callback_sees_job_file_and_certificates_and_its_word_is_told(set_callback: Callable[..., None]) -> None:
    seen: list[tuple[Any, ...]] = []
    results: list[Any] = [None, True, False, 0, "yes"]

    def callback(job: Any, file: Any, certificate: bytes, chain: list[bytes]) -> Any:
        seen.append((job.id, file.index, certificate, chain))
        return results[file.index]

    with judging(BEGUN + question(0), *(question(number) for number in range(1, 5))) as judged:
        set_callback(judged.api.path, callback, judged.all_answered)
    assert seen == [("1", number, SERVER_LEAF, [ISSUER]) for number in range(5)]
    assert [answer["error"] for answer in judged.answers] == [None, None, REFUSED, BROKEN, BROKEN]
    assert "neither None, True nor False" in judged.answers[3]["message"]


@both_set
def test_46_a_callback_that_raises_refuses_and_is_asked_again(set_callback: Callable[..., None]) -> None:
    failures: list[BaseException] = [
        BitsError("CERT_E_UNTRUSTEDROOT", "not ours"),
        ValueError("bad luck"),
        BitsError("S_FALSE"),
    ]

    def callback(_job: Any, file: Any, _certificate: bytes, _chain: list[bytes]) -> Any:
        if file.index < len(failures):
            raise failures[file.index]

    with judging(BEGUN, *(question(number) for number in range(4))) as judged:
        set_callback(judged.api.path, callback, judged.all_answered)
    assert [answer["error"] for answer in judged.answers] == ["CERT_E_UNTRUSTEDROOT", BROKEN, BROKEN, None]
    assert judged.answers[0]["message"] == "not ours"
    assert judged.answers[1]["message"] == "it failed: ValueError: bad luck"


def test_46_a_coroutine_function_is_awaited() -> None:
    async def callback(_job: Any, file: Any, _certificate: bytes, _chain: list[bytes]) -> bool:
        await asyncio.sleep(0)
        return bool(file.index)

    with judging(BEGUN, question(0), question(1)) as judged:
        set_awaited(judged.api.path, callback, judged.all_answered)
    assert [answer["error"] for answer in judged.answers] == [REFUSED, None]


def test_46_a_callback_that_exits_refuses_and_does_not_end_the_thread() -> None:
    def callback(_job: Any, file: Any, _certificate: bytes, _chain: list[bytes]) -> None:
        if not file.index:
            raise SystemExit(1)

    with judging(BEGUN, question(0), question(1)) as judged:
        set_blocking(judged.api.path, callback, judged.all_answered)
    assert [answer["error"] for answer in judged.answers] == [BROKEN, None]


@both
def test_h12_what_is_no_function(call: Callable[..., Any]) -> None:
    with judging(BEGUN) as judged:
        judged.all_answered.set()
        with pytest.raises(BitsError) as caught:
            call(judged.api.path, "set_server_certificate_validation_interface", "no function")
        assert caught.value.name == "E_NOINTERFACE"
        assert call(judged.api.path, "set_server_certificate_validation_interface", None) is Result.S_OK
        assert judged.api.targets()[-1] == f"DELETE {TARGET}"
        assert not any(target.startswith("POST") for target in judged.api.targets())


@both
def test_h12_a_refusal_is_raised_at_the_call(call: Callable[..., Any]) -> None:
    refusal = problem("BG_E_READ_ONLY_WHEN_JOB_ACTIVE", 0x80200075, "the job is QUEUED: suspend it", status=409)
    with FakeApi({"GET /v1/jobs/1": Reply(json=DETAIL), f"POST {TARGET}": refusal}) as api:
        with pytest.raises(BitsError) as caught:
            call(api.path, "set_server_certificate_validation_interface", lambda *_: None)
        assert caught.value.name == "BG_E_READ_ONLY_WHEN_JOB_ACTIVE"


@both_set
def test_h12_the_end_of_the_service_is_said_in_the_log(
    set_callback: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    ended = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "nobody checks" in record.getMessage():
                ended.set()

    hears = Handler()
    logging.getLogger("openbits.client").addHandler(hears)
    try:
        with FakeApi({"GET /v1/jobs/1": Reply(json=DETAIL), f"POST {TARGET}": Reply(parts=(BEGUN,))}) as api:
            set_callback(api.path, lambda *_: None, ended)
    finally:
        logging.getLogger("openbits.client").removeHandler(hears)
    assert "nobody checks servers' certificates for job 1 any more" in caplog.text


def test_h12_a_child_does_not_hold_the_connection_of_its_parent() -> None:
    """Otherwise the service would not see the program go."""
    release = threading.Event()
    routes = {"GET /v1/jobs/1": Reply(json=DETAIL), f"POST {TARGET}": Reply(parts=(BEGUN, OVER), wait=release)}
    with FakeApi(routes) as api:
        openbits.Manager(api.path).get_job("1").set_server_certificate_validation_interface(lambda *_: None)

        def sockets() -> int:
            return sum(
                os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
                for fd in os.listdir("/proc/self/fd")
                if os.path.islink(f"/proc/self/fd/{fd}")
            )

        ours = sockets()
        child = os.fork()
        if not child:
            os._exit(0 if sockets() == ours - 1 else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert sockets() == ours
        release.set()


def test_46_only_a_plain_yes_accepts() -> None:
    assert word_of(None) == word_of(True) == (None, "")
    for other in (False, 0, 1, "", "S_OK", object(), [], Result.S_OK):
        error, _ = word_of(other)
        assert error in (REFUSED, BROKEN)
    assert word_of_failure(BitsError("E_ACCESSDENIED", "no"))[0] == "E_ACCESSDENIED"
    assert len(word_of_failure(ValueError("x" * 10_000))[1]) <= 400
