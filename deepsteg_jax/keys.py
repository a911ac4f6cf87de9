"""From a passphrase to the keys of one video."""

import getpass
import os
import sys
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from deepsteg_jax.errors import UserError

KEY_BYTES = 32
SALT_BYTES = 16
PASSPHRASE_VARIABLE = "DEEPSTEG_PASSPHRASE"


def read_passphrase(passphrase_file: str | None = None, confirm: bool = False) -> str:
    """The passphrase from a file's first line, else from DEEPSTEG_PASSPHRASE, else from a hidden prompt.

    Args:
        passphrase_file: path of the file, or None.
        confirm: ask twice at the prompt.

    Raises:
        UserError: there is none, it is empty or not text, or the two entries differ.
    """
    if passphrase_file:
        try:
            passphrase = Path(passphrase_file).read_text(encoding="utf-8-sig").partition("\n")[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read the passphrase file {passphrase_file}: {error}") from None
    elif PASSPHRASE_VARIABLE in os.environ:
        passphrase = os.environ[PASSPHRASE_VARIABLE]
    elif sys.stdin is not None and sys.stdin.isatty():
        try:
            passphrase = getpass.getpass("Passphrase: ")
            if confirm and passphrase != getpass.getpass("Passphrase again: "):
                raise UserError("the two passphrases differ: start again")
        except EOFError:
            raise UserError("no passphrase was entered: start again") from None
    else:
        raise UserError(
            f"no passphrase: set {PASSPHRASE_VARIABLE}, or give --passphrase_file, or use a terminal"
        )
    if not passphrase:
        raise UserError("the passphrase is empty: choose one that is hard to guess")
    try:
        passphrase.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(f"the passphrase is not UTF-8 text: set {PASSPHRASE_VARIABLE} to text") from None
    return passphrase


def random_key() -> bytes:
    """A fresh 256-bit key from the operating system."""
    return os.urandom(KEY_BYTES)


def derive_key(passphrase: str, salt: bytes) -> bytes:
    """The 256-bit key of a passphrase and a video's salt (scrypt, RFC 7914; about 0.1 s, 32 MiB)."""
    return Scrypt(salt=salt, length=KEY_BYTES, n=2**15, r=8, p=1).derive(passphrase.encode("utf-8"))


def subkey(key: bytes, purpose: str) -> bytes:
    """An independent 256-bit key for one purpose (HKDF-Expand with SHA-256, RFC 5869)."""
    return HKDFExpand(hashes.SHA256(), KEY_BYTES, f"deepsteg {purpose}".encode()).derive(key)


def key_words(key: bytes) -> np.ndarray:
    """A 256-bit key as the 8 little-endian uint32 words that the compiled graph takes."""
    return np.frombuffer(key, "<u4").astype(np.uint32)
