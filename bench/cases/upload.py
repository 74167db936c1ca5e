"""Uploads: one large file, many small ones, and sessions that nobody speaks to."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from bench import places
from bench.bits_server import UploadServer, bits_server, nginx
from bench.comparing import Contender, compare, say
from bench.context import GIB, Context, size_text
from bench.processes import pss_bytes, tree
from bench.product import Setup, make_directory, service
from bench.results import Figure, Goal, Result, wall_ratio
from bench.running import BenchError, Command, Sample, measure

_SMALL_FILES: Final = 1_000
_SMALL_CONNECTIONS: Final = 8
_SESSIONS: Final = 10_000
_MEMORY_LIMIT_MIB: Final = 100
_CLIENT: Final = (sys.executable, "-m", "bench.uploading")


@dataclass(kw_only=True)
class _Uploading:
    """Uploading to one server, by one client; keeps what the server itself has used."""

    server: UploadServer
    commands: Callable[[], Sequence[Command]]
    background: int | None
    check: Callable[[bool], None]
    """Raises BenchError unless everything is there; with True it looks at the content as well."""
    touched_bytes: int = 0
    server_cpu_s: list[float] = field(default_factory=list)

    def run(self, thoroughly: bool) -> Sample:
        """For `compare`, which does not count the first."""
        places.touch_memory(self.server.root, self.touched_bytes)
        before_s = self.server.cpu_s()
        sample = measure(self.commands(), background=self.background)
        used_s = self.server.cpu_s() - before_s
        if not thoroughly:
            self.server_cpu_s.append(used_s)
        self.check(thoroughly)
        return sample

    def figure(self, name: str, per: float, unit: str) -> Figure:
        """The server's processor time."""
        return Figure(name=name, values=[used_s / per for used_s in self.server_cpu_s], unit=unit)


@contextlib.contextmanager
def _servers(context: Context) -> Iterator[tuple[UploadServer, UploadServer]]:
    """Ours and nginx."""
    base = make_directory(context.places.disk)
    with contextlib.ExitStack() as stack:
        roots = [stack.enter_context(tempfile.TemporaryDirectory(dir=context.places.memory)) for _ in range(2)]
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        ours = stack.enter_context(bits_server(os.path.join(base, "ours"), roots[0]))
        theirs = stack.enter_context(nginx(os.path.join(base, "nginx"), roots[1], port))
        yield ours, theirs


def large(context: Context) -> Result:
    """One file to our own server and to nginx."""
    size = context.amounts.file_bytes
    with (
        tempfile.TemporaryDirectory(dir=context.places.memory) as sources,
        _servers(context) as (ours, theirs),
        service(Setup(directory=make_directory(context.places.disk))) as running,
    ):
        source = os.path.join(sources, "file")
        digest = places.make_file(source, size)

        def check_in(server: UploadServer) -> Callable[[bool], None]:
            return lambda thoroughly: _check_and_delete(os.path.join(server.root, "file"), size, digest, thoroughly)

        def uploading(server: UploadServer, command: Command, background: int | None = None) -> _Uploading:
            return _Uploading(
                server=server,
                commands=lambda: [command],
                background=background,
                check=check_in(server),
                touched_bytes=size,
            )

        put = uploading(ours, running.bits("put", "-q", source, f"{ours.url}/file"), running.pid)
        raw = uploading(ours, Command(arguments=[*_CLIENT, "large", f"{ours.url}/file", source]))
        curl = uploading(theirs, Command(arguments=["curl", "-sSf", "-T", source, f"{theirs.url}/file"]))
        named = {
            "bits put to bits-server": put,
            "a bare BITS client to bits-server": raw,
            "curl -T to nginx": curl,
        }
        memory_before = pss_bytes(tree(ours.pid))
        lines = compare([Contender(name=name, run=each.run) for name, each in named.items()], runs=context.amounts.runs)
        memory_after = pss_bytes(tree(ours.pid))
    figures = [each.figure(f"server CPU per GiB, {name}", size / GIB, "s") for name, each in named.items()]
    grown_mib = (memory_after - memory_before) / places.MIB
    return Result(
        key="upload",
        title=f"One file of {size_text(size)} uploaded, plain HTTP, memory to tmpfs",
        lines=lines,
        reference=lines[2],
        figures=[*figures, Figure(name="bits-server, memory grown by all that", values=[grown_mib], unit="MiB")],
        goals=[
            wall_ratio(lines[0], lines[2], 1.15),
            wall_ratio(lines[1], lines[2], 1.15),
            Goal(
                what="server CPU, bits-server (bits put) / nginx",
                value=figures[0].value / figures[2].value,
                limit=1.5,
                unit="×",
            ),
            Goal(
                what="server CPU, bits-server (bare client) / nginx",
                value=figures[1].value / figures[2].value,
                limit=1.5,
                unit="×",
            ),
        ],
    )


