"""Verification by PromQL against a real Prometheus that scrapes scripted series."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.scene import BAD, GOOD, Scene, condition, mutations, policy, until
from tools.cluster import Cluster
from tools.cluster.prometheus import Prometheus, ScriptedMetrics
from tools.operator_process import OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.prometheus]
OPERATOR = "system:serviceaccount:nightorders-system:nightorders"
CHECKS = [{"name": "errors", "promql": 'sum(error_ratio{service="$name",namespace="$namespace"})', "max": "0.01"}]


@pytest.fixture
def series() -> Iterator[ScriptedMetrics]:
    """Series that a test sets."""
    with ScriptedMetrics() as made:
        yield made


@pytest.fixture
def prometheus(series: ScriptedMetrics) -> Iterator[Prometheus]:
    """A real Prometheus that scrapes them every second."""
    with Prometheus([series.address]) as made:
        yield made


@pytest.fixture
def operator(arena: Cluster, no_operator: None, prometheus: Prometheus) -> Iterator[OperatorProcess]:
    """An operator that asks this Prometheus."""
    process = OperatorProcess(arena, environment={"NIGHTORDERS_PROMETHEUS_URL": prometheus.url}).start().wait_ready()
    yield process
    process.stop()


def errors(scene: Scene, series: ScriptedMetrics, prometheus: Prometheus, value: float) -> None:
    """Sets the error ratio of the scene's app, and waits until Prometheus has it."""
    series.set("error_ratio", {"service": "checkout", "namespace": scene.namespace}, value)
    wanted = f'error_ratio{{namespace="{scene.namespace}"}} == {value}'
    prometheus.wait_for(wanted)


def broken(scene: Scene, **verify: object) -> None:
    scene.apply(policy("L4", verify={"for": "6s", "every": "1s", "checks": CHECKS, **verify}))
    scene.app()
    scene.release()


def test_a_metric_that_recovers_is_recovery(
    operator: OperatorProcess, scene: Scene, series: ScriptedMetrics, prometheus: Prometheus
) -> None:
    errors(scene, series, prometheus, 0.002)
    broken(scene)
    incident = scene.incident("Recovered")
    last = {m["check"]: m for m in incident["status"]["verification"]["measurements"]}
    assert last["errors"]["verdict"] == "Pass"
    assert last["errors"]["value"] == "0.002"


def test_a_metric_that_stays_bad_is_unchanged_and_undone(
    operator: OperatorProcess, scene: Scene, series: ScriptedMetrics, prometheus: Prometheus
) -> None:
    errors(scene, series, prometheus, 0.5)
    broken(scene)
    incident = scene.incident("Undone")
    assert incident["status"]["verification"]["verdict"] == "Unchanged"
    assert scene.image() == BAD
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 2


def test_a_metric_that_gets_worse_alone_calls_a_human_and_undoes_nothing(
    operator: OperatorProcess, scene: Scene, series: ScriptedMetrics, prometheus: Prometheus
) -> None:
    """threats.md 18: metrics can lie; the workload itself is well."""
    errors(scene, series, prometheus, 0.05)
    broken(scene, **{"for": "12s"})
    scene.incident("Verifying")
    errors(scene, series, prometheus, 0.9)
    incident = scene.incident("Escalated")
    assert incident["status"]["verification"]["verdict"] == "Worse"
    assert scene.image() == GOOD
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 1


@pytest.mark.threat(18)
@pytest.mark.promise(4)
def test_a_series_that_vanishes_is_no_data(
    operator: OperatorProcess, scene: Scene, series: ScriptedMetrics, prometheus: Prometheus
) -> None:
    errors(scene, series, prometheus, 0.002)
    broken(scene, **{"for": "12s"})
    scene.incident("Verifying")
    series.remove("error_ratio")
    incident = scene.incident("Escalated")
    assert incident["status"]["verification"]["verdict"] == "NoData"
    assert "errors" in condition(incident, "Verified")["message"]
    until(lambda: scene.image() == GOOD, "what was done stays")
