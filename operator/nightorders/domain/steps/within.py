"""Within an execution: Reserved → Applied → Verifying → Recovered | Undoing → Undone | Escalated.

Every state can be entered again after a crash: what happened is read from the target, not remembered.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ...api.meta import EXECUTION_LABEL, Level, find_condition, line
from ...api.v1alpha1.incident import Execution, Incident, IncidentStatus, Plan
from .. import autonomy, gates, gitops, verification
from ..judgement import voices
from ..orders import governing_rule
from ..plan import digest_for
from ..reasons import Reason
from ..record import Record
from ..situation import Situation
from ..snapshot import Absent, KubeObject, NotLooked
from ..verdict import Verdict
from .ending import save, settle
from .kinds import SOON, Apply, Idle, PauseOwner, Save, Step, Undo

ASK_AGAIN_FOR = timedelta(minutes=2)  # what cannot be told right now, before the effect: nothing happens meanwhile
UNDO_AGAIN_FOR = timedelta(minutes=10)


def in_execution(s: Situation, e: Execution, plan: Plan, now: datetime) -> Step:
    if isinstance(s.target, NotLooked):
        return Idle(f"cannot read the target: {s.target.because}", SOON)
    if isinstance(s.target, Absent) or s.target.uid != plan.target.uid:
        message = f"{plan.target.kind}/{plan.target.name} was deleted" + (" and made anew" if isinstance(s.target, KubeObject) else "")
        return settle(s, e, "Superseded" if e.state != "Reserved" else "NotApplied", message, Reason.SUPERSEDED, now)
    digest = digest_for(plan, s.target)
    stamped = s.target.labels.get(EXECUTION_LABEL) == e.id
    match e.state:
        case "Reserved":
            return _reserved(s, e, plan, s.target, digest, stamped, now)
        case "Applied":
            return _applied(s, e, plan, digest, now)
        case _:
            return _undoing(s, e, plan, s.target, digest, now)


def _reserved(s: Situation, e: Execution, plan: Plan, target: KubeObject, digest: str, stamped: bool, now: datetime) -> Step:
    if stamped and digest == e.after:
        return Save(
            applied(s.incident, e, plan, now, s.owner_object),
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
    if (first := _pause_first(s, e, plan, now)) is not None:
        return first
    return Apply(e, target, s.forward)


def _pause_first(s: Situation, e: Execution, plan: Plan, now: datetime) -> Step | None:
    """The plan's owner is paused before anything else is done; what is paused already, by whomever, is left as it is. None: go on."""
    if plan.pause is None:
        return None
    if not isinstance(s.owner_object, KubeObject):
        return settle(
            s, e, "NotApplied", f"{plan.pause.title} is gone; who would revert the change cannot be told", Reason.NOT_APPLIED, now
        )
    if s.owner is None or s.owner.pause is None or s.owner.pause.title != plan.pause.title:
        return settle(s, e, "NotApplied", f"{plan.pause.title} is not what governs the target any more", Reason.OWNED_ELSEWHERE, now)
    if gitops.state(s.owner_object, e.id) in ("Running", "Shared"):
        return PauseOwner(e, s.owner_object, gitops.pause_patch(s.owner_object, e.id))
    return None


def _cannot_tell(s: Situation) -> str:
    owner = s.owner_object.because if isinstance(s.owner_object, NotLooked) else ""
    return s.stop.unknown or "; ".join(s.unknown) or (s.patch_problem if s.patch_unread else "") or owner


def _last_look(s: Situation, e: Execution, plan: Plan, target: KubeObject, now: datetime) -> Verdict | None:
    """Stop, protection and policy once more, read directly before the effect. None: nothing stands in the way."""
    approved = find_condition(s.incident.status.conditions, "Approved")
    needed = Level.L4 if approved is not None and approved.reason == Reason.NOT_REQUIRED else Level.L3
    top = next((h for h in s.incident.status.hypotheses if not h.refuted), None)
    spoken = voices(s, target, top, s.caps, plan, None, evidence_at=e.reserved_at, execution=e.id)
    level = autonomy.effective(spoken, now)
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
        fleet_workloads=s.fleet_workloads,
    )
    if not e.emergency and (frozen := next(autonomy.frozen_by(s.orders, spoken.governing, question.namespace, plan.action, now), None)):
        return Verdict(False, Reason.FROZEN, f"{frozen[0]} began before the action")
    for judge in (gates.stopped, gates.policy, gates.enforcement, gates.protected, gates.owner, gates.breaker):
        if not (verdict := judge(question, now)).allowed:
            return verdict
    return None


