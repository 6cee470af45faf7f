"""What is ordered is obeyed: freezes, Shadow, earned autonomy, breakers, tiers, budgets, taking over. On a real API server, counted there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.scene import BAD, GOOD, Json, Scene, condition, mutations, policy, until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]
OPERATOR = "system:serviceaccount:nightorders-system:nightorders"
ALWAYS: Json = {"name": "always", "schedule": "* * * * *", "duration": "2h"}
NEVER_PASSES = {"for": "3s", "every": "1s", "checks": [{"name": "never", "condition": "Impossible"}], "onNoData": "Undo"}


def orders(level: str, *, spec: Json | None = None, **rule: Any) -> Json:
    """A policy with more fields of its own beside the rule's."""
    made = policy(level, **rule)
    made["spec"].update(spec or {})
    return made


@pytest.fixture
def platform(scene: Scene) -> Iterator[Any]:
    """Applies a ClusterRemediationPolicy for this namespace only; it is gone after the test."""
    name = f"platform-{scene.namespace}"

    def apply(**spec: Any) -> None:
        body = {
            "apiVersion": "nightorders.dev/v1alpha1",
            "kind": "ClusterRemediationPolicy",
            "metadata": {"name": name},
            "spec": {"namespaces": [scene.namespace], **spec},
        }
        scene.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(body))

    yield apply
    scene.cluster.kubectl("delete", "clusterremediationpolicy", name, "--ignore-not-found", check=False)


def decided(incident: Json) -> dict[str, Json]:
    """Speakers by name, without the name of the object that speaks."""
    return {s["who"]: s for s in incident["status"]["autonomy"]["decidedBy"]}


def gate(incident: Json, name: str) -> Json:
    return next(g for g in incident["status"]["gates"] if g["gate"] == name)


def break_it(scene: Scene) -> None:
    scene.app()
    scene.release()


@pytest.mark.threat(16)
@pytest.mark.promise(1)
def test_a_freeze_of_the_team_leaves_advice_and_its_end_releases(scene: Scene) -> None:
    scene.apply(orders("L4", spec={"freezes": [ALWAYS]}))
    break_it(scene)
    incident = scene.incident("Advised")
    assert incident["status"]["autonomy"]["level"] == "L2"
    assert "freeze always" in " ".join(decided(incident))
    assert not gate(incident, "freeze")["allowed"]
    status = until(lambda: scene.get("rempol/web").get("status", {}).get("frozenBy"), "the policy says that it is frozen")
    assert status.startswith("always until ")
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []
    # Once the freeze is gone the plan may go on, but what was ordered when it was staged is what counts: this is a later raise.
    scene.apply(orders("L4", spec={"freezes": []}))
    incident = scene.incident("Recovered")
    assert scene.image() == GOOD


@pytest.mark.threat(16)
@pytest.mark.promise(6)
def test_a_freeze_of_the_platform_cannot_be_lifted_by_a_team(scene: Scene, platform: Any) -> None:
    platform(freezes=[ALWAYS])
    scene.apply(orders("L4"))
    break_it(scene)
    incident = scene.incident("Advised")
    assert any(who.startswith("ClusterRemediationPolicy/") and "freeze always" in who for who in decided(incident))
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []
    admin = scene.cluster.user("team-admin")
    scene.kubectl("create", "rolebinding", "team-admin", "--clusterrole=admin", "--user=team-admin")
    lifted = scene.cluster.kubectl("delete", "clusterremediationpolicy", f"platform-{scene.namespace}", kubeconfig=admin, check=False)
    assert lifted.returncode != 0
    assert "forbidden" in lifted.stderr


