"""Secrets of every kind that we know, planted wherever an operator looks, on a real control plane: none of them comes out anywhere."""

from __future__ import annotations

import copy
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from nightorders.__main__ import app
from tests.cluster.scene import CLOSED, GOOD, Scene, deployment, policy, until
from tests.unit.diagnosis.test_redaction import PLANTED
from tools.cluster import Cluster, behaviour
from tools.operator_process import NAMESPACE, OperatorProcess, free_port

pytestmark = [pytest.mark.cluster, pytest.mark.threat(23), pytest.mark.promise(7)]
Json = dict[str, Any]
IMAGE = "registry.example/checkout:3.0.0"
# Shorter ones (4711, def) would be found in names and hashes that have nothing to do with them.
KNOWN = [(kind, text, secret) for kind, text, secret in PLANTED if len(secret) >= 7]
TEXTS = [text for _, text, _ in KNOWN]
LINES = [line for text in TEXTS for line in text.split("\n")]
TALKING = frozenset({"Diagnosed", "Advised", "AwaitingApproval", "Stalled", *CLOSED})


def test_there_are_secrets_of_thirty_kinds() -> None:
    assert len({kind for kind, _, _ in KNOWN}) >= 30


@dataclass(frozen=True)
class Planted:
    """The namespace in which it all happened, and the operator that saw it."""

    scene: Scene
    operator: OperatorProcess
    incidents: list[Json]


@pytest.fixture(scope="module")
def planted(arena: Cluster, _shared_operator: OperatorProcess) -> Iterator[Planted]:
    """A release that crashes, with secrets in all that is said about it; and an alert that carries them, too."""
    if _shared_operator.process is not None and _shared_operator.process.poll() is None:
        _shared_operator.kill()
    port = free_port()
    operator = OperatorProcess(arena, environment={"NIGHTORDERS_WEBHOOK_PORT": str(port)}, name="operator-secrets").start()
    scene = Scene(arena, "planted-secrets")
    try:
        operator.wait_ready()
        scene.apply(policy("L2"))
        scene.app("checkout", GOOD, env=variables("before"))
        plant(scene)
        post(arena, port, scene)
        until(
            lambda: len(scene.incidents()) >= 1 and all(i.get("status", {}).get("phase") in TALKING for i in scene.incidents()), "diagnosed"
        )
        until(lambda: any(i["status"].get("evidence") for i in scene.incidents()), "a diagnosis with evidence")
        yield Planted(scene, operator, scene.incidents())
    finally:
        operator.stop()
        arena.kubectl("delete", "namespace", scene.namespace, "--wait=false")


def variables(suffix: str) -> list[Json]:
    """Environment variables that hold them in the open, as one should not."""
    return [{"name": f"SETTING_{i}", "value": f"{text} {suffix}"} for i, text in enumerate(TEXTS)]


def plant(scene: Scene) -> None:
    """In logs, environment, annotations, Events, ConfigMaps and termination messages."""
    said = [f"FATAL invalid value for SETTING_{i}: {text}" for i, text in enumerate(LINES)]
    scene.cluster.apply(*behaviour.logs(scene.namespace, None, "checkout", said[-30:], said[:30]))
    message = "\n".join(["panic: cannot start", *TEXTS])[:3500]
    scene.cluster.apply(*(with_message(stage, message) for stage in behaviour.exits(scene.namespace, IMAGE)))
    data = {f"k{i}": text for i, text in enumerate(TEXTS)}
    scene.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "checkout", "annotations": notes()}, "data": data})
    release = deployment("checkout", IMAGE, env=variables("after"), envFrom=[{"configMapRef": {"name": "checkout"}}])
    release["metadata"]["annotations"] = notes()
    release["spec"]["template"]["metadata"]["annotations"] = notes()
    scene.apply(release)
    uid = scene.get("deployment/checkout")["metadata"]["uid"]
    about = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout", "namespace": scene.namespace, "uid": uid}
    pods = until(lambda: json.loads(scene.kubectl("get", "pods", "-o", "json"))["items"], "pods")
    refs = [
        about,
        *({"kind": "Pod", "name": p["metadata"]["name"], "namespace": scene.namespace, "uid": p["metadata"]["uid"]} for p in pods),
    ]
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    events = [
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"planted-{i}-{j}", "namespace": scene.namespace},
            "type": "Warning",
            "reason": ("Failed", "Unhealthy", "BackOff", "FailedMount")[i % 4],
            "message": text[:1000],
            "involvedObject": ref,
            "firstTimestamp": now,
            "lastTimestamp": now,
        }
        for i, text in enumerate(TEXTS)
        for j, ref in enumerate(refs)
    ]
    scene.cluster.apply(*events)


def notes() -> dict[str, str]:
    return {f"example.com/note-{i}": text for i, text in enumerate(TEXTS)}


