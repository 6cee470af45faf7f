"""Users of a cluster whose certificate authority is not ours: it signs on request (CSR API)."""

from __future__ import annotations

import base64
import time
from pathlib import Path

from tools.cluster import kubeconfig
from tools.cluster.base import KubectlCluster
from tools.cluster.errors import ClusterError
from tools.cluster.pki import signing_request

_SIGNER = "kubernetes.io/kube-apiserver-client"
_SECONDS = 30.0
_VALID_SECONDS = 24 * 3600


class SigningCluster(KubectlCluster):
    """A cluster that makes users through its own API."""

    def user(self, name: str, *groups: str) -> Path:
        """See `Cluster.user`. Raises ClusterError when the cluster does not sign the certificate."""
        stem = kubeconfig.file_stem(name, groups)
        # Names of such requests are names of DNS, those of users are anything.
        request_name = f"nightorders-test-{stem.rpartition('-')[2]}"
        key, request = signing_request(name, groups)
        certificate = self._sign(request_name, request)
        path = self._files / "users" / f"{stem}.kubeconfig"
        return kubeconfig.with_certificate_data(path, self._endpoint(), name, certificate, key)

    def _sign(self, name: str, request: bytes) -> bytes:
        """The signed certificate, PEM."""
        # The same user may have been asked for before, and requests cannot be changed.
        self.kubectl("delete", "csr", name, "--ignore-not-found")
        spec = {
            "signerName": _SIGNER,
            "request": base64.b64encode(request).decode(),
            "usages": ["client auth"],
            "expirationSeconds": _VALID_SECONDS,
        }
        kind = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
        self.apply({**kind, "metadata": {"name": name}, "spec": spec})
        self.kubectl("certificate", "approve", name)
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            found = self.kubectl("get", "csr", name, "--output=jsonpath={.status.certificate}").stdout
            if found:
                return base64.b64decode(found)
            time.sleep(0.1)
        raise ClusterError(f"{self.name} did not sign the certificate of {name} within {_SECONDS:.0f} s")
