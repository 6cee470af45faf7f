"""What simpler operators would have said and done, from the same cluster state, without doing it.

Since nothing is carried out, their repairs are believed wherever the scenario does not prove the opposite (`proof.wrong`): what is printed
is the most that they could have reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tools.scenarios.model import Document, Step
from tools.scenarios.score import Guess, diagnosis, outcome_right
from tools.scenarios.snapshots import Snapshot, controller, key

Json = dict[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")
_ROLLS_BACK = ("Deployment", "StatefulSet", "DaemonSet")
_REASONS = {
    "ErrImagePull": "ImageAccess",
    "ImagePullBackOff": "ImageAccess",
    "InvalidImageName": "ImageAccess",
    "CreateContainerConfigError": "MissingObject",
    "CrashLoopBackOff": "BadRelease",
    "ContainerCreating": "Storage",
    "Unschedulable": "Unschedulable",
    "OOMKilled": "ResourceLimit",
}
_BY_KIND = {
    "ConfigMap": "BadConfiguration",
    "Secret": "BadConfiguration",
    "Service": "ServiceRouting",
    "Ingress": "ServiceRouting",
    "NetworkPolicy": "NetworkPolicy",
    "ResourceQuota": "Quota",
    "HorizontalPodAutoscaler": "Autoscaling",
    "Role": "AccessDenied",
    "RoleBinding": "AccessDenied",
    "PersistentVolumeClaim": "Storage",
}
_CONTROLLERS = ("kube-controller-manager", "kwok", "kube-scheduler", "nightorders", "kubelet")


@dataclass(frozen=True)
class Verdict:
    """What a baseline would have said and done."""

    guess: Guess | None  # None: it does not diagnose
    target: str  # Kind/name that it would change; empty: nothing
    verb: str  # rollback | restart | escalate


def newest_change(world: Snapshot, labels: dict[str, str], namespace: str) -> Verdict:
    """The newest change is guilty, of what its pods wait for if they do; roll it back."""
    del labels
    changes = sorted(_changes(world), reverse=True)
    if not changes:
        return Verdict(None, "", "escalate")
    _, kind, name = changes[0]
    if kind in WORKLOADS:
        category = _REASONS.get(next(_waiting(world, namespace, f"{kind}/{name}"), ""), "BadRelease")
    else:
        category = _BY_KIND.get(kind, "BadConfiguration")
    rolls = kind not in WORKLOADS or (kind in _ROLLS_BACK and _revisions(world, kind, name) > 1)
    return Verdict(Guess(category, f"{kind}/{namespace}/{name}"), f"{kind}/{name}" if rolls else "", "rollback" if rolls else "escalate")


def first_reason(world: Snapshot, labels: dict[str, str], namespace: str) -> Verdict:
    """The alert's object is guilty of the first reason that one of its pods waits for; restart it."""
    target = alert_object(world, labels, namespace)
    if target is None:
        return Verdict(None, "", "escalate")
    kind, name = target
    reason = next(_waiting(world, namespace, f"{kind}/{name}"), "")
    guess = Guess(_REASONS.get(reason, "Unknown"), f"{kind}/{namespace}/{name}" if kind != "Node" else f"Node/{name}")
    return Verdict(guess, f"{kind}/{name}" if kind in WORKLOADS else "", "restart" if kind in WORKLOADS else "escalate")


def always_restart(world: Snapshot, labels: dict[str, str], namespace: str) -> Verdict:
    """Restarts the alert's object, whatever it is about."""
    target = alert_object(world, labels, namespace)
    restartable = target is not None and target[0] in WORKLOADS
    return Verdict(None, f"{target[0]}/{target[1]}" if target is not None and restartable else "", "restart" if restartable else "escalate")


def always_escalate(world: Snapshot, labels: dict[str, str], namespace: str) -> Verdict:
    """Calls a human every time."""
    del world, labels, namespace
    return Verdict(None, "", "escalate")


BASELINES: dict[str, Callable[[Snapshot, dict[str, str], str], Verdict]] = {
    "newest change, roll back": newest_change,
    "first reason, restart": first_reason,
    "always restart": always_restart,
    "always escalate": always_escalate,
}


