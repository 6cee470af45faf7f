"""Nodes that are not ready, under pressure, or closed; and those that are so on purpose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..evidence import Channel, Observation, seen
from ..findings import TERMINAL, Trouble
from ..hypotheses import Candidate, Cap, Mark
from ..read import clock, count, flag, listed, mapping, objects, when, word, words
from ..scene import Scene, Workload
from ..views import Condition, conditions
from ..world import World
from .common import about_node, edited, made, ready, saw_change

_LEASES = "kube-node-lease"
_PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")
_ANNOUNCED = re.compile(
    r"maintenance|kured|reboot-in-progress|decommission|drain(?:ing|-reason|-by)?\b|upgrade|patching|planned|retir(?:e|ing)|"
    r"ToBeDeletedByClusterAutoscaler|DeletionCandidateOfClusterAutoscaler|karpenter\.sh/(?:disrupted|disruption)|"
    r"node\.kubernetes\.io/out-of-service|machine\.cluster\.x-k8s\.io/(?:exclude|delete)|medik8s|cordon-reason",
    re.IGNORECASE,
)
_NOTICE = re.compile(r"notice|announce|bulletin|status-?page|calendar|freeze", re.IGNORECASE)
# Of these keys the value says whether it is so; a tool's empty or "false" one says no.
_OFF = frozenset({"false", "no", "off", "none", "0"})
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2})?(?:\.\d{1,9})?(?:Z|[+-]\d{2}:?\d{2})?")
_NOT_NOTICE = re.compile(r"last-applied|managed|volumes\.kubernetes\.io|kubelet|csi\.|node\.alpha|flannel|calico|kwok", re.IGNORECASE)
_FLAPPED = timedelta(minutes=30)
_FEW_PODS = 2


def nodes(world: World) -> Iterator[Candidate]:
    """NotReady, pressure, cordons, announced or not; nodes on which everything fails that works elsewhere."""
    for node in world.scene.all("Node"):
        state = conditions(mapping(node.raw.get("status")))
        notice = announced(world, node)
        ready_ = state.get("Ready")
        if ready_ is not None and ready_.status != "True":
            yield from _not_ready(world, node, ready_, notice)
        elif ready_ is not None:
            yield from _pressed(world, node, state)
            yield from _flapped(world, node, ready_)
        if flag(mapping(node.raw.get("spec")).get("unschedulable")):
            yield from _closed(world, node, notice)
    yield from _only_there(world)


def _hurt(world: World, node: str) -> list[Workload]:
    """Workloads that have pods on the node which do not serve, or which were told to go."""
    going = {world.owner_of(p) for p in world.scene.pods if p.node == node and p.terminating}
    return [w for w in world.workloads if w.title in going or any(p.node == node and not p.ready for p in w.pods)]


def _hits(world: World, node: KubeObject, hurt: Iterable[Workload]) -> tuple[str, ...]:
    """The workloads that it hurts; the node itself where the question is about nodes."""
    return (*((node.title,) if about_node(world, node.name) else ()), *(w.title for w in hurt))


# -- not ready ------------------------------------------------------------------------------------------------------------------------------


def _not_ready(world: World, node: KubeObject, state: Condition, notice: Notice | None) -> Iterator[Candidate]:
    hurt = _hurt(world, node.name)
    hits = _hits(world, node, hurt)
    if not hits:
        return
    told = seen(
        world.scene.listing("Node"),
        f"{node.title}: Ready {state.status} {state.reason} since {clock(state.changed)[3:]}: {state.message[:160]}",
    )
    marks = [Mark("mechanism named", (told, *_lease(world, node)))]
    elsewhere = [p for w in hurt for p in ready(w) if p.node != node.name]
    if elsewhere:
        text = f"on other nodes {count(len(elsewhere), 'pod')} of the same workloads are Ready"
        marks.append(Mark("works on other nodes", (seen(world.scene.listing("Pod"), text, Channel.CONTRAST),)))
    if notice is not None:
        yield from _meant(world, node, Category.NODE, notice, marks, hits, f"{node.title} is not Ready")
        return
    hurts = f"; {listed([w.title for w in hurt])} lose pods" if hurt else ""
    yield made(
        world,
        Category.NODE,
        node.title,
        f"{node.title} is not Ready since {clock(state.changed)[3:]} ({state.reason or state.status}){hurts}.",
        summary=f"{node.title} is not Ready ({state.reason or state.status}).",
        marks=marks,
        inferred=0,
        counterfactual=True,
        hits=hits,
        since=state.changed,
    )


def _lease(world: World, node: KubeObject) -> tuple[Observation, ...]:
    """How old the node's lease is, if it was looked at."""
    other = world.beside(_LEASES)
    lease = next((o for o in other.all("Lease") if o.name == node.name), None) if other is not None else None
    renewed = when(mapping(lease.raw.get("spec")).get("renewTime")) if lease is not None else None
    if other is None or lease is None or renewed is None:
        return ()
    return (seen(other.listing("Lease"), f"Lease/{_LEASES}/{node.name} last renewed {clock(renewed)}"),)


