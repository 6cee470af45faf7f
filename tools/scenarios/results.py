"""The result file: one JSON document, written after every run, so that a table that is broken off can be taken up again."""

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tools.scenarios import report
from tools.scenarios.errors import ScenarioError
from tools.scenarios.load import Scenario
from tools.scenarios.run import Options
from tools.scenarios.score import Result
from tools.scenarios.variants import Variant

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
_CODE = ("operator", "manifests", "tools/scenarios")
FORMAT = 1


def code_digest() -> str:
    """SHA-256 over the operator, its manifests and the runner, 16 hex digits: another one makes old results worthless."""
    total = hashlib.sha256()
    for folder in _CODE:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in (".py", ".yaml"):
                total.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def commit() -> str:
    """The commit of the checkout, marked where files differ from it."""
    head = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, check=False)
    return head.stdout.strip() or "unknown"


class File:
    """Results so far. `keep` may be called by any thread."""

    def __init__(self, path: Path | None, options: Options, versions: dict[str, str]) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._begin = time.monotonic()
        self._before = 0.0
        self.content: Json = {
            "format": FORMAT,
            "date": report.today(),
            "code": code_digest(),
            "versions": {"nightorders": commit(), **versions},
            "options": asdict(options),
            "shortened": options.shortened(),
            "seconds": 0.0,
            "wanted": 0,  # runs that were asked for: a table with fewer was broken off
            "stray": [],
            "results": [],
        }

    def resume(self, wanted: Iterable[tuple[Scenario, Variant]]) -> set[tuple[str, str]]:
        """Takes over what the file has for the same scenarios, code and options; returns (scenario, variant) of those."""
        if self.path is None or not self.path.exists():
            return set()
        old = read(self.path)
        how = {k: v for k, v in old.get("options", {}).items() if k != "jobs"}
        if old.get("code") != self.content["code"] or how != {k: v for k, v in self.content["options"].items() if k != "jobs"}:
            return set()
        digests = {(s.id, v.name): s.digest for s, v in wanted}
        kept = [r for r in old["results"] if r["status"] != "void" and digests.get((r["scenario"], r["variant"])) == r["digest"]]
        self.content["results"] = kept
        self.content["stray"] = old.get("stray", [])
        self._before = float(old.get("seconds", 0.0))
        return {(r["scenario"], r["variant"]) for r in kept}

    def keep(self, result: Result) -> None:
        """Adds a result and writes the file."""
        with self._lock:
            self.content["results"].append(asdict(result))
            self.write()

    def write(self) -> None:
        """Writes the file, whole or not at all."""
        self.content["seconds"] = round(self._before + time.monotonic() - self._begin, 1)
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.new")
        temporary.write_text(json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")
        temporary.replace(self.path)


def read(path: Path) -> Json:
    """A result file. Raises ScenarioError."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as problem:
        raise ScenarioError([f"{path}: cannot be read as a result file: {problem}"]) from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ScenarioError(
            [f"{path}: format {content.get('format') if isinstance(content, dict) else None!r} is not {FORMAT}; run the scenarios again"]
        )
    known = {f.name for f in fields(Result)}
    for number, row in enumerate(content["results"]):
        if set(row) != known:
            raise ScenarioError([f"{path}: results[{number}]: fields differ from this version's; run the scenarios again"])
    return content
