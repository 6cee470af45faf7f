"""The human commands against a real API server: as separate processes, with the credentials of real users."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.api.v1alpha1.incident import IncidentStatus
from nightorders.domain.digest import spec_sha256, template_sha256
from tests.cluster.attacks.world import DIGEST, MANIFESTS, NEXT_DIGEST, WAITING, World, approved, execution, plan, until_guarded
from tests.cluster.scene import BAD, GOOD, Scene, deployment
from tools.cluster import Cluster, provide

pytestmark = pytest.mark.cluster
Json = dict[str, Any]


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def typed(kubeconfig: Path, *args: str) -> Said:
    """The command as that user types it: a process of its own."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    argv = [sys.executable, "-m", "nightorders", *args]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=60, check=False)
    return Said(done.returncode, done.stdout, done.stderr)


def nightorders(kubeconfig: Path, *args: str, answer: str = "") -> Said:
    """The same without a process, which costs a second each."""
    done = CliRunner().invoke(app, [*args], env={"KUBECONFIG": str(kubeconfig)}, input=answer)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return Said(done.exit_code, done.stdout, done.stderr)


# ---------------------------------------------------------------- diagnose, with nothing installed


@pytest.fixture(scope="module")
def bare() -> Iterator[Cluster]:
    """A cluster that has never heard of nightorders; the shared one may have it installed by other tests."""
    found = provide()
    try:
        if found.kubectl("get", "crd", "incidents.nightorders.dev", check=False).returncode == 0:
            pytest.skip("this cluster has nightorders installed, and a test must not remove it")
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def shop(bare: Cluster) -> Scene:
    """A broken release beside a healthy one, and a healthy app."""
    scene = Scene(bare, "cli-shop")
    for name in ("checkout", "cart"):
        scene.apply(deployment(name, GOOD))
    for name in ("checkout", "cart"):
        scene.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    scene.release()
    end = time.monotonic() + 30
    while "ImagePull" not in scene.kubectl("get", "pods"):
        assert time.monotonic() < end, "the bad image fails"
        time.sleep(0.2)
    return scene


@pytest.fixture(scope="module")
def ann(bare: Cluster, shop: Scene) -> Path:
    """May read one namespace, by the role that every cluster has, and nothing else."""
    found = bare.user("ann")
    shop.kubectl("create", "rolebinding", "ann", "--clusterrole=view", "--user=ann")
    return found


@pytest.mark.threat(20)
@pytest.mark.promise(7)
def test_a_user_who_may_read_one_namespace_gets_a_diagnosis(shop: Scene, ann: Path) -> None:
    result = typed(ann, "diagnose", "deploy/checkout", "-n", shop.namespace)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1. ImageAccess Deployment/checkout · rev 2" in result.stdout
    assert "nightorders is not installed in this cluster" in result.stdout
    assert "Node objects: forbidden" in result.stdout
    assert "\x1b" not in result.stdout
    assert "!" not in result.stdout


def test_the_json_is_an_incidents_status_and_its_command_repairs_it(shop: Scene, ann: Path, bare: Cluster) -> None:
    """From the printed plan to the repaired Deployment, with a real user's rights; kubectl applies, we only make the patch."""
    result = nightorders(ann, "diagnose", "deployment", "checkout", "-n", shop.namespace, "-o", "json")
    wire = json.loads(result.stdout)
    proposed = wire.pop("plan")
    assert IncidentStatus.model_validate(wire).grade in ("A", "B")
    make, send = proposed["command"]
    patch = nightorders(ann, *make[1:])
    assert patch.returncode == 0, patch.stderr
    send = [*send[1:-1], "--patch-file=/dev/stdin"]
    refused = bare.kubectl(*send, "--dry-run=server", stdin=patch.stdout, check=False, kubeconfig=ann)
    assert "cannot patch resource" in refused.stderr, "ann may only look; the command gives her nothing more"
    bare.kubectl(*send, "--dry-run=server", stdin=patch.stdout)
    assert shop.image() == BAD


def test_healthy_is_exit_0(shop: Scene, ann: Path) -> None:
    result = nightorders(ann, "diagnose", "deployments.apps/cart", "-n", shop.namespace)
    assert (result.returncode, result.stderr) == (0, "")
    assert "No fault." in result.stdout


def test_the_contexts_namespace_is_the_default(shop: Scene, ann: Path, bare: Cluster, tmp_path: Path) -> None:
    own = tmp_path / "config"
    own.write_text(ann.read_text())
    bare.kubectl("config", "set-context", "--current", f"--namespace={shop.namespace}", kubeconfig=own)
    assert nightorders(own, "diagnose", "deploy/cart").returncode == 0


