"""Before an execution: look, tell, propose, wait for whoever has to agree."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal

from ...api.meta import EXECUTION_LABEL, Level, find_condition, line
from ...api.v1alpha1.incident import ApprovalNeeds, Autonomy, DryRun, Execution, Incident, IncidentStatus, Pause, Plan, Shadow
from ...api.v1alpha1.ledger import Rejection, ShadowScore
from ...api.v1alpha1.policy import Rule
from .. import approval, autonomy, gates, verification
from ..diagnosis import Diagnosis, Finding
from ..digest import spec_sha256
from ..judgement import Judgement, judge, pause_of, stricter, voices
from ..orders import Governing, governing_rule
from ..plan import NoProposal, Proposal, content_sha256, digest_for, execution_id, rule_verify, stage
from ..reasons import Reason
from ..record import FINDING_REASON, Record, withdraw
from ..scores import taken_by
from ..situation import Situation
from ..snapshot import Absent, KubeObject, NotLooked
from ..verdict import Verdict
from .ending import save
from .kinds import IDLE, LOOK_AGAIN, SOON, Idle, Reserve, Save, Stage, Step

HEALTHY_FOR = timedelta(seconds=10)
HEALTHY_AFTER_ESCALATION = timedelta(minutes=30)  # somebody was called: the Incident stays open long enough to be seen
ATTEMPTS = 2
# Refusals that do not end by waiting: from here a human has to go on.
FOR_A_HUMAN = frozenset({Reason.NOT_SURE_ENOUGH, Reason.CATEGORY_UNKNOWN, Reason.OWNED_ELSEWHERE, Reason.PREFLIGHT, Reason.PROTECTED})


def without_target(s: Situation, target: Absent | NotLooked, now: datetime) -> Step:
    record = _looked(s, Record(s.incident, now))
    signal = s.incident.spec.signal
    if isinstance(target, Absent) and signal is not None and signal.source == "Alertmanager":
        return _alert_about_nothing(s, target, record)
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
        record = withdraw(record, reason, message)
    return save(s, record, IDLE, (reason, message), warning=True)


def _alert_about_nothing(s: Situation, target: Absent, record: Record) -> Step:
    """What an alert names is gone or misnamed. While it fires a human looks at the alert; once it is resolved, it is over."""
    told = f"{target.title} does not exist in namespace {s.incident.metadata.namespace}"
    record.condition("Triaged", "False", Reason.TARGET_NOT_FOUND, told).drop("Healthy")
    if record.plan is not None:
        record = withdraw(record, Reason.TARGET_NOT_FOUND, told)
    if s.claim_over:
        message = f"{told}, and {s.claim_over}"
        record.condition("Closed", "True", Reason.NO_FAULT, message).story(f"closed: {message}", kind="Decision")
        return save(s, record, None, (Reason.NO_FAULT, message))
    message = f"{told}: it is gone, or the alert names the wrong object; a human looks at the alert"
    return save(s, _handed_over(s, record, Reason.TARGET_NOT_FOUND, message), LOOK_AGAIN, (Reason.TARGET_NOT_FOUND, message), warning=True)


def _handed_over(s: Situation, record: Record, reason: Reason, message: str) -> Record:
    """Says that a human has to go on from here; where no orders are given at all the operator only ever tells (L1)."""
    if not (s.orders.policies or s.orders.unreadable):
        return record.drop("Escalated")
    return record.condition("Escalated", "True", reason, message)


def before_execution(s: Situation, target: KubeObject, now: datetime) -> Step:
    if s.diagnosis is None:
        return Idle("nothing was looked at in this pass", SOON)
    record = _looked(s, Record(s.incident, now)).condition("Triaged", "True", Reason.LOOKED, f"{target.title} exists and was looked at")
    record.drop("Stalled").drop("Escalated")
    match s.diagnosis.finding:
        case Finding.FAULT:
            return _fault(s, target, s.diagnosis, record, now)
        case Finding.NO_FAULT:
            return _healthy(s, s.diagnosis, record, now)
        case Finding.PROGRESSING | Finding.UNKNOWN | Finding.TARGET_MISSING | Finding.TARGET_UNKNOWN:
            record = withdraw(record, Reason.CATEGORY_UNKNOWN, s.diagnosis.message).drop("Healthy")  # health must hold without a break
            if s.diagnosis.finding is not Finding.PROGRESSING:
                record = _handed_over(s, record, Reason.CATEGORY_UNKNOWN, s.diagnosis.message)
            return save(s, record, LOOK_AGAIN, _news(s.diagnosis))


def _looked(s: Situation, record: Record) -> Record:
    """Puts a fresh diagnosis into the status, unless it says what is there already (its times alone are no news)."""
    record.taken(taken_by(s.incident.metadata.annotations))
    d = s.diagnosis
    return record if d is None else record.diagnosis(d).runbooks(s.runbooks)


def _news(d: Diagnosis) -> tuple[Reason, str]:
    return FINDING_REASON[d.finding], d.summary


def _healthy(s: Situation, d: Diagnosis, record: Record, now: datetime) -> Step:
    status = s.incident.status
    before = find_condition(status.conditions, "Healthy")
    since = before.last_transition_time if before is not None and before.status == "True" else now
    record.condition("Healthy", "True", Reason.NO_FAULT, d.message)
    record = withdraw(record, Reason.NO_PLAN_NEEDED, d.message)
    escalated = any(e.state == "Ended" and e.result in ("Escalated", "Undone", "Superseded") for e in status.executions)
    needed = HEALTHY_AFTER_ESCALATION if escalated else HEALTHY_FOR
    if now - since < needed:
        return save(s, record, min(IDLE, needed - (now - since) + SOON / 10), None)
    if status.cause or status.executions:
        message = f"healthy since {since:%H:%M:%S}Z; no action of the operator was verified as the reason"
        record.condition("Closed", "True", Reason.RECOVERED_BY_ITSELF, message)
    else:
        record.condition("Closed", "True", Reason.NO_FAULT, d.message)
    record.story("closed: " + d.message, kind="Decision")
    score = _shadow_score(s, record, now)
    return save(s, record, None, (Reason.NO_FAULT, d.message), note=score)


def _shadow_score(s: Situation, record: Record, now: datetime) -> ShadowScore | None:
    """How a decision made in Shadow compares with what made the Incident go away."""
    shadow = s.incident.status.shadow
    if shadow is None or shadow.score != "Open" or not isinstance(s.target, KubeObject):
        return None
    digests = {spec_sha256(s.target.at("spec", default={}), scaled=scaled) for scaled in (False, True)}
    score: Literal["Agreed", "Differed", "Needless"]
    if shadow.after in digests:
        score, message = "Agreed", "a human did what would have been done, and it helped"
    elif shadow.before in digests:
        score, message = "Needless", "it recovered while nobody changed the target"
    else:
        score, message = "Differed", "a human changed the target in another way, and that helped"
    record.set(shadow=shadow.model_copy(update={"score": score, "message": message}))
    record.story(f"shadow: {score}: {message}", kind="Decision")
    policy = shadow.rule.removeprefix("RemediationPolicy/").split(" ")[0]
    return ShadowScore(
        incident_uid=s.incident.metadata.uid, policy=policy, action=shadow.action, workload=line(s.target.title, 256), at=now, score=score
    )


def _fault(s: Situation, target: KubeObject, d: Diagnosis, record: Record, now: datetime) -> Step:
    record.drop("Healthy")
    if (stopped := _stopped_acting(s.incident.status)) is not None:
        record = withdraw(record, Reason.STOPPED_ACTING, stopped)
        return save(s, record, LOOK_AGAIN, None)
    match s.proposal:
        case None:
            return save(s, record, SOON, _news(d))
        case NoProposal() as none:
            spoken = voices(s, target, d.top, (), None, None)
            record.set(autonomy=_decided(s, autonomy.effective(spoken, now)), gates=())
            record = _handed_over(s, withdraw(record, none.reason, none.message), none.reason, none.message)
            return save(s, record, LOOK_AGAIN, _news(d))
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
    kept = _kept(s, target, p)
    j = judge(s, target, d.top, p, kept, now)
    record.set(autonomy=_decided(s, j.level), gates=j.results)
    if j.verdict.reason is Reason.SHADOW:
        return _shadow(s, p, j, record, now)
    if not j.verdict.allowed:
        reason = Reason.READ_ONLY if j.verdict.reason is Reason.LEVEL_TOO_LOW else j.verdict.reason
        record = withdraw(record, reason, _refusal(j.level, j.verdict))
        if reason in FOR_A_HUMAN and j.verdict.retry_at is None:
            record = _handed_over(s, record, reason, _refusal(j.level, j.verdict))
        return save(s, record, _until(j.verdict.retry_at, now), _news(d))
    assert isinstance(j.governing, Governing)
    content = content_of(s, p, j.governing.rule, j.pause)
    if content in s.incident.status.rejected_plans:
        record = withdraw(record, Reason.REJECTED, "the same plan was rejected; it is proposed again only when the evidence changes")
        return save(s, record, LOOK_AGAIN, None)
    needs = stricter(kept.needs if kept else None, j.needs)
    level = j.level.level
    if kept is None or _level_class_changed(s.incident.status, level) or _expired(kept, now) or (level == Level.L3 and kept.needs != needs):
        return Stage(proposal=p, governing=j.governing, level=level, ordered=j.ordered, needs=needs, pause=j.pause, status=record.done())
    return _with_plan(s, target, kept, needs, j.level, record, now)


def _shadow(s: Situation, p: Proposal, j: Judgement, record: Record, now: datetime) -> Step:
    """Decides, records, and touches nothing; what really happens is held against it when the Incident closes."""
    assert isinstance(j.governing, Governing)
    how = {Level.L4: "would have acted alone", Level.L3: "would have asked for an approval", Level.L2: "would have advised"}
    if j.otherwise.allowed:
        would = f"{how.get(j.level.level, 'would have done nothing')}: {p.action}, {p.impact}"
    else:
        would = f"would have refused ({j.otherwise.reason}): {_refusal(j.level, j.otherwise)}"
    seen = Shadow(
        at=now,
        action=p.action,
        level=j.level.level,
        would=line(would),
        before=p.before_sha256,
        after=p.after_sha256,
        rule=line(j.governing.title, 256),
    )
    before = s.incident.status.shadow
    if before is None or _gist(before) != _gist(seen):  # the numbers in a refusal move with the clock: they alone are no new decision
        record.set(shadow=seen).story(f"shadow: {would}", kind="Decision")
    record = withdraw(record, Reason.SHADOW, f"{would}; {j.governing.policy.metadata.name} is in Shadow, so nothing is touched")
    return save(s, record, LOOK_AGAIN, (Reason.SHADOW, line(would)))


def _gist(shadow: Shadow) -> tuple[str, str, Level, str, str]:
    return shadow.would.partition(":")[0], shadow.rule, shadow.level, shadow.before, shadow.after


def content_of(s: Situation, p: Proposal, rule: Rule, pause: Pause | None) -> str:
    """Digest of what the plan would say, without the sequence."""
    namespace = s.incident.metadata.namespace
    return content_sha256(s.incident.metadata.uid, p, rule_verify(p, rule, namespace), pause)


def draft(incident: Incident, step: Stage, dry_run: DryRun | None, now: datetime) -> Plan:
    """The plan that a Stage step leads to."""
    return stage(incident, step.proposal, step.governing, step.level, step.ordered, dry_run, now, needs=step.needs, pause=step.pause)


def staged(incident: Incident, step: Stage, dry_run: DryRun | None, problem: str, now: datetime) -> IncidentStatus:
    """The status with the plan in it. `dry_run` None (then `problem` says why) is allowed for advice only."""
    incident = incident.model_copy(update={"status": step.status})
    fresh = draft(incident, step, dry_run, now)
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
            record.condition("Approved", "False", Reason.WAITING, waiting_message(incident, fresh, step.needs.count, step.needs.count))
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
    return withdraw(record, reason, message).done()


def _kept(s: Situation, target: KubeObject, p: Proposal) -> Plan | None:
    """The staged plan, while it is still the very same one."""
    plan = s.incident.status.plan
    found = governing_rule(s.orders, autonomy.own_labels(target.labels), p.action)
    if plan is None or not isinstance(found, Governing):
        return None
    return plan if plan.content_sha256 == content_of(s, p, found.rule, pause_of(s, found)) else None


def _level_class_changed(status: IncidentStatus, level: Level) -> bool:
    """Whether the plan waits in another way than this level asks: staged again then, under the same digest."""
    approved = find_condition(status.conditions, "Approved")
    expected = {
        Level.L2: {Reason.ADVISED},
        Level.L3: {Reason.WAITING, Reason.APPROVED, Reason.EMERGENCY, Reason.GUARD_NOT_PROVEN},
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


def _decided(s: Situation, level: Autonomy) -> Autonomy | None:
    """What is kept of the level. The first one kept says what was ordered at detection, so it must not be made of failed reads."""
    return level if s.incident.status.autonomy is not None or not s.unknown else None


def _with_plan(s: Situation, target: KubeObject, plan: Plan, needs: ApprovalNeeds, level: Autonomy, record: Record, now: datetime) -> Step:
    match level.level:
        case Level.L3:
            return _gated(s, target, plan, needs, record, now)
        case Level.L4:
            return _reserve(s, target, plan, record, Reason.NOT_REQUIRED, f"{plan.rule} allows it alone (L4)", Level.L4, (), now)
        case _:
            return save(s, record, LOOK_AGAIN, None)


def _gated(s: Situation, target: KubeObject, plan: Plan, needs: ApprovalNeeds, record: Record, now: datetime) -> Step:
    notes = s.incident.metadata.annotations
    before = s.incident.status.approvals
    approvals = approval.seen(notes, plan, before, now)
    for new in (a for a in approvals if a not in before):
        kind = "gives an emergency approval to" if new.emergency else "approves"
        record.story(f"{kind} plan {plan.digest[:15]}…" + (f": {new.why}" if new.why else ""), actor=new.user, kind="Approval")
    for gone in (a for a in before if a not in approvals):
        record.story("withdraws the approval", actor=gone.user, kind="Approval")
    record.set(approvals=approvals)
    match approval.judge(notes, plan, approvals, needs, s.incident.spec.requested_by, s.operator.username, now):
        case approval.Rejected(by, why):
            message = f"rejected by {by}" + (f": {line(why, 200)}" if why else "")
            record.story(message, actor=by, kind="Decision")
            record = withdraw(record, Reason.REJECTED, message)
            record.set(rejected_plans=(*s.incident.status.rejected_plans, plan.content_sha256)[-16:])
            note = Rejection(plan=plan.content_sha256, action=plan.action, workload=line(target.title, 256), by=line(by, 256), at=now)
            return save(s, record, LOOK_AGAIN, (Reason.REJECTED, message), note=note)
        case approval.Waiting(missing, needed, counted):
            have = f"; counted: {', '.join(counted)}" if counted else ""
            record.condition("Approved", "False", Reason.WAITING, waiting_message(s.incident, plan, missing, needed) + have)
            return save(s, record, _until(plan.expires_at, now), None)
        case approval.Approved(by):
            emergency = needs.frozen_by != "None"
            reason = Reason.EMERGENCY if emergency else Reason.APPROVED
            because = f"{'emergency approval' if emergency else 'approved'} by {', '.join(by)}"
            return _reserve(s, target, plan, record, reason, because, Level.L3, by, now)


def waiting_message(incident: Incident, plan: Plan, missing: int, needed: int) -> str:
    """What the human at the gate reads."""
    until = f" until {plan.expires_at:%H:%M:%S}Z" if plan.expires_at else ""
    command = f"nightorders approve {incident.metadata.name} -n {incident.metadata.namespace}"
    kind = "approvals"
    if plan.needs is not None and plan.needs.frozen_by != "None":
        kind, command = "emergency approvals (a freeze is in force)", f"{command} --emergency --because '…'"
    return f"needs {missing} more of {needed} {kind} for plan {plan.digest[:19]}…{until}: {command}, or the command in status.plan.approve"


def _reserve(
    s: Situation,
    target: KubeObject,
    plan: Plan,
    record: Record,
    reason: Reason,
    because: str,
    level: Level,
    by: tuple[str, ...],
    now: datetime,
) -> Step:
    if not s.samples:
        return save(s, record, SOON, None)
    execution = _execution(
        plan,
        now,
        by="operator",
        state="Reserved",
        message=line(because),
        approved_by=by[:16],
        emergency=reason is Reason.EMERGENCY,
        level=level,
    )
    record.condition("Approved", "True", reason, because)
    record.condition("Executed", "False", Reason.RESERVED, f"execution {execution.id} reserved; the change follows")
    record.story(f"reserved execution {execution.id} of plan {plan.digest[:15]}…: {because}", kind="Execution")
    record.execution(execution).set(verification=verification.begin(plan.verify, s.samples, now))
    return Reserve(execution=execution, action=plan.action, workload=target.title, pause=plan.pause, status=record.done())


def _execution(plan: Plan, now: datetime, **fields: Any) -> Execution:
    """An execution of that plan, which begins now."""
    return Execution(
        id=execution_id(plan.digest),
        action=plan.action,
        plan_digest=plan.digest,
        reserved_at=now,
        before=plan.target.before_sha256,
        after=plan.target.after_sha256,
        **fields,
    )


def done_by_human(s: Situation, target: KubeObject, now: datetime) -> Step | None:
    """A human ran the plan's command (or did the same by hand): the operator notices it and verifies it."""
    plan = s.incident.status.plan
    if plan is None or any(e.plan_digest == plan.digest for e in s.incident.status.executions):
        return None
    if target.uid != plan.target.uid or digest_for(plan, target) != plan.target.after_sha256:
        return None
    if _ours(s, target.labels.get(EXECUTION_LABEL, ""), plan.staged_at):
        return None
    if not s.samples:
        return Idle("the plan's effect is there; measuring", SOON)
    execution = _execution(
        plan,
        now,
        by="human",
        state="Applied",
        applied_at=now,
        message="the plan's effect was found on the target; the operator did not make it",
        level=Level.L2,
    )
    # The baseline of a human's action is what the plan was made for: measured now it would be the result already.
    record = Record(s.incident, now).execution(execution).set(verification=verification.begin(plan.verify, (), now))
    message = f"a human brought {target.title} to the planned state; verifying it"
    record.condition("Executed", "True", Reason.BY_HUMAN, message).story(message, actor="human", kind="Execution")
    record.condition("Verified", "Unknown", Reason.VERIFYING, f"measuring for {plan.verify.seconds} s")
    return Save(record.done(), timedelta(seconds=plan.verify.every_seconds), (Reason.BY_HUMAN, message))


def _ours(s: Situation, stamp: str, since: datetime) -> bool:
    """Whether the books know that stamp as an execution of the operator since then: for another Incident of the same target."""
    return any(execution == stamp and at >= since for at, _, _, execution in gates.started(s.ledger, None))
