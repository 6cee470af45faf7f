"""`nightorders show`: the story, and the next thing that a human can do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.cli.document import Terminal
from nightorders.ports import ForbiddenError, PermanentError, TransientError, Unreadable
from tests.unit.cli.golden import same_as_golden
from tests.unit.cli.scene import DIGEST, NAME, ZERO, FakeCluster, at, condition, incident, line_of, plan

run = CliRunner().invoke


def execution(state: str, **fields: Any) -> dict[str, Any]:
    base = {"id": "no-1f3c", "action": "RollbackWorkload", "by": "operator", "planDigest": DIGEST, "before": ZERO, "after": ZERO}
    return {**base, "state": state, "reservedAt": at(-50), "message": "approved by ann", **fields}


def test_a_plan_that_waits(cluster: FakeCluster) -> None:
    cluster.incident = incident({"approvals": [{"user": "bob", "key": "bob", "digest": DIGEST, "at": at(-20)}]})
    result = run(app, ["show", NAME, "-n", "shop"])
    assert (result.exit_code, result.stderr) == (0, "")
    same_as_golden(result.stdout, "show-awaiting.txt")


def test_a_plan_that_waits_on_a_terminal(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Terminal, "of_stdout", classmethod(lambda _: Terminal(colour=True, width=100)))
    result = run(app, ["show", NAME], color=True)
    assert "\x1b[31m-  - image: registry.example/checkout:2.4.O\x1b[0m" in result.stdout
    assert "\x1b[32m+  - image: registry.example/checkout:2.4.0\x1b[0m" in result.stdout


def test_a_recovered_incident(cluster: FakeCluster) -> None:
    sample = {"check": "symptom", "at": at(-10), "verdict": "Pass", "value": "gone", "message": "the finding is gone"}
    cluster.incident = incident(
        {
            "phase": "Recovered",
            "executions": [execution("Ended", appliedAt=at(-49), endedAt=at(-10), result="Recovered")],
            "verification": {
                "verdict": "Recovered",
                "startedAt": at(-49),
                "until": at(-10),
                "message": "every check passed for 13 s",
                "samples": 4,
                "baseline": [{**sample, "verdict": "Fail", "value": "1 pod"}],
                "measurements": [sample],
            },
            "conditions": [condition("Closed", "True", "Recovered", "every check passed", -10)],
        }
    )
    result = run(app, ["show", NAME])
    same_as_golden(result.stdout, "show-recovered.txt")


def test_json_is_the_status(cluster: FakeCluster) -> None:
    assert json.loads(run(app, ["show", NAME, "-o", "json"]).stdout)["plan"]["digest"] == DIGEST


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({}, f"nightorders approve {NAME} -n shop --digest {DIGEST}"),
        ({"phase": "Advised"}, "kubectl patch deployment checkout -n shop --type=json --patch-file=/dev/stdin"),
        ({"phase": "Verifying"}, "nightorders stop -n shop"),
        ({"phase": "Escalated"}, "nightorders diagnose deployment/checkout -n shop"),
        ({"phase": "Undone"}, "A human decides"),
        ({"phase": "Recovered"}, "Nothing. It is closed."),
        ({"phase": "Suspended"}, f"nightorders resume {NAME} -n shop"),
        (
            {"plan": plan(needs={"frozenBy": "Cluster"})},
            f"nightorders approve {NAME} -n shop --digest {DIGEST} --emergency --because REASON",
        ),
        ({"taken": {"by": "bob", "at": at(-30)}}, f"nightorders take {NAME} -n shop --give-back"),
        ({"phase": "Diagnosed", "plan": None}, "kubectl -n shop describe pod checkout-7-x"),
        ({"phase": "Triage"}, "kubectl get deployments -n nightorders-system"),
    ],
)
def test_the_next_thing_a_human_can_do(cluster: FakeCluster, status: dict[str, Any], says: str) -> None:
    cluster.incident = incident(status)
    out = run(app, ["show", NAME]).stdout
    assert says in out.partition("\nNext\n")[2]


def test_no_plan_says_why(cluster: FakeCluster) -> None:
    cluster.incident = incident(
        {"phase": "Diagnosed", "plan": None, "conditions": [condition("Planned", "False", "NoPolicy", "no policy")]}
    )
    assert "none: no policy" in run(app, ["show", NAME]).stdout


def test_a_closed_gate_is_told_with_its_reason(cluster: FakeCluster) -> None:
    gate = {"gate": "rollout", "allowed": False, "reason": "RolloutUnderWay", "message": "3 of 10 updated"}
    cluster.incident = incident({"gates": [gate]})
    assert "closed: rollout, RolloutUnderWay: 3 of 10 updated" in run(app, ["show", NAME]).stdout


def test_a_plan_without_a_dry_run_says_so(cluster: FakeCluster) -> None:
    cluster.incident = incident({"plan": plan(dryRun=None)})
    assert "no dry run" in run(app, ["show", NAME]).stdout


@pytest.mark.parametrize(
    ("found", "code", "says"),
    [
        (None, 2, "there is no Incident x in namespace shop; to see those that are: kubectl get incidents -A"),
        (Unreadable("x", "shop", "status.new: extra"), 2, "this version of nightorders cannot read Incident x (status.new: extra)"),
        (PermanentError("GET /apis/a: no such kind on this cluster (404)"), 3, "nightorders crds | kubectl apply --server-side -f -"),
        (
            ForbiddenError('GET /apis/a: incidents is forbidden: User "ann" cannot get (403)'),
            3,
            "cannot read Incident x: forbidden: incidents",
        ),
        (TransientError("GET /apis/a: cannot connect: refused"), 3, "the API server does not answer: cannot connect: refused"),
        (TransientError("GET /apis/a: Unauthorized (401)"), 3, "does not accept your credentials (401)"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(cluster: FakeCluster, found: Any, code: int, says: str) -> None:
    cluster.incident = found
    result = run(app, ["show", "x"])
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_forbidden_may_only_mean_that_nothing_is_installed(cluster: FakeCluster) -> None:
    """The API server answers 403 before 404 to whoever has no right on a kind that it does not know."""
    cluster.incident = ForbiddenError('GET /apis/a: incidents is forbidden: User "ann" cannot get (403)')
    cluster.there = False
    assert "nightorders crds | kubectl apply --server-side -f -" in run(app, ["show", "x"]).stderr


def test_the_whole_record(cluster: FakeCluster) -> None:
    """Every part of a status that is not in the ordinary story: freeze, emergency, taken, called, Shadow, the signed end."""
    cluster.incident = incident(
        {
            "plan": plan(
                needs={"count": 2, "expiresSeconds": 600, "separationOfDuties": True, "serviceAccounts": "Allow", "frozenBy": "Namespace"}
            ),
            "taken": {"by": "bob", "at": at(-30)},
            "approvals": [
                {
                    "user": "ann",
                    "key": "emergency.nightorders.dev/ann",
                    "digest": DIGEST,
                    "plan": "RollbackWorkload of Deployment/checkout to revision 6",
                    "at": at(-20),
                    "emergency": True,
                    "why": "nobody can pay",
                }
            ],
            "shadow": {
                "at": at(-80),
                "action": "RollbackWorkload",
                "level": "L4",
                "would": "would have acted alone: RollbackWorkload",
                "before": ZERO,
                "after": ZERO,
                "rule": "RemediationPolicy/web rule rollback",
            },
            "executions": [execution("Applied", approvedBy=["ann", "carl"], emergency=True, level="L3")],
            "escalation": {
                "reason": "Waiting",
                "message": "a plan has waited for 15 m",
                "times": 2,
                "at": at(-25),
                "nextAt": at(3575),
                "deliveries": [
                    {"channel": "oncall", "state": "Delivered", "attempts": 1, "at": at(-24)},
                    {"channel": "chat", "state": "Failed", "attempts": 3, "at": at(-22), "message": "no answer in time"},
                ],
            },
            "timeline": [
                line_of(12, -90, "looked 12 times", "RollUp", count=12),
                line_of(13, -20, "gives an emergency approval", "Approval", actor="ann"),
            ],
            "head": {"seq": 13, "sha256": ZERO, "signedAt": at(-19), "keyId": "0123456789abcdef", "signature": "c2ln"},
        }
    )
    result = run(app, ["show", NAME])
    assert (result.exit_code, result.stderr) == (0, "")
    same_as_golden(result.stdout, "show-everything.txt")
