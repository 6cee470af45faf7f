"""Ed25519 keys from a file: ids, rotation without a restart, and files that are no key."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat, PublicFormat

from nightorders.adapters import signer
from nightorders.adapters.signer import FileSigner


def states() -> tuple[list[tuple[bool, str]], object]:
    seen: list[tuple[bool, str]] = []
    return seen, lambda on, message: seen.append((on, message))


def test_the_id_is_of_the_raw_public_key(tmp_path: Path) -> None:
    made, private, public = signer.generate()
    raw = signer.read_public(public).public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert made == hashlib.sha256(raw).hexdigest()[:16]
    (tmp_path / "key.pem").write_text(private)
    signed = FileSigner(tmp_path / "key.pem").sign(b"words")
    assert signed is not None
    assert signed.key_id == made
    assert signer.fits(signer.read_public(public), b"words", signed.signature)
    assert not signer.fits(signer.read_public(public), b"other words", signed.signature)
    assert not signer.fits(signer.read_public(public), b"words", "no base64!")


def test_a_new_file_is_a_new_key_and_the_old_one_still_vouches(tmp_path: Path) -> None:
    seen, on_state = states()
    path = tmp_path / "key.pem"
    mine = FileSigner(path, on_state)  # type: ignore[arg-type]
    assert mine.sign(b"x") is None
    assert seen[-1][0] is False
    first, private, _ = signer.generate()
    path.write_text(private)
    one = mine.sign(b"x")
    assert one is not None
    assert one.key_id == first
    # As the kubelet does it: another file behind a link.
    second, private, _ = signer.generate()
    (tmp_path / "next.pem").write_text(private)
    (tmp_path / "next.pem").replace(path)
    two = mine.sign(b"x")
    assert two is not None
    assert two.key_id == second != first
    assert mine.fits(first, b"x", one.signature) is True
    assert mine.fits(first, b"y", one.signature) is False
    assert mine.fits("0" * 16, b"x", one.signature) is None
    path.unlink()
    assert mine.sign(b"x") is None
    assert [on for on, _ in seen] == [False, True, True, False]
    mine.sign(b"x")
    assert len(seen) == 4  # said once


def other(kind: str) -> bytes:
    key = ed25519.Ed25519PrivateKey.generate()
    match kind:
        case "encrypted":
            return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
        case "elliptic":
            return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        case "public":
            return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        case "large":
            return b"x" * (signer.LARGEST + 1)
        case "empty":
            return b""
        case _:
            return b"hunter2"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("encrypted", "passphrase"),
        ("elliptic", "not an Ed25519 key"),
        ("public", "not a private key"),
        ("large", "too large"),
        ("empty", "not a private key"),
        ("words", "not a private key"),
    ],
)
def test_what_is_no_key_signs_nothing_and_is_named_without_its_content(tmp_path: Path, kind: str, words: str) -> None:
    seen, on_state = states()
    (tmp_path / "key.pem").write_bytes(other(kind))
    assert FileSigner(tmp_path / "key.pem", on_state).sign(b"x") is None  # type: ignore[arg-type]
    (on, message) = seen[0]
    assert not on
    assert words in message
    assert "hunter2" not in message


def test_no_file_is_named() -> None:
    seen, on_state = states()
    assert FileSigner(None, on_state).sign(b"x") is None  # type: ignore[arg-type]
    assert seen == [(False, signer.NO_FILE)]


@pytest.mark.parametrize("pem", ["", "x", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"])
def test_what_is_no_public_key(pem: str) -> None:
    with pytest.raises(ValueError, match="public key"):
        signer.read_public(pem)
