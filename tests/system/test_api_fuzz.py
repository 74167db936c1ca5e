"""The API against its own description: whatever schemathesis thinks of, every answer is as described (issue part 6).

The service runs as an account that owns nothing, so that a job with any path harms nobody.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import requests
import requests.adapters
import schemathesis
import urllib3
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from openbits.api import wire
from support.accounts import TestAccount, needs_root, temporary_account
from support.daemon import Daemon, running_daemon
from support.raw_http import acting_as, get

pytestmark = needs_root

BUDGET_S = 45.0
"""For all operations together; what does not fit is left out, in no particular order."""
CONFIG = """
[quotas]
max_jobs_per_user = 40
"""
EXPECTED_5XX = {"E_NOTIMPL", "ERROR_DISK_FULL", "BG_E_WATCHDOG_TIMEOUT", "BG_E_PEERCACHING_DISABLED"}
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
load_all_checks()
SCHEMA_CHECKS = [
    CHECKS.get_one(name)
    for name in ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
]


class UnixConnection(urllib3.connection.HTTPConnection):
    """Connects to the service, as the account that owns it."""

    path = ""
    uid: int | None = None

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        with acting_as(self.uid):
            self.sock.connect(self.path)


class UnixAdapter(requests.adapters.HTTPAdapter):
    """Sends everything to one socket."""

    def __init__(self, path: str, uid: int) -> None:
        super().__init__()
        connection = type("Connection", (UnixConnection,), {"path": path, "uid": uid})
        self._pool = urllib3.HTTPConnectionPool("bits")
        self._pool.ConnectionCls = connection

    def get_connection_with_tls_context(self, *_args: Any, **_more: Any) -> Any:
        return self._pool

    def close(self) -> None:
        self._pool.close()
        super().close()


@pytest.fixture(scope="module")
def account() -> Iterator[TestAccount]:
    with temporary_account() as made:
        yield made


@pytest.fixture(scope="module")
def daemon(account: TestAccount) -> Iterator[Daemon]:
    with running_daemon("user", account=account.uid, config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def session(daemon: Daemon, account: TestAccount) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.mount("http://bits", UnixAdapter(daemon.socket, account.uid))
        yield made


@pytest.fixture(scope="module")
def description(daemon: Daemon, account: TestAccount) -> dict[str, Any]:
    status, document = get(daemon.socket, "/v1/openapi.json", account.uid)
    assert status == 200
    found: dict[str, Any] = document
    return found


@pytest.fixture(scope="module")
def jobs(session: requests.Session, account: TestAccount) -> list[str]:
    """Some jobs that exist, in different states, so that not every request is about nothing."""
    file = {"remote_name": "http://127.0.0.1:1/x", "local_name": f"{account.home}/x"}
    bodies: list[dict[str, Any]] = [
        {"name": "empty"},
        {"name": "one", "files": [file]},
        {"name": "running", "files": [file], "resume": True},
        {"name": "ended"},
    ]
    made = []
    for body in bodies:
        answer = session.post("http://bits/v1/jobs", json=body)
        assert answer.status_code == 201, answer.text
        made.append(answer.json()["id"])
    assert session.post(f"http://bits/v1/jobs/{made[3]}/cancel").status_code == 200
    return made


def operations(description: dict[str, Any]) -> list[Any]:
    schema = schemathesis.openapi.from_dict(description)
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    # A stream that ends with its program only, and takes nothing that could be wrong: it is tested elsewhere.
    return [operation for operation in found if operation.path != "/v1/notifications"]


def check(case: Any, response: Any) -> None:
    """An answer as described, and no failure that is the service's."""
    if response.status_code >= 500:
        assert response.json()["code"] in EXPECTED_5XX, f"{case.as_curl_command()}\n{response.text}"
    if case.operation.path == "/v1/events" and response.status_code == 200:
        check_stream(response.content)
        return
    case.validate_response(response, checks=SCHEMA_CHECKS)
    if response.status_code >= 400:
        problem = response.json()
        assert response.headers["content-type"] == ["application/problem+json"]
        assert problem["status"] == response.status_code
        assert problem["detail"]


def check_stream(body: bytes) -> None:
    """Each event of a stream has the shape that its kind has; descriptions know no streams of several kinds."""
    shapes = {b"job": wire.EventOut, b"snapshot": wire.JobOut, b"progress": wire.ProgressOut}
    for event in filter(None, body.split(b"\n\n")):
        fields = dict(line.split(b": ", 1) for line in event.split(b"\n"))
        msgspec.json.decode(fields[b"data"], type=shapes[fields[b"event"]])


