"""`runbook lint`: each question without an answer is a finding with its field, its line and the fix; what is no Runbook is an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.shipped import manifests

run = CliRunner().invoke
COMPLETE = """\
apiVersion: nightorders.dev/v1alpha1
kind: Runbook
metadata:
  name: stuck
spec:
  match:
    alerts: [RolloutStuck]
  symptoms:
  - name: errors
    promql: sum(errors)
    min: "0.05"
  action: RollbackWorkload
  safeDuringRollout: Deny
  approvers: shop on-call
  verify:
    checks:
    - name: available
      condition: Available
  neverAutomatic: true
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "runbook.yaml"
    path.write_text(COMPLETE)
    return path


def without(file: Path, *lines: str) -> None:
    """The file less the lines that contain one of these."""
    file.write_text("".join(line for line in COMPLETE.splitlines(keepends=True) if not any(w in line for w in lines)))


def test_a_complete_one_has_no_findings(file: Path) -> None:
    result = run(app, ["runbook", "lint", str(file)])
    assert (result.exit_code, result.stdout) == (0, "1 complete, 0 with open questions\n")


@pytest.mark.parametrize(
    ("lines", "line", "said"),
    [
        (("symptoms:", "- name: errors", "promql", "min:"), 5, "spec.symptoms: which metric shows it?"),
        (("min:",), 9, "spec.symptoms[0]: which threshold? errors has a query and no bound"),
        (("action:",), 5, "spec.action: which action helps?"),
        (("safeDuringRollout",), 5, "spec.safeDuringRollout: is it safe while a rollout is under way?"),
        (("approvers",), 5, "spec.approvers: which approver is to be asked?"),
        (("verify:", "checks:", "name: available", "condition"), 5, "spec.verify.checks: how does one see that it helped?"),
        (("neverAutomatic",), 5, "spec.neverAutomatic: may it ever run without a human?"),
        (("match:", "alerts:"), 5, "spec.match: it is about every Incident of its namespace"),
    ],
)
def test_each_missing_answer_is_one_finding(file: Path, lines: tuple[str, ...], line: int, said: str) -> None:
    without(file, *lines)
    result = run(app, ["runbook", "lint", str(file)])
    assert result.exit_code == 1, result.stdout + result.stderr
    (finding, count) = result.stdout.splitlines()
    assert finding.startswith(f"{file}:{line}: Runbook/stuck: {said}")
    assert "; " in finding, "the fix stands behind"
    assert count == "0 complete, 1 with open questions"


def test_json_and_the_forges(file: Path) -> None:
    without(file, "action:")
    found = json.loads(run(app, ["runbook", "lint", str(file), "-o", "json"]).stdout)
    assert found["runbooks"] == [{"name": "stuck", "file": str(file), "line": 1, "ok": False}]
    (one,) = found["findings"]
    assert (one["where"], one["line"], one["fix"]) == (
        "spec.action",
        5,
        "write an action type, or None where the operator can do nothing",
    )
    told = run(app, ["runbook", "lint", str(file), "-o", "github"])
    assert told.exit_code == 1
    assert told.stdout.startswith(f"::error file={file},line=5,title=nightorders-runbook::Runbook/stuck%3A") or told.stdout.startswith(
        f"::error file={file},line=5,title=nightorders-runbook::Runbook/stuck: spec.action"
    )
    assert json.loads(run(app, ["runbook", "lint", str(file), "-o", "gitlab"]).stdout)[0]["location"]["lines"] == {"begin": 5}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  action:", "  acton:", "runbook.yaml:12: spec.acton: there is no such field"),
        ("Runbook\nmeta", "Runbook\nfoo: 1\nmeta", "foo: there is no such field"),
        ("v1alpha1", "v9", "apiVersion: 'nightorders.dev/v9' is not served"),
        ("name: stuck", "name: Stuck", "metadata.name: is missing or no name"),
        ("Deny", "Never", "spec.safeDuringRollout: 'Never' is not possible"),
        ("condition: Available", "condition: Available\n      promql: up\n      max: '1'", "either promql or condition"),
        ("sum(errors)", "sum(errors{a=$pod})", "knows the variables"),
        ("spec:\n", "spec: null\nother:\n", "spec: is missing"),
        ("  match:", "\tmatch:", "is no YAML"),
    ],
)
def test_what_the_api_server_would_refuse_is_an_error_and_not_a_finding(file: Path, old: str, new: str, said: str) -> None:
    assert old in COMPLETE
    file.write_text(COMPLETE.replace(old, new, 1))
    result = run(app, ["runbook", "lint", str(file)])
    assert result.exit_code == 2, result.stdout
    assert said in result.stderr
    assert run(app, ["runbook", "lint", str(file), "-o", "json"]).exit_code == 2


def test_directories_lists_and_other_objects(tmp_path: Path, file: Path) -> None:
    (tmp_path / "other.yaml").write_text("kind: ConfigMap\nmetadata: {name: x}\n---\n" + COMPLETE.replace("stuck", "second"))
    listed = {"kind": "RunbookList", "items": [yaml.safe_load(COMPLETE.replace("stuck", "third"))]}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    result = run(app, ["runbook", "lint", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (0, "3 complete, 0 with open questions\n")


def test_nothing_to_lint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("kind: ConfigMap\n")
    assert "there is no Runbook in it" in run(app, ["runbook", "lint", str(tmp_path)]).stderr
    assert run(app, ["runbook", "lint", str(tmp_path / "absent")]).exit_code == 2


def test_the_samples_are_complete() -> None:
    files = sorted((manifests() / "samples").glob("runbook*.yaml"))
    assert len(files) >= 2
    result = run(app, ["runbook", "lint", *map(str, files)])
    assert result.exit_code == 0, result.stdout
