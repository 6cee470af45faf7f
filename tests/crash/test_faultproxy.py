"""The fault proxy alone, between aiohttp on both sides: each fault does what its name says, and everything else passes untouched."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tools.faultproxy import Fault, FaultProxy, Plan, Trigger, describe

INCIDENTS = "/apis/nightorders.dev/v1alpha1/namespaces/shop/incidents"
STATUS = f"{INCIDENTS}/one/status"


class Upstream:
    """An API server that takes everything. `committed` is what reached it."""

    def __init__(self) -> None:
        self.committed: list[tuple[str, str, bytes, str]] = []
        self.watching = 0
        self.url = ""

    async def serve(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.method != "GET":
            self.committed.append((request.method, request.raw_path, body, request.headers.get("Authorization", "")))
            return web.json_response({"committed": len(self.committed)}, status=201, headers={"X-Audit": "yes"})
        if "watch" not in request.query:
            return web.Response(body=gzip.compress(b'{"items":[]}'), content_type="application/json", headers={"Content-Encoding": "gzip"})
        response = web.StreamResponse()
        await response.prepare(request)
        self.watching += 1
        try:
            for n in range(1000):
                await response.write(json.dumps({"type": "ADDED", "object": n}).encode() + b"\n")
                await asyncio.sleep(0.02)
        finally:
            self.watching -= 1
        return response


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    made = Upstream()
    runner = await made.serve()
    yield made
    await runner.cleanup()


class Killed(list[int]):
    """How much had been committed at each kill."""


@pytest.fixture
def killed() -> Killed:
    return Killed()


@pytest.fixture
def proxy(upstream: Upstream, killed: Killed) -> Iterator[FaultProxy]:
    made = FaultProxy(upstream.url, Path(), kill=lambda: killed.append(len(upstream.committed))).start()
    yield made
    made.stop()


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(proxy.url) as made:
        yield made


async def write(client: aiohttp.ClientSession, path: str = STATUS) -> int:
    """A PATCH: aiohttp itself sends a PUT again over a new connection when an old one breaks."""
    async with client.patch(path, data=b'{"a": 1}', headers={"Authorization": "Bearer t"}) as answer:
        await answer.read()
        return answer.status


async def test_everything_passes_untouched(client: aiohttp.ClientSession, proxy: FaultProxy, upstream: Upstream) -> None:
    async with client.patch(f"{INCIDENTS}/a%2Fb?dryRun=All&x=1%202", data=b"\x00body", headers={"Authorization": "Bearer t"}) as answer:
        assert (answer.status, answer.headers["X-Audit"], await answer.json()) == (201, "yes", {"committed": 1})
    assert upstream.committed == [("PATCH", f"{INCIDENTS}/a%2Fb?dryRun=All&x=1%202", b"\x00body", "Bearer t")]
    async with client.get(INCIDENTS) as answer:
        assert await answer.json() == {"items": []}
    assert [(r.kind, r.status, r.number) for r in proxy.requests()] == [("dry-run", 201, 0), ("read", 200, 0)]


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("PUT", f"{STATUS}?fieldValidation=Strict", ("write", "nightorders.dev", "incidents/status", "shop", "one")),
        ("POST", INCIDENTS, ("write", "nightorders.dev", "incidents", "shop", "")),
        ("PATCH", "/apis/apps/v1/namespaces/shop/deployments/web?dryRun=All", ("dry-run", "apps", "deployments", "shop", "web")),
        ("PATCH", "/apis/apps/v1/namespaces/shop/deployments/web", ("write", "apps", "deployments", "shop", "web")),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/sys/leases/l", ("aside", "coordination.k8s.io", "leases", "sys", "l")),
        ("POST", "/api/v1/namespaces/shop/events", ("aside", "", "events", "shop", "")),
        ("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", ("aside", "authorization.k8s.io", "selfsubjectrulesreviews", "", "")),
        ("GET", "/api/v1/namespaces/shop", ("read", "", "namespaces", "", "shop")),
        ("PUT", "/api/v1/namespaces/shop/status", ("write", "", "namespaces/status", "", "shop")),
        ("GET", "/api/v1/pods?watch=true&allowWatchBookmarks=true", ("watch", "", "pods", "", "")),
        ("GET", "/version", ("read", "", "", "", "")),
    ],
)  # fmt: skip
def test_a_request_is_understood(method: str, target: str, expected: tuple[str, ...]) -> None:
    r = describe(method, target, b"")
    assert (r.kind, r.group, r.resource, r.namespace, r.name) == expected


async def test_killed_before_the_write_is_forwarded(
    client: aiohttp.ClientSession, proxy: FaultProxy, upstream: Upstream, killed: Killed
) -> None:
    plan = proxy.arm(Plan(Trigger(nth=2), Fault("before")))
    assert await write(client) == 201
    assert not plan.fired.is_set()
    with pytest.raises(aiohttp.ClientError):
        await write(client)
    assert plan.fired.is_set()
    assert killed == [1]
    assert len(upstream.committed) == 1
    assert await write(client) == 201, "it happens once"
    assert [r.number for r in proxy.requests("write")] == [1, 2, 3]


async def test_killed_once_it_is_committed_and_before_the_answer(
    client: aiohttp.ClientSession, proxy: FaultProxy, upstream: Upstream, killed: Killed
) -> None:
    plan = proxy.arm(Plan(Trigger(), Fault("after-commit")))
    with pytest.raises(aiohttp.ClientError):
        await write(client)
    assert plan.fired.is_set()
    assert killed == [1]
    assert plan.hits[0].status == 201
    assert plan.hits[0].fault == "after-commit"


async def test_killed_after_the_answer_and_before_the_next_write(
    client: aiohttp.ClientSession, proxy: FaultProxy, upstream: Upstream, killed: Killed
) -> None:
    plan = proxy.arm(Plan(Trigger(), Fault("after-response")))
    assert await write(client) == 201
    with pytest.raises(aiohttp.ClientError):
        await write(client)
    assert killed == [1]
    assert len(upstream.committed) == 1
    assert plan.fired.is_set()
    await asyncio.sleep(0.1)
    assert killed == [1], "once"


async def test_killed_after_the_answer_also_when_no_other_write_comes(
    client: aiohttp.ClientSession, proxy: FaultProxy, killed: Killed
) -> None:
    plan = proxy.arm(Plan(Trigger(), Fault("after-response")))
    assert await write(client) == 201
    assert await asyncio.to_thread(plan.fired.wait, 2)
    assert killed == [1]


async def test_a_trigger_that_nothing_meets_never_fires(client: aiohttp.ClientSession, proxy: FaultProxy, killed: Killed) -> None:
    plan = proxy.arm(Plan(Trigger(resource="deployments"), Fault("before")))
    other = Plan(Trigger(where=lambda r: r.json.get("a") == 2), Fault("before"))
    proxy.arm(plan, other)
    assert await write(client) == 201
    assert not plan.fired.is_set()
    assert not other.fired.is_set()
    assert killed == []


@pytest.mark.parametrize("status", [409, 422, 429, 500, 503])
async def test_an_answer_in_place_of_the_api_server(
    client: aiohttp.ClientSession, proxy: FaultProxy, upstream: Upstream, status: int
) -> None:
    plan = proxy.arm(Plan.parse({"trigger": {"resource": "incidents/status", "times": 2}, "fault": {"what": "answer", "status": status}}))
    for _ in range(2):
        async with client.put(STATUS, data=b"{}") as answer:
            assert answer.status == status
            assert (await answer.json())["kind"] == "Status"
            assert ("Retry-After" in answer.headers) == (status in (429, 503))
    assert await write(client) == 201
    assert len(upstream.committed) == 1
    assert len(plan.hits) == 2


async def test_a_time_out_after_the_commit(client: aiohttp.ClientSession, proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.arm(Plan(Trigger(), Fault("timeout-after-commit")))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await write(client)
    assert len(upstream.committed) == 1


async def test_a_reset_and_a_delay(client: aiohttp.ClientSession, proxy: FaultProxy, upstream: Upstream) -> None:
    proxy.arm(Plan(Trigger(), Fault("reset")), Plan(Trigger(nth=1), Fault("delay", seconds=0.2)))
    with pytest.raises(aiohttp.ClientError):
        await write(client)
    assert upstream.committed == []
    begin = asyncio.get_running_loop().time()
    assert await write(client) == 201
    assert asyncio.get_running_loop().time() - begin >= 0.2


async def events(client: aiohttp.ClientSession, at_most: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async with client.get(INCIDENTS, params={"watch": "true"}) as answer:
        async for row in answer.content:
            found.append(json.loads(row))
            if len(found) == at_most:
                break
    return found


async def test_a_watch_streams_and_ends_with_its_client(client: aiohttp.ClientSession, proxy: FaultProxy, upstream: Upstream) -> None:
    assert len(await events(client, 5)) == 5
    for _ in range(100):
        if not upstream.watching:
            break
        await asyncio.sleep(0.02)
    assert not upstream.watching


async def test_a_watch_is_cut(client: aiohttp.ClientSession, proxy: FaultProxy) -> None:
    proxy.arm(Plan(Trigger(kind="watch"), Fault("watch-cut", events=3)))
    with pytest.raises(aiohttp.ClientError):
        await events(client, 100)
    assert len(await events(client, 4)) == 4


async def test_a_watch_is_told_that_its_version_is_too_old(client: aiohttp.ClientSession, proxy: FaultProxy) -> None:
    proxy.arm(Plan(Trigger(kind="watch"), Fault("watch-410", events=2)))
    found = await events(client, 3)
    assert [e["type"] for e in found] == ["ADDED", "ADDED", "ERROR"]
    assert found[-1]["object"]["code"] == 410


async def test_a_watch_stalls(client: aiohttp.ClientSession, proxy: FaultProxy) -> None:
    proxy.arm(Plan(Trigger(kind="watch"), Fault("stall", events=2)))
    assert len(await events(client, 2)) == 2
    proxy.arm(Plan(Trigger(kind="watch"), Fault("stall", events=2)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await events(client, 3)


async def test_an_api_server_that_is_away_is_a_broken_connection(proxy: FaultProxy) -> None:
    lonely = FaultProxy("http://127.0.0.1:9", Path()).start()
    try:
        async with aiohttp.ClientSession(lonely.url) as client:
            with pytest.raises(aiohttp.ClientError):
                await write(client)
    finally:
        lonely.stop()


def test_a_plan_that_names_no_fault_is_refused() -> None:
    with pytest.raises(ValueError, match="no such fault"):
        Plan.parse({"fault": {"what": "explode"}})
    with pytest.raises(ValueError, match="status"):
        Fault("answer", status=299)
    with pytest.raises(ValueError, match="status"):
        Fault("before", status=409)
