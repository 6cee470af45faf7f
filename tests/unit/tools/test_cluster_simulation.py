"""What simulated kubelets say and do, as far as it is decided without a cluster."""

from __future__ import annotations

import datetime
import json
import queue
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tools.cluster import behaviour, prometheus, references, stages
from tools.cluster.references import Objects, Simulator
from tools.cluster.rest import Api, ApiError

Object = dict[str, Any]


# ---------------------------------------------------------------- references


def pod(**spec: Any) -> Object:
    return {
        "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1"},
        "spec": {"nodeName": "node-0", "containers": [{"name": "web", "image": "i"}], **spec},
        "status": {"phase": "Pending"},
    }


def variable(kind: str, name: str, key: str, **more: Any) -> Object:
    return {"name": "V", "valueFrom": {f"{kind}KeyRef": {"name": name, "key": key, **more}}}


def container(name: str, *env: Object, **more: Any) -> Object:
    return {"name": name, "image": "i", "env": list(env), **more}


class FakeApi(Api):
    """ConfigMaps and Secrets by path, and what was written."""

    def __init__(self, objects: dict[str, Object]) -> None:
        self.objects = objects
        self.written: list[tuple[str, str, Any]] = []

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Object:
        if method != "GET":
            self.written.append((method, path, body))
            return {}
        if path.startswith("/api/v1/nodes/"):
            return {"metadata": {"annotations": {stages.NODE_ANNOTATION: "fake"}}}
        if path not in self.objects:
            raise ApiError(404, b"{}", path)
        return self.objects[path]


def said(found: Object, **objects: Object) -> list[tuple[str, str]]:
    """(container or volume, message) of each problem; the objects are named like configmaps_NAME."""
    at = {}
    for name, content in objects.items():
        resource, _, short = name.partition("_")
        at[f"/api/v1/namespaces/shop/{resource}/{short}"] = content
    return [(p.reference.user, p.message) for p in references.problems(found, Objects(FakeApi(at)))]


def test_a_pod_without_references_has_no_problems() -> None:
    optional = pod(
        containers=[
            container("web", variable("configMap", "c", "k", optional=True), {"name": "P", "value": "1"}),
            container("b", envFrom=[{"secretRef": {"name": "s", "optional": True}}]),
        ],
        volumes=[
            {"name": "a", "configMap": {"name": "c", "optional": True}},
            {"name": "e", "emptyDir": {}},
            {
                "name": "kube-api-access-1",
                "projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}, {"serviceAccountToken": {}}]},
            },
        ],
    )
    assert references.references(optional) == []
    assert not references.needs_care(optional)


def test_missing_objects_and_keys_are_worded_as_a_kubelet_does() -> None:
    found = pod(
        containers=[
            container("a", variable("configMap", "c", "k")),
            container("b", variable("secret", "s", "k")),
            container("c", envFrom=[{"configMapRef": {"name": "c"}}]),
            container("d", envFrom=[{"secretRef": {"name": "s"}}]),
        ]
    )
    assert said(found) == [
        ("a", 'configmap "c" not found'),
        ("b", 'secret "s" not found'),
        ("c", 'configmap "c" not found'),
        ("d", 'secret "s" not found'),
    ]
    assert said(found, configmaps_c={"data": {"x": "1"}}, secrets_s={}) == [
        ("a", "couldn't find key k in ConfigMap shop/c"),
        ("b", "couldn't find key k in Secret shop/s"),
    ]
    assert said(found, configmaps_c={"binaryData": {"k": "1"}}, secrets_s={"data": {"k": "1"}}) == []


def test_volumes_come_before_containers_and_say_what_is_missing() -> None:
    found = pod(
        containers=[container("web", variable("configMap", "other", "k"))],
        volumes=[
            {"name": "v", "configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}},
            {"name": "s", "secret": {"secretName": "s", "items": [{"key": "k", "path": "p"}]}},
            {"name": "p", "projected": {"sources": [{"secret": {"name": "s"}}]}},
        ],
    )
    assert said(found) == [
        ("v", 'configmap "c" not found'),
        ("s", 'secret "s" not found'),
        ("p", 'secret "s" not found'),
    ]
    assert said(found, configmaps_c={}, secrets_s={}) == [
        ("v", "configmap references non-existent config key: k"),
        ("s", "references non-existent secret key: k"),
    ]
    full = {"data": {"k": "1"}}
    assert said(found, configmaps_c=full, secrets_s=full) == [("web", 'configmap "other" not found')]


def test_only_the_first_init_container_is_tried() -> None:
    found = pod(
        initContainers=[
            container("i1", variable("secret", "s", "k")),
            container("i2", variable("configMap", "c", "k")),
        ],
        containers=[container("web", variable("configMap", "c", "k"))],
    )
    assert said(found) == [("i1", 'secret "s" not found')]


def states(status: Object, field: str = "containerStatuses") -> dict[str, str]:
    return {entry["name"]: next(iter(entry["state"].values())).get("reason", "running") for entry in status.get(field, [])}


def conditions(status: Object) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in status["conditions"]}


