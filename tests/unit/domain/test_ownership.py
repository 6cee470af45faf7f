"""Who would revert a live edit."""

from __future__ import annotations

import pytest

from nightorders.domain.ownership import ARGO_TRACKING, FLUX_HELM, FLUX_KUSTOMIZATION, governed_by, helm_release
from nightorders.domain.snapshot import KubeObject
from tests.unit.domain.make import deployment, replica_set

HELM = {"meta.helm.sh/release-name": "checkout", "meta.helm.sh/release-namespace": "shop"}


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (deployment(), ""),
        (deployment(notes={ARGO_TRACKING: "shop:apps/Deployment:shop/checkout"}), "Argo CD"),
        (deployment(notes={ARGO_TRACKING: ""}), "Argo CD"),  # forged or not: a sign that lowers may be believed
        (deployment(labels={FLUX_KUSTOMIZATION: "apps"}), "Flux Kustomization apps"),
        (deployment(labels={FLUX_HELM: "checkout"}), "Flux HelmRelease checkout"),
        (deployment(labels={"app.kubernetes.io/managed-by": "Helm"}, notes=HELM), ""),  # Helm alone reverts nothing
        (replica_set(6), "Deployment/checkout, its controller"),
        (deployment(ownerReferences=[{"kind": "Rollout", "name": "checkout", "controller": True}]), "Rollout/checkout, its controller"),
        (deployment(ownerReferences=[{"kind": "Team", "name": "a"}]), ""),
    ],
)
def test_who_governs(target: KubeObject, says: str) -> None:
    owner = governed_by(target)
    assert (owner.who if owner else "").startswith(says)
    assert bool(owner) is bool(says)


def test_a_long_tracking_id_is_cut() -> None:
    owner = governed_by(deployment(notes={ARGO_TRACKING: "x" * 5000}))
    assert owner is not None
    assert len(owner.who) < 200


@pytest.mark.parametrize(
    ("target", "release"),
    [
        (deployment(labels={"app.kubernetes.io/managed-by": "Helm"}, notes=HELM), "checkout"),
        (deployment(notes=HELM), ""),
        (deployment(labels={"app.kubernetes.io/managed-by": "Helm"}), ""),
    ],
)
def test_a_helm_release_is_named_for_the_human(target: KubeObject, release: str) -> None:
    assert helm_release(target) == release
