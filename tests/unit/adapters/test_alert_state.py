"""Vectors, and whether an alert's own rule still holds: stale needs a false evaluation over series that are there, never mere doubt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from nightorders.adapters.prometheus import UNSET, PrometheusMetrics, PrometheusSettings
from nightorders.domain.snapshot import Point, Vector
from tests.unit.adapters.fake_api import FakeApi, always, serve

pytestmark = pytest.mark.asyncio

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EXPR = 'kube_deployment_status_replicas_available{job="ksm"} < kube_deployment_spec_replicas'
LABELS = {"alertname": "Short", "namespace": "shop", "deployment": "web", "severity": "page", "job": "ksm", "cluster": "c1"}


def metrics(api: FakeApi, **settings: Any) -> PrometheusMetrics:
    return PrometheusMetrics(PrometheusSettings(**{"url": api.url, "seconds": 2.0, "question_seconds": 1.0, **settings}))


def vector(*series: dict[str, str], value: str = "1") -> dict[str, Any]:
    result = [{"metric": {"__name__": "m", **labels}, "value": [1.0, value]} for labels in series]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def rules(*found: dict[str, Any]) -> dict[str, Any]:
    return {"status": "success", "data": {"groups": [{"name": "g", "rules": list(found)}]}}


def rule(expr: str = EXPR, **more: Any) -> dict[str, Any]:
    return {"type": "alerting", "name": "Short", "query": expr, "labels": {"severity": "page"}, "health": "ok", "alerts": [], **more}


def world(api: FakeApi, known: object, answers: Callable[[str], object]) -> None:
    """`known`: the answer about rules; `answers`: query → answer."""

    async def query(request: web.Request) -> web.Response:
        return web.json_response(answers(request.query["query"]))

    api.on("GET", "/api/v1/rules", always(lambda: web.json_response(known)))
    api.on("GET", "/api/v1/query", query)


async def test_a_vector_has_every_finite_series_of_the_namespace() -> None:
    async with serve() as api:
        result = [
            {"metric": {"__name__": "up", "pod": "a"}, "value": [1, "0.5"]},
            {"metric": {"pod": "b"}, "value": [1, "NaN"]},
            {"metric": {"pod": "c"}, "histogram": [1, {}]},
        ]
        api.default = always(lambda: web.json_response({"status": "success", "data": {"resultType": "vector", "result": result}}))
        got = await metrics(api).vector("up", AT, namespace="shop")
        assert got == Vector('up{namespace="shop"}', AT, (Point({"pod": "a"}, 0.5),))
        assert api.asked[0].query == {"query": 'up{namespace="shop"}', "time": f"{AT.timestamp():.3f}", "timeout": "1s"}


async def test_no_series_is_an_answer_and_no_answer_is_not() -> None:
    async with serve() as api:
        api.default = always(lambda: web.json_response(vector()))
        assert await metrics(api).vector("up", AT, namespace="shop") == Vector('up{namespace="shop"}', AT)
        for answer in ({"status": "success", "data": {"resultType": "matrix", "result": []}}, {"status": "error"}, [1], {"data": {}}):
            api.default = always(lambda answer=answer: web.json_response(answer))  # type: ignore[misc]
            assert (await metrics(api).vector("up", AT, namespace="shop")).because
        other = await metrics(api).vector('up{namespace="bank"}', AT, namespace="shop")
        assert "not sent" in other.because
        assert len(api.asked) == 5
    gone = await PrometheusMetrics(PrometheusSettings(url="http://127.0.0.1:1")).vector("up", AT, namespace="shop")
    assert "cannot be reached" in gone.because
    assert (await PrometheusMetrics(PrometheusSettings(url="")).vector("up", AT, namespace="shop")).because == UNSET


async def test_many_questions_wait_for_each_other_and_all_end_in_time() -> None:
    async with serve() as api:

        async def slow(_: web.Request) -> web.Response:
            await asyncio.sleep(0.1)
            return web.json_response(vector({"pod": "a"}))

        api.default = slow
        asking = metrics(api, concurrent=2)
        answers = await asyncio.gather(*(asking.vector(f"m{n}", AT, namespace="shop") for n in range(8)))
        assert [len(a.points) for a in answers] == [1] * 8

        async def hangs(_: web.Request) -> web.Response:
            await asyncio.sleep(5)
            return web.json_response(vector())

        api.default = hangs
        began = time.monotonic()
        late = await asyncio.gather(*(asking.vector(f"m{n}", AT, namespace="shop") for n in range(8)))
        assert time.monotonic() - began < 2.5
        assert all("within 1 s" in a.because for a in late)


async def test_a_rule_that_holds_for_these_labels_fires() -> None:
    async with serve() as api:
        found = {"namespace": "shop", "deployment": "web", "job": "ksm", "instance": "10.0.0.1:8080"}
        world(api, rules(rule()), lambda q: vector(found) if q == EXPR else vector())
        state = await metrics(api).alert_state(LABELS, AT)
        assert state.firing is True
        assert "Short" in state.because
        assert api.asked[0].query == {"type": "alert", "rule_name[]": "Short"}


async def test_false_needs_the_series_to_be_there() -> None:
    async with serve() as api:
        other = {"namespace": "shop", "deployment": "other", "job": "ksm"}
        world(api, rules(rule()), lambda q: vector(other) if q == EXPR else vector({}))
        state = await metrics(api).alert_state(LABELS, AT)
        assert state.firing is False
        assert "no longer holds" in state.because
        world(api, rules(rule()), lambda q: vector())  # the exporter is down: nothing is there at all
        state = await metrics(api).alert_state(LABELS, AT)
        assert state.firing is None
        assert "proves nothing" in state.because


async def test_series_of_the_app_are_asked_for_by_the_labels_of_the_alert() -> None:
    expr = 'sum by (namespace, service) (rate(errors_total{code=~"5.."}[5m])) > 1'
    labels = {"alertname": "Short", "namespace": "shop", "service": "web"}
    async with serve() as api:
        world(api, rules(rule(expr)), lambda q: vector({}) if q != expr else vector())
        assert (await metrics(api).alert_state(labels, AT)).firing is False
        assert api.asked[-1].query["query"] == 'count(errors_total{namespace=~"shop|",service=~"web|"})'


async def test_another_pod_of_the_same_workload_counts_if_asked_for() -> None:
    expr = 'kube_pod_container_status_waiting_reason{reason="CrashLoopBackOff"} == 1'
    labels = {"alertname": "Short", "namespace": "shop", "pod": "web-7c9-aaaaa", "uid": "1", "severity": "page"}
    async with serve() as api:
        now = {"namespace": "shop", "pod": "web-7c9-bbbbb", "uid": "2", "reason": "CrashLoopBackOff"}
        world(api, rules(rule(expr)), lambda q: vector(now))
        assert (await metrics(api).alert_state(labels, AT, pods_of="web")).firing is True
        assert (await metrics(api).alert_state(labels, AT)).firing is False
        assert (await metrics(api).alert_state(labels, AT, pods_of="api")).firing is False
        assert (await metrics(api).alert_state({**labels, "namespace": "bank"}, AT, pods_of="web")).firing is False


@pytest.mark.parametrize(
    "known",
    [
        rules(),
        rules(rule(name="Other")),
        rules({**rule(), "type": "recording"}),
        rules({**rule(), "labels": {"severity": "info"}}),
        {"status": "success", "data": {}},
        {"status": "success"},
        [],
        {"data": {"groups": [7, {"rules": 7}, {"rules": [7]}]}},
    ],
)
async def test_without_a_rule_nothing_is_tried(known: object) -> None:
    async with serve() as api:
        world(api, known, lambda q: vector())
        state = await metrics(api).alert_state(LABELS, AT)
        assert state.firing is None
        assert state.because
        assert [a.path for a in api.asked] == ["/api/v1/rules"]


async def test_of_two_rules_of_a_name_one_that_holds_is_enough_and_doubt_is_no_denial() -> None:
    two = rules(rule("dead_total > 1"), rule("kube_x > 1"))
    async with serve() as api:
        world(api, two, lambda q: vector(LABELS) if q == "kube_x > 1" else vector())
        assert (await metrics(api).alert_state(LABELS, AT)).firing is True
        world(api, two, lambda q: vector({}) if "kube_node_info" in q else vector())
        assert (await metrics(api).alert_state(LABELS, AT)).firing is None


async def test_a_rule_whose_evaluation_fails_is_not_false() -> None:
    async with serve() as api:
        world(api, rules(rule(health="err", lastError="many-to-many matching")), lambda q: vector() if q == EXPR else vector({}))
        state = await metrics(api).alert_state(LABELS, AT)
        assert state.firing is None
        assert "many-to-many" in state.because


async def test_down_slow_or_garbage_is_not_looked_at() -> None:
    async with serve() as api:
        api.default = always(lambda: web.Response(text="<html>"))
        assert (await metrics(api).alert_state(LABELS, AT)).firing is None

        async def hangs(_: web.Request) -> web.Response:
            await asyncio.sleep(5)
            return web.Response()

        api.default = hangs
        began = time.monotonic()
        assert (await metrics(api).alert_state(LABELS, AT)).firing is None
        assert time.monotonic() - began < 2
        api.default = None
        world(
            api,
            rules(rule()),
            lambda q: {"status": "success", "warnings": ["a store is away"], "data": {"resultType": "vector", "result": []}},
        )
        state = await metrics(api).alert_state(LABELS, AT)
        assert state.firing is None
        assert "a store is away" in state.because
    assert (await PrometheusMetrics(PrometheusSettings(url="http://127.0.0.1:1")).alert_state(LABELS, AT)).firing is None
    assert UNSET in (await PrometheusMetrics(PrometheusSettings(url="")).alert_state(LABELS, AT)).because


async def test_many_slow_answers_end_in_time_as_well() -> None:
    async with serve() as api:

        async def slow(request: web.Request) -> web.Response:
            await asyncio.sleep(0.7)
            return web.json_response(vector())

        world(api, rules(*(rule(f"m{n} > 1") for n in range(4))), lambda q: vector())
        api.on("GET", "/api/v1/query", slow)
        began = time.monotonic()
        assert (await metrics(api).alert_state(LABELS, AT)).firing is None
        assert time.monotonic() - began < 2.6
