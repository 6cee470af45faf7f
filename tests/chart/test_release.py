"""The chart on a real control plane: the operator runs with what it installs, and what the README says is what happens."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import CHART, NAMESPACE, Helm, Json, command
from tools.cluster import Cluster
from tools.operator_process import ACCOUNT, OperatorProcess, wait_guarded

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]
ROOT = Path(__file__).resolve().parents[2]
SERVICE_ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
UPGRADE = "helm upgrade nightorders charts/nightorders --namespace nightorders-system --reset-then-reuse-values"
# The README has it so that people see what they destroy. It matters here besides: a definition that is deleted seconds after it was made,
# and whose objects nobody has listed yet, is left for minutes ("could not list instances: storage is (re)initializing", tried on 1.36).
LIST = command("kubectl get incidents,remediationpolicies") + " --chunk-size=0"
OURS = (
    "customresourcedefinitions,validatingadmissionpolicies,validatingadmissionpolicybindings,clusterroles,clusterrolebindings,"
    "roles,rolebindings,serviceaccounts,deployments,configmaps,secrets"
)


@pytest.fixture
def fresh(helm: Helm, cluster: Cluster) -> Iterator[Helm]:
    """Helm on the cluster. What a test leaves is removed, all but the namespace and the definitions."""
    on = helm.on(cluster.kubeconfig)
    yield on
    if on("status", "nightorders", "--namespace", NAMESPACE, check=False).returncode == 0:
        on.shell(command("helm uninstall"))
    on.shell(command("kubectl delete validatingadmissionpolicybindings"))
    if left := ours(cluster):
        assert {row.split("/")[0] for row in left} == {"CustomResourceDefinition"}
        cluster.kubectl("delete", "incidents", "--all", "--namespace=default")


@pytest.fixture
def release(fresh: Helm) -> Helm:
    """The same, with the namespace as the README has it made."""
    fresh.shell(command("kubectl apply -f charts/nightorders/namespace.yaml"))
    return fresh


def ours(cluster: Cluster) -> set[str]:
    """Everything of ours that is there, but the namespace and the Lease that the operator leaves in it."""
    rows = cluster.kubectl("get", OURS, "-A", "-o", "custom-columns=K:.kind,M:.metadata.name", "--no-headers").stdout.splitlines()
    return {"/".join(row.split()) for row in rows if "nightorders" in row}


def incident(name: str = "question") -> Json:
    return {
        "apiVersion": "nightorders.dev/v1alpha1",
        "kind": "Incident",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}},
    }


def get(cluster: Cluster, *what: str) -> Json:
    found: Json = json.loads(cluster.kubectl("get", *what, "-o", "json").stdout)
    return found


def until(ask: Callable[[], bool], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)


def rights(cluster: Cluster, *expected: tuple[bool, tuple[str, ...]]) -> None:
    """Returns when the operator's account may, or may not, do these things. The API server learns of a binding with a delay."""

    def answered() -> bool:
        asked = (cluster.kubectl("auth", "can-i", *question, "--as", SERVICE_ACCOUNT, check=False) for _, question in expected)
        return [a.stdout.strip() == "yes" for a in asked] == [wanted for wanted, _ in expected]

    until(answered, f"the rights are {expected}", 10)


def test_helm_may_create_the_namespace_and_says_what_it_lacks(fresh: Helm, cluster: Cluster) -> None:
    fresh.shell(command("kubectl delete namespace") + " --ignore-not-found")
    said = fresh.release("install", "--set=replicas=0", "--create-namespace").stdout
    assert "It does not run: replicas is 0." in said
    (advice,) = [row.strip() for row in said.splitlines() if "kubectl label namespace" in row]
    fresh.shell(advice)
    assert "kubectl label namespace" not in fresh.release("upgrade", "--set=replicas=0").stdout
    labels = get(cluster, "namespace", NAMESPACE)["metadata"]["labels"]
    wanted = yaml.safe_load((CHART / "namespace.yaml").read_text())["metadata"]["labels"]
    assert {k: v for k, v in wanted.items() if k.startswith("pod-security")}.items() <= labels.items()


