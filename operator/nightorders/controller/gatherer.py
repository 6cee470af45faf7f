"""Reads everything that one pass needs, side by side, and decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from ..actions import CATALOGUE
from ..actions.base import Unavailable
from ..api.meta import APPROVE_PREFIX, EMERGENCY_PREFIX, FLEET_LEDGER_NAME, LEDGER_NAME, STOP_CONFIGMAP, LabelSelector
from ..api.v1alpha1.clusterpolicy import ClusterRemediationPolicy
from ..api.v1alpha1.common import ObjectRef
from ..api.v1alpha1.incident import Cost, Incident, Measurement, Plan, SymptomReading
from ..api.v1alpha1.ledger import Ledger
from ..api.v1alpha1.policy import RemediationPolicy
from ..api.v1alpha1.runbook import Runbook, Symptom
from ..diagnosis import engine
from ..diagnosis.claim import Claim
from ..domain import gitops, verification
from ..domain import runbooks as rb
from ..domain.autonomy import own_labels
from ..domain.diagnosis import Diagnosis, Finding
from ..domain.digest import spec_sha256, template_sha256
from ..domain.gates import DisruptionBudget, Rollout, Stop, fleet_limit
from ..domain.interference import changed_since
from ..domain.orders import Governing, Orders, governing_rule
from ..domain.ownership import Owner
from ..domain.plan import NoProposal, Proposal, digest_for, fill, variables_of
from ..domain.record import is_closed, running
from ..domain.situation import BudgetAnswer, Operator, Proof, Situation
from ..domain.snapshot import Absent, KubeObject, Listing, NotLooked, Snapshot, Vector
from ..ports import (
    ApprovalGuard,
    Clock,
    ClusterReader,
    Incidents,
    Ledgers,
    Metrics,
    ObjectKey,
    Policies,
    PortError,
    Runbooks,
    Sample,
    Unreadable,
)
from . import triage

SHARED_FOR = timedelta(seconds=5)
CLUSTER_FOR = timedelta(seconds=10)
LOG_LINES = 40
SYMPTOM_FOR = timedelta(seconds=30)  # a symptom's answer is shared so long: it informs, and no level rises by it
SYMPTOMS_AT_ONCE = 4
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")


@dataclass(frozen=True)
class Ports:
    """Everything from outside that the controller reads and writes through. `runbooks` None: none are read (from a laptop, from files)."""

    clock: Clock
    reader: ClusterReader
    incidents: Incidents
    policies: Policies
    ledgers: Ledgers
    metrics: Metrics
    guard: ApprovalGuard
    runbooks: Runbooks | None = None


class Gatherer:
    """Makes a Situation. Snapshots of a namespace are shared by its Incidents for a few seconds."""

    def __init__(self, ports: Ports, operator: Operator, neighbours: Callable[[str, str], int] = lambda *_: 0) -> None:
        """`neighbours`: how many open Incidents of that namespace are about other objects than `Kind/name`."""
        self._ports = ports
        self._neighbours = neighbours
        self._operator = operator
        self._shared: dict[str, Snapshot] = {}
        self._cluster: dict[str, Listing] = {}
        self._neighbour_snapshots: dict[str, Snapshot] = {}
        self._symptoms: dict[tuple[str, str], tuple[datetime, Sample]] = {}
        self._asking = asyncio.Semaphore(SYMPTOMS_AT_ONCE)
        self.guard = Proof(False, "the approval guard has not been proven yet")
        self.schemas = Proof(False, "the custom resource schemas have not been compared yet")

    async def situation(self, incident: Incident) -> Situation:
        """One pass's facts about that Incident. Raises TransientError where not even the Ledgers can be read."""
        execution = running(incident.status)
        looks = execution is None and not is_closed(incident.status)
        approved = looks and incident.status.plan is not None and answered(incident)
        samples = execution is not None and execution.state == "Applied" and sample_due(incident, self._ports.clock.now())
        (base, (found, unreadable, unread)), target, snapshot, report, source = await asyncio.gather(
            self._written(incident, runbooks=looks or (execution is not None and execution.state == "Reserved")),
            self._target(incident),
            self._snapshot_for(incident, looks=looks, samples=samples),
            self._ports.guard.prove(incident) if approved else nothing(),
            self._source(incident),
        )
        s = replace(
            base,
            target=target,
            neighbours=self._neighbours(incident.metadata.namespace, incident.spec.target.title),
            unknown=(*base.unknown, *unread),
            runbooks=rb.Consulted(unreadable=unreadable),
        )
        if isinstance(target, KubeObject):
            owner, owner_object = await self._owner(target)
            s = replace(s, owner=owner, owner_object=owner_object)
        if report is not None:
            s = replace(s, guard=Proof(report.proven, report.message))
        labels = own_labels(target.labels) if isinstance(target, KubeObject) else {}
        if execution is not None:
            s = self._consulted(s, rb.matching(found, incident, labels, incident.status.hypotheses))
            return await self._for_execution(s, snapshot, source)
        if snapshot is None:
            return s
        claim = await triage.claim_of(incident, self._ports.metrics, self._ports.clock.now())
        s = replace(s, claim_over=claim.because if claim is not None and (claim.resolved or claim.firing is False) else "")
        if isinstance(target, KubeObject):
            return await self._for_decision(s, target, snapshot, claim, found)
        diagnosis, consulted = await self._with_runbooks(s, self._diagnosed(s, snapshot, claim), found)
        return replace(s, diagnosis=diagnosis, runbooks=consulted, looked_at=snapshot.at)

    # ------------------------------------------------------------ runbooks

    async def _written(
        self, incident: Incident, *, runbooks: bool
    ) -> tuple[Situation, tuple[list[Runbook], tuple[str, ...], tuple[str, ...]]]:
        """Orders and books; and beside them the runbooks, those that cannot be understood, and why none could be read."""
        base, found = await asyncio.gather(
            self._orders_and_books(incident), self._runbooks(incident.metadata.namespace) if runbooks else no_runbooks()
        )
        return base, found

    async def _runbooks(self, namespace: str) -> tuple[list[Runbook], tuple[str, ...], tuple[str, ...]]:
        if self._ports.runbooks is None:
            return await no_runbooks()
        try:
            found = await self._ports.runbooks.of(namespace)
        except PortError as error:
            return [], (), (f"runbooks: {error}",)
        unreadable = tuple(f"Runbook/{r.name}: {r.message}" for r in found if isinstance(r, Unreadable))
        return [r for r in found if isinstance(r, Runbook)], unreadable, ()

    @staticmethod
    def _consulted(s: Situation, matched: tuple[rb.Matched, ...]) -> Situation:
        return replace(s, runbooks=replace(s.runbooks, matched=matched))

    async def _with_runbooks(self, s: Situation, diagnosis: Diagnosis, found: Sequence[Runbook]) -> tuple[Diagnosis, rb.Consulted]:
        """The diagnosis ranked with what matches it, and what the runbooks say; symptoms are asked for the first few."""
        target = s.target if isinstance(s.target, KubeObject) else None
        labels = own_labels(target.labels) if target is not None else {}
        matched = rb.matching(found, s.incident, labels, diagnosis.hypotheses)
        asked = await asyncio.gather(*(self._asked(m, s, target) for m in matched[: rb.SHOWN]))
        diagnosis, consulted = rb.ranked(diagnosis, (*asked, *matched[rb.SHOWN :]))
        return diagnosis, replace(consulted, unreadable=s.runbooks.unreadable)

    async def _asked(self, m: rb.Matched, s: Situation, target: KubeObject | None) -> rb.Matched:
        namespace, ref = s.incident.metadata.namespace, s.incident.spec.target
        variables = {"namespace": namespace, "name": ref.name, "kind": ref.kind}
        return replace(m, symptoms=tuple([await self._symptom(one, variables, namespace, target) for one in m.runbook.spec.symptoms]))

    async def _symptom(self, one: Symptom, variables: Mapping[str, str], namespace: str, target: KubeObject | None) -> SymptomReading:
        now = self._ports.clock.now()
        if one.condition is not None:
            return rb.observed(one, target, now)
        query = rb.query_of(one, variables)
        async with self._asking:
            self._symptoms = {k: v for k, v in self._symptoms.items() if timedelta(0) <= now - v[0] < SYMPTOM_FOR}
            if (namespace, query) not in self._symptoms:
                self._symptoms[(namespace, query)] = (now, await self._ports.metrics.query(query, now, namespace=namespace))
            at, answer = self._symptoms[(namespace, query)]
        return rb.measured(one, answer.value, answer.message, at)

    # ------------------------------------------------------------ always

    async def _orders_and_books(self, incident: Incident) -> Situation:
        namespace = incident.metadata.namespace
        ports = self._ports
        (orders, unknown), ns, ledger, fleet, stop = await asyncio.gather(
            self._orders(namespace),
            ports.reader.get(ObjectKey("v1", "Namespace", "", namespace)),
            ports.ledgers.get(namespace, LEDGER_NAME),
            ports.ledgers.get(self._operator.namespace, FLEET_LEDGER_NAME),
            self.stop(namespace),
        )
        if isinstance(ns, NotLooked):
            unknown = (*unknown, f"Namespace/{namespace}: {ns.because}")
        return Situation(
            operator=self._operator,
            incident=incident,
            target=NotLooked(incident.spec.target.title, "not asked yet"),
            orders=orders,
            namespace_object=ns if isinstance(ns, KubeObject) else None,
            ledger=ledger,
            fleet=fleet,
            stop=stop,
            guard=self.guard,
            schemas=self.schemas,
            unknown=unknown,
        )

    async def _orders(self, namespace: str) -> tuple[Orders, tuple[str, ...]]:
        try:
            own, cluster = await asyncio.gather(self._ports.policies.of(namespace), self._ports.policies.cluster())
        except PortError as error:
            return Orders(), (f"policies: {error}",)
        return (
            Orders(
                policies=tuple(p for p in own if isinstance(p, RemediationPolicy)),
                cluster=tuple(p for p in cluster if isinstance(p, ClusterRemediationPolicy)),
                unreadable=tuple(f"RemediationPolicy/{p.name}: {p.message}" for p in own if isinstance(p, Unreadable)),
                cluster_unreadable=tuple(f"ClusterRemediationPolicy/{p.name}: {p.message}" for p in cluster if isinstance(p, Unreadable)),
            ),
            (),
        )

    async def stop(self, namespace: str) -> Stop:
        """Whether a stop is in force for that namespace, read directly."""
        places = (namespace, self._operator.namespace)
        found = await asyncio.gather(*(self._ports.reader.get(ObjectKey("v1", "ConfigMap", p, STOP_CONFIGMAP)) for p in places))
        denied = any(isinstance(a, KubeObject) and a.at("data", "undo") == "Deny" for a in found)
        for place, answer in zip(places, found, strict=True):
            if isinstance(answer, KubeObject):
                return Stop(where=place, undo_denied=denied)
            if isinstance(answer, NotLooked):
                return Stop(unknown=f"ConfigMap/{STOP_CONFIGMAP} in {place}: {answer.because}")
        return Stop()

    async def _target(self, incident: Incident) -> KubeObject | Absent | NotLooked:
        t = incident.spec.target
        return await self._ports.reader.get(ObjectKey(t.api_version, t.kind, incident.metadata.namespace, t.name))

    async def _owner(self, target: KubeObject) -> tuple[Owner | None, KubeObject | Absent | NotLooked | None]:
        """Who would revert a live edit, and what the owner's own object says (None: nothing points to one, or more than one)."""
        found = [c for c in gitops.claims(target) if c.possible]
        if not found:
            return gitops.owner_of(target, {}, self._account), None
        keys = (ObjectKey(c.api_version, c.kind, c.namespace, c.name) for c in found)
        answers = dict(zip(found, await asyncio.gather(*(self._ports.reader.get(key) for key in keys)), strict=True))
        owner = gitops.owner_of(target, answers, self._account)
        return owner, answers[found[0]] if len(found) == 1 and owner is not None else None

    @property
    def _account(self) -> str:
        """`namespace:name` of our ServiceAccount."""
        return self._operator.username.removeprefix("system:serviceaccount:")

    # ------------------------------------------------------------ before an execution

    @staticmethod
    def _diagnosed(s: Situation, snapshot: Snapshot, claim: Claim | None) -> Diagnosis:
        healthy = s.ledger.spec.healthy_revisions if s.ledger else ()
        found = engine.diagnose(snapshot, s.incident.spec.target, healthy, snapshot.at, claim)
        noted = triage.gaps_of_signal(s.incident)
        return replace(found, gaps=(*noted, *found.gaps)[:32], cost=cost_of(snapshot))

    async def _for_decision(
        self, s: Situation, target: KubeObject, snapshot: Snapshot, claim: Claim | None, found: Sequence[Runbook] = ()
    ) -> Situation:
        incident = s.incident
        alone = self._diagnosed(s, snapshot, claim)
        seen = snapshot.find(target.kind, target.name)
        # What is judged is what was diagnosed; the exact read must agree with the list, or both are looked at again. (Made anew with the
        # same spec it is another object: its pods and its history are not those that were looked at.)
        # (What this version does not list at all is told so by the engine.)
        agrees = isinstance(seen, NotLooked) or (
            isinstance(seen, KubeObject)
            and seen.uid == target.uid
            and spec_sha256(seen.at("spec", default={})) == spec_sha256(target.at("spec", default={}))
        )
        if not agrees:
            self._shared.pop(incident.metadata.namespace, None)
            return s
        diagnosis, consulted = await self._with_runbooks(s, alone, found)
        proposal = propose(incident, snapshot, target, diagnosis, s.ledger, snapshot.at)
        if isinstance(proposal, Proposal):
            proposal, consulted = with_checks(proposal, consulted, s.orders, target, incident.metadata.namespace)
        s = replace(
            s,
            diagnosis=diagnosis,
            proposal=proposal,
            runbooks=consulted,
            rollout=rollout_of(target, alone, diagnosis),
            looked_at=snapshot.at,
            changed_at=changed_since(target, released_at(snapshot, diagnosis)),
            namespace_pods=ready_in_namespace(snapshot),
            disruption_budgets=disruption_budgets(snapshot, target),
        )
        s = await self._for_limits(s, target)
        plan = incident.status.plan
        if plan is not None and about_to_act(s, plan, target):
            s = replace(s, samples=await self.measure(incident, plan, target, snapshot))
        return s

    async def _for_limits(self, s: Situation, target: KubeObject) -> Situation:
        """What single orders ask for beside the diagnosis: the error budget, the size of the fleet."""
        if not isinstance(s.proposal, Proposal):
            return s
        rule = governing_rule(s.orders, own_labels(target.labels), s.proposal.action)
        if isinstance(rule, Governing) and (ask := rule.rule.error_budget) is not None:
            query = fill(ask.promql, variables_of(target, s.incident.metadata.namespace))
            answer = await self._ports.metrics.query(query, self._ports.clock.now(), namespace=s.incident.metadata.namespace)
            s = replace(s, error_budget=BudgetAnswer(answer.value, float(ask.min), answer.message))
        if fleet_limit(s.orders).max_percent_of_workloads < 100:
            s = replace(s, fleet_workloads=await workloads_of_fleet(self._ports.reader))
        return s

    async def snapshot(self, namespace: str, target: ObjectRef | None, *, max_age: timedelta = SHARED_FOR) -> Snapshot:
        """One bulk list per kind, side by side.

        For a `target`: also the kinds that only a diagnosis needs, the namespaces that this one leans on, the answers of Prometheus,
        and the few logs that the diagnosis asks for. Without one: the vital kinds only.
        """
        now = self._ports.clock.now()
        shared = self._shared.get(namespace)
        if shared is None or now - shared.at >= max_age or (target is not None and not _whole(shared)):
            shared = await self._listed(namespace, whole=target is not None)
            self._shared = {ns: held for ns, held in self._shared.items() if now - held.at <= SHARED_FOR} | {namespace: shared}
        if target is None or not (keys := [k for k in engine.wanted_logs(shared, target) if k not in shared.logs]):
            return shared
        excerpts = await asyncio.gather(*(self._ports.reader.logs(namespace, k, lines=LOG_LINES) for k in keys))
        shared = replace(shared, logs={**shared.logs, **{e.key: e for e in excerpts}})
        self._shared[namespace] = shared
        return shared

    async def _listed(self, namespace: str, *, whole: bool) -> Snapshot:
        kinds = engine.KINDS if whole else engine.VITAL_KINDS
        own, cluster = await asyncio.gather(
            asyncio.gather(*(self._ports.reader.list(v, k, namespace) for v, k in kinds)), self._cluster_kinds(whole=whole)
        )
        snapshot = Snapshot(namespace=namespace, at=self._ports.clock.now(), listings={a.kind: a for a in (*own, *cluster)})
        if not whole:
            return snapshot
        beside, series = await asyncio.gather(self._beside(snapshot), self._series(namespace))
        return replace(snapshot, beside=beside, metrics=series)

    async def _series(self, namespace: str) -> Mapping[str, Vector]:
        """What Prometheus says; nothing where none is asked (from a laptop, from files)."""
        if not self._ports.metrics:
            return {}
        return await triage.ask_metrics(self._ports.metrics, namespace, self._ports.clock.now())

    async def _cluster_kinds(self, *, whole: bool) -> tuple[Listing, ...]:
        """Nodes always fresh; what hardly ever changes is shared by all namespaces for some seconds."""
        nodes = [(v, k) for v, k in engine.CLUSTER_KINDS if k == "Node" or whole]
        now = self._ports.clock.now()
        known = {k: held for k, held in self._cluster.items() if k != "Node" and now - held.at < CLUSTER_FOR}
        fresh = await asyncio.gather(*(self._ports.reader.list(v, k, None) for v, k in nodes if k not in known))
        self._cluster = {**known, **{a.kind: a for a in fresh}}
        return tuple(self._cluster[k] for _, k in nodes)

    async def _beside(self, snapshot: Snapshot) -> dict[str, Snapshot]:
        """The namespaces that this one leans on, with the few kinds that matter there, shared for some seconds."""
        names, now = engine.wanted_namespaces(snapshot), self._ports.clock.now()
        self._neighbour_snapshots = {n: held for n, held in self._neighbour_snapshots.items() if now - held.at < CLUSTER_FOR}
        missing = [n for n in names if n not in self._neighbour_snapshots]
        asked = [(n, v, k) for n in missing for v, k in engine.BESIDE_KINDS]
        answers = await asyncio.gather(*(self._ports.reader.list(v, k, n) for n, v, k in asked))
        for name in missing:
            mine = {a.kind: a for (n, _, _), a in zip(asked, answers, strict=True) if n == name}
            self._neighbour_snapshots[name] = Snapshot(namespace=name, at=self._ports.clock.now(), listings=mine)
        return {n: self._neighbour_snapshots[n] for n in names}

    # ------------------------------------------------------------ within an execution

    async def _snapshot_for(self, incident: Incident, *, looks: bool, samples: bool) -> Snapshot | None:
        """A look for a decision may be shared for some seconds; samples are always taken anew."""
        if looks:
            return await self.snapshot(incident.metadata.namespace, incident.spec.target)
        return await self.snapshot(incident.metadata.namespace, None, max_age=timedelta(0)) if samples else None

    async def _source(self, incident: Incident) -> KubeObject | Absent | NotLooked | None:
        """What holds the bytes that the running execution is about to send; None: it sends nothing in this state."""
        plan, execution = incident.status.plan, running(incident.status)
        if plan is None or execution is None or execution.state not in ("Reserved", "Undoing") or execution.undone_at is not None:
            return None
        change, inverse = CATALOGUE[plan.action].sources(plan, incident.metadata.namespace)
        return await self._ports.reader.get(change if execution.state == "Reserved" else inverse)

    async def _for_execution(self, s: Situation, snapshot: Snapshot | None, source: KubeObject | Absent | NotLooked | None) -> Situation:
        plan, execution = s.incident.status.plan, running(s.incident.status)
        if plan is None or execution is None or not isinstance(s.target, KubeObject):
            return s
        if execution.state == "Applied":
            return s if snapshot is None else replace(s, samples=await self.measure(s.incident, plan, s.target, snapshot))
        if execution.state == "Undoing" and digest_for(plan, s.target) == execution.before:
            snapshot = await self.snapshot(s.incident.metadata.namespace, None, max_age=timedelta(0))
            return replace(s, samples=built_in(s.incident, plan, s.target, snapshot, self._ports.clock.now()))
        if source is None:
            return s
        action = CATALOGUE[plan.action]
        forward = execution.state == "Reserved"
        patch = (action.forward if forward else action.backward)(plan, s.target, source)
        if isinstance(patch, Unavailable):
            return replace(s, patch_problem=patch.because, patch_unread=isinstance(source, NotLooked))
        return replace(s, forward=patch) if forward else replace(s, backward=patch)

    async def measure(self, incident: Incident, plan: Plan, target: KubeObject, snapshot: Snapshot) -> tuple[Measurement, ...]:
        """One round of all checks: the built-in ones from the snapshot, the policy's beside them."""
        at, namespace = self._ports.clock.now(), incident.metadata.namespace
        queries = [c for c in plan.verify.checks if c.promql]
        answers = await asyncio.gather(*(self._ports.metrics.query(c.promql or "", at, namespace=namespace) for c in queries))
        metrics = [verification.metric_check(c, a.value, a.message, at) for c, a in zip(queries, answers, strict=True)]
        conditions = [verification.condition_check(c, target, at) for c in plan.verify.checks if c.condition]
        return (*built_in(incident, plan, target, snapshot, at), *conditions, *metrics)


