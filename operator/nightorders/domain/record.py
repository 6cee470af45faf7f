"""The one place that writes an Incident's status: conditions, story and phase are set together or not at all."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from ..api.meta import Condition, Model, line, set_condition, text
from ..api.v1alpha1.incident import Execution, Incident, IncidentStatus, Phase, Plan, Taken
from . import journal
from .diagnosis import Diagnosis, Finding
from .digest import sha256
from .reasons import Reason
from .runbooks import Consulted, news, shown

SIZE_LIMIT = 56 * 1024  # bytes; an Incident stays below 64 KiB with its spec and annotations of ordinary size

FINDING_REASON = {
    Finding.FAULT: Reason.ORIGIN_SHOWN,
    Finding.NO_FAULT: Reason.NO_FAULT,
    Finding.PROGRESSING: Reason.PROGRESSING,
    Finding.UNKNOWN: Reason.ORIGIN_UNKNOWN,
    Finding.TARGET_MISSING: Reason.TARGET_NOT_FOUND,
    Finding.TARGET_UNKNOWN: Reason.TARGET_NOT_READABLE,
}


class Record:
    """An edit of a status; `done()` gives the new one. Nothing here does I/O."""

    def __init__(self, incident: Incident, now: datetime) -> None:
        self._incident = incident
        self.now = now
        self._status = incident.status
        self._conditions = incident.status.conditions

    def condition(self, kind: str, status: Literal["True", "False", "Unknown"], reason: Reason, message: str) -> Self:
        """Sets one condition. Its transition time moves only when the status flips."""
        self._conditions = set_condition(
            self._conditions,
            Condition(
                type=kind,
                status=status,
                reason=reason.value,
                message=line(message),
                observed_generation=self._incident.metadata.generation,
                last_transition_time=self.now,
            ),
        )
        return self

    @property
    def plan(self) -> Plan | None:
        """The plan as edited so far."""
        return self._status.plan

    def drop(self, kind: str) -> Self:
        """Removes one condition."""
        self._conditions = tuple(c for c in self._conditions if c.type != kind)
        return self

    def set(self, **fields: Any) -> Self:
        """Sets status fields by their Python names; values are validated."""
        self._status = self._status.model_copy(update=fields)
        return self

    def story(self, what: str, actor: str = "operator", kind: journal.Kind = "Observation") -> Self:
        """Adds a line to the story, chained to the one before."""
        return self.set(timeline=journal.append(self._status.timeline, self._incident.metadata.uid, self.now, kind, actor, what))

    def taken(self, by: str) -> Self:
        """Notes who said that they are on it; empty: nobody (any more)."""
        before = self._status.taken
        if by and (before is None or before.by != by):
            return self.set(taken=Taken(by=line(by, 256), at=self.now)).story("takes this Incident: advice only from here", by, "Decision")
        if not by and before is not None:
            return self.set(taken=None).story("gives it back", before.by, "Decision")
        return self

    def diagnosis(self, d: Diagnosis) -> Self:
        """Puts a diagnosis into the status, unless the status says the same already (new times alone are no news).

        What was wrong stays on record when it is over.
        """
        known = d.finding in (Finding.FAULT, Finding.NO_FAULT)
        self.condition("Diagnosed", "True" if known else "False", FINDING_REASON[d.finding], d.message)
        status = self._status
        if same_meaning(status, d) or (d.finding is Finding.NO_FAULT and status.cause):
            return self
        self.story(looked_at(d))
        if status.summary != line(d.summary):
            self.story(d.summary)
        top = d.top if d.finding is Finding.FAULT else None
        return self.set(
            summary=line(d.summary),
            first_summary_at=status.first_summary_at or self.now,
            diagnosed_at=self.now,
            cause=line(top.title, 256) if top else "",
            grade=top.grade if top else "",
            facts=d.facts,
            guesses=d.guesses,
            evidence=d.evidence,
            hypotheses=d.hypotheses,
            unexplained=d.unexplained,
            gaps=d.gaps,
            blast_radius=d.blast_radius,
            owners=d.owners,
            changes=d.changes,
            cost=d.cost,
        )

    def runbooks(self, found: Consulted) -> Self:
        """Puts what matches into the status; what is new about it into the story."""
        before = self._status.runbooks
        after = shown(found, before, self.now)
        for what in news(before, after):
            self.story(what)
        return self if after == before else self.set(runbooks=after)

    def execution(self, changed: Execution) -> Self:
        """Adds the execution, or replaces the one with its id."""
        others = [e for e in self._status.executions if e.id != changed.id]
        return self.set(executions=(*others, changed)[-4:])

    def done(self) -> IncidentStatus:
        """The new status; its phase follows from its conditions."""
        status = self._status.model_copy(update={"conditions": self._conditions, "observed_generation": self._incident.metadata.generation})
        plan = status.plan
        shown = {"phase": phase_of(status, suspended=self._incident.spec.suspend), "action": plan.action.value if plan else ""}
        return fit(status.model_copy(update=shown))


def withdraw(record: Record, reason: Reason, message: str) -> Record:
    """No plan, or no longer: says why. Approvals of it end with it."""
    if record.plan is not None:
        record.story(f"plan withdrawn: {message}")
    return record.set(plan=None, approvals=()).condition("Planned", "False", reason, message).drop("Approved")


def looked_at(d: Diagnosis) -> str:
    """What a diagnosis stands on, in one line; the digest is over id, source, query and digest of each piece of evidence."""
    requests = d.cost.reads + d.cost.queries if d.cost else 0
    digest = sha256([[e.id, e.source, e.query, e.sha256] for e in d.evidence])
    return f"looked: {requests} requests, {len(d.gaps)} gaps, {len(d.evidence)} pieces of evidence {digest}"


def same_meaning(status: IncidentStatus, d: Diagnosis) -> bool:
    """Whether the saved diagnosis says the same as `d`, apart from times and counters."""

    def gist(of: IncidentStatus | Diagnosis) -> object:
        return (
            line(of.summary),
            tuple((h.category, h.object, h.grade, bool(h.refuted)) for h in of.hypotheses),
            len(of.facts),
            len(of.guesses),
            tuple(g.what for g in of.gaps),
        )

    return status.diagnosed_at is not None and gist(status) == gist(d)


def running(status: IncidentStatus) -> Execution | None:
    """The execution that has not ended, if any."""
    return next((e for e in status.executions if e.state != "Ended"), None)


def _shorter_excerpts(status: IncidentStatus) -> IncidentStatus:
    return status.model_copy(update={"evidence": tuple(e.model_copy(update={"excerpt": line(e.excerpt, 200)}) for e in status.evidence)})


def _shorter_diff(status: IncidentStatus) -> IncidentStatus:
    plan = status.plan
    if plan is None or plan.dry_run is None:
        return status
    dry_run = plan.dry_run.model_copy(update={"diff": text(plan.dry_run.diff, 2048)})
    return status.model_copy(update={"plan": plan.model_copy(update={"dry_run": dry_run})})


def _shorter_story(status: IncidentStatus) -> IncidentStatus:
    return status.model_copy(update={"timeline": journal.terse(status.timeline)})


def _fewer_details(status: IncidentStatus) -> IncidentStatus:
    names = ("facts", "guesses", "gaps", "changes", "unexplained", "evidence")
    return status.model_copy(update={name: getattr(status, name)[:16] for name in names})


def _shorter_texts(status: IncidentStatus) -> IncidentStatus:
    names = ("facts", "guesses", "gaps", "changes", "unexplained", "evidence", "gates", "hypotheses")
    return status.model_copy(update={name: tuple(_short(entry) for entry in getattr(status, name)) for name in names})


def _short(entry: Model) -> Model:
    return entry.model_copy(update={k: line(v, 200) for k, v in entry if isinstance(v, str) and len(v) > 200})


def _hardly_any_details(status: IncidentStatus) -> IncidentStatus:
    names = ("facts", "guesses", "gaps", "changes", "unexplained", "evidence")
    return status.model_copy(update={name: getattr(status, name)[:4] for name in names})


def _bare_runbooks(status: IncidentStatus) -> IncidentStatus:
    """Which ones match, and whom they name; the rest stands in the runbooks themselves."""
    bare = {"statement": "", "url": "", "symptoms": (), "ranked": ""}
    return status.model_copy(update={"runbooks": tuple(m.model_copy(update=bare) for m in status.runbooks)})


# The least painful first.
REDUCTIONS = (_shorter_excerpts, _shorter_diff, _shorter_story, _bare_runbooks, _shorter_texts, _fewer_details, _hardly_any_details)


def fit(status: IncidentStatus) -> IncidentStatus:
    """The status, shortened where it is too large to be stored for sure: what is decided and done stays, what explains it is cut first."""
    for reduce in REDUCTIONS:
        if len(status.model_dump_json(by_alias=True, exclude_none=True).encode()) <= SIZE_LIMIT:
            return status
        status = reduce(status)
    return status


def is_closed(status: IncidentStatus) -> bool:
    """Whether the Incident is over: nothing is left to look at."""
    return any(c.type == "Closed" and c.status == "True" for c in status.conditions)


def phase_of(status: IncidentStatus, *, suspended: bool) -> Phase:
    """One word for the eye, derived from conditions and the running execution."""
    if (execution := running(status)) is not None:
        return {"Reserved": Phase.EXECUTING, "Applied": Phase.VERIFYING, "Undoing": Phase.UNDOING}[execution.state]
    states: dict[str, str] = {c.type: c.status for c in status.conditions}
    reasons: dict[str, str] = {c.type: c.reason for c in status.conditions}
    if states.get("Closed") == "True":
        return Phase.DISMISSED if reasons["Closed"] == Reason.NO_FAULT else Phase.RECOVERED
    if reasons.get("Closed") == Reason.UNDONE:
        return Phase.UNDONE
    if reasons.get("Closed") == Reason.ESCALATED:
        return Phase.ESCALATED
    if states.get("Stalled") == "True":
        return Phase.STALLED
    if suspended:
        return Phase.SUSPENDED
    if states.get("Planned") == "True":
        return Phase.AWAITING_APPROVAL if reasons.get("Approved") == Reason.WAITING else Phase.ADVISED
    if states.get("Escalated") == "True":
        return Phase.ESCALATED
    if "Diagnosed" not in states:
        return Phase.TRIAGE
    return Phase.WAITING if reasons["Diagnosed"] == Reason.PROGRESSING else Phase.DIAGNOSED
