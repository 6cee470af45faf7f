"""From findings to candidate origins: for each kind of trouble, what one would have to change to be rid of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ..api.v1alpha1.common import Category
from ..api.v1alpha1.incident import ChangeRef
from .case import Case
from .changes import EXPLAINS_EXIT, Aspect, Difference, Edit, Introduced, Step, differences, last_edit
from .contrast import Contrast, image_use
from .evidence import Channel, Observation, safe, seen
from .findings import CrashFinding, Finding, ImageFinding, MissingFinding
from .graph import Link
from .hypotheses import Candidate, Cap, Mark
from .images import ANSWERED, PASSING, PullError, what_differs
from .read import clock, count, listed, mapping, objects, span, word
from .references import references
from .specialists.logs import LogReport, Sign

# An edit a little after the first sign may still be the cause: conditions have whole seconds, and kubelets notice late.
_SLACK = timedelta(seconds=60)


def origins(case: Case, finding: Finding) -> tuple[Candidate, ...]:
    """What may be behind a finding; nothing for kinds of trouble that this release cannot name."""
    match finding:
        case ImageFinding():
            found = image_origins(case, finding)
        case MissingFinding():
            found = missing_origins(case, finding)
        case CrashFinding():
            found = crash_origins(case, finding)
        case _:
            found = ()
    return tuple(replace(c, finding=c.finding or finding, explains=case.explains(finding), caps=(*c.caps, *case.caps)) for c in found)


# -- an image that cannot be pulled -------------------------------------------------------------------------------------------------


def image_origins(case: Case, f: ImageFinding) -> tuple[Candidate, ...]:
    contrast, use = case.contrast(f), image_use(case.scene, f.image, f.pods)
    found = case.history.brought_in(lambda t: _image_of(t, f.container)) if case.is_current(f) else None
    runs = tuple(p for p in use.running if p.node not in contrast.failing_nodes) or use.running
    caps: list[Cap] = []
    marks = [Mark("mechanism likely" if f.error is PullError.UNKNOWN else "mechanism named", f.seen)]
    before = word(found.before) if found else ""
    if found:
        marks.append(
            Mark(
                "introduced by this release",
                (case.saw_release(found, f"image of container {f.container}: {before or 'none'} → {f.image}"),),
            )
        )
    else:
        marks.append(Mark("no change seen"))
    if contrast.separates_revisions:
        marks.append(Mark("previous revision serves", case.saw_serving(f)))
    if runs:
        marks.append(Mark("same image runs", (_saw_image(case, f, runs),)))
        caps.append(
            Cap(
                "C",
                f"the very same image runs in {count(len(runs), 'other pod')}, so the registry had it: the tag, the registry or a node changed",
            )
        )
    if contrast.only_node and f.error not in ANSWERED:
        marks.append(Mark("one node only"))
    if use.registry_fails and f.error not in (PullError.NOT_FOUND, PullError.INVALID_NAME):
        marks.append(Mark("registry fails elsewhere"))
        caps.append(Cap("C", f"{count(len(use.registry_fails), 'pod')} with other images of that registry fail too"))
    if f.error in PASSING:
        caps.append(Cap("C", f"{f.error.value}, which can pass by itself"))
    origin = Candidate(
        Category.IMAGE_ACCESS,
        case.title,
        _image_statement(case, f, found, before, use.registry_fails, runs),
        _image_summary(case, f, found),
        case.release(found.revision) if found else ChangeRef(kind="None"),
        tuple(marks),
        inferred=0 if f.error in ANSWERED or f.error is PullError.NO_SUCH_HOST else 1,
        counterfactual=found is not None and found.previous is not None and case.history.proven(found.previous),
        timing=found is not None,
        caps=tuple(caps),
    )
    return (origin, *_node(case, f, contrast))


def _image_of(template: Mapping[str, Any], container: str) -> str:
    spec = mapping(template.get("spec"))
    every = (*objects(spec.get("initContainers")), *objects(spec.get("containers")))
    return next((word(c.get("image")) for c in every if word(c.get("name")) == container), "")


def _saw_image(case: Case, f: ImageFinding, runs: tuple[Any, ...]) -> Observation:
    where = ", ".join(f"{p.name} on {p.node or 'no node'}" for p in runs[:3])
    return seen(case.scene.listing("Pod"), f"image {f.image} runs in {where}", Channel.CONTRAST)


def _image_statement(
    case: Case, f: ImageFinding, found: Introduced | None, before: str, registry_fails: tuple[Any, ...], runs: tuple[Any, ...]
) -> str:
    parts = [f"Container {f.container} of {case.title} names image {safe(f.image, 300)}; {f.error.value}."]
    if found and before:
        parts.append(f"{_label(found)} changed {safe(what_differs(before, f.image), 300)}.")
    if found and found.previous and case.history.proven(found.previous):
        parts.append(_sentence(case.praise(found.previous)))
    if registry_fails:
        parts.append(
            f"Other images of the same registry fail too ({count(len(registry_fails), 'pod')}), so the registry or its credentials may be at fault."
        )
    if runs:
        parts.append(f"The very same image runs in {count(len(runs), 'other pod')}.")
    return " ".join(parts)


def _image_summary(case: Case, f: ImageFinding, found: Introduced | None) -> str:
    what = {
        PullError.NOT_FOUND: "an image that does not exist",
        PullError.INVALID_NAME: "an image whose name is not valid",
        PullError.UNAUTHORIZED: "an image that the registry refuses to give",
        PullError.DENIED_OR_ABSENT: "an image that the registry refuses or does not have",
        PullError.NO_SUCH_HOST: "an image in a registry that nobody knows",
    }.get(f.error, "an image that cannot be pulled")
    if found is None:
        return f"Pods of {case.name} need {what}; no release of it explains that."
    return f"{_label(found)} of {case.name} names {what}" + _and_before(case, found) + "."


def _and_before(case: Case, found: Introduced) -> str:
    return f"; {case.praise(found.previous)}" if found.previous else ""


def _label(found: Introduced) -> str:
    return _sentence(found.revision.label).rstrip(".")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _node(case: Case, f: Finding, contrast: Contrast) -> tuple[Candidate, ...]:
    """The node as the origin: an obvious thought, which the contrast usually refutes."""
    nodes = sorted(contrast.failing_nodes)
    if not nodes:
        return ()
    title = f"Node/{nodes[0]}"
    if contrast.only_node:
        serving = sorted({p.node for p in contrast.same_revision if p.node})
        statement = (
            f"It fails on {title} only; pods of the same revision serve on {listed(serving)}. The node, not the workload, may be at fault."
        )
        proof = seen(
            case.scene.listing("Pod"),
            f"pods of {f.revision.label} Ready on {listed(serving)}, failing on {nodes[0]} only",
            Channel.CONTRAST,
        )
        return (
            Candidate(Category.UNKNOWN, title, statement, marks=(Mark("same image runs", (proof,)),), inferred=2, timing=True, finding=f),
        )
    if len(nodes) > 1:
        why = f"it fails on {len(nodes)} nodes ({listed(nodes)})"
    elif contrast.shared_nodes:
        why = f"healthy pods run on {nodes[0]} too"
    else:
        return ()
    works = f"; healthy pods run on {listed(sorted(contrast.shared_nodes)) or 'none of them'}" if len(nodes) > 1 else ""
    proof = seen(case.scene.listing("Pod"), why + works, Channel.CONTRAST)
    return (Candidate(Category.UNKNOWN, title, f"A fault of {title}.", marks=(Mark("one node only", (proof,)),), refuted=safe(why, 900)),)


# -- something that the pods need does not exist ------------------------------------------------------------------------------------


def missing_origins(case: Case, f: MissingFinding) -> tuple[Candidate, ...]:
    ref = f.reference
    found = case.history.brought_in(lambda t: _refers(t, f)) if case.is_current(f) else None
    contrast = case.contrast(f)
    what = f"key {ref.key} of {ref.title}" if f.key_only else ref.title
    status = Mark("mechanism named" if f.proved else "mechanism likely", f.seen)
    caps = () if f.proved else (Cap("B", f"{ref.title} was not looked at; kubelet's message is the only evidence"),)
    referrer = Candidate(
        Category.MISSING_OBJECT,
        case.title,
        f"{case.title} needs {what} ({ref.path}), which does not exist.",
        marks=(status,),
        inferred=0 if f.proved else 1,
        caps=caps,
        change=ChangeRef(kind="None"),
    )
    absent = replace(
        referrer, object=ref.title, statement=f"{_sentence(what).rstrip('.')} does not exist; {case.title} needs it ({ref.path})."
    )
    if found and found.previous:
        return _new_reference(case, f, referrer, absent, found, contrast, what)
    return _old_reference(case, f, referrer, absent, what)


def _refers(template: Mapping[str, Any], f: MissingFinding) -> bool:
    ref = f.reference
    return any(
        r.kind == ref.kind and r.name == ref.name and not r.optional and (not f.key_only or r.key == ref.key)
        for r in references(mapping(template.get("spec")))
    )


def _new_reference(
    case: Case, f: MissingFinding, referrer: Candidate, absent: Candidate, found: Introduced, contrast: Contrast, what: str
) -> tuple[Candidate, ...]:
    """The release began to refer to it: the referrer is at fault; that the object was forgotten is the other reading."""
    proof = case.saw_release(found, f"{f.reference.path} refers to {what}; the revision before did not")
    marks = [*referrer.marks, Mark("introduced by this release", (proof,))]
    if contrast.separates_revisions:
        marks.append(Mark("previous revision serves", case.saw_serving(f)))
    previous = found.previous
    proven = previous is not None and case.history.proven(previous)
    release = replace(
        referrer,
        statement=f"{_label(found)} of {case.name} refers to {what} ({f.reference.path}), which does not exist; the revision before did not.",
        summary=f"{_label(found)} of {case.name} needs {what}, which does not exist{_and_before(case, found)}.",
        change=case.release(found.revision),
        marks=tuple(marks),
        counterfactual=proven,
        timing=True,
    )
    forgotten = replace(absent, caps=(*absent.caps, Cap("C", "the reference is new, and nothing shows that the object ever existed")))
    return (release, forgotten)


def _old_reference(case: Case, f: MissingFinding, referrer: Candidate, absent: Candidate, what: str) -> tuple[Candidate, ...]:
    """Older revisions needed it too, so it is the absent object that one would put back."""
    needing = [r for r in case.history.chain if _refers(r.template, f)]
    ran = [r for r in needing if case.history.proven(r)] or ([needing[0]] if needing and case.history.lasted else [])
    marks = list(absent.marks)
    change, edit = ChangeRef(kind="None"), _edit_of(case, f.reference.name) if f.key_only else None
    if ran:
        proof = seen(case.scene.listing("Pod"), f"{ran[0].label} needs it too and has run: {case.praise(ran[0])}", Channel.CHANGE)
        marks.append(Mark("existed before", (proof, *case.saw_serving(f))))
        change = (
            ChangeRef(kind="Edit", at=edit.at, by=safe(edit.by, 200))
            if edit
            else ChangeRef(kind="None")
            if f.key_only
            else ChangeRef(kind="Deletion")
        )
    else:
        marks.append(Mark("no change seen"))
    caps = absent.caps if ran else (*absent.caps, Cap("B", "nothing shows that it existed before, so the reference may be the mistake"))
    was = "has existed before" if ran else "nothing tells whether it ever existed"
    gone = replace(
        absent,
        statement=f"{absent.statement} {_sentence(was)}",
        summary=f"{_sentence(what).rstrip('.')}, which {case.name} needs, does not exist" + (" any more." if ran else "."),
        change=change,
        marks=tuple(marks),
        counterfactual=bool(ran),
        timing=edit is not None,
        caps=caps,
    )
    other = replace(
        referrer,
        marks=(Mark("mechanism likely", f.seen), Mark("no change seen")),
        caps=(*referrer.caps, Cap("C", "the reference did not change")),
    )
    return (gone, other)


def _edit_of(case: Case, config_map: str) -> Edit | None:
    obj = next((o for o in case.scene.all("ConfigMap") if o.name == config_map), None)
    return last_edit(obj) if obj else None


# -- a container that exits ---------------------------------------------------------------------------------------------------------


def crash_origins(case: Case, f: CrashFinding) -> tuple[Candidate, ...]:
    logs = case.logs(f)
    contrast = case.contrast(f)
    dead = dead_dependency(case, f, logs)
    if f.run is not None and f.run.out_of_memory:
        return tuple(_memory(case, f, contrast))
    found = [*_release(case, f, logs, contrast, dead), *_edits(case, f, logs, contrast, dead)]
    return (*found, *_node(case, f, contrast))


def dead_dependency(case: Case, f: Finding, logs: LogReport) -> tuple[str, Observation] | None:
    """A Service of this namespace that a log line calls unreachable and that has no ready pod: the name is the log's, the state is not."""
    ready = {p.name for p in case.scene.pods if p.ready}
    for clue in logs.named(Sign.HOST):
        name = clue.subject.partition(".")[0].lower()
        service = next((s for s in case.scene.all("Service") if s.name == name), None)
        if service is None or mapping(service.raw.get("spec")).get("type") == "ExternalName":
            continue
        pods = [t.partition("/")[2] for t in case.graph.targets(service.title, Link.SELECTS)]
        if not any(p in ready for p in pods):
            return service.title, clue.seen
    return None