def _flapped(world: World, node: KubeObject, state: Condition) -> Iterator[Candidate]:
    """Ready again since a moment ago: it was the node, and it is over, as long as nothing there still fails."""
    if state.changed is None or world.scene.now - state.changed > _FLAPPED:
        return
    born = node.created
    if born is not None and state.changed - born < timedelta(minutes=2):
        return  # (a new node becomes ready once)
    turns = [e for e in _events(world, node) if e in ("NodeNotReady", "NodeReady")]
    told = seen(
        world.scene.listing("Node"),
        f"{node.title}: Ready since {clock(state.changed)[3:]}" + (f"; {count(len(turns), 'Event')} about its turns" if turns else ""),
    )
    if not about_node(world, node.name) or _hurt(world, node.name):
        return
    yield made(
        world,
        Category.NODE,
        node.title,
        f"{node.title} is not Ready.",
        marks=(Mark("state fits", (told,)),),
        inferred=1,
        refuted=f"it is Ready again {clock(state.changed)}",
        hits=(node.title,),
    )
    yield made(
        world,
        Category.NO_FAULT,
        node.title,
        f"{node.title} is Ready again {clock(state.changed)}, and no pod on it fails: it is over.",
        marks=(Mark("nothing fails", (told,)),),
        inferred=0,
        counterfactual=True,
        hits=(node.title,),
    )


def _events(world: World, node: KubeObject) -> list[str]:
    """Reasons of Events about the node, wherever they were written (a node's are in the namespace `default`)."""
    scenes: list[Scene | None] = [world.scene, world.beside("default")]
    about = ({node.name, node.uid} - {""}) or {node.name}
    return [
        word(o.raw.get("reason"))
        for s in scenes
        if s is not None
        for o in s.all("Event")
        if word(mapping(o.raw.get("involvedObject")).get("kind")) == "Node"
        and word(mapping(o.raw.get("involvedObject")).get("name")) in about
    ]


def _pressed(world: World, node: KubeObject, state: Mapping[str, Condition]) -> Iterator[Candidate]:
    for kind in _PRESSURES:
        condition = state.get(kind)
        if condition is None or condition.status != "True":
            continue
        evicted, hurt = _evicted(world, node), _hurt(world, node.name)
        hits = (*_hits(world, node, hurt), *_owners(world, node))
        if not hits:
            continue
        told = seen(world.scene.listing("Node"), f"{node.title}: {kind} True {condition.reason} since {clock(condition.changed)[3:]}")
        lost = f"; evicted: {listed(evicted)}" if evicted else ""
        marks = [Mark("mechanism named", (told,))]
        if evicted:
            marks.append(Mark("state fits", (seen(world.scene.listing("Pod"), f"evicted from {node.name}: {listed(evicted)}"),)))
        yield made(
            world,
            Category.NODE,
            node.title,
            f"{node.title} reports {kind} since {clock(condition.changed)[3:]}{lost}.",
            marks=marks,
            inferred=0 if hurt or evicted else 1,
            counterfactual=bool(evicted),
            hits=hits,
            since=condition.changed,
        )


def _evicted(world: World, node: KubeObject) -> list[str]:
    return [
        o.name
        for o in world.scene.all("Pod")
        if word(mapping(o.raw.get("status")).get("reason")) == "Evicted" and word(mapping(o.raw.get("spec")).get("nodeName")) == node.name
    ]


def _owners(world: World, node: KubeObject) -> list[str]:
    """Workloads whose pods were evicted from the node."""
    return sorted({world.graph.root(f"Pod/{name}") for name in _evicted(world, node)})


# -- closed ---------------------------------------------------------------------------------------------------------------------------------


def _closed(world: World, node: KubeObject, notice: Notice | None) -> Iterator[Candidate]:
    """A cordon. What cannot be scheduled because of it is another finder's matter; the node's own state is told here."""
    change = edited(node, "spec", "unschedulable")
    told = seen(world.scene.listing("Node"), f"{node.title}: spec.unschedulable true")
    keys = ("unschedulable", *(k for t in objects(mapping(node.raw.get("spec")).get("taints")) if (k := word(t.get("key")))))
    waiting = tuple(world.owner_of(p) for p in world.scene.pods if p.unschedulable and any(k in p.unschedulable for k in keys))
    if notice is not None:
        hits = (*_hits(world, node, ()), *dict.fromkeys(waiting))
        if not hits:
            return
        yield from _meant(
            world, node, Category.UNSCHEDULABLE, notice, [Mark("mechanism named", (told,))], hits, f"{node.title} is cordoned"
        )
        return
    if not about_node(world, node.name):
        return
    taints = [
        word(t.get("timeAdded")) for t in objects(mapping(node.raw.get("spec")).get("taints")) if "unschedulable" in word(t.get("key"))
    ]
    since = change.at if change is not None else when(taints[0]) if taints else None
    yield made(
        world,
        Category.UNSCHEDULABLE,
        node.title,
        f"{node.title} is cordoned, and nothing announces why.",
        marks=(Mark("mechanism named", (told,)), *([saw_change(world.scene, node, change, "unschedulable")] if change else [])),
        inferred=0 if change else 1,
        counterfactual=True,
        change=change or (ChangeRef(kind="Edit", at=since) if since else None),
        hits=(node.title,),
    )


