"""Budgets that never let a pod go, and pods that were sent away."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ...api.v1alpha1.common import Category
from ...domain.snapshot import KubeObject
from ..evidence import Channel, seen
from ..graph import Link
from ..hypotheses import Candidate, Cap, Mark
from ..read import count, earliest, flag, listed, mapping, number, word
from ..scene import Workload
from ..views import Pod, conditions, obj_created
from ..world import World
from .common import about_node, edited, governing, labels, made, ready, saw_change, touched

_BUDGET_SIGNAL = re.compile(r"pdb|disruptionbudget|drain|evict", re.IGNORECASE)
_SENT_AWAY = {"EvictionByEvictionAPI": "a drain", "DeletionByTaintManager": "a taint"}


def disruption(world: World) -> Iterator[Candidate]:
    """Budgets without room while somebody drains; drains that took away more than a workload could spare."""
    budgets = world.scene.all("PodDisruptionBudget")
    draining = _draining(world)
    wanted = _asked_about(world)
    for budget in budgets:
        governed = _governed(world, budget)
        held = any(p.node in draining and about_node(world, p.node) for w in governed for p in w.pods)
        if governed and (wanted or held):
            yield from _no_room(world, budget, governed, draining)
    yield from _two_budgets(world, draining, wanted=wanted)
    yield from _sent_away(world)


def _asked_about(world: World) -> bool:
    """Whether the signal itself is about budgets or drains. A budget without room hurts nobody until someone drains."""
    claim = world.claim
    return claim is not None and bool(_BUDGET_SIGNAL.search(claim.name) or "poddisruptionbudget" in claim.labels)


def _draining(world: World) -> frozenset[str]:
    """Nodes that are cordoned: the first half of a drain."""
    return frozenset(n.name for n in world.scene.all("Node") if flag(mapping(n.raw.get("spec")).get("unschedulable")))


def _governed(world: World, budget: KubeObject) -> list[Workload]:
    return [w for t in world.graph.targets(budget.title, Link.GOVERNS) if (w := world.workload(t)) is not None]


def never(budget: KubeObject, replicas: int) -> str:
    """Why this budget never lets a healthy pod of so many go; empty when it does."""
    spec = mapping(budget.raw.get("spec"))
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if most is not None:
        room = _share(most, replicas)
        return f"maxUnavailable {most}" if room == 0 else ""
    if least is not None:
        keep = _share(least, replicas)
        return f"minAvailable {least} of {count(replicas, 'replica')}" if keep is not None and keep >= replicas > 0 else ""
    return ""


def _share(value: object, replicas: int) -> int | None:
    """A number, or a percentage of the replicas as the API server rounds it (up); None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = word(value)
    if not text.endswith("%") or not text[:-1].isdigit() or len(text) > 5:
        return None
    return math.ceil(int(text[:-1]) * replicas / 100)


def _no_room(world: World, budget: KubeObject, governed: list[Workload], draining: frozenset[str]) -> Iterator[Candidate]:
    wished = sum(w.desired for w in governed)
    serving = sum(len(ready(w)) for w in governed)
    status = mapping(budget.raw.get("status"))
    why = never(budget, wished)
    if not why or number(status.get("disruptionsAllowed")) > 0 or serving < wished:
        return  # (where pods are unready, they are the matter, and the budget does its work)
    change = edited(budget, "spec")
    names = listed([w.title for w in governed])
    held = sorted({p.node for w in governed for p in w.pods if p.node in draining})
    told = seen(
        world.scene.listing("PodDisruptionBudget"),
        f"{budget.title}: {why}; disruptionsAllowed {number(status.get('disruptionsAllowed'))}, all {count(wished, 'pod')} of {names} healthy",
    )
    where = f"; {listed([f'Node/{n}' for n in held])} cannot be drained" if held else ""
    yield made(
        world,
        Category.DISRUPTION,
        budget.title,
        f"{budget.title} never lets a pod of {names} go ({why}){where}.",
        marks=(
            Mark("mechanism named", (told,)),
            *([saw_change(world.scene, budget, change, "its spec")] if change else [Mark("no change seen")]),
        ),
        inferred=0 if held else 1,
        counterfactual=True,
        change=change,
        hits=(budget.title, *(f"Node/{n}" for n in held if about_node(world, n))),
    )


def _two_budgets(world: World, draining: frozenset[str], *, wanted: bool) -> Iterator[Candidate]:
    """Two budgets over the same pods: the API server refuses every eviction then."""
    for w in world.workloads:
        over = governing(world, w, "PodDisruptionBudget")
        held = sorted({p.node for p in w.pods if p.node in draining})
        if len(over) < 2 or not (wanted or any(about_node(world, n) for n in held)):
            continue
        newest = max(over, key=lambda b: (str(obj_created(b)), b.name))
        told = seen(
            world.scene.listing("PodDisruptionBudget"), f"{listed([b.title for b in over])} all select {w.title}: eviction is refused"
        )
        yield made(
            world,
            Category.DISRUPTION,
            newest.title,
            f"{listed([b.title for b in over])} govern the same pods of {w.title}, so that none can be evicted.",
            marks=(Mark("mechanism named", (told,)),),
            inferred=0 if held else 1,
            counterfactual=True,
            change=touched(world, newest, "spec", since=obj_created(w.obj)),
            hits=(newest.title, *(f"Node/{n}" for n in held if about_node(world, n))),
        )


def _sent_away(world: World) -> Iterator[Candidate]:
    """Pods that a drain or a taint took away, of a workload that has too few left and no budget that would limit it."""
    marked = _marked(world)
    if not marked:
        return
    for w in world.workloads:
        if len(ready(w)) >= w.desired or governing(world, w, "PodDisruptionBudget"):
            continue
        mine = labels(w)
        gone = [m for m in marked if mine and m.pod.node and mine.items() <= m.pod.labels.items()]
        if not gone:
            continue
        nodes, how = sorted({m.pod.node for m in gone}), _SENT_AWAY[gone[0].reason]
        names = listed(sorted(m.pod.name for m in gone))
        told = seen(
            world.scene.listing("Pod"), f"{names} of {w.title}: DisruptionTarget, sent away by {how} of {listed(nodes)}", Channel.STATUS
        )
        yield made(
            world,
            Category.DISRUPTION,
            f"Node/{nodes[0]}",
            f"{count(len(gone), 'pod')} of {w.title} were sent away from {listed(nodes)} by {how}, and no budget limits how many at once.",
            marks=(Mark("mechanism named", (told,)),),
            inferred=1,
            caps=(Cap("C", "that its other pods do not start is another matter"),),
            hits=(w.title,),
            since=earliest(*(m.at for m in gone)),
        )


@dataclass(frozen=True)
class _Marked:
    """A pod that somebody decided to send away, by the API server's own condition."""

    pod: Pod
    reason: str
    at: datetime | None


def _marked(world: World) -> list[_Marked]:
    raw = {o.name: conditions(mapping(o.raw.get("status"))).get("DisruptionTarget") for o in world.scene.all("Pod")}
    return [
        _Marked(p, c.reason, c.changed)
        for p in world.scene.pods
        if (c := raw.get(p.name)) is not None and c.status == "True" and c.reason in _SENT_AWAY
    ]
