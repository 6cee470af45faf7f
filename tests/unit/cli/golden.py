"""Texts as printed, kept beside the tests. `NIGHTORDERS_GOLDEN=write pytest tests/unit/cli` writes them anew; read the diff."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "golden"


def same_as_golden(printed: str, name: str) -> None:
    """Fails with a diff when the text changed."""
    path = FOLDER / name
    if os.environ.get("NIGHTORDERS_GOLDEN") == "write":
        FOLDER.mkdir(exist_ok=True)
        path.write_text(printed)
    assert printed == path.read_text()
