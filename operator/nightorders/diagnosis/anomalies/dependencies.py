"""What a workload calls and does not get: a database that is down, a login that is refused, connections that are used up, the outside.

The origin of a failing dependency is whatever is wrong there, and other finders and origins name it. What this module yields where a
dependency merely does not serve is therefore weak on purpose: it stands only where nothing finer is shown.

Whose pool is used up: a server that refuses (`too many clients`, `max_connections`) has no room left, so it is the server that one would
relieve; a client that waits for a connection of its own pool has too few or holds them too long, so it is the client. Where a setting of
that pool changed before, that setting is the origin (a wrong value comes before overload in the table of mechanisms).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..changes import EXPLAINS_EXIT, Aspect, Introduced, differences
from ..evidence import Channel, measured, seen
from ..graph import Link, series_name
from ..hypotheses import Candidate, Cap, Mark
from ..read import clock, count, earliest, listed, mapping, objects, word
from ..references import Reference, references
from ..scene import Workload
from ..specialists.logs import Clue, Sign
from ..world import World
from .common import (
    behind,
    callers,
    complaints,
    concerns,
    edited,
    found,
    introduced,
    log_marks,
    made,
    pod_spec,
    ready,
    released,
    saw_change,
    selected,
    services_of,
    texts,
)

_SERVER_FULL = re.compile(
    r"too many (?:clients|connections)|remaining connection slots|max(?:imum)?[ _-]?(?:number of )?(?:clients|connections) (?:reached|exceeded)|"
    r"max_connections|max_user_connections|ERR max number of clients|too many open connections",
    re.IGNORECASE,
)
# A pool that holds no connection at all is not used up: whom it connects to is away.
_EMPTY_POOL = re.compile(r"\btotal=0\b|\bactive=0\b.{0,20}\bidle=0\b")
_POOL_SETTING = re.compile(r"pool|max_?conn|max_?open|connection_?limit", re.IGNORECASE)
_CREDENTIAL = re.compile(
    r"pass(?:word|wd)?|secret|token|credential|dsn|(?:database|db|redis|mongo|amqp|postgres|mysql)_?ur[il]|user(?:name)?|api_?key",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}|[0-9a-f:]*::[0-9a-f:]*")
_FAR_END = ("host", "target", "upstream", "peer", "peer_service", "server_address", "net_peer_name", "dependency", "remote", "client_name")
_OUTCOME = ("outcome", "status", "code", "status_code", "result", "http_response_status_code", "error_type")
_BAD_OUTCOME = re.compile(r"error|failure|failed|timeout|server_error|5\d\d|unavailable|io_error", re.IGNORECASE)
_GOOD_OUTCOME = re.compile(r"success|ok|2\d\d|3\d\d", re.IGNORECASE)
_MANY = 0.1
_INSIDE = (".svc", ".cluster.local", ".local", ".internal")


def dependencies(world: World) -> Iterator[Candidate]:
    """The far ends of failing calls."""
    yield from _down(world)
    yield from _merged(_logins(world))
    yield from _merged(_pools(world))
    yield from _outside(world)


def _merged(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    """One candidate for what several callers, or both sides, say about the same object: the best of them, with everything that it hits."""
    found_: dict[tuple[Category, str], Candidate] = {}
    for c in candidates:
        key = (c.category, c.object)
        best = min((c, found_.get(key, c)), key=lambda x: x.grade)
        found_[key] = replace(best, hits=tuple(dict.fromkeys((*(found_[key].hits if key in found_ else ()), *c.hits))))
    yield from found_.values()


# -- down ---------------------------------------------------------------------------------------------------------------------------------


def _down(world: World) -> Iterator[Candidate]:
    """Workloads behind a called Service that do not serve, or that several callers complain about; not those that are victims themselves."""
    for service in world.scene.all("Service"):
        using = tuple(dict.fromkeys(c.workload.title for c in callers(world, service.title)))
        owners = [w for w in behind(world, service) if w.title not in using]
        if not using or not owners:
            continue
        said = complaints(world, service.title)
        serving = any(p.ready for p in selected(world, service))
        w = owners[0]
        if serving and said and not _leans_on_dead(world, w) and not _complains(world, w):
            yield from _silent(world, service, w, using, said)
        elif not serving and w.desired > 0 and not _leans_on_dead(world, w):
            yield from _dead(world, service, w, using, said)


def _complains(world: World, w: Workload) -> bool:
    """Whether its own logs blame something further on."""
    return any(c.sign in (Sign.HOST, Sign.NAME, Sign.UPSTREAM, Sign.CREDENTIALS, Sign.POOL, Sign.CERTIFICATE) for c in world.clues(w.pods))


def _leans_on_dead(world: World, w: Workload) -> bool:
    """Whether it calls another Service that has pods and none of them Ready: then it is a victim."""
    for title in world.graph.targets(w.title, Link.CALLS):
        service = found(world.scene, "Service", title.partition("/")[2]) if title.count("/") == 1 else None
        owners = [o for o in behind(world, service) if o.title != w.title] if service is not None else []
        if service is not None and owners and not any(p.ready for p in selected(world, service)):
            return True
    return False


def _dead(world: World, service: KubeObject, w: Workload, using: tuple[str, ...], said: tuple[Clue, ...]) -> Iterator[Candidate]:
    told = seen(world.scene.listing("Pod"), f"{service.title}: none of {count(len(w.pods), 'pod')} of {w.title} is Ready", Channel.STATUS)
    since = earliest(*(p.ready_changed for p in w.pods))
    yield made(
        world,
        Category.DEPENDENCY,
        w.title,
        f"{w.title}, which {listed(list(using))} call as {service.title}, has no ready pod.",
        marks=(Mark("state fits", (told,)), *log_marks(said)),
        inferred=0,
        caps=(Cap("C", f"what is wrong in {w.title} is not named by this"),),
        hits=(service.title, w.title),
        since=since,
        timing=since is not None,
    )


def _silent(world: World, service: KubeObject, w: Workload, using: tuple[str, ...], said: tuple[Clue, ...]) -> Iterator[Candidate]:
    """Its pods are Ready, and its callers say that it does not answer."""
    told = seen(
        world.scene.listing("Pod"), f"{count(len(ready(w)), 'pod')} of {w.title} Ready; its callers log that {service.name} does not answer"
    )
    yield made(
        world,
        Category.DEPENDENCY,
        w.title,
        f"{w.title} is Ready, and {listed(list(using))} log that {service.title} does not answer.",
        marks=(*log_marks(said), Mark("state fits", (told,))),
        inferred=2,
        caps=(Cap("C", f"the pods of {w.title} are Ready; only its callers' logs speak against it"),),
        hits=(service.title,),
    )
    yield from _released(world, service, w, using, said)


_FRESH = timedelta(hours=1)


def _released(world: World, service: KubeObject, w: Workload, using: tuple[str, ...], said: tuple[Clue, ...]) -> Iterator[Candidate]:
    """The same, where it was released not long ago: its newest release is the first suspect, by time alone."""
    case = world.case(w)
    current, previous = case.history.current, next(iter(case.history.chain[1:2]), None)
    if current is None or previous is None or current.released is None or world.scene.now - current.released > _FRESH:
        return
    mine = [d for d in differences(previous.template, current.template) if d.aspect in EXPLAINS_EXIT]
    if not mine:
        return
    image = all(d.aspect is Aspect.IMAGE for d in mine)
    shown = "; ".join(d.shown for d in mine[:4])
    proof = case.saw_release(Introduced(current, previous), shown)
    yield made(
        world,
        Category.BAD_RELEASE if image or any(d.aspect is Aspect.IMAGE for d in mine) else Category.BAD_CONFIGURATION,
        w.title,
        f"{current.label} of {w.title} ({shown}) came {clock(current.released)}, and {listed(list(using))} log that {service.title} fails.",
        marks=(*log_marks(said), Mark("state fits", (proof,)), Mark("edited together with others", (proof,))),
        inferred=2,
        caps=(Cap("C", "only time and its callers' logs speak against the release"),),
        hits=(service.title,),
        change=case.release(current),
        timing=True,
    )


# -- logins -------------------------------------------------------------------------------------------------------------------------------


def _logins(world: World) -> Iterator[Candidate]:
    """Refused logins, with the holder of the credential, by reference. (Secrets are never read, so their content is never compared.)"""
    for w in world.workloads:
        said = [c for c in world.clues(w.pods) if c.sign is Sign.CREDENTIALS]
        if said and _is_client(world, w):
            yield from _refused(world, w, said)


def _is_client(world: World, w: Workload) -> bool:
    """Whether the line is a client's own, not a server's record of somebody's failed attempt."""
    if world.graph.targets(w.title, Link.CALLS) or not _is_server(world, w):
        return True
    return w.obj.kind != "StatefulSet" and any(re.search(r"ur[il]|dsn|host", h.variable, re.IGNORECASE) for h in _holders(w))


