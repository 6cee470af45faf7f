"""The typed graph of a namespace: who owns, selects, reads, claims, scales or calls whom. Linear in what it is built from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..domain.snapshot import KubeObject
from .read import mapping, objects, word, words
from .references import references
from .scene import Scene
from .views import controller_of

WORKLOAD_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
_HOST = re.compile(r"[a-z0-9]([-a-z0-9]{0,62})(?:\.[a-z0-9-]{1,63}){0,4}")
_VALUE_LIMIT = 2000


class Link(Enum):
    """What an edge means, read from source to target."""

    OWNS = "owns"
    SELECTS = "selects"
    READS = "reads"
    CLAIMS = "claims"
    RUNS_ON = "runs on"
    SCALES = "scales"
    CALLS = "names as a host"


@dataclass(frozen=True)
class Edge:
    """`source` and `target` are `Kind/name`; `via` says by which field."""

    link: Link
    source: str
    target: str
    via: str = ""


@dataclass
class Graph:
    """Edges by both ends."""

    out: dict[str, list[Edge]] = field(default_factory=dict)
    into: dict[str, list[Edge]] = field(default_factory=dict)

    def add(self, edge: Edge) -> None:
        self.out.setdefault(edge.source, []).append(edge)
        self.into.setdefault(edge.target, []).append(edge)

    def targets(self, source: str, link: Link) -> tuple[str, ...]:
        return tuple(dict.fromkeys(e.target for e in self.out.get(source, ()) if e.link is link))

    def sources(self, target: str, link: Link) -> tuple[str, ...]:
        return tuple(dict.fromkeys(e.source for e in self.into.get(target, ()) if e.link is link))

    def selected(self, service: str) -> frozenset[str]:
        """Titles of the pods that a Service selects."""
        return frozenset(self.targets(service, Link.SELECTS))

    def root(self, title: str) -> str:
        """The owner of the owner …; owners that go in a circle end at the first one seen twice."""
        seen = {title}
        while owners := self.sources(title, Link.OWNS):
            if owners[0] in seen:
                break
            title = owners[0]
            seen.add(title)
        return title


def build(scene: Scene) -> Graph:
    """The graph of everything that the snapshot holds."""
    graph = Graph()
    for edges in (_owners(scene), _pods(scene), _selectors(scene), _templates(scene), _scalers(scene), _calls(scene)):
        for edge in edges:
            graph.add(edge)
    return graph


def _owners(scene: Scene) -> Iterator[Edge]:
    for kind in ("Pod", "ReplicaSet", *WORKLOAD_KINDS):
        for obj in scene.all(kind):
            _, owner_kind, owner = controller_of(obj)
            if owner:
                yield Edge(Link.OWNS, f"{owner_kind}/{owner}", obj.title)


def _pods(scene: Scene) -> Iterator[Edge]:
    return (Edge(Link.RUNS_ON, f"Pod/{p.name}", f"Node/{p.node}") for p in scene.pods if p.node)


def _selectors(scene: Scene) -> Iterator[Edge]:
    """Service → pods, by one index over label pairs, so that a thousand pods times many Services stay linear in the matches."""
    by_label: dict[tuple[str, str], set[int]] = {}
    for i, pod in enumerate(scene.pods):
        for pair in pod.labels.items():
            by_label.setdefault(pair, set()).add(i)
    for service in scene.all("Service"):
        wanted = words(mapping(service.raw.get("spec")).get("selector"))
        if wanted:
            matches = set.intersection(*(by_label.get(pair, set()) for pair in wanted.items()))
            for i in sorted(matches):
                yield Edge(Link.SELECTS, service.title, f"Pod/{scene.pods[i].name}")


def workloads(scene: Scene) -> Iterator[tuple[KubeObject, Mapping[str, Any]]]:
    """Every workload with its pod spec."""
    for kind in WORKLOAD_KINDS:
        for obj in scene.all(kind):
            yield obj, mapping(mapping(mapping(obj.raw.get("spec")).get("template")).get("spec"))


def _templates(scene: Scene) -> Iterator[Edge]:
    for obj, spec in workloads(scene):
        for ref in references(spec):
            link = Link.CLAIMS if ref.kind == "PersistentVolumeClaim" else Link.READS
            yield Edge(link, obj.title, ref.title, ref.path)


def _scalers(scene: Scene) -> Iterator[Edge]:
    for hpa in scene.all("HorizontalPodAutoscaler"):
        target = mapping(mapping(hpa.raw.get("spec")).get("scaleTargetRef"))
        yield Edge(Link.SCALES, hpa.title, f"{word(target.get('kind'))}/{word(target.get('name'))}")


def _calls(scene: Scene) -> Iterator[Edge]:
    """Workloads whose environment, or a ConfigMap that they read, names a Service as a host. The values themselves go no further."""
    services = {s.name for s in scene.all("Service")}
    config = {c.name: _hosts(words(c.raw.get("data")).values(), services) for c in scene.all("ConfigMap")} if services else {}
    for obj, spec in workloads(scene):
        values = [word(e.get("value")) for c in objects(spec.get("containers")) for e in objects(c.get("env"))]
        found = _hosts(values, services)
        for ref in references(spec):
            if ref.kind == "ConfigMap":
                found |= config.get(ref.name, set())
        for name in sorted(found):
            yield Edge(Link.CALLS, obj.title, f"Service/{name}")


def _hosts(values: Any, services: set[str]) -> set[str]:
    """Services whose name stands in a value as a host: alone, or before `.namespace`, `:port` or `/`."""
    return {host for value in values for m in _HOST.finditer(value[:_VALUE_LIMIT]) if (host := m.group(0).partition(".")[0]) in services}
