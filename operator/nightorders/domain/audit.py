"""The record that outlives an Incident: what is signed, the book of all heads of a namespace, and what gives a doctored record away.

The chain itself is `journal.py`; whether a whole cluster holds is `verifying.py`. Nothing here knows a key: a signature is made and
checked behind the port `Signer`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from ..api.v1alpha1.incident import Head, Incident, TimelineEntry
from ..api.v1alpha1.ledger import AuditBook, IncidentHead
from . import journal
from .digest import sha256
from .record import is_closed

OPEN_LIMIT = CLOSED_LIMIT = 256  # heads in a book; together they fill its schema
LINE_KIND = "nightorders.audit"
BOOK_KIND = "nightorders.audit.book"
ALARM_KIND = "nightorders.audit.alarm"


def stamp(at: datetime | None) -> str:
    """As it is signed and printed: UTC, microseconds."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z") if at else ""


# ------------------------------------------------------------ what is signed


def head_message(uid: str, head: Head) -> bytes:
    """The bytes under the signature of an Incident's head."""
    return _message("nightorders.dev/audit-head/v1", uid, head.seq, head.sha256, stamp(head.signed_at))


def book_message(namespace: str, book: AuditBook) -> bytes:
    """The bytes under the signature of one version of a namespace's book."""
    return _message("nightorders.dev/audit-book/v1", namespace, book.sequence, book.sha256, stamp(book.signed_at))


def _message(*parts: str | int) -> bytes:
    return json.dumps(parts, separators=(",", ":")).encode()


# ------------------------------------------------------------ one Incident


def sha_at(timeline: Iterable[TimelineEntry], seq: int) -> str | None:
    """sha256 of the line with that number; None where it is not there or inside a roll-up."""
    return next((e.sha256 for e in timeline if e.seq == seq), None)


def departs(timeline: Sequence[TimelineEntry], known: Head) -> str:
    """Why a timeline is not the one whose head was `known`, or its continuation; empty: nothing speaks against it."""
    last = timeline[-1].seq if timeline else 0
    if last < known.seq:
        return f"it ends at line {last}, and line {known.seq} had been written: lines are missing at the end"
    there = sha_at(timeline, known.seq)
    if there is not None and there != known.sha256:
        return f"line {known.seq} is not the one that had been written: it, or a line before it, was changed"
    return ""


def doctored(incident: Incident, known: Head | None) -> str:
    """Why this record is not what the operator wrote; empty: nothing speaks against it. `known`: the head that it is known to have had."""
    timeline, head = incident.status.timeline, incident.status.head
    if known is not None and (why := departs(timeline, known)):
        return why
    if broken := journal.breaks(timeline, incident.metadata.uid):
        return broken[0]
    end = journal.head_of(timeline)
    if head is not None and (end is None or (head.seq, head.sha256) != (end.seq, end.sha256)):
        return f"its head says line {head.seq}, which is not its last line"
    return ""


def is_end(head: Head | None, timeline: Sequence[TimelineEntry]) -> bool:
    """Whether that head belongs to the last line."""
    return head is not None and bool(timeline) and (head.seq, head.sha256) == (timeline[-1].seq, timeline[-1].sha256)


def incident_head(incident: Incident) -> IncidentHead | None:
    """The entry for the book; None before the first line."""
    timeline = incident.status.timeline
    head = incident.status.head if is_end(incident.status.head, timeline) else journal.head_of(timeline)
    if head is None:
        return None
    return IncidentHead(
        incident=incident.metadata.name, uid=incident.metadata.uid, head=head, at=timeline[-1].at, closed=is_closed(incident.status)
    )


# ------------------------------------------------------------ the book of a namespace


def entry_of(book: AuditBook, uid: str) -> IncidentHead | None:
    """Where an Incident's chain stood."""
    return next((h for h in book.heads if h.uid == uid), None)


def rolled_away(book: AuditBook, entry: IncidentHead) -> bool:
    """Whether a head that is not listed is (or will be) among those that rolled up."""
    if entry_of(book, entry.uid) is not None or book.rolled_up_until is None or entry.at > book.rolled_up_until:
        return False
    return entry.closed or sum(not h.closed for h in book.heads) >= OPEN_LIMIT


def newer(book: AuditBook, entry: IncidentHead) -> bool:
    """Whether the book should take that head: never backwards, and never another line in the place of one that it has."""
    there = entry_of(book, entry.uid)
    if there is None:
        return not rolled_away(book, entry)
    if entry.head.seq == there.head.seq:
        signed = bool(entry.head.signature) and not there.head.signature
        return entry.head.sha256 == there.head.sha256 and (signed or entry.closed != there.closed)
    return entry.head.seq > there.head.seq


