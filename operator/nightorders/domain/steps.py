"""next_step(situation, now) → Step: what to do now, and nothing else. Pure; the executor carries a step out.

An execution is a transaction: Reserved → Applied → (Recovered | Undoing → Undone | Escalated). The intention is saved before the
effect, and every state can be entered again after a crash: what happened is read from the target, not remembered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..api.meta import EXECUTION_LABEL, FINALIZER, Level, find_condition, line
from ..api.v1alpha1.common import ActionType
from ..api.v1alpha1.incident import Autonomy, DryRun, Execution, Hypothesis, Incident, IncidentStatus, Plan
from . import approval, autonomy, gates, verification
from .diagnosis import Diagnosis, Finding
from .digest import spec_sha256
from .orders import Governing, governing_rule
from .plan import NoProposal, Proposal, content_sha256, execution_id, rule_verify, stage
from .reasons import Reason
from .record import FINDING_REASON, Record, is_closed, running
from .situation import Situation
from .snapshot import Absent, KubeObject, NotLooked
from .verdict import Verdict

SOON = timedelta(seconds=2)
LOOK_AGAIN = timedelta(seconds=15)
IDLE = timedelta(seconds=60)
HEALTHY_FOR = timedelta(seconds=10)
HEALTHY_AFTER_ESCALATION = timedelta(minutes=30)  # somebody was called: the Incident stays open long enough to be seen
ATTEMPTS = 2
ASK_AGAIN_FOR = timedelta(minutes=2)  # what cannot be told right now, before the effect: nothing happens meanwhile
UNDO_AGAIN_FOR = timedelta(minutes=10)


@dataclass(frozen=True)
class Idle:
    """Nothing to save; look again after `again`, or at the next event."""

    because: str
    again: timedelta | None


@dataclass(frozen=True)
class Save:
    """Save a status; no effect outside our own kinds. `announce` becomes an Event."""

    status: IncidentStatus
    again: timedelta | None
    announce: tuple[Reason, str] | None = None
    warning: bool = False


@dataclass(frozen=True)
class Stage:
    """Send the proposal's patch as a dry run, then save the plan (or why the API server refused).

    `status` is the status so far; `staged` and `not_staged` finish it.
    """

    proposal: Proposal
    governing: Governing
    level: Level
    ordered: Level
    status: IncidentStatus


@dataclass(frozen=True)
class Reserve:
    """Take the slots in the Ledgers (fleet, then namespace), then save the execution with its finalizer: the intention."""

    execution: Execution
    action: ActionType
    workload: str
    status: IncidentStatus


@dataclass(frozen=True)
class Apply:
    """Send the one conditional, stamped patch; then save that it was sent."""

    execution: Execution
    target: KubeObject
    patch: Mapping[str, Any]


@dataclass(frozen=True)
class Undo:
    """Send the inverse, conditional on the target being as the execution left it."""

    execution: Execution
    target: KubeObject
    patch: Mapping[str, Any]


@dataclass(frozen=True)
class Settle:
    """End an execution: outcome into the Ledgers, slots free, status saved, finalizer gone."""

    execution: Execution
    workload: str
    status: IncidentStatus
    announce: tuple[Reason, str]
    warning: bool


@dataclass(frozen=True)
class ReleaseFinalizer:
    """The finalizer outlived its execution (a crash between two writes)."""


Step = Idle | Save | Stage | Reserve | Apply | Undo | Settle | ReleaseFinalizer


def next_step(s: Situation, now: datetime) -> Step:
    """The one thing to do now."""
    status = s.incident.status
    if (execution := running(status)) is not None and status.plan is not None:
        return _in_execution(s, execution, status.plan, now)
    if FINALIZER in s.incident.metadata.finalizers:
        return ReleaseFinalizer()
    if s.incident.metadata.deletion_timestamp is not None:
        return Idle("the Incident is being deleted and nothing of ours is pending", None)
    if is_closed(status):
        return Idle("closed", None)
    if not isinstance(s.target, KubeObject):
        return _without_target(s, s.target, now)
    if (adopted := _done_by_human(s, s.target, now)) is not None:
        return adopted
    return _before_execution(s, s.target, now)


# ---------------------------------------------------------------- before an execution


def _without_target(s: Situation, target: Absent | NotLooked, now: datetime) -> Step:
    record = _looked(s, Record(s.incident, now))
    if isinstance(target, Absent):
        reason, message = (
            Reason.TARGET_NOT_FOUND,
            (
                f"{target.title} does not exist in namespace {s.incident.metadata.namespace}; correct spec.target in a new Incident, or delete this one"
            ),
        )
    else:
        reason, message = (
            Reason.TARGET_NOT_READABLE,
            f"cannot look at {target.title}: {target.because}" + (f"; {target.fix}" if target.fix else ""),
        )
    record.condition("Triaged", "False", reason, message).condition("Stalled", "True", reason, message).drop("Healthy")
    if s.incident.status.plan is not None:
        record = _withdraw(record, reason, message)
    return _save(s, record, IDLE, (reason, message), warning=True)


def _before_execution(s: Situation, target: KubeObject, now: datetime) -> Step:
    if s.diagnosis is None:
        return Idle("nothing was looked at in this pass", SOON)
    record = _looked(s, Record(s.incident, now)).condition("Triaged", "True", Reason.LOOKED, f"{target.title} exists and was looked at")
    record.drop("Stalled")
    match s.diagnosis.finding:
        case Finding.FAULT:
            return _fault(s, target, s.diagnosis, record, now)
        case Finding.NO_FAULT:
            return _healthy(s, s.diagnosis, record, now)
        case Finding.PROGRESSING | Finding.UNKNOWN | Finding.TARGET_MISSING | Finding.TARGET_UNKNOWN:
            record = _withdraw(record, Reason.CATEGORY_UNKNOWN, s.diagnosis.message).drop("Healthy")  # health must hold without a break
            return _save(s, record, LOOK_AGAIN, _news(s.diagnosis))


def _looked(s: Situation, record: Record) -> Record:
    """Puts a fresh diagnosis into the status, unless it says what is there already (its times alone are no news)."""
    d = s.diagnosis
    return record if d is None else record.diagnosis(d)


def _news(d: Diagnosis) -> tuple[Reason, str]:
    return FINDING_REASON[d.finding], d.summary


def _healthy(s: Situation, d: Diagnosis, record: Record, now: datetime) -> Step:
    status = s.incident.status
    before = find_condition(status.conditions, "Healthy")
    since = before.last_transition_time if before is not None and before.status == "True" else now
    record.condition("Healthy", "True", Reason.NO_FAULT, d.message)
    record = _withdraw(record, Reason.NO_PLAN_NEEDED, d.message)
    escalated = any(e.state == "Ended" and e.result in ("Escalated", "Undone", "Superseded") for e in status.executions)
    needed = HEALTHY_AFTER_ESCALATION if escalated else HEALTHY_FOR
    if now - since < needed:
        return _save(s, record, min(IDLE, needed - (now - since) + SOON / 10), None)
    if status.cause or status.executions:
        message = f"healthy since {since:%H:%M:%S}Z; no action of the operator was verified as the reason"
        record.condition("Closed", "True", Reason.RECOVERED_BY_ITSELF, message)
    else:
        record.condition("Closed", "True", Reason.NO_FAULT, d.message)
    record.story("closed: " + d.message)
    return _save(s, record, None, (Reason.NO_FAULT, d.message))


def _fault(s: Situation, target: KubeObject, d: Diagnosis, record: Record, now: datetime) -> Step:
    record.drop("Healthy")
    if (stopped := _stopped_acting(s.incident.status)) is not None:
        record = _withdraw(record, Reason.STOPPED_ACTING, stopped)
        return _save(s, record, LOOK_AGAIN, None)
    match s.proposal:
        case None:
            return _save(s, record, SOON, _news(d))
        case NoProposal() as none:
            voices = _voices(s, target, d.top, (), None)
            record.set(autonomy=_decided(s, autonomy.effective(voices, now)), gates=())
            record = _withdraw(record, none.reason, none.message)
            return _save(s, record, LOOK_AGAIN, _news(d))
        case Proposal() as proposal:
            return _weigh(s, target, d, proposal, record, now)


def _stopped_acting(status: IncidentStatus) -> str | None:
    own = [e for e in status.executions if e.state == "Ended"]
    failed = [e for e in own if e.result in ("Undone", "Escalated", "Superseded")]
    if failed:
        return f"execution {failed[-1].id} ended as {failed[-1].result}: no further action on this Incident, a human decides"
    if len([e for e in own if e.result == "NotApplied"]) >= ATTEMPTS:
        return f"{ATTEMPTS} executions could not be applied: no further action on this Incident, a human decides"
    return None


def _weigh(s: Situation, target: KubeObject, d: Diagnosis, p: Proposal, record: Record, now: datetime) -> Step:
    """Level, gates, plan: in that order."""
    found = governing_rule(s.orders, autonomy.own_labels(target.labels), p.action)
    plan = s.incident.status.plan
    kept = _kept(s.incident, p, found, plan)
    voices = _voices(s, target, d.top, p.caps, kept)
    level = autonomy.effective(voices, now)
    question = _question(s, target, d.top, p, level.level, execution_id(kept.digest) if kept else "")
    results, verdict = gates.judge(question, now)
    record.set(autonomy=_decided(s, level), gates=results)
    if not verdict.allowed:
        reason = Reason.READ_ONLY if verdict.reason is Reason.LEVEL_TOO_LOW else verdict.reason
        record = _withdraw(record, reason, _refusal(level, verdict))
        return _save(s, record, _until(verdict.retry_at, now), _news(d))
    assert isinstance(found, Governing)
    content = content_sha256(s.incident.metadata.uid, p, rule_verify(p, found.rule, s.incident.metadata.namespace))
    if content in s.incident.status.rejected_plans:
        record = _withdraw(record, Reason.REJECTED, "the same plan was rejected; it is proposed again only when the evidence changes")
        return _save(s, record, LOOK_AGAIN, None)
    if kept is None or _level_class_changed(s.incident.status, level.level) or _expired(kept, now):
        return Stage(proposal=p, governing=found, level=level.level, ordered=autonomy.ordered(voices, now), status=record.done())
    return _with_plan(s, target, found, kept, level, record, now)


def staged(incident: Incident, step: Stage, dry_run: DryRun | None, problem: str, now: datetime) -> IncidentStatus:
    """The status with the plan in it. `dry_run` None (then `problem` says why) is allowed for advice only."""
    incident = incident.model_copy(update={"status": step.status})
    fresh = stage(incident, step.proposal, step.governing, step.level, step.ordered, dry_run, now)
    old = incident.status.plan
    record = Record(incident, now).set(plan=fresh, plan_sequence=fresh.sequence)
    if old is None or old.digest != fresh.digest:
        record.set(approvals=()).story(
            f"staged plan {fresh.digest[:19]}… at {step.level}: {fresh.action} to revision {fresh.parameters.to_revision}"
        )
    how = "dry run accepted by the API server" if dry_run else f"not dry-run: {problem}"
    record.condition("Planned", "True", Reason.STAGED, f"{fresh.action} of {fresh.target.kind}/{fresh.target.name}: {fresh.impact}; {how}")
    match step.level:
        case Level.L3:
            needed = step.governing.rule.approval.count
            record.condition("Approved", "False", Reason.WAITING, waiting_message(incident, fresh, needed, needed))
        case Level.L4:
            record.condition("Approved", "True", Reason.NOT_REQUIRED, f"{fresh.rule} allows it alone (L4)")
        case _:
            record.condition(
                "Approved",
                "False",
                Reason.ADVISED,
                "L2: run status.plan.command with your own credentials; the operator notices and verifies",
            )
    return record.done()


def not_staged(incident: Incident, step: Stage, reason: Reason, message: str, now: datetime) -> IncidentStatus:
    """The status when the dry run was refused: no plan, and why."""
    record = Record(incident.model_copy(update={"status": step.status}), now)
    return _withdraw(record, reason, message).done()


def _kept(incident: Incident, p: Proposal, found: object, plan: Plan | None) -> Plan | None:
    """The staged plan, while it is still the very same one."""
    if plan is None or not isinstance(found, Governing):
        return None
    content = content_sha256(incident.metadata.uid, p, rule_verify(p, found.rule, incident.metadata.namespace))
    return plan if plan.content_sha256 == content else None


def _level_class_changed(status: IncidentStatus, level: Level) -> bool:
    """Whether the plan waits in another way than this level asks: staged again then, under the same digest."""
    approved = find_condition(status.conditions, "Approved")
    expected = {
        Level.L2: {Reason.ADVISED},
        Level.L3: {Reason.WAITING, Reason.APPROVED, Reason.GUARD_NOT_PROVEN},
        Level.L4: {Reason.NOT_REQUIRED},
    }
    return approved is None or approved.reason not in {r.value for r in expected.get(level, set())}


def _expired(plan: Plan, now: datetime) -> bool:
    return plan.expires_at is not None and now >= plan.expires_at


def _refusal(level: Autonomy, verdict: Verdict) -> str:
    if verdict.reason is not Reason.LEVEL_TOO_LOW:
        return verdict.message
    lowest = level.decided_by[0]
    return f"{verdict.message} ({lowest.who}{': ' + lowest.because if lowest.because else ''})"


def _until(at: datetime | None, now: datetime) -> timedelta:
    return LOOK_AGAIN if at is None else max(timedelta(seconds=1), min(LOOK_AGAIN, at - now))


def _voices(s: Situation, target: KubeObject, top: Hypothesis | None, caps: Any, plan: Plan | None) -> autonomy.Voices:
    return autonomy.Voices(
        namespace=s.incident.metadata.namespace,
        action=ActionType.ROLLBACK_WORKLOAD if not isinstance(s.proposal, Proposal) else s.proposal.action,
        incident=s.incident,
        orders=s.orders,
        target=target,
        namespace_object=s.namespace_object,
        ledger=s.ledger,
        hypothesis=top,
        caps=tuple(caps),
        plan=plan,
        guard_proven=s.guard.holds,
        guard_message=s.guard.message,
        schemas_current=s.schemas.holds,
        schemas_message=s.schemas.message,
        unknown=s.unknown,
    )


def _decided(s: Situation, level: Autonomy) -> Autonomy | None:
    """What is kept of the level. The first one kept says what was ordered at detection, so it must not be made of failed reads."""
    return level if s.incident.status.autonomy is not None or not s.unknown else None


def _question(s: Situation, target: KubeObject, top: Hypothesis | None, p: Proposal, level: Level, execution: str) -> gates.Question:
    assert s.rollout is not None, "the gatherer looks at the rollout whenever it looks at all"
    return gates.Question(
        namespace=s.incident.metadata.namespace,
        operator_namespace=s.operator.namespace,
        action=p.action,
        level=level,
        incident=s.incident,
        orders=s.orders,
        governing=governing_rule(s.orders, autonomy.own_labels(target.labels), p.action),
        target=target,
        before_sha256=p.before_sha256,
        target_sha256=spec_sha256(target.at("spec", default={})),
        hypothesis=top,
        rollout=s.rollout,
        risk=gates.Risk(p.pods_at_risk, p.workload_pods, p.preflight),
        stop=s.stop,
        ledger=s.ledger,
        fleet=s.fleet,
        execution=execution,
        owner=s.owner,
    )


def _withdraw(record: Record, reason: Reason, message: str) -> Record:
    """No plan, or no longer: says why. Approvals of it end with it."""
    if record.plan is not None:
        record.story(f"plan withdrawn: {message}")
    return record.set(plan=None, approvals=()).condition("Planned", "False", reason, message).drop("Approved")


def _with_plan(s: Situation, target: KubeObject, found: Governing, plan: Plan, level: Autonomy, record: Record, now: datetime) -> Step:
    match level.level:
        case Level.L2:
            return _save(s, record, LOOK_AGAIN, None)
        case Level.L3:
            return _gated(s, target, found, plan, record, now)
        case Level.L4:
            return _reserve(s, target, plan, record, Reason.NOT_REQUIRED, f"{plan.rule} allows it alone (L4)", now)
        case _:
            return _save(s, record, LOOK_AGAIN, None)


def _gated(s: Situation, target: KubeObject, found: Governing, plan: Plan, record: Record, now: datetime) -> Step:
    spec = found.rule.approval
    notes = s.incident.metadata.annotations
    approvals = approval.seen(notes, plan, s.incident.status.approvals, now)
    for new in (a for a in approvals if a not in s.incident.status.approvals):
        record.story(f"approves plan {plan.digest[:15]}…", actor=new.user)
    for gone in (a for a in s.incident.status.approvals if a not in approvals):
        record.story("withdraws the approval", actor=gone.user)
    record.set(approvals=approvals)
    match approval.judge(notes, plan, approvals, spec, s.incident.spec.requested_by, s.operator.username, now):
        case approval.Rejected(by, why):
            message = f"rejected by {by}" + (f": {line(why, 200)}" if why else "")
            record.story(message, actor=by)
            record = _withdraw(record, Reason.REJECTED, message)
            record.set(rejected_plans=(*s.incident.status.rejected_plans, plan.content_sha256)[-16:])
            return _save(s, record, LOOK_AGAIN, (Reason.REJECTED, message))
        case approval.Waiting(missing, needed, counted):
            have = f"; counted: {', '.join(counted)}" if counted else ""
            record.condition("Approved", "False", Reason.WAITING, waiting_message(s.incident, plan, missing, needed) + have)
            return _save(s, record, _until(plan.expires_at, now), None)
        case approval.Approved(by):
            return _reserve(s, target, plan, record, Reason.APPROVED, f"approved by {', '.join(by)}", now)


def waiting_message(incident: Incident, plan: Plan, missing: int, needed: int) -> str:
    """What the human at the gate reads."""
    until = f" until {plan.expires_at:%H:%M:%S}Z" if plan.expires_at else ""
    command = f"nightorders approve {incident.metadata.name} -n {incident.metadata.namespace}"
    return (
        f"needs {missing} more of {needed} approvals for plan {plan.digest[:19]}…{until}: {command}, or the command in status.plan.approve"
    )


def _reserve(s: Situation, target: KubeObject, plan: Plan, record: Record, reason: Reason, because: str, now: datetime) -> Step:
    if not s.samples:
        return _save(s, record, SOON, None)
    execution = Execution(
        id=execution_id(plan.digest),
        action=plan.action,
        by="operator",
        state="Reserved",
        plan_digest=plan.digest,
        reserved_at=now,
        before=plan.target.before_sha256,
        after=plan.target.after_sha256,
        message=line(because),
    )
    record.condition("Approved", "True", reason, because)
    record.condition("Executed", "False", Reason.RESERVED, f"execution {execution.id} reserved; the change follows")
    record.story(f"reserved execution {execution.id}: {because}")
    record.execution(execution).set(verification=verification.begin(plan.verify, s.samples, now))
    return Reserve(execution=execution, action=plan.action, workload=target.title, status=record.done())


def _done_by_human(s: Situation, target: KubeObject, now: datetime) -> Step | None:
    """A human ran the plan's command (or did the same by hand): the operator notices it and verifies it."""
    plan = s.incident.status.plan
    if plan is None or any(e.plan_digest == plan.digest for e in s.incident.status.executions):
        return None
    if target.uid != plan.target.uid or spec_sha256(target.at("spec", default={})) != plan.target.after_sha256:
        return None
    if _ours(s, target.labels.get(EXECUTION_LABEL, ""), plan.staged_at):
        return None
    if not s.samples:
        return Idle("the plan's effect is there; measuring", SOON)
    execution = Execution(
        id=execution_id(plan.digest),
        action=plan.action,
        by="human",
        state="Applied",
        plan_digest=plan.digest,
        reserved_at=now,
        applied_at=now,
        before=plan.target.before_sha256,
        after=plan.target.after_sha256,
        message="the plan's effect was found on the target; the operator did not make it",
    )
    # The baseline of a human's action is what the plan was made for: measured now it would be the result already.
    record = Record(s.incident, now).execution(execution).set(verification=verification.begin(plan.verify, (), now))
    message = f"a human brought {target.title} to the planned state; verifying it"
    record.condition("Executed", "True", Reason.BY_HUMAN, message).story(message, actor="human")
    record.condition("Verified", "Unknown", Reason.VERIFYING, f"measuring for {plan.verify.seconds} s")
    return Save(record.done(), timedelta(seconds=plan.verify.every_seconds), (Reason.BY_HUMAN, message))


