"""A user who tries everything while others' transfers are under way gets nowhere (A1-A9; architecture §4, rule 8).

Mallory has an account of her own, a worker of her own, and all the time in the world. Alice and root are downloading.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from openbits.api.route import Route
from openbits.api.routes import ROUTES
from support.accounts import TestAccount, needs_root, temporary_account
from support.attacker import PROGRAM
from support.daemon import BIN, Daemon, Process, is_alive, running_daemon, wait_until
from support.nginx import Nginx, running_nginx, sha256_of
from support.raw_http import connect, read_answer

pytestmark = needs_root

SIZE = 60_000_000
RATE_BPS = 300_000
SECRET_URL = "top-secret-of-"
GROUP = "obt-later"


@pytest.fixture(scope="module")
def origin() -> Iterator[Nginx]:
    with running_nginx() as server:
        for name in ("alice", "root", "mallory"):
            server.add(SECRET_URL + name, SIZE)
        server.add("slow", 2_000_000)
        yield server


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def mallory() -> Iterator[TestAccount]:
    with temporary_account() as account:
        yield account


@pytest.fixture(scope="module")
def carol() -> Iterator[TestAccount]:
    """An administrator, as soon as the group exists that the configuration names."""
    with temporary_account(extra_groups=1) as account:
        yield account


def group_of(account: TestAccount) -> str:
    [gid] = set(account.groups) - {account.gid}
    return grp.getgrgid(gid).gr_name


@pytest.fixture(scope="module")
def daemon(carol: TestAccount) -> Iterator[Daemon]:
    config = f'[accounts]\nadministrators_group = "{group_of(carol)}"\n[logon]\nprovider = "always"\n'
    with running_daemon("system", config=config) as running:
        yield running


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Who downloads what."""

    daemon: Daemon
    alice: TestAccount
    mallory: TestAccount
    carol: TestAccount
    jobs: dict[str, str]
    """Of alice, of root, of mallory."""
    root_directory: str

    def workers(self) -> dict[str, Process]:
        """The worker of each."""
        names = {self.alice.uid: "alice", self.mallory.uid: "mallory", 0: "root"}
        return {names[worker.uids[0]]: worker for worker in self.daemon.workers() if worker.uids[0] in names}


@pytest.fixture(scope="module")
def scene(
    daemon: Daemon, origin: Nginx, alice: TestAccount, mallory: TestAccount, carol: TestAccount
) -> Iterator[Scene]:
    directory = tempfile.mkdtemp(prefix="obt-root-")
    jobs = {}
    for name, account, place in (
        ("alice", alice, alice.home),
        ("root", None, directory),
        ("mallory", mallory, mallory.home),
    ):
        url = origin.url(SECRET_URL + name, rate_bps=RATE_BPS)
        jobs[name] = daemon.submit(url, "-o", os.path.join(place, "hidden"), account=account)
        daemon.bits("set", jobs[name], f"custom_headers=X-Key: {SECRET_URL}{name}\r\n", account=account, check=True)
    scene = Scene(daemon=daemon, alice=alice, mallory=mallory, carol=carol, jobs=jobs, root_directory=directory)
    try:
        wait_until(lambda: len(scene.workers()) == 3, "three workers")
        yield scene
    finally:
        for job in jobs.values():
            daemon.bits("cancel", job)
        shutil.rmtree(directory)


def progress(scene: Scene) -> list[int]:
    """How many bytes the others have."""
    return [int(scene.daemon.show(scene.jobs[name])["bytes_transferred"]) for name in ("alice", "root")]


@pytest.fixture(autouse=True)
def _nobody_is_hurt(scene: Scene) -> Iterator[None]:
    """Whatever is tried: the same processes go on with the same transfers."""
    before = {process.pid for process in scene.daemon.processes() if process.pid != scene.workers()["mallory"].pid}
    yield
    left = {process.pid for process in scene.daemon.processes()}
    assert before <= left
    for name in ("alice", "root"):
        job = scene.daemon.show(scene.jobs[name])
        assert job["state"] in ("CONNECTING", "TRANSFERRING"), job
        assert (job["priority"], job["error_count"], job["files_total"]) == ("foreground", 0, 1)
    before_bytes = progress(scene)
    wait_until(lambda: all(map(int.__gt__, progress(scene), before_bytes)), "more bytes")


