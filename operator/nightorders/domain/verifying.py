"""Whether the records of a cluster hold: chains, signatures, Incidents against the book, the book itself, and the printed lines.

Everything is held against everything else, because each can be doctored by somebody else: an Incident by whoever can write its status,
the book by whoever can write Ledgers, the printed lines by whoever keeps the logs. Only the key signs.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from itertools import pairwise
from typing import Any

from ..api.v1alpha1.incident import Head, Incident, TimelineEntry
from ..api.v1alpha1.ledger import AuditBook, IncidentHead
from . import audit, journal

FRESH = timedelta(minutes=2)  # a head is published within seconds; so long nobody wonders
CLOCKS = timedelta(minutes=5)  # how far a clock may have been set back between a line and its signature


class Severity(IntEnum):
    """What a finding means for the answer."""

    NOTE = 0  # worth knowing
    DOUBT = 1  # cannot tell
    BROKEN = 2  # the record does not hold


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed; `incident` is empty for a book."""

    severity: Severity
    namespace: str
    incident: str
    what: str


@dataclass(frozen=True)
class Key:
    """A public key. `since` and `last_valid`: when it came into use, and until when its signatures count (None: still)."""

    id: str
    since: datetime | None = None
    last_valid: datetime | None = None


@dataclass(frozen=True)
class Keyring:
    """Public keys by id. `check(id, message, signature)` says whether the signature fits that key."""

    keys: Mapping[str, Key] = field(default_factory=dict)
    check: Callable[[str, bytes, str], bool] = lambda *_: False


@dataclass(frozen=True)
class Checked:
    """An Incident that was looked at."""

    namespace: str
    incident: str
    uid: str
    lines: int
    signature: str
    holds: bool


@dataclass(frozen=True)
class Report:
    """The whole answer."""

    checked: tuple[Checked, ...]
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Severity:
        """NOTE: it holds."""
        return max((f.severity for f in self.findings), default=Severity.NOTE)


# ------------------------------------------------------------ signatures


def signature(keys: Keyring, message: bytes, key_id: str, value: str, at: datetime | None, written: datetime) -> tuple[Severity, str]:
    """What a signature is worth, in words; NOTE: nothing is wrong with it. `written`: when the last thing under it was written."""
    if not value:
        since = min((k.since for k in keys.keys.values() if k.since), default=None)
        if keys.keys and (since is None or written > since + CLOCKS):  # the kubelet takes a minute or two to bring the key
            return Severity.DOUBT, "unsigned, although there was a key"
        return Severity.NOTE, "unsigned: there was no key"
    if not keys.keys:
        return Severity.DOUBT, f"signed by key {key_id}, whose public key is not known here"
    key = keys.keys.get(key_id)
    if key is None:
        return Severity.BROKEN, f"signed by the unknown key {key_id or '(none named)'}"
    if at is None or not keys.check(key_id, message, value):
        return Severity.BROKEN, f"signed wrongly: the signature does not fit key {key_id}"
    if key.last_valid is not None and at > key.last_valid:
        return Severity.BROKEN, f"signed at {audit.stamp(at)} by key {key_id}, which was retired at {audit.stamp(key.last_valid)}"
    if at < written - CLOCKS:
        return Severity.BROKEN, f"signed at {audit.stamp(at)}, before what it signs was written ({audit.stamp(written)})"
    return Severity.NOTE, f"signed by key {key_id}"


def head_signature(keys: Keyring, uid: str, head: Head, written: datetime) -> tuple[Severity, str]:
    """The same for an Incident's head."""
    return signature(keys, audit.head_message(uid, head), head.key_id, head.signature, head.signed_at, written)


# ------------------------------------------------------------ printed lines


@dataclass(frozen=True)
class Logged:
    """One printed line of an Incident."""

    namespace: str
    incident: str
    uid: str
    entry: TimelineEntry
    previous: str
    lasting: int
    head: Head | None


@dataclass(frozen=True)
class LoggedBook:
    """One printed version of a book."""

    namespace: str
    sequence: int
    previous: str
    sha256: str
    signed_at: datetime | None
    key_id: str
    signature: str


@dataclass(frozen=True)
class Log:
    """What the operator printed, as far as it is there. `unread`: lines that are ours and cannot be understood."""

    lines: tuple[Logged, ...] = ()
    books: tuple[LoggedBook, ...] = ()
    alarms: tuple[str, ...] = ()
    unread: int = 0