def _is_server(world: World, w: Workload) -> bool:
    return any(c.workload.title != w.title for s in services_of(world, w) for c in callers(world, s.title))


@dataclass(frozen=True)
class _Credential:
    """A place that a login comes from: the object that holds it (the workload itself for a plain value), the key, the variable."""

    holder: str
    key: str
    variable: str


def _holders(w: Workload) -> list[_Credential]:
    """Where a workload has its credentials from, passwords first."""
    found_: list[_Credential] = []
    for c in (*objects(pod_spec(w).get("containers")), *objects(pod_spec(w).get("initContainers"))):
        for e in objects(c.get("env")):
            name, source = word(e.get("name")), mapping(e.get("valueFrom"))
            secret, config = mapping(source.get("secretKeyRef")), mapping(source.get("configMapKeyRef"))
            if word(secret.get("name")) and (_CREDENTIAL.search(name) or _CREDENTIAL.search(word(secret.get("key")))):
                found_.append(_Credential(f"Secret/{word(secret.get('name'))}", word(secret.get("key")), name))
            elif word(config.get("name")) and _CREDENTIAL.search(name):
                found_.append(_Credential(f"ConfigMap/{word(config.get('name'))}", word(config.get("key")), name))
            elif _CREDENTIAL.search(name) and word(e.get("value")):
                found_.append(_Credential(w.title, "", name))
    named = {f.holder for f in found_}
    whole: list[Reference] = [r for r in references(pod_spec(w)) if r.kind == "Secret" and not r.key and r.title not in named]
    found_ += [_Credential(r.title, "", "") for r in whole if r.path.endswith(".envFrom") or _CREDENTIAL.search(f"{r.name} {r.path}")]
    return sorted(dict.fromkeys(found_), key=lambda f: not re.search(r"pass|dsn|ur[il]|token", f"{f.variable} {f.key}", re.IGNORECASE))


