"""What the API server answers → port errors, without the values that it echoes."""

from __future__ import annotations

import json
import ssl
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from kubernetes.aio.client.exceptions import ApiException

from nightorders.adapters.errors import AnswerTooLargeError, Write, port_error, status_of, translated
from nightorders.ports import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    PermanentError,
    PortError,
    TransientError,
)

DENIED = (
    "incidents.nightorders.dev \"x\" is forbidden: ValidatingAdmissionPolicy 'nightorders-approvals' with binding "
    "'nightorders-approvals' denied request: the operator cannot approve"
)


def answered(code: int, reason: str = "", message: str = "", details: dict[str, Any] | None = None) -> ApiException:
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message, "details": details or {}, "code": code}
    return ApiException(status=code, reason="x", body=json.dumps(body))


@pytest.mark.parametrize(
    ("error", "write", "expected"),
    [
        (answered(409, "Conflict", "modified"), "update", ConflictError),
        (answered(409, "AlreadyExists", "exists"), "create", AlreadyExistsError),
        (answered(409, "", "exists"), "create", AlreadyExistsError),
        # The quota controller lost a race: the same create may pass in a moment.
        (answered(409, "Conflict", "Operation cannot be fulfilled on resourcequotas"), "create", ConflictError),
        (answered(404, "NotFound", 'pods "x" not found', {"name": "x"}), "update", NotFoundError),
        (answered(404, "NotFound", "the server could not find the requested resource"), "update", PermanentError),
        (ApiException(status=404, body="404 page not found\n"), "", PermanentError),
        (answered(403, "Forbidden", 'User "u" cannot list'), "", ForbiddenError),
        (answered(403, "Forbidden", DENIED), "update", ForbiddenError),
        (answered(422, "Invalid", DENIED.replace("is forbidden", "is invalid")), "update", ForbiddenError),
        (answered(422, "Invalid", "bad"), "update", PermanentError),
        (answered(400, "BadRequest", "strict decoding error: unknown field"), "update", PermanentError),
        (answered(413, "RequestEntityTooLarge", "limit is 3145728"), "update", PermanentError),
        (answered(500, "", "etcdserver: request is too large"), "update", PermanentError),
        (answered(500, "InternalError", "failed calling webhook"), "update", TransientError),
        (answered(401, "Unauthorized", "Unauthorized"), "", TransientError),
        (answered(410, "Expired", "too old"), "", TransientError),
        (answered(429, "TooManyRequests", "slow down"), "update", TransientError),
        (answered(503, "ServiceUnavailable", ""), "update", TransientError),
        (ApiException(status=502, body="<html>"), "", TransientError),
        (TimeoutError(), "update", TransientError),
        (aiohttp.ServerDisconnectedError(), "update", TransientError),
        (aiohttp.ClientConnectorError(Mock(), OSError(111, "refused")), "update", TransientError),
        (aiohttp.InvalidURL("http://["), "", PermanentError),
        (ssl.SSLError("bad record"), "update", TransientError),
        (json.JSONDecodeError("x", "y", 0), "", TransientError),
        (AnswerTooLargeError("more than 128 MiB"), "", PermanentError),
    ],
)
def test_every_answer_has_its_port_error(error: Exception, write: Write, expected: type[PortError]) -> None:
    assert type(port_error(error, "PATCH /x", write=write)) is expected


def test_the_policy_is_named() -> None:
    error = port_error(answered(403, "Forbidden", DENIED), "PATCH /x", write="update")
    assert isinstance(error, ForbiddenError)
    assert error.policy == "nightorders-approvals"
    assert "the operator cannot approve" in str(error)


@pytest.mark.parametrize(
    "message",
    [
        "User \"ValidatingAdmissionPolicy 'p' with binding 'b' denied request: x\" cannot list resource \"pods\"",
        "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: x",
    ],
)
def test_a_policy_name_that_somebody_chose_does_not_count(message: str) -> None:
    error = port_error(answered(403, "Forbidden", message), "PATCH /x")
    assert isinstance(error, ForbiddenError)
    assert error.policy == ""


def test_whether_it_happened_is_said_only_where_it_may_have() -> None:
    unknown = [TimeoutError(), aiohttp.ServerDisconnectedError(), ConnectionResetError("reset"), answered(500), answered(504)]
    for error in unknown:
        assert "outcome is unknown" in str(port_error(error, "PATCH /x", write="update")), error
        assert "outcome" not in str(port_error(error, "GET /x"))
    never_sent = [aiohttp.ClientConnectorError(Mock(), OSError(111, "refused")), answered(429), answered(409, "Conflict"), answered(422)]
    for error in never_sent:
        assert "outcome" not in str(port_error(error, "PATCH /x", write="update")), error


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("spec.template", 'Invalid value: {"env":[{"name":"P","value":"hunter2"}]}: field is immutable'),
        ("spec.template", 'Invalid value: core.PodSpec{Env: []core.EnvVar{core.EnvVar{Name:"P", Value:"hunter2"}}}: field is immutable'),
        ("patch", 'Invalid value: "{\\"env\\":\\"hunter2\\"}": strict decoding error: unknown field "spec.x"'),
        ("spec.x", 'Duplicate value: {"password":"hunter2"}'),
        ("spec.x", 'Unsupported value: "hunter2": supported values: "A"'),
        ("spec.x", 'Too long: "hunter2": may not be more than 3 bytes'),
    ],
)
def test_values_are_not_echoed(field: str, message: str) -> None:
    with_causes = answered(
        422, "Invalid", f'Deployment "x" is invalid: {field}: {message}', {"causes": [{"field": field, "message": message}]}
    )
    without = answered(422, "Invalid", f'Deployment "x" is invalid: {field}: {message}')
    for error in (with_causes, without):
        text = str(port_error(error, "PATCH /x", write="update"))
        assert "hunter2" not in text
        assert field in text


def test_long_and_unsafe_texts_are_cut() -> None:
    text = str(port_error(answered(422, "Invalid", "evil\x1b[31m\n\u202e" + "x" * 100_000), "PATCH /x", write="update"))
    assert len(text) < 600
    assert not set(text) & {"\x1b", "\n", "\u202e"}


def test_nothing_of_the_answer_hangs_on_the_error() -> None:
    """A traceback prints the chain, and the text of an ApiException is its body."""
    with pytest.raises(PermanentError) as caught, translated("PATCH /x", write="update"):
        raise answered(422, "Invalid", "hunter2")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_bug_is_not_translated() -> None:
    with pytest.raises(KeyError), translated("GET /x"):
        raise KeyError("ours")


@pytest.mark.parametrize("body", ["", "<html>", "[]", "null", '{"kind":"Pod"}', '{"kind":"Status","details":7}', "[" * 100_000, None])
def test_any_body_can_be_read(body: str | None) -> None:
    assert status_of(ApiException(status=500, reason="Oops", body=body)).code == 500
