"""The metrics specialist: answers of Prometheus, put to the pods, workloads and Services that they are about.

A vector that was refused proves nothing, and one without points only says that nobody measures it. Labels are chosen by whoever exports
a series, so a point counts for a workload only where a label is its name, one of its Services or one of its pods.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ...domain.snapshot import Point, Vector
from ..evidence import Observation, measured, safe
from ..graph import Link
from ..images import parse
from ..read import listed
from ..scene import Revision, Workload
from ..views import Pod
from ..world import World

# Below this share of failed answers a service is well enough; ten times less than that is none.
FAILING, FINE = 0.05, 0.01
_NAMES = ("series", "__name__")
_CODES = ("code", "status", "status_code", "response_code", "http_response_status_code")
_VERSIONS = ("version", "app_version", "release", "revision", "image_tag", "tag", "pod_template_hash")
_REQUESTS = re.compile(
    r"(?:.+_)?(?:http_(?:server_)?requests?|requests|grpc_server_handled)(?:_seconds_count|_duration_seconds_count|_total|_count)?"
)


@dataclass(frozen=True)
class Reading:
    """Values by name (of a pod, a Service, a version), and the vector that gave them."""

    vector: Vector
    values: Mapping[str, float]

    def saw(self, what: str, names: Iterable[str], unit: str = "") -> Observation:
        """`what: a 0.4, b 0.2` as evidence."""
        told = listed([f"{n} {self.values[n]:.3g}{unit}" for n in sorted(names) if n in self.values], 6)
        return measured(self.vector, f"{what}: {safe(told, 600)}")


def reading(world: World, question: str, label: str) -> Reading | None:
    """The answer to a question by one label; None where it was not asked, was refused, or knows no such series."""
    vector = world.metric(question)
    if vector is None or vector.because:
        return None
    values = {p.labels[label]: p.value for p in vector.points if p.labels.get(label)}
    return Reading(vector, values) if values else None


def services_of(world: World, w: Workload) -> tuple[str, ...]:
    """Names of the Services that select pods of the workload."""
    titles = (s for p in w.pods[:50] for s in world.graph.sources(f"Pod/{p.name}", Link.SELECTS))
    return tuple(sorted({t.partition("/")[2] for t in titles}))


def of_workload(world: World, question: str, w: Workload) -> tuple[Vector, tuple[Point, ...]] | None:
    """The points of an answer that are about the workload, by any label; None where there are none."""
    vector = world.metric(question)
    if vector is None or vector.because:
        return None
    names = {w.name, *services_of(world, w), *(p.name for p in w.pods)}
    points = tuple(p for p in vector.points if any(v in names for k, v in p.labels.items() if k not in _NAMES))
    return (vector, points) if points else None


def by_pod(world: World, question: str, pods: Iterable[Pod]) -> Reading | None:
    """The answer for these pods. (Exporters that leave out the pod are taken by container, where that tells the pod.)"""
    mine = tuple(pods)
    found = reading(world, question, "pod")
    values = {p.name: found.values[p.name] for p in mine if p.name in found.values} if found else {}
    if found and values:
        return Reading(found.vector, values)
    by_container = reading(world, question, "container")
    if by_container is None or len(mine) != 1:
        return None
    name = next((c.name for c in mine[0].containers if c.name in by_container.values), "")
    return Reading(by_container.vector, {mine[0].name: by_container.values[name]}) if name else None


def service_errors(world: World, w: Workload) -> tuple[float, Observation] | None:
    """The worst share of failed answers (0..1) of the workload's Services, with the series that shows it."""
    found = reading(world, "error_ratio_by_service", "service")
    names = [n for n in (*services_of(world, w), w.name) if found and n in found.values]
    if found is None or not names:
        return None
    worst = max(dict.fromkeys(names), key=lambda n: found.values[n])
    return found.values[worst], found.saw("share of answers that are errors", [worst])


@dataclass(frozen=True)
class Split:
    """Shares of failed answers of a workload's current revision against its others, with what shows them."""

    new: float
    old: float
    seen: Observation

    @property
    def tells(self) -> bool:
        """Whether only the current revision fails."""
        return self.new >= FAILING and self.old <= min(FINE, self.new / 10)


def split_by_revision(world: World, w: Workload) -> Split | None:
    """Errors of the current revision's pods against those of older pods that serve beside them; else by a version that series carry."""
    current = w.current
    if current is None:
        return None
    new, old = [p for p in current.live if p.ready], [p for p in w.pods if p.ready and p not in current.live]
    found = by_pod(world, "error_ratio_by_pod", (*new, *old))
    if found:
        mine = [found.values[p.name] for p in new if p.name in found.values]
        theirs = [found.values[p.name] for p in old if p.name in found.values]
        if mine and theirs:
            return Split(sum(mine) / len(mine), max(theirs), found.saw("share of answers that are errors", found.values))
    return _by_version(world, w, current)


def _by_version(world: World, w: Workload, current: Revision) -> Split | None:
    told = of_workload(world, "series", w)
    if told is None:
        return None
    vector, points = told
    sums: dict[str, list[float]] = {}
    for p in points:
        name = next((p.labels[n] for n in _NAMES if n in p.labels), "")
        version = next((p.labels[v] for v in _VERSIONS if p.labels.get(v)), "")
        code = next((p.labels[c] for c in _CODES if p.labels.get(c)), "")
        if version and code and _REQUESTS.fullmatch(name):
            total = sums.setdefault(version, [0.0, 0.0])
            total[0] += p.value if code[:1] == "5" else 0.0
            total[1] += p.value
    tags = set(_tags(current))
    new = [e / t for v, (e, t) in sums.items() if v in tags and t > 0]
    old = [e / t for v, (e, t) in sums.items() if v not in tags and t > 0]
    if not new or not old:
        return None
    shown = listed([f"{safe(v, 60)} {e / t:.3g}" for v, (e, t) in sorted(sums.items()) if t > 0], 6)
    return Split(max(new), max(old), measured(vector, f"share of answers that are errors, by version: {shown}"))


def _tags(revision: Revision) -> Iterator[str]:
    containers = revision.pod_spec.get("containers")
    for c in containers if isinstance(containers, list) else ():
        image = c.get("image") if isinstance(c, Mapping) else None
        if isinstance(image, str):
            yield parse(image).tag
    yield str(revision.number)
    yield from (p.labels.get("pod-template-hash", "") for p in revision.live[:1])
