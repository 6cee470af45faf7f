"""A real Alertmanager that sends what it hears to one webhook, with a bearer token, as the documentation of the operator tells people to.

with Alertmanager("http://127.0.0.1:8082/alertmanager", token) as alertmanager:
    Prometheus(targets, rules=rules, alertmanagers=[alertmanager.address])
"""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tools.cluster import build, supervision
from tools.cluster.errors import ClusterError
from tools.cluster.supervision import Supervision

_HOST = "127.0.0.1"
_START_SECONDS = 30.0
_POLL_SECONDS = 0.05


class Alertmanager:
    """Alertmanager on a free loopback port; its data goes with it, and it is ended when this process dies."""

    def __init__(
        self, webhook: str, token: str, *, group_by: Sequence[str] = ("...",), progress: Callable[[str], None] = build.to_stderr
    ) -> None:
        """Sends to the URL `webhook`. `group_by`: labels; without telling every alert is a notification of its own."""
        self.webhook = webhook
        self.token = token
        self.group_by = list(group_by)
        self._progress = progress
        self._port: int | None = None
        self._supervised: Supervision | None = None

    @property
    def address(self) -> str:
        """ "host:port", for Prometheus. Raises ClusterError before `start`."""
        if self._port is None:
            raise ClusterError("Alertmanager was not started")
        return f"{_HOST}:{self._port}"

    def start(self) -> Self:
        """Start it and wait until it is ready. Raises ClusterError with the end of its log."""
        program = build.program("alertmanager", "alertmanager", self._progress)
        supervision.reap()
        directory = supervision.create_directory(f"alertmanager-{secrets.token_hex(4)}")
        self._port = supervision.reserve_ports(directory, ["alertmanager"], _HOST)["alertmanager"]
        (directory / "token").touch(mode=0o600)
        (directory / "token").write_text(self.token)
        (directory / "alertmanager.yml").write_text(json.dumps(configuration(self.webhook, directory / "token", self.group_by)))
        self._supervised = Supervision.start(directory, directory / "data", keep=False)
        try:
            self._supervised.spawn(
                "alertmanager",
                [
                    program,
                    "--config.file=alertmanager.yml",
                    "--storage.path=data",
                    f"--web.listen-address={self.address}",
                    "--cluster.listen-address=",  # one alone
                    "--log.level=info",
                ],
            )
            self._wait_ready(self._supervised)
        except BaseException:
            self.stop()
            raise
        return self

    def post(self, *alerts: Mapping[str, Any]) -> None:
        """Tell it of alerts, as Prometheus does: {"labels": {...}, "annotations": {...}, "startsAt": ..., "endsAt": ...}."""
        request = urllib.request.Request(
            f"http://{self.address}/api/v2/alerts", json.dumps(alerts).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=10):
                return
        except urllib.error.HTTPError as problem:
            with problem:
                raise ClusterError(f"Alertmanager refuses the alerts: {problem.read().decode(errors='replace')}") from problem

    def log(self) -> str:
        """The end of its log."""
        return supervision.log_tail(self._supervised.directory, "alertmanager") if self._supervised is not None else ""

    def stop(self) -> None:
        """End it and remove its data. Nothing happens when it was not started."""
        if self._supervised is not None:
            self._supervised.shutdown()
            self._supervised = None

    def _wait_ready(self, supervised: Supervision) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=2):
                    return
            except urllib.error.HTTPError as problem:
                problem.close()  # it answers, and is not ready
            except OSError:
                supervised.check_running("alertmanager")
            time.sleep(_POLL_SECONDS)
        raise ClusterError(f"Alertmanager is not ready after {_START_SECONDS:.0f} s: {self.log()}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def configuration(webhook: str, token: Path, group_by: Sequence[str]) -> dict[str, Any]:
    """Alertmanager's configuration (as JSON it is YAML): like manifests/alerts/alertmanager.example.yaml, and quick."""
    receiver = {
        "url": webhook,
        "send_resolved": True,
        "max_alerts": 0,
        "http_config": {"authorization": {"type": "Bearer", "credentials_file": str(token)}, "follow_redirects": False},
    }
    return {
        "global": {"resolve_timeout": "10s"},
        "route": {
            "receiver": "nightorders",
            "group_by": list(group_by),
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        },
        "receivers": [{"name": "nightorders", "webhook_configs": [receiver]}],
    }
