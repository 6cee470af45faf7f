"""The workload specialist: what state its pods are in, and since when. Machine-readable state first, message text after it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ...domain.redaction import redact
from ..evidence import Observation, safe, seen
from ..findings import (
    AILING,
    CrashFinding,
    Finding,
    ImageFinding,
    MissingFinding,
    Trouble,
    UncreatedFinding,
    UnscheduledFinding,
    VolumeFinding,
)
from ..images import PASSING, PullError, pull_error
from ..read import count, earliest, listed, mapping, objects, word
from ..references import Dangling, Reference, dangling, references
from ..scene import Revision, Scene, Workload
from ..views import CONFIG_REASONS, IMAGE_REASONS, STARTING_REASONS, Container, Event, Pod
from .batch import job_findings

# How long a pod may merely be starting before a reference that leads nowhere counts: `kubectl apply -f dir` makes Deployments and
# ConfigMaps in any order.
EARLY = timedelta(seconds=30)
UNPLACED = timedelta(seconds=60)
_SHOWN_PODS = 3
_TERMINATED = 143
# The third crash of a container that dies at once: back-off 10 s and 20 s, and three short runs.
_THIRD_CRASH = timedelta(seconds=210)
_FAILURE_EVENTS = frozenset({"Failed", "BackOff", "FailedMount", "FailedCreate", "InspectFailed"})
_RECENT = timedelta(minutes=10)
# Reasons of pods that a kubelet turned away at the door.
_REFUSED = re.compile(r"OutOf[a-z]+|NodeAffinity|NodePorts|UnexpectedAdmissionError")
_VOLUME_EVENTS = frozenset({"FailedMount", "FailedAttachVolume", "FailedMapVolume"})
# Of a Job that tries again: how many failures make a fault of it before it gives up, and how many of its dead pods are looked at.
_ENOUGH_FAILURES = 3
_MOST_SPENT = 20

_NOT_FOUND = re.compile(r"(?:^|[^a-z])(configmap|secret)s? \"([^\"\s]{1,253})\" not found", re.IGNORECASE)
_NO_KEY = re.compile(r"couldn't find key (\S{1,253}) in (ConfigMap|Secret) [^\s/]{1,63}/([^\s,]{1,253})")
_NO_ITEM = re.compile(r"(?:references non-existent (config|secret) key): (\S{1,253})")
# What admission looks up before a pod exists, in the API server's own words.
_NEEDED: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("ServiceAccount", re.compile(r"serviceaccounts? \"([^\"\s]{1,253})\" not found")),
    ("PriorityClass", re.compile(r"no PriorityClass with name (\S{1,253}) was found")),
    ("RuntimeClass", re.compile(r"RuntimeClass \"([^\"\s]{1,253})\" not found")),
)


@dataclass(frozen=True)
class WorkloadReport:
    """What the pods show. `serving`: uids of revisions with pods that are Ready and in no trouble."""

    findings: tuple[Finding, ...]
    serving: frozenset[str]
    healthy: tuple[Pod, ...]
    onset: datetime | None
    terminal_since: datetime | None

    @property
    def failing(self) -> tuple[Pod, ...]:
        """Pods in trouble now, each once."""
        return tuple({id(p): p for f in self.findings if f.trouble in AILING for p in f.pods}.values())


@dataclass(frozen=True)
class _Sign:
    """One pod's trouble, before pods are put together."""

    trouble: Trouble
    pod: Pod
    container: Container | None = None
    reason: str = ""
    message: str = ""
    reference: Reference | None = None
    key_only: bool = False
    proved: bool = False

    @property
    def group(self) -> tuple[str, str, str, str]:
        ref = self.reference
        return (
            self.trouble.name,
            self.container.name if self.container else "",
            ref.title if ref else "",
            ref.key if ref and self.key_only else "",
        )


