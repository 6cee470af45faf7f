"""Origins of volumes that cannot be attached or mounted on a node that the pods already have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ...domain.snapshot import KubeObject
from ..case import Case
from ..evidence import Channel, Observation, logged, safe, seen
from ..findings import CrashFinding, VolumeFinding
from ..hypotheses import Candidate, Cap, Mark
from ..read import listed, mapping, objects, word
from ..views import Pod
from .claims import CLAIM, VOLUME, Use, claim_origins, uses
from .common import release_of
from .created import brought_in

_VOLUME = re.compile(r"[Vv]olumes?(?:Mount)? ?\"([^\"\s]{1,253})\"")
_UNMOUNTED = re.compile(r"unmounted volumes=\[([^\]\s]{1,253})")
_MULTI = re.compile(r"Multi-Attach error", re.IGNORECASE)
_DRIVER = re.compile(r"driver name (\S{1,120}) not found in the list of registered CSI drivers")
_DAMAGED = re.compile(r"bad superblock|structure needs cleaning|wrong fs type|input/output error|corrupt", re.IGNORECASE)
_READ_ONLY = re.compile(r"read-?only file ?system", re.IGNORECASE)
_NONE = ChangeRef(kind="None")


def volume_origins(case: Case, f: VolumeFinding) -> tuple[Candidate, ...]:
    """By the state of the claims first; else by which volume the message is about, and what stands behind it."""
    found = claim_origins(case, f)
    if not found and f.pods and _about(f) is not None:
        found = tuple(_told(case, f))
    return tuple(replace(c, hits=c.hits or (case.title,)) for c in found)


def _about(f: VolumeFinding) -> re.Match[str] | None:
    return _VOLUME.search(f.message) or _UNMOUNTED.search(f.message)


def _told(case: Case, f: VolumeFinding) -> Iterator[Candidate]:
    match = _about(f)
    assert match is not None
    pod = min(f.pods, key=lambda p: p.name)
    use = _use(case, pod, match.group(1))
    if use is None:
        yield from _inline(case, f, pod, match.group(1))
    elif _MULTI.search(f.message):
        yield from _shared(case, f, pod, use)
    else:
        yield from _of_claim(case, f, use)


def _use(case: Case, pod: Pod, name: str) -> Use | None:
    """The claim behind the volume of that name, which is the pod's own name for it or the PersistentVolume's."""
    for use in uses(pod.spec, pod.name):
        claim = case.scene.snapshot.find(CLAIM, use.name)
        bound = word(mapping(claim.raw.get("spec")).get("volumeName")) if isinstance(claim, KubeObject) else ""
        if name in (use.volume, use.name) or (bound and bound in name):
            return use
    return None


def _shared(case: Case, f: VolumeFinding, pod: Pod, use: Use) -> Iterator[Candidate]:
    """A volume for one node that pods on two nodes want. Computed from the pods; the Event only says where to look."""
    title = safe(f"{CLAIM}/{use.name}", 250)
    claim = case.scene.snapshot.find(CLAIM, use.name)
    modes = mapping(claim.raw.get("spec")).get("accessModes") if isinstance(claim, KubeObject) else None
    wide = isinstance(modes, list) and "ReadWriteMany" in modes
    holders = [
        p
        for p in case.scene.pods
        if p.node
        and p.node != pod.node
        and p.phase not in ("Succeeded", "Failed")
        and any(u.name == use.name for u in uses(p.spec, p.name))
    ]
    if wide:
        return
    down = {n.name for n in case.scene.nodes if not n.ready}
    proof = seen(case.scene.listing("Pod"), f"{title} is used by {listed([f'{p.name} on {p.node}' for p in holders]) or 'no other pod'}")
    if holders and all(p.node in down for p in holders):
        node = safe(f"Node/{min(p.node for p in holders)}", 250)
        statement = f"{node} is not ready and still holds {title}, so that it cannot be attached where {case.title} starts now."
        yield Candidate(
            Category.NODE,
            node,
            statement,
            statement,
            _NONE,
            (Mark("mechanism named", (*f.seen, proof)), Mark("no change seen")),
            inferred=1,
        )
        return
    statement = f"{title} can be attached to one node at a time, and {listed([f'{p.name} on {p.node}' for p in holders]) or 'another node'} holds it."
    marks = (Mark("mechanism named" if holders else "mechanism likely", (*f.seen, proof)), Mark("no change seen"))
    yield Candidate(Category.STORAGE, title, statement, statement, _NONE, marks, inferred=0 if holders else 1)
    other = f"{case.title} runs pods on several nodes that all need {title}, which one node can hold."
    mine = [p for p in holders if p in case.workload.pods]
    if mine:
        yield Candidate(
            Category.STORAGE,
            case.title,
            other,
            other,
            _NONE,
            (Mark("mechanism likely", (*f.seen, proof)), Mark("no change seen")),
            inferred=1,
        )


def _of_claim(case: Case, f: VolumeFinding, use: Use) -> Iterator[Candidate]:
    """An attach or mount of a claim's volume that fails: the volume, or the node where it alone fails."""
    title, scene = safe(f"{CLAIM}/{use.name}", 250), case.scene
    told = safe(f.message, 300)
    driver = _DRIVER.search(f.message)
    contrast = case.contrast(f)
    if driver and contrast.only_node:
        node = safe(f"Node/{contrast.only_node}", 250)
        statement = f"{node} has no CSI driver {safe(driver.group(1), 120)}, without which it cannot mount {title}; other nodes mount it."
        where = seen(
            scene.listing("Pod"),
            f"pods of the same revision run on {listed(sorted({p.node for p in contrast.same_revision}))}",
            Channel.CONTRAST,
        )
        yield Candidate(
            Category.STORAGE,
            node,
            statement,
            statement,
            _NONE,
            (Mark("mechanism named", f.seen), Mark("works on other nodes", (where,))),
            inferred=1,
        )
        return
    claim = scene.snapshot.find(CLAIM, use.name)
    volume = word(mapping(claim.raw.get("spec")).get("volumeName")) if isinstance(claim, KubeObject) else ""
    how = (
        "is damaged" if _DAMAGED.search(f.message) else "is read-only" if _READ_ONLY.search(f.message) else "cannot be attached or mounted"
    )
    statement = f"{title} {how}: {told}"
    cap = (Cap("C", "what kubelet says is the only evidence, and nothing shows whether claim, volume or node is at fault"),)
    marks = (Mark("mechanism likely", f.seen), Mark("no change seen"))
    yield Candidate(Category.STORAGE, title, statement, statement, _NONE, marks, inferred=1, caps=cap)
    if volume:
        other = f"{VOLUME}/{safe(volume, 200)} behind {title} {how}: {told}"
        yield Candidate(
            Category.STORAGE,
            safe(f"{VOLUME}/{volume}", 250),
            other,
            other,
            _NONE,
            (Mark("state fits", f.seen), Mark("no change seen")),
            inferred=1,
            caps=cap,
        )


