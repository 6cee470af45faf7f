"""What changed, when, and who claims it: template differences, the history of releases, edits of ConfigMaps.

Values of the environment, of arguments and of annotations may be secrets, so a difference shows only images, quantities and names of
objects, and says "changed" for the rest. Who changed something is a field manager's name, which the client chooses: a claim.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import cached_property
from typing import Any

from ..api.v1alpha1.ledger import HealthyRevision
from ..domain.snapshot import KubeObject
from .read import mapping, objects, when, word
from .scene import Revision, Scene, Workload
from .views import CALM, obj_created
from .views import FIRST_SYNCS as SETTLING

_KEYED = {
    "env": "name",
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "imagePullSecrets": "name",
}


class Aspect(Enum):
    """What a changed field is about, which decides what kind of fault it can bring in."""

    IMAGE = "the image"
    COMMAND = "the command or its arguments"
    ENVIRONMENT = "the environment"
    MEMORY = "the memory limit"
    RESOURCES = "the resources"
    PROBE = "a probe"
    VOLUME = "a volume"
    SETTING = "another setting"
    SCHEDULING = "where pods may run"
    METADATA = "labels or annotations"


# A wrong one of these can make a process exit. Labels, annotations and scheduling cannot; a probe's kill is told apart by its own sign.
EXPLAINS_EXIT = frozenset({Aspect.IMAGE, Aspect.COMMAND, Aspect.ENVIRONMENT, Aspect.VOLUME, Aspect.SETTING})
_BY_FIELD = {
    "image": Aspect.IMAGE,
    "command": Aspect.COMMAND,
    "args": Aspect.COMMAND,
    "workingDir": Aspect.COMMAND,
    "env": Aspect.ENVIRONMENT,
    "envFrom": Aspect.ENVIRONMENT,
    "livenessProbe": Aspect.PROBE,
    "readinessProbe": Aspect.PROBE,
    "startupProbe": Aspect.PROBE,
    "volumeMounts": Aspect.VOLUME,
    "volumes": Aspect.VOLUME,
    "nodeSelector": Aspect.SCHEDULING,
    "nodeName": Aspect.SCHEDULING,
    "affinity": Aspect.SCHEDULING,
    "tolerations": Aspect.SCHEDULING,
    "topologySpreadConstraints": Aspect.SCHEDULING,
    "priorityClassName": Aspect.SCHEDULING,
    "schedulerName": Aspect.SCHEDULING,
}
# Without effect on a running process: how images are pulled, how long a stop may take, what the API server fills in.
_HARMLESS = frozenset(
    {"imagePullPolicy", "terminationGracePeriodSeconds", "terminationMessagePath", "terminationMessagePolicy", "ports", "restartPolicy"}
)


@dataclass(frozen=True)
class Difference:
    """One field that differs. `shown` is empty where the values are not for showing."""

    path: str
    aspect: Aspect
    container: str
    before: object
    after: object

    @property
    def verb(self) -> str:
        return "added" if self.before is None else "removed" if self.after is None else "changed"

    @property
    def shown(self) -> str:
        """`path: 2.3.9 → 2.4.O` for images and quantities, `path removed` for everything else."""
        if self.aspect in (Aspect.IMAGE, Aspect.MEMORY, Aspect.RESOURCES):
            return f"{self.path}: {word(self.before) or 'none'} → {word(self.after) or 'none'}"
        return f"{self.path} {self.verb}"

    @property
    def env_name(self) -> str:
        return self.path.rpartition(".env[")[2].partition("]")[0] if ".env[" in self.path else ""


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Fields of a pod template that differ, grouped at the level a person edits (an env entry, a probe, a volume), by path."""
    old, new = dict(_fields(before)), dict(_fields(after))
    changed = sorted(p for p in old.keys() | new.keys() if old.get(p) != new.get(p))
    return tuple(Difference(p, _aspect(p), _container_of(p), old.get(p), new.get(p)) for p in changed)


