"""The cluster's DNS, and pods that do not ask it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef, Gap
from ...domain.snapshot import KubeObject
from ..evidence import Observation, seen
from ..graph import DNS_NAMESPACE, Link
from ..hypotheses import Candidate, Cap, Mark
from ..read import count, flag, listed, mapping, number, objects, word, words
from ..scene import Scene, Workload
from ..specialists.logs import Clue, Sign
from ..world import World
from .common import edited, found, introduced, log_marks, made, pod_spec, ready, released, saw_change

_DNS = "kube-dns"
_DOMAIN = "cluster.local"
_TEXT_LIMIT = 20_000
_MOST_TOLD = 50


def names(world: World) -> Iterator[Candidate]:
    """A DNS server that does not serve the cluster's names, and workloads that ask another one for them."""
    asking = tuple(w for w in world.workloads if _uses_names(world, w))
    said = {w.title: failed(world, w) for w in asking}
    yield from _server(world, asking, [c for every in said.values() for c in every])
    for w in asking:
        yield from _policy(world, w, said[w.title])


def _uses_names(world: World, w: Workload) -> bool:
    """Whether it calls Services by name, or its log says that a name was not resolved."""
    return bool(world.graph.targets(w.title, Link.CALLS)) or bool(failed(world, w))


def failed(world: World, w: Workload) -> list[Clue]:
    """Lines of its logs that say of a name which exists, or of a name of the cluster, that it was not resolved."""
    return [c for c in world.clues(w.pods) if c.sign is Sign.NAME and _exists(world, c.subject)]


def _exists(world: World, name: str) -> bool:
    """Whether a name stands for a Service that is there; names from outside the cluster are none of these."""
    parts = name.lower().rstrip(".").split(".")
    home = world.scene.snapshot.namespace
    if len(parts) == 1 or parts[1] == home:
        return found(world.scene, "Service", parts[0]) is not None
    if len(parts) >= 3 and parts[2] == "svc":
        other = world.beside(parts[1])
        return other is None or any(s.name == parts[0] for s in other.all("Service"))
    return len(parts) >= 2 and (other := world.beside(parts[1])) is not None and any(s.name == parts[0] for s in other.all("Service"))


# -- the server ---------------------------------------------------------------------------------------------------------------------------


def _server(world: World, asking: tuple[Workload, ...], said: list[Clue]) -> Iterator[Candidate]:
    other = world.beside(DNS_NAMESPACE)
    if other is None:
        if said:
            gap = Gap(what=f"namespace {DNS_NAMESPACE}", because="names are not resolved, and the cluster's DNS was not looked at")
            if gap not in world.gaps:
                world.gaps.append(gap)
        return
    hits = tuple(w.title for w in asking if world.graph.targets(w.title, Link.RESOLVES) or failed(world, w))
    if not hits:
        return
    yield from _corefile(world, other, said, hits)
    yield from _pods(world, other, said, hits)


@dataclass
class _Block:
    """One server block of a Corefile: its zones, and its plugins with their arguments and the lines of their own blocks."""

    zones: list[str]
    plugins: list[tuple[str, list[str], list[str]]] = field(default_factory=list)


def corefile(text: str) -> list[_Block]:
    """The server blocks of a Corefile; what cannot be read is left out."""
    blocks: list[_Block] = []
    depth = 0
    for raw in text[:_TEXT_LIMIT].splitlines():
        line = raw.partition("#")[0].strip()
        if not line:
            continue
        opens, closes = line.endswith("{"), line == "}"
        parts = line.removesuffix("{").split()
        if depth == 0 and opens:
            blocks.append(_Block([z.strip(",") for z in parts]))
        elif depth == 1 and not closes and parts:
            blocks[-1].plugins.append((parts[0], parts[1:], []))
        elif depth >= 2 and not closes and blocks and blocks[-1].plugins:
            blocks[-1].plugins[-1][2].append(line)
        depth = max(0, depth + opens - closes)
    return blocks


def _serves(zone: str, name: str) -> bool:
    """Whether a zone, with or without scheme and port, covers a name."""
    bare = zone.rpartition("://")[2].partition(":")[0].strip(".").lower()
    return not bare or name == bare or name.endswith(f".{bare}")


