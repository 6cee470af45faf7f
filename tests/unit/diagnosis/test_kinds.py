"""Workloads of every kind: revisions, numbers, states, and the findings that hold for all of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from nightorders.diagnosis.assess import assess
from nightorders.diagnosis.findings import Trouble
from nightorders.diagnosis.scene import Workload, pod_template, template_digest
from nightorders.diagnosis.specialists.workload import examine
from nightorders.diagnosis.views import cron_view, job_view
from nightorders.diagnosis.world import World
from nightorders.domain.diagnosis import Finding as Kind

from .between import kube, made, world
from .build import DAY, HOUR, MINUTE, NOW, Raw, at, container, crashing, ended, event, metadata, pod, template, waiting

OLD, NEW = template(), template(container(image="registry.example/checkout:2.4.0"))


def stateful(
    *,
    name: str = "checkout",
    new: Raw = NEW,
    old: Raw | None = OLD,
    replicas: int = 3,
    updated: int = 3,
    available: int = 3,
    current: int = 2,
    strategy: Raw | None = None,
    kind: str = "StatefulSet",
) -> tuple[Raw, list[Raw]]:
    """A StatefulSet or DaemonSet in its second revision, with its ControllerRevisions."""
    spec: Raw = {"replicas": replicas, "selector": {"matchLabels": {"app": "checkout"}}, "template": new, "serviceName": name}
    spec["updateStrategy"] = strategy or {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    status: Raw = {
        "observedGeneration": 2,
        "replicas": replicas,
        "readyReplicas": available,
        "availableReplicas": available,
        "updatedReplicas": updated,
        "updateRevision": f"{name}-h2",
        "currentRevision": f"{name}-h{current}",
    }
    if kind == "DaemonSet":
        status = {
            "observedGeneration": 2,
            "desiredNumberScheduled": replicas,
            "currentNumberScheduled": replicas,
            "updatedNumberScheduled": updated,
            "numberAvailable": available,
            "numberUnavailable": replicas - available,
            "numberReady": available,
        }
    owner = made(kind, name, age=30 * DAY, spec=spec, status=status)
    owner["metadata"] |= {"generation": 2, "uid": f"uid-{name}"}
    each = [(2, new, HOUR)] + ([(1, old, 30 * DAY)] if old is not None else [])
    return owner, [revision(owner, n, t, age) for n, t, age in each]


def revision(owner: Raw, number: int, t: Raw, age: timedelta) -> Raw:
    """A ControllerRevision as the controllers write it: the template as a patch; the hash in the name and in a label."""
    name = owner["metadata"]["name"]
    label = "controller-revision-hash" if owner["kind"] == "DaemonSet" else "controller.kubernetes.io/hash"
    meta = metadata(f"{name}-h{number}", age, owner, labels={label: f"h{number}"})
    return {"kind": "ControllerRevision", "metadata": meta, "revision": number, "data": {"spec": {"template": {**t, "$patch": "replace"}}}}


def member(owner: Raw, index: int, number: int, **more: Any) -> Raw:
    """A pod of a StatefulSet (its label holds the revision's whole name) or of a DaemonSet (only the hash)."""
    more = {"age": 6 * DAY, "node": f"n{index}", **more}
    p = pod(owner, index, **more)
    name = owner["metadata"]["name"]
    p["metadata"]["labels"]["controller-revision-hash"] = f"{name}-h{number}" if owner["kind"] == "StatefulSet" else f"h{number}"
    return p


def seen(w: World, title: str = "StatefulSet/checkout") -> Workload:
    kind, _, name = title.partition("/")
    return w.scene.workload(next(o for o in w.scene.all(kind) if o.name == name))


def state(w: World, title: str) -> tuple[Kind, str]:
    workload = seen(w, title)
    found = assess(w.scene, workload, examine(w.scene, workload))
    return found.kind, found.reason


# -- StatefulSets and DaemonSets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
def test_revisions_come_from_controller_revisions_with_their_pods(kind: str) -> None:
    owner, revisions = stateful(kind=kind, updated=1, available=2, current=1)
    broken = member(owner, 2, 2, age=5 * MINUTE, ready=False, states=[waiting("ImagePullBackOff")], phase="Pending")
    w = world(owner, revisions, [member(owner, 0, 1), member(owner, 1, 1), broken])
    found = seen(w, f"{kind}/checkout")
    assert [(r.number, r.kind, len(r.pods)) for r in found.revisions] == [(2, "ControllerRevision", 1), (1, "ControllerRevision", 2)]
    assert found.current is found.revisions[0]
    assert found.current.digest == template_digest(NEW)
    assert (found.desired, found.updated, found.available, found.complete) == (3, 1, 2, False)
    (finding,) = examine(w.scene, found).findings
    assert (finding.trouble, finding.revision.label) == (Trouble.IMAGE, "release 2")


def test_a_partition_spares_pods_from_the_new_template() -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}
    owner, revisions = stateful(updated=1, current=1, strategy=strategy)
    w = world(owner, revisions, [member(owner, 0, 1), member(owner, 1, 1), member(owner, 2, 2)])
    assert seen(w).complete
    assert state(w, "StatefulSet/checkout")[0] is Kind.NO_FAULT
    del owner["spec"]["updateStrategy"]["rollingUpdate"]["partition"]
    assert not seen(world(owner, revisions)).complete


