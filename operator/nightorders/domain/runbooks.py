"""What the runbooks of a namespace say to an Incident. Pure.

A runbook ranks within a bound, adds checks, informs and lowers. It never raises: no grade, no level, no right. What it changes is
judged with and without it, and the lower of both acts (threats.md 19).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ..api.meta import Level, line
from ..api.v1alpha1.common import Category
from ..api.v1alpha1.incident import CheckSpec, Hypothesis, Incident, RunbookMatch, Speaker, SymptomReading
from ..api.v1alpha1.policy import Check
from ..api.v1alpha1.runbook import NO_ACTION, Runbook, RunbookSpec, Symptom
from . import promql
from .diagnosis import Diagnosis, Finding
from .plan import fill
from .snapshot import KubeObject

SHOWN = 8  # runbooks of one Incident that are evaluated, shown and may add checks; what lowers is obeyed of all
MOST_CHECKS = 16  # of a plan, the policy's own included
FRESH = timedelta(seconds=60)  # a symptom's value is written again when it changed and is older than this
NEUTRAL = (Category.NO_FAULT, Category.UNKNOWN)
_NAME = 63


@dataclass(frozen=True)
class Matched:
    """One runbook that is about the Incident, and what of it fits. `symptoms`: what came back when they were asked for."""

    runbook: Runbook
    because: str
    symptoms: tuple[SymptomReading, ...] = ()

    @property
    def name(self) -> str:
        return self.runbook.metadata.name

    @property
    def may_rank(self) -> bool:
        """Whether it may speak for its hypothesis: it names one, it is not about everything, and no symptom of it is measured absent."""
        spec = self.runbook.spec
        return spec.hypothesis is not None and not spec.match.empty and all(r.state != "Absent" for r in self.symptoms)


@dataclass(frozen=True)
class Consulted:
    """What the runbooks say in one pass. `unreadable`: those that this version does not understand, each may lower.

    `otherwise`: what stood first without them, where they put something else first; `otherwise_sources`: what that stands on.
    `moves`: runbook → what it moved up, past what. `left_out`: runbooks whose checks do not fit beside the others.
    """

    matched: tuple[Matched, ...] = ()
    unreadable: tuple[str, ...] = ()
    otherwise: Hypothesis | None = None
    otherwise_sources: tuple[str, ...] = ()
    moves: Mapping[str, str] | None = None
    left_out: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[Matched, ...]:
        """The first few by name."""
        return self.matched[:SHOWN]


NOTHING = Consulted()


# ---------------------------------------------------------------- which ones are about it


def matching(
    found: Iterable[Runbook], incident: Incident, labels: Mapping[str, str], hypotheses: Iterable[Hypothesis]
) -> tuple[Matched, ...]:
    """Those whose every written part fits, by name."""
    standing = {h.category for h in hypotheses if not h.refuted and (h.supported_by or h.category in NEUTRAL)}
    hits = ((r, _fits(r, incident, labels, standing)) for r in sorted(found, key=lambda r: r.metadata.name))
    return tuple(Matched(r, line("; ".join(parts), 256)) for r, parts in hits if parts is not None)


def _fits(runbook: Runbook, incident: Incident, labels: Mapping[str, str], standing: Collection[Category]) -> list[str] | None:
    match, parts = runbook.spec.match, []
    if match.alerts:
        signal = incident.spec.signal.name if incident.spec.signal else ""
        if signal not in match.alerts:
            return None
        parts.append(f"alert {signal}")
    if match.categories:
        common = [c for c in match.categories if c in standing]
        if not common:
            return None
        parts.append(f"category {', '.join(common)}")
    if match.selector.match_labels or match.selector.match_expressions:
        if not match.selector.matches(dict(labels)):
            return None
        parts.append(f"labels of {incident.spec.target.title}")
    return parts or ["it is about everything in this namespace"]


# ---------------------------------------------------------------- symptoms


def query_of(symptom: Symptom, variables: Mapping[str, str]) -> str:
    """The query as it is sent; empty for a condition."""
    return fill(symptom.promql, variables) if symptom.promql is not None else ""


def measured(symptom: Symptom, value: float | None, message: str, at: datetime) -> SymptomReading:
    """What an answer of Prometheus means: within the bounds the symptom is there."""
    if value is None:
        return SymptomReading(name=symptom.name, state="NoData", message=line(message or "no answer", 160), at=at)
    low = float(symptom.min) if symptom.min is not None else float("-inf")
    high = float(symptom.max) if symptom.max is not None else float("inf")
    bounds = " and ".join(
        part for part in (f"at least {symptom.min}" if symptom.min else "", f"at most {symptom.max}" if symptom.max else "") if part
    )
    there = low <= value <= high
    return SymptomReading(name=symptom.name, state="Present" if there else "Absent", value=f"{value:.6g}", message=line(bounds), at=at)


def observed(symptom: Symptom, target: KubeObject | None, at: datetime) -> SymptomReading:
    """What the target's own condition says."""
    kind, _, wanted = (symptom.condition or "").partition("=")
    found = target.condition(kind) if target is not None else None
    if found is None:
        missing = "the target could not be looked at" if target is None else f"{target.title} has no condition {kind}"
        return SymptomReading(name=symptom.name, state="NoData", message=line(missing), at=at)
    status = line(str(found.get("status", "")), 32)
    there = status == (wanted or "True")
    return SymptomReading(
        name=symptom.name, state="Present" if there else "Absent", value=f"{kind}={status}", message=f"wanted {wanted or 'True'}", at=at
    )


