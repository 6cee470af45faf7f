"""Values that lead nowhere: what they name is computed, that it hurts is seen, and the holder is told from the Service that is gone."""

from __future__ import annotations

from datetime import timedelta

import pytest

from nightorders.diagnosis.origins.values import Address, Value, addresses, meant
from nightorders.diagnosis.scene import Scene
from nightorders.domain.snapshot import LogKey, Snapshot

from .build import DAY, MINUTE, NOW, Raw, configmap, container, crashing, env, pod, service, snapshot, steady, template
from .test_situations import crash
from .told import answer, top


def offered(name: str, port: int = 8080) -> Raw:
    s = service(name)
    s["spec"] |= {"ports": [{"port": port, "targetPort": port}], "clusterIP": "10.96.0.7"}
    return s


def ledger() -> list[Raw]:
    t = template(container("app", "registry.example/ledger:1"), labels={"app": "ledger"})
    d, rs, pods = steady(t, name="ledger")
    return [d, rs, *pods, offered("ledger")]


def released(now: str, before: str, *lines: str, name: str = "LEDGER_URL", image: str = "") -> Snapshot:
    new = container(image=image, env=[env(name, now)]) if image else container(env=[env(name, now)])
    w = crash(template(new), template(container(env=[env(name, before)]))).add(*ledger())
    return w.snapshot(logs=w.log(*lines) if lines else {})


def restarted(data: dict[str, str], line: str, *, edited: timedelta | None = None, more: tuple[Raw, ...] = ()) -> Snapshot:
    """One pod was restarted and exits; its siblings, which started days ago, serve. All read the ConfigMap."""
    t = template(container(envFrom=[{"configMapRef": {"name": "checkout"}}]))
    d, rs, pods = steady(t, available=2)
    p = pod(rs, 9, age=5 * MINUTE, node="n2", ready=False, states=[crashing()])
    log = {LogKey(p["metadata"]["name"], "app"): (line,)}
    return snapshot(d, rs, *pods[:2], p, configmap("checkout", data, edited=edited), *more, logs=log)


def all_restarted() -> Snapshot:
    d, rs, _ = steady(template(container(env=[env("LEDGER_HOST", "ledger")])), available=0)
    pods = [pod(rs, i, age=5 * MINUTE, node=f"n{i}", ready=False, states=[crashing()]) for i in range(3)]
    return snapshot(d, rs, *pods, logs={LogKey(pods[0]["metadata"]["name"], "app"): ("getaddrinfo ENOTFOUND ledger",)})


GOOD, TYPO = "http://ledger:8080/api", "http://leger:8080/api"
UNKNOWN_NAME = "dial tcp: lookup leger on 10.96.0.10:53: no such host"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: released(TYPO, GOOD, UNKNOWN_NAME), "BadConfiguration Deployment/checkout rev 7 A"),
        (lambda: released(TYPO, GOOD), "BadConfiguration Deployment/checkout rev 7 C"),
        (lambda: released("http://ledger:8081", GOOD, "connect ECONNREFUSED ledger:8081"), "BadConfiguration Deployment/checkout rev 7 A"),
        (
            lambda: released("http://ledger:8081", GOOD, "dial tcp 10.96.0.7:8081: i/o timeout"),
            "BadConfiguration Deployment/checkout rev 7 A",
        ),
        # an address that leads nowhere and that nobody calls: the image is what failed
        (lambda: released(TYPO, TYPO, "panic: nil", name="OTEL_ENDPOINT", image="r.example/c:3"), "BadRelease Deployment/checkout rev 7 A"),
        (
            lambda: restarted({"LEDGER_HOST": "leger"}, "getaddrinfo ENOTFOUND leger", edited=10 * MINUTE, more=tuple(ledger())),
            "BadConfiguration ConfigMap/checkout Edit A",
        ),
        (lambda: restarted({"OTHER": "x"}, "KeyError: 'PORT'", edited=10 * MINUTE), "BadConfiguration ConfigMap/checkout Edit A"),
        (lambda: restarted({"OTHER": "x"}, "KeyError: 'PORT'", edited=10 * DAY), "Unknown Deployment/checkout D"),
        # nothing was changed, and it worked: the Service was there, and is gone
        (lambda: restarted({"LEDGER_HOST": "ledger"}, "getaddrinfo ENOTFOUND ledger"), "ServiceRouting Service/ledger Deletion A"),
        (all_restarted, "ServiceRouting Service/ledger Deletion A"),
        # the Service is there: its name is no reason
        (lambda: restarted({"LEDGER_HOST": "ledger"}, "boom", more=tuple(ledger())), "Unknown Deployment/checkout D"),
    ],
)
def test_values(made, expected: str) -> None:  # type: ignore[no-untyped-def]
    assert top(made()) == expected


