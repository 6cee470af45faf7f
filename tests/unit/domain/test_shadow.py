"""A policy in Shadow decides, records and touches nothing; when it is over, that is held against what really happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from nightorders.api.meta import Level, find_condition
from nightorders.api.v1alpha1 import IncidentStatus
from nightorders.api.v1alpha1.incident import Shadow
from nightorders.api.v1alpha1.ledger import LedgerSpec, ShadowScore
from nightorders.domain import ledger as books
from nightorders.domain.diagnosis import Finding
from nightorders.domain.digest import spec_sha256
from nightorders.domain.gates import Rollout, Stop
from nightorders.domain.journal import breaks
from nightorders.domain.reasons import Reason
from nightorders.domain.steps import Apply, Reserve, Save, Settle, Stage, next_step
from tests.unit.domain.make import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    after_target,
    condition,
    deployment,
    diagnosis,
    hypothesis,
    in_execution,
    incident,
    ledger,
    orders,
    outcome,
    plan,
    policy,
    rule_json,
    situation,
    staged_status,
    template,
)

BEFORE, AFTER = (spec_sha256(d.at("spec")) for d in (deployment(), after_target()))


def shadow(level: str = "L4", **fields: Any) -> Any:
    return orders(policy("web", rule_json(level=level), enforcement="Shadow", **fields))


def saved(step: object) -> IncidentStatus:
    assert isinstance(step, Save), step
    return step.status


def decided(step: object) -> Shadow:
    made = saved(step).shadow
    assert made is not None
    return made


# ---------------------------------------------------------------- it decides and touches nothing


@pytest.mark.parametrize(
    ("level", "would"),
    [
        ("L4", "would have acted alone: RollbackWorkload, revision 7 → 6"),
        ("L3", "would have asked for an approval: RollbackWorkload"),
        ("L2", "would have advised: RollbackWorkload"),
        ("L1", "would have refused (LevelTooLow): RollbackWorkload holds at L1 here: read-only (RemediationPolicy/web rule rollback)"),
    ],
)
def test_it_records_what_it_would_have_done(level: str, would: str) -> None:
    step = next_step(situation(orders=shadow(level)), NOW)
    made = decided(step)
    assert made.would.startswith(would)
    assert (made.level, made.before, made.after, made.score) == (Level(level), BEFORE, AFTER, "Open")
    assert (made.rule, made.at) == ("RemediationPolicy/web rule rollback", NOW)
    status = saved(step)
    planned = find_condition(status.conditions, "Planned")
    assert planned is not None
    assert (planned.status, planned.reason) == ("False", Reason.SHADOW.value)
    assert planned.message.endswith("web is in Shadow, so nothing is touched")
    assert (status.plan, status.executions) == (None, ())
    assert [(t.kind, t.what.startswith(f"shadow: {would}"[:60])) for t in status.timeline if t.what.startswith("shadow")] == [
        ("Decision", True)
    ]


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"stop": Stop(where="shop")}, "would have refused (Stopped)"),
        ({"ledger": ledger(outcomes=(outcome(workload="Deployment/checkout"),))}, "would have refused (Cooldown)"),
    ],
)
def test_it_says_which_gate_would_have_refused(fields: dict[str, Any], refusal: str) -> None:
    assert decided(next_step(situation(orders=shadow(), **fields), NOW)).would.startswith(refusal)


@pytest.mark.parametrize("level", [Level.L2, Level.L3, Level.L4])
def test_a_plan_that_waits_is_withdrawn_when_the_policy_goes_into_shadow(level: Level) -> None:
    step = next_step(situation(staged_status(level), orders=shadow()), NOW)
    assert not isinstance(step, (Stage, Reserve, Apply))
    assert saved(step).plan is None


def test_an_execution_that_was_reserved_is_not_carried_out_any_more() -> None:
    step = next_step(in_execution(orders=shadow()), NOW)
    assert isinstance(step, Settle)
    assert (step.execution.result, step.announce[0]) == ("NotApplied", Reason.SHADOW)


def test_the_same_decision_is_told_once() -> None:
    status, lines = IncidentStatus(), set()
    for n in range(6):
        at = NOW + n * MINUTE
        step = next_step(situation(status, orders=shadow(), looked_at=at), at)
        status = step.status if isinstance(step, Save) else status
        lines.add(len([t for t in status.timeline if t.what.startswith("shadow")]))
    assert lines == {1}
    assert status.shadow is not None
    assert status.shadow.at == NOW


def test_numbers_that_move_with_the_clock_are_no_new_decision() -> None:
    """Each pass would have been a line that never rolls up."""
    status = IncidentStatus()
    since = NOW - 30 * SECOND
    for n in range(20):
        at = NOW + n * 12 * SECOND
        rolling = Rollout(under_way=True, past_deadline=False, own_change=True, terminal_since=since, progress="1 of 3")
        status = saved(next_step(situation(status, orders=shadow(), rollout=rolling, looked_at=at), at))
    assert [t.kind for t in status.timeline].count("Decision") == 1
    assert "held for 30 s" in (status.shadow.would if status.shadow else "")


def test_another_decision_is_told() -> None:
    first = saved(next_step(situation(orders=shadow(), stop=Stop(where="shop")), NOW))
    second = saved(next_step(situation(first, orders=shadow()), NOW))
    assert [t.what.split(":")[1] for t in second.timeline if t.what.startswith("shadow")] == [
        " would have refused (Stopped)", " would have acted alone",
    ]  # fmt: skip
    assert breaks(second.timeline, incident().metadata.uid) == []


# ---------------------------------------------------------------- the score


def over(target: Any = None, made: Shadow | None = None, now: datetime = NOW) -> Any:
    """Healthy for a minute, after a fault that a policy in Shadow decided on."""
    made = made or Shadow(
        at=NOW - HOUR, action=plan().action, level=Level.L4, would="would have acted alone", before=BEFORE, after=AFTER,
        rule="RemediationPolicy/web rule rollback",
    )  # fmt: skip
    status = IncidentStatus(
        conditions=(condition("Healthy", "True", Reason.NO_FAULT),), cause="ImageAccess", hypotheses=(hypothesis(),), shadow=made
    )
    found = diagnosis(finding=Finding.NO_FAULT)
    return next_step(situation(status, orders=shadow(), diagnosis=found, proposal=None, target=target or after_target()), now)


@pytest.mark.parametrize(
    ("target", "score", "says"),
    [
        (after_target(), "Agreed", "a human did what would have been done, and it helped"),
        (deployment(), "Needless", "it recovered while nobody changed the target"),
        (deployment(template("8")), "Differed", "a human changed the target in another way"),
        (deployment(spec={"replicas": 9}), "Differed", "in another way"),
    ],
)
def test_what_really_happened_scores_the_decision(target: Any, score: str, says: str) -> None:
    step = over(target)
    made = decided(step)
    assert (made.score, says in made.message) == (score, True)
    assert step.note == ShadowScore(
        incident_uid="uid-incident", policy="web", action=plan().action, workload="Deployment/checkout", at=NOW, score=score
    )  # fmt: skip
    assert any(t.kind == "Decision" and t.what.startswith(f"shadow: {score}") for t in saved(step).timeline)


def test_scaling_by_an_autoscaler_is_no_humans_change() -> None:
    digests = {"before": spec_sha256(deployment().at("spec"), scaled=True), "after": spec_sha256(after_target().at("spec"), scaled=True)}
    made = Shadow(at=NOW, action=plan().action, level=Level.L4, would="x", rule="RemediationPolicy/web rule r", **digests)
    assert decided(over(deployment(spec={"replicas": 9}), made)).score == "Needless"
    assert decided(over(after_target(base=deployment(spec={"replicas": 9})), made)).score == "Agreed"


def test_a_score_is_given_once() -> None:
    done = decided(over())
    assert over(made=done).note is None
    closed = saved(over())
    again = next_step(situation(closed, orders=shadow(), diagnosis=diagnosis(finding=Finding.NO_FAULT), proposal=None), NOW + HOUR)
    assert not isinstance(again, Save)


def test_without_a_decision_in_shadow_there_is_nothing_to_score() -> None:
    status = IncidentStatus(conditions=(condition("Healthy", "True", Reason.NO_FAULT),), cause="ImageAccess")
    step = next_step(situation(status, diagnosis=diagnosis(finding=Finding.NO_FAULT), proposal=None), NOW)
    assert isinstance(step, Save)
    assert step.note is None


def test_the_note_goes_into_the_ledger_once_an_incident() -> None:
    note = over().note
    once = books.note(LedgerSpec(), note)
    assert books.note(once, note) == once
    other = note.model_copy(update={"incident_uid": "uid-2"})
    assert len(books.note(once, other).shadows) == 2
    changed = books.note(once, note.model_copy(update={"score": "Differed"}))
    assert [s.score for s in changed.shadows] == ["Differed"]
