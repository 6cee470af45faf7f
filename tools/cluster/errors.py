"""What can go wrong with a test cluster, as exceptions whose text can be shown to a person."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


class ClusterError(Exception):
    """Something about the test cluster failed; the text says what, and what to do where that is known."""


class Unavailable(ClusterError):
    """This way of getting a cluster cannot be used on this machine; the text is the reason."""


class KubectlError(subprocess.CalledProcessError):
    """kubectl ended with an error. Unlike its base class it shows what kubectl said."""

    def __init__(self, returncode: int, cmd: Sequence[str], output: str, stderr: str) -> None:
        super().__init__(returncode, list(cmd), output, stderr)

    def __str__(self) -> str:
        said = (self.stderr or self.output or "").strip()
        return f"{' '.join(map(str, self.cmd))} ended with {self.returncode}: {said}"
