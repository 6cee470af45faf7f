"""Reading JSON that nobody vouches for.

A snapshot may come from a dump, and even an API server stores annotations that look like anything. So nothing below here trusts a
type: a value of the wrong type reads as absent, numbers are bounded (printing an integer of 5,000 digits raises), and times lie in
this era (arithmetic on year 9999 overflows).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from ..domain.snapshot import parse_time

TEXT_LIMIT = 4096
ITEM_LIMIT = 5000
_NUMBER_LIMIT = 2**31 - 1


def mapping(value: object) -> Mapping[str, Any]:
    """The object itself when it is one, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def objects(value: object) -> tuple[Mapping[str, Any], ...]:
    """The elements of a list that are objects; of an absurd list only the first 5,000."""
    return tuple(v for v in value[:ITEM_LIMIT] if isinstance(v, Mapping)) if isinstance(value, list) else ()


def word(value: object) -> str:
    """A text, at most 4,096 characters of it; empty for anything else."""
    return value[:TEXT_LIMIT] if isinstance(value, str) else ""


def words(value: object) -> dict[str, str]:
    """A map of text to text, such as labels, without entries that are anything else."""
    return {k: v for k, v in mapping(value).items() if isinstance(k, str) and isinstance(v, str)}


def number(value: object, default: int = 0) -> int:
    """An integer, bounded to 32 bits; `default` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int):
        return default
    return max(-_NUMBER_LIMIT, min(_NUMBER_LIMIT, value))


def flag(value: object) -> bool:
    """True only for the JSON literal `true`."""
    return value is True


def when(value: object) -> datetime | None:
    """An RFC 3339 time of this era in UTC, else None."""
    at = parse_time(value)
    if at is None or at.tzinfo is None or not 1990 <= at.year <= 2190:
        return None
    return at.astimezone(UTC)


def earliest(*times: datetime | None) -> datetime | None:
    """The earliest of those that are known."""
    return min((t for t in times if t is not None), default=None)


def latest(*times: datetime | None) -> datetime | None:
    """The latest of those that are known."""
    return max((t for t in times if t is not None), default=None)


def span(length: timedelta) -> str:
    """A duration for people, one unit: `45 s`, `12 m`, `3 h`, `6 d`."""
    seconds = max(0, int(length.total_seconds()))
    for unit, size, upto in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if seconds < upto:
            return f"{round(seconds / size)} {unit}"
    return f"{round(seconds / 86_400)} d"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def clock(at: datetime | None) -> str:
    """`at 2026-03-01 09:30Z`: a text that says "3 m ago" would change with every look."""
    return f"at {at:%Y-%m-%d %H:%M}Z" if at else "at an unknown time"


def count(n: int, noun: str) -> str:
    """`1 pod`, `3 pods`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(names: list[str] | tuple[str, ...], most: int = 3) -> str:
    """`a, b, c and 7 more`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
