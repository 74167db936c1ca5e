"""`bitsd-pac`: evaluates one PAC script, and has nothing but the socket to the worker that asks.

The rule: a script is somebody's program, and this is all that it may have: memory and time, both limited by the kernel
and not by the interpreter, and answers of the worker about names.  No file, no network, no other process.  What is
imported here was imported by the process that it is forked from.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from typing import Final, NoReturn

# Not the package around it: that starts a thread when it is imported, and whoever imports this has one and forks.
import _quickjs as quickjs

from openbits.core import pac
from openbits.frames.codec import MAX_FRAME_BYTES, FrameError
from openbits.frames.pac import FROM_EVALUATOR, TO_EVALUATOR, Names, NamesWanted, Question, ScriptPart, Verdict
from openbits.title import set_title
from openbits.worker.seccomp import confine

CPU_LIMIT_S: Final = 3.0
"""Of computing, for one question; for the first one, with the script itself."""
WALL_LIMIT_S: Final = 10.0
"""Of one question, with all that is waited for."""
LIFE_CPU_LIMIT_S: Final = 600
MEMORY_LIMIT_BYTES: Final = 64 * 1024 * 1024
NAMES_LIMIT: Final = 100
"""How many different names a script may ask for in one evaluation."""
_SPARE_BYTES: Final = 192 * 1024 * 1024
"""Of memory beside what the process has when it begins: the interpreter's limit, and copies of what it holds."""
_STACK_BYTES: Final = 512 * 1024
_ARGUMENTS_LIMIT: Final = 64 * 1024
_ERROR_LIMIT: Final = 300

_PRELUDE: Final = """
(function (bridge) {
  "use strict";
  const stringify = JSON.stringify, string = String, isInteger = Number.isInteger;
  const plain = (value) => (isInteger(value) ? value : string(value));
  const call = (name, values) => {
    const answer = bridge(name, stringify(values));
    if (typeof answer !== "string") return answer;
    if (answer[0] !== "=") throw new Error(answer.slice(1));
    return answer.slice(1);
  };
  const define = (name, count) => {
    globalThis[name] = function (...values) {
      const given = [];
      for (let at = 0; at < (count < 0 ? values.length : count); at++) given[at] = plain(values[at]);
      return call(name, given);
    };
  };
  const functions = {
    isPlainHostName: 1, dnsDomainIs: 2, localHostOrDomainIs: 2, isResolvable: 1, isInNet: 3, dnsResolve: 1,
    convert_addr: 1, myIpAddress: 0, dnsDomainLevels: 1, shExpMatch: 2, weekdayRange: -1, dateRange: -1,
    timeRange: -1, isResolvableEx: 1, isInNetEx: 2, dnsResolveEx: 1, myIpAddressEx: 0, sortIpAddressList: 1,
  };
  for (const name in functions) define(name, functions[name]);
  globalThis.alert = function () {};
  globalThis.getClientVersion = () => "1.0";
})
"""
_ASK: Final = """
(function (url, host) {
  const find = typeof FindProxyForURLEx === "function" ? FindProxyForURLEx
    : typeof FindProxyForURL === "function" ? FindProxyForURL : undefined;
  if (find === undefined) return "-it has no function FindProxyForURL";
  const result = find(url, host);
  if (result === null) return "=";
  if (typeof result !== "string") return "-its function returns no text but " + typeof result;
  if (result.indexOf("\\0") >= 0) return "-its function returns a NUL character, which no list of proxies has";
  if (result.length > %d) return "-its function returns " + result.length + " characters";
  return "=" + result;
})
"""


class _Refused(Exception):
    """The script asked for more than it may."""


