"""What is wrong with a Job or a CronJob by itself: it has given up, is suspended, or does not run when it should."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from ..evidence import Observation, safe, seen
from ..findings import JobFinding, Trouble
from ..read import clock, span, words
from ..scene import Revision, Scene, Workload
from ..views import Cron, Job

# The CronJob controller looks again within seconds of a run's time; a minute later a run that did not come is missed.
GRACE = timedelta(seconds=90)
# Queues suspend the Jobs that wait in them, and resume them by themselves.
_QUEUES = ("kueue.x-k8s.io/queue-name", "scheduling.volcano.sh/queue-name", "pod-group.scheduling.sigs.k8s.io/name")


def job_findings(scene: Scene, workload: Workload) -> Iterator[JobFinding]:
    """Troubles of a Job's or CronJob's own; nothing for other kinds, and nothing for a run that a later one has made good."""
    current = workload.current
    if not workload.runs_once or current is None:
        return
    if workload.cron is not None:
        yield from _of_cron(scene, workload, workload.cron, current)
        return
    job = workload.job
    if job is not None:
        yield from _of_job(scene, workload, job, current)


def _of_job(scene: Scene, workload: Workload, job: Job, revision: Revision) -> Iterator[JobFinding]:
    if job.failure:
        yield _given_up(scene, job, revision)
    elif job.suspended and job.running and not queued(workload):
        text = f"{job.title} is suspended, with {job.succeeded} of {job.completions} completions"
        yield JobFinding(Trouble.JOB, revision, "", (), text, (_saw(scene, "Job", text),), "Suspended", job.created, job=job)


def queued(workload: Workload) -> bool:
    """Whether a queue admits this Job when there is room: then being suspended is waiting."""
    labels = words(workload.obj.labels)
    return any(q in labels for q in _QUEUES)


def _given_up(scene: Scene, job: Job, revision: Revision) -> JobFinding:
    limits = f"failed pods {job.failed}, backoffLimit {job.backoff}" + (
        f", activeDeadlineSeconds {job.limit}" if job.limit is not None else ""
    )
    text = f"{job.title} has failed ({safe(job.failure, 80)}: {safe(job.told, 300) or 'no message'}; {limits}, succeeded {job.succeeded})"
    onset = job.ended or job.started or job.created
    return JobFinding(Trouble.JOB, revision, "", revision.failed, text, (_saw(scene, "Job", text),), job.failure, onset, job=job)


def _of_cron(scene: Scene, workload: Workload, cron: Cron, current: Revision) -> Iterator[JobFinding]:
    title, newest = safe(workload.title, 250), workload.job
    if newest is not None and newest.failure:
        yield _given_up(scene, newest, current)
    reason, text, due = _own_trouble(scene, workload, cron)
    if reason:
        words_ = f"{title} {text}"
        since = due or cron.scheduled or cron.created
        told = _saw(scene, "CronJob", f"{words_}; schedule {safe(cron.schedule, 100)}, last scheduled {clock(cron.scheduled)}")
        yield JobFinding(Trouble.JOB, current, "", (), words_, (told,), reason, since, job=newest, due=due)


def _own_trouble(scene: Scene, workload: Workload, cron: Cron) -> tuple[str, str, datetime | None]:
    """Reason, words and the run that did not come; empty when it keeps its schedule."""
    if cron.suspended:
        return "Suspended", "is suspended, so it makes no Jobs", None
    zone = zone_of(cron)
    if zone is None:
        return "UnknownTimeZone", f"names a time zone that nobody knows ({safe(cron.zone, 80)})", None
    schedule = safe(cron.schedule, 80)
    try:
        due = last_due(cron, scene.now, zone)
    except CronSimError:
        if _names_no_day(cron):
            return "NeverFires", f"has a schedule that never comes ({schedule})", None
        told = scene.events("CronJob", workload.name, workload.obj.uid)
        bad = any(e.reason in ("UnparseableSchedule", "InvalidSchedule") for e in told)
        return ("UnparseableSchedule", f"has a schedule that cannot be read ({schedule})", None) if bad else ("", "", None)
    if due is None or scene.now - due < GRACE:
        return "", "", None
    active = [j for j in workload.jobs if j.running and not j.suspended and (j.name in cron.active or j.active)]
    if cron.concurrency == "Forbid" and active:
        old = min(active, key=lambda j: str(j.started or j.created))
        since = f", running since {clock(old.started or old.created)[3:]}"
        return "StillRunning", f"did not run {clock(due)}: it forbids runs side by side, and {old.title} is not done{since}", due
    return "MissedSchedule", f"should have run {clock(due)} and did not, {span(scene.now - due)} ago", due


def zone_of(cron: Cron) -> tzinfo | None:
    """The time zone of the schedule (UTC where none is set, as controllers run); None for one that nobody knows."""
    if not cron.zone:
        return UTC
    if cron.zone == "Local":
        return None  # (the API server refuses it, a dump may hold it)
    try:
        return ZoneInfo(cron.zone)
    except Exception:  # noqa: BLE001  (ZoneInfo raises several kinds over names that nobody vouches for)
        return None


def last_due(cron: Cron, now: datetime, zone: tzinfo) -> datetime | None:
    """The newest run that should have been made and was not: after the last one made, or the CronJob's creation, and up to now.

    Raises CronSimError for a schedule that cannot be read.
    """
    since = cron.scheduled or cron.created
    if since is None or since >= now:
        CronSim(_expression(cron), now)
        return None
    before = next(CronSim(_expression(cron), now.astimezone(zone), reverse=True), None)
    return before.astimezone(UTC) if before is not None and before.astimezone(UTC) > since + timedelta(seconds=1) else None


def _names_no_day(cron: Cron) -> bool:
    """Whether it names only days that no month of it has, such as 31 February: the API server takes that, and it never fires."""
    fields = _expression(cron).split()
    if len(fields) != 5 or fields[4] != "*":
        return False
    try:
        CronSim(" ".join((*fields[:2], "1", *fields[3:])), datetime(2024, 1, 1, tzinfo=UTC))
        CronSim(" ".join((*fields[:3], "1", fields[4])), datetime(2024, 1, 1, tzinfo=UTC))
    except CronSimError:
        return False
    return True


_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def _expression(cron: Cron) -> str:
    """Five fields. `@every 5m` has no fixed times, so nothing can be told of it: every minute is the careful reading."""
    text = cron.schedule.strip()
    if text.startswith("@every "):
        raise CronSimError("no fixed times")
    return _NAMED.get(text.lower(), text).replace("?", "*")


def _saw(scene: Scene, kind: str, text: str) -> Observation:
    return seen(scene.listing(kind), text)
