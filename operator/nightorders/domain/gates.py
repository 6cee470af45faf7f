"""The chain of gates between a proposal and its execution. Each gate is one function with one reason; the chain reads as a checklist.

Order and meaning are those of docs/safety.md. A gate that `advice` does not need is not asked for a plan that a human will run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..api.meta import Level, line, parse_duration
from ..api.v1alpha1.clusterpolicy import Fleet
from ..api.v1alpha1.common import ActionType, Category
from ..api.v1alpha1.incident import GateResult, Hypothesis, Incident
from ..api.v1alpha1.ledger import Ledger, Outcome, Reservation
from ..api.v1alpha1.policy import Limits, Rule
from . import breaker as breakers
from .autonomy import frozen_by
from .orders import Governing, Orders, Ungoverned
from .ownership import Owner
from .reasons import Reason
from .snapshot import KubeObject
from .verdict import Verdict, passed, refused

HOUR = timedelta(hours=1)
PROTECTED_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease"})


@dataclass(frozen=True)
class Stop:
    """Whether a stop is in force. `unknown` non-empty: cannot tell, which is a stop as well. `undo_denied`: not even an undo may pass."""

    where: str = ""
    unknown: str = ""
    undo_denied: bool = False

    @property
    def in_force(self) -> bool:
        return bool(self.where or self.unknown)


@dataclass(frozen=True)
class DisruptionBudget:
    """A PodDisruptionBudget over pods of the target, and how many more of them may be down right now."""

    name: str
    allowed: int


@dataclass(frozen=True)
class Risk:
    """What the action would put at risk, in healthy pods; and what its preflight says.

    `at_once`: of these, how many may be down at the same time. `namespace_pods`: Ready pods of the namespace; None: nobody counted.
    """

    pods: int
    workload_pods: int
    preflight: Verdict
    at_once: int = 0
    namespace_pods: int | None = None
    disruption_budgets: tuple[DisruptionBudget, ...] = ()


@dataclass(frozen=True)
class Rollout:
    """How the target's rollout stands. `own_change`: the rolling revision is the diagnosed one."""

    under_way: bool
    past_deadline: bool
    own_change: bool
    terminal_since: datetime | None
    progress: str


@dataclass(frozen=True)
class Question:
    """All that the gates look at."""

    namespace: str
    operator_namespace: str
    action: ActionType
    level: Level
    incident: Incident
    orders: Orders
    governing: Governing | Ungoverned
    target: KubeObject
    before_sha256: str
    target_sha256: str
    hypothesis: Hypothesis | None
    rollout: Rollout
    risk: Risk
    stop: Stop
    ledger: Ledger | None
    fleet: Ledger | None
    execution: str
    owner: Owner | None
    fleet_workloads: int | None = None
    shadow: bool = True  # False: as if the policy did not say Shadow, to know what would have happened

    @property
    def limits(self) -> Limits:
        return self.governing.rule.limits if isinstance(self.governing, Governing) else Limits()


def policy(q: Question, now: datetime) -> Verdict:
    if isinstance(q.governing, Ungoverned):
        return refused(q.governing.reason, q.governing.message)
    return passed(f"{q.governing.title} governs")


def enforcement(q: Question, now: datetime) -> Verdict:
    if isinstance(q.governing, Governing) and q.governing.policy.spec.enforcement == "Shadow":
        message = f"RemediationPolicy/{q.governing.policy.metadata.name} is in Shadow: it decides, records, and touches nothing"
        return refused(Reason.SHADOW, message) if q.shadow else passed(message)
    return passed("the policy is enforced")


def stopped(q: Question, now: datetime) -> Verdict:
    if q.stop.unknown:
        return refused(Reason.STOPPED, f"cannot tell whether a stop is in force: {q.stop.unknown}")
    if q.stop.where:
        return refused(Reason.STOPPED, f"ConfigMap nightorders-stop exists in {q.stop.where}; delete it to resume")
    if q.incident.spec.suspend:
        return refused(Reason.SUSPENDED, "spec.suspend is true")
    if q.incident.metadata.deletion_timestamp is not None:
        return refused(Reason.SUSPENDED, "the Incident is being deleted")
    return passed("no stop in force, not suspended")


def protected(q: Question, now: datetime) -> Verdict:
    if q.namespace in PROTECTED_NAMESPACES or q.namespace == q.operator_namespace:
        return refused(Reason.PROTECTED, f"namespace {q.namespace} is protected by default")
    for policy_ in q.orders.over(q.namespace):
        for entry in policy_.spec.protected:
            if (not entry.kinds or q.target.kind in entry.kinds) and entry.selector.matches(q.target.labels):
                return refused(
                    Reason.PROTECTED,
                    f"{q.target.title} is protected by ClusterRemediationPolicy/{policy_.metadata.name} entry {entry.name}",
                )
    return passed("not protected")