def test_the_operator_runs_and_proves_its_guard(release: Helm, cluster: Cluster) -> None:
    said = release.shell(command("helm install") + " --wait --timeout 60s").stdout
    assert "RollbackWorkload may be done in   no namespace" in said
    assert "kubectl label namespace" not in said, "the namespace has its labels"
    pods = get(cluster, "-n", NAMESPACE, "pods")["items"]
    assert [p["spec"]["containers"][0]["image"] for p in pods] == ["registry.example/nightorders:0.1.0"] * 2

    cluster.kubectl("-n", NAMESPACE, "scale", "deployment/nightorders", "--replicas=0")
    wait_guarded(cluster)
    operator = OperatorProcess(cluster, environment={"NIGHTORDERS_GUARD_EVERY_SECONDS": "1"})
    try:
        operator.start().wait_ready()
        proven, current = "nightorders_approval_guard_proven 1.0", "nightorders_schemas_current 1.0"
        until(
            lambda: proven in operator.scrape() and current in operator.scrape(), f"guard and schemas are this version's\n{operator.tail()}"
        )

        # Somebody narrows a binding: the guard is proven no more, an upgrade does not see it, the README's command repairs it.
        selector = '{"spec":{"matchResources":{"namespaceSelector":{"matchLabels":{"guarded":"yes"}}}}}'
        cluster.kubectl("patch", "validatingadmissionpolicybinding", "nightorders-approvals", "--type=merge", "-p", selector)
        until(lambda: proven not in operator.scrape(), "the narrowed binding is noticed")
        release.release("upgrade", "--reset-then-reuse-values", "--set=replicas=0")
        assert "matchResources" in get(cluster, "validatingadmissionpolicybinding", "nightorders-approvals")["spec"]
        release.shell(command("helm template"))
        release.shell(command(UPGRADE, whole=True))
        until(lambda: proven in operator.scrape(), f"the guard is proven again\n{operator.tail()}")
        binding = get(cluster, "validatingadmissionpolicybinding", "nightorders-approvals")
        assert binding["metadata"]["annotations"]["meta.helm.sh/release-name"] == "nightorders"
    finally:
        operator.stop()


def older(folder: Path) -> Path:
    """The chart of an earlier version: Incidents lacked a field, and the guard of deletions was another."""
    chart = folder / "nightorders"
    shutil.copytree(CHART, chart)
    path = chart / "templates/generated/crds/incidents.yaml"
    head, _, rest = path.read_text().partition("apiVersion")
    crd = yaml.safe_load("apiVersion" + rest)
    crd["metadata"]["annotations"]["nightorders.dev/schema-digest"] = "older"
    del crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["title"]
    path.write_text(head + "\n" + yaml.safe_dump(crd))
    guard = chart / "templates/generated/admission/deletions.yaml"
    guard.write_text(guard.read_text().replace("[DELETE]", "[UPDATE]"))
    return chart


def test_an_upgrade_brings_schemas_and_guards_and_keeps_records(release: Helm, cluster: Cluster, tmp_path: Path) -> None:
    release.release("install", "--set=replicas=0", chart=older(tmp_path))
    cluster.apply(incident())
    before = get(cluster, "-n", "default", "incident", "question")
    titled = incident("titled") | {"spec": {**incident()["spec"], "title": "slow"}}
    refused = cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(titled), check=False)
    assert 'unknown field "spec.title"' in refused.stderr

    release.release("upgrade", "--reset-then-reuse-values")
    crd = get(cluster, "crd", "incidents.nightorders.dev")
    wanted = yaml.safe_load((ROOT / "crds/incidents.yaml").read_text())
    digest = "nightorders.dev/schema-digest"
    assert crd["metadata"]["annotations"][digest] == wanted["metadata"]["annotations"][digest]
    guard = get(cluster, "validatingadmissionpolicy", "nightorders-deletions")
    assert guard["spec"]["matchConstraints"]["resourceRules"][0]["operations"] == ["DELETE"]
    until(lambda: cluster.kubectl("create", "-f", "-", stdin=json.dumps(titled), check=False).returncode == 0, "the new field is served")
    after = get(cluster, "-n", "default", "incident", "question")
    assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])
    assert get(cluster, "-n", NAMESPACE, "deployment", "nightorders")["spec"]["replicas"] == 0, "the values stay"


