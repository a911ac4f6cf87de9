import re
from fractions import Fraction

import numpy as np
import pytest

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes import metadata
from deepsteg_jax.schemes.metadata import Packet, Packets

STEPS = (1, 2, 3, 5, 32)
CREDENTIAL = bytes(range(32))  # a key file's content, since a passphrase takes 0.1 s each time
OTHER = bytes(range(1, 33))
SALTS = (bytes(range(100, 116)), bytes(range(200, 216)))
FINGERPRINT = b"8 bytes."
INFO = metadata.SideInfo(
    width=320,
    height=240,
    frames=1234,
    carriers=1500,
    rate=Fraction(30000, 1001),
    timed=False,
    turned=False,
    aspect=Fraction(1),
    packet_bytes=20,
    sound_start=0,
    sound_bytes=0,
    checkpoint="video",
    fingerprint=FINGERPRINT,
    salt=SALTS[0],
)
MASTER = keys.derive_key(CREDENTIAL, SALTS[0])


def noise(height=24, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(value, height=24, width=40):
    return np.full((height, width, 3), value, np.uint8)


def marked(frame, info=INFO, number=0, credential=CREDENTIAL, step=3):
    """A frame that holds the record; `number` is 0 or 1."""
    master = keys.derive_key(credential, SALTS[number])
    return metadata.embed_record(frame, frame, SALTS[number], master, info, step)


def stego(info=INFO, credential=CREDENTIAL, step=3):
    """The first two frames of a stego."""
    return [marked(noise(seed=number), info, number, credential, step) for number in (0, 1)]


def opened(frames, credential=CREDENTIAL, fingerprint=FINGERPRINT, step=3):
    return metadata.open_record(frames, credential, fingerprint, step)


def closed(frames, *args, **kwargs):
    """Whatever is wrong, the receiver hears the same."""
    with pytest.raises(UserError) as caught:
        opened(frames, *args, **kwargs)
    assert str(caught.value) == metadata.NOTHING


def bits_of(frame, step=3):
    return frame.ravel() // step % 2


def spoil(frame, place, step=3):
    """Turns the bit at a place over."""
    bad = frame.flatten()
    bad[place] = bad[place] + step if bad[place] < 128 else bad[place] - step
    return bad.reshape(frame.shape)


# --- record --------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("frame", [noise(), flat(0), flat(255), flat(128)], ids=["noise", "0", "255", "128"])
def test_round_trip_and_how_far_samples_move(frame, step):
    before = frame.copy()
    with_record = marked(frame, step=step)
    np.testing.assert_array_equal(frame, before)
    assert with_record.dtype == np.uint8 and with_record.shape == frame.shape
    assert opened([with_record], step=step) == (INFO, MASTER)
    change = with_record.astype(int) - frame
    assert set(np.abs(change).ravel()) == {0, step}  # so nothing wrapped around at 0 or 255
    np.testing.assert_array_equal(with_record % step, frame % step)
    assert np.count_nonzero(change) < 80 + 170  # half of the salt's bits, one sample for 4 bits of the record


@pytest.mark.parametrize(
    "facts",
    [
        {"width": 1, "height": 1, "frames": 1, "carriers": 1, "rate": Fraction(1), "packet_bytes": 0},
        {"width": 65_535, "height": 65_535, "frames": 2**32 - 1, "carriers": 2**32 - 1},
        {"rate": Fraction(2**32 - 1), "timed": True},
        {"rate": Fraction(1, 65_535), "turned": True},
        {"rate": Fraction(90_000), "timed": True, "turned": True},
        {"aspect": Fraction(255, 254), "packet_bytes": 65_535},
        {"aspect": Fraction(1, 255)},
        {"sound_start": -(2**31), "sound_bytes": 2**32 - 1},
        {"sound_start": 2**31 - 1, "sound_bytes": 1},
        {"checkpoint": ""},
        {"checkpoint": "12345678"},
        {"checkpoint": "größe"},
    ],
)
def test_extreme_facts(facts):
    info = INFO._replace(**facts)
    assert opened([marked(noise(), info)])[0] == info


@pytest.mark.parametrize(("name", "kept"), [("123456789", "12345678"), ("1234567é", "1234567")])
def test_long_names_are_cut(name, kept):
    assert opened([marked(noise(), INFO._replace(checkpoint=name))])[0].checkpoint == kept


def test_fractions_are_rounded():
    info = INFO._replace(rate=Fraction(10**12 + 1, 10**11), aspect=Fraction(1000, 999))
    found = opened([marked(noise(), info)])[0]
    assert abs(float(found.rate) - 10) < 1e-4
    assert abs(float(found.aspect) - 1) < 2e-3


@pytest.mark.parametrize("aspect", [Fraction(300), Fraction(1, 600), Fraction(0)])
def test_aspects_beyond_reason_are_square(aspect):
    assert opened([marked(noise(), INFO._replace(aspect=aspect))])[0].aspect == 1


@pytest.mark.parametrize("size", [(16, 16), (1, 256), (17, 16)])
def test_smallest_image(size):
    """With 768 samples for 768 bits, places that were not distinct would overwrite each other."""
    metadata.check_size(*size)
    for step in (1, 32):
        frame = marked(noise(*size), step=step)
        assert opened([frame], step=step) == (INFO, MASTER)


@pytest.mark.parametrize(
    ("size", "word"), [((15, 17), "256 pixels"), ((1, 1), "small"), ((65_536, 16), "large")]
)
def test_sizes_that_are_refused(size, word):
    with pytest.raises(UserError, match=word) as caught:
        metadata.check_size(*size)
    assert "{}x{}".format(*size) in str(caught.value) and "\n" not in str(caught.value)


def test_record_fills_the_smallest_frame():
    assert metadata._RECORD_BITS == 3 * metadata.SMALLEST_PIXELS


# --- what the receiver hears ----------------------------------------------------------------------


def test_wrong_credentials():
    for credential in (OTHER, CREDENTIAL[:-1] + b"\0", "a passphrase"):
        closed(stego(), credential)
    closed(stego(credential="four words"), "Four words")
    assert opened(stego(credential="four words"), "four words")[0] == INFO


def test_wrong_checkpoint():
    closed(stego(), fingerprint=b"8 other.")
    closed(stego(), step=4)


@pytest.mark.parametrize("frame", [noise(), flat(0), flat(255)], ids=["noise", "0", "255"])
def test_nothing_hidden(frame):
    closed([frame])
    closed([frame, frame])


@pytest.mark.parametrize("size", [(1, 1), (15, 17)])
def test_frames_too_small(size):
    closed([noise(*size)] * 2)


@pytest.mark.parametrize("step", [1, 3])
def test_every_flipped_bit_is_noticed(step):
    frame = marked(noise(), step=step)
    before = bits_of(frame, step)
    salt_places, room, _ = metadata._public_places(frame.size)
    key = keys.subkey(MASTER, "record places")
    used = metadata._picked(key, 0, metadata._RECORD_BYTES, room)
    for place in [*salt_places[::17], *used[:: len(used) // 23]]:
        bad = spoil(frame, place, step)
        assert np.count_nonzero(bits_of(bad, step) != before) == 1
        closed([bad], step=step)
    other = noise(seed=9).flatten()  # and whatever happens elsewhere does no harm
    kept = np.concatenate([salt_places, used])
    other[kept] = frame.ravel()[kept]
    assert opened([other.reshape(frame.shape)], step=step) == (INFO, MASTER)


def test_recoded():
    """Noise of one level is enough."""
    noisy = [
        np.clip(frame + np.random.default_rng(5).integers(-1, 2, frame.shape), 0, 255) for frame in stego()
    ]
    closed([frame.astype(np.uint8) for frame in noisy])


def test_other_version(monkeypatch):
    monkeypatch.setattr(metadata, "VERSION", metadata.VERSION + 1)
    newer = stego()
    assert opened(newer)[0] == INFO
    monkeypatch.undo()
    closed(newer)
    assert opened(stego())[0] == INFO


def test_work_is_the_same_whatever_is_wrong(monkeypatch):
    """Nobody learns from the time it takes whether something is hidden."""
    calls, derive_key = [], keys.derive_key
    whole = stego()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metadata, "VERSION", metadata.VERSION + 1)
        newer = stego()

    def counted(*args):
        calls.append(args)
        return derive_key(*args)

    monkeypatch.setattr(keys, "derive_key", counted)
    for attempt in (
        {"frames": whole, "credential": OTHER},
        {"frames": whole, "fingerprint": b"8 other."},
        {"frames": whole, "step": 4},
        {"frames": newer},
        {"frames": [noise(), noise(seed=1)]},
        {"frames": [flat(0), flat(0)]},
        {"frames": [noise(15, 17)] * 2},
        {"frames": [spoil(frame, metadata._public_places(frame.size)[0][0]) for frame in whole]},
    ):
        calls.clear()
        closed(**attempt)
        assert len(calls) == 2
    calls.clear()
    closed([noise()])
    assert len(calls) == 1


# --- the second copy ------------------------------------------------------------------------------


def test_either_frame_is_enough():
    """The key of the video is that of the first frame's salt, wherever the record was found."""
    first, second = stego()
    lost = noise(seed=7)
    assert keys.derive_key(CREDENTIAL, SALTS[1]) != MASTER
    for frames in ([first, second], [first, lost], [first], [lost, second], [flat(0), second]):
        assert opened(frames) == (INFO, MASTER)


def test_the_second_frame_may_stand_in_for_the_first():
    """As a player's repair of a damaged first frame leaves it."""
    second = stego()[1]
    assert opened([second, second]) == opened([second]) == (INFO, MASTER)


def test_a_first_frame_of_another_video_does_not_hide_the_second():
    foreign = marked(noise(seed=3), INFO._replace(fingerprint=b"8 other."))
    assert opened([foreign, stego()[1]]) == (INFO, MASTER)


# --- looks ---------------------------------------------------------------------------------------


def read_bits(number, seed):
    """The salt and the sealed record as they lie in a frame of zeros, as bits."""
    master = keys.derive_key(bytes([seed]) * 32, SALTS[number])
    salt = np.random.default_rng([seed, number]).bytes(16)
    frame = metadata.embed_record(flat(0), flat(0), salt, master, INFO, 3)
    salt_places, room, _ = metadata._public_places(frame.size)
    found = metadata.low_bits.read(frame.ravel(), salt_places, 16, 3)
    assert found == salt
    places = metadata._picked(keys.subkey(master, "record places"), 0, metadata._RECORD_BYTES, room)
    found += metadata.low_bits.read(frame.ravel(), places, metadata._RECORD_BYTES, 3)
    return np.unpackbits(np.frombuffer(found, np.uint8))


def test_bits_look_random():
    """One record for all: ones, and equal neighbours, are half of all bits, whichever key or frame it is."""
    found = np.stack([read_bits(number, seed) for seed in range(20) for number in (0, 1)])
    for coins in (found, found[:, 1:] ^ found[:, :-1], found[1:] ^ found[:-1]):
        assert abs(coins.mean() - 0.5) < 4 * 0.5 / coins.size**0.5
        expected = len(coins) / 2
        chi_square = ((coins.sum(0) - expected) ** 2 / (expected / 2)).mean()  # of each bit, one degree each
        assert abs(chi_square - 1) < 4 * (2 / coins.shape[1]) ** 0.5


def test_equal_records_are_sealed_differently():
    one, two = (read_bits(number, 1)[128:] for number in (0, 1))
    assert 0.4 < np.mean(one != two) < 0.6


def test_places_are_distinct_and_apart():
    for size in (768, 2688, 2689, 10_000):
        parts = metadata._public_places(size)
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(size))
        assert len(parts[0]) == 128 and len(parts[1]) == min(2560, size - 128)


def test_places_of_two_keys_differ():
    _, room, others = metadata._public_places(30_000)
    for among in (room, others):
        one, two = (metadata._picked(key, 0, 40, among) for key in (CREDENTIAL, OTHER))
        assert np.mean(one == two) < 0.05
        assert len(np.unique(one)) == len(one)
        chance = len(one) / len(among)
        assert np.mean(np.isin(one, two)) < chance + 4 * (chance * (1 - chance) / len(one)) ** 0.5


def test_salt_is_readable_without_the_key():
    for credential in (CREDENTIAL, OTHER):
        frame = marked(noise(), credential=credential)
        places = metadata._public_places(frame.size)[0]
        assert metadata.low_bits.read(frame.ravel(), places, 16, 3) == SALTS[0]


# --- packets -------------------------------------------------------------------------------------

PACKET = Packet(77, 2**32 - 1, b"sound of fury")
CONTENT = metadata.PACKET_HEAD.size + len(PACKET.sound)


def big(seed=0):
    return noise(64, 64, seed)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("frame", [big(), flat(0, 64, 64), flat(255, 64, 64)], ids=["noise", "0", "255"])
def test_packets_round_trip(frame, step):
    packets = Packets(MASTER, CONTENT, step)
    before = frame.copy()
    carried = packets.embed(frame, frame, 5, PACKET)
    np.testing.assert_array_equal(frame, before)
    assert packets.extract(carried, 5) == PACKET
    assert set(np.abs(carried.astype(int) - frame).ravel()) == {0, step}
    assert Packets(MASTER, CONTENT, step).extract(carried, 5) == PACKET


def test_short_sound_is_filled_up():
    packets = Packets(MASTER, 20, 3)
    carried = packets.embed(big(), big(), 1, Packet(0, 0, b"ab"))
    assert packets.extract(carried, 1) == Packet(0, 0, b"ab" + bytes(10))


@pytest.mark.parametrize("content", [8, 9, 500, 1184])
def test_packets_of_all_sizes(content):
    assert metadata.packet_room(big().size) == (64 * 64 * 3 - 2688) // 8 - 16 == 1184
    packets = Packets(MASTER, content, 3)
    packet = Packet(1, 2, np.random.default_rng(0).bytes(content - 8))
    assert packets.extract(packets.embed(big(), big(), 2**32, packet), 2**32) == packet


def test_packet_room():
    assert metadata.packet_room(768) == metadata.packet_room(2688) == 0
    assert metadata.packet_room(2688 + 8 * 24) == 8
    assert metadata.packet_room(2688 + 8 * 24 - 1) == 7
    assert metadata.packet_room(1920 * 1080 * 3) == 65_535  # more does not fit into the record
    with pytest.raises(ValueError):
        Packets(MASTER, 9, 3).embed(*[noise(24, 40)] * 2, 1, PACKET)  # room for 8


def test_packets_that_are_not_there():
    packets = Packets(MASTER, CONTENT, 3)
    carried = packets.embed(big(), big(), 5, PACKET)
    assert packets.extract(big(), 5) is None
    assert packets.extract(carried, 4) is None and packets.extract(carried, 6) is None
    for other in (
        Packets(keys.derive_key(OTHER, SALTS[0]), CONTENT, 3),
        Packets(MASTER, CONTENT + 1, 3),
        Packets(MASTER, CONTENT, 4),
    ):
        assert other.extract(carried, 5) is None


def test_damaged_packets():
    packets = Packets(MASTER, CONTENT, 3)
    carried = packets.embed(big(), big(), 5, PACKET)
    for place in packets._places(5, carried.size)[::199]:
        assert packets.extract(spoil(carried, place), 5) is None


def test_packets_do_not_follow_their_frame():
    """A frame that moved is found out, since each number has a nonce and places of its own."""
    packets = Packets(MASTER, CONTENT, 3)
    carried = [packets.embed(flat(0, 64, 64), big(), number, PACKET) for number in range(4)]
    for i in range(4):
        assert [packets.extract(carried[i], number) == PACKET for number in range(4)] == [
            i == number for number in range(4)
        ]
    changed = np.stack([frame.ravel() != 0 for frame in carried])
    assert (changed[0] & changed[1]).sum() < changed[0].sum() / 2


def test_record_and_packet_lie_side_by_side():
    packets = Packets(MASTER, metadata.packet_room(big().size), 3)
    for number in (0, 1):
        for record_first in (True, False):
            frame = big(number)
            for record in (record_first, not record_first):
                frame = (
                    marked(frame, number=number) if record else packets.embed(frame, frame, number, PACKET)
                )
            assert opened([frame]) == (INFO, MASTER)
            packet = packets.extract(frame, number)
            assert packet[:2] == PACKET[:2] and packet.sound.rstrip(b"\0") == PACKET.sound


def test_message_is_one_line():
    assert "\n" not in metadata.NOTHING and re.search("passphrase.*checkpoint.*recoded", metadata.NOTHING)