def test_on_delete_is_complete_with_old_pods() -> None:
    owner, revisions = stateful(updated=0, current=1, strategy={"type": "OnDelete"})
    assert seen(world(owner, revisions, [member(owner, i, 1) for i in range(3)])).complete


def test_a_stateful_set_reached_its_revision_only_if_its_controller_says_so_of_a_second_one() -> None:
    owner, revisions = stateful(available=2)
    broken = member(owner, 0, 2, ready=False, states=[waiting("ErrImagePull")], phase="Pending")
    assert seen(world(owner, revisions, broken)).completed_once
    owner["status"]["currentRevision"] = "checkout-h1"
    assert not seen(world(owner, revisions, broken)).completed_once
    first, alone = stateful(old=None)
    assert not seen(world(first, alone, broken)).completed_once  # a first revision is current before any pod of it exists


def test_without_controller_revisions_pods_are_grouped_by_their_hash() -> None:
    owner, _ = stateful(updated=1, current=1)
    new = member(owner, 2, 2, age=5 * MINUTE, ready=False, states=[crashing()])
    old = member(owner, 0, 1)
    old["spec"] = {**OLD["spec"], "nodeName": "n0"}
    found = seen(world(owner, [old, new], unread=["ControllerRevision"]))
    assert not found.sets_known
    assert [len(r.pods) for r in found.revisions] == [1, 1]
    assert found.current is not None
    assert found.current.pods[0].name == new["metadata"]["name"]


def test_a_daemon_set_that_no_node_is_wished_for_is_no_fault() -> None:
    owner, revisions = stateful(kind="DaemonSet", replicas=0, updated=0, available=0)
    assert state(world(owner, revisions), "DaemonSet/checkout") == (Kind.NO_FAULT, "NoNodeWanted")


def test_a_stateful_set_without_any_sign_stalls_after_a_while() -> None:
    owner, revisions = stateful(updated=1, available=2, current=1)
    pods = [member(owner, 0, 1), member(owner, 1, 1)]
    assert state(world(owner, revisions, pods), "StatefulSet/checkout") == (Kind.UNKNOWN, "RolloutStalled")
    revisions[0]["metadata"]["creationTimestamp"] = at(MINUTE)
    assert state(world(owner, revisions, pods), "StatefulSet/checkout") == (Kind.PROGRESSING, "RolloutUnderWay")


# -- bare ReplicaSets and Pods ------------------------------------------------------------------------------------------------------


def test_a_bare_pod_and_a_bare_replica_set_are_workloads() -> None:
    own = made("ReplicaSet", "lone", spec={"replicas": 2, "template": NEW}, status={"replicas": 2, "availableReplicas": 1})
    single = pod(own, 0, age=HOUR, ready=False, states=[crashing()])
    single["metadata"].pop("ownerReferences")
    w = world(own, single)
    lone, bare = seen(w, "ReplicaSet/lone"), seen(w, f"Pod/{single['metadata']['name']}")
    assert (lone.desired, lone.available, lone.current is not None) == (2, 1, True)
    assert [f.trouble for f in examine(w.scene, bare).findings] == [Trouble.CRASH]
    assert not bare.complete


