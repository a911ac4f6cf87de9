import hashlib
import hmac
import io

import numpy as np
import pytest

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
    assert "--passphrase_file" in message


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


@pytest.mark.parametrize("passphrase", ["correct horse", "pässwörd ☃"])
def test_key_is_scrypt(passphrase):
    salt = bytes(range(16))
    expected = hashlib.scrypt(
        passphrase.encode("utf-8"), salt=salt, n=32768, r=8, p=1, maxmem=2**26, dklen=32
    )
    assert keys.derive_key(passphrase, salt) == expected
    assert keys.derive_key(passphrase, bytes(16)) != expected


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
