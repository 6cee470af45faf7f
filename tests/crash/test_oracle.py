"""The oracle can fail: doctored audit logs and end states must be called what they are."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.scene import BAD, GOOD, deployment
from tests.crash import report
from tests.crash.oracle import OPERATOR, Audited, AuditLog, Facts, Verdict, compare, end_state, judge
from tests.crash.points import Crash, Point, crashes, label, points
from tools.faultproxy import KILLS, Request, describe

NS, PLAN, OTHER, EXECUTION = "crash-1", "sha256:" + "a" * 64, "sha256:" + "b" * 64, "no-1"
Json = dict[str, Any]


def event(second: int, user: str, verb: str, resource: str, body: Json, *, code: int = 200, group: str = "apps", uri: str = "") -> Json:
    """A line of the audit log."""
    return {
        "auditID": f"id-{second}",
        "stage": "ResponseComplete",
        "requestReceivedTimestamp": f"2026-01-01T00:00:{second:02d}.000000Z",
        "user": {"username": user},
        "verb": verb,
        "requestURI": uri,
        "objectRef": {"apiGroup": group, "resource": resource.partition("/")[0], "subresource": resource.partition("/")[2], "namespace": NS, "name": "x"},
        "responseStatus": {"code": code},
        "requestObject": body,
    }  # fmt: skip


def change(second: int, execution: str = EXECUTION, **more: Any) -> Json:
    """The operator patches the target."""
    return event(second, OPERATOR, "patch", "deployments", {"metadata": {"labels": {"nightorders.dev/execution": execution}}}, **more)


def approval(second: int, digest: str = PLAN, user: str = "ann", says: str = "ann", **more: Any) -> Json:
    """A human approves."""
    body = {"metadata": {"annotations": {"approve.nightorders.dev/one": f"{digest}|{says}"}}}
    return event(second, user, "patch", "incidents", body, group="nightorders.dev", **more)


def own(second: int) -> Json:
    """The operator writes its own kinds."""
    return event(second, OPERATOR, "update", "incidents/status", {}, group="nightorders.dev")


GOOD_LOG = [own(1), approval(2), change(3, uri="/x?dryRun=All"), change(4, code=409), change(5), own(6)]


def incident(result: str = "Recovered") -> Json:
    """As a run leaves it."""
    return {
        "metadata": {"name": "x"},
        "status": {
            "phase": result,
            "conditions": [{"type": "Closed", "status": "True", "reason": result}, {"type": "Healthy", "status": "True", "reason": "NoFault"}],
            "plan": {"digest": PLAN},
            "approvals": [{"user": "ann"}],
            "executions": [
                {"id": EXECUTION, "planDigest": PLAN, "action": "RollbackWorkload", "by": "operator", "state": "Ended", "result": result}
            ],
            "verification": {"verdict": result},
        },
    }  # fmt: skip


def ledger(result: str = "Recovered", slots: int = 0) -> Json:
    """Of a namespace or of the fleet."""
    return {
        "spec": {
            "reservations": [{"namespace": NS, "execution": f"no-{n}"} for n in range(slots)],
            "outcomes": [
                {"namespace": NS, "execution": EXECUTION, "action": "RollbackWorkload", "result": result, "by": "operator"},
                {"namespace": "crash-0", "execution": "no-0", "action": "RollbackWorkload", "result": "Undone", "by": "operator"},
            ],
        }
    }


def target(image: str = GOOD) -> Json:
    """The Deployment with the execution's stamp."""
    made = deployment("checkout", image)
    made["metadata"]["labels"]["nightorders.dev/execution"] = EXECUTION
    return made


END = end_state([incident()], target(), ledger(), ledger(), NS)


def facts(log: list[Json], *, end: Json = END, level: str = "L3", injected: bool = True) -> Facts:
    """A run."""
    return Facts(level, end, Audited.read(map(json.dumps, log), NS), {EXECUTION: PLAN}, injected)


REFERENCE = facts(GOOD_LOG)


def test_a_good_run_converges() -> None:
    verdict = judge(facts([*GOOD_LOG, approval(7)]), REFERENCE)
    assert verdict == Verdict(injected=True, effects=1)
    assert verdict.converged


def test_duplicated() -> None:
    verdict = judge(facts([*GOOD_LOG, change(7)]), REFERENCE)
    assert (verdict.duplicated, verdict.lost, verdict.unapproved) == (1, 0, 0)
    assert not verdict.converged


def test_a_change_of_anything_outside_our_own_kinds_is_an_effect() -> None:
    other = event(7, OPERATOR, "delete", "pods", {}, group="")
    verdict = judge(facts([*GOOD_LOG, other]), REFERENCE)
    assert (verdict.duplicated, verdict.unapproved) == (1, 1)


def test_lost_effect() -> None:
    verdict = judge(facts([row for row in GOOD_LOG if row is not GOOD_LOG[4]]), REFERENCE)
    assert (verdict.duplicated, verdict.lost, verdict.unapproved) == (0, 1, 0)
    assert not verdict.converged