def _ours(s: Situation, stamp: str, since: datetime) -> bool:
    """Whether the books know that stamp as an execution of the operator since then: for another Incident of the same target."""
    return any(execution == stamp and at >= since for at, _, _, execution in gates.started(s.ledger, None))


# ---------------------------------------------------------------- within an execution


def _in_execution(s: Situation, e: Execution, plan: Plan, now: datetime) -> Step:
    if isinstance(s.target, NotLooked):
        return Idle(f"cannot read the target: {s.target.because}", SOON)
    if isinstance(s.target, Absent) or s.target.uid != plan.target.uid:
        message = f"{plan.target.kind}/{plan.target.name} was deleted" + (" and made anew" if isinstance(s.target, KubeObject) else "")
        return settle(s, e, "Superseded" if e.state != "Reserved" else "NotApplied", message, Reason.SUPERSEDED, now)
    digest = spec_sha256(s.target.at("spec", default={}))
    stamped = s.target.labels.get(EXECUTION_LABEL) == e.id
    match e.state:
        case "Reserved":
            return _reserved(s, e, plan, s.target, digest, stamped, now)
        case "Applied":
            return _applied(s, e, plan, digest, now)
        case _:
            return _undoing(s, e, s.target, digest, now)


def _reserved(s: Situation, e: Execution, plan: Plan, target: KubeObject, digest: str, stamped: bool, now: datetime) -> Step:
    if stamped and digest == e.after:
        return Save(
            applied(s.incident, e, plan, now),
            timedelta(seconds=plan.verify.every_seconds),
            (Reason.APPLIED, f"{plan.action} of {target.title} applied"),
        )
    if stamped:  # it was sent, whatever came after: a second time would be a second effect
        message = f"{target.title} was changed by somebody else after {e.id} was applied; it is theirs now, nothing is undone"
        record = Record(s.incident, now).condition("Executed", "True", Reason.APPLIED, message)
        sent = e.model_copy(update={"state": "Applied", "applied_at": now})
        return settle(s, sent, "Superseded", message, Reason.SUPERSEDED, now, record)
    if (why := _cannot_tell(s)) and now - e.reserved_at < ASK_AGAIN_FOR:
        return Idle(f"cannot tell whether {e.id} may go on: {why}", SOON)
    if (lost := _last_look(s, e, plan, target, now)) is not None:
        return settle(s, e, "NotApplied", lost.message, lost.reason, now)
    if digest != e.before:
        message = f"{target.title} was changed by somebody else before the action; nothing was done"
        return settle(s, e, "Superseded", message, Reason.SUPERSEDED, now)
    if s.forward is None:
        return settle(s, e, "NotApplied", f"the plan cannot be carried out any more: {s.patch_problem}", Reason.NOT_APPLIED, now)
    return Apply(e, target, s.forward)


