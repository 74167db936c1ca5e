"""How long the commands take when there is hardly anything to do."""

from __future__ import annotations

import itertools
import os
import tempfile

from bench.comparing import Contender, compare
from bench.context import Context
from bench.product import Service, Setup, make_directory, service
from bench.results import Goal, Result
from bench.running import BenchError, Command, Sample, measure

_BYTES = 1024


def commands(context: Context) -> Result:
    """`bits get` of 1 KiB, with a worker that is there and with one that has to be started, and `bits list`."""
    source = os.path.join(context.origin.root, "tiny")
    content = os.urandom(_BYTES)
    with open(source, "wb") as file:
        file.write(content)
    parent = context.places.disk
    url = f"{context.origin.http_url}/tiny"
    numbers = itertools.count()
    with (
        service(Setup(directory=make_directory(parent))) as warm,
        service(Setup(directory=make_directory(parent), worker_idle_s=0)) as cold,
        tempfile.TemporaryDirectory(prefix="d-", dir=parent) as directory,
    ):

        def run(command: Command, background: int | None, path: str) -> Sample:
            sample = measure([command], background=background)
            with open(path, "rb") as file:
                if file.read() != content:
                    raise BenchError(f"{path} has the wrong content")
            return sample

        def get(running: Service) -> Sample:
            path = os.path.join(directory, f"file-{next(numbers)}")
            return run(running.bits("get", "-q", "-o", path, url), running.pid, path)

        def curl() -> Sample:
            path = os.path.join(directory, f"file-{next(numbers)}")
            return run(Command(arguments=["curl", "-sSf", "-o", path, url]), None, path)

        contenders = [
            Contender(name="bits get, 1 KiB", run=lambda _: get(warm)),
            Contender(name="bits get, 1 KiB, no worker yet", run=lambda _: get(cold)),
            Contender(name="bits list", run=lambda _: measure([warm.bits("list")], background=warm.pid)),
            Contender(name="curl, 1 KiB", run=lambda _: curl()),
        ]
        lines = compare(contenders, runs=context.amounts.latency_runs)
    limits = (0.35, 0.35, 0.2)
    return Result(
        key="latency",
        title=f"Commands that have hardly anything to do, medians of {context.amounts.latency_runs}",
        lines=lines,
        goals=[
            Goal(what=line.name, value=line.wall_s, limit=limit, unit="s")
            for line, limit in zip(lines, limits, strict=False)
        ],
        remarks=["To disk; the file of ours is durable."],
    )
