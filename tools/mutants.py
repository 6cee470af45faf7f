"""Seeded bugs: each must make a fast test fail, or the tests are worth nothing. `python -m tools.mutants [part of a name …]`

Every gate stands open once, every speaker falls silent once, every part of trust and risk is not counted once, every look of the last
look is left out once: these are read from the code, so that a new one is covered the day it is written. Beside them stand bugs written
by hand. A mutant lives in the memory of one child process; no file is touched.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "operator"
DOMAIN = "nightorders.domain"
UNIT = "tests/unit/domain"
# The tests that are aimed at it are asked first; whatever of the domain survives them must survive all of these, too.
ALL = (UNIT, "tests/property/test_monotone.py", "tests/property/test_gates.py")
PARALLEL = 2
SURVIVED, KILLED = 0, 1  # exit status of pytest: all passed, some failed
HEAVY = ("pytest", "hypothesis", "pydantic", "structlog", "yaml", "cronsim", "jsonpatch", "zoneinfo")


@dataclass(frozen=True)
class Mutant:
    """A bug: `how` to seed it into a fresh process, with what, and the tests to ask first."""

    name: str
    how: str  # nothing | open | silence | edit
    what: tuple[str, ...]
    tests: tuple[str, ...]


def here(*tests: str) -> tuple[str, ...]:
    """Their paths; a bare name is one of the domain's."""
    return tuple(t if "/" in t else f"{UNIT}/{t}" for t in tests)


def edited(name: str, module: str, before: str, after: str, *tests: str) -> Mutant:
    """In that module of the domain (with a leading dot: of the package) `before` becomes `after`."""
    full = f"nightorders{module}" if module.startswith(".") else f"{DOMAIN}.{module}"
    return Mutant(name, "edit", (full, before, after), here(*tests))


# ---------------------------------------------------------------- read from the code

# No rule is L1, which the level says before: this look can change the words, not the end.
SAID_BEFORE = {"gates.policy"}


def from_code() -> list[Mutant]:
    """One for each entry of each table. Imports the package, so it is asked in a process of its own."""
    chain = [gate.name for gate in importlib.import_module(f"{DOMAIN}.gates").CHAIN]
    speakers = [speaker.__name__ for speaker in importlib.import_module(f"{DOMAIN}.autonomy").SPEAKERS]
    scores = importlib.import_module(f"{DOMAIN}.scores")
    parts = [(table, part.__name__) for table in ("TRUST", "RISK") for part in getattr(scores, table)]
    return [
        *(Mutant(f"gate {n} stands open", "open", (n,), here("test_gates.py")) for n in chain),
        *(Mutant(f"speaker {n} is silent", "silence", ("autonomy", "SPEAKERS", n), here("test_autonomy.py")) for n in speakers),
        *(Mutant(f"{t.lower()}: {n} is not counted", "silence", ("scores", t, n), here("test_scores.py")) for t, n in parts),
        *last_looks(),
    ]


def last_looks() -> list[Mutant]:
    """Each look right before the effect is left out."""
    found = re.search(r"for judge in \(([^)]*)\):", (SOURCE / "nightorders/domain/steps/within.py").read_text())
    assert found, "within.py no longer lists its last looks: bring this up to date"
    looks = [look.strip() for look in found[1].split(",") if look.strip()]

    def without(one: str) -> str:
        return f"for judge in ({''.join(f'{look}, ' for look in looks if look != one)}):"

    left = [look for look in looks if look not in SAID_BEFORE]
    return [edited(f"last look: {n} is left out", "steps.within", found[0], without(n), "test_steps.py", "test_shadow.py") for n in left]


# ---------------------------------------------------------------- seeding


def seed(mutant: Mutant) -> None:
    """In this process, which has imported nothing of ours yet, the bug is there from now on."""
    match mutant.how, mutant.what:
        case "nothing", _:
            return
        case "open", (name,):
            open_gate(name)
        case "silence", (module, table, name):
            silence(module, table, name)
        case _, (module, before, after):
            edit(module, before, after)


