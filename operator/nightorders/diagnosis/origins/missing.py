"""Origins of a reference that leads nowhere: the referrer if the reference is new, the absent object if it is old."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..changes import Introduced, edit_of
from ..evidence import Channel, Observation, safe
from ..findings import MissingFinding
from ..hypotheses import Candidate, Cap, Mark
from ..read import mapping, sentence
from ..references import references
from ..scene import Revision
from .common import and_before, release_of


def missing_origins(case: Case, f: MissingFinding) -> tuple[Candidate, ...]:
    """Both readings, the likelier first."""
    found = case.history.brought_in(lambda t: _refers(t, f), needed_to_start=True) if case.is_current(f) else None
    if found and found.previous:
        return _new_reference(case, f, found, found.previous)
    return _old_reference(case, f)


def _what(f: MissingFinding) -> str:
    return f"key {f.reference.key} of {f.reference.title}" if f.key_only else f.reference.title


def _base(f: MissingFinding, title: str, statement: str) -> Candidate:
    caps = () if f.proved else (Cap("B", f"{f.reference.title} was not looked at; kubelet's message is the only evidence"),)
    mark = Mark("mechanism named" if f.proved else "mechanism likely", f.seen)
    return Candidate(
        Category.MISSING_OBJECT, title, statement, change=ChangeRef(kind="None"), marks=(mark,), inferred=0 if f.proved else 1, caps=caps
    )


def _referrer(case: Case, f: MissingFinding) -> Candidate:
    return _base(f, case.title, f"{case.title} needs {_what(f)} ({f.reference.path}), which does not exist.")


def _absent(case: Case, f: MissingFinding) -> Candidate:
    what = sentence(_what(f)).rstrip(".")
    return _base(f, f.reference.title, f"{what} does not exist; {case.title} needs it ({f.reference.path}).")


def _refers(template: Mapping[str, Any], f: MissingFinding) -> bool:
    ref = f.reference
    return any(
        r.kind == ref.kind and r.name == ref.name and not r.optional and (not f.key_only or r.key == ref.key)
        for r in references(mapping(template.get("spec")))
    )


def _new_reference(case: Case, f: MissingFinding, found: Introduced, previous: Revision) -> tuple[Candidate, ...]:
    """The release began to refer to it: the referrer is at fault; that the object was forgotten is the other reading."""
    referrer, absent, what = _referrer(case, f), _absent(case, f), _what(f)
    marks = [
        *referrer.marks,
        Mark("introduced by this release", (case.saw_release(found, f"{f.reference.path} refers to {what}; before it did not"),)),
    ]
    if case.contrast(f).separates_revisions:
        marks.append(Mark("previous revision serves", case.saw_serving(f)))
    release = release_of(case, found.revision)
    changed = replace(
        referrer,
        statement=f"{release} refers to {what} ({f.reference.path}), which does not exist; {previous.label} did not refer to it.",
        summary=f"{release} needs {what}, which does not exist{and_before(case, found)}.",
        change=case.release(found.revision),
        marks=tuple(marks),
        counterfactual=case.history.proven(previous),
        timing=True,
    )
    forgotten = replace(absent, caps=(*absent.caps, Cap("C", "the reference is new, and nothing shows that the object ever existed")))
    return (changed, forgotten)


def _old_reference(case: Case, f: MissingFinding) -> tuple[Candidate, ...]:
    """Older revisions needed it too, so it is the absent object that one would put back."""
    absent, referrer = _absent(case, f), _referrer(case, f)
    other = replace(
        referrer,
        marks=(Mark("mechanism likely", f.seen), Mark("no change seen")),
        caps=(*referrer.caps, Cap("C", "the reference did not change, as far as templates tell")),
    )
    ran = _ran_with_it(case, f)
    what = sentence(_what(f)).rstrip(".")
    if ran is None:
        unknown = replace(
            absent,
            statement=f"{absent.statement} Nothing tells whether it ever existed.",
            summary=f"{what}, which {case.name} needs, does not exist.",
            marks=(*absent.marks, Mark("no change seen")),
            caps=(*absent.caps, Cap("B", "nothing shows that it existed before, so the reference may be the mistake")),
        )
        return (unknown, other)
    health = case.saw_health(ran)
    proof = Observation(Channel.CHANGE, health.source, health.query, health.at, f"{ran.label} needs it too and has run: {health.text}")
    gone = replace(
        absent,
        statement=f"{absent.statement} It existed before: {ran.label} needs it too and has run.",
        summary=f"{what}, which {case.name} needs, does not exist any more.",
        change=_went(case, f),
        marks=(*absent.marks, Mark("existed before", (proof,))),
        counterfactual=True,
    )
    return (gone, other)


def _ran_with_it(case: Case, f: MissingFinding) -> Revision | None:
    """A revision that needs it and has run: proof that it existed."""
    needing = [r for r in case.history.chain if _refers(r.template, f)]
    worked = case.history.lasted or case.workload.completed_once
    return next((r for r in needing if case.history.proven(r) or (worked and r is case.history.current)), None)


def _went(case: Case, f: MissingFinding) -> ChangeRef:
    """A deletion leaves no time behind; a dropped key is an edit of what is left."""
    if not f.key_only:
        return ChangeRef(kind="Deletion")
    edit = edit_of(case.scene, f.reference.name) if f.reference.kind == "ConfigMap" else None
    return ChangeRef(kind="Edit", at=edit.at, by=safe(edit.by, 200)) if edit else ChangeRef(kind="None")
