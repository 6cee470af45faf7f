"""Builders of objects as the API server gives them, for tables of situations. Times are offsets from one fixed `NOW`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from nightorders.api.v1alpha1.common import ObjectRef
from nightorders.api.v1alpha1.ledger import HealthyRevision
from nightorders.domain.digest import template_sha256
from nightorders.domain.snapshot import KubeObject, Listing, LogExcerpt, LogKey, Snapshot

NS = "shop"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
KINDS = (
    "Deployment",
    "ReplicaSet",
    "Pod",
    "ConfigMap",
    "Event",
    "Service",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "HorizontalPodAutoscaler",
    "Node",
)
API = {"Deployment": "apps/v1", "ReplicaSet": "apps/v1", "StatefulSet": "apps/v1", "DaemonSet": "apps/v1", "Job": "batch/v1"}
TARGET = ObjectRef(api_version="apps/v1", kind="Deployment", name="checkout")
Raw = dict[str, Any]


def at(ago: timedelta) -> str:
    """RFC 3339 of the moment that long ago."""
    return (NOW - ago).strftime("%Y-%m-%dT%H:%M:%SZ")


def kube(kind: str, raw: Raw) -> KubeObject:
    return KubeObject(raw=raw, kind=kind, api_version=API.get(kind, "v1"))


def container(name: str = "app", image: str = "registry.example/checkout:2.3.9", **more: Any) -> Raw:
    return {"name": name, "image": image, **more}


def template(*containers: Raw, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None, **spec: Any) -> Raw:
    metadata: Raw = {"labels": dict(labels or {"app": "checkout"})}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"metadata": metadata, "spec": {"containers": list(containers) or [container()], **spec}}


def env(name: str, value: str | None = None, *, config: str = "", secret: str = "", key: str = "", optional: bool = False) -> Raw:
    if not config and not secret:
        return {"name": name, "value": value or ""}
    ref: Raw = {"name": config or secret, "key": key or name}
    if optional:
        ref["optional"] = True
    return {"name": name, "valueFrom": {"configMapKeyRef" if config else "secretKeyRef": ref}}


def metadata(name: str, age: timedelta, owner: Raw | None = None, **more: Any) -> Raw:
    found: Raw = {"name": name, "namespace": NS, "uid": f"uid-{name}", "creationTimestamp": at(age), **more}
    if owner is not None:
        meta = owner["metadata"]
        found["ownerReferences"] = [{"kind": owner["kind"], "name": meta["name"], "uid": meta["uid"], "controller": True}]
    return found


def deployment(
    pod_template: Raw,
    *,
    name: str = "checkout",
    replicas: int = 3,
    updated: int | None = None,
    available: int | None = None,
    total: int | None = None,
    progressing: tuple[str, str] = ("True", "NewReplicaSetAvailable"),
    progressing_age: timedelta = 6 * DAY,
    generation: int = 7,
    observed: int | None = None,
    paused: bool = False,
    age: timedelta = 30 * DAY,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    managed: Iterable[Raw] = (),
    conditions: Iterable[Raw] = (),
    deadline: int = 600,
) -> Raw:
    updated = replicas if updated is None else updated
    available = replicas if available is None else available
    spec: Raw = {
        "replicas": replicas,
        "selector": {"matchLabels": dict(pod_template["metadata"]["labels"])},
        "template": pod_template,
        "progressDeadlineSeconds": deadline,
    }
    if paused:
        spec["paused"] = True
    status = {
        "observedGeneration": generation if observed is None else observed,
        "replicas": replicas if total is None else total,
        "updatedReplicas": updated,
        "availableReplicas": available,
        "readyReplicas": available,
        "unavailableReplicas": max(0, replicas - available),
        "conditions": [
            {
                "type": "Progressing",
                "status": progressing[0],
                "reason": progressing[1],
                "message": "",
                "lastTransitionTime": at(progressing_age),
                "lastUpdateTime": at(progressing_age),
            },
            *conditions,
        ],
    }
    meta = metadata(
        name, age, generation=generation, labels=dict(labels or {}), annotations=dict(annotations or {}), managedFields=list(managed)
    )
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec, "status": status}


def replicaset(
    owner: Raw, number: int, pod_template: Raw, *, age: timedelta, replicas: int = 0, ready: int = 0, history: str = "", failure: str = ""
) -> Raw:
    name = f"{owner['metadata']['name']}-{number:04d}"
    own = {"metadata": {**pod_template["metadata"], "labels": {**pod_template["metadata"]["labels"], "pod-template-hash": f"{number:04d}"}}}
    notes = {"deployment.kubernetes.io/revision": str(number)} | ({"deployment.kubernetes.io/revision-history": history} if history else {})
    status: Raw = {"replicas": replicas, "readyReplicas": ready, "availableReplicas": ready}
    if failure:
        status["conditions"] = [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failure}]
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": metadata(name, age, owner, annotations=notes),
        "spec": {"replicas": replicas, "template": {**pod_template, **own}},
        "status": status,
    }


def pod(
    owner: Raw,
    index: int,
    *,
    age: timedelta,
    node: str = "n0",
    ready: bool = True,
    states: Iterable[Raw] = (),
    phase: str = "Running",
    scheduled: str = "",
    ready_age: timedelta | None = None,
    deleting: bool = False,
    init_states: Iterable[Raw] = (),
) -> Raw:
    """A pod of a ReplicaSet; `states` are container statuses (without any: running and as ready as the pod)."""
    spec = owner["spec"]["template"]["spec"]
    started = at(age - timedelta(seconds=min(1, age.total_seconds())))
    statuses = list(states) or [running(c["name"], c["image"], ready=ready, age=age) for c in spec["containers"]]
    conditions = [
        {
            "type": "PodScheduled",
            "status": "False" if scheduled else "True",
            "reason": "Unschedulable" if scheduled else "",
            "message": scheduled,
            "lastTransitionTime": at(age),
        },
        {"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": at(ready_age if ready_age is not None else age)},
    ]
    meta = metadata(f"{owner['metadata']['name']}-{index}", age, owner, labels=dict(owner["spec"]["template"]["metadata"]["labels"]))
    if deleting:
        meta["deletionTimestamp"] = at(timedelta(seconds=10))
    status: Raw = {"phase": phase, "conditions": conditions, "containerStatuses": [] if scheduled else statuses}
    if not scheduled:
        status["startTime"] = started
    if init_states:
        status["initContainerStatuses"] = list(init_states)
    return {"kind": "Pod", "metadata": meta, "spec": {**spec, **({} if scheduled else {"nodeName": node})}, "status": status}


def running(
    name: str = "app", image: str = "", *, ready: bool = True, age: timedelta = DAY, restarts: int = 0, last: Raw | None = None
) -> Raw:
    return {
        "name": name,
        "image": image,
        "imageID": "sha256:" + "0" * 64,
        "ready": ready,
        "started": True,
        "restartCount": restarts,
        "state": {"running": {"startedAt": at(age)}},
        "lastState": {"terminated": last} if last else {},
    }


def waiting(reason: str, message: str = "", *, name: str = "app", restarts: int = 0, last: Raw | None = None) -> Raw:
    return {
        "name": name,
        "imageID": "",
        "ready": False,
        "started": False,
        "restartCount": restarts,
        "state": {"waiting": {"reason": reason, "message": message}},
        "lastState": {"terminated": last} if last else {},
    }


def ended(
    code: int, reason: str = "Error", *, ago: timedelta = timedelta(seconds=20), ran: timedelta = timedelta(seconds=1), message: str = ""
) -> Raw:
    return {"exitCode": code, "reason": reason, "message": message, "startedAt": at(ago + ran), "finishedAt": at(ago)}


def crashing(
    code: int = 1, reason: str = "Error", *, restarts: int = 4, name: str = "app", message: str = "", ago: timedelta = timedelta(seconds=20)
) -> Raw:
    return waiting(
        "CrashLoopBackOff",
        "back-off restarting failed container",
        name=name,
        restarts=restarts,
        last=ended(code, reason, message=message, ago=ago),
    )


def configmap(
    name: str,
    data: Mapping[str, str] | None = None,
    *,
    age: timedelta = 30 * DAY,
    edited: timedelta | None = None,
    by: str = "kubectl-edit",
) -> Raw:
    keys = {f"f:{k}": {} for k in (data or {})}
    fields = [{"manager": "helm", "operation": "Update", "time": at(age), "fieldsV1": {"f:data": keys}}]
    if edited is not None:
        fields.append({"manager": by, "operation": "Update", "time": at(edited), "fieldsV1": {"f:data": keys}})
    return {"kind": "ConfigMap", "metadata": metadata(name, age, managedFields=fields), "data": dict(data or {})}


def event(about: Raw, reason: str, message: str, *, first: timedelta, last: timedelta | None = None, kind: str = "Warning") -> Raw:
    meta = about["metadata"]
    last = first if last is None else last
    return {
        "kind": "Event",
        "metadata": metadata(f"e-{abs(hash((meta['name'], reason, message))) % 10**8}", first),
        "involvedObject": {"kind": about["kind"], "name": meta["name"], "uid": meta["uid"], "namespace": NS},
        "reason": reason,
        "message": message,
        "type": kind,
        "firstTimestamp": at(first),
        "lastTimestamp": at(last),
        "source": {"component": "kubelet"},
    }


def service(name: str = "checkout", selector: Mapping[str, str] | None = None) -> Raw:
    return {"kind": "Service", "metadata": metadata(name, 30 * DAY), "spec": {"selector": dict(selector or {"app": name})}}


def snapshot(
    *objects: Raw,
    unread: Mapping[str, str] | None = None,
    not_asked: Iterable[str] = (),
    logs: Mapping[LogKey, Iterable[str] | str] | None = None,
    taken: datetime = NOW,
) -> Snapshot:
    """A snapshot of these objects; every kind was listed completely unless it stands in `unread` (why) or `not_asked`."""
    listings: dict[str, Listing] = {}
    for kind in KINDS:
        if kind in not_asked:
            continue
        query = f"GET {API.get(kind, 'v1')} {kind.lower()}s in {NS}"
        because = (unread or {}).get(kind, "")
        found = () if because else tuple(kube(kind, o) for o in objects if o["kind"] == kind)
        listings[kind] = Listing(kind, query, taken, found, because, f"kubectl auth can-i list {kind.lower()}s" if because else "")
    return Snapshot(NS, taken, listings, {k: excerpt(k, v, taken) for k, v in (logs or {}).items()})


def excerpt(key: LogKey, lines: Iterable[str] | str, taken: datetime = NOW) -> LogExcerpt:
    """Lines, or as one text the reason why there are none."""
    query = f"GET logs {NS}/{key.pod} {key.container} previous={key.previous}"
    return LogExcerpt(key, query, taken, because=lines) if isinstance(lines, str) else LogExcerpt(key, query, taken, tuple(lines))


def recorded(owner: Raw, revision: Raw) -> HealthyRevision:
    """The Ledger's word that this revision was healthy."""
    return HealthyRevision(
        workload_uid=owner["metadata"]["uid"],
        workload=f"Deployment/{owner['metadata']['name']}",
        revision_uid=revision["metadata"]["uid"],
        template_sha256=template_sha256(revision["spec"]["template"]),
        at=NOW - 2 * DAY,
    )