def _inline(case: Case, f: VolumeFinding, pod: Pod, name: str) -> Iterator[Candidate]:
    """A volume that the template itself describes (a path of the node, an NFS server, a driver): the template is what one edits."""
    volume = _volume(pod.spec, name)
    source = next((k for k in volume if k != "name"), "")
    if not source or source in ("configMap", "secret", "projected", "downwardAPI", "emptyDir", "persistentVolumeClaim", "ephemeral"):
        return
    told = safe(f.message, 300)
    found = brought_in(case, f.revision, lambda t: dict(_volume(mapping(t.get("spec")), name)))
    statement = f"Volume {safe(name, 120)} of {case.title} ({source}) cannot be mounted: {told}"
    base = Candidate(Category.STORAGE, case.title, statement, statement, _NONE, (Mark("mechanism likely", f.seen),), inferred=1)
    if found is None or found.previous is None:
        yield replace(
            base, marks=(*base.marks, Mark("no change seen")), caps=(Cap("C", "the volume did not change, as far as templates tell"),)
        )
        return
    marks = [*base.marks, Mark("introduced by this release", (case.saw_release(found, f"volume {name} ({source}) changed"),))]
    if case.contrast(f).separates_revisions:
        marks.append(Mark("previous revision serves", case.saw_serving(f)))
    statement = f"{release_of(case, found.revision)} changed volume {safe(name, 120)} ({source}), which cannot be mounted: {told}"
    yield replace(
        base,
        statement=statement,
        summary=statement,
        change=case.release(found.revision),
        marks=tuple(marks),
        counterfactual=case.history.proven(found.previous),
        timing=True,
    )


