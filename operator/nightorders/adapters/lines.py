"""JSON lines on standard output: the record. Logs go to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping


def print_lines(rows: Iterable[Mapping[str, object]]) -> None:
    """One object per line, ASCII, in one write. Raises OSError when nobody reads any more."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()
