"""Kubeconfig files. They are written as JSON, which is YAML, and are readable by their owner only."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.cluster.pki import Pair, write_private

_CONTEXT = "nightorders-test"


@dataclass(frozen=True)
class Endpoint:
    """An API server, as the `cluster` entry of a kubeconfig: server, certificate-authority-data, ..."""

    entry: dict[str, Any]

    @classmethod
    def of(cls, server: str, authority: bytes) -> Endpoint:
        """The server at that URL, whose certificate was signed by that authority (PEM)."""
        return cls({"server": server, "certificate-authority-data": _base64(authority)})


def with_certificate(path: Path, endpoint: Endpoint, user: str, pair: Pair) -> Path:
    """Write the kubeconfig of a user who shows a client certificate. Returns the path."""
    return with_certificate_data(path, endpoint, user, pair.certificate.read_bytes(), pair.key.read_bytes())


def with_certificate_data(path: Path, endpoint: Endpoint, user: str, certificate: bytes, key: bytes) -> Path:
    """The same with the PEM contents in place of files."""
    credentials = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
    return _write(path, endpoint, user, credentials)


def with_token(path: Path, endpoint: Endpoint, user: str, token: str) -> Path:
    """Write the kubeconfig of a user who shows a bearer token. Returns the path."""
    return _write(path, endpoint, user, {"token": token})


def file_stem(name: str, groups: Iterable[str] = ()) -> str:
    """A file name for a user: any user name is allowed in Kubernetes ("auth0|bob", "a/b").

    Readable, and different for different users or groups.
    """
    readable = urllib.parse.quote(name, safe="")[:60].replace("%", "_")
    distinct = hashlib.sha256(json.dumps([name, sorted(groups)]).encode()).hexdigest()[:8]
    return f"{readable}-{distinct}"


def _write(path: Path, endpoint: Endpoint, user: str, credentials: dict[str, Any]) -> Path:
    context = {"cluster": _CONTEXT, "user": user, "namespace": "default"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": _CONTEXT, "cluster": endpoint.entry}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": _CONTEXT, "context": context}],
        "current-context": _CONTEXT,
    }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return write_private(path, json.dumps(document).encode())


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
