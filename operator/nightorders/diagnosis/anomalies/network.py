"""Network policies that stop a call which somebody configured."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..evidence import Channel, seen
from ..graph import DNS_NAMESPACE, Link, selects
from ..hypotheses import Candidate, Cap, Mark
from ..read import latest, listed, mapping, number, objects, word, words
from ..scene import Workload
from ..specialists.logs import Clue, Sign
from ..views import obj_created
from ..world import World
from .common import (
    behind,
    callers,
    complaints,
    declared,
    edited,
    found,
    governing,
    introduced,
    labels,
    log_marks,
    made,
    pod_spec,
    ready,
    released,
    saw_change,
    touched,
    unread,
)

_MEANT = re.compile(
    r"\b(?:deny|denied|denies|block(?:s|ed)?|forbid(?:s|den)?|isolat\w{0,6}|quarantin\w{0,4}|restrict\w{0,4}|prohibit\w{0,4}|not allowed|"
    r"must not|may not|no (?:direct )?access|only\s.{0,60}\bmay|compliance|pci|segment\w{0,6}|by design|on purpose|intentional\w{0,2}|intended)\b",
    re.IGNORECASE,
)
_TOLD_BY = ("description", "purpose", "reason", "intent", "why", "note", "comment", "summary", "policy", "owner-note", "doc")
_DNS_LABELS = {"k8s-app": "kube-dns"}


@dataclass(frozen=True)
class End:
    """One end of a connection: the labels and addresses of its pods, and its namespace with that one's labels."""

    labels: Mapping[str, str]
    namespace: str
    namespace_labels: Mapping[str, str]
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """Where a connection goes on the pods: a number (0: not known, so that ports decide nothing), the names it has there, a protocol."""

    number: int
    names: frozenset[str] = frozenset()
    protocol: str = "TCP"


def network_policies(world: World) -> Iterator[Candidate]:
    """Calls by configuration, and questions to the cluster's DNS, that no policy lets through though some policy governs them."""
    scene = world.scene
    if not scene.all("NetworkPolicy"):
        return
    told: set[tuple[Category, str, str]] = set()
    for service in scene.all("Service"):
        for caller in {c.workload.title: c.workload for c in callers(world, service.title)}.values():
            for callee in behind(world, service):
                if callee.title == caller.title:
                    continue
                for candidate in _between(world, caller, callee, service):
                    if (candidate.category, candidate.object, caller.title) not in told:
                        told.add((candidate.category, candidate.object, caller.title))
                        yield candidate
    for w in world.workloads:
        yield from _names(world, w)


def _between(world: World, caller: Workload, callee: Workload, service: KubeObject) -> Iterator[Candidate]:
    source, goal = _end(world, caller), _end(world, callee)
    for target in _targets(service, callee) or [Target(0)]:
        for direction, other, governed in (("Egress", goal, caller), ("Ingress", source, callee)):
            policies = stopping(world, governed, direction)
            if policies and not any(admits(p, direction, other, target) for p in policies):
                yield from _stopped(world, caller, callee, service, policies, direction, other, target)
                return


def _end(world: World, w: Workload) -> End:
    home = world.scene.snapshot.namespace
    addresses = tuple(a for o in _pods_of(world, w) if (a := word(mapping(o.raw.get("status")).get("podIP"))))
    return End(labels(w), home, namespace_labels(world, home), addresses)


def _pods_of(world: World, w: Workload) -> Iterator[KubeObject]:
    return (o for p in w.pods[:20] if (o := found(world.scene, "Pod", p.name)) is not None)


def namespace_labels(world: World, name: str) -> dict[str, str]:
    """Labels of a namespace, with the one that the API server always sets."""
    obj = found(world.scene, "Namespace", name)
    return {"kubernetes.io/metadata.name": name, **(obj.labels if obj is not None else {})}


