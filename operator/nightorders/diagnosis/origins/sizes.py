"""What a pod asks for, in numbers: requests and limits as the API server adds them up, and the defaults of a LimitRange."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..read import mapping, objects, word
from ..scene import Scene
from .memory import quantity

Size = dict[str, float]
# Sums of floats differ in the last bits.
EPSILON = 1e-6


def amounts(values: object) -> Size:
    """Quantities by resource; what is no quantity is left out."""
    found = {
        k: quantity(v if isinstance(v, str) else str(v))
        for k, v in mapping(values).items()
        if isinstance(v, str | int) and isinstance(k, str)
    }
    return {k: v for k, v in found.items() if v is not None}


def defaults(scene: Scene) -> tuple[Size, Size]:
    """What a LimitRange gives a container that names no request, and no limit."""
    requests: Size = {}
    limits: Size = {}
    for rule in limit_rules(scene, "Container"):
        requests |= amounts(rule.get("defaultRequest"))
        limits |= amounts(rule.get("default"))
    return requests, limits


def limit_rules(scene: Scene, kind: str) -> Iterator[Mapping[str, Any]]:
    """The rules of every LimitRange of the namespace for `Container` or `Pod`."""
    for obj in scene.all("LimitRange"):
        for rule in objects(mapping(obj.raw.get("spec")).get("limits")):
            if word(rule.get("type")) == kind:
                yield rule


def container_size(container: Mapping[str, Any], given: tuple[Size, Size] = ({}, {})) -> tuple[Size, Size]:
    """Requests and limits of one container; a request that is not named is its limit."""
    resources = mapping(container.get("resources"))
    limits = given[1] | amounts(resources.get("limits"))
    own = amounts(resources.get("limits"))
    requests = given[0] | own | amounts(resources.get("requests"))
    return {**{k: v for k, v in limits.items() if k not in requests}, **requests}, limits


def pod_size(spec: Mapping[str, Any], given: tuple[Size, Size] = ({}, {})) -> tuple[Size, Size]:
    """Requests and limits of a pod: containers and sidecars together, or the largest init container with the sidecars before it."""
    requests: Size = {}
    limits: Size = {}
    for i, total in enumerate((requests, limits)):
        beside: Size = {}
        peak: Size = {}
        for c in objects(spec.get("initContainers")):
            mine = container_size(c, given)[i]
            if word(c.get("restartPolicy")) == "Always":
                beside.update(added(beside, mine))
            else:
                peak.update(larger(peak, added(beside, mine)))
        steady = beside
        for c in objects(spec.get("containers")):
            steady = added(steady, container_size(c, given)[i])
        total.update(larger(steady, peak))
        total.update(amounts(mapping(spec.get("resources")).get("requests" if i == 0 else "limits")))
        total.update(added(total, amounts(spec.get("overhead"))) if total else {})
    return requests, limits


def added(a: Size, b: Size) -> Size:
    """The sum, resource by resource."""
    return {k: a.get(k, 0.0) + b.get(k, 0.0) for k in a.keys() | b.keys()}


def larger(a: Size, b: Size) -> Size:
    """The larger one, resource by resource."""
    return {k: max(a.get(k, 0.0), b.get(k, 0.0)) for k in a.keys() | b.keys()}


def quota_size(spec: Mapping[str, Any], given: tuple[Size, Size] = ({}, {})) -> Size:
    """What one such pod counts for in a ResourceQuota, under all the names that a quota may use."""
    requests, limits = pod_size(spec, given)
    found: Size = {"pods": 1.0, "count/pods": 1.0}
    for name, value in requests.items():
        found[f"requests.{name}"] = value
        found[name] = value
    for name, value in limits.items():
        found[f"limits.{name}"] = value
    return found


def shown(resource: str, value: float) -> str:
    """`2`, `500m` or `1.5Gi`: as people write that resource."""
    if "memory" in resource or "storage" in resource:
        for unit, size in (("Ti", 2.0**40), ("Gi", 2.0**30), ("Mi", 2.0**20), ("Ki", 2.0**10)):
            if abs(value) >= size:
                return f"{round(value / size, 2):g}{unit}"
        return f"{value:g}"
    if "cpu" in resource and value != int(value):
        return f"{round(value * 1000):d}m"
    return f"{round(value, 3):g}"
