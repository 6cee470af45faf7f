"""The alerts' way in with everything real: Prometheus evaluates a rule, Alertmanager posts with a token, the operator stores an Incident."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nightorders.adapters.prometheus import PrometheusMetrics, PrometheusSettings
from nightorders.controller.triage import ask_metrics
from tests.cluster.scene import Scene, deployment, until
from tools.cluster import Cluster
from tools.cluster.alertmanager import Alertmanager
from tools.cluster.prometheus import Prometheus, ScriptedMetrics
from tools.operator_process import NAMESPACE, OperatorProcess, free_port

pytestmark = [pytest.mark.cluster, pytest.mark.prometheus]
Json = dict[str, Any]
RULE = {
    "alert": "DeploymentShort",
    "expr": "kube_deployment_status_replicas_available < kube_deployment_spec_replicas",
    "labels": {"severity": "critical"},
    "annotations": {"summary": "{{ $labels.deployment }} has too few replicas"},
}


class Site:
    """The operator with its webhook, the series that a test sets, and the token of the shipped account."""

    def __init__(
        self, cluster: Cluster, operator: OperatorProcess, port: int, series: ScriptedMetrics, prometheus: Prometheus, token: str
    ) -> None:
        self.cluster = cluster
        self.operator = operator
        self.url = f"http://127.0.0.1:{port}/alertmanager"
        self.series = series
        self.prometheus = prometheus
        self.token = token

    def post(self, *alerts: Json, token: str | None = None) -> tuple[int, str]:
        """(status, text) of a notification as Alertmanager posts it."""
        body = json.dumps({"version": "4", "status": "firing", "alerts": alerts}).encode()
        token = self.token if token is None else token
        request = urllib.request.Request(self.url, body, {"Authorization": f"Bearer {token}"}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as problem:
            with problem:
                return problem.code, problem.read().decode()

    def available(self, scene: Scene, name: str, count: int) -> None:
        """What kube-state-metrics would say of a Deployment that should have three replicas."""
        labels = {
            "namespace": scene.namespace,
            "deployment": name,
            "job": "kube-state-metrics",
            "pod": "kube-state-metrics-5b6-x",
            "instance": "x",
        }
        self.series.set("kube_deployment_status_replicas_available", labels, count)
        self.series.set("kube_deployment_spec_replicas", labels, 3)
        self.series.set("kube_deployment_created", labels, 1)


def token_of(cluster: Cluster, account: str, audience: str = "nightorders.dev/alerts") -> str:
    namespace, _, name = account.partition("/")
    return cluster.kubectl("-n", namespace, "create", "token", name, f"--audience={audience}", "--duration=1h").stdout.strip()


@pytest.fixture(scope="module")
def series() -> Iterator[ScriptedMetrics]:
    with ScriptedMetrics() as made:
        yield made


@pytest.fixture(scope="module")
def webhook_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def alertmanager(arena: Cluster, webhook_port: int) -> Iterator[Alertmanager]:
    token = token_of(arena, f"{NAMESPACE}/nightorders-alertmanager")
    with Alertmanager(f"http://127.0.0.1:{webhook_port}/alertmanager", token, group_by=["alertname"]) as made:
        yield made


@pytest.fixture(scope="module")
def prometheus(series: ScriptedMetrics, alertmanager: Alertmanager) -> Iterator[Prometheus]:
    with Prometheus([series.address], interval=0.5, rules=[RULE], alertmanagers=[alertmanager.address]) as made:
        yield made


@pytest.fixture(scope="module")
def _site(
    arena: Cluster, _shared_operator: OperatorProcess, webhook_port: int, series: ScriptedMetrics, prometheus: Prometheus
) -> Iterator[Site]:
    if _shared_operator.process is not None and _shared_operator.process.poll() is None:
        _shared_operator.kill()
    environment = {
        "NIGHTORDERS_WEBHOOK_PORT": str(webhook_port),
        "NIGHTORDERS_PROMETHEUS_URL": prometheus.url,
        "NIGHTORDERS_DETECT": "false",
    }
    process = OperatorProcess(arena, environment=environment, name="operator-alerts").start()
    yield Site(arena, process, webhook_port, series, prometheus, token_of(arena, f"{NAMESPACE}/nightorders-alertmanager"))
    process.stop()


@pytest.fixture
def site(_site: Site) -> Site:
    """With the operator running. A test may kill it: the next one starts it again."""
    if _site.operator.process is None or _site.operator.process.poll() is not None:
        _site.operator.start()
    _site.operator.wait_ready()
    return _site


def alert(scene: Scene, fingerprint: str = "aa", status: str = "firing", **labels: str) -> Json:
    now = datetime.now(UTC)
    return {
        "status": status,
        "labels": {"alertname": "Broken", "namespace": scene.namespace, **labels},
        "annotations": {"summary": "it is broken"},
        "startsAt": (now - timedelta(minutes=1)).isoformat(),
        "endsAt": now.isoformat() if status == "resolved" else "0001-01-01T00:00:00Z",
        "fingerprint": fingerprint,
    }


def states(incident: Json) -> dict[str, str]:
    return {a["fingerprint"]: a["state"] for a in incident.get("status", {}).get("alerts", [])}


def test_a_rule_that_fires_becomes_an_incident_and_its_end_is_noted(site: Site, scene: Scene, prometheus: Prometheus) -> None:
    scene.apply(deployment("checkout", "registry.example/checkout:1"))
    site.available(scene, "checkout", 1)
    incident = until(lambda: (scene.incidents() or [None])[0], "an Incident of the alert", 30)
    assert incident["spec"]["target"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}
    signal = incident["spec"]["signal"]
    assert signal["name"] == "DeploymentShort"
    assert signal["labels"]["deployment"] == "checkout"
    assert incident["spec"]["title"] == "checkout has too few replicas"
    (fingerprint,) = signal["fingerprints"]
    metrics = PrometheusMetrics(PrometheusSettings(prometheus.url))
    labels = signal["labels"]
    assert asyncio.run(metrics.alert_state(labels, datetime.now(UTC))).firing is True

    site.available(scene, "checkout", 3)
    until(lambda: states(scene.one()) == {fingerprint: "Resolved"}, "the alert's end is noted", 30)
    assert asyncio.run(metrics.alert_state(labels, datetime.now(UTC))).firing is False

    site.series.set_down(True)  # without the exporter the rule finds nothing as well, and that proves nothing
    try:
        until(lambda: not prometheus.query("kube_deployment_created"), "the series are stale", 15)
        assert asyncio.run(metrics.alert_state(labels, datetime.now(UTC))).firing is None
    finally:
        site.series.set_down(False)


def test_pods_of_a_deployment_are_one_incident_also_when_they_are_gone(site: Site, scene: Scene) -> None:
    scene.apply(deployment("checkout", "registry.example/checkout:1", replicas=2))
    scene.kubectl("rollout", "status", "deployment/checkout", "--timeout=60s")
    pods = json.loads(scene.kubectl("get", "pods", "-o", "json"))["items"]
    names = [p["metadata"]["name"] for p in pods]
    assert site.post(*(alert(scene, f"f{n}", pod=name, container="checkout") for n, name in enumerate(names))) == (
        200,
        "alerts taken: 2\n",
    )
    assert scene.one()["spec"]["target"]["kind"] == "Deployment"
    gone = f"{names[0].rpartition('-')[0]}-zzzz2"
    assert site.post(alert(scene, "f9", pod=gone))[0] == 200
    assert states(scene.one())["f9"] == "Firing"


def test_only_a_signaller_may_signal(site: Site, scene: Scene) -> None:
    cluster = site.cluster
    scene.kubectl("create", "serviceaccount", "somebody")
    stranger = f"{scene.namespace}/somebody"
    assert site.post(alert(scene, deployment="web"), token=token_of(cluster, stranger))[0] == 403
    assert site.post(alert(scene, deployment="web"), token=token_of(cluster, f"{NAMESPACE}/nightorders-alertmanager", "other"))[0] == 401
    assert site.post(alert(scene, deployment="web"), token="nonsense")[0] == 401
    assert site.post(alert(scene, deployment="web"), token="")[0] == 401
    assert scene.incidents() == []
    cluster.kubectl(
        "create",
        "clusterrolebinding",
        f"signal-{scene.namespace}",
        "--clusterrole=nightorders-signaller",
        f"--serviceaccount={scene.namespace}:somebody",
    )
    try:
        until(lambda: site.post(alert(scene, deployment="web"), token=token_of(cluster, stranger))[0] == 200, "the right is seen", 20)
    finally:
        cluster.kubectl("delete", "clusterrolebinding", f"signal-{scene.namespace}")
    assert scene.one()["spec"]["target"]["name"] == "web"


def test_the_alerts_token_opens_nothing_else(site: Site, scene: Scene) -> None:
    account = f"--as=system:serviceaccount:{NAMESPACE}:nightorders-alertmanager"
    for verb, what in (
        ("create", "incidents.nightorders.dev"),
        ("get", "pods"),
        ("list", "incidents.nightorders.dev"),
        ("patch", "deployments.apps"),
    ):
        assert scene.kubectl("auth", "can-i", verb, what, account, check=False).strip().splitlines()[0] == "no"


def test_an_alert_delivered_twice_and_to_a_restarted_operator_is_one_incident(site: Site, scene: Scene) -> None:
    assert site.post(alert(scene, deployment="web"))[0] == 200
    name = scene.one()["metadata"]["name"]
    site.operator.kill()
    site.operator.start().wait_ready()
    assert site.post(alert(scene, deployment="web"), alert(scene, "bb", deployment="web", severity="page"))[0] == 200
    assert scene.one()["metadata"]["name"] == name
    assert states(scene.one()) == {"bb": "Firing"}


def test_nodes_and_lost_namespaces_are_kept_by_the_operator(site: Site, scene: Scene) -> None:
    def kept(target: str) -> list[Json]:
        found = json.loads(site.cluster.kubectl("-n", NAMESPACE, "get", "incidents", "-o", "json").stdout)["items"]
        return [i for i in found if "{kind}/{name}".format(**i["spec"]["target"]) == target]

    ksm = {"job": "kube-state-metrics", "pod": "kube-state-metrics-5b6-x", "service": "kube-state-metrics"}
    lost = f"{scene.namespace}-lost"
    try:
        assert site.post(alert(scene, "n1", node="n-7", **ksm), alert(scene, "n2", namespace=lost, deployment="web"))[0] == 200
        assert len(kept("Node/n-7")) == 1
        assert len(kept(f"Namespace/{lost}")) == 1
        code, text = site.post({**alert(scene, "n3"), "labels": {"alertname": "Watchdog"}})
        assert code == 400
        assert "alerts[0].labels: Watchdog names no namespace" in text
    finally:
        site.cluster.kubectl("-n", NAMESPACE, "delete", "incidents", "--all", "--wait=false")


def test_while_the_operator_is_away_alertmanager_comes_again(site: Site, scene: Scene, alertmanager: Alertmanager) -> None:
    labels = {"alertname": "Patient", "namespace": scene.namespace, "deployment": "web"}
    site.operator.kill()  # nobody listens at all
    now = datetime.now(UTC)
    alertmanager.post({"labels": labels, "startsAt": now.isoformat(), "endsAt": (now + timedelta(minutes=10)).isoformat()})
    time.sleep(1.5)
    assert scene.incidents() == []
    site.operator.start().wait_ready()
    incident = until(lambda: (scene.incidents() or [None])[0], "the alert is sent again and kept", 60)
    assert incident["spec"]["signal"]["name"] == "Patient"


def test_people_cannot_write_a_signal(site: Site, scene: Scene) -> None:
    """threats.md 26: an Incident that swallows alerts can only be the operator's."""
    assert site.post(alert(scene, deployment="web"))[0] == 200
    real = scene.one()
    forged = {
        "apiVersion": real["apiVersion"],
        "kind": "Incident",
        "metadata": {"name": real["metadata"]["name"][:-1] + "2", "labels": real["metadata"]["labels"]},
        "spec": {"target": real["spec"]["target"], "signal": real["spec"]["signal"]},
    }
    said = scene.kubectl("create", "-f", "-", stdin=json.dumps(forged), check=False)
    assert "nightorders-incidents" in said