def _check_and_delete(path: str, size: int, digest: str, thoroughly: bool) -> None:
    if os.path.getsize(path) != size or (thoroughly and places.sha256_of(path) != digest):
        raise BenchError(f"{path} has the wrong content")
    os.unlink(path)


def small(context: Context) -> Result:
    """Many small files over a few connections."""
    size = context.amounts.small_bytes
    with tempfile.TemporaryDirectory(dir=context.places.memory) as sources, _servers(context) as (ours, theirs):
        source = os.path.join(sources, "small")
        places.make_file(source, size)

        def uploading(server: UploadServer, method: str) -> _Uploading:
            counts = [str(_SMALL_FILES), str(_SMALL_CONNECTIONS)]
            command = Command(arguments=[*_CLIENT, "small", f"{server.url}/f", source, *counts, method])

            def check(_thoroughly: bool) -> None:
                for number in range(_SMALL_FILES):
                    path = os.path.join(server.root, f"f{number}")
                    if os.path.getsize(path) != size:
                        raise BenchError(f"{path} has the wrong size")
                    os.unlink(path)

            return _Uploading(server=server, commands=lambda: [command], background=None, check=check)

        named = {
            "BITS to bits-server": uploading(ours, "bits"),
            "PUT to nginx": uploading(theirs, "put"),
        }
        lines = compare([Contender(name=name, run=each.run) for name, each in named.items()], runs=context.amounts.runs)
    return Result(
        key="upload-small",
        title=f"{_SMALL_FILES:,} files of {size_text(size)} over {_SMALL_CONNECTIONS} connections, memory to tmpfs",
        lines=lines,
        reference=lines[1],
        figures=[each.figure(f"server CPU a file, {name}", _SMALL_FILES / 1_000, "ms") for name, each in named.items()],
        remarks=[
            "Three requests a file against one, and each file is durable before it is acknowledged: nginx's are not."
        ],
    )


def idle(context: Context) -> Result:
    """Sessions and connections that nobody uses."""
    base = make_directory(context.places.disk)
    with (
        tempfile.TemporaryDirectory(dir=context.places.memory) as root,
        bits_server(os.path.join(base, "idle"), root) as server,
    ):
        before = pss_bytes(tree(server.pid))
        say(f"  {_SESSIONS:,} sessions, each with a connection of its own")
        client = subprocess.Popen(
            [*_CLIENT, "sessions", f"{server.url}/s", str(_SESSIONS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            assert client.stdout is not None
            if client.stdout.readline() != b"ready\n":
                raise BenchError("the sessions could not be made")
            after = pss_bytes(tree(server.pid))
        finally:
            client.communicate(timeout=60)
    figures = [
        Figure(name="bits-server when nobody is there", values=[before / places.MIB], unit="MiB"),
        Figure(name=f"with {_SESSIONS:,} idle sessions and connections", values=[after / places.MIB], unit="MiB"),
    ]
    return Result(
        key="upload-idle",
        title=f"Memory of bits-server with {_SESSIONS:,} open sessions",
        figures=figures,
        goals=[Goal(what="memory (PSS)", value=figures[1].value, limit=_MEMORY_LIMIT_MIB, unit="MiB")],
    )
