"""The effective level: the minimum of everybody who speaks. Nobody can raise it.

Each speaker is one small function. A speaker that cannot be evaluated speaks for L1; a missing Ledger for L3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from ..api.meta import MAX_LEVEL_ANNOTATION, Level, line
from ..api.v1alpha1.common import ActionType
from ..api.v1alpha1.incident import Autonomy, Hypothesis, Incident, Plan, Score, Speaker
from ..api.v1alpha1.ledger import Ledger, WorkloadRecord
from ..api.v1alpha1.policy import Rule
from . import breaker, freezes, scores, standing
from . import runbooks as rb
from .orders import Governing, Orders, governing_rule
from .ownership import Owner
from .snapshot import KubeObject

if TYPE_CHECKING:
    from .situation import BudgetAnswer

RELABEL_MEMORY = timedelta(hours=1)


@dataclass(frozen=True)
class Voices:
    """All that the speakers look at. `None` where a thing is not known to exist; `unknown` holds what could not be read.

    `caps` are ceilings that the action's preflight found (for example: revision not proven healthy).
    `own_labels` of the target leave out what the operator stamps.
    """

    namespace: str
    action: ActionType
    incident: Incident
    orders: Orders
    target: KubeObject
    namespace_object: KubeObject | None
    ledger: Ledger | None
    fleet: Ledger | None
    hypothesis: Hypothesis | None
    caps: tuple[Speaker, ...]
    plan: Plan | None
    guard_proven: bool
    guard_message: str
    schemas_current: bool
    schemas_message: str
    unknown: tuple[str, ...]
    execution: str = ""
    gaps: tuple[str, ...] = ()
    evidence_at: datetime | None = None
    evidence_sources: tuple[str, ...] = ()
    pods_at_risk: int = 0
    workload_pods: int = 0
    undo: str = "Exact"
    scaled_by: str = ""
    owner: Owner | None = None
    neighbours: int = 0
    changed_at: datetime | None = None
    error_budget: BudgetAnswer | None = None
    runbooks: rb.Consulted = rb.NOTHING
    rollout_under_way: bool = False

    def score(self, which: Callable[[Voices, datetime], Score], now: datetime) -> Score:
        """Trust or risk, worked out once for one moment."""
        if (which, now) not in self._scores:
            self._scores[(which, now)] = which(self, now)
        return self._scores[(which, now)]

    @cached_property
    def _scores(self) -> dict[tuple[object, datetime], Score]:
        return {}

    @cached_property
    def governing(self) -> Governing | None:
        """The one rule that governs, if there is exactly one."""
        found = governing_rule(self.orders, own_labels(self.target.labels), self.action)
        return found if isinstance(found, Governing) else None


def own_labels(labels: dict[str, str]) -> dict[str, str]:
    """Labels without the operator's stamp, which must not look like a change."""
    return {k: v for k, v in labels.items() if not k.startswith("nightorders.dev/")}


def _rule(v: Voices, now: datetime) -> Iterator[Speaker]:
    found = governing_rule(v.orders, own_labels(v.target.labels), v.action)
    if isinstance(found, Governing):
        yield Speaker(who=line(found.title, 256), level=found.rule.level)
    else:
        yield Speaker(who="policies of this namespace", level=Level.L1, because=line(found.message))


def _ceilings(v: Voices, now: datetime) -> Iterator[Speaker]:
    if v.orders.cluster_unreadable:
        yield Speaker(who="cluster policies", level=Level.L2, because=line("cannot read " + "; ".join(v.orders.cluster_unreadable)))
    for policy in v.orders.over(v.namespace):
        for ceiling in policy.spec.ceilings:
            if not ceiling.types or v.action in ceiling.types:
                yield Speaker(who=line(f"ClusterRemediationPolicy/{policy.metadata.name} ceiling {ceiling.name}", 256), level=ceiling.level)


