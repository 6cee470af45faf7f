"""Origins of a Job that gave up and of a CronJob that does not run: its own schedule, deadline, backoff or suspension.

A Job whose pods fail for a reason that can be named gets that reason, from the findings about these pods. What stands here is weak
where the Job's own setting is only what was used up, and strong where the setting itself is what must change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..evidence import Channel, Observation, safe, seen
from ..findings import CrashFinding, JobFinding, Trouble, UncreatedFinding
from ..hypotheses import Candidate, Cap, Mark
from ..read import clock, count, listed, span
from ..views import Job
from .created import created_origins
from .touched import Touch, last_touch

_NONE = ChangeRef(kind="None")
# The CronJob controller looks at each CronJob at least this often; a shorter starting deadline misses runs by itself.
_CONTROLLER_PERIOD = 10
_SETTINGS: dict[str, tuple[str, ...]] = {
    "Suspended": ("f:suspend",),
    "NeverFires": ("f:schedule",),
    "UnparseableSchedule": ("f:schedule",),
    "UnknownTimeZone": ("f:timeZone",),
}


def job_origins(case: Case, f: JobFinding) -> tuple[Candidate, ...]:
    """What of the Job itself is behind it."""
    match f.reason:
        case "DeadlineExceeded":
            found = tuple(_deadline(case, f))
        case "StillRunning":
            found = tuple(_still_running(case, f))
        case "MissedSchedule":
            found = tuple(_missed(case, f))
        case reason if reason in _SETTINGS:
            found = tuple(_setting(case, f, _SETTINGS[reason]))
        case _:
            found = tuple(_used_up(case, f))
    return tuple(replace(c, hits=(case.title,)) for c in found)


def _made(f: JobFinding, case: Case, statement: str, marks: tuple[Mark, ...], *, inferred: int, **more: object) -> Candidate:
    base = Candidate(Category.JOB, case.title, safe(statement), safe(statement, 400), _NONE, marks, inferred=inferred, finding=f)
    return replace(base, **more)  # type: ignore[arg-type]


def _used_up(case: Case, f: JobFinding) -> Iterator[Candidate]:
    """It has tried as often as it may. Why its pods fail is another question, which their own findings may answer."""
    job = f.job
    if job is None:
        return
    exits = [x for x in case.report.findings if isinstance(x, CrashFinding) and x.revision is f.revision and x.run is not None]
    how = f"; container {exits[0].container} exits with code {exits[0].run.exit_code}" if exits and exits[0].run else ""
    statement = (
        f"{job.title} has given up after {count(job.failed, 'failed pod')} (backoffLimit {job.backoff}, {safe(job.failure, 60)}){how}."
    )
    cap = (Cap("B", "why its pods fail is not shown, and that it gave up follows from it"),)
    yield _made(f, case, statement, (Mark("state fits", f.seen), Mark("no change seen")), inferred=1, caps=cap)


def _deadline(case: Case, f: JobFinding) -> Iterator[Candidate]:
    """Its time was up. Whether the time is too short, earlier runs tell."""
    job = f.job
    if job is None:
        return
    limit = timedelta(seconds=job.limit or 0)
    took = [(j, j.took) for j in case.workload.jobs if j.complete and j.took is not None]
    needed = max((t for _, t in took if t is not None), default=None)
    touch = _touch(case, "f:activeDeadlineSeconds")
    title = f"{job.title} was stopped at its deadline of {job.limit} s (activeDeadlineSeconds)"
    change = touch.change if touch is not None and not touch.created else _NONE
    marks: tuple[Mark, ...] = (Mark("mechanism named", f.seen), _changed(case, touch))
    if needed is not None and needed >= limit:
        runs = listed([f"{j.title} took {span(t)}" for j, t in took if t is not None])
        proof = seen(case.scene.listing("Job"), f"runs that completed: {runs}", Channel.CONTRAST)
        marks = (*marks, Mark("works elsewhere", (proof,)))
        yield _made(
            f, case, f"{title}; runs that complete need up to {span(needed)}.", marks, inferred=0, counterfactual=True, change=change
        )
    elif needed is not None:
        cap = (Cap("C", f"earlier runs took no more than {span(needed)}, so this one hung or waited"),)
        yield _made(
            f, case, f"{title}, though earlier runs took {span(needed)}.", (Mark("state fits", f.seen), marks[1]), inferred=1, caps=cap
        )
    else:
        cap = (Cap("B", "no run that completed is left to compare with"),)
        yield _made(f, case, f"{title}.", marks, inferred=1, caps=cap, change=change)


def _setting(case: Case, f: JobFinding, path: tuple[str, ...]) -> Iterator[Candidate]:
    """One setting by which it cannot run at all."""
    touch = last_touch(case.workload.obj, ("f:spec", *path))
    change = touch.change if touch is not None and not touch.created else _NONE
    lately = f" (since {clock(touch.at)[3:]})" if touch is not None and not touch.created else ""
    caps = (Cap("B", "suspending is something that people mean"),) if f.reason == "Suspended" else ()
    statement = f"{f.words}{lately}."
    marks = (Mark("mechanism named", f.seen), _changed(case, touch))
    yield _made(f, case, statement, marks, inferred=0, counterfactual=True, change=change, caps=caps)


def _still_running(case: Case, f: JobFinding) -> Iterator[Candidate]:
    """A run that does not end keeps the next ones away. If its pods are in trouble, that is the reason and this its effect."""
    running = [j for j in case.workload.jobs if j.running and j.active]
    troubled = any(x.pods and x.trouble is not Trouble.JOB for x in case.report.findings) or any(
        x.trouble is Trouble.NOT_CREATED for x in case.report.findings
    )
    old = min(running, key=_began, default=None)
    which = f" ({old.title} since {clock(old.started or old.created)[3:]})" if old else ""
    statement = f"{case.title} forbids runs side by side, and one does not end{which}, so that none was made {clock(f.due)}."
    if troubled:
        cap = (Cap("C", "the run that does not end has pods in trouble"),)
        yield _made(f, case, statement, (Mark("state fits", f.seen), Mark("no change seen")), inferred=1, caps=cap)
        return
    took = [j.took for j in case.workload.jobs if j.complete and j.took is not None]
    usual = f"; runs that complete take {span(max(t for t in took if t is not None))}" if took else ""
    proof: tuple[Observation, ...] = (seen(case.scene.listing("Job"), f"{statement}{usual}"),)
    marks = (Mark("mechanism named", (*f.seen, *proof)), Mark("no change seen"))
    yield _made(f, case, f"{statement.rstrip('.')}{usual}.", marks, inferred=1)


def _began(job: Job) -> str:
    return str(job.started or job.created)


def _missed(case: Case, f: JobFinding) -> Iterator[Candidate]:
    """It is due, nothing of its own forbids it, and there is no Job: refused, too late by its own deadline, or nobody acts."""
    w, cron = case.workload, case.workload.cron
    if cron is None:
        return
    told = case.scene.events("CronJob", w.name, w.obj.uid)
    refused = next((e for e in reversed(told) if e.reason == "FailedCreate"), None)
    if refused is not None:
        about = UncreatedFinding(Trouble.NOT_CREATED, f.revision, "", (), f.words, f.seen, "FailedCreate", f.onset, message=refused.message)
        if found := created_origins(case, about):
            yield from found
            return
    if cron.starting is not None and cron.starting < _CONTROLLER_PERIOD:
        touch = last_touch(w.obj, ("f:spec", "f:startingDeadlineSeconds"))
        statement = (
            f"{case.title} gives a run {cron.starting} s to start (startingDeadlineSeconds), less than its controller needs to notice."
        )
        change = touch.change if touch is not None and not touch.created else _NONE
        yield _made(f, case, statement, (Mark("mechanism named", f.seen), _changed(case, touch)), inferred=0, change=change)
        return
    if any(e.reason == "TooManyMissedTimes" for e in told):
        statement = f"{case.title} has missed so many runs that its controller gives up on it (set startingDeadlineSeconds)."
        yield _made(f, case, statement, (Mark("mechanism likely", f.seen), Mark("no change seen")), inferred=1)
        return
    cap = (Cap("C", "nothing of its own keeps it from running, so its controller may not be working"),)
    yield _made(
        f, case, f"{f.words}; nothing of its own forbids it.", (Mark("state fits", f.seen), Mark("no change seen")), inferred=2, caps=cap
    )


def _touch(case: Case, field: str) -> Touch | None:
    """When a field of the Job's spec was last written: in the CronJob's template, or in the Job itself."""
    if case.workload.cron is not None:
        return last_touch(case.workload.obj, ("f:spec", "f:jobTemplate", "f:spec", field))
    return last_touch(case.workload.obj, ("f:spec", field))


def _changed(case: Case, touch: Touch | None) -> Mark:
    if touch is None or touch.created:
        return Mark("no change seen")
    proof = seen(case.scene.listing(case.workload.kind), f"{case.title} {touch.told}", Channel.CHANGE)
    return Mark("edited before it began", (proof,))
