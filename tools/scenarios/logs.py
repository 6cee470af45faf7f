"""Scripted logs: files in the format of container runtimes, served as a copy whose last line is now."""

from __future__ import annotations

import datetime
import re
import shutil
from collections.abc import Callable
from pathlib import Path

_LINE = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) (stdout|stderr) [FP] ?", re.ASCII)


def copy_folder(source: Path, target: Path, rewrite: Callable[[str], str] = lambda text: text) -> Path:
    """A private copy of a scenario's folder, with its logs rewritten and shifted to now. Manifests are rewritten when they are read."""
    shutil.copytree(source, target)
    for path in _logs(target):
        path.write_text(rewrite(path.read_text()))
    shift(target)
    return target


def is_log(text: str) -> bool:
    """Whether the text is a log as container runtimes write it."""
    lines = [line for line in text.splitlines() if line]
    return bool(lines) and all(_LINE.match(line) for line in lines)


def shift(folder: Path, now: datetime.datetime | None = None) -> None:
    """Shifts the times in every log of a folder so that the newest line of all of them is now.

    One shift for all files: what happened before what stays as it was scripted. The simulator reads the files at each request.
    """
    logs = {path: path.read_text() for path in _logs(folder)}
    times = [time for text in logs.values() for line in text.splitlines() if line and (time := _time(line))]
    if not times:
        return
    by = (now or datetime.datetime.now(datetime.UTC)) - max(times)
    for path, text in logs.items():
        shifted = "".join(f"{_moved(line, by)}\n" if line else "\n" for line in text.splitlines())
        path.write_text(shifted)


def _logs(folder: Path) -> list[Path]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.suffix not in (".yaml", ".yml", ".json") and _readable(p)]
    return [path for path in files if is_log(path.read_text())]


def _readable(path: Path) -> bool:
    try:
        path.read_text()
    except UnicodeDecodeError:
        return False
    return True


def _time(line: str) -> datetime.datetime | None:
    match = _LINE.match(line)
    if match is None:
        return None
    zone = "+00:00" if match[3] == "Z" else match[3]
    micro = (match[2] or "0")[:6].ljust(6, "0")
    return datetime.datetime.fromisoformat(f"{match[1]}.{micro}{zone}")


def _moved(line: str, by: datetime.timedelta) -> str:
    match, time = _LINE.match(line), _time(line)
    assert match is not None
    assert time is not None
    moved = (time + by).astimezone(datetime.UTC)
    rest = line[match.start(4) :]
    return f"{moved.strftime('%Y-%m-%dT%H:%M:%S.%f')}000Z {rest}"
