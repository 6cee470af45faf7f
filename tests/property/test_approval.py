"""Approvals: whatever stands in the annotations, only distinct people who named exactly this plan count."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightorders.api.meta import APPROVE_PREFIX, REJECT_PREFIX
from nightorders.api.v1alpha1.incident import ApprovalNeeds
from nightorders.domain.approval import Approved, Rejected, Waiting, claim, judge, seen
from tests.unit.domain.make import MINUTE, NOW, OPERATOR, plan

pytestmark = [pytest.mark.threat(3), pytest.mark.promise(1)]

PLAN = plan()
USERS = st.sampled_from(["alice", "bob", "auth0|bob", "ALICE", OPERATOR.username, "system:admin", "", "|", "alice "]) | st.text(max_size=6)
DIGESTS = st.sampled_from([PLAN.digest] * 4 + [PLAN.content_sha256, "sha256:" + "0" * 64, "", PLAN.digest[:-1], PLAN.digest + "0"])
KEYS = st.sampled_from([APPROVE_PREFIX + k for k in "abcd"] + ["approve.nightorders.dev", "x/approve.nightorders.dev/a", "note"])
NOTES = st.dictionaries(KEYS, st.builds(lambda d, u: f"{d}|{u}", DIGESTS, USERS) | st.text(max_size=10), max_size=5)
FEW = settings(max_examples=200, deadline=None)


def ask(
    notes: dict[str, str], count: int, requester: str | None = None, *, separated: bool = True, before: Any = (), now: Any = NOW
) -> Any:
    spec = ApprovalNeeds(count=count, separation_of_duties=separated)
    return judge(notes, PLAN, seen(notes, PLAN, before, now), spec, requester, OPERATOR.username, now)


@FEW
@given(NOTES, st.integers(1, 3), st.sampled_from([None, "alice", "bob"]), st.booleans())
def test_only_distinct_people_who_named_this_plan_count(notes: dict[str, str], count: int, requester: str | None, separated: bool) -> None:
    answer = ask(notes, count, requester, separated=separated)
    people = set()
    for key, value in notes.items():
        if key.startswith(APPROVE_PREFIX) and value.startswith(PLAN.digest + "|"):
            user = value[len(PLAN.digest) + 1 :]
            if user and user != OPERATOR.username and not user.startswith("system:") and not (separated and user == requester):
                people.add(user)
    if len(people) >= count:
        assert isinstance(answer, Approved)
        assert set(answer.by) == people
    else:
        assert isinstance(answer, Waiting)
        assert (set(answer.counted), answer.missing) == (people, count - len(people))


@FEW
@given(NOTES, NOTES, st.integers(1, 3))
def test_taking_an_annotation_away_never_approves(notes: dict[str, str], more: dict[str, str], count: int) -> None:
    fewer = {k: v for k, v in notes.items() if k not in more}
    if isinstance(ask(fewer, count), Approved):
        assert isinstance(ask(notes, count), Approved)


@FEW
@given(NOTES, st.integers(1, 3))
def test_asking_for_more_people_never_approves(notes: dict[str, str], count: int) -> None:
    if isinstance(ask(notes, count + 1), Approved):
        assert isinstance(ask(notes, count), Approved)


@FEW
@given(NOTES, st.integers(0, 40))
def test_waiting_never_makes_an_old_approval_young(notes: dict[str, str], minutes: int) -> None:
    first = seen(notes, PLAN, (), NOW)
    later = NOW + minutes * MINUTE
    again = seen(notes, PLAN, first, later)
    assert again == first
    answer = ask(notes, 1, before=first, now=later)
    assert not (minutes >= 15 and isinstance(answer, Approved))


@FEW
@given(NOTES, USERS.filter(bool))
def test_a_rejection_of_this_plan_is_never_outvoted(notes: dict[str, str], user: str) -> None:
    assert isinstance(ask({**notes, REJECT_PREFIX + "k": f"{PLAN.digest}|{user}"}, 1), Rejected)


@FEW
@given(st.text(max_size=40))
def test_a_claim_is_split_once_and_loses_nothing(value: str) -> None:
    digest, user = claim(value)
    assert value in (f"{digest}|{user}", digest)
    assert "|" not in digest
