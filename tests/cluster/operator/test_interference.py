"""Crashes, people and other controllers get in the way: at most one effect, nothing stuck, nobody's change undone."""

from __future__ import annotations

import json

import pytest

from tests.cluster.scene import BAD, GOOD, Scene, condition, mutations, policy, until
from tools.cluster import Cluster
from tools.operator_process import OperatorProcess

pytestmark = pytest.mark.cluster
OPERATOR = "system:serviceaccount:nightorders-system:nightorders"
SLOW = {"for": "12s", "every": "1s"}
HOPELESS = {"for": "4s", "every": "1s", "checks": [{"name": "never", "condition": "Impossible"}], "onNoData": "Undo"}


def broken(scene: Scene, level: str, **rule: object) -> None:
    scene.apply(policy(level, **rule))
    scene.app()
    scene.release()


def settled(scene: Scene) -> None:
    """No slot taken, no finalizer left."""
    until(lambda: not scene.get("ledger/ledger")["spec"].get("reservations"), "the namespace's slots are free")
    until(lambda: not any(i["metadata"].get("finalizers") for i in scene.incidents()), "no finalizer is left")


@pytest.mark.promise(2)
def test_kill_9_while_a_plan_waits_for_approval(operator: OperatorProcess, scene: Scene) -> None:
    broken(scene, "L3")
    incident = scene.incident("AwaitingApproval")
    operator.kill()
    scene.approve(incident, scene.approver(), "ann")
    operator.start().wait_ready()
    scene.incident("Recovered")
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 1
    settled(scene)


@pytest.mark.promise(2)
def test_kill_9_while_verifying(operator: OperatorProcess, scene: Scene) -> None:
    broken(scene, "L4", verify=SLOW)
    scene.incident("Verifying")
    operator.kill()
    operator.start().wait_ready()
    scene.incident("Recovered")
    assert scene.image() == GOOD
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 1
    settled(scene)


@pytest.mark.promise(2)
def test_kill_9_right_after_the_change_was_sent(operator: OperatorProcess, scene: Scene) -> None:
    """Between the effect and the write that records it: the stamp and the digest on the target say that it happened."""
    broken(scene, "L3")
    incident = scene.incident("AwaitingApproval")
    scene.approve(incident, scene.approver(), "ann")
    until(lambda: scene.image() == GOOD, "the change is there")
    operator.kill()
    operator.start().wait_ready()
    scene.incident("Recovered")
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 1
    settled(scene)


@pytest.mark.promise(2)
def test_kill_9_around_an_undo(operator: OperatorProcess, scene: Scene) -> None:
    broken(scene, "L4", verify=HOPELESS)
    scene.incident({"Verifying", "Undoing"})
    operator.kill()
    operator.start().wait_ready()
    scene.incident("Undone")
    assert scene.image() == BAD
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 2
    settled(scene)


@pytest.mark.threat(7)
@pytest.mark.promise(2)
def test_an_incident_deleted_while_verifying_still_ends_its_execution(operator: OperatorProcess, scene: Scene) -> None:
    broken(scene, "L4", verify=SLOW)
    incident = scene.incident("Verifying")
    name = incident["metadata"]["name"]
    refused = scene.kubectl("delete", "incident", name, "--wait=false", "--as=somebody", "--as-group=system:authenticated", check=False)
    assert "incident" in refused
    allowed = scene.kubectl("delete", "incident", name, "--wait=false", check=False)  # cluster-admin holds emergency-delete
    assert "deleted" in allowed, allowed
    until(lambda: not scene.incidents(), "the Incident is gone once its execution has ended")
    assert scene.image() == GOOD
    ledger = scene.get("ledger/ledger")["spec"]
    assert not ledger.get("reservations")
    assert len(ledger["outcomes"]) == 1


def test_somebody_elses_change_during_the_verification_is_not_undone(operator: OperatorProcess, scene: Scene) -> None:
    broken(scene, "L4", verify={**HOPELESS, "for": "15s"})
    scene.incident("Verifying")
    scene.kubectl("set", "image", "deployment/checkout", "checkout=registry.example/checkout:2.4.1")
    incident = scene.incident("Escalated")
    assert incident["status"]["executions"][0]["result"] == "Superseded"
    assert scene.image() == "registry.example/checkout:2.4.1"
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 1
    settled(scene)


@pytest.mark.threat(3)
@pytest.mark.promise(1)
def test_a_target_deleted_and_made_anew_is_another_target(operator: OperatorProcess, scene: Scene) -> None:
    broken(scene, "L3")
    incident = scene.incident("AwaitingApproval")
    old = incident["status"]["plan"]["target"]["uid"]
    scene.kubectl("delete", "deployment", "checkout", "--wait=true")
    scene.until_condition("Triaged", "TargetNotFound")
    assert "plan" not in scene.one()["status"]
    refused = scene.approve(incident, scene.approver(), "ann", check=False)
    assert "annotated" not in refused
    scene.app()
    assert scene.get("deployment/checkout")["metadata"]["uid"] != old
    until(lambda: condition(scene.one(), "Closed").get("status") == "True", "it is healthy, so the Incident closes")
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []


