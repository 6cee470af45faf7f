"""Certificates: by series, by cert-manager, by what programs log."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from nightorders.diagnosis.anomalies.certificates import certificates
from nightorders.diagnosis.hypotheses import Candidate
from nightorders.diagnosis.world import World

from .between import DAY, HOUR, MINUTE, NOW, Claim, Raw, app, at, calling, env, made, service, template, told, web, world, written

EXPIRED = (
    'Post "https://gate:8443/x": tls: failed to verify certificate: x509: certificate has expired or is not yet valid: '
    "current time 2026-03-01T12:00:00Z is after 2026-03-01T10:00:00Z"
)


def gate(secret: str = "gate-tls", **volume: Any) -> list[Raw]:
    container = web("gate", volumeMounts=[{"name": "tls", "mountPath": "/etc/tls"}])
    source = volume or {"secret": {"secretName": secret}}
    return [*app("gate", template(container, labels={"app": "gate"}, volumes=[{"name": "tls", **source}])), service("gate", port=8443)]


def scene(*more: Any, line: str = EXPIRED, **kw: Any) -> World:
    return world(app("shop", calling("shop", GATE="https://gate:8443")), gate(), *more, logs={"shop-0001-0": [line]} if line else {}, **kw)


def found(w: World) -> list[Candidate]:
    return list(certificates(w))


def series(ends: timedelta, **labels: str) -> tuple[dict[str, str], float]:
    base = {"series": "x509_cert_not_after", "secret_name": "gate-tls", "secret_namespace": "shop"}
    return {**base, **labels}, (NOW + ends).timestamp()


def test_a_series_and_a_line_together_show_it() -> None:
    (c,) = found(scene(series=[series(-2 * HOUR)]))
    assert told([c]) == ["Certificate Secret/gate-tls Expiry A"]
    assert c.change is not None
    assert c.change.at == NOW - 2 * HOUR
    assert {"Deployment/gate", "Service/gate", "Deployment/shop"} <= set(c.hits)


def test_one_of_them_alone_leaves_a_link_open() -> None:
    asked = Claim("CertificateExpired", labels={"secret": "gate-tls"})
    assert told(found(scene(line="", series=[series(-HOUR)], claim=asked))) == ["Certificate Secret/gate-tls Expiry B"]
    assert told(found(scene(line="", series=[series(-HOUR)]))) == ["Certificate Secret/gate-tls Expiry C"]
    assert told(found(scene())) == ["Certificate Secret/gate-tls Expiry B"]


def test_a_certificate_that_ends_later_is_no_fault() -> None:
    assert found(scene(line="", series=[series(30 * DAY)])) == []
    assert found(scene(series=[series(30 * DAY)])) == []


def test_other_namespaces_and_odd_values_do_not_count() -> None:
    assert found(scene(line="", series=[series(-HOUR, secret_namespace="other")])) == []
    odd = ({"__name__": "x509_cert_not_after", "secret_name": "gate-tls"}, -5.0)
    assert found(scene(line="", series=[odd, ({"__name__": "x509_cert_not_after", "secret_name": "gate-tls"}, 1e18)])) == []


def test_cert_manager_says_it() -> None:
    status = {"notAfter": at(HOUR), "conditions": [{"type": "Ready", "status": "False", "reason": "Expired"}]}
    cert = made("Certificate", "gate", spec={"secretName": "gate-tls"}, status=status)
    assert told(found(scene(cert))) == ["Certificate Secret/gate-tls Expiry A"]


def test_a_probe_of_an_ingress_host() -> None:
    ingress = made("Ingress", "front", spec={"tls": [{"hosts": ["*.example.com"], "secretName": "wild-tls"}], "rules": []})
    probe = ({"__name__": "probe_ssl_earliest_cert_expiry", "instance": "https://shop.example.com/health"}, (NOW - HOUR).timestamp())
    (c,) = found(scene(ingress, line="", series=[probe]))
    assert told([c]) == ["Certificate Secret/wild-tls Expiry C"]
    assert "Ingress/front" in c.hits


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("https://gate:8443 Error: Hostname/IP does not match certificate's altnames: ERR_TLS_CERT_ALTNAME_INVALID", "of another name"),
        ('Get "https://gate:8443/": x509: certificate is valid for old-gate, not gate', "of another name"),
        ('Get "https://gate:8443/": x509: certificate signed by unknown authority', "of an unknown authority"),
    ],
)  # fmt: skip
def test_other_complaints_are_no_expiry(line: str, kind: str) -> None:
    (c,) = found(scene(line=line))
    assert told([c]) == ["Certificate Secret/gate-tls B"]
    assert kind in c.statement


def test_an_edited_bundle_of_authorities_is_the_callers_side() -> None:
    t = calling("shop", GATE="https://gate:8443")
    t["spec"]["volumes"] = [{"name": "ca", "configMap": {"name": "ca-bundle"}}]
    bundle = made("ConfigMap", "ca-bundle", data={"ca.crt": "x"}, managed=[written(5 * MINUTE, "data", "ca.crt")])
    line = 'Get "https://gate:8443/": x509: certificate signed by unknown authority'
    w = world(app("shop", t), gate(), bundle, logs={"shop-0001-0": [line]})
    assert told(found(w)) == ["Certificate ConfigMap/ca-bundle Edit B"]


def test_where_no_secret_is_shown_the_server_is_a_lead() -> None:
    w = world(app("shop", calling("shop", GATE="https://gate:8443")), gate(emptyDir={}), logs={"shop-0001-0": [EXPIRED]})
    assert told(found(w)) == ["Certificate Deployment/gate D"]


def test_of_several_secrets_the_one_that_looks_like_a_certificate_is_meant() -> None:
    parts = gate()
    parts[0]["spec"]["template"]["spec"]["containers"][0]["env"] = [env("LOGIN", secret="gate-login", key="password")]
    w = world(app("shop", calling("shop", GATE="https://gate:8443")), parts, logs={"shop-0001-0": [EXPIRED]})
    assert told(found(w)) == ["Certificate Secret/gate-tls Expiry B"]
