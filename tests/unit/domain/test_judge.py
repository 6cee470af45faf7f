"""What a human says was the cause: read, compared with what stood first, kept, counted; once each, and never for ever again."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nightorders import shipped
from nightorders.api.meta import find_condition
from nightorders.api.v1alpha1 import Category, Incident, IncidentStatus
from nightorders.api.v1alpha1.ledger import JudgementRecord, LedgerSpec
from nightorders.domain import journal, opinions
from nightorders.domain.ledger import judged, note
from nightorders.domain.reasons import Reason
from nightorders.domain.steps import Idle, Save, next_step
from tests.unit.domain.make import NOW, SECOND, condition, hypothesis, in_execution, incident, situation

JUDGE = "judge.nightorders.dev/"
TEXTS = ["right", "cause=ConfigMap/web category=BadConfiguration", "cause=Service/data/db category=DNS because=it says so, twice"]


def told(*notes: str, closed: bool = True, **status: object) -> Incident:
    """An Incident with these annotations, diagnosed as ImageAccess Deployment/checkout of grade A."""
    conditions = (condition("Closed", "True", Reason.RECOVERED),) if closed else ()
    made = IncidentStatus(**{"hypotheses": (hypothesis(),), "conditions": conditions, **status})  # type: ignore[arg-type]
    return incident(made, annotations={f"{JUDGE}n{i:02}": n for i, n in enumerate(notes)})


def test_right_is_what_stood_first() -> None:
    found = opinions.recorded(told("right|ann"), NOW)
    assert found is not None
    (j,) = found.status.judgement
    assert (j.by, j.verdict, j.category, j.cause, j.first_grade) == ("ann", "Right", Category.IMAGE_ACCESS, "Deployment/checkout", "A")
    last = found.status.timeline[-1]
    assert (last.kind, last.actor, last.what) == ("Decision", "ann", "judges Right: the cause was ImageAccess Deployment/checkout")
    assert journal.breaks(found.status.timeline, "uid-incident") == []
    assert found.entry is not None
    assert found.entry.right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("cause=Deployment/checkout category=ImageAccess", True),
        ("cause=Deployment/shop/checkout category=ImageAccess", True),
        ("cause=Deployment/other/checkout category=ImageAccess", False),
        ("cause=Deployment/checkout category=Probe", False),
        ("cause=ConfigMap/checkout category=ImageAccess because=it was the tag in there", False),
    ],
)
def test_another_object_or_mechanism_is_wrong(text: str, right: bool) -> None:
    found = opinions.recorded(told(f"{text}|auth0|ann"), NOW)
    assert found is not None
    assert found.status.judgement[0].verdict == ("Right" if right else "Wrong")
    assert found.status.judgement[0].by == "auth0|ann"
    assert found.entry is not None
    assert found.entry.right is right


@pytest.mark.parametrize("bad", ["right", "right|", "|ann", "Right|ann", "cause=x category=Probe|ann", "cause=Pod/x category=Nonsense|ann"])
def test_what_cannot_be_read_is_told_and_left(bad: str) -> None:
    found = opinions.recorded(told(bad), NOW)
    assert found is not None
    assert (found.entry, found.status.judgement) == (None, ())
    assert "is no judgement: " in found.status.timeline[-1].what
    assert opinions.recorded(told(bad, judgements_seen=found.status.judgements_seen), NOW) is None


def test_nothing_can_be_right_where_no_origin_is_shown() -> None:
    unknown = (hypothesis("D", category=Category.UNKNOWN),)
    found = opinions.recorded(told("right|ann", hypotheses=unknown), NOW)
    assert found is not None
    assert found.entry is None
    found = opinions.recorded(told("cause=Secret/x category=MissingObject|ann", hypotheses=unknown), NOW)
    assert found is not None
    assert found.entry is not None
    assert (found.entry.category, found.entry.right) == (Category.UNKNOWN, False)


def test_a_judgement_waits_for_a_diagnosis() -> None:
    assert opinions.recorded(told("right|ann", hypotheses=()), NOW) is None


def test_one_for_each_user_the_last_four_and_then_it_is_quiet() -> None:
    """Five people: the first one's is dropped, and is not taken for a new one in the next pass, for ever."""
    notes = [f"right|user{i}" for i in range(5)]
    status = told(*notes).status
    passes = 0
    while (found := opinions.recorded(told(*notes, **dict(status)), NOW + passes * SECOND)) is not None:
        status, passes = found.status, passes + 1
        assert passes <= 5
    assert [j.by for j in status.judgement] == ["user1", "user2", "user3", "user4"]
    changed = told(*notes[:4], "cause=Pod/x category=Node|user4", **dict(status))
    found = opinions.recorded(changed, NOW)
    assert found is not None
    assert [(j.by, j.verdict) for j in found.status.judgement][-2:] == [("user3", "Right"), ("user4", "Wrong")]


