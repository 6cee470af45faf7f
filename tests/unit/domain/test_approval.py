"""Annotations and plan → who agreed to exactly this plan, when the operator first saw it, and whether that is enough."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from nightorders.api.meta import APPROVE_PREFIX, EMERGENCY_PREFIX, REJECT_PREFIX, WHY_PREFIX, parse_duration
from nightorders.api.v1alpha1.incident import Approval, ApprovalNeeds, Plan
from nightorders.domain.approval import Answer, Approved, Rejected, Waiting, claim, judge, seen
from tests.unit.domain.make import MINUTE, NOW, OPERATOR, SECOND, plan

pytestmark = [pytest.mark.threat(3), pytest.mark.promise(1)]

PLAN = plan()
OTHER = "sha256:" + "0" * 64


def yes(*users: str, digest: str = PLAN.digest) -> dict[str, str]:
    return {f"{APPROVE_PREFIX}k{i}": f"{digest}|{user}" for i, user in enumerate(users)}


def ask(
    notes: dict[str, str],
    *,
    p: Plan = PLAN,
    count: int = 1,
    expires: str = "15m",
    separated: bool | None = None,
    requester: str | None = None,
    before: tuple[Approval, ...] = (),
    now: datetime = NOW,
    **more: Any,
) -> Answer:
    seconds = int(parse_duration(expires).total_seconds())
    both = count > 1 if separated is None else separated
    needs = ApprovalNeeds(count=count, expires_seconds=seconds, separation_of_duties=both, **more)
    return judge(notes, p, seen(notes, p, before, now), needs, requester, OPERATOR.username, now)


@pytest.mark.parametrize(
    ("value", "digest", "user"),
    [
        ("sha256:1|alice", "sha256:1", "alice"),
        ("sha256:1|auth0|bob", "sha256:1", "auth0|bob"),
        ("sha256:1||", "sha256:1", "|"),
        ("sha256:1|", "sha256:1", ""),
        ("sha256:1", "sha256:1", ""),
        ("|alice", "", "alice"),
        ("", "", ""),
    ],
)
def test_the_value_is_split_at_its_first_bar(value: str, digest: str, user: str) -> None:
    assert claim(value) == (digest, user)


@pytest.mark.parametrize("user", ["alice", "auth0|bob", "alice@example.com", "ünïcode", " alice", "kube:admin"])
def test_one_person_is_enough_for_count_one(user: str) -> None:
    assert ask(yes(user)) == Approved((user,))


def test_nobody_yet_says_how_many_are_missing() -> None:
    assert ask({}, count=2) == Waiting(2, 2, ())
    assert ask(yes("alice"), count=2) == Waiting(1, 2, ("alice",))
    assert ask(yes("bob", "alice"), count=2) == Approved(("alice", "bob"))


def test_one_user_with_two_keys_counts_once() -> None:
    assert ask(yes("alice", "alice"), count=2) == Waiting(1, 2, ("alice",))


def test_names_that_differ_in_case_or_after_the_bar_are_two_people() -> None:
    assert isinstance(ask(yes("auth0|bob", "auth0|Bob"), count=2), Approved)


@pytest.mark.parametrize(
    "notes",
    [
        yes("alice", digest=OTHER),
        yes("alice", digest=PLAN.digest[:-1]),
        yes("alice", digest=PLAN.digest + " "),
        yes("alice", digest=PLAN.digest.upper()),
        yes("alice", digest=PLAN.content_sha256),
        yes("alice", digest=plan(of=None, sequence=PLAN.sequence).digest[:20]),
        yes(""),
        {f"{APPROVE_PREFIX}k": PLAN.digest},
        {f"{APPROVE_PREFIX}k": f"|{PLAN.digest}"},
        {f"{APPROVE_PREFIX}k": ""},
        {"approve.nightorders.dev": f"{PLAN.digest}|alice"},
        {f"approve.nightorders.dev.evil/{'k'}": f"{PLAN.digest}|alice"},
        {f"x{APPROVE_PREFIX}k": f"{PLAN.digest}|alice"},
        {f"{WHY_PREFIX}k": f"{PLAN.digest}|alice"},
    ],
)
def test_what_is_not_exactly_this_plan_and_a_name_counts_nothing(notes: dict[str, str]) -> None:
    assert ask(notes) == Waiting(1, 1, ())


def test_an_approval_of_an_old_plan_does_not_count_for_the_next() -> None:
    """The digest comparison: without it any old approval would fit."""
    later = PLAN.model_copy(update={"digest": OTHER})
    earlier = seen(yes("alice"), PLAN, (), NOW)
    assert seen(yes("alice"), later, earlier, NOW) == ()
    assert judge(yes("alice"), later, earlier, ApprovalNeeds(), None, OPERATOR.username, NOW) == Waiting(1, 1, ())


@pytest.mark.threat(5)
@pytest.mark.parametrize(
    ("user", "requester", "separated", "count", "enough"),
    [
        (OPERATOR.username, None, None, 1, False),
        ("system:serviceaccount:shop:ci", None, None, 1, False),
        ("system:admin", None, None, 1, False),
        ("system:", None, None, 1, False),
        ("System:alice", None, None, 1, True),
        ("alice", "alice", None, 1, True),  # a lone on-call may approve the operator's plan
        ("alice", "alice", True, 1, False),
        ("alice", "bob", True, 1, True),
        ("alice", None, True, 1, True),
        ("alice", "alice", False, 1, True),
    ],
)
def test_who_does_not_count(user: str, requester: str | None, separated: bool | None, count: int, enough: bool) -> None:
    assert isinstance(ask(yes(user), requester=requester, separated=separated, count=count), Approved) is enough


def test_with_two_wanted_the_requester_is_not_one_of_them_unless_the_policy_says_so() -> None:
    both = yes("alice", "bob")
    assert ask(both, count=2, requester="alice") == Waiting(1, 2, ("bob",))
    assert isinstance(ask(both, count=2, requester="alice", separated=False), Approved)


@pytest.mark.parametrize(("age", "enough"), [(14 * MINUTE + 59 * SECOND, True), (15 * MINUTE, False), (16 * MINUTE, False)])
def test_an_approval_expires_from_the_moment_it_was_first_seen(age: object, enough: bool) -> None:
    first = seen(yes("alice"), PLAN, (), NOW)
    assert isinstance(ask(yes("alice"), before=first, now=NOW + age), Approved) is enough  # type: ignore[operator]


def test_an_approval_that_stays_keeps_its_first_moment_also_when_the_same_plan_is_staged_again() -> None:
    first = seen(yes("alice"), PLAN, (), NOW)
    restaged = PLAN.model_copy(update={"staged_at": NOW + 10 * MINUTE, "expires_at": NOW + 25 * MINUTE})
    again = seen(yes("alice"), restaged, first, NOW + 10 * MINUTE)
    assert [a.at for a in again] == [NOW]
    assert ask(yes("alice"), p=restaged, before=again, now=NOW + 15 * MINUTE) == Waiting(1, 1, ())


def test_two_approvals_of_one_person_are_as_young_as_the_younger() -> None:
    first = seen(yes("alice"), PLAN, (), NOW)
    assert isinstance(ask(yes("alice", "alice"), before=first, now=NOW + 15 * MINUTE), Approved)


def test_a_person_with_two_keys_does_not_stay_young_for_ever() -> None:
    """Remembering only one of them made the other look new in every pass."""
    approvals = seen(yes("alice", "alice"), PLAN, (), NOW)
    for minute in range(1, 15):
        approvals = seen(yes("alice", "alice"), PLAN, approvals, NOW + minute * MINUTE)
    assert ask(yes("alice", "alice"), before=approvals, now=NOW + 15 * MINUTE) == Waiting(1, 1, ())


def test_nobody_crowds_others_out() -> None:
    notes = {f"{APPROVE_PREFIX}k{i:02}": f"{PLAN.digest}|alice" for i in range(40)} | {f"{APPROVE_PREFIX}z": f"{PLAN.digest}|zoe"}
    assert {a.user for a in seen(notes, PLAN, (), NOW)} == {"alice", "zoe"}


def test_one_that_vanished_is_withdrawn() -> None:
    first = seen(yes("alice"), PLAN, (), NOW)
    assert seen({}, PLAN, first, NOW + SECOND) == ()
    assert ask({}, before=first, now=NOW + SECOND) == Waiting(1, 1, ())


def test_one_given_again_after_a_withdrawal_is_new() -> None:
    assert [a.at for a in seen(yes("alice"), PLAN, (), NOW + MINUTE)] == [NOW + MINUTE]


def test_the_same_key_with_another_name_is_another_approval() -> None:
    first = seen(yes("alice"), PLAN, (), NOW)
    assert [(a.user, a.at) for a in seen(yes("bob"), PLAN, first, NOW + MINUTE)] == [("bob", NOW + MINUTE)]


@pytest.mark.parametrize("key", ["k0", "other"])
def test_a_rejection_outweighs_any_number_of_approvals(key: str) -> None:
    notes = {**yes("alice", "bob"), f"{REJECT_PREFIX}{key}": f"{PLAN.digest}|carol", f"{WHY_PREFIX}{key}": "wait for the vendor"}
    assert ask(notes) == Rejected("carol", "wait for the vendor")


def test_a_reason_under_another_key_is_not_the_reason() -> None:
    notes = {f"{REJECT_PREFIX}a": f"{PLAN.digest}|carol", f"{WHY_PREFIX}b": "no"}
    assert ask(notes) == Rejected("carol", "")


@pytest.mark.parametrize("value", [f"{OTHER}|carol", PLAN.digest, f"{PLAN.digest}|", ""])
def test_a_rejection_of_another_plan_or_of_nobody_does_not_count(value: str) -> None:
    assert isinstance(ask({**yes("alice"), f"{REJECT_PREFIX}k": value}), Approved)


def test_at_most_sixteen_are_kept_and_a_flood_can_only_hinder() -> None:
    notes = {f"{APPROVE_PREFIX}k{i:02}": f"{PLAN.digest}|user{i}" for i in range(40)}
    assert len(seen(notes, PLAN, (), NOW)) == 16


def test_a_name_longer_than_the_api_allows_is_no_name_and_breaks_nothing() -> None:
    notes = {**yes("alice"), f"{APPROVE_PREFIX}z": f"{PLAN.digest}|{'x' * 257}", f"{APPROVE_PREFIX}y": f"{PLAN.digest}|{'x' * 256}"}
    assert [len(a.user) for a in seen(notes, PLAN, (), NOW)] == [5, 256]


# ---------------------------------------------------------------- during a freeze


def urgent(*users: str, why: str = "orders are lost", digest: str = PLAN.digest) -> dict[str, str]:
    notes = {f"{EMERGENCY_PREFIX}e{i}": f"{digest}|{user}" for i, user in enumerate(users)}
    return notes | ({f"{WHY_PREFIX}e{i}": why for i in range(len(users))} if why else {})


@pytest.mark.parametrize("frozen_by", ["Namespace", "Cluster"])
@pytest.mark.parametrize(
    ("notes", "count", "answer"),
    [
        (yes("alice", "bob"), 1, Waiting(1, 1, ())),  # ordinary ones do not count
        (urgent("alice"), 1, Approved(("alice",))),
        (urgent("alice"), 2, Waiting(1, 2, ("alice",))),
        (urgent("alice", "bob"), 2, Approved(("alice", "bob"))),
        (urgent("alice", "alice"), 2, Waiting(1, 2, ("alice",))),
        ({**urgent("alice"), **yes("bob")}, 2, Waiting(1, 2, ("alice",))),
        (urgent("alice", why=""), 1, Waiting(1, 1, ())),  # without a reason it is none
        (urgent("alice", why=" \n\t"), 1, Waiting(1, 1, ())),
        (urgent("alice", digest=OTHER), 1, Waiting(1, 1, ())),
        (urgent(OPERATOR.username), 1, Waiting(1, 1, ())),
        ({**urgent("alice"), f"{REJECT_PREFIX}r": f"{PLAN.digest}|carol"}, 1, Rejected("carol", "")),
    ],
)
def test_during_a_freeze_only_emergency_approvals_count(frozen_by: str, notes: dict[str, str], count: int, answer: Answer) -> None:
    assert ask(notes, count=count, frozen_by=frozen_by) == answer


def test_outside_a_freeze_an_emergency_approval_is_an_approval() -> None:
    assert ask(urgent("alice")) == Approved(("alice",))
    assert ask({**urgent("alice"), **yes("alice")}, count=2) == Waiting(1, 2, ("alice",))


def test_an_emergency_approval_is_kept_with_its_reason_and_the_plan_in_words() -> None:
    (one,) = seen(urgent("alice"), PLAN, (), NOW)
    assert (one.user, one.emergency, one.why) == ("alice", True, "orders are lost")
    assert one.plan == "RollbackWorkload of Deployment/checkout to revision 6"
    (plain,) = seen({**yes("bob"), f"{WHY_PREFIX}k0": "looked at the diff"}, PLAN, (), NOW)
    assert (plain.emergency, plain.why) == (False, "looked at the diff")


def test_a_reason_is_safe_and_bounded() -> None:
    (one,) = seen(urgent("alice", why="a\x1b[31m\nb" + "x" * 900), PLAN, (), NOW)
    assert one.why.startswith("a [31m b")
    assert len(one.why) == 400


def test_a_reason_that_is_taken_away_takes_the_approval_with_it() -> None:
    before = seen(urgent("alice"), PLAN, (), NOW)
    assert seen(urgent("alice", why=""), PLAN, before, NOW + SECOND) == ()


def test_an_ordinary_approval_under_the_same_name_is_not_the_emergency_one() -> None:
    ordinary = seen({f"{APPROVE_PREFIX}e0": f"{PLAN.digest}|alice"}, PLAN, (), NOW)
    (both,) = seen(urgent("alice"), PLAN, ordinary, NOW + MINUTE)
    assert (both.emergency, both.at) == (True, NOW + MINUTE)


# ---------------------------------------------------------------- two people, and who is none


@pytest.mark.parametrize(
    ("users", "requester", "counted"),
    [
        (("alice", "bob"), None, ("alice", "bob")),
        (("alice", "bob"), "carol", ("alice", "bob")),
        (("alice", "alice"), None, None),
        (("alice", "bob"), "alice", None),
        (("alice", "bob", "carol"), "alice", ("bob", "carol")),
        (("alice", OPERATOR.username), None, None),
        (("alice", "system:serviceaccount:shop:ci"), None, None),
    ],
)
def test_two_approvers_are_two_people_and_neither_asked_for_it(users: Any, requester: str | None, counted: Any) -> None:
    answer = ask(yes(*users), count=2, requester=requester)
    assert answer == Approved(counted) if counted else isinstance(answer, Waiting)


@pytest.mark.parametrize(
    ("user", "may", "counts"),
    [
        ("system:serviceaccount:shop:ci", "Allow", True),
        ("system:serviceaccount:shop:ci", "Deny", False),
        ("system:serviceaccounts", "Allow", False),
        ("system:node:n1", "Allow", False),
        ("system:admin", "Allow", False),
        (OPERATOR.username, "Allow", False),  # the operator's own account is a ServiceAccount, too
        ("alice", "Deny", True),
    ],
)
def test_service_accounts_count_only_where_the_orders_say_so(user: str, may: str, counts: bool) -> None:
    assert isinstance(ask(yes(user), service_accounts=may), Approved) is counts
    assert isinstance(ask(urgent(user), service_accounts=may, frozen_by="Cluster"), Approved) is counts


def test_two_service_accounts_are_two() -> None:
    both = yes("system:serviceaccount:shop:ci", "system:serviceaccount:shop:bot")
    assert isinstance(ask(both, count=2, service_accounts="Allow"), Approved)
