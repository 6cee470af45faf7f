"""Origins of pods that stay at their start: an init container that waits for what is not there, that never ends, or a hook that hangs.

A start that merely takes long is no fault. So either the wait is computed to be in vain (no such Service, no such port, a command that by
itself never ends), or the start has lasted longer than the workload's own deadline allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from ...api.v1alpha1.common import Category
from ...api.v1alpha1.incident import ChangeRef
from ..case import Case
from ..changes import Aspect, Difference, Introduced, differences
from ..evidence import safe, seen
from ..findings import Finding
from ..hypotheses import Candidate, Cap, Mark
from ..read import clock, mapping, objects, sentence, word
from ..specialists.logs import Sign
from ..views import Container
from .common import container_of, release_of
from .values import addresses, meant, ports_of, value_origins, values_of

# `kubectl apply -f dir` makes Deployments and Services in any order.
_EARLY = timedelta(seconds=30)
_ENDLESS = re.compile(
    r"\bsleep (?:infinity|inf|[1-9]\d{3,}|\d+d|[1-9]\d*h)\b|\btail (?:-\w+ )*-?[fF]\w* ?/dev/null|"
    r"\bwhile (?:true|:|\[ ?1 ?\])\s?;?\s?do\b(?![^\n]{0,400}\b(?:break|exit)\b)|\bcat /dev/zero|\bread -?\w* ?<> ?<\(:\)"
)


def starting_origins(case: Case, f: Finding) -> tuple[Candidate, ...]:
    """What holds a start back: of an init container that runs, or of a postStart hook that does not return."""
    container = _held(f)
    if container is None or case.contrast(f).same_revision:
        return ()
    since = container.running_since or f.onset
    if since is None or case.scene.now - since < case.scene.patience(_EARLY):
        return ()
    vain = tuple(_in_vain(case, f, container))
    if vain or _waits_for_something(case, f, container):
        return vain  # (what it waits for is there by name: whether it answers, others judge)
    return tuple(_hangs(case, f, container, since))


def _held(f: Finding) -> Container | None:
    """The init container that runs, else a main one that has a postStart hook and is not up."""
    for pod in f.pods[:1]:
        busy = next((c for c in pod.containers if c.init and c.running and not _sidecar(pod.spec, c.name)), None)
        if busy is not None:
            return busy
        hooked = {word(c.get("name")) for c in objects(pod.spec.get("containers")) if mapping(mapping(c.get("lifecycle")).get("postStart"))}
        return next(
            (c for c in pod.containers if not c.init and c.name in hooked and not c.running and c.waiting == "ContainerCreating"), None
        )
    return None


def _sidecar(spec: Mapping[str, Any], name: str) -> bool:
    """Whether that init container is meant to run on beside the others."""
    return any(word(c.get("name")) == name and c.get("restartPolicy") == "Always" for c in objects(spec.get("initContainers")))


def _in_vain(case: Case, f: Finding, container: Container) -> Iterator[Candidate]:
    """It waits for a name or a port that does not exist. That it waits, its own state shows; for what, its command says."""
    mine = replace(f, container=container.name)
    logs, effect = case.logs(mine), "runs and does not end"
    for c in value_origins(case, mine, logs, case.contrast(f), effect):
        waits = seen(
            case.scene.listing("Pod"),
            f"init container {container.name} runs since {clock(container.running_since)[3:]}; main containers have not started",
        )
        caps = tuple(x for x in c.caps if x.grade != "C" or logs.read)
        yield replace(
            c, marks=(*c.marks, Mark("never ends", (waits,))), caps=caps, inferred=min(c.inferred, 0 if _asks(case, f, container, c) else 1)
        )


def _asks(case: Case, f: Finding, container: Container, c: Candidate) -> bool:
    """Whether the command of the init container itself names what does not exist, so that its waiting for that was read, not guessed."""
    spec = f.pods[0].spec if f.pods else f.revision.pod_spec
    values = [v for v in values_of(case.scene, case.title, spec, container.name) if v.command or v.loose]
    hosts = {a.host for v in values for a in addresses(v)}
    return any(h in c.statement for h in hosts) or any(v.holder == c.object for v in values)


def _waits_for_something(case: Case, f: Finding, container: Container) -> bool:
    """Whether its command or its log names a Service that exists: then that one's state decides, not this container."""
    spec = f.pods[0].spec if f.pods else f.revision.pod_spec
    for value in values_of(case.scene, case.title, spec, container.name):
        if value.command or value.loose:
            for a in addresses(value):
                target = meant(case.scene, a.host)
                if target is not None and target.service is not None and (not a.port or a.port in (ports_of(target.service) or {a.port})):
                    return True
    outside = (Sign.HOST, Sign.NAME, Sign.CREDENTIALS, Sign.POOL, Sign.UPSTREAM, Sign.CERTIFICATE, Sign.FORBIDDEN)
    return bool(case.logs(replace(f, container=container.name)).of(*outside))