def test_a_value_is_no_fault_where_services_were_not_looked_at() -> None:
    w = crash(template(container(env=[env("LEDGER_URL", TYPO)])), template(container(env=[env("LEDGER_URL", TYPO)])))
    assert top(w.snapshot(logs=w.log(UNKNOWN_NAME), unread={"Service": "forbidden"})) == "Unknown Deployment/checkout D"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("DB_HOST", "db", (Address("db"),)),
        ("MODE", "db", ()),
        ("URL", "postgres://u:p@db.shop.svc:5432/x", (Address("db.shop.svc", 5432),)),
        ("JDBC", "jdbc:postgresql://db:5432/x?ssl=true", (Address("db", 5432),)),
        ("BROKERS", "kafka-0:9092,kafka-1:9092", (Address("kafka-0", 9092), Address("kafka-1", 9092))),
        ("app.yaml", "ledger:\n  host: ledger\n  retries: 3\n", (Address("ledger"),)),
        ("nginx.conf", "location / {\n proxy_pass http://api:8080;\n}\n", (Address("api", 8080),)),
        ("NOTE", "please see http for details", ()),
        ("FEATURE", "true", ()),
        ("API_HOST", "http", ()),
    ],
)
def test_addresses(name: str, text: str, expected: tuple[Address, ...]) -> None:
    assert addresses(Value("ConfigMap/c", name, name, text)) == expected


@pytest.mark.parametrize(
    ("script", "host"),
    [
        ("until nslookup ledger; do sleep 2; done", Address("ledger")),
        ("until nc -z ledger 8080; do sleep 1; done", Address("ledger", 8080)),
        ("while ! nc -z -w 2 ledger.shop.svc.cluster.local 80; do sleep 1; done", Address("ledger.shop.svc.cluster.local", 80)),
        ("until pg_isready -h db -p 5432; do sleep 1; done", Address("db")),
        ("./wait-for-it.sh db:5432 -t 30", Address("db", 5432)),
        ("until curl -sf http://ledger:8080/healthz; do sleep 1; done", Address("ledger", 8080)),
        ("until getent hosts ledger; do sleep 1; done", Address("ledger")),
    ],
)
def test_what_a_script_waits_for(script: str, host: Address) -> None:
    assert host in addresses(Value("Deployment/x", "command", "command", f"sh -c {script}", command=True))


def test_which_service_a_host_means() -> None:
    scene = Scene(snapshot(service("db")), NOW)
    assert [(m.name, m.absent) if (m := meant(scene, h)) else None for h in ("db", "db.shop", "db.shop.svc.cluster.local", "db-0.db")] == [
        ("db", False)
    ] * 4
    gone = meant(scene, "cache")
    assert gone is not None
    assert gone.absent
    assert [meant(scene, h) for h in ("api.stripe.com", "10.0.0.1", "localhost", "x.elsewhere.svc")] == [None] * 4


def test_a_value_never_shows() -> None:
    d = answer(released("http://user:hunter2@leger:8080", GOOD, UNKNOWN_NAME))
    assert "leger" in d.message
    assert "hunter2" not in repr(d)