def misconfigured(text: str, namespace: str) -> str:
    """Why this Corefile does not answer for Services of the cluster; empty when it does, or when it cannot be read."""
    blocks = corefile(text)
    if not blocks:
        return "it has no server block" if not text.strip() else ""
    name = f"x.{namespace}.svc.{_DOMAIN}"
    fitting = [b for b in blocks if any(_serves(z, name) for z in b.zones)]
    if not fitting:
        return f"no server block is for {_DOMAIN}"
    block = max(fitting, key=lambda b: max(len(z.partition(":")[0].strip(".")) for z in b.zones if _serves(z, name)))
    for plugin, arguments, lines in block.plugins:
        if why := _breaks(plugin, arguments, lines, name):
            return why
    kubernetes = [(a, lines) for p, a, lines in block.plugins if p == "kubernetes"]
    if not kubernetes:
        return f"the server block {' '.join(block.zones)} has no kubernetes plugin, so that no Service has a name"
    if not any(not zones or any(_serves(z, name) for z in zones) for zones, _ in kubernetes):
        return f"its kubernetes plugin serves {listed(kubernetes[0][0])}, not {_DOMAIN}"
    for _, lines in kubernetes:
        shown = [line.split()[1:] for line in lines if line.startswith("namespaces ")]
        if shown and not any(namespace in s for s in shown):
            return f"its kubernetes plugin serves namespaces {listed(shown[0])} only"
    return ""


def _breaks(plugin: str, arguments: list[str], lines: list[str], name: str) -> str:
    """Whether a plugin answers for the cluster's names before, or instead of, the one that knows them."""
    if plugin == "template":
        zones = [a for a in arguments[2:] if a] or ["."]
        refused = [w for line in lines for w in line.split() if w in ("NXDOMAIN", "SERVFAIL", "REFUSED")]
        only = [line.partition(" ")[2].strip() for line in lines if line.startswith("match")]
        covers = not only or any(_matches(m, name) for m in only)
        if any(_serves(z, name) for z in zones) and refused and covers:
            return f"a template answers {refused[0]} for {listed(zones)}"
    if plugin == "rewrite":
        words_ = [a for a in arguments if a not in ("name", "stop", "continue", "exact", "suffix", "prefix", "substring", "regex", "auto")]
        if len(words_) >= 2 and _DOMAIN in words_[0].replace("\\", "") and _DOMAIN not in words_[1].replace("\\", ""):
            return "a rewrite turns names of the cluster into others"
    if plugin == "acl" and any(line.startswith(("block", "drop", "filter")) and "net" not in line for line in lines):
        return "an acl blocks every question"
    if plugin == "erratic":
        return "the erratic plugin drops answers"
    return ""


def _matches(pattern: str, name: str) -> bool:
    """Whether a template's `match` may fit a Service's name. Only plain ones are judged; a pattern of the cluster's domain counts."""
    bare = re.sub(r"[\\^$()?*+.\[\]]", "", pattern)
    return not bare or "svccluster" in bare or "clusterlocal" in bare or name.replace(".", "").endswith(bare)


def _corefile(world: World, other: Scene, said: list[Clue], hits: tuple[str, ...]) -> Iterator[Candidate]:
    for obj in other.all("ConfigMap"):
        data = words(obj.raw.get("data"))
        if obj.name not in ("coredns", "kube-dns", "coredns-custom") or not data:
            continue
        text = next((v for k, v in data.items() if k == "Corefile"), "") if obj.name == "coredns" else ""
        why = misconfigured(text, world.scene.snapshot.namespace) if obj.name == "coredns" else ""
        change = edited(obj, "data")
        crash = _parse_errors(other)
        if not why and obj.name == "coredns" and change is not None:
            yield from _forward(world, other, obj, text, change)
        if not why and not (crash and change is not None):
            continue
        title = f"ConfigMap/{DNS_NAMESPACE}/{obj.name}"
        told = seen(other.listing("ConfigMap"), f"{title} Corefile: {why or 'changed before CoreDNS failed'}")
        yield made(
            world,
            Category.DNS,
            title,
            f"The cluster's DNS does not answer for Services: in {title} {why or 'the Corefile changed, and CoreDNS fails since'}.",
            summary=f"The cluster's DNS is misconfigured: {why or 'its Corefile changed and it fails since'}.",
            marks=(
                Mark("mechanism named" if why else "state fits", (told, *crash[:1])),
                *([saw_change(other, obj, change, "its data")] if change else [Mark("no change seen")]),
                *log_marks(said),
            ),
            inferred=0 if why and said else 1,
            counterfactual=bool(why),
            change=change,
            hits=hits[:_MOST_TOLD],
        )


