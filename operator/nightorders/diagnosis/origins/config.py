"""Origins in a ConfigMap: edited after what still works began, before the first failure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..changes import Edit, edit_of
from ..contrast import Contrast
from ..evidence import Channel, Observation, safe, seen
from ..findings import CrashFinding
from ..hypotheses import Candidate, Cap, Mark
from ..read import clock, count, latest, mapping, objects, span, word
from ..references import references
from ..specialists.logs import LogReport, Sign
from . import clues
from .common import container_of

MOST_CONFIG_MAPS = 8
# An edit a little after the first sign may still be the cause: conditions have whole seconds, and kubelets notice late.
_SLACK = timedelta(seconds=60)


def edit_origins(
    case: Case, f: CrashFinding, logs: LogReport, contrast: Contrast, dead: tuple[str, Observation] | None
) -> Iterator[Candidate]:
    """ConfigMaps that the failing container reads: those that changed at the right time, and the others refuted by their age."""
    good = _good_since(case, contrast)
    if good is None:
        return
    spec = f.pods[0].spec if f.pods else f.revision.pod_spec
    names = dict.fromkeys(r.name for r in references(spec) if r.kind == "ConfigMap" and r.container in ("", f.container))
    edits = [e for n in names if (e := edit_of(case.scene, n)) is not None]
    fitting = [e for e in edits if not _misfit(f, e, good)]
    for edit in edits[:MOST_CONFIG_MAPS]:
        if why := _misfit(f, edit, good):
            yield _refuted(case, edit, why)
        else:
            yield _edited(case, f, logs, contrast, dead, edit, alone=len(fitting) == 1)


def _good_since(case: Case, contrast: Contrast) -> datetime | None:
    """Up to when everything is known to have worked: what serves now had started, or the rollout was complete, or a good release began."""
    births = [p.birth for p in (*contrast.same_revision, *contrast.other_revisions) if p.birth]
    if births:
        return max(births)
    baseline, current = case.history.baseline, case.history.current
    released = current.released if current and case.history.lasted else None
    before = baseline.released if baseline and case.history.proven(baseline) else None
    return latest(case.workload.completed_at, released) or before


def _misfit(f: CrashFinding, edit: Edit, good: datetime) -> str:
    """Why this edit cannot be it, by the order of time; empty when it fits."""
    if f.onset is not None and edit.at > f.onset + _SLACK:
        return f"{edit.obj.title} changed {span(edit.at - f.onset)} after the first failure"
    if edit.at <= good:
        return f"{edit.obj.title} is unchanged since {clock(edit.at)[3:]}, and pods worked with it after that"
    return ""


def _refuted(case: Case, edit: Edit, why: str) -> Candidate:
    proof = _saw_edit(case, edit)
    statement = f"A change of {edit.obj.title} is at fault."
    return Candidate(
        Category.BAD_CONFIGURATION, edit.obj.title, statement, marks=(Mark("no change seen", (proof,)),), refuted=safe(why, 900)
    )


def _saw_edit(case: Case, edit: Edit) -> Observation:
    verb = "was created" if edit.created else "changed"
    by = safe(edit.by, 120) or "nobody"
    text = f"{edit.obj.title} last {verb} {clock(edit.at)}, claimed by {by} (managedFields)"
    return seen(case.scene.listing("ConfigMap"), text, Channel.CHANGE)


def _edited(
    case: Case, f: CrashFinding, logs: LogReport, contrast: Contrast, dead: tuple[str, Observation] | None, edit: Edit, *, alone: bool
) -> Candidate:
    title, serving = edit.obj.title, (*contrast.same_revision, *contrast.other_revisions)
    named = next((c.seen for c in logs.named(Sign.SETTING, Sign.FILE) if _about(f, edit, c.subject)), None)
    marks = [
        Mark("only an exit", f.seen),
        Mark("edited before it began" if alone else "edited together with others", (_saw_edit(case, edit),)),
    ]
    caps = list(clues.log_caps(f, logs))
    if serving:
        text = f"{count(len(serving), 'pod')} that started before the edit are Ready"
        marks.append(Mark("started earlier serves", (seen(case.scene.listing("Pod"), text, Channel.CONTRAST),)))
    if named:
        marks.append(Mark("log names it", (named,)))
    if dead:
        marks.append(Mark("log names a dead host", (dead[1],)))
        caps.append(Cap("C", "a log line names a Service that has no ready endpoint"))
    verb = "was created" if edit.created else "changed"
    code = f"code {f.run.exit_code}" if f.run else "an error"
    return Candidate(
        Category.BAD_CONFIGURATION,
        title,
        f"{title}, which container {f.container} of {case.title} reads, {verb} {clock(edit.at)}, before it began to exit with {code}.",
        f"{title} {verb} {clock(edit.at)}, and {case.name}, which reads it, exits with {code} since then.",
        ChangeRef(kind="Edit", at=edit.at, by=safe(edit.by, 200)),
        tuple(marks),
        inferred=1 if named or serving else 2,
        timing=True,
        caps=tuple(caps),
    )


def _about(f: CrashFinding, edit: Edit, subject: str) -> bool:
    """Whether a setting that a log line names belongs to that ConfigMap: it is like a key of it, or missing where all its keys go."""
    name = subject.lower()
    if any(name in k.lower() or k.lower() in name for k in mapping(edit.obj.raw.get("data")) if isinstance(k, str) and len(k) > 2):
        return True
    env = {word(e.get("name")).lower() for e in objects(container_of(f.revision.template, f.container).get("env"))}
    whole = any(r.path.endswith(".envFrom") and r.name == edit.obj.name for r in references(f.revision.pod_spec))
    return whole and name not in env
