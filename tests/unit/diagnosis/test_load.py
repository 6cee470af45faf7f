"""Pods that are all Ready and do not do their work: what series, logs and changes say together, and where they say nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from nightorders.api.v1alpha1.ledger import HealthyRevision
from nightorders.diagnosis.claim import Claim
from nightorders.domain.snapshot import LogKey, Snapshot, Vector

from .build import DAY, MINUTE, Raw, World, configmap, container, pod, recorded, service, snapshot, steady, template
from .told import answer, firing, top, vector

PODS = [f"checkout-0006-{i}" for i in range(3)]
LIMITED = template(container(resources={"limits": {"memory": "256Mi", "cpu": "500m"}}))
ERRORS = vector(({"service": "checkout"}, 0.4))


def measured(snap: Snapshot, **answers: Vector) -> Snapshot:
    return replace(snap, metrics={**snap.metrics, **answers})


def each(value: float, names: Iterable[str] = PODS) -> Vector:
    return vector(*(({"pod": n}, value) for n in names))


def replaced(
    *, released: timedelta = 5 * MINUTE, log: tuple[str, ...] = (), new: Raw | None = None
) -> tuple[Snapshot, tuple[HealthyRevision, ...]]:
    """Release 7 is complete, every pod Ready; release 6 is only in the Ledger."""
    w = World(
        template(),
        new or template(container(image="registry.example/checkout:2.4.0")),
        failing=3,
        old_pods=0,
        released=released,
        progressing=("True", "NewReplicaSetAvailable"),
    )
    w.deployment["status"] |= {"availableReplicas": 3, "updatedReplicas": 3, "replicas": 3}
    w.new_pods = [pod(w.new, i, age=released, node=f"n{i}") for i in range(3)]
    return w.snapshot(logs=w.log(*log) if log else {}), (recorded(w.deployment, w.old),)


def canary(*, edited: timedelta | None = None, old_ratio: float = 0.0) -> Snapshot:
    """One pod of release 7 beside three of release 6; the rollout is paused."""
    ref = {"envFrom": [{"configMapRef": {"name": "checkout"}}]}
    w = World(template(container(**ref)), template(container(image="registry.example/checkout:2.4.0", **ref)), paused=True)
    w.new_pods = [pod(w.new, 0, age=5 * MINUTE)]
    w.add(configmap("checkout", {"A": "b"}, edited=edited))
    old = (({"pod": p["metadata"]["name"]}, old_ratio) for p in w.old_pods)
    ratios = vector(({"pod": w.new_pods[0]["metadata"]["name"]}, 0.5), *old)
    return measured(w.snapshot(logs=w.log("TypeError: x")), error_ratio_by_pod=ratios)


def steadily(t: Raw | None = None, *more: Raw, log: str = "") -> Snapshot:
    d, rs, pods = steady(t or template())
    return snapshot(d, rs, *pods, service(), *more, logs={LogKey(PODS[0], "app"): (log,)} if log else {})


def since_release(*log: str, claim: Claim | None = None, released: timedelta = 5 * MINUTE, new: Raw | None = None) -> str:
    snap, healthy = replaced(released=released, log=log, new=new)
    return top(measured(snap, error_ratio_by_service=ERRORS), claim=claim or firing(), healthy=healthy)


RELEASE = "BadRelease Deployment/checkout rev 7"


def test_errors_that_began_with_a_release() -> None:
    assert since_release("TypeError: total of undefined") == f"{RELEASE} A"
    assert since_release("ready") == f"{RELEASE} B"
    assert since_release() == f"{RELEASE} B"
    assert since_release("TypeError: x", new=template(container(env=[{"name": "MODE", "value": "x"}]))).startswith(
        "BadConfiguration Deployment"
    )


def test_errors_with_another_reason_are_not_surely_the_releases() -> None:
    assert since_release("call to quotes failed with 503") == f"{RELEASE} C"
    assert since_release("TypeError: x", claim=firing(ago=30)) == "Unknown Deployment/checkout D"
    assert since_release("TypeError: x", released=3 * DAY) == "Unknown Deployment/checkout D"
    both = template(container(image="r.example/c:2", env=[{"name": "MODE", "value": "x"}]))
    assert since_release("TypeError: x", new=both) == f"{RELEASE} C"


def test_errors_of_the_new_revision_only() -> None:
    assert top(canary(), claim=firing()) == f"{RELEASE} A"
    assert top(canary(edited=3 * DAY), claim=firing()).endswith(" C")
    assert not top(canary(old_ratio=0.4), claim=firing()).startswith("BadRelease")


def test_versions_in_the_labels_tell_as_well() -> None:
    snap, healthy = replaced()
    names = {"series": "http_requests_total", "service": "checkout"}
    raw = vector(
        ({**names, "version": "2.4.0", "code": "500"}, 40),
        ({**names, "version": "2.4.0", "code": "200"}, 60),
        ({**names, "version": "2.3.9", "code": "200"}, 900),
    )
    assert top(measured(snap, series=raw, error_ratio_by_service=ERRORS), claim=firing(), healthy=healthy) == f"{RELEASE} B"


FLAGS = template(
    container(volumeMounts=[{"name": "c", "mountPath": "/etc/flags"}]), volumes=[{"name": "c", "configMap": {"name": "flags"}}]
)
FROM_ENV = template(container(envFrom=[{"configMapRef": {"name": "flags"}}]))


def flag(edited: timedelta, t: Raw = FLAGS, *, ago: float = 3, log: str = "") -> str:
    snap = steadily(t, configmap("flags", {"newPricing": "on"}, edited=edited), log=log)
    return top(measured(snap, error_ratio_by_service=ERRORS), claim=firing(ago=ago))


def test_a_flag_that_was_edited_shortly_before() -> None:
    assert flag(5 * MINUTE) == "BadConfiguration ConfigMap/flags Edit B"
    assert flag(5 * MINUTE, log="call to quotes failed with 503") == "BadConfiguration ConfigMap/flags Edit C"


def test_an_edit_that_cannot_be_it() -> None:
    assert flag(MINUTE, ago=10) == "Unknown Deployment/checkout D"
    assert flag(3 * DAY) == "Unknown Deployment/checkout D"
    assert flag(5 * MINUTE, FROM_ENV) == "Unknown Deployment/checkout D"  # no pod has started since


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"memory_by_pod": each(250 * 2**20), "memory_growth_by_pod": each(2000)}, "ResourceLimit Deployment/checkout B"),
        ({"memory_by_pod": each(100 * 2**20), "memory_growth_by_pod": each(20_000)}, "ResourceLimit Deployment/checkout C"),
        ({"memory_by_pod": each(100 * 2**20), "memory_growth_by_pod": each(0)}, "Unknown Deployment/checkout D"),
        ({"memory_by_pod": each(250 * 2**20), "memory_growth_by_pod": each(0)}, "Unknown Deployment/checkout D"),
        ({"cpu_throttled_by_pod": each(0.7)}, "ResourceLimit Deployment/checkout B"),
        ({"cpu_throttled_by_pod": each(0.05)}, "Unknown Deployment/checkout D"),
        ({"cpu_by_pod": each(0.49)}, "Overload Deployment/checkout C"),
        ({"cpu_by_pod": each(0.2)}, "Unknown Deployment/checkout D"),
        ({"error_ratio_by_service": vector(because="refused")}, "Unknown Deployment/checkout D"),
        ({"memory_by_pod": each(250 * 2**20, ["other"])}, "Unknown Deployment/checkout D"),
    ],
)
def test_limits_and_demand(answers: dict[str, Vector], expected: str) -> None:
    assert top(measured(steadily(LIMITED), **answers), claim=firing("CheckoutMemoryOrTime")) == expected


QUEUE = vector(({"service": "checkout", "series": "queue_depth"}, 812))
LOST = "lost connection to rabbitmq:5672"


def test_a_worker_that_hangs_is_no_release_and_its_reason_is_not_known() -> None:
    snap = measured(steadily(LIMITED, log=LOST), queue_depth=QUEUE, cpu_by_pod=each(0.001))
    d = answer(snap, claim=firing("QueueGrows", deployment="checkout"))
    first = d.hypotheses[0]
    assert (first.category, first.object) == ("Unknown", "Deployment/checkout")
    assert "hangs" in first.statement
    assert "rabbitmq" in first.statement


def test_a_queue_that_is_worked_on_is_no_hang() -> None:
    snap = measured(steadily(LIMITED, log=LOST), queue_depth=QUEUE, cpu_by_pod=each(0.3))
    assert "hangs" not in answer(snap, claim=firing("QueueGrows", deployment="checkout")).hypotheses[0].statement


def test_without_a_signal_a_healthy_workload_stays_healthy() -> None:
    snap = measured(steadily(FLAGS, configmap("flags", {"a": "b"}, edited=5 * MINUTE)), cpu_by_pod=each(0.001), queue_depth=QUEUE)
    assert top(snap) == "NoFault Deployment/checkout A"


def test_a_worker_that_lost_a_queue_which_is_back_hangs_on_it() -> None:
    t = template(container("mq", "registry.example/rabbitmq:3"), labels={"app": "rabbitmq"})
    d, rs, pods = steady(t, name="rabbitmq", pods=1)
    lag = vector(({"service": "rabbitmq", "series": "redis_stream_group_lag"}, 812))
    snap = steadily(LIMITED, d, rs, *pods, service("rabbitmq"), log=LOST)
    claim = firing("QueueGrows", service="rabbitmq")
    assert top(measured(snap, series=lag), claim=claim) == "Dependency Deployment/checkout B"
    size = vector(({"service": "rabbitmq", "series": "redis_memory_used_bytes"}, 812))
    assert not top(measured(snap, series=size), claim=claim).startswith("Dependency Deployment/checkout")
    down = [*pods]
    down[0]["status"]["conditions"][1]["status"] = "False"
    gone = steadily(LIMITED, d, rs, *down, service("rabbitmq"), log=LOST)
    assert not top(measured(gone, series=lag), claim=claim).startswith("Dependency Deployment/checkout")
