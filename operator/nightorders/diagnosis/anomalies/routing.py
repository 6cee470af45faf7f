"""Services and routes that lead nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..evidence import Channel, Observation, seen
from ..graph import Link, backends
from ..hypotheses import Candidate, Cap, Mark
from ..read import count, earliest, flag, listed, mapping, number, objects, word, words
from ..references import references
from ..scene import Workload
from ..specialists.logs import Sign
from ..views import obj_created
from ..world import World
from .common import (
    Caller,
    Port,
    alike,
    behind,
    callers,
    complaints,
    concerns,
    declared,
    edited,
    found,
    introduced,
    labels,
    log_marks,
    made,
    pod_spec,
    probed,
    ready,
    released,
    resembling,
    saw_change,
    saw_ready,
    selected,
    services_of,
    texts,
    touched,
    unread,
)

_ASIDE = ("metric", "prom", "admin", "health", "debug", "probe", "manage", "status")
_SERVICE_LABEL = "kubernetes.io/service-name"


def routing(world: World) -> Iterator[Candidate]:
    """Selectors that match nothing, ports nobody opens, Ingresses to what is not there."""
    for service in world.scene.all("Service"):
        spec = mapping(service.raw.get("spec"))
        if word(spec.get("type")) == "ExternalName":
            yield from _alias(world, service)
            continue
        if words(spec.get("selector")) and world.scene.looked("Pod"):
            yield from _selector(world, service)
            yield from _ports(world, service)
            yield from _locality(world, service)
        elif not words(spec.get("selector")):
            yield from _manual(world, service)
        yield from _called_ports(world, service)
    yield from _gone_services(world)
    for ingress in world.scene.all("Ingress"):
        yield from _ingress(world, ingress)
    yield from _rivals(world)


# -- selectors --------------------------------------------------------------------------------------------------------------------------


def _selector(world: World, service: KubeObject) -> Iterator[Candidate]:
    """A selector that no pod and no template matches, or that reaches another workload's pods instead."""
    selector = words(mapping(mapping(service.raw.get("spec")).get("selector")))
    live = selected(world, service)
    fronted = world.graph.targets(service.title, Link.FRONTS)
    if not live and not fronted:
        yield from _matches_nothing(world, service, selector)
    elif live and not any(p.ready for p in live) and not fronted:
        yield from _left_behind(world, service, selector)
    elif live:
        yield from _misdirected(world, service, selector)


def _left_behind(world: World, service: KubeObject, selector: dict[str, str]) -> Iterator[Candidate]:
    """Only unready pods of older revisions match: what a release that changed a label leaves over."""
    for w in behind(world, service):
        yield from _relabelled(world, service, selector, w)


def _matches_nothing(world: World, service: KubeObject, selector: dict[str, str]) -> Iterator[Candidate]:
    if _has_endpoints(world, service):
        return
    changed = [c for w in world.workloads for c in _relabelled(world, service, selector, w)]
    if changed:
        yield from changed
        return
    change = edited(service, "spec", "selector")
    best = _meant(world, service, selector)
    shown = ", ".join(f"{k}={v}" for k, v in sorted(selector.items())[:4])
    empty = seen(world.scene.listing("Service"), f"{service.title} selects {shown}; no pod and no template has these labels")
    marks = [Mark("mechanism named", (empty, *_saw_slices(world, service)))]
    marks += [saw_change(world.scene, service, change, "its selector")] if change else [Mark("no change seen")]
    marks += log_marks(complaints(world, service.title))
    if best is None:
        statement = f"{service.title} selects {shown}, which no pod and no workload here has."
        yield made(
            world,
            Category.SERVICE_ROUTING,
            service.title,
            statement,
            marks=marks,
            inferred=1 if change else 2,
            change=change,
            hits=(service.title,),
        )
        return
    pods = ready(best)
    wrong = [k for k, v in sorted(selector.items()) if labels(best).get(k) != v]
    would = ", ".join(f"{k}={labels(best).get(k, '(dropped)')}" for k in wrong[:3])
    if pods:
        marks.append(Mark("works elsewhere", (saw_ready(world, pods, f"{best.title}: with {would} it would match"),)))
    others = [s for s in services_of(world, best) if s.title != service.title]
    used = bool(callers(world, service.title)) or bool(world.graph.sources(service.title, Link.ROUTES))
    used = used or (world.claim is not None and world.claim.labels.get("service") == service.name)
    shown_by = change is not None or (used and not others)
    yield made(
        world,
        Category.SERVICE_ROUTING,
        service.title,
        f"{service.title} selects {shown}, which matches no pod. With {would} it would match {count(len(pods), 'ready pod')} of {best.title}.",
        summary=f"The selector of {service.title} matches no pod; {best.title} has {count(len(pods), 'ready pod')} without it.",
        marks=marks,
        inferred=(0 if pods else 1) if shown_by else 2,
        counterfactual=bool(pods),
        change=change,
        caps=unread(world.scene, "Service"),
        hits=(service.title, *((best.title,) if not others else ())),
    )


