"""What the chart makes: by default the same as kubectl installs, and with a value what the value says. Needs Helm, but no cluster."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import CHART, NAMESPACE, ROOT, Helm, Json, Key, keyed
from tools import chart

pytestmark = pytest.mark.cluster
KEEP = "helm.sh/resource-policy"
DIGEST = "@sha256:" + "0" * 64
DEPLOYMENT: Key = ("Deployment", NAMESPACE, "nightorders")
READER: Key = ("ClusterRoleBinding", "", "nightorders-reader")
LOGS: Key = ("ClusterRoleBinding", "", "nightorders-reader-logs")
ROLE: Key = ("ClusterRole", "", "nightorders-action-rollbackworkload")
EVERYWHERE: Key = ("ClusterRoleBinding", "", "nightorders-action-rollbackworkload")
ROLLBACK = "actions.rollbackWorkload"


@pytest.fixture(scope="module")
def plain(helm: Helm) -> dict[Key, Json]:
    """The chart without values."""
    return helm.objects()


def test_lint(helm: Helm) -> None:
    said = helm("lint", "--strict", "--namespace", NAMESPACE, str(CHART)).stdout
    assert "1 chart(s) linted, 0 chart(s) failed" in said
    assert "[WARNING]" not in said


def without_keep(obj: Json) -> Json:
    """The object without Helm's own annotation."""
    made = deepcopy(obj)
    annotations = made["metadata"].get("annotations", {})
    annotations.pop(KEEP, None)
    if not annotations:
        made["metadata"].pop("annotations", None)
    return made


def test_by_default_it_is_what_kubectl_installs(plain: dict[Key, Json], installed_by_kubectl: str) -> None:
    wanted = keyed(installed_by_kubectl)
    before = keyed((CHART / "namespace.yaml").read_text())  # the README has it applied first
    assert list(before) == [("Namespace", "", NAMESPACE)]
    made = {**before, **plain}
    assert sorted(made) == sorted(wanted)
    for key, obj in wanted.items():
        assert without_keep(made[key]) == obj, key


def test_admission_is_the_shipped_one_to_the_byte(plain: dict[Key, Json]) -> None:
    shipped = keyed("\n---\n".join(p.read_text() for p in (ROOT / "manifests/admission").glob("[!k]*.yaml")))
    made = {key: obj for key, obj in plain.items() if key[0].startswith("ValidatingAdmission")}
    assert made.keys() == shipped.keys()
    for key, obj in shipped.items():
        assert json.dumps(made[key]["spec"]) == json.dumps(obj["spec"]), key


def test_records_and_their_guards_stay_and_nothing_else_does(plain: dict[Key, Json]) -> None:
    kept = {key for key, obj in plain.items() if obj["metadata"].get("annotations", {}).get(KEEP) == "keep"}
    assert {kind for kind, _, _ in kept} == {
        "CustomResourceDefinition",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
    assert kept == {key for key in plain if key[0] in {kind for kind, _, _ in kept}}


def test_text_that_looks_like_a_template_comes_out_as_it_was(helm: Helm, tmp_path: Path) -> None:
    nasty = "{{ .Values.x }} {{- end }} {{/* no */}} {{{ }}} {{`raw`}} {{\"{{\"}} a: {'b': {}}"
    source = f"kind: ConfigMap\nmetadata:\n  name: x\ndata:\n  text: >-\n    {nasty}\n"
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: x\nversion: 0.0.1\n")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/x.yaml").write_text(chart.wrap(chart.escape(source), "a test"))
    (made,) = [d for d in yaml.safe_load_all(helm("template", str(tmp_path)).stdout) if d]
    assert made == yaml.safe_load(source)


# ---------------------------------------------------------------- values that are obeyed


def pod(objects: dict[Key, Json]) -> Json:
    found: Json = objects[DEPLOYMENT]["spec"]["template"]["spec"]
    return found


def container(objects: dict[Key, Json]) -> Json:
    found: Json = pod(objects)["containers"][0]
    return found


def environment(objects: dict[Key, Json]) -> dict[str, str]:
    """what differs by value; where the mounted Secrets are, and the port for alerts, stand in every installation."""
    found = {e["name"]: e["value"] for e in container(objects)["env"] if "value" in e}
    assert found.pop("NIGHTORDERS_AUDIT_KEY_FILE") == "/etc/nightorders/audit/key.pem"
    assert found.pop("NIGHTORDERS_CHANNELS_DIR") == "/etc/nightorders/channels"
    assert found.pop("NIGHTORDERS_WEBHOOK_PORT") == "8082"
    return found


