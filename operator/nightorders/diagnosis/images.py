"""Image references, and what the messages of kubelet and runtime say about a pull that failed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Image:
    """registry/repository:tag@digest, with Docker's defaults filled in."""

    registry: str
    repository: str
    tag: str
    digest: str


def parse(reference: str) -> Image:
    """Never fails: what is no reference comes out as an odd repository."""
    rest, _, digest = reference.partition("@")
    head, slash, tail = rest.partition("/")
    is_registry = bool(slash) and ("." in head or ":" in head or head == "localhost")
    registry, path = (head, tail) if is_registry else ("docker.io", rest)
    repository, colon, tag = path.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = path, "" if digest else "latest"
    return Image(registry, repository, tag, digest)


def what_differs(before: str, after: str) -> str:
    """`the tag: 2.3.9 → 2.4.O`, for people; empty when the references are equal."""
    old, new = parse(before), parse(after)
    for name in ("registry", "repository", "tag", "digest"):
        if getattr(old, name) != getattr(new, name):
            return f"the {name}: {getattr(old, name) or 'none'} → {getattr(new, name) or 'none'}"
    return ""


class PullError(Enum):
    """Why a pull fails, as far as a message says."""

    NOT_FOUND = "the registry does not have it"
    INVALID_NAME = "its name is not valid"
    UNAUTHORIZED = "the registry refuses access to it (credentials, pull secret or a private repository)"
    DENIED_OR_ABSENT = "the registry refuses it or does not have it (it answers both alike)"
    NO_SUCH_HOST = "no registry answers to that name"
    UNREACHABLE = "the registry cannot be reached"
    LIMITED = "the registry limits the rate of pulls"
    NEVER = "it may not be pulled (imagePullPolicy Never) and is not on the node"
    PLATFORM = "it does not exist for this machine's platform"
    NODE = "the node has no room or its runtime fails"
    UNKNOWN = "it cannot be pulled, and no message says why"


# The answers of a registry about this very image: whoever gets one has reached the registry, so node and network are not the fault.
ANSWERED = frozenset(
    {PullError.NOT_FOUND, PullError.INVALID_NAME, PullError.UNAUTHORIZED, PullError.DENIED_OR_ABSENT, PullError.NEVER, PullError.PLATFORM}
)


def _says(error: PullError, *words: str) -> tuple[PullError, re.Pattern[str]]:
    return error, re.compile("|".join(words), re.IGNORECASE)


# First match wins. "Pull access denied, repository does not exist or may require authorization" is Docker Hub's answer to both.
_SIGNS: tuple[tuple[PullError, re.Pattern[str]], ...] = (
    _says(PullError.LIMITED, "toomanyrequests", "too many requests", "rate limit", r"\b429\b"),
    _says(PullError.DENIED_OR_ABSENT, "does not exist or may require", "repository does not exist or"),
    _says(PullError.NO_SUCH_HOST, "no such host", "could not resolve host", "name or service not known"),
    _says(
        PullError.UNREACHABLE, "dial tcp", "connection refused", "connection reset", "i/o timeout", "TLS handshake", "x509:", r"\b50[234]\b"
    ),
    _says(
        PullError.UNREACHABLE, "no route to host", "network is unreachable", "server misbehaving", "name resolution", "deadline exceeded"
    ),
    _says(
        PullError.UNAUTHORIZED, "unauthori[sz]ed", "authentication required", "authorization failed", "access denied", "access forbidden"
    ),
    _says(PullError.UNAUTHORIZED, "insufficient_scope", r"\b401\b", r"\b403\b", "no basic auth credentials", "denied:", "forbidden"),
    _says(PullError.PLATFORM, "no match(?:ing manifest)? for platform", "no matching manifest for", "exec format"),
    _says(PullError.NODE, "no space left on device", "disk quota", "input/output error", "failed to (?:register|extract) layer"),
    _says(
        PullError.INVALID_NAME, "couldn't parse image", "invalid reference format", "failed to apply default image tag", "InvalidImageName"
    ),
    _says(PullError.NOT_FOUND, "not ?found", "manifest unknown", "name unknown", "does not exist", "no such image", r"\b404\b"),
)
# A rate limit, a full disk or a registry that is down can end by itself; the others end only when somebody changes something.
PASSING = frozenset({PullError.UNREACHABLE, PullError.LIMITED, PullError.NODE})
_BY_REASON = {
    "InvalidImageName": PullError.INVALID_NAME,
    "ErrImageNeverPull": PullError.NEVER,
    "RegistryUnavailable": PullError.UNREACHABLE,
}


def pull_error(reason: str, image: str, messages: tuple[str, ...]) -> PullError:
    """The kind of error: the machine-readable reason first, then the first message that says more (names in it may not: app/not-found)."""
    if reason in _BY_REASON:
        return _BY_REASON[reason]
    longer = (n for n in (image.rpartition(":")[0], parse(image).repository) if "/" in n)
    names = sorted({n for n in (image, *longer) if n}, key=len, reverse=True)
    for message in messages:
        for name in names:
            message = message.replace(name, " ")
        for error, sign in _SIGNS:
            if sign.search(message):
                return error
    return PullError.UNKNOWN
