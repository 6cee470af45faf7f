"""Typed views on raw objects: parsed once, with what is malformed left out, so that nothing after this needs to distrust a type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from ..domain.digest import template_sha256
from ..domain.snapshot import KubeObject, Listing, Snapshot
from .read import earliest, flag, mapping, number, objects, when, word, words

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
TEMPLATE_HASH = "pod-template-hash"

IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "RegistryUnavailable",
        "ImageInspectError",
        "SignatureValidationFailed",
    }
)
CONFIG_REASONS = frozenset({"CreateContainerConfigError"})
START_REASONS = frozenset({"CreateContainerError", "RunContainerError", "PostStartHookError"})
STARTING_REASONS = frozenset({"", "ContainerCreating", "PodInitializing"})

# kubelet forgets a container's back-off once it has run for ten minutes; until then a quiet moment is no recovery.
CALM = timedelta(minutes=10)
# What a Ready condition may lag behind the start of a pod that was never ready: the kubelet writes both in its first few syncs.
FIRST_SYNCS = timedelta(seconds=10)
SHORT_RUN = timedelta(seconds=60)


@dataclass(frozen=True)
class Run:
    """One finished run of a container."""

    exit_code: int
    reason: str
    message: str
    started: datetime | None
    finished: datetime | None

    @property
    def out_of_memory(self) -> bool:
        return self.reason == "OOMKilled"

    @property
    def never_started(self) -> bool:
        """The runtime could not start the process (no such executable, not executable, bad mount): no log exists."""
        return self.reason in ("StartError", "ContainerCannotRun")


@dataclass(frozen=True)
class Container:
    """A container's wish and state together. Without a status (pod not on a node yet) everything about its state is empty."""

    name: str
    image: str
    init: bool
    memory_limit: str = ""
    image_id: str = ""
    ready: bool = False
    restarts: int = 0
    waiting: str = ""
    waiting_message: str = ""
    running: bool = False
    running_since: datetime | None = None
    ended: Run | None = None
    last: Run | None = None

    @property
    def latest_run(self) -> Run | None:
        return self.ended or self.last

    @property
    def ever_ran(self) -> bool:
        return self.running or self.restarts > 0 or self.latest_run is not None

    @property
    def crashes(self) -> int:
        """Failed runs so far. `restartCount` counts starts after the first, so a container that is down has failed once more."""
        run = self.latest_run
        if run is None or run.exit_code == 0:
            return 0
        return self.restarts + (not self.running and self.restarts > 0)

    def crash_loops(self, now: datetime) -> bool:
        """Down for the third time or in back-off, or up for so short that the loop has not ended."""
        if self.waiting == "CrashLoopBackOff" or (self.waiting in START_REASONS):
            return True
        run = self.latest_run
        if run is None or run.exit_code == 0 or self.crashes < 3:
            return False
        if not self.running:
            return True
        since = self.running_since or run.finished
        return since is None or now - since < CALM


@dataclass(frozen=True)
class Pod:
    """A pod. `birth` is when the kubelet took it on, else its creation."""

    name: str
    uid: str
    node: str
    phase: str
    labels: Mapping[str, str] = field(repr=False)
    created: datetime | None
    started: datetime | None
    terminating: bool
    ready: bool
    ready_changed: datetime | None
    owner_uid: str
    owner_kind: str
    containers: tuple[Container, ...]
    unschedulable: str
    settled: datetime | None
    spec: Mapping[str, Any] = field(repr=False)

    @property
    def birth(self) -> datetime | None:
        return self.started or self.created

    @property
    def done(self) -> bool:
        """Finished or on its way out: it neither serves nor fails."""
        return self.terminating or self.phase in ("Succeeded", "Failed")

    def was_ready(self) -> bool:
        """Whether it ever served, as far as its status shows; in doubt yes (that is the careful answer for whoever wants to act).

        A pod without a readiness probe is Ready whenever its process runs, so a crash loop flips Ready for a second at a time. That
        is no serving: a pod that has only crashed since it began, with short runs, was never ready in earnest.
        """
        if self.ready:
            return True
        if not any(c.ever_ran for c in self.containers if not c.init):
            return False
        if self.birth and self.ready_changed and self.ready_changed - self.birth <= FIRST_SYNCS:
            return False
        return not any(_crashed_since_birth(c, self.birth) for c in self.containers)


def _crashed_since_birth(container: Container, birth: datetime | None) -> bool:
    """Whether the pod's age at the last crash is what its crashes and kubelet's back-off (10 s, doubled up to 5 min) account for."""
    run = container.latest_run
    if run is None or run.exit_code == 0 or birth is None or run.finished is None or run.started is None:
        return False
    if run.finished - run.started > SHORT_RUN:
        return False
    pauses = sum(min(10 * 2**i, 300) for i in range(min(container.restarts, 64)))
    return run.finished - birth <= timedelta(seconds=pauses) + SHORT_RUN * (container.restarts + 1)


