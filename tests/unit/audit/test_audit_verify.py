"""Doctored records of each kind: each is noticed and named, and what is intact verifies."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from nightorders.domain import audit
from nightorders.domain.verifying import Key, Keyring, Severity, read_log
from tests.unit.audit.desk import NAMESPACE, Desk

pytestmark = [pytest.mark.threat(1, 28), pytest.mark.promise(5)]


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    """Two Incidents: one open, one closed; all published and printed."""
    made = Desk(tmp_path)
    await made.story("one")
    await made.story("two", lines=3)
    await made.write("closed", name="two", kind="Decision", close=True)
    await made.publish()
    return made


async def broken(desk: Desk, **how: Any) -> list[str]:
    return [f"{f.incident}: {f.what}" for f in (await desk.verify(**how)).findings if f.severity is Severity.BROKEN]


async def test_what_is_intact_holds(desk: Desk) -> None:
    for log in (False, True):
        report = await desk.verify(log=log, later=3600)
        assert (report.worst, [c.holds for c in report.checked]) == (Severity.NOTE, [True, True]), report.findings
        assert all(c.signature.startswith("signed by key ") for c in report.checked)


def edit(d: Desk) -> None:
    d.doctor(lambda lines: lines[1].update(what="nothing happened"))


def edit_all_digests(d: Desk) -> None:
    d.doctor(lambda lines: lines[1].update(what="nothing happened"), rechained=True, head="fit")


def edit_all_digests_keep_head(d: Desk) -> None:
    d.doctor(lambda lines: lines[1].update(what="nothing happened"), rechained=True)


def remove(d: Desk) -> None:
    d.doctor(lambda lines: lines.pop(2))


def remove_and_renumber(d: Desk) -> None:
    d.doctor(lambda lines: lines.pop(2), rechained=True, head="fit")


def swap(d: Desk) -> None:
    d.doctor(lambda lines: lines.insert(1, lines.pop(3)))


def truncate(d: Desk) -> None:
    d.doctor(lambda lines: lines.__delitem__(slice(4, None)), head="fit")


def empty(d: Desk) -> None:
    d.doctor(lambda lines: lines.clear(), head="drop")


def delete(d: Desk) -> None:
    d.api.delete("Incident", NAMESPACE, "one", actor="attacker")


def replace(d: Desk) -> None:
    """Deleted, and another one made under its name."""
    delete(d)
    d.open("one")


def strip(d: Desk) -> None:
    d.doctor(lambda lines: None, head="fit")


def forge(d: Desk) -> None:
    """A signature by a key of the attacker's own."""

    def change(raw: Any) -> None:
        raw["status"]["head"]["keyId"] = "0123456789abcdef"

    d.api.edit("Incident", NAMESPACE, "one", change, actor="attacker")


def wrong_signature(d: Desk) -> None:
    """The signature of another Incident."""
    other = d.api.objects[("Incident", NAMESPACE, "two")]["status"]["head"]["signature"]
    d.api.edit("Incident", NAMESPACE, "one", lambda raw: raw["status"]["head"].update(signature=other), actor="attacker")


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        (edit, "one: line 2 was changed"),
        (edit_all_digests, "one: against the book of heads: line 6 is not the one that had been written"),
        (edit_all_digests_keep_head, "one: the head does not belong to the last line"),
        (remove, "one: line 4 follows line 2: something is missing or moved"),
        (remove_and_renumber, "one: against the book of heads: it ends at line 5, and line 6 had been written"),
        (swap, "one: line 4 follows line 1: something is missing or moved"),
        (truncate, "one: against the book of heads: it ends at line 4, and line 6 had been written: lines are missing at the end"),
        (empty, "one: against the book of heads: it ends at line 0"),
        (delete, "one: gone: its record up to line 6 was sha256:"),
        (replace, "one: gone: its record up to line 6 was sha256:"),
        (strip, "one: the signature of line 6 was removed; the book of heads has it"),
        (forge, "one: line 6 is signed by the unknown key 0123456789abcdef"),
        (wrong_signature, "one: line 6 is signed wrongly"),
    ],
)
@pytest.mark.parametrize("log", [False, True])
async def test_a_doctored_incident(desk: Desk, attack: Callable[[Desk], None], words: str, log: bool) -> None:
    attack(desk)
    found = await broken(desk, log=log)
    assert any(f.startswith(words) for f in found), found
    assert not any(f.startswith("two:") for f in found)  # and nobody else is suspected


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda b: b["heads"][0]["head"].update(seq=2), "was changed"),
        (lambda b: b["heads"].pop(0), "was changed"),
        (lambda b: b.update(sequence=b["sequence"] + 1), "was changed"),
        (lambda b: b.update(rolledUp=3), "was changed"),
        (lambda b: b.update(signature="AAAA"), "is signed wrongly"),
        (lambda b: b.update(keyId="0123456789abcdef"), "is signed by the unknown key"),
    ],
)
async def test_a_doctored_book(desk: Desk, change: Callable[[Any], Any], words: str) -> None:
    desk.doctor_book(change)
    assert any(words in f for f in await broken(desk))


