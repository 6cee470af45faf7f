"""Origins in a value that a program reads: a host that is no Service, a port that the Service does not have. The holder is the origin.

What a value names is computed against complete lists. That it is what hurts, the program's own log or a change must show: programs
carry many addresses that they never call. Values go no further than the name of the Service in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..case import Case
from ..changes import Introduced
from ..contrast import Contrast
from ..evidence import Channel, Observation, safe, seen
from ..findings import Finding
from ..graph import Link
from ..hypotheses import Candidate, Cap, Mark
from ..read import listed, mapping, number, objects, sentence, word, words
from ..scene import Scene
from ..specialists.logs import LogReport, Sign
from .common import container_of, release_of
from .timing import Timed, timed_edit

_LIMIT = 16_384
_TOKENS = 2_000
_TEXT = 262_144
MOST_VALUES = 200
MOST_WRONG = 6
_REACHING = (Sign.HOST, Sign.NAME, Sign.UPSTREAM)

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL}){{0,5}}\.?")
_PAIR = re.compile(rf"({_LABEL}(?:\.{_LABEL}){{0,5}})\.?:(\d{{2,5}})")
_URL = re.compile(
    rf"[a-z][a-z0-9+.-]{{1,30}}://(?:[^\s/@'\"]{{0,200}}@)?({_LABEL}(?:\.{_LABEL}){{0,5}})\.?(?::(\d{{1,5}}))?(?=[/?#\s,;'\"\])]|$)"
)
_KEYED = re.compile(
    rf"\b[\w.-]{{0,40}}(?:host|hostname|addr|address|endpoint|upstream|broker|server)s?[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?"
    rf"({_LABEL}(?:\.{_LABEL}){{0,5}})(?::(\d{{2,5}}))?(?=[\"'\s,;/]|$)",
    re.IGNORECASE,
)
_HOSTLIKE = re.compile(
    r"(?:^|[_.-])(?:HOST|HOSTNAME|ADDR|ADDRESS|ENDPOINT|URL|URI|UPSTREAM|BROKERS?|SERVERS?|SERVICE|DSN|TARGET|BACKEND)S?$", re.IGNORECASE
)
_ASKS = re.compile(
    rf"\b(?:nslookup|getent (?:ahosts|hosts)|dig(?: \+\w+)?|ping(?: -\w+(?: \d+)?)*|telnet|nc(?: -\w+(?: \d+)?)*|ncat(?: -\w+)*|"
    rf"(?:pg_isready|psql|mysqladmin|mysql|redis-cli|mongo)\b[^\n;|&]{{0,80}}?\s-?-h(?:ost)?[ =]?|wait-for(?:-it)?(?:\.sh)?)\s{{0,3}}"
    rf"['\"]?({_LABEL}(?:\.{_LABEL}){{0,5}})\.?['\"]?(?:[ :](\d{{2,5}}))?(?=[\s;'\")&|]|$)"
)
_VARIABLE = re.compile(r"\$[({]?([A-Za-z_]\w{0,80})")
_OWN = frozenset({"localhost", "kubernetes", "host", "localhost.localdomain"})
_NOT_A_HOST = frozenset({"file", "jdbc", "true", "false", "none", "null", "http", "https", "tcp", "any", "all", "latest"})


@dataclass(frozen=True)
class Value:
    """One text that a container reads. `holder` is the object that one would edit; `field` where it stands there; `name` its key."""

    holder: str
    field: str
    name: str
    text: str
    command: bool = False
    loose: bool = False


@dataclass(frozen=True)
class Address:
    """A host that a value names, and its port (0: none named)."""

    host: str
    port: int = 0


def values_of(scene: Scene, title: str, spec: Mapping[str, Any], container: str) -> tuple[Value, ...]:
    """What a container of that pod spec reads: its own settings, and the ConfigMaps behind its environment and its mounts. No Secrets."""
    c = container_of({"spec": spec}, container)
    found = [*_own(title, c), *_from_config(scene, c, spec)]
    asked = {m for v in found if v.command for m in _VARIABLE.findall(v.text)}
    return tuple(replace(v, loose=True) if v.name in asked else v for v in _bounded(found))


def _bounded(values: list[Value]) -> Iterator[Value]:
    """As many as can be read in no time: at most 200, and a quarter of a million characters."""
    left = _TEXT
    for v in values[:MOST_VALUES]:
        left -= len(v.text)
        if left < 0:
            return
        yield v


def _own(title: str, c: Mapping[str, Any]) -> Iterator[Value]:
    at = f"container {word(c.get('name'))}"
    lines = [_line(c.get("command")), _line(c.get("args"))]
    if told := " ".join(t for t in lines if t):
        yield Value(title, f"command of {at}", "command", told, command=True)
    hook = mapping(mapping(mapping(c.get("lifecycle")).get("postStart")).get("exec"))
    if told := _line(hook.get("command")):
        yield Value(title, f"postStart hook of {at}", "lifecycle", told, command=True)
    for e in objects(c.get("env")):
        if text := word(e.get("value")):
            yield Value(title, f"env {word(e.get('name'))} of {at}", word(e.get("name")), text)


def _line(value: object) -> str:
    return " ".join(v for v in value[:200] if isinstance(v, str))[:_LIMIT] if isinstance(value, list) else ""


def _from_config(scene: Scene, c: Mapping[str, Any], spec: Mapping[str, Any]) -> Iterator[Value]:
    maps = config_maps(scene)
    for e in objects(c.get("env")):
        ref = mapping(mapping(e.get("valueFrom")).get("configMapKeyRef"))
        name, key = word(ref.get("name")), word(ref.get("key"))
        if text := maps.get(name, {}).get(key):
            yield Value(f"ConfigMap/{name}", f"data[{key}]", word(e.get("name")), text[:_LIMIT])
    for source in objects(c.get("envFrom")):
        name = word(mapping(source.get("configMapRef")).get("name"))
        for key, text in maps.get(name, {}).items():
            yield Value(f"ConfigMap/{name}", f"data[{key}]", word(source.get("prefix")) + key, text[:_LIMIT])
    for name in dict.fromkeys(m for _, m, _ in mounts(c, spec)):
        for key, text in maps.get(name, {}).items():
            yield Value(f"ConfigMap/{name}", f"data[{key}]", key, text[:_LIMIT])


def config_maps(scene: Scene) -> Mapping[str, Mapping[str, str]]:
    """The texts of every ConfigMap, by its name."""
    key = ("config maps", "")
    if key not in scene.memo:
        scene.memo[key] = {o.name: words(o.raw.get("data")) for o in scene.all("ConfigMap")}
    found: Mapping[str, Mapping[str, str]] = scene.memo[key]
    return found


def mounts(c: Mapping[str, Any], spec: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """(path, ConfigMap, whether it is a subPath, which never changes under a running container) of a container's mounts."""
    sources: dict[str, list[str]] = {}
    for volume in objects(spec.get("volumes")):
        for source in (volume, *objects(mapping(volume.get("projected")).get("sources"))):
            if name := word(mapping(source.get("configMap")).get("name")):
                sources.setdefault(word(volume.get("name")), []).append(name)
    for mount in objects(c.get("volumeMounts")):
        for name in sources.get(word(mount.get("name")), ()):
            yield word(mount.get("mountPath")), name, bool(word(mount.get("subPath")) or word(mount.get("subPathExpr")))


