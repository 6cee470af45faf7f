"""Origins of pods that find no node: what they ask for, what the nodes changed, or who took the room.

The scheduler's message counts nodes by reason and names none. So where a pod could run is computed from nodes and pods, the message
only confirms it, and each candidate says what was lifted and which node would then take the pod.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..changes import Introduced
from ..evidence import Channel, Observation, safe, seen
from ..findings import UnscheduledFinding
from ..hypotheses import Candidate, Cap, Mark
from ..read import clock, count, latest, listed, mapping, objects, word, words
from ..scene import Revision, Scene
from ..views import Node, Pod
from . import placing
from .claims import bound_volumes, claim_origins
from .common import release_of
from .created import brought_in
from .placing import (
    AFFINITY,
    ALONE,
    APART,
    CORDON,
    DOWN,
    FULL,
    NAME,
    PODS,
    PORTS,
    SELECTOR,
    SPREAD,
    TAINT,
    TOGETHER,
    Floor,
    Need,
    announced,
    hostile,
    need_of,
)
from .sizes import defaults, shown
from .touched import Touch, last_touch

_DEFAULT_SCHEDULER = "default-scheduler"
# How the scheduler words each obstacle. (Its wording varies with versions: these are the parts that do not.)
_SAYS: tuple[tuple[re.Pattern[str], frozenset[str]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), frozenset(kinds))
    for pattern, kinds in (
        (r"were unschedulable", (CORDON,)),
        (r"untolerated taint|had taint", (TAINT, DOWN)),
        (r"node affinity/selector|node selector|node affinity", (SELECTOR, AFFINITY)),
        (r"requested node name", (NAME,)),
        (r"insufficient ", (ALONE, FULL)),
        (r"too many pods", (PODS,)),
        (r"free ports", (PORTS,)),
        (r"anti-affinity", (APART,)),
        (r"pod affinity", (TOGETHER,)),
        (r"topology spread", (SPREAD,)),
    )
)
# What of its own a pod can ask that no node gives, in the order in which it is told, with the words for it.
_OWN: tuple[tuple[str, str], ...] = (
    (ALONE, "requests more than any node has"),
    (SELECTOR, "selects nodes by labels that none has"),
    (AFFINITY, "wants nodes that its node affinity does not find"),
    (TAINT, "does not tolerate the taint of the nodes that it could run on"),
    (PORTS, "takes a host port that is taken on every node"),
    (APART, "must be kept apart from pods that run on every node"),
    (TOGETHER, "must run beside pods that run on no fitting node"),
    (SPREAD, "must be spread more evenly than the nodes allow"),
)


def scheduling_origins(case: Case, f: UnscheduledFinding) -> tuple[Candidate, ...]:
    """What keeps these pods from a node, storage first: a claim that is not bound says more than the nodes."""
    match f.reason:
        case "SchedulingGated":
            found = tuple(_gated(case, f))
        case "NotLookedAt":
            found = tuple(_nobody_looks(case, f))
        case "Refused":
            found = tuple(_refused(case, f))
        case "NodeAbsent":
            found = tuple(_absent_node(case, f))
        case _:
            found = claim_origins(case, f) or (tuple(_placed(_Look(case, f))) if case.scene.nodes else ())
    return tuple(replace(c, hits=c.hits or (case.title,)) for c in found)


# -- without looking at nodes -------------------------------------------------------------------------------------------------------


def _setting(
    case: Case, f: UnscheduledFinding, value: Callable[[Mapping[str, Any]], object], what: str, field: str, *, sure: bool = True
) -> Iterator[Candidate]:
    """One field of the template as the origin: brought in by a release, or never otherwise."""
    found = brought_in(case, f.revision, value)
    marks = [Mark("mechanism named", f.seen)]
    base = Candidate(
        Category.UNSCHEDULABLE,
        case.title,
        f"{case.title} {what}.",
        f"{case.name} {what}.",
        ChangeRef(kind="None"),
        inferred=0 if sure else 1,
    )
    if found is None or found.previous is None:
        ran = case.workload.completed_once or case.history.lasted
        caps = (Cap("C", "pods of this very template have run"),) if ran else ()
        yield replace(base, marks=(*marks, Mark("no change seen")), caps=caps)
        return
    marks.append(Mark("introduced by this release", (case.saw_release(found, f"{field} changed"),)))
    if case.contrast(f).separates_revisions:
        marks.append(Mark("previous revision serves", case.saw_serving(f)))
    statement = f"{release_of(case, found.revision)} {what}; the release before did not."
    yield replace(
        base,
        statement=statement,
        summary=statement,
        change=case.release(found.revision),
        marks=tuple(marks),
        counterfactual=case.history.proven(found.previous),
        timing=True,
    )


def _gated(case: Case, f: UnscheduledFinding) -> Iterator[Candidate]:
    """Gates that the template itself sets stay until somebody lifts them. Gates that a queue added are its way of waiting."""
    gates = [word(g.get("name")) for g in objects(f.revision.pod_spec.get("schedulingGates"))]
    if gates:
        told = safe(listed(gates), 200)
        yield from _setting(
            case,
            f,
            lambda t: mapping(t.get("spec")).get("schedulingGates"),
            f"is held back by scheduling gates ({told})",
            "spec.schedulingGates",
        )


def _nobody_looks(case: Case, f: UnscheduledFinding) -> Iterator[Candidate]:
    """A scheduler of that name has placed nothing here. (The default one not doing its work is the control plane's trouble.)"""
    name = word((f.pods[0].spec if f.pods else f.revision.pod_spec).get("schedulerName")) or _DEFAULT_SCHEDULER
    if name == _DEFAULT_SCHEDULER or any(word(p.spec.get("schedulerName")) == name and p.judged and p.node for p in case.scene.pods):
        return
    yield from _setting(
        case,
        f,
        lambda t: word(mapping(t.get("spec")).get("schedulerName")) or _DEFAULT_SCHEDULER,
        f"asks for scheduler {safe(name, 120)}, which has not looked at any of its pods",
        "spec.schedulerName",
    )


def _absent_node(case: Case, f: UnscheduledFinding) -> Iterator[Candidate]:
    """Bound by the template to a node that is not there: the referrer's mistake if it is new, else the node has gone."""
    name = word(f.revision.pod_spec.get("nodeName"))
    if not name or (case.workload.kind == "Pod" and any(p.judged for p in f.pods)):
        return
    title = safe(f"Node/{name}", 250)
    ran = case.workload.completed_once or case.history.lasted or any(p.ready for p in f.revision.pods)
    if ran:
        statement = f"{title}, to which {case.title} binds its pods, does not exist any more."
        marks = (Mark("mechanism named", f.seen), Mark("existed before"))
        yield Candidate(Category.UNSCHEDULABLE, title, statement, statement, ChangeRef(kind="Deletion"), marks, inferred=1)
    what = f"binds its pods to {title} (spec.nodeName), which does not exist"
    for c in _setting(case, f, lambda t: word(mapping(t.get("spec")).get("nodeName")), what, "spec.nodeName"):
        floor = floor_of(case.scene)
        free = floor.fits(placing.unnamed(_need_of_template(case, f.revision)))
        told = seen(
            case.scene.listing("Node"),
            f"without spec.nodeName a pod of {f.revision.label} fits on {listed([n.name for n in free]) or 'no node'}",
        )
        yield replace(
            c, counterfactual=c.counterfactual or bool(free), marks=(*c.marks, Mark("counterfactual holds", (told,))) if free else c.marks
        )


def _refused(case: Case, f: UnscheduledFinding) -> Iterator[Candidate]:
    """Bound by the template to a node that has no room for it. (That a scheduler and a kubelet disagree for once passes by itself.)"""
    name = word(f.revision.pod_spec.get("nodeName"))
    if name:
        what = f"binds its pods to Node/{safe(name, 120)} (spec.nodeName), whose kubelet does not take them ({safe(f.pods[0].reason, 60)})"
        yield from _setting(case, f, lambda t: word(mapping(t.get("spec")).get("nodeName")), what, "spec.nodeName")


# -- where it could run -------------------------------------------------------------------------------------------------------------


def floor_of(scene: Scene) -> Floor:
    """The nodes and what runs on them, made once per scene."""
    if ("floor", "") not in scene.memo:
        scene.memo["floor", ""] = Floor(scene)
    found: Floor = scene.memo["floor", ""]
    return found


def _need_of_template(case: Case, revision: Revision) -> Need:
    labels = words(mapping(revision.template.get("metadata")).get("labels"))
    return need_of(revision.pod_spec, labels, defaults(case.scene))


@dataclass(frozen=True)
class _Look:
    """One group of pods against every node, each view made once."""

    case: Case
    f: UnscheduledFinding

    @cached_property
    def floor(self) -> Floor:
        return floor_of(self.case.scene)

    @cached_property
    def pod(self) -> Pod | None:
        return min(self.f.pods, key=lambda p: p.name, default=None)

    @cached_property
    def need(self) -> Need:
        if self.pod is None:
            return _need_of_template(self.case, self.f.revision)
        return need_of(self.pod.spec, self.pod.labels, volumes=bound_volumes(self.case.scene, self.pod.spec, self.pod.name))

    @cached_property
    def obstacles(self) -> dict[str, frozenset[str]]:
        return {n.name: self.floor.obstacles(self.need, n) for n in self.floor.nodes}

    @cached_property
    def fitting(self) -> tuple[Node, ...]:
        return tuple(n for n in self.floor.nodes if not self.obstacles[n.name])

    @cached_property
    def told(self) -> frozenset[str]:
        """The obstacles that the scheduler's message names."""
        return frozenset(k for pattern, kinds in _SAYS if pattern.search(self.f.message) for k in kinds)

    def agrees(self, *kinds: str) -> bool:
        return bool(self.told & set(kinds))

    def named(self, *kinds: str, text: str = "") -> Mark:
        """The mechanism: computed, and named by the scheduler as well or not."""
        table = "; ".join(f"{n}: {', '.join(sorted(o)) or 'fits'}" for n, o in sorted(self.obstacles.items())[:6])
        proof = seen(self.case.scene.listing("Node"), text or f"computed per node: {table}")
        return Mark("mechanism named" if self.agrees(*kinds) else "mechanism likely", (*self.f.seen, proof))

    def saw_nodes(self, text: str, channel: Channel = Channel.STATUS) -> Observation:
        return seen(self.case.scene.listing("Node"), text, channel)

    @cached_property
    def ran(self) -> bool:
        """Whether pods of this very template had all found a node before."""
        return self.case.workload.completed_once or self.case.history.lasted

    @cached_property
    def placed(self) -> tuple[Pod, ...]:
        """Pods of the workload that have a node."""
        return tuple(p for p in self.case.workload.pods if p.node)


def _placed(look: _Look) -> Iterator[Candidate]:
    """The first kind of origin that is found; what else would do as well is told behind it."""
    if look.fitting:
        yield from _room_unseen(look)
        return
    released = tuple(_released(look))
    if released:
        yield from released
        return
    of_nodes = tuple(_nodes_changed(look))
    yield from of_nodes
    if any(c.grade in ("A", "B") or c.refuted for c in of_nodes):
        return
    own = tuple(_asks_too_much(look))
    yield from own
    if not own:
        yield from _no_room(look)


# -- a release ----------------------------------------------------------------------------------------------------------------------

_PARTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("size", "requests", (ALONE, FULL)),
    ("selector", "nodeSelector", (SELECTOR,)),
    ("terms", "node affinity", (AFFINITY,)),
    ("tolerations", "tolerations", (TAINT, DOWN, CORDON)),
    ("node_name", "nodeName", (NAME,)),
    ("ports", "host ports", (PORTS,)),
    ("apart", "pod anti-affinity", (APART,)),
    ("beside", "pod affinity", (TOGETHER,)),
    ("spread", "topology spread constraints", (SPREAD,)),
)