def examine(scene: Scene, workload: Workload) -> WorkloadReport:
    """Every trouble of every revision that has pods, the current revision first."""
    findings: list[Finding] = []
    healthy: list[Pod] = []
    serving: set[str] = set()
    for revision in _current_first(workload):
        signs = [s for pod in revision.live for s in _signs(scene, revision, pod)]
        signs += [s for pod in _spent(workload, revision) for s in _last_words(workload, revision, pod)]
        troubled = {id(s.pod) for s in signs}
        well = [p for p in revision.live if p.ready and id(p) not in troubled]
        healthy += well
        if well or revision.worked:
            serving.add(revision.uid)
        grouped = _grouped(scene, revision, signs)
        findings += grouped or _bound_nowhere(scene, workload, revision) or _turned_away(scene, workload, revision)
        findings += _not_created(scene, workload, revision)
    findings += job_findings(scene, workload)
    return WorkloadReport(
        findings=tuple(findings),
        serving=frozenset(serving),
        healthy=tuple(healthy),
        onset=earliest(*(f.onset for f in findings if f.trouble is not Trouble.STARTING)),
        terminal_since=_terminal_since(scene, workload, findings),
    )


def _current_first(workload: Workload) -> list[Revision]:
    return sorted(workload.revisions, key=lambda r: r is not workload.current)


def _spent(workload: Workload, revision: Revision) -> tuple[Pod, ...]:
    """Pods that ended badly and stand for a failure now: of a Job that has not made good for them, and a bare Pod."""
    if workload.kind == "Pod":
        return revision.failed
    job = next((j for j in workload.jobs if j.uid == revision.uid and revision.kind == "Job"), None)
    if job is None or job.complete or (job is not workload.job and not job.running):
        return ()
    return revision.failed[:_MOST_SPENT]


def _last_words(workload: Workload, revision: Revision, pod: Pod) -> Iterator[_Sign]:
    """Why a pod ended, if one of its containers did; what was evicted or ran out of time did not fail by itself."""
    if pod.reason or pod.disruption:
        return
    job = next((j for j in workload.jobs if j.uid == revision.uid), None)
    retried = job is not None and not job.failure and job.failed < _ENOUGH_FAILURES
    broken = next((c for c in pod.containers if c.ended and c.ended.exit_code), None)
    if broken is None:
        return
    reason = broken.ended.reason if broken.ended and broken.ended.reason else "Error"
    if retried:
        yield _Sign(Trouble.STARTING, pod, broken, reason, "it failed, and its Job tries again")
    else:
        yield _Sign(Trouble.CRASH, pod, broken, reason)


# -- signs of one pod ---------------------------------------------------------------------------------------------------------------


def _signs(scene: Scene, revision: Revision, pod: Pod) -> Iterator[_Sign]:
    reason, message = _unplaced(scene, pod)
    if reason:
        waited = scene.now - pod.created if pod.created else UNPLACED
        limit = timedelta() if scene.doubted and pod.judged else scene.patience(UNPLACED)  # (what a scheduler has judged, it has judged)
        yield _Sign(Trouble.UNSCHEDULED if waited >= limit else Trouble.STARTING, pod, reason=reason, message=message)
        return
    found = [*_container_signs(scene, pod), *_latent(scene, revision, pod)]
    if not found and not pod.ready:
        found = [_unready(scene, revision, pod)]
    yield from found


def _unplaced(scene: Scene, pod: Pod) -> tuple[str, str]:
    """Why a pod has no node to run on, with the words for it; empty when it has one."""
    if pod.unschedulable:
        return pod.scheduling or "Unschedulable", pod.unschedulable
    if pod.node:
        absent = not pod.ready and not any(c.ever_ran for c in pod.containers) and _no_node(scene, pod.node)
        return ("NodeAbsent", f"it is bound to Node/{pod.node}, which does not exist") if absent else ("", "")
    return ("NotLookedAt", "no scheduler has looked at it") if not pod.judged else ("", "")


def _no_node(scene: Scene, name: str) -> bool:
    """Proved by a complete list of nodes (that has any: a cluster without nodes runs nothing, so such a list is no list)."""
    return scene.looked("Node") and bool(scene.nodes) and all(n.name != name for n in scene.nodes)


