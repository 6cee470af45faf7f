"""What every kind shares: safe text, durations, levels, conditions, selectors, strict models."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nightorders.api.meta import Condition, LabelSelector, Level, find_condition, line, parse_duration, set_condition, text
from nightorders.api.v1alpha1 import ClusterRemediationPolicy, Incident, IncidentStatus, Ledger, RemediationPolicy
from nightorders.api.v1alpha1.incident import Fact

NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("plain words", "plain words"),
        ("two\nlines\r\nthree", "two lines three"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("a\u202egnp.exe", "a gnp.exe"),
        ("zero\x00byte", "zero byte"),
        ("  \t padded \n", "padded"),
        ("\u2028\u2029x\u2066y", "x y"),
        ("ünïcode 🙂", "ünïcode 🙂"),
        ("\ud800 lone", "? lone"),
        ("", ""),
    ],
)
def test_a_line_is_one_line_and_safe_to_print(raw: str, safe: str) -> None:
    assert line(raw) == safe


@pytest.mark.parametrize(("limit", "length"), [(10, 10), (1, 1), (100, 20)])
def test_a_long_line_is_cut_visibly(limit: int, length: int) -> None:
    made = line("x" * 20, limit)
    assert len(made) == length
    assert made.endswith("…") is (limit < 20)


def test_a_long_text_is_cut_visibly() -> None:
    made = text("x\n" * 9000)
    assert len(made) <= 8192
    assert made.endswith("[cut here]")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.integers(2, 40))
def test_whatever_was_made_safe_is_accepted_by_the_schema(raw: str, limit: int) -> None:
    made = Fact(text=line(raw, limit), evidence=())
    assert len(made.text) <= limit
    assert line(made.text, limit) == made.text


@pytest.mark.parametrize("raw", ["a\nb", "a\tb", "a\x1bb", "a\u202eb", "\x7f", "x" * 1025])
def test_the_schema_refuses_what_was_not_made_safe(raw: str) -> None:
    with pytest.raises(ValidationError):
        Fact(text=raw, evidence=())


# ---------------------------------------------------------------- durations, levels


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("15m", 900), ("1500ms", 1.5), ("0s", 0), ("336h", 336 * 3600), ("1h1m1s1ms", 3661.001), ("1s1s", 2)],
)
def test_durations_are_gateway_apis(value: str, seconds: float) -> None:
    assert parse_duration(value) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "14d", "1", "s", "-1s", "1.5h", " 1s", "1s ", "1s\n", "1S", "100000s", "1h1m1s1ms1s", "١s"])
def test_anything_else_is_no_duration(value: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(value)


def test_levels_are_ordered() -> None:
    assert Level.L1 < Level.L2 < Level.L3 < Level.L4
    assert min(Level.L4, Level.L2, Level.L3) is Level.L2
    assert max(Level.L1, Level.L3) is Level.L3


# ---------------------------------------------------------------- conditions, selectors


def made(kind: str, status: str, at: datetime = NOW, reason: str = "Looked") -> Condition:
    return Condition(type=kind, status=status, reason=reason, last_transition_time=at)  # type: ignore[arg-type]


def test_a_condition_keeps_its_time_until_it_flips() -> None:
    first = set_condition((), made("Approved", "False"))
    later = NOW + timedelta(hours=1)
    same = set_condition(first, made("Approved", "False", later, "Waiting"))
    assert [(c.reason, c.last_transition_time) for c in same] == [("Waiting", NOW)]
    assert set_condition(same, made("Approved", "True", later))[0].last_transition_time == later


def test_conditions_keep_their_order_and_each_type_stands_once() -> None:
    conditions = set_condition(set_condition((made("A", "True"), made("B", "True")), made("A", "False")), made("C", "True"))
    assert [c.type for c in conditions] == ["A", "B", "C"]
    assert find_condition(conditions, "A") == conditions[0]
    assert find_condition(conditions, "X") is None


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ({}, {}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchLabels": {"a": ""}}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "DoesNotExist"}]}, {"a": ""}, True),
        ({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}, {"a": "1"}, False),
    ],
)
def test_selectors_select_as_everywhere_in_kubernetes(selector: dict[str, Any], labels: dict[str, str], matches: bool) -> None:
    assert LabelSelector.model_validate(selector).matches(labels) is matches


# ---------------------------------------------------------------- models


RULE = {"name": "r", "types": ["RollbackWorkload"], "level": "L3"}


def policy(**rule: Any) -> RemediationPolicy:
    return RemediationPolicy.model_validate({"kind": "RemediationPolicy", "metadata": {"name": "p"}, "spec": {"rules": [{**RULE, **rule}]}})


@pytest.mark.parametrize(
    "rule",
    [
        {"earn": {"successes": 3}},
        {"earn": {"from": "L0"}},
        {"earn": {"from": "L2", "successes": 0}},
        {"earn": {"from": "L2", "until": "L4"}},
        {"gitOps": "PullRequest"},
        {"approval": {"emergency": "Maybe"}},
        {"errorBudget": {"min": "0.1"}},
        {"level": "L5"},
        {"level": 3},
        {"types": []},
        {"types": ["DeleteEverything"]},
        {"approval": {"count": 0}},
        {"approval": {"count": 6}},
        {"approval": {"expiresAfter": "1d"}},
        {"approval": {"whoever": True}},
        {"limits": {"maxPercent": 101}},
        {"limits": {"maxPods": -1}},
        {"limits": {"perHour": 0}},
        {"limits": {"duringRollout": "Maybe"}},
        {"verify": {"onWorse": "Ignore"}},
        {"verify": {"for": "forever"}},
        {"verify": {"checks": [{"name": "c", "promql": "x", "max": "ten"}]}},
        {"selector": {"matchFields": {}}},
    ],
)
def test_a_policy_that_this_version_does_not_fully_understand_is_refused(rule: dict[str, Any]) -> None:
    """It may carry a guardrail that would silently not be obeyed."""
    with pytest.raises(ValidationError):
        policy(**rule)


def test_a_rule_that_says_nothing_more_has_careful_defaults() -> None:
    rule = policy().spec.rules[0]
    assert (rule.approval.count, rule.limits.during_rollout, rule.verify.on_worse, rule.verify.on_no_data) == (
        1,
        "Deny",
        "Undo",
        "Escalate",
    )


@pytest.mark.parametrize(
    ("approval", "separated"),
    [
        ({}, False),
        ({"count": 2}, True),
        ({"count": 1, "separationOfDuties": True}, True),
        ({"count": 2, "separationOfDuties": False}, False),
    ],
)
def test_duties_are_separated_where_more_than_one_must_agree(approval: dict[str, Any], separated: bool) -> None:
    assert policy(approval=approval).spec.rules[0].approval.separated is separated


def test_unknown_fields_are_refused_at_the_top_too_and_metadata_is_only_read() -> None:
    with pytest.raises(ValidationError):
        Ledger.model_validate({"kind": "Ledger", "metadata": {}, "spec": {}, "extra": 1})
    found = ClusterRemediationPolicy.model_validate(
        {"kind": "ClusterRemediationPolicy", "metadata": {"name": "p", "managedFields": []}, "spec": {}}
    )
    assert found.metadata.name == "p"


def test_models_do_not_change() -> None:
    with pytest.raises(ValidationError):
        policy().spec.rules[0].level = Level.L4  # type: ignore[misc]


def test_times_go_out_in_utc_and_come_back_the_same() -> None:
    status = IncidentStatus(first_summary_at=NOW, diagnosed_at=NOW.replace(microsecond=5))
    wire = status.wire()
    assert (wire["firstSummaryAt"], wire["diagnosedAt"]) == ("2026-07-01T12:00:00.000000Z", "2026-07-01T12:00:00.000005Z")
    assert IncidentStatus.model_validate(wire) == status


def test_a_time_of_another_zone_is_the_same_moment() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=2)))
    wire = IncidentStatus(first_summary_at=there).wire()
    assert IncidentStatus.model_validate(wire).first_summary_at == NOW


def test_what_is_not_set_is_not_on_the_wire() -> None:
    raw = {"kind": "Incident", "metadata": {"name": "i"}, "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}}}
    wire = Incident.model_validate(raw).spec.wire()
    assert "requestedBy" not in wire
    assert "signal" not in wire


@pytest.mark.parametrize("name", ["", "UPPER", "a/b", "a b", "-a", "a-", "a" * 254, "a\n", "../x"])
def test_a_target_has_a_kubernetes_name(name: str) -> None:
    raw = {"kind": "Incident", "metadata": {}, "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}}}
    with pytest.raises(ValidationError):
        Incident.model_validate(raw)