def _released(look: _Look) -> Iterator[Candidate]:
    """A release since which its pods fit nowhere, though they would with what the one before asked for."""
    case = look.case
    now = _need_of_template(case, look.f.revision)

    def asked(template: Mapping[str, Any]) -> object:
        labels = words(mapping(template.get("metadata")).get("labels"))
        need = need_of(mapping(template.get("spec")), labels, defaults(case.scene))
        return tuple(getattr(need, part) for part, _, _ in _PARTS)

    found = brought_in(case, look.f.revision, asked)
    if found is None or found.previous is None:
        return
    before = _need_of_template(case, found.previous)
    gone = frozenset(id(p) for p in look.f.pods)
    would = look.floor.fits(_as_of(look.need, before, now), gone)
    if not would:
        return
    guilty = [(p, words_, kinds) for p, words_, kinds in _PARTS if getattr(before, p) != getattr(now, p) and _lifts(look, p, before, gone)]
    changed = guilty or [(p, w, k) for p, w, k in _PARTS if getattr(before, p) != getattr(now, p)]
    told = "; ".join(_difference(part, words_, before, now) for part, words_, _ in changed[:4])
    kinds = tuple(k for _, _, ks in changed for k in ks)
    release = release_of(case, found.revision)
    where = listed([n.name for n in would])
    statement = f"{release} changed {told}, and no node takes its pods; as the release before asked, {where} would."
    marks = [
        look.named(*kinds),
        Mark("introduced by this release", (case.saw_release(found, told),)),
        Mark(
            "counterfactual holds",
            (look.saw_nodes(f"with the {listed([w for _, w, _ in changed])} of {found.previous.label} it fits on {where}"),),
        ),
    ]
    if case.contrast(look.f).separates_revisions:
        marks.append(Mark("previous revision serves", case.saw_serving(look.f)))
    yield Candidate(
        Category.UNSCHEDULABLE,
        case.title,
        safe(statement),
        safe(f"{release} changed {told}, and no node takes its pods.", 400),
        case.release(found.revision),
        tuple(marks),
        inferred=0 if look.agrees(*kinds) else 1,
        counterfactual=True,
        timing=True,
    )


