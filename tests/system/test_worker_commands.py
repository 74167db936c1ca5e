"""Notification command lines: run with the owner's rights, given nothing else, and gone in time (N10, N11).

The real monitor and zygote with real accounts; the service is a fake that sends what the test says.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from openbits.frames.operations import NoticeEnded, RunCommand
from openbits.frames.worker import SERVICE_TO_WORKER, WORKER_TO_SERVICE, WorkerReady
from support.accounts import TestAccount, ensure_service_account, needs_root, temporary_account
from support.monitored import Monitored, is_running, monitored, status_of, until

pytestmark = needs_root

PATH = "/usr/local/bin:/usr/bin:/bin"


@pytest.fixture(scope="module")
def alice() -> Iterator[TestAccount]:
    with temporary_account(extra_groups=1) as account:
        yield account


@contextlib.contextmanager
def started() -> Iterator[Monitored]:
    ensure_service_account()
    with monitored("--system", environment={"OBT_ZYGOTE": "real"}) as running:
        running.be_ready()
        yield running


@pytest.fixture(scope="module")
def daemon() -> Iterator[Monitored]:
    with started() as running:
        yield running


def obey(daemon: Monitored, what: str, **details: Any) -> list[dict[str, Any]]:
    """Have the fake service do something; return what it tells meanwhile: of workers that have ended, too."""
    assert daemon._control is not None
    daemon._control.sendall(json.dumps({"do": what, **details}).encode() + b"\n")
    heard = [daemon.hear()]
    while heard[-1] != {"done": what}:
        heard.append(daemon.hear())
    return heard


def spawn(daemon: Monitored, uid: int, gid: int, groups: tuple[int, ...]) -> dict[str, Any]:
    """Order a keeper; return the monitor's answer."""
    daemon._requests += 1
    heard = obey(daemon, "spawn keeper", request=daemon._requests, uid=uid, gid=gid, groups=list(groups))
    while heard[-1].get("request") != daemon._requests:
        heard.append(daemon.hear())
    return heard[-1]


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """Who keeps a program, by the fake service's number of him."""

    daemon: Monitored
    request: int
    pid: int

    def run(self, program: str, *arguments: str, limit_s: float = 20.0, argv: tuple[str, ...] | None = None) -> None:
        """Give the order."""
        vector = argv if argv is not None else (program, *arguments)
        order = RunCommand(operation=9, program=program, arguments=vector, limit_s=limit_s)
        obey(self.daemon, "send", request=self.request, text=SERVICE_TO_WORKER.encode(order).decode())

    def ended(self) -> NoticeEnded:
        """How it went."""
        frame = self._receive()
        assert isinstance(frame, NoticeEnded)
        assert frame.operation == 9
        return frame

    def ready(self) -> WorkerReady:
        frame = self._receive()
        assert isinstance(frame, WorkerReady)
        return frame

    def _receive(self) -> object:
        (heard,) = [line for line in obey(self.daemon, "receive", request=self.request) if "received" in line]
        return WORKER_TO_SERVICE.decode(heard["received"].encode())


def keeper_of(daemon: Monitored, account: TestAccount) -> Keeper:
    answer = spawn(daemon, account.uid, account.gid, account.groups)
    assert answer["frame"] == "WorkerSpawned", answer
    keeper = Keeper(daemon=daemon, request=answer["request"], pid=answer["pid"])
    assert keeper.ready().uid == account.uid
    return keeper


def run(daemon: Monitored, account: TestAccount, program: str, *arguments: str, **changes: Any) -> NoticeEnded:
    keeper = keeper_of(daemon, account)
    keeper.run(program, *arguments, **changes)
    ended = keeper.ended()
    until(lambda: not is_running(keeper.pid), "the keeper stays")
    return ended