def _whole(snapshot: Snapshot) -> bool:
    """Whether a snapshot holds what a diagnosis needs."""
    return all(kind in snapshot.listings for _, kind in (*engine.KINDS, *engine.CLUSTER_KINDS))


def cost_of(snapshot: Snapshot) -> Cost:
    """What a look has cost: requests to the API server (lists and logs), their bytes, and questions to Prometheus."""
    listings = [x for s in (snapshot, *snapshot.beside.values()) for x in s.listings.values()]
    return Cost(
        reads=len(listings) + len(snapshot.logs),
        bytes=sum(x.size for x in listings) + sum(len(text) for log in snapshot.logs.values() for text in log.lines),
        queries=len({v.promql for v in snapshot.metrics.values()}),
    )


async def workloads_of_fleet(reader: ClusterReader) -> int | None:
    """Workloads of the whole cluster; None: they could not all be counted."""
    counts = await asyncio.gather(*(reader.count("apps/v1", kind) for kind in WORKLOADS))
    return None if None in counts else sum(c or 0 for c in counts)


def answered(incident: Incident) -> bool:
    """Whether anybody claims to approve."""
    return any(k.startswith((APPROVE_PREFIX, EMERGENCY_PREFIX)) for k in incident.metadata.annotations)


async def nothing() -> None:
    """Stands for a read that this pass does not need."""


