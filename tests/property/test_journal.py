"""A story with one line removed, moved or edited never verifies against its head, however long it is and whatever was rolled up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nightorders.api.v1alpha1.incident import IncidentStatus, TimelineEntry
from nightorders.domain.journal import KEEP_RECENT, LASTING, LIMIT, append, breaks, head_of, rolled, terse
from tests.unit.domain.make import NOW, SECOND

Story = tuple[TimelineEntry, ...]
UID = "uid-incident"
KINDS = st.sampled_from(["Observation"] * 4 + ["Decision", "Approval", "Execution"])
LINES = st.lists(st.tuples(KINDS, st.sampled_from(["operator", "alice", "ünï"]), st.text(max_size=12)), min_size=1, max_size=140)
FEW = settings(max_examples=120, deadline=None)
SHA = "sha256:" + "1" * 64


def grown(lines: list[tuple[Any, str, str]]) -> Story:
    made: Story = ()
    for n, (kind, actor, what) in enumerate(lines):
        made = append(made, UID, NOW + n * SECOND, kind, actor, f"{n} {what}")
    return made


STORIES = st.builds(lambda lines, short: terse(grown(lines)) if short else grown(lines), LINES, st.sampled_from([False, False, True]))


def verifies(story: Story, whole: Story) -> bool:
    """Against the head that was published for the whole story."""
    return not breaks(story, UID) and head_of(story) == head_of(whole)


@FEW
@given(STORIES)
def test_what_was_appended_verifies_also_after_the_wire(story: Story) -> None:
    assert verifies(story, story)
    status = IncidentStatus.model_validate(IncidentStatus(timeline=story).wire())
    assert verifies(status.timeline, story)
    assert breaks(story, "uid-another")


@FEW
@given(LINES)
def test_rolling_up_keeps_every_decision_approval_and_execution(lines: list[tuple[Any, str, str]]) -> None:
    whole = grown(lines)
    for shorter in (rolled(whole, 40), terse(whole)):
        assert [e for e in shorter if e.kind in LASTING] == [e for e in whole if e.kind in LASTING]
        assert shorter[-min(len(whole), KEEP_RECENT) :] == whole[-KEEP_RECENT:]
        assert sum(e.count for e in shorter) == sum(e.count for e in whole) == whole[-1].seq
        assert head_of(shorter) == head_of(whole)
    assert len(whole) <= max(LIMIT, 2 * sum(e.kind in LASTING for e in whole) + KEEP_RECENT + 1)


@FEW
@given(STORIES, st.integers(0, 999))
def test_a_line_removed_shows(story: Story, i: int) -> None:
    i %= len(story)
    assert not verifies((*story[:i], *story[i + 1 :]), story)


@FEW
@given(STORIES, st.integers(0, 999), st.integers(0, 999))
def test_a_line_moved_shows(story: Story, i: int, j: int) -> None:
    i, j = i % len(story), j % len(story)
    assume(i != j)
    rest = [*story[:i], *story[i + 1 :]]
    assert not verifies((*rest[:j], story[i], *rest[j:]), story)


@FEW
@given(STORIES, st.integers(0, 999), st.integers(0, 999))
def test_a_line_told_twice_shows(story: Story, i: int, j: int) -> None:
    i, j = i % len(story), j % (len(story) + 1)
    assert not verifies((*story[:j], story[i], *story[j:]), story)


EDITS: dict[str, Any] = {
    "what": lambda e: {"what": e.what + "."},
    "actor": lambda e: {"actor": e.actor + "x"},
    "at": lambda e: {"at": e.at + timedelta(microseconds=1)},
    "later": lambda e: {"at": e.at + timedelta(days=1)},
    "kind": lambda e: {"kind": "Decision" if e.kind != "Decision" else "Observation"},
    "seq": lambda e: {"seq": e.seq + 1},
    "count": lambda e: {"count": e.count + 1},
    "sha256": lambda e: {"sha256": SHA},
    "made a roll-up": lambda e: {"kind": "RollUp", "actor": "operator", "what": "1 earlier observation"},
}


@FEW
@given(STORIES, st.integers(0, 999), st.sampled_from(sorted(EDITS)))
def test_a_line_edited_shows(story: Story, i: int, how: str) -> None:
    i %= len(story)
    e = story[i]
    assume(e.kind != "RollUp" or how not in ("at", "later", "made a roll-up"))  # the time of a roll-up is told, not proven
    assume(not (how == "made a roll-up" and e.kind == "Observation" and i < len(story) - KEEP_RECENT))  # as the operator itself does it
    assert not verifies((*story[:i], e.model_copy(update=EDITS[how](e)), *story[i + 1 :]), story)


@FEW
@given(STORIES, st.integers(0, 999), st.integers(1, 30))
def test_a_roll_up_that_swallows_something_lasting_shows(story: Story, i: int, n: int) -> None:
    i %= len(story)
    lost = story[i : i + n]
    assume(any(e.kind in LASTING for e in lost))
    count = sum(e.count for e in lost)
    what = "1 earlier observation" if count == 1 else f"{count} earlier observations"
    one = TimelineEntry(seq=lost[-1].seq, at=lost[-1].at, kind="RollUp", actor="operator", what=what, count=count, sha256=lost[-1].sha256)
    assert not verifies((*story[:i], one, *story[i + n :]), story)
