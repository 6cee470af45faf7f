"""`Metrics` over prometheus-api-client, whose calls block: each query runs in a thread of its own and gives an answer or a reason."""

from __future__ import annotations

import asyncio
import io
import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from ..api.meta import line
from ..domain.alertrules import ALERT_NAME, AlertRule, alive, is_that_alert, rules_for
from ..domain.promql import RefusedError, pinned
from ..domain.snapshot import Point, Vector
from ..ports import Sample, StillFiring

T = TypeVar("T")
_CHUNK = 65536
_RULES_BYTES = 8 * 1024 * 1024  # a server that cannot select by name sends all of its rules
_RULES = 4  # of one name that are evaluated; one of another name is none of ours
UNSET = "no Prometheus is configured (NIGHTORDERS_PROMETHEUS_URL)"


@dataclass(frozen=True)
class PrometheusSettings:
    """Where Prometheus is and how to reach it. Files are read for every query, because tokens and certificates rotate.

    `seconds`: limit of a whole query; `connect_seconds`: of its connection. `concurrent`: most checks at a time, and beside them most
    questions for a diagnosis, which have `question_seconds` each, the wait for a free place included.
    """

    url: str
    seconds: float = 10.0
    question_seconds: float = 3.0
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
        self._questions = asyncio.Semaphore(settings.concurrent)

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
                return Sample(await self._in_thread(lambda: number(_ask(settings, query, at, settings.seconds)), self._free_slot))
        except TimeoutError:
            return Sample(None, f"Prometheus did not answer within {settings.seconds:g} s")
        except _NoDataError as error:
            return Sample(None, line(str(error), 512))
        except Exception as error:  # noqa: BLE001  the port's promise: whatever a server sends, a check that cannot be answered is NoData
            return Sample(None, line(f"the query failed: {type(error).__name__}", 512))

    def _free_slot(self) -> None:
        self._slots += 1

    async def vector(self, promql: str, at: datetime, *, namespace: str) -> Vector:
        """Every series of that namespace, as of `at`. Never raises, and answers within the settings' `question_seconds`.

        Series whose value is no finite number, and histograms, are left out.
        """
        settings = self._settings
        try:
            query = pinned(promql, namespace)
            found = await self._question(lambda: points(_ask(settings, query, at, settings.question_seconds)))
        except RefusedError as refused:
            return Vector(promql, at, because=line(f"the query is not sent: {refused}", 512))
        except _NoDataError as error:
            return Vector(promql, at, because=line(str(error), 512))
        return Vector(query, at, found)

    async def alert_state(self, labels: Mapping[str, str], at: datetime, *, pods_of: str = "") -> StillFiring:
        """Whether the alert's own rule finds it now. Never raises, and answers within twice the settings' `question_seconds`."""
        name = labels.get(ALERT_NAME, "")
        try:
            async with asyncio.timeout(2 * self._settings.question_seconds):
                rules = await self._rules(labels)
                if not rules:
                    return StillFiring(None, line(f"Prometheus has no alerting rule {name} that makes an alert with these labels", 512))
                states = [await self._holds(rule, labels, at, pods_of) for rule in rules[:_RULES]]
        except TimeoutError:
            return StillFiring(None, line(f"the rule of {name} could not be looked at: Prometheus is too slow", 512))
        except (_NoDataError, ValueError) as error:
            return StillFiring(None, line(f"the rule of {name} could not be looked at: {error}", 512))
        for wanted in (True, None):  # one rule that holds is enough; one that cannot be told is no "no"
            if (first := next((s for s in states if s.firing is wanted), None)) is not None:
                return first
        return states[0]

    async def _rules(self, labels: Mapping[str, str]) -> tuple[AlertRule, ...]:
        settings = self._settings
        params = {"type": "alert", "rule_name[]": labels.get(ALERT_NAME, "")}
        answer = await self._question(lambda: _get(settings, "/api/v1/rules", params, settings.question_seconds))
        return rules_for(answer, labels)

    async def _holds(self, rule: AlertRule, labels: Mapping[str, str], at: datetime, pods_of: str) -> StillFiring:
        settings, shown = self._settings, f"rule {rule.name} ({line(rule.expr, 160)})"
        found = await self._question(lambda: series(_ask(settings, rule.expr, at, settings.question_seconds)))
        if any(is_that_alert(s, rule, labels, pods_of) for s in found):
            return StillFiring(True, line(f"Prometheus evaluated {shown}: it still holds for these labels", 512))
        if rule.error:
            return StillFiring(None, line(f"{shown} finds nothing, and Prometheus says that its last evaluation failed: {rule.error}", 512))
        ask = alive(rule, labels)
        behind = await self._question(lambda: series(_ask(settings, ask, at, settings.question_seconds))) if ask else ()
        if not behind:
            return StillFiring(
                None, line(f"{shown} finds nothing, but the series that it reads are not there either: it proves nothing", 512)
            )
        return StillFiring(False, line(f"Prometheus evaluated {shown}: it no longer holds for these labels", 512))

    async def _question(self, ask: Callable[[], T]) -> T:
        """The answer, waiting for a free place first. Raises _NoDataError and nothing else."""
        settings = self._settings
        if not settings.url:
            raise _NoDataError(UNSET)
        late = f"Prometheus did not answer within {settings.question_seconds:g} s"
        try:
            async with asyncio.timeout(settings.question_seconds):
                await self._questions.acquire()
                return await self._in_thread(ask, self._questions.release)
        except TimeoutError:
            raise _NoDataError(late) from None
        except _NoDataError:
            raise
        except Exception as error:  # noqa: BLE001  the port's promise: whatever a server sends, it was not looked at
            raise _NoDataError(f"the query failed: {type(error).__name__}") from None

    async def _in_thread(self, ask: Callable[[], T], free: Callable[[], None]) -> T:
        """Not an executor: the interpreter waits for an executor's threads when it ends, however long a server lets them hang.

        `free` is called when the thread has ended, which may be long after nobody waits for it any more.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def deliver(give: Callable[[], None]) -> None:
            free()
            if not future.done():  # somebody still waits
                give()

        def run() -> None:
            try:
                value = ask()
            except Exception as error:  # noqa: BLE001  it is raised again where somebody waits for it
                failure = error
                give = lambda: future.set_exception(failure)  # noqa: E731
            else:
                give = lambda: future.set_result(value)  # noqa: E731
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(deliver, give)

        threading.Thread(target=run, name="prometheus", daemon=True).start()
        return await future


def _ask(settings: PrometheusSettings, promql: str, at: datetime, seconds: float) -> Any:
    """The answer of /api/v1/query. Raises _NoDataError. Blocks."""
    params = {"query": promql, "time": f"{at.timestamp():.3f}", "timeout": f"{seconds:g}s"}

    def ask(prometheus: PrometheusConnect, _: _Session, limits: Any) -> None:
        prometheus.custom_query(promql, params=params, timeout=limits)

    return _call(settings, seconds, settings.max_bytes, ask)


def _get(settings: PrometheusSettings, path: str, params: Mapping[str, str], seconds: float) -> Any:
    """The answer of another part of the API. Raises _NoDataError. Blocks."""

    def ask(prometheus: PrometheusConnect, session: _Session, limits: Any) -> None:
        response = session.get(f"{prometheus.url}{path}", params=params, headers=prometheus.headers, timeout=limits)
        if response.status_code != requests.codes.ok:
            raise PrometheusApiClientException(f"HTTP Status Code {response.status_code} ({response.content[:200]!r})")

    return _call(settings, seconds, _RULES_BYTES, ask)


def _call(settings: PrometheusSettings, seconds: float, max_bytes: int, ask: Callable[[PrometheusConnect, _Session, Any], None]) -> Any:
    """What the server answered to `ask`. Raises _NoDataError. Blocks."""
    session = _Session(max_bytes, time.monotonic() + seconds)
    try:
        session.verify = str(settings.ca_file) if settings.ca_file else True
        if settings.client_cert_file:
            session.cert = (str(settings.client_cert_file), str(settings.client_key_file or settings.client_cert_file))
        headers = {"Authorization": f"Bearer {settings.token_file.read_text().strip()}"} if settings.token_file else {}
        prometheus = PrometheusConnect(
            url=settings.url.rstrip("/"), headers=headers, session=session, retry=Retry(0, redirect=0, raise_on_status=False)
        )
        ask(prometheus, session, (min(seconds, settings.connect_seconds), seconds))
    except PrometheusApiClientException as error:
        raise _NoDataError(_refusal(session.answer, str(error))) from None
    except (KeyError, TypeError, requests.exceptions.JSONDecodeError):
        raise _NoDataError("the answer is not what Prometheus sends") from None
    except requests.exceptions.SSLError as error:
        raise _NoDataError(f"no trusted connection to Prometheus: {_reason(error)}") from None
    except requests.exceptions.Timeout:
        raise _NoDataError(f"Prometheus did not answer within {seconds:g} s") from None
    except requests.exceptions.RequestException as error:
        raise _NoDataError(f"Prometheus cannot be reached: {_reason(error)}") from None
    except OSError as error:
        raise _NoDataError(f"Prometheus cannot be asked: {error.strerror or type(error).__name__} {error.filename or ''}") from None
    finally:
        session.close()
    return session.answer


def number(answer: Any) -> float:
    """The one finite number in an answer of /api/v1/query. Raises _NoDataError that says what stands there instead."""
    kind, result = _result(answer)
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


def points(answer: Any) -> tuple[Point, ...]:
    """The series of an answer of /api/v1/query that have a finite number. Raises _NoDataError for an answer that is none."""
    found = []
    for one in _vector(answer):
        with suppress(_NoDataError):  # a histogram, or NaN: there is no number to compare
            found.append(Point(_labels(one), _finite(one.get("value"))))
    return tuple(found)


def series(answer: Any) -> tuple[Mapping[str, str], ...]:
    """The labels of every series of an answer, whatever its value. Raises _NoDataError for an answer that is none."""
    return tuple(_labels(one) for one in _vector(answer))


def _vector(answer: Any) -> list[dict[str, Any]]:
    kind, result = _result(answer)
    if kind == "scalar":  # vector(1) written without vector(): one series without labels
        return [{"metric": {}, "value": result}]
    if kind != "vector" or not isinstance(result, list) or not all(isinstance(one, dict) for one in result):
        raise _NoDataError(f"the query gives a {kind}; a vector was asked for")
    return result


def _labels(one: dict[str, Any]) -> dict[str, str]:
    metric = one.get("metric")
    return {k: v for k, v in metric.items() if k != "__name__" and isinstance(v, str)} if isinstance(metric, dict) else {}


def _result(answer: Any) -> tuple[Any, Any]:
    """(resultType, result) of an answer of /api/v1/query. Raises _NoDataError."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, dict):
        raise _NoDataError("the answer is not what Prometheus sends")
    if warnings := answer.get("warnings"):  # Thanos says here that a store was away: the answer is of a part only
        raise _NoDataError(f"Prometheus warns about its own answer: {warnings[0] if isinstance(warnings, list) else warnings}")
    return data.get("resultType"), data.get("result")


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
