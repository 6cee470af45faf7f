"""Edits of ConfigMaps in time: change, then the start that makes it count, then the first failure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..changes import Edit, edit_of
from ..contrast import Contrast
from ..evidence import Channel, Observation, safe, seen
from ..findings import Finding
from ..hypotheses import Mark
from ..read import clock, count, latest, span

# An edit a little after the first sign may still be the cause: conditions have whole seconds, and kubelets notice late.
SLACK = timedelta(seconds=60)


@dataclass(frozen=True)
class Timed:
    """An edit that lies between the last thing known to have worked and the first failure."""

    edit: Edit
    marks: tuple[Mark, ...]

    @property
    def at(self) -> datetime:
        return self.edit.at

    @property
    def change(self) -> ChangeRef:
        return ChangeRef(kind="Edit", at=self.edit.at, by=safe(self.edit.by, 200))


def timed_edit(case: Case, f: Finding, contrast: Contrast, config_map: str) -> Timed | None:
    """The last edit of that ConfigMap, if it fits in time; None also where nothing is known to have worked before."""
    good, edit = good_since(case, contrast), edit_of(case.scene, config_map)
    if good is None or edit is None or edit.created or misfit(f.onset, edit, good):
        return None
    marks = [Mark("edited before it began", (saw_edit(case, edit),))]
    if serving := (*contrast.same_revision, *contrast.other_revisions):
        text = f"{count(len(serving), 'pod')} that started before the edit are Ready"
        marks.append(Mark("started earlier serves", (seen(case.scene.listing("Pod"), text, Channel.CONTRAST),)))
    return Timed(edit, tuple(marks))


def good_since(case: Case, contrast: Contrast) -> datetime | None:
    """Up to when everything is known to have worked: what serves now had started, or the rollout was complete, or a good release began."""
    births = [p.birth for p in (*contrast.same_revision, *contrast.other_revisions) if p.birth]
    if births:
        return max(births)
    baseline, current = case.history.baseline, case.history.current
    released = current.released if current and case.history.lasted else None
    before = baseline.released if baseline and case.history.proven(baseline) else None
    return latest(case.workload.completed_at, released) or before


def misfit(onset: datetime | None, edit: Edit, good: datetime) -> str:
    """Why this edit cannot be it, by the order of time; empty when it fits."""
    if onset is not None and edit.at > onset + SLACK:
        return f"{edit.obj.title} changed {span(edit.at - onset)} after the first failure"
    if edit.at <= good:
        return f"{edit.obj.title} is unchanged since {clock(edit.at)[3:]}, and pods worked with it after that"
    return ""


def saw_edit(case: Case, edit: Edit) -> Observation:
    """The edit, as the field managers tell it."""
    verb = "was created" if edit.created else "changed"
    by = safe(edit.by, 120) or "nobody"
    text = f"{edit.obj.title} last {verb} {clock(edit.at)}, claimed by {by} (managedFields)"
    return seen(case.scene.listing("ConfigMap"), text, Channel.CHANGE)