# ---------------------------------------------------------------- ranking


def ranked(diagnosis: Diagnosis, matched: Iterable[Matched]) -> tuple[Diagnosis, Consulted]:
    """The diagnosis with the explanations that runbooks speak for at most one place up, and what that changed.

    Only among those that stand and that evidence speaks for, only past one of no better grade, never past NoFault, Unknown or another
    that a runbook speaks for. Any number of runbooks moves an explanation no further than one.
    """
    every = tuple(matched)
    spoken: dict[Category, list[str]] = {}
    for m in every[:SHOWN]:
        if m.may_rank and m.runbook.spec.hypothesis is not None:
            spoken.setdefault(m.runbook.spec.hypothesis.category, []).append(m.name)
    order = list(diagnosis.hypotheses)
    moves: dict[str, str] = {}
    i = 1
    while i < len(order):
        above, here = order[i - 1], order[i]
        if _movable(here) and _movable(above) and here.category in spoken and above.category not in spoken and here.grade <= above.grade:
            order[i - 1], order[i] = here, above
            for name in spoken[here.category]:
                moves.setdefault(name, line(f"{here.title} before {above.title}", 256))
            i += 1  # what was passed does not come back in the same pass
        i += 1
    consulted = Consulted(matched=every, moves=moves)
    if not moves:
        return diagnosis, consulted
    after = replace(diagnosis, hypotheses=tuple(order))
    if diagnosis.finding is not Finding.FAULT or after.top == diagnosis.top or diagnosis.top is None or after.top is None:
        return after, consulted
    names = ", ".join(f"Runbook/{n}" for n in spoken[after.top.category])
    told = line(f"{after.top.statement} ({names} put this first; without it: {diagnosis.top.title}.)", 512)
    sources = tuple({e.source for e in diagnosis.evidence if e.id in diagnosis.top.supported_by})
    return replace(after, summary=told, message=told), replace(consulted, otherwise=diagnosis.top, otherwise_sources=sources)


def _movable(h: Hypothesis) -> bool:
    return not h.refuted and bool(h.supported_by) and h.category not in NEUTRAL and h.grade != "D"


# ---------------------------------------------------------------- checks


def checks(matched: Iterable[Matched], variables: Mapping[str, str], own: Sequence[Check]) -> tuple[tuple[CheckSpec, ...], tuple[str, ...]]:
    """The checks that runbooks add to those of the policy, and the runbooks whose checks do not all fit."""
    taken = {c.name for c in own}
    found: list[CheckSpec] = []
    left: list[str] = []
    for i, m in enumerate(matched):
        wanted = m.runbook.spec.verify.checks
        if wanted and (i >= SHOWN or len(own) + len(found) + len(wanted) > MOST_CHECKS):
            left.append(m.name)
            continue
        for c in wanted:
            name = check_name(m.name, c.name, taken)
            taken.add(name)
            query = None if c.promql is None else fill(c.promql, variables)
            found.append(CheckSpec(name=name, promql=query, max=c.max, min=c.min, condition=c.condition, runbook=m.name))
    return tuple(found), tuple(left)