def _run(state: object) -> Run | None:
    ended = mapping(state).get("terminated")
    if not isinstance(ended, Mapping):
        return None
    return Run(
        exit_code=number(ended.get("exitCode")),
        reason=word(ended.get("reason")),
        message=word(ended.get("message")),
        started=when(ended.get("startedAt")),
        finished=when(ended.get("finishedAt")),
    )


def _container(spec: Mapping[str, Any], status: Mapping[str, Any], init: bool) -> Container:
    state = mapping(status.get("state"))
    waiting, running = mapping(state.get("waiting")), state.get("running")
    return Container(
        name=word(spec.get("name")),
        image=word(spec.get("image")),
        init=init,
        memory_limit=_limit(spec),
        image_id=word(status.get("imageID")),
        ready=flag(status.get("ready")),
        restarts=max(0, number(status.get("restartCount"))),
        waiting=word(waiting.get("reason")),
        waiting_message=word(waiting.get("message")),
        running=isinstance(running, Mapping),
        running_since=when(mapping(running).get("startedAt")),
        ended=_run(state),
        last=_run(status.get("lastState")),
    )


def _limit(spec: Mapping[str, Any]) -> str:
    return word(mapping(mapping(spec.get("resources")).get("limits")).get("memory"))


def _containers(spec: Mapping[str, Any], status: Mapping[str, Any]) -> tuple[Container, ...]:
    found: list[Container] = []
    for names, states, init in (("initContainers", "initContainerStatuses", True), ("containers", "containerStatuses", False)):
        by_name = {word(s.get("name")): s for s in objects(status.get(states))}
        found += [_container(c, by_name.get(word(c.get("name")), {}), init) for c in objects(spec.get(names))]
    return tuple(found)


@dataclass(frozen=True)
class Condition:
    """A status condition. `updated` is when it was last written, which a Deployment's controller does at each step of progress."""

    status: str
    reason: str
    message: str
    changed: datetime | None
    updated: datetime | None


def conditions(status: Mapping[str, Any]) -> dict[str, Condition]:
    """By type; the first wins when one is there twice."""
    found: dict[str, Condition] = {}
    for c in objects(status.get("conditions")):
        changed = when(c.get("lastTransitionTime"))
        view = Condition(
            word(c.get("status")), word(c.get("reason")), word(c.get("message")), changed, when(c.get("lastUpdateTime")) or changed
        )
        found.setdefault(word(c.get("type")), view)
    return found


def controller_of(obj: KubeObject) -> tuple[str, str, str]:
    """uid, kind and name of the controlling owner; empty texts when there is none."""
    owners = objects(mapping(obj.raw.get("metadata")).get("ownerReferences"))
    owner = next((o for o in owners if flag(o.get("controller"))), {})
    return word(owner.get("uid")), word(owner.get("kind")), word(owner.get("name"))


def _pod(obj: KubeObject) -> Pod:
    metadata, spec, status = (mapping(obj.raw.get(k)) for k in ("metadata", "spec", "status"))
    found = conditions(status)
    ready, scheduled = found.get("Ready"), found.get("PodScheduled")
    owner_uid, owner_kind, _ = controller_of(obj)
    return Pod(
        name=word(metadata.get("name")),
        uid=word(metadata.get("uid")),
        node=word(spec.get("nodeName")),
        phase=word(status.get("phase")),
        labels=words(metadata.get("labels")),
        created=when(metadata.get("creationTimestamp")),
        started=when(status.get("startTime")),
        terminating=metadata.get("deletionTimestamp") is not None,
        ready=ready is not None and ready.status == "True",
        ready_changed=ready.changed if ready else None,
        owner_uid=owner_uid,
        owner_kind=owner_kind,
        containers=_containers(spec, status),
        unschedulable=scheduled.message or scheduled.reason if scheduled and scheduled.status == "False" else "",
        settled=max((c.changed for c in found.values() if c.changed), default=None),
        spec=spec,
    )


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


@dataclass(frozen=True)
class Event:
    """A core/v1 Event. Anybody with `edit` can write one, so it never proves alone what a status would show."""

    reason: str
    message: str
    warning: bool
    first: datetime | None
    last: datetime | None


def _event(obj: KubeObject) -> Event:
    raw = obj.raw
    series = mapping(raw.get("series"))
    first = when(raw.get("firstTimestamp")) or when(raw.get("eventTime")) or obj_created(obj)
    last = when(series.get("lastObservedTime")) or when(raw.get("lastTimestamp")) or first
    return Event(word(raw.get("reason")), word(raw.get("message")), raw.get("type") == "Warning", first, last)


def obj_created(obj: KubeObject) -> datetime | None:
    return when(mapping(obj.raw.get("metadata")).get("creationTimestamp"))


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
        return tuple(_pod(o) for o in self.all("Pod"))

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
            found.setdefault(key, []).append(_event(obj))
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
