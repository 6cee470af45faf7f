"""Ed25519 keys: the operator's own, from a file that may change at any time, and the making and reading of others for people.

A key's id is the first 16 hex digits of the SHA-256 of its 32 raw public bytes.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ..api.meta import line
from ..ports import Signed

NO_FILE = "no key file is named (NIGHTORDERS_AUDIT_KEY_FILE)"
LARGEST = 16 * 1024  # bytes; a key in PEM has about 120


def key_id(key: Ed25519PublicKey) -> str:
    """16 hex digits."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def generate() -> tuple[str, str, str]:
    """A new key: (id, private key as PEM, public key as PEM)."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key()
    return (
        key_id(public),
        private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
    )


def read_public(pem: str) -> Ed25519PublicKey:
    """Raises ValueError for anything but an Ed25519 public key."""
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"no public key in PEM: {line(str(error), 128)}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("the key is not an Ed25519 public key")
    return key


def fits(key: Ed25519PublicKey, message: bytes, signature: str) -> bool:
    """Whether that key made the signature (base64)."""
    try:
        key.verify(base64.b64decode(signature, validate=True), message)
    except (InvalidSignature, ValueError):
        return False
    return True


class FileSigner:
    """Implements `Signer`. The file is looked at before each signature, so a rotated key needs no restart.

    `on_state(signing, message)` is called at the first look and at every change. Public keys stay known after their file is gone.
    """

    def __init__(self, path: Path | None, on_state: Callable[[bool, str], None] = lambda *_: None) -> None:
        self._path = path
        self._on_state = on_state
        self._seen: tuple[object, ...] | None = None
        self._private: Ed25519PrivateKey | None = None
        self._id = ""
        self._public: dict[str, Ed25519PublicKey] = {}

    def sign(self, message: bytes) -> Signed | None:
        self.look()
        if self._private is None:
            return None
        return Signed(self._id, base64.b64encode(self._private.sign(message)).decode())

    def fits(self, key_id: str, message: bytes, signature: str) -> bool | None:
        self.look()
        public = self._public.get(key_id)
        return None if public is None else fits(public, message, signature)

    def look(self) -> None:
        """Reads the key again if its file is another one than before. Tiny and local, so not worth a thread."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        self._private, self._id, message = None, "", NO_FILE
        if self._path is not None:
            try:
                self._private = _private(self._path)
            except (OSError, ValueError) as error:  # the message of either names the problem and never the content
                message = line(f"{self._path}: {error.strerror if isinstance(error, OSError) else error}", 256)
        if self._private is not None:
            public = self._private.public_key()
            self._id = key_id(public)
            self._public[self._id] = public
            message = f"key {self._id}"
        self._on_state(self._private is not None, message)

    def _stamp(self) -> tuple[object, ...]:
        if self._path is None:
            return ()
        try:
            s = os.stat(self._path)  # noqa: PTH116  follows the links that the kubelet swaps
        except OSError as error:
            return (error.errno,)
        return (s.st_dev, s.st_ino, s.st_mtime_ns, s.st_size)


def _private(path: Path) -> Ed25519PrivateKey:
    if path.stat().st_size > LARGEST:
        raise ValueError("too large to be a key")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except TypeError:
        raise ValueError("the key is encrypted with a passphrase, which nobody could give here") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("not a private key in PEM (PKCS 8)") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("not an Ed25519 key")
    return key
