"""The typed graph of a namespace: who owns, selects, reads, claims, scales or calls whom. Linear in what it is built from.

Objects are spelled `Kind/name`; what lies in another namespace `Kind/namespace/name`; cluster-scoped objects have no namespace either way.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..domain.snapshot import KubeObject, Point, Snapshot
from .read import mapping, number, objects, word, words
from .references import references
from .scene import Scene
from .specialists import logs
from .specialists.logs import Sign
from .views import controller_of

WORKLOAD_KINDS = ("Deployment", "StatefulSet", "DaemonSet", "CronJob", "Job")
# These count as workloads where no controller stands over them.
BARE_KINDS = ("ReplicaSet", "Pod")
DNS_NAMESPACE = "kube-system"
DNS_SERVICE = f"Service/{DNS_NAMESPACE}/kube-dns"
_VALUE_LIMIT = 16_384
_TOKEN_LIMIT = 2_000
_MOST_CLAIMS = 100
_MOST_LOGGED = 200

_SPLIT = re.compile(r"[\s,;'\"`|()<>\[\]{}]+")
_ADDRESS = re.compile(
    r"(?P<key>[A-Za-z0-9_.-]{0,80}[=:])?(?P<scheme>[a-z][a-z0-9+.:-]{1,30}://)?(?P<user>[^/@]{0,200}@)?"
    r"(?P<host>[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?)\.?(?P<port>:\d{1,5})?(?P<rest>[/?#].*)?"
)
_ASKS = frozenset(
    {"nc", "ncat", "nslookup", "getent", "host", "hosts", "dig", "ping", "wait-for", "wait-for-it", "telnet", "pg_isready", "-h"}
)
_IN_LINE = re.compile(r"(?:://|\(|@)([a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?)[.:/)]")
_HOST_NAME = re.compile(r"(.{1,100}[_.-])(?:host|hostname|server|addr|address|service)", re.IGNORECASE)
_BARE = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?")
_HOST_KEY = re.compile(
    r"(?:host|hostname|server|addr|address|url|uri|endpoint|upstream|service|broker|brokers|proxy_pass)s?[=:]?", re.IGNORECASE
)

# Settings whose bare word is a name of something else, though a Service may bear it too (`POSTGRES_DB=orders`).
_OTHER_KEY = re.compile(
    r"(?:user|username|name|db|dbname|database|schema|table|pass|password|login|owner|app|application|role|env|environment|namespace|"
    r"mode|topic|queue|stream|exchange|bucket|index|tenant|team|project|realm|vhost|group|prefix|component|profile|id|stage|region|key)",
    re.IGNORECASE,
)


class Link(Enum):
    """What an edge means, read from source to target."""

    OWNS = "owns"
    SELECTS = "selects"
    FRONTS = "selects the template of"
    READS = "reads"
    CLAIMS = "claims"
    BOUND = "is bound to"
    RUNS_ON = "runs on"
    SCALES = "scales"
    CALLS = "names as a host"
    ROUTES = "routes to"
    USES = "uses"
    GRANTS = "grants rights to"
    GOVERNS = "governs"
    RESOLVES = "resolves names by"


# Links that lead from what shows a symptom on to what may be behind it.
DOWNSTREAM = frozenset(
    {
        Link.SELECTS, Link.FRONTS, Link.READS, Link.CLAIMS, Link.BOUND, Link.RUNS_ON, Link.SCALES, Link.CALLS, Link.ROUTES, Link.USES,
        Link.RESOLVES,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Edge:
    """`source` and `target` are titles; `via` says by which field.

    Of a call: `port` is the port that the value names (0: none), `holder` the object that holds the value (the caller itself, or a
    ConfigMap that it reads), and `via` ends with `:port` where there is one.
    """

    link: Link
    source: str
    target: str
    via: str = ""
    port: int = 0
    holder: str = ""


@dataclass
class Graph:
    """Edges by both ends."""

    out: dict[str, list[Edge]] = field(default_factory=dict)
    into: dict[str, list[Edge]] = field(default_factory=dict)

    def add(self, edge: Edge) -> None:
        self.out.setdefault(edge.source, []).append(edge)
        self.into.setdefault(edge.target, []).append(edge)

    def targets(self, source: str, link: Link) -> tuple[str, ...]:
        return tuple(dict.fromkeys(e.target for e in self.out.get(source, ()) if e.link is link))

    def sources(self, target: str, link: Link) -> tuple[str, ...]:
        return tuple(dict.fromkeys(e.source for e in self.into.get(target, ()) if e.link is link))

    def edges(self, source: str, link: Link) -> tuple[Edge, ...]:
        """Every edge of that link from `source`, in the order in which they were found."""
        return tuple(e for e in self.out.get(source, ()) if e.link is link)

    def callers(self, service: str) -> tuple[Edge, ...]:
        """Calls that name this Service as a host."""
        return tuple(e for e in self.into.get(service, ()) if e.link is Link.CALLS)

    def selected(self, service: str) -> frozenset[str]:
        """Titles of the pods that a Service selects."""
        return frozenset(self.targets(service, Link.SELECTS))

    def root(self, title: str) -> str:
        """The owner of the owner …; owners that go in a circle end at the first one seen twice."""
        seen = {title}
        while owners := self.sources(title, Link.OWNS):
            if owners[0] in seen:
                break
            title = owners[0]
            seen.add(title)
        return title


def paths(graph: Graph, start: str, most: int = 5_000) -> Mapping[str, tuple[Edge, ...]]:
    """For every object downstream of `start` (at most that many) its shortest path; `start` itself has an empty one.

    A pod leads on to the workload that owns it, and a workload to its pods; the edge that goes up is told as the owner's.
    """
    came: dict[str, Edge | None] = {start: None}
    queue = deque([start])
    while queue and len(came) < most:
        here = queue.popleft()
        for there, edge in _onward(graph, here):
            if there not in came:
                came[there] = edge
                queue.append(there)
    found: dict[str, tuple[Edge, ...]] = {}
    for title, last in came.items():
        found[title] = (*found[_near(last, title)], last) if last is not None else ()
    return found


def path(graph: Graph, start: str, goals: Iterable[str]) -> tuple[Edge, ...] | None:
    """The shortest typed path from a symptom to any of the goals; None when nothing leads there."""
    reached = paths(graph, start)
    ways = [reached[g] for g in dict.fromkeys(goals) if g in reached]
    return min(ways, key=len) if ways else None


def _near(edge: Edge, far: str) -> str:
    """The end of the edge that is not `far`."""
    return edge.source if edge.target == far else edge.target


def _onward(graph: Graph, here: str) -> Iterator[tuple[str, Edge]]:
    for edge in graph.out.get(here, ()):
        if edge.link in DOWNSTREAM or edge.link is Link.OWNS:
            yield edge.target, edge
    for edge in graph.into.get(here, ()):
        if edge.link is Link.OWNS and edge.source != here:
            yield edge.source, edge


def build(scene: Scene) -> Graph:
    """The graph of everything that the snapshot holds."""
    graph = Graph()
    parts = (_owners, _pods, _selectors, _templates, _scalers, _calls, _routes, _storage, _governors, _webhooks, _beside)
    for part in parts:
        for edge in part(scene):
            graph.add(edge)
    return graph


def _owners(scene: Scene) -> Iterator[Edge]:
    for kind in ("Pod", "ReplicaSet", *WORKLOAD_KINDS):
        for obj in scene.all(kind):
            _, owner_kind, owner = controller_of(obj)
            if owner and owner_kind != "Node":  # (a static pod is its node's; for a path the node is where it runs)
                yield Edge(Link.OWNS, f"{owner_kind}/{owner}", obj.title)


def _pods(scene: Scene) -> Iterator[Edge]:
    return (Edge(Link.RUNS_ON, f"Pod/{p.name}", f"Node/{p.node}") for p in scene.pods if p.node)


class _Labels:
    """What carries which label pair, so that a thousand pods times many selectors stay linear in the matches."""

    def __init__(self, labelled: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        self.titles: list[str] = []
        self._by_pair: dict[tuple[str, str], set[int]] = {}
        for i, (title, labels) in enumerate(labelled):
            self.titles.append(title)
            for pair in labels.items():
                self._by_pair.setdefault(pair, set()).add(i)

    def matching(self, wanted: Mapping[str, str]) -> list[str]:
        """Titles that carry all of these pairs; of no pairs: all."""
        if not wanted:
            return list(self.titles)
        sets = sorted((self._by_pair.get(pair, set()) for pair in wanted.items()), key=len)
        return [self.titles[i] for i in sorted(set.intersection(*sets))]


def _selectors(scene: Scene) -> Iterator[Edge]:
    """Service → pods, and Service → workloads whose template it would select, which holds where there are no pods."""
    pods = _Labels((f"Pod/{p.name}", p.labels) for p in scene.pods)
    templates = _Labels((obj.title, labels_of(obj)) for obj, _ in workloads(scene) if obj.kind != "Pod")
    for service in scene.all("Service"):
        wanted = words(mapping(service.raw.get("spec")).get("selector"))
        if wanted:
            yield from (Edge(Link.SELECTS, service.title, t) for t in pods.matching(wanted))
            yield from (Edge(Link.FRONTS, service.title, t) for t in templates.matching(wanted))


def template_of(obj: KubeObject) -> Mapping[str, Any]:
    """The pod template of a workload; of a Pod the pod itself."""
    spec = mapping(obj.raw.get("spec"))
    if obj.kind == "Pod":
        return obj.raw
    if obj.kind == "CronJob":
        spec = mapping(mapping(spec.get("jobTemplate")).get("spec"))
    return mapping(spec.get("template"))


def labels_of(obj: KubeObject) -> dict[str, str]:
    """The labels that a workload's pods get."""
    return words(mapping(template_of(obj).get("metadata")).get("labels"))


