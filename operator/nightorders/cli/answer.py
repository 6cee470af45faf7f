"""`approve`, `reject`, `withdraw`, `take`: the annotations that kubectl could write as well, with the user's own credentials.

Nothing is decided here. Admission holds the value against the username and the waiting plan; what it refuses is printed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping

from ..api.meta import APPROVE_PREFIX, EMERGENCY_PREFIX, REJECT_PREFIX, TAKE_PREFIX, WHY_PREFIX, line
from ..api.v1alpha1.incident import Incident, Plan
from ..domain.approval import claim
from ..ports import ConflictError, ForbiddenError, PortError
from .errors import CommandError, explained, refused, words
from .session import Session
from .show import waits

REASON_LIMIT = 400
ANSWERS = (APPROVE_PREFIX, REJECT_PREFIX, EMERGENCY_PREFIX)
_KEY_LIMIT = 63


def key_of(username: str) -> str:
    """The username as the part of an annotation's key behind the slash; names that do not fit get a digest, so that two never meet."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", username).strip("-._")
    if safe == username and len(safe) <= _KEY_LIMIT:
        return safe
    return f"{safe[: _KEY_LIMIT - 9].rstrip('-._')}-{hashlib.sha256(username.encode()).hexdigest()[:8]}".lstrip("-")


def free_key(annotations: Mapping[str, str], username: str) -> str:
    """A key that holds nobody else's answer, of whatever sort; one's own may be overwritten. Anybody may have taken the obvious one."""
    base = key_of(username)
    for n in range(100):
        key = base if n == 0 else f"{base[: _KEY_LIMIT - 4].rstrip('-._')}-{n + 1}"
        if all(claim(annotations.get(prefix + key, f"|{username}"))[1] == username for prefix in ANSWERS):
            return key
    raise refused("a hundred keys with your name hold somebody else's answers; look at: kubectl get incident -o yaml")


def waiting_plan(incident: Incident, pinned: str = "") -> Plan:
    """The plan that waits, if it is the pinned one. Raises CommandError."""
    if reason := waits(incident):
        raise refused(f"nothing to answer on Incident {incident.metadata.name}: {reason}")
    plan = incident.status.plan
    assert plan is not None, "waits() says so"
    if pinned and pinned != plan.digest:
        raise refused(
            f"the plan is another one now: you reviewed {pinned}, waiting is {plan.digest}. Review it again: "
            f"nightorders show {incident.metadata.name} -n {incident.metadata.namespace}"
        )
    return plan


async def who(session: Session) -> str:
    """The username as the API server knows it."""
    try:
        return await session.person.username()
    except PortError as error:
        raise explained(error, "ask the API server who you are") from None


def must_be(plan: Plan, incident: Incident, *, emergency: bool) -> None:
    """Whether that sort of approval would count. Raises CommandError."""
    frozen = plan.needs.frozen_by if plan.needs else "None"
    name, namespace = incident.metadata.name, incident.metadata.namespace
    if frozen != "None" and not emergency:
        where = "the platform's" if frozen == "Cluster" else "a"
        raise refused(
            f"{where} freeze is in force: only emergency approvals count. If it cannot wait: nightorders approve {name} -n {namespace} "
            "--emergency --because '…'"
        )
    if frozen == "None" and emergency:
        raise refused(f"no freeze holds this plan back, so there is no emergency: nightorders approve {name} -n {namespace}")


async def approve(session: Session, incident: Incident, digest: str, username: str) -> None:
    """Writes the approval of exactly that digest."""
    key = free_key(incident.metadata.annotations, username)
    await _write(session, incident, {APPROVE_PREFIX + key: f"{digest}|{username}"}, "approved", username)


async def approve_emergency(session: Session, incident: Incident, digest: str, username: str, because: str) -> None:
    """Writes the emergency approval of exactly that digest and its reason in one request."""
    key = free_key(incident.metadata.annotations, username)
    values: dict[str, str | None] = {EMERGENCY_PREFIX + key: f"{digest}|{username}", WHY_PREFIX + key: line(because, REASON_LIMIT)}
    await _write(session, incident, values, "approved", username, role="nightorders-emergency-approver")


