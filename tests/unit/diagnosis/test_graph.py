"""The graph: what leads where, which values name a host, and the shortest path from a symptom."""

from __future__ import annotations

import pytest

from nightorders.diagnosis.graph import DNS_SERVICE, Edge, Graph, Link, build, hosts, path, paths, selects, workloads
from nightorders.diagnosis.scene import Scene
from nightorders.domain.snapshot import Listing, Snapshot

from .between import NOW, NS, Raw, app, calling, container, database, env, kube, made, service, template, world

SERVICES = frozenset({"db", "cart", "web", "api"})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("db", [("db", "", 0)]),
        ("db:5432", [("db", "", 5432)]),
        ("http://cart", [("cart", "", 0)]),
        ("http://cart:8080/v1?x=web", [("cart", "", 8080)]),
        ("postgres://app:pw@db:5432/app", [("db", "", 5432)]),
        ("jdbc:postgresql://db:5432/app", [("db", "", 5432)]),
        ("db.shop.svc.cluster.local:5432", [("db", "", 5432)]),
        ("db.shop.svc:5432", [("db", "", 5432)]),
        ("db.shop", [("db", "", 0)]),
        ("ledger.finance.svc.cluster.local:80", [("ledger", "finance", 80)]),
        ("gone.shop.svc.cluster.local", [("gone", "", 0)]),
        ("db-0.db.shop.svc.cluster.local", [("db", "", 0)]),
        ("cart:8080,api:8081", [("cart", "", 8080), ("api", "", 8081)]),
        ("until nc -z db 5432; do sleep 1; done", [("db", "", 5432)]),
        ("until getent hosts cart; do sleep 2; done", [("cart", "", 0)]),
        ("proxy_pass http://api:9000;", [("api", "", 9000)]),
        ("host: db\nport: 5432", [("db", "", 0)]),
        ("--backend=cart:8080 --name shop", [("cart", "", 8080)]),
        ("the cart of the web shop", []),
        ("/api/v1", []),
        ("registry.example/db:1.0", []),
        ("https://api.example.com", []),
        ("cartography", []),
        ("db.example.com:5432", []),
    ],
)
def test_which_hosts_a_value_names(value: str, expected: list[tuple[str, str, int]]) -> None:
    assert [(h.service, h.namespace, h.port) for h in hosts(value, SERVICES, NS)] == expected


def test_a_name_that_only_a_workload_bears_counts_in_an_address_only() -> None:
    likely = frozenset({"worker"})
    assert [h.service for h in hosts("http://worker:80", SERVICES, NS, likely)] == ["worker"]
    assert list(hosts("worker", SERVICES, NS, likely)) == []
    assert [h.service for h in hosts("worker", SERVICES, NS, likely, asked=True)] == ["worker"]


def test_a_call_says_where_its_value_stands_and_its_port() -> None:
    config = made("ConfigMap", "settings", data={"CART_HOST": "cart", "CART_PORT": "8081", "OTHER": "http://api:9000"})
    t = template(
        container(
            env=[env("DB_HOST", "db"), env("DB_PORT", "5433"), env("CART_HOST", config="settings")], args=["--api", "http://api:9001"]
        ),
        labels={"app": "web"},
    )
    w = world(app("web", t), service("db"), service("cart"), service("api"), config)
    calls = {(e.target, e.port, e.holder) for e in w.graph.edges("Deployment/web", Link.CALLS)}
    assert calls == {
        ("Service/db", 5433, "Deployment/web"),
        ("Service/cart", 8081, "ConfigMap/settings"),
        ("Service/api", 9001, "Deployment/web"),
    }
    (db,) = (e for e in w.graph.edges("Deployment/web", Link.CALLS) if e.target == "Service/db")
    assert db.via == "spec.containers[app].env[DB_HOST]:5433"
    assert w.graph.targets("Deployment/web", Link.RESOLVES) == (DNS_SERVICE,)


def test_the_name_of_a_database_or_a_user_is_no_host() -> None:
    t = template(container(env=[env("POSTGRES_DB", "cart"), env("POSTGRES_USER", "cart"), env("APP_NAME", "cart")]), labels={"app": "db"})
    assert world(app("db", t), service("cart")).graph.targets("Deployment/db", Link.CALLS) == ()
    t = template(container(env=[env("CART", "cart"), env("QUEUE", "http://api:80")]), labels={"app": "db"})
    w = world(app("db", t), service("cart"), service("api"))
    assert set(w.graph.targets("Deployment/db", Link.CALLS)) == {"Service/cart", "Service/api"}