def read_log(rows: Iterable[str]) -> Log:
    """Our lines out of a log that may hold others, and whatever a collector put in front of each. A line printed twice counts once."""
    lines: dict[Logged, None] = {}
    books: dict[LoggedBook, None] = {}
    alarms: dict[str, None] = {}
    unread = 0
    for row in rows:
        start = row.find('{"kind": "' + audit.LINE_KIND)
        if start < 0:
            continue
        try:
            raw, _ = json.JSONDecoder().raw_decode(row[start:])
            match raw["kind"]:
                case audit.LINE_KIND:
                    lines[_logged(raw)] = None
                case audit.BOOK_KIND:
                    books[_logged_book(raw)] = None
                case audit.ALARM_KIND:
                    alarms[f"{raw['namespace']}/{raw['incident']}: {raw['what']}"] = None
        except (ValueError, KeyError, TypeError):
            unread += 1
    return Log(tuple(lines), tuple(books), tuple(alarms), unread)


def _logged(raw: Mapping[str, Any]) -> Logged:
    seq, sha = raw["seq"], raw["sha256"]
    entry = TimelineEntry.model_validate(
        {"seq": seq, "at": raw["at"], "kind": raw["entryKind"], "actor": raw["actor"], "what": raw["what"], "sha256": sha}
    )
    head = None
    if raw.get("signature"):
        head = Head.model_validate({"seq": seq, "sha256": sha, **{k: raw[k] for k in ("signedAt", "keyId", "signature")}})
    return Logged(str(raw["namespace"]), str(raw["incident"]), str(raw["uid"]), entry, str(raw["previous"]), int(raw["lasting"]), head)


def _logged_book(raw: Mapping[str, Any]) -> LoggedBook:
    at = datetime.fromisoformat(raw["signedAt"]).astimezone(UTC) if raw.get("signedAt") else None
    return LoggedBook(
        str(raw["namespace"]),
        int(raw["sequence"]),
        str(raw["previous"]),
        str(raw["sha256"]),
        at,
        str(raw.get("keyId", "")),
        str(raw.get("signature", "")),
    )


# ------------------------------------------------------------ all of it


