"""What kind of answer the state of a workload calls for, before any origin is sought: nothing, on its way, a fault, or not ours to name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from ..domain.diagnosis import Finding as Kind
from .evidence import safe
from .findings import TERMINAL, Finding, Trouble
from .read import count, sentence
from .scene import Scene, Workload
from .specialists.workload import WorkloadReport


@dataclass(frozen=True)
class State:
    """The kind of answer, its reason and one sentence with the numbers that decided."""

    kind: Kind
    reason: str
    words: str


def assess(scene: Scene, workload: Workload, report: WorkloadReport) -> State:
    """Nothing, on its way, a fault, or something that this release does not name; the first that holds."""
    name, title = safe(workload.name, 120), safe(workload.title, 250)
    now_failing = [f for f in report.findings if f.trouble in TERMINAL and f.revision is workload.current]
    if not scene.looked("Pod"):
        if workload.complete and workload.desired:
            return _settled(workload, report, name, title)
        has = f"{workload.available} of {count(workload.desired, 'replica')} available"
        return State(Kind.UNKNOWN, "PodsNotRead", f"{title} has {has}; its pods could not be looked at.")
    if workload.desired == 0:
        return State(Kind.UNKNOWN, "ScaledToZero", f"{title} is scaled to 0; whether that is meant, nothing here tells.")
    if now_failing:
        return State(Kind.FAULT, "PodsFail", sentence("; ".join(f.words for f in now_failing[:3])))
    return _other_trouble(scene, workload, report, title) or _settled(workload, report, name, title)


def _other_trouble(scene: Scene, workload: Workload, report: WorkloadReport, title: str) -> State | None:
    """Trouble of classes that come later: told, never forced into a class."""
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


def _settled(workload: Workload, report: WorkloadReport, name: str, title: str) -> State:
    updated = f"{workload.updated} of {count(workload.desired, 'replica')} updated, {workload.available} available"
    if workload.complete:
        current = f" ({workload.current.label})" if workload.current and workload.current.number else ""
        words = f"All {count(workload.desired, 'replica')} of {name} are available, and the rollout is complete{current}."
        return State(Kind.NO_FAULT, "NothingWrong", words)
    if workload.paused:
        return State(Kind.UNKNOWN, "Paused", f"{title} is paused ({updated}); somebody meant that.")
    if workload.deadline_exceeded:
        words = f"The rollout of {title} has made no progress within {workload.deadline} s, and no pod shows why ({updated})."
        return State(Kind.UNKNOWN, "RolloutStalled", words)
    what = workload.current.label if workload.current and workload.current.number else "a new template"
    old = sum(len(f.pods) for f in report.findings if f.trouble in TERMINAL)
    leaving = f"; {count(old, 'pod')} of older releases fail meanwhile" if old else ""
    return State(Kind.PROGRESSING, "RolloutUnderWay", f"{title} is on its way to {what}: {updated}{leaving}.")
