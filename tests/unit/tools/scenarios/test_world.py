"""What keeps runs apart: isolation, simulator objects of a run's own, logs, snapshots, variants."""

from __future__ import annotations

import datetime
import random
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.unit.tools.scenarios.builders import APP, DOCUMENT, Json, changed, folder
from tools.scenarios import logs, snapshots
from tools.scenarios.isolation import alone_because
from tools.scenarios.load import load
from tools.scenarios.snapshots import Snapshot
from tools.scenarios.steps import Stage
from tools.scenarios.variants import Variant, rename, renamer, reorder, tenfold, variants
from tools.scenarios.world import Gate

STAGE: Json = {
    "apiVersion": "kwok.x-k8s.io/v1alpha1",
    "kind": "Stage",
    "metadata": {"name": "waits"},
    "spec": {"resourceRef": {"apiGroup": "v1", "kind": "Pod"}, "selector": {"matchExpressions": [{"key": ".x", "operator": "Exists"}]}},
}


# ---------------------------------------------------------------- alone or beside


@pytest.mark.parametrize(
    ("fields", "because"),
    [
        ({}, ""),
        ({"cluster": ["app.yaml"]}, "cluster: manifests"),
        ({"steps": [{"run": ["kubectl", "cordon", "n1"]}]}, "a step runs kubectl cordon n1"),
        ({"steps": [{"run": ["kubectl", "label", "node/n1", "a=b"]}]}, "a step runs"),
        ({"steps": [{"run": ["kubectl", "annotate", "deployment/node-exporter", "a=b"]}]}, ""),
        ({"steps": [{"delete": "Node/n1"}]}, "a step changes Node/n1"),
        ({"steps": [{"delete": "ConfigMap/kube-system/coredns"}]}, "a step changes ConfigMap/kube-system/coredns"),
        ({"signal": {"labels": {"alertname": "KubeNodeNotReady", "node": "n1"}}}, "its alert is about something of cluster scope"),
    ],
)
def test_who_touches_what_others_share_runs_alone(tmp_path: Path, fields: dict[str, Any], because: str) -> None:
    found = alone_because(load(folder(tmp_path, changed(**fields))))
    assert found.startswith(because)
    assert bool(found) == bool(because)


def test_manifests_are_looked_at_too(tmp_path: Path) -> None:
    role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: x}"
    assert "ClusterRole/x is cluster-scoped" in alone_because(load(folder(tmp_path, None, app_yaml=role)))
    other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: elsewhere}"
    assert "in namespace elsewhere" in alone_because(load(folder(tmp_path, None, app_yaml=other)))
    assert alone_because(load(folder(tmp_path, None, app_yaml=yaml.safe_dump(STAGE)))) == ""
    nodes = {**STAGE, "spec": {**STAGE["spec"], "resourceRef": {"kind": "Node"}}}
    assert "rules nodes" in alone_because(load(folder(tmp_path, None, app_yaml=yaml.safe_dump(nodes))))


def test_one_alone_waits_for_all_and_is_not_overtaken() -> None:
    gate, order = Gate(), []
    inside = threading.Event()

    def beside(name: str, hold: float) -> None:
        with gate.beside():
            inside.set()
            order.append(f"{name} in")
            time.sleep(hold)
            order.append(f"{name} out")

    def alone() -> None:
        with gate.alone():
            order.append("alone in")
            time.sleep(0.05)
            order.append("alone out")

    first = threading.Thread(target=beside, args=("a", 0.2))
    first.start()
    inside.wait(5)
    second = threading.Thread(target=alone)
    second.start()
    time.sleep(0.05)
    third = threading.Thread(target=beside, args=("b", 0))
    third.start()
    for thread in (first, second, third):
        thread.join(5)
    assert order == ["a in", "a out", "alone in", "alone out", "b in", "b out"]


# ---------------------------------------------------------------- simulator objects


def stage_of(tmp_path: Path, suffix: str) -> Stage:
    scenario = load(folder(tmp_path), namespace="parcels-r1")
    return Stage(cast(Any, None), cast(Any, None), Path("user"), scenario, suffix)