def open_gate(name: str) -> None:
    """That gate lets everything pass."""
    module = importlib.import_module(f"{DOMAIN}.gates")
    passed = importlib.import_module(f"{DOMAIN}.verdict").passed

    def everything(*_: Any) -> Any:
        return passed("open")

    module.CHAIN = tuple(replace(g, judge=everything) if g.name == name else g for g in module.CHAIN)  # type: ignore[attr-defined]


def silence(module_name: str, table: str, name: str) -> None:
    """That speaker, or that part of a score, says nothing."""
    module = importlib.import_module(f"{DOMAIN}.{module_name}")

    def mute(function: Any) -> Any:
        @functools.wraps(function)
        def nothing(*_: Any) -> Any:
            return iter(())

        return nothing

    setattr(module, table, tuple(mute(f) if f.__name__ == name else f for f in getattr(module, table)))


def edit(module: str, before: str, after: str) -> None:
    """That module is imported with the change."""
    path = SOURCE.joinpath(*module.split(".")).with_suffix(".py")
    text = path.read_text()
    if before not in text:
        raise LookupError(f"{path.relative_to(ROOT)} no longer contains {before!r}: bring the mutant up to date")
    sys.meta_path.insert(0, Finder(module, Loader(module, path, text.replace(before, after))))


class Finder(MetaPathFinder):
    """Finds one module with another text."""

    def __init__(self, module: str, loader: Loader) -> None:
        self._module, self._loader = module, loader

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        """Only that module is ours."""
        return (
            importlib.util.spec_from_file_location(fullname, self._loader.path, loader=self._loader) if fullname == self._module else None
        )


class Loader(SourceFileLoader):
    """Compiles the changed text; the cache of compiled modules is neither read nor written."""

    def __init__(self, fullname: str, path: Path, text: str) -> None:
        super().__init__(fullname, str(path))
        self._text = text

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        """The code of the changed text."""
        code: CodeType = compile(self._text, self.path, "exec")
        return code


# ---------------------------------------------------------------- written by hand

