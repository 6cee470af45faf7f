"""`python -m tests.benchmarks [--quick] [--only GROUP …]`: measures on one throw-away cluster, prints a table, writes docs/benchmarks.*."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks import measures, report
from tests.benchmarks.arena import Arena
from tests.benchmarks.figures import Figure, Json, rows, table
from tools.cluster import provide
from tools.cluster.local import LocalCluster
from tools.operator_process import install

FULL = measures.Extent(repeats=7, pods=(10, 100, 1000), idle_seconds=30)
QUICK = measures.Extent(repeats=3, pods=(10, 100), idle_seconds=10)
MEASURES: dict[str, Callable[[Arena, measures.Extent], Iterator[Figure]]] = {
    "diagnoses": measures.diagnoses,
    "approvals": measures.approvals,
    "undo": measures.undone,
    "chain": measures.judged,
    "idle": measures.idle,
}
# More happens here within an hour than in any real fleet.
GENEROUS = {
    "apiVersion": "nightorders.dev/v1alpha1",
    "kind": "ClusterRemediationPolicy",
    "metadata": {"name": "benchmarks"},
    "spec": {"fleet": {"maxConcurrent": 100, "perHour": 10000, "namespaceShare": 100}},
}
GROUPS = [*MEASURES, "writes"]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Measure the operator against the floor of its cluster."
    )
    parser.add_argument("--quick", action="store_true", help="3 repeats, 10 and 100 pods; writes nothing to docs")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS, help="some groups; writes nothing to docs")
    parser.add_argument("--out", type=Path, help="also write the figures to this JSON file")
    asked = parser.parse_args()
    extent = QUICK if asked.quick else FULL
    result = measured(extent, asked.only)
    print("\n" + report.terminal(result))
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if not asked.quick and asked.only == GROUPS:
        report.save(result)


def measured(extent: measures.Extent, only: list[str]) -> Json:
    """Everything asked for, on one cluster that is gone afterwards."""
    begin = time.monotonic()
    context = report.Context.now()
    found: list[Figure] = []
    by_kind: Json = {}
    # Only a local cluster has an audit log.
    cluster = provide(require="local", nodes=extent.nodes)
    assert isinstance(cluster, LocalCluster)
    with contextlib.ExitStack() as end:
        end.callback(cluster.stop)
        install(cluster)
        cluster.apply(GENEROUS)
        arena = Arena(cluster)
        end.callback(arena.stop)
        for name in only:
            print(f"{name} (after {time.monotonic() - begin:.0f} s)", flush=True)
            if name == "writes":
                figures, by_kind = measures.writes(arena, extent)
                found += figures
                print(table(rows([f.wire() for f in figures])), flush=True)
                continue
            for figure in MEASURES[name](arena, extent):
                found.append(figure)
                print("  " + "  ".join(rows([figure.wire()])[0]), flush=True)
    return context.result(found, by_kind, time.monotonic() - begin)


if __name__ == "__main__":
    main()
