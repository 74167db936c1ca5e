"""A stand-in for the local API on a Unix socket: answers what the test says, and remembers what it was asked.

For the client's transport and the command line's rendering only; what the calls mean is tested against the real
service.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        pairs = self.target.partition("?")[2]
        return dict(pair.split("=", 1) for pair in pairs.split("&") if pair)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What to answer: JSON, or bytes as they are; `parts` are chunks of an event stream."""

    status: int = 200
    json: Any = None
    raw: bytes | None = None
    parts: tuple[bytes, ...] | None = None
    close: bool = False
    """Close the connection after the answer."""
    wait: threading.Event | None = None
    """Wait for this before the last part."""


HANG_UP = Reply(raw=b"", close=True)
"""Close the connection without an answer."""


def problem(code: str, hresult: int, detail: str, *, status: int = 400, exit_code: int = 2) -> Reply:
    body = {
        "type": "about:blank",
        "title": "title",
        "status": status,
        "detail": detail,
        "code": code,
        "hresult": hresult,
        "exit_code": exit_code,
    }
    return Reply(status=status, json=body)


def event(kind: str, data: Any, event_id: int | None = None) -> bytes:
    head = "" if event_id is None else f"id: {event_id}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


Answerer = Callable[[Request], Reply]


@dataclass
class FakeApi:
    """Serves `routes` ("GET /v1/version" → Reply, a list of Replies taken in turn, or a function) in threads."""

    routes: Mapping[str, Reply | list[Reply] | Answerer]
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.directory = tempfile.mkdtemp(prefix="obc")
        self.path = os.path.join(self.directory, "bitsd.sock")
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.directory)

    def listen(self) -> None:
        """Begin to take connections, as after a restart."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if os.path.exists(self.path):
            os.unlink(self.path)
        self._listener.bind(self.path)
        self._listener.listen(16)
        self._start(self._accept, self._listener)

    def stop(self) -> None:
        """End at once, as when killed: the socket file stays."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_connections()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._threads.clear()

    def drop_connections(self) -> None:
        """Close every connection."""
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._connections.clear()

    def targets(self) -> list[str]:
        return [f"{request.method} {request.target}" for request in self.requests]

    def _start(self, function: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=function, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        count = 0
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            count += 1
            self._connections.append(connection)
            self._start(self._serve, connection, count)

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as file:
            try:
                while True:
                    line = file.readline()
                    if not line:
                        return
                    method, target, _ = line.decode().split(" ")
                    headers = {}
                    while (header := file.readline().strip()) != b"":
                        name, _, value = header.decode().partition(":")
                        headers[name.lower()] = value.strip()
                    body = file.read(int(headers.get("content-length", "0")))
                    request = Request(method=method, target=target, headers=headers, body=body, connection=number)
                    self.requests.append(request)
                    reply = self._reply(request)
                    self._send(connection, reply)
                    if reply.close:
                        return
            except OSError:
                return

    def _reply(self, request: Request) -> Reply:
        answer = self.routes.get(f"{request.method} {request.path}")
        if answer is None:
            return problem("E_NOTIMPL", 0x80004001, f"no route for {request.method} {request.path}", status=501)
        if isinstance(answer, list):
            return answer.pop(0) if len(answer) > 1 else answer[0]
        return answer if isinstance(answer, Reply) else answer(request)

    def _send(self, connection: socket.socket, reply: Reply) -> None:
        if reply.raw is not None:
            connection.sendall(reply.raw)
        elif reply.parts is not None:
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for index, part in enumerate(reply.parts):
                if index == len(reply.parts) - 1 and reply.wait is not None:
                    assert reply.wait.wait(10)
                connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            connection.sendall(b"0\r\n\r\n")
        else:
            body = json.dumps(reply.json).encode()
            head = f"HTTP/1.1 {reply.status} X\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)


def job_out(**changes: Any) -> dict[str, Any]:
    """A JobOut."""
    job: dict[str, Any] = {
        "id": "11111111-2222-3333-4444-555555555555",
        "name": "kernel",
        "type": "download",
        "state": "TRANSFERRING",
        "owner": {"uid": 1000, "name": "anna", "kind": "USER"},
        "priority": "normal",
        "description": "",
        "bytes_total": 2048,
        "bytes_transferred": 512,
        "files_total": 1,
        "files_transferred": 0,
        "error": None,
        "error_count": 0,
        "creation_time": "2026-01-02T03:04:05Z",
        "modification_time": "2026-01-02T03:04:06Z",
        "transfer_completion_time": None,
        "retry_time": None,
        "result": None,
        "reply": None,
    }
    return {**job, **changes}


def settings_out(**changes: Any) -> dict[str, Any]:
    """A SettingsOut."""
    settings: dict[str, Any] = {
        "name": "kernel",
        "description": "",
        "priority": "normal",
        "minimum_retry_delay": 600,
        "no_progress_timeout": 1209600,
        "maximum_download_time": None,
        "notify_flags": 3,
        "cost_flags": None,
        "notification_clsid": "",
        "dynamic_content": False,
        "high_performance": False,
        "max_download_size": None,
        "strict_http": False,
        "file_concurrency": 1,
        "stall_timeout": 60,
        "umask": 18,
        "custom_headers": "X-One: 1\r\n",
        "upload_protocol": "auto",
    }
    return {**settings, **changes}


def file_out(**changes: Any) -> dict[str, Any]:
    """A FileOut."""
    file: dict[str, Any] = {
        "index": 0,
        "remote_name": "http://host/kernel",
        "local_name": "/srv/kernel",
        "temporary_name": "/srv/.BIT1.tmp",
        "bytes_total": 2048,
        "bytes_transferred": 512,
        "completed": False,
        "transferred": False,
        "ranges": [],
        "checksum": None,
        "validation_state": None,
        "resumable": None,
        "restarts": 0,
        "wanted_ranges": [],
        "filled_ranges": [],
        "response_headers": "HTTP/1.1 200 OK\r\n",
    }
    return {**file, **changes}


def error_out(**changes: Any) -> dict[str, Any]:
    """An ErrorOut."""
    error: dict[str, Any] = {
        "code": "BG_E_HTTP_ERROR_404",
        "hresult": 0x80190194,
        "context": "REMOTE_FILE",
        "context_code": 5,
        "message": "the server answered 404 (Not Found)",
        "protocol": "http",
        "file": 0,
        "remote_name": "http://host/kernel",
        "local_name": "/srv/kernel",
    }
    return {**error, **changes}
