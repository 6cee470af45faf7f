"""Keys as people keep them: a Secret for the operator, and a ConfigMap with the public keys that vouch or once did.

The ConfigMap has, for each key, `<id>.pem` (the public key), `<id>.since`, and once it is retired `<id>.last-valid` (RFC 3339).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from ..adapters import signer
from ..domain.audit import stamp
from ..domain.verifying import Key, Keyring
from ..settings import OPERATOR_NAMESPACE
from .errors import usage

SECRET, KEYS = "nightorders-audit-key", "nightorders-audit-keys"
LARGEST = 256 * 1024  # bytes
LABELS = {"app.kubernetes.io/name": "nightorders", "app.kubernetes.io/part-of": "nightorders"}


class _Literal(yaml.SafeDumper):
    """YAML in which a key stands on lines of its own."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Literal.add_representer(str, _text)


def keyring(data: Mapping[str, Any], where: str) -> Keyring:
    """Public keys out of a ConfigMap's data. Raises CommandError, naming the entry that cannot be used."""
    keys: dict[str, Key] = {}
    public = {}
    for name, pem in data.items():
        if not name.endswith(".pem"):
            continue
        try:
            found = signer.read_public(str(pem))
        except ValueError as error:
            raise usage(f"{where}: {name}: {error}") from None
        made = signer.key_id(found)
        if name not in (f"{made}.pem", "key.pem"):  # who reads the id in the file's name must be able to rely on it
            raise usage(f"{where}: {name} holds the key {made}; it must be called {made}.pem")
        public[made] = found
        keys[made] = Key(made, _time(data, f"{made}.since", where), _time(data, f"{made}.last-valid", where))
    if not keys:
        raise usage(f"{where} holds no public key: none of its entries ends in .pem")
    return Keyring(keys, lambda key, message, value: signer.fits(public[key], message, value))


def _time(data: Mapping[str, Any], name: str, where: str) -> datetime | None:
    if name not in data:
        return None
    value = data[name]
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        raise usage(f"{where}: {name} is no time such as 2026-07-01T12:00:00Z") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def from_file(path: Path) -> dict[str, Any]:
    """The data of a ConfigMap manifest (alone, among other documents, or in a List), or of one bare public key in PEM."""
    try:
        if path.stat().st_size > LARGEST:
            raise usage(f"{path} is too large to hold keys")
        content = path.read_text()
        if content.lstrip().startswith("-----BEGIN"):
            return {"key.pem": content}
        documents = [d for d in yaml.safe_load_all(content) if isinstance(d, dict)]
    except OSError as error:
        raise usage(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise usage(f"{path} is neither YAML nor a public key in PEM") from None
    items = [i for d in documents for i in (d.get("items") or [d]) if isinstance(i, dict)]
    maps = [i for i in items if i.get("kind") == "ConfigMap"]
    named = [m for m in maps if (m.get("metadata") or {}).get("name") == KEYS] or maps
    if len(named) != 1 or not isinstance(named[0].get("data"), dict):
        raise usage(f"{path} must hold one ConfigMap with public keys; it holds {len(named)}")
    return dict(named[0]["data"])


def generated(now: datetime, overlap: timedelta, old: Mapping[str, Any]) -> str:
    """Secret and ConfigMap with a new key, as YAML. `old`: the ConfigMap's data before; its keys stay valid for `overlap` longer.

    (The kubelet brings a changed Secret into the pods within a minute or two; until then the operator signs with the old key.)
    """
    made, private, public = signer.generate()
    data: dict[str, str] = {}
    if old:
        before = keyring(old, "the keys so far")
        for key, info in before.keys.items():
            data[f"{key}.pem"] = str(old.get(f"{key}.pem") or old["key.pem"])
            if info.since:
                data[f"{key}.since"] = stamp(info.since)
            data[f"{key}.last-valid"] = stamp(info.last_valid or now + overlap)
    data |= {f"{made}.pem": public, f"{made}.since": stamp(now)}
    secret = _manifest("Secret", SECRET) | {"type": "Opaque", "stringData": {"key.pem": private}}
    return str(yaml.dump_all([secret, _manifest("ConfigMap", KEYS) | {"data": data}], Dumper=_Literal, sort_keys=False, width=140))


def _manifest(kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": OPERATOR_NAMESPACE, "labels": dict(LABELS)}}
