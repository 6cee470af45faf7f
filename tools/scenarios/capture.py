"""Takes a picture of each scenario at the moment of its alert: what `kubectl get` and `kubectl logs` would give, and what Prometheus says.

    python -m tools.scenarios capture DIR --out FOLDER

FOLDER/<id>/world holds what `nightorders diagnose --from` reads; FOLDER/<id>/signal.json the alert, the answers of Prometheus to the
engine's questions, and what the scenario says is right. The engine can then be asked again and again without a cluster (`replay`).
"""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nightorders.adapters.prometheus import PrometheusMetrics, PrometheusSettings
from nightorders.controller import triage
from nightorders.diagnosis import engine
from tools.cluster.prometheus import Prometheus, ScriptedMetrics
from tools.cluster.rest import ApiError
from tools.scenarios import checks, logs
from tools.scenarios.errors import ScenarioError, StepError
from tools.scenarios.isolation import alone_because
from tools.scenarios.load import Scenario
from tools.scenarios.metrics import Script
from tools.scenarios.prove import SYMPTOM_SECONDS, prepare
from tools.scenarios.steps import Stage
from tools.scenarios.variants import Variant
from tools.scenarios.world import World

Json = dict[str, Any]
_SCRAPES_SECONDS = 12.0  # a rate needs two scrapes after the fault, and the window some of it


def capture(world: World, prometheus: Prometheus, exporter: ScriptedMetrics, scenario: Scenario, variant: Variant, out: Path) -> str:
    """One picture; what went wrong, or nothing."""
    folder = out / (scenario.id + (f"--{variant.name}" if variant.name else ""))
    try:
        with (
            world.turn(alone=bool(alone_because(scenario))),
            world.place(scenario, fresh=bool(variant.name), rewrite=variant.rewrite) as stage,
        ):
            prepare(stage)
            document = stage.scenario.document
            with Script(stage, exporter):
                time.sleep(3.0)
                stage.carry_out(document.steps)
                if document.proof is not None:
                    checks.wait(stage.kube, document.proof.symptom, stage.namespace, SYMPTOM_SECONDS)
                if document.metrics:
                    time.sleep(_SCRAPES_SECONDS)
                time.sleep(6.0)
                logs.shift(stage.scenario.folder)
                _keep(world, prometheus, stage, folder, variant)
    except (StepError, ScenarioError, ApiError, OSError) as problem:
        return str(problem)
    return ""


def _keep(world: World, prometheus: Prometheus, stage: Stage, folder: Path, variant: Variant) -> None:
    namespace, document = stage.namespace, stage.scenario.document
    now = datetime.datetime.now(datetime.UTC)
    for api_version, kind in engine.KINDS:
        _list(stage, kind, namespace, folder / "world" / namespace, api_version)
    for api_version, kind in engine.CLUSTER_KINDS:
        _list(stage, kind, "", folder / "world", api_version)
    for api_version, kind in engine.BESIDE_KINDS:
        _list(stage, kind, "kube-system", folder / "world" / "kube-system", api_version)
    for hook in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        for place in {
            w["clientConfig"]["service"]["namespace"]
            for o in stage.kube.list(hook)
            for w in o.get("webhooks", [])
            if "service" in w["clientConfig"]
        }:
            if place not in (namespace, "kube-system"):
                for api_version, kind in engine.BESIDE_KINDS:
                    _list(stage, kind, place, folder / "world" / place, api_version)
    for pod in stage.kube.list("Pod", namespace):
        _logs(world, pod, folder / "world" / "logs")
    settings = PrometheusSettings(url=prometheus.url)
    labels = {k: stage.expanded(v) for k, v in document.signal.labels.items()}
    asked = PrometheusMetrics(settings)
    vectors = asyncio.run(triage.ask_metrics(asked, namespace, now))
    firing = asyncio.run(PrometheusMetrics(settings).alert_state(labels, now))
    signal = {
        "namespace": namespace,
        "at": now.isoformat(),
        "variant": variant.name,
        "labels": labels,
        "annotations": {k: stage.expanded(v) for k, v in document.signal.annotations.items()},
        "firing": firing.firing,
        "because": firing.because,
        "kind": document.kind,
        "rootCause": [{"category": c.category, "object": c.object} for c in document.expect.root_cause],
        "outcome": document.expect.outcome,
        "metrics": {
            name: {"promql": v.promql, "because": v.because, "points": [{"labels": dict(p.labels), "value": p.value} for p in v.points]}
            for name, v in vectors.items()
        },
    }
    (folder / "signal.json").write_text(json.dumps(signal, indent=1))


def _list(stage: Stage, kind: str, namespace: str, folder: Path, api_version: str) -> None:
    try:
        found = stage.kube.list(kind, namespace)
    except StepError:
        return  # a kind that this cluster does not serve
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{kind.lower()}.json").write_text(
        json.dumps({"apiVersion": api_version, "kind": f"{kind}List", "metadata": {}, "items": found})
    )


def _logs(world: World, pod: Json, folder: Path) -> None:
    meta = pod["metadata"]
    spec = pod["spec"]
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        for previous in (False, True):
            more = ["--previous"] if previous else []
            done = world.cluster.kubectl(
                "-n", meta["namespace"], "logs", meta["name"], "-c", container["name"], "--tail=60", *more, check=False
            )
            if done.returncode == 0 and done.stdout:
                path = folder / meta["namespace"] / meta["name"] / f"{container['name']}{'.previous' if previous else ''}.log"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(done.stdout)


def capture_all(
    world: World,
    prometheus: Prometheus,
    exporter: ScriptedMetrics,
    wanted: list[tuple[Scenario, Variant]],
    out: Path,
    report: Callable[[str, str], None],
    jobs: int,
) -> int:
    """All pictures; returns how many failed. What must be alone comes last."""
    failed = 0
    beside = [(s, v) for s, v in wanted if not alone_because(s)]
    alone = [(s, v) for s, v in wanted if alone_because(s)]

    def one(pair: tuple[Scenario, Variant]) -> None:
        nonlocal failed
        problem = capture(world, prometheus, exporter, *pair, out)
        failed += bool(problem)
        report(f"{pair[0].id} {pair[1].name}".strip(), problem)

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        list(pool.map(one, beside))
    for pair in alone:
        one(pair)
    return failed
