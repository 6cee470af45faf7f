"""Budgets without room, and pods that were sent away."""

from __future__ import annotations

from typing import Any

import pytest

from nightorders.diagnosis.anomalies.disruption import disruption, never
from nightorders.diagnosis.hypotheses import Candidate

from .between import MINUTE, Claim, Raw, app, at, kube, made, told, world, written

DRAIN = Claim("NodeDrainStuck", labels={"node": "n0"})
BUDGET = Claim("KubePdbNotEnoughHealthyPods", labels={"poddisruptionbudget": "cart"})
OTHER = Claim("HttpErrorBudgetBurn", labels={"service": "cart"})


def budget(name: str = "cart", allowed: int = 0, app_: str = "cart", managed: Any = (), **spec: Any) -> Raw:
    selector = {"matchLabels": {"app": app_}}
    return made("PodDisruptionBudget", name, spec={"selector": selector, **spec}, status={"disruptionsAllowed": allowed}, managed=managed)


def node(name: str = "n0", *, closed: bool = True) -> Raw:
    return made("Node", name, spec={"unschedulable": closed})


def found(*parts: Raw | list[Raw], claim: Claim | None = DRAIN) -> list[Candidate]:
    return list(disruption(world(*parts, claim=claim)))


@pytest.mark.parametrize(
    ("spec", "replicas", "stuck"),
    [
        ({"minAvailable": 2}, 2, True),
        ({"minAvailable": 1}, 2, False),
        ({"minAvailable": "100%"}, 3, True),
        ({"minAvailable": "90%"}, 3, True),
        ({"minAvailable": "50%"}, 3, False),
        ({"maxUnavailable": 0}, 3, True),
        ({"maxUnavailable": "0%"}, 3, True),
        ({"maxUnavailable": "10%"}, 3, False),
        ({"maxUnavailable": 1}, 1, False),
        ({"minAvailable": "all"}, 3, False),
        ({}, 3, False),
    ],
)
def test_budgets_that_never_let_go(spec: Raw, replicas: int, stuck: bool) -> None:
    assert bool(never(kube("PodDisruptionBudget", budget(**spec)), replicas)) is stuck


def test_a_drain_that_hangs_on_a_budget() -> None:
    tight = budget(minAvailable=2, managed=[written(5 * MINUTE, "spec", "minAvailable")])
    (c,) = found(app("cart"), tight, node())
    assert told([c]) == ["Disruption PodDisruptionBudget/cart Edit A"]
    assert "Node/n0 cannot be drained" in c.statement
    assert c.hits == ("PodDisruptionBudget/cart", "Node/n0")


def test_the_budget_by_itself_when_the_signal_asks_for_it() -> None:
    assert told(found(app("cart"), budget(minAvailable=2), claim=BUDGET)) == ["Disruption PodDisruptionBudget/cart B"]


def test_a_tight_budget_explains_nothing_else() -> None:
    assert found(app("cart"), budget(minAvailable=2), node(), claim=OTHER) == []
    assert found(app("cart"), budget(minAvailable=2), node(closed=False), claim=Claim("KubeNodeNotReady")) == []


def test_a_budget_with_room_and_one_over_pods_that_fail_are_no_fault() -> None:
    assert found(app("cart"), budget(minAvailable=1, allowed=1), node()) == []
    assert found(app("cart", ready=False), budget(minAvailable=2), node()) == []


def test_two_budgets_over_the_same_pods() -> None:
    (c,) = found(app("cart"), budget("a", allowed=1, minAvailable=1), budget("b", allowed=1, minAvailable=1), node())
    assert told([c]) == ["Disruption PodDisruptionBudget/b A"]


def sent_away(reason: str) -> list[Raw]:
    parts = app("cart", node="n0")
    gone = next(o for o in parts if o["kind"] == "Pod")
    gone["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": at(MINUTE)}]
    gone["metadata"]["deletionTimestamp"] = at(MINUTE)
    return parts


def test_pods_that_a_drain_took_away() -> None:
    (c,) = found(sent_away("EvictionByEvictionAPI"), node())
    assert told([c]) == ["Disruption Node/n0 C"]
    assert c.hits == ("Deployment/cart",)
    assert found(sent_away("PreemptionByScheduler"), node()) == []
    assert found(sent_away("EvictionByEvictionAPI"), budget(minAvailable=1, allowed=1), node()) == []
