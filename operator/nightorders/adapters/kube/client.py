"""One connection to one API server: requests in, bytes or port-neutral exceptions out.

`kubernetes.aio` gives credentials, TLS and the session; its generated models are not used, because turning 5,000 pods into them takes
seconds and drops fields that it does not know. It has no type hints worth the name, so its `Any` stays inside this file.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client as _untyped_client
from kubernetes.aio import config as _untyped_config
from kubernetes.aio.client.exceptions import ApiException

from ... import __version__
from ...api.meta import line
from ...ports import PermanentError
from ..errors import AnswerTooLargeError

FIELD_MANAGER = "nightorders"
MERGE_PATCH = "application/merge-patch+json"
JSON_TYPE = "application/json"
STRICT = (("fieldValidation", "Strict"), ("fieldManager", FIELD_MANAGER))

Query = Sequence[tuple[str, str]]

aio_client: Any = _untyped_client
aio_config: Any = _untyped_config

_TOKEN_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_CONNECT_SECONDS = 10.0
# An API server closes idle connections after 90 s. aiohttp's own 15 s would make every Incident pay for a round of TLS handshakes.
_KEEP_ALIVE_SECONDS = 75.0
# Longer than this and parsing would be felt by everything else on the event loop.
_PARSE_APART_BYTES = 256 * 1024


def segment(name: str) -> str:
    """`name` as one path segment. Raises PermanentError for what would be another path (`..`, a slash): names come from users."""
    if not name or name in (".", "..") or "/" in name or "%" in name:
        raise PermanentError(f"{line(name, 64)!r} cannot be the name of an object")
    return quote(name, safe="")


def target_of(path: str, query: Query = ()) -> str:
    """Path and query as they go over the wire, and as evidence quotes them."""
    return f"{path}?{urlencode(query)}" if query else path


class KubeClient:
    """Requests to the API server, each with a time limit (seconds) and a size limit (bytes).

    No retries: whoever calls decides. (aiohttp sends a GET or PUT once more when a kept connection turns out to be dead; our PUTs are
    conditional, so the second one meets a conflict if the first was done. A PATCH is never sent twice.)
    """

    def __init__(self, configuration: Any, *, seconds: float = 30.0, max_bytes: int = 128 * 1024 * 1024) -> None:
        self._api: Any = aio_client.ApiClient(configuration)
        self._api.user_agent = f"nightorders/{__version__}"
        rest = self._api.rest_client
        rest._create_connector = lambda: aiohttp.TCPConnector(limit=100, ssl=rest.ssl_context, keepalive_timeout=_KEEP_ALIVE_SECONDS)
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._closed = False

    @classmethod
    async def connect(
        cls, *, kubeconfig: str | None = None, context: str | None = None, seconds: float = 30.0, max_bytes: int = 128 * 1024 * 1024
    ) -> Self:
        """From that kubeconfig and context; without both, from inside a cluster, else from $KUBECONFIG or ~/.kube/config.

        Raises PermanentError when there is no usable configuration.
        """
        configuration: Any = aio_client.Configuration()
        try:
            if not kubeconfig and not context and _inside_a_cluster():
                aio_config.load_incluster_config(client_configuration=configuration)
            else:
                where = kubeconfig or os.environ.get("KUBECONFIG") or aio_config.KUBE_CONFIG_DEFAULT_LOCATION
                await aio_config.load_kube_config(
                    config_file=where, context=context or None, client_configuration=configuration, persist_config=False
                )
        except (aio_config.ConfigException, OSError, ValueError, KeyError, TypeError) as error:
            raise PermanentError(line(f"no usable Kubernetes configuration: {error}", 256)) from None
        return cls(configuration, seconds=seconds, max_bytes=max_bytes)

    async def close(self) -> None:
        self._closed = True
        await self._api.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON_TYPE,
        seconds: float | None = None,
    ) -> bytes:
        """The body of a 2xx answer. Raises what `adapters.errors.EXTERNAL` lists."""
        seconds = seconds or self._seconds
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, _CONNECT_SECONDS))
        async with asyncio.timeout(seconds + 1):  # aiohttp's clock starts with the request; fetching a token comes before
            response = await self._open(method, path, query, body, content_type, limits)
            try:
                content = await self._read(response)
            except BaseException:
                response.close()
                raise
        if not 200 <= response.status <= 299:
            raise _refused(response, content)
        return content

    async def stream(self, path: str, query: Query) -> aiohttp.ClientResponse:
        """An answer without an end (a watch). The caller closes it, and minds its silence: no time limit holds once it began."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        async with asyncio.timeout(self._seconds):
            response = await self._open("GET", path, query, None, JSON_TYPE, limits)
            if response.status == 200:
                return response
            try:
                content = await self._read(response)
            finally:
                response.close()
        raise _refused(response, content)

    async def _open(
        self, method: str, path: str, query: Query, body: Mapping[str, Any] | None, content_type: str, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        if self._closed:  # aiohttp's own answer to this is a RuntimeError, which nobody takes for a failed request
            raise ConnectionError("the client is closed")
        headers = {"Accept": JSON_TYPE} | ({"Content-Type": content_type} if body is not None else {})
        method, url, headers, data, form = await self._api.param_serialize(
            method, path, header_params=headers, body=None if body is None else dict(body), auth_settings=["BearerToken"]
        )
        answer = await self._api.call_api(method, target_of(url, query), headers, data, form, _request_timeout=limits)
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while chunk := await next_chunk(response):
            size += len(chunk)
            if size > self._max_bytes:
                raise AnswerTooLargeError(f"more than {self._max_bytes // 1048576} MiB")
            chunks.append(chunk)
        return b"".join(chunks)


async def next_chunk(response: aiohttp.ClientResponse) -> bytes:
    """What has arrived; empty at the end. Raises what `adapters.errors.EXTERNAL` lists."""
    try:
        return await response.content.readany()
    except RuntimeError:  # aiohttp's word for a connection that was closed under us
        raise ConnectionError("the connection is gone") from None


def _inside_a_cluster() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and _TOKEN_FILE.exists()


def _refused(response: aiohttp.ClientResponse, content: bytes) -> ApiException:
    error = ApiException(status=response.status, reason=response.reason, body=content.decode("utf-8", "replace"))
    error.headers = response.headers
    return error


def _keep(node: dict[str, Any]) -> dict[str, Any]:
    return node


def _drop_managed_fields(node: dict[str, Any]) -> dict[str, Any]:
    if isinstance(node.get("managedFields"), list):  # a label of that name would be a string
        del node["managedFields"]
    return node


def parse_now(content: bytes, drop_managed_fields: bool) -> dict[str, Any]:
    """The JSON object in `content`. Raises ValueError."""
    # The hook is Python: between two objects the interpreter can serve the event loop. Without it json.loads holds the
    # interpreter lock from the first byte to the last, in whatever thread it runs.
    value = json.loads(content, object_hook=_drop_managed_fields if drop_managed_fields else _keep)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


async def parse(content: bytes, *, drop_managed_fields: bool = False) -> dict[str, Any]:
    """The JSON object in an answer; long ones are parsed beside the event loop. Raises ValueError."""
    if len(content) < _PARSE_APART_BYTES:
        return parse_now(content, drop_managed_fields)
    return await asyncio.to_thread(parse_now, content, drop_managed_fields)
