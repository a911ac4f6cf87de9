import errno
import hashlib
import hmac
import io
import os
import stat

import numpy as np
import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError

VARIABLE = "DEEPSTEG_PASSPHRASE"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("typed\n"))


def at_prompt(monkeypatch, *answers):
    """A terminal at which the answers are typed; returns the list of those not yet asked for."""
    left = list(answers)
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda *_, **__: left.pop(0))
    return left


def saved(tmp_path, content):
    path = tmp_path / "passphrase.txt"
    path.write_bytes(content)
    return str(path)


def fails(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        keys.read_passphrase(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_from_environment(monkeypatch):
    monkeypatch.setenv(VARIABLE, " four words and spaces ")
    assert keys.read_passphrase() == " four words and spaces "


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"one line", "one line"),
        (b"first\nsecond\n", "first"),
        (b"windows\r\nsecond\r\n", "windows"),
        (b" kept spaces \n", " kept spaces "),
        ("pässwörd\n".encode(), "pässwörd"),
    ],
)
def test_from_file(tmp_path, content, expected):
    assert keys.read_passphrase(saved(tmp_path, content)) == expected


def test_what_is_no_text_is_not_told(tmp_path):
    assert fails(saved(tmp_path, b"abc\xe4")).endswith("passphrase.txt is not text in UTF-8")


@pytest.mark.parametrize("given", [("", None), (None, "")])
def test_an_empty_name_is_not_no_name(given, monkeypatch):
    """As "$KEY" of a shell where KEY is not set."""
    monkeypatch.setenv(VARIABLE, "an old passphrase")
    with pytest.raises(UserError, match="file is empty: is a variable"):
        keys.read_credential(*given)


def test_file_wins_over_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "from the environment")
    assert keys.read_passphrase(saved(tmp_path, b"from the file\n")) == "from the file"


def test_environment_wins_over_prompt(monkeypatch):
    left = at_prompt(monkeypatch, "typed")
    monkeypatch.setenv(VARIABLE, "set")
    assert keys.read_passphrase() == "set"
    assert left == ["typed"]


def test_prompt_asks_once_or_twice(monkeypatch):
    left = at_prompt(monkeypatch, "typed", "left over")
    assert keys.read_passphrase() == "typed"
    assert left == ["left over"]
    left = at_prompt(monkeypatch, "typed", "typed", "left over")
    assert keys.read_passphrase(confirm=True) == "typed"
    assert left == ["left over"]


def test_prompt_entries_differ(monkeypatch):
    at_prompt(monkeypatch, "typed", "tpyed")
    assert "differ" in fails(confirm=True)


def test_missing():
    message = fails()
    assert VARIABLE in message
    assert "a passphrase file" in message


def test_no_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert VARIABLE in fails()


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\nsecond line\r\n"])
def test_empty_file(tmp_path, content):
    assert "empty" in fails(saved(tmp_path, content))


def test_empty_environment(monkeypatch):
    monkeypatch.setenv(VARIABLE, "")
    assert "empty" in fails()


def test_empty_prompt(monkeypatch):
    at_prompt(monkeypatch, "", "")
    assert "empty" in fails(confirm=True)


def test_unreadable_file(tmp_path):
    missing = str(tmp_path / "nothing_here.txt")
    assert missing in fails(missing)
    assert str(tmp_path) in fails(str(tmp_path))  # a folder
    not_text = saved(tmp_path, b"\xff\xfe\x80 not UTF-8")
    assert not_text in fails(not_text)


def test_environment_that_is_not_text(monkeypatch):
    monkeypatch.setenv(VARIABLE, "p\udcff")  # how Python shows a byte that is not UTF-8
    assert "UTF-8" in fails()


@pytest.mark.parametrize("weak", ["password", "p", "aaaaaaaaaaaaaaaaaaaa", "12121212121212", "hunter2!Abc"])
def test_weak_passphrases(weak):
    assert "weak" in keys.weakness(weak)


@pytest.mark.parametrize("good", ["correct horse battery", "tHequ1ckbr0wnf", bytes(32)])
def test_passphrases_and_keys_that_are_not_weak(good):
    assert keys.weakness(good) == ""


