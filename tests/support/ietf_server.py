"""A server for Resumable Uploads for HTTP (draft 12, interop version 8): no package of one exists.

It holds to the draft where the draft says MUST; `hold_patch` lets one PATCH be stored and never be answered.
"""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

MEDIA_TYPE = "application/partial-upload"


@dataclass(kw_only=True)
class Resource:
    """One upload."""

    length: int
    disposition: str
    data: bytearray = field(default_factory=bytearray)
    is_complete: bool = False


class IetfServer:
    """Uploads are made at /up/."""

    def __init__(self, *, max_append_bytes: int | None = None) -> None:
        self.max_append_bytes = max_append_bytes
        self.resources: dict[str, Resource] = {}
        self.asked: list[tuple[str, int]] = []
        """Method and Upload-Offset (-1 without) of every request."""
        self.hold_patch = 0
        self.held = threading.Event()
        self.released = threading.Event()
        self.lock = threading.Lock()
        self.numbers = itertools.count()
        owner = self

        class Handler(_Handler):
            server_of_uploads = owner

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, name="ietf")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/up/"

    def contents(self) -> list[bytes]:
        """What has been uploaded and ended."""
        return [bytes(each.data) for each in self.resources.values() if each.is_complete]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._http.shutdown()
        self._thread.join(timeout=20)
        self._http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of_uploads: IetfServer

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, BrokenPipeError):
            self.close_connection = True

    def do_OPTIONS(self) -> None:
        self._note()
        if self.path != "/up/":
            self._answer(404)
            return
        self._answer(204, ("Accept-Patch", MEDIA_TYPE), *self._limit())

    def do_POST(self) -> None:
        self._note()
        body = self._body()
        if self.path != "/up/":
            self._answer(404)
            return
        owner = self.server_of_uploads
        with owner.lock:
            location = f"/resources/{next(owner.numbers)}"
            owner.resources[location] = Resource(
                length=int(self.headers["Upload-Length"]),
                disposition=self.headers["Content-Disposition"],
                data=bytearray(body),
            )
        self._answer(201, ("Location", location), ("Upload-Complete", "?0"), *self._limit())

    def do_HEAD(self) -> None:
        self._note()
        resource = self.server_of_uploads.resources.get(self.path)
        if resource is None:
            self._answer(404)
            return
        self._answer(204, *_state(resource), ("Upload-Length", str(resource.length)), *self._limit())

    def do_PATCH(self) -> None:
        self._note()
        owner = self.server_of_uploads
        resource = owner.resources.get(self.path)
        body = self._body()
        if resource is None:
            self._answer(404)
            return
        with owner.lock:
            status, headers = self._append(resource, body)
            number = sum(method == "PATCH" for method, _ in owner.asked)
        if number == owner.hold_patch:
            owner.held.set()
            owner.released.wait(60)
            self.close_connection = True
            return
        self._answer(status, *headers)

    def _append(self, resource: Resource, body: bytes) -> tuple[int, list[tuple[str, str]]]:
        limit = self.server_of_uploads.max_append_bytes
        if self.headers["Content-Type"] != MEDIA_TYPE or self.headers["Upload-Draft-Interop-Version"] != "8":
            return 415, []
        if resource.is_complete:
            return 410, []
        if int(self.headers["Upload-Offset"]) != len(resource.data):
            return 409, _state(resource)
        if (limit is not None and len(body) > limit) or len(resource.data) + len(body) > resource.length:
            return 413, self._limit()
        resource.data += body
        resource.is_complete = self.headers["Upload-Complete"] == "?1"
        return (201 if resource.is_complete else 204), [("Upload-Complete", _boolean(resource.is_complete))]

    def do_DELETE(self) -> None:
        self._note()
        found = self.server_of_uploads.resources.pop(self.path, None)
        self._answer(404 if found is None else 204)

    def do_BITS_POST(self) -> None:
        self._note()
        self._body()
        self._answer(405)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _note(self) -> None:
        with self.server_of_uploads.lock:
            self.server_of_uploads.asked.append((self.command, int(self.headers.get("Upload-Offset", "-1"))))

    def _limit(self) -> list[tuple[str, str]]:
        limit = self.server_of_uploads.max_append_bytes
        return [] if limit is None else [("Upload-Limit", f"max-append-size={limit}, max-age=3600")]

    def _answer(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


def _state(resource: Resource) -> list[tuple[str, str]]:
    return [("Upload-Offset", str(len(resource.data))), ("Upload-Complete", _boolean(resource.is_complete))]


def _boolean(value: bool) -> str:
    return "?1" if value else "?0"