BY_HAND = (
    edited("approvals: the digest is not compared", "approval", "or digest != plan.digest or", "or", "test_approval.py"),
    edited("approvals: an emergency approval needs no reason", "approval", "if emergency and not why:", "if False:", "test_approval.py"),
    edited("approvals: ordinary ones count during a freeze", "approval", "and (a.emergency or not frozen)", "", "test_approval.py"),
    edited("approvals: any system name counts", "approval", 'if not user.startswith("system:"):', "if True:", "test_approval.py"),
    edited("approvals: a reason may be forgotten again", "approval", "known.get((key, user, digest), new)", "new", "test_approval.py"),
    edited(
        "needs: the platform's least count is not heard",
        "judgement",
        "count=max([spec.count, *(b.min_count for b in bounds)])",
        "count=spec.count",
        "test_judgement.py",
    ),
    edited(
        "needs: a later loosening releases a waiting plan",
        "judgement",
        "count=max(before.count, now.count)",
        "count=now.count",
        "test_judgement.py",
    ),
    edited(
        "needs: ServiceAccounts where the platform says nothing",
        "judgement",
        "may = bool(bounds) and all(",
        "may = all(",
        "test_judgement.py",
    ),
    edited("plans: the digest does not cover the target", "plan", '"target": proposal.target.uid,', "", "test_plan.py"),
    edited("plans: the digest does not cover what is paused", "plan", '**({"pause": pause.wire()} if pause else {}),', "", "test_plan.py"),
    edited("plans: without an autoscaler scaling is no change", "digest", "if scaled:", "if True:", "test_judgement.py", "test_gates.py"),
    edited("target: one made anew is the same one", "judgement", "if target.uid == p.target.uid else", "if True else", "test_judgement.py"),
    edited(
        "guard: not proven lowers nothing", "autonomy", "if not v.guard_proven:", "if False and not v.guard_proven:", "test_autonomy.py"
    ),
    edited("level: the highest speaker wins", "autonomy", "level=spoken[0].level", "level=spoken[-1].level", "test_autonomy.py"),
    edited(
        "level: a malformed ceiling is none",
        "autonomy",
        'yield Speaker(who=who, level=Level.L1, because=line(f"{value!r} is none',
        'yield Speaker(who=who, level=Level.L4, because=line(f"{value!r} is none',
        "test_autonomy.py",
    ),
    edited(
        "freeze: one that cannot be read is not in force",
        "freezes",
        "return Frozen(f.name, None, problem)",
        "return None",
        "test_freezes.py",
    ),
    edited(
        "freeze: within the hour shown twice it is not seen",
        "freezes",
        "CLOCK_CHANGE = timedelta(hours=3)",
        "CLOCK_CHANGE = timedelta(minutes=1)",
        "test_freezes.py",
    ),
    edited("freeze: a begin that the clock skips does not happen", "freezes", "begin < gone_on <= now", "False", "test_freezes.py"),
    edited("breaker: every success closes it", "breaker", 'and o.confirmed != "No" and', "and", "test_breaker.py"),
    edited(
        "breaker: closing forgets the failures",
        "breaker",
        "                opened = None\n",
        "                failures, opened = [], None\n",
        "test_breaker.py",
    ),
    edited("breaker: a failure from a clock ahead is not seen", "breaker", "or o.result in FAILED]", "]", "test_breaker.py"),
    edited("breaker: escalated is no failure", "breaker", 'FAILED = ("Undone", "Escalated")', 'FAILED = ("Undone",)', "test_breaker.py"),
    edited("earn: what nobody confirmed counts", "standing", 'or event.confirmed == "No" or', "or", "test_standing.py"),
    edited("earn: every success of a day counts", "standing", "or day in days", "", "test_standing.py"),
    edited("earn: a rejection throws nothing back", "standing", "isinstance(event, Rejection) or", "False or", "test_standing.py"),
    edited(
        "earn: a failure gives the day back",
        "standing",
        "level, times = first, []",
        "level, times, days = first, [], set()",
        "test_standing.py",
    ),
    edited("earn: beyond what the rule allows", "standing", "or level >= most", "or level >= Level.L4", "test_standing.py"),
    edited("success: a ServiceAccount is a human", "ledger", 'and not user.startswith("system:")', "", "test_ledger.py"),
    edited("success: who asked may confirm it", "ledger", "user != requester and", "", "test_ledger.py"),
    edited("budget: one namespace spends it all", "gates", "if here >= slots:", "if False:", "test_gates.py"),
    edited("budget: nobody counted, so it is fine", "gates", "if q.fleet_workloads is None:", "if False:", "test_gates.py"),
    edited("radius: a PodDisruptionBudget is not looked at", "gates", "    if tight:", "    if False:", "test_gates.py"),
    edited("human: every change is the release's own", "interference", "last > released + RELEASE_SLACK", "False", "test_interference.py"),
    edited(
        "shadow: is only a word",
        "gates",
        "return refused(Reason.SHADOW, message) if q.shadow else passed(message)",
        "return passed(message)",
        "test_gates.py",
    ),
    edited(
        "shadow: each pass tells the decision again",
        "steps.before",
        "_gist(before) != _gist(seen)",
        "before.would != seen.would",
        "test_shadow.py",
    ),
    edited(
        "journal: the line before is not covered",
        "journal",
        "return sha256([previous, seq,",
        "return sha256([seq,",
        "tests/unit/audit/test_audit_chain.py",
    ),
    edited(
        "journal: a roll-up may swallow a decision",
        "journal",
        "lasting(timeline) + (kind in LASTING)",
        "0",
        "tests/unit/audit/test_audit_chain.py",
    ),
    edited("execution: a freeze that began is not seen", "steps.within", "if not e.emergency and", "if False and", "test_steps.py"),
    edited(
        "undo: goes over somebody else's change",
        "steps.within",
        "    if digest != e.after:\n        return settle(",
        "    if False:\n        return settle(",
        "test_steps.py",
    ),
    edited(
        "guard: an attack that succeeds counts as refused",
        ".adapters.guard",
        'raise _NotProvenError(f"ALARM',
        'str(f"ALARM',
        "tests/unit/adapters/test_adapter_guard.py",
    ),
    edited(
        "executor: the patch carries no resourceVersion",
        ".controller.executor",
        '{"uid": target.uid, "resourceVersion": target.resource_version}',
        '{"uid": target.uid}',
        "tests/unit/controller",
        "tests/component/test_levels.py",
    ),
    edited(
        "target: a patch without resourceVersion is sent",
        ".adapters.kube.target",
        "raise PermanentError",
        "str",
        "tests/unit/adapters/test_adapter_kube.py",
    ),
)


