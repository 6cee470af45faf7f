"""Text and Markdown: clean whatever comes from the cluster, plain when piped."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightorders.cli.document import Code, Diff, Document, Say, Section, Terminal, Tone, as_markdown, as_text

UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def page(words: str) -> Document:
    return Document(words, (Section(words, (Say(words), Say(words, 1, Tone.BAD), Code(words, label="query"), Diff(words))),))


@pytest.mark.threat(24)
@pytest.mark.promise(3)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_no_control_or_bidi_character_reaches_the_terminal(words: str) -> None:
    for made in (as_text(page(words), Terminal()), as_markdown(page(words))):
        assert not UNSAFE.search(made.replace("\t", " "))


@pytest.mark.threat(24)
def test_an_escape_sequence_cannot_colour_or_move() -> None:
    made = as_text(page("a\x1b[2J\x1b]0;title\x07b\r\nc\u202ed"), Terminal(colour=True))
    assert "\x1b[2J" not in made
    assert "\x1b]" not in made
    assert "\u202e" not in made


def test_colour_only_on_a_terminal_and_never_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Terminal.of_stdout().colour
    monkeypatch.setenv("NO_COLOR", "1")
    assert not Terminal.of_stdout().colour
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not Terminal.of_stdout().colour
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert Terminal.of_stdout() == Terminal()


def test_a_diff_is_coloured_by_its_marks() -> None:
    made = as_text(Document("t", (Section("s", (Diff("@@ x\n-a\n+b\n c"),)),)), Terminal(colour=True))
    assert "\x1b[31m-a\x1b[0m" in made
    assert "\x1b[32m+b\x1b[0m" in made
    assert "    c" in made


def test_commands_are_never_wrapped_and_sentences_are() -> None:
    long = "word " * 40
    made = as_text(Document("t", (Section("s", (Say(long), Code(long.strip()))),)), Terminal(width=60))
    lines = made.splitlines()
    assert max(len(row) for row in lines if row.startswith(("  - ", "    w"))) > 100
    assert all(len(row) <= 60 for row in lines[3:-1])


@pytest.mark.threat(24)
def test_markdown_cannot_be_broken_out_of() -> None:
    words = "[x](http://evil) <img src=x> `code` **b** # h | t"
    made = as_markdown(Document("t", (Section("s", (Say(words), Code("a `` b"), Diff("```\n# h"))),)))
    assert not re.search(r"(?<!\\)\]", made)
    assert "\\<img" in made
    assert "```a `` b```" in made
    assert "````diff\n```\n# h\n````" in made


def test_empty_sections_are_left_out() -> None:
    assert as_text(Document("t", (Section("s", ()),)), Terminal()) == "t\n"
