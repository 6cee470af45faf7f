"""An undo is over when it serves as before, seen twice; or a human is told what is missing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from nightorders.api.meta import find_condition
from nightorders.api.v1alpha1.incident import Measurement, Verification
from nightorders.domain import verification
from nightorders.domain.reasons import Reason
from nightorders.domain.snapshot import KubeObject
from nightorders.domain.steps import Save, Settle, Step, next_step
from tests.unit.domain.make import (
    MINUTE,
    NOW,
    SECOND,
    after_target,
    deployment,
    execution,
    in_execution,
    plan,
    running_status,
    sample,
    samples,
    template,
)

PLAN = plan()


def look(ready: str, dependents: str = "Pass", at: datetime = NOW) -> tuple[Measurement, ...]:
    """What is measured while an undo is verified. `ready` is the number of ready pods, or empty."""
    serving = Measurement(check="serving", at=at, verdict="Pass" if ready else "NoData", value=ready, message="pods could not be listed")
    return (sample("symptom", "Fail"), sample("rollout", "Fail"), serving, sample("dependents", dependents))


def undoing(
    seen: tuple[Measurement, ...],
    *,
    before: str = "3",
    undone_at: datetime | None = None,
    passing_since: datetime | None = None,
    target: KubeObject | None = None,
) -> Step:
    """One pass while the spec is what it was before; the window is 300 s."""
    baseline = tuple(m.model_copy(update={"value": before}) if m.check == "serving" else m for m in samples(NOW - 5 * MINUTE))
    v = Verification(
        verdict="Worse",
        message="serving: 0 pods ready",
        started_at=NOW - 5 * MINUTE,
        until=NOW,
        baseline=baseline,
        passing_since=passing_since,
    )
    e = execution("Undoing", undo_started_at=NOW - MINUTE, undone_at=undone_at)
    status = running_status("Undoing", executions=(e,), verification=v)
    return next_step(in_execution("Undoing", status=status, target=target or deployment(), samples=seen), NOW)


def verified(step: Any) -> tuple[str, str, str]:
    c = find_condition(step.status.conditions, "Verified")
    return (c.status, c.reason, c.message) if c else ("", "", "")


def test_the_first_look_notes_when_it_was_put_back_and_looks_again_soon() -> None:
    step = undoing(look("3"))
    assert isinstance(step, Save)
    (e,) = step.status.executions
    assert (e.state, e.undone_at) == ("Undoing", NOW)
    assert step.again == verification.UNDO_EVERY
    assert verified(step)[:2] == ("False", Reason.UNDOING.value)
    assert step.status.verification is not None
    assert (step.status.verification.verdict, step.status.verification.passing_since) == ("Worse", NOW)


def test_two_good_looks_end_it() -> None:
    step = undoing(look("3"), undone_at=NOW - SECOND, passing_since=NOW - SECOND)
    assert isinstance(step, Settle)
    assert (step.execution.result, step.execution.message) == ("Undone", "as before: 3 of 3 pods ready")
    assert verified(step) == ("False", Reason.UNDO_VERIFIED.value, "Worse: serving: 0 pods ready; undone, as before: 3 of 3 pods ready")
    closed = find_condition(step.status.conditions, "Closed")
    assert closed is not None
    assert (closed.status, closed.reason) == ("False", Reason.UNDONE.value)


def test_what_passed_before_the_undo_says_nothing_about_it() -> None:
    assert isinstance(undoing(look("3"), passing_since=NOW - MINUTE), Save)


def test_two_looks_within_a_second_are_one() -> None:
    step = undoing(look("3"), undone_at=NOW - SECOND / 2, passing_since=NOW - SECOND / 2)
    assert not isinstance(step, Settle)


@pytest.mark.parametrize(
    ("seen", "before", "missing"),
    [
        (look("1"), "3", "1 of 3 pods ready"),
        (look(""), "3", "pods could not be listed"),
        (look("3", "Fail"), "3", "dependents Fail"),
        (look("3", "NoData"), "3", "dependents NoData"),
        (look("3"), "", "how many pods were ready before is not known"),
        ((), "3", "nothing was measured yet"),
    ],
)
def test_until_then_it_is_not_undone_and_after_the_window_a_human_knows_what_is_missing(
    seen: tuple[Measurement, ...], before: str, missing: str
) -> None:
    waiting = undoing(seen, before=before, undone_at=NOW - 299 * SECOND, passing_since=NOW - MINUTE)
    assert isinstance(waiting, Save)
    assert waiting.status.executions[0].state == "Undoing"
    assert waiting.status.verification is not None
    assert waiting.status.verification.passing_since is None
    assert missing in verified(waiting)[2]
    step = undoing(seen, before=before, undone_at=NOW - 300 * SECOND)
    assert isinstance(step, Settle)
    assert step.execution.result == "Escalated"
    assert missing in step.execution.message
    assert verified(step)[:2] == ("False", Reason.UNDO_NOT_VERIFIED.value)
    assert step.warning


def test_its_own_rollout_may_take_down_one_at_the_end_of_the_window() -> None:
    """maxUnavailable is 1: two of three is what the strategy allows, so nobody is called for it."""
    assert isinstance(undoing(look("2"), undone_at=NOW - 299 * SECOND), Save)
    step = undoing(look("2"), undone_at=NOW - 300 * SECOND)
    assert isinstance(step, Settle)
    assert (step.execution.result, step.execution.message) == ("Undone", "2 of 3 pods ready")


def test_more_than_before_is_as_before() -> None:
    step = undoing(look("3"), before="2", undone_at=NOW - SECOND, passing_since=NOW - SECOND)
    assert isinstance(step, Settle)
    assert step.execution.message == "as before: 3 pods ready, 2 before"


def test_what_its_controller_has_not_seen_is_not_judged() -> None:
    stale = deployment(status={"observedGeneration": 6})
    step = undoing(look("3"), undone_at=NOW - SECOND, passing_since=NOW - SECOND, target=stale)
    assert isinstance(step, Save)
    assert "has not seen it yet" in verified(step)[2]


@pytest.mark.parametrize("target", [deployment(template("8")), after_target(PLAN.digest[:10])], ids=["something new", "the action again"])
def test_whoever_changes_it_after_the_undo_keeps_their_change(target: KubeObject) -> None:
    step = undoing((), undone_at=NOW - SECOND, target=target)
    assert isinstance(step, Settle)
    assert step.execution.result == "Superseded"
    assert "theirs" in step.execution.message


def test_down_for_longer_than_the_window_still_looks_twice() -> None:
    first = undoing(look("3"), undone_at=NOW - 3600 * SECOND)
    assert isinstance(first, Save)
    assert isinstance(undoing(look("3"), undone_at=NOW - 3600 * SECOND, passing_since=NOW - SECOND), Settle)
