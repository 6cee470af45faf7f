"""Each level does what its name says, and nothing more: measured from the API server's audit log."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.cluster.scene import BAD, GOOD, Scene, condition, mutations, policy, until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]
OPERATOR = "system:serviceaccount:nightorders-system:nightorders"


def broken(scene: Scene, level: str | None, **rule: object) -> None:
    """A healthy app under a policy of that level, then a release that cannot be pulled."""
    if level:
        scene.apply(policy(level, **rule))
    scene.app()
    scene.release()


@pytest.mark.promise(1)
def test_without_a_policy_everything_is_read_only(scene: Scene) -> None:
    broken(scene, None)
    incident = scene.incident("Diagnosed")
    assert incident["status"]["cause"] == "ImageAccess Deployment/checkout · rev 2"
    assert incident["status"]["grade"] == "A"
    assert condition(incident, "Planned")["reason"] == "NoPolicy"
    assert "plan" not in incident["status"]
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []


@pytest.mark.promise(1)
def test_l1_explains_and_stages_nothing(scene: Scene) -> None:
    broken(scene, "L1")
    incident = scene.incident("Diagnosed")
    assert condition(incident, "Planned")["reason"] == "ReadOnly"
    assert "plan" not in incident["status"]
    assert incident["status"]["autonomy"]["level"] == "L1"
    assert scene.image() == BAD
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []


def test_l2_gives_the_exact_command_notices_that_a_human_ran_it_and_verifies(scene: Scene) -> None:
    broken(scene, "L2")
    incident = scene.incident("Advised")
    plan = incident["status"]["plan"]
    assert "-    - image: registry.example/checkout:2.4.O" in plan["dryRun"]["diff"] or "2.4.0" in plan["dryRun"]["diff"]
    who = scene.approver()
    pipeline = " | ".join(" ".join([*argv, "--kubeconfig", str(who)]) for argv in plan["command"])
    subprocess.run(["bash", "-c", pipeline], check=True, capture_output=True)
    assert scene.image() == GOOD
    incident = scene.incident("Recovered")
    assert incident["status"]["executions"][0]["by"] == "human"
    assert incident["status"]["verification"]["verdict"] == "Recovered"
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []


@pytest.mark.promise(1, 2)
def test_l3_waits_for_a_human_and_then_acts_once(scene: Scene) -> None:
    broken(scene, "L3")
    incident = scene.incident("AwaitingApproval")
    assert scene.image() == BAD
    assert incident["status"]["plan"]["parameters"]["provenHealthy"] is True
    scene.approve(incident, scene.approver(), "ann")
    incident = scene.incident("Recovered")
    assert scene.image() == GOOD
    assert [a["user"] for a in incident["status"]["approvals"]] == ["ann"]
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 1
    deployment = scene.get("deployment/checkout")
    assert deployment["metadata"]["labels"]["nightorders.dev/execution"] == incident["status"]["executions"][0]["id"]
    until(lambda: not scene.one()["metadata"].get("finalizers"), "the finalizer is gone")


def test_l4_acts_alone_within_its_limits(scene: Scene) -> None:
    broken(scene, "L4")
    incident = scene.incident("Recovered")
    assert scene.image() == GOOD
    assert incident["status"]["executions"][0]["by"] == "operator"
    assert incident["status"]["verification"]["verdict"] == "Recovered"
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 1
    ledger = scene.get("ledger/ledger")["spec"]
    assert [o["result"] for o in ledger["outcomes"]] == ["Recovered"]
    assert ledger.get("reservations", []) == []


def test_a_fault_whose_cause_is_not_the_release_is_not_rolled_back_and_says_why(scene: Scene) -> None:
    scene.apply(policy("L4"), {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"MODE": "fast"}})
    scene.app(envFrom=[{"configMapRef": {"name": "settings"}}])
    scene.kubectl("delete", "configmap", "settings")
    scene.kubectl("delete", "pod", "-l", "app=checkout", "--wait=false")
    incident = scene.incident("Escalated")
    assert incident["status"]["cause"].startswith("MissingObject ConfigMap/settings")
    assert condition(incident, "Planned")["reason"] == "NoActionFits"
    assert "a rollback would not remove it" in condition(incident, "Planned")["message"]
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []
    scene.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"MODE": "fast"}})
    incident = scene.incident("Recovered", 90)
    assert condition(incident, "Closed")["reason"] == "RecoveredByItself"


def test_an_incident_by_hand_is_diagnosed_for_any_deployment(scene: Scene) -> None:
    scene.app()
    scene.apply(
        {
            "apiVersion": "nightorders.dev/v1alpha1",
            "kind": "Incident",
            "metadata": {"name": "looks-slow"},
            "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}},
        }
    )
    incident = scene.incident("Dismissed")
    assert incident["status"]["summary"]
    assert condition(incident, "Closed")["reason"] == "NoFault"


@pytest.mark.promise(5)
def test_an_undo_puts_back_what_was_there_and_calls_a_human(scene: Scene) -> None:
    """The verification can never pass: the rollback did not help as far as the policy can tell, so it is undone."""
    broken(scene, "L4", verify={"for": "3s", "every": "1s", "checks": [{"name": "never", "condition": "Impossible"}], "onNoData": "Undo"})
    incident = scene.incident("Undone")
    assert scene.image() == BAD
    assert incident["status"]["executions"][0]["result"] == "Undone"
    assert incident["status"]["verification"]["verdict"] == "NoData"
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 2
    condition(incident, "Closed")["message"].index("a human decides")
    # It stops there: no second attempt, although the fault is still there and the policy says L4.
    until(lambda: condition(scene.incidents()[0], "Planned").get("reason") == "StoppedActing", "it says that it stopped acting")
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 2


def test_columns_and_events_tell_the_story(scene: Scene) -> None:
    broken(scene, "L4")
    incident = scene.incident("Recovered")
    table = scene.kubectl("get", "inc")
    assert table.splitlines()[0].split() == ["NAME", "SEVERITY", "PHASE", "CAUSE", "GRADE", "ACTION", "LEVEL", "AGE"]
    until(
        lambda: "4" not in scene.kubectl("get", "rempol") or "1" in scene.kubectl("get", "rempol").splitlines()[1], "workloads are counted"
    )
    events = json.loads(scene.kubectl("get", "events", "-o", "json"))["items"]
    reasons = [e["reason"] for e in events if e["involvedObject"]["kind"] == "Incident"]
    assert {"Staged", "Reserved", "Applied", "Recovered"} <= set(reasons)
    assert incident["metadata"]["name"].startswith("checkout-rolloutstuck-")