def applied(
    incident: Incident, e: Execution, plan: Plan, now: datetime, owner: KubeObject | Absent | NotLooked | None = None
) -> IncidentStatus:
    """The status once the patch is known to be there. `owner`: the GitOps object that is paused meanwhile."""
    done = e.model_copy(update={"state": "Applied", "applied_at": now})
    before = incident.status.verification
    record = Record(incident, now).execution(done)
    record.set(verification=verification.begin(plan.verify, before.baseline if before else (), now))
    message = f"{plan.action} of {plan.target.kind}/{plan.target.name} applied: {plan.impact}"
    record.condition("Executed", "True", Reason.APPLIED, message).story(message, kind="Execution")
    record.condition("Verified", "Unknown", Reason.VERIFYING, f"measuring for {plan.verify.seconds} s, every {plan.verify.every_seconds} s")
    if plan.pause is not None and (paused := gitops.told(plan.pause, e, owner)):
        record.condition("OwnerPaused", "True", Reason.PAUSED, paused).story(paused, kind="Execution")
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
        return save(s, record, max(timedelta(seconds=0.1), verification.next_sample(seen, plan.verify) - now), None)
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
    if s.stop.undo_denied:
        message = f"{verdict.verdict}: {verdict.message}; not put back: {_stop_denies(s)}; see {plan.inverse.ref} for what was there before"
        return settle(s, e, "Escalated", message, Reason.STOPPED, now, record)
    held = f" although a stop is in force in {s.stop.where}: it lets an undo pass" if s.stop.where else ""
    message = f"{verdict.verdict}: {verdict.message}; putting back what was there before{held}"
    record.execution(e.model_copy(update={"state": "Undoing", "undo_started_at": now}))
    record.condition("Executed", "True", Reason.UNDOING, message).story(message, kind="Execution")
    return Save(record.done(), timedelta(0), (Reason.UNDOING, message), warning=True)


def _undoing(s: Situation, e: Execution, plan: Plan, target: KubeObject, digest: str, now: datetime) -> Step:
    if digest == e.before:
        return _as_before(s, e, plan, target, now)
    if e.undone_at is not None:
        message = f"{target.title} was changed by somebody else after it was put back; it is theirs now"
        return settle(s, e, "Superseded", message, Reason.SUPERSEDED, now)
    if digest != e.after:
        return settle(
            s, e, "Superseded", f"{target.title} was changed by somebody else; not undone over their change", Reason.SUPERSEDED, now
        )
    if s.stop.undo_denied:
        return settle(s, e, "Escalated", f"not put back: {_stop_denies(s)}", Reason.STOPPED, now)
    if s.backward is None and s.patch_unread and now - (e.undo_started_at or now) < UNDO_AGAIN_FOR:
        return Idle(f"cannot read what to put back: {s.patch_problem}", SOON)
    if s.backward is None:
        return settle(s, e, "Escalated", f"the undo cannot be carried out: {s.patch_problem}", Reason.ESCALATED, now)
    return Undo(e, target, s.backward)


def _stop_denies(s: Situation) -> str:
    return f"ConfigMap nightorders-stop (in force in {s.stop.where}) says undo: Deny"


def _as_before(s: Situation, e: Execution, plan: Plan, target: KubeObject, now: datetime) -> Step:
    """The spec is what it was; the undo is over when it serves as before, too: seen twice, or else a human has to know."""
    v = s.incident.status.verification
    assert v is not None, "an execution is saved together with its verification"
    began = e.undone_at or now
    put_back = e.model_copy(update={"undone_at": began})
    look = verification.as_before(v, s.samples, target)
    why = f"{v.verdict}: {v.message}" if v.message else v.verdict
    deadline = began + timedelta(seconds=plan.verify.seconds)
    record = Record(s.incident, now).execution(put_back)
    since = v.passing_since if e.undone_at is not None else None  # what passed before the undo says nothing about it
    if look.holds and since is not None and now - since >= verification.UNDO_EVERY:
        return _undone(s, put_back, why, look.message, record, now)
    if not look.holds and now >= deadline:
        if look.tolerable:
            return _undone(s, put_back, why, look.message, record, now)
        message = f"{target.title} was put back, but it is not as before after {plan.verify.seconds} s: {look.message}"
        record.condition("Executed", "False", Reason.UNDONE, f"{target.title} has the spec that it had before")
        record.condition("Verified", "False", Reason.UNDO_NOT_VERIFIED, f"{why}; {message}")
        return settle(s, put_back, "Escalated", message, Reason.ESCALATED, now, record)
    record.set(verification=v.model_copy(update={"passing_since": (since or now) if look.holds else None}))
    if e.undone_at is None:
        record.story(f"{target.title} has the spec that it had before; measuring whether it serves as before", kind="Execution")
    message = f"{why}; put back at {began:%H:%M:%S}Z, measuring until {deadline:%H:%M:%S}Z: {look.message}"
    record.condition("Verified", "False", Reason.UNDOING, message)
    return save(s, record, verification.UNDO_EVERY, None)


def _undone(s: Situation, e: Execution, why: str, message: str, record: Record, now: datetime) -> Step:
    record.condition("Verified", "False", Reason.UNDO_VERIFIED, f"{why}; undone, {message}")
    return settle(s, e, "Undone", message, Reason.UNDONE, now, record)
