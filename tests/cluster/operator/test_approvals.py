"""Approvals, seen by the running operator. What admission alone refuses is tried in tests/cluster/attacks."""

from __future__ import annotations

import json
import signal

import pytest

from tests.cluster.scene import BAD, GOOD, Scene, condition, mutations, policy, until
from tools.operator_process import OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.threat(3), pytest.mark.promise(1)]
OPERATOR = "system:serviceaccount:nightorders-system:nightorders"


def waiting(scene: Scene, level: str = "L3", **rule: object) -> dict:
    """A plan that waits for approval."""
    scene.apply(policy(level, **rule))
    scene.app()
    scene.release()
    return scene.incident("AwaitingApproval")


def nothing_done(scene: Scene) -> None:
    """No mutation by the operator in this namespace, and the image is still the bad one."""
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []
    assert scene.image() == BAD


def test_two_keys_of_one_person_are_one_approval_and_two_people_are_two(operator: OperatorProcess, scene: Scene) -> None:
    """api.md: distinct usernames are counted, not keys."""
    incident = waiting(scene, approval={"count": 2})
    ann, bob = scene.approver("ann"), scene.approver("auth0|bob")
    scene.approve(incident, ann, "ann", key="one")
    scene.approve(incident, ann, "ann", key="two")
    until(lambda: "counted: ann" in condition(scene.one(), "Approved").get("message", ""), "ann is counted once")
    nothing_done(scene)
    scene.approve(incident, bob, "auth0|bob", key="three")
    incident = scene.incident("Recovered")
    assert {a["user"] for a in incident["status"]["approvals"]} == {"ann", "auth0|bob"}


def test_rejection_ends_the_plan_and_it_is_not_proposed_again(operator: OperatorProcess, scene: Scene) -> None:
    incident = waiting(scene)
    ann, digest = scene.approver(), incident["status"]["plan"]["digest"]
    scene.kubectl(
        "annotate", "incident", incident["metadata"]["name"], f"reject.nightorders.dev/one={digest}|ann",
        "why.nightorders.dev/one=release is on purpose", who=ann,
    )  # fmt: skip
    incident = scene.until_condition("Planned", "Rejected")
    assert "release is on purpose" in json.dumps(incident["status"]["timeline"])
    assert "plan" not in incident["status"]
    refused = scene.approve(incident, ann, "ann", digest=digest, key="late", check=False)
    assert "no plan" in refused.lower() or "waits" in refused.lower(), refused
    nothing_done(scene)


def test_an_approval_expires_from_the_moment_it_was_first_seen(operator: OperatorProcess, scene: Scene) -> None:
    """Two are needed and one came: when the second comes, the first is too old."""
    incident = waiting(scene, approval={"count": 2, "expiresAfter": "4s"})
    scene.approve(incident, scene.approver("ann"), "ann", key="one")
    until(lambda: scene.one()["status"].get("approvals"), "the operator saw it")
    first_expiry = scene.one()["status"]["plan"]["expiresAt"]
    until(lambda: scene.one()["status"]["plan"]["expiresAt"] > first_expiry, "the plan was staged again")
    again = scene.one()
    assert again["status"]["plan"]["digest"] == incident["status"]["plan"]["digest"], "the same digest while nothing changed"
    scene.approve(again, scene.approver("bob"), "bob", key="two")
    until(lambda: "counted: bob" in condition(scene.one(), "Approved").get("message", ""), "only bob counts")
    nothing_done(scene)


def test_withdrawal_before_the_last_approval_counts(operator: OperatorProcess, scene: Scene) -> None:
    incident = waiting(scene, approval={"count": 2})
    ann = scene.approver("ann")
    scene.approve(incident, ann, "ann", key="one")
    until(lambda: scene.one()["status"].get("approvals"), "the operator saw it")
    scene.kubectl("annotate", "incident", incident["metadata"]["name"], "approve.nightorders.dev/one-", who=ann)
    until(lambda: not scene.one()["status"].get("approvals"), "the operator saw the withdrawal")
    scene.approve(incident, scene.approver("bob"), "bob", key="two")
    until(lambda: "counted: bob" in condition(scene.one(), "Approved").get("message", ""), "only bob counts")
    nothing_done(scene)


def test_the_requester_is_no_approver_where_duties_are_separated(operator: OperatorProcess, scene: Scene) -> None:
    scene.apply(policy("L3", approval={"count": 1, "separationOfDuties": True}))
    scene.app()
    ann = scene.approver("ann")
    scene.kubectl("create", "rolebinding", "author-ann", "--clusterrole=nightorders-incident-author", "--user=ann", check=False)
    by_hand = {
        "apiVersion": "nightorders.dev/v1alpha1", "kind": "Incident", "metadata": {"name": "by-hand", "namespace": scene.namespace},
        "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}, "requestedBy": "ann"},
    }  # fmt: skip
    scene.release()
    scene.kubectl("create", "-f", "-", stdin=json.dumps(by_hand), who=ann)

    def mine() -> dict:
        return next(i for i in scene.incidents() if i["metadata"]["name"] == "by-hand")

    until(lambda: mine().get("status", {}).get("phase") == "AwaitingApproval", "it waits")
    said = scene.approve(mine(), ann, "ann", key="one", check=False)
    if "annotated" in said:
        until(lambda: mine()["status"].get("approvals"), "the operator saw it")
    assert mine()["status"]["phase"] == "AwaitingApproval", said
    nothing_done(scene)