# -- addresses ------------------------------------------------------------------------------------------------------------------------


def addresses(value: Value) -> tuple[Address, ...]:
    """The hosts that a value names, each once. Prose names none: a bare word counts only where the key or the command asks for a host."""
    return tuple(dict.fromkeys(_addresses(value)))


def _addresses(value: Value) -> Iterator[Address]:
    text = value.text
    for m in _URL.finditer(text):
        yield _address(m.group(1), m.group(2))
    if value.command:
        for m in _ASKS.finditer(text):
            yield _address(m.group(1), m.group(2))
    elif "\n" in text.strip() or text.lstrip()[:1] in ("{", "["):
        for m in _KEYED.finditer(text):
            if m.group(1).lower() not in _NOT_A_HOST:
                yield _address(m.group(1), m.group(2))
    tokens = [t for t in re.split(r"[\s,;'\"|()<>\[\]{}=&]+", text)[:_TOKENS] if t]
    for token in tokens:
        if pair := _PAIR.fullmatch(token[:300]):
            yield _address(pair.group(1), pair.group(2))
    if not value.command and (value.loose or _HOSTLIKE.search(value.name)) and len(text) < 2000:
        for part in text.split(","):
            token = part.strip()
            if _HOST.fullmatch(token[:300]) and token.lower() not in _NOT_A_HOST:
                yield _address(token, None)


