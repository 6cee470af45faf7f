"""What the demo prints: prose, commands as typed, their output, one line on what to notice, and waiting with a clock.

Plain text when piped; on a terminal a little colour, unless NO_COLOR says otherwise. Nothing is wider than 100 columns except what
would break: a word, or a command that is to be pasted.
"""

from __future__ import annotations

import os
import re
import select
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TextIO, TypeVar

WIDTH = 100
NARROWEST = 60
HEARTBEAT_SECONDS = 10.0
INDENT = "  "
_ESSENTIAL = frozenset({"NAMESPACE", "NAME", "PHASE", "LEVEL", "IMAGES"})
_FIRST_TO_GO = frozenset({"CAUSE", "SEVERITY"})
_COLUMN = re.compile(r"\S+(?: \S+)*(?:\s{2,}|$)")
_QUIET = ("", "dumb")
T = TypeVar("T")


# ---------------------------------------------------------------- pure parts


def wrap(text: str, width: int, indent: str = "", hang: str | None = None) -> list[str]:
    """Prose as lines of at most `width`; words are never broken, so that names and paths can be copied."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent if hang is None else hang,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [indent.rstrip()]


def fold(line: str, width: int) -> list[str]:
    """One line of output. What is too wide goes on in the next line, further in than it began; commands to paste stay whole."""
    inside = line.lstrip(" ")
    if len(line) <= width or inside.startswith(("kubectl ", "nightorders ")):
        return [line.rstrip()]
    lead = line[: len(line) - len(inside)]
    marker = re.match(r"(?:[-*] |\d+\. )", inside)
    hang = lead + (" " * len(marker.group(0)) if marker else "  ")
    return wrap(inside, width, lead, hang)


def fold_command(command: str, width: int) -> list[str]:
    """A command over several lines, as a shell reads it: with backslashes, at blanks outside quotes, each part of a pipe on its own."""
    if len(command) <= width:
        return [command]
    lines: list[str] = []
    for unit in _units(_shell_words(command)):
        room = width - len(" \\") - (len(INDENT) if lines else 0)
        if lines and not unit.startswith("|") and len(lines[-1]) + 1 + len(unit) <= room:
            lines[-1] += f" {unit}"
        else:
            lines.append(unit)
    return [line + (" \\" if i < len(lines) - 1 else "") for i, line in enumerate(lines)]


def _units(words: list[str]) -> list[str]:
    """Words that stay together: an option and its value, a pipe and the command behind it."""
    units: list[str] = []
    for word in words:
        before = units[-1].split(" ")[-1] if units else ""
        option = before.startswith("-") and "=" not in before and not word.startswith(("-", "|"))
        if option or before == "|":
            units[-1] += f" {word}"
        else:
            units.append(word)
    return units


def _shell_words(command: str) -> list[str]:
    """Split at blanks outside quotes and substitutions; quotes stay where they are."""
    words, current, quote, depth = [], "", "", 0
    for i, char in enumerate(command):
        if char == " " and not quote and not depth:
            if current:
                words.append(current)
            current = ""
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "(" and command[i - 1 : i] == "$":
            depth += 1
        elif char == ")" and depth:
            depth -= 1
        current += char
    return [*words, current] if current else words


def shorten(lines: list[str], most: int) -> list[str]:
    """At most so many lines: beginning and end, and how many are left out between."""
    if len(lines) <= most:
        return lines
    head = (most - 1) * 2 // 3
    tail = most - 1 - head
    left_out = len(lines) - head - tail
    return [*lines[:head], f"[{left_out} lines left out here]", *lines[len(lines) - tail :]]


def fit_table(text: str, width: int) -> list[str]:
    """kubectl's table without some wide columns, if it is too wide; a line below says which are left out."""
    rows = text.rstrip("\n").split("\n")
    starts = [m.start() for m in _COLUMN.finditer(rows[0])]
    ends = [*starts[1:], max(len(r) for r in rows)]
    names = [rows[0][a:b].strip() for a, b in zip(starts, ends, strict=True)]
    cells = [[row[a:b].rstrip() for a, b in zip(starts, ends, strict=True)] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    kept = list(range(len(names)))
    expendable = sorted((i for i in kept if names[i] not in _ESSENTIAL), key=lambda i: (names[i] not in _FIRST_TO_GO, -widths[i]))
    while expendable and sum(widths[i] for i in kept) + 3 * (len(kept) - 1) > width:
        kept.remove(expendable.pop(0))
    lines = ["   ".join(row[i].ljust(widths[i]) for i in kept).rstrip() for row in cells]
    left_out = [name for i, name in enumerate(names) if i not in kept]
    return [*lines, f"[too wide for this page, left out: {', '.join(left_out)}]"] if left_out else lines


def is_table(text: str) -> bool:
    """Whether this is kubectl's table: a first line of several headings in capitals."""
    first = text.split("\n", 1)[0]
    columns = [m.group(0).strip() for m in _COLUMN.finditer(first)]
    return len(columns) > 1 and all(re.fullmatch(r"[A-Z][A-Z0-9 ()-]*", c) for c in columns)


def some_sections(lines: list[str], keep: Mapping[str, int]) -> list[str]:
    """Of a text with headings at the margin, its title, the sections to keep, each with at most so many lines, and the headings of the others."""
    kept: list[str] = []
    others: list[str] = []
    for number, section in enumerate(_sections(lines)):
        title = section[0]
        if number == 0 or title in keep:
            most = keep.get(title, len(section))
            cut = section[: most + 1]
            rest = len(section) - len(cut)
            kept += [*([""] if kept else []), *cut, *([f"{INDENT}[{rest} lines left out here]"] if rest else [])]
        else:
            others.append(title)
    return [*kept, "", f"[left out here: {', '.join(others)}]"] if others else kept


def _sections(lines: list[str]) -> list[list[str]]:
    """Blocks that begin at the margin after an empty line; the first one is the title of it all."""
    found: list[list[str]] = []
    for i, line in enumerate(lines):
        if line and not line.startswith(" ") and (i == 0 or not lines[i - 1]):
            found.append([line])
        elif line and found:
            found[-1].append(line)
    return found


# ---------------------------------------------------------------- printing


@dataclass(frozen=True)
class Look:
    """How it can be printed. `live`: a terminal, where a line may be written over."""

    colour: bool = False
    live: bool = False
    width: int = WIDTH

    @classmethod
    def of(cls, stream: TextIO, environment: Mapping[str, str] = os.environ) -> Look:
        """Plain when piped, no colour with NO_COLOR."""
        if not stream.isatty() or environment.get("TERM", "") in _QUIET:
            return cls()
        columns = get_terminal_size((WIDTH, 24)).columns
        return cls(not environment.get("NO_COLOR"), True, max(NARROWEST, min(WIDTH, columns)))


class Narrator:
    """Prints. `now` and `sleep` are for tests."""

    def __init__(
        self,
        stream: TextIO,
        look: Look | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stream = stream
        self.look = look or Look.of(stream)
        self._now = now
        self._sleep = sleep

    def line(self, text: str = "") -> None:
        """One line as it is."""
        self._stream.write(text + "\n")
        self._stream.flush()

    def paint(self, text: str, code: str) -> str:
        """The text in a colour, where there are colours."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.look.colour else text

    def title(self, text: str) -> None:
        """The heading of an act."""
        self.line()
        self.line(self.paint(text, "1"))
        self.line(self.paint("-" * min(len(text), self.look.width), "2"))

    def say(self, text: str) -> None:
        """What is about to happen, as a paragraph."""
        self.line()
        for one in wrap(text, self.look.width):
            self.line(one)

    def notice(self, text: str) -> None:
        """The one thing to notice."""
        lead = "Notice: "
        lines = wrap(lead + text, self.look.width, INDENT, INDENT + " " * len(lead))
        lines[0] = lines[0].replace(lead, self.paint(lead.strip(), "1;36") + " ", 1)
        for one in lines:
            self.line(one)

    def progress(self, text: str) -> None:
        """One line on how a longer step goes."""
        for one in wrap(text, self.look.width, INDENT):
            self.line(self.paint(one, "2"))

    def wrong(self, text: str) -> None:
        """Something is not as it should be."""
        first, *more = text.rstrip("\n").split("\n")
        for one in wrap(f"WRONG: {first}", self.look.width, INDENT, INDENT * 2):
            self.line(self.paint(one, "31"))
        self.output("\n".join(more))

    def command(self, command: str, who: str = "", *, gap: bool = True) -> None:
        """A command as typed, after a prompt that names whoever types it, and an empty line if there is to be a gap."""
        prompt = f"{who} $ " if who else "$ "
        if gap:
            self.line()
        for i, one in enumerate(fold_command(command, self.look.width - len(INDENT) - len(prompt))):
            self.line(INDENT + (prompt if i == 0 else INDENT * 2) + self.paint(one, "1"))

    def output(self, text: str, most: int = 60, keep: Mapping[str, int] | None = None) -> None:
        """What a command printed, shortened to `most` lines, or to some sections (title → lines)."""
        width = self.look.width - len(INDENT)
        text = text.rstrip("\n")
        if not text:
            return
        rows = text.split("\n")
        if keep is not None:
            rows, most = some_sections(rows, keep), len(text)
        lines = fit_table(text, width) if is_table(text) else [part for row in rows for part in fold(row, width)]
        for one in shorten(lines, most):
            self.line(INDENT + one if one else "")

    def wait(self, what: str, ask: Callable[[], T | None], seconds: float, every: float = 0.5) -> T:
        """The first answer of `ask` that is true. Prints the seconds while waiting, and at the end how many it were.

        Raises TimeoutError.
        """
        begin = told = self._now()
        while True:
            answer = ask()
            waited = self._now() - begin
            if answer:
                self._overwrite("")
                self.progress(f"{what}: {waited:.1f} s")
                return answer
            if waited > seconds:
                self._overwrite("")
                raise TimeoutError(f"not within {seconds:.0f} s: {what}")
            if self.look.live:
                self._overwrite(f"{INDENT}{what}: {waited:.0f} s …")
            elif self._now() - told >= HEARTBEAT_SECONDS:
                told = self._now()
                self.progress(f"{what}: {waited:.0f} s so far")
            self._sleep(every)

    def _overwrite(self, text: str) -> None:
        if self.look.live:
            self._stream.write("\r\x1b[K" + self.paint(text[: self.look.width - 1], "2") if text else "\r\x1b[K")
            self._stream.flush()


def enter_pressed(stream: TextIO = sys.stdin) -> bool:
    """Whether a line (or the end) can be read from the keyboard now; reads it."""
    ready, _, _ = select.select([stream], [], [], 0)
    if not ready:
        return False
    stream.readline()
    return True
