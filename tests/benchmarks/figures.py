"""Figures: repeats, their spread, and the tables that show them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """One measured thing. `values`: one per repeat, in order; `target`: the most that was promised, if anything was."""

    group: str
    name: str
    unit: str
    values: tuple[float, ...]
    target: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        return None if self.target is None else self.median <= self.target

    def wire(self) -> Json:
        """As it stands in docs/benchmarks.json."""
        spread = {"min": round(min(self.values), 4), "median": round(self.median, 4), "max": round(max(self.values), 4)}
        return {**asdict(self), "values": [round(v, 4) for v in self.values], **spread, "met": self.met}


def against(group: str, name: str, measured: Sequence[float], floor: Sequence[float], target: float | None, note: str = "") -> Figure:
    """The ratios of pairs that were measured one right after the other."""
    return Figure(group, name, "×", tuple(m / f for m, f in zip(measured, floor, strict=True)), target, note)


def milliseconds(group: str, name: str, seconds: Sequence[float], note: str = "") -> Figure:
    """Times."""
    return Figure(group, name, "ms", tuple(1000 * s for s in seconds), None, note)


def shown(value: float) -> str:
    """Three digits that count."""
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def rows(figures: Sequence[Json]) -> list[list[str]]:
    """One row per figure, as it stands in the JSON."""
    found = []
    for f in figures:
        target = "" if f["target"] is None else f"≤ {shown(f['target'])}{'' if f['met'] else ' MISSED'}"
        found.append([f["name"], f["unit"], shown(f["min"]), shown(f["median"]), shown(f["max"]), str(len(f["values"])), target])
    return found


HEAD = ["what", "unit", "min", "median", "max", "repeats", "target"]


def table(body: Sequence[Sequence[str]], head: Sequence[str] = HEAD) -> str:
    """Columns for a terminal."""
    widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
    lines = [
        "  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in (head, *body)
    ]
    return "\n".join(line.rstrip() for line in lines)


def markdown(body: Sequence[Sequence[str]], head: Sequence[str] = HEAD) -> str:
    """The same for a page."""
    rule = ["---" if i < 2 else "---:" for i in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (list(head), rule, *map(list, body)))