def test_only_the_keys_that_are_read_count() -> None:
    config = made("ConfigMap", "settings", data={"CART": "http://cart", "DB": "http://db"})
    t = template(container(env=[env("X", config="settings", key="CART")]), labels={"app": "web"})
    w = world(app("web", t), service("db"), service("cart"), config)
    assert w.graph.targets("Deployment/web", Link.CALLS) == ("Service/cart",)


def test_logs_and_traces_connect_too() -> None:
    parts = app("web", template(labels={"app": "web"}))
    line = {"web-0001-0": ["dial tcp: lookup cart on 10.96.0.10:53: no such host"]}
    w = world(parts, service("cart"), service("api"), logs=line)
    assert w.graph.targets("Deployment/web", Link.CALLS) == ("Service/cart",)
    traced = ({"__name__": "traces_service_graph_request_total", "client": "web", "server": "api"}, 3.0)
    w = world(parts, service("cart"), service("api"), series=[traced])
    assert w.graph.targets("Deployment/web", Link.CALLS) == ("Service/api",)


def test_paths_follow_calls_selectors_owners_and_volumes() -> None:
    claim = made("PersistentVolumeClaim", "data", spec={"volumeName": "pv1", "storageClassName": "fast"})
    volume = made("PersistentVolume", "pv1", spec={"storageClassName": "fast"})
    t = calling("web", CART="http://cart:80")
    cart = template(container(), labels={"app": "cart"}, volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}])
    ingress = made("Ingress", "front", spec={"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}})
    w = world(app("web", t), app("cart", cart), service("web"), service("cart"), claim, volume, ingress)
    way = path(w.graph, "Ingress/front", ["StorageClass/fast"])
    assert way is not None
    assert [(e.link, e.target) for e in way] == [
        (Link.ROUTES, "Service/web"),
        (Link.FRONTS, "Deployment/web"),
        (Link.CALLS, "Service/cart"),
        (Link.FRONTS, "Deployment/cart"),
        (Link.CLAIMS, "PersistentVolumeClaim/data"),
        (Link.USES, "StorageClass/fast"),
    ]
    assert path(w.graph, "Deployment/cart", ["Deployment/web"]) is None
    assert path(w.graph, "Deployment/web", ["Deployment/web"]) == ()
    up = path(w.graph, "Pod/cart-0001-0", ["PersistentVolume/pv1"])
    assert up is not None
    assert up[-1].link is Link.BOUND


def test_a_governor_is_not_on_the_way_and_nothing_goes_against_a_call() -> None:
    budget = made("PodDisruptionBudget", "b", spec={"selector": {"matchLabels": {"app": "web"}}})
    policy = made("NetworkPolicy", "p", spec={"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}})
    w = world(app("web"), app("caller", calling("caller", WEB="http://web")), service("web"), budget, policy)
    assert w.graph.targets("PodDisruptionBudget/b", Link.GOVERNS) == ("Deployment/web",)
    assert w.graph.targets("NetworkPolicy/p", Link.GOVERNS) == ("Deployment/web",)
    reached = paths(w.graph, "Deployment/web")
    assert not {"PodDisruptionBudget/b", "NetworkPolicy/p", "Deployment/caller"} & reached.keys()


def test_owners_of_owners_and_bare_pods() -> None:
    cron = made("CronJob", "nightly", spec={"jobTemplate": {"spec": {"template": calling("nightly", API="http://api")}}})
    job = made("Job", "nightly-1", spec={"template": calling("nightly")})
    job["metadata"]["ownerReferences"] = [{"kind": "CronJob", "name": "nightly", "uid": "u", "controller": True}]
    pod: Raw = made("Pod", "nightly-1-x", spec={"nodeName": "n1", "containers": [container()]})
    pod["metadata"]["ownerReferences"] = [{"kind": "Job", "name": "nightly-1", "uid": "u", "controller": True}]
    bare = made("Pod", "lonely", spec={"containers": [container(env=[env("API", "http://api")])]})
    w = world(cron, job, pod, bare, service("api"))
    assert w.graph.root("Pod/nightly-1-x") == "CronJob/nightly"
    assert w.graph.sources("Service/api", Link.CALLS) == ("CronJob/nightly", "Pod/lonely")
    assert [o.title for o, _ in workloads(w.scene)] == ["CronJob/nightly", "Job/nightly-1", "Pod/lonely"]


def test_rights_webhooks_and_other_namespaces() -> None:
    binding = made(
        "RoleBinding",
        "rb",
        roleRef={"kind": "Role", "name": "reader"},
        subjects=[{"kind": "ServiceAccount", "name": "default", "namespace": NS}],
    )
    hook: Raw = made(
        "ValidatingWebhookConfiguration",
        "guard",
        webhooks=[
            {
                "name": "a",
                "clientConfig": {"service": {"name": "guard", "namespace": "tools"}},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NS}},
            },
            {"name": "b", "clientConfig": {}, "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}}},
        ],
    )
    dns = made("Deployment", "coredns", namespace="kube-system", spec={"template": template(labels={"k8s-app": "kube-dns"})})
    kube_dns = service("kube-dns", {"k8s-app": "kube-dns"}, namespace="kube-system")
    w = world(app("web", calling("web", X="http://web")), service("web"), binding, hook, beside={"kube-system": [dns, kube_dns]})
    assert w.graph.targets("RoleBinding/rb", Link.GRANTS) == ("ServiceAccount/default",)
    assert w.graph.targets("ValidatingWebhookConfiguration/guard", Link.GOVERNS) == (f"Namespace/{NS}",)
    assert w.graph.targets("ValidatingWebhookConfiguration/guard", Link.USES) == ("Service/tools/guard",)
    assert "Deployment/kube-system/coredns" in paths(w.graph, "Deployment/web")


def test_claims_of_a_stateful_set_are_known_before_its_pods() -> None:
    parts = database("db")
    parts[0]["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}}]
    assert world(parts).graph.targets("StatefulSet/db", Link.CLAIMS) == ("PersistentVolumeClaim/data-db-0",)


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        ({"key": "a", "operator": "In", "values": ["1", "2"]}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "b", "operator": "NotIn", "values": ["1"]}, True),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "a", "operator": "DoesNotExist"}, False),
        ({"key": "a", "operator": "Fits"}, False),
        ({"key": "a", "operator": "In", "values": "1"}, False),
    ],
)
def test_label_selectors(expression: Raw, matches: bool) -> None:
    assert selects({"matchExpressions": [expression]}, {"a": "1"}) is matches
    assert selects({}, {"a": "1"})
    assert not selects({"matchLabels": {"a": "2"}}, {"a": "1"})