def _max_level(v: Voices, now: datetime) -> Iterator[Speaker]:
    for thing in (v.target, v.namespace_object):
        if thing is None or (value := thing.annotations.get(MAX_LEVEL_ANNOTATION)) is None:
            continue
        who = line(f"annotation {MAX_LEVEL_ANNOTATION} of {thing.title}", 256)
        try:
            yield Speaker(who=who, level=Level(value))
        except ValueError:
            yield Speaker(who=who, level=Level.L1, because=line(f"{value!r} is none of L1, L2, L3, L4", 200))


def _unknown(v: Voices, now: datetime) -> Iterator[Speaker]:
    for what in v.unknown:
        yield Speaker(who="cannot tell", level=Level.L1, because=line(what))


def _schemas(v: Voices, now: datetime) -> Iterator[Speaker]:
    if not v.schemas_current:
        yield Speaker(who="custom resource schemas", level=Level.L1, because=line(v.schemas_message))


def _trust(v: Voices, now: datetime) -> Iterator[Speaker]:
    yield _scored("trust", v.score(scores.trust, now), scores.TRUST_FOR, "at least")


def _risk(v: Voices, now: datetime) -> Iterator[Speaker]:
    yield _scored("risk", v.score(scores.risk, now), scores.RISK_FOR, "at most")


def _scored(who: str, score: Score, thresholds: tuple[tuple[int, Level], ...], word: str) -> Speaker:
    bounds = ", ".join(f"{level} {word} {bound}" for bound, level in thresholds)
    because = "; ".join(f"{c.because} ({c.points})" for c in score.components)
    return Speaker(who=who, level=score.level, value=f"{who} {score.value}", threshold=bounds, because=line(because))


def _earned(v: Voices, now: datetime) -> Iterator[Speaker]:
    """What recorded outcomes have earned; the rule's own level stays the most that can happen."""
    if (g := v.governing) is not None and g.rule.earn is not None:
        s = standing.earned(g.rule.earn, g.rule.level, v.ledger, v.action, v.target.kind)
        value = f"{s.successes} of {s.needed} successes" if s.level < g.rule.level else "all that the rule allows"
        threshold = f"{s.needed} within {g.rule.earn.over} for one level more"
        yield Speaker(who="earned", level=s.level, value=value, threshold=threshold, because=line(s.because))


def _undo(v: Voices, now: datetime) -> Iterator[Speaker]:
    if v.undo == "None":
        yield Speaker(who="undo", level=Level.L3, because=f"{v.action} cannot be undone")


def _freeze(v: Voices, now: datetime) -> Iterator[Speaker]:
    g = v.governing
    for who, frozen in frozen_by(v.orders, g, v.namespace, v.action, now):
        level = Level.L2 if g is None else frozen_level(g.rule)
        until = f"until {frozen.until:%Y-%m-%d %H:%M}Z" if frozen.until else "for ever"
        how = "an emergency approval is needed" if level is Level.L3 else "advice only"
        yield Speaker(who=line(who, 256), level=level, value=until, because=line(f"{frozen.because}; {how}"))


def frozen_level(rule: Rule) -> Level:
    """What a freeze leaves of that rule: emergency approvals where it allows them, else advice."""
    return Level.L3 if rule.approval.emergency == "Allow" else Level.L2


def frozen_by(
    orders: Orders, governing: Governing | None, namespace: str, action: ActionType, now: datetime
) -> Iterator[tuple[str, freezes.Frozen]]:
    """The freezes in force for that action type, the platform's first, each with who wrote it."""
    for c in orders.over(namespace):
        if (frozen := freezes.in_force(c.spec.freezes, action, now)) is not None:
            yield f"ClusterRemediationPolicy/{c.metadata.name} freeze {frozen.name}", frozen
    if governing is not None and (frozen := freezes.in_force(governing.policy.spec.freezes, action, now)) is not None:
        yield f"RemediationPolicy/{governing.policy.metadata.name} freeze {frozen.name}", frozen


