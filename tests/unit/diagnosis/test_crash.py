"""Exits without any other reason: the image, its content, its machine, a sidecar, a setting that was never there."""

from __future__ import annotations

import pytest

from nightorders.domain.snapshot import LogKey, Snapshot

from .build import (
    MINUTE,
    Raw,
    World,
    configmap,
    container,
    crashing,
    deployment,
    ended,
    env,
    pod,
    recorded,
    replicaset,
    running,
    snapshot,
    steady,
    template,
    waiting,
)
from .test_situations import NEW_IMAGE, crash
from .told import top

PANIC = "panic: runtime error: index out of range"


def sidecar(version: int, **more: object) -> Raw:
    return template(container(), container("proxy", f"registry.example/proxy:{version}", **more))


def beside(new: Raw, old: Raw, *lines: str) -> Snapshot:
    w = World(old, new, states=[running(), crashing(name="proxy")], phase="Running")
    return w.snapshot(logs={LogKey(w.new_pods[0]["metadata"]["name"], "proxy"): lines})


def pushed_again(image_id: str) -> Snapshot:
    d, rs, pods = steady(template(), available=2)
    p = pod(rs, 9, age=5 * MINUTE, node="n2", ready=False, states=[{**crashing(), "imageID": image_id}])
    return snapshot(d, rs, *pods[:2], p, logs={LogKey(p["metadata"]["name"], "app"): ("boom",)})


def first(*lines: str, **more: object) -> Snapshot:
    t = template(container(**more))
    d = deployment(t, updated=3, available=0, progressing=("True", "ReplicaSetUpdated"), age=5 * MINUTE)
    rs = replicaset(d, 1, t, age=5 * MINUTE, replicas=3)
    pods = [pod(rs, i, age=5 * MINUTE, ready=False, node=f"n{i}", states=[crashing()]) for i in range(3)]
    return snapshot(d, rs, *pods, logs={LogKey(pods[0]["metadata"]["name"], "app"): lines})


def image(*lines: str, state: Raw | None = None, **more: object) -> Snapshot:
    w = crash(NEW_IMAGE, state=state)
    return w.snapshot(logs=w.log(*lines) if lines else {})


def image_and_edit() -> Snapshot:
    """A release and an edit of a ConfigMap at the same time: the contrast between old and new pods tells them apart no more."""
    ref = {"envFrom": [{"configMapRef": {"name": "checkout"}}]}
    w = crash(template(container(image="r.example/c:3", **ref)), template(container(**ref)))
    return w.add(configmap("checkout", {"A": "b"}, edited=6 * MINUTE)).snapshot(logs=w.log(PANIC))


def hook() -> Snapshot:
    post = {"postStart": {"exec": {"command": ["/warm"]}}}
    state = waiting("PostStartHookError", "Exec lifecycle hook failed", restarts=3, last=ended(137))
    return crash(template(container(lifecycle=post)), state=state).snapshot()


WRONG_MACHINE = waiting("CrashLoopBackOff", "", restarts=4, last=ended(1))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: image(PANIC), "BadRelease Deployment/checkout rev 7 A"),
        (lambda: image("boom"), "BadRelease Deployment/checkout rev 7 B"),
        (lambda: image("getaddrinfo ENOTFOUND api.partner.example", PANIC), "BadRelease Deployment/checkout rev 7 C"),
        (lambda: image("exec /app/server: exec format error", state=WRONG_MACHINE), "BadRelease Deployment/checkout rev 7 A"),
        (lambda: beside(sidecar(2), sidecar(1), PANIC), "BadRelease Deployment/checkout rev 7 A"),
        (lambda: beside(sidecar(2), template(), PANIC), "BadRelease Deployment/checkout rev 7 A"),
        (
            lambda: beside(sidecar(2, env=[env("MODE", "x")]), template(), "invalid value for MODE"),
            "BadConfiguration Deployment/checkout rev 7 A",
        ),
        (lambda: pushed_again("sha256:" + "1" * 64), "BadRelease Deployment/checkout B"),
        (lambda: pushed_again("sha256:" + "0" * 64), "Unknown Deployment/checkout D"),
        (lambda: first("PORT must be set"), "BadConfiguration Deployment/checkout B"),
        (lambda: first("PORT must be set", env=[env("PORT", "1")]), "Unknown Deployment/checkout D"),
        (lambda: first("PORT must be set", envFrom=[{"secretRef": {"name": "s"}}]), "Unknown Deployment/checkout D"),
        (lambda: first("unknown flag: --prot", args=["--prot=1"]), "BadConfiguration Deployment/checkout B"),
        (lambda: first("boom"), "Unknown Deployment/checkout D"),
        (hook, "BadConfiguration Deployment/checkout rev 7 A"),
    ],
)
def test_exits(made, expected: str) -> None:  # type: ignore[no-untyped-def]
    assert top(made()) == expected


def test_an_edit_beside_the_release_keeps_it_from_being_sure() -> None:
    assert not top(image_and_edit()).endswith(" A")


def test_the_ledgers_record_stands_in_for_pods_that_are_all_replaced() -> None:
    w = crash(NEW_IMAGE, failing=3, old_pods=0)
    snap, record = w.snapshot(logs=w.log(PANIC)), (recorded(w.deployment, w.old),)
    assert top(snap, healthy=record) == "BadRelease Deployment/checkout rev 7 A"
    assert top(snap) == "BadRelease Deployment/checkout rev 7 B"