def _bound_nowhere(scene: Scene, workload: Workload, revision: Revision) -> list[Finding]:
    """Pods that are bound to an absent node are collected as garbage, so that between two tries there is none to look at."""
    name = word(revision.pod_spec.get("nodeName"))
    due = revision.desired or (workload.desired if revision is workload.current else 0)
    if revision.kind == "Pod" or not name or not due or revision.live or not _no_node(scene, name):
        return []
    words = f"pods of {revision.label} are bound to Node/{safe(name, 120)}, which does not exist, and are deleted again"
    observed = (seen(scene.listing("Node"), f"no Node is named {name}; there are: {listed([n.name for n in scene.nodes], 8) or 'none'}"),)
    return [UnscheduledFinding(Trouble.UNSCHEDULED, revision, "", (), words, observed, "NodeAbsent", revision.released, message=words)]


def _turned_away(scene: Scene, workload: Workload, revision: Revision) -> list[Finding]:
    """Pods that their node's kubelet refuses to take (the scheduler was not asked); their controller makes new ones without end."""
    pods = tuple(p for p in revision.failed if _REFUSED.fullmatch(p.reason) and (p.settled is None or scene.now - p.settled < _RECENT))
    if not pods or revision is not workload.current or workload.complete:
        return []
    first = pods[0]
    told = f"Node/{safe(first.node, 120)} does not take them ({safe(first.reason, 60)}: {safe(first.message, 300)})"
    words = f"{count(len(pods), 'pod')} of {revision.label}: {Trouble.UNSCHEDULED.value}: {told}"
    observed = (seen(scene.listing("Pod"), f"Pod/{first.name} on {first.node}: Failed {first.reason}: {redact(first.message)}"),)
    onset = earliest(*(p.created for p in pods))
    return [UnscheduledFinding(Trouble.UNSCHEDULED, revision, "", pods, words, observed, "Refused", onset, message=first.message)]


def _container_signs(scene: Scene, pod: Pod) -> Iterator[_Sign]:
    for c in pod.containers:
        if c.waiting in IMAGE_REASONS:
            yield _Sign(Trouble.IMAGE, pod, c, c.waiting, c.waiting_message)
        elif c.waiting in CONFIG_REASONS:
            yield _from_message(scene, pod, c, c.waiting, c.waiting_message)
        elif c.crash_loops(scene.now, doubted=scene.doubted):
            killed = _probe_kill(scene, pod, c)
            yield (
                _Sign(Trouble.PROBE, pod, c, c.waiting or "Error", killed)
                if killed
                else _Sign(Trouble.CRASH, pod, c, c.waiting or "Error", c.waiting_message)
            )


def _latent(scene: Scene, revision: Revision, pod: Pod) -> Iterator[_Sign]:
    """References that lead nowhere, proved by the list: also behind an image that cannot be pulled, where kubelet does not get to them."""
    if any(c.ever_ran for c in pod.containers if not c.init) or pod.ready:
        return
    young = pod.birth is not None and scene.now - pod.birth < scene.patience(EARLY)
    broken = {c.name for c in pod.containers if c.waiting in IMAGE_REASONS | CONFIG_REASONS}
    for d in _dangling(scene, revision, pod):
        if broken or not young:
            yield _missing(pod, d.reference, d.key_only, proved=True)


def _dangling(scene: Scene, revision: Revision, pod: Pod) -> tuple[Dangling, ...]:
    """Once per revision: its pods all have the same references."""
    key = ("dangling", revision.uid or pod.uid)
    if key not in scene.memo:
        scene.memo[key] = dangling(scene, pod.spec)
    found: tuple[Dangling, ...] = scene.memo[key]
    return found


def _missing(pod: Pod, ref: Reference, key_only: bool, *, proved: bool, message: str = "") -> _Sign:
    container = next((c for c in pod.containers if c.name == ref.container), None)
    return _Sign(
        Trouble.MISSING, pod, container, "CreateContainerConfigError" if ref.at_start else "FailedMount", message, ref, key_only, proved
    )