def _relevant(found: tuple[Difference, ...], container: str, aspects: frozenset[Aspect]) -> tuple[Difference, ...]:
    return tuple(d for d in found if d.aspect in aspects and d.container in ("", container))


def _release(case: Case, f: CrashFinding, logs: LogReport, contrast: Contrast, dead: tuple[str, Observation] | None) -> Iterator[Candidate]:
    history = case.history
    if not case.is_current(f) or not history.comparable or history.baseline is None:
        yield from _first_release(case, f)
        return
    net = _relevant(differences(history.baseline.template, f.revision.template), f.container, EXPLAINS_EXIT)
    label = f.revision.label
    if not net:
        yield _refuted_release(case, f, f"{label} changed nothing that container {f.container} reads")
        return
    if history.lasted:
        released = f.revision.released
        since = span(case.report.onset - released) if case.report.onset and released else "a while"
        yield _refuted_release(case, f, f"{label} was in force for {since} and healthy before the first failure")
        return
    steps = _steps_of(history.steps, net)
    aspects = {d.aspect for d in net}
    if aspects != {Aspect.IMAGE}:
        yield _changed(
            case, f, logs, contrast, dead, Category.BAD_CONFIGURATION, tuple(d for d in net if d.aspect is not Aspect.IMAGE), steps, net
        )
    if Aspect.IMAGE in aspects:
        yield _changed(case, f, logs, contrast, dead, Category.BAD_RELEASE, tuple(d for d in net if d.aspect is Aspect.IMAGE), steps, net)


