"""Install and uninstall, as a user does it: on a cluster of its own, so that nobody's objects are in the way."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.attacks.world import MANIFESTS, World, execution, head, incident, policy, until, until_guarded
from tools.cluster import Cluster, provide

pytestmark = pytest.mark.cluster
CHURN = {"events", "events.events.k8s.io", "leases.coordination.k8s.io", "componentstatuses", "endpointslices.discovery.k8s.io"}


@pytest.fixture
def empty(cluster: Cluster) -> Iterator[Cluster]:
    """A second cluster, without the product."""
    if cluster.provider == "kubeconfig":
        pytest.skip("NIGHTORDERS_TEST_KUBECONFIG names one cluster; uninstalling there would take the product from the other tests")
    fresh = provide(name=f"install-{secrets.token_hex(3)}", nodes=0)
    yield fresh
    fresh.stop()


def _everything(cluster: Cluster) -> set[str]:
    """Every object there is, as resource/namespace/name, but for what the control plane itself renews."""
    resources = set(cluster.kubectl("api-resources", "--verbs=list", "-o", "name").stdout.split()) - CHURN
    template = '{range .items[*]}{.kind}{"/"}{.metadata.namespace}{"/"}{.metadata.name}{"\\n"}{end}'
    return set(cluster.kubectl("get", ",".join(sorted(resources)), "-A", "-o", f"jsonpath={template}").stdout.split())


def test_uninstalling_leaves_nothing(empty: Cluster) -> None:
    """Installed, used, uninstalled in the middle of an execution, and installed again by server-side apply."""
    before = _everything(empty)
    install, action = str(MANIFESTS / "install"), str(MANIFESTS / "actions" / "rollback-workload-everywhere")
    empty.kubectl("apply", "-k", install)
    until_guarded(empty)
    again = empty.kubectl("apply", "-k", install).stdout.splitlines()
    assert [line for line in again if not line.endswith("unchanged")] == []  # nothing of it is rewritten each time
    empty.kubectl("apply", "-k", action)
    world = World(empty, "default")
    world.incident({"executions": [execution("Applied")]}, finalizers=["nightorders.dev/execution"])
    world.operator.may("create", "-f", "-", document={**head("Ledger", "ledger", "default"), "spec": {}})
    world.admin.may("create", "-f", "-", document=policy("orders", "default", "L4"))
    assert len(_everything(empty) - before) > 40

    # As manifests/install/kustomization.yaml says: nobody will end that execution, so the finalizer is lifted by hand.
    world.admin.may(*world.admin.patch("inc", {"metadata": {"finalizers": None}}))
    empty.kubectl("delete", "-k", action)
    empty.kubectl("delete", "-k", install, "--timeout=60s", timeout=90)
    until(lambda: _everything(empty) == before, "the cluster is as it was before", 30)

    empty.kubectl("apply", "--server-side", "-k", install)
    until_guarded(empty)


def test_the_samples_are_valid_as_they_are(world: World) -> None:
    """Strictly: a misspelt field in a sample would be dropped in silence."""
    folder = MANIFESTS / "samples"
    samples = sorted([*folder.glob("*.yaml"), *folder.glob("policy-diff/*/*.yaml"), *folder.glob("policy-tests/policies/*.yaml")])
    assert len(samples) == 16
    for sample in samples:
        for one in yaml.safe_load_all(sample.read_text()):
            if "namespace" in one["metadata"]:  # the test's own namespace instead of the sample's, which need not be there
                one["metadata"]["namespace"] = world.admin.namespace
            world.admin.may("apply", "--dry-run=server", "--validate=strict", "-f", "-", document=one)


def test_a_team_with_the_documented_roles_can_use_the_samples(world: World) -> None:
    author = world.user("author", "nightorders-policy-author", "nightorders-incident-author", "edit")
    samples = MANIFESTS / "samples"
    author.may("apply", "-f", str(samples / "policy-l3-approval.yaml"))
    answer = author.run("apply", "-f", str(samples / "policy-l4-autonomous.yaml"))
    assert "lacks the verb grant-l4" in answer.stderr
    world.grant({"kind": "User", "name": "author"}, "nightorders-l4-granter")
    author.may("apply", "-f", str(samples / "policy-l4-autonomous.yaml"))
    author.may("create", "-f", str(samples / "incident.yaml"))
    author.may("create", "-f", "-", document=incident("own", world.namespace, spec={"requestedBy": "author"}))


def test_the_deployment_is_accepted_in_a_restricted_namespace(world: World) -> None:
    """Pod Security `restricted` is enforced on nightorders-system; the Deployment's pod, made by hand, passes it."""
    found = world.admin.run("get", "deployment", "nightorders", "--namespace=nightorders-system", "-o", "json")
    template = json.loads(found.stdout)["spec"]["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "try", "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
    }
    answer = world.admin.run("create", "--dry-run=server", "--namespace=nightorders-system", "-f", "-", document=pod)
    assert answer.returncode == 0, answer.stderr
    pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] = True
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    answer = world.admin.run("create", "--dry-run=server", "--namespace=nightorders-system", "-f", "-", document=pod)
    assert "violates PodSecurity" in answer.stderr
