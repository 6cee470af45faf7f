"""The caller over an API server in memory: intention first, at least once, retried, and nobody waits for a slow channel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from nightorders.api.meta import API_VERSION, FINALIZER
from nightorders.api.v1alpha1 import Incident, IncidentStatus
from nightorders.api.v1alpha1.incident import Taken
from nightorders.api.v1alpha1.ledger import LedgerSpec
from nightorders.controller.caller import RARELY, RECHECK, Caller
from nightorders.controller.orders import channel_problems
from nightorders.controller.queue import WorkQueue
from nightorders.ports import ConflictError, PermanentError, PortError, TransientError
from tests.component.fakes import START as NOW
from tests.component.fakes import Announcer, Api, Call, Clock, Died, Incidents, Ledgers, Policies, Reader
from tests.unit.domain.make import outcome, policy
from tests.unit.domain.test_escalation import FAULT, NO_PLAN, UNDONE, WAITING, condition, execution

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
SHOP = "shop"
STAGED = condition("Planned", "True", "Staged")


@dataclass
class Channels:
    """Implements `Notifier`. `answers`: channel → what to do before it takes the message."""

    answers: dict[str, Callable[[], Any]] = field(default_factory=dict)
    sent: list[tuple[str, str, str]] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)

    def channels(self) -> tuple[str, ...]:
        return ("oncall", "pager")

    def problem(self, channel: str) -> str:
        return "" if channel in self.channels() else f"channel {channel} is not defined"

    async def send(self, channel: str, title: str, body: str) -> None:
        self.tried.append(channel)
        if why := self.problem(channel):
            raise PermanentError(why)
        answer = self.answers.get(channel, lambda: None)()
        if asyncio.iscoroutine(answer):
            await answer
        self.sent.append((channel, title, body))


def fails(error: PortError) -> Callable[[], Any]:
    def act() -> None:
        raise error

    return act


class World:
    """A namespace with a policy that calls after 15 minutes, and Incidents about the Deployment checkout."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.api = Api(self.clock)
        self.channels = Channels()
        self.api.put("Deployment", SHOP, "checkout", {"apiVersion": "apps/v1", "metadata": {"labels": {"tier": "web"}}, "spec": {}})
        self.policy("orders", {"after": "15m", "repeat": "1h", "to": ["oncall", "pager"]})
        self.caller = self.process()

    def process(self) -> Caller:
        """An operator that knows nothing but the store."""
        api = self.api
        return Caller(self.clock, Reader(api), Incidents(api), Policies(api), Ledgers(api), self.channels, Announcer(api))

    def policy(self, name: str, escalate: dict[str, Any] | None, *, tier: str = "", action: bool = True) -> None:
        rule = {
            "name": "rollback",
            "types": ["RollbackWorkload"],
            "level": "L3",
            "selector": {"matchLabels": {} if action else {"never": "x"}},
        }
        spec = {"selector": {"matchLabels": {"tier": tier} if tier else {}}, "rules": [rule], "breaker": {"failures": 1, "openFor": "1h"}}
        raw = {
            "apiVersion": API_VERSION,
            "kind": "RemediationPolicy",
            "metadata": {},
            "spec": spec | ({"escalate": escalate} if escalate else {}),
        }
        self.api.put("RemediationPolicy", SHOP, name, raw)

    def incident(self, *conditions: Any, name: str = "inc", **status: Any) -> tuple[str, str]:
        made = IncidentStatus(conditions=conditions, summary="Release 7 is broken.", first_summary_at=NOW - 20 * MINUTE, **status)
        raw = {
            "apiVersion": API_VERSION, "kind": "Incident", "metadata": {}, "status": made.wire(),
            "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "checkout"}},
        }  # fmt: skip
        self.api.put("Incident", SHOP, name, raw)
        return SHOP, name

    def status(self, name: str = "inc") -> IncidentStatus:
        return Incident.model_validate(self.api.objects[("Incident", SHOP, name)]).status

    def change(self, name: str = "inc", **status: Any) -> None:
        """As the reconciler: fields of the status, and a new version."""
        new = self.status(name).model_copy(update=status).wire()
        self.api.edit("Incident", SHOP, name, lambda raw: raw.update(status=new), "reconciler")

    def states(self, name: str = "inc") -> dict[str, tuple[str, int]]:
        e = self.status(name).escalation
        return {d.channel: (d.state, d.attempts) for d in e.deliveries} if e else {}

    def writes(self) -> int:
        return sum(c.call.verb == "status" and c.call.actor == "operator" for c in self.api.journal)

    async def passes(self, key: tuple[str, str], span: timedelta, caller: Caller | None = None) -> None:
        """As the queue would: whenever a pass is due, for that long."""
        end = self.clock.now() + span
        while True:
            again = await (caller or self.caller).look(key)
            if again is None or self.clock.now() + again > end:
                self.clock.advance(max(timedelta(0), end - self.clock.now()))
                return
            self.clock.advance(again)


