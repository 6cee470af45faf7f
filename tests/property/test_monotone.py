"""Nothing that is lowered, removed, unknown or malformed ever raises the level; nothing that is added to the books pardons a failure."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nightorders.api.meta import MAX_LEVEL_ANNOTATION, TAKE_PREFIX, Level
from nightorders.api.v1alpha1 import Category, ClusterRemediationPolicy, IncidentStatus
from nightorders.api.v1alpha1.incident import Speaker
from nightorders.api.v1alpha1.policy import Breaker, Earn
from nightorders.domain import breaker, gates, scores, standing
from nightorders.domain.autonomy import Voices, effective
from nightorders.domain.judgement import approval_needs, stricter
from nightorders.domain.orders import Governing, Orders, governing_rule
from nightorders.domain.situation import BudgetAnswer
from nightorders.domain.snapshot import KubeObject
from tests.unit.domain.make import (
    ARGO,
    HOUR,
    MINUTE,
    NAMESPACE,
    NOW,
    ROLLBACK,
    SECOND,
    autonomy,
    ceiling,
    cluster_policy,
    deployment,
    hypothesis,
    incident,
    ledger,
    orders,
    outcome,
    plan,
    policy,
    question,
    rejection,
    reservation,
    rule_json,
    situation,
    stamp,
    voices,
)

L1, L2, L3, L4 = Level.L1, Level.L2, Level.L3, Level.L4
FEW = settings(max_examples=200, deadline=None)
MANY = settings(max_examples=400, deadline=None)
HPA = "HorizontalPodAutoscaler/checkout"
HELD = {"name": "f", "from": stamp(NOW - HOUR), "until": stamp(NOW + HOUR)}
FREEZES = {
    "none": [],
    "over": [{**HELD, "until": stamp(NOW)}],
    "held": [HELD],
    "broken": [{"name": "f", "schedule": "0 18 * *", "duration": "1h"}],
}
OUTCOMES = {
    "nothing": (),
    "four confirmed": tuple(outcome(f"no-s{i}", f"Deployment/w{i}", at=NOW - (9 - i) * HOUR, confirmed="Human") for i in range(4)),
    "four claimed": tuple(outcome(f"no-s{i}", f"Deployment/w{i}", at=NOW - (9 - i) * HOUR) for i in range(4)),
    "failed once": (outcome("no-f", "Deployment/w", at=NOW - HOUR, result="Undone"),),
    "failed here": (outcome("no-f", "Deployment/checkout", at=NOW - 3 * HOUR, result="Undone"),),
    "half-open": tuple(outcome(f"no-f{i}", "Deployment/w", at=NOW - 2 * HOUR - i * MINUTE, result="Undone") for i in range(3)),
    "open": tuple(outcome(f"no-f{i}", "Deployment/w", at=NOW - 5 * MINUTE - i * MINUTE, result="Undone") for i in range(3)),
}

# Every input of the level, each from the best that it can be to the worst: lowered, removed, unknown, malformed.
SCALES: dict[str, tuple[Any, ...]] = {
    "rule": (L4, L3, L2, L1),
    "policies": ("one", "two", "none", "unreadable"),
    "ceiling": (None, L4, L3, L2, L1),
    "another ceiling": (None, L3, L1),
    "object": (None, "L4", "L3", "L2", "L1", "l4", "", "L4 ", "４"),
    "namespace": (None, "L4", "L2", "x"),
    "earn": (None, L4, L3, L2, L1),
    "successes": ("four confirmed", "four claimed", "nothing", "failed once"),
    "failures": ("nothing", "failed once", "half-open", "open"),
    "failed here": ("nothing", "failed here"),
    "rejected here": (False, True),
    "freeze": ("none", "over", "held", "broken"),
    "freeze of the platform": ("none", "held", "broken"),
    "emergency": (True, False),
    "orders of the platform": ("there", "gone"),
    "fleet": (True, False),
    "detected": (None, L4, L3, L2, L1),
    "staged": (None, L4, L3, L2, L1),
    "cap": (None, L4, L3, L2, L1),
    "guard": (True, False),
    "schemas": (True, False),
    "unknown": ((), ("policies: time-out",), ("a", "b")),
    "opened by": ("operator", "alice", "nobody"),
    "grade": ("A", "B", "C", "D", None),
    "category": (Category.IMAGE_ACCESS, Category.UNKNOWN),
    "gaps": (0, 1, 3, 5, 40),
    "evidence": (timedelta(0), MINUTE, 61 * SECOND, 5 * MINUTE, 301 * SECOND, None),
    "clock": (timedelta(0), -2 * MINUTE),
    "sources": (("Kubernetes", "Logs"), ("Logs",)),
    "undo": ("Exact", "None"),
    "pods": (0, 1, 2, 3, 99),
    "tier": (0, 10, 25, 60, 100),
    "scaled": ("", HPA),
    "owner": (None, ARGO),
    "neighbours": (0, 1, 3, 5, 900),
    "changed": (NOW - HOUR, NOW - 15 * MINUTE, NOW - 14 * MINUTE, NOW, NOW + HOUR),
    "error budget": (BudgetAnswer(0.5, 0.1), BudgetAnswer(0.1, 0.1), BudgetAnswer(0.09, 0.1), BudgetAnswer(-3.0, 0.1), BudgetAnswer(None, 0.1)),
    "victim": (False, True),
    "taken": (None, "", "eve"),
    "labels": ("web", "was gold"),
    "pods wanted": (3, 1, 0),
}  # fmt: skip
BEST = {name: scale[0] for name, scale in SCALES.items()}
# Most things are at their best in most cases: with everything free, everything would be L1 for five reasons.
INPUTS = st.lists(st.sampled_from(sorted(SCALES)), max_size=5, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({n: st.sampled_from(SCALES[n]) for n in names}).map(lambda found: {**BEST, **found})
)


@lru_cache(maxsize=4096)
def team(level: Level, earn: Level | None, freeze: str, emergency: bool) -> Any:
    earns = {"earn": {"from": earn.value, "successes": 2}} if earn else {}
    rule = rule_json(level=level.value, approval={"emergency": "Allow" if emergency else "Deny", "count": 2}, **earns)
    return policy("web", rule, freezes=FREEZES[freeze])


@lru_cache(maxsize=4096)
def platform(freeze: str, tier: int, one: Level | None, two: Level | None) -> tuple[ClusterRemediationPolicy, ...]:
    gold = {"name": "gold", "selector": {"matchLabels": {"tier": "gold"}}}
    all_ = {"name": "all", "selector": {}, "risk": tier}
    made = [cluster_policy("base", freezes=FREEZES[freeze], tiers=[gold, all_])]
    return (*made, *(ceiling(x.value, n) for x, n in ((one, "a"), (two, "b")) if x is not None))


def noted(value: str | None) -> dict[str, str]:
    return {} if value is None else {MAX_LEVEL_ANNOTATION: value}


def made(x: dict[str, Any]) -> Voices:
    team_orders = {
        "one": Orders((team(x["rule"], x["earn"], x["freeze"], x["emergency"]),)),
        "two": Orders((team(x["rule"], x["earn"], x["freeze"], x["emergency"]), policy("second"))),
        "none": Orders(),
        "unreadable": Orders((team(x["rule"], x["earn"], x["freeze"], x["emergency"]),), unreadable=("x",)),
    }[x["policies"]]
    gone = x["orders of the platform"] == "gone"
    cluster = () if gone else platform(x["freeze of the platform"], x["tier"], x["ceiling"], x["another ceiling"])
    past = (*OUTCOMES[x["successes"]], *OUTCOMES[x["failures"]], *OUTCOMES[x["failed here"]])
    spec: dict[str, Any] = {"outcomes": past, "rejections": (rejection("bob"),) if x["rejected here"] else ()}
    if x["labels"] == "was gold":
        spec["workloads"] = ({"uid": "uid-checkout", "workload": "Deployment/checkout", "labels": {"app": "checkout", "tier": "gold"}},)
    asked = {"operator": {}, "alice": {"signal": None, "requestedBy": "alice"}, "nobody": {"signal": None}}[x["opened by"]]
    told = {f"{TAKE_PREFIX}x": x["taken"]} if x["taken"] is not None else {}
    status = IncidentStatus(autonomy=autonomy(detected=x["detected"]) if x["detected"] else None)
    top = hypothesis(x["grade"], category=x["category"], **({"object": "ConfigMap/x"} if x["victim"] else {})) if x["grade"] else None
    return voices(
        orders=replace(team_orders, cluster=cluster),
        target=deployment(notes=noted(x["object"])),
        namespace_object=KubeObject({"metadata": {"name": NAMESPACE, "annotations": noted(x["namespace"])}}, "Namespace", "v1"),
        incident=incident(status, annotations=told, **asked),
        ledger=ledger(**spec),
        fleet=ledger("fleet", cluster_policies=True, namespaces=(NAMESPACE,)) if x["fleet"] else None,
        hypothesis=top,
        plan=plan(staged_level=x["staged"]) if x["staged"] else None,
        caps=(Speaker(who="preflight", level=x["cap"]),) if x["cap"] else (),
        guard_proven=x["guard"],
        schemas_current=x["schemas"],
        unknown=x["unknown"],
        gaps=tuple(f"g{i}" for i in range(x["gaps"])),
        evidence_at=None if x["evidence"] is None else NOW - x["evidence"] - x["clock"],
        evidence_sources=x["sources"],
        undo=x["undo"],
        pods_at_risk=x["pods"],
        workload_pods=x["pods wanted"],
        scaled_by=x["scaled"],
        owner=x["owner"],
        neighbours=x["neighbours"],
        changed_at=x["changed"],
        error_budget=x["error budget"],
    )


def level(x: dict[str, Any]) -> Level:
    return effective(made(x), NOW).level


def better_and_worse(x: dict[str, Any], name: str, i: int, j: int) -> tuple[dict[str, Any], dict[str, Any]]:
    scale = SCALES[name]
    a, b = sorted((i % len(scale), j % len(scale)))
    return {**x, name: scale[a]}, {**x, name: scale[b]}


# Where what is lost held something stricter than its loss does: nobody acts on it either way (threats.md 8, 28).
LOST = {"orders of the platform": L2, "fleet": L3}


@MANY
@given(INPUTS, st.sampled_from(sorted(set(SCALES) - {"clock", "evidence"})), st.integers(0, 9), st.integers(0, 9))
def test_the_level_never_rises_when_a_single_input_gets_worse(x: dict[str, Any], name: str, i: int, j: int) -> None:
    better, worse = better_and_worse(x, name, i, j)
    assert level(worse) <= max(level(better), LOST.get(name, L1)), (name, better[name], worse[name])


def test_every_single_input_lowers_from_the_best() -> None:
    """Each end of each scale is worse than its beginning, so that the property above is about something."""
    assert level(BEST) == L4
    fine = {
        "gaps",
        "pods",
        "neighbours",
        "pods wanted",
        "scaled",
        "successes",
        "emergency",
        "opened by",
    }  # too little alone, or nothing asks for it
    for name, scale in SCALES.items():
        if name not in fine:
            assert level({**BEST, name: scale[-1]}) < L4, name
    assert level({**BEST, "earn": L2, "successes": "nothing"}) == L2
    assert level({**BEST, "earn": L2}) == L4
    assert level({**BEST, "freeze": "held"}) == L3


@MANY
@given(INPUTS, st.integers(0, 9), st.integers(0, 9))
def test_older_evidence_never_raises(x: dict[str, Any], i: int, j: int) -> None:
    better, worse = better_and_worse({**x, "clock": timedelta(0)}, "evidence", i, j)
    assert level(worse) <= level(better)
    assert level({**x, "clock": -2 * MINUTE, "evidence": timedelta(0)}) <= L1


@FEW
@given(INPUTS)
def test_either_score_alone_lowers(x: dict[str, Any]) -> None:
    v = made(x)
    trust, risk = scores.trust(v, NOW), scores.risk(v, NOW)
    assert effective(v, NOW).level <= min(trust.level, risk.level)
    calm = made(
        {**x, **{n: BEST[n] for n in ("pods", "tier", "scaled", "owner", "neighbours", "changed", "error budget", "victim", "taken")}}
    )
    assert scores.risk(calm, NOW).value == 0
    assert scores.trust(calm, NOW) == trust, "risk plays no part in trust"
    sure = made(
        {**x, **{n: BEST[n] for n in ("grade", "category", "gaps", "evidence", "clock", "sources", "failed here", "rejected here")}}
    )
    assert scores.trust(sure, NOW).value == 100
    if not x["victim"]:
        assert scores.risk(sure, NOW) == risk, "trust plays no part in risk"


@FEW
@given(INPUTS, st.booleans())
def test_a_lost_ledger_never_leads_above_advice(x: dict[str, Any], known: bool) -> None:
    v = made(x)
    assert effective(replace(v, ledger=None), NOW).level <= (L2 if x["fleet"] else L3)
    unheard = replace(v, ledger=None, fleet=ledger("fleet") if known else None)
    assert effective(unheard, NOW).level <= L3


# ---------------------------------------------------------------- adding and removing orders

LEVELS = st.sampled_from([x.value for x in Level])
SELECTORS = st.sampled_from([{}, {"matchLabels": {"tier": "web"}}, {"matchLabels": {"tier": "db"}}])


@st.composite
def platforms(draw: Any, name: str = "new") -> ClusterRemediationPolicy:
    """Any ClusterRemediationPolicy."""
    some = st.booleans()
    spec: dict[str, Any] = {"namespaces": draw(st.sampled_from([[], [], [NAMESPACE], ["billing"]]))}
    if draw(some):
        spec["ceilings"] = [{"name": "c", "level": draw(LEVELS), "types": draw(st.sampled_from([[], ["RollbackWorkload"]]))}]
    if draw(some):
        spec["protected"] = [{"name": "p", "selector": draw(SELECTORS)}]
    if draw(some):
        spec["freezes"] = FREEZES[draw(st.sampled_from(sorted(FREEZES)))]
    if draw(some):
        spec["tiers"] = [{"name": "t", "selector": draw(SELECTORS), "risk": draw(st.integers(0, 100)), "maxPods": draw(st.integers(0, 3))}]
    if draw(some):
        spec["approval"] = {
            "minCount": draw(st.integers(1, 5)),
            "separationOfDuties": draw(st.sampled_from(["Required", "TeamDecides"])),
            "serviceAccounts": draw(st.sampled_from(["Deny", "TeamDecides"])),
        }
    if draw(some):
        spec["fleet"] = {"maxConcurrent": draw(st.integers(0, 9)), "namespaceShare": draw(st.integers(0, 100))}
    if draw(some):
        spec["gitOpsPause"] = draw(st.sampled_from(["Deny", "TeamDecides"]))
    return cluster_policy(name, **spec)


@FEW
@given(INPUTS, platforms())
def test_adding_an_order_of_the_platform_never_raises(x: dict[str, Any], new: ClusterRemediationPolicy) -> None:
    v = made(x)
    after = replace(v, orders=replace(v.orders, cluster=(*v.orders.cluster, new)))
    missed = x["orders of the platform"] == "gone" and x["fleet"]  # then any order of the platform says that this is meant
    if not missed:
        assert effective(after, NOW).level <= effective(v, NOW).level


def asked(found: Orders, **fields: Any) -> gates.Question:
    busy = ledger("fleet", reservations=(reservation("no-1"), reservation("no-2", namespace="billing")))
    return question(orders=found, fleet=busy, risk=gates.Risk(1, 3, question().risk.preflight), **fields)


@FEW
@given(platforms("a"), platforms("new"))
def test_adding_an_order_of_the_platform_opens_no_gate(old: ClusterRemediationPolicy, new: ClusterRemediationPolicy) -> None:
    before = {r.gate for r in gates.judge(asked(orders(cluster=(old,))), NOW)[0] if not r.allowed}
    after = {r.gate for r in gates.judge(asked(orders(cluster=(old, new))), NOW)[0] if not r.allowed}
    assert before <= after


@FEW
@given(platforms("a"), platforms("new"), st.integers(1, 5), st.sampled_from([None, True, False]), st.sampled_from(["Deny", "Allow"]))
def test_orders_of_the_platform_only_tighten_approvals(
    old: ClusterRemediationPolicy, new: ClusterRemediationPolicy, count: int, separated: bool | None, accounts: str
) -> None:
    """But for ServiceAccounts, which somebody of the platform must allow and nobody may deny."""
    rule = rule_json(
        approval={"count": count, "serviceAccounts": accounts, **({} if separated is None else {"separationOfDuties": separated})}
    )
    before, after = (
        approval_needs(situation(orders=o), governing_rule(o, deployment().labels, ROLLBACK), ROLLBACK, NOW)
        for o in (orders(policy("web", rule), cluster=c) for c in ((old,), (old, new)))
    )
    assert after.count >= before.count
    assert after.separation_of_duties >= before.separation_of_duties
    assert (after.frozen_by != "None") >= (before.frozen_by != "None")
    assert accounts == "Allow" or after.service_accounts == "Deny"
    both = stricter(before, after)
    assert both.service_accounts == "Deny" or before.service_accounts == after.service_accounts == "Allow"
    assert (both.count, both.separation_of_duties) == (after.count, after.separation_of_duties)


@FEW
@given(INPUTS, LEVELS, SELECTORS, st.sampled_from(["Enforce", "Shadow"]), st.sampled_from(sorted(FREEZES)))
def test_adding_a_policy_never_raises_what_another_governs(
    x: dict[str, Any], top: str, selector: Any, enforcement: str, freeze: str
) -> None:
    v = made({**x, "policies": "one"})
    new = policy("new", rule_json(level=top), enforcement=enforcement, freezes=FREEZES[freeze]).model_copy()
    new = new.model_copy(update={"spec": new.spec.model_copy(update={"selector": type(new.spec.selector).model_validate(selector)})})
    assert isinstance(governing_rule(v.orders, v.target.labels, v.action), Governing)
    after = replace(v, orders=replace(v.orders, policies=(*v.orders.policies, new)))
    assert effective(after, NOW).level <= effective(v, NOW).level
    if isinstance(governing_rule(after.orders, v.target.labels, v.action), Governing):
        assert effective(after, NOW) == effective(v, NOW), "a policy for others says nothing here"


# ---------------------------------------------------------------- books: breaker and standing

RESULTS = st.sampled_from(["Recovered", "Recovered", "Undone", "Escalated", "Superseded", "NotApplied"])
EVENTS = st.lists(
    st.tuples(st.integers(-10, 600), st.integers(0, 30), RESULTS, st.sampled_from(["No", "Human", "Signal"]), st.sampled_from("abc")),
    max_size=12,
)
FAILURE = st.tuples(
    st.integers(-10, 600), st.integers(0, 30), st.sampled_from(["Undone", "Escalated"]), st.just("No"), st.sampled_from("abc")
)
CLAIMED = st.tuples(st.integers(0, 600), st.integers(0, 30), st.just("Recovered"), st.just("No"), st.sampled_from("abc"))
BREAKERS = st.builds(
    lambda n, w, o: Breaker(failures=n, within=f"{w}m", open_for=f"{o}m"), st.integers(1, 4), st.integers(1, 600), st.integers(0, 300)
)
EARNS = st.builds(
    lambda f, n, o: Earn(from_=f, successes=n, over=f"{o}m"), st.sampled_from(list(Level)), st.integers(1, 3), st.integers(60, 900)
)


def books(events: Any, scale: timedelta = MINUTE) -> Any:
    """Each event: (ended so many minutes ago, took so many, result, confirmed by, workload)."""
    return ledger(
        outcomes=tuple(
            outcome(f"no-{i}", f"Deployment/{w}", at=NOW - (ago + took) * scale, ended_at=NOW - ago * scale, result=r, confirmed=c)
            for i, (ago, took, r, c, w) in enumerate(events)
        )
    )


OPENNESS = {"Closed": 0, "HalfOpen": 1, "Open": 2}


@MANY
@given(BREAKERS, EVENTS, FAILURE, st.integers(0, 12))
def test_one_failure_more_never_closes_the_breaker(spec: Breaker, events: list[Any], failure: Any, where: int) -> None:
    more = [*events[:where], failure, *events[where:]]
    before, after = (breaker.state(spec, books(e), ROLLBACK, "Deployment", NOW) for e in (events, more))
    assert OPENNESS[after.state] >= OPENNESS[before.state]
    if before.state == after.state == "Open":
        assert after.until >= before.until  # type: ignore[operator]


@MANY
@given(BREAKERS, EVENTS, CLAIMED)
def test_a_success_that_nobody_confirmed_changes_nothing_at_the_breaker(spec: Breaker, events: list[Any], claimed: Any) -> None:
    before, after = (breaker.state(spec, books(e), ROLLBACK, "Deployment", NOW) for e in (events, [*events, claimed]))
    assert after == before


@FEW
@given(BREAKERS, EVENTS, st.integers(0, 600))
def test_time_alone_opens_nothing_and_closes_nothing(spec: Breaker, events: list[Any], later: int) -> None:
    past = [e for e in events if e[0] >= 0]
    now, then = (breaker.state(spec, books(past), ROLLBACK, "Deployment", at) for at in (NOW, NOW + later * MINUTE))
    assert (now.state == "Closed") == (then.state == "Closed")
    assert OPENNESS[then.state] <= OPENNESS[now.state]


@MANY
@given(EARNS, st.sampled_from(list(Level)), EVENTS, FAILURE, st.integers(0, 12), st.sampled_from([MINUTE, HOUR]))
def test_one_failure_more_never_earns_anything(
    earn: Earn, most: Level, events: list[Any], failure: Any, where: int, scale: timedelta
) -> None:
    more = [*events[:where], failure, *events[where:]]
    before, after = (standing.earned(earn, most, books(e, scale), ROLLBACK, "Deployment") for e in (events, more))
    assert after.level <= before.level <= most
    if after.level == before.level:
        assert after.successes <= before.successes


@MANY
@given(EARNS, st.sampled_from(list(Level)), EVENTS, CLAIMED, st.sampled_from([MINUTE, HOUR]))
def test_a_success_that_nobody_confirmed_earns_nothing(earn: Earn, most: Level, events: list[Any], claimed: Any, scale: timedelta) -> None:
    before, after = (standing.earned(earn, most, books(e, scale), ROLLBACK, "Deployment") for e in (events, [*events, claimed]))
    assert after == before


@MANY
@given(EARNS, st.sampled_from(list(Level)), EVENTS, st.integers(0, 600))
def test_a_rejection_never_earns_anything(earn: Earn, most: Level, events: list[Any], ago: int) -> None:
    book = books(events)
    said = ledger(outcomes=book.spec.outcomes, rejections=(rejection("bob", NOW - ago * MINUTE, workload="Deployment/z"),))
    assert (
        standing.earned(earn, most, said, ROLLBACK, "Deployment").level <= standing.earned(earn, most, book, ROLLBACK, "Deployment").level
    )
