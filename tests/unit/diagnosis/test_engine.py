"""The engine's other questions, the fields that gates read, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from nightorders.diagnosis.engine import CLUSTER_KINDS, KINDS, diagnose, stuck_rollouts, symptom_holds, wanted_logs
from nightorders.diagnosis.evidence import command
from nightorders.domain.diagnosis import Finding
from nightorders.domain.digest import sha256_text
from nightorders.domain.snapshot import LogKey, Snapshot

from .build import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    TARGET,
    World,
    configmap,
    container,
    crashing,
    deployment,
    ended,
    env,
    event,
    pod,
    replicaset,
    running,
    service,
    snapshot,
    steady,
    template,
    waiting,
)
from .test_situations import (
    BAD,
    NEW_ENV,
    NEW_IMAGE,
    NO_CONFIG,
    NOT_FOUND,
    READS,
    bad_image,
    bad_node,
    crash,
    dead_database,
    flapping,
    gone,
    healthy,
    image_and_old_config,
    missing,
    old_pods_crash_too,
    paused,
    probe_kill,
    quota,
    reading_config,
    rolled_back,
    rolling,
    rolling_back,
    scaled,
    unready,
    vanished,
)

SECOND = timedelta(seconds=1)


@pytest.mark.threat(23)
@pytest.mark.promise(7)
def test_secrets_are_never_listed() -> None:
    assert "Secret" not in {kind for _, kind in (*KINDS, *CLUSTER_KINDS)}
    assert {"Pod", "ReplicaSet", "Deployment", "ConfigMap", "Event", "Service"} <= {kind for _, kind in KINDS}


# -- does the symptom hold ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "holds"),
    [
        (lambda: bad_image().snapshot(), True),
        (lambda: crash(NEW_ENV).snapshot(), True),
        (lambda: missing(READS, NO_CONFIG).snapshot(), True),
        (lambda: gone(READS, NO_CONFIG), True),
        (flapping, True),
        (lambda: unready(("False", "ProgressDeadlineExceeded")), True),
        (quota, True),
        (healthy, False),
        (rolled_back, False),
        (rolling_back, None),
        (lambda: rolling(waiting("ContainerCreating")), None),
        (scaled, None),
        (paused, None),
        (vanished, None),
        (lambda: bad_image().snapshot(unread={"Pod": "forbidden"}), None),
        (lambda: snapshot(unread={"Deployment": "forbidden"}), None),
    ],
)
def test_symptom_holds(make: Callable[[], Snapshot], holds: bool | None) -> None:
    assert symptom_holds(make(), TARGET, NOW) is holds


# -- the detector -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: bad_image().snapshot(), "ImagePullBackOff"),
        (lambda: bad_image("", reason="InvalidImageName").snapshot(), "InvalidImageName"),
        (lambda: missing(READS, NO_CONFIG).snapshot(), "CreateContainerConfigError"),
        (lambda: crash(NEW_ENV).snapshot(), "CrashLoopBackOff"),
        (probe_kill, "CrashLoopBackOff"),
        (lambda: reading_config(edited=None), "CrashLoopBackOff"),
        (lambda: unready(("False", "ProgressDeadlineExceeded")), "ProgressDeadlineExceeded"),
        (healthy, ""),
        (rolled_back, ""),
        (rolling_back, ""),
        (scaled, ""),
        (lambda: rolling(waiting("ContainerCreating")), ""),
        (lambda: rolling(running(restarts=2, age=2 * SECOND, ready=False, last=ended(1)), phase="Running"), ""),
    ],
)
def test_stuck_rollouts(make: Callable[[], Snapshot], reason: str) -> None:
    assert [s.reason for s in stuck_rollouts(make(), NOW)] == [reason] * bool(reason)


def test_a_stuck_rollout_says_which_and_since_when() -> None:
    (stuck,) = stuck_rollouts(bad_image().snapshot(), NOW)
    assert (stuck.target, stuck.uid, stuck.revision, stuck.revision_uid) == (TARGET, "uid-checkout", "7", "uid-checkout-0007")
    assert stuck.since == NOW - 5 * MINUTE + SECOND
    assert BAD in stuck.message


def test_a_restart_behind_a_ready_pod_is_no_stuck_rollout() -> None:
    """Three restarts long ago, well since: kubelet's back-off is over after ten minutes."""
    d, rs, pods = steady(template(), pods=1)
    pods[0]["status"]["containerStatuses"] = [running(restarts=5, age=HOUR, last=ended(1, ago=HOUR))]
    assert stuck_rollouts(snapshot(d, rs, *pods), NOW) == ()