# ---------------------------------------------------------------- running


def everything() -> list[Mutant]:
    """All mutants, found in a child process: this one must stay without a module of ours."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        with os.fdopen(write, "w") as out:
            json.dump([asdict(m) for m in from_code()], out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        found = json.load(answer)
    os.waitpid(child, 0)
    return [*(Mutant(m["name"], m["how"], tuple(m["what"]), tuple(m["tests"])) for m in found), *BY_HAND]


def start(mutant: Mutant, output: Path) -> int:
    """Forks a child that seeds the bug and runs the tests; returns its process id. Its exit status is pytest's."""
    child = os.fork()
    if child:
        return child
    with output.open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    status = 3
    try:
        status = judged(mutant)
    except BaseException as error:  # noqa: BLE001 - whatever it was, the parent must hear of it
        print(f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    os._exit(status)


def judged(mutant: Mutant) -> int:
    """In the child: pytest's answer with that bug."""
    import pytest

    seed(mutant)
    # What the parent has imported already cannot be rewritten: only plugins are, and no test looks at their asserts.
    quiet = ["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    status = int(pytest.main([*quiet, *mutant.tests]))
    wider = status == SURVIVED and mutant != CONTROL and mutant.tests[0].startswith(UNIT)
    return int(pytest.main([*quiet, *ALL])) if wider else status


# Without a bug the tests that are aimed at most pass: else everything would count as killed.
CONTROL = Mutant("nothing is seeded", "nothing", (), here("test_gates.py", "test_autonomy.py", "test_scores.py", "test_steps.py"))


def main() -> int:
    """Exit status 0 only if every mutant was killed."""
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT), str(SOURCE)]
    for module in HEAVY:  # once, and not in every child
        importlib.import_module(module)
    chosen = [m for m in everything() if not sys.argv[1:] or any(part in m.name for part in sys.argv[1:])]
    waiting, survivors, begun = [CONTROL, *chosen], [], time.monotonic()
    running: dict[int, tuple[Mutant, Path]] = {}
    with tempfile.TemporaryDirectory(prefix="nightorders-mutants-") as folder:
        while waiting or running:
            while waiting and len(running) < PARALLEL:
                mutant, output = waiting.pop(0), Path(folder) / f"{len(waiting)}.txt"
                running[start(mutant, output)] = (mutant, output)
            pid, answer = os.wait()
            mutant, output = running.pop(pid)
            status = os.waitstatus_to_exitcode(answer)
            if mutant == CONTROL:
                if status != SURVIVED:
                    print(
                        f"the tests fail without any bug, so they prove nothing (pytest ended with {status})\n{output.read_text()[-800:]}"
                    )
                    survivors = [m.name for m in chosen]
            elif status == KILLED:
                print(f"killed    {mutant.name}", flush=True)
            else:
                survivors.append(mutant.name)
                print(f"SURVIVED  {mutant.name} (pytest ended with {status})\n{output.read_text()[-800:]}", flush=True)
    survivors = list(dict.fromkeys(survivors))
    killed = len(chosen) - len(survivors)
    print(f"\nkilled {killed}/{len(chosen)} in {time.monotonic() - begun:.0f} s" + "".join(f"\n  survived: {name}" for name in survivors))
    print(f"{killed} passed, {len(survivors)} failed")
    return 1 if survivors or not chosen else 0


if __name__ == "__main__":
    raise SystemExit(main())
