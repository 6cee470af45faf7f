"""`python -m tests.crash [--slice] [--only REGEX] [--outcome NAME …] [--resume]`: the operator dies at every write of a run."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
from typing import Any

from tests.crash import report
from tests.crash.oracle import judge
from tests.crash.outcomes import OUTCOMES
from tests.crash.points import Crash
from tests.crash.slices import SLICE
from tests.crash.world import Played, World
from tools.operator_process import ROOT

Json = dict[str, Any]
RUNS = 3  # without a fault: what they have in common is what plans are made for


class Command:
    """All plans that were asked for, one after the other; the result is saved after each."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.outcomes = [o for o in OUTCOMES if o in asked.outcome]
        self.whole = not (asked.slice or asked.only) and self.outcomes == list(OUTCOMES)
        self.file = report.WORKING if self.whole else report.PART
        self.result = json.loads(self.file.read_text()) if asked.resume and self.file.exists() else report.new()
        self.result["sessions"] += 1
        # What was not injected has shown nothing: it is tried again, and all attempts are counted.
        self.tried = {p["plan"]: p["attempts"] for p in self.result["plans"] if not p["injected"]}
        self.result["plans"] = [p for p in self.result["plans"] if p["injected"]]
        if (commit := report.commit()) not in self.result["commits"]:
            self.result["commits"].append(commit)
        self.rows: dict[str, Json] = {}
        self.before = self.result["seconds"]
        self.begin = time.monotonic()

    def run(self) -> int:
        """The exit status."""
        world = World()
        try:
            for name in self.outcomes:
                if name not in self.result["references"]:
                    self.reference(world, name)
            self.plans(world)
        finally:
            world.stop()
        plans = self.result["plans"]
        if self.whole:
            report.publish(self.result)
        else:
            print(f"written: {self.file.relative_to(ROOT)}")
        for plan in plans:
            if not report.good(plan):
                print(f"\n{plan['plan']}: {'' if plan['injected'] else 'NOT INJECTED'}", *plan["differences"], *plan["notes"], sep="\n  ")
        print(report.summary(plans))
        return report.status(plans)

    def reference(self, world: World, name: str) -> None:
        """Runs without a fault. What they show is not compared with itself: RuntimeError where it is not what the outcome means."""
        outcome = OUTCOMES[name]
        runs: list[Played] = []
        for _ in range(RUNS):
            played = world.play(outcome, limit=60)
            effects = len(played.facts.audited.effects)
            said(f"{name}: without a fault, {len(played.points)} writes, {effects} effects, {played.seconds:.1f} s")
            verdict = judge(played.facts, runs[0].facts if runs else played.facts)
            if effects != outcome.effects or not verdict.converged or played.facts.notes:
                raise RuntimeError(f"a run without a fault went wrong: {verdict}\n{played.facts.end}\n{played.facts.notes}")
            runs.append(played)
            world.remove(played.namespace)
        self.result["references"][name] = report.reference(runs)
        self.save()

    def plans(self, world: World) -> None:
        """The plans that have no result yet."""
        all_of_them = [c for name in self.outcomes for c in report.crashes(name, self.result["references"][name]) if self.wanted(c)]
        found = {(c.outcome, str(c.point), c.fault) for c in all_of_them}
        if self.asked.slice and (missing := [" · ".join(s) for s in SLICE if s[0] in self.outcomes and s not in found]):
            raise RuntimeError(f"no run has these writes of the slice: {'; '.join(missing)}")
        done = {p["plan"] for p in self.result["plans"]}
        width = len(str(len(all_of_them)))
        for number, crash in enumerate(all_of_them, 1):
            if str(crash) in done:
                continue
            outcome = OUTCOMES[crash.outcome]
            verdict, played, attempts = world.judged(crash, outcome, report.facts(self.result["references"][crash.outcome]))
            row = report.row(crash, verdict, played, attempts + self.tried.get(str(crash), 0))
            self.rows[played.namespace] = row
            self.result["plans"].append(row)
            word = "converged" if report.good(row) else "DIFFERS" if verdict.injected else "NOT INJECTED"
            said(f"[{number:>{width}}/{len(all_of_them)}] {crash}: {word}, {verdict.effects} effects, {played.seconds:.1f} s")
            self.look_again(world)
            self.save()
        self.look_again(world, all_of_them=True)
        self.save()

    def look_again(self, world: World, *, all_of_them: bool = False) -> None:
        """At plans that ended a while ago: what happened since counts."""
        for namespace, verdict in world.late(all_of_them=all_of_them):
            self.rows[namespace] |= report.judged(verdict)
            self.rows[namespace]["notes"].append("it converged at first; the difference came later")
            said(f"{self.rows[namespace]['plan']}: DIFFERS later")

    def wanted(self, crash: Crash) -> bool:
        """Whether it was asked for."""
        if self.asked.slice and (crash.outcome, str(crash.point), crash.fault) not in SLICE:
            return False
        return not self.asked.only or re.search(self.asked.only, str(crash)) is not None

    def save(self) -> None:
        """What there is so far."""
        self.result["seconds"] = round(self.before + time.monotonic() - self.begin)
        report.save(self.result, self.file)


def said(text: str) -> None:
    """Progress."""
    print(text, flush=True)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description="Kill the operator at every write of a run.")
    parser.add_argument("--slice", action="store_true", help="the plans that `make test` runs; writes nothing to docs")
    parser.add_argument(
        "--only", metavar="REGEX", help="plans whose name matches, such as 'Undone .* target: undo'; writes nothing to docs"
    )
    parser.add_argument(
        "--outcome", nargs="+", choices=list(OUTCOMES), default=list(OUTCOMES), help="some outcomes; writes nothing to docs"
    )
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run of the same kind ended")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the operator's process must not stay behind
    return Command(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
