"""A proposal becomes a plan: one bounded, reversible action with a digest that an approval can bind to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from ..api.meta import APPROVE_PREFIX, EMERGENCY_PREFIX, REJECT_PREFIX, WHY_PREFIX, Level, line, parse_duration
from ..api.v1alpha1.common import ActionType
from ..api.v1alpha1.incident import (
    Alternative,
    ApprovalNeeds,
    CheckSpec,
    DryRun,
    Incident,
    Inverse,
    Pause,
    Plan,
    PlanTarget,
    RollbackParameters,
    Speaker,
    VerifySpec,
)
from ..api.v1alpha1.policy import Rule, Verify
from .digest import sha256, spec_sha256
from .orders import Governing
from .reasons import Reason
from .snapshot import KubeObject
from .verdict import Verdict


@dataclass(frozen=True)
class Proposal:
    """What an action of the catalogue would do here.

    `patch` is a JSON merge patch of the target without metadata; `after_sha256` the digest of the spec it leads to.
    `caps` are ceilings on the level; `preflight` refuses where the action must not run at all. `at_once`: healthy pods that may be
    down at the same time; `scaled_by`: the autoscaler that owns spec.replicas, which the digests then leave out.
    `checks`: of runbooks, beside those of the rule that governs.
    """

    action: ActionType
    target: KubeObject
    before_sha256: str
    after_sha256: str
    parameters: RollbackParameters
    inverse: Inverse
    patch: Mapping[str, Any]
    impact: str
    pods_at_risk: int
    workload_pods: int
    preflight: Verdict
    caps: tuple[Speaker, ...]
    command: tuple[tuple[str, ...], ...]
    json_patch: str
    alternatives: tuple[Alternative, ...]
    at_once: int = 0
    scaled_by: str = ""
    undo: Literal["Exact", "SelfHealing", "None"] = "Exact"
    checks: tuple[CheckSpec, ...] = ()


@dataclass(frozen=True)
class NoProposal:
    """No action of the catalogue removes this origin, and why."""

    reason: Reason
    message: str
    alternatives: tuple[Alternative, ...] = ()


def fill(promql: str, variables: Mapping[str, str]) -> str:
    """A policy's query with the workload's names in it, escaped for a quoted label value."""
    for key, value in variables.items():
        promql = promql.replace(f"${key}", value.replace("\\", "\\\\").replace('"', '\\"'))
    return line(promql)


def verify_spec(verify: Verify, variables: Mapping[str, str]) -> VerifySpec:
    """The verification as it will run: durations in seconds, variables filled in (escaped for a quoted label value)."""

    return VerifySpec(
        seconds=max(1, int(parse_duration(verify.for_).total_seconds())),
        every_seconds=max(1, int(parse_duration(verify.every).total_seconds())),
        checks=tuple(
            CheckSpec(
                name=c.name, promql=None if c.promql is None else fill(c.promql, variables), max=c.max, min=c.min, condition=c.condition
            )
            for c in verify.checks
        ),
        on_worse=verify.on_worse,
        on_unchanged=verify.on_unchanged,
        on_no_data=verify.on_no_data,
    )


def content_sha256(incident_uid: str, proposal: Proposal, verify: VerifySpec, pause: Pause | None = None) -> str:
    """Digest of all that a human approves, without the sequence number."""
    return sha256(
        {
            "incident": incident_uid,
            "action": proposal.action.value,
            "target": proposal.target.uid,
            "before": proposal.before_sha256,
            "after": proposal.after_sha256,
            "parameters": proposal.parameters.wire(),
            "inverse": proposal.inverse.wire(),
            "verify": verify.wire(),
            **({"pause": pause.wire()} if pause else {}),
        }
    )


def digest_for(plan: Plan, target: KubeObject) -> str:
    """Digest of the target's spec, as the plan's own digests were taken."""
    return spec_sha256(target.at("spec", default={}), scaled=bool(plan.target.scaled_by))


def plan_digest(content: str, sequence: int) -> str:
    """Digest of a plan: its content and its place among the Incident's plans, so that no earlier approval fits."""
    return sha256({"content": content, "sequence": sequence})


def execution_id(digest: str) -> str:
    """Deterministic id of the execution of a plan: `no-` and 20 hex digits. Fits a label value."""
    return "no-" + hashlib.sha256(digest.encode()).hexdigest()[:20]


def rule_verify(proposal: Proposal, rule: Rule, namespace: str) -> VerifySpec:
    """The rule's verification for this target, and what runbooks add to it."""
    own = verify_spec(rule.verify, variables_of(proposal.target, namespace))
    return own.model_copy(update={"checks": (*own.checks, *proposal.checks)}) if proposal.checks else own


def variables_of(target: KubeObject, namespace: str) -> dict[str, str]:
    """What `$namespace`, `$name` and `$kind` stand for in a policy's query."""
    return {"namespace": namespace, "name": target.name, "kind": target.kind}


def stage(
    incident: Incident,
    proposal: Proposal,
    governing: Governing,
    level: Level,
    ordered: Level,
    dry_run: DryRun | None,
    now: datetime,
    *,
    needs: ApprovalNeeds,
    pause: Pause | None = None,
) -> Plan:
    """The plan of a proposal. The same content keeps its sequence and digest; anything new gets the next one."""
    verify = rule_verify(proposal, governing.rule, incident.metadata.namespace)
    content = content_sha256(incident.metadata.uid, proposal, verify, pause)
    old = incident.status.plan
    same = old is not None and old.content_sha256 == content
    sequence = incident.status.plan_sequence if same else incident.status.plan_sequence + 1
    digest = plan_digest(content, sequence)
    waits = level == Level.L3
    prefix = APPROVE_PREFIX if needs.frozen_by == "None" else EMERGENCY_PREFIX
    return Plan(
        digest=digest,
        content_sha256=content,
        sequence=sequence,
        action=proposal.action,
        target=PlanTarget(
            api_version=proposal.target.api_version,
            kind=proposal.target.kind,
            name=proposal.target.name,
            uid=proposal.target.uid,
            before_sha256=proposal.before_sha256,
            after_sha256=proposal.after_sha256,
            scaled_by=proposal.scaled_by,
        ),
        parameters=proposal.parameters,
        undo=proposal.undo,
        inverse=proposal.inverse,
        verify=verify,
        needs=needs if waits else None,
        pause=pause,
        impact=line(proposal.impact),
        dry_run=dry_run,
        command=proposal.command,
        patch=proposal.json_patch,
        approve=annotate_command(incident, digest, prefix) if waits else "",
        reject=annotate_command(incident, digest, REJECT_PREFIX) if waits else "",
        staged_at=now,
        staged_level=min(ordered, old.staged_level) if same and old is not None else ordered,
        expires_at=now + parse_duration(governing.rule.approval.expires_after) if waits else None,
        rule=line(governing.title, 256),
        pods_at_risk=proposal.pods_at_risk,
        alternatives=proposal.alternatives,
    )


def annotate_command(incident: Incident, digest: str, prefix: str) -> str:
    """Ready to paste; who you are comes from the API server, not from us. The key means nothing, it only must be new.

    An emergency approval needs its reason in the same request.
    """
    name = f"kubectl annotate incident {incident.metadata.name} -n {incident.metadata.namespace} "
    me = "$(kubectl auth whoami -o jsonpath={.status.userInfo.username})"
    if prefix == EMERGENCY_PREFIX:
        return f'at=at-$(date +%s); {name}"{prefix}$at={digest}|{me}" "{WHY_PREFIX}$at=REASON"'
    return f'{name}"{prefix}at-$(date +%s)={digest}|{me}"'
