"""Certificates and kubeconfigs: right names, right signer, readable by their owner only."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tools.cluster import kubeconfig
from tools.cluster.pki import Authority, Pair, signing_keys, signing_request


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "pki")


def certificate(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.read_bytes())


def values(name: x509.Name, oid: x509.ObjectIdentifier) -> list[str | bytes]:
    return [attribute.value for attribute in name.get_attributes_for_oid(oid)]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.filterwarnings("ignore:Attribute's length")  # X.520's limit, which Kubernetes does not have
@pytest.mark.parametrize("name", ["alice", "auth0|bob", "a/b c", "x" * 200, "Jürgen"])
def test_a_user_is_the_common_name_and_groups_are_organizations(authority: Authority, name: str) -> None:
    pair = authority.issue("user", name, ["oncall", "team/a"])
    found = certificate(pair)
    assert values(found.subject, NameOID.COMMON_NAME) == [name]
    assert values(found.subject, NameOID.ORGANIZATION_NAME) == ["oncall", "team/a"]
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate_file.read_bytes()))
    assert mode(pair.key) == 0o600


def test_a_server_certificate_names_its_hosts(authority: Authority) -> None:
    found = certificate(authority.issue("server", "server", hosts=["127.0.0.1", "localhost"]))
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name) for name in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    usage = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert ExtendedKeyUsageOID.SERVER_AUTH in usage


def test_an_authority_can_be_used_from_another_process(authority: Authority) -> None:
    again = Authority.load(authority.directory)
    found = certificate(again.issue("user", "alice"))
    found.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate_file.read_bytes()))
    assert mode(authority.directory / "ca.key") == 0o600
    assert mode(authority.directory) == 0o700


def test_token_keys_are_a_pair(tmp_path: Path) -> None:
    pair = signing_keys(tmp_path)
    assert b"BEGIN PUBLIC KEY" in pair.certificate.read_bytes()
    assert mode(pair.key) == 0o600


def test_a_signing_request_asks_for_the_user() -> None:
    key, pem = signing_request("auth0|bob", ["oncall"])
    request = x509.load_pem_x509_csr(pem)
    assert b"PRIVATE KEY" in key
    assert request.is_signature_valid
    assert values(request.subject, NameOID.COMMON_NAME) == ["auth0|bob"]
    assert values(request.subject, NameOID.ORGANIZATION_NAME) == ["oncall"]


def test_a_kubeconfig_has_one_context_and_everything_in_it(authority: Authority, tmp_path: Path) -> None:
    endpoint = kubeconfig.Endpoint.of("https://127.0.0.1:1", authority.certificate_file.read_bytes())
    pair = authority.issue("user", "alice")
    path = kubeconfig.with_certificate(tmp_path / "users" / "alice", endpoint, "alice", pair)
    found = json.loads(path.read_text())
    assert mode(path) == 0o600
    assert found["current-context"] == found["contexts"][0]["name"]
    assert found["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:1"
    user = found["users"][0]["user"]
    assert base64.b64decode(user["client-certificate-data"]) == pair.certificate.read_bytes()
    assert base64.b64decode(user["client-key-data"]) == pair.key.read_bytes()


def test_a_token_kubeconfig_keeps_the_cluster_entry(tmp_path: Path) -> None:
    endpoint = kubeconfig.Endpoint({"server": "https://example.test", "tls-server-name": "kubernetes"})
    found = json.loads(kubeconfig.with_token(tmp_path / "k", endpoint, "sa", "secret").read_text())
    assert found["users"] == [{"name": "sa", "user": {"token": "secret"}}]
    assert found["clusters"][0]["cluster"]["tls-server-name"] == "kubernetes"


def test_file_names_of_users_are_safe_and_distinct() -> None:
    stems = [
        kubeconfig.file_stem("auth0|bob"),
        kubeconfig.file_stem("auth0%7Cbob"),
        kubeconfig.file_stem("../../etc"),
        kubeconfig.file_stem("alice"),
        kubeconfig.file_stem("alice", ["a"]),
        kubeconfig.file_stem("alice", ["a", "b"]),
        kubeconfig.file_stem("x" * 300),
        kubeconfig.file_stem("x" * 301),
    ]
    assert len(set(stems)) == len(stems)
    assert all("/" not in stem and len(stem) < 80 for stem in stems)
    assert kubeconfig.file_stem("a", ["x", "y"]) == kubeconfig.file_stem("a", ["y", "x"])
