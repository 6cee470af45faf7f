"""A few requests to an API server over one connection, with nothing but the standard library.

kubectl takes a quarter of a second per call, which would be most of the time that a cluster needs to start.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class ApiError(Exception):
    """An answer other than 2xx."""

    def __init__(self, status: int, body: bytes, what: str) -> None:
        self.status = status
        self.body = body
        try:
            text = json.loads(body)["message"]
        except (ValueError, KeyError, TypeError):
            text = body.decode(errors="replace")[:300]
        super().__init__(f"{what}: {status} {text}")


class Api:
    """An API server as one user, by client certificate. Not for use by several threads at once."""

    def __init__(self, server: str, authority: Path, certificate: Path, key: Path, timeout: float = 10) -> None:
        where = urllib.parse.urlsplit(server)
        self._host, self._port = where.hostname or "", where.port or 443
        self._timeout = timeout
        self._context = ssl.create_default_context(cafile=str(authority))
        self._context.load_cert_chain(certificate, key)
        self._connection: http.client.HTTPSConnection | None = None

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        # Short-lived use without a `close` is fine, and must not end in a warning about a socket.
        if getattr(self, "_connection", None) is not None:
            self.close()

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> dict[str, Any]:
        """One request; the decoded JSON answer, {} for an answer that is no JSON object.

        Raises ApiError for a refusal, OSError or http.client.HTTPException when there is no answer.
        """
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if payload is not None else {}
        if self._connection is not None:
            try:
                return self._exchange(self._connection, method, path, payload, headers)
            except (ConnectionError, http.client.HTTPException):
                self.close()
                # The server may have closed an idle connection, or have been restarted. Whether a write
                # was done is for the caller to find out.
                if method != "GET":
                    raise
        return self._exchange(self._connect(self._timeout), method, path, payload, headers)

    def _exchange(
        self, connection: http.client.HTTPSConnection, method: str, path: str, payload: bytes | None, headers: dict[str, str]
    ) -> dict[str, Any]:
        """Ask and read the answer; the connection is kept for the next request when that went well."""
        self._connection = connection
        try:
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
            content = response.read()
        except BaseException:
            self.close()
            raise
        if not 200 <= response.status < 300:
            raise ApiError(response.status, content, f"{method} {path}")
        try:
            answer = json.loads(content)
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) else {}

    def get(self, path: str) -> dict[str, Any]:
        """GET; see `request`."""
        return self.request("GET", path)

    def post(self, path: str, body: Any) -> dict[str, Any]:
        """POST; see `request`."""
        return self.request("POST", path, body)

    def watch(self, path: str, silence: float) -> Iterator[dict[str, Any]]:
        """The events of a watch (`path` holds the query), until the server ends it.

        Raises TimeoutError when nothing comes for `silence` seconds, ApiError for a refusal.
        """
        connection = self._connect(silence)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status != 200:
                raise ApiError(response.status, response.read(), f"WATCH {path}")
            while line := response.readline():
                yield json.loads(line)
        finally:
            connection.close()

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._context)
