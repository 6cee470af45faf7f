"""The commands around orders against a real API server: emergency approvals, take, stop and resume through the admission policies,
`policy explain` with a person's own rights, and whether the files are held against what the API server really says."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from tests.cluster.attacks.world import DIGEST, MANIFESTS, World, until_guarded, waiting
from tests.cluster.scene import GOOD, Scene, deployment
from tests.cluster.test_cli import nightorders
from tests.unit.cli.policy_texts import REFUSED, SEEN_THROUGH, TAKEN
from tools.cluster import Cluster

pytestmark = pytest.mark.cluster
APPROVER = ("nightorders-approver", "edit")
EMERGENCY = ("nightorders-emergency-approver", "edit")
RULE = {"name": "rollback", "types": ["RollbackWorkload"], "level": "L4"}


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Cluster:
    """The shared cluster with the product on it."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(MANIFESTS / "install"))
    until_guarded(cluster)
    return cluster


@pytest.fixture
def world(installed: Cluster) -> Iterator[World]:
    """A fresh namespace with an Incident whose plan waits in a freeze of its own namespace."""
    namespace = f"orders-{time.monotonic_ns() % 10**9}"
    installed.kubectl("create", "namespace", namespace)
    made = World(installed, namespace)
    made.incident(waiting(frozenBy="Namespace"))
    yield made
    installed.kubectl("delete", "namespace", namespace, "--wait=false")


# ---------------------------------------------------------------- answers


def test_an_emergency_approval_with_its_reason_and_its_withdrawal(world: World) -> None:
    user = world.user("cli-ann", *EMERGENCY)
    here = ("inc", "-n", world.namespace)
    plain = nightorders(user.kubeconfig, "approve", *here, "--yes")
    assert (plain.returncode, world.annotations()) == (1, {})
    assert "only emergency approvals count" in plain.stderr
    done = nightorders(user.kubeconfig, "approve", *here, "--emergency", "--because", "nobody can pay", "--yes")
    assert done.returncode == 0, done.stderr
    written = {"emergency.nightorders.dev/cli-ann": f"{DIGEST}|cli-ann", "why.nightorders.dev/cli-ann": "nobody can pay"}
    assert world.annotations() == written
    assert nightorders(user.kubeconfig, "withdraw", *here).returncode == 0
    assert world.annotations() == {}


def test_an_emergency_needs_its_own_verb(world: World) -> None:
    user = world.user("cli-bob", *APPROVER)
    result = nightorders(user.kubeconfig, "approve", "inc", "-n", world.namespace, "--emergency", "--because", "x", "--yes")
    assert (result.returncode, world.annotations()) == (1, {})
    assert "lacks the verb approve-emergency" in result.stderr
    assert "nightorders-emergency-approver" in result.stderr


def test_take_and_give_back(world: World) -> None:
    ann, bob = (world.user(name, "nightorders-incident-author") for name in ("auth0|cli-ann", "cli-bob"))
    here = ("inc", "-n", world.namespace)
    assert nightorders(ann.kubeconfig, "take", *here).returncode == 0
    assert list(world.annotations().values()) == ["auth0|cli-ann"]
    refused = nightorders(bob.kubeconfig, "take", *here, "--give-back")
    assert (refused.returncode, len(world.annotations())) == (1, 1)
    assert "auth0|cli-ann did" in refused.stderr
    assert nightorders(ann.kubeconfig, "take", *here, "--give-back").returncode == 0
    assert world.annotations() == {}


def test_whoever_may_create_configmaps_stops_and_only_a_lifter_resumes(world: World) -> None:
    ann, lifter = world.user("cli-ann", "edit"), world.user("cli-lifter", "nightorders-stop-lifter")
    here = ("-n", world.namespace)
    stopped = nightorders(ann.kubeconfig, "stop", *here, "--no-undo")
    assert stopped.returncode == 0, stopped.stderr
    assert world.get("configmap", "nightorders-stop")["data"] == {"undo": "Deny"}
    refused = nightorders(ann.kubeconfig, "resume", *here)
    assert refused.returncode == 1
    assert "lacks the verb stop on remediationpolicies" in refused.stderr
    lifted = nightorders(lifter.kubeconfig, "resume", *here)
    assert lifted.returncode == 0, lifted.stderr
    assert nightorders(lifter.kubeconfig, "resume", *here).returncode == 1
    everything = nightorders(ann.kubeconfig, "stop", "--all")
    assert everything.returncode == 1, "edit in one namespace does not stop the others"
    assert "forbidden" in everything.stderr