def propose(
    incident: Incident, snapshot: Snapshot, target: KubeObject, diagnosis: Diagnosis, ledger: Ledger | None, now: datetime
) -> Proposal | NoProposal:
    """The first action of the catalogue that fits; else why the last one does not."""
    answer: Proposal | NoProposal | None = None
    for action in CATALOGUE.values():
        answer = action.propose(incident, snapshot, target, diagnosis, ledger, now)
        if isinstance(answer, Proposal):
            return answer
    assert answer is not None, "the catalogue is never empty"
    return answer


def with_checks(
    proposal: Proposal, consulted: rb.Consulted, orders: Orders, target: KubeObject, namespace: str
) -> tuple[Proposal, rb.Consulted]:
    """The proposal with the checks that runbooks add to the governing rule's."""
    rule = governing_rule(orders, own_labels(target.labels), proposal.action)
    own = rule.rule.verify.checks if isinstance(rule, Governing) else ()
    more, left_out = rb.checks(consulted.matched, variables_of(target, namespace), own)
    return replace(proposal, checks=more), replace(consulted, left_out=left_out)


async def no_runbooks() -> tuple[list[Runbook], tuple[str, ...], tuple[str, ...]]:
    """Where none are read."""
    return [], (), ()


def rollout_of(target: KubeObject, *diagnoses: Diagnosis) -> Rollout:
    """How the target's rollout stands, for the gate that protects rollouts. It is the fault only if every one of `diagnoses` says so."""
    done, numbers = verification.rollout_complete(target)
    progressing: Mapping[str, Any] = target.condition("Progressing") or {}
    return Rollout(
        under_way=not done,
        past_deadline=progressing.get("reason") == "ProgressDeadlineExceeded",
        own_change=all(
            d.finding is Finding.FAULT and bool(d.failing_revision) and d.top is not None and d.top.object == target.title
            for d in diagnoses
        ),
        terminal_since=diagnoses[0].terminal_since,
        progress=numbers,
    )


