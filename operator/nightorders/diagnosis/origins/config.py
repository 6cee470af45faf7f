"""Origins in a ConfigMap: edited after what still works began, before the first failure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..changes import Edit, edit_of
from ..contrast import Contrast
from ..evidence import Channel, Observation, safe, seen
from ..findings import CrashFinding, Finding
from ..hypotheses import Candidate, Cap, Mark
from ..read import clock, count, mapping, objects, word
from ..references import references
from ..specialists.logs import Clue, LogReport, Sign
from . import clues
from .common import container_of, effect_of, relevant
from .timing import good_since, misfit, saw_edit
from .values import Value, addresses, mounts

MOST_CONFIG_MAPS = 8
_QUOTES = re.compile(r"[\"'`]([^\"'`\n]{1,120})[\"'`]")


def edit_origins(case: Case, f: Finding, logs: LogReport, contrast: Contrast, dead: tuple[str, Observation] | None) -> Iterator[Candidate]:
    """ConfigMaps that the failing container reads: those that changed at the right time, and the others refuted by their age."""
    good = good_since(case, contrast)
    if good is None:
        return
    spec = f.pods[0].spec if f.pods else f.revision.pod_spec
    names = dict.fromkeys(r.name for r in references(spec) if r.kind == "ConfigMap" and r.container in ("", f.container))
    edits = [e for n in names if (e := edit_of(case.scene, n)) is not None]
    fitting = [e for e in edits if not misfit(f.onset, e, good)]
    for edit in edits[:MOST_CONFIG_MAPS]:
        if why := misfit(f.onset, edit, good):
            yield _refuted(case, edit, why)
        else:
            yield _edited(case, f, logs, contrast, dead, edit, alone=len(fitting) == 1)


def _refuted(case: Case, edit: Edit, why: str) -> Candidate:
    proof = saw_edit(case, edit)
    statement = f"A change of {edit.obj.title} is at fault."
    return Candidate(
        Category.BAD_CONFIGURATION, edit.obj.title, statement, marks=(Mark("no change seen", (proof,)),), refuted=safe(why, 900)
    )


def _edited(
    case: Case, f: Finding, logs: LogReport, contrast: Contrast, dead: tuple[str, Observation] | None, edit: Edit, *, alone: bool
) -> Candidate:
    title, serving = edit.obj.title, (*contrast.same_revision, *contrast.other_revisions)
    telling = next((c for c in logs.clues if _about(f, edit, c)), None)
    named = telling.seen if telling else None
    lacks = telling is not None and lacking(f, edit, telling)
    marks = [
        Mark("only an exit" if isinstance(f, CrashFinding) else "state fits", f.seen),
        Mark("edited before it began" if alone else "edited together with others", (saw_edit(case, edit),)),
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
    effect = effect_of(f)
    return Candidate(
        Category.BAD_CONFIGURATION,
        title,
        f"{title}, which container {f.container} of {case.title} reads, {verb} {clock(edit.at)}, "
        f"before the first failure; the container {effect}.",
        f"{title} {verb} {clock(edit.at)}, and {case.name}, which reads it, {effect} since then.",
        ChangeRef(kind="Edit", at=edit.at, by=safe(edit.by, 200)),
        tuple(marks),
        inferred=0 if named and serving and lacks else 1 if named or serving else 2,
        counterfactual=lacks and alone and _same_settings(case, f, contrast),
        timing=True,
        caps=tuple(caps),
    )


def _same_settings(case: Case, f: Finding, contrast: Contrast) -> bool:
    """Whether pods with the very same settings serve, so that nothing but the edit and the start tells them from the failing ones."""
    if contrast.same_revision:
        return True
    before = [r for r in case.history.chain if r.uid in case.history.serving and r is not f.revision]
    return bool(before) and all(not relevant(r, f.revision, f.container) for r in before)


def _about(f: Finding, edit: Edit, clue: Clue) -> bool:
    """Whether what a log line names belongs to that ConfigMap: a key of it, a file or a host in it, or a value that stands there."""
    name, data = clue.subject.lower(), mapping(edit.obj.raw.get("data"))
    if clue.sign in (Sign.SETTING, Sign.FILE) and name:
        if any(name in k.lower() or k.lower() in name for k in data if isinstance(k, str) and len(k) > 2):
            return True
        if clue.sign is Sign.FILE:
            return any(path and name.startswith(path.lower()) for path in _paths(f, edit))
        return lacking(f, edit, clue)
    if clue.sign in (Sign.HOST, Sign.NAME, Sign.UPSTREAM) and name:
        values = (Value(edit.obj.title, k, k, v) for k, v in data.items() if isinstance(k, str) and isinstance(v, str))
        return any(a.host in (name, name.partition(".")[0]) for v in values for a in addresses(v))
    return clue.sign is Sign.SETTING and bool(_quoted(clue.seen.text) & {v.strip() for v in data.values() if isinstance(v, str)})


def lacking(f: Finding, edit: Edit, clue: Clue) -> bool:
    """Whether the line names a setting that the container can have only from that ConfigMap, and that is not in it (any more)."""
    name, data = clue.subject, mapping(edit.obj.raw.get("data"))
    if clue.sign is Sign.FILE:
        return any(name.startswith(f"{path}/") and name.removeprefix(f"{path}/") not in data for path in _paths(f, edit) if path)
    if clue.sign is not Sign.SETTING or not name:
        return False
    c = container_of({"spec": f.revision.pod_spec}, f.container)
    sources = {word(e.get("name")).lower(): mapping(mapping(e.get("valueFrom")).get("configMapKeyRef")) for e in objects(c.get("env"))}
    ref = sources.get(name.lower())
    if ref is not None:
        return word(ref.get("name")) == edit.obj.name and word(ref.get("key")) not in data
    whole = [word(mapping(s.get("configMapRef")).get("name")) for s in objects(c.get("envFrom"))]
    return edit.obj.name in whole and name.lower() not in {k.lower() for k in data if isinstance(k, str)}


def _paths(f: Finding, edit: Edit) -> list[str]:
    """Where the container mounts that ConfigMap."""
    c = container_of({"spec": f.revision.pod_spec}, f.container)
    return [path.rstrip("/") for path, name, _ in mounts(c, f.revision.pod_spec) if name == edit.obj.name]


def _quoted(text: str) -> frozenset[str]:
    """What stands in quotation marks in a line, if it is long enough to be no accident."""
    return frozenset(m for m in _QUOTES.findall(text) if len(m) >= 3)