def _steps_of(steps: tuple[Step, ...], net: tuple[Difference, ...]) -> tuple[Step, ...]:
    """The releases that gave the differing fields their present values, newest first."""
    found: dict[int, Step] = {}
    for d in net:
        for i, step in enumerate(steps):
            if any(x.path == d.path for x in step.differences):
                found[i] = step
                break
    return tuple(found[i] for i in sorted(found))


def _changed(
    case: Case,
    f: CrashFinding,
    logs: LogReport,
    contrast: Contrast,
    dead: tuple[str, Observation] | None,
    category: Category,
    mine: tuple[Difference, ...],
    steps: tuple[Step, ...],
    net: tuple[Difference, ...],
) -> Candidate:
    """A release whose difference explains the exit: configuration if it changed what the program reads, else the new image."""
    revision = steps[-1].revision if steps else f.revision
    baseline = case.history.baseline
    assert baseline is not None
    shown = "; ".join(d.shown for d in mine[:6])
    proof = case.saw_release(Introduced(f.revision, baseline), shown)
    several = len(steps) > 1
    marks = [Mark("only an exit", f.seen), Mark("one of several releases" if several else "introduced by this release", (proof,))]
    if contrast.separates_revisions:
        marks.append(Mark("previous revision serves", case.saw_serving(f)))
    if contrast.same_revision:
        marks.append(Mark("same revision serves"))
    if contrast.only_node:
        marks.append(Mark("one node only"))
    named = _named_by(f, logs, mine) if category is Category.BAD_CONFIGURATION else None
    if named:
        marks.append(Mark("log names it", (named,)))
    if dead and not _explains_host(mine, dead[0]):
        marks.append(Mark("log names a dead host", (dead[1],)))
    caps = [*_log_caps(f, logs)]
    if several:
        caps.append(Cap("C", f"{len(steps)} releases since {baseline.label} changed something that may explain it"))
    if category is Category.BAD_RELEASE and len(net) > len(mine):
        caps.append(Cap("C", "the release changed configuration as well, so the image alone is not shown to be at fault"))
    elif category is Category.BAD_CONFIGURATION and len(net) > len(mine) and not named:
        caps.append(Cap("C", "the release changed the image as well, and no log line tells which it is"))
    if contrast.same_revision:
        caps.append(Cap("C", f"{count(len(contrast.same_revision), 'pod')} of the same revision serve"))
    release = f"{_sentence(revision.label).rstrip('.')} of {case.name}"
    code = f"code {f.run.exit_code}" if f.run else "an error"
    what = (
        "only the image of"
        if category is Category.BAD_RELEASE and len(net) == len(mine)
        else "the image of"
        if category is Category.BAD_RELEASE
        else "what is read by"
    )
    praise = case.praise(baseline)
    return Candidate(
        category,
        case.title,
        f"{release} changed {what} container {f.container} ({safe(shown, 500)}), which exits with {code}. {_sentence(praise)}",
        f"{release} changed {_in_short(mine, category)}, and container {f.container} exits with {code}; {praise}.",
        case.release(revision),
        tuple(marks),
        inferred=0 if named else 1,
        counterfactual=case.history.proven(baseline),
        timing=True,
        caps=tuple(caps),
    )


