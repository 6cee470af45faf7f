"""Signed heads, printed lines and the book of heads: through lost races, crashes, rotation and attacks."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nightorders import metrics
from nightorders.api.v1alpha1 import Incident
from nightorders.api.v1alpha1.incident import Head
from nightorders.api.v1alpha1.ledger import AuditBook, IncidentHead
from nightorders.controller.archivist import AT_ONCE, BATCH, TAMPERED
from nightorders.domain import audit
from nightorders.domain.record import Record
from nightorders.domain.verifying import Severity
from nightorders.ports import ConflictError, ForbiddenError, TransientError
from tests.component.fakes import START, Call
from tests.unit.audit.desk import NAMESPACE, Desk

pytestmark = pytest.mark.promise(5)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def rows(desk: Desk, kind: str = audit.LINE_KIND) -> list[dict[str, Any]]:
    return [row for line in desk.log if (row := json.loads(line))["kind"] == kind]


def value(metric: Any, **labels: str) -> float:
    return float(metric.labels(**labels)._value.get() if labels else metric._value.get())


# ------------------------------------------------------------ the head and the lines


async def test_every_new_end_is_signed_and_its_lines_are_printed_after_the_write(desk: Desk) -> None:
    desk.open()
    saved = await desk.write("first", "second")
    head = saved.status.head
    assert head is not None
    assert (head.seq, bool(head.signature), head.signed_at) == (2, True, desk.clock.now())
    assert desk.ring().check(head.key_id, audit.head_message(saved.metadata.uid, head), head.signature)
    one, two = rows(desk)
    assert (one["kind"], one["namespace"], one["incident"], one["uid"]) == ("nightorders.audit", "shop", "one", saved.metadata.uid)
    assert (one["seq"], one["entryKind"], one["actor"], one["what"]) == (1, "Observation", "operator", "first")
    assert "signature" not in one
    assert (two["seq"], two["sha256"], two["keyId"], two["signature"]) == (2, head.sha256, head.key_id, head.signature)
    await desk.write("third")
    assert [r["seq"] for r in rows(desk)] == [1, 2, 3]


async def test_a_write_without_news_keeps_the_head_and_prints_nothing(desk: Desk) -> None:
    desk.open()
    before = await desk.write("first")
    after = await desk.write(close=True)
    assert after.status.head == before.status.head
    assert len(rows(desk)) == 1


async def test_a_lost_race_prints_nothing_and_raises_no_alarm(desk: Desk) -> None:
    desk.open()
    await desk.write("first")
    stale = await desk.read()
    await desk.write("second")
    with pytest.raises(ConflictError):
        await desk.incidents.save_status(stale, Record(stale, desk.clock.now()).story("never").done())
    assert [r["what"] for r in rows(desk)] == ["first", "second"]
    await desk.publish()
    assert not rows(desk, audit.ALARM_KIND)


async def test_a_write_whose_answer_was_lost_is_printed_with_the_next(desk: Desk) -> None:
    desk.open()
    await desk.write("first")

    async def lose(call: Call) -> None:
        if call.verb == "status":
            raise TransientError("the answer was lost")

    desk.api.after = lose
    with pytest.raises(TransientError):
        await desk.write("second")
    desk.api.after = type(desk.api)(desk.clock).after
    assert [r["what"] for r in rows(desk)] == ["first"]
    await desk.write("third")
    assert [r["what"] for r in rows(desk)] == ["first", "second", "third"]


async def test_what_standard_output_did_not_take_is_printed_later_and_ends_no_pass(desk: Desk) -> None:
    desk.open()
    desk.mute = True
    before = value(metrics.AUDIT_UNPRINTED)
    await desk.write("first")
    assert value(metrics.AUDIT_UNPRINTED) == before + 1
    desk.mute = False
    await desk.write("second")
    assert [r["what"] for r in rows(desk)] == ["first", "second"]


async def test_without_a_key_heads_are_chained_and_it_shows(tmp_path: Path) -> None:
    desk = Desk(tmp_path, key=False)
    await desk.story()
    assert [on for on, _ in desk.states] == [False]
    head = (await desk.read()).status.head
    assert head is not None
    assert (head.seq, head.signature, head.key_id, head.signed_at) == (6, "", "", None)
    report = await desk.verify(log=True)
    assert report.worst is Severity.NOTE
    assert report.checked[0].signature == "unsigned: there was no key"


async def test_a_key_that_comes_later_signs_from_there_and_says_so(tmp_path: Path) -> None:
    desk = Desk(tmp_path, key=False)
    await desk.story(lines=2)
    made = desk.new_key()
    saved = await desk.write("third")
    assert [e.what for e in saved.status.timeline][-2:] == ["third", "signing begins here: the 3 lines before were not signed"]
    assert saved.status.head is not None
    assert saved.status.head.key_id == made
    assert len((await desk.write("fourth")).status.timeline) == 5
    await desk.publish()
    assert (await desk.verify(log=True)).worst is Severity.NOTE


async def test_rotation_needs_no_restart_and_old_signatures_still_hold(desk: Desk) -> None:
    await desk.story("old", lines=2)
    first = (await desk.read("old")).status.head
    second = desk.new_key()
    await desk.story("new", lines=2)
    later = (await desk.read("new")).status.head
    assert first is not None
    assert later is not None
    assert later.key_id == second != first.key_id
    retired = desk.ring(**{f"k{first.key_id}": first.signed_at})
    assert (await desk.verify(ring=retired, log=True)).worst is Severity.NOTE
    await desk.write("more", name="old")
    assert (await desk.read("old")).status.head.key_id == second  # type: ignore[union-attr]


# ------------------------------------------------------------ the book


async def test_heads_are_published_in_batches_and_at_once_at_an_end(desk: Desk) -> None:
    desk.open()
    await desk.write("first")
    assert desk.due == {NAMESPACE: BATCH}
    desk.due.clear()
    await desk.executed("Reserved")
    assert desk.due == {NAMESPACE: BATCH}
    await desk.executed("Ended")
    assert desk.due == {NAMESPACE: AT_ONCE}
    desk.due.clear()
    await desk.write("closed", close=True)
    assert desk.due == {NAMESPACE: AT_ONCE}
    assert (await desk.book()).sequence == 0  # nothing waited for it
    await desk.publish()
    book = await desk.book()
    assert (book.sequence, len(book.heads), book.heads[0].closed) == (1, 1, True)


async def test_each_version_of_the_book_is_chained_signed_and_printed(desk: Desk) -> None:
    desk.open()
    versions = []
    for i in range(3):
        await desk.write(f"line {i}")
        await desk.publish()
        versions.append(await desk.book())
    assert [b.sequence for b in versions] == [1, 2, 3]
    assert [b.previous_sha256 for b in versions] == ["", versions[0].sha256, versions[1].sha256]
    for b in versions:
        assert audit.book_doctored(NAMESPACE, b) == ""
        assert desk.ring().check(b.key_id, audit.book_message(NAMESPACE, b), b.signature)
        assert not desk.ring().check(b.key_id, audit.book_message("other", b), b.signature)
    assert [(r["sequence"], r["sha256"]) for r in rows(desk, audit.BOOK_KIND)] == [(b.sequence, b.sha256) for b in versions]
    await desk.publish()
    assert (await desk.book()).sequence == 3  # no news, no version


async def test_a_lost_race_for_the_book_is_made_again_on_a_fresh_copy(desk: Desk) -> None:
    await desk.story("one", lines=1)
    desk.open("two")
    await desk.write("first", name="two")
    raced = []

    async def race(call: Call) -> None:
        if call.verb == "ledger" and not raced:
            raced.append(call)
            desk.api.edit("Ledger", NAMESPACE, "audit", lambda raw: raw["metadata"].setdefault("labels", {}).update(a="b"))

    desk.api.before = race
    await desk.publish()
    assert raced
    assert {h.incident for h in (await desk.book()).heads} == {"one", "two"}


async def test_a_book_that_cannot_be_written_is_tried_again_and_nothing_is_forgotten(desk: Desk) -> None:
    desk.open()
    await desk.write("first")
    desk.api.forbidden.add(("update", "Ledger"))
    with pytest.raises(ForbiddenError):
        await desk.publish()
    assert value(metrics.AUDIT_UNPUBLISHED) == 1
    desk.api.forbidden.clear()
    await desk.publish()
    assert (await desk.book()).heads[0].head.seq == 1
    assert value(metrics.AUDIT_UNPUBLISHED) == 0


def entry(i: int, *, closed: bool, seq: int = 3) -> IncidentHead:
    head = Head(seq=seq, sha256=f"sha256:{i:064x}")
    return IncidentHead(incident=f"inc-{i}", uid=f"u{i}", head=head, at=START + timedelta(seconds=i), closed=closed)


def test_old_closed_incidents_roll_up_and_open_ones_stay() -> None:
    book = audit.published("shop", AuditBook(), [entry(0, closed=False), *(entry(i, closed=True) for i in range(1, 300))])
    assert book is not None
    assert len(book.heads) == 257
    assert (book.rolled_up, book.rolled_up_until) == (43, START + timedelta(seconds=43))
    assert {h.incident for h in book.heads if not h.closed} == {"inc-0"}
    assert audit.published("shop", book, [entry(5, closed=True)]) is None  # listed again: it is among those that rolled up
    again = audit.published("shop", book, [entry(400, closed=True)])
    assert again is not None
    assert (again.rolled_up, again.rolled_up_sha256 != book.rolled_up_sha256) == (44, True)
    assert audit.book_doctored("shop", again, book) == ""


def test_more_open_incidents_than_the_book_holds_do_not_stop_it() -> None:
    book = audit.published("shop", AuditBook(), [entry(i, closed=False) for i in range(600)])
    assert book is not None
    assert (len(book.heads), book.rolled_up) == (audit.OPEN_LIMIT, 600 - audit.OPEN_LIMIT)
    assert audit.published("shop", book, [entry(1, closed=False)]) is None
    more = audit.published("shop", book, [entry(700, closed=True)])
    assert more is not None
    AuditBook.model_validate(more.wire())


BOOK = {
    "sequence": 7,
    "previous_sha256": "sha256:" + "1" * 64,
    "rolled_up": 3,
    "rolled_up_sha256": "sha256:" + "2" * 64,
    "rolled_up_until": START + timedelta(days=1),
}
HEAD = {"seq": 9, "sha256": "sha256:" + "3" * 64, "signed_at": START, "key_id": "ab", "signature": "AAAA"}
ENTRY = {"incident": "other", "uid": "u9", "at": START + timedelta(days=2), "closed": True}


@pytest.mark.parametrize("field", [*BOOK, *HEAD, *ENTRY])
def test_the_digest_of_a_book_covers_every_field(field: str) -> None:
    book = audit.published("shop", AuditBook(), [entry(1, closed=False)])
    assert book is not None
    one = book.heads[0]
    if field in BOOK:
        changed = book.model_copy(update={field: BOOK[field]})
    elif field in HEAD:
        changed = book.model_copy(update={"heads": (one.model_copy(update={"head": one.head.model_copy(update={field: HEAD[field]})}),)})
    else:
        changed = book.model_copy(update={"heads": (one.model_copy(update={field: ENTRY[field]}),)})
    assert changed != book
    assert "was changed" in audit.book_doctored("shop", changed)
    covered = {*AuditBook.model_fields, *Head.model_fields, *IncidentHead.model_fields} - {"heads", "head"}
    assert covered - {*BOOK, *HEAD, *ENTRY} == set()  # a new field must be covered, or be left out here on purpose


def test_the_book_never_goes_back_and_never_takes_another_line() -> None:
    book = audit.published("shop", AuditBook(), [entry(1, closed=False, seq=5)])
    assert book is not None
    assert audit.published("shop", book, [entry(1, closed=False, seq=4)]) is None
    other = entry(1, closed=True, seq=5)
    other = other.model_copy(update={"head": Head(seq=5, sha256="sha256:" + "f" * 64)})
    assert audit.published("shop", book, [other]) is None


# ------------------------------------------------------------ crashes


async def test_after_a_crash_the_next_process_publishes_and_prints_what_is_missing(desk: Desk) -> None:
    await desk.story(lines=2)
    desk.mute = True  # died between the write and the printing
    await desk.write("third")
    after = desk.restarted()
    await after.relist()
    assert [r["seq"] for r in rows(after)] == [1, 2, 3]
    await after.publish()
    assert (await after.book()).heads[0].head.seq == 3
    assert (await after.verify(log=True)).worst is Severity.NOTE
    printed = len(after.log)
    await after.settled()
    assert len(after.log) == printed  # and no more than once


async def test_a_steady_list_writes_nothing(desk: Desk) -> None:
    await desk.story()
    before = (await desk.book()).sequence
    for _ in range(3):
        await desk.settled()
    assert (await desk.book()).sequence == before
    assert desk.due == {}


async def test_a_list_that_is_older_than_the_book_is_no_attack(desk: Desk) -> None:
    await desk.story(lines=2)
    old = await desk.incidents.list()
    await desk.write("third")
    await desk.publish()
    await desk.archivist.compare(old)
    assert desk.due == {}
    assert not rows(desk, audit.ALARM_KIND)


async def test_what_is_gone_is_forgotten_and_a_namespace_that_went_is_no_alarm(desk: Desk) -> None:
    await desk.story(lines=2)
    desk.api.delete("Incident", NAMESPACE, "one")
    desk.api.delete("Ledger", NAMESPACE, "audit")
    for _ in range(3):
        await desk.relist()
    await desk.story("two", lines=1)
    assert (await desk.book()).sequence == 1
    assert not rows(desk, audit.ALARM_KIND)


# ------------------------------------------------------------ attacks


async def alarmed(desk: Desk) -> Incident:
    """The alarm was given once, everywhere, and the record says so."""
    assert len(rows(desk, audit.ALARM_KIND)) == 1
    assert [reason for _, reason, _ in desk.api.events] == ["RecordTampered"]
    incident = await desk.read()
    assert sum(e.what.startswith(TAMPERED) and e.kind == "Decision" for e in incident.status.timeline) == 1
    return incident


@pytest.mark.threat(28)
@pytest.mark.parametrize("restart", [False, True])
async def test_a_record_that_was_cut_off_gives_the_alarm_and_the_book_keeps_what_it_had(desk: Desk, restart: bool) -> None:
    await desk.story()
    before = await desk.book()
    desk.doctor(lambda lines: lines.__delitem__(slice(3, None)), head="fit")
    if restart:
        desk = desk.restarted()
    counted = value(metrics.AUDIT_ALARMS, what="incident")
    for _ in range(3):
        await desk.settled()
    incident = await alarmed(desk)
    assert value(metrics.AUDIT_ALARMS, what="incident") == counted + 1
    assert "it ends at line 3, and line 6 had been written" in incident.status.timeline[-1].what
    assert not incident.status.head.signature  # type: ignore[union-attr]
    for i in range(5):  # it writes on past the number that the book has: still not signed, still not published
        await desk.write(f"more {i}")
    await desk.restarted().settled()
    assert (await desk.book()).heads == before.heads
    assert not (await desk.read()).status.head.signature  # type: ignore[union-attr]
    await alarmed(desk)


async def test_a_record_that_was_written_anew_is_not_signed_by_the_next_write(desk: Desk) -> None:
    """Without the comparison the operator itself would vouch for the edit with its next signature."""
    await desk.story()
    desk.doctor(lambda lines: lines[2].update(what="nobody decided this"), rechained=True, head="fit")
    saved = await desk.write("the next line")
    assert saved.status.head is not None
    assert saved.status.head.signature == ""
    await desk.publish()
    assert "line 6 is not the one that had been written" in (await alarmed(desk)).status.timeline[-1].what


async def test_an_edit_inside_shows_although_the_end_is_the_same(desk: Desk) -> None:
    await desk.story()
    desk.doctor(lambda lines: lines[1].update(actor="mallory"))
    await desk.settled()
    assert "line 2 was changed" in (await alarmed(desk)).status.timeline[-1].what


async def test_a_wrong_signature_gives_the_alarm(desk: Desk) -> None:
    await desk.story()
    desk.api.edit("Incident", NAMESPACE, "one", lambda raw: raw["status"]["head"].update(signedAt="2026-06-01T00:00:00.000000Z"))
    await desk.settled()
    assert "the signature of line 6 is wrong" in (await alarmed(desk)).status.timeline[-1].what


@pytest.mark.threat(1)
@pytest.mark.parametrize("rechained", [False, True])
async def test_a_book_that_was_edited_is_put_back_and_gives_the_alarm(desk: Desk, rechained: bool) -> None:
    await desk.story()
    desk.doctor_book(lambda book: book["heads"][0]["head"].update(seq=1), rechained=rechained)
    await desk.write("next")
    await desk.publish()
    book = await desk.book()
    assert book.heads[0].head.seq == 7
    assert len(rows(desk, audit.ALARM_KIND)) == 1
    assert (await desk.verify()).worst is Severity.NOTE


@pytest.mark.threat(28)
async def test_a_book_that_was_deleted_is_put_back_with_what_it_had(desk: Desk) -> None:
    await desk.story("old", lines=2)
    await desk.story("one", lines=2)
    before = await desk.book()
    desk.api.delete("Ledger", NAMESPACE, "audit")
    await desk.write("next")
    await desk.publish()
    book = await desk.book()
    assert {h.incident for h in book.heads} == {"old", "one"}
    assert (book.sequence, book.previous_sha256) == (before.sequence + 1, before.sha256)
    assert "had been written" in rows(desk, audit.ALARM_KIND)[0]["what"]


async def test_a_book_with_a_wrong_signature_is_noticed_at_the_start(desk: Desk) -> None:
    await desk.story()
    desk.api.edit("Ledger", NAMESPACE, "audit", lambda raw: raw["spec"]["audit"].update(signedAt="2026-06-01T00:00:00.000000Z"))
    after = desk.restarted()
    await after.relist()
    assert "the signature of version" in rows(after, audit.ALARM_KIND)[0]["what"]
