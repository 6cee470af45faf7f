"""The webhook: who may signal, how much at a time, and answers that make Alertmanager do the right thing."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web

from nightorders.adapters.alerts import AUDIENCE, MAX_BYTES, PATH, AlertIncidentStore, AlertServer, Caller, TokenGate
from nightorders.api.v1alpha1 import Incident
from nightorders.domain.alerts import Notification
from nightorders.ports import ForbiddenError, PermanentError, TransientError, Unreadable
from tests.unit.adapters.fake_api import FakeApi, connected, status

pytestmark = pytest.mark.asyncio

TOKENS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
ACCOUNT = "system:serviceaccount:nightorders-system:nightorders-alertmanager"


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def body(**more: Any) -> bytes:
    alert = {"status": "firing", "labels": {"alertname": "x", "namespace": "shop"}, "startsAt": "2026-05-04T11:55:00Z", **more}
    return json.dumps({"version": "4", "alerts": [alert]}).encode()


async def anybody(token: str) -> Caller:
    return Caller("ann")


class Desk:
    def __init__(self) -> None:
        self.taken: list[Notification] = []
        self.answer: Callable[[], Awaitable[tuple[str, ...]]] | None = None

    async def take(self, notification: Notification) -> tuple[str, ...]:
        self.taken.append(notification)
        return await self.answer() if self.answer is not None else ()


@asynccontextmanager
async def serving(desk: Desk, look: Callable[[str], Awaitable[Caller]] = anybody, **options: Any) -> AsyncIterator[Callable[..., Any]]:
    server = AlertServer(look, desk.take, **options)
    port = await server.start("127.0.0.1", 0)

    async def post(content: Any = None, token: str = "t", **more: Any) -> tuple[int, str, Any]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}{more.pop('path', PATH)}"
            async with session.post(
                url,
                data=io.BytesIO(content) if isinstance(content, bytes) else content or body(),
                headers={**headers, **more.pop("headers", {})},
            ) as r:
                return r.status, await r.text(), r.headers

    try:
        yield post
    finally:
        await server.stop()


async def test_a_notification_is_taken() -> None:
    desk = Desk()
    async with serving(desk) as post:
        code, text, _ = await post()
        assert (code, text) == (200, "alerts taken: 1\n")
        assert desk.taken[0].alerts[0].name == "x"
        assert (await post(path="/other"))[0] == 404


async def test_thanks_come_only_after_it_is_stored() -> None:
    desk = Desk()
    stored = asyncio.Event()

    async def slow() -> tuple[str, ...]:
        await stored.wait()
        return ()

    desk.answer = slow
    async with serving(desk) as post:
        asking = asyncio.create_task(post())
        await asyncio.sleep(0.1)
        assert not asking.done()
        stored.set()
        assert (await asking)[0] == 200


@pytest.mark.parametrize(
    ("failure", "code"),
    [(TransientError("too many"), 503), (PermanentError("422 invalid"), 500), (ForbiddenError("no"), 500)],
)
async def test_what_cannot_be_stored_is_sent_again(failure: Exception, code: int) -> None:
    desk = Desk()

    async def fails() -> tuple[str, ...]:
        raise failure

    desk.answer = fails
    async with serving(desk) as post:
        got, text, headers = await post()
        assert got == code
        assert str(failure) in text
        assert ("Retry-After" in headers) is (code == 503)


async def test_an_alert_without_an_object_is_a_400_that_names_it() -> None:
    desk = Desk()

    async def problem() -> tuple[str, ...]:
        return ("alerts[0].labels: x names no namespace",)

    desk.answer = problem
    async with serving(desk) as post:
        assert (await post())[:2] == (400, "alerts[0].labels: x names no namespace\n")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"", "body: JSON"),
        (b"{", "body: JSON"),
        (b"[" * 100_000, "body: JSON"),
        (b"\xff\xfe", "body: JSON"),
        (b"[]", "body: a JSON object"),
        (b'{"version":"3"}', "version: "),
        (body(status="odd"), "alerts[0].status: "),
        (b" " * (MAX_BYTES + 1), f"body: at most {MAX_BYTES} bytes"),
    ],
)
async def test_bad_input_is_refused_by_field(content: bytes, names: str) -> None:
    desk = Desk()
    async with serving(desk) as post:
        code, text, _ = await post(content)
        assert code == 400
        assert text.startswith(names)
        assert desk.taken == []


async def test_a_body_of_unknown_length_is_cut_off() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    desk = Desk()
    async with serving(desk) as post:
        try:
            code, _, _ = await post(endless())
        except aiohttp.ClientError:
            code = 400  # the connection was closed under the sender
        assert code == 400
        assert desk.taken == []


async def test_a_body_that_drips_holds_nobody_up() -> None:
    async def drips() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" "
            await asyncio.sleep(0.1)

    desk = Desk()
    async with serving(desk, body_seconds=0.3) as post:
        try:
            async with asyncio.timeout(3):
                code, _, _ = await post(drips())
        except aiohttp.ClientError:
            code = 503
        assert code == 503
        assert (await post())[0] == 200


async def test_too_many_requests_at_a_time_are_sent_back() -> None:
    desk = Desk()
    let_go = asyncio.Event()

    async def hold() -> tuple[str, ...]:
        await let_go.wait()
        return ()

    desk.answer = hold
    async with serving(desk, requests=1) as post:
        first = asyncio.create_task(post())
        while not desk.taken:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await post())[0] == 503
        let_go.set()
        assert (await first)[0] == 200
        assert (await post())[0] == 200


async def test_without_a_good_token_nothing_is_read() -> None:
    desk = Desk()
    asked: list[str] = []

    async def look(token: str) -> Caller:
        asked.append(token)
        if token == "down":
            raise TransientError("no answer in time")
        if token == "unable":
            raise ForbiddenError("tokenreviews is forbidden")
        return {"good": Caller("ann"), "weak": Caller("bob", "bob lacks the verb signal")}.get(token, Caller(""))

    async with serving(desk, look) as post:
        for token, code in (("good", 200), ("weak", 403), ("bad", 401), ("", 401), ("down", 503), ("unable", 503)):
            assert (await post(token=token))[0] == code, token
        assert len(desk.taken) == 1
        code, text, headers = await post(token="bad")
        assert headers["WWW-Authenticate"] == "Bearer"
        assert AUDIENCE in text
        asked.clear()
        assert (await post(token="", headers={"Authorization": "Basic Z29vZDpnb29k"}))[0] == 401
        assert (await post(token="", headers={"Authorization": "Bearer " + "x" * 7000}))[0] == 401
        assert (await post(token="", headers={"Authorization": "bearer  good"}))[0] == 200
        assert asked[-1] == "good"


# ---------------------------------------------------------------- whose token it is


class Reviews:
    """Answers of the API server to reviews."""

    def __init__(self, api: FakeApi) -> None:
        self.token: dict[str, Any] = {
            "authenticated": True,
            "audiences": [AUDIENCE],
            "user": {"username": ACCOUNT, "uid": "7", "groups": ["system:serviceaccounts"], "extra": {"k": ["v"]}},
        }
        self.allowed: dict[str, Any] = {"allowed": True}
        self.api = api
        api.on("POST", TOKENS, self._tokens)
        api.on("POST", ACCESS, self._access)

    async def _tokens(self, _: web.Request) -> web.Response:
        return web.json_response({"status": self.token})

    async def _access(self, _: web.Request) -> web.Response:
        return web.json_response({"status": self.allowed})


async def test_a_token_is_asked_for_its_audience_and_its_account_for_the_verb() -> None:
    async with connected() as (api, client):
        Reviews(api)
        assert await TokenGate(client).look("secret") == Caller(ACCOUNT)
        token, access = api.asked
        assert token.body["spec"] == {"token": "secret", "audiences": [AUDIENCE]}
        assert access.body["spec"] == {
            "user": ACCOUNT,
            "uid": "7",
            "groups": ["system:serviceaccounts"],
            "extra": {"k": ["v"]},
            "resourceAttributes": {"group": "nightorders.dev", "resource": "incidents", "verb": "signal"},
        }


@pytest.mark.parametrize(
    "answer",
    [
        {"authenticated": False},
        {"authenticated": True, "user": {"username": ACCOUNT}},
        {"authenticated": True, "audiences": ["https://kubernetes.default.svc"], "user": {"username": ACCOUNT}},
        {"authenticated": "true", "audiences": [AUDIENCE], "user": {"username": ACCOUNT}},
        {"authenticated": True, "audiences": [AUDIENCE], "user": {}},
        {},
    ],
)
async def test_a_token_of_nobody_or_for_another_audience(answer: dict[str, Any]) -> None:
    async with connected() as (api, client):
        Reviews(api).token = answer
        assert await TokenGate(client).look("secret") == Caller("")
        assert len(api.asked) == 1


async def test_an_account_without_the_verb() -> None:
    async with connected() as (api, client):
        reviews = Reviews(api)
        for allowed in ({"allowed": False}, {}, {"allowed": "yes"}):
            reviews.allowed = allowed
            caller = await TokenGate(client).look("secret")
            assert caller.user == ACCOUNT
            assert "lacks the verb signal" in caller.because


async def test_answers_are_remembered_for_a_minute_and_refusals_for_a_moment() -> None:
    now = 100.0
    async with connected() as (api, client):
        reviews = Reviews(api)
        gate = TokenGate(client, clock=lambda: now)
        await asyncio.gather(*(gate.look("secret") for _ in range(10)))
        assert len(api.asked) == 2
        now += 59
        await gate.look("secret")
        assert len(api.asked) == 2
        now += 2
        reviews.allowed = {"allowed": False}
        assert (await gate.look("secret")).because
        reviews.allowed = {"allowed": True}
        now += 6
        assert not (await gate.look("secret")).because
        assert all("secret" not in repr(k) for k in gate._known)


async def test_an_api_server_that_fails_is_no_refusal_and_not_remembered() -> None:
    async with connected() as (api, client):
        gate = TokenGate(client)

        async def down(_: web.Request) -> web.StreamResponse:
            return status(500, "InternalError", "etcd is away")

        api.on("POST", TOKENS, down)
        with pytest.raises(TransientError):
            await gate.look("secret")

        async def forbidden(_: web.Request) -> web.StreamResponse:
            return status(403, "Forbidden", "tokenreviews is forbidden")

        api.on("POST", TOKENS, forbidden)
        with pytest.raises(ForbiddenError):
            await gate.look("secret")
        Reviews(api)
        assert (await gate.look("secret")).user == ACCOUNT


async def test_episodes_are_listed_by_label_and_exactly() -> None:
    async with connected() as (api, client):
        good = {
            "apiVersion": "nightorders.dev/v1alpha1",
            "kind": "Incident",
            "metadata": {"name": "a-1", "namespace": "shop", "uid": "u", "resourceVersion": "1"},
            "spec": {"target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
        }
        odd = {**good, "metadata": {"name": "a-2", "namespace": "shop"}, "spec": {"newField": 1}}

        async def answer(_: web.Request) -> web.Response:
            return web.json_response({"items": [good, odd]})

        api.default = answer
        found = await AlertIncidentStore(client).episodes("shop", "nightorders.dev/alert", "k")
        assert [type(f) for f in found] == [Incident, Unreadable]
        assert api.asked[0].path.endswith("/namespaces/shop/incidents")
        assert api.asked[0].query == {"labelSelector": "nightorders.dev/alert=k"}