def _refused(world: World, w: Workload, said: list[Clue]) -> Iterator[Candidate]:
    mine = _holders(w)
    if not mine:
        return
    base = log_marks(said)
    hit = introduced(world, w, _credentials)
    at_start = [p for p in ready(w) if p.birth is not None]
    if hit is not None:
        change, mark = released(*hit, "what the login is taken from changed")
        yield made(
            world,
            Category.BAD_CONFIGURATION,
            w.title,
            f"{w.title} is refused when it logs in, since {hit[1].revision.label} takes its credentials from elsewhere.",
            marks=(*base, mark),
            inferred=0 if not at_start else 1,
            counterfactual=True,
            change=change,
            hits=(w.title,),
        )
        return
    first = mine[0]
    yield from _edited_maps(world, w, _CREDENTIAL, base, "is refused when it logs in", "holds")
    server = _server_of(world, w, said)
    other = _servers_own(server, first) if server is not None else None
    if server is not None and other is not None and other.holder != first.holder:
        yield from _differs(world, w, server, first, other, base)
        return
    old = [
        p
        for p in at_start
        if (born := earliest(*(q.birth for q in w.pods if not q.ready))) is not None and p.birth is not None and p.birth < born
    ]
    contrast = (
        (
            Mark(
                "started earlier serves",
                (seen(world.scene.listing("Pod"), f"{listed([p.name for p in old])}, started earlier, serve", Channel.CONTRAST),),
            ),
        )
        if old
        else ()
    )
    what = f"{first.holder}{f' key {first.key}' if first.key else ''}"
    yield made(
        world,
        Category.BAD_CONFIGURATION if old and first.holder != w.title else Category.ACCESS_DENIED,
        first.holder,
        f"{w.title} is refused when it logs in{f' to {server.title}' if server is not None else ''} with what it has from {what}.",
        marks=(*base, *contrast, Mark("no change seen")),
        inferred=1,
        change=None,
        caps=() if len({f.holder for f in mine}) == 1 else (Cap("C", "it has credentials from several places"),),
        hits=(w.title,),
    )


def _credentials(template: Mapping[str, Any]) -> object:
    """Everything that a template says about credentials, for comparison only."""
    found_: list[tuple[str, str, str]] = []
    for c in objects(mapping(template.get("spec")).get("containers")):
        for e in objects(c.get("env")):
            source = mapping(e.get("valueFrom"))
            secret = mapping(source.get("secretKeyRef")) or mapping(source.get("configMapKeyRef"))
            if _CREDENTIAL.search(word(e.get("name"))):
                found_.append((word(e.get("name")), word(e.get("value")), f"{word(secret.get('name'))}/{word(secret.get('key'))}"))
    return sorted(found_)


