"""What a sender makes of a cover."""

from types import SimpleNamespace

import numpy as np
import pytest

from deepsteg_jax import media
from deepsteg_jax.channels import ladder
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes.base import Pair
from deepsteg_jax.schemes.robust import sender
from deepsteg_jax.schemes.robust.sender import RobustSender, Secret, SegmentSender
from tests.schemes.robust.conftest import ABOUT, FRAMES, KEY, SIZE, load_scheme, reveal
from tests.synthetic import in_planes, smooth


def test_a_cover_in_which_nothing_outlasts_a_codec_is_refused(parties):
    """In so few symbols that they do not hold a header."""
    hiding = RobustSender(parties.scheme.segment_sender([KEY], 96, 160), [ABOUT], [None])
    (cover,) = media.unstack(in_planes(smooth(1, 96, 160)))
    assert not hiding.send(Pair(cover, smooth(1, 60, 100)[0]))
    with pytest.raises(UserError, match="nothing outlasts a codec"):
        hiding.finish()


@pytest.mark.parametrize(
    ("rooms", "chosen", "layer"),
    [
        ({"messenger": 80, "site-480-vp9": 70, "C11": 300}, "site-480-vp9", 0),
        ({"messenger": 46, "site-480-vp9": 140, "C11": 300}, "messenger", 0),
        ({"messenger": 30, "site-480-vp9": 140, "C11": 300}, "site-480-vp9", 0),
        ({"messenger": 30, "site-480-vp9": 36, "C11": 50, "CRF28": 90}, "CRF28", 0),
        ({"C11": 20, "CRF28": 40}, "CRF28", 0),
        ({"CRF25-480": 1000, "CRF25": 3000}, "CRF25-480", 1),
        ({"CRF25-480": 100, "CRF25": 3000}, "CRF25", 1),
        ({"CRF25": 100}, "CRF25", 1),
    ],
)
def test_the_worst_run_with_room_bounds_a_layer(rooms, chosen, layer, monkeypatch):
    monkeypatch.setattr(SegmentSender, "_capacity_through", lambda self, received, i, codec: rooms[codec])
    received = SimpleNamespace(codecs=lambda i: list(rooms), runs=SimpleNamespace(start=lambda names: None))
    sender = SegmentSender.__new__(SegmentSender)
    assert sender._capacity(received, layer) == (rooms[chosen], chosen)


@pytest.mark.parametrize(
    ("codec", "spent", "kept"),
    [("site-480-av1", 1_000_000, 0.25), ("messenger", 960_000, 0.625), ("CRF25-480", 9_000_000, 1)],
)
def test_less_is_kept_behind_a_bit_rate_the_more_a_segment_alone_spends(
    codec, spent, kept, parties, monkeypatch
):
    """`spent`: bits per second; 8,000 bits that nothing disturbs."""
    bits = np.random.default_rng(0).integers(0, 2, 8000, dtype=np.uint8)
    taken = SimpleNamespace(size_bytes=float(spent * FRAMES / ABOUT.rate / 8))
    received = SimpleNamespace(
        read=lambda i, codec: (20.0 - 40.0 * bits, bits),
        runs=SimpleNamespace(through=lambda name: taken),
        segment=SimpleNamespace(header=SimpleNamespace(length=FRAMES, metadata=ABOUT)),
    )
    sender = parties.scheme.segment_sender([KEY], *SIZE)
    monkeypatch.setattr(sender, "_margin", 1.0)
    most = sender._capacity_through(received, 0, "CRF28")
    assert sender._capacity_through(received, 0, codec) == pytest.approx(kept * most, rel=0.05)