def workloads(scene: Scene) -> Iterator[tuple[KubeObject, Mapping[str, Any]]]:
    """Every workload with its pod spec; a ReplicaSet or a Pod only where no controller stands over it."""
    for kind in (*WORKLOAD_KINDS, *BARE_KINDS):
        for obj in scene.all(kind):
            if kind in BARE_KINDS and controller_of(obj)[2]:
                continue
            yield obj, mapping(template_of(obj).get("spec"))


def _templates(scene: Scene) -> Iterator[Edge]:
    """What a template reads, claims and uses."""
    for obj, spec in workloads(scene):
        for ref in references(spec):
            link = Link.CLAIMS if ref.kind == "PersistentVolumeClaim" else Link.READS
            yield Edge(link, obj.title, ref.title, ref.path)
        yield Edge(Link.USES, obj.title, f"ServiceAccount/{account_of(spec)}", "spec.serviceAccountName")
        for key, kind in (("priorityClassName", "PriorityClass"), ("runtimeClassName", "RuntimeClass")):
            if name := word(spec.get(key)):
                yield Edge(Link.USES, obj.title, f"{kind}/{name}", f"spec.{key}")
        for secret in objects(spec.get("imagePullSecrets")):
            if name := word(secret.get("name")):
                yield Edge(Link.USES, obj.title, f"Secret/{name}", "spec.imagePullSecrets")


