"""Typed views on raw objects: parsed once, with what is malformed left out, so that nothing after this needs to distrust a type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ..domain.snapshot import KubeObject
from .read import flag, mapping, number, objects, when, word, words

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

    def crash_loops(self, now: datetime, *, doubted: bool = False) -> bool:
        """Down for the third time or in back-off, or up for so short that the loop has not ended.

        `doubted`: somebody says that it fails; then two failed runs are enough, unless it runs for clearly longer than it did before.
        """
        if self.waiting == "CrashLoopBackOff" or (self.waiting in START_REASONS):
            return True
        run = self.latest_run
        if run is None or run.exit_code == 0 or self.crashes < (2 if doubted else 3):
            return False
        if not self.running:
            return True
        since = self.running_since or run.finished
        calm = CALM
        if self.crashes < 3 and run.started and run.finished:
            calm = max(3 * (run.finished - run.started), SHORT_RUN / 3)
        return since is None or now - since < calm


@dataclass(frozen=True)
class Pod:
    """A pod. `birth` is when the kubelet took it on, else its creation.

    `reason` and `message` are the status's own words for a pod that has ended (`Evicted`, `DeadlineExceeded`). `judged`: a scheduler has
    written the PodScheduled condition, whose reason while it is false is `scheduling` (`Unschedulable`, `SchedulingGated`). `disruption`:
    the reason of the condition DisruptionTarget (`DeletionByPodGC`, `PreemptionByScheduler`, `EvictionByEvictionAPI`).
    """

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
    reason: str = ""
    message: str = ""
    scheduling: str = ""
    judged: bool = False
    disruption: str = ""

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


def pod_view(obj: KubeObject) -> Pod:
    metadata, spec, status = (mapping(obj.raw.get(k)) for k in ("metadata", "spec", "status"))
    found = conditions(status)
    ready, scheduled, disrupted = found.get("Ready"), found.get("PodScheduled"), found.get("DisruptionTarget")
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
        reason=word(status.get("reason")),
        message=word(status.get("message")),
        scheduling=scheduled.reason if scheduled and scheduled.status == "False" else "",
        judged=scheduled is not None,
        disruption=disrupted.reason if disrupted and disrupted.status == "True" else "",
    )


def obj_created(obj: KubeObject) -> datetime | None:
    return when(mapping(obj.raw.get("metadata")).get("creationTimestamp"))


@dataclass(frozen=True)
class Event:
    """A core/v1 Event. Anybody with `edit` can write one, so it never proves alone what a status would show."""

    reason: str
    message: str
    warning: bool
    first: datetime | None
    last: datetime | None


def event_view(obj: KubeObject) -> Event:
    raw = obj.raw
    series = mapping(raw.get("series"))
    first = when(raw.get("firstTimestamp")) or when(raw.get("eventTime")) or obj_created(obj)
    last = when(series.get("lastObservedTime")) or when(raw.get("lastTimestamp")) or first
    return Event(word(raw.get("reason")), word(raw.get("message")), raw.get("type") == "Warning", first, last)


@dataclass(frozen=True)
class Job:
    """A Job's wishes and state. `limit`: activeDeadlineSeconds; `failure`: reason of the condition that it failed for good, with `told`.

    `backoff`: how many failed pods it puts up with. `ended`: when it completed or failed.
    """

    name: str
    uid: str
    active: int
    succeeded: int
    failed: int
    parallelism: int
    completions: int
    backoff: int
    limit: int | None
    suspended: bool
    complete: bool
    failure: str
    told: str
    created: datetime | None
    started: datetime | None
    ended: datetime | None

    @property
    def title(self) -> str:
        return f"Job/{self.name}"

    @property
    def running(self) -> bool:
        """Neither complete nor failed for good."""
        return not self.complete and not self.failure

    @property
    def took(self) -> timedelta | None:
        """From its start to its end, once it has ended."""
        return self.ended - self.started if self.ended and self.started and self.ended >= self.started else None


def job_view(obj: KubeObject) -> Job:
    """A Job, with the API's defaults where a field is absent."""
    spec, status = mapping(obj.raw.get("spec")), mapping(obj.raw.get("status"))
    found = conditions(status)
    done, broken = (found.get(k) for k in ("Complete", "Failed"))
    broken = broken if broken and broken.status == "True" else next((c for c in (found.get("FailureTarget"),) if c), None)
    complete = done is not None and done.status == "True"
    failed = broken is not None and broken.status == "True"
    parallelism = max(0, number(spec.get("parallelism"), 1))
    ended = when(status.get("completionTime")) or (broken.changed if broken and failed else None)
    return Job(
        name=obj.name,
        uid=obj.uid,
        active=max(0, number(status.get("active"))),
        succeeded=max(0, number(status.get("succeeded"))),
        failed=max(0, number(status.get("failed"))),
        parallelism=parallelism,
        completions=max(0, number(spec.get("completions"), max(1, parallelism) if "parallelism" in spec else 1)),
        backoff=max(0, number(spec.get("backoffLimit"), 6)),
        limit=number(spec.get("activeDeadlineSeconds")) if isinstance(spec.get("activeDeadlineSeconds"), int) else None,
        suspended=flag(spec.get("suspend")),
        complete=complete,
        failure=(broken.reason or "Failed") if broken and failed and not complete else "",
        told=broken.message if broken and failed else "",
        created=obj_created(obj),
        started=when(status.get("startTime")),
        ended=ended,
    )


