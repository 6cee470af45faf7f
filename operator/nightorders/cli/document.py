"""What a command has to say, and the two ways of writing it: plain text (coloured on a terminal) and Markdown.

Everything is cleaned here, at the last moment before it is printed, wherever it came from (threats.md 24).
"""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from shutil import get_terminal_size

from ..api.meta import line, text

COMMAND_LIMIT = 8192


class Tone(Enum):
    """How a line is meant, as ANSI codes; colour never carries what the words do not say."""

    PLAIN = ""
    STRONG = "1"
    GOOD = "32"
    BAD = "31"
    WARN = "33"


@dataclass(frozen=True)
class Say:
    """One line. `depth` 0 stands under the heading, deeper ones belong to the line above."""

    words: str
    depth: int = 0
    tone: Tone = Tone.PLAIN
    bullet: bool = True


@dataclass(frozen=True)
class Code:
    """A command, a query, an excerpt: exactly as it is, never wrapped. `label` stands in front."""

    words: str
    depth: int = 0
    label: str = ""


@dataclass(frozen=True)
class Diff:
    """A unified diff."""

    words: str


Row = Say | Code | Diff


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; left out when nothing does."""

    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Document:
    """The whole answer."""

    title: str
    sections: tuple[Section, ...]


def section(title: str, rows: Iterable[Row], otherwise: str = "") -> Section:
    """A section; `otherwise` says that there is nothing where that is worth saying."""
    found = tuple(rows)
    return Section(title, found or ((Say(otherwise, bullet=False),) if otherwise else ()))


@dataclass(frozen=True)
class Terminal:
    """How standard output can be written to. `width` 0: do not wrap."""

    colour: bool = False
    width: int = 0

    @classmethod
    def of_stdout(cls) -> Terminal:
        """Plain and unwrapped when piped; no colour with NO_COLOR or on a dumb terminal."""
        if not sys.stdout.isatty():
            return cls()
        colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in ("", "dumb")
        return cls(colour, max(60, get_terminal_size((100, 24)).columns))

    def paint(self, words: str, tone: Tone) -> str:
        return f"\x1b[{tone.value}m{words}\x1b[0m" if self.colour and tone is not Tone.PLAIN else words


# ------------------------------------------------------------ plain text


def as_text(document: Document, terminal: Terminal) -> str:
    """For a terminal or a pipe."""
    out = [terminal.paint(line(document.title), Tone.STRONG)]
    for part in document.sections:
        if part.rows:
            out += ["", terminal.paint(line(part.title), Tone.STRONG)]
            out += [made for row in part.rows for made in _text_row(row, terminal)]
    return "\n".join(out) + "\n"


def _text_row(row: Row, terminal: Terminal) -> Iterator[str]:
    match row:
        case Say(words, depth, tone, bullet):
            indent = "  " * (depth + 1)
            hang = indent + ("  " if bullet else "")
            lead = indent + ("- " if bullet else "")
            for i, piece in enumerate(_wrapped(line(words), terminal.width - len(hang) if terminal.width else 0)):
                yield (lead if i == 0 else hang) + terminal.paint(piece, tone)
        case Code(words, depth, label):
            yield "  " * (depth + 2) + (f"{label}: " if label else "") + line(words, COMMAND_LIMIT)
        case Diff(words):
            for piece in text(words).split("\n"):
                tone = {"+": Tone.GOOD, "-": Tone.BAD, "@": Tone.WARN}.get(piece[:1], Tone.PLAIN)
                yield "    " + terminal.paint(piece.replace("\t", "  "), tone)


def _wrapped(words: str, width: int) -> list[str]:
    if not width:
        return [words]
    return textwrap.wrap(words, max(20, width), break_long_words=False, break_on_hyphens=False) or [""]


# ------------------------------------------------------------ Markdown

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#!|~&]|:(?=//))")


def as_markdown(document: Document) -> str:
    """For a ticket or a chat. Text from the cluster cannot become a heading, a link or an image."""
    out = [f"# {_escaped(document.title)}"]
    for part in document.sections:
        if part.rows:
            out += ["", f"## {_escaped(part.title)}", ""]
            out += [made for row in part.rows for made in _markdown_row(row)]
    return "\n".join(out) + "\n"


def _markdown_row(row: Row) -> Iterator[str]:
    match row:
        case Say(words, depth, _, _):
            yield f"{'  ' * depth}- {_escaped(words)}"
        case Code(words, depth, label):
            yield f"{'  ' * (depth + 1)}- {f'{label}: ' if label else ''}{_span(line(words, COMMAND_LIMIT))}"
        case Diff(words):
            clean = text(words)
            fence = _ticks(clean, 3)
            yield f"\n{fence}diff\n{clean}\n{fence}"


def _escaped(words: str) -> str:
    return _SPECIAL.sub(r"\\\1", line(words))


def _span(words: str) -> str:
    """A code span that its content cannot close."""
    fence = _ticks(words, 1)
    pad = " " if words.startswith("`") or words.endswith("`") else ""
    return f"{fence}{pad}{words}{pad}{fence}"


def _ticks(words: str, least: int) -> str:
    longest = max((len(run) for run in re.findall("`+", words)), default=0)
    return "`" * max(least, longest + 1)
