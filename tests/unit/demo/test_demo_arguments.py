"""The command line that the Makefile uses."""

from __future__ import annotations

import pytest

from demo.acts import ACTS as PLAYED
from demo.arguments import ACTS, parse
from demo.world import NAMESPACES


def test_all_acts_without_arguments() -> None:
    found = parse([])
    assert found.acts == ACTS
    assert (found.auto, found.keep, found.down, found.provider, found.name) == (False, False, False, None, "demo")


@pytest.mark.parametrize(("text", "act"), [("L3", "L3"), ("l1", "L1"), ("cause", "cause"), ("Cause", "cause")])
def test_one_act(text: str, act: str) -> None:
    assert parse(["--level", text, "--auto"]).acts == (act,)


@pytest.mark.parametrize("argv", [["--level", "L5"], ["--nonsense"], ["--keep", "--provider", "kind"]])
def test_wrong_arguments_end_with_status_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(argv)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_every_act_can_be_asked_for_and_has_a_namespace_of_its_own() -> None:
    assert set(PLAYED) == set(ACTS) == set(NAMESPACES)
    assert len(set(NAMESPACES.values())) == len(ACTS)
    assert {key: act.changes for key, act in PLAYED.items()} == {"L3": 1, "L1": 0, "L2": 0, "L4": 1, "cause": 0}
