"""The supervisor: lets each specialist look, follows the graph from the symptom to what is broken, and puts the answer together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from ..api.v1alpha1.common import Category, ObjectRef
from ..api.v1alpha1.incident import BlastRadius, Change, Gap, Owner
from ..api.v1alpha1.ledger import HealthyRevision
from ..domain.diagnosis import Diagnosis
from ..domain.diagnosis import Finding as Kind
from ..domain.snapshot import Absent, KubeObject, NotLooked, Snapshot
from . import telling
from .anomalies import FINDERS, Finder
from .answer import Answer, compose
from .assess import State
from .case import CORE_KINDS
from .claim import Claim
from .evidence import Believed, Channel, Known, Observation, safe
from .explain import Ways, related
from .findings import CrashFinding, Trouble
from .focus import KINDS, Focus, focus
from .hypotheses import Candidate, Cap, Mark, rank
from .origins import origins
from .origins.crash import dead_dependency
from .read import clock, latest, listed
from .scene import Scene, Workload
from .specialists import changes, topology
from .symptom import Symptom, symptom_of
from .views import CALM
from .world import World

STALE_AFTER = timedelta(minutes=2)
NEUTRAL = (Category.UNKNOWN, Category.NO_FAULT)
_NO_CANDIDATES: tuple[Candidate, ...] = ()
_NO_OWNERS: tuple[Owner, ...] = ()
_NO_CHANGES: tuple[Change, ...] = ()
_NO_GUESSES: tuple[Believed, ...] = ()
_NO_FACTS: tuple[Known, ...] = ()
_MOST_WORKLOADS = 200


def diagnose(
    snapshot: Snapshot, target: ObjectRef, healthy: tuple[HealthyRevision, ...], now: datetime, claim: Claim | None = None
) -> Diagnosis:
    """The whole answer about one target. `claim`: what the signal says is wrong with it."""
    scene = Scene(snapshot, now, doubted=claim is None or not (claim.resolved or claim.seen_itself))
    title = safe(target.title, 250)
    if target.kind not in KINDS or (
        snapshot.all(target.kind) and _group(snapshot.all(target.kind)[0].api_version) != _group(target.api_version)
    ):
        message = safe(f"{title} ({target.api_version}): nothing is known about objects of that kind. Ask about the workload behind it.")
        return Diagnosis(Kind.TARGET_UNKNOWN, "KindNotSupported", message, message)
    match find(snapshot, target):
        case Absent() as absent:
            return _missing_target(scene, absent, title, claim)
        case NotLooked() as unread:
            message = safe(f"{title} could not be looked at: {unread.because}")
            gap = telling.gap(f"{target.kind} objects", unread.because, unread.fix)
            return Diagnosis(Kind.TARGET_UNKNOWN, "TargetNotRead", message, message, gaps=(gap,))
        case KubeObject() as obj:
            world = World(scene, healthy, claim, tuple(_caps(scene)))
            world.gaps.extend(telling.listing_gaps(scene))
            return _Examination(world, focus(world, target, obj)).answer()


def find(snapshot: Snapshot, target: ObjectRef) -> KubeObject | Absent | NotLooked:
    """The target in the snapshot."""
    found = snapshot.find(target.kind, target.name)
    if target.kind == "Namespace" and not isinstance(found, KubeObject) and target.name == snapshot.namespace and snapshot.listings:
        raw = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": target.name}}
        return KubeObject(raw, "Namespace", "v1")  # a namespace that was listed from is there, whether or not it could be read itself
    return found


def _group(api_version: str) -> str:
    return api_version.rpartition("/")[0]


def _missing_target(scene: Scene, absent: Absent, title: str, claim: Claim | None) -> Diagnosis:
    """The alert's object is gone or misnamed; names that are there are told, none is picked."""
    kind = title.partition("/")[0]
    names = sorted(o.name for o in scene.all(kind))
    words = safe(f"{title} does not exist in namespace {scene.snapshot.namespace}; {kind}s there: {listed(names, 8) or 'none'}.")
    fact = Known(words, (Observation(Channel.STATUS, "Kubernetes", safe(absent.query), absent.at, words),))
    ranked: tuple[Candidate, ...] = ()
    if claim is not None:
        statement = f"The signal is about {title}, which is not there: it is over, or it names the wrong object."
        nothing = Candidate(Category.NO_FAULT, title, safe(statement), marks=(Mark("state fits", fact.seen),), inferred=1)
        unknown = Candidate(Category.UNKNOWN, title, "Something that the evidence does not show.", inferred=3)
        ranked = (nothing, unknown)
    return compose(Answer(Kind.TARGET_MISSING, "TargetAbsent", words, words, facts=(fact,), ranked=ranked))