def test_one_incident_is_suspended_and_goes_on(world: World) -> None:
    author = world.user("cli-author", "nightorders-incident-author")
    here = ("inc", "-n", world.namespace)
    assert nightorders(author.kubeconfig, "stop", *here).returncode == 0
    assert world.get("incident", "inc")["spec"]["suspend"] is True
    assert nightorders(author.kubeconfig, "resume", *here).returncode == 0
    assert world.get("incident", "inc")["spec"]["suspend"] is False


# ---------------------------------------------------------------- policy explain


def test_explain_says_what_would_hold_and_names_what_you_may_not_read(world: World) -> None:
    scene = Scene(world.cluster, world.namespace)
    scene.apply(deployment("cart", GOOD))
    scene.kubectl("rollout", "status", "deployment/cart", "--timeout=60s")
    policy = {"rules": [RULE], "freezes": [{"name": "later", "from": "2099-01-01T00:00:00Z", "until": "2099-01-02T00:00:00Z"}]}
    scene.apply({"apiVersion": "nightorders.dev/v1alpha1", "kind": "RemediationPolicy", "metadata": {"name": "web"}, "spec": policy})
    ask = ("policy", "explain", "deploy/cart", "-n", world.namespace, "--action", "RollbackWorkload", "-o", "json")
    whole = json.loads(nightorders(world.cluster.kubeconfig, *ask).stdout)
    assert whole["hypothetical"].startswith("Deployment/cart is healthy now")
    assert whole["governedBy"] == "RemediationPolicy/web rule rollback"
    assert whole["unknown"] == []
    assert [g["gate"] for g in whole["gates"] if not g["allowed"]] == [], whole["decidedBy"]
    assert "ledger" in {s["who"] for s in whole["decidedBy"]}, "the operator does not run here, so nothing is remembered"
    viewer = world.user("cli-viewer", "view", "nightorders-incident-reader")
    partly = nightorders(viewer.kubeconfig, *ask)
    assert partly.returncode == 0, partly.stderr
    wire = json.loads(partly.stdout)
    assert wire["level"] == "L1"
    assert any(u.startswith("ClusterRemediationPolicies: ") for u in wire["unknown"]), wire["unknown"]


def test_explain_judges_a_fault_by_its_real_diagnosis(world: World) -> None:
    scene = Scene(world.cluster, world.namespace)
    scene.apply(deployment("checkout", GOOD))
    scene.kubectl("rollout", "status", "deployment/checkout", "--timeout=60s")
    scene.release()
    end = time.monotonic() + 30
    while "ImagePull" not in scene.kubectl("get", "pods"):
        assert time.monotonic() < end, "the bad image fails"
        time.sleep(0.2)
    result = nightorders(world.cluster.kubeconfig, "policy", "explain", "deploy/checkout", "-n", world.namespace)
    assert result.returncode == 0, result.stderr
    assert "There is a fault; what follows is judged by its real diagnosis and proposal." in result.stdout
    assert "closed  policy, NoPolicy" in result.stdout


# ---------------------------------------------------------------- files, as the API server sees them


def test_the_api_server_says_the_same_of_every_policy(installed: Cluster) -> None:
    """What is refused here is refused there, and what is taken here is taken there: by the schema and CEL of the real CRDs."""

    def taken(text: str) -> tuple[bool, str]:
        value = yaml.safe_load(text)
        place = () if value["kind"].startswith("Cluster") else ("-n", "default")
        answer: subprocess.CompletedProcess[str] = installed.kubectl(
            "create", *place, "--dry-run=server", "--validate=strict", "-f", "-", stdin=text, check=False
        )
        return answer.returncode == 0, answer.stderr

    asked = [*((t, False) for t, _ in REFUSED), *((t, True) for t, _ in SEEN_THROUGH), *((t, True) for t in TAKEN)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(taken, (text for text, _ in asked)))
    wrong = [(text, answer) for (text, expected), answer in zip(asked, answers, strict=True) if answer[0] != expected]
    assert wrong == []
