"""The web server inside a booted machine: files of any size, as slowly as the test wants, and a log of what was asked.

`origin_server.py DIRECTORY`.  `/file/SIZE/SEED` serves SIZE bytes that `generate` makes of SEED, with Range, ETag and
If-Range.  The bytes a second of every connection stand in DIRECTORY/rate and may be changed at any time; requests.log
there gets a line when a request comes and one when its answer is over.  The log outlives the machine's boots, and
the address stays the same.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.origin import generate

PORT = 8080
STEP_S = 0.02
UNLIMITED_STEP = 1024 * 1024


class Server(ThreadingHTTPServer):
    """Knows the directory with the rate and the log."""

    daemon_threads = True

    def __init__(self, directory: str) -> None:
        super().__init__(("127.0.0.1", PORT), Handler)
        self.rate_path = os.path.join(directory, "rate")
        self._log_path = os.path.join(directory, "requests.log")
        self._lock = threading.Lock()

    def note(self, **entry: Any) -> None:
        """Write a line."""
        with self._lock, open(self._log_path, "a", encoding="utf-8") as log:
            log.write(json.dumps({"at": time.monotonic(), **entry}) + "\n")

    def rate_bps(self) -> int:
        """What the test wants now."""
        with open(self.rate_path, encoding="ascii") as file:
            return int(file.read() or "0")


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        """Answer without the content."""
        self._answer(with_content=False)

    def do_GET(self) -> None:
        """Answer with the content."""
        self._answer(with_content=True)

    def log_message(self, *_: Any) -> None:
        """Say nothing: there is a log of our own."""

    def _answer(self, *, with_content: bool) -> None:
        match = re.fullmatch(r"/file/(\d+)/(\d+)(/[^/]*)?", self.path)
        if match is None:
            self.send_error(404)
            return
        size, seed = int(match[1]), int(match[2])
        first, last = self._range(size, f'"{seed}-{size}"')
        self.send_response(200 if first is None else 206)
        self.send_header("ETag", f'"{seed}-{size}"')
        self.send_header("Last-Modified", formatdate(1_700_000_000 + seed, usegmt=True))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last - (first or 0) + 1))
        if first is not None:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        self.server.note(kind="request", method=self.command, path=self.path, first=first or 0)
        if with_content:
            self._send(size, seed, first or 0, last)

    def _range(self, size: int, etag: str) -> tuple[int | None, int]:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None or self.headers.get("If-Range", etag) != etag or int(match[1]) >= size:
            return None, size - 1
        return int(match[1]), min(size - 1, int(match[2] or size))

    def _send(self, size: int, seed: int, first: int, last: int) -> None:
        at = first
        try:
            while at <= last:
                rate = self.server.rate_bps()
                step = max(1, int(rate * STEP_S)) if rate else UNLIMITED_STEP
                piece = generate(size, seed, at, min(step, last - at + 1))
                self.wfile.write(piece)
                at += len(piece)
                if rate:
                    time.sleep(STEP_S)
        except OSError:
            self.close_connection = True
        finally:
            self.server.note(kind="end", path=self.path, first=first, sent=at - first)


if __name__ == "__main__":
    with Server(sys.argv[1]) as server:
        server.serve_forever()
