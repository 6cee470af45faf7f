"""The watch: cuts, stalls, expired versions, missing rights. A script says what each connection does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from nightorders.adapters.kube import KubeClient, Resources, Watcher
from nightorders.adapters.kube.watch import INITIAL_EVENTS_END, Patience
from nightorders.domain.snapshot import KubeObject
from tests.unit.adapters.fake_api import FakeApi, connected, eventually, obj, status

pytestmark = pytest.mark.asyncio

PATH = "/api/v1/pods"
QUICK = Patience(stall_after=1.5, backoff=(0.01, 0.05), forbidden_backoff=(0.02, 0.08))

Connection = Callable[[web.StreamResponse], Awaitable[None]]
Step = Connection | web.Response
State = tuple[str, bool, str]


class Script:
    """Lists and watches in the order in which the test foresees them; the last watch stays open."""

    def __init__(self, lists: list[web.Response | list[dict[str, Any]]], watches: list[Step]) -> None:
        self.lists, self.watches = lists, watches
        self.list_queries: list[dict[str, str]] = []
        self.watch_queries: list[dict[str, str]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") != "true":
            self.list_queries.append(dict(request.query))
            answer = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
            if isinstance(answer, web.Response):
                return answer
            return web.json_response({"metadata": {"resourceVersion": str(100 * len(self.list_queries))}, "items": answer})
        self.watch_queries.append(dict(request.query))
        step: Step = self.watches.pop(0) if self.watches else silence
        if isinstance(step, web.Response):
            return step
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await step(response)
        return response


def line_of(kind: str, body: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def sends(*chunks: bytes, then: float = 0.0) -> Connection:
    async def run(response: web.StreamResponse) -> None:
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0.01)
        await asyncio.sleep(then)

    return run


async def silence(_: web.StreamResponse) -> None:
    await asyncio.sleep(30)


def broken_off(*chunks: bytes) -> Connection:
    async def run(response: web.StreamResponse) -> None:
        await sends(*chunks)(response)
        request = response._req  # the only way to cut a connection from inside a handler
        assert request is not None
        assert request.transport is not None
        request.transport.abort()

    return run


class Watching:
    """A watch on a scripted server, with the states that it reported."""

    def __init__(self, api: FakeApi, client: KubeClient, script: Script, patience: Patience) -> None:
        api.default = script
        self.states: list[State] = []
        self.watcher = Watcher(client, Resources(client), on_state=lambda *s: self.states.append(s), patience=patience)
        self.events: AsyncGenerator[tuple[str, KubeObject], None] = self.watcher.watch("v1", "Pod")

    async def next(self, count: int, seconds: float = 15.0) -> list[str]:
        found: list[str] = []
        async with asyncio.timeout(seconds):
            while len(found) < count:
                kind, seen = await anext(self.events)
                found.append(f"{kind} {seen.name}@{seen.resource_version}")
        return found


async def watched(script: Script, count: int, patience: Patience = QUICK, seconds: float = 15.0) -> tuple[list[str], list[State]]:
    async with connected() as (api, client):
        watching = Watching(api, client, script, patience)
        async with aclosing(watching.events):
            return await watching.next(count, seconds), watching.states


async def test_list_then_events_from_its_version() -> None:
    script = Script([[obj("a", 1)]], [sends(line_of("MODIFIED", obj("a", 101)) + line_of("ADDED", obj("b", 102)), then=5)])
    found, states = await watched(script, 4)
    assert found == ["ADDED a@1", "BOOKMARK @100", "MODIFIED a@101", "ADDED b@102"]
    assert script.list_queries == [{"resourceVersion": "0"}]
    assert script.watch_queries == [{"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "100", "timeoutSeconds": "290"}]
    assert states == [("Pod", True, "")]


async def test_the_end_of_the_list_is_marked() -> None:
    async with connected() as (api, client):
        watching = Watching(api, client, Script([[]], []), QUICK)
        kind, end = await anext(watching.events)
        assert kind == "BOOKMARK"
        assert end.annotations == {INITIAL_EVENTS_END: "true"}
        await watching.events.aclose()


async def test_a_bookmark_moves_the_version_and_a_closed_watch_resumes_there() -> None:
    script = Script([[]], [sends(line_of("BOOKMARK", {"metadata": {"resourceVersion": "150"}})), sends(line_of("ADDED", obj("a", 151)))])
    found, states = await watched(script, 3)
    assert found == ["BOOKMARK @100", "BOOKMARK @150", "ADDED a@151"]
    assert script.watch_queries[1]["resourceVersion"] == "150"
    assert len(script.list_queries) == 1
    assert states == [("Pod", True, "")]


@pytest.mark.parametrize(
    "expired",
    [
        sends(line_of("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})),
        status(410, "Expired", "too old resource version"),
    ],
    ids=["event", "answer"],
)
async def test_an_expired_version_is_listed_again_exactly_and_the_vanished_are_told(expired: Step) -> None:
    script = Script(
        [[obj("a", 1), obj("b", 2), obj("c", 3)], [obj("b", 2), obj("c", 9, uid="u-other")]],
        [expired, sends(line_of("MODIFIED", obj("b", 201)))],
    )
    found, _ = await watched(script, 10)
    assert found == [
        *("ADDED a@1", "ADDED b@2", "ADDED c@3", "BOOKMARK @100"),
        *("DELETED a@1", "DELETED c@3", "ADDED b@2", "ADDED c@9", "BOOKMARK @200"),
        "MODIFIED b@201",
    ]
    assert script.list_queries == [{"resourceVersion": "0"}, {}]  # not from a cache that may be older than what we saw


async def test_what_was_deleted_while_watching_is_not_told_twice() -> None:
    expired = line_of("ERROR", {"kind": "Status", "code": 410})
    script = Script([[obj("a", 1)], []], [sends(line_of("DELETED", obj("a", 101)) + line_of("ADDED", obj("b", 102)) + expired)])
    found, _ = await watched(script, 6)
    assert found == ["ADDED a@1", "BOOKMARK @100", "DELETED a@101", "ADDED b@102", "DELETED b@102", "BOOKMARK @200"]


async def test_forever_expired_does_not_spin() -> None:
    script = Script([[]], [status(410, "Expired") for _ in range(1000)])
    patience = Patience(backoff=(0.1, 0.2))
    async with connected() as (api, client):
        watching = Watching(api, client, script, patience)
        with pytest.raises(TimeoutError):
            await watching.next(1000, 1.0)
    assert len(script.watch_queries) < 15


async def test_a_watch_that_closes_at_once_again_and_again_does_not_spin() -> None:
    script = Script([[]], [sends() for _ in range(1000)])
    async with connected() as (api, client):
        watching = Watching(api, client, script, Patience(backoff=(0.1, 0.2)))
        with pytest.raises(TimeoutError):
            await watching.next(2, 1.0)
        assert (False, "failed: watch: the watch was closed at once") in [s[1:] for s in watching.states]
    assert len(script.watch_queries) < 15


async def test_forbidden_backs_off_says_how_to_grant_it_and_recovers() -> None:
    refused = 'pods is forbidden: User "system:serviceaccount:n:op" cannot list resource "pods" in API group "" at the cluster scope'
    script = Script([*(status(403, "Forbidden", refused) for _ in range(4)), [obj("a", 1)]], [])
    began = time.monotonic()
    async with connected() as (api, client):
        watching = Watching(api, client, script, QUICK)
        assert await watching.next(1) == ["ADDED a@1"]
        assert time.monotonic() - began > 0.75 * (0.02 + 0.04 + 0.08 + 0.08)
        assert len(script.list_queries) == 5
        await watching.next(1)
        task = asyncio.create_task(watching.next(1))  # goes on to the watch
        await eventually(lambda: len(watching.states) == 2)
        assert [healthy for _, healthy, _ in watching.states] == [False, True]  # said once, not four times
        assert "kubectl create clusterrolebinding nightorders-reader" in watching.states[0][2]
        assert "--serviceaccount=n:op" in watching.states[0][2]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_right_taken_away_during_the_watch_keeps_the_version() -> None:
    script = Script([[]], [sends(line_of("ADDED", obj("a", 101))), status(403, "Forbidden", "no"), sends(line_of("ADDED", obj("b", 102)))])
    found, _ = await watched(script, 3)
    assert found == ["BOOKMARK @100", "ADDED a@101", "ADDED b@102"]
    assert [q["resourceVersion"] for q in script.watch_queries] == ["100", "101", "101"]


@pytest.mark.parametrize(
    "cut",
    [
        broken_off(line_of("ADDED", obj("a", 101))),
        broken_off(line_of("ADDED", obj("a", 101)), line_of("ADDED", obj("b", 102))[:25]),
        sends(line_of("ADDED", obj("a", 101)), line_of("ADDED", obj("b", 102))[:25]),
        sends(line_of("ADDED", obj("a", 101)) + b"garbage\n"),
        sends(line_of("ADDED", obj("a", 101)) + b"[1]\n"),
        sends(line_of("ADDED", obj("a", 101)) + b'{"type": "ADDED"}\n'),
        sends(line_of("ADDED", obj("a", 101)) + line_of("ERROR", {"kind": "Status", "code": 500, "message": "etcd is away"})),
        sends(line_of("ADDED", obj("a", 101)), then=30),
    ],
    ids=["cut", "cut mid-line", "ended mid-line", "garbage", "no object", "no event", "error event", "stall"],
)
async def test_whatever_breaks_it_resumes_after_the_last_event(cut: Connection) -> None:
    script = Script([[]], [cut, sends(line_of("ADDED", obj("b", 102)))])
    found, states = await watched(script, 3)
    assert found == ["BOOKMARK @100", "ADDED a@101", "ADDED b@102"]
    assert [q["resourceVersion"] for q in script.watch_queries] == ["100", "101"]
    assert len(script.list_queries) == 1
    assert [healthy for _, healthy, _ in states] == [True, False, True]


async def test_a_stall_is_named() -> None:
    script = Script([[]], [sends(then=30), sends(line_of("ADDED", obj("a", 101)))])
    _, states = await watched(script, 2)
    assert states[1] == ("Pod", False, "failed: watch: no event and no bookmark for 1.5 s")


async def test_an_event_that_can_never_be_read_is_passed_by_listing_again() -> None:
    script = Script([[], [obj("b", 102)]], [sends(b"garbage\n") for _ in range(5)])
    found, _ = await watched(script, 3)
    assert found == ["BOOKMARK @100", "ADDED b@102", "BOOKMARK @200"]


async def test_one_event_in_many_pieces() -> None:
    large = line_of("ADDED", obj("a", 101, data="x" * 300_000))
    pieces = [large[i : i + 70_000] for i in range(0, len(large), 70_000)]
    found, _ = await watched(Script([[]], [sends(*pieces, then=5)]), 2)
    assert found == ["BOOKMARK @100", "ADDED a@101"]


async def test_a_server_that_is_away_is_tried_again_and_liveness_sees_the_silence() -> None:
    async with connected() as (api, client):
        watching = Watching(api, client, Script([[]], [sends(line_of("ADDED", obj("a", 101)), then=5)]), QUICK)
        await watching.next(2)
        assert watching.watcher.silence()[("v1", "Pod")] < 5
        await asyncio.sleep(0.1)
        assert watching.watcher.silence()[("v1", "Pod")] > 0.09
        await watching.events.aclose()
    watcher = Watcher(client, Resources(client), patience=QUICK)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await anext(watcher.watch("v1", "Pod"))
    assert watcher.silence() == {}


async def test_too_many_requests_waits_as_long_as_the_server_says() -> None:
    script = Script([status(429, "TooManyRequests", "slow", Retry_After="1"), [obj("a", 1)]], [])
    began = time.monotonic()
    found, _ = await watched(script, 1)
    assert found == ["ADDED a@1"]
    assert time.monotonic() - began >= 1


async def test_a_kind_that_is_not_served_is_waited_for() -> None:
    async with connected() as (_, client):
        states: list[State] = []
        watcher = Watcher(client, Resources(client), on_state=lambda *s: states.append(s), patience=QUICK)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await anext(watcher.watch("example.org/v1", "Foo"))
        assert states == [("Foo", False, "failed: no such kind on this cluster: Foo in example.org/v1")]


async def test_closing_the_watch_closes_its_connection() -> None:
    closed = asyncio.Event()

    async def open_ended(response: web.StreamResponse) -> None:
        try:
            while True:
                await response.write(line_of("BOOKMARK", {"metadata": {"resourceVersion": "101"}}))
                await asyncio.sleep(0.01)
        except ConnectionError:
            closed.set()
            raise

    async with connected() as (api, client):
        watching = Watching(api, client, Script([[]], [open_ended]), QUICK)
        await watching.next(2)
        await watching.events.aclose()
        async with asyncio.timeout(2):
            await closed.wait()
