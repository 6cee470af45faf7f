"""Certificates for a local control plane: one authority, elliptic-curve keys (20 ms for all of them)."""

from __future__ import annotations

import datetime
import ipaddress
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = datetime.timedelta(days=30)
# Clocks of containers and hosts differ a little.
_BACKDATE = datetime.timedelta(minutes=5)


def write_private(path: Path, content: bytes) -> Path:
    """Write a file that only its owner can read, from its first byte on. Returns the path."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    return path


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private key as PKCS #8 PEM, without a password."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def user_name(common_name: str, organizations: Iterable[str] = ()) -> x509.Name:
    """The subject that Kubernetes reads as user (common name) and groups (organizations).

    Neither has a length limit in Kubernetes; the 64 characters of X.520 are therefore not enforced.
    """
    parts = [(NameOID.ORGANIZATION_NAME, value) for value in organizations]
    parts.append((NameOID.COMMON_NAME, common_name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the length
        return x509.Name([x509.NameAttribute(oid, value, _validate=False) for oid, value in parts])


@dataclass(frozen=True)
class Pair:
    """The files of one certificate and its key, both PEM."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority whose files lie in one directory (ca.crt, ca.key and what it issued)."""

    def __init__(self, directory: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.directory = directory
        self._key = key
        self._certificate = certificate

    @property
    def certificate_file(self) -> Path:
        """The authority's own certificate, PEM."""
        return self.directory / "ca.crt"

    @classmethod
    def create(cls, directory: Path) -> Authority:
        """A new authority in that directory, which is made when it is not there."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        name = user_name("nightorders-test-ca")
        builder = _builder(name, name, key.public_key(), authority=True)
        certificate = builder.sign(key, hashes.SHA256())
        (directory / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        write_private(directory / "ca.key", key_pem(key))
        return cls(directory, key, certificate)

    @classmethod
    def load(cls, directory: Path) -> Authority:
        """The authority that `create` left in that directory. Raises FileNotFoundError, ValueError, TypeError."""
        key = serialization.load_pem_private_key((directory / "ca.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{directory / 'ca.key'} is no elliptic-curve key")
        certificate = x509.load_pem_x509_certificate((directory / "ca.crt").read_bytes())
        return cls(directory, key, certificate)

    def issue(self, file: str, common_name: str, organizations: Iterable[str] = (), hosts: Iterable[str] = ()) -> Pair:
        """Sign a new key pair and write FILE.crt and FILE.key.

        With `hosts` (names or addresses) the certificate serves as well as identifies a client,
        without only the latter.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_general_name(host) for host in hosts]
        subject = user_name(common_name, organizations)
        builder = _builder(subject, self._certificate.subject, key.public_key(), authority=False)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if names:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pair = Pair(self.directory / f"{file}.crt", self.directory / f"{file}.key")
        pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        write_private(pair.key, key_pem(key))
        return pair


def signing_keys(directory: Path) -> Pair:
    """The key pair for ServiceAccount tokens: sa.pub (in place of a certificate) and sa.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    pair = Pair(directory / "sa.pub", directory / "sa.key")
    pair.certificate.write_bytes(public)
    write_private(pair.key, key_pem(key))
    return pair


def signing_request(common_name: str, organizations: Iterable[str] = ()) -> tuple[bytes, bytes]:
    """A new key and a request for a certificate of that user: (key PEM, request PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(user_name(common_name, organizations))
    return key_pem(key), request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, *, authority: bool) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    return builder.add_extension(usage, critical=True)
