"""The story of an Incident as a chain: every line covers the one before, so that a change anywhere shows.

sha256 of line n = sha256 of the canonical JSON of [sha256 of line n-1, seq, lasting, at, kind, actor, what]. The first line covers the
Incident's uid. Old observations roll up; decisions, approvals and executions are lasting and never do. `lasting` is how many of
these there are up to this line: so a roll-up that swallowed one does not fit the line after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, get_args

from ..api.meta import line
from ..api.v1alpha1.incident import Head, TimelineEntry
from .digest import sha256

Kind = Literal["Observation", "Decision", "Approval", "Execution"]
LASTING = frozenset(get_args(Kind)) - {"Observation"}
LIMIT = 96  # lines; above it the oldest run of observations rolls up
KEEP_RECENT = 24  # never rolled up, whatever they are
LINE_LENGTH = 400
ANSWERS = 24  # of people, that are written one by one; who toggles more than that is named once (threats.md 28)
ANSWER_LENGTH = 240
FIRST_GONE = "the first line, which covers the Incident's uid, is gone"
# With more lasting lines than this, a new one may roll up like an observation. Without a limit somebody who takes an Incident and gives
# it back all night would fill the list, and the write of an execution would fail. 64 + one roll-up around each + 24 recent < 192.
LASTING_LIMIT = 64


def genesis(uid: str) -> str:
    """What the first line of an Incident's story covers."""
    return sha256({"incident": uid})


def link(previous: str, seq: int, lasting: int, at: datetime, kind: str, actor: str, what: str) -> str:
    """sha256 of one line."""
    return sha256([previous, seq, lasting, at.isoformat(timespec="microseconds"), kind, actor, what])


def lasting(timeline: Iterable[TimelineEntry]) -> int:
    """How many lines of it never roll up."""
    return sum(e.kind in LASTING for e in timeline)


def append(timeline: Sequence[TimelineEntry], uid: str, at: datetime, kind: Kind, actor: str, what: str) -> tuple[TimelineEntry, ...]:
    """The story with one more line; the very same line twice in a row is one line."""
    last = timeline[-1] if timeline else None
    kind, what = _bounded(timeline, kind, actor, what)
    actor, what = line(actor, 256), line(what, LINE_LENGTH)
    if last is not None and (last.what, last.actor) == (what, actor):
        return tuple(timeline)
    seq = (last.seq if last else 0) + 1
    sha = link(last.sha256 if last else genesis(uid), seq, lasting(timeline) + (kind in LASTING), at, kind, actor, what)
    return rolled((*timeline, TimelineEntry(seq=seq, at=at, kind=kind, actor=actor, what=what, sha256=sha)), LIMIT)


def _bounded(timeline: Sequence[TimelineEntry], kind: Kind, actor: str, what: str) -> tuple[Kind, str]:
    if kind == "Approval" or (kind == "Decision" and actor != "operator"):
        what = line(what, ANSWER_LENGTH)
        answers = sum(e.kind == "Approval" or (e.kind == "Decision" and e.actor != "operator") for e in timeline)
        if answers >= ANSWERS:
            return "Observation", "more answers were given than are written here; the API server's audit log has them all"
    return ("Observation" if kind in LASTING and lasting(timeline) >= LASTING_LIMIT else kind), what


def rolled(timeline: tuple[TimelineEntry, ...], limit: int) -> tuple[TimelineEntry, ...]:
    """The story with its oldest runs of observations rolled up until it has at most `limit` lines, as far as that goes.

    The first line stays for ever: it alone covers the Incident's uid, so without it the story would fit another Incident as well.
    """
    while len(timeline) > limit:
        run = _oldest_run(timeline[:-KEEP_RECENT])
        if run is None:
            return timeline
        start, end = run
        timeline = (*timeline[:start], _as_one(timeline[start:end]), *timeline[end:])
    return timeline


def terse(timeline: tuple[TimelineEntry, ...]) -> tuple[TimelineEntry, ...]:
    """The story with every observation but the recent ones rolled up, also those that stand alone."""
    timeline = rolled(timeline, 0)
    old, recent = timeline[:-KEEP_RECENT], timeline[-KEEP_RECENT:]
    return (*old[:1], *(_as_one((e,)) if e.kind == "Observation" else e for e in old[1:]), *recent)


def _as_one(lines: Sequence[TimelineEntry]) -> TimelineEntry:
    count, last = sum(e.count for e in lines), lines[-1]
    what = summary(count)
    return TimelineEntry(seq=last.seq, at=last.at, kind="RollUp", actor="operator", what=what, count=count, sha256=last.sha256)


def summary(count: int) -> str:
    """What a roll-up says."""
    return "1 earlier observation" if count == 1 else f"{count} earlier observations"


def _oldest_run(timeline: Sequence[TimelineEntry]) -> tuple[int, int] | None:
    """The oldest stretch of at least two neighbouring lines that may roll up; never the first line."""
    start = None
    for i, e in enumerate((*timeline, None)):
        if i == 0:
            continue
        if e is not None and e.kind in ("Observation", "RollUp"):
            start = i if start is None else start
        elif start is not None:
            if i - start >= 2:
                return start, i
            start = None
    return None


def head_of(timeline: Sequence[TimelineEntry]) -> Head | None:
    """The unsigned end of the chain."""
    return Head(seq=timeline[-1].seq, sha256=timeline[-1].sha256) if timeline else None


def breaks(timeline: Sequence[TimelineEntry], uid: str) -> list[str]:
    """What is wrong with a chain: edits, removals, reorderings. Empty: it holds."""
    found: list[str] = []
    previous, seq, kept, hidden = genesis(uid), 0, 0, 1  # hidden: the most that the last roll-up can have swallowed
    for i, e in enumerate(timeline):
        kept += e.kind in LASTING
        if e.seq != seq + e.count:
            found.append(
                f"line {e.seq} follows line {seq}"
                + (f" and stands for {e.count}" if e.count > 1 else "")
                + ": something is missing or moved"
            )
        elif e.kind == "RollUp" and i == 0:
            hidden = e.count
            found.append(FIRST_GONE)
        elif e.kind == "RollUp":
            hidden = e.count
            if wrong := _bad_roll_up(timeline, i):
                found.append(f"line {e.seq} {wrong}")
        elif e.sha256 != link(previous, e.seq, kept, e.at, e.kind, e.actor, e.what):
            more = _uncounted(previous, e, kept, hidden)
            kept += more
            found.append(
                f"line {e.seq} counts {abs(more)} {'more' if more > 0 else 'fewer'} decisions, approvals and executions than stand before it"
                if more
                else f"line {e.seq} was changed, or a line before it"
            )
        previous, seq = e.sha256, e.seq
    return found


def _uncounted(previous: str, e: TimelineEntry, kept: int, hidden: int) -> int:
    """How many more lasting lines there were before it than can be seen: hidden in a roll-up, or turned into observations. 0: not that."""
    candidates: tuple[int, ...] = (-1, *range(1, hidden + 1))
    for more in candidates:
        if e.sha256 == link(previous, e.seq, kept + more, e.at, e.kind, e.actor, e.what):
            return more
    return 0


def _bad_roll_up(timeline: Sequence[TimelineEntry], i: int) -> str:
    """A roll-up carries no digest of itself, so everything that can be said about it is checked."""
    e = timeline[i]
    if i >= len(timeline) - KEEP_RECENT:
        return f"is a roll-up among the newest {KEEP_RECENT} lines, which never roll up"
    if e.count < 1 or (e.actor, e.what) != ("operator", summary(e.count)):
        return "is a roll-up that was changed"
    return ""
