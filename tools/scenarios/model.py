"""scenario.yaml as typed models. `load.py` reads the files; the models hold what can be checked without them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from tools.scenarios.jsonpath import JsonPathError, Template

Category = Literal[
    "NoFault",
    "Quota",
    "Admission",
    "MissingObject",
    "Storage",
    "Unschedulable",
    "ImageAccess",
    "ResourceLimit",
    "Probe",
    "BadConfiguration",
    "AccessDenied",
    "NetworkPolicy",
    "DNS",
    "ServiceRouting",
    "Certificate",
    "BadRelease",
    "Scale",
    "Autoscaling",
    "Overload",
    "Disruption",
    "Job",
    "Node",
    "ControlPlane",
    "Dependency",
    "External",
    "Unknown",
]
CATEGORIES: tuple[str, ...] = get_args(Category)
Outcome = Literal["Repaired", "Escalated", "Dismissed", "Waiting", "NoChange"]
DNS_LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_KIND = r"[A-Z][A-Za-z0-9]*(\.[a-z0-9.-]+)?"
_NAME = r"[A-Za-z0-9_.:${}=,-]+"
_REFERENCE = re.compile(rf"{_KIND}/({_NAME}/)?{_NAME}")
_REFERENCE_OR_KIND = re.compile(rf"{_KIND}(/({_NAME}/)?{_NAME})?")


def seconds(text: str) -> float:
    """A duration such as 5s, 1m30s or 500ms, in seconds. Raises ValueError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration; write 5s, 1m30s or 500ms")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _duration(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("is no duration; write 5s, 1m30s or 500ms")
    return float(value) if isinstance(value, int | float) else seconds(value)


def _text(value: Any) -> Any:
    """Compared values are texts; a bare 3 or true in YAML means "3" or "true"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _reference(value: str) -> str:
    if not _REFERENCE.fullmatch(value):
        raise ValueError(f"{value!r} names no object; write Kind/name, or Kind/namespace/name for another namespace")
    return value


def _reference_or_kind(value: str) -> str:
    if not _REFERENCE_OR_KIND.fullmatch(value):
        raise ValueError(f"{value!r} names no object; write Kind/name, or Kind alone for all of that kind")
    return value


Duration = Annotated[float, BeforeValidator(_duration)]
TextValue = Annotated[str, BeforeValidator(_text)]
Reference = Annotated[str, BeforeValidator(lambda v: _reference(v) if isinstance(v, str) else v)]
ReferenceOrKind = Annotated[str, BeforeValidator(lambda v: _reference_or_kind(v) if isinstance(v, str) else v)]


class Model(BaseModel):
    """Nothing is accepted that is not obeyed."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=False)


