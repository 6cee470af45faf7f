"""Two sets of policies: what is raised, what is lowered. Field by field, and by what it amounts to for each kind of workload.

A field that loosens is RAISES also where something else still holds it down today, because that something may go tomorrow.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim

from ..api.meta import LabelSelector, Level, parse_duration
from ..api.v1alpha1.clusterpolicy import ApprovalBounds, Ceiling, ClusterRemediationPolicy, Fleet, Protected, Tier
from ..api.v1alpha1.policy import Check, Escalate, Freeze, RemediationPolicy, Rule, Verify
from .files import At, Source
from .policies import Loaded
from .selectors import selector_moves, selector_text

Effect = Literal["RAISES", "lowers", "changes"]
UP: Effect = "RAISES"
DOWN: Effect = "lowers"
EVEN: Effect = "changes"
NONE = "(none)"
YEAR = timedelta(days=366)
A_YEAR = datetime(2028, 1, 3, tzinfo=UTC)  # any one will do: schedules are compared, not dates
MOST_BEGINS = 4000


@dataclass(frozen=True)
class Change:
    """One difference. `who`: policy and part; `what`: the field; `why`: what it means where that is not plain."""

    effect: Effect
    who: str
    what: str
    old: str
    new: str
    why: str
    file: str
    line: int


@dataclass(frozen=True)
class Part:
    """One difference inside a policy, before it is known where it stands."""

    effect: Effect
    what: str
    old: str
    new: str
    at: At = ()
    why: str = ""


# ------------------------------------------------------------ field by field


def policy_changes(old: Loaded | None, new: Loaded | None) -> Iterator[Change]:
    """Every field of one policy that is another one."""
    one = new or old
    assert one is not None, "one of them is there"
    for who, part in _parts(old.policy if old else None, new.policy if new else None):
        source: Source = one.source
        yield Change(
            part.effect, one.title + (f" {who}" if who else ""), part.what, part.old, part.new, part.why, source.file, source.line(part.at)
        )


def _parts(old: Any, new: Any) -> Iterator[tuple[str, Part]]:
    match old, new:
        case (None, RemediationPolicy()) | (RemediationPolicy(), None):
            yield from _whole(old, new)
        case RemediationPolicy(), RemediationPolicy():
            yield from _team(old, new)
        case ((None | ClusterRemediationPolicy()), (None | ClusterRemediationPolicy())):
            yield from _platform(old, new)


def _whole(old: RemediationPolicy | None, new: RemediationPolicy | None) -> Iterator[tuple[str, Part]]:
    """A policy that came or went: what it lets happen came or went."""
    some = new or old
    assert some is not None, "one of them is there"
    shadow = " in Shadow" if some.spec.enforcement == "Shadow" else ""
    for i, r in enumerate(some.spec.rules):
        told = f"{r.level}{shadow}"
        acts = r.level > Level.L1 and not shadow
        if new:
            yield f"rule {r.name}", Part(UP if acts else EVEN, "policy", NONE, told, ("spec", "rules", i), "the policy is new")
        else:
            yield f"rule {r.name}", Part(DOWN if acts else EVEN, "policy", told, NONE, (), "the policy is gone")


def _team(old: RemediationPolicy, new: RemediationPolicy) -> Iterator[tuple[str, Part]]:
    o, n = old.spec, new.spec
    spec: At = ("spec",)
    if o.enforcement != n.enforcement:
        yield "", Part(UP if n.enforcement == "Enforce" else DOWN, "enforcement", o.enforcement, n.enforcement, (*spec, "enforcement"))
    yield from (("", p) for p in _selector(o.selector, n.selector, (*spec, "selector"), wider=UP))
    before, after = ({r.name: r for r in side.rules} for side in (o, n))
    places = {r.name: i for i, r in enumerate(n.rules)}
    for name in dict.fromkeys([*before, *after]):
        who, at = f"rule {name}", (*spec, "rules", places.get(name, 0))
        match before.get(name), after.get(name):
            case None, Rule() as came:
                yield who, Part(UP if came.level > Level.L1 else EVEN, "rule", NONE, came.level, at, "the rule is new")
            case Rule() as went, None:
                yield who, Part(DOWN if went.level > Level.L1 else EVEN, "rule", went.level, NONE, spec, "the rule is gone")
            case Rule() as a, Rule() as b:
                yield from ((who, p) for p in rule_parts(a, b, at))
    yield from _freezes(o.freezes, n.freezes)
    yield from (("breaker", p) for p in _fields(o.breaker, n.breaker, BREAKER, (*spec, "breaker")))
    yield from (("escalate", p) for p in _escalate(o.escalate, n.escalate, (*spec, "escalate")))


def rule_parts(o: Rule, n: Rule, at: At) -> Iterator[Part]:
    """Everything that a rule says."""
    yield from _ordered("level", o.level, n.level, (*at, "level"))
    yield from _types(o.types, n.types, (*at, "types"), empty_is_all=False, wider=UP)
    yield from _selector(o.selector, n.selector, (*at, "selector"), wider=UP)
    yield from _earn(o, n, (*at, "earn"))
    yield from _fields(o.approval, n.approval, APPROVAL, (*at, "approval"), "approval.")
    yield from _flag("approval.separationOfDuties", o.approval.separated, n.approval.separated, (*at, "approval"), stricter=True)
    yield from _fields(o.limits, n.limits, LIMITS, (*at, "limits"), "limits.")
    if o.error_budget != n.error_budget:
        where = (*at, "errorBudget")
        if o.error_budget is None or n.error_budget is None:
            shown = [b.min if b else NONE for b in (o.error_budget, n.error_budget)]
            yield Part(UP if n.error_budget is None else DOWN, "errorBudget", shown[0], shown[1], where)
        else:
            yield from _number("errorBudget.min", o.error_budget.min, n.error_budget.min, where, up=DOWN)
            yield from _text("errorBudget.promql", o.error_budget.promql, n.error_budget.promql, where)
    yield from _word("gitOps", o.git_ops, n.git_ops, (*at, "gitOps"), looser="Pause")
    yield from _time("pauseFor", o.pause_for, n.pause_for, (*at, "pauseFor"), longer=UP)
    yield from _verify(o.verify, n.verify, (*at, "verify"))


def _earn(o: Rule, n: Rule, at: At) -> Iterator[Part]:
    match o.earn, n.earn:
        case None, None:
            return
        case None, came if came is not None:
            yield Part(DOWN, "earn", NONE, f"from {came.from_}", at)
        case went, None if went is not None:
            yield Part(UP, "earn", f"from {went.from_}", NONE, at, f"{n.level} holds from the first day")
        case a, b:
            assert a is not None, "the other cases"
            assert b is not None, "the other cases"
            yield from _ordered("earn.from", a.from_, b.from_, (*at, "from"))
            yield from _int("earn.successes", a.successes, b.successes, (*at, "successes"), up=DOWN)
            yield from _time("earn.over", a.over, b.over, (*at, "over"), longer=UP)


def _verify(o: Verify, n: Verify, at: At) -> Iterator[Part]:
    yield from _time("verify.for", o.for_, n.for_, (*at, "for"), longer=DOWN)
    yield from _time("verify.every", o.every, n.every, (*at, "every"), longer=UP)
    yield from _word("verify.onWorse", o.on_worse, n.on_worse, (*at, "onWorse"), looser="Escalate")
    yield from _word("verify.onUnchanged", o.on_unchanged, n.on_unchanged, (*at, "onUnchanged"), looser="Escalate")
    yield from _word("verify.onNoData", o.on_no_data, n.on_no_data, (*at, "onNoData"), looser="Escalate")
    before, after = ({c.name: c for c in side.checks} for side in (o, n))
    for name in dict.fromkeys([*before, *after]):
        what, where = f"verify.checks {name}", (*at, "checks")
        match before.get(name), after.get(name):
            case None, Check() as came:
                yield Part(DOWN, what, NONE, _bounds(came), where)
            case Check() as went, None:
                yield Part(UP, what, _bounds(went), NONE, where)
            case Check() as a, Check() as b:
                yield from _text(what, a.promql or a.condition or "", b.promql or b.condition or "", where)
                yield from _bound(f"{what} max", a.max, b.max, where, up=UP)
                yield from _bound(f"{what} min", a.min, b.min, where, up=DOWN)


def _bounds(c: Check) -> str:
    return c.condition or " and ".join(f"{w} {v}" for w, v in (("max", c.max), ("min", c.min)) if v is not None)


def _escalate(o: Escalate | None, n: Escalate | None, at: At) -> Iterator[Part]:
    if o is None or n is None:
        if o is not n:
            shown = [", ".join(e.to) if e else NONE for e in (o, n)]
            yield Part(UP if n is None else DOWN, "escalate", shown[0], shown[1], at, "nobody is called any more" if n is None else "")
        return
    yield from _time("after", o.after, n.after, (*at, "after"), longer=UP)
    yield from _time("repeat", o.repeat, n.repeat, (*at, "repeat"), longer=UP)
    for gone in [c for c in o.to if c not in n.to]:
        yield Part(UP, "to", gone, NONE, (*at, "to"))
    for came in [c for c in n.to if c not in o.to]:
        yield Part(DOWN, "to", NONE, came, (*at, "to"))


# ------------------------------------------------------------ freezes


def _freezes(o: Sequence[Freeze], n: Sequence[Freeze]) -> Iterator[tuple[str, Part]]:
    before, after = ({f.name: f for f in side} for side in (o, n))
    places = {f.name: i for i, f in enumerate(n)}
    for name in dict.fromkeys([*before, *after]):
        who, at = f"freeze {name}", ("spec", "freezes", places.get(name, 0))
        match before.get(name), after.get(name):
            case None, Freeze() as came:
                yield who, Part(DOWN, "freeze", NONE, _when(came), at)
            case Freeze() as went, None:
                yield who, Part(UP, "freeze", _when(went), NONE, ("spec",), "the freeze is gone")
            case Freeze() as a, Freeze() as b:
                yield from ((who, p) for p in _freeze(a, b, at))


def _freeze(a: Freeze, b: Freeze, at: At) -> Iterator[Part]:
    yield from _types(a.allow, b.allow, (*at, "allow"), empty_is_all=False, wider=UP, what="allow")
    if _when(a) == _when(b):
        return
    begin = min((f.from_ for f in (a, b) if f.from_ is not None), default=A_YEAR)
    before, after = _spans(a, begin), _spans(b, begin)
    if before is None or after is None:
        yield Part(UP, "freeze", _when(a), _when(b), at, "it begins too often to be compared")
        return
    gone, came = _not_covered(before, after, begin), _not_covered(after, before, begin)
    if gone is not None:
        yield Part(UP, "freeze", _when(a), _when(b), at, f"{_moment(a, gone)}, for one, is free now")
    else:
        yield Part(DOWN if came is not None else EVEN, "freeze", _when(a), _when(b), at)


def _when(f: Freeze) -> str:
    if f.schedule is not None:
        return f"{f.schedule} {f.time_zone} for {f.duration}"
    return f"{f.from_:%Y-%m-%dT%H:%MZ} to {f.until:%Y-%m-%dT%H:%MZ}"


def _moment(f: Freeze, at: datetime) -> str:
    if f.schedule is None:
        return f"{at:%Y-%m-%d %H:%M}Z"
    local = at.astimezone(ZoneInfo(f.time_zone))
    weekly = f.schedule.split()[2:4] == ["*", "*"]
    return f"{local:%a %H:%M} {f.time_zone}" if weekly else f"{local:%d %b %H:%M} {f.time_zone}"


Spans = list[tuple[datetime, datetime]]


def _not_covered(held: Spans, others: Spans, begin: datetime) -> datetime | None:
    """The first moment of a year (or of a freeze that happens once) that is in `held` and in none of the others."""
    for start, end in held:
        here = max(start, begin)
        for other, until in others:
            if other <= here < until:
                here = until
        if here < end:
            return here
    return None


def _spans(f: Freeze, begin: datetime) -> Spans | None:
    """When it holds within a year; None: it begins too often."""
    if f.schedule is None or f.duration is None:
        assert f.from_ is not None, "policies.of_object checked it"
        assert f.until is not None, "policies.of_object checked it"
        return [(f.from_, f.until)]
    lasts, last = parse_duration(f.duration), begin + YEAR
    found: list[tuple[datetime, datetime]] = []
    for start in itertools.islice(CronSim(f.schedule, (begin - lasts).astimezone(ZoneInfo(f.time_zone))), MOST_BEGINS):
        at = start.astimezone(UTC)
        if at > last:
            break
        found.append((at, at + lasts))
    else:
        return None if len(found) == MOST_BEGINS else found
    return found


# ------------------------------------------------------------ the platform's


def _platform(old: ClusterRemediationPolicy | None, new: ClusterRemediationPolicy | None) -> Iterator[tuple[str, Part]]:
    empty = (old or new).spec.model_copy(  # type: ignore[union-attr]
        update={"ceilings": (), "protected": (), "freezes": (), "tiers": (), "approval": None, "git_ops_pause": None, "fleet": None}
    )
    o, n = (old.spec if old else empty), (new.spec if new else empty)
    spec: At = ("spec",)
    if o.namespaces != n.namespaces:
        yield "", _namespaces(o.namespaces, n.namespaces, lets=n.git_ops_pause == "TeamDecides" or _lets_robots(n.approval))
    yield from _named("ceiling", o.ceilings, n.ceilings, (*spec, "ceilings"), _ceiling, lambda c: str(c.level))
    yield from _named("protected", o.protected, n.protected, (*spec, "protected"), _protected, _told)
    yield from _freezes(o.freezes, n.freezes)
    yield from _named("tier", o.tiers, n.tiers, (*spec, "tiers"), _tier, _told)
    yield from (("approval", p) for p in _approval_bounds(o.approval, n.approval, (*spec, "approval")))
    if o.git_ops_pause != n.git_ops_pause:
        said = [v or NONE for v in (o.git_ops_pause, n.git_ops_pause)]
        # Deny where others say TeamDecides is a restriction, too, so its removal raises.
        up = n.git_ops_pause == "TeamDecides" or (o.git_ops_pause == "Deny" and n.git_ops_pause is None)
        yield "", Part(UP if up else DOWN, "gitOpsPause", said[0], said[1], (*spec, "gitOpsPause"))
    if o.fleet != n.fleet:
        usual = Fleet()
        yield from (("fleet", p) for p in _fields(o.fleet or usual, n.fleet or usual, FLEET, (*spec, "fleet")))


def _lets_robots(a: ApprovalBounds | None) -> bool:
    return a is not None and a.service_accounts == "TeamDecides"


def _namespaces(o: tuple[str, ...], n: tuple[str, ...], *, lets: bool) -> Part:
    lost = not o or bool(set(o) - set(n)) if n else False
    gained = not n or bool(set(n) - set(o)) if o else False
    shown = [", ".join(v) or "(every namespace)" for v in (o, n)]
    effect = UP if lost or (gained and lets) else DOWN
    return Part(effect, "namespaces", shown[0], shown[1], ("spec", "namespaces"), "some are governed no longer" if lost else "")


def _named(
    word: str,
    old: Sequence[Any],
    new: Sequence[Any],
    at: At,
    parts: Callable[[Any, Any, At], Iterable[Part]],
    told: Callable[[Any], str],
) -> Iterator[tuple[str, Part]]:
    """Entries that restrict, by their names: one more lowers, one less raises."""
    before, after = ({x.name: x for x in side} for side in (old, new))
    places = {x.name: i for i, x in enumerate(new)}
    for name in dict.fromkeys([*before, *after]):
        a, b, where = before.get(name), after.get(name), (*at, places.get(name, 0))
        if a is None:
            yield f"{word} {name}", Part(DOWN, word, NONE, told(b), where)
        elif b is None:
            yield f"{word} {name}", Part(UP, word, told(a), NONE, at[:1], f"the {word} is gone")
        else:
            yield from ((f"{word} {name}", p) for p in parts(a, b, where))


def _ceiling(o: Ceiling, n: Ceiling, at: At) -> Iterator[Part]:
    yield from _ordered("level", o.level, n.level, (*at, "level"))
    yield from _types(o.types, n.types, (*at, "types"), empty_is_all=True, wider=DOWN)


def _protected(o: Protected, n: Protected, at: At) -> Iterator[Part]:
    yield from _types(o.kinds, n.kinds, (*at, "kinds"), empty_is_all=True, wider=DOWN, what="kinds")
    yield from _selector(o.selector, n.selector, (*at, "selector"), wider=DOWN)


def _tier(o: Tier, n: Tier, at: At) -> Iterator[Part]:
    yield from _selector(o.selector, n.selector, (*at, "selector"), wider=DOWN)
    for what, a, b in (
        ("maxPods", o.max_pods, n.max_pods),
        ("maxPercent", o.max_percent, n.max_percent),
        ("maxPercentOfNamespace", o.max_percent_of_namespace, n.max_percent_of_namespace),
    ):
        yield from _bound(what, a, b, (*at, what), up=UP)
    yield from _int("risk", o.risk, n.risk, (*at, "risk"), up=DOWN)


def _told(x: Protected | Tier) -> str:
    kinds = ", ".join(x.kinds) + " " if isinstance(x, Protected) and x.kinds else ""
    return kinds + selector_text(x.selector)


def _approval_bounds(o: ApprovalBounds | None, n: ApprovalBounds | None, at: At) -> Iterator[Part]:
    a, b = o or ApprovalBounds(), n or ApprovalBounds()
    yield from _int("minCount", a.min_count, b.min_count, (*at, "minCount"), up=DOWN)
    yield from _word(
        "separationOfDuties", a.separation_of_duties, b.separation_of_duties, (*at, "separationOfDuties"), looser="TeamDecides"
    )
    yield from _word("serviceAccounts", a.service_accounts, b.service_accounts, (*at, "serviceAccounts"), looser="TeamDecides")


# ------------------------------------------------------------ single fields

IntField = tuple[Literal["int"], str, Effect]
TimeField = tuple[Literal["time"], str, Effect]
WordField = tuple[Literal["word"], str, str]
Field = IntField | TimeField | WordField

# (kind, field, effect when it grows; or the looser word)
APPROVAL: tuple[Field, ...] = (
    ("int", "count", DOWN),
    ("time", "expires_after", UP),
    ("word", "service_accounts", "Allow"),
    ("word", "emergency", "Allow"),
)
LIMITS: tuple[Field, ...] = (
    ("int", "max_pods", UP),
    ("int", "max_percent", UP),
    ("time", "cooldown", DOWN),
    ("int", "per_hour", UP),
    ("word", "during_rollout", "Allow"),
    ("time", "stalled_after", DOWN),
)
BREAKER: tuple[Field, ...] = (("int", "failures", UP), ("time", "within", DOWN), ("time", "open_for", DOWN))
FLEET: tuple[Field, ...] = (
    ("int", "max_concurrent", UP),
    ("int", "per_hour", UP),
    ("int", "namespace_share", UP),
    ("int", "max_percent_of_workloads", UP),
)


def _fields(o: Any, n: Any, fields: tuple[Field, ...], at: At, before: str = "") -> Iterator[Part]:
    for kind, name, how in fields:
        wire = type(o).model_fields[name].alias or name
        a, b, where, what = getattr(o, name), getattr(n, name), (*at, wire), before + wire
        match kind:
            case "int":
                yield from _int(what, a, b, where, up=how)
            case "time":
                yield from _time(what, a, b, where, longer=how)
            case "word":
                yield from _word(what, a, b, where, looser=how)


def _other(effect: Effect) -> Effect:
    return DOWN if effect == UP else UP


def _ordered(what: str, o: Level, n: Level, at: At) -> Iterator[Part]:
    if o != n:
        yield Part(UP if n > o else DOWN, what, o, n, at)


def _int(what: str, o: int, n: int, at: At, *, up: Any) -> Iterator[Part]:
    if o != n:
        yield Part(up if n > o else _other(up), what, str(o), str(n), at)


def _number(what: str, o: str, n: str, at: At, *, up: Effect) -> Iterator[Part]:
    if float(o) != float(n):
        yield Part(up if float(n) > float(o) else _other(up), what, o, n, at)


def _bound(what: str, o: int | str | None, n: int | str | None, at: At, *, up: Effect) -> Iterator[Part]:
    """A bound that may be absent: then nothing is bounded."""
    if o is None or n is None:
        if o is not n:
            yield Part(UP if n is None else DOWN, what, NONE if o is None else str(o), NONE if n is None else str(n), at)
        return
    yield from _number(what, str(o), str(n), at, up=up)


def _time(what: str, o: str, n: str, at: At, *, longer: Any) -> Iterator[Part]:
    a, b = parse_duration(o), parse_duration(n)
    if a != b:
        yield Part(longer if b > a else _other(longer), what, o, n, at)


def _word(what: str, o: str, n: str, at: At, *, looser: str) -> Iterator[Part]:
    if o != n:
        yield Part(UP if n == looser else DOWN, what, o, n, at)


def _flag(what: str, o: bool, n: bool, at: At, *, stricter: bool) -> Iterator[Part]:
    if o != n:
        yield Part(DOWN if n is stricter else UP, what, str(o).lower(), str(n).lower(), at)


def _text(what: str, o: str, n: str, at: At) -> Iterator[Part]:
    if o != n:
        yield Part(EVEN, what, o, n, at, "another question; whether it is stricter only a human can say")


def _types(o: Sequence[str], n: Sequence[str], at: At, *, empty_is_all: bool, wider: Effect, what: str = "types") -> Iterator[Part]:
    a, b = set(o), set(n)
    if a == b:
        return
    nothing = "(all)" if empty_is_all else NONE
    shown = [", ".join(sorted(v)) or nothing for v in (a, b)]
    every = empty_is_all and not b
    grows = every or (not (empty_is_all and not a) and bool(b - a))
    shrinks = not every and ((empty_is_all and not a) or bool(a - b))
    raises = (grows and wider == UP) or (shrinks and wider == DOWN)
    yield Part(UP if raises else DOWN, what, shown[0], shown[1], at)


def _selector(o: LabelSelector, n: LabelSelector, at: At, *, wider: Effect) -> Iterator[Part]:
    if o == n:
        return
    grows, shrinks = selector_moves(o, n)
    effect: Effect = EVEN
    if grows or shrinks:
        effect = UP if (grows and wider == UP) or (shrinks and wider == DOWN) else DOWN
    why = (
        "matches more"
        if grows and not shrinks
        else "matches fewer"
        if shrinks and not grows
        else "matches others"
        if grows
        else "matches the same"
    )
    yield Part(effect, "selector", selector_text(o), selector_text(n), at, why)
