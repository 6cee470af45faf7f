"""What the night orders amount to, written into the policies' status."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from ..actions import CATALOGUE
from ..api.meta import Condition, Level, line, set_condition
from ..api.v1alpha1.clusterpolicy import ClusterRemediationPolicy, ClusterRemediationPolicyStatus
from ..api.v1alpha1.policy import (
    RemediationPolicy,
    RemediationPolicyStatus,
    Rule,
    RuleStatus,
)
from ..domain.autonomy import own_labels
from ..domain.orders import Orders, Ungoverned, governing_rule
from ..domain.reasons import Reason
from ..domain.snapshot import KubeObject, Listing
from ..ports import Clock, ClusterReader, Policies, Unreadable

log = structlog.get_logger(__name__)
AGAIN = timedelta(seconds=60)


class OrderBook:
    """Keeps `status` of RemediationPolicies and ClusterRemediationPolicies."""

    def __init__(self, clock: Clock, reader: ClusterReader, policies: Policies) -> None:
        self._clock = clock
        self._reader = reader
        self._policies = policies

    async def reconcile(self, namespace: str) -> timedelta | None:
        """Looks at all policies of one namespace (empty: the cluster's) and saves what changed."""
        if not namespace:
            await self._cluster()
            return AGAIN
        own, cluster, listing = await asyncio.gather(
            self._policies.of(namespace), self._policies.cluster(), self._reader.list("apps/v1", "Deployment", namespace)
        )
        orders = Orders(
            policies=tuple(p for p in own if isinstance(p, RemediationPolicy)),
            cluster=tuple(p for p in cluster if isinstance(p, ClusterRemediationPolicy)),
            unreadable=tuple(f"RemediationPolicy/{p.name}: {p.message}" for p in own if isinstance(p, Unreadable)),
        )
        for policy in orders.policies:
            status = policy_status(policy, orders, listing, namespace, self._clock)
            if status != policy.status:
                await self._policies.save_status(policy, status.wire())
        return AGAIN if orders.policies else None

    async def _cluster(self) -> None:
        names, policies = await asyncio.gather(self._reader.list("v1", "Namespace", None), self._policies.cluster())
        existing = {n.name for n in names.objects}
        for policy in policies:
            if isinstance(policy, Unreadable):
                log.warning("cluster policy cannot be read", policy=policy.name, error=policy.message)
                continue
            governed = existing & set(policy.spec.namespaces) if policy.spec.namespaces else existing
            absent = sorted(set(policy.spec.namespaces) - existing)
            message = f"governs {len(governed)} namespaces" + (f"; not there: {', '.join(absent)}" if absent else "")
            condition = ready(policy.status.conditions, True, Reason.PASSED, message, policy.metadata.generation, self._clock)
            status = ClusterRemediationPolicyStatus(
                observed_generation=policy.metadata.generation, conditions=condition, namespaces=len(governed)
            )
            if status != policy.status:
                await self._policies.save_status(policy, status.wire())


def policy_status(policy: RemediationPolicy, orders: Orders, listing: Listing, namespace: str, clock: Clock) -> RemediationPolicyStatus:
    """What one policy amounts to: workloads matched, the level of each rule and who lowers it, conflicts."""
    matched = [d for d in listing.objects if policy.spec.selector.matches(own_labels(d.labels))]
    rules = tuple(_rule_status(rule, matched, orders, namespace) for rule in policy.spec.rules)
    clashes = ambiguities(policy, matched, orders)
    if not listing.complete:
        ok, reason, message = False, Reason.TARGET_NOT_READABLE, f"cannot list Deployments: {listing.because}; {listing.fix}"
    elif clashes:
        ok, reason, message = False, Reason.AMBIGUOUS, f"L1 for these: {'; '.join(clashes[:4])}"
    elif not matched:
        ok, reason, message = True, Reason.NO_POLICY, "the selector matches no Deployment of this namespace at the moment"
    else:
        ok, reason, message = True, Reason.PASSED, f"governs {len(matched)} Deployments"
    return RemediationPolicyStatus(
        observed_generation=policy.metadata.generation,
        conditions=ready(policy.status.conditions, ok, reason, message, policy.metadata.generation, clock),
        workloads=len(matched),
        actions=line(
            " ".join(f"{t}={r.effective_level}" for r, rule in zip(rules, policy.spec.rules, strict=True) for t in rule.types), 256
        ),
        rules=rules,
    )


def _rule_status(rule: Rule, matched: list[KubeObject], orders: Orders, namespace: str) -> RuleStatus:
    level, lowered = rule.level, ""
    for policy in orders.over(namespace):
        for ceiling in policy.spec.ceilings:
            if (not ceiling.types or set(rule.types) & set(ceiling.types)) and ceiling.level < level:
                level, lowered = ceiling.level, f"ClusterRemediationPolicy/{policy.metadata.name} ceiling {ceiling.name}"
    unknown = [t for t in rule.types if t not in CATALOGUE]
    if unknown:
        level, lowered = Level.L1, f"no such action in this version: {', '.join(unknown)}"
    return RuleStatus(
        name=rule.name,
        actions=line(",".join(rule.types), 256),
        workloads=sum(rule.selector.matches(own_labels(d.labels)) for d in matched),
        effective_level=level,
        lowered_by=line(lowered),
    )


def ambiguities(policy: RemediationPolicy, matched: list[KubeObject], orders: Orders) -> list[str]:
    """Workloads for which another rule speaks, too."""
    found = []
    for deployment in matched:
        for action in {t for rule in policy.spec.rules if rule.selector.matches(own_labels(deployment.labels)) for t in rule.types}:
            answer = governing_rule(orders, own_labels(deployment.labels), action)
            if isinstance(answer, Ungoverned) and answer.reason is Reason.AMBIGUOUS:
                found.append(f"{deployment.title}: {answer.message}")
    return found


def ready(
    conditions: tuple[Condition, ...], ok: bool, reason: Reason, message: str, generation: int, clock: Clock
) -> tuple[Condition, ...]:
    """The condition Ready."""
    return set_condition(
        conditions,
        Condition(
            type="Ready",
            status="True" if ok else "False",
            reason=reason.value,
            message=line(message),
            observed_generation=generation,
            last_transition_time=clock.now(),
        ),
    )
