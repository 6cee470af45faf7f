"""Where a pod could run: what a scheduler checks, computed from nodes and pods, so that one can ask what would change it.

Only this namespace's pods (and what of others the snapshot holds) are known, so free room is an upper bound: "does not fit" is certain,
"would fit" holds as far as is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..graph import selects
from ..read import flag, mapping, number, objects, word, words
from ..scene import Scene
from ..views import Node, Pod, Taint
from .sizes import EPSILON, Size, added, amounts, pod_size, shown

# What can keep a pod off a node. CORDON, TAINT and DOWN are the node's; the others are the pod's, or both.
CORDON, TAINT, DOWN = "cordoned", "tainted", "not ready"
SELECTOR, AFFINITY, NAME = "not selected", "not wanted by affinity", "not the named node"
ALONE, FULL, PODS = "too small", "full", "no room for another pod"
PORTS, APART, SPREAD, TOGETHER, VOLUME = "host port taken", "kept apart", "would skew", "not beside", "volume is elsewhere"
# Taints that the control plane sets because of the machine's own state.
_CONDITION_TAINTS = "node.kubernetes.io/"
_CORDON_TAINT = "node.kubernetes.io/unschedulable"
_HOSTNAME = "kubernetes.io/hostname"


@dataclass(frozen=True)
class Need:
    """What one pod asks of a node."""

    size: Size = field(repr=False)
    selector: Mapping[str, str]
    terms: tuple[Mapping[str, Any], ...] = field(repr=False)
    tolerations: tuple[Mapping[str, Any], ...] = field(repr=False)
    node_name: str
    ports: frozenset[tuple[str, str, int]]
    apart: tuple[Mapping[str, Any], ...] = field(repr=False)
    beside: tuple[Mapping[str, Any], ...] = field(repr=False)
    spread: tuple[Mapping[str, Any], ...] = field(repr=False)
    labels: Mapping[str, str] = field(repr=False)
    volumes: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)


def need_of(
    spec: Mapping[str, Any],
    labels: Mapping[str, str],
    defaults: tuple[Size, Size] = ({}, {}),
    volumes: tuple[Mapping[str, Any], ...] = (),
) -> Need:
    """The needs of a pod, or of a pod template. `volumes`: the PersistentVolumes (raw) that its claims are bound to."""
    affinity = mapping(spec.get("affinity"))
    required = mapping(mapping(affinity.get("nodeAffinity")).get("requiredDuringSchedulingIgnoredDuringExecution"))
    hard = "requiredDuringSchedulingIgnoredDuringExecution"
    return Need(
        size=pod_size(spec, defaults)[0],
        selector=words(spec.get("nodeSelector")),
        terms=objects(required.get("nodeSelectorTerms")),
        tolerations=objects(spec.get("tolerations")),
        node_name=word(spec.get("nodeName")),
        ports=host_ports(spec),
        apart=objects(mapping(affinity.get("podAntiAffinity")).get(hard)),
        beside=objects(mapping(affinity.get("podAffinity")).get(hard)),
        spread=tuple(c for c in objects(spec.get("topologySpreadConstraints")) if word(c.get("whenUnsatisfiable")) == "DoNotSchedule"),
        labels=labels,
        volumes=volumes,
    )


def host_ports(spec: Mapping[str, Any]) -> frozenset[tuple[str, str, int]]:
    """(host address, protocol, port) of every port that a pod takes on its node."""
    own = flag(spec.get("hostNetwork"))
    return frozenset(
        (word(p.get("hostIP")), word(p.get("protocol")) or "TCP", port)
        for c in objects(spec.get("containers"))
        for p in objects(c.get("ports"))
        if (port := number(p.get("hostPort")) or (number(p.get("containerPort")) if own else 0))
    )


class Floor:
    """The nodes with what runs on them. `gone`: pods whose room one imagines free."""

    def __init__(self, scene: Scene) -> None:
        self.nodes = scene.nodes
        known = [
            *scene.pods,
            *(p for name in scene.snapshot.beside if (other := scene.beside(name)) and other is not scene for p in other.pods),
        ]
        self._pods = tuple(p for p in known if p.node and p.phase not in ("Succeeded", "Failed"))
        self._mine = {id(p) for p in scene.pods}
        self._by_node: dict[str, list[Pod]] = {}
        self._used: dict[str, Size] = {}
        for pod in self._pods:
            self._by_node.setdefault(pod.node, []).append(pod)
        for name, pods in self._by_node.items():
            total: Size = {}
            for pod in pods:
                total = added(total, pod_size(pod.spec)[0])
            self._used[name] = total
        self._domains: dict[tuple[int, str], dict[str, int]] = {}

    def on(self, node: str) -> list[Pod]:
        """Pods on a node that count."""
        return self._by_node.get(node, [])

    def used(self, node: Node, gone: frozenset[int] = frozenset()) -> Size:
        """What the known pods on it request."""
        total = dict(self._used.get(node.name, {}))
        if gone:
            for pod in self.on(node.name):
                if id(pod) in gone:
                    for k, v in pod_size(pod.spec)[0].items():
                        total[k] = total.get(k, 0.0) - v
        return total

    def obstacles(self, need: Need, node: Node, gone: frozenset[int] = frozenset()) -> frozenset[str]:
        """Everything that keeps such a pod off that node; empty: it would fit, as far as is known."""
        found = {
            *_of_node(need, node),
            *_of_wish(need, node),
            *self._of_room(need, node, gone),
            *self._of_neighbours(need, node, gone),
        }
        return frozenset(found)

    def fits(self, need: Need, gone: frozenset[int] = frozenset(), *, without: Iterable[str] = ()) -> tuple[Node, ...]:
        """Nodes that would take it if these obstacles were not."""
        lifted = frozenset(without)
        return tuple(n for n in self.nodes if not self.obstacles(need, n, gone) - lifted)

    def _of_room(self, need: Need, node: Node, gone: frozenset[int]) -> set[str]:
        room, used = amounts(dict(node.room)), self.used(node, gone)
        found: set[str] = set()
        for resource, value in need.size.items():
            if value <= 0:
                continue
            if value > room.get(resource, 0.0) + EPSILON:
                if resource in room or resource in ("cpu", "memory") or "/" in resource or resource.startswith("hugepages-"):
                    found.add(ALONE)
            elif value > room[resource] - used.get(resource, 0.0) + EPSILON:
                found.add(FULL)
        if "pods" in room and len([p for p in self.on(node.name) if id(p) not in gone]) + 1 > room["pods"]:
            found.add(PODS)
        return found

    def short(self, need: Need, node: Node) -> str:
        """What there is too little of: `cpu: needs 6, 4 allocatable`."""
        room, used = amounts(dict(node.room)), self.used(node)
        told = [
            f"{r}: needs {shown(r, v)}, {shown(r, room.get(r, 0.0))} allocatable" + (f", {shown(r, used[r])} taken" if used.get(r) else "")
            for r, v in sorted(need.size.items())
            if v > room.get(r, 0.0) - used.get(r, 0.0) + EPSILON
        ]
        return "; ".join(told[:3])

    def _of_neighbours(self, need: Need, node: Node, gone: frozenset[int]) -> set[str]:
        found: set[str] = set()
        here = [p for p in self.on(node.name) if id(p) not in gone]
        if need.ports and any(need.ports & host_ports(p.spec) for p in here):
            found.add(PORTS)
        for term in need.apart:
            if self._count(term, node, gone) > 0:
                found.add(APART)
        for term in need.beside:
            own = selects(term.get("labelSelector"), need.labels)
            if self._count(term, node, gone) == 0 and not (own and not self._anywhere(term, gone)):
                found.add(TOGETHER)
        for constraint in need.spread:
            if self._skews(need, constraint, node, gone):
                found.add(SPREAD)
        return found

    def _matching(self, selector: object, gone: frozenset[int]) -> Iterable[Pod]:
        return (p for p in self._pods if id(p) in self._mine and id(p) not in gone and not p.terminating and selects(selector, p.labels))

    def _anywhere(self, term: Mapping[str, Any], gone: frozenset[int]) -> bool:
        return any(True for _ in self._matching(term.get("labelSelector"), gone))

    def _count(self, term: Mapping[str, Any], node: Node, gone: frozenset[int]) -> int:
        """Pods that a term of (anti-)affinity is about in the node's topology domain."""
        return self._per_domain(term, gone).get(domain_of(node, word(term.get("topologyKey"))), 0)

    def _per_domain(self, term: Mapping[str, Any], gone: frozenset[int]) -> dict[str, int]:
        key = word(term.get("topologyKey"))
        memo = (id(term), f"{hash(gone)}")
        if memo not in self._domains:
            where = {n.name: domain_of(n, key) for n in self.nodes}
            counts: dict[str, int] = {}
            for pod in self._matching(term.get("labelSelector"), gone):
                domain = where.get(pod.node, "")
                if domain:
                    counts[domain] = counts.get(domain, 0) + 1
            self._domains[memo] = counts
        return self._domains[memo]

    def _skews(self, need: Need, constraint: Mapping[str, Any], node: Node, gone: frozenset[int]) -> bool:
        key = word(constraint.get("topologyKey"))
        mine = domain_of(node, key)
        if not mine:
            return True
        domains = {d for n in self.nodes if (d := domain_of(n, key)) and not _of_wish(need, n)}
        counts = self._per_domain(constraint, gone)
        least = min((counts.get(d, 0) for d in domains), default=0)
        own = 1 if selects(constraint.get("labelSelector"), need.labels) else 0
        return counts.get(mine, 0) + own - least > max(1, number(constraint.get("maxSkew"), 1))