class Evaluator:
    """The script and its interpreter; `ask` is how it gets at names."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._context: quickjs.Context | None = None
        self._ask: Callable[[str, str], object] | None = None
        self._script = ""
        self._names: dict[tuple[str, bool], tuple[str, ...]] = {}
        self._trouble = ""

    def __repr__(self) -> str:
        return f"<Evaluator of {len(self._script)} characters>"

    def run(self) -> None:
        """Answer questions until the worker has gone, which ends the process. Raises FrameError."""
        while True:
            match self._receive():
                case ScriptPart(text=text):
                    self._script += text
                case Question() as question:
                    self._arm(CPU_LIMIT_S, WALL_LIMIT_S)
                    verdict = self._answer(question)
                    self._arm(0, 0)
                    self._send(verdict)
                case unexpected:
                    raise FrameError(f"{type(unexpected).__name__} answers no question")

    @staticmethod
    def _arm(cpu_s: float, wall_s: float) -> None:
        """Have the kernel end this process: nothing that runs in it has a say in that."""
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        signal.setitimer(signal.ITIMER_REAL, wall_s)

    def _answer(self, question: Question) -> Verdict:
        self._names.clear()
        self._trouble = ""
        try:
            answer = self._evaluate(question)
        except (quickjs.JSException, quickjs.StackOverflow) as error:
            first = next(iter(str(error).splitlines()), "")
            return Verdict(error=self._trouble or f"it fails: {_short(first) or 'without a word'}")
        except MemoryError:
            return Verdict(error="it needs too much memory")
        except (ValueError, TypeError):
            # What Python cannot take over: NUL characters, halves of characters, numbers of any length.
            return Verdict(error="it is, or it returns, what is no text: a script is UTF-8 without NUL characters")
        if self._trouble:
            # Whatever it made of the refusal.
            return Verdict(error=self._trouble)
        if not isinstance(answer, str) or answer[:1] != "=":
            return Verdict(error=_short(str(answer)[1:]))
        return Verdict(result=answer[1:])

    def _evaluate(self, question: Question) -> object:
        if self._ask is None:
            context = quickjs.Context()
            context.set_memory_limit(MEMORY_LIMIT_BYTES)
            context.set_max_stack_size(_STACK_BYTES)
            context.add_callable("bridge", self._bridge)
            context.eval(_PRELUDE)(context.get("bridge"))
            context.eval("delete globalThis.bridge")
            # What its last statement comes to is of no interest, and may be nothing that Python knows.
            context.eval(f"{self._script}\n;0")
            self._context = context
            self._ask = context.eval(_ASK % pac.RESULT_LIMIT)
        return self._ask(question.url, question.host)

    # --- what the script may call ------------------------------------------------------------

    def _bridge(self, name: str, arguments: str) -> str | int | bool | None:
        """What a call of the script comes to: texts behind `=`, a refusal behind `-`.

        No exception may leave this: one that the script caught would stay set in our own interpreter.
        """
        try:
            result = self._called(name, arguments)
        except (_Refused, FrameError, MemoryError, ValueError, RecursionError) as error:
            self._trouble = self._trouble or str(error) or f"{name} needs too much memory"
            return f"-{self._trouble}"
        except Exception:  # noqa: BLE001 -- a script that changes what JSON makes of its lists can hand anything over
            self._trouble = self._trouble or f"it calls {_short(name)} in a way that is not known"
            return f"-{self._trouble}"
        return f"={result}" if isinstance(result, str) else result

    def _called(self, name: str, arguments: str) -> str | int | bool | None:
        if len(arguments) > _ARGUMENTS_LIMIT:
            raise _Refused(f"it calls {name} with {len(arguments)} characters")
        values: list[str | int] = json.loads(arguments)
        if name in ("weekdayRange", "dateRange", "timeRange"):
            utc = dt.datetime.now(dt.UTC)
            ranges = {"weekdayRange": pac.weekday_range, "dateRange": pac.date_range, "timeRange": pac.time_range}
            return ranges[name](values, utc.astimezone(), utc)
        return self._about_names(name, [str(value) for value in values])

    def _about_names(self, name: str, values: list[str]) -> str | int | bool | None:
        match name, values:
            case "isPlainHostName", [host]:
                return pac.is_plain_host_name(host)
            case "dnsDomainIs", [host, domain]:
                return pac.dns_domain_is(host, domain)
            case "localHostOrDomainIs", [host, full]:
                return pac.local_host_or_domain_is(host, full)
            case "dnsDomainLevels", [host]:
                return pac.dns_domain_levels(host)
            case "shExpMatch", [text, pattern]:
                return pac.sh_exp_match(text, pattern)
            case "convert_addr", [text]:
                return pac.convert_addr(text)
            case "sortIpAddressList", [text]:
                return pac.sort_addresses(text) or False
            case _:
                return self._about_addresses(name, values)

    def _about_addresses(self, name: str, values: list[str]) -> str | bool | None:
        match name, values:
            case "isResolvable", [host]:
                return bool(self._resolve(host))
            case "isResolvableEx", [host]:
                return bool(self._resolve(host, any_version=True))
            case "dnsResolve", [host]:
                return next(iter(self._resolve(host)), None)
            case "dnsResolveEx", [host]:
                return ";".join(self._resolve(host, any_version=True))
            case "myIpAddress", []:
                return next(iter(self._resolve("")), "127.0.0.1")
            case "myIpAddressEx", []:
                return ";".join(self._resolve("", any_version=True))
            case "isInNet", [host, pattern, mask]:
                return any(pac.is_in_net(address, pattern, mask) for address in self._resolve(host)[:1])
            case "isInNetEx", [host, prefix]:
                return any(pac.is_in_net_ex(address, prefix) for address in self._resolve(host, any_version=True))
            case _:
                raise _Refused(f"it calls {_short(name)} in a way that is not known")

    def _resolve(self, name: str, *, any_version: bool = False) -> tuple[str, ...]:
        if pac.address_of(name) is not None:
            return (name,)
        if name and not pac.is_resolvable_name(name):
            return ()
        key = name.lower(), any_version
        found = self._names.get(key)
        if found is None:
            if len(self._names) >= NAMES_LIMIT:
                raise _Refused(f"it asks for the addresses of more than {NAMES_LIMIT} names")
            self._send(NamesWanted(name=name, any_version=any_version))
            answer = self._receive()
            if not isinstance(answer, Names):
                raise FrameError("an answer about names was expected")
            found = self._names[key] = answer.addresses
        return found

    # --- the socket --------------------------------------------------------------------------

    def _send(self, message: object) -> None:
        try:
            self._socket.send(FROM_EVALUATOR.encode(message), socket.MSG_NOSIGNAL)
        except OSError:
            os._exit(0)

    def _receive(self) -> object:
        try:
            packet = self._socket.recv(MAX_FRAME_BYTES)
        except OSError:
            packet = b""
        if not packet:
            os._exit(0)
        return TO_EVALUATOR.decode(packet)


def _short(text: str) -> str:
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown if len(shown) <= _ERROR_LIMIT else shown[: _ERROR_LIMIT - 1] + "…"


def become_evaluator(fd: int) -> NoReturn:
    """Give up everything but this descriptor, a socket to a worker, and evaluate its script until it has gone."""
    set_title("bitsd-pac")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    time.localtime()  # reads where we are, for the last time
    gc.collect()
    gc.freeze()
    used_bytes = _used_bytes()
    if fd:
        os.dup2(fd, 0)
    os.closerange(1, os.sysconf("SC_OPEN_MAX"))
    _limit(used_bytes)
    sock = socket.socket(fileno=0, family=socket.AF_UNIX, type=socket.SOCK_SEQPACKET)
    sock.setblocking(True)
    confine()
    with contextlib.suppress(BaseException):
        Evaluator(sock).run()
    os._exit(0)


def _used_bytes() -> int:
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmData:")), 0)


def _limit(used_bytes: int) -> None:
    _lower(resource.RLIMIT_DATA, used_bytes + _SPARE_BYTES)
    _lower(resource.RLIMIT_CPU, LIFE_CPU_LIMIT_S)
    for limit in (resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE, resource.RLIMIT_NOFILE):
        _lower(limit, 0)


def _lower(limit: int, value: int) -> None:
    _, most = resource.getrlimit(limit)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(limit, (value, value))
