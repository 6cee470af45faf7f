"""Whether it helped: measurements against a baseline → Recovered, Worse, Unchanged, NoData, Superseded.

Recovered needs every check to pass without a break for a third of the window, up to its end, and at least two samples; a resolved
signal or a single good sample proves nothing. If at the end they pass but not for long enough (a late recovery, or the operator was
down in between), the window is extended by at most that third: any check that fails then ends it. Worse is decided early, but only by
the workload itself: metrics alone can lie, so a metric
that got worse escalates and does not undo (threats.md 18).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from ..api.meta import line
from ..api.v1alpha1.incident import CheckSpec, Measurement, Plan, Verification, VerifySpec
from .plan import digest_for
from .snapshot import KubeObject

WORSE_SAMPLES = 2
UNDO_EVERY = timedelta(seconds=1)  # between two looks at what was put back; two good ones in a row end the undo
BREAK = 3  # a gap of more than so many intervals between two rounds is a break
SLACK = timedelta(seconds=2)
SYMPTOM, ROLLOUT, DEPENDENTS, SERVING = "symptom", "rollout", "dependents", "serving"
BUILT_IN = (SYMPTOM, ROLLOUT, DEPENDENTS, SERVING)


@dataclass(frozen=True)
class Verdict:
    """The end of a verification. `by_workload`: Worse was seen on the workload itself, not only in a metric."""

    verdict: Literal["Recovered", "Worse", "Unchanged", "NoData", "Superseded"]
    message: str
    by_workload: bool = True


def begin(spec: VerifySpec, baseline: Sequence[Measurement], now: datetime) -> Verification:
    """A verification that starts now."""
    return Verification(verdict="Pending", started_at=now, until=now + timedelta(seconds=spec.seconds), baseline=tuple(baseline)[:32])


def rollout_complete(target: KubeObject) -> tuple[bool, str]:
    """Whether a Deployment's rollout is complete, as `kubectl rollout status` judges, and the numbers."""
    want = _int(target.at("spec", "replicas", default=1))
    have = {k: _int(target.at("status", k, default=0)) for k in ("updatedReplicas", "replicas", "availableReplicas")}
    observed = _int(target.at("status", "observedGeneration", default=0))
    generation = _int(target.at("metadata", "generation", default=0))
    numbers = f"{have['updatedReplicas']} of {want} updated, {have['availableReplicas']} available, {have['replicas']} in all"
    done = observed >= generation and have["updatedReplicas"] == want == have["replicas"] == have["availableReplicas"]
    return done, numbers


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0


def wanted_pods(target: KubeObject) -> int:
    """How many pods the workload asks for."""
    replicas = target.at("spec", "replicas", default=1)
    return replicas if isinstance(replicas, int) else 1


def is_ready(pod: KubeObject) -> bool:
    """Whether a pod serves."""
    return not pod.terminating and (pod.condition("Ready") or {}).get("status") == "True"


def rollout_check(target: KubeObject, plan: Plan, at: datetime) -> Measurement:
    """Built in: the rollout is complete at the intended revision. (Available alone is true before and after a stuck rollout.)"""
    done, numbers = rollout_complete(target)
    intended = digest_for(plan, target) == plan.target.after_sha256
    message = numbers if intended else "not the intended revision"
    return Measurement(check=ROLLOUT, at=at, verdict="Pass" if done and intended else "Fail", value=numbers, message=message)


def serving_check(ready: int | None, before: int | None, unavailable_allowed: int, at: datetime) -> Measurement:
    """Built in: no fewer pods serve than before, less what the rollout itself may take down at a time."""
    if ready is None:
        return Measurement(check=SERVING, at=at, verdict="NoData", message="pods could not be listed")
    floor = 0 if before is None else max(0, before - unavailable_allowed)
    return Measurement(
        check=SERVING,
        at=at,
        verdict="Pass" if ready >= floor else "Fail",
        value=str(ready),
        message=f"{ready} pods ready, at least {floor} expected",
    )