def account_of(spec: Mapping[str, Any]) -> str:
    """The ServiceAccount that pods of this spec run as."""
    return word(spec.get("serviceAccountName")) or word(spec.get("serviceAccount")) or "default"


def _scalers(scene: Scene) -> Iterator[Edge]:
    for hpa in scene.all("HorizontalPodAutoscaler"):
        target = mapping(mapping(hpa.raw.get("spec")).get("scaleTargetRef"))
        yield Edge(Link.SCALES, hpa.title, f"{word(target.get('kind'))}/{word(target.get('name'))}")


# -- calls ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Host:
    """A host that a value names: the Service and its namespace (empty: the caller's own), the port (0: none named)."""

    service: str
    namespace: str
    port: int

    def title(self, home: str) -> str:
        """The Service's title, seen from that namespace."""
        return f"Service/{self.service}" if self.namespace in ("", home) else f"Service/{self.namespace}/{self.service}"


def _calls(scene: Scene) -> Iterator[Edge]:
    """Workloads whose environment, arguments, or a ConfigMap that they read, names a Service as a host. The values go no further."""
    services, home = frozenset(s.name for s in scene.all("Service")), scene.snapshot.namespace
    likely = frozenset(o.name for kind in ("Deployment", "StatefulSet") for o in scene.all(kind) if scene.looked("Service"))
    config = {c.name: words(c.raw.get("data")) for c in scene.all("ConfigMap")}
    memo: dict[tuple[str, str], tuple[Host, ...]] = {}
    named = _named_by_logs(scene, services)
    traced = _traced(scene, services)
    for obj, spec in workloads(scene):
        found: dict[tuple[str, int], Edge] = {}
        for holder, key, via, value in _values(obj.title, spec, config):
            where = (holder, key)
            if holder == obj.title or where not in memo:
                last = re.split(r"[^A-Za-z0-9]", key)[-1]
                asked, other = bool(_HOST_KEY.fullmatch(last)), bool(_OTHER_KEY.fullmatch(last))
                memo[where] = tuple(hosts(value, services, home, likely, asked=asked, other=other))
            for h in memo[where]:
                if h.service == obj.name and h.service not in services:
                    continue  # (a program that knows its own name)
                told = f"{via}:{h.port}" if h.port else via
                found.setdefault((h.title(home), h.port), Edge(Link.CALLS, obj.title, h.title(home), told, h.port, holder))
        known = {title for title, _ in found}
        for service, via in (*named.get(obj.title, ()), *traced.get(obj.name, ())):
            if f"Service/{service}" not in known:
                found.setdefault((f"Service/{service}", 0), Edge(Link.CALLS, obj.title, f"Service/{service}", via))
        for _, edge in sorted(found.items()):
            yield edge
        if found and word(spec.get("dnsPolicy")) not in ("Default", "None"):
            yield Edge(Link.RESOLVES, obj.title, DNS_SERVICE)