def test_a_container_waits_while_the_others_run() -> None:
    found = pod(containers=[container("a", variable("configMap", "c", "k")), container("b")])
    status = references.waiting_status(found, references.problems(found, Objects(FakeApi({}))), "now")
    assert states(status) == {"a": "CreateContainerConfigError", "b": "running"}
    assert status["phase"] == "Pending"
    assert status["startTime"] == "now"
    assert conditions(status) == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "False",
        "ContainersReady": "False",
    }
    assert status["conditions"][2]["message"] == "containers with unready status: [a]"


def test_nothing_starts_before_its_volumes() -> None:
    found = pod(volumes=[{"name": "v", "secret": {"secretName": "s"}}], initContainers=[container("i")])
    status = references.waiting_status(found, references.problems(found, Objects(FakeApi({}))), "now")
    assert states(status) == {"web": "PodInitializing"}
    assert states(status, "initContainerStatuses") == {"i": "PodInitializing"}
    assert conditions(status)["PodReadyToStartContainers"] == "False"
    assert conditions(status)["Initialized"] == "False"


def test_transition_times_stay_while_nothing_changes() -> None:
    found = pod(volumes=[{"name": "v", "secret": {"secretName": "s"}}])
    problems = references.problems(found, Objects(FakeApi({})))
    found["status"] = references.waiting_status(found, problems, "then")
    again = references.waiting_status(found, problems, "now")
    assert {condition["lastTransitionTime"] for condition in again["conditions"]} == {"then"}


def test_the_simulator_writes_once_and_lets_go() -> None:
    api = FakeApi({})
    simulator = Simulator(api)
    found = pod(containers=[container("web", variable("configMap", "c", "k"))])
    simulator.note({"type": "ADDED", "object": found})
    simulator.check()
    simulator.check()  # nothing new to say yet
    (_, path, patch), (_, events, event) = api.written
    assert path == "/api/v1/namespaces/shop/pods/web-1/status"
    assert patch["metadata"]["uid"] == "u1"
    assert states(patch["status"]) == {"web": "CreateContainerConfigError"}
    assert events == "/api/v1/namespaces/shop/events"
    assert (event["reason"], event["message"]) == ("Failed", 'Error: configmap "c" not found')
    assert event["involvedObject"]["fieldPath"] == "spec.containers{web}"
    assert event["source"]["component"] == "kubelet"

    api.written.clear()
    api.objects["/api/v1/namespaces/shop/configmaps/c"] = {"data": {"k": "v"}}
    simulator.check()
    ((_, _, patch),) = api.written
    assert conditions(patch["status"]) == {stages.REFERENCES_PRESENT: "True"}
    assert simulator.waiting == {}


@pytest.mark.parametrize(
    "change",
    [
        {"status": {"phase": "Running"}},
        {"status": {"phase": "Pending", "conditions": [{"type": stages.REFERENCES_PRESENT, "status": "True"}]}},
        {"metadata": {"name": "web-1", "namespace": "shop", "uid": "u1", "deletionTimestamp": "now"}},
    ],
)
def test_pods_that_run_or_end_are_let_be(change: Object) -> None:
    waiting = pod(containers=[container("web", variable("configMap", "c", "k"))])
    simulator = Simulator(FakeApi({}))
    simulator.note({"type": "ADDED", "object": waiting})
    simulator.note({"type": "MODIFIED", "object": {**waiting, **change}})
    assert simulator.waiting == {}


def test_pods_that_a_new_list_does_not_show_are_forgotten() -> None:
    simulator = Simulator(FakeApi({}))
    waiting = pod(containers=[container("web", variable("configMap", "c", "k"))])
    simulator.note({"type": "LIST", "items": [waiting]})
    assert list(simulator.waiting) == ["u1"]
    simulator.note({"type": "LIST", "items": []})
    assert simulator.waiting == {}


def test_an_api_server_that_is_down_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    class Down(FakeApi):
        def request(self, *arguments: Any, **more: Any) -> Object:
            raise ConnectionRefusedError("down")

    simulator = Simulator(Down({}))
    simulator.note({"type": "ADDED", "object": pod(containers=[container("web", variable("secret", "s", "k"))])})
    simulator.check()
    assert len(simulator.waiting) == 1
    assert "down" in capsys.readouterr().err
    assert queue.Queue[Object]().empty()


# ---------------------------------------------------------------- behaviours and stages


def all_behaviours(namespace: str, image: str) -> list[list[Object]]:
    return [
        behaviour.image_missing(namespace, image),
        behaviour.exits(namespace, image),
        behaviour.never_ready(namespace, image),
        behaviour.slow_start(namespace, image, 2),
    ]


