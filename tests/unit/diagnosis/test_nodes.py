"""Nodes: not ready, under pressure, closed; announced, over, or another workload's matter."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from nightorders.diagnosis.anomalies.nodes import announced, nodes
from nightorders.diagnosis.hypotheses import Candidate
from nightorders.diagnosis.world import World

from .between import DAY, HOUR, MINUTE, Claim, Raw, app, at, kube, made, told, world, written
from .build import crashing

ABOUT = Claim("KubeNodeNotReady", labels={"node": "n0"})
OTHER = Claim("HttpErrorBudgetBurn", labels={"service": "cart"})


def node(name: str = "n0", *conditions: Raw, spec: Raw | None = None, **more: Any) -> Raw:
    return made("Node", name, spec=spec or {}, status={"conditions": list(conditions) or [state()]}, **more)


def state(kind: str = "Ready", status: str = "True", reason: str = "KubeletReady", *, since: timedelta = 20 * DAY) -> Raw:
    return {"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": at(since)}


LOST = state("Ready", "Unknown", "NodeStatusUnknown", since=5 * MINUTE)


def found(*parts: Raw | list[Raw], claim: Claim | None = ABOUT, **kw: Any) -> list[Candidate]:
    return list(nodes(world(*parts, claim=claim, **kw)))


def hurt(name: str = "cart", *, node_: str = "n0") -> list[Raw]:
    """Two pods, of which the one on that node is not ready."""
    parts = app(name, node=node_)
    ill, well = (o for o in parts if o["kind"] == "Pod")
    ill["status"]["conditions"][1]["status"] = "False"
    ill["status"]["containerStatuses"][0]["ready"] = False
    well["spec"] = {**well["spec"], "nodeName": "n1"}
    return parts


def test_healthy_nodes_say_nothing() -> None:
    assert found(app("cart"), node(), node("n1"), claim=None) == []


def test_a_node_that_stopped_reporting() -> None:
    (c,) = found(hurt(), node("n0", LOST))
    assert told([c]) == ["Node Node/n0 A"]
    assert c.hits == ("Node/n0", "Deployment/cart")
    assert "Deployment/cart lose pods" in c.statement


def test_it_counts_for_another_signal_by_the_workloads_that_it_hurts_only() -> None:
    (c,) = found(hurt(), node("n0", LOST), claim=OTHER)
    assert c.hits == ("Deployment/cart",)
    assert found(app("cart", node="n1"), node("n0", LOST), claim=OTHER) == []


def test_its_lease_is_told_if_it_was_looked_at() -> None:
    lease = made("Lease", "n0", namespace="kube-node-lease", spec={"renewTime": at(6 * MINUTE)})
    (c,) = found(hurt(), node("n0", LOST), beside={"kube-node-lease": [lease]})
    assert any("Lease/kube-node-lease/n0" in o.text for m in c.marks for o in m.seen)


def test_a_node_that_is_ready_again_is_over() -> None:
    back = node("n0", state(since=3 * MINUTE))
    assert told(found(app("cart"), back)) == ["[Node Node/n0 D]", "NoFault Node/n0 A"]
    assert found(app("cart"), back, claim=OTHER) == []
    assert found(hurt(), back) == []
    new = node("n0", state(since=3 * MINUTE), age=4 * MINUTE)
    assert found(app("cart"), new) == []


def test_pressure_with_evictions() -> None:
    evicted = made("Pod", "cart-x", spec={"nodeName": "n0"}, status={"phase": "Failed", "reason": "Evicted"})
    evicted["metadata"]["ownerReferences"] = [{"kind": "ReplicaSet", "name": "cart-0001", "uid": "uid-cart-0001", "controller": True}]
    (c,) = found(
        app("cart"), evicted, node("n0", state(), state("DiskPressure", "True", "KubeletHasDiskPressure", since=MINUTE)), claim=OTHER
    )
    assert told([c]) == ["Node Node/n0 A"]
    assert c.hits == ("Deployment/cart",)
    assert found(app("cart"), node("n0", state(), state("DiskPressure", "False", "x")), claim=OTHER) == []


def test_a_cordon_that_nobody_announced() -> None:
    closed = node("n0", spec={"unschedulable": True}, managed=[written(5 * MINUTE, "spec", "unschedulable", by="kubectl-cordon")])
    assert told(found(app("cart"), closed)) == ["Unschedulable Node/n0 Edit A"]
    assert found(app("cart"), closed, claim=OTHER) == []


@pytest.mark.parametrize(
    "more",
    [
        {"annotations": {"maintenance.example/reason": "firmware"}},
        {"labels": {"platform.example/maintenance": "true"}},
        {"spec": {"unschedulable": True, "taints": [{"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule"}]}},
        {"annotations": {"weave.works/kured-reboot-in-progress": at(MINUTE)}},
    ],
)
def test_an_announced_cordon_is_no_fault(more: Raw) -> None:
    closed = node("n0", **{"spec": {"unschedulable": True}, **more})
    assert told(found(app("cart"), closed)) == ["[Unschedulable Node/n0 D]", "NoFault Node/n0 A"]


def test_pods_that_wait_for_an_announced_node_are_hit() -> None:
    message = "0/3 nodes are available: 1 node(s) had untolerated taint {maintenance.example/change: C-1}, 2 node(s) didn't match"
    spec = {"unschedulable": True, "taints": [{"key": "maintenance.example/change", "value": "C-1", "effect": "NoSchedule"}]}
    refuted, benign = found(app("cart", pods=1, ready=False, scheduled=message), node("n0", spec=spec), claim=OTHER)
    assert refuted.refuted
    assert benign.hits == ("Deployment/cart",)


@pytest.mark.parametrize(
    ("notes", "stands"),
    [
        ({"maintenance.example/until": "2026-03-01T18:00:00Z"}, True),
        ({"maintenance.example/window": "2026-02-20T02:00:00Z/2026-02-20T04:00:00Z"}, False),
        ({"maintenance.example/state": "false"}, False),
        ({"kubelet.example/maintenance-free": "yes"}, False),
        ({"team": "platform"}, False),
    ],
)
def test_what_counts_as_an_announcement(notes: dict[str, str], stands: bool) -> None:
    w: World = world(app("cart"))
    assert (announced(w, kube("Node", node("n0", annotations=notes))) is not None) is stands


def test_a_notice_in_a_config_map_names_the_node() -> None:
    notice = made("ConfigMap", "platform-notice", data={"nodes": "n0, n4", "text": "out of service for firmware maintenance"})
    closed = node("n0", spec={"unschedulable": True})
    assert told(found(app("cart"), closed, notice))[-1] == "NoFault Node/n0 A"
    other = made("ConfigMap", "platform-notice", data={"nodes": "n01", "text": "maintenance"})
    assert told(found(app("cart"), closed, other)) == ["Unschedulable Node/n0 B"]


def test_a_node_that_is_announced_and_not_ready_is_no_fault() -> None:
    lost = node("n0", LOST, annotations={"maintenance.example/state": "reboot"})
    assert told(found(hurt(), lost)) == ["[Node Node/n0 D]", "NoFault Node/n0 A"]


def ill(name: str) -> list[Raw]:
    """Crashes on n0, serves on n1."""
    parts = app(name, node="n0")
    bad, well = (o for o in parts if o["kind"] == "Pod")
    bad["status"]["conditions"][1]["status"] = "False"
    bad["status"]["containerStatuses"] = [crashing()]
    well["spec"] = {**well["spec"], "nodeName": "n1"}
    return parts


def test_a_node_on_which_several_workloads_fail() -> None:
    (c,) = found(ill("cart"), ill("shop"), node(), node("n1"), claim=OTHER)
    assert told([c]) == ["Node Node/n0 C"]
    assert set(c.hits) == {"Node/n0", "Deployment/cart", "Deployment/shop"}
    assert found(ill("cart"), node(), node("n1"), claim=OTHER) == []
    assert found(ill("cart"), ill("shop"), app("pay", node="n0"), node(), node("n1"), claim=OTHER) == []


def test_old_turns_do_not_count() -> None:
    assert found(app("cart"), node("n0", state(since=2 * HOUR))) == []
