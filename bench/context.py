"""What the cases are given: how much to do, where, and from whom."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Final

from bench.origin import Origin
from bench.places import MIB, Places

GIB: Final = 1024 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much is done."""

    runs: int = 5
    file_bytes: int = 2 * GIB
    small_files: int = 10_000
    small_bytes: int = 10 * 1024
    accounts: int = 8
    account_file_bytes: int = 256 * MIB
    jobs: int = 10_000
    idle_s: int = 60
    latency_runs: int = 20
    call_rounds: int = 100

    @classmethod
    def quick(cls) -> Amounts:
        """Enough to see that everything works; not for verdicts."""
        return cls(
            runs=2,
            file_bytes=128 * MIB,
            small_files=1_000,
            account_file_bytes=32 * MIB,
            jobs=2_000,
            idle_s=5,
            latency_runs=5,
            call_rounds=20,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything that a case needs."""

    amounts: Amounts
    places: Places
    origin: Origin


class Skipped(Exception):
    """A case cannot be measured here; the text says why."""


def need_root(why: str) -> None:
    """Leave a case out where it would need more rights. Raises Skipped."""
    if os.geteuid() != 0:
        raise Skipped(f"needs root, which {why}")


def has_program(name: str) -> bool:
    """Whether a peer is installed."""
    return shutil.which(name) is not None


def size_text(size_bytes: int) -> str:
    """Return a size for a title."""
    for unit, factor in (("GiB", GIB), ("MiB", MIB), ("KiB", 1024)):
        if size_bytes >= factor and size_bytes % factor == 0:
            return f"{size_bytes // factor} {unit}"
    return f"{size_bytes} bytes"
