"""YAML and JSON files with the line of everything in them, so that a problem can be shown where it stands."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ..api.meta import line as one_line

MAX_BYTES = 4 * 1024 * 1024
MAX_NODES = 200_000  # a few lines of YAML aliases can grow to millions of values (threats.md 24)
MAX_FILES = 2_000
SUFFIXES = (".yaml", ".yml", ".json")
At = tuple[str | int, ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """Something wrong in a file. `where` is the field; `fix` says what to write instead."""

    file: str
    line: int
    where: str
    message: str
    fix: str = ""
    case: str = ""

    def __str__(self) -> str:
        case = f"case {self.case!r}: " if self.case else ""
        where = f"{self.where}: " if self.where else ""
        return one_line(f"{self.file}:{self.line}: {case}{where}{self.message}" + (f"; {self.fix}" if self.fix else ""), 2048)


class BadInputError(Exception):
    """Files that cannot be used, with everything that is wrong in them."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(str(p) for p in problems[:3]))
        self.problems = tuple(problems)


def bad(file: str | Path, message: str, fix: str = "", line: int = 1, where: str = "") -> BadInputError:
    """One problem as an exception."""
    return BadInputError([Problem(str(file), line, where, message, fix)])


@dataclass(frozen=True)
class Source:
    """Where a document, or a part of one, stands."""

    file: str
    lines: Mapping[At, int] = field(repr=False)
    root: At = ()

    def line(self, at: At = ()) -> int:
        """The line of that field, or of the nearest thing around it."""
        path = (*self.root, *at)
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def below(self, *at: str | int) -> Source:
        return Source(self.file, self.lines, (*self.root, *at))


@dataclass(frozen=True)
class Document:
    """One YAML document as plain values."""

    value: Any
    source: Source


class _Plain(yaml.SafeLoader):
    """As kubectl reads YAML: a moment in time stays the text that it is."""


_Plain.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def documents(path: Path, shown: str = "") -> list[Document]:
    """Every document of a file; `shown` is its name in messages. Raises BadInputError."""
    name = shown or str(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise bad(name, f"larger than {MAX_BYTES // 1024 // 1024} MiB", "policies are small: is this the right file?")
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise bad(name, f"cannot be read: {error.strerror if isinstance(error, OSError) else 'it is not UTF-8'}") from None
    return parsed(text, name)


def parsed(text: str, name: str) -> list[Document]:
    """Every document of a text. Raises BadInputError."""
    loader = _Plain(text)
    found = []
    try:
        while loader.check_node():
            node = loader.get_node()
            maker = _Maker(loader, name)
            value = maker.make(node, ())
            if value is not None:
                found.append(Document(value, Source(name, maker.lines)))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise bad(name, f"is no YAML: {error.problem or error.context}", line=line) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise bad(name, f"is no YAML: {error}") from None
    finally:
        loader.dispose()
    return found


class _Maker:
    """Plain values from nodes, and the line of each."""

    def __init__(self, loader: _Plain, name: str) -> None:
        self._loader, self._name, self._count = loader, name, 0
        self.lines: dict[At, int] = {}

    def make(self, node: yaml.Node | None, at: At) -> Any:
        self._count += 1
        if node is None:
            return None
        if self._count > MAX_NODES:
            raise bad(self._name, f"more than {MAX_NODES} values: aliases that grow?")
        self.lines.setdefault(at, node.start_mark.line + 1)
        match node:
            case yaml.MappingNode():
                return self._mapping(node, at)
            case yaml.SequenceNode():
                return [self.make(item, (*at, i)) for i, item in enumerate(node.value)]
            case _:
                return self._loader.construct_object(node)

    def _mapping(self, node: yaml.MappingNode, at: At) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                for part in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                    inner = self.make(part, at)
                    merged = {**(inner if isinstance(inner, dict) else {}), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise bad(self._name, "a key must be a word", line=line)
            key = str(key_node.value)
            if key in made:
                raise bad(self._name, f"the key {key!r} stands here twice", "keep one of them", line=line, where=dotted((*at, key)))
            self.lines[(*at, key)] = line
            made[key] = self.make(value_node, (*at, key))
        return {**merged, **made}


def dotted(at: At) -> str:
    """`spec.rules[0].level`."""
    out = ""
    for step in at:
        out += f"[{step}]" if isinstance(step, int) else f".{step}" if out else step
    return out


def files_of(path: Path, shown: str) -> Iterator[tuple[Path, str]]:
    """(file, name in messages) of a file, or of every YAML and JSON file below a directory, sorted. Raises BadInputError."""
    if path.is_file():
        yield path, shown
        return
    if not path.is_dir():
        raise bad(shown, "there is no such file or directory")
    found = sorted(
        Path(folder) / name
        for folder, folders, names in os.walk(path)  # follows no symbolic links to directories
        if _kept(folders)
        for name in names
        if name.endswith(SUFFIXES) and not name.startswith(".")
    )
    if len(found) > MAX_FILES:
        raise bad(shown, f"more than {MAX_FILES} files", "name the directory of the policies")
    for file in found:
        yield file, str(Path(shown) / file.relative_to(path))


def _kept(folders: list[str]) -> bool:
    """Leaves out hidden directories such as .git, in place, as os.walk wants it."""
    folders[:] = sorted(f for f in folders if not f.startswith("."))
    return True


def read_all(paths: Iterable[tuple[Path, str]], read: Callable[[Document], Iterable[T]]) -> tuple[list[T], list[Problem]]:
    """What `read` makes of every document below these files and directories, and everything that is wrong with them.

    `read` raises BadInputError for a document that it cannot use.
    """
    found: list[T] = []
    problems: list[Problem] = []
    for path, shown in paths:
        for file, name in files_of(path, shown):
            try:
                for document in documents(file, name):
                    found += read(document)
            except BadInputError as error:
                problems += error.problems
    return found, problems
