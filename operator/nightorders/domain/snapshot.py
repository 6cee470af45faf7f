"""What was seen in one look at a namespace, and what was not.

Every kind is one of three: present, absent (the list was complete) or not looked (forbidden, failed, not asked). The difference
matters: a ConfigMap is missing only if a complete list says so, never because nobody looked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any


def parse_time(value: object) -> datetime | None:
    """RFC 3339 as Kubernetes writes it → aware datetime; None for anything else."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not value:
        return None
    try:
        at = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    return at if at.tzinfo else None


def _strings(value: object) -> dict[str, str]:
    """The string entries of a mapping; nothing of anything else, since dumps and hostile objects may hold anything anywhere."""
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, str)} if isinstance(value, Mapping) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    """The mappings of a list; nothing of anything else."""
    return [v for v in value if isinstance(v, Mapping)] if isinstance(value, list) else []


@dataclass(frozen=True)
class KubeObject:
    """One object as the API server gave it. `raw` is never changed by anybody."""

    raw: Mapping[str, Any] = field(repr=False, hash=False)
    kind: str
    api_version: str

    @property
    def name(self) -> str:
        return str(self.at("metadata", "name", default=""))

    @property
    def namespace(self) -> str:
        return str(self.at("metadata", "namespace", default=""))

    @property
    def uid(self) -> str:
        return str(self.at("metadata", "uid", default=""))

    @property
    def resource_version(self) -> str:
        return str(self.at("metadata", "resourceVersion", default=""))

    @property
    def title(self) -> str:
        """`Kind/name`."""
        return f"{self.kind}/{self.name}"

    @property
    def labels(self) -> dict[str, str]:
        return _strings(self.at("metadata", "labels"))

    @property
    def annotations(self) -> dict[str, str]:
        return _strings(self.at("metadata", "annotations"))

    @property
    def created(self) -> datetime | None:
        return parse_time(self.at("metadata", "creationTimestamp"))

    @property
    def terminating(self) -> bool:
        return self.at("metadata", "deletionTimestamp") is not None

    @property
    def controller(self) -> Mapping[str, Any] | None:
        """The owner reference with `controller: true`."""
        return next((o for o in _mappings(self.at("metadata", "ownerReferences")) if o.get("controller")), None)

    def at(self, *path: str | int, default: Any = None) -> Any:
        """The value at that path, or `default` where any step is absent."""
        here: Any = self.raw
        for step in path:
            if isinstance(step, int):
                if not isinstance(here, list) or not -len(here) <= step < len(here):
                    return default
                here = here[step]
            elif isinstance(here, Mapping) and step in here:
                here = here[step]
            else:
                return default
        return here

    def condition(self, kind: str) -> Mapping[str, Any] | None:
        """The status condition of that type."""
        return next((c for c in _mappings(self.at("status", "conditions")) if c.get("type") == kind), None)


@dataclass(frozen=True)
class Absent:
    """A complete look says that it is not there."""

    title: str
    query: str
    at: datetime


@dataclass(frozen=True)
class NotLooked:
    """Nobody can tell: the look was forbidden, failed, or was not made."""

    title: str
    because: str
    fix: str = ""


@dataclass(frozen=True)
class Listing:
    """What one list request gave. `because` non-empty means: not looked (then `objects` proves nothing).

    `at` is when the answer arrived; `size` is its bytes.
    """

    kind: str
    query: str
    at: datetime
    objects: tuple[KubeObject, ...] = ()
    because: str = ""
    fix: str = ""
    size: int = 0

    @property
    def complete(self) -> bool:
        return not self.because

    @cached_property
    def by_name(self) -> Mapping[str, KubeObject]:
        return {o.name: o for o in self.objects}


@dataclass(frozen=True)
class LogKey:
    """Which log: a pod's container, its current or its previous run."""

    pod: str
    container: str
    previous: bool = False


@dataclass(frozen=True)
class LogExcerpt:
    """The last lines of a log, already redacted; or why they are not there."""

    key: LogKey
    query: str
    at: datetime
    lines: tuple[str, ...] = ()
    because: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Point:
    """One series of an instant vector: its labels (without the metric's name) and its value, a finite number."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Vector:
    """The answer to one PromQL question. `because` non-empty: not looked (refused, unreachable, garbage); then `points` proves nothing.

    No points without `because`: Prometheus answered, and knows no such series.
    """

    promql: str
    at: datetime
    points: tuple[Point, ...] = ()
    because: str = ""


@dataclass(frozen=True)
class Snapshot:
    """One namespace (and what of the cluster matters to it) at one moment. Kinds that are no key of `listings` were not looked at.

    `beside`: other namespaces that this one leans on (kube-system for DNS, the home of a webhook's backend), with the few kinds that
    matter there. `metrics`: answers by the name under which the engine asked.
    """

    namespace: str
    at: datetime
    listings: Mapping[str, Listing]
    logs: Mapping[LogKey, LogExcerpt] = field(default_factory=dict)
    beside: Mapping[str, Snapshot] = field(default_factory=dict)
    metrics: Mapping[str, Vector] = field(default_factory=dict)

    def all(self, kind: str) -> tuple[KubeObject, ...]:
        """Every object of that kind that was seen; empty also when nobody looked (ask `looked`)."""
        listing = self.listings.get(kind)
        return listing.objects if listing else ()

    def looked(self, kind: str) -> bool:
        """Whether a complete list of that kind is there, so that absence is proved."""
        listing = self.listings.get(kind)
        return listing is not None and listing.complete

    def find(self, kind: str, name: str) -> KubeObject | Absent | NotLooked:
        """The object, or its proved absence, or that nobody looked."""
        title = f"{kind}/{name}"
        listing = self.listings.get(kind)
        if listing is None:
            return NotLooked(title, f"{kind} objects were not asked for")
        if (found := listing.by_name.get(name)) is not None:
            return found
        if not listing.complete:
            return NotLooked(title, listing.because, listing.fix)
        return Absent(title, listing.query, listing.at)

    def owned_by(self, owner: KubeObject, kind: str) -> Iterator[KubeObject]:
        """Objects of `kind` whose controller is `owner` (by uid)."""
        return (o for o in self.all(kind) if o.controller is not None and o.controller.get("uid") == owner.uid)
