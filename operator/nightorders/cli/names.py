"""What people call a workload: every spelling that kubectl accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from ..api.v1alpha1.common import ObjectRef
from .errors import usage

_KINDS: Mapping[str, tuple[str, str, str]] = {
    word: (group, version, kind)
    for group, version, kind, words in (
        ("apps", "v1", "Deployment", "deploy deployment deployments"),
        ("apps", "v1", "StatefulSet", "sts statefulset statefulsets"),
        ("apps", "v1", "DaemonSet", "ds daemonset daemonsets"),
        ("batch", "v1", "Job", "job jobs"),
    )
    for word in words.split()
}
EXAMPLE = "write deploy/NAME, deployment/NAME, deployments.apps/NAME or: deploy NAME"


def workload(words: Sequence[str]) -> ObjectRef:
    """`deploy/checkout`, `deployments.apps/checkout`, `deploy checkout`, … → the object. Raises CommandError (usage)."""
    joined = "/".join(words)
    kind, slash, name = joined.partition("/")
    if not words or len(words) > 2 or not slash or "/" in name or not name or not kind:
        raise usage(f"which workload is meant by {' '.join(words)!r}? {EXAMPLE}")
    singular, _, suffix = kind.casefold().partition(".")
    known = _KINDS.get(singular)
    if known is None or suffix not in ("", known[0], f"{known[1]}.{known[0]}"):
        raise usage(f"diagnose does not know the type {kind!r}; it looks at Deployments: {EXAMPLE}")
    try:
        return ObjectRef(api_version=f"{known[0]}/{known[1]}", kind=known[2], name=name)
    except ValidationError:
        raise usage(f"{name!r} cannot be the name of an object: use lower-case letters, digits, '-' and '.'") from None
