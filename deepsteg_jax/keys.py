"""From a passphrase or a key file to the keys of one video.

    passphrase -- Argon2id, salt -.
                                   >- master key -- HKDF-Expand, purpose --> a key for each purpose
    key file   -- HKDF, salt -----'

The salt is random and new for every video, so no two videos share a key.
"""

import getpass
import os
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from deepsteg_jax.errors import UserError

KEY_BYTES = 32
SALT_BYTES = 16
LEAST_CHARACTERS, LEAST_DIFFERENT = 12, 6  # of a passphrase: `weakness` warns of less
PASSPHRASE_VARIABLE = "DEEPSTEG_PASSPHRASE"

Credential = str | bytes  # a passphrase, or the content of a key file


def read_passphrase(passphrase_file: str | None = None, confirm: bool = False) -> str:
    """Return the passphrase: a file's first line, else DEEPSTEG_PASSPHRASE, else that of a hidden prompt.

    Args:
        passphrase_file: path of the file, or None.
        confirm: ask twice at the prompt.

    Raises:
        UserError: there is none, it is empty or not text, or the two entries differ.
    """
    if passphrase_file is not None:
        try:
            passphrase = Path(passphrase_file).read_text(encoding="utf-8-sig").partition("\n")[0].rstrip("\r")
        except UnicodeDecodeError:  # whose message has a byte of it
            raise UserError(f"the passphrase file {passphrase_file} is not text in UTF-8") from None
        except OSError as error:
            reason = f"cannot read the passphrase file {passphrase_file!r}: {error.strerror}"
            raise UserError(reason) from None
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
            f"no passphrase: set {PASSPHRASE_VARIABLE}, or give a passphrase file, or use a terminal"
        )
    return check_passphrase(passphrase)


def check_passphrase(passphrase: str) -> str:
    """Return the passphrase as it is.

    Raises:
        UserError: it is empty or not text.
    """
    if not passphrase:
        raise UserError("the passphrase is empty: choose one that is hard to guess")
    try:
        passphrase.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError("the passphrase is not UTF-8 text: choose another one") from None
    return passphrase


def check_each(credentials: Sequence[Credential], secrets: int) -> None:
    """Raise UserError unless each of the secrets has a key of its own."""
    if len(credentials) != secrets:
        raise UserError(f"{secrets} secrets need as many keys, not {len(credentials)}: one for each")
    if len({_bytes_of(credential) for credential in credentials}) < len(credentials):
        raise UserError("two secrets have the same passphrase or key: each needs one of its own")


def _bytes_of(credential: Credential) -> bytes:
    """Return a key file's content, or a passphrase in Unicode's composed form NFC, since keyboards differ."""
    return credential if isinstance(credential, bytes) else unicodedata.normalize("NFC", credential).encode()


def weakness(credential: Credential) -> str:
    """Return a warning about a passphrase that is soon guessed; empty for all others and for key files."""
    if isinstance(credential, bytes):
        return ""
    if len(credential) >= LEAST_CHARACTERS and len(set(credential)) >= LEAST_DIFFERENT:
        return ""
    return "the passphrase is weak: whoever has the stego could guess it; five random words are better"


def read_key_file(path: str | Path) -> bytes:
    """Return the 32 bytes of a key file.

    Raises:
        UserError: it cannot be read, or has another size.
    """
    try:
        with Path(path).open("rb") as file:
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read the key file {path}: {error.strerror}") from None
    if len(key) != KEY_BYTES:
        raise UserError(f"{path} is not a key file of {KEY_BYTES} bytes: make one with deepsteg keygen")
    return key


def write_key_file(path: str | Path) -> None:
    """Write 32 random bytes that only the owner can read (permissions 0600).

    Raises:
        UserError: the file is there already, or cannot be written.
    """
    try:
        binary = getattr(os, "O_BINARY", 0)  # without it Windows writes two bytes for a line feed
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | binary, 0o600)
    except FileExistsError:
        raise UserError(f"{path} exists: a key is never overwritten, give another name") from None
    except OSError as error:
        raise UserError(f"cannot write the key file {path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(random_key())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        Path(path).unlink(missing_ok=True)
        raise UserError(f"cannot write the key file {path}: {error.strerror}") from None


def read_credential(
    passphrase_file: str | None = None, key_file: str | None = None, confirm: bool = False
) -> Credential:
    """Return a key file's bytes if there is one, else the passphrase, see `read_passphrase`.

    Raises:
        UserError: as `read_key_file` and `read_passphrase`, if a name is empty, or both files are given.
    """
    for name, path in (("key", key_file), ("passphrase", passphrase_file)):
        if path == "":
            raise UserError(f"the name of the {name} file is empty: is a variable of the shell not set?")
    if key_file is not None and passphrase_file is not None:
        raise UserError("--key_file and --passphrase_file exclude each other: give one of them")
    return read_passphrase(passphrase_file, confirm) if key_file is None else read_key_file(key_file)


def random_key() -> bytes:
    """Draw a fresh 256-bit key from the operating system."""
    return os.urandom(KEY_BYTES)


def derive_key(credential: Credential, salt: bytes) -> bytes:
    """Derive the 256-bit master key of one video.

    Args:
        credential: a passphrase goes through Argon2id (RFC 9106, second recommended option: 3 passes over
            64 MiB in 4 lanes, about 0.1 s), in the composed form; the bytes of a key file through HKDF-SHA256
            (RFC 5869).
        salt: the video's, 16 bytes.

    Returns:
        32 bytes.
    """
    if isinstance(credential, bytes):
        return HKDF(hashes.SHA256(), KEY_BYTES, salt, b"deepsteg key file").derive(credential)
    argon = Argon2id(salt=salt, length=KEY_BYTES, iterations=3, lanes=4, memory_cost=2**16)
    return argon.derive(_bytes_of(credential))


class Deriver:
    """Derives the master keys of one credential, each of them once."""

    def __init__(self, credential: Credential):
        """Take a passphrase or the bytes of a key file."""
        self._credential, self._known = credential, {}

    def __call__(self, salt: bytes) -> bytes:
        """Return `derive_key` of this salt."""
        if salt not in self._known:
            self._known[salt] = derive_key(self._credential, salt)
        return self._known[salt]

    @property
    def count(self) -> int:
        """The number of derivations so far."""
        return len(self._known)


def subkey(key: bytes, purpose: str) -> bytes:
    """Derive an independent 256-bit key for one purpose (HKDF-Expand with SHA-256, RFC 5869)."""
    return HKDFExpand(hashes.SHA256(), KEY_BYTES, f"deepsteg {purpose}".encode()).derive(key)


def key_words(key: bytes) -> np.ndarray:
    """Return a 256-bit key as the 8 little-endian words that the compiled graph takes, uint32 [8]."""
    return np.frombuffer(key, "<u4").astype(np.uint32)