def _address(host: str, port: str | None) -> Address:
    at = int(port) if port else 0
    return Address(host.strip(".").lower(), at if at < 65_536 else 0)


def _is_name(host: str) -> bool:
    return bool(host) and host not in _OWN and not host.replace(".", "").isdigit()


@dataclass(frozen=True)
class Meant:
    """The Service that a host stands for in this cluster. `absent`: a complete list proves that there is none of that name."""

    namespace: str
    name: str
    service: KubeObject | None
    absent: bool

    def title(self, home: str) -> str:
        return f"Service/{self.name}" if self.namespace == home else f"Service/{self.namespace}/{self.name}"


def meant(scene: Scene, host: str) -> Meant | None:
    """None: a host outside the cluster, or one that nothing can be told of."""
    if not _is_name(host):
        return None
    home = scene.snapshot.namespace
    parts = host.removesuffix(".cluster.local").split(".")
    if len(parts) > 1 and parts[-1] == "svc":
        parts = parts[:-1]
        if len(parts) not in (2, 3):
            return None
        return _in_namespace(scene, parts[-2], parts[-1])
    if len(parts) == 1:
        return _in_namespace(scene, parts[0], home)
    if len(parts) == 2:
        if parts[1] == home or any(o.name == parts[1] for o in scene.all("Namespace")):
            return _in_namespace(scene, parts[0], parts[1])
        if _service(scene, parts[1]) is not None:  # db-0.db
            return _in_namespace(scene, parts[1], home)
    return None


def _in_namespace(scene: Scene, name: str, namespace: str) -> Meant | None:
    if namespace == scene.snapshot.namespace:
        service = _service(scene, name)
        return Meant(namespace, name, service, service is None and scene.looked("Service"))
    other = scene.snapshot.beside.get(namespace)
    if other is None:
        gone = scene.looked("Namespace") and bool(scene.all("Namespace")) and all(o.name != namespace for o in scene.all("Namespace"))
        return Meant(namespace, name, None, absent=True) if gone else None
    service = next((o for o in other.all("Service") if o.name == name), None)
    return Meant(namespace, name, service, service is None and other.looked("Service"))


def _service(scene: Scene, name: str) -> KubeObject | None:
    key = ("services", "")
    if key not in scene.memo:
        scene.memo[key] = {o.name: o for o in scene.all("Service")}
    found: dict[str, KubeObject] = scene.memo[key]
    return found.get(name)


def ports_of(service: KubeObject) -> frozenset[int] | None:
    """The ports that a Service offers; None for one without a virtual address of its own, behind which any port may answer."""
    spec = mapping(service.raw.get("spec"))
    if word(spec.get("type")) == "ExternalName" or word(spec.get("clusterIP")) == "None" or not objects(spec.get("ports")):
        return None
    return frozenset(number(p.get("port")) for p in objects(spec.get("ports")))


# -- what is wrong --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrong:
    """A value that names what a complete list does not have. `instead`: what it may have meant, which is there (empty: nothing like it).

    `works`: what it may have meant has ready pods behind it.
    """

    value: Value
    address: Address
    meant: Meant
    port: bool
    instead: str
    works: bool

    def what(self, home: str) -> str:
        """`Service/db has no port 5433`."""
        title = safe(self.meant.title(home), 200)
        return f"{title} has no port {self.address.port}" if self.port else f"{title} does not exist"


def wrong_values(case: Case, spec: Mapping[str, Any], container: str) -> tuple[Wrong, ...]:
    """The values of a container that lead nowhere, each (holder, host, port) once."""
    aliases = _aliases(spec)
    found: dict[tuple[str, str, int], Wrong] = {}
    for value in values_of(case.scene, case.title, spec, container):
        for address in addresses(value):
            if address.host in aliases:
                continue
            if wrong := _judge(case, value, address):
                found.setdefault((value.holder, address.host, address.port), wrong)
    return tuple(found.values())


def _aliases(spec: Mapping[str, Any]) -> frozenset[str]:
    """Names that the pod's own hosts file answers."""
    lists = (a.get("hostnames") for a in objects(spec.get("hostAliases")))
    return frozenset(h.lower() for names in lists if isinstance(names, list) for h in names[:200] if isinstance(h, str))