def _cannot_tell(s: Situation) -> str:
    return s.stop.unknown or "; ".join(s.unknown) or (s.patch_problem if s.patch_unread else "")


def _last_look(s: Situation, e: Execution, plan: Plan, target: KubeObject, now: datetime) -> Verdict | None:
    """Stop, protection and policy once more, read directly before the effect. None: nothing stands in the way."""
    approved = find_condition(s.incident.status.conditions, "Approved")
    needed = Level.L4 if approved is not None and approved.reason == Reason.NOT_REQUIRED else Level.L3
    top = next((h for h in s.incident.status.hypotheses if not h.refuted), None)
    level = autonomy.effective(_voices(s, target, top, s.caps, plan), now)
    found = governing_rule(s.orders, autonomy.own_labels(target.labels), plan.action)
    if level.level < needed:
        lowest = level.decided_by[0]
        return Verdict(False, Reason.LEVEL_TOO_LOW, f"the level fell to {level.level} before the action ({lowest.who} {lowest.because})")
    question = gates.Question(
        namespace=s.incident.metadata.namespace,
        operator_namespace=s.operator.namespace,
        action=plan.action,
        level=level.level,
        incident=s.incident,
        orders=s.orders,
        governing=found,
        target=target,
        before_sha256=e.before,
        target_sha256=e.before,
        hypothesis=top,
        rollout=gates.Rollout(False, False, False, None, ""),
        risk=gates.Risk(0, 1, Verdict(True, Reason.PASSED, "")),
        stop=s.stop,
        ledger=s.ledger,
        fleet=s.fleet,
        execution=e.id,
        owner=s.owner,
    )
    for judge in (gates.stopped, gates.policy, gates.protected, gates.owner):
        if not (verdict := judge(question, now)).allowed:
            return verdict
    return None