def _values(title: str, spec: Mapping[str, Any], config: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str, str, str]]:
    """(holder, key in it, field, value) for everything that a template sets itself or takes from a ConfigMap."""
    for group in ("initContainers", "containers"):
        for c in objects(spec.get(group)):
            at = f"spec.{group}[{word(c.get('name'))}]"
            plain = {word(e.get("name")): word(e.get("value")) for e in objects(c.get("env"))}
            for name, value in plain.items():
                yield title, f"{at} {name}", f"{at}.env[{name}]", _with_port(name, value, plain)
            for part in ("command", "args"):
                line = c.get(part)
                if isinstance(line, list):
                    yield title, at + part, f"{at}.{part}", " ".join(word(a) for a in line[:200])
            for probe in ("lifecycle",):
                action = mapping(mapping(mapping(c.get(probe)).get("postStart")).get("exec")).get("command")
                if isinstance(action, list):
                    yield title, at + probe, f"{at}.{probe}", " ".join(word(a) for a in action[:200])
    seen: set[tuple[str, str]] = set()
    for ref in references(spec):
        if ref.kind == "ConfigMap":
            for key, value in config.get(ref.name, {}).items():
                if (not ref.key or key == ref.key) and (ref.name, key) not in seen:
                    seen.add((ref.name, key))
                    yield ref.title, key, f"{ref.title} data[{key}]", _with_port(key, value, config[ref.name])


def _with_port(name: str, value: str, others: Mapping[str, str]) -> str:
    """A host with the port that a setting beside it gives (`DB_HOST` and `DB_PORT`); the value itself where there is none."""
    match = _HOST_NAME.fullmatch(name)
    if match is None or not _BARE.fullmatch(value):
        return value
    ports = (others.get(f"{match[1]}{key}", "").strip() for key in ("PORT", "port", "Port"))
    port = next((p for p in ports if p.isdigit() and len(p) < 6), "")
    return f"{value}:{port}" if port else value


