"""The supervisor: lets each specialist look, has the origins ranked, and says which kind of answer it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from ..api.v1alpha1.common import Category, ObjectRef
from ..api.v1alpha1.incident import BlastRadius, Gap
from ..api.v1alpha1.ledger import HealthyRevision
from ..domain.diagnosis import Diagnosis
from ..domain.diagnosis import Finding as Kind
from ..domain.snapshot import Absent, KubeObject, Listing, NotLooked, Snapshot
from .answer import Answer, compose
from .case import CORE_KINDS, Case
from .changes import history
from .evidence import Believed, Channel, Known, Observation, command, safe, seen
from .findings import TERMINAL, CrashFinding, Finding, ImageFinding, MissingFinding, Trouble
from .graph import Graph, build
from .hypotheses import Candidate, Cap, Mark, rank
from .images import PullError
from .origins import dead_dependency, origins
from .read import clock, count, listed, span
from .specialists import changes as changes_specialist
from .specialists import logs as logs_specialist
from .specialists import topology as topology_specialist
from .specialists.logs import LogReport
from .specialists.workload import WorkloadReport, examine
from .views import Scene, Workload

STALE_AFTER = timedelta(minutes=2)
_SUPPORTED = "Deployment (apps/v1)"
T = TypeVar("T")


def diagnose(snapshot: Snapshot, target: ObjectRef, healthy: tuple[HealthyRevision, ...], now: datetime) -> Diagnosis:
    """The whole answer about one target."""
    scene = Scene(snapshot, now)
    title = safe(target.title, 250)
    if target.kind != "Deployment" or not target.api_version.startswith("apps/"):
        message = f"{title} ({target.api_version}) is not diagnosed by this release, which knows {_SUPPORTED}. Point the Incident at the Deployment behind it."
        return Diagnosis(Kind.TARGET_UNKNOWN, "KindNotSupported", safe(message), safe(message))
    match snapshot.find(target.kind, target.name):
        case Absent() as absent:
            return _missing_target(scene, absent, title)
        case NotLooked() as unread:
            message = safe(f"{title} could not be looked at: {unread.because}")
            return Diagnosis(
                Kind.TARGET_UNKNOWN, "TargetNotRead", message, message, gaps=(_gap("Deployment objects", unread.because, unread.fix),)
            )
        case KubeObject() as obj:
            return _Examination(scene, scene.workload(obj), healthy).answer()


def _missing_target(scene: Scene, absent: Absent, title: str) -> Diagnosis:
    """The alert's object is gone or misnamed; names that are near are named, nothing is picked."""
    names = sorted(o.name for o in scene.all("Deployment"))
    words = f"{title} does not exist in namespace {scene.snapshot.namespace}; Deployments there: {listed(names, 8) or 'none'}."
    fact = Known(words, (Observation(Channel.STATUS, "Kubernetes", safe(absent.query), absent.at, safe(words)),))
    return compose(Answer(Kind.TARGET_MISSING, "TargetAbsent", words, words, facts=(fact,)))


@dataclass(frozen=True)
class _State:
    """What kind of answer the state of the workload calls for, before any origin is sought."""

    kind: Kind
    reason: str
    words: str


