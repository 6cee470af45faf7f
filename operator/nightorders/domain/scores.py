"""Trust and risk: two independent scores, each with named components; either alone can lower the level.

Trust begins at 100 and every doubt takes points away; risk begins at 0 and everything at stake adds some. The points are rules of
conduct, not statistics: they are chosen so that any one serious doubt asks for a human, and several small ones do, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from ..api.meta import TAKE_PREFIX, Level, line
from ..api.v1alpha1.common import Category
from ..api.v1alpha1.incident import Component, Score
from .breaker import FAILED

if TYPE_CHECKING:
    from .autonomy import Voices

FAILURE_MEMORY = timedelta(hours=24)
HUMAN_MEMORY = timedelta(minutes=15)
FRESH, STALE = timedelta(seconds=60), timedelta(seconds=300)
GRADE_POINTS = {"A": 0, "B": 30, "C": 45, "D": 100}
TRUST_FOR = ((80, Level.L4), (50, Level.L3), (20, Level.L2))
RISK_FOR = ((20, Level.L4), (50, Level.L3), (80, Level.L2))

Part = Callable[["Voices", datetime], Iterator[Component]]


# ---------------------------------------------------------------- trust


def grade(v: Voices, now: datetime) -> Iterator[Component]:
    if v.hypothesis is None:
        yield Component(name="grade", points=100, because="no origin can be shown")
    elif points := GRADE_POINTS[v.hypothesis.grade]:
        yield Component(name="grade", points=points, because=f"diagnosis has grade {v.hypothesis.grade}; acting alone needs grade A")


def known(v: Voices, now: datetime) -> Iterator[Component]:
    if v.hypothesis is not None and v.hypothesis.category in (Category.UNKNOWN, Category.NO_FAULT):
        yield Component(name="class", points=100, because="the mechanism of the fault is not known")


def coverage(v: Voices, now: datetime) -> Iterator[Component]:
    if v.gaps:
        yield Component(name="coverage", points=min(20, 5 * len(v.gaps)), because=line(f"not looked at: {', '.join(v.gaps)}"))


def freshness(v: Voices, now: datetime) -> Iterator[Component]:
    if v.evidence_at is None:
        yield Component(name="freshness", points=100, because="nobody knows how old the evidence is")
    elif (age := now - v.evidence_at) < -FRESH:
        yield Component(
            name="freshness", points=100, because="the evidence is from the future: a clock was set, nobody knows how old it is"
        )
    elif age > FRESH:
        yield Component(name="freshness", points=100 if age > STALE else 30, because=f"the evidence is {int(age.total_seconds())} s old")


def provenance(v: Voices, now: datetime) -> Iterator[Component]:
    if v.hypothesis is not None and v.hypothesis.supported_by and not v.evidence_sources:
        yield Component(name="provenance", points=30, because="the evidence that it cites is not at hand")
    elif v.evidence_sources == ("Logs",):
        yield Component(name="provenance", points=30, because="stands on log text alone, which whoever runs the pod can write")


def record(v: Voices, now: datetime) -> Iterator[Component]:
    """What did not help the last time is not repeated alone, also when its Incident was deleted meanwhile."""
    book = v.ledger.spec if v.ledger else None
    if book is None:
        return
    here = v.target.title
    failed = [
        o
        for o in book.outcomes
        if o.workload == here
        and o.action == v.action
        and o.result in FAILED
        and o.execution != v.execution
        and now - o.ended_at < FAILURE_MEMORY
    ]
    if failed:
        at = f"{failed[-1].ended_at:%Y-%m-%d %H:%M}Z"
        yield Component(name="record", points=30, because=f"{v.action} here ended as {failed[-1].result} at {at}")
    no = [r for r in book.rejections if (r.workload, r.action) == (v.target.title, v.action) and now - r.at < FAILURE_MEMORY]
    if no:
        yield Component(name="rejected", points=30, because=line(f"{no[-1].by} rejected {v.action} here at {no[-1].at:%Y-%m-%d %H:%M}Z"))


# ---------------------------------------------------------------- risk


def blast_radius(v: Voices, now: datetime) -> Iterator[Component]:
    if v.pods_at_risk:
        percent = min(100, 100 * v.pods_at_risk // (v.workload_pods or v.pods_at_risk))
        yield Component(
            name="blast-radius", points=percent // 5, because=f"{v.pods_at_risk} healthy pods at risk, {percent} % of the workload"
        )


def tier(v: Voices, now: datetime) -> Iterator[Component]:
    for policy, entry in v.orders.tiers_of(v.namespace, v.target.labels):
        if entry.risk:
            who = f"ClusterRemediationPolicy/{policy.metadata.name} tier {entry.name}"
            yield Component(name="tier", points=entry.risk, because=line(who))


def ownership(v: Voices, now: datetime) -> Iterator[Component]:
    if v.scaled_by:
        yield Component(name="autoscaler", points=5, because=line(f"{v.scaled_by} scales it"))
    if v.owner is not None:
        yield Component(name="owner", points=30, because=line(f"governed by {v.owner.who}; {v.owner.governs} objects would be paused"))


def error_budget(v: Voices, now: datetime) -> Iterator[Component]:
    b = v.error_budget
    if b is None:
        return
    if b.left is None:
        yield Component(name="error-budget", points=30, because=line(f"its query has no answer: {b.message}"))
    elif b.left < b.least:
        yield Component(name="error-budget", points=30, because=f"{b.left:.1%} of the error budget left; {b.least:.1%} is asked for")


def neighbours(v: Voices, now: datetime) -> Iterator[Component]:
    if v.neighbours:
        yield Component(
            name="concurrent", points=min(20, 4 * v.neighbours), because=f"{v.neighbours} other Incidents are open in this namespace"
        )


def victim(v: Voices, now: datetime) -> Iterator[Component]:
    if v.hypothesis is not None and v.hypothesis.object != v.target.title:
        yield Component(name="victim", points=100, because=line(f"the origin is {v.hypothesis.object}, not {v.target.title}"))


def human(v: Voices, now: datetime) -> Iterator[Component]:
    if v.changed_at is not None and now - v.changed_at < HUMAN_MEMORY:
        because = f"somebody changed {v.target.title} at {v.changed_at:%H:%M:%S}Z, after the release that fails: a human may be at work"
        yield Component(name="human", points=60, because=line(because))


def taken(v: Voices, now: datetime) -> Iterator[Component]:
    who = taken_by(v.incident.metadata.annotations)
    if who:
        yield Component(name="taken", points=60, because=line(f"{who} took this Incident"))


def taken_by(annotations: dict[str, str]) -> str:
    """Who said `nightorders take`; admission has checked that the name is the writer's own. Empty: nobody."""
    return next((v for k, v in sorted(annotations.items()) if k.startswith(TAKE_PREFIX) and v), "")


TRUST: tuple[Part, ...] = (grade, known, coverage, freshness, provenance, record)
RISK: tuple[Part, ...] = (blast_radius, tier, ownership, error_budget, neighbours, victim, human, taken)


def trust(v: Voices, now: datetime) -> Score:
    """100 less every doubt."""
    parts = tuple(c for part in TRUST for c in part(v, now))
    value = max(0, 100 - sum(c.points for c in parts))
    return Score(value=value, level=next((level for least, level in TRUST_FOR if value >= least), Level.L1), components=parts[:16])


def risk(v: Voices, now: datetime) -> Score:
    """0 and everything at stake."""
    parts = tuple(c for part in RISK for c in part(v, now))
    value = min(100, sum(c.points for c in parts))
    return Score(value=value, level=next((level for most, level in RISK_FOR if value <= most), Level.L1), components=parts[:16])