# --- key files -----------------------------------------------------------------------------------


def key_file_fails(path, call=keys.read_key_file):
    with pytest.raises(UserError) as caught:
        call(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o777], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_key_file_is_for_the_owner_only(tmp_path, umask):
    path = tmp_path / "video.key"
    keys.write_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 & ~umask
    path.chmod(0o600)
    assert keys.read_key_file(path) == path.read_bytes()
    assert len(path.read_bytes()) == keys.KEY_BYTES


def test_key_files_hold_fresh_keys(tmp_path, monkeypatch):
    for name in ("one", "other"):
        keys.write_key_file(str(tmp_path / name))
    assert keys.read_key_file(tmp_path / "one") != keys.read_key_file(str(tmp_path / "other"))
    monkeypatch.setattr(keys, "random_key", lambda: bytes(range(32)))
    keys.write_key_file(tmp_path / "fixed")
    assert keys.read_key_file(tmp_path / "fixed") == bytes(range(32))


def test_key_files_are_binary_where_text_differs(tmp_path, monkeypatch):
    """As on Windows, by a flag that Linux does not have: here it asks for appending."""
    monkeypatch.setattr(os, "O_BINARY", os.O_APPEND, raising=False)
    flags, opened = [], os.open
    monkeypatch.setattr(os, "open", lambda path, flag, *mode: flags.append(flag) or opened(path, flag, *mode))
    keys.write_key_file(tmp_path / "video.key")
    assert flags[0] & os.O_BINARY


@pytest.mark.parametrize("content", [b"", b"precious", bytes(32)])
def test_key_files_are_never_overwritten(tmp_path, content):
    path = tmp_path / "video.key"
    path.write_bytes(content)
    assert "never overwritten" in key_file_fails(path, keys.write_key_file)
    assert path.read_bytes() == content


def test_key_files_are_not_written_through_links(tmp_path):
    link, goal = tmp_path / "link", tmp_path / "goal"
    link.symlink_to(goal)
    key_file_fails(link, keys.write_key_file)
    assert not goal.exists()