def _as_of(need: Need, before: Need, now: Need) -> Need:
    """The pod's need with everything that the release changed put back."""
    changed = {part: getattr(before, part) for part, _, _ in _PARTS if getattr(before, part) != getattr(now, part)}
    return replace(need, **changed)


def _lifts(look: _Look, part: str, before: Need, gone: frozenset[int]) -> bool:
    changed: dict[str, Any] = {part: getattr(before, part)}
    return bool(look.floor.fits(replace(look.need, **changed), gone))


def _difference(part: str, what: str, before: Need, now: Need) -> str:
    if part == "size":
        changed = [r for r in sorted(before.size.keys() | now.size.keys()) if before.size.get(r) != now.size.get(r)]
        return ", ".join(
            f"its request for {r}: {shown(r, before.size.get(r, 0.0))} → {shown(r, now.size.get(r, 0.0))}" for r in changed[:3]
        )
    if part == "selector":
        told = ", ".join(f"{k}={v}" for k, v in sorted(now.selector.items()))
        return f"its nodeSelector to {safe(told, 200) or 'none'}"
    return f"its {what}"


# -- nodes that changed -------------------------------------------------------------------------------------------------------------


def _nodes_changed(look: _Look) -> Iterator[Candidate]:
    """Cordons, taints and labels that were put on or taken off nodes where such pods did run."""
    yield from _cordoned(look)
    yield from _tainted(look)
    yield from _relabelled(look)
    yield from _down(look)