BOTH = {"oncall": ("Delivered", 1), "pager": ("Delivered", 1)}


async def test_a_call_is_saved_sent_and_saved_again() -> None:
    w = World()
    key = w.incident(FAULT, STAGED, WAITING)
    seen: list[Any] = []
    w.channels.answers = {"oncall": lambda: seen.append(w.states())}
    await w.passes(key, MINUTE)
    assert seen == [{"oncall": ("Pending", 0), "pager": ("Pending", 0)}]  # the intention was there before the message
    assert w.states() == BOTH
    assert sorted(c for c, _, _ in w.channels.sent) == ["oncall", "pager"]
    assert w.channels.sent[0][1] == "[Warning] shop Deployment/checkout: needs an approval"
    assert [(e.kind, e.what.partition(":")[0]) for e in w.status().timeline] == [("Decision", "call 1 to oncall, pager")]
    assert sorted(w.api.events) == [("inc", "Called", "called oncall"), ("inc", "Called", "called pager")]


async def test_nothing_is_written_when_nothing_changed() -> None:
    w = World()
    key = w.incident(FAULT, NO_PLAN)
    await w.passes(key, MINUTE)
    before = w.writes()
    await w.passes(key, 50 * MINUTE)
    assert w.writes() == before
    assert len(w.channels.sent) == 2


async def test_it_calls_again_after_repeat() -> None:
    w = World()
    key = w.incident(FAULT, NO_PLAN)
    await w.passes(key, 2 * HOUR + MINUTE)
    assert len(w.channels.sent) == 6
    e = w.status().escalation
    assert e is not None
    assert e.times == 3
    assert "call 3" in w.channels.sent[-1][2]


@pytest.mark.parametrize("escalate", [None, {"after": "15m", "to": ["oncall"]}])
async def test_without_orders_nobody_is_called(escalate: dict[str, Any] | None) -> None:
    w = World()
    w.api.delete("RemediationPolicy", SHOP, "orders")
    w.policy("orders", escalate, tier="" if escalate is None else "db")
    key = w.incident(FAULT, NO_PLAN)
    assert await w.caller.look(key) == RARELY
    assert w.channels.tried == []
    assert w.writes() == 0


async def test_the_governing_policy_decides_else_one_that_matches() -> None:
    w = World()
    w.api.delete("RemediationPolicy", SHOP, "orders")
    w.policy("a-calls-only", {"to": ["pager"]}, tier="web", action=False)
    w.policy("web", {"to": ["oncall"]}, tier="web")
    key = w.incident(FAULT, NO_PLAN)
    await w.passes(key, MINUTE)
    assert [c for c, _, _ in w.channels.sent] == ["oncall"]
    w.api.delete("RemediationPolicy", SHOP, "web")
    await w.passes(w.incident(FAULT, NO_PLAN, name="two"), MINUTE)
    assert [c for c, _, _ in w.channels.sent] == ["oncall", "pager"]


async def test_a_target_that_is_gone_is_governed_by_what_governs_everything() -> None:
    w = World()
    w.policy("a-web", {"to": ["pager"]}, tier="web", action=False)
    w.api.delete("Deployment", SHOP, "checkout")
    await w.passes(w.incident(condition("Stalled", "True", "TargetNotFound")), MINUTE)
    assert sorted(c for c, _, _ in w.channels.sent) == ["oncall", "pager"]


