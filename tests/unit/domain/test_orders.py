"""Exactly one rule governs a workload and an action type, or none does."""

from __future__ import annotations

from typing import Any

import pytest

from nightorders.api.meta import Level
from nightorders.domain.orders import Governing, Orders, Ungoverned, governing_rule
from nightorders.domain.reasons import Reason
from tests.unit.domain.make import ROLLBACK, cluster_policy, orders, policy, rule_json

LABELS = {"app": "checkout", "tier": "web"}


def ask(found: Orders, labels: dict[str, str] | None = None) -> Governing | Ungoverned:
    return governing_rule(found, LABELS if labels is None else labels, ROLLBACK)


def test_the_one_rule_that_matches_governs() -> None:
    answer = ask(orders(policy("db", labels={"tier": "db"}), policy("web", rule_json("r1", "L3"), labels={"tier": "web"})))
    assert isinstance(answer, Governing)
    assert (answer.title, answer.rule.level) == ("RemediationPolicy/web rule r1", Level.L3)


def test_no_policy_is_no_policy() -> None:
    answer = ask(Orders())
    assert isinstance(answer, Ungoverned)
    assert answer.reason is Reason.NO_POLICY


@pytest.mark.promise(6)
@pytest.mark.parametrize(
    "found",
    [
        orders(policy("a"), policy("b")),
        orders(policy("a", rule_json("r1"), rule_json("r2"))),
        orders(policy("a", rule_json("r1", "L1")), policy("b", rule_json("r1", "L4"), labels={"tier": "web"})),
    ],
    ids=["two policies", "two rules of one policy", "a narrow one beside a wide one"],
)
def test_two_rules_are_ambiguous_and_govern_nothing(found: Orders) -> None:
    answer = ask(found)
    assert isinstance(answer, Ungoverned)
    assert answer.reason is Reason.AMBIGUOUS
    assert " and " in answer.message


def test_the_message_names_both_rules() -> None:
    answer = ask(orders(policy("a"), policy("b")))
    assert isinstance(answer, Ungoverned)
    assert "RemediationPolicy/a rule rollback" in answer.message
    assert "RemediationPolicy/b rule rollback" in answer.message


@pytest.mark.threat(8)
@pytest.mark.promise(4)
def test_an_unreadable_policy_may_govern_anything_here() -> None:
    answer = ask(orders(unreadable=("RemediationPolicy/new: spec.earn: extra",)))
    assert isinstance(answer, Ungoverned)
    assert answer.reason is Reason.POLICY_UNREADABLE
    assert "RemediationPolicy/new: spec.earn" in answer.message


@pytest.mark.parametrize(
    ("selector", "governs"),
    [
        ({}, True),
        ({"matchLabels": {"tier": "web"}}, True),
        ({"matchLabels": {"tier": "web", "app": "cart"}}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["web", "db"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": []}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}, True),
    ],
)
def test_the_selector_of_the_rule_narrows(selector: dict[str, Any], governs: bool) -> None:
    assert isinstance(ask(orders(policy("web", rule_json(selector=selector)))), Governing) is governs


@pytest.mark.parametrize(("namespaces", "governs"), [([], True), (["shop"], True), (["a", "shop"], True), (["shop-2"], False)])
def test_cluster_policies_govern_by_name_of_the_namespace(namespaces: list[str], governs: bool) -> None:
    found = orders(cluster=(cluster_policy(namespaces=namespaces),))
    assert bool(list(found.over("shop"))) is governs
