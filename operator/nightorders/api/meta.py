"""What every kind of the API shares: names, conditions, string types that are safe to show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

GROUP = "nightorders.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

APPROVE_PREFIX = f"approve.{GROUP}/"
REJECT_PREFIX = f"reject.{GROUP}/"
WHY_PREFIX = f"why.{GROUP}/"
EMERGENCY_PREFIX = f"emergency.{GROUP}/"
TAKE_PREFIX = f"take.{GROUP}/"
JUDGE_PREFIX = f"judge.{GROUP}/"
MAX_LEVEL_ANNOTATION = f"{GROUP}/max-level"
ROLLBACK_BARRIER_ANNOTATION = f"{GROUP}/rollback-barrier"
EXECUTION_LABEL = f"{GROUP}/execution"
TERM_LABEL = f"{GROUP}/term"  # of the leader that wrote it: leaseTransitions, held against the Lease by admission (threats.md 17)
PAUSED_BY_ANNOTATION = f"{GROUP}/paused-by"
FINALIZER = f"{GROUP}/execution"
STOP_CONFIGMAP = "nightorders-stop"
LEDGER_NAME = "ledger"
FLEET_LEDGER_NAME = "fleet"
AUDIT_LEDGER_NAME = "audit"  # by itself, so that publishing heads never competes with a reservation


class Model(BaseModel):
    """Base of every API type: camelCase on the wire, immutable in memory, unknown fields refused.

    Refusing unknown fields is a safety property: a newer schema may carry a guardrail that this version would
    silently ignore.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    def wire(self) -> dict[str, object]:
        """The JSON object as the API server stores it: camelCase, without unset optional fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Level(StrEnum):
    """How far the operator may go for one action type; ordered L1 < L2 < L3 < L4."""

    L1 = "L1"
    L2 = "L2"
    L3 = "L3"
    L4 = "L4"


# Control characters, bidirectional marks and line breaks never reach a terminal through us (threats.md 24).
# Go's and Rust's regular expressions both understand this spelling.
_UNSAFE = r"\x{0}-\x{8}\x{b}-\x{1f}\x{7f}-\x{9f}\x{200e}\x{200f}\x{2028}-\x{202e}\x{2066}-\x{2069}"
LINE_PATTERN = rf"^[^\t\n{_UNSAFE}]*$"
TEXT_PATTERN = rf"^[^{_UNSAFE}]*$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
DURATION_PATTERN = r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"
NUMBER_PATTERN = r"^-?[0-9]{1,15}(\.[0-9]{1,15})?$"

Word = Annotated[str, Field(max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")]
Name = Annotated[str, Field(min_length=1, max_length=253, pattern=NAME_PATTERN)]
KindName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Z][A-Za-z0-9]*$")]
ApiVersion = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[a-z0-9]+$")]
Line = Annotated[str, Field(max_length=1024, pattern=LINE_PATTERN)]
ShortLine = Annotated[str, Field(max_length=256, pattern=LINE_PATTERN)]
Text = Annotated[str, Field(max_length=8192, pattern=TEXT_PATTERN)]
Sha256 = Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")]
Duration = Annotated[str, Field(max_length=32, pattern=DURATION_PATTERN)]
Number = Annotated[str, Field(max_length=32, pattern=NUMBER_PATTERN)]
Percent = Annotated[int, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
UID = Annotated[str, Field(max_length=64, pattern=r"^[-A-Za-z0-9]*$")]


def _rfc3339(at: datetime) -> str:
    """UTC with microseconds and Z. (Kubernetes' metav1.Time has whole seconds; `format: date-time` takes both.)"""
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


Time = Annotated[datetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]

_UNSAFE_RUN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
_BREAK_RUN = re.compile("[\t\n\r]+")


def line(text: str, limit: int = 1024) -> str:
    """`text` made safe for a one-line field: control and bidi characters and line breaks become one space, cut at `limit` characters."""
    clean = _UNSAFE_RUN.sub(" ", _BREAK_RUN.sub(" ", text)).strip()
    clean = clean.encode("utf-8", "replace").decode()
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def text(value: str, limit: int = 8192) -> str:
    """`value` made safe for a multi-line field; cut at `limit` characters with a visible mark."""
    clean = _UNSAFE_RUN.sub(" ", value.replace("\r\n", "\n")).encode("utf-8", "replace").decode()
    return clean if len(clean) <= limit else clean[: limit - 15] + "\n[cut here]"


_UNIT = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse_duration(value: str) -> timedelta:
    """`1h30m` → timedelta. Accepts what DURATION_PATTERN accepts (Gateway API's format).

    Raises ValueError for anything else.
    """
    if not re.fullmatch(DURATION_PATTERN, value):
        raise ValueError(f"{value!r} is no duration such as 90s, 15m or 1h30m")
    return timedelta(seconds=sum(int(n) * _UNIT[u] for n, u in re.findall(r"([0-9]+)(ms|h|m|s)", value)))


class Condition(Model):
    """A Kubernetes condition. `reason` is CamelCase from `domain/reasons.py`, `message` names the numbers that decided."""

    type: Annotated[str, Field(max_length=63, pattern=r"^[A-Z][A-Za-z]*$")]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Z][A-Za-z0-9]*$")]
    message: Line = ""
    observed_generation: Count = 0
    last_transition_time: Time


