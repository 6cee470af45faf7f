"""What a runbook may say: it ranks within a bound, adds checks, informs and lowers. It never raises anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightorders.api.meta import Level
from nightorders.api.v1alpha1 import Category, Runbook
from nightorders.api.v1alpha1.incident import Evidence, Hypothesis
from nightorders.domain import autonomy, promql
from nightorders.domain import runbooks as rb
from nightorders.domain.diagnosis import Diagnosis, Finding
from nightorders.domain.digest import sha256
from nightorders.domain.escalation import Wait, words
from nightorders.domain.ledger import confirmed
from nightorders.domain.plan import content_sha256, rule_verify
from nightorders.domain.reasons import Reason
from nightorders.domain.record import SIZE_LIMIT, fit
from nightorders.domain.steps import Save, next_step
from tests.unit.domain.make import (
    MINUTE,
    NAMESPACE,
    NOW,
    SECOND,
    deployment,
    diagnosis,
    execution,
    governing,
    hypothesis,
    incident,
    plan,
    proposal,
    running_status,
    sample,
    situation,
    verifying,
    voices,
)

COMPLETE: dict[str, Any] = {
    "match": {"alerts": ["RolloutStuck"]},
    "symptoms": [{"name": "errors", "promql": 'sum(errors{service="$name"})', "min": "0.05"}],
    "action": "RollbackWorkload",
    "safeDuringRollout": "Allow",
    "approvers": "shop on-call",
    "verify": {"checks": [{"name": "errors", "promql": 'sum(errors{service="$name"})', "max": "0.01"}]},
    "neverAutomatic": False,
}
ACTIONS = ("RollbackWorkload",)


def runbook(name: str = "stuck", **spec: Any) -> Runbook:
    body = {k: v for k, v in {**COMPLETE, **spec}.items() if v is not None}
    return Runbook.model_validate({"kind": "Runbook", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": body})


def matched(*found: Runbook, hypotheses: tuple[Hypothesis, ...] = (), **fields: Any) -> tuple[rb.Matched, ...]:
    return rb.matching(found, incident(**fields), {"app": "checkout"}, hypotheses)


def consulted(*found: Runbook) -> rb.Consulted:
    return rb.Consulted(matched=tuple(rb.Matched(r, "alert RolloutStuck") for r in found))


def standing(category: Category, grade: str = "A", **fields: Any) -> Hypothesis:
    return hypothesis(grade, category=category, **{"supported_by": ("e1",), "object": f"Deployment/{category.lower()}", **fields})


IMAGE, PROBE, CONFIG = Category.IMAGE_ACCESS, Category.PROBE, Category.BAD_CONFIGURATION


# ---------------------------------------------------------------- matching


def test_every_part_that_is_written_must_fit() -> None:
    fits = {"alerts": ["Other", "RolloutStuck"], "categories": ["ImageAccess"], "selector": {"matchLabels": {"app": "checkout"}}}
    (one,) = matched(runbook(match=fits), hypotheses=(standing(IMAGE),))
    assert one.because == "alert RolloutStuck; category ImageAccess; labels of Deployment/checkout"
    for wrong in ({"alerts": ["Other"]}, {"categories": ["Quota"]}, {"selector": {"matchLabels": {"app": "cart"}}}):
        assert matched(runbook(match={**fits, **wrong}), hypotheses=(standing(IMAGE),)) == ()


def test_a_category_that_is_refuted_or_that_nothing_speaks_for_does_not_match() -> None:
    one = runbook(match={"categories": ["ImageAccess"]})
    assert matched(one, hypotheses=(standing(IMAGE, refuted="pods serve"),)) == ()
    assert matched(one, hypotheses=(standing(IMAGE, supported_by=()),)) == ()


def test_without_a_signal_no_alert_name_fits() -> None:
    assert matched(runbook(), signal=None) == ()


def test_one_about_everything_matches_so_that_it_lowers_and_never_ranks() -> None:
    (one,) = matched(runbook(match=None, hypothesis={"category": "Probe"}, neverAutomatic=True))
    assert not one.may_rank
    assert [s.level for s in rb.orders(rb.Consulted(matched=(one,)))] == [Level.L3]


# ---------------------------------------------------------------- symptoms


@pytest.mark.parametrize(
    ("bounds", "value", "state"),
    [
        ({"min": "0.05"}, 0.05, "Present"),
        ({"min": "0.05"}, 0.049, "Absent"),
        ({"max": "2"}, 2.0, "Present"),
        ({"max": "2"}, 2.1, "Absent"),
        ({"min": "1", "max": "2"}, 0.5, "Absent"),
        ({"min": "1"}, None, "NoData"),
    ],
)
def test_a_symptom_is_there_within_its_bounds(bounds: dict[str, str], value: float | None, state: str) -> None:
    (one,) = runbook(symptoms=[{"name": "x", "promql": "up", **bounds}]).spec.symptoms
    reading = rb.measured(one, value, "unreachable", NOW)
    assert reading.state == state
    assert (reading.message == "unreachable") == (value is None)


@pytest.mark.parametrize(
    ("wanted", "state"), [("Available", "Absent"), ("Available=False", "Present"), ("Available=Unknown", "Absent"), ("Ready", "NoData")]
)
def test_a_condition_may_be_asked_for_either_way(wanted: str, state: str) -> None:
    (one,) = runbook(symptoms=[{"name": "x", "condition": wanted}]).spec.symptoms
    target = deployment(status={"conditions": [{"type": "Available", "status": "False"}]})
    assert rb.observed(one, target, NOW).state == state
    assert rb.observed(one, None, NOW).state == "NoData"


def test_the_query_gets_the_targets_names_escaped() -> None:
    (one,) = runbook().spec.symptoms
    assert rb.query_of(one, {"name": 'a"b', "namespace": "shop", "kind": "Deployment"}) == r'sum(errors{service="a\"b"})'


# ---------------------------------------------------------------- ranking


def favouring(category: Category, *, state: str = "Present", name: str = "stuck", **spec: Any) -> rb.Matched:
    one = rb.Matched(runbook(name, hypothesis={"category": category.value}, **spec), "alert RolloutStuck")
    (symptom,) = one.runbook.spec.symptoms
    value = {"Present": 1.0, "Absent": 0.0, "NoData": None}[state]
    return replace(one, symptoms=(rb.measured(symptom, value, "", NOW),))


def order(d: Diagnosis) -> list[Category]:
    return [h.category for h in d.hypotheses]


@pytest.mark.threat(19)
def test_what_it_speaks_for_moves_one_place_up_and_says_so() -> None:
    d = diagnosis(standing(IMAGE), standing(CONFIG), standing(PROBE))
    after, said = rb.ranked(d, [favouring(PROBE), favouring(PROBE, name="again")])
    assert order(after) == [IMAGE, PROBE, CONFIG]
    assert said.otherwise is None
    after, said = rb.ranked(d, [favouring(CONFIG)])
    assert order(after) == [CONFIG, IMAGE, PROBE]
    assert said.otherwise == d.hypotheses[0]
    assert "Runbook/stuck put this first; without it: ImageAccess" in after.summary


@pytest.mark.threat(19)
@pytest.mark.parametrize(
    "below",
    [
        standing(PROBE, "B"),
        standing(PROBE, refuted="pods were ready with it"),
        standing(PROBE, supported_by=()),
        standing(PROBE, "D"),
    ],
    ids=["of a lesser grade", "refuted", "without evidence", "mere likeness"],
)
def test_it_lifts_nothing_that_the_evidence_does_not_carry(below: Hypothesis) -> None:
    d = diagnosis(standing(IMAGE), below)
    assert rb.ranked(d, [favouring(PROBE)])[0] == d


def test_it_never_passes_unknown_or_nofault() -> None:
    d = diagnosis(standing(Category.UNKNOWN, "D"), standing(PROBE), finding=Finding.UNKNOWN)
    assert rb.ranked(d, [favouring(PROBE)])[0] == d


def test_a_symptom_that_is_measured_absent_takes_it_out_of_the_ranking_and_no_data_does_not() -> None:
    d = diagnosis(standing(IMAGE), standing(PROBE))
    assert order(rb.ranked(d, [favouring(PROBE, state="Absent")])[0]) == [IMAGE, PROBE]
    assert order(rb.ranked(d, [favouring(PROBE, state="NoData")])[0]) == [PROBE, IMAGE]


GRADES = st.sampled_from("ABCD")
HYPOTHESES = st.lists(
    st.builds(
        lambda c, g, seen, no: standing(c, g, supported_by=("e1",) if seen else (), refuted="no" if no else ""),
        st.sampled_from(list(Category)),
        GRADES,
        st.booleans(),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda h: h.category,
)


@pytest.mark.threat(19)
@given(HYPOTHESES, st.lists(st.sampled_from(list(Category)), max_size=4))
def test_no_runbooks_move_anything_further_than_one_place_or_change_it(found: list[Hypothesis], spoken: list[Category]) -> None:
    d = diagnosis(*found)
    after, _ = rb.ranked(d, [favouring(c, name=f"r{i}") for i, c in enumerate(spoken)])
    assert sorted(after.hypotheses, key=repr) == sorted(d.hypotheses, key=repr)
    for place, h in enumerate(d.hypotheses):
        assert abs(after.hypotheses.index(h) - place) <= 1
        if h.refuted or h.category in rb.NEUTRAL:
            assert after.hypotheses.index(h) == place


# ---------------------------------------------------------------- the level


@pytest.mark.threat(19)
@pytest.mark.promise(6)
def test_the_level_that_acts_is_the_lower_of_with_and_without() -> None:
    """Put first by a runbook: L3 at most; and where the evidence alone calls the target a victim, as low as that."""
    assert autonomy.effective(voices(), NOW).level is Level.L4
    same_object = rb.Consulted(otherwise=standing(PROBE, object="Deployment/checkout"), otherwise_sources=("Kubernetes",))
    assert autonomy.effective(voices(runbooks=same_object), NOW).level is Level.L3
    elsewhere = rb.Consulted(otherwise=standing(PROBE, object="Deployment/database"), otherwise_sources=("Kubernetes",))
    found = autonomy.effective(voices(runbooks=elsewhere), NOW)
    assert found.level is Level.L1
    assert (found.decided_by[0].who, "without it Probe Deployment/database" in found.decided_by[0].because) == ("runbooks", True)


@pytest.mark.promise(6)
@pytest.mark.parametrize(
    ("spec", "under_way", "level"),
    [
        ({}, True, Level.L4),
        ({"neverAutomatic": True}, False, Level.L3),
        ({"safeDuringRollout": "Deny"}, True, Level.L2),
        ({"safeDuringRollout": "Deny"}, False, Level.L4),
        ({"action": "None"}, False, Level.L3),
        ({"action": "RestartEverything"}, False, Level.L3),
        ({"action": None}, False, Level.L4),
    ],
)
def test_what_a_runbook_lowers(spec: dict[str, Any], under_way: bool, level: Level) -> None:
    assert autonomy.effective(voices(runbooks=consulted(runbook(**spec)), rollout_under_way=under_way), NOW).level is level


@pytest.mark.promise(4)
def test_one_that_cannot_be_read_lowers_as_far_as_any_runbook_can() -> None:
    assert autonomy.effective(voices(runbooks=rb.Consulted(unreadable=("Runbook/new: spec.x",))), NOW).level is Level.L2


@pytest.mark.threat(8)
def test_never_automatic_is_an_order_so_deleting_the_runbook_releases_nothing_that_waits() -> None:
    held = voices(runbooks=consulted(runbook(neverAutomatic=True)))
    assert autonomy.ordered(held, NOW) is Level.L3
    assert autonomy.effective(held, NOW).detected_level is Level.L3


def test_what_lowers_is_obeyed_of_all_that_match_not_only_of_those_shown() -> None:
    many = [runbook(f"r{i:02}", verify=None) for i in range(rb.SHOWN)]
    found = consulted(*many, runbook("z", neverAutomatic=True, verify=None))
    assert "z" not in {m.name for m in found.shown}
    assert autonomy.effective(voices(runbooks=found), NOW).level is Level.L3


# ---------------------------------------------------------------- checks


def test_checks_are_added_under_the_runbooks_name_and_change_what_is_approved() -> None:
    more, left = rb.checks(consulted(runbook()).matched, {"namespace": NAMESPACE, "name": "checkout", "kind": "Deployment"}, ())
    assert [(c.name, c.promql, c.runbook) for c in more] == [("stuck.errors", 'sum(errors{service="checkout"})', "stuck")]
    assert left == ()
    rule, plain, added = governing().rule, proposal(), replace(proposal(), checks=more)
    assert rule_verify(added, rule, NAMESPACE).checks == (*rule_verify(plain, rule, NAMESPACE).checks, *more)
    digests = {content_sha256("uid", p, rule_verify(p, rule, NAMESPACE)) for p in (plain, added)}
    assert len(digests) == 2


def test_checks_that_do_not_fit_are_not_dropped_in_silence() -> None:
    four = {"checks": [{"name": f"c{i}", "condition": "Available"} for i in range(4)]}
    many = consulted(*(runbook(f"r{i}", verify=four) for i in range(5)))
    more, left = rb.checks(many.matched, {}, ())
    assert (len(more), left) == (16, ("r4",))
    assert autonomy.effective(voices(runbooks=rb.Consulted(left_out=left)), NOW).level is Level.L3


def test_long_names_stay_apart() -> None:
    taken: set[str] = set()
    for runbook_name in ("a" * 70 + "1", "a" * 70 + "2"):
        name = rb.check_name(runbook_name, "errors", taken)
        assert len(name) <= 63
        assert name not in taken
        taken.add(name)


def test_a_query_of_a_runbook_never_earns_trust() -> None:
    """Whoever writes a runbook could otherwise carry a rule up with `vector(1)`."""
    more, _ = rb.checks(consulted(runbook()).matched, {}, ())
    for checks, what in ((more, "No"), ((more[0].model_copy(update={"runbook": None}),), "Signal")):
        p = plan(Level.L4)
        p = p.model_copy(update={"verify": p.verify.model_copy(update={"checks": checks})})
        v = verifying().model_copy(update={"measurements": (sample("stuck.errors"),)})
        ended = execution("Ended", p, result="Recovered")
        assert confirmed(incident(running_status(p=p, verification=v)), ended) == what


# ---------------------------------------------------------------- what is shown


def test_the_status_keeps_the_first_moment_and_does_not_move_with_every_sample() -> None:
    one = favouring(IMAGE)
    (first,) = rb.shown(rb.Consulted(matched=(one,)), (), NOW)
    later = replace(one, symptoms=(one.symptoms[0].model_copy(update={"value": "1.1", "at": NOW + 5 * SECOND}),))
    assert rb.shown(rb.Consulted(matched=(later,)), (first,), NOW + 5 * SECOND) == (first,)
    old = replace(one, symptoms=(one.symptoms[0].model_copy(update={"value": "1.1", "at": NOW + MINUTE}),))
    (moved,) = rb.shown(rb.Consulted(matched=(old,)), (first,), NOW + MINUTE)
    assert (moved.at, moved.symptoms[0].value) == (NOW, "1.1")
    gone = replace(one, symptoms=(one.symptoms[0].model_copy(update={"state": "Absent", "at": NOW + SECOND}),))
    assert rb.shown(rb.Consulted(matched=(gone,)), (first,), NOW + SECOND)[0].symptoms[0].state == "Absent"


def test_a_pass_writes_what_matches_into_status_and_story_once() -> None:
    found = rb.Consulted(matched=(favouring(IMAGE),))
    step = next_step(situation(runbooks=found), NOW)
    status = step.status  # type: ignore[union-attr]
    assert [m.name for m in status.runbooks] == ["stuck"]
    lines = [t.what for t in status.timeline if t.what.startswith("Runbook/")]
    assert lines == ["Runbook/stuck matches: alert RolloutStuck; symptoms: errors Present (1)"]
    again = next_step(situation(status, runbooks=found), NOW + SECOND)
    kept = again.status if isinstance(again, Save) else status
    assert [t.what for t in kept.timeline if t.what.startswith("Runbook/")] == lines


def test_who_is_called_reads_whom_to_ask() -> None:
    entries = rb.shown(consulted(runbook(approvers="@channel shop on-call")), (), NOW)
    made = incident(running_status().model_copy(update={"runbooks": entries}))
    _, body = words(made, Wait(Reason.WAITING, "needs 1 more", NOW), NOW)
    assert "runbooks say to ask: (at)channel shop on-call" in body


# ---------------------------------------------------------------- problems


def fields(spec: dict[str, Any]) -> set[str]:
    return {p.where for p in rb.problems(runbook(**spec).spec, ACTIONS, NAMESPACE)}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"match": None}, "spec.match"),
        ({"symptoms": None}, "spec.symptoms"),
        ({"symptoms": [{"name": "x", "promql": "up"}]}, "spec.symptoms[0]"),
        ({"symptoms": [{"name": "x", "promql": "up ==", "min": "1"}]}, "spec.symptoms[0].promql"),
        ({"symptoms": [{"name": "x", "promql": 'up{namespace="other"}', "min": "1"}]}, "spec.symptoms[0].promql"),
        ({"verify": {"checks": [{"name": "x", "promql": 'up{namespace=~".*"}', "max": "1"}]}}, "spec.verify.checks[0].promql"),
        ({"hypothesis": {"category": "Unknown"}}, "spec.hypothesis.category"),
        ({"hypothesis": {"category": "NoFault"}}, "spec.hypothesis.category"),
        ({"action": None}, "spec.action"),
        ({"action": "Explode"}, "spec.action"),
        ({"safeDuringRollout": None}, "spec.safeDuringRollout"),
        ({"approvers": None}, "spec.approvers"),
        ({"approvers": " "}, "spec.approvers"),
        ({"verify": None}, "spec.verify.checks"),
        ({"neverAutomatic": None}, "spec.neverAutomatic"),
    ],
)
def test_each_open_question_is_named_with_its_field(spec: dict[str, Any], field: str) -> None:
    assert fields(spec) == {field}


def test_a_complete_one_leaves_nothing_open() -> None:
    assert fields({}) == set()
    assert fields({"action": "None"}) == set()


def test_series_are_those_that_the_queries_name() -> None:
    spec = runbook(symptoms=[{"name": "x", "promql": 'a{x="b"} / sum({__name__="c"}) + d ==', "min": "1"}]).spec
    assert rb.series_of(spec, NAMESPACE) == {"errors": ("verify", "checks", 0, "promql")}
    assert promql.series_names('a{x="b"} / sum({__name__="c"}) + {__name__=~"d.*"}') == ("a", "c")


@pytest.mark.threat(25)
def test_fat_runbooks_never_make_an_incident_too_large() -> None:
    """Eight runbooks with the longest texts, beside a long story: what is decided stays, their texts go first."""
    symptoms = [{"name": f"s{i}", "promql": f"up{i}", "min": "1"} for i in range(4)]
    long = {"hypothesis": {"category": "Probe", "statement": "x" * 1024}, "url": "https://x/" + "y" * 500, "approvers": "z" * 256}
    found = [rb.Matched(runbook(f"r{i}", symptoms=symptoms, **long), "b" * 1024) for i in range(rb.SHOWN)]
    asked = tuple(replace(m, symptoms=tuple(rb.measured(s, None, "m" * 2000, NOW) for s in m.runbook.spec.symptoms)) for m in found)
    entries = rb.shown(rb.Consulted(matched=asked), (), NOW)
    assert len("".join(e.model_dump_json(by_alias=True, exclude_none=True) for e in entries)) < 24 * 1024
    evidence = tuple(
        Evidence(id=f"e{i}", source="Logs", query="q" * 900, at=NOW, excerpt="x" * 1000, sha256=sha256("x")) for i in range(60)
    )
    status = fit(running_status().model_copy(update={"runbooks": entries, "evidence": evidence}))
    assert len(status.model_dump_json(by_alias=True, exclude_none=True).encode()) <= SIZE_LIMIT
    assert [(m.name, m.approvers, m.statement, m.symptoms) for m in status.runbooks] == [(f"r{i}", "z" * 256, "", ()) for i in range(8)]
