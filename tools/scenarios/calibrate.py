"""How often answers of each grade are right: counted on pictures of scenarios and on variants made of them, without a cluster.

    python -m tools.scenarios calibrate FOLDER… [--write]    prints the table; --write keeps it in operator/nightorders/diagnosis/grades.json

FOLDER holds what `capture` took. Each picture is asked as it is and changed in ways that must not change the right answer: other names,
another order, later, beside another fault; and with evidence missing: logs, events, series, history, permissions. What a grade is worth is
the hit rate over all of these, pulled towards one half by two imaginary answers. Fault classes are held out in turn (the rate without any
one class), since variants of one scenario are not independent: the lowest of these rates is what is published.
"""

from __future__ import annotations

import datetime
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nightorders.diagnosis import engine
from nightorders.domain.snapshot import KubeObject, Listing, LogExcerpt, LogKey, Snapshot
from tools.scenarios.errors import RunnerError
from tools.scenarios.replay import Picture, open_picture, right

Json = dict[str, Any]
TABLE = Path(__file__).resolve().parents[2] / "operator" / "nightorders" / "diagnosis" / "grades.json"
GRADES = ("A", "B", "C", "D")
PRIOR = 2.0  # imaginary answers, half of them right
_NAMED = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Service", "ConfigMap", "Ingress", "NetworkPolicy", "ResourceQuota")
_SYLLABLES = ("ka", "lo", "mi", "ru", "te", "vo", "zu", "ne", "pi", "sa")
Change = Callable[[Picture], Picture]


@dataclass(frozen=True)
class Asked:
    """One question and what became of it."""

    scenario: str
    variant: str
    category: str
    grade: str
    right: bool
    said: str


# ------------------------------------------------------------ variants


def _listings(p: Picture, change: Callable[[Listing], Listing]) -> Picture:
    snapshot = replace(p.snapshot, listings={k: change(v) for k, v in p.snapshot.listings.items()})
    return replace(p, snapshot=snapshot)


def _without(*kinds: str) -> Change:
    def change(p: Picture) -> Picture:
        return _listings(p, lambda x: replace(x, objects=(), because="forbidden: left out") if x.kind in kinds else x)

    return change


def no_logs(p: Picture) -> Picture:
    """Nobody may read logs."""
    gone = {k: LogExcerpt(k, x.query, x.at, because="forbidden: left out") for k, x in p.snapshot.logs.items()}
    return replace(p, snapshot=replace(p.snapshot, logs=gone))


def no_series(p: Picture) -> Picture:
    """Prometheus does not answer."""
    return replace(
        p, snapshot=replace(p.snapshot, metrics={k: replace(v, points=(), because="left out") for k, v in p.snapshot.metrics.items()})
    )


def no_history(p: Picture) -> Picture:
    """Field managers tell nothing."""

    def bare(o: KubeObject) -> KubeObject:
        meta = {k: v for k, v in dict(o.raw.get("metadata") or {}).items() if k != "managedFields"}
        return KubeObject({**o.raw, "metadata": meta}, o.kind, o.api_version)

    return _listings(p, lambda x: replace(x, objects=tuple(bare(o) for o in x.objects)))


def reordered(p: Picture) -> Picture:
    """Lists come in another order."""
    return _listings(p, lambda x: replace(x, objects=tuple(reversed(x.objects))))


def later(p: Picture) -> Picture:
    """The same picture looked at two minutes later."""
    at = p.snapshot.at + datetime.timedelta(minutes=2)
    return replace(p, snapshot=replace(_listings(p, lambda x: replace(x, at=at)).snapshot, at=at))


def renamed(p: Picture) -> Picture:
    """Every object of the namespace has another name, wherever it is written."""
    names = sorted({o.name for k in _NAMED for o in p.snapshot.all(k) if o.name != "kube-root-ca.crt"}, key=len, reverse=True)
    if not names:
        return p
    new = {name: _made_up(i) for i, name in enumerate(names)}
    pattern = re.compile(r"(?<![A-Za-z0-9-])(" + "|".join(map(re.escape, names)) + r")(?![A-Za-z0-9])")

    def text(value: str) -> str:
        return pattern.sub(lambda m: new[m.group(1)], value)

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, Mapping):
            return {k: walk(v) for k, v in value.items()}  # keys are the API's words, or an app's own
        return [walk(v) for v in value] if isinstance(value, list) else value

    def changed(s: Snapshot) -> Snapshot:
        listings = {
            k: replace(x, objects=tuple(KubeObject(walk(o.raw), o.kind, o.api_version) for o in x.objects)) for k, x in s.listings.items()
        }
        logs = {}
        for key, x in s.logs.items():
            fresh = LogKey(text(key.pod), text(key.container), key.previous)
            logs[fresh] = replace(x, key=fresh, lines=tuple(map(text, x.lines)))
        metrics = {
            k: replace(v, points=tuple(replace(q, labels={a: text(b) for a, b in q.labels.items()}) for q in v.points))
            for k, v in s.metrics.items()
        }
        return replace(s, listings=listings, logs=logs, metrics=metrics)

    claim = p.claim and replace(
        p.claim,
        labels={k: v if k == "alertname" else text(v) for k, v in p.claim.labels.items()},
        annotations={k: text(v) for k, v in p.claim.annotations.items()},
    )
    target = p.target.model_copy(update={"name": text(p.target.name)})
    expected = tuple((c, text(o)) for c, o in p.expected)
    return replace(p, snapshot=changed(p.snapshot), claim=claim, target=target, expected=expected)