def test_malformed_objects_make_no_graph_fail() -> None:
    junk: list[Raw] = [
        {
            "kind": k,
            "metadata": {"name": k.lower(), "namespace": NS, "ownerReferences": 3, "labels": []},
            "spec": s,
            "webhooks": [1],
            "subjects": {},
        }
        for k, s in (
            ("Ingress", {"rules": [{"http": {"paths": "x"}}, 4], "tls": [None], "defaultBackend": []}),
            ("NetworkPolicy", {"podSelector": [], "policyTypes": {}}),
            ("PodDisruptionBudget", []),
            ("Service", {"selector": {"a": 1}, "ports": {}}),
            ("StatefulSet", {"replicas": "many", "volumeClaimTemplates": [{"metadata": 1}]}),
            ("Deployment", {"template": {"spec": {"containers": [{"env": [{"value": 5}], "args": [1, None]}]}}}),
            ("CronJob", {"jobTemplate": "never"}),
            ("RoleBinding", 5),
            ("ValidatingWebhookConfiguration", None),
        )
    ]
    listings = {o["kind"]: Listing(o["kind"], "q", NOW, (kube(o["kind"], o),)) for o in junk}
    assert isinstance(build(Scene(Snapshot(NS, NOW, listings, beside={"x": Snapshot("x", NOW, listings)}), NOW)), Graph)


def test_circles_end() -> None:
    graph = Graph()
    for a, b in (("A/1", "A/2"), ("A/2", "A/3"), ("A/3", "A/1")):
        graph.add(Edge(Link.CALLS, a, b))
    assert {t: len(p) for t, p in paths(graph, "A/1").items()} == {"A/1": 0, "A/2": 1, "A/3": 2}


def test_many_objects_cost_little() -> None:
    """Linear: three thousand pods behind three hundred Services take well under a second."""
    import time

    parts = [
        o for i in range(300) for o in (*app(f"app{i}", calling(f"app{i}", NEXT=f"http://app{i + 1}:80"), pods=10), service(f"app{i}"))
    ]
    began = time.perf_counter()
    w = world(parts)
    reached = paths(w.graph, "Deployment/app0")
    assert "Deployment/app299" in reached
    assert time.perf_counter() - began < 5
