"""One large file: the data path to memory, the same with TLS, and durable to disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Self

from bench import places
from bench.comparing import Contender, compare
from bench.context import Context, has_program, need_root, size_text
from bench.product import Service, Setup, make_directory, service
from bench.results import Result, cpu_ratio, wall_ratio
from bench.running import BenchError, Command, Sample, measure

_NAME: Final = "large"
_MakesCommand = Callable[[str], Command]


@contextlib.contextmanager
def _large_file(context: Context) -> Iterator[str]:
    path = os.path.join(context.origin.root, _NAME)
    digest = places.make_file(path, context.amounts.file_bytes)
    try:
        yield digest
    finally:
        os.unlink(path)


def to_memory(context: Context) -> Result:
    """Plain HTTP to tmpfs."""
    url = f"{context.origin.http_url}/{_NAME}"
    with _Fetching(context, context.places.memory) as fetching:
        contenders = [
            fetching.ours(url),
            fetching.peer("curl -o", ["curl", "-sSf", "-o", "{}", url]),
            *_other_peers(fetching, url),
        ]
        lines = compare(contenders, runs=context.amounts.runs)
    return Result(
        key="file-memory",
        title=f"One file of {size_text(context.amounts.file_bytes)}, plain HTTP, to tmpfs",
        lines=lines,
        reference=lines[1],
        goals=[wall_ratio(lines[0], lines[1], 0.6), cpu_ratio(lines[0], lines[1], 0.6)],
    )


def to_disk(context: Context) -> Result:
    """Plain HTTP to a disk, durable when the command ends."""
    url = f"{context.origin.http_url}/{_NAME}"
    with _Fetching(context, context.places.disk) as fetching:
        contenders = [
            fetching.ours(url),
            fetching.peer("curl -o F && sync F", _shell('curl -sSf -o "$0" "$1" && sync "$0"', url)),
        ]
        if has_program("aria2c"):
            script = 'aria2c -q -x4 -s4 --file-allocation=falloc -d / -o "$0" "$1" && sync "$0"'
            contenders.append(fetching.peer("aria2c -x4 && sync F", _shell(script, url), most_runs=2))
        lines = compare(contenders, runs=context.amounts.runs)
    return Result(
        key="file-disk",
        title=f"One file of {size_text(context.amounts.file_bytes)}, plain HTTP, to disk, durable",
        lines=lines,
        reference=lines[1],
        goals=[wall_ratio(lines[0], lines[1], 0.6), cpu_ratio(lines[0], lines[1], 0.6)],
    )


def by_https(context: Context) -> Result:
    """TLS 1.3 to tmpfs."""
    need_root("lets the daemon trust the certificate of this run")
    url, certificate = f"{context.origin.https_url}/{_NAME}", context.origin.certificate
    with _Fetching(context, context.places.memory, certificate=certificate) as fetching:
        contenders = [
            fetching.ours(url),
            fetching.peer("curl -o", ["curl", "-sSf", "--cacert", certificate, "-o", "{}", url]),
            *_other_peers(fetching, url, certificate),
        ]
        lines = compare(contenders, runs=context.amounts.runs)
    return Result(
        key="file-https",
        title=f"One file of {size_text(context.amounts.file_bytes)}, HTTPS (TLS 1.3), to tmpfs",
        lines=lines,
        reference=lines[1],
        goals=[wall_ratio(lines[0], lines[1], 1.0)],
    )


def _shell(script: str, url: str) -> list[str]:
    return ["sh", "-c", script, "{}", url]


def _other_peers(fetching: _Fetching, url: str, certificate: str | None = None) -> Iterator[Contender]:
    if has_program("aria2c"):
        trust = [] if certificate is None else [f"--ca-certificate={certificate}"]
        options = ["-q", "-x4", "-s4", "--file-allocation=falloc", *trust]
        yield fetching.peer("aria2c -x4", ["aria2c", *options, "-d", "/", "-o", "{}", url], most_runs=2)
    if has_program("wget2"):
        trust = [] if certificate is None else [f"--ca-certificate={certificate}"]
        yield fetching.peer("wget2", ["wget2", "-q", *trust, "-O", "{}", url], most_runs=2)


class _Fetching:
    """Fetching one file into one directory, by whomever."""

    def __init__(self, context: Context, parent: str, *, certificate: str | None = None) -> None:
        self._context = context
        self._parent = parent
        self._certificate = certificate
        self._stack = contextlib.ExitStack()
        self._service: Service | None = None
        self._digest = ""

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._digest = stack.enter_context(_large_file(self._context))
            setup = Setup(directory=make_directory(self._context.places.disk), certificate=self._certificate)
            self._service = stack.enter_context(service(setup))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ours(self, url: str) -> Contender:
        """`bits get` through the running service."""
        assert self._service is not None
        running = self._service
        return Contender(
            name="bits get",
            run=lambda check: self._run(lambda path: running.bits("get", "-q", "-o", path, url), running.pid, check),
        )

    def peer(self, name: str, arguments: Sequence[str], *, most_runs: int | None = None) -> Contender:
        """Another program; `{}` among its arguments is the path of the file."""

        def command(path: str) -> Command:
            # aria2 joins a directory and a name even where the name is absolute; `-d /` makes them one.
            return Command(arguments=[path if argument == "{}" else argument for argument in arguments])

        return Contender(name=name, run=lambda check: self._run(command, None, check), most_runs=most_runs)

    def _run(self, command: _MakesCommand, background: int | None, check: bool) -> Sample:
        with tempfile.TemporaryDirectory(prefix="d-", dir=self._parent) as directory:
            places.touch_memory(directory, self._context.amounts.file_bytes)
            path = os.path.join(directory, "file")
            sample = measure([command(path)], background=background)
            if os.path.getsize(path) != self._context.amounts.file_bytes:
                raise BenchError(f"{path} has the wrong size")
            if check and places.sha256_of(path) != self._digest:
                raise BenchError(f"{path} has the wrong content")
            return sample