def test_a_humans_rollout_undo_and_replace_on_a_stamped_object_succeed(operator: OperatorProcess, scene: Scene) -> None:
    """threats.md 11: nothing of ours stands in a human's way."""
    broken(scene, "L4")
    scene.incident("Recovered")
    assert scene.get("deployment/checkout")["metadata"]["labels"]["nightorders.dev/execution"]
    ann = scene.approver()
    scene.kubectl("rollout", "undo", "deployment/checkout", who=ann)
    assert scene.image() == BAD
    fixed = scene.get("deployment/checkout")
    fixed["spec"]["template"]["spec"]["containers"][0]["image"] = "registry.example/checkout:2.4.2"
    scene.kubectl("replace", "-f", "-", stdin=json.dumps(fixed), who=ann)
    assert scene.image() == "registry.example/checkout:2.4.2"
    scene.kubectl("rollout", "status", "deployment/checkout", "--timeout=60s")


def test_a_planted_template_is_not_rolled_back_to(operator: OperatorProcess, scene: Scene) -> None:
    """threats.md 12: whoever may patch ReplicaSets could plant a template that an undo deploys. (The API server makes a ReplicaSet's
    template mutable.)"""
    scene.apply(policy("L4"))
    scene.app()
    (replicaset,) = json.loads(scene.kubectl("get", "rs", "-o", "json"))["items"]
    planted = '{"spec":{"template":{"spec":{"containers":[{"name":"checkout","image":"evil.example/miner:1"}]}}}}'
    scene.release()
    scene.kubectl("patch", "rs", replicaset["metadata"]["name"], "--type=strategic", "-p", planted)
    incident = until(lambda: next(iter(scene.incidents()), None), "an Incident")
    assert incident
    scene.until_condition("Planned", "NoActionFits")
    assert scene.image() == BAD
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []


@pytest.mark.promise(4, 7)
def test_permissions_revoked_while_running_are_said_and_survived(operator: OperatorProcess, scene: Scene) -> None:
    scene.kubectl("delete", "rolebinding", "nightorders-action-rollbackworkload")
    broken(scene, "L4")
    incident = scene.until_condition("Planned", "PermissionMissing")
    assert "kubectl create rolebinding" in condition(incident, "Planned")["message"]
    assert scene.image() == BAD
    scene.operator_may_roll_back()
    scene.incident("Recovered")
    assert scene.image() == GOOD


@pytest.mark.threat(16)
def test_a_stop_holds_before_the_next_effect_and_deleting_it_resumes(operator: OperatorProcess, scene: Scene) -> None:
    scene.kubectl("create", "configmap", "nightorders-stop")
    broken(scene, "L4")
    incident = scene.until_condition("Planned", "Stopped")
    assert scene.namespace in condition(incident, "Planned")["message"]
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []
    scene.kubectl("delete", "configmap", "nightorders-stop")
    scene.incident("Recovered")


@pytest.mark.threat(16)
def test_a_stop_during_the_verification_still_lets_it_undo(operator: OperatorProcess, scene: Scene) -> None:
    broken(scene, "L4", verify={**HOPELESS, "for": "8s"})
    scene.incident("Verifying")
    scene.kubectl("create", "configmap", "nightorders-stop")
    scene.incident("Undone")
    assert scene.image() == BAD
    settled(scene)


@pytest.mark.promise(2)
def test_two_operators_at_once_act_once(two_operators: list[OperatorProcess], scene: Scene) -> None:
    broken(scene, "L4")
    incident = scene.incident("Recovered")
    assert len(scene.incidents()) == 1
    committed = [m for m in mutations(scene.cluster, OPERATOR, scene.namespace) if m["responseStatus"]["code"] == 200]
    assert len(committed) == 1
    assert len(incident["status"]["executions"]) == 1
    assert len(scene.get("ledger/ledger")["spec"]["outcomes"]) == 1
    settled(scene)


@pytest.mark.threat(17)
@pytest.mark.promise(2)
def test_the_standby_takes_over_when_the_leader_dies(arena: Cluster, no_operator: None, scene: Scene) -> None:
    first = OperatorProcess(arena, name="first").start().wait_ready()
    second = OperatorProcess(arena, name="second").start().wait_ready(leading=False)
    try:
        assert "nightorders_leader 0.0" in second.scrape()
        broken(scene, "L3")
        incident = scene.incident("AwaitingApproval")
        first.kill()
        scene.approve(incident, scene.approver(), "ann")
        second.wait_ready()
        scene.incident("Recovered")
        assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 1
    finally:
        first.stop()
        second.stop()
