"""Leader election: never two, by nobody's wall clock."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from nightorders.adapters.kube import KubeClient
from nightorders.adapters.lease import LeaderLease, steady
from tests.unit.adapters.fake_api import FakeApi, connected, eventually, status

pytestmark = pytest.mark.asyncio

COLLECTION = "/apis/coordination.k8s.io/v1/namespaces/sys/leases"
PATH = f"{COLLECTION}/nightorders"


class Store:
    """A Lease as the API server keeps it: writes are conditional."""

    def __init__(self, api: FakeApi) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.failing: web.Response | None = None
        self.hanging = False
        api.default = self

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if self.hanging:
            await asyncio.sleep(30)
        if self.failing is not None:
            return status(self.failing.status)
        if request.method == "GET":
            return web.json_response(self.lease) if self.lease else status(404, "NotFound", "gone", {"name": "nightorders"})
        body = await request.json()
        if request.method == "POST" and self.lease:
            return status(409, "AlreadyExists", "exists")
        if request.method == "PUT" and body["metadata"]["resourceVersion"] != str(self.version):
            return status(409, "Conflict", "modified")
        self.version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return web.json_response(self.lease)

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease
        spec: dict[str, Any] = self.lease["spec"]
        return spec


class Steady:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def candidate(client: KubeClient, name: str, **more: Any) -> LeaderLease:
    return LeaderLease(client, namespace="sys", identity=name, **{"lease": 0.6, "renew_deadline": 0.4, "retry": 0.05, **more})


async def test_one_takes_it_the_other_waits_and_takes_over_after_release() -> None:
    async with connected() as (api, client):
        store = Store(api)
        slowly = {"lease": 1.5, "renew_deadline": 1.2, "retry": 0.1}
        a, b = candidate(client, "a", **slowly), candidate(client, "b", **slowly)
        await a.acquire()
        assert a.leading
        assert store.spec["leaseTransitions"] == 0
        keeping, waiting = asyncio.create_task(a.keep()), asyncio.create_task(b.acquire())
        await asyncio.sleep(1.8)  # longer than the lease: it is renewed
        assert a.leading
        assert not b.leading
        assert b.message == "a leads"
        keeping.cancel()
        await a.release()
        assert not a.leading
        async with asyncio.timeout(5):
            await waiting
        assert b.leading
        assert store.spec["holderIdentity"] == "b"
        assert store.spec["leaseTransitions"] == 1


async def test_two_that_race_for_a_new_lease_do_not_both_lead() -> None:
    async with connected() as (api, client):
        store = Store(api)
        racers = [candidate(client, f"c{i}", lease=30, renew_deadline=20) for i in range(8)]
        tasks = [asyncio.create_task(r.acquire()) for r in racers]
        await eventually(lambda: any(task.done() for task in tasks))
        await asyncio.sleep(0.1)
        assert [r.identity for r in racers if r.leading] == [store.spec["holderIdentity"]]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("skew", ["1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z", None, "nonsense"])
async def test_the_times_in_the_lease_are_never_compared_with_a_clock(skew: str | None) -> None:
    """A holder whose clock is years off is as alive as any other: only whether its record changes counts."""
    async with connected() as (api, client):
        store, clock = Store(api), Steady()
        other = candidate(client, "other", now=clock, lease=15, renew_deadline=10, retry=2)
        store.lease = {
            "metadata": {"name": "nightorders", "resourceVersion": "0"},
            "spec": {"holderIdentity": "skewed", "leaseDurationSeconds": 15, "renewTime": skew, "leaseTransitions": 4},
        }
        assert not await other._attempt(1)
        clock.at += 14
        assert not await other._attempt(1)
        store.lease["spec"]["renewTime"] = f"renewed {skew}"
        clock.at += 2
        assert not await other._attempt(1)  # it moved: 15 s from now
        clock.at += 14
        assert not await other._attempt(1)
        clock.at += 2
        assert await other._attempt(1)
        assert store.spec["leaseTransitions"] == 5


async def test_a_longer_lease_than_ours_is_honoured() -> None:
    async with connected() as (api, client):
        store, clock = Store(api), Steady()
        other = candidate(client, "other", now=clock, lease=15, renew_deadline=10, retry=2)
        store.lease = {
            "metadata": {"resourceVersion": "0"},
            "spec": {"holderIdentity": "slow", "leaseDurationSeconds": 60, "renewTime": "x"},
        }
        assert not await other._attempt(1)
        clock.at += 59
        assert not await other._attempt(1)
        clock.at += 2
        assert await other._attempt(1)


@pytest.mark.parametrize("trouble", ["hanging", "failing"])
async def test_a_leader_that_cannot_renew_steps_down_before_another_may_take_over(trouble: str) -> None:
    lost: list[str] = []
    async with connected() as (api, client):
        store = Store(api)
        a = candidate(client, "a", on_lost=lost.append)
        await a.acquire()
        began = steady()
        store.hanging = trouble == "hanging"
        store.failing = status(500) if trouble == "failing" else None
        await a.keep()
        assert 0.3 < steady() - began < 5
        assert not a.leading
        assert len(lost) == 1
        assert lost[0]


async def test_a_renewal_that_began_late_has_only_what_is_left() -> None:
    async with connected() as (api, client):
        store = Store(api)
        a = candidate(client, "a", lease=3, renew_deadline=2, retry=1.5)
        await a.acquire()
        began = steady()
        store.hanging = True
        await a.keep()
        assert steady() - began < 3.2


async def test_leading_ends_by_itself_when_the_renewing_task_hangs() -> None:
    async with connected() as (api, client):
        Store(api)
        clock = Steady()
        a = candidate(client, "a", now=clock)
        await a.acquire()
        assert a.leading
        clock.at += 0.41
        assert not a.leading


async def test_the_deadline_counts_from_before_the_renewal_was_sent() -> None:
    async with connected() as (api, client):
        store, clock = Store(api), Steady()

        async def slow(request: web.Request) -> web.StreamResponse:
            clock.at += 0.15
            return await store(request)

        api.default = slow
        a = candidate(client, "a", now=clock)
        await a.acquire()
        clock.at += 0.2
        assert not a.leading  # 0.3 s for two requests, and 0.2 s since


async def test_somebody_else_in_the_lease_ends_it_at_once() -> None:
    lost: list[str] = []
    async with connected() as (api, client):
        store = Store(api)
        a = candidate(client, "a", on_lost=lost.append, lease=30, renew_deadline=20)
        await a.acquire()
        store.spec["holderIdentity"] = "usurper"
        async with asyncio.timeout(2):
            await a.keep()
        assert lost == ["usurper leads"]
        assert not a.leading


async def test_a_stale_write_loses() -> None:
    async with connected() as (api, client):
        store = Store(api)
        a = candidate(client, "a")
        await a.acquire()

        async def raced(request: web.Request) -> web.StreamResponse:
            answer = await store(request)
            if request.method == "GET":
                store.version += 1
            return answer

        api.default = raced
        assert not await a._attempt(1)
        assert "Conflict" in a.message or "modified" in a.message
        assert a.leading  # nothing says otherwise yet: the deadline decides


async def test_release_leaves_anothers_lease_alone() -> None:
    async with connected() as (api, client):
        store = Store(api)
        a = candidate(client, "a")
        await a.acquire()
        store.spec["holderIdentity"] = "b"
        await a.release()
        assert store.spec["holderIdentity"] == "b"
        await a.release()
        assert [x.method for x in api.asked].count("PUT") == 0
        store.failing = status(500)
        await a.release()


async def test_an_acquire_that_was_cancelled_after_its_write_is_released() -> None:
    async with connected() as (api, client):
        store = Store(api)

        async def slow_to_answer(request: web.Request) -> web.StreamResponse:
            answer = await store(request)
            if request.method != "GET":
                await asyncio.sleep(0.3)
            return answer

        api.default = slow_to_answer
        a = candidate(client, "a", lease=30, renew_deadline=20, retry=2)
        taking = asyncio.create_task(a.acquire())
        await eventually(lambda: store.lease is not None)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        assert not a.leading
        await a.release()
        assert store.spec["holderIdentity"] == ""


async def test_whoever_never_asked_releases_nothing() -> None:
    async with connected() as (api, client):
        Store(api)
        await candidate(client, "a").release()
        assert api.asked == []


async def test_metadata_of_the_lease_survives() -> None:
    async with connected() as (api, client):
        store = Store(api)
        store.lease = {"metadata": {"name": "nightorders", "resourceVersion": "0", "labels": {"a": "b"}}}
        a = candidate(client, "a")
        await a.acquire()
        assert store.lease["metadata"]["labels"] == {"a": "b"}


async def test_impossible_settings_are_refused() -> None:
    async with connected() as (_, client):
        with pytest.raises(ValueError, match="longer"):
            candidate(client, "a", lease=1.0, renew_deadline=2.0)


@pytest.mark.threat(17)
async def test_the_term_is_the_leases_own_and_stays_when_the_leadership_is_lost() -> None:
    """A label value that admission computes from the Lease; a stale leader goes on stamping its old one."""
    async with connected() as (api, client):
        store = Store(api)
        a, b = candidate(client, "node-a_" + "a" * 36), candidate(client, "b")
        assert a.term == ""
        await a.acquire()
        assert a.term == "0." + "a" * 36
        await a.release()
        await b.acquire()
        assert (a.term, b.term) == ("0." + "a" * 36, "1.b")
        store.lease = None  # deleted: the transitions begin again, the holders differ
        await b.release()
        await a.acquire()
        assert a.term == "0." + "a" * 36
        assert len(LeaderLease(client, namespace="sys").identity.rpartition("_")[2]) == 36