@dataclass(frozen=True)
class Notice:
    """An announcement that stands: in whose words, and where it was seen."""

    words: str
    proof: Observation


def announced(world: World, node: KubeObject) -> Notice | None:
    """Maintenance that a label, an annotation or a taint of the node, a ConfigMap or an Event announces; one that is over does not count."""
    listing = world.scene.listing("Node")
    for key, value in _own_words(node):
        if _ANNOUNCED.search(key) and value.strip().lower() not in _OFF and not _over(value, world.scene.now):
            text = f"{key}={value[:160]}" if value else key
            return Notice(text, seen(listing, f"{node.title}: {text}", Channel.CHANGE))
    for scene in (world.scene, world.beside("kube-system"), world.beside("default")):
        for obj in scene.all("ConfigMap") if scene is not None else ():
            told = _notice_in(obj, node.name, world.scene.now)
            if told and scene is not None:
                return Notice(f"{obj.title}: {told}", seen(scene.listing("ConfigMap"), f"{obj.title}: {told}", Channel.CHANGE))
    return None


def _own_words(node: KubeObject) -> Iterable[tuple[str, str]]:
    spec = mapping(node.raw.get("spec"))
    for where in (node.annotations, node.labels):
        yield from ((k, v) for k, v in sorted(where.items()) if not _NOT_NOTICE.search(k))
    for taint in objects(spec.get("taints")):
        yield word(taint.get("key")), word(taint.get("value"))


def _over(text: str, now: datetime) -> bool:
    """Whether every time that an announcement names lies behind, a day or more where it names only its beginning."""
    times = [t for raw in _TIME.findall(text[:2000]) if (t := when(_zoned(raw))) is not None]
    if not times:
        return False
    last = max(times)
    return last < now if len(times) > 1 else last < now - timedelta(days=1)


def _zoned(raw: str) -> str:
    raw = raw.replace(" ", "T")
    return raw if re.search(r"(?:Z|[+-]\d{2}:?\d{2})$", raw) else f"{raw}Z"


def _notice_in(obj: KubeObject, node: str, now: datetime) -> str:
    """A ConfigMap about maintenance that names the node."""
    data = words(obj.raw.get("data"))
    told = " ".join((obj.name, *obj.labels, *obj.labels.values()))
    text = " ".join(f"{k} {v[:2000]}" for k, v in sorted(data.items()))[:8000]
    if not _ANNOUNCED.search(told) and not (_NOTICE.search(told) and _ANNOUNCED.search(text)):
        return ""
    if not re.search(rf"(?<![\w.-]){re.escape(node)}(?![\w-])", text) or _over(text, now):
        return ""
    return text[:160]


def _meant(
    world: World, node: KubeObject, category: Category, notice: Notice, marks: list[Mark], hits: tuple[str, ...], what: str
) -> Iterator[Candidate]:
    """The obvious thought, refuted by the announcement, and what follows from it: nothing is wrong."""
    yield made(world, category, node.title, f"{what}.", marks=marks, inferred=0, refuted=f"it is announced ({notice.words})", hits=hits)
    yield made(
        world,
        Category.NO_FAULT,
        node.title,
        f"{what}, and it is announced ({notice.words}).",
        marks=(*marks, Mark("intended", (notice.proof,))),
        inferred=0,
        counterfactual=True,
        hits=hits,
    )


# -- everything fails there -------------------------------------------------------------------------------------------------------------------


def _only_there(world: World) -> Iterator[Candidate]:
    """A node that says it is Ready, on which pods of several workloads fail that are Ready on others."""
    failing: dict[str, dict[str, int]] = {}
    for w in world.workloads:
        report = world.case(w).report
        ill = {p.node for f in report.findings if f.trouble in TERMINAL or f.trouble is Trouble.NOT_READY for p in f.pods if p.node}
        well = {p.node for p in ready(w)}
        if len(ill) == 1 and well and not ill & well:
            node = next(iter(ill))
            failing.setdefault(node, {})[w.title] = sum(1 for f in report.findings for p in f.pods if p.node == node)
    known = {n.name: conditions(mapping(n.raw.get("status"))).get("Ready") for n in world.scene.all("Node")}
    for node, titles in sorted(failing.items()):
        state = known.get(node)
        works = [p for w in world.workloads if w.title not in titles for p in ready(w) if p.node == node]
        if len(titles) < _FEW_PODS or works or (state is not None and state.status != "True"):
            continue
        names = listed(sorted(titles))
        proof = seen(world.scene.listing("Pod"), f"pods of {names} fail on {node} only, and are Ready on other nodes", Channel.CONTRAST)
        yield made(
            world,
            Category.NODE,
            f"Node/{node}",
            f"Pods of {names} fail on Node/{node} and on no other node, where the same revisions serve.",
            marks=(Mark("works on other nodes", (proof,)),),
            inferred=1,
            caps=(Cap("C", "the node itself reports no trouble"),),
            hits=(f"Node/{node}", *sorted(titles)),
        )