def _relabelled(world: World, service: KubeObject, selector: dict[str, str], w: Workload) -> Iterator[Candidate]:
    """A release of the workload changed a label that the Service selects by."""
    hit = introduced(world, w, lambda t: selector.items() <= words(mapping(t.get("metadata")).get("labels")).items())
    if hit is None or selector.items() <= labels(w).items():
        return
    wrong = [k for k, v in sorted(selector.items()) if labels(w).get(k) != v]
    change, mark = released(*hit, f"label {listed(wrong)} of the template changed")
    edit = edited(service, "spec", "selector")
    if edit is not None and edit.at is not None and change.at is not None and edit.at > change.at:
        return  # the selector was written after the release, so it is the selector that does not fit
    told = seen(
        world.scene.listing("Service"), f"{service.title} selects by {listed(wrong)}; the template of {w.title} no longer has that value"
    )
    revision = hit[1].revision
    yield made(
        world,
        Category.SERVICE_ROUTING,
        w.title,
        f"{revision.label} of {w.title} changed label {listed(wrong)}, by which {service.title} selects, so that it matches no pod.",
        marks=(Mark("mechanism named", (told, *_saw_slices(world, service))), mark, *log_marks(complaints(world, service.title))),
        inferred=0,
        counterfactual=True,
        change=change,
        hits=(service.title, w.title),
    )


def _meant(world: World, service: KubeObject, selector: dict[str, str]) -> Workload | None:
    """The workload that the Service was most likely made for; None when nothing, or more than one, is like it."""
    scored: list[tuple[float, Workload]] = []
    for w in world.workloads:
        mine = labels(w)
        pairs = sum(mine.get(k) == v for k, v in selector.items())
        typos = sum(k in mine and mine[k] != v and alike(mine[k], v) for k, v in selector.items())
        named = 2.0 if w.name == service.name else 1.0 if alike(w.name, service.name) or service.name in mine.values() else 0.0
        taken = any(s.title != service.title for s in services_of(world, w))
        score = named * 2 + pairs + typos * 0.5 + (0.5 if _opens(service, w) else 0.0) - (0.75 if taken else 0.0)
        if named or pairs or typos:
            scored.append((score, w))
    scored.sort(key=lambda s: -s[0])
    if not scored or scored[0][0] < 1 or (len(scored) > 1 and scored[1][0] == scored[0][0]):
        return None
    return scored[0][1]


def _opens(service: KubeObject, w: Workload) -> bool:
    """Whether the workload declares a port that the Service leads to."""
    wanted = {_target(p) for p in objects(mapping(service.raw.get("spec")).get("ports"))}
    return any(p.number in wanted or (p.name and p.name in wanted) for p in declared(pod_spec(w)))


def _misdirected(world: World, service: KubeObject, selector: dict[str, str]) -> Iterator[Candidate]:
    """The selector was edited, and now reaches another workload than the one that bears the Service's name."""
    change = edited(service, "spec", "selector")
    owners = {w.title: w for w in behind(world, service)}
    namesake = next((w for w in world.workloads if w.name == service.name and w.title not in owners), None)
    if namesake is None or services_of(world, namesake) or not owners or not ready(namesake):
        return
    strangers = [w for w in owners.values() if not _opens(service, w)]
    certain = len(strangers) == len(owners) and _opens(service, namesake)
    if change is None and not certain:
        return
    shown = ", ".join(f"{k}={v}" for k, v in sorted(selector.items())[:4])
    told = seen(
        world.scene.listing("Service"), f"{service.title} selects {shown}: pods of {listed(sorted(owners))}, not of {namesake.title}"
    )
    marks = [Mark("mechanism likely", (told,)), Mark("works elsewhere", (saw_ready(world, ready(namesake), f"{namesake.title} is Ready"),))]
    marks += [saw_change(world.scene, service, change, "its selector")] if change else []
    marks += log_marks(complaints(world, service.title))
    yield made(
        world,
        Category.SERVICE_ROUTING,
        service.title,
        f"{service.title} selects {shown}, which are pods of {listed(sorted(owners))}; {namesake.title}, whose name it bears, gets nothing.",
        marks=marks,
        inferred=0 if certain and change else 1,
        counterfactual=True,
        change=change,
        hits=(service.title, namesake.title),
    )


def _manual(world: World, service: KubeObject) -> Iterator[Candidate]:
    """A Service without a selector, whose endpoints somebody else must keep, and nobody did; or whose selector was removed."""
    spec = mapping(service.raw.get("spec"))
    if service.name == "kubernetes" or not objects(spec.get("ports")) or not world.scene.looked("EndpointSlice"):
        return
    if _has_endpoints(world, service):
        return
    namesake = next((w for w in world.workloads if w.name == service.name or service.name in labels(w).values()), None)
    change = edited(service, "spec")
    told = seen(world.scene.listing("Service"), f"{service.title} has no selector, and no EndpointSlice gives it an address")
    pods = ready(namesake) if namesake is not None else ()
    marks = [Mark("mechanism named", (told,)), *log_marks(complaints(world, service.title))]
    marks += [saw_change(world.scene, service, change, "its spec")] if change else [Mark("no change seen")]
    also = f"; {namesake.title} has {count(len(pods), 'ready pod')}" if namesake is not None and pods else ""
    yield made(
        world,
        Category.SERVICE_ROUTING,
        service.title,
        f"{service.title} has neither a selector nor endpoints{also}.",
        marks=marks,
        inferred=0 if pods and change else 1,
        counterfactual=bool(pods),
        change=change,
        hits=(service.title, namesake.title if namesake is not None else ""),
    )


