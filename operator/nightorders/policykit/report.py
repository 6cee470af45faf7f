"""What a terminal, a script and the two usual forges want to read: text, JSON, GitHub annotations, GitLab code quality."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..api.meta import line
from ..domain import whatif
from .amounts import Comparison
from .files import Problem, Source
from .trial import Result

Json = dict[str, Any]
CUT = 80


@dataclass(frozen=True)
class Finding:
    """One thing to show beside a line of a file. `check` names what found it."""

    file: str
    line: int
    check: str
    message: str
    severity: str = "major"
    level: str = "error"


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Columns of their own width; the last one is not padded."""
    if not rows:
        return []
    widths = [max(len(line(r[i], 4096)) for r in rows) for i in range(len(rows[0]) - 1)]
    out = []
    for r in rows:
        cells = [line(c, 4096) for c in r]
        out.append(indent + "  ".join([*(c.ljust(w) for c, w in zip(cells, widths, strict=False)), cells[-1]]).rstrip())
    return out


# ------------------------------------------------------------ problems in the files


def problem_findings(problems: Iterable[Problem]) -> list[Finding]:
    """Bad input, for the forges."""
    return [Finding(p.file, p.line, "nightorders-input", str(p).partition(": ")[2], "blocker") for p in problems]


# ------------------------------------------------------------ policy test


def test_text(results: Sequence[Result], untouched: Sequence[tuple[str, Source]] | None) -> str:
    """A table for each file, and below each failed case what differs."""
    out: list[str] = []
    for file in dict.fromkeys(r.trial.source.file for r in results):
        out.append(line(file, 4096))
        here = [r for r in results if r.trial.source.file == file]
        rows = table([_row(r) for r in here])
        for r, row in zip(here, rows, strict=True):
            out.append(row)
            for d in r.differences:
                because = f" because {d.because}" if d.because else ""
                out.append("            " + line(f"{d.what}: expected {d.expected}, got {d.got}{because}", 4096))
        out.append("")
    if untouched is not None:
        out.append("touched by no case:" if untouched else "every rule, freeze, ceiling, tier and protected entry is touched by a case")
        out += table([(title, f"{source.file}:{source.line()}") for title, source in untouched])
        out.append("")
    failed = sum(not r.ok for r in results)
    out.append(f"{len(results) - failed} ok, {failed} failed")
    return "\n".join(out) + "\n"


def _row(r: Result) -> tuple[str, ...]:
    j = r.judgement
    who, *more = dict.fromkeys(s.who for s in whatif.deciders(j))
    who += f" and {len(more)} more" if more else ""
    if r.outcome == "Refused":
        gate = next((g.gate for g in j.results if not g.allowed and g.reason == j.verdict.reason), "")
        who = f"gate {gate}: {j.verdict.reason}"
    return ("ok" if r.ok else "FAILED", r.trial.case.name, j.level.level, r.outcome, who if len(who) <= CUT else who[: CUT - 1] + "…")


def test_json(results: Sequence[Result], untouched: Sequence[tuple[str, Source]] | None) -> Json:
    """Everything, for scripts."""
    failed = sum(not r.ok for r in results)
    made: Json = {"passed": len(results) - failed, "failed": failed, "cases": [_case_json(r) for r in results]}
    if untouched is not None:
        made["untouched"] = [{"what": title, "file": s.file, "line": s.line()} for title, s in untouched]
    return made


def _case_json(r: Result) -> Json:
    j = r.judgement
    return {
        "name": r.trial.case.name,
        "file": r.trial.source.file,
        "line": r.trial.source.line(),
        "ok": r.ok,
        "level": j.level.level,
        "outcome": r.outcome,
        "verdict": {"allowed": j.verdict.allowed, "reason": j.verdict.reason.value, "message": j.verdict.message},
        "decidedBy": [s.wire() for s in j.level.decided_by],
        "gates": [g.wire() for g in j.results],
        "needs": j.needs.wire(),
        "trust": j.level.trust.wire() if j.level.trust else None,
        "risk": j.level.risk.wire() if j.level.risk else None,
        "differences": [
            {"what": d.what, "expected": d.expected, "got": d.got, "because": d.because, "line": d.line} for d in r.differences
        ],
    }


