"""`nightorders patch`: the JSON patch of a plan, made on the human's machine from the ReplicaSet that the plan names.

Bytes that might be secret (environment, arguments) never enter an Incident; so they are read here, with the human's own rights, and
only if they are the very bytes that were reviewed. Nothing is printed otherwise, and kubectl refuses an empty patch.
"""

from __future__ import annotations

import re

from ..actions import CATALOGUE
from ..actions.base import Unavailable
from ..actions.rollback import full_json_patch
from ..api.v1alpha1.common import ObjectRef
from ..api.v1alpha1.incident import Incident
from ..domain.digest import bare_template, spec_sha256, template_sha256
from ..domain.snapshot import Absent, KubeObject, NotLooked
from ..ports import ObjectKey
from .errors import cannot_tell, refused, unreachable, usage
from .session import Session

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


async def of_plan(session: Session, incident: Incident) -> str:
    """The patch of that Incident's plan. Raises CommandError where the plan no longer fits."""
    plan = incident.status.plan
    if plan is None:
        raise refused(
            f"Incident {incident.metadata.name} has no plan; see: nightorders show {incident.metadata.name} -n {session.namespace}"
        )
    target = await _read(session, ObjectKey(plan.target.api_version, plan.target.kind, session.namespace, plan.target.name))
    if target.uid != plan.target.uid:
        raise refused(f"the plan no longer fits: {target.title} was deleted and made anew since; nothing is printed")
    now = spec_sha256(target.at("spec", default={}))
    if now == plan.target.after_sha256:
        raise refused(f"nothing to do: {target.title} is already as the plan wants it")
    if now != plan.target.before_sha256:
        raise refused(f"the plan no longer fits: {target.title} was changed since it was made; the operator will look again")
    action = CATALOGUE[plan.action]
    key, _ = action.sources(plan, session.namespace)
    source = await _read(session, key)
    made = action.forward(plan, target, source)
    if isinstance(made, Unavailable):
        raise refused(f"the plan no longer fits: {made.because}; nothing is printed")
    return full_json_patch(target, bare_template(source.at("spec", "template", default={})))


async def of_workload(session: Session, target: ObjectRef, revision: str, sha256: str) -> str:
    """The patch that puts back the template of one ReplicaSet of a Deployment, if it is the one with that digest."""
    if target.kind != "Deployment":
        raise usage(f"patch handles Deployments, not {target.kind}")
    if not _SHA256.fullmatch(sha256):
        raise usage("--sha256 must be the digest of the template that was reviewed, sha256: and 64 hex digits, as diagnose prints it")
    thing = await _read(session, ObjectKey(target.api_version, target.kind, session.namespace, target.name))
    source = await _read(session, ObjectKey("apps/v1", "ReplicaSet", session.namespace, revision))
    if source.controller is None or source.controller.get("uid") != thing.uid:
        raise refused(f"{source.title} is no revision of {thing.title}; nothing is printed")
    template = source.at("spec", "template", default={})
    if template_sha256(template) != sha256:
        raise refused(f"{source.title} is not what it was when it was reviewed; nothing is printed")
    if template_sha256(thing.at("spec", "template", default={})) == sha256:
        raise refused(f"nothing to do: {thing.title} has that template already")
    return full_json_patch(thing, bare_template(template))


async def _read(session: Session, key: ObjectKey) -> KubeObject:
    match await session.reader.get(key):
        case KubeObject() as found:
            return found
        case Absent(title=title):
            raise refused(f"there is no {title} in namespace {key.namespace} any more; nothing is printed")
        case NotLooked(title=title, because=because):
            doing = f"read {title} in namespace {key.namespace}"
            if because.startswith("forbidden"):
                raise cannot_tell(f"cannot {doing}: {because}")
            raise cannot_tell(unreachable(doing, because.removeprefix("failed: ")))