def _slices(world: World, service: KubeObject) -> list[KubeObject]:
    return [s for s in world.scene.all("EndpointSlice") if s.labels.get(_SERVICE_LABEL) == service.name]


def _has_endpoints(world: World, service: KubeObject) -> bool:
    return any(objects(s.raw.get("endpoints")) for s in _slices(world, service))


def _saw_slices(world: World, service: KubeObject) -> tuple[Observation, ...]:
    """That its EndpointSlices are empty, if somebody looked."""
    if not world.scene.looked("EndpointSlice"):
        return ()
    n = sum(len(objects(s.raw.get("endpoints"))) for s in _slices(world, service))
    return (seen(world.scene.listing("EndpointSlice"), f"EndpointSlices of {service.title} hold {count(n, 'endpoint')}"),)


# -- ports ------------------------------------------------------------------------------------------------------------------------------


def _target(port: Mapping[str, Any]) -> int | str:
    """The port on the pods that a Service's port leads to: `targetPort`, else the port itself."""
    target = port.get("targetPort")
    return target if isinstance(target, int | str) and not isinstance(target, bool) and target else number(port.get("port"))


def _ports(world: World, service: KubeObject) -> Iterator[Candidate]:
    spec = mapping(service.raw.get("spec"))
    if word(spec.get("clusterIP")) == "None":
        return  # (a headless Service translates no ports)
    pods = selected(world, service)
    owners = behind(world, service)
    if not pods or not owners:
        return
    every = {port for p in pods for port in declared(p.spec)}
    serving = [p for p in pods if p.ready]
    asked = {_number_of(a, every) for p in serving for a in probed(p.spec)}
    ports = objects(spec.get("ports"))[:50]
    misses = [_misses(port, every, asked) for port in ports]
    for port, wrong in zip(ports, misses, strict=True):
        if wrong:
            yield _wrong_port(world, service, owners[0], port, wrong, every, asked, alone=all(misses))


def _number_of(asked: int | str, ports: set[Port]) -> int:
    return asked if isinstance(asked, int) else next((p.number for p in ports if p.name == asked), 0)


def _misses(port: Mapping[str, Any], every: set[Port], asked: set[int]) -> str:
    """Why no selected container listens where this port leads; empty when one does, or when nothing can tell."""
    target, protocol = _target(port), word(port.get("protocol")) or "TCP"
    if isinstance(target, str):
        if any(p.name == target for p in every):
            return ""
        return f"no selected container has a port named {target}"
    matching = [p for p in every if p.number == target]
    if matching:
        return (
            ""
            if any(p.protocol == protocol for p in matching)
            else f"the containers declare {target} as {matching[0].protocol}, not {protocol}"
        )
    telling = [p for p in every if not any(a in p.name.lower() for a in _ASIDE)]
    if not telling or target in asked:
        return ""
    return f"the containers declare {listed([str(n) for n in sorted({p.number for p in every})])}, not {target}"


def _wrong_port(
    world: World,
    service: KubeObject,
    w: Workload,
    port: Mapping[str, Any],
    wrong: str,
    every: set[Port],
    asked: set[int],
    *,
    alone: bool,
) -> Candidate:
    """`alone`: none of the Service's ports leads anywhere; a lone wrong one among several may be one that nobody uses."""
    target, at = _target(port), number(port.get("port"))
    edit = touched(world, service, "spec", "ports", since=_first_made(world, service))
    hit = introduced(world, w, lambda t: _covers(t, target))
    release = released(*hit, f"the template no longer declares port {target}") if hit and not _covers(w.template, target) else None
    by_release = release is not None and (edit is None or edit.at is None or release[0].at is None or release[0].at > edit.at)
    said = complaints(world, service.title)
    better = _better(port, every, asked)
    told = seen(world.scene.listing("Service"), f"{service.title} port {at} leads to targetPort {target}; {wrong}")
    marks = [Mark("mechanism named" if isinstance(target, str) else "mechanism likely", (told,)), *log_marks(said)]
    if by_release and release is not None:
        marks.append(release[1])
    else:
        marks += [saw_change(world.scene, service, edit, "its ports")] if edit else [Mark("no change seen")]
    if better in asked and better:
        names = [p for p in selected(world, service) if p.ready]
        if names:
            marks.append(Mark("works elsewhere", (saw_ready(world, names, f"their readiness probes pass on {better}"),)))
    backed = bool(said) or edit is not None or by_release
    backed = backed or (isinstance(target, str) and alone)
    inferred = 0 if backed and (isinstance(target, str) or better in asked) else 1 if backed else 2
    would = f" targetPort {better} would reach {w.title}." if better else ""
    return made(
        world,
        Category.SERVICE_ROUTING,
        w.title if by_release else service.title,
        f"Port {at} of {service.title} leads to {target}, and {wrong}.{would}",
        marks=marks,
        inferred=inferred,
        counterfactual=better > 0,
        change=release[0] if by_release and release is not None else edit,
        hits=(service.title, w.title),
    )


