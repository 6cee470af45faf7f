"""`nightorders diagnose`: the engine from a laptop. Reads with the user's own rights; nothing is installed, nothing is written."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from ..adapters.dump import DumpReader
from ..api.meta import LEDGER_NAME, ObjectMeta, line
from ..api.v1alpha1.common import ObjectRef
from ..api.v1alpha1.incident import Alternative, Gap, Incident, IncidentSpec, IncidentStatus
from ..api.v1alpha1.ledger import Ledger
from ..controller.gatherer import Gatherer, Ports, propose
from ..diagnosis import engine
from ..domain.diagnosis import Diagnosis, Finding
from ..domain.ownership import governed_by
from ..domain.plan import NoProposal, Proposal
from ..domain.reasons import Reason
from ..domain.record import Record
from ..domain.redaction import redact
from ..domain.situation import Operator
from ..domain.snapshot import Absent, KubeObject, NotLooked, Snapshot, parse_time
from ..ports import Clock, ClusterReader, ObjectKey, PermanentError, PortError
from . import paste, story
from .document import Code, Document, Row, Say, Section, Tone, section
from .errors import CommandError, Exit, cannot_tell, unreachable, usage, words
from .session import Session
from .times import absolute, both

EXIT = {
    Finding.NO_FAULT: Exit.DONE,
    Finding.FAULT: Exit.FAULT,
    Finding.TARGET_MISSING: Exit.USAGE,
    Finding.PROGRESSING: Exit.CANNOT_TELL,
    Finding.UNKNOWN: Exit.CANNOT_TELL,
    Finding.TARGET_UNKNOWN: Exit.CANNOT_TELL,
}
ANSWERS = {
    Finding.NO_FAULT: ("No fault.", Tone.GOOD),
    Finding.FAULT: ("Fault.", Tone.BAD),
    Finding.TARGET_MISSING: ("Not there.", Tone.WARN),
    Finding.PROGRESSING: ("On its way; look again when it settles.", Tone.WARN),
    Finding.UNKNOWN: ("Cannot tell: something is wrong or unclear, and its origin cannot be shown.", Tone.WARN),
    Finding.TARGET_UNKNOWN: ("Cannot tell: it could not be looked at.", Tone.WARN),
}


@dataclass(frozen=True)
class Examined:
    """One diagnosis with what could be done about it. `proposal` is None where there is nothing to repair."""

    target: ObjectRef
    namespace: str
    at: datetime
    finding: Finding
    status: IncidentStatus
    since: datetime | None = None
    proposal: Proposal | NoProposal | None = None
    command: tuple[tuple[str, ...], ...] = ()
    owner: str = ""

    @property
    def code(self) -> Exit:
        return EXIT[self.finding]


async def examine(session: Session, target: ObjectRef | None) -> Examined:
    """Looks once; `target` None: at the whole namespace. Raises CommandError where the target is not there or cannot be read."""
    if target is not None:
        await exists(session, target)
    target = target or whole(session.namespace)
    (ledger, gap, installed), snapshot = await asyncio.gather(
        _ledger(session), _snapshot(session.reader, session.clock, session.namespace, target)
    )
    made = _examined(snapshot, target, ledger)
    gaps = tuple(_usable(g, installed) for g in made.diagnosis.gaps)
    return _told(made, (*gaps, gap) if gap else gaps)


async def examine_files(reader: DumpReader, namespace: str, target: ObjectRef | None) -> Examined:
    """The same from files, at their time. Raises CommandError where the files do not tell even that."""
    asked = target or whole(namespace)
    try:
        snapshot = await _snapshot(reader, _At(reader), namespace, asked)
    except PermanentError as error:
        raise usage(str(error)) from None
    if not any(listing.objects for listing in snapshot.listings.values()):
        there = ", ".join(reader.namespaces[:8]) or "none"
        raise usage(f"the files hold nothing of namespace {namespace}; namespaces in them: {there}")
    made = _examined(snapshot, asked, None)
    if made.diagnosis.finding is Finding.TARGET_MISSING:
        raise usage(made.diagnosis.message)
    problems = tuple(Gap(what=line(f"file {p.file}", 256), because=p.because) for p in reader.problems)
    return _told(made, (*made.diagnosis.gaps[: 32 - min(16, len(problems))], *problems[:16]))


def open_files(root: Path, at: str) -> DumpReader:
    """Reads the files. Raises CommandError for a folder or a time that is none."""
    moment = parse_time(at)
    if at and moment is None:
        raise usage(f"--at {at!r} is no time with a zone; write it like 2026-03-01T12:00:00Z")
    try:
        reader = DumpReader(root, redact=redact)
    except PermanentError as error:
        raise usage(f"--from: {error}") from None
    reader.at = moment
    return reader


def only_namespace(reader: DumpReader) -> str:
    """The one namespace of the files. Raises CommandError where there are several."""
    names = [n for n in reader.namespaces if n not in ("kube-system", "kube-public", "kube-node-lease")]
    if len(names) != 1:
        raise usage(f"which namespace? Name it with -n; in the files there are: {', '.join(names[:12]) or 'none'}")
    return names[0]


def whole(namespace: str) -> ObjectRef:
    """The whole namespace as a target. Raises CommandError for what cannot be the name of one."""
    try:
        return ObjectRef(api_version="v1", kind="Namespace", name=namespace)
    except ValidationError:
        raise usage(f"{namespace!r} cannot be the name of a namespace: use lower-case letters, digits and '-'") from None


@dataclass(frozen=True)
class _At:
    """The clock of files: it stands still at their moment. Raises PermanentError where they tell none."""

    reader: DumpReader

    def now(self) -> datetime:
        if (moment := self.reader.moment) is None:
            raise PermanentError("no object in the files carries a time; say when they were taken: --at 2026-03-01T12:00:00Z")
        return moment


async def _snapshot(reader: ClusterReader, clock: Clock, namespace: str, target: ObjectRef) -> Snapshot:
    # Gatherer.snapshot reads through the clock and the reader only.
    nothing = cast(Any, None)
    ports = Ports(clock, reader, nothing, nothing, nothing, nothing, nothing)
    return await Gatherer(ports, Operator("", "")).snapshot(namespace, target)


@dataclass(frozen=True)
class _Made:
    """A diagnosis with what it was made of. `origin`: the object that a repair would change."""

    snapshot: Snapshot
    target: ObjectRef
    diagnosis: Diagnosis
    origin: ObjectRef
    proposal: Proposal | NoProposal | None
    thing: KubeObject | None


def _examined(snapshot: Snapshot, target: ObjectRef, ledger: Ledger | None) -> _Made:
    """The origin gets the action, never a victim: a proposal is made for the object that the first hypothesis names."""
    healthy = ledger.spec.healthy_revisions if ledger else ()
    found = engine.diagnose(snapshot, target, healthy, snapshot.at)
    origin, own = target, found
    kind, _, name = found.top.object.partition("/") if found.top else ("", "", "")
    if kind == "Deployment" and (kind, name) != (target.kind, target.name) and isinstance(snapshot.find(kind, name), KubeObject):
        origin = ObjectRef.model_construct(api_version="apps/v1", kind=kind, name=name)
        own = engine.diagnose(snapshot, origin, healthy, snapshot.at)
    thing = snapshot.find(origin.kind, origin.name)
    proposal: Proposal | NoProposal | None = None
    if isinstance(thing, KubeObject) and own.finding is Finding.FAULT:
        proposal = propose(_stand_in(origin, snapshot.namespace), snapshot, thing, own, ledger, snapshot.at)
    return _Made(snapshot, target, found, origin, proposal, thing if isinstance(thing, KubeObject) else None)


def _told(made: _Made, gaps: tuple[Gap, ...]) -> Examined:
    found, snapshot = replace(made.diagnosis, gaps=gaps[:32]), made.snapshot
    return Examined(
        target=made.target,
        namespace=snapshot.namespace,
        at=snapshot.at,
        finding=found.finding,
        status=_status(_stand_in(made.target, snapshot.namespace), found, made.proposal, snapshot.at),
        since=found.symptom_since,
        proposal=made.proposal,
        command=_by_hand(made.origin, snapshot.namespace, made.proposal) if isinstance(made.proposal, Proposal) else (),
        owner=owner.who if made.thing is not None and (owner := governed_by(made.thing)) else "",
    )


async def exists(session: Session, target: ObjectRef) -> None:
    """One exact read first: a typing error, a missing right or a dead API server is one line, not a diagnosis full of gaps."""
    namespace, doing = session.namespace, f"read {target.title} in namespace {session.namespace}"
    match await session.reader.get(ObjectKey(target.api_version, target.kind, namespace, target.name)):
        case NotLooked(because=because, fix=fix) if because.startswith("forbidden"):
            raise cannot_tell(f"cannot {doing}: {because}" + (f"; a cluster admin grants it: {granting(fix)}" if granting(fix) else ""))
        case NotLooked(because=because):
            raise cannot_tell(unreachable(doing, because.removeprefix("failed: ")))
        case Absent():
            raise await _missing(session, target)


async def _missing(session: Session, target: ObjectRef) -> CommandError:
    space = await session.reader.get(ObjectKey("v1", "Namespace", "", session.namespace))
    if isinstance(space, Absent):
        return usage(f"there is no namespace {session.namespace} in this cluster; to see what there is: kubectl get namespaces")
    listing = await session.reader.list(target.api_version, target.kind, session.namespace)
    names = sorted(o.name for o in listing.objects)
    there = f"; there are: {', '.join(names[:8])}{' and more' if len(names) > 8 else ''}" if names else ""
    return usage(f"there is no {target.title} in namespace {session.namespace}{there}")


async def _ledger(session: Session) -> tuple[Ledger | None, Gap | None, bool]:
    """The operator's record of healthy revisions, else the gap that its absence is; and whether nightorders is installed at all."""
    what, otherwise = "record of healthy revisions (Ledger)", "only pods that serve now prove an earlier revision healthy"
    if not await session.discovery.installed():
        because = f"nightorders is not installed in this cluster, so nothing is remembered; {otherwise}"
        return None, Gap(what=what, because=because), False
    try:
        ledger = await session.ledgers.get(session.namespace, LEDGER_NAME)
    except PortError as error:
        return None, Gap(what=what, because=line(f"{words(error)}; {otherwise}")), True
    if ledger is None:
        return None, Gap(what=what, because=f"the operator keeps none in namespace {session.namespace}; {otherwise}"), True
    return ledger, None, True


