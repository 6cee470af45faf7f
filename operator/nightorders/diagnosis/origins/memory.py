"""Origins of an OOM kill: the limit, lowered by a release or too low for what a release needs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..changes import EXPLAINS_EXIT, Introduced, Step, differences
from ..evidence import safe
from ..findings import CrashFinding
from ..hypotheses import Candidate, Mark
from ..read import mapping, word
from .common import and_before, container_of, release_of

_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([EPTGMk]i?|Ki|m)?")
_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60}


def memory_origins(case: Case, f: CrashFinding) -> Iterator[Candidate]:
    """Without a limit of its own the container was the node's victim: another class, so nothing is named."""
    if not f.memory_limit:
        return
    limit = safe(f.memory_limit, 60)
    found, step = _lowered(case, f), _needs_more(case, f)
    plain = f"container {f.container} is killed at its memory limit of {limit}"
    change, exact, summary = ChangeRef(kind="None"), False, f"In {case.name}, {plain}."
    marks = [Mark("mechanism named", f.seen)]
    if found and found.previous:
        before = safe(word(found.before) or "none", 60)
        proof = case.saw_release(found, f"memory limit of container {f.container}: {before} → {limit}")
        marks.append(Mark("introduced by this release", (proof,)))
        change, exact = case.release(found.revision), case.history.proven(found.previous)
        release = release_of(case, found.revision)
        summary = f"{release} set the memory limit of {f.container} from {before} to {limit}, where it is killed{and_before(case, found)}."
    elif step:
        shown = "; ".join(d.shown for d in step.explaining(EXPLAINS_EXIT)[:4])
        marks.append(Mark("introduced by this release", (case.saw_release(Introduced(step.revision, step.previous), shown),)))
        change = case.release(step.revision)
        summary = f"Since {step.revision.label} of {case.name}, which kept the limit, {plain}; {case.praise(step.previous)}."
    else:
        marks.append(Mark("no change seen"))
    if case.contrast(f).separates_revisions:
        marks.append(Mark("previous revision serves", case.saw_serving(f)))
    yield Candidate(
        Category.RESOURCE_LIMIT,
        case.title,
        f"Container {f.container} of {case.title} was killed (OOMKilled) at its memory limit of {limit}.",
        summary,
        change,
        tuple(marks),
        inferred=0 if exact else 1,
        counterfactual=exact,
        timing=change.kind == "Release",
    )


def _lowered(case: Case, f: CrashFinding) -> Introduced | None:
    """The release that lowered the limit, or set the first one; one that raised it is not what kills."""
    if not case.is_current(f):
        return None
    found = case.history.brought_in(lambda t: _limit(t, f.container), needed_to_start=False)
    if found is None:
        return None
    before, now = quantity(word(found.before)), quantity(f.memory_limit)
    return None if before is not None and now is not None and before <= now else found


def _needs_more(case: Case, f: CrashFinding) -> Step | None:
    """The one release since the last proven revision that changed what may need more memory under the same limit."""
    history, baseline = case.history, case.history.baseline
    if not case.is_current(f) or history.lasted or baseline is None or not history.proven(baseline):
        return None
    net = [d for d in differences(baseline.template, f.revision.template) if d.aspect in EXPLAINS_EXIT and d.container in ("", f.container)]
    steps = [s for s in history.steps if any(x.path == d.path for d in net for x in s.differences)]
    return steps[0] if len(steps) == 1 else None


def _limit(template: Mapping[str, Any], container: str) -> str:
    return word(mapping(mapping(container_of(template, container).get("resources")).get("limits")).get("memory"))


def quantity(text: str) -> float | None:
    """A Kubernetes quantity as a number; None for what is none."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    unit = match.group(2) or ""
    return float(match.group(1)) * (_BINARY.get(unit) or _UNITS.get(unit) or 1.0)
