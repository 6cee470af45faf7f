"""The breaker, as the Ledger alone tells it: closed, open, half-open with one trial, and again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from nightorders.api.v1alpha1.policy import Breaker as Spec
from nightorders.domain.breaker import Breaker, class_of, state
from tests.unit.domain.make import HOUR, MINUTE, NOW, ROLLBACK, SECOND, ledger, outcome, reservation

SPEC = Spec(failures=3, within="1h", open_for="30m")
PATIENT = Spec(failures=3, within="10h", open_for="5m")


def end(minutes: float, result: str = "Undone", **fields: Any) -> Any:
    """An execution that took a minute and ended so many minutes ago."""
    ended_at = NOW - timedelta(minutes=minutes)
    fields = {"confirmed": "Human", "workload": "Deployment/checkout", **fields}
    return outcome(f"no-{minutes}-{result}", at=ended_at - MINUTE, ended_at=ended_at, result=result, **fields)


def ask(
    *outcomes: Any, spec: Spec = SPEC, kind: str = "Deployment", own: str = "", now: datetime = NOW, held: tuple[Any, ...] = ()
) -> Breaker:
    return state(spec, ledger(outcomes=outcomes, reservations=held), ROLLBACK, kind, now, own)


@pytest.mark.parametrize(
    ("outcomes", "found", "failures"),
    [
        ((), "Closed", 0),
        ((end(1), end(2)), "Closed", 2),
        ((end(1), end(2), end(3)), "Open", 3),
        ((end(1, "Escalated"), end(2, "Undone"), end(3, "Escalated")), "Open", 3),
        ((end(1, "Superseded"), end(2, "NotApplied"), end(3, "Recovered")), "Closed", 0),  # nothing that failed to help
        ((end(1), end(2), end(61)), "Closed", 2),  # the third is older than the hour
        ((end(1), end(2), end(60)), "Open", 3),  # 59 minutes before the last of them
        ((end(1), end(2), end(61.0)), "Closed", 2),
        ((end(1), end(2, "Recovered"), end(3), end(4)), "Open", 3),  # a success in between is no pardon
        ((end(29), end(30), end(31)), "Open", 3),
        ((end(30), end(31), end(32)), "HalfOpen", 3),  # open for 30 minutes, from the last of them
        ((end(500), end(501), end(502)), "HalfOpen", 3),  # until something ends; time alone does not close it
        ((end(1), end(70), end(71), end(72)), "Open", 4),  # the trial failed
        ((end(31), end(70), end(71), end(72)), "HalfOpen", 4),
        ((end(5, "Recovered"), end(70), end(71), end(72)), "Closed", 0),  # the trial helped
        ((end(5, "Recovered", confirmed="No"), end(70), end(71), end(72)), "HalfOpen", 3),  # says only who asked for it
        ((end(5, "Recovered", confirmed="Signal"), end(70), end(71), end(72)), "Closed", 0),
        ((end(5, "Superseded"), end(70), end(71), end(72)), "HalfOpen", 3),  # no answer
        ((end(5, "NotApplied"), end(70), end(71), end(72)), "HalfOpen", 3),
        ((end(45, "Recovered"), end(70), end(71), end(72)), "HalfOpen", 3),  # begun while it was open: no trial
        ((end(1), end(5, "Recovered"), end(70), end(71), end(72)), "Closed", 1),
        ((end(1), end(2), end(3), end(40, "Recovered"), end(75), end(76), end(77)), "Open", 3),  # and opens again
    ],
)
def test_what_recorded_outcomes_make_of_it(outcomes: tuple[Any, ...], found: str, failures: int) -> None:
    b = ask(*outcomes)
    assert (b.state, b.failures) == (found, failures)
    assert ask(*reversed(outcomes)) == b, "the order in which they were written plays no part"


def test_open_says_how_many_and_until_when() -> None:
    b = ask(end(10), end(12), end(14))
    assert (b.since, b.until) == (NOW - 10 * MINUTE, NOW + 20 * MINUTE)
    assert b.because == "3 failures of RollbackWorkload on Deployments within 1h, the last at 2026-07-01 11:50:00Z; open until 12:20:00Z"


def test_it_goes_half_open_to_the_second() -> None:
    three = (end(10), end(12), end(14))
    assert ask(*three, now=NOW + 20 * MINUTE - SECOND).state == "Open"
    b = ask(*three, now=NOW + 20 * MINUTE)
    assert (b.state, b.until, b.trial) == ("HalfOpen", None, "")
    assert b.because.endswith("half-open: one trial, which a human must approve")


def test_half_open_names_the_running_trial_and_not_ones_own() -> None:
    old = (end(70), end(71), end(72))
    held = (reservation("no-trial", workload="Deployment/cart"),)
    assert ask(*old, held=held).trial == "no-trial"
    assert ask(*old, held=held, own="no-trial").trial == ""
    assert ask(*old, held=(reservation("no-x", workload="StatefulSet/db"),)).trial == ""


def test_it_is_of_one_action_type_and_one_kind_of_workload() -> None:
    other_kind = tuple(end(m, workload="StatefulSet/db") for m in (1, 2, 3))
    assert ask(*other_kind).state == "Closed"
    assert ask(*other_kind, kind="StatefulSet").state == "Open"
    spread = tuple(end(m, workload=f"Deployment/w{m}") for m in (1, 2, 3))
    assert ask(*spread).state == "Open", "whichever Deployments of the namespace they were"
    assert class_of("Deployment/a/b") == "Deployment"


def test_no_ledger_is_closed_and_the_level_speaks_of_the_missing_ledger() -> None:
    assert state(SPEC, None, ROLLBACK, "Deployment", NOW) == Breaker("Closed", 0)


def test_it_has_no_state_but_the_ledger() -> None:
    """A renamed or recreated policy finds it as it was; other numbers in the policy give another answer from the same book."""
    book = (end(10), end(12), end(14))
    assert ask(*book, spec=SPEC.model_copy()) == ask(*book)
    assert ask(*book, spec=Spec(failures=4)).state == "Closed"
    assert ask(*book, spec=Spec(failures=3, within="3m")).state == "Closed"
    assert ask(*book, spec=Spec(failures=3, open_for="10m")).state == "HalfOpen"
    assert ask(end(1), spec=Spec(failures=1)).state == "Open"


def test_a_clock_that_was_ahead_hides_no_failure_and_pardons_nothing() -> None:
    assert ask(end(-5), end(1), end(2)).state == "Open"
    assert ask(end(-5, "Recovered"), end(70), end(71), end(72)).state == "HalfOpen"


def test_one_failure_more_never_closes_it() -> None:
    """With the early one it opened, a trial helped, and what failed then was forgotten; without it, it was open."""
    later = (end(150), end(140, "Recovered"), end(100))
    assert ask(end(190), *later, spec=PATIENT, now=NOW - 99 * MINUTE).state == "Open"
    assert ask(end(210), end(190), *later, spec=PATIENT, now=NOW - 99 * MINUTE).state == "Open"


def test_a_long_history_is_quick() -> None:
    many = tuple(end(m, "Undone" if m % 3 else "Recovered") for m in range(1, 512))
    assert ask(*many).state == "Open"
    assert ask(*many, now=NOW + 24 * HOUR).state == "HalfOpen"
