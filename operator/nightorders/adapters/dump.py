"""`ClusterReader` over files: what `kubectl get … -o json|yaml` printed, a `kubectl cluster-info dump`, and logs.

    DIR/**/*.json, *.yaml, *.yml                         objects and Lists, Events among them
    DIR/**/logs/<namespace>/<pod>/<container>.log        a container's log; <container>.previous.log that of its previous run
    DIR/**/<namespace>/<pod>/logs.txt                    logs as `kubectl cluster-info dump --output-directory` writes them

A kind is complete where a List of it covers the namespace; single objects are there, but their absence proves nothing. A file that
cannot be used is one problem each, and costs no other file.
"""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ..api.meta import line
from ..domain.snapshot import Absent, KubeObject, Listing, LogExcerpt, LogKey, NotLooked, parse_time
from ..ports import ObjectKey, PermanentError
from .kube.resources import KNOWN

FILE_LIMIT = 256 * 1024 * 1024  # bytes
LOG_LIMIT = 256 * 1024  # bytes of a log that are looked at: its end
FILES_LIMIT = 20_000
_LINE_LIMIT = 1024
_NOT_THERE = "not in the files: no List of it is there"
_START = re.compile(r"==== START logs for container (\S{1,253}) of pod (\S{1,253})/(\S{1,253}) ====")
_END = re.compile(r"==== END logs for container ")
# Keys under which the API writes when something was; dates of certificates and schedules are none of them.
_TIMES = frozenset(
    {
        "time",
        "creationTimestamp",
        "lastTransitionTime",
        "lastHeartbeatTime",
        "lastUpdateTime",
        "lastTimestamp",
        "firstTimestamp",
        "eventTime",
        "startedAt",
        "finishedAt",
        "startTime",
        "renewTime",
        "lastObservedTime",
        "lastScheduleTime",
        "completionTime",
    }
)
_PLURALS: Mapping[str, tuple[str, str]] = {r.plural: (r.api_version, r.kind) for r in KNOWN.values()}


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used, or only in part."""

    file: str
    because: str


@dataclass
class _Kind:
    """What the files hold of one kind. `lists`: for each List, its file and the namespaces of its objects."""

    objects: list[KubeObject] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    lists: list[tuple[str, frozenset[str]]] = field(default_factory=list)


class DumpReader:
    """Implements `ClusterReader`. `redact` sees every log before anything else does. Raises PermanentError where DIR is no directory."""

    def __init__(self, root: Path, *, redact: Callable[[str], str]) -> None:
        if not root.is_dir():
            raise PermanentError(f"{root} is no directory")
        self._root = root
        self._redact = redact
        self._kinds: dict[str, _Kind] = {}
        self._logs: dict[tuple[str, LogKey], tuple[Path, str]] = {}
        self.problems: list[Problem] = []
        self.newest: datetime | None = None
        self.at: datetime | None = None
        self._read()

    @cached_property
    def namespaces(self) -> tuple[str, ...]:
        """Namespaces that the objects name, sorted."""
        return tuple(sorted({o.namespace for k in self._kinds.values() for o in k.objects if o.namespace}))

    @property
    def moment(self) -> datetime | None:
        """The time of the snapshot: as it was set, else the newest time in the files."""
        return self.at or self.newest

    # ------------------------------------------------------------ the port

    async def get(self, key: ObjectKey) -> KubeObject | Absent | NotLooked:
        """The object of that name."""
        listing = await self.list(key.api_version, key.kind, key.namespace or None)
        if (found := listing.by_name.get(key.name)) is not None:
            return found
        title = f"{key.kind}/{key.name}"
        return Absent(title, listing.query, listing.at) if listing.complete else NotLooked(title, listing.because)

    async def list(self, api_version: str, kind: str, namespace: str | None) -> Listing:
        """All objects of that kind in the namespace (None, or a kind that lives in none: in all of the files)."""
        at = self._moment()
        known = self._kinds.get(kind)
        if known is None:
            return Listing(kind, f"{kind} objects in the files", at, because=_NOT_THERE)
        resource = KNOWN.get((api_version, kind))
        scoped = namespace if resource is None or resource.namespaced else None
        mine = tuple(o for o in known.objects if not scoped or o.namespace == scoped)
        query = f"{kind} objects in {', '.join(known.files[:3])}" + (
            f" and {len(known.files) - 3} more files" if len(known.files) > 3 else ""
        )
        complete = any(_covers(file, seen, scoped, self._others(scoped)) for file, seen in known.lists)
        return Listing(kind, line(query), at, mine, because="" if complete else _NOT_THERE)

    async def count(self, api_version: str, kind: str) -> int | None:
        """How many there are, where a List says so."""
        listing = await self.list(api_version, kind, None)
        return len(listing.objects) if listing.complete else None

    async def logs(self, namespace: str, key: LogKey, *, lines: int) -> LogExcerpt:
        """The last lines, redacted."""
        found = self._logs.get((namespace, key))
        query = f"log of {key.pod}/{key.container}" + (" (previous run)" if key.previous else "")
        if found is None:
            return LogExcerpt(key, query, self._moment(), because="not in the files")
        path, section = found
        try:
            content = _tail(path, section)
            redacted = self._redact(content.decode("utf-8", "replace"))
        except OSError as error:
            return LogExcerpt(key, query, self._moment(), because=f"failed: {error.strerror}")
        told = (line(text, _LINE_LIMIT) for text in redacted.split("\n"))
        return LogExcerpt(key, f"file {self._name(path)}", self._moment(), tuple(t for t in told if t)[-lines:])

    def watch(self, api_version: str, kind: str) -> AsyncIterator[tuple[str, KubeObject]]:
        """Files do not change."""
        raise PermanentError(f"{kind} in {api_version} cannot be watched in files")

    # ------------------------------------------------------------ reading

    def _moment(self) -> datetime:
        moment = self.moment
        if moment is None:
            raise PermanentError("no object in the files carries a time; say when they were taken: --at 2026-03-01T12:00:00Z")
        return moment

    def _others(self, namespace: str | None) -> frozenset[str]:
        """Every other namespace that the files know of."""
        usual = ("default", "kube-system", "kube-public", "kube-node-lease")
        return frozenset({*self.namespaces, *usual} - {namespace or ""})

    def _name(self, path: Path) -> str:
        return line(str(path.relative_to(self._root)), 300)

    def _problem(self, path: Path, because: str) -> None:
        self.problems.append(Problem(self._name(path), line(because, 300)))

    def _read(self) -> None:
        files = sorted(p for p in self._root.rglob("*") if p.is_file())
        if len(files) > FILES_LIMIT:
            self.problems.append(Problem("(all)", f"only the first {FILES_LIMIT} of {len(files)} files were read"))
        for path in files[:FILES_LIMIT]:
            if path.suffix in (".json", ".yaml", ".yml"):
                self._read_objects(path)
            elif path.suffix == ".log" or path.name == "logs.txt":
                self._read_log(path)

    def _read_objects(self, path: Path) -> None:
        try:
            if path.stat().st_size > FILE_LIMIT:
                self._problem(path, f"larger than {FILE_LIMIT >> 20} MiB; not read")
                return
            text = path.read_bytes().decode("utf-8", "replace")
            documents = [json.loads(text)] if path.suffix == ".json" else _yaml(text)
        except OSError as error:
            self._problem(path, f"cannot be read: {error.strerror}")
            return
        except RecursionError:
            self._problem(path, "nested too deeply; not read")
            return
        except (ValueError, yaml.YAMLError) as error:
            self._problem(
                path,
                f"no {'JSON' if path.suffix == '.json' else 'YAML'}, or cut off: {str(error).splitlines()[0] if str(error) else 'unreadable'}",
            )
            return
        found = sum(self._take(path, d) for d in documents)
        if not found:
            self._problem(path, "holds no Kubernetes object: apiVersion, kind and metadata.name are missing")

    def _take(self, path: Path, document: object) -> int:
        """Adds what a document holds; returns how much that is (an empty List counts)."""
        if not isinstance(document, Mapping):
            return 0
        kind, version = document.get("kind"), document.get("apiVersion")
        items = document.get("items")
        if isinstance(kind, str) and kind.endswith("List") and (isinstance(items, list) or items is None) and "items" in document:
            return self._take_list(path, kind, version if isinstance(version, str) else "", items or [])
        return self._add(path, document, str(kind or ""), str(version or ""))

    def _take_list(self, path: Path, kind: str, version: str, items: builtins.list[Any]) -> int:
        """A List. Of `List` itself the kinds are those of its items; of an empty one, what its file is named after."""
        single = kind.removesuffix("List")
        kinds: dict[str, set[str]] = {single: set()} if single else {}
        if not items and not single:
            hinted = _PLURALS.get(path.stem.lower())
            kinds = {hinted[1]: set()} if hinted else {}
        for item in items:
            if not isinstance(item, Mapping):
                continue
            own = item.get("kind") if isinstance(item.get("kind"), str) else single
            if own and self._add(path, item, str(own), str(item.get("apiVersion") or version)) and own != "Secret":
                kinds.setdefault(str(own), set()).add(self._kinds[str(own)].objects[-1].namespace)
        for name, namespaces in kinds.items():
            entry = self._kinds.setdefault(name, _Kind())
            entry.lists.append((self._name(path), frozenset(namespaces)))
            if self._name(path) not in entry.files:
                entry.files.append(self._name(path))
        return max(1, len(items))

    def _add(self, path: Path, raw: Mapping[str, Any], kind: str, version: str) -> int:
        metadata = raw.get("metadata")
        if not kind or not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str):
            return 0
        if kind == "Secret":
            return 1  # it counts as an object, and is looked at no further: its values are nobody's business here
        entry = self._kinds.setdefault(kind, _Kind())
        name = self._name(path)
        known = next((v for v, k in ((r.api_version, r.kind) for r in KNOWN.values()) if k == kind), version)
        entry.objects.append(KubeObject(raw, kind, version or known))
        if name not in entry.files:
            entry.files.append(name)
        newest = max(_times(raw), default=None)
        if newest is not None and (self.newest is None or newest > self.newest):
            self.newest = newest
        return 1

    def _read_log(self, path: Path) -> None:
        parts = path.relative_to(self._root).parts
        if path.suffix == ".log" and len(parts) >= 4 and parts[-4] == "logs":
            container, previous = path.stem, False
            if container.endswith(".previous"):
                container, previous = container.removesuffix(".previous"), True
            self._logs[(parts[-3], LogKey(parts[-2], container, previous))] = (path, "")
        elif path.name == "logs.txt" and len(parts) >= 3:
            self._read_dumped_log(path)

    def _read_dumped_log(self, path: Path) -> None:
        """One file for all containers of a pod, each between its own lines."""
        try:
            with path.open("rb") as file:
                head = file.read(FILE_LIMIT).decode("utf-8", "replace")
        except OSError as error:
            self._problem(path, f"cannot be read: {error.strerror}")
            return
        for match in _START.finditer(head):
            container, namespace, pod = match.groups()
            self._logs[(namespace, LogKey(pod, container))] = (path, container)


class _Plain(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as kubectl prints it: times stay text."""