def _targets(service: KubeObject, callee: Workload) -> list[Target]:
    """Where the Service's ports lead on the callee's pods."""
    ports = declared(pod_spec(callee))
    every: list[Target] = []
    for p in objects(mapping(service.raw.get("spec")).get("ports"))[:20]:
        target, protocol = p.get("targetPort"), word(p.get("protocol")) or "TCP"
        if isinstance(target, str):
            n = next((d.number for d in ports if d.name == target), 0)
        else:
            n = number(target) or number(p.get("port"))
        every.append(Target(n, frozenset(d.name for d in ports if d.number == n and d.name), protocol))
    return every


# -- what a policy admits -----------------------------------------------------------------------------------------------------------------


def stopping(world: World, w: Workload, direction: str) -> list[KubeObject]:
    """Policies that select the workload's pods for that direction (`Ingress` or `Egress`): what none of them admits is stopped."""
    return [p for p in governing(world, w, "NetworkPolicy") if direction in directions(p)]


def directions(policy: KubeObject) -> frozenset[str]:
    """The directions that a policy is about: `policyTypes`, else Ingress, and Egress where it has such rules."""
    spec = mapping(policy.raw.get("spec"))
    given = spec.get("policyTypes")
    if isinstance(given, list) and given:
        return frozenset(t for t in given if isinstance(t, str))
    return frozenset({"Ingress", *(("Egress",) if isinstance(spec.get("egress"), list) else ())})


def admits(policy: KubeObject, direction: str, other: End, target: Target) -> bool:
    """Whether a rule of the policy lets a connection with that other end, to that port, through."""
    side, peers = ("ingress", "from") if direction == "Ingress" else ("egress", "to")
    rules = objects(mapping(policy.raw.get("spec")).get(side))
    return any(_peer_fits(policy, r.get(peers), other) and _port_fits(r.get("ports"), target) for r in rules)


def _peer_fits(policy: KubeObject, peers: object, other: End) -> bool:
    if not isinstance(peers, list) or not peers:
        return True
    return any(_one_peer(policy, p, other) for p in objects(peers))


def _one_peer(policy: KubeObject, peer: Mapping[str, Any], other: End) -> bool:
    if isinstance(peer.get("ipBlock"), Mapping):
        return _in_block(mapping(peer.get("ipBlock")), other.addresses)
    pods, namespaces = peer.get("podSelector"), peer.get("namespaceSelector")
    if isinstance(namespaces, Mapping):
        if not selects(namespaces, other.namespace_labels):
            return False
    elif policy.namespace and other.namespace != policy.namespace:
        return False
    return selects(pods, other.labels) if isinstance(pods, Mapping) else isinstance(namespaces, Mapping)


def _in_block(block: Mapping[str, Any], addresses: tuple[str, ...]) -> bool:
    """Whether every known address lies in the block; without a known address nothing is said against it."""
    try:
        net = ipaddress.ip_network(word(block.get("cidr")), strict=False)
        given = block.get("except")
        holes = [ipaddress.ip_network(e, strict=False) for e in given if isinstance(e, str)] if isinstance(given, list) else []
        every = [ipaddress.ip_address(a) for a in addresses]
    except ValueError:
        return True
    return all(a in net and not any(a in h for h in holes) for a in every)


def _port_fits(ports: object, target: Target) -> bool:
    if not isinstance(ports, list) or not ports or (not target.number and not target.names):
        return True
    return any(_one_port(p, target) for p in objects(ports))


def _one_port(rule: Mapping[str, Any], target: Target) -> bool:
    if (word(rule.get("protocol")) or "TCP") != target.protocol:
        return False
    port = rule.get("port")
    if port is None:
        return True
    if isinstance(port, str):
        return port in target.names
    return number(port) <= target.number <= number(rule.get("endPort"), number(port))


# -- who is at fault ----------------------------------------------------------------------------------------------------------------------