def about_to_act(s: Situation, plan: Plan, target: KubeObject) -> bool:
    """Whether this pass may reserve an execution, or finds the plan's effect already there: then a baseline is needed."""
    if target.uid == plan.target.uid and digest_for(plan, target) == plan.target.after_sha256:
        return True
    return answered(s.incident) or any(c.type == "Approved" and c.reason == "NotRequired" for c in s.incident.status.conditions)


def released_at(snapshot: Snapshot, diagnosis: Diagnosis) -> datetime | None:
    """When the failing revision was made."""
    return next((r.created for r in snapshot.all("ReplicaSet") if diagnosis.failing_revision and r.uid == diagnosis.failing_revision), None)


def ready_in_namespace(snapshot: Snapshot) -> int | None:
    """Ready pods of the namespace; None if they could not be listed."""
    return sum(verification.is_ready(p) for p in snapshot.all("Pod")) if snapshot.looked("Pod") else None


def disruption_budgets(snapshot: Snapshot, target: KubeObject) -> tuple[DisruptionBudget, ...]:
    """The PodDisruptionBudgets over the target's pods. Where they cannot be listed nothing may be disrupted: cannot tell is not "no"."""
    if not snapshot.looked("PodDisruptionBudget"):
        return (DisruptionBudget("(they could not be listed)", 0),)
    raw = target.at("spec", "template", "metadata", "labels", default=None)
    labels = {k: v for k, v in raw.items() if isinstance(k, str) and isinstance(v, str)} if isinstance(raw, Mapping) else {}
    found = []
    for budget in snapshot.all("PodDisruptionBudget"):
        selector = budget.at("spec", "selector", default=None)
        if isinstance(selector, Mapping) and selects(selector, labels):
            allowed = budget.at("status", "disruptionsAllowed", default=0)
            found.append(DisruptionBudget(budget.name, allowed if isinstance(allowed, int) else 0))
    return tuple(found)


