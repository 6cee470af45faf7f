"""Pods that stay at their start: a wait in vain and a command that never ends are told from a start that takes its time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nightorders.domain.snapshot import LogKey, Snapshot

from .build import MINUTE, Raw, World, container, env, running, template, waiting
from .test_values import ledger, offered
from .told import top

LATE, ON_TIME = ("False", "ProgressDeadlineExceeded"), ("True", "ReplicaSetUpdated")


def init(*command: str, image: str = "busybox:1", **more: object) -> Raw:
    return template(container(), initContainers=[container("wait", image, command=list(command), **more)])


def starting(
    new: Raw, old: Raw | None = None, *, ago: timedelta = 12 * MINUTE, log: tuple[str, ...] = (), more: tuple[Raw, ...] = ()
) -> Snapshot:
    """The release's pods are in their init container since then."""
    w = World(old or template(), new, states=[waiting("PodInitializing")], released=ago, progressing=LATE if ago > 10 * MINUTE else ON_TIME)
    for p in w.new_pods:
        p["status"]["initContainerStatuses"] = [running("wait", ready=False, age=ago - timedelta(seconds=2))]
    w.add(*more)
    return w.snapshot(logs={LogKey(w.new_pods[0]["metadata"]["name"], "wait"): log} if log else {})


def hook(new: Raw, old: Raw) -> Snapshot:
    w = World(old, new, states=[waiting("ContainerCreating")], released=12 * MINUTE, progressing=LATE)
    return w.snapshot()


SCRIPT = "until nslookup ledgr; do echo waiting; sleep 2; done"
POST = {"postStart": {"exec": {"command": ["sh", "-c", "sleep infinity"]}}}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: starting(init("sh", "-c", SCRIPT), more=tuple(ledger())), "BadConfiguration Deployment/checkout rev 7 A"),
        (
            lambda: starting(init("sh", "-c", SCRIPT), log=("nslookup: can't resolve 'ledgr'",), more=tuple(ledger())),
            "BadConfiguration Deployment/checkout rev 7 A",
        ),
        (lambda: starting(init("sh", "-c", "until nc -z mailer 25; do sleep 1; done")), "BadConfiguration Deployment/checkout rev 7 A"),
        (
            lambda: starting(
                init("sh", "-c", "until nc -z $PEER 8080; do sleep 1; done", env=[env("PEER", "ledgr")]), more=tuple(ledger())
            ),
            "BadConfiguration Deployment/checkout rev 7 A",
        ),
        (lambda: starting(init("sh", "-c", "sleep infinity")), "BadConfiguration Deployment/checkout rev 7 A"),
        (lambda: starting(init("migrate")), "BadConfiguration Deployment/checkout rev 7 B"),
        (lambda: starting(init("setup", image="setup:2"), init("setup", image="setup:1")), "BadRelease Deployment/checkout rev 7 B"),
        # inside its deadline nothing is wrong, unless waiting cannot mend it
        (lambda: starting(init("sh", "-c", "sleep infinity"), ago=2 * MINUTE), "BadConfiguration Deployment/checkout rev 7 A"),
        (lambda: starting(init("migrate"), ago=2 * MINUTE), "NoFault Deployment/checkout B"),
        (lambda: hook(template(container(lifecycle=POST)), template()), "BadConfiguration Deployment/checkout rev 7 A"),
    ],
)
def test_starts(made, expected: str) -> None:  # type: ignore[no-untyped-def]
    assert top(made()) == expected


def test_what_is_there_by_name_is_not_the_waiting_pods_fault() -> None:
    found = top(starting(init("sh", "-c", "until nc -z db 5432; do sleep 1; done"), more=(offered("db", 5432),)))
    assert not found.startswith("BadConfiguration Deployment/checkout")


def test_the_same_wait_that_others_have_passed_is_not_judged() -> None:
    new = init("sh", "-c", SCRIPT)
    w = World(template(), new, states=[waiting("PodInitializing")], failing=2, released=12 * MINUTE, progressing=LATE)
    w.new_pods[0]["status"]["initContainerStatuses"] = [running("wait", ready=False, age=11 * MINUTE)]
    ready = running(age=11 * MINUTE)
    w.new_pods[1]["status"] |= {"phase": "Running", "containerStatuses": [ready]}
    w.new_pods[1]["status"]["conditions"][1]["status"] = "True"
    assert "BadConfiguration" not in top(w.snapshot())
