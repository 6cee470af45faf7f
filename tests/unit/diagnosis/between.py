"""Builders for what lies between workloads: apps with their pods, Services, and any other object, put together to a `World`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from nightorders.diagnosis.claim import Claim
from nightorders.diagnosis.engine import BESIDE_KINDS, CLUSTER_KINDS, KINDS
from nightorders.diagnosis.hypotheses import Candidate
from nightorders.diagnosis.scene import Scene
from nightorders.diagnosis.world import World
from nightorders.domain.snapshot import KubeObject, Listing, LogExcerpt, LogKey, Point, Snapshot, Vector

from .build import DAY, HOUR, MINUTE, NOW, NS, Raw, at, container, deployment, env, excerpt, pod, replicaset, template

APIS = {kind: api for api, kind in (*KINDS, *CLUSTER_KINDS, *BESIDE_KINDS)} | {
    "Certificate": "cert-manager.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "ScaledObject": "keda.sh/v1alpha1",
}
OPTIONAL = ("Certificate", "HTTPRoute", "ScaledObject")
CLUSTER = tuple(kind for _, kind in CLUSTER_KINDS)
LIMITS: Raw = {"requests": {"cpu": "100m"}}


def kube(kind: str, raw: Raw) -> KubeObject:
    return KubeObject(raw=raw, kind=kind, api_version=APIS.get(kind, "v1"))


def written(ago: timedelta, *path: str, by: str = "kubectl-patch", subresource: str = "") -> Raw:
    """A `managedFields` entry that owns the field at that path."""
    fields: Raw = {}
    here = fields
    for name in path:
        here = here.setdefault(f"f:{name}", {})
    entry: Raw = {"manager": by, "operation": "Update", "time": at(ago), "fieldsV1": fields}
    return entry | ({"subresource": subresource} if subresource else {})


def made(kind: str, name: str, *, age: timedelta = 30 * DAY, managed: Iterable[Raw] = (), namespace: str = NS, **rest: Any) -> Raw:
    """Any object. `labels` and `annotations` go into its metadata, everything else beside it."""
    meta: Raw = {"name": name, "uid": f"uid-{kind}-{name}", "creationTimestamp": at(age), "managedFields": list(managed)}
    if kind not in CLUSTER:
        meta["namespace"] = namespace
    for key in ("labels", "annotations"):
        if key in rest:
            meta[key] = rest.pop(key)
    return {"apiVersion": APIS.get(kind, "v1"), "kind": kind, "metadata": meta, **rest}


def service(name: str, selector: Mapping[str, str] | None = None, *, port: int = 80, target: int | str = 8080, **more: Any) -> Raw:
    """A Service that selects `app=<name>` unless told otherwise."""
    spec: Raw = {"clusterIP": "10.96.0.50", "selector": dict(selector) if selector is not None else {"app": name}}
    spec["ports"] = [{"name": "http", "port": port, "targetPort": target, "protocol": "TCP"}]
    spec |= more.pop("spec", {})
    return made("Service", name, spec=spec, **more)


def calling(name: str, **urls: str) -> Raw:
    """A template that serves http on 8080 and has these addresses in its environment."""
    return template(web(name, env=[env(k, v) for k, v in urls.items()]), labels={"app": name})


def web(name: str = "app", **more: Any) -> Raw:
    """A container with a port and a readiness probe on it."""
    probe = {"httpGet": {"path": "/ready", "port": 8080}}
    return container(
        "app", f"registry.example/{name}:1.0", **({"ports": [{"name": "http", "containerPort": 8080}], "readinessProbe": probe} | more)
    )


def app(
    name: str,
    pod_template: Raw | None = None,
    *,
    pods: int = 2,
    ready: bool = True,
    age: timedelta = 6 * DAY,
    states: Iterable[Raw] = (),
    node: str = "",
    scheduled: str = "",
    **more: Any,
) -> list[Raw]:
    """A Deployment, its ReplicaSet and its pods."""
    t = pod_template or calling(name)
    owner = deployment(t, name=name, replicas=pods, available=pods if ready else 0, **more)
    rs = replicaset(owner, 1, t, age=age, replicas=pods, ready=pods if ready else 0)
    each = [
        pod(
            rs,
            i,
            age=age,
            node=node or f"n{i % 3}",
            ready=ready,
            states=states,
            scheduled=scheduled,
            phase="Pending" if scheduled else "Running",
        )
        for i in range(pods)
    ]
    return [owner, rs, *each]


def released(name: str, old: Raw, new: Raw, *, ago: timedelta = 10 * MINUTE, pods: int = 2, ready: bool = True, **more: Any) -> list[Raw]:
    """A Deployment whose second release is out: all pods are of the new template."""
    owner = deployment(new, name=name, replicas=pods, available=pods if ready else 0, progressing_age=ago, **more)
    first = replicaset(owner, 1, old, age=6 * DAY)
    second = replicaset(owner, 2, new, age=ago, replicas=pods, ready=pods if ready else 0)
    return [owner, first, second, *(pod(second, i, age=ago, node=f"n{i % 3}", ready=ready) for i in range(pods))]


def database(name: str = "db", *, ready: bool = True, variables: Iterable[Raw] = ()) -> list[Raw]:
    """A StatefulSet of one pod, with its Service on 5432."""
    t = template(
        container("db", "registry.example/postgres:16", env=list(variables), ports=[{"containerPort": 5432}]), labels={"app": name}
    )
    owner = made(
        "StatefulSet",
        name,
        spec={"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": t, "serviceName": name},
        status={
            "replicas": 1,
            "readyReplicas": int(ready),
            "availableReplicas": int(ready),
            "currentRevision": f"{name}-1",
            "updateRevision": f"{name}-1",
        },
    )
    owner["metadata"]["generation"] = owner["status"]["observedGeneration"] = 1
    one = pod(owner, 0, age=6 * DAY, ready=ready)
    one["metadata"]["labels"]["controller-revision-hash"] = f"{name}-1"
    kept = made("ControllerRevision", f"{name}-1", revision=1, data={"spec": {"template": t}}, labels={"app": name})
    kept["metadata"]["ownerReferences"] = one["metadata"]["ownerReferences"]
    return [owner, kept, one, service(name, port=5432, target=5432)]


def world(
    *parts: Raw | list[Raw],
    logs: Mapping[str, Iterable[str]] | None = None,
    series: Iterable[tuple[Mapping[str, str], float]] = (),
    metrics: Mapping[str, Iterable[tuple[Mapping[str, str], float]]] | None = None,
    beside: Mapping[str, Iterable[Raw]] | None = None,
    claim: Claim | None = None,
    unread: Iterable[str] = (),
) -> World:
    """A world of these objects. Every kind was listed but those in `unread`; `logs` by pod name, of its container `app` (or `db`)."""
    objects = [o for p in parts for o in (p if isinstance(p, list) else [p])]
    kinds = dict.fromkeys((*(k for _, k in (*KINDS, *CLUSTER_KINDS)), *(o["kind"] for o in objects if o["kind"] in OPTIONAL)))
    read: dict[LogKey, LogExcerpt] = {}
    for name, lines in (logs or {}).items():
        key = LogKey(name, "app")
        read[key] = excerpt(key, tuple(lines))
    asked = {"series": list(series), **{k: list(v) for k, v in (metrics or {}).items()}}
    vectors = {k: Vector(f"{{{k}}}", NOW, tuple(Point(labels, value) for labels, value in v)) for k, v in asked.items()}
    others = {n: Snapshot(n, NOW, _listings(list(o), [k for _, k in BESIDE_KINDS], n)) for n, o in (beside or {}).items()}
    return World(Scene(Snapshot(NS, NOW, _listings(objects, list(kinds), NS, frozenset(unread)), read, others, vectors), NOW), (), claim)


def _listings(objects: list[Raw], kinds: list[str], namespace: str, unread: frozenset[str] = frozenset()) -> dict[str, Listing]:
    return {
        kind: Listing(
            kind,
            f"GET {kind} in {namespace}",
            NOW,
            () if kind in unread else tuple(kube(kind, o) for o in objects if o["kind"] == kind),
            "forbidden" if kind in unread else "",
        )
        for kind in kinds
    }


def told(candidates: Iterable[Candidate]) -> list[str]:
    """`Category Kind/name Change grade`, in order; refuted ones in brackets."""
    found = []
    for c in candidates:
        change = f" {c.change.kind}" if c.change is not None and c.change.kind != "None" else ""
        text = f"{c.category} {c.object}{change} {c.grade}"
        found.append(f"[{text}]" if c.refuted else text)
    return found


def pods_of(parts: list[Raw]) -> list[str]:
    """Names of the pods among these objects."""
    return [o["metadata"]["name"] for o in parts if o["kind"] == "Pod"]


__all__ = [
    "DAY", "HOUR", "LIMITS", "MINUTE", "NOW", "NS", "Claim", "Raw", "app", "at", "calling", "container", "database", "env", "kube", "made",
    "pods_of", "released", "service", "template", "told", "web", "world", "written",
]  # fmt: skip