async def test_a_book_that_was_written_anew_is_unsigned_and_not_the_printed_one(desk: Desk) -> None:
    delete(desk)
    desk.doctor_book(lambda b: b["heads"].__delitem__(slice(0, 1)), rechained=True)
    report = await desk.verify()
    assert report.worst is Severity.DOUBT
    assert any("unsigned, although there was a key" in f.what for f in report.findings)
    found = await broken(desk, log=True)
    assert any("is not the one in the log" in f for f in found)
    assert any(f.startswith("one: gone, and in no book of heads: the log has its lines 1 to 6") for f in found)


async def test_without_a_key_the_book_still_notices(tmp_path: Path) -> None:
    desk = Desk(tmp_path, key=False)
    await desk.story("one")
    truncate(desk)
    assert any("it ends at line 4, and line 6 had been written" in f for f in await broken(desk))


async def test_an_older_book_put_back_is_noticed_by_the_log(desk: Desk) -> None:
    old = desk.api.objects[("Ledger", NAMESPACE, "audit")]["spec"]
    await desk.write("more")
    await desk.publish()
    desk.api.edit("Ledger", NAMESPACE, "audit", lambda raw: raw.update(spec=old))
    desk.doctor(lambda lines: lines.pop(), head="fit")
    assert any("the log has version" in f for f in await broken(desk, log=True))
    assert any("the log has it up to line 7, the cluster only up to line 6" in f for f in await broken(desk, log=True))


async def test_no_book_at_all_is_no_proof(desk: Desk) -> None:
    desk.api.delete("Ledger", NAMESPACE, "audit")
    assert (await desk.verify(later=3600)).worst is Severity.DOUBT
    assert any("the cluster has none" in f for f in await broken(desk, log=True))


async def test_an_incident_that_the_book_does_not_list(desk: Desk) -> None:
    desk.open("three")
    await desk.write("first", name="three")
    assert (await desk.verify()).worst is Severity.NOTE  # it was written a moment ago
    assert any(f == "three: the book of heads does not list it" for f in await broken(desk, later=3600))


async def test_a_book_that_stays_behind_is_no_proof(desk: Desk) -> None:
    await desk.write("more")
    report = await desk.verify(later=3600)
    assert report.worst is Severity.DOUBT
    assert any("knows it up to line 6 only" in f.what for f in report.findings)


# ------------------------------------------------------------ keys


async def test_a_signature_by_a_retired_key(desk: Desk) -> None:
    head = (await desk.read()).status.head
    assert head is not None
    assert head.signed_at is not None
    before, after = head.signed_at - timedelta(seconds=1), desk.clock.now()
    assert any("which was retired at" in f for f in await broken(desk, ring=desk.ring(**{f"k{head.key_id}": before})))
    assert await broken(desk, ring=desk.ring(**{f"k{head.key_id}": after})) == []


async def test_no_key_at_hand_is_cannot_tell(desk: Desk) -> None:
    report = await desk.verify(ring=Keyring())
    assert report.worst is Severity.DOUBT
    assert any("whose public key is not known here" in f.what for f in report.findings)


async def test_another_key_at_hand_is_an_unknown_one(desk: Desk, tmp_path: Path) -> None:
    other = Desk(tmp_path / "x" if (tmp_path / "x").mkdir() is None else tmp_path)
    assert any("signed by the unknown key" in f for f in await broken(desk, ring=other.ring()))


async def test_a_signature_that_is_older_than_its_line(desk: Desk) -> None:
    """A retired key cannot be made good by setting the time of its signature back."""
    incident = await desk.read()
    head = incident.status.head
    assert head is not None
    early = head.model_copy(update={"signed_at": desk.clock.now() - timedelta(days=1)})
    signed = desk.signer.sign(audit.head_message(incident.metadata.uid, early))
    assert signed is not None
    early = early.model_copy(update={"signature": signed.signature})
    desk.api.edit("Incident", NAMESPACE, "one", lambda raw: raw["status"].update(head=early.wire()))
    assert any("before what it signs was written" in f for f in await broken(desk))


