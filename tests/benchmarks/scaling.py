"""`python -m tests.benchmarks.scaling [--real] [--pods N …]`: what a diagnosis costs as a namespace grows.

Requests must not depend on the number of pods; bytes, memory and time may grow with it at most linearly. Without `--real` the snapshot
is made up in memory: a Deployment in mid-rollout whose new release cannot pull its image, and as many pods of the old one as asked for,
beside other workloads. With `--real` the same stands on a real control plane with simulated nodes, and is read over HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from nightorders.adapters.clock import SystemClock
from nightorders.adapters.kube import KubeClient, Reader, Resources, Watcher
from nightorders.api.v1alpha1.common import ObjectRef
from nightorders.controller.gatherer import Gatherer, Ports, cost_of
from nightorders.diagnosis import engine
from nightorders.domain.diagnosis import Diagnosis, Finding
from nightorders.domain.redaction import redact
from nightorders.domain.situation import Operator
from nightorders.domain.snapshot import Absent, KubeObject, Listing, LogExcerpt, LogKey, NotLooked
from nightorders.ports import Clock, ClusterReader, ObjectKey
from tools.cluster import Cluster, behaviour, provide

SIZES = (10, 100, 1_000, 5_000)
NAMESPACE = "scaling"
TARGET = ObjectRef(api_version="apps/v1", kind="Deployment", name="checkout")
GOOD, BAD = "registry.example/checkout:2.4.0", "registry.example/checkout:2.4.O"
PODS_PER_WORKLOAD = 50
_KINDS = {kind: version for version, kind in (*engine.BESIDE_KINDS, *engine.CLUSTER_KINDS, *engine.KINDS)}
_CLUSTER = frozenset(k for _, k in engine.CLUSTER_KINDS)
_NODE_PODS = 100
Json = dict[str, Any]


@dataclass(frozen=True)
class Figures:
    """What one diagnosis has cost: `peak` is the most memory at one time in bytes, beside what was there before; `seconds` processor time."""

    pods: int
    requests: int
    bytes: int
    peak: int
    seconds: float
    category: str
    grade: str


# ------------------------------------------------------------ a cluster in memory


def workload(name: str, pods: int, image: str, at: str) -> list[Json]:
    """A Deployment that is complete, its ReplicaSet, its pods on nodes of a hundred each, its Service and its endpoints."""
    labels = {"app": name}
    container = {"name": "app", "image": image, "env": [{"name": "LEVEL", "value": "info"}], "ports": [{"containerPort": 8080}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container], "serviceAccountName": "default"}}
    counts = {"replicas": pods, "updatedReplicas": pods, "readyReplicas": pods, "availableReplicas": pods, "observedGeneration": 1}
    done = {"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "lastTransitionTime": at}
    owner = made("Deployment", name, at, spec={"replicas": pods, "selector": {"matchLabels": labels}, "template": template})
    owner["metadata"]["generation"] = 1
    owner["status"] = {**counts, "conditions": [done]}
    hashed = {"metadata": {"labels": {**labels, "pod-template-hash": "1"}}, "spec": template["spec"]}
    rs = made("ReplicaSet", f"{name}-1", at, owner, spec={"replicas": pods, "template": hashed}, status=counts)
    rs["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "1"}
    each = [pod(rs, i, hashed, at) for i in range(pods)]
    service = made("Service", name, at, spec={"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]})
    ready = [
        {"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": p["metadata"]["name"]}}
        for p in each
    ]
    slices = [
        made("EndpointSlice", f"{name}-{i}", at, endpoints=ready[i : i + 100], ports=[{"port": 8080}]) for i in range(0, len(ready), 100)
    ]
    for s in slices:
        s["metadata"]["labels"] = {"kubernetes.io/service-name": name}
    return [owner, rs, *each, service, *slices]


def made(kind: str, name: str, at: str, owner: Json | None = None, **rest: Any) -> Json:
    """An object with what the API server writes into its metadata."""
    meta: Json = {"name": name, "uid": f"uid-{kind}-{name}", "creationTimestamp": at, "resourceVersion": "1"}
    if kind not in _CLUSTER:
        meta["namespace"] = NAMESPACE
    if owner is not None:
        own = owner["metadata"]
        meta["ownerReferences"] = [{"kind": owner["kind"], "name": own["name"], "uid": own["uid"], "controller": True}]
    return {"apiVersion": _KINDS[kind], "kind": kind, "metadata": meta, **rest}


def pod(rs: Json, number: int, template: Json, at: str, *, message: str = "") -> Json:
    """A pod of that ReplicaSet, ready; with a `message` one whose image is not pulled."""
    container = template["spec"]["containers"][0]
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
    state = {"name": "app", "image": container["image"], "imageID": "", "ready": not message, "restartCount": 0}
    state["state"] = waiting if message else {"running": {"startedAt": at}}
    conditions = [{"type": t, "status": "True", "lastTransitionTime": at} for t in ("PodScheduled", "Initialized")]
    conditions += [{"type": t, "status": "False" if message else "True", "lastTransitionTime": at} for t in ("Ready", "ContainersReady")]
    status = {"phase": "Pending" if message else "Running", "podIP": "10.0.0.1", "startTime": at, "conditions": conditions}
    one = made("Pod", f"{rs['metadata']['name']}-{number}", at, rs)
    one["metadata"]["labels"] = template["metadata"]["labels"]
    one["spec"] = {**template["spec"], "nodeName": f"n{number // _NODE_PODS}"}
    one["status"] = {**status, "containerStatuses": [state]}
    return one


def broken(pods: int, now: datetime) -> list[Json]:
    """The whole namespace: half of the pods are checkout's, the rest belongs to neighbours; one new pod fails, and Events say why."""
    old, new = (t.isoformat().replace("+00:00", "Z") for t in (now - timedelta(days=6), now - timedelta(minutes=5)))
    mine = max(3, pods // 2)
    parts = workload("checkout", mine, GOOD, old)
    owner, first = parts[0], parts[1]
    template = json.loads(json.dumps(owner["spec"]["template"]))
    template["spec"]["containers"][0]["image"] = BAD
    owner["spec"]["template"] = template
    owner["metadata"]["generation"] = owner["status"]["observedGeneration"] = 2
    owner["status"] |= {"replicas": mine + 1, "updatedReplicas": 1, "unavailableReplicas": 1}
    owner["status"]["conditions"][0] |= {"reason": "ReplicaSetUpdated", "lastTransitionTime": new}
    hashed = {"metadata": {"labels": {"app": "checkout", "pod-template-hash": "2"}}, "spec": template["spec"]}
    second = made("ReplicaSet", "checkout-2", new, owner, spec={"replicas": 1, "template": hashed}, status={"replicas": 1})
    second["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "2"}
    why = f'Failed to pull image "{BAD}": rpc error: code = NotFound desc = failed to resolve reference "{BAD}": {BAD}: not found'
    failing = pod(second, 0, hashed, new, message=f'Back-off pulling image "{BAD}"')
    left = pods - mine - 1
    names = (f"neighbour-{i}" for i in range(10**6))
    while left > 0:
        parts += workload(next(names), min(left, PODS_PER_WORKLOAD), "registry.example/other:1", old)
        left -= PODS_PER_WORKLOAD
    told = [
        event(failing, "Failed", why, new),
        *(event(p, "Pulled", "Container image is present", old) for p in parts if p["kind"] == "Pod"),
    ]
    nodes = [made("Node", f"n{i}", old, spec={}, status=_node(old)) for i in range(pods // _NODE_PODS + 1)]
    assert first["kind"] == "ReplicaSet"
    first["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "1"
    return [*parts, second, failing, *told, *nodes, made("ConfigMap", "kube-root-ca.crt", old, data={"ca.crt": "x"})]


def _node(at: str) -> Json:
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastTransitionTime": at}
    return {"allocatable": {"cpu": "64", "memory": "256Gi", "pods": "110"}, "conditions": [ready]}


def event(about: Json, reason: str, message: str, at: str) -> Json:
    """An Event about that object."""
    meta = about["metadata"]
    one = made(
        "Event", f"{meta['name']}.{reason.lower()}", at, reason=reason, message=message, type="Normal" if reason == "Pulled" else "Warning"
    )
    ref = {"kind": about["kind"], "name": meta["name"], "uid": meta["uid"], "namespace": NAMESPACE}
    return one | {"involvedObject": ref, "firstTimestamp": at, "lastTimestamp": at, "count": 1, "source": {"component": "kubelet"}}


class Memory:
    """Implements `ClusterReader` over JSON texts, one for each kind: a list is parsed anew each time, as it is from an API server."""

    def __init__(self, objects: Iterable[Json], now: datetime) -> None:
        self._now = now
        parts: dict[str, list[Json]] = {}
        for one in objects:
            parts.setdefault(one["kind"], []).append(one)
        self._texts = {kind: json.dumps(found) for kind, found in parts.items()}
        self.asked: Counter[str] = Counter()

    def now(self) -> datetime:
        """Implements `Clock`."""
        return self._now

    async def get(self, key: ObjectKey) -> KubeObject | Absent | NotLooked:
        self.asked["get"] += 1
        return Absent(f"{key.kind}/{key.name}", "GET", self._now)

    async def list(self, api_version: str, kind: str, namespace: str | None) -> Listing:
        self.asked["list"] += 1
        text = self._texts.get(kind, "[]") if namespace in (None, NAMESPACE) else "[]"
        objects = tuple(KubeObject(raw, kind, api_version) for raw in json.loads(text))
        return Listing(kind, f"GET {kind}", self._now, objects, size=len(text))

    async def logs(self, namespace: str, key: LogKey, *, lines: int) -> LogExcerpt:
        self.asked["logs"] += 1
        return LogExcerpt(key, "GET log", self._now, ("started",) * min(lines, 5))


# ------------------------------------------------------------ measuring


def gatherer(reader: ClusterReader, clock: Clock) -> Gatherer:
    """One that reads through these two only."""
    nothing = cast(Any, None)
    return Gatherer(Ports(clock, reader, nothing, nothing, nothing, nothing, nothing), Operator("", ""))


async def look(reader: ClusterReader, clock: Clock, namespace: str) -> tuple[Diagnosis, int, int]:
    """(the diagnosis, requests, bytes) of one look at the target."""
    snapshot = await gatherer(reader, clock).snapshot(namespace, TARGET)
    cost = cost_of(snapshot)
    return engine.diagnose(snapshot, TARGET, (), snapshot.at), cost.reads, cost.bytes


def in_memory(pods: int) -> Figures:
    """The cost with a cluster in memory: once for the time, once for the memory, which tracing makes slow."""
    now = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    reader = Memory(broken(pods, now), now)
    gc.collect()
    begin = time.process_time()
    d, requests, size = asyncio.run(look(cast(ClusterReader, reader), reader, NAMESPACE))
    seconds = time.process_time() - begin
    assert requests == sum(reader.asked.values()), "the cost that an Incident tells is what was asked"
    return replace(_figures(pods, requests, size, seconds, d), peak=_peak(reader))


def _peak(reader: Memory) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        asyncio.run(look(cast(ClusterReader, reader), reader, NAMESPACE))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _figures(pods: int, requests: int, size: int, seconds: float, d: Diagnosis) -> Figures:
    assert d.finding is Finding.FAULT, (pods, d.finding, d.message)
    assert d.top is not None
    return Figures(pods, requests, size, 0, seconds, d.top.title, d.top.grade)


# ------------------------------------------------------------ on a real control plane


def on_cluster(sizes: Iterable[int]) -> Iterator[Figures]:
    """The same on a real API server, in a namespace for each size.

    Memory is the process's largest resident size so far, above what it was at the start.
    """
    cluster = provide()
    try:
        cluster.apply(*(_kwok_node(i) for i in range(sum(sizes) // _NODE_PODS + 2)))
        start = _resident()
        for pods in sorted(sizes):
            namespace = f"{NAMESPACE}-{pods}"
            cluster.kubectl("create", "namespace", namespace)
            cluster.apply(*behaviour.image_missing(namespace, BAD))
            cluster.apply(_deployment(namespace, pods, GOOD))
            _until_available(cluster, namespace, pods)
            cluster.apply(_deployment(namespace, pods, BAD))
            _until_failing(cluster, namespace)
            d, requests, size, seconds = asyncio.run(_real(cluster.kubeconfig, namespace))
            yield replace(_figures(pods, requests, size, seconds, d), peak=max(0, _resident() - start))
    finally:
        cluster.stop()


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _until_available(cluster: Cluster, namespace: str, pods: int) -> None:
    """Returns when so many pods are available. (The controller makes some twenty in a second.)"""
    end = time.monotonic() + 120 + pods / 4
    query = "jsonpath={.status.availableReplicas}"
    while (have := cluster.kubectl("-n", namespace, "get", "deployment/checkout", "-o", query).stdout.strip()) != str(pods):
        if time.monotonic() > end:
            raise TimeoutError(f"only {have or 0} of {pods} pods are available")
        time.sleep(1)


def _until_failing(cluster: Cluster, namespace: str, seconds: float = 180) -> None:
    """Returns when the one new pod waits for an image that is not there."""
    end = time.monotonic() + seconds
    query = '{range .items[*]}{.status.containerStatuses[*].state.waiting.reason}{"\\n"}{end}'
    while "ImagePullBackOff" not in cluster.kubectl("-n", namespace, "get", "pods", "-o", f"jsonpath={query}").stdout:
        if time.monotonic() > end:
            raise TimeoutError(f"no pod fails to pull its image after {seconds:.0f} s")
        time.sleep(0.5)


async def _real(kubeconfig: Path, namespace: str) -> tuple[Diagnosis, int, int, float]:
    client = await KubeClient.connect(kubeconfig=str(kubeconfig), context=None)
    async with client:
        resources, clock = Resources(client), SystemClock()
        reader = Reader(client, resources, clock, redact=redact, watcher=Watcher(client, resources))
        begin = time.monotonic()
        d, requests, size = await look(reader, clock, namespace)
        return d, requests, size, time.monotonic() - begin


def _kwok_node(number: int) -> Json:
    name = f"scale-{number}"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "type": "kwok"},
        },
        "status": {
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "110"},
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "110"},
        },
    }


def _deployment(namespace: str, pods: int, image: str) -> Json:
    labels = {"app": "checkout"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "checkout", "namespace": namespace},
        "spec": {
            "replicas": pods,
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "checkout", "image": image}]}},
        },
    }


