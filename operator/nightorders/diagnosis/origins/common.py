"""What the makers of candidates share: words, and the node as the obvious other thought."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...api.v1alpha1.common import Category
from ..case import Case
from ..changes import EXPLAINS_EXIT, Difference, Introduced, differences
from ..contrast import Contrast
from ..evidence import Channel, safe, seen
from ..findings import CrashFinding, Finding, Trouble
from ..hypotheses import Candidate, Mark
from ..read import count, listed, mapping, objects, word
from ..scene import Revision
from ..views import Run


def release_of(case: Case, revision: Revision) -> str:
    """`Release 7 of checkout`."""
    return f"{revision.label[:1].upper()}{revision.label[1:]} of {case.name}"


def and_before(case: Case, found: Introduced) -> str:
    """`; release 6 was healthy for 6 d`."""
    return f"; {case.praise(found.previous)}" if found.previous else ""


def container_of(template: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The container of that name in a pod template, init containers included; empty when there is none."""
    spec = mapping(template.get("spec"))
    every = (*objects(spec.get("initContainers")), *objects(spec.get("containers")))
    return next((c for c in every if word(c.get("name")) == name), {})


def node_origin(case: Case, f: Finding, contrast: Contrast) -> tuple[Candidate, ...]:
    """The node as the origin: an obvious thought, which the contrast usually refutes. One pod alone says too little for it."""
    nodes = sorted(contrast.failing_nodes)
    if not nodes or not case.is_current(f):
        return ()
    title, pods = f"Node/{nodes[0]}", case.scene.listing("Pod")
    if contrast.only_node:
        if len(f.pods) < 2:
            return ()
        serving = listed(sorted({p.node for p in contrast.same_revision if p.node}))
        where = f"{count(len(f.pods), 'pod')} fail on {title} and nowhere else"
        statement = f"{where}; pods of the same revision serve on {serving}. The node may be at fault."
        proof = seen(pods, f"pods of {f.revision.label} Ready on {serving}; failing on {nodes[0]} only", Channel.CONTRAST)
        return (Candidate(Category.UNKNOWN, title, statement, marks=(Mark("works on other nodes", (proof,)),), inferred=2, timing=True),)
    if len(nodes) > 1:
        why = f"it fails on {len(nodes)} nodes ({listed(nodes)})"
    elif contrast.shared_nodes:
        why = f"healthy pods run on {nodes[0]} too"
    else:
        return ()
    proof = seen(pods, f"{why}; healthy pods run on {listed(sorted(contrast.shared_nodes)) or 'none of them'}", Channel.CONTRAST)
    return (Candidate(Category.UNKNOWN, title, f"A fault of {title}.", marks=(Mark("one node only", (proof,)),), refuted=safe(why, 900)),)


def run_of(f: Finding) -> Run | None:
    """The latest finished run of the container that a finding is about."""
    if isinstance(f, CrashFinding):
        return f.run
    runs = (c.latest_run for p in f.pods for c in p.containers if c.name == f.container)
    return next((r for r in runs if r is not None), None)


def effect_of(f: Finding) -> str:
    """What the container does, after its name: `exits with code 1`, `runs and does not become ready`."""
    run = run_of(f)
    if f.trouble is Trouble.PROBE:
        return "is killed by its probe again and again"
    if f.trouble in (Trouble.NOT_READY, Trouble.STARTING):
        return "does not end" if _is_init(f) else "runs and does not become ready"
    if f.reason == "PostStartHookError":
        return "is stopped because its postStart hook fails"
    if run is not None and run.never_started:
        return "cannot be started"
    return f"exits with code {run.exit_code}" if run else "exits with an error"


def _is_init(f: Finding) -> bool:
    return any(c.init for p in f.pods[:1] for c in p.containers if c.name == f.container)


def distinct(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Of candidates of the same category and object the best grounded one, in the order of their first."""
    best: dict[tuple[str, str], Candidate] = {}
    for c in candidates:
        key = (c.category.value, c.object)
        held = best.get(key)
        if held is None or (bool(c.refuted), c.grade, -c.score()) < (bool(held.refuted), held.grade, -held.score()):
            best[key] = c
    return tuple(best.values())


def relevant(before: Revision, after: Revision, container: str) -> tuple[Difference, ...]:
    """Differences that can make that container exit or misbehave: its own, and the pod's."""
    found = differences(before.template, after.template)
    return tuple(d for d in found if d.aspect in EXPLAINS_EXIT and d.container in ("", container))
