"""The scene of a diagnosis: a snapshot with its indexes, and Deployments with their revisions and pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from ..domain.digest import template_sha256
from ..domain.snapshot import KubeObject, Listing, Snapshot
from .read import earliest, flag, mapping, number, objects, word, words
from .views import Condition, Event, Pod, conditions, controller_of, event_view, obj_created, pod_view

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
TEMPLATE_HASH = "pod-template-hash"


def template_digest(template: Mapping[str, Any]) -> str:
    """`domain.digest.template_sha256`, or empty for what has not the shape of a template."""
    metadata = template.get("metadata")
    if not template or not isinstance(metadata, Mapping | None) or not isinstance(mapping(metadata).get("labels"), Mapping | None):
        return ""
    return template_sha256(template)


@dataclass(frozen=True)
class Revision:
    """One ReplicaSet of a Deployment with its pods. `number` is an annotation, so it is a claim; `uid` is not."""

    name: str
    uid: str
    number: int
    created: datetime | None
    revived: bool
    template: Mapping[str, Any] = field(repr=False)
    digest: str
    desired: int
    create_failure: str
    pods: tuple[Pod, ...] = field(repr=False)

    @property
    def label(self) -> str:
        return f"release {self.number}" if self.number else f"ReplicaSet/{self.name}"

    @cached_property
    def live(self) -> tuple[Pod, ...]:
        return tuple(p for p in self.pods if not p.done)

    @cached_property
    def released(self) -> datetime | None:
        """When this template was put in force. A revision that was rolled back to keeps its ReplicaSet, so its age says nothing."""
        return earliest(*(p.created for p in self.pods)) if self.revived else self.created

    @property
    def pod_spec(self) -> Mapping[str, Any]:
        return mapping(self.template.get("spec"))


@dataclass(frozen=True)
class Workload:
    """A Deployment with its revisions, newest first. `current` is the one that its template asks for, once it exists."""

    obj: KubeObject
    generation: int
    observed_generation: int
    desired: int
    replicas: int
    updated: int
    available: int
    paused: bool
    deadline: int
    conditions: Mapping[str, Condition]
    template: Mapping[str, Any] = field(repr=False)
    revisions: tuple[Revision, ...]
    current: Revision | None
    sets_known: bool

    @property
    def name(self) -> str:
        return self.obj.name

    @property
    def title(self) -> str:
        return f"Deployment/{self.name}"

    @property
    def pods(self) -> tuple[Pod, ...]:
        return tuple(p for r in self.revisions for p in r.live)

    @property
    def ready_pods(self) -> int:
        return sum(p.ready for p in self.pods)

    @property
    def observed(self) -> bool:
        return self.observed_generation >= self.generation

    @property
    def complete(self) -> bool:
        """Every replica is of the wished template and available, and no old one is left."""
        return self.observed and self.updated >= self.desired and self.replicas <= self.updated and self.available >= self.desired

    @property
    def deadline_exceeded(self) -> bool:
        progressing = self.conditions.get("Progressing")
        return progressing is not None and progressing.status == "False" and progressing.reason == "ProgressDeadlineExceeded"

    @property
    def completed_once(self) -> bool:
        """The controller saw the current revision complete at some time (it may have failed since)."""
        progressing = self.conditions.get("Progressing")
        return self.observed and progressing is not None and progressing.status == "True" and progressing.reason == "NewReplicaSetAvailable"

    @property
    def completed_at(self) -> datetime | None:
        """When that was. (The controller writes the condition last when the rollout completes, and then leaves it alone.)"""
        return self.conditions["Progressing"].updated if self.completed_once else None

    @property
    def duplicate_numbers(self) -> bool:
        numbers = [r.number for r in self.revisions if r.number]
        return len(numbers) != len(set(numbers))


class Scene:
    """A snapshot with its indexes, each built once and in linear time, so that thousands of pods cost no more than a pass over them."""

    def __init__(self, snapshot: Snapshot, now: datetime) -> None:
        self.snapshot = snapshot
        self.now = now
        self.memo: dict[tuple[str, str], Any] = {}

    def all(self, kind: str) -> tuple[KubeObject, ...]:
        """Objects of that kind in the snapshot's namespace, by name: the order of a list must not change an answer.

        (A dump may hold other namespaces too; cluster-scoped objects have none.)
        """
        if ("all", kind) not in self.memo:
            here = ("", self.snapshot.namespace)
            mine = (
                o for o in self.snapshot.all(kind) if isinstance(o.raw, Mapping) and (o.namespace in here or not self.snapshot.namespace)
            )
            self.memo["all", kind] = tuple(sorted(mine, key=lambda o: (o.name, o.uid)))
        found: tuple[KubeObject, ...] = self.memo["all", kind]
        return found

    def listing(self, kind: str) -> Listing:
        """The listing, or one that says that nobody asked."""
        found = self.snapshot.listings.get(kind)
        return found or Listing(kind, f"(no list of {kind} was made)", self.snapshot.at, because=f"{kind} objects were not asked for")

    def looked(self, kind: str) -> bool:
        return self.snapshot.looked(kind)

    @cached_property
    def pods(self) -> tuple[Pod, ...]:
        return tuple(pod_view(o) for o in self.all("Pod"))

    @cached_property
    def _pods_by_owner(self) -> dict[str, list[Pod]]:
        by_owner: dict[str, list[Pod]] = {}
        for pod in self.pods:
            by_owner.setdefault(pod.owner_uid, []).append(pod)
        return by_owner

    @cached_property
    def _sets_by_owner(self) -> dict[str, list[KubeObject]]:
        by_owner: dict[str, list[KubeObject]] = {}
        for obj in self.all("ReplicaSet"):
            by_owner.setdefault(controller_of(obj)[0], []).append(obj)
        return by_owner

    @cached_property
    def _events(self) -> dict[tuple[str, str], list[Event]]:
        """By uid, and by kind and name for those that carry no uid."""
        found: dict[tuple[str, str], list[Event]] = {}
        for obj in self.all("Event"):
            about = mapping(obj.raw.get("involvedObject"))
            uid = word(about.get("uid"))
            key = ("uid", uid) if uid else (word(about.get("kind")), word(about.get("name")))
            found.setdefault(key, []).append(event_view(obj))
        return found

    def events(self, kind: str, name: str, uid: str) -> list[Event]:
        """Events about that very object, oldest first."""
        found = [*self._events.get(("uid", uid), ()), *self._events.get((kind, name), ())] if uid else self._events.get((kind, name), [])
        return sorted(found, key=lambda e: (e.first is None, e.first or self.now, e.reason, e.message))

    def pod_events(self, pod: Pod) -> list[Event]:
        return self.events("Pod", pod.name, pod.uid)

    def workload(self, obj: KubeObject) -> Workload:
        """The view on one Deployment."""
        spec, status = mapping(obj.raw.get("spec")), mapping(obj.raw.get("status"))
        metadata = mapping(obj.raw.get("metadata"))
        template = mapping(spec.get("template"))
        known = self.snapshot.listings.get("ReplicaSet") is not None and self.looked("ReplicaSet")
        revisions = self._revisions(obj) if known else self._guessed_revisions(obj, template)
        return Workload(
            obj=obj,
            generation=number(metadata.get("generation")),
            observed_generation=number(status.get("observedGeneration")),
            desired=max(0, number(spec.get("replicas"), 1)),
            replicas=number(status.get("replicas")),
            updated=number(status.get("updatedReplicas")),
            available=number(status.get("availableReplicas")),
            paused=flag(spec.get("paused")),
            deadline=number(spec.get("progressDeadlineSeconds"), 600),
            conditions=conditions(status),
            template=template,
            revisions=revisions,
            current=_current(
                revisions, template_digest(template), number(metadata.get("generation")) <= number(status.get("observedGeneration"))
            ),
            sets_known=known,
        )

    def _revisions(self, obj: KubeObject) -> tuple[Revision, ...]:
        found = [self._revision(r) for r in self._sets_by_owner.get(obj.uid, ())] if obj.uid else []
        return tuple(sorted(found, key=lambda r: (r.number, str(r.created), r.name), reverse=True))

    def _revision(self, obj: KubeObject) -> Revision:
        spec, status = mapping(obj.raw.get("spec")), mapping(obj.raw.get("status"))
        notes = words(mapping(obj.raw.get("metadata")).get("annotations"))
        failure = conditions(status).get("ReplicaFailure")
        template = mapping(spec.get("template"))
        return Revision(
            name=obj.name,
            uid=obj.uid,
            number=revision_number(notes),
            created=obj_created(obj),
            revived=bool(notes.get(REVISION_HISTORY)),
            template=template,
            digest=template_digest(template),
            desired=max(0, number(spec.get("replicas"))),
            create_failure=failure.message or failure.reason if failure and failure.status == "True" else "",
            pods=tuple(self._pods_by_owner.get(obj.uid, ())) if obj.uid else (),
        )

    def _guessed_revisions(self, obj: KubeObject, template: Mapping[str, Any]) -> tuple[Revision, ...]:
        """Without ReplicaSets: pods that the selector matches, by template hash; the group with the template's images is current."""
        selector = words(mapping(mapping(mapping(obj.raw.get("spec")).get("selector")).get("matchLabels")))
        groups: dict[str, list[Pod]] = {}
        for pod in self.pods:
            if selector and pod.owner_kind == "ReplicaSet" and selector.items() <= pod.labels.items():
                groups.setdefault(pod.labels.get(TEMPLATE_HASH, ""), []).append(pod)
        images = _images(mapping(template.get("spec")))
        ranked = sorted(
            groups.items(), key=lambda g: (_images(g[1][0].spec) == images, str(earliest(*(p.created for p in g[1]))), g[0]), reverse=True
        )
        claimed = revision_number(words(mapping(obj.raw.get("metadata")).get("annotations")))
        return tuple(
            _group(tag, pods, template if i == 0 and _images(pods[0].spec) == images else {"spec": pods[0].spec}, claimed if i == 0 else 0)
            for i, (tag, pods) in enumerate(ranked)
        )


