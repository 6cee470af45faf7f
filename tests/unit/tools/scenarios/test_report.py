"""Baselines, rates, the table and the page, and what `--resume` and `--check` make of a result file."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tools.scenarios.builders import DOCUMENT, Json, changed, folder
from tools.scenarios import baselines, report, results
from tools.scenarios.__main__ import arguments, main, options
from tools.scenarios.alerts import RULES, matches, rules
from tools.scenarios.errors import ScenarioError
from tools.scenarios.load import load
from tools.scenarios.model import Document
from tools.scenarios.results import File
from tools.scenarios.run import Options, interleave
from tools.scenarios.score import Result
from tools.scenarios.snapshots import Snapshot
from tools.scenarios.variants import PLAIN, Variant

# ---------------------------------------------------------------- baselines


def thing(kind: str, name: str, at: str, owner: str = "", manager: str = "kubectl-patch", **more: Any) -> Json:
    above = [{"kind": owner.partition("/")[0], "name": owner.partition("/")[2], "controller": True}] if owner else []
    meta = {
        "name": name,
        "uid": name,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "ownerReferences": above,
        "managedFields": [{"manager": manager, "time": at}],
    }
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, **more}


def world(*objects: Json) -> Snapshot:
    return Snapshot({(o["kind"], "parcels", o["metadata"]["name"]): o for o in objects})


WAITING = {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]}
SHOP = world(
    thing("Deployment", "labeler", "2026-01-01T10:00:00Z"),
    thing("ReplicaSet", "labeler-1", "2026-01-01T01:00:00Z", "Deployment/labeler"),
    thing("ReplicaSet", "labeler-2", "2026-01-01T10:00:00Z", "Deployment/labeler"),
    thing("Pod", "labeler-2-x", "2026-01-01T11:00:00Z", "ReplicaSet/labeler-2", status=WAITING),
    thing("ConfigMap", "settings", "2026-01-01T09:00:00Z"),
    thing("ConfigMap", "counted", "2026-01-01T12:00:00Z", manager="kube-controller-manager"),
)
ALERT = {"alertname": "x", "namespace": "parcels", "pod": "labeler-2-x"}


def scored(document: Json = DOCUMENT, shop: Snapshot = SHOP) -> dict[str, Json]:
    return baselines.score(shop, ALERT, Document.model_validate(document), "parcels")


def test_baselines_say_and_do_what_they_are_named_for() -> None:
    found = scored()
    assert found["newest change, roll back"] == {
        "rca1": False,
        "outcome": "Repaired",
        "outcome_right": True,
        "harm": False,
        "would": "rollback Deployment/labeler",
        "said": "ImageAccess Deployment/parcels/labeler",
    }
    first = found["first reason, restart"]
    assert (first["said"], first["rca1"], first["would"]) == ("ImageAccess Deployment/parcels/labeler", False, "restart Deployment/labeler")
    assert found["always restart"]["rca1"] is None
    assert (found["always escalate"]["outcome"], found["always escalate"]["outcome_right"]) == ("Escalated", False)


def test_a_release_whose_pods_do_not_wait_is_a_bad_release() -> None:
    quiet = world(*(o for o in SHOP.objects.values() if o["kind"] != "Pod"))
    assert scored(shop=quiet)["newest change, roll back"]["rca1"] is True


def test_a_newer_change_elsewhere_misleads() -> None:
    later = world(*SHOP.objects.values(), thing("ConfigMap", "settings", "2026-01-01T10:30:00Z"))
    found = scored(shop=later)["newest change, roll back"]
    assert (found["said"], found["harm"], found["outcome"]) == ("BadConfiguration ConfigMap/parcels/settings", True, "NotRepaired")


def test_a_move_that_the_scenario_disproves_does_not_repair() -> None:
    wrong = {"restart": [{"run": ["kubectl", "rollout", "restart", "deployment/labeler"]}]}
    found = scored(changed(proof={**DOCUMENT["proof"], "wrong": wrong}))
    assert found["always restart"]["outcome"] == "NotRepaired"
    assert found["newest change, roll back"]["outcome"] == "Repaired"


def test_in_a_trap_acting_is_harm_and_escalating_is_right() -> None:
    expect = {"rootCause": [{"category": "NoFault"}], "outcome": "NoChange"}
    found = scored(changed(kind="trap", expect=expect, proof=None))
    assert found["always restart"]["harm"]
    assert not found["always restart"]["outcome_right"]
    assert found["always escalate"]["outcome_right"]


# ---------------------------------------------------------------- alerts


def test_an_alert_is_about_the_series_that_agrees_with_its_labels() -> None:
    series = {"__name__": "x", "namespace": "shop", "pod": "web-1", "job": "a", "instance": "b"}
    assert matches(series, {"alertname": "y", "namespace": "shop", "pod": "web-1", "job": "other", "severity": "page"})
    assert not matches(series, {"namespace": "shop", "pod": "web-2"})
    assert not matches({"namespace": "shop"}, {"namespace": "shop", "pod": "web-1"})  # it says nothing about that pod
    assert not matches(series, {"alertname": "y"})


def test_rules_are_one_line_each() -> None:
    assert {r["alert"] for r in rules()} == set(RULES)
    assert all("\n" not in r["expr"] for r in rules())


# ---------------------------------------------------------------- the table


def row(name: str, **more: Any) -> Result:
    usual: Json = {
        "rca1": True,
        "object1": True,
        "category1": True,
        "rca3": True,
        "outcome": "Repaired",
        "outcome_right": True,
        "repaired": True,
        "answer": ["BadRelease Deployment/labeler A"],
        "baselines": scored(),
        "seconds_diagnosis": 1.0,
        "digest": "d",
    }
    fields = {"kind": "fault", "category": "BadRelease", "wanted": "Repaired", "status": "run", "variant": "", **usual, **more}
    found = Result(scenario=name, **fields)
    found.conclude()
    return found


def content(*rows: Result, **more: Any) -> Json:
    made = File(None, Options(), {"Kubernetes": "v1"}).content
    return {**made, "results": [asdict(r) for r in rows], **more}


def test_rates_leave_void_and_variants_out_and_tell_them() -> None:
    rows = [asdict(r) for r in (row("a"), row("b", rca1=False, wrong=True), row("c", status="void"), row("a", variant="renamed"))]
    found = {r.name: r for r in report.rates(rows)}
    assert str(found["RCA@1"]) == "1/2 = 50 % [1, 99]"
    assert found["end to end"].k == 1
    assert {r.name: r.n for r in report.rates(rows, void_failed=True)}["RCA@1"] == 3
    assert "1 of 3 runs were void" in report.void_problem(rows)
    assert report.void_problem(rows[:2]) == ""


def test_systems_are_compared_on_the_same_runs() -> None:
    rows = [row("a"), row("b", outcome="Escalated", outcome_right=False), row("c", false_actions=["x"])]
    found = report.pairwise([asdict(r) for r in rows])
    assert found["newest change, roll back"] == (0, 2)  # it would have repaired all three
    assert found["always escalate"] == (1, 0)


def test_variants_are_compared_with_the_plain_run() -> None:
    other = row("a", variant="renamed", answer=["Quota ResourceQuota/x B"])
    together, differ = report.agreement([asdict(r) for r in (row("a"), row("a", variant="later"), other)])
    assert (together.k, together.n) == (1, 2)
    assert differ == ["a+renamed: Quota ResourceQuota/x B, Repaired; plain: BadRelease Deployment/labeler A, Repaired"]


def test_check_names_what_was_missed() -> None:
    assert report.missed(content(*[row(f"s{n}") for n in range(10)])) == []
    bad = content(row("a", false_actions=["delete pods shop/x"]), row("b", wrong_and_sure=True, rca1=False), stray=["patch nodes n1"])
    said = "\n".join(report.missed(bad))
    for part in ("false action: 1/2", "wrong and sure: 1/2", "RCA@1: 1/2", "1 mutations outside every scenario"):
        assert part in said
    assert report.missed(content()) != []


def test_table_and_page_show_every_run_and_the_windows() -> None:
    file = content(
        row("a"),
        row("b", rca1=False, outcome="Escalated", outcome_right=False),
        row("c", status="void", because="no pods"),
        row("t", kind="trap"),
    )
    terminal, page = report.table(file), report.document(file)
    for text in (terminal, page):
        assert "c" in text
        assert "no pods" in text
        assert "verify.for 12 s (default 5m)" in text
        assert "newest change, roll back" in text
    assert "| trap: BadRelease | 1/1" in page
    assert "| nightorders | 2/3" in page
    assert "Escalated ≠ Repaired" in terminal


def test_a_table_that_was_broken_off_says_so() -> None:
    file = content(row("a"), wanted=3)
    for text in (report.table(file), report.document(file), "\n".join(report.missed(file))):
        assert "roken off: 1 of 3 runs" in text
    assert report.broken_off(content(row("a"), wanted=1)) == ""


def test_a_line_says_the_worst_first() -> None:
    text = report.line(asdict(row("a", rca1=False, wrong=True, wrong_and_sure=True, false_actions=["delete pods shop/x by y"])))
    assert text.startswith("FAILED")
    assert "WRONG AND SURE" in text
    assert "FALSE ACTION delete pods" in text
    assert report.line(asdict(row("v", status="void", because="x"))).startswith("void")


# ---------------------------------------------------------------- the result file


def test_resume_takes_over_what_is_still_true(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    scenario = load(folder(tmp_path))
    pairs = [(scenario, PLAIN), (scenario, Variant("later", lambda text: text, {}))]
    first = File(path, Options(), {})
    first.keep(row(scenario.id, digest=scenario.digest))
    first.keep(row(scenario.id, digest="old", variant="later"))
    assert File(path, Options(jobs=1), {}).resume(pairs) == {(scenario.id, "")}  # how many at a time does not matter
    assert File(path, replace(Options(), hold=1), {}).resume(pairs) == set()
    broken = json.loads(path.read_text())
    path.write_text(json.dumps({**broken, "code": "other"}))
    assert File(path, Options(), {}).resume(pairs) == set()


def test_void_runs_are_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    scenario = load(folder(tmp_path))
    File(path, Options(), {}).keep(row(scenario.id, digest=scenario.digest, status="void"))
    assert File(path, Options(), {}).resume([(scenario, PLAIN)]) == set()


@pytest.mark.parametrize("text", ["", "[]", '{"format": 0}', '{"format": 1, "results": [{"x": 1}]}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ScenarioError, match=r"r\.json"):
        results.read(tmp_path / "r.json")


def test_the_page_is_written_from_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "r.json").write_text(json.dumps(content(row("a"))))
    assert main(["report", str(tmp_path / "r.json"), "--page", str(tmp_path / "page.md")]) == 0
    assert "# Evaluation" in (tmp_path / "page.md").read_text()
    assert "end to end" in capsys.readouterr().out


# ---------------------------------------------------------------- the command line


def test_a_broken_scenario_ends_the_command_with_its_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(tmp_path, changed(colour="red"))
    assert main(["list", str(tmp_path)]) == 2
    assert "colour: is no field" in capsys.readouterr().err


def test_list_shows_the_right_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(tmp_path)
    assert main(["list", str(tmp_path)]) == 0
    assert "BadRelease Deployment/labeler" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--jobs", "0"], "--jobs"),
        (["--variants", "-1"], "--variants"),
        (["--resume"], "--resume needs --out"),
        (["--hold", "0"], "--hold"),
    ],
)
def test_nonsense_is_refused(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["run", "x", *argv])
    assert said in capsys.readouterr().err


def test_every_flag_changes_the_options() -> None:
    assert options(arguments(["run", "x"])) == Options()
    full = options(arguments(["run", "x", "--full", "--hold", "30"]))
    assert (full.hold, full.verify, full.stalled_after) == (30, None, None)
    said = options(arguments(["run", "x", "--no-background", "--detect", "--seed", "7", "--jobs", "2", "--stalled-after", "9"]))
    assert (said.background, said.detect, said.seed, said.jobs, said.stalled_after) == (False, True, 7, 2, 9)


def test_every_scenario_runs_once_before_the_first_variant(tmp_path: Path) -> None:
    first, second = load(folder(tmp_path)), load(folder(tmp_path, changed(id="another")))
    later = Variant("later", lambda text: text, {})
    pairs = interleave([first, second], lambda s: [PLAIN, later])
    assert [(s.id, v.name) for s, v in pairs] == [("wrong-port", ""), ("another", ""), ("wrong-port", "later"), ("another", "later")]
