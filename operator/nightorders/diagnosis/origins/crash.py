"""Origins of a container that exits: the release, an edited ConfigMap, its memory limit, the node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..changes import EXPLAINS_EXIT, Aspect, Difference, History, Introduced, Step, differences
from ..contrast import Contrast
from ..evidence import Observation, safe
from ..findings import CrashFinding
from ..graph import Link
from ..hypotheses import Candidate, Cap, Mark
from ..images import what_differs
from ..read import count, listed, mapping, sentence, span, word
from ..scene import Revision
from ..specialists.logs import LogReport, Sign
from . import clues
from .common import container_of, node_origin, release_of
from .config import edit_origins
from .memory import memory_origins


def crash_origins(case: Case, f: CrashFinding) -> tuple[Candidate, ...]:
    """Everything that may make this container exit."""
    if f.run is not None and f.run.out_of_memory:
        return tuple(memory_origins(case, f))
    contrast, logs = case.contrast(f), case.logs(f)
    dead = dead_dependency(case, f)
    return (*_release(case, f, logs, contrast, dead), *edit_origins(case, f, logs, contrast, dead), *node_origin(case, f, contrast))


def dead_dependency(case: Case, f: CrashFinding) -> tuple[str, Observation] | None:
    """A Service of this namespace that a log line calls unreachable and that has no ready pod: the name is the log's, the state is not."""
    ready = {f"Pod/{p.name}" for p in case.scene.pods if p.ready}
    services = {s.name: s for s in case.scene.all("Service") if mapping(s.raw.get("spec")).get("type") != "ExternalName"}
    for clue in case.logs(f).named(Sign.HOST, Sign.NAME):
        service = services.get(clue.subject.partition(".")[0].lower())
        if service is not None and ready.isdisjoint(case.graph.targets(service.title, Link.SELECTS)):
            return service.title, clue.seen
    return None


def relevant(before: Revision, after: Revision, container: str) -> tuple[Difference, ...]:
    """Differences that can make that container exit: its own, and the pod's."""
    found = differences(before.template, after.template)
    return tuple(d for d in found if d.aspect in EXPLAINS_EXIT and d.container in ("", container))


def steps_of(history: History, net: tuple[Difference, ...]) -> tuple[Step, ...]:
    """The releases that gave the differing fields their present values, newest first."""
    found: dict[int, Step] = {}
    for d in net:
        at = next((i for i, step in enumerate(history.steps) if any(x.path == d.path for x in step.differences)), None)
        if at is not None:
            found[at] = history.steps[at]
    return tuple(found[i] for i in sorted(found))


def _release(case: Case, f: CrashFinding, logs: LogReport, contrast: Contrast, dead: tuple[str, Observation] | None) -> Iterator[Candidate]:
    history, baseline = case.history, case.history.baseline
    if not case.is_current(f) or not history.comparable or baseline is None:
        yield from _command_alone(case, f)
        return
    net = relevant(baseline, f.revision, f.container)
    if not net:
        yield _refuted(case, f, baseline, f"{f.revision.label} changed nothing that container {f.container} reads")
        return
    if history.lasted:
        released = f.revision.released
        held = span(f.onset - released) if f.onset and released else "a while"
        yield _refuted(case, f, baseline, f"{f.revision.label} had worked: the first failure came {held} after its release")
        return
    suspicion = _Suspicion(case, f, logs, contrast, dead, baseline, net, steps_of(history, net))
    configuration = tuple(d for d in net if d.aspect is not Aspect.IMAGE)
    image = tuple(d for d in net if d.aspect is Aspect.IMAGE)
    if configuration and not suspicion.new_container:
        yield suspicion.candidate(Category.BAD_CONFIGURATION, configuration)
    if image:
        yield suspicion.candidate(Category.BAD_RELEASE, image)
    if configuration and suspicion.new_container:
        yield suspicion.candidate(Category.BAD_CONFIGURATION, configuration)


