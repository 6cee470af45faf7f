"""Who else governs an object, so that a live edit would be reverted or fought (docs/concepts.md lists the signs)."""

from __future__ import annotations

from dataclasses import dataclass

from ..api.v1alpha1.incident import Pause
from .snapshot import KubeObject

ARGO_TRACKING = "argocd.argoproj.io/tracking-id"
FLUX_KUSTOMIZATION = "kustomize.toolkit.fluxcd.io/name"
FLUX_HELM = "helm.toolkit.fluxcd.io/name"


@dataclass(frozen=True)
class Owner:
    """Who would revert a live edit. `pause`: what would have to be paused; None: it cannot be (then `problem` says why).

    `confirmed`: the owner's own inventory lists this very object with this namespace as its destination, and `governs` is the number of
    objects in that inventory. A sign on the object alone proves nothing: anybody who may label it can forge it (threats.md 15).
    """

    who: str
    pause: Pause | None = None
    confirmed: bool = False
    governs: int = 0
    problem: str = ""


def governed_by(target: KubeObject) -> Owner | None:
    """Who would revert a live edit, by the signs on the object; None if nobody is known. A Helm release alone does not revert anything."""
    if (argo := target.annotations.get(ARGO_TRACKING)) is not None:
        return Owner(f"Argo CD (annotation {ARGO_TRACKING}: {argo[:80]})", problem="its Application was not looked at")
    if (name := target.labels.get(FLUX_KUSTOMIZATION)) is not None:
        return Owner(f"Flux Kustomization {name}", problem="its Kustomization was not looked at")
    if (name := target.labels.get(FLUX_HELM)) is not None:
        return Owner(f"Flux HelmRelease {name}", problem="its HelmRelease was not looked at")
    if (owner := target.controller) is not None:
        return Owner(f"{owner.get('kind')}/{owner.get('name')}, its controller", problem="act on the owner instead")
    return None


def helm_release(target: KubeObject) -> str:
    """Name of the Helm release that made it, or empty."""
    return target.annotations.get("meta.helm.sh/release-name", "") if target.labels.get("app.kubernetes.io/managed-by") == "Helm" else ""
