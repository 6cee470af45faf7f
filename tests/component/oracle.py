"""What must hold of every run, read from the store's journal alone: whatever happened, was it allowed at that moment, and once only?"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from nightorders.api.meta import (
    APPROVE_PREFIX,
    EXECUTION_LABEL,
    FINALIZER,
    MAX_LEVEL_ANNOTATION,
    PAUSED_BY_ANNOTATION,
    REJECT_PREFIX,
    STOP_CONFIGMAP,
    TAKE_PREFIX,
)
from nightorders.domain.digest import spec_sha256
from nightorders.domain.gitops import SKIP_RECONCILE
from nightorders.domain.plan import execution_id
from nightorders.domain.snapshot import parse_time
from tests.component.fakes import Committed, Json
from tests.component.world import IDENTITY, OWNERS, SHOP, SYSTEM, World


def check(w: World) -> None:
    """Raises AssertionError with the promise that was broken."""
    forward: Counter[str] = Counter()
    backward: Counter[str] = Counter()
    for c in w.mutations():
        assert c.call.kind == "Deployment", c.call
        assert c.before is not None
        assert c.after is not None
        _touches_only_template_and_stamp(c)
        stamp = c.after["metadata"]["labels"][EXECUTION_LABEL]
        incident, execution = _who(c, stamp)
        plan = incident["status"]["plan"]
        assert execution_id(plan["digest"]) == stamp, "the stamp is not that of the saved plan"
        assert plan["target"]["uid"] == c.before["metadata"]["uid"]
        before, after = spec_sha256(c.before["spec"]), spec_sha256(c.after["spec"])
        assert FINALIZER in incident["metadata"].get("finalizers", ()), "no finalizer"
        if execution["state"] == "Reserved":
            forward[stamp] += 1
            assert (before, after) == (plan["target"]["beforeSha256"], plan["target"]["afterSha256"]), "not what was planned"
            _allowed(w, c, incident, plan, execution)
        else:
            assert execution["state"] == "Undoing", execution
            backward[stamp] += 1
            assert forward[stamp] == 1, "an undo of what was never done"
            assert (before, after) == (plan["target"]["afterSha256"], plan["target"]["beforeSha256"]), "an undo of something else"
    _owners(w)
    assert all(n == 1 for n in (*forward.values(), *backward.values())), f"more than one effect: {forward} {backward}"
    _books(w)


def _owners(w: World) -> None:
    """A GitOps owner is only ever paused under a record in the Ledger, and never in place of somebody else's pause; only our own is lifted."""
    for c in w.pausings():
        assert c.before is not None
        assert c.after is not None
        (before, was), (after, now) = _rest_and_pause(c.before), _rest_and_pause(c.after)
        assert before == after, f"more than the pause was changed: {c.call}"
        known = {
            p["execution"]
            for (kind, _, _), raw in c.world.items()
            if kind == "Ledger"
            for p in raw["spec"].get("pauses", ())
            if (p["pause"]["kind"], p["pause"]["namespace"], p["pause"]["name"]) == (c.call.kind, c.call.namespace, c.call.name)
        }
        mark = (c.after if now else c.before)["metadata"].get("annotations", {}).get(PAUSED_BY_ANNOTATION)
        assert mark in known, f"{'paused' if now else 'lifted'} without a record: {c.call}"
        if now:
            _, execution = _who(c, str(mark))
            assert execution["state"] == "Reserved"
            earlier = c.before["metadata"].get("annotations", {}).get(PAUSED_BY_ANNOTATION)
            assert not was or earlier, "somebody else's pause was taken over"
    if w.incidents() and w.ended() and not any(raw["spec"].get("pauses") for raw in w.api.all("Ledger")):
        for kind in OWNERS:
            for raw in w.api.all(kind):
                assert PAUSED_BY_ANNOTATION not in raw["metadata"].get("annotations", {}), "a pause stayed behind that no book knows"


def _rest_and_pause(raw: Json) -> tuple[Json, bool]:
    keys = (SKIP_RECONCILE, PAUSED_BY_ANNOTATION)
    notes = raw["metadata"].get("annotations", {})
    meta = {k: v for k, v in raw["metadata"].items() if k not in ("resourceVersion", "generation")}
    meta["annotations"] = {k: v for k, v in notes.items() if k not in keys}
    spec = {k: v for k, v in raw.get("spec", {}).items() if k != "suspend"}
    return {**raw, "metadata": meta, "spec": spec}, notes.get(SKIP_RECONCILE) == "true" or raw.get("spec", {}).get("suspend") is True


def _touches_only_template_and_stamp(c: Committed) -> None:
    assert c.before is not None
    assert c.after is not None

    def rest(raw: Json) -> Json:
        meta = {k: v for k, v in raw["metadata"].items() if k not in ("resourceVersion", "generation")}
        meta["labels"] = {k: v for k, v in meta.get("labels", {}).items() if k != EXECUTION_LABEL}
        return {**raw, "metadata": meta, "spec": {k: v for k, v in raw["spec"].items() if k != "template"}}

    assert rest(c.before) == rest(c.after), "more than the template and the stamp was changed"


def _who(c: Committed, stamp: str) -> tuple[Json, Json]:
    for (kind, _, _), raw in c.world.items():
        if kind == "Incident":
            for e in raw.get("status", {}).get("executions", ()):
                if e["id"] == stamp and e["state"] != "Ended":
                    return raw, e
    raise AssertionError(f"no saved intention for {stamp}")


