"""`bits` and the Python client against the real service of one account: every command, as a person uses it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import openbits
from openbits import paths
from openbits.client.autostart import start_service
from support.origin import Origin, generate

BITS = os.path.join(os.path.dirname(sys.executable), "bits")
TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Directories of a user's service, and the environment that leads there."""

    base: str

    @property
    def socket(self) -> str:
        return os.path.join(self.base, "runtime", "openbits", "bitsd.sock")

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "BITS_SOCKET"}
        xdg = {f"XDG_{name}": f"{self.base}/{name.split('_')[0].lower()}" for name in ("RUNTIME_DIR", "STATE_HOME")}
        return {**kept, **xdg, "HOME": self.base}

    def start(self, *arguments: str, **more: Any) -> subprocess.Popen[str]:
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
        return subprocess.Popen(
            [BITS, *arguments],
            env=self.environment,
            cwd=self.base,
            stdin=subprocess.DEVNULL,
            errors="surrogateescape",
            **more,
        )

    def bits(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            try:
                out, err = process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def good(self, *arguments: str) -> str:
        done = self.bits(*arguments)
        assert done.returncode == 0, done
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.good(*arguments, "--json"))

    def service_pids(self) -> tuple[int, int]:
        """The pids of the monitor and of the service, which listens."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(self.socket)
            service: int = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        with open(f"/proc/{service}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1]), service

    def stop(self) -> None:
        """End the service, if there is one, and wait for that."""
        try:
            monitor, _ = self.service_pids()
        except OSError:
            return
        pidfd = os.pidfd_open(monitor)
        try:
            os.kill(monitor, signal.SIGTERM)
            ended, _, _ = select.select([pidfd], [], [], TIMEOUT_S)
            assert ended, "bitsd did not end"
        finally:
            os.close(pidfd)


@pytest.fixture
def place() -> Iterator[Place]:
    base = tempfile.mkdtemp(prefix="obcli-")
    here = Place(base=base)
    os.mkdir(os.path.join(base, "runtime"), 0o700)
    try:
        yield here
    finally:
        here.stop()
        shutil.rmtree(base)


@pytest.fixture(scope="module")
def shared() -> Iterator[Place]:
    base = tempfile.mkdtemp(prefix="obcli-")
    here = Place(base=base)
    os.makedirs(os.path.dirname(here.socket), 0o700)
    process = start_service(os.path.join(base, "state", "openbits"), os.path.dirname(here.socket))
    try:
        yield here
    finally:
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
        shutil.rmtree(base)


@pytest.fixture(scope="module")
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


def digest(path: str | bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(size: int, seed: int) -> str:
    return hashlib.sha256(generate(size, seed)).hexdigest()


no_system_service = pytest.mark.skipif(os.path.exists(paths.SYSTEM_SOCKET), reason="a system service is installed here")


@no_system_service
def test_get_starts_the_service_of_the_user_once(place: Place, origin: Origin) -> None:
    both = [place.start("get", origin.url(f"/gen/100000/{seed}"), "-o", f"f{seed}") for seed in (1, 2)]
    for process in both:
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, err
        assert out.startswith(place.base)
    monitor, _ = place.service_pids()
    assert digest(f"{place.base}/f1") == content_digest(100_000, 1)
    assert place.json("version")["service"]["mode"] == "user"
    assert place.service_pids()[0] == monitor
    assert os.getsid(monitor) == monitor
    with open(f"{place.base}/state/openbits/bitsd.log", encoding="utf-8") as log:
        assert log.read().count("bitsd: ready") == 1
    assert sorted(os.listdir(f"{place.base}/runtime/openbits")).count("start.lock") == 1


@no_system_service
def test_only_get_and_create_start_a_service(place: Place) -> None:
    for arguments in (["list"], ["show", "x"], ["resume", "x"], ["events"], ["monitor"], ["doctor"]):
        done = place.bits(*arguments)
        assert done.returncode == 5, done
    assert not os.path.exists(place.socket)
    assert "no service answers" in place.good("version")
    place.good("create", "x")
    assert os.path.exists(place.socket)


@no_system_service
def test_a_service_that_cannot_start_says_why(place: Place) -> None:
    with open(f"{place.base}/state", "w", encoding="utf-8"):
        pass
    done = place.bits("get", "http://127.0.0.1:1/x")
    assert done.returncode == 5
    assert re.fullmatch(r"bits: ERROR_SERVICE_NOT_ACTIVE \(0x80070426\): .*\n", done.stderr)


@no_system_service
def test_a_socket_that_was_left_behind_does_not_count(place: Place) -> None:
    job_id = place.good("create", "kept").strip()
    monitor, _ = place.service_pids()
    pidfd = os.pidfd_open(monitor)
    os.kill(monitor, signal.SIGKILL)
    assert select.select([pidfd], [], [], TIMEOUT_S)[0]
    os.close(pidfd)
    assert place.good("create", "another")
    assert place.json("list")[0]["id"] == job_id


def test_the_life_of_a_job_step_by_step(shared: Place, origin: Origin) -> None:
    """M1, J1–J20, F1: create, add, set, resume, wait, complete, as single commands."""
    url = origin.url("/gen/200000/3")
    job_id = shared.json("create", "steps", "--priority", "high", "--description", "one by one")["id"]
    empty = shared.bits("resume", "steps")
    assert (empty.returncode, empty.stderr) == (
        6,
        "bits: BG_E_EMPTY (0x80200003): the job has no files: add one with 'bits add'\n",
    )
    shared.good("add", job_id[:8], url, "steps.bin")
    shared.good("set", f"{{{job_id.upper()}}}", "minimum_retry_delay=60", "no_progress_timeout=120", "umask=077")
    shown = shared.json("show", job_id, "--files")
    assert (shown["state"], shown["priority"], shown["description"]) == ("SUSPENDED", "high", "one by one")
    assert shown["settings"]["minimum_retry_delay"] == 60
    assert shown["files"][0]["local_name"] == f"{shared.base}/steps.bin"
    assert "suspended" in shared.good("why", job_id)
    shared.good("resume", job_id)
    shared.good("wait", job_id)
    assert shared.json("show", job_id)["state"] == "TRANSFERRED"
    assert not os.path.exists(f"{shared.base}/steps.bin")
    assert shared.json("complete", job_id)["result"] == "S_OK"
    assert digest(f"{shared.base}/steps.bin") == content_digest(200_000, 3)
    assert os.stat(f"{shared.base}/steps.bin").st_mode & 0o777 == 0o600
    assert job_id not in [job["id"] for job in shared.json("list")]
    assert job_id in [job["id"] for job in shared.json("list", "--history")]
    assert shared.json("show", "steps")["state"] == "ACKNOWLEDGED"
    assert shared.bits("cancel", job_id).returncode == 6


def test_exit_statuses(shared: Place) -> None:
    """Architecture, section 6."""
    assert shared.bits("show", "no-such-job").returncode == 3
    assert shared.bits("show", "00000000-0000-0000-0000-000000000000").returncode == 3
    assert shared.bits("set", "x").returncode == 2
    shared.good("create", "twin")
    shared.good("create", "twin")
    assert shared.bits("show", "twin").returncode == 2
    for job in shared.json("list"):
        if job["name"] == "twin":
            shared.good("cancel", job["id"])


def test_ranges_are_written_back_to_back(shared: Place, origin: Origin) -> None:
    """J41."""
    shared.good("create", "ranges")
    url = origin.url("/gen/200000/4")
    shared.good("add", "ranges", url, "ranges.bin", "--range", "1000:10", "--range", "199990:eof")
    shared.good("resume", "ranges")
    assert shared.good("wait", "ranges", "--complete", "-q") == f"{shared.base}/ranges.bin\n"
    with open(f"{shared.base}/ranges.bin", "rb") as file:
        assert file.read() == generate(200_000, 4, 1000, 10) + generate(200_000, 4, 199_990)


def test_a_missing_file_is_an_error_with_a_way_on(shared: Place, origin: Origin) -> None:
    done = shared.bits("get", origin.url("/gen/10/1?status=404"), "-o", "missing")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("bits: BG_E_HTTP_ERROR_404 (0x80190194): ")
    job_id = re.search(r"'bits cancel ([0-9a-f-]{36})'", line)
    assert job_id is not None
    assert shared.json("show", job_id[1])["error"]["code"] == "BG_E_HTTP_ERROR_404"
    assert shared.bits("wait", job_id[1]).returncode == 1
    shared.good("cancel", job_id[1])


def test_names_may_hold_any_bytes(shared: Place, origin: Origin) -> None:
    name = b"\xff \x1b[31m\xc3\xa4"
    out = shared.good("get", origin.url("/gen/1000/5"), "-o", os.fsdecode(name), "-q")
    assert out == f"{shared.base}/\\xff \\x1b[31mä\n"
    assert digest(os.path.join(os.fsencode(shared.base), name)) == content_digest(1000, 5)
    assert shared.json("get", origin.url("/gen/1000/5"), "-o", os.fsdecode(name))["files"][0]["local_name"] == (
        os.path.join(shared.base, os.fsdecode(name))
    )


def test_a_wrong_checksum_gives_no_file(shared: Place, origin: Origin) -> None:
    right = f"sha256:{content_digest(1000, 6)}"
    assert shared.bits("get", origin.url("/gen/1000/6"), "-o", "sum", "--checksum", right).returncode == 0
    wrong = shared.bits("get", origin.url("/gen/1000/6"), "-o", "sum2", "--checksum", "sha256:" + "0" * 64)
    assert wrong.returncode == 1
    assert "ERROR_CRC" in wrong.stderr
    assert not os.path.exists(f"{shared.base}/sum2")


def test_a_list_of_files_arrives_in_one_job(shared: Place, origin: Origin) -> None:
    """J2."""
    directory = f"{shared.base}/many"
    os.mkdir(directory)
    with open(f"{shared.base}/list", "w", encoding="utf-8") as file:
        file.writelines(f"{origin.url(f'/gen/{1000 + number}/{number}')}\tf{number}\n" for number in range(50))
    printed = shared.json("get", "--input-file", "list", "-d", directory, "--name", "many")
    assert (printed["files_total"], printed["files_transferred"], printed["state"]) == (50, 50, "ACKNOWLEDGED")
    assert all(digest(f"{directory}/f{n}") == content_digest(1000 + n, n) for n in range(50))


def test_interrupt_leaves_the_job_to_the_service(shared: Place, origin: Origin) -> None:
    url = origin.url("/gen/3000000/7?rate=1000000")
    process = shared.start("get", url, "-o", "slow")
    assert process.stderr is not None
    assert process.stderr.readline() == "slow: started\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out) == (130, "")
    advice = re.search(r"'bits (wait [0-9a-f-]{36} --complete)', stop it with 'bits cancel", err)
    assert advice is not None
    assert shared.good(*advice[1].split(), "-q") == f"{shared.base}/slow\n"
    assert digest(f"{shared.base}/slow") == content_digest(3_000_000, 7)


def test_get_survives_the_death_of_the_service(shared: Place, origin: Origin) -> None:
    """M8, D15: the command that waits sees nothing of it but a pause."""
    process = shared.start("get", origin.url("/gen/8000000/8?rate=4000000"), "-o", "killed")
    assert process.stderr is not None
    while not re.search(r"killed: [1-9]", process.stderr.readline()):
        assert process.poll() is None
    _, service = shared.service_pids()
    os.kill(service, signal.SIGKILL)
    out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, err
    assert out == f"{shared.base}/killed\n"
    assert digest(f"{shared.base}/killed") == content_digest(8_000_000, 8)
    assert shared.service_pids()[1] != service


def test_get_says_what_it_waits_for(shared: Place, origin: Origin) -> None:
    """R1: a transient error is no end; `bits resume` tries again at once."""
    url = origin.url("/gen/1000/9?status=503&times=1")
    process = shared.start("get", url, "-o", "patience", "--retry-delay", "600")
    assert process.stderr is not None
    assert process.stderr.readline() == "patience: started\n"
    try:
        assert re.match(r"patience: waiting: .*503.*\d\d:\d\d:\d\d", process.stderr.readline())
        shared.good("resume", "patience")
        out, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, f"{shared.base}/patience\n"), err


def test_events_tell_the_story_of_a_job(shared: Place, origin: Origin) -> None:
    job_id = shared.good("get", "--async", origin.url("/gen/1000/10"), "-o", "story").strip()
    shared.good("wait", job_id, "--complete", "-q")
    lines = shared.good("events", "--job", job_id, "--json").splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds[0] == "created"
    assert "transferred" in kinds
    assert kinds[-1] == "completed"
    follower = shared.start("events", "--job", job_id, "--follow")
    assert follower.stdout is not None
    assert "created" in follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    follower.communicate(timeout=TIMEOUT_S)
    assert follower.returncode == 0


def test_doctor_and_version(shared: Place) -> None:
    checks = shared.json("doctor")["checks"]
    [kept] = [check for check in checks if check["name"] == "stored credentials"]
    assert kept["ok"]
    assert "credentials.key" in kept["message"]
    assert all(check["ok"] for check in checks), checks
    assert {"version", "caller"} < {check["name"] for check in checks}
    assert shared.json("version")["client"] == openbits.__version__


def test_completion_offers_job_ids(shared: Place) -> None:
    job_id = shared.good("create", "complete me").strip()
    environment = {
        **shared.environment,
        "_BITS_COMPLETE": "bash_complete",
        "COMP_WORDS": "bits suspend ",
        "COMP_CWORD": "2",
    }
    done = subprocess.run([BITS], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    assert f"plain,{job_id}" in done.stdout.splitlines()
    for shell in ("bash", "zsh", "fish"):
        assert "_BITS_COMPLETE" in shared.good("completion", shell)
    shared.good("cancel", job_id)


class Terminal:
    """A command on a pseudo-terminal."""

    def __init__(self, here: Place, *arguments: str) -> None:
        self._fd, slave = pty.openpty()
        environment = {**here.environment, "TERM": "xterm"}
        self.process = subprocess.Popen(
            [BITS, *arguments], env=environment, cwd=here.base, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        self.text = ""

    def read_until(self, pattern: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not re.search(pattern, self.text, re.DOTALL):
            ready, _, _ = select.select([self._fd], [], [], deadline - time.monotonic())
            assert ready, self.text
            self.text += os.read(self._fd, 65536).decode()

    def read_rest(self) -> int:
        while True:
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                break  # The other side is closed.
            if not data:
                break
            self.text += data.decode()
        os.close(self._fd)
        return self.process.wait(TIMEOUT_S)


def test_a_terminal_gets_a_bar_in_one_line(shared: Place, origin: Origin) -> None:
    terminal = Terminal(shared, "get", origin.url("/gen/2000000/11?rate=1500000"), "-o", "bar")
    assert terminal.read_rest() == 0
    assert re.search(r"\rbar +\d+ % \[=+ +\]  [^\r]* of 1\.9 MiB  [^\r]*/s  ETA ", terminal.text)
    assert terminal.text.endswith(f"\r\x1b[K{shared.base}/bar\r\n")
    assert terminal.text.count("\n") == 1


def test_the_monitor_is_moved_by_events(shared: Place, origin: Origin) -> None:
    terminal = Terminal(shared, "monitor")
    terminal.read_until(r"jobs at .*ID +NAME +STATE")
    job_id = shared.good("create", "watched").strip()
    terminal.read_until(rf"{job_id[:8]}  watched +SUSPENDED")
    shared.good("cancel", job_id)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.read_rest() == 0
    assert terminal.text.endswith("\x1b[?25h\x1b[?1049l")


def test_the_python_client_does_the_same(shared: Place, origin: Origin) -> None:
    """M1–M5, J1–J13, F1–F5."""
    with openbits.Manager(shared.socket) as manager:
        job = manager.create_job("python")
        assert job.get_progress() == openbits.Progress(
            bytes_total=0, bytes_transferred=0, files_total=0, files_transferred=0
        )
        job.add_file_set([(origin.url(f"/gen/1000/{n}"), f"{shared.base}/py{n}") for n in (20, 21)])
        assert [file.get_local_name() for file in job.enum_files()] == [f"{shared.base}/py20", f"{shared.base}/py21"]
        with pytest.raises(openbits.BitsError) as caught:
            job.get_error()
        assert caught.value.name == "BG_E_ERROR_INFORMATION_UNAVAILABLE"
        assert job in list(manager.enum_jobs())
        assert job.resume() is openbits.Result.S_OK
        assert job.wait(timeout=TIMEOUT_S) is openbits.JobState.TRANSFERRED
        assert job.complete() is openbits.Result.S_OK
        assert job.get_state() is openbits.JobState.ACKNOWLEDGED
        assert job.get_times().transfer_completion_time is not None
        assert job not in list(manager.enum_jobs())
        assert manager.get_error_description(0x80200003)
        assert manager.whoami()["uid"] == os.geteuid()
    assert digest(f"{shared.base}/py21") == content_digest(1000, 21)


def test_the_asyncio_client_does_the_same(shared: Place, origin: Origin) -> None:
    async def download(number: int) -> openbits.JobState:
        async with openbits.aio.Manager(shared.socket) as manager:
            job = await manager.create_job(f"asyncio {number}")
            await job.add_file(origin.url(f"/gen/1000/{number}"), f"{shared.base}/aio{number}")
            await job.resume()
            await job.wait(timeout=TIMEOUT_S)
            await job.complete()
            return await job.get_state()

    async def many() -> list[openbits.JobState]:
        return list(await asyncio.gather(*(download(number) for number in range(5))))

    assert asyncio.run(many()) == [openbits.JobState.ACKNOWLEDGED] * 5
    assert digest(f"{shared.base}/aio4") == content_digest(1000, 4)


def test_a_thousand_jobs_in_one_call(shared: Place) -> None:
    """Batches: all ids, in order."""
    with openbits.Manager(shared.socket) as manager:
        specs = [openbits.JobSpec(name=f"batch {number}") for number in range(1000)]
        began = time.monotonic()
        jobs = manager.create_jobs(specs)
        assert time.monotonic() - began < 10
        assert len({job.id for job in jobs}) == 1000
        assert jobs[999].get_display_name() == "batch 999"
        infos = manager.enum_job_infos()
        assert sum(info.name.startswith("batch ") for info in infos) == 1000
        for job in jobs:
            job.cancel()
