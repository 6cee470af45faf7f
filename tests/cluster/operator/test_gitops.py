"""Workloads that Argo CD or Flux own, with their real kinds and no controllers: the tests write what those would write.

The stand-ins for their CRDs have the real groups, kinds and plurals, and no schema.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.scene import BAD, GOOD, Json, Scene, condition, mutations, policy, until
from tools.cluster import Cluster
from tools.operator_process import ACCOUNT, NAMESPACE, OperatorProcess

pytestmark = [pytest.mark.cluster, pytest.mark.threat(15), pytest.mark.usefixtures("operator")]
OPERATOR = "system:serviceaccount:nightorders-system:nightorders"
ACTIONS = Path(__file__).parents[3] / "manifests/actions"
SKIP, MARK = "argocd.argoproj.io/skip-reconcile", "nightorders.dev/paused-by"
HOPELESS = {"for": "3s", "every": "1s", "checks": [{"name": "never", "condition": "Impossible"}], "onNoData": "Undo"}


def crd(group: str, version: str, kind: str, plural: str, *, status: bool) -> Json:
    served = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
    }
    if status:
        served["subresources"] = {"status": {}}
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [served]},
    }


CRDS = (
    crd("argoproj.io", "v1alpha1", "Application", "applications", status=False),  # as the real one: status is part of the object
    crd("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "kustomizations", status=True),
    crd("helm.toolkit.fluxcd.io", "v2", "HelmRelease", "helmreleases", status=True),
)


@pytest.fixture(scope="module")
def tools(arena: Cluster) -> Iterator[None]:
    """The kinds of Argo CD and Flux, their namespaces, and the right to pause what lives there."""
    arena.apply(*CRDS)
    arena.kubectl("wait", "--for=condition=Established", "crd", *(c["metadata"]["name"] for c in CRDS), "--timeout=30s")
    for short, namespace in (("argocd", "argocd"), ("flux", "flux-system")):
        arena.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        arena.kubectl("apply", "--server-side", "-k", str(ACTIONS / f"pause-{short}"))
        arena.kubectl("-n", namespace, "apply", "-f", str(ACTIONS / f"pause-{short}/rolebinding.example.yaml"))
    yield
    arena.kubectl("delete", "crd", *(c["metadata"]["name"] for c in CRDS))


@pytest.fixture
def allowed(scene: Scene) -> Iterator[None]:
    """The platform leaves pauses in this namespace to the team."""
    name = f"gitops-{scene.namespace}"
    spec = {"namespaces": [scene.namespace], "gitOpsPause": "TeamDecides"}
    scene.cluster.apply(
        {"apiVersion": "nightorders.dev/v1alpha1", "kind": "ClusterRemediationPolicy", "metadata": {"name": name}, "spec": spec}
    )
    yield
    scene.cluster.kubectl("delete", "clusterremediationpolicy", name)


class Application:
    """The Argo CD Application `app-<namespace>`, and what its controller would have written."""

    def __init__(self, scene: Scene, *, listed: bool = True, namespace: str = "argocd", paused: bool = False) -> None:
        self.scene = scene
        self.name, self.namespace = f"app-{scene.namespace}", namespace
        self.id = self.name if namespace == "argocd" else f"{namespace}_{self.name}"
        entry = {
            "group": "apps",
            "version": "v1",
            "kind": "Deployment",
            "namespace": scene.namespace,
            "name": "checkout",
            "status": "Synced",
        }
        scene.cluster.apply(
            {
                "apiVersion": "argoproj.io/v1alpha1",
                "kind": "Application",
                "metadata": {"name": self.name, "namespace": namespace, "annotations": {SKIP: "true"} if paused else {}},
                "spec": {"destination": {"server": "https://kubernetes.default.svc", "namespace": scene.namespace}, "project": "default"},
                "status": {"resources": [entry] if listed else []},
            }
        )

    def owns(self) -> None:
        """The sign that Argo CD leaves on the workload; a forger leaves the same."""
        self.scene.kubectl(
            "annotate", "deployment/checkout", f"argocd.argoproj.io/tracking-id={self.id}:apps/Deployment:{self.scene.namespace}/checkout"
        )

    def get(self) -> Json:
        done = self.scene.cluster.kubectl("-n", self.namespace, "get", "applications.argoproj.io", self.name, "-o", "json")
        return dict(json.loads(done.stdout))

    def notes(self) -> dict[str, str]:
        return {k: v for k, v in self.get()["metadata"].get("annotations", {}).items() if k in (SKIP, MARK)}

    def writes(self) -> int:
        return sum(e["objectRef"]["name"] == self.name for e in mutations(self.scene.cluster, OPERATOR, self.namespace))


def broken(scene: Scene, app: Application | None, *, hold: str = "6s", **rule: object) -> None:
    """A healthy app that the tool owns, then a release that cannot be pulled."""
    scene.apply(policy("L3", **{"gitOps": "Pause", "pauseFor": hold, **rule}))
    scene.app()
    if app is not None:
        app.owns()
    scene.release()


def refusal(scene: Scene) -> str:
    """Why the gate of the owner refuses."""

    def ask() -> str:
        found = [i for i in scene.incidents() if i.get("status", {}).get("gates")]
        return next((g["message"] for i in found for g in i["status"]["gates"] if g["gate"] == "owner" and not g["allowed"]), "")

    return str(until(ask, "the gate of the owner refuses"))


@pytest.mark.usefixtures("tools", "allowed")
def test_argo_cd_is_paused_before_the_change_and_goes_on_after_the_time_that_was_told(scene: Scene) -> None:
    app = Application(scene)
    broken(scene, app)
    incident = scene.incident("AwaitingApproval")
    assert incident["status"]["plan"]["pause"]["name"] == app.name
    assert app.writes() == 0
    scene.approve(incident, scene.approver(), "ann")
    scene.incident({"Verifying", "Recovered"})
    (execution,) = scene.one()["status"]["executions"]
    assert app.notes() == {SKIP: "true", MARK: execution["id"]}
    incident = scene.incident("Recovered")
    assert "bring the change into Git before that" in condition(incident, "OwnerPaused")["message"]
    assert scene.image() == GOOD
    until(lambda: app.notes() == {}, "the pause is lifted", 30)
    assert app.writes() == 2
    assert len(mutations(scene.cluster, OPERATOR, scene.namespace)) == 1
    incident = scene.until_condition("OwnerPaused", "Resumed", 20)
    assert any("goes on again" in line["what"] for line in incident["status"]["timeline"])
    until(lambda: not scene.get("ledger/ledger")["spec"].get("pauses"), "the book has no pause")


@pytest.mark.usefixtures("tools", "allowed")
def test_flux_goes_on_at_once_when_the_action_is_undone(scene: Scene) -> None:
    name = f"apps-{scene.namespace}"
    kustomization = {
        "apiVersion": "kustomize.toolkit.fluxcd.io/v1",
        "kind": "Kustomization",
        "metadata": {"name": name, "namespace": "flux-system"},
        "spec": {"interval": "10m", "path": "./", "prune": True},
    }
    scene.cluster.apply(kustomization)
    entries = [{"id": f"{scene.namespace}_checkout_apps_Deployment", "v": "v1"}, {"id": f"{scene.namespace}_x__Service", "v": "v1"}]
    what = ("-n", "flux-system", "kustomizations.kustomize.toolkit.fluxcd.io", name)
    patch = json.dumps({"status": {"inventory": {"entries": entries}}})
    scene.cluster.kubectl("patch", *what, "--subresource=status", "--type=merge", "-p", patch)
    scene.apply(policy("L3", gitOps="Pause", pauseFor="1h", verify=HOPELESS))
    scene.app()
    scene.kubectl(
        "label", "deployment/checkout", f"kustomize.toolkit.fluxcd.io/name={name}", "kustomize.toolkit.fluxcd.io/namespace=flux-system"
    )
    scene.release()
    incident = scene.incident("AwaitingApproval")
    gates = {g["gate"]: g["message"] for g in incident["status"]["gates"]}
    assert "with all 2 objects that it governs" in gates["owner"]
    scene.approve(incident, scene.approver(), "ann")

    def get() -> Json:
        return dict(json.loads(scene.cluster.kubectl("get", *what, "-o", "json").stdout))

    until(lambda: get()["spec"].get("suspend") is True, "Flux is suspended")
    incident = scene.incident("Undone")
    assert condition(incident, "Verified")["reason"] == "UndoVerified"
    assert "as before: " in condition(incident, "Verified")["message"]
    assert scene.image() == BAD
    until(lambda: get()["spec"]["suspend"] is False, "Flux goes on", 15)
    assert MARK not in get()["metadata"].get("annotations", {})


@pytest.mark.usefixtures("tools", "allowed")
def test_a_forged_tracking_id_pauses_nobodys_application(scene: Scene) -> None:
    app = Application(scene, listed=False)
    broken(scene, app)
    assert f"the inventory of Application argocd/{app.name} does not list Deployment/checkout" in refusal(scene)
    time.sleep(3)
    assert (app.notes(), app.writes(), scene.image()) == ({}, 0, BAD)
    assert mutations(scene.cluster, OPERATOR, scene.namespace) == []


@pytest.mark.usefixtures("tools")
def test_where_the_platform_does_not_allow_it_a_team_cannot(scene: Scene) -> None:
    app = Application(scene)
    broken(scene, app)
    assert "gitOpsPause: TeamDecides" in refusal(scene)
    time.sleep(3)
    assert (app.notes(), app.writes(), scene.image()) == ({}, 0, BAD)


@pytest.mark.usefixtures("tools", "allowed")
def test_applications_that_may_not_be_read_are_refused_with_the_command(scene: Scene) -> None:
    scene.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-apps"}})
    broken(scene, Application(scene, namespace="team-apps"))
    message = refusal(scene)
    assert "forbidden" in message
    assert (
        "kubectl create rolebinding nightorders-pause-argocd -n team-apps --clusterrole=nightorders-pause-argocd "
        "--serviceaccount=nightorders-system:nightorders"
    ) in message


@pytest.mark.usefixtures("tools", "allowed")
def test_a_humans_own_pause_is_used_and_never_lifted(scene: Scene) -> None:
    app = Application(scene, paused=True)
    broken(scene, app, hold="1s")
    incident = scene.incident("AwaitingApproval")
    scene.approve(incident, scene.approver(), "ann")
    scene.incident("Recovered")
    until(lambda: not scene.get("ledger/ledger")["spec"].get("pauses"), "the book has no pause", 30)
    assert (app.notes(), app.writes(), scene.image()) == ({SKIP: "true"}, 0, GOOD)


@pytest.mark.usefixtures("tools", "allowed")
def test_an_operator_that_is_killed_while_an_owner_is_paused_lifts_it_when_it_comes_back(operator: OperatorProcess, scene: Scene) -> None:
    app = Application(scene)
    broken(scene, app, hold="1s")
    incident = scene.incident("AwaitingApproval")
    scene.approve(incident, scene.approver(), "ann")
    until(lambda: MARK in app.notes(), "Argo CD is paused")
    operator.kill()
    assert MARK in app.notes()
    operator.start().wait_ready()
    scene.incident("Recovered")
    until(lambda: app.notes() == {}, "the pause is lifted", 30)
    assert app.writes() == 2


@pytest.mark.usefixtures("tools")
def test_the_right_to_pause_is_the_right_to_nothing_else(scene: Scene) -> None:
    """RBAC gives `patch` on the whole object, and an Application's spec is a way to anything. Admission gives the pause only."""
    app = Application(scene)
    me = scene.cluster.service_account(NAMESPACE, ACCOUNT)

    def patch(body: Json) -> str:
        what = ("-n", "argocd", "patch", "applications.argoproj.io", app.name, "--type=merge", "-p", json.dumps(body), "--dry-run=server")
        done = scene.cluster.kubectl(*what, check=False, kubeconfig=me)
        return "" if done.returncode == 0 else done.stderr

    pause = {"metadata": {"annotations": {SKIP: "true", MARK: "no-1"}}}
    assert patch(pause) == ""
    for body in (
        {"spec": {"project": "other"}},
        {"operation": {"sync": {}}},
        {"status": {"resources": []}},
        {"metadata": {"labels": {"a": "b"}}},
        {"metadata": {"annotations": {"a": "b"}}},
        {"metadata": {"finalizers": ["a.b/c"]}},
        {"metadata": {"annotations": {SKIP: "true"}}},
    ):
        assert "nightorders-pause-argocd" in patch(body), body
    scene.cluster.kubectl("-n", "argocd", "annotate", "applications.argoproj.io", app.name, f"{SKIP}=true")
    assert "somebody else's" in patch({"metadata": {"annotations": {SKIP: None}}})
    binding = scene.kubectl(
        "create", "rolebinding", "mine", "--clusterrole=nightorders-pause-argocd", "--user=eve", "--dry-run=server", check=False
    )
    assert "nightorders-action-roles" in binding