def _first_made(world: World, service: KubeObject) -> datetime | None:
    """When the oldest workload behind it was made: a Service made much later was put in its predecessor's place."""
    return earliest(*(obj_created(w.obj) for w in behind(world, service)))


def _covers(template: Mapping[str, Any], target: int | str) -> bool:
    ports = declared(mapping(template.get("spec")))
    return any(p.number == target or p.name == target for p in ports)


def _better(port: Mapping[str, Any], every: set[Port], asked: set[int]) -> int:
    """The declared port that this one should lead to; 0 when nothing tells."""
    name, at = word(port.get("name")), number(port.get("port"))
    telling = sorted({p.number for p in every if not any(a in p.name.lower() for a in _ASIDE)})
    by_name = [p.number for p in every if name and p.name == name]
    if by_name:
        return by_name[0]
    if at in telling:
        return at
    probed_too = [n for n in telling if n in asked]
    if len(telling) == 1 or len(probed_too) == 1:
        return telling[0] if len(telling) == 1 else probed_too[0]
    return 0


def _called_ports(world: World, service: KubeObject) -> Iterator[Candidate]:
    """Callers that name a port which the Service has not."""
    spec = mapping(service.raw.get("spec"))
    ports = {number(p.get("port")) for p in objects(spec.get("ports"))}
    if word(spec.get("clusterIP")) == "None" or not ports:
        return
    every = [c for c in callers(world, service.title) if c.port]
    wrong = [c for c in every if c.port not in ports]
    if not wrong:
        return
    edit = touched(world, service, "spec", "ports", since=_first_made(world, service))
    if edit is not None and len(wrong) == len(every):
        yield _moved_port(world, service, wrong, ports, edit)
        return
    for c in {(c.workload.title, c.holder): c for c in wrong}.values():
        yield _caller_at_fault(world, service, c, ports)


def _moved_port(world: World, service: KubeObject, wrong: list[Caller], ports: set[int], edit: ChangeRef) -> Candidate:
    used = sorted({c.port for c in wrong})
    names = sorted({c.workload.title for c in wrong})
    told = seen(
        world.scene.listing("Service"), f"{service.title} has ports {sorted(ports)}; {listed(names)} call port {used}", Channel.STATUS
    )
    said = complaints(world, service.title)
    return made(
        world,
        Category.SERVICE_ROUTING,
        service.title,
        f"{service.title} has no port {used[0]}, which {listed(names)} call; its ports were written anew.",
        marks=(Mark("mechanism named", (told,)), saw_change(world.scene, service, edit, "its ports"), *log_marks(said)),
        inferred=0 if said else 1,
        counterfactual=True,
        change=edit,
        hits=(service.title, *names),
    )


def _caller_at_fault(world: World, service: KubeObject, c: Caller, ports: set[int]) -> Candidate:
    """The value that names the port is wrong: its holder is at fault."""
    w = c.workload
    told = seen(world.scene.listing("Service"), f"{service.title} has ports {sorted(ports)}; {w.title} calls port {c.port} ({c.via})")
    said = [x for x in world.clues(w.pods) if x.sign in (Sign.HOST, Sign.UPSTREAM) and concerns(world, x, service.title)]
    marks = [Mark("mechanism named", (told,)), *log_marks(said)]
    change: ChangeRef | None = None
    holder = found(world.scene, "ConfigMap", c.holder.partition("/")[2]) if c.holder.startswith("ConfigMap/") else None
    if holder is not None:
        change = edited(holder, "data")
        marks += [saw_change(world.scene, holder, change, "its data")] if change else [Mark("no change seen")]
    else:
        hit = introduced(world, w, lambda t: _names_port(t, c.port, service.name))
        if hit:
            change, mark = released(*hit, f"{c.via.rpartition(':')[0]} changed")
            marks.append(mark)
        else:
            marks.append(Mark("no change seen"))
    only = f" It has {listed([str(p) for p in sorted(ports)])}." if ports else ""
    return made(
        world,
        Category.BAD_CONFIGURATION,
        c.holder or w.title,
        f"{w.title} calls port {c.port} of {service.title} ({c.via}), which has no such port.{only}",
        marks=marks,
        inferred=0 if said and change else 1 if said or change else 2,
        counterfactual=len(ports) == 1,
        change=change,
        hits=(w.title,),
    )