def _edited_maps(
    world: World, w: Workload, pattern: re.Pattern[str], base: tuple[Mark, ...], trouble: str, verb: str
) -> Iterator[Candidate]:
    """ConfigMaps that the workload reads, with keys that fit the pattern, whose data was edited."""
    for name in dict.fromkeys(r.name for r in references(pod_spec(w)) if r.kind == "ConfigMap"):
        obj = found(world.scene, "ConfigMap", name)
        change = edited(obj, "data") if obj is not None else None
        keys = [k for k in mapping(obj.raw.get("data")) if isinstance(k, str) and pattern.search(k)] if obj is not None else []
        if obj is not None and change is not None and keys:
            yield made(
                world,
                Category.BAD_CONFIGURATION,
                obj.title,
                f"{w.title} {trouble}; {obj.title}, which {verb} {listed(keys)}, was edited.",
                marks=(*base, saw_change(world.scene, obj, change, "its data")),
                inferred=1,
                change=change,
                hits=(w.title,),
            )


def _server_of(world: World, w: Workload, said: list[Clue]) -> Workload | None:
    """The workload that refused: the one that the line names, else the only one that is called and has credentials of its own."""
    called: list[Workload] = []
    for title in world.graph.targets(w.title, Link.CALLS):
        service = found(world.scene, "Service", title.partition("/")[2])
        if service is None:
            continue
        owners = [o for o in behind(world, service) if o.title != w.title]
        if owners and any(concerns(world, c, service.title) for c in said):
            return owners[0]
        called += [o for o in owners[:1] if _holders(o)]
    every = list({o.title: o for o in called}.values())
    return every[0] if len(every) == 1 else None


def _servers_own(server: Workload, first: _Credential) -> _Credential | None:
    """The server's own word for the same kind of thing: its password for a password."""
    kind = re.search(r"pass|user|token", f"{first.variable} {first.key}", re.IGNORECASE)
    wanted = kind[0].lower() if kind else "pass"
    return next((h for h in _holders(server) if wanted in f"{h.variable} {h.key}".lower() and "root" not in h.variable.lower()), None)


def _differs(
    world: World, w: Workload, server: Workload, mine: _Credential, other: _Credential, base: tuple[Mark, ...]
) -> Iterator[Candidate]:
    """Client and server take the same login from different objects: whichever was changed; the client's where nothing tells."""
    hit = introduced(world, server, _credentials)
    told = seen(world.scene.listing("Deployment"), f"{w.title} has its login from {mine.holder}, {server.title} from {other.holder}")
    if hit is not None:
        change, mark = released(*hit, "what the login is taken from changed")
        yield made(
            world,
            Category.BAD_CONFIGURATION,
            server.title,
            f"{hit[1].revision.label} of {server.title} takes its login from {other.holder}; {w.title} logs in with {mine.holder}.",
            marks=(*base, Mark("mechanism likely", (told,)), mark),
            inferred=1,
            counterfactual=True,
            change=change,
            hits=(w.title, server.title),
        )
        return
    yield made(
        world,
        Category.BAD_CONFIGURATION,
        mine.holder,
        f"{w.title} logs in to {server.title} with {mine.holder} and is refused; {server.title} itself has its login from {other.holder}.",
        marks=(*base, Mark("mechanism likely", (told,)), Mark("no change seen")),
        inferred=1,
        hits=(w.title,),
    )


# -- pools --------------------------------------------------------------------------------------------------------------------------------


def _pools(world: World) -> Iterator[Candidate]:
    for w in world.workloads:
        said = [c for c in world.clues(w.pods) if c.sign is Sign.POOL]
        if said:
            yield from _pool(world, w, said)


