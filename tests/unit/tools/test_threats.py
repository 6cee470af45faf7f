"""The tables of threats and promises say what the tests say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import threats

SOURCE = '''
import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.promise(1)]

def test_7_28_named() -> None: ...

@pytest.mark.threat(3, 4)
async def test_marked() -> None: ...

def test_said() -> None:
    """threats.md 23 and 24: by words; not 99."""

@pytest.mark.threat(11)
class TestGroup:
    @pytest.mark.parametrize("n", [1, 2])
    def test_within(self, n: int) -> None: ...

def helper() -> None: ...
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place in ("cluster/attacks", "unit"):
        (tmp_path / "tests" / place).mkdir(parents=True)
        (tmp_path / "tests" / place / "test_x.py").write_text(SOURCE)
    return tmp_path / "tests"


def test_names_markers_and_docstrings_are_collected(folder: Path) -> None:
    attacks, unit = [[t for t in threats.collected(folder) if place in t.file] for place in ("attacks", "unit")]
    rows = {t.name: set(t.threats) for t in attacks}
    assert rows == {"test_7_28_named": {7, 28}, "test_marked": {3, 4}, "test_said": {23, 24}, "test_within": {11}}
    assert {t.name: set(t.threats) for t in unit} == rows | {"test_7_28_named": set()}, "names count among the attacks only"
    assert all(t.promises == {1} for t in attacks + unit)


def test_a_table_counts_test_functions_by_file(folder: Path) -> None:
    table = threats.threats_table(threats.collected(folder))
    assert (
        "| 3 | " + threats.THREATS[3] + " | **2**: [attacks/x](tests/cluster/attacks/test_x.py) 1, [unit/x](tests/unit/test_x.py) 1 |"
        in table
    )
    assert f"| 27 | {threats.THREATS[27]} | not yet: {threats.LATER[27]} |" in table
    assert f"| 1 | {threats.THREATS[1]} | **none** |" in table


def test_what_no_test_tries_is_a_problem_unless_it_is_said_to_be_later_work(folder: Path) -> None:
    found = "\n".join(threats.problems(threats.collected(folder)))
    assert "threat 1 has no test" in found
    assert "threat 7 " not in found
    assert "threat 27" not in found
    assert "promise 2 has no test" in found
    (folder / "unit" / "test_y.py").write_text("import pytest\n@pytest.mark.threat(31)\ndef test_a(): ...\n")
    assert "tests/unit/test_y.py: test_a names row 31, which does not exist" in threats.problems(threats.collected(folder))


def test_a_block_is_replaced_and_the_rest_kept() -> None:
    text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n"
    once = threats.between(text, "x", "new")
    assert once == "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n"
    assert threats.between(once, "x", "new") == once
    with pytest.raises(ValueError, match="x:begin"):
        threats.between("nothing", "x", "new")


def test_every_threat_and_every_promise_is_tried_or_said_to_be_later_work() -> None:
    assert threats.problems(threats.collected()) == []