_Plain.yaml_implicit_resolvers = {
    key: [(tag, pattern) for tag, pattern in rules if tag != "tag:yaml.org,2002:timestamp"]
    for key, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _yaml(text: str) -> builtins.list[Any]:
    """The documents of a YAML text. kubectl writes no aliases, and a few lines of them could be blown up to gigabytes."""
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=_Plain)):
        raise yaml.YAMLError("aliases are not read")
    return list(yaml.load_all(text, Loader=_Plain))


def _covers(file: str, seen: frozenset[str], namespace: str | None, others: frozenset[str]) -> bool:
    """Whether a List is complete for that namespace: it holds objects of it or of several, or none and lies in no other one's folder.

    (`kubectl cluster-info dump` writes a folder for each namespace.)
    """
    if namespace is None or namespace in seen or len(seen) > 1:
        return True
    return not seen and not any(folder in others for folder in file.split("/")[:-1])


def _times(value: object, depth: int = 0) -> Iterator[datetime]:
    if depth > 12:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in _TIMES and isinstance(inner, str):
                if (at := parse_time(inner)) is not None and 2014 <= at.year <= 2190:
                    yield at
            elif isinstance(inner, Mapping | list):
                yield from _times(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value[:1000]:
            yield from _times(inner, depth + 1)


def _tail(path: Path, section: str) -> bytes:
    """The end of a log; of one container's part where the file holds several."""
    if not section:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_LIMIT))
            return file.read(LOG_LIMIT)
    text = path.read_bytes().decode("utf-8", "replace")
    for match in _START.finditer(text):
        if match.group(1) == section:
            rest = text[match.end() :]
            end = _END.search(rest)
            return rest[: end.start() if end else None].encode()[-LOG_LIMIT:]
    return b""