def applied(incident: Incident, e: Execution, plan: Plan, now: datetime) -> IncidentStatus:
    """The status once the patch is known to be there."""
    done = e.model_copy(update={"state": "Applied", "applied_at": now})
    before = incident.status.verification
    record = Record(incident, now).execution(done)
    record.set(verification=verification.begin(plan.verify, before.baseline if before else (), now))
    message = f"{plan.action} of {plan.target.kind}/{plan.target.name} applied: {plan.impact}"
    record.condition("Executed", "True", Reason.APPLIED, message).story(message)
    record.condition("Verified", "Unknown", Reason.VERIFYING, f"measuring for {plan.verify.seconds} s, every {plan.verify.every_seconds} s")
    return record.done()


def _applied(s: Situation, e: Execution, plan: Plan, digest: str, now: datetime) -> Step:
    v = s.incident.status.verification
    assert v is not None, "an execution is saved together with its verification"
    if digest != e.after:
        message = f"{plan.target.kind}/{plan.target.name} was changed by somebody else during the verification; it is theirs now, nothing is undone"
        return settle(s, e, "Superseded", message, Reason.SUPERSEDED, now)
    if now < (due := verification.next_sample(v, plan.verify)):
        return Idle("next sample", due - now)
    if not s.samples:
        return Idle("nothing was measured in this pass", SOON)
    worse_before = bool(verification.worse_on_workload({m.check: m for m in v.measurements}))
    seen = verification.observe(v, plan.verify, s.samples, now)
    verdict = verification.conclude(seen, plan, worse_before, now)
    record = Record(s.incident, now).set(verification=seen)
    if verdict is None:
        passing = sum(m.verdict == "Pass" for m in s.samples)
        message = f"{passing} of {len(s.samples)} checks pass; decides at {seen.until:%H:%M:%S}Z"
        record.condition("Verified", "Unknown", Reason.VERIFYING, message)
        return _save(s, record, max(timedelta(seconds=0.1), verification.next_sample(seen, plan.verify) - now), None)
    record.set(verification=seen.model_copy(update={"verdict": verdict.verdict, "message": line(verdict.message)}))
    return _concluded(s, e, plan, verdict, record, now)