def test_a_closed_incident_is_judged_too_and_stays_closed() -> None:
    step = next_step(situation(inc=told("right|ann"), diagnosis=None), NOW)
    assert isinstance(step, Save)
    assert isinstance(step.note, JudgementRecord)
    assert step.announce == (Reason.JUDGED, "ann judges Right: the cause was ImageAccess Deployment/checkout")
    closed = find_condition(step.status.conditions, "Closed")
    assert closed is not None
    assert closed.status == "True"
    assert step.status.phase == "Recovered"
    after = told("right|ann", **dict(step.status))
    assert next_step(situation(inc=after, diagnosis=None), NOW) == Idle("closed", None)


@pytest.mark.promise(2)
def test_an_execution_under_way_comes_first() -> None:
    s = in_execution("Reserved", annotations={f"{JUDGE}n": "right|ann"})
    assert not (isinstance(step := next_step(s, NOW), Save) and step.note is not None)


def test_the_ledger_counts_each_incident_once_with_its_latest_judgement() -> None:
    def entry(uid: str, by: str, right: bool, minute: int, grade: str = "A") -> JudgementRecord:
        at = NOW + timedelta(minutes=minute)
        return JudgementRecord(
            incident="i",
            incident_uid=uid,
            category=Category.PROBE,
            grade=grade,
            right=right,
            by=by,
            at=at,  # type: ignore[arg-type]
        )

    spec = LedgerSpec()
    for e in (entry("1", "ann", True, 0), entry("1", "ann", True, 0), entry("1", "bob", False, 1), entry("2", "ann", True, 2)):
        spec = note(spec, e)
    assert len(spec.judgements) == 3
    assert judged(spec) == {(Category.PROBE, "A"): (1, 1)}
    spec = note(spec, entry("3", "ann", True, 3, "B"))
    assert judged(spec)[(Category.PROBE, "B")] == (1, 0)


@given(
    st.from_regex(r"[A-Z][a-z]{1,10}/[a-z0-9][a-z0-9.:_-]{0,30}", fullmatch=True), st.sampled_from(list(Category)), st.text(max_size=600)
)
def test_what_is_written_is_read_back(cause: str, category: Category, because: str) -> None:
    written = opinions.text(cause, category.value, because)
    said = opinions.read(f"{written}|auth0|ann")
    assert isinstance(said, opinions.Said), (written, said)
    assert (said.by, said.cause, said.category) == ("auth0|ann", cause, category)
    assert len(f"{written}|{'u' * 256}") <= 1024


def test_admission_and_the_operator_read_the_same() -> None:
    """The pattern in the shipped policy takes what the operator takes, and nothing else."""
    (policy,) = (
        d for d in shipped.admission() if d["kind"] == "ValidatingAdmissionPolicy" and d["metadata"]["name"] == "nightorders-incidents"
    )
    expression = next(v["expression"] for v in policy["spec"]["validations"] if "category=" in v["expression"])
    pattern = re.search(r"matches\(\s*'([^']+)'\s*\)", expression)
    assert pattern is not None, yaml.safe_dump(expression)
    for text in (
        *TEXTS,
        "Right",
        "",
        "cause=x category=Probe",
        "right because=",
        "cause=Pod/x",
        "cause=Pod/x  category=Node",
        "right and so",
    ):
        admitted = re.match(pattern[1], f"{text}|ann") is not None
        assert admitted == (opinions.TEXT.fullmatch(text) is not None), text
