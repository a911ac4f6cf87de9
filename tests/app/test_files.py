import os
import stat
import time

import pytest

from deepsteg_jax.app import files
from deepsteg_jax.app.files import Store, url
from deepsteg_jax.errors import UserError


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path) as store:
        yield store


def received(store, name="clip.mkv", content=b"pictures"):
    """A file as gradio receives it."""
    folder = store.uploads / f"hash{len(list(store.uploads.iterdir()))}"
    folder.mkdir()
    (folder / name).write_bytes(content)
    return folder / name


def test_only_the_owner_may_look(store):
    path = store.desk("a").new("stego.mkv")
    for folder in (store.root, store.uploads, path.parent, path.parent.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_received_file_moves_to_the_desk(store):
    upload = received(store, "my clip.mkv")
    path = store.desk("a").take(upload)
    assert path.read_bytes() == b"pictures" and path.name == "my clip.mkv"
    assert not upload.exists() and not list(store.uploads.iterdir())
    assert url(path) == f"files/{path.parent.name}/my%20clip.mkv"


@pytest.mark.parametrize("path", ["/etc/passwd", "uploads/../secret.txt", "uploads", "uploads/none.mkv"])
def test_nothing_else_is_taken(store, path):
    (store.root / "secret.txt").write_text("secret")
    desk = store.desk("a")
    with pytest.raises(UserError, match="did not arrive"):
        desk.take(store.root / path)
    link = store.uploads / "link.mkv"
    link.symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="did not arrive"):
        desk.take(link)
    assert (store.root / "secret.txt").exists()


def test_a_file_is_found_by_token_and_name_only(store):
    first, second = (store.desk(user).take(received(store, f"{user}.mkv")) for user in "ab")
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
        ("uploads", "x"),
        ("..", "x"),
        ("", ""),
    ]:
        assert store.find(token, name) is None
    (first.parent / "link").symlink_to("/etc/passwd")
    assert store.find(tokens[0], "link") is None


def test_leaving_removes_the_files_of_one_user(store):
    first, second = (store.desk(user).take(received(store)) for user in "ab")
    store.leave("a")
    store.leave("nobody")
    assert not first.parent.parent.exists() and second.exists()
    assert store.find(first.parent.name, first.name) is None
    assert store.find(second.parent.name, second.name) == second
    assert store.desk("a").new("x").parent.parent != first.parent.parent


def test_leaving_waits_for_what_works_there(store):
    desk = store.desk("a")
    path = desk.take(received(store))
    with desk.in_use():
        store.leave("a")
        assert path.exists() and store.find(path.parent.name, path.name) is None
        desk.new("made.mkv").write_bytes(b"made")
    assert not path.parent.parent.exists()
    with pytest.raises(UserError, match="closed"), desk.in_use():
        pass


def test_keep_only(store):
    desk = store.desk("a")
    paths = [desk.take(received(store, f"{i}.mkv")) for i in range(3)]
    desk.keep_only(paths[1:2])
    assert [path.exists() for path in paths] == [False, True, False]
    assert [store.find(path.parent.name, path.name) for path in paths] == [None, paths[1], None]


def test_what_nobody_took_is_swept(store):
    old, new = received(store, "old.mkv"), received(store, "new.mkv")
    before = time.time() - files.UPLOAD_AGE_S - 1
    os.utime(old.parent, (before, before))
    store.leave("anybody")
    assert not old.exists() and new.exists()


def test_nothing_is_left_at_the_end(tmp_path):
    with pytest.raises(KeyboardInterrupt), Store(tmp_path) as store:
        store.desk("a").new("x").write_bytes(b"x")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_no_place_for_the_folder(tmp_path):
    with pytest.raises(UserError, match="TMPDIR"):
        Store(tmp_path / "none")
