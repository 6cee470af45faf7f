"""Signs of a GitOps owner, what its own object must say, how it is paused and how it goes on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from nightorders.api.meta import PAUSED_BY_ANNOTATION
from nightorders.api.v1alpha1.incident import Pause
from nightorders.domain import gitops
from nightorders.domain.gitops import ARGO_INSTANCE, SKIP_RECONCILE, Claim, claims, owner_of
from nightorders.domain.mergepatch import apply_patch
from nightorders.domain.ownership import ARGO_TRACKING, FLUX_HELM, FLUX_KUSTOMIZATION
from nightorders.domain.snapshot import Absent, KubeObject, NotLooked
from tests.unit.domain.make import NOW, deployment, execution

pytestmark = pytest.mark.threat(15)
Json = dict[str, Any]
ACCOUNT = "nightorders-system:nightorders"
APP = Claim("argoproj.io/v1alpha1", "Application", "argocd", "web")
KUSTOMIZATION = Claim("kustomize.toolkit.fluxcd.io/v1", "Kustomization", "flux-system", "apps")
HELM = Claim("helm.toolkit.fluxcd.io/v2", "HelmRelease", "shop", "checkout")
TRACKED = {ARGO_TRACKING: "web:apps/Deployment:shop/checkout"}
FLUX = {FLUX_KUSTOMIZATION: "apps", "kustomize.toolkit.fluxcd.io/namespace": "flux-system"}
HELMED = {FLUX_HELM: "checkout", "helm.toolkit.fluxcd.io/namespace": "shop"}
LISTED = {"group": "apps", "version": "v1", "kind": "Deployment", "namespace": "shop", "name": "checkout"}
ID = "shop_checkout_apps_Deployment"


def made(claim: Claim, raw: Json) -> KubeObject:
    meta = {"name": claim.name, "namespace": claim.namespace, "uid": "u", "resourceVersion": "1", **raw.pop("metadata", {})}
    return KubeObject({**raw, "metadata": meta}, claim.kind, claim.api_version)


def application(*, server: str = "https://kubernetes.default.svc", resources: Any = (LISTED,), **more: Any) -> KubeObject:
    raw = {"spec": {"destination": {"server": server, "namespace": "shop"}}, "status": {"resources": list(resources)}}
    return made(APP, {**raw, **more})


def kustomization(claim: Claim = KUSTOMIZATION, ids: Any = (ID,), **spec: Any) -> KubeObject:
    entries = [{"id": i, "v": "v1"} for i in ids]
    return made(claim, {"spec": {"interval": "10m", **spec}, "status": {"inventory": {"entries": entries}}})


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (deployment(), ()),
        (deployment(notes=TRACKED), (APP,)),
        (deployment(notes={ARGO_TRACKING: "team-a_web:apps/Deployment:shop/checkout"}), (Claim(APP.api_version, "Application", "team-a", "web"),)),
        (deployment(labels=FLUX), (KUSTOMIZATION,)),
        (deployment(labels=HELMED), (HELM,)),
        (deployment(notes=TRACKED, labels=FLUX), (APP, KUSTOMIZATION)),
        (deployment(labels={ARGO_INSTANCE: "web"}), (Claim(APP.api_version, "Application", "argocd", "web", certain=False),)),
        (deployment(labels={ARGO_INSTANCE: "web", **HELMED}), (HELM,)),  # a chart's own label, under Flux
        (deployment(labels={ARGO_INSTANCE: "web"}, ownerReferences=[{"kind": "Rollout", "name": "x", "controller": True}]), ()),
    ],
)  # fmt: skip
def test_signs(target: KubeObject, found: tuple[Claim, ...]) -> None:
    assert claims(target) == found


CONFIRMED: list[tuple[KubeObject, Claim, KubeObject, int]] = [
    (deployment(notes=TRACKED), APP, application(resources=(LISTED, {"kind": "Service", "namespace": "shop", "name": "checkout"})), 2),
    (deployment(notes=TRACKED), APP, made(APP, {"spec": {"destination": {"name": "in-cluster"}}, "status": {"resources": [LISTED]}}), 1),
    (deployment(labels=FLUX), KUSTOMIZATION, kustomization(ids=(ID, "shop_a__Service", "shop_b__Secret")), 3),
    (deployment(labels=HELMED), HELM, kustomization(HELM), 1),
]


@pytest.mark.parametrize(("target", "claim", "answer", "governs"), CONFIRMED)
def test_an_inventory_that_lists_it_confirms(target: KubeObject, claim: Claim, answer: KubeObject, governs: int) -> None:
    owner = owner_of(target, {claim: answer}, ACCOUNT)
    assert owner is not None
    assert (owner.confirmed, owner.governs, owner.problem) == (True, governs, "")
    assert owner.pause == Pause(api_version=claim.api_version, kind=claim.kind, namespace=claim.namespace, name=claim.name, hold_seconds=0)


REFUSED: list[tuple[str, KubeObject, Claim, Any, str]] = [
    ("listed elsewhere", deployment(notes=TRACKED), APP, application(resources=({**LISTED, "namespace": "web"},)), "does not list"),
    ("another kind", deployment(notes=TRACKED), APP, application(resources=({**LISTED, "kind": "StatefulSet"},)), "does not list"),
    ("another group", deployment(notes=TRACKED), APP, application(resources=({**LISTED, "group": "apps.example"},)), "does not list"),
    ("claims it", deployment(notes=TRACKED), APP, application(resources=({**LISTED, "requiresPruning": True},)), "does not list"),
    ("a hook", deployment(notes=TRACKED), APP, application(resources=({**LISTED, "hook": True},)), "does not list"),
    ("nothing listed", deployment(notes=TRACKED), APP, application(resources=()), "does not list"),
    ("no list", deployment(notes=TRACKED), APP, application(status={"resources": 7}), "does not list"),
    ("strings", deployment(notes=TRACKED), APP, application(status={"resources": ["checkout"]}), "does not list"),
    ("another cluster", deployment(notes=TRACKED), APP, application(server="https://10.0.0.1"), "whether that is this cluster"),
    ("no destination", deployment(notes=TRACKED), APP, application(spec={}), "whether that is this cluster"),
    (
        "running",
        deployment(notes=TRACKED),
        APP,
        application(status={"resources": [LISTED], "operationState": {"phase": "Running"}}),
        "half-way",
    ),
    (
        "a set",
        deployment(notes=TRACKED),
        APP,
        application(metadata={"ownerReferences": [{"kind": "ApplicationSet", "name": "all", "controller": True}]}),
        "ApplicationSet all made it",
    ),
    ("going", deployment(notes=TRACKED), APP, application(metadata={"deletionTimestamp": "2026-07-01T12:00:00Z"}), "being deleted"),
    ("gone", deployment(notes=TRACKED), APP, Absent("Application/web", "GET", NOW), "does not exist"),
    (
        "forbidden",
        deployment(notes=TRACKED),
        APP,
        NotLooked("Application/web", "forbidden: no"),
        f"kubectl create rolebinding nightorders-pause-argocd -n argocd --clusterrole=nightorders-pause-argocd --serviceaccount={ACCOUNT}",
    ),
    (
        "no such kind",
        deployment(notes=TRACKED),
        APP,
        NotLooked("Application/web", "no such kind on this cluster: Application"),
        "no such kind",
    ),
    ("away", deployment(notes=TRACKED), APP, NotLooked("Application/web", "failed: 503"), "cannot be read: failed: 503"),
    ("not listed by Flux", deployment(labels=FLUX), KUSTOMIZATION, kustomization(ids=("web_checkout_apps_Deployment",)), "does not list"),
    ("remote", deployment(labels=FLUX), KUSTOMIZATION, kustomization(kubeConfig={"secretRef": {"name": "x"}}), "another cluster"),
    (
        "old Helm",
        deployment(labels=HELMED),
        HELM,
        made(HELM, {"spec": {}, "status": {"history": [{"name": "checkout"}]}}),
        "records no inventory",
    ),
    (
        "upgrading",
        deployment(labels=HELMED),
        HELM,
        made(
            HELM,
            {"spec": {}, "status": {"inventory": {"entries": [{"id": ID}]}, "conditions": [{"type": "Reconciling", "status": "True"}]}},
        ),
        "is running",
    ),
]


@pytest.mark.parametrize(("target", "claim", "answer", "says"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_its_own_object_does_not_confirm_is_a_problem(target: KubeObject, claim: Claim, answer: Any, says: str) -> None:
    owner = owner_of(target, {claim: answer}, ACCOUNT)
    assert owner is not None
    assert not owner.confirmed
    assert says in owner.problem


def test_a_sign_that_names_no_possible_object_never_reaches_a_command() -> None:
    for sign in ("a;reboot_web:x", "$(id):x", "web web:x", "", "WEB:x", "../secrets_x:y"):
        target = deployment(notes={ARGO_TRACKING: sign})
        (claim,) = claims(target)
        assert not claim.possible
        owner = owner_of(target, {claim: NotLooked("", "forbidden: no")}, ACCOUNT)
        assert owner is not None
        assert (owner.confirmed, owner.problem) == (False, "its sign names no possible object")
    label = deployment(labels={ARGO_INSTANCE: "Web"})
    assert owner_of(label, {}, ACCOUNT) is None


@pytest.mark.parametrize(
    "target",
    [deployment(notes=TRACKED, labels=FLUX), deployment(notes=TRACKED, ownerReferences=[{"kind": "Rollout", "name": "x", "controller": True}])],
)  # fmt: skip
def test_two_who_claim_it_are_one_too_many(target: KubeObject) -> None:
    owner = owner_of(target, {APP: application(), KUSTOMIZATION: kustomization()}, ACCOUNT)
    assert owner is not None
    assert (owner.confirmed, owner.pause) == (False, None)
    assert "more than one" in owner.problem


DOUBT = Claim(APP.api_version, "Application", "argocd", "web", certain=False)


@pytest.mark.parametrize(
    ("answer", "owned"),
    [
        (application(), True),
        (application(resources=()), False),
        (Absent("Application/web", "GET", NOW), False),
        (NotLooked("Application/web", "no such kind on this cluster: Application"), False),
        (NotLooked("Application/web", "forbidden: no"), True),  # cannot tell is not "no"
        (NotLooked("Application/web", "failed: 503"), True),
    ],
)
def test_the_instance_label_alone_is_no_sign(answer: Any, owned: bool) -> None:
    assert (owner_of(deployment(labels={ARGO_INSTANCE: "web"}), {DOUBT: answer}, ACCOUNT) is not None) is owned


# ---------------------------------------------------------------- pausing


MINE, OTHER = execution().id, "no-" + "1" * 20


@pytest.mark.parametrize(
    ("owner", "state"),
    [
        (application(), "Running"),
        (application(metadata={"annotations": {SKIP_RECONCILE: "false"}}), "Running"),
        (application(metadata={"annotations": {PAUSED_BY_ANNOTATION: MINE}}), "Running"),  # somebody took the pause away, not the mark
        (application(metadata={"annotations": {SKIP_RECONCILE: "true"}}), "Theirs"),
        (application(metadata={"annotations": {SKIP_RECONCILE: "1"}}), "Theirs"),  # Go reads it with ParseBool
        (application(metadata={"annotations": {SKIP_RECONCILE: "true", PAUSED_BY_ANNOTATION: "alice"}}), "Theirs"),
        (application(metadata={"annotations": {SKIP_RECONCILE: "true", PAUSED_BY_ANNOTATION: MINE}}), "Ours"),
        (application(metadata={"annotations": {SKIP_RECONCILE: "true", PAUSED_BY_ANNOTATION: OTHER}}), "Shared"),
        (kustomization(), "Running"),
        (kustomization(suspend=False), "Running"),
        (kustomization(suspend=True), "Theirs"),
    ],
)
def test_whose_pause_it_is(owner: KubeObject, state: str) -> None:
    assert gitops.state(owner, MINE) == state


@pytest.mark.parametrize(
    "owner", [application(), application(metadata={"annotations": {"a": "b"}}), kustomization(), kustomization(HELM, suspend=False)]
)
def test_a_pause_and_its_end_leave_everything_else(owner: KubeObject) -> None:
    held = KubeObject(apply_patch(owner.raw, gitops.pause_patch(owner, MINE)), owner.kind, owner.api_version)
    assert gitops.state(held, MINE) == "Ours"
    again = KubeObject(apply_patch(held.raw, gitops.resume_patch(held)), owner.kind, owner.api_version)
    assert gitops.state(again, MINE) == "Running"
    assert PAUSED_BY_ANNOTATION not in again.annotations
    assert again.annotations == owner.annotations
    assert {**again.at("spec"), "suspend": None} == {**owner.at("spec"), "suspend": None}
    assert again.at("status") == owner.at("status")


@pytest.mark.parametrize(
    ("result", "after"), [(None, None), ("Recovered", 60), ("Undone", 0), ("Escalated", 0), ("Superseded", 0), ("NotApplied", 0)]
)
def test_when_a_pause_is_lifted(result: str | None, after: int | None) -> None:
    pause = Pause(api_version="v1", kind="Application", namespace="argocd", name="web", hold_seconds=60)
    end = gitops.lift_at(result, NOW, pause, NOW + timedelta(hours=1))
    assert end == (None if after is None else NOW + timedelta(seconds=after))


def test_the_command_for_a_human_is_for_that_kind() -> None:
    assert gitops.by_hand(
        Pause(api_version=APP.api_version, kind="Application", namespace="argocd", name="web", hold_seconds=1)
    ).startswith("kubectl annotate applications.argoproj.io web -n argocd argocd.argoproj.io/skip-reconcile- ")
    flux = gitops.by_hand(Pause(api_version=HELM.api_version, kind="HelmRelease", namespace="shop", name="checkout", hold_seconds=1))
    assert flux.startswith("kubectl patch helmreleases.helm.toolkit.fluxcd.io checkout -n shop --type=merge -p '")