async def test_a_target_that_cannot_be_read_is_looked_at_again_soon() -> None:
    """Of a kind that fails for a moment the labels are unknown, and the policy that names the channel is not found."""
    w = World()
    w.api.delete("RemediationPolicy", SHOP, "orders")
    w.policy("web", {"to": ["oncall"]}, tier="web")
    key = w.incident(FAULT, NO_PLAN)
    reader = Reader(w.api, unread={"Deployment": "failed: 500"})
    caller = Caller(w.clock, reader, Incidents(w.api), Policies(w.api), Ledgers(w.api), w.channels, Announcer(w.api))
    assert await caller.look(key) == RECHECK
    reader.unread.clear()
    await w.passes(key, MINUTE, caller)
    assert [c for c, _, _ in w.channels.sent] == ["oncall"]


# ---------------------------------------------------------------- crashes, races, failures


@pytest.mark.promise(4)
@pytest.mark.parametrize("write", [1, 2, 3])
@pytest.mark.parametrize("where", ["before", "after"])
async def test_a_crash_around_any_write_loses_no_call(write: int, where: str) -> None:
    """Writes: the intention, and the answer of each channel. A message may go out twice, never not at all."""
    w = World()
    key = w.incident(FAULT, NO_PLAN, UNDONE, executions=(execution(at=NOW - MINUTE),))

    async def die(call: Call) -> None:
        if call.number == write:
            raise Died

    setattr(w.api, where, die)
    died = False
    try:
        await w.passes(key, MINUTE)
    except (Died, BaseExceptionGroup):
        died = True
    w.api.before = w.api.after = lambda _: asyncio.sleep(0)
    await w.passes(key, MINUTE, w.process())
    assert died or write == 3  # both answers may be saved at once
    assert w.states() == BOTH | {c: (s, n) for c, (s, n) in w.states().items() if s == "Delivered"}
    for channel in ("oncall", "pager"):
        assert 1 <= sum(c == channel for c, _, _ in w.channels.sent) <= 2
    e = w.status().escalation
    assert e is not None
    assert e.times == 1


async def test_an_answer_that_cannot_be_saved_is_no_reason_to_send_again() -> None:
    w = World()
    key = w.incident(FAULT, NO_PLAN)

    async def away(call: Call) -> None:
        if call.number > 1:
            raise TransientError("the API server is away")

    w.api.before = away
    for _ in range(3):
        with pytest.raises(TransientError):
            await w.caller.look(key)
    w.api.before = lambda _: asyncio.sleep(0)
    await w.passes(key, MINUTE)
    assert w.states() == BOTH
    assert len(w.channels.sent) == 2


async def test_the_reconciler_may_write_at_any_moment() -> None:
    w = World()
    key = w.incident(FAULT, NO_PLAN)
    w.channels.answers = {"oncall": lambda: w.change(summary="Release 7 is broken, and more is known.")}
    lost = False

    async def race(call: Call) -> None:
        nonlocal lost
        if call.writes and not lost:
            lost = True
            raise ConflictError("changed since it was read (409)")

    w.api.before = race
    await w.passes(key, MINUTE)
    assert w.states() == BOTH
    assert w.status().summary == "Release 7 is broken, and more is known."
    assert len(w.channels.sent) == 2


async def test_a_failure_is_seen_and_tried_again_until_it_is_delivered() -> None:
    w = World()
    key = w.incident(FAULT, NO_PLAN)
    w.channels.answers = {"pager": fails(TransientError("channel pager answers with 500"))}
    await w.passes(key, MINUTE)
    state, attempts = w.states()["pager"]
    assert (state, w.states()["oncall"]) == ("Failed", ("Delivered", 1))
    assert attempts == 4  # at 0, 5, 15 and 35 seconds
    e = w.status().escalation
    assert e is not None
    assert e.deliveries[1].message == "channel pager answers with 500"
    assert ("inc", "CallFailed", "call 1 to pager failed: channel pager answers with 500; tried again") in w.api.events
    w.channels.answers = {}
    await w.passes(key, 5 * MINUTE)
    assert w.states()["pager"] == ("Delivered", 5)
    assert [c for c, _, _ in w.channels.sent] == ["oncall", "pager"]


