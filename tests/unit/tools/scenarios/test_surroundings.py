"""The orders, the background and the scripted series that surround a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nightorders.api.v1alpha1.clusterpolicy import ClusterRemediationPolicy
from nightorders.api.v1alpha1.common import ActionType
from nightorders.api.v1alpha1.policy import RemediationPolicy
from tests.unit.tools.scenarios.builders import Json, Objects, changed, folder
from tools.cluster.prometheus import ScriptedMetrics
from tools.scenarios import orders
from tools.scenarios.background import Background
from tools.scenarios.load import load
from tools.scenarios.metrics import Script
from tools.scenarios.run import Options

# ---------------------------------------------------------------- orders


def test_the_default_policy_orders_everything_at_l4_within_the_default_guardrails() -> None:
    policy = RemediationPolicy.model_validate(orders.default_policy(Options().windows()))
    (rule,) = policy.spec.rules
    assert set(rule.types) == set(ActionType)
    assert rule.level == "L4"
    assert (rule.limits.max_pods, rule.limits.max_percent, rule.limits.cooldown, rule.limits.per_hour) == (10, 50, "10m", 3)
    assert policy.spec.escalate is not None
    assert policy.spec.escalate.to == (orders.CHANNEL,)


def test_without_short_windows_the_guardrails_are_all_the_apis_own() -> None:
    policy = RemediationPolicy.model_validate(orders.default_policy(orders.Windows(None, None, 900)))
    assert (policy.spec.rules[0].verify.for_, policy.spec.rules[0].limits.stalled_after) == ("5m", "5m")


def test_every_shortened_window_is_told() -> None:
    text = "; ".join(Options().shortened())
    for part in ("verify.for 12 s (default 5m)", "limits.stalledAfter 2 s (default 5m)", "escalate.after 10 s", "hold for 15 s (120 s)"):
        assert part in text
    assert not any("repaired" in part for part in Options(hold=120, settle=60).shortened())


def test_the_fleet_leaves_room_for_many_runs() -> None:
    assert ClusterRemediationPolicy.model_validate(orders.fleet()).spec.fleet.per_hour == 10000


# ---------------------------------------------------------------- background


def background(seed: int) -> list[Json]:
    return list(Background(cast(Any, None), seed).manifests())


def test_the_background_is_ten_workloads_and_two_chronic_anomalies() -> None:
    found = background(1)
    assert sum(o["kind"] == "Deployment" for o in found) == 10
    assert [o["kind"] for o in found if o["kind"] in ("Job", "Pod")] == ["Job", "Pod"]
    assert all(o["metadata"].get("namespace", "").startswith("team-") for o in found if o["kind"] != "Namespace")


def test_the_seed_places_it() -> None:
    assert background(1) == background(1)
    assert background(1) != background(2)


def test_changes_are_a_setting_and_then_a_release() -> None:
    said: list[tuple[str, ...]] = []
    world = SimpleNamespace(cluster=SimpleNamespace(kubectl=lambda *args, **_: said.append(args)), user=Path("u"))
    one = Background(cast(Any, world), 1)
    one.change()
    one.change()
    assert "configmap" in said[0]
    assert said[1][2:4] == ("set", "image")


# ---------------------------------------------------------------- series

COUNTER: Json = {
    "series": 'errors_total{code="500"}',
    "type": "counter",
    "perSecond": [{"when": {"object": "Pod/web", "condition": "Ready"}, "value": 1}, {"value": 20}],
}
GAUGE: Json = {
    "series": 'depth{namespace="other"}',
    "type": "gauge",
    "value": [{"when": {"object": "Pod/web", "condition": "Ready"}, "value": 7}],
}


@pytest.fixture
def cluster() -> Objects:
    return Objects()


def pod(ready: str) -> Json:
    return {"kind": "Pod", "metadata": {"name": "web"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


def script(tmp_path: Path, cluster: Objects, exporter: ScriptedMetrics) -> Script:
    scenario = load(folder(tmp_path, changed(metrics=[COUNTER, GAUGE])))
    stage = SimpleNamespace(kube=cluster, namespace="parcels", scenario=scenario, expanded=lambda text: text)
    return Script(cast(Any, stage), exporter)


def test_series_follow_the_cluster(tmp_path: Path, cluster: Objects) -> None:
    exporter = ScriptedMetrics()
    series = script(tmp_path, cluster, exporter)
    cluster.objects = [pod("True")]
    series.tick(2)
    assert exporter.text() == 'errors_total{code="500",namespace="parcels"} 2.0\ndepth{namespace="other"} 7.0\n'
    cluster.objects = [pod("False")]
    series.tick(3)  # a counter goes on from where it was; a gauge without a case that holds is not there
    assert exporter.text() == 'errors_total{code="500",namespace="parcels"} 62.0\n'


def test_series_vanish_with_the_run(tmp_path: Path, cluster: Objects) -> None:
    exporter = ScriptedMetrics()
    with script(tmp_path, cluster, exporter) as series:
        series.tick(1)
        assert "errors_total" in exporter.text()
    assert exporter.text() == ""
