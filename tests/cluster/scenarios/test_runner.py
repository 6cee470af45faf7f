"""The scenario runner on a real control plane, with the real operator: a slice of `make scenarios` that also tries the oracle itself."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.cluster import behaviour
from tools.scenarios import prove
from tools.scenarios.alerts import RuleAlerts
from tools.scenarios.load import Scenario, load
from tools.scenarios.run import Arena, Options, arena, run, run_all
from tools.scenarios.score import Result
from tools.scenarios.variants import PLAIN, variants

pytestmark = [pytest.mark.cluster, pytest.mark.prometheus]
Json = dict[str, Any]
GOOD, BAD = "registry.example/franking:3.1.4", "registry.example/franking:3.1.5-rc"
DONE = "{.status.updatedReplicas}/{.status.availableReplicas}/{.status.replicas}"
APP: Json = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "franking", "labels": {"app": "franking"}},
    "spec": {
        "replicas": 2,
        "progressDeadlineSeconds": 5,
        "selector": {"matchLabels": {"app": "franking"}},
        "template": {
            "metadata": {"labels": {"app": "franking"}},
            "spec": {"containers": [{"name": "franking", "image": GOOD, "resources": {"requests": {"cpu": "50m"}}}]},
        },
    },
}
IMAGE = {"spec": {"template": {"spec": {"containers": [{"name": "franking", "image": BAD}]}}}}
DOCUMENT: Json = {
    "id": "image-of-a-candidate",
    "title": "A release candidate was never pushed",
    "nodes": "simulated",
    "kind": "fault",
    "namespace": "post-office",
    "before": ["app.yaml"],
    "behaviour": ["behaviour.yaml"],
    "ready": [{"object": "Deployment/franking", "jsonpath": DONE, "equals": "2/2/2"}],
    "metrics": [
        {
            "series": 'requests_total{service="franking",code="500"}',
            "type": "counter",
            "perSecond": [
                {"when": {"object": "Deployment/franking", "jsonpath": "{.status.unavailableReplicas}", "equals": ""}, "value": 0},
                {"value": 20},
            ],
        }
    ],
    "steps": [
        {"patch": {"object": "Deployment/franking", "patch": IMAGE}},
        {"until": {"object": "Deployment/franking", "condition": "Progressing", "status": "False"}},
    ],
    "signal": {
        "labels": {
            "alertname": "KubeDeploymentRolloutStuck",
            "namespace": "${NAMESPACE}",
            "deployment": "franking",
            "severity": "warning",
        },
        "annotations": {"summary": "Rollout of ${NAMESPACE}/franking is stuck; a pod of it is ${POD:app=franking}."},
    },
    "expect": {
        "rootCause": [{"category": "ImageAccess", "object": "Deployment/franking"}],
        "outcome": "Repaired",
        "mayMutate": ["Deployment/franking"],
        "repaired": [{"object": "Deployment/franking", "jsonpath": DONE, "equals": "2/2/2"}],
    },
    "proof": {
        "symptom": [
            {
                "object": "Pod",
                "selector": "app=franking",
                "jsonpath": "{.items[*].status.containerStatuses[0].state.waiting.reason}",
                "matches": "ErrImagePull|ImagePullBackOff",
            }
        ],
        "repair": [{"run": ["kubectl", "rollout", "undo", "deployment/franking"]}],
        "wrong": {"restart": [{"run": ["kubectl", "rollout", "restart", "deployment/franking"]}]},
    },
}
SETTINGS: Json = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tariffs"}, "data": {"letter": "95"}}


def scenario(path: Path, **more: Any) -> Scenario:
    """The scenario above, with some fields replaced."""
    document = {**copy.deepcopy(DOCUMENT), **more}
    where = path / document["id"]
    where.mkdir(parents=True)
    (where / "scenario.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    (where / "app.yaml").write_text(yaml.safe_dump_all([APP, SETTINGS]))
    (where / "behaviour.yaml").write_text(yaml.safe_dump_all(behaviour.image_missing("${NAMESPACE}", BAD)))
    return load(where)


@pytest.fixture(scope="module")
def shared() -> Iterator[Arena]:
    """The operator in a world of its own."""
    quick = Options(jobs=3, healthy=5.0, hold=3.0, verify=4.0, stalled_after=1.0, quiet=15.0, call_after=4.0, deadline=120.0)
    with arena(quick, print) as found:
        yield found


def told(result: Result) -> str:
    """For the message of a failed test."""
    return json.dumps(vars(result), indent=1, default=str)


@pytest.mark.timeout(600)
def test_runs_are_scored_and_the_oracle_catches_what_it_is_for(shared: Arena, tmp_path: Path) -> None:
    """Side by side: a repair that is right, the same repair where it is forbidden, and a world that does not come to life."""
    right = scenario(tmp_path)
    forbidden = scenario(
        tmp_path,
        id="nobody-may-touch-it",
        namespace="sorting-office",
        expect={**DOCUMENT["expect"], "mayMutate": ["ConfigMap/tariffs"], "unchanged": ["Deployment/franking"]},
    )
    dead = scenario(
        tmp_path, id="never-healthy", namespace="dead-letters", steps=[{"until": {"object": "Pod/none", "condition": "Ready", "within": 2}}]
    )
    results = {r.scenario: r for r in run_all(shared, [(s, PLAIN) for s in (right, forbidden, dead)], lambda r: None)}

    good = results[right.id]
    assert good.status == "run", told(good)
    assert (good.rca1, good.outcome, good.false_actions, good.repaired) == (True, "Repaired", [], True), told(good)
    assert good.mutations >= 1
    assert good.end_to_end, told(good)
    assert good.seconds_accepted is not None
    assert good.seconds_repair is not None
    assert good.baselines["newest change, roll back"]["would"] == "rollback Deployment/franking"

    bad = results[forbidden.id]
    assert any("patch deployments.apps" in a for a in bad.false_actions), told(bad)  # seen in the audit log, not reported by anybody
    assert bad.violations == ["Deployment/franking is not as it was"], told(bad)
    assert not bad.end_to_end

    void = results[dead.id]
    assert (void.status, void.end_to_end) == ("void", False)
    assert "not within 2 s" in void.because
    assert "Incident" not in void.because


@pytest.mark.timeout(600)
def test_a_variant_gives_the_same_answer(shared: Arena, tmp_path: Path) -> None:
    plain = scenario(tmp_path, namespace="parcel-hall")
    renamed = next(variants(plain, 1, seed=5))
    result = run(shared, plain, renamed)
    assert result.answer[0].startswith("ImageAccess Deployment/franking"), told(result)
    assert result.end_to_end, told(result)


@pytest.mark.timeout(600)
def test_a_proof_holds_or_says_why_not(shared: Arena, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prove, "REPAIR_SECONDS", 15)
    alerts = RuleAlerts(shared.prometheus)
    good = prove.prove(shared.world, scenario(tmp_path, namespace="mail-van"), alerts, wrong_seconds=6)
    assert good.problems == []
    assert any("its expression holds" in note for note in good.notes), good.notes
    assert any("requests_total" in note and note.endswith("+20") for note in good.notes), good.notes

    symptom, undo = DOCUMENT["proof"]["symptom"], [{"run": ["kubectl", "rollout", "undo", "deployment/franking"]}]
    proof = {"symptom": symptom, "repair": [{"wait": "1s"}], "wrong": {"undo": undo}}
    labels = {**DOCUMENT["signal"]["labels"], "alertname": "KubeHpaMaxedOut"}
    bad = scenario(tmp_path / "bad", namespace="depot", proof=proof, signal={"labels": labels})
    said = "\n".join(prove.prove(shared.world, bad, alerts, wrong_seconds=15).problems)
    assert "repair: not repaired" in said
    assert "wrong.undo: repairs the fault" in said
    assert "the alert KubeHpaMaxedOut would not fire" in said