def _ran_on(look: _Look, nodes: tuple[Node, ...]) -> tuple[Pod, ...]:
    """Pods of the workload that are, or (by the names of nodes) were, on any of these."""
    names = {n.name for n in nodes}
    return tuple(p for p in look.placed if p.node in names)


def _cordoned(look: _Look) -> Iterator[Candidate]:
    nodes = look.floor.fits(look.need, without=(CORDON,))
    alone = bool(nodes)
    if not alone:  # a drain that is announced often adds a taint of its own
        nodes = tuple(n for n in look.floor.fits(look.need, without=(CORDON, TAINT, DOWN)) if CORDON in look.obstacles[n.name])
    if not nodes:
        return
    meant = {n.name: announced(n) for n in nodes}
    told = {n.name: last_touch(n.obj, ("f:spec", "f:unschedulable")) for n in nodes}
    first = next((n for n in nodes if not meant[n.name]), nodes[0])
    touch = told[first.name]
    names = listed([n.name for n in nodes])
    others = f" ({count(len(nodes), 'cordoned node')}: {names})" if len(nodes) > 1 else ""
    also = "" if alone else " and without its taints"
    statement = f"{first.title} is cordoned{_when(touch)}{others}; uncordoned{also}, it would take a pod of {look.case.title}."
    base = Candidate(
        Category.UNSCHEDULABLE,
        first.title,
        statement,
        statement,
        _edit(touch),
        tuple(_node_marks(look, nodes, touch, CORDON, f"cordoned: {names}")),
        inferred=0 if look.agrees(CORDON) else 1,
        counterfactual=alone,
        timing=touch is not None,
        caps=(Cap("C", "pods of it found a node after that, so it is not what changed"),) if _had_room_since(look, touch) else (),
    )
    if _had_room_since(look, touch):
        base = replace(base, marks=(Mark("state fits", look.f.seen), Mark("no change seen")))
    if all(meant.values()):
        why = f"{first.title} is out of use on purpose: {safe(meant[first.name], 200)}"
        yield replace(base, refuted=why)
        return
    yield base