class _Examination:
    """One diagnosis. A specialist that fails leaves a gap and an empty report, and never blocks the rest."""

    def __init__(self, world: World, looked_at: Focus) -> None:
        self._world = world
        self._scene = world.scene
        self._focus = looked_at
        self._ask = world.ask
        self._ways = Ways(world, looked_at)

    def answer(self) -> Diagnosis:
        """The symptom first; then everything that may be behind it, along the paths that lead there."""
        symptom = symptom_of(self._world, self._focus)
        candidates = self._candidates(symptom)
        symptom = symptom.given(candidates)
        if symptom.state.kind is Kind.PROGRESSING:
            candidates = ()
        ranked = self._rank(symptom, candidates)
        state = symptom.state
        first = next((c for c in ranked if not c.refuted), None)
        if self._focus.whole and state.kind in (Kind.NO_FAULT, Kind.PROGRESSING) and first is not None and first.category not in NEUTRAL:
            # Pods are well, and some of their logs speak of an origin that cannot be shown: not a fault for sure, and not nothing.
            state = State(Kind.UNKNOWN, "LogsComplain", first.statement)
        if state.kind in (Kind.FAULT, Kind.UNKNOWN) and first is not None and first.category not in NEUTRAL:
            state = replace(state, kind=Kind.FAULT)
        elif state.kind is Kind.FAULT:
            state = replace(state, kind=Kind.UNKNOWN, reason="OriginNotShown", words=self._untold(state, first))
        return self._compose(state, symptom, ranked, candidates)

    # ------------------------------------------------------------ candidates

    def _candidates(self, symptom: Symptom) -> tuple[Candidate, ...]:
        """Origins of failing pods, wherever the paths lead, and everything else that is broken there."""
        if not symptom.looks:
            return ()
        if self._focus.whole:
            return self._of_all()
        own = (c for w in self._on_the_way() for c in self._own(w))
        return related(self._world, self._focus, self._ways, (*own, *self._anomalies()), symptom.onset)

    def _anomalies(self) -> tuple[Candidate, ...]:
        """What is broken beside pods, found once for a world."""
        if self._world.anomalies is None:
            found: list[Candidate] = []
            for name, find in FINDERS.items():
                found += self._ask(name, partial(_all, find, self._world), _NO_CANDIDATES)
            self._world.anomalies = tuple(found)
        return self._world.anomalies

    def _of_all(self) -> tuple[Candidate, ...]:
        """A whole namespace: each workload in trouble is examined by itself, and what explains several of them comes first.

        An anomaly that explains no trouble is told after them, and only where it is certain.
        """
        votes: dict[tuple[str, Category], list[Candidate]] = {}
        for w in self._focus.workloads[:_MOST_WORKLOADS]:
            one = _Examination(self._world, focus(self._world, _ref(w.obj), w.obj))
            symptom = symptom_of(self._world, one._focus)
            if symptom.state.kind not in (Kind.FAULT, Kind.UNKNOWN):
                continue
            ranked = one._rank(symptom, one._candidates(symptom))
            for place, c in enumerate(c for c in ranked if c.category not in NEUTRAL):
                votes.setdefault((c.object, c.category), []).append(replace(c, explains=0 if place or c.refuted else 1, finding=None))
        found = [replace(max(same, key=lambda c: (c.explains, c.score())), weight=_weight(same)) for same in votes.values()]
        lone = (c for c in self._anomalies() if (c.object, c.category) not in votes and (c.refuted or c.grade in ("A", "B")))
        return (*found, *(replace(c, weight=0.02) for c in lone))

    def _on_the_way(self) -> Iterator[Workload]:
        """The focus, and the workloads that it leans on, nearest first."""
        yield from self._focus.workloads[:_MOST_WORKLOADS]
        mine = {w.title for w in self._focus.workloads}
        if not self._focus.whole:
            reached = self._ways.reached
            yield from (w for w in self._world.workloads if w.title in reached and w.title not in mine)

    def _own(self, w: Workload) -> tuple[Candidate, ...]:
        case = self._world.case(w)
        every = [c for f in case.report.findings for c in self._ask("workload", partial(origins, case, f), _NO_CANDIDATES)]
        return tuple(replace(c, hits=c.hits or (w.title,)) for c in every)

    # ------------------------------------------------------------ ranking

    def _rank(self, symptom: Symptom, candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
        return rank((*candidates, self._nothing(symptom), self._something(symptom)), symptom.size)

    def _nothing(self, symptom: Symptom) -> Candidate:
        """NoFault: it stands when every replica is available, when it is on its way by itself, or meant; whatever fails refutes it."""
        name = "pods fail" if symptom.against else "nothing fails"
        return Candidate(
            Category.NO_FAULT,
            self._focus.title,
            safe(symptom.benign or "Nothing is wrong, or it is over."),
            marks=() if symptom.claimed and not symptom.against else (Mark(name, symptom.seen),),
            inferred=2 if symptom.claimed else 1 if symptom.state.kind is Kind.PROGRESSING else 0,  # (what is on its way may yet fail)
            counterfactual=symptom.state.kind is Kind.NO_FAULT,
            caps=(*self._world.caps, *self._restless()),
            refuted=safe(symptom.against, 900),
        )

    def _restless(self) -> Iterator[Cap]:
        """What is well now and failed minutes ago may fail again."""
        for w in self._focus.workloads:
            ends = [c.latest_run.finished for p in w.pods for c in p.containers if c.latest_run and c.latest_run.exit_code]
            last = latest(*ends)
            if last is not None and self._scene.now - last < CALM:
                yield Cap("B", f"a container of {w.title} ended badly {clock(last)}")

    def _something(self, symptom: Symptom) -> Candidate:
        """Unknown: something that nobody named. A dead dependency speaks for it, if no candidate is that."""
        state = symptom.state
        marks = tuple(Mark("dependency without endpoints", (line,)) for _, line in self._dead())[:1]
        marks = (*marks, *((Mark("signal stands"),) if symptom.claimed else ()))
        told = "" if state.kind is Kind.FAULT else f": {state.words}"
        refuted = state.words if state.kind in (Kind.NO_FAULT, Kind.PROGRESSING) else ""
        statement = safe(f"An origin that the evidence does not show{told or '.'}")
        return Candidate(Category.UNKNOWN, self._focus.title, statement, marks=marks, inferred=3, refuted=safe(refuted, 900))

    def _untold(self, state: State, first: Candidate | None) -> str:
        """What is told when no origin is shown: the symptom, and the best lead."""
        lead = first.statement if first is not None and first.object.startswith("Node/") else ""
        for title, _ in self._dead():
            lead = f"Its log names {title}, which has no ready endpoint."
        return safe(f"{state.words} {lead or 'Its origin is not shown.'}")

    def _dead(self) -> Iterator[tuple[str, Observation]]:
        for w in self._focus.workloads:
            case = self._world.case(w)
            for f in case.report.findings:
                if isinstance(f, CrashFinding) and (dead := dead_dependency(case, f)):
                    yield dead

    # ------------------------------------------------------------ the answer

    def _compose(self, state: State, symptom: Symptom, ranked: tuple[Candidate, ...], candidates: tuple[Candidate, ...]) -> Diagnosis:
        ill = state.kind in (Kind.FAULT, Kind.UNKNOWN)
        top = next((c for c in ranked if not c.refuted), None) if state.kind is Kind.FAULT else None
        cases = [self._world.case(w) for w in self._focus.workloads]
        primary = self._focus.primary
        case = self._world.case(primary) if primary is not None else None
        answer = Answer(
            kind=state.kind,
            reason="OriginShown" if top else state.reason,
            message=(top.summary or top.statement) if top else state.words,
            grade=_grade(top) if top else "",
            summary=(top.summary or top.statement) if top else state.words,
            ranked=ranked,
            facts=self._ask("workload", lambda: tuple(telling.facts(self._world, self._focus, cases, state, symptom)), _NO_FACTS),
            guesses=self._ask("logs", lambda: tuple(g for c in cases for g in telling.guesses(c)), _NO_GUESSES),
            unexplained=tuple(telling.unexplained(cases, top, candidates)),
            blast_radius=self._ask("topology", self._blast, BlastRadius()),
            owners=self._ask("topology", self._owners, _NO_OWNERS),
            changes=self._ask("changes", lambda: self._changes(symptom), _NO_CHANGES),
            symptom_since=symptom.onset if ill else None,
            terminal_since=case.report.terminal_since if ill and case else None,
            failing_revision=self._failing_revision(primary) if ill and primary else "",
        )
        gaps: tuple[Gap, ...] = (*(g for c in cases for g in telling.evidence_gaps(c)), *telling.claim_gaps(self._world), *self._world.gaps)
        return compose(replace(answer, gaps=gaps))

    def _blast(self) -> BlastRadius:
        primary = self._focus.primary
        if primary is not None:
            return topology.blast_radius(self._scene, self._world.graph, primary)
        return BlastRadius(workloads=tuple(safe(w.title, 256) for w in self._focus.workloads[:32]))

    def _owners(self) -> tuple[Owner, ...]:
        primary = self._focus.primary
        return topology.owners(primary) if primary is not None else ()

    def _changes(self, symptom: Symptom) -> tuple[Change, ...]:
        found = [c for w in self._focus.workloads[:20] for c in changes.recent(self._scene, self._world.case(w).history, symptom.onset)]
        return tuple(sorted(dict.fromkeys(found), key=lambda c: (c.at, c.object), reverse=True)[: changes.MOST_CHANGES])

    def _failing_revision(self, workload: Workload) -> str:
        current = workload.current
        findings = self._world.case(workload).report.findings
        failing = any(f.revision is current and f.trouble not in (Trouble.STARTING,) for f in findings)
        return current.uid if current is not None and failing and workload.sets_known else ""


def _ref(obj: KubeObject) -> ObjectRef:
    return ObjectRef.model_construct(api_version=obj.api_version, kind=obj.kind, name=obj.name)


def _all(find: Finder, world: World) -> tuple[Candidate, ...]:
    return tuple(find(world))


def _weight(same: Iterable[Candidate]) -> float:
    """How much of a namespace's trouble an origin explains: a point for each workload where it stands first."""
    return max(0.1, float(sum(c.explains for c in same)))


def _caps(scene: Scene) -> Iterator[Cap]:
    """What was not looked at could refute anything: it caps every hypothesis, and the gaps say what would lift it."""
    missing = [k for k in CORE_KINDS if not scene.looked(k)]
    if missing:
        yield Cap("B", f"{listed(missing, 4)} objects were not looked at and could refute it")
    if scene.now - scene.snapshot.at > STALE_AFTER:
        yield Cap("B", f"the snapshot was taken {clock(scene.snapshot.at)} and is stale")


def _grade(top: Candidate) -> str:
    """The grade, and what keeps it from being better."""
    return f"grade {top.grade}" + next((f", not better because {c.because}" for c in top.caps if c.grade == top.grade), "")
