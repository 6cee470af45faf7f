"""The answer of a decision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .reasons import Reason


@dataclass(frozen=True)
class Verdict:
    """Allowed or not, why in one word, and a message that names the numbers that decided. `retry_at`: when the answer may change by time alone."""

    allowed: bool
    reason: Reason
    message: str
    retry_at: datetime | None = None


def passed(message: str) -> Verdict:
    """An allowing verdict."""
    return Verdict(True, Reason.PASSED, message)


def refused(reason: Reason, message: str, retry_at: datetime | None = None) -> Verdict:
    """A refusing verdict."""
    return Verdict(False, reason, message, retry_at)
