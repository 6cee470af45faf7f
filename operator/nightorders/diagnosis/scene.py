"""The scene of a diagnosis: a snapshot with its indexes, and workloads of every kind with their revisions and pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from ..domain.digest import template_sha256
from ..domain.snapshot import KubeObject, Listing, Snapshot
from .read import earliest, flag, mapping, number, objects, word, words
from .views import (
    Condition,
    Cron,
    Event,
    Job,
    Node,
    Pod,
    conditions,
    controller_of,
    cron_view,
    event_view,
    job_view,
    node_view,
    obj_created,
    pod_view,
)

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
TEMPLATE_HASH = "pod-template-hash"
# What passes between the objects of one change, and the controllers' and the scheduler's first look at them.
IMPATIENCE = timedelta(seconds=5)
CONTROLLER_HASH = "controller-revision-hash"
# How long a rollout may take without any progress where its kind has no setting for that: a Deployment's default.
DEADLINE = 600
_JOB_LABELS = frozenset({"controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name"})


def template_digest(template: Mapping[str, Any]) -> str:
    """`domain.digest.template_sha256`, or empty for what has not the shape of a template."""
    metadata = template.get("metadata")
    if not template or not isinstance(metadata, Mapping | None) or not isinstance(mapping(metadata).get("labels"), Mapping | None):
        return ""
    return template_sha256(template)


@dataclass(frozen=True)
class Revision:
    """One template of a workload with its pods: a ReplicaSet, a ControllerRevision, or a Job (`kind` says which).

    `number` is an annotation or a field that its writer chose, so it is a claim; `uid` is not. `worked`: when a
    Job of it completed; `refused`: since when its pods cannot be created (`create_failure`).
    """

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
    kind: str = "ReplicaSet"
    worked: datetime | None = None
    refused: datetime | None = None

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.name}"

    @property
    def label(self) -> str:
        return f"release {self.number}" if self.number else self.title

    @cached_property
    def live(self) -> tuple[Pod, ...]:
        return tuple(p for p in self.pods if not p.done)

    @cached_property
    def failed(self) -> tuple[Pod, ...]:
        """Pods that have ended and did not succeed, the newest first."""
        found = [p for p in self.pods if p.phase == "Failed" and not p.terminating]
        return tuple(sorted(found, key=lambda p: (str(p.created), p.name), reverse=True))

    @cached_property
    def released(self) -> datetime | None:
        """When this template was put in force. A revision that was rolled back to keeps its ReplicaSet, so its age says nothing."""
        return earliest(*(p.created for p in self.pods)) if self.revived else self.created

    @property
    def pod_spec(self) -> Mapping[str, Any]:
        return mapping(self.template.get("spec"))


@dataclass(frozen=True)
class Workload:
    """A workload of any kind with its revisions, newest first. `current` is the one that its template asks for, once it exists.

    `desired`, `replicas`, `updated` and `available` count pods (of a Job: completions, pods, and pods that succeeded or run). `spared`:
    how many pods may stay on an older template (a StatefulSet's partition; all of them under OnDelete). `jobs`: of a Job itself, of a
    CronJob all that are left, newest first. `reached`: the controller once saw the current revision in force everywhere.
    """

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
    spared: int = 0
    jobs: tuple[Job, ...] = ()
    cron: Cron | None = None
    reached: bool = False

    @property
    def name(self) -> str:
        return self.obj.name

    @property
    def kind(self) -> str:
        return self.obj.kind

    @property
    def title(self) -> str:
        return self.obj.title

    @property
    def runs_once(self) -> bool:
        """Whether its pods are meant to end: a Job or a CronJob."""
        return self.kind in ("Job", "CronJob")

    @property
    def job(self) -> Job | None:
        """The Job itself, or the newest one of a CronJob."""
        return self.jobs[0] if self.jobs else None

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
        """Every replica is of the wished template and available, and no old one is left; a Job has completed."""
        if self.runs_once:
            return self.job is not None and self.job.complete
        if self.kind in ("StatefulSet", "DaemonSet"):
            return self.observed and self.updated >= self.desired - self.spared and self.replicas <= self.desired <= self.available
        return self.observed and self.updated >= self.desired and self.replicas <= self.updated and self.available >= self.desired

    @property
    def deadline_exceeded(self) -> bool:
        progressing = self.conditions.get("Progressing")
        return progressing is not None and progressing.status == "False" and progressing.reason == "ProgressDeadlineExceeded"

    @property
    def completed_once(self) -> bool:
        """The controller saw the current revision complete at some time (it may have failed since)."""
        if self.kind != "Deployment":
            return self.reached
        progressing = self.conditions.get("Progressing")
        if not self.observed or progressing is None or progressing.status != "True" or progressing.reason != "NewReplicaSetAvailable":
            return False
        # A release that takes all pods down at once leaves the condition of the one before it until it has made progress of its own.
        released = self.current.released if self.current is not None else None
        return released is None or progressing.updated is None or progressing.updated >= released

    @property
    def completed_at(self) -> datetime | None:
        """When that was. (The controller writes the condition last when the rollout completes, and then leaves it alone.) Only a
        Deployment keeps that time."""
        progressing = self.conditions.get("Progressing")
        return progressing.updated if progressing is not None and self.completed_once and self.kind == "Deployment" else None

    @property
    def duplicate_numbers(self) -> bool:
        numbers = [r.number for r in self.revisions if r.number]
        return len(numbers) != len(set(numbers))


class Scene:
    """A snapshot with its indexes, each built once and in linear time, so that thousands of pods cost no more than a pass over them."""

    def __init__(self, snapshot: Snapshot, now: datetime, *, doubted: bool = False) -> None:
        """`doubted`: somebody says that something is wrong, so that what has just begun counts as well."""
        self.snapshot = snapshot
        self.now = now
        self.doubted = doubted
        self.memo: dict[tuple[str, str], Any] = {}

    def patience(self, usual: timedelta) -> timedelta:
        """How long something may take before it counts as trouble."""
        return min(usual, IMPATIENCE) if self.doubted else usual

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

    def _sets_of(self, kind: str) -> dict[str, list[KubeObject]]:
        """Objects of that kind by the uid of what controls them."""
        if ("owned", kind) not in self.memo:
            by_owner: dict[str, list[KubeObject]] = {}
            for obj in self.all(kind):
                by_owner.setdefault(controller_of(obj)[0], []).append(obj)
            self.memo["owned", kind] = by_owner
        found: dict[str, list[KubeObject]] = self.memo["owned", kind]
        return found

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

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node of the snapshot, by name."""
        return tuple(node_view(o) for o in self.all("Node"))

    def beside(self, namespace: str) -> Scene | None:
        """The scene of another namespace (or of this very one), if the snapshot holds any of it."""
        if namespace == self.snapshot.namespace:
            return self
        if ("beside", namespace) not in self.memo:
            other = self.snapshot.beside.get(namespace)
            self.memo["beside", namespace] = Scene(other, self.now) if other is not None else None
        found: Scene | None = self.memo["beside", namespace]
        return found

    def workload(self, obj: KubeObject) -> Workload:
        """The view on one workload: a Deployment, StatefulSet, DaemonSet, Job, CronJob, ReplicaSet or Pod. Each is made once."""
        key = ("workload", f"{obj.title} {obj.uid}")
        if key not in self.memo:
            makers = {
                "StatefulSet": self._stateful_set,
                "DaemonSet": self._daemon_set,
                "Job": self._job,
                "CronJob": self._cron_job,
                "ReplicaSet": self._replica_set,
                "Pod": self._single_pod,
            }
            self.memo[key] = makers.get(obj.kind, self._deployment)(obj)
        found: Workload = self.memo[key]
        return found

    def _deployment(self, obj: KubeObject) -> Workload:
        spec, status = mapping(obj.raw.get("spec")), mapping(obj.raw.get("status"))
        template = mapping(spec.get("template"))
        known = self.snapshot.listings.get("ReplicaSet") is not None and self.looked("ReplicaSet")
        revisions = self._revisions(obj) if known else self._guessed_revisions(obj, template)
        plain = self._plain(obj, template, revisions)
        return replace(
            plain,
            desired=max(0, number(spec.get("replicas"), 1)),
            replicas=number(status.get("replicas")),
            updated=number(status.get("updatedReplicas")),
            available=number(status.get("availableReplicas")),
            paused=flag(spec.get("paused")),
            deadline=number(spec.get("progressDeadlineSeconds"), DEADLINE),
            current=_current(revisions, template_digest(template), plain.observed),
            sets_known=known,
        )

    def _plain(self, obj: KubeObject, template: Mapping[str, Any], revisions: tuple[Revision, ...]) -> Workload:
        """What every kind has in common; the numbers are still to come."""
        status = mapping(obj.raw.get("status"))
        generation = number(mapping(obj.raw.get("metadata")).get("generation"))
        return Workload(
            obj=obj,
            generation=generation,
            observed_generation=number(status.get("observedGeneration")),
            desired=0,
            replicas=0,
            updated=0,
            available=0,
            paused=False,
            deadline=DEADLINE,
            conditions=conditions(status),
            template=template,
            revisions=revisions,
            current=next(iter(revisions), None),
            sets_known=True,
        )

    def _stateful_set(self, obj: KubeObject) -> Workload:
        spec, status = mapping(obj.raw.get("spec")), mapping(obj.raw.get("status"))
        strategy = mapping(spec.get("updateStrategy"))
        plain, known = self._of_controller_revisions(obj)
        desired = max(0, number(spec.get("replicas"), 1))
        partition = max(0, number(mapping(strategy.get("rollingUpdate")).get("partition")))
        wished, in_force = word(status.get("updateRevision")), word(status.get("currentRevision"))
        current = next((r for r in plain.revisions if wished and r.name == wished and plain.observed), plain.current)
        older = known and current is not None and any(r.number < current.number for r in plain.revisions)
        # A first revision is written as the current one before any pod of it exists, so only a second one says that it was completed.
        told = older and bool(wished) and wished == in_force and plain.observed and not partition
        return replace(
            plain,
            desired=desired,
            replicas=number(status.get("replicas")),
            updated=number(status.get("updatedReplicas")),
            available=number(status.get("availableReplicas")),
            spared=desired if word(strategy.get("type")) == "OnDelete" else min(desired, partition),
            current=current,
            reached=told or _all_served(current, desired),
        )

    def _daemon_set(self, obj: KubeObject) -> Workload:
        spec, status = mapping(obj.raw.get("spec")), mapping(obj.raw.get("status"))
        plain, _ = self._of_controller_revisions(obj)
        desired = max(0, number(status.get("desiredNumberScheduled")))
        return replace(
            plain,
            desired=desired,
            replicas=number(status.get("currentNumberScheduled")),
            updated=number(status.get("updatedNumberScheduled")),
            available=number(status.get("numberAvailable")),
            spared=desired if word(mapping(spec.get("updateStrategy")).get("type")) == "OnDelete" else 0,
            reached=_all_served(plain.current, desired),
        )

    def _of_controller_revisions(self, obj: KubeObject) -> tuple[Workload, bool]:
        """A StatefulSet or DaemonSet with its revisions; whether these are known, and not guessed from pods."""
        template = mapping(mapping(obj.raw.get("spec")).get("template"))
        known = self.snapshot.listings.get("ControllerRevision") is not None and self.looked("ControllerRevision")
        revisions = self._controller_revisions(obj) if known else self._guessed_revisions(obj, template)
        plain = self._plain(obj, template, revisions)
        return replace(plain, current=_current(revisions, template_digest(template), plain.observed), sets_known=known), known

    def _controller_revisions(self, obj: KubeObject) -> tuple[Revision, ...]:
        mine = self._sets_of("ControllerRevision").get(obj.uid, []) if obj.uid else []
        pods: dict[str, list[Pod]] = {}
        for pod in self._pods_by_owner.get(obj.uid, ()) if obj.uid else ():
            pods.setdefault(pod.labels.get(CONTROLLER_HASH, ""), []).append(pod)
        found: list[Revision] = []
        for r in mine:
            data = mapping(mapping(mapping(r.raw.get("data")).get("spec")).get("template"))
            template = {k: v for k, v in data.items() if k != "$patch"}
            hashes = {r.name, r.labels.get(CONTROLLER_HASH, ""), r.name.removeprefix(f"{obj.name}-")} - {""}
            found.append(
                Revision(
                    name=r.name,
                    uid=r.uid,
                    number=max(0, number(r.raw.get("revision"))),
                    created=obj_created(r),
                    revived=False,
                    template=template,
                    digest=template_digest(template),
                    desired=0,
                    create_failure="",
                    pods=tuple(p for h in sorted(hashes) for p in pods.get(h, ())),
                    kind="ControllerRevision",
                )
            )
        return tuple(sorted(found, key=lambda r: (r.number, str(r.created), r.name), reverse=True))

    def _job(self, obj: KubeObject) -> Workload:
        job = job_view(obj)
        revision = self._job_revision(obj, job)
        return replace(
            self._plain(obj, revision.template, (revision,)),
            generation=0,
            observed_generation=0,
            desired=job.completions,
            replicas=job.active,
            updated=job.active + job.succeeded,
            available=job.succeeded,
            paused=job.suspended,
            jobs=(job,),
            reached=job.complete,
        )

    def _cron_job(self, obj: KubeObject) -> Workload:
        template = pod_template(obj)
        mine = self._sets_of("Job").get(obj.uid, ()) if obj.uid else ()
        ordered = sorted(mine, key=lambda o: (str(obj_created(o)), o.name), reverse=True)
        jobs = tuple(job_view(o) for o in ordered)
        revisions = tuple(self._job_revision(o, j) for o, j in zip(ordered, jobs, strict=True))
        cron = cron_view(obj)
        if not revisions:
            own = Revision(obj.name, obj.uid, 0, obj_created(obj), False, template, template_digest(template), 0, "", (), "CronJob")
            revisions = (own,)
        return replace(
            self._plain(obj, template, revisions),
            generation=0,
            observed_generation=0,
            desired=0 if cron.suspended else 1,
            replicas=sum(j.active for j in jobs),
            updated=sum(j.active for j in jobs[:1]),
            available=sum(j.succeeded for j in jobs[:1]),
            paused=cron.suspended,
            sets_known=self.looked("Job"),
            jobs=jobs,
            cron=cron,
        )

    def _job_revision(self, obj: KubeObject, job: Job) -> Revision:
        """A run as a revision; `desired` is how many pods it should have now."""
        template = pod_template(obj)
        wanted = 0 if job.suspended or not job.running else min(job.parallelism, max(0, job.completions - job.succeeded))
        return Revision(
            name=obj.name,
            uid=obj.uid,
            number=0,
            created=obj_created(obj),
            revived=False,
            template=template,
            digest=template_digest(template),
            desired=wanted,
            create_failure="",
            pods=tuple(self._pods_by_owner.get(obj.uid, ())) if obj.uid else (),
            kind="Job",
            worked=(job.ended or job.created) if job.complete else None,
        )

    def _replica_set(self, obj: KubeObject) -> Workload:
        status = mapping(obj.raw.get("status"))
        revision = replace(self._revision(obj), number=0)
        return replace(
            self._plain(obj, revision.template, (revision,)),
            desired=revision.desired,
            replicas=number(status.get("replicas")),
            updated=number(status.get("replicas")),
            available=number(status.get("availableReplicas")),
            reached=_all_served(revision, revision.desired),
        )

    def _single_pod(self, obj: KubeObject) -> Workload:
        pod = next((p for p in self.pods if p.name == obj.name and p.uid == obj.uid), None) or pod_view(obj)
        template = pod_template(obj)
        revision = Revision(
            name=pod.name,
            uid=pod.uid,
            number=0,
            created=pod.created,
            revived=False,
            template=template,
            digest=template_digest(template),
            desired=0 if pod.done else 1,
            create_failure="",
            pods=(pod,),
            kind="Pod",
        )
        well = pod.ready or pod.phase == "Succeeded"
        return replace(
            self._plain(obj, template, (revision,)),
            generation=0,
            observed_generation=0,
            desired=1,
            replicas=1,
            updated=1,
            available=int(well),
            reached=_all_served(revision, 1),
        )

    def _revisions(self, obj: KubeObject) -> tuple[Revision, ...]:
        found = [self._revision(r) for r in self._sets_of("ReplicaSet").get(obj.uid, ())] if obj.uid else []
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
            refused=failure.changed if failure and failure.status == "True" else None,
            pods=tuple(self._pods_by_owner.get(obj.uid, ())) if obj.uid else (),
        )

    def _guessed_revisions(self, obj: KubeObject, template: Mapping[str, Any]) -> tuple[Revision, ...]:
        """Without ReplicaSets or ControllerRevisions: pods that the selector matches, by template hash; the group with the template's images is current."""
        selector = words(mapping(mapping(mapping(obj.raw.get("spec")).get("selector")).get("matchLabels")))
        owner, tag_label = ("ReplicaSet", TEMPLATE_HASH) if obj.kind == "Deployment" else (obj.kind, CONTROLLER_HASH)
        groups: dict[str, list[Pod]] = {}
        for pod in self.pods:
            if selector and pod.owner_kind == owner and selector.items() <= pod.labels.items():
                groups.setdefault(pod.labels.get(tag_label, ""), []).append(pod)
        images = _images(mapping(template.get("spec")))
        ranked = sorted(
            groups.items(), key=lambda g: (_images(g[1][0].spec) == images, str(earliest(*(p.created for p in g[1]))), g[0]), reverse=True
        )
        claimed = revision_number(words(mapping(obj.raw.get("metadata")).get("annotations")))
        return tuple(
            _group(
                f"{tag_label}={tag}" if tag else "",
                pods,
                template if i == 0 and _images(pods[0].spec) == images else {"spec": pods[0].spec},
                claimed if i == 0 else 0,
                "ReplicaSet" if obj.kind == "Deployment" else "ControllerRevision",
            )
            for i, (tag, pods) in enumerate(ranked)
        )