def _group(tag: str, pods: list[Pod], template: Mapping[str, Any], claimed: int) -> Revision:
    return Revision(
        name=f"of {TEMPLATE_HASH}={tag}" if tag else "unknown",
        uid=pods[0].owner_uid,
        number=claimed,
        created=earliest(*(p.created for p in pods)),
        revived=False,
        template=template,
        digest=template_digest(template),
        desired=0,
        create_failure="",
        pods=tuple(pods),
    )


def revision_number(annotations: Mapping[str, str]) -> int:
    """The revision that an annotation claims; 0 when it claims none."""
    claimed = annotations.get(REVISION, "")
    return int(claimed) if claimed.isascii() and claimed.isdigit() and len(claimed) < 10 else 0


def _images(spec: Mapping[str, Any]) -> dict[str, str]:
    return {word(c.get("name")): word(c.get("image")) for kind in ("initContainers", "containers") for c in objects(spec.get(kind))}


def _current(revisions: Iterable[Revision], digest: str, observed: bool) -> Revision | None:
    """The revision with the wished template. Digests differ after an upgrade that adds defaults, so then the highest number counts."""
    ordered = tuple(revisions)
    match = next((r for r in ordered if digest and r.digest == digest), None)
    return match or (ordered[0] if ordered and observed else None)