def bound_in(objects: dict[Key, Json]) -> list[str]:
    return sorted(namespace for kind, namespace, name in objects if kind == "RoleBinding" and name == EVERYWHERE[2])


VERSION = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
# value → [(flags, what to look at, what it must be)]
OBEYED: dict[str, list[tuple[list[str], Any, Any]]] = {
    "image.repository": [
        (["image.repository=r.example:5000/team/no"], lambda o: container(o)["image"], f"r.example:5000/team/no:{VERSION}"),
    ],
    "image.tag": [
        (["image.tag=1.2.3"], lambda o: container(o)["image"], "nightorders:1.2.3"),
        ([f"image.tag=1.2.3{DIGEST}"], lambda o: container(o)["image"], f"nightorders:1.2.3{DIGEST}"),
        ([f"image.tag={DIGEST}"], lambda o: container(o)["image"], f"nightorders{DIGEST}"),
    ],
    "image.pullPolicy": [(["image.pullPolicy=Always"], lambda o: container(o)["imagePullPolicy"], "Always")],
    "image.pullSecrets": [(["image.pullSecrets={a,b.c}"], lambda o: pod(o)["imagePullSecrets"], [{"name": "a"}, {"name": "b.c"}])],
    "replicas": [
        (["replicas=3"], lambda o: o[DEPLOYMENT]["spec"]["replicas"], 3),
        (["replicas=0"], lambda o: o[DEPLOYMENT]["spec"]["replicas"], 0),
    ],
    "resources": [
        (
            ["resources.limits.memory=1Gi", "resources.requests.cpu=2"],
            lambda o: container(o)["resources"],
            {"limits": {"memory": "1Gi"}, "requests": {"cpu": 2, "memory": "128Mi"}},
        ),
        (["resources=null"], lambda o: "resources" in container(o), False),
    ],
    "nodeSelector": [(["nodeSelector.disk=ssd"], lambda o: pod(o)["nodeSelector"], {"disk": "ssd"})],
    "tolerations": [
        (
            ["tolerations[0].key=a", "tolerations[0].operator=Exists"],
            lambda o: pod(o)["tolerations"],
            [{"key": "a", "operator": "Exists"}],
        )
    ],
    "affinity": [(["affinity.nodeAffinity.x=y"], lambda o: pod(o)["affinity"], {"nodeAffinity": {"x": "y"}})],
    "prometheus.url": [
        (["prometheus.url=http://p.m:9090"], lambda o: environment(o), {"NIGHTORDERS_PROMETHEUS_URL": "http://p.m:9090"}),
    ],
    "detect": [(["detect=false"], lambda o: environment(o), {"NIGHTORDERS_DETECT": "false"})],
    "reader.enabled": [(["reader.enabled=false"], lambda o: [k for k in (READER, LOGS) if k in o], [])],
    "reader.logs": [(["reader.logs=false"], lambda o: [k for k in (READER, LOGS) if k in o], [READER])],
    f"{ROLLBACK}.enabled": [
        ([f"{ROLLBACK}.enabled=true"], lambda o: (ROLE in o, EVERYWHERE in o, bound_in(o)), (True, False, [])),
    ],
    f"{ROLLBACK}.clusterWide": [
        (
            [f"{ROLLBACK}.enabled=true", f"{ROLLBACK}.clusterWide=true"],
            lambda o: (ROLE in o, EVERYWHERE in o, bound_in(o)),
            (True, True, []),
        )
    ],
    f"{ROLLBACK}.namespaces": [
        (
            [f"{ROLLBACK}.enabled=true", f"{ROLLBACK}.namespaces={{shop,pay}}"],
            lambda o: (ROLE in o, EVERYWHERE in o, bound_in(o)),
            (True, False, ["pay", "shop"]),
        )
    ],
}


def test_every_value_is_tried() -> None:
    assert list(OBEYED) == [row.path for row in chart.rows((CHART / "values.yaml").read_text())]