# --- the calls ------------------------------------------------------------------------------------------------

BODIES: dict[str, dict[str, Any]] = {
    "JobIn": {"name": "x"},
    "JobsIn": {"jobs": [{"name": "x"}]},
    "SettingsIn": {"priority": "low"},
    "FilesIn": {"files": [{"remote_name": "http://127.0.0.1/x", "local_name": "/tmp/x"}]},
    "FileChange": {"remote_name": "http://127.0.0.1/x"},
    "PrefixIn": {"old": "http://", "new": "https://"},
    "RangesIn": {"ranges": [{"offset": 0, "length": 1}]},
    "PositionIn": {"offset": 0},
    "CredentialsIn": {"target": "server", "scheme": "negotiate"},
    "HelperFlagsIn": {"flags": 1},
    "ReplyNameIn": {"file_name": "/tmp/x"},
    "ProxySettingsIn": {"usage": "no_proxy"},
    "PeerCachingIn": {"configuration_flags": 1},
    "EventLogIn": {"analytic": True},
    "NotifyCommandIn": {"program": "/bin/true"},
    "NotifyInterfaceIn": {"stream": "0" * 32},
    "AcknowledgementIn": {"notice": "0" * 32},
    "CustomHeadersIn": {"custom_headers": "X: y"},
    "ClientCertificateIn": {"location": "current_user", "store": "MY", "sha1": "0" * 40},
    "CertificateAnswer": {"error": None},
}
JOB_ROUTES = [route for route in ROUTES if "{job_id}" in route.path]
CAPABILITY_ROUTES = [route for route in ROUTES if "{capability}" in route.path]


def label(route: Route) -> str:
    return f"{route.method} {route.path}"


def connect_as(daemon: Daemon, account: TestAccount | None) -> socket.socket:
    """Connect with the uid and all groups of an account; None: root."""
    if account is None:
        return connect(daemon.socket)
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups(list(account.groups))
    os.setegid(account.gid)
    os.seteuid(account.uid)
    try:
        return connect(daemon.socket)
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


def call(
    daemon: Daemon, account: TestAccount | None, method: str, target: str, body: Any = None, headers: str = ""
) -> tuple[int, dict[str, Any], bytes]:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nHost: b\r\n{headers}Connection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    with connect_as(daemon, account) as sock:
        sock.sendall(head.encode("utf-8", "surrogateescape") + data)
        status, answer = read_answer(sock)
    return status, json.loads(answer), answer


def call_route(
    daemon: Daemon, account: TestAccount | None, route: Route, job: str
) -> tuple[int, dict[str, Any], bytes]:
    target = route.path.replace("{job_id}", job).replace("{index}", "0").replace("{question}", "0")
    if route.handler == "remove_credentials":
        target += "?target=server&scheme=negotiate"
    body = BODIES[route.body.__name__] if route.body is not None else None
    return call(daemon, account, route.method, target, body)


def test_every_body_of_the_api_has_an_example() -> None:
    assert {route.body.__name__ for route in ROUTES if route.body is not None} <= BODIES.keys()


@pytest.mark.parametrize("route", JOB_ROUTES, ids=label)
@pytest.mark.parametrize("victim", ["alice", "root"])
def test_a1_no_call_reaches_anothers_job(scene: Scene, route: Route, victim: str) -> None:
    """And the refusal says nothing about the job; a job that does not exist is as unknown to everybody."""
    status, problem, raw = call_route(scene.daemon, scene.mallory, route, scene.jobs[victim])
    assert (status, problem["code"]) == (403, "E_ACCESSDENIED")
    for secret in (SECRET_URL, "hidden", scene.alice.name, scene.alice.home, scene.root_directory, "127.0.0.1"):
        assert secret.encode() not in raw
    status, problem, _ = call_route(scene.daemon, scene.mallory, route, str(uuid.uuid4()))
    assert (status, problem["code"]) == (404, "BG_E_NOT_FOUND")