def _allowed(w: World, c: Committed, incident: Json, plan: Json, execution: Json) -> None:
    ns = c.call.namespace
    world = c.world
    assert plan.get("dryRun"), "no dry run"
    first = w.api.calls.index(c.call)
    assert any(x.verb == "dry-run" for x in w.api.calls[:first]), "no dry run was asked for"
    for place in (ns, SYSTEM):
        assert ("ConfigMap", place, STOP_CONFIGMAP) not in world, "stopped"
    assert not incident["spec"].get("suspend"), "suspended"
    assert not incident["metadata"].get("deletionTimestamp"), "the Incident is being deleted"
    for key in (("Ledger", SHOP, "ledger"), ("Ledger", SYSTEM, "fleet")):
        held = [r["execution"] for r in world[key]["spec"].get("reservations", ())]
        assert execution["id"] in held, f"no slot in {key}"
        assert len(held) == len(set(held))
    assert not any(k.startswith(TAKE_PREFIX) and v for k, v in incident["metadata"].get("annotations", {}).items()), "taken"
    for (kind, where, _), raw in world.items():
        if kind == "ClusterRemediationPolicy" or (kind, where) == ("RemediationPolicy", ns):
            assert raw["spec"].get("enforcement", "Enforce") == "Enforce", "in Shadow"
            assert execution.get("emergency") or not any(_holds(f, c.at) for f in raw["spec"].get("freezes", ())), "frozen"
    level, rule = _level(world, ns, c.before or {})
    assert level in ("L3", "L4"), f"the orders say {level}"
    alone = next(x for x in incident["status"]["conditions"] if x["type"] == "Approved")["reason"] == "NotRequired"
    if alone:
        assert level == "L4", f"acted alone at {level}"
    else:
        _agreed(w, incident, plan, execution, rule)


def _holds(freeze: Json, at: datetime) -> bool:
    begin, end = (parse_time(freeze.get(k)) for k in ("from", "until"))
    return begin is None or end is None or begin <= at < end


def _level(world: Any, ns: str, target: Json) -> tuple[str, Json]:
    """What is written, counted anew."""
    labels = {k: v for k, v in target["metadata"].get("labels", {}).items() if not k.startswith("nightorders.dev/")}
    rules = [
        rule
        for (kind, where, _), raw in world.items()
        if kind == "RemediationPolicy" and where == ns and raw["spec"]["selector"].get("matchLabels", {}).items() <= labels.items()
        for rule in raw["spec"]["rules"]
    ]
    assert len(rules) == 1, f"{len(rules)} rules govern"
    levels = [rules[0]["level"]]
    for (kind, _, _), raw in world.items():
        if kind == "ClusterRemediationPolicy" and (not raw["spec"].get("namespaces") or ns in raw["spec"]["namespaces"]):
            levels += [x["level"] for x in raw["spec"].get("ceilings", ())]
    for raw in (target, world[("Namespace", "", ns)]):
        if (value := raw["metadata"].get("annotations", {}).get(MAX_LEVEL_ANNOTATION)) is not None:
            levels.append(value if value in ("L1", "L2", "L3", "L4") else "L1")
    return min(levels), rules[0]


def _agreed(w: World, incident: Json, plan: Json, execution: Json, rule: Json) -> None:
    reserved = next(
        x
        for x in w.api.journal
        if x.call.kind == "Incident"
        and x.after
        and any(e["id"] == execution["id"] for e in x.after.get("status", {}).get("executions", ()))
    )
    assert reserved.after is not None
    notes = reserved.after["metadata"].get("annotations", {})
    requester = incident["spec"].get("requestedBy") if rule["approval"]["count"] > 1 else None
    young = [_given(w, reserved, key, value) for key, value in notes.items() if key.startswith(APPROVE_PREFIX)]
    people = {user for digest, user, at in young if digest == plan["digest"] and _fresh(at, reserved.at, rule)} - {
        IDENTITY.username,
        requester,
        "",
    }
    people = {p for p in people if not p.startswith("system:")}
    assert len(people) >= rule["approval"]["count"], f"approved by {people} only"
    assert not any(k.startswith(REJECT_PREFIX) and v.startswith(plan["digest"]) for k, v in notes.items()), "rejected"


def _given(w: World, until: Committed, key: str, value: str) -> tuple[str, str, datetime]:
    """(digest, user, since when it stands there without a break)."""
    digest, _, user = value.partition("|")
    since = until.at
    for x in reversed(w.api.journal[: w.api.journal.index(until)]):
        if x.call.kind == "Incident" and x.call.name == until.call.name:
            if x.after is None or x.after["metadata"].get("annotations", {}).get(key) != value:
                break
            since = x.at
    return digest, user, since


def _fresh(at: datetime, now: datetime, rule: Json) -> bool:
    minutes = rule["approval"].get("expiresAfter", "15m")
    return (now - at).total_seconds() < (int(minutes[:-1]) * {"m": 60, "s": 1}[minutes[-1]]) + 2  # the operator sees it a moment later


def _books(w: World) -> None:
    """When nothing is under way: no slot, no finalizer; each execution has one outcome, and both books and the Incident agree on it."""
    if not w.incidents() or not w.ended():
        return
    told = {e.id: e for i in w.incidents() for e in i.status.executions}
    for raw in w.api.all("Ledger"):
        outcomes = raw["spec"].get("outcomes", [])
        assert len({o["execution"] for o in outcomes}) == len(outcomes)
        for o in outcomes:
            if o["execution"] in told:
                e = told[o["execution"]]
                assert o["result"] == e.result, f"the books say {o['result']}, the Incident {e.result}"
                assert parse_time(o["at"]) == e.reserved_at
        held = {r["execution"] for r in raw["spec"].get("reservations", ())}
        assert not held & set(told), f"slots still taken: {held}"
    if ("Ledger", SHOP, "ledger") in w.api.objects:
        known = {o.execution for o in w.ledger().spec.outcomes}
        assert {e.id for e in told.values() if e.by == "operator"} <= known, "an execution without an outcome"
