"""Claims, volumes and classes: what is full, what does not bind, and pods that wrote more than they may."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..evidence import Observation, measured, safe, seen
from ..findings import Trouble
from ..hypotheses import Candidate, Cap, Mark
from ..origins.claims import CLAIM, claim_trouble, uses
from ..origins.common import release_of
from ..read import count, listed, mapping, objects, word
from ..scene import Workload
from ..specialists.logs import Clue, Sign
from ..views import Pod
from ..world import World

# A filesystem with less than this left is full for whoever writes to it (and ext4 keeps 5 % for root).
FULL_BELOW = 0.05
_RECENT = timedelta(minutes=30)
_OWN_LIMIT = re.compile(
    r"exceeded its local ephemeral storage limit|ephemeral local storage usage exceeds|EmptyDir volume .{1,80} exceeds the limit",
    re.IGNORECASE,
)
_NONE = ChangeRef(kind="None")


def storage(world: World) -> Iterator[Candidate]:
    """Claims that are full or do not bind, and evictions over a pod's own limit of scratch space."""
    users = _users(world)
    for claim in world.scene.all(CLAIM):
        mine = users.get(claim.name, ())
        yield from _full(world, claim, mine)
        # Where pods wait for it, the workload's own origins name it; the others are told here.
        if not any(_waits(world, u.workload) for u in mine):
            told = tuple(claim_trouble(world.scene, claim, ()))
            yield from (replace(c, hits=(*(u.workload.title for u in mine), claim.title)) for c in told)
    for workload in world.workloads:
        yield from _evicted(world, workload)


@dataclass(frozen=True)
class _User:
    """A workload that uses a claim: its pods that do, and the paths where the claim is mounted, by pod."""

    workload: Workload
    pods: tuple[Pod, ...]
    paths: frozenset[str]


def _users(world: World) -> Mapping[str, tuple[_User, ...]]:
    """By claim. Pods that have ended use nothing; a workload without pods still names its claims."""
    found: dict[str, list[_User]] = {}
    for w in world.workloads:
        by_claim: dict[str, tuple[list[Pod], set[str]]] = {}
        for pod in w.pods:
            for use in uses(pod.spec, pod.name):
                pods, paths = by_claim.setdefault(use.name, ([], set()))
                pods.append(pod)
                paths |= _mounts(pod.spec, use.volume)
        for use in uses(mapping(w.template.get("spec")), ""):
            by_claim.setdefault(use.name, ([], set()))
        for name, (pods, paths) in by_claim.items():
            found.setdefault(name, []).append(_User(w, tuple(pods), frozenset(paths)))
    return {k: tuple(v) for k, v in found.items()}


def _mounts(spec: Mapping[str, Any], volume: str) -> set[str]:
    every = (*objects(spec.get("initContainers")), *objects(spec.get("containers")))
    return {word(m.get("mountPath")) for c in every for m in objects(c.get("volumeMounts")) if word(m.get("name")) == volume} - {""}


def _waits(world: World, workload: Workload) -> bool:
    return any(f.trouble in (Trouble.UNSCHEDULED, Trouble.NOT_MADE) for f in world.case(workload).report.findings)


# -- full ---------------------------------------------------------------------------------------------------------------------------


def _full(world: World, claim: KubeObject, users: tuple[_User, ...]) -> Iterator[Candidate]:
    """A full volume: by its series, and by logs that name a path on it. A log alone picks it only if nothing else can be meant."""
    ratio = _free(world, claim.name)
    if ratio is not None and ratio[0] >= FULL_BELOW:
        return
    lines = _complaints(world, users)
    if ratio is None and not lines:
        return
    title = safe(claim.title, 250)
    marks: list[Mark] = []
    inferred, caps = 1, [Cap("C", "no series tells how full it is; a log line is the only evidence")]
    told = "is full, say the programs that write to it"
    if ratio is not None:
        inferred, caps = (0 if lines else 1), []
        told = f"has {ratio[0]:.1%} of its space left"
        marks.append(Mark("metric shows it", (ratio[1],)))
    if lines:
        marks.append(Mark("log says so", tuple(c.seen for c in lines[:2])))
    who = listed([u.workload.title for u in users])
    size = word(mapping(mapping(claim.raw.get("status")).get("capacity")).get("storage"))
    shown = seen(world.scene.listing(CLAIM), f"{claim.title}: capacity {size or 'unknown'}, used by {who or 'nobody'}")
    statement = f"{title} ({size or 'of unknown size'}) {told}" + (f"; {who} writes to it." if who else ".")
    yield Candidate(
        Category.STORAGE,
        title,
        safe(statement),
        safe(statement, 400),
        _NONE,
        (Mark("state fits", (shown,)), *marks, Mark("no change seen")),
        inferred=inferred,
        caps=tuple(caps),
        hits=(*(u.workload.title for u in users), claim.title),
    )