class ConditionedStatus(Model):
    """What every status has."""

    observed_generation: Count = 0
    conditions: Annotated[
        tuple[Condition, ...],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = ()


def find_condition(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """The condition of that type, or None."""
    return next((c for c in conditions if c.type == kind), None)


def set_condition(conditions: Sequence[Condition], new: Condition) -> tuple[Condition, ...]:
    """`conditions` with `new` in its place; `lastTransitionTime` moves only when the status flips."""
    old = find_condition(conditions, new.type)
    if old is None:
        return (*conditions, new)
    if old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return tuple(new if c.type == new.type else c for c in conditions)


class ObjectMeta(BaseModel):
    """The part of `metadata` that the operator reads; everything else is ignored, none of it is written back."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A printer column of `kubectl get`; priority 1 shows it with `-o wide` only."""

    name: str
    path: str
    type: Literal["string", "integer", "date"] = "string"
    priority: int = 0
    description: str = ""


@dataclass(frozen=True)
class Names:
    """How a kind is served: plural, short names, scope, columns."""

    plural: str
    short: tuple[str, ...]
    columns: tuple[Column, ...] = ()
    namespaced: bool = True


class Resource(BaseModel):
    """Base of the kinds themselves: `apiVersion`, `kind`, `metadata`; `spec` and `status` come from the subclass."""

    served: ClassVar[Names]

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    api_version: str = API_VERSION
    kind: str
    metadata: ObjectMeta


class LabelSelectorRequirement(Model):
    """One expression of a label selector."""

    key: Annotated[str, Field(min_length=1, max_length=317)]
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=32)] = ()


class LabelSelector(Model):
    """A label selector as everywhere in Kubernetes; empty selects everything."""

    match_labels: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]],
        Field(description="Labels that must be equal, all of them.", max_length=32),
    ] = Field(default_factory=dict)
    match_expressions: Annotated[
        tuple[LabelSelectorRequirement, ...],
        Field(
            description="Expressions that must hold, all of them.",
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
        ),
    ] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(k) == v for k, v in self.match_labels.items()) and all(
            _requirement_holds(r, labels) for r in self.match_expressions
        )


def _requirement_holds(r: LabelSelectorRequirement, labels: dict[str, str]) -> bool:
    match r.operator:
        case "In":
            return labels.get(r.key) in r.values
        case "NotIn":
            return r.key not in labels or labels[r.key] not in r.values
        case "Exists":
            return r.key in labels
        case "DoesNotExist":
            return r.key not in labels