def _had_room_since(look: _Look, touch: Touch | None) -> bool:
    """Whether pods of the workload were placed after a node went out of use: then there was room without it."""
    return touch is not None and any(p.created is not None and p.created > touch.at for p in look.placed)


def _tainted(look: _Look) -> Iterator[Candidate]:
    nodes = look.floor.fits(look.need, without=(TAINT,))
    if not nodes:
        return
    ran = _ran_on(look, nodes)
    keyed = [(n, t) for n in nodes for t in hostile(look.need, n) if not t.key.startswith("node.kubernetes.io/")]
    if not keyed:
        return
    node, taint = keyed[0]
    touch = _since_taint(node, taint.since)
    newer = bool(ran) or (look.ran and _after_release(look, touch))
    if not newer:
        return
    key = safe(f"{taint.key}={taint.value}:{taint.effect}", 160)
    names = listed(list(dict.fromkeys(n.name for n, _ in keyed)))
    statement = f"{node.title} carries taint {key}{_when(touch)}, which {look.case.title} does not tolerate; without it, it would take a pod ({names})."
    meant = announced(node)
    yield Candidate(
        Category.UNSCHEDULABLE,
        node.title,
        statement,
        statement,
        _edit(touch),
        tuple(_node_marks(look, nodes, touch, TAINT, f"tainted {key}: {names}", ran)),
        inferred=0 if ran and look.agrees(TAINT) else 1,
        counterfactual=True,
        timing=touch is not None,
        refuted=f"{node.title} is out of use on purpose: {safe(meant, 200)}" if meant else "",
    )


def _since_taint(node: Node, since: datetime | None) -> Touch | None:
    return Touch(since, "", created=False) if since else last_touch(node.obj, ("f:spec", "f:taints"))


def _relabelled(look: _Look) -> Iterator[Candidate]:
    """A label that the pods select by is gone from a node on which pods of this very template run, or was just taken off one."""
    nodes = look.floor.fits(look.need, without=(SELECTOR, AFFINITY))
    ran = [p for p in _ran_on(look, nodes) if p in look.f.revision.pods]
    wanted = ", ".join(f"{k}={v}" for k, v in sorted(look.need.selector.items())) or "its node affinity"
    if ran:
        node = next(n for n in nodes if n.name == min(p.node for p in ran))
        touch, inferred, how = last_touch(node.obj, ("f:metadata", "f:labels")), 0, f"{ran[0].name} of the same template runs there"
    elif look.ran:
        fresh = [
            (t, n) for n in nodes if (t := last_touch(n.obj, ("f:metadata", "f:labels"))) and not t.created and _after_release(look, t)
        ]
        if not fresh:
            return
        touch, node = max(fresh, key=lambda x: (x[0].at, x[1].name))
        inferred, how = 1, "its labels changed since such pods last found a node"
    else:
        return
    if touch is not None and touch.created:
        touch = None
    statement = f"{node.title} no longer matches what {look.case.title} selects nodes by ({safe(wanted, 200)}){_when(touch)}; {how}."
    yield Candidate(
        Category.UNSCHEDULABLE,
        node.title,
        statement,
        statement,
        _edit(touch),
        tuple(_node_marks(look, (node,), touch, SELECTOR, f"{node.title}: does not match {wanted}", tuple(ran))),
        inferred=inferred if look.agrees(SELECTOR, AFFINITY) else inferred + 1,
        counterfactual=True,
        timing=touch is not None,
    )


def _down(look: _Look) -> Iterator[Candidate]:
    """Nodes that the control plane keeps pods off, since they are not ready or under pressure: the machine is the origin."""
    nodes = look.floor.fits(look.need, without=(DOWN,))
    if not nodes:
        return
    node = nodes[0]
    taint = next((t for t in hostile(look.need, node) if t.key.startswith("node.kubernetes.io/")), None)
    what = safe(taint.key.partition("/")[2], 60) if taint else "not ready"
    names = listed([n.name for n in nodes])
    statement = f"{node.title} takes no pods ({what}); without that, it would take a pod of {look.case.title} ({names})."
    touch = Touch(taint.since, "", created=False) if taint and taint.since else None
    yield Candidate(
        Category.NODE,
        node.title,
        statement,
        statement,
        ChangeRef(kind="None"),
        (look.named(DOWN), Mark("no change seen")),
        inferred=0 if look.agrees(DOWN) else 1,
        counterfactual=True,
        timing=touch is not None,
        since=touch.at if touch else None,
    )