def test_the_deadline_counts_even_where_pods_cannot_be_read() -> None:
    w = bad_image(progressing=("False", "ProgressDeadlineExceeded"))
    assert [s.reason for s in stuck_rollouts(w.snapshot(unread={"Pod": "forbidden", "ReplicaSet": "forbidden"}), NOW)] == [
        "ProgressDeadlineExceeded"
    ]


# -- logs worth a query -------------------------------------------------------------------------------------


def test_logs_of_one_pod_per_group_both_runs() -> None:
    w = crash(NEW_ENV, failing=3, nodes=("n0",))
    name = w.new_pods[0]["metadata"]["name"]
    assert wanted_logs(w.snapshot(), TARGET) == (LogKey(name, "app"), LogKey(name, "app", previous=True))


def test_logs_of_every_node_but_four_at_most() -> None:
    w = crash(NEW_ENV, failing=3)
    keys = wanted_logs(w.snapshot(), TARGET)
    assert len(keys) == 4
    assert len({k.pod for k in keys}) == 2


def test_no_logs_of_what_never_ran() -> None:
    assert wanted_logs(bad_image().snapshot(), TARGET) == ()
    assert wanted_logs(missing(READS, NO_CONFIG).snapshot(), TARGET) == ()


# -- since when ---------------------------------------------------------------------------------------------


def test_terminal_since_is_the_first_event_that_told() -> None:
    d = diagnose(bad_image().snapshot(), TARGET, (), NOW)
    assert (d.terminal_since, d.failing_revision) == (NOW - 4 * MINUTE, "uid-checkout-0007")
    assert d.symptom_since == NOW - 5 * MINUTE + SECOND


def test_terminal_since_without_events_is_the_last_change_of_a_condition() -> None:
    assert diagnose(bad_image("").snapshot(), TARGET, (), NOW).terminal_since == NOW - 5 * MINUTE


def test_terminal_since_needs_three_crashes() -> None:
    for restarts, known in ((1, False), (2, True), (4, True)):
        d = diagnose(crash(NEW_ENV, state=crashing(restarts=restarts)).snapshot(), TARGET, (), NOW)
        assert (d.terminal_since is not None) is known, restarts


def test_terminal_since_is_none_once_a_pod_of_it_was_ready() -> None:
    assert diagnose(bad_node(), TARGET, (), NOW).terminal_since is None
    assert diagnose(reading_config(edited=10 * MINUTE), TARGET, (), NOW).terminal_since is None


def test_terminal_since_is_none_for_what_can_pass() -> None:
    busy = f'Failed to pull image "{BAD}": toomanyrequests: slow down'
    assert diagnose(bad_image(busy).snapshot(), TARGET, (), NOW).terminal_since is None


def test_a_crash_loop_without_probe_was_never_ready_in_earnest() -> None:
    """Ready flipped a minute ago, as it does at each start of a process that lives for a second."""
    w = crash(NEW_ENV, ready_age=MINUTE, released=3 * MINUTE)
    assert diagnose(w.snapshot(), TARGET, (), NOW).terminal_since is not None
    served = crash(NEW_ENV, ready_age=MINUTE, released=3 * HOUR)
    assert diagnose(served.snapshot(), TARGET, (), NOW).terminal_since is None


# -- whom it hurts, who owns it, what changed ---------------------------------------------------------------


