"""What the page does for a visitor, over HTTP."""

import threading

import numpy as np
import pytest

from tests.app.serving import KEY, Visitor, ask, hide_form, need, wait_for
from tests.helpers import read_stack
from tests.synthetic import save, smooth

need("fastapi", "app")


SIZE = {"height": 64, "width": 96}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    save(folder / "holiday film.mkv", smooth(8, **SIZE))
    save(folder / "short.mkv", smooth(4, **SIZE))
    save(folder / "secret.mkv", smooth(8, **SIZE, seed=1))
    save(folder / "large.mkv", smooth(8, 96, 128, seed=1))
    save(folder / "cover.png", smooth(1, 96, 128)[0][None])
    save(folder / "secret.png", smooth(1, 96, 128, seed=1)[0][None])
    (folder / "letter.html").write_text("<script>alert(1)</script>")
    return folder


def dropped(visitor, clips, cover="holiday film.mkv", secret="secret.mkv"):
    visitor.drop("cover", clips / cover)
    visitor.drop("secret", clips / secret)


def estimate(visitor, **changes):
    form = hide_form(**changes)
    del form["passphrase"], form["again"]
    return visitor.post("estimate", **form)


def test_hide_reveal_and_compare(page, visitor, clips):
    assert "96 × 64, 0.3 s" in visitor.drop("cover", clips / "holiday film.mkv")
    assert estimate(visitor) == {"html": "", "short": False}
    visitor.drop("secret", clips / "secret.mkv")
    said = estimate(visitor, quality="quick")["html"]
    assert "holiday film.mkv, 96 × 64" in said and "at its own size, 96 × 64" in said
    told = visitor.run("hide", **hide_form(quality="quick"))
    assert told["said"].startswith("Done: the secret is inside (took ") and told["tab"] == "hide"
    assert "8 frames of 96 × 64" in told["result"] and "frames/s" not in told["result"]
    status, headers, stego = visitor.fetch(told["result"])
    assert status == 200 and stego[:4] == b"\x1aE\xdf\xa3"  # matroska
    assert "holiday%20film.mkv" in headers["Content-Disposition"]

    assert "holiday film.mkv" in visitor.post("slots/stego")["card"]
    wrong = visitor.run("reveal", passphrase="wrong")
    assert wrong["said"].startswith("Nothing could be revealed. Either the passphrase")
    told = visitor.run("reveal", passphrase=KEY)
    assert told["said"].startswith("Done (took ") and "holiday film revealed.mp4" in told["result"]
    assert visitor.fetch(told["result"])[2][4:8] == b"ftyp"  # MP4, for watching

    told = visitor.run("compare")
    assert len(told["frames"]) == told["total"] == 8 and told["chart"].startswith("<svg")
    assert "the mean of 8 frames" in told["said"] and told["frames"][3]["number"] == 4
    for address in told["frames"][0]["pictures"]:
        assert ask(page.address, "GET", f"/{address}")[2][:3] == b"\xff\xd8\xff"


def test_any_file_travels_bit_for_bit(visitor, clips):
    dropped(visitor, clips, secret="letter.html")
    assert "as its own file, bit for bit (1 kB)" in estimate(visitor)["html"]
    assert (
        "only “Send it as a file” takes such files"
        in estimate(visitor, wish="post", quality="secret")["html"]
    )
    told = visitor.run("hide", **hide_form())
    assert "Download holiday film.mp4" in told["result"] and "a copy for watching" not in told["result"]
    visitor.post("slots/stego")
    told = visitor.run("reveal", passphrase=KEY)
    assert "browsers do not show" in told["result"] and "<video" not in told["result"]
    _, headers, content = visitor.fetch(told["result"])
    assert content == (clips / "letter.html").read_bytes() and "attachment" in headers["Content-Disposition"]


def test_what_the_secret_will_come_back_as(visitor, clips):
    dropped(visitor, clips, secret="large.mkv")
    said = estimate(visitor, wish="post", quality="balanced")["html"]
    assert "smaller, at 85 × 64 (its own: 128 × 96), coarser" in said
    assert "A larger result" in said
    said = estimate(visitor)["html"]
    assert "coded again" in said and "fit" in said
    assert "holiday film.mp4, 96 × 64" in said


def test_mistakes_and_a_cover_that_is_too_short(visitor, clips):
    assert visitor.refused("hide", **hide_form()) == "Drop a cover first."
    assert visitor.put("cover", "none.mkv", b"")[1]["problem"] == "none.mkv is empty: it has 0 bytes."
    assert "text.mkv is not a video" in visitor.put("cover", "text.mkv", b"this is no video")[1]["problem"]
    visitor.drop("cover", clips / "cover.png")
    assert visitor.refused("hide", **hide_form()) == "Drop a secret first."
    visitor.drop("secret", clips / "secret.mkv")
    post = {"wish": "post", "quality": "balanced"}
    assert "needs a video as its cover" in visitor.refused("hide", **hide_form(**post))
    visitor.drop("cover", clips / "short.mkv")
    assert visitor.refused("hide", **hide_form(passphrase="")).startswith("Choose a passphrase")
    assert visitor.refused("hide", **hide_form(again="b")).startswith("The two passphrases are not the same")
    told = estimate(visitor, **post)
    short = "The cover lasts 0.2 s and the secret 0.3 s: tick “Repeat the cover”, or drop a longer one."
    assert told["short"] and short in told["html"]
    assert visitor.refused("hide", **hide_form(**post)) == short
    told = visitor.run("hide", **hide_form(**post, loop=True))
    assert "8 frames" in told["result"] and "wherever its size in pixels stays" in told["result"]
    assert visitor.refused("compare").startswith("Not there yet: revealed.")


