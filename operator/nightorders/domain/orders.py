"""Which written orders govern a workload and an action type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..api.v1alpha1.clusterpolicy import ClusterRemediationPolicy, Tier
from ..api.v1alpha1.common import ActionType
from ..api.v1alpha1.policy import RemediationPolicy, Rule
from .reasons import Reason


@dataclass(frozen=True)
class Orders:
    """What is written, as read in this pass. `unreadable` names policies that this version cannot parse.

    A policy that cannot be parsed may govern anything in its namespace, so it lowers everything there.
    """

    policies: tuple[RemediationPolicy, ...] = ()
    cluster: tuple[ClusterRemediationPolicy, ...] = ()
    unreadable: tuple[str, ...] = ()
    cluster_unreadable: tuple[str, ...] = ()

    def over(self, namespace: str) -> Iterator[ClusterRemediationPolicy]:
        """The cluster policies that govern that namespace."""
        return (c for c in self.cluster if not c.spec.namespaces or namespace in c.spec.namespaces)

    def tiers_of(self, namespace: str, labels: Mapping[str, str]) -> Iterator[tuple[ClusterRemediationPolicy, Tier]]:
        """Every tier of the platform that a workload with these labels belongs to."""
        own = dict(labels)
        return ((c, t) for c in self.over(namespace) for t in c.spec.tiers if t.selector.matches(own))


@dataclass(frozen=True)
class Governing:
    """The one rule that governs."""

    policy: RemediationPolicy
    rule: Rule

    @property
    def title(self) -> str:
        return f"RemediationPolicy/{self.policy.metadata.name} rule {self.rule.name}"


@dataclass(frozen=True)
class Ungoverned:
    """No single rule governs, so L1 holds."""

    reason: Reason
    message: str


def governing_rule(orders: Orders, labels: Mapping[str, str], action: ActionType) -> Governing | Ungoverned:
    """The one rule for a workload with these labels and that action type; two are ambiguous and govern nothing."""
    if orders.unreadable:
        return Ungoverned(
            Reason.POLICY_UNREADABLE, f"cannot read {'; '.join(orders.unreadable)}; upgrade the operator or correct the policy"
        )
    own = dict(labels)
    hits = [
        Governing(policy, rule)
        for policy in orders.policies
        if policy.spec.selector.matches(own)
        for rule in policy.spec.rules
        if action in rule.types and rule.selector.matches(own)
    ]
    match hits:
        case []:
            return Ungoverned(Reason.NO_POLICY, f"no RemediationPolicy of this namespace has a rule for {action} on this workload")
        case [one]:
            return one
        case _:
            names = " and ".join(h.title for h in hits)
            return Ungoverned(Reason.AMBIGUOUS, f"{names} both govern {action} here; narrow their selectors so that one remains")