def _from_message(scene: Scene, pod: Pod, container: Container | None, reason: str, message: str) -> _Sign:
    """What kubelet says is missing counts only if the pod refers to it, and not against a complete list that has it."""
    named = _named_in(message, references(pod.spec))
    if named is None:
        return _Sign(Trouble.NOT_MADE, pod, container, reason, message)
    ref, key_only = named
    if ref.kind == "ConfigMap" and scene.looked("ConfigMap"):
        known = any(d.reference.title == ref.title and d.key_only == key_only for d in dangling(scene, pod.spec))
        if not known:
            return _Sign(Trouble.STARTING, pod, container, reason, f"{ref.what} was missing when kubelet looked and is there now")
        return _missing(pod, ref, key_only, proved=True, message=message)
    return _missing(pod, ref, key_only, proved=False, message=message)


def _named_in(message: str, refs: tuple[Reference, ...]) -> tuple[Reference, bool] | None:
    if m := _NO_KEY.search(message):
        return _match(refs, m.group(2), m.group(3), m.group(1))
    if m := _NOT_FOUND.search(message):
        return _match(refs, "ConfigMap" if m.group(1).lower() == "configmap" else "Secret", m.group(2), "")
    if m := _NO_ITEM.search(message):
        kind = "ConfigMap" if m.group(1) == "config" else "Secret"
        return next(((r, True) for r in refs if r.kind == kind and r.key == m.group(2)), None)
    return None


def _match(refs: tuple[Reference, ...], kind: str, name: str, key: str) -> tuple[Reference, bool] | None:
    found = [r for r in refs if r.kind == kind and r.name == name and (not key or r.key == key)]
    return (found[0], bool(key)) if found else None


def _unready(scene: Scene, revision: Revision, pod: Pod) -> _Sign:
    """A pod that is not ready without any terminal reason: it starts, its volumes cannot be made, or it runs and is not ready."""
    age = scene.now - pod.birth if pod.birth else timedelta()
    mains = [c for c in pod.containers if not c.init]
    if all(not c.running and c.latest_run is None and c.waiting in STARTING_REASONS for c in mains):
        if mount := next((e for e in reversed(scene.pod_events(pod)) if e.reason in _VOLUME_EVENTS and _fresh(scene, e)), None):
            return _from_message(scene, pod, None, mount.reason, mount.message)
        if busy := next((c for c in pod.containers if c.init and c.running), None):
            return _Sign(Trouble.STARTING, pod, busy, "PodInitializing", "the init container is still running")
        return _Sign(Trouble.STARTING, pod, reason="ContainerCreating", message="its containers are being made")
    if exited := next((c for c in pod.containers if c.latest_run and c.latest_run.exit_code and not c.running), None):
        return _Sign(Trouble.STARTING, pod, exited, "Error", f"exited {count(max(1, exited.crashes), 'time')}, kubelet starts it again")
    probe = next((e.message for e in reversed(scene.pod_events(pod)) if e.reason == "Unhealthy" and _fresh(scene, e)), "")
    # Where others of the same template serve, a young one is merely one more: an autoscaler at work, a pod made anew.
    patience = UNPLACED if any(p.ready for p in revision.live) else scene.patience(UNPLACED)
    trouble = Trouble.NOT_READY if age >= patience or pod.was_ready() else Trouble.STARTING
    return _Sign(trouble, pod, next((c for c in mains if not c.ready), None), "NotReady", probe or "it runs and is not ready")


def _fresh(scene: Scene, event: Event) -> bool:
    return event.last is None or scene.now - event.last < _RECENT


def _probe_kill(scene: Scene, pod: Pod, container: Container) -> str:
    """Kubelet's word that a probe killed it; only for a container that has such a probe, since anybody may write Events."""
    spec = next((c for c in objects(pod.spec.get("containers")) if word(c.get("name")) == container.name), {})
    if not any(mapping(spec.get(p)) for p in ("livenessProbe", "startupProbe")):
        return ""
    run = container.latest_run
    if run is None or run.out_of_memory or run.never_started:
        return ""
    for e in scene.pod_events(pod):
        text = e.message.lower()
        if e.reason in ("Killing", "Unhealthy") and ("liveness probe" in text or "startup probe" in text) and _fresh(scene, e):
            return e.message
    # Its Events may be gone, or never were seen: but nothing else ends a container by SIGTERM while its pod stays.
    return "it was stopped by SIGTERM (exit code 143), and it has a liveness or startup probe" if run.exit_code == _TERMINATED else ""