def test_a_waiting_plan_is_not_released_by_a_later_raise(operator: OperatorProcess, scene: Scene) -> None:
    """threats.md 8: the minimum of what policies said at staging and say now."""
    waiting(scene, "L3")
    scene.apply(policy("L4"))
    until(lambda: scene.get("rempol/web").get("status", {}).get("actions") == "RollbackWorkload=L4", "the operator knows the new policy")
    until(
        lambda: any("level at" in s["who"] for s in scene.one()["status"]["autonomy"]["decidedBy"] if s["level"] == "L3"),
        "status names what holds it back",
        30,
    )
    assert scene.one()["status"]["phase"] == "AwaitingApproval"
    nothing_done(scene)


@pytest.mark.parametrize("change", ["lowered", "deleted"])
def test_a_plan_is_withdrawn_when_its_policy_is(operator: OperatorProcess, scene: Scene, change: str) -> None:
    incident = waiting(scene)
    digest = incident["status"]["plan"]["digest"]
    if change == "lowered":
        scene.apply(policy("L1"))
        reason = "ReadOnly"
    else:
        scene.kubectl("delete", "rempol", "web")
        reason = "NoPolicy"
    incident = scene.until_condition("Planned", reason)
    scene.approve(incident, scene.approver(), "ann", digest=digest, check=False)
    assert "plan" not in scene.one()["status"]
    nothing_done(scene)


def frozen(operator: OperatorProcess) -> None:
    operator.signal(signal.SIGSTOP)


def thawed(operator: OperatorProcess) -> None:
    operator.signal(signal.SIGCONT)


def test_a_target_that_changed_between_approval_and_execution_is_left_alone(operator: OperatorProcess, scene: Scene) -> None:
    """The operator is frozen while both happen, so that it sees the approval and the change at once."""
    incident = waiting(scene)
    ann = scene.approver()
    frozen(operator)
    try:
        scene.approve(incident, ann, "ann")
        scene.kubectl("patch", "deployment", "checkout", "--type=merge", "-p", '{"spec":{"minReadySeconds":1}}')
    finally:
        thawed(operator)
    until(
        lambda: scene.one()["status"].get("plan", {}).get("digest") not in (None, incident["status"]["plan"]["digest"]),
        "another plan was staged for the changed target",
    )
    nothing_done(scene)


def test_a_change_of_status_alone_does_not_void_an_approval(operator: OperatorProcess, scene: Scene) -> None:
    """One pod's death moves the resourceVersion three times; the spec is the same."""
    incident = waiting(scene)
    ann = scene.approver()
    frozen(operator)
    try:
        scene.approve(incident, ann, "ann")
        before = scene.get("deployment/checkout")["metadata"]["resourceVersion"]
        scene.kubectl("delete", "pod", "-l", "app=checkout", "--field-selector=status.phase=Running", "--wait=false")
        until(lambda: scene.get("deployment/checkout")["metadata"]["resourceVersion"] != before, "the status changed")
    finally:
        thawed(operator)
    scene.incident("Recovered")
    assert scene.image() == GOOD


def test_a_narrowed_binding_stops_everything_above_l2(operator: OperatorProcess, scene: Scene) -> None:
    """threats.md 2: a binding narrowed by a selector passes a probe elsewhere; the operator compares the live objects with its own."""
    incident = waiting(scene)
    narrow = '{"spec":{"matchResources":{"namespaceSelector":{"matchLabels":{"nobody":"has-this"}}}}}'
    scene.cluster.kubectl("patch", "validatingadmissionpolicybinding", "nightorders-approvals", "--type=merge", "-p", narrow)
    try:
        until(lambda: "nightorders_approval_guard_proven 0.0" in operator.scrape(), "the operator noticed")
        ann = scene.approver()
        scene.approve(incident, ann, "ann", check=False)
        until(lambda: scene.one()["status"]["phase"] == "Advised", "the level fell to L2", 60)
        assert any(s["who"] == "approval guard" for s in scene.one()["status"]["autonomy"]["decidedBy"])
        nothing_done(scene)
    finally:
        scene.cluster.kubectl(
            "patch", "validatingadmissionpolicybinding", "nightorders-approvals", "--type=json",
            "-p", '[{"op":"remove","path":"/spec/matchResources"}]',
        )  # fmt: skip
        until(lambda: "nightorders_approval_guard_proven 1.0" in operator.scrape(), "proven again")
