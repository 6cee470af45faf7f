"""Runbooks and judgements on a real API server: what they lower, add and show, and who may say what the cause was."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from nightorders.__main__ import app
from tests.cluster.scene import GOOD, Json, Scene, condition, mutations, policy, until

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]
OPERATOR = "system:serviceaccount:nightorders-system:nightorders"
COMPLETE: Json = {
    "match": {"alerts": ["RolloutStuck"]},
    "symptoms": [{"name": "available", "condition": "Available=True"}],
    "hypothesis": {"category": "ImageAccess", "statement": "Mostly a tag that nobody pushed."},
    "action": "RollbackWorkload",
    "safeDuringRollout": "Allow",
    "approvers": "shop on-call",
    "verify": {"checks": [{"name": "available", "condition": "Available"}]},
    "neverAutomatic": True,
    "url": "https://runbooks.example/stuck",
}


def runbook(name: str = "stuck", **spec: Any) -> Json:
    body = {k: v for k, v in {**COMPLETE, **spec}.items() if v is not None}
    return {"apiVersion": "nightorders.dev/v1alpha1", "kind": "Runbook", "metadata": {"name": name}, "spec": body}


def ready(scene: Scene, name: str) -> Json:
    return condition(scene.get(f"runbook/{name}"), "Ready")


@pytest.mark.threat(19)
@pytest.mark.promise(6)
def test_a_runbook_holds_an_autonomous_rule_at_the_gate_and_a_human_judges_the_end(scene: Scene) -> None:
    """neverAutomatic under L4: a human approves; the runbook's check is one of the plan's; and after the end somebody says what it was."""
    ann = scene.approver("ann")
    scene.apply(runbook(), policy("L4"))
    scene.app()
    scene.release()
    incident = scene.incident("AwaitingApproval")
    status, name = incident["status"], incident["metadata"]["name"]
    assert status["autonomy"]["level"] == "L3"
    assert {"who": "Runbook/stuck", "level": "L3", "because": "neverAutomatic: a human must approve"}.items() <= next(
        s for s in status["autonomy"]["decidedBy"] if s["who"] == "Runbook/stuck"
    ).items()
    (shown,) = status["runbooks"]
    assert (shown["name"], shown["because"], shown["approvers"]) == ("stuck", "alert RolloutStuck", "shop on-call")
    assert shown["symptoms"][0]["state"] == "Present"
    assert [(c["name"], c["runbook"]) for c in status["plan"]["verify"]["checks"]] == [("stuck.available", "stuck")]
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []
    until(lambda: scene.get("runbook/stuck")["status"].get("matched") == 1, "the runbook counts its match")
    assert scene.get("runbook/stuck")["status"]["lastMatchAt"]

    scene.approve(incident, ann, "ann")
    incident = scene.incident("Recovered")
    assert scene.image() == GOOD
    assert "stuck.available" in {m["check"] for m in incident["status"]["verification"]["measurements"]}

    # In somebody else's name, without a name, without a meaning: refused by the API server.
    for value, why in (
        ("right|bob", "that is you: ann"),
        ("right", "that is you: ann"),
        ("it was the database|ann", "cause=Kind/name category=Category"),
        ("cause=Secret/x|ann", "cause=Kind/name category=Category"),
    ):
        said = scene.kubectl("annotate", "incident", name, f"judge.nightorders.dev/a={value}", who=ann, check=False)
        assert why in said, (value, said)
    scene.kubectl(
        "annotate", "incident", name, "judge.nightorders.dev/a=cause=Secret/pull category=ImageAccess because=expired|ann", who=ann
    )
    (judged,) = until(lambda: scene.one()["status"].get("judgement"), "the judgement is recorded, although the Incident is closed")
    assert (judged["by"], judged["verdict"], judged["cause"]) == ("ann", "Wrong", "Secret/pull")
    assert (judged["firstCategory"], judged["firstObject"], judged["firstGrade"]) == ("ImageAccess", "Deployment/checkout", "A")
    last = next(t for t in scene.one()["status"]["timeline"] if t["actor"] == "ann" and t["what"].startswith("judges"))
    assert last["kind"] == "Decision"
    assert scene.one()["status"]["phase"] == "Recovered"
    (entry,) = scene.get("ledger/ledger")["spec"]["judgements"]
    assert (entry["category"], entry["grade"], entry["right"], entry["by"]) == ("ImageAccess", "A", False, "ann")

    # Another person's stays beside it, and neither may speak for the other.
    bob = scene.approver("bob")
    said = scene.kubectl("annotate", "incident", name, "judge.nightorders.dev/a=right|bob", "--overwrite", who=bob, check=False)
    assert "somebody else's judgement" in said
    here = ["-n", scene.namespace, "--kubeconfig", str(bob)]
    told = CliRunner().invoke(app, ["judge", name, "--right", *here])
    assert told.exit_code == 0, told.output
    assert "judged as bob: right: ImageAccess Deployment/checkout" in told.stdout
    until(lambda: len(scene.one()["status"]["judgement"]) == 2, "both are kept")
    assert [(j["by"], j["verdict"]) for j in scene.one()["status"]["judgement"]] == [("ann", "Wrong"), ("bob", "Right")]
    shown_now = CliRunner().invoke(app, ["show", name, *here]).stdout
    assert "wrong: it was ImageAccess Secret/pull, not ImageAccess Deployment/checkout (grade A)" in shown_now
    assert "ask: shop on-call" in shown_now


@pytest.mark.promise(6)
def test_safe_during_rollout_deny_leaves_advice_while_a_rollout_is_under_way(scene: Scene) -> None:
    scene.apply(runbook(neverAutomatic=False, safeDuringRollout="Deny"), policy("L4"))
    scene.app()
    scene.release()
    incident = scene.incident("Advised")
    assert incident["status"]["autonomy"]["level"] == "L2"
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []


def test_the_status_says_what_a_runbook_leaves_open(scene: Scene) -> None:
    scene.apply(runbook("open", action="Explode", approvers=None, verify=None, match=None))
    wrong = until(lambda: ready(scene, "open"), "the runbook has a status")
    assert (wrong["status"], wrong["reason"]) == ("False", "RunbookProblems")
    told = " ".join(scene.get("runbook/open")["status"]["problems"])
    for field in ("spec.match:", "spec.action:", "spec.approvers:", "spec.verify.checks:"):
        assert field in told
    scene.apply(runbook("open"))
    scene.kubectl("replace", "-f", "-", stdin=json.dumps(runbook("open")))
    until(lambda: ready(scene, "open").get("status") == "True", "the corrected runbook is ready")


@pytest.mark.threat(1)
def test_nobody_but_the_operator_writes_a_runbooks_status_and_the_operator_writes_no_runbook(scene: Scene) -> None:
    scene.apply(runbook())
    until(lambda: ready(scene, "stuck"), "the runbook has a status")
    forged = '{"status": {"matched": 999}}'
    said = scene.kubectl("patch", "runbook", "stuck", "--subresource=status", "--type=merge", "-p", forged, check=False)
    assert "status is written by the operator's account only" in said
    who = scene.cluster.service_account("nightorders-system", "nightorders")
    said = scene.kubectl("patch", "runbook", "stuck", "--type=merge", "-p", '{"spec": {"neverAutomatic": false}}', who=who, check=False)
    assert "forbidden" in said.lower()


@pytest.mark.promise(6)
def test_a_runbook_that_is_deleted_while_a_plan_waits_releases_nothing(scene: Scene) -> None:
    """What was ordered at detection is kept: a runbook that is deleted while its plan waits sets nothing free (threats 8)."""
    scene.apply(policy("L4"), runbook())
    scene.app()
    scene.release()
    scene.incident("AwaitingApproval")
    scene.kubectl("delete", "runbook", "stuck")
    until(lambda: not scene.one()["status"].get("runbooks"), "the runbook is out of the status")
    incident = scene.one()
    assert incident["status"]["phase"] == "AwaitingApproval"
    assert incident["status"]["autonomy"]["level"] == "L3"
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []


def test_a_person_without_the_verb_and_a_service_account_do_not_judge(scene: Scene) -> None:
    scene.apply(policy("L1"))
    scene.app()
    scene.release()
    name = scene.incident("Diagnosed")["metadata"]["name"]
    eve = scene.cluster.user("eve")
    scene.kubectl("create", "role", "patcher", "--verb=get,list,patch", "--resource=incidents.nightorders.dev")
    scene.kubectl("create", "rolebinding", "patcher", "--role=patcher", "--user=eve")
    said = scene.kubectl("annotate", "incident", name, "judge.nightorders.dev/a=right|eve", who=eve, check=False)
    assert "lacks the verb judge" in said
    scene.kubectl("create", "serviceaccount", "bot")
    scene.kubectl("create", "rolebinding", "bot", "--clusterrole=nightorders-approver", f"--serviceaccount={scene.namespace}:bot")
    bot = scene.cluster.service_account(scene.namespace, "bot")
    me = f"system:serviceaccount:{scene.namespace}:bot"
    said = scene.kubectl("annotate", "incident", name, f"judge.nightorders.dev/a=right|{me}", who=bot, check=False)
    assert "service accounts do not judge" in said
    assert not scene.one()["status"].get("judgement")