def _in_short(mine: tuple[Difference, ...], category: Category) -> str:
    if category is Category.BAD_RELEASE:
        return f"the image ({safe(what_differs(word(mine[0].before), word(mine[0].after)), 200)})" if mine else "the image"
    aspects = dict.fromkeys(d.aspect.value for d in mine)
    names = [d.env_name for d in mine if d.env_name]
    return " and ".join(aspects) + (f" ({listed(names)})" if names else "")


def _named_by(f: CrashFinding, logs: LogReport, mine: tuple[Difference, ...]) -> Observation | None:
    """The line, or the runtime's message, that names a changed setting, argument or executable."""
    names = {d.env_name.lower(): d for d in mine if d.env_name}
    for clue in logs.named(Sign.SETTING):
        if clue.subject.lower() in names:
            return clue.seen
    arguments = {a for d in mine if d.aspect is Aspect.COMMAND for a in _argument_names(d.after)}
    for clue in logs.named(Sign.ARGUMENT, Sign.FILE):
        if clue.subject.lower() in arguments:
            return clue.seen
    for clue in logs.named(Sign.HOST):
        if any(_value_names(d, clue.subject) for d in mine):
            return clue.seen
    run = f.run
    if (
        run is not None
        and run.never_started
        and any(_executable(run.message) in _argument_names(d.after) for d in mine if d.aspect is Aspect.COMMAND)
    ):
        return f.seen[0] if f.seen else None
    return None


