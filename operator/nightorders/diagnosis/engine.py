"""The diagnosis engine's public face: what to list, which logs to read, and three questions about a snapshot.

Everything here is pure and total: the same snapshot and `now` give the same answer, and no object, however malformed, raises.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from ..api.meta import NAME_PATTERN
from ..api.v1alpha1.common import ObjectRef
from ..api.v1alpha1.ledger import HealthyRevision
from ..domain.diagnosis import Diagnosis
from ..domain.diagnosis import Finding as Kind
from ..domain.snapshot import KubeObject, LogKey, Snapshot
from . import supervisor
from .assess import assess
from .claim import Claim
from .evidence import safe
from .findings import TERMINAL
from .focus import focus
from .graph import WORKLOAD_KINDS, paths
from .neighbours import DNS_NAMESPACE, foreign_namespaces
from .scene import Scene, Workload
from .specialists import logs
from .specialists.workload import WorkloadReport, examine
from .world import World

MOST_LOGS = 20
MOST_FAILING = 12
MOST_QUIET = 8
MOST_BESIDE = 4

# Never Secret: listing them gives their values. What is missing among them shows in kubelet's messages.
KINDS: tuple[tuple[str, str], ...] = (
    ("v1", "Pod"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "Deployment"),
    ("v1", "ConfigMap"),
    ("v1", "Event"),
    ("v1", "Service"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ControllerRevision"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "ResourceQuota"),
    ("v1", "LimitRange"),
    ("v1", "ServiceAccount"),
    ("networking.k8s.io/v1", "Ingress"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
)
# What a verification and the detector look at, often: how pods, rollouts and what they need to start stand.
VITAL_KINDS = KINDS[:13]
CLUSTER_KINDS: tuple[tuple[str, str], ...] = (
    ("v1", "Node"),
    ("v1", "Namespace"),
    ("v1", "PersistentVolume"),
    ("storage.k8s.io/v1", "StorageClass"),
    ("scheduling.k8s.io/v1", "PriorityClass"),
    ("node.k8s.io/v1", "RuntimeClass"),
    ("networking.k8s.io/v1", "IngressClass"),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
    ("apiregistration.k8s.io/v1", "APIService"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
)
# Of namespaces that this one leans on: kube-system for DNS and the control plane's leases, and where a webhook's backend lives.
BESIDE_KINDS: tuple[tuple[str, str], ...] = (
    ("v1", "Pod"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("v1", "ConfigMap"),
    ("v1", "Service"),
    ("v1", "Event"),
    ("discovery.k8s.io/v1", "EndpointSlice"),
    ("coordination.k8s.io/v1", "Lease"),
)


@dataclass(frozen=True)
class StuckRollout:
    """A Deployment that does not get where its template says. `uid` is the Deployment's; `revision` its current revision's number.

    `since` is when the trouble began, by the API's own times; `reason` is a machine-readable word, `message` one safe line.
    """

    target: ObjectRef
    uid: str
    revision: str
    since: datetime
    reason: str
    message: str
    revision_uid: str = ""


def diagnose(
    snapshot: Snapshot, target: ObjectRef, healthy: tuple[HealthyRevision, ...], now: datetime, claim: Claim | None = None
) -> Diagnosis:
    """What is wrong with `target`, what that stands on, and what is not known.

    `healthy` is the Ledger's record of good revisions; `claim` is what a signal says is wrong (None: a human asks).
    """
    return supervisor.diagnose(snapshot, target, healthy, now, claim)


def wanted_logs(snapshot: Snapshot, target: ObjectRef) -> tuple[LogKey, ...]:
    """Logs worth a query: of one failing pod per (revision, node, reason) its present and its previous run, first the target's, then
    those of what it leans on, nearest first; of those of them that run, one pod. At most twenty.
    """
    scene = Scene(snapshot, snapshot.at, doubted=True)
    obj = supervisor.find(snapshot, target)
    if not isinstance(obj, KubeObject):
        return ()
    world = World(scene, (), None)
    looked_at = focus(world, target, obj)
    near = [t for s in looked_at.starts for t in sorted(paths(world.graph, s).items(), key=lambda kv: len(kv[1]))]
    order = {title: i for i, (title, _) in enumerate(near)}
    mine = {w.title for w in looked_at.workloads}
    others = sorted((w for w in world.workloads if w.title not in mine and w.title in order), key=lambda w: order[w.title])
    rest = [w for w in world.workloads if looked_at.whole and w.title not in mine]
    every = (*looked_at.workloads, *others, *rest)
    failing = dict.fromkeys(k for w in every for k in logs.wanted(world.case(w).report.findings))
    quiet = [w for w in every if not world.case(w).report.failing][:MOST_QUIET]
    running = [LogKey(p.name, c.name) for w in quiet for p in sorted(w.pods, key=lambda p: p.name)[:1] for c in p.containers if c.ever_ran]
    return tuple(dict.fromkeys((*tuple(failing)[:MOST_FAILING], *running)))[:MOST_LOGS]


def wanted_namespaces(snapshot: Snapshot) -> tuple[str, ...]:
    """Other namespaces that this one leans on: kube-system, homes of webhooks' backends, and those that are named as hosts; at most four."""
    scene = Scene(snapshot, snapshot.at)
    return tuple(n for n in dict.fromkeys((DNS_NAMESPACE, *foreign_namespaces(scene))) if n != snapshot.namespace)[:MOST_BESIDE]


