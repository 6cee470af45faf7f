"""`Notifier` over apprise: the platform's channels, one file each, from a mounted Secret. The file's name is the channel's, its content an address.

What the library's source says (2.2), and what follows from it here (threats.md 22). A parameter of an address can set headers or fields
(`+name=`, `-name=`, `:name=`), the method (`method=` of json, xml and form), load a file or a page into the message (`template=`,
`attach=`), switch redirects on (`redirect=`) and the check of certificates off (`verify=`), or write another host (`smtp=` is such
a one, and wanted). So parameters are named per scheme, and everything else is refused. Redirects are followed unless the asset says no,
and would carry the token to wherever they point. A failure's reason is only in the library's log, which also holds addresses: of it
nothing but the status code is taken.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import structlog

from ..ports import PermanentError, TransientError

log = structlog.get_logger(__name__)
SECONDS = 15.0
MOST_BYTES = 2048
MOST_CHANNELS = 64
SECRET = "Secret nightorders-channels"  # noqa: S105  a name


@dataclass(frozen=True)
class Service:
    """Where the library has it, and the only parameters that an address of it may have."""

    module: str
    name: str
    parameters: frozenset[str] = frozenset()


def _service(module: str, name: str, *parameters: str) -> Service:
    return Service(module, name, frozenset(parameters))


_MATTERMOST = _service("mattermost", "NotifyMattermost", "channel", "channels", "to")
_ROCKET = _service("rocketchat", "NotifyRocketChat", "avatar", "to", "webhook")
_GOTIFY = _service("gotify", "NotifyGotify", "priority")
_NTFY = _service("ntfy", "NotifyNtfy", "priority", "to", "token")
# http is there for servers of one's own inside the cluster only; the services of others speak https whatever one writes.
SCHEMES = {
    "discord": _service("discord", "NotifyDiscord", "thread"),
    "gchat": _service("google_chat", "NotifyGoogleChat"),
    "gotify": _GOTIFY,
    "gotifys": _GOTIFY,
    "mailtos": _service("email", "NotifyEmail", "bcc", "cc", "from", "name", "reply", "smtp", "to"),
    "mmost": _MATTERMOST,
    "mmosts": _MATTERMOST,
    "ntfy": _NTFY,
    "ntfys": _NTFY,
    "opsgenie": _service("opsgenie", "NotifyOpsgenie", "priority", "region", "tags", "to"),
    "pagerduty": _service("pagerduty", "NotifyPagerDuty", "class", "component", "group", "region", "severity", "source"),
    "rocket": _ROCKET,
    "rockets": _ROCKET,
    "slack": _service("slack", "NotifySlack", "to"),
    "tgram": _service("telegram", "NotifyTelegram", "silent", "thread", "to", "topic"),
    "workflows": _service("workflows", "NotifyWorkflows", "api-version", "pa", "powerautomate", "route", "ver"),
}
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_ADDRESS = re.compile(r"([a-z0-9]{1,16})://([\x21-\x7e]+)")
_PARAMETER = re.compile(r"[a-z][a-z-]{0,31}")
_CONTROL = re.compile(r"%(?:25)*(?:[01][0-9a-f]|7f)", re.IGNORECASE)  # also escaped more than once
_CODE = re.compile(r"\berror=([1-5][0-9][0-9])\b")


class AppriseNotifier:
    """Implements `Notifier`. Files are read again for every message, because the kubelet refreshes them."""

    def __init__(self, directory: Path | None, *, seconds: float = SECONDS) -> None:
        self._directory = directory
        self._seconds = seconds
        self._under_way: set[str] = set()
        self._told: dict[str, str] = {}

    def channels(self) -> tuple[str, ...]:
        """Names of the channels that can be used."""
        return tuple(name for name, why in self._look().items() if not why)

    def problems(self) -> dict[str, str]:
        """Channels that are defined and cannot be used, and why. A new problem is logged once."""
        found = {name: why for name, why in self._look().items() if why}
        for name, why in found.items():
            if self._told.get(name) != why:
                log.warning("a notification channel cannot be used", channel=name, problem=why)
        self._told = found
        return found

    def problem(self, channel: str) -> str:
        """Why this channel cannot be used, and what to do; empty: it can."""
        found = self._look()
        if channel not in found:
            defined = ", ".join(name for name, why in found.items() if not why) or "none"
            return f"channel {channel} is not defined; the platform team adds the key {channel} to {SECRET} (defined: {defined})"
        return found[channel]

    async def send(self, channel: str, title: str, body: str) -> None:
        """See `Notifier.send`."""
        if why := self.problem(channel):
            raise PermanentError(why)
        if channel in self._under_way:
            raise TransientError(f"the message before to channel {channel} is still under way")
        address = self._address(channel)
        self._under_way.add(channel)
        try:
            async with asyncio.timeout(self._seconds):
                await self._in_thread(channel, address, title, body)
        except TimeoutError:
            raise TransientError(f"channel {channel} did not answer within {self._seconds:g} s") from None

    async def _in_thread(self, channel: str, address: str, title: str, body: str) -> None:
        """Not an executor: the interpreter waits for an executor's threads when it ends, however long a server lets them hang."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def deliver(failure: Exception | None) -> None:
            self._under_way.discard(channel)
            if future.done():  # nobody waits any more
                return
            if failure is None:
                future.set_result(None)
            else:
                future.set_exception(failure)

        def run() -> None:
            failure: Exception | None = None
            try:
                _notify(channel, address, title, body)
            except (PermanentError, TransientError) as told:
                failure = told
            except Exception as error:  # noqa: BLE001  its text and its traceback may hold the address
                failure = TransientError(f"channel {channel}: the library failed with {type(error).__name__}")
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(deliver, failure)

        threading.Thread(target=run, name=f"notify-{channel}", daemon=True).start()
        await future

    # ------------------------------------------------------------ the files

    def _look(self) -> dict[str, str]:
        """Every channel file → why it cannot be used (empty: it can)."""
        if self._directory is None:
            return {}
        try:
            names = sorted(p.name for p in self._directory.iterdir() if not p.name.startswith("."))  # ..data is the kubelet's own
        except OSError:
            return {}  # the Secret is optional, and without it the folder may be missing
        found = {name: self._judge(name) for name in names[:MOST_CHANNELS] if _NAME.fullmatch(name)}
        return found | {name: f"more than {MOST_CHANNELS} channels" for name in names[MOST_CHANNELS:] if _NAME.fullmatch(name)}

    def _judge(self, name: str) -> str:
        try:
            return judge(self._address(name))
        except PermanentError as error:
            return str(error)

    def _address(self, name: str) -> str:
        assert self._directory is not None
        try:
            with (self._directory / name).open("rb") as file:
                content = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise PermanentError(f"its file cannot be read: {error.strerror or type(error).__name__}") from None
        if len(content) > MOST_BYTES:
            raise PermanentError(f"its address is longer than {MOST_BYTES} bytes")
        return content.decode("ascii", "replace").strip()


