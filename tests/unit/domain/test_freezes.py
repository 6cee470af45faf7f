"""When a freeze is in force: schedules in their own time zones, over changes to summer time and back, and what cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from nightorders.api.v1alpha1.policy import Freeze
from nightorders.domain.freezes import in_force, last_begin, problems
from tests.unit.domain.make import HOUR, MINUTE, NOW, ROLLBACK, SECOND, stamp

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
WEEKEND = {"schedule": "0 18 * * 5", "duration": "62h", "time_zone": BERLIN}


def freeze(name: str = "f", **fields: Any) -> Freeze:
    """As the API server gives it, or, with what its schema refuses, as it could be read all the same."""
    return Freeze(name=name, **fields)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(text: str, zone: str) -> datetime:
    """`2026-07-03T18:00` there; a trailing `'` is the second time that the clock shows it."""
    return datetime.fromisoformat(text.rstrip("'")).replace(tzinfo=ZoneInfo(zone), fold=int(text.endswith("'"))).astimezone(UTC)


# ---------------------------------------------------------------- schedule and duration


@pytest.mark.parametrize(
    ("when", "held"),
    [
        ("2026-07-03T17:59:59", False),  # Friday
        ("2026-07-03T18:00", True),
        ("2026-07-04T12:00", True),
        ("2026-07-06T07:59:59", True),
        ("2026-07-06T08:00", False),  # Monday
        ("2026-07-08T12:00", False),
        ("2026-12-04T17:59:59", False),  # the same in winter
        ("2026-12-04T18:00", True),
        ("2026-12-07T08:00", False),
    ],
)
def test_a_weekend_in_berlin(when: str, held: bool) -> None:
    assert bool(in_force([freeze(**WEEKEND)], ROLLBACK, local(when, BERLIN))) is held


def test_it_says_until_when_and_by_what() -> None:
    held = in_force([freeze("weekend", **WEEKEND)], ROLLBACK, utc("2026-07-04T10:00"))
    assert held is not None
    assert (held.name, held.until) == ("weekend", utc("2026-07-06T06:00"))
    assert held.because == "schedule 0 18 * * 5 Europe/Berlin for 62h, since 2026-07-03 16:00Z"


def test_utc_is_the_zone_where_none_is_written() -> None:
    daily = freeze(schedule="0 18 * * *", duration="1h")
    assert in_force([daily], ROLLBACK, utc("2026-07-03T18:30"))
    assert not in_force([daily], ROLLBACK, utc("2026-07-03T16:30"))


def test_a_freeze_longer_than_its_period_never_ends() -> None:
    always = freeze(schedule="0 0 * * *", duration="30h")
    assert all(in_force([always], ROLLBACK, NOW + n * HOUR) for n in range(48))


# ---------------------------------------------------------------- changes of the clock
# Berlin: 2026-03-29 02:00 → 03:00, 2026-10-25 03:00 → 02:00. New York: 03-08 02:00 → 03:00, 11-01 02:00 → 01:00.
# Lord Howe changes by half an hour: 2026-10-04 02:00 → 02:30, 2026-04-05 02:00 → 01:30.


@pytest.mark.parametrize(
    ("zone", "schedule", "after", "begins"),
    [
        # the clock skips the begin: it happens when the clock goes on
        (BERLIN, "30 2 * * *", "2026-03-29T05:00", "2026-03-29T03:00"),
        (BERLIN, "0 2 * * *", "2026-03-29T05:00", "2026-03-29T03:00"),
        (BERLIN, "*/30 2 * * *", "2026-03-29T05:00", "2026-03-29T03:00"),
        (BERLIN, "0 */2 * * *", "2026-03-29T03:30", "2026-03-29T03:00"),
        (BERLIN, "0 3 * * *", "2026-03-29T05:00", "2026-03-29T03:00"),
        (BERLIN, "30 1 * * *", "2026-03-29T05:00", "2026-03-29T01:30"),
        (NEW_YORK, "30 2 * * *", "2026-03-08T05:00", "2026-03-08T03:00"),
        (NEW_YORK, "30 1 * * *", "2026-03-08T05:00", "2026-03-08T01:30"),
        (LORD_HOWE, "15 2 * * *", "2026-10-04T05:00", "2026-10-04T02:30"),
        (LORD_HOWE, "30 2 * * *", "2026-10-04T05:00", "2026-10-04T02:30"),
        (LORD_HOWE, "45 1 * * *", "2026-10-04T05:00", "2026-10-04T01:45"),
        # the clock shows it twice: it happens once, the first time, and is seen in both hours
        (BERLIN, "30 2 * * *", "2026-10-25T02:40", "2026-10-25T02:30"),
        (BERLIN, "30 2 * * *", "2026-10-25T02:10'", "2026-10-25T02:30"),
        (BERLIN, "30 2 * * *", "2026-10-25T02:59:59'", "2026-10-25T02:30"),
        (BERLIN, "30 2 * * *", "2026-10-25T05:00", "2026-10-25T02:30"),
        (BERLIN, "0 3 * * *", "2026-10-25T05:00", "2026-10-25T03:00"),
        (NEW_YORK, "30 1 * * *", "2026-11-01T01:05'", "2026-11-01T01:30"),
        (NEW_YORK, "30 1 * * *", "2026-11-01T04:00", "2026-11-01T01:30"),
        (NEW_YORK, "30 2 * * *", "2026-11-01T04:00", "2026-11-01T02:30"),
        (LORD_HOWE, "45 1 * * *", "2026-04-05T01:31'", "2026-04-05T01:45"),
        (LORD_HOWE, "45 1 * * *", "2026-04-05T04:00", "2026-04-05T01:45"),
        (LORD_HOWE, "15 2 * * *", "2026-04-05T04:00", "2026-04-05T02:15"),
    ],
)
def test_when_it_begins_where_the_clock_changes(zone: str, schedule: str, after: str, begins: str) -> None:
    assert last_begin(schedule, zone, local(after, zone)) == local(begins, zone)


@pytest.mark.parametrize("second", [0, 1, 30, 59])
@pytest.mark.parametrize(
    ("zone", "schedule", "begins"),
    [
        (BERLIN, "30 2 * * *", "2026-03-29T03:00"),
        (BERLIN, "30 2 * * *", "2026-10-25T02:30"),
        (NEW_YORK, "30 1 * * *", "2026-11-01T01:30"),
        (LORD_HOWE, "15 2 * * *", "2026-10-04T02:30"),
        (LORD_HOWE, "45 1 * * *", "2026-04-05T01:45"),
        (BERLIN, "0 18 * * 5", "2026-07-03T18:00"),
    ],
)
def test_it_is_in_force_from_its_first_second_and_not_before(zone: str, schedule: str, begins: str, second: int) -> None:
    at = local(begins, zone)
    assert last_begin(schedule, zone, at + second * SECOND) == at
    assert last_begin(schedule, zone, at - (60 - second) * SECOND) < at


@pytest.mark.parametrize(
    ("zone", "schedule", "begins", "shown"),
    [
        (BERLIN, "0 18 * * 5", "2026-03-27T18:00", "2026-03-30T09:00"),  # an hour was skipped
        (BERLIN, "0 18 * * 5", "2026-10-23T18:00", "2026-10-26T07:00"),  # an hour was shown twice
        (NEW_YORK, "0 18 * * 5", "2026-03-06T18:00", "2026-03-09T09:00"),
        (NEW_YORK, "0 18 * * 5", "2026-10-30T18:00", "2026-11-02T07:00"),
        (LORD_HOWE, "0 18 * * 5", "2026-10-02T18:00", "2026-10-05T08:30"),
        (LORD_HOWE, "0 18 * * 5", "2026-04-03T18:00", "2026-04-06T07:30"),
        (BERLIN, "0 18 * * 5", "2026-07-03T18:00", "2026-07-06T08:00"),
    ],
)
def test_62_hours_stay_62_hours(zone: str, schedule: str, begins: str, shown: str) -> None:
    f = freeze(schedule=schedule, duration="62h", time_zone=zone)
    end = local(begins, zone) + 62 * HOUR
    assert end == local(shown, zone)
    held = in_force([f], ROLLBACK, end - SECOND)
    assert held is not None
    assert held.until == end
    assert in_force([f], ROLLBACK, end) is None


@pytest.mark.parametrize("schedule", ["30 2 * * *", "45 1 * * *", "*/20 2 * * *", "0 */2 * * *", "15 1,2 * * *", "*/15 * * * *"])
@pytest.mark.parametrize(
    ("zone", "night"),
    [
        (BERLIN, "2026-03-28T23:00"),
        (BERLIN, "2026-10-24T23:00"),
        (NEW_YORK, "2026-03-08T05:00"),
        (NEW_YORK, "2026-11-01T04:00"),
        (LORD_HOWE, "2026-10-03T13:30"),
        (LORD_HOWE, "2026-04-04T13:30"),
    ],
)
def test_a_begin_that_is_past_stays_past(zone: str, schedule: str, night: str) -> None:
    """Time goes on and the last begin never goes back: else a freeze would pause for an hour in the night of the change."""
    at, last = utc(night), utc("2000-01-01T00:00")
    for _ in range(12 * 5):
        begun = last_begin(schedule, zone, at)
        assert last <= begun <= at
        at, last = at + 5 * MINUTE, begun


# ---------------------------------------------------------------- once


@pytest.mark.parametrize(
    ("at", "held"), [(-SECOND, False), (timedelta(0), True), (HOUR - SECOND, True), (HOUR, False), (24 * HOUR, False)]
)  # fmt: skip
def test_from_until_happens_once(at: timedelta, held: bool) -> None:
    once = freeze("audit", from_=NOW, until=NOW + HOUR)
    answer = in_force([once], ROLLBACK, NOW + at)
    assert bool(answer) is held
    assert answer is None or (answer.until, answer.because) == (NOW + HOUR, "from 2026-07-01 12:00Z")


# ---------------------------------------------------------------- which one holds


def test_an_allowed_action_is_not_held_back() -> None:
    allowing = freeze(from_=NOW, until=NOW + HOUR, allow=[ROLLBACK])
    assert in_force([allowing], ROLLBACK, NOW) is None
    assert in_force([allowing], None, NOW) is not None


def test_of_several_the_one_that_ends_last_is_named() -> None:
    short, long = freeze("short", from_=NOW, until=NOW + HOUR), freeze("long", from_=NOW, until=NOW + 2 * HOUR)
    for both in ([short, long], [long, short]):
        held = in_force(both, ROLLBACK, NOW)
        assert held is not None
        assert held.name == "long"
    broken = freeze("broken", schedule="x", duration="1h")
    held = in_force([long, broken, short], ROLLBACK, NOW)
    assert held is not None
    assert (held.name, held.until) == ("broken", None)


def test_none_is_none() -> None:
    assert in_force([], ROLLBACK, NOW) is None
    assert problems([freeze(**WEEKEND), freeze(from_=NOW, until=NOW + HOUR)]) == []


# ---------------------------------------------------------------- what cannot be read is in force

UNREADABLE: list[tuple[str, dict[str, Any], str]] = [
    ("nothing", {}, "write either schedule and duration, or from and until"),
    ("schedule alone", {"schedule": "0 18 * * 5"}, "write either"),
    ("duration alone", {"duration": "1h"}, "write either"),
    ("from alone", {"from_": NOW}, "write either"),
    ("until alone", {"until": NOW}, "write either"),
    ("both kinds", {**WEEKEND, "from_": NOW, "until": NOW + HOUR}, "write either"),
    ("both kinds by half", {**WEEKEND, "from_": NOW}, "write either"),
    ("from and until with a duration", {"duration": "1h", "from_": NOW - 2 * HOUR, "until": NOW - HOUR}, "write either"),
    ("until before from", {"from_": NOW + HOUR, "until": NOW}, "until must be after from"),
    ("until at from", {"from_": NOW, "until": NOW}, "until must be after from"),
    ("times without a zone", {"from_": datetime(2026, 1, 1), "until": datetime(2026, 1, 2)}, "need a time zone"),  # noqa: DTZ001
    ("no such zone", {"schedule": "0 18 * * 5", "duration": "1h", "time_zone": "Europe/Berlon"}, "timeZone 'Europe/Berlon' is not in the IANA"),
    ("a folder of zones", {"schedule": "0 18 * * 5", "duration": "1h", "time_zone": "Europe"}, "not in the IANA database"),
    ("four fields", {"schedule": "0 18 * 5", "duration": "1h"}, "needs five fields"),
    ("six fields", {"schedule": "0 0 18 * * 5", "duration": "1h"}, "needs five fields"),
    ("a word", {"schedule": "@weekly", "duration": "1h"}, "needs five fields"),
    ("a minute that is none", {"schedule": "61 18 * * 5", "duration": "1h"}, "no cron expression that ever begins"),
    ("no cron", {"schedule": "a b c d e", "duration": "1h"}, "no cron expression"),
    ("a day that never comes", {"schedule": "0 0 31 2 *", "duration": "1h"}, "that ever begins"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "says"), [u[1:] for u in UNREADABLE], ids=[u[0] for u in UNREADABLE])
def test_a_freeze_that_cannot_be_read_is_in_force_and_says_what_to_correct(fields: dict[str, Any], says: str) -> None:
    f = freeze("broken", **fields)
    for at in (NOW - 400 * 24 * HOUR, NOW, NOW + 400 * 24 * HOUR):
        held = in_force([f], ROLLBACK, at)
        assert held is not None
        assert (held.name, held.until) == ("broken", None)
        assert says in held.because
        assert "freeze broken" in held.because
    assert problems([f]) == [held.because]


def test_an_unreadable_freeze_still_lets_through_what_it_allows() -> None:
    assert in_force([freeze(schedule="x", duration="1h", allow=[ROLLBACK])], ROLLBACK, NOW) is None


def test_a_leap_day_is_a_day() -> None:
    leap = freeze(schedule="0 0 29 2 *", duration="24h")
    assert problems([leap]) == []
    assert last_begin("0 0 29 2 *", "UTC", NOW) == utc("2024-02-29T00:00")
    assert stamp(utc("2024-02-29T00:00")) == "2024-02-29T00:00:00Z"