# -- pods put together --------------------------------------------------------------------------------------------------------------


def _grouped(scene: Scene, revision: Revision, signs: Iterable[_Sign]) -> list[Finding]:
    groups: dict[tuple[str, str, str, str], list[_Sign]] = {}
    for sign in signs:
        groups.setdefault(sign.group, []).append(sign)
    found = (_finding(scene, revision, g) for g in groups.values())
    return [replace(f, onset=earliest(*(_onset(scene, p) for p in f.pods))) for f in found]


def _finding(scene: Scene, revision: Revision, group: list[_Sign]) -> Finding:
    pods = tuple({id(s.pod): s.pod for s in group}.values())
    first = max(group, key=lambda s: bool(s.message))
    match first.trouble:
        case Trouble.IMAGE:
            return _image(scene, revision, group, pods)
        case Trouble.CRASH:
            return _crash(scene, revision, group, pods)
        case Trouble.MISSING if first.reference is not None:
            return _missing_finding(scene, revision, group, first, first.reference, pods)
        case _:
            where = f"container {first.container.name} of " if first.container else ""
            words = (
                f"{where}{count(len(pods), 'pod')} of {revision.label}: {first.trouble.value}: {safe(first.message or first.reason, 400)}"
            )
            return _plain(first, revision, pods, words, _shown(scene, group))


def _plain(first: _Sign, revision: Revision, pods: tuple[Pod, ...], words: str, observed: tuple[Observation, ...]) -> Finding:
    """A finding that is told in its own words; what placing and mounting say goes along for their origins."""
    container = first.container.name if first.container else ""
    if first.trouble is Trouble.UNSCHEDULED:
        return UnscheduledFinding(first.trouble, revision, container, pods, words, observed, first.reason, message=first.message)
    if first.trouble is Trouble.NOT_MADE:
        return VolumeFinding(first.trouble, revision, container, pods, words, observed, first.reason, message=first.message)
    return Finding(first.trouble, revision, container, pods, words, observed, first.reason)


def _image(scene: Scene, revision: Revision, group: list[_Sign], pods: tuple[Pod, ...]) -> ImageFinding:
    container = group[0].container
    assert container is not None
    told = [
        e for s in group[:20] for e in scene.pod_events(s.pod) if e.reason in ("Failed", "InspectFailed") and container.image in e.message
    ]
    error = pull_error(container.waiting, container.image, tuple([s.message for s in group[:20]] + [e.message for e in told]))
    observed = (*_shown(scene, group), *_told(scene, pods[0], told, error, container.image))
    who = f"{count(len(pods), 'pod')} of {revision.label}"
    words = f"{who} cannot pull image {safe(container.image, 300)} of container {container.name}: {error.value}"
    return ImageFinding(
        Trouble.IMAGE,
        revision,
        container.name,
        pods,
        words,
        observed,
        container.waiting,
        image=container.image,
        error=error,
        init=container.init,
    )


def _told(scene: Scene, pod: Pod, events: list[Event], error: PullError, image: str) -> tuple[Observation, ...]:
    """The Event that says most: the one whose text gave the kind of error, else the first."""
    best = next((e for e in events if pull_error("", image, (e.message,)) is error), events[0] if events else None)
    return (seen(scene.listing("Event"), f"Event about Pod/{pod.name}: {best.reason}: {redact(best.message)}"),) if best else ()


def _crash(scene: Scene, revision: Revision, group: list[_Sign], pods: tuple[Pod, ...]) -> CrashFinding:
    worst = max(group, key=lambda s: s.container.crashes if s.container else 0)
    container = worst.container
    assert container is not None
    run = container.latest_run
    how = (
        f"exits with code {run.exit_code}" + (f" ({safe(run.reason, 60)})" if run.reason not in ("", "Error") else "")
        if run
        else "cannot be started"
    )
    words = f"container {container.name} of {count(len(pods), 'pod')} of {revision.label} {how} again and again"
    return CrashFinding(
        Trouble.CRASH,
        revision,
        container.name,
        pods,
        words,
        _shown(scene, group),
        worst.reason,
        run=run,
        memory_limit=container.memory_limit,
        init=container.init,
    )


