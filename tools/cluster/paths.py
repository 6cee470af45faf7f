"""Where the test cluster keeps its files.

* cache (survives): ``${XDG_CACHE_HOME:-~/.cache}/nightorders/`` - built programs, the Go toolchain
* state (of running clusters): ``${XDG_RUNTIME_DIR or tmp}/nightorders-<uid>/<name>/``
* etcd data: on ``/dev/shm`` when it can be written, else in the state directory
"""

from __future__ import annotations

import atexit
import os
import re
import secrets
import shutil
import stat
import tempfile
from pathlib import Path

from tools.cluster.errors import ClusterError

# The name becomes part of a Unix socket path, which may have about 100 bytes in all.
MAX_NAME = 40
# What etcd may take: its quota and two log files of 64 MB. Containers often have only 64 MB of /dev/shm.
_DATA_BYTES = 700 * 1024 * 1024
_NAME = re.compile(rf"[a-z0-9]([a-z0-9-]{{0,{MAX_NAME - 2}}}[a-z0-9])?")


def cache_root() -> Path:
    """The directory for what is built once and kept. It may not exist yet."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "nightorders"


def state_root() -> Path:
    """The private directory (mode 0700) that holds one directory per local cluster.

    Raises ClusterError when the place belongs to somebody else: in a shared ``/tmp`` another user
    could otherwise hand us certificates and process ids of their choice.
    """
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    root = base / f"nightorders-{os.getuid()}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ClusterError(f"{root} belongs to another user; set XDG_RUNTIME_DIR to a directory of your own")
    if found.st_mode & 0o077:
        root.chmod(0o700)
    return root


def check_name(name: str) -> str:
    """The name itself when it can name a cluster; ClusterError says what is allowed otherwise."""
    if not _NAME.fullmatch(name):
        raise ClusterError(f"{name!r} cannot name a cluster: lower-case letters, digits and '-', at most {MAX_NAME} characters")
    return name


def state_directory(name: str) -> Path:
    """Where the local cluster of that name keeps its state, whether it runs or not."""
    return state_root() / check_name(name)


def new_data_directory(name: str, fallback: Path) -> Path:
    """An empty private directory for etcd: in memory where possible, since etcd writes on every change."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free >= _DATA_BYTES
    if roomy and os.access(memory, os.W_OK | os.X_OK):
        path = memory / f"nightorders-{os.getuid()}-{name}-{secrets.token_hex(4)}"
    else:
        path = fallback / "etcd"
    path.mkdir(mode=0o700)
    return path


def temporary_directory(purpose: str) -> Path:
    """A new private directory that is removed when this process ends."""
    path = Path(tempfile.mkdtemp(prefix=f"nightorders-{purpose}-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path
