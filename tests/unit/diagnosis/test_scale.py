"""Workloads at zero: by mistake, on purpose, and not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nightorders.diagnosis.anomalies.scale import scale
from nightorders.diagnosis.hypotheses import Candidate
from nightorders.diagnosis.world import World

from .between import DAY, MINUTE, Raw, app, calling, made, service, told, world, written

SCALED = written(5 * MINUTE, "spec", "replicas", by="kubectl", subresource="scale")
APPLIED = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"spec": {"replicas": 3}})}


def scene(*more: Raw, **kw: Any) -> World:
    pods = kw.pop("pods", 0)
    return world(app("shop", calling("shop", CART="http://cart:80")), app("cart", pods=pods, **kw), service("cart"), *more)


def found(w: World) -> list[Candidate]:
    return list(scale(w))


def test_somebody_scaled_it_to_zero_and_others_need_it() -> None:
    (c,) = found(scene(managed=[SCALED], annotations=APPLIED))
    assert told([c]) == ["Scale Deployment/cart Edit A"]
    assert c.hits == ("Deployment/cart", "Service/cart")
    assert "asks for 3" in c.statement
    assert c.change is not None
    assert c.change.by == "kubectl"


def test_zero_by_the_scale_subresource_leaves_the_field_without_an_owner() -> None:
    """Seen on a real API server: `kubectl scale --replicas=0` drops `f:replicas` from every manager."""
    w = scene(managed=[written(30 * DAY, "spec", "template", by="kubectl-client-side-apply")], annotations=APPLIED)
    (c,) = found(w)
    assert told([c]) == ["Scale Deployment/cart Edit A"]
    made_so = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"spec": {"replicas": 0}})}
    always = scene(managed=[written(30 * DAY, "spec", "template")], annotations=made_so)
    assert told(found(always)) == ["Scale Deployment/cart C"]


def test_without_a_change_and_without_a_former_count_it_stays_a_guess() -> None:
    assert told(found(scene())) == ["Scale Deployment/cart C"]


def test_the_autoscalers_minimum_is_the_former_count() -> None:
    hpa = made("HorizontalPodAutoscaler", "cart", spec={"minReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "cart"}})
    (c,) = found(scene(hpa, managed=[SCALED]))
    assert told([c]) == ["Scale Deployment/cart Edit A"]
    assert "at least 2" in c.statement


def test_a_workload_that_runs_is_no_fault() -> None:
    assert found(scene(pods=2, managed=[SCALED])) == []


@pytest.mark.parametrize(
    "notes",
    [
        {"downscaler/original-replicas": "3"},
        {"platform.example/maintenance": "until Monday"},
        {"ops.example/scaled-down-by": "night shift"},
    ],
)
def test_zero_on_purpose(notes: dict[str, str]) -> None:
    assert told(found(scene(managed=[SCALED], annotations=notes))) == ["[Scale Deployment/cart D]", "NoFault Deployment/cart A"]


def test_a_scaler_of_its_own_means_it() -> None:
    keda = made("ScaledObject", "cart", spec={"scaleTargetRef": {"name": "cart"}})
    assert told(found(scene(keda)))[-1] == "NoFault Deployment/cart A"
    by = written(MINUTE, "spec", "replicas", by="kube-downscaler")
    assert told(found(scene(managed=[by])))[-1] == "NoFault Deployment/cart A"


def test_words_that_say_no_are_no_purpose() -> None:
    notes = {"ops.example/maintenance": "false", "team.example/owner": "carts"}
    assert told(found(scene(managed=[SCALED], annotations=notes))) == ["Scale Deployment/cart Edit A"]


def test_fewer_than_applied_is_a_lead_only() -> None:
    (c,) = found(scene(pods=1, managed=[written(30 * MINUTE, "spec"), SCALED], annotations=APPLIED))
    assert told([c]) == ["Scale Deployment/cart Edit C"]
    assert found(scene(pods=3, managed=[SCALED], annotations=APPLIED)) == []


def test_annotations_that_are_no_json_say_nothing() -> None:
    broken = {"kubectl.kubernetes.io/last-applied-configuration": "[" * 100_000}
    assert told(found(scene(annotations=broken))) == ["Scale Deployment/cart C"]
