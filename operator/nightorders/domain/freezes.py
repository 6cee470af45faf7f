"""When a freeze is in force. Cron schedules are read in their own time zone; durations are elapsed time.

At a change to summer time a begin that the clock skips happens when the clock goes on; at the change back it happens once. A freeze
of 62 h that begins before a change ends 62 h later, whatever the clock shows then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from ..api.meta import parse_duration
from ..api.v1alpha1.common import ActionType
from ..api.v1alpha1.policy import Freeze

CLOCK_CHANGE = timedelta(hours=3)  # more than any clock is set forward or back at once


@dataclass(frozen=True)
class Frozen:
    """A freeze in force. `until` None: nobody can tell when it ends (then `because` says what to correct)."""

    name: str
    until: datetime | None
    because: str


def in_force(freezes: Sequence[Freeze], action: ActionType | None, now: datetime) -> Frozen | None:
    """The freeze that holds this action type back now, the one that ends last; None: none does. `action` None: any freeze.

    A freeze that cannot be read (a schedule that is no cron expression, an unknown time zone) is in force: cannot tell is not "no".
    """
    found = [held for f in freezes if action is None or action not in f.allow if (held := _held(f, now)) is not None]
    return max(found, key=lambda h: h.until or datetime.max.replace(tzinfo=UTC), default=None)


def _held(f: Freeze, now: datetime) -> Frozen | None:
    if problem := _problem(f):
        return Frozen(f.name, None, problem)
    if f.schedule is None or f.duration is None:
        assert f.from_ is not None, "checked above"
        assert f.until is not None, "checked above"
        return Frozen(f.name, f.until, f"from {f.from_:%Y-%m-%d %H:%M}Z") if f.from_ <= now < f.until else None
    begun = last_begin(f.schedule, f.time_zone, now)
    until = begun + parse_duration(f.duration)
    if now >= until:
        return None
    return Frozen(f.name, until, f"schedule {f.schedule} {f.time_zone} for {f.duration}, since {begun:%Y-%m-%d %H:%M}Z")


def last_begin(schedule: str, time_zone: str, now: datetime) -> datetime:
    """The schedule's latest moment that is not after `now`, in UTC. Raises CronSimError, StopIteration where there is none."""
    return _last_begin(schedule, time_zone, now.astimezone(UTC).replace(second=0, microsecond=0))


@lru_cache(maxsize=256)
def _last_begin(schedule: str, time_zone: str, now: datetime) -> datetime:
    """The same for a whole minute, remembered: schedules begin at whole minutes, and every gate and speaker asks."""
    zone = ZoneInfo(time_zone)
    # From well after now: within the hour that the clock shows twice, going backwards by what it shows would miss the first of the two.
    later = (now.astimezone(UTC) + CLOCK_CHANGE).astimezone(zone)
    begin: datetime = next(at for at in (b.astimezone(UTC) for b in CronSim(schedule, later, reverse=True)) if at <= now)
    # cronsim lets a begin with a `*` in its hour or minute pass by where the clock skips it; a freeze must not.
    shown = (now.astimezone(zone) + timedelta(minutes=1)).replace(second=0, microsecond=0, tzinfo=UTC)
    wall: datetime = next(CronSim(schedule, shown, reverse=True)).replace(tzinfo=None)
    gone_on = _goes_on(wall, zone)
    return gone_on if gone_on is not None and begin < gone_on <= now else begin


def _goes_on(wall: datetime, zone: ZoneInfo) -> datetime | None:
    """When the clock goes on after a time that it skips there, in UTC; None: it shows that time."""
    skipped = False
    while (at := wall.replace(tzinfo=zone).astimezone(UTC)).astimezone(zone).replace(tzinfo=None) != wall:
        skipped, wall = True, wall + timedelta(minutes=1)
    return at if skipped else None


def problems(freezes: Sequence[Freeze]) -> list[str]:
    """What is wrong with them, each naming the freeze, the field and the fix."""
    return [problem for f in freezes if (problem := _problem(f))]


def _problem(f: Freeze) -> str:
    once = f.from_ is not None and f.until is not None
    if (f.schedule is not None) == once or (f.schedule is not None) != (f.duration is not None) or (f.from_ is None) != (f.until is None):
        return f"freeze {f.name}: write either schedule and duration, or from and until"
    if f.from_ is not None and f.until is not None:
        if f.from_.tzinfo is None or f.until.tzinfo is None:
            return f"freeze {f.name}: from and until need a time zone, such as 2026-12-24T00:00:00Z"
        return "" if f.from_ < f.until else f"freeze {f.name}: until must be after from"
    assert f.schedule is not None, "checked above"
    problem = _schedule_problem(f.schedule, f.time_zone)
    return f"freeze {f.name}: {problem}" if problem else ""


@lru_cache(maxsize=256)
def _schedule_problem(schedule: str, time_zone: str) -> str:
    """A schedule does not change while it is written so: it is judged once."""
    try:
        ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError):
        return f"timeZone {time_zone!r} is not in the IANA database; write a name such as Europe/Berlin"
    if len(schedule.split()) != 5:
        return f"schedule {schedule!r} needs five fields: minute, hour, day of month, month, day of week"
    try:
        CronSim(schedule, datetime(2024, 1, 1, tzinfo=UTC))
        last_begin(schedule, time_zone, datetime(2030, 1, 1, tzinfo=UTC))
    except (CronSimError, StopIteration, RuntimeError) as error:
        return f"schedule {schedule!r} is no cron expression that ever begins ({type(error).__name__}); such as 0 18 * * 5"
    return ""