def _made_up(number: int) -> str:
    a, b, c = number % 10, number // 10 % 10, (number * 7 + 3) % 10
    return f"{_SYLLABLES[a]}{_SYLLABLES[c]}{_SYLLABLES[b]}"


def beside(other: Picture) -> Change:
    """Another world's namespace lies in the same one, with its own fault."""

    def change(p: Picture) -> Picture:
        def merged(x: Listing) -> Listing:
            more = other.snapshot.listings.get(x.kind)
            if more is None or not x.complete or x.kind in ("Node", "Namespace"):
                return x
            names = {o.name for o in x.objects}
            mine = p.snapshot.namespace
            extra = tuple(
                KubeObject({**o.raw, "metadata": {**dict(o.raw.get("metadata") or {}), "namespace": mine}}, o.kind, o.api_version)
                for o in more.objects
                if o.name not in names and o.namespace == other.snapshot.namespace
            )
            return replace(x, objects=(*x.objects, *extra))

        found = _listings(p, merged)
        return replace(found, snapshot=replace(found.snapshot, logs={**other.snapshot.logs, **p.snapshot.logs}))

    return change


def variants(p: Picture, other: Picture) -> Iterator[tuple[str, Picture]]:
    """The picture itself, and all that is made of it. The first four must not change the answer."""
    yield "", p
    yield "renamed", renamed(p)
    yield "reordered", reordered(p)
    yield "later", later(p)
    yield "beside another", beside(other)(p)
    yield "no logs", no_logs(p)
    yield "no events", _without("Event")(p)
    yield "no series", no_series(p)
    yield "no history", no_history(p)
    yield "no replica sets", _without("ReplicaSet", "ControllerRevision")(p)
    yield "namespace only", _without(*(k for _, k in engine.CLUSTER_KINDS))(p)


# ------------------------------------------------------------ counting


def ask_all(folders: list[Path]) -> list[Asked]:
    """Every question about every picture."""
    pictures = [open_picture(path.parent) for folder in folders for path in sorted(folder.glob("*/signal.json"))]
    found = []
    for number, p in enumerate(pictures):
        other = pictures[(number + len(pictures) // 2) % len(pictures)]
        for name, v in variants(p, other):
            d = engine.diagnose(v.snapshot, v.target, (), v.snapshot.at, v.claim)
            top = next((h for h in d.hypotheses if not h.refuted), None)
            said = f"{top.category} {top.object}" if top else "nothing"
            found.append(Asked(p.id, name, p.expected[0][0], top.grade if top else "D", right(d, v.expected, v.snapshot.namespace), said))
    return found


def table(asked: list[Asked]) -> Json:
    """Counts and rates by grade; `percent` is the lowest rate with one class held out, shrunken, and never better than a better grade's."""
    grades: dict[str, Json] = {}
    most = 99
    for grade in GRADES:
        mine = [a for a in asked if a.grade == grade]
        classes = sorted({a.category for a in mine})
        held_out = {c: _rate([a for a in mine if a.category != c]) for c in classes}
        lowest = min([_rate(mine), *held_out.values()])
        most = min(most, int(100 * lowest))
        grades[grade] = {"right": sum(a.right for a in mine), "of": len(mine), "percent": most, "classes": len(classes)}
    return {
        "made": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "scenarios": len({a.scenario for a in asked}),
        "questions": len(asked),
        "grades": grades,
    }


def _rate(answers: list[Asked]) -> float:
    return (sum(a.right for a in answers) + PRIOR / 2) / (len(answers) + PRIOR)


def text(asked: list[Asked], found: Json) -> str:
    """For people: the table, and what each variant costs."""
    lines = [f"{'grade':6}{'right':>7}{'of':>6}{'percent':>9}{'classes':>9}"]
    lines += [f"{g:6}{x['right']:>7}{x['of']:>6}{x['percent']:>9}{x['classes']:>9}" for g, x in found["grades"].items()]
    by_variant: dict[str, Counter[bool]] = defaultdict(Counter)
    for a in asked:
        by_variant[a.variant or "as it is"][a.right] += 1
    lines += ["", f"{'variant':20}{'right':>7}{'of':>6}"]
    lines += [f"{v:20}{n[True]:>7}{n.total():>6}" for v, n in by_variant.items()]
    return "\n".join(lines)


def main(folders: list[Path], *, write: bool) -> None:
    """Counts, prints and (with `write`) keeps the table."""
    asked = ask_all(folders)
    if not asked:
        raise RunnerError("no pictures in these folders (FOLDER/<id>/signal.json); `capture` takes them")
    found = table(asked)
    print(text(asked, found))
    for a in asked:
        if not a.right and a.grade == "A":
            print(f"wrong and sure: {a.scenario} ({a.variant or 'as it is'}): {a.said}")
    if write:
        TABLE.write_text(json.dumps(found, indent=2) + "\n")