class Verifier:
    """Holds the records of some namespaces against each other; `report()` says what was found."""

    def __init__(self, keys: Keyring, now: datetime, *, accept_gone: bool = False) -> None:
        self._keys = keys
        self._now = now
        self._gone = Severity.NOTE if accept_gone else Severity.BROKEN
        self._checked: list[Checked] = []
        self._findings: dict[Finding, None] = {}

    def report(self) -> Report:
        """What was found so far."""
        return Report(tuple(self._checked), tuple(self._findings))

    def add(self, severity: Severity, namespace: str, incident: str, what: str) -> None:
        """Notes a finding; the same twice is one."""
        self._findings[Finding(severity, namespace, incident, what)] = None

    def cluster(
        self, books: Mapping[str, AuditBook], incidents: Sequence[Incident], unread: Collection[tuple[str, str]] = frozenset()
    ) -> None:
        """The Incidents against the books. Books must be read before the Incidents: a record only grows.

        `unread`: (namespace, name) of what is there and cannot be understood.
        """
        for namespace, book in books.items():
            self._book(namespace, book)
        there = {i.metadata.uid for i in incidents}
        for incident in incidents:
            self._incident(incident, books.get(incident.metadata.namespace))
        for namespace, book in books.items():
            for entry in book.heads:
                if entry.uid not in there and (namespace, entry.incident) not in unread:
                    self._missing(namespace, entry)

    def _book(self, namespace: str, book: AuditBook) -> None:
        if not book.sequence:
            return
        if wrong := audit.book_doctored(namespace, book):
            self.add(Severity.BROKEN, namespace, "", wrong)
        written = max((h.at for h in book.heads), default=book.signed_at or self._now)
        message = audit.book_message(namespace, book)
        severity, words = signature(self._keys, message, book.key_id, book.signature, book.signed_at, written)
        self.add(severity, namespace, "", f"version {book.sequence} of the book of heads is {words}")
        if book.rolled_up:
            self.add(Severity.NOTE, namespace, "", f"{book.rolled_up} heads of old Incidents are no longer listed in the book")

    def _incident(self, incident: Incident, book: AuditBook | None) -> None:
        namespace, name, timeline = incident.metadata.namespace, incident.metadata.name, incident.status.timeline
        found: list[tuple[Severity, str]] = [(Severity.BROKEN, b) for b in journal.breaks(timeline, incident.metadata.uid)]
        words = "nothing written yet"
        if timeline:
            head = incident.status.head
            if not audit.is_end(head, timeline):
                found.append((Severity.BROKEN, "the head does not belong to the last line"))
            head = head or Head(seq=timeline[-1].seq, sha256=timeline[-1].sha256)
            severity, words = head_signature(self._keys, incident.metadata.uid, head, timeline[-1].at)
            if severity is not Severity.NOTE:
                found.append((severity, f"line {head.seq} is {words}"))
        found += self._against_book(incident, book)
        for severity, what in dict.fromkeys(found):
            self.add(severity, namespace, name, what)
        holds = not any(s is Severity.BROKEN for s, _ in found)
        self._checked.append(Checked(namespace, name, incident.metadata.uid, timeline[-1].seq if timeline else 0, words, holds))

    def _against_book(self, incident: Incident, book: AuditBook | None) -> list[tuple[Severity, str]]:
        timeline, mine = incident.status.timeline, audit.incident_head(incident)
        entry = audit.entry_of(book, incident.metadata.uid) if book else None
        if entry is not None:
            if why := audit.departs(timeline, entry.head):
                return [(Severity.BROKEN, f"against the book of heads: {why}")]
            if mine is not None and mine.head.seq == entry.head.seq and entry.head.signature and not mine.head.signature:
                return [(Severity.BROKEN, f"the signature of line {mine.head.seq} was removed; the book of heads has it")]
            if mine is not None and mine.head.seq > entry.head.seq and self._now - mine.at > FRESH:
                return [(Severity.DOUBT, f"the book of heads knows it up to line {entry.head.seq} only, long after line {mine.head.seq}")]
            return []
        if mine is None or self._now - mine.at <= FRESH:
            return []
        if book is None or not book.sequence:
            return [(Severity.DOUBT, "there is no book of heads in this namespace to hold it against")]
        if audit.rolled_away(book, mine):
            return [(Severity.NOTE, "so old that the book of heads no longer lists it: only its own signature and the log vouch for it")]
        return [(Severity.BROKEN, "the book of heads does not list it")]

    def _missing(self, namespace: str, entry: IncidentHead) -> None:
        severity, words = head_signature(self._keys, entry.uid, entry.head, entry.at)
        self.add(
            self._gone if entry.closed and severity is not Severity.BROKEN else Severity.BROKEN,
            namespace,
            entry.incident,
            f"gone: its record up to line {entry.head.seq} was {entry.head.sha256} at {audit.stamp(entry.at)} "
            f"({'closed' if entry.closed else 'open'}, {words})",
        )

    # -------------------------------------------------------- the printed lines

    def log(
        self,
        log: Log,
        books: Mapping[str, AuditBook],
        incidents: Sequence[Incident],
        unread: Collection[tuple[str, str]] = frozenset(),
    ) -> None:
        """Replays the printed lines, and holds the cluster against them. The log must be read before the cluster."""
        if log.unread:
            self.add(Severity.DOUBT, "", "", f"{log.unread} of the operator's lines in the log cannot be read")
        for alarm in log.alarms:
            self.add(Severity.NOTE, "", "", f"the operator itself gave the alarm: {alarm}")
        by_uid: dict[str, list[Logged]] = defaultdict(list)
        for row in log.lines:
            by_uid[row.uid].append(row)
        there = {i.metadata.uid: i for i in incidents}
        for uid, rows in by_uid.items():
            rows.sort(key=lambda row: row.entry.seq)
            self._replay(rows)
            if uid in there or (rows[0].namespace, rows[0].incident) not in unread:
                self._compare(rows, there.get(uid), books.get(rows[0].namespace))
        for uid, incident in there.items():
            if uid not in by_uid and incident.status.timeline:
                self.add(Severity.NOTE, incident.metadata.namespace, incident.metadata.name, "the log has no line of it")
        self._books(log.books, books)

    def _replay(self, rows: Sequence[Logged]) -> None:
        before: Logged | None = None
        for row in rows:
            e = row.entry
            if e.sha256 != journal.link(row.previous, e.seq, row.lasting, e.at, e.kind, e.actor, e.what):
                self._of(row, Severity.BROKEN, f"line {e.seq} in the log was changed")
            if before is None and e.seq == 1 and row.previous != journal.genesis(row.uid):
                self._of(row, Severity.BROKEN, "line 1 in the log is not the beginning of this Incident's record")
            if before is not None:
                self._follows(before, row)
            if row.head is not None:
                severity, words = head_signature(self._keys, row.uid, row.head, e.at)
                if severity is Severity.BROKEN:
                    self._of(row, severity, f"line {e.seq} in the log is {words}")
            before = row
        if rows[0].entry.seq > 1:
            self._of(rows[0], Severity.NOTE, f"the log begins with its line {rows[0].entry.seq}")

    def _follows(self, before: Logged, row: Logged) -> None:
        a, b = before.entry, row.entry
        if b.seq == a.seq:
            if a.sha256 != b.sha256:
                self._of(row, Severity.BROKEN, f"the log has two different lines {b.seq}")
        elif b.seq > a.seq + 1:
            self._of(row, Severity.BROKEN, f"the log lacks its lines {a.seq + 1} to {b.seq - 1}")
        elif row.previous != a.sha256:
            self._of(row, Severity.BROKEN, f"line {b.seq} in the log does not follow line {a.seq}")

    def _compare(self, rows: Sequence[Logged], incident: Incident | None, book: AuditBook | None) -> None:
        last = rows[-1]
        if incident is None:
            self._only_in_log(rows, audit.entry_of(book, last.uid) if book else None)
            return
        timeline = incident.status.timeline
        for row in rows:
            there = audit.sha_at(timeline, row.entry.seq)
            if there is not None and there != row.entry.sha256:
                self._of(row, Severity.BROKEN, f"line {row.entry.seq} in the cluster is not the one in the log")
        end = timeline[-1].seq if timeline else 0
        if end < last.entry.seq:
            self._of(last, Severity.BROKEN, f"the log has it up to line {last.entry.seq}, the cluster only up to line {end}")
        elif end > last.entry.seq:
            self._of(last, Severity.NOTE, f"the log ends at line {last.entry.seq}, the cluster has {end}")

    def _only_in_log(self, rows: Sequence[Logged], entry: IncidentHead | None) -> None:
        """A deleted Incident: the log may be all that is left of it."""
        last = rows[-1].entry
        if entry is None:
            severity = Severity.BROKEN if self._gone is Severity.BROKEN else Severity.NOTE
            self._of(rows[-1], severity, f"gone, and in no book of heads: the log has its lines {rows[0].entry.seq} to {last.seq}")
        elif entry.head.seq > last.seq:
            self._of(rows[-1], Severity.NOTE, f"the log has its lines up to {last.seq}, the book knew line {entry.head.seq}")
        elif any(row.entry.seq == entry.head.seq and row.entry.sha256 != entry.head.sha256 for row in rows):
            self._of(rows[-1], Severity.BROKEN, f"line {entry.head.seq} in the log is not the one in the book of heads")
        else:
            self._of(rows[-1], Severity.NOTE, f"the log has its lines {rows[0].entry.seq} to {last.seq}, as the book knew them")

    def _books(self, printed: Sequence[LoggedBook], books: Mapping[str, AuditBook]) -> None:
        by_namespace: dict[str, list[LoggedBook]] = defaultdict(list)
        for b in printed:
            by_namespace[b.namespace].append(b)
        for namespace, versions in by_namespace.items():
            versions.sort(key=lambda b: b.sequence)
            for a, b in pairwise(versions):
                if b.sequence == a.sequence and b.sha256 != a.sha256:
                    self.add(Severity.BROKEN, namespace, "", f"the log has two different versions {b.sequence} of the book of heads")
                if b.sequence == a.sequence + 1 and b.previous != a.sha256:
                    what = f"version {b.sequence} of the book of heads in the log does not follow version {a.sequence}"
                    self.add(Severity.BROKEN, namespace, "", what)
            for b in versions:
                book = AuditBook(sequence=b.sequence, sha256=b.sha256, signed_at=b.signed_at)
                worth = signature(
                    self._keys, audit.book_message(namespace, book), b.key_id, b.signature, b.signed_at, b.signed_at or self._now
                )
                if worth[0] is Severity.BROKEN:
                    self.add(Severity.BROKEN, namespace, "", f"version {b.sequence} of the book of heads in the log is {worth[1]}")
            last, now = versions[-1], books.get(namespace) or AuditBook()
            if now.sequence < last.sequence:
                what = f"the log has version {last.sequence} of the book of heads, the cluster has {now.sequence or 'none'}"
                self.add(Severity.BROKEN, namespace, "", what)
            elif any(b.sequence == now.sequence and b.sha256 != now.sha256 for b in versions):
                self.add(Severity.BROKEN, namespace, "", f"version {now.sequence} of the book of heads is not the one in the log")

    def _of(self, row: Logged, severity: Severity, what: str) -> None:
        self.add(severity, row.namespace, row.incident, what)
