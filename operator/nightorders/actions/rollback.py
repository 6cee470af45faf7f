"""RollbackWorkload: put back the pod template of an earlier revision that was healthy.

Only `spec.template` is replaced. (`kubectl rollout undo` also replaces every annotation of the Deployment, chooses the second
highest revision whatever it is, and has no precondition.) It fits if and only if the fault came in with a release.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import jsonpatch

from ..api.meta import ROLLBACK_BARRIER_ANNOTATION, Level, line
from ..api.v1alpha1.common import ActionType
from ..api.v1alpha1.incident import Alternative, Incident, Inverse, Plan, RollbackParameters, Speaker
from ..api.v1alpha1.ledger import HealthyRevision, Ledger
from ..domain import verification
from ..domain.diagnosis import Diagnosis
from ..domain.digest import bare_template, spec_sha256, template_sha256
from ..domain.mergepatch import replace_patch
from ..domain.ownership import helm_release
from ..domain.plan import NoProposal, Proposal
from ..domain.reasons import Reason
from ..domain.snapshot import KubeObject, Snapshot, parse_time
from ..domain.verdict import Verdict, passed, refused
from ..ports import ObjectKey
from .base import Found, PolicyRule, Unavailable

REVISION = "deployment.kubernetes.io/revision"
IMAGE_PATH = re.compile(r"^/spec/(initContainers|containers)/[0-9]+/image$")
PLAIN_VALUE = re.compile(r"[A-Za-z0-9._:/@-]{1,255}")
REVISION_NUMBER = re.compile(r"[0-9]{1,18}")  # str.isdigit says yes to ², and int() raises for it


@dataclass(frozen=True)
class Revision:
    """A ReplicaSet of the target: its number, template digest, and whether it is proven healthy (and by what)."""

    source: KubeObject
    number: int
    sha256: str
    proof: str


class RollbackWorkload:
    """For Deployments."""

    type: ActionType = ActionType.ROLLBACK_WORKLOAD
    rules: tuple[PolicyRule, ...] = (PolicyRule("apps", "deployments", ("get", "patch")), PolicyRule("apps", "replicasets", ("get",)))

    def propose(
        self,
        incident: Incident,
        snapshot: Snapshot,
        target: KubeObject,
        diagnosis: Diagnosis,
        ledger: Ledger | None,
        now: datetime,  # noqa: ARG002 - part of the interface
    ) -> Proposal | NoProposal:
        """A rollback to the newest proven revision, else to the one before; or why a rollback would not help."""
        top = diagnosis.top
        if target.kind != "Deployment":
            return _none(f"RollbackWorkload handles Deployments, not {target.kind}")
        if top is None:
            return _none("no origin is shown")
        if top.object != target.title or top.change is None or top.change.kind != "Release":
            return _none(
                f"the origin is {top.category} at {top.object} and no release of {target.title} brought it in: a rollback would not remove it"
            )
        revisions = revisions_of(snapshot, target, ledger)
        current = [r for r in revisions if r.sha256 == template_sha256(target.at("spec", "template", default={}))]
        if len(current) != 1 or current[0].source.uid != diagnosis.failing_revision:
            return _none(f"the revision that fails is not the one that {target.title} asks for now: it was changed already")
        if doubled := _doubled(revisions):
            return _none(f"revision number {doubled} stands on more than one ReplicaSet of {target.title}; the history was edited")
        earlier = [r for r in revisions if r.number < current[0].number]
        if not earlier:
            return _none(f"{target.title} has no earlier revision to go back to")
        if tampered := _tampered(earlier, ledger):
            return _none(f"{tampered} is not what it was when it was seen healthy; its template was edited since")
        chosen = next((r for r in earlier if r.proof), earlier[0])
        return _proposal(incident, snapshot, target, current[0], chosen, revisions)

    def sources(self, plan: Plan, namespace: str) -> tuple[ObjectKey, ObjectKey]:
        """The ReplicaSets of the revision to go to, and of the one that fails now."""
        kind, _, failing = plan.inverse.ref.partition("/")
        return ObjectKey("apps/v1", "ReplicaSet", namespace, plan.parameters.revision_name), ObjectKey("apps/v1", kind, namespace, failing)

    def forward(self, plan: Plan, target: KubeObject, source: Found) -> Mapping[str, Any] | Unavailable:
        """The merge patch to the healthy template."""
        return _template_patch(target, source, plan.parameters.revision_uid, plan.parameters.template_sha256)

    def backward(self, plan: Plan, target: KubeObject, source: Found) -> Mapping[str, Any] | Unavailable:
        """The merge patch back to the template that was there before."""
        return _template_patch(target, source, plan.inverse.uid, plan.inverse.sha256)


def _none(message: str) -> NoProposal:
    return NoProposal(Reason.NO_ACTION_FITS, message, (Alternative(action="RollbackWorkload", why=line(message)),))


def revisions_of(snapshot: Snapshot, target: KubeObject, ledger: Ledger | None) -> list[Revision]:
    """The target's ReplicaSets with a revision number, newest first, each with its proof of health (empty: none)."""
    recorded = {(h.revision_uid, h.template_sha256): h for h in (ledger.spec.healthy_revisions if ledger else ())}
    found = []
    for source in snapshot.owned_by(target, "ReplicaSet"):
        number, template = source.annotations.get(REVISION, ""), source.at("spec", "template", default=None)
        if not REVISION_NUMBER.fullmatch(number) or not isinstance(template, Mapping):
            continue
        sha = template_sha256(template)
        found.append(Revision(source, int(number), sha, _proof(source, recorded.get((source.uid, sha)))))
    return sorted(found, key=lambda r: r.number, reverse=True)