def test_a_pod_that_ended_badly_and_stays_is_a_crash() -> None:
    own = made("ReplicaSet", "x", spec={"template": NEW})
    done: Raw = {"name": "app", "restartCount": 0, "state": {"terminated": ended(3)}, "lastState": {}}
    single = pod(own, 0, age=HOUR, ready=False, states=[done], phase="Failed")
    single["metadata"].pop("ownerReferences")
    w = world(single)
    assert [f.trouble for f in examine(w.scene, seen(w, "Pod/x-0")).findings] == [Trouble.CRASH]
    single["status"]["reason"] = "Evicted"
    assert examine((w := world(single)).scene, seen(w, "Pod/x-0")).findings == ()


# -- Jobs and CronJobs --------------------------------------------------------------------------------------------------------------


def job(
    name: str = "report", *, age: timedelta = HOUR, owner: Raw | None = None, t: Raw = NEW, spec: Raw | None = None, **status: Any
) -> Raw:
    labels = {**t["metadata"]["labels"], "batch.kubernetes.io/job-name": name, "controller-uid": f"uid-{name}"}
    own = {**t, "metadata": {**t["metadata"], "labels": labels}}
    raw = made(
        "Job", name, age=age, spec={"template": own, "backoffLimit": 6, "completions": 1, "parallelism": 1, **(spec or {})}, status=status
    )
    raw["metadata"] |= metadata(name, age, owner)
    return raw


def failed(reason: str = "BackoffLimitExceeded", *, ago: timedelta = MINUTE) -> Raw:
    return {
        "failed": 7,
        "startTime": at(HOUR),
        "conditions": [{"type": "Failed", "status": "True", "reason": reason, "message": "told", "lastTransitionTime": at(ago)}],
    }


def complete(*, ago: timedelta, took: timedelta = MINUTE) -> Raw:
    return {
        "succeeded": 1,
        "startTime": at(ago + took),
        "completionTime": at(ago),
        "conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": at(ago)}],
    }


def attempt(owner: Raw, index: int, code: int = 1, *, age: timedelta = 10 * MINUTE) -> Raw:
    """A pod of a Job that ended with that exit code and stays."""
    over: Raw = {"name": "app", "restartCount": 0, "ready": False, "state": {"terminated": ended(code, ago=age)}, "lastState": {}}
    return pod(owner, index, age=age, ready=False, states=[over], phase="Failed" if code else "Succeeded")


def cron(
    *jobs: Raw, t: Raw = NEW, age: timedelta = 30 * DAY, scheduled: timedelta | None = HOUR, active: tuple[str, ...] = (), **spec: Any
) -> Raw:
    settings = {"schedule": "0 * * * *", "concurrencyPolicy": "Allow", **spec}
    status: Raw = {"active": [{"kind": "Job", "name": n} for n in active]}
    if scheduled is not None:
        status["lastScheduleTime"] = at(scheduled)
    raw = made("CronJob", "nightly", age=age, spec={"jobTemplate": {"spec": {"template": t}}, **settings}, status=status)
    raw["metadata"]["uid"] = "uid-nightly"
    return raw


@pytest.mark.parametrize(
    ("status", "spec", "expected"),
    [
        (complete(ago=MINUTE), {}, (Kind.NO_FAULT, "JobComplete")),
        ({"active": 1, "startTime": at(MINUTE)}, {}, (Kind.PROGRESSING, "JobRunning")),
        (failed(), {}, (Kind.FAULT, "JobFailed")),
        (failed("DeadlineExceeded"), {}, (Kind.FAULT, "JobFailed")),
        ({}, {"suspend": True}, (Kind.FAULT, "Suspended")),
    ],
)
def test_states_of_a_job(status: Raw, spec: Raw, expected: tuple[Kind, str]) -> None:
    assert state(world(job(spec=spec, **status)), "Job/report") == expected


def test_a_job_that_a_queue_suspends_waits() -> None:
    waiting_job = job(spec={"suspend": True})
    waiting_job["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team"}
    assert state(world(waiting_job), "Job/report") == (Kind.PROGRESSING, "JobQueued")


def test_two_failed_attempts_of_a_job_that_tries_again_are_no_fault_three_are() -> None:
    for attempts, expected in ((2, Kind.PROGRESSING), (3, Kind.FAULT)):
        running = job(failed=attempts, active=1, startTime=at(10 * MINUTE))
        assert state(world(running, [attempt(running, i) for i in range(attempts)]), "Job/report")[0] is expected


