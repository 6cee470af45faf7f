"""Who else governs an object, so that a live edit would be reverted or fought (docs/concepts.md lists the signs)."""

from __future__ import annotations

from .snapshot import KubeObject

ARGO_TRACKING = "argocd.argoproj.io/tracking-id"
FLUX_KUSTOMIZATION = "kustomize.toolkit.fluxcd.io/name"
FLUX_HELM = "helm.toolkit.fluxcd.io/name"


def governed_by(target: KubeObject) -> str:
    """Who would revert a live edit; empty if nobody is known. A Helm release alone does not revert anything."""
    if (argo := target.annotations.get(ARGO_TRACKING)) is not None:
        return f"Argo CD (annotation {ARGO_TRACKING}: {argo[:80]})"
    if (name := target.labels.get(FLUX_KUSTOMIZATION)) is not None:
        return f"Flux Kustomization {name}"
    if (name := target.labels.get(FLUX_HELM)) is not None:
        return f"Flux HelmRelease {name}"
    if (owner := target.controller) is not None:
        return f"{owner.get('kind')}/{owner.get('name')}, its controller"
    return ""


def helm_release(target: KubeObject) -> str:
    """Name of the Helm release that made it, or empty."""
    return target.annotations.get("meta.helm.sh/release-name", "") if target.labels.get("app.kubernetes.io/managed-by") == "Helm" else ""