def _argument_names(value: object) -> set[str]:
    """The words of a command line, without dashes and values; they are compared, never shown."""
    texts = [v for v in value if isinstance(v, str)] if isinstance(value, list) else []
    return {part for text in texts for part in (text.lstrip("-").partition("=")[0].lower(), text.lower()) if part}


_EXECUTABLE = re.compile(r"exec: \\?\"([^\"\\]{1,200})\\?\"|stat (/[^\s:]{1,200}):")


def _executable(message: str) -> str:
    match = _EXECUTABLE.search(message)
    return next((g for g in match.groups() if g), "-").lower() if match else "-"


def _value_names(d: Difference, host: str) -> bool:
    """Whether the new value of an environment variable names that host. The value itself goes no further."""
    value = word(mapping(d.after).get("value")) if d.aspect is Aspect.ENVIRONMENT else ""
    return bool(host) and host.lower() in re.split(r"[^a-z0-9.-]", value.lower())


def _explains_host(mine: tuple[Difference, ...], title: str) -> bool:
    return any(_value_names(d, title.partition("/")[2]) for d in mine)


def _log_caps(f: CrashFinding, logs: LogReport) -> Iterator[Cap]:
    if (f.run is not None and f.run.never_started) or logs.read:
        return
    yield Cap("C", "an exit code alone tells little, and no log of the container was read")