def action_allowed(q: Question, now: datetime) -> Verdict:
    if q.level < Level.L2:
        return refused(Reason.LEVEL_TOO_LOW, f"{q.action} holds at {q.level} here: read-only")
    return passed(f"{q.action} is allowed up to {q.level}")


def confidence(q: Question, now: datetime) -> Verdict:
    if q.hypothesis is None or q.hypothesis.grade == "D":
        return refused(Reason.NOT_SURE_ENOUGH, "no origin is shown beyond timing or similarity; a proposal needs grade C or better")
    return passed(f"grade {q.hypothesis.grade}")


def category_known(q: Question, now: datetime) -> Verdict:
    if q.hypothesis is None or q.hypothesis.category in (Category.UNKNOWN, Category.NO_FAULT):
        return refused(Reason.CATEGORY_UNKNOWN, "the mechanism of the fault is not known")
    return passed(f"category {q.hypothesis.category}")


def target_unchanged(q: Question, now: datetime) -> Verdict:
    if q.target_sha256 != q.before_sha256:
        return refused(Reason.TARGET_CHANGED, f"the spec of {q.target.title} is no longer the one that was diagnosed")
    if q.target.terminating:
        return refused(Reason.TARGET_CHANGED, f"{q.target.title} is being deleted")
    return passed("spec and uid as diagnosed")


def owner(q: Question, now: datetime) -> Verdict:
    o = q.owner
    if o is None:
        return passed("owned by nobody who would revert the change")
    refusal = f"{q.target.title} is governed by {o.who}; change it there, a live edit would be reverted or fought"
    if not isinstance(q.governing, Governing) or q.governing.rule.git_ops == "Refuse":
        return refused(Reason.OWNED_ELSEWHERE, refusal)
    if not may_pause(q.governing.rule, q.orders, q.namespace):
        return refused(Reason.OWNED_ELSEWHERE, f"{refusal} (gitOps: Pause needs a ClusterRemediationPolicy with gitOpsPause: TeamDecides)")
    if o.pause is None or not o.confirmed:
        return refused(Reason.OWNED_ELSEWHERE, f"{refusal} (it cannot be paused: {o.problem or 'its inventory does not list the object'})")
    return passed(f"{o.pause.title} lists it and is paused around the action, with all {o.governs} objects that it governs")


def may_pause(rule: Rule, orders: Orders, namespace: str) -> bool:
    """Whether the rule asks for a pause and the platform leaves that to teams: somebody says so, and nobody denies it."""
    said = [c.spec.git_ops_pause for c in orders.over(namespace) if c.spec.git_ops_pause is not None]
    return rule.git_ops == "Pause" and bool(said) and all(s == "TeamDecides" for s in said)


def rollout(q: Question, now: datetime) -> Verdict:
    r, limits = q.rollout, q.limits
    if not r.under_way or limits.during_rollout == "Allow":
        return passed("no rollout in progress that must be left alone")
    if r.own_change and r.past_deadline:
        return passed("the rollout is itself the fault and past its deadline")
    if r.own_change and r.terminal_since is not None:
        due = r.terminal_since + parse_duration(limits.stalled_after)
        held = int((now - r.terminal_since).total_seconds())
        if now >= due:
            return passed(
                f"the rollout is itself the fault; its terminal reason has held for {held} s (stalledAfter {limits.stalled_after})"
            )
        return refused(
            Reason.ROLLOUT_UNDER_WAY,
            f"the terminal reason has held for {held} s of stalledAfter {limits.stalled_after}; acts from {due:%H:%M:%S}Z",
            due,
        )
    return refused(Reason.ROLLOUT_UNDER_WAY, f"{q.target.title} is still rolling out ({r.progress}); duringRollout is Deny")


def freeze(q: Question, now: datetime) -> Verdict:
    governing = q.governing if isinstance(q.governing, Governing) else None
    frozen = list(frozen_by(q.orders, governing, q.namespace, q.action, now))
    if not frozen:
        return passed("no freeze in force")
    who, first = frozen[0]
    until = f"until {first.until:%Y-%m-%d %H:%M:%S}Z" if first.until else "without an end"
    if governing is not None and governing.rule.approval.emergency == "Allow":
        return passed(f"{who} holds {until}: only emergency approvals count")
    return refused(
        Reason.FROZEN, f"{who} holds {until} ({first.because}); advice only", max((f.until for _, f in frozen if f.until), default=None)
    )


