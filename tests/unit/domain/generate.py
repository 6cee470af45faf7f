"""Situations of every kind, and what must hold of the step that follows; written apart from the code that decides."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st

from nightorders.actions import CATALOGUE
from nightorders.api.meta import (
    APPROVE_PREFIX,
    EXECUTION_LABEL,
    FINALIZER,
    MAX_LEVEL_ANNOTATION,
    REJECT_PREFIX,
    Level,
)
from nightorders.api.v1alpha1 import IncidentStatus
from nightorders.api.v1alpha1.incident import Approval, Plan, Speaker
from nightorders.domain import steps
from nightorders.domain.diagnosis import Finding
from nightorders.domain.digest import spec_sha256
from nightorders.domain.gates import Rollout, Stop
from nightorders.domain.orders import Orders
from nightorders.domain.plan import NoProposal, execution_id
from nightorders.domain.reasons import Reason
from nightorders.domain.record import running
from nightorders.domain.situation import Proof, Situation
from nightorders.domain.snapshot import Absent, KubeObject, NotLooked
from tests.unit.domain.make import (
    ARGO,
    HOUR,
    MINUTE,
    NOW,
    OPERATOR,
    STILL,
    after_target,
    autonomy,
    ceiling,
    changed,
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
def the_plan(waits_at: Level, count: int) -> Plan:
    rule = governing(rules(Level.L4, count))
    return plan(waits_at, found=rule, at=NOW - MINUTE)


@lru_cache
def rules(level: Level, count: int) -> Orders:
    return orders(policy("web", rule_json(level=level.value, approval={"count": count})))


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
    found = rules(rule, count)
    if limit is not None:
        found = Orders(policies=found.policies, cluster=(ceiling(limit.value),))
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
    status, notes = _status(one, p, waits, state, grade)
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
    mine_before = ledger(reservations=(reservation("no-other", workload="Deployment/checkout"),))
    s = Situation(
        operator=OPERATOR,
        incident=incident(status, annotations=notes, meta=meta, **spec),
        target=target,
        orders=found,
        namespace_object=None,
        ledger=one.of("ledger", ledger(), None, ledger(outcomes=(outcome(workload="Deployment/checkout"),)), mine_before),
        fleet=one.of("fleet", ledger("fleet"), None, ledger("fleet", reservations=tuple(reservation(f"no-{i}") for i in range(5)))),
        stop=one.of("stop", Stop(), Stop(where="shop"), Stop(unknown="time-out")),
        guard=Proof(one.of("guard", True, False), "guard"),
        schemas=Proof(one.of("schemas", True, False), "schemas"),
        unknown=one.of("unknown", (), ("policies: time-out",)),
        diagnosis=one.of("diagnosis", _diagnosis(grade), None, *(_diagnosis(grade, f) for f in Finding)),
        proposal=one.of("proposal", the_proposal(), None, NoProposal(Reason.NO_ACTION_FITS, "no")),
        rollout=one.of("rollout", STILL, ROLLING),
        owner=one.of("owner", None, ARGO),
        looked_at=NOW,
        samples=one.of("samples", samples(symptom="Fail"), (), samples(), samples(serving="Fail"), samples(symptom="NoData")),
        forward=the_patches()[0] if readable and e and e.state == "Reserved" and patch == "there" else None,
        backward=the_patches()[1] if readable and e and e.state == "Undoing" and patch == "there" else None,
        patch_problem="" if patch == "there" else "time-out",
        patch_unread=patch == "unread",
        caps=one.of("caps", (), (Speaker(who="preflight", level=Level.L2),), (Speaker(who="preflight", level=Level.L3),)),
    )
    return Case(s, rule, count, limit, max_level, grade, separated=count > 1)


@lru_cache
def the_patches() -> tuple[Any, Any]:
    p, action = the_plan(Level.L3, 1), CATALOGUE[the_plan(Level.L3, 1).action]
    return action.forward(p, deployment(), replica_set(6)), action.backward(p, after_target(), replica_set(7))


@lru_cache
def _diagnosis(grade: str, finding: Finding = Finding.FAULT) -> Any:
    return diagnosis(hypothesis(grade), finding=finding)


def _status(one: Choices, p: Plan, waits: Level, state: str, grade: str) -> tuple[IncidentStatus, dict[str, str]]:
    users = one.of(
        "approvals", ("alice", "bob"), (), ("alice",), ("alice", "alice"), ("bob", ""), ("auth0|carol", "alice"), NOBODY, (*NOBODY, "bob")
    )
    digest = one.of("digest", p.digest, OTHER_DIGEST, p.content_sha256, p.digest.upper())
    notes = {f"{APPROVE_PREFIX}k{i}": f"{digest}|{u}" for i, u in enumerate(users)}
    if one.of("rejected", False, True):
        notes[f"{REJECT_PREFIX}k"] = f"{one.any(p.digest, OTHER_DIGEST)}|dave"
    age = one.of("expired", MINUTE, 14 * MINUTE, 15 * MINUTE, HOUR)
    kept = tuple(
        Approval(user=u, key=f"{APPROVE_PREFIX}k{i}", digest=digest, at=NOW - age) for i, u in enumerate(users) if u and digest.islower()
    )
    by = one.of("human", "operator", "human") if state in ("Applied", "Ended") else "operator"
    dry_run = p.dry_run if one.of("dry run", True, False) or waits != Level.L2 else None
    p = p.model_copy(update={"staged_level": one.of("staged", Level.L4, Level.L3, Level.L2), "dry_run": dry_run})
    detected = autonomy(detected=one.of("detected", Level.L4, *LEVELS))
    fields: dict[str, Any] = {"approvals": kept, "hypotheses": (hypothesis(grade),), "autonomy": detected}
    if state:
        result = one.any("Recovered", "Undone", "Superseded", "Escalated", "NotApplied") if state == "Ended" else None
        at = NOW - one.any(MINUTE, 3 * MINUTE, HOUR)
        fields["executions"] = (
            execution(state, p, by=by, result=result, reserved_at=at, undo_started_at=at if state == "Undoing" else None),
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


def highest_level(c: Case) -> Level:
    """The most that anything here allows, counted anew and simply."""
    s = c.s
    allowed = [c.rule]
    if len(s.orders.policies) != 1 or s.orders.unreadable or s.unknown or not s.schemas.holds:
        allowed.append(Level.L1)
    if s.orders.cluster_unreadable or not s.guard.holds:
        allowed.append(Level.L2)
    if c.ceiling is not None:
        allowed.append(c.ceiling)
    if c.max_level is not None and isinstance(s.target, KubeObject):
        allowed.append(Level(c.max_level) if c.max_level in list(Level) else Level.L1)
    if c.grade != "A":
        allowed.append(Level.L1 if c.grade == "D" else Level.L3)
    if s.ledger is None or s.incident.spec.signal is None:
        allowed.append(Level.L3)
    if s.incident.spec.signal is None and s.incident.spec.requested_by is None and c.separated:
        allowed.append(Level.L2)
    if s.incident.status.autonomy is not None and s.incident.status.autonomy.detected_level != Level.L4:
        allowed.append(Level.L3)
    if s.incident.status.plan is not None:
        allowed.append(s.incident.status.plan.staged_level)
    return min(allowed)


def agreeing(c: Case) -> set[str]:
    """Who validly approves exactly the plan that waits, counted anew."""
    p = c.s.incident.status.plan
    assert p is not None
    old = {(a.key, a.user) for a in c.s.incident.status.approvals if a.digest == p.digest and NOW - a.at >= 15 * MINUTE}
    names = set()
    for key, value in c.s.incident.metadata.annotations.items():
        digest, bar, user = value.partition("|")
        if key.startswith(APPROVE_PREFIX) and bar and digest == p.digest and (key, user) not in old:
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
        assert not (s.ledger and (s.ledger.spec.outcomes or s.ledger.spec.reservations))
        assert not (s.fleet and s.fleet.spec.reservations)
        assert p.content_sha256 not in status.rejected_plans
        assert running(status) is None
        assert not any(e.result in ("Undone", "Escalated", "Superseded") for e in status.executions)
        assert step.execution.plan_digest == p.digest
        assert step.execution.id == execution_id(p.digest)
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
        assert min([highest_level(c), *(cap.level for cap in s.caps)]) >= needed
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
