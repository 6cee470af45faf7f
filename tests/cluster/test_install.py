"""`make install` and `make uninstall` on a cluster of their own: nothing is left, compared object by object."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.cluster import Cluster, provide

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
# Things that come and go by themselves, or that every use of a cluster leaves behind.
RESTLESS = {
    "events",
    "events.events.k8s.io",
    "leases.coordination.k8s.io",
    "endpointslices.discovery.k8s.io",
    "componentstatuses",
    "endpoints",
}


@pytest.fixture
def second() -> Iterator[Cluster]:
    """A second cluster, used by nobody else."""
    found = provide()
    yield found
    found.stop()


def everything(cluster: Cluster) -> set[str]:
    """Every object of every kind that can be listed."""
    kinds = sorted(set(cluster.kubectl("api-resources", "--verbs=list", "-o", "name").stdout.split()) - RESTLESS)
    rows = cluster.kubectl(
        "get", ",".join(kinds), "-A", "--ignore-not-found", "-o", "custom-columns=K:.kind,N:.metadata.namespace,M:.metadata.name"
    ).stdout
    return set(rows.splitlines())


def run(cluster: Cluster, what: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """The command behind make, as a user runs it."""
    context = cluster.kubectl("config", "current-context").stdout.strip()
    return subprocess.run(
        [sys.executable, "-m", "tools.install", what, "--context", context, "--kubeconfig", str(cluster.kubeconfig), *flags],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_install_prints_the_roles_and_uninstall_leaves_nothing(second: Cluster) -> None:
    before = everything(second)

    asked = run(second, "install")
    assert asked.returncode != 0
    assert "YES=1" in asked.stderr
    assert everything(second) == before, "nothing is changed before somebody said yes"

    installed = run(second, "install", "--yes")
    assert installed.returncode == 0, installed.stderr
    assert installed.stdout.index("ClusterRole nightorders") < installed.stdout.index("serverside-applied")
    assert "a forged approval was refused" in installed.stdout

    second.kubectl("apply", "-f", str(ROOT / "manifests/samples/incident.yaml"), check=False)
    second.kubectl("apply", "-k", str(ROOT / "manifests/actions/rollback-workload"))
    second.kubectl("-n", "default", "apply", "-f", str(ROOT / "manifests/actions/rollback-workload/rolebinding.example.yaml"))

    removed = run(second, "uninstall", "--yes")
    assert removed.returncode == 0, removed.stderr
    left = {row for row in everything(second) - before if "nightorders" in row or "Incident" in row}
    assert left == set()
    assert before - everything(second) == set(), "nothing of somebody else's was removed"


def test_uninstall_refuses_while_an_execution_runs(second: Cluster) -> None:
    assert run(second, "install", "--yes").returncode == 0
    second.apply(
        {
            "apiVersion": "nightorders.dev/v1alpha1",
            "kind": "Incident",
            "metadata": {"name": "busy", "namespace": "default"},
            "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}},
        }
    )
    zero = "sha256:" + "0" * 64
    execution = {
        "id": "no-1", "action": "RollbackWorkload", "by": "operator", "state": "Applied", "planDigest": zero,
        "reservedAt": "2026-11-21T10:00:00Z", "before": zero, "after": zero,
    }  # fmt: skip
    operator = second.service_account("nightorders-system", "nightorders")
    patch = json.dumps({"status": {"executions": [execution]}})
    second.kubectl("patch", "incident", "busy", "--subresource=status", "--type=merge", "-p", patch, kubeconfig=operator)
    refused = run(second, "uninstall", "--yes")
    assert refused.returncode != 0
    assert "default/busy" in refused.stderr
