"""Runs the test tiers, and says at the end which ran, with their counts, and which could not, with the reason.

NIGHTORDERS_REQUIRE_TIERS (a comma-separated list) makes a tier that cannot run a failure: CI must not skip in silence.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Tier:
    """`command` runs it; `obstacle` says why it cannot run here (empty: it can).

    `beside`: it runs while the tiers after it do, and is waited for before the first that needs a cluster as well. Only for tests that
    do not mind a busy machine.
    """

    name: str
    command: list[str]
    obstacle: Callable[[], str]
    beside: bool = False


@dataclass(frozen=True)
class Result:
    """How a tier ended. `skipped` holds the reason where it did not run."""

    name: str
    ok: bool
    passed: int
    failed: int
    seconds: float
    skipped: str = ""


def nothing() -> str:
    """No obstacle."""
    return ""


def no_control_plane() -> str:
    """Builds the control plane if it is not there yet; the reason if that fails."""
    return _build("control-plane")


def no_prometheus() -> str:
    """The same for Prometheus."""
    return _build("control-plane") or _build("prometheus")


def no_helm() -> str:
    """The same for Helm."""
    return _build("control-plane") or _build("helm")


def _build(what: str) -> str:
    done = subprocess.run([sys.executable, "-m", "tools.cluster", "build", "--set", what], cwd=ROOT, check=False)
    return "" if done.returncode == 0 else f"cannot build {what} (see above)"


def pytest(*arguments: str) -> list[str]:
    """A pytest command line."""
    return [sys.executable, "-m", "pytest", "-q", *arguments]


TIERS = (
    Tier("lint", ["make", "--no-print-directory", "lint", "verify"], nothing),
    Tier(
        "attacks",
        pytest("tests/cluster", "--ignore=tests/cluster/operator", "-m", "cluster and not prometheus"),
        no_control_plane,
        beside=True,
    ),
    Tier("unit", pytest("tests/unit"), nothing),
    Tier("property", pytest("tests/property"), nothing),
    Tier("component", pytest("tests/component"), nothing),
    Tier("mutants", [sys.executable, "-m", "tools.mutants"], nothing),
    Tier("cluster", pytest("tests/cluster/operator", "-m", "cluster and not prometheus"), no_control_plane),
    Tier("crash", pytest("-vv", "tests/crash"), no_control_plane),  # names each plan; `make crash` runs all of them
    Tier("prometheus", pytest("tests/cluster", "-m", "prometheus"), no_prometheus),
    Tier("chart", pytest("tests/chart"), no_helm),
)
FAST = ("lint", "unit", "property", "component", "mutants")


def run_beside(tier: Tier) -> Callable[[], Result]:
    """Starts a tier; the answer waits for its end, and shows its output then."""
    if obstacle := tier.obstacle():
        return lambda: Result(tier.name, False, 0, 0, 0, obstacle)
    print(f"\n=== {tier.name}: begins, beside what follows ===", flush=True)
    start, output = time.monotonic(), tempfile.TemporaryFile()  # noqa: SIM115 - it is read after the tiers in between
    process = subprocess.Popen(tier.command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)

    def wait() -> Result:
        print(f"\n=== {tier.name} ===", flush=True)
        status = process.wait()
        seconds = time.monotonic() - start
        output.seek(0)
        text = output.read().decode(errors="replace")
        print(text, flush=True)
        passed, failed = counts(text[-4096:])
        return Result(tier.name, status == 0, passed, failed, seconds)

    return wait


def run(tier: Tier) -> Result:
    """Runs one tier; its output passes through."""
    if obstacle := tier.obstacle():
        return Result(tier.name, False, 0, 0, 0, obstacle)
    print(f"\n=== {tier.name} ===", flush=True)
    start = time.monotonic()
    process = subprocess.Popen(tier.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    tail = b""
    while chunk := os.read(process.stdout.fileno(), 4096):  # not by lines: the dots of a running test tier are its progress
        sys.stdout.buffer.write(chunk)
        sys.stdout.flush()
        tail = (tail + chunk)[-4096:]
    status = process.wait()
    passed, failed = counts(tail.decode(errors="replace"))
    return Result(tier.name, status == 0, passed, failed, time.monotonic() - start)


def counts(text: str) -> tuple[int, int]:
    """(passed, failed or in error) from pytest's closing line."""
    found = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|error)s?", text)}
    return found.get("passed", 0), found.get("failed", 0) + found.get("error", 0)


def main() -> int:
    """Exit status 0 only if every tier that ran passed and every required tier ran."""
    wanted = {"all": [t.name for t in TIERS], "fast": list(FAST)}
    names = [name for word in sys.argv[1:] or ["all"] for name in wanted.get(word, [word])]
    if unknown := set(names) - {t.name for t in TIERS}:
        print(f"no such tier: {', '.join(sorted(unknown))}; there are all, fast, {', '.join(t.name for t in TIERS)}")
        return 2
    chosen = [t for t in TIERS if t.name in names]
    required = set(filter(None, os.environ.get("NIGHTORDERS_REQUIRE_TIERS", "").split(",")))
    results: list[Result] = []
    beside: list[Callable[[], Result]] = []
    for tier in chosen:
        if tier.beside:
            beside.append(run_beside(tier))
            continue
        if tier.obstacle is not nothing:
            results += [wait() for wait in beside]
            beside = []
        results.append(run(tier))
    results += [wait() for wait in beside]
    print("\ntier        result   passed  failed  seconds")
    for r in results:
        word = "not run" if r.skipped else "passed" if r.ok else "FAILED"
        print(f"{r.name:<11} {word:<8} {r.passed:>6}  {r.failed:>6}  {r.seconds:>7.0f}" + (f"  {r.skipped}" if r.skipped else ""))
    bad = [r.name for r in results if (not r.ok and not r.skipped) or (r.skipped and r.name in required)]
    print(f"\n{sum(r.passed for r in results)} passed, {sum(r.failed for r in results)} failed")
    if bad:
        print(f"not green: {', '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
