"""Annotations + plan → approved, waiting, or rejected.

Admission has checked the claim in the value against the requester (docs/safety.md); here the names are counted. The annotation's
key means nothing: one person can write two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..api.meta import APPROVE_PREFIX, EMERGENCY_PREFIX, REJECT_PREFIX, WHY_PREFIX, line
from ..api.v1alpha1.incident import Approval, ApprovalNeeds, Plan

LONGEST_NAME = 256  # of a username; a longer one cannot be recorded, so it cannot count, and must not end the pass


MOST_APPROVALS = 16
KEYS_EACH = 3


@dataclass(frozen=True)
class Waiting:
    """Not enough yet."""

    missing: int
    needed: int
    counted: tuple[str, ...]


@dataclass(frozen=True)
class Approved:
    """Enough different people agree to exactly this plan."""

    by: tuple[str, ...]


@dataclass(frozen=True)
class Rejected:
    """Somebody said no."""

    by: str
    why: str


Answer = Waiting | Approved | Rejected


def claim(value: str) -> tuple[str, str]:
    """`<digest>|<username>` → (digest, username), split at the first `|`, since usernames such as `auth0|bob` exist."""
    digest, _, user = value.partition("|")
    return digest, user


def seen(annotations: Mapping[str, str], plan: Plan, before: tuple[Approval, ...], now: datetime) -> tuple[Approval, ...]:
    """The approvals that are there now, each with the moment the operator first saw it.

    One that vanished is withdrawn. One that stays keeps its first moment, also when the plan is staged again under the same
    digest: an old approval does not become young by waiting.
    """
    known = {(a.key, a.user, a.digest): a for a in before}
    found: dict[str, list[Approval]] = {}
    for key, value in sorted(annotations.items()):
        prefix = next((p for p in (APPROVE_PREFIX, EMERGENCY_PREFIX) if key.startswith(p)), "")
        digest, user = claim(value)
        if not prefix or digest != plan.digest or not 0 < len(user) <= LONGEST_NAME:
            continue
        short, emergency = key.removeprefix(prefix), prefix == EMERGENCY_PREFIX
        why = line(annotations.get(WHY_PREFIX + short, ""), 400)
        if emergency and not why:
            continue
        new = Approval(user=user, key=key, digest=digest, plan=named(plan), at=now, emergency=emergency, why=why)
        found.setdefault(user, []).append(known.get((key, user, digest), new))
    # Few a person, so that nobody crowds others out; each key by itself, since one that is forgotten would look new in every pass.
    return tuple(one for user in sorted(found) for one in found[user][-KEYS_EACH:])[:MOST_APPROVALS]


def named(plan: Plan) -> str:
    """The plan in words, so that an approval says what it was bound to."""
    return line(f"{plan.action} of {plan.target.kind}/{plan.target.name} to revision {plan.parameters.to_revision}", 256)


def judge(
    annotations: Mapping[str, str],
    plan: Plan,
    approvals: tuple[Approval, ...],
    needs: ApprovalNeeds,
    requester: str | None,
    operator: str,
    now: datetime,
) -> Answer:
    """Counts distinct approvers of exactly this plan whose approval is not older than `expiresSeconds`.

    During a freeze only emergency approvals count.
    """
    for key, value in sorted(annotations.items()):
        if key.startswith(REJECT_PREFIX):
            digest, user = claim(value)
            if digest == plan.digest and user:
                return Rejected(user, annotations.get(WHY_PREFIX + key.removeprefix(REJECT_PREFIX), ""))
    frozen = needs.frozen_by != "None"
    lasts = timedelta(seconds=needs.expires_seconds)
    fresh = {a.user for a in approvals if a.digest == plan.digest and now - a.at < lasts and (a.emergency or not frozen)}
    barred = {operator} | ({requester} if needs.separation_of_duties and requester else set())
    counted = tuple(sorted(u for u in fresh if u not in barred and _may_count(u, needs)))
    if len(counted) >= needs.count:
        return Approved(counted)
    return Waiting(needs.count - len(counted), needs.count, counted)


def _may_count(user: str, needs: ApprovalNeeds) -> bool:
    """People always; ServiceAccounts where the orders say so; other `system:` names never."""
    if not user.startswith("system:"):
        return True
    return needs.service_accounts == "Allow" and user.startswith("system:serviceaccount:")