@pytest.mark.parametrize("route", [route for route in JOB_ROUTES if route.method != "GET"], ids=label)
def test_a4_an_administrator_changes_nothing_of_the_systems(scene: Scene, route: Route) -> None:
    status, problem, _ = call_route(scene.daemon, scene.carol, route, scene.jobs["root"])
    assert (status, problem["code"]) == (403, "E_ACCESSDENIED")


OWNERS_ALONE = [
    route for route in JOB_ROUTES if route.handler in ("token_options", "set_credentials", "remove_credentials")
]


@pytest.mark.parametrize("route", OWNERS_ALONE, ids=label)
def test_a2_what_is_the_owners_alone_is_not_even_roots(scene: Scene, route: Route) -> None:
    status, problem, _ = call_route(scene.daemon, None, route, scene.jobs["alice"])
    assert (status, problem["code"]) == (403, "E_ACCESSDENIED")


def test_a2_custom_headers_are_set_and_read_by_the_owner_alone(scene: Scene) -> None:
    path = f"/v1/jobs/{scene.jobs['alice']}"
    status, problem, _ = call(scene.daemon, None, "PATCH", path, {"custom_headers": "X-Key: mine\r\n"})
    assert (status, problem["code"]) == (403, "E_ACCESSDENIED")
    status, detail, raw = call(scene.daemon, None, "GET", path)
    assert status == 200
    assert detail["settings"]["custom_headers"] is None
    assert b"X-Key" not in raw
    status, detail, _ = call(scene.daemon, scene.alice, "GET", path)
    assert SECRET_URL in detail["settings"]["custom_headers"]


@pytest.mark.parametrize("name", ["notify_url", "notification_clsid"])
def test_a2_what_is_called_in_the_owners_name_is_the_owners_alone_to_set(scene: Scene, name: str) -> None:
    """J61 and ours."""
    value = {"notify_url": "http://127.0.0.1:9/", "notification_clsid": "org.example.App"}[name]
    path = f"/v1/jobs/{scene.jobs['alice']}"
    status, problem, _ = call(scene.daemon, None, "PATCH", path, {name: value})
    assert (status, problem["code"]) == (403, "E_ACCESSDENIED")
    assert call(scene.daemon, scene.alice, "PATCH", path, {name: value})[0] == 200
    assert call(scene.daemon, scene.alice, "PATCH", path, {name: ""})[0] == 200


def test_a1_lists_and_events_hold_what_is_ones_own(scene: Scene) -> None:
    status, page, _ = call(scene.daemon, scene.mallory, "GET", "/v1/jobs?history=1&limit=10000")
    assert status == 200
    assert {job["owner"]["uid"] for job in page["jobs"]} == {scene.mallory.uid}
    for target in ("/v1/jobs?all_users=1", "/v1/events?all_users=1", f"/v1/events?job={scene.jobs['alice']}"):
        status, problem, _ = call(scene.daemon, scene.mallory, "GET", target)
        assert (status, problem["code"]) == (403, "E_ACCESSDENIED"), target
    with connect_as(scene.daemon, scene.mallory) as sock:
        sock.sendall(b"GET /v1/events?after=0 HTTP/1.1\r\nHost: b\r\n\r\n")
        deadline = time.monotonic() + 3
        seen = b""
        while time.monotonic() < deadline:
            seen += sock.recv(65536)
    assert scene.jobs["mallory"].encode() in seen
    for secret in (scene.jobs["alice"], scene.jobs["root"], f"{SECRET_URL}alice", f"{SECRET_URL}root"):
        assert secret.encode() not in seen