def check_name(runbook: str, check: str, taken: Collection[str]) -> str:
    """`runbook.check`, cut and told apart by a digest where it is too long or in use."""
    name = f"{runbook}.{check}"
    if len(name) <= _NAME and name not in taken:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _NAME - 9]}-{digest}"


# ---------------------------------------------------------------- the level


def orders(consulted: Consulted) -> Iterator[Speaker]:
    """What is written in runbooks, whatever happens at the moment."""
    for m in consulted.matched:
        if m.runbook.spec.never_automatic:
            yield Speaker(who=_who(m), level=Level.L3, because="neverAutomatic: a human must approve")
    if consulted.unreadable:
        # The most that a runbook can do is to lower to L2.
        yield Speaker(who="runbooks", level=Level.L2, because=line(f"cannot read {'; '.join(consulted.unreadable)}"))


def moment(consulted: Consulted, action: str, *, rollout_under_way: bool) -> Iterator[Speaker]:
    """What runbooks say to this very action at this moment. (What `otherwise` means for the level says domain/autonomy.py.)"""
    for m in consulted.matched:
        spec = m.runbook.spec
        if spec.safe_during_rollout == "Deny" and rollout_under_way:
            yield Speaker(who=_who(m), level=Level.L2, because="safeDuringRollout: Deny, and the target's rollout is under way")
        if spec.action is not None and spec.action != action:
            helps = "nothing that the operator could do helps" if spec.action == NO_ACTION else f"{spec.action} is what helps"
            yield Speaker(who=_who(m), level=Level.L3, because=line(f"it says that {helps}, and {action} is planned"))
    if consulted.left_out:
        names = ", ".join(f"Runbook/{n}" for n in consulted.left_out)
        because = f"the checks of {names} do not fit: a plan has {MOST_CHECKS} checks and takes those of {SHOWN} runbooks"
        yield Speaker(who="runbooks", level=Level.L3, because=line(because))


def _who(m: Matched) -> str:
    return line(f"Runbook/{m.name}", 256)


# ---------------------------------------------------------------- what is shown


def shown(consulted: Consulted, before: Sequence[RunbookMatch], now: datetime) -> tuple[RunbookMatch, ...]:
    """The status entries. One that was there keeps its first moment, and a symptom's value while it says the same or is fresh."""
    known = {b.name: b for b in before}
    return tuple(_entry(m, known.get(m.name), (consulted.moves or {}).get(m.name, ""), now) for m in consulted.shown)


def _entry(m: Matched, before: RunbookMatch | None, move: str, now: datetime) -> RunbookMatch:
    spec = m.runbook.spec
    old = {r.name: r for r in before.symptoms} if before else {}
    return RunbookMatch(
        name=m.name,
        because=line(m.because, 256),
        statement=line(spec.hypothesis.statement, 300) if spec.hypothesis else "",
        category=spec.hypothesis.category if spec.hypothesis else None,
        action=spec.action or "",
        approvers=spec.approvers,
        url=spec.url,
        symptoms=tuple(_kept(old.get(r.name), r) for r in m.symptoms),
        ranked=move,
        at=before.at if before else now,
    )


def _kept(old: SymptomReading | None, new: SymptomReading) -> SymptomReading:
    if old is None or old.state != new.state:
        return new
    same = (old.value, old.message) == (new.value, new.message)
    return old if same or new.at - old.at < FRESH else new


def news(before: Sequence[RunbookMatch], after: Sequence[RunbookMatch]) -> Iterator[str]:
    """Lines for the story: what matches now and did not, and what a runbook moved."""
    known = {b.name: b for b in before}
    for m in after:
        if m.name not in known:
            seen = "; ".join(f"{r.name} {r.state}{f' ({r.value})' if r.value else ''}" for r in m.symptoms)
            yield line(f"Runbook/{m.name} matches: {m.because}{f'; symptoms: {seen}' if seen else ''}", 400)
        if m.ranked and (m.name not in known or known[m.name].ranked != m.ranked):
            yield line(f"Runbook/{m.name} ranks {m.ranked}", 400)


# ---------------------------------------------------------------- what is wrong with one


