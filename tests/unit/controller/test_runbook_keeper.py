"""What a runbook's status is made of, and what the gatherer reads of runbooks in a pass."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from nightorders.api.meta import find_condition
from nightorders.api.v1alpha1 import Incident, IncidentStatus, Runbook
from nightorders.api.v1alpha1.incident import RunbookMatch
from nightorders.controller.gatherer import Gatherer, Ports
from nightorders.controller.runbooks import AGAIN, SOON, RunbookKeeper
from nightorders.domain import runbooks as rb
from nightorders.domain.snapshot import Point, Vector
from nightorders.ports import ConflictError, Sample, TransientError, Unreadable
from tests.unit.domain.make import NAMESPACE, NOW, OPERATOR, deployment, diagnosis, incident, situation
from tests.unit.domain.test_runbooks import runbook


class World:
    """Runbooks, a clock and a Prometheus that knows some series."""

    def __init__(self, *found: Runbook | Unreadable) -> None:
        self.found = list(found)
        self.saved: list[tuple[str, dict[str, Any]]] = []
        self.series: dict[str, float] = {"errors": 0.4}
        self.refuse: Exception | None = None
        self.asked: list[str] = []
        self.at = NOW

    def now(self) -> Any:
        return self.at

    async def of(self, namespace: str) -> list[Runbook | Unreadable]:
        if self.refuse:
            raise self.refuse
        return self.found

    async def save_status(self, found: Runbook, status: Any) -> None:
        if self.refuse:
            raise self.refuse
        self.saved.append((found.metadata.name, dict(status)))
        raw = {**found.model_dump(mode="json", by_alias=True, exclude_none=True), "status": status}
        self.found = [Runbook.model_validate(raw) if r is found else r for r in self.found]

    async def query(self, promql: str, at: Any, *, namespace: str) -> Sample:
        self.asked.append(promql)
        return Sample(0.4)

    async def vector(self, promql: str, at: Any, *, namespace: str) -> Vector:
        self.asked.append(promql)
        known = any(f'"{name}"' in promql for name in self.series)
        return Vector(promql, NOW, (Point({}, 1.0),) if known else (), "" if self.series else "no Prometheus is configured")


def keeper(world: World) -> RunbookKeeper:
    return RunbookKeeper(cast(Any, world), cast(Any, world), cast(Any, world))


def seen(uid: str, *names: str, minutes: int = 0) -> Incident:
    at = NOW + timedelta(minutes=minutes)
    entries = tuple(RunbookMatch(name=n, because="alert RolloutStuck", at=at) for n in names)
    return incident(IncidentStatus(runbooks=entries), meta={"uid": uid})


def status(world: World, name: str = "stuck") -> Any:
    return next(r.status for r in world.found if isinstance(r, Runbook) and r.metadata.name == name)


def ready(world: World, name: str = "stuck") -> Any:
    return find_condition(status(world, name).conditions, "Ready")


async def test_ready_or_each_problem() -> None:
    world = World(runbook(), runbook("open", action="Explode", approvers=None))
    assert await keeper(world).reconcile(NAMESPACE) == AGAIN
    assert (ready(world).status, ready(world).reason) == ("True", "Passed")
    assert (ready(world, "open").status, ready(world, "open").reason) == ("False", "RunbookProblems")
    assert len(status(world, "open").problems) == 2
    assert "spec.action: this version has no action Explode" in ready(world, "open").message


async def test_a_series_that_prometheus_does_not_have_is_a_problem_and_no_prometheus_is_none() -> None:
    world = World(runbook())
    world.series = {"others": 1}
    await keeper(world).reconcile(NAMESPACE)
    assert status(world).problems == (
        "spec.symptoms[0].promql: Prometheus has no series errors of this namespace now; correct the name, or see that the target is scraped",
    )
    world.series = {}
    await keeper(world).reconcile(NAMESPACE)
    assert ready(world).status == "True"


async def test_matches_are_counted_over_the_incidents_that_are_kept() -> None:
    world = World(runbook())
    k = keeper(world)
    assert k.listed([seen("1", "stuck"), seen("2", "stuck", minutes=5), seen("3", "other")]) == {NAMESPACE}
    await k.reconcile(NAMESPACE)
    assert (status(world).matched, status(world).last_match_at) == (2, NOW + timedelta(minutes=5))
    assert k.note(seen("2", "stuck", minutes=5)) == ""
    assert k.note(seen("4", "stuck", minutes=7)) == NAMESPACE
    await k.reconcile(NAMESPACE)
    assert status(world).matched == 3
    assert k.listed([seen("4", "stuck", minutes=7)]) == {NAMESPACE}
    await k.reconcile(NAMESPACE)
    assert (status(world).matched, status(world).last_match_at) == (1, NOW + timedelta(minutes=7))
    writes = len(world.saved)
    await k.reconcile(NAMESPACE)
    assert len(world.saved) == writes, "what is saved already is not written again"


async def test_one_that_was_matched_and_is_not_now_still_counts() -> None:
    world = World(runbook())
    k = keeper(world)
    k.listed([seen("1", "stuck")])
    k.note(seen("1"))
    k.listed([seen("1")])
    await k.reconcile(NAMESPACE)
    assert status(world).matched == 1


async def test_before_the_first_list_no_count_is_written_down() -> None:
    """A new leader would otherwise write 0 over what is known."""
    counted = runbook().model_copy(update={"status": runbook().status.model_copy(update={"matched": 7})})
    world = World(counted)
    await keeper(world).reconcile(NAMESPACE)
    assert status(world).matched == 7


async def test_a_lost_race_is_made_again_and_an_unreadable_one_left() -> None:
    world = World(runbook(), Unreadable("new", NAMESPACE, "spec.x: not known"))
    k = keeper(world)
    real, world.save_status = world.save_status, refusing(ConflictError("changed"))  # type: ignore[method-assign]
    assert await k.reconcile(NAMESPACE) == SOON
    world.save_status = real  # type: ignore[method-assign]
    assert await k.reconcile(NAMESPACE) == AGAIN
    assert [name for name, _ in world.saved] == ["stuck"]
    world.found = []
    assert await k.reconcile(NAMESPACE) is None


def refusing(error: Exception) -> Any:
    async def refuse(*_: Any) -> None:
        raise error

    return refuse


# ---------------------------------------------------------------- the gatherer


def gatherer(world: World) -> Gatherer:
    w = cast(Any, world)
    return Gatherer(Ports(w, w, w, w, w, w, w, w), OPERATOR)


async def test_symptoms_are_asked_once_for_some_seconds_and_ranked_with() -> None:
    world = World()
    g = gatherer(world)
    found = [runbook(hypothesis={"category": "ImageAccess"}), runbook("twin")]
    _, said = await g._with_runbooks(situation(), diagnosis(), found)
    assert [(m.name, m.symptoms[0].state, m.symptoms[0].value) for m in said.matched] == [
        ("stuck", "Present", "0.4"),
        ("twin", "Present", "0.4"),
    ]
    assert world.asked == ['sum(errors{service="checkout"})']
    world.at = NOW + timedelta(seconds=31)
    await g._with_runbooks(situation(), diagnosis(), found)
    assert len(world.asked) == 2


async def test_of_very_many_only_the_first_are_asked() -> None:
    world = World()
    found = [runbook(f"r{i:02}", symptoms=[{"name": "x", "promql": f"up{i}", "min": "1"}]) for i in range(20)]
    _, said = await gatherer(world)._with_runbooks(situation(), diagnosis(), found)
    assert (len(world.asked), len(said.matched), len(said.shown)) == (rb.SHOWN, 20, rb.SHOWN)


@pytest.mark.promise(4)
async def test_runbooks_that_cannot_be_read_are_unknown_and_not_none() -> None:
    world = World()
    world.refuse = TransientError("time-out")
    assert await gatherer(world)._runbooks(NAMESPACE) == ([], (), ("runbooks: time-out",))
    world.refuse = None
    world.found = [Unreadable("new", NAMESPACE, "spec.x"), runbook()]
    readable, unreadable, unknown = await gatherer(world)._runbooks(NAMESPACE)
    assert ([r.metadata.name for r in readable], unreadable, unknown) == (["stuck"], ("Runbook/new: spec.x",), ())


async def test_a_gone_target_has_no_labels_and_its_runbooks_are_shown_all_the_same() -> None:
    world = World()
    selecting = runbook("labelled", match={"alerts": ["RolloutStuck"], "selector": {"matchLabels": {"app": "checkout"}}})
    there = situation(target=deployment(labels={"app": "checkout"}))
    _, said = await gatherer(world)._with_runbooks(there, diagnosis(), [selecting, runbook()])
    assert [m.name for m in said.matched] == ["labelled", "stuck"]
    gone = situation()
    gone = type(gone)(**{**gone.__dict__, "target": cast(Any, None)})
    _, said = await gatherer(world)._with_runbooks(gone, diagnosis(), [selecting, runbook()])
    assert [m.name for m in said.matched] == ["stuck"]
