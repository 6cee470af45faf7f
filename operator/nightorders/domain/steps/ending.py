"""The end of an execution, and the saving of a pass."""

from __future__ import annotations

from datetime import datetime, timedelta

from ...api.meta import line
from ...api.v1alpha1.incident import Execution, Pause
from ...api.v1alpha1.ledger import JudgementRecord, Rejection, ShadowScore
from .. import gitops
from ..reasons import Reason
from ..record import Record, withdraw
from ..situation import Situation
from ..snapshot import KubeObject
from .kinds import Idle, Save, Settle, Step


def settle(s: Situation, e: Execution, result: str, message: str, reason: Reason, now: datetime, record: Record | None = None) -> Settle:
    """The end of an execution, and what it means for the Incident."""
    record = (record or Record(s.incident, now)).drop("Stalled")
    ended = e.model_copy(update={"state": "Ended", "ended_at": now, "result": result, "message": line(message)})
    record.execution(ended).story(f"{result}: {message}", kind="Execution")
    if result in ("Superseded", "NotApplied", "Undone") and e.state != "Applied":
        record.condition("Executed", "False", Reason.UNDONE if result == "Undone" else reason, message)
    if result == "Superseded" and e.state == "Applied":
        record.condition("Verified", "False", Reason.SUPERSEDED, message)
    if result == "Recovered":
        record.condition("Closed", "True", Reason.RECOVERED, message)
    elif result == "NotApplied":
        record = withdraw(record, reason, message)
        record.set(verification=None)
    else:
        kind = Reason.UNDONE if result == "Undone" else Reason.ESCALATED
        record.condition("Closed", "False", kind, f"{message}; the operator takes no further action here: a human decides")
    plan = s.incident.status.plan
    if plan is not None and plan.pause is not None and result == "Recovered" and isinstance(s.owner_object, KubeObject):
        _hold(record, plan.pause, gitops.state(s.owner_object, e.id), gitops.lift_at(result, now, plan.pause, now))
    workload = f"{plan.target.kind}/{plan.target.name}" if plan else s.incident.spec.target.title
    return Settle(ended, workload, record.done(), (reason, message), warning=result != "Recovered")


def _hold(record: Record, pause: Pause, state: gitops.State, until: datetime | None) -> None:
    """After an action that helped its owner stays paused for a while: the team has to know until when, and what to do."""
    if state in ("Ours", "Shared") and until is not None:
        message = (
            f"{pause.title} stays paused until {until:%Y-%m-%d %H:%M:%S}Z: bring the change into Git before that, or the fault comes back"
        )
        record.condition("OwnerPaused", "True", Reason.PAUSED, message).story(message, kind="Execution")


def save(
    s: Situation,
    record: Record,
    again: timedelta | None,
    announce: tuple[Reason, str] | None,
    *,
    warning: bool = False,
    note: Rejection | ShadowScore | JudgementRecord | None = None,
) -> Step:
    """A Save, or Idle when it would write what is there already."""
    status = record.done()
    if status == s.incident.status:
        return Idle("nothing new", again)
    news = announce if announce is not None and announce[1] != s.incident.status.summary else None
    return Save(status, again, news, warning, note)
