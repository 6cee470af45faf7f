"""Channels: what an address may say, what goes over the wire, and that no address is ever heard of again."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web

from nightorders.adapters.notifier import MOST_BYTES, MOST_CHANNELS, SCHEMES, AppriseNotifier, judge
from nightorders.ports import PermanentError, PortError, TransientError
from tests.unit.adapters.fake_api import FakeApi, always, serve

TOKEN = "A5ecretT0kenThatNobodyMaySee"
TITLE, BODY = "[Warning] shop Deployment/checkout: needs an approval", "What: it is <broken> & *late*\nLook: nightorders show inc -n shop"


@pytest.fixture(autouse=True)
def _heard(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever a test does: at the loudest level nothing that was logged or printed holds the token."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as ours:
        yield
    printed = capfd.readouterr()
    assert TOKEN not in printed.out + printed.err + caplog.text + repr(ours)


class Folder:
    """The mounted Secret."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def channel(self, name: str, address: str) -> None:
        (self.path / name).write_text(address)

    def notifier(self, **more: Any) -> AppriseNotifier:
        return AppriseNotifier(self.path, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def at(api: FakeApi, scheme: str = "gotify", query: str = "") -> str:
    return f"{scheme}://{api.url.removeprefix('http://')}/{TOKEN}{query}"


async def refusal(notifier: AppriseNotifier, channel: str = "oncall") -> PortError:
    with pytest.raises(PortError) as caught:
        await notifier.send(channel, TITLE, BODY)
    chain: list[BaseException | None] = [caught.value, caught.value.__cause__, caught.value.__context__]
    assert TOKEN not in repr(chain)
    assert "127.0.0.1" not in str(caught.value)
    return caught.value


# ---------------------------------------------------------------- over the wire


async def test_one_message_is_one_request_as_written(folder: Folder) -> None:
    async with serve() as api:
        api.default = always(lambda: web.json_response({"id": 1}))
        folder.channel("oncall", at(api, query="?priority=high") + "\n")
        assert folder.notifier().channels() == ("oncall",)
        await folder.notifier().send("oncall", TITLE, BODY)
        (asked,) = api.asked
    assert (asked.method, asked.path) == ("POST", "/message")
    assert asked.headers["X-Gotify-Key"] == TOKEN
    assert (asked.body["title"], asked.body["message"]) == (TITLE, BODY)
    assert asked.headers["User-Agent"] == "nightorders"


@pytest.mark.parametrize(("scheme", "path"), [("mmost", f"/hooks/{TOKEN}"), ("ntfy", "/"), ("rocket", None)])
async def test_other_services_on_http(folder: Folder, scheme: str, path: str | None) -> None:
    async with serve() as api:
        api.default = always(lambda: web.json_response({"status": "success", "data": {"authToken": "x", "userId": "y"}, "success": True}))
        address = at(api, scheme)
        folder.channel("oncall", address if scheme != "rocket" else f"rocket://user:{TOKEN}@{api.url.removeprefix('http://')}/room")
        await folder.notifier().send("oncall", TITLE, BODY)
        assert {a.method for a in api.asked} == {"POST"}
        if path is not None:
            assert [a.path for a in api.asked] == [path]


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (500, TransientError, "answers with 500"),
        (503, TransientError, "answers with 503"),
        (429, TransientError, "answers with 429"),
        (401, PermanentError, "refuses the message (401)"),
        (404, PermanentError, "refuses the message (404)"),
    ],
)
async def test_what_a_service_says(folder: Folder, code: int, kind: type[PortError], says: str) -> None:
    async with serve() as api:
        api.default = always(lambda: web.Response(status=code, text=f"no: {TOKEN}"))
        folder.channel("oncall", at(api))
        error = await refusal(folder.notifier())
    assert isinstance(error, kind)
    assert says in str(error)


@pytest.mark.parametrize("code", [301, 302, 307, 308])
@pytest.mark.threat(22)
async def test_a_redirect_is_not_followed(folder: Folder, code: int) -> None:
    async with serve() as elsewhere, serve() as api:
        elsewhere.default = always(lambda: web.json_response({}))
        api.default = always(lambda: web.Response(status=code, headers={"Location": f"{elsewhere.url}/caught"}))
        folder.channel("oncall", at(api))
        error = await refusal(folder.notifier())
        assert elsewhere.asked == []
        assert len(api.asked) == 1
    assert isinstance(error, PermanentError)
    assert f"redirect ({code})" in str(error)