def test_a_stage_rules_the_pods_of_its_run_only(tmp_path: Path) -> None:
    mine = stage_of(tmp_path, "r1").own(STAGE)
    assert mine["metadata"]["name"] == "waits-r1"
    first = mine["spec"]["selector"]["matchExpressions"][0]
    assert (first["key"], first["values"]) == (".metadata.namespace", ["parcels-r1"])
    assert "namespace" not in str(STAGE["spec"])  # the scenario's own object is as it was


def test_a_stage_that_names_its_namespace_is_left_alone(tmp_path: Path) -> None:
    expressions = [{"key": ".metadata.namespace", "operator": "In", "values": ["parcels-r1"]}]
    said = {**STAGE, "spec": {**STAGE["spec"], "selector": {"matchExpressions": expressions}}}
    mine = stage_of(tmp_path, "").own(said)
    assert mine["spec"]["selector"]["matchExpressions"] == expressions
    assert mine["metadata"]["name"] == "waits"


def test_logs_of_a_pod_belong_to_the_namespace(tmp_path: Path) -> None:
    one = {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "Logs", "metadata": {"name": "web-0"}, "spec": {}}
    assert stage_of(tmp_path, "r1").own(one)["metadata"] == {"namespace": "parcels-r1", "name": "web-0"}


# ---------------------------------------------------------------- logs


def test_the_newest_line_of_all_logs_is_now(tmp_path: Path) -> None:
    source = folder(tmp_path)
    (source / "logs").mkdir()
    (source / "logs" / "now.log").write_text("2026-01-01T00:00:10Z stdout F last\n")
    (source / "logs" / "before.log").write_text("2026-01-01T00:00:01.5Z stderr F first\n2026-01-01T02:00:04+02:00 stdout P more \n")
    (source / "logs" / "notes.txt").write_text("no log at all\n")
    copy = logs.copy_folder(source, tmp_path / "copy", lambda text: text.replace("last", "end"))
    at = datetime.datetime(2030, 5, 5, 12, 0, 0, tzinfo=datetime.UTC)
    logs.shift(copy, at)
    assert (copy / "logs" / "now.log").read_text() == "2030-05-05T12:00:00.000000000Z stdout F end\n"
    assert (copy / "logs" / "before.log").read_text() == (
        "2030-05-05T11:59:51.500000000Z stderr F first\n2030-05-05T11:59:54.000000000Z stdout P more \n"
    )
    assert (copy / "logs" / "notes.txt").read_text() == "no log at all\n"
    assert (source / "logs" / "now.log").read_text().startswith("2026-01-01")  # the original stays


# ---------------------------------------------------------------- snapshots


def one(kind: str, name: str, owner: tuple[str, str] | None = None, uid: str = "u", **more: Any) -> Json:
    references = [{"kind": owner[0], "name": owner[1], "controller": True}] if owner else []
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "uid": uid, "ownerReferences": references}, **more}


def snapshot(*objects: Json) -> Snapshot:
    return Snapshot({(o["kind"], "shop", o["metadata"]["name"]): o for o in objects})


def test_a_pod_belongs_to_its_root_owner() -> None:
    world = snapshot(
        one("Deployment", "web"), one("ReplicaSet", "web-1", ("Deployment", "web")), one("Pod", "web-1-a", ("ReplicaSet", "web-1"))
    )
    assert world.root_owner("shop", "web-1-a") == "Deployment/web"
    assert world.root_owner("shop", "gone") is None


def test_what_was_lost_by_the_operator() -> None:
    before = snapshot(
        one("Deployment", "web", spec={"replicas": 3}),
        one("ReplicaSet", "web-1", ("Deployment", "web"), spec={"replicas": 3}),
        one("ConfigMap", "a"),
        one("ConfigMap", "b"),
        one("ConfigMap", "c"),
        one("Pod", "p", ("ReplicaSet", "web-1")),
    )
    after = snapshot(
        one("Deployment", "web", spec={"replicas": 0}),
        one("ReplicaSet", "web-1", ("Deployment", "web"), spec={"replicas": 0}),
        one("ConfigMap", "c", uid="new"),
    )
    found = snapshots.losses(before, after, [("ConfigMap", "shop", "b")], lambda key: key[2] != "nobody")
    assert found == ["Deployment/web was scaled to zero", "ConfigMap/a was deleted", "ConfigMap/c was deleted"]
    assert snapshots.losses(before, after, [], lambda key: False) == ["Deployment/web was scaled to zero"]


