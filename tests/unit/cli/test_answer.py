"""`approve`, `reject`, `withdraw`: the very annotations of the API, bound to what was shown, and nothing around admission."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from nightorders.__main__ import app
from nightorders.api.v1alpha1.incident import Incident
from nightorders.cli.answer import free_key, key_of
from nightorders.ports import ConflictError, ForbiddenError, TransientError
from tests.unit.cli.golden import same_as_golden
from tests.unit.cli.scene import DIGEST, NAME, OTHER, FakeCluster, condition, incident, plan

run = CliRunner().invoke
APPROVE, REJECT, WHY = "approve.nightorders.dev/", "reject.nightorders.dev/", "why.nightorders.dev/"
EMERGENCY, TAKE = "emergency.nightorders.dev/", "take.nightorders.dev/"


def test_approve_shows_the_plan_asks_and_writes_the_annotation(cluster: FakeCluster) -> None:
    result = run(app, ["approve", NAME, "-n", "shop"], input="y\n")
    assert result.exit_code == 0, result.stderr
    assert cluster.written == [{APPROVE + "ann": f"{DIGEST}|ann"}]
    assert "Approve exactly this plan as ann?" in result.stderr
    same_as_golden(result.stdout, "approve.txt")


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_without_a_yes_nothing_is_written(cluster: FakeCluster, answer: str) -> None:
    result = run(app, ["approve", NAME], input=answer)
    assert result.exit_code == 1
    assert cluster.written == []
    assert "nothing was written: not confirmed" in result.stderr


def test_yes_and_the_pinned_digest_ask_nothing(cluster: FakeCluster) -> None:
    result = run(app, ["approve", NAME, "--yes", "--digest", DIGEST])
    assert result.exit_code == 0
    assert len(cluster.written) == 1


@pytest.mark.threat(3)
@pytest.mark.promise(1)
@pytest.mark.parametrize("command", [["approve", NAME, "--yes"], ["reject", NAME, "--because", "x"]])
def test_another_plan_than_the_one_reviewed_is_refused(cluster: FakeCluster, command: list[str]) -> None:
    result = run(app, [*command, "--digest", OTHER])
    assert (result.exit_code, cluster.written) == (1, [])
    assert f"the plan is another one now: you reviewed {OTHER}, waiting is {DIGEST}" in result.stderr
    assert f"nightorders show {NAME} -n shop" in result.stderr


def test_nothing_waits(cluster: FakeCluster) -> None:
    cluster.incident = incident({"conditions": [condition("Approved", "False", "Advised", "L2: run the command")]})
    result = run(app, ["approve", NAME, "--yes"])
    assert (result.exit_code, cluster.written) == (1, [])
    assert "waits for no approval: Approved=False Advised: L2: run the command" in result.stderr
    cluster.incident = incident({"plan": None, "conditions": [condition("Planned", "False", "NoPolicy", "no policy here")]})
    assert "it has no plan: no policy here" in run(app, ["approve", NAME, "--yes"]).stderr


def test_admissions_refusal_is_printed_in_plain_words(cluster: FakeCluster) -> None:
    cluster.refuse = ForbiddenError(
        "PATCH /apis/nightorders.dev/v1alpha1/namespaces/shop/incidents/x: ValidatingAdmissionPolicy nightorders-approvals: "
        "ann may not patch deployments checkout in namespace shop, so may not approve a plan that does (403)",
        "nightorders-approvals",
    )
    result = run(app, ["approve", NAME, "--yes"])
    assert result.exit_code == 1
    assert result.stderr == (
        "nightorders: not approved: the admission policy nightorders-approvals refuses: ann may not patch deployments checkout in "
        "namespace shop, so may not approve a plan that does\n"
    )


def test_a_missing_right_names_the_role(cluster: FakeCluster) -> None:
    cluster.refuse = ForbiddenError('PATCH /apis/x: incidents "x" is forbidden: User "ann" cannot patch (403)')
    result = run(app, ["approve", NAME, "--yes"])
    assert "not approved: incidents" in result.stderr
    assert "ClusterRole nightorders-approver in namespace shop" in result.stderr


@pytest.mark.threat(3, 7)
@pytest.mark.promise(1)
def test_a_new_incident_of_the_same_name_is_not_answered(cluster: FakeCluster) -> None:
    cluster.refuse = ConflictError("PATCH /x: Precondition failed: UID (409)")
    assert "was deleted and made anew since it was shown" in run(app, ["approve", NAME, "--yes"]).stderr


def test_an_answer_with_an_unknown_outcome_is_not_called_done(cluster: FakeCluster) -> None:
    cluster.refuse = TransientError("PATCH /x: no answer in time; the outcome is unknown")
    result = run(app, ["approve", NAME, "--yes"])
    assert result.exit_code == 3
    assert "it is not known to be approved" in result.stderr


def test_reject_writes_its_reason_in_the_same_request(cluster: FakeCluster) -> None:
    cluster.user = "auth0|bob"
    result = run(app, ["reject", NAME, "--because", "the migration\nstill runs\x1b[31m"])
    assert result.exit_code == 0
    key = key_of("auth0|bob")
    assert cluster.written == [{REJECT + key: f"{DIGEST}|auth0|bob", WHY + key: "the migration still runs [31m"}]


def test_reject_wants_a_reason(cluster: FakeCluster) -> None:
    assert run(app, ["reject", NAME]).exit_code == 2
    assert run(app, ["reject", NAME, "--because", " "]).exit_code == 2
    assert cluster.written == []


def test_withdraw_takes_back_ones_own_answers_only(cluster: FakeCluster) -> None:
    notes = {
        APPROVE + "ann": f"{DIGEST}|ann",
        APPROVE + "bob": f"{DIGEST}|bob",
        REJECT + "x": f"{OTHER}|ann",
        WHY + "x": "because",
        WHY + "y": "of somebody else",
        "other": f"{DIGEST}|ann",
    }
    cluster.incident = incident(annotations=notes)
    result = run(app, ["withdraw", NAME])
    assert result.exit_code == 0
    assert cluster.written == [{APPROVE + "ann": None, REJECT + "x": None, WHY + "x": None}]


def test_withdraw_leaves_the_record_of_what_was_carried_out(cluster: FakeCluster) -> None:
    done = {
        "id": "no-1",
        "action": "RollbackWorkload",
        "by": "operator",
        "state": "Ended",
        "planDigest": OTHER,
        "reservedAt": "2026-11-21T09:00:00Z",
        "before": OTHER,
        "after": OTHER,
    }
    notes = {APPROVE + "old": f"{OTHER}|ann", APPROVE + "new": f"{DIGEST}|ann"}
    cluster.incident = incident({"executions": [done]}, annotations=notes)
    assert run(app, ["withdraw", NAME]).exit_code == 0
    assert cluster.written == [{APPROVE + "new": None}]


def test_nothing_to_withdraw(cluster: FakeCluster) -> None:
    result = run(app, ["withdraw", NAME])
    assert (result.exit_code, cluster.written) == (1, [])
    assert "ann has given no answer" in result.stderr


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=120)


@given(names)
def test_a_key_fits_an_annotation(username: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", key_of(username))


@given(names, names)
def test_two_people_never_share_a_key(one: str, other: str) -> None:
    assert one == other or key_of(one) != key_of(other)


def test_an_answer_never_overwrites_somebody_elses() -> None:
    notes = {APPROVE + "ann": f"{DIGEST}|mallory", APPROVE + "ann-2": f"{DIGEST}|mallory"}
    assert free_key(notes, "ann") == "ann-3"
    assert free_key({APPROVE + "ann": f"{OTHER}|ann"}, "ann") == "ann"


def test_a_name_belongs_to_one_person_whatever_sort_of_answer_it_holds() -> None:
    """Else the why of one would be read as the reason of another."""
    assert free_key({REJECT + "ann": f"{DIGEST}|mallory"}, "ann") == "ann-2"
    assert free_key({EMERGENCY + "ann": f"{DIGEST}|mallory"}, "ann") == "ann-2"


def frozen(by: str = "Namespace") -> Incident:
    return incident({"plan": plan(needs={"count": 1, "expiresSeconds": 900, "frozenBy": by})})


def test_an_emergency_approval_and_its_reason_are_one_request(cluster: FakeCluster) -> None:
    cluster.incident = frozen()
    result = run(app, ["approve", NAME, "--emergency", "--because", "nobody can\npay", "--yes"])
    assert result.exit_code == 0, result.stderr
    assert cluster.written == [{EMERGENCY + "ann": f"{DIGEST}|ann", WHY + "ann": "nobody can pay"}]
    assert f"emergency approval as ann: {DIGEST}" in result.stdout
    assert "only emergency approvals count" in result.stdout


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--emergency"], "an emergency approval needs its reason"),
        (["--emergency", "--because", " "], "an emergency approval needs its reason"),
        (["--because", "x"], "--because belongs to --emergency"),
    ],
)
def test_an_emergency_needs_its_reason_and_nothing_else_does(cluster: FakeCluster, flags: list[str], says: str) -> None:
    cluster.incident = frozen()
    result = run(app, ["approve", NAME, "--yes", *flags])
    assert (result.exit_code, cluster.written) == (2, [])
    assert says in result.stderr


def test_during_a_freeze_an_ordinary_approval_is_not_written_for_nothing(cluster: FakeCluster) -> None:
    cluster.incident = frozen("Cluster")
    result = run(app, ["approve", NAME, "--yes"])
    assert (result.exit_code, cluster.written) == (1, [])
    assert f"nightorders approve {NAME} -n shop --emergency --because '…'" in result.stderr


def test_without_a_freeze_there_is_no_emergency(cluster: FakeCluster) -> None:
    result = run(app, ["approve", NAME, "--yes", "--emergency", "--because", "hurry"])
    assert (result.exit_code, cluster.written) == (1, [])
    assert "no freeze holds this plan back" in result.stderr


def test_a_missing_right_for_emergencies_names_its_role(cluster: FakeCluster) -> None:
    cluster.incident = frozen()
    cluster.refuse = ForbiddenError('PATCH /apis/x: incidents "x" is forbidden: User "ann" cannot patch (403)')
    result = run(app, ["approve", NAME, "--yes", "--emergency", "--because", "x"])
    assert "ClusterRole nightorders-emergency-approver in namespace shop" in result.stderr


def test_withdraw_takes_an_emergency_approval_and_its_reason_back(cluster: FakeCluster) -> None:
    cluster.incident = incident(annotations={EMERGENCY + "ann": f"{DIGEST}|ann", WHY + "ann": "nobody can pay"})
    assert run(app, ["withdraw", NAME]).exit_code == 0
    assert cluster.written == [{EMERGENCY + "ann": None, WHY + "ann": None}]


def test_take_says_who_is_on_it(cluster: FakeCluster) -> None:
    cluster.user = "auth0|ann"
    result = run(app, ["take", NAME, "-n", "shop"])
    assert (result.exit_code, result.stderr) == (0, "")
    key = TAKE + key_of("auth0|ann")
    assert cluster.written == [{key: "auth0|ann"}]
    assert f"kubectl annotate incident {NAME} -n shop '{key}=auth0|ann'" in result.stdout
    assert f"when you are done: nightorders take {NAME} -n shop --give-back" in result.stdout


def test_taking_twice_is_taking_once_and_takes_nobody_elses_place(cluster: FakeCluster) -> None:
    cluster.incident = incident(annotations={TAKE + "x": "ann"})
    result = run(app, ["take", NAME])
    assert (result.exit_code, cluster.written, result.stdout) == (0, [], "ann has taken it already\n")
    cluster.incident = incident(annotations={TAKE + "ann": "bob"})
    assert run(app, ["take", NAME]).exit_code == 0
    assert cluster.written == [{TAKE + "ann-2": "ann"}]


def test_give_back_takes_ones_own_only(cluster: FakeCluster) -> None:
    cluster.incident = incident(annotations={TAKE + "x": "ann", TAKE + "y": "bob"})
    result = run(app, ["take", NAME, "--give-back"])
    assert cluster.written == [{TAKE + "x": None}]
    assert f"kubectl annotate incident {NAME} -n shop {TAKE}x-" in result.stdout
    cluster.incident = incident(annotations={TAKE + "y": "bob"})
    refused = run(app, ["take", NAME, "--give-back"])
    assert refused.exit_code == 1
    assert "ann has not taken Incident" in refused.stderr
    assert "bob did" in refused.stderr
