"""Commands that people paste into a shell (threats.md 13).

An argument that comes from the cluster is printed only if a shell would read it as it stands; one odd character and there is no
command at all. What users typed themselves (a context, a kubeconfig) is quoted instead, because without it the command would reach
another cluster.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

from ..domain.redaction import MARK as REDACTED

PROGRAMS = ("kubectl", "nightorders")  # nothing else is ever printed for pasting, whoever wrote it
_PLAIN = re.compile(r"[A-Za-z0-9._:/=@,-]+")


def plain(argument: str) -> bool:
    """Whether every shell takes it literally."""
    return _PLAIN.fullmatch(argument) is not None


def command(argv: Sequence[str], own: Sequence[str] = ()) -> str:
    """The command with the user's own flags behind; empty if anything in `argv` is not plain, or a flag cannot be shown."""
    if not argv or argv[0] not in PROGRAMS or not all(plain(a) for a in argv) or not all(a.isprintable() for a in own):
        return ""
    return shlex.join([*argv, *own])


def pipeline(commands: Iterable[Sequence[str]], own: Sequence[str] = ()) -> str:
    """Commands piped into each other; empty if any of them cannot be printed."""
    made = [command(c, own) for c in commands]
    return " | ".join(made) if all(made) else ""


INSTALL_CRDS = pipeline((("nightorders", "crds"), ("kubectl", "apply", "--server-side", "-f", "-")))


def checked(text: str) -> str:
    """A command that was written elsewhere, taken apart and put together again, without its comment; empty if it cannot be trusted.

    One simple command: pipes, substitutions and variables end up quoted, and so do nothing. Our own installation is the exception.
    """
    if text == INSTALL_CRDS:
        return text
    if REDACTED in text:  # a username that is an e-mail address: with the mark in its place the command would do something else
        return ""
    try:
        argv = shlex.split(text, comments=True)
    except ValueError:
        return ""
    if not argv or argv[0] not in PROGRAMS or not all(a and a.isprintable() for a in argv):
        return ""
    return shlex.join(argv)


def comment(text: str) -> str:
    """What stands behind the ` # ` of such a command: who can run it."""
    return text.partition("  # ")[2]
