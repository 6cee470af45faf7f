"""`nightorders policy explain`: the operator's own judgement, from a laptop, with the user's own rights. Reads only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar, cast

from ..actions.rollback import autoscaler_of
from ..api.meta import FLEET_LEDGER_NAME, LEDGER_NAME, Level, ObjectMeta, line
from ..api.v1alpha1.clusterpolicy import ClusterRemediationPolicy
from ..api.v1alpha1.common import ActionType, ObjectRef
from ..api.v1alpha1.incident import Incident
from ..api.v1alpha1.ledger import Ledger
from ..api.v1alpha1.policy import RemediationPolicy
from ..controller.gatherer import (
    Gatherer,
    Ports,
    disruption_budgets,
    propose,
    ready_in_namespace,
    released_at,
    rollout_of,
    workloads_of_fleet,
)
from ..diagnosis import engine
from ..domain import breaker, gitops, standing, verification, whatif
from ..domain.autonomy import frozen_by, own_labels
from ..domain.diagnosis import Finding
from ..domain.freezes import Frozen
from ..domain.gates import Stop, fleet_limit
from ..domain.interference import changed_since
from ..domain.judgement import Judgement, judge
from ..domain.orders import Governing, Orders, governing_rule
from ..domain.ownership import Owner
from ..domain.plan import Proposal
from ..domain.record import is_closed
from ..domain.situation import BudgetAnswer, Operator, Proof, Situation
from ..domain.snapshot import KubeObject, NotLooked, Snapshot
from ..ports import ObjectKey, PortError, Unreadable
from .diagnose import exists
from .document import Document, Row, Say, Tone, section
from .errors import cannot_tell, not_installed, usage, words
from .session import Session
from .show import MEANING, needs_rows, score_sections, speaker_rows
from .times import absolute, both

T = TypeVar("T")
OWN_LEDGER, FLEET_LEDGER = "Ledger of namespace", "Ledger of the fleet in"

DOES = {
    "Acts": "it would act alone",
    "AwaitsApproval": "it would stage the plan and wait for an approval",
    "Rejected": "the plan was rejected",
    "Advises": "it would write the command for a human",
    "ReadOnly": "it would explain, and propose nothing",
    "Shadow": "it would decide and touch nothing: the policy is in Shadow",
    "Refused": "it would not act: a gate refuses",
}


@dataclass(frozen=True)
class Explained:
    """The judgement and what it was made of. `readable`: the level if everything that could not be read were fine."""

    target: ObjectRef
    namespace: str
    action: ActionType
    at: datetime
    situation: Situation
    judgement: Judgement
    readable: Judgement
    outcome: whatif.Outcome
    finding: Finding
    hypothetical: str
    incident: str
    assumed: tuple[str, ...]
    frozen: tuple[tuple[str, Frozen], ...]
    breaker: breaker.Breaker | None
    earned: standing.Standing | None


def action_of(name: str) -> ActionType:
    """The action type of that name. Raises CommandError (usage)."""
    try:
        return ActionType(name)
    except ValueError:
        raise usage(f"there is no action type {name!r}; known: {', '.join(ActionType)}") from None


# ------------------------------------------------------------ reading


async def examine(session: Session, ref: ObjectRef, action: ActionType, operator_namespace: str, at_risk: int) -> Explained:
    """Looks once. Raises CommandError where the workload is not there, or nothing is installed."""
    if not await session.discovery.installed():
        raise not_installed("explain policies")
    await exists(session, ref)
    operator = Operator(f"system:serviceaccount:{operator_namespace}:nightorders", operator_namespace)
    # Gatherer.snapshot and Gatherer.stop read through the clock and the reader only.
    nothing = cast(Any, None)
    gatherer = Gatherer(Ports(session.clock, session.reader, nothing, nothing, nothing, nothing, nothing), operator)
    snapshot, base, opened = await asyncio.gather(
        gatherer.snapshot(session.namespace, ref), _books(session, gatherer, operator), _open_incident(session, ref)
    )
    target = snapshot.find(ref.kind, ref.name)
    if not isinstance(target, KubeObject):
        raise cannot_tell(f"cannot list {ref.kind}s in namespace {session.namespace}: {getattr(target, 'because', 'it is gone')}")
    now = snapshot.at
    incident, neighbours, problem = opened
    s, unknown = base
    s = replace(
        s,
        incident=incident or whatif.incident(target, session.namespace, now),
        target=target,
        neighbours=neighbours,
        unknown=(*unknown, *((problem,) if problem else ())),
        owner=await _owner(session, target, operator),
        namespace_pods=ready_in_namespace(snapshot),
        disruption_budgets=disruption_budgets(snapshot, target),
    )
    s, offered, finding, hypothetical = _judged(s, snapshot, target, action, at_risk)
    s = await _limits(session, s, target, offered)
    return _explained(s, _fine(s), target, offered, action, finding, hypothetical, now, incident, ref)


async def _books(session: Session, gatherer: Gatherer, operator: Operator) -> tuple[Situation, tuple[str, ...]]:
    """Orders, Ledgers, stop; and what of them could not be read."""
    namespace = session.namespace
    unknown: list[str] = []

    async def tried(what: str, work: Awaitable[T], otherwise: T) -> T:
        try:
            return await work
        except PortError as error:
            unknown.append(line(f"{what}: {words(error)}", 400))
            return otherwise

    own, cluster, ledger, fleet, place, stop = await asyncio.gather(
        tried(f"RemediationPolicies of namespace {namespace}", session.policies.of(namespace), []),
        tried("ClusterRemediationPolicies", session.policies.cluster(), []),
        tried(f"{OWN_LEDGER} {namespace}", session.ledgers.get(namespace, LEDGER_NAME), None),
        tried(f"{FLEET_LEDGER} {operator.namespace}", session.ledgers.get(operator.namespace, FLEET_LEDGER_NAME), None),
        session.reader.get(ObjectKey("v1", "Namespace", "", namespace)),
        gatherer.stop(namespace),
    )
    if isinstance(place, NotLooked):
        unknown.append(line(f"Namespace/{namespace}: {place.because}", 400))
    if stop.unknown:
        unknown.append(line(stop.unknown, 400))
    orders = Orders(
        policies=tuple(p for p in own if isinstance(p, RemediationPolicy)),
        cluster=tuple(p for p in cluster if isinstance(p, ClusterRemediationPolicy)),
        unreadable=tuple(f"RemediationPolicy/{p.name}: {p.message}" for p in own if isinstance(p, Unreadable)),
        cluster_unreadable=tuple(f"ClusterRemediationPolicy/{p.name}: {p.message}" for p in cluster if isinstance(p, Unreadable)),
    )
    fine = Proof(True, "")
    made = Situation(
        operator=operator,
        incident=cast(Any, None),  # set as soon as the workload is known
        target=NotLooked(namespace, "not asked yet"),
        orders=orders,
        namespace_object=place if isinstance(place, KubeObject) else None,
        ledger=ledger,
        fleet=fleet,
        stop=stop,
        guard=fine,
        schemas=fine,
    )
    return made, tuple(unknown)


async def _open_incident(session: Session, ref: ObjectRef) -> tuple[Incident | None, int, str]:
    """The open Incident of that workload, how many others are open in its namespace, and what could not be read."""
    try:
        found = [i for i in await session.incidents.of(session.namespace) if isinstance(i, Incident) and not is_closed(i.status)]
    except PortError as error:
        return None, 0, line(f"Incidents of namespace {session.namespace}: {words(error)}", 400)
    own = [i for i in found if i.spec.target.title == ref.title]
    return (own[0] if own else None), len({i.spec.target.title for i in found} - {ref.title}), ""


async def _owner(session: Session, target: KubeObject, operator: Operator) -> Owner | None:
    """Who would revert a live edit, confirmed by its own inventory as far as you may read it."""
    found = [c for c in gitops.claims(target) if c.possible]
    keys = (ObjectKey(c.api_version, c.kind, c.namespace, c.name) for c in found)
    answers = dict(zip(found, await asyncio.gather(*(session.reader.get(key) for key in keys)), strict=True))
    return gitops.owner_of(target, answers, operator.username.removeprefix("system:serviceaccount:"))


def _judged(
    s: Situation, snapshot: Snapshot, target: KubeObject, action: ActionType, at_risk: int
) -> tuple[Situation, Proposal, Finding, str]:
    """The real diagnosis and proposal where there is a fault, else a fault made up; then why."""
    now = snapshot.at
    looked = engine.diagnose(snapshot, s.incident.spec.target, s.ledger.spec.healthy_revisions if s.ledger else (), now)
    why = f"{target.title} is healthy now" if looked.finding is Finding.NO_FAULT else f"{target.title}: {looked.message}"
    if looked.finding is Finding.FAULT:
        offered = propose(s.incident, snapshot, target, looked, s.ledger, now)
        if isinstance(offered, Proposal) and offered.action is action:
            s = replace(s, changed_at=changed_since(target, released_at(snapshot, looked)))
            return whatif.faulty(s, target, looked, offered, now, rollout_of(target, looked)), offered, looked.finding, ""
        why = f"{target.title} has a fault that {action} does not remove: {getattr(offered, 'message', looked.message)}"
    made_up = whatif.proposal(
        target,
        pods_at_risk=at_risk,
        workload_pods=verification.wanted_pods(target),
        at_once=min(at_risk, verification.unavailable_allowed(target)),
        scaled_by=autoscaler_of(snapshot, target),
    )
    return whatif.faulty(s, target, whatif.diagnosis(target, now), made_up, now), made_up, looked.finding, line(why, 600)


async def _limits(session: Session, s: Situation, target: KubeObject, offered: Proposal) -> Situation:
    s = whatif.asked_for_budget(s, target, offered, BudgetAnswer(None, 0.0, "not asked from here; the operator asks Prometheus"))
    if fleet_limit(s.orders).max_percent_of_workloads < 100:
        s = replace(s, fleet_workloads=await workloads_of_fleet(session.reader))
    return s


def _fine(s: Situation) -> Situation:
    """The same as if what could not be read said nothing against it; orders that could not be read stay unknown."""
    if not s.unknown:
        return s

    def book(found: Ledger | None, name: str) -> Ledger | None:
        return Ledger(kind="Ledger", metadata=ObjectMeta(name=name)) if any(u.startswith(name) for u in s.unknown) else found

    stop = Stop() if s.stop.unknown else s.stop
    return replace(s, unknown=(), stop=stop, ledger=book(s.ledger, OWN_LEDGER), fleet=book(s.fleet, FLEET_LEDGER))


def _explained(
    s: Situation,
    fine: Situation,
    target: KubeObject,
    offered: Proposal,
    action: ActionType,
    finding: Finding,
    hypothetical: str,
    now: datetime,
    incident: Incident | None,
    ref: ObjectRef,
) -> Explained:
    top = s.diagnosis.top if s.diagnosis else None
    plan = s.incident.status.plan
    kept = plan if plan is not None and not hypothetical and plan.action is action else None
    j = judge(s, target, top, offered, kept, now)
    found = governing_rule(s.orders, own_labels(target.labels), action)
    governing = found if isinstance(found, Governing) else None
    assumed = [
        "the approval guard is proven and the custom resource schemas are current: the operator checks both itself, and holds L2 and L1 otherwise"
    ]
    if hypothetical and not offered.pods_at_risk:
        assumed.append("no healthy pod would be at risk: the release that fails serves nothing (--at-risk N says otherwise)")
    if s.error_budget is not None:
        assumed.append("the error budget was not asked for, which counts as no answer")
    return Explained(
        target=ref,
        namespace=s.incident.metadata.namespace,
        action=action,
        at=now,
        situation=s,
        judgement=j,
        readable=judge(fine, target, top, offered, kept, now),
        outcome=whatif.outcome(j.verdict, j.level.level, None),
        finding=finding,
        hypothetical=hypothetical,
        incident=incident.metadata.name if incident else "",
        assumed=tuple(assumed),
        frozen=tuple(frozen_by(s.orders, governing, s.incident.metadata.namespace, action, now)),
        breaker=breaker.state(governing.policy.spec.breaker, s.ledger, action, target.kind, now) if governing else None,
        earned=standing.earned(governing.rule.earn, governing.rule.level, s.ledger, action, target.kind)
        if governing and governing.rule.earn
        else None,
    )


# ------------------------------------------------------------ what it says


def document(e: Explained) -> Document:
    """For people."""
    j = e.judgement
    return Document(
        f"{e.action} on {e.target.title} in namespace {e.namespace}, looked at {absolute(e.at)}",
        (
            section("Answer", _answer(e)),
            section("Could not be read", (Say(u, tone=Tone.WARN) for u in e.situation.unknown)),
            section("Who decides", speaker_rows(j.level)),
            *score_sections(j.level),
            section("Gates", _gates(e)),
            section("Approval", _approval(e)),
            section("Freezes in force", (_frozen(who, f, e.at) for who, f in e.frozen), "none"),
            section("Breaker", _breaker(e)),
            section("Earned", _earned(e)),
            section("Assumed", (Say(a) for a in e.assumed)),
        ),
    )


def _answer(e: Explained) -> Iterator[Row]:
    level = e.judgement.level.level
    if e.hypothetical:
        yield Say(f"Hypothetical: {e.hypothetical}.", tone=Tone.WARN, bullet=False)
        yield Say("What follows would hold if a fault with a grade-A diagnosis came in now; the evidence is made up.", bullet=False)
    else:
        yield Say("There is a fault; what follows is judged by its real diagnosis and proposal.", bullet=False)
    about = f" (as on Incident {e.incident})" if e.incident else ""
    yield Say(f"{level}: {MEANING[level]}; {DOES[e.outcome]}{about}", tone=Tone.STRONG, bullet=False)
    if e.readable.level.level > level:
        yield Say(
            f"{e.readable.level.level} if what you could not read says nothing against it; the operator may be able to read it.",
            bullet=False,
        )


def _gates(e: Explained) -> Iterator[Row]:
    for g in e.judgement.results:
        if g.allowed:
            yield Say(f"open    {g.gate}: {g.message}", tone=Tone.GOOD)
        else:
            yield Say(f"closed  {g.gate}, {g.reason}: {g.message}", tone=Tone.BAD)


def _approval(e: Explained) -> Iterator[Row]:
    n = e.judgement.needs
    if not isinstance(e.judgement.governing, Governing):
        yield Say("no rule governs, so there is no plan to approve", bullet=False)
        return
    if e.judgement.level.level != Level.L3:
        yield Say(f"none at {e.judgement.level.level}; at L3 it would need:", bullet=False)
    yield from needs_rows(n)


def _frozen(who: str, f: Frozen, now: datetime) -> Row:
    until = f"until {both(f.until, now)}" if f.until else "without an end"
    return Say(f"{who}, {until}: {f.because}", tone=Tone.WARN)


def _breaker(e: Explained) -> Iterator[Row]:
    if e.breaker is not None:
        b = e.breaker
        yield Say(f"{b.state}{f': {b.because}' if b.because else f', {b.failures} failures'}", bullet=False)


def _earned(e: Explained) -> Iterator[Row]:
    if e.earned is not None:
        yield Say(
            f"{e.earned.level}, {e.earned.successes} of {e.earned.needed} successes towards the next; {e.earned.because}", bullet=False
        )


def as_json(e: Explained) -> dict[str, Any]:
    """For scripts."""
    j, s = e.judgement, e.situation
    return {
        "target": e.target.wire(),
        "namespace": e.namespace,
        "action": e.action.value,
        "at": e.at.isoformat().replace("+00:00", "Z"),
        "hypothetical": e.hypothetical or None,
        "incident": e.incident or None,
        "governedBy": j.governing.title if isinstance(j.governing, Governing) else None,
        "level": j.level.level.value,
        "levelIfReadable": e.readable.level.level.value,
        "outcome": e.outcome,
        "decidedBy": [v.wire() for v in j.level.decided_by],
        "trust": j.level.trust.wire() if j.level.trust else None,
        "risk": j.level.risk.wire() if j.level.risk else None,
        "verdict": {"allowed": j.verdict.allowed, "reason": j.verdict.reason.value, "message": j.verdict.message},
        "gates": [g.wire() for g in j.results],
        "needs": j.needs.wire() if isinstance(j.governing, Governing) else None,
        "freezes": [
            {"who": who, "until": f.until.isoformat().replace("+00:00", "Z") if f.until else None, "because": f.because}
            for who, f in e.frozen
        ],
        "breaker": {"state": e.breaker.state, "failures": e.breaker.failures, "because": e.breaker.because} if e.breaker else None,
        "earned": {"level": e.earned.level.value, "successes": e.earned.successes, "needed": e.earned.needed, "because": e.earned.because}
        if e.earned
        else None,
        "unknown": list(s.unknown),
        "assumed": list(e.assumed),
    }