def _names_port(template: Mapping[str, Any], port: int, service: str) -> bool:
    """Whether a value of the template names this Service with this port."""
    return any(service in t and str(port) in t for t in texts(template))


def _locality(world: World, service: KubeObject) -> Iterator[Candidate]:
    """`internalTrafficPolicy: Local` where callers run on nodes without an endpoint; unready pods that get traffic by a flag."""
    spec = mapping(service.raw.get("spec"))
    pods = selected(world, service)
    serving = [p for p in pods if p.ready]
    if word(spec.get("internalTrafficPolicy")) == "Local" and serving:
        change = edited(service, "spec", "internalTrafficPolicy")
        nodes = {p.node for p in serving}
        stranded = {c.workload.title: p for c in callers(world, service.title) for p in c.workload.pods if p.node and p.node not in nodes}
        said = complaints(world, service.title)
        if stranded and (change is not None or said):
            told = seen(
                world.scene.listing("Service"),
                f"{service.title}: internalTrafficPolicy Local; ready endpoints only on {listed(sorted(nodes))}",
            )
            marks = [Mark("mechanism named", (told,)), *log_marks(said)]
            marks += [saw_change(world.scene, service, change, "internalTrafficPolicy")] if change else []
            yield made(
                world,
                Category.SERVICE_ROUTING,
                service.title,
                f"{service.title} serves only callers on its pods' own nodes; {listed(sorted(stranded))} run elsewhere too.",
                marks=marks,
                inferred=0 if said and change else 1,
                counterfactual=True,
                change=change,
                hits=(service.title, *sorted(stranded)),
            )
    if flag(spec.get("publishNotReadyAddresses")) and serving and len(serving) < len(pods):
        change = edited(service, "spec", "publishNotReadyAddresses")
        if change is not None and word(spec.get("clusterIP")) != "None":
            unready = len(pods) - len(serving)
            told = seen(
                world.scene.listing("Service"), f"{service.title}: publishNotReadyAddresses, {count(unready, 'pod')} behind it not Ready"
            )
            yield made(
                world,
                Category.SERVICE_ROUTING,
                service.title,
                f"{service.title} sends traffic to {count(unready, 'pod')} that are not Ready, since publishNotReadyAddresses was set.",
                marks=(Mark("state fits", (told,)), saw_change(world.scene, service, change, "publishNotReadyAddresses")),
                inferred=2,
                change=change,
                hits=(service.title,),
            )


# -- names of Services that lead on, or are gone ------------------------------------------------------------------------------------------


def _alias(world: World, service: KubeObject) -> Iterator[Candidate]:
    """An ExternalName that names a Service of the cluster which is not there."""
    name = word(mapping(service.raw.get("spec")).get("externalName")).lower().rstrip(".")
    parts = name.split(".")
    if len(parts) < 3 or parts[2] != "svc":
        return
    other = world.scene if parts[1] == world.scene.snapshot.namespace else world.beside(parts[1])
    if other is None or not other.looked("Service") or any(s.name == parts[0] for s in other.all("Service")):
        return
    change = edited(service, "spec", "externalName")
    near = resembling(parts[0], (s.name for s in other.all("Service")))
    told = seen(world.scene.listing("Service"), f"{service.title} stands for {name}; namespace {parts[1]} has no Service {parts[0]}")
    said = complaints(world, service.title)
    marks = [Mark("mechanism named", (told,)), *log_marks(said)]
    marks += [saw_change(world.scene, service, change, "externalName")] if change else [Mark("no change seen")]
    yield made(
        world,
        Category.SERVICE_ROUTING,
        service.title,
        f"{service.title} stands for {name}, which does not exist{f'; {near} does' if near else ''}.",
        marks=marks,
        inferred=0 if change or said else 1,
        counterfactual=bool(near),
        change=change,
        hits=(service.title,),
    )


def _gone_services(world: World) -> Iterator[Candidate]:
    """Services that are named as `name.namespace.svc` or stand behind an Ingress are handled there; these are plain names of workloads."""
    scene = world.scene
    if not scene.looked("Service"):
        return
    here = {s.title for s in scene.all("Service")}
    absent: dict[str, list[Caller]] = {}
    for title in world.graph.into:
        if title.startswith("Service/") and title.count("/") == 1 and title not in here:
            absent[title] = list(callers(world, title))
    for title, using in _unresolved(world):
        if title not in here:
            absent.setdefault(title, []).append(using)
    for title, every in sorted(absent.items()):
        if every:
            yield from _gone(world, title, every)


def _unresolved(world: World) -> Iterator[tuple[str, Caller]]:
    """Short names that logs say are not found, where a value that the program reads names them: what was a Service, or is misspelt."""
    for w in world.workloads:
        for clue in world.clues(w.pods):
            name, _, more = clue.subject.lower().partition(".")
            local = not more or more.split(".")[0] == world.scene.snapshot.namespace
            if clue.sign is Sign.NAME and name and local and (holder := _holder_of(world, w, name)):
                yield f"Service/{name}", Caller(w, f"a value of {holder}", 0, holder)


