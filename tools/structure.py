"""Rules about the repository itself that no linter knows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXPECTED = (
    "pyproject.toml",
    "README.md",
    "operator",
    "crds",
    "manifests",
    "charts",
    "tests",
    "LICENSE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
)
# Spelled so that this file does not name them either.
REGISTRY = re.compile(
    "|".join(a + r"\." + b for a, b in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("golang", "org/dl")))
)
PROXY = re.compile("proxy" + r"\.golang\." + "org")


def problems() -> list[str]:
    """What is wrong, one line each."""
    found = [f"{name} is missing" for name in EXPECTED if not (ROOT / name).exists()]
    if (ROOT / "operator/__init__.py").exists():
        found.append("operator/__init__.py exists: a package named operator at the root breaks the standard library")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split("\n")
    for name in filter(None, listed):
        path = ROOT / name
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        if REGISTRY.search(text) or PROXY.search(text):
            found.append(f"{name} names a package registry's host")
        if path.name in ("uv.lock", "pylock.toml"):
            found.append(f"{name} records registry hosts; requirements/*.txt are the lock")
    return found


if __name__ == "__main__":
    wrong = problems()
    print("\n".join(wrong) if wrong else "structure: as it should be")
    sys.exit(1 if wrong else 0)
