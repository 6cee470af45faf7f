"""What the finders share: candidates with safe texts, edits by field managers, who calls whom and what their logs say."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..case import Case
from ..changes import Introduced
from ..evidence import Channel, Observation, safe, seen
from ..graph import Link
from ..hypotheses import Candidate, Cap, Mark
from ..read import clock, listed, mapping, objects, when, word, words
from ..scene import Scene, Workload
from ..specialists.logs import Clue, Sign
from ..views import Pod, obj_created
from ..world import World

NO_CHANGE = ChangeRef(kind="None")
# What a client makes in one go (`apply -f dir`) is made within this time; what comes later is a change of what was there.
_TOGETHER = timedelta(seconds=10)
_SAME_WRITE = timedelta(seconds=1)
_LATELY = timedelta(days=1)
_CLOSE = 0.75


def made(
    world: World,
    category: Category,
    title: str,
    statement: str,
    *,
    marks: Iterable[Mark],
    inferred: int,
    summary: str = "",
    counterfactual: bool = False,
    change: ChangeRef | None = None,
    caps: Iterable[Cap] = (),
    hits: Iterable[str] = (),
    since: datetime | None = None,
    refuted: str = "",
    timing: bool = False,
) -> Candidate:
    """A candidate whose texts are safe, under the caps that hold for the whole diagnosis; a known change counts as its timing."""
    change = change or NO_CHANGE
    return Candidate(
        category=category,
        object=safe(title, 253),
        statement=safe(statement, 900),
        summary=safe(summary, 400),
        change=change,
        marks=tuple(marks),
        inferred=inferred,
        counterfactual=counterfactual,
        timing=timing or change.at is not None,
        caps=(*world.caps, *caps),
        refuted=safe(refuted, 900),
        hits=tuple(dict.fromkeys(h for h in hits if h)),
        since=since if since is not None else change.at,
    )


def about_node(world: World, node: str) -> bool:
    """Whether the question is about nodes: a signal that says so, or nobody's signal. (Else a node counts by what it does to workloads:
    every workload runs on some node, and a node's trouble must not explain what happens to its pods on others.)
    """
    claim = world.claim
    return claim is None or claim.labels.get("node") == node or bool(re.search(r"node|kubelet|cordon|drain", claim.name, re.IGNORECASE))


def signal_about(world: World, words_: str) -> bool:
    """Whether the signal itself is about such things, by its name, its labels' names, or what it says of itself.

    What has been wrong for long without hurting anybody (an autoscaler that never worked, a certificate that nothing checks) must not
    explain whatever else happens beside it: without a change, without a word of those it hurts, it needs a signal that asks for it.
    """
    claim = world.claim
    return claim is not None and bool(re.search(words_, f"{claim.name} {' '.join(claim.labels)} {claim.text}", re.IGNORECASE))


def unread(scene: Scene, *kinds: str) -> tuple[Cap, ...]:
    """A cap at B where one of these kinds, which could refute it, was not looked at."""
    missing = [k for k in kinds if not scene.looked(k)]
    return (Cap("B", f"{listed(missing)} objects were not looked at and could refute it"),) if missing else ()


def elsewhere(namespace: str, obj: KubeObject) -> str:
    """`Kind/namespace/name`."""
    return f"{obj.kind}/{namespace}/{obj.name}"


def found(scene: Scene, kind: str, name: str) -> KubeObject | None:
    """The object of that kind and name in this namespace (or of the cluster)."""
    key = ("by name", kind)
    if key not in scene.memo:
        scene.memo[key] = {o.name: o for o in scene.all(kind)}
    hit: KubeObject | None = scene.memo[key].get(name)
    return hit


# -- changes ----------------------------------------------------------------------------------------------------------------------------


def touched(world: World, obj: KubeObject, *path: str, since: datetime | None) -> ChangeRef | None:
    """As `edited`; and an object that was itself made lately, and later than `since`, counts as written then (made anew)."""
    born, change = obj_created(obj), edited(obj, *path)
    if change is None and born is not None and since is not None and born - since > _TOGETHER and world.scene.now - born < _LATELY:
        return ChangeRef(kind="Edit", at=born)
    return change


def edited(obj: KubeObject, *path: str, scale: bool = False) -> ChangeRef | None:
    """The last write of that field after the object was made, from `managedFields`; None when nobody wrote it later.

    `path` is a path of plain names (`spec`, `selector`). `scale`: writes through the scale subresource count too.
    """
    born = obj_created(obj)
    writes = [
        (at, word(entry.get("manager")))
        for entry in objects(mapping(obj.raw.get("metadata")).get("managedFields"))
        if (at := when(entry.get("time"))) is not None
        and word(entry.get("subresource")) in ("", *(("scale",) if scale else ()))
        and _owns(mapping(entry.get("fieldsV1")), path)
        and (born is None or at - born > _SAME_WRITE)
    ]
    if writes:
        at, by = max(writes)
        return ChangeRef(kind="Edit", at=at, by=safe(by, 200))
    return None


def _owns(fields: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    here: Any = fields
    for name in path:
        here = mapping(here).get(f"f:{name}")
        if not isinstance(here, Mapping):
            return False
    return True


def saw_change(scene: Scene, obj: KubeObject, change: ChangeRef, what: str) -> Mark:
    """An edit as evidence: it changed, and when."""
    by = f", claimed by {change.by}" if change.by else ""
    text = f"{obj.title}: {what} last written {clock(change.at)}{by} (managedFields)"
    return Mark("edited before it began", (seen(scene.listing(obj.kind), text, Channel.CHANGE),))


def introduced(world: World, workload: Workload, value: Callable[[Mapping[str, Any]], object]) -> tuple[Case, Introduced] | None:
    """The release of the workload that gave this part of its template its present value; None where no older template differs."""
    case = world.case(workload)
    hit = case.history.introduced(value)
    return (case, hit) if hit is not None and hit.previous is not None else None


def released(case: Case, hit: Introduced, shown: str) -> tuple[ChangeRef, Mark]:
    """That release as a change and as evidence. `shown` says what differs, without values that may be secret."""
    return case.release(hit.revision), Mark("introduced by this release", (case.saw_release(hit, safe(shown, 300)),))


# -- names ------------------------------------------------------------------------------------------------------------------------------


def resembling(name: str, names: Iterable[str]) -> str:
    """The one name that looks most like it; empty when none does, or two do alike."""
    scored = sorted(((_likeness(name, n), n) for n in set(names) if n != name), reverse=True)[:2]
    if not scored or scored[0][0] < _CLOSE or (len(scored) == 2 and scored[1][0] == scored[0][0]):
        return ""
    return scored[0][1]


def alike(a: str, b: str) -> bool:
    """Whether two names differ by little: a typo, a suffix, a prefix."""
    return _likeness(a, b) >= _CLOSE


def _likeness(a: str, b: str) -> float:
    a, b = a.lower()[:253], b.lower()[:253]
    if a == b:
        return 1.0
    short, long = sorted((a, b), key=len)
    if len(short) >= 3 and (long.startswith((f"{short}-", f"{short}.")) or long.endswith(f"-{short}")):
        return 0.9
    return difflib.SequenceMatcher(None, a, b).ratio()


# -- pods and callers -------------------------------------------------------------------------------------------------------------------


def labels(workload: Workload) -> dict[str, str]:
    """Labels of the workload's template."""
    return words(mapping(workload.template.get("metadata")).get("labels"))