def test_rights_are_those_that_the_values_give_and_take(release: Helm, cluster: Cluster) -> None:
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    release.release("install", "--set=replicas=0")
    look, logs, here, elsewhere = (
        ("list", "pods", "-n", "shop"),
        ("get", "pods", "--subresource=log", "-n", "shop"),
        ("patch", "deployments.apps", "-n", "shop"),
        ("patch", "deployments.apps", "-n", "default"),
    )
    rights(cluster, (True, look), (True, logs), (False, here), (False, elsewhere))

    release.shell(command(f"{UPGRADE} "))
    rights(cluster, (True, here), (False, elsewhere))

    everywhere = "actions.rollbackWorkload.enabled=true,actions.rollbackWorkload.clusterWide=true"
    release.release("upgrade", f"--set=replicas=0,reader.logs=false,{everywhere}")
    rights(cluster, (True, here), (True, elsewhere), (True, look), (False, logs))

    release.release("upgrade", "--set=replicas=0,reader.enabled=false")
    rights(cluster, (False, here), (False, elsewhere), (False, look), (False, logs))


def test_uninstalling_keeps_records_under_guard_until_somebody_removes_them(release: Helm, cluster: Cluster) -> None:
    release.release("install", "--set=replicas=0,actions.rollbackWorkload.enabled=true,actions.rollbackWorkload.namespaces={default}")
    wait_guarded(cluster)
    cluster.apply(incident())
    operator = cluster.service_account(NAMESPACE, ACCOUNT)
    held = '{"metadata":{"finalizers":["nightorders.dev/execution"]}}'
    cluster.kubectl("-n", "default", "patch", "incident", "question", "--type=merge", "-p", held, kubeconfig=operator)
    assert release.shell(command("kubectl get incidents -A -o jsonpath")).stdout == "default/question\n"

    release.shell(command("helm uninstall"))
    left = ours(cluster)
    assert {row.split("/")[0] for row in left} == {
        "CustomResourceDefinition",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    }
    assert left == {f"{kind}/{name}" for kind, _, name in release.objects() if f"{kind}/{name}" in left}
    assert len([row for row in left if row.startswith("Custom")]) == 5
    before = get(cluster, "-n", "default", "incident", "question")
    forged = '{"status":{"phase":"Recovered"}}'
    refused = cluster.kubectl(
        "-n", "default", "patch", "incident", "question", "--subresource=status", "--type=merge", "-p", forged, check=False
    )
    assert "nightorders-records" in refused.stderr

    # The same name takes it up again; another one only when told to.
    other = release("install", "other", str(CHART), "--namespace", NAMESPACE, "--set=replicas=0", check=False)
    assert "cannot be imported into the current release" in other.stderr
    release.release("install", "--set=replicas=0")
    assert get(cluster, "-n", "default", "incident", "question")["metadata"]["uid"] == before["metadata"]["uid"]
    release.shell(command("helm uninstall"))

    # For good, past the finalizer of an operator that is gone.
    assert "question" in release.shell(LIST).stdout
    removal = subprocess.Popen(["bash", "-c", command("kubectl delete crd")], env=release.environment(), stdout=subprocess.DEVNULL)
    try:
        until(lambda: "deletionTimestamp" in get(cluster, "crd", "incidents.nightorders.dev")["metadata"], "the definition is going")
        with pytest.raises(subprocess.TimeoutExpired):
            removal.wait(1)
        release.shell(command("kubectl -n NAMESPACE patch incident").replace("NAMESPACE", "default").replace("NAME", "question"))
        assert removal.wait(30) == 0
    finally:
        removal.kill()
    release.shell(command("kubectl delete validatingadmissionpolicybindings"))
    assert ours(cluster) == set()


def test_it_takes_over_from_kubectl(release: Helm, cluster: Cluster) -> None:
    cluster.kubectl("apply", "--server-side", "-k", str(ROOT / "manifests/install"))
    cluster.apply(incident())
    before = get(cluster, "-n", "default", "incident", "question")
    assert "cannot be imported" in release.release("install", "--set=replicas=0", check=False).stderr
    release.release("install", "--set=replicas=0", "--take-ownership")
    for what in (("crd", "incidents.nightorders.dev"), ("-n", NAMESPACE, "deployment", "nightorders")):
        assert get(cluster, *what)["metadata"]["annotations"]["meta.helm.sh/release-name"] == "nightorders"
    assert get(cluster, "-n", NAMESPACE, "deployment", "nightorders")["spec"]["replicas"] == 0
    assert get(cluster, "-n", "default", "incident", "question")["metadata"]["uid"] == before["metadata"]["uid"]
