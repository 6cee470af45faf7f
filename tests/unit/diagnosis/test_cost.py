"""What a diagnosis costs as a namespace grows: the same requests; memory and time at most in proportion to the pods."""

from __future__ import annotations

import pytest

from tests.benchmarks.scaling import Figures, in_memory, table

SMALL, LARGE = 100, 5_000
MOST = 3.0  # times as much for each pod: room for a busy machine, none for anything quadratic (that would be fifty times)


@pytest.fixture(scope="module")
def measured() -> dict[int, Figures]:
    """Each size once; the small one twice, because its first run also pays for what is made once."""
    in_memory(SMALL)
    return {n: in_memory(n) for n in (SMALL, LARGE)}


def test_requests_are_the_same(measured: dict[int, Figures]) -> None:
    assert measured[SMALL].requests == measured[LARGE].requests


@pytest.mark.parametrize("what", ["bytes", "peak", "seconds"])
def test_the_rest_grows_with_the_pods_at_most(measured: dict[int, Figures], what: str) -> None:
    small, large = (getattr(measured[n], what) / n for n in (SMALL, LARGE))
    assert large <= MOST * small, f"{what} per pod: {small:.6f} with {SMALL} pods, {large:.6f} with {LARGE}"


def test_the_answer_does_not_depend_on_the_size(measured: dict[int, Figures]) -> None:
    assert {(f.category, f.grade) for f in measured.values()} == {("ImageAccess Deployment/checkout · rev 2", "A")}


def test_the_table_has_a_row_for_each_size(measured: dict[int, Figures]) -> None:
    rows = list(table(measured.values(), "ms"))
    assert [r.split("|")[1].strip() for r in rows[2:]] == ["100", "5,000"]