@dataclass(frozen=True)
class _Suspicion:
    """A release whose difference may explain the exit: configuration if it changed what the program reads, else the new image."""

    case: Case
    f: CrashFinding
    logs: LogReport
    contrast: Contrast
    dead: tuple[str, Observation] | None
    baseline: Revision
    net: tuple[Difference, ...]
    steps: tuple[Step, ...]

    @property
    def new_container(self) -> bool:
        """The release added the whole container, such as a sidecar: then its image is as new as its settings."""
        return not container_of(self.baseline.template, self.f.container)

    @property
    def revision(self) -> Revision:
        """The first release after the last good one that changed anything that matters."""
        return self.steps[-1].revision if self.steps else self.f.revision

    def candidate(self, category: Category, mine: tuple[Difference, ...]) -> Candidate:
        shown = "; ".join(d.shown for d in mine[:6])
        configuration = category is Category.BAD_CONFIGURATION
        named = clues.naming(self.f, self.logs, mine) if configuration else None
        alone = len(mine) == len(self.net)
        what = "what is read by" if configuration else "only the image of" if alone else "the image of"
        release, code = release_of(self.case, self.revision), f"code {self.f.run.exit_code}" if self.f.run else "an error"
        praise = self.case.praise(self.baseline)
        return Candidate(
            category,
            self.case.title,
            f"{release} changed {what} container {self.f.container} ({safe(shown, 500)}), which exits with {code}. {sentence(praise)}",
            f"{release} changed {_in_short(category, mine)}, and container {self.f.container} exits with {code}; {praise}.",
            self.case.release(self.revision),
            tuple(self._marks(mine, shown, named)),
            inferred=0 if named else 1,
            counterfactual=self.case.history.proven(self.baseline),
            timing=True,
            caps=tuple(self._caps(mine, named, configuration=configuration)),
        )

    def _marks(self, mine: tuple[Difference, ...], shown: str, named: Observation | None) -> Iterator[Mark]:
        proof = self.case.saw_release(Introduced(self.f.revision, self.baseline), shown)
        yield Mark("only an exit", self.f.seen)
        yield Mark("one of several releases" if len(self.steps) > 1 else "introduced by this release", (proof,))
        if self.new_container and all(d.aspect is Aspect.IMAGE for d in mine):
            yield Mark("whole container is new")
        if self._was_complete():
            yield Mark("was complete before")
        if self.contrast.separates_revisions:
            yield Mark("previous revision serves", self.case.saw_serving(self.f))
        if self.contrast.same_revision:
            yield Mark("same revision serves")
        if self.contrast.only_node:
            yield Mark("one node only")
        if named:
            yield Mark("log names it", (named,))
        if self._blames_another(mine):
            assert self.dead is not None
            yield Mark("log names a dead host", (self.dead[1],))

    def _was_complete(self) -> bool:
        completed, onset = self.case.workload.completed_at, self.f.onset
        return completed is not None and onset is not None and onset > completed

    def _blames_another(self, mine: tuple[Difference, ...]) -> bool:
        """The log names a dead Service, and nothing that this release changed names it."""
        if self.dead is None:
            return False
        host = self.dead[0].partition("/")[2]
        return not any(clues.value_names(d, host) for d in mine)

    def _caps(self, mine: tuple[Difference, ...], named: Observation | None, *, configuration: bool) -> Iterator[Cap]:
        yield from clues.log_caps(self.f, self.logs)
        if len(self.steps) > 1:
            yield Cap("C", f"{len(self.steps)} releases since {self.baseline.label} changed something that may explain it")
        if len(mine) < len(self.net) and not named:
            other = "the image" if configuration else "configuration"
            yield Cap("C", f"the release changed {other} as well, and no log line tells which it is")
        if self.contrast.same_revision:
            yield Cap("C", f"pods of the same revision serve ({len(self.contrast.same_revision)})")
        if self._was_complete():
            yield Cap("C", "the rollout had been complete before the first failure")
        if self._blames_another(mine):
            yield Cap("C", "a log line names a Service that has no ready endpoint")


def _in_short(category: Category, mine: tuple[Difference, ...]) -> str:
    if category is Category.BAD_RELEASE:
        return f"the image ({safe(what_differs(word(mine[0].before), word(mine[0].after)), 200)})"
    aspects = dict.fromkeys(d.aspect.value for d in mine)
    names = [d.env_name for d in mine if d.env_name]
    return " and ".join(aspects) + (f" ({listed(names)})" if names else "")


def _command_alone(case: Case, f: CrashFinding) -> Iterator[Candidate]:
    """Nothing to compare with. Only what the runtime says of the command itself can still be told."""
    container = container_of(f.revision.template, f.container)
    if f.run is None or not f.run.never_started or not clues.runs(f.run, container.get("command"), container.get("args")):
        return
    statement = f"The command of container {f.container} of {case.title} cannot be started ({safe(f.run.message, 300)})."
    marks = (Mark("mechanism named", f.seen), Mark("no change seen"))
    yield Candidate(Category.BAD_CONFIGURATION, case.title, statement, statement, ChangeRef(kind="None"), marks, inferred=0)


def _refuted(case: Case, f: CrashFinding, baseline: Revision, why: str) -> Candidate:
    proof = case.saw_release(Introduced(f.revision, baseline), why)
    label = f.revision.label
    statement = f"{label[:1].upper()}{label[1:]} is at fault ({count(len(f.pods), 'pod')} of it fail)."
    return Candidate(Category.BAD_RELEASE, case.title, statement, marks=(Mark("no change seen", (proof,)),), refuted=safe(why, 900))