def selects(selector: Mapping[str, Any], labels: dict[str, str]) -> bool:
    """Whether a Kubernetes label selector (as it stands in another object) selects these labels; one that is malformed selects all."""
    try:
        return LabelSelector.model_validate(dict(selector)).matches(labels)
    except ValidationError:
        return True


def sample_due(incident: Incident, now: datetime) -> bool:
    """Whether the running verification wants a sample now."""
    v, plan = incident.status.verification, incident.status.plan
    if v is None or plan is None:
        return False
    return now >= verification.next_sample(v, plan.verify)


def built_in(incident: Incident, plan: Plan, target: KubeObject, snapshot: Snapshot, at: datetime) -> tuple[Measurement, ...]:
    """The checks that always run."""
    before = {m.check: m for m in (incident.status.verification.baseline if incident.status.verification else ())}
    ready = ready_pods(snapshot, target)
    was_ready = before.get(verification.SERVING)
    were_failing = before.get(verification.DEPENDENTS)
    return (
        verification.symptom_check(engine.symptom_holds(snapshot, incident.spec.target, at), at),
        verification.rollout_check(target, plan, at),
        verification.serving_check(
            ready, int(was_ready.value) if was_ready and was_ready.value.isdigit() else None, verification.unavailable_allowed(target), at
        ),
        verification.dependents_check(
            failing_dependents(incident, snapshot), were_failing.value.split(", ") if were_failing and were_failing.value else (), at
        ),
    )


