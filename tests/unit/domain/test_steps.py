"""next_step: what to do now, case by case. (tests/property/test_steps.py asks it about everything at once.)"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from nightorders.api.meta import (
    APPROVE_PREFIX,
    EMERGENCY_PREFIX,
    EXECUTION_LABEL,
    FINALIZER,
    REJECT_PREFIX,
    TAKE_PREFIX,
    WHY_PREFIX,
    Level,
    find_condition,
)
from nightorders.api.v1alpha1 import IncidentStatus
from nightorders.api.v1alpha1.incident import CheckSpec, DryRun, Speaker
from nightorders.api.v1alpha1.ledger import Rejection
from nightorders.domain import approval, steps
from nightorders.domain.diagnosis import Finding
from nightorders.domain.gates import Stop
from nightorders.domain.orders import Governing, governing_rule
from nightorders.domain.plan import NoProposal, execution_id
from nightorders.domain.reasons import Reason
from nightorders.domain.situation import Proof, Situation
from nightorders.domain.snapshot import Absent, NotLooked
from nightorders.domain.steps import Apply, Idle, ReleaseFinalizer, Reserve, Save, Settle, Stage, Undo, next_step
from tests.unit.domain.make import (
    ARGO,
    FLUX,
    HOUR,
    MINUTE,
    NOW,
    OPERATOR,
    ROLLBACK,
    SECOND,
    after_target,
    approved_by,
    ceiling,
    changed,
    cluster_policy,
    condition,
    deployment,
    diagnosis,
    execution,
    governing,
    hypothesis,
    in_execution,
    incident,
    ledger,
    needs_of,
    orders,
    outcome,
    plan,
    policy,
    proposal,
    reservation,
    rule_json,
    running_status,
    sample,
    samples,
    situation,
    staged_status,
    stamp,
    template,
    verifying,
)

L2, L3, L4 = Level.L2, Level.L3, Level.L4
GONE = Absent("Deployment/checkout", "GET deployments/checkout", NOW)
UNSEEN = NotLooked("Deployment/checkout", "failed: time-out")
PLAN = plan()


def leveled(level: Level, **rule: Any) -> Any:
    return orders(policy("web", rule_json(level=level.value, **rule)))


def yes(*users: str, digest: str = PLAN.digest) -> dict[str, str]:
    return {f"{APPROVE_PREFIX}k{i}": f"{digest}|{user}" for i, user in enumerate(users)}


def gated(
    notes: dict[str, str] | None = None, *, rule: dict[str, Any] | None = None, status: IncidentStatus | None = None, **fields: Any
) -> Situation:
    """A plan waits at L3, staged under the orders that hold now."""
    found = fields.pop("orders", leveled(L3, **(rule or {})))
    ordered = governing_rule(found, deployment().labels, ROLLBACK)
    needs = needs_of(ordered) if isinstance(ordered, Governing) else PLAN.needs
    made = status or staged_status(L3, PLAN.model_copy(update={"needs": needs}))
    spec = fields.pop("spec", {})
    return situation(inc=incident(made, annotations=notes or {}, **spec), orders=found, **fields)


def of(step: object) -> IncidentStatus:
    assert isinstance(step, (Save, Settle, Reserve, Stage)), step
    return step.status


def cond(step: object, kind: str) -> tuple[str, str] | None:
    found = find_condition(of(step).conditions, kind)
    return (found.status, found.reason) if found else None


# ---------------------------------------------------------------- the target


@pytest.mark.parametrize(("target", "reason"), [(GONE, Reason.TARGET_NOT_FOUND), (UNSEEN, Reason.TARGET_NOT_READABLE)])
def test_without_a_target_it_stalls_and_the_plan_is_withdrawn(target: Any, reason: Reason) -> None:
    step = next_step(situation(staged_status(L4), target=target, diagnosis=None, proposal=None), NOW)
    assert cond(step, "Stalled") == ("True", reason.value)
    assert of(step).plan is None


def test_nothing_looked_at_is_nothing_done() -> None:
    assert isinstance(next_step(situation(staged_status(L4), diagnosis=None, proposal=None), NOW), Idle)


@pytest.mark.parametrize("finding", [Finding.PROGRESSING, Finding.UNKNOWN, Finding.TARGET_MISSING, Finding.TARGET_UNKNOWN])
def test_anything_but_a_shown_fault_withdraws_the_plan(finding: Finding) -> None:
    step = next_step(situation(staged_status(L4), diagnosis=diagnosis(finding=finding)), NOW)
    assert of(step).plan is None
    assert cond(step, "Planned") is not None


# ---------------------------------------------------------------- healthy again


def healthy(since: timedelta | None, **fields: Any) -> Situation:
    conditions = (condition("Healthy", "True", Reason.NO_FAULT, NOW - since),) if since is not None else ()
    status = IncidentStatus(conditions=conditions, cause="ImageAccess Deployment/checkout", **fields)
    return situation(status, diagnosis=diagnosis(finding=Finding.NO_FAULT), proposal=None)


@pytest.mark.parametrize(("since", "closed"), [(None, False), (9 * SECOND, False), (10 * SECOND, True)])
def test_an_incident_closes_only_after_health_has_held(since: timedelta | None, closed: bool) -> None:
    assert (cond(next_step(healthy(since), NOW), "Closed") is not None) is closed


def test_what_was_never_ill_is_dismissed_and_what_was_is_recovered() -> None:
    assert cond(next_step(healthy(MINUTE), NOW), "Closed") == ("True", Reason.RECOVERED_BY_ITSELF.value)
    never = situation(
        IncidentStatus(conditions=(condition("Healthy", "True", Reason.NO_FAULT),)),
        diagnosis=diagnosis(finding=Finding.NO_FAULT),
        proposal=None,
    )
    assert cond(next_step(never, NOW), "Closed") == ("True", Reason.NO_FAULT.value)


@pytest.mark.parametrize("finding", [Finding.FAULT, Finding.PROGRESSING, Finding.UNKNOWN, Finding.TARGET_UNKNOWN])
def test_health_that_was_interrupted_begins_anew(finding: Finding) -> None:
    status = IncidentStatus(conditions=(condition("Healthy", "True", Reason.NO_FAULT),), hypotheses=(hypothesis(),))
    between = next_step(situation(status, diagnosis=diagnosis(finding=finding), proposal=None), NOW)
    assert cond(between, "Healthy") is None


def test_a_target_that_cannot_be_read_interrupts_health_too() -> None:
    status = IncidentStatus(conditions=(condition("Healthy", "True", Reason.NO_FAULT),))
    assert cond(next_step(situation(status, target=UNSEEN, diagnosis=None, proposal=None), NOW), "Healthy") is None


def test_a_closed_incident_is_left_alone() -> None:
    status = staged_status(L4, conditions=(condition("Closed", "True", Reason.RECOVERED), approved_by(Reason.NOT_REQUIRED)))
    assert next_step(situation(status), NOW) == Idle("closed", None)


# ---------------------------------------------------------------- staging


def test_a_fault_with_a_fitting_action_is_staged_at_the_effective_level() -> None:
    step = next_step(situation(orders=leveled(L3)), NOW)
    assert isinstance(step, Stage)
    assert (step.level, step.ordered) == (L3, L3)


def test_l1_stages_nothing_and_says_who_decided() -> None:
    step = next_step(situation(orders=orders(policy(labels={"tier": "db"}))), NOW)
    assert cond(step, "Planned") == ("False", Reason.NO_POLICY.value)
    step = next_step(situation(orders=orders(cluster=(ceiling("L1"),))), NOW)
    found = find_condition(of(step).conditions, "Planned")
    assert found is not None
    assert (found.reason, "ClusterRemediationPolicy/ceiling-most ceiling most" in found.message) == (Reason.READ_ONLY.value, True)


def test_a_read_that_failed_at_detection_is_not_kept_as_what_was_ordered_then() -> None:
    unread = {"orders": replace(orders(), policies=()), "unknown": ("policies: time-out",)}
    for proposed in ({}, {"proposal": NoProposal(Reason.NO_ACTION_FITS, "no")}):
        first = next_step(situation(**unread, **proposed), NOW)
        assert of(first).autonomy is None
        second = next_step(situation(of(first)), NOW + MINUTE)
        assert isinstance(second, Stage)
        assert (second.level, second.status.autonomy and second.status.autonomy.detected_level) == (L4, L4)
    known = next_step(situation(staged_status(L4), **unread), NOW)
    assert of(known).autonomy is not None
    assert of(known).autonomy.detected_level == L4  # type: ignore[union-attr]


def test_no_action_of_the_catalogue_fits() -> None:
    step = next_step(situation(proposal=NoProposal(Reason.NO_ACTION_FITS, "no earlier revision")), NOW)
    assert cond(step, "Planned") == ("False", Reason.NO_ACTION_FITS.value)
    assert of(step).autonomy is not None


def test_a_refused_gate_withdraws_a_waiting_plan_and_its_approvals() -> None:
    approvals = next_step(gated(yes("alice"), rule={"approval": {"count": 2}}), NOW)
    waiting = incident(of(approvals), annotations=yes("alice"))
    assert len(of(approvals).approvals) == 1
    step = next_step(situation(inc=waiting, orders=leveled(L3), owner=ARGO), NOW)
    assert (of(step).plan, of(step).approvals) == (None, ())
    assert cond(step, "Planned") == ("False", Reason.OWNED_ELSEWHERE.value)
    assert cond(step, "Approved") is None


def test_a_level_that_fell_stages_the_same_plan_as_advice() -> None:
    step = next_step(gated(yes("alice"), orders=leveled(L2)), NOW)
    assert isinstance(step, Stage)
    assert step.level == L2


def test_a_plan_staged_for_a_human_is_not_released_by_a_raise() -> None:
    status = staged_status(L3, PLAN.model_copy(update={"staged_level": L3}))
    step = next_step(gated(status=status, orders=leveled(L4)), NOW)
    assert cond(step, "Approved") == ("False", Reason.WAITING.value)


def test_an_expired_plan_is_staged_again_and_not_executed() -> None:
    status = staged_status(L3, PLAN.model_copy(update={"expires_at": NOW}))
    assert isinstance(next_step(gated(yes("alice"), status=status), NOW), Stage)
    status = staged_status(L3, PLAN.model_copy(update={"expires_at": NOW + SECOND}))
    assert isinstance(next_step(gated(yes("alice"), status=status), NOW), Reserve)


def staged_after(level: Level, dry_run: bool = True, status: IncidentStatus | None = None) -> IncidentStatus:
    s = situation(status, orders=leveled(level))
    step = next_step(s, NOW)
    assert isinstance(step, Stage)
    return steps.staged(s.incident, step, DryRun(at=NOW, diff="") if dry_run else None, "forbidden", NOW)


@pytest.mark.parametrize(
    ("level", "status", "reason"), [(L2, "False", Reason.ADVISED), (L3, "False", Reason.WAITING), (L4, "True", Reason.NOT_REQUIRED)]
)
def test_a_staged_plan_says_for_what_it_waits(level: Level, status: str, reason: Reason) -> None:
    made = staged_after(level)
    found = find_condition(made.conditions, "Approved")
    assert found is not None
    assert (found.status, found.reason) == (status, reason.value)
    assert made.plan is not None
    assert made.plan_sequence == made.plan.sequence == 1


def test_a_new_plan_forgets_the_approvals_of_the_old_one() -> None:
    old = staged_status(L3, PLAN)
    s = gated(yes("alice"), status=old, target=deployment(spec={"replicas": 5}), proposal=proposal(deployment(spec={"replicas": 5})))
    approved = s.incident.status.model_copy(update={"approvals": approval.seen(yes("alice"), PLAN, (), NOW)})
    s = replace(s, incident=incident(approved, annotations=yes("alice")))
    step = next_step(s, NOW)
    assert isinstance(step, Stage)
    made = steps.staged(s.incident, step, DryRun(at=NOW, diff=""), "", NOW)
    assert made.approvals == ()
    assert made.plan is not None
    assert made.plan.digest != PLAN.digest


@pytest.mark.promise(1)
def test_a_refused_dry_run_leaves_no_plan() -> None:
    s = situation(staged_status(L3), orders=leveled(L2))
    step = next_step(s, NOW)
    assert isinstance(step, Stage)
    made = steps.not_staged(s.incident, step, Reason.DRY_RUN_REFUSED, "webhook says no", NOW)
    assert made.plan is None
    assert find_condition(made.conditions, "Planned").reason == Reason.DRY_RUN_REFUSED.value  # type: ignore[union-attr]


# ---------------------------------------------------------------- at the gate


def test_enough_approvals_reserve() -> None:
    step = next_step(gated(yes("alice")), NOW)
    assert isinstance(step, Reserve)
    assert step.execution.id == execution_id(PLAN.digest)
    assert (step.execution.state, step.execution.plan_digest) == ("Reserved", PLAN.digest)
    assert cond(step, "Approved") == ("True", Reason.APPROVED.value)
    assert cond(step, "Executed") == ("False", Reason.RESERVED.value)
    assert [a.user for a in step.status.approvals] == ["alice"]


@pytest.mark.parametrize("user", ["mallory (L4)", "x allows it alone (L4)"])
def test_a_username_does_not_decide_how_the_approval_is_recorded(user: str) -> None:
    assert cond(next_step(gated(yes(user)), NOW), "Approved") == ("True", Reason.APPROVED.value)


@pytest.mark.parametrize(
    ("notes", "rule"),
    [
        ({}, {}),
        (yes("alice"), {"approval": {"count": 2}}),
        (yes("alice", "alice"), {"approval": {"count": 2}}),
        (yes("alice", digest="sha256:" + "0" * 64), {}),
        (yes(OPERATOR.username), {}),
        (yes("system:serviceaccount:shop:default"), {}),
    ],
)
def test_not_enough_keeps_waiting_and_says_how_many_are_missing(notes: dict[str, str], rule: dict[str, Any]) -> None:
    step = next_step(gated(notes, rule=rule), NOW)
    assert isinstance(step, Save)
    assert cond(step, "Approved") == ("False", Reason.WAITING.value)
    assert "needs 1 more" in find_condition(step.status.conditions, "Approved").message or "needs 2" in str(step.status.conditions)  # type: ignore[union-attr]


@pytest.mark.threat(6)
@pytest.mark.promise(1)
def test_the_requester_does_not_count_where_duties_are_separated() -> None:
    asked = {"signal": None, "requestedBy": "alice"}
    rule = {"approval": {"count": 1, "separationOfDuties": True}}
    assert isinstance(next_step(gated(yes("alice"), rule=rule, spec=asked), NOW), Save)
    assert isinstance(next_step(gated(yes("bob"), rule=rule, spec=asked), NOW), Reserve)


def test_an_approval_waits_for_a_baseline() -> None:
    step = next_step(gated(yes("alice"), samples=()), NOW)
    assert isinstance(step, (Save, Idle))
    assert isinstance(next_step(situation(staged_status(L4), samples=()), NOW), (Save, Idle))


def test_a_rejection_ends_the_plan_and_the_same_is_not_proposed_again() -> None:
    notes = {**yes("alice"), f"{REJECT_PREFIX}k": f"{PLAN.digest}|bob", f"{WHY_PREFIX}k": "the vendor is on it"}
    step = next_step(gated(notes), NOW)
    assert cond(step, "Planned") == ("False", Reason.REJECTED.value)
    assert (of(step).plan, of(step).rejected_plans) == (None, (PLAN.content_sha256,))
    assert any("rejected by bob: the vendor is on it" in t.what and t.actor == "bob" for t in of(step).timeline)
    again = next_step(situation(inc=incident(of(step), annotations=notes), orders=leveled(L3)), NOW + MINUTE)
    assert not isinstance(again, (Stage, Reserve))
    still = next_step(situation(inc=incident(of(step)), orders=leveled(L4)), NOW + MINUTE)
    assert not isinstance(still, (Stage, Reserve)), "not at another level either"


def test_a_rejection_is_noted_in_the_ledger_for_the_next_incident() -> None:
    step = next_step(gated({f"{REJECT_PREFIX}k": f"{PLAN.digest}|bob"}), NOW)
    assert isinstance(step, Save)
    assert step.note == Rejection(plan=PLAN.content_sha256, action=ROLLBACK, workload="Deployment/checkout", by="bob", at=NOW)
    books = ledger(rejections=(step.note,))
    again = next_step(situation(ledger=books), NOW + MINUTE)
    assert isinstance(again, Stage)
    assert again.level == L3, "not alone within a day"


def test_taking_an_incident_and_giving_it_back_are_told_once_each() -> None:
    took = of(next_step(gated({f"{TAKE_PREFIX}x": "eve"}), NOW))
    assert took.taken is not None
    assert (took.taken.by, took.taken.at) == ("eve", NOW)
    assert [(t.actor, t.kind) for t in took.timeline if "takes this Incident" in t.what] == [("eve", "Decision")]
    still = next_step(gated({f"{TAKE_PREFIX}x": "eve"}, status=took), NOW + SECOND)
    assert isinstance(still, Idle) or sum("takes this Incident" in t.what for t in of(still).timeline) == 1
    gave = of(next_step(gated({}, status=took), NOW + SECOND))
    assert gave.taken is None
    assert [t.actor for t in gave.timeline if t.what == "gives it back"] == ["eve"]


def test_a_taken_incident_gets_advice_only() -> None:
    step = next_step(situation(inc=incident(annotations={f"{TAKE_PREFIX}x": "eve"})), NOW)
    assert isinstance(step, Stage)
    assert step.level == L2


def test_an_emergency_approval_carries_a_plan_through_a_freeze_and_is_marked() -> None:
    found = orders(policy("web", rule_json(level="L3", approval={"emergency": "Allow"}), freezes=[HELD]))
    waits = staged_status(L3, PLAN.model_copy(update={"needs": needs_of(governing(found), frozen_by="Namespace")}))
    ordinary = next_step(gated(yes("alice"), status=waits, orders=found), NOW)
    assert cond(ordinary, "Approved") == ("False", Reason.WAITING.value)
    notes = {f"{EMERGENCY_PREFIX}k": f"{PLAN.digest}|alice", f"{WHY_PREFIX}k": "orders are lost"}
    step = next_step(gated(notes, status=waits, orders=found), NOW)
    assert isinstance(step, Reserve)
    assert (step.execution.emergency, step.execution.approved_by, step.execution.level) == (True, ("alice",), L3)
    assert cond(step, "Approved") == ("True", Reason.EMERGENCY.value)
    assert any(t.kind == "Approval" and "emergency approval" in t.what and "orders are lost" in t.what for t in step.status.timeline)


def test_a_freeze_that_begins_while_a_plan_waits_asks_for_another_approval() -> None:
    found = orders(policy("web", rule_json(level="L3", approval={"emergency": "Allow"}), freezes=[HELD]))
    step = next_step(gated(yes("alice"), status=staged_status(L3, PLAN), orders=found), NOW)
    assert isinstance(step, Stage)
    assert step.needs.frozen_by == "Namespace"
    staged_now = steps.staged(gated(status=staged_status(L3, PLAN)).incident, step, DryRun(at=NOW, diff=""), "", NOW)
    assert staged_now.plan is not None
    assert staged_now.plan.digest == PLAN.digest
    assert "emergency.nightorders.dev/" in staged_now.plan.approve
    assert "--emergency" in find_condition(staged_now.conditions, "Approved").message  # type: ignore[union-attr]


def test_a_waiting_plan_keeps_the_stricter_needs() -> None:
    strict = staged_status(L3, PLAN.model_copy(update={"needs": needs_of(governing(leveled(L3, approval={"count": 2})))}))
    step = next_step(gated(yes("alice"), status=strict), NOW)
    assert isinstance(step, Save), "one approver is enough for the orders of now, not for those of then"
    assert cond(step, "Approved") == ("False", Reason.WAITING.value)


def test_an_approval_and_its_withdrawal_are_told_under_the_users_name() -> None:
    first = next_step(gated(yes("alice"), rule={"approval": {"count": 2}}), NOW)
    assert [(t.actor, t.what.split()[0]) for t in of(first).timeline] == [("alice", "approves")]
    second = next_step(gated({}, rule={"approval": {"count": 2}}, status=of(first)), NOW + SECOND)
    assert of(second).timeline[-1].what == "withdraws the approval"
    assert of(second).approvals == ()


@pytest.mark.threat(2)
@pytest.mark.promise(1)
def test_a_guard_that_is_not_proven_holds_the_approved_plan() -> None:
    step = next_step(gated(yes("alice"), guard=Proof(False, "binding narrowed")), NOW)
    assert isinstance(step, Stage)
    assert step.level == L2


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    "fields",
    [
        {"stop": Stop(where="shop")},
        {"stop": Stop(unknown="time-out")},
        {"spec": {"suspend": True}},
        {"owner": FLUX},
        {"unknown": ("policies: time-out",)},
        {"schemas": Proof(False, "old")},
        {"orders": orders(cluster=(ceiling("L1"),))},
        {"ledger": ledger(outcomes=(outcome(workload="Deployment/checkout"),))},
    ],
)
def test_an_approved_plan_is_still_refused_by_every_gate(fields: dict[str, Any]) -> None:
    step = next_step(gated(yes("alice"), **fields), NOW)
    assert isinstance(step, Save)
    assert step.status.plan is None


def test_l4_reserves_alone() -> None:
    step = next_step(situation(staged_status(L4)), NOW)
    assert isinstance(step, Reserve)
    assert cond(step, "Approved") == ("True", Reason.NOT_REQUIRED.value)


def test_l2_waits_for_the_human() -> None:
    step = next_step(situation(staged_status(L2), orders=leveled(L2)), NOW)
    assert not isinstance(step, (Reserve, Apply))


# ---------------------------------------------------------------- a human does it


def test_a_humans_hand_is_noticed_and_verified() -> None:
    step = next_step(situation(staged_status(L2), orders=leveled(L2), target=after_target(), proposal=None), NOW)
    assert isinstance(step, Save)
    (done,) = step.status.executions
    assert (done.by, done.state) == ("human", "Applied")
    assert cond(step, "Executed") == ("True", Reason.BY_HUMAN.value)
    assert step.status.verification is not None
    assert step.status.verification.baseline == ()


@pytest.mark.parametrize(("age", "human"), [(30 * SECOND, False), (HOUR, True)])
def test_what_an_execution_for_another_incident_did_is_not_a_humans_doing(age: timedelta, human: bool) -> None:
    """An old stamp stays on the object for ever, so only one that is younger than the plan tells."""
    books = ledger(outcomes=(outcome("no-other", workload="Deployment/checkout", at=NOW - age),))
    step = next_step(situation(staged_status(L2), orders=leveled(L2), target=after_target("no-other"), proposal=None, ledger=books), NOW)
    assert bool(of(step).executions) is human


def test_a_new_object_in_the_planned_state_is_not_the_plan_carried_out() -> None:
    again = changed(after_target(), ("metadata", "uid"), "uid-recreated")
    step = next_step(situation(staged_status(L2), orders=leveled(L2), target=again, proposal=NoProposal(Reason.NO_ACTION_FITS, "")), NOW)
    assert of(step).executions == ()


@pytest.mark.parametrize("verdict", ["serving", "dependents"])
def test_what_a_human_did_is_never_undone(verdict: str) -> None:
    done = execution("Applied", by="human")
    worse = samples(**{verdict: "Fail"})
    s = in_execution(
        "Applied",
        L3,
        status=running_status(
            "Applied", L3, executions=(done,), verification=verifying(measurements=samples(EARLIER, **{verdict: "Fail"}))
        ),
        samples=worse,
    )
    step = next_step(s, NOW)
    assert isinstance(step, Settle)
    assert step.execution.result == "Escalated"


# ---------------------------------------------------------------- reserved → applied


def test_reserved_applies_the_planned_patch() -> None:
    step = next_step(in_execution(), NOW)
    assert isinstance(step, Apply)
    assert step.execution.state == "Reserved"
    assert step.patch == proposal().patch


@pytest.mark.threat(11)
@pytest.mark.promise(2)
def test_stamped_and_as_planned_means_it_happened() -> None:
    done = after_target(execution_id(plan(L4).digest))
    step = next_step(in_execution(target=done), NOW)
    assert isinstance(step, Save)
    assert step.status.executions[0].state == "Applied"
    assert cond(step, "Executed") == ("True", Reason.APPLIED.value)
    assert step.status.verification is not None
    assert (step.status.verification.started_at, len(step.status.verification.baseline)) == (NOW, 4)


def test_it_happened_counts_also_when_a_stop_came_since() -> None:
    done = after_target(execution_id(plan(L4).digest))
    step = next_step(in_execution(target=done, stop=Stop(where="shop")), NOW)
    assert isinstance(step, Save)
    assert step.status.executions[0].state == "Applied"


MINE = execution_id(plan(L4).digest)


@pytest.mark.threat(11)
@pytest.mark.promise(2)
@pytest.mark.parametrize(
    "target",
    [
        changed(deployment(), ("metadata", "labels", EXECUTION_LABEL), MINE),  # applied, then put back by somebody
        changed(deployment(template("8")), ("metadata", "labels", EXECUTION_LABEL), MINE),  # applied, then changed again
    ],
    ids=["put back", "changed again"],
)
@pytest.mark.parametrize("stop", [Stop(), Stop(where="shop")])
def test_a_stamp_without_the_planned_state_is_never_applied_a_second_time(target: Any, stop: Stop) -> None:
    """One committed effect per execution id: a stamp proves that it was sent, whatever came after."""
    step = next_step(in_execution(target=target, stop=stop), NOW)
    assert isinstance(step, Settle)
    assert step.execution.result == "Superseded"


@pytest.mark.threat(11)
@pytest.mark.promise(2)
def test_the_planned_state_without_the_stamp_is_somebody_elses() -> None:
    step = next_step(in_execution(target=after_target("no-another")), NOW)
    assert isinstance(step, Settle)
    assert step.execution.result == "Superseded"


@pytest.mark.promise(1)
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"stop": Stop(where="shop")}, Reason.STOPPED),
        ({"stop": Stop(where="nightorders-system")}, Reason.STOPPED),
        ({"spec": {"suspend": True}}, Reason.SUSPENDED),
        ({"meta": {"deletionTimestamp": stamp(NOW)}}, Reason.SUSPENDED),
        ({"owner": ARGO}, Reason.LEVEL_TOO_LOW),  # an owner is 30 points of risk; at L3 its own gate refuses
        ({"owner": ARGO, "level": L3}, Reason.OWNED_ELSEWHERE),
        ({"orders": orders(policy("a"), policy("b"))}, Reason.LEVEL_TOO_LOW),
        ({"orders": leveled(L3)}, Reason.LEVEL_TOO_LOW),
        ({"orders": orders(cluster=(ceiling("L3"),))}, Reason.LEVEL_TOO_LOW),
        ({"orders": orders(unreadable=("x",))}, Reason.LEVEL_TOO_LOW),
        ({"guard": Proof(False, "narrowed")}, Reason.LEVEL_TOO_LOW),
        ({"schemas": Proof(False, "old")}, Reason.LEVEL_TOO_LOW),
        ({"ledger": None}, Reason.LEVEL_TOO_LOW),
        ({"target": deployment(notes={"nightorders.dev/max-level": "L3"})}, Reason.LEVEL_TOO_LOW),
        ({"forward": None, "patch_problem": "ReplicaSet/checkout-6 is gone"}, Reason.NOT_APPLIED),
    ],
)
def test_whatever_turned_against_it_before_the_effect_ends_it_unapplied(fields: dict[str, Any], reason: Reason) -> None:
    step = next_step(in_execution(**fields), NOW)
    assert isinstance(step, Settle)
    assert (step.execution.result, step.announce[0]) == ("NotApplied", reason)
    assert (step.status.plan, step.status.verification) == (None, None)


HELD = {"name": "audit", "from": stamp(NOW - SECOND), "until": stamp(NOW + HOUR)}


def frozen(emergency: str) -> Any:
    return orders(policy("web", rule_json(approval={"emergency": emergency}), freezes=[HELD]))


@pytest.mark.parametrize(
    ("level", "emergency", "ran_as", "reason"),
    [
        (L4, "Deny", False, Reason.LEVEL_TOO_LOW),
        (L4, "Allow", False, Reason.LEVEL_TOO_LOW),
        (L3, "Deny", False, Reason.LEVEL_TOO_LOW),
        (L3, "Allow", False, Reason.FROZEN),  # approved, but not for a freeze
        (L3, "Allow", True, None),
        (L3, "Deny", True, Reason.LEVEL_TOO_LOW),  # the emergency path was closed since
    ],
)
def test_a_freeze_that_begins_before_the_effect_stops_it(level: Level, emergency: str, ran_as: bool, reason: Reason | None) -> None:
    p = plan(level)
    status = running_status(level=level, p=p, executions=(execution("Reserved", p, emergency=ran_as),))
    step = next_step(in_execution(status=status, orders=frozen(emergency)), NOW)
    if reason is None:
        assert isinstance(step, Apply)
    else:
        assert isinstance(step, Settle)
        assert (step.execution.result, step.announce[0]) == ("NotApplied", reason)
        assert reason is not Reason.FROZEN or "freeze audit began before the action" in step.execution.message


def test_what_is_protected_since_is_not_touched() -> None:
    step = next_step(in_execution(orders=orders(cluster=(cluster_policy(protected=[{"name": "p"}]),))), NOW)
    assert isinstance(step, Settle)
    assert (step.execution.result, step.announce[0]) == ("NotApplied", Reason.PROTECTED)


@pytest.mark.parametrize(
    ("ages", "trial", "reason"),
    [
        ((70, 71, 72), "no-other", Reason.BREAKER_OPEN),  # somebody else's trial runs
        ((70, 71, 72), "", None),  # this is the trial
        ((1, 2, 3), "", Reason.LEVEL_TOO_LOW),
        ((1, 2), "", None),
    ],
)
def test_the_breaker_is_looked_at_once_more(ages: tuple[int, ...], trial: str, reason: Reason | None) -> None:
    mine = execution_id(plan(L3).digest)
    failed = tuple(outcome(f"no-f{m}", at=NOW - m * MINUTE, result="Undone") for m in ages)
    held = (reservation(trial or mine, workload="Deployment/cart" if trial else "Deployment/checkout"),)
    step = next_step(in_execution(level=L3, ledger=ledger(outcomes=failed, reservations=held)), NOW)
    if reason is None:
        assert isinstance(step, Apply)
    else:
        assert isinstance(step, Settle)
        assert (step.execution.result, step.announce[0]) == ("NotApplied", reason)


@pytest.mark.parametrize(("level", "goes_on"), [(L4, False), (L3, False)])
def test_an_incident_taken_before_the_effect_stops_it(level: Level, goes_on: bool) -> None:
    step = next_step(in_execution(level=level, annotations={f"{TAKE_PREFIX}x": "eve"}), NOW)
    assert isinstance(step, Apply) is goes_on
    assert isinstance(step, Settle)
    assert "eve took this Incident" in step.execution.message


@pytest.mark.parametrize(("age", "result"), [(60 * SECOND, None), (61 * SECOND, "NotApplied"), (6 * MINUTE, "NotApplied")])
def test_a_reservation_that_grew_old_is_not_carried_out_alone(age: timedelta, result: str | None) -> None:
    reserved = execution("Reserved", plan(L4), reserved_at=NOW - age)
    step = next_step(in_execution(status=running_status(executions=(reserved,))), NOW)
    assert isinstance(step, Apply) if result is None else isinstance(step, Settle)


@pytest.mark.parametrize("orders_now", [leveled(L4), leveled(L3)])
def test_an_approved_execution_needs_l3_only(orders_now: Any) -> None:
    assert isinstance(next_step(in_execution(level=L3, orders=orders_now), NOW), Apply)


@pytest.mark.promise(1)
def test_a_changed_target_is_not_applied_to() -> None:
    step = next_step(in_execution(target=deployment(template("8"))), NOW)
    assert isinstance(step, Settle)
    assert step.execution.result == "Superseded"


def test_only_status_and_version_moved_is_still_the_same_target() -> None:
    moved = changed(changed(deployment(), ("metadata", "resourceVersion"), "999"), ("status", "replicas"), 1)
    step = next_step(in_execution(target=moved), NOW)
    assert isinstance(step, Apply)
    assert step.target.resource_version == "999"


@pytest.mark.parametrize("state", ["Reserved", "Applied", "Undoing"])
def test_a_target_that_cannot_be_read_is_waited_for(state: str) -> None:
    assert isinstance(next_step(in_execution(state, target=UNSEEN), NOW), Idle)


@pytest.mark.parametrize("target", [GONE, changed(deployment(), ("metadata", "uid"), "uid-recreated")], ids=["gone", "made anew"])
@pytest.mark.parametrize(("state", "result"), [("Reserved", "NotApplied"), ("Applied", "Superseded"), ("Undoing", "Superseded")])
def test_a_deleted_target_ends_the_execution(state: str, result: str, target: Any) -> None:
    step = next_step(in_execution(state, target=target), NOW)
    assert isinstance(step, Settle)
    assert step.execution.result == result


@pytest.mark.promise(4)
@pytest.mark.parametrize(
    "fields",
    [
        {"stop": Stop(unknown="ConfigMap/nightorders-stop in shop: failed: time-out")},
        {"unknown": ("policies: time-out",)},
        {"forward": None, "patch_problem": "ReplicaSet/checkout-6 cannot be read (failed: 500)", "patch_unread": True},
    ],
)
@pytest.mark.parametrize(
    ("waited", "result"), [(MINUTE, None), (2 * MINUTE - SECOND, None), (2 * MINUTE, "NotApplied"), (HOUR, "NotApplied")]
)
def test_what_cannot_be_told_right_now_is_asked_again_for_a_while_and_nothing_is_done(fields: Any, waited: Any, result: str | None) -> None:
    """A request that failed between approval and effect neither acts nor throws the approval away."""
    reserved = execution("Reserved", plan(L4), reserved_at=NOW - waited)
    step = next_step(in_execution(status=running_status(executions=(reserved,)), **fields), NOW)
    if result is None:
        assert isinstance(step, Idle)
    else:
        assert isinstance(step, Settle)
        assert step.execution.result == result


@pytest.mark.parametrize(("waited", "given_up"), [(timedelta(0), False), (10 * MINUTE - SECOND, False), (10 * MINUTE, True)])
def test_an_undo_is_not_given_up_for_one_read_that_failed(waited: timedelta, given_up: bool) -> None:
    undoing = execution("Undoing", plan(L4), undo_started_at=NOW - waited)
    s = in_execution("Undoing", status=running_status("Undoing", executions=(undoing,)), backward=None, patch_unread=True)
    step = next_step(replace(s, patch_problem="ReplicaSet/checkout-7 cannot be read (failed: 503)"), NOW)
    assert isinstance(step, Settle if given_up else Idle)


# ---------------------------------------------------------------- verifying


EARLIER = NOW - 15 * SECOND  # one interval ago
ROUND_BEFORE = samples(EARLIER)


def applied(
    measured: Any, *, samples_before: Any = ROUND_BEFORE, started: timedelta = 4 * MINUTE, rounds: int = 3, **fields: Any
) -> Situation:
    v = verifying(
        started=NOW - started,
        samples=rounds,
        measurements=samples_before,
        baseline=fields.pop("baseline", ()),
        passing_since=fields.pop("since", None),
    )
    return in_execution("Applied", status=running_status("Applied", verification=v, **fields.pop("status", {})), samples=measured, **fields)


def test_a_sample_is_not_taken_before_it_is_due() -> None:
    step = next_step(applied((), started=60 * SECOND, samples_before=samples(NOW - 5 * SECOND)), NOW)
    assert step == Idle("next sample", 10 * SECOND)


def test_no_measurement_in_this_pass_is_no_verdict() -> None:
    assert isinstance(next_step(applied((), started=10 * MINUTE), NOW), Idle)


def test_recovered_closes_the_incident() -> None:
    step = next_step(applied(samples(), started=5 * MINUTE, since=NOW - 4 * MINUTE), NOW)
    assert isinstance(step, Settle)
    assert step.execution.result == "Recovered"
    assert cond(step, "Closed") == ("True", Reason.RECOVERED.value)
    assert cond(step, "Verified") == ("True", Reason.RECOVERED.value)
    assert step.status.verification is not None
    assert step.status.verification.verdict == "Recovered"


def test_worse_once_is_looked_at_again_and_worse_twice_is_undone() -> None:
    worse = samples(serving="Fail")
    assert cond(next_step(applied(worse), NOW), "Executed") is None
    step = next_step(applied(worse, samples_before=samples(EARLIER, serving="Fail")), NOW)
    assert isinstance(step, Save)
    assert (step.status.executions[0].state, step.again) == ("Undoing", timedelta(0))
    assert cond(step, "Verified") == ("False", Reason.WORSE.value)


@pytest.mark.parametrize(
    ("measured", "verify", "result"),
    [
        (samples(symptom="Fail"), {}, "Undoing"),
        (samples(symptom="Fail"), {"onUnchanged": "Escalate"}, "Escalated"),
        (samples(symptom="NoData"), {}, "Escalated"),
        (samples(symptom="NoData"), {"onNoData": "Undo"}, "Undoing"),
        (samples(serving="Fail"), {}, "Undoing"),
        (samples(serving="Fail"), {"onWorse": "Escalate"}, "Escalated"),
    ],
)
def test_at_the_end_of_the_window_the_policy_decides_what_to_do(measured: Any, verify: dict[str, Any], result: str) -> None:
    spec = {"on_worse": "Undo", "on_unchanged": "Undo", "on_no_data": "Escalate"}
    names = {"onWorse": "on_worse", "onUnchanged": "on_unchanged", "onNoData": "on_no_data"}
    p = plan(L4)
    p = p.model_copy(update={"verify": p.verify.model_copy(update={**spec, **{names[k]: v for k, v in verify.items()}})})
    step = next_step(applied(measured, started=5 * MINUTE, status={"p": p, "executions": (execution("Applied", p),)}), NOW)
    if result == "Undoing":
        assert isinstance(step, Save)
        assert step.status.executions[0].state == "Undoing"
    else:
        assert isinstance(step, Settle)
        assert step.execution.result == result
        assert cond(step, "Closed") == ("False", Reason.ESCALATED.value)


@pytest.mark.threat(18)
def test_a_metric_alone_escalates() -> None:
    p = plan(L4)
    check = {"name": "errors", "promql": "x", "max": "0.01"}
    p = p.model_copy(update={"verify": p.verify.model_copy(update={"checks": (CheckSpec(**check),)})})
    status = {"p": p, "executions": (execution("Applied", p),)}
    s = applied(
        (*samples(), sample("errors", "Fail", "0.5")), started=5 * MINUTE, baseline=(sample("errors", "Fail", "0.02"),), status=status
    )
    step = next_step(s, NOW)
    assert isinstance(step, Settle)
    assert step.execution.result == "Escalated"


@pytest.mark.parametrize("target", [deployment(template("8")), deployment()], ids=["to something new", "back"])
def test_somebody_elses_change_is_not_undone(target: Any) -> None:
    step = next_step(applied(samples(serving="Fail"), samples_before=samples(serving="Fail"), target=target), NOW)
    assert isinstance(step, Settle)
    assert (step.execution.result, step.announce[0]) == ("Superseded", Reason.SUPERSEDED)


def test_verification_goes_on_while_stopped_suspended_or_deleted() -> None:
    for fields in ({"stop": Stop(where="shop")}, {"spec": {"suspend": True}}, {"meta": {"deletionTimestamp": stamp(NOW)}}):
        worse = samples(serving="Fail")
        step = next_step(applied(worse, samples_before=samples(EARLIER, serving="Fail"), **fields), NOW)
        assert isinstance(step, Save)
        assert step.status.executions[0].state == "Undoing"


# ---------------------------------------------------------------- undoing


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stop": Stop(where="shop")},
        {"spec": {"suspend": True}},
        {"orders": replace(orders(), policies=())},
        {"guard": Proof(False, "")},
    ],
)
def test_an_undo_is_not_held_up_by_what_holds_up_new_actions(fields: dict[str, Any]) -> None:
    assert isinstance(next_step(in_execution("Undoing", **fields), NOW), Undo)


def test_an_undo_does_not_go_over_somebody_elses_change() -> None:
    step = next_step(in_execution("Undoing", target=deployment(template("8"))), NOW)
    assert isinstance(step, Settle)
    assert step.execution.result == "Superseded"


def test_an_undo_whose_bytes_are_gone_calls_a_human() -> None:
    step = next_step(in_execution("Undoing", backward=None, patch_problem="ReplicaSet/checkout-7 is gone"), NOW)
    assert isinstance(step, Settle)
    assert step.execution.result == "Escalated"
    assert "ReplicaSet/checkout-7 is gone" in step.execution.message


# ---------------------------------------------------------------- after the end


@pytest.mark.parametrize("result", ["Undone", "Escalated", "Superseded"])
def test_after_an_action_that_did_not_help_a_human_decides(result: str) -> None:
    status = staged_status(L4, executions=(execution("Ended", id="no-1", result=result),))
    step = next_step(situation(status), NOW)
    assert cond(step, "Planned") == ("False", Reason.STOPPED_ACTING.value)
    assert of(step).plan is None


@pytest.mark.parametrize(("times", "goes_on"), [(1, True), (2, False)])
def test_two_executions_that_could_not_be_applied_are_enough(times: int, goes_on: bool) -> None:
    ended = tuple(execution("Ended", id=f"no-{i}", result="NotApplied") for i in range(times))
    step = next_step(situation(staged_status(L4, executions=ended)), NOW)
    assert isinstance(step, Reserve) is goes_on


def test_a_finalizer_that_outlived_its_execution_is_taken_off() -> None:
    for status in (staged_status(L4), IncidentStatus(), staged_status(L4, executions=(execution("Ended", result="Recovered"),))):
        assert isinstance(next_step(situation(inc=incident(status, meta={"finalizers": [FINALIZER]})), NOW), ReleaseFinalizer)


def test_a_deleted_incident_starts_nothing() -> None:
    step = next_step(situation(inc=incident(staged_status(L4), meta={"deletionTimestamp": stamp(NOW)})), NOW)
    assert isinstance(step, Idle)


def test_a_pass_that_would_write_what_is_there_writes_nothing() -> None:
    status, step = IncidentStatus(), None
    for n in range(3):
        at = NOW + n * MINUTE
        step = next_step(situation(status, orders=orders(policy(labels={"tier": "db"})), looked_at=at), at)
        status = step.status if isinstance(step, Save) else status
    assert step == Idle("nothing new", steps.LOOK_AGAIN)


def test_an_incident_that_moves_again_is_no_longer_stalled() -> None:
    stalled = condition("Stalled", "True", Reason.TRY_AGAIN)
    step = next_step(situation(IncidentStatus(conditions=(stalled,))), NOW)
    assert cond(step, "Stalled") is None
    status = running_status(
        "Applied",
        verification=verifying(started=NOW - 5 * MINUTE, samples=3, passing_since=NOW - 4 * MINUTE, measurements=samples(EARLIER)),
    )
    status = status.model_copy(update={"conditions": (*status.conditions, stalled)})
    step = next_step(in_execution("Applied", status=status, samples=samples()), NOW)
    assert cond(step, "Closed") == ("True", Reason.RECOVERED.value)
    assert cond(step, "Stalled") is None


def test_caps_of_the_preflight_count_again_before_the_effect() -> None:
    step = next_step(in_execution(caps=(Speaker(who="preflight", level=L2, because="barrier"),)), NOW)
    assert isinstance(step, Settle)
    assert step.execution.result == "NotApplied"