@pytest.mark.parametrize(
    ("size", "measured", "repeat"), [(40, [0, 2, 4], 1), (90, [0, 1, 2, 3, 4], 1), (120, [0, 1, 2, 3, 4], 2)]
)
def test_growth_is_measured_less_often_far_below_its_limit(size, measured, repeat, monkeypatch):
    """Of covers of 100 bytes, with frames that share nothing and, once that takes too much, by twos."""
    numbers = []

    def sent(self, number, cover, plain, repeat):
        taken = SimpleNamespace(size_bytes=size // repeat)
        runs = SimpleNamespace(start=lambda names: None, through=lambda name: taken)
        return [SimpleNamespace(runs=runs, repeat=repeat)]

    def run(*cover):
        numbers.append(number)
        return SimpleNamespace(size_bytes=100)

    monkeypatch.setattr(SegmentSender, "_filled", sent)
    monkeypatch.setattr(ladder, "run", run)
    sender = SegmentSender.__new__(SegmentSender)
    sender._growth, sender._at, sender._share = 1.0, 0, 1.0
    sender._formats = [SimpleNamespace(repeats=(1, 2))]
    header = SimpleNamespace(length=32, metadata=ABOUT)
    for number in range(5):
        (received,) = sender._modulated(number, None, [header])
    assert numbers == measured and received.repeat == repeat


def test_runs_that_do_not_scale_a_small_cover_are_left_out_unless_there_is_no_other():
    frames = in_planes(np.zeros((1, 64, 96, 3), np.uint8))
    for codecs, found in [
        (("messenger", "C11", "CRF28"), ["C11", "CRF28"]),
        (("site-480-vp9", "messenger"), ["messenger"]),
    ]:
        layers = SimpleNamespace(layers=[SimpleNamespace(codecs=codecs)])
        sent = SimpleNamespace(stego=frames, segments=[SimpleNamespace(format=layers)])
        assert sender._Received(sent, 0, None, None).codecs(0) == found


def test_of_single_frames_that_is_sent_whose_layers_survive_the_runs_they_were_made_for(monkeypatch):
    """Of three salts the second; a layer behind the one codec run, another behind another."""
    chosen, read = {0: "CRF28", 1: "CRF25"}, []
    layers = [SimpleNamespace(coarse=True), SimpleNamespace(coarse=True), SimpleNamespace(coarse=False)]
    header = SimpleNamespace(capacities=(60, 700, 80))

    def received(self, sent):
        segment = SimpleNamespace(header=header, format=SimpleNamespace(layers=layers))
        return [SimpleNamespace(segment=segment, read=lambda i, codec: (sent, read.append((sent, i, codec))))]

    monkeypatch.setattr(SegmentSender, "_received", received)
    monkeypatch.setattr(sender, "_is_decoded", lambda sent, bits, size: sent == 1 or size == 480)
    sending = SegmentSender.__new__(SegmentSender)
    assert sending._most_readable(iter(range(3)), [chosen]) == 1
    assert read == [(sent, i, chosen[i]) for sent in (0, 1) for i in (0, 1)]


def test_what_a_lossy_file_erases_is_left_out(parties):
    """Luma stays, and the receiver, who knows nothing of the file, reads the rest."""
    secret, cover = smooth(FRAMES, 60, 100, seed=5), in_planes(smooth(FRAMES, *SIZE) // 2 + 60)
    sender = parties.scheme.segment_sender([KEY], *SIZE, exact=False)
    stego = sender.send(0, cover, [Secret(secret, ABOUT)]).stego
    assert np.array_equal(stego.y, cover.y) and not np.array_equal(stego.cb, cover.cb)
    (part,) = reveal(parties, stego)
    assert (part.layers, part.of) == (2, 2)


@pytest.mark.slow
def test_a_cover_that_stands_still_shares_symbols(parties):
    grain = np.random.default_rng(0).integers(0, 24, (1, *SIZE, 3))
    cover = (smooth(1, *SIZE) // 2 + 60 + grain).astype(np.uint8)
    cover = in_planes(np.repeat(cover, FRAMES, axis=0))
    secret, config = smooth(FRAMES, 60, 100, seed=5), parties.config.copy_and_resolve_references()
    config.growth, config.repeats = 1.2, (1, 4, 8)
    config.secret_layers = config.secret_layers[:2]
    sender = load_scheme(config).segment_sender([KEY], *SIZE)
    sent = sender.send(0, cover, [Secret(secret, ABOUT)])
    stego = sent.stego
    (segment,) = sent.segments
    assert segment.header.repeat == 8
    assert np.array_equal(stego.y, cover.y)
    moves = np.stack([stego.cb, stego.cr]).astype(int) - np.stack([cover.cb, cover.cr])
    alike = moves[:, 1:4] == moves[:, :3]  # all but pilots, of which every frame has its own
    assert 0.5 < alike.mean() < 1 and moves.any()
    sizes = [ladder.run(ladder.named("C6"), frames).size_bytes for frames in (stego, cover)]
    assert sizes[0] < 1.5 * sizes[1]
    (part,) = reveal(parties, stego)
    assert part.frames.shape == secret.shape
    assert 8 * part.layers < part.payload <= sum(segment.header.capacities)
    errors = [sender.phase_errors(sent, frames) for frames in (stego, cover)]
    exact, none = (np.abs(x - np.round(x)).mean() for x in errors)
    assert exact < 0.01 and 0.2 < none < 0.3  # a quarter of a turn where nothing was written
