"""What a grade is worth: how often answers of that grade were right on generated faults. The counts and their date are in grades.json.

`python -m tools.scenarios calibrate` makes the file (tools/scenarios/calibrate.py says how). Without a count there is no percent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True)
class Worth:
    """`percent` of answers of a grade that are right, and the count behind it (`187 of 199`)."""

    percent: int
    basis: str


@cache
def worth() -> Mapping[str, Worth]:
    """By grade; a grade that was never counted is left out."""
    table = json.loads(resources.files(__package__).joinpath("grades.json").read_text())
    return {
        grade: Worth(int(counted["percent"]), f"{counted['right']} of {counted['of']}")
        for grade, counted in table["grades"].items()
        if counted["of"] >= LEAST
    }


LEAST = 20  # answers; fewer tell nothing
