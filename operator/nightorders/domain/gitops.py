"""GitOps owners: which object governs a workload, whether it says so itself, how it is paused and how it goes on again. Pure.

A sign on the workload (a tracking id, a label) is a claim that anybody with write access to the workload can forge. It is believed as
far as it lowers; it is acted on only when the owner's own inventory lists this very object (threats.md 15).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from ..api.meta import NAME_PATTERN, PAUSED_BY_ANNOTATION, line
from ..api.v1alpha1.incident import Execution, Pause
from .ownership import ARGO_TRACKING, FLUX_HELM, FLUX_KUSTOMIZATION, Owner, governed_by
from .snapshot import Absent, KubeObject, NotLooked

ARGO_INSTANCE = "app.kubernetes.io/instance"  # of any Helm chart, too: counts only with an Application that lists the object
ARGO_NAMESPACE = "argocd"
SKIP_RECONCILE = "argocd.argoproj.io/skip-reconcile"
APPLICATION = ("argoproj.io/v1alpha1", "Application")
KUSTOMIZATION = ("kustomize.toolkit.fluxcd.io/v1", "Kustomization")
HELM_RELEASE = ("helm.toolkit.fluxcd.io/v2", "HelmRelease")
HERE = frozenset({"https://kubernetes.default.svc", "https://kubernetes.default"})
EXECUTION_PREFIX = "no-"
ROLES = {"Application": "nightorders-pause-argocd", "Kustomization": "nightorders-pause-flux", "HelmRelease": "nightorders-pause-flux"}

State = Literal["Running", "Ours", "Shared", "Theirs"]


@dataclass(frozen=True)
class Claim:
    """Which object is said to govern the workload. `certain`: a sign that only a GitOps tool (or a forger) makes."""

    api_version: str
    kind: str
    namespace: str
    name: str
    certain: bool = True

    @property
    def title(self) -> str:
        return line(f"{self.kind} {self.namespace}/{self.name}", 160)

    @property
    def possible(self) -> bool:
        """Whether there can be such an object. Signs are text that others write, and it ends up in a command to paste."""
        return all(len(part) <= 253 and re.fullmatch(NAME_PATTERN, part) for part in (self.namespace, self.name))


def claims(target: KubeObject) -> tuple[Claim, ...]:
    """Every GitOps object that signs on the workload point to; the doubtful one only where there is no other."""
    found = []
    if (tracking := target.annotations.get(ARGO_TRACKING)) is not None:
        found.append(_application(tracking.split(":")[0]))
    for label, (api_version, kind) in ((FLUX_KUSTOMIZATION, KUSTOMIZATION), (FLUX_HELM, HELM_RELEASE)):
        if (name := target.labels.get(label)) is not None:
            found.append(Claim(api_version, kind, target.labels.get(label.replace("/name", "/namespace"), ""), name))
    if not found and target.controller is None and (instance := target.labels.get(ARGO_INSTANCE)):
        found.append(Claim(*APPLICATION, ARGO_NAMESPACE, instance, certain=False))
    return tuple(found)


def _application(app: str) -> Claim:
    """`<app>`, or `<namespace>_<app>` where Applications live in any namespace. (A name of Kubernetes has no underscore.)"""
    namespace, underscore, name = app.partition("_")
    return Claim(*APPLICATION, namespace, name) if underscore else Claim(*APPLICATION, ARGO_NAMESPACE, app)


def owner_of(target: KubeObject, answers: Mapping[Claim, KubeObject | Absent | NotLooked], account: str) -> Owner | None:
    """Who would revert a live edit, confirmed as far as it can be. `account`: `<namespace>:<name>` of ours, for the command to paste."""
    signed = governed_by(target)
    found = claims(target)
    if not found:
        return signed
    if len(found) > 1 or target.controller is not None:
        who = ", ".join(c.title for c in found)
        return Owner(_who(signed, found[0]), problem=line(f"more than one claims it ({who}); which of them would revert it cannot be told"))
    (claim,) = found
    return _confirmed(target, claim, signed, answers.get(claim), account)


def _who(signed: Owner | None, claim: Claim) -> str:
    return signed.who if signed else claim.title


def _confirmed(
    target: KubeObject, claim: Claim, signed: Owner | None, answer: KubeObject | Absent | NotLooked | None, account: str
) -> Owner | None:
    title = claim.title
    if not claim.possible:
        return Owner(_who(signed, claim), problem="its sign names no possible object") if claim.certain else None
    match answer:
        case None:
            return Owner(_who(signed, claim), problem=f"{title} was not looked at")
        case Absent():
            return Owner(_who(signed, claim), problem=f"{title} does not exist") if claim.certain else None
        case NotLooked(_, because, _):
            if not claim.certain and because.startswith("no such kind"):
                return None
            fix = f"; allow it with: {grant(claim.kind, claim.namespace, account)}" if because.startswith("forbidden") else ""
            return Owner(_who(signed, claim), problem=f"{title} cannot be read: {because}{fix}")
    listed, governs = inventory(answer, target)
    if not listed and not claim.certain:
        return None
    pause = Pause(api_version=claim.api_version, kind=claim.kind, namespace=claim.namespace, name=claim.name, hold_seconds=0)
    problem = "" if listed else f"the inventory of {title} does not list {target.title} of {target.namespace}{_why_no_inventory(answer)}"
    problem = problem or _elsewhere(answer) or _unstable(answer)
    return Owner(_who(signed, claim) if claim.certain else title, pause, not problem, governs, line(problem))


def inventory(owner: KubeObject, target: KubeObject) -> tuple[bool, int]:
    """Whether the owner's own inventory lists that very object, and how many objects it lists."""
    group = target.api_version.rpartition("/")[0]
    if owner.kind == "Application":
        entries = _entries(owner, "status", "resources")
        wanted = (group, target.kind, target.namespace, target.name)
        # An object that is there, claims the Application and is not in Git, is listed, too: it "requires pruning". A forged id does that.
        listed = [
            e
            for e in entries
            if (e.get("group", ""), e.get("kind"), e.get("namespace", ""), e.get("name")) == wanted
            and not e.get("requiresPruning")
            and not e.get("hook")
        ]
        return bool(listed), len(entries)
    ids = [e.get("id") for e in _entries(owner, "status", "inventory", "entries")]
    return f"{target.namespace}_{target.name}_{group}_{target.kind}" in ids, len(ids)