def pod_spec(workload: Workload) -> Mapping[str, Any]:
    """The pod spec of the workload's template."""
    return mapping(workload.template.get("spec"))


def ready(workload: Workload) -> tuple[Pod, ...]:
    """Its pods that serve, by name."""
    return tuple(sorted((p for p in workload.pods if p.ready and not p.done), key=lambda p: p.name))


def saw_ready(world: World, pods: Iterable[Pod], what: str) -> Observation:
    """Pods that are Ready, as evidence."""
    names = listed(sorted(p.name for p in pods))
    return seen(world.scene.listing("Pod"), f"{what}: {names}", Channel.CONTRAST)


@dataclass(frozen=True)
class Caller:
    """A workload that calls a Service: by which field, with which port (0: not named), and who holds that value."""

    workload: Workload
    via: str
    port: int
    holder: str


def callers(world: World, service: str) -> tuple[Caller, ...]:
    """Workloads that name the Service (by title) as a host."""
    edges = world.graph.callers(service)
    return tuple(Caller(w, e.via, e.port, e.holder) for e in edges if (w := world.workload(e.source)) is not None)


def complaints(world: World, service: str, *signs: Sign) -> tuple[Clue, ...]:
    """What the logs of its callers say about a Service by its name: refused, timed out, not resolved, answering errors."""
    wanted = signs or (Sign.HOST, Sign.NAME, Sign.UPSTREAM)
    every = {c.workload.title: c.workload for c in callers(world, service)}
    return tuple(clue for w in every.values() for clue in world.clues(w.pods) if clue.sign in wanted and concerns(world, clue, service))


def concerns(world: World, clue: Clue, service: str) -> bool:
    """Whether a line is about that Service (by title): by name, by an address of its own or of its pods, or by the URL beside it."""
    name, subject = service.rpartition("/")[2].lower(), clue.subject.lower()
    if subject.partition(".")[0] == name:
        return True
    if subject and _addresses(world).get(subject) == service:
        return True
    return bool(re.search(rf"(?:://|\(|@){re.escape(name)}[.:/)\"'?]", clue.seen.text.lower())) if not _named(world, subject) else False


