"""A real kube-state-metrics: what a cluster's objects say, as the series that the usual alerting rules are written for."""

from __future__ import annotations

import secrets
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tools.cluster import build, supervision
from tools.cluster.errors import ClusterError
from tools.cluster.supervision import Supervision

_HOST = "127.0.0.1"
_START_SECONDS = 30.0
_POLL_SECONDS = 0.05


class StateMetrics:
    """kube-state-metrics beside a cluster, on a free loopback port. It is ended when this process dies."""

    def __init__(self, kubeconfig: Path, *, progress: Callable[[str], None] = build.to_stderr) -> None:
        self._kubeconfig = kubeconfig
        self._progress = progress
        self._port: int | None = None
        self._supervised: Supervision | None = None

    @property
    def address(self) -> str:
        """ "host:port", as a scrape target. Raises ClusterError before `start`."""
        if self._port is None:
            raise ClusterError("kube-state-metrics was not started")
        return f"{_HOST}:{self._port}"

    def start(self) -> Self:
        """Start it and wait until it serves. Raises ClusterError with the end of its log."""
        program = build.program("kube-state-metrics", "kube-state-metrics", self._progress)
        directory = supervision.create_directory(f"state-metrics-{secrets.token_hex(4)}")
        ports = supervision.reserve_ports(directory, ["metrics", "telemetry"], _HOST)
        self._port = ports["metrics"]
        supervised = self._supervised = Supervision.start(directory, directory / "data", keep=False)
        argv: list[str | Path] = [
            program,
            f"--kubeconfig={self._kubeconfig}",
            f"--host={_HOST}",
            f"--port={ports['metrics']}",
            f"--telemetry-host={_HOST}",
            f"--telemetry-port={ports['telemetry']}",
        ]
        try:
            supervised.spawn("kube-state-metrics", argv)
            end = time.monotonic() + _START_SECONDS
            while time.monotonic() < end:
                try:
                    with urllib.request.urlopen(f"http://{self.address}/metrics", timeout=2):
                        return self
                except OSError:
                    supervised.check_running("kube-state-metrics")
                    time.sleep(_POLL_SECONDS)
            log = supervision.log_tail(directory, "kube-state-metrics")
            raise ClusterError(f"kube-state-metrics does not serve after {_START_SECONDS:.0f} s: {log}")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it. Nothing happens when it was not started."""
        if self._supervised is not None:
            self._supervised.shutdown()
            self._supervised = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