@lru_cache(maxsize=2 * MOST_CHANNELS)
def judge(address: str) -> str:
    """Why this address is refused, in words that hold nothing of it but its scheme; empty: it is fine."""
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return "its content is no address of one line such as slack://…"
    scheme, rest = found.groups()
    service = SCHEMES.get(scheme)
    if service is None:
        return f"its scheme is not allowed; allowed are {', '.join(SCHEMES)}"
    if _CONTROL.search(rest):
        return "its address has an escaped control character"
    allowed = f"allowed for {scheme}: {', '.join(sorted(service.parameters)) or 'none'}"
    for pair in re.split("[&;?]", rest.partition("?")[2]) if "?" in rest else []:
        key = pair.partition("=")[0]
        if not _PARAMETER.fullmatch(key) or key not in service.parameters:
            return f"its address has a parameter that is not allowed; {allowed}"
    return _try(scheme, address)


def _try(scheme: str, address: str) -> str:
    """What the library itself makes of it: what it reads must be what was judged, and it must have all that it needs."""
    try:
        read = _plugin(scheme).parse_url(address)
        if not read or read["schema"] != scheme:
            return f"it is no address that {scheme} understands"
        if set(read["qsd"]) - SCHEMES[scheme].parameters or read["qsd+"] or read["qsd-"] or read["qsd:"]:
            return "its address has a parameter that is not allowed"
        _made(scheme, address)
    except Exception as error:  # noqa: BLE001  its text holds parts of the address
        return f"it is no complete address for {scheme} ({type(error).__name__})"
    return ""


def _plugin(scheme: str) -> Any:
    """The library's class. Only its one module is loaded: a lookup by scheme would load all 140, and take 20 MiB."""
    _silence()
    return getattr(import_module(f"apprise.plugins.{SCHEMES[scheme].module}"), SCHEMES[scheme].name)


def _made(scheme: str, address: str) -> Any:
    """The library's object."""
    plugin = _plugin(scheme)
    from apprise import AppriseAsset

    asset = AppriseAsset(
        app_id="nightorders",
        app_desc="nightorders",
        app_url="",
        http_redirects=False,
        async_mode=False,
        service_timeout=0,  # with a limit the library would use an executor
        storage_mode="memory",
        pgp_autogen=False,
        pem_autogen=False,
        image_url_mask="",
        image_path_mask="",
        language="en",
    )
    return plugin(**plugin.parse_url(address), asset=asset)


def _notify(channel: str, address: str, title: str, body: str) -> None:
    """Blocks. Raises PermanentError or TransientError."""
    service = _made(address.partition("://")[0], address)
    from apprise import Apprise, NotifyFormat, NotifyType

    # FAILURE: some services close an alert on anything milder.
    result = Apprise([service], asset=service.asset).notify(
        body=body, title=title, notify_type=NotifyType.FAILURE, body_format=NotifyFormat.TEXT
    )
    if result:
        return
    said = [entry.message for entry in result.logs()]
    codes = [int(code) for text in said for code in _CODE.findall(text)]
    if not codes:
        raise TransientError(f"channel {channel} cannot be reached, or did not take the message")
    code = codes[-1]
    if 300 <= code < 400:
        raise PermanentError(f"channel {channel} answers with a redirect ({code}), which is not followed: correct its address")
    if 400 <= code < 500 and code not in (408, 425, 429):
        raise PermanentError(f"channel {channel} refuses the message ({code}): its address or token may be wrong")
    raise TransientError(f"channel {channel} answers with {code}")


def _silence() -> None:
    """The library writes addresses into its log, and urllib3 the whole URL when a server's headers are malformed."""
    quiet = logging.getLogger("apprise")
    quiet.propagate = False
    quiet.setLevel(logging.WARNING)  # what it notes above this it keeps for us, and nothing else hears it
    if not quiet.handlers:
        quiet.addHandler(logging.NullHandler())
    logging.getLogger("urllib3").setLevel(logging.ERROR)