def published(namespace: str, book: AuditBook, entries: Iterable[IncidentHead]) -> AuditBook | None:
    """The next version of the book, unsigned; None if the entries are no news."""
    news = [e for e in entries if newer(book, e)]
    if not news:
        return None
    replaced = {e.uid for e in news}
    heads = sorted((*(h for h in book.heads if h.uid not in replaced), *news), key=lambda h: (h.at, h.uid))
    kept, gone = _within_limits(heads)
    digest, until = book.rolled_up_sha256, book.rolled_up_until
    for h in gone:
        digest, until = sha256([digest, _facts(h)]), max(h.at, until or h.at)
    made = AuditBook(
        sequence=book.sequence + 1,
        previous_sha256=book.sha256,
        heads=kept,
        rolled_up=book.rolled_up + len(gone),
        rolled_up_sha256=digest,
        rolled_up_until=until,
    )
    return made.model_copy(update={"sha256": book_sha256(namespace, made)})


def _within_limits(heads: Sequence[IncidentHead]) -> tuple[tuple[IncidentHead, ...], tuple[IncidentHead, ...]]:
    """(those that stay, those that roll up), both oldest first."""
    closed, still_open = [h for h in heads if h.closed], [h for h in heads if not h.closed]
    gone = {h.uid for h in (*closed[:-CLOSED_LIMIT], *still_open[:-OPEN_LIMIT])}
    return tuple(h for h in heads if h.uid not in gone), tuple(h for h in heads if h.uid in gone)


def book_sha256(namespace: str, book: AuditBook) -> str:
    """The digest of one version: over the version before, and everything in this one but the signature."""
    rolled = [book.rolled_up, book.rolled_up_sha256, stamp(book.rolled_up_until)]
    return sha256([namespace, book.previous_sha256, book.sequence, [_facts(h) for h in book.heads], rolled])


def _facts(h: IncidentHead) -> list[object]:
    """Field by field: a field that a later version adds must not change the digest of what is written already."""
    return [
        h.incident,
        h.uid,
        h.head.seq,
        h.head.sha256,
        stamp(h.head.signed_at),
        h.head.key_id,
        h.head.signature,
        stamp(h.at),
        h.closed,
    ]


def book_doctored(namespace: str, book: AuditBook, known: AuditBook | None = None) -> str:
    """Why this is not a book that the operator wrote; empty: nothing speaks against it. `known`: a version that it is known to have had."""
    if book.sequence and book.sha256 != book_sha256(namespace, book):
        return f"version {book.sequence} of the book of heads was changed"
    if known is None:
        return ""
    if book.sequence < known.sequence:
        return f"the book of heads is at version {book.sequence}, and version {known.sequence} had been written"
    if book.sequence == known.sequence and book.sha256 != known.sha256:
        return f"version {book.sequence} of the book of heads is not the one that had been written"
    if book.sequence == known.sequence + 1 and book.previous_sha256 != known.sha256:
        return f"version {book.sequence} of the book of heads does not follow the one before it"
    return ""


# ------------------------------------------------------------ the same as JSON lines


def printed(incident: Incident, after: int) -> Iterator[dict[str, object]]:
    """The lines of an Incident after that number, one object each; the last one carries the head's signature.

    Each can be checked by itself: `previous` and `lasting` are all that its sha256 covers besides. Roll-ups are left out: their lines
    were printed when they were written.
    """
    timeline, kept, previous = incident.status.timeline, 0, journal.genesis(incident.metadata.uid)
    for e in timeline:
        kept += e.kind in journal.LASTING
        if e.seq > after and e.kind != "RollUp":
            row: dict[str, object] = {
                "kind": LINE_KIND,
                "namespace": incident.metadata.namespace,
                "incident": incident.metadata.name,
                "uid": incident.metadata.uid,
                "seq": e.seq,
                "at": stamp(e.at),
                "entryKind": e.kind,
                "actor": e.actor,
                "what": e.what,
                "previous": previous,
                "lasting": kept,
                "sha256": e.sha256,
            }
            if e is timeline[-1] and (head := incident.status.head) is not None and head.signature and is_end(head, timeline):
                row |= {"signedAt": stamp(head.signed_at), "keyId": head.key_id, "signature": head.signature}
            yield row
        previous = e.sha256


def printed_book(namespace: str, book: AuditBook) -> dict[str, object]:
    """One version of a book as a JSON object, without its heads: those were printed with their Incidents."""
    row: dict[str, object] = {
        "kind": BOOK_KIND,
        "namespace": namespace,
        "sequence": book.sequence,
        "previous": book.previous_sha256,
        "sha256": book.sha256,
    }
    if book.signature:
        row |= {"signedAt": stamp(book.signed_at), "keyId": book.key_id, "signature": book.signature}
    return row
