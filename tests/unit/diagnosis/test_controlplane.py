"""The control plane: by leases, by objects that nobody looked at, by aggregated APIs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from nightorders.diagnosis.anomalies.controlplane import control_plane
from nightorders.diagnosis.hypotheses import Candidate

from .between import MINUTE, Raw, app, at, made, template, told, world, written


def lease(name: str, ago: timedelta) -> Raw:
    return made("Lease", name, namespace="kube-system", spec={"renewTime": at(ago), "leaseDurationSeconds": 15})


def found(*parts: Raw | list[Raw], beside: list[Raw] | None = None) -> list[Candidate]:
    return list(control_plane(world(*parts, beside={"kube-system": beside or []})))


def waiting(age: timedelta = 5 * MINUTE, **spec: Any) -> list[Raw]:
    """An app whose one pod no scheduler has looked at."""
    parts = app("cart", pods=1, ready=False, age=age)
    pod = parts[-1]
    pod["spec"] = {k: v for k, v in {**pod["spec"], **spec}.items() if k != "nodeName"}
    pod["status"] = {"phase": "Pending"}
    return parts


def test_a_control_plane_at_work() -> None:
    leases = [lease("kube-scheduler", timedelta(seconds=5)), lease("kube-controller-manager", timedelta(seconds=5))]
    assert found(app("cart"), beside=leases) == []
    assert found(app("cart"), beside=[lease("kube-scheduler", 10 * MINUTE)]) == []  # (nothing waits for it)


def test_no_scheduler() -> None:
    (c,) = found(waiting(), beside=[lease("kube-scheduler", 10 * MINUTE)])
    assert told([c]) == ["ControlPlane Lease/kube-system/kube-scheduler A"]
    assert "Deployment/cart" in c.hits
    static = made("Pod", "kube-scheduler-m1", namespace="kube-system", labels={"component": "kube-scheduler"})
    (c,) = found(waiting(), beside=[static])
    assert told([c]) == ["ControlPlane Pod/kube-system/kube-scheduler-m1 B"]


def test_pods_that_wait_for_something_else() -> None:
    assert found(waiting(timedelta(seconds=20))) == []
    assert found(waiting(schedulerName="mine")) == []
    assert found(waiting(schedulingGates=[{"name": "x"}])) == []
    assert found(app("cart", ready=False, scheduled="0/3 nodes are available")) == []


def test_no_controllers() -> None:
    behind = app("cart", template(labels={"app": "cart"}), generation=8, observed=7, managed=[written(5 * MINUTE, "spec", "template")])
    (c,) = found(behind, beside=[lease("kube-controller-manager", 10 * MINUTE)])
    assert told([c]) == ["ControlPlane Lease/kube-system/kube-controller-manager A"]
    now = app("cart", generation=8, observed=7, managed=[written(timedelta(seconds=5), "spec", "template")])
    assert found(now) == []


def test_an_aggregated_api_that_is_down() -> None:
    state = {"type": "Available", "status": "False", "reason": "MissingEndpoints", "message": "", "lastTransitionTime": at(5 * MINUTE)}
    spec = {"group": "metrics.k8s.io", "service": {"name": "metrics-server", "namespace": "kube-system"}}
    api = made("APIService", "v1beta1.metrics.k8s.io", spec=spec, status={"conditions": [state]})
    hpa = made("HorizontalPodAutoscaler", "cart", spec={"scaleTargetRef": {"kind": "Deployment", "name": "cart"}})
    (c,) = found(app("cart"), hpa, api)
    assert told([c]) == ["ControlPlane APIService/v1beta1.metrics.k8s.io C"]
    assert c.hits == ("APIService/v1beta1.metrics.k8s.io", "HorizontalPodAutoscaler/cart")
    local = made("APIService", "v1.", spec={}, status={"conditions": [state]})
    assert found(app("cart"), local) == []
