"""A decorator around the port `Incidents`: every status that is written carries a signed head, and its new lines are printed.

It sits below everything that writes a status, so no other code knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import structlog

from .. import metrics
from ..api.v1alpha1.incident import Head, Incident, IncidentStatus, TimelineEntry
from ..domain import audit, journal
from ..ports import Clock, Incidents, Signer, Unreadable

log = structlog.get_logger(__name__)
Emit = Callable[[Iterable[Mapping[str, object]]], None]
# (the Incident as it was, as it is now, why its record is not what the operator wrote)
Listener = Callable[[Incident, Incident, str], None]
SIGNING_BEGINS = "signing begins here: the {} lines before were not signed"


class AuditedIncidents:
    """Implements `Incidents`.

    What is found doctored is written on and never signed again: a signature would vouch for what somebody else wrote. `emit` prints
    JSON lines and may raise OSError; what it did not take is printed with the next lines.
    """

    def __init__(self, inner: Incidents, signer: Signer, clock: Clock, emit: Emit) -> None:
        self._inner = inner
        self._signer = signer
        self._clock = clock
        self._emit = emit
        self._known: dict[str, Head] = {}
        self._told: dict[str, int] = {}
        self.listener: Listener = lambda *_: None

    async def get(self, namespace: str, name: str) -> Incident | Unreadable | None:
        return await self._inner.get(namespace, name)

    async def list(self) -> list[Incident | Unreadable]:
        return await self._inner.list()

    async def create(self, namespace: str, manifest: Mapping[str, Any]) -> Incident:
        return await self._inner.create(namespace, manifest)

    async def set_finalizer(self, incident: Incident, present: bool) -> Incident:
        return await self._inner.set_finalizer(incident, present)

    async def save_status(self, incident: Incident, status: IncidentStatus) -> Incident:
        why = self.doctored(incident)
        saved = await self._inner.save_status(incident, self._headed(incident, status, why))
        # Written under the version that was judged, so the judgement stands; of a write that failed nothing is said.
        if not why and (end := journal.head_of(saved.status.timeline)) is not None:
            self._known[saved.metadata.uid] = end
        before = incident.status.timeline
        self.tell(saved, self._told.get(saved.metadata.uid, before[-1].seq if before else 0))
        self.listener(incident, saved, why)
        return saved

    def doctored(self, incident: Incident) -> str:
        """Why this record is not what the operator wrote; empty: nothing speaks against it."""
        uid, head = incident.metadata.uid, incident.status.head
        if why := audit.doctored(incident, self._known.get(uid)):
            return why
        if head is None or not head.signature:
            return ""
        fits = self._signer.fits(head.key_id, audit.head_message(uid, head), head.signature)
        return f"the signature of line {head.seq} is wrong" if fits is False else ""

    def _headed(self, incident: Incident, status: IncidentStatus, why: str) -> IncidentStatus:
        """The status with the head of its timeline, signed where there is a key and nothing speaks against it."""
        old, before, timeline, uid = incident.status.head, incident.status.timeline, status.timeline, incident.metadata.uid
        signed_before = old is not None and bool(old.signature)
        if not timeline or (audit.is_end(old, timeline) and (why or signed_before)):
            return status
        head = journal.head_of(timeline) if why else self._signed(uid, timeline)
        if head is not None and head.signature and before and not signed_before:
            what = SIGNING_BEGINS.format(timeline[-1].seq)  # so that taking a signature away and writing anew leaves a trace
            timeline = journal.append(timeline, uid, self._clock.now(), "Decision", "operator", what)
            head = self._signed(uid, timeline)
        return status.model_copy(update={"timeline": timeline, "head": head})

    def _signed(self, uid: str, timeline: Sequence[TimelineEntry]) -> Head:
        head = Head(seq=timeline[-1].seq, sha256=timeline[-1].sha256, signed_at=self._clock.now())
        signed = self._signer.sign(audit.head_message(uid, head))
        if signed is None:
            return head.model_copy(update={"signed_at": None})
        return head.model_copy(update={"key_id": signed.key_id, "signature": signed.signature})

    # ------------------------------------------------------------ for the archivist

    def tell(self, incident: Incident, after: int) -> None:
        """Prints the lines after that number. A write whose answer was lost, or a process that died, leaves some untold."""
        rows = list(audit.printed(incident, after))
        try:
            self._emit(rows)
        except OSError as error:
            metrics.AUDIT_UNPRINTED.inc()
            log.error("the lines of a record could not be printed; tried again", incident=incident.metadata.name, error=str(error))
            self._told[incident.metadata.uid] = after
            return
        if incident.status.timeline:
            self._told[incident.metadata.uid] = incident.status.timeline[-1].seq

    def told(self, uid: str) -> int | None:
        """The last line of it that this process printed."""
        return self._told.get(uid)

    def remember(self, uid: str, head: Head) -> None:
        """A head that this Incident is known to have had: nothing that does not continue it is signed."""
        known = self._known.get(uid)
        if known is None or known.seq < head.seq:
            self._known[uid] = head

    def known(self, uid: str) -> Head | None:
        """The head that it is known to have had."""
        return self._known.get(uid)

    def forget(self, but: Collection[str]) -> None:
        """Drops what is remembered of Incidents that are gone."""
        for memory in (self._known, self._told):
            for uid in [u for u in memory if u not in but]:
                del memory[uid]
