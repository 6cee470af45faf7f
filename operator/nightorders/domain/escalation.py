"""When a human is called, and what they read. Pure; controller/caller.py sends."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..api.v1alpha1.incident import Escalation, Incident
from ..api.v1alpha1.policy import Escalate


@dataclass(frozen=True)
class Call:
    """A message that is due: what the Incident's status will say, and the text that goes out."""

    escalation: Escalation
    title: str
    body: str


def due(incident: Incident, spec: Escalate, now: datetime) -> Call | datetime | None:
    """The call that is due now; else when one will be (if nothing changes); else None: nobody needs to be called.

    At once after an execution that was undone or escalated, and when a taken Incident's execution fails; else `after` since the
    first summary while a human is waited for (approval, advice, unknown origin). Again every `repeat`. Not while somebody has taken
    it, not for closed or suspended Incidents. The text holds the redacted summary and where to look, never evidence.
    """
    raise NotImplementedError