@pytest.mark.parametrize(
    ("workload", "namespace", "code", "says"),
    [
        ("deploy/chekout", "cli-shop", 2, "there is no Deployment/chekout in namespace cli-shop; there are: cart, checkout"),
        ("deploy/checkout", "default", 3, "forbidden"),
        ("service/checkout", "cli-shop", 2, "there is no Service/checkout in namespace cli-shop"),
        ("secret/checkout", "cli-shop", 2, "does not know the type"),
    ],
)
def test_what_cannot_be_answered_is_one_line(shop: Scene, ann: Path, workload: str, namespace: str, code: int, says: str) -> None:
    result = nightorders(ann, "diagnose", workload, "-n", namespace)
    assert (result.returncode, result.stdout) == (code, "")
    assert says in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_administrator_is_told_of_a_namespace_that_is_not_there(bare: Cluster) -> None:
    result = nightorders(bare.kubeconfig, "diagnose", "deploy/x", "-n", "nowhere")
    assert result.returncode == 2
    assert "there is no namespace nowhere" in result.stderr


def test_without_the_custom_resources_the_other_commands_say_what_installs_them(bare: Cluster, ann: Path) -> None:
    for user in (bare.kubeconfig, ann):
        result = nightorders(user, "show", "x")
        assert result.returncode == 3
        assert "nightorders crds | kubectl apply --server-side -f -" in result.stderr


