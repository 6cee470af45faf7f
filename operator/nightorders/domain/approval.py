"""Annotations + plan → approved, waiting, or rejected.

Admission has checked the claim in the value against the requester (docs/safety.md); here the names are counted. The annotation's
key means nothing: one person can write two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ..api.meta import APPROVE_PREFIX, REJECT_PREFIX, WHY_PREFIX, parse_duration
from ..api.v1alpha1.incident import Approval, Plan
from ..api.v1alpha1.policy import ApprovalSpec

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
        if not key.startswith(APPROVE_PREFIX):
            continue
        digest, user = claim(value)
        if digest == plan.digest and 0 < len(user) <= LONGEST_NAME:
            short = key.removeprefix(APPROVE_PREFIX)
            one = known.get((short, user, digest)) or Approval(user=user, key=short, digest=digest, at=now)
            found.setdefault(user, []).append(one)
    # Few a person, so that nobody crowds others out; each key by itself, since one that is forgotten would look new in every pass.
    return tuple(one for user in sorted(found) for one in found[user][-KEYS_EACH:])[:MOST_APPROVALS]


def judge(
    annotations: Mapping[str, str],
    plan: Plan,
    approvals: tuple[Approval, ...],
    spec: ApprovalSpec,
    requester: str | None,
    operator: str,
    now: datetime,
) -> Answer:
    """Counts distinct people whose approval of exactly this plan is not older than `expiresAfter`."""
    for key, value in sorted(annotations.items()):
        if key.startswith(REJECT_PREFIX):
            digest, user = claim(value)
            if digest == plan.digest and user:
                return Rejected(user, annotations.get(WHY_PREFIX + key.removeprefix(REJECT_PREFIX), ""))
    fresh = {a.user for a in approvals if a.digest == plan.digest and now - a.at < parse_duration(spec.expires_after)}
    barred = {operator} | ({requester} if spec.separated and requester else set())
    counted = tuple(sorted(u for u in fresh if u not in barred and not u.startswith("system:")))
    if len(counted) >= spec.count:
        return Approved(counted)
    return Waiting(spec.count - len(counted), spec.count, counted)
