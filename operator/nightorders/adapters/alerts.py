"""The webhook for Alertmanager: who may signal, how much, and what it is answered. What becomes of an alert is the desk's business."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import structlog
from aiohttp import web

from .. import metrics
from ..api.meta import GROUP, line
from ..api.v1alpha1 import Incident
from ..domain.alerts import Notification, PayloadError, parse
from ..ports import ForbiddenError, PermanentError, PortError, TransientError, Unreadable
from .errors import translated
from .kube.client import JSON_TYPE, KubeClient
from .kube.client import parse as parse_answer
from .kube.stores import IncidentStore, _path, read_as

log = structlog.get_logger(__name__)

PATH = "/alertmanager"
AUDIENCE = f"{GROUP}/alerts"
VERB = "signal"
MAX_BYTES = 1024 * 1024
MAX_TOKEN = 16 * 1024
BODY_SECONDS = 10.0
REMEMBER_SECONDS = 60.0
REFUSED_SECONDS = 5.0  # a right that was just granted is soon seen
RETRY_SECONDS = 5
REVIEWS = 4
REQUESTS = 64


class AlertIncidentStore(IncidentStore):
    """Implements `AlertIncidents`."""

    async def episodes(self, namespace: str, label: str, value: str) -> list[Incident | Unreadable]:
        """An exact list: what another replica opened a moment ago must be seen."""
        answer = await self._call("GET", _path(Incident, namespace), query=(("labelSelector", f"{label}={value}"),))
        return [read_as(Incident, raw) for raw in answer.get("items") or ()]


@dataclass(frozen=True)
class Caller:
    """What is known of a token. `user` empty: nobody's. `because`: why it may not signal; empty: it may."""

    user: str
    because: str = ""


class TokenGate:
    """Asks the API server whose a token is and whether that account may signal; remembers the answer for at most a minute."""

    def __init__(self, client: KubeClient, *, remember: float = REMEMBER_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._remember = remember
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._reviews = asyncio.Semaphore(REVIEWS)  # who guesses tokens must not keep the API server busy through us

    async def look(self, token: str) -> Caller:
        """Raises PortError where the API server cannot be asked."""
        key = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        if (caller := self._recall(key)) is not None:
            return caller
        async with self._locks.setdefault(key, asyncio.Lock()), self._reviews:
            if (caller := self._recall(key)) is not None:
                return caller
            caller = await self._ask(token)
        lasts = REFUSED_SECONDS if caller.because or not caller.user else self._remember
        self._known[key] = (self._clock() + min(lasts, self._remember), caller)
        while len(self._known) > 1024:
            self._known.popitem(last=False)
        return caller

    def _recall(self, key: bytes) -> Caller | None:
        until, caller = self._known.get(key, (0.0, None))
        return caller if self._clock() < until else None

    async def _ask(self, token: str) -> Caller:
        review = await self._review("authentication.k8s.io", "TokenReview", "tokenreviews", {"token": token, "audiences": [AUDIENCE]})
        user = review.get("user") or {}
        name = str(user.get("username") or "")
        if review.get("authenticated") is not True or AUDIENCE not in (review.get("audiences") or ()) or not name:
            return Caller("")
        spec = {
            "user": name,
            "groups": user.get("groups") or [],
            "uid": user.get("uid") or "",
            "extra": user.get("extra") or {},
            "resourceAttributes": {"group": GROUP, "resource": "incidents", "verb": VERB},
        }
        allowed = (await self._review("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews", spec)).get("allowed") is True
        return Caller(name, "" if allowed else f"{line(name, 256)} lacks the verb {VERB} on incidents.{GROUP} in all namespaces")

    async def _review(self, group: str, kind: str, plural: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """The status of a review. It is no write: nothing is stored."""
        path = f"/apis/{group}/v1/{plural}"
        body = {"apiVersion": f"{group}/v1", "kind": kind, "spec": dict(spec)}
        with translated(f"POST {path}"):
            answer = await parse_answer(await self._client.request("POST", path, body=body, content_type=JSON_TYPE, seconds=5))
        status = answer.get("status")
        return status if isinstance(status, dict) else {}


class AlertServer:
    """`look` says whose a token is; `take` returns once every alert is stored, with what is wrong with those that are not."""

    def __init__(
        self,
        look: Callable[[str], Awaitable[Caller]],
        take: Callable[[Notification], Awaitable[tuple[str, ...]]],
        *,
        requests: int = REQUESTS,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._look = look
        self._take = take
        self._free = requests
        self._body_seconds = body_seconds
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listens; the port (0 chooses one). Raises OSError when it is taken."""
        app = web.Application()
        app.router.add_post(PATH, self._post)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Finishes what is under way, for at most five seconds."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _post(self, request: web.Request) -> web.Response:
        if self._free <= 0:
            answer = _said(503, "too many notifications are under way", {"Retry-After": str(RETRY_SECONDS)})  # counted, and no line each
        else:
            self._free -= 1
            try:
                answer = await self._answer(request)
            finally:
                self._free += 1
        metrics.ALERT_REQUESTS.labels(code=str(answer.status)).inc()
        return answer

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            caller = await self._caller(request)
            if not caller.user:
                return _said(
                    401,
                    f"header Authorization: Bearer and a ServiceAccount token for the audience {AUDIENCE} is expected",
                    {"WWW-Authenticate": "Bearer"},
                )
            if caller.because:
                return _said(403, caller.because)
            notification = parse(await self._payload(request))
            problems = await self._take(notification)
        except PayloadError as error:
            log.warning("notification refused", why=str(error))
            return _said(400, str(error))
        except TransientError as error:
            return _again(str(error))
        except PermanentError as error:
            log.error("the alerts of a notification cannot be stored", error=str(error))
            return _said(500, str(error))
        if problems:
            log.warning("alerts without an object to look at", problems=problems[:16])
            return _said(400, "\n".join(problems))
        return _said(200, f"alerts taken: {len(notification.alerts)}")

    async def _caller(self, request: web.Request) -> Caller:
        """Before a byte of the body is read. Raises TransientError where nobody can tell."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN:
            return Caller("")
        try:
            return await self._look(token)
        except ForbiddenError as error:  # our own right to ask is missing: the sender should try again once it is there
            log.error("tokens cannot be checked: apply manifests/base", error=str(error))
            raise TransientError(f"tokens cannot be checked: {error}") from None
        except PortError as error:
            raise TransientError(f"tokens cannot be checked: {error}") from None

    async def _payload(self, request: web.Request) -> object:
        too_long = PayloadError("body", f"at most {MAX_BYTES} bytes are taken; set max_alerts in the receiver's webhook_configs")
        if (request.content_length or 0) > MAX_BYTES:
            raise too_long
        content = bytearray()
        try:
            async with asyncio.timeout(self._body_seconds):
                async for chunk in request.content.iter_any():
                    content += chunk
                    if len(content) > MAX_BYTES:
                        raise too_long
        except TimeoutError:
            raise TransientError(f"the body did not arrive within {self._body_seconds:g} s") from None
        try:
            return json.loads(bytes(content))
        except (ValueError, RecursionError):
            raise PayloadError("body", "JSON is expected, as Alertmanager's webhook_configs send it") from None


def _again(why: str) -> web.Response:
    """Alertmanager sends again after a 5xx, and never after a 4xx."""
    log.warning("notification to be sent again", why=why)
    return _said(503, why, {"Retry-After": str(RETRY_SECONDS)})


def _said(code: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = "\n".join(line(part, 512) for part in text.splitlines()[:64]) + "\n"
    return web.Response(status=code, text=body, headers=dict(headers or {}))