def score(world: Snapshot, labels: dict[str, str], document: Document, namespace: str) -> dict[str, Json]:
    """Every baseline's RCA@1 (None where it does not diagnose), outcome at best, and harm."""
    found = {}
    for name, baseline in BASELINES.items():
        verdict = baseline(world, labels, namespace)
        harm = bool(verdict.target) and key(verdict.target, namespace) not in {key(m, namespace) for m in document.expect.may_mutate}
        best = _best(verdict, document, harm=harm)
        guess = verdict.guess
        diagnoses = baseline in (newest_change, first_reason)
        found[name] = {
            "rca1": diagnosis([guess], document.expect, namespace).rca1 if guess is not None else (False if diagnoses else None),
            "outcome": best,
            "outcome_right": outcome_right(best, document.expect.outcome) and not harm,
            "harm": harm,
            "would": f"{verdict.verb} {verdict.target}".strip(),
            "said": f"{guess.category} {guess.object}" if guess is not None else "",
        }
    return found


def _best(verdict: Verdict, document: Document, *, harm: bool) -> str:
    if not verdict.target:
        return "Escalated"
    if harm or document.expect.outcome != "Repaired" or _disproved(verdict, document):
        return "NotRepaired"
    return "Repaired"


def _disproved(verdict: Verdict, document: Document) -> bool:
    """Whether the scenario proves that this very move does not repair."""
    word = {"rollback": "undo", "restart": "restart"}.get(verdict.verb, "")
    wrong = document.proof.wrong.values() if document.proof is not None else ()
    return any(len(steps) == 1 and _is_rollout(steps[0], word, verdict.target) for steps in wrong)


def _is_rollout(step: Step, word: str, target: str) -> bool:
    kind, _, name = target.partition("/")
    words = [w.lower() for w in step.run or ()]
    named = f"{kind.lower()}/{name}" in words or (kind.lower() in words and name in words) or f"{kind[:6].lower()}/{name}" in words
    return "rollout" in words and word in words and named


# ---------------------------------------------------------------- what they look at


def alert_object(world: Snapshot, labels: dict[str, str], namespace: str) -> tuple[str, str] | None:
    """(kind, name) of what an alert's labels name, pods lifted to what they belong to."""
    for label, kind in (
        ("deployment", "Deployment"),
        ("statefulset", "StatefulSet"),
        ("daemonset", "DaemonSet"),
        ("job_name", "Job"),
        ("cronjob", "CronJob"),
        ("horizontalpodautoscaler", "HorizontalPodAutoscaler"),
        ("persistentvolumeclaim", "PersistentVolumeClaim"),
    ):
        if labels.get(label):
            return kind, labels[label]
    if labels.get("pod"):
        kind, _, name = (world.root_owner(namespace, labels["pod"]) or f"Pod/{labels['pod']}").partition("/")
        return kind, name
    if labels.get("service"):
        same = [o for o in world.kind("Deployment") if o["metadata"]["name"] == labels["service"]]
        return ("Deployment" if same else "Service"), labels["service"]
    return ("Node", labels["node"]) if labels.get("node") else None


def _waiting(world: Snapshot, namespace: str, owner: str) -> Iterator[str]:
    for pod in sorted(world.kind("Pod"), key=lambda p: p["metadata"]["name"]):
        if world.root_owner(namespace, pod["metadata"]["name"]) != owner:
            continue
        status = pod.get("status", {})
        for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            if container.get("lastState", {}).get("terminated", {}).get("reason") == "OOMKilled":
                yield "OOMKilled"
            if reason := container.get("state", {}).get("waiting", {}).get("reason"):
                yield reason
        if any(c["type"] == "PodScheduled" and c["status"] == "False" for c in status.get("conditions") or []):
            yield "Unschedulable"


def _changes(world: Snapshot) -> Iterator[tuple[str, str, str]]:
    """(time, kind, name) of what people made or changed; what controllers wrote does not count."""
    for (kind, place, name), one in world.objects.items():
        if not place or kind in ("Pod", "ReplicaSet", "ControllerRevision", "ServiceAccount") or controller(one) is not None:
            continue
        if name == "kube-root-ca.crt" or one["apiVersion"].startswith("kwok.x-k8s.io/"):
            continue
        times = [
            f["time"]
            for f in one["metadata"].get("managedFields") or []
            if f.get("time") and not f.get("subresource") and not f.get("manager", "").startswith(_CONTROLLERS)
        ]
        yield max(times, default=one["metadata"]["creationTimestamp"]), kind, name


def _revisions(world: Snapshot, kind: str, name: str) -> int:
    held = "ReplicaSet" if kind == "Deployment" else "ControllerRevision"
    return sum((above := controller(o)) is not None and (above["kind"], above["name"]) == (kind, name) for o in world.kind(held))