def _pool(world: World, w: Workload, said: list[Clue]) -> Iterator[Candidate]:
    """Connections are used up, at whichever side has the pool."""
    said = [c for c in said if not _EMPTY_POOL.search(c.seen.text)]
    if not said or _leans_on_dead(world, w):
        return  # a pool that cannot fill is a victim of what it would connect to
    base = log_marks(said)
    changed = list(_pool_setting(world, w, base))
    yield from changed
    refused = any(_SERVER_FULL.search(c.seen.text) for c in said)
    server = _pool_server(world, w, said) if refused else None
    mine = server if server is not None else w
    over = Mark("state fits", (seen(world.scene.listing(mine.obj.kind), f"{mine.title} is out of connections, by the log of {w.title}"),))
    yield made(
        world,
        Category.OVERLOAD,
        mine.title,
        f"{w.title} gets no connection: {f'{server.title} accepts no more' if server is not None else 'its own pool is used up'}.",
        marks=(*base, over, *_usage(world, mine)),
        inferred=(1 if not refused or server is not None else 2) + (1 if changed else 0),
        caps=(Cap("C", "a setting of the pool was changed"),) if changed else (),
        hits=(w.title, mine.title),
    )


def _pool_server(world: World, w: Workload, said: list[Clue]) -> Workload | None:
    """The server that refuses more connections: the line names it, or it is the only one with a Service that the caller calls."""
    if not world.graph.targets(w.title, Link.CALLS):
        return w if _is_server(world, w) else None
    found_ = _server_of(world, w, said)
    if found_ is not None:
        return found_
    called = [
        o
        for t in world.graph.targets(w.title, Link.CALLS)
        if (s := found(world.scene, "Service", t.partition("/")[2])) is not None
        for o in behind(world, s)
        if o.title != w.title
    ]
    stateful = [o for o in called if o.obj.kind == "StatefulSet"]
    every = list({o.title: o for o in (stateful or called)}.values())
    return every[0] if len(every) == 1 else None


def _usage(world: World, w: Workload) -> tuple[Mark, ...]:
    """A series that shows a pool or a server at its limit."""
    vector = world.metric("pool_usage")
    names = {w.name, *(s.name for s in services_of(world, w))}
    for point in vector.points if vector is not None and not vector.because else ():
        if point.value >= 0.95 and names & set(point.labels.values()):
            assert vector is not None
            return (Mark("metric shows it", (measured(vector, f"pool usage of {w.name}: {point.value:g}"),)),)
    return ()


def _pool_setting(world: World, w: Workload, base: tuple[Mark, ...]) -> Iterator[Candidate]:
    """A setting of the pool's size that a release or an edit changed."""
    hit = introduced(world, w, _pool_values)
    if hit is not None:
        release, mark = released(*hit, "the size of the connection pool changed")
        yield made(
            world,
            Category.BAD_CONFIGURATION,
            w.title,
            f"{w.title} is out of connections since {hit[1].revision.label} changed the size of its pool.",
            marks=(*base, mark),
            inferred=0,
            counterfactual=True,
            change=release,
            hits=(w.title,),
        )
    yield from _edited_maps(world, w, _POOL_SETTING, base, "is out of connections", "sets")


def _pool_values(template: Mapping[str, Any]) -> object:
    spec = mapping(template.get("spec"))
    env = [(word(e.get("name")), word(e.get("value"))) for c in objects(spec.get("containers")) for e in objects(c.get("env"))]
    return sorted((n, v) for n, v in env if _POOL_SETTING.search(n)), sorted(
        t for t in texts(template) if _POOL_SETTING.search(t) and "=" in t
    )


# -- outside ------------------------------------------------------------------------------------------------------------------------------


def _outside(world: World) -> Iterator[Candidate]:
    """Hosts outside the cluster that callers log as unreachable or failing, while everything that they call inside serves."""
    told: dict[str, list[tuple[Workload, Clue]]] = {}
    for w in world.workloads:
        for clue in world.clues(w.pods):
            if clue.sign in (Sign.HOST, Sign.UPSTREAM, Sign.NAME) and (host := _external(world, clue.subject)):
                told.setdefault(host, []).append((w, clue))
    yield from _outside_by_series(world, frozenset(told))
    for host, lines in sorted(told.items()):
        hurt = list({w.title: w for w, _ in lines}.values())
        if any(_leans_on_dead(world, w) for w in hurt):
            continue
        yield from _external_fault(world, host, hurt, [c for _, c in lines])