def _volume(spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return next((v for v in objects(spec.get("volumes")) if word(v.get("name")) == name), {})


# -- data that cannot be read -------------------------------------------------------------------------------------------------------

# How databases and logs of changes say that what is on their disk is no longer what they wrote.
_CORRUPT = re.compile(
    r"crc mismatch|checksum (?:mismatch|failed|error|verification failed)|page verification failed|corrupt|malformed database|disk image is malformed|"
    r"invalid (?:magic number|page in block|record length)|could not locate a valid checkpoint record|truncated (?:wal|log|segment)|"
    r"failed to recover .{0,40}(?:log|wal|journal)|bad superblock|structure needs cleaning",
    re.IGNORECASE,
)
_KEEPS = frozenset({"hostPath", "persistentVolumeClaim", "ephemeral", "nfs", "csi", "iscsi", "fc", "rbd", "cephfs", "local"})
_WIDTH = 600


def damage_origins(case: Case, f: CrashFinding) -> tuple[Candidate, ...]:
    """A container that exits since it cannot read back its own data: the volume that keeps them, if just one can be meant.

    What a log says of its own program's data picks nothing that the program does not mount; and where a release came in, its change is
    a likelier reason to misread data than a disk is.
    """
    pod = min(f.pods, key=lambda p: p.name, default=None)
    line = _complaint(case, f)
    if pod is None or line is None:
        return ()
    mounted = {
        word(m.get("name"))
        for c in objects(pod.spec.get("containers"))
        if word(c.get("name")) == f.container
        for m in objects(c.get("volumeMounts"))
    }
    keeping = [v for v in objects(pod.spec.get("volumes")) if word(v.get("name")) in mounted and _KEEPS & v.keys()]
    if not keeping:
        return ()
    held = [u for u in uses(pod.spec, pod.name) if u.volume in mounted]
    title = safe(f"{CLAIM}/{held[0].name}", 250) if len(held) == 1 and len(keeping) == 1 else case.title
    contrast = case.contrast(f)
    marks = [Mark("state fits", f.seen), Mark("log says so", (line,)), Mark("no change seen")]
    if contrast.same_revision:
        told = f"the same revision, with volumes of their own, serves in {listed([p.name for p in contrast.same_revision])}"
        marks.append(Mark("works elsewhere", (seen(case.scene.listing("Pod"), told, Channel.CONTRAST),)))
    what = f"the data that container {f.container} of Pod/{pod.name} keeps ({title})" if held else f"the data of Pod/{pod.name}"
    statement = f"Container {f.container} of {case.title} exits since it cannot read back {what}: {line.text[:200]}"
    caps = () if contrast.same_revision else (Cap("C", "no pod with other data shows that the program itself works"),)
    return (
        Candidate(
            Category.STORAGE, title, safe(statement), safe(statement, 400), _NONE, tuple(marks), inferred=1, caps=caps, hits=(case.title,)
        ),
    )


def _complaint(case: Case, f: CrashFinding) -> Observation | None:
    """The last line of a failing pod's own log that says so."""
    names = {p.name for p in f.pods}
    for key, log in sorted(case.scene.snapshot.logs.items(), key=lambda kv: (kv[0].pod, kv[0].previous)):
        if key.pod in names and key.container == f.container and not log.because:
            for text in reversed(log.lines[-60:]):
                if _CORRUPT.search(text[:_WIDTH]):
                    return logged(log, text[:_WIDTH])
    return None
