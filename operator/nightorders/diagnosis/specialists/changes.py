"""The changes specialist: what changed near the target, newest first, with the time that it led the symptom."""

from __future__ import annotations

from datetime import datetime

from ...api.v1alpha1.incident import Change
from ..changes import Aspect, History, differences, last_edit, released_by
from ..evidence import safe
from ..read import count
from ..references import references
from ..scene import Revision, Scene

MOST_CHANGES = 16
_RELEASES = 5
_FIELDS = 6


def recent(scene: Scene, history: History, onset: datetime | None) -> tuple[Change, ...]:
    """Releases of the workload and edits of the ConfigMaps that it reads."""
    found = [*_releases(history, onset), *_config(scene, history, onset)]
    return tuple(sorted(found, key=lambda c: (c.at, c.object), reverse=True)[:MOST_CHANGES])


def describe(newer: Revision, older: Revision | None) -> str:
    """What a release changed, without values that may be secret."""
    if older is None:
        return f"{newer.label}: nothing older is left to compare with"
    told = [d for d in differences(older.template, newer.template) if d.aspect is not Aspect.METADATA]
    if not told:
        return f"{newer.label}: only labels or annotations against {older.label}"
    more = f" and {count(len(told) - _FIELDS, 'more field')}" if len(told) > _FIELDS else ""
    return f"{newer.label} against {older.label}: " + "; ".join(d.shown for d in told[:_FIELDS]) + more


def _releases(history: History, onset: datetime | None) -> list[Change]:
    found: list[Change] = []
    for i, revision in enumerate(history.chain[:_RELEASES]):
        older = history.chain[i + 1] if i + 1 < len(history.chain) else None
        if revision.released is not None:
            by = safe(released_by(history.workload, revision), 200)
            found.append(_change(history.workload.title, revision.released, by, describe(revision, older), onset))
    return found


def _config(scene: Scene, history: History, onset: datetime | None) -> list[Change]:
    template = history.current.pod_spec if history.current else {}
    wanted = {r.name for r in references(template) if r.kind == "ConfigMap"}
    found: list[Change] = []
    for obj in scene.all("ConfigMap"):
        if obj.name in wanted and (edit := last_edit(obj)) is not None:
            what = "created" if edit.created else "its data changed (managedFields)"
            found.append(_change(obj.title, edit.at, safe(edit.by, 200), what, onset))
    return found


def _change(title: str, at: datetime, by: str, what: str, onset: datetime | None) -> Change:
    led = int((onset - at).total_seconds()) if onset is not None and onset >= at else None
    return Change(object=safe(title, 256), at=at, by=by, what=safe(what), seconds_before_symptom=led)
