"""`nightorders policy explain`: the operator's own judgement; made-up evidence is called so, and what could not be read is named."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.api.v1alpha1 import ClusterRemediationPolicy, Ledger, RemediationPolicy
from nightorders.domain.snapshot import KubeObject, NotLooked
from nightorders.ports import ForbiddenError, Unreadable
from tests.unit.cli.golden import same_as_golden
from tests.unit.cli.scene import GOOD, FakeCluster, at, deployment, incident, replica_set

run = CliRunner().invoke
ASK = ["policy", "explain", "deploy/checkout", "-n", "shop", "--action", "RollbackWorkload"]
FORBIDDEN = ForbiddenError('GET /x: ledgers is forbidden: User "ann" cannot get (403)')


def policy(**spec: Any) -> RemediationPolicy:
    rule = {"name": "rollback", "types": ["RollbackWorkload"], "level": "L4", **spec.pop("rule", {})}
    return RemediationPolicy.model_validate({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"rules": [rule], **spec}})


def platform(**spec: Any) -> ClusterRemediationPolicy:
    return ClusterRemediationPolicy.model_validate({"metadata": {"name": "platform"}, "spec": spec})


def healthy() -> KubeObject:
    whole = deployment(GOOD, generation=7)
    status = {"observedGeneration": 7, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "readyReplicas": 3}
    return KubeObject({**whole.raw, "status": status}, "Deployment", "apps/v1")


@pytest.fixture
def shop(cluster: FakeCluster) -> FakeCluster:
    """A healthy checkout under one L4 rule, with a Ledger."""
    cluster.objects = {
        ("Deployment", "checkout"): healthy(),
        ("ReplicaSet", "checkout-6"): replica_set(6, GOOD),
        ("Namespace", "shop"): KubeObject({"metadata": {"name": "shop"}}, "Namespace", "v1"),
    }
    cluster.policies = [policy()]
    cluster.ledger = Ledger.model_validate({"metadata": {"name": "ledger"}})
    cluster.fleet = Ledger.model_validate({"metadata": {"name": "fleet"}})
    return cluster


def asked(*flags: str) -> dict[str, Any]:
    result = run(app, [*ASK, "-o", "json", *flags])
    assert result.exit_code == 0, result.stderr
    return dict(json.loads(result.stdout))


def test_a_healthy_workload_is_explained_by_a_fault_that_is_made_up(shop: FakeCluster) -> None:
    shop.policies = [
        policy(rule={"earn": {"from": "L2"}, "approval": {"count": 2}}, freezes=[{"name": "always", "from": at(-60), "until": at(3600)}])
    ]
    shop.cluster_policies = [platform(ceilings=[{"name": "roof", "level": "L3"}], tiers=[{"name": "all", "selector": {}, "risk": 25}])]
    result = run(app, ASK)
    assert (result.exit_code, result.stderr) == (0, "")
    same_as_golden(result.stdout, "explain-healthy.txt")


def test_json_has_every_gate_in_the_order_of_the_chain(shop: FakeCluster) -> None:
    wire = asked()
    assert wire["hypothetical"].startswith("Deployment/checkout is healthy now")
    assert (wire["level"], wire["outcome"], wire["governedBy"]) == ("L4", "Acts", "RemediationPolicy/web rule rollback")
    assert [g["gate"] for g in wire["gates"]][:4] == ["policy", "enforcement", "stop", "protected"]
    assert wire["needs"]["count"] == 1
    assert wire["breaker"]["state"] == "Closed"
    assert wire["unknown"] == []


def test_pods_at_risk_are_asked_for(shop: FakeCluster) -> None:
    wire = asked("--at-risk", "3")
    assert wire["outcome"] == "Refused"
    assert wire["verdict"]["reason"] == "BlastRadius"


def test_without_a_policy_it_is_l1(shop: FakeCluster) -> None:
    shop.policies = []
    wire = asked()
    assert (wire["level"], wire["needs"], wire["governedBy"]) == ("L1", None, None)
    assert "no RemediationPolicy of this namespace" in run(app, ASK).stdout


def test_what_could_not_be_read_is_named_and_lowers(shop: FakeCluster) -> None:
    shop.fleet = FORBIDDEN
    wire = asked()
    assert (wire["level"], wire["levelIfReadable"]) == ("L1", "L4")
    assert wire["unknown"] == ['Ledger of the fleet in nightorders-system: ledgers is forbidden: User "ann" cannot get']
    text = run(app, ASK).stdout
    assert "Could not be read" in text
    assert "L4 if what you could not read says nothing against it" in text


@pytest.mark.parametrize("what", ["policies", "cluster_policies", "ledger", "open_incidents"])
def test_each_of_them(shop: FakeCluster, what: str) -> None:
    setattr(shop, what, FORBIDDEN)
    wire = asked()
    assert wire["level"] == "L1"
    assert len(wire["unknown"]) == 1


def test_a_namespace_or_a_stop_that_cannot_be_read(shop: FakeCluster) -> None:
    shop.objects[("Namespace", "shop")] = NotLooked("Namespace/shop", "forbidden: namespaces")
    shop.objects[("ConfigMap", "nightorders-stop")] = NotLooked("ConfigMap/nightorders-stop", "forbidden: configmaps")
    wire = asked()
    assert len(wire["unknown"]) == 2
    assert {g["gate"]: g["reason"] for g in wire["gates"]}["stop"] == "Stopped"


def test_a_policy_that_this_version_cannot_read_governs_nothing(shop: FakeCluster) -> None:
    shop.policies = [policy(), Unreadable("new", "shop", "spec.new: extra")]
    assert asked()["level"] == "L1"


def test_the_open_incident_of_the_workload_speaks(shop: FakeCluster) -> None:
    shop.open_incidents = [incident(annotations={"take.nightorders.dev/x": "bob"})]
    wire = asked()
    assert wire["incident"] == "checkout-rolloutstuck-5c1f09ab22-1"
    assert (wire["level"], wire["outcome"]) == ("L2", "Advises")


def test_wrong_usage(shop: FakeCluster) -> None:
    unknown = run(app, [*ASK[:-1], "Reboot"])
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert "there is no action type 'Reboot'; known: RollbackWorkload" in unknown.stderr
    missing = run(app, ["policy", "explain", "deploy/other", "-n", "shop"])
    assert missing.exit_code == 2
    assert "there is no Deployment/other in namespace shop" in missing.stderr
    shop.there = False
    assert "nightorders is not installed" in run(app, ASK).stderr


def test_the_gitops_owner_is_asked_itself(shop: FakeCluster) -> None:
    """A sign on the workload proves nothing; the owner's own object is not there."""
    raw = copy.deepcopy(dict(healthy().raw))
    raw["metadata"]["annotations"] = {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/checkout"}
    shop.objects[("Deployment", "checkout")] = KubeObject(raw, "Deployment", "apps/v1")
    wire = asked()
    assert (wire["level"], wire["outcome"], wire["verdict"]["reason"]) == ("L3", "Refused", "OwnedElsewhere")