def ask(operation: Any, session: requests.Session, jobs: list[str], until: float) -> int:
    """Ask one operation whatever comes to mind; return how often it was asked."""
    asked = 0

    @given(case=operation.as_strategy(), job_id=st.sampled_from([*jobs, UNKNOWN_ID, None]))
    @settings(
        max_examples=60,
        deadline=None,
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def once(case: Any, job_id: str | None) -> None:
        nonlocal asked
        if asked and time.monotonic() > until:
            return
        if "job_id" in case.path_parameters and job_id is not None:
            case.path_parameters["job_id"] = job_id
        if operation.path == "/v1/events":
            # A stream without an end is tested elsewhere.
            case.query = {**(case.query or {}), "follow": "false"}
        if operation.path.endswith("/certificate-validation"):
            # So is the other one: nobody judges for a job that has ended.
            case.path_parameters["job_id"] = jobs[3]
        with contextlib.suppress(requests.exceptions.InvalidURL, UnicodeError):
            response = case.call(base_url="http://bits", session=session)
            asked += 1
            check(case, response)

    once()
    return asked


def test_every_operation_answers_as_described(
    session: requests.Session, description: dict[str, Any], jobs: list[str], daemon: Daemon
) -> None:
    found = operations(description)
    assert len(found) > 20
    service = daemon.process_named("bitsd-service").pid
    began = time.monotonic()
    for number, operation in enumerate(found, 1):
        assert ask(operation, session, jobs, began + BUDGET_S * number / len(found)), operation.label
    assert time.monotonic() - began < BUDGET_S + 10
    assert daemon.process_named("bitsd-service").pid == service, "the service has ended"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    ["http://127.0.0.1:1/x", "file:///etc/passwd", "ftp://x/y", "", "http://[::1/x", "http://h/" + "x" * 3000]
) | st.text(st.characters(), max_size=40)
paths = st.sampled_from(
    ["/", "/x", "relative", "/a/../b", "/proc/self/mem", "/dev/null", "/\udcff", "/" + "x" * 300]
) | (st.text(st.characters(), max_size=30).map(lambda text: "/" + text))
files = st.fixed_dictionaries(
    {"remote_name": names | json_values, "local_name": paths | json_values},
    optional={
        "ranges": st.lists(
            st.fixed_dictionaries({"offset": st.integers(-2, 2**70), "length": st.integers(-2, 2**70)}), max_size=3
        )
        | json_values,
        "checksum": st.just("sha256:" + "0" * 64) | json_values,
    },
)
PROPERTIES = [
    "name",
    "description",
    "priority",
    "minimum_retry_delay",
    "no_progress_timeout",
    "maximum_download_time",
    "notify_flags",
    "cost_flags",
    "notification_clsid",
    "dynamic_content",
    "high_performance",
    "max_download_size",
    "strict_http",
    "file_concurrency",
    "stall_timeout",
    "umask",
    "custom_headers",
]
properties = st.dictionaries(st.sampled_from(PROPERTIES), json_values | st.integers(-1, 2**33), max_size=3)


@given(
    body=st.fixed_dictionaries(
        {"name": st.just("a job") | st.text(st.characters(), max_size=300) | json_values},
        optional={"files": st.lists(files, max_size=3), "settings": properties, "resume": st.booleans()},
    ),
    change=properties,
)
@settings(
    max_examples=150,
    deadline=None,
    phases=[Phase.generate],
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_whatever_can_be_created_can_be_shown_stored_and_ended(
    session: requests.Session, body: dict[str, Any], change: dict[str, Any]
) -> None:
    created = session.post("http://bits/v1/jobs", json=body)
    assert created.status_code in (201, 400, 403, 409, 422, 501), created.text
    if created.status_code != 201:
        return
    address = f"http://bits/v1/jobs/{created.json()['id']}"
    shown = session.get(address)
    assert shown.status_code == 200
    assert shown.json()["name"] == body["name"]
    assert session.get(f"{address}/files").status_code == 200
    changed = session.patch(address, json=change).status_code
    # J16, J17: a priority or a notification flag that does not exist is E_NOTIMPL; nothing else is.
    assert changed < 500 or (changed == 501 and change.keys() & {"priority", "notify_flags"})
    assert session.get(address).status_code == 200
    assert session.get("http://bits/v1/jobs").status_code == 200
    assert session.post(f"{address}/cancel").status_code == 200


def test_everything_is_there_after_a_restart(daemon: Daemon, account: TestAccount, session: requests.Session) -> None:
    """Whatever went into the store comes out of it: the store was not set aside."""
    before = session.get("http://bits/v1/jobs", params={"history": "true", "limit": "10000"}).json()["jobs"]
    session.close()
    daemon.kill()
    daemon.start()
    status, after = get(daemon.socket, "/v1/jobs?history=true&limit=10000", account.uid)
    assert status == 200
    assert [job["id"] for job in after["jobs"]] == [job["id"] for job in before]
    assert daemon.log is not None
    assert "store-set-aside" not in daemon.log.text