def _fields(template: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    metadata = mapping(template.get("metadata"))
    for part in ("labels", "annotations"):
        for key, value in mapping(metadata.get(part)).items():
            if key != "pod-template-hash":
                yield f"metadata.{part}[{key}]", value
    for name, value in mapping(template.get("spec")).items():
        if name in ("containers", "initContainers", "volumes") and isinstance(value, list):
            yield from _named(f"spec.{name}", name, value)
        elif name not in _HARMLESS:
            yield f"spec.{name}", value


def _named(at: str, field: str, values: list[Any]) -> Iterator[tuple[str, object]]:
    for i, item in enumerate(objects(values)):
        key = word(item.get(_KEYED[field])) or str(i)
        if field in ("volumes", "env", "volumeMounts"):
            yield f"{at}[{key}]", item
            continue
        for name, value in item.items():
            if name in ("env", "volumeMounts") and isinstance(value, list):
                yield from _named(f"{at}[{key}].{name}", name, value)
            elif name == "resources":
                yield from _quantities(f"{at}[{key}].resources", mapping(value))
            elif name not in _HARMLESS and name != "name":
                yield f"{at}[{key}].{name}", value


def _quantities(at: str, resources: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    for part in ("limits", "requests"):
        for name, value in mapping(resources.get(part)).items():
            yield f"{at}.{part}.{name}", value


def _aspect(path: str) -> Aspect:
    if path.startswith("metadata."):
        return Aspect.METADATA
    if path.endswith("resources.limits.memory"):
        return Aspect.MEMORY
    if ".resources." in path:
        return Aspect.RESOURCES
    inner = path.partition("].")[2] or path.partition("spec.")[2]
    return _BY_FIELD.get(inner.partition("[")[0], Aspect.SETTING)


def _container_of(path: str) -> str:
    return path.partition("ontainers[")[2].partition("]")[0]


@dataclass(frozen=True)
class Step:
    """What one release changed against the release before it."""

    revision: Revision
    previous: Revision
    differences: tuple[Difference, ...]

    def explaining(self, aspects: frozenset[Aspect]) -> tuple[Difference, ...]:
        return tuple(d for d in self.differences if d.aspect in aspects)


@dataclass(frozen=True)
class Introduced:
    """Where the present value of a field came in. `previous` is None when no older template is left to compare with."""

    revision: Revision
    previous: Revision | None
    before: object = None


@dataclass(frozen=True)
class History:
    """The revisions of a Deployment from the current one back, and which of them are proven healthy.

    Proven: pods of it are Ready now, or the operator's own Ledger recorded this very uid and template. `lasted`: the current revision
    itself was healthy for a while before the symptom, so that its release cannot be what broke it.
    """

    workload: Workload
    chain: tuple[Revision, ...]
    serving: frozenset[str]
    recorded: Mapping[str, datetime]
    lasted: bool

    def proven(self, revision: Revision) -> bool:
        return revision.uid in self.serving or revision.uid in self.recorded

    @property
    def current(self) -> Revision | None:
        return self.chain[0] if self.chain else None

    @property
    def comparable(self) -> bool:
        """Whether there is an older template, and the revision numbers that order them are unambiguous."""
        return len(self.chain) > 1 and not self.workload.duplicate_numbers and self.workload.sets_known

    @cached_property
    def baseline(self) -> Revision | None:
        """The newest older revision that is proven healthy, else the one just before the current one."""
        if not self.comparable:
            return None
        older = self.chain[1:]
        return next((r for r in older if self.proven(r)), older[0])

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The releases after the baseline up to the current one, newest first."""
        found: list[Step] = []
        for newer, older in zip(self.chain, self.chain[1:], strict=False):
            if self.baseline is None or newer is self.baseline:
                break
            found.append(Step(newer, older, differences(older.template, newer.template)))
        return tuple(found)

    def introduced(self, value: Callable[[Mapping[str, Any]], object]) -> Introduced | None:
        """The release that gave the field its present value; None when nothing can tell."""
        if self.current is None or not self.workload.sets_known or self.workload.duplicate_numbers:
            return None
        now = value(self.current.template)
        at = self.current
        for older in self.chain[1:]:
            before = value(older.template)
            if before != now:
                return Introduced(at, older, before)
            at = older
        return Introduced(at, None)

    def brought_in(self, value: Callable[[Mapping[str, Any]], object], *, needed_to_start: bool) -> Introduced | None:
        """As `introduced`, but only if a template shows it and no revision with that value is proven to have worked.

        What a pod needs before it can start at all (its image, its references) has worked once the rollout was complete once; that a
        process then exits may well be the same release's fault.
        """
        found = self.introduced(value)
        if found is None or found.previous is None or self.lasted or (needed_to_start and self.workload.completed_once):
            return None
        with_it = self.chain[: self.chain.index(found.revision) + 1]
        return None if any(self._vouches(r, needed_to_start=needed_to_start) for r in with_it) else found

    def _vouches(self, revision: Revision, *, needed_to_start: bool) -> bool:
        """Whether that revision proves its values good. What fails now was perhaps complete for a moment, and was recorded so: that proves
        that it could start, and no more.
        """
        if revision is self.current and not needed_to_start:
            return revision.uid in self.serving
        return self.proven(revision)


def history(workload: Workload, healthy: Iterable[HealthyRevision], onset: datetime | None, serving: frozenset[str]) -> History:
    """`serving`: uids of revisions with pods that are Ready and not failing; `onset`: since when the symptom is there."""
    chain = _chain(workload)
    records = {h.revision_uid: h for h in healthy if h.workload_uid == workload.obj.uid}
    recorded = {r.uid: records[r.uid].at for r in chain if r.uid in records and r.digest and records[r.uid].template_sha256 == r.digest}
    return History(workload, chain, serving, recorded, bool(chain) and _lasted(workload, chain[0], onset, recorded, serving))


def _chain(workload: Workload) -> tuple[Revision, ...]:
    """From the current revision down by revision number; what is numbered higher than the current one is no ancestor of it."""
    current = workload.current
    if current is None:
        return ()
    return (current, *(r for r in workload.revisions if r is not current and r.number <= current.number))


def _lasted(
    workload: Workload, current: Revision, onset: datetime | None, recorded: Mapping[str, datetime], serving: frozenset[str]
) -> bool:
    """Whether the current revision worked in earnest: it was complete before any of the failing pods began, or it was healthy (complete
    once, recorded, or with pods that still serve) for ten minutes from release to symptom.
    """
    completed, released = workload.completed_at, current.released
    if onset is None:
        return False
    births = [p.birth for p in current.live if p.birth is not None and not p.ready]
    if completed is not None and births and min(births) > completed + SETTLING:
        return True
    if released is None or onset - released < CALM:
        return False
    return completed is not None or current.uid in recorded or current.uid in serving


@dataclass(frozen=True)
class Edit:
    """The last change of an object's content, from `managedFields`; `created` when that was its creation."""

    obj: KubeObject
    at: datetime
    by: str
    created: bool


def last_edit(obj: KubeObject) -> Edit | None:
    """When the data of a ConfigMap last changed, as far as field managers tell; None when nothing does."""
    made = obj_created(obj)
    edits = [(at, by) for at, by, fields in managers(obj) if fields.keys() & {"f:data", "f:binaryData"}]
    if not edits:
        return Edit(obj, made, "", created=True) if made else None
    at, by = max(edits)
    return Edit(obj, at, by, created=made is not None and abs(at - made) <= timedelta(seconds=1))


def edit_of(scene: Scene, config_map: str) -> Edit | None:
    """The last change of that ConfigMap, if the snapshot has it."""
    obj = next((o for o in scene.all("ConfigMap") if o.name == config_map), None)
    return last_edit(obj) if obj else None


def managers(obj: KubeObject) -> Iterator[tuple[datetime, str, Mapping[str, Any]]]:
    """Time, claimed name and field set of each field manager. (Status writers are another subresource and do not count.)"""
    for entry in objects(mapping(obj.raw.get("metadata")).get("managedFields")):
        at = when(entry.get("time"))
        if at and not word(entry.get("subresource")):
            yield at, word(entry.get("manager")), mapping(entry.get("fieldsV1"))


def released_by(workload: Workload, revision: Revision) -> str:
    """The manager that owns the Deployment's template and wrote nearest before the ReplicaSet appeared: a claim."""
    if revision.released is None or revision is not workload.current:
        return ""
    limit = revision.released + timedelta(seconds=2)
    writers = [(at, by) for at, by, fields in managers(workload.obj) if at <= limit and "f:template" in mapping(fields.get("f:spec"))]
    return max(writers)[1] if writers else ""
