"""What counts towards earned autonomy, and how somebody might try to praise the operator into a level."""

from __future__ import annotations

from typing import Any

import pytest

from nightorders.api.v1alpha1.incident import CheckSpec
from nightorders.domain import verification
from nightorders.domain.ledger import confirmed
from tests.unit.domain.make import NOW, execution, incident, plan, sample, staged_status

pytestmark = pytest.mark.threat(29)
QUERY = CheckSpec(name="errors", promql="up", max="1")


def judged(*, by_hand: bool = False, requester: str | None = None, query: str = "", **e: Any) -> str:
    """`confirmed` of an execution that ended. `query`: the verdict of a query of the policy's at the end."""
    p = plan()
    if query:
        p = p.model_copy(update={"verify": p.verify.model_copy(update={"checks": (QUERY,)})})
    ended = execution("Ended", p, **{"result": "Recovered", "ended_at": NOW, **e})
    status = staged_status(p=p, executions=(ended,))
    if query:
        v = verification.begin(p.verify, (), NOW).model_copy(update={"measurements": (sample("errors", query), sample("symptom"))})
        status = status.model_copy(update={"verification": v})
    fields: dict[str, Any] = {"requestedBy": requester} if requester else {}
    return confirmed(incident(status, **fields, **({"signal": None} if by_hand else {})), ended)


def test_a_recovery_that_nobody_confirmed_counts_nothing() -> None:
    """The symptom going away is the operator's own word."""
    assert judged() == "No"
    assert judged(query="Fail") == "No"
    assert judged(query="NoData") == "No"


def test_an_independent_query_or_another_humans_approval_confirms() -> None:
    assert judged(query="Pass") == "Signal"
    assert judged(approved_by=("ann",)) == "Human"


@pytest.mark.parametrize("result", ["Undone", "Escalated", "Superseded", "NotApplied"])
def test_nothing_but_a_recovery_counts_whoever_agreed(result: str) -> None:
    assert judged(result=result, approved_by=("ann",), query="Pass") == "No"


def test_self_made_incidents_of_one_person_do_not_count() -> None:
    """She breaks it, opens an Incident, approves the repair, or runs it herself, as often as she likes."""
    assert judged(by_hand=True, requester="ann", approved_by=("ann",)) == "No"
    assert judged(by_hand=True, requester="ann", by="human") == "No"
    assert judged(by_hand=True, requester="ann", query="Pass") == "No"
    assert judged(by_hand=True, approved_by=("ann",)) == "No", "nobody can tell whether she opened it"
    assert judged(by_hand=True, requester="ann", approved_by=("bob",)) == "Human"


def test_an_account_that_may_approve_is_no_human() -> None:
    robot = "system:serviceaccount:shop:robot"
    assert judged(approved_by=(robot,)) == "No"
    assert judged(by_hand=True, requester="ann", approved_by=(robot,)) == "No"
    assert judged(approved_by=(robot, "bob")) == "Human"