def _forward(world: World, other: Scene, obj: KubeObject, text: str, change: ChangeRef) -> Iterator[Candidate]:
    """Names of the outside that are not found since the Corefile, which says whom to ask for them, was edited."""
    said = [(c, w) for w in world.workloads for c in world.clues(w.pods) if c.sign is Sign.NAME and _outside(world, c.subject)]
    if not said:
        return
    to = [a for b in corefile(text) for plugin, a, _ in b.plugins if plugin in ("forward", "proxy") and a[:1] == ["."]]
    where = f"asks {listed([s for a in to for s in a[1:]])}" if to else "forwards to nobody"
    title = f"ConfigMap/{DNS_NAMESPACE}/{obj.name}"
    told = seen(other.listing("ConfigMap"), f"{title} Corefile {where} for names of the outside")
    yield made(
        world,
        Category.DNS,
        title,
        f"Names outside the cluster are not found; the Corefile in {title}, which {where} for them, was edited.",
        marks=(
            Mark("mechanism likely" if to else "mechanism named", (told,)),
            saw_change(other, obj, change, "its data"),
            *log_marks(c for c, _ in said),
        ),
        inferred=1,
        counterfactual=not to,
        change=change,
        caps=(Cap("C", "that whom it asks does not answer is not shown"),) if to else (),
        hits=tuple(dict.fromkeys(w.title for _, w in said)),
    )


def _outside(world: World, name: str) -> bool:
    """Whether a name can only be one of the outside."""
    return "." in name and ".svc" not in name and not name.endswith(".local") and not _exists(world, name)


def _parse_errors(other: Scene) -> tuple[Observation, ...]:
    """CoreDNS pods that crash."""
    down = [p for p in other.pods if p.labels.get("k8s-app") == _DNS and not p.ready and any(c.crashes for c in p.containers)]
    return (seen(other.listing("Pod"), f"{count(len(down), 'pod')} of the cluster's DNS crash"),) if down else ()


def _pods(world: World, other: Scene, said: list[Clue], hits: tuple[str, ...]) -> Iterator[Candidate]:
    """No pod of the DNS serves: its Deployment, or a Service that does not select it."""
    service = next((s for s in other.all("Service") if s.name == _DNS), None)
    server = next((d for d in other.all("Deployment") if d.name in ("coredns", _DNS) or d.labels.get("k8s-app") == _DNS), None)
    if service is None:
        if other.looked("Service") and server is not None:
            yield _dns_fault(
                world, f"Service/{DNS_NAMESPACE}/{_DNS}", "it does not exist", other, "Service", said, hits, ChangeRef(kind="Deletion")
            )
        return
    selector = words(mapping(service.raw.get("spec")).get("selector"))
    mine = [p for p in other.pods if selector and selector.items() <= p.labels.items() and not p.done]
    if any(p.ready for p in mine) or not other.looked("Pod"):
        return
    if server is None:
        return
    title = f"Deployment/{DNS_NAMESPACE}/{server.name}"
    of_server = words(mapping(mapping(mapping(mapping(server.raw.get("spec")).get("template")).get("metadata"))).get("labels"))
    wanted = number(mapping(server.raw.get("spec")).get("replicas"), 1)
    if not mine and selector and not selector.items() <= of_server.items():
        change = edited(service, "spec", "selector")
        yield _dns_fault(
            world, f"Service/{DNS_NAMESPACE}/{_DNS}", f"its selector does not match {title}", other, "Service", said, hits, change
        )
    elif wanted == 0:
        change = edited(server, "spec", "replicas", scale=True)
        yield _dns_fault(world, title, "it is scaled to zero", other, "Deployment", said, hits, change)
    elif mine or number(mapping(server.raw.get("status")).get("availableReplicas")) == 0:
        change = edited(server, "spec", "template")
        yield _dns_fault(world, title, "none of its pods is Ready", other, "Pod", said, hits, change)


def _dns_fault(
    world: World, title: str, why: str, other: Scene, kind: str, said: list[Clue], hits: tuple[str, ...], change: ChangeRef | None
) -> Candidate:
    told = seen(other.listing(kind), f"{title}: {why}")
    return made(
        world,
        Category.DNS,
        title,
        f"The cluster's DNS does not answer: {title}: {why}.",
        marks=(Mark("mechanism named", (told,)), *log_marks(said)),
        inferred=0 if said else 1,
        counterfactual=True,
        change=change,
        hits=hits[:_MOST_TOLD],
    )


