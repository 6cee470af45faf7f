"""Version v1alpha1 of the API group nightorders.dev."""

from .clusterpolicy import ClusterRemediationPolicy
from .common import ActionType, Category, ObjectRef
from .incident import Incident, IncidentSpec, IncidentStatus, Phase, Plan
from .ledger import Ledger, LedgerSpec
from .policy import RemediationPolicy
from .runbook import Runbook

__all__ = [
    "ActionType",
    "Category",
    "ClusterRemediationPolicy",
    "Incident",
    "IncidentSpec",
    "IncidentStatus",
    "Ledger",
    "LedgerSpec",
    "ObjectRef",
    "Phase",
    "Plan",
    "RemediationPolicy",
    "Runbook",
]
