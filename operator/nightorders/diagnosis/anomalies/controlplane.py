"""The control plane itself: a scheduler or a controller manager that stands still, aggregated APIs that nobody serves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from ...api.v1alpha1.common import Category
from ...domain.snapshot import KubeObject
from ..evidence import Observation, seen
from ..hypotheses import Candidate, Cap, Mark
from ..read import clock, count, listed, mapping, number, objects, when, word
from ..scene import Scene
from ..views import conditions, obj_created
from ..world import World
from .common import edited, found, made, saw_change, signal_about

_HOME = "kube-system"
_STALE = timedelta(seconds=60)
_UNSEEN = timedelta(seconds=60)
_METRICS = "metrics.k8s.io"


def control_plane(world: World) -> Iterator[Candidate]:
    """By leases, by pods that no scheduler has looked at, by workloads that no controller has looked at, by APIService conditions."""
    yield from _scheduler(world)
    yield from _controllers(world)
    yield from _apis(world)


def _scheduler(world: World) -> Iterator[Candidate]:
    """Pods for the default scheduler without any verdict of it, for a minute."""
    waiting = [
        o
        for o in world.scene.all("Pod")
        if not word(mapping(o.raw.get("spec")).get("nodeName"))
        and word(mapping(o.raw.get("spec")).get("schedulerName")) in ("", "default-scheduler")
        and not objects(mapping(o.raw.get("spec")).get("schedulingGates"))
        and "PodScheduled" not in conditions(mapping(o.raw.get("status")))
        and word(mapping(o.raw.get("status")).get("phase")) in ("", "Pending")
        and not o.terminating
        and (born := obj_created(o)) is not None
        and world.scene.now - born >= _UNSEEN
    ]
    stale = _stale(world, "kube-scheduler")
    if not waiting:
        return
    told = seen(
        world.scene.listing("Pod"),
        f"{count(len(waiting), 'pod')} wait without a PodScheduled condition: {listed([o.name for o in waiting])}",
    )
    born = min(b for o in waiting if (b := obj_created(o)) is not None)
    owners = dict.fromkeys(world.graph.root(o.title) for o in waiting)
    yield made(
        world,
        Category.CONTROL_PLANE,
        _component(world, "kube-scheduler"),
        f"No scheduler has looked at {count(len(waiting), 'pod')} for a minute or more{stale[0] if stale else ''}.",
        marks=(Mark("mechanism named" if stale else "mechanism likely", (told, *(s for s in stale[1:] if isinstance(s, Observation)))),),
        inferred=0 if stale else 1,
        counterfactual=bool(stale),
        hits=(*owners, *(o.title for o in waiting)),
        since=born,
    )


def _controllers(world: World) -> Iterator[Candidate]:
    """Deployments and StatefulSets whose latest wish no controller has seen, for a minute."""
    behind: list[KubeObject] = []
    for kind in ("Deployment", "StatefulSet", "DaemonSet"):
        for o in world.scene.all(kind):
            metadata, status = mapping(o.raw.get("metadata")), mapping(o.raw.get("status"))
            change = edited(o, "spec")
            since = change.at if change is not None and change.at is not None else obj_created(o)
            late = number(metadata.get("generation")) > number(status.get("observedGeneration"))
            if late and since is not None and world.scene.now - since >= _STALE and not o.terminating:
                behind.append(o)
    if not behind:
        return
    stale = _stale(world, "kube-controller-manager")
    told = seen(world.scene.listing(behind[0].kind), f"generation is ahead of observedGeneration: {listed([o.title for o in behind])}")
    yield made(
        world,
        Category.CONTROL_PLANE,
        _component(world, "kube-controller-manager"),
        f"No controller has seen the latest change of {listed([o.title for o in behind])}{stale[0] if stale else ''}.",
        marks=(Mark("mechanism named" if stale else "mechanism likely", (told, *(s for s in stale[1:] if isinstance(s, Observation)))),),
        inferred=0 if stale else 1,
        counterfactual=bool(stale),
        hits=tuple(o.title for o in behind),
    )


def _stale(world: World, name: str) -> tuple[str, Observation] | tuple[()]:
    """Words and proof that a component's lease is no longer renewed; nothing when it is, or when there is none to see."""
    other = world.beside(_HOME)
    lease = next((o for o in other.all("Lease") if o.name == name), None) if other is not None else None
    renewed = when(mapping(lease.raw.get("spec")).get("renewTime")) if lease is not None else None
    if other is None or renewed is None or other.snapshot.at - renewed <= max(_STALE, 3 * _length(lease)):
        return ()
    told = seen(other.listing("Lease"), f"Lease/{_HOME}/{name} last renewed {clock(renewed)}, looked at {clock(other.snapshot.at)}")
    return (f"; its lease was last renewed {clock(renewed)}", told)


def _length(lease: KubeObject | None) -> timedelta:
    return (
        timedelta(seconds=min(600, number(mapping(lease.raw.get("spec")).get("leaseDurationSeconds"), 15)))
        if lease is not None
        else timedelta()
    )


def _component(world: World, name: str) -> str:
    """The component's own object: its Deployment or its (static) Pod, else its lease."""
    other = world.beside(_HOME)
    if other is None:
        return f"Lease/{_HOME}/{name}"
    return _its_object(other, name) or f"Lease/{_HOME}/{name}"


def _its_object(other: Scene, name: str) -> str:
    for kind in ("Deployment", "DaemonSet", "Pod"):
        for o in other.all(kind):
            if o.name == name or o.labels.get("component") == name or o.name.startswith(f"{name}-"):
                return f"{kind}/{_HOME}/{o.name}"
    return ""


def _apis(world: World) -> Iterator[Candidate]:
    """Aggregated APIs that are not available, and whose backend it is."""
    for api in world.scene.all("APIService"):
        spec = mapping(api.raw.get("spec"))
        service = mapping(spec.get("service"))
        state = conditions(mapping(api.raw.get("status"))).get("Available")
        if not service or state is None or state.status == "True":
            continue
        name, namespace = word(service.get("name")), word(service.get("namespace"))
        change = edited(api, "spec")
        told = seen(world.scene.listing("APIService"), f"{api.title}: Available {state.status} {state.reason}: {state.message[:200]}")
        metrics = word(spec.get("group")).endswith(_METRICS)
        hpas = [h.title for h in world.scene.all("HorizontalPodAutoscaler")] if metrics else []
        own = namespace == world.scene.snapshot.namespace and found(world.scene, "Service", name) is not None
        yield made(
            world,
            Category.CONTROL_PLANE,
            api.title,
            f"{api.title} is not available ({state.reason}); Service/{namespace}/{name} stands behind it.",
            marks=(
                Mark("mechanism named", (told,)),
                *([saw_change(world.scene, api, change, "its spec")] if change else [Mark("no change seen")]),
            ),
            inferred=1,
            change=change,
            caps=()
            if signal_about(world, r"hpa|autoscal|apiservice|aggregat|metrics") and not own
            else (Cap("C", "that anything needs it now is not shown"),),
            hits=(api.title, *hpas),
            since=state.changed,
        )