def _usable(gap: Gap, installed: bool) -> Gap:
    """The fix that works on this cluster: our roles are there only where nightorders is."""
    return gap if installed or not gap.fix else gap.model_copy(update={"fix": granting(gap.fix)})


def granting(fix: str) -> str:
    """A command that binds a role of ours, turned to the role `view` that every cluster has. It covers no cluster-scoped kinds."""
    argv = fix.partition("  # ")[0]
    if "create clusterrolebinding" in argv:
        return ""
    for role in ("nightorders-reader-logs", "nightorders-reader"):
        argv = argv.replace(f"--clusterrole={role}", "--clusterrole=view")
    return argv


def _stand_in(target: ObjectRef, namespace: str) -> Incident:
    """There is no Incident; actions want one for its name and namespace. (Names in files may be none that an API server would take.)"""
    return Incident.model_construct(
        metadata=ObjectMeta(name="none", namespace=namespace), spec=IncidentSpec.model_construct(target=target), status=IncidentStatus()
    )


def _by_hand(target: ObjectRef, namespace: str, proposal: Proposal) -> tuple[tuple[str, ...], ...]:
    """What a human runs to do the same, with the template pinned: our patch with its tests, into kubectl."""
    p = proposal.parameters
    make = ("nightorders", "patch", f"deployment/{target.name}", "-n", namespace, "--to", p.revision_name, "--sha256", p.template_sha256)
    return make, ("kubectl", "patch", "deployment", target.name, "-n", namespace, "--type=json", "--patch-file=/dev/stdin")