@pytest.mark.parametrize("route", CAPABILITY_ROUTES, ids=label)
@pytest.mark.parametrize("guess", ["A" * 43, "x", "%00", "..%2f..%2fjobs", "JOB", "0" * 4000])
def test_capabilities_are_not_guessed(scene: Scene, route: Route, guess: str) -> None:
    target = route.path.replace("{capability}", guess.replace("JOB", scene.jobs["alice"]))
    body = BODIES[route.body.__name__] if route.body is not None else None
    status, problem, _ = call(scene.daemon, scene.mallory, route.method, target, body)
    assert 400 <= status < 500
    assert problem["code"] in ("RPC_E_DISCONNECTED", "E_INVALIDARG")


@pytest.mark.parametrize("route", [route for route in ROUTES if route.path == "/v1/proxy-settings"], ids=label)
@pytest.mark.parametrize("of", ["alice", "root", "LOCALSYSTEM", "NETWORKSERVICE", "LOCALSERVICE"])
def test_i20_the_proxy_settings_of_others_are_theirs(scene: Scene, route: Route, of: str) -> None:
    name = scene.alice.name if of == "alice" else of
    body = BODIES[route.body.__name__] if route.body is not None else None
    status, problem, _ = call(scene.daemon, scene.mallory, route.method, f"{route.path}?account={name}", body)
    assert (status, problem["code"]) == (403, "E_ACCESSDENIED")


CLAIMS = (
    "X-Remote-User: root\r\nX-Remote-Uid: 0\r\n",
    "Authorization: Basic cm9vdDo=\r\n",
    "Authorization: Negotiate YII=\r\nCookie: uid=0\r\n",
    "X-Forwarded-User: root\r\nForwarded: for=unix:0;by=root\r\nX-Peer-Cred: 1,0,0\r\n",
)


@pytest.mark.parametrize("claim", CLAIMS)
def test_nothing_that_is_written_into_a_request_says_who_one_is(scene: Scene, claim: str) -> None:
    status, me, _ = call(scene.daemon, scene.mallory, "GET", "/v1/whoami?uid=0&user=root", headers=claim)
    assert (status, me["uid"], me["is_administrator"]) == (200, scene.mallory.uid, False)


@pytest.mark.parametrize("field", ["owner", "uid", "identity", "gid", "groups", "is_administrator", "helper"])
def test_no_body_names_an_owner(scene: Scene, field: str) -> None:
    body = {"name": "x", field: {"uid": 0}}
    status, problem, _ = call(scene.daemon, scene.mallory, "POST", "/v1/jobs", body)
    assert (status, problem["code"]) == (400, "E_INVALIDARG")
    status, problem, _ = call(scene.daemon, scene.mallory, "POST", "/v1/jobs", {"name": "x", "settings": {field: 0}})
    assert (status, problem["code"]) == (400, "BG_E_UNKNOWN_PROPERTY_ID")


def test_a_connection_stays_whose_it_is(scene: Scene) -> None:
    """Handed on, it does not make the giver of whoever sends by it; nor the taker of who made it."""
    with connect_as(scene.daemon, scene.mallory) as sock:
        sock.sendall(b"GET /v1/jobs?all_users=1 HTTP/1.1\r\nHost: b\r\n\r\n")
        assert read_answer(sock)[0] == 403


def test_exhausting_the_connections_of_one_account_costs_the_others_nothing(scene: Scene) -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            for _ in range(700):
                stack.enter_context(connect_as(scene.daemon, scene.mallory))
        for account in (scene.alice, None):
            assert call(scene.daemon, account, "GET", "/v1/whoami")[0] == 200
        assert scene.daemon.bits("list", account=scene.alice).returncode == 0


# --- processes and places -----------------------------------------------------------------------------------------


