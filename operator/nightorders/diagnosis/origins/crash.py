"""Origins of a container that exits: the release, an edited ConfigMap, its memory limit, the node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..changes import Aspect, Difference, History, Introduced, Step
from ..contrast import Contrast
from ..evidence import Channel, Observation, safe, seen
from ..findings import CrashFinding, Finding
from ..graph import Link
from ..hypotheses import Candidate, Cap, Mark
from ..images import what_differs
from ..read import count, listed, mapping, objects, sentence, span, word
from ..references import references
from ..scene import Revision
from ..specialists.logs import LogReport, Sign
from . import clues
from .common import container_of, distinct, effect_of, node_origin, release_of, relevant, run_of
from .config import edit_origins
from .memory import memory_origins
from .probes import probe_kills
from .timing import Timed, timed_edit
from .values import config_maps, value_origins

# Clues of something other than the program itself; what they name is judged by others.
_OUTSIDE = frozenset(set(Sign) - {Sign.EXCEPTION})
_ELSEWHERE = (Sign.HOST, Sign.NAME, Sign.UPSTREAM, Sign.CREDENTIALS, Sign.CERTIFICATE, Sign.POOL, Sign.FORBIDDEN)


def crash_origins(case: Case, f: CrashFinding) -> tuple[Candidate, ...]:
    """Everything that may make this container exit."""
    if f.run is not None and f.run.out_of_memory:
        return tuple(memory_origins(case, f))
    return (*program_origins(case, f), *probe_kills(case, f))


def program_origins(case: Case, f: Finding) -> tuple[Candidate, ...]:
    """Why a program fails by itself: the release, an edited ConfigMap, a value that leads nowhere, the image's content, the node."""
    contrast, logs = case.contrast(f), case.logs(f)
    dead = dead_dependency(case, f)
    found = (
        *_release(case, f, logs, contrast, dead),
        *edit_origins(case, f, logs, contrast, dead),
        *value_origins(case, f, logs, contrast, effect_of(f)),
        *content_origins(case, f, contrast),
        *node_origin(case, f, contrast),
    )
    return distinct(found)


def dead_dependency(case: Case, f: Finding) -> tuple[str, Observation] | None:
    """A Service of this namespace that a log line calls unreachable and that has no ready pod: the name is the log's, the state is not."""
    ready = {f"Pod/{p.name}" for p in case.scene.pods if p.ready}
    services = {s.name: s for s in case.scene.all("Service") if mapping(s.raw.get("spec")).get("type") != "ExternalName"}
    for clue in case.logs(f).named(Sign.HOST, Sign.NAME):
        service = services.get(clue.subject.partition(".")[0].lower())
        if service is not None and ready.isdisjoint(case.graph.targets(service.title, Link.SELECTS)):
            return service.title, clue.seen
    return None


def steps_of(history: History, net: tuple[Difference, ...]) -> tuple[Step, ...]:
    """The releases that gave the differing fields their present values, newest first."""
    found: dict[int, Step] = {}
    for d in net:
        at = next((i for i, step in enumerate(history.steps) if any(x.path == d.path for x in step.differences)), None)
        if at is not None:
            found[at] = history.steps[at]
    return tuple(found[i] for i in sorted(found))


def _release(case: Case, f: Finding, logs: LogReport, contrast: Contrast, dead: tuple[str, Observation] | None) -> Iterator[Candidate]:
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
    f: Finding
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
        release, effect = release_of(self.case, self.revision), effect_of(self.f)
        praise = self.case.praise(self.baseline)
        return Candidate(
            category,
            self.case.title,
            f"{release} changed {what} container {self.f.container} ({safe(shown, 500)}), which {effect}. {sentence(praise)}",
            f"{release} changed {_in_short(category, mine)}, and container {self.f.container} {effect}; {praise}.",
            self.case.release(self.revision),
            tuple(self._marks(mine, shown, named)),
            inferred=0 if named or (not configuration and self._by_itself(alone=alone)) else 1,
            counterfactual=self.case.history.proven(self.baseline),
            timing=True,
            caps=tuple(self._caps(mine, named, configuration=configuration)),
            refuted=self._excuse(mine) if not named and not isinstance(self.f, CrashFinding) else "",
        )

    def _excuse(self, mine: tuple[Difference, ...]) -> str:
        """Why it is not the release that keeps a running program from being Ready: its log names what it waits for, and that is down."""
        if not self._blames_another(mine) or self.dead is None:
            return ""
        return safe(f"its log names {self.dead[0]}, which has no ready endpoint", 900)

    def _marks(self, mine: tuple[Difference, ...], shown: str, named: Observation | None) -> Iterator[Mark]:
        proof = self.case.saw_release(Introduced(self.f.revision, self.baseline), shown)
        if self._wrong_machine() and any(d.aspect is Aspect.IMAGE for d in mine):
            yield Mark("mechanism named", self.f.seen)
        else:
            yield Mark("only an exit" if isinstance(self.f, CrashFinding) else "state fits", self.f.seen)
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

    def _by_itself(self, *, alone: bool) -> bool:
        """Whether the image is all that tells failing pods from healthy ones, and the program or the runtime reports its own failure."""
        known = self.contrast.separates_revisions or (self.case.history.proven(self.baseline) and not self.contrast.same_revision)
        if not known or len(self.steps) > 1 or not (alone or self.new_container):
            return False
        if any(e is not None for e in self._edits()):
            return False
        run = run_of(self.f)
        if self._wrong_machine() or (run is not None and run.never_started and alone):
            return True
        return bool(self.logs.of(Sign.EXCEPTION)) and not self.logs.of(*_OUTSIDE)

    def _edits(self) -> Iterator[Timed | None]:
        for r in references(self.f.revision.pod_spec):
            if r.kind == "ConfigMap":
                yield timed_edit(self.case, self.f, self.contrast, r.name)

    def _wrong_machine(self) -> bool:
        """An image that was pulled and is made for another processor."""
        run = run_of(self.f)
        told = (run.message if run else "", *(c.seen.text for c in self.logs.of(Sign.EXCEPTION)), *(o.text for o in self.f.seen[:2]))
        return any("exec format error" in t.lower() for t in told)

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
        if len(mine) < len(self.net) and not named and not (not configuration and self.new_container and self._by_itself(alone=False)):
            other = "the image" if configuration else "configuration"
            yield Cap("C", f"the release changed {other} as well, and no log line tells which it is")
        if self.contrast.same_revision:
            yield Cap("C", f"pods of the same revision serve ({len(self.contrast.same_revision)})")
        if self._was_complete():
            yield Cap("C", "the rollout had been complete before the first failure")
        if self._blames_another(mine):
            yield Cap("C", "a log line names a Service that has no ready endpoint")
        elif not configuration and (told := self.logs.of(*_ELSEWHERE)):
            yield Cap("C", f"its log tells of something outside of it: {told[0].sign.value}")


