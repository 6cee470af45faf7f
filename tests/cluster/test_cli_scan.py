"""`nightorders scan` with real users' rights on a real API server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nightorders.__main__ import app
from tests.cluster.scene import GOOD, Scene, deployment, until
from tools.cluster import Cluster, provide
from tools.cluster.local import LocalCluster

pytestmark = pytest.mark.cluster
Json = dict[str, Any]
EMPTY = 60


@pytest.fixture(scope="module")
def fleet() -> Iterator[Cluster]:
    """A cluster that has never heard of nightorders: a broken release, a healthy app, and many namespaces with nothing in them."""
    found = provide()
    try:
        broken, well = Scene(found, "scan-broken"), Scene(found, "scan-well")
        for scene in (broken, well):
            scene.apply(deployment("checkout", GOOD))
        for scene in (broken, well):
            scene.kubectl("rollout", "status", "deployment/checkout", "--timeout=60s")
        found.apply(*({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"scan-empty-{i:02}"}} for i in range(EMPTY)))
        broken.release()
        until(lambda: "ImagePull" in broken.kubectl("get", "pods"), "the bad image fails", 60)
        yield found
    finally:
        found.stop()


def scan(kubeconfig: Path, *args: str) -> tuple[int, Json]:
    """(exit code, what is printed) of `scan -o json`."""
    done = CliRunner().invoke(app, ["scan", *args, "-o", "json"], env={"KUBECONFIG": str(kubeconfig)})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, json.loads(done.stdout) if done.stdout else {"stderr": done.stderr}


def test_an_admin_sees_the_whole_cluster_with_as_many_requests_as_kinds(fleet: Cluster) -> None:
    begin = time.monotonic()
    code, wire = scan(fleet.kubeconfig)
    took = time.monotonic() - begin
    assert code == 1
    mine = [(f["namespace"], f["object"], f["category"]) for f in wire["findings"] if f["namespace"].startswith("scan-")]
    assert mine == [("scan-broken", "Deployment/checkout", "ImageAccess")]
    assert wire["namespaces"]["examined"] >= EMPTY + 2
    assert wire["cost"]["reads"] < 60, "each kind once, and a few logs"
    assert took < 60
    if isinstance(fleet, LocalCluster) and fleet.audit_log is not None:
        lists = [e for e in map(json.loads, fleet.audit_log.read_text().splitlines()) if "nightorders" in e.get("userAgent", "")]
        assert all(e["verb"] in ("get", "list", "create") for e in lists)
        assert not [e for e in lists if e["verb"] == "create" and "reviews" not in e.get("objectRef", {}).get("resource", "")]


def test_a_user_of_one_namespace_sees_that_one(fleet: Cluster) -> None:
    ann = fleet.user("scan-ann")
    fleet.kubectl("-n", "scan-broken", "create", "rolebinding", "scan-ann", "--clusterrole=view", "--user=scan-ann")
    code, wire = scan(ann, "-n", "scan-broken")
    assert code == 1
    assert [f["object"] for f in wire["findings"]] == ["Deployment/checkout"]
    code, wire = scan(ann)
    assert code == 3, "the context's namespace is default, which she may not read either"
    assert "Name one that you may read" in wire["stderr"]


def test_who_may_list_namespaces_gets_those_that_he_may_read(fleet: Cluster) -> None:
    bob = fleet.user("scan-bob")
    fleet.kubectl("create", "clusterrole", "scan-namespaces", "--verb=get,list", "--resource=namespaces")
    fleet.kubectl("create", "clusterrolebinding", "scan-bob", "--clusterrole=scan-namespaces", "--user=scan-bob")
    for namespace in ("scan-broken", "scan-well"):
        fleet.kubectl("-n", namespace, "create", "rolebinding", "scan-bob", "--clusterrole=view", "--user=scan-bob")
    code, wire = scan(bob)
    assert code == 1
    assert wire["place"] == "2 namespaces that you may read"
    assert wire["namespaces"]["healthy"] == 1
    assert "namespaces may not be read: forbidden" in wire["gaps"][0]["because"]
    assert "fix" not in wire["gaps"][0] or "nightorders-reader" not in wire["gaps"][0]["fix"]


def test_the_dump_of_a_namespace_gives_the_same_finding(fleet: Cluster, tmp_path: Path) -> None:
    kinds = "deployments,replicasets,pods,services,configmaps,events"
    dump = fleet.kubectl("get", kinds, "-n", "scan-broken", "-o", "json").stdout
    (tmp_path / "dump.json").write_text(dump)
    done = CliRunner().invoke(app, ["scan", "--from", str(tmp_path), "-o", "json"])
    assert done.exit_code == 1, done.output
    assert [f["object"] for f in json.loads(done.stdout)["findings"]] == ["Deployment/checkout"]