def _entries(owner: KubeObject, *path: str) -> list[Mapping[str, Any]]:
    found = owner.at(*path)
    return [e for e in found if isinstance(e, Mapping)] if isinstance(found, list) else []


def _why_no_inventory(owner: KubeObject) -> str:
    if owner.kind == "HelmRelease" and owner.at("status", "inventory") is None:
        return " (this version of helm-controller records no inventory, so nothing can be confirmed)"
    return ""


def _elsewhere(owner: KubeObject) -> str:
    """An inventory speaks of the cluster that the owner deploys to, which need not be this one."""
    if owner.kind == "Application":
        server, name = owner.at("spec", "destination", "server", default=""), owner.at("spec", "destination", "name", default="")
        if server in HERE or (not server and name == "in-cluster"):
            return ""
        return f"it deploys to {server or name or 'nowhere'}, and whether that is this cluster cannot be told"
    return "it deploys to another cluster (spec.kubeConfig)" if owner.at("spec", "kubeConfig") is not None else ""


def _unstable(owner: KubeObject) -> str:
    """Why a pause would not hold, or would stop something half-way."""
    if owner.terminating:
        return "it is being deleted"
    parent = owner.controller
    if owner.kind == "Application" and parent is not None:
        # What an ApplicationSet preserves stands in its spec and in its controller's flags; skip-reconcile is not among the defaults.
        return f"{parent.get('kind')} {parent.get('name')} made it, and would take the pause away again"
    if owner.kind == "Application" and owner.at("status", "operationState", "phase") in ("Running", "Terminating"):
        return "a sync of it is running, and a pause would stop it half-way"
    if owner.kind == "HelmRelease" and (owner.condition("Reconciling") or {}).get("status") == "True":
        return "an install, upgrade or rollback of it is running"
    return ""


