"""The chain: each gate's table with its boundaries, the order, and which gates advice needs."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from nightorders.api.meta import Level
from nightorders.api.v1alpha1 import Category
from nightorders.api.v1alpha1.incident import Pause
from nightorders.domain import gates
from nightorders.domain.reasons import Reason
from nightorders.domain.verdict import Verdict, refused
from tests.unit.domain.make import (
    ARGO,
    FLUX,
    HOUR,
    MINUTE,
    NAMESPACE,
    NOW,
    SECOND,
    STILL,
    SYSTEM,
    after_target,
    changed,
    cluster_policy,
    deployment,
    hypothesis,
    incident,
    ledger,
    orders,
    outcome,
    policy,
    question,
    reservation,
    rule_json,
    stamp,
)

CHECKOUT = "Deployment/checkout"


def gate(name: str, now: Any = NOW, **fields: Any) -> Verdict:
    return next(g for g in gates.CHAIN if g.name == name).judge(question(**fields), now)


def limited(**limits: Any) -> Any:
    return orders(policy("web", rule_json(limits=limits)))


def test_the_chain_reads_as_the_design_says() -> None:
    assert [g.name for g in gates.CHAIN] == [
        "policy", "enforcement", "stop", "protected", "action", "confidence", "category", "target", "owner", "rollout", "freeze",
        "blast-radius", "cooldown", "rate", "breaker", "budget", "preflight",
    ]  # fmt: skip


def test_advice_needs_all_gates_but_those_that_bound_the_operators_own_hand() -> None:
    assert {g.name for g in gates.CHAIN if not g.advice} == {
        "stop", "rollout", "freeze", "blast-radius", "cooldown", "rate", "breaker", "budget",
    }  # fmt: skip


def test_everything_open_passes() -> None:
    results, verdict = gates.judge(question(), NOW)
    assert verdict.allowed
    assert all(r.allowed for r in results)


# ---------------------------------------------------------------- policy, stop, protected


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (replace(orders(), policies=()), Reason.NO_POLICY),
        (orders(policy("a"), policy("b")), Reason.AMBIGUOUS),
        (orders(unreadable=("x",)), Reason.POLICY_UNREADABLE),
    ],
)
def test_no_single_rule_refuses(found: Any, reason: Reason) -> None:
    assert gate("policy", orders=found).reason is reason


@pytest.mark.parametrize(
    ("fields", "reason", "says"),
    [
        ({"stop": gates.Stop(where=NAMESPACE)}, Reason.STOPPED, "nightorders-stop exists in shop"),
        ({"stop": gates.Stop(where=SYSTEM)}, Reason.STOPPED, SYSTEM),
        ({"stop": gates.Stop(unknown="time-out")}, Reason.STOPPED, "cannot tell whether a stop is in force: time-out"),
        ({"incident": incident(suspend=True)}, Reason.SUSPENDED, "spec.suspend"),
        ({"incident": incident(meta={"deletionTimestamp": stamp(NOW)})}, Reason.SUSPENDED, "deleted"),
    ],
)
def test_stop_suspend_and_deletion_refuse(fields: dict[str, Any], reason: Reason, says: str) -> None:
    verdict = gate("stop", **fields)
    assert (verdict.allowed, verdict.reason) == (False, reason)
    assert says in verdict.message


@pytest.mark.threat(16)
@pytest.mark.promise(4)
@pytest.mark.parametrize(("stop", "in_force"), [(gates.Stop(), False), (gates.Stop(where="a"), True), (gates.Stop(unknown="b"), True)])
def test_not_knowing_is_a_stop(stop: gates.Stop, in_force: bool) -> None:
    assert stop.in_force is in_force


@pytest.mark.threat(14)
@pytest.mark.parametrize("namespace", ["kube-system", "kube-public", "kube-node-lease", SYSTEM])
def test_namespaces_protected_by_default(namespace: str) -> None:
    assert gate("protected", namespace=namespace).reason is Reason.PROTECTED


@pytest.mark.threat(14)
@pytest.mark.parametrize(
    ("entry", "allowed"),
    [
        ({}, False),
        ({"kinds": ["Deployment"]}, False),
        ({"kinds": ["StatefulSet"]}, True),
        ({"selector": {"matchLabels": {"tier": "web"}}}, False),
        ({"selector": {"matchLabels": {"tier": "db"}}}, True),
        ({"kinds": ["StatefulSet"], "selector": {"matchLabels": {"tier": "web"}}}, True),
    ],
)
def test_protected_objects_match_by_kind_and_labels(entry: dict[str, Any], allowed: bool) -> None:
    found = orders(cluster=(cluster_policy(protected=[{"name": "p", **entry}]),))
    assert gate("protected", orders=found).allowed is allowed


def test_protection_elsewhere_does_not_count_here() -> None:
    found = orders(cluster=(cluster_policy(namespaces=["billing"], protected=[{"name": "p"}]),))
    assert gate("protected", orders=found).allowed


# ---------------------------------------------------------------- Shadow mode, freeze and breaker


def test_a_policy_in_shadow_touches_nothing() -> None:
    shadow = orders(policy("web", enforcement="Shadow"))
    verdict = gate("enforcement", orders=shadow)
    assert (verdict.reason, verdict.message) == (
        Reason.SHADOW, "RemediationPolicy/web is in Shadow: it decides, records, and touches nothing",
    )  # fmt: skip
    assert gate("enforcement", orders=shadow, shadow=False).allowed
    assert gate("enforcement").allowed


HELD = {"name": "audit", "from": stamp(NOW - HOUR), "until": stamp(NOW + HOUR)}
LONGER = {"name": "holidays", "from": stamp(NOW - HOUR), "until": stamp(NOW + 9 * HOUR)}
BROKEN = {"name": "broken", "schedule": "0 18 * *", "duration": "1h"}


def frozen(*freezes: Any, emergency: str = "Deny", platform: tuple[Any, ...] = (), **where: Any) -> Any:
    cluster = (cluster_policy(freezes=list(platform), **where),) if platform else ()
    return orders(policy("web", rule_json(approval={"emergency": emergency}), freezes=list(freezes)), cluster=cluster)


@pytest.mark.parametrize(
    ("found", "allowed", "until", "says"),
    [
        (frozen(), True, None, "no freeze in force"),
        (frozen(HELD), False, NOW + HOUR, "RemediationPolicy/web freeze audit holds until 2026-07-01 13:00:00Z"),
        (frozen({**HELD, "until": stamp(NOW)}), True, None, "no freeze"),
        (frozen({**HELD, "allow": ["RollbackWorkload"]}), True, None, "no freeze"),
        (frozen(platform=(HELD,)), False, NOW + HOUR, "ClusterRemediationPolicy/platform freeze audit holds"),
        (frozen(platform=(HELD,), namespaces=["billing"]), True, None, "no freeze"),
        (frozen(LONGER, platform=(HELD,)), False, NOW + 9 * HOUR, "ClusterRemediationPolicy/platform freeze audit"),
        (frozen(BROKEN), False, None, "freeze broken holds without an end (freeze broken: schedule '0 18 * *' needs five fields"),
        (frozen(HELD, emergency="Allow"), True, None, "only emergency approvals count"),
        (frozen(platform=(HELD,), emergency="Allow"), True, None, "only emergency approvals count"),
    ],
)
def test_a_freeze_holds_back_and_says_until_when(found: Any, allowed: bool, until: Any, says: str) -> None:
    verdict = gate("freeze", orders=found)
    assert (verdict.allowed, verdict.retry_at) == (allowed, until)
    assert says in verdict.message
    assert allowed or verdict.reason is Reason.FROZEN


def failures(*minutes: float, **fields: Any) -> tuple[Any, ...]:
    return tuple(outcome(f"no-f{m}", at=NOW - timedelta(minutes=m), result="Undone", **fields) for m in minutes)


@pytest.mark.parametrize(
    ("books", "execution", "allowed", "says"),
    [
        ({}, "", True, "closed, 0 failures within 1h"),
        ({"outcomes": failures(1, 2)}, "", True, "closed, 2 failures within 1h"),
        ({"outcomes": failures(1, 2, 3)}, "", False, "3 failures of RollbackWorkload on Deployments within 1h"),
        ({"outcomes": failures(1, 2, 3, workload="StatefulSet/db")}, "", True, "closed"),
        ({"outcomes": failures(70, 71, 72)}, "", True, "half-open: one trial"),
        ({"outcomes": failures(70, 71, 72), "reservations": (reservation("no-t"),)}, "", False, "execution no-t is the one trial"),
        ({"outcomes": failures(70, 71, 72), "reservations": (reservation("no-t"),)}, "no-t", True, "half-open"),
    ],
)
def test_an_open_breaker_refuses_and_a_half_open_one_lets_one_trial_through(
    books: dict[str, Any], execution: str, allowed: bool, says: str
) -> None:
    verdict = gate("breaker", ledger=ledger(**books), execution=execution)
    assert verdict.allowed is allowed
    assert says in verdict.message
    assert allowed or verdict.reason is Reason.BREAKER_OPEN


def test_an_open_breaker_says_when_it_may_go_on() -> None:
    verdict = gate("breaker", ledger=ledger(outcomes=failures(10, 11, 12)))
    assert verdict.retry_at == NOW - 10 * MINUTE + SECOND + HOUR
    again = gate("breaker", NOW + 2 * HOUR, ledger=ledger(outcomes=failures(10, 11, 12)))
    assert again.allowed


# ---------------------------------------------------------------- level, confidence, category


@pytest.mark.parametrize(("level", "allowed"), [("L1", False), ("L2", True), ("L3", True), ("L4", True)])
def test_read_only_stages_nothing(level: str, allowed: bool) -> None:
    assert gate("action", level=Level(level)).allowed is allowed


@pytest.mark.parametrize(("grade", "allowed"), [("A", True), ("B", True), ("C", True), ("D", False)])
def test_timing_or_similarity_alone_proposes_nothing(grade: str, allowed: bool) -> None:
    assert gate("confidence", hypothesis=hypothesis(grade)).allowed is allowed


@pytest.mark.parametrize("name", ["confidence", "category"])
def test_no_origin_refuses(name: str) -> None:
    assert not gate(name, hypothesis=None).allowed


@pytest.mark.parametrize("category", list(Category))
def test_only_a_known_mechanism_passes(category: Category) -> None:
    verdict = gate("category", hypothesis=hypothesis(category=category))
    assert verdict.allowed is (category not in (Category.UNKNOWN, Category.NO_FAULT))


# ---------------------------------------------------------------- target, owner


def test_another_spec_is_another_target() -> None:
    assert gate("target", target=after_target()).reason is Reason.TARGET_CHANGED


def test_status_and_metadata_alone_are_no_change() -> None:
    moved = changed(changed(deployment(), ("status", "replicas"), 1), ("metadata", "resourceVersion"), "999")
    assert gate("target", target=moved).allowed


def test_a_target_that_is_being_deleted_refuses() -> None:
    going = changed(deployment(), ("metadata", "deletionTimestamp"), stamp(NOW))
    assert gate("target", target=going).reason is Reason.TARGET_CHANGED


@pytest.mark.threat(15)
def test_somebody_elses_object_is_left_alone() -> None:
    verdict = gate("owner", owner=FLUX)
    assert verdict.reason is Reason.OWNED_ELSEWHERE
    assert "Flux Kustomization apps" in verdict.message


APPS = Pause(api_version="kustomize.toolkit.fluxcd.io/v1", kind="Kustomization", namespace="flux-system", name="apps", hold_seconds=0)
LISTED = replace(FLUX, pause=APPS, confirmed=True, governs=7)


def pausing(git_ops: str = "Pause", *said: str) -> Any:
    platform = tuple(cluster_policy(f"p{i}", gitOpsPause=x) for i, x in enumerate(said))
    return orders(policy("web", rule_json(gitOps=git_ops)), cluster=platform)


@pytest.mark.parametrize(
    ("owner", "found", "allowed", "says"),
    [
        (LISTED, pausing("Pause", "TeamDecides"), True, "Kustomization/flux-system/apps lists it and is paused around the action, with all 7"),
        (LISTED, pausing("Refuse", "TeamDecides"), False, "change it there"),
        (LISTED, pausing("Pause"), False, "needs a ClusterRemediationPolicy with gitOpsPause: TeamDecides"),
        (LISTED, pausing("Pause", "TeamDecides", "Deny"), False, "needs a ClusterRemediationPolicy"),
        (replace(LISTED, confirmed=False), pausing("Pause", "TeamDecides"), False, "its inventory does not list the object"),
        (replace(LISTED, pause=None, problem="forbidden"), pausing("Pause", "TeamDecides"), False, "it cannot be paused: forbidden"),
        (LISTED, replace(orders(), policies=()), False, "change it there"),
        (None, orders(), True, "owned by nobody"),
    ],
)  # fmt: skip
def test_an_owner_may_be_paused_where_it_says_so_itself_and_both_orders_allow_it(owner: Any, found: Any, allowed: bool, says: str) -> None:
    verdict = gate("owner", owner=owner, orders=found)
    assert verdict.allowed is allowed
    assert says in verdict.message


# ---------------------------------------------------------------- rollout

ROLLING = gates.Rollout(under_way=True, past_deadline=False, own_change=False, terminal_since=None, progress="1 of 3 updated")


@pytest.mark.parametrize(
    ("fields", "limits", "allowed"),
    [
        ({"under_way": False}, {}, True),
        ({}, {}, False),
        ({}, {"duringRollout": "Allow"}, True),
        ({"own_change": True}, {}, False),
        ({"past_deadline": True}, {}, False),
        ({"own_change": True, "past_deadline": True}, {}, True),
        ({"terminal_since": NOW - HOUR}, {}, False),
        ({"own_change": True, "terminal_since": NOW - 5 * MINUTE}, {}, True),
        ({"own_change": True, "terminal_since": NOW - 5 * MINUTE + SECOND}, {}, False),
        ({"own_change": True, "terminal_since": NOW - 5 * MINUTE - SECOND}, {}, True),
        ({"own_change": True, "terminal_since": NOW}, {"stalledAfter": "0s"}, True),
        ({"own_change": True, "terminal_since": NOW + MINUTE}, {}, False),
    ],
)
def test_a_rollout_is_left_alone_unless_it_is_the_fault(fields: dict[str, Any], limits: dict[str, Any], allowed: bool) -> None:
    verdict = gate("rollout", rollout=replace(ROLLING, **fields), orders=limited(**limits))
    assert verdict.allowed is allowed
    assert allowed or verdict.reason is Reason.ROLLOUT_UNDER_WAY


def test_a_stalling_rollout_says_when_it_may_act() -> None:
    verdict = gate("rollout", rollout=replace(ROLLING, own_change=True, terminal_since=NOW - 3 * MINUTE))
    assert verdict.retry_at == NOW + 2 * MINUTE
    assert "180 s of stalledAfter 5m; acts from 12:02:00Z" in verdict.message


# ---------------------------------------------------------------- blast radius


@pytest.mark.parametrize(
    ("pods", "of", "limits", "allowed"),
    [
        (0, 3, {"maxPods": 0, "maxPercent": 0}, True),
        (1, 3, {"maxPods": 0}, False),
        (10, 100, {"maxPods": 10}, True),
        (11, 100, {"maxPods": 10}, False),
        (5, 10, {"maxPercent": 50}, True),
        (6, 11, {"maxPercent": 54}, False),
        (1, 3, {"maxPercent": 33}, False),  # 33.3 % is more than 33 %
        (3, 3, {"maxPercent": 100}, True),
        (0, 0, {"maxPercent": 0}, True),
        (2, 0, {"maxPercent": 50}, False),  # scaled to zero, and two pods still serve: all of what there is
    ],
)
def test_healthy_pods_at_risk_are_bounded_in_number_and_share(pods: int, of: int, limits: dict[str, Any], allowed: bool) -> None:
    risk = gates.Risk(pods, of, question().risk.preflight)
    verdict = gate("blast-radius", risk=risk, orders=limited(**limits))
    assert verdict.allowed is allowed
    assert f"{pods} healthy pods" in verdict.message


def important(**limits: Any) -> Any:
    tier = {"name": "gold", "selector": {"matchLabels": {"tier": "web"}}, **limits}
    return orders(policy("web", rule_json(limits={"maxPods": 10, "maxPercent": 50})), cluster=(cluster_policy(tiers=[tier]),))


@pytest.mark.parametrize(
    ("found", "risk", "allowed", "says"),
    [
        (important(), {"pods": 5}, True, "5 healthy pods (50 % of 10) at risk; limits 10 pods, 50 %"),
        (important(maxPods=4), {"pods": 5}, False, "limits 4 pods, 50 %"),
        (important(maxPercent=40), {"pods": 5}, False, "limits 10 pods, 40 %"),
        (important(maxPods=99, maxPercent=100), {"pods": 6}, False, "limits 10 pods, 50 %"),  # a tier loosens nothing
        (important(maxPods=0, selector={"matchLabels": {"tier": "db"}}), {"pods": 5}, True, "limits 10 pods"),
        (important(maxPercentOfNamespace=20), {"pods": 5, "namespace_pods": 25}, True, "20 % of the 25 Ready pods of shop, limit 20 %"),
        (important(maxPercentOfNamespace=20), {"pods": 5, "namespace_pods": 24}, False, "21 % of the 24 Ready pods of shop, limit 20 %"),
        (important(maxPercentOfNamespace=20), {"pods": 5}, False, "the pods of shop could not be counted"),
        (important(maxPercentOfNamespace=20), {"pods": 0}, True, "0 healthy pods"),
        (important(maxPercentOfNamespace=20), {"pods": 5, "namespace_pods": 0}, False, "100 %"),
        (important(maxPercentOfNamespace=0), {"pods": 1, "namespace_pods": 999}, False, "limit 0 %"),
        # PodDisruptionBudgets
        (important(), {"pods": 5, "at_once": 2, "disruption_budgets": (gates.DisruptionBudget("a", 2),)}, True, "5 healthy"),
        (important(), {"pods": 5, "at_once": 2, "disruption_budgets": (gates.DisruptionBudget("a", 9), gates.DisruptionBudget("b", 1))}, False,
         "PodDisruptionBudget/b allows 1 more pods to be down; the rollout may take down 2"),
        (important(), {"pods": 0, "at_once": 2, "disruption_budgets": (gates.DisruptionBudget("a", 0),)}, True, "0 healthy"),
        (important(), {"pods": 1, "at_once": 2, "disruption_budgets": (gates.DisruptionBudget("a", 1),)}, True, "1 healthy"),
    ],
)  # fmt: skip
def test_tiers_and_disruption_budgets_tighten_the_radius(found: Any, risk: dict[str, Any], allowed: bool, says: str) -> None:
    verdict = gate("blast-radius", orders=found, risk=gates.Risk(**{"workload_pods": 10, "preflight": question().risk.preflight, **risk}))
    assert verdict.allowed is allowed
    assert says in verdict.message
    assert allowed or verdict.reason in (Reason.BLAST_RADIUS, Reason.DISRUPTION_BUDGET)


def test_the_strictest_of_all_tiers_counts() -> None:
    both = orders(
        cluster=(
            cluster_policy("a", tiers=[{"name": "x", "selector": {}, "maxPods": 3, "maxPercent": 90}]),
            cluster_policy("b", tiers=[{"name": "y", "selector": {}, "maxPods": 5, "maxPercent": 20}]),
        )
    )
    assert "limits 3 pods, 20 %" in gate("blast-radius", orders=both, risk=gates.Risk(1, 9, question().risk.preflight)).message


# ---------------------------------------------------------------- cooldown, rate, budget


@pytest.mark.parametrize(
    ("entries", "execution", "due"),
    [
        ([], "", None),
        ([outcome(workload="Deployment/other")], "", None),
        ([outcome(workload=CHECKOUT, at=NOW - 10 * MINUTE)], "", None),
        ([outcome(workload=CHECKOUT, at=NOW - 10 * MINUTE + SECOND)], "", NOW + SECOND),
        ([outcome(workload=CHECKOUT, at=NOW - 9 * MINUTE, result="NotApplied")], "", None),
        ([outcome(workload=CHECKOUT, at=NOW - 9 * MINUTE, result="Undone")], "", NOW + MINUTE),
        ([outcome(workload=CHECKOUT, at=NOW - 9 * MINUTE, by="human")], "", NOW + MINUTE),
        ([reservation(workload=CHECKOUT, at=NOW - 9 * MINUTE)], "", NOW + MINUTE),
        ([reservation("no-1", workload=CHECKOUT, at=NOW - 9 * MINUTE)], "no-1", None),
        ([outcome("no-1", workload=CHECKOUT, at=NOW - HOUR), outcome(workload=CHECKOUT, at=NOW - 9 * MINUTE)], "", NOW + MINUTE),
    ],
)  # fmt: skip
def test_cooldown_counts_from_the_last_reservation_on_this_workload(entries: list[Any], execution: str, due: Any) -> None:
    spec = {
        "outcomes": tuple(e for e in entries if hasattr(e, "result")),
        "reservations": tuple(e for e in entries if not hasattr(e, "result")),
    }
    verdict = gate("cooldown", ledger=ledger(**spec), execution=execution)
    assert (verdict.allowed, verdict.retry_at) == (due is None, due)
    assert due is None or "cooldown 10m" in verdict.message


def starts(*minutes: float, **fields: Any) -> tuple[Any, ...]:
    return tuple(outcome(f"no-{i}", at=NOW - timedelta(minutes=m), **fields) for i, m in enumerate(minutes))


@pytest.mark.parametrize(
    ("outcomes", "execution", "due"),
    [
        (starts(1, 2), "", None),
        (starts(1, 2, 60), "", None),  # an hour old is no longer within the hour
        (starts(1, 2, 59), "", NOW + MINUTE),
        (starts(1, 2, 3, 59), "", NOW + 57 * MINUTE),  # three of four must leave the hour
        (starts(1, 2, 59), "no-0", None),
    ],
)
def test_rate_counts_starts_of_the_action_in_the_namespace_within_the_hour(outcomes: Any, execution: str, due: Any) -> None:
    verdict = gate("rate", ledger=ledger(outcomes=outcomes), execution=execution)
    assert (verdict.allowed, verdict.retry_at) == (due is None, due)


def fleet_of(concurrent: int = 5, per_hour: int = 20) -> Any:
    return orders(cluster=(cluster_policy(fleet={"maxConcurrent": concurrent, "perHour": per_hour}),))


@pytest.mark.threat(28)
@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"fleet": None}, True),
        ({"orders": fleet_of(1)}, True),
        ({"orders": fleet_of(0)}, False),
        ({"orders": fleet_of(per_hour=0)}, False),
        ({"orders": fleet_of(1), "fleet": ledger("fleet", reservations=(reservation(),))}, False),
        ({"orders": fleet_of(2), "fleet": ledger("fleet", reservations=(reservation(namespace="billing"),))}, True),
        ({"orders": fleet_of(1), "fleet": ledger("fleet", reservations=(reservation("no-me"),)), "execution": "no-me"}, True),
        ({"fleet": ledger("fleet", reservations=tuple(reservation(f"no-{i}") for i in range(5)))}, False),
        ({"orders": fleet_of(per_hour=2), "fleet": ledger("fleet", outcomes=starts(1, 60, namespace="billing"))}, True),
        ({"orders": fleet_of(per_hour=2), "fleet": ledger("fleet", outcomes=starts(1, 59, namespace="billing"))}, False),
        ({"ledger": ledger(reservations=(reservation(workload=CHECKOUT),))}, False),
        ({"ledger": ledger(reservations=(reservation("no-me", workload=CHECKOUT),)), "execution": "no-me"}, True),
        ({"ledger": ledger(reservations=(reservation(workload="Deployment/cart"),))}, True),
    ],
)
def test_budget_of_the_fleet_and_one_execution_per_workload(fields: dict[str, Any], allowed: bool) -> None:
    verdict = gate("budget", **fields)
    assert verdict.allowed is allowed
    assert allowed or verdict.reason is Reason.BUDGET


@pytest.mark.promise(6)
def fleet(**limits: Any) -> Any:
    return orders(cluster=(cluster_policy(fleet={"maxConcurrent": 10, "perHour": 10, **limits}),))


def busy(here: int = 0, elsewhere: int = 0, lately_here: int = 0, lately_elsewhere: int = 0) -> Any:
    running = tuple(reservation(f"no-h{i}") for i in range(here))
    running += tuple(reservation(f"no-e{i}", namespace="billing") for i in range(elsewhere))
    past = starts(*range(1, lately_here + 1))
    past += tuple(outcome(f"no-x{i}", at=NOW - 30 * MINUTE, namespace="billing") for i in range(lately_elsewhere))
    return ledger("fleet", reservations=running, outcomes=past)


@pytest.mark.parametrize(
    ("found", "books", "workloads", "allowed", "says"),
    [
        (fleet(), busy(here=4), None, True, "4 of 10 running"),
        (fleet(), busy(here=5), None, False, "5 of 5 executions that shop may run at once (50 % of the fleet's 10)"),
        (fleet(), busy(elsewhere=9), None, True, "9 of 10 running"),
        (fleet(namespaceShare=100), busy(here=9), None, True, "9 of 10"),
        (fleet(namespaceShare=1), busy(), None, True, "0 of 10"),  # rounded up: one is always possible
        (fleet(namespaceShare=0), busy(), None, False, "0 of 0 executions that shop may run at once (0 % of"),
        (fleet(maxConcurrent=3), busy(here=1), None, True, "1 of 3"),  # half of three, rounded up, is two
        (fleet(maxConcurrent=3), busy(here=2), None, False, "2 of 2"),
        (fleet(maxConcurrent=99), busy(lately_here=5), None, False, "5 of 5 executions that shop may begin within the hour (50 % of the fleet's 10)"),
        (fleet(maxConcurrent=99), busy(lately_here=4, lately_elsewhere=5), None, True, "9 of 10 within the hour"),
        (fleet(maxConcurrent=99), busy(lately_here=4, lately_elsewhere=6), None, False, "10 of 10 executions in the fleet within the hour"),
        (fleet(maxPercentOfWorkloads=10), busy(), 10, True, "0 of 10 running"),
        (fleet(maxPercentOfWorkloads=10), busy(), 9, False, "0 of 0 workloads may be worked on (10 % of 9)"),
        (fleet(maxPercentOfWorkloads=10), busy(elsewhere=2), 29, False, "2 of 2 workloads may be worked on (10 % of 29)"),
        (fleet(maxPercentOfWorkloads=10), busy(elsewhere=2), 30, True, "2 of 10 running"),
        (fleet(maxPercentOfWorkloads=10), busy(), None, False, "the workloads of the cluster could not be counted"),
        (fleet(maxPercentOfWorkloads=0), busy(), 9999, False, "0 of 0"),
    ],
)  # fmt: skip
def test_no_namespace_spends_the_whole_budget_and_the_fleet_is_worked_on_in_parts(
    found: Any, books: Any, workloads: int | None, allowed: bool, says: str
) -> None:
    verdict = gate("budget", orders=found, fleet=books, fleet_workloads=workloads)
    assert verdict.allowed is allowed
    assert says in verdict.message
    assert allowed or verdict.reason is Reason.BUDGET


def test_ones_own_slot_is_not_in_ones_own_way() -> None:
    mine = ledger("fleet", reservations=(reservation("no-me"),))
    assert gate("budget", orders=fleet(maxConcurrent=1, maxPercentOfWorkloads=50), fleet=mine, fleet_workloads=2, execution="no-me").allowed
    assert not gate("budget", orders=fleet(maxConcurrent=1), fleet=mine).allowed


@pytest.mark.promise(6)
def test_the_lowest_of_all_fleet_limits_counts() -> None:
    both = orders(cluster=(cluster_policy("a", fleet={"maxConcurrent": 9, "perHour": 2}), cluster_policy("b", fleet={"maxConcurrent": 1})))
    assert (gates.fleet_limit(both).max_concurrent, gates.fleet_limit(both).per_hour) == (1, 2)
    assert gates.fleet_limit(orders()).max_concurrent == 5


@pytest.mark.threat(28)
def test_an_elsewhere_governing_cluster_policy_still_bounds_the_fleet() -> None:
    found = orders(cluster=(cluster_policy(namespaces=["billing"], fleet={"maxConcurrent": 0}),))
    assert not gate("budget", orders=found).allowed


def test_preflight_refuses_with_its_own_reason() -> None:
    verdict = gate("preflight", risk=gates.Risk(0, 3, refused(Reason.PREFLIGHT, "paused")))
    assert (verdict.reason, verdict.message) == (Reason.PREFLIGHT, "paused")


# ---------------------------------------------------------------- the chain as a whole

CLOSED: dict[str, dict[str, Any]] = {
    "policy": {"orders": orders(unreadable=("x",))},
    "enforcement": {"orders": orders(policy(enforcement="Shadow"))},
    "freeze": {"orders": frozen(HELD)},
    "breaker": {"ledger": ledger(outcomes=failures(61, 62, 63)), "orders": orders(policy(breaker={"within": "9h", "openFor": "9h"}))},
    "stop": {"stop": gates.Stop(where=NAMESPACE)},
    "protected": {"namespace": "kube-system"},
    "action": {"level": Level.L1},
    "confidence": {"hypothesis": hypothesis("D")},
    "category": {"hypothesis": hypothesis(category=Category.UNKNOWN)},
    "target": {"target": after_target()},
    "owner": {"owner": ARGO},
    "rollout": {"rollout": ROLLING},
    "blast-radius": {"risk": gates.Risk(11, 11, question().risk.preflight)},
    "cooldown": {"ledger": ledger(outcomes=(outcome(workload=CHECKOUT),))},
    "rate": {"ledger": ledger(outcomes=starts(1, 2, 3))},
    "budget": {"fleet": ledger("fleet", reservations=tuple(reservation(f"no-{i}") for i in range(5)))},
    "preflight": {"risk": gates.Risk(0, 3, refused(Reason.PREFLIGHT, "paused"))},
}


def test_every_gate_has_its_case() -> None:
    assert set(CLOSED) == {g.name for g in gates.CHAIN}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("level", ["L3", "L4"])
def test_one_closed_gate_is_enough_to_refuse(name: str, level: str) -> None:
    q = question(**{"level": Level(level), **CLOSED[name]})
    results, verdict = gates.judge(q, NOW)
    assert not verdict.allowed
    assert [r.gate for r in results if not r.allowed] == [name]
    assert next(r for r in results if r.gate == name).reason == verdict.reason.value


@pytest.mark.parametrize("name", CLOSED)
def test_advice_is_refused_by_its_own_gates_only_and_shows_the_others(name: str) -> None:
    q = question(**{"level": Level.L2, **CLOSED[name]})
    results, verdict = gates.judge(q, NOW)
    wanted = next(g for g in gates.CHAIN if g.name == name).advice
    assert verdict.allowed is not wanted
    assert [r.gate for r in results if not r.allowed] == [name]


def test_all_gates_are_asked_and_the_first_refusal_decides() -> None:
    q = question(stop=gates.Stop(where=NAMESPACE), rollout=ROLLING, owner=ARGO)
    results, verdict = gates.judge(q, NOW)
    assert [r.gate for r in results] == [g.name for g in gates.CHAIN]
    assert [r.gate for r in results if not r.allowed] == ["stop", "owner", "rollout"]
    assert verdict.reason is Reason.STOPPED


def test_an_unmatched_target_has_the_default_limits() -> None:
    q = question(orders=replace(orders(), policies=()))
    assert (q.limits.max_pods, q.limits.max_percent) == (10, 50)


def test_a_still_workload_passes_the_rollout_gate() -> None:
    assert gate("rollout", rollout=STILL, target=deployment()).allowed