@pytest.mark.promise(1)
def test_shadow_decides_touches_nothing_and_is_scored(scene: Scene) -> None:
    scene.apply(orders("L4", spec={"enforcement": "Shadow"}))
    break_it(scene)
    incident = scene.until_condition("Planned", "Shadow")
    shadow = incident["status"]["shadow"]
    assert shadow["would"].startswith("would have acted alone: RollbackWorkload")
    assert shadow["score"] == "Open"
    assert "plan" not in incident["status"]
    scene.kubectl("set", "image", "deployment/checkout", f"checkout={GOOD}")  # a human does the very same
    incident = scene.incident("Recovered")
    assert incident["status"]["shadow"]["score"] == "Agreed"
    until(lambda: [s["score"] for s in scene.get("ledger/ledger")["spec"]["shadows"]] == ["Agreed"], "the Ledger remembers it")
    until(lambda: scene.get("rempol/web")["status"].get("shadow", {}).get("agreed") == 1, "the policy's status counts it")
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []
    dry = [
        e for e in scene.cluster.audit_log.read_text().splitlines() if scene.namespace in e and "dryRun=All" in e and '"deployments"' in e
    ]
    assert [e for e in dry if OPERATOR in e] == []


@pytest.mark.threat(29)
@pytest.mark.promise(6)
def test_autonomy_is_earned_and_lost(scene: Scene) -> None:
    """L3 at first; one confirmed success carries it to L4; one undone action throws it back."""
    earn = {"from": "L3", "successes": 1, "over": "24h"}
    scene.apply(orders("L4", earn=earn))
    scene.app()
    scene.release()
    incident = scene.incident("AwaitingApproval")
    assert decided(incident)["earned"]["level"] == "L3"
    assert decided(incident)["earned"]["value"] == "0 of 1 successes"
    scene.approve(incident, scene.approver(), "ann")
    scene.incident("Recovered")
    (outcome,) = until(lambda: scene.get("ledger/ledger")["spec"].get("outcomes"), "the Ledger remembers it")
    assert (outcome["result"], outcome["confirmed"], outcome["level"]) == ("Recovered", "Human", "L3")
    until(lambda: scene.get("rempol/web")["status"]["rules"][0]["earned"] == "L4", "the policy's status says what was earned")
    scene.apply(orders("L4", earn=earn, verify=NEVER_PASSES))  # this time it will not be seen to help
    scene.app("cart", "registry.example/cart:1")
    scene.release("registry.example/cart:1.O", "cart")
    undone = until(lambda: [i for i in scene.incidents() if i.get("status", {}).get("phase") == "Undone"], "the second one is undone")
    assert undone[0]["status"]["executions"][0]["level"] == "L4"
    until(lambda: scene.get("rempol/web")["status"]["rules"][0]["earned"].startswith("L3, 0 of 1"), "it is back where it began")


@pytest.mark.threat(16)
def test_the_breaker_opens_holds_and_lets_one_trial_through(scene: Scene) -> None:
    breaker = {"failures": 1, "within": "1h", "openFor": "20s"}
    scene.apply(orders("L4", spec={"breaker": breaker}, verify=NEVER_PASSES))
    break_it(scene)
    scene.incident("Undone")
    until(lambda: scene.get("rempol/web")["status"]["breakers"] == "RollbackWorkload/Deployment=Open", "the policy's status shows it")
    scene.kubectl("delete", "rempol", "web")  # deleting and renaming the policy closes nothing
    scene.apply({**orders("L4", spec={"breaker": breaker}), "metadata": {"name": "renamed"}})
    scene.app("cart", "registry.example/cart:1")
    scene.release("registry.example/cart:1.O", "cart")

    def cart(phase: str) -> Json | None:
        return next(
            (i for i in scene.incidents() if i["spec"]["target"]["name"] == "cart" and i.get("status", {}).get("phase") == phase), None
        )

    held = until(lambda: cart("Advised"), "advice only while the breaker is open")
    assert gate(held, "breaker")["reason"] == "BreakerOpen"
    trial = until(lambda: cart("AwaitingApproval"), "half-open: one trial, which a human approves", 60)
    assert decided(trial)["breaker"]["level"] == "L3"
    scene.approve(trial, scene.approver(), "ann")
    until(lambda: cart("Recovered"), "the trial helps")
    until(lambda: scene.get("rempol/renamed")["status"]["breakers"] == "closed", "and closes the breaker")
    events = json.loads(scene.kubectl("get", "events", "-o", "json"))["items"]
    assert "BreakerOpen" in {e["reason"] for e in events}