def _concluded(s: Situation, e: Execution, plan: Plan, verdict: verification.Verdict, record: Record, now: datetime) -> Step:
    reason = Reason(verdict.verdict)
    if verdict.verdict == "Recovered":
        record.condition("Verified", "True", reason, verdict.message)
        return settle(s, e, "Recovered", verdict.message, reason, now, record)
    record.condition("Verified", "False", reason, verdict.message)
    wish = {"Worse": plan.verify.on_worse, "Unchanged": plan.verify.on_unchanged, "NoData": plan.verify.on_no_data}.get(
        verdict.verdict, "Escalate"
    )
    if wish == "Escalate" or e.by == "human" or not verdict.by_workload:
        advice = f"; to put back what was there before: see {plan.inverse.ref}" if e.by == "human" else ""
        return settle(s, e, "Escalated", f"{verdict.verdict}: {verdict.message}{advice}", Reason.ESCALATED, now, record)
    message = f"{verdict.verdict}: {verdict.message}; putting back what was there before"
    record.execution(e.model_copy(update={"state": "Undoing", "undo_started_at": now}))
    record.condition("Executed", "True", Reason.UNDOING, message).story(message)
    return Save(record.done(), timedelta(0), (Reason.UNDOING, message), warning=True)


def _undoing(s: Situation, e: Execution, target: KubeObject, digest: str, now: datetime) -> Step:
    if digest == e.before:
        return settle(s, e, "Undone", f"{target.title} is as it was before the action", Reason.UNDONE, now)
    if digest != e.after:
        return settle(
            s, e, "Superseded", f"{target.title} was changed by somebody else; not undone over their change", Reason.SUPERSEDED, now
        )
    if s.backward is None and s.patch_unread and now - (e.undo_started_at or now) < UNDO_AGAIN_FOR:
        return Idle(f"cannot read what to put back: {s.patch_problem}", SOON)
    if s.backward is None:
        return settle(s, e, "Escalated", f"the undo cannot be carried out: {s.patch_problem}", Reason.ESCALATED, now)
    return Undo(e, target, s.backward)


