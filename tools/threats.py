"""README's tables of threats and promises: which tests try each of them. Collected from the tests themselves, so that no claim stands alone.

A test belongs to a row by a marker (`@pytest.mark.threat(7)`, `@pytest.mark.promise(2)`, on the function, its class or its module), in
tests/cluster/attacks by its name (`test_7_28_…`), or by its docstring (`threats.md 7`).
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
BY_NAME = "tests/cluster/attacks/"

THREATS = {
    1: "Forging the operator's records: status, plans, digests, Ledgers, the audit heads",
    2: "Weakening the guard itself: a policy or binding that is edited, narrowed, not compiled or gone",
    3: "Approvals that are forged, pre-dated, replayed, overwritten, or change the question with the answer; emergency approvals too",
    4: "Approving through the operator what one may not do oneself",
    5: "ServiceAccounts that approve",
    6: "Incidents in somebody else's name, or with a made-up signal",
    7: "Removing or holding up the record of a running execution: deletion, finalizers, ownerReferences, a second one of the same name",
    8: "Raising a level behind a waiting plan: a later raise, relabelling, malformed or missing ceilings",
    9: "Policies that give more than their author has; L4 without the right to grant it",
    10: "Binding an action role to oneself",
    11: "Forged or stale execution stamps; standing in the way of a human's rollback",
    12: "A planted revision that a rollback would deploy",
    13: "Shell code in a command that is meant to be pasted",
    14: "Touching what guards others: protected objects and namespaces",
    15: "Pausing a GitOps owner that is not the object's",
    16: "Going on in spite of the stop, a freeze or a breaker; lifting a stop without the right to",
    17: "A stale leader that wakes up and writes",
    18: "Metrics that lie, an alert that resolves, evidence from one pod only",
    19: "Acting on a confidence that a runbook, a memory or a model talked up",
    20: "Reading through Incidents what one may not read",
    21: "Team PromQL that looks into other namespaces",
    22: "Notification channels that are made to send requests",
    23: "Secrets in evidence, or guessed from its digests",
    24: "Control characters, bidi marks, bombs and symlinks",
    25: "Filling up the space that the journal needs",
    26: "An Incident of a guessed name that swallows an alert",
    27: "A tenant that holds up everybody's alerts",
    28: "Losing history: toggled approvals, deleted Ledgers, one namespace that spends the whole budget",
    29: "Outcomes that one praises oneself, to earn a level",
    30: "A compromised operator",
}

# What a row does not cover yet, because the thing that would be attacked does not exist.
LATER = {
    14: "restoring ConfigMaps, NetworkPolicies, quotas (no such action yet)",
    19: "runbooks, memory and a model (none of them speaks yet)",
    20: "origins in other namespaces (Incidents look at their own only)",
    27: "alerts that arrive in batches (no receiver yet)",
    29: "reviews by humans (no Postmortems yet)",
    30: "splitting reader and executor (docs/safety.md says what a compromised operator could do)",
}

PROMISES = {
    1: (
        "No mutation without a policy that allows it at that moment, a plan saved before, a server-side dry run that passed and, at L3, "
        "enough valid approvals of exactly that plan"
    ),
    2: "At most one committed effect per execution, through crashes, duplicate events, two operators and lost answers",
    3: "Text from the cluster never raises a level, picks a target outside the Incident's scope, or becomes a command; it can only lower",
    4: "If the operator cannot tell, it does not act; it says what is missing and calls a human",
    5: "Every mutation can be traced: who allowed it, the evidence, before and after, the verdict, the undo; the records are chained",
    6: "The effective level is a minimum: raising anything anywhere never removes a check elsewhere",
    7: "Nobody gets through the operator what they may not do themselves, nor reads through it what they may not read",
}


@dataclass(frozen=True)
class Test:
    """One test function: `file` relative to the repository."""

    file: str
    name: str
    threats: frozenset[int]
    promises: frozenset[int]


def collected(folder: Path = TESTS) -> list[Test]:
    """Every test function below `folder`, in the order of files and lines."""
    return [t for path in sorted(folder.rglob("test_*.py")) for t in _tests(path, path.relative_to(folder.parent).as_posix())]


def _tests(path: Path, file: str) -> Iterator[Test]:
    tree = ast.parse(path.read_text())
    module = [n.value for n in tree.body if isinstance(n, ast.Assign) and any(_is_name(t, "pytestmark") for t in n.targets)]
    yield from _in(tree.body, module, file)


def _in(body: Iterable[ast.stmt], inherited: list[ast.expr], file: str) -> Iterator[Test]:
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _in(node.body, [*inherited, *node.decorator_list], file)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
            continue
        marks = [*inherited, *node.decorator_list]
        named = re.match(r"test_((?:\d+_)+)", node.name) if file.startswith(BY_NAME) else None
        rows = {int(n) for n in named[1].rstrip("_").split("_")} if named else set()
        for said in re.finditer(r"threats\.md ((?:\d+(?:, | and )?)+)", ast.get_docstring(node) or ""):
            rows |= {int(n) for n in re.findall(r"\d+", said[1])}
        yield Test(file, node.name, frozenset(rows | _numbers(marks, "threat")), frozenset(_numbers(marks, "promise")))


def _numbers(marks: Iterable[ast.expr], marker: str) -> set[int]:
    """The arguments of every `pytest.mark.<marker>(…)` within these expressions."""
    calls = (n for mark in marks for n in ast.walk(mark) if isinstance(n, ast.Call))
    ours = (c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr == marker)
    return {a.value for call in ours for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, int)}


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def problems(tests: Iterable[Test]) -> list[str]:
    """Rows that no test tries and that are not said to be later work; rows that do not exist."""
    tests = list(tests)
    tried = {n for t in tests for n in t.threats}
    kept = {n for t in tests for n in t.promises}
    found = [f"threat {n} has no test: {THREATS[n]}" for n in THREATS if n not in tried and n not in LATER]
    found += [f"promise {n} has no test: {PROMISES[n]}" for n in PROMISES if n not in kept]
    found += [f"{t.file}: {t.name} names row {n}, which does not exist" for t in tests for n in sorted(t.threats - set(THREATS))]
    return found + [f"{t.file}: {t.name} names promise {n} of seven" for t in tests for n in sorted(t.promises - set(PROMISES))]


def threats_table(tests: Iterable[Test]) -> str:
    """Row → what is attacked → where it is tried, with the number of test functions."""
    tests = list(tests)
    lines = ["| | what is attacked | tests |", "|---|---|---|"]
    for row, what in THREATS.items():
        later = f"not yet: {LATER[row]}" if row in LATER else ""
        cell = "; ".join(filter(None, (_where(t for t in tests if row in t.threats), later))) or "**none**"
        lines.append(f"| {row} | {what} | {cell} |")
    return "\n".join(lines)


def promises_table(tests: Iterable[Test]) -> str:
    """Promise → where it is attacked, with the number of test functions."""
    tests = list(tests)
    lines = ["| | promise | tests that attack it |", "|---|---|---|"]
    for number, what in PROMISES.items():
        lines.append(f"| {number} | {what} | {_where(t for t in tests if number in t.promises) or '**none**'} |")
    return "\n".join(lines)


def _where(tests: Iterable[Test]) -> str:
    """`9: attacks/test_x.py 5, unit/domain/test_y.py 4`, the most first."""
    files = Counter(t.file for t in tests)
    if not files:
        return ""
    shown = ", ".join(f"[{_short(f)}]({f}) {n}" for f, n in sorted(files.items(), key=lambda one: (-one[1], one[0])))
    return f"**{files.total()}**: {shown}"


def _short(file: str) -> str:
    """tests/cluster/attacks/test_rbac.py → attacks/rbac."""
    *folders, name = file.removesuffix(".py").split("/")
    return f"{folders[-1]}/{name.removeprefix('test_')}"


def between(text: str, name: str, content: str) -> str:
    """`text` with what stands between `<!-- name:begin -->` and `<!-- name:end -->` replaced. Raises ValueError without the markers."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"{begin} … {end} is missing")
    return f"{before}{begin}\n{content}\n{end}{after}"


def readme(text: str) -> str:
    """README.md with both tables as the tests are now."""
    tests = collected()
    return between(between(text, "threats", threats_table(tests)), "promises", promises_table(tests))


if __name__ == "__main__":
    print("\n".join(problems(collected())) or "every threat and every promise is tried by a test, or said to be later work")
