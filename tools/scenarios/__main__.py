"""Command line: `python -m tools.scenarios --help`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tools.scenarios import prove
from tools.scenarios.alerts import RuleAlerts
from tools.scenarios.errors import RunnerError, ScenarioError
from tools.scenarios.isolation import alone_because
from tools.scenarios.load import load_all
from tools.scenarios.world import observed, started


def to_stderr(text: str) -> None:
    """Progress of what takes long."""
    print(text, file=sys.stderr, flush=True)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, read."""
    parser = argparse.ArgumentParser(prog="python -m tools.scenarios", description="Fault scenarios: list, check, prove, run, report.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("list", "read the scenarios and show them; ends with 1 when one cannot be used"),
        ("prove", "show without the operator that each scenario means what it says"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("directory", type=Path, nargs="?", default=prove.default_directory(), help="scenario folders, or one of them")
        command.add_argument("--only", action="append", default=[], metavar="ID", help="this scenario (again for more)")
        if name == "prove":
            command.add_argument("--wrong", type=float, default=20.0, metavar="SECONDS", help="how long a wrong move may take to repair")
            command.add_argument("--jobs", type=int, default=3, help="moves of a scenario side by side (default 3)")
    return parser.parse_args(argv)


def show(args: argparse.Namespace) -> int:
    """`list`."""
    for scenario in load_all(args.directory, tuple(args.only)):
        document = scenario.document
        alone = alone_because(scenario)
        answer = document.expect.root_cause[0]
        print(f"{scenario.id:32} {document.kind:5} {document.expect.outcome:9} {answer.category} {answer.object or 'any object'}")
        if alone:
            print(f"{'':32} runs alone: {alone}")
    return 0


def proof(args: argparse.Namespace) -> int:
    """`prove`."""
    scenarios = load_all(args.directory, tuple(args.only))
    begin = time.monotonic()

    def report(finding: prove.Finding) -> None:
        print(f"{'FAILED' if finding.problems else 'proved'} {finding.id} ({finding.seconds:.0f} s)", flush=True)
        for line in finding.problems:
            print(f"  problem: {line}")
        for line in finding.notes:
            print(f"  {line}", flush=True)

    with started(to_stderr) as world, observed(world, [], to_stderr) as prometheus:
        good = prove.prove_all(world, scenarios, RuleAlerts(prometheus), report, wrong_seconds=args.wrong, jobs=args.jobs)
    print(f"{len(scenarios)} scenarios in {time.monotonic() - begin:.0f} s: {'all proved' if good else 'NOT all proved'}")
    return 0 if good else 1


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0 good, 1 a finding, 2 it could not be tried."""
    args = arguments(argv)
    try:
        return {"list": show, "prove": proof}[args.command](args)
    except (ScenarioError, RunnerError) as problem:
        print(problem, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