def _judge(case: Case, value: Value, address: Address) -> Wrong | None:
    target = meant(case.scene, address.host)
    if target is None:
        return None
    if target.absent:
        instead, works = _like(case, target, address.port)
        return Wrong(value, address, target, False, instead, works)
    if target.service is None or not address.port:
        return None
    offered = ports_of(target.service)
    if offered is None or address.port in offered:
        return None
    ready = target.namespace == case.scene.snapshot.namespace and has_ready(case, target.service)
    ports = listed([str(p) for p in sorted(offered)])
    return Wrong(value, address, target, True, f"port {ports} of {target.title(case.scene.snapshot.namespace)}", ready)


def _like(case: Case, target: Meant, port: int) -> tuple[str, bool]:
    """The Service of that namespace whose name is most like it."""
    home = target.namespace == case.scene.snapshot.namespace
    other = case.scene.snapshot.beside.get(target.namespace)
    services = {o.name: o for o in (case.scene.all("Service") if home else other.all("Service") if other else ())}
    near = list(get_close_matches(target.name, sorted(services), n=3, cutoff=0.7))
    near += [n for n in sorted(services) if len(target.name) > 2 and (f"{target.name}-" in f"{n}-" or f"{n}-" in f"{target.name}-")]
    fitting = [n for n in dict.fromkeys(near) if not port or port in (ports_of(services[n]) or {port})]
    if not fitting:
        return "", False
    best = next((n for n in fitting if home and has_ready(case, services[n])), fitting[0])
    title = f"Service/{best}" if home else f"Service/{target.namespace}/{best}"
    return title, home and has_ready(case, services[best])


def has_ready(case: Case, service: KubeObject) -> bool:
    """Whether a pod behind that Service is Ready."""
    key = ("ready pods", "")
    if key not in case.scene.memo:
        case.scene.memo[key] = {f"Pod/{p.name}" for p in case.scene.pods if p.ready and not p.done}
    ready: set[str] = case.scene.memo[key]
    return not ready.isdisjoint(case.graph.targets(service.title, Link.SELECTS))


# -- candidates -----------------------------------------------------------------------------------------------------------------------


def value_origins(case: Case, f: Finding, logs: LogReport, contrast: Contrast, effect: str) -> Iterator[Candidate]:
    """The values of the failing container that lead nowhere. `effect`: what the container does (`exits with code 1`)."""
    spec = f.pods[0].spec if f.pods else f.revision.pod_spec
    told = [_Told(case, f, logs, contrast, effect, w, _named(w, logs)) for w in wrong_values(case, spec, f.container)]
    told.sort(key=lambda t: t.named is None)
    for t in told[:MOST_WRONG]:
        yield from t.candidates()


def _named(w: Wrong, logs: LogReport) -> Observation | None:
    """The log line that names that host as what cannot be reached."""
    spec = mapping(w.meant.service.raw.get("spec")) if w.meant.service else {}
    names = {w.address.host, w.meant.name} | ({word(spec.get("clusterIP"))} if w.port else set())
    for clue in logs.named(*_REACHING):
        host = clue.subject.lower().removesuffix(".cluster.local").removesuffix(".svc")
        if host in names or host == f"{w.meant.name}.{w.meant.namespace}" or clue.subject.lower() in names:
            return clue.seen
    return None