def _breaker(v: Voices, now: datetime) -> Iterator[Speaker]:
    if (g := v.governing) is None:
        return
    spec = g.policy.spec.breaker
    b = breaker.state(spec, v.ledger, v.action, v.target.kind, now, v.execution)
    if b.state != "Closed":
        level = Level.L2 if b.state == "Open" else Level.L3
        threshold = f"{spec.failures} within {spec.within}"
        yield Speaker(who="breaker", level=level, value=f"{b.failures} failures", threshold=threshold, because=line(b.because))


def _ledger(v: Voices, now: datetime) -> Iterator[Speaker]:
    if v.fleet is None:  # it knows the budgets, and what there was; an approved execution writes it again
        because = "the fleet's Ledger is not there: budgets, and which policies and Ledgers there were, are not known"
        yield Speaker(who="ledger", level=Level.L3, because=because)
    if v.ledger is not None:
        if (at := _made_anew(v, now)) is not None:
            because = (
                f"the Ledger of this namespace was made anew at {at:%Y-%m-%d %H:%M}Z: what was learned, earned and broken before is lost"
            )
            yield Speaker(who="ledger", level=Level.L2, because=because)
        return
    if v.fleet is not None and v.namespace in v.fleet.spec.namespaces:
        because = "the Ledger of this namespace is gone: what was learned, earned and broken here is not known any more"
        yield Speaker(who="ledger", level=Level.L2, because=because)
    else:
        yield Speaker(who="ledger", level=Level.L3, because="no Ledger in this namespace yet: nothing is remembered of earlier actions")


def _made_anew(v: Voices, now: datetime) -> datetime | None:
    """When this namespace's Ledger was made, if the fleet's remembers executions from before, and it is not long ago.

    A Ledger that is gone is made again by the next note in it, and would hide the loss.
    """
    at = v.ledger.metadata.creation_timestamp if v.ledger else None
    if at is None or v.fleet is None or now - at >= scores.FAILURE_MEMORY:
        return None
    return at if any(o.namespace == v.namespace and o.ended_at < at for o in v.fleet.spec.outcomes) else None


def _cluster_orders_gone(v: Voices, now: datetime) -> Iterator[Speaker]:
    if v.fleet is not None and v.fleet.spec.cluster_policies and not v.orders.cluster and not v.orders.cluster_unreadable:
        because = "there were ClusterRemediationPolicies and none is left; apply one (an empty one will do) to say that this is meant"
        yield Speaker(who="cluster policies", level=Level.L2, because=because)


def _requester(v: Voices, now: datetime) -> Iterator[Speaker]:
    if v.incident.spec.signal is not None:  # admission lets only the operator write it
        return
    yield Speaker(who="incident", level=Level.L3, because="not opened by the operator itself")
    g = v.governing
    if v.incident.spec.requested_by is None and g is not None and separated(g.rule, v.orders, v.namespace):
        yield Speaker(who="incident", level=Level.L2, because="spec.requestedBy is not set, so requester and approver cannot be told apart")


def separated(rule: Rule, orders: Orders, namespace: str) -> bool:
    """Whether the requester is barred from approving: as the rule says within the platform's bounds, else with more than one approver."""
    bounds = [c.spec.approval for c in orders.over(namespace) if c.spec.approval is not None]
    wish = rule.approval.separation_of_duties
    count = max([rule.approval.count, *(b.min_count for b in bounds)])
    return (count > 1 if wish is None else wish) or any(b.separation_of_duties == "Required" for b in bounds)


def _raised_later(v: Voices, now: datetime) -> Iterator[Speaker]:
    """A policy written, or a label moved, while the Incident was open never carries it beyond a human's hand (threats.md 8)."""
    if v.incident.status.autonomy is not None and v.incident.status.autonomy.detected_level < Level.L4:
        yield Speaker(
            who="level at detection",
            level=max(Level.L3, v.incident.status.autonomy.detected_level),
            because=f"{v.incident.status.autonomy.detected_level} when this was first diagnosed; what was raised since stops at L3",
        )


def _staged(v: Voices, now: datetime) -> Iterator[Speaker]:
    if v.plan is not None:
        yield Speaker(who="level at staging", level=v.plan.staged_level, because="a waiting plan is not released by a later raise")


