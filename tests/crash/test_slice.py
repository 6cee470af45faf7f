"""The plans of the slice, one test each, on one cluster. `make crash` runs all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash import report
from tests.crash.oracle import Facts, judge
from tests.crash.outcomes import OUTCOMES
from tests.crash.points import Point, crashes
from tests.crash.slices import SLICE
from tests.crash.world import World

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A cluster with the operator behind the fault proxy."""
    made = World()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def references() -> dict[str, tuple[Facts, list[Point]]]:
    """A run of each outcome without a fault, made when it is needed first."""
    return {}


@pytest.mark.promise(2)
@pytest.mark.parametrize(("outcome", "point", "fault"), SLICE, ids=[" - ".join(plan) for plan in SLICE])
def test_the_end_is_the_same(world: World, references: dict[str, tuple[Facts, list[Point]]], outcome: str, point: str, fault: str) -> None:
    if outcome not in references:
        usual = world.play(OUTCOMES[outcome], limit=60)
        assert (len(usual.facts.audited.effects), usual.facts.notes) == (OUTCOMES[outcome].effects, ()), usual
        references[outcome] = usual.facts, usual.points
        world.remove(usual.namespace)
    reference, found = references[outcome]
    crash = next((c for c in crashes(outcome, [found]) if (str(c.point), c.fault) == (point, fault)), None)
    assert crash is not None, f"no such write in a run: {point}; there are: {', '.join(map(str, found))}"
    verdict, played, _ = world.judged(crash, OUTCOMES[outcome], reference)
    assert report.good(report.judged(verdict)), (verdict, played.facts.notes, world.operator.tail())
    assert world.late() == []


@pytest.mark.promise(2)
def test_nothing_happened_later(world: World) -> None:
    """Looked at once more at the end."""
    assert world.late(all_of_them=True) == []


def test_the_oracle_is_not_blind(world: World, references: dict[str, tuple[Facts, list[Point]]]) -> None:
    """Held against the end of another outcome, a real run does not converge."""
    recovered, rejected = references["Recovered"][0], references["Rejected"][0]
    assert judge(rejected, recovered).lost == 1
    assert judge(recovered, rejected).duplicated == 1
