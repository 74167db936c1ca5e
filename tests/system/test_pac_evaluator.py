"""The process that evaluates a PAC script: what scripts get of it, and that bombs end with it (J22)."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import pytest

from openbits.frames.codec import MAX_FRAME_BYTES
from openbits.frames.pac import (
    FROM_EVALUATOR,
    PART_LENGTH,
    TO_EVALUATOR,
    Names,
    NamesWanted,
    Question,
    ScriptPart,
    Verdict,
)
from openbits.worker.evaluator import CPU_LIMIT_S, NAMES_LIMIT, WALL_LIMIT_S

_PROGRAM = """
import sys
from openbits.worker.evaluator import become_evaluator
become_evaluator(int(sys.argv[1]))
"""
_TIMEOUT_S = 40.0
FUNCTION = "function FindProxyForURL(url, host) {%s}"


class Evaluation:
    """A context manager; `names` are the addresses that are answered, by name; None does not answer."""

    def __init__(self, script: str, names: dict[str, tuple[str, ...]] | None = None) -> None:
        self.names = names
        self.wanted: list[NamesWanted] = []
        self._script = script

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno())], pass_fds=(theirs.fileno(),)
            )
        self.socket = ours
        ours.settimeout(_TIMEOUT_S)
        parts = [self._script[at : at + PART_LENGTH] for at in range(0, len(self._script), PART_LENGTH)]
        for part in parts:
            ours.send(TO_EVALUATOR.encode(ScriptPart(text=part, last=part is parts[-1])))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        try:
            self.process.wait(_TIMEOUT_S)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def ask(self, url: str = "http://www.example.com/path", host: str = "www.example.com") -> Verdict | None:
        """What the script says; None when the process has ended over it."""
        self.socket.send(TO_EVALUATOR.encode(Question(url=url, host=host)))
        while True:
            try:
                packet = self.socket.recv(MAX_FRAME_BYTES)
            except ConnectionError:
                return None
            if not packet:
                return None
            message = FROM_EVALUATOR.decode(packet)
            if isinstance(message, Verdict):
                return message
            assert isinstance(message, NamesWanted)
            self.wanted.append(message)
            if self.names is not None:
                self.socket.send(TO_EVALUATOR.encode(Names(addresses=self.names.get(message.name, ()))))


def said(body: str, names: dict[str, tuple[str, ...]] | None = None) -> Verdict | None:
    with Evaluation(FUNCTION % body, {} if names is None else names) as evaluation:
        return evaluation.ask()


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("isPlainHostName('www')", "true"),
        ("isPlainHostName(host)", "false"),
        ("dnsDomainIs(host, '.example.com')", "true"),
        ("localHostOrDomainIs('www', host)", "true"),
        ("isResolvable('known.test')", "true"),
        ("isResolvable('unknown.test')", "false"),
        ("isInNet('known.test', '10.0.0.0', '255.0.0.0')", "true"),
        ("isInNet('unknown.test', '10.0.0.0', '255.0.0.0')", "false"),
        ("isInNet('10.1.1.1', '10.0.0.0', '255.0.0.0')", "true"),
        ("dnsResolve('known.test')", "10.1.2.3"),
        ("dnsResolve('unknown.test')", "null"),
        ("dnsResolve('two words')", "null"),
        ("dnsResolve('10.1.1.1')", "10.1.1.1"),
        ("convert_addr('192.168.1.1')", "-1062731519"),
        ("myIpAddress()", "192.0.2.7"),
        ("dnsDomainLevels(host)", "2"),
        ("shExpMatch(url, 'http://*.example.com/*')", "true"),
        ("shExpMatch(url)", "false"),
        ("weekdayRange('MON', 'SUN')", "true"),
        ("weekdayRange('never')", "false"),
        ("dateRange('JAN', 'DEC')", "true"),
        ("timeRange(0, 23)", "true"),
        ("timeRange(0, 23, 'GMT')", "true"),
        ("isResolvableEx('known.test')", "true"),
        ("isInNetEx('known.test', '10.0.0.0/8')", "true"),
        ("dnsResolveEx('known.test')", "10.1.2.3;2001:db8::5"),
        ("dnsResolveEx('unknown.test')", ""),
        ("myIpAddressEx()", "192.0.2.7"),
        ("sortIpAddressList('10.0.0.1;::1')", "::1;10.0.0.1"),
        ("sortIpAddressList('x')", "false"),
        ("getClientVersion()", "1.0"),
        ("alert('hello')", "undefined"),
        ("typeof bridge + typeof std + typeof os + typeof require", "undefined" * 4),
        ("url + host", "http://www.example.com/pathwww.example.com"),
    ],
)
def test_every_function_of_the_specification_is_there(expression: str, value: str) -> None:
    names = {"known.test": ("10.1.2.3", "2001:db8::5"), "": ("192.0.2.7",)}
    assert said(f"return 'A' + String({expression});", names) == Verdict(result=f"A{value}")


@pytest.mark.parametrize("last", ["10n", "'\\ud800'", "Symbol('x')", "var end // of it"])
def test_what_the_last_statement_of_a_script_comes_to_does_not_matter(last: str) -> None:
    with Evaluation(FUNCTION % "return 'DIRECT'" + f"\n{last}") as evaluation:
        assert evaluation.ask() == Verdict(result="DIRECT")


def test_what_a_script_keeps_is_there_for_the_next_question() -> None:
    with Evaluation("var n = 0; " + FUNCTION % "n += 1; return 'PROXY p:' + n", {}) as evaluation:
        assert [evaluation.ask() for _ in range(3)] == [Verdict(result=f"PROXY p:{n}") for n in (1, 2, 3)]


def test_the_function_of_the_newer_kind_comes_first() -> None:
    script = FUNCTION % "return 'DIRECT'" + "function FindProxyForURLEx(url, host) { return 'PROXY p:1'; }"
    with Evaluation(script, {}) as evaluation:
        assert evaluation.ask() == Verdict(result="PROXY p:1")


def test_a_name_is_asked_for_once_in_an_evaluation_and_again_in_the_next() -> None:
    body = "for (var i = 0; i < 1000; i++) dnsResolve('a.test'); return 'DIRECT'"
    with Evaluation(FUNCTION % body, {"a.test": ("10.0.0.1",)}) as evaluation:
        for _ in range(2):
            assert evaluation.ask() == Verdict(result="DIRECT")
        assert [wanted.name for wanted in evaluation.wanted] == ["a.test", "a.test"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("this is no script", "SyntaxError"),
        ("var x = 1;", "no function FindProxyForURL"),
        (FUNCTION % "", "undefined"),
        (FUNCTION % "return 5", "number"),
        (FUNCTION % "return {}", "object"),
        (FUNCTION % "throw new Error('over')", "over"),
        (FUNCTION % "return missing", "missing"),
        # UTF-16 that was taken for bytes, half a character, a number that Python does not get.
        ("\0".join(FUNCTION % "return 'DIRECT'"), "no text"),
        (FUNCTION % "return '\\ud800'", "no text"),
        (FUNCTION % "return 10n", "bigint"),
        (FUNCTION % "return 'x'.repeat(5000)", "5000 characters"),
        (FUNCTION % "return 'PROXY a\\0.example:1'", "NUL"),
        (FUNCTION % "dnsResolve('x'.repeat(1e5)); return 'DIRECT'", "characters"),
        # What the script hands over is not what its functions were called with.
        (FUNCTION % "Array.prototype.toJSON = () => 5; try { isResolvable('a') } catch (e) {}", "not known"),
        (FUNCTION % "Array.prototype.toJSON = () => [null, null]; dateRange('JAN'); return 'DIRECT'", "not known"),
        # Bombs that the interpreter's own limits stop.
        (FUNCTION % "function f() { f() } f()", "stack"),
        (FUNCTION % "var s = 'a'; while (1) s += s", "string too long"),
        (FUNCTION % "return 'x'.repeat(1 << 29)", "out of memory"),
        (FUNCTION % "var a = []; while (1) a.push(new ArrayBuffer(1e6))", "out of memory"),
        (FUNCTION % "for (var i = 0; i < 1e9; i++) dnsResolve('h' + i)", f"{NAMES_LIMIT} names"),
    ],
)
def test_what_is_wrong_with_a_script_is_said(script: str, words: str) -> None:
    with Evaluation(script, {}) as evaluation:
        verdict = evaluation.ask()
        assert verdict is not None
        assert (verdict.result, words in verdict.error) == ("", True), verdict
        # And again: the process goes on, and has not become another one.
        assert evaluation.ask() == verdict


def test_a_refusal_that_the_script_catches_is_a_refusal_all_the_same() -> None:
    verdict = said("try { for (var i = 0; i < 1e9; i++) dnsResolve('h' + i) } catch (e) {} return 'DIRECT'")
    assert verdict is not None
    assert f"{NAMES_LIMIT} names" in verdict.error


@pytest.mark.parametrize(
    "body",
    [
        "while (1);",
        "try { while (1); } catch (e) { while (1); } finally { while (1); }",
        "return /(a+)+$/.test('a'.repeat(40) + 'b') ? 'DIRECT' : 'DIRECT'",
        "for (var i = 0; i < 1e9; i++) dnsResolve('h'); return 'DIRECT'",
        "return new Array(1e9).join('x')",
    ],
)
def test_what_computes_for_ever_is_ended_by_the_kernel(body: str) -> None:
    begun = time.monotonic()
    with Evaluation(FUNCTION % body, {}) as evaluation:
        assert evaluation.ask() is None
        assert evaluation.process.wait(_TIMEOUT_S) in (-signal.SIGPROF, -signal.SIGALRM)
    assert time.monotonic() - begun < WALL_LIMIT_S + CPU_LIMIT_S + 5.0


def test_a_name_that_nobody_answers_ends_the_evaluation_in_time() -> None:
    with Evaluation(FUNCTION % "return dnsResolve('slow.test')") as evaluation:
        assert evaluation.ask() is None
        assert evaluation.process.wait(_TIMEOUT_S) == -signal.SIGALRM


def test_an_evaluator_ends_with_its_worker() -> None:
    with Evaluation(FUNCTION % "return 'DIRECT'", {}) as evaluation:
        assert evaluation.ask() == Verdict(result="DIRECT")
        evaluation.socket.close()
        assert evaluation.process.wait(_TIMEOUT_S) == 0


# --- what it has -------------------------------------------------------------------------------------


@pytest.fixture
def running() -> Iterator[Evaluation]:
    with Evaluation(FUNCTION % "return 'DIRECT'", {}) as evaluation:
        assert evaluation.ask() == Verdict(result="DIRECT")
        yield evaluation


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def test_an_evaluator_has_one_thread_one_descriptor_and_a_filter(running: Evaluation) -> None:
    pid = running.process.pid
    status = _status(pid)
    assert os.listdir(f"/proc/{pid}/fd") == ["0"]
    assert os.readlink(f"/proc/{pid}/fd/0").startswith("socket:")
    assert (status["Threads"], status["NoNewPrivs"], status["Seccomp"]) == ("1", "1", "2")
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        limits = {line[:26].strip(): line[26:].split()[:2] for line in file}
    for name in ("Max open files", "Max processes", "Max file size", "Max core file size"):
        assert limits[name] == ["0", "0"]
    assert int(limits["Max data size"][1]) < 1 << 30


_ATTEMPTS = {
    "open a file": "os.open('/dev/null', os.O_RDONLY)",
    "look at one": "os.stat('/etc/passwd')",
    "open a socket": "socket.socket()",
    "connect": "sock.connect('/run/x')",
    "fork": "os.fork()",
    "start a thread": "threading.Thread(target=print).start()",
    "execute": "os.execv('/bin/true', ['true'])",
    "signal": "os.kill(1, 0)",
    "trace": "ctypes.CDLL(None).ptrace(0, 0, 0, 0)",
    "map code": "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    "duplicate": "os.dup(0)",
    "catch a signal": "signal.signal(signal.SIGPROF, signal.SIG_IGN)",
    "change its limits": "resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))",
    "call by another table": "ctypes.CDLL(None).syscall(0x40000000 | 39)",
}


@pytest.mark.parametrize("attempt", _ATTEMPTS)
def test_whatever_else_a_filtered_process_does_kills_it(attempt: str) -> None:
    if "another table" in attempt and os.uname().machine != "x86_64":
        pytest.skip("only there")
    program = (
        "import ctypes, mmap, os, resource, signal, socket, threading\n"
        "from openbits.worker.seccomp import confine\n"
        "sock, _ = socket.socketpair()\n"
        "libc = ctypes.CDLL(None).ptrace\n"
        "assert confine() == ''\n"
        "os.write(1, b'confined')\n"
        f"{_ATTEMPTS[attempt]}\n"
        "os.write(1, b' and free')\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=_TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGSYS, b"confined")


def test_two_evaluators_do_not_wait_for_each_other() -> None:
    with Evaluation(FUNCTION % "while (1);", {}) as bomb, Evaluation(FUNCTION % "return 'DIRECT'", {}) as other:
        bomb.socket.send(TO_EVALUATOR.encode(Question(url="http://h/", host="h")))
        assert other.ask() == Verdict(result="DIRECT")
        assert select.select([bomb.socket], [], [], 0)[0] == []
        assert bomb.process.wait(_TIMEOUT_S) < 0
