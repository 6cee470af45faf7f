"""The result of `make crash`: build/crash.json while it runs, docs/crash.json and the page made from it at the end."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.crash.oracle import Audited, Effect, Facts, Verdict
from tests.crash.points import Crash, Point
from tests.crash.world import Played
from tools.cluster import build
from tools.faultproxy import KILLS
from tools.operator_process import ROOT

Json = dict[str, Any]
WORKING = ROOT / "build/crash.json"
PART = ROOT / "build/crash-part.json"
JSON_FILE, PAGE = ROOT / "docs/crash.json", ROOT / "docs/crash.md"
PACKAGES = ("nightorders", "kopf", "kubernetes", "aiohttp")


def new() -> Json:
    """A result with nothing in it yet."""
    module = (build.MODULES / "kubernetes" / "go.mod").read_text()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%MZ"),
        "commits": [],
        "sessions": 0,
        "seconds": 0,
        "cores": os.cpu_count(),
        "versions": {
            "kubernetes API server": build.pinned_version(module, "k8s.io/kubernetes"),
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "references": {},
        "plans": [],
    }


def commit() -> str:
    """Of the code that runs."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def reference(runs: list[Played]) -> Json:
    """Runs of one outcome without a fault, as they are kept: the end state and effects of the first, the writes of all."""
    first = runs[0]
    common = [p for p in first.points if all(p in run.points for run in runs)]
    return {
        "runs": len(runs),
        "level": first.outcome.level,
        "end": first.facts.end,
        "effects": [e.what for e in first.facts.audited.effects],
        "points": [[p.label, p.nth, p.request] for p in common],
        "only in some runs": sorted({str(p) for run in runs for p in run.points} - {str(p) for p in common}),
    }


def facts(kept: Json) -> Facts:
    """What a plan is compared with."""
    return Facts(kept["level"], kept["end"], Audited(tuple(Effect("", what, "") for what in kept["effects"])), {})


def crashes(outcome: str, kept: Json) -> list[Crash]:
    """Every write of that outcome with each way to die."""
    return [Crash(outcome, Point(*point), fault) for point in kept["points"] for fault in KILLS]


def row(crash: Crash, verdict: Verdict, played: Played, attempts: int) -> Json:
    """One plan."""
    return {
        "plan": str(crash),
        "outcome": crash.outcome,
        "point": str(crash.point),
        "request": crash.point.request,
        "fault": crash.fault,
        **judged(verdict),
        "attempts": attempts,
        "seconds": round(played.seconds, 1),
        "notes": list(played.facts.notes),
    }


def judged(verdict: Verdict) -> Json:
    """The verdict's part of a row."""
    return {
        "injected": verdict.injected,
        "converged": verdict.converged,
        "effects": verdict.effects,
        "duplicated": verdict.duplicated,
        "lost": verdict.lost,
        "unapproved": verdict.unapproved,
        "differences": verdict.differences,
    }


def good(plan: Json) -> bool:
    """Whether the fault happened and nothing is wrong."""
    return bool(plan["injected"] and plan["converged"])


def summary(plans: list[Json]) -> str:
    """The last line."""
    count = {name: sum(int(p[name]) for p in plans) for name in ("injected", "duplicated", "lost", "unapproved")}
    return (
        f"{len(plans)} plans: {count['injected']} injected, {sum(good(p) for p in plans)} converged, "
        f"{count['duplicated']} duplicated, {count['lost']} lost, {count['unapproved']} unapproved"
    )


def status(plans: list[Json]) -> int:
    """The exit status: 0 only if there is something, all of it injected and converged."""
    return 0 if plans and all(good(p) and not (p["duplicated"] or p["lost"] or p["unapproved"]) for p in plans) else 1


def save(result: Json, path: Path) -> None:
    """The result so far; a reader never finds half of it."""
    path.parent.mkdir(exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    fresh.replace(path)


def publish(result: Json) -> None:
    """Both files under docs."""
    save(result, JSON_FILE)
    PAGE.write_text(page(result))
    print(f"written: {JSON_FILE.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}")


# ---------------------------------------------------------------- the page


def page(result: Json) -> str:
    """docs/crash.md."""
    plans = result["plans"]
    parts = [
        "<!-- Made by `make crash` from docs/crash.json. Do not edit. -->",
        "# The operator dies at every write",
        f"**{summary(plans)}.**",
        about(result),
        (Path(__file__).parent / "method.md").read_text().strip(),
        "## Counts",
        _table(
            ["outcome", "effects", "plans", "injected", "converged", "duplicated", "lost", "unapproved"],
            [_counts(name, kept, plans) for name, kept in result["references"].items()],
        ),
        "Effects are changes of the target in one run, as the audit log shows them. The fault-free run has the same number.",
    ]
    for name, kept in result["references"].items():
        parts += [f"## {name}", _table(["write", "request", *KILLS], _points(name, kept, plans))]
        if kept["only in some runs"]:
            parts.append(
                f"In some of {kept['runs']} fault-free runs only, therefore without a plan: {', '.join(kept['only in some runs'])}."
            )
    wrong = [p for p in plans if not good(p)]
    if wrong:
        parts += ["## What went wrong", *(_failure(p) for p in wrong)]
    noted = [p for p in plans if good(p) and p["attempts"] > 1]
    if noted:
        parts += ["## More than one attempt", _list(f"{p['plan']}: {p['attempts']} (in the others that write did not come)" for p in noted)]
    return "\n\n".join(parts) + "\n"


def about(result: Json) -> str:
    """Where and when."""
    what = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    resumed = f" in {result['sessions']} sessions (resumed)" if result["sessions"] > 1 else ""
    where = f"commit {', '.join(result['commits'])}, {result['seconds'] / 60:.0f} minutes{resumed} on {result['cores']} cores"
    return f"{result['date']}, {where}; {what}."


def _counts(name: str, kept: Json, plans: list[Json]) -> list[str]:
    mine = [p for p in plans if p["outcome"] == name]
    sums = [sum(int(p[what]) for p in mine) for what in ("duplicated", "lost", "unapproved")]
    return [
        name,
        str(len(kept["effects"])),
        str(len(mine)),
        str(sum(p["injected"] for p in mine)),
        str(sum(good(p) for p in mine)),
        *map(str, sums),
    ]


def _points(name: str, kept: Json, plans: list[Json]) -> list[list[str]]:
    by_plan = {p["plan"]: p for p in plans}
    rows = []
    for point in (Point(*p) for p in kept["points"]):
        cells = [by_plan.get(str(Crash(name, point, fault))) for fault in KILLS]
        rows.append([str(point), f"`{point.request}`", *(_cell(c) for c in cells)])
    return rows


def _cell(plan: Json | None) -> str:
    if plan is None:
        return ""
    if good(plan):
        return "same"
    return "not injected" if not plan["injected"] else "**differs**"


def _failure(plan: Json) -> str:
    return f"**{plan['plan']}**\n\n" + _list([*plan["differences"], *plan["notes"]] or ["the fault never happened"])


def _list(entries: Iterable[str]) -> str:
    return "\n".join(f"- {' '.join(e.split())[:600]}" for e in entries)


def _table(head: list[str], body: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