def _relabelled(v: Voices, now: datetime) -> Iterator[Speaker]:
    record = workload_record(v.ledger, v.target.uid)
    labels = own_labels(v.target.labels)
    if record is None:
        return
    if record.labels != labels:
        before, since = record.labels, "just now"
    elif record.changed_at is not None and now - record.changed_at < RELABEL_MEMORY:
        before, since = record.previous_labels, f"at {record.changed_at:%H:%M:%S}"
    else:
        return
    if _rule_level(v, before) < _rule_level(v, labels):
        yield Speaker(
            who="labels", level=Level.L3, because=line(f"labels of {v.target.title} changed {since} to those of a more permissive rule")
        )
    left = {t.name for _, t in v.orders.tiers_of(v.namespace, before)} - {t.name for _, t in v.orders.tiers_of(v.namespace, labels)}
    if left:
        because = f"labels of {v.target.title} changed {since}, out of tier {', '.join(sorted(left))}"
        yield Speaker(who="labels", level=Level.L3, because=line(because))


def _rule_level(v: Voices, labels: dict[str, str]) -> Level:
    found = governing_rule(v.orders, labels, v.action)
    return found.rule.level if isinstance(found, Governing) else Level.L1


def _runbook_orders(v: Voices, now: datetime) -> Iterator[Speaker]:
    yield from rb.orders(v.runbooks)


def _runbooks(v: Voices, now: datetime) -> Iterator[Speaker]:
    """What holds at this moment. Where a runbook changed what stands first, the lower of with and without it acts (threats.md 19)."""
    yield from rb.moment(v.runbooks, v.action.value, rollout_under_way=v.rollout_under_way)
    if (first := v.runbooks.otherwise) is not None:
        without = replace(v, hypothesis=first, evidence_sources=v.runbooks.otherwise_sources)
        trust, risk = scores.trust(without, now), scores.risk(without, now)
        because = f"a runbook put this first; without it {first.title} stands first, trust {trust.value}, risk {risk.value}"
        yield Speaker(who="runbooks", level=min(Level.L3, trust.level, risk.level), because=line(because))


def _caps(v: Voices, now: datetime) -> Iterator[Speaker]:
    yield from v.caps


def _guard(v: Voices, now: datetime) -> Iterator[Speaker]:
    if not v.guard_proven:
        yield Speaker(who="approval guard", level=Level.L2, because=line(v.guard_message))


SPEAKERS: tuple[Callable[[Voices, datetime], Iterator[Speaker]], ...] = (
    _rule,
    _earned,
    _ceilings,
    _cluster_orders_gone,
    _max_level,
    _unknown,
    _schemas,
    _undo,
    _trust,
    _risk,
    _freeze,
    _breaker,
    _ledger,
    _requester,
    _raised_later,
    _staged,
    _relabelled,
    _runbook_orders,
    _runbooks,
    _caps,
    _guard,
)


def workload_record(ledger: Ledger | None, uid: str) -> WorkloadRecord | None:
    """What the Ledger remembers of a workload's labels."""
    return None if ledger is None else next((w for w in ledger.spec.workloads if w.uid == uid), None)


def ordered(v: Voices, now: datetime) -> Level:
    """What is written, without what is merely so at the moment: rule, ceilings, max-level annotations, neverAutomatic of runbooks."""
    return min(s.level for speaker in (_rule, _ceilings, _max_level, _runbook_orders) for s in speaker(v, now))


def effective(v: Voices, now: datetime) -> Autonomy:
    """The minimum of all speakers, with each of them named, the lowest first."""
    spoken = sorted((s for speaker in SPEAKERS for s in speaker(v, now)), key=lambda s: s.level)
    before = v.incident.status.autonomy
    return Autonomy(
        level=spoken[0].level,
        trust=v.score(scores.trust, now),
        risk=v.score(scores.risk, now),
        detected_level=before.detected_level if before else ordered(v, now),
        decided_by=tuple(spoken[:32]),
    )
