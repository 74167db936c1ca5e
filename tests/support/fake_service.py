"""A service that does what the test tells it: speaks the monitor's frames, and knows nothing else.

It takes commands, one JSON object a line, on a Unix socket in the runtime directory, and sends every frame of the
monitor there as a line.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import select
import signal
import socket
import sys
from typing import Any

from openbits import privileges
from openbits.frames import monitor as frames
from openbits.frames.channel import Channel, ChannelClosed
from openbits.title import set_title

CONTROL_NAME = "control.sock"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--identity", type=privileges.Identity.parse, required=True)
    for name in ("--config", "--state-dir", "--runtime-dir"):
        parser.add_argument(name, required=True)
    parser.add_argument("--listen-fd", type=int)
    parser.add_argument("--key-fd", type=int, required=True)
    parser.add_argument("--key-source", required=True)
    options = parser.parse_args()
    set_title("bitsd-service")
    privileges.become(*options.identity)
    options.key = os.pread(options.key_fd, 100, 0).hex()
    os.close(options.key_fd)
    return FakeService(options).run()


class FakeService:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sock = socket.socket(fileno=options.channel)
        self.channel = Channel(self.sock, outgoing=frames.SERVICE_TO_MONITOR, incoming=frames.MONITOR_TO_SERVICE)
        self.workers: dict[int, socket.socket] = {}
        path = os.path.join(options.runtime_dir, CONTROL_NAME)
        if os.path.exists(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(path)
        self.listener.listen(1)
        self.status: int | None = None

    def run(self) -> int:
        self.test, _ = self.listener.accept()
        self.commands = self.test.makefile("r")
        self.tell({"started": vars(self.options), "environment": dict(os.environ), "fds": open_fds()})
        signal.signal(signal.SIGHUP, lambda *_: self.tell({"signal": "SIGHUP"}))
        signal.signal(signal.SIGTERM, lambda *_: self.terminate())
        poll = select.poll()
        poll.register(self.test, select.POLLIN)
        poll.register(self.sock, select.POLLIN)
        while self.status is None:
            for fd, _ in poll.poll():
                if fd == self.test.fileno():
                    self.obey(json.loads(self.commands.readline() or '{"do": "exit", "status": 0}'))
                else:
                    self.listen()
        return self.status

    def tell(self, what: Any) -> None:
        self.test.sendall(json.dumps(what).encode() + b"\n")

    def terminate(self) -> None:
        self.tell({"signal": "SIGTERM"})
        sys.exit(0)

    def listen(self) -> None:
        try:
            while (received := self.channel.receive()) is not None:
                frame = received[0]
                self.tell({"frame": type(frame).__name__, **dataclasses.asdict(frame)})  # type: ignore[call-overload]  # every frame is a dataclass
        except ChannelClosed:
            self.status = 0

    def obey(self, command: dict[str, Any]) -> None:
        match command:
            case {"do": "ready"}:
                self.channel.send(frames.ServiceReady(socket_path=os.path.join(self.options.runtime_dir, "bitsd.sock")))
            case {"do": "spawn", "request": int(request), "uid": int(uid), "gid": int(gid), "groups": list(groups)}:
                self.workers[request], theirs = Channel.pair()
                spawn = frames.SpawnWorker(request=request, uid=uid, gid=gid, groups=tuple(groups))
                self.channel.send(spawn, (theirs.fileno(),))
                theirs.close()
            case {
                "do": "spawn keeper",
                "request": int(request),
                "uid": int(uid),
                "gid": int(gid),
                "groups": list(groups),
            }:
                self.workers[request], theirs = Channel.pair()
                spawn = frames.SpawnWorker(request=request, uid=uid, gid=gid, groups=tuple(groups), runs_program=True)
                self.channel.send(spawn, (theirs.fileno(),))
                theirs.close()
            case {"do": "send", "request": int(request), "text": str(text)}:
                self.workers[request].send(text.encode())
            case {"do": "receive", "request": int(request)}:
                self.tell({"received": self.workers[request].recv(100_000).decode()})
            case {"do": "release", "request": int(request)}:
                self.workers.pop(request).close()
            case {"do": "ask", "request": int(request), "text": str(text)}:
                worker = self.workers[request]
                worker.send(text.encode())
                self.tell({"answer": json.loads(worker.recv(100_000))})
            case {"do": "kill", "pid": int(pid)}:
                self.channel.send(frames.KillWorker(pid=pid))
            case {"do": "stopping", "status": int(status)}:
                self.channel.send(frames.ServiceStopping(exit_status=status))
                self.status = status
            case {"do": "raw", "text": str(text), "descriptors": int(count)}:
                socket.send_fds(self.sock, [text.encode()], [0] * count)
            case {"do": "hang up"}:
                self.sock.close()
                signal.pause()
            case {"do": "ignore SIGTERM"}:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            case {"do": "exit", "status": int(status)}:
                self.status = status
            case _:
                raise AssertionError(command)
        if command["do"] not in ("stopping", "exit"):
            self.tell({"done": command["do"]})


def open_fds() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


if __name__ == "__main__":
    sys.exit(main())