def _stopped(
    world: World,
    caller: Workload,
    callee: Workload,
    service: KubeObject,
    policies: list[KubeObject],
    direction: str,
    other: End,
    target: Target,
) -> Iterator[Candidate]:
    """A configured call that policies stop: by a change of labels, by the policy, or on purpose."""
    said = [c for c in complaints(world, service.title) if c.seen in {x.seen for x in world.clues(caller.pods)}]
    what = f"{caller.title} → {callee.title}" + (f" port {target.number}" if target.number else "")
    policy = max(policies, key=lambda p: (str(_written(p)), p.name))
    told = seen(
        world.scene.listing("NetworkPolicy"),
        f"{listed([p.title for p in policies])}: {direction} rules admit no connection {what}",
        Channel.STATUS,
    )
    base = [Mark("mechanism named", (told,)), *log_marks(said)]
    relabelled = list(_relabelled(world, caller, callee, policies, direction, other, target, base, what))
    if relabelled:
        yield from relabelled  # the policy admitted it before: neither its words nor its age make it the origin
        return
    if why := intended(policy):
        yield from _on_purpose(world, caller, policy, why, base, what)
        return
    yield _policy_at_fault(world, caller, callee, service, policy, policies, direction, base, what, said)


def _policy_at_fault(
    world: World,
    caller: Workload,
    callee: Workload,
    service: KubeObject,
    policy: KubeObject,
    policies: list[KubeObject],
    direction: str,
    base: list[Mark],
    what: str,
    said: list[Clue],
) -> Candidate:
    change = _change_of(world, policy, caller, callee)
    alone = len(policies) == 1 or change is not None
    marks = [*base, *([saw_change(world.scene, policy, change, "its spec")] if change else [Mark("no change seen")])]
    return made(
        world,
        Category.NETWORK_POLICY,
        policy.title,
        f"No {direction} rule of {policy.title} admits {what}, which {caller.title} is configured to call as {service.title}.",
        summary=f"{policy.title} stops {what}.",
        marks=marks,
        inferred=0 if said and alone and change else 1 if said or change else 2,
        counterfactual=alone,
        change=change,
        caps=unread(world.scene, "NetworkPolicy", "Namespace"),
        hits=(caller.title, *((service.title,) if len({c.workload.title for c in callers(world, service.title)}) == 1 else ())),
        since=_written(policy),
    )


def _change_of(world: World, policy: KubeObject, *ends: Workload) -> ChangeRef | None:
    """The policy's last edit; its making, where both ends are older."""
    births = [b for w in ends if (b := obj_created(w.obj)) is not None]
    return touched(world, policy, "spec", since=max(births, default=None))


def _written(policy: KubeObject) -> datetime | None:
    change = edited(policy, "spec")
    return latest(change.at if change is not None else None, obj_created(policy))


def _relabelled(
    world: World,
    caller: Workload,
    callee: Workload,
    policies: list[KubeObject],
    direction: str,
    other: End,
    target: Target,
    base: list[Mark],
    what: str,
) -> Iterator[Candidate]:
    """A release took away the label by which the policy knew the other end."""
    w = callee if direction == "Egress" else caller

    def passes(template: Mapping[str, Any]) -> bool:
        then = End(words(mapping(template.get("metadata")).get("labels")), other.namespace, other.namespace_labels, other.addresses)
        return any(admits(p, direction, then, target) for p in policies)

    hit = introduced(world, w, passes)
    if hit is None or passes(w.template):
        return
    change, mark = released(*hit, "labels of the template changed")
    newer = [
        e.at for p in policies if (e := edited(p, "spec")) is not None and e.at is not None and change.at is not None and e.at > change.at
    ]
    if newer:
        return
    yield made(
        world,
        Category.NETWORK_POLICY,
        w.title,
        f"{hit[1].revision.label} of {w.title} changed labels, so that {listed([p.title for p in policies])} no longer admits {what}.",
        marks=(*base, mark),
        inferred=0,
        counterfactual=True,
        change=change,
        hits=(caller.title,),
    )


def intended(policy: KubeObject) -> str:
    """In whose words a policy is meant to block: an annotation or label that says so; empty when none does."""
    for where in (policy.annotations, policy.labels):
        for key, value in sorted(where.items()):
            name = key.rpartition("/")[2].lower()
            if "last-applied" in name:
                continue
            if any(t in name for t in _TOLD_BY) and _MEANT.search(value[:1000]):
                return f"{key}: {value[:200]}"
            if _MEANT.search(name) and value.lower() in ("true", "yes", "enforced", ""):
                return f"{key}={value[:100]}"
    return ""