def _proof(source: KubeObject, record: HealthyRevision | None) -> str:
    if record is not None:
        return f"recorded complete and available at {record.at:%Y-%m-%d %H:%M}Z"
    serving = source.at("status", "availableReplicas", default=0)
    return f"{serving} pods of it serve now" if isinstance(serving, int) and serving > 0 else ""


def _doubled(revisions: Iterable[Revision]) -> int | None:
    seen: set[int] = set()
    for r in revisions:
        if r.number in seen:
            return r.number
        seen.add(r.number)
    return None


def _tampered(earlier: Iterable[Revision], ledger: Ledger | None) -> str:
    """A revision whose template is no longer the recorded one: somebody planted it there (threats.md 12)."""
    recorded = {h.revision_uid: h.template_sha256 for h in (ledger.spec.healthy_revisions if ledger else ())}
    return next((r.source.title for r in earlier if recorded.get(r.source.uid, r.sha256) != r.sha256), "")


def _proposal(
    incident: Incident, snapshot: Snapshot, target: KubeObject, current: Revision, chosen: Revision, revisions: Sequence[Revision]
) -> Proposal:
    template = bare_template(chosen.source.at("spec", "template"))
    spec = dict(target.at("spec"))
    after = {**spec, "template": template}
    replicas = verification.wanted_pods(target)
    at_risk = _ready_of(snapshot, current.source)
    operations = json_patch(target, template)
    scaled_by = autoscaler_of(snapshot, target)
    return Proposal(
        action=ActionType.ROLLBACK_WORKLOAD,
        target=target,
        before_sha256=spec_sha256(spec, scaled=bool(scaled_by)),
        after_sha256=spec_sha256(after, scaled=bool(scaled_by)),
        parameters=RollbackParameters(
            revision_uid=chosen.source.uid,
            revision_name=chosen.source.name,
            to_revision=str(chosen.number),
            template_sha256=chosen.sha256,
            proven_healthy=bool(chosen.proof),
        ),
        inverse=Inverse(ref=current.source.title, uid=current.source.uid, sha256=current.sha256),
        patch=template_patch(target, template),
        impact=_impact(target, current, chosen, replicas, at_risk),
        pods_at_risk=at_risk,
        workload_pods=replicas,
        preflight=_preflight(target, chosen, current),
        caps=tuple(_caps(snapshot, target, current, chosen)),
        command=_command(incident, target, inline=bool(operations)),
        json_patch=operations,
        alternatives=tuple(_alternatives(target, revisions, current, chosen)),
        at_once=min(at_risk, verification.unavailable_allowed(target)),
        scaled_by=scaled_by,
    )


