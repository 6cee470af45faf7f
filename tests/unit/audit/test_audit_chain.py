"""The chain of an Incident's lines: what is appended holds, what is doctored does not, and its size is bounded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightorders.api.v1alpha1.incident import IncidentStatus, TimelineEntry
from nightorders.domain import journal

pytestmark = [pytest.mark.threat(28), pytest.mark.promise(5)]

AT = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
Story = tuple[TimelineEntry, ...]
SCHEMA_LIMIT = next(m.max_length for m in IncidentStatus.model_fields["timeline"].metadata if hasattr(m, "max_length"))


def grown(kinds: str, uid: str = "u1", actor: str = "operator") -> Story:
    """o: observation, d: decision, a: approval (by ann), e: execution."""
    made: Story = ()
    names: dict[str, journal.Kind] = {"o": "Observation", "d": "Decision", "a": "Approval", "e": "Execution"}
    for i, k in enumerate(kinds):
        made = journal.append(made, uid, AT + timedelta(seconds=i), names[k], "ann" if k == "a" else actor, f"line {i + 1}")
    return made


def test_what_is_appended_holds_and_the_same_line_twice_is_one() -> None:
    made = grown("oodaeo")
    assert [e.seq for e in made] == [1, 2, 3, 4, 5, 6]
    assert journal.breaks(made, "u1") == []
    assert journal.append(made, "u1", AT, "Observation", "operator", "line 6") == made
    head = journal.head_of(made)
    assert head is not None
    assert (head.seq, head.sha256) == (6, made[-1].sha256)
    assert journal.head_of(()) is None


def test_the_record_of_another_incident_does_not_fit() -> None:
    assert journal.breaks(grown("oo"), "u2") == ["line 1 was changed, or a line before it"]


EDITS: dict[str, Callable[[TimelineEntry], TimelineEntry]] = {
    "what": lambda e: e.model_copy(update={"what": "something else"}),
    "actor": lambda e: e.model_copy(update={"actor": "mallory"}),
    "kind": lambda e: e.model_copy(update={"kind": "Execution"}),
    "at": lambda e: e.model_copy(update={"at": e.at + timedelta(microseconds=1)}),
    "sha256": lambda e: e.model_copy(update={"sha256": "sha256:" + "0" * 64}),
    "seq": lambda e: e.model_copy(update={"seq": e.seq + 1}),
    "count": lambda e: e.model_copy(update={"count": 2}),
}


@pytest.mark.parametrize("field", EDITS)
@pytest.mark.parametrize("at", [0, 2, 5])
def test_an_edit_of_any_field_shows(field: str, at: int) -> None:
    made = list(grown("oodaeo"))
    made[at] = EDITS[field](made[at])
    assert journal.breaks(made, "u1")


@pytest.mark.parametrize("i", range(5))
def test_a_removal_and_a_swap_show(i: int) -> None:
    made = list(grown("oodaeo"))
    assert journal.breaks(made[:i] + made[i + 1 :], "u1")
    made[i], made[i + 1] = made[i + 1], made[i]
    assert journal.breaks(made, "u1")


def test_a_cut_at_the_end_needs_the_head_to_be_noticed() -> None:
    assert journal.breaks(grown("oodaeo")[:4], "u1") == []


def test_old_observations_roll_up_and_the_chain_goes_on() -> None:
    made = grown("o" * 30 + "d" + "o" * 90 + "e" + "o" * 40)
    assert len(made) <= journal.LIMIT
    assert journal.breaks(made, "u1") == []
    assert [e.what for e in made if e.kind in ("Decision", "Execution")] == ["line 31", "line 122"]
    anchor, first = made[:2]
    assert (anchor.kind, anchor.what) == ("Observation", "line 1")  # it alone covers the Incident's uid
    assert (first.kind, first.count, first.what, first.seq) == ("RollUp", 29, "29 earlier observations", 30)
    assert all(e.kind == "Observation" for e in made[-journal.KEEP_RECENT :])


def swallowed(made: Story, start: int, end: int) -> Story:
    """What an attacker writes to make lines disappear: a roll-up in their place."""
    gone = made[start:end]
    one = TimelineEntry(
        seq=gone[-1].seq,
        at=gone[-1].at,
        kind="RollUp",
        actor="operator",
        what=journal.summary(len(gone)),
        count=len(gone),
        sha256=gone[-1].sha256,
    )
    return (*made[:start], one, *made[end:])


COUNTS = "line {} counts {} {} decisions, approvals and executions than stand before it"


def test_a_decision_turned_into_an_observation_is_named_once_and_shows_again_behind_it() -> None:
    made = list(grown("oodaeo"))
    made[2] = EDITS["kind"](made[2]).model_copy(update={"kind": "Observation"})
    assert journal.breaks(made, "u1") == ["line 3 was changed, or a line before it", COUNTS.format(4, 1, "more")]


def test_a_roll_up_that_swallows_a_decision_shows_in_the_line_after_it() -> None:
    made = grown("ooadoe" + "o" * 40)
    assert journal.breaks(swallowed(made, 1, 4), "u1") == [COUNTS.format(5, 2, "more")]
    assert journal.breaks(swallowed(made, 0, 6), "u1") == [journal.FIRST_GONE, COUNTS.format(7, 3, "more")]


def test_a_story_whose_beginning_is_rolled_up_could_be_any_incidents() -> None:
    made = swallowed(grown("o" * 40), 0, 10)
    assert journal.breaks(made, "u1") == journal.breaks(made, "u2") == [journal.FIRST_GONE]


def test_a_roll_up_among_the_newest_lines_shows() -> None:
    made = grown("o" * 40)
    assert journal.breaks(swallowed(made, 1, 10), "u1") == []  # as the operator itself does it
    assert "never roll up" in journal.breaks(swallowed(made, 30, 35), "u1")[0]
    assert "never roll up" in journal.breaks(swallowed(made, 35, 40), "u1")[0]


def test_a_roll_up_cannot_be_made_to_say_something() -> None:
    made = swallowed(grown("o" * 40), 1, 10)
    for change in ({"what": "nothing to see"}, {"actor": "ann"}):
        doctored = (made[0], made[1].model_copy(update=change), *made[2:])
        assert journal.breaks(doctored, "u1") == ["line 10 is a roll-up that was changed"]
    assert journal.breaks((made[0], made[1].model_copy(update={"count": 8}), *made[2:]), "u1")


def test_who_toggles_answers_is_named_once() -> None:
    made: Story = ()
    for i in range(200):
        made = journal.append(made, "u1", AT, "Decision", "ann", ("takes it", "gives it back")[i % 2])
    assert sum(e.kind == "Decision" for e in made) == journal.ANSWERS
    assert sum("more answers were given" in e.what for e in made) == 1
    made = journal.append(made, "u1", AT, "Decision", "operator", "closed")
    assert made[-1].kind == "Decision"  # the operator's own are never crowded out by people's


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("odae"), max_size=260), st.sampled_from([None, 40, journal.LIMIT]))
def test_any_story_fits_its_schema_and_holds(kinds: list[str], limit: int | None) -> None:
    made = grown("".join(kinds))
    made = journal.terse(made) if limit is None else journal.rolled(made, limit)
    assert len(made) <= SCHEMA_LIMIT
    assert journal.breaks(made, "u1") == []
    assert sum(e.count for e in made) == (made[-1].seq if made else 0)


@pytest.mark.parametrize("kinds", ["od" * 200, "e" * 300, "d" * 300, "ooe" * 100, "a" * 300])
def test_the_worst_stories_fit_their_schema(kinds: str) -> None:
    assert len(grown(kinds)) <= SCHEMA_LIMIT