class World:
    """A Deployment in mid-rollout from release 6 (old template, healthy for 6 days) to release 7 (new template), to be bent by tests.

    Three old pods serve on n0–n2, `failing` new ones have the given states on n0, n1, ….
    """

    def __init__(
        self,
        old: Raw,
        new: Raw,
        *,
        states: Iterable[Raw] = (),
        failing: int = 1,
        released: timedelta = 5 * MINUTE,
        old_pods: int = 3,
        progressing: tuple[str, str] = ("True", "ReplicaSetUpdated"),
        nodes: tuple[str, ...] = ("n0", "n1", "n2"),
        phase: str = "Pending",
        ready_age: timedelta | None = None,
        **more: Any,
    ) -> None:
        self.deployment = deployment(
            new, updated=failing, available=old_pods, total=old_pods + failing, progressing=progressing, progressing_age=released, **more
        )
        self.old = replicaset(self.deployment, 6, old, age=6 * DAY, replicas=old_pods, ready=old_pods)
        self.new = replicaset(self.deployment, 7, new, age=released, replicas=failing)
        self.old_pods = [pod(self.old, i, age=6 * DAY, node=f"n{i % 3}") for i in range(old_pods)]
        self.new_pods = [
            pod(self.new, i, age=released, node=nodes[i % len(nodes)], ready=False, states=states, phase=phase, ready_age=ready_age)
            for i in range(failing)
        ]
        self.more: list[Raw] = [service()]

    def add(self, *objects: Raw) -> World:
        self.more += objects
        return self

    @property
    def objects(self) -> list[Raw]:
        return [self.deployment, self.old, self.new, *self.old_pods, *self.new_pods, *self.more]

    def snapshot(self, **more: Any) -> Snapshot:
        return snapshot(*self.objects, **more)

    def tell(self, reason: str, message: str, *, first: timedelta = 4 * MINUTE) -> World:
        """An Event on every new pod."""
        return self.add(*(event(p, reason, message, first=first) for p in self.new_pods))

    def log(self, *lines: str) -> dict[LogKey, Iterable[str] | str]:
        """The log of the first new pod's container."""
        return {LogKey(self.new_pods[0]["metadata"]["name"], "app"): lines}


def steady(pod_template: Raw, *, name: str = "checkout", number: int = 6, pods: int = 3, **more: Any) -> tuple[Raw, Raw, list[Raw]]:
    """A Deployment, its one ReplicaSet and its healthy pods."""
    owner = deployment(pod_template, name=name, replicas=pods, **more)
    rs = replicaset(owner, number, pod_template, age=6 * DAY, replicas=pods, ready=pods)
    return owner, rs, [pod(rs, i, age=6 * DAY, node=f"n{i % 3}") for i in range(pods)]


def without(snapshot: Snapshot, *kinds: str) -> Snapshot:
    """The same snapshot with some kinds not looked at."""
    listings = {k: replace(v, objects=(), because="forbidden") if k in kinds else v for k, v in snapshot.listings.items()}
    return replace(snapshot, listings=listings)