def _holder_of(world: World, w: Workload, name: str) -> str:
    """Who holds the value that names this host: the workload's own template, or a ConfigMap that it reads; empty when neither does."""
    whole = re.compile(rf"(?<![a-z0-9.-]){re.escape(name)}(?![a-z0-9-])")
    if any(whole.search(t.lower()) for t in texts(w.template)):
        return w.title
    for ref in references(pod_spec(w)):
        obj = found(world.scene, "ConfigMap", ref.name) if ref.kind == "ConfigMap" else None
        if obj is not None and any(whole.search(v[:20_000].lower()) for v in words(obj.raw.get("data")).values()):
            return obj.title
    return ""


def _unfronted(world: World) -> Workload | None:
    """The one workload that serves on a port and has no Service in front of it; None when there is none, or several."""
    every = [
        w for w in world.workloads if declared(pod_spec(w)) and w.obj.kind in ("Deployment", "StatefulSet") and not services_of(world, w)
    ]
    return every[0] if len(every) == 1 else None


def _gone(world: World, title: str, using: list[Caller]) -> Iterator[Candidate]:
    """A cluster name of a Service that is not there: it is gone, or the value is new."""
    name = title.partition("/")[2]
    served = next((w for w in world.workloads if (w.name == name or name in labels(w).values()) and not services_of(world, w)), None)
    guessed = served is None
    served = served or _unfronted(world)
    near = resembling(name, (s.name for s in world.scene.all("Service")))
    names = sorted({c.workload.title for c in using})
    told = seen(world.scene.listing("Service"), f"no {title} in the list of Services; {listed(names)} name it ({using[0].via})")
    said = complaints(world, title)
    for c in {(c.workload.title, c.holder): c for c in using}.values():
        change, mark = _who_named(world, c, name)
        if change is not None and mark is not None:
            yield made(
                world,
                Category.BAD_CONFIGURATION,
                c.holder or c.workload.title,
                f"{c.workload.title} calls {title} ({c.via}), which does not exist{f'; {near} does' if near else ''}.",
                marks=(Mark("mechanism named", (told,)), mark, *log_marks(said)),
                inferred=0 if said and near else 1,
                counterfactual=bool(near),
                change=change,
                hits=(c.workload.title,),
            )
            return
    worked = any(ready(c.workload) or c.workload.completed_once for c in using)
    marks = [Mark("mechanism named", (told,)), *log_marks(said)]
    if served is not None and ready(served):
        marks.append(Mark("works elsewhere", (saw_ready(world, ready(served), f"{served.title} is Ready, and no Service fronts it"),)))
    yield made(
        world,
        Category.SERVICE_ROUTING,
        title,
        f"{title} does not exist; {listed(names)} call it, and the values that name it did not change.",
        marks=marks,
        inferred=1 if served is not None and worked else 2,
        counterfactual=served is not None,
        change=ChangeRef(kind="Deletion") if worked else None,
        caps=(Cap("C", "which workload it stood for is a guess"),) if guessed else (),
        hits=names,
    )


def _who_named(world: World, c: Caller, name: str) -> tuple[ChangeRef | None, Mark | None]:
    """The change that brought a host's name into a value: an edit of the ConfigMap, a release; nothing when none is seen."""
    if c.holder.startswith("ConfigMap/"):
        obj = found(world.scene, "ConfigMap", c.holder.partition("/")[2])
        change = edited(obj, "data") if obj is not None else None
        return (change, saw_change(world.scene, obj, change, "its data")) if obj is not None and change is not None else (None, None)
    hit = introduced(world, c.workload, lambda t: any(name in v for v in texts(t)))
    return released(*hit, f"{c.via.rpartition(':')[0] or c.via} changed") if hit else (None, None)


# -- Ingress ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Route:
    """One rule of an Ingress: what it leads to, and by which port."""

    ingress: KubeObject
    host: str
    path: str
    service: str
    port: int | str

    @property
    def words(self) -> str:
        return f"{self.host or '*'}{self.path or ' (default backend)'}"


def _routes(ingress: KubeObject) -> Iterator[_Route]:
    for host, path, backend in backends(ingress):
        service = mapping(backend.get("service"))
        port = mapping(service.get("port"))
        if name := word(service.get("name")):
            yield _Route(ingress, host, path, name, word(port.get("name")) or number(port.get("number")))


def _ingress(world: World, ingress: KubeObject) -> Iterator[Candidate]:
    if not world.scene.looked("Service"):
        return
    routes = list(_routes(ingress))
    for route in routes[:200]:
        service = found(world.scene, "Service", route.service)
        if service is None:
            yield from _absent_backend(world, route)
        else:
            yield from _backend_port(world, route, service)
            yield from _misrouted(world, route, service)
    yield from _absent_class(world, ingress)