def symptom_holds(snapshot: Snapshot, target: ObjectRef, now: datetime) -> bool | None:
    """Whether the target still fails (True), is complete and available (False), or nothing can tell, as in mid-rollout (None)."""
    scene = Scene(snapshot, now)
    obj = supervisor.find(snapshot, target)
    if target.kind not in WORKLOAD_KINDS or not isinstance(obj, KubeObject) or not scene.looked("Pod"):
        return None
    workload = scene.workload(obj)
    report = examine(scene, workload)
    if _stuck(workload, report):
        return True
    state = assess(scene, workload, report)
    if state.kind is Kind.FAULT:
        return True
    if state.kind is Kind.UNKNOWN and state.reason not in ("ScaledToZero", "Paused", "PodsNotRead"):
        return True
    return False if state.kind is Kind.NO_FAULT else None


def stuck_rollouts(snapshot: Snapshot, now: datetime) -> tuple[StuckRollout, ...]:
    """Every Deployment whose rollout is stuck, or whose running revision fails for a reason that does not end by waiting."""
    scene = Scene(snapshot, now)
    found = (_stuck_rollout(scene, scene.workload(obj)) for obj in scene.all("Deployment"))
    return tuple(s for s in found if s is not None)


def _stuck(workload: Workload, report: WorkloadReport) -> bool:
    if workload.desired == 0:
        return False
    failing = any(f.trouble in TERMINAL and f.revision is workload.current for f in report.findings)
    return failing or (workload.deadline_exceeded and not workload.complete)


def _stuck_rollout(scene: Scene, workload: Workload) -> StuckRollout | None:
    report = examine(scene, workload)
    if not re.fullmatch(NAME_PATTERN, workload.name[:253]) or not _stuck(workload, report):
        return None  # (an API server never has a Deployment of another name; a dump may)
    current = workload.current
    first = next((f for f in report.findings if f.trouble in TERMINAL and f.revision is current), None)
    progressing = workload.conditions.get("Progressing")
    late = progressing if workload.deadline_exceeded else None
    return StuckRollout(
        target=ObjectRef(api_version="apps/v1", kind="Deployment", name=workload.name[:253]),
        uid=workload.obj.uid,
        revision=str(current.number) if current and current.number else "",
        since=(first.onset if first else None) or (late.changed if late else None) or scene.snapshot.at,
        reason=first.reason if first else "ProgressDeadlineExceeded",
        message=safe(first.words if first else late.message if late else "", 1024),
        revision_uid=current.uid if current else "",
    )
