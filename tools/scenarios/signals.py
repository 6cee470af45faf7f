"""The alert: Alertmanager's payload, posted to the operator's real webhook, and the pager that hears when a human is called."""

from __future__ import annotations

import datetime
import http.server
import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tools.scenarios.errors import RunnerError

Json = dict[str, Any]
AUDIENCE = "nightorders.dev/alerts"
ACCOUNT = "nightorders-alertmanager"
_FNV_OFFSET, _FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


def fingerprint(labels: dict[str, str]) -> str:
    """An alert's fingerprint as Prometheus and Alertmanager compute it: FNV-1a over the sorted labels, 16 hex digits."""
    total = _FNV_OFFSET
    for name in sorted(labels):
        for byte in name.encode() + b"\xff" + labels[name].encode() + b"\xff":
            total = ((total ^ byte) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
    return f"{total:016x}"


def payload(labels: dict[str, str], annotations: dict[str, str], starts_at: datetime.datetime, *, firing: bool = True) -> Json:
    """What Alertmanager posts for one alert (version 4 of its webhook)."""
    status = "firing" if firing else "resolved"
    alert = {
        "status": status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": _time(starts_at),
        "endsAt": "0001-01-01T00:00:00Z" if firing else _time(datetime.datetime.now(datetime.UTC)),
        "generatorURL": "",
        "fingerprint": fingerprint(labels),
    }
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{labels["alertname"]}"}}',
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "nightorders",
        "groupLabels": {"alertname": labels["alertname"]},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [alert],
    }


def _time(at: datetime.datetime) -> str:
    return at.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


class Webhook:
    """The operator's webhook, with Alertmanager's token. Posts again on back-pressure, as Alertmanager does."""

    def __init__(self, port: int, token: str, *, patience: float = 60.0) -> None:
        self.url = f"http://127.0.0.1:{port}/alertmanager"
        self._token = token
        self._patience = patience

    def post(self, body: Json) -> float:
        """Seconds until it was accepted. Raises RunnerError that holds the last answer."""
        begin = time.monotonic()
        said = "nobody listens"
        while time.monotonic() - begin < self._patience:
            request = urllib.request.Request(
                self.url,
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
                method="POST",
            )
            try:
                with urllib.request.urlopen(request, timeout=30):
                    return time.monotonic() - begin
            except urllib.error.HTTPError as problem:
                with problem:
                    said = f"{problem.code} {problem.read(500).decode(errors='replace')}"
                if problem.code < 500:
                    break  # it will not be accepted later either
            except OSError as problem:
                said = str(problem)
            time.sleep(0.5)
        raise RunnerError(f"the operator's webhook did not take the alert: {said}")


class Pager:
    """Stands for the service that wakes a human: takes every message and keeps it. `address` is a channel address for it."""

    def __init__(self) -> None:
        self.messages: list[Json] = []
        pager = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                try:
                    message = json.loads(body)
                except ValueError:
                    message = {"message": body.decode(errors="replace")}
                pager.messages.append(message)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Not on the progress output."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def address(self) -> str:
        """Of the kind that the operator's channels have."""
        return f"gotify://127.0.0.1:{self._server.server_address[1]}/TheTokenOfARunThatWakesNobody"

    def write_channel(self, folder: Path, name: str) -> None:
        """Defines the channel as the mounted Secret does."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(self.address)

    def calls(self, namespace: str, incident: str) -> int:
        """How many messages named this Incident."""
        return sum(incident in text and namespace in text for text in map(json.dumps, list(self.messages)))

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
