"""A namespace `shop` with a Deployment `checkout`, release 6 healthy and recorded, release 7 stuck, and the real controller over it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from nightorders.api.meta import (
    API_VERSION,
    APPROVE_PREFIX,
    FLEET_LEDGER_NAME,
    LEDGER_NAME,
    REJECT_PREFIX,
    STOP_CONFIGMAP,
    TAKE_PREFIX,
    WHY_PREFIX,
)
from nightorders.api.v1alpha1 import Incident, Ledger
from nightorders.controller.executor import Executor
from nightorders.controller.gatherer import Gatherer, Ports
from nightorders.controller.janitor import Janitor, is_open
from nightorders.controller.pauses import Pauses
from nightorders.controller.reconciler import Reconciler
from nightorders.controller.watchman import Watchman
from nightorders.domain.situation import Operator as Identity
from nightorders.domain.situation import Proof
from nightorders.ports import PortError
from tests.component.controllers import Controllers
from tests.component.fakes import (
    Announcer,
    Api,
    Clock,
    Guard,
    Incidents,
    Json,
    Ledgers,
    Metrics,
    Policies,
    Reader,
    Target,
    clone,
    stamp,
)

SHOP, SYSTEM = "shop", "nightorders-system"
IDENTITY = Identity("system:serviceaccount:nightorders-system:nightorders", SYSTEM)
IMAGE = "registry.example/checkout"
GOOD, BAD = f"{IMAGE}:6", f"{IMAGE}:7"
SECOND = timedelta(seconds=1)
RELIST = timedelta(seconds=60)
OWNERS = ("Application", "Kustomization", "HelmRelease")
VERIFY = {"for": "12s", "every": "3s"}
LIMITS = {"stalledAfter": "10s", "cooldown": "10m"}


class Process:
    """One operator process: everything that `wiring` builds, over the fakes. A new one knows nothing but the store."""

    def __init__(self, world: World, actor: str = "operator", *, detect: bool = True) -> None:
        api, clock = world.api, world.clock
        self.world, self.actor = world, actor
        self.reader = Reader(api, actor)
        self.guard, self.metrics = Guard(clock), Metrics()
        incidents, ledgers = Incidents(api, actor), Ledgers(api, actor)
        ports = Ports(clock, self.reader, incidents, Policies(api, actor), ledgers, self.metrics, self.guard)
        self.gatherer = Gatherer(ports, IDENTITY)
        self.executor = Executor(
            clock, incidents, ledgers, Target(api, actor), Announcer(api), IDENTITY, lambda text: text,
            paused=lambda namespace: self.pauses.expect(namespace),
        )  # fmt: skip
        self.pauses = Pauses(clock, self.reader, incidents, ledgers, Target(api, actor), Announcer(api), self.executor.book, IDENTITY)
        self.reconciler = Reconciler(clock, incidents, self.gatherer, self.executor)
        self.schemas = Proof(True, "current")
        self.watchman = Watchman(
            clock, self.reader, incidents, ledgers, self.gatherer, self.executor.book,
            detect=detect, detect_after=3 * SECOND, operator_namespace=SYSTEM,
        )  # fmt: skip
        self.janitor = Janitor(clock, incidents, ledgers, self.guard, self.gatherer, self.executor.book, self._schemas, SYSTEM)
        self._due: dict[tuple[str, str], datetime] = {}
        self._seen: dict[tuple[str, str], str] = {}
        self._look: dict[str, datetime] = {}
        self._failures: dict[tuple[str, str], int] = {}
        self._relist: datetime | None = None
        self.errors: list[Exception] = []
        self.passes = 0
        self._busy = 0

    async def _schemas(self) -> Proof:
        return self.schemas

    async def work(self) -> None:
        """What is due at this moment, in the order of the real process: proofs, list, watch, passes."""
        now = self.world.clock.now()
        if self._relist is None or now - self._relist >= RELIST:
            self._relist = now
            await self.janitor.prove()
            await self.janitor.relist(lambda key: self._due.__setitem__(key, now))
        await self._watch(now)
        await self.pauses.look()
        for _ in range(12):
            keys = [k for k in self._keys() if self._is_due(k, now)]
            if not keys:
                self._busy = 0
                return
            for key in keys:
                await self.look(key)
        self._busy += 1
        assert self._busy < 20, "the operator is busy for ever"

    async def _watch(self, now: datetime) -> None:
        await self.watchman.watch(lambda ns, _: self._look.__setitem__(ns, now), lambda ns, _: None, lambda ns, _: None)
        for namespace in [ns for ns, due in self._look.items() if due <= now]:
            del self._look[namespace]
            try:
                again = await self.watchman.inspect(namespace)
            except PortError as error:
                self.errors.append(error)
                again = SECOND
            if again is not None:
                self._look[namespace] = now + again

    def _keys(self) -> list[tuple[str, str]]:
        return [(ns, n) for (k, ns, n) in sorted(self.world.api.objects) if k == "Incident"]

    def _is_due(self, key: tuple[str, str], now: datetime) -> bool:
        version = self.world.api.objects[("Incident", *key)]["metadata"]["resourceVersion"]
        return self._seen.get(key) != version or (key in self._due and self._due[key] <= now)

    async def look(self, key: tuple[str, str]) -> None:
        """One pass, with the queue's treatment of errors."""
        now = self.world.clock.now()
        objects = self.world.api.objects
        before = objects[("Incident", *key)]["metadata"]["resourceVersion"] if ("Incident", *key) in objects else ""
        at = len(self.world.api.journal)
        self._due.pop(key, None)
        self.passes += 1
        try:
            again = await self.reconciler.reconcile(key)
            self._failures.pop(key, None)
        except PortError as error:
            self.errors.append(error)
            tries = self._failures[key] = self._failures.get(key, 0) + 1
            again = timedelta(seconds=min(60, 0.5 * 2 ** (tries - 1)))
            try:
                await self.reconciler.failed(key, error, tries)
            except PortError as second:
                self.errors.append(second)
        own = [c.after for c in self.world.api.journal[at:] if c.call.actor == self.actor and c.call.kind == "Incident" and c.after]
        self._seen[key] = own[-1]["metadata"]["resourceVersion"] if own else before
        if again is not None:
            self._due[key] = now + again