# ---------------------------------------------------------------- answers, through the admission policies


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Cluster:
    """The shared cluster with the product on it, as the tests of the attacks leave it."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(MANIFESTS / "install"))
    until_guarded(cluster)
    return cluster


@pytest.fixture
def world(installed: Cluster) -> Iterator[World]:
    """A fresh namespace with an Incident whose plan waits."""
    cluster = installed
    namespace = f"cli-{time.monotonic_ns() % 10**9}"
    cluster.kubectl("create", "namespace", namespace)
    made = World(cluster, namespace)
    made.incident(WAITING)
    yield made
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


APPROVER = ("nightorders-approver", "edit")


@pytest.mark.parametrize("name", ["cli-ann", "auth0|cli-bob"])
def test_an_approver_approves_and_withdraws(world: World, name: str) -> None:
    user = world.user(name, *APPROVER)
    here = ("inc", "-n", world.namespace)
    silent = typed(user.kubeconfig, "approve", *here)
    assert (silent.returncode, world.annotations()) == (1, {}), "nobody is there to say yes"
    done = nightorders(user.kubeconfig, "approve", *here, answer="y\n")
    assert done.returncode == 0, done.stderr
    assert list(world.annotations().values()) == [f"{DIGEST}|{name}"]
    again = nightorders(user.kubeconfig, "approve", *here, "--yes", "--digest", DIGEST)
    assert again.returncode == 0, again.stderr
    back = nightorders(user.kubeconfig, "withdraw", *here)
    assert back.returncode == 0, back.stderr
    assert world.annotations() == {}


def test_a_rejection_with_its_reason_and_its_withdrawal(world: World) -> None:
    user = world.user("cli-ann", *APPROVER)
    here = ("inc", "-n", world.namespace)
    done = nightorders(user.kubeconfig, "reject", *here, "--because", "the migration still runs")
    assert done.returncode == 0, done.stderr
    assert world.annotations() == {
        "reject.nightorders.dev/cli-ann": f"{DIGEST}|cli-ann",
        "why.nightorders.dev/cli-ann": "the migration still runs",
    }
    assert nightorders(user.kubeconfig, "withdraw", *here).returncode == 0
    assert world.annotations() == {}


@pytest.mark.threat(4)
@pytest.mark.promise(7)
def test_admission_decides_and_its_words_are_printed(world: World) -> None:
    """The right that the plan uses is missing (threats 4), and then the right to approve at all."""
    here = ("inc", "-n", world.namespace)
    weak = nightorders(world.user("cli-weak", "nightorders-approver").kubeconfig, "approve", *here, "--yes")
    assert weak.returncode == 1
    assert "not approved: the admission policy nightorders-approvals refuses: cli-weak may not patch deployments" in weak.stderr
    reader = nightorders(world.user("cli-reader", "nightorders-incident-reader").kubeconfig, "approve", *here, "--yes")
    assert reader.returncode == 1
    assert "ClusterRole nightorders-approver" in reader.stderr
    author = nightorders(world.user("cli-author", "nightorders-incident-author", "edit").kubeconfig, "approve", *here, "--yes")
    assert author.returncode == 1
    assert "lacks the verb approve" in author.stderr
    stranger = nightorders(world.user("cli-stranger").kubeconfig, "approve", *here, "--yes")
    assert stranger.returncode == 3
    assert "forbidden" in stranger.stderr
    assert world.annotations() == {}


@pytest.mark.threat(3)
@pytest.mark.promise(1)
def test_what_was_shown_is_what_is_approved(world: World) -> None:
    user = world.user("cli-ann", *APPROVER)
    world.status({"plan": plan(NEXT_DIGEST)})
    result = nightorders(user.kubeconfig, "approve", "inc", "-n", world.namespace, "--yes", "--digest", DIGEST)
    assert result.returncode == 1
    assert "the plan is another one now" in result.stderr
    assert world.annotations() == {}


def test_a_key_that_somebody_else_took_is_left_alone(world: World) -> None:
    mallory = world.user("cli-mallory", *APPROVER)
    mallory.may(*mallory.annotation(**{"approve_cli-ann": f"{DIGEST}|cli-mallory"}))
    user = world.user("cli-ann", *APPROVER)
    assert nightorders(user.kubeconfig, "approve", "inc", "-n", world.namespace, "--yes").returncode == 0
    assert world.annotations() == {
        "approve.nightorders.dev/cli-ann": f"{DIGEST}|cli-mallory",
        "approve.nightorders.dev/cli-ann-2": f"{DIGEST}|cli-ann",
    }


def test_an_approval_that_is_carried_out_stays(world: World) -> None:
    user = world.user("cli-ann", *APPROVER)
    assert nightorders(user.kubeconfig, "approve", "inc", "-n", world.namespace, "--yes").returncode == 0
    world.status({"conditions": [approved("True", "Approved")], "executions": [execution("Reserved")]})
    result = nightorders(user.kubeconfig, "withdraw", "inc", "-n", world.namespace)
    assert result.returncode == 1
    assert "carried out already" in result.stderr


def test_show_tells_the_story_to_whoever_may_read_incidents(world: World) -> None:
    reader = world.user("cli-reader", "nightorders-incident-reader")
    result = nightorders(reader.kubeconfig, "show", "inc", "-n", world.namespace)
    assert result.returncode == 0, result.stderr
    assert f"digest: {DIGEST}" in result.stdout


def test_the_patch_of_a_plan_repairs_with_the_humans_own_rights(world: World) -> None:
    """The bytes come from the ReplicaSet; secret values never were in the Incident."""
    scene = Scene(world.cluster, world.namespace)
    good = deployment("checkout", GOOD)
    good["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "DB_PASSWORD", "value": "hunter2 $(id)"}]
    scene.apply(good)
    scene.kubectl("rollout", "status", "deployment/checkout", "--timeout=60s")
    (first,) = scene.get("replicasets")["items"]
    scene.kubectl("set", "env", "deployment/checkout", "DB_PASSWORD=wrong")
    now = world.get("deployment", "checkout")
    template = first["spec"]["template"]
    spec = now["spec"]
    after = {**spec, "template": {**template, "metadata": {"labels": {"app": "checkout"}}}}
    world.status({"plan": _bound(now, first, spec_sha256(spec), spec_sha256(after), template_sha256(template))})
    user = world.user("cli-ann", *APPROVER)
    made = nightorders(user.kubeconfig, "patch", "inc", "-n", world.namespace)
    assert made.returncode == 0, made.stderr
    user_kubectl = ("-n", world.namespace, "patch", "deployment", "checkout", "--type=json", "--patch-file=/dev/stdin")
    world.cluster.kubectl(*user_kubectl, stdin=made.stdout, kubeconfig=user.kubeconfig)
    assert spec_sha256(world.get("deployment", "checkout")["spec"]) == spec_sha256(after)
    twice = world.cluster.kubectl(*user_kubectl, stdin=made.stdout, kubeconfig=user.kubeconfig, check=False)
    assert twice.returncode != 0, "its own tests refuse it once the values are others"
    late = nightorders(user.kubeconfig, "patch", "inc", "-n", world.namespace)
    assert (late.returncode, late.stdout) == (1, "")
    assert "already as the plan wants it" in late.stderr


def _bound(target: Json, source: Json, before: str, after: str, template: str) -> Json:
    made = plan()
    name, uid = source["metadata"]["name"], source["metadata"]["uid"]
    return {
        **made,
        "target": {**made["target"], "uid": target["metadata"]["uid"], "beforeSha256": before, "afterSha256": after},
        "parameters": {**made["parameters"], "revisionName": name, "revisionUid": uid, "templateSha256": template},
    }