def _hangs(case: Case, f: Finding, container: Container, since: datetime) -> Iterator[Candidate]:
    """It hangs by itself: by its command it never ends, or it is the release's and has outlived every patience."""
    template = {"spec": f.pods[0].spec if f.pods else f.revision.pod_spec}
    c = container_of(template, container.name)
    endless = _ENDLESS.search(_command(c))
    overdue = case.workload.deadline_exceeded or case.scene.now - since > timedelta(seconds=max(60, case.workload.deadline))
    found = _release(case, f, container)
    # Somebody misses it already, nothing serves any more, and the release changed what holds the start back.
    missed = case.scene.doubted and not case.report.healthy and found is not None
    if not endless and (found is None or not (overdue or missed)):
        return
    what = "init container" if container.init else "postStart hook of container"
    never = "by its own command never ends" if endless else f"has not ended since {clock(since)[3:]}"
    statement = f"The {what} {container.name} of {case.title} {never}, so that its pods do not start."
    marks = [Mark("never ends" if endless else "state fits", f.seen)]
    base = Candidate(
        Category.BAD_CONFIGURATION,
        case.title,
        sentence(safe(statement)),
        safe(f"In {case.name}, the {what} {container.name} {never}."),
        ChangeRef(kind="None"),
        tuple(marks),
        inferred=0 if endless else 1,
        caps=() if endless or overdue else (Cap("C", "it may only be slow"),),
    )
    if found is None:
        yield replace(base, marks=(*base.marks, Mark("no change seen")))
        return
    introduced, mine = found
    previous = introduced.previous
    image_only = all(d.aspect is Aspect.IMAGE for d in mine)
    shown = "; ".join(d.shown for d in mine[:6])
    more = [Mark("introduced by this release", (case.saw_release(introduced, shown),))]
    if case.contrast(f).separates_revisions:
        more.append(Mark("previous revision serves", case.saw_serving(f)))
    praise = case.praise(previous) if previous else ""
    yield replace(
        base,
        category=Category.BAD_RELEASE if image_only and not endless else Category.BAD_CONFIGURATION,
        summary=safe(f"{release_of(case, introduced.revision)} changed {what} {container.name}, which {never}; {praise}."),
        change=case.release(introduced.revision),
        marks=(*base.marks, *more),
        counterfactual=previous is not None and case.history.proven(previous),
        timing=True,
    )


def _command(c: Mapping[str, Any]) -> str:
    hook = mapping(mapping(mapping(c.get("lifecycle")).get("postStart")).get("exec")).get("command")
    parts = [p for line in (c.get("command"), c.get("args"), hook) if isinstance(line, list) for p in line[:200]]
    return " ".join(word(p) for p in parts)


def _release(case: Case, f: Finding, container: Container) -> tuple[Introduced, tuple[Difference, ...]] | None:
    """The release that brought the container in as it is, with what it changed in it; None where none did."""
    if not case.is_current(f):
        return None
    found = case.history.brought_in(lambda t: container_of(t, container.name), needed_to_start=True)
    if found is None or found.previous is None:
        return None
    net = differences(found.previous.template, found.revision.template)
    mine = tuple(d for d in net if d.container == container.name and d.aspect is not Aspect.METADATA)
    return (found, mine) if mine else None
