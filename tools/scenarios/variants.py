"""The same scenario said differently: other names, another order, at another time, ten times the replicas. The answer must not change."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tools.scenarios.load import Rewrite, Scenario

Json = dict[str, Any]
_LETTERS = "bcdfghjkmnpqrstvwxz"
SHIFT_SECONDS = 20.0
# Names that also are words of manifests and programs are left alone: renaming them would change what the manifest says.
_SHORTEST = 4


@dataclass(frozen=True)
class Variant:
    """How a run's texts differ from the scenario's, and how much later its alert comes."""

    name: str
    rewrite: Rewrite
    renamed: dict[str, str]  # original name -> name in the run
    later: float = 0.0  # seconds between the fault and the alert
    seconds: float = 1.0  # factor on waiting: more pods take longer

    def original(self, text: str) -> str:
        """A text of the run in the scenario's own names."""
        for old, new in self.renamed.items():
            text = re.sub(rf"(?<![A-Za-z0-9-]){re.escape(new)}(?![A-Za-z0-9-])", old, text)
        return text


PLAIN = Variant("", lambda text: text, {})


def variants(scenario: Scenario, count: int, seed: int) -> Iterator[Variant]:
    """The first `count` variants; after the four kinds they begin again with other names and another order."""
    for number in range(count):
        chance = random.Random(f"{scenario.id}/{seed}/{number}")
        kind, again = number % 4, number // 4
        suffix = f"-{again + 1}" if again else ""
        if kind == 0:
            renamed = rename(scenario, chance)
            yield Variant(f"renamed{suffix}", renamer(renamed), renamed)
        elif kind == 1:
            yield Variant(f"reordered{suffix}", lambda text, chance=chance: reorder(text, chance), {})  # type: ignore[misc]
        elif kind == 2:
            yield Variant(f"later{suffix}", lambda text: text, {}, later=SHIFT_SECONDS * (again + 1))
        else:
            yield Variant(f"tenfold{suffix}", tenfold, {}, seconds=2.0)


# ---------------------------------------------------------------- other names


def rename(scenario: Scenario, chance: random.Random) -> dict[str, str]:
    """New names for the objects of the scenario's namespace."""
    names: set[str] = set()
    words: set[str] = set()
    for name in scenario.document.files:
        for one in scenario.objects(name):
            words |= set(_words(one))
            if one["kind"] not in ("Stage", "ClusterLogs", "Namespace", "Node") and "${" not in one["metadata"]["name"]:
                names.add(one["metadata"]["name"])
    usable = sorted(n for n in names if len(n) >= _SHORTEST and n not in words and n != scenario.document.namespace)
    return {name: f"{name}-{''.join(chance.choices(_LETTERS, k=3))}" for name in usable}


def _words(value: Any) -> Iterator[str]:
    """Keys and kinds of a manifest: words that mean something to Kubernetes."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)


def renamer(names: dict[str, str]) -> Rewrite:
    """Replaces whole names wherever they stand: `db` and `db-0`, not `db-config`."""
    if not names:
        return lambda text: text
    either = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    files = r"\.(?:ya?ml|json|log|txt)\b"  # the scenario's own files keep their names
    pattern = re.compile(rf"(?<![A-Za-z0-9_-])({either})(?=-\d+(?![A-Za-z0-9-])|(?![A-Za-z0-9_-]))(?!{files})")

    def replace(text: str) -> str:
        lines = []
        for line in text.splitlines(keepends=True):
            # The id names the scenario, and its folder is where the files are.
            lines.append(line if line.startswith(("id:", "title:", "source:")) else pattern.sub(lambda m: names[m[1]], line))
        return "".join(lines)

    return replace


# ---------------------------------------------------------------- another order


def reorder(text: str, chance: random.Random) -> str:
    """The documents of a manifest and the labels of each in another order. scenario.yaml stays: its order has a meaning."""
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError:
        return text
    if not documents or not all(isinstance(d, dict) and "kind" in d and "apiVersion" in d for d in documents):
        return text
    chance.shuffle(documents)
    return yaml.safe_dump_all([_shuffled(d, chance) for d in documents], sort_keys=False, width=10**6)


def _shuffled(value: Any, chance: random.Random, name: str = "") -> Any:
    if isinstance(value, dict):
        items = [(k, _shuffled(v, chance, k)) for k, v in value.items()]
        if name in ("labels", "annotations", "matchLabels", "data"):
            chance.shuffle(items)
        return dict(items)
    return [_shuffled(v, chance) for v in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- ten times the replicas

_TIMES = 10


def tenfold(text: str) -> str:
    """Ten times the replicas in manifests, steps and the checks that count them."""
    try:
        documents = [d for d in yaml.safe_load_all(text) if d is not None]
    except yaml.YAMLError:
        return text
    if not documents or not all(isinstance(d, dict) for d in documents):
        return text
    return yaml.safe_dump_all([_more(d) for d in documents], sort_keys=False, width=10**6)


def _more(value: Any) -> Any:
    if isinstance(value, list):
        return _more_arguments(value) if value[:1] == ["kubectl"] else [_more(v) for v in value]
    if not isinstance(value, dict):
        return value
    found = {k: _times(v) if k in ("replicas", "minReplicas", "maxReplicas", "minAvailable") else _more(v) for k, v in value.items()}
    if "eplicas" in str(value.get("jsonpath", "")) or "umber" in str(value.get("jsonpath", "")):
        for name in ("equals", "notEquals"):
            if isinstance(value.get(name), str | int) and not isinstance(value.get(name), bool):
                found[name] = re.sub(r"\d+", lambda m: str(int(m[0]) * _TIMES), str(value[name]))
    return found


def _more_arguments(words: list[Any]) -> list[Any]:
    return [re.sub(r"^--replicas=(\d+)$", lambda m: f"--replicas={int(m[1]) * _TIMES}", str(word)) for word in words]


def _times(value: Any) -> Any:
    return value * _TIMES if isinstance(value, int) and not isinstance(value, bool) else value
