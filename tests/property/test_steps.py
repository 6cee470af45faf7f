"""next_step over Situations of every kind: total, and never an effect where a promise forbids it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nightorders.api.meta import APPROVE_PREFIX, Level
from nightorders.api.v1alpha1.incident import Approval, Speaker
from nightorders.domain import approval, autonomy, gates, judgement, scores, steps
from nightorders.domain.gates import Stop
from nightorders.domain.situation import Proof
from nightorders.domain.snapshot import NotLooked
from nightorders.domain.steps import before, within
from tests.unit.domain.generate import Case, cases, check, corpus, the_proposal
from tests.unit.domain.make import FLUX, MINUTE, NOW

# Closed a second time elsewhere: no rule and L1 by the level, no origin by the diagnosis, the target by the plan's content.
REDUNDANT = {"freeze", "policy", "protected", "action", "confidence", "category", "target", "blast-radius", "rate", "preflight"}
FEW = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.promise(1, 4)
@FEW
@given(cases())
def test_every_situation_has_a_step_and_it_keeps_the_promises(c: Case) -> None:
    step = steps.next_step(c.s, NOW)
    assert isinstance(step, steps.Step)
    check(c, step)


@pytest.mark.promise(4)
@settings(FEW, max_examples=150)
@given(cases(), st.sampled_from(["stop", "stop unknown", "suspend", "guard", "schemas", "unknown", "target", "orders", "owner"]))
def test_taking_anything_away_never_leads_to_an_effect_on_a_target(c: Case, what: str) -> None:
    s = c.s
    worse = {
        "stop": lambda: replace(s, stop=Stop(where="shop")),
        "stop unknown": lambda: replace(s, stop=Stop(unknown="time-out")),
        "suspend": lambda: replace(
            s, incident=s.incident.model_copy(update={"spec": s.incident.spec.model_copy(update={"suspend": True})})
        ),
        "guard": lambda: replace(s, guard=Proof(False, "narrowed")),
        "schemas": lambda: replace(s, schemas=Proof(False, "old")),
        "unknown": lambda: replace(s, unknown=("policies: time-out",)),
        "target": lambda: replace(s, target=NotLooked("Deployment/checkout", "failed")),
        "orders": lambda: replace(s, orders=replace(s.orders, unreadable=("x",))),
        "owner": lambda: replace(s, owner=FLUX),
    }[what]()
    assert not isinstance(steps.next_step(worse, NOW), (steps.Apply, steps.Reserve))


@settings(FEW, max_examples=100)
@given(cases(), st.integers(-3600, 3600))
def test_a_clock_that_is_wrong_breaks_nothing(c: Case, seconds: int) -> None:
    assert isinstance(steps.next_step(c.s, NOW + timedelta(seconds=seconds)), steps.Step)


@settings(FEW, max_examples=150)
@given(cases())
def test_what_was_saved_is_not_saved_again(c: Case) -> None:
    """Two passes without news end in Idle, or in something that moves on: no endless writing."""
    s = c.s
    for _ in range(4):
        step = steps.next_step(s, NOW)
        if not isinstance(step, steps.Save):
            return
        s = replace(s, incident=s.incident.model_copy(update={"status": step.status}), samples=())
    pytest.fail("saves something new in each of four passes over the same facts")


# ---------------------------------------------------------------- seeded bugs: the oracle above must see each of them


@lru_cache
def known_cases() -> tuple[Case, ...]:
    return tuple(corpus(4000, seed=7))


def caught() -> str:
    """What the oracle objects to in some Situation, or nothing."""
    for c in known_cases():
        try:
            check(c, steps.next_step(c.s, NOW))
        except AssertionError as objection:
            return str(objection) or "assertion"
    return ""


def test_the_oracle_has_something_to_judge_and_is_content_with_the_code_as_it_is() -> None:
    assert not caught()
    taken = Counter(type(steps.next_step(c.s, NOW)).__name__ for c in known_cases())
    assert all(taken[kind] >= 10 for kind in ("Idle", "Save", "Stage", "Reserve", "Apply", "Undo", "Settle", "ReleaseFinalizer")), taken


@pytest.mark.promise(6)
@pytest.mark.parametrize("name", [speaker.__name__ for speaker in autonomy.SPEAKERS])
def test_a_speaker_that_falls_silent_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loud = Speaker(who="everything else", level=Level.L4)
    others = tuple(s for s in autonomy.SPEAKERS if s is not getattr(autonomy, name))
    monkeypatch.setattr(autonomy, "SPEAKERS", (*others, lambda v, now: iter([loud])))
    assert caught()


# Too small to decide anything alone, or closed by a gate as well; tests/unit/domain/test_scores.py has every one of them.
SMALL = {"known", "coverage", "provenance", "blast_radius", "ownership", "neighbours"}


@pytest.mark.promise(6)
@pytest.mark.parametrize("name", [part.__name__ for part in (*scores.TRUST, *scores.RISK) if part.__name__ not in SMALL])
def test_a_doubt_or_a_stake_that_is_not_counted_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for which in ("TRUST", "RISK"):
        monkeypatch.setattr(scores, which, tuple(part for part in getattr(scores, which) if part.__name__ != name))
    assert caught()


@pytest.mark.promise(6)
def test_the_highest_speaker_instead_of_the_lowest_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = autonomy.effective

    def highest(v: autonomy.Voices, now: Any) -> Any:
        answer = real(v, now)
        return answer.model_copy(update={"level": max(s.level for s in answer.decided_by)})

    monkeypatch.setattr(autonomy, "effective", highest)
    assert caught()


@pytest.mark.promise(1)
def test_an_approval_of_any_digest_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def lax(notes: Any, plan: Any, before: Any, now: Any) -> Any:
        users = {approval.claim(v)[1] for k, v in notes.items() if k.startswith(APPROVE_PREFIX)} - {""}
        return tuple(Approval(user=u, key="k", digest=plan.digest, at=now) for u in sorted(users))

    monkeypatch.setattr(approval, "seen", lax)
    assert caught()


@pytest.mark.promise(1)
@pytest.mark.parametrize("name", [g.name for g in gates.CHAIN if g.name not in REDUNDANT])
def test_a_gate_that_stands_open_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        gates, "CHAIN", tuple(g if g.name != name else replace(g, judge=lambda q, now: gates.passed("open")) for g in gates.CHAIN)
    )
    assert caught()


@pytest.mark.promise(1)
def test_a_last_look_that_sees_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(within, "_last_look", lambda *a: None)
    assert caught()


@pytest.mark.promise(1)
@pytest.mark.parametrize("gate", ["stopped", "owner"])
def test_a_last_look_that_forgets_one_thing_is_noticed(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, gate, lambda q, now: gates.passed("open"))
    assert caught()


@pytest.mark.promise(1)
def test_a_target_that_is_not_compared_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    sha = the_proposal().before_sha256
    monkeypatch.setattr(judgement, "spec_sha256", lambda spec, scaled: sha)
    monkeypatch.setattr(within, "digest_for", lambda plan, target: plan.target.before_sha256)
    assert caught()


@pytest.mark.threat(2)
@pytest.mark.promise(1)
def test_a_guard_that_is_believed_unproven_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = judgement.voices
    for module in (judgement, within, before):
        monkeypatch.setattr(module, "voices", lambda *a, **k: replace(real(*a, **k), guard_proven=True))
    assert caught()


@pytest.mark.promise(1)
def test_an_expired_approval_that_counts_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approval, "timedelta", lambda seconds: timedelta(days=1))
    assert caught()


@pytest.mark.threat(5)
@pytest.mark.promise(1)
def test_the_operator_counting_itself_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approval, "judge", everyone_counts)
    assert caught()


def everyone_counts(notes: Any, plan: Any, approvals: Any, spec: Any, *_: Any) -> Any:
    users = tuple(sorted({a.user for a in approvals if a.digest == plan.digest and NOW - a.at < 15 * MINUTE}))
    return approval.Approved(users) if len(users) >= spec.count else approval.Waiting(1, spec.count, users)
