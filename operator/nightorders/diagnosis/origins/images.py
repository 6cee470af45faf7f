"""Origins of an image that cannot be pulled."""

from __future__ import annotations

from collections.abc import Iterator

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..changes import Introduced
from ..contrast import Contrast, ImageUse, image_use
from ..evidence import Channel, safe, seen
from ..findings import ImageFinding
from ..hypotheses import Candidate, Cap, Mark
from ..images import ANSWERED, PASSING, PullError, what_differs
from ..read import count, sentence, word
from ..views import Pod
from .common import and_before, container_of, node_origin, release_of

_WHAT = {
    PullError.NOT_FOUND: "an image that does not exist",
    PullError.INVALID_NAME: "an image whose name is not valid",
    PullError.UNAUTHORIZED: "an image that the registry refuses to give",
    PullError.DENIED_OR_ABSENT: "an image that the registry refuses or does not have",
    PullError.NO_SUCH_HOST: "an image in a registry that nobody knows",
    PullError.PLATFORM: "an image that does not exist for these machines",
}


def image_origins(case: Case, f: ImageFinding) -> tuple[Candidate, ...]:
    """The reference in the template, brought in by a release or not; and the node."""
    contrast, use = case.contrast(f), image_use(case.scene, f.image, f.pods)
    found = None
    if case.is_current(f):
        found = case.history.brought_in(lambda t: word(container_of(t, f.container).get("image")), needed_to_start=True)
    runs = tuple(p for p in use.running if p.node not in contrast.failing_nodes) or use.running
    origin = Candidate(
        Category.IMAGE_ACCESS,
        case.title,
        _statement(case, f, found, use, runs),
        _summary(case, f, found),
        case.release(found.revision) if found else ChangeRef(kind="None"),
        tuple(_marks(case, f, found, contrast, use, runs)),
        inferred=0 if f.error in ANSWERED or f.error is PullError.NO_SUCH_HOST else 1,
        counterfactual=found is not None and found.previous is not None and case.history.proven(found.previous),
        timing=found is not None,
        caps=tuple(_caps(f, use, runs)),
    )
    return (origin, *node_origin(case, f, contrast))


def _marks(
    case: Case, f: ImageFinding, found: Introduced | None, contrast: Contrast, use: ImageUse, runs: tuple[Pod, ...]
) -> Iterator[Mark]:
    yield Mark("mechanism likely" if f.error is PullError.UNKNOWN else "mechanism named", f.seen)
    if found:
        shown = f"image of container {f.container}: {word(found.before) or 'none'} → {f.image}"
        yield Mark("introduced by this release", (case.saw_release(found, shown),))
    else:
        yield Mark("no change seen")
    if contrast.separates_revisions:
        yield Mark("previous revision serves", case.saw_serving(f))
    if runs:
        where = ", ".join(f"{p.name} on {p.node or 'no node'}" for p in runs[:3])
        yield Mark("same image runs", (seen(case.scene.listing("Pod"), f"image {f.image} runs in {where}", Channel.CONTRAST),))
    if contrast.only_node and f.error not in ANSWERED:
        yield Mark("one node only")
    if _registry_suspect(f, use):
        yield Mark("registry fails elsewhere")


def _registry_suspect(f: ImageFinding, use: ImageUse) -> bool:
    """Other images of that registry fail too. (Two wrong tags are two wrong tags.)"""
    return bool(use.registry_fails) and f.error not in (PullError.NOT_FOUND, PullError.INVALID_NAME)


def _caps(f: ImageFinding, use: ImageUse, runs: tuple[Pod, ...]) -> Iterator[Cap]:
    if runs:
        yield Cap("C", f"the very same image runs in {count(len(runs), 'other pod')}: the tag, the registry or a node changed since")
    if _registry_suspect(f, use):
        yield Cap("C", f"other images of that registry fail too ({count(len(use.registry_fails), 'pod')})")
    if f.error in PASSING:
        yield Cap("C", f"{f.error.value}, which can pass by itself")


def _statement(case: Case, f: ImageFinding, found: Introduced | None, use: ImageUse, runs: tuple[Pod, ...]) -> str:
    parts = [f"Container {f.container} of {case.title} names image {safe(f.image, 300)}; {f.error.value}."]
    if found and word(found.before):
        parts.append(f"{release_of(case, found.revision)} changed {safe(what_differs(word(found.before), f.image), 300)}.")
    if found and found.previous and case.history.proven(found.previous):
        parts.append(sentence(case.praise(found.previous)))
    if _registry_suspect(f, use):
        parts.append("Other images of the same registry fail too, so the registry or its credentials may be at fault.")
    if runs:
        parts.append(f"The very same image runs in {count(len(runs), 'other pod')}.")
    return " ".join(parts)


def _summary(case: Case, f: ImageFinding, found: Introduced | None) -> str:
    what = _WHAT.get(f.error, "an image that cannot be pulled")
    if found is None:
        return f"Pods of {case.name} need {what}; no release of it explains that."
    return f"{release_of(case, found.revision)} names {what}{and_before(case, found)}."