def _node_marks(
    look: _Look, nodes: tuple[Node, ...], touch: Touch | None, kind: str, text: str, ran: tuple[Pod, ...] | None = None
) -> Iterator[Mark]:
    yield look.named(kind)
    yield Mark("counterfactual holds", (look.saw_nodes(f"{text}; nothing else keeps such a pod off"),))
    pods = _ran_on(look, nodes) if ran is None else ran
    if pods:
        text = f"{listed([f'{p.name} on {p.node}' for p in pods])}: such pods were placed there before"
        yield Mark("node changed since", (seen(look.case.scene.listing("Pod"), text, Channel.CHANGE),))
    elif touch is not None and not touch.created:
        yield Mark("edited before it began", (look.saw_nodes(f"{nodes[0].title} {touch.told}", Channel.CHANGE),))
    else:
        yield Mark("no change seen")


def _after_release(look: _Look, touch: Touch | None) -> bool:
    released = look.f.revision.released
    return touch is not None and not touch.created and released is not None and touch.at > released


def _when(touch: Touch | None) -> str:
    return f" since {clock(touch.at)[3:]}" if touch is not None and not touch.created else ""


def _edit(touch: Touch | None) -> ChangeRef:
    return touch.change if touch is not None and not touch.created else ChangeRef(kind="None")


# -- what it asks for, and what is left ---------------------------------------------------------------------------------------------


def _asks_too_much(look: _Look) -> Iterator[Candidate]:
    """The template asks for what no node gives, and no release is left to compare with that asked for less."""
    case = look.case
    for kind, what in _OWN:
        nodes = look.floor.fits(look.need, without=(kind,))
        if not nodes:
            continue
        told = safe(_why(look, kind, nodes), 400)
        statement = f"{case.title} {what} ({told}); without that, {listed([n.name for n in nodes])} would take it."
        marks = (look.named(kind), Mark("counterfactual holds", (look.saw_nodes(told),)), Mark("no change seen"))
        caps = []
        if look.ran:
            caps.append(Cap("C", "pods of this very template had found nodes before, so something else changed"))
        if kind in (APART, SPREAD, PORTS, TOGETHER) and look.case.workload.pods and len(look.placed) > 0:
            statement = f"{case.title} {what} ({told}); {count(len(look.placed), 'pod')} of it are placed."
        yield Candidate(
            Category.UNSCHEDULABLE,
            case.title,
            statement,
            f"{case.name} {what} ({told}).",
            ChangeRef(kind="None"),
            marks,
            inferred=0 if look.agrees(kind, *((SELECTOR, AFFINITY) if kind in (SELECTOR, AFFINITY) else ())) else 1,
            counterfactual=True,
            caps=tuple(caps),
        )
        return


def _why(look: _Look, kind: str, nodes: tuple[Node, ...]) -> str:
    need = look.need
    if kind == ALONE:
        roomiest = max(nodes, key=lambda n: (-len(look.floor.short(need, n)), n.name))
        return f"{roomiest.title}: {look.floor.short(need, roomiest)}"
    if kind == SELECTOR:
        return "nodeSelector " + ", ".join(f"{k}={v}" for k, v in sorted(need.selector.items()))
    if kind == TAINT:
        taints = dict.fromkeys(f"{t.key}={t.value}:{t.effect}" for n in nodes for t in hostile(need, n))
        return f"taint {listed(list(taints))}"
    if kind == PORTS:
        return "host port " + listed([str(p) for _, _, p in sorted(need.ports)])
    if kind in (APART, TOGETHER, SPREAD):
        terms = {APART: need.apart, TOGETHER: need.beside, SPREAD: need.spread}[kind]
        return "by " + listed(list(dict.fromkeys(word(t.get("topologyKey")) for t in terms)))
    return "required node affinity"


