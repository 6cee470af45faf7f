"""Periodic duties: list all Incidents again (kopf has no resync), free slots that a crash left taken, keep policies' status, prove the guard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from .. import metrics
from ..api.meta import FLEET_LEDGER_NAME, LEDGER_NAME
from ..api.v1alpha1.incident import Incident
from ..api.v1alpha1.ledger import Reservation
from ..domain import ledger as books
from ..domain.record import is_closed, running
from ..domain.situation import Proof
from ..ports import ApprovalGuard, Book, Clock, Incidents, Ledgers, PortError, Unreadable
from .gatherer import Gatherer

log = structlog.get_logger(__name__)


class Janitor:
    """Everything that must happen although no event asks for it. No failure here ends the operator."""

    def __init__(
        self,
        clock: Clock,
        incidents: Incidents,
        ledgers: Ledgers,
        guard: ApprovalGuard,
        gatherer: Gatherer,
        book: Book,
        compare_schemas: Callable[[], Awaitable[Proof]],
        operator_namespace: str,
    ) -> None:
        self._clock = clock
        self._incidents = incidents
        self._ledgers = ledgers
        self._guard = guard
        self._gatherer = gatherer
        self._book = book
        self._compare_schemas = compare_schemas
        self._operator_namespace = operator_namespace

    async def prove(self) -> None:
        """Attacks the approval guard and compares the schemas; the gatherer hands both to every decision."""
        report, schemas = await asyncio.gather(self._guard.prove(None), self._compare_schemas())
        for what, proof, gauge in (
            ("guard", Proof(report.proven, report.message), metrics.GUARD_PROVEN),
            ("schemas", schemas, metrics.SCHEMAS_CURRENT),
        ):
            before: Proof = getattr(self._gatherer, what)
            if before.holds != proof.holds or not proof.holds:
                (log.info if proof.holds else log.warning)(f"{what} checked", holds=proof.holds, message=proof.message)
            setattr(self._gatherer, what, proof)
            gauge.set(1 if proof.holds else 0)

    async def relist(self, add: Callable[[tuple[str, str]], None]) -> None:
        """Asks for a pass over every open Incident, and frees slots that nobody uses."""
        try:
            incidents = await self._incidents.list()
            for incident in incidents:
                if isinstance(incident, Unreadable) or is_open(incident):
                    add(where(incident))
            await self._reclaim(incidents)
        except PortError as error:
            log.warning("cannot list the Incidents again", error=str(error))

    async def _reclaim(self, incidents: list[Incident | Unreadable]) -> None:
        active = {(i.metadata.uid, e.id) for i in incidents if isinstance(i, Incident) and (e := running(i.status)) is not None}
        unread = {(i.namespace, i.name) for i in incidents if isinstance(i, Unreadable)}

        def runs(slot: Reservation) -> bool:
            return (slot.incident_uid, slot.execution) in active or (slot.namespace, slot.incident) in unread

        fleet = await self._ledgers.get(self._operator_namespace, FLEET_LEDGER_NAME)
        now = self._clock.now()
        if fleet is None:
            return
        for namespace in {r.namespace for r in fleet.spec.reservations}:
            # A namespace that is gone or goes away has no Ledger, and none is made there only to free nothing in it.
            if await self._ledgers.get(namespace, LEDGER_NAME) is not None:
                await self._book(namespace, LEDGER_NAME, lambda spec: books.reclaim(spec, runs, now))
        await self._book(self._operator_namespace, FLEET_LEDGER_NAME, lambda spec: books.reclaim(spec, runs, now))


def is_open(incident: Incident) -> bool:
    """Whether anything may still have to be done about it."""
    return not is_closed(incident.status) or bool(incident.metadata.finalizers)


def where(incident: Incident | Unreadable) -> tuple[str, str]:
    """Its key in the queue."""
    if isinstance(incident, Unreadable):
        return incident.namespace, incident.name
    return incident.metadata.namespace, incident.metadata.name


async def every(interval: timedelta, work: Callable[[], Awaitable[None]]) -> None:
    """Calls `work` now, and then again and again."""
    while True:
        await work()
        await asyncio.sleep(interval.total_seconds())