@pytest.mark.parametrize("count", [60])
def test_a_storm_loses_nothing_and_doubles_nothing(site: Site, scene: Scene, count: int) -> None:
    alerts = [alert(scene, f"s{n}", deployment=f"web-{n % 3}", pod=f"web-{n}") for n in range(count)]
    assert site.post(*alerts)[0] == 200
    incidents = scene.incidents()
    assert len(incidents) == 3
    known = [f for i in incidents for f in {*i["spec"]["signal"]["fingerprints"], *states(i)}]
    assert sorted(known) == sorted(f"s{n}" for n in range(count))


def test_the_questions_are_what_prometheus_understands(series: ScriptedMetrics, prometheus: Prometheus) -> None:
    """Against the real evaluator: every query is taken, and the numbers are those of the series."""

    def tick(n: int) -> None:
        for pod, failed in (("web-1", 0), ("web-2", 10)):
            here = {"namespace": "asked", "service": "web", "pod": pod}
            series.set("http_requests_total", {**here, "code": "200"}, 10 * n)
            series.set("http_requests_total", {**here, "code": "500"}, failed * n)
            for le, value in (("0.1", 1), ("1", 9), ("5", 10), ("+Inf", 10)):
                series.set("http_request_duration_seconds_bucket", {**here, "le": le}, value * n)
            series.set("container_memory_working_set_bytes", {"namespace": "asked", "pod": pod, "container": "c"}, 1e6 * n)
        for what, value in (("request", 10), ("request_failed", 2)):
            series.set(f"traces_service_graph_{what}_total", {"namespace": "asked", "client": "portal", "server": "web"}, value * n)
        for what, free in (("bytes", 5), ("inodes", 50)):
            claim = {"namespace": "asked", "persistentvolumeclaim": "data"}
            series.set("kubelet_volume_stats_available_bytes" if what == "bytes" else "kubelet_volume_stats_inodes_free", claim, free)
            series.set("kubelet_volume_stats_capacity_bytes" if what == "bytes" else "kubelet_volume_stats_inodes", claim, 100)
        series.set("orders_queue_depth", {"namespace": "asked"}, 42)
        series.set("db_pool_connections", {"namespace": "asked", "state": "active"}, 19)
        series.set("db_pool_connections", {"namespace": "asked", "state": "max"}, 20)
        series.set("other_total", {"namespace": "elsewhere"}, n)

    for n in range(1, 5):
        tick(n)
        time.sleep(0.7)
    began = time.monotonic()
    got = asyncio.run(ask_metrics(PrometheusMetrics(PrometheusSettings(prometheus.url)), "asked", datetime.now(UTC)))
    assert time.monotonic() - began < 3
    assert {name: v.because for name, v in got.items() if v.because} == {}

    def value(name: str, chosen: Callable[[dict[str, str]], bool] = lambda labels: True) -> float:
        (found,) = [p.value for p in got[name].points if chosen(dict(p.labels))]
        return found

    assert value("error_ratio_by_pod", lambda labels: labels == {"pod": "web-1"}) == 0
    assert value("error_ratio_by_pod", lambda labels: labels == {"pod": "web-2"}) == pytest.approx(0.5, abs=0.05)
    assert value("error_ratio_by_service") == pytest.approx(1 / 3, abs=0.05)
    assert value("latency_by_service") > 1
    assert value("calls", lambda labels: labels == {"client": "portal", "server": "web"}) > 0
    assert value("call_error_ratio") == pytest.approx(0.2, abs=0.05)
    assert value("memory_growth_by_pod", lambda labels: labels["pod"] == "web-1") > 0
    assert value("pvc_free_ratio") == pytest.approx(0.05)
    assert value("queue_depth") == 42
    assert value("pool_usage") == pytest.approx(0.95)
    assert got["cpu_by_pod"].points == ()
    assert "elsewhere" not in {p.labels.get("namespace") for p in got["series"].points}