@dataclass(frozen=True)
class Problem:
    """What a runbook leaves open, or says in vain. `field`: below spec; `fix`: what to write."""

    field: tuple[str | int, ...]
    message: str
    fix: str

    @property
    def where(self) -> str:
        """`spec.symptoms[0].promql`."""
        out = "spec"
        for step in self.field:
            out += f"[{step}]" if isinstance(step, int) else f".{step}"
        return out

    def __str__(self) -> str:
        return line(f"{self.where}: {self.message}; {self.fix}")


def problems(spec: RunbookSpec, actions: Collection[str], namespace: str = "") -> list[Problem]:
    """Everything that needs no cluster: what says nothing, what is refused, and the seven questions that have no answer.

    `actions`: the catalogue's types. `namespace`: where the runbook stands; empty: nobody knows yet.
    """
    return [*_vain(spec, actions, namespace), *unanswered(spec)]


def _vain(spec: RunbookSpec, actions: Collection[str], namespace: str) -> Iterator[Problem]:
    if spec.match.empty:
        yield Problem(
            ("match",),
            "it is about every Incident of its namespace, so it ranks nothing",
            "name alerts, categories or labels of the target",
        )
    if spec.hypothesis is not None and spec.hypothesis.category in NEUTRAL:
        what = f"no engine gives {spec.hypothesis.category} as an origin, so there is nothing to rank"
        yield Problem(("hypothesis", "category"), what, "write the mechanism of the fault, or leave hypothesis out")
    if spec.action is not None and spec.action != NO_ACTION and spec.action not in actions:
        known = ", ".join([*sorted(actions), NO_ACTION])
        yield Problem(("action",), f"this version has no action {spec.action}, so every plan needs a human", f"write one of {known}")
    asked: list[tuple[tuple[str | int, ...], str | None]] = [(("symptoms", i, "promql"), s.promql) for i, s in enumerate(spec.symptoms)]
    asked += [(("verify", "checks", i, "promql"), c.promql) for i, c in enumerate(spec.verify.checks)]
    for at, query in asked:
        if query is not None and (why := promql.problem(query, namespace)):
            yield Problem(at, why, "until then it is not asked, and counts as no data")


def unanswered(spec: RunbookSpec) -> Iterator[Problem]:
    """What somebody at night asks a runbook, and this one does not say."""
    if not spec.symptoms:
        yield Problem(
            ("symptoms",), "which metric shows it?", 'add {name: …, promql: "…", min: "…"} or {name: …, condition: Available=False}'
        )
    for i, s in enumerate(spec.symptoms):
        if s.promql is not None and s.min is None and s.max is None:
            yield Problem(("symptoms", i), f"which threshold? {s.name} has a query and no bound", 'add min: "…" or max: "…"')
    if spec.action is None:
        yield Problem(("action",), "which action helps?", f"write an action type, or {NO_ACTION} where the operator can do nothing")
    if spec.safe_during_rollout is None:
        yield Problem(("safeDuringRollout",), "is it safe while a rollout is under way?", "write Allow, or Deny (then advice only)")
    if not spec.approvers.strip():
        yield Problem(("approvers",), "which approver is to be asked?", "write who knows, such as: shop on-call, #shop-oncall")
    if not spec.verify.checks:
        yield Problem(("verify", "checks"), "how does one see that it helped?", "add a check with promql and a bound, or a condition")
    if spec.never_automatic is None:
        yield Problem(("neverAutomatic",), "may it ever run without a human?", "write true (never) or false (as far as the policy says)")


def series_of(spec: RunbookSpec, namespace: str) -> dict[str, tuple[str | int, ...]]:
    """The series that its queries name → the field of the first query that does; queries that would not be sent are left out."""
    found: dict[str, tuple[str | int, ...]] = {}
    asked: list[tuple[tuple[str | int, ...], str | None]] = [(("symptoms", i, "promql"), s.promql) for i, s in enumerate(spec.symptoms)]
    asked += [(("verify", "checks", i, "promql"), c.promql) for i, c in enumerate(spec.verify.checks)]
    for at, query in asked:
        if query is not None and not promql.problem(query, namespace):
            for name in promql.series_names(query):
                found.setdefault(name, at)
    return found


def not_there(name: str, at: tuple[str | int, ...]) -> Problem:
    """Prometheus knows no such series in the namespace."""
    return Problem(at, f"Prometheus has no series {name} of this namespace now", "correct the name, or see that the target is scraped")
