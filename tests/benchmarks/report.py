"""The result: docs/benchmarks.json, and the page made from it."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.figures import Figure, Json, markdown, rows, table
from tools.cluster import build
from tools.operator_process import ROOT

JSON_FILE, PAGE = ROOT / "docs/benchmarks.json", ROOT / "docs/benchmarks.md"
TITLES = {
    "summary": "Commit of an Incident → summary saved",
    "diagnosis": "What a diagnosis costs",
    "approval": "Approval → target patched",
    "undo": "Failed verification → undone",
    "chain": "One judgement: every speaker and every gate",
    "writes": "Writes per Incident, from its creation to its end",
    "idle": "Doing nothing",
}
PACKAGES = ("nightorders", "kopf", "kubernetes", "aiohttp", "pydantic")


@dataclass(frozen=True)
class Context:
    """Under what circumstances was measured."""

    date: str
    load: float
    commit: str

    @classmethod
    def now(cls) -> Context:
        """At the beginning of a run."""
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
        return cls(datetime.now(UTC).strftime("%Y-%m-%d %H:%MZ"), os.getloadavg()[0], done.stdout.strip())

    def result(self, figures: Sequence[Figure], by_kind: Json, seconds: float) -> Json:
        """All of a run as JSON."""
        module = (build.MODULES / "kubernetes" / "go.mod").read_text()
        versions = {"kubernetes API server": build.pinned_version(module, "k8s.io/kubernetes"), "python": platform.python_version()}
        return {
            "date": self.date,
            "commit": self.commit,
            "seconds": round(seconds),
            "machine": {"cores": os.cpu_count(), "load before": round(self.load, 1), "load after": round(os.getloadavg()[0], 1)},
            "versions": {**versions, **{name: version(name) for name in PACKAGES}},
            "figures": [f.wire() for f in figures],
            "writes": by_kind,
        }


def groups(result: Json) -> list[str]:
    """The groups that were measured, in the order of the page."""
    present = {f["group"] for f in result["figures"]}
    return [g for g in TITLES if g in present]


def written(by_kind: Json) -> tuple[list[str], list[list[str]]]:
    """(head, rows) of the writes by kind: the median, and the spread where there is one."""
    levels = list(by_kind)
    kinds = sorted({kind for level in levels for kind in by_kind[level]})

    def cell(values: list[int] | None) -> str:
        if not values:
            return "0"
        low, high, middle = min(values), max(values), sorted(values)[len(values) // 2]
        return f"{middle}" if low == high else f"{middle} ({low}-{high})"

    return ["write", "", *levels], [[kind, "", *(cell(by_kind[level].get(kind)) for level in levels)] for kind in kinds]


def terminal(result: Json) -> str:
    """Everything for a terminal."""
    parts = []
    for group in groups(result):
        parts.append(f"{TITLES[group]}\n{table(rows([f for f in result['figures'] if f['group'] == group]))}")
        if group == "writes" and result["writes"]:
            head, body = written(result["writes"])
            parts.append(table(body, head))
    parts.append(about(result))
    return "\n\n".join(parts)


def about(result: Json) -> str:
    """Where and when."""
    machine = result["machine"]
    what = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    where = f"{machine['cores']} cores, load {machine['load before']} before and {machine['load after']} after"
    return f"Measured {result['date']} at commit {result['commit'] or 'unknown'} in {result['seconds']} s on {where}; {what}."


def page(result: Json) -> str:
    """docs/benchmarks.md."""
    parts = [
        "<!-- Made by `make bench` from docs/benchmarks.json. Do not edit. -->",
        "# Benchmarks",
        about(result),
        (Path(__file__).parent / "method.md").read_text().strip(),
    ]
    for group in groups(result):
        parts += [f"## {TITLES[group]}", markdown(rows([f for f in result["figures"] if f["group"] == group]))]
        if group == "writes" and result["writes"]:
            head, body = written(result["writes"])
            parts.append(markdown(body, head))
    return "\n\n".join(parts) + "\n"


def save(result: Json) -> None:
    """Writes both files."""
    JSON_FILE.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(result))
    print(f"\nwritten: {JSON_FILE.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")
