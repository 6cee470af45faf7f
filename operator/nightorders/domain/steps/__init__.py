"""next_step(situation, now) → Step: what to do now, and nothing else. Pure; the executor carries a step out.

An execution is a transaction: Reserved → Applied → (Recovered | Undoing → Undone | Escalated). The intention is saved before the
effect, and every state can be entered again after a crash: what happened is read from the target, not remembered.
"""

from __future__ import annotations

from datetime import datetime

from ...api.meta import FINALIZER
from ..opinions import recorded
from ..reasons import Reason
from ..record import is_closed, running
from ..situation import Situation
from ..snapshot import KubeObject
from .before import before_execution, done_by_human, draft, not_staged, staged, waiting_message, without_target
from .ending import settle
from .kinds import (
    IDLE,
    LOOK_AGAIN,
    SOON,
    Apply,
    Idle,
    PauseOwner,
    ReleaseFinalizer,
    Reserve,
    Save,
    Settle,
    Stage,
    Step,
    Undo,
)
from .within import applied, in_execution

__all__ = [
    "IDLE",
    "LOOK_AGAIN",
    "SOON",
    "Apply",
    "Idle",
    "PauseOwner",
    "ReleaseFinalizer",
    "Reserve",
    "Save",
    "Settle",
    "Stage",
    "Step",
    "Undo",
    "applied",
    "draft",
    "next_step",
    "not_staged",
    "settle",
    "staged",
    "waiting_message",
]


def next_step(s: Situation, now: datetime) -> Step:
    """The one thing to do now."""
    status = s.incident.status
    if (execution := running(status)) is not None and status.plan is not None:
        return in_execution(s, execution, status.plan, now)
    if FINALIZER in s.incident.metadata.finalizers:
        return ReleaseFinalizer()
    if s.incident.metadata.deletion_timestamp is not None:
        return Idle("the Incident is being deleted and nothing of ours is pending", None)
    if (said := recorded(s.incident, now)) is not None:  # also of one that is closed: mostly that is when the cause is known
        news = (Reason.JUDGED, said.told) if said.entry is not None else None
        return Save(said.status, SOON / 10, news, note=said.entry)
    if is_closed(status):
        return Idle("closed", None)
    if not isinstance(s.target, KubeObject):
        return without_target(s, s.target, now)
    if (adopted := done_by_human(s, s.target, now)) is not None:
        return adopted
    return before_execution(s, s.target, now)
