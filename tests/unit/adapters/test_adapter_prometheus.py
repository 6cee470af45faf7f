"""Metrics: one number, or why there is none; never an exception, never a blocked event loop, never longer than the limit."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from nightorders.adapters.prometheus import PrometheusMetrics, PrometheusSettings
from nightorders.ports import Sample
from tests.unit.adapters.fake_api import FakeApi, always, serve

pytestmark = pytest.mark.asyncio

AT = datetime(2026, 1, 2, 3, 4, 5, 500000, tzinfo=UTC)


def success(kind: str, result: Any, **more: Any) -> Callable[[], web.Response]:
    return lambda: web.json_response({"status": "success", "data": {"resultType": kind, "result": result}, **more})


def vector(*values: str) -> list[dict[str, Any]]:
    return [{"metric": {"pod": f"p{i}"}, "value": [1767323045.5, value]} for i, value in enumerate(values)]


def text_answer(text: str, code: int = 200) -> Callable[[], web.Response]:
    return lambda: web.Response(text=text, status=code, content_type="application/json")


def metrics(api: FakeApi, **settings: Any) -> PrometheusMetrics:
    return PrometheusMetrics(PrometheusSettings(**{"url": api.url + "/", "seconds": 2.0, **settings}))


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (success("vector", vector("0.25")), 0.25),
        (success("vector", vector("0")), 0.0),
        (success("vector", vector("-1e3")), -1000.0),
        (success("scalar", [1767323045.5, "7"]), 7.0),
        (success("vector", vector("1"), infos=["metric might not be a counter"]), 1.0),
    ],
)
async def test_one_number(answer: Callable[[], web.Response], value: float) -> None:
    async with serve() as api:
        api.default = always(answer)
        assert await metrics(api).query('sum(up{namespace="shop"})', AT, namespace="shop") == Sample(value)
        (asked,) = api.asked
        assert asked.path == "/api/v1/query"
        assert asked.query == {"query": 'sum(up{namespace="shop"})', "time": f"{AT.timestamp():.3f}", "timeout": "2s"}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (success("vector", []), "no data: the query matches no series"),
        (success("vector", vector("1", "2", "3")), "3 series"),
        (success("vector", vector("NaN")), "gives NaN"),
        (success("vector", vector("+Inf")), "gives +Inf"),
        (success("scalar", [1, "-Inf"]), "gives -Inf"),
        (success("string", [1, "42"]), "gives a string"),
        (success("matrix", [{"metric": {}, "values": [[1, "2"]]}]), "gives a matrix"),
        (success("vector", [{"metric": {}, "histogram": [1, {}]}]), "histogram"),
        (success("vector", vector("1"), warnings=["store 10.0.0.1 is away"]), "store 10.0.0.1 is away"),
        (success("vector", [{"metric": {}, "value": [1]}]), "not what Prometheus sends"),
        (success("vector", [{"metric": {}, "value": [1, "x"]}]), "not what Prometheus sends"),
        (success("vector", [7]), "histogram"),
        (success("vector", None), "gives a vector"),
        (text_answer("{}"), "not what Prometheus sends"),
        (text_answer("[]"), "not what Prometheus sends"),
        (text_answer('{"data": 7}'), "not what Prometheus sends"),
        (text_answer("<html>login</html>"), "not what Prometheus sends"),
        (text_answer(""), "not what Prometheus sends"),
        (text_answer("[" * 100_000), "failed: RecursionError"),
        (
            text_answer('{"status":"error","errorType":"bad_data","error":"1:5: parse error"}', 400),
            "refuses the query: bad_data: 1:5: parse error",
        ),
        (text_answer('{"status":"error","errorType":"timeout","error":"query timed out"}', 503), "timeout: query timed out"),
        (text_answer("oh no", 500), "HTTP Status Code 500"),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "HTTP Status Code 302"),
        (text_answer(json.dumps({"status": "error", "error": "\x1b[31m\u202e" + "x" * 9000}), 422), "refuses the query"),
    ],
)
async def test_no_number_says_why(answer: Callable[[], web.Response], says: str) -> None:
    async with serve() as api:
        api.default = always(answer)
        sample = await metrics(api).query("up", AT, namespace="shop")
        assert sample.value is None
        assert says in sample.message
        assert len(sample.message) <= 512
        assert not set(sample.message) & {"\x1b", "\n", "\u202e"}
        assert len(api.asked) == 1  # no retry: they would multiply the limit


async def test_unreachable() -> None:
    sample = await PrometheusMetrics(PrometheusSettings(url="http://127.0.0.1:1")).query("up", AT, namespace="shop")
    assert sample.value is None
    assert "cannot be reached" in sample.message
    assert "refused" in sample.message
    for url in ("nonsense", "http://", "http://user:hunter2@127.0.0.1:1", "ftp://x", ""):
        sample = await PrometheusMetrics(PrometheusSettings(url=url)).query("up", AT, namespace="shop")
        assert sample.value is None
        assert sample.message
        assert "hunter2" not in sample.message


async def sleepy(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(20)
    return web.Response()


async def dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(1000):
        await response.write(b" ")
        await asyncio.sleep(0.05)
    return response


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(1000):
        await response.write(b"x" * 65536)
    return response


@pytest.mark.parametrize(("handler", "says"), [(sleepy, "within 1 s"), (dripping, "within 1 s")])
async def test_slow_answers_end_in_time_and_block_nothing(handler: Any, says: str) -> None:
    async with serve() as api:
        api.default = handler
        longest, began = 0.0, time.monotonic()
        asking = asyncio.create_task(metrics(api, seconds=1.0).query("up", AT, namespace="shop"))
        while not asking.done():
            tick = time.monotonic()
            await asyncio.sleep(0.005)
            longest = max(longest, time.monotonic() - tick)
        sample = asking.result()
        assert sample.value is None
        assert says in sample.message
        assert time.monotonic() - began < 4
        assert longest < 0.7


async def test_huge_answers_are_cut() -> None:
    async with serve() as api:
        api.default = endless
        sample = await metrics(api, max_bytes=200_000).query("up", AT, namespace="shop")
        assert sample.message == "the answer is longer than 200000 bytes"


async def test_a_compressed_bomb_is_cut_by_what_it_unpacks_to() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    async with serve() as api:
        api.default = always(lambda: web.Response(body=bomb, headers={"Content-Encoding": "gzip"}))
        assert "longer than" in (await metrics(api, max_bytes=200_000).query("up", AT, namespace="shop")).message


async def answered(asking: PrometheusMetrics) -> None:
    for _ in range(200):
        if (await asking.query("up", AT, namespace="shop")).value == 1.0:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no place came back")


async def test_hanging_queries_do_not_pile_up_threads_and_come_back() -> None:
    async with serve() as api:
        api.default = sleepy
        asking = metrics(api, seconds=0.3, concurrent=2)
        before = threading.active_count()
        samples = await asyncio.gather(*(asking.query("up", AT, namespace="shop") for _ in range(10)))
        assert all(s.value is None for s in samples)
        assert sum("under way already" in s.message for s in samples) == 8
        assert threading.active_count() <= before + 2
        api.default = always(success("vector", vector("1")))
        await answered(asking)  # the threads end by their own read limit


async def test_a_cancelled_query_gives_its_place_back() -> None:
    async with serve() as api:
        api.default = sleepy
        asking = metrics(api, seconds=0.5, concurrent=1)
        task = asyncio.create_task(asking.query("up", AT, namespace="shop"))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        api.default = always(success("vector", vector("1")))
        await answered(asking)


async def test_the_token_is_read_for_every_query(tmp_path: Path) -> None:
    token = tmp_path / "token"
    async with serve() as api:
        api.default = always(success("vector", vector("1")))
        asking = metrics(api, token_file=token)
        assert "cannot be asked" in (await asking.query("up", AT, namespace="shop")).message
        for text in ("one\n", "two"):
            token.write_text(text)
            assert (await asking.query("up", AT, namespace="shop")).value == 1.0
        assert [a.headers["Authorization"] for a in api.asked] == ["Bearer one", "Bearer two"]


async def test_an_untrusted_certificate_is_no_data(tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_text("not a certificate")
    sample = await PrometheusMetrics(PrometheusSettings(url="https://127.0.0.1:1", ca_file=ca)).query("up", AT, namespace="shop")
    assert sample.value is None
    assert sample.message


async def test_the_interpreter_does_not_wait_for_a_hanging_query() -> None:
    code = (
        "import asyncio, datetime as dt, sys\n"
        "from nightorders.adapters.prometheus import *\n"
        "asking = PrometheusMetrics(PrometheusSettings(url=sys.argv[1], seconds=1.0)).query('up', dt.datetime.now(dt.UTC), namespace='shop')\n"
        "print(asyncio.run(asking).message)\n"
    )

    async def headers_without_end(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(95):  # each within the read limit, so the thread is in there for 47 s
                writer.write(b"X-%d: y\r\n" % number)
                await writer.drain()
                await asyncio.sleep(0.5)
        writer.close()

    server = await asyncio.start_server(headers_without_end, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        began = time.monotonic()
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code, url], capture_output=True, text=True, timeout=30, check=True
        )
        assert "did not answer" in done.stdout
        assert time.monotonic() - began < 10