def test_blast_radius_names_services_without_endpoints_and_their_callers() -> None:
    w = bad_image(failing=3, old_pods=0)
    caller, rs, pods = steady(template(container(env=[env("SHOP", "http://checkout.shop:8080/x")]), labels={"app": "web"}), name="web")
    other, *_ = steady(template(container(env=[env("X", "checkout-elsewhere")]), labels={"app": "api"}), name="api")
    d = diagnose(w.add(caller, rs, *pods, other).snapshot(), TARGET, (), NOW)
    assert d.blast_radius is not None
    assert (d.blast_radius.pods_percent, d.blast_radius.victims) == (100, ("Service/checkout", "Deployment/web"))


def test_a_service_with_one_ready_pod_is_no_victim() -> None:
    d = diagnose(bad_image().snapshot(), TARGET, (), NOW)
    assert d.blast_radius is not None
    assert (d.blast_radius.victims, d.blast_radius.pods_percent) == ((), 0)


def test_owners_by_label_tool_or_claim() -> None:
    def who(**more: object) -> list[str]:
        d, rs, pods = steady(template(), **more)  # type: ignore[arg-type]
        return [o.who for o in diagnose(snapshot(d, rs, *pods), TARGET, (), NOW).owners]

    assert who(labels={"team": "parcels", "app.kubernetes.io/managed-by": "Helm"}) == ["parcels", "Helm"]
    assert who(annotations={"argocd.argoproj.io/tracking-id": "shop:x"}) == ["Argo CD shop:x"]
    assert who(managed=[{"manager": "kubectl", "time": "2026-03-01T00:00:00Z", "fieldsV1": {"f:spec": {}}}]) == ["kubectl"]
    assert who() == []


@pytest.mark.threat(23)
@pytest.mark.promise(7)
def test_changes_show_no_values() -> None:
    w = crash(template(container(args=["--key=zzz"], env=[env("A", "hunter2")]), annotations={"x": "hunter2"}))
    d = diagnose(w.add(configmap("c", {"k": "hunter2"})).snapshot(), TARGET, (), NOW)
    assert "hunter2" not in repr(d)
    assert "zzz" not in repr(d)
    assert "env[A] added" in d.changes[0].what
    assert d.changes[0].seconds_before_symptom == 1


# -- evidence -----------------------------------------------------------------------------------------------


@pytest.mark.threat(23)
def test_evidence_digest_covers_the_redacted_text() -> None:
    w = bad_image(f"{NOT_FOUND} login code 123456")
    told = next(e for e in diagnose(w.snapshot(), TARGET, (), NOW).evidence if "Failed to pull" in e.excerpt)
    raw = f"Event about Pod/{w.new_pods[0]['metadata']['name']}: Failed: {NOT_FOUND} login code 123456"
    assert "123456" not in told.excerpt
    assert told.sha256 != sha256_text(raw)
    assert told.query == "GET v1 events in shop"


def test_each_second_fault_is_named() -> None:
    both = diagnose(image_and_old_config(), TARGET, (), NOW)
    assert [(h.category, h.object) for h in both.hypotheses[:2]] == [
        ("ImageAccess", "Deployment/checkout"),
        ("MissingObject", "ConfigMap/checkout"),
    ]
    assert any("ConfigMap/checkout" in f.text for f in both.unexplained)
    assert any("release 6" in f.text for f in diagnose(old_pods_crash_too(), TARGET, (), NOW).unexplained)


def test_one_release_with_two_mistakes_leaves_nothing_unexplained() -> None:
    """Both came with release 7, so both go with it."""
    w = World(template(), template(container(image=BAD, envFrom=[{"configMapRef": {"name": "no"}}])), states=[waiting("ImagePullBackOff")])
    d = diagnose(w.tell("Failed", NOT_FOUND).snapshot(), TARGET, (), NOW)
    assert d.unexplained == ()
    assert {h.category for h in d.hypotheses if not h.refuted} >= {"ImageAccess", "MissingObject"}


def test_the_obvious_that_was_refuted_is_listed() -> None:
    d = diagnose(reading_config(edited=None), TARGET, (), NOW)
    refuted = {h.object: h.refuted for h in d.hypotheses if h.refuted}
    assert "unchanged since" in refuted["ConfigMap/checkout"]
    w = bad_image(failing=3)
    nodes = {h.object: h.refuted for h in diagnose(w.snapshot(), TARGET, (), NOW).hypotheses}
    assert "3 nodes" in nodes["Node/n0"]