async def reject(session: Session, incident: Incident, digest: str, username: str, because: str) -> None:
    """Writes the rejection and its reason in one request."""
    key = free_key(incident.metadata.annotations, username)
    values: dict[str, str | None] = {REJECT_PREFIX + key: f"{digest}|{username}", WHY_PREFIX + key: line(because, REASON_LIMIT)}
    await _write(session, incident, values, "rejected", username)


async def take(session: Session, incident: Incident, username: str) -> dict[str, str | None]:
    """Says that a human is on it. Returns the annotation that says so; empty: it did already."""
    notes = incident.metadata.annotations
    if username in (v for k, v in notes.items() if k.startswith(TAKE_PREFIX)):
        return {}
    key = next(k for k in _keys(username) if TAKE_PREFIX + k not in notes)
    values: dict[str, str | None] = {TAKE_PREFIX + key: username}
    await _write(session, incident, values, "taken", username)
    return values


async def give_back(session: Session, incident: Incident, username: str) -> dict[str, str | None]:
    """Takes one's own back; what somebody else took stays theirs."""
    own = [k for k, v in incident.metadata.annotations.items() if k.startswith(TAKE_PREFIX) and v == username]
    others = sorted({v for k, v in incident.metadata.annotations.items() if k.startswith(TAKE_PREFIX) and v != username})
    if not own:
        by = f"; {', '.join(others)} did" if others else ""
        raise refused(f"{username} has not taken Incident {incident.metadata.name}{by}")
    values: dict[str, str | None] = dict.fromkeys(own)
    await _write(session, incident, values, "given back", username)
    return values


def _keys(username: str) -> Iterator[str]:
    base = key_of(username)
    yield base
    yield from (f"{base[: _KEY_LIMIT - 4].rstrip('-._')}-{n}" for n in range(2, 1000))


def own_answers(incident: Incident, username: str) -> tuple[str, ...]:
    """Keys of the user's own answers that can still be taken back; those that were carried out only if there are no others."""
    notes = incident.metadata.annotations
    answers = {k: claim(v) for k, v in notes.items() if k.startswith(ANSWERS)}
    own = {k: digest for k, (digest, user) in answers.items() if user == username}
    done = {e.plan_digest for e in incident.status.executions}
    open_ones = sorted(k for k, digest in own.items() if digest not in done)
    return tuple(open_ones or sorted(own))


async def withdraw(session: Session, incident: Incident, username: str) -> tuple[str, ...]:
    """Takes the user's own answers back. Returns their keys."""
    keys = own_answers(incident, username)
    if not keys:
        raise refused(f"{username} has given no answer on Incident {incident.metadata.name}; nothing to withdraw")
    whys = [WHY_PREFIX + k.partition("/")[2] for k in keys]
    gone: dict[str, str | None] = dict.fromkeys((*keys, *(w for w in whys if w in incident.metadata.annotations)))
    await _write(session, incident, gone, "withdrawn", username)
    return keys


async def _write(
    session: Session, incident: Incident, values: Mapping[str, str | None], done: str, username: str, role: str = "nightorders-approver"
) -> None:
    try:
        await session.person.annotate(incident, values)
    except ConflictError:
        raise refused(
            f"not {done}: Incident {incident.metadata.name} was deleted and made anew since it was shown; look again: "
            f"nightorders show {incident.metadata.name} -n {incident.metadata.namespace}"
        ) from None
    except ForbiddenError as error:
        raise _not(done, error, incident, username, role) from None
    except PortError as error:
        raise explained(error, f"write the answer (it is not known to be {done})") from None


def _not(done: str, error: ForbiddenError, incident: Incident, username: str, role: str) -> CommandError:
    said = words(error)
    if error.policy:
        said = said.removeprefix(f"ValidatingAdmissionPolicy {error.policy}: ")
        return refused(f"not {done}: the admission policy {error.policy} refuses: {said}")
    return refused(
        f"not {done}: {said}. A RoleBinding of {username} to ClusterRole {role} in namespace "
        f"{incident.metadata.namespace} would allow it; who may grant it: a cluster admin"
    )
