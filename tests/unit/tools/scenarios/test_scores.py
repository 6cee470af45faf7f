"""Scores are made from what was saved and what the cluster says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.unit.tools.scenarios.builders import DOCUMENT
from tools.scenarios import stats
from tools.scenarios.incidents import Incidents, Story, Version
from tools.scenarios.model import Expect
from tools.scenarios.score import Guess, Result, diagnosis, outcome, outcome_right, same_object, standing


def expect(**more: Any) -> Expect:
    return Expect.model_validate({**DOCUMENT["expect"], **more})


def guess(category: str, target: str = "Deployment/labeler", grade: str = "A", confidence: float | None = None) -> dict[str, Any]:
    return {"category": category, "object": target, "grade": grade, **({} if confidence is None else {"confidence": confidence})}


RIGHT, WRONG = guess("BadRelease"), guess("Quota")


def scored(*hypotheses: dict[str, Any]) -> Any:
    return diagnosis(standing(hypotheses), expect(), "parcels")


def test_the_first_that_stands_counts() -> None:
    found = scored({**WRONG, "refuted": "there is room"}, RIGHT)
    assert (found.rca1, found.object1, found.category1, found.rca3) == (True, True, True, True)
    found = scored(WRONG, RIGHT)
    assert (found.rca1, found.object1, found.category1, found.rca3) == (False, True, False, True)
    assert scored(WRONG, WRONG, WRONG, RIGHT).rca3 is False


@pytest.mark.parametrize(
    ("top", "abstained", "wrong", "sure"),
    [
        (guess("Unknown"), True, False, False),
        (guess("Quota", grade="D"), True, False, False),
        (guess("Quota", grade="C"), False, True, False),
        (guess("Quota", grade="B"), False, True, True),
        (guess("Quota", grade="A", confidence=49), True, False, False),
        (guess("Quota", grade="A", confidence=50), False, True, False),
        (guess("Quota", grade="D", confidence=85), False, True, True),
        (RIGHT, False, False, False),
    ],
)
def test_silence_is_no_mistake_and_being_sure_of_one_is_worse(top: dict[str, Any], abstained: bool, wrong: bool, sure: bool) -> None:
    found = scored(top)
    assert (found.abstained, found.wrong, found.wrong_and_sure) == (abstained, wrong, sure)


def test_no_hypothesis_is_an_abstention() -> None:
    assert scored().abstained


def test_where_unknown_is_right_saying_so_is_right() -> None:
    wanted = expect(rootCause=[{"category": "Unknown"}], outcome="Escalated", mayMutate=[], repaired=[])
    found = diagnosis([Guess("Unknown", "Deployment/labeler")], wanted, "parcels")
    assert (found.rca1, found.abstained) == (True, False)


@pytest.mark.parametrize(
    ("said", "wanted", "same"),
    [
        ("Deployment/web", "Deployment/web", True),
        ("Deployment/shop/web", "Deployment/web", True),
        ("Deployment/other/web", "Deployment/web", False),
        ("StatefulSet/web", "Deployment/web", False),
        ("Node/n1", "Node/n1", True),
        ("", "Deployment/web", False),
        ("anything", None, True),
    ],
)
def test_objects_are_the_same_however_they_are_spelled(said: str, wanted: str | None, same: bool) -> None:
    assert same_object(said, wanted, "shop") is same


@pytest.mark.parametrize(
    ("phase", "more", "found"),
    [
        ("Recovered", {"mutated": True, "repaired": True}, "Repaired"),
        ("Recovered", {"mutated": True}, "NotRepaired"),  # the operator says so, the cluster does not
        ("Recovered", {}, "Dismissed"),
        ("Dismissed", {}, "Dismissed"),
        ("Waiting", {}, "Waiting"),
        ("Escalated", {}, "Escalated"),
        ("Undone", {"called": True}, "Escalated"),
        ("Undone", {}, "Undone"),
        ("Diagnosed", {}, "Diagnosed"),  # nobody would know
        ("Diagnosed", {"called": True}, "Escalated"),
        ("Triage", {"called": True}, "Triage"),
        ("Recovered", {"mutated": True, "repaired": True, "crashed": True}, "Repaired"),  # it came back and finished
        ("Diagnosed", {"called": True, "crashed": True}, "Crashed"),
    ],
)
def test_an_outcome_is_a_saved_phase_that_the_cluster_confirms(phase: str, more: dict[str, bool], found: str) -> None:
    flags = {"mutated": False, "repaired": False, "called": False, "crashed": False, **more}
    assert outcome(Version(0, {"phase": phase}), **flags) == found


def test_a_plan_that_waits_for_a_human_is_handed_over() -> None:
    none = {"mutated": False, "repaired": False, "called": False, "crashed": False}
    assert outcome(Version(0, {"phase": "Advised", "planned": {"action": "x"}, "level": "L2"}), **none) == "Escalated"
    assert outcome(Version(0, {"phase": "Advised", "planned": {"action": "x"}, "level": "L4"}), **none) == "Advised"
    assert outcome(Version(0, {"phase": "AwaitingApproval", "level": "L3"}), **none) == "AwaitingApproval"
    assert outcome(None, **none) == "NoIncident"


def test_no_change_stands_for_three_outcomes() -> None:
    assert [outcome_right(o, "NoChange") for o in ("Escalated", "Dismissed", "Waiting", "Repaired", "Diagnosed")] == [True] * 3 + [
        False
    ] * 2
    assert not outcome_right("Escalated", "Repaired")


def result(**more: Any) -> Result:
    good = {"rca1": True, "outcome_right": True, "repaired": True, **more}
    found = Result("x", "", "fault", "Quota", "Repaired", "run", **good)
    found.conclude()
    return found


def test_end_to_end_needs_everything() -> None:
    assert result().end_to_end
    for missing in (
        {"rca1": False},
        {"outcome_right": False},
        {"repaired": False},
        {"false_actions": ["x"]},
        {"ineffective": ["x"]},
        {"violations": ["x"]},
    ):
        assert not result(**missing).end_to_end, missing


# ---------------------------------------------------------------- versions


def incident(phase: str, hypotheses: list[dict[str, Any]], plan: bool = False, **more: Any) -> dict[str, Any]:
    status = {"phase": phase, "hypotheses": hypotheses, **({"plan": {"action": "RollbackWorkload"}} if plan else {}), **more}
    spec = {"signal": {"fingerprints": ["f1"]}}
    return {"metadata": {"uid": "u", "namespace": "shop", "name": "inc"}, "spec": spec, "status": status}


def told(*states: dict[str, Any]) -> Story:
    watched = Incidents(lambda: pytest.fail("nothing is asked"))  # type: ignore[arg-type,return-value]
    for at, state in enumerate(states):
        watched.take(state, float(at))
    (story,) = watched.stories("shop")
    return story


def test_what_was_saved_when_the_plan_was_staged_is_scored() -> None:
    story = told(
        incident("Triage", []),
        incident("Diagnosed", [WRONG]),
        incident("Advised", [RIGHT], plan=True),
        incident("Recovered", [WRONG]),  # what is said after the repair is hindsight
    )
    scored_version = story.scored()
    assert scored_version is not None
    assert scored_version.status["hypotheses"] == [RIGHT]


def test_without_a_plan_the_outcome_counts_and_without_both_the_last_word() -> None:
    ended = told(incident("Diagnosed", [RIGHT]), incident("Escalated", [WRONG]), incident("Escalated", [RIGHT])).scored()
    assert ended is not None
    assert ended.status["hypotheses"] == [WRONG]
    last = told(incident("Diagnosed", [WRONG]), incident("Diagnosed", [RIGHT])).scored()
    assert last is not None
    assert last.status["hypotheses"] == [RIGHT]


def test_the_same_state_again_is_no_new_version() -> None:
    assert len(told(incident("Triage", []), incident("Triage", [])).versions) == 1


def test_an_alert_is_found_where_it_was_taken_in() -> None:
    story = told(incident("Triage", [], alerts=[{"fingerprint": "f2", "state": "Firing"}]))
    assert [story.carries(f) for f in ("f1", "f2", "f3")] == [True, True, False]


# ---------------------------------------------------------------- statistics


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.3085),
        (10, 10, 0.6915, 1.0),
        (5, 10, 0.1871, 0.8129),
        (1, 50, 0.0005, 0.1065),
        (0, 0, 0.0, 1.0),
        (37, 40, 0.7961, 0.9843),
    ],
)
def test_exact_intervals(k: int, n: int, low: float, high: float) -> None:
    assert stats.clopper_pearson(k, n) == pytest.approx((low, high), abs=2e-4)


def test_an_impossible_proportion_is_refused() -> None:
    with pytest.raises(ValueError, match="3 of 2 is no proportion"):
        stats.clopper_pearson(3, 2)


def test_the_binomial_adds_up() -> None:
    assert stats.binomial_at_most(2, 4, 0.5) == pytest.approx(11 / 16)
    assert math.isclose(stats.binomial_at_most(4, 4, 0.3), 1.0)


def test_forecasts() -> None:
    perfect = [(1.0, True), (0.0, False)]
    assert stats.brier_skill(perfect) == 1
    assert stats.auroc(perfect) == 1
    assert stats.brier_skill([(0.5, True), (0.5, False)]) == 0
    assert stats.auroc([(0.5, True), (0.5, False)]) == 0.5
    assert stats.brier_skill([]) is None
    assert stats.brier_skill([(0.9, True)]) is None  # a constant forecast is perfect here: nothing to compare with
    assert stats.auroc([(0.9, True)]) is None
    assert stats.median([3, 1, 2]) == 2
    assert stats.median([1, 2]) == 1.5
    assert stats.median([]) is None