class _Examination:
    """One diagnosis of one Deployment. A specialist that fails leaves a gap and an empty report, and never blocks the rest."""

    def __init__(self, scene: Scene, workload: Workload, healthy: tuple[HealthyRevision, ...]) -> None:
        self.scene = scene
        self.workload = workload
        self.gaps: list[Gap] = list(_listing_gaps(scene))
        self.report = self._ask("workload", lambda: examine(scene, workload), WorkloadReport((), frozenset(), (), None, None))
        self.graph = self._ask("topology", lambda: build(scene), Graph())
        self.history = history(workload, healthy, self.report.onset, self.report.serving)
        self._logs: dict[int, LogReport] = {}
        self.case = Case(scene, workload, self.report, self.history, self.graph, tuple(self._caps()), self.logs)

    def _ask(self, name: str, question: Callable[[], T], otherwise: T) -> T:
        try:
            return question()
        except Exception as error:  # noqa: BLE001  one specialist's mistake over hostile data must not cost the others' answers
            self.gaps.append(_gap(f"the {name} specialist", f"it failed: {type(error).__name__}", ""))
            return otherwise

    def logs(self, finding: Finding) -> LogReport:
        """The logs of a finding, read once."""
        if id(finding) not in self._logs:
            self._logs[id(finding)] = self._ask(
                "logs", lambda: logs_specialist.read_logs(self.scene.snapshot.logs, finding), LogReport((), False, ())
            )
        return self._logs[id(finding)]

    def _caps(self) -> Iterable[Cap]:
        """What was not looked at could refute anything: it caps every hypothesis, and the gaps say what would lift it."""
        missing = [k for k in CORE_KINDS if not self.scene.looked(k)]
        if missing:
            yield Cap("B", f"{listed(missing, 4)} objects were not looked at and could refute it")
        if self.scene.now - self.scene.snapshot.at > STALE_AFTER:
            yield Cap("B", f"the snapshot is {span(self.scene.now - self.scene.snapshot.at)} old")
        if self.workload.duplicate_numbers:
            yield Cap("C", "two ReplicaSets claim the same revision number, so the order of releases is not known")

    # -- the answer ---------------------------------------------------------------------------------------------------------------

    def answer(self) -> Diagnosis:
        state = self._ask(
            "workload",
            lambda: assess(self.scene, self.workload, self.report),
            _State(Kind.UNKNOWN, "EngineFailed", "The engine failed on this data."),
        )
        if state.kind is not Kind.FAULT:
            return self._compose(state, self._rank(state, ()), ())
        troubles = [f for f in self.report.findings if f.trouble in TERMINAL]
        nothing: tuple[Candidate, ...] = ()
        candidates = [c for f in troubles for c in self._ask("workload", partial(origins, self.case, f), nothing)]
        ranked = self._rank(state, candidates)
        first = ranked[0] if ranked else None
        if first is None or first.category in (Category.UNKNOWN, Category.NO_FAULT):
            state = replace(state, kind=Kind.UNKNOWN, reason="OriginNotShown")
        return self._compose(state, ranked, candidates)

    def _rank(self, state: _State, candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
        return rank((*candidates, self._nothing(state), self._something(state)))

    def _nothing(self, state: _State) -> Candidate:
        failing = self.report.failing
        refuted = ""
        if state.kind is not Kind.NO_FAULT:
            refuted = f"failing now: {count(len(failing), 'pod')}" if failing else state.words
        marks = (Mark("pods fail" if refuted else "nothing fails", (self._saw_status(),)),)
        return Candidate(
            Category.NO_FAULT,
            self.workload.title,
            "Nothing is wrong, or it is over.",
            marks=marks,
            inferred=0,
            counterfactual=True,
            caps=self.case.caps,
            refuted=safe(refuted, 900),
        )

    def _something(self, state: _State) -> Candidate:
        """Unknown: something that nobody named. A dead dependency speaks for it, since no category of this release is that."""
        marks = [Mark("dependency without endpoints", (clue,)) for _, clue in self._dead()]
        refuted = state.words if state.kind in (Kind.NO_FAULT,) else ""
        words = (
            "An origin that the evidence does not show."
            if state.kind is Kind.FAULT
            else f"An origin that the evidence does not show: {state.words}"
        )
        return Candidate(
            Category.UNKNOWN, self.workload.title, safe(words, 1000), marks=tuple(marks[:1]), inferred=3, refuted=safe(refuted, 900)
        )

    def _dead(self) -> list[tuple[str, Observation]]:
        found = [dead_dependency(self.case, f, self.logs(f)) for f in self.report.findings if isinstance(f, CrashFinding)]
        return [d for d in found if d is not None]

    def _saw_status(self) -> Observation:
        w = self.workload
        progressing, available = w.conditions.get("Progressing"), w.conditions.get("Available")
        told = "".join(
            f"; {n}={c.status} {c.reason}: {c.message}" for n, c in (("Progressing", progressing), ("Available", available)) if c
        )
        text = f"{w.title}: wants {w.desired}, has {w.replicas}, updated {w.updated}, available {w.available}{'; paused' if w.paused else ''}{told}"
        return seen(self.scene.listing("Deployment"), text)

    def _compose(self, state: _State, ranked: tuple[Candidate, ...], candidates: Iterable[Candidate]) -> Diagnosis:
        top = next((c for c in ranked if not c.refuted), None)
        fault = state.kind is Kind.FAULT and top is not None
        summary = (top.summary or top.statement) if fault and top else state.words
        self.gaps += self._log_gaps()
        self.gaps += self._secret_gaps()
        return compose(
            Answer(
                kind=state.kind,
                reason="OriginShown" if fault else state.reason,
                message=self._message(state, top if fault else None),
                summary=summary,
                ranked=ranked,
                facts=tuple(self._facts(state)),
                guesses=tuple(self._ask("logs", lambda: list(self._guesses()), [])),
                unexplained=tuple(self._unexplained(top if fault else None, candidates)),
                gaps=tuple(self.gaps),
                blast_radius=self._ask(
                    "topology", lambda: topology_specialist.blast_radius(self.scene, self.graph, self.workload), BlastRadius()
                ),
                owners=self._ask("topology", lambda: topology_specialist.owners(self.workload), ()),
                changes=self._ask("changes", lambda: changes_specialist.recent(self.scene, self.history, self.report.onset), ()),
                symptom_since=self.report.onset if state.kind in (Kind.FAULT, Kind.UNKNOWN) else None,
                terminal_since=self.report.terminal_since if state.kind in (Kind.FAULT, Kind.UNKNOWN) else None,
                failing_revision=self._failing_revision() if state.kind in (Kind.FAULT, Kind.UNKNOWN) else "",
            )
        )

    def _failing_revision(self) -> str:
        current = self.workload.current
        failing = any(f.revision is current and f.trouble in TERMINAL for f in self.report.findings)
        return current.uid if current is not None and failing and self.workload.sets_known else ""

    def _message(self, state: _State, top: Candidate | None) -> str:
        if top is None:
            return state.words
        best = min(top.caps, key=lambda c: (-ord(c.grade), c.because), default=None)
        limit = f", not better because {best.because}" if best and best.grade == top.grade else ""
        return f"{(top.summary or top.statement).rstrip('.')} (grade {top.grade}{limit})."

    # -- facts, guesses, gaps -----------------------------------------------------------------------------------------------------

    def _facts(self, state: _State) -> Iterable[Known]:
        w = self.workload
        yield Known(
            f"{w.title} wants {count(w.desired, 'replica')}; {w.updated} are of the wished template, {w.available} are available.",
            (self._saw_status(),),
        )
        for f in self.report.findings[:10]:
            yield Known(safe(_sentence(f.words)), f.seen[:4])
        current, older = self.history.current, self.history.chain[1:2]
        if current is not None and current.released is not None and w.sets_known and state.kind is not Kind.NO_FAULT:
            told = changes_specialist.describe(current, older[0] if older else None)
            yield Known(
                safe(f"{_sentence(told).rstrip('.')}, released {clock(current.released)}."),
                (seen(self.scene.listing("ReplicaSet"), f"ReplicaSet/{current.name}: {told}", Channel.CHANGE),),
            )
        baseline = self.history.baseline
        if baseline is not None and self.history.proven(baseline) and state.kind is not Kind.NO_FAULT:
            praise = self.case.praise(baseline)
            yield Known(_sentence(praise), (seen(self.scene.listing("Pod"), praise, Channel.CONTRAST),))
        for f in self.report.findings:
            if isinstance(f, CrashFinding) and (last := logs_specialist.last_line(self.scene.snapshot.logs, f)):
                yield Known(safe(f"Container {f.container} wrote last: {last.text}"), (last,))

    def _guesses(self) -> Iterable[Believed]:
        ns = self.scene.snapshot.namespace
        for f in self.report.findings:
            pod = f.pods[0].name if f.pods else ""
            if isinstance(f, ImageFinding) and f.error is PullError.UNKNOWN:
                yield Believed(f"The registry may not have {f.image}.", f.seen, command("kubectl", "-n", ns, "describe", "pod", pod))
            if isinstance(f, MissingFinding) and not f.proved:
                kind, name = f.reference.kind.lower(), f.reference.name
                yield Believed(f"{f.reference.what} is still missing.", f.seen, command("kubectl", "-n", ns, "get", kind, name))
            if isinstance(f, CrashFinding):
                yield from self._crash_guesses(f, pod)
            if f.trouble in (Trouble.NOT_READY, Trouble.NOT_MADE, Trouble.UNSCHEDULED, Trouble.PROBE) and pod:
                yield Believed(
                    f"The events of {count(len(f.pods), 'pod')} tell more: {f.words}",
                    f.seen,
                    command("kubectl", "-n", ns, "describe", "pod", pod),
                )

    def _crash_guesses(self, f: CrashFinding, pod: str) -> Iterable[Believed]:
        ns, logs = self.scene.snapshot.namespace, self.logs(f)
        for title, line in self._dead()[:1]:
            name = title.partition("/")[2]
            yield Believed(
                f"{title} has no ready endpoint and may be the origin.", (line,), command("kubectl", "-n", ns, "get", "endpoints", name)
            )
        for clue in logs.clues[:3]:
            subject = f": {clue.subject}" if clue.subject else ""
            fix = command("kubectl", "-n", ns, "logs", pod, "-c", f.container, "--previous")
            yield Believed(f"By its log, {clue.sign.value}{subject}.", (clue.seen,), fix)
        if not logs.clues:
            yield Believed(
                f"The log of container {f.container} may say why it exits.",
                f.seen[:1],
                command("kubectl", "-n", ns, "logs", pod, "-c", f.container, "--previous"),
            )

    def _unexplained(self, top: Candidate | None, candidates: Iterable[Candidate]) -> Iterable[Known]:
        """Trouble that the first hypothesis does not account for: putting its cause right would leave this."""
        if top is None:
            return
        for f in self.report.findings:
            if f is top.finding or f.trouble is Trouble.STARTING:
                continue
            own = [c for c in candidates if c.finding is f and not c.refuted and c.category is not Category.UNKNOWN]
            if not any(_same_origin(c, top) for c in own[:1]):
                yield Known(safe(_sentence(f.words)), f.seen[:3])

    def _log_gaps(self) -> Iterable[Gap]:
        for f in self.report.findings:
            if isinstance(f, CrashFinding) and not (f.run and f.run.never_started):
                logs = self.logs(f)
                for refused in logs.refused[:2]:
                    yield _gap(f"log of {refused.key.pod}/{refused.key.container}", refused.because, refused.fix)
                if not logs.refused and not logs.read:
                    yield _gap(f"log of container {f.container}", "it was not read, or is empty; an exit code alone tells little", "")

    def _secret_gaps(self) -> Iterable[Gap]:
        for f in self.report.findings:
            if isinstance(f, MissingFinding) and f.reference.kind == "Secret":
                fix = command("kubectl", "-n", self.scene.snapshot.namespace, "get", "secret", f.reference.name)
                yield _gap(f.reference.title, "Secrets are never read; kubelet's message is the only evidence", fix)


def _same_origin(c: Candidate, top: Candidate) -> bool:
    """Whether the same repair would cure it: the same object by the same release, or the very same object and category."""
    if c.object != top.object:
        return False
    if c.change is None or top.change is None or top.change.kind != "Release":
        return c.category is top.category and (c.change and c.change.kind) == (top.change and top.change.kind)
    return (c.change.kind, c.change.revision) == (top.change.kind, top.change.revision)


def assess(scene: Scene, workload: Workload, report: WorkloadReport) -> _State:
    """Nothing, on its way, a fault, or something that this release does not name; the first that holds."""
    name, title = safe(workload.name, 120), safe(workload.title, 250)
    now_failing = [f for f in report.findings if f.trouble in TERMINAL and f.revision is workload.current]
    if not scene.looked("Pod"):
        if workload.complete and workload.desired:
            return _State(
                Kind.NO_FAULT,
                "NothingWrong",
                f"All {count(workload.desired, 'replica')} of {name} are available, and the rollout is complete.",
            )
        return _State(
            Kind.UNKNOWN,
            "PodsNotRead",
            f"{title} has {workload.available} of {count(workload.desired, 'replica')} available; its pods could not be looked at.",
        )
    if workload.desired == 0:
        return _State(Kind.UNKNOWN, "ScaledToZero", f"{title} is scaled to 0; whether that is meant, nothing here tells.")
    if now_failing:
        return _State(Kind.FAULT, "PodsFail", _sentence("; ".join(f.words for f in now_failing[:3])))
    return _other_trouble(scene, workload, report, title) or _settled(workload, report, name, title)


def _other_trouble(scene: Scene, workload: Workload, report: WorkloadReport, title: str) -> _State | None:
    """Trouble of classes that come later: told, never forced into a class."""
    current = [f for f in report.findings if f.revision is workload.current or f.trouble is Trouble.NOT_CREATED]
    for trouble, reason in ((Trouble.NOT_CREATED, "PodsNotCreated"), (Trouble.UNSCHEDULED, "Unschedulable")):
        if found := next((f for f in current if f.trouble is trouble), None):
            return _State(Kind.UNKNOWN, reason, _sentence(found.words))
    failure = workload.conditions.get("ReplicaFailure")
    if failure is not None and failure.status == "True" and not workload.complete:
        return _State(Kind.UNKNOWN, "PodsNotCreated", f"Pods of {title} cannot be created: {safe(failure.message or failure.reason, 600)}")
    waited_enough = workload.deadline_exceeded or workload.completed_once
    if (unready := next((f for f in current if f.trouble is Trouble.NOT_READY), None)) and waited_enough and not workload.complete:
        return _State(Kind.UNKNOWN, "NotReady", _sentence(unready.words))
    slow = next((f for f in current if f.trouble is Trouble.STARTING and _overdue(scene, workload, f)), None)
    if slow is not None:
        return _State(Kind.UNKNOWN, "NotReady", _sentence(slow.words))
    return None


def _overdue(scene: Scene, workload: Workload, finding: Finding) -> bool:
    limit = timedelta(seconds=workload.deadline)
    return any(p.birth is not None and scene.now - p.birth > limit for p in finding.pods)


def _settled(workload: Workload, report: WorkloadReport, name: str, title: str) -> _State:
    if workload.complete:
        current = f" ({workload.current.label})" if workload.current and workload.current.number else ""
        return _State(
            Kind.NO_FAULT,
            "NothingWrong",
            f"All {count(workload.desired, 'replica')} of {name} are available, and the rollout is complete{current}.",
        )
    if workload.paused:
        return _State(
            Kind.UNKNOWN,
            "Paused",
            f"{title} is paused with {workload.updated} of {count(workload.desired, 'replica')} updated and {workload.available} available; somebody meant that.",
        )
    old = [f for f in report.findings if f.trouble in TERMINAL]
    if workload.deadline_exceeded:
        return _State(
            Kind.UNKNOWN,
            "RolloutStalled",
            f"The rollout of {title} has made no progress within {workload.deadline} s, and no pod shows why.",
        )
    what = f"release {workload.current.number}" if workload.current and workload.current.number else "a new template"
    leaving = f"; {count(sum(len(f.pods) for f in old), 'pod')} of older releases fail meanwhile" if old else ""
    words = f"{title} is on its way to {what}: {workload.updated} of {count(workload.desired, 'replica')} updated, {workload.available} available{leaving}."
    return _State(Kind.PROGRESSING, "RolloutUnderWay", words)


def _listing_gaps(scene: Scene) -> Iterable[Gap]:
    """Core kinds that were not looked at, and every other list that was tried and failed."""
    for kind in CORE_KINDS:
        listing = scene.listing(kind)
        if not listing.complete:
            yield _gap(f"{kind} objects", listing.because, _permission(scene, listing))
    for kind, listing in sorted(scene.snapshot.listings.items()):
        if kind not in CORE_KINDS and not listing.complete:
            yield _gap(f"{kind} objects", listing.because, _permission(scene, listing))


def _permission(scene: Scene, listing: Listing) -> str:
    ns = scene.snapshot.namespace
    return listing.fix or command("kubectl", "-n", ns, "auth", "can-i", "list", _PLURALS.get(listing.kind, f"{listing.kind.lower()}s"))


def _gap(what: str, because: str, fix: str) -> Gap:
    return Gap(what=safe(what, 256), because=safe(because), fix=safe(fix))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


_PLURALS = {"HorizontalPodAutoscaler": "horizontalpodautoscalers", "NetworkPolicy": "networkpolicies", "Ingress": "ingresses"}
