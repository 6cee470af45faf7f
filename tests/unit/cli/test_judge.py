"""`judge`: one command, the very annotation of the API, and no doubt about what it says."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.ports import ConflictError, ForbiddenError
from tests.unit.cli.scene import NAME, ZERO, FakeCluster, at, incident

run = CliRunner().invoke
JUDGE = "judge.nightorders.dev/"


def test_right_is_written_out_as_what_stands_first(cluster: FakeCluster) -> None:
    result = run(app, ["judge", NAME, "-n", "shop", "--right"])
    assert result.exit_code == 0, result.stderr
    assert cluster.written == [{JUDGE + "ann": "cause=Deployment/checkout category=ImageAccess|ann"}]
    assert "judged as ann: right: ImageAccess Deployment/checkout · rev 7" in result.stdout
    assert f"kubectl annotate incident {NAME}" in result.stdout


def test_another_cause_and_how_one_knows(cluster: FakeCluster) -> None:
    words = ["--cause", "ConfigMap/checkout", "--category", "BadConfiguration", "--because", "the tag | came from there"]
    result = run(app, ["judge", NAME, *words])
    assert result.exit_code == 0, result.stderr
    (written,) = cluster.written
    assert written == {JUDGE + "ann": "cause=ConfigMap/checkout category=BadConfiguration because=the tag / came from there|ann"}
    assert "wrong: it was BadConfiguration ConfigMap/checkout, not ImageAccess Deployment/checkout · rev 7 (grade A)" in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "write one of"),
        (["--right", "--cause", "Pod/x", "--category", "Node"], "write one of"),
        (["--cause", "Pod/x"], "--category is missing"),
        (["--category", "Node"], "--cause is missing"),
        (["--cause", "x", "--category", "Node"], "is no object"),
        (["--cause", "Pod/x", "--category", "BadConfig"], "did you mean BadConfiguration?"),
        (["--right", "--because", "x" * 401], "at most 400"),
    ],
)
def test_what_says_nothing_or_two_things_is_wrong_usage(cluster: FakeCluster, words: list[str], said: str) -> None:
    result = run(app, ["judge", NAME, *words])
    assert (result.exit_code, cluster.written) == (2, [])
    assert said in result.stderr


def test_nothing_diagnosed_and_nothing_shown_cannot_be_right(cluster: FakeCluster) -> None:
    cluster.incident = incident({"hypotheses": []})
    result = run(app, ["judge", NAME, "--right"])
    assert (result.exit_code, cluster.written) == (1, [])
    assert "is not diagnosed" in result.stderr
    unknown = {"category": "Unknown", "object": "Deployment/checkout", "grade": "D", "statement": "?"}
    cluster.incident = incident({"hypotheses": [unknown]})
    assert "no origin is shown" in run(app, ["judge", NAME, "--right"]).stderr
    assert run(app, ["judge", NAME, "--cause", "Pod/x", "--category", "Node"]).exit_code == 0


def test_ones_own_is_overwritten_somebody_elses_is_not(cluster: FakeCluster) -> None:
    cluster.incident = incident(annotations={JUDGE + "ann": "right|ann"})
    run(app, ["judge", NAME, "--right"])
    cluster.incident = incident(annotations={JUDGE + "ann": "right|bob"})
    run(app, ["judge", NAME, "--right"])
    assert [next(iter(w)) for w in cluster.written] == [JUDGE + "ann", JUDGE + "ann-2"]


def test_refusals_are_told_as_they_are(cluster: FakeCluster) -> None:
    cluster.refuse = ForbiddenError("ValidatingAdmissionPolicy nightorders-incidents: that is you: bob", "nightorders-incidents")
    result = run(app, ["judge", NAME, "--right"])
    assert result.exit_code == 1
    assert "not judged: the admission policy nightorders-incidents refuses: that is you: bob" in result.stderr
    cluster.refuse = ForbiddenError("incidents is forbidden")
    assert "ClusterRole nightorders-approver or nightorders-incident-author" in run(app, ["judge", NAME, "--right"]).stderr
    cluster.refuse = ConflictError("uid")
    assert "made anew" in run(app, ["judge", NAME, "--right"]).stderr


def test_show_tells_judgements_and_runbooks(cluster: FakeCluster) -> None:
    first = {"firstCategory": "ImageAccess", "firstObject": "Deployment/checkout", "firstGrade": "A"}
    other = {
        "by": "bob",
        "at": at(-5),
        "verdict": "Wrong",
        "cause": "Secret/pull",
        "category": "ImageAccess",
        "because": "expired",
        **first,
    }
    right = {"by": "ann", "at": at(-9), "verdict": "Right", "cause": "Deployment/checkout", "category": "ImageAccess", **first}
    reading = {"name": "errors", "state": "Present", "value": "0.4", "message": "at least 0.05", "at": at(-20)}
    match = {
        "name": "stuck",
        "because": "alert RolloutStuck",
        "at": at(-60),
        "statement": "Mostly a tag.",
        "category": "ImageAccess",
        "action": "None",
        "approvers": "shop on-call",
        "url": "https://runbooks.example/stuck",
        "symptoms": [reading],
        "ranked": "A before B",
    }
    cluster.incident = incident({"judgement": [right, other], "runbooks": [match]})
    told = run(app, ["show", NAME]).stdout
    for words in (
        "ann, 9 s ago",
        "right: ImageAccess Deployment/checkout (grade A)",
        "wrong: it was ImageAccess Secret/pull, not ImageAccess Deployment/checkout (grade A)",
        "because: expired",
        "stuck: alert RolloutStuck",
        "usually: ImageAccess Mostly a tag. (no evidence of this Incident)",
        "errors: Present 0.4 (at least 0.05)",
        "ranks A before B",
        "what helps: nothing that the operator could do",
        "ask: shop on-call",
        "https://runbooks.example/stuck",
    ):
        assert words in told, (words, told)
    assert ZERO not in told.partition("Judged by humans")[2].partition("Where it stands")[0]