def test_stages_have_names_of_their_own_and_win_over_the_default() -> None:
    found = [
        stage
        for namespace, image in (("a", "x:1"), ("a", "x:2"), ("b", "x:1"), ("n" * 63, "x:1"))
        for behaviour_stages in all_behaviours(namespace, image)
        for stage in behaviour_stages
    ]
    names = [stage["metadata"]["name"] for stage in found]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]{1,253}", name) for name in names)
    assert all(stage["spec"]["weight"] > 0 for stage in found)


def test_stages_hold_for_one_namespace_and_image() -> None:
    for found in all_behaviours("shop", "registry.example/web:1"):
        for stage in found:
            conditions = {e["key"]: e.get("values") for e in stage["spec"]["selector"]["matchExpressions"]}
            assert conditions[".metadata.namespace"] == ["shop"]
            assert conditions[".spec.containers[].image"] == ["registry.example/web:1"]
            assert conditions[stages.MAY_START] == ["true"]


def test_only_pod_ready_is_replaced() -> None:
    shipped = [{"metadata": {"name": "pod-ready"}, "spec": {}}, {"metadata": {"name": "pod-delete"}, "spec": {}}]
    ready, delete = stages.defaults(shipped)
    assert ready["spec"]["selector"]["matchExpressions"][-1]["key"] == stages.MAY_START
    assert delete is shipped[1]


def test_texts_are_safe_in_templates() -> None:
    assert stages.go('a "b" \\ ü') == '"a \\"b\\" \\\\ ü"'


@pytest.mark.parametrize(
    ("image", "canonical"),
    [
        ("web", "docker.io/library/web:latest"),
        ("web:1", "docker.io/library/web:1"),
        ("me/web:1", "docker.io/me/web:1"),
        ("registry.example/web", "registry.example/web:latest"),
        ("localhost/web:1", "localhost/web:1"),
        ("registry:5000/web:1", "registry:5000/web:1"),
        ("registry:5000/web", "registry:5000/web:latest"),
        ("web@sha256:0123", "docker.io/library/web@sha256:0123"),
    ],
)
def test_images_are_named_as_containerd_names_them(image: str, canonical: str) -> None:
    assert behaviour.canonical_image(image) == canonical


def test_logs_are_written_as_runtimes_write_them(tmp_path: Path) -> None:
    (found,) = behaviour.logs("shop", "web-1", "web", ["one", "two"], ["before"], directory=tmp_path)
    assert (found["kind"], found["metadata"]) == ("Logs", {"name": "web-1", "namespace": "shop"})
    (entry,) = found["spec"]["logs"]
    lines = Path(entry["logsFile"]).read_text().splitlines()
    assert [line.split(" ", 3)[1:] for line in lines] == [["stdout", "F", "one"], ["stdout", "F", "two"]]
    times = [line.split(" ")[0] for line in lines]
    assert times == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", time) for time in times)
    assert "before" in Path(entry["previousLogsFile"]).read_text()

    (for_all,) = behaviour.logs("shop", None, "web", [])
    assert for_all["kind"] == "ClusterLogs"
    assert for_all["spec"]["selector"] == {"matchNamespaces": ["shop"]}
    at = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    assert behaviour.log_line("text", at) == "2026-01-02T03:04:05.000000000Z stdout F text\n"


# ---------------------------------------------------------------- metrics


def test_the_exporter_shows_what_was_set() -> None:
    with prometheus.ScriptedMetrics() as metrics:
        metrics.set("errors", {"namespace": "shop", "path": 'a"b\\c\nd'}, 3)
        metrics.set("errors", {"namespace": "other"}, 1.5)
        metrics.set("up_since", {}, float("nan"))
        metrics.set("limit", {}, float("inf"))
        with urllib.request.urlopen(f"http://{metrics.address}/metrics") as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert response.read().decode().splitlines() == [
                r'errors{namespace="shop",path="a\"b\\c\nd"} 3.0',
                'errors{namespace="other"} 1.5',
                "up_since NaN",
                "limit +Inf",
            ]
        metrics.remove("errors", {"namespace": "shop", "path": 'a"b\\c\nd'})
        metrics.remove("limit")
        metrics.remove("never there")
        metrics.remove("never there", {"a": "b"})
        assert metrics.text() == 'errors{namespace="other"} 1.5\nup_since NaN\n'
        metrics.set_down(True)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{metrics.address}/metrics")
        assert refused.value.code == 503
        refused.value.close()


def test_prometheus_scrapes_as_often_as_asked() -> None:
    found = json.loads(json.dumps(prometheus.configuration(["127.0.0.1:1"], 0.25)))
    assert found["global"]["scrape_interval"] == "250ms"
    assert found["scrape_configs"][0]["static_configs"] == [{"targets": ["127.0.0.1:1"]}]
