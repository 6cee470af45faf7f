"""The operator's parts that keep the record, over an API server in memory; and an attacker who has the operator's rights but no key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from nightorders.adapters import signer as keys
from nightorders.adapters.signer import FileSigner
from nightorders.api.meta import API_VERSION
from nightorders.api.v1alpha1 import Incident
from nightorders.api.v1alpha1.incident import Execution, Head, TimelineEntry
from nightorders.api.v1alpha1.ledger import AuditBook
from nightorders.controller.archivist import Archivist
from nightorders.controller.audited import AuditedIncidents
from nightorders.domain import audit, journal
from nightorders.domain.reasons import Reason
from nightorders.domain.record import Record
from nightorders.domain.verifying import Key, Keyring, Report, Verifier, read_log
from tests.component.fakes import Announcer, Api, Clock, Incidents, Json, Ledgers, clone

SPEC = {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}}
NAMESPACE = "shop"


class Desk:
    """One operator process; `restarted()` is the next one over the same cluster and log."""

    def __init__(self, folder: Path, *, key: bool = True, api: Api | None = None, log: list[str] | None = None) -> None:
        self.folder = folder
        self.clock = api.clock if api else Clock()
        self.api = api or Api(self.clock)
        self.log: list[str] = log if log is not None else []
        self.states: list[tuple[bool, str]] = []
        self.pem = folder / "key.pem"
        if key and not self.pem.exists():
            self.new_key()
        self.signer = FileSigner(self.pem, lambda on, message: self.states.append((on, message)))
        self.mute = False
        self.due: dict[str, timedelta] = {}
        self.ledgers = Ledgers(self.api)
        self.incidents = AuditedIncidents(Incidents(self.api), self.signer, self.clock, self.emit)
        self.archivist = Archivist(self.clock, self.incidents, self.ledgers, Announcer(self.api), self.signer, self.emit, self.add)

    def restarted(self) -> Desk:
        return Desk(self.folder, key=False, api=self.api, log=self.log)

    def emit(self, rows: Iterable[Mapping[str, object]]) -> None:
        if self.mute:
            raise BrokenPipeError("nobody reads")
        import json

        self.log += [json.dumps(row) + "\n" for row in rows]

    def add(self, namespace: str, after: timedelta) -> None:
        self.due[namespace] = min(after, self.due.get(namespace, after))

    def new_key(self) -> str:
        made, private, public = keys.generate()
        self.pem.write_text(private)
        (self.folder / f"{made}.pub").write_text(public)
        return made

    def ring(self, **last_valid: Any) -> Keyring:
        """The public keys of all keys so far; `k<id>=time` retires one."""
        public = {p.stem: keys.read_public(p.read_text()) for p in self.folder.glob("*.pub")}
        infos = {i: Key(i, last_valid=last_valid.get(f"k{i}")) for i in public}
        return Keyring(infos, lambda key, message, value: keys.fits(public[key], message, value))

    # ------------------------------------------------------------ the operator's work

    def open(self, name: str = "one", namespace: str = NAMESPACE) -> None:
        self.api.put("Incident", namespace, name, {"apiVersion": API_VERSION, "kind": "Incident", "spec": SPEC})

    async def read(self, name: str = "one", namespace: str = NAMESPACE) -> Incident:
        found = await self.incidents.get(namespace, name)
        assert isinstance(found, Incident)
        return found

    async def write(self, *lines: str, name: str = "one", kind: journal.Kind = "Observation", close: bool = False) -> Incident:
        """One status write with these lines."""
        incident = await self.read(name)
        self.clock.advance(timedelta(seconds=1))
        record = Record(incident, self.clock.now())
        for one in lines:
            record.story(one, kind=kind)
        if close:
            record.condition("Closed", "True", Reason.RECOVERED, "")
        return await self.incidents.save_status(incident, record.done())

    async def executed(self, state: str, name: str = "one") -> None:
        incident = await self.read(name)
        e = Execution.model_validate(
            {
                "id": "e1",
                "action": "RollbackWorkload",
                "by": "operator",
                "state": state,
                "planDigest": "sha256:" + "0" * 64,
                "reservedAt": audit.stamp(self.clock.now()),
                "before": "sha256:" + "0" * 64,
                "after": "sha256:" + "0" * 64,
            }
        )
        await self.incidents.save_status(incident, Record(incident, self.clock.now()).execution(e).story(state, kind="Execution").done())

    async def publish(self, namespace: str = NAMESPACE) -> None:
        self.due.pop(namespace, None)
        await self.archivist.publish(namespace)

    async def relist(self) -> None:
        await self.archivist.compare(await self.incidents.list())

    async def settled(self) -> None:
        """A list, and what comes of it."""
        await self.relist()
        for namespace in list(self.due):
            await self.publish(namespace)

    async def book(self, namespace: str = NAMESPACE) -> AuditBook:
        ledger = await self.ledgers.get(namespace, "audit")
        return ledger.spec.audit if ledger else AuditBook()

    async def story(self, name: str = "one", lines: int = 6) -> None:
        """An Incident with that many lines, published."""
        self.open(name)
        for i in range(1, lines + 1):
            kind: journal.Kind = "Decision" if i % 3 == 0 else "Observation"
            await self.write(f"line {i} of {name}", name=name, kind=kind)
        await self.publish()

    # ------------------------------------------------------------ the attacker

    def doctor(self, change: Callable[[list[Json]], Any], name: str = "one", *, rechained: bool = False, head: str = "keep") -> None:
        """Edits the timeline behind the operator's back. `rechained`: computes all digests anew. `head`: keep, drop, or fit (unsigned)."""

        def edit(raw: Json) -> None:
            lines = clone(raw["status"]["timeline"])
            change(lines)
            if rechained:
                rechain(lines, raw["metadata"]["uid"])
            raw["status"]["timeline"] = lines
            if head == "drop":
                raw["status"].pop("head")
            if head == "fit":
                raw["status"]["head"] = Head(seq=lines[-1]["seq"], sha256=lines[-1]["sha256"]).wire()

        self.api.edit("Incident", NAMESPACE, name, edit, actor="attacker")

    def doctor_book(self, change: Callable[[Json], Any], *, rechained: bool = False) -> None:
        """Edits the book. `rechained`: computes its digest anew and takes the signature away."""

        def edit(raw: Json) -> None:
            book = raw["spec"]["audit"]
            change(book)
            if rechained:
                for gone in ("signature", "keyId", "signedAt"):
                    book.pop(gone, None)
                book["sha256"] = audit.book_sha256(NAMESPACE, AuditBook.model_validate(book))

        self.api.edit("Ledger", NAMESPACE, "audit", edit, actor="attacker")

    # ------------------------------------------------------------ the verifier

    async def verify(self, *, log: bool = False, ring: Keyring | None = None, accept_gone: bool = False, later: int = 0) -> Report:
        printed = read_log(self.log)
        raw = {("shop"): await self.book()}
        books = {n: b for n, b in raw.items() if b.sequence}
        incidents = [i for i in await Incidents(self.api).list() if isinstance(i, Incident)]
        now = self.clock.now() + timedelta(seconds=later)
        verifier = Verifier(ring if ring is not None else self.ring(), now, accept_gone=accept_gone)
        verifier.cluster(books, incidents)
        if log:
            verifier.log(printed, books, incidents)
        return verifier.report()


def rechain(lines: list[Json], uid: str) -> None:
    """As an attacker would: numbers and digests so that the chain holds again."""
    previous, kept = journal.genesis(uid), 0
    for seq, raw in enumerate(lines, 1):
        e = TimelineEntry.model_validate(raw)
        kept += e.kind in journal.LASTING
        raw["seq"] = seq
        raw["sha256"] = previous = journal.link(previous, seq, kept, e.at, e.kind, e.actor, e.what)