def settle(s: Situation, e: Execution, result: str, message: str, reason: Reason, now: datetime, record: Record | None = None) -> Settle:
    """The end of an execution, and what it means for the Incident."""
    record = (record or Record(s.incident, now)).drop("Stalled")
    ended = e.model_copy(update={"state": "Ended", "ended_at": now, "result": result, "message": line(message)})
    record.execution(ended).story(f"{result}: {message}")
    if result in ("Superseded", "NotApplied", "Undone") and e.state != "Applied":
        record.condition("Executed", "False", Reason.UNDONE if result == "Undone" else reason, message)
    if result == "Superseded" and e.state == "Applied":
        record.condition("Verified", "False", Reason.SUPERSEDED, message)
    if result == "Recovered":
        record.condition("Closed", "True", Reason.RECOVERED, message)
    elif result == "NotApplied":
        record = _withdraw(record, reason, message)
        record.set(verification=None)
    else:
        kind = Reason.UNDONE if result == "Undone" else Reason.ESCALATED
        record.condition("Closed", "False", kind, f"{message}; the operator takes no further action here: a human decides")
    plan = s.incident.status.plan
    workload = f"{plan.target.kind}/{plan.target.name}" if plan else s.incident.spec.target.title
    return Settle(ended, workload, record.done(), (reason, message), warning=result != "Recovered")


# ---------------------------------------------------------------- saving


def _save(s: Situation, record: Record, again: timedelta | None, announce: tuple[Reason, str] | None, *, warning: bool = False) -> Step:
    """A Save, or Idle when it would write what is there already."""
    status = record.done()
    if status == s.incident.status:
        return Idle("nothing new", again)
    news = announce if announce is not None and announce[1] != s.incident.status.summary else None
    return Save(status, again, news, warning)
