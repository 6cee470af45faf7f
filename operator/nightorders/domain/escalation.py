"""When a human is called, and what they read. Pure; controller/caller.py sends."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..api.meta import find_condition, line, parse_duration
from ..api.v1alpha1.incident import Delivery, Escalation, Incident, IncidentStatus
from ..api.v1alpha1.policy import Escalate
from .reasons import Reason
from .record import Record, is_closed, running
from .redaction import redact
from .scores import taken_by

TITLE_LIMIT = 200
TEXT_LIMIT = 1500  # title and body together: fits every service, and a screen in the hand
FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=5), timedelta(minutes=10)


@dataclass(frozen=True)
class Call:
    """A message that is due: what the Incident's status will say, and the text that goes out."""

    escalation: Escalation
    title: str
    body: str


@dataclass(frozen=True)
class Wait:
    """A human is waited for. `since`: the failure for those that call at once, else the beginning of this state."""

    reason: str
    message: str
    since: datetime
    at_once: bool = False


def waiting(incident: Incident) -> Wait | None:
    """Whether a human is waited for and why, whoever may know of it already; None for closed, suspended and deleted Incidents."""
    status = incident.status
    if is_closed(status) or incident.spec.suspend or incident.metadata.deletion_timestamp is not None:
        return None
    closed = find_condition(status.conditions, "Closed")
    if closed is not None and closed.reason in (Reason.UNDONE, Reason.ESCALATED):
        ended = [e.ended_at for e in status.executions if e.ended_at is not None]
        return Wait(closed.reason, _failure(status, closed.message), max(ended, default=closed.last_transition_time), at_once=True)
    stalled = find_condition(status.conditions, "Stalled")
    if stalled is not None and stalled.status == "True":
        return Wait(stalled.reason, stalled.message, stalled.last_transition_time)
    if running(status) is not None or _holds(status, "Healthy"):
        return None
    diagnosed = find_condition(status.conditions, "Diagnosed")
    if diagnosed is None or diagnosed.reason not in (Reason.ORIGIN_SHOWN, Reason.ORIGIN_UNKNOWN):
        return None
    asked = find_condition(status.conditions, "Approved" if _holds(status, "Planned") else "Planned") or diagnosed
    if asked.type == "Approved" and asked.status != "False":
        return None  # approved, or nobody has to: the operator is about to act
    return Wait(asked.reason, asked.message, asked.last_transition_time)


def _failure(status: IncidentStatus, end: str) -> str:
    """How an execution ended, after what was measured, unless the measurement says the end, too."""
    verified = find_condition(status.conditions, "Verified")
    if verified is None or verified.status != "False":
        return end
    return verified.message if end.partition(";")[0] in verified.message else line(f"{verified.message}; {end}")


def due(incident: Incident, spec: Escalate, now: datetime, breaker: str = "") -> Call | datetime | None:
    """The call that is due now; else when one will be (if nothing changes); else None: nobody needs to be called.

    At once after an execution that was undone or escalated, and when a taken Incident's execution fails; else `after` since the
    first summary while a human is waited for (approval, advice, unknown origin). Again every `repeat`. Not while somebody has taken
    it, not for closed or suspended Incidents. The text holds the redacted summary and where to look, never evidence.

    `breaker`: how the breaker stands, if the failure opened it; empty: as status.autonomy says.
    """
    wait = waiting(incident)
    if wait is None:
        return None
    status, last = incident.status, incident.status.escalation
    news = wait.at_once and (last is None or last.at < wait.since)
    # A name on the annotation alone has no time: it may be older than the failure, and then nobody would know of that.
    if is_taken(incident) and not (news and (status.taken is None or status.taken.at <= wait.since)):
        return None
    if wait.at_once and not news and _holds(status, "Healthy"):
        return None  # it was told once, and serves again meanwhile
    at = now if news else next_call(incident, spec, wait)
    if now < at:
        return at
    pending = tuple(Delivery(channel=channel, state="Pending", at=now) for channel in spec.to)
    called = Escalation(
        reason=wait.reason,
        message=line(wait.message),
        times=last.times + 1 if last else 1,
        at=now,
        next_at=now + parse_duration(spec.repeat),
        deliveries=pending,
    )
    return Call(
        called, *words(incident.model_copy(update={"status": status.model_copy(update={"escalation": called})}), wait, now, breaker)
    )


def next_call(incident: Incident, spec: Escalate, wait: Wait) -> datetime:
    """When the next call is due, unless something fails before."""
    last = incident.status.escalation
    if last is not None:
        return last.at + parse_duration(spec.repeat)
    return (incident.status.first_summary_at or wait.since) + parse_duration(spec.after)


def is_taken(incident: Incident) -> bool:
    """Whether somebody said that they are on it, noted by the operator or not yet."""
    return incident.status.taken is not None or bool(taken_by(incident.metadata.annotations))


def retries(incident: Incident, spec: Escalate) -> dict[str, datetime]:
    """The messages of the latest call that are still to be delivered: channel → when it is (or was) time to try.

    Empty once nobody waits any more, or somebody took the Incident after the call; a channel that the policy names no more is left.
    """
    called, taken = incident.status.escalation, incident.status.taken
    if called is None or waiting(incident) is None:
        return {}
    if taken.at > called.at if taken is not None else is_taken(incident):
        return {}
    return {d.channel: d.at + pause(d.attempts) for d in called.deliveries if d.state != "Delivered" and d.channel in spec.to}


def pause(attempts: int) -> timedelta:
    """How long to wait after so many failed attempts."""
    return timedelta(0) if attempts == 0 else min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(attempts - 1, 16))


