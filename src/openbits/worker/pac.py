"""The PAC script of one run: found, fetched, given to an evaluator, and asked for each URL (inventory J22, I15, I16).

    where it is (a URL that somebody set, DHCP, DNS)  ▸  the script  ▸  an evaluator  ▸  one question after the other

The rule: a question is answered by the ways that the script names, or by a failure that says what is wrong with it; it
is answered once, within a time, and never by a direct connection that the script did not name.  Only where a network
announces no script at all, nothing stands between us and its servers.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from openbits.core import pac
from openbits.core.pac import Way
from openbits.core.proxylist import InvalidProxyInfo
from openbits.errors import ErrorContext
from openbits.frames.channel import Channel, ChannelClosed
from openbits.frames.codec import FrameError
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
from openbits.worker.failure import Failure
from openbits.worker.loop import READABLE, WRITABLE, Loop, Timer
from openbits.worker.names import Resolver, Unknown
from openbits.worker.pacscript import NoScript, Place, Scripts

DETECT_LIMIT_S: Final = 15.0
EVALUATOR_LIMIT_S: Final = 25.0
"""Until there is one: the service may have to wait for the process."""
ANSWER_LIMIT_S: Final = WALL_LIMIT_S + 2.0
"""The evaluator's own limits come first; this one is for one that does not keep them."""
_LIMITS: Final = f"its limits ({CPU_LIMIT_S:g} s of computing, {WALL_LIMIT_S:g} s in all)"
_MOST_ADDRESSES: Final = 64
_SCHEMES: Final = ("http", "https", "file")
"""From where a script may come; what the network says may not name a file."""
_SCRIPT_NAME: Final = "wpad.dat"
_ADVICE: Final = "ask whoever runs the network, or name proxies with 'bits proxy set manual_proxy LIST'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a script says of a URL."""

    ways: tuple[Way, ...]
    source: str
    """Whose settings these are, and which script."""