def test_changed_fields_leave_bookkeeping_out() -> None:
    before = one("ConfigMap", "a", data={"PORT": "1", "HOST": "x"}, status={"x": 1})
    after = one("ConfigMap", "a", uid="other", data={"PORT": "2"}, status={"x": 2})
    after["metadata"]["labels"] = {"nightorders.dev/execution": "e1", "team": "a"}
    assert snapshots.changed_fields(before, after) == ["data.HOST", "data.PORT", "metadata.labels.team"]


@pytest.mark.parametrize(
    ("path", "allowed", "ok"),
    [
        ("data.PORT", ["data.PORT"], True),
        ("data.PORT_OLD", ["data.PORT"], False),
        ("spec.template.spec.containers[0].image", ["spec.template"], True),
        ("spec.template.spec.containers[1].image", ["spec.template.spec.containers[0]"], False),
        ("spec.replicas", [], False),
    ],
)
def test_only_these_fields(path: str, allowed: list[str], ok: bool) -> None:
    assert snapshots.allowed_field(path, allowed) is ok


# ---------------------------------------------------------------- variants


def test_names_change_everywhere_but_in_words_and_files(tmp_path: Path) -> None:
    names = rename(load(folder(tmp_path)), random.Random(1))
    assert list(names) == ["labeler"]
    said = renamer(names)
    new = names["labeler"]
    assert said("image: registry.example/labeler:1") == f"image: registry.example/{new}:1"
    assert said("db labeler-0 labeler-config") == f"db {new}-0 labeler-config"
    assert said("file labeler.yaml") == "file labeler.yaml"
    assert said("id: labeler") == "id: labeler"
    assert Variant("x", said, names).original(f"BadRelease Deployment/{new} A") == "BadRelease Deployment/labeler A"


def test_a_renamed_scenario_still_loads(tmp_path: Path) -> None:
    found = next(variants(load(folder(tmp_path)), 1, seed=3))
    again = load(tmp_path / DOCUMENT["id"], rewrite=found.rewrite)
    assert again.document.expect.may_mutate[0] == f"Deployment/{found.renamed['labeler']}"
    assert again.objects("app.yaml")[0]["metadata"]["name"] == found.renamed["labeler"]


def test_another_order_is_the_same_content() -> None:
    text = yaml.safe_dump_all([{**APP, "metadata": {"name": str(n), "labels": {"a": "1", "b": "2"}}} for n in range(6)])
    again = reorder(text, random.Random(2))
    assert again != text
    assert sorted(map(str, (d["metadata"]["name"] for d in yaml.safe_load_all(again)))) == [str(n) for n in range(6)]
    assert reorder("id: x\nkind: fault\n", random.Random(2)) == "id: x\nkind: fault\n"


def test_ten_times_the_replicas() -> None:
    assert yaml.safe_load(tenfold(yaml.safe_dump(APP)))["spec"]["replicas"] == 30
    document = changed(steps=[{"run": ["kubectl", "scale", "deployment/labeler", "--replicas=4"]}])
    found = yaml.safe_load(tenfold(yaml.safe_dump(document)))
    assert found["steps"][0]["run"][-1] == "--replicas=40"
    assert found["expect"]["repaired"][0]["equals"] == "30"
    assert found["ready"] == document["ready"]


def test_four_kinds_of_variants(tmp_path: Path) -> None:
    names = [v.name for v in variants(load(folder(tmp_path)), 6, seed=1)]
    assert names == ["renamed", "reordered", "later", "tenfold", "renamed-2", "reordered-2"]
