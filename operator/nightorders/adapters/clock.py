"""The wall clock."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """`Clock`: the only place that asks the machine what time it is."""

    def now(self) -> datetime:
        return datetime.now(UTC)
