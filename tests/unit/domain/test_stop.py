"""A stop in the middle: an undo still passes and says so, unless the stop itself denies it."""

from __future__ import annotations

from dataclasses import replace

from nightorders.domain.gates import Stop
from nightorders.domain.reasons import Reason
from nightorders.domain.steps import Save, Settle, Undo, next_step
from tests.unit.domain.make import NOW, after_target, execution, incident, running_status, samples, situation, verifying

ID = execution().id


def failing(**fields: object):  # type: ignore[no-untyped-def]
    status = running_status("Applied", verification=verifying(started=NOW.replace(hour=11)))
    return replace(
        situation(inc=incident(status), target=after_target(ID)),
        samples=samples(serving="Fail", symptom="Fail"),
        **fields,  # type: ignore[arg-type]
    )


def test_an_undo_passes_a_stop_and_says_so() -> None:
    step = next_step(failing(stop=Stop(where="shop")), NOW)
    assert isinstance(step, Save)
    assert step.status.executions[0].state == "Undoing"
    assert "although a stop is in force in shop: it lets an undo pass" in step.status.timeline[-1].what


def test_a_stop_that_denies_the_undo_calls_a_human() -> None:
    step = next_step(failing(stop=Stop(where="shop", undo_denied=True)), NOW)
    assert isinstance(step, Settle)
    assert step.execution.result == "Escalated"
    assert step.announce[0] is Reason.STOPPED
    assert "undo: Deny" in step.execution.message


def test_it_is_read_again_right_before_the_undo() -> None:
    status = running_status("Undoing", verification=verifying())
    s = replace(situation(inc=incident(status), target=after_target(ID)), backward={"spec": {}})
    assert isinstance(next_step(s, NOW), Undo)
    assert isinstance(next_step(replace(s, stop=Stop(where="shop")), NOW), Undo)
    assert isinstance(next_step(replace(s, stop=Stop(where="shop", undo_denied=True)), NOW), Settle)