# ------------------------------------------------------------ the table


def table(found: Iterable[Figures], unit: str) -> Iterator[str]:
    """Markdown; a row as soon as its figures are there."""
    yield f"| pods | requests | MiB read | MiB of memory | {unit} | {unit} per 1,000 pods | answer |"
    yield "|---|---|---|---|---|---|---|"
    for f in found:
        ms = f.seconds * 1000
        memory, read = f.peak / 2**20, f.bytes / 2**20
        yield f"| {f.pods:,} | {f.requests} | {read:.2f} | {memory:.1f} | {ms:,.0f} | {ms / f.pods * 1000:,.0f} | {f.category}, grade {f.grade} |"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scaling", description="What a diagnosis costs as a namespace grows.")
    parser.add_argument("--real", action="store_true", help="on a real control plane with simulated nodes")
    parser.add_argument("--pods", type=int, nargs="+", default=list(SIZES), help="numbers of pods (default: %(default)s)")
    asked = parser.parse_args()
    if min(asked.pods) < 10:
        parser.error(f"--pods {min(asked.pods)}: at least 10, so that there is a rollout to look at")
    rows = on_cluster(asked.pods) if asked.real else (in_memory(n) for n in sorted(asked.pods))
    for row in table(rows, "ms (wall clock)" if asked.real else "ms (processor)"):
        print(row, flush=True)


if __name__ == "__main__":
    main()