def _status(incident: Incident, d: Diagnosis, proposal: Proposal | NoProposal | None, now: datetime) -> IncidentStatus:
    """The diagnosis in the shape of an Incident's status, as the operator would write it at L2 at most."""
    record = Record(incident, now)
    known = d.finding in (Finding.FAULT, Finding.NO_FAULT)
    record.condition("Triaged", "True", Reason.LOOKED, f"{incident.spec.target.title} exists and was looked at")
    match proposal:
        case Proposal():
            record.condition("Planned", "True", Reason.ADVISED, f"{proposal.action}: {proposal.impact}")
        case NoProposal():
            record.condition("Planned", "False", proposal.reason, proposal.message)
        case None:
            record.condition("Planned", "False", Reason.NO_PLAN_NEEDED if known else Reason.CATEGORY_UNKNOWN, d.message)
    return record.diagnosis(d).done()


# ------------------------------------------------------------ what it says


def as_json(e: Examined) -> dict[str, Any]:
    """An Incident's status. Its plan has no digest: nothing is staged, so nobody can approve it."""
    wire = e.status.wire()
    if isinstance(p := e.proposal, Proposal):
        wire["action"] = p.action.value
        wire["plan"] = {
            "action": p.action.value,
            "target": {
                "apiVersion": p.target.api_version,
                "kind": p.target.kind,
                "name": p.target.name,
                "uid": p.target.uid,
                "beforeSha256": p.before_sha256,
                "afterSha256": p.after_sha256,
            },
            "parameters": p.parameters.wire(),
            "undo": "Exact",
            "inverse": p.inverse.wire(),
            "impact": p.impact,
            "command": [list(c) for c in e.command],
            "patch": p.json_patch,
            "podsAtRisk": p.pods_at_risk,
            "alternatives": [a.wire() for a in p.alternatives],
        }
    return wire


