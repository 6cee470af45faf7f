"""scenario.yaml is read strictly, and every problem names file, field and fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.tools.scenarios.builders import DOCUMENT, changed, folder
from tools.scenarios.errors import ScenarioError
from tools.scenarios.load import digest, load, load_all
from tools.scenarios.model import Document, parse_series, seconds


def problem(path: Path, document: dict[str, Any]) -> str:
    with pytest.raises(ScenarioError) as caught:
        load(folder(path, document))
    return str(caught.value)


def test_a_good_one_is_read(tmp_path: Path) -> None:
    found = load(folder(tmp_path), namespace="parcels-r2")
    assert found.id == "wrong-port"
    assert found.document.signal.labels["namespace"] == "parcels-r2"
    assert found.document.signal.labels["pod"] == "${POD:app=labeler}"  # only known at the moment of use
    assert found.document.expect.repaired[0].equals == "3"


def test_directory_and_namespace_expand_and_other_variables_stay(tmp_path: Path) -> None:
    where = folder(
        tmp_path, None, app_yaml="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: '${NAMESPACE} ${DIR} ${HOME}'}"
    )
    (one,) = load(where).objects("app.yaml")
    assert one["data"]["a"] == f"parcels {where.resolve()} ${{HOME}}"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"colour": "red"}, "colour: is no field of a scenario; allowed here: before"),
        ({"title": None}, "title: is missing; add it"),
        ({"kind": "joke"}, "kind: 'joke' is not possible; use 'fault' or 'trap'"),
        ({"namespace": "Big"}, "namespace: 'Big' is no DNS label"),
        ({"before": ["gone.yaml"]}, "names 'gone.yaml', which is not in the folder"),
        ({"before": ["../app.yaml"]}, "lies outside the scenario's folder"),
        ({"steps": [{"wait": "5 apples"}]}, "steps[0].wait: '5 apples' is no duration; write 5s"),
        ({"steps": [{"wait": "5s", "delete": "Pod/x"}]}, "steps[0]: a step has exactly one of"),
        ({"steps": [{"run": ["rm", "-rf"]}]}, "steps[0].run: only kubectl can be run"),
        ({"steps": [{"delete": "x"}]}, "steps[0].delete: 'x' names no object; write Kind/name"),
        ({"steps": [{"patch": {"object": "Pod/x", "type": "json", "patch": {}}}]}, "steps[0].patch: type json takes a list"),
        ({"ready": [{"object": "Pod/x"}]}, "ready[0]: a check has exactly one of condition, jsonpath and absent"),
        ({"ready": [{"object": "Pod/x", "jsonpath": "{.a", "equals": "1"}]}, "ready[0].jsonpath: '{.a'"),
        ({"ready": [{"object": "Pod/x", "jsonpath": "{.a}"}]}, "ready[0]: jsonpath needs exactly one of equals, notEquals and matches"),
        ({"ready": [{"object": "Pod", "jsonpath": "{.a}", "matches": "("}]}, "ready[0].matches: '(' is no regular expression"),
        ({"ready": [{"object": "Pod/x", "selector": "a=b", "absent": True}]}, "ready[0]: selector belongs to a Kind without a name"),
        ({"signal": {"labels": {"namespace": "x"}}}, "signal.labels: alertname is missing"),
        ({"metrics": [{"series": "x{", "type": "gauge", "value": [{"value": 1}]}]}, "metrics[0].series: 'x{' is no series"),
        ({"metrics": [{"series": "x", "type": "counter", "value": [{"value": 1}]}]}, "metrics[0]: a counter has perSecond"),
        (
            {"metrics": [{"series": "x", "type": "gauge", "value": [{"value": 1}, {"value": 2}]}]},
            "metrics[0]: only the last case may have no `when`",
        ),
        ({"kind": "trap"}, "in a trap nothing may be changed"),
    ],
)
def test_a_problem_names_field_and_fix(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    text = problem(tmp_path, changed(**fields))
    assert said in text
    assert "scenario.yaml" in text


@pytest.mark.parametrize(
    ("expect", "said"),
    [
        ({"rootCause": [{"category": "Gremlin"}]}, "expect.rootCause[0].category: 'Gremlin' is no category; use one of NoFault, Quota"),
        ({"rootCause": []}, "expect.rootCause: "),
        ({"repaired": []}, "expect: outcome Repaired needs `repaired`"),
        ({"mayMutate": []}, "expect: outcome Repaired needs `mayMutate`"),
        ({"mayChange": {"ConfigMap/x": ["data.a"]}}, "expect: mayChange names ConfigMap/x, which mayMutate does not"),
    ],
)
def test_the_right_answer_must_make_sense(tmp_path: Path, expect: dict[str, Any], said: str) -> None:
    assert said in problem(tmp_path, changed(expect={**DOCUMENT["expect"], **expect}))


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = problem(tmp_path, changed(colour="red", nodes="paper"))
    assert "colour" in text
    assert "nodes" in text


def test_a_repair_must_be_shown(tmp_path: Path) -> None:
    proof = {"symptom": DOCUMENT["proof"]["symptom"]}
    assert "proof.repair is missing" in problem(tmp_path, changed(proof=proof))


def test_manifests_are_looked_at(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"app\.yaml: document 1 is no Kubernetes object"):
        load(folder(tmp_path, None, app_yaml="just: text"))
    with pytest.raises(ScenarioError, match=r"app\.yaml: no YAML"):
        load(folder(tmp_path, None, app_yaml="a: [b"))


def test_two_of_one_id_and_unknown_ids_are_refused(tmp_path: Path) -> None:
    folder(tmp_path / "one")
    first = folder(tmp_path)
    second = tmp_path / "other"
    second.mkdir()
    for name in ("scenario.yaml", "app.yaml"):
        (second / name).write_text((first / name).read_text())
    with pytest.raises(ScenarioError, match="is that of"):
        load_all(tmp_path)
    with pytest.raises(ScenarioError, match="--only nothing: no scenario of that id"):
        load_all(tmp_path / "one", ("nothing",))
    with pytest.raises(ScenarioError, match=r"no scenario\.yaml in it"):
        load_all(tmp_path / "empty")


def test_the_digest_changes_with_every_file(tmp_path: Path) -> None:
    where = folder(tmp_path)
    before = digest(where)
    (where / "logs").mkdir()
    (where / "logs" / "a.log").write_text("x")
    assert digest(where) != before


def test_durations_and_series() -> None:
    assert [seconds(text) for text in ("5s", "1m30s", "500ms")] == [5, 90, 0.5]
    assert parse_series('x_total{a="1",b="say \\"hi\\", twice"}') == ("x_total", {"a": "1", "b": 'say "hi", twice'})
    assert parse_series("up") == ("up", {})


def test_the_document_can_be_made_from_a_mapping() -> None:
    assert Document.model_validate(DOCUMENT).files == ("app.yaml",)
