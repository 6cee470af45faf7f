"""What keeps pods from being created where no status and no Event says so any more: quotas, limits and webhooks by their own state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from ..case import Case
from ..evidence import Observation, safe, seen
from ..findings import Trouble, UncreatedFinding
from ..graph import selects
from ..hypotheses import Candidate, Cap
from ..origins.created import created_origins, dead_hook, hooks, missing_pods
from ..read import mapping, objects
from ..world import World

# Controllers try again with growing pauses; a pod that is missing for less may just be about to be made.
_PATIENCE = timedelta(minutes=2)
_SAID = frozenset({Trouble.NOT_CREATED, Trouble.MISSING, Trouble.UNSCHEDULED})


def admission(world: World) -> Iterator[Candidate]:
    """Origins of pods that are missing without a word about it. (Where a refusal is told, the workload's own origins name it.)"""
    for workload in world.workloads:
        if workload.desired == 0 or workload.paused or workload.complete or not world.scene.looked("Pod"):
            continue
        case = world.case(workload)
        told = missing_pods(case)
        if told and not any(f.trouble in _SAID for f in case.report.findings) and _waited(case):
            yield from _by_state(world, case, told)


def _waited(case: Case) -> bool:
    """Nothing about its pods has moved for a while."""
    moved = [t for p in case.workload.pods for t in (p.created, p.settled) if t]
    released = case.workload.current.released if case.workload.current else None
    newest = max((*moved, *((released,) if released else ())), default=None)
    return newest is None or case.scene.now - newest > _PATIENCE


def _by_state(world: World, case: Case, told: str) -> Iterator[Candidate]:
    revision = case.workload.current
    if revision is None:
        return
    observed: Observation = seen(world.scene.listing(case.workload.kind), f"{case.title}: {told}")
    silent = UncreatedFinding(Trouble.NOT_CREATED, revision, "", (), safe(told), (observed,), "FailedCreate")
    cap = Cap("B", "no status and no Event says that pods are refused; the numbers alone do")
    for c in created_origins(case, silent):
        yield replace(c, caps=(*c.caps, cap))
    for hook in hooks(world.scene):
        if hook.blocks and hook.service and _about_pods(world, hook.raw):
            for c in dead_hook(world.scene, hook, case.title, (observed,)):
                yield replace(c, hits=(case.title,), caps=(*c.caps, cap))


def _about_pods(world: World, raw: object) -> bool:
    """Whether a webhook is asked about new pods of this namespace, as far as its rules and selectors tell."""
    webhook = mapping(raw)
    asked = any(
        {"pods", "*", "*/*"} & _texts(r.get("resources"))
        and {"CREATE", "*"} & _texts(r.get("operations"))
        and {"", "*"} & _texts(r.get("apiGroups"))
        for r in objects(webhook.get("rules"))
    )
    namespace = next((n for n in world.scene.all("Namespace") if n.name == world.scene.snapshot.namespace), None)
    selector = mapping(webhook.get("namespaceSelector"))
    if not asked or not selector:
        return asked
    return namespace is not None and selects(selector, {"kubernetes.io/metadata.name": namespace.name, **namespace.labels})


def _texts(value: object) -> frozenset[str]:
    return frozenset(v for v in value if isinstance(v, str)) if isinstance(value, list) else frozenset()
