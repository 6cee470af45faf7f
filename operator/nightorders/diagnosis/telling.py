"""What the answer tells beside its hypotheses: facts, guesses with what would settle them, what stays unexplained, and gaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..api.meta import line
from ..api.v1alpha1.common import Category
from ..api.v1alpha1.incident import Gap
from ..domain.diagnosis import Finding as Kind
from ..domain.redaction import redact
from ..domain.snapshot import Listing
from .assess import State
from .case import CORE_KINDS, Case
from .evidence import Believed, Channel, Known, Observation, command, safe, seen
from .findings import CrashFinding, ImageFinding, MissingFinding, Trouble
from .hypotheses import Candidate
from .images import PullError
from .origins.crash import dead_dependency
from .read import clock, count, listed, sentence
from .scene import Scene
from .specialists import changes, logs
from .world import World

if TYPE_CHECKING:
    from .focus import Focus
    from .symptom import Symptom

_MOST_FINDINGS = 10
_MOST_WORKLOADS = 4
_MOST_CLUES = 3
_DESCRIBED = frozenset({Trouble.NOT_READY, Trouble.NOT_MADE, Trouble.UNSCHEDULED, Trouble.PROBE})
_PLURALS = {"HorizontalPodAutoscaler": "horizontalpodautoscalers", "Ingress": "ingresses", "NetworkPolicy": "networkpolicies"}


def saw_status(case: Case) -> Observation:
    """The Deployment's own numbers and conditions."""
    w = case.workload
    numbers = f"wants {w.desired}, has {w.replicas}, updated {w.updated}, available {w.available}" + ("; paused" if w.paused else "")
    told = "".join(f"; {n}={c.status} {c.reason}: {redact(c.message)}" for n, c in sorted(w.conditions.items()))
    return seen(case.scene.listing(w.obj.kind), f"{w.title}: {numbers}{told}")


def facts(world: World, focus: Focus, cases: Sequence[Case], state: State, symptom: Symptom) -> Iterator[Known]:
    """What is known, each with what it stands on."""
    if not cases:
        yield Known(safe(f"{focus.title}: {symptom.seen[0].text}"), symptom.seen[:1])
    for case in cases[:_MOST_WORKLOADS]:
        yield from _of_workload(case, state)
    yield from _elsewhere(world, focus)


def _elsewhere(world: World, focus: Focus) -> Iterator[Known]:
    """Other workloads of the namespace that are in trouble, whatever they have to do with it."""
    mine = {w.title for w in focus.workloads}
    for w in world.workloads:
        if w.title not in mine and (f := next((f for f in world.case(w).report.findings if f.trouble is not Trouble.STARTING), None)):
            yield Known(safe(f"Beside it, {w.title}: {sentence(f.words)}"), f.seen[:2])


def _of_workload(case: Case, state: State) -> Iterator[Known]:
    w, current, baseline = case.workload, case.history.current, case.history.baseline
    counted = f"{w.updated} are of the wished template, {w.available} are available"
    yield Known(safe(f"{w.title} wants {count(w.desired, 'replica')}; {counted}."), (saw_status(case),))
    for f in case.report.findings[:_MOST_FINDINGS]:
        yield Known(safe(sentence(f.words)), f.seen[:4])
    if state.kind is not Kind.NO_FAULT:
        if current is not None and current.released is not None and w.sets_known:
            told = changes.describe(current, next(iter(case.history.chain[1:2]), None))
            proof = seen(case.scene.listing("ReplicaSet"), f"ReplicaSet/{current.name}: {told}", Channel.CHANGE)
            yield Known(safe(f"{sentence(told).rstrip('.')}, released {clock(current.released)}."), (proof,))
        if baseline is not None and case.history.proven(baseline):
            yield Known(sentence(case.praise(baseline)), (case.saw_health(baseline),))
    for f in case.report.findings:
        if isinstance(f, CrashFinding) and (last := logs.last_line(case.scene.snapshot.logs, f)):
            yield Known(safe(f"Container {f.container} wrote last: {last.text}"), (last,))


def guesses(case: Case) -> Iterator[Believed]:
    """What is believed, and the command that would settle it."""
    kubectl = ("kubectl", "-n", case.scene.snapshot.namespace)
    for f in case.report.findings:
        pod = f.pods[0].name if f.pods else ""
        if isinstance(f, ImageFinding) and f.error is PullError.UNKNOWN:
            yield Believed(f"The registry may not have {f.image}.", f.seen, command(*kubectl, "describe", "pod", pod))
        if isinstance(f, MissingFinding) and not f.proved:
            what = f"Key {f.reference.key} of {f.reference.title}" if f.key_only else f.reference.title
            yield Believed(f"{what} is still missing.", f.seen, command(*kubectl, "get", f.reference.kind.lower(), f.reference.name))
        if isinstance(f, CrashFinding):
            yield from _about_exit(case, f, kubectl, pod)
        if f.trouble in _DESCRIBED and pod:
            yield Believed(f"The events of Pod/{pod} tell more: {f.words}", f.seen, command(*kubectl, "describe", "pod", pod))
        if case.contrast(f).only_node and len(f.pods) == 1:
            node = case.contrast(f).only_node
            yield Believed(
                f"Node/{node} may be at fault: pods of the same revision serve elsewhere.",
                f.seen,
                command("kubectl", "describe", "node", node),
            )


