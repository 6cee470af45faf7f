"""docs/levels.md names every gate and every part of a score, in the code's own words and order."""

from __future__ import annotations

import re
from pathlib import Path

from nightorders.domain import gates, scores

PAGE = (Path(__file__).resolve().parents[3] / "docs/levels.md").read_text()


def test_the_gates_stand_there_in_their_order_with_a_star_where_advice_does_not_need_them() -> None:
    table = PAGE.split("## Gates")[1].split("Then the plan")[0]
    assert re.findall(r"^\| ([a-z-]+\*?) \|", table, re.M)[1:] == [g.name + ("" if g.advice else "*") for g in gates.CHAIN]


def test_thresholds_of_trust_and_risk_stand_there() -> None:
    for thresholds, word in ((scores.TRUST_FOR, "at least"), (scores.RISK_FOR, "at most")):
        for bound, level in thresholds:
            assert re.search(rf"{level}\s+{word} {bound}", PAGE), (level, bound)


def test_every_part_of_a_score_stands_there() -> None:
    source = Path(scores.__file__).read_text()
    for name in set(re.findall(r'Component\(\s*name="([a-z-]+)"', source)):
        assert f"| {name} |" in PAGE, name