@pytest.mark.promise(4)
def test_a_refusal_is_a_gap_with_its_fix() -> None:
    d = diagnose(bad_image().snapshot(unread={"Event": "forbidden: events"}), TARGET, (), NOW)
    assert [(g.what, g.because, g.fix) for g in d.gaps] == [("Event objects", "forbidden: events", "kubectl auth can-i list events")]
    assert "Event objects were not looked at" in d.message


def test_a_dead_dependency_is_a_guess_with_a_command() -> None:
    d = diagnose(dead_database(), TARGET, (), NOW)
    assert "Service/db" in d.summary
    assert any("Service/db" in g.text and g.settled_by.startswith("kubectl -n shop get endpointslices") for g in d.guesses)


@pytest.mark.threat(13)
@pytest.mark.promise(3)
@pytest.mark.parametrize("name", ["$(reboot)", "a b", "a;b", "a`b", "--all", "-A", "", "a\nb", "ü"])
def test_odd_names_never_reach_a_command(name: str) -> None:
    assert command("kubectl", "-n", "shop", "get", "pod", name) == ""
    assert command("kubectl", "-n", "shop", "get", "pod", "a-1") == "kubectl -n shop get pod a-1"


# -- traps of ownership -------------------------------------------------------------------------------------


def test_a_look_alike_owned_by_another_is_not_ours() -> None:
    """Same labels, another owner's uid: a forged or left-over ReplicaSet decides nothing."""
    d, rs, pods = steady(template())
    twin = deployment(template(container(image=BAD)), name="checkout-twin")
    forged = replicaset(twin, 9, template(container(image=BAD)), age=MINUTE, replicas=1)
    bad = pod(forged, 0, age=MINUTE, ready=False, states=[waiting("ImagePullBackOff")])
    assert diagnose(snapshot(d, rs, *pods, twin, forged, bad), TARGET, (), NOW).finding is Finding.NO_FAULT


def test_owners_in_a_circle_end() -> None:
    w = bad_image()
    w.deployment["metadata"]["ownerReferences"] = [
        {"kind": "ReplicaSet", "name": "checkout-0007", "uid": "uid-checkout-0007", "controller": True}
    ]
    assert diagnose(w.snapshot(), TARGET, (), NOW).finding is Finding.FAULT


@pytest.mark.threat(20)
@pytest.mark.promise(3, 7)
def test_objects_of_another_namespace_play_no_part() -> None:
    w = bad_image()
    stray = pod(w.old, 7, age=DAY)
    stray["metadata"]["namespace"] = "elsewhere"
    d = diagnose(w.add(stray).snapshot(), TARGET, (), NOW)
    assert "checkout-0006-7" not in repr(d)


# -- cost ---------------------------------------------------------------------------------------------------


def many(pods: int) -> Snapshot:
    w = crash(NEW_IMAGE, failing=pods // 2, old_pods=pods // 2)
    events = [event(p, "BackOff", "Back-off restarting failed container", first=MINUTE) for p in w.new_pods]
    others = [service(f"s{i}", {"app": "checkout"} if i % 10 == 0 else {"app": f"s{i}"}) for i in range(100)]
    return w.add(*events, *others).snapshot(logs=w.log("panic: boom"))


def test_a_thousand_pods_in_well_under_a_second() -> None:
    found = many(1000)
    start = time.process_time()
    d = diagnose(found, TARGET, (), NOW)
    assert time.process_time() - start < 1
    assert d.finding is Finding.FAULT
    assert len(d.evidence) < 40


def test_the_cost_is_linear() -> None:
    def cost(pods: int) -> float:
        found, start = many(pods), time.process_time()
        diagnose(found, TARGET, (), NOW)
        stuck_rollouts(found, NOW)
        return time.process_time() - start

    cost(50)
    assert cost(2000) < 25 * max(cost(250), 0.01)
