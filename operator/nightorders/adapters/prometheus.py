"""`Metrics` over prometheus-api-client, whose calls block: each query runs in a thread of its own and gives one number or a reason."""

from __future__ import annotations

import asyncio
import io
import json
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from ..api.meta import line
from ..domain.promql import RefusedError, pinned
from ..ports import Sample

_CHUNK = 65536


@dataclass(frozen=True)
class PrometheusSettings:
    """Where Prometheus is and how to reach it. Files are read for every query, because tokens and certificates rotate.

    `seconds`: limit of a whole query; `connect_seconds`: of its connection. `concurrent`: most queries at a time.
    """

    url: str
    seconds: float = 10.0
    connect_seconds: float = 3.0
    ca_file: Path | None = None
    token_file: Path | None = None
    client_cert_file: Path | None = None
    client_key_file: Path | None = None
    max_bytes: int = 1024 * 1024
    concurrent: int = 4


class _NoDataError(Exception):
    """There is no number; the text says why."""


class _Session(requests.Session):
    """Reads no more than `max_bytes` and no longer than until `deadline` (monotonic); keeps the answer, whose type the library drops."""

    def __init__(self, max_bytes: int, deadline: float) -> None:
        super().__init__()
        self.trust_env = False  # no proxy and no .netrc between us and Prometheus that nobody configured here
        self._max_bytes = max_bytes
        self._deadline = deadline
        self.answer: Any = None

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        response = super().request(*args, **(kwargs | {"stream": True, "allow_redirects": False}))
        try:
            content = self._read(response)
        finally:
            response.raw.release_conn()
            response.close()
        response.raw = io.BytesIO(content)  # what the library reads from here on
        with suppress(ValueError, RecursionError):
            self.answer = json.loads(content)
        return response

    def _read(self, response: requests.Response) -> bytes:
        content = b""
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            content += chunk
            if len(content) > self._max_bytes:
                raise _NoDataError(f"the answer is longer than {self._max_bytes} bytes")
            if time.monotonic() > self._deadline:
                raise _NoDataError("the answer does not end in time")
        return content


class PrometheusMetrics:
    """Implements `Metrics`."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings
        self._slots = settings.concurrent

    async def query(self, promql: str, at: datetime, *, namespace: str) -> Sample:
        """One number, as of `at`, of that namespace. Never raises, and answers within the settings' `seconds`."""
        settings = self._settings
        try:
            query = pinned(promql, namespace)
        except RefusedError as refused:
            return Sample(None, line(f"the query is not sent: {refused}", 512))
        if self._slots <= 0:  # threads that hang on a dead server are not joined by more
            return Sample(None, f"{settings.concurrent} queries are under way already, and Prometheus does not answer them")
        self._slots -= 1
        try:
            async with asyncio.timeout(settings.seconds):
                return Sample(await self._in_thread(lambda: _ask(settings, query, at)))
        except TimeoutError:
            return Sample(None, f"Prometheus did not answer within {settings.seconds:g} s")
        except _NoDataError as error:
            return Sample(None, line(str(error), 512))
        except Exception as error:  # noqa: BLE001  the port's promise: whatever a server sends, a check that cannot be answered is NoData
            return Sample(None, line(f"the query failed: {type(error).__name__}", 512))

    async def _in_thread(self, ask: Callable[[], float]) -> float:
        """Not an executor: the interpreter waits for an executor's threads when it ends, however long a server lets them hang."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[float] = loop.create_future()

        def deliver(value: float, error: BaseException | None) -> None:
            self._slots += 1
            if future.done():  # nobody waits any more
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        def run() -> None:
            value, failure = math.nan, None
            try:
                value = ask()
            except Exception as error:  # noqa: BLE001  it is raised again where somebody waits for it
                failure = error
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(deliver, value, failure)

        threading.Thread(target=run, name="prometheus", daemon=True).start()
        return await future


def _ask(settings: PrometheusSettings, promql: str, at: datetime) -> float:
    """The number. Raises _NoDataError. Blocks."""
    session = _Session(settings.max_bytes, time.monotonic() + settings.seconds)
    try:
        session.verify = str(settings.ca_file) if settings.ca_file else True
        if settings.client_cert_file:
            session.cert = (str(settings.client_cert_file), str(settings.client_key_file or settings.client_cert_file))
        headers = {"Authorization": f"Bearer {settings.token_file.read_text().strip()}"} if settings.token_file else {}
        prometheus = PrometheusConnect(
            url=settings.url.rstrip("/"), headers=headers, session=session, retry=Retry(0, redirect=0, raise_on_status=False)
        )
        limits: Any = (settings.connect_seconds, settings.seconds)
        prometheus.custom_query(promql, params={"time": f"{at.timestamp():.3f}", "timeout": f"{settings.seconds:g}s"}, timeout=limits)
    except PrometheusApiClientException as error:
        raise _NoDataError(_refusal(session.answer, str(error))) from None
    except (KeyError, TypeError, requests.exceptions.JSONDecodeError):
        raise _NoDataError("the answer is not what Prometheus sends") from None
    except requests.exceptions.SSLError as error:
        raise _NoDataError(f"no trusted connection to Prometheus: {_reason(error)}") from None
    except requests.exceptions.Timeout:
        raise _NoDataError(f"Prometheus did not answer within {settings.seconds:g} s") from None
    except requests.exceptions.RequestException as error:
        raise _NoDataError(f"Prometheus cannot be reached: {_reason(error)}") from None
    except OSError as error:
        raise _NoDataError(f"Prometheus cannot be asked: {error.strerror or type(error).__name__} {error.filename or ''}") from None
    finally:
        session.close()
    return number(session.answer)


def number(answer: Any) -> float:
    """The one finite number in an answer of /api/v1/query. Raises _NoDataError that says what stands there instead."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, dict):
        raise _NoDataError("the answer is not what Prometheus sends")
    if warnings := answer.get("warnings"):  # Thanos says here that a store was away: the number is of a part only
        raise _NoDataError(f"Prometheus warns about its own answer: {warnings[0] if isinstance(warnings, list) else warnings}")
    kind, result = data.get("resultType"), data.get("result")
    if kind == "scalar":
        return _finite(result)
    if kind != "vector" or not isinstance(result, list):
        raise _NoDataError(f"the query gives a {kind}; a check needs one number")
    if not result:
        raise _NoDataError("no data: the query matches no series now")
    if len(result) > 1:
        raise _NoDataError(f"the query gives {len(result)} series; a check needs one number (sum or max them)")
    one = result[0]
    if not isinstance(one, dict) or "value" not in one:
        raise _NoDataError("the query gives a histogram; a check needs one number")
    return _finite(one["value"])


def _finite(pair: Any) -> float:
    try:
        _, text = pair
        value = float(text)
    except (TypeError, ValueError):
        raise _NoDataError("the answer is not what Prometheus sends") from None
    if not math.isfinite(value):
        raise _NoDataError(f"the query gives {text}, which is no number to compare with (often a division by zero)")
    return value


def _refusal(answer: Any, text: str) -> str:
    if isinstance(answer, dict) and answer.get("status") == "error":
        return f"Prometheus refuses the query: {answer.get('errorType')}: {answer.get('error')}"
    return f"Prometheus answers with an error: {text}"


def _reason(error: Exception) -> str:
    return str(error).rstrip("'\")> ").rsplit(": ", 1)[-1]
