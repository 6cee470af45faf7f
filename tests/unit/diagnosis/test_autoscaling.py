"""Autoscalers: blind, misdirected, held back, or at their maximum."""

from __future__ import annotations

from typing import Any

from nightorders.diagnosis.anomalies.autoscaling import autoscaling, lacking
from nightorders.diagnosis.hypotheses import Candidate
from nightorders.diagnosis.world import World

from .between import LIMITS, MINUTE, Claim, Raw, app, at, made, released, service, template, told, web, world, written

NO_API = "the HPA was unable to compute the replica count: failed to get cpu utilization: unable to get metrics for resource cpu: unable to fetch metrics from resource metrics API: the server could not find the requested resource (get pods.metrics.k8s.io)"  # noqa: E501
NO_REQUEST = "failed to get cpu utilization: missing request for cpu in container app of Pod press-1"
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}}


def press(**resources: Any) -> Raw:
    return template(web("press", resources=resources), labels={"app": "press"})


def condition(kind: str, status: str, reason: str, message: str = "") -> Raw:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(10 * MINUTE)}


def hpa(*conditions: Raw, target: str = "press", most: int = 6, now: int = 0, **more: Any) -> Raw:
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": target}, "minReplicas": 2, "maxReplicas": most, "metrics": [CPU]}
    status: Raw = {"conditions": list(conditions), "currentReplicas": 2, "desiredReplicas": 2}
    if now:
        status["currentMetrics"] = [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": now}}}]
    return made("HorizontalPodAutoscaler", "press", spec=spec | more.pop("spec", {}), status=status | more.pop("status", {}), **more)


BLIND = condition("ScalingActive", "False", "FailedGetResourceMetric", NO_API)
ASKED = Claim("KubeHpaReplicasMismatch", labels={"horizontalpodautoscaler": "press"})
FULL = condition("ScalingLimited", "True", "TooManyReplicas")


def found(*parts: Raw | list[Raw], **kw: Any) -> list[Candidate]:
    w: World = world(*parts, service("press"), **kw)
    return list(autoscaling(w))


def test_an_autoscaler_that_works_says_nothing() -> None:
    assert found(app("press", press(**LIMITS)), hpa(condition("ScalingActive", "True", "ValidMetricFound"), now=40)) == []


def test_containers_that_request_nothing() -> None:
    assert lacking({"containers": [{"name": "a", "resources": {"limits": {"cpu": "1"}}}, {"name": "b"}]}, "cpu") == ["b"]
    assert lacking({"containers": [{"name": "a"}, {"name": "b"}]}, "cpu", "b") == ["b"]
    assert lacking({"containers": [], "initContainers": [{"name": "mesh", "restartPolicy": "Always"}, {"name": "once"}]}, "cpu") == ["mesh"]


def test_a_release_that_dropped_the_requests() -> None:
    parts = released("press", press(**LIMITS), press())
    (c,) = found(parts, hpa(condition("ScalingActive", "False", "FailedGetResourceMetric", NO_REQUEST)))
    assert told([c]) == ["Autoscaling Deployment/press Release A"]
    assert c.hits == ("HorizontalPodAutoscaler/press", "Deployment/press")


def test_requests_that_never_were() -> None:
    """What has never worked explains an autoscaler's own signal, and nothing else."""
    assert told(found(app("press", press()), hpa(BLIND), claim=ASKED)) == ["Autoscaling Deployment/press A"]
    assert told(found(app("press", press()), hpa(BLIND), claim=Claim("HttpErrorBudgetBurn"))) == ["Autoscaling Deployment/press D"]


def test_requests_that_a_limit_range_added_to_the_pods_count() -> None:
    parts = app("press", press())
    for o in parts:
        if o["kind"] == "Pod":
            o["spec"] = {**o["spec"], "containers": [{"name": "app", "resources": LIMITS}]}
    assert found(parts, hpa(condition("ScalingActive", "True", "ValidMetricFound"))) == []


def test_metrics_that_nobody_serves_any_more() -> None:
    parts = app("press", press(**LIMITS))
    worked = hpa(BLIND, status={"lastScaleTime": at(60 * MINUTE)})
    assert told(found(parts, worked, claim=ASKED)) == ["ControlPlane APIService/v1beta1.metrics.k8s.io Deletion B"]
    assert told(found(parts, worked)) == ["ControlPlane APIService/v1beta1.metrics.k8s.io Deletion C"]
    never = hpa(BLIND)
    assert told(found(parts, never)) == ["ControlPlane APIService/v1beta1.metrics.k8s.io D"]
    there = made("APIService", "v1beta1.metrics.k8s.io", status={"conditions": [condition("Available", "True", "Passed")]})
    assert found(parts, worked, there) == []


def test_an_api_that_is_down() -> None:
    down = made("APIService", "v1beta1.metrics.k8s.io", status={"conditions": [condition("Available", "False", "MissingEndpoints")]})
    assert told(found(app("press", press(**LIMITS)), hpa(BLIND), down, claim=ASKED)) == ["ControlPlane APIService/v1beta1.metrics.k8s.io B"]


def test_a_blind_autoscaler_of_pods_that_are_down_is_a_victim() -> None:
    assert found(app("press", press(**LIMITS), ready=False), hpa(BLIND, status={"lastScaleTime": at(MINUTE)})) == []
    assert found(app("press", press(), pods=0), hpa(condition("ScalingActive", "False", "ScalingDisabled"))) == []


def test_a_target_that_is_not_there() -> None:
    lost = hpa(target="pres", managed=[written(MINUTE, "spec", "scaleTargetRef")])
    (c,) = found(app("press", press(**LIMITS)), lost)
    assert told([c]) == ["Autoscaling HorizontalPodAutoscaler/press Edit A"]
    assert "Deployment/press does" in c.statement
    assert found(app("press", press(**LIMITS)), hpa(target="x"), unread=["Deployment"]) == []


def test_full_and_pressed_is_overload() -> None:
    full = hpa(FULL, most=2, now=97, spec={"minReplicas": 1})
    (c,) = found(app("press", press(**LIMITS)), full)
    assert told([c]) == ["Overload HorizontalPodAutoscaler/press A"]
    assert {"Service/press", "Deployment/press"} <= set(c.hits)


def test_a_maximum_that_was_lowered_is_the_autoscalers() -> None:
    lowered = hpa(FULL, most=2, now=97, spec={"minReplicas": 1}, managed=[written(5 * MINUTE, "spec", "maxReplicas")])
    assert told(found(app("press", press(**LIMITS)), lowered)) == ["Autoscaling HorizontalPodAutoscaler/press Edit A"]


def test_full_without_demand_pinned_or_failing_is_no_overload() -> None:
    parts = app("press", press(**LIMITS))
    assert found(parts, hpa(most=2, now=20, spec={"minReplicas": 1})) == []
    assert found(parts, hpa(most=2, now=95)) == []
    assert found(app("press", press(**LIMITS), ready=False), hpa(FULL, most=2, now=97, spec={"minReplicas": 1})) == []


def test_scaling_up_that_is_switched_off() -> None:
    held = hpa(now=95, spec={"behavior": {"scaleUp": {"selectPolicy": "Disabled"}}}, managed=[written(MINUTE, "spec", "behavior")])
    assert told(found(app("press", press(**LIMITS)), held)) == ["Autoscaling HorizontalPodAutoscaler/press Edit A"]


def test_replicas_in_two_hands() -> None:
    over = [written(MINUTE, "spec", "replicas", by="argocd-controller")]
    wants = hpa(status={"desiredReplicas": 5, "lastScaleTime": at(4 * MINUTE)})
    assert told(found(app("press", press(**LIMITS), managed=over), wants)) == ["Autoscaling Deployment/press Edit C"]
    assert found(app("press", press(**LIMITS), managed=over), hpa(status={"desiredReplicas": 2, "lastScaleTime": at(4 * MINUTE)})) == []
    assert found(app("press", press(**LIMITS)), wants) == []


def test_malformed_autoscalers() -> None:
    for spec in ([], {"metrics": [5], "scaleTargetRef": "x"}, {"metrics": [{"type": 3, "resource": []}], "maxReplicas": "many"}):
        assert found(app("press", press(**LIMITS)), made("HorizontalPodAutoscaler", "x", spec=spec, status=[])) == []