def _about_exit(case: Case, f: CrashFinding, kubectl: tuple[str, ...], pod: str) -> Iterator[Believed]:
    if dead := dead_dependency(case, f):
        title, line = dead
        settle = command(*kubectl, "get", "endpointslices", "-l", f"kubernetes.io/service-name={title.partition('/')[2]}")
        yield Believed(f"{title} has no ready endpoint and may be the origin.", (line,), settle)
    settle = command(*kubectl, "logs", pod, "-c", f.container, "--previous")
    found = case.logs(f).clues
    for clue in found[:_MOST_CLUES]:
        subject = f": {clue.subject}" if clue.subject else ""
        yield Believed(f"By its log, {clue.sign.value}{subject}.", (clue.seen,), settle)
    if not found:
        yield Believed(f"The log of container {f.container} may say why it exits.", f.seen[:1], settle)


def unexplained(cases: Iterable[Case], top: Candidate | None, candidates: Iterable[Candidate]) -> Iterator[Known]:
    """Trouble that the first hypothesis does not account for: putting its cause right would leave this."""
    every = tuple(candidates)
    if top is not None and top.finding is None:
        return  # it stands on a path from all of the symptom to one origin
    for f in (f for case in cases for f in case.report.findings):
        if top is None or f is top.finding or f.trouble is Trouble.STARTING:
            continue
        own = next((c for c in every if c.finding is f and not c.refuted and c.category is not Category.UNKNOWN), None)
        if own is None or not _same_repair(own, top):
            yield Known(safe(sentence(f.words)), f.seen[:3])


def _same_repair(c: Candidate, top: Candidate) -> bool:
    """Whether putting `top` right cures `c` as well: the same object by the same release, or the same object and category."""
    if c.object != top.object:
        return False
    if c.change is None or top.change is None or top.change.kind != "Release":
        return c.category is top.category and (c.change and c.change.kind) == (top.change and top.change.kind)
    return (c.change.kind, c.change.revision) == (top.change.kind, top.change.revision)


def claim_gaps(world: World) -> Iterator[Gap]:
    """A signal that could not be asked for again."""
    claim = world.claim
    if claim is not None and claim.firing is None and not claim.resolved and claim.because:
        yield gap(f"whether {claim.name} still holds", claim.because)
    unasked: dict[str, list[str]] = {}
    for name, vector in sorted(world.scene.snapshot.metrics.items()):
        if vector.because:
            unasked.setdefault(vector.because, []).append(name)
    for because, names in unasked.items():
        yield gap(f"series: {listed(names, 5)}", because)


def gap(what: str, because: str, fix: str = "") -> Gap:
    """One gap, safe to show."""
    return Gap(what=safe(what, 256), because=safe(because), fix=line(fix))


def listing_gaps(scene: Scene) -> Iterator[Gap]:
    """Core kinds that were not looked at; and every other list that was tried and failed, those for the same reason together."""
    for listing in (scene.listing(k) for k in CORE_KINDS):
        if not listing.complete:
            yield gap(f"{listing.kind} objects", listing.because, listing.fix or _permission(scene, listing))
    alike: dict[str, list[Listing]] = {}
    for kind, listing in sorted(scene.snapshot.listings.items()):
        if kind not in CORE_KINDS and not listing.complete:
            alike.setdefault(listing.because, []).append(listing)
    for because, listings in alike.items():
        fix = listings[0].fix or (_permission(scene, listings[0]) if len(listings) == 1 else "")
        yield gap(f"{listed([x.kind for x in listings], 5)} objects", because, fix)


def _permission(scene: Scene, listing: Listing) -> str:
    plural = _PLURALS.get(listing.kind, f"{listing.kind.lower()}s")
    return command("kubectl", "-n", scene.snapshot.namespace, "auth", "can-i", "list", plural)


def evidence_gaps(case: Case) -> Iterator[Gap]:
    """Logs that were refused or never read, and Secrets, which are never looked at."""
    for f in case.report.findings:
        if isinstance(f, CrashFinding) and not (f.run and f.run.never_started):
            report = case.logs(f)
            for refused in report.refused[:2]:
                yield gap(f"log of {refused.key.pod}/{refused.key.container}", refused.because, refused.fix)
            if not report.refused and not report.read:
                yield gap(f"log of container {f.container}", "it was not read, or is empty; an exit code alone tells little")
        if isinstance(f, MissingFinding) and f.reference.kind == "Secret":
            fix = command("kubectl", "-n", case.scene.snapshot.namespace, "get", "secret", f.reference.name)
            yield gap(f.reference.title, "Secrets are never read; kubelet's message is the only evidence", fix)
