"""What the network and the API server throw → the port errors.

Two rules. Error texts are cut and cleaned, because a 422 can echo the whole object, values of environment variables included; and the
original exception is not chained, because its text *is* that echo and a traceback would print it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
from kubernetes.aio.client.exceptions import ApiException

from ..api.meta import line
from ..ports import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    PermanentError,
    PortError,
    TransientError,
)

Write = Literal["", "create", "update"]

# What a call to the API server can throw that is not a bug of ours. TimeoutError and SSLError are OSErrors; ValueError is no JSON.
EXTERNAL = (ApiException, aiohttp.ClientError, OSError, ValueError)

MESSAGE_LIMIT = 512


class AnswerTooLargeError(ValueError):
    """The answer is longer than we are ready to hold in memory; it will be so again."""


# `is forbidden: ` / `is invalid: ` in front: the rest of the text is the API server's own, not a name that somebody chose.
_DENIED = re.compile(
    r"is (?:forbidden|invalid): ValidatingAdmissionPolicy '([^']+)' with binding '([^']+)' denied request: (.*)", re.DOTALL
)
# `Invalid value: <the value>: what is wrong with it`, with the value as a quoted string, JSON, or Go syntax.
_ECHO = re.compile(
    r'((?:Invalid|Unsupported|Duplicate) value|Forbidden|Too long|Too many|Required value): ?(?:"(?:[^"\\]|\\.)*"|[\w.&*]*[{\[].*[}\]])',
    re.DOTALL,
)
# The API server answers 500 to an object that its storage refuses for its size; the same object will be refused again.
_TOO_LARGE = re.compile(r"request is too large|larger than max|entity too large", re.IGNORECASE)


@dataclass(frozen=True)
class Status:
    """The parts of an answer that is not 2xx: a metav1.Status, or whatever else stood there."""

    code: int
    reason: str
    message: str
    details: Mapping[str, Any]

    @property
    def policy(self) -> str:
        """The ValidatingAdmissionPolicy that refused, if one did."""
        found = _DENIED.search(self.message)
        return found[1] if found else ""

    @property
    def kind_missing(self) -> bool:
        """A 404 that speaks of the path and not of an object: the kind is not served (its CRD is not there)."""
        return self.code == 404 and not self.details.get("name")


def status_of(error: ApiException) -> Status:
    """The answer inside an ApiException. Never raises, whatever a proxy put in front of the API server."""
    body = error.body or ""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict) or parsed.get("kind") != "Status":
        return Status(int(error.status or 0), "", str(body)[:MESSAGE_LIMIT] or str(error.reason or ""), {})
    details = parsed.get("details")
    return Status(
        int(error.status or 0),
        str(parsed.get("reason") or ""),
        str(parsed.get("message") or ""),
        details if isinstance(details, dict) else {},
    )


def without_echo(message: str) -> str:
    """`message` without the values that the API server quotes in it."""
    return _ECHO.sub(r"\1", message)


def readable(status: Status) -> str:
    """One safe line that says what was wrong: the fields of a 422, else the message; no quoted values."""
    if denied := _DENIED.search(status.message):
        return line(f"ValidatingAdmissionPolicy {denied[1]}: {denied[3]}", MESSAGE_LIMIT)
    causes = [c for c in status.details.get("causes") or [] if isinstance(c, dict) and c.get("field")]
    parts = list(dict.fromkeys(f"{c['field']}: {without_echo(str(c.get('message') or ''))}" for c in causes))
    return line("; ".join(parts[:4]) or without_echo(status.message), MESSAGE_LIMIT)


def port_error(error: Exception, what: str, *, write: Write = "") -> PortError:
    """The port error for `error`. `what` names the call; `write` says whether the call creates, updates or only reads."""
    unknown = "; the outcome is unknown" if write else ""
    if isinstance(error, ApiException):
        return _answered(status_of(error), what, write, unknown)
    if isinstance(error, PortError):
        return error
    if isinstance(error, aiohttp.InvalidURL):
        return PermanentError(f"{what}: not a valid address")
    if isinstance(error, aiohttp.ClientConnectorError):  # no byte was sent
        return TransientError(line(f"{what}: cannot connect: {error}", MESSAGE_LIMIT))
    if isinstance(error, TimeoutError):
        return TransientError(f"{what}: no answer in time{unknown}")
    if isinstance(error, AnswerTooLargeError):
        return PermanentError(f"{what}: the answer is too large: {error}{unknown}")
    if isinstance(error, ValueError):  # mostly no JSON: something else than the API server answered
        return TransientError(line(f"{what}: not understood: {error}", MESSAGE_LIMIT) + unknown)
    if type(error) is ConnectionError:  # raised by ourselves, in plain words
        return TransientError(line(f"{what}: {error}", MESSAGE_LIMIT) + unknown)
    return TransientError(line(f"{what}: connection broken: {type(error).__name__} {error}", MESSAGE_LIMIT) + unknown)


def _answered(status: Status, what: str, write: Write, unknown: str) -> PortError:
    text = f"{what}: {readable(status)} ({status.code})"
    if policy := status.policy:
        return ForbiddenError(text, policy)
    match status.code:
        case 401:  # a token that was just rotated is refused for a moment
            return TransientError(text)
        case 403:
            return ForbiddenError(text)
        case 404 if status.kind_missing:
            return PermanentError(f"{what}: no such kind on this cluster (404)")
        case 404:
            return NotFoundError(text)
        case 409 if status.reason == "AlreadyExists" or (write == "create" and not status.reason):
            return AlreadyExistsError(text)
        case 409:
            return ConflictError(text)
        case 408 | 410 | 429:
            return TransientError(text)
        case code if code >= 500 and _TOO_LARGE.search(status.message):
            return PermanentError(text)
        case code if code >= 500:
            return TransientError(text + unknown)
        case _:
            return PermanentError(text)


@contextmanager
def translated(what: str, *, write: Write = "") -> Iterator[None]:
    """Everything external that is thrown inside leaves as a port error."""
    try:
        yield
    except EXTERNAL as error:
        failure = port_error(error, what, write=write)
    else:
        return
    raise failure from None