def script(account: TestAccount, name: str, text: str, *, mode: int = 0o700) -> str:
    """A program of the account's own in its home."""
    path = os.path.join(account.home, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chown(path, account.uid, account.gid)
    os.chmod(path, mode)
    return path


def look(daemon: Monitored, account: TestAccount, code: str) -> Any:
    """What a Python program that runs as a command line finds."""
    out = os.path.join(account.home, "found")
    program = script(
        account, "look", f"#!/usr/bin/python3 -I\nimport json, os, sys\njson.dump({code}, open({out!r}, 'w'))\n"
    )
    ended = run(daemon, account, program)
    assert ended.error == "", ended
    return json.loads(Path(out).read_text(encoding="utf-8"))


def pid_from(path: str) -> int:
    """The number that a program has written, when it has."""
    return int(until(lambda: os.path.exists(path) and Path(path).read_text(encoding="ascii").strip(), f"no {path}"))


# --- what a program is given -----------------------------------------------------------------------


def test_exit_status_zero_acknowledges(daemon: Monitored, alice: TestAccount) -> None:
    assert run(daemon, alice, "/bin/true") == NoticeEnded(operation=9, status=0)


def test_its_rights_are_the_owners_and_no_capability(daemon: Monitored, alice: TestAccount) -> None:
    """N10, I1; and no setuid program gives it more: no_new_privs stays."""
    found = look(daemon, alice, "dict(line.split(':', 1) for line in open('/proc/self/status').read().splitlines())")
    status = {key: value.split() for key, value in found.items()}
    assert set(status["Uid"]) == {str(alice.uid)}
    assert set(status["Gid"]) == {str(alice.gid)}
    assert set(status["Groups"]) == {str(group) for group in alice.groups}
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(status[kind][0], 16) == 0
    assert status["NoNewPrivs"] == ["1"]
    assert status["Umask"] == ["0022"]
    for kind in ("SigBlk", "SigPnd", "ShdPnd"):
        assert int(status[kind][0], 16) == 0
    # Python ignores SIGPIPE and SIGXFSZ of its own accord, and catches SIGINT; 32 and 33 belong to the C library, which
    # lets nobody set them: they are as whoever started the tests has left them.
    assert int(status["SigIgn"][0], 16) & ~(1 << 12 | 1 << 24 | 1 << 31 | 1 << 32) == 0


def test_its_environment_is_made_for_it(daemon: Monitored, alice: TestAccount) -> None:
    assert look(daemon, alice, "dict(os.environ)") == {
        "HOME": alice.home,
        "LANG": "C.UTF-8",
        "LOGNAME": alice.name,
        "PATH": PATH,
        "SHELL": "/bin/sh",
        "USER": alice.name,
    }


def test_the_place_of_its_session_is_named_if_it_is_the_accounts_own(daemon: Monitored, alice: TestAccount) -> None:
    runtime = Path(f"/run/user/{alice.uid}")
    runtime.mkdir(mode=0o700, parents=True)
    try:
        assert "XDG_RUNTIME_DIR" not in look(daemon, alice, "dict(os.environ)")
        os.chown(runtime, alice.uid, alice.gid)
        assert look(daemon, alice, "os.environ['XDG_RUNTIME_DIR']") == str(runtime)
    finally:
        runtime.rmdir()


def test_its_descriptors_are_three_and_lead_nowhere(daemon: Monitored, alice: TestAccount) -> None:
    """Not the channel, no log, no socket: the one more is the directory that is being listed."""
    out = os.path.join(alice.home, "fds")
    ended = run(daemon, alice, "/bin/sh", "-c", f"ls -l /proc/self/fd > {out}.1; ls /proc/$$/fd > {out}.2")
    assert ended.error == ""
    links = {
        line.split(" -> ")[0].split()[-1]: line.split(" -> ")[1]
        for line in Path(f"{out}.1").read_text().splitlines()[1:]
    }
    assert links["0"] == links["2"] == "/dev/null"
    assert set(links) <= {"0", "1", "2", "3"}
    # The shell itself has saved its output elsewhere, beyond the numbers that a program begins with.
    assert {int(fd) for fd in Path(f"{out}.2").read_text().split()} - {0, 1, 2} <= {10, 11}


def test_it_has_a_session_of_its_own_without_a_terminal(daemon: Monitored, alice: TestAccount) -> None:
    pid, session, group, terminal = look(
        daemon,
        alice,
        "[os.getpid(), os.getsid(0), os.getpgid(0), int(open('/proc/self/stat').read().rpartition(')')[2].split()[4])]",
    )
    assert pid == session == group
    assert terminal == 0


def test_it_begins_at_home_or_at_the_root(daemon: Monitored, alice: TestAccount) -> None:
    assert look(daemon, alice, "os.getcwd()") == alice.home
    os.chmod(alice.home, 0)
    try:
        ended = run(daemon, alice, "/bin/sh", "-c", 'test "$(pwd)" = /')
    finally:
        os.chmod(alice.home, 0o700)
    assert ended.error == ""


def test_what_a_worker_may_not_do_it_may(daemon: Monitored, alice: TestAccount) -> None:
    """An ordinary program: it makes sockets and pipes, moves files, maps code, starts others and signals them."""
    code = f"""
import os, signal, socket, subprocess, mmap
os.chdir({alice.home!r})
os.makedirs('a', exist_ok=True); os.makedirs('b', exist_ok=True)
open('a/f', 'w').close(); os.rename('a/f', 'b/f'); os.unlink('b/f')
os.mkfifo('p'); os.unlink('p')
s = socket.socket(socket.AF_UNIX); s.bind('s'); os.unlink('s')
socket.socket(socket.AF_INET).close()
mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()
child = subprocess.Popen(['sleep', '60']); child.send_signal(signal.SIGTERM); assert child.wait(10) == -15
"""
    ended = run(daemon, alice, script(alice, "ordinary", f"#!/usr/bin/python3 -I\n{code}"))
    assert ended.error == "", ended


def test_arguments_arrive_byte_for_byte(daemon: Monitored, alice: TestAccount) -> None:
    said = ("two words", "a\nnew line", "", "$HOME `id` ; * \"'", "Grüße 📦", "\udcff\udcfe not text", "x" * 4_000)
    out = os.path.join(alice.home, "arguments")
    code = f"import os, sys\nopen({out!r}, 'wb').write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))\n"
    ended = run(daemon, alice, script(alice, "arguments.py", f"#!/usr/bin/python3 -I\n{code}"), *said)
    assert ended.error == ""
    assert Path(out).read_bytes().split(b"\0") == [text.encode("utf-8", "surrogateescape") for text in said]


def test_a_program_may_be_called_something_else(daemon: Monitored, alice: TestAccount) -> None:
    """The argument vector is the whole of it: what is first need not be the path."""
    out = os.path.join(alice.home, "zero")
    ended = run(daemon, alice, "/bin/sh", argv=("-sh", "-c", f'echo "$0" > {out}'))
    assert ended.error == ""
    assert Path(out).read_text() == "-sh\n"


def test_a_gigabyte_that_it_prints_costs_nothing(daemon: Monitored, alice: TestAccount) -> None:
    code = "head -c 1000000000 /dev/zero; head -c 1000000000 /dev/zero >&2"
    ended = run(daemon, alice, "/bin/sh", "-c", code, limit_s=60.0)
    assert ended.error == ""
    assert int(status_of(daemon.pid_of("bitsd-service"))["VmRSS"].split()[0]) < 200_000


# --- how it ends -------------------------------------------------------------------------------------


def test_exit_status_is_told_and_is_no_acknowledgement(daemon: Monitored, alice: TestAccount) -> None:
    ended = run(daemon, alice, "/bin/sh", "-c", "exit 3")
    assert (ended.error, ended.status) == ("ERROR_PROCESS_ABORTED", 3)
    assert ended.message == "/bin/sh exited with status 3"


def test_a_signal_is_told_as_a_negative_status(daemon: Monitored, alice: TestAccount) -> None:
    ended = run(daemon, alice, "/bin/sh", "-c", "kill -SEGV $$")
    assert (ended.error, ended.status) == ("ERROR_PROCESS_ABORTED", -signal.SIGSEGV)
    assert "SIGSEGV" in ended.message


@pytest.mark.parametrize(
    ("make", "error", "clause"),
    [
        (lambda alice: "/nowhere/program", "ERROR_FILE_NOT_FOUND", "full path"),
        (lambda alice: "true", "ERROR_FILE_NOT_FOUND", "full path"),
        (lambda alice: "/etc/passwd/x", "ERROR_FILE_NOT_FOUND", "no directory"),
        (lambda alice: "/" + "x" * 300, "ERROR_FILE_NOT_FOUND", "too long"),
        (lambda alice: script(alice, "plain", "#!/bin/sh\n", mode=0o600), "E_ACCESSDENIED", "executable"),
        (lambda alice: alice.home, "E_ACCESSDENIED", "executable"),
        (lambda alice: "/root/program", "E_ACCESSDENIED", "executable"),
        (lambda alice: script(alice, "headless", "echo hello\n"), "ERROR_BAD_EXE_FORMAT", "#!/bin/sh"),
        (lambda alice: script(alice, "lost", "#!/no/interpreter\n"), "ERROR_BAD_EXE_FORMAT", "interpreter"),
    ],
)
def test_what_cannot_be_started_is_told_with_a_name(
    daemon: Monitored, alice: TestAccount, make: Any, error: str, clause: str
) -> None:
    program = make(alice)
    ended = run(daemon, alice, program)
    assert (ended.error, ended.status) == (error, None)
    assert ended.message.startswith(program[:300])
    assert clause in ended.message


def test_a_nul_in_an_argument_is_refused(daemon: Monitored, alice: TestAccount) -> None:
    assert run(daemon, alice, "/bin/true", "a\0b").error == "E_INVALIDARG"


def test_arguments_beyond_the_kernels_limit(daemon: Monitored, alice: TestAccount) -> None:
    # One frame holds at most 128 KiB, and so much is the limit of one argument.
    ended = run(daemon, alice, "/bin/true", "x" * (128 * 1024 - 200))
    assert ended.error == ""


# --- what it leaves behind ----------------------------------------------------------------------------


def test_at_the_limit_it_is_asked_and_then_killed(daemon: Monitored, alice: TestAccount) -> None:
    ended = run(daemon, alice, "/bin/sleep", "600", limit_s=0.5)
    assert (ended.error, ended.status) == ("ERROR_TIMEOUT", -signal.SIGTERM)
    assert "0.5 s" in ended.message
    began = time.monotonic()
    stubborn = 'trap "" TERM HUP INT; while :; do sleep 1; done'
    ended = run(daemon, alice, "/bin/sh", "-c", stubborn, limit_s=0.5)
    assert (ended.error, ended.status) == ("ERROR_TIMEOUT", -signal.SIGKILL)
    assert 2.4 < time.monotonic() - began < 15


def test_one_that_has_stopped_itself_ends_too(daemon: Monitored, alice: TestAccount) -> None:
    assert run(daemon, alice, "/bin/sh", "-c", "kill -STOP $$", limit_s=0.5).error == "ERROR_TIMEOUT"


def daemonised(alice: TestAccount, name: str) -> tuple[str, str]:
    """A program that forks away twice into a session of its own, heeds no request to end, and writes its number."""
    out = os.path.join(alice.home, name)
    code = f"""#!/usr/bin/python3 -I
import os, signal, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
open({out!r} + '.new', 'w').write(str(os.getpid())); os.rename({out!r} + '.new', {out!r})
time.sleep(600)
"""
    return script(alice, f"{name}.py", code), out


def test_what_forks_away_does_not_outlive_the_limit(daemon: Monitored, alice: TestAccount) -> None:
    """The notice is acknowledged when the program itself has ended; the rest has until the limit."""
    program, out = daemonised(alice, "away")
    keeper = keeper_of(daemon, alice)
    keeper.run(program, limit_s=2.0)
    assert keeper.ended() == NoticeEnded(operation=9, status=0)
    pid = pid_from(out)
    assert is_running(pid)
    assert is_running(keeper.pid)
    until(lambda: not is_running(pid), "it outlives the limit")
    until(lambda: not is_running(keeper.pid), "its keeper outlives it")


def test_what_forks_away_again_and_again_is_caught(daemon: Monitored, alice: TestAccount) -> None:
    """Each generation lives for a moment: whoever is killed has left a child already."""
    out = os.path.join(alice.home, "generations")
    code = f"""#!/usr/bin/python3 -I
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    with open({out!r}, 'a') as file: file.write('x')
    if os.fork(): os._exit(0)
    os.setsid()
    time.sleep(0.003)
"""
    keeper = keeper_of(daemon, alice)
    keeper.run(script(alice, "hydra.py", code), limit_s=1.0)
    assert keeper.ended().error == ""
    until(lambda: not is_running(keeper.pid), "the generations go on")
    size = os.path.getsize(out)
    assert size > 10
    time.sleep(0.1)
    assert os.path.getsize(out) == size


@pytest.mark.parametrize("way", ["the channel ends", "it is killed"])
def test_nothing_outlives_the_keeper(daemon: Monitored, alice: TestAccount, way: str) -> None:
    """Log-off ends the channel; KillWorker comes when that takes too long; the monitor kills what is left then."""
    program, out = daemonised(alice, way.replace(" ", "-"))
    keeper = keeper_of(daemon, alice)
    keeper.run("/bin/sh", "-c", f"{program}; exec sleep 600", limit_s=600.0)
    pid = pid_from(out)
    direct = until(lambda: [child for child in _children(keeper.pid) if child != pid], "no sleeping program")
    began = time.monotonic()
    if way == "the channel ends":
        obey(daemon, "release", request=keeper.request)
    else:
        obey(daemon, "kill", pid=keeper.pid)
    until(lambda: not any(map(is_running, (pid, keeper.pid, *direct))), "somebody is left")
    assert time.monotonic() - began < 5


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def test_an_owner_who_kills_the_keeper_gains_nothing(daemon: Monitored, alice: TestAccount) -> None:
    """The account may signal its own keeper; what it leaves is the monitor's then, and killed."""
    program, out = daemonised(alice, "orphan")
    keeper = keeper_of(daemon, alice)
    keeper.run(program, limit_s=600.0)
    assert keeper.ended().error == ""
    pid = pid_from(out)
    os.kill(keeper.pid, signal.SIGKILL)
    until(lambda: not is_running(pid), "the orphan lives on")


@pytest.mark.parametrize("who", ["bitsd-zygote", "bitsd-service", "bitsd"])
def test_nothing_outlives_the_daemon(alice: TestAccount, who: str) -> None:
    """Whoever of the three dies. (Of the monitor: when it ends in order; a kill is for the unit's control group.)"""
    with started() as daemon:
        program, out = daemonised(alice, f"under-{who}")
        keeper = keeper_of(daemon, alice)
        keeper.run(program, limit_s=600.0)
        assert keeper.ended().error == ""
        pid = pid_from(out)
        if who == "bitsd":
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.wait() == 0
        else:
            os.kill(daemon.pid_of(who), signal.SIGKILL)
        until(lambda: not is_running(pid), "the program lives on")
        until(lambda: not is_running(keeper.pid), "the keeper lives on")


# --- for whom ------------------------------------------------------------------------------------------


def test_no_program_is_run_as_root(daemon: Monitored) -> None:
    """N13: the monitor refuses it, whatever the service asks for."""
    answer = spawn(daemon, 0, 0, (0,))
    assert (answer["frame"], answer["error"]) == ("SpawnRefused", "E_ACCESSDENIED")


def test_the_keeper_is_powerless_and_cannot_be_traced(daemon: Monitored, alice: TestAccount) -> None:
    keeper = keeper_of(daemon, alice)
    status = status_of(keeper.pid)
    assert status["Name"] == "bitsd-command"
    assert status["Threads"] == "1"
    assert int(status["CapPrm"], 16) == 0
    assert os.stat(f"/proc/{keeper.pid}/mem").st_uid == 0
    obey(daemon, "release", request=keeper.request)
    until(lambda: not is_running(keeper.pid), "a keeper that nobody needs stays")