def hosts(
    value: str, services: frozenset[str], home: str, likely: frozenset[str] = frozenset(), *, asked: bool = False, other: bool = False
) -> Iterator[Host]:
    """Services that a value names as a host: alone, as `host:port`, in an address, or as a cluster name (`name.namespace.svc`).

    In a longer text a bare word counts only after something that asks for a host (`host: db`, `nc -z db 5432`): prose names nothing.
    `likely` are names that a Service may have had (those of workloads): they count only in an address, after `host:port`, or where the
    value's own name asks for a host (`asked`). `other`: that name asks for something else (a user, a database), so a bare word is none.
    """
    tokens = [t for t in _SPLIT.split(value[:_VALUE_LIMIT]) if t][:_TOKEN_LIMIT]
    for i, token in enumerate(tokens):
        match = _ADDRESS.fullmatch(token[:500].removeprefix("--").removeprefix("@tcp"))
        if match is None:
            continue
        port = int(match["port"][1:]) if match["port"] else 0
        key = match["key"] or ""
        parts = match["host"].split(".")
        if not match["scheme"] and not match["port"] and key.endswith(":") and match["host"].isdigit():
            parts, port, key = key[:-1].split("."), int(match["host"]), ""  # `db:5432` reads as a key with a number for its value
        plain = not match["scheme"] and not match["user"] and not port and len(parts) == 1
        if plain and (other or not (len(tokens) == 1 or _asked_for(tokens, i, key))):
            continue
        if not port and i + 1 < len(tokens) and tokens[i + 1].isdigit() and _asked_for(tokens, i, key):
            port = min(int(tokens[i + 1][:6]), 65_536)
        sure = bool(match["scheme"] or match["user"] or port) or asked or bool(_HOST_KEY.search(key))
        if found := _host(parts, port if port < 65_536 else 0, services | likely if sure else services, home):
            yield found


def _host(parts: list[str], port: int, services: frozenset[str], home: str) -> Host | None:
    """The Service that a name stands for. `a.b.svc…` is one whether or not it is there; anything shorter must be known."""
    name, more = parts[0].lower(), [p.lower() for p in parts[1:]]
    if len(more) >= 2 and more[1] == "svc" and more[2:] in ([], ["cluster"], ["cluster", "local"]):
        return Host(name, "" if more[0] == home else more[0], port)
    if len(more) >= 3 and more[2] == "svc":  # pod-0.headless.namespace.svc
        return Host(more[0], "" if more[1] == home else more[1], port)
    if name in services and (not more or more == [home]):
        return Host(name, "", port)
    return None


def _asked_for(tokens: list[str], i: int, key: str) -> bool:
    """Whether the words before a bare name ask for a host."""
    if key and (_HOST_KEY.search(key) or key.endswith("=")):
        return True
    before = [t.lower().rpartition("/")[2] for t in tokens[max(0, i - 3) : i]]
    if not before:
        return i == 0 and len(tokens) > 1 and tokens[1].isdigit()
    return bool(_HOST_KEY.fullmatch(before[-1].rpartition(".")[2].rpartition("_")[2])) or any(b in _ASKS for b in before)


def _named_by_logs(scene: Scene, services: frozenset[str]) -> dict[str, list[tuple[str, str]]]:
    """Services that the logs of a workload's pods name as a host, by the workload's title. A line only connects; it proves no fault."""
    owner = {p.name: p for p in scene.pods}
    by_root: dict[str, set[str]] = {}
    sets = {o.title: controller_of(o) for kind in ("ReplicaSet", "Job") for o in scene.all(kind)}
    raw = {o.name: controller_of(o) for o in scene.all("Pod")}
    for key in sorted({k.pod for k in scene.snapshot.logs})[:_MOST_LOGGED]:
        if key in owner:
            _, kind, name = raw.get(key, ("", "", ""))
            root = f"{kind}/{name}" if name else f"Pod/{key}"
            _, above, upper = sets.get(root, ("", "", ""))
            by_root.setdefault(f"{above}/{upper}" if upper else root, set()).add(key)
    found: dict[str, list[tuple[str, str]]] = {}
    for root, pods in by_root.items():
        for clue in logs.clues_of(scene.snapshot.logs, frozenset(pods)):
            if clue.sign not in (Sign.HOST, Sign.NAME, Sign.UPSTREAM, Sign.CREDENTIALS, Sign.CERTIFICATE, Sign.POOL):
                continue
            name = clue.subject.lower().partition(".")[0].partition(":")[0]
            beside = (m[1] for m in _IN_LINE.finditer(clue.seen.text.lower()))
            named = name in services and clue.sign not in (Sign.CREDENTIALS, Sign.POOL)  # (of these the subject may be a user)
            if told := (name if named else next((n for n in beside if n in services), "")):
                found.setdefault(root, []).append((told, "a line of its log"))
    return found


def series_name(point: Point) -> str:
    """The name of the series that a point is of: in the label `series` of what is asked by pattern, else in `__name__`."""
    return point.labels.get("series") or point.labels.get("__name__", "")


