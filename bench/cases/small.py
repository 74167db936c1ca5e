"""One job of many small files, over one connection and over several.

Destination is a new ext4 on an image in memory, the same for all: what is measured is how a program deals with
many files, not how a disk does. Ours are durable before they count as transferred; curl never syncs, so there is
also a line of curl with one `sync -f` at the end.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from bench import places
from bench.comparing import Contender, compare
from bench.context import Context, has_program, need_root
from bench.places import MIB
from bench.product import Service, Setup, make_directory, service
from bench.results import Result, wall_ratio
from bench.running import BenchError, Command, Sample, measure

_IMAGE_BYTES: Final = 768 * MIB
_REMARKS: Final = (
    "Every file of ours is durable before it counts as transferred; curl does not sync, but where the line says so.",
    "The destination is a new ext4 file system on an image in memory for each run.",
)


def one_connection(context: Context) -> Result:
    """One file after the other."""
    return _compare(context, connections=1, key="small-serial", curl=[], curl_name="curl -K")


def several_connections(context: Context) -> Result:
    """Eight files at once."""
    parallel = ["--parallel", "--parallel-max", "8"]
    return _compare(context, connections=8, key="small-parallel", curl=parallel, curl_name="curl --parallel-max 8 -K")


def _compare(context: Context, *, connections: int, key: str, curl: Sequence[str], curl_name: str) -> Result:
    need_root("makes and mounts a file system")
    amounts = context.amounts
    with contextlib.ExitStack() as stack:
        stack.enter_context(_small_files(context))
        running = stack.enter_context(service(Setup(directory=make_directory(context.places.disk))))
        image = stack.enter_context(places.image_file(context.places.memory, _IMAGE_BYTES))
        fetching = _Fetching(context, image, running)
        lists = context.places.memory
        bits = _bits(running, lists, connections)
        contenders = [
            Contender(name=f"bits get --connections {connections}", run=fetching.runner(bits, background=True)),
            Contender(name=curl_name, run=fetching.runner(_curl(lists, curl))),
            Contender(name=f"{curl_name} && sync -f", run=fetching.runner(_curl_and_sync(lists, curl))),
        ]
        if has_program("aria2c"):
            aria2 = fetching.runner(_aria2(lists, connections))
            contenders.append(Contender(name=f"aria2c -j{connections}", run=aria2, most_runs=1))
        lines = compare(contenders, runs=amounts.runs)
    return Result(
        key=key,
        title=(
            f"One job of {amounts.small_files:,} files of {amounts.small_bytes // 1024} KiB, "
            f"{connections} connection{'s' if connections > 1 else ''}"
        ),
        lines=lines,
        reference=lines[1],
        goals=[wall_ratio(lines[0], lines[1], 1.5)],
        remarks=_REMARKS,
    )


_Download = tuple[str, str]
"""A URL, and the path of the file that it becomes."""
_MakesCommand = Callable[[Sequence[_Download]], Command]


@contextlib.contextmanager
def _small_files(context: Context) -> Iterator[None]:
    directory = os.path.join(context.origin.root, "small")
    os.mkdir(directory)
    for number in range(context.amounts.small_files):
        with open(os.path.join(directory, f"{number:05}"), "wb") as file:
            file.write(os.urandom(context.amounts.small_bytes))
    try:
        yield
    finally:
        for entry in os.scandir(directory):
            os.unlink(entry.path)
        os.rmdir(directory)


def _write_list(directory: str, lines: Iterator[str]) -> str:
    path = os.path.join(directory, "list")
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)
    return path


def _bits(running: Service, directory: str, connections: int) -> _MakesCommand:
    def command(downloads: Sequence[_Download]) -> Command:
        path = _write_list(directory, (f"{url}\t{target}\n" for url, target in downloads))
        return running.bits("get", "-q", "--connections", str(connections), "--input-file", path)

    return command


def _curl_list(directory: str, downloads: Sequence[_Download]) -> str:
    return _write_list(directory, (f'url = "{url}"\noutput = "{target}"\n' for url, target in downloads))


def _curl(directory: str, options: Sequence[str]) -> _MakesCommand:
    return lambda downloads: Command(arguments=["curl", "-sSf", *options, "-K", _curl_list(directory, downloads)])


def _curl_and_sync(directory: str, options: Sequence[str]) -> _MakesCommand:
    def command(downloads: Sequence[_Download]) -> Command:
        script = f'curl -sSf {" ".join(options)} -K "$0" && sync -f "$1"'
        target_directory = os.path.dirname(downloads[0][1])
        return Command(arguments=["sh", "-c", script, _curl_list(directory, downloads), target_directory])

    return command


def _aria2(directory: str, connections: int) -> _MakesCommand:
    def command(downloads: Sequence[_Download]) -> Command:
        lines = (f"{url}\n out={os.path.basename(target)}\n" for url, target in downloads)
        path = _write_list(directory, lines)
        target_directory = os.path.dirname(downloads[0][1])
        options = ["-q", f"-j{connections}", "--file-allocation=none", "-d", target_directory]
        return Command(arguments=["aria2c", *options, "-i", path])

    return command


class _Fetching:
    """Fetching all the files to a new file system, by whomever."""

    def __init__(self, context: Context, image: str, running: Service) -> None:
        self._context = context
        self._image = image
        self._service = running

    def runner(self, command: _MakesCommand, *, background: bool = False) -> Callable[[bool], Sample]:
        """Return what a contender runs; `background`: our daemon works for it."""

        def run(check: bool) -> Sample:
            with places.new_file_system(self._image) as directory:
                downloads = [
                    (f"{self._context.origin.http_url}/small/{number:05}", os.path.join(directory, f"{number:05}"))
                    for number in range(self._context.amounts.small_files)
                ]
                made = command(downloads)
                places.touch_memory(self._context.places.memory, 2 * self._total_bytes())
                sample = measure([made], background=self._service.pid if background else None)
                self._check(directory, check)
                return sample

        return run

    def _total_bytes(self) -> int:
        return self._context.amounts.small_files * self._context.amounts.small_bytes

    def _check(self, directory: str, thoroughly: bool) -> None:
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(directory) if entry.is_file()}
        expected = {f"{number:05}" for number in range(self._context.amounts.small_files)}
        if sizes.keys() != expected or set(sizes.values()) != {self._context.amounts.small_bytes}:
            raise BenchError(f"{directory} holds {len(sizes)} files, or some of a wrong size")
        for name in expected if thoroughly else ():
            with (
                open(os.path.join(directory, name), "rb") as got,
                open(os.path.join(self._context.origin.root, "small", name), "rb") as wanted,
            ):
                if got.read() != wanted.read():
                    raise BenchError(f"{directory}/{name} has the wrong content")