def with_message(stage: Json, message: str) -> Json:
    """A container's end that says something, as `terminationMessagePath` lets it."""

    def changed(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("      reason: Error\n", f"      reason: Error\n      message: {json.dumps(message)}\n")
        if isinstance(value, dict):
            return {k: changed(v) for k, v in value.items()}
        return [changed(v) for v in value] if isinstance(value, list) else value

    return changed(copy.deepcopy(stage))  # type: ignore[no-any-return]


def post(cluster: Cluster, port: int, scene: Scene) -> None:
    """The alert, with secrets in its annotations and labels."""
    account = ("-n", NAMESPACE, "create", "token", "nightorders-alertmanager", "--audience=nightorders.dev/alerts", "--duration=1h")
    token = cluster.kubectl(*account).stdout.strip()
    labels = {"alertname": "KubePodCrashLooping", "namespace": scene.namespace, "deployment": "checkout", "severity": "critical"}
    one = {
        "status": "firing",
        "labels": labels | {f"label_{i}": text for i, text in enumerate(TEXTS[:20])},
        "annotations": {
            "summary": "\n".join(reversed(TEXTS)),
            "description": "\n".join(TEXTS),
            "runbook_url": "https://u:hunter2@wiki.example/x",
        },
        "startsAt": datetime.now(UTC).isoformat(),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "https://prometheus.example/graph?token=hunter2",
        "fingerprint": "feedbeef",
    }
    body = json.dumps({"version": "4", "status": "firing", "alerts": [one]}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/alertmanager", body, {"Authorization": f"Bearer {token}"}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            assert response.status == 200
    except urllib.error.HTTPError as problem:
        raise AssertionError(f"{problem.code} {problem.read().decode()[:500]}") from None


def leaked(text: str) -> list[str]:
    """Kinds of secrets that are in a text, also where JSON escaped them."""
    return sorted({kind for kind, _, secret in KNOWN if secret in text or json.dumps(secret)[1:-1] in text})


def test_what_was_planted_was_looked_at(planted: Planted) -> None:
    """Otherwise nothing could come out."""
    wire = json.dumps([i["status"] for i in planted.incidents])
    assert "[redacted]" in wire
    alerts = [i for i in planted.incidents if i["spec"].get("signal", {}).get("source") == "Alertmanager"]
    seen = [a for i in planted.incidents for a in i["status"].get("alerts", [])]
    assert alerts or seen, "the alert was taken in"
    assert any(e["source"] == "Logs" for i in planted.incidents for e in i["status"].get("evidence", [])), wire[:3000]


def test_not_in_what_is_kept_of_an_alert(planted: Planted) -> None:
    for one in planted.scene.incidents():
        assert leaked(json.dumps(one["spec"], ensure_ascii=False)) == []


def test_not_in_any_incident(planted: Planted) -> None:
    for one in planted.scene.incidents():
        assert leaked(json.dumps(one["status"], ensure_ascii=False)) == []
        assert leaked(json.dumps(one["metadata"], ensure_ascii=False)) == []


def test_not_in_the_records(planted: Planted) -> None:
    for what in ("ledgers", "remediationpolicies"):
        assert leaked(planted.scene.kubectl("get", what, "-o", "json")) == []


def test_not_in_our_events(planted: Planted) -> None:
    every = json.loads(planted.scene.kubectl("get", "events", "-o", "json"))["items"]
    ours = [e for e in every if not e["metadata"]["name"].startswith("planted-")]
    assert ours
    assert leaked(json.dumps(ours, ensure_ascii=False)) == []


def test_not_in_the_operators_log_or_metrics(planted: Planted) -> None:
    log = planted.operator.log.read_text()
    assert planted.scene.namespace in log
    assert leaked(log) == []
    assert leaked(planted.operator.scrape()) == []


@pytest.mark.parametrize("output", ["text", "json", "markdown"])
@pytest.mark.parametrize("command", [["diagnose", "deploy/checkout"], ["diagnose"], ["scan"]], ids=" ".join)
def test_not_in_what_a_command_prints(planted: Planted, command: list[str], output: str) -> None:
    environment = {**os.environ, "KUBECONFIG": str(planted.scene.cluster.kubeconfig)}
    done = CliRunner().invoke(app, [*command, "-n", planted.scene.namespace, "-o", output], env=environment)
    assert done.exit_code in (1, 3), done.output
    assert "checkout" in done.stdout
    assert leaked(done.output) == []


def test_not_in_what_show_prints(planted: Planted) -> None:
    environment = {**os.environ, "KUBECONFIG": str(planted.scene.cluster.kubeconfig)}
    for one in planted.incidents:
        for output in ("text", "json", "markdown"):
            name = one["metadata"]["name"]
            done = CliRunner().invoke(app, ["show", name, "-n", planted.scene.namespace, "-o", output], env=environment)
            assert done.exit_code == 0, done.output
            assert leaked(done.output) == []
