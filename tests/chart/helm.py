"""Helm as a user runs it, and the commands that the chart's README tells people to run."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts/nightorders"
NAMESPACE = "nightorders-system"
Json = dict[str, Any]
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Helm:
    """Helm against the cluster of one kubeconfig, with no settings of the machine's user."""

    programs: Path
    kubectl: Path
    home: Path
    kubeconfig: Path

    def on(self, kubeconfig: Path) -> Helm:
        """The same, on another cluster."""
        return replace(self, kubeconfig=kubeconfig)

    def shell(self, command: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command line out of the README, in the repository's folder, with helm and kubectl on PATH."""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def environment(self) -> dict[str, str]:
        """Environment variables for it."""
        return {
            "PATH": f"{self.programs}:{self.kubectl}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "KUBECONFIG": str(self.kubeconfig),
            "HELM_CACHE_HOME": str(self.home / "cache"),
            "HELM_CONFIG_HOME": str(self.home / "config"),
            "HELM_DATA_HOME": str(self.home / "data"),
        }

    def __call__(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Any command of Helm."""
        argv = [str(self.programs / "helm"), *args]
        done = subprocess.run(argv, env=self.environment(), capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, f"helm {' '.join(args)}\n{done.stdout}\n{done.stderr}"
        return done

    def release(self, verb: str, *args: str, chart: Path = CHART, check: bool = True) -> subprocess.CompletedProcess[str]:
        """install or upgrade of the release nightorders, or template without a cluster."""
        return self(verb, "nightorders", str(chart), "--namespace", NAMESPACE, *args, check=check)

    def objects(self, *args: str) -> dict[Key, Json]:
        """What the chart makes with these flags."""
        return keyed(self.release("template", *args).stdout)


def keyed(text: str) -> dict[Key, Json]:
    """The objects of a YAML text by kind, namespace and name; no two may be the same."""
    found = [d for d in yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if d]  # the C one takes a tenth
    made = {(d["kind"], d["metadata"].get("namespace", ""), d["metadata"]["name"]): d for d in found}
    assert len(made) == len(found)
    return made


def command(beginning: str, *, whole: bool = False) -> str:
    """The one command of the chart's README that begins so, or is so to the end, with its continuation lines."""
    blocks: list[str] = re.findall(r"(?ms)^```\n(.*?)^```$", (CHART / "README.md").read_text())
    rows = [row for block in blocks for row in block.replace("\\\n", " ").splitlines()]
    (found,) = [row for row in rows if row == beginning or (row.startswith(beginning) and not whole)]
    return found
