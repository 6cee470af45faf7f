"""`nightorders show`: the whole story of one Incident, and what a human can do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from ..api.meta import EXECUTION_LABEL, Condition, Level, find_condition
from ..api.v1alpha1.incident import (
    ApprovalNeeds,
    Autonomy,
    Escalation,
    Execution,
    Incident,
    IncidentStatus,
    Measurement,
    Phase,
    Plan,
    RunbookMatch,
    Score,
    TimelineEntry,
    Verification,
)
from ..api.v1alpha1.runbook import NO_ACTION
from ..domain.reasons import Reason
from . import paste, story
from .document import Code, Diff, Document, Row, Say, Section, Tone, section
from .times import absolute, both, lasting

ORDER = ("Triaged", "Diagnosed", "Planned", "Approved", "Executed", "Verified", "Healthy", "Stalled", "Closed")


def document(incident: Incident, now: datetime, flags: Sequence[str] = ()) -> Document:
    """Everything, from summary to the next command."""
    s = incident.status
    return Document(
        f"Incident {incident.metadata.name} in namespace {incident.metadata.namespace}",
        (
            section("Summary", _head(incident, now)),
            *story.findings(s, now),
            section("Runbooks", (row for m in s.runbooks for row in _runbook(m, now))),
            section("Plan", plan_rows(s, s.plan, now, flags) if s.plan else _no_plan(s)),
            section("Who decides", _levels(s)),
            *score_sections(s.autonomy),
            section("Gates", _gates(s)),
            section("Shadow", _shadow(s, now)),
            section("Approvals", _approvals(s, now)),
            section("Execution", (row for e in s.executions for row in _execution(e, now))),
            section("Verification", _verification(s.verification, now)),
            section("Called", _escalation(s.escalation, now)),
            section("Judged by humans", _judged(s, now)),
            section("Where it stands", _conditions(s, now)),
            section("Timeline", (*(_told(t, now) for t in s.timeline), *_head_of_chain(s, now))),
            story.evidence(s, now),
            section("Next", next_steps(incident, flags)),
        ),
    )


def _head(incident: Incident, now: datetime) -> Iterator[Row]:
    s, spec = incident.status, incident.spec
    level = f", level {s.autonomy.level}" if s.autonomy else ""
    closed = find_condition(s.conditions, "Closed")
    yield Say(f"{s.phase or Phase.TRIAGE}: {spec.severity}, {spec.target.title}{level}", tone=Tone.STRONG, bullet=False)
    if closed is not None:
        yield Say(f"{closed.message or closed.reason}, {both(closed.last_transition_time, now)}", bullet=False)
    if s.summary and s.diagnosed_at:
        yield Say(f"diagnosed {both(s.diagnosed_at, now)}: {s.summary}", bullet=False)
    else:
        yield Say(s.summary or "not diagnosed yet", bullet=False)
    opener = "the operator's own detector" if spec.signal else spec.requested_by or "somebody unnamed"
    if s.taken is not None:
        yield Say(f"taken {both(s.taken.at, now)} by {s.taken.by}: advice only, nobody else is called", tone=Tone.WARN, bullet=False)
    opened = f" {both(incident.metadata.creation_timestamp, now)}" if incident.metadata.creation_timestamp else ""
    yield Say(f"opened{opened} by {opener}{f': {spec.title}' if spec.title else ''}", bullet=False)


def _no_plan(s: IncidentStatus) -> Iterator[Row]:
    planned = find_condition(s.conditions, "Planned")
    if planned is not None:
        yield Say(f"none: {planned.message or planned.reason}", bullet=False)


def plan_rows(s: IncidentStatus, plan: Plan, now: datetime, flags: Sequence[str] = ()) -> Iterator[Row]:
    """The plan: what, how bad, what else, the diff, the command."""
    yield from plan_in_short(plan, now, waiting=is_waiting(s))
    for a in plan.alternatives:
        yield Say(f"turned down: {a.action}: {a.why}")
    if s.phase in (Phase.ADVISED, Phase.AWAITING_APPROVAL) and (shown := paste.pipeline(plan.command, flags)):
        yield Say("the same with your own credentials:")
        yield Code(shown)


def plan_in_short(plan: Plan, now: datetime, *, waiting: bool) -> Iterator[Row]:
    """What somebody who approves must have seen."""
    p = plan.parameters
    proven = "proven healthy" if p.proven_healthy else "NOT proven healthy"
    yield Say(
        f"{plan.action} of {plan.target.kind}/{plan.target.name}: back to revision {p.to_revision} ({p.revision_name}, {proven})",
        tone=Tone.STRONG,
    )
    yield Say(f"impact: {plan.impact}")
    yield Say(f"to undo it: the template of {plan.inverse.ref} ({plan.undo.lower()})")
    v = plan.verify
    checks = "".join(f", {c.name}" for c in v.checks)
    yield Say(
        f"then measures for {lasting(v.seconds)}, every {v.every_seconds} s: symptom gone, rollout complete, nothing worse{checks}; "
        f"worse: {v.on_worse.lower()}, unchanged: {v.on_unchanged.lower()}, no data: {v.on_no_data.lower()}"
    )
    until = f", expires {both(plan.expires_at, now)}" if waiting and plan.expires_at else ""
    rule = f" under {plan.rule}" if plan.rule else ""
    yield Say(f"staged {both(plan.staged_at, now)}{rule}{until}")
    yield Say(f"digest: {plan.digest}")
    if plan.dry_run is None:
        yield Say("no dry run: the API server has not been asked", tone=Tone.WARN)
    else:
        yield Say(f"what the API server would change (dry run {both(plan.dry_run.at, now)}):")
        yield Diff(plan.dry_run.diff or "(nothing)")


def _levels(s: IncidentStatus) -> Iterator[Row]:
    if s.autonomy is not None:
        yield Say(f"{s.autonomy.level}: {MEANING[s.autonomy.level]}", tone=Tone.STRONG, bullet=False)
        yield from speaker_rows(s.autonomy)


def speaker_rows(a: Autonomy) -> Iterator[Row]:
    """Everybody who speaks, the lowest first: level, name, what was found and what it is held against."""
    for v in a.decided_by:
        measured = ", ".join(part for part in (v.value, f"threshold {v.threshold}" if v.threshold else "") if part)
        note = "  (decides)" if v.level == a.level else ""
        yield Say(f"{v.level}  {v.who}{f' [{measured}]' if measured else ''}{f': {v.because}' if v.because else ''}{note}")


def score_rows(score: Score | None, otherwise: str = "") -> Iterator[Row]:
    """What makes up trust or risk."""
    if score is None:
        return
    for c in score.components:
        yield Say(f"{c.points:>3}  {c.name}{f': {c.because}' if c.because else ''}")
    if not score.components and otherwise:
        yield Say(otherwise, bullet=False)


def score_sections(a: Autonomy | None) -> Iterator[Section]:
    """Trust and risk with their parts."""
    if a is not None and a.trust is not None:
        yield section(f"Trust {a.trust.value}, {a.trust.level} at most", score_rows(a.trust, "nothing speaks against it"))
    if a is not None and a.risk is not None:
        yield section(f"Risk {a.risk.value}, {a.risk.level} at most", score_rows(a.risk, "nothing is at risk"))


MEANING = {
    Level.L1: "it only reads and explains",
    Level.L2: "it writes the command, a human runs it",
    Level.L3: "it acts once this very plan is approved",
    Level.L4: "it acts alone within the limits of the policy",
}


def _gates(s: IncidentStatus) -> Iterator[Row]:
    if passed := [g.gate for g in s.gates if g.allowed]:
        yield Say(f"open: {', '.join(passed)}", tone=Tone.GOOD)
    for g in s.gates:
        if not g.allowed:
            yield Say(f"closed: {g.gate}, {g.reason}: {g.message}", tone=Tone.BAD)


def _approvals(s: IncidentStatus, now: datetime) -> Iterator[Row]:
    if s.plan is not None and s.plan.needs is not None and is_waiting(s):
        yield from needs_rows(s.plan.needs)
    for a in s.approvals:
        fits = "" if s.plan and a.digest == s.plan.digest else ", of an earlier plan"
        plan = f" to {a.plan}" if a.plan else ""
        kind = "  EMERGENCY" if a.emergency else ""
        yield Say(f"{a.user}{plan}, first seen {both(a.at, now)}{fits}{kind}", tone=Tone.WARN if a.emergency else Tone.PLAIN)
        if a.why:
            yield Say(f"because: {a.why}", 1, bullet=False)
    if not s.approvals and is_waiting(s):
        yield Say("none yet", bullet=False)


def needs_rows(n: ApprovalNeeds) -> Iterator[Row]:
    """Whose approval a plan needs."""
    people = "1 person" if n.count == 1 else f"{n.count} different people"
    own = "whoever opened the Incident does not count" if n.separation_of_duties else "whoever opened the Incident counts, too"
    robots = "; ServiceAccounts count" if n.service_accounts == "Allow" else ""
    yield Say(f"needs {people}, each for {lasting(n.expires_seconds)}; {own}{robots}", bullet=False)
    if n.frozen_by != "None":
        where = "clusterremediationpolicies" if n.frozen_by == "Cluster" else "this Incident"
        yield Say(
            f"a freeze is in force: only emergency approvals count, with the verb approve-emergency on {where}",
            tone=Tone.WARN,
            bullet=False,
        )


def _shadow(s: IncidentStatus, now: datetime) -> Iterator[Row]:
    if s.shadow is not None:
        yield Say(f"{s.shadow.would} ({both(s.shadow.at, now)}, {s.shadow.level}{f', {s.shadow.rule}' if s.shadow.rule else ''})")
        meaning = "not over yet" if s.shadow.score == "Open" else s.shadow.message
        yield Say(f"{s.shadow.score}{f': {meaning}' if meaning else ''}")


def _escalation(e: Escalation | None, now: datetime) -> Iterator[Row]:
    if e is None:
        return
    again = f"; again {both(e.next_at, now)}" if e.next_at else ""
    yield Say(f"{e.reason}: {e.message}", bullet=False)
    yield Say(f"{'once' if e.times == 1 else f'{e.times} times'}, last {both(e.at, now)}{again}", bullet=False)
    for d in e.deliveries:
        tone = {"Delivered": Tone.GOOD, "Failed": Tone.BAD}.get(d.state, Tone.WARN)
        tries = f" after {d.attempts} tries" if d.attempts > 1 else ""
        yield Say(f"{d.channel}: {d.state}{tries}, {both(d.at, now)}{f': {d.message}' if d.message else ''}", tone=tone)


def _runbook(m: RunbookMatch, now: datetime) -> Iterator[Row]:
    yield Say(f"{m.name}: {m.because}, since {both(m.at, now)}", tone=Tone.STRONG)
    if m.statement or m.category:
        yield Say(
            f"usually: {' '.join(part for part in (m.category or '', m.statement) if part)} (no evidence of this Incident)", 1, bullet=False
        )
    for r in m.symptoms:
        told = "".join((f" {r.value}" if r.value else "", f" ({r.message})" if r.message else ""))
        yield Say(f"{r.name}: {r.state}{told}, {both(r.at, now)}", 1, {"Absent": Tone.WARN, "NoData": Tone.WARN}.get(r.state, Tone.PLAIN))
    if m.ranked:
        yield Say(f"ranks {m.ranked}", 1, bullet=False)
    if m.action:
        yield Say(f"what helps: {'nothing that the operator could do' if m.action == NO_ACTION else m.action}", 1, bullet=False)
    if m.approvers:
        yield Say(f"ask: {m.approvers}", 1, bullet=False)
    if m.url:
        yield Say(m.url, 1, bullet=False)


def _judged(s: IncidentStatus, now: datetime) -> Iterator[Row]:
    for j in s.judgement:
        first = f"{j.first_category} {j.first_object} (grade {j.first_grade})"
        told = f"right: {first}" if j.verdict == "Right" else f"wrong: it was {j.category} {j.cause}, not {first}"
        yield Say(f"{j.by}, {both(j.at, now)}: {told}", tone=Tone.GOOD if j.verdict == "Right" else Tone.BAD)
        if j.because:
            yield Say(f"because: {j.because}", 1, bullet=False)


def _told(t: TimelineEntry, now: datetime) -> Say:
    what = f"{t.count} earlier observations: {t.what}" if t.kind == "RollUp" else t.what
    return Say(f"{both(t.at, now)}  {t.actor}: {what}", tone=Tone.STRONG if t.kind in ("Approval", "Execution") else Tone.PLAIN)


def _head_of_chain(s: IncidentStatus, now: datetime) -> Iterator[Row]:
    h = s.head
    if h is None:
        return
    signed = f"signed {both(h.signed_at, now)} with key {h.key_id}" if h.signature and h.signed_at else "not signed"
    yield Say(f"record: {h.seq} lines, end {h.sha256[:19]}…, {signed}; nightorders audit verify proves it", bullet=False)


def _execution(e: Execution, now: datetime) -> Iterator[Row]:
    level = f" at {e.level}" if e.level else ""
    yield Say(f"{e.id}: {e.action} by {e.by}{level}, {e.result or e.state}", tone=Tone.STRONG)
    if e.approved_by:
        yield Say(f"{'emergency approval' if e.emergency else 'approved'} by {', '.join(e.approved_by)}", 1, bullet=False)
    if e.message:
        yield Say(e.message, 1, bullet=False)
    ours = e.by == "operator"
    moments = (
        ("reserved" if ours else "noticed", e.reserved_at),
        ("applied", e.applied_at if ours else None),
        ("undo begun", e.undo_started_at),
        ("ended", e.ended_at),
    )
    for what, at in moments:
        if at is not None:
            yield Say(f"{what} {both(at, now)}", 1, bullet=False)
    yield Say(
        f"spec before {e.before[:19]}…, after {e.after[:19]}…{f'; stamped on the target as label {EXECUTION_LABEL}' if ours else ''}",
        1,
        bullet=False,
    )


def _verification(v: Verification | None, now: datetime) -> Iterator[Row]:
    if v is None:
        return
    tone = {"Recovered": Tone.GOOD, "Pending": Tone.WARN}.get(v.verdict, Tone.BAD)
    end = f"decides {both(v.until, now)}" if v.verdict == "Pending" else f"window ended {both(v.until, now)}"
    yield Say(f"{v.verdict}{f': {v.message}' if v.message else ''}; {v.samples} samples, {end}", tone=tone, bullet=False)
    before = {m.check: _measured(m) for m in v.baseline}
    for m in v.measurements:
        told = f": {m.message}" if m.message and m.message != m.value else ""
        was = f" (before: {before[m.check]})" if m.check in before else ""
        yield Say(f"{m.check}: {_measured(m)}{told}{was}")


def _measured(m: Measurement) -> str:
    return f"{m.verdict} {m.value}".rstrip()


def _conditions(s: IncidentStatus, now: datetime) -> Iterator[Row]:
    known = sorted(s.conditions, key=lambda c: ORDER.index(c.type) if c.type in ORDER else len(ORDER))
    for c in known:
        yield Say(f"{_condition(c).rstrip('.')}, since {both(c.last_transition_time, now)}")


def _condition(c: Condition) -> str:
    return f"{c.type}={c.status} {c.reason}{f': {c.message}' if c.message else ''}"


# ------------------------------------------------------------ what a human can do next


def next_steps(incident: Incident, flags: Sequence[str] = ()) -> Iterator[Row]:
    """One line that says who is next, and commands."""
    s, name, namespace = incident.status, incident.metadata.name, incident.metadata.namespace

    def say(words: str) -> Row:
        return Say(words, bullet=False)

    def run(*argv: str) -> Iterator[Row]:
        if shown := paste.command(argv, flags):
            yield Code(shown)

    here = ("-n", namespace)
    target = incident.spec.target
    yield from _taken(s, run("nightorders", "take", name, *here, "--give-back"))
    look_again = ("nightorders", "diagnose", f"{target.kind.lower()}/{target.name}", *here)
    match s.phase:
        case Phase.AWAITING_APPROVAL if s.plan is not None:
            frozen = s.plan.needs is not None and s.plan.needs.frozen_by != "None"
            emergency = ("--emergency", "--because", "REASON") if frozen else ()
            yield say(FROZEN if frozen else "A human decides. To approve exactly this plan:")
            yield from run("nightorders", "approve", name, *here, "--digest", s.plan.digest, *emergency)
            yield say("To turn it down (add the reason in quotes):")
            yield from run("nightorders", "reject", name, *here, "--because", "REASON")
        case Phase.ADVISED if s.plan is not None:
            yield say("A human acts; the operator notices it and verifies the effect. With your own credentials:")
            if shown := paste.pipeline(s.plan.command, flags):
                yield Code(shown)
        case Phase.EXECUTING | Phase.VERIFYING | Phase.UNDOING:
            yield say("Nobody needs to do anything. To watch, and to stop everything in this namespace:")
            yield from run("kubectl", "get", "incident", name, *here, "--watch")
            yield from run("nightorders", "stop", *here)
        case Phase.RECOVERED | Phase.DISMISSED:
            yield say("Nothing. It is closed.")
        case Phase.SUSPENDED:
            yield say("It is suspended. To go on:")
            yield from run("nightorders", "resume", name, *here)
        case Phase.TRIAGE | None:
            yield say("The operator has not looked yet. If that lasts longer than a minute, it may not be running:")
            yield from run("kubectl", "get", "deployments", "-n", "nightorders-system")
        case Phase.ESCALATED | Phase.UNDONE:
            yield say("A human decides; the operator takes no further action here. What is so now:")
            yield from run(*look_again)
        case _:
            yield from _look_further(s)
            yield say("To look again:")
            yield from run(*look_again)


FROZEN = "A freeze is in force. If it cannot wait (add the reason in quotes; it is kept with the execution):"


def _taken(s: IncidentStatus, back: Iterator[Row]) -> Iterator[Row]:
    if s.taken is not None and s.phase not in (Phase.RECOVERED, Phase.DISMISSED):
        yield Say(f"{s.taken.by} is on it. To hand it back:", bullet=False)
        yield from back


def _look_further(s: IncidentStatus) -> Iterator[Row]:
    for g in s.guesses[:2]:
        if settled := story.strict(g.settled_by):
            yield Say(f"To settle: {g.text}", bullet=False)
            yield Code(settled)


def is_waiting(s: IncidentStatus) -> bool:
    """Whether a plan waits for approval, by the condition that admission looks at."""
    approved = find_condition(s.conditions, "Approved")
    return s.plan is not None and approved is not None and approved.status == "False" and approved.reason == Reason.WAITING


def waits(incident: Incident) -> str:
    """Empty while a plan of it waits for approval; else what it does instead."""
    s = incident.status
    if is_waiting(s):
        return ""
    approved = find_condition(s.conditions, "Approved")
    if s.plan is not None:
        return f"its plan {s.plan.digest[:19]}… waits for no approval: {_condition(approved) if approved else 'not staged'}"
    planned = find_condition(s.conditions, "Planned")
    return f"it has no plan: {planned.message or planned.reason}" if planned else "it has no plan yet"


def short(incident: Incident, plan: Plan, now: datetime) -> Document:
    """What is asked of whoever approves."""

    def parts() -> Iterator[Section]:
        yield section("Summary", (Say(incident.status.summary, bullet=False),))
        yield section("Plan", plan_in_short(plan, now, waiting=True))
        yield section("Who decides", _levels(incident.status))
        if plan.needs is not None:
            yield section("Approval", needs_rows(plan.needs))

    return Document(f"Incident {incident.metadata.name} in namespace {incident.metadata.namespace}, read {absolute(now)}", tuple(parts()))
