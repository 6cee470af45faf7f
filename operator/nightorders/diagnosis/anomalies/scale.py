"""Workloads that were scaled to nothing, or to less than they were applied with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..evidence import seen
from ..graph import Link
from ..hypotheses import Candidate, Cap, Mark
from ..read import count, listed, mapping, number, objects, word
from ..scene import Workload
from ..world import World
from .common import callers, complaints, edited, found, log_marks, made, saw_change, services_of, unread

_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_PURPOSE = re.compile(
    r"downscal|down-?scaled|scaled?-?(?:to-?)?(?:down|zero)|hibernat|sleep(?:ing|-?mode)?$|suspend|paused-?(?:by|for|reason)|maintenance|"
    r"decommission|retired|disabled-?(?:by|reason|since)|parked|off-?hours|snooze|standby|scaledobject|rollout.*workload-generation|dormant",
    re.IGNORECASE,
)
_SCALERS = re.compile(
    r"keda|downscaler|cron(?:job)?-?scal|kube-?green|snorlax|sablier|rollouts?-controller|hibernat|scheduled-?scal|knative|osiris",
    re.IGNORECASE,
)
_OFF = frozenset({"false", "no", "off", "0", ""})


def scale(world: World) -> Iterator[Candidate]:
    """Replicas 0 where something needs the workload, unless somebody says that it is meant."""
    for w in world.workloads:
        if w.obj.kind in ("Deployment", "StatefulSet") and w.desired == 0:
            yield from _at_zero(world, w)
        elif w.obj.kind in ("Deployment", "StatefulSet"):
            yield from _fewer(world, w)


def _at_zero(world: World, w: Workload) -> Iterator[Candidate]:
    change = edited(w.obj, "spec", "replicas", scale=True) or _unowned(world, w)
    services = services_of(world, w)
    needs = tuple(dict.fromkeys(c.workload.title for s in services for c in callers(world, s.title) if c.workload.title != w.title))
    said = tuple(x for s in services for x in complaints(world, s.title))
    told = seen(world.scene.listing(w.obj.kind), f"{w.title}: spec.replicas 0{_autoscaler(world, w)}")
    hits = (w.title, *(s.title for s in services))
    base = [Mark("mechanism named", (told,)), *log_marks(said)]
    if why := meant(world, w):
        yield from _meant(world, w, why, base, hits)
        return
    before = applied(w.obj) or _minimum(world, w)
    marks = [*base, *([saw_change(world.scene, w.obj, change, "replicas")] if change else [Mark("no change seen")])]
    by = f" {listed(needs or [s.title for s in services])} need{'s' if len(needs or services) == 1 else ''} it." if services else ""
    asked = (
        f" What was applied last asks for {before}." if applied(w.obj) else f" Its autoscaler asks for at least {before}." if before else ""
    )
    needed = bool(services) or bool(before)
    caps = () if change is not None or before else (Cap("C", "nothing shows that it ever ran with more"),)
    yield made(
        world,
        Category.SCALE,
        w.title,
        f"{w.title} is scaled to 0 replicas.{by}{asked}",
        summary=f"{w.title} was scaled to zero{f', and {listed(needs)} need it' if needs else ''}.",
        marks=marks,
        inferred=0 if needed and change is not None else 1 if needed or change is not None else 2,
        counterfactual=bool(before) or (change is not None and needed),
        change=change,
        caps=(*caps, *unread(world.scene, "HorizontalPodAutoscaler")),
        hits=hits,
    )


def _unowned(world: World, w: Workload) -> ChangeRef | None:
    """A write through the scale subresource that set zero: the API server then lets nobody own the field, whoever owned it before.

    When it was, the ReplicaSet tells, whose own count the controller changed at that moment.
    """
    entries = [mapping(mapping(e.get("fieldsV1")).get("f:spec")) for e in objects(mapping(w.obj.raw.get("metadata")).get("managedFields"))]
    if not any("f:template" in e for e in entries) or any("f:replicas" in e for e in entries) or not applied(w.obj):
        return None
    mine = found(world.scene, "ReplicaSet", w.current.name) if w.current is not None else None
    followed = edited(mine, "spec", "replicas") if mine is not None else None
    return ChangeRef(kind="Edit", at=followed.at if followed is not None else None)


def _autoscaler(world: World, w: Workload) -> str:
    names = world.graph.sources(w.title, Link.SCALES)
    return f"; {listed(names)} is off while it is" if names else ""


def _minimum(world: World, w: Workload) -> int:
    """The least that its autoscaler would keep; 0 without one."""
    mine = set(world.graph.sources(w.title, Link.SCALES))
    hpa = next((h for h in world.scene.all("HorizontalPodAutoscaler") if h.title in mine), None)
    return max(1, number(mapping(hpa.raw.get("spec")).get("minReplicas"), 1)) if hpa is not None else 0


def applied(obj: KubeObject) -> int:
    """The replicas that the last `kubectl apply` asked for; 0 when nothing tells. (An annotation: a claim, as every annotation.)"""
    try:
        given = json.loads(obj.annotations.get(_APPLIED, "null"))
    except (ValueError, RecursionError):
        return 0
    return max(0, number(mapping(mapping(given).get("spec")).get("replicas")))


def meant(world: World, w: Workload) -> str:
    """Who says that a workload is scaled down on purpose: its own annotations and labels, a scaler that manages it; empty when nobody."""
    for where in (w.obj.annotations, w.obj.labels):
        for key, value in sorted(where.items()):
            if key != _APPLIED and _PURPOSE.search(key) and value.strip().lower() not in _OFF:
                return f"{key}={value[:120]}"
    for obj in world.scene.all("ScaledObject"):
        ref = mapping(mapping(obj.raw.get("spec")).get("scaleTargetRef"))
        if word(ref.get("name")) == w.name and word(ref.get("kind")) in ("", w.obj.kind):
            return f"{obj.title} scales it"
    for title in world.graph.sources(w.title, Link.SCALES):
        if title.partition("/")[2].startswith("keda-hpa-"):
            return f"{title} belongs to a KEDA ScaledObject"
    last = _last_scaler(w.obj)
    return f"field manager {last} scales it" if last and _SCALERS.search(last) else ""


def _last_scaler(obj: KubeObject) -> str:
    """The field manager that wrote `replicas` last."""
    change = edited(obj, "spec", "replicas", scale=True)
    return change.by if change is not None else ""


def _meant(world: World, w: Workload, why: str, base: list[Mark], hits: tuple[str, ...]) -> Iterator[Candidate]:
    told = seen(world.scene.listing(w.obj.kind), f"{w.title}: {why}")
    yield made(
        world,
        Category.SCALE,
        w.title,
        f"{w.title} is scaled to 0 replicas.",
        marks=base,
        inferred=0,
        refuted=f"it is meant ({why})",
        hits=hits,
    )
    yield made(
        world,
        Category.NO_FAULT,
        w.title,
        f"{w.title} is scaled to 0 replicas on purpose ({why}).",
        marks=(*base, Mark("intended", (told,))),
        inferred=0,
        counterfactual=True,
        hits=hits,
    )


def _fewer(world: World, w: Workload) -> Iterator[Candidate]:
    """Scaled below what was applied, while its callers complain: a lead, no proof that more would do."""
    before = applied(w.obj)
    change = _scaled(w.obj)
    if not before or w.desired >= before or change is None or world.graph.sources(w.title, Link.SCALES) or meant(world, w):
        return
    said = tuple(x for s in services_of(world, w) for x in complaints(world, s.title))
    told = seen(world.scene.listing(w.obj.kind), f"{w.title}: spec.replicas {w.desired}, applied with {before}")
    yield made(
        world,
        Category.SCALE,
        w.title,
        f"{w.title} was scaled to {count(w.desired, 'replica')}; what was applied last asks for {before}.",
        marks=(Mark("state fits", (told,)), saw_change(world.scene, w.obj, change, "replicas"), *log_marks(said)),
        inferred=1 if said else 2,
        counterfactual=True,
        change=change,
        caps=(Cap("C", "that fewer replicas are too few is not shown"),),
        hits=(w.title, *(s.title for s in services_of(world, w))),
    )


def _scaled(obj: KubeObject) -> ChangeRef | None:
    """The last write through the scale subresource, or by another manager than the one that applied it."""
    managers = [word(e.get("manager")) for e in objects(mapping(obj.raw.get("metadata")).get("managedFields"))]
    change = edited(obj, "spec", "replicas", scale=True)
    return change if change is not None and len(set(managers)) > 1 else None
