"""`nightorders policy test`: a case states only what matters, and what differs is said with the reason of the operator itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.policykit import cases, reference, report, trial

run = CliRunner().invoke
SAMPLES = "manifests/samples/policy-tests"
POLICY = {
    "apiVersion": "nightorders.dev/v1alpha1",
    "kind": "RemediationPolicy",
    "metadata": {"name": "web"},
    "spec": {"rules": [{"name": "rollback", "types": ["RollbackWorkload"], "level": "L4"}]},
}


def written(folder: Path, *given: dict[str, Any], **top: Any) -> str:
    path = folder / "t.yaml"
    path.write_text(yaml.safe_dump({"policies": [POLICY], **top, "cases": list(given)}, sort_keys=False))
    return str(path)


def judged(folder: Path, case: dict[str, Any], *flags: str, **top: Any) -> Any:
    return run(app, ["policy", "test", written(folder, {"name": "one", **case}, **top), *flags])


def test_the_samples_pass_and_touch_everything() -> None:
    result = run(app, ["policy", "test", SAMPLES, "--coverage"])
    assert result.exit_code == 0, result.stdout
    assert "FAILED" not in result.stdout
    assert "every rule, freeze, ceiling, tier and protected entry is touched by a case" in result.stdout
    assert result.stdout.endswith("40 ok, 0 failed\n")


def test_everything_is_fine_by_default(tmp_path: Path) -> None:
    expect = {"level": "L4", "outcome": "Acts", "verdict": "Passed", "trust": 100, "risk": 0, "breaker": "Closed", "approval": "Waiting"}
    result = judged(tmp_path, {"expect": expect})
    assert result.exit_code == 0, result.stdout


# One thing that differs from "fine" → the level, and a part of what decides it or the reason of the first refusal.
WORLD: list[tuple[dict[str, Any], str, str]] = [
    ({"incident": {"grade": "B"}}, "L3", "trust"),
    ({"incident": {"grade": "D"}}, "L1", "trust"),
    ({"incident": {"grade": "None"}}, "L1", "trust"),
    ({"incident": {"category": "Unknown"}}, "L1", "trust"),
    ({"incident": {"logsOnly": True}}, "L3", "trust"),
    ({"incident": {"gaps": ["a", "b", "c", "d", "e"], "grade": "A"}}, "L4", "trust"),
    ({"incident": {"evidenceAge": "2m"}}, "L3", "trust"),
    ({"incident": {"evidenceAge": "10m"}}, "L1", "trust"),
    ({"incident": {"origin": "Deployment/db"}}, "L1", "risk"),
    ({"incident": {"openedBy": "human"}}, "L3", "incident"),
    ({"incident": {"taken": "ann"}}, "L2", "risk"),
    ({"incident": {"detectedLevel": "L2"}}, "L3", "level at detection"),
    ({"incident": {"stagedLevel": "L3"}}, "L3", "level at staging"),
    ({"incident": {"others": 6}}, "L4", "risk"),
    ({"incident": {"others": 6}, "risk": {"autoscaler": "web"}}, "L3", "risk"),
    ({"incident": {"humanChange": "5m"}}, "L2", "risk"),
    ({"incident": {"annotations": {"take.nightorders.dev/x": "ann"}}}, "L2", "risk"),
    ({"incident": {"suspend": True}}, "L4", "Suspended"),
    ({"ledger": {"state": "New"}}, "L3", "ledger"),
    ({"ledger": {"state": "Gone"}}, "L2", "ledger"),
    ({"ledger": {"outcomes": [{"result": "Undone", "workload": "Deployment/checkout", "ago": "2h"}]}}, "L3", "trust"),
    ({"ledger": {"rejections": [{}]}}, "L3", "trust"),
    ({"ledger": {"running": [{"workload": "Deployment/checkout"}]}}, "L4", "Cooldown"),
    ({"ledger": {"running": [{}, {}, {}]}}, "L4", "Rate"),
    ({"fleet": {"running": 5}}, "L4", "Budget"),
    ({"fleet": {"lastHour": 20}}, "L4", "Budget"),
    ({"fleet": {"lastHourHere": 10}}, "L4", "Budget"),
    ({"fleet": {"clusterPoliciesSeen": True}}, "L2", "cluster policies"),
    ({"risk": {"healthyPods": 2}}, "L4", "BlastRadius"),
    ({"risk": {"undo": "None"}}, "L3", "undo"),
    ({"risk": {"atMost": "L2"}}, "L2", "preflight"),
    ({"risk": {"preflight": "it is paused"}}, "L4", "Preflight"),
    ({"risk": {"healthyPods": 1, "disruptionBudgets": [{}]}}, "L4", "DisruptionBudget"),
    ({"risk": {"healthyPods": 1, "atOnce": 0, "disruptionBudgets": [{}]}}, "L4", "Passed"),
    ({"rollout": {"underWay": True, "ownFault": False}}, "L4", "RolloutUnderWay"),
    ({"rollout": {"underWay": True, "terminalFor": "1m"}}, "L4", "RolloutUnderWay"),
    ({"rollout": {"underWay": True, "terminalFor": "1m", "pastDeadline": True}}, "L4", "Passed"),
    ({"gitOps": {"who": "Argo CD"}}, "L3", "OwnedElsewhere"),
    ({"stop": "Everything"}, "L4", "Stopped"),
    ({"stop": "Unknown"}, "L4", "Stopped"),
    ({"guard": "NotProven"}, "L2", "approval guard"),
    ({"schemas": "Older"}, "L1", "custom resource schemas"),
    ({"unreadable": ["Namespace/shop"]}, "L1", "cannot tell"),
    ({"workload": {"changed": True}}, "L4", "TargetChanged"),
    ({"workload": {"namespace": "kube-system"}}, "L4", "Protected"),
    ({"workload": {"namespaceAnnotations": {"nightorders.dev/max-level": "L2"}}}, "L2", "max-level"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "level", "why"), WORLD, ids=lambda v: json.dumps(v)[:60])
def test_everything_that_a_case_can_say_has_its_effect(tmp_path: Path, case: dict[str, Any], level: str, why: str) -> None:
    by = {"verdict": why} if why in cases.REASONS else {"decidedBy": why}
    result = judged(tmp_path, {**case, "expect": {"level": level, **by}})
    assert result.exit_code == 0, result.stdout


def test_relabelling_is_remembered(tmp_path: Path) -> None:
    other = {**POLICY, "metadata": {"name": "other"}}
    strict = {"selector": {"matchLabels": {"tier": "db"}}, "rules": [{"name": "r", "types": ["RollbackWorkload"], "level": "L2"}]}
    loose = {"selector": {"matchLabels": {"tier": "web"}}, **POLICY["spec"]}  # type: ignore[dict-item]
    case = {
        "workload": {"labels": {"tier": "web"}},
        "ledger": {"labelsBefore": {"tier": "db"}},
        "expect": {"level": "L3", "decidedBy": "labels"},
    }
    result = judged(tmp_path, case, policies=[{**POLICY, "spec": loose}, {**other, "spec": strict}])
    assert result.exit_code == 0, result.stdout


def test_a_difference_says_what_the_operator_would_say(tmp_path: Path) -> None:
    result = judged(tmp_path, {"incident": {"grade": "B"}, "expect": {"level": "L4", "gates": {"confidence": "NotSureEnough"}}})
    assert result.exit_code == 1
    assert "FAILED  one  L3  AwaitsApproval  trust" in result.stdout
    assert "level: expected L4, got L3 because trust says L3 (diagnosis has grade B; acting alone needs grade A (30))" in result.stdout
    assert "gate confidence: expected NotSureEnough, got Passed because grade B" in result.stdout
    assert result.stdout.endswith("0 ok, 1 failed\n")


@pytest.mark.parametrize(
    ("expect", "says"),
    [
        (
            {"decidedBy": "freeze"},
            "decidedBy: expected freeze, got RemediationPolicy/web rule rollback and trust and risk because all who speak",
        ),
        ({"speakers": {"trust": "L2"}}, "speaker trust: expected L2, got L4"),
        ({"speakers": {"nobody": "L2"}}, "speaker nobody: expected L2, got (does not speak)"),
        ({"verdict": "Frozen"}, "verdict: expected Frozen, got Passed"),
        ({"outcome": "Advises"}, "outcome: expected Advises, got Acts"),
        ({"shadowWould": "Acts"}, "shadowWould: expected Acts, got (not in Shadow)"),
        ({"needs": {"count": 2, "expiresAfter": "1h"}}, "needs expiresSeconds: expected 3600, got 900"),
        ({"approval": "Approved"}, "approval: expected Approved, got Waiting because 1 of 1 missing; counted: nobody"),
        ({"emergencyWouldPass": True}, "emergencyWouldPass: expected true, got false"),
        ({"trust": 50}, "trust: expected 50, got 100 because nothing speaks against it"),
        ({"breaker": "Open"}, "breaker: expected Open, got Closed because 0 failures within 1h"),
        ({"earned": "L2"}, "earned: expected L2, got (no earn)"),
    ],
)
def test_every_expectation_can_fail(tmp_path: Path, expect: dict[str, Any], says: str) -> None:
    result = judged(tmp_path, {"expect": expect})
    assert result.exit_code == 1
    assert says in result.stdout


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ({"incident": {"graed": "A"}, "expect": {"level": "L4"}}, "t.yaml:15: case 'one': incident.graed: there is no such field; known here: grade"),
        ({"incident": {"graed": "A"}, "expect": {"level": "L4"}}, "(did you mean grade?)"),
        ({"expect": {"level": "L5"}}, "expect.level: 'L5' is not possible"),
        ({"expect": {}}, "expect: expects nothing; say at least one thing"),
        ({}, "expect: is missing; add expect"),
        ({"expect": {"gates": {"freezes": "Passed"}}}, "expect.gates.freezes: there is no such gate; known: policy, enforcement"),
        ({"expect": {"gates": {"freeze": "Frosen"}}}, "'Frosen' is no reason; write Passed, or a reason (did you mean Frozen?)"),
        ({"expect": {"verdict": "No"}}, "expect.verdict: 'No' is no reason"),
        ({"incident": {"requestedBy": "ann"}, "expect": {"level": "L4"}}, "incident.requestedBy: nobody asked for an Incident"),
        ({"at": "tomorrow", "expect": {"level": "L4"}}, "at: 'tomorrow' is no moment in time; write it as 2026-12-24T00:00:00Z"),
        ({"policies": ["missing.yaml"], "expect": {"level": "L4"}}, "policies: there is no missing.yaml; paths are seen from the directory"),
        ({"policies": [{"kind": "ConfigMap"}], "expect": {"level": "L4"}}, "policies: is neither a path nor a policy"),
        ({"policies": [{**POLICY, "spec": {"rules": []}}], "expect": {"level": "L4"}}, "case 'one': spec.rules: needs at least 1 entries"),
        ({"morePolicies": [POLICY], "expect": {"level": "L4"}}, "RemediationPolicy/web is in"),
    ],
)  # fmt: skip
def test_bad_input_names_file_case_field_and_fix(tmp_path: Path, case: dict[str, Any], says: str) -> None:
    result = judged(tmp_path, case)
    assert (result.exit_code, result.stdout) == (2, "")
    assert says in result.stderr, result.stderr


def test_bad_input_outside_of_cases(tmp_path: Path) -> None:
    assert "there is no such file or directory" in run(app, ["policy", "test", str(tmp_path / "no")]).stderr
    assert "holds no test files" in run(app, ["policy", "test", str(tmp_path)]).stderr
    (tmp_path / "x.yaml").write_text("case: []\n")
    result = run(app, ["policy", "test", str(tmp_path)])
    assert result.exit_code == 2
    assert "x.yaml:1: has no list `cases:` (did you mean case?)" in result.stderr
    (tmp_path / "x.yaml").write_text("[1, 2]\n")
    assert "is neither a policy nor a test file" in run(app, ["policy", "test", str(tmp_path)]).stderr
    twice = written(tmp_path, {"name": "a", "expect": {"level": "L4"}}, {"name": "a", "expect": {"level": "L4"}})
    assert "'a' is the name of another case, too" in run(app, ["policy", "test", twice]).stderr


def test_defaults_lie_under_every_case(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {"name": "both", "incident": {"openedBy": "human"}, "expect": {"speakers": {"trust": "L3", "incident": "L3"}}},
        {"name": "own", "incident": {"grade": "A"}, "expect": {"level": "L4"}},
        defaults={"incident": {"grade": "B"}},
    )
    assert run(app, ["policy", "test", path]).exit_code == 0


def test_json_holds_everything(tmp_path: Path) -> None:
    result = judged(tmp_path, {"expect": {"level": "L2"}}, "-o", "json", "--coverage")
    assert result.exit_code == 1
    wire = json.loads(result.stdout)
    (case,) = wire["cases"]
    assert (wire["passed"], wire["failed"], wire["untouched"]) == (0, 1, [])
    assert (case["level"], case["outcome"], case["verdict"]["reason"]) == ("L4", "Acts", "Passed")
    assert [g["gate"] for g in case["gates"]][:3] == ["policy", "enforcement", "stop"]
    assert case["differences"][0]["expected"] == "L2"
    bad = judged(tmp_path, {"expect": {}}, "-o", "json")
    assert json.loads(bad.stdout)["problems"][0]["where"] == "expect"


def test_github_shows_it_beside_the_line(tmp_path: Path) -> None:
    result = judged(tmp_path, {"name": "50 %, a: b", "expect": {"level": "L2"}}, "-o", "github")
    line = next(i for i, row in enumerate((tmp_path / "t.yaml").read_text().splitlines(), 1) if row.strip() == "level: L2")
    assert result.stdout.startswith(
        f"::error file={tmp_path}/t.yaml,line={line},title=nightorders-policy-test::50 %25, a: b: level: expected"
    )
    assert result.stdout.count("\n") == 1
    assert judged(tmp_path, {"expect": {"level": "L4"}}, "-o", "github").stdout == ""
    assert judged(tmp_path, {"expect": {}}, "-o", "github").stdout.startswith("::error file=")


def test_gitlab_gets_a_code_quality_report(tmp_path: Path) -> None:
    (entry,) = json.loads(judged(tmp_path, {"expect": {"level": "L2"}}, "-o", "gitlab").stdout)
    assert set(entry) == {"description", "check_name", "fingerprint", "severity", "location"}
    assert entry["location"]["lines"]["begin"] > 1
    assert judged(tmp_path, {"expect": {"level": "L4"}}, "-o", "gitlab").stdout == "[]\n"


def test_coverage_names_what_no_case_touches(tmp_path: Path) -> None:
    spec = {**POLICY["spec"], "freezes": [{"name": "weekend", "schedule": "0 18 * * 5", "duration": "62h"}]}  # type: ignore[dict-item]
    result = judged(tmp_path, {"expect": {"level": "L4"}}, "--coverage", policies=[{**POLICY, "spec": spec}])
    assert result.exit_code == 0
    assert "touched by no case:" in result.stdout
    assert "RemediationPolicy/web freeze weekend  " in result.stdout


def test_the_help_says_the_exit_codes() -> None:
    assert "1 one is not" in " ".join(run(app, ["policy", "test", "--help"]).stdout.replace("│", " ").split())
    assert "3 something is raised" in " ".join(run(app, ["policy", "diff", "--help"]).stdout.replace("│", " ").split())


def test_a_policy_of_another_namespace_does_not_govern(tmp_path: Path) -> None:
    other = {**POLICY, "metadata": {"name": "web", "namespace": "billing"}}
    assert judged(tmp_path, {"expect": {"level": "L1"}}, policies=[other]).exit_code == 0
    assert judged(tmp_path, {"workload": {"namespace": "billing"}, "expect": {"level": "L4"}}, policies=[other]).exit_code == 0


def test_merging_replaces_lists_and_keeps_the_rest() -> None:
    assert trial.merge({"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}}) == {"a": {"b": 1, "c": [2]}, "d": 1}
    assert report.table([]) == []


def test_the_reference_page_is_as_the_format_says() -> None:
    """`NIGHTORDERS_GOLDEN=write pytest tests/unit/cli` writes it anew."""
    path = Path("docs/reference/policy-test.md")
    if os.environ.get("NIGHTORDERS_GOLDEN") == "write":
        path.write_text(reference.page())
    assert path.read_text() == reference.page()
