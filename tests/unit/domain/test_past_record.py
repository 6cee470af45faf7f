"""What did not help the last time is not repeated alone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nightorders.api.meta import Level
from nightorders.domain.autonomy import effective
from tests.unit.domain.make import NOW, deployment, ledger, outcome, voices

HOUR = timedelta(hours=1)
MINE = deployment().title


@pytest.mark.parametrize(
    ("result", "workload", "age", "level"),
    [
        ("Undone", MINE, 23 * HOUR, Level.L3),
        ("Escalated", MINE, HOUR, Level.L3),
        ("Undone", MINE, 25 * HOUR, Level.L4),
        ("Undone", "Deployment/other", HOUR, Level.L4),
        ("Recovered", MINE, HOUR, Level.L4),
        ("NotApplied", MINE, HOUR, Level.L4),
    ],
)
def test_a_failed_action_on_this_workload_needs_a_human_for_a_day(result: str, workload: str, age: timedelta, level: Level) -> None:
    """Also when the Incident that remembered it was deleted: the Ledger outlives it."""
    books = ledger(outcomes=(outcome(workload=workload, at=NOW - age, result=result),))
    said = effective(voices(ledger=books), NOW)
    assert said.level == level
    assert said.trust is not None
    assert any(c.name == "record" for c in said.trust.components) is (level == Level.L3)