def domain_of(node: Node, key: str) -> str:
    """A node's value of a topology key; empty where it has none."""
    return node.labels.get(key) or (node.name if key == _HOSTNAME else "")


def _of_node(need: Need, node: Node) -> set[str]:
    found: set[str] = set()
    if node.cordoned and not _tolerated(need, Taint(_CORDON_TAINT, "", "NoSchedule", None)):
        found.add(CORDON)
    for taint in hostile(need, node):
        if taint.key != _CORDON_TAINT:
            found.add(DOWN if taint.key.startswith(_CONDITION_TAINTS) else TAINT)
    return found


def hostile(need: Need, node: Node) -> tuple[Taint, ...]:
    """Taints of the node that keep such a pod away."""
    return tuple(t for t in node.taints if t.effect in ("NoSchedule", "NoExecute") and not _tolerated(need, t))


def _tolerated(need: Need, taint: Taint) -> bool:
    for t in need.tolerations:
        key, operator = word(t.get("key")), word(t.get("operator")) or "Equal"
        if word(t.get("effect")) not in ("", taint.effect):
            continue
        if operator == "Exists" and key in ("", taint.key):
            return True
        if operator == "Equal" and key == taint.key and word(t.get("value")) == taint.value:
            return True
    return False


def _of_wish(need: Need, node: Node) -> set[str]:
    found: set[str] = set()
    if need.node_name and need.node_name != node.name:
        found.add(NAME)
    if not need.selector.items() <= node.labels.items():
        found.add(SELECTOR)
    if need.terms and not any(_term(t, node) for t in need.terms):
        found.add(AFFINITY)
    if not all(volume_allows(v, node) for v in need.volumes):
        found.add(VOLUME)
    return found


