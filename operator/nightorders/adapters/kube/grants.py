"""What to say when a read was forbidden: the command that grants it, and who can run it."""

from __future__ import annotations

import re
import shlex

from ..errors import Status, readable
from .resources import BASE_ROLE, READER_ROLE, Resource

LOGS_ROLE = "nightorders-reader-logs"

_USER = re.compile(r'User "([^"]+)" cannot ')
_SERVICE_ACCOUNT = re.compile(r"^system:serviceaccount:([a-z0-9-]+):([a-z0-9.-]+)$")


def because(status: Status) -> str:
    """`forbidden: …` with the API server's own words."""
    return f"forbidden: {readable(status)}"


def fix(status: Status, resource: Resource, namespace: str, *, role: str = "") -> str:
    """The command, ready to paste (the rest of the line is a shell comment); empty where no shipped role grants this read.

    The account is the one that was refused, so the command is right for an operator under another name and for a person too.
    """
    role = role or resource.role
    subject = _subject(status)
    if not role or not subject:
        return ""
    words = ["kubectl", "create"]
    if namespace and resource.namespaced and role != BASE_ROLE:
        words += ["rolebinding", role, "-n", namespace]
        who = f"a cluster admin, or whoever has in {namespace} the verb bind on clusterrole/{role}"
    else:
        words += ["clusterrolebinding", role]
        who = "a cluster admin"
    words += [f"--clusterrole={role}", subject]
    return f"{shlex.join(words)}  # can be run by {who}"


def _subject(status: Status) -> str:
    found = _USER.search(status.message)
    if found is None:
        return ""
    if account := _SERVICE_ACCOUNT.match(found[1]):
        return f"--serviceaccount={account[1]}:{account[2]}"
    return f"--user={found[1]}"


__all__ = ["LOGS_ROLE", "READER_ROLE", "because", "fix"]
