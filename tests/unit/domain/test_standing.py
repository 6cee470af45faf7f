"""Autonomy that is earned: up by confirmed successes only, down at once, and the way back is as long as the first."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from nightorders.api.meta import Level
from nightorders.api.v1alpha1.policy import Earn
from nightorders.domain.standing import Standing, earned
from tests.unit.domain.make import HOUR, MINUTE, NOW, ROLLBACK, ledger, outcome, rejection

L1, L2, L3, L4 = Level.L1, Level.L2, Level.L3, Level.L4
DAY = 24 * HOUR
TWO = Earn(from_=L2, successes=2, over="336h")
THREE = Earn(from_=L2, successes=3, over="336h")


def good(day: float, workload: str = "checkout", confirmed: str = "Human", **fields: Any) -> Any:
    """A success on the n-th day (12:00 UTC of day 0 is long ago)."""
    return end(day, workload=workload, confirmed=confirmed, **fields)


def end(day: float, result: str = "Recovered", workload: str = "checkout", kind: str = "Deployment", **fields: Any) -> Any:
    ended_at = NOW - 300 * DAY + timedelta(days=day)
    key = f"no-{day}-{workload}-{result}"[:60]
    return outcome(key, f"{kind}/{workload}", at=ended_at - MINUTE, ended_at=ended_at, result=result, **fields)


def no(day: float, **fields: Any) -> Any:
    return rejection("bob", NOW - 300 * DAY + timedelta(days=day), **fields)


def ask(*events: Any, earn: Earn = TWO, most: Level = L4, kind: str = "Deployment") -> Standing:
    outcomes = tuple(e for e in events if hasattr(e, "result"))
    rejections = tuple(e for e in events if not hasattr(e, "result"))
    return earned(earn, most, ledger(outcomes=outcomes, rejections=rejections), ROLLBACK, kind)


@pytest.mark.parametrize(
    ("events", "level", "towards"),
    [
        ((), L2, 0),
        ((good(1),), L2, 1),
        ((good(1), good(2)), L3, 0),
        ((good(1), good(2), good(3)), L3, 1),
        ((good(1), good(2), good(3), good(4)), L4, 0),
        (tuple(good(d) for d in range(20)), L4, 0),
        ((good(1), good(1, "cart")), L3, 0),  # two workloads on one day
        # what does not count
        ((good(1), good(1.1), good(1.2)), L2, 1),  # one a workload and day
        ((good(1), good(1.49)), L2, 1),  # 23:45 UTC is the same day
        ((good(1), good(1.51)), L3, 0),  # 00:14 UTC is the next
        ((good(1, confirmed="No"), good(2, confirmed="No"), good(3, confirmed="No")), L2, 0),
        ((good(1), good(2, confirmed="No")), L2, 1),
        ((good(1, confirmed="No"), good(1.1)), L2, 1),  # an unconfirmed one does not use up the day
        ((good(1, confirmed="Signal"), good(2, confirmed="Human")), L3, 0),
        ((end(1, "Superseded"), end(2, "NotApplied")), L2, 0),
        ((good(1), end(1.5, "Superseded"), good(2), end(3, "NotApplied")), L3, 0),  # nor do they throw it back
        ((good(1), good(15.1)), L2, 1),  # more than 14 days apart
        ((good(1), good(14.9)), L3, 0),
        ((good(1), good(10), good(16), good(17)), L4, 0),
        # down, at once and all the way
        ((good(1), good(2), good(3), good(4), end(5, "Undone", "cart")), L2, 0),
        ((good(1), good(2), end(3, "Escalated")), L2, 0),
        ((good(1), good(2), no(3)), L2, 0),
        ((good(1), no(1.5), good(2)), L2, 1),  # also on the way
        ((good(1), good(2), no(3, workload="Deployment/cart")), L2, 0),
        # and the way back is as long as the first
        ((good(1), good(2), good(3), good(4), end(5, "Undone"), good(6)), L2, 1),
        ((good(1), good(2), good(3), good(4), end(5, "Undone"), good(6), good(7)), L3, 0),
        ((good(1), good(2), good(3), good(4), end(5, "Undone"), good(6), good(7), good(8), good(9)), L4, 0),
        # a failure lets no second success of a day count
        ((good(1), end(1.1, "Undone"), good(1.2), good(2)), L2, 1),
    ],
)
def test_what_recorded_outcomes_have_earned(events: tuple[Any, ...], level: Level, towards: int) -> None:
    s = ask(*events)
    assert (s.level, s.successes, s.needed) == (level, towards, 2)
    assert ask(*reversed(events)) == s, "the order in which they were written plays no part"


@pytest.mark.parametrize(("most", "level"), [(L1, L1), (L2, L2), (L3, L3), (L4, L4)])
def test_never_above_the_rules_own_level(most: Level, level: Level) -> None:
    assert ask(*(good(d) for d in range(30)), most=most).level == level


def test_where_it_begins() -> None:
    assert ask(earn=Earn(from_=L1, successes=1)).level == L1
    assert ask(good(1), earn=Earn(from_=L1, successes=1)).level == L2
    assert ask(earn=Earn(from_=L4, successes=1), most=L3).level == L3, "a rule that was lowered since"


def test_without_a_ledger_nothing_is_earned() -> None:
    assert earned(TWO, L4, None, ROLLBACK, "Deployment") == Standing(L2, 0, 2, "begins here")


def test_it_is_of_one_action_type_and_one_kind_of_workload() -> None:
    others = tuple(good(d, kind="StatefulSet") for d in range(4))
    assert ask(*others).level == L2
    assert ask(*others, kind="StatefulSet").level == L4
    assert ask(good(1), good(2), end(3, "Undone", kind="StatefulSet")).level == L3


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ((), "begins here"),
        ((good(1), good(2)), "2 confirmed successes carried it to L3 at 2025-09-06 12:00Z"),
        ((good(1), good(2), end(3, "Undone", "cart")), "back to L2 at 2025-09-07 12:00Z: Deployment/cart ended as Undone"),
        ((good(1), no(3)), "back to L2 at 2025-09-07 12:00Z: bob rejected it"),
        ((no(3),), "begins here"),
    ],
)
def test_it_says_what_brought_it_there(events: tuple[Any, ...], says: str) -> None:
    assert ask(*events).because == says


def test_the_number_wanted_is_the_policys() -> None:
    assert [ask(*(good(d) for d in range(n)), earn=THREE).level for n in (2, 3, 5, 6)] == [L2, L3, L3, L4]
    assert ask(good(1), good(2), good(3), earn=Earn(from_=L2, successes=3, over="47h")).level == L2
    assert ask(good(1), good(2), good(3), earn=Earn(from_=L2, successes=3, over="49h")).level == L3