def _group(tag: str, pods: list[Pod], template: Mapping[str, Any], claimed: int, kind: str) -> Revision:
    return Revision(
        name=f"of {tag}" if tag else "unknown",
        uid=pods[0].owner_uid if kind == "ReplicaSet" else "",
        number=claimed,
        created=earliest(*(p.created for p in pods)),
        revived=False,
        template=template,
        digest=template_digest(template),
        desired=0,
        create_failure="",
        pods=tuple(pods),
        kind=kind,
    )


def _all_served(revision: Revision | None, desired: int) -> bool:
    """As many pods as wished are of this revision, and each of them has served, as far as its status shows."""
    return revision is not None and len(revision.live) >= desired > 0 and all(p.was_ready() for p in revision.live)


def pod_template(obj: KubeObject) -> Mapping[str, Any]:
    """The pod template of a workload of any kind, without what its controller adds; a bare Pod is its own.

    The API server adds a Job's uid and name to the labels of its template, which would make every run of a CronJob look changed.
    """
    spec = mapping(obj.raw.get("spec"))
    match obj.kind:
        case "Pod":
            return {"metadata": {"labels": obj.labels}, "spec": spec}
        case "CronJob":
            template = mapping(mapping(mapping(spec.get("jobTemplate")).get("spec")).get("template"))
        case _:
            template = mapping(spec.get("template"))
    metadata = mapping(template.get("metadata"))
    if obj.kind not in ("Job", "CronJob") or not isinstance(metadata.get("labels"), Mapping | None):
        return template
    labels = {k: v for k, v in mapping(metadata.get("labels")).items() if k not in _JOB_LABELS}
    return {**template, "metadata": {**metadata, "labels": labels}}


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