def _outside_by_series(world: World, known: frozenset[str]) -> Iterator[Candidate]:
    """An alias of the outside about which a client counts mostly errors: a lead where no log says so, since counters go back for ever."""
    vector = world.metric("series")
    if vector is None or vector.because:
        return
    for alias in world.scene.all("Service"):
        host = _external(world, alias.name)
        using = list({c.workload.title: c.workload for c in callers(world, alias.title)}.values())
        if not host or host in known or not using:
            continue
        mine = [p for p in vector.points if {alias.name, host} & {p.labels.get(k, "").lower() for k in _FAR_END}]
        bad = sum(p.value for p in mine if any(_BAD_OUTCOME.fullmatch(p.labels.get(k, "")) for k in _OUTCOME))
        good = sum(p.value for p in mine if any(_GOOD_OUTCOME.fullmatch(p.labels.get(k, "")) for k in _OUTCOME))
        if bad <= 0 or bad < _MANY * (bad + good) or any(_leans_on_dead(world, w) for w in using):
            continue
        names = listed([w.title for w in using])
        told = measured(vector, f"{series_name(mine[0])} for {alias.name}: {bad:g} failed, {good:g} did not")
        yield made(
            world,
            Category.EXTERNAL,
            alias.title,
            f"{host}, outside the cluster, fails {names} ({alias.title} stands for it).",
            marks=(Mark("metric shows it", (told,)), *_probe(world, host)),
            inferred=1,
            caps=(Cap("C", "only a counter says so"),),
            hits=(alias.title, *(w.title for w in using)),
        )


def _external(world: World, subject: str) -> str:
    """The host, if it is outside: an ExternalName Service's name or its target, or a dotted name that is no cluster name; else empty."""
    host = subject.lower().rstrip(".").partition(":")[0]
    service = found(world.scene, "Service", host.partition(".")[0]) if "." not in host or ".svc" in host else None
    if service is not None:
        name = word(mapping(service.raw.get("spec")).get("externalName"))
        return name.lower().rstrip(".") if name and not any(i in f".{name.lower()}" for i in _INSIDE) else ""
    if "." not in host or _ADDRESS.fullmatch(host) or any(host.endswith(i) or f"{i}." in host for i in _INSIDE):
        return ""
    known = world.beside(host.split(".")[1])
    return "" if host.split(".")[1] == world.scene.snapshot.namespace or known is not None else host


def _external_fault(world: World, host: str, hurt: list[Workload], said: list[Clue]) -> Iterator[Candidate]:
    alias = next(
        (s for s in world.scene.all("Service") if word(mapping(s.raw.get("spec")).get("externalName")).lower().rstrip(".") == host), None
    )
    change = edited(alias, "spec", "externalName") if alias is not None else None
    new = next((hit for w in hurt if (hit := introduced(world, w, lambda t: any(host in v.lower() for v in texts(t)))) is not None), None)
    title = alias.title if alias is not None else hurt[0].title
    names = listed([w.title for w in hurt])
    if alias is not None and change is not None:
        yield _renamed(world, alias, host, names, change, said, hurt)
        return
    unresolved = all(c.sign is Sign.NAME for c in said)
    caps: list[Cap] = []
    if new is not None or unresolved:
        caps.append(Cap("C", "the host is new in a setting, or its name is not found: it may be misspelt"))
    yield made(
        world,
        Category.EXTERNAL,
        title,
        f"{host}, outside the cluster, does not answer {names}{f' ({alias.title} stands for it)' if alias is not None else ''}.",
        marks=(*log_marks(said), *_probe(world, host)),
        inferred=1,
        caps=caps,
        hits=tuple(w.title for w in hurt),
    )


def _renamed(
    world: World, alias: KubeObject, host: str, names: str, change: ChangeRef, said: list[Clue], hurt: list[Workload]
) -> Candidate:
    told = seen(world.scene.listing("Service"), f"{alias.title} stands for {host}")
    return made(
        world,
        Category.SERVICE_ROUTING,
        alias.title,
        f"{alias.title} was changed to stand for {host}, which does not answer {names}.",
        marks=(Mark("mechanism likely", (told,)), saw_change(world.scene, alias, change, "externalName"), *log_marks(said)),
        inferred=1,
        change=change,
        hits=(alias.title, *(w.title for w in hurt)),
    )


def _probe(world: World, host: str) -> tuple[Mark, ...]:
    """A prober's own word that the host fails."""
    vector = world.metric("series")
    for point in vector.points if vector is not None and not vector.because else ():
        where = " ".join((point.labels.get("instance", ""), point.labels.get("target", ""), point.labels.get("host", ""))).lower()
        if series_name(point) == "probe_success" and host in where and vector is not None:
            told = measured(vector, f"probe_success of {host}: {point.value:g}")
            return (Mark("metric shows it" if point.value == 0 else "metric speaks against it", (told,)),)
    return ()
