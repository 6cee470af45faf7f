"""`nightorders patch`: the bytes that were reviewed, or nothing."""

from __future__ import annotations

import json

import jsonpatch
import pytest
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.domain.digest import template_sha256
from nightorders.domain.snapshot import NotLooked
from tests.unit.cli.scene import BAD, GOOD, NAME, FakeCluster, deployment, incident, replica_set, template

run = CliRunner().invoke
SHA = template_sha256(GOOD)
DIRECT = ["patch", "deploy/checkout", "-n", "shop", "--to", "checkout-6", "--sha256", SHA]


@pytest.mark.parametrize("command", [["patch", NAME, "-n", "shop"], DIRECT], ids=["incident", "workload"])
def test_the_patch_tests_first_and_leads_to_the_reviewed_template(cluster: FakeCluster, command: list[str]) -> None:
    result = run(app, command)
    assert result.exit_code == 0, result.stderr
    operations = json.loads(result.stdout)
    assert operations[0] == {"op": "test", "path": "/metadata/uid", "value": "u-checkout"}
    assert [o["op"] for o in operations] == ["test", "test", "replace"]
    before = deployment(BAD).raw
    assert jsonpatch.apply_patch(before, operations)["spec"]["template"] == GOOD


def test_secret_values_come_from_the_replicaset_and_not_from_the_incident(cluster: FakeCluster) -> None:
    good = template("registry.example/checkout:2.4.0", {"DB_PASSWORD": "hunter2"})
    cluster.objects[("ReplicaSet", "checkout-6")] = replica_set(6, good)
    result = run(app, [*DIRECT[:-1], template_sha256(good)])
    assert "hunter2" in result.stdout


@pytest.mark.parametrize(
    ("key", "changed", "says"),
    [
        (("Deployment", "checkout"), deployment(BAD, uid="u-new"), "was deleted and made anew"),
        (("Deployment", "checkout"), deployment(template("other")), "was changed since it was made"),
        (("Deployment", "checkout"), deployment(GOOD), "already as the plan wants it"),
        (("ReplicaSet", "checkout-6"), replica_set(6, template("planted")), "is not what it was when the plan was made"),
        (("Deployment", "checkout"), NotLooked("Deployment/checkout", "forbidden: no"), "cannot read Deployment/checkout"),
    ],
)
def test_a_plan_that_no_longer_fits_prints_nothing(cluster: FakeCluster, key: tuple[str, str], changed: object, says: str) -> None:
    cluster.objects[key] = changed  # type: ignore[assignment]
    result = run(app, ["patch", NAME])
    assert result.exit_code in (1, 3)
    assert result.stdout == ""
    assert says in result.stderr


def test_a_revision_that_is_gone(cluster: FakeCluster) -> None:
    del cluster.objects[("ReplicaSet", "checkout-6")]
    for command in (["patch", NAME], DIRECT):
        result = run(app, command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "there is no ReplicaSet/checkout-6 in namespace shop any more" in result.stderr


@pytest.mark.parametrize(
    ("key", "changed", "says"),
    [
        (("ReplicaSet", "checkout-6"), replica_set(6, template("planted")), "is not what it was when it was reviewed"),
        (("ReplicaSet", "checkout-6"), replica_set(6, GOOD, owner="u-other"), "is no revision of Deployment/checkout"),
        (("Deployment", "checkout"), deployment(GOOD), "has that template already"),
    ],
)
def test_a_workloads_revision_must_be_the_reviewed_one(cluster: FakeCluster, key: tuple[str, str], changed: object, says: str) -> None:
    cluster.objects[key] = changed  # type: ignore[assignment]
    result = run(app, DIRECT)
    assert (result.exit_code, result.stdout) == (1, "")
    assert says in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["patch", "deploy/checkout"],
        ["patch", "deploy/checkout", "--to", "checkout-6"],
        ["patch", NAME, "--to", "checkout-6", "--sha256", SHA],
        ["patch", "sts/checkout", "--to", "checkout-6", "--sha256", SHA],
        ["patch", "deploy/checkout", "--to", "checkout-6", "--sha256", "sha256:12"],
    ],
)
def test_wrong_usage(cluster: FakeCluster, command: list[str]) -> None:
    result = run(app, command)
    assert (result.exit_code, result.stdout) == (2, "")


def test_no_plan(cluster: FakeCluster) -> None:
    cluster.incident = incident({"plan": None})
    assert "has no plan" in run(app, ["patch", NAME]).stderr