def _traced(scene: Scene, services: frozenset[str]) -> dict[str, list[tuple[str, str]]]:
    """Calls that series of a tracing pipeline or of a mesh show, by the caller's name."""
    found: dict[str, list[tuple[str, str]]] = {}
    for question in ("calls", "series"):
        vector = scene.snapshot.metrics.get(question)
        for point in vector.points if vector is not None and not vector.because else ():
            name = series_name(point)
            if question == "calls" or name.startswith("traces_service_graph_request"):
                caller, callee = point.labels.get("client", ""), point.labels.get("server", "")
            elif name.startswith("istio_requests"):
                caller, callee = point.labels.get("source_workload", ""), point.labels.get("destination_service_name", "")
            else:
                continue
            if caller and callee in services:
                found.setdefault(caller, []).append((callee, f"series {name[:80] or question}"))
    return found


# -- routes, volumes, governors, other namespaces -----------------------------------------------------------------------------------------


def backends(ingress: KubeObject) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(host, path, backend) of every rule of an Ingress, then its default backend; a backend that is no Service has no `service`."""
    spec = mapping(ingress.raw.get("spec"))
    for rule in objects(spec.get("rules")):
        for p in objects(mapping(rule.get("http")).get("paths")):
            yield word(rule.get("host")), word(p.get("path")) or "/", mapping(p.get("backend"))
    if default := mapping(spec.get("defaultBackend")):
        yield "", "", default


def _routes(scene: Scene) -> Iterator[Edge]:
    for ingress in scene.all("Ingress"):
        spec = mapping(ingress.raw.get("spec"))
        for host, at, backend in backends(ingress):
            if name := word(mapping(backend.get("service")).get("name")):
                yield Edge(Link.ROUTES, ingress.title, f"Service/{name}", f"{host or '*'}{at}" if at else "spec.defaultBackend")
        for tls in objects(spec.get("tls")):
            if secret := word(tls.get("secretName")):
                yield Edge(Link.USES, ingress.title, f"Secret/{secret}", "spec.tls")
        if name := word(spec.get("ingressClassName")):
            yield Edge(Link.USES, ingress.title, f"IngressClass/{name}", "spec.ingressClassName")
    for route in scene.all("HTTPRoute"):
        spec = mapping(route.raw.get("spec"))
        for rule in objects(spec.get("rules")):
            for ref in objects(rule.get("backendRefs")):
                name, namespace = word(ref.get("name")), word(ref.get("namespace"))
                if name and word(ref.get("kind")) in ("", "Service"):
                    yield Edge(Link.ROUTES, route.title, Host(name, namespace, 0).title(scene.snapshot.namespace), "spec.rules.backendRefs")
        for parent in objects(spec.get("parentRefs")):
            yield Edge(Link.USES, route.title, f"{word(parent.get('kind')) or 'Gateway'}/{word(parent.get('name'))}", "spec.parentRefs")


def _storage(scene: Scene) -> Iterator[Edge]:
    """StatefulSet → claims of its template; claim → volume → class."""
    for obj in scene.all("StatefulSet"):
        spec = mapping(obj.raw.get("spec"))
        for claim in objects(spec.get("volumeClaimTemplates")):
            name = word(mapping(claim.get("metadata")).get("name"))
            for i in range(min(max(0, number(spec.get("replicas"), 1)), _MOST_CLAIMS)):
                yield Edge(Link.CLAIMS, obj.title, f"PersistentVolumeClaim/{name}-{obj.name}-{i}", "spec.volumeClaimTemplates")
    for kind in ("PersistentVolumeClaim", "PersistentVolume"):
        for obj in scene.all(kind):
            spec = mapping(obj.raw.get("spec"))
            if kind == "PersistentVolumeClaim" and (volume := word(spec.get("volumeName"))):
                yield Edge(Link.BOUND, obj.title, f"PersistentVolume/{volume}", "spec.volumeName")
            if name := word(spec.get("storageClassName")):
                yield Edge(Link.USES, obj.title, f"StorageClass/{name}", "spec.storageClassName")


def selects(selector: object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (`matchLabels`, `matchExpressions`) matches these labels. An empty one matches everything."""
    if any(labels.get(k) != v for k, v in words(mapping(selector).get("matchLabels")).items()):
        return False
    return all(_holds(e, labels) for e in objects(mapping(selector).get("matchExpressions")))


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator = word(expression.get("key")), word(expression.get("operator"))
    given = expression.get("values")
    values = [v for v in given if isinstance(v, str)] if isinstance(given, list) else []
    if operator == "In":
        return key in labels and labels[key] in values
    if operator == "NotIn":
        return key not in labels or labels[key] not in values
    return key in labels if operator == "Exists" else key not in labels if operator == "DoesNotExist" else False