def unavailable_allowed(target: KubeObject) -> int:
    """How many pods the target's own strategy may take down at a time (rounded down, as the controller does)."""
    replicas = wanted_pods(target)
    if target.at("spec", "strategy", "type") == "Recreate":
        return replicas
    value = target.at("spec", "strategy", "rollingUpdate", "maxUnavailable", default="25%")
    if isinstance(value, int):
        return value
    return replicas * int(value[:-1]) // 100 if isinstance(value, str) and value[:-1].isdecimal() else 0


def dependents_check(failing: Sequence[str] | None, before: Sequence[str], at: datetime) -> Measurement:
    """Built in: nothing in the blast radius is worse than its baseline. `failing`: names of dependents that are not fully available."""
    if failing is None:
        return Measurement(check=DEPENDENTS, at=at, verdict="NoData", message="dependents could not be listed")
    new = sorted(set(failing) - set(before))
    if new and any(name.endswith("…") for name in before):
        message = line(f"cannot tell: the list of what failed before was cut, these may be new: {', '.join(new)}")
        return Measurement(check=DEPENDENTS, at=at, verdict="NoData", value=line(", ".join(sorted(failing)), 256), message=message)
    return Measurement(
        check=DEPENDENTS,
        at=at,
        verdict="Fail" if new else "Pass",
        value=line(", ".join(sorted(failing)), 256),
        message=line("newly failing: " + ", ".join(new)) if new else "no dependent is worse than before",
    )


def symptom_check(holds: bool | None, at: datetime) -> Measurement:
    """Built in: the finding that opened the Incident, evaluated again."""
    match holds:
        case None:
            return Measurement(check=SYMPTOM, at=at, verdict="NoData", message="cannot tell whether the symptom still holds")
        case True:
            return Measurement(check=SYMPTOM, at=at, verdict="Fail", message="the symptom still holds")
        case False:
            return Measurement(check=SYMPTOM, at=at, verdict="Pass", message="the symptom is gone")


def metric_check(check: CheckSpec, value: float | None, message: str, at: datetime) -> Measurement:
    """A policy's PromQL check: one number within its bounds; no number is NoData, never a pass."""
    if value is None:
        return Measurement(check=check.name, at=at, verdict="NoData", message=line(message or "no data"))
    ok = (check.max is None or value <= float(check.max)) and (check.min is None or value >= float(check.min))
    bounds = " and ".join(p for p in (f"at most {check.max}" if check.max else "", f"at least {check.min}" if check.min else "") if p)
    return Measurement(check=check.name, at=at, verdict="Pass" if ok else "Fail", value=f"{value:g}", message=f"{value:g}, wanted {bounds}")


def condition_check(check: CheckSpec, target: KubeObject, at: datetime) -> Measurement:
    """A policy's condition check: the workload's condition of that type is True."""
    condition = target.condition(check.condition or "")
    if condition is None:
        return Measurement(check=check.name, at=at, verdict="NoData", message=line(f"{target.title} has no condition {check.condition}"))
    state = str(condition.get("status", ""))
    return Measurement(
        check=check.name,
        at=at,
        verdict="Pass" if state == "True" else "Fail",
        value=line(state, 16),
        message=line(f"{check.condition} is {state}"),
    )


def next_sample(v: Verification, spec: VerifySpec) -> datetime:
    """When the next round of samples is due: every `every_seconds` from the last one, and exactly at the end of the window."""
    last = last_sample(v)
    if last is None:
        return v.started_at
    due = last + timedelta(seconds=spec.every_seconds)
    return v.until if last < v.until < due else due


def last_sample(v: Verification) -> datetime | None:
    """When the last round was taken."""
    return max((m.at for m in v.measurements), default=None)


def observe(v: Verification, spec: VerifySpec, samples: Sequence[Measurement], now: datetime) -> Verification:
    """`v` with one more round of samples: the latest of each check is kept, and since when all pass without a break.

    Time in which nobody measured (the operator was down) is a break: nobody knows what happened in it.
    """
    last = last_sample(v)
    unbroken = last is not None and now - last <= BREAK * timedelta(seconds=spec.every_seconds) + SLACK
    every = all(s.verdict == "Pass" for s in samples)
    since = (v.passing_since if v.passing_since and unbroken else now) if every else None
    return v.model_copy(update={"samples": v.samples + 1, "passing_since": since, "measurements": tuple(samples)[:64]})