def begun(incident: Incident, call: Call, now: datetime) -> IncidentStatus:
    """The status with the intention to send: saved before anything goes out, so that a crash never loses a call."""
    e = call.escalation
    what = f"call {e.times} to {', '.join(d.channel for d in e.deliveries)}: {e.reason}: {e.message}"
    return _kept(incident, Record(incident, now).set(escalation=e).story(what, kind="Decision").done())


def answered(incident: Incident, at: datetime, answers: Mapping[str, str], now: datetime) -> IncidentStatus | None:
    """The status with what became of the messages of the call made at `at`: channel → why it failed, empty if it was delivered.

    None: the status knows of a later call already.
    """
    called = incident.status.escalation
    if called is None or called.at != at:
        return None
    record = Record(incident, now)
    deliveries = []
    for d in called.deliveries:
        if (why := answers.get(d.channel)) is not None and d.state != "Delivered":
            state = "Failed" if why else "Delivered"
            if why and d.attempts == 0:
                record.story(f"call {called.times} to {d.channel} failed: {why}; tried again")
            d = d.model_copy(update={"state": state, "attempts": d.attempts + 1, "at": now, "message": line(why)})
        deliveries.append(d)
    record.set(escalation=called.model_copy(update={"deliveries": tuple(deliveries)}))
    return _kept(incident, record.done())


def _kept(incident: Incident, status: IncidentStatus) -> IncidentStatus:
    """A call observes nothing new, so that which generation was observed stays the reconciler's word."""
    return status.model_copy(update={"observed_generation": incident.status.observed_generation})


# ---------------------------------------------------------------- the text


def words(incident: Incident, wait: Wait, now: datetime, breaker: str = "") -> tuple[str, str]:
    """(title, body), plain text, together at most 1,500 characters; the commands at the end are never cut."""
    status, m = incident.status, incident.metadata
    target = incident.spec.target.title
    called = status.escalation
    title = line(
        f"[{incident.spec.severity}] {_plain(f'{m.namespace} {target}')}: {NEEDS.get(wait.reason, 'a human is needed')}", TITLE_LIMIT
    )
    since = wait.since if wait.at_once else status.first_summary_at or wait.since
    again = f", and again at {called.next_at:%H:%M:%S}Z until somebody takes it" if called and called.next_at else ""
    facts = [
        f"{incident.spec.severity}, {_plain(target)} in namespace {m.namespace}, {status.phase or 'Triage'}",
        f"What: {_plain(status.summary, 300)}" if status.summary else "",
        f"Cause: {_plain(status.cause, 200)} (grade {status.grade})" if status.cause else "",
        f"Why you: {wait.reason}: {_plain(wait.message, 350)}",
        f"Since: {_span(now - since)} ({since:%Y-%m-%d %H:%M:%S}Z); call {called.times if called else 1}{again}",
        f"Breaker: {_plain(breaker or _breaker(status), 200)}" if breaker or _breaker(status) else "",
        f"Who may act: {_plain(_who(incident, wait), 200)}",
    ]
    here = f"{m.name} -n {m.namespace}"
    ways = [f"Look: nightorders show {here}"]
    if wait.reason == Reason.WAITING:
        ways.append(f"Approve: nightorders approve {here}")
    ways.append(f"Take it: nightorders take {here}")
    tail = "\n".join(ways)
    head = "\n".join(filter(None, facts))
    room = TEXT_LIMIT - len(title) - len(tail) - 1
    return title, f"{head if len(head) <= room else head[: room - 1] + '…'}\n{tail}"


NEEDS: dict[str, str] = {
    Reason.WAITING: "needs an approval",
    Reason.ADVISED: "needs somebody to run the command",
    Reason.UNDONE: "the action did not help and was undone",
    Reason.ESCALATED: "the action did not help",
    Reason.ORIGIN_UNKNOWN: "the origin is not known",
    Reason.TRY_AGAIN: "the operator cannot go on",
}


def _who(incident: Incident, wait: Wait) -> str:
    target = f"{incident.spec.target.title} in {incident.metadata.namespace}"
    match wait.reason:
        case Reason.WAITING:
            first = "holders of the verb approve on this Incident"
        case Reason.ADVISED:
            first = f"whoever may change {target}; the command is in the Incident"
        case _:
            first = f"whoever may change {target}"
    owners = ", ".join(o.who for o in incident.status.owners[:3])
    ask = ", ".join(dict.fromkeys(m.approvers for m in incident.status.runbooks if m.approvers))
    said = f"; runbooks say to ask: {ask}" if ask else ""
    return first + said + (f"; likely responsible: {owners}" if owners else "")


def _breaker(status: IncidentStatus) -> str:
    spoken = status.autonomy.decided_by if status.autonomy else ()
    return next((s.because for s in spoken if s.who == "breaker" and "open until" in s.because), "")


_MENTION = re.compile(r"(?<![\w.@])@(?=\w)")


def _plain(text: str, limit: int = 300) -> str:
    """Untrusted words as one plain line: redacted once more, and unable to ping anybody, to format, or to become a link.

    A log line that says `@channel approve at https://…` would otherwise speak with the operator's voice (threats.md 24).
    """
    safe = _MENTION.sub("(at)", redact(text).replace("://", "[://]").replace("](", "] (").replace("<", "‹").replace(">", "›"))
    return line(safe, limit)


def _span(length: timedelta) -> str:
    seconds = max(0, int(length.total_seconds()))
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} m" if seconds < 7200 else f"{seconds // 3600} h"


def _holds(status: IncidentStatus, kind: str) -> bool:
    found = find_condition(status.conditions, kind)
    return found is not None and found.status == "True"