def _absent_backend(world: World, route: _Route) -> Iterator[Candidate]:
    """The Ingress names a Service that is not there: the Ingress if it was edited or misspells one, the Service if it is gone."""
    scene, ingress, title = world.scene, route.ingress, f"Service/{route.service}"
    edit = touched(world, ingress, "spec", since=_oldest(world))
    others = [s.name for s in scene.all("Service")]
    near = resembling(route.service, others)
    orphan = next((w for w in world.workloads if w.name == route.service and not services_of(world, w)), None)
    named_too = callers(world, title)
    told = seen(scene.listing("Ingress"), f"{ingress.title} routes {route.words} to {title}, which is not in the list of Services")
    unrouted = [s for s in scene.all("Service") if not world.graph.sources(s.title, Link.ROUTES) and behind(world, s)]
    meant = (
        found(scene, "Service", near)
        if near
        else next((s for s in unrouted if _fits(route, s)), unrouted[0] if len(unrouted) == 1 else None)
    )
    gone = (orphan is not None or bool(named_too)) and (edit is None or not near)
    marks = [Mark("mechanism named", (told,))]
    targets = behind(world, meant) if meant is not None else ()
    serving = tuple(p for w in targets for p in ready(w))
    good = f" {meant.title} has {count(len(serving), 'ready pod')}." if meant is not None and serving else ""
    free = meant is not None and not world.graph.sources(meant.title, Link.ROUTES)
    tail = (
        ingress.title,
        *((orphan.title,) if orphan is not None else ()),
        *((meant.title, *(w.title for w in targets)) if meant is not None and free else ()),
    )
    as_route = made(
        world,
        Category.SERVICE_ROUTING,
        ingress.title,
        f"{ingress.title} routes {route.words} to {title}, which does not exist.{good}",
        marks=[
            *marks,
            *([saw_change(scene, ingress, edit, "its spec")] if edit else [Mark("no change seen")]),
            *(
                [Mark("works elsewhere", (saw_ready(world, serving, f"{meant.title} leads to ready pods"),))]
                if meant is not None and serving
                else []
            ),
        ],
        inferred=0 if edit and free else 1,
        counterfactual=bool(serving),
        change=edit,
        caps=(Cap("C", "the Service may have been deleted"),) if gone else (),
        hits=(*tail, title),
    )
    as_service = made(
        world,
        Category.SERVICE_ROUTING,
        title,
        f"{title} does not exist; {ingress.title} routes {route.words} to it"
        f"{f', and the pods of {orphan.title} have no Service' if orphan is not None else ''}.",
        marks=[
            *marks,
            *([Mark("existed before", (_saw_orphan(world, orphan, route.service),))] if orphan is not None else [Mark("no change seen")]),
        ],
        inferred=0 if orphan is not None and edit is None else 1,
        counterfactual=orphan is not None and bool(ready(orphan)),
        change=ChangeRef(kind="Deletion") if gone else None,
        caps=() if gone else (Cap("C", "nothing shows that the Service ever existed"),),
        hits=(*tail, title),
    )
    yield from (as_service, as_route) if gone else (as_route, as_service)


def _saw_orphan(world: World, w: Workload, service: str) -> Observation:
    return seen(
        world.scene.listing(w.obj.kind), f"{w.title} bears the name of Service/{service}, and no Service selects it", Channel.CHANGE
    )


def _oldest(world: World) -> datetime | None:
    """When the oldest workload of the namespace was made."""
    if ("oldest", "") not in world.scene.memo:
        world.scene.memo["oldest", ""] = earliest(*(obj_created(w.obj) for w in world.workloads))
    at: datetime | None = world.scene.memo["oldest", ""]
    return at


def _fits(route: _Route, service: KubeObject) -> bool:
    """Whether a Service's name stands in the route's own: the Ingress's name, the host's first label, the path's first part."""
    parts = {route.ingress.name.lower(), route.host.partition(".")[0].lower(), route.path.strip("/").partition("/")[0].lower()}
    return any(p and (p == service.name.lower() or alike(p, service.name)) for p in parts)


def _backend_port(world: World, route: _Route, service: KubeObject) -> Iterator[Candidate]:
    """A port that the Service has not, by number or by name."""
    ports = objects(mapping(service.raw.get("spec")).get("ports"))
    numbers, names = {number(p.get("port")) for p in ports}, {word(p.get("name")) for p in ports if word(p.get("name"))}
    if (
        not ports
        or not route.port
        or route.port in numbers
        or route.port in names
        or word(mapping(service.raw.get("spec")).get("type")) == "ExternalName"
    ):
        return
    edit, other = (
        touched(world, route.ingress, "spec", since=_oldest(world)),
        touched(world, service, "spec", "ports", since=_first_made(world, service)),
    )
    late = other is not None and (edit is None or (other.at is not None and edit.at is not None and other.at > edit.at))
    holder, change = (service, other) if late else (route.ingress, edit)
    has = listed([*(str(n) for n in sorted(numbers)), *sorted(names)], 6)
    told = seen(
        world.scene.listing("Ingress"), f"{route.ingress.title} routes {route.words} to {service.title} port {route.port}; it has {has}"
    )
    yield made(
        world,
        Category.SERVICE_ROUTING,
        holder.title,
        f"{route.ingress.title} routes {route.words} to port {route.port} of {service.title}, which has {has}.",
        marks=(
            Mark("mechanism named", (told,)),
            *([saw_change(world.scene, holder, change, "its ports" if late else "its spec")] if change else [Mark("no change seen")]),
        ),
        inferred=0,
        counterfactual=len(numbers) == 1,
        change=change,
        hits=(route.ingress.title, service.title, *(w.title for w in behind(world, service))),
    )


