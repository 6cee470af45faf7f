"""When a human is called, and what the message says and never says."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from nightorders.api.meta import TAKE_PREFIX, Condition
from nightorders.api.v1alpha1.incident import (
    Autonomy,
    Delivery,
    Escalation,
    Evidence,
    Execution,
    Incident,
    IncidentStatus,
    Owner,
    Phase,
    Speaker,
    Taken,
)
from nightorders.api.v1alpha1.policy import Escalate
from nightorders.domain import escalation
from nightorders.domain.escalation import Call, answered, begun, due, pause, retries, waiting, words
from nightorders.domain.record import phase_of
from tests.unit.domain.make import HOUR, MINUTE, NOW, SECOND, incident

SPEC = Escalate(after="15m", repeat="1h", to=("oncall", "pager"))
SUMMARY = NOW - 10 * MINUTE  # five minutes before a call is due


def condition(kind: str, status: str, reason: str, message: str = "because 3 of 3 pods fail", at: datetime = SUMMARY) -> Condition:
    return Condition.model_validate({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at})


FAULT = condition("Diagnosed", "True", "OriginShown")
STAGED = condition("Planned", "True", "Staged")
NO_PLAN = condition("Planned", "False", "NoActionFits")
WAITING = condition("Approved", "False", "Waiting", "needs 1 more of 2 approvals for plan sha256:1f3c…")
UNDONE = condition("Closed", "False", "Undone", at=NOW - MINUTE)
FAILED = condition("Closed", "False", "Escalated", at=NOW - MINUTE)


def execution(state: str = "Ended", result: str | None = "Undone", at: datetime = NOW - MINUTE) -> Execution:
    sha = "sha256:" + "0" * 64
    return Execution.model_validate(
        {
            "id": "no-1", "action": "RollbackWorkload", "by": "operator", "state": state, "planDigest": sha, "reservedAt": at - MINUTE,
            "endedAt": at if state == "Ended" else None, "before": sha, "after": sha, "result": result if state == "Ended" else None,
        }
    )  # fmt: skip


def case(*conditions: Condition, annotations: dict[str, str] | None = None, suspend: bool = False, **status: Any) -> Incident:
    fields = {"summary": "Release 7 of checkout names an image that does not exist.", "first_summary_at": SUMMARY, **status}
    made = IncidentStatus(conditions=conditions, **fields)
    made = made.model_copy(update={"phase": phase_of(made, suspended=suspend)})
    return incident(made, annotations=annotations, suspend=suspend)


AT_AFTER = SUMMARY + 15 * MINUTE
TABLE = {
    "triage": (case(), Phase.TRIAGE, None),
    "progressing": (case(condition("Diagnosed", "False", "Progressing")), Phase.WAITING, None),
    "no fault": (case(condition("Diagnosed", "True", "NoFault"), condition("Planned", "False", "NoPlanNeeded")), Phase.DIAGNOSED, None),
    "healthy": (case(FAULT, NO_PLAN, condition("Healthy", "True", "NoFault")), Phase.DIAGNOSED, None),
    "fault, no plan": (case(FAULT, NO_PLAN), Phase.DIAGNOSED, AT_AFTER),
    "origin unknown": (case(condition("Diagnosed", "False", "OriginUnknown"), condition("Planned", "False", "CategoryUnknown")), Phase.DIAGNOSED, AT_AFTER),
    "rejected": (case(FAULT, condition("Planned", "False", "Rejected")), Phase.DIAGNOSED, AT_AFTER),
    "shadow": (case(FAULT, condition("Planned", "False", "Shadow")), Phase.DIAGNOSED, AT_AFTER),
    "advised": (case(FAULT, STAGED, condition("Approved", "False", "Advised")), Phase.ADVISED, AT_AFTER),
    "awaiting approval": (case(FAULT, STAGED, WAITING), Phase.AWAITING_APPROVAL, AT_AFTER),
    "about to act": (case(FAULT, STAGED, condition("Approved", "True", "NotRequired")), Phase.ADVISED, None),
    "executing": (case(FAULT, STAGED, executions=(execution("Reserved"),)), Phase.EXECUTING, None),
    "verifying": (case(FAULT, STAGED, executions=(execution("Applied"),)), Phase.VERIFYING, None),
    "undoing": (case(FAULT, STAGED, executions=(execution("Undoing"),)), Phase.UNDOING, None),
    "stalled": (case(FAULT, condition("Stalled", "True", "TryAgain")), Phase.STALLED, AT_AFTER),
    "stalled in an execution": (case(FAULT, condition("Stalled", "True", "TryAgain"), executions=(execution("Applied"),)), Phase.VERIFYING, AT_AFTER),
    "stalled without a summary": (case(condition("Stalled", "True", "TargetNotFound", at=NOW), first_summary_at=None), Phase.STALLED, NOW + 15 * MINUTE),
    "undone": (case(FAULT, NO_PLAN, UNDONE, executions=(execution(),)), Phase.UNDONE, "now"),
    "escalated": (case(FAULT, NO_PLAN, FAILED, executions=(execution(result="Escalated"),)), Phase.ESCALATED, "now"),
    "superseded": (case(FAULT, NO_PLAN, FAILED, executions=(execution(result="Superseded"),)), Phase.ESCALATED, "now"),
    "undone, healthy meanwhile": (case(NO_PLAN, UNDONE, condition("Healthy", "True", "NoFault"), executions=(execution(),)), Phase.UNDONE, "now"),
    "recovered": (case(FAULT, condition("Closed", "True", "Recovered"), executions=(execution(result="Recovered"),)), Phase.RECOVERED, None),
    "dismissed": (case(FAULT, condition("Closed", "True", "NoFault")), Phase.DISMISSED, None),
    "suspended": (case(FAULT, NO_PLAN, suspend=True), Phase.SUSPENDED, None),
    "suspended after an undo": (case(FAULT, NO_PLAN, UNDONE, executions=(execution(),), suspend=True), Phase.UNDONE, None),
}  # fmt: skip


@pytest.mark.promise(4)
@pytest.mark.parametrize("name", TABLE)
def test_every_phase(name: str) -> None:
    found, phase, expected = TABLE[name]
    assert found.status.phase is phase
    answer = due(found, SPEC, NOW)
    if expected == "now":
        assert isinstance(answer, Call)
    else:
        assert answer == expected
    if isinstance(expected, datetime):
        assert isinstance(due(found, SPEC, expected), Call)
        assert due(found, SPEC, expected - SECOND) == expected


def test_every_phase_is_in_the_table() -> None:
    assert {phase for _, phase, _ in TABLE.values()} == set(Phase)


def test_a_deleted_incident_calls_nobody() -> None:
    one = TABLE["undone"][0]
    gone = one.model_copy(update={"metadata": one.metadata.model_copy(update={"deletion_timestamp": NOW})})
    assert due(gone, SPEC, NOW) is None


def called(of: Incident, now: datetime) -> Incident:
    """As after a call at that moment."""
    answer = due(of, SPEC, now)
    assert isinstance(answer, Call)
    return of.model_copy(update={"status": begun(of, answer, now)})


def test_it_calls_again_until_it_is_over() -> None:
    one = called(TABLE["fault, no plan"][0], AT_AFTER)
    assert due(one, SPEC, AT_AFTER) == AT_AFTER + HOUR
    assert due(one, SPEC, AT_AFTER + HOUR - SECOND) == AT_AFTER + HOUR
    again = due(one, SPEC, AT_AFTER + HOUR)
    assert isinstance(again, Call)
    assert again.escalation.times == 2
    assert again.escalation.next_at == AT_AFTER + 2 * HOUR
    assert [(d.channel, d.state, d.attempts) for d in again.escalation.deliveries] == [("oncall", "Pending", 0), ("pager", "Pending", 0)]
    closed = one.model_copy(
        update={"status": one.status.model_copy(update={"conditions": (*one.status.conditions, condition("Closed", "True", "Recovered"))})}
    )
    assert due(closed, SPEC, AT_AFTER + HOUR) is None


def test_after_a_long_absence_it_calls_once_and_not_once_per_missed_hour() -> None:
    one = called(TABLE["fault, no plan"][0], AT_AFTER)
    late = AT_AFTER + 10 * HOUR
    assert due(called(one, late), SPEC, late) == late + HOUR


def test_a_failure_calls_at_once_although_it_called_a_minute_before() -> None:
    before = called(TABLE["awaiting approval"][0], AT_AFTER)
    at = AT_AFTER + MINUTE
    failed = case(FAULT, NO_PLAN, UNDONE, executions=(execution(at=at),), escalation=before.status.escalation)
    answer = due(failed, SPEC, at)
    assert isinstance(answer, Call)
    assert answer.escalation.times == 2
    assert due(called(failed, at), SPEC, at + SECOND) == at + HOUR  # and once only


def test_a_failure_is_told_once_when_it_serves_again() -> None:
    one = TABLE["undone, healthy meanwhile"][0]
    assert due(called(one, NOW), SPEC, NOW + 2 * HOUR) is None


TAKEN = Taken(by="ann", at=NOW - 5 * MINUTE)
NOTE = {f"{TAKE_PREFIX}ann": "ann"}


@pytest.mark.parametrize("who", [{"taken": TAKEN}, {"annotations": NOTE}, {"taken": TAKEN, "annotations": NOTE}])
def test_nobody_is_called_while_somebody_is_on_it(who: dict[str, Any]) -> None:
    for name in ("fault, no plan", "advised", "awaiting approval", "stalled"):
        of = TABLE[name][0]
        assert due(case(*of.status.conditions, **who), SPEC, NOW + 10 * HOUR) is None


@pytest.mark.parametrize(
    ("taken", "at_once"),
    [
        (Taken(by="ann", at=NOW - 5 * MINUTE), True),  # before it failed: she may not know
        (Taken(by="ann", at=NOW - SECOND), False),  # after it failed: she knows
    ],
)
def test_the_failure_of_a_taken_incident_is_told(taken: Taken, at_once: bool) -> None:
    one = case(FAULT, NO_PLAN, UNDONE, executions=(execution(),), taken=taken)
    assert isinstance(due(one, SPEC, NOW), Call) is at_once
    if at_once:
        assert due(called(one, NOW), SPEC, NOW + 10 * HOUR) is None  # never again while she has it


def test_a_name_that_is_not_noted_yet_does_not_hide_a_failure() -> None:
    one = case(FAULT, NO_PLAN, UNDONE, executions=(execution(),), annotations=NOTE)
    assert isinstance(due(one, SPEC, NOW), Call)


def test_given_back_it_goes_on() -> None:
    one = called(TABLE["fault, no plan"][0], AT_AFTER)
    taken = one.model_copy(update={"status": one.status.model_copy(update={"taken": Taken(by="ann", at=AT_AFTER + MINUTE)})})
    assert due(taken, SPEC, AT_AFTER + 2 * HOUR) is None
    assert isinstance(due(one, SPEC, AT_AFTER + 2 * HOUR), Call)


# ---------------------------------------------------------------- deliveries


def test_a_restart_between_intention_and_sending_sends() -> None:
    one = called(TABLE["undone"][0], NOW)
    assert retries(one, SPEC) == {"oncall": NOW, "pager": NOW}
    assert due(one, SPEC, NOW) == NOW + HOUR  # no second call for that


def test_what_failed_is_tried_again_with_growing_pauses() -> None:
    one = called(TABLE["undone"][0], NOW)
    status = answered(one, NOW, {"oncall": "", "pager": "channel pager answers with 500"}, NOW + SECOND)
    assert status is not None
    one = one.model_copy(update={"status": status})
    assert retries(one, SPEC) == {"pager": NOW + SECOND + pause(1)}
    assert status.escalation is not None
    assert [(d.channel, d.state, d.attempts, d.message) for d in status.escalation.deliveries] == [
        ("oncall", "Delivered", 1, ""),
        ("pager", "Failed", 1, "channel pager answers with 500"),
    ]
    assert [pause(n) for n in (0, 1, 2, 3)] == [timedelta(0), 5 * SECOND, 10 * SECOND, 20 * SECOND]
    assert pause(10_000) == 10 * MINUTE


def test_the_story_has_one_line_per_call_and_one_per_channel_that_fails() -> None:
    one = called(TABLE["undone"][0], NOW)
    for n in range(5):
        status = answered(one, NOW, {"pager": "channel pager answers with 500"}, NOW + n * SECOND)
        assert status is not None
        one = one.model_copy(update={"status": status})
    assert [(e.kind, e.what.partition(":")[0]) for e in one.status.timeline] == [
        ("Decision", "call 1 to oncall, pager"),
        ("Observation", "call 1 to pager failed"),
    ]


def test_a_late_answer_never_touches_a_later_call() -> None:
    one = called(called(TABLE["undone"][0], NOW), NOW + HOUR)
    assert answered(one, NOW, {"oncall": ""}, NOW + HOUR) is None
    assert answered(TABLE["undone"][0], NOW, {"oncall": ""}, NOW) is None


def test_delivered_stays_delivered() -> None:
    one = called(TABLE["undone"][0], NOW)
    status = answered(one, NOW, {"oncall": ""}, NOW)
    assert status is not None
    after = answered(one.model_copy(update={"status": status}), NOW, {"oncall": "too late"}, NOW + MINUTE)
    assert after == status


@pytest.mark.parametrize(
    "update",
    [
        {"taken": Taken(by="ann", at=NOW + MINUTE)},
        {"conditions": (FAULT, condition("Closed", "True", "Recovered"))},
        {"escalation": None},
    ],
)
def test_nothing_is_sent_again_once_nobody_needs_it(update: dict[str, Any]) -> None:
    one = called(TABLE["undone"][0], NOW)
    assert retries(one.model_copy(update={"status": one.status.model_copy(update=update)}), SPEC) == {}


def test_a_channel_that_the_policy_names_no_more_is_left() -> None:
    one = called(TABLE["undone"][0], NOW)
    assert list(retries(one, SPEC.model_copy(update={"to": ("oncall",)}))) == ["oncall"]


def test_a_call_claims_no_new_observation() -> None:
    """The reconciler has not seen the new generation only because somebody was called."""
    of = TABLE["undone"][0]
    newer = of.model_copy(update={"metadata": of.metadata.model_copy(update={"generation": 9})})
    assert called(newer, NOW).status.observed_generation == of.status.observed_generation


# ---------------------------------------------------------------- the text


def text_of(of: Incident, now: datetime = NOW, breaker: str = "") -> tuple[str, str]:
    wait = waiting(of)
    assert wait is not None
    return words(of, wait, now, breaker)


def test_what_a_message_says() -> None:
    one = case(
        FAULT, STAGED, WAITING, cause="ImageAccess Deployment/checkout · rev 7", grade="A",
        owners=(Owner(who="team-checkout", because="label team"),),
    )  # fmt: skip
    one = called(one, AT_AFTER)
    title, body = text_of(one, AT_AFTER)
    assert title == "[Warning] shop Deployment/checkout: needs an approval"
    assert body == (
        "Warning, Deployment/checkout in namespace shop, AwaitingApproval\n"
        "What: Release 7 of checkout names an image that does not exist.\n"
        "Cause: ImageAccess Deployment/checkout · rev 7 (grade A)\n"
        "Why you: Waiting: needs 1 more of 2 approvals for plan sha256:1f3c…\n"
        "Since: 15 m (2026-07-01 11:50:00Z); call 1, and again at 13:05:00Z until somebody takes it\n"
        "Who may act: holders of the verb approve on this Incident; likely responsible: team-checkout\n"
        "Look: nightorders show checkout-rolloutstuck-0123456789-1 -n shop\n"
        "Approve: nightorders approve checkout-rolloutstuck-0123456789-1 -n shop\n"
        "Take it: nightorders take checkout-rolloutstuck-0123456789-1 -n shop"
    )


@pytest.mark.parametrize("name", ["fault, no plan", "advised", "stalled", "undone", "escalated", "origin unknown"])
def test_only_a_waiting_approval_names_the_approve_command(name: str) -> None:
    _, body = text_of(TABLE[name][0])
    assert "approve" not in body
    assert "Look: nightorders show " in body


@pytest.mark.threat(22)
@pytest.mark.promise(7)
@pytest.mark.threat(23)
def test_evidence_and_diffs_stay_in_the_cluster() -> None:
    sha = "sha256:" + "0" * 64
    evidence = Evidence(id="e1", source="Logs", query="GET logs SECRETQUERY", at=NOW, excerpt="SECRETEXCERPT", sha256=sha)
    one = case(FAULT, NO_PLAN, UNDONE, evidence=(evidence,), executions=(execution(),))
    assert "SECRET" not in "".join(text_of(one))


def test_a_failed_action_says_how_the_breaker_stands() -> None:
    because = "3 failures of RollbackWorkload on Deployments within 1h; open until 13:00:00Z"
    speaker = Speaker(who="breaker", level="L2", because=because)
    said = case(FAULT, NO_PLAN, UNDONE, autonomy=Autonomy(level="L2", detected_level="L3", decided_by=(speaker,)))
    assert f"Breaker: {because}\n" in text_of(said)[1]
    assert f"Breaker: {because}\n" in text_of(TABLE["undone"][0], breaker=because)[1]
    assert "Breaker" not in text_of(TABLE["undone"][0])[1]


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (
            "errors is 0.05, at most 0.01; undone, because 3 of 3 pods fail",
            "errors is 0.05, at most 0.01; undone, because 3 of 3 pods fail\n",
        ),
        ("errors is 0.05, at most 0.01; undoing", "errors is 0.05, at most 0.01; undoing; because 3 of 3 pods fail\n"),
    ],
)
def test_a_failed_action_says_what_was_measured_and_nothing_twice(measured: str, said: str) -> None:
    verified = condition("Verified", "False", "UndoVerified", measured)
    _, body = text_of(case(FAULT, NO_PLAN, UNDONE, verified, executions=(execution(),)))
    assert f"Why you: Undone: {said}" in body


HOSTILE = "@channel <!everyone> [approve](https://evil.example/x) https://evil.example <@U123>\n\u202e*now* password=hunter22"


@pytest.mark.threat(22)
@pytest.mark.promise(3)
@pytest.mark.threat(24)
def test_words_from_the_cluster_cannot_ping_link_or_leak() -> None:
    one = case(
        condition("Diagnosed", "True", "OriginShown"), condition("Planned", "False", "NoActionFits", HOSTILE.replace("\n", " ").replace("\u202e", "")),
        summary=escalation.line(HOSTILE), cause=escalation.line(HOSTILE, 200), grade="D", owners=(Owner(who=escalation.line(HOSTILE, 200), because="x"),),
    )  # fmt: skip
    for text in text_of(one):
        for bad in ("@channel", "<!", "<@", "](", "https://", "hunter22", "\u202e"):
            assert bad not in text


def test_an_image_with_a_digest_is_still_readable() -> None:
    image = "registry.example:5000/checkout@sha256:0123"
    assert image in text_of(case(FAULT, NO_PLAN, summary=f"image {image} is missing"))[1]


def test_the_longest_message_keeps_its_commands() -> None:
    long = "word " * 200
    one = case(
        condition("Diagnosed", "True", "OriginShown"), STAGED, condition("Approved", "False", "Waiting", long),
        summary=long, cause="Unknown " + "x" * 240, grade="D", owners=(Owner(who="o" * 250, because="x"),) * 3,
    )  # fmt: skip
    name = "n" * 240
    one = one.model_copy(update={"metadata": one.metadata.model_copy(update={"name": name})})
    title, body = text_of(one)
    assert len(title) + len(body) <= 1500
    assert body.endswith(f"Take it: nightorders take {name} -n shop")
    assert f"Approve: nightorders approve {name} -n shop\n" in body


def test_a_status_with_all_of_it_can_be_stored() -> None:
    many = tuple(Delivery(channel=f"c{n}", state="Failed", attempts=9, at=NOW, message="x" * 1000) for n in range(8))
    e = Escalation(reason="Waiting", message="x" * 1024, times=3, at=NOW, next_at=NOW, deliveries=many)
    assert IncidentStatus.model_validate(case(FAULT, escalation=e).status.wire()).escalation == e