def attack(scene: Scene, account: TestAccount) -> list[list[str]]:
    """Let an account try everything; return what worked."""
    workers = scene.workers()
    pids = {process.name: process.pid for process in scene.daemon.processes() if process.name != "bitsd-worker"}
    pids |= {f"{name}'s worker": worker.pid for name, worker in workers.items()}
    run = os.path.dirname(scene.daemon.socket)
    temporaries = [scene.daemon.show(scene.jobs[name])["files"][0]["temporary_name"] for name in ("alice", "root")]
    given = {
        "pids": pids,
        "own": "mallory's worker",
        "sockets": [scene.daemon.socket, *internal_sockets(scene)],
        "paths": [
            scene.daemon.state_dir,
            os.path.join(scene.daemon.state_dir, "bits.db"),
            os.path.join(run, "bitsd.lock"),
            *temporaries,
        ],
        "place": account.home,
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(given)],
        start_new_session=True,
        user=account.uid,
        group=account.gid,
        extra_groups=list(account.groups),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    worked: list[list[str]] = json.loads(done.stdout)
    return worked


def internal_sockets(scene: Scene) -> list[str]:
    """Names of all Unix sockets of the machine that could be the daemon's."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        names = {line.split()[7] for line in file if len(line.split()) > 7}
    return sorted(name.replace("@", "\0", 1) for name in names if "bits" in name and name != scene.daemon.socket)


def test_processes_and_places_are_closed_to_others(scene: Scene) -> None:
    """Memory, descriptors, environment, signals, the store: nothing, not even of the worker of one's own account."""
    assert set(scene.workers()) == {"alice", "root", "mallory"}
    assert attack(scene, scene.mallory) == []


def test_the_attacks_would_work_on_a_process_that_is_not_protected(mallory: TestAccount) -> None:
    """What is tried is what works elsewhere: against an ordinary process of the account's own."""
    with subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        user=mallory.uid,
        group=mallory.gid,
        extra_groups=[],
        start_new_session=True,
    ) as victim:
        given = {"pids": {"victim": victim.pid}, "own": "", "sockets": [], "paths": [], "place": mallory.home}
        wait_until(lambda: os.readlink(f"/proc/{victim.pid}/exe").startswith("/usr"), "the victim to run")
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(given)],
            user=mallory.uid,
            group=mallory.gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
        )
        victim.kill()
    assert done.returncode == 0, done.stderr
    worked = {what for what, _ in json.loads(done.stdout)}
    assert {"open mem", "read environ", "list fd", "follow root", "ptrace attach", "read memory"} <= worked
    assert {"take a descriptor", "signal 9"} <= worked


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_signals_to_ones_own_worker_hurt_nobody_else(scene: Scene, number: int) -> None:
    """The kernel lets an account signal its own processes: that costs it a new worker."""
    worker = scene.workers()["mallory"]
    subprocess.run(
        ["kill", f"-{int(number)}", str(worker.pid)],
        user=scene.mallory.uid,
        group=scene.mallory.gid,
        extra_groups=[],
        check=True,
        timeout=20,
    )
    if number == signal.SIGSTOP:
        os.kill(worker.pid, signal.SIGCONT)
    else:
        wait_until(lambda: not is_alive(worker), "the worker to die")
    wait_until(lambda: "mallory" in scene.workers(), "a worker of mallory's")
    assert scene.daemon.show(scene.jobs["mallory"])["state"] in ("CONNECTING", "TRANSFERRING", "TRANSIENT_ERROR")
    scene.daemon.bits("resume", scene.jobs["mallory"], account=scene.mallory)


