"""Measurements against a baseline: when it counts as recovered, as worse, as neither, as unknown."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from nightorders.api.v1alpha1.incident import CheckSpec, Measurement, Verification, VerifySpec
from nightorders.domain import verification as v
from nightorders.domain.digest import spec_sha256
from tests.unit.domain.make import MINUTE, NOW, SECOND, after_target, changed, deployment, plan, sample, samples

ERRORS = CheckSpec(name="errors", promql="rate(x[1m])", max="0.01")
SPEC = VerifySpec(seconds=300, every_seconds=60, checks=(ERRORS,), on_worse="Undo", on_unchanged="Undo", on_no_data="Escalate")
PLAN = plan(verify=SPEC)


def taken(measured: tuple[Measurement, ...], now: datetime) -> tuple[Measurement, ...]:
    """A round of samples as measured at that moment."""
    return tuple(m.model_copy(update={"at": now}) for m in measured)


def see(state: Verification, measured: tuple[Measurement, ...], now: datetime, spec: VerifySpec = SPEC) -> Verification:
    return v.observe(state, spec, taken(measured, now), now)


def run(
    *rounds: tuple[Measurement, ...], every: int = 60, seconds: int = 300, baseline: tuple[Measurement, ...] = ()
) -> tuple[Verification, v.Verdict | None]:
    """Feeds one round per `every` seconds, from the start on; stops at the first verdict."""
    state = v.begin(SPEC.model_copy(update={"seconds": seconds}), baseline, NOW)
    p = PLAN.model_copy(update={"verify": SPEC.model_copy(update={"seconds": seconds, "every_seconds": every})})
    verdict = None
    for i, measured in enumerate(rounds):
        now = NOW + timedelta(seconds=every) * i
        worse_before = bool(v.worse_on_workload({m.check: m for m in state.measurements}))
        state = see(state, measured, now, p.verify)
        verdict = v.conclude(state, p, worse_before, now)
        if verdict is not None:
            break
    return state, verdict


def named(verdict: v.Verdict | None) -> str | None:
    return verdict.verdict if verdict else None


GOOD = samples()
SICK = samples(symptom="Fail")
ROLLING = samples(rollout="Fail")
DOWN = samples(serving="Fail")
HURT = samples(dependents="Fail")
BLIND = samples(symptom="NoData")


# ---------------------------------------------------------------- rounds → verdict


@pytest.mark.parametrize(
    ("rounds", "expected"),
    [
        ([GOOD] * 5, None),  # the window is open
        ([GOOD] * 6, "Recovered"),
        ([ROLLING, ROLLING, GOOD, GOOD, GOOD, GOOD], "Recovered"),  # since 120 s of 300 s
        ([SICK, SICK, SICK, GOOD, GOOD, GOOD], "Recovered"),  # since 180 s: at the last third's beginning (200 s) it held
        ([SICK, SICK, SICK, SICK, GOOD, GOOD], None),  # since 240 s: well, but not for a third of the window: it is extended
        ([SICK, SICK, SICK, SICK, GOOD, GOOD, GOOD], "Recovered"),
        ([SICK, SICK, SICK, SICK, GOOD, GOOD, SICK], "Unchanged"),  # flapping is not recovery
        ([SICK, SICK, SICK, SICK, SICK, GOOD], None),
        ([SICK, SICK, SICK, SICK, SICK, GOOD, GOOD], None),  # since 300 s, at 360 s
        ([SICK, SICK, SICK, SICK, SICK, GOOD, GOOD, GOOD], "Recovered"),
        ([GOOD, GOOD, GOOD, GOOD, SICK, GOOD, BLIND], "NoData"),
        ([GOOD, SICK, GOOD, SICK, GOOD, GOOD, SICK], "Unchanged"),
        ([GOOD, GOOD, GOOD, GOOD, BLIND, GOOD], None),  # a hole in the data is a break, too
        ([GOOD, GOOD, GOOD, GOOD, GOOD, SICK], "Unchanged"),
        ([GOOD, GOOD, GOOD, GOOD, GOOD, BLIND], "NoData"),
        ([BLIND] * 6, "NoData"),
        ([SICK] * 6, "Unchanged"),
        ([ROLLING] * 6, "Unchanged"),
        ([samples(symptom="NoData", rollout="Fail")] * 6, "Unchanged"),  # what fails outweighs what is not known
        ([DOWN], None),
        ([DOWN, GOOD, DOWN, GOOD], None),  # never twice in a row
        ([DOWN, DOWN], "Worse"),
        ([GOOD, GOOD, DOWN, DOWN], "Worse"),
        ([HURT, HURT], "Worse"),
        ([DOWN, HURT], "Worse"),  # worse is worse, by whichever of the two
        ([GOOD, GOOD, GOOD, GOOD, GOOD, DOWN], "Worse"),  # at the end one is enough
        ([SICK, SICK], None),  # no better is not worse
        ([BLIND, BLIND], None),
    ],
)  # fmt: skip
def test_rounds_lead_to_a_verdict(rounds: list[tuple[Measurement, ...]], expected: str | None) -> None:
    assert named(run(*rounds)[1]) == expected


def test_one_good_sample_at_the_end_proves_nothing() -> None:
    """However long it took until somebody measured: the window goes on for a third of its length."""
    state = see(v.begin(SPEC, (), NOW), GOOD, NOW + 300 * SECOND)
    assert v.conclude(state, PLAN, False, NOW + 300 * SECOND) is None
    state = see(state, GOOD, NOW + 360 * SECOND)
    assert v.conclude(state, PLAN, False, NOW + 360 * SECOND) is None
    state = see(state, GOOD, NOW + 420 * SECOND)
    assert named(v.conclude(state, PLAN, False, NOW + 420 * SECOND)) == "Recovered"


def test_a_window_of_one_sample_never_recovers() -> None:
    state = see(v.begin(SPEC.model_copy(update={"seconds": 0}), (), NOW), GOOD, NOW)
    p = PLAN.model_copy(update={"verify": SPEC.model_copy(update={"seconds": 0})})
    assert v.conclude(state, p, False, NOW) is None


def test_time_in_which_nobody_measured_is_a_break() -> None:
    """The operator was down from 60 s on; nobody knows what happened until it came back at 300 s."""
    state = see(see(v.begin(SPEC, (), NOW), GOOD, NOW), GOOD, NOW + 60 * SECOND)
    state = see(state, GOOD, NOW + 300 * SECOND)
    assert state.passing_since == NOW + 300 * SECOND
    assert v.conclude(state, PLAN, False, NOW + 300 * SECOND) is None


@pytest.mark.parametrize(("since", "expected"), [(200, "Recovered"), (201, None)])
def test_a_third_of_the_window_is_counted_to_the_second(since: int, expected: str | None) -> None:
    state = v.begin(SPEC, (), NOW).model_copy(update={"samples": 4})
    state = see(state, GOOD, NOW + timedelta(seconds=since))
    state = see(state, GOOD, NOW + 300 * SECOND)
    assert named(v.conclude(state, PLAN, False, NOW + 300 * SECOND)) == expected


@pytest.mark.parametrize(("at", "expected"), [(299, None), (300, "Recovered")])
def test_it_is_decided_at_the_end_of_the_window_and_not_before(at: int, expected: str | None) -> None:
    state = v.begin(SPEC, (), NOW)
    for second in (0, 100, 200, at):
        state = see(state, GOOD, NOW + timedelta(seconds=second))
    assert named(v.conclude(state, PLAN, False, NOW + timedelta(seconds=at))) == expected


def test_samples_are_due_at_their_interval_and_exactly_at_the_end() -> None:
    spec = SPEC.model_copy(update={"every_seconds": 80})
    state = v.begin(spec, (), NOW)
    assert v.next_sample(state, spec) == NOW
    due = []
    for _ in range(6):
        at = v.next_sample(state, spec)
        due.append(int((at - NOW).total_seconds()))
        state = see(state, GOOD, at, spec)
    assert due == [0, 80, 160, 240, 300, 380]


def test_a_verdict_names_what_decided() -> None:
    assert "serving: serving Fail in 2 samples in a row" in (run(DOWN, DOWN)[1] or v.Verdict("NoData", "")).message
    assert "6 rounds of samples" in (run(*[GOOD] * 6)[1] or v.Verdict("NoData", "")).message


# ---------------------------------------------------------------- metrics


def metric(value: float | None, verdict: str = "Fail") -> Measurement:
    return Measurement(check="errors", at=NOW, verdict=verdict, value="" if value is None else f"{value:g}", message="m")  # type: ignore[arg-type]


@pytest.mark.threat(18)
@pytest.mark.parametrize(
    ("before", "now", "expected", "undoes"),
    [
        (metric(0.02), metric(0.5), "Worse", False),  # a metric alone can lie: escalates, does not undo
        (metric(0.02), metric(0.02), "Unchanged", True),
        (metric(0.5), metric(0.02), "Unchanged", True),
        (metric(None, "NoData"), metric(0.5), "Unchanged", True),
        (metric(0.02), metric(None, "NoData"), "NoData", True),
        (metric(0.02), metric(0.001, "Pass"), "Recovered", True),
    ],
)
def test_a_metric_that_got_worse_does_not_undo_by_itself(before: Measurement, now: Measurement, expected: str, undoes: bool) -> None:
    _, verdict = run(*[(*GOOD, now)] * 6, baseline=(*GOOD, before))
    assert verdict is not None
    assert (verdict.verdict, verdict.by_workload) == (expected, undoes)


@pytest.mark.threat(18)
def test_a_metric_never_decides_early() -> None:
    assert run(*[(*GOOD, metric(99))] * 5, baseline=(metric(0),))[1] is None


@pytest.mark.threat(18)
def test_the_workload_decides_even_when_metrics_shine() -> None:
    assert named(run(*[(*DOWN, metric(0, "Pass"))] * 2)[1]) == "Worse"


@pytest.mark.parametrize(
    ("bounds", "value", "verdict"),
    [
        ({"max": "0.01"}, 0.01, "Pass"),
        ({"max": "0.01"}, 0.010001, "Fail"),
        ({"min": "3"}, 3.0, "Pass"),
        ({"min": "3"}, 2.999, "Fail"),
        ({"min": "1", "max": "2"}, 1.5, "Pass"),
        ({"min": "1", "max": "2"}, 2.5, "Fail"),
        ({"min": "1", "max": "2"}, 0.5, "Fail"),
        ({"max": "0"}, 0.0, "Pass"),
        ({"max": "-1"}, -2.0, "Pass"),
        ({"max": "1"}, float("nan"), "Fail"),
        ({"max": "1"}, float("inf"), "Fail"),
        ({"max": "1"}, None, "NoData"),
    ],
)
def test_a_number_is_held_against_its_bounds(bounds: dict[str, str], value: float | None, verdict: str) -> None:
    check = CheckSpec(name="errors", promql="x", **bounds)
    assert v.metric_check(check, value, "series absent", NOW).verdict == verdict


def test_no_number_says_why() -> None:
    assert v.metric_check(ERRORS, None, "Prometheus answered, series absent", NOW).message == "Prometheus answered, series absent"
    assert v.metric_check(ERRORS, None, "", NOW).message == "no data"


# ---------------------------------------------------------------- built-in checks


def complete(**status: Any) -> Any:
    base = {"observedGeneration": 7, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}
    return deployment(status={**base, **status})


@pytest.mark.parametrize(
    ("status", "done"),
    [
        ({}, True),
        ({"observedGeneration": 6}, False),
        ({"observedGeneration": 8}, True),
        ({"updatedReplicas": 2}, False),
        ({"replicas": 4}, False),
        ({"availableReplicas": 2}, False),
        ({"availableReplicas": None}, False),
        ({"updatedReplicas": "3"}, False),
        ({"updatedReplicas": True}, False),
    ],
)
def test_a_rollout_is_complete_as_kubectl_judges(status: dict[str, Any], done: bool) -> None:
    assert v.rollout_complete(complete(**status))[0] is done


def test_a_workload_without_any_status_is_not_complete() -> None:
    assert not v.rollout_complete(changed(deployment(), ("status",), None))[0]


def test_complete_at_another_revision_is_not_what_was_intended() -> None:
    p = plan()
    assert p.target.after_sha256 == spec_sha256(after_target().at("spec"))
    assert v.rollout_check(complete(), p, NOW).verdict == "Fail"
    assert v.rollout_check(after_target(base=complete()), p, NOW).verdict == "Pass"


@pytest.mark.parametrize(
    ("ready", "before", "allowed", "verdict"),
    [
        (3, 3, 0, "Pass"),
        (2, 3, 0, "Fail"),
        (2, 3, 1, "Pass"),
        (1, 3, 1, "Fail"),
        (0, 0, 0, "Pass"),
        (0, None, 0, "Pass"),
        (0, 2, 5, "Pass"),
        (None, 3, 1, "NoData"),
        (None, None, 0, "NoData"),
    ],
)
def test_no_fewer_pods_serve_than_before_less_what_the_rollout_takes(
    ready: int | None, before: int | None, allowed: int, verdict: str
) -> None:
    assert v.serving_check(ready, before, allowed, NOW).verdict == verdict


@pytest.mark.parametrize(
    ("failing", "before", "verdict"),
    [
        ([], [], "Pass"),
        (["Deployment/a"], ["Deployment/a"], "Pass"),
        ([], ["Deployment/a"], "Pass"),
        (["Deployment/b"], ["Deployment/a"], "Fail"),
        (["Deployment/a", "Deployment/b"], ["Deployment/a"], "Fail"),
        (None, [], "NoData"),
    ],
)
def test_only_dependents_that_newly_fail_are_worse(failing: list[str] | None, before: list[str], verdict: str) -> None:
    assert v.dependents_check(failing, before, NOW).verdict == verdict


def test_a_list_of_dependents_that_did_not_fit_is_no_proof_that_one_is_new() -> None:
    """A baseline keeps 256 characters; names beyond them must not look like damage that our action did."""
    many = [f"Deployment/a-service-with-a-long-name-{n:02}" for n in range(20)]
    baseline = v.dependents_check(many, (), NOW).value.split(", ")
    assert v.dependents_check(many, baseline, NOW).verdict == "NoData"
    assert v.dependents_check(many[:3], baseline, NOW).verdict == "Pass"
    assert v.dependents_check([], baseline, NOW).verdict == "Pass"


@pytest.mark.promise(4)
@pytest.mark.parametrize(("holds", "verdict"), [(True, "Fail"), (False, "Pass"), (None, "NoData")])
def test_the_symptom_that_nobody_can_see_is_not_gone(holds: bool | None, verdict: str) -> None:
    assert v.symptom_check(holds, NOW).verdict == verdict


@pytest.mark.parametrize(("state", "verdict"), [("True", "Pass"), ("False", "Fail"), ("Unknown", "Fail"), (None, "NoData")])
def test_a_condition_must_be_true(state: str | None, verdict: str) -> None:
    check = CheckSpec(name="available", condition="Available")
    conditions = [{"type": "Available", "status": state}] if state else []
    assert v.condition_check(check, deployment(status={"conditions": conditions}), NOW).verdict == verdict


# ---------------------------------------------------------------- bookkeeping


def test_a_round_replaces_the_last_one_and_counts() -> None:
    state = see(v.begin(SPEC, SICK, NOW), GOOD, NOW)
    state = see(state, SICK, NOW + MINUTE)
    assert (state.samples, state.measurements, state.baseline) == (2, taken(SICK, NOW + MINUTE), SICK)
    assert state.passing_since is None


def test_passing_since_is_the_first_of_the_unbroken_row() -> None:
    state = v.begin(SPEC, (), NOW)
    seen: list[datetime | None] = []
    for i, measured in enumerate((GOOD, GOOD, SICK, GOOD, GOOD)):
        state = see(state, measured, NOW + i * MINUTE)
        seen.append(state.passing_since)
    assert seen == [NOW, NOW, None, NOW + 3 * MINUTE, NOW + 3 * MINUTE]


def test_a_window_begins_now_and_ends_after_its_seconds() -> None:
    state = v.begin(SPEC, SICK, NOW)
    assert (state.verdict, state.started_at, state.until, state.samples) == ("Pending", NOW, NOW + 300 * SECOND, 0)


def test_worse_is_asked_of_the_workload_and_its_dependents_only() -> None:
    assert v.worse_on_workload({m.check: m for m in (*samples(symptom="Fail", rollout="Fail"), sample("errors", "Fail"))}) == ""
    assert "dependents" in v.worse_on_workload({m.check: m for m in HURT})
