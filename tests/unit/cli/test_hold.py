"""`stop` and `resume`: the very ConfigMap, or spec.suspend, and kubectl's way printed beside it."""

from __future__ import annotations

import shlex

import pytest
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.ports import ConflictError, ForbiddenError, TransientError
from tests.unit.cli.scene import NAME, FakeCluster, incident

run = CliRunner().invoke


def typed(stdout: str) -> list[str]:
    """The kubectl command that was printed, taken apart as a shell would."""
    (line,) = (part for part in stdout.splitlines() if "the same with kubectl:" in part)
    return shlex.split(line.partition("kubectl: ")[2])


def test_stop_a_namespace(cluster: FakeCluster) -> None:
    result = run(app, ["stop", "-n", "shop"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert cluster.stops == {"shop": {}}
    assert typed(result.stdout) == ["kubectl", "create", "configmap", "nightorders-stop", "-n", "shop"]
    assert "to lift it: nightorders resume -n shop" in result.stdout


def test_stop_everything_and_not_even_an_undo(cluster: FakeCluster) -> None:
    result = run(app, ["stop", "--all", "--no-undo"])
    assert cluster.stops == {"nightorders-system": {"undo": "Deny"}}
    assert typed(result.stdout)[-1] == "--from-literal=undo=Deny"
    assert "to lift it: nightorders resume --all" in result.stdout


def test_stop_twice_is_stop_once_and_may_become_stricter(cluster: FakeCluster) -> None:
    cluster.stops = {"shop": {}}
    again = run(app, ["stop", "-n", "shop"])
    assert (again.exit_code, cluster.stops) == (0, {"shop": {}})
    assert "already" in again.stdout
    stricter = run(app, ["stop", "-n", "shop", "--no-undo"])
    assert (stricter.exit_code, cluster.stops) == (0, {"shop": {"undo": "Deny"}})
    assert typed(stricter.stdout)[-1] == '--patch={"data":{"undo":"Deny"}}'


def test_resume(cluster: FakeCluster) -> None:
    cluster.stops = {"shop": {}}
    result = run(app, ["resume", "-n", "shop"])
    assert (result.exit_code, cluster.stops) == (0, {})
    assert typed(result.stdout) == ["kubectl", "delete", "configmap", "nightorders-stop", "-n", "shop"]
    again = run(app, ["resume", "-n", "shop"])
    assert again.exit_code == 1
    assert "no stop is in force in namespace shop" in again.stderr


def test_one_incident(cluster: FakeCluster) -> None:
    result = run(app, ["stop", NAME, "-n", "shop"])
    assert (result.exit_code, cluster.suspended, cluster.stops) == (0, True, {})
    assert typed(result.stdout) == ["kubectl", "patch", "incident", NAME, "-n", "shop", "--type=merge", '--patch={"spec":{"suspend":true}}']
    refused = run(app, ["resume", NAME])
    assert refused.exit_code == 1
    assert "is not suspended" in refused.stderr
    cluster.incident = incident().model_copy(update={"spec": incident().spec.model_copy(update={"suspend": True})})
    assert run(app, ["resume", NAME]).exit_code == 0
    assert cluster.suspended is False
    assert "was suspended already" in run(app, ["stop", NAME]).stdout


@pytest.mark.parametrize(
    "command", [["stop", NAME, "--all"], ["stop", "--all", "-n", "shop"], ["resume", "-A", NAME], ["stop", NAME, "--no-undo"]]
)
def test_wrong_usage(cluster: FakeCluster, command: list[str]) -> None:
    assert run(app, command).exit_code == 2
    assert (cluster.stops, cluster.suspended) == ({}, None)


@pytest.mark.parametrize("command", [["stop"], ["resume"], ["stop", NAME]])
def test_refusals_say_what_is_missing(cluster: FakeCluster, command: list[str]) -> None:
    cluster.refuse = ForbiddenError(
        "X /y: ValidatingAdmissionPolicy nightorders-resume: ann lacks the verb stop (403)", "nightorders-resume"
    )
    result = run(app, command)
    assert result.exit_code == 1
    assert "ann lacks the verb stop" in result.stderr


def test_what_is_not_known_to_be_done_is_not_called_done(cluster: FakeCluster) -> None:
    cluster.refuse = TransientError("POST /x: no answer in time; the outcome is unknown")
    assert run(app, ["stop"]).exit_code == 3
    cluster.refuse = ConflictError("PATCH /x: Precondition failed: UID (409)")
    assert "was deleted and made anew" in run(app, ["stop", NAME]).stderr
