"""What an action type is. A new one is one new file beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ..api.v1alpha1.common import ActionType
from ..api.v1alpha1.incident import Incident, Plan
from ..api.v1alpha1.ledger import Ledger
from ..domain.diagnosis import Diagnosis
from ..domain.plan import NoProposal, Proposal
from ..domain.snapshot import Absent, KubeObject, NotLooked, Snapshot
from ..ports import ObjectKey

Found = KubeObject | Absent | NotLooked


@dataclass(frozen=True)
class PolicyRule:
    """One RBAC rule that the action needs; its role is exactly the list of these."""

    group: str
    resource: str
    verbs: tuple[str, ...]


@dataclass(frozen=True)
class Unavailable:
    """The patch cannot be made any more, and why."""

    because: str


class Action(Protocol):
    """One entry of the catalogue. Everything here is pure: it gets what was read and returns what to send."""

    type: ActionType
    rules: tuple[PolicyRule, ...]

    def propose(
        self, incident: Incident, snapshot: Snapshot, target: KubeObject, diagnosis: Diagnosis, ledger: Ledger | None, now: datetime
    ) -> Proposal | NoProposal:
        """What it would do here, or why it does not fit."""
        ...

    def sources(self, plan: Plan, namespace: str) -> tuple[ObjectKey, ObjectKey]:
        """The objects that hold the bytes of the change and of its inverse; they are read exactly before either is sent."""
        ...

    def forward(self, plan: Plan, target: KubeObject, source: Found) -> Mapping[str, Any] | Unavailable:
        """The merge patch of the change, without metadata."""
        ...

    def backward(self, plan: Plan, target: KubeObject, source: Found) -> Mapping[str, Any] | Unavailable:
        """The merge patch of the inverse, without metadata."""
        ...
