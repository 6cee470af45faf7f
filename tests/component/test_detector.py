"""The watch: what opens an Incident, what is only listed, what is recorded as healthy."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nightorders.domain.digest import template_sha256
from nightorders.ports import TransientError
from tests.component.fakes import Call
from tests.component.world import BAD, GOOD, SHOP, World, stuck


async def broken_before_us(level: str = "L4") -> World:
    """Release 7 was stuck long before the operator was installed."""
    w = World.empty()
    w.policy(level)
    w.deploy()
    for _ in range(5):
        w.clock.advance(timedelta(seconds=1))
        w.controllers.sync()
    w.release(BAD)
    for _ in range(60):
        w.clock.advance(timedelta(seconds=1))
        w.controllers.sync()
    w.start()
    return w


async def test_what_was_broken_at_the_first_look_is_listed_and_not_acted_on() -> None:
    w = await broken_before_us()
    await w.seconds(90)
    assert [p.workload for p in w.ledger().spec.preexisting] == ["Deployment/checkout"]
    assert (w.incidents(), w.mutations()) == ([], [])


async def test_it_stays_so_after_a_restart() -> None:
    w = await broken_before_us()
    await w.seconds(10)
    w.start()
    await w.seconds(60)
    assert (w.incidents(), w.mutations()) == ([], [])


async def test_its_next_broken_release_is_our_concern() -> None:
    w = await broken_before_us("L1")
    await w.seconds(10)
    w.controllers.missing.add("registry.example/checkout:8")
    w.release("registry.example/checkout:8")
    await w.until(lambda: w.incidents())
    assert w.incident.spec.signal is not None


async def test_a_human_may_ask_about_it_and_decides() -> None:
    w = await broken_before_us()
    await w.seconds(5)
    w.open_incident()
    await w.until_phase("AwaitingApproval")
    await w.seconds(30)
    assert w.mutations() == []


async def test_a_stuck_rollout_opens_one_incident_with_the_apis_own_time() -> None:
    w = await stuck()
    await w.seconds(30)
    (i,) = w.incidents()
    assert i.spec.target.title == "Deployment/checkout"
    assert i.spec.signal is not None
    assert i.spec.signal.starts_at < w.clock.now() - timedelta(seconds=25)
    assert i.spec.severity == "Warning", "two pods still serve"


async def test_nothing_is_opened_before_it_has_held() -> None:
    w = World.empty()
    w.deploy()
    w.start()
    await w.seconds(5)
    w.release(BAD)
    await w.seconds(2)
    assert w.incidents() == []
    await w.until(lambda: w.incidents(), within=10)


async def test_a_healthy_rollout_opens_nothing_and_is_recorded() -> None:
    w = World.empty()
    w.deploy()
    w.start()
    await w.seconds(6)
    w.release("registry.example/checkout:fine")
    await w.seconds(20)
    assert w.incidents() == []
    now = template_sha256(w.api.objects[("Deployment", SHOP, "checkout")]["spec"]["template"])
    assert now in {h.template_sha256 for h in w.ledger().spec.healthy_revisions}
    assert len(w.ledger().spec.healthy_revisions) == 2


@pytest.mark.threat(12)
async def test_a_broken_release_is_never_recorded_as_healthy() -> None:
    w = await stuck()
    await w.seconds(30)
    bad = template_sha256(w.api.objects[("Deployment", SHOP, "checkout")]["spec"]["template"])
    assert bad not in {h.template_sha256 for h in w.ledger().spec.healthy_revisions}


@pytest.mark.promise(2)
async def test_a_restart_opens_no_second_incident() -> None:
    w = await stuck("L1")
    for _ in range(3):
        w.start()
        await w.seconds(10)
    assert len(w.incidents()) == 1


@pytest.mark.parametrize("suspended", [True, False])
async def test_an_escalated_or_suspended_incident_absorbs_its_fault(suspended: bool) -> None:
    w = await stuck("L4")
    if suspended:
        w.suspend()
    else:
        w.controllers.sick.add(GOOD)
        await w.until_phase("Undone")
    done = len(w.mutations())
    w.start()
    await w.seconds(60)
    assert (len(w.incidents()), len(w.mutations())) == (1, done)


async def test_a_name_taken_by_somebody_else_does_not_swallow_the_fault() -> None:
    """threats.md 26: an Incident of that name, made by hand, about another object."""
    w = await stuck()
    name = w.incident.metadata.name
    w.api.delete("Incident", SHOP, name)
    w.open_incident(name=name, target="cart")
    w.start()
    await w.seconds(10)
    assert [i.metadata.name for i in w.incidents()] == [name, name[:-1] + "2"]


@pytest.mark.threat(14)
@pytest.mark.parametrize("namespace", ["kube-system", "nightorders-system"])
async def test_protected_namespaces_are_not_watched(namespace: str) -> None:
    w = World.empty()
    w.deploy()
    raw = w.api.objects[("Deployment", SHOP, "checkout")]
    w.api.put("Deployment", namespace, "checkout", {**raw, "metadata": {"labels": {}}})
    w.start()
    await w.seconds(5)
    w.api.edit("Deployment", namespace, "checkout", lambda d: d["spec"]["template"]["spec"]["containers"][0].update(image=BAD))
    await w.seconds(30)
    assert w.incidents() == []


@pytest.mark.threat(14)
async def test_an_incident_in_a_protected_namespace_acts_on_nothing() -> None:
    w = await stuck("L4")
    w.cluster_policy(protected=[{"name": "all", "kinds": ["Deployment"]}])
    await w.seconds(40)
    assert w.mutations() == []
    assert next(c.reason for c in w.incident.status.conditions if c.type == "Planned") == "Protected"


@pytest.mark.threat(27)
async def test_a_namespace_whose_incidents_cannot_be_written_does_not_end_the_watch() -> None:
    w = World.empty()
    w.deploy()
    w.start()
    await w.seconds(5)
    away = True

    async def fails(call: Call) -> None:
        if away and call.verb == "create":
            raise TransientError("time-out")

    w.api.before = fails
    w.release(BAD)
    await w.seconds(20)
    assert w.incidents() == []
    away = False
    await w.until(lambda: w.incidents())


async def test_a_deployment_that_is_gone_is_forgotten() -> None:
    w = await stuck()
    w.api.delete("Deployment", SHOP, "checkout")
    w.api.delete("Incident", SHOP, w.incident.metadata.name)
    await w.seconds(30)
    assert w.incidents() == []