def test_the_pods_of_a_failed_job_say_how_it_failed() -> None:
    gone = job(**failed())
    w = world(gone, [attempt(gone, i, 4) for i in range(3)])
    found = examine(w.scene, seen(w, "Job/report")).findings
    assert [(f.trouble, f.reason) for f in found] == [(Trouble.CRASH, "Error"), (Trouble.JOB, "BackoffLimitExceeded")]
    assert len(found[0].pods) == 3


def test_a_job_that_completed_after_failures_is_well() -> None:
    done = job(failed=2, **complete(ago=MINUTE))
    w = world(done, [attempt(done, 0), attempt(done, 1), attempt(done, 2, 0)])
    assert examine(w.scene, seen(w, "Job/report")).findings == ()


def test_the_jobs_of_a_cron_job_are_its_revisions_and_labels_that_the_api_adds_make_no_difference() -> None:
    owner = cron()
    runs = [job("nightly-2", age=HOUR, owner=owner, **failed()), job("nightly-1", age=2 * HOUR, owner=owner, **complete(ago=2 * HOUR))]
    w = world(owner, runs)
    found = seen(w, "CronJob/nightly")
    assert [r.title for r in found.revisions] == ["Job/nightly-2", "Job/nightly-1"]
    assert found.revisions[0].digest == found.revisions[1].digest == template_digest(pod_template(kube("CronJob", owner)))
    assert examine(w.scene, found).serving == {"uid-nightly-1"}
    assert state(w, "CronJob/nightly") == (Kind.FAULT, "JobFailed")


def test_a_failed_run_that_a_later_one_made_good_is_over() -> None:
    owner = cron(scheduled=timedelta(0))
    runs = [job("nightly-2", age=HOUR, owner=owner, **complete(ago=MINUTE)), job("nightly-1", age=2 * HOUR, owner=owner, **failed())]
    w = world(owner, runs, [attempt(runs[1], i) for i in range(3)])
    assert examine(w.scene, seen(w, "CronJob/nightly")).findings == ()
    assert state(w, "CronJob/nightly") == (Kind.NO_FAULT, "JobComplete")


def test_an_event_about_a_pod_that_cannot_be_created_counts_only_while_pods_are_missing() -> None:
    owner, revisions = stateful(replicas=2, updated=2, available=1)
    owner["metadata"]["uid"] = "uid-checkout"
    refused = event(owner, "FailedCreate", 'create Pod checkout-1 failed: pods "checkout-1" is forbidden: exceeded quota: q', first=MINUTE)
    short = world(owner, revisions, member(owner, 0, 2), refused)
    assert [f.trouble for f in examine(short.scene, seen(short)).findings] == [Trouble.NOT_CREATED]
    full = world(owner, revisions, [member(owner, i, 2) for i in range(2)], refused)
    assert examine(full.scene, seen(full)).findings == ()


# -- hostile ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet", "Job", "CronJob", "ReplicaSet", "Pod", "Deployment"])
@pytest.mark.parametrize("junk", [None, [], "x", 7, {"spec": [], "status": "x"}, {"spec": {"template": [1], "jobTemplate": "x"}}])
def test_no_object_raises_however_malformed(kind: str, junk: Any) -> None:
    raw = {"kind": kind, "metadata": {"name": "x", "uid": "u", "namespace": "shop"}} | (
        junk if isinstance(junk, dict) else {"spec": junk, "status": junk}
    )
    controller_revision = {
        "kind": "ControllerRevision",
        "metadata": {"name": "x-1", "ownerReferences": [{"uid": "u", "controller": True}]},
        "data": junk,
    }
    controller_revision["metadata"]["namespace"] = "shop"
    w = world(raw, controller_revision)
    found = seen(w, f"{kind}/x")
    assess(w.scene, found, examine(w.scene, found))
    job_view(found.obj)
    cron_view(found.obj)
    assert found.title == f"{kind}/x"


def test_the_times_of_a_job() -> None:
    done = job_view(kube("Job", job(**complete(ago=MINUTE, took=HOUR))))
    assert (done.took, done.running) == (HOUR, False)
    lost = job_view(kube("Job", job(**failed(ago=HOUR))))
    assert (lost.failure, lost.ended) == ("BackoffLimitExceeded", NOW - HOUR)
