"""Status is written in one place: conditions, story, phase."""

from __future__ import annotations

from typing import Any

import pytest

from nightorders.api.v1alpha1 import IncidentStatus, Phase
from nightorders.domain.journal import LIMIT, breaks
from nightorders.domain.reasons import Reason
from nightorders.domain.record import Record, phase_of, running
from tests.unit.domain.make import MINUTE, NOW, condition, execution, incident, plan


def status(*conditions: tuple[str, str, Reason], **fields: Any) -> IncidentStatus:
    return IncidentStatus(conditions=tuple(condition(*c) for c in conditions), **fields)


DIAGNOSED = ("Diagnosed", "True", Reason.ORIGIN_SHOWN)
PLANNED = ("Planned", "True", Reason.STAGED)
WAITS = ("Approved", "False", Reason.WAITING)


@pytest.mark.parametrize(
    ("made", "suspended", "phase"),
    [
        (status(), False, Phase.TRIAGE),
        (status(), True, Phase.SUSPENDED),
        (status(DIAGNOSED), False, Phase.DIAGNOSED),
        (status(("Diagnosed", "False", Reason.ORIGIN_UNKNOWN)), False, Phase.DIAGNOSED),
        (status(("Diagnosed", "False", Reason.PROGRESSING)), False, Phase.WAITING),
        (status(DIAGNOSED, PLANNED, ("Approved", "False", Reason.ADVISED)), False, Phase.ADVISED),
        (status(DIAGNOSED, PLANNED, WAITS), False, Phase.AWAITING_APPROVAL),
        (status(DIAGNOSED, PLANNED, WAITS), True, Phase.SUSPENDED),
        (status(DIAGNOSED, PLANNED, WAITS, executions=(execution("Reserved"),)), True, Phase.EXECUTING),
        (status(DIAGNOSED, executions=(execution("Applied"),)), False, Phase.VERIFYING),
        (status(DIAGNOSED, executions=(execution("Undoing"),)), False, Phase.UNDOING),
        (status(("Stalled", "True", Reason.TRY_AGAIN), executions=(execution("Undoing"),)), False, Phase.UNDOING),
        (status(DIAGNOSED, ("Closed", "True", Reason.RECOVERED)), False, Phase.RECOVERED),
        (status(DIAGNOSED, ("Closed", "True", Reason.RECOVERED_BY_ITSELF)), True, Phase.RECOVERED),
        (status(DIAGNOSED, ("Closed", "True", Reason.NO_FAULT)), False, Phase.DISMISSED),
        (status(DIAGNOSED, ("Closed", "False", Reason.UNDONE), executions=(execution("Ended"),)), False, Phase.UNDONE),
        (status(DIAGNOSED, PLANNED, ("Closed", "False", Reason.ESCALATED)), False, Phase.ESCALATED),
        (status(DIAGNOSED, ("Stalled", "True", Reason.TARGET_NOT_FOUND)), True, Phase.STALLED),
        (status(DIAGNOSED, ("Stalled", "False", Reason.MOVING)), False, Phase.DIAGNOSED),
    ],
)
def test_the_phase_follows_from_conditions(made: IncidentStatus, suspended: bool, phase: Phase) -> None:
    assert phase_of(made, suspended=suspended) is phase


def test_a_transition_time_moves_only_when_the_status_flips() -> None:
    made = status(("Approved", "False", Reason.WAITING))
    same = Record(incident(made), NOW).condition("Approved", "False", Reason.ADVISED, "other words").done().conditions[0]
    assert (same.reason, same.message, same.last_transition_time) == ("Advised", "other words", NOW - MINUTE)
    flipped = Record(incident(made), NOW).condition("Approved", "True", Reason.APPROVED, "").done().conditions[0]
    assert flipped.last_transition_time == NOW


def test_a_dropped_condition_comes_back_as_new() -> None:
    made = status(("Approved", "False", Reason.WAITING))
    back = Record(incident(made), NOW).drop("Approved").condition("Approved", "False", Reason.WAITING, "").done()
    assert [c.last_transition_time for c in back.conditions] == [NOW]


@pytest.mark.threat(24, 25)
def test_messages_are_safe_and_bounded() -> None:
    made = Record(incident(), NOW).condition("Diagnosed", "True", Reason.LOOKED, "a\x1b[31m\nb\u202e" + "x" * 5000).done().conditions[0]
    assert made.message.startswith("a [31m b")
    assert len(made.message) == 1024


def test_the_generation_is_the_one_that_was_read() -> None:
    made = Record(incident(meta={"generation": 4}), NOW).condition("Diagnosed", "True", Reason.LOOKED, "").done()
    assert (made.observed_generation, made.conditions[0].observed_generation) == (4, 4)


def test_the_same_line_twice_in_a_row_is_one_line() -> None:
    made = Record(incident(), NOW).story("a").story("a").story("b").story("a").story("a", actor="alice").done()
    assert [(t.what, t.actor) for t in made.timeline] == [("a", "operator"), ("b", "operator"), ("a", "operator"), ("a", "alice")]


def test_a_long_story_rolls_up_its_observations_and_keeps_its_end() -> None:
    status = IncidentStatus()
    for n in range(LIMIT + 50):
        status = Record(incident(status), NOW).story(f"line {n}").done()
    made = status.timeline
    assert len(made) <= LIMIT
    assert made[0].what == "line 0"  # the first line covers the Incident's uid and stays
    assert (made[1].kind, made[1].what) == ("RollUp", f"{made[1].count} earlier observations")
    assert (made[-1].seq, made[-1].what) == (LIMIT + 50, f"line {LIMIT + 49}")
    assert breaks(made, incident().metadata.uid) == []


def test_an_execution_is_replaced_by_its_id() -> None:
    first = Record(incident(), NOW).execution(execution("Reserved")).done()
    second = Record(incident(first), NOW).execution(execution("Applied")).done()
    assert [e.state for e in second.executions] == ["Applied"]


def test_the_running_execution_is_the_one_that_has_not_ended() -> None:
    ended, runs = execution("Ended", id="no-1"), execution("Applied", id="no-2")
    assert running(IncidentStatus(executions=(ended, runs))) == runs
    assert running(IncidentStatus(executions=(ended,))) is None


def test_the_printer_column_shows_the_planned_action_and_nothing_without_one() -> None:
    assert Record(incident(), NOW).set(plan=plan()).done().action == "RollbackWorkload"
    assert Record(incident(IncidentStatus(plan=plan())), NOW).set(plan=None).done().action == ""


def test_the_incident_itself_is_not_changed() -> None:
    before = incident()
    Record(before, NOW).condition("Diagnosed", "True", Reason.LOOKED, "").story("x").set(summary="y").done()
    assert before.status == IncidentStatus()