def _free(world: World, name: str) -> tuple[float, Observation] | None:
    """The share of space that is left, as the kubelet measures it; the least of several series."""
    vector = world.metric("pvc_free_ratio")
    if vector is None or vector.because:
        return None
    here = world.scene.snapshot.namespace
    mine = [p.value for p in vector.points if p.labels.get("persistentvolumeclaim") == name and p.labels.get("namespace", here) == here]
    return (min(mine), measured(vector, f"{CLAIM}/{name}: {min(mine):.2%} free")) if mine else None


def _complaints(world: World, users: tuple[_User, ...]) -> tuple[Clue, ...]:
    """Lines of the users' logs about a full disk: with a whole path, only if the claim is mounted there; else only if it is the only one."""
    found: list[Clue] = []
    for user in users:
        for clue in world.clues(user.pods) if user.pods else ():
            if clue.sign is Sign.DISK and (_under(clue.subject, user.paths) if _whole(clue) else _only_claim(user)):
                found.append(clue)
    return tuple(found)


def _whole(clue: Clue) -> bool:
    """Whether the path in a line is a whole one: programs also name files below a directory of their own (`pg_wal/000000010000000A`)."""
    return clue.subject.startswith("/") and re.search(r"[\w.-]" + re.escape(clue.subject), clue.seen.text) is None


def _under(path: str, mounts: frozenset[str]) -> bool:
    return any(path == m or path.startswith(m.rstrip("/") + "/") for m in mounts)


def _only_claim(user: _User) -> bool:
    return all(len(uses(p.spec, p.name)) == 1 for p in user.pods)


# -- evictions over a pod's own limit -----------------------------------------------------------------------------------------------


def _evicted(world: World, workload: Workload) -> Iterator[Candidate]:
    """Pods that kubelet evicted since they wrote more to their scratch space than their own limit allows."""
    gone = [
        p
        for r in workload.revisions
        for p in r.failed
        if p.reason == "Evicted" and _OWN_LIMIT.search(p.message) and (p.settled is None or world.scene.now - p.settled < _RECENT)
    ]
    if not gone:
        return
    case = world.case(workload)
    told = safe(gone[0].message, 300)
    proof = seen(world.scene.listing("Pod"), "; ".join(f"Pod/{p.name}: Failed, Evicted: {p.message}" for p in gone[:3]))
    statement = f"{count(len(gone), 'pod')} of {workload.title} were evicted over their own limit of scratch space: {told}"
    base = Candidate(
        Category.RESOURCE_LIMIT,
        workload.title,
        statement,
        statement,
        _NONE,
        (Mark("mechanism named", (proof,)),),
        inferred=0,
        hits=(workload.title,),
    )
    found = case.history.introduced(lambda t: _scratch(mapping(t.get("spec"))))
    lately = found is not None and found.previous is not None and any(p in r.pods for r in (found.revision,) for p in gone)
    if found is None or not lately or case.history.lasted:
        yield replace(base, marks=(*base.marks, Mark("no change seen")), inferred=1)
        return
    mark = Mark("introduced by this release", (case.saw_release(found, "limits of ephemeral storage changed"),))
    statement = f"{release_of(case, found.revision)} changed its limits of scratch space, and {told}"
    yield replace(
        base,
        statement=statement,
        summary=statement,
        change=case.release(found.revision),
        marks=(*base.marks, mark),
        counterfactual=found.previous is not None and case.history.proven(found.previous),
        timing=True,
    )


def _scratch(spec: Mapping[str, Any]) -> object:
    """The limits of scratch space in a template: of containers, and of emptyDir volumes."""
    limits = [mapping(mapping(c.get("resources")).get("limits")).get("ephemeral-storage") for c in objects(spec.get("containers"))]
    volumes = [mapping(v.get("emptyDir")).get("sizeLimit") for v in objects(spec.get("volumes"))]
    return limits, volumes