# -- the pods' own settings ---------------------------------------------------------------------------------------------------------------


def _policy(world: World, w: Workload, said: list[Clue]) -> Iterator[Candidate]:
    """`dnsPolicy`, `dnsConfig`, `hostNetwork` and `hostAliases` that lead past the cluster's DNS, while the program uses its names."""
    why = astray(world, pod_spec(w))
    if not why:
        yield from _aliased(world, w)
        return
    hit = introduced(world, w, lambda t: astray(world, mapping(t.get("spec"))) == "")
    if not said and hit is None and ready(w):
        return  # it was always so, and nothing shows that it hurts
    called = [t.partition("/")[2] for t in world.graph.targets(w.title, Link.CALLS)]
    told = seen(world.scene.listing(w.obj.kind), f"{w.title}: {why}; it calls {listed(called) or 'Services'} by name")
    marks = [Mark("mechanism named", (told,)), *log_marks(said)]
    change: ChangeRef | None = None
    if hit is not None:
        change, mark = released(*hit, f"{why}; before that it asked the cluster's DNS")
        marks.append(mark)
    else:
        marks.append(Mark("no change seen"))
    yield made(
        world,
        Category.DNS,
        w.title,
        f"{w.title} does not ask the cluster's DNS ({why}), and calls {listed(called) or 'Services'} by name.",
        marks=marks,
        inferred=0 if said else 1,
        counterfactual=True,
        change=change,
        hits=(w.title,),
    )


def astray(world: World, spec: Mapping[str, Any]) -> str:
    """Why pods of this spec do not ask the cluster's DNS; empty when they do, or when nothing can tell."""
    policy = word(spec.get("dnsPolicy")) or "ClusterFirst"
    if policy == "Default":
        return "dnsPolicy Default"
    if policy == "ClusterFirst" and flag(spec.get("hostNetwork")):
        return "hostNetwork without dnsPolicy ClusterFirstWithHostNet"
    config = mapping(spec.get("dnsConfig"))
    servers = _texts(config.get("nameservers"))
    address = dns_address(world)
    if policy == "None" and servers and address and address not in servers:
        return f"dnsPolicy None with nameserver {listed(servers)}; the cluster's is {address}"
    if policy == "None" and not _texts(config.get("searches")) and servers and address in servers:
        return "dnsPolicy None without search domains, so that short names are not found"
    return ""


def _texts(value: object) -> list[str]:
    return [v for v in value[:10] if isinstance(v, str)] if isinstance(value, list) else []


def dns_address(world: World) -> str:
    """The address of the cluster's DNS; empty when it is not known."""
    other = world.beside(DNS_NAMESPACE)
    service = next((s for s in other.all("Service") if s.name == _DNS), None) if other is not None else None
    return word(mapping(mapping(service.raw if service is not None else {}).get("spec")).get("clusterIP"))


def _aliased(world: World, w: Workload) -> Iterator[Candidate]:
    """A host alias that gives a Service's name another address."""
    for alias in objects(pod_spec(w).get("hostAliases")):
        for name in _texts(alias.get("hostnames")):
            service = found(world.scene, "Service", name.partition(".")[0])
            address = word(mapping(service.raw.get("spec")).get("clusterIP")) if service is not None else ""
            if service is None or not address or address == "None" or address == word(alias.get("ip")):
                continue
            if service.title not in world.graph.targets(w.title, Link.CALLS):
                continue
            hit = introduced(world, w, lambda t: mapping(t.get("spec")).get("hostAliases"))
            change, marks = None, [Mark("no change seen")]
            if hit is not None:
                change, mark = released(*hit, "hostAliases changed")
                marks = [mark]
            told = seen(
                world.scene.listing(w.obj.kind), f"{w.title} hostAliases give {name} another address than {service.title} has ({address})"
            )
            yield made(
                world,
                Category.DNS,
                w.title,
                f"{w.title} takes {name} for another address than that of {service.title} (hostAliases).",
                marks=(Mark("mechanism named", (told,)), *marks),
                inferred=0 if change else 1,
                counterfactual=True,
                change=change,
                hits=(w.title,),
            )
