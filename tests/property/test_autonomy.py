"""The level is a minimum: raising anything anywhere never removes what somebody else said; no text raises it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nightorders.api.meta import MAX_LEVEL_ANNOTATION, Level
from nightorders.api.v1alpha1 import IncidentStatus
from nightorders.api.v1alpha1.incident import Speaker
from nightorders.domain import gates
from nightorders.domain.autonomy import Voices, effective, ordered
from nightorders.domain.orders import Governing, Orders, governing_rule
from nightorders.domain.snapshot import KubeObject
from tests.unit.domain.make import (
    ARGO,
    NAMESPACE,
    NOW,
    ROLLBACK,
    autonomy,
    ceiling,
    deployment,
    hypothesis,
    incident,
    ledger,
    orders,
    plan,
    policy,
    question,
    rule_json,
    voices,
)

pytestmark = pytest.mark.promise(6)

LEVEL = st.sampled_from(list(Level))
MAYBE = st.none() | LEVEL
POLICIES = {level: policy("web", rule_json(level=level.value)) for level in Level}
CEILINGS = {(level, name): ceiling(level.value, name) for level in Level for name in "ab"}
PLANS = {level: plan(staged_level=level) for level in Level}
TEXT = st.sampled_from(["L1", "L2", "L3", "L4", "L5", "l4", "", " L4", "L4\n", "yes", "L4|L1", "Level.L4", "４", "L\u20284"]) | st.text(
    max_size=12
)
FEW = settings(max_examples=150, deadline=None)


@st.composite
def inputs(draw: Any) -> dict[str, Any]:
    return {
        "rule": draw(LEVEL),
        "a": draw(MAYBE),
        "b": draw(MAYBE),
        "object": draw(st.none() | TEXT),
        "namespace": draw(st.none() | TEXT),
        "grade": draw(st.sampled_from("AABCD")),
        "ledger": draw(st.booleans()),
        "detected": draw(MAYBE),
        "staged": draw(MAYBE),
        "cap": draw(MAYBE),
        "guard": draw(st.booleans()),
        "schemas": draw(st.booleans()),
        "unknown": draw(st.booleans()),
        "unreadable": draw(st.booleans()),
    }


def noted(value: str | None) -> dict[str, str]:
    return {} if value is None else {MAX_LEVEL_ANNOTATION: value}


def made(x: dict[str, Any]) -> Voices:
    return voices(
        orders=Orders(
            policies=(POLICIES[x["rule"]],),
            cluster=tuple(CEILINGS[(x[n], n)] for n in "ab" if x[n] is not None),
            unreadable=("x",) if x["unreadable"] else (),
        ),
        target=deployment(notes=noted(x["object"])),
        namespace_object=KubeObject({"metadata": {"name": NAMESPACE, "annotations": noted(x["namespace"])}}, "Namespace", "v1"),
        hypothesis=hypothesis(x["grade"]),
        ledger=ledger() if x["ledger"] else None,
        incident=incident(IncidentStatus(autonomy=autonomy(detected=x["detected"]) if x["detected"] else None)),
        plan=PLANS[x["staged"]] if x["staged"] else None,
        caps=(Speaker(who="preflight", level=x["cap"]),) if x["cap"] else (),
        guard_proven=x["guard"],
        schemas_current=x["schemas"],
        unknown=("something",) if x["unknown"] else (),
    )


RAISED: dict[str, Any] = {
    "rule": Level.L4, "a": None, "b": None, "object": "L4", "namespace": None, "grade": "A", "ledger": True, "detected": Level.L4, "staged": None,
    "cap": None, "guard": True, "schemas": True, "unknown": False, "unreadable": False,
}  # fmt: skip
BY = {
    "rule": "RemediationPolicy/", "a": "ClusterRemediationPolicy/ceiling-a", "b": "ClusterRemediationPolicy/ceiling-b",
    "object": "of Deployment/checkout", "namespace": "of Namespace/", "grade": "trust", "ledger": "ledger", "detected": "level at detection",
    "staged": "level at staging", "cap": "preflight", "guard": "approval guard", "schemas": "custom resource schemas", "unknown": "cannot tell",
    "unreadable": "policies of this namespace",
}  # fmt: skip


@FEW
@given(inputs(), st.sampled_from(sorted(RAISED)))
def test_raising_one_thing_removes_nothing_that_anybody_else_said(x: dict[str, Any], what: str) -> None:
    before = effective(made(x), NOW)
    after = effective(made({**x, what: RAISED[what]}), NOW)
    others = [s for s in before.decided_by if BY[what] not in s.who]
    said = {(s.who, s.level) for s in after.decided_by}
    assert {(s.who, s.level) for s in others} <= said
    assert all(after.level <= s.level for s in others)


@FEW
@given(inputs())
def test_the_level_is_never_above_any_speaker_and_always_somebodys(x: dict[str, Any]) -> None:
    answer = effective(made(x), NOW)
    assert answer.level == min(s.level for s in answer.decided_by)
    assert answer.decided_by[0].level == answer.level
    assert answer.level <= x["rule"]


@FEW
@given(inputs(), TEXT, TEXT)
def test_no_annotation_ever_raises(x: dict[str, Any], on_object: str, on_namespace: str) -> None:
    without = {**x, "object": None, "namespace": None}
    written = {**x, "object": on_object, "namespace": on_namespace}
    assert effective(made(written), NOW).level <= effective(made(without), NOW).level
    assert ordered(made(written), NOW) <= ordered(made(without), NOW)


@pytest.mark.threat(8)
@FEW
@given(TEXT)
def test_a_text_that_is_no_level_is_read_only(value: str) -> None:
    expected = Level(value) if value in list(Level) else Level.L1
    assert effective(voices(target=deployment(notes=noted(value))), NOW).level == expected


# ---------------------------------------------------------------- labels, policies

LABELS = st.dictionaries(st.sampled_from(["tier", "app", "x"]), st.sampled_from(["web", "db", "L4", "", "${x}"]), max_size=3)
SOME = st.lists(st.tuples(LEVEL, st.dictionaries(st.sampled_from(["tier", "app"]), st.sampled_from(["web", "db"]), max_size=2)), max_size=3)


def rule_level(found: Orders, labels: dict[str, str]) -> Level:
    answer = governing_rule(found, labels, ROLLBACK)
    return answer.rule.level if isinstance(answer, Governing) else Level.L1


@FEW
@given(SOME, LABELS, LEVEL, st.dictionaries(st.sampled_from(["tier", "app"]), st.sampled_from(["web", "db"]), max_size=1))
def test_adding_a_policy_never_raises_what_another_governs(
    some: Any, labels: dict[str, str], level: Level, selector: dict[str, str]
) -> None:
    present = tuple(policy(f"p{i}", rule_json(level=x.value), labels=s) for i, (x, s) in enumerate(some))
    before = Orders(policies=present)
    after = Orders(policies=(*present, policy("new", rule_json(level=level.value), labels=selector)))
    if isinstance(governing_rule(before, labels, ROLLBACK), Governing):
        assert rule_level(after, labels) <= rule_level(before, labels)
    assert rule_level(Orders(policies=present, unreadable=("x",)), labels) == Level.L1


@pytest.mark.promise(3)
@FEW
@given(
    st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=12), max_size=4),
    st.dictionaries(st.text(min_size=1, max_size=8), TEXT, max_size=4),
)
def test_foreign_labels_and_annotations_never_raise(labels: dict[str, str], notes: dict[str, str]) -> None:
    strict = orders(policy("strict", rule_json(level="L2")))
    plain = effective(voices(orders=strict), NOW).level
    assert effective(voices(orders=strict, target=deployment(labels=labels, notes=notes)), NOW).level <= plain


@FEW
@given(inputs(), st.sampled_from(sorted(RAISED)))
def test_raising_a_level_never_opens_a_gate_that_another_reason_closed(x: dict[str, Any], what: str) -> None:
    """Promise 6 for the gates: what refuses at one level for a reason of its own refuses at every higher level too."""
    closed: dict[str, Any] = {"stop": gates.Stop(where=NAMESPACE)}
    low = effective(made(x), NOW).level
    high = max(low, effective(made({**x, what: RAISED[what]}), NOW).level)
    for fields in (closed, {"owner": ARGO}, {"risk": gates.Risk(99, 99, question().risk.preflight)}):
        before = {r.gate for r in gates.judge(question(level=low, **fields), NOW)[0] if not r.allowed} - {"action"}
        after = {r.gate for r in gates.judge(question(level=high, **fields), NOW)[0] if not r.allowed}
        assert before <= after
        if not gates.judge(question(level=low, **fields), NOW)[1].allowed and low > Level.L1:
            assert not gates.judge(question(level=high, **fields), NOW)[1].allowed


@pytest.mark.promise(4)
def test_what_is_missing_lowers_and_never_raises() -> None:
    full = voices()
    for poorer in (
        replace(full, ledger=None),
        replace(full, hypothesis=None),
        replace(full, unknown=("x",)),
        replace(full, orders=Orders()),
        replace(full, guard_proven=False),
        replace(full, schemas_current=False),
    ):
        assert effective(poorer, NOW).level < effective(full, NOW).level