def _misrouted(world: World, route: _Route, service: KubeObject) -> Iterator[Candidate]:
    """An edited route to a Service that is there, while the one whose name the route bears is routed to by nothing."""
    edit = touched(world, route.ingress, "spec", since=_oldest(world))
    if _fits(route, service):
        return
    left_out = [s for s in world.scene.all("Service") if not world.graph.sources(s.title, Link.ROUTES) and _fits(route, s)]
    if len(left_out) != 1 or not any(ready(w) for w in behind(world, left_out[0])):
        return
    meant = left_out[0]
    if edit is None or callers(world, meant.title):
        return  # never routed to, or meant for callers inside only: nothing shows that this route was ever another
    told = seen(
        world.scene.listing("Ingress"), f"{route.ingress.title} routes {route.words} to {service.title}; nothing routes to {meant.title}"
    )
    pods = tuple(p for w in behind(world, meant) for p in ready(w))
    yield made(
        world,
        Category.SERVICE_ROUTING,
        route.ingress.title,
        f"{route.ingress.title} routes {route.words} to {service.title}, and nothing leads to {meant.title}, whose name the route bears.",
        marks=(
            Mark("mechanism likely", (told,)),
            saw_change(world.scene, route.ingress, edit, "its spec"),
            Mark("works elsewhere", (saw_ready(world, pods, f"{meant.title} leads to ready pods"),)),
        ),
        inferred=1,
        counterfactual=True,
        change=edit,
        hits=(route.ingress.title, meant.title, *(w.title for w in behind(world, meant))),
    )


def _absent_class(world: World, ingress: KubeObject) -> Iterator[Candidate]:
    """An IngressClass that no list knows: no controller takes the Ingress on."""
    name = word(mapping(ingress.raw.get("spec")).get("ingressClassName"))
    if not name or not world.scene.looked("IngressClass") or found(world.scene, "IngressClass", name) is not None:
        return
    edit = touched(world, ingress, "spec", "ingressClassName", since=_oldest(world))
    near = resembling(name, (c.name for c in world.scene.all("IngressClass")))
    if edit is None and not near and not world.scene.all("IngressClass"):
        return  # (a controller may well go by the name alone; without any class nothing tells)
    told = seen(world.scene.listing("IngressClass"), f"{ingress.title} asks for IngressClass/{name}, which is not in the list")
    services = [r.service for r in _routes(ingress)]
    hits = [f"Service/{s}" for s in services]
    marks = [
        Mark("mechanism named", (told,)),
        *([saw_change(world.scene, ingress, edit, "its class")] if edit else [Mark("no change seen")]),
    ]
    yield made(
        world,
        Category.SERVICE_ROUTING,
        ingress.title,
        f"{ingress.title} asks for IngressClass/{name}, which does not exist{f'; {near} does' if near else ''}: no controller serves it.",
        marks=marks,
        inferred=0 if edit and near else 1,
        counterfactual=bool(near),
        change=edit,
        hits=(ingress.title, *hits),
    )


def _rivals(world: World) -> Iterator[Candidate]:
    """Two Ingresses that claim the same host and path for different Services: which one wins is the controller's business."""
    taken: dict[tuple[str, str], _Route] = {}
    ordered = sorted(world.scene.all("Ingress"), key=lambda i: (str(obj_created(i)), i.name))
    for route in (r for i in ordered for r in _routes(i) if r.host):
        first = taken.setdefault((route.host, route.path), route)
        if first.ingress.name == route.ingress.name or first.service == route.service or not route.path:
            continue
        classes = {word(mapping(i.raw.get("spec")).get("ingressClassName")) for i in (first.ingress, route.ingress)}
        if len(classes) > 1:
            continue
        edit = touched(world, route.ingress, "spec", since=obj_created(first.ingress))
        told = seen(
            world.scene.listing("Ingress"),
            f"{first.ingress.title} → {first.service} and {route.ingress.title} → {route.service} for {route.words}",
        )
        yield made(
            world,
            Category.SERVICE_ROUTING,
            route.ingress.title,
            f"{route.ingress.title} claims {route.words} for Service/{route.service}, which {first.ingress.title} routes to Service/{first.service}.",
            marks=(
                Mark("mechanism likely", (told,)),
                *([saw_change(world.scene, route.ingress, edit, "its spec")] if edit else [Mark("no change seen")]),
            ),
            inferred=1 if edit else 2,
            change=edit,
            hits=(first.ingress.title, f"Service/{first.service}"),
        )
