"""Interleaved runs: every contender once a round, so that a noisy minute hits all of them.

The rule: the first round is not counted; it warms everything up, and each contender's result is checked
byte by byte, so that no number stands for a wrong result.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.results import Line
from bench.running import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A way to do what a case asks for."""

    name: str
    run: Callable[[bool], Sample]
    """Prepare, run, measure, clean up; with True the result is checked thoroughly, else as far as that is cheap."""
    most_runs: int | None = None
    """For those that are known to be slow and not to change any verdict."""


def compare(contenders: Sequence[Contender], *, runs: int) -> list[Line]:
    """Run all contenders in turn and return what each took."""
    for contender in contenders:
        say(f"  warm-up: {contender.name}: {contender.run(True).wall_s:.3f} s")
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for number in range(runs):
        # Forwards and backwards: nobody always follows the same neighbour.
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            if contender.most_runs is not None and number >= contender.most_runs:
                continue
            sample = contender.run(False)
            samples[contender.name].append(sample)
            say(f"  run {number + 1}/{runs}: {contender.name}: {sample.wall_s:.3f} s, CPU {sample.cpu_s:.2f} s")
    return [Line(name=contender.name, samples=samples[contender.name]) for contender in contenders]


def say(text: str) -> None:
    """Tell whoever waits how far we are."""
    print(text, file=sys.stderr, flush=True)
