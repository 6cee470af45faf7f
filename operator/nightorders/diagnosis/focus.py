"""What a target stands for: the workloads whose pods would show its symptom, and where the search for an origin starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..api.v1alpha1.common import ObjectRef
from ..domain.snapshot import KubeObject
from .graph import WORKLOAD_KINDS, Link
from .read import mapping, word, words
from .scene import Workload
from .world import World

# Kinds that a diagnosis can start from. Anything else is told so.
NETWORK_KINDS = ("Service", "Ingress", "NetworkPolicy", "EndpointSlice")
GOVERNING_KINDS = ("HorizontalPodAutoscaler", "PodDisruptionBudget", "ResourceQuota", "LimitRange")
HELD_KINDS = ("PersistentVolumeClaim", "ConfigMap", "ServiceAccount", "PersistentVolume", "StorageClass")
KINDS = (*WORKLOAD_KINDS, "ReplicaSet", "Pod", *NETWORK_KINDS, *GOVERNING_KINDS, *HELD_KINDS, "Node", "Namespace")


@dataclass(frozen=True)
class Focus:
    """`title` is the target's; `workloads` show the symptom (none for a Node); `starts` are titles from which paths are followed.

    `whole`: the whole namespace is meant, so that every anomaly in it counts.
    """

    target: ObjectRef
    obj: KubeObject
    title: str
    workloads: tuple[Workload, ...]
    starts: tuple[str, ...]
    whole: bool = False

    @property
    def primary(self) -> Workload | None:
        """The one workload that is meant, if it is just one."""
        return self.workloads[0] if len(self.workloads) == 1 and not self.whole else None


def focus(world: World, target: ObjectRef, obj: KubeObject) -> Focus:
    """What that object stands for."""
    title = obj.title
    if target.kind == "Namespace":
        return Focus(target, obj, title, world.workloads, (title,), whole=True)
    workloads = tuple(dict.fromkeys(_titles(world, target.kind, obj)))
    mine = tuple(w for t in workloads if (w := _workload(world, t, obj)) is not None)
    if not mine and obj.kind in ("Pod", "ReplicaSet"):
        mine = (_guessed(world, obj) or world.scene.workload(obj),)
    return Focus(target, obj, title, mine, tuple(dict.fromkeys((title, *(w.title for w in mine)))))


def _workload(world: World, title: str, obj: KubeObject) -> Workload | None:
    found = world.workload(title)
    if found is None and title == obj.title and obj.kind in (*WORKLOAD_KINDS, "ReplicaSet", "Pod"):
        return world.scene.workload(obj)
    return found


def _guessed(world: World, obj: KubeObject) -> Workload | None:
    """The workload whose template makes such pods, where the owners in between were not looked at."""
    labels = words(mapping(obj.raw.get("metadata")).get("labels"))
    for w in world.workloads:
        selector = words(mapping(mapping(w.obj.raw.get("spec")).get("selector")).get("matchLabels"))
        if selector and selector.items() <= labels.items() and obj.name.startswith(f"{w.name}-"):
            return w
    return None


def _titles(world: World, kind: str, obj: KubeObject) -> Iterator[str]:
    graph = world.graph
    if kind in (*WORKLOAD_KINDS, "ReplicaSet", "Pod"):
        yield graph.root(obj.title)
    elif kind == "Service":
        yield from behind(world, obj)
    elif kind == "Ingress":
        for service in _routed(world, obj):
            yield from behind(world, service)
    elif kind == "HorizontalPodAutoscaler":
        ref = mapping(mapping(obj.raw.get("spec")).get("scaleTargetRef"))
        yield f"{word(ref.get('kind'))}/{word(ref.get('name'))}"
    elif kind == "PodDisruptionBudget":
        yield from _matching(world, words(mapping(mapping(mapping(obj.raw.get("spec")).get("selector")).get("matchLabels"))))
    elif kind in HELD_KINDS:
        for w in world.workloads:
            if any(e.target == obj.title for e in graph.out.get(w.title, ())):
                yield w.title


def behind(world: World, service: KubeObject) -> Iterator[str]:
    """Titles of the workloads that a Service fronts: by its pods, and by templates, where there are no pods."""
    for pod in world.pods_behind(service):
        yield world.owner_of(pod)
    yield from _matching(world, words(mapping(service.raw.get("spec")).get("selector")))


def _matching(world: World, selector: dict[str, str]) -> Iterator[str]:
    if not selector:
        return
    for w in world.workloads:
        if selector.items() <= words(mapping(w.template.get("metadata")).get("labels")).items():
            yield w.title


def _routed(world: World, ingress: KubeObject) -> Iterable[KubeObject]:
    wanted = {e.target for e in world.graph.out.get(ingress.title, ()) if e.link not in (Link.OWNS,)}
    return (s for s in world.scene.all("Service") if s.title in wanted)
