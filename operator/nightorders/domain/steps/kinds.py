"""The steps: everything that a pass can end in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ...api.meta import Level
from ...api.v1alpha1.common import ActionType
from ...api.v1alpha1.incident import ApprovalNeeds, Execution, IncidentStatus, Pause
from ...api.v1alpha1.ledger import JudgementRecord, Rejection, ShadowScore
from ..orders import Governing
from ..plan import Proposal
from ..reasons import Reason
from ..snapshot import KubeObject

SOON = timedelta(seconds=2)
LOOK_AGAIN = timedelta(seconds=15)
IDLE = timedelta(seconds=60)


@dataclass(frozen=True)
class Idle:
    """Nothing to save; look again after `again`, or at the next event."""

    because: str
    again: timedelta | None


@dataclass(frozen=True)
class Save:
    """Save a status; no effect outside our own kinds. `announce` becomes an Event.

    `note` goes into the namespace's Ledger first (writing it twice is writing it once).
    """

    status: IncidentStatus
    again: timedelta | None
    announce: tuple[Reason, str] | None = None
    warning: bool = False
    note: Rejection | ShadowScore | JudgementRecord | None = None


@dataclass(frozen=True)
class Stage:
    """Send the proposal's patch as a dry run, then save the plan (or why the API server refused).

    `status` is the status so far; `staged` and `not_staged` finish it.
    """

    proposal: Proposal
    governing: Governing
    level: Level
    ordered: Level
    needs: ApprovalNeeds
    pause: Pause | None
    status: IncidentStatus


@dataclass(frozen=True)
class Reserve:
    """Take the slots in the Ledgers (fleet, then namespace), then save the execution with its finalizer: the intention."""

    execution: Execution
    action: ActionType
    workload: str
    pause: Pause | None
    status: IncidentStatus


@dataclass(frozen=True)
class PauseOwner:
    """Pause the GitOps owner of the target, conditional on the version that was read; the Ledger knows of it since the reservation."""

    execution: Execution
    owner: KubeObject
    patch: Mapping[str, Any]


@dataclass(frozen=True)
class Apply:
    """Send the one conditional, stamped patch; then save that it was sent."""

    execution: Execution
    target: KubeObject
    patch: Mapping[str, Any]


@dataclass(frozen=True)
class Undo:
    """Send the inverse, conditional on the target being as the execution left it."""

    execution: Execution
    target: KubeObject
    patch: Mapping[str, Any]


@dataclass(frozen=True)
class Settle:
    """End an execution: outcome into the Ledgers, slots free, status saved, finalizer gone."""

    execution: Execution
    workload: str
    status: IncidentStatus
    announce: tuple[Reason, str]
    warning: bool


@dataclass(frozen=True)
class ReleaseFinalizer:
    """The finalizer outlived its execution (a crash between two writes)."""


Step = Idle | Save | Stage | Reserve | PauseOwner | Apply | Undo | Settle | ReleaseFinalizer
