"""Autonomy that is earned: where recorded outcomes have carried a rule, as a pure function of the Ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from ..api.meta import Level, parse_duration
from ..api.v1alpha1.common import ActionType
from ..api.v1alpha1.ledger import Ledger, Outcome, Rejection
from ..api.v1alpha1.policy import Earn
from .breaker import FAILED, class_of


@dataclass(frozen=True)
class Standing:
    """The earned level; `successes` of `needed` towards the next one."""

    level: Level
    successes: int
    needed: int
    because: str


def earned(earn: Earn, most: Level, ledger: Ledger | None, action: ActionType, workload_class: str) -> Standing:
    """Begins at `earn.from`; `successes` confirmed ones within `over` carry it up one level, to `most` at last; an undone or escalated
    execution, or a rejection, throws it back to `earn.from`, and the way up is as long as the first.

    Only confirmed recoveries count (Outcome.confirmed), at most one per workload and day (UTC), also when something failed in between:
    else a failure would let the second one of that day count. Without a Ledger it is `earn.from`.
    """
    first = min(earn.from_, most)
    level, because = first, "begins here"
    times: list[datetime] = []
    over = parse_duration(earn.over)
    days: set[tuple[str, date]] = set()
    for event in _events(ledger, action, workload_class):
        if isinstance(event, Rejection) or event.result in FAILED:
            what = f"{event.by} rejected it" if isinstance(event, Rejection) else f"{event.workload} ended as {event.result}"
            if level > first or times:
                because = f"back to {first} at {_end(event):%Y-%m-%d %H:%M}Z: {what}"
            level, times = first, []
            continue
        day = (event.workload, event.ended_at.date())
        if event.result != "Recovered" or event.confirmed == "No" or day in days or level >= most:
            continue
        days.add(day)
        times = [*(at for at in times if event.ended_at - at < over), event.ended_at]
        if len(times) >= earn.successes:
            level, times = LEVELS[LEVELS.index(level) + 1], []
            because = f"{earn.successes} confirmed successes carried it to {level} at {event.ended_at:%Y-%m-%d %H:%M}Z"
    return Standing(level, len(times), earn.successes, because)


LEVELS = tuple(Level)


def _end(event: Outcome | Rejection) -> datetime:
    return event.at if isinstance(event, Rejection) else event.ended_at


def _events(ledger: Ledger | None, action: ActionType, workload_class: str) -> list[Outcome | Rejection]:
    """Outcomes and rejections of that action type on that class, in the order in which they were known."""
    if ledger is None:
        return []
    both: list[Outcome | Rejection] = [*ledger.spec.outcomes, *ledger.spec.rejections]
    return sorted((e for e in both if e.action == action and class_of(e.workload) == workload_class), key=_end)
