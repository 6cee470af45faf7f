"""What a signal claims after its source was asked again, and the answers of Prometheus by name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nightorders.api.v1alpha1.incident import Incident
from nightorders.controller.triage import ask_metrics, claim_of, gaps_of_signal, is_resolved
from nightorders.diagnosis.questions import NAMES, QUESTIONS, Question, answers, pool_usage
from nightorders.domain.alerts import BAD_TARGET, LEFT_OUT
from nightorders.domain.promql import pinned, problem
from nightorders.domain.snapshot import Point, Vector
from nightorders.ports import Sample, StillFiring

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SINCE = NOW - timedelta(minutes=5)


class Metrics:
    """Answers as a test says, and remembers what it was asked."""

    def __init__(self, state: StillFiring | None = None, points: Mapping[str, tuple[Point, ...]] | None = None) -> None:
        self.state = state or StillFiring(None, "no rule")
        self.points = points or {}
        self.because: dict[str, str] = {}
        self.asked: list[Any] = []

    async def query(self, promql: str, at: datetime, *, namespace: str) -> Sample:
        raise AssertionError("triage asks no check")

    async def vector(self, promql: str, at: datetime, *, namespace: str) -> Vector:
        self.asked.append((promql, at, namespace))
        name = next(q.names[0] for q in QUESTIONS if q.promql == promql)
        return Vector(promql, at, self.points.get(name, ()), self.because.get(name, ""))

    async def alert_state(self, labels: Mapping[str, str], at: datetime, *, pods_of: str = "") -> StillFiring:
        self.asked.append((dict(labels), at, pods_of))
        return self.state


def incident(signal: dict[str, Any] | None, kind: str = "Deployment", **status: Any) -> Incident:
    spec: dict[str, Any] = {"target": {"apiVersion": "v1" if kind == "Service" else "apps/v1", "kind": kind, "name": "web"}}
    if signal is not None:
        spec["signal"] = {"source": "Alertmanager", "name": "Broken", "startsAt": SINCE, "fingerprints": ["f1"], **signal}
    return Incident.model_validate({"kind": "Incident", "metadata": {"name": "i", "namespace": "shop"}, "spec": spec, "status": status})


def state(fingerprint: str, state: str) -> dict[str, Any]:
    return {"fingerprint": fingerprint, "state": state, "at": NOW}


LABELS = {"alertname": "Broken it is", "namespace": "shop", "pod": "web-1"}


async def test_nobody_signalled() -> None:
    metrics = Metrics()
    assert await claim_of(incident(None), metrics, NOW) is None
    assert metrics.asked == []


async def test_the_detector_is_not_asked_again() -> None:
    metrics = Metrics(StillFiring(False, "no"))
    claim = await claim_of(incident({"source": "Detector", "name": "RolloutStuck"}), metrics, NOW)
    assert claim is not None
    assert (claim.name, claim.firing, claim.resolved, claim.starts_at) == ("RolloutStuck", None, False, SINCE)
    assert metrics.asked == []


@pytest.mark.parametrize("firing", [True, False, None])
async def test_an_alert_is_asked_for_by_its_labels(firing: bool | None) -> None:
    metrics = Metrics(StillFiring(firing, "because of that"))
    claim = await claim_of(incident({"labels": LABELS, "annotations": {"summary": "s"}}), metrics, NOW)
    assert claim is not None
    assert (claim.name, claim.labels, claim.annotations) == ("Broken it is", LABELS, {"summary": "s"})
    assert (claim.firing, claim.because, claim.resolved) == (firing, "because of that", False)
    assert metrics.asked == [(LABELS, NOW, "web")]


async def test_other_kinds_than_workloads_have_no_pods() -> None:
    metrics = Metrics()
    await claim_of(incident({"labels": LABELS}, kind="Service"), metrics, NOW)
    assert metrics.asked[0][2] == ""


async def test_what_was_redacted_or_cut_is_not_asked_for() -> None:
    metrics = Metrics()
    await claim_of(incident({"labels": {**LABELS, "dsn": "x [redacted] y", "long": "yyy…"}}), metrics, NOW)
    assert metrics.asked[0][0] == LABELS


async def test_resolved_is_said_when_all_of_its_alerts_are() -> None:
    assert not is_resolved(incident({}))
    assert is_resolved(incident({}, alerts=[state("f1", "Resolved")]))
    assert not is_resolved(incident({}, alerts=[state("f2", "Resolved")]))
    assert not is_resolved(incident({}, alerts=[state("f1", "Resolved"), state("f2", "Firing")]))
    assert is_resolved(incident({}, alerts=[state("f1", "Resolved"), state("f2", "Resolved")]))
    claim = await claim_of(incident({"labels": LABELS}, alerts=[state("f1", "Resolved")]), Metrics(StillFiring(True, "it holds")), NOW)
    assert claim is not None
    assert (claim.resolved, claim.firing) == (True, True)  # both are told; who weighs them is the engine
    assert claim.because == "Alertmanager says that it is resolved; it holds"


def test_gaps_of_the_way_in_are_kept_and_others_are_not() -> None:
    gaps = [{"what": w, "because": "x"} for w in (LEFT_OUT, "logs", BAD_TARGET)]
    assert [g.what for g in gaps_of_signal(incident({}, gaps=gaps))] == [LEFT_OUT, BAD_TARGET]


# ---------------------------------------------------------------- questions


def test_every_question_passes_the_guard_for_a_long_namespace_too() -> None:
    assert len(QUESTIONS) <= 12
    for q in QUESTIONS:
        assert problem(q.promql) == ""
        assert pinned(q.promql, "n" * 63).count('namespace="' + "n" * 63) >= 1


async def test_every_name_has_an_answer_and_nothing_is_asked_twice() -> None:
    metrics = Metrics(points={"error_ratio_by_pod": (Point({"pod": "a"}, 0.5),)})
    got = await ask_metrics(metrics, "shop", NOW)
    assert set(got) == set(NAMES)
    assert got["error_ratio_by_pod"].points == (Point({"pod": "a"}, 0.5),)
    assert len(metrics.asked) == len(QUESTIONS) == len({a[0] for a in metrics.asked})
    assert {a[1:] for a in metrics.asked} == {(NOW, "shop")}
    assert all(v.because == "" for v in got.values())


async def test_a_failed_round_trip_is_not_looked_for_each_of_its_names_and_only_these() -> None:
    metrics = Metrics()
    metrics.because = {"memory_by_pod": "Prometheus did not answer", "queue_depth": "refused"}
    got = await ask_metrics(metrics, "shop", NOW)
    failed = {name for name, v in got.items() if v.because}
    assert failed == {"memory_by_pod", "memory_growth_by_pod", "queue_depth", "pool_usage", "pool_waiting"}


def test_two_round_trips_for_one_name_are_one_answer_or_none() -> None:
    one, two = Question(("a",), "x"), Question(("a", "b"), "y")
    first = Vector("x", NOW, (Point({"service": "s"}, 1),))
    both = (Point({"service": "s", "question": "a"}, 2), Point({"service": "t", "question": "a"}, 3), Point({"question": "b"}, 4))
    got = answers([(one, first), (two, Vector("y", NOW, both))], NOW)
    assert got["a"].points == (Point({"service": "s"}, 1), Point({"service": "t"}, 3))
    assert got["b"].points == (Point({}, 4),)
    got = answers([(one, first), (two, Vector("y", NOW, because="down"))], NOW)
    assert (got["a"].points, got["a"].because) == ((), "down")


def pool(name: str, value: float, **labels: str) -> Point:
    return Point({"series": name, **labels}, value)


@pytest.mark.parametrize(
    ("points", "usage"),
    [
        ((pool("hikaricp_connections_active", 8, pool="p"), pool("hikaricp_connections_max", 10, pool="p")), [0.8]),
        ((pool("db_pool_connections", 19, state="active"), pool("db_pool_connections", 20, state="max")), [0.95]),
        ((pool("go_sql_in_use_connections", 5), pool("go_sql_max_open_connections", 10)), [0.5]),
        ((pool("db_pool_in_use", 3), pool("db_pool_size", 4)), [0.75]),
        (
            (
                pool("pg_stat_activity_count", 50, datname="a"),
                pool("pg_stat_activity_count", 40, datname="b"),
                pool("pg_settings_max_connections", 100),
            ),
            [0.9],
        ),
        ((pool("x_pool_active", 1, pod="a"), pool("x_pool_max", 2, pod="b")), []),
        ((pool("x_pool_active", 1), pool("x_pool_max", 0)), []),
        ((pool("x_pool_active", 1),), []),
        ((pool("thread_pool_tasks", 9),), []),
    ],
)
def test_pools_that_tell_both_numbers(points: tuple[Point, ...], usage: list[float]) -> None:
    assert [p.value for p in pool_usage(points)] == usage
