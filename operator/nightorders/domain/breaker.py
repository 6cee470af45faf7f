"""Circuit breaker per action type and class of workload: a pure function of what the Ledger remembers.

There is no state of its own to lose, rename or reset: it survives restarts, and renamed and recreated policies.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ..api.meta import parse_duration
from ..api.v1alpha1.common import ActionType
from ..api.v1alpha1.ledger import Ledger, Outcome
from ..api.v1alpha1.policy import Breaker as BreakerSpec

FAILED = ("Undone", "Escalated")


@dataclass(frozen=True)
class Breaker:
    """How it stands. `failures` within its window; `until`: when an open one goes half-open; `trial`: execution that is the running trial."""

    state: Literal["Closed", "Open", "HalfOpen"]
    failures: int
    since: datetime | None = None
    until: datetime | None = None
    trial: str = ""
    because: str = ""


def state(spec: BreakerSpec, ledger: Ledger | None, action: ActionType, workload_class: str, now: datetime, own: str = "") -> Breaker:
    """Opens at the `failures`-th undone or escalated execution within `within`; after `openFor` half-open until the next outcome.

    Only a confirmed recovery (Outcome.confirmed) closes it: nobody closes it for all with an Incident that they made and approved alone.
    `own`: execution id that does not count as somebody else's trial. `workload_class`: the workload's kind (finer classes made of
    labels would let a relabelling step out of an open breaker).
    """
    if ledger is None:
        return Breaker("Closed", 0)
    within, open_for = parse_duration(spec.within), parse_duration(spec.open_for)
    ours = [o for o in ledger.spec.outcomes if o.action == action and class_of(o.workload) == workload_class]
    # A failure from the future is one from a clock ahead of ours; a recovery from there can wait until it is past.
    known = [o for o in ours if o.ended_at <= now or o.result in FAILED]
    failures, opened = _walk(sorted(known, key=lambda o: o.ended_at), spec.failures, within, open_for)
    if opened is None:
        recent = [at for at in failures if now - at < within]
        return Breaker("Closed", len(recent))
    until = opened + open_for
    numbers = (
        f"{len(failures)} failures of {action} on {workload_class}s within {spec.within}, the last at {failures[-1]:%Y-%m-%d %H:%M:%S}Z"
    )
    if now < until:
        return Breaker("Open", len(failures), opened, until, because=f"{numbers}; open until {until:%H:%M:%S}Z")
    trial = next(
        (
            r.execution
            for r in ledger.spec.reservations
            if r.action == action and class_of(r.workload) == workload_class and r.execution != own
        ),
        "",
    )
    return Breaker("HalfOpen", len(failures), opened, None, trial, f"{numbers}; half-open: one trial, which a human must approve")


def class_of(workload: str) -> str:
    """The class of a workload: its kind."""
    return workload.partition("/")[0]


def _walk(outcomes: list[Outcome], most: int, within: timedelta, open_for: timedelta) -> tuple[list[datetime], datetime | None]:
    """(times of the failures that count, since when it is open or half-open), after these outcomes in the order of their ends.

    A trial that helped closes it and forgets no failure: else one failure more, that let it open and close earlier, would leave it closed
    where it is open without that failure.
    """
    failures: list[datetime] = []
    opened: datetime | None = None
    for o in outcomes:
        failed = o.result in FAILED
        if opened is not None:
            if failed:  # the trial failed, or something that had begun before it opened
                failures.append(o.ended_at)
                opened = o.ended_at
            elif o.result == "Recovered" and o.confirmed != "No" and o.at >= opened + open_for:  # the trial, begun when it was half-open
                opened = None
            continue
        if failed:
            failures = [*(at for at in failures if o.ended_at - at < within), o.ended_at]
            if len(failures) >= most:
                opened = o.ended_at
    return failures, opened