def test_findings(results: Sequence[Result]) -> list[Finding]:
    """Failed expectations, for the forges."""
    return [
        Finding(
            r.trial.source.file,
            d.line,
            "nightorders-policy-test",
            f"{r.trial.case.name}: {d.what}: expected {d.expected}, got {d.got}{f' because {d.because}' if d.because else ''}",
        )
        for r in results
        for d in r.differences
    ]


# ------------------------------------------------------------ policy diff


def diff_text(c: Comparison) -> str:
    """Field by field, then what it amounts to."""
    if not c.changes and not c.amounts:
        return "no difference\n"
    out: list[str] = []
    for who in dict.fromkeys(x.who for x in c.changes):
        out.append(line(who))
        out += table([(x.effect, x.what, f"{x.old} → {x.new}" + (f"  ({x.why})" if x.why else "")) for x in c.changes if x.who == who])
    if c.amounts:
        out += ["", "What that amounts to"]
        out += table([(a.effect, a.workloads, f"{a.action} {a.what}", f"{a.old} → {a.new}") for a in c.amounts])
    out += ["", *(f"note: {line(n)}" for n in c.notes)]
    effects = [x.effect for x in c.changes] + [a.effect for a in c.amounts]
    out.append(f"{effects.count('RAISES')} raised, {effects.count('lowers')} lowered, {effects.count('changes')} changed")
    return "\n".join(out) + "\n"


def diff_json(c: Comparison) -> Json:
    """Everything, for scripts."""
    return {
        "raised": c.raised,
        "changes": [
            {
                "effect": x.effect,
                "who": x.who,
                "what": x.what,
                "old": str(x.old),
                "new": str(x.new),
                "why": x.why,
                "file": x.file,
                "line": x.line,
            }
            for x in c.changes
        ],
        "amounts": [
            {"effect": a.effect, "workloads": a.workloads, "action": str(a.action), "what": a.what, "old": str(a.old), "new": str(a.new)}
            for a in c.amounts
        ],
        "notes": list(c.notes),
    }


def diff_findings(c: Comparison, *, allowed: bool) -> list[Finding]:
    """What is raised (a warning where that is allowed), for the forges."""
    level, severity = ("warning", "minor") if allowed else ("error", "major")
    found = [
        Finding(
            x.file,
            x.line,
            "nightorders-policy-raise",
            f"RAISES {x.who} {x.what}: {x.old} → {x.new}{f' ({x.why})' if x.why else ''}",
            severity,
            level,
        )
        for x in c.changes
        if x.effect == "RAISES"
    ]
    place = found[0] if found else next((Finding(x.file, x.line, "", "") for x in c.changes), None)
    if place is not None:
        found += [
            Finding(
                place.file,
                place.line,
                "nightorders-policy-raise",
                f"RAISES {a.workloads}: {a.action} {a.what} {a.old} → {a.new}",
                severity,
                level,
            )
            for a in c.amounts
            if a.effect == "RAISES"
        ]
    return found


# ------------------------------------------------------------ the forges


def github(findings: Iterable[Finding]) -> str:
    """Workflow commands: GitHub shows each beside its line."""

    def prop(text: str) -> str:
        return data(text).replace(":", "%3A").replace(",", "%2C")

    def data(text: str) -> str:
        return line(text, 4096).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    return "".join(f"::{f.level} file={prop(f.file)},line={f.line},title={prop(f.check)}::{data(f.message)}\n" for f in findings)


def gitlab(findings: Iterable[Finding]) -> list[Json]:
    """A code-quality report (artifacts:reports:codequality)."""
    return [
        {
            "description": line(f.message, 4096),
            "check_name": f.check,
            "fingerprint": hashlib.sha256(f"{f.check}|{f.file}|{f.message}".encode("utf-8", "surrogatepass")).hexdigest(),
            "severity": f.severity,
            "location": {"path": f.file, "lines": {"begin": f.line}},
        }
        for f in findings
    ]