Done = Callable[[Found | Failure], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What finding and asking takes."""

    loop: Loop
    scripts: Scripts
    want_evaluator: Callable[[], None]
    """Asks the service for one; `PacScript.receive` gets it."""


class PacScript:
    """See the module's rule; `script_url` is empty where the script is to be detected."""

    def __init__(self, means: Means, *, source: str, script_url: str, dhcp_url: str) -> None:
        self._means = means
        self._loop = means.loop
        self._source = source
        self._script_url = script_url
        self._dhcp_url = dhcp_url
        self._place: Place | None = None
        self._script = ""
        self._has_none = False
        """Whether the network announces no script."""
        self._questions: deque[tuple[str, Done]] = deque()
        self._is_busy = False
        self._channel: Channel | None = None
        self._resolver = Resolver(means.loop)
        self._names_asked = 0
        self._is_resolving = False
        self._timer: Timer | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<PacScript {self._place or 'nowhere'} waiting={len(self._questions)}>"

    def close(self) -> None:
        """End it; nobody is told anything more."""
        self._is_closed = True
        self._questions.clear()
        self._rest()
        self._hang_up()

    def ask(self, url: str, done: Done) -> None:
        """Tell `done` the ways for a URL, or why there are none; maybe before this returns."""
        self._questions.append((url, done))
        if not self._is_busy:
            self._is_busy = True
            self._go_on()

    def receive(self, fd: int | None, message: str) -> None:
        """The evaluator that was wanted, or why there is none; the descriptor is ours from now on."""
        if self._is_closed or not self._is_busy or self._channel is not None:
            if fd is not None:
                os.close(fd)
            return
        if fd is None:
            self._fail(
                f"it could not be evaluated: {message or 'no process could be started'}: it is tried again",
                transient=True,
            )
            return
        sock = socket.socket(fileno=fd)
        self._channel = Channel(sock, outgoing=TO_EVALUATOR, incoming=FROM_EVALUATOR)
        self._channel.on_wants_write = self._on_wants_write
        self._loop.watch(self._channel.fileno(), READABLE, self._on_channel)
        length = len(self._script)
        for start in range(0, length, PART_LENGTH):
            end = start + PART_LENGTH
            self._send(ScriptPart(text=self._script[start:end], last=end >= length))
        self._go_on()

    # --- one step after the other ------------------------------------------------------------

    def _go_on(self) -> None:
        """Do what is next; every step comes back here, or ends by `_answer` or `_fail`."""
        if self._is_closed:
            return
        self._rest()
        if not self._questions:
            self._is_busy = False
        elif self._has_none:
            self._answer((None,), f"{self._source}: this network announces no proxies")
        elif self._place is None:
            self._locate()
        elif not self._script:
            self._means.scripts.get(self._place, lambda script: self._script_came(self._place, script))
        elif self._channel is None:
            self._wait(EVALUATOR_LIMIT_S, "no process could be started that evaluates it", transient=True)
            self._means.want_evaluator()
        else:
            self._put()

    def _locate(self) -> None:
        url = self._script_url or self._dhcp_url
        if url:
            scheme = url.partition(":")[0].lower()
            if scheme not in _SCHEMES[: 3 if self._script_url else 2]:
                what = "the settings name" if self._script_url else "the network's DHCP server names"
                self._fail(
                    f"{what} {ascii(url)[:200]}, from where no script can be fetched: {_ADVICE}", transient=False
                )
                return
            self._place = Place(url=url)
            self._go_on()
            return
        self._wait(DETECT_LIMIT_S, "the resolver gave no answer", transient=True)
        self._resolver.find_wpad(self._hosts_came)

    def _hosts_came(self, hosts: tuple[str, ...] | Unknown) -> None:
        if self._is_closed or self._place is not None or not self._is_busy:
            return
        if isinstance(hosts, Unknown):
            self._fail("the resolver gave no answer: check the network", transient=True)
            return
        self._rest()
        self._try_hosts(deque(hosts))

    def _try_hosts(self, hosts: deque[str]) -> None:
        """Take the first script that there is; a host that says that it has none is passed over."""
        if not hosts:
            self._has_none = True
            self._go_on()
            return
        place = Place(url=f"http://{hosts.popleft()}/{_SCRIPT_NAME}", is_detected=True)

        def came(script: str | NoScript) -> None:
            if self._is_closed:
                return
            if isinstance(script, NoScript) and script.is_absent:
                self._try_hosts(hosts)
            else:
                self._script_came(place, script)

        self._means.scripts.get(place, came)

    def _script_came(self, place: Place | None, script: str | NoScript) -> None:
        if self._is_closed:
            return
        # Where nothing came it is looked for again with the next question.
        at, self._place = self._place, place
        if isinstance(script, NoScript):
            self._fail(script.clause, transient=script.transient)
            self._place = at
            return
        self._script = script
        self._go_on()

    def _put(self) -> None:
        url, host = pac.question(self._questions[0][0])
        self._names_asked = 0
        self._wait(ANSWER_LIMIT_S, f"it came to no answer within {_LIMITS}", transient=False)
        self._send(Question(url=url, host=host))

    # --- the evaluator -----------------------------------------------------------------------

    def _on_channel(self, events: int) -> None:
        channel = self._channel
        assert channel is not None
        try:
            if events & WRITABLE:
                channel.flush()
            while self._channel is channel and (received := channel.receive()) is not None:
                message, descriptors = received
                for fd in descriptors:
                    os.close(fd)
                self._hear(message)
        except (ChannelClosed, FrameError):
            self._evaluator_ended(channel)

    def _evaluator_ended(self, channel: Channel) -> None:
        if self._channel is not channel:
            return
        is_resolving = self._is_resolving
        self._hang_up()
        if self._timer is None:
            return  # nothing was asked: the next question gets another one
        if is_resolving:
            self._fail("the resolver did not answer it in time: it is tried again later", transient=True)
        else:
            self._fail(f"it came to no answer within {_LIMITS}: {_ADVICE}", transient=False)

    def _hear(self, message: object) -> None:
        match message:
            case NamesWanted(name=name, any_version=any_version) if self._names_asked < 2 * NAMES_LIMIT:
                self._names_asked += 1
                self._is_resolving = True
                channel = self._channel

                def resolved(addresses: tuple[str, ...]) -> None:
                    if self._channel is channel:
                        self._is_resolving = False
                        self._send(Names(addresses=addresses[:_MOST_ADDRESSES]))

                self._resolver.resolve(name, any_version=any_version, done=resolved)
            case Verdict(error="", result=result) if self._timer is not None and len(result) <= pac.RESULT_LIMIT:
                try:
                    ways = pac.parse_result(result)
                except InvalidProxyInfo as error:
                    self._fail(f"{error}: {_ADVICE}", transient=False)
                else:
                    self._answer(ways, self._named)
            case Verdict(error=error) if self._timer is not None and error:
                self._fail(f"{error}: {_ADVICE}", transient=False)
            case _:
                raise FrameError("the evaluator is not itself")

    def _send(self, message: object) -> None:
        channel = self._channel
        if channel is not None:
            try:
                channel.send(message)
            except ChannelClosed:
                self._loop.post(lambda: self._evaluator_ended(channel))

    def _on_wants_write(self, wants: bool) -> None:
        if self._channel is not None:
            self._loop.change(self._channel.fileno(), READABLE | WRITABLE if wants else READABLE)

    def _hang_up(self) -> None:
        """Let go of the evaluator, and of what the resolver was asked for it."""
        self._resolver.close()
        self._is_resolving = False
        channel, self._channel = self._channel, None
        if channel is not None:
            self._loop.unwatch(channel.fileno())
            channel.close()

    # --- the end of a question ---------------------------------------------------------------

    @property
    def _named(self) -> str:
        return f"{self._source}: PAC {self._place}" if self._place is not None else self._source

    def _wait(self, limit_s: float, clause: str, *, transient: bool) -> None:
        def late() -> None:
            self._hang_up()
            self._fail(f"{clause}: {'it is tried again later' if transient else _ADVICE}", transient=transient)

        self._rest()
        self._timer = self._loop.call_later(limit_s, late)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _answer(self, ways: tuple[Way, ...], source: str) -> None:
        self._end(Found(ways=ways, source=source))

    def _fail(self, clause: str, *, transient: bool) -> None:
        if self._place is not None:
            self._means.scripts.forget(self._place)
        what = f"the PAC script {self._place}" if self._place is not None else "proxies could not be detected"
        failure = Failure(
            name="BG_E_INVALID_PROXY_INFO",
            context=ErrorContext.GENERAL_TRANSPORT,
            message=f"{self._source}: {what}: {clause}",
            transient=transient,
        )
        self._end(failure)

    def _end(self, outcome: Found | Failure) -> None:
        self._rest()
        _, done = self._questions.popleft()
        # The next step in a round of its own: who is told may ask again, or close us.
        self._loop.post(self._go_on)
        done(outcome)
