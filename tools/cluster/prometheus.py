"""A real Prometheus, and an exporter whose series a test sets.

with ScriptedMetrics() as metrics, Prometheus([metrics.address]) as prometheus:
    metrics.set("http_errors_total", {"deployment": "web"}, 17)
    prometheus.wait_for("http_errors_total == 17")
"""

from __future__ import annotations

import http.server
import json
import math
import secrets
import threading
import time
import urllib.error
import urllib.parse
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


class Prometheus:
    """Prometheus on a free loopback port; its data goes with it.

    Like a local cluster it is ended when this process dies.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        interval: float = 1.0,
        rules: Sequence[Mapping[str, Any]] = (),
        alertmanagers: Sequence[str] = (),
        progress: Callable[[str], None] = build.to_stderr,
    ) -> None:
        """`targets` are "host:port" of what to scrape (/metrics), every `interval` seconds; `rules` are evaluated as often.

        `alertmanagers` ("host:port") hear of the alerts that the rules make.
        """
        self.targets = list(targets)
        self.interval = interval
        self.rules = [dict(rule) for rule in rules]
        self.alertmanagers = list(alertmanagers)
        self._progress = progress
        self._port: int | None = None
        self._supervised: Supervision | None = None
        self._program = Path()

    @property
    def url(self) -> str:
        """Where its API is, after `start`. It stays the same when Prometheus is interrupted and resumed."""
        if self._port is None:
            raise ClusterError("Prometheus was not started")
        return f"http://{_HOST}:{self._port}"

    def start(self) -> Self:
        """Start it and wait until it is ready: well below a second once it is built.

        Raises ClusterError with the end of its log.
        """
        self._program = build.program("prometheus", "prometheus", self._progress)
        supervision.reap()
        directory = supervision.create_directory(f"prometheus-{secrets.token_hex(4)}")
        self._port = supervision.reserve_ports(directory, ["prometheus"], _HOST)["prometheus"]
        groups = [{"name": "rules", "rules": self.rules}] if self.rules else []
        (directory / "rules.yml").write_text(json.dumps({"groups": groups}))
        (directory / "prometheus.yml").write_text(json.dumps(configuration(self.targets, self.interval, self.alertmanagers)))
        self._supervised = Supervision.start(directory, directory / "data", keep=False)
        try:
            self.resume()
        except BaseException:
            self.stop()
            raise
        return self

    def interrupt(self) -> None:
        """Kill the server; its data and port stay for `resume`."""
        self._running().stop_process("prometheus")

    def resume(self) -> None:
        """Start the server (again) and wait until it is ready."""
        supervised = self._running()
        supervised.spawn(
            "prometheus",
            [
                self._program,
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=data",
                "--storage.tsdb.retention.time=1d",
                f"--web.listen-address={_HOST}:{self._port}",
                "--log.level=warn",
                # Otherwise the first scrape comes 5 s after the start.
                "--scrape.discovery-reload-interval=100ms",
                # Otherwise an alert that goes on is told again only after a minute.
                "--rules.alert.resend-delay=1s",
            ],
        )
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):
                    return
            except urllib.error.HTTPError as problem:
                problem.close()  # it answers, and is not ready
            except OSError:
                supervised.check_running("prometheus")
            time.sleep(_POLL_SECONDS)
        log = supervision.log_tail(supervised.directory, "prometheus")
        raise ClusterError(f"Prometheus is not ready after {_START_SECONDS:.0f} s: {log}")

    def stop(self) -> None:
        """End it and remove its data. Nothing happens when it was not started."""
        if self._supervised is not None:
            self._supervised.shutdown()
            self._supervised = None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query: [{"metric": {...}, "value": [time, "text"]}, ...].

        Raises ClusterError with what Prometheus says about the expression, OSError when it is down.
        """
        parameters = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{parameters}", timeout=10) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as problem:
            with problem:
                raise ClusterError(f"{expression}: {problem.read().decode(errors='replace')}") from problem
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def wait_for(self, expression: str, seconds: float = 15.0) -> list[dict[str, Any]]:
        """Wait until an instant query has a result, and return it. Raises ClusterError after `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.query(expression)
            if found:
                return found
            time.sleep(min(0.1, self.interval))
        raise ClusterError(f"{expression} has no result after {seconds:.0f} s")

    def _running(self) -> Supervision:
        if self._supervised is None:
            raise ClusterError("Prometheus was not started")
        return self._supervised

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def configuration(targets: Sequence[str], interval: float, alertmanagers: Sequence[str] = ()) -> dict[str, Any]:
    """Prometheus's configuration (as JSON it is YAML) for these targets and that interval in seconds."""
    gap = f"{max(1, round(interval * 1000))}ms"
    return {
        "global": {"scrape_interval": gap, "scrape_timeout": gap, "evaluation_interval": gap},
        "rule_files": ["rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}] if alertmanagers else []},
        "scrape_configs": [
            {
                "job_name": "test",
                # What a target says about a workload (namespace, pod) must arrive under these names.
                "honor_labels": True,
                "static_configs": [{"targets": list(targets)}],
            }
        ],
    }


# ---------------------------------------------------------------- the exporter

Labels = Mapping[str, str]


class ScriptedMetrics:
    """An HTTP server whose /metrics shows exactly the series that were set. For use by any thread."""

    def __init__(self) -> None:
        self._series: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        self._lock = threading.Lock()
        self._down = False
        self._server: http.server.ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        """ "host:port", as a scrape target. Raises ClusterError before `start`."""
        if self._server is None:
            raise ClusterError("the exporter was not started")
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def set(self, name: str, labels: Labels, value: float) -> None:
        """Make a series have that value from the next scrape on; NaN and infinities are possible."""
        with self._lock:
            self._series.setdefault(name, {})[tuple(sorted(labels.items()))] = float(value)

    def remove(self, name: str, labels: Labels | None = None) -> None:
        """Make a series vanish, or without labels all of that name. Those that are not there are no error."""
        with self._lock:
            if labels is None:
                self._series.pop(name, None)
            else:
                self._series.get(name, {}).pop(tuple(sorted(labels.items())), None)

    def set_down(self, down: bool) -> None:
        """Answer scrapes with 503 (the series then go stale), or normally again."""
        self._down = down

    def text(self) -> str:
        """What /metrics shows, in Prometheus's text format."""
        with self._lock:
            return "".join(
                f"{name}{_labels(labels)} {_number(value)}\n" for name, series in self._series.items() for labels, value in series.items()
            )

    def start(self) -> Self:
        """Serve on a free loopback port, in a thread of its own."""
        metrics = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = metrics.text().encode()
                self.send_response(503 if metrics._down else 200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass  # a line per second is of no use

        self._server = http.server.ThreadingHTTPServer((_HOST, 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop serving: Prometheus then finds the target down."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    escaped = ((name, value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")) for name, value in labels)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)
