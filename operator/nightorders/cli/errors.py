"""Why a command ends without doing what it was asked, in one line that says what to do; and the exit codes."""

from __future__ import annotations

import re
from enum import IntEnum

from ..api.meta import line
from ..ports import ForbiddenError, PortError, TransientError
from .paste import INSTALL_CRDS

_WHERE = re.compile(r"^(?:GET|POST|PUT|PATCH|DELETE) /\S+(?: \(dry run\))?: ")
_CODE = re.compile(r" \((\d{3})\)$")


class Exit(IntEnum):
    """Exit codes of the human commands, the same for all of them."""

    DONE = 0  # done; diagnose: healthy, no fault
    FAULT = 1  # diagnose: a fault was found; elsewhere: refused, or there is nothing to do it with
    USAGE = 2  # wrong arguments, no such object or namespace, no kubeconfig
    CANNOT_TELL = 3  # origin not shown, still on its way, forbidden, unreachable


class CommandError(Exception):
    """Ends a command: one line on standard error and an exit code."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(line(message, 4096))
        self.code = code


def usage(message: str) -> CommandError:
    """Whoever typed it can put it right."""
    return CommandError(message, Exit.USAGE)


def refused(message: str) -> CommandError:
    """It was understood and is not done."""
    return CommandError(message, Exit.FAULT)


def cannot_tell(message: str) -> CommandError:
    """The answer could not be had."""
    return CommandError(message, Exit.CANNOT_TELL)


def words(error: PortError) -> str:
    """What the API server said, without the request in front and the status code behind."""
    return _CODE.sub("", _WHERE.sub("", str(error)))


def explained(error: PortError, doing: str) -> CommandError:
    """The failure of a request, with what to do about it. `doing` completes "cannot …"."""
    said, text = words(error), str(error)
    if isinstance(error, ForbiddenError):
        if error.policy:
            return refused(
                f"refused by the API server: {said.removeprefix(f'ValidatingAdmissionPolicy {error.policy}: ')} (policy {error.policy})"
            )
        return cannot_tell(f"cannot {doing}: forbidden: {said}")
    if "no such kind on this cluster" in text:
        return not_installed(doing)
    if isinstance(error, TransientError):
        return cannot_tell(unreachable(doing, said, text))
    return refused(f"cannot {doing}: {said}")


def unreachable(doing: str, said: str, text: str = "") -> str:
    """The line for an API server that does not answer, or does not know who asks."""
    if (text or said).endswith("(401)"):
        return f"cannot {doing}: the API server does not accept your credentials (401). Log in again, then try: kubectl auth whoami"
    return f"cannot {doing}: the API server does not answer: {said}. Try: kubectl cluster-info"


def not_installed(doing: str) -> CommandError:
    """The line for a cluster that does not know our kinds."""
    return cannot_tell(
        f"cannot {doing}: nightorders is not installed in this cluster. A cluster admin installs its resources with: {INSTALL_CRDS}"
    )