def blast_radius(q: Question, now: datetime) -> Verdict:
    r = q.risk
    percent = 100 * r.pods / (r.workload_pods or r.pods or 1)  # of a workload scaled to zero, what still serves is all
    max_pods, max_percent, max_share = _limits(q)
    numbers = f"{r.pods} healthy pods ({percent:.0f} % of {r.workload_pods}) at risk; limits {max_pods} pods, {max_percent} %"
    if r.pods > max_pods or percent > max_percent:
        return refused(Reason.BLAST_RADIUS, numbers)
    if max_share < 100 and r.pods:
        if r.namespace_pods is None:
            return refused(Reason.BLAST_RADIUS, f"the pods of {q.namespace} could not be counted, and a tier limits their share")
        share = 100 * r.pods / max(r.namespace_pods, r.pods)
        numbers += f"; {share:.0f} % of the {r.namespace_pods} Ready pods of {q.namespace}, limit {max_share} %"
        if share > max_share:
            return refused(Reason.BLAST_RADIUS, numbers)
    tight = [b for b in r.disruption_budgets if b.allowed < min(r.at_once, r.pods)]
    if tight:
        message = (
            f"PodDisruptionBudget/{tight[0].name} allows {tight[0].allowed} more pods to be down; the rollout may take down {r.at_once}"
        )
        return refused(Reason.DISRUPTION_BUDGET, message)
    return passed(numbers)


def _limits(q: Question) -> tuple[int, int, int]:
    """(pods, % of the workload, % of the namespace): the rule's, lowered by every tier that the workload belongs to."""
    pods, percent, share = q.limits.max_pods, q.limits.max_percent, 100
    for _, tier in q.orders.tiers_of(q.namespace, q.target.labels):
        pods = min(pods, pods if tier.max_pods is None else tier.max_pods)
        percent = min(percent, percent if tier.max_percent is None else tier.max_percent)
        share = min(share, share if tier.max_percent_of_namespace is None else tier.max_percent_of_namespace)
    return pods, percent, share


def cooldown(q: Question, now: datetime) -> Verdict:
    here = q.target.title
    times = [at for at, workload, _, execution in started(q.ledger, q.action) if workload == here and execution != q.execution]
    if not times:
        return passed("no earlier execution on this workload is remembered")
    due = max(times) + parse_duration(q.limits.cooldown)
    if now < due:
        return refused(
            Reason.COOLDOWN,
            f"last {q.action} on {q.target.title} at {max(times):%H:%M:%S}Z; cooldown {q.limits.cooldown} ends {due:%H:%M:%S}Z",
            due,
        )
    return passed(f"last execution at {max(times):%Y-%m-%d %H:%M}Z, cooldown {q.limits.cooldown}")


def rate(q: Question, now: datetime) -> Verdict:
    recent = sorted(at for at, _, _, execution in started(q.ledger, q.action) if now - at < HOUR and execution != q.execution)
    if len(recent) >= q.limits.per_hour:
        due = recent[-q.limits.per_hour] + HOUR
        return refused(
            Reason.RATE,
            f"{len(recent)} of {q.limits.per_hour} executions of {q.action} in this namespace within the hour; next from {due:%H:%M:%S}Z",
            due,
        )
    return passed(f"{len(recent)} of {q.limits.per_hour} executions within the hour")


def breaker(q: Question, now: datetime) -> Verdict:
    if not isinstance(q.governing, Governing):
        return passed("no policy, no breaker")
    b = breakers.state(q.governing.policy.spec.breaker, q.ledger, q.action, q.target.kind, now, q.execution)
    if b.state == "Open":
        return refused(Reason.BREAKER_OPEN, b.because, b.until)
    if b.state == "HalfOpen" and b.trial:
        return refused(Reason.BREAKER_OPEN, f"execution {b.trial} is the one trial of the half-open breaker", now + timedelta(seconds=30))
    return passed(b.because or f"closed, {b.failures} failures within {q.governing.policy.spec.breaker.within}")


def budget(q: Question, now: datetime) -> Verdict:
    limit = fleet_limit(q.orders)
    fleet = q.fleet.spec if q.fleet else None
    running = [r for r in (fleet.reservations if fleet else ()) if r.execution != q.execution]
    begun = [(at, ns) for at, _, ns, execution in started(q.fleet, None) if now - at < HOUR and execution != q.execution]
    recent = [at for at, _ in begun]
    if len(running) >= limit.max_concurrent:
        return refused(
            Reason.BUDGET, f"{len(running)} of {limit.max_concurrent} executions are running in the fleet", now + timedelta(seconds=30)
        )
    if len(recent) >= limit.per_hour:
        return refused(
            Reason.BUDGET,
            f"{len(recent)} of {limit.per_hour} executions in the fleet within the hour",
            min(recent) + HOUR if recent else None,
        )
    if (refusal := _share(q, limit, running, begun, now)) is not None:
        return refusal
    own = [r for r in (q.ledger.spec.reservations if q.ledger else ()) if r.workload == q.target.title and r.execution != q.execution]
    if own:
        return refused(Reason.BUDGET, f"execution {own[0].execution} already works on {q.target.title}", now + timedelta(seconds=30))
    return passed(f"{len(running)} of {limit.max_concurrent} running, {len(recent)} of {limit.per_hour} within the hour in the fleet")