def test_pictures(visitor, clips):
    dropped(visitor, clips, "cover.png", "secret.png")
    told = visitor.run("hide", **hide_form(quality="quick"))
    assert "cover.png" in told["result"] and visitor.fetch(told["result"])[2][1:4] == b"PNG"
    visitor.post("slots/stego")
    told = visitor.run("reveal", passphrase=KEY)
    assert "cover revealed.png" in told["result"]


def test_a_file_is_taken_back(page, visitor, clips):
    dropped(visitor, clips)
    visitor.drop("compare_stego", clips / "short.mkv")
    assert "short.mkv" in visitor.send("GET", "parts")[1]["stego"]["card"]
    for slot in ("cover", "compare_stego"):
        assert visitor.send("DELETE", f"slots/{slot}") == (200, {})
    assert visitor.send("GET", "parts")[1]["stego"] == {"card": "", "dropped": False}
    assert visitor.refused("hide", **hide_form()) == "Drop a cover first."
    assert [path.name for path in page.store.root.rglob("*.mkv")] == ["secret.mkv"]


def test_a_file_that_is_refused_takes_the_place_of_the_one_before(visitor, clips, tmp_path):
    dropped(visitor, clips)
    (tmp_path / "empty.mkv").write_bytes(b"")
    assert visitor.put("cover", tmp_path / "empty.mkv")[0] != 200
    assert visitor.refused("hide", **hide_form()) == "Drop a cover first."


def test_a_re_encoded_stego_is_compared_with_what_it_revealed(visitor, clips, tmp_path):
    dropped(visitor, clips)
    told = visitor.run("hide", **hide_form(quality="quick"))
    (tmp_path / "stego.mkv").write_bytes(visitor.fetch(told["result"])[2])
    frames = read_stack(tmp_path / "stego.mkv")
    frames[3] ^= 0xF0  # what a stand-in does not read
    save(tmp_path / "sent on.mkv", frames)
    visitor.drop("stego", tmp_path / "sent on.mkv")
    visitor.run("reveal", passphrase=KEY)
    parts = visitor.send("GET", "parts")[1]
    assert "sent on.mkv" in parts["stego"]["card"] and "revealed" in parts["revealed"]["card"]
    told = visitor.run("compare")
    stego = [float(frame["stego_db"]) for frame in told["frames"]]
    assert min(stego) == stego[3] < 20


def test_examples(visitor):
    assert "640 × 272, 10.0 s" in visitor.post("slots/cover", sample="bikes.mp4")["card"]
    assert "reload" in visitor.refused("slots/cover", sample="../../secret.mp4")
    assert visitor.refused("slots/stego") == "Nothing was hidden here yet."


def test_stopping_and_waiting(page, visitor, clips, monkeypatch):
    """One's own job that ends slowly is not called other people's."""
    go = threading.Event()
    monkeypatch.setattr("deepsteg_jax.app.work.hide", lambda job, *_: (job.stage("Hiding"), go.wait(60)))
    dropped(visitor, clips)
    visitor.post("hide", **hide_form(quality="quick"))
    session, status = page.sessions.of(visitor.token), page.app.state.page._status
    wait_for(lambda: status(session)["said"] == "Hiding …")
    assert "still running" in visitor.refused("hide", **hide_form())
    visitor.post("stop")
    assert visitor.ended()["said"] == "Stopped. Nothing was kept."
    visitor.post("hide", **hide_form(quality="quick"))
    assert status(session)["said"] == "Waiting until what you stopped has ended …"
    other = Visitor(page)
    dropped(other, clips)
    other.post("hide", **hide_form(quality="quick"))
    assert status(page.sessions.of(other.token))["said"].startswith("Waiting: 2 jobs of other people first")
    go.set()
    page.sessions.close(other.token)
    visitor.ended()


def test_our_own_faults(visitor, clips, monkeypatch, capsys):
    monkeypatch.setattr("deepsteg_jax.app.work.hide", lambda *_: 1 / 0)
    dropped(visitor, clips)
    assert "not through you" in visitor.run("hide", **hide_form())["said"]
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_the_passphrase_is_kept_nowhere(page, visitor, clips, capsys):
    dropped(visitor, clips)
    visitor.run("hide", **hide_form(quality="quick"))
    session = page.sessions.of(visitor.token)
    assert KEY not in repr(vars(session)) + repr(vars(session.job)) + "".join(visitor.answers)
    for path in page.store.root.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()
    assert np.all([KEY not in text for text in capsys.readouterr()])
