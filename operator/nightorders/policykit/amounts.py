"""What two sets of policies amount to for each kind of workload, or for the workloads of a cluster; and the comparison as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..api.meta import MAX_LEVEL_ANNOTATION, LabelSelector, Level
from ..api.v1alpha1.clusterpolicy import ClusterRemediationPolicy
from ..api.v1alpha1.common import ActionType
from ..api.v1alpha1.policy import RemediationPolicy
from ..domain.autonomy import own_labels
from ..domain.orders import Governing, Orders, Ungoverned, governing_rule
from ..domain.reasons import Reason
from ..domain.snapshot import KubeObject
from .compare import DOWN, EVEN, UP, Change, Effect, policy_changes, rule_parts
from .policies import Loaded
from .selectors import Kinds, classes, described


@dataclass(frozen=True)
class Amount:
    """What the differences amount to for some workloads and an action type."""

    effect: Effect
    workloads: str
    action: str
    what: str
    old: str
    new: str


@dataclass(frozen=True)
class Comparison:
    """All of it."""

    changes: tuple[Change, ...]
    amounts: tuple[Amount, ...]
    notes: tuple[str, ...] = ()

    @property
    def raised(self) -> int:
        return sum(c.effect == UP for c in self.changes) + sum(a.effect == UP for a in self.amounts)


def compare(old: Sequence[Loaded], new: Sequence[Loaded], workloads: Sequence[KubeObject] | None = None, namespace: str = "") -> Comparison:
    """`workloads`: the cluster's, if they are known. `namespace`: of the policies that say none."""
    before, after = ({p.key: p for p in side} for side in (old, new))
    changes: list[Change] = []
    for key in sorted({*before, *after}):
        changes += policy_changes(before.get(key), after.get(key))
    amounts, notes = _amounts(_orders(old), _orders(new), workloads, namespace)
    return Comparison(tuple(changes), tuple(amounts), tuple(notes))


def _orders(side: Sequence[Loaded]) -> Orders:
    return Orders(
        policies=tuple(p.policy for p in side if isinstance(p.policy, RemediationPolicy)),
        cluster=tuple(p.policy for p in side if isinstance(p.policy, ClusterRemediationPolicy)),
    )


def _in(orders: Orders, namespace: str, assumed: str) -> Orders:
    return Orders(policies=tuple(p for p in orders.policies if (p.metadata.namespace or assumed) == namespace), cluster=orders.cluster)


@dataclass(frozen=True)
class _View:
    """What is written for one workload and action type, all in all. `acts`: the same, but L1 where it is protected or in Shadow."""

    level: Level
    start: Level
    acts: Level
    told: str
    governing: Governing | None = field(default=None, repr=False)

    @property
    def rank(self) -> tuple[Level, Level, Level]:
        return (self.level, self.start, self.acts)


def _view(orders: Orders, namespace: str, labels: Mapping[str, str], notes: Mapping[str, str], kind: str, action: ActionType) -> _View:
    own = own_labels(dict(labels))
    found = governing_rule(orders, own, action)
    if isinstance(found, Ungoverned):
        return _View(Level.L1, Level.L1, Level.L1, "L1 (two rules)" if found.reason is Reason.AMBIGUOUS else "L1 (no rule)")
    limits = [c.level for p in orders.over(namespace) for c in p.spec.ceilings if not c.types or action in c.types]
    if (said := notes.get(MAX_LEVEL_ANNOTATION)) is not None:
        limits.append(Level(said) if said in Level.__members__ else Level.L1)
    level = min([found.rule.level, *limits])
    start = min(level, found.rule.earn.from_) if found.rule.earn else level
    held = [] if start == level else [f"begins at {start}"]
    if shadow := found.policy.spec.enforcement == "Shadow":
        held.append("in Shadow")
    if protected := _protected(orders, namespace, own, kind):
        held.append("protected")
    acts = Level.L1 if shadow or protected else level
    return _View(level, start, acts, f"{level} ({', '.join(held)})" if held else level, found)


def _protected(orders: Orders, namespace: str, labels: dict[str, str], kind: str) -> bool:
    return any((not p.kinds or kind in p.kinds) and p.selector.matches(labels) for c in orders.over(namespace) for p in c.spec.protected)


def _amounts(old: Orders, new: Orders, workloads: Sequence[KubeObject] | None, assumed: str) -> tuple[list[Amount], list[str]]:
    if workloads is not None:
        return _for_workloads(old, new, workloads, assumed), []
    found: list[Amount] = []
    notes: list[str] = []
    for namespace in sorted({p.metadata.namespace or assumed for side in (old, new) for p in side.policies}):
        sides = [_in(side, namespace, assumed) for side in (old, new)]
        kinds = classes(_selectors(sides, namespace))
        if kinds is None:
            notes.append(
                f"namespace {namespace or '(any)'}: too many combinations of labels to go through; name the workloads with --workloads"
            )
            continue
        groups: dict[tuple[str, str, str, Effect], Kinds] = {}
        for labels in kinds:
            for action in ActionType:
                a, b = (_view(side, namespace, labels, {}, "Deployment", action) for side in sides)
                for what, x, y, effect in _moved(a, b):
                    groups.setdefault((f"{action} {what}".strip(), x, y, effect), []).append(labels)
        for (what, x, y, effect), some in groups.items():
            name, _, rest = what.partition(" ")
            for text in described(some, kinds):
                found.append(Amount(effect, f"{namespace or '(any namespace)'}: {text}", name, rest or "level", x, y))
    return sorted(found, key=lambda a: (a.workloads, a.action, a.what)), notes


def _selectors(sides: Iterable[Orders], namespace: str) -> list[LabelSelector]:
    found: list[LabelSelector] = []
    for side in sides:
        for p in side.policies:
            found += [p.spec.selector, *(r.selector for r in p.spec.rules)]
        for c in side.over(namespace):
            found += [x.selector for x in c.spec.protected]
    return found


def _for_workloads(old: Orders, new: Orders, workloads: Sequence[KubeObject], assumed: str) -> list[Amount]:
    found: list[Amount] = []
    for w in sorted(workloads, key=lambda w: (w.namespace, w.title)):
        sides = [_in(side, w.namespace, assumed or w.namespace) for side in (old, new)]
        for action in ActionType:
            a, b = (_view(side, w.namespace, w.labels, w.annotations, w.kind, action) for side in sides)
            for what, x, y, effect in _moved(a, b):
                found.append(Amount(effect, f"{w.namespace}: {w.title}", action, what or "level", x, y))
    return found


def _moved(a: _View, b: _View) -> Iterator[tuple[str, str, str, Effect]]:
    if a.rank != b.rank:
        up = any(y > x for x, y in zip(a.rank, b.rank, strict=True))
        yield "", a.told, b.told, UP if up else DOWN
    elif a.told != b.told:
        yield "", a.told, b.told, EVEN
    # Another rule governs now: what it says differently is told here, since no field of either rule changed.
    if a.governing and b.governing and a.governing.title != b.governing.title and b.level > Level.L1:
        for part in rule_parts(a.governing.rule.model_copy(update={"selector": b.governing.rule.selector}), b.governing.rule, ()):
            if part.what not in ("level", "earn") and part.effect != EVEN:
                yield part.what, part.old, part.new, part.effect