def _governors(scene: Scene) -> Iterator[Edge]:
    """Policies and budgets → the workloads whose pods they select; quotas and limits → the namespace; bindings → accounts."""
    templates = {obj.title: labels_of(obj) for obj, _ in workloads(scene)}
    index = _Labels(templates.items())
    for kind, part in (("NetworkPolicy", "podSelector"), ("PodDisruptionBudget", "selector")):
        for obj in scene.all(kind):
            selector = mapping(mapping(obj.raw.get("spec")).get(part))
            for title in index.matching(words(selector.get("matchLabels"))):
                if selects(selector, templates[title]):
                    yield Edge(Link.GOVERNS, obj.title, title, f"spec.{part}")
    for kind in ("ResourceQuota", "LimitRange"):
        for obj in scene.all(kind):
            yield Edge(Link.GOVERNS, obj.title, f"Namespace/{scene.snapshot.namespace}")
    for kind in ("RoleBinding", "ClusterRoleBinding"):
        for obj in scene.all(kind):
            ref = mapping(obj.raw.get("roleRef"))
            if role := word(ref.get("name")):
                yield Edge(Link.USES, obj.title, f"{word(ref.get('kind'))}/{role}", "roleRef")
            for subject in objects(obj.raw.get("subjects")):
                if word(subject.get("kind")) == "ServiceAccount" and word(subject.get("namespace")) == scene.snapshot.namespace:
                    yield Edge(Link.GRANTS, obj.title, f"ServiceAccount/{word(subject.get('name'))}", "subjects")


def _webhooks(scene: Scene) -> Iterator[Edge]:
    """Webhook configurations → this namespace where they select it, and → the Service behind them."""
    home = scene.snapshot.namespace
    own = next((o for o in scene.all("Namespace") if o.name == home), None)
    labels = {"kubernetes.io/metadata.name": home, **(own.labels if own else {})}
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        for obj in scene.all(kind):
            for hook in objects(obj.raw.get("webhooks")):
                if selects(hook.get("namespaceSelector"), labels):
                    yield Edge(Link.GOVERNS, obj.title, f"Namespace/{home}", f"webhook {word(hook.get('name'))[:120]}")
                service = mapping(mapping(hook.get("clientConfig")).get("service"))
                if name := word(service.get("name")):
                    yield Edge(Link.USES, obj.title, Host(name, word(service.get("namespace")), 0).title(home), "clientConfig.service")
    for obj in scene.all("APIService"):
        service = mapping(mapping(obj.raw.get("spec")).get("service"))
        if name := word(service.get("name")):
            yield Edge(Link.USES, obj.title, Host(name, word(service.get("namespace")), 0).title(home), "spec.service")


def _beside(scene: Scene) -> Iterator[Edge]:
    """What stands behind the Services of other namespaces, as far as the snapshot holds them."""
    for namespace, other in sorted(scene.snapshot.beside.items()):
        if namespace != scene.snapshot.namespace:
            yield from _elsewhere(namespace, other)


def _elsewhere(namespace: str, other: Snapshot) -> Iterator[Edge]:
    found = [o for kind in ("Deployment", "StatefulSet", "DaemonSet") for o in other.all(kind) if isinstance(o.raw, Mapping)]
    index = _Labels((f"{o.kind}/{namespace}/{o.name}", labels_of(o)) for o in found)
    for service in other.all("Service"):
        selector = words(mapping(mapping(service.raw).get("spec")).get("selector"))
        for title in index.matching(selector) if selector else ():
            yield Edge(Link.FRONTS, f"Service/{namespace}/{service.name}", title)
    for obj in found:
        for ref in references(mapping(template_of(obj).get("spec"))):
            if ref.kind == "ConfigMap":
                yield Edge(Link.READS, f"{obj.kind}/{namespace}/{obj.name}", f"ConfigMap/{namespace}/{ref.name}", ref.path)
