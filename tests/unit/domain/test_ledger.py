"""The books: every change is idempotent and bounded, and a crash leaves no slot taken."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from nightorders.api.meta import Level
from nightorders.api.v1alpha1.incident import CheckSpec
from nightorders.api.v1alpha1.ledger import LedgerSpec, Preexisting
from nightorders.domain import ledger as books
from tests.unit.domain.make import (
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    changed,
    deployment,
    execution,
    incident,
    outcome,
    plan,
    rejection,
    replica_set,
    reservation,
    sample,
    staged_status,
    template,
    verifying,
)

EMPTY = LedgerSpec()


def test_a_slot_taken_twice_for_one_execution_is_one_slot() -> None:
    once = books.reserve(EMPTY, reservation("no-1"))
    twice = books.reserve(once, reservation("no-1", at=NOW))
    assert [(r.execution, r.at) for r in twice.reservations] == [("no-1", NOW)]
    assert len(books.reserve(twice, reservation("no-2")).reservations) == 2


def test_settling_frees_the_slot_and_remembers_the_outcome_once() -> None:
    taken = books.reserve(books.reserve(EMPTY, reservation("no-1")), reservation("no-2"))
    done = books.settle(taken, outcome("no-1"))
    assert [r.execution for r in done.reservations] == ["no-2"]
    assert [o.execution for o in done.outcomes] == ["no-1"]
    assert books.settle(done, outcome("no-1", result="Undone")) == done  # the first word stands


def test_settling_again_frees_a_slot_that_came_back() -> None:
    done = books.settle(EMPTY, outcome("no-1"))
    assert books.settle(books.reserve(done, reservation("no-1")), outcome("no-1")).reservations == ()


def test_releasing_what_is_not_there_changes_nothing() -> None:
    assert books.release(EMPTY, "no-1") == EMPTY


def test_outcomes_are_bounded_and_the_oldest_go() -> None:
    spec = EMPTY
    for i in range(books.KEEP_OUTCOMES + 3):
        spec = books.settle(spec, outcome(f"no-{i}"))
    assert len(spec.outcomes) == books.KEEP_OUTCOMES
    assert (spec.outcomes[0].execution, spec.outcomes[-1].execution) == ("no-3", f"no-{books.KEEP_OUTCOMES + 2}")
    LedgerSpec.model_validate(spec.model_dump())


@pytest.mark.parametrize(
    ("age", "runs", "kept"),
    [
        (0 * SECOND, False, True),
        (2 * MINUTE - SECOND, False, True),
        (2 * MINUTE, False, False),
        (HOUR, False, False),
        (HOUR, True, True),
        (-MINUTE, False, True),  # from a clock ahead of ours
    ],
)
def test_a_slot_is_reclaimed_when_its_incident_is_gone_and_it_is_not_young(age: timedelta, runs: bool, kept: bool) -> None:
    spec = books.reserve(EMPTY, reservation("no-1", at=NOW - age))
    assert bool(books.reclaim(spec, lambda _: runs, NOW).reservations) is kept


def test_reclaiming_nothing_writes_nothing() -> None:
    spec = books.reserve(EMPTY, reservation("no-1", at=NOW))
    assert books.reclaim(spec, lambda _: False, NOW) is spec


# ---------------------------------------------------------------- healthy revisions


def test_a_healthy_revision_is_recorded_once_with_its_template() -> None:
    spec = books.remember_healthy(EMPTY, deployment(), replica_set(6), NOW)
    again = books.remember_healthy(spec, deployment(), replica_set(6), NOW + HOUR)
    assert again is spec
    assert [(h.revision_uid, h.workload_uid, h.at) for h in spec.healthy_revisions] == [("uid-rs-6", "uid-checkout", NOW)]


def test_a_revision_seen_healthy_with_another_template_replaces_its_record() -> None:
    spec = books.remember_healthy(EMPTY, deployment(), replica_set(6), NOW)
    edited = books.remember_healthy(spec, deployment(), replica_set(6, template("6b")), NOW + HOUR)
    assert [h.at for h in edited.healthy_revisions] == [NOW + HOUR]


def test_the_hash_label_of_the_replica_set_plays_no_part() -> None:
    plain = changed(replica_set(6), ("spec", "template", "metadata", "labels"), {"app": "checkout"})
    spec = books.remember_healthy(EMPTY, deployment(), replica_set(6), NOW)
    assert books.remember_healthy(spec, deployment(), plain, NOW) is spec


def test_few_revisions_of_one_workload_are_kept_and_others_are_not_pushed_out() -> None:
    other = changed(deployment(), ("metadata", "uid"), "uid-cart")
    spec = books.remember_healthy(EMPTY, other, replica_set(1), NOW)
    for n in range(2, 9):
        spec = books.remember_healthy(spec, deployment(), replica_set(n), NOW + n * SECOND)
    own = [h.revision_uid for h in spec.healthy_revisions if h.workload_uid == "uid-checkout"]
    assert own == [f"uid-rs-{n}" for n in (5, 6, 7, 8)]
    assert any(h.workload_uid == "uid-cart" for h in spec.healthy_revisions)


def test_healthy_revisions_are_bounded_in_all() -> None:
    spec = EMPTY
    for n in range(30):
        spec = books.remember_healthy(spec, changed(deployment(), ("metadata", "uid"), f"u{n}"), replica_set(n), NOW)
    full = spec.model_copy(update={"healthy_revisions": spec.healthy_revisions * 40})
    more = books.remember_healthy(full, deployment(), replica_set(99), NOW)
    assert len(more.healthy_revisions) == books.KEEP_REVISIONS
    assert more.healthy_revisions[-1].revision_uid == "uid-rs-99"


# ---------------------------------------------------------------- labels


def seen(spec: LedgerSpec, tier: str, at: timedelta) -> LedgerSpec:
    return books.remember_labels(spec, deployment(labels={"tier": tier}), NOW + at)


def test_the_first_look_at_labels_is_no_change() -> None:
    (record,) = seen(EMPTY, "web", 0 * SECOND).workloads
    assert (record.labels, record.previous_labels, record.changed_at) == ({"app": "checkout", "tier": "web"}, {}, None)


def test_unchanged_labels_write_nothing() -> None:
    spec = seen(EMPTY, "web", 0 * SECOND)
    assert seen(spec, "web", HOUR) is spec


def test_a_stamp_of_the_operator_is_no_change_of_labels() -> None:
    spec = seen(EMPTY, "web", 0 * SECOND)
    assert books.remember_labels(spec, deployment(labels={"nightorders.dev/execution": "no-1"}), NOW + HOUR) is spec


def test_a_change_keeps_what_was_before_and_when() -> None:
    (record,) = seen(seen(EMPTY, "db", 0 * SECOND), "web", HOUR).workloads
    assert (record.labels["tier"], record.previous_labels["tier"], record.changed_at) == ("web", "db", NOW + HOUR)


@pytest.mark.parametrize(("later", "before"), [(59 * MINUTE, "db"), (60 * MINUTE, "web")])
def test_changes_in_a_row_keep_what_was_before_the_first(later: timedelta, before: str) -> None:
    (record,) = seen(seen(seen(EMPTY, "db", 0 * SECOND), "web", HOUR), "x", HOUR + later).workloads
    assert (record.previous_labels["tier"], record.changed_at) == (before, NOW + HOUR + later)


def test_workloads_and_labels_are_bounded() -> None:
    spec = EMPTY
    for n in range(books.KEEP_WORKLOADS + 2):
        spec = books.remember_labels(spec, changed(deployment(), ("metadata", "uid"), f"u{n}"), NOW)
    assert len(spec.workloads) == books.KEEP_WORKLOADS
    wide = deployment(labels={f"l{n:03}": "x" for n in range(100)})
    (record,) = books.remember_labels(EMPTY, wide, NOW).workloads
    assert len(record.labels) == 64
    assert books.remember_labels(LedgerSpec(workloads=(record,)), wide, NOW + HOUR).workloads == (record,)


def test_what_was_broken_before_is_listed_and_bounded() -> None:
    broken = tuple(Preexisting(uid=f"u{n}", workload="Deployment/x", revision_uid="r", reason="ImagePull", at=NOW) for n in range(600))
    assert len(books.remember_broken(EMPTY, broken).preexisting) == 512


# ---------------------------------------------------------------- notes, and what must be missed one day


def test_a_rejection_is_noted_once_a_plan_and_person() -> None:
    once = books.note(EMPTY, rejection("bob"))
    assert books.note(once, rejection("bob", NOW)) == once
    assert len(books.note(books.note(once, rejection("carol")), rejection("bob", plan="sha256:" + "1" * 64)).rejections) == 3


def test_rejections_and_scores_are_bounded_and_the_oldest_go() -> None:
    spec = EMPTY
    for n in range(200):
        spec = books.note(spec, rejection(f"user{n}"))
    assert (len(spec.rejections), spec.rejections[-1].by) == (128, "user199")
    LedgerSpec.model_validate(spec.model_dump())


def test_namespaces_and_cluster_orders_are_remembered_for_good() -> None:
    spec = books.remember_namespace(books.remember_namespace(EMPTY, "shop"), "billing")
    assert spec.namespaces == ("billing", "shop")
    assert books.remember_namespace(spec, "shop") is spec
    known = books.remember_cluster_orders(spec)
    assert known.cluster_policies
    assert books.remember_cluster_orders(known) is known
    full = LedgerSpec(namespaces=tuple(f"n{i}" for i in range(4096)))
    assert books.remember_namespace(full, "one-more") is full


# ---------------------------------------------------------------- what counts as a success

SIGNAL, CI = incident().spec.signal, "system:serviceaccount:shop:ci"
METRIC = CheckSpec(name="errors", promql="x", max="1")


def confirmed(
    by: str = "operator", approved: tuple[str, ...] = (), result: str = "Recovered", passed: tuple[str, ...] = (), **asked: Any
) -> str:
    p = plan()
    p = p.model_copy(
        update={"verify": p.verify.model_copy(update={"checks": (METRIC, CheckSpec(name="available", condition="Available"))})}
    )
    v = verifying(measurements=tuple(sample(n, "Pass" if n in passed else "Fail") for n in ("symptom", "available", "errors")))
    made = incident(staged_status(Level.L3, p, verification=v), **asked)
    return books.confirmed(made, execution("Ended", p, by=by, approved_by=approved, result=result))


BY_HAND = {"signal": None, "requestedBy": "alice"}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({}, "No"),  # alone, and only the symptom is gone
        ({"passed": ("symptom", "available")}, "No"),  # a condition is no independent signal
        ({"passed": ("errors",)}, "Signal"),
        ({"approved": ("alice",)}, "Human"),
        ({"by": "human"}, "Human"),
        ({"approved": (CI,)}, "No"),  # a ServiceAccount is no human
        ({"approved": (CI,), "passed": ("errors",)}, "Signal"),
        # opened by hand: somebody else must have agreed
        (BY_HAND, "No"),
        ({**BY_HAND, "passed": ("errors",)}, "No"),
        ({**BY_HAND, "approved": ("alice",)}, "No"),
        ({**BY_HAND, "approved": ("alice", "bob")}, "Human"),
        ({**BY_HAND, "by": "human"}, "No"),
        ({"signal": None, "approved": ("bob",)}, "No"),  # nobody knows who asked
        # what did not help is none
        ({"approved": ("alice",), "result": "Undone"}, "No"),
        ({"by": "human", "result": "Escalated"}, "No"),
    ],
)  # fmt: skip
def test_only_a_human_or_an_independent_signal_confirms_a_success(case: dict[str, Any], expected: str) -> None:
    assert confirmed(**case) == expected
    assert SIGNAL is not None