class Check(Model):
    """A question about the cluster that is true or false; a missing object makes it false, unless `absent` asks for that."""

    object: ReferenceOrKind
    selector: str | None = None
    condition: str | None = None
    status: str = "True"
    jsonpath: str | None = None
    equals: TextValue | None = None
    not_equals: TextValue | None = None
    matches: str | None = None
    absent: bool = False

    @model_validator(mode="after")
    def _one_question(self) -> Check:
        if "/" in self.object and self.selector:
            raise ValueError("selector belongs to a Kind without a name; remove one of the two")
        if sum((self.condition is not None, self.jsonpath is not None, self.absent)) != 1:
            raise ValueError("a check has exactly one of condition, jsonpath and absent: true")
        compared = [f for f in ("equals", "not_equals", "matches") if getattr(self, f) is not None]
        if self.jsonpath is not None and len(compared) != 1:
            raise ValueError("jsonpath needs exactly one of equals, notEquals and matches")
        if self.jsonpath is None and compared:
            raise ValueError("equals, notEquals and matches belong to jsonpath; add jsonpath or remove them")
        if "status" in self.model_fields_set and self.condition is None:
            raise ValueError("status belongs to condition; add condition or remove status")
        return self

    @field_validator("jsonpath")
    @classmethod
    def _readable(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                Template(value)
            except JsonPathError as problem:
                raise ValueError(f"{problem}; write it as for kubectl -o jsonpath=…") from None
        return value

    @field_validator("matches")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        return _regex(value)


def _regex(value: str | None) -> str | None:
    if value is not None:
        try:
            re.compile(value)
        except re.error as problem:
            raise ValueError(f"{value!r} is no regular expression: {problem}; correct it") from None
    return value


class Until(Check):
    """A check that is waited for."""

    within: Duration = 60.0


class Patch(Model):
    """A patch as kubectl sends it."""

    object: Reference
    type: Literal["strategic", "merge", "json"] = "strategic"
    patch: dict[str, Any] | list[dict[str, Any]]
    subresource: str | None = None

    @model_validator(mode="after")
    def _shape(self) -> Patch:
        if (self.type == "json") != isinstance(self.patch, list):
            raise ValueError("type json takes a list of operations; strategic and merge take a mapping")
        return self


class Step(Model):
    """One thing that happens; exactly one of the fields is set."""

    apply: str | None = None
    patch: Patch | None = None
    delete: Reference | None = None
    run: tuple[TextValue, ...] | None = None
    wait: Duration | None = None
    until: Until | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Step:
        if len(self.model_fields_set) != 1:
            raise ValueError("a step has exactly one of apply, patch, delete, run, wait and until; split it or correct it")
        return self

    @field_validator("run")
    @classmethod
    def _kubectl(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if value is None else _kubectl_command(value)


def _kubectl_command(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) < 2 or value[0] != "kubectl":
        raise ValueError("only kubectl can be run; write [kubectl, rollout, restart, deployment/x]")
    return value


class Case(Model):
    """A value that a series has while `when` holds; the first case that holds counts."""

    when: Check | None = None
    value: float


SERIES = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?")
_LABEL = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*')


def parse_series(text: str) -> tuple[str, dict[str, str]]:
    """(name, labels) of a series such as `x{a="1",b="2"}`. Raises ValueError."""
    match = SERIES.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'{text!r} is no series; write name{{label="value"}}')
    labels: dict[str, str] = {}
    rest = match[2] or ""
    while rest:
        label = _LABEL.match(rest)
        if label is None or (label.end() < len(rest) and rest[label.end()] != ","):
            raise ValueError(f'{text!r}: cannot read the labels from {rest!r}; write label="value", separated by commas')
        labels[label[1]] = label[2].replace(r"\"", '"').replace(r"\\", "\\")
        rest = rest[label.end() + 1 :]
    return match[1], labels


class Series(Model):
    """A metric of the cluster that follows the cluster's own state."""

    series: str
    type: Literal["counter", "gauge"]
    per_second: tuple[Case, ...] | None = None
    value: tuple[Case, ...] | None = None

    @field_validator("series")
    @classmethod
    def _parses(cls, value: str) -> str:
        parse_series(value)
        return value

    @model_validator(mode="after")
    def _by_type(self) -> Series:
        cases, other = (self.per_second, self.value) if self.type == "counter" else (self.value, self.per_second)
        if not cases or other is not None:
            raise ValueError("a counter has perSecond, a gauge has value: a list of {when, value}; give that one and not the other")
        if any(case.when is None for case in cases[:-1]):
            raise ValueError("only the last case may have no `when`: the first that holds counts, so those after it never would")
        if self.type == "counter" and any(case.value < 0 for case in cases):
            raise ValueError("a counter never falls; use a gauge or a value of 0 or more")
        return self

    @property
    def cases(self) -> tuple[Case, ...]:
        """The cases of either type."""
        return self.per_second or self.value or ()


class Signal(Model):
    """What Alertmanager sends."""

    labels: dict[str, TextValue]
    annotations: dict[str, TextValue] = {}

    @field_validator("labels")
    @classmethod
    def _named(cls, value: dict[str, str]) -> dict[str, str]:
        if not value.get("alertname"):
            raise ValueError("alertname is missing; Alertmanager always sends one")
        return value


class RootCause(Model):
    """A right answer. Without an object any is right."""

    category: Category
    object: Reference | None = None


class Expect(Model):
    """The right answer."""

    root_cause: Annotated[tuple[RootCause, ...], Field(min_length=1)]
    outcome: Outcome
    may_mutate: tuple[Reference, ...] = ()
    may_change: dict[Reference, tuple[str, ...]] = {}
    repaired: tuple[Check, ...] = ()
    unchanged: tuple[Reference, ...] = ()

    @model_validator(mode="after")
    def _agree(self) -> Expect:
        if strangers := sorted(set(self.may_change) - set(self.may_mutate)):
            raise ValueError(f"mayChange names {', '.join(strangers)}, which mayMutate does not; add it there")
        if self.outcome == "Repaired" and not self.repaired:
            raise ValueError("outcome Repaired needs `repaired`: the states that show that the user's goal is reached")
        if self.outcome == "Repaired" and not self.may_mutate:
            raise ValueError("outcome Repaired needs `mayMutate`: what has to be changed for it")
        return self


class Proof(Model):
    """What --prove shows: that the fault is real, that a repair exists, and that the obvious wrong moves are wrong."""

    symptom: Annotated[tuple[Check, ...], Field(min_length=1)]
    repair: tuple[Step, ...] = ()
    wrong: dict[str, tuple[Step, ...]] = {}
    cleanup: tuple[tuple[TextValue, ...], ...] = ()

    @field_validator("cleanup")
    @classmethod
    def _kubectl(cls, value: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        return tuple(_kubectl_command(one) for one in value)


class Document(Model):
    """scenario.yaml."""

    id: Annotated[str, Field(pattern=DNS_LABEL)]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    nodes: Literal["simulated", "real"]
    kind: Literal["fault", "trap"]
    source: str = ""
    namespace: Annotated[str, Field(pattern=DNS_LABEL)]
    cluster: tuple[str, ...] = ()
    before: Annotated[tuple[str, ...], Field(min_length=1)]
    behaviour: tuple[str, ...] = ()
    ready: Annotated[tuple[Check, ...], Field(min_length=1)]
    metrics: tuple[Series, ...] = ()
    steps: tuple[Step, ...] = ()
    signal: Signal
    policies: tuple[str, ...] | None = None
    expect: Expect
    proof: Proof | None = None

    @model_validator(mode="after")
    def _trap(self) -> Document:
        if self.kind == "trap" and (self.expect.outcome == "Repaired" or self.expect.may_mutate):
            raise ValueError("in a trap nothing may be changed: outcome is not Repaired and mayMutate is empty, or kind is fault")
        if self.proof is not None and self.expect.outcome == "Repaired" and not self.proof.repair:
            raise ValueError("proof.repair is missing: outcome Repaired needs steps that make every `repaired` line true")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """Every manifest that the document names."""
        steps = [*self.steps]
        if self.proof is not None:
            steps += [*self.proof.repair, *(s for wrong in self.proof.wrong.values() for s in wrong)]
        applied = tuple(step.apply for step in steps if step.apply is not None)
        return (*self.cluster, *self.before, *self.behaviour, *(self.policies or ()), *applied)
