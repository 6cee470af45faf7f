"""The end: the table from the audit log, what was wrong, and where to look further."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.audit import Request, Tally, tally
from demo.world import OPERATOR

HEADINGS = ("ACT", "NAMESPACE", "CHANGES", "EXPECTED", "REFUSED", "DRY RUNS", "OWN RECORDS")
ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Expected:
    """What the audit log must say about an act."""

    act: str
    namespace: str
    changes: int


@dataclass(frozen=True)
class Count:
    """The table, the changes behind its numbers, and which numbers are wrong."""

    rows: tuple[tuple[str, ...], ...]
    changes: tuple[str, ...]
    problems: tuple[str, ...]


def count(requests: Iterable[Request], expected: Sequence[Expected], user: str = OPERATOR) -> Count:
    """The operator's changes per act. What it did anywhere else must be nothing."""
    found = tally(requests, user)
    known = {one.namespace for one in expected}
    others = [t for namespace, t in found.items() if namespace not in known]
    rest = Tally(
        changes=tuple(r for t in others for r in t.changes),
        refused=tuple(r for t in others for r in t.refused),
        dry_runs=sum(t.dry_runs for t in others),
        own=sum(t.own for t in others),
    )
    lines = [(one.act, one.namespace, one.changes, found.get(one.namespace, Tally())) for one in expected]
    lines.append((ELSEWHERE, "-", 0, rest))
    problems = []
    for act, namespace, wanted, t in lines:
        if len(t.changes) != wanted:
            problems.append(f"audit log, {act}: {len(t.changes)} changes by the operator, {wanted} expected: {_list(t.changes)}")
        if t.refused:
            problems.append(f"audit log, {act}: the API server refused the operator in {namespace}: {_list(t.refused)}")
    return Count(
        rows=tuple(
            (act, namespace, str(len(t.changes)), str(wanted), str(len(t.refused)), str(t.dry_runs), str(t.own))
            for act, namespace, wanted, t in lines
        ),
        changes=tuple(f"{r.at[11:19]}Z  {r.namespace}: {r.what}, answered {r.code}" for _, _, _, t in lines for r in t.changes),
        problems=tuple(problems),
    )


def _list(requests: Iterable[Request]) -> str:
    return "; ".join(f"{r.what} ({r.code})" for r in requests) or "none"


def by_people(requests: Iterable[Request], people: Iterable[str], namespaces: Iterable[str]) -> tuple[str, ...]:
    """Changes of Deployments that people made, in the same log."""
    who, where = set(people), set(namespaces)
    return tuple(
        f"{r.at[11:19]}Z  {r.namespace}: {r.user}, {r.what}"
        for r in requests
        if r.user in who and r.namespace in where and r.resource == "deployments" and r.verb == "patch" and r.code < 300 and not r.dry_run
    )


def as_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns under their headings; numbers to the right."""
    lines = [HEADINGS, *rows]
    widths = [max(len(row[i]) for row in lines) for i in range(len(HEADINGS))]
    return ["   ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))) for row in lines]


def recount(audit_log: Path) -> str:
    """The same number with nothing of ours: the operator's patches of Deployments that were no dry runs, with grep."""
    return (
        f'cat {audit_log} | grep \'"user":{{"username":"{OPERATOR}"\' | grep \'"verb":"patch"\' '
        "| grep '\"resource\":\"deployments\"' | grep -vc 'dryRun=All'"
    )