def _share(q: Question, limit: Fleet, running: list[Reservation], begun: list[tuple[datetime, str]], now: datetime) -> Verdict | None:
    """One namespace's part of the fleet's budget, and the part of the fleet that may be worked on."""
    slots, hourly = (-(-bound * limit.namespace_share // 100) for bound in (limit.max_concurrent, limit.per_hour))
    here = sum(r.namespace == q.namespace for r in running)
    lately = [at for at, ns in begun if ns == q.namespace]
    if here >= slots:
        message = f"{here} of {slots} executions that {q.namespace} may run at once ({limit.namespace_share} % of the fleet's {limit.max_concurrent})"
        return refused(Reason.BUDGET, message, now + timedelta(seconds=30))
    if len(lately) >= hourly:
        share = f"{limit.namespace_share} % of the fleet's {limit.per_hour}"
        message = f"{len(lately)} of {hourly} executions that {q.namespace} may begin within the hour ({share})"
        return refused(Reason.BUDGET, message, min(lately) + HOUR)
    if limit.max_percent_of_workloads < 100:
        if q.fleet_workloads is None:
            return refused(Reason.BUDGET, "the workloads of the cluster could not be counted, and the fleet limits their share")
        most = q.fleet_workloads * limit.max_percent_of_workloads // 100
        if len(running) + 1 > most:
            message = f"{len(running)} of {most} workloads may be worked on ({limit.max_percent_of_workloads} % of {q.fleet_workloads})"
            return refused(Reason.BUDGET, message, now + timedelta(seconds=30))
    return None


def preflight(q: Question, now: datetime) -> Verdict:
    return q.risk.preflight


def fleet_limit(orders: Orders) -> Fleet:
    """The lowest of all fleet limits; the default where none is written."""
    written = [c.spec.fleet for c in orders.cluster if c.spec.fleet is not None]
    return Fleet(
        max_concurrent=min((f.max_concurrent for f in written), default=Fleet().max_concurrent),
        per_hour=min((f.per_hour for f in written), default=Fleet().per_hour),
        namespace_share=min((f.namespace_share for f in written), default=Fleet().namespace_share),
        max_percent_of_workloads=min((f.max_percent_of_workloads for f in written), default=Fleet().max_percent_of_workloads),
    )


def started(ledger: Ledger | None, action: ActionType | None) -> list[tuple[datetime, str, str, str]]:
    """(reserved at, workload, namespace, execution) of everything the Ledger remembers of that action type (None: all)."""
    if ledger is None:
        return []
    entries: list[Reservation | Outcome] = [*ledger.spec.reservations, *(o for o in ledger.spec.outcomes if o.result != "NotApplied")]
    return [(e.at, e.workload, e.namespace, e.execution) for e in entries if action is None or e.action == action]


@dataclass(frozen=True)
class Gate:
    """A named gate. `advice`: also a plan that a human will run must pass it."""

    name: str
    judge: Callable[[Question, datetime], Verdict]
    advice: bool


CHAIN: tuple[Gate, ...] = (
    Gate("policy", policy, advice=True),
    Gate("enforcement", enforcement, advice=True),
    Gate("stop", stopped, advice=False),
    Gate("protected", protected, advice=True),
    Gate("action", action_allowed, advice=True),
    Gate("confidence", confidence, advice=True),
    Gate("category", category_known, advice=True),
    Gate("target", target_unchanged, advice=True),
    Gate("owner", owner, advice=True),
    Gate("rollout", rollout, advice=False),
    Gate("freeze", freeze, advice=False),
    Gate("blast-radius", blast_radius, advice=False),
    Gate("cooldown", cooldown, advice=False),
    Gate("rate", rate, advice=False),
    Gate("breaker", breaker, advice=False),
    Gate("budget", budget, advice=False),
    Gate("preflight", preflight, advice=True),
)


def judge(q: Question, now: datetime) -> tuple[tuple[GateResult, ...], Verdict]:
    """Every gate's result in order, and the verdict: the first refusal that counts at this level, else passed.

    All gates are asked, so that a human sees everything that stands in the way, not only the first.
    """
    verdicts = [(gate, gate.judge(q, now)) for gate in CHAIN]
    results = tuple(GateResult(gate=g.name, allowed=v.allowed, reason=v.reason, message=line(v.message)) for g, v in verdicts)
    counting = [v for g, v in verdicts if not v.allowed and (g.advice or q.level > Level.L2)]
    return results, counting[0] if counting else passed("every gate passed")