@pytest.mark.parametrize("value", OBEYED)
def test_values_are_obeyed_and_change_nothing_else(helm: Helm, plain: dict[Key, Json], value: str) -> None:
    for flags, look, wanted in OBEYED[value]:
        made = helm.objects(*(f"--set={flag}" for flag in flags))
        assert look(made) == wanted, flags
        changed = {k for k in {*plain, *made} if plain.get(k) != made.get(k)}
        assert changed, f"{flags} is a value that does nothing"
        about_rights = value.startswith(("reader", "actions"))
        assert DEPLOYMENT not in changed if about_rights else changed == {DEPLOYMENT}, (flags, changed)


def test_the_actions_objects_are_those_of_the_manifests(helm: Helm) -> None:
    folder = ROOT / "manifests/actions"
    everywhere = helm.objects(f"--set={ROLLBACK}.enabled=true", f"--set={ROLLBACK}.clusterWide=true")
    assert everywhere[ROLE] == yaml.safe_load((folder / "rollback-workload/clusterrole.yaml").read_text())
    assert everywhere[EVERYWHERE] == yaml.safe_load((folder / "rollback-workload-everywhere/clusterrolebinding.yaml").read_text())
    example = yaml.safe_load((folder / "rollback-workload/rolebinding.example.yaml").read_text())
    example["metadata"]["namespace"] = "shop"
    made = helm.objects(f"--set={ROLLBACK}.enabled=true", f"--set={ROLLBACK}.namespaces={{shop}}")
    assert made["RoleBinding", "shop", "nightorders-action-rollbackworkload"] == example


# ---------------------------------------------------------------- values that are refused

REFUSED = {
    "replica=1": "'replica'",
    "replicas=two": "/replicas",
    "replicas=-1": "/replicas",
    "replicas=null": "'replicas'",
    "image.tga=1": "'tga'",
    "image.tag=1": "/image/tag",
    "image.tag=a b": "/image/tag",
    "image.repository=": "/image/repository",
    "image.repository=nightorders:0.1.0": "/image/repository",
    "image.pullPolicy=Sometimes": "/image/pullPolicy",
    "image.pullSecrets=a": "/image/pullSecrets",
    "image=nightorders": "/image",
    "resources.memory=1Gi": "'memory'",
    "resources.limits.memory=lots": "/resources/limits/memory",
    "nodeSelector.a=1": "/nodeSelector/a",
    "tolerations.key=a": "/tolerations",
    "tolerations[0].keys=a": "'keys'",
    "affinity.node=a": "'node'",
    "prometheus.url=prometheus:9090": "/prometheus/url",
    "prometheus.token=x": "'token'",
    "detect=maybe": "/detect",
    "detect=1": "/detect",
    "reader=false": "/reader",
    "reader.logs=yes": "/reader/logs",
    "reader.namespaces={a}": "'namespaces'",
    "actions.deleteEverything.enabled=true": "'deleteEverything'",
    f"{ROLLBACK}.namespaces=shop": "/actions/rollbackWorkload/namespaces",
    f"{ROLLBACK}.namespaces={{Shop}}": "/actions/rollbackWorkload/namespaces/0",
    f"{ROLLBACK}.namespaces={{a,a}}": "/actions/rollbackWorkload/namespaces",
    # These no schema can say, but the templates do.
    f"{ROLLBACK}.clusterWide=true": "actions.rollbackWorkload.enabled is false",
    f"{ROLLBACK}.namespaces={{shop}}": "actions.rollbackWorkload.enabled is false",
    f"{ROLLBACK}.enabled=true,{ROLLBACK}.clusterWide=true,{ROLLBACK}.namespaces={{shop}}": "actions.rollbackWorkload.clusterWide is every",
}


def test_what_makes_no_sense_is_refused_and_named(helm: Helm) -> None:
    for value, named in REFUSED.items():
        done = helm.release("template", f"--set={value}", check=False)
        assert done.returncode != 0, value
        assert named in done.stderr, (value, done.stderr)


@pytest.mark.parametrize("namespace", ["default", "nightorders", "kube-system"])
def test_another_namespace_is_refused(helm: Helm, namespace: str) -> None:
    done = helm("template", "nightorders", str(CHART), "--namespace", namespace, check=False)
    assert done.returncode != 0
    assert f'only be installed in the namespace nightorders-system, not in "{namespace}"' in done.stderr
    assert "Say --namespace nightorders-system." in done.stderr