def _first_release(case: Case, f: CrashFinding) -> Iterator[Candidate]:
    """Nothing to compare with. Only what the runtime says of the command itself can still be told."""
    run = f.run
    command = [
        v
        for c in objects(f.revision.pod_spec.get("containers"))
        if word(c.get("name")) == f.container
        for k in ("command", "args")
        for v in (c.get(k),)
    ]
    if run is None or not run.never_started or not any(_executable(run.message) in _argument_names(v) for v in command):
        return
    statement = f"The command of container {f.container} of {case.title} cannot be started ({safe(run.message, 300)})."
    yield Candidate(
        Category.BAD_CONFIGURATION,
        case.title,
        statement,
        statement,
        ChangeRef(kind="None"),
        (Mark("mechanism named", f.seen), Mark("no change seen")),
        inferred=0,
    )


def _refuted_release(case: Case, f: CrashFinding, why: str) -> Candidate:
    return Candidate(
        Category.BAD_RELEASE, case.title, f"{_sentence(f.revision.label).rstrip('.')} is at fault.", change=None, refuted=safe(why, 900)
    )


def _memory(case: Case, f: CrashFinding, contrast: Contrast) -> Iterator[Candidate]:
    if not f.memory_limit:
        return
    history = case.history
    path = _memory_path(f)
    found = history.brought_in(lambda t: _memory_of(t, f.container)) if case.is_current(f) else None
    marks = [Mark("mechanism named", f.seen)]
    change, summary, exact = (
        ChangeRef(kind="None"),
        f"Container {f.container} of {case.name} is killed at its memory limit of {safe(f.memory_limit, 60)}.",
        False,
    )
    if found and found.previous:
        shown = f"{path}: {word(found.before) or 'none'} → {f.memory_limit}"
        marks.append(Mark("introduced by this release", (case.saw_release(found, shown),)))
        change, exact = case.release(found.revision), case.history.proven(found.previous)
        summary = f"{_label(found)} of {case.name} set the memory limit of {f.container} from {safe(word(found.before) or 'none', 60)} to {safe(f.memory_limit, 60)}, at which it is killed{_and_before(case, found)}."
    elif (step := _brought_need(case, f)) is not None:
        shown = "; ".join(d.shown for d in step.explaining(EXPLAINS_EXIT)[:4])
        marks.append(Mark("introduced by this release", (case.saw_release(Introduced(step.revision, step.previous), shown),)))
        change = case.release(step.revision)
        summary = f"{summary.rstrip('.')} since {step.revision.label}, which left the limit as it was; {case.praise(step.previous)}."
    else:
        marks.append(Mark("no change seen"))
    if contrast.separates_revisions:
        marks.append(Mark("previous revision serves", case.saw_serving(f)))
    yield Candidate(
        Category.RESOURCE_LIMIT,
        case.title,
        f"Container {f.container} of {case.title} was killed (OOMKilled) at its memory limit of {safe(f.memory_limit, 60)}.",
        summary,
        change,
        tuple(marks),
        inferred=0 if exact else 1,
        counterfactual=exact,
        timing=change.kind == "Release",
    )


def _brought_need(case: Case, f: CrashFinding) -> Step | None:
    """The one release since the last proven revision that changed what may need more memory under the same limit."""
    history = case.history
    if not case.is_current(f) or history.lasted or history.baseline is None or not history.proven(history.baseline):
        return None
    net = _relevant(differences(history.baseline.template, f.revision.template), f.container, EXPLAINS_EXIT)
    steps = _steps_of(history.steps, net)
    return steps[0] if len(steps) == 1 else None


def _memory_path(f: CrashFinding) -> str:
    return f"spec.{'initContainers' if f.init else 'containers'}[{f.container}].resources.limits.memory"


def _memory_of(template: Mapping[str, Any], container: str) -> str:
    spec = mapping(template.get("spec"))
    every = (*objects(spec.get("initContainers")), *objects(spec.get("containers")))
    return next(
        (word(mapping(mapping(c.get("resources")).get("limits")).get("memory")) for c in every if word(c.get("name")) == container), ""
    )