async def test_an_unknown_channel_fails_visibly_and_goes_out_once_it_is_defined() -> None:
    w = World()
    w.api.delete("RemediationPolicy", SHOP, "orders")
    w.policy("orders", {"to": ["chat"]})
    key = w.incident(FAULT, NO_PLAN)
    await w.passes(key, MINUTE)
    assert w.states()["chat"][0] == "Failed"
    w.channels.problem = lambda _: ""  # type: ignore[method-assign]
    await w.passes(key, 15 * MINUTE)
    assert w.states()["chat"][0] == "Delivered"


async def test_taking_it_stops_repeats_and_retries() -> None:
    w = World()
    key = w.incident(FAULT, NO_PLAN)
    w.channels.answers = {"pager": fails(TransientError("no"))}
    await w.passes(key, MINUTE)
    w.change(taken=Taken(by="ann", at=w.clock.now()))
    before = len(w.channels.tried), w.writes()
    await w.passes(key, 5 * HOUR)
    assert (len(w.channels.tried), w.writes()) == before


# ---------------------------------------------------------------- slow channels


async def test_a_slow_channel_delays_no_other() -> None:
    """Twenty Incidents and two channels, one of which hangs: the other one has delivered everything meanwhile."""
    w = World()
    hang = asyncio.Event()
    w.channels.answers = {"pager": lambda: hang.wait()}
    queue: WorkQueue[tuple[str, str]] = WorkQueue("calls", w.caller.look, workers=4)
    running = asyncio.create_task(queue.run())
    for n in range(20):
        queue.add(w.incident(FAULT, NO_PLAN, name=f"inc{n}"))
    async with asyncio.timeout(60):
        while sum(c == "oncall" for c, _, _ in w.channels.sent) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert w.channels.tried.count("pager") == 1
    assert all(w.states(f"inc{n}")["pager"] == ("Pending", 0) for n in range(20))
    hang.set()
    running.cancel()


async def test_the_fast_answer_is_saved_while_the_slow_one_is_waited_for() -> None:
    w = World()
    hang = asyncio.Event()
    w.channels.answers = {"pager": lambda: hang.wait()}
    key = w.incident(FAULT, NO_PLAN)
    task = asyncio.create_task(w.caller.look(key))
    async with asyncio.timeout(5):
        while w.states().get("oncall") != ("Delivered", 1):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert w.states()["pager"] == ("Pending", 0)
    hang.set()
    await task
    assert w.states() == BOTH


# ---------------------------------------------------------------- the breaker


async def test_the_message_says_that_the_breaker_opened() -> None:
    w = World()
    key = w.incident(FAULT, NO_PLAN, UNDONE, executions=(execution(at=NOW - MINUTE),))
    spec = LedgerSpec(outcomes=(outcome("no-1", "Deployment/checkout", NOW - 2 * MINUTE, result="Undone", ended_at=NOW - MINUTE),))
    w.api.put("Ledger", SHOP, "ledger", {"apiVersion": API_VERSION, "kind": "Ledger", "spec": spec.wire()})
    await w.passes(key, MINUTE)
    body = w.channels.sent[0][2]
    assert "Breaker: 1 failures of RollbackWorkload on Deployments within" in body
    assert "open until 12:59:00Z" in body


async def test_it_waits_for_the_books_to_be_closed_but_not_for_ever() -> None:
    w = World()
    key = w.incident(FAULT, NO_PLAN, condition("Closed", "False", "Undone", at=NOW), executions=(execution(at=NOW),))
    w.api.edit("Incident", SHOP, "inc", lambda raw: raw["metadata"].update(finalizers=[FINALIZER]))
    again = await w.caller.look(key)
    assert again is not None
    assert again <= 10 * SECOND
    assert w.channels.sent == []
    w.clock.advance(again)
    await w.passes(key, MINUTE)
    assert len(w.channels.sent) == 2


async def test_an_incident_that_is_gone_is_nothing() -> None:
    w = World()
    assert await w.caller.look((SHOP, "none")) is None


def test_a_policy_says_which_channel_nobody_hears() -> None:
    named = policy(escalate={"to": ["oncall", "chat"]})
    assert channel_problems(named, Channels()) == ["chat: channel chat is not defined"]
    assert channel_problems(policy(), Channels()) == []
