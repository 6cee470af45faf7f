"""Publishes where the records stand: the heads of a namespace's Incidents, into its Ledger `audit`, off the hot path.

Whoever shortens, edits or deletes an Incident would have to rewrite that book, too, which is chained, signed and printed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta

import structlog

from .. import metrics
from ..api.meta import AUDIT_LEDGER_NAME
from ..api.v1alpha1.incident import Incident
from ..api.v1alpha1.ledger import AuditBook, IncidentHead, Ledger, LedgerSpec
from ..domain import audit
from ..domain.reasons import Reason
from ..domain.record import Record, is_closed, running
from ..ports import (
    AlreadyExistsError,
    Announcer,
    Clock,
    ConflictError,
    Ledgers,
    NotFoundError,
    PortError,
    Signer,
    TransientError,
    Unreadable,
)
from .audited import AuditedIncidents, Emit

log = structlog.get_logger(__name__)
BATCH = timedelta(seconds=3)
AT_ONCE = timedelta(0)
TRIES = 5  # against other writers of the same book, of whom there is at most a leader that does not know yet that it is none
TOGETHER = 16  # books that are read at the same time
TAMPERED = "this record is not the one that the operator wrote"


class Archivist:
    """`add(namespace, after)` puts a namespace into the queue that calls `publish`."""

    def __init__(
        self,
        clock: Clock,
        incidents: AuditedIncidents,
        ledgers: Ledgers,
        announcer: Announcer,
        signer: Signer,
        emit: Emit,
        add: Callable[[str, timedelta], None],
    ) -> None:
        self._clock = clock
        self._incidents = incidents
        self._ledgers = ledgers
        self._announcer = announcer
        self._signer = signer
        self._emit = emit
        self._add = add
        self._pending: dict[str, dict[str, IncidentHead]] = defaultdict(dict)
        self._suspects: dict[str, dict[str, str]] = defaultdict(dict)
        self._books: dict[str, AuditBook] = {}
        self._alarmed: set[tuple[str, str]] = set()
        self._well: dict[str, str] = {}
        self._listed: tuple[set[str], set[str]] = set(), set()
        incidents.listener = self.note

    # ------------------------------------------------------------ what was written

    def note(self, before: Incident, saved: Incident, why: str) -> None:
        """A status was written. Remembers what is to be published, and returns at once."""
        namespace = saved.metadata.namespace
        if why:
            self._suspect(saved, why)
            return
        entry = audit.incident_head(saved)
        book = self._books.get(namespace)
        if entry is None or (book is not None and not audit.newer(book, entry)):
            return
        ended = running(before.status) is not None and running(saved.status) is None
        closed = is_closed(saved.status) and not is_closed(before.status)
        self._queue(namespace, entry, AT_ONCE if ended or closed else BATCH)

    def _queue(self, namespace: str, entry: IncidentHead, after: timedelta) -> None:
        waiting = self._pending[namespace].get(entry.uid)
        if waiting is None or waiting.head.seq <= entry.head.seq:  # a list may be older than what was written since
            self._pending[namespace][entry.uid] = entry
        self._gauge()
        self._add(namespace, after)

    def _suspect(self, incident: Incident, why: str) -> None:
        if self._case(incident) not in self._alarmed:
            self._suspects[incident.metadata.namespace][incident.metadata.name] = why
            self._add(incident.metadata.namespace, AT_ONCE)

    def _case(self, incident: Incident) -> tuple[str, str]:
        """One alarm for each: while a record is doctored, what it is known to have been does not change."""
        known = self._incidents.known(incident.metadata.uid)
        return incident.metadata.uid, f"known: line {known.seq} {known.sha256[:15]}…" if known else "known: nothing"

    def _gauge(self) -> None:
        metrics.AUDIT_UNPUBLISHED.set(sum(len(p) for p in self._pending.values()))

    # ------------------------------------------------------------ the book

    async def publish(self, namespace: str) -> timedelta | None:
        """Writes what is pending into the namespace's book. Raises PortError: then it is tried again, and nothing is forgotten."""
        for name, why in list(self._suspects.pop(namespace, {}).items()):
            await self._alarm(namespace, name, why)
        for _ in range(TRIES):
            entries = list(self._pending.get(namespace, {}).values())
            if not entries:
                return None
            ledger = await self._ledgers.get(namespace, AUDIT_LEDGER_NAME)
            try:
                await self._write(namespace, ledger, entries)
            except (ConflictError, AlreadyExistsError):
                continue
            except NotFoundError:
                if ledger is None:  # the namespace is gone, and its Incidents with it
                    self._done(namespace, entries)
                    return None
                continue
            self._done(namespace, entries)
        if self._pending.get(namespace):
            raise TransientError(f"the book of heads of {namespace} was changed by somebody else {TRIES} times in a row")
        return None

    async def _write(self, namespace: str, ledger: Ledger | None, entries: Sequence[IncidentHead]) -> None:
        seen, why = self._judged(namespace, ledger.spec.audit if ledger else AuditBook())
        book = audit.published(namespace, seen, entries)
        if book is None:
            self._books[namespace] = seen
            return
        now = self._clock.now()
        signed = self._signer.sign(audit.book_message(namespace, book.model_copy(update={"signed_at": now})))
        if signed is not None:
            book = book.model_copy(update={"signed_at": now, "key_id": signed.key_id, "signature": signed.signature})
        spec = (ledger.spec if ledger else LedgerSpec()).model_copy(update={"audit": book})
        await self._ledgers.save(namespace, AUDIT_LEDGER_NAME, ledger, spec)
        if why:  # only now: in a namespace that is being deleted the Ledger may go before the Incidents, and this write fails
            self._raise_alarm("book", namespace, "", why)
        self._books[namespace] = book
        self._print([audit.printed_book(namespace, book)])

    def _judged(self, namespace: str, seen: AuditBook) -> tuple[AuditBook, str]:
        """The book to go on from, and what is wrong with the one that is there: then our own last version takes its place, if we have it."""
        known = self._books.get(namespace)
        why = audit.book_doctored(namespace, seen, known)
        if not why and seen.signature and self._signer.fits(seen.key_id, audit.book_message(namespace, seen), seen.signature) is False:
            why = f"the signature of version {seen.sequence} of the book of heads is wrong"
        if not why or known is None:
            return seen, why
        return known.model_copy(update={"sequence": max(known.sequence, seen.sequence)}), why

    def _done(self, namespace: str, entries: Iterable[IncidentHead]) -> None:
        waiting = self._pending.get(namespace, {})
        for e in entries:
            if waiting.get(e.uid) == e:
                del waiting[e.uid]
        if not waiting:
            self._pending.pop(namespace, None)
        self._gauge()

    # ------------------------------------------------------------ after a crash, and against tampering

    async def compare(self, incidents: Sequence[Incident | Unreadable]) -> None:
        """All records against the books: publishes what is missing, prints what a crash left unprinted, and notices what was doctored.

        The list may be older than the books by now, so what looks wrong is read again before anything is said.
        """
        by_namespace: dict[str, list[Incident]] = defaultdict(list)
        for i in incidents:
            if isinstance(i, Incident) and i.status.timeline:
                by_namespace[i.metadata.namespace].append(i)
        await self._read_books([n for n in by_namespace if n not in self._books])
        for namespace, found in by_namespace.items():
            if (book := self._books.get(namespace)) is not None:
                for incident in found:
                    await self._compare_one(incident, book)
        if not any(isinstance(i, Unreadable) for i in incidents):
            self._forget({i.metadata.uid for i in incidents if isinstance(i, Incident)}, set(by_namespace))

    def _forget(self, uids: set[str], namespaces: set[str]) -> None:
        """What two lists in a row did not have: one that is new may be in neither for a moment."""
        before_uids, before_namespaces = self._listed
        self._listed = uids, namespaces
        self._incidents.forget(uids | before_uids)
        self._well = {uid: version for uid, version in self._well.items() if uid in uids}
        for gone in [n for n in self._books if n not in namespaces | before_namespaces and n not in self._pending]:
            del self._books[gone]

    async def _read_books(self, namespaces: Sequence[str]) -> None:
        gate = asyncio.Semaphore(TOGETHER)

        async def read(namespace: str) -> None:
            async with gate:
                try:
                    ledger = await self._ledgers.get(namespace, AUDIT_LEDGER_NAME)
                except PortError as error:
                    log.warning("cannot read the book of heads", namespace=namespace, error=str(error))
                    return
                book, why = self._judged(namespace, ledger.spec.audit if ledger else AuditBook())
                if why:
                    self._raise_alarm("book", namespace, "", why)
                self._books.setdefault(namespace, book)

        await asyncio.gather(*(read(n) for n in namespaces))

    async def _compare_one(self, incident: Incident, book: AuditBook) -> None:
        uid, version, entry = incident.metadata.uid, incident.metadata.resource_version, audit.incident_head(incident)
        assert entry is not None, "it has a timeline"
        published = audit.entry_of(book, uid)
        if published is not None:
            self._incidents.remember(uid, published.head)
        if self._well.get(uid) != version:
            await asyncio.sleep(0)  # a chain of a hundred lines takes a millisecond or two, and there may be many
            if self._incidents.doctored(incident):
                if (fresh := await self._again(incident)) is None:
                    return
                incident = fresh
                entry = audit.incident_head(incident) or entry
            self._well[uid] = incident.metadata.resource_version
        if not audit.newer(book, entry) or entry == self._pending.get(incident.metadata.namespace, {}).get(uid):
            return
        told = self._incidents.told(uid)
        self._incidents.tell(incident, told if told is not None else published.head.seq if published else 0)
        self._queue(incident.metadata.namespace, entry, BATCH)

    async def _again(self, incident: Incident) -> Incident | None:
        """A fresh copy of what looked doctored; None if it is, or is gone. Reading after the head was known, a record can only be ahead."""
        try:
            fresh = await self._incidents.get(incident.metadata.namespace, incident.metadata.name)
        except PortError:
            return None  # the next list asks again
        if not isinstance(fresh, Incident) or fresh.metadata.uid != incident.metadata.uid:
            return None
        if why := self._incidents.doctored(fresh):
            self._suspect(fresh, why)
            return None
        return fresh

    async def _alarm(self, namespace: str, name: str, why: str) -> None:
        """Metric, log, Event, and a line in the record itself, which goes on unsigned; the book keeps what it had."""
        incident = await self._incidents.get(namespace, name)
        if not isinstance(incident, Incident) or (case := self._case(incident)) in self._alarmed:
            return
        self._alarmed.add(case)
        message = f"{TAMPERED}: {why} ({case[1]}). It is not signed until it holds again"
        if any(e.what.startswith(TAMPERED) and case[1] in e.what for e in incident.status.timeline):  # said before a restart
            return
        self._raise_alarm("incident", namespace, name, why)
        await self._announcer.announce(incident, Reason.RECORD_TAMPERED.value, message, warning=True)
        try:
            await self._incidents.save_status(incident, Record(incident, self._clock.now()).story(message, kind="Decision").done())
        except PortError as error:
            self._alarmed.discard(case)  # so the next list says it again
            log.warning("could not write the alarm into the record", incident=name, namespace=namespace, error=str(error))

    def _raise_alarm(self, what: str, namespace: str, name: str, why: str) -> None:
        metrics.AUDIT_ALARMS.labels(what=what).inc()
        log.error("a record was tampered with", namespace=namespace, incident=name, why=why)
        self._print(
            [{"kind": audit.ALARM_KIND, "namespace": namespace, "incident": name, "at": audit.stamp(self._clock.now()), "what": why}]
        )

    def _print(self, rows: list[dict[str, object]]) -> None:
        try:
            self._emit(rows)
        except OSError as error:
            metrics.AUDIT_UNPRINTED.inc()
            log.error("could not print", error=str(error))