def test_a_device_at_the_temporary_name_is_never_written_to(daemon: Daemon, origin: Nginx, alice: TestAccount) -> None:
    """D8: made by root here, since nobody else can: what is no file of ours is taken away by name."""
    target = os.path.join(alice.home, "device-test")
    job = daemon.submit(origin.url("slow", rate_bps=500_000), "-o", target, account=alice)
    temporary = daemon.show(job)["files"][0]["temporary_name"]
    wait_until(lambda: os.path.exists(temporary), "the temporary file")
    daemon.bits("suspend", job, account=alice, check=True)
    wait_until(lambda: daemon.stored_files(job)[0].durable_bytes, "the end of the run")
    os.unlink(temporary)
    os.mknod(temporary, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    daemon.bits("resume", job, account=alice, check=True)
    daemon.wait_state(job, "TRANSFERRED")
    daemon.bits("complete", job, account=alice, check=True)
    assert sha256_of(target) == sha256_of(os.path.join(origin.root, "slow"))


# --- namespaces and groups -----------------------------------------------------------------------------------------


def call_from_namespace(
    daemon: Daemon, account: TestAccount, uid_map: str, gid_map: str
) -> subprocess.CompletedProcess[str]:
    """Run `bits list` in a user namespace of the account's with maps that root writes."""
    script = f"echo ready; read go; exec {os.path.join(BIN, 'bits')} list"
    with subprocess.Popen(
        ["unshare", "--user", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        env={**os.environ, "BITS_SOCKET": daemon.socket, "HOME": daemon.base},
        cwd="/",
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for name, text in (("uid_map", uid_map), ("gid_map", gid_map)):
            with open(f"/proc/{process.pid}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        out, err = process.communicate("go\n", timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


WHOLE = "0 0 4294967295\n"


@pytest.mark.parametrize(
    ("uid_map", "gid_map"),
    [
        ("0 {uid} 1\n", "0 {uid} 1\n"),
        ("{uid} {uid} 1\n", "{uid} {uid} 1\n"),
        ("0 100000 65536\n", "0 100000 65536\n"),
        ("0 0 65536\n", "0 0 65536\n"),
        ("0 0 4294967294\n", WHOLE),
        (WHOLE, "0 0 65536\n"),
    ],
)
def test_rule_8_other_user_namespaces_are_refused(scene: Scene, uid_map: str, gid_map: str) -> None:
    """Whatever the maps look like: one's own uid, the subordinate ones, or nearly all."""
    uid = scene.mallory.uid
    refused = call_from_namespace(scene.daemon, scene.mallory, uid_map.format(uid=uid), gid_map.format(uid=uid))
    assert refused.returncode == 4, refused.stderr
    assert "namespace" in refused.stderr


def test_rule_8_where_every_account_is_itself_it_is_itself(scene: Scene) -> None:
    """Only root can make such a namespace; it cannot be told from ours, and nothing in it is different."""
    listed = call_from_namespace(scene.daemon, scene.mallory, WHOLE, WHOLE)
    assert listed.returncode == 0, listed.stderr


def test_a1_the_kernel_says_who_is_in_the_group(scene: Scene) -> None:
    """Not the group's list of members: who was put there has to log on again first, as everywhere."""
    group = group_of(scene.carol)
    subprocess.run(["gpasswd", "-a", scene.mallory.name, group], check=True, capture_output=True, timeout=20)
    try:
        assert call(scene.daemon, scene.mallory, "GET", "/v1/jobs?all_users=1")[0] == 403
        assert scene.daemon.bits("list", "--all-users", account=scene.carol).returncode == 0
    finally:
        subprocess.run(["gpasswd", "-d", scene.mallory.name, group], check=True, capture_output=True, timeout=20)


def test_a1_the_group_may_come_and_go_while_the_service_runs(origin: Nginx, carol: TestAccount) -> None:
    with running_daemon("system", config=f'[accounts]\nadministrators_group = "{GROUP}"\n') as daemon:
        assert daemon.bits("list", "--all-users", account=carol).returncode == 4
        [gid] = set(carol.groups) - {carol.gid}
        subprocess.run(["groupadd", "-o", "-g", str(gid), GROUP], check=True, capture_output=True, timeout=20)
        try:
            wait_until(
                lambda: daemon.bits("list", "--all-users", account=carol).returncode == 0, "carol to be administrator"
            )
        finally:
            subprocess.run(["groupdel", GROUP], check=True, capture_output=True, timeout=20)
        wait_until(
            lambda: daemon.bits("list", "--all-users", account=carol).returncode == 4, "carol to be none any more"
        )
