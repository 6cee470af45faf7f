"""What the policies' status is made of, and the metric of their breakers."""

from __future__ import annotations

from typing import Any, cast

from nightorders import metrics
from nightorders.api.v1alpha1 import RemediationPolicy
from nightorders.controller.orders import OrderBook
from nightorders.domain.snapshot import Listing
from tests.unit.domain.make import NAMESPACE, NOW, SYSTEM, ledger, outcome, policy


class World:
    """One namespace with the policies that a test puts there, and a Ledger that remembers three failures."""

    def __init__(self, *found: RemediationPolicy) -> None:
        self.found = list(found)
        failed = (outcome(f"no-{n}", result="Undone") for n in range(3))
        self.book = ledger(outcomes=tuple(failed))

    def now(self) -> Any:
        return NOW

    async def of(self, namespace: str) -> list[RemediationPolicy]:
        return self.found

    async def cluster(self) -> list[Any]:
        return []

    async def save_status(self, policy: Any, status: Any) -> None: ...

    async def list(self, api_version: str, kind: str, namespace: str | None) -> Listing:
        return Listing(kind, "GET", NOW)

    async def get(self, namespace: str, name: str) -> Any:
        return self.book


def told() -> dict[str, str]:
    """Policy → the state that the metric says of its breaker."""
    samples = [s for m in metrics.BREAKER.collect() for s in m.samples]
    return {s.labels["policy"]: s.labels["state"] for s in samples if s.labels["namespace"] == NAMESPACE and s.value == 1}


async def test_a_policy_that_is_renamed_or_gone_takes_the_metric_of_its_breaker_along() -> None:
    """Or else an alert on an open breaker would never end."""
    world = cast(Any, World(policy("web")))
    book = OrderBook(world, world, world, world, cast(Any, None), SYSTEM, cast(Any, None))
    await book.reconcile(NAMESPACE)
    assert told() == {"web": "Open"}
    world.found = [policy("renamed")]
    await book.reconcile(NAMESPACE)
    assert told() == {"renamed": "Open"}
    world.found = []
    await book.reconcile(NAMESPACE)
    assert told() == {}
