"""Lifts every pause of a GitOps owner again: after its time, at once when the action did not help, after a crash, without its Incident.

Works from the Ledgers alone: a record stands there before the pause is made, and goes only when the owner is free again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog

from .. import metrics
from ..api.meta import FLEET_LEDGER_NAME, LEDGER_NAME, PAUSED_BY_ANNOTATION, find_condition
from ..api.v1alpha1.incident import Incident, Pause
from ..api.v1alpha1.ledger import Ledger, PauseRecord
from ..domain import gitops
from ..domain import ledger as books
from ..domain.reasons import Reason
from ..domain.record import Record
from ..domain.situation import Operator
from ..domain.snapshot import Absent, KubeObject, NotLooked
from ..ports import (
    ActionTarget,
    Announcer,
    Book,
    Clock,
    ClusterReader,
    ConflictError,
    ForbiddenError,
    Incidents,
    Ledgers,
    NotFoundError,
    ObjectKey,
    PermanentError,
    PortError,
    Unreadable,
)
from .executor import fenced, key_of

log = structlog.get_logger(__name__)
EVERY = timedelta(seconds=3)
SCAN_EVERY = timedelta(minutes=5)  # all Ledgers, in case that one was missed; at start at once
SIDE_BY_SIDE = 8
PATIENCE = 3  # rounds in which a failure that may pass is not told to people yet
Owner = tuple[str, str, str]


@dataclass(frozen=True)
class Held:
    """A record with its end: None while the execution runs, or while that cannot be told."""

    record: PauseRecord
    end: datetime | None


class Pauses:
    """One round every few seconds. Never raises, and does nothing while there are no pauses."""

    def __init__(
        self,
        clock: Clock,
        reader: ClusterReader,
        incidents: Incidents,
        ledgers: Ledgers,
        target: ActionTarget,
        announcer: Announcer,
        book: Book,
        operator: Operator,
    ) -> None:
        self._clock = clock
        self._reader = reader
        self._incidents = incidents
        self._ledgers = ledgers
        self._target = target
        self._announcer = announcer
        self._book = book
        self._operator = operator
        self._known: set[str] = set()
        self._scanned: datetime | None = None
        self._failures: dict[Owner, int] = {}

    def expect(self, namespace: str) -> None:
        """The Ledger of that namespace has a pause, or is about to."""
        self._known.add(namespace)

    async def look(self) -> None:
        """One round."""
        try:
            await self._look()
        except PortError as error:
            log.warning("the pauses of GitOps owners cannot be looked at; tried again", error=str(error))
        except Exception:
            metrics.FAILURES.labels(kind="bug").inc()
            log.exception("the pauses of GitOps owners could not be looked at; tried again")

    async def _look(self) -> None:
        now = self._clock.now()
        if self._scanned is None or now - self._scanned >= SCAN_EVERY:
            self._known |= await self._everywhere()
            await self._round()
            self._scanned = now
        elif self._known:
            await self._round()

    async def _everywhere(self) -> set[str]:
        """Namespaces that may have a Ledger; all there are if the book of them is gone."""
        fleet = await self._ledgers.get(self._operator.namespace, FLEET_LEDGER_NAME)
        if fleet is not None:
            return set(fleet.spec.namespaces)
        return {n.name for n in (await self._reader.list("v1", "Namespace", None)).objects}

    async def _round(self) -> None:
        limit = asyncio.Semaphore(SIDE_BY_SIDE)

        async def read(namespace: str) -> tuple[str, Ledger | None]:
            async with limit:
                return namespace, await self._ledgers.get(namespace, LEDGER_NAME)

        asked, self._known = self._known, set()  # what is expected from here on stays expected
        try:
            found = dict(await asyncio.gather(*(read(ns) for ns in sorted(asked))))
        except PortError:
            self._known |= asked
            raise
        with_pauses = {ns: ledger for ns, ledger in found.items() if ledger is not None and ledger.spec.pauses}
        self._known |= set(with_pauses)
        groups: dict[Owner, list[Held]] = defaultdict(list)
        for ledger in with_pauses.values():
            for record in ledger.spec.pauses:
                p = record.pause
                groups[(p.kind, p.namespace, p.name)].append(Held(record, await self._end(record, ledger)))
        metrics.PAUSES.set(len(groups))
        now = self._clock.now()
        due = {owner: held for owner, held in groups.items() if all(h.end is not None and h.end <= now for h in held)}
        self._failures = {owner: n for owner, n in self._failures.items() if owner in due}
        for owner, held in due.items():
            await self._lift(owner, [h.record for h in held])
        metrics.PAUSES_OVERDUE.set(len(self._failures))

    async def _end(self, record: PauseRecord, ledger: Ledger) -> datetime | None:
        """When it is to be lifted. The Ledger knows best, then the Incident; a pause whose Incident is gone has no reason any more."""
        if record.until is not None:
            return record.until
        now = self._clock.now()
        outcome = next((o for o in ledger.spec.outcomes if o.execution == record.execution), None)
        if outcome is not None:
            end = gitops.lift_at(outcome.result, outcome.ended_at, record.pause, now)
        else:
            incident = await self._incidents.get(record.namespace, record.incident)
            if isinstance(incident, Unreadable):
                return None
            if incident is None or incident.metadata.uid != record.incident_uid:
                return record.at
            execution = next((e for e in incident.status.executions if e.id == record.execution), None)
            if execution is None:  # the reservation was never finished; a young one's own write may still be on its way
                return record.at + books.SLOT_GRACE
            end = gitops.lift_at(execution.result, execution.ended_at, record.pause, now)
        if end is not None and end > now:
            await self._book(record.namespace, LEDGER_NAME, partial(books.hold_pause, execution=record.execution, until=end))
        return end

    async def _lift(self, owner: Owner, records: list[PauseRecord]) -> None:
        """Frees the owner, tells the Incidents, and only then forgets: a crash in between begins here again."""
        pause = records[0].pause
        try:
            lifted = await self._free(pause, frozenset(r.execution for r in records))
            for record in records:
                await self._tell(record, lifted)
            for namespace in {r.namespace for r in records}:
                gone = frozenset(r.execution for r in records if r.namespace == namespace)
                await self._book(namespace, LEDGER_NAME, partial(books.forget_pauses, executions=gone))
        except ConflictError:
            return  # somebody wrote at the same moment: the next round reads again
        except PortError as error:
            await self._failed(owner, records, error)
            return
        self._failures.pop(owner, None)

    async def _free(self, pause: Pause, executions: frozenset[str]) -> bool:
        """Takes away what carries our mark, conditional on the version that was read. Whether there was anything to take away."""
        seen = await self._reader.get(ObjectKey(pause.api_version, pause.kind, pause.namespace, pause.name))
        match seen:
            case Absent():
                return False
            case NotLooked(_, because, _) if because.startswith("forbidden"):
                raise ForbiddenError(f"it cannot be read: {because}")
            case NotLooked(_, because, _) if because.startswith("no such kind"):
                return False
            case NotLooked(_, because, _):
                raise PortError(f"it cannot be read: {because}")
            case KubeObject():
                if seen.annotations.get(PAUSED_BY_ANNOTATION) not in executions:
                    return False
                try:
                    await self._target.patch(key_of(seen), fenced(seen, gitops.resume_patch(seen)), dry_run=False)
                except NotFoundError:
                    return False
                log.info("pause lifted", owner=pause.title)
                return True

    async def _tell(self, record: PauseRecord, lifted: bool) -> None:
        """The Incident learns that its owner goes on."""
        incident = await self._own(record)
        if incident is None:
            return
        condition = find_condition(incident.status.conditions, "OwnerPaused")
        if condition is None or condition.status == "False":
            return
        title = record.pause.title
        message = f"{title} goes on again" if lifted else f"{title} is not paused by the operator any more"
        edited = Record(incident, self._clock.now()).condition("OwnerPaused", "False", Reason.RESUMED, message)
        saved = await self._incidents.save_status(incident, edited.story(message, kind="Execution").done())
        await self._announcer.announce(saved, Reason.RESUMED.value, message, warning=False)

    async def _own(self, record: PauseRecord) -> Incident | None:
        incident = await self._incidents.get(record.namespace, record.incident)
        return incident if isinstance(incident, Incident) and incident.metadata.uid == record.incident_uid else None

    async def _failed(self, owner: Owner, records: Iterable[PauseRecord], error: PortError) -> None:
        """A pause that stays behind is an outage in waiting: metric, log, Event, and a line in the Incident's story."""
        self._failures[owner] = tries = self._failures.get(owner, 0) + 1
        log.error("a pause could not be lifted; tried again", owner="/".join(owner), tries=tries, error=str(error))
        if tries < PATIENCE and not isinstance(error, PermanentError):
            return
        for record in records:
            fix = ""
            if isinstance(error, ForbiddenError) and not error.policy:
                account = self._operator.username.removeprefix("system:serviceaccount:")
                fix = f"; allow it with: {gitops.grant(record.pause.kind, record.pause.namespace, account)}"
            message = f"{record.pause.title} is still paused; by hand: {gitops.by_hand(record.pause)}; not lifted because: {error}{fix}"
            try:
                await self._shout(record, message)
            except PortError as second:
                log.error("nor could the Incident be told", incident=record.incident, error=str(second))

    async def _shout(self, record: PauseRecord, message: str) -> None:
        incident = await self._own(record)
        if incident is None:
            return
        edited = Record(incident, self._clock.now()).condition("OwnerPaused", "True", Reason.PAUSE_OVERDUE, message)
        before, after = (find_condition(c, "OwnerPaused") for c in (incident.status.conditions, edited.done().conditions))
        if before is not None and after is not None and (before.reason, before.message) == (after.reason, after.message):
            return
        saved = await self._incidents.save_status(incident, edited.story(message, kind="Execution").done())
        await self._announcer.announce(saved, Reason.PAUSE_OVERDUE.value, message, warning=True)