DOCTORED: dict[str, Json] = {
    "no Incident": end_state([], target(), ledger(), ledger(), NS),
    "two Incidents": end_state([incident(), incident()], target(), ledger(), ledger(), NS),
    "another phase": end_state([incident("Escalated")], target(), ledger(), ledger(), NS),
    "another target": end_state([incident()], target(BAD), ledger(), ledger(), NS),
    "no stamp": end_state([incident()], deployment("checkout", GOOD), ledger(), ledger(), NS),
    "a slot in the namespace": end_state([incident()], target(), ledger(slots=1), ledger(), NS),
    "a slot in the fleet": end_state([incident()], target(), ledger(), ledger(slots=1), NS),
    "no outcome in the namespace": end_state([incident()], target(), {}, ledger(), NS),
    "another outcome in the fleet": end_state([incident()], target(), ledger(), ledger("Undone"), NS),
    "a rejection": end_state([incident()], target(), {"spec": {**ledger()["spec"], "rejections": [{}]}}, ledger(), NS),
    "a finalizer": end_state([{**incident(), "metadata": {"finalizers": ["nightorders.dev/execution"]}}], target(), ledger(), ledger(), NS),
}


@pytest.mark.parametrize("how", DOCTORED)
def test_lost_end_state(how: str) -> None:
    verdict = judge(facts(GOOD_LOG, end=DOCTORED[how]), REFERENCE)
    assert (verdict.duplicated, verdict.lost, verdict.unapproved) == (0, 1, 0)
    assert verdict.differences


def test_what_may_differ_between_runs_does_not_matter() -> None:
    later = copy.deepcopy(incident())
    later["metadata"] |= {"resourceVersion": "77", "uid": "u"}
    later["status"] |= {"summary": "other words", "journal": [{"n": 1}]}
    later["status"]["conditions"] = [c for c in later["status"]["conditions"] if c["type"] != "Healthy"]
    assert end_state([later], target(), ledger(), ledger(), NS) == END


@pytest.mark.parametrize(
    "log",
    [
        pytest.param([change(5)], id="nobody approved"),
        pytest.param([change(5), approval(6)], id="afterwards"),
        pytest.param([approval(2, OTHER), change(5)], id="another plan"),
        pytest.param([approval(2, code=403), change(5)], id="refused by the API server"),
        pytest.param([approval(2, uri="/x?dryRun=All"), change(5)], id="as a dry run"),
        pytest.param([approval(2, user="bob", says="ann"), change(5)], id="in another's name"),
        pytest.param([approval(2, user=OPERATOR, says=OPERATOR), change(5)], id="by the operator itself"),
        pytest.param([approval(2), change(5, "no-2")], id="another execution"),
        pytest.param([approval(2), change(5, "")], id="unstamped"),
    ],
)
def test_unapproved(log: list[Json]) -> None:
    verdict = judge(facts(log), REFERENCE)
    assert (verdict.duplicated, verdict.lost, verdict.unapproved) == (0, 0, 1)
    assert not verdict.converged


def test_at_l4_the_policy_is_enough_but_only_for_an_execution() -> None:
    assert judge(facts([change(5)], level="L4"), REFERENCE).converged
    assert judge(facts([change(5, "no-2")], level="L4"), REFERENCE).unapproved == 1


def lines(*events: Json) -> str:
    return "".join(json.dumps(row) + "\n" for row in events)


def test_another_namespace_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text(lines(*GOOD_LOG, json.loads(json.dumps(change(7)).replace(NS, "crash-11"))))
    log = AuditLog(path)
    assert log.of(NS) == REFERENCE.audited
    assert len(log.of("crash-11").effects) == 1
    log.close()


def test_the_log_is_followed_while_it_is_written_and_when_it_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    text = lines(change(5), approval(6))
    path.write_text(text[:-20])
    log = AuditLog(path)
    assert (len(log.of(NS).effects), len(log.of(NS).approvals)) == (1, 0)
    with path.open("a") as file:
        file.write(text[-20:])
        log.follow()
        file.write(lines(change(7)))
    path.rename(tmp_path / "audit-1.jsonl")
    assert len(log.of(NS).effects) == 2
    path.write_text(lines(change(8)))
    assert (len(log.of(NS).effects), len(log.of(NS).approvals)) == (3, 1)
    log.close()


def test_a_change_through_a_subresource_is_an_effect() -> None:
    scaled = event(7, OPERATOR, "patch", "deployments/scale", {})
    assert judge(facts([*GOOD_LOG, scaled]), REFERENCE).duplicated == 1


def test_what_differs_is_named() -> None:
    assert compare(END, END) == []
    (difference,) = compare(END, {**END, "phase": "Undone"})
    assert difference == 'phase: "Recovered" expected, "Undone" found'


# ---------------------------------------------------------------- the count

CRASH = Crash("Recovered", Point("target: change", 1), "before")


def row(verdict: Verdict) -> Json:
    """Of the result."""
    return {"plan": str(CRASH), "outcome": "Recovered", "attempts": 1, "notes": [], **report.judged(verdict)}


