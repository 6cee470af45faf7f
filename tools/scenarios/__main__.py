"""Command line: `python -m tools.scenarios --help`."""

from __future__ import annotations

import argparse
import platform
import signal
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

from tools.cluster import build
from tools.cluster.prometheus import ScriptedMetrics
from tools.scenarios import calibrate, capture, prove, replay, report, results, run
from tools.scenarios.alerts import RuleAlerts
from tools.scenarios.errors import RunnerError, ScenarioError
from tools.scenarios.isolation import alone_because
from tools.scenarios.load import load_all
from tools.scenarios.run import Options
from tools.scenarios.score import Result
from tools.scenarios.variants import PLAIN, variants
from tools.scenarios.world import observed, started

ROOT = Path(__file__).resolve().parents[2]


def to_stderr(text: str) -> None:
    """Progress of what takes long."""
    print(text, file=sys.stderr, flush=True)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, read."""
    parser = argparse.ArgumentParser(prog="python -m tools.scenarios", description="Fault scenarios: list, check, prove, run, report.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("run", "break the cluster, tell the operator, and score it"),
        ("list", "read the scenarios and show them; ends with 1 when one cannot be used"),
        ("prove", "show without the operator that each scenario means what it says"),
        ("capture", "take a picture of each world at its alert, for `replay` and `calibrate`"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("directory", type=Path, nargs="?", default=prove.default_directory(), help="scenario folders, or one of them")
        command.add_argument("--only", action="append", default=[], metavar="ID", help="this scenario (again for more)")
        if name == "run":
            _run_arguments(command)
        if name == "capture":
            command.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the pictures go")
            command.add_argument("--jobs", type=int, default=3, help="scenarios at a time (default %(default)s)")
        if name == "prove":
            command.add_argument("--wrong", type=float, default=20.0, metavar="SECONDS", help="how long a wrong move may take to repair")
            command.add_argument("--jobs", type=int, default=2, help="scenarios at a time (default %(default)s)")
    written = commands.add_parser("report", help="print the table of a result file and write docs/evaluation.md from it")
    written.add_argument("file", type=Path)
    written.add_argument(
        "--page", type=Path, default=ROOT / "docs" / "evaluation.md", help="where the page goes (default docs/evaluation.md)"
    )
    asked = commands.add_parser("replay", help="ask the engine about pictures, without a cluster; ends with 1 when one answer is wrong")
    asked.add_argument("folder", type=Path)
    asked.add_argument("--only", action="append", default=[], metavar="ID", help="this picture (again for more)")
    asked.add_argument("--whole", action="store_true", help="about the whole namespace and without the signal")
    counted = commands.add_parser("calibrate", help="count how often each grade is right on pictures and their variants")
    counted.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    counted.add_argument("--write", action="store_true", help="keep the table in operator/nightorders/diagnosis/grades.json")
    found = parser.parse_args(argv)
    if problem := _nonsense(found):
        parser.error(problem)
    return found


def _run_arguments(command: argparse.ArgumentParser) -> None:
    usual = Options()
    command.add_argument("--jobs", type=int, default=usual.jobs, help="scenarios at a time (default %(default)s)")
    command.add_argument("--variants", type=int, default=0, metavar="N", help="run each one N times more, said differently")
    command.add_argument("--out", type=Path, metavar="FILE", help="JSON result file, written after every run")
    command.add_argument("--resume", action="store_true", help="skip what FILE has for the same scenario, code and options")
    command.add_argument("--seed", type=int, default=usual.seed, help="places the background and makes the variants (default %(default)s)")
    command.add_argument("--no-background", action="store_true", help="nothing but the scenario in the cluster")
    command.add_argument("--detect", action="store_true", help="leave the operator's own watch on rollouts on")
    command.add_argument("--prove", action="store_true", help="prove the scenarios instead, without the operator")
    command.add_argument("--check", action="store_true", help="end with 1 when a target of the evaluation is missed")
    command.add_argument("--full", action="store_true", help="every window as in production and as the design asks: takes hours")
    for name, what in (
        ("hold", "repaired must hold for so long"),
        ("settle", "repaired at the latest so long after the last action"),
        ("verify", "length of the operator's verification"),
        ("stalled-after", "how long a fault must have held before it may be touched"),
        ("call-after", "how long the operator waits before it calls a human"),
        ("quiet", "an Incident that says the same for so long is taken at its word"),
        ("deadline", "longest time from alert to outcome"),
        ("healthy", "how long the healthy system is left alone before the fault"),
    ):
        command.add_argument(f"--{name}", type=float, metavar="SECONDS", help=what)


def _nonsense(found: argparse.Namespace) -> str:
    """What is wrong with the numbers; empty: nothing."""
    if getattr(found, "jobs", 1) < 1:
        return "--jobs: use 1 or more"
    if getattr(found, "variants", 0) < 0:
        return "--variants: use 0 or more"
    if getattr(found, "resume", False) and found.out is None:
        return "--resume needs --out FILE: there it finds what was run"
    for name in ("hold", "settle", "verify", "stalled_after", "call_after", "quiet", "deadline", "healthy", "wrong"):
        value = getattr(found, name, None)
        if value is not None and value <= 0:
            return f"--{name.replace('_', '-')}: use a number of seconds above 0"
    return ""


def options(args: argparse.Namespace) -> Options:
    """The options of a run: the usual ones, or with --full the long ones, changed by what was said."""
    base = Options(jobs=args.jobs, seed=args.seed, background=not args.no_background, detect=args.detect)
    if args.full:
        base = replace(base, hold=120.0, settle=60.0, verify=None, stalled_after=None, call_after=900.0, quiet=1200.0, deadline=2700.0)
    names = ("hold", "settle", "verify", "stalled_after", "call_after", "quiet", "deadline", "healthy")
    return replace(base, **{name: getattr(args, name) for name in names if getattr(args, name) is not None})


def run_command(args: argparse.Namespace) -> int:
    """`run`."""
    if args.prove:
        args.wrong = 20.0
        return proof(args)
    scenarios = load_all(args.directory, tuple(args.only))
    chosen = options(args)
    pairs = run.interleave(scenarios, lambda s: [PLAIN, *variants(s, args.variants, args.seed)])
    file = results.File(args.out, chosen, {"Python": platform.python_version()})
    file.content["wanted"] = len(pairs)
    done = file.resume(pairs) if args.resume else set()
    left = [(s, v) for s, v in pairs if (s.id, v.name) not in done]
    if done:
        print(f"{len(done)} runs are there already, {len(left)} are left")

    def show_result(result: Result) -> None:
        file.keep(result)
        print(f"[{len(file.content['results'])}/{len(pairs)}] {report.line(asdict(result))}", flush=True)

    if left:
        with run.arena(chosen, to_stderr) as arena:
            file.content["versions"] |= {"Kubernetes": arena.world.version} | programs()
            run.run_all(arena, left, show_result)
            file.content["stray"] = sorted({*file.content["stray"], *run.stray(arena)})
            file.write()
    print(report.table(file.content))
    if report.void_problem(file.content["results"]):
        return 1
    misses = report.missed(file.content) if args.check else []
    for text in misses:
        print(f"target missed: {text}")
    return 1 if misses else 0


def programs() -> dict[str, str]:
    """Versions of the other real programs, from their pins."""
    found = {}
    for folder, module in (
        ("kubernetes", "sigs.k8s.io/kwok"),
        ("prometheus", "github.com/prometheus/prometheus"),
        ("kube-state-metrics", "k8s.io/kube-state-metrics/v2"),
    ):
        text = (build.MODULES / folder / "go.mod").read_text()
        found[module.split("/")[1] if module.endswith("/v2") else module.rpartition("/")[2]] = build.pinned_version(text, module)
    return found


def report_command(args: argparse.Namespace) -> int:
    """`report`."""
    content = results.read(args.file)
    args.page.write_text(report.document(content))
    print(report.table(content))
    print(f"wrote {args.page}")
    return 0


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

    def tell(finding: prove.Finding) -> None:
        print(f"{'FAILED' if finding.problems else 'proved'} {finding.id} ({finding.seconds:.0f} s)", flush=True)
        for line in finding.problems:
            print(f"  problem: {line}")
        for line in finding.notes:
            print(f"  {line}", flush=True)

    with started(to_stderr) as world, observed(world, [], to_stderr) as prometheus:
        good = prove.prove_all(world, scenarios, RuleAlerts(prometheus), tell, wrong_seconds=args.wrong, jobs=args.jobs)
    print(f"{len(scenarios)} scenarios in {time.monotonic() - begin:.0f} s: {'all proved' if good else 'NOT all proved'}")
    return 0 if good else 1


def take_pictures(args: argparse.Namespace) -> int:
    """`capture`."""
    wanted = [(s, PLAIN) for s in load_all(args.directory, tuple(args.only))]

    def tell(name: str, problem: str) -> None:
        print(f"{'FAILED' if problem else 'taken '} {name}" + (f": {problem}" if problem else ""), flush=True)

    with started(to_stderr) as world, ScriptedMetrics() as exporter, observed(world, [exporter.address], to_stderr) as prometheus:
        failed = capture.capture_all(world, prometheus, exporter, wanted, args.out, tell, args.jobs)
    return 1 if failed else 0


def ask_pictures(args: argparse.Namespace) -> int:
    """`replay`."""
    answers = replay.replay_all(args.folder, tuple(args.only), whole=args.whole)
    if not answers:
        raise RunnerError(f"{args.folder}: no pictures there (FOLDER/<id>/signal.json); `capture` takes them")
    for a in answers:
        expected = "" if a.right else f"; right is {' or '.join(' '.join(e).strip() for e in a.expected)}"
        print(f"{'ok   ' if a.right else 'WRONG'} {a.id:40} {a.said}{expected}")
    print(f"{sum(a.right for a in answers)} of {len(answers)} right")
    return 0 if all(a.right for a in answers) else 1


def count_grades(args: argparse.Namespace) -> int:
    """`calibrate`."""
    calibrate.main(args.folders, write=args.write)
    return 0


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0 good, 1 a finding, 2 it could not be tried."""
    args = arguments(argv)
    if threading.current_thread() is threading.main_thread():
        # Whoever ends the runner, by keyboard or by kill, leaves no operator and no cluster behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return COMMANDS[args.command](args)
    except (ScenarioError, RunnerError) as problem:
        print(problem, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was run is in the result file, and --resume goes on from there", file=sys.stderr)
        return 130


COMMANDS = {
    "list": show,
    "prove": proof,
    "run": run_command,
    "report": report_command,
    "capture": take_pictures,
    "replay": ask_pictures,
    "calibrate": count_grades,
}


if __name__ == "__main__":
    sys.exit(main())
