"""A human is called: the real operator, a real policy, a real HTTP server as the channel."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cluster.scene import Json, Scene, condition, policy, until
from tools.cluster import Cluster
from tools.operator_process import OperatorProcess, free_port

pytestmark = pytest.mark.cluster
TOKEN = "A5ecretT0kenThatNobodyMaySee"


@dataclass
class Sink:
    """What a push service would be: takes messages, or is down."""

    port: int = field(default_factory=free_port)
    messages: list[Json] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    def up(self) -> None:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                sink.messages.append({**body, "path": self.path, "key": self.headers["X-Gotify-Key"]})
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Not on the test's output."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def down(self) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    def about(self, scene: Scene) -> list[Json]:
        return [m for m in self.messages if f" in namespace {scene.namespace}," in m["message"]]


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Secret nightorders-channels would be mounted as."""
    return tmp_path_factory.mktemp("channels")


@pytest.fixture
def sink(channels: Path) -> Iterator[Sink]:
    made = Sink()
    (channels / "oncall").write_text(f"gotify://127.0.0.1:{made.port}/{TOKEN}?priority=high\n")
    yield made
    made.down()


@pytest.fixture(scope="module")
def _calling(arena: Cluster, channels: Path) -> Iterator[OperatorProcess]:
    process = OperatorProcess(arena, environment={"NIGHTORDERS_CHANNELS_DIR": str(channels)}, name="calling")
    yield process
    process.stop()
    assert TOKEN not in process.log.read_text() if process.log.exists() else True


@pytest.fixture
def operator(_calling: OperatorProcess, no_operator: None) -> OperatorProcess:
    if _calling.process is None:
        _calling.start()
    return _calling.wait_ready(90)


def calls(level: str, **escalate: object) -> Json:
    made = policy(level)
    made["spec"]["escalate"] = {"after": "1s", "to": ["oncall"], **escalate}
    return made


def delivery(scene: Scene) -> Json:
    found = scene.incidents()
    deliveries = found[0].get("status", {}).get("escalation", {}).get("deliveries", []) if found else []
    return deliveries[0] if deliveries else {}


def test_a_message_arrives_and_the_status_says_so(operator: OperatorProcess, scene: Scene, sink: Sink) -> None:
    sink.up()
    scene.apply(calls("L3", to=["oncall", "nobody"]))
    ready = until(
        lambda: (c := condition(scene.get("remediationpolicy/web"), "Ready")).get("reason") == "ChannelUnknown" and c, "the policy says it"
    )
    assert ready["status"] == "False"
    assert "spec.escalate.to: nobody: channel nobody is not defined; the platform team adds the key nobody to Secret" in ready["message"]
    assert ready["message"].endswith("(defined: oncall)")
    scene.app()
    scene.release()
    incident = scene.incident("AwaitingApproval")
    until(lambda: delivery(scene).get("state") == "Delivered", "oncall is called")
    (message,) = sink.about(scene)
    name = incident["metadata"]["name"]
    assert message["key"] == TOKEN
    assert f"Look: nightorders show {name} -n {scene.namespace}\n" in message["message"]
    assert "ImageAccess Deployment/checkout · rev 2 (grade A)" in message["message"]
    status = scene.one()["status"]
    assert set(re.findall("sha256:[0-9a-f]+", message["message"])) == {status["plan"]["digest"][:19]}, "no digest of evidence goes out"
    assert [(d["channel"], d["state"]) for d in status["escalation"]["deliveries"]] == [("oncall", "Delivered"), ("nobody", "Failed")]
    assert status["escalation"]["times"] == 1
    assert any(e["kind"] == "Decision" and e["what"].startswith("call 1 to oncall, nobody") for e in status["timeline"])
    assert TOKEN not in json.dumps(scene.one())
    scraped = operator.scrape()
    assert 'nightorders_channels{state="Usable"} 1.0' in scraped
    assert 'nightorders_calls_total{result="Delivered"}' in scraped
    assert TOKEN not in scraped


def test_an_action_that_did_not_help_calls_at_once_and_names_the_breaker(operator: OperatorProcess, scene: Scene, sink: Sink) -> None:
    sink.up()
    never = {"for": "3s", "every": "1s", "checks": [{"name": "never", "condition": "Impossible"}], "onNoData": "Undo"}
    orders = policy("L4", verify=never)
    orders["spec"] |= {"escalate": {"after": "1h", "to": ["oncall"]}, "breaker": {"failures": 1, "within": "1h", "openFor": "1h"}}
    scene.apply(orders)
    scene.app()
    scene.release()
    scene.incident("Undone")
    until(lambda: delivery(scene).get("state") == "Delivered", "oncall is called", 30)
    (message,) = sink.about(scene)
    assert message["title"].endswith(f"] {scene.namespace} Deployment/checkout: the action did not help and was undone")
    assert "Why you: Undone: " in message["message"]
    assert "never: Deployment/checkout has no condition Impossible" in message["message"]  # what was measured
    assert "Breaker: 1 failures of RollbackWorkload on Deployments within 1h" in message["message"]


@pytest.mark.promise(4)
def test_what_cannot_be_delivered_is_seen_and_goes_out_later(operator: OperatorProcess, scene: Scene, sink: Sink) -> None:
    scene.apply(calls("L1"))
    scene.app()
    scene.release()
    scene.incident("Diagnosed")
    until(lambda: delivery(scene).get("attempts", 0) >= 2, "it is tried again")
    failed = delivery(scene)
    assert failed["state"] == "Failed"
    assert failed["message"] == "channel oncall cannot be reached, or did not take the message"
    events = json.loads(scene.kubectl("get", "events", "-o", "json"))["items"]
    assert any(e["reason"] == "CallFailed" and e["type"] == "Warning" for e in events)
    assert 'nightorders_calls_total{result="Failed"}' in operator.scrape()
    sink.up()
    until(lambda: delivery(scene).get("state") == "Delivered", "it goes out", 60)
    assert len(sink.about(scene)) == 1


def test_a_kill_between_the_call_and_its_delivery_loses_nothing(operator: OperatorProcess, scene: Scene, sink: Sink) -> None:
    scene.apply(calls("L1"))
    scene.app()
    scene.release()
    until(lambda: delivery(scene).get("state"), "the call is in the status")
    operator.kill()
    sink.up()
    assert sink.about(scene) == []
    operator.start().wait_ready(90)
    until(lambda: delivery(scene).get("state") == "Delivered", "it goes out", 60)
    assert scene.one()["status"]["escalation"]["times"] == 1
    assert len(sink.about(scene)) == 1


def test_taking_the_incident_stops_the_calls(operator: OperatorProcess, scene: Scene, sink: Sink) -> None:
    scene.apply(calls("L1"))
    scene.app()
    scene.release()
    until(lambda: delivery(scene).get("attempts", 0) >= 1, "it fails")
    me = scene.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
    scene.kubectl("annotate", "incident", scene.one()["metadata"]["name"], f"take.nightorders.dev/me={me}")
    until(lambda: scene.one()["status"].get("taken"), "the operator has noted it")
    sink.up()
    before = delivery(scene)
    time.sleep(15)  # the pauses before the second and the third attempt are 5 and 10 seconds
    assert delivery(scene) == before
    assert sink.about(scene) == []
