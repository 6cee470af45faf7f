"""docs/gitops.md shows what really happens: its example passes, its output is the output, its snippets are YAML."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from nightorders.policykit import report, trial

PAGE = Path("docs/gitops.md").read_text()
BLOCKS = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", PAGE, re.MULTILINE | re.DOTALL)


def block(language: str, start: str) -> str:
    """The one block of that language that begins so."""
    (found,) = (body for _, lang, body in BLOCKS if lang == language and body.lstrip().startswith(start))
    return found


def test_the_example_prints_what_the_page_shows(tmp_path: Path) -> None:
    example = block("yaml", "policies:").replace("../manifests", str(Path("manifests").resolve()))
    (tmp_path / "orders.yaml").write_text(example)
    results = [trial.run(t) for t in trial.read(tmp_path / "orders.yaml", "tests/orders.yaml")]
    assert all(r.ok for r in results)
    assert block("", "tests/orders.yaml") == report.test_text(results, None)


def test_every_snippet_is_yaml() -> None:
    snippets = [body for _, language, body in BLOCKS if language == "yaml"]
    assert len(snippets) >= 5
    for snippet in snippets:
        assert yaml.safe_load(snippet)


def test_the_pipelines_call_what_there_is() -> None:
    for name in ("name: night-orders", "night-orders:"):
        text = block("yaml", name)
        assert "nightorders policy test tests -o " in text
        assert "nightorders policy diff " in text
        assert "--allow-raise" in text