def _in_short(category: Category, mine: tuple[Difference, ...]) -> str:
    if category is Category.BAD_RELEASE:
        return f"the image ({safe(what_differs(word(mine[0].before), word(mine[0].after)), 200)})"
    aspects = dict.fromkeys(d.aspect.value for d in mine)
    names = [d.env_name for d in mine if d.env_name]
    return " and ".join(aspects) + (f" ({listed(names)})" if names else "")


def _command_alone(case: Case, f: Finding) -> Iterator[Candidate]:
    """Nothing to compare with. What the runtime says of the command, or the program of a setting that is not there, can still be told."""
    container, run = container_of(f.revision.template, f.container), run_of(f)
    command = (container.get("command"), container.get("args"))
    if run is not None and run.never_started:
        if clues.runs(run, *command):
            statement = f"The command of container {f.container} of {case.title} cannot be started ({safe(run.message, 300)})."
            runtime = (Mark("mechanism named", f.seen), Mark("no change seen"))
            yield Candidate(Category.BAD_CONFIGURATION, case.title, statement, statement, ChangeRef(kind="None"), runtime, inferred=0)
        return
    if f.revision is not case.workload.current or case.contrast(f).same_revision:
        return
    known = settings_of(case, container)
    for clue in case.logs(f).named(Sign.SETTING, Sign.ARGUMENT, Sign.FILE):
        if clue.sign is Sign.SETTING and known is not None and clue.subject.lower() not in known:
            what = f"has no setting {safe(clue.subject, 80)}"
        elif clue.sign is not Sign.SETTING and clues.among(clue.subject, *command):
            what = f"is started with {safe(clue.subject, 120)}"
        else:
            continue
        statement = f"Container {f.container} of {case.title} {what}, and by its own log fails of that; it {effect_of(f)}."
        marks = (Mark("state fits", f.seen), Mark("log says so", (clue.seen,)), Mark("no change seen"))
        yield Candidate(Category.BAD_CONFIGURATION, case.title, statement, statement, ChangeRef(kind="None"), marks, inferred=1)
        return


def settings_of(case: Case, container: Mapping[str, Any]) -> frozenset[str] | None:
    """Lower-case names of everything in a container's environment; None where they are not all known (a Secret may hold any name)."""
    names = {word(e.get("name")).lower() for e in objects(container.get("env"))}
    for source in objects(container.get("envFrom")):
        if mapping(source.get("secretRef")):
            return None
        name = word(mapping(source.get("configMapRef")).get("name"))
        if not case.scene.looked("ConfigMap"):
            return None
        names |= {(word(source.get("prefix")) + k).lower() for k in config_maps(case.scene).get(name, {})}
    return frozenset(names)


def content_origins(case: Case, f: Finding, contrast: Contrast) -> Iterator[Candidate]:
    """A mutable tag: the same image name, of which failing pods hold other content than those that serve."""
    if not case.is_current(f):
        return
    failing = {c.image_id: c for p in f.pods for c in p.containers if c.name == f.container and c.image_id}
    serving = {c.image_id: c for p in contrast.same_revision for c in p.containers if c.name == f.container and c.image_id}
    if not failing or not serving or not failing.keys().isdisjoint(serving):
        return
    bad, good = (next(iter(sorted(ids))) for ids in (failing, serving))
    image = safe(failing[bad].image, 200)
    statement = (
        f"{image} stands for other content where container {f.container} of {case.title} {effect_of(f)} than where it serves "
        f"({safe(bad[-80:], 80)} against {safe(good[-80:], 80)}): the tag was pushed again."
    )
    proof = seen(
        case.scene.listing("Pod"), f"image {image}: failing pods run {bad}, Ready pods of the same revision {good}", Channel.CONTRAST
    )
    marks = (Mark("state fits", f.seen), Mark("other image content", (proof,)))
    yield Candidate(
        Category.BAD_RELEASE,
        case.title,
        statement,
        f"{image} was pushed again under the same name; pods with the new content of {case.name} fail.",
        ChangeRef(kind="None"),
        marks,
        inferred=1,
        counterfactual=True,
        caps=tuple(clues.log_caps(f, case.logs(f))),
    )


def _refuted(case: Case, f: Finding, baseline: Revision, why: str) -> Candidate:
    proof = case.saw_release(Introduced(f.revision, baseline), why)
    label = f.revision.label
    statement = f"{label[:1].upper()}{label[1:]} is at fault ({count(len(f.pods), 'pod')} of it fail)."
    return Candidate(Category.BAD_RELEASE, case.title, statement, marks=(Mark("no change seen", (proof,)),), refuted=safe(why, 900))
