"""Slots that a crash left taken are freed, whatever became of the namespace that they were for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from nightorders.api.meta import FLEET_LEDGER_NAME
from nightorders.api.v1alpha1 import LedgerSpec
from nightorders.controller.janitor import Janitor
from nightorders.ports import NotFoundError
from tests.unit.domain.make import HOUR, NOW, SYSTEM, ledger, reservation


class Clock:
    def now(self) -> Any:
        return NOW


class Books:
    """The fleet's Ledger has a slot for a namespace that is not there any more: no Ledger to read there, and none to create."""

    def __init__(self) -> None:
        self.fleet = ledger("fleet", reservations=(reservation(at=NOW - HOUR),))

    async def get(self, namespace: str, name: str) -> Any:
        return self.fleet if namespace == SYSTEM else None

    async def book(self, namespace: str, name: str, change: Callable[[LedgerSpec], LedgerSpec]) -> None:
        if namespace != SYSTEM:
            raise NotFoundError(f"namespaces {namespace} not found")
        assert name == FLEET_LEDGER_NAME
        self.fleet = self.fleet.model_copy(update={"spec": change(self.fleet.spec)})


async def test_the_fleets_slot_of_a_namespace_that_is_gone_is_freed() -> None:
    """Or else one namespace that was removed by force would take a slot from the whole fleet for ever."""
    books, none = Books(), cast(Any, None)
    janitor = Janitor(Clock(), none, cast(Any, books), none, none, books.book, none, SYSTEM)
    await janitor._reclaim([])
    assert books.fleet.spec.reservations == ()
