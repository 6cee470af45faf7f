"""Jobs and CronJobs: what of their own settings keeps them from being done, and when it is not theirs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from nightorders.api.v1alpha1.common import ObjectRef
from nightorders.diagnosis.origins import origins
from nightorders.diagnosis.specialists.batch import last_due, zone_of
from nightorders.diagnosis.supervisor import diagnose
from nightorders.diagnosis.views import cron_view
from nightorders.diagnosis.world import World
from nightorders.domain.diagnosis import Finding as Kind

from .between import kube, told, world, written
from .build import DAY, HOUR, MINUTE, NOW, Raw, at, container, event, pod, template, waiting
from .test_created import OVER, asked, quota
from .test_kinds import attempt, complete, cron, failed, job
from .test_scheduling import CPU, nodes

CRON, JOB = "CronJob/nightly", "Job/report"


def runs(owner: Raw, *statuses: Raw, spec: Raw | None = None) -> list[Raw]:
    """Jobs of a CronJob, the newest first, an hour apart."""
    return [job(f"nightly-{i}", age=(i + 1) * HOUR, owner=owner, spec=spec, **s) for i, s in enumerate(statuses)]


def top(w: World, title: str) -> str:
    """The first hypothesis of the whole engine."""
    kind, _, name = title.partition("/")
    target = ObjectRef(api_version="batch/v1", kind=kind, name=name)
    found = diagnose(w.scene.snapshot, target, (), NOW)
    first = next(h for h in found.hypotheses if not h.refuted)
    return f"{first.category} {first.object}"


# -- Jobs ---------------------------------------------------------------------------------------------------------------------------


def test_a_job_that_has_used_up_its_backoff_for_no_reason_that_is_shown() -> None:
    gone = job(**failed())
    w = world(gone, [attempt(gone, i) for i in range(7)])
    assert "Job Job/report B" in asked(w, JOB)
    assert top(w, JOB) == "Job Job/report"


def test_a_job_whose_image_cannot_be_pulled_gets_that_reason() -> None:
    stuck = job(active=1, startTime=at(HOUR))
    broken = pod(stuck, 0, age=HOUR, ready=False, states=[waiting("ImagePullBackOff", "not found")], phase="Pending")
    said = event(broken, "Failed", 'Failed to pull image "registry.example/checkout:2.4.0": not found', first=HOUR)
    assert top(world(stuck, broken, said), JOB) == "ImageAccess Job/report"


def test_a_job_whose_pods_find_no_node_gets_that_reason() -> None:
    t = template(container(resources={"requests": {"cpu": "64"}}))
    stuck = job(t=t, active=1, startTime=at(HOUR))
    w = world(stuck, pod(stuck, 0, age=HOUR, ready=False, scheduled=CPU, phase="Pending"), nodes())
    assert top(w, JOB) == "Unschedulable Job/report"


def test_a_job_whose_pods_a_quota_refuses() -> None:
    t = template(container(resources={"requests": {"cpu": "2"}}))
    stuck = job(t=t, startTime=at(HOUR))
    said = event(stuck, "FailedCreate", f'Error creating: pods "report-x" is forbidden: {OVER}', first=HOUR, last=MINUTE)
    assert asked(world(stuck, said, quota("3", "4")), JOB) == ["Quota ResourceQuota/team A"]


def test_a_deadline_that_runs_need_longer_than() -> None:
    owner = cron()
    owner["metadata"]["managedFields"] = [written(2 * HOUR, "spec", "jobTemplate", "spec", "activeDeadlineSeconds")]
    w = world(owner, runs(owner, failed("DeadlineExceeded"), complete(ago=2 * HOUR, took=20 * MINUTE), spec={"activeDeadlineSeconds": 300}))
    assert asked(w, CRON) == ["Job CronJob/nightly Edit A"]


def test_a_deadline_that_was_always_enough_is_a_run_that_hung() -> None:
    owner = cron()
    w = world(owner, runs(owner, failed("DeadlineExceeded"), complete(ago=2 * HOUR, took=MINUTE), spec={"activeDeadlineSeconds": 300}))
    assert asked(w, CRON) == ["Job CronJob/nightly C"]


def test_a_deadline_without_any_run_to_compare_with() -> None:
    assert asked(world(job(spec={"activeDeadlineSeconds": 60}, **failed("DeadlineExceeded"))), JOB) == ["Job Job/report B"]


def test_a_suspended_job_is_what_somebody_may_have_meant() -> None:
    assert asked(world(job(spec={"suspend": True})), JOB) == ["Job Job/report B"]


def test_a_completed_job_and_one_that_runs_have_no_origin() -> None:
    assert asked(world(job(**complete(ago=MINUTE))), JOB) == []
    running = job(active=1, startTime=at(MINUTE))
    assert asked(world(running, pod(running, 0, age=MINUTE)), JOB) == []


# -- CronJobs -----------------------------------------------------------------------------------------------------------------------


def test_a_suspended_cron_job_with_who_did_it() -> None:
    owner = cron(suspend=True, scheduled=DAY)
    owner["metadata"]["managedFields"] = [written(20 * HOUR, "spec", "suspend")]
    w = world(owner)
    assert asked(w, CRON) == ["Job CronJob/nightly Edit B"]
    assert top(w, CRON) == "Job CronJob/nightly"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"schedule": "0 0 31 2 *"}, "NeverFires"),
        ({"timeZone": "Europe/Atlantis"}, "UnknownTimeZone"),
        ({"timeZone": "../etc/x"}, "UnknownTimeZone"),
    ],
)
def test_settings_by_which_it_never_runs(spec: Raw, reason: str) -> None:
    w = world(cron(scheduled=None, **spec))
    workload = w.workload(CRON)
    assert workload is not None
    (finding,) = w.case(workload).report.findings
    assert finding.reason == reason
    assert told(origins(w.case(workload), finding)) == ["Job CronJob/nightly A"]


@pytest.mark.parametrize("schedule", ["@every 5m", "not a schedule", "0 0 * * 9", ""])
def test_a_schedule_that_only_we_cannot_read_says_nothing(schedule: str) -> None:
    assert asked(world(cron(scheduled=None, schedule=schedule)), CRON) == []


def test_a_run_that_does_not_end_keeps_the_next_away() -> None:
    owner = cron(concurrencyPolicy="Forbid", scheduled=5 * HOUR, active=("nightly-0",))
    stuck = runs(owner, {"active": 1, "startTime": at(5 * HOUR)})
    w = world(owner, stuck, pod(stuck[0], 0, age=5 * HOUR))
    assert asked(w, CRON) == ["Job CronJob/nightly B"]


def test_if_that_run_is_in_trouble_its_trouble_is_the_reason() -> None:
    owner = cron(concurrencyPolicy="Forbid", scheduled=5 * HOUR, active=("nightly-0",))
    stuck = runs(owner, {"active": 1, "startTime": at(5 * HOUR)})
    broken = pod(stuck[0], 0, age=5 * HOUR, ready=False, states=[waiting("ErrImagePull", "not found")], phase="Pending")
    said = event(broken, "Failed", 'Failed to pull image "registry.example/checkout:2.4.0": not found', first=HOUR)
    w = world(owner, stuck, broken, said)
    assert set(asked(w, CRON)) == {"ImageAccess CronJob/nightly B", "Job CronJob/nightly C"}
    assert top(w, CRON) == "ImageAccess CronJob/nightly"


def test_side_by_side_runs_are_allowed_to_overlap() -> None:
    owner = cron(scheduled=timedelta(0), active=("nightly-0",))
    busy = runs(owner, {"active": 1, "startTime": at(5 * HOUR)})
    assert asked(world(owner, busy, pod(busy[0], 0, age=5 * HOUR)), CRON) == []


def test_a_starting_deadline_too_short_for_the_controller() -> None:
    assert asked(world(cron(scheduled=3 * HOUR, startingDeadlineSeconds=5)), CRON) == ["Job CronJob/nightly B"]


def test_a_missed_run_without_a_reason_is_a_weak_answer() -> None:
    assert asked(world(cron(scheduled=3 * HOUR)), CRON) == ["Job CronJob/nightly D"]


def test_a_cron_job_that_keeps_its_schedule_is_well() -> None:
    w = world(cron(scheduled=timedelta(0)))
    assert asked(w, CRON) == []
    found = diagnose(w.scene.snapshot, ObjectRef(api_version="batch/v1", kind="CronJob", name="nightly"), (), NOW)
    assert found.finding is Kind.NO_FAULT


def test_jobs_that_a_quota_on_jobs_refuses() -> None:
    full = "exceeded quota: team, requested: count/jobs.batch=1, used: count/jobs.batch=4, limited: count/jobs.batch=4"
    owner = cron(scheduled=3 * HOUR)
    said = event(
        owner,
        "FailedCreate",
        f'Error creating job: jobs.batch "nightly-1" is forbidden: {full}',
        first=HOUR,
    )
    assert asked(world(owner, said, quota("4", "4", "count/jobs.batch")), CRON) == ["Quota ResourceQuota/team A"]


def test_a_release_of_a_cron_job_is_the_change_of_its_template() -> None:
    owner = cron(t=template(container(image="registry.example/checkout:nope")))
    bad = job(
        "nightly-0", age=HOUR, owner=owner, t=template(container(image="registry.example/checkout:nope")), active=1, startTime=at(HOUR)
    )
    good = job("nightly-1", age=2 * HOUR, owner=owner, **complete(ago=2 * HOUR))
    broken = pod(bad, 0, age=HOUR, ready=False, states=[waiting("ImagePullBackOff", "not found")], phase="Pending")
    said = event(broken, "Failed", 'Failed to pull image "registry.example/checkout:nope": not found', first=HOUR)
    assert asked(world(owner, bad, good, broken, said), CRON) == ["ImageAccess CronJob/nightly Release A"]


# -- schedules ----------------------------------------------------------------------------------------------------------------------


def due(schedule: str, zone: str = "", *, scheduled: timedelta = DAY, now: datetime = NOW) -> datetime | None:
    view = cron_view(kube("CronJob", cron(schedule=schedule, timeZone=zone, scheduled=scheduled)))
    place = zone_of(view)
    assert place is not None
    return last_due(view, now, place)


def test_the_last_run_that_was_due() -> None:
    assert due("0 3 * * *") == datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
    assert due("0 3 * * *", scheduled=9 * HOUR) is None
    assert due("@hourly", scheduled=2 * HOUR) == datetime(2026, 3, 1, 11, 0, tzinfo=UTC)
    assert due("0 3 * * *", "America/New_York") == datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
