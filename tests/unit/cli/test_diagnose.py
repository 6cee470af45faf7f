"""`nightorders diagnose` over a cluster that is not there: what it prints and how it ends."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.api.v1alpha1.incident import IncidentStatus
from nightorders.diagnosis import engine
from nightorders.domain.diagnosis import Diagnosis, Finding
from nightorders.domain.snapshot import KubeObject, Listing, NotLooked
from nightorders.ports import ForbiddenError, TransientError
from tests.unit.cli.golden import same_as_golden
from tests.unit.cli.scene import BAD, NOW, FakeCluster, deployment, diagnosed

run = CliRunner().invoke
PARTS = ("facts", "guesses", "hypotheses", "evidence", "gaps", "blast_radius", "owners", "changes")


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster) -> dict[str, Any]:
    """What the engine will say; a test may change it."""
    status = IncidentStatus.model_validate(diagnosed())
    answer: dict[str, Any] = {
        "finding": Finding.FAULT,
        "reason": "OriginShown",
        "message": "grade A",
        "summary": status.summary,
        "symptom_since": NOW - timedelta(seconds=117),
        "failing_revision": "u-rs-7",
        **{name: getattr(status, name) for name in PARTS},
    }
    monkeypatch.setattr(engine, "diagnose", lambda *_: Diagnosis(**answer))
    cluster.there = False
    return answer


def test_a_fault_as_text(found: dict[str, Any]) -> None:
    result = run(app, ["diagnose", "deploy/checkout", "-n", "shop"])
    assert (result.exit_code, result.stderr) == (1, "")
    same_as_golden(result.stdout, "diagnose-fault.txt")


def test_a_fault_as_markdown(found: dict[str, Any]) -> None:
    result = run(app, ["diagnose", "deploy", "checkout", "-o", "markdown"])
    assert result.exit_code == 1
    same_as_golden(result.stdout, "diagnose-fault.md")


def test_a_fault_as_json_has_the_shape_of_an_incidents_status(found: dict[str, Any]) -> None:
    result = run(app, ["diagnose", "deployments.apps/checkout", "-o", "json"])
    assert result.exit_code == 1
    wire = json.loads(result.stdout)
    plan = wire.pop("plan")
    status = IncidentStatus.model_validate(wire)
    assert (status.grade, status.cause, status.phase) == ("A", "ImageAccess Deployment/checkout · rev 7", "Advised")
    assert plan["parameters"]["toRevision"] == "6"
    assert "digest" not in plan, "nothing is staged, so nothing can be approved"
    assert plan["command"][0][:3] == ["nightorders", "patch", "deployment/checkout"]
    ledger = wire["gaps"][-1]
    assert "not installed" in ledger["because"]


def test_roles_that_are_not_there_are_not_recommended(found: dict[str, Any]) -> None:
    """Without nightorders in the cluster its roles are missing, too."""
    fix = "kubectl create rolebinding nightorders-reader -n shop --clusterrole=nightorders-reader --user=ann  # can be run by x"
    found["gaps"] = (found["gaps"][0].model_copy(update={"fix": fix}), found["gaps"][0])
    wire = json.loads(run(app, ["diagnose", "deploy/checkout", "-o", "json"]).stdout)
    assert [g.get("fix", "") for g in wire["gaps"]] == [
        "kubectl create rolebinding nightorders-reader -n shop --clusterrole=view --user=ann",
        "",
        "",
    ]


@pytest.mark.parametrize(
    ("finding", "code", "says"),
    [
        (Finding.NO_FAULT, 0, "No fault."),
        (Finding.FAULT, 1, "Fault; the symptom began 117 s ago"),
        (Finding.PROGRESSING, 3, "On its way"),
        (Finding.UNKNOWN, 3, "Cannot tell"),
        (Finding.TARGET_UNKNOWN, 3, "Cannot tell"),
    ],
)
def test_exit_codes(found: dict[str, Any], finding: Finding, code: int, says: str) -> None:
    found["finding"] = finding
    result = run(app, ["diagnose", "deploy/checkout"])
    assert result.exit_code == code
    assert says in result.stdout
    assert ("RollbackWorkload would put back" in result.stdout) is (finding is Finding.FAULT)


def test_why_no_action_fits(found: dict[str, Any]) -> None:
    found["failing_revision"] = "another"
    result = run(app, ["diagnose", "deploy/checkout"])
    assert "No action of the catalogue fits: the revision that fails is not the one" in result.stdout


def test_a_ledger_that_may_not_be_read_is_a_gap(found: dict[str, Any], cluster: FakeCluster) -> None:
    cluster.there = True
    cluster.ledger = ForbiddenError('GET /apis/x: ledgers is forbidden: User "ann" cannot get (403)')
    result = run(app, ["diagnose", "deploy/checkout"])
    assert 'record of healthy revisions (Ledger): ledgers is forbidden: User "ann" cannot get; only pods' in result.stdout


def test_a_gitops_owner_is_named(found: dict[str, Any], cluster: FakeCluster) -> None:
    cluster.objects[("Deployment", "checkout")] = deployment(BAD, annotations={"argocd.argoproj.io/tracking-id": "shop:x"})
    assert "governed by Argo CD" in run(app, ["diagnose", "deploy/checkout"]).stdout


def test_the_same_cluster_is_meant_by_the_command_that_is_printed(found: dict[str, Any]) -> None:
    result = run(app, ["diagnose", "deploy/checkout", "--context", "my cluster", "--kubeconfig", "/k"])
    assert "--sha256 sha256:" in result.stdout
    assert result.stdout.count("--kubeconfig=/k '--context=my cluster'") == 2


def test_a_missing_deployment_names_those_that_are_there(cluster: FakeCluster) -> None:
    cluster.objects[("Namespace", "shop")] = KubeObject({"metadata": {"name": "shop"}}, "Namespace", "v1")
    result = run(app, ["diagnose", "deploy/chekout"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "nightorders: there is no Deployment/chekout in namespace shop; there are: checkout\n"


def test_a_missing_namespace(cluster: FakeCluster) -> None:
    result = run(app, ["diagnose", "deploy/chekout"])
    assert (result.exit_code, result.stderr) == (
        2,
        "nightorders: there is no namespace shop in this cluster; to see what there is: kubectl get namespaces\n",
    )


def test_forbidden(cluster: FakeCluster) -> None:
    fix = "kubectl create rolebinding nightorders-reader -n shop --clusterrole=nightorders-reader --user=ann  # can be run by x"
    cluster.objects[("Deployment", "checkout")] = NotLooked("Deployment/checkout", 'forbidden: User "ann" cannot get', fix)
    result = run(app, ["diagnose", "deploy/checkout"])
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        'nightorders: cannot read Deployment/checkout in namespace shop: forbidden: User "ann" cannot get; a cluster admin grants it: '
        "kubectl create rolebinding nightorders-reader -n shop --clusterrole=view --user=ann\n"
    )


def test_unreachable(cluster: FakeCluster) -> None:
    cluster.objects[("Deployment", "checkout")] = NotLooked("Deployment/checkout", "failed: the request: cannot connect: 127.0.0.1:1")
    result = run(app, ["diagnose", "deploy/checkout"])
    assert result.exit_code == 3
    assert result.stderr.endswith("the API server does not answer: the request: cannot connect: 127.0.0.1:1. Try: kubectl cluster-info\n")


def test_a_ledger_that_cannot_be_had_at_the_moment_stops_nothing(found: dict[str, Any], cluster: FakeCluster) -> None:
    cluster.there = True
    cluster.ledger = TransientError("GET /apis/x: no answer in time")
    assert run(app, ["diagnose", "deploy/checkout"]).exit_code == 1


def test_hostile_text_from_the_cluster_is_shown_as_text(found: dict[str, Any], cluster: FakeCluster) -> None:
    found["owners"] = (found["owners"][0].model_copy(update={"who": "a\x1b[31mb\u202ec"}),)
    cluster.listings["Node"] = Listing("Node", "GET nodes", NOW, because="forbidden: \x1b]0;x\x07")
    result = run(app, ["diagnose", "deploy/checkout"])
    assert "\x1b" not in result.stdout
    assert "a [31mb c" in result.stdout