def _named(world: World, subject: str) -> bool:
    """Whether the line's own subject is a Service: then a URL elsewhere in the line is not what it is about."""
    return found(world.scene, "Service", subject.partition(".")[0]) is not None


def _addresses(world: World) -> dict[str, str]:
    """Services by their own address and by those of their pods; an address of two Services names none."""
    memo = world.scene.memo
    if ("addresses", "") not in memo:
        known: dict[str, str] = {}
        pods = {o.title: word(mapping(o.raw.get("status")).get("podIP")) for o in world.scene.all("Pod")}
        for service in world.scene.all("Service"):
            own = word(mapping(service.raw.get("spec")).get("clusterIP"))
            for address in dict.fromkeys((own, *(pods.get(t, "") for t in world.graph.selected(service.title)))):
                if address and address != "None":
                    known[address] = "" if address in known else service.title
        memo["addresses", ""] = known
    found_: dict[str, str] = memo["addresses", ""]
    return found_


def log_marks(clues: Iterable[Clue]) -> tuple[Mark, ...]:
    """The first two of these lines as evidence; none where there are none."""
    lines = tuple(dict.fromkeys(c.seen for c in clues))[:2]
    return (Mark("log says so", lines),) if lines else ()


def selected(world: World, service: KubeObject) -> tuple[Pod, ...]:
    """The pods that a Service selects, by name; those that are done or going are left out."""
    memo = world.scene.memo
    if ("pods", "") not in memo:
        memo["pods", ""] = {f"Pod/{p.name}": p for p in world.scene.pods}
    index: dict[str, Pod] = memo["pods", ""]
    return tuple(p for t in world.graph.targets(service.title, Link.SELECTS) if (p := index.get(t)) is not None and not p.done)


def behind(world: World, service: KubeObject) -> tuple[Workload, ...]:
    """Workloads that a Service fronts, by their pods and by their templates; each once."""
    key = ("behind", service.title)
    if key not in world.scene.memo:
        roots = (world.graph.root(t) for t in world.graph.targets(service.title, Link.SELECTS))
        titles = dict.fromkeys((*roots, *world.graph.targets(service.title, Link.FRONTS)))
        world.scene.memo[key] = tuple(w for t in titles if (w := world.workload(t)) is not None)
    every: tuple[Workload, ...] = world.scene.memo[key]
    return every


def services_of(world: World, workload: Workload) -> tuple[KubeObject, ...]:
    """Services that select the workload's template, by name."""
    return governing(world, workload, "Service", Link.FRONTS)


def governing(world: World, workload: Workload, kind: str, link: Link = Link.GOVERNS) -> tuple[KubeObject, ...]:
    """Objects of that kind that govern the workload (or stand to it in another relation), by name."""
    names = sorted(t.partition("/")[2] for t in world.graph.sources(workload.title, link) if t.startswith(f"{kind}/"))
    return tuple(o for n in names if (o := found(world.scene, kind, n)) is not None)


@dataclass(frozen=True)
class Port:
    """A port that a container declares."""

    name: str
    number: int
    protocol: str


def declared(spec: Mapping[str, Any]) -> tuple[Port, ...]:
    """Every port that the containers of a pod spec declare."""
    every = (p for c in objects(spec.get("containers")) for p in objects(c.get("ports")))
    return tuple(
        Port(word(p.get("name")), n, word(p.get("protocol")) or "TCP") for p in every if isinstance(n := p.get("containerPort"), int)
    )


def probed(spec: Mapping[str, Any], *kinds: str) -> Iterator[int | str]:
    """Ports that readiness probes (or other kinds) ask, by number or by name."""
    for container in objects(spec.get("containers")):
        for kind in kinds or ("readinessProbe",):
            probe = mapping(container.get(kind))
            for way in ("httpGet", "tcpSocket", "grpc"):
                port = mapping(probe.get(way)).get("port")
                if isinstance(port, int | str) and not isinstance(port, bool):
                    yield port


def texts(template: Mapping[str, Any]) -> Iterator[str]:
    """Values that a template sets itself: of the environment, of commands and of arguments. They may be secrets: compare, never show."""
    spec = mapping(template.get("spec"))
    for group in ("initContainers", "containers"):
        for container in objects(spec.get(group)):
            yield from (word(e.get("value")) for e in objects(container.get("env")))
            for part in ("command", "args"):
                given = container.get(part)
                yield from (word(a) for a in given[:200]) if isinstance(given, list) else ()
