import errno
import stat
from pathlib import Path

import pytest

from deepsteg_jax.app.files import Folder, Store, TooLarge, type_of, url
from deepsteg_jax.errors import UserError


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path, limit=1000) as store:
        yield store


def received(folder, name="clip.mkv", content=b"pictures"):
    """A file as the page receives it."""
    with folder.upload(name) as upload:
        upload.write(content)
    return upload.path


def test_only_the_owner_may_look(store):
    path = Folder(store).new("stego.mkv")
    for folder in (store.root, path.parent, path.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_file_is_found_by_token_and_name_only(store):
    folders = [Folder(store) for _ in "ab"]
    first, second = (received(folder, f"{user}.mkv") for folder, user in zip(folders, "ab", strict=True))
    tokens = [path.parent.name for path in (first, second)]
    assert store.find(tokens[0], "a.mkv") == first and store.find(tokens[1], "b.mkv") == second
    assert tokens[0] != tokens[1] and min(map(len, tokens)) >= 32
    for token, name in [
        (tokens[0], "b.mkv"),
        (tokens[0], f"../{tokens[1]}/b.mkv"),
        (tokens[0], ".."),
        (tokens[0], ""),
        (tokens[0], "/etc/passwd"),
        (first.parent.parent.name, tokens[0]),
        ("..", "x"),
        ("", ""),
    ]:
        assert store.find(token, name) is None
    (first.parent / "link").symlink_to("/etc/passwd")
    assert store.find(tokens[0], "link") is None
    assert url(received(folders[0], "my clip.mkv")).endswith("/my%20clip.mkv")


def test_limits_count_what_is_there(store):
    folder = Folder(store)
    first = received(folder, "first.mkv", bytes(900))
    with pytest.raises(TooLarge, match="large.mkv is too large"):
        received(folder, "large.mkv", bytes(1001))
    for number in range(3):
        received(folder, f"{number}.mkv", bytes(1000))
    with pytest.raises(TooLarge, match="together"):
        received(Folder(store), "last.mkv", bytes(101))
    folder.drop(first)
    received(Folder(store), "last.mkv", bytes(1000))
    assert sum(path.stat().st_size for path in store.root.rglob("*.mkv")) == 4000


def test_a_full_disk_is_told(store, monkeypatch):
    class Full:
        def write(self, block):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    folder = Folder(store)
    with pytest.raises(UserError, match="its disk is full"), folder.upload("a.mkv") as upload:
        upload._file = Full()
        upload.write(b"x")
    assert not list(store.root.rglob("a.mkv"))


def test_closing_removes_the_files_of_one_page(store):
    folders = [Folder(store) for _ in range(2)]
    first, second = (received(folder) for folder in folders)
    folders[0].close()
    folders[0].close()
    assert not first.parent.parent.exists() and second.exists()
    assert store.find(first.parent.name, first.name) is None
    assert store.find(second.parent.name, second.name) == second


def test_closing_waits_for_what_works_there(store):
    folder = Folder(store)
    path = received(folder)
    with folder.in_use():
        folder.close()
        assert path.exists() and store.find(path.parent.name, path.name) is None
        with pytest.raises(UserError, match="closed"):
            received(folder, "late.mkv")
        folder.new("made.mkv").write_bytes(b"made")
    assert not path.parent.parent.exists()
    with pytest.raises(UserError, match="closed"), folder.in_use():
        pass


def test_keep_only(store):
    folder = Folder(store)
    paths = [received(folder, f"{i}.mkv") for i in range(3)]
    folder.keep_only(paths[1:2])
    assert [path.exists() for path in paths] == [False, True, False]
    assert [store.find(path.parent.name, path.name) for path in paths] == [None, paths[1], None]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.MP4", "video/mp4"),
        ("a.mkv", "video/x-matroska"),
        ("a.jpg", "image/jpeg"),
        ("a.svg", "application/octet-stream"),
        ("a.html", "application/octet-stream"),
        ("a.pdf", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ],
)
def test_types(name, kind):
    assert type_of(Path(name)) == kind


def test_nothing_is_left_at_the_end(tmp_path):
    with pytest.raises(KeyboardInterrupt), Store(tmp_path) as store:
        Folder(store).new("x").write_bytes(b"x")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_no_place_for_the_folder(tmp_path):
    with pytest.raises(UserError, match="TMPDIR"):
        Store(tmp_path / "none")