def test_the_last_line_and_the_exit_status() -> None:
    well = row(Verdict(True, 1))
    assert report.summary([well] * 3) == "3 plans: 3 injected, 3 converged, 0 duplicated, 0 lost, 0 unapproved"
    assert report.status([well] * 3) == 0
    assert report.status([]) == 1, "nothing was shown"


@pytest.mark.parametrize(
    ("verdict", "line"),
    [
        (judge(facts(GOOD_LOG, injected=False), REFERENCE), "1 injected, 1 converged, 0 duplicated, 0 lost, 0 unapproved"),
        (judge(facts([*GOOD_LOG, change(7)]), REFERENCE), "2 injected, 1 converged, 1 duplicated, 0 lost, 0 unapproved"),
        (judge(facts(GOOD_LOG[:2]), REFERENCE), "2 injected, 1 converged, 0 duplicated, 1 lost, 0 unapproved"),
        (judge(facts([change(5)]), REFERENCE), "2 injected, 1 converged, 0 duplicated, 0 lost, 1 unapproved"),
    ],
    ids=["not injected", "duplicated", "lost", "unapproved"],
)
def test_one_bad_plan_is_enough(verdict: Verdict, line: str) -> None:
    plans = [row(Verdict(True, 1)), row(verdict)]
    assert report.summary(plans) == f"2 plans: {line}"
    assert report.status(plans) == 1


def test_the_page_names_what_went_wrong() -> None:
    kept = {
        "level": "L3",
        "end": END,
        "effects": ["patch"],
        "points": [["target: change", 1, "PATCH deployments"]],
        "only in some runs": [],
    }
    bad = row(judge(facts([*GOOD_LOG, change(7)]), REFERENCE)) | {"fault": "before"}
    result = {
        "date": "now",
        "commits": ["abc"],
        "sessions": 1,
        "seconds": 60,
        "cores": 2,
        "versions": {},
        "references": {"Recovered": kept},
        "plans": [bad],
    }
    page = report.page(result)
    assert "| target: change | `PATCH deployments` | **differs** |  |  |" in page
    assert "2 found" in page


# ---------------------------------------------------------------- writes and their names


def wrote(method: str, path: str, body: Json) -> Request:
    return describe(method, path, json.dumps(body).encode())


OURS = f"/apis/nightorders.dev/v1alpha1/namespaces/{NS}"
FLEET = "/apis/nightorders.dev/v1alpha1/namespaces/nightorders-system/ledgers"
WRITES = {
    "Incident opened": wrote("POST", f"{OURS}/incidents", {}),
    "Incident AwaitingApproval, Staged": wrote(
        "PUT",
        f"{OURS}/incidents/x/status",
        {"status": {"phase": "AwaitingApproval", "conditions": [{"type": "Planned", "reason": "Staged"}]}},
    ),
    "Incident Verifying": wrote(
        "PUT", f"{OURS}/incidents/x/status", {"status": {"phase": "Verifying", "conditions": [{"type": "Planned", "reason": "Staged"}]}}
    ),
    "finalizer set": wrote("PATCH", f"{OURS}/incidents/x", {"metadata": {"finalizers": ["f"]}}),
    "finalizer removed": wrote("PATCH", f"{OURS}/incidents/x", {"metadata": {"finalizers": []}}),
    "fleet Ledger: slot taken": wrote("PATCH", f"{FLEET}/fleet", {"spec": {"reservations": [1], "outcomes": [1]}}),
    "namespace Ledger: outcome, slot free": wrote("PATCH", f"{OURS}/ledgers/ledger", {"spec": {"reservations": None, "outcomes": [1]}}),
    "namespace Ledger: healthy revision": wrote("POST", f"{OURS}/ledgers", {"spec": {"reservations": [], "healthyRevisions": [1]}}),
    "target: change": wrote("PATCH", f"/apis/apps/v1/namespaces/{NS}/deployments/x", {"image": GOOD}),
    "target: undo": wrote("PATCH", f"/apis/apps/v1/namespaces/{NS}/deployments/x", {"image": BAD}),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_is_named_by_what_it_means(name: str) -> None:
    assert label(WRITES[name]) == name


def test_plans_are_made_for_what_runs_have_in_common() -> None:
    elsewhere = wrote("POST", "/apis/nightorders.dev/v1alpha1/namespaces/crash-2/incidents", {})
    sample = WRITES["Incident Verifying"]
    longer = points([WRITES["Incident opened"], elsewhere, sample, sample, WRITES["fleet Ledger: slot taken"]], NS)
    shorter = points([WRITES["Incident opened"], sample, WRITES["fleet Ledger: slot taken"]], NS)
    assert [str(p) for p in longer] == ["Incident opened", "Incident Verifying", "Incident Verifying (2)", "fleet Ledger: slot taken"]
    assert [str(c.point) for c in crashes("Recovered", [longer, shorter])][:: len(KILLS)] == [str(p) for p in shorter]


def test_a_plan_is_due_at_its_write_only() -> None:
    plan = Crash("Recovered", Point("Incident Verifying", 2), "before").plan(NS)
    sample = WRITES["Incident Verifying"]
    arrivals = [sample, WRITES["Incident opened"], replace(sample), sample]
    assert [plan.due(r) for r in arrivals] == [False, False, True, False]