def autoscaler_of(snapshot: Snapshot, target: KubeObject) -> str:
    """The HorizontalPodAutoscaler that owns the target's replicas, as `Kind/name`; empty: none is known."""
    for hpa in snapshot.all("HorizontalPodAutoscaler"):
        if (hpa.at("spec", "scaleTargetRef", "kind"), hpa.at("spec", "scaleTargetRef", "name")) == (target.kind, target.name):
            return hpa.title
    return ""


def _ready_of(snapshot: Snapshot, source: KubeObject) -> int:
    return sum(verification.is_ready(pod) for pod in snapshot.owned_by(source, "Pod"))


def _impact(target: KubeObject, current: Revision, chosen: Revision, replicas: int, at_risk: int) -> str:
    unavailable = target.at("spec", "strategy", "rollingUpdate", "maxUnavailable", default="25%")
    how = (
        "all at once (strategy Recreate)"
        if target.at("spec", "strategy", "type") == "Recreate"
        else f"at most {unavailable} unavailable at a time"
    )
    helm = helm_release(target)
    note = f"; Helm release {helm} does not know of it: run helm rollback, too, before the next upgrade" if helm else ""
    return line(
        f"revision {current.number} → {chosen.number} ({chosen.proof or 'not proven healthy'}); "
        f"{replicas} pods wanted, {at_risk} healthy ones replaced, {how}{note}"
    )


def _preflight(target: KubeObject, chosen: Revision, current: Revision) -> Verdict:
    if target.at("spec", "paused", default=False):
        return refused(Reason.PREFLIGHT, f"{target.title} is paused; kubectl rollout resume deployment/{target.name} first")
    if chosen.sha256 == current.sha256:
        return refused(Reason.PREFLIGHT, "the earlier revision has the same template")
    return passed("not paused, template differs")


def _caps(snapshot: Snapshot, target: KubeObject, current: Revision, chosen: Revision) -> Iterable[Speaker]:
    if not chosen.proof:
        yield Speaker(
            who="preflight",
            level=Level.L3,
            because=f"revision {chosen.number} was never seen healthy by the operator: complete, available and unchanged",
        )
    for thing in (target, current.source):
        if ROLLBACK_BARRIER_ANNOTATION in thing.annotations:
            yield Speaker(
                who="preflight",
                level=Level.L2,
                because=f"{thing.title} carries {ROLLBACK_BARRIER_ANNOTATION}: going back may need more than a template",
            )
            break
    for name, at in _changed_since(snapshot, chosen, current):
        yield Speaker(
            who="preflight",
            level=Level.L3,
            because=f"ConfigMap/{name} changed at {at:%Y-%m-%d %H:%M}Z, after revision {chosen.number} was replaced",
        )


def _changed_since(snapshot: Snapshot, chosen: Revision, current: Revision) -> Iterable[tuple[str, datetime]]:
    """ConfigMaps that the earlier template names and that changed after the failing release: it may not fit them any more."""
    released = current.source.created
    if released is None:
        return
    for name in sorted(configmaps_of(chosen.source.at("spec", "template", default={}))):
        found = snapshot.find("ConfigMap", name)
        if isinstance(found, KubeObject):
            times = [parse_time(m.get("time")) for m in found.at("metadata", "managedFields", default=None) or []]
            last = max((t for t in (*times, found.created) if t is not None), default=None)
            if last is not None and last > released:
                yield name, last


def configmaps_of(template: Mapping[str, Any]) -> set[str]:
    """Names of the ConfigMaps that a pod template refers to."""
    names: set[str] = set()

    def walk(node: object) -> None:
        if isinstance(node, Mapping):
            for key, value in node.items():
                if (
                    key in ("configMapRef", "configMapKeyRef", "configMap")
                    and isinstance(value, Mapping)
                    and isinstance(value.get("name"), str)
                ):
                    names.add(value["name"])
                walk(value)
        elif isinstance(node, list):
            for item in node:
                walk(item)

    walk(template)
    return names