async def test_unsigned_counts_only_while_there_was_no_key(tmp_path: Path) -> None:
    desk = Desk(tmp_path, key=False)
    await desk.story("one", lines=2)
    ring = Keyring({"a" * 16: Key("a" * 16, since=desk.clock.now())})
    assert (await desk.verify(ring=ring)).worst is Severity.NOTE
    desk.clock.advance(timedelta(hours=1))
    await desk.write("later")
    await desk.publish()
    report = await desk.verify(ring=ring)
    assert report.worst is Severity.DOUBT
    assert any("unsigned, although there was a key" in f.what for f in report.findings)


# ------------------------------------------------------------ deleted, and the log


async def test_a_deleted_closed_incident_may_be_accepted_and_an_open_one_may_not(desk: Desk) -> None:
    desk.api.delete("Incident", NAMESPACE, "two")
    assert any(f.startswith("two: gone") for f in await broken(desk))
    assert await broken(desk, accept_gone=True, log=True) == []
    delete(desk)
    assert any(f.startswith("one: gone") for f in await broken(desk, accept_gone=True))


Change = Callable[[list[dict[str, Any]]], Any]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[1].update(what="nothing happened"), "line 2 in the log was changed"),
        (lambda rows: rows[1].update(sha256="sha256:" + "0" * 64), "line 2 in the log was changed"),
        (lambda rows: rows.pop(2), "the log lacks its lines 3 to 3"),
        (lambda rows: rows[5].update(signature="AAAA"), "line 6 in the log is signed wrongly"),
    ],
)
async def test_a_doctored_log(desk: Desk, change: Change, words: str) -> None:
    all_rows = [json.loads(line) for line in desk.log]
    mine = [r for r in all_rows if r["kind"] == audit.LINE_KIND and r["incident"] == "one"]
    others = [r for r in all_rows if r not in mine]
    change(mine)
    desk.log[:] = [json.dumps(r) for r in (*mine, *others)]
    assert any(words in f for f in await broken(desk, log=True))


async def test_a_log_of_another_story_differs_from_the_cluster(desk: Desk) -> None:
    """Consistent in itself, and not what the cluster has."""
    edit_all_digests(desk)
    found = await broken(desk, log=True)
    assert "one: line 2 in the cluster is not the one in the log" in found


def test_our_lines_are_found_among_others_and_behind_what_a_collector_wrote() -> None:
    assert read_log([]).lines == ()
    row = {"kind": audit.BOOK_KIND, "namespace": "shop", "sequence": 1, "previous": "", "sha256": "x"}
    found = read_log(
        [
            '{"event": "ready", "level": "info"}\n',
            "plain words\n",
            "2026-07-01T12:00:00Z stdout F " + json.dumps(row) + "\n",
            json.dumps(row),
            json.dumps({"event": json.dumps(row)}),  # quoted text of a log is no line of ours
            '{"kind": "nightorders.audit", "seq": ',
            json.dumps({"kind": audit.LINE_KIND, "seq": 1}),
        ]
    )
    assert (len(found.books), len(found.lines), found.unread) == (1, 0, 2)


async def test_a_log_that_begins_later_or_ends_earlier_is_only_noted(desk: Desk) -> None:
    mine = [line for line in desk.log if json.loads(line).get("incident") == "one"]
    desk.log[:] = mine[2:5]
    report = await desk.verify(log=True)
    assert report.worst is Severity.NOTE
    said = {f.what for f in report.findings}
    assert {"the log begins with its line 3", "the log ends at line 5, the cluster has 6", "the log has no line of it"} <= said


async def test_a_rolled_up_record_still_matches_its_log(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    await desk.story("one", lines=1)
    for i in range(130):
        await desk.write(f"look {i}", kind="Decision" if i % 40 == 0 else "Observation")
    await desk.publish()
    timeline = (await desk.read()).status.timeline
    assert any(e.kind == "RollUp" for e in timeline)
    assert (await desk.verify(log=True, later=3600)).worst is Severity.NOTE
    assert len([r for r in desk.log if json.loads(r)["kind"] == audit.LINE_KIND]) == 131