def _missing_finding(
    scene: Scene, revision: Revision, group: list[_Sign], first: _Sign, ref: Reference, pods: tuple[Pod, ...]
) -> MissingFinding:
    proved = any(s.proved for s in group)
    observed = list(_shown(scene, [s for s in group if s.message] or group))
    if proved:
        names = sorted(o.name for o in scene.all("ConfigMap"))
        lacks = (
            f"ConfigMap/{ref.name} has no key {ref.key}"
            if first.key_only
            else f"no ConfigMap is named {ref.name}; there are: {listed(names, 8) or 'none'}"
        )
        observed.append(seen(scene.listing("ConfigMap"), lacks))
    missing = f"key {ref.key} of {ref.title}" if first.key_only else ref.title
    words = f"{missing} does not exist, and {count(len(pods), 'pod')} of {revision.label} cannot start without it ({ref.path})"
    return MissingFinding(
        Trouble.MISSING,
        revision,
        ref.container,
        pods,
        words,
        tuple(observed),
        first.reason,
        reference=ref,
        key_only=first.key_only,
        proved=proved,
    )


def _shown(scene: Scene, group: list[_Sign]) -> tuple[Observation, ...]:
    """The state of up to three pods, as the API server gave it."""
    listing = scene.listing("Pod")
    return tuple(seen(listing, _state(s)) for s in sorted(group, key=lambda s: (not s.message, s.pod.name))[:_SHOWN_PODS])


def _state(sign: _Sign) -> str:
    pod, c = sign.pod, sign.container
    at = f"Pod/{pod.name} on {pod.node or 'no node'}"
    if c is None:
        return f"{at}: {sign.reason}: {redact(sign.message)}"
    state = "running" if c.running else "terminated" if c.ended else sign.reason
    if c.waiting:
        state = f"waiting {c.waiting}: {redact(c.waiting_message)}"
    return f"{at}: container {c.name} (image {c.image}) {state}{_last_run(c)}"


def _last_run(c: Container) -> str:
    run = c.latest_run
    if run is None:
        return ""
    said = f", message {redact(run.message)}" if run.message else ""
    return f"; last run exit code {run.exit_code} {run.reason}{said}, restarts {c.restarts}"


def _not_created(scene: Scene, workload: Workload, revision: Revision) -> list[Finding]:
    """Pods that the API server refuses. A ReplicaSet's status says so; the other controllers leave only an Event."""
    message, since, proved = _refusal(scene, workload, revision)
    if not message:
        return []
    title = revision.title if revision.create_failure else workload.title
    how = "ReplicaFailure" if proved else "Event FailedCreate"
    observed = (seen(scene.listing(title.partition("/")[0] if proved else "Event"), f"{title}: {how}: {redact(message)}"),)
    if (needed := _needed_first(scene, revision, message)) is not None:
        return [replace(f, seen=(*observed, *f.seen), onset=since) for f in needed]
    words = f"pods of {revision.label} cannot be created: {safe(message, 400)}"
    return [
        UncreatedFinding(
            Trouble.NOT_CREATED,
            revision,
            "",
            (),
            words,
            observed,
            "FailedCreate",
            since,
            message=message,
            proved=proved,
        )
    ]


def _refusal(scene: Scene, workload: Workload, revision: Revision) -> tuple[str, datetime | None, bool]:
    """The API server's words, since when, and whether a status holds them; empty when as many pods are there as there should be."""
    told = scene.events(revision.kind, revision.name, revision.uid) if revision.kind in ("ReplicaSet", "Job") else []
    if revision.create_failure and revision.desired > len(revision.live):
        first = earliest(*(e.first for e in told if e.reason == "FailedCreate"))
        return revision.create_failure, earliest(first, revision.refused), True
    if revision is not workload.current:
        return "", None, False
    if workload.kind == "Deployment":
        failure = workload.conditions.get("ReplicaFailure")
        if failure is None or failure.status != "True" or workload.complete or any(r.create_failure for r in workload.revisions):
            return "", None, False
        return failure.message or failure.reason, failure.changed, True
    due = revision.desired if workload.runs_once else workload.desired
    if workload.kind == "Pod" or len(revision.live if workload.runs_once else workload.pods) >= due:
        return "", None, False
    told = [*told, *scene.events(workload.kind, workload.name, workload.obj.uid)]
    refused = [e for e in told if e.reason == "FailedCreate" and e.warning and _fresh(scene, e)]
    return (refused[-1].message, earliest(*(e.first for e in refused)), False) if refused else ("", None, False)