def _alternatives(target: KubeObject, revisions: Sequence[Revision], current: Revision, chosen: Revision) -> Iterable[Alternative]:
    for r in revisions:
        if r not in (current, chosen) and r.number < current.number:
            why = "older than the chosen one" if r.number < chosen.number else "newer, but not proven healthy"
            yield Alternative(action=f"RollbackWorkload to revision {r.number}", why=why)
    yield Alternative(
        action=f"kubectl rollout restart deployment/{target.name}"[:256], why="new pods of the same revision fail in the same way"
    )


def template_patch(target: KubeObject, template: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch that turns the target's template into exactly `template`."""
    return {"spec": {"template": replace_patch(bare_template(target.at("spec", "template", default={})), template)}}


def _template_patch(target: KubeObject, source: Found, uid: str, sha: str) -> Mapping[str, Any] | Unavailable:
    if not isinstance(source, KubeObject):
        return Unavailable(f"{source.title} cannot be read ({getattr(source, 'because', 'it is gone')})")
    template = source.at("spec", "template", default={})
    if source.uid != uid or template_sha256(template) != sha:
        return Unavailable(f"{source.title} is not what it was when the plan was made")
    return template_patch(target, bare_template(template))


def json_patch(target: KubeObject, template: Mapping[str, Any]) -> str:
    """The smallest JSON patch with a test before every change, as one line; empty unless only image names change.

    Other fields (environment, arguments) may hold secrets, so they never enter the Incident: the bytes then come by reference.
    """
    before = bare_template(target.at("spec", "template", default={}))
    operations: list[dict[str, Any]] = json.loads(jsonpatch.make_patch(before, dict(template)).to_string())
    if not operations or not all(o["op"] == "replace" and IMAGE_PATH.match(o["path"]) and _plain(o["value"]) for o in operations):
        return ""
    return json.dumps(guarded(target, before, operations), separators=(",", ":"))


def full_json_patch(target: KubeObject, template: Mapping[str, Any]) -> str:
    """The same with whatever it takes, for `nightorders patch`: made on the human's machine, with the human's own rights."""
    before = bare_template(target.at("spec", "template", default={}))
    operations: list[dict[str, Any]] = json.loads(jsonpatch.make_patch(before, dict(template)).to_string())
    return json.dumps(guarded(target, before, operations), separators=(",", ":"))


def guarded(target: KubeObject, before: Mapping[str, Any], operations: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The operations below /spec/template, after tests that the target is the same object with the same values."""
    tests: list[dict[str, Any]] = [{"op": "test", "path": "/metadata/uid", "value": target.uid}]
    for o in operations:
        if o["op"] in ("replace", "remove"):
            tests.append({"op": "test", "path": "/spec/template" + o["path"], "value": jsonpatch.JsonPointer(o["path"]).resolve(before)})
    moved = [
        {**o, "path": "/spec/template" + o["path"], **({"from": "/spec/template" + o["from"]} if "from" in o else {})} for o in operations
    ]
    return [*tests, *moved]


def _plain(value: object) -> bool:
    return isinstance(value, str) and PLAIN_VALUE.fullmatch(value) is not None


def _command(incident: Incident, target: KubeObject, *, inline: bool) -> tuple[tuple[str, ...], ...]:
    """What a human runs to do exactly this. The patch comes by reference, so that no text from the cluster is ever pasted into a shell."""
    name, namespace = incident.metadata.name, incident.metadata.namespace
    first: tuple[str, ...]
    if inline:
        first = ("kubectl", "get", "incident", name, "-n", namespace, "--no-headers", "-o", "custom-columns=:.status.plan.patch")
    else:
        first = ("nightorders", "patch", name, "-n", namespace)
    return first, ("kubectl", "patch", "deployment", target.name, "-n", namespace, "--type=json", "--patch-file=/dev/stdin")