async def test_nobody_listens(folder: Folder) -> None:
    folder.channel("oncall", f"gotify://127.0.0.1:1/{TOKEN}")
    error = await refusal(folder.notifier())
    assert isinstance(error, TransientError)
    assert "cannot be reached" in str(error)


@asynccontextmanager
async def raw_server(answer: bytes, *, every: float = 0.0):  # type: ignore[no-untyped-def]
    """A server that sends these bytes, one each `every` seconds."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.CancelledError):
            await reader.read(1)
            for i in range(0, len(answer), 1 if every else len(answer)):
                writer.write(answer[i : i + (1 if every else len(answer))])
                await writer.drain()
                await asyncio.sleep(every)
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.mark.threat(22)
async def test_a_server_that_drips_holds_nothing_up(folder: Folder) -> None:
    """Each byte comes before the library's own limit, which is one per read."""
    async with raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100, every=0.05) as port:
        folder.channel("oncall", f"gotify://127.0.0.1:{port}/{TOKEN}")
        folder.channel("other", f"gotify://127.0.0.1:1/{TOKEN}")
        notifier = folder.notifier(seconds=0.5)
        ticks, began = 0, time.monotonic()

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        error = await refusal(notifier)
        ticking.cancel()
        assert isinstance(error, TransientError)
        assert "did not answer within 0.5 s" in str(error)
        assert time.monotonic() - began < 3
        assert ticks > 10  # the loop went on
        assert "still under way" in str(await refusal(notifier))  # one at a time per channel
        assert "cannot be reached" in str(await refusal(notifier, "other"))
    async with asyncio.timeout(20):  # the thread ends with its server, and the channel is free again
        while "still under way" in str(await refusal(notifier)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.threat(22)
async def test_malformed_headers_do_not_write_the_address_into_the_log(folder: Folder) -> None:
    """urllib3 warns about them with the whole URL."""
    async with raw_server(b"HTTP/1.1 500 no\r\nbad header\r\nContent-Length: 0\r\n\r\n") as port:
        folder.channel("oncall", f"mmost://127.0.0.1:{port}/{TOKEN}")
        await refusal(folder.notifier())


def test_a_hanging_server_does_not_keep_the_process(tmp_path: Path) -> None:
    script = f"""
import asyncio, socket
from pathlib import Path
from nightorders.adapters.notifier import AppriseNotifier
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
Path({str(tmp_path)!r}, "oncall").write_text(f"gotify://127.0.0.1:{{s.getsockname()[1]}}/t")
async def main():
    try:
        await AppriseNotifier(Path({str(tmp_path)!r}), seconds=0.2).send("oncall", "t", "b")
    except Exception as error:
        print(type(error).__name__)
asyncio.run(main())
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "TransientError\n"
    assert time.monotonic() - began < 30


# ---------------------------------------------------------------- what an address may say

FINE = [
    f"slack://T1JJ3T3L2/A1BRTD4JD/{TOKEN[:24]}/#oncall",
    f"mailtos://user:{TOKEN}@mail.example.com?from=a@example.com&to=b@example.com&smtp=relay.example.com",
    f"workflows://prod.example.com:443/643e69268de6ad/{TOKEN}?ver=2016-06-01",
    "pagerduty://" + "a" * 32 + "@" + "b" * 20 + "?region=eu",
    "opsgenie://a1b2c3d4-aaaa-bbbb-cccc-aaaaaaaaaaaa?priority=P1",
    f"discord://4174216298/{TOKEN}?thread=123",
    "tgram://123456789:abcdefg_hijklmnop/-100123?topic=5",
    f"mmosts://chat.example.com/{TOKEN}?channel=oncall",
    f"mmost://chat.chat.svc:8065/{TOKEN}",
    f"rockets://user:{TOKEN}@chat.example.com/room",
    f"gotifys://push.example.com/{TOKEN}?priority=high",
    "ntfys://ntfy.example.com/topic?priority=high",
    f"ntfy://{TOKEN}@ntfy.ntfy.svc/topic",
    f"gchat://workspace/key/{TOKEN}",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # what the library's mail imports for PGP
@pytest.mark.parametrize("address", FINE, ids=[a.partition(":")[0] for a in FINE])
def test_fine(address: str) -> None:
    assert judge(address) == ""


@pytest.mark.threat(22)
def test_every_scheme_is_tried() -> None:
    rest = {"gotify", "rocket"}  # the same plugin as with s
    assert {a.partition(":")[0] for a in FINE} | rest == set(SCHEMES)


REFUSED = [
    # what runs, writes or reads on this machine, and what sends whatever one likes
    "json://h/x", "jsons://h/x?method=DELETE", "xml://h", "form://h", "forms://h", "apprise://h/x", "apprises://h/x",
    "syslog://", "rsyslog://h", "dbus://", "gnome://", "glib://", "windows://", "macosx://", "file:///etc/passwd", "config://x",
    "https://hooks.slack.com/services/T/B/X", "http://h/x", "mailto://u:p@h", "mqtt://h/x", "mytype://x", "matrixs://u:p@h",
    # headers, methods, redirects, certificates, files and pages that are loaded, on schemes that are allowed
    "gotify://h/t?+X-Header=1", "gotify://h/t?-X-Header=1", "gotify://h/t?:X=1", "gotify://h/t?%2BX=1", "gotify://h/t?method=PUT",
    "gotify://h/t?redirect=yes", "gotifys://h/t?verify=no", "gotify://h/t?priority=high;redirect=yes", "gotify://h/t?priority=1?+X=1",
    "gotify://h/t?PRIORITY=1", "gotify://h/t?priority=high&&redirect=yes", "gotify://h/t?&redirect=yes", "gotify://h/t? +X=1",
    "ntfy://h/t?attach=http://169.254.169.254/", "ntfy://h/t?actions=http,x,http://h", "ntfy://h/t?click=http://h", "ntfy://h/t?email=a@b.c",
    "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ?template=/etc/passwd", "discord://1/2?template=http://h", "discord://1/2?avatar_url=http://h",
    "opsgenie://a1b2c3d4-aaaa-bbbb-cccc-aaaaaaaaaaaa?action=delete", "opsgenie://a1b2c3d4-aaaa-bbbb-cccc-aaaaaaaaaaaa?+alert=x",
    "pagerduty://a@b?action=resolve", "mailtos://u:p@h?mode=insecure", "mailtos://u:p@h?+Bcc=x@y.z", "mailtos://u:p@h?pgppub=/etc/passwd",
    "gotify://h/t?rto=9999", "gotify://h/t?retry=10", "gotify://h/t?format=markdown", "gotify://h/t?user=x", "gotify://h/t?port=22",
    # what is no single plain address
    "", " ", "oncall", "gotify://", "gotify:///", "gotify://h", "gotify://h/t gotify://h/t", "gotify://h/t\ngotify://h/u", "gotify://h/t,json://h",
    "gotify://h/t%0d%0aX-Header:%201", "gotify://h/t%250a", "gotify://h/t%00", "gotify://h/tö", "GOTIFY://h/t", "\x00gotify://h/t",
]  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
@pytest.mark.threat(22)
def test_refused(address: str) -> None:
    why = judge(address)
    if address == "gotify://h/t,json://h":
        assert why == ""  # one address with an odd token: the library is never given a list
        return
    assert why
    for part in ("169.254", "passwd", "Header", "TIiajk", "a1b2c3d4", "hooks.slack.com"):
        assert part not in why


@pytest.mark.threat(22)
async def test_a_comma_does_not_make_a_second_address(folder: Folder) -> None:
    async with serve() as api, serve() as second:
        api.default = second.default = always(lambda: web.json_response({}))
        folder.channel("oncall", at(api) + "," + second.url.replace("http", "json"))
        with suppress(PortError):
            await folder.notifier().send("oncall", TITLE, BODY)
        assert second.asked == []


@pytest.mark.threat(22)
async def test_a_refused_address_is_never_asked(folder: Folder) -> None:
    async with serve() as api:
        api.default = always(lambda: web.json_response({}))
        folder.channel("oncall", at(api, query="?+X-Header=1"))
        error = await refusal(folder.notifier())
        assert api.asked == []
    assert isinstance(error, PermanentError)
    assert str(error) == "its address has a parameter that is not allowed; allowed for gotify: priority"


@pytest.mark.threat(22)
def test_only_the_modules_that_are_named_are_loaded() -> None:
    """A lookup by scheme in the library loads all of its 140 plugins."""
    script = (
        "import sys; from nightorders.adapters.notifier import judge; print(repr(judge('gotify://h/t')));"
        "print(sum(m.startswith('apprise.plugins.') for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    said, count = done.stdout.split()
    assert said == "''"
    assert int(count) < 6


# ---------------------------------------------------------------- the folder


async def test_without_a_folder_there_are_no_channels(tmp_path: Path) -> None:
    for nothing in (None, tmp_path / "none"):
        notifier = AppriseNotifier(nothing)
        assert notifier.channels() == ()
        with pytest.raises(PermanentError, match="adds the key oncall to Secret nightorders-channels \\(defined: none\\)"):
            await notifier.send("oncall", TITLE, BODY)


@pytest.mark.threat(22)
def test_bad_files_are_named_and_harm_no_other(folder: Folder) -> None:
    folder.channel("good", f"gotify://h/{TOKEN}")
    folder.channel("parameter", f"gotify://h/{TOKEN}?verify=no")
    folder.channel("scheme", f"json://h/{TOKEN}")
    folder.channel("incomplete", "gotify://h")
    folder.channel("long", f"gotify://h/{TOKEN * 100}")
    folder.channel("empty", "")
    (folder.path / "binary").write_bytes(b"\xff\xfe\x00" + TOKEN.encode())
    (folder.path / "folder").mkdir()
    (folder.path / "not a name").write_text(f"gotify://h/{TOKEN}")
    (folder.path / "..data").write_text(f"gotify://h/{TOKEN}")
    (folder.path / "dangling").symlink_to(folder.path / "gone")
    notifier = folder.notifier()
    assert notifier.channels() == ("good",)
    problems = notifier.problems()
    assert sorted(problems) == ["binary", "dangling", "empty", "folder", "incomplete", "long", "parameter", "scheme"]
    assert problems["long"] == f"its address is longer than {MOST_BYTES} bytes"
    assert TOKEN not in repr(problems)
    assert notifier.problem("unknown").endswith("(defined: good)")


def test_a_problem_is_logged_once_and_again_when_it_changed(folder: Folder) -> None:
    folder.channel("oncall", f"json://h/{TOKEN}")
    notifier = folder.notifier()
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            notifier.problems()
        folder.channel("oncall", "")
        notifier.problems()
        folder.channel("oncall", f"gotify://h/{TOKEN}")
        assert notifier.problems() == {}
    assert [entry["channel"] for entry in logs] == ["oncall", "oncall"]


async def test_the_kubelet_may_replace_a_file_at_any_time(folder: Folder) -> None:
    async with serve() as api:
        api.default = always(lambda: web.json_response({}))
        notifier = folder.notifier()
        assert "not defined" in str(await refusal(notifier))
        folder.channel("oncall", "nonsense")
        assert "no address of one line" in str(await refusal(notifier))
        folder.channel("oncall", at(api))
        await notifier.send("oncall", TITLE, BODY)
        assert len(api.asked) == 1


def test_more_channels_than_anybody_needs(folder: Folder) -> None:
    for n in range(MOST_CHANNELS + 1):
        folder.channel(f"c{n:03}", f"gotify://h/{TOKEN}")
    assert len(folder.notifier().channels()) == MOST_CHANNELS
    assert folder.notifier().problem(f"c{MOST_CHANNELS:03}") == f"more than {MOST_CHANNELS} channels"


async def test_threads_end(folder: Folder) -> None:
    async with serve() as api:
        api.default = always(lambda: web.json_response({}))
        folder.channel("oncall", at(api))
        for _ in range(5):
            await folder.notifier().send("oncall", TITLE, BODY)
    await asyncio.sleep(0.1)
    gc.collect()
    assert not [t for t in threading.enumerate() if t.name.startswith("notify-")]