def conclude(v: Verification, plan: Plan, worse_before: bool, now: datetime) -> Verdict | None:
    """The verdict, or None while the window is open. `worse_before`: the previous round was worse on the workload, too."""
    latest = {m.check: m for m in v.measurements}
    worse = worse_on_workload(latest)
    if worse and worse_before:
        return Verdict("Worse", f"{worse} in {WORSE_SAMPLES} samples in a row")
    if now < v.until:
        return None
    failing = [m for m in v.measurements if m.verdict == "Fail"]
    missing = [m for m in v.measurements if m.verdict == "NoData"]
    if worse:
        return Verdict("Worse", worse)
    if failing:
        if worsened := _worsened_metrics(plan, v.baseline, failing):
            return Verdict("Worse", worsened, by_workload=False)
        return Verdict("Unchanged", "; ".join(f"{m.check}: {m.message}" for m in failing))
    if missing:
        return Verdict("NoData", "; ".join(f"{m.check}: {m.message}" for m in missing))
    if v.passing_since is not None and now - v.passing_since >= timedelta(seconds=plan.verify.seconds / 3) and v.samples >= WORSE_SAMPLES:
        return Verdict(
            "Recovered", f"all {len(v.measurements)} checks passed since {v.passing_since:%H:%M:%S}Z, {v.samples} rounds of samples"
        )
    return None  # every check passes, but not for long enough yet: the window is extended until it has, or until one fails


def worse_on_workload(latest: Mapping[str, Measurement]) -> str:
    """What is worse than before on the workload or its dependents; empty if nothing."""
    return "; ".join(
        f"{name}: {latest[name].message}" for name in (SERVING, DEPENDENTS) if name in latest and latest[name].verdict == "Fail"
    )


@dataclass(frozen=True)
class AsBefore:
    """Whether it serves as before the action. `tolerable`: short of that by no more than its own rollout may take down at a time."""

    holds: bool
    tolerable: bool
    message: str


def as_before(v: Verification, samples: Sequence[Measurement], target: KubeObject) -> AsBefore:
    """Judges an undo: as many pods ready as in the baseline, no dependent worse, and the controller has seen the spec that was put back."""
    latest = {m.check: m for m in samples}
    serving, dependents = latest.get(SERVING), latest.get(DEPENDENTS)
    baseline = next((m.value for m in v.baseline if m.check == SERVING), "")
    if serving is None or dependents is None:
        return AsBefore(False, False, "nothing was measured yet")
    if not baseline.isdigit():
        return AsBefore(False, False, "how many pods were ready before is not known")
    if not serving.value.isdigit():
        return AsBefore(False, False, serving.message)
    if dependents.verdict != "Pass":
        return AsBefore(False, False, dependents.message)
    ready, before = int(serving.value), int(baseline)
    numbers = f"{ready} of {before} pods ready" if ready <= before else f"{ready} pods ready, {before} before"
    if _int(target.at("status", "observedGeneration", default=0)) < _int(target.at("metadata", "generation", default=0)):
        return AsBefore(False, False, f"its controller has not seen it yet ({numbers})")
    if ready < before:
        return AsBefore(False, ready >= before - unavailable_allowed(target), numbers)
    return AsBefore(True, True, f"as before: {numbers}")


def _worsened_metrics(plan: Plan, baseline: Sequence[Measurement], failing: Sequence[Measurement]) -> str:
    before = {m.check: m for m in baseline}
    bounds = {c.name: c for c in plan.verify.checks if c.promql}
    found = []
    for m in failing:
        spec, old = bounds.get(m.check), before.get(m.check)
        if spec is None or old is None or not old.value or not m.value:
            continue
        then, now = float(old.value), float(m.value)
        if (spec.max is not None and now > float(spec.max) and now > then) or (
            spec.min is not None and now < float(spec.min) and now < then
        ):
            found.append(f"{m.check}: {then:g} before, {now:g} now")
    return "; ".join(found)