def ready_pods(snapshot: Snapshot, target: KubeObject) -> int | None:
    """Pods of the target that are Ready; None if they could not be listed."""
    if not snapshot.looked("Pod") or not snapshot.looked("ReplicaSet"):
        return None
    owned = {rs.uid for rs in snapshot.owned_by(target, "ReplicaSet")}
    return sum(
        1 for pod in snapshot.all("Pod") if pod.controller is not None and pod.controller.get("uid") in owned and verification.is_ready(pod)
    )


def failing_dependents(incident: Incident, snapshot: Snapshot) -> list[str] | None:
    """Workloads of the blast radius that are not fully available now; None if they could not be listed."""
    if not snapshot.looked("Deployment"):
        return None
    radius = incident.status.blast_radius
    watched = {*radius.workloads, *radius.victims} if radius else set()
    watched.discard(incident.spec.target.title)
    return [
        d.title
        for d in snapshot.all("Deployment")
        if d.title in watched and d.at("status", "availableReplicas", default=0) < d.at("spec", "replicas", default=1)
    ]


def current_revision(snapshot: Snapshot, target: KubeObject) -> KubeObject | None:
    """The ReplicaSet of the target's present template."""
    sha = template_sha256(target.at("spec", "template", default={}))
    return next((r for r in snapshot.owned_by(target, "ReplicaSet") if template_sha256(r.at("spec", "template", default={})) == sha), None)