@pytest.mark.threat(3)
@pytest.mark.promise(1)
def test_two_approvers_distinct_from_each_other_and_from_the_requester(scene: Scene) -> None:
    scene.apply(orders("L3", approval={"count": 2}))
    break_it(scene)
    incident = scene.incident("AwaitingApproval")
    assert incident["status"]["plan"]["needs"]["count"] == 2
    ann, bob = scene.approver(), scene.approver("bob")
    scene.approve(incident, ann, "ann")
    scene.approve(incident, ann, "ann", key="again")
    until(lambda: "counted: ann" in condition(scene.one(), "Approved").get("message", ""), "one person is one approval")
    assert scene.image() == BAD
    scene.approve(incident, bob, "bob", key="two")
    incident = scene.incident("Recovered")
    assert incident["status"]["executions"][0]["approvedBy"] == ["ann", "bob"]
    described = scene.kubectl("describe", "incident", incident["metadata"]["name"])
    assert "RollbackWorkload of Deployment/checkout to revision 1" in described
    assert "approves plan" in described


@pytest.mark.promise(6)
def test_the_platform_asks_for_more_approvers_than_the_team(scene: Scene, platform: Any) -> None:
    platform(approval={"minCount": 2})
    scene.apply(orders("L3", approval={"count": 1}))
    break_it(scene)
    incident = scene.incident("AwaitingApproval")
    assert "needs 2 more of 2 approvals" in condition(incident, "Approved")["message"]


@pytest.mark.promise(6)
def test_a_tier_lowers_what_matters_more(scene: Scene, platform: Any) -> None:
    platform(tiers=[{"name": "front", "selector": {"matchLabels": {"app": "checkout"}}, "risk": 30}])
    scene.apply(orders("L4"))
    break_it(scene)
    incident = scene.incident("AwaitingApproval")
    autonomy = incident["status"]["autonomy"]
    assert (autonomy["level"], autonomy["risk"]["value"]) == ("L3", 30)
    assert [c["name"] for c in autonomy["risk"]["components"]] == ["tier"]
    assert autonomy["trust"]["level"] == "L4"
    assert "L4 at most 20" in decided(incident)["risk"]["threshold"]


def test_who_takes_an_incident_stops_the_operator_there(scene: Scene) -> None:
    scene.apply(orders("L3"))
    break_it(scene)
    incident = scene.incident("AwaitingApproval")
    name, ann = incident["metadata"]["name"], scene.approver()
    scene.kubectl("annotate", "incident", name, "take.nightorders.dev/me=ann", who=ann)
    incident = scene.incident("Advised")
    assert incident["status"]["taken"]["by"] == "ann"
    assert decided(incident)["risk"]["level"] == "L2"
    scene.kubectl("annotate", "incident", name, "take.nightorders.dev/me-", who=ann)
    incident = scene.incident("AwaitingApproval")
    assert "taken" not in incident["status"]
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []


def test_a_disruption_budget_is_respected(scene: Scene) -> None:
    """Two of three pods of the failing release serve; going back would take some of them down, and the budget leaves no room."""
    scene.apply(
        orders("L3", limits={"stalledAfter": "1s", "cooldown": "1s", "perHour": 50, "maxPercent": 100, "duringRollout": "Allow"}),
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "checkout"},
            "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "checkout"}}},
        },
    )
    break_it(scene)
    incident = scene.incident("AwaitingApproval")  # nothing of the failing release serves, so nothing is at risk
    assert gate(incident, "blast-radius")["allowed"]


def test_an_autoscaler_does_not_void_an_approval(scene: Scene) -> None:
    scene.apply(
        orders("L3", approval={"count": 2}),
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "checkout"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"},
                "minReplicas": 1,
                "maxReplicas": 10,
            },
        },
    )
    break_it(scene)
    incident = scene.incident("AwaitingApproval")
    assert incident["status"]["plan"]["target"]["scaledBy"] == "HorizontalPodAutoscaler/checkout"
    scene.approve(incident, scene.approver(), "ann")
    scene.kubectl("scale", "deployment/checkout", "--replicas=4")  # as the autoscaler does: through the subresource
    until(lambda: "counted: ann" in condition(scene.one(), "Approved").get("message", ""), "ann's approval is counted")
    assert scene.one()["status"]["plan"]["digest"] == incident["status"]["plan"]["digest"]
    scene.approve(scene.one(), scene.approver("bob"), "bob", key="two")
    scene.incident("Recovered")
    assert scene.get("deployment/checkout")["spec"]["replicas"] == 4
    assert scene.image() == GOOD