def _on_purpose(world: World, caller: Workload, policy: KubeObject, why: str, base: list[Mark], what: str) -> Iterator[Candidate]:
    """It blocks what it is meant to block. Sure of that is only who sees the policy written after the caller's release; an older one may
    have been right until the caller, or what it calls, changed in a way that nobody saw.
    """
    told = seen(world.scene.listing("NetworkPolicy"), f"{policy.title} says: {why}", Channel.CHANGE)
    written, current = _written(policy), caller.current
    newest = written is not None and current is not None and current.released is not None and written > current.released
    yield made(
        world,
        Category.NETWORK_POLICY,
        policy.title,
        f"{policy.title} stops {what}.",
        marks=base,
        inferred=0,
        refuted=f"it is meant to ({why})",
        hits=(caller.title,),
        since=written,
    )
    yield made(
        world,
        Category.NO_FAULT,
        policy.title,
        f"{policy.title} stops {what}, and it is meant to ({why}).",
        marks=(Mark("intended", (told,)), *base),
        inferred=0 if newest else 1,
        counterfactual=newest,
        caps=() if newest else (Cap("C", "the policy is older than the caller's release"),),
        hits=(caller.title,),
    )


# -- DNS ----------------------------------------------------------------------------------------------------------------------------------


def _names(world: World, w: Workload) -> Iterator[Candidate]:
    """Egress rules that do not let a workload ask the cluster's DNS for the names that it is configured with."""
    policies = stopping(world, w, "Egress")
    if not policies or not world.graph.targets(w.title, Link.CALLS):
        return
    if word(pod_spec(w).get("dnsPolicy")) in ("Default", "None"):
        return
    dns = End(_dns_labels(world), DNS_NAMESPACE, namespace_labels(world, DNS_NAMESPACE), _dns_addresses(world))
    if any(admits(p, "Egress", dns, Target(53, frozenset({"dns", "domain"}), protocol)) for p in policies for protocol in ("UDP", "TCP")):
        return
    said = [c for c in world.clues(w.pods) if c.sign is Sign.NAME]
    policy = max(policies, key=lambda p: (str(_written(p)), p.name))
    change = _change_of(world, policy, w)
    if not said and change is None and ready(w):
        return  # an old policy under pods that are well: they ask something else (a sidecar, an address)
    told = seen(
        world.scene.listing("NetworkPolicy"),
        f"{listed([p.title for p in policies])}: no Egress rule admits {w.title} → {DNS_NAMESPACE} port 53",
    )
    alone = len(policies) == 1 or change is not None
    yield made(
        world,
        Category.NETWORK_POLICY,
        policy.title,
        f"No Egress rule of {policy.title} lets {w.title} ask the cluster's DNS (port 53), and it calls Services by name.",
        marks=(
            Mark("mechanism named", (told,)),
            *log_marks(said),
            *([saw_change(world.scene, policy, change, "its spec")] if change else [Mark("no change seen")]),
        ),
        inferred=0 if said and alone else 1,
        counterfactual=alone,
        change=change,
        hits=(w.title,),
        since=_written(policy),
    )


def _dns_labels(world: World) -> dict[str, str]:
    other = world.beside(DNS_NAMESPACE)
    service = next((s for s in other.all("Service") if s.name == "kube-dns"), None) if other is not None else None
    return words(mapping(mapping(service.raw if service is not None else {}).get("spec")).get("selector")) or dict(_DNS_LABELS)


def _dns_addresses(world: World) -> tuple[str, ...]:
    other = world.beside(DNS_NAMESPACE)
    if other is None:
        return ()
    wanted = _dns_labels(world)
    mine = (o for o in other.all("Pod") if wanted.items() <= o.labels.items())
    return tuple(a for o in mine if (a := word(mapping(o.raw.get("status")).get("podIP"))))