@dataclass(frozen=True)
class Cron:
    """A CronJob's own settings and what its controller last did. `starting`: startingDeadlineSeconds; `active`: Jobs that it waits for."""

    schedule: str
    zone: str
    suspended: bool
    concurrency: str
    starting: int | None
    created: datetime | None
    scheduled: datetime | None
    succeeded: datetime | None
    active: tuple[str, ...]


def cron_view(obj: KubeObject) -> Cron:
    """A CronJob's own part; its Jobs are revisions of the workload."""
    spec, status = mapping(obj.raw.get("spec")), mapping(obj.raw.get("status"))
    starting = spec.get("startingDeadlineSeconds")
    return Cron(
        schedule=word(spec.get("schedule"))[:200],
        zone=word(spec.get("timeZone"))[:100],
        suspended=flag(spec.get("suspend")),
        concurrency=word(spec.get("concurrencyPolicy")) or "Allow",
        starting=number(starting) if isinstance(starting, int) and not isinstance(starting, bool) else None,
        created=obj_created(obj),
        scheduled=when(status.get("lastScheduleTime")),
        succeeded=when(status.get("lastSuccessfulTime")),
        active=tuple(word(a.get("name")) for a in objects(status.get("active"))),
    )


@dataclass(frozen=True)
class Taint:
    """A taint of a node; `since` where the API tells it."""

    key: str
    value: str
    effect: str
    since: datetime | None


@dataclass(frozen=True)
class Node:
    """What a scheduler looks at. `room`: allocatable quantities as written, by resource."""

    name: str
    labels: Mapping[str, str] = field(repr=False)
    annotations: Mapping[str, str] = field(repr=False)
    taints: tuple[Taint, ...]
    cordoned: bool
    ready: bool
    room: Mapping[str, str] = field(repr=False)
    obj: KubeObject = field(repr=False)

    @property
    def title(self) -> str:
        return f"Node/{self.name}"


def node_view(obj: KubeObject) -> Node:
    """A node as the scheduler sees it. Without a Ready condition it counts as ready: the taint decides, not the condition."""
    spec, status = mapping(obj.raw.get("spec")), mapping(obj.raw.get("status"))
    ready = conditions(status).get("Ready")
    taints = tuple(
        Taint(word(t.get("key")), word(t.get("value")), word(t.get("effect")), when(t.get("timeAdded")))
        for t in objects(spec.get("taints"))
    )
    return Node(
        name=obj.name,
        labels=obj.labels,
        annotations=obj.annotations,
        taints=taints,
        cordoned=flag(spec.get("unschedulable")),
        ready=ready is None or ready.status == "True",
        room=words(status.get("allocatable")),
        obj=obj,
    )