def _edits(case: Case, f: CrashFinding, logs: LogReport, contrast: Contrast, dead: tuple[str, Observation] | None) -> Iterator[Candidate]:
    """ConfigMaps that the failing container reads: the one that changed at the right time, and the others refuted by their age."""
    spec = f.pods[0].spec if f.pods else f.revision.pod_spec
    names = dict.fromkeys(r.name for r in references(spec) if r.kind == "ConfigMap" and r.container in ("", f.container))
    edits = [e for n in names if (e := _edit_of(case, n)) is not None]
    good = _good_since(case, contrast)
    if good is None:
        return
    fitting = [e for e in edits if not _misfit(case, e, good)]
    for edit in edits[:8]:
        if why := _misfit(case, edit, good):
            yield Candidate(
                Category.BAD_CONFIGURATION, edit.obj.title, f"A change of {edit.obj.title} is at fault.", refuted=safe(why, 900)
            )
        else:
            yield _edited(case, f, logs, contrast, dead, edit, len(fitting))


def _misfit(case: Case, edit: Edit, good: datetime) -> str:
    """Why this edit cannot be it, by the order of time; empty when it fits: edited after what still works began, before the first failure."""
    now, onset = case.scene.now, case.report.onset
    if onset is not None and edit.at > onset + _SLACK:
        return f"{edit.obj.title} changed {span(edit.at - onset)} after the first failure"
    if edit.at <= good:
        return f"{edit.obj.title} is unchanged for {span(now - edit.at)}, since before pods that work or worked began"
    return ""


def _good_since(case: Case, contrast: Contrast) -> datetime | None:
    """When what serves now had all started; without serving pods, when the last revision known to be good was released."""
    births = [p.birth for p in (*contrast.same_revision, *contrast.other_revisions) if p.birth]
    if births:
        return max(births)
    if case.history.lasted:
        return case.history.chain[0].released
    baseline = case.history.baseline
    return baseline.released if baseline and case.history.proven(baseline) else None


def _edited(
    case: Case, f: CrashFinding, logs: LogReport, contrast: Contrast, dead: tuple[str, Observation] | None, edit: Edit, fitting: int
) -> Candidate:
    title, by = edit.obj.title, safe(edit.by, 120)
    verb = "was created" if edit.created else "changed"
    proof = seen(
        case.scene.listing("ConfigMap"),
        f"{title} {verb} at {edit.at.isoformat()}, claimed by {by or 'nobody'} (managedFields)",
        Channel.CHANGE,
    )
    marks = [Mark("only an exit", f.seen), Mark("edited before it began" if fitting == 1 else "edited together with others", (proof,))]
    serving = (*contrast.same_revision, *contrast.other_revisions)
    if serving:
        marks.append(
            Mark(
                "started earlier serves",
                (
                    seen(
                        case.scene.listing("Pod"), f"{count(len(serving), 'pod')} that started before the edit are Ready", Channel.CONTRAST
                    ),
                ),
            )
        )
    named = next((c.seen for c in logs.named(Sign.SETTING, Sign.FILE) if _about_config(case, f, edit, c.subject)), None)
    if named:
        marks.append(Mark("log names it", (named,)))
    if dead:
        marks.append(Mark("log names a dead host", (dead[1],)))
    ago = clock(edit.at)
    code = f"code {f.run.exit_code}" if f.run else "an error"
    return Candidate(
        Category.BAD_CONFIGURATION,
        title,
        f"{title}, which container {f.container} of {case.title} reads, {verb} {ago}, before the container began to exit with {code}.",
        f"{title} {verb} {ago}, and {case.name}, which reads it, exits with {code} since then.",
        ChangeRef(kind="Edit", at=edit.at, by=by),
        tuple(marks),
        inferred=1 if named or serving else 2,
        timing=True,
        caps=tuple(_log_caps(f, logs)),
    )


def _about_config(case: Case, f: CrashFinding, edit: Edit, subject: str) -> bool:
    """Whether a setting that a log line names belongs to that ConfigMap: it is a key of it, or its missing environment variable."""
    data = mapping(edit.obj.raw.get("data"))
    if any(subject.lower() in k.lower() or k.lower() in subject.lower() for k in data if isinstance(k, str) and len(k) > 2):
        return True
    env = {
        word(e.get("name"))
        for c in objects(f.revision.pod_spec.get("containers"))
        if word(c.get("name")) == f.container
        for e in objects(c.get("env"))
    }
    return subject not in env and any(r.path.endswith(".envFrom") and r.name == edit.obj.name for r in references(f.revision.pod_spec))
