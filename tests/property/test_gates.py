"""The chain of gates: a pass is a pass of every gate, and less room never opens one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightorders.api.meta import Level
from nightorders.domain import gates
from nightorders.domain.orders import Governing
from tests.unit.domain.make import (
    FLUX,
    MINUTE,
    NOW,
    STILL,
    cluster_policy,
    hypothesis,
    ledger,
    orders,
    outcome,
    policy,
    question,
    reservation,
    rule_json,
)

FEW = settings(max_examples=150, deadline=None)
AGES = st.lists(st.integers(0, 90), max_size=6)


@st.composite
def questions(draw: Any) -> gates.Question:
    limits = {
        "maxPods": draw(st.integers(0, 4)),
        "maxPercent": draw(st.integers(0, 100)),
        "perHour": draw(st.integers(1, 4)),
        "cooldown": f"{draw(st.integers(0, 40))}m",
    }
    fleet = cluster_policy(fleet={"maxConcurrent": draw(st.integers(0, 3)), "perHour": draw(st.integers(0, 5))})
    past = tuple(
        outcome(f"no-{i}", workload=draw(st.sampled_from(["Deployment/checkout", "Deployment/a"])), at=NOW - m * MINUTE)
        for i, m in enumerate(draw(AGES))
    )
    held = tuple(
        reservation(f"no-r{i}", workload=draw(st.sampled_from(["Deployment/checkout", "Deployment/a"])))
        for i in range(draw(st.integers(0, 2)))
    )
    rolling = replace(
        STILL,
        under_way=draw(st.booleans()),
        own_change=draw(st.booleans()),
        past_deadline=draw(st.booleans()),
        terminal_since=NOW - draw(st.integers(0, 20)) * MINUTE,
    )
    return question(
        level=draw(st.sampled_from(list(Level))),
        orders=orders(policy("web", rule_json(limits=limits)), cluster=(fleet,)),
        ledger=ledger(outcomes=past, reservations=held),
        fleet=ledger("fleet", outcomes=past, reservations=held),
        risk=gates.Risk(draw(st.integers(0, 5)), draw(st.integers(0, 5)), question().risk.preflight),
        rollout=rolling,
        hypothesis=draw(st.sampled_from([None, hypothesis("A"), hypothesis("D")])),
        owner=draw(st.sampled_from([None, None, FLUX])),
        stop=draw(st.sampled_from([gates.Stop(), gates.Stop(), gates.Stop(where="shop"), gates.Stop(unknown="x")])),
    )


@FEW
@given(questions())
def test_the_verdict_follows_from_the_gates_alone(q: gates.Question) -> None:
    results, verdict = gates.judge(q, NOW)
    counting = {g.name for g in gates.CHAIN if g.advice or q.level > Level.L2}
    refusals = [r for r in results if not r.allowed and r.gate in counting]
    assert verdict.allowed is not bool(refusals)
    if refusals:
        assert verdict.reason.value == refusals[0].reason
    assert all(r.message for r in results)


def tighter(q: gates.Question, what: str) -> gates.Question:
    assert isinstance(q.governing, Governing)
    limits = q.governing.rule.limits
    less = {
        "max_pods": {"max_pods": max(0, limits.max_pods - 1)},
        "max_percent": {"max_percent": max(0, limits.max_percent - 10)},
        "per_hour": {"per_hour": max(1, limits.per_hour - 1)},
        "cooldown": {"cooldown": "24h"},
    }[what]
    rule = q.governing.rule.model_copy(update={"limits": limits.model_copy(update=less)})
    return replace(q, governing=replace(q.governing, rule=rule))


@pytest.mark.promise(6)
@FEW
@given(questions(), st.sampled_from(["max_pods", "max_percent", "per_hour", "cooldown"]))
def test_a_tighter_limit_never_opens_a_gate(q: gates.Question, what: str) -> None:
    before = {r.gate for r in gates.judge(q, NOW)[0] if not r.allowed}
    assert before <= {r.gate for r in gates.judge(tighter(q, what), NOW)[0] if not r.allowed}


@FEW
@given(questions())
def test_a_refusal_that_names_a_time_is_over_then_and_not_before(q: gates.Question) -> None:
    for gate in gates.CHAIN:
        verdict = gate.judge(q, NOW)
        if verdict.allowed or verdict.retry_at is None or gate.name == "budget":
            continue
        assert verdict.retry_at > NOW
        assert not gate.judge(q, verdict.retry_at - timedelta(seconds=1)).allowed
        assert gate.judge(q, verdict.retry_at).allowed