def _no_room(look: _Look) -> Iterator[Candidate]:
    """Nodes that suit are full: whoever took the room since, else the workload that wants more than is left."""
    nodes = look.floor.fits(look.need, without=(FULL, PODS))
    if not nodes:
        return
    case = look.case
    told = safe("; ".join(f"{n.title}: {look.floor.short(look.need, n) or 'no room for another pod'}" for n in nodes[:3]), 500)
    takers = tuple(_takers(look, nodes))
    for title, pods, where in takers[:2]:
        statement = f"{title} took the room that a pod of {case.title} needs ({count(len(pods), 'pod')}); without it, {listed(list(where))} would take the pod."
        proof = seen(case.scene.listing("Pod"), f"{title}: {listed([f'{p.name} on {p.node}' for p in pods])}; {told}")
        yield Candidate(
            Category.UNSCHEDULABLE,
            title,
            statement,
            statement,
            ChangeRef(kind="None"),
            (look.named(FULL, PODS), Mark("edited before it began", (proof,))),
            inferred=1,
            counterfactual=True,
            timing=True,
            since=latest(*(p.created for p in pods)) if len(pods) == 1 else min((p.created for p in pods if p.created), default=None),
        )
    statement = f"No node has room for another pod of {case.title} ({told}); {count(len(look.placed), 'pod')} of it are placed."
    touch = last_touch(case.workload.obj, ("f:spec", "f:replicas"))
    scaled = touch is not None and not touch.created and bool(look.placed)
    caps = [Cap("B", "pods of other namespaces were not all looked at")]
    if takers:
        caps.append(Cap("C", f"{takers[0][0]} took that room since"))
    yield Candidate(
        Category.UNSCHEDULABLE,
        case.title,
        statement,
        statement,
        touch.change if touch and scaled else ChangeRef(kind="None"),
        (look.named(FULL, PODS), Mark("no change seen")),
        inferred=1,
        counterfactual=bool(look.placed),
        caps=tuple(caps),
    )


def _takers(look: _Look, nodes: tuple[Node, ...]) -> Iterator[tuple[str, tuple[Pod, ...], tuple[str, ...]]]:
    """Workloads that came after this one's pods had their room, and without which it would fit: title, pods, nodes. The largest first."""
    names = {n.name for n in nodes}
    mine = {id(p) for p in look.case.workload.pods}
    settled = latest(*(p.created for p in look.placed)) or look.f.revision.released
    by_owner: dict[str, list[Pod]] = {}
    for pod in look.case.scene.pods:
        if pod.node in names and id(pod) not in mine and not pod.done and settled and pod.created and pod.created > settled:
            by_owner.setdefault(look.case.graph.root(f"Pod/{pod.name}"), []).append(pod)
    for title, pods in sorted(by_owner.items(), key=lambda kv: (-len(kv[1]), kv[0])):
        where = look.floor.fits(look.need, frozenset(id(p) for p in pods))
        if where:
            yield safe(title, 250), tuple(pods), tuple(n.name for n in where)


def _room_unseen(look: _Look) -> Iterator[Candidate]:
    """By what is known a node would take it. If the scheduler finds no room all the same, pods that were not seen have it."""
    case = look.case
    if not look.agrees(ALONE, FULL, PODS):
        return
    told = safe(look.f.message, 300)
    statement = f"The scheduler finds no room for a pod of {case.title} ({told}); the pods that were looked at leave room on {look.fitting[0].title}."
    found = brought_in(case, look.f.revision, lambda t: need_of(mapping(t.get("spec")), {}, defaults(case.scene)).size)
    caps = (Cap("C", "other namespaces' pods, which were not all looked at, must have the room"),)
    base = Candidate(
        Category.UNSCHEDULABLE,
        case.title,
        statement,
        statement,
        ChangeRef(kind="None"),
        (Mark("mechanism likely", look.f.seen),),
        inferred=1,
        caps=caps,
    )
    if found is not None and found.previous is not None and _grew(case, found):
        now, before = _need_of_template(case, look.f.revision), _need_of_template(case, found.previous)
        what = _difference("size", "requests", before, now)
        statement = f"{release_of(case, found.revision)} changed {what}, and the scheduler finds no room ({told})."
        mark = Mark("introduced by this release", (case.saw_release(found, what),))
        yield replace(
            base,
            statement=statement,
            summary=statement,
            change=case.release(found.revision),
            marks=(*base.marks, mark),
            timing=True,
            caps=(),
        )
        return
    yield replace(base, marks=(*base.marks, Mark("no change seen")))


def _grew(case: Case, found: Introduced) -> bool:
    assert found.previous is not None
    now, before = (_need_of_template(case, r).size for r in (found.revision, found.previous))
    return any(v > before.get(r, 0.0) for r, v in now.items())
