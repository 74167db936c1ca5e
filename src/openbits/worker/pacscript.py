"""The PAC scripts that a worker has fetched, by http, by https or from a file, and keeps for some minutes.

The rule: a script is asked for without a proxy and without credentials, by a connection that nobody else uses, and is
there as a whole within a time, or there is a clause that says why not.  Who asked hears of it once, in the loop.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

from openbits.core.http import Response, Verdict, classify_status, is_same_origin
from openbits.core.names import public_url
from openbits.core.pac import SCRIPT_LIMIT_BYTES
from openbits.core.redirects import RedirectRefused, redirect_target
from openbits.errors import ErrorContext
from openbits.worker.asking import Body, Request
from openbits.worker.client import Client
from openbits.worker.engine import Engine
from openbits.worker.failure import Failure, TransferError, shown
from openbits.worker.helper import Helper
from openbits.worker.loop import Loop, Timer
from openbits.worker.source import open_source, source_failure

KEPT_S: Final = 300.0
FETCH_LIMIT_S: Final = 20.0
CONNECT_LIMIT_S: Final = 10
REDIRECT_LIMIT: Final = 5
_MOST_KEPT: Final = 16
_ABSENT: Final = frozenset((404, 410))
_ACCEPT: Final = "Accept: application/x-ns-proxy-autoconfig, */*;q=0.5"
_BOM: Final = "\N{ZERO WIDTH NO-BREAK SPACE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a script is."""

    url: str
    is_detected: bool = False
    """Whether nobody named the server, but it was found by its name (WPAD): it is asked for by that as an absolute
    name, and may not send us on to another one."""

    def __str__(self) -> str:
        return public_url(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoScript:
    """Why there is no script, as a clause about its place."""

    clause: str
    transient: bool
    is_absent: bool = False
    """Whether the server says that it has none."""


Done = Callable[[str | NoScript], None]


class Scripts:
    """See the module's rule."""

    def __init__(
        self, loop: Loop, *, make_engine: Callable[[], Engine], on_unexpected: Callable[[Exception], None]
    ) -> None:
        self._loop = loop
        self._make_engine = make_engine
        self._on_unexpected = on_unexpected
        self._engine: Engine | None = None
        self._kept: dict[Place, tuple[float, str]] = {}
        self._waiting: dict[Place, list[Done]] = {}
        self._downloads: set[_Download] = set()

    def __repr__(self) -> str:
        return f"<Scripts kept={len(self._kept)} waited_for={len(self._waiting)}>"

    def close(self) -> None:
        """Fetch nothing any more; nobody hears of anything."""
        self._waiting.clear()
        for download in list(self._downloads):
            download.close()
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def get(self, place: Place, done: Done) -> None:
        """Tell `done` the script, or why there is none; maybe before this returns."""
        kept = self._kept.get(place)
        if kept is not None and self._loop.now - kept[0] < KEPT_S:
            done(kept[1])
            return
        waiting = self._waiting.setdefault(place, [])
        waiting.append(done)
        if len(waiting) > 1:
            return
        if place.url[:5].lower() == "file:":
            self._read(place)
        else:
            self._fetch(place)

    def forget(self, place: Place) -> None:
        """Its script could not be followed: whoever corrects it is not to wait until it is fetched again."""
        self._kept.pop(place, None)

    def _came(self, place: Place, script: str | NoScript) -> None:
        if isinstance(script, str):
            self._kept.pop(place, None)
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[place] = self._loop.now, script
        for done in self._waiting.pop(place, []):
            done(script)

    def _fetch(self, place: Place) -> None:
        if self._engine is None:
            self._engine = self._make_engine()

        def ended(script: bytes | NoScript) -> None:
            self._downloads.discard(download)
            self._came(place, script if isinstance(script, NoScript) else _text_of(script))

        download = _Download(self._loop, self._engine, place, ended, self._on_unexpected)
        self._downloads.add(download)
        download.start()

    def _read(self, place: Place) -> None:
        # A thread of its own: the file may lie on a file system that hangs.
        helper = Helper(self._loop, "script")

        def late() -> None:
            helper.let_go()
            clause = f"it could not be read within {FETCH_LIMIT_S:g} s: check the file system"
            self._came(place, NoScript(clause=clause, transient=True))

        def read(script: bytes | NoScript | OSError) -> None:
            assert not isinstance(script, OSError), "whatever goes wrong is a clause"
            timer.cancel()
            helper.let_go()
            self._came(place, script if isinstance(script, NoScript) else _text_of(script))

        timer = self._loop.call_later(FETCH_LIMIT_S, late)
        helper.submit(lambda: _read_file(place.url), read)


def _read_file(url: str) -> bytes | NoScript:
    names_none = NoScript(clause="it names no file of this machine: write file:///full/path", transient=False)
    try:
        parts = urlsplit(url)
    except ValueError:
        return names_none
    path = unquote_to_bytes(parts.path).decode("utf-8", "surrogateescape")
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        return names_none
    try:
        fd = open_source(path).fd
        try:
            script = b""
            while len(script) <= SCRIPT_LIMIT_BYTES and (piece := os.read(fd, SCRIPT_LIMIT_BYTES + 1 - len(script))):
                script += piece
        finally:
            os.close(fd)
    except OSError as error:
        failure = source_failure(error, path)
        clause = failure.message.removeprefix(f"{shown(path)}: ").replace("only files can be uploaded", "name a file")
        return NoScript(clause=clause, transient=failure.transient)
    return script if len(script) <= SCRIPT_LIMIT_BYTES else _TOO_LARGE


_TOO_LARGE: Final = NoScript(
    clause=f"it is larger than {SCRIPT_LIMIT_BYTES // 1024 // 1024} MiB, which no script for proxies is: "
    "ask whoever runs the network",
    transient=False,
)


def _text_of(script: bytes) -> str | NoScript:
    """The script as text; servers rarely say how it is written, and nearly all are ASCII."""
    with contextlib.suppress(UnicodeDecodeError):
        script_text = script.decode("utf-8")
        return _judged(script_text.removeprefix(_BOM))
    return _judged(script.decode("latin-1"))


def _judged(text: str) -> str | NoScript:
    start = text.lstrip()[:1]
    if not start:
        return NoScript(clause="it is empty: ask whoever runs the network", transient=False)
    if start == "<":
        # Often the log-on page of a network that lets nobody through yet, which is why it is tried again.
        clause = "it is a web page and no script: log on to the network, or ask whoever runs it"
        return NoScript(clause=clause, transient=True)
    return text


class _Download:
    """One script on its way over HTTP, with its redirects."""

    def __init__(
        self,
        loop: Loop,
        engine: Engine,
        place: Place,
        done: Callable[[bytes | NoScript], None],
        on_unexpected: Callable[[Exception], None],
    ) -> None:
        self._loop = loop
        self._place = place
        self._url = place.url
        self._done = done
        self._client = Client(engine, connect_timeout_s=CONNECT_LIMIT_S, on_unexpected=on_unexpected)
        self._timer: Timer | None = None
        self._redirects = 0
        self._body = bytearray()
        self._target: str | None = None
        self._problem: NoScript | None = None

    def start(self) -> None:
        """Ask the server."""
        if self._timer is None:
            self._timer = self._loop.call_later(FETCH_LIMIT_S, self._late)
        url = self._url
        lines: tuple[str, ...] = (_ACCEPT,)
        if self._place.is_detected:
            server = urlsplit(url).netloc
            host, colon, port = server.partition(":")
            # The name without its dot is what servers know of.
            url, lines = url.replace(f"//{server}", f"//{host}.{colon}{port}", 1), (_ACCEPT, f"Host: {server}")
        self._client.send(Request(url=url, headers=lines), self)

    def close(self) -> None:
        """Drop it; `done` is not called any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._client.close()

    def _late(self) -> None:
        clause = f"it did not come within {FETCH_LIMIT_S:g} s: check the network, or ask whoever runs the server"
        self._end(NoScript(clause=clause, transient=True))

    def _end(self, outcome: bytes | NoScript) -> None:
        self.close()
        self._done(outcome)

    # --- the client's handler ----------------------------------------------------------------

    def on_response(self, response: Response) -> Body:
        """See `asking.Handler`."""
        self._target = self._problem = None
        if response.is_redirect:
            self._redirected(response)
        elif response.status != 200:
            is_transient = classify_status(response.status) is Verdict.TRANSIENT
            advice = "it is tried again later" if is_transient else "ask whoever runs the server"
            self._problem = NoScript(
                clause=f"the server answers {response.status}: {advice}",
                transient=is_transient,
                is_absent=response.status in _ABSENT,
            )
        elif response.content_codings:
            self._problem = NoScript(clause="it came compressed, which nobody asked for", transient=False)
        else:
            return Body.TAKE
        return Body.DISCARD

    def _redirected(self, response: Response) -> None:
        location = response.get("location") or ""
        try:
            target = redirect_target(self._url, location)
        except RedirectRefused as error:
            self._problem = NoScript(clause=f"it is redirected to where nobody may follow: {error}", transient=False)
            return
        self._redirects += 1
        if self._redirects > REDIRECT_LIMIT:
            self._problem = NoScript(clause=f"it is redirected more than {REDIRECT_LIMIT} times", transient=False)
        elif self._place.is_detected and not is_same_origin(self._url, target):
            # It was found because of what it is called: that speaks for nobody else.
            clause = f"the server leads to {public_url(target)[:200]}, and only it may have the script of this network"
            self._problem = NoScript(clause=clause, transient=False)
        else:
            self._target = target

    def on_data(self, data: bytes) -> None:
        """See `asking.Handler`."""
        self._body += data
        if len(self._body) > SCRIPT_LIMIT_BYTES:
            self._problem = _TOO_LARGE
            raise TransferError(
                Failure(
                    name="BG_E_INVALID_PROXY_INFO",
                    context=ErrorContext.GENERAL_TRANSPORT,
                    message=_TOO_LARGE.clause,
                    transient=False,
                )
            )

    def on_socket(self, fd: int) -> None:
        """See `asking.Handler`."""
        raise AssertionError(f"nobody asked for descriptor {fd}")

    def on_end(self, failure: Failure | None) -> None:
        """See `asking.Handler`."""
        if self._problem is not None:
            self._end(self._problem)
        elif failure is not None:
            self._end(NoScript(clause=f"it could not be fetched: {failure.message}", transient=failure.transient))
        elif self._target is not None:
            self._url = self._target
            self._body.clear()
            self.start()
        else:
            self._end(bytes(self._body))
