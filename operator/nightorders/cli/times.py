"""Times for people: relative first, absolute second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ..diagnosis.read import span


def absolute(at: datetime) -> str:
    """`2026-11-21 10:00:00Z`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def relative(at: datetime, now: datetime) -> str:
    """`2 m ago`, `in 11 m`, `now`."""
    if abs(now - at) < timedelta(seconds=1):
        return "now"
    return f"{span(now - at)} ago" if at < now else f"in {span(at - now)}"


def both(at: datetime, now: datetime) -> str:
    """`2 m ago (2026-11-21 10:00:00Z)`."""
    return f"{relative(at, now)} ({absolute(at)})"


def lasting(seconds: int) -> str:
    """`90 s`, `5 m`."""
    return span(timedelta(seconds=seconds))
