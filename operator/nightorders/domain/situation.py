"""Everything one pass knows, gathered before anything is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..api.v1alpha1.incident import Incident, Measurement, Speaker
from ..api.v1alpha1.ledger import Ledger
from .diagnosis import Diagnosis
from .gates import DisruptionBudget, Rollout, Stop
from .orders import Orders
from .ownership import Owner
from .plan import NoProposal, Proposal
from .runbooks import NOTHING, Consulted
from .snapshot import Absent, KubeObject, NotLooked


@dataclass(frozen=True)
class Proof:
    """Something that must hold for the operator to act, and what is wrong where it does not."""

    holds: bool
    message: str


@dataclass(frozen=True)
class BudgetAnswer:
    """The share of the error budget that is left, as its query says (None: no answer, and why), and the least that is asked for."""

    left: float | None
    least: float
    message: str = ""


@dataclass(frozen=True)
class Operator:
    """Who we are."""

    username: str
    namespace: str


@dataclass(frozen=True)
class Situation:
    """One pass. `diagnosis`, `proposal`, `rollout` are None when this pass had no reason to look.

    `samples` are the measurements of this pass: a baseline before acting, else a round of the verification.
    `forward` and `backward` are the merge patches (without metadata) of the running execution; empty if their source cannot be
    read any more, and then `patch_problem` says why (`patch_unread`: the read failed, it may be there). `unknown` lists what could
    not be read: each entry lowers to L1.

    `looked_at`: when the evidence of `diagnosis` was read. `neighbours`: other open Incidents of the namespace, about other objects.
    `changed_at`: when somebody else changed the target after the failing release (domain/interference.py). `error_budget`: None
    unless the rule asks for one. `namespace_pods`: Ready pods of the namespace; `fleet_workloads`: workloads of the cluster; None:
    nobody counted. `owner_object`: the GitOps object that a running execution pauses. `claim_over`: why the alert behind the Incident no
    longer holds, as its source says; empty: it does, or nobody can tell. `runbooks`: what the namespace's runbooks say; `diagnosis` is
    ranked with them already.
    """

    operator: Operator
    incident: Incident
    target: KubeObject | Absent | NotLooked
    orders: Orders
    namespace_object: KubeObject | None
    ledger: Ledger | None
    fleet: Ledger | None
    stop: Stop
    guard: Proof
    schemas: Proof
    unknown: tuple[str, ...] = ()
    diagnosis: Diagnosis | None = None
    proposal: Proposal | NoProposal | None = None
    rollout: Rollout | None = None
    owner: Owner | None = None
    looked_at: datetime | None = None
    neighbours: int = 0
    changed_at: datetime | None = None
    error_budget: BudgetAnswer | None = None
    namespace_pods: int | None = None
    fleet_workloads: int | None = None
    disruption_budgets: tuple[DisruptionBudget, ...] = ()
    owner_object: KubeObject | Absent | NotLooked | None = None
    samples: tuple[Measurement, ...] = ()
    forward: Mapping[str, Any] | None = None
    backward: Mapping[str, Any] | None = None
    patch_problem: str = ""
    patch_unread: bool = False
    caps: tuple[Speaker, ...] = ()
    claim_over: str = ""
    runbooks: Consulted = NOTHING
