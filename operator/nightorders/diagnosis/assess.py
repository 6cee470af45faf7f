"""What kind of answer the state of a workload calls for, before any origin is sought: nothing, on its way, a fault, or not ours to name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ..domain.diagnosis import Finding as Kind
from .evidence import safe
from .findings import TERMINAL, Finding, JobFinding, Trouble
from .read import clock, count, latest, sentence
from .scene import Scene, Workload
from .specialists.batch import queued
from .specialists.workload import WorkloadReport


@dataclass(frozen=True)
class State:
    """The kind of answer, its reason and one sentence with the numbers that decided."""

    kind: Kind
    reason: str
    words: str


def assess(scene: Scene, workload: Workload, report: WorkloadReport) -> State:
    """Nothing, on its way, a fault, or something that nobody can tell from here; the first that holds."""
    name, title = safe(workload.name, 120), safe(workload.title, 250)
    if workload.runs_once:
        return _batch(scene, workload, report, title)
    now_failing = [f for f in report.findings if f.trouble in TERMINAL and f.revision is workload.current]
    if not scene.looked("Pod"):
        if workload.complete and workload.desired:
            return _settled(scene, workload, report, name, title)
        has = f"{workload.available} of {count(workload.desired, 'replica')} available"
        return State(Kind.UNKNOWN, "PodsNotRead", f"{title} has {has}; its pods could not be looked at.")
    if workload.desired == 0 and workload.kind == "DaemonSet":
        return _nowhere(workload, report, title)
    if workload.desired == 0:
        return State(Kind.UNKNOWN, "ScaledToZero", f"{title} is scaled to 0; whether that is meant, nothing here tells.")
    if now_failing:
        return State(Kind.FAULT, "PodsFail", sentence("; ".join(f.words for f in now_failing[:3])))
    return _other_trouble(scene, workload, report, title) or _settled(scene, workload, report, name, title)


def _nowhere(workload: Workload, report: WorkloadReport, title: str) -> State:
    """A DaemonSet that no node is wished for. Many are made for machines that this cluster does not have."""
    if found := next((f for f in report.findings if f.trouble is Trouble.UNSCHEDULED and f.revision is workload.current), None):
        return State(Kind.FAULT, "Unschedulable", sentence(found.words))
    return State(Kind.NO_FAULT, "NoNodeWanted", f"{title} wants no pod: no node matches what it asks for, and nothing shows that one did.")


def _batch(scene: Scene, workload: Workload, report: WorkloadReport, title: str) -> State:
    """Jobs and CronJobs: what has failed for good, what runs, what waits, what is done."""
    current, job = workload.current, workload.job
    troubles = [f for f in report.findings if isinstance(f, JobFinding)]
    failing = [f for f in report.findings if f.trouble in TERMINAL and (f.revision is current or (job is not None and job.running))]
    failed = next((f for f in troubles if f.job is not None and f.reason == f.job.failure), None)
    if failed is not None or failing:
        told = [f.words for f in (*failing[:2], *((failed,) if failed else ()))]
        return State(Kind.FAULT, "JobFailed" if failed else "PodsFail", sentence("; ".join(told)))
    stuck = _held_up(scene, workload, report)
    if troubles and (stuck is None or troubles[0].reason != "StillRunning"):
        words = "; ".join(f.words for f in (*troubles[:2], *((stuck,) if stuck else ())))
        return State(Kind.FAULT, troubles[0].reason, sentence(words))
    if stuck is not None:
        return State(Kind.FAULT, "JobStuck", sentence(stuck.words))
    if job is not None and job.complete:
        return State(
            Kind.NO_FAULT, "JobComplete", f"{job.title} of {title} completed {clock(job.ended)}." if workload.cron else _done(workload)
        )
    if job is not None and job.suspended and queued(workload):
        return State(Kind.PROGRESSING, "JobQueued", f"{title} is suspended by the queue that it waits in.")
    if job is None:
        return State(Kind.NO_FAULT, "NothingDue", f"{title} has no Job yet, and none is due.")
    running = (
        f"{job.title} runs since {clock(job.started or job.created)[3:]}: {job.active} active, {job.succeeded} of {job.completions} done"
    )
    return State(Kind.PROGRESSING, "JobRunning", sentence(f"{running}, {count(job.failed, 'failed pod')}"))


def _done(workload: Workload) -> str:
    job = workload.job
    assert job is not None
    return f"{workload.title} completed {clock(job.ended)} ({job.succeeded} of {job.completions})."


def _held_up(scene: Scene, workload: Workload, report: WorkloadReport) -> Finding | None:
    """Pods of a Job that do not get to run: not created, not placed, or starting for longer than anything takes."""
    for f in report.findings:
        if f.trouble in (Trouble.NOT_CREATED, Trouble.UNSCHEDULED) or (f.trouble is Trouble.STARTING and _overdue(scene, workload, f)):
            return f
    return None


def _other_trouble(scene: Scene, workload: Workload, report: WorkloadReport, title: str) -> State | None:
    """Pods that do not come to run, or run and are not ready: whether that has an origin that can be shown, others decide."""
    current = [f for f in report.findings if f.revision is workload.current or f.trouble is Trouble.NOT_CREATED]
    for trouble, reason in ((Trouble.NOT_CREATED, "PodsNotCreated"), (Trouble.UNSCHEDULED, "Unschedulable")):
        if found := next((f for f in current if f.trouble is trouble), None):
            return State(Kind.UNKNOWN, reason, sentence(found.words))
    failure = workload.conditions.get("ReplicaFailure")
    if failure is not None and failure.status == "True" and not workload.complete:
        return State(Kind.UNKNOWN, "PodsNotCreated", f"Pods of {title} cannot be created: {safe(failure.message or failure.reason, 600)}")
    waited_enough = workload.deadline_exceeded or workload.completed_once
    if (unready := next((f for f in current if f.trouble is Trouble.NOT_READY), None)) and waited_enough and not workload.complete:
        return State(Kind.UNKNOWN, "NotReady", sentence(unready.words))
    slow = next((f for f in current if f.trouble is Trouble.STARTING and _overdue(scene, workload, f)), None)
    if slow is not None:
        return State(Kind.UNKNOWN, "NotReady", sentence(slow.words))
    return None


def _overdue(scene: Scene, workload: Workload, finding: Finding) -> bool:
    limit = timedelta(seconds=workload.deadline)
    return any(p.birth is not None and scene.now - p.birth > limit for p in finding.pods)


def _silent_since(workload: Workload) -> datetime | None:
    """When a workload whose controller keeps no deadline last moved: its template, or the youngest of its pods."""
    if workload.kind == "Deployment":
        return None
    released = workload.current.released if workload.current else None
    return latest(released, *(p.created for p in workload.pods), *(p.ready_changed for p in workload.pods))


def _settled(scene: Scene, workload: Workload, report: WorkloadReport, name: str, title: str) -> State:
    numbers = f"{workload.updated} of {count(workload.desired, 'replica')} updated, {workload.available} available"
    updated = numbers if not workload.spared else f"{numbers}, {workload.spared} may stay on an older template"
    if workload.complete:
        current = f" ({workload.current.label})" if workload.current and workload.current.number else ""
        words = f"All {count(workload.desired, 'replica')} of {name} are available, and the rollout is complete{current}."
        if workload.kind == "Pod":
            words = f"{title} is {'Ready' if workload.ready_pods else 'done'}."
        return State(Kind.NO_FAULT, "NothingWrong", words)
    if workload.paused and workload.available >= workload.desired > 0:
        return State(
            Kind.PROGRESSING, "Paused", f"{title} is paused in mid-rollout ({updated}): somebody meant that, and enough of it serves."
        )
    if workload.paused:
        return State(Kind.UNKNOWN, "Paused", f"{title} is paused ({updated}); somebody meant that.")
    if workload.deadline_exceeded:
        words = f"The rollout of {title} has made no progress within {workload.deadline} s, and no pod shows why ({updated})."
        return State(Kind.UNKNOWN, "RolloutStalled", words)
    if (since := _silent_since(workload)) is not None and scene.now - since > timedelta(seconds=workload.deadline):
        words = f"{title} has made no progress since {clock(since)[3:]}, and no pod shows why ({updated})."
        return State(Kind.UNKNOWN, "RolloutStalled", words)
    what = workload.current.label if workload.current and workload.current.number else "a new template"
    old = sum(len(f.pods) for f in report.findings if f.trouble in TERMINAL)
    leaving = f"; {count(old, 'pod')} of older releases fail meanwhile" if old else ""
    return State(Kind.PROGRESSING, "RolloutUnderWay", f"{title} is on its way to {what}: {updated}{leaving}.")
