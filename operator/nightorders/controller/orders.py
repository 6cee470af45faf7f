"""What the night orders amount to, written into the policies' status."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial

import structlog

from .. import metrics
from ..actions import CATALOGUE
from ..api.meta import FLEET_LEDGER_NAME, LEDGER_NAME, Condition, Level, line, set_condition
from ..api.v1alpha1.clusterpolicy import ClusterRemediationPolicy, ClusterRemediationPolicyStatus
from ..api.v1alpha1.ledger import Ledger
from ..api.v1alpha1.policy import (
    BreakerStatus,
    Freeze,
    RemediationPolicy,
    RemediationPolicyStatus,
    Rule,
    RuleStatus,
    ShadowStatus,
)
from ..domain import breaker, freezes, standing
from ..domain import ledger as books
from ..domain.autonomy import frozen_by, frozen_level, own_labels
from ..domain.orders import Governing, Orders, Ungoverned, governing_rule
from ..domain.promql import policy_problems
from ..domain.reasons import Reason
from ..domain.snapshot import KubeObject, Listing
from ..ports import Book, Clock, ClusterReader, Ledgers, Notifier, Policies, Unreadable

log = structlog.get_logger(__name__)
AGAIN = timedelta(seconds=60)
BREAKER_STATES = ("Closed", "Open", "HalfOpen")
CLASSES = ("Deployment",)  # kinds of workload that an action type of the catalogue handles


class OrderBook:
    """Keeps `status` of RemediationPolicies and ClusterRemediationPolicies."""

    def __init__(
        self,
        clock: Clock,
        reader: ClusterReader,
        policies: Policies,
        ledgers: Ledgers,
        book: Book,
        operator_namespace: str,
        notifier: Notifier,
    ) -> None:
        self._clock = clock
        self._reader = reader
        self._policies = policies
        self._ledgers = ledgers
        self._book = book
        self._operator_namespace = operator_namespace
        self._notifier = notifier
        self._told: dict[str, set[tuple[str, ...]]] = {}

    async def reconcile(self, namespace: str) -> timedelta | None:
        """Looks at all policies of one namespace (empty: the cluster's) and saves what changed."""
        if not namespace:
            await self._cluster()
            return AGAIN
        own, cluster, listing, ledger = await asyncio.gather(
            self._policies.of(namespace),
            self._policies.cluster(),
            self._reader.list("apps/v1", "Deployment", namespace),
            self._ledgers.get(namespace, LEDGER_NAME),
        )
        orders = Orders(
            policies=tuple(p for p in own if isinstance(p, RemediationPolicy)),
            cluster=tuple(p for p in cluster if isinstance(p, ClusterRemediationPolicy)),
            unreadable=tuple(f"RemediationPolicy/{p.name}: {p.message}" for p in own if isinstance(p, Unreadable)),
        )
        made = [(p, policy_status(p, orders, listing, namespace, ledger, self._clock, self._notifier)) for p in orders.policies]
        self._tell_breakers(namespace, {policy.metadata.name: status.breaker_states for policy, status in made})
        for policy, status in made:
            if status != policy.status:
                await self._policies.save_status(policy, status.wire())
        return soonest(orders, self._clock.now()) if orders.policies else None

    def _tell_breakers(self, namespace: str, found: Mapping[str, tuple[BreakerStatus, ...]]) -> None:
        """The metric. A policy that is renamed or gone takes its series along: else an alert on an open breaker would never end."""
        told = {
            (namespace, policy, b.action.value, b.workload_class, state): b.state == state
            for policy, states in found.items()
            for b in states
            for state in BREAKER_STATES
        }
        for labels, holds in told.items():
            metrics.BREAKER.labels(*labels).set(1 if holds else 0)
        for gone in self._told.get(namespace, set()) - set(told):
            metrics.BREAKER.remove(*gone)
        self._told[namespace] = set(told)

    async def _cluster(self) -> None:
        names, policies = await asyncio.gather(self._reader.list("v1", "Namespace", None), self._policies.cluster())
        existing = {n.name for n in names.objects}
        if policies:
            await self._book(self._operator_namespace, FLEET_LEDGER_NAME, partial(books.remember_cluster_orders))
        for policy in policies:
            if isinstance(policy, Unreadable):
                log.warning("cluster policy cannot be read", policy=policy.name, error=policy.message)
                continue
            governed = existing & set(policy.spec.namespaces) if policy.spec.namespaces else existing
            absent = sorted(set(policy.spec.namespaces) - existing)
            message = f"governs {len(governed)} namespaces" + (f"; not there: {', '.join(absent)}" if absent else "")
            wrong = freezes.problems(policy.spec.freezes)
            ok, reason = (False, Reason.FROZEN) if wrong else (True, Reason.PASSED)
            told = f"frozen until this is corrected: {'; '.join(wrong)}" if wrong else message
            condition = ready(policy.status.conditions, ok, reason, told, policy.metadata.generation, self._clock)
            status = ClusterRemediationPolicyStatus(
                observed_generation=policy.metadata.generation,
                conditions=condition,
                namespaces=len(governed),
                frozen_by=told_freeze(policy.spec.freezes, self._clock.now()),
            )
            if status != policy.status:
                await self._policies.save_status(policy, status.wire())


def policy_status(
    policy: RemediationPolicy,
    orders: Orders,
    listing: Listing,
    namespace: str,
    ledger: Ledger | None,
    clock: Clock,
    notifier: Notifier,
) -> RemediationPolicyStatus:
    """What one policy amounts to: workloads matched, the level of each rule and who lowers it, conflicts, breakers, what was earned."""
    now = clock.now()
    matched = [d for d in listing.objects if policy.spec.selector.matches(own_labels(d.labels))]
    states = breaker_states(policy, ledger, now)
    rules = tuple(_rule_status(policy, rule, matched, orders, namespace, ledger, states, now) for rule in policy.spec.rules)
    ok, reason, message = _readiness(policy, orders, listing, matched, notifier)
    titles = {d.title for d in matched}
    return RemediationPolicyStatus(
        observed_generation=policy.metadata.generation,
        conditions=ready(policy.status.conditions, ok, reason, message, policy.metadata.generation, clock),
        workloads=len(matched),
        actions=line(
            " ".join(f"{t}={r.effective_level}" for r, rule in zip(rules, policy.spec.rules, strict=True) for t in rule.types), 256
        ),
        breakers=line(" ".join(f"{b.action}/{b.workload_class}={b.state}" for b in states if b.state != "Closed") or "closed", 256),
        breaker_states=states,
        frozen_by=told_freeze(policy.spec.freezes, now),
        emergency_approvals=sum(o.emergency and o.workload in titles for o in ledger.spec.outcomes) if ledger else 0,
        shadow=shadow_status(policy, ledger),
        rules=rules,
    )


def _readiness(
    policy: RemediationPolicy, orders: Orders, listing: Listing, matched: list[KubeObject], notifier: Notifier
) -> tuple[bool, Reason, str]:
    if not listing.complete:
        return False, Reason.TARGET_NOT_READABLE, f"cannot list Deployments: {listing.because}; {listing.fix}"
    if wrong := freezes.problems(policy.spec.freezes):
        return False, Reason.FROZEN, f"frozen until this is corrected: {'; '.join(wrong)}"
    if clashes := ambiguities(policy, matched, orders):
        return False, Reason.AMBIGUOUS, f"L1 for these: {'; '.join(clashes[:4])}"
    if unheard := channel_problems(policy, notifier):
        return False, Reason.CHANNEL_UNKNOWN, f"nobody is called there: spec.escalate.to: {'; '.join(unheard[:4])}"
    if refused := policy_problems(policy.spec, policy.metadata.namespace):
        return False, Reason.QUERY_REFUSED, f"no data, and so no success, until this is corrected: {'; '.join(refused[:4])}"
    if not matched:
        return True, Reason.NO_POLICY, "the selector matches no Deployment of this namespace at the moment"
    how = "decides for" if policy.spec.enforcement == "Shadow" else "governs"
    return True, Reason.PASSED, f"{how} {len(matched)} Deployments"


def channel_problems(policy: RemediationPolicy, notifier: Notifier) -> list[str]:
    """Channels that the policy names and that cannot be used, and why."""
    named = policy.spec.escalate.to if policy.spec.escalate else ()
    return [f"{name}: {why}" for name in named if (why := notifier.problem(name))]


def breaker_states(policy: RemediationPolicy, ledger: Ledger | None, now: datetime) -> tuple[BreakerStatus, ...]:
    """The breakers of every action type that the policy's rules name."""
    types = sorted({t for rule in policy.spec.rules for t in rule.types})
    found = []
    for action in types:
        for workload_class in CLASSES:
            b = breaker.state(policy.spec.breaker, ledger, action, workload_class, now)
            found.append(BreakerStatus(action=action, workload_class=workload_class, state=b.state, failures=b.failures, until=b.until))
    return tuple(found[:32])


def shadow_status(policy: RemediationPolicy, ledger: Ledger | None) -> ShadowStatus | None:
    """How its decisions compare with what really happened; None for a policy that was never in Shadow."""
    own = [s for s in (ledger.spec.shadows if ledger else ()) if s.policy == policy.metadata.name]
    if policy.spec.enforcement != "Shadow" and not own:
        return None
    count = Counter(s.score for s in own)
    return ShadowStatus(decided=len(own), agreed=count["Agreed"], differed=count["Differed"], needless=count["Needless"])


def told_freeze(written: tuple[Freeze, ...], now: datetime) -> str:
    """The freeze in force, in words; empty if there is none."""
    frozen = freezes.in_force(written, None, now)
    if frozen is None:
        return ""
    return line(f"{frozen.name} until {frozen.until:%Y-%m-%d %H:%M}Z" if frozen.until else f"{frozen.name}: {frozen.because}")


def soonest(orders: Orders, now: datetime) -> timedelta:
    """When the status may change by time alone: the end of an open breaker or a freeze, else after a minute."""
    ends = [b.until for p in orders.policies for b in p.status.breaker_states if b.until is not None]
    ends += [f.until for p in orders.policies if (f := freezes.in_force(p.spec.freezes, None, now)) is not None and f.until is not None]
    return min([AGAIN, *(max(timedelta(seconds=1), at - now) for at in ends)])


def _rule_status(
    policy: RemediationPolicy,
    rule: Rule,
    matched: list[KubeObject],
    orders: Orders,
    namespace: str,
    ledger: Ledger | None,
    states: tuple[BreakerStatus, ...],
    now: datetime,
) -> RuleStatus:
    """The level that the written and remembered orders leave; what only one Incident can tell (trust, risk) is in that Incident."""
    caps: list[tuple[Level, str]] = [(rule.level, "")]
    earned = ""
    if rule.earn is not None:
        s = min((standing.earned(rule.earn, rule.level, ledger, t, c) for t in rule.types for c in CLASSES), key=lambda s: s.level)
        earned = line(f"{s.level}, {s.successes} of {s.needed} successes towards the next" if s.level < rule.level else str(s.level), 256)
        caps.append((s.level, f"earned {earned}: {s.because}"))
    for c in orders.over(namespace):
        caps += [
            (ceiling.level, f"ClusterRemediationPolicy/{c.metadata.name} ceiling {ceiling.name}")
            for ceiling in c.spec.ceilings
            if not ceiling.types or set(rule.types) & set(ceiling.types)
        ]
    governing = Governing(policy, rule)
    caps += [(frozen_level(rule), who) for t in rule.types for who, _ in frozen_by(orders, governing, namespace, t, now)]
    for b in states:
        if b.action in rule.types and b.state != "Closed":
            caps.append((Level.L2 if b.state == "Open" else Level.L3, f"breaker of {b.action} on {b.workload_class} is {b.state}"))
    if policy.spec.enforcement == "Shadow":
        caps.append((Level.L1, "Shadow: decides, touches nothing"))
    if unknown := [t for t in rule.types if t not in CATALOGUE]:
        caps.append((Level.L1, f"no such action in this version: {', '.join(unknown)}"))
    level, lowered = min(caps, key=lambda cap: cap[0])
    return RuleStatus(
        name=rule.name,
        actions=line(",".join(rule.types), 256),
        workloads=sum(rule.selector.matches(own_labels(d.labels)) for d in matched),
        effective_level=level,
        lowered_by=line(lowered),
        earned=earned,
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