@pytest.mark.threat(16)
def test_a_stop_in_the_middle_of_a_verification_still_undoes_and_says_so(scene: Scene) -> None:
    scene.apply(orders("L4", verify={**NEVER_PASSES, "for": "8s"}))
    break_it(scene)
    scene.incident("Verifying")
    scene.kubectl("create", "configmap", "nightorders-stop")
    incident = scene.incident("Undone")
    assert scene.image() == BAD
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 2
    told = " ".join(e["what"] for e in incident["status"]["timeline"])
    assert "although a stop is in force" in told


@pytest.mark.threat(16)
def test_a_stop_that_denies_the_undo_calls_a_human_instead(scene: Scene) -> None:
    scene.apply(orders("L4", verify={**NEVER_PASSES, "for": "8s"}))
    break_it(scene)
    scene.incident("Verifying")
    scene.kubectl("create", "configmap", "nightorders-stop", "--from-literal=undo=Deny")
    incident = scene.incident("Escalated")
    assert scene.image() == GOOD
    assert "undo: Deny" in incident["status"]["executions"][0]["message"]
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 1


@pytest.mark.threat(3, 16)
@pytest.mark.promise(5)
def test_an_emergency_approval_passes_a_freeze_and_is_counted(scene: Scene) -> None:
    scene.apply(orders("L3", approval={"emergency": "Allow"}, spec={"freezes": [ALWAYS]}))
    break_it(scene)
    incident = scene.incident("AwaitingApproval")
    assert incident["status"]["plan"]["needs"]["frozenBy"] == "Namespace"
    assert "emergency approvals" in condition(incident, "Approved")["message"]
    ann = scene.approver()
    scene.approve(incident, ann, "ann")  # an ordinary one does not count
    name, digest = incident["metadata"]["name"], incident["status"]["plan"]["digest"]
    notes = [f"emergency.nightorders.dev/one={digest}|ann", "why.nightorders.dev/one=the shop is down"]
    refused = scene.kubectl("annotate", "incident", name, *notes, who=ann, check=False)
    assert "approve-emergency" in refused
    scene.kubectl("create", "role", "emergency", "--verb=approve-emergency", "--resource=incidents.nightorders.dev")
    scene.kubectl("create", "rolebinding", "emergency", "--role=emergency", "--user=ann")
    until(lambda: "annotated" in scene.kubectl("annotate", "incident", name, *notes, who=ann, check=False), "ann may now")
    incident = scene.incident("Recovered")
    (done,) = incident["status"]["executions"]
    assert (done["emergency"], done["approvedBy"]) == (True, ["ann"])
    until(lambda: [o["emergency"] for o in scene.get("ledger/ledger")["spec"]["outcomes"]] == [True], "the Ledger remembers it")
    until(lambda: scene.get("rempol/web")["status"].get("emergencyApprovals") == 1, "the policy counts it")
    told = next(a for a in incident["status"]["approvals"] if a.get("emergency"))
    assert told["why"] == "the shop is down"


def test_scores_speakers_and_gates_are_in_the_status(scene: Scene) -> None:
    scene.apply(orders("L3"))
    break_it(scene)
    incident = scene.incident("AwaitingApproval")
    autonomy = incident["status"]["autonomy"]
    assert autonomy["trust"]["value"] >= 80
    assert autonomy["risk"]["value"] == 0
    assert decided(incident)["trust"]["threshold"].startswith("L4 at least 80")
    assert [g["gate"] for g in incident["status"]["gates"]][:4] == ["policy", "enforcement", "stop", "protected"]