def document(e: Examined, flags: tuple[str, ...] = ()) -> Document:
    """The story for people."""
    words, tone = ANSWERS[e.finding]
    if e.since and e.finding is Finding.FAULT:
        words = f"Fault; the symptom began {both(e.since, e.at)}."
    return Document(
        f"{e.target.title} in namespace {e.namespace}, looked at {absolute(e.at)}",
        (
            section("Summary", (Say(words, tone=tone, bullet=False), Say(e.status.summary, bullet=False))),
            *story.findings(e.status, e.at),
            _action(e, flags),
            story.evidence(e.status, e.at),
        ),
    )


def _action(e: Examined, flags: tuple[str, ...]) -> Section:
    title = "What could be done"
    match e.proposal:
        case None:
            return section(title, (Say(_nothing_to_do(e), bullet=False),))
        case NoProposal() as none:
            return section(
                title, (Say(f"No action of the catalogue fits: {none.message}", bullet=False), *_alternatives(none.alternatives))
            )
        case Proposal() as p:
            return section(title, (*_proposed(e, p, flags), *_alternatives(p.alternatives)))


def _nothing_to_do(e: Examined) -> str:
    if e.finding is Finding.NO_FAULT:
        return "Nothing is to be repaired."
    return "Nothing is proposed while no origin is shown."


def _proposed(e: Examined, p: Proposal, flags: tuple[str, ...]) -> tuple[Row, ...]:
    back = f"{p.action} would put back revision {p.parameters.to_revision} (ReplicaSet/{p.parameters.revision_name})"
    rows: list[Row] = [Say(f"{back}; to undo it: the template of {p.inverse.ref}"), Say(f"impact: {p.impact}")]
    if not p.preflight.allowed:
        rows.append(Say(f"not now: {p.preflight.message}", tone=Tone.WARN))
    if e.owner:
        rows.append(Say(f"governed by {e.owner}: a change made here may be taken back, so make it there", tone=Tone.WARN))
    rows += [Say(f"the operator would go to {c.level} at most: {c.because}") for c in p.caps]
    if shown := paste.pipeline(e.command, flags):
        rows += [Say("nothing was changed; to do it with your own credentials:"), Code(shown)]
    else:
        rows.append(Say("no command is shown: a name in it holds characters that a shell would read", tone=Tone.WARN))
    return tuple(rows)


def _alternatives(alternatives: tuple[Alternative, ...]) -> tuple[Row, ...]:
    return tuple(Say(f"turned down: {a.action}: {a.why}") for a in alternatives)