@dataclass(frozen=True)
class _Told:
    """One wrong value of one finding, with the line that names it."""

    case: Case
    f: Finding
    logs: LogReport
    contrast: Contrast
    effect: str
    wrong: Wrong
    named: Observation | None

    def candidates(self) -> Iterator[Candidate]:
        found = self._introduced()
        edit = self._edit()
        changed = found is not None or edit is not None
        if self.contrast.same_revision and edit is None and (self.wrong.port or not self.named):
            return  # pods with the very same value serve; only a name that is gone since need not trouble those that had looked it up
        if not self.named and not changed and (self.logs.read or self._worked()):
            return
        if self._worked() and not changed:
            if not self.wrong.port and self.named:
                yield self._gone()
            return
        yield self._holder(found, edit)

    def _introduced(self) -> Introduced | None:
        """The release that gave the value its present text."""
        if self.wrong.value.holder != self.case.title or not self.case.is_current(self.f):
            return None
        found = self.case.history.brought_in(self._text, needed_to_start=False)
        return found if found and found.previous else None

    def _text(self, template: Mapping[str, Any]) -> object:
        c = container_of(template, self.f.container)
        own = {v.field: v.text for v in _own(self.case.title, c)}
        return own.get(self.wrong.value.field)

    def _edit(self) -> Timed | None:
        kind, _, name = self.wrong.value.holder.partition("/")
        return timed_edit(self.case, self.f, self.contrast, name) if kind == "ConfigMap" else None

    def _worked(self) -> bool:
        """Whether pods ran well with this very value: then what it names was there."""
        history, current = self.case.history, self.case.history.current
        if current is None:
            return False
        if self.wrong.value.holder != self.case.title:
            return history.lasted or any(history.proven(r) for r in history.chain)
        mine = self._text(current.template)
        same = [r for r in history.chain if self._text(r.template) == mine]
        return (history.lasted and current in same) or any(history.proven(r) for r in same)

    def _base(self, category: Category, title: str, statement: str, summary: str) -> Candidate:
        proof = seen(self.case.scene.listing("Service"), self._looked())
        marks = [Mark("leads nowhere", (proof, *self.f.seen[:1]))]
        if self.named:
            marks.append(Mark("log says so", (self.named,)))
        caps = () if self.logs.read else (Cap("C", "no log was read that says whether the program calls it"),)
        return Candidate(
            category,
            title,
            statement,
            summary,
            ChangeRef(kind="None"),
            tuple(marks),
            inferred=0 if self.named else 1,
            counterfactual=self.wrong.works,
            caps=caps,
        )

    def _looked(self) -> str:
        home = self.case.scene.snapshot.namespace
        names = listed(sorted(o.name for o in self.case.scene.all("Service")), 8) if self.wrong.meant.namespace == home else ""
        instead = f"; there is {self.wrong.instead}" if self.wrong.instead else ""
        return f"{self.wrong.what(home)}{instead}" + (f"; Services: {names or 'none'}" if names or not instead else "")

    def _holder(self, found: Introduced | None, edit: Timed | None) -> Candidate:
        w, home = self.wrong, self.case.scene.snapshot.namespace
        instead = f"; there is {w.instead}" if w.instead else ""
        where = safe(f"{w.value.field} of {w.value.holder}", 300)
        what = f"{where} names {safe(w.address.host, 120)}" + (f":{w.address.port}" if w.port else "")
        statement = (
            f"{what}, but {w.what(home)}{instead}; container {self.f.container} of {self.case.title}, which reads it, {self.effect}."
        )
        base = self._base(
            Category.BAD_CONFIGURATION, w.value.holder, statement, f"{sentence(what).rstrip('.')}, but {w.what(home)}{instead}."
        )
        if found and found.previous:
            proof = self.case.saw_release(found, f"{w.value.field} changed")
            marks = [*base.marks, Mark("introduced by this release", (proof,))]
            if self.contrast.separates_revisions:
                marks.append(Mark("previous revision serves", self.case.saw_serving(self.f)))
            release = release_of(self.case, found.revision)
            return replace(
                base,
                summary=f"{release} set {safe(w.value.field, 200)} to {safe(w.address.host, 120)}, but {w.what(home)}{instead}; "
                f"{self.case.praise(found.previous)}.",
                change=self.case.release(found.revision),
                marks=tuple(marks),
                counterfactual=base.counterfactual or self.case.history.proven(found.previous),
                timing=True,
            )
        if edit:
            return replace(base, change=edit.change, marks=(*base.marks, *edit.marks), timing=True, since=edit.at)
        caps = base.caps
        if not w.instead and not w.port:
            caps = (*caps, Cap("B", "nothing tells whether the name is wrong or the Service was never made"))
        return replace(base, marks=(*base.marks, Mark("no change seen")), caps=caps)

    def _gone(self) -> Candidate:
        """The value is as it was while pods worked with it: the Service was there, and is gone."""
        w, home = self.wrong, self.case.scene.snapshot.namespace
        title = w.meant.title(home)
        statement = f"{sentence(w.what(home)).rstrip('.')}; {self.case.title} calls it, has done so before, and {self.effect}."
        base = self._base(Category.SERVICE_ROUTING, title, statement, f"{safe(title, 200)}, which {self.case.name} calls, is gone.")
        ran = next((r for r in self.case.history.chain if self.case.history.proven(r)), None)
        proof = (self.case.saw_health(ran),) if ran else (seen(self.case.scene.listing("Pod"), "it worked before", Channel.CHANGE),)
        return replace(base, change=ChangeRef(kind="Deletion"), marks=(*base.marks, Mark("existed before", proof)), counterfactual=True)
