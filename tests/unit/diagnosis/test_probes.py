"""Probes: a wrong one is told from a program that is broken behind a right one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nightorders.domain.snapshot import Snapshot

from .build import DAY, MINUTE, Raw, World, at, container, crashing, deployment, pod, recorded, replicaset, running, snapshot, template
from .test_situations import crash
from .test_values import offered
from .told import answer, top

SECOND = timedelta(seconds=1)
LATE = ("False", "ProgressDeadlineExceeded")
PORTS = {"ports": [{"name": "http", "containerPort": 8080}]}
REFUSED = 'probe failed: Get "http://10.0.0.9:8081/healthz": dial tcp 10.0.0.9:8081: connect: connection refused'


def http(port: int | str = 8080, path: str = "/healthz", **more: object) -> Raw:
    return {"httpGet": {"path": path, "port": port}, **more}


def app(image: str = "registry.example/checkout:2.3.9", **more: object) -> Raw:
    return template(container("app", image, **PORTS, **more))


def killed(new: Raw, old: Raw, *said: str, log: tuple[str, ...] = (), code: int = 137) -> Snapshot:
    w = crash(new, old, state=crashing(code))
    for text in said:
        w.tell("Unhealthy", text)
    return w.snapshot(logs=w.log(*log) if log else {})


def unready(new: Raw, old: Raw, said: str, *, log: tuple[str, ...] = (), more: tuple[Raw, ...] = ()) -> Snapshot:
    w = World(old, new, states=[running(ready=False, age=12 * MINUTE)], released=12 * MINUTE, progressing=LATE, phase="Running")
    w.tell("Unhealthy", f"Readiness {said}", first=11 * MINUTE).add(*more)
    return w.snapshot(logs=w.log(*log) if log else {})


def too_early(*, old: Raw | None = None) -> Snapshot:
    """Healthy pods take 45 s to start; the new probe gives 15."""
    hasty = http(initialDelaySeconds=5, periodSeconds=5, failureThreshold=2)
    w = crash(app(livenessProbe=hasty), old or app(livenessProbe=http(initialDelaySeconds=60)), state=crashing(143))
    for p in w.old_pods:
        p["status"]["conditions"][1]["lastTransitionTime"] = at(6 * DAY - 45 * SECOND)
    w.tell("Killing", "Container app failed liveness probe, will be restarted")
    return w.snapshot()


def first_release(said: str, log: tuple[str, ...] = ()) -> Snapshot:
    t = app(livenessProbe=http(8081))
    d = deployment(t, updated=1, replicas=1, available=0, progressing=("True", "ReplicaSetUpdated"), age=5 * MINUTE)
    rs = replicaset(d, 1, t, age=5 * MINUTE, replicas=1)
    w = World(t, t)
    p = pod(rs, 0, age=5 * MINUTE, ready=False, states=[crashing(137)])
    w.new_pods, w.more = [p], []
    w.tell("Unhealthy", said)
    return snapshot(d, rs, p, *w.more, logs=w.log(*log) if log else {})


def shared_probe(said: str) -> Snapshot:
    """Days after its release one pod is killed by the probe that its siblings pass."""
    t = app(livenessProbe=http())
    d = deployment(t, available=2)
    rs = replicaset(d, 6, t, age=6 * DAY, replicas=3, ready=2)
    sick = pod(rs, 9, age=6 * DAY, node="n2", ready=False, states=[crashing(137)], ready_age=5 * MINUTE)
    w = World(t, t)
    w.new_pods, w.more = [sick], []
    w.tell("Unhealthy", said)
    return snapshot(d, rs, *(pod(rs, i, age=6 * DAY, node=f"n{i}") for i in range(2)), sick, *w.more)


PROBE = "Probe Deployment/checkout rev 7 A"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: killed(app(livenessProbe=http(8081)), app(livenessProbe=http()), f"Liveness {REFUSED}"), PROBE),
        (lambda: killed(app(livenessProbe=http(8081)), app(livenessProbe=http())), PROBE),
        (lambda: killed(app(startupProbe=http(8081)), app(), f"Startup {REFUSED}"), PROBE),
        (
            lambda: killed(app("r.example/c:3", livenessProbe=http(8081)), app(livenessProbe=http()), f"Liveness {REFUSED}"),
            PROBE,
        ),
        (
            lambda: unready(
                app(readinessProbe=http(path="/redy")), app(readinessProbe=http()), "probe failed: HTTP probe failed with statuscode: 404"
            ),
            PROBE,
        ),
        (lambda: unready(app(readinessProbe=http("web")), app(readinessProbe=http("http")), "probe errored"), PROBE),
        (
            lambda: unready(
                app(readinessProbe={"exec": {"command": ["/check"]}}), app(), 'probe errored: exec: "/check": no such file or directory'
            ),
            PROBE,
        ),
        (
            lambda: unready(app(readinessProbe={"grpc": {"port": 8080}}), app(), "probe failed: unknown service grpc.health.v1.Health"),
            PROBE,
        ),
        (
            lambda: unready(app(readinessProbe=http()), app(), "probe failed: http: server gave HTTP response to HTTPS client"),
            PROBE,
        ),
        (too_early, PROBE),
        # the probe is as it was: the new program is what fails it
        (
            lambda: killed(
                app("r.example/c:3", livenessProbe=http()),
                app(livenessProbe=http()),
                "Liveness probe failed: HTTP probe failed with statuscode: 500",
                log=("TypeError: x",),
            ),
            "BadRelease Deployment/checkout rev 7 A",
        ),
        # nothing to compare with
        (lambda: first_release(f"Liveness {REFUSED}"), "Probe Deployment/checkout B"),
        (lambda: first_release("Liveness probe failed: HTTP probe failed with statuscode: 500"), "Unknown Deployment/checkout D"),
        # the same probe serves elsewhere
        (lambda: shared_probe("Liveness probe failed: context deadline exceeded"), "Unknown Deployment/checkout D"),
    ],
)
def test_probes(made, expected: str) -> None:  # type: ignore[no-untyped-def]
    assert top(made()) == expected


def test_the_program_says_which_port_it_opened() -> None:
    bare = template(container(livenessProbe=http(8081)))
    snap = killed(bare, template(container(livenessProbe=http())), f"Liveness {REFUSED}", log=("listening on :8080",))
    assert top(snap) == PROBE
    assert "8080" in answer(snap).message


def test_a_database_that_is_down_is_not_the_releases_fault() -> None:
    snap = unready(
        app("r.example/c:3", readinessProbe=http()),
        app(readinessProbe=http()),
        "probe failed: HTTP probe failed with statuscode: 503",
        log=("connect ECONNREFUSED db:5432",),
        more=(offered("db", 5432),),
    )
    assert "Deployment/checkout rev" not in top(snap)
    assert any(h.category == "BadRelease" and "Service/db" in h.refuted for h in answer(snap).hypotheses)


def test_starts_that_outlive_the_very_same_probe_prove_nothing() -> None:
    hasty = http(initialDelaySeconds=5, periodSeconds=5, failureThreshold=2)
    assert not top(too_early(old=app("r.example/c:0", livenessProbe=hasty))).startswith("Probe")


def test_a_moment_of_health_does_not_vouch_for_the_release_that_fails_now() -> None:
    """The rollout was complete before the probe had failed often enough, and the operator recorded it as healthy."""
    w = crash(app("r.example/c:2", livenessProbe=http(8081)), app(livenessProbe=http()), state=crashing(143))
    assert top(w.snapshot(), healthy=(recorded(w.deployment, w.new),)).startswith("Probe Deployment/checkout rev 7")
    assert top(w.snapshot()).startswith("Probe Deployment/checkout rev 7")
