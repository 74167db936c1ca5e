"""`python -m bench`: measure, show, and write down what was asked for."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

from bench import machine, report
from bench.cases import accounts, cloaking, latency, queue, single, small, upload
from bench.comparing import say
from bench.context import Amounts, Context, Skipped
from bench.origin import serve
from bench.places import open_places
from bench.product import compile_package
from bench.results import Result
from bench.running import BenchError

CASES: Final[Mapping[str, Callable[[Context], Result]]] = {
    "file-memory": single.to_memory,
    "file-disk": single.to_disk,
    "file-https": single.by_https,
    "small-serial": small.one_connection,
    "small-parallel": small.several_connections,
    "accounts": accounts.several_accounts,
    "queue": queue.long_queue,
    "latency": latency.commands,
    "cloaking": cloaking.cloaked,
    "upload": upload.large,
    "upload-small": upload.small,
    "upload-idle": upload.idle,
}


def main() -> int:
    """Return 0 when all goals were met, 1 when not, 2 when something could not be measured."""
    options = _options()
    signal.signal(signal.SIGTERM, _end)
    amounts = Amounts.quick() if options.quick else Amounts()
    if options.runs is not None:
        amounts = dataclasses.replace(amounts, runs=options.runs)
    if "BENCH_SIZE" in os.environ:
        amounts = dataclasses.replace(amounts, file_bytes=_size(os.environ["BENCH_SIZE"]))
    chosen = [key for key in CASES if not options.only or any(key.startswith(prefix) for prefix in options.only)]
    compile_package()
    described = machine.describe()
    results, skipped, failed = _measure(amounts, chosen, options)
    missed = sum(not goal.is_met for result in results for goal in result.goals)
    print(f"\n{sum(len(result.goals) for result in results)} goals, {missed} missed; {len(failed)} cases failed")
    for key, why in {**skipped, **failed}.items():
        print(f"  {key} was not measured: {why}")
    if options.json is not None:
        _write(options.json, report.as_json(described, results))
    if options.markdown is not None:
        _write(options.markdown, report.as_markdown(described, results, {**skipped, **failed}))
    return 2 if failed else 1 if missed else 0


def _measure(
    amounts: Amounts, chosen: Sequence[str], options: argparse.Namespace
) -> tuple[list[Result], dict[str, str], dict[str, str]]:
    results: list[Result] = []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        places = stack.enter_context(open_places(memory_parent=options.memory, disk_parent=options.disk))
        prefix = os.path.join(places.disk, "nginx")
        os.mkdir(prefix)
        origin = stack.enter_context(serve(prefix, places.served))
        context = Context(amounts=amounts, places=places, origin=origin)
        for key in chosen:
            say(f"{key} …")
            try:
                result = CASES[key](context)
            except Skipped as reason:
                skipped[key] = str(reason)
            except BenchError as error:
                failed[key] = str(error)
                say(f"{key}: {error}")
            else:
                results.append(result)
                print(report.on_screen(result), flush=True)
    return results, skipped, failed


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", action="append", metavar="CASE", help=f"one of {', '.join(CASES)}, or how some begin")
    parser.add_argument("--runs", type=int, metavar="N", help="rounds that count")
    parser.add_argument("--quick", action="store_true", help="small amounts: shows that all works, decides nothing")
    parser.add_argument("--json", metavar="FILE", help="write everything, every run included")
    parser.add_argument("--markdown", metavar="FILE", help="write the page of the documentation")
    parser.add_argument("--memory", default="/dev/shm", metavar="DIR", help="a directory on tmpfs")
    parser.add_argument("--disk", default="/var/tmp", metavar="DIR", help="a directory on a disk")
    return parser.parse_args()


def _size(text: str) -> int:
    """Read a size such as 512M, 2G or a number of bytes."""
    factors = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number, suffix = (text[:-1], text[-1].upper()) if text and text[-1].upper() in factors else (text, "")
    if not number.isdecimal() or int(number) == 0:
        raise SystemExit(f"BENCH_SIZE must be a size such as 512M or 2G, not {text!r}")
    return int(number) * factors.get(suffix, 1)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.rstrip("\n") + "\n")


def _end(number: int, _frame: types.FrameType | None) -> NoReturn:
    # As an exception, so that everything that was started and mounted is put away.
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
