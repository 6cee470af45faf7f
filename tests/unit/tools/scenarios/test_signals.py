"""The alert that is posted, the webhook's answers, the pager."""

from __future__ import annotations

import datetime
import http.server
import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tools.scenarios.errors import RunnerError
from tools.scenarios.signals import Pager, Webhook, fingerprint, payload

NOW = datetime.datetime(2026, 1, 1, 12, 0, 0, tzinfo=datetime.UTC)
LABELS = {"alertname": "KubePodNotReady", "namespace": "shop"}


class Receiver:
    """Stands for the operator's webhook: answers with these codes, then with 200."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)
        self.taken: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.tokens.append(self.headers["Authorization"])
                code = receiver.codes.pop(0) if receiver.codes else 200
                if code == 200 and self.path == "/alertmanager":
                    receiver.taken.append(body)
                self.send_response(code)
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"said")

            def log_message(self, *_: object) -> None:
                """Not on the test's output."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])


@pytest.fixture
def receivers() -> Iterator[list[Receiver]]:
    made: list[Receiver] = []
    yield made
    for one in made:
        one.server.shutdown()
        one.server.server_close()


def test_a_fingerprint_is_alertmanagers() -> None:
    # FNV-1a as in Prometheus's model package: of no labels its offset, and the order of labels does not matter.
    assert fingerprint({}) == "cbf29ce484222325"
    assert fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})
    assert fingerprint({"a": "1b", "": ""}) != fingerprint({"a": "1", "b": ""})
    assert len(fingerprint(LABELS)) == 16


def test_the_payload_is_version_4() -> None:
    body = payload(LABELS, {"summary": "x"}, NOW)
    (alert,) = body["alerts"]
    assert (body["version"], body["status"], alert["status"]) == ("4", "firing", "firing")
    assert alert["startsAt"] == "2026-01-01T12:00:00.000Z"
    assert alert["endsAt"] == "0001-01-01T00:00:00Z"
    assert alert["fingerprint"] == fingerprint(LABELS)
    over = payload(LABELS, {}, NOW, firing=False)["alerts"][0]
    assert over["status"] == "resolved"
    assert over["endsAt"] > "2026"


def test_back_pressure_is_waited_out(receivers: list[Receiver]) -> None:
    receivers.append(Receiver(503, 503))
    Webhook(receivers[0].port, "tok", patience=10).post(payload(LABELS, {}, NOW))
    assert len(receivers[0].taken) == 1
    assert set(receivers[0].tokens) == {"Bearer tok"}


def test_a_refusal_is_not_repeated(receivers: list[Receiver]) -> None:
    receivers.append(Receiver(401, 200))
    with pytest.raises(RunnerError, match="401 said"):
        Webhook(receivers[0].port, "tok", patience=10).post(payload(LABELS, {}, NOW))
    assert receivers[0].codes == [200]


def test_nobody_listens(receivers: list[Receiver]) -> None:
    with pytest.raises(RunnerError, match="did not take the alert"):
        Webhook(9, "tok", patience=0.6).post(payload(LABELS, {}, NOW))


def test_the_pager_hears_who_was_called() -> None:
    with Pager() as pager:
        port = pager.address.split(":")[2].split("/")[0]
        body = json.dumps({"title": "x", "message": "Incident inc-1 in namespace shop, waits"}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}/message", body, method="POST")) as answer:
            assert answer.status == 200
        assert pager.calls("shop", "inc-1") == 1
        assert pager.calls("shop", "inc-2") == 0