@dataclass
class World:
    """Store, clock, controllers, and what people do."""

    clock: Clock = field(default_factory=Clock)
    processes: list[Process] = field(default_factory=list)
    exempt: bool = False  # from the oracle at the end of the test: its code has a bug on purpose

    def __post_init__(self) -> None:
        self.api = Api(self.clock)
        self.controllers = Controllers(self.api, missing={BAD})
        self._incidents: dict[str, Incident] = {}
        self.at_each_second: Callable[[], None] = lambda: None

    # ------------------------------------------------------------ building

    @classmethod
    def empty(cls) -> World:
        """Only namespaces and a node."""
        w = cls()
        for name in (SHOP, SYSTEM):
            w.api.put("Namespace", "", name, {"metadata": {"labels": {"kubernetes.io/metadata.name": name}}})
        w.api.put("Node", "", "node-1", {"metadata": {}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        return w

    def deploy(self, name: str = "checkout", image: str = GOOD, **spec: Any) -> None:
        labels = {"app": name}
        raw = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"labels": {**labels, "tier": "web"}, "annotations": {"deployment.kubernetes.io/revision": "6"}},
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": labels},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
                "progressDeadlineSeconds": 600,
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": image}]}},
                **spec,
            },
        }
        self.api.put("Deployment", SHOP, name, raw, "team")

    def release(self, image: str, name: str = "checkout", actor: str = "team") -> None:
        """A new image, by somebody."""
        self.api.edit("Deployment", SHOP, name, lambda d: d["spec"]["template"]["spec"]["containers"][0].update(image=image), actor)

    def policy(
        self,
        level: str,
        name: str = "orders",
        *,
        approval: Json | None = None,
        verify: Json | None = None,
        limits: Json | None = None,
        orders: Json | None = None,
        **selector: str,
    ) -> None:
        """`orders`: further fields of the spec, such as freezes."""
        rule = {
            "name": "rollback",
            "types": ["RollbackWorkload"],
            "level": level,
            "approval": approval or {"count": 1},
            "limits": {**LIMITS, **(limits or {})},
            "verify": {**VERIFY, **(verify or {})},
        }
        spec = {"selector": {"matchLabels": selector}, "rules": [rule], **(orders or {})}
        self.api.put("RemediationPolicy", SHOP, name, {"apiVersion": API_VERSION, "kind": "RemediationPolicy", "spec": spec}, "team")

    def cluster_policy(self, name: str = "platform", **spec: Any) -> None:
        self.api.put(
            "ClusterRemediationPolicy", "", name, {"apiVersion": API_VERSION, "kind": "ClusterRemediationPolicy", "spec": spec}, "platform"
        )

    # ------------------------------------------------------------ time

    def start(self, actor: str = "operator", **options: Any) -> Process:
        """A new operator process; the ones before are gone."""
        self.processes = [Process(self, actor, **options)]
        return self.processes[0]

    @property
    def operator(self) -> Process:
        return self.processes[0]

    async def second(self) -> None:
        """One second passes."""
        self.clock.advance(SECOND)
        self.at_each_second()
        self.controllers.sync()
        for process in self.processes:
            await process.work()

    async def seconds(self, n: int) -> None:
        for _ in range(n):
            await self.second()

    async def until(self, holds: Callable[[], Any], within: int = 120) -> None:
        """Seconds pass until that holds."""
        for _ in range(within):
            if holds():
                return
            await self.second()
        raise AssertionError(f"not within {within} s; {self.story()}")

    async def until_phase(self, *phases: str, within: int = 120) -> None:
        await self.until(lambda: self.phase in phases, within)

    # ------------------------------------------------------------ what people do

    def incidents(self) -> list[Incident]:
        return [self._parsed(raw) for raw in self.api.all("Incident")]

    def _parsed(self, raw: Json) -> Incident:
        version = raw["metadata"]["resourceVersion"]
        if version not in self._incidents:
            self._incidents[version] = Incident.model_validate(raw)
        return self._incidents[version]

    @property
    def incident(self) -> Incident:
        """The newest one."""
        found = self.incidents()
        assert found, "there is no Incident"
        return found[-1]

    @property
    def phase(self) -> str:
        found = self.incidents()
        return str(found[-1].status.phase or "") if found else "none"

    def answer(self, prefix: str, user: str, key: str = "", digest: str | None = None, why: str = "") -> None:
        i = self.incident
        if digest is None:
            assert i.status.plan is not None
            digest = i.status.plan.digest
        notes = {f"{prefix}{key or user}": f"{digest}|{user}"} | ({f"{WHY_PREFIX}{key or user}": why} if why else {})
        self.api.edit("Incident", SHOP, i.metadata.name, lambda raw: raw["metadata"].setdefault("annotations", {}).update(notes), user)

    def approve(self, user: str = "alice", **more: Any) -> None:
        self.answer(APPROVE_PREFIX, user, **more)

    def reject(self, user: str = "bob", **more: Any) -> None:
        self.answer(REJECT_PREFIX, user, **more)

    def take(self, user: str = "eve") -> None:
        name = self.incident.metadata.name
        self.api.edit(
            "Incident", SHOP, name, lambda raw: raw["metadata"].setdefault("annotations", {}).update({f"{TAKE_PREFIX}x": user}), user
        )

    def give_back(self, user: str = "eve") -> None:
        self.api.edit(
            "Incident", SHOP, self.incident.metadata.name, lambda raw: raw["metadata"]["annotations"].pop(f"{TAKE_PREFIX}x"), user
        )

    def withdraw(self, user: str = "alice") -> None:
        self.api.edit(
            "Incident", SHOP, self.incident.metadata.name, lambda raw: raw["metadata"]["annotations"].pop(f"{APPROVE_PREFIX}{user}"), user
        )

    def stop(self, namespace: str = SHOP) -> None:
        self.api.put("ConfigMap", namespace, STOP_CONFIGMAP, {"metadata": {}}, "oncall")

    def resume(self, namespace: str = SHOP) -> None:
        self.api.delete("ConfigMap", namespace, STOP_CONFIGMAP, "oncall")

    def suspend(self, on: bool = True) -> None:
        self.api.edit("Incident", SHOP, self.incident.metadata.name, lambda raw: raw["spec"].update(suspend=on), "oncall")

    def open_incident(self, name: str = "by-hand", requester: str = "carol", target: str = "checkout") -> None:
        spec = {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}, "requestedBy": requester}
        self.api.put("Incident", SHOP, name, {"apiVersion": API_VERSION, "kind": "Incident", "spec": spec}, requester)

    # ------------------------------------------------------------ what there is

    def image(self, name: str = "checkout") -> str:
        return str(self.api.objects[("Deployment", SHOP, name)]["spec"]["template"]["spec"]["containers"][0]["image"])

    def ledger(self, namespace: str = SHOP) -> Ledger:
        return Ledger.model_validate(self.api.objects[("Ledger", namespace, LEDGER_NAME if namespace == SHOP else FLEET_LEDGER_NAME)])

    def slots(self) -> list[str]:
        return [r["execution"] for raw in self.api.all("Ledger") for r in raw["spec"].get("reservations", ())]

    def mutations(self) -> list[Any]:
        """Committed changes of workloads by operators."""
        return [c for c in self.api.journal if c.call.verb == "patch" and c.call.kind not in OWNERS]

    def pausings(self) -> list[Any]:
        """Committed changes of GitOps owners by operators."""
        return [c for c in self.api.journal if c.call.verb == "patch" and c.call.kind in OWNERS]

    def results(self) -> list[str]:
        return [f"{e.by}:{e.result or e.state}" for i in self.incidents() for e in i.status.executions]

    def story(self) -> str:
        return "\n".join(
            f"{i.metadata.name} {i.status.phase} executions={[(e.state, e.result) for e in i.status.executions]} "
            f"conditions={[(c.type, c.status, c.reason, c.message[:140]) for c in i.status.conditions]} "
            f"errors={[str(e) for p in self.processes for e in p.errors[-3:]]}"
            for i in self.incidents()
        )

    def ended(self) -> bool:
        """Nothing of the operator's is under way."""
        return bool(self.incidents()) and not any(
            i.metadata.finalizers or any(e.state != "Ended" for e in i.status.executions) for i in self.incidents()
        )

    def all_closed(self) -> bool:
        return not any(is_open(i) for i in self.incidents())

    # ------------------------------------------------------------ saving and loading

    def fork(self) -> World:
        """The same store at the same moment, without any process."""
        w = World(Clock(self.clock.now()))
        w.api.objects = clone(self.api.objects)
        w.api.journal = list(self.api.journal)
        w.api._version, w.api._uid = self.api._version, self.api._uid
        w.controllers = Controllers(w.api, set(self.controllers.missing), set(self.controllers.sick), self.controllers._pods)
        return w


_stuck: list[World] = []


async def stuck(level: str | None = None, **rule: Any) -> World:
    """Release 6 was seen healthy, release 7 is stuck, its Incident was opened a moment ago; the operator is about to look at it."""
    if not _stuck:
        w = World.empty()
        w.deploy()
        w.start()
        await w.until(lambda: ("Ledger", SHOP, LEDGER_NAME) in w.api.objects and w.ledger().spec.healthy_revisions)
        w.release(BAD)
        while not w.incidents():
            w.clock.advance(SECOND)
            w.controllers.sync()
            await w.operator._watch(w.clock.now())
        _stuck.append(w)
    w = _stuck[0].fork()
    if level is not None:
        w.policy(level, **rule)
    w.start()
    return w


def at(seconds: float) -> str:
    return stamp(Clock().now() + timedelta(seconds=seconds))
