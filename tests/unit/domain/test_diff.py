"""A diff for people in which no value of an environment variable can be read."""

from __future__ import annotations

from typing import Any

import pytest

from nightorders.domain.diff import diff, masked
from tests.unit.domain.make import changed, deployment, template

SECRET = "hunter2-hunter2"


def env(value: str, name: str = "DB") -> list[dict[str, Any]]:
    return [{"name": name, "value": value}]


def same(text: str) -> str:
    return text


@pytest.mark.parametrize("list_name", ["containers", "initContainers", "ephemeralContainers"])
def test_no_value_of_an_environment_variable_is_visible(list_name: str) -> None:
    def with_env(value: str) -> Any:
        pod = template()
        pod["spec"][list_name] = [{"name": "app", "image": "a:1", "env": env(value)}]
        return deployment(pod)

    shown = diff(with_env(SECRET), with_env("other-value"), same)
    assert SECRET not in shown
    assert "other-value" not in shown
    assert "sha256" in shown


def test_a_change_of_a_hidden_value_is_still_a_change() -> None:
    shown = diff(deployment(template(env=env(SECRET))), deployment(template(env=env("x"))), same)
    assert any(row.startswith("-") and "sha256" in row for row in shown.splitlines())
    assert any(row.startswith("+") and "sha256" in row for row in shown.splitlines())


def test_references_stay_readable() -> None:
    entry = {"name": "DB", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}
    shown = diff(deployment(template(env=[])), deployment(template(env=[entry])), same)
    assert "secretKeyRef" in shown
    assert "name: db" in shown


def test_the_image_is_shown() -> None:
    shown = diff(deployment(template("7")), deployment(template("6")), same)
    assert "-    - image: registry.example/checkout:7" in shown
    assert "+    - image: registry.example/checkout:6" in shown


def test_every_line_goes_through_the_redaction() -> None:
    before, after = deployment(template(args=["--token=abc"])), deployment(template(args=["--token=def"]))
    shown = diff(before, after, lambda row: row.replace("abc", "#").replace("def", "#"))
    assert "abc" not in shown
    assert "def" not in shown


def test_nothing_changed_is_an_empty_diff() -> None:
    assert diff(deployment(), deployment(), same) == ""


def test_metadata_of_the_template_that_controllers_add_is_no_change() -> None:
    hashed = template()
    hashed["metadata"] = {"labels": {"app": "checkout", "pod-template-hash": "abc"}, "creationTimestamp": None}
    assert diff(deployment(), deployment(hashed), same) == ""


def test_a_long_diff_is_cut_and_says_so() -> None:
    shown = diff(deployment(template(args=[f"a{i}" * 40 for i in range(400)])), deployment(template(args=[])), same)
    assert len(shown) <= 8192
    assert shown.endswith("[cut here]")


def test_control_characters_do_not_reach_a_terminal() -> None:
    shown = diff(deployment(template(args=["a\x1b[31mb\u202e"])), deployment(template(args=[])), same)
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_the_object_itself_is_not_changed() -> None:
    before = deployment(template(env=env(SECRET)))
    diff(before, deployment(), same)
    assert before.at("spec", "template", "spec", "containers", 0, "env", 0, "value") == SECRET


@pytest.mark.parametrize("odd", ["text", {"name": "A"}, {"value": None}, 7, None, []])
def test_odd_entries_do_not_break_it(odd: object) -> None:
    assert masked({"env": [odd]}) is not None
    assert masked({"env": odd}) is not None


def test_an_object_without_a_spec_is_an_empty_one() -> None:
    assert diff(changed(deployment(), ("spec",), None), changed(deployment(), ("spec",), None), same) == ""