def test_key_file_that_cannot_be_written(tmp_path):
    key_file_fails(tmp_path, keys.write_key_file)  # a folder
    key_file_fails(tmp_path / "missing" / "video.key", keys.write_key_file)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_key_file(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space" in key_file_fails(tmp_path / "video.key", keys.write_key_file)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 31, 33, 64, 100_000])
def test_key_file_of_the_wrong_length(tmp_path, size):
    path = tmp_path / "video.key"
    path.write_bytes(b"secret! " * (size // 8) + b"secret! "[: size % 8])
    message = key_file_fails(path)
    assert "32 bytes" in message and "keygen" in message
    assert "secret" not in message


def test_key_file_that_cannot_be_read(tmp_path):
    assert "No such file" in key_file_fails(tmp_path / "missing.key")
    assert "directory" in key_file_fails(tmp_path)


def test_credential_is_what_is_given(tmp_path, monkeypatch):
    words, key = saved(tmp_path, b"from the file\n"), tmp_path / "video.key"
    keys.write_key_file(key)
    assert keys.read_credential(words, None) == "from the file"
    monkeypatch.setenv(VARIABLE, "from the environment")
    assert keys.read_credential() == "from the environment"
    assert keys.read_credential(key_file=str(key)) == key.read_bytes()
    left = at_prompt(monkeypatch, "typed", "typed", "left over")
    monkeypatch.delenv(VARIABLE)
    assert keys.read_credential(confirm=True) == "typed"
    assert left == ["left over"]


def test_two_credentials(tmp_path):
    words, key = saved(tmp_path, b"words\n"), tmp_path / "video.key"
    keys.write_key_file(key)
    with pytest.raises(UserError, match="--key_file and --passphrase_file") as caught:
        keys.read_credential(words, str(key))
    assert "\n" not in str(caught.value)


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("passphrase", ["correct horse", "pässwörd ☃"])
def test_key_of_a_passphrase_is_argon2id(passphrase):
    """RFC 9106, section 4, second option: 3 passes, 64 MiB, 4 lanes, 128 bits of salt, 256 bits of key."""
    salt = bytes(range(16))
    argon = Argon2id(salt=salt, length=32, iterations=3, lanes=4, memory_cost=64 * 1024)
    assert keys.derive_key(passphrase, salt) == argon.derive(passphrase.encode("utf-8"))
    assert keys.derive_key(passphrase, bytes(16)) != keys.derive_key(passphrase, salt)


@pytest.mark.parametrize(
    "composed, decomposed", [("\u00fc\u00e9", "u\u0308e\u0301"), ("\uac00", "\u1100\u1161")]
)
def test_both_unicode_forms_of_a_passphrase_open(composed, decomposed):
    """macOS types the one, Windows and Linux the other."""
    assert keys.derive_key(composed, bytes(16)) == keys.derive_key(decomposed, bytes(16))
    assert keys.derive_key("u", bytes(16)) != keys.derive_key("\u00fc", bytes(16))


def test_argon2id_is_that_of_the_rfc():
    """RFC 9106, section 5.3: what the other tests compare with is Argon2id as published."""
    argon = Argon2id(
        salt=b"\2" * 16, length=32, iterations=3, lanes=4, memory_cost=32, ad=b"\4" * 12, secret=b"\3" * 8
    )
    tag = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"
    assert argon.derive(b"\1" * 32).hex() == tag


@pytest.mark.parametrize(
    ("credential", "expected"),
    [
        ("correct horse", "577f1ff37e9a3e52c97d39f8e83891c1b73b0e87ffe0429cee8ede2fb005fe44"),
        (bytes(range(32)), "05cca9f2f57676537904ff3578322b848f337df76972b1832b3e87db4385d814"),
    ],
)
def test_keys_stay_what_they_are(credential, expected):
    """A stego made today opens after any upgrade."""
    assert keys.derive_key(credential, bytes(range(16))).hex() == expected


def test_key_of_a_key_file_is_hkdf():
    """RFC 5869, extract and expand, written out."""
    content, salt = bytes(range(32)), bytes(range(16))
    extracted = hmac.new(salt, content, hashlib.sha256).digest()
    expected = hmac.new(extracted, b"deepsteg key file\x01", hashlib.sha256).digest()
    assert keys.derive_key(content, salt) == expected


def test_every_bit_of_a_key_file_counts():
    salt, content = bytes(16), bytes(32)
    made = {keys.derive_key(content, salt), keys.derive_key(content, bytes(15) + b"\1")}
    made |= {keys.derive_key((1 << bit).to_bytes(32, "little"), salt) for bit in range(256)}
    assert len(made) == 258
    assert all(len(key) == keys.KEY_BYTES for key in made)


def test_a_passphrase_is_no_key_file():
    words = "thirty-two letters make one key."
    assert len(words) == 32
    assert keys.derive_key(words, bytes(16)) != keys.derive_key(words.encode(), bytes(16))


def test_subkey_is_hkdf_expand():
    key = bytes(range(32))
    for purpose in ("shuffle", "side information"):
        expected = hmac.new(key, b"deepsteg " + purpose.encode() + b"\x01", hashlib.sha256).digest()
        assert keys.subkey(key, purpose) == expected


def test_subkeys_differ():
    key = bytes(range(32))
    made = {keys.subkey(key, purpose) for purpose in ("a", "b", "aa", "")}
    made |= {keys.subkey(bytes(32), "a"), key}
    assert len(made) == 6
    assert all(len(one) == keys.KEY_BYTES for one in made)


def test_words_round_trip():
    key = hashlib.sha256(b"any").digest()
    words = keys.key_words(key)
    assert words.dtype == np.uint32
    assert words.shape == (8,)
    assert words.astype("<u4").tobytes() == key
    assert [int(word) for word in words] == [
        int.from_bytes(key[i : i + 4], "little") for i in range(0, 32, 4)
    ]


def test_random_keys():
    one, other = keys.random_key(), keys.random_key()
    assert len(one) == len(other) == keys.KEY_BYTES
    assert one != other