# ---------------------------------------------------------------- pausing and going on


def state(owner: KubeObject, execution: str) -> State:
    """Running, or paused: by this execution (Ours), by another one of the operator (Shared), by somebody else (Theirs)."""
    if not paused(owner):
        return "Running"
    mark = owner.annotations.get(PAUSED_BY_ANNOTATION, "")
    if not mark.startswith(EXECUTION_PREFIX):
        return "Theirs"
    return "Ours" if mark == execution else "Shared"


def paused(owner: KubeObject) -> bool:
    """Whether it reconciles nothing at the moment."""
    if owner.kind == "Application":
        return owner.annotations.get(SKIP_RECONCILE, "").lower() in ("1", "t", "true")
    return owner.at("spec", "suspend") is True


def pause_patch(owner: KubeObject, execution: str) -> Mapping[str, Any]:
    """Merge patch (without preconditions) that pauses it in the name of that execution."""
    if owner.kind == "Application":
        return {"metadata": {"annotations": {SKIP_RECONCILE: "true", PAUSED_BY_ANNOTATION: execution}}}
    return {"metadata": {"annotations": {PAUSED_BY_ANNOTATION: execution}}, "spec": {"suspend": True}}


def resume_patch(owner: KubeObject) -> Mapping[str, Any]:
    """Merge patch that takes our pause away, with its mark."""
    if owner.kind == "Application":
        return {"metadata": {"annotations": {SKIP_RECONCILE: None, PAUSED_BY_ANNOTATION: None}}}
    return {"metadata": {"annotations": {PAUSED_BY_ANNOTATION: None}}, "spec": {"suspend": False}}


def by_hand(pause: Pause) -> str:
    """The command with which a human lifts the operator's pause."""
    if pause.kind == "Application":
        return f"kubectl annotate applications.argoproj.io {pause.name} -n {pause.namespace} {SKIP_RECONCILE}- {PAUSED_BY_ANNOTATION}-"
    plural = f"{pause.kind.lower()}s.{pause.api_version.partition('/')[0]}"
    patch = '{"spec":{"suspend":false},"metadata":{"annotations":{"' + PAUSED_BY_ANNOTATION + '":null}}}'
    return f"kubectl patch {plural} {pause.name} -n {pause.namespace} --type=merge -p '{patch}'"


def lift_at(result: str | None, ended_at: datetime | None, pause: Pause, now: datetime) -> datetime | None:
    """When a pause is lifted: some time after an action that helped, at once after any other end; None while the execution runs."""
    if result is None:
        return None
    return (ended_at or now) + timedelta(seconds=pause.hold_seconds) if result == "Recovered" else (ended_at or now)


def told(pause: Pause, e: Execution, owner: KubeObject | Absent | NotLooked | None) -> str:
    """What an Incident says of the owner while its execution runs; empty where nothing is known."""
    if not isinstance(owner, KubeObject):
        return ""
    match state(owner, e.id):
        case "Theirs":
            return f"{pause.title} was paused by somebody else already; it is left as it is"
        case "Running":
            return f"{pause.title} is not paused any more: somebody lifted it, and the change may be reverted"
        case _:
            return f"{pause.title} is paused around the action, with all that it governs; it goes on at once unless the action helps"


def role(kind: str) -> str:
    """The ClusterRole that lets the operator pause owners of that kind."""
    return ROLES.get(kind, "")


def grant(kind: str, namespace: str, account: str) -> str:
    """The commands that let the operator read and pause owners of that kind in that namespace."""
    name = role(kind)
    return (
        f"kubectl apply -k manifests/actions/{name.removeprefix('nightorders-')} && "
        f"kubectl create rolebinding {name} -n {namespace} --clusterrole={name} --serviceaccount={account}"
    )