def _needed_first(scene: Scene, revision: Revision, message: str) -> list[Finding] | None:
    """The account or class that admission looks up before it lets a pod in; None when the message names none."""
    for kind, pattern in _NEEDED:
        match = pattern.search(message)
        if match is None:
            continue
        spec, name = revision.pod_spec, match.group(1)
        ref = next((r for r in references(spec) if r.kind == kind and r.name == name), None)
        if ref is None and not (kind == "ServiceAccount" and name == "default" and not any(r.kind == kind for r in references(spec))):
            return None  # somebody else's words: the template does not ask for it
        ref = ref or Reference(kind, name, "", False, "spec.serviceAccountName")
        there = any(o.name == name for o in scene.all(kind))
        if there:
            return []  # it was missing when the controller last tried, and is there now
        proved = scene.looked(kind)
        names = sorted(o.name for o in scene.all(kind))
        lacks = seen(scene.listing(kind), f"no {kind} is named {name}; there are: {listed(names, 8) or 'none'}")
        words = f"{ref.title} does not exist, and pods of {revision.label} cannot be created without it ({ref.path})"
        found = MissingFinding(
            Trouble.MISSING, revision, "", (), safe(words), (lacks,) if proved else (), "FailedCreate", reference=ref, proved=proved
        )
        return [found]
    return None


# -- since when ---------------------------------------------------------------------------------------------------------------------


def _onset(scene: Scene, pod: Pod) -> datetime | None:
    """When the pod's trouble began: at its start if it never served, else at the first sign that is left."""
    if not pod.was_ready():
        return pod.birth
    told = [e.first for e in scene.pod_events(pod) if e.warning and e.reason in _FAILURE_EVENTS and _fresh(scene, e)]
    runs = [c.latest_run.finished for c in pod.containers if c.latest_run and c.latest_run.exit_code]
    return earliest(*told, *runs, None if pod.ready else pod.ready_changed) or pod.birth


def _terminal_since(scene: Scene, workload: Workload, findings: list[Finding]) -> datetime | None:
    """Since when a reason that does not end by waiting has held at the current revision; None if a pod of it was ever Ready."""
    current = workload.current
    if current is None or workload.completed_once or any(p.was_ready() for p in current.live):
        return None
    return earliest(*(_held_since(scene, f, p) for f in findings if f.revision is current for p in f.pods))


def _held_since(scene: Scene, finding: Finding, pod: Pod) -> datetime | None:
    if isinstance(finding, CrashFinding):
        return _third_crash(scene, finding, pod)
    if isinstance(finding, ImageFinding):
        return None if finding.error in PASSING else _told_since(scene, pod)
    return _told_since(scene, pod) if finding.trouble in (Trouble.MISSING, Trouble.NOT_MADE) else None


def _told_since(scene: Scene, pod: Pod) -> datetime | None:
    """The first Event that told of it, else the last change of any condition of the pod (the reason itself carries no time)."""
    told = earliest(*(e.first for e in scene.pod_events(pod) if e.warning and e.reason in _FAILURE_EVENTS))
    return told if told and pod.birth and told >= pod.birth else pod.settled or pod.birth


def _third_crash(scene: Scene, finding: CrashFinding, pod: Pod) -> datetime | None:
    """No later than the latest crash, nor than what three short runs take: the API keeps no time of the third one."""
    container = next((c for c in pod.containers if c.name == finding.container), None)
    if container is None or container.crashes < 3:
        return None
    latest = container.latest_run.finished if container.latest_run else None
    reckoned = pod.birth + _THIRD_CRASH if pod.birth else None
    return earliest(latest, reckoned, scene.now)
