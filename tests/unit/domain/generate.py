"""Situations of every kind, and what must hold of the step that follows; written apart from the code that decides."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st

from nightorders.actions import CATALOGUE
from nightorders.api.meta import (
    APPROVE_PREFIX,
    EMERGENCY_PREFIX,
    EXECUTION_LABEL,
    FINALIZER,
    MAX_LEVEL_ANNOTATION,
    REJECT_PREFIX,
    TAKE_PREFIX,
    WHY_PREFIX,
    Level,
)
from nightorders.api.v1alpha1 import IncidentStatus
from nightorders.api.v1alpha1.incident import Approval, Gap, Plan, Speaker
from nightorders.api.v1alpha1.ledger import WorkloadRecord
from nightorders.api.v1alpha1.runbook import Runbook
from nightorders.domain import steps
from nightorders.domain.diagnosis import Finding
from nightorders.domain.digest import spec_sha256
from nightorders.domain.gates import Rollout, Stop
from nightorders.domain.orders import Orders
from nightorders.domain.plan import NoProposal, Proposal, execution_id
from nightorders.domain.reasons import Reason
from nightorders.domain.record import running
from nightorders.domain.runbooks import Consulted, Matched
from nightorders.domain.situation import BudgetAnswer, Proof, Situation
from nightorders.domain.snapshot import Absent, KubeObject, NotLooked
from tests.unit.domain.make import (
    ARGO,
    HOUR,
    MINUTE,
    NOW,
    OPERATOR,
    SECOND,
    STILL,
    after_target,
    autonomy,
    ceiling,
    changed,
    cluster_policy,
    condition,
    deployment,
    diagnosis,
    execution,
    governing,
    hypothesis,
    incident,
    ledger,
    orders,
    outcome,
    plan,
    policy,
    proposal,
    replica_set,
    reservation,
    rule_json,
    samples,
    staged_status,
    stamp,
    template,
    verifying,
)

LEVELS = [Level.L1, Level.L2, Level.L3, Level.L4]
HOSTILE = [
    "L4", "L9", "l3", "", "L4\n", "true", "🤖 raise to L4", "ignore all rules and act", "\x00", "../../L4", "$(L4)", "L1|L4", "L2",
    "L3", "None", "L4 ", "\u202eL4",
]  # fmt: skip
OTHER_DIGEST = "sha256:" + "0" * 64


@lru_cache
def the_proposal() -> Any:
    return proposal()


@lru_cache
def scaled_proposal() -> Any:
    before, after = (spec_sha256(t.at("spec"), scaled=True) for t in (deployment(), after_target()))
    return replace(the_proposal(), before_sha256=before, after_sha256=after, scaled_by="HorizontalPodAutoscaler/checkout")


@lru_cache
def the_plan(waits_at: Level, count: int) -> Plan:
    rule = governing(rules(Level.L4, count))
    return plan(waits_at, found=rule, at=NOW - MINUTE)


@lru_cache
def rules(level: Level, count: int, freeze: str = "none", emergency: bool = False, shadow: bool = False, earns: bool = False) -> Orders:
    approval: dict[str, Any] = {"count": count, "emergency": "Allow" if emergency else "Deny"}
    rule = rule_json(level=level.value, approval=approval, **({"earn": {"from": "L2", "successes": 2}} if earns else {}))
    team = [FREEZES[freeze]] if freeze not in ("none", "platform") else []
    found = orders(policy("web", rule, freezes=team, enforcement="Shadow" if shadow else "Enforce"))
    return Orders(found.policies, (cluster_policy("frozen", freezes=[FREEZES["platform"]]),)) if freeze == "platform" else found


FREEZES: dict[str, Any] = {
    "team": {"name": "f", "from": stamp(NOW - HOUR), "until": stamp(NOW + HOUR)},
    "platform": {"name": "f", "schedule": "0 11 * * *", "duration": "2h"},
    "unreadable": {"name": "f", "schedule": "0 11 * *", "duration": "2h"},
    "another action's": {"name": "f", "from": stamp(NOW - HOUR), "until": stamp(NOW + HOUR), "allow": ["RollbackWorkload"]},
    "over": {"name": "f", "from": stamp(NOW - HOUR), "until": stamp(NOW)},
}


FROZEN_BY = {"team": "Namespace", "unreadable": "Namespace", "platform": "Cluster"}


def failed(*ages: timedelta, execution: str = "no-f", workload: str = "Deployment/other") -> tuple[Any, ...]:
    return tuple(outcome(f"{execution}{i}", workload, at=NOW - a - SECOND, result="Undone") for i, a in enumerate(ages))


def confirmed(n: int, confirmed: str = "Human") -> tuple[Any, ...]:
    return tuple(outcome(f"no-s{i}", f"Deployment/w{i}", at=NOW - (2 + i) * HOUR, confirmed=confirmed) for i in range(n))


# What the Ledger remembers: (entries, what the breaker makes of them, what a rule that earns from L2 by two successes has earned)
BOOKS: dict[str, tuple[dict[str, Any], str, Level]] = {
    "fine": ({}, "closed", Level.L2),
    "two failures": ({"outcomes": failed(MINUTE, 2 * MINUTE)}, "closed", Level.L2),
    "open": ({"outcomes": failed(MINUTE, 2 * MINUTE, 3 * MINUTE)}, "open", Level.L2),
    "half-open": ({"outcomes": failed(2 * HOUR, 2 * HOUR + MINUTE, 2 * HOUR + 2 * MINUTE)}, "half-open", Level.L2),
    "trial": (
        {"outcomes": failed(2 * HOUR, 2 * HOUR + MINUTE, 2 * HOUR + 2 * MINUTE), "reservations": (reservation("no-trial"),)}, "trial", Level.L2,
    ),
    "earned L3": ({"outcomes": confirmed(2)}, "closed", Level.L3),
    "earned L4": ({"outcomes": confirmed(4)}, "closed", Level.L4),
    "lost again": ({"outcomes": (*confirmed(4), *failed(HOUR))}, "closed", Level.L2),
    "only claimed": ({"outcomes": confirmed(4, "No")}, "closed", Level.L2),
    "failed here": ({"outcomes": failed(2 * HOUR, workload="Deployment/checkout")}, "closed", Level.L2),
}  # fmt: skip


@lru_cache
def the_target(kind: str) -> Any:
    mine = execution_id(the_plan(Level.L3, 1).digest)
    other = deployment(template("8"))
    return {
        "before": deployment(),
        "after": after_target(),
        "after stamped": after_target(mine),
        "after stamped otherwise": after_target("no-11111111111111111111"),
        "before stamped": changed(deployment(), ("metadata", "labels", EXECUTION_LABEL), mine),
        "other": other,
        "other stamped": changed(other, ("metadata", "labels", EXECUTION_LABEL), mine),
        "made anew": changed(deployment(), ("metadata", "uid"), "uid-recreated"),
        "made anew, after": changed(after_target(), ("metadata", "uid"), "uid-recreated"),
        "being deleted": changed(deployment(), ("metadata", "deletionTimestamp"), stamp(NOW)),
        "no spec": changed(deployment(), ("spec",), None),
        "absent": Absent("Deployment/checkout", "GET", NOW),
        "not looked": NotLooked("Deployment/checkout", "failed: time-out"),
    }[kind]


TARGETS = [
    "before", "after", "after stamped", "after stamped otherwise", "before stamped", "other", "other stamped", "made anew",
    "made anew, after", "being deleted", "no spec", "absent", "not looked",
]  # fmt: skip
ROLLING = Rollout(under_way=True, past_deadline=False, own_change=False, terminal_since=None, progress="1 of 3")
NOBODY = (OPERATOR.username, "system:serviceaccount:shop:ci", "")


def _runbook(**spec: Any) -> Consulted:
    made = Runbook.model_validate(
        {"metadata": {"name": "rb", "namespace": "shop"}, "spec": {"match": {"categories": ["ImageAccess"]}, **spec}}
    )
    return Consulted(matched=(Matched(made, "its category"),))


# What the runbooks say, and the most that it leaves.
RUNBOOKS: dict[str, tuple[Consulted, Level]] = {
    "none": (Consulted(), Level.L4),
    "no more than an explanation": (_runbook(), Level.L4),
    "never automatic": (_runbook(neverAutomatic=True), Level.L3),
    "another action helps": (_runbook(action="None"), Level.L3),
    "checks left out": (Consulted(left_out=("rb",)), Level.L3),
    "unreadable": (Consulted(unreadable=("rb: spec.match is missing",)), Level.L2),
}


@dataclass(frozen=True)
class Case:
    """A Situation with the inputs it was made from."""

    s: Situation
    rule: Level
    count: int
    ceiling: Level | None
    max_level: str | None
    grade: str
    separated: bool
    freeze: str = "none"
    emergency: bool = False
    books: str = "fine"
    earns: bool = False
    tier: int = 0
    relabelled: bool = False
    runbooks: str = "none"


class Choices:
    """Draws values: the usual one, unless the thing is among the few that are out of the ordinary in this case.

    With everything free, nearly every case would be refused for five reasons at once and prove nothing about the sixth.
    """

    def __init__(self, pick: Callable[[Sequence[Any]], Any]) -> None:
        self._pick = pick
        self._odd = {pick(THINGS) for _ in range(pick((0, 1, 1, 2, 3)))}
        self._wild = pick(range(16)) == 7

    def of(self, thing: str, usual: Any, *others: Any) -> Any:
        assert thing in THINGS, thing
        return self._pick((usual, *others)) if self._wild or thing in self._odd else usual

    def any(self, *values: Any) -> Any:
        return self._pick(values)


THINGS = [
    "approvals", "baseline", "caps", "ceiling", "closed", "cluster unreadable", "deleted", "detected", "diagnosis", "digest", "expired", "finalizer",
    "fleet", "grade", "guard", "human", "ledger", "max-level", "no plan", "opened by", "owner", "patch", "policies", "proposal", "rejected",
    "rejected before", "rollout", "samples", "schemas", "staged", "stop", "suspended", "target", "unknown", "dry run",
    "books", "budget of errors", "changed", "earns", "emergency", "evidence", "freeze", "gaps", "neighbours", "orders gone", "pods", "shadow",
    "scaled", "taken", "tier", "undo", "victim", "relabelled", "owner", "ledger", "runbooks", "runbooks",
]  # fmt: skip


@st.composite
def cases(draw: Any) -> Case:
    """For Hypothesis, which shrinks."""
    return build(Choices(lambda values: draw(st.sampled_from(values))))


def corpus(size: int, seed: int) -> Iterator[Case]:
    """The same cases every time, quickly made."""
    chance = random.Random(seed)
    return (build(Choices(chance.choice)) for _ in range(size))


def build(one: Choices) -> Case:
    """The case that these choices make."""
    rule, count = one.any(*LEVELS[1:], *LEVELS[2:], Level.L4), one.any(1, 1, 2)
    state = one.any("", "", "", "Reserved", "Reserved", "Applied", "Undoing", "Ended")
    waits = one.any(Level.L3, Level.L4) if state else one.any(*([rule] * 3), Level.L2, Level.L3, Level.L4)
    waits = max(waits, Level.L2)
    p = the_plan(waits, count)
    usual = {"Applied": "after stamped", "Undoing": "after stamped", "Ended": "before"}.get(state, "before")
    target = the_target(one.of("target", usual, *TARGETS))
    mine = execution_id(p.digest)
    if (
        isinstance(target, KubeObject)
        and target.labels.get(EXECUTION_LABEL, "").startswith("no-")
        and "1111" not in target.labels[EXECUTION_LABEL]
    ):
        target = changed(target, ("metadata", "labels", EXECUTION_LABEL), mine)
    max_level = one.of("max-level", None, *HOSTILE)
    if max_level is not None and isinstance(target, KubeObject):
        target = changed(target, ("metadata", "annotations", MAX_LEVEL_ANNOTATION), max_level)
    limit = one.of("ceiling", None, *LEVELS)
    freeze = one.of("freeze", "none", *FREEZES)
    emergency = freeze != "none" and one.any(True, False) and one.of("emergency", True, False)
    earns = one.of("earns", False, True)
    found = rules(rule, count, freeze, emergency, one.of("shadow", False, True), earns)
    if limit is not None:
        found = Orders(policies=found.policies, cluster=(*found.cluster, ceiling(limit.value)))
    runbooks = one.of("runbooks", "none", *RUNBOOKS)
    if tier := one.of("tier", 0, 20, 40, 70, 90):
        found = Orders(policies=found.policies, cluster=(*found.cluster, tiers(tier)))
    match one.of("policies", "fine", "none", "two", "unreadable"):
        case "none":
            found = Orders(cluster=found.cluster)
        case "two":
            found = Orders(policies=(*found.policies, policy("second")), cluster=found.cluster)
        case "unreadable":
            found = Orders(policies=found.policies, cluster=found.cluster, unreadable=("RemediationPolicy/x",))
    if one.of("cluster unreadable", False, True):
        found = Orders(policies=found.policies, cluster=found.cluster, unreadable=found.unreadable, cluster_unreadable=("x",))
    grade = one.of("grade", "A", "B", "C", "D")
    requester, signal = one.of("opened by", (None, True), ("alice", False), (None, False))
    status, notes = _status(one, p, waits, state, grade, FROZEN_BY.get(freeze, "None"), emergency)
    if one.of("taken", False, True):
        notes[f"{TAKE_PREFIX}eve"] = "eve"
    spec: dict[str, Any] = {"suspend": one.of("suspended", False, True)}
    if not signal:
        spec["signal"] = None
    if requester:
        spec["requestedBy"] = requester
    meta: dict[str, Any] = {"finalizers": [FINALIZER]} if one.of("finalizer", running(status) is not None, True, False) else {}
    if one.of("deleted", False, True):
        meta["deletionTimestamp"] = stamp(NOW)
    e = running(status)
    readable = isinstance(target, KubeObject)
    patch = one.of("patch", "there", "gone", "unread")
    mine_before = {"reservations": (reservation("no-other", workload="Deployment/checkout"),)}
    just_now = {"outcomes": (outcome(workload="Deployment/checkout"),)}
    books = one.of("books", one.any("earned L4", "earned L3", "only claimed", "lost again") if earns else "fine", *BOOKS)
    kept = one.of("ledger", BOOKS[books][0], None, just_now, just_now, mine_before)
    relabelled = kept is not None and one.of("relabelled", False, True)
    if relabelled:
        found = Orders(policies=found.policies, cluster=(*found.cluster, tiers(0, "gold")))
    left = one.of("orders gone", {}, {"cluster_policies": True}, {"namespaces": ("shop",)})
    busy = {"reservations": tuple(reservation(f"no-{i}") for i in range(5))}
    fleet = one.of("fleet", left, None, busy, left)
    proposed = scaled_proposal() if one.of("scaled", False, True) else the_proposal()
    at_stake = one.of("pods", {}, {"pods_at_risk": 1, "at_once": 1}, {"pods_at_risk": 2})
    proposed = replace(proposed, undo=one.of("undo", "Exact", "None"), **at_stake)
    age = one.of("evidence", timedelta(0), MINUTE + SECOND, 6 * MINUTE, -HOUR, None)
    found_by = _diagnosis(grade, gaps=one.of("gaps", 0, 1, 4, 6), victim=one.of("victim", False, True))
    s = Situation(
        operator=OPERATOR,
        incident=incident(status, annotations=notes, meta=meta, **spec),
        target=target,
        orders=found,
        namespace_object=None,
        ledger=None if kept is None else ledger(**kept, **({"workloads": (FROM_GOLD,)} if relabelled else {})),
        fleet=None if fleet is None else ledger("fleet", **fleet),
        stop=one.of("stop", Stop(), Stop(where="shop"), Stop(unknown="time-out")),
        guard=Proof(one.of("guard", True, False), "guard"),
        schemas=Proof(one.of("schemas", True, False), "schemas"),
        unknown=one.of("unknown", (), ("policies: time-out",)),
        diagnosis=one.of("diagnosis", found_by, None, *(_diagnosis(grade, f) for f in Finding)),
        proposal=one.of("proposal", proposed, None, NoProposal(Reason.NO_ACTION_FITS, "no")),
        rollout=one.of("rollout", STILL, ROLLING),
        owner=one.of("owner", None, ARGO),
        looked_at=None if age is None else NOW - age,
        neighbours=one.of("neighbours", 0, 2, 6),
        changed_at=one.of("changed", None, NOW - MINUTE, NOW - HOUR),
        error_budget=one.of("budget of errors", None, BudgetAnswer(0.5, 0.1), BudgetAnswer(0.05, 0.1), BudgetAnswer(None, 0.1, "time-out")),
        samples=one.of("samples", samples(symptom="Fail"), (), samples(), samples(serving="Fail"), samples(symptom="NoData")),
        forward=the_patches()[0] if readable and e and e.state == "Reserved" and patch == "there" else None,
        backward=the_patches()[1] if readable and e and e.state == "Undoing" and patch == "there" else None,
        patch_problem="" if patch == "there" else "time-out",
        patch_unread=patch == "unread",
        caps=one.of("caps", (), (Speaker(who="preflight", level=Level.L2),), (Speaker(who="preflight", level=Level.L3),)),
        runbooks=RUNBOOKS[runbooks][0],
    )
    if kept is not BOOKS[books][0]:
        books = "fine"
    return Case(s, rule, count, limit, max_level, grade, count > 1, freeze, emergency, books, earns, tier, relabelled, runbooks)


@lru_cache
def tiers(risk: int, label: str = "web") -> Any:
    return cluster_policy(f"tier-{label}", tiers=[{"name": label, "selector": {"matchLabels": {"tier": label}}, "risk": risk}])


FROM_GOLD = WorkloadRecord(uid="uid-checkout", workload="Deployment/checkout", labels={"app": "checkout", "tier": "gold"})


@lru_cache
def the_patches() -> tuple[Any, Any]:
    p, action = the_plan(Level.L3, 1), CATALOGUE[the_plan(Level.L3, 1).action]
    return action.forward(p, deployment(), replica_set(6)), action.backward(p, after_target(), replica_set(7))


@lru_cache
def _diagnosis(grade: str, finding: Finding = Finding.FAULT, gaps: int = 0, victim: bool = False) -> Any:
    top = hypothesis(grade, **({"object": "ConfigMap/settings"} if victim else {}))
    return diagnosis(top, finding=finding, gaps=tuple(Gap(what=f"logs of {n}", because="forbidden") for n in range(gaps)))


def _status(
    one: Choices, p: Plan, waits: Level, state: str, grade: str, frozen_by: str, emergency: bool
) -> tuple[IncidentStatus, dict[str, str]]:
    users = one.of(
        "approvals", ("alice", "bob"), (), ("alice",), ("alice", "alice"), ("bob", ""), ("auth0|carol", "alice"), NOBODY, (*NOBODY, "bob")
    )
    digest = one.of("digest", p.digest, OTHER_DIGEST, p.content_sha256, p.digest.upper())
    prefix = EMERGENCY_PREFIX if emergency and one.any(True, True, False) else APPROVE_PREFIX
    notes = {f"{prefix}k{i}": f"{digest}|{u}" for i, u in enumerate(users)}
    if prefix == EMERGENCY_PREFIX and one.any(True, True, False):
        notes |= {f"{WHY_PREFIX}k{i}": "money is lost" for i in range(len(users))}
    if one.of("rejected", False, True):
        notes[f"{REJECT_PREFIX}k"] = f"{one.any(p.digest, OTHER_DIGEST)}|dave"
    age = one.of("expired", MINUTE, 14 * MINUTE, 15 * MINUTE, HOUR)
    kept = tuple(
        Approval(user=u, key=f"{prefix}k{i}", digest=digest, at=NOW - age, emergency=prefix == EMERGENCY_PREFIX)
        for i, u in enumerate(users)
        if u and digest.islower()
    )
    by = one.of("human", "operator", "human") if state in ("Applied", "Ended") else "operator"
    dry_run = p.dry_run if one.of("dry run", True, False) or waits != Level.L2 else None
    if p.needs is not None:
        p = p.model_copy(update={"needs": p.needs.model_copy(update={"frozen_by": frozen_by})})
    p = p.model_copy(update={"staged_level": one.of("staged", Level.L4, Level.L3, Level.L2), "dry_run": dry_run})
    detected = autonomy(detected=one.of("detected", Level.L4, *LEVELS))
    fields: dict[str, Any] = {"approvals": kept, "hypotheses": (hypothesis(grade),), "autonomy": detected}
    if state:
        result = one.any("Recovered", "Undone", "Superseded", "Escalated", "NotApplied") if state == "Ended" else None
        at = NOW - one.any(MINUTE, 3 * MINUTE, HOUR)
        fields["executions"] = (
            execution(
                state,
                p,
                by=by,
                result=result,
                reserved_at=at,
                undo_started_at=at if state == "Undoing" else None,
                emergency=emergency and one.any(True, False),
            ),
        )
        fields["verification"] = verifying(
            started=NOW - one.any(timedelta(0), MINUTE, 5 * MINUTE, HOUR),
            samples=one.any(0, 1, 2, 3),
            passing_since=one.any(None, NOW - 4 * MINUTE),
            measurements=one.any((), samples(), samples(serving="Fail")),
        )
        if state == "Ended":
            fields["plan"] = one.any(p, None)
    elif one.of("no plan", False, True):
        fields["plan"] = None
    waiting = {Level.L2: Reason.ADVISED, Level.L3: Reason.WAITING, Level.L4: Reason.NOT_REQUIRED}[waits]
    if state and waiting is Reason.WAITING:
        waiting = Reason.APPROVED
    conditions = [condition("Approved", "True" if waiting in (Reason.APPROVED, Reason.NOT_REQUIRED) else "False", waiting)]
    closed = one.of("closed", None, ("True", Reason.RECOVERED), ("False", Reason.UNDONE))
    if closed and state in ("", "Ended"):
        conditions.append(condition("Closed", closed[0], closed[1]))
    if one.of("rejected before", False, True):
        fields["rejected_plans"] = (p.content_sha256,)
    return staged_status(waits, p, conditions=tuple(conditions), **fields), notes


# ---------------------------------------------------------------- what must hold


def highest_level(c: Case, evidence_at: datetime | None = None) -> Level:
    """The most that anything here allows, counted anew and simply. `evidence_at`: when the last look has no diagnosis of its own."""
    s = c.s
    allowed = [c.rule, level_of(100 - doubts(c, evidence_at), 80, 50, 20), level_of(100 - stakes(c), 80, 50, 20)]
    if len(s.orders.policies) != 1 or s.orders.unreadable or s.unknown or not s.schemas.holds:
        allowed.append(Level.L1)
    if s.orders.cluster_unreadable or not s.guard.holds:
        allowed.append(Level.L2)
    if c.ceiling is not None:
        allowed.append(c.ceiling)
    if c.max_level is not None and isinstance(s.target, KubeObject):
        allowed.append(Level(c.max_level) if c.max_level in list(Level) else Level.L1)
    if s.ledger is None or s.fleet is None or s.incident.spec.signal is None:
        allowed.append(Level.L3)
    if s.fleet is not None and s.fleet.spec.cluster_policies and not s.orders.cluster:
        allowed.append(Level.L2)
    if s.fleet is not None and s.fleet.spec.namespaces and s.ledger is None:
        allowed.append(Level.L2)
    if s.incident.spec.signal is None and s.incident.spec.requested_by is None and c.separated:
        allowed.append(Level.L2)
    if s.incident.status.autonomy is not None and s.incident.status.autonomy.detected_level != Level.L4:
        allowed.append(Level.L3)
    if s.incident.status.plan is not None:
        allowed.append(s.incident.status.plan.staged_level)
    if c.relabelled and isinstance(s.target, KubeObject) and s.target.uid == FROM_GOLD.uid:
        allowed.append(Level.L3)
    if c.earns:
        allowed.append(BOOKS[c.books][2])
    allowed.append(RUNBOOKS[c.runbooks][1])
    if frozen(c):
        allowed.append(Level.L3 if c.emergency else Level.L2)
    allowed.append({"closed": Level.L4, "open": Level.L2}.get(BOOKS[c.books][1], Level.L3))
    p = proposed(c)
    if (p.undo if p else s.incident.status.plan.undo if s.incident.status.plan else "Exact") == "None":
        allowed.append(Level.L3)
    return min(allowed)


def level_of(value: int, four: int, three: int, two: int) -> Level:
    return Level.L4 if value >= four else Level.L3 if value >= three else Level.L2 if value >= two else Level.L1


def proposed(c: Case) -> Proposal | None:
    return c.s.proposal if isinstance(c.s.proposal, Proposal) and running(c.s.incident.status) is None else None


def doubts(c: Case, evidence_at: datetime | None) -> int:
    """What speaks against the diagnosis, in points."""
    s = c.s
    points = {"A": 0, "B": 30, "C": 45, "D": 100}[c.grade]
    points += min(20, 5 * len(s.diagnosis.gaps if s.diagnosis else ()))
    at = evidence_at or s.looked_at
    if at is None or abs(NOW - at) > 5 * MINUTE:
        points += 100
    elif NOW - at > MINUTE:
        points += 30
    outcomes = s.ledger.spec.outcomes if s.ledger else ()
    return points + 30 * any(o.workload == "Deployment/checkout" and o.result == "Undone" for o in outcomes)


def stakes(c: Case) -> int:
    """What the action puts at stake, in points."""
    s, p = c.s, proposed(c)
    points = c.tier + min(20, 4 * s.neighbours)
    if p is not None and s.diagnosis is not None:
        points += 100 * p.pods_at_risk // p.workload_pods // 5 + 5 * bool(p.scaled_by)
        points += 100 * (s.diagnosis.hypotheses[0].object != "Deployment/checkout")
    points += 60 * (s.changed_at is not None and NOW - s.changed_at < 15 * MINUTE)
    points += 60 * any(k.startswith(TAKE_PREFIX) for k in s.incident.metadata.annotations)
    points += 30 * (s.error_budget is not None and (s.error_budget.left is None or s.error_budget.left < s.error_budget.least))
    return points + 30 * (s.owner is not None)


def frozen(c: Case) -> bool:
    return c.freeze in ("team", "platform", "unreadable")


def agreeing(c: Case) -> set[str]:
    """Who validly approves exactly the plan that waits, counted anew. During a freeze only emergency approvals are any."""
    p = c.s.incident.status.plan
    assert p is not None
    old = {(a.key, a.user) for a in c.s.incident.status.approvals if a.digest == p.digest and NOW - a.at >= 15 * MINUTE}
    names = set()
    notes = c.s.incident.metadata.annotations
    for key, value in notes.items():
        digest, bar, user = value.partition("|")
        reasoned = key.startswith(EMERGENCY_PREFIX) and notes.get(WHY_PREFIX + key.removeprefix(EMERGENCY_PREFIX))
        if (reasoned or (key.startswith(APPROVE_PREFIX) and not frozen(c))) and bar and digest == p.digest and (key, user) not in old:
            names.add(user)
    names -= {"", OPERATOR.username, c.s.incident.spec.requested_by if c.separated else ""}
    return {n for n in names if not n.startswith("system:")}


def obstacles(c: Case) -> list[str]:
    """What stands against any new effect, whatever the level."""
    s = c.s
    found = {
        "stop": s.stop.in_force,
        "suspended": s.incident.spec.suspend,
        "deleted": s.incident.metadata.deletion_timestamp is not None,
        "cannot tell": bool(s.unknown),
        "schemas": not s.schemas.holds,
        "guard": not s.guard.holds,
        "owner": bool(s.owner),
        "no single rule": len(s.orders.policies) != 1 or bool(s.orders.unreadable),
        "target": not isinstance(s.target, KubeObject),
        "grade": c.grade == "D",
        "shadow": any(p.spec.enforcement == "Shadow" for p in s.orders.policies),
        "the breaker's trial runs": BOOKS[c.books][1] == "trial",
    }
    return [name for name, holds in found.items() if holds]


def check(c: Case, step: object) -> None:
    """Raises AssertionError where `step` breaks a promise."""
    s = c.s
    status = s.incident.status
    p = status.plan
    if isinstance(step, steps.Reserve):
        assert not obstacles(c), obstacles(c)
        assert p is not None
        assert p.dry_run is not None
        assert isinstance(s.target, KubeObject)
        assert (s.target.uid, spec_sha256(s.target.at("spec"))) == (p.target.uid, p.target.before_sha256), "stale"
        assert isinstance(s.proposal, type(the_proposal()))
        assert s.diagnosis is not None
        assert s.diagnosis.finding is Finding.FAULT
        assert s.samples, "no baseline"
        assert s.rollout is STILL
        here = [o for o in (s.ledger.spec.outcomes if s.ledger else ()) if o.workload == "Deployment/checkout"]
        assert all(NOW - o.at >= 10 * MINUTE for o in here), "cooldown"
        assert not (s.ledger and any(r.workload == "Deployment/checkout" for r in s.ledger.spec.reservations))
        assert not (s.fleet and s.fleet.spec.reservations)
        assert p.content_sha256 not in status.rejected_plans
        assert running(status) is None
        assert not any(e.result in ("Undone", "Escalated", "Superseded") for e in status.executions)
        assert step.execution.plan_digest == p.digest
        assert step.execution.id == execution_id(p.digest)
        assert proposed(c) is not None
        assert 100 * s.proposal.pods_at_risk <= 50 * s.proposal.workload_pods  # type: ignore[union-attr]
        if highest_level(c) != Level.L4:
            assert highest_level(c) == Level.L3, highest_level(c)
            assert len(agreeing(c)) >= c.count, agreeing(c)
            assert (
                f"{REJECT_PREFIX}k" not in s.incident.metadata.annotations
                or p.digest not in s.incident.metadata.annotations[f"{REJECT_PREFIX}k"]
            )
        assert step.status.executions[-1].state == "Reserved"
    if isinstance(step, steps.Apply):
        e = running(status)
        assert e is not None
        assert e.state == "Reserved"
        assert not obstacles(c), obstacles(c)
        assert p is not None
        assert isinstance(s.target, KubeObject)
        assert (s.target.uid, spec_sha256(s.target.at("spec"))) == (p.target.uid, p.target.before_sha256), "stale"
        assert s.target.labels.get(EXECUTION_LABEL) != e.id, "sent before"
        assert step.patch == the_proposal().patch
        alone = any(x.type == "Approved" and x.reason == Reason.NOT_REQUIRED for x in status.conditions)
        needed = Level.L4 if alone else Level.L3
        assert min([highest_level(c, e.reserved_at), *(cap.level for cap in s.caps)]) >= needed
        assert e.emergency or not frozen(c), "a freeze began"
    if isinstance(step, steps.Undo):
        e = running(status)
        assert e is not None
        assert (e.state, e.by) == ("Undoing", "operator")
        assert p is not None
        assert isinstance(s.target, KubeObject)
        assert (s.target.uid, spec_sha256(s.target.at("spec"))) == (p.target.uid, p.target.after_sha256), "somebody else's change"
    if isinstance(step, steps.Settle):
        assert step.execution.state == "Ended"
        assert step.execution.result is not None
        assert running(step.status) is None
        if step.execution.result == "Recovered":
            assert all(m.verdict == "Pass" for m in s.samples)
            assert s.samples
    if isinstance(step, steps.Stage):
        assert running(status) is None
        assert step.level <= highest_level_for_staging(c)
        assert "shadow" not in obstacles(c)
    if isinstance(step, (steps.Save, steps.Settle, steps.Reserve)):
        made = step.status
        assert IncidentStatus.model_validate(made.wire()) == made
        assert running(made) is None or made.plan is not None
        undoing = [x for x in made.executions if x.state == "Undoing"]
        assert all(x.by == "operator" for x in undoing)


def highest_level_for_staging(c: Case) -> Level:
    """As `highest_level`; a plan with other content than the waiting one is not bound by what that one was staged at."""
    p = c.s.incident.status.plan
    if p is None or p.staged_level == Level.L4:
        return highest_level(c)
    free = c.s.incident.model_copy(update={"status": c.s.incident.status.model_copy(update={"plan": None})})
    return highest_level(replace(c, s=replace(c.s, incident=free)))