def _term(term: Mapping[str, Any], node: Node) -> bool:
    """One term of node affinity: all its expressions; an empty term matches nothing."""
    labels, fields = objects(term.get("matchExpressions")), objects(term.get("matchFields"))
    if not labels and not fields:
        return False
    return all(_holds(e, node.labels) for e in labels) and all(_holds(e, {"metadata.name": node.name}) for e in fields)


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Node affinity knows two operators more than a label selector."""
    operator = word(expression.get("operator"))
    if operator not in ("Gt", "Lt"):
        return selects({"matchExpressions": [dict(expression)]}, labels)
    values = expression.get("values")
    try:
        have, bound = int(labels.get(word(expression.get("key")), "")), int(values[0] if isinstance(values, list) and values else "")
    except (TypeError, ValueError):
        return False
    return have > bound if operator == "Gt" else have < bound


def volume_allows(volume: Mapping[str, Any], node: Node) -> bool:
    """Whether a PersistentVolume (its raw object) can be reached from a node, by its node affinity."""
    required = mapping(mapping(mapping(volume.get("spec")).get("nodeAffinity")).get("required"))
    terms = objects(required.get("nodeSelectorTerms"))
    return not terms or any(_term(t, node) for t in terms)


def unnamed(need: Need) -> Need:
    """The same pod without the node that was chosen for it."""
    return replace(need, node_name="")


_ANNOUNCED = re.compile(r"maintenance|decommission|reboot|upgrad|drain", re.IGNORECASE)


def announced(node: Node) -> str:
    """The label, annotation or taint by which somebody says that a node is out of use on purpose; empty when none does."""
    told = (
        *((f"label {k}", k, v) for k, v in sorted(node.labels.items())),
        *((f"annotation {k}", k, v) for k, v in sorted(node.annotations.items())),
        *((f"taint {t.key}", t.key, t.value) for t in node.taints),
    )
    return next((what for what, key, value in told if _ANNOUNCED.search(key) or _ANNOUNCED.search(value[:200])), "")
