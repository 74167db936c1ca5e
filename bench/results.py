"""What a case comes to: lines of samples and figures, and whether the goals are met. No measuring here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.running import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The runs of one contender."""

    name: str
    samples: Sequence[Sample]

    @property
    def wall_s(self) -> float:
        """Median."""
        return median(sample.wall_s for sample in self.samples)

    @property
    def wall_range_s(self) -> tuple[float, float]:
        """Least and most."""
        walls = [sample.wall_s for sample in self.samples]
        return min(walls), max(walls)

    @property
    def cpu_s(self) -> float:
        """Median."""
        return median(sample.cpu_s for sample in self.samples)

    @property
    def rss_bytes(self) -> float:
        """Median of the peaks."""
        return median(sample.rss_bytes for sample in self.samples)

    @property
    def pss_bytes(self) -> float:
        """Median of the peaks."""
        return median(sample.pss_bytes for sample in self.samples)

    def as_json(self) -> dict[str, Any]:
        """Everything, for `--json`."""
        return {
            "name": self.name,
            "wall_s": [sample.wall_s for sample in self.samples],
            "cpu_s": [sample.cpu_s for sample in self.samples],
            "rss_bytes": [sample.rss_bytes for sample in self.samples],
            "pss_bytes": [sample.pss_bytes for sample in self.samples],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Something else that was measured; the value is the median."""

    name: str
    values: Sequence[float]
    unit: str

    @property
    def value(self) -> float:
        """Median."""
        return median(self.values)

    def as_json(self) -> dict[str, Any]:
        """Everything, for `--json`."""
        return {"name": self.name, "unit": self.unit, "values": list(self.values)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A value and its limit."""

    what: str
    value: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the value keeps the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def sign(self) -> str:
        """How value and limit should stand."""
        return "≥" if self.at_least else "≤"

    def as_json(self) -> dict[str, Any]:
        """Everything, for `--json`."""
        return {
            "what": self.what,
            "value": self.value,
            "limit": self.limit,
            "sign": self.sign,
            "unit": self.unit,
            "is_met": self.is_met,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a case came to."""

    key: str
    title: str
    lines: Sequence[Line] = ()
    reference: Line | None = None
    """The line that the others are compared with."""
    figures: Sequence[Figure] = ()
    goals: Sequence[Goal] = ()
    remarks: Sequence[str] = ()

    def as_json(self) -> dict[str, Any]:
        """Everything, for `--json`."""
        return {
            "case": self.key,
            "title": self.title,
            "lines": [line.as_json() for line in self.lines],
            "figures": [figure.as_json() for figure in self.figures],
            "goals": [goal.as_json() for goal in self.goals],
            "remarks": list(self.remarks),
        }


def wall_ratio(ours: Line, peer: Line, limit: float) -> Goal:
    """Our wall time against a peer's."""
    return Goal(what=f"wall, {ours.name} / {peer.name}", value=ours.wall_s / peer.wall_s, limit=limit, unit="×")


def cpu_ratio(ours: Line, peer: Line, limit: float) -> Goal:
    """Our processor time against a peer's, for the same bytes."""
    return Goal(what=f"CPU, {ours.name} / {peer.name}", value=ours.cpu_s / peer.cpu_s, limit=limit, unit="×")
