"""Seeded bugs: each must make a fast test fail, or the tests are worth nothing. `python -m tools.mutants`

Works on a copy of the checkout; the checkout itself is not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path("operator/nightorders")


@dataclass(frozen=True)
class Mutant:
    """`before` becomes `after` in `file`; `tests` are the fast tests that must notice."""

    name: str
    file: Path
    before: str
    after: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "approvals: the digest is not compared",
        PACKAGE / "domain/approval.py",
        "if digest == plan.digest and 0 <",
        "if 0 <",
        ("tests/unit/domain/test_approval.py",),
    ),
    Mutant(
        "plans: the digest does not cover the target",
        PACKAGE / "domain/plan.py",
        '"target": proposal.target.uid,',
        "",
        ("tests/unit/domain/test_plan.py",),
    ),
    Mutant(
        "guard: not proven lowers nothing",
        PACKAGE / "domain/autonomy.py",
        "if not v.guard_proven:",
        "if False and not v.guard_proven:",
        ("tests/unit/domain/test_autonomy.py",),
    ),
    Mutant(
        "guard: an attack that succeeds counts as refused",
        PACKAGE / "adapters/guard.py",
        'raise _NotProvenError(f"ALARM',
        'str(f"ALARM',
        ("tests/unit/adapters/test_adapter_guard.py",),
    ),
    Mutant(
        "executor: the patch carries no resourceVersion",
        PACKAGE / "controller/executor.py",
        '"uid": target.uid, "resourceVersion": target.resource_version, ',
        '"uid": target.uid, ',
        ("tests/component", "tests/unit/controller"),
    ),
    Mutant(
        "target: a patch without resourceVersion is sent",
        PACKAGE / "adapters/kube/target.py",
        "raise PermanentError",
        "str",
        ("tests/unit/adapters/test_adapter_kube.py",),
    ),
    Mutant(
        "level: the highest speaker wins",
        PACKAGE / "domain/autonomy.py",
        "level=spoken[0].level",
        "level=spoken[-1].level",
        ("tests/unit/domain/test_autonomy.py",),
    ),
    Mutant(
        "execution: a stop right before the effect is not read",
        PACKAGE / "domain/steps.py",
        "for judge in (gates.stopped, gates.policy,",
        "for judge in (gates.policy,",
        ("tests/unit/domain/test_steps.py",),
    ),
    Mutant(
        "undo: goes over somebody else's change",
        PACKAGE / "domain/steps.py",
        "    if digest != e.after:\n        return settle(",
        "    if False:\n        return settle(",
        ("tests/unit/domain/test_steps.py",),
    ),
)


def survives(mutant: Mutant, copy: Path) -> str:
    """Why the mutant was not caught; empty if a test failed because of it."""
    path = copy / mutant.file
    text = path.read_text()
    if mutant.before not in text:
        return f"{mutant.file} no longer contains {mutant.before!r}: bring the mutant up to date"
    path.write_text(text.replace(mutant.before, mutant.after))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": f"{copy / 'operator'}:{copy}"},
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        path.write_text(text)
    if done.returncode == 1:
        return ""
    return f"pytest ended with {done.returncode}:\n{done.stdout[-800:]}"


def main() -> int:
    """Exit status 0 only if every mutant was caught."""
    with tempfile.TemporaryDirectory(prefix="nightorders-mutants-") as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(
            ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis")
        )
        bad = 0
        for mutant in MUTANTS:
            why = survives(mutant, copy)
            bad += bool(why)
            print(f"{'SURVIVED' if why else 'caught  '}  {mutant.name}" + (f"\n{why}" if why else ""), flush=True)
    print(f"{len(MUTANTS) - bad} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
