"""People, clusters and networks do anything at any moment; the oracle judges, and when it is calm again nothing is left behind."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from nightorders.api.meta import APPROVE_PREFIX, MAX_LEVEL_ANNOTATION
from nightorders.ports import ConflictError, TransientError
from tests.component.fakes import Call, Died, stamp
from tests.component.world import BAD, GOOD, SHOP, SYSTEM, World, stuck

pytestmark = pytest.mark.promise(2)

OTHER = "registry.example/checkout:8"


class Chaos:
    """One event at a time, chosen by chance; each of them may fail because what it needs is not there."""

    def __init__(self, w: World, seed: int) -> None:
        self.w = w
        self.chance = random.Random(seed)
        self.told: list[str] = []
        self.trouble = 0.0
        w.api.before = w.api.after = self.fault

    async def fault(self, call: Call) -> None:
        roll = self.chance.random()
        if roll < self.trouble * 0.3 and call.writes:
            raise ConflictError("changed since it was read (409)")
        if roll < self.trouble * 0.6:
            raise TransientError("connection broken")
        if roll < self.trouble * 0.65 and call.writes:
            raise Died

    def one(self) -> None:
        name, act = self.chance.choice(list(EVENTS.items()))
        try:
            act(self.w, self.chance)
        except (KeyError, AssertionError):
            return
        self.told.append(f"{self.w.clock.now():%H:%M:%S} {name}")

    async def second(self, w: World) -> None:
        try:
            await w.second()
        except Died:
            self.told.append(f"{w.clock.now():%H:%M:%S} died")
            w.start()


def incident_edit(change: Callable[[Any], Any]) -> Callable[[World, random.Random], None]:
    def act(w: World, _: random.Random) -> None:
        w.api.edit("Incident", SHOP, w.incident.metadata.name, change)

    return act


def without_approvals(raw: Any) -> None:
    notes = raw["metadata"]["annotations"]
    raw["metadata"]["annotations"] = {k: v for k, v in notes.items() if not k.startswith(APPROVE_PREFIX)}


def annotate(w: World, notes: dict[str, str]) -> None:
    w.api.edit("Deployment", SHOP, "checkout", lambda d: d["metadata"]["annotations"].update(notes))


def freeze(w: World, seconds: int) -> dict[str, str]:
    """In force from now on, for so long."""
    now = w.clock.now()
    return {"name": "f", "from": stamp(now), "until": stamp(now + timedelta(seconds=seconds))}


def make_anew(w: World, image: str) -> None:
    w.api.delete("Deployment", SHOP, "checkout")
    w.controllers.sync()
    w.deploy(image=image)


EVENTS: dict[str, Callable[[World, random.Random], Any]] = {
    "approve": lambda w, c: w.approve(c.choice(["alice", "bob"]), key=f"k{c.randint(0, 9)}"),
    "approve again": lambda w, c: w.approve(c.choice(["alice", "bob", "system:admin"]), key=f"k{c.randint(0, 9)}"),
    "approve something": lambda w, c: w.approve("alice", digest="sha256:" + "0" * 64, key="x"),
    "reject": lambda w, c: w.reject("carol") if c.random() < 0.2 else None,
    "withdraw": incident_edit(without_approvals),
    "stop": lambda w, c: w.stop(c.choice([SHOP, SYSTEM])),
    "resume": lambda w, c: w.resume(SHOP),
    "resume all": lambda w, c: w.resume(SYSTEM),
    "suspend": lambda w, c: w.suspend(c.random() < 0.5),
    "policy": lambda w, c: w.policy(c.choice(["L1", "L2", "L3", "L4", "L4"]), approval={"count": c.choice([1, 1, 2])}),
    "second policy": lambda w, c: w.policy("L4", name="second"),
    "no second policy": lambda w, c: w.api.delete("RemediationPolicy", SHOP, "second"),
    "ceiling": lambda w, c: w.cluster_policy(ceilings=[{"name": "most", "level": c.choice(["L2", "L3", "L4"])}]),
    "max-level": lambda w, c: annotate(w, {MAX_LEVEL_ANNOTATION: c.choice(["L1", "L3", "L4", "x"])}),
    "take": lambda w, c: w.take(),
    "give back": lambda w, c: w.give_back(),
    "give back again": lambda w, c: w.give_back(),
    "freeze": lambda w, c: w.cluster_policy("frozen", freezes=[freeze(w, c.choice([3, 10, 40]))]),
    "thaw": lambda w, c: w.api.delete("ClusterRemediationPolicy", "", "frozen"),
    "shadow": lambda w, c: w.policy("L4", orders={"enforcement": "Shadow"}) if c.random() < 0.4 else None,
    "label": lambda w, c: w.api.edit("Deployment", SHOP, "checkout", lambda d: d["metadata"]["labels"].update(note=str(c.randint(0, 9)))),
    "release": lambda w, c: w.release(c.choice([OTHER, BAD, GOOD])),
    "scale": lambda w, c: w.api.edit("Deployment", SHOP, "checkout", lambda d: d["spec"].update(replicas=c.choice([2, 3, 4]))),
    "sick": lambda w, c: w.controllers.sick.add(GOOD),
    "well": lambda w, c: w.controllers.sick.clear(),
    "image appears": lambda w, c: w.controllers.missing.discard(BAD) if c.random() < 0.3 else None,
    "image vanishes": lambda w, c: w.controllers.missing.add(c.choice([BAD, OTHER])),
    "delete incident": lambda w, c: w.api.delete("Incident", SHOP, w.incident.metadata.name) if c.random() < 0.3 else None,
    "delete target": lambda w, c: make_anew(w, c.choice([GOOD, BAD])) if c.random() < 0.2 else None,
    "open by hand": lambda w, c: w.open_incident(name=f"by-hand-{c.randint(0, 3)}"),
    "forbid": lambda w, c: w.api.forbidden.add(c.choice([("patch", "Deployment"), ("get", "ConfigMap"), ("list", "Pod"), ("list", "RemediationPolicy")])),
    "allow": lambda w, c: w.api.forbidden.clear(),
    "trouble": lambda w, c: None,
    "restart": lambda w, c: w.start(),
    "time": lambda w, c: w.clock.advance(timedelta(seconds=c.choice([5, 30, 700]))),
}  # fmt: skip


async def chaos(seed: int) -> World:
    chance = random.Random(seed * 7919)
    w = await stuck(
        chance.choice(["L3", "L4", "L4"]), limits={"cooldown": chance.choice(["1s", "60s"])}, approval={"count": chance.choice([1, 1, 2])}
    )
    c = Chaos(w, seed)
    for _ in range(70):
        c.trouble = chance.choice([0, 0, 0, 0.02, 0.1])
        if chance.random() < 0.35:
            c.one()
        if chance.random() < 0.3 and w.phase == "AwaitingApproval":
            EVENTS["approve"](w, chance)
        await c.second(w)
    c.trouble = 0
    w.api.forbidden.clear()
    for place in (SHOP, SYSTEM):
        if ("ConfigMap", place, "nightorders-stop") in w.api.objects:
            w.resume(place)
    w.policy("L2")  # nothing new begins; what is under way must end
    w.start()
    await w.seconds(60)
    for _ in range(4):
        w.clock.advance(timedelta(minutes=3))
        await w.second()
        await w.seconds(3)
    return w


@pytest.mark.parametrize("seed", range(16))
async def test_nothing_is_left_behind_when_it_is_calm_again(seed: int) -> None:
    w = await chaos(seed)
    assert not w.incidents() or w.ended(), w.story()
    assert w.slots() == [], w.story()
