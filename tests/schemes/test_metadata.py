from fractions import Fraction

import numpy as np
import pytest

from deepsteg_jax import keys
from deepsteg_jax.errors import UserError
from deepsteg_jax.schemes import low_bits, metadata
from deepsteg_jax.schemes.base import Metadata
from deepsteg_jax.schemes.metadata import Header, Packet, Packets

MODULI = (1, 2, 3, 5, 32)
CREDENTIAL = bytes(range(32))  # a key file's content, since a passphrase takes 0.1 s each time
OTHER = bytes(range(1, 33))
SALTS = (bytes(range(100, 116)), bytes(range(200, 216)))
FINGERPRINT = b"8 bytes."
SECRET = Metadata(
    width=320,
    height=240,
    frames=1234,
    cover_frames=1500,
    rate=Fraction(30000, 1001),
    timed=False,
    turned=False,
    aspect=Fraction(1),
    end=2**31,
)
HEADER = Header(
    secret=SECRET,
    packet_bytes=20,
    sound_start=0,
    sound_bytes=0,
    modulus=3,
    group=4,
    moves="cover",
    cipher="coefficients",
    block_size=8,
    fingerprint=FINGERPRINT,
    salt=SALTS[0],
)
MASTER = keys.derive_key(CREDENTIAL, SALTS[0])


def noise(height=24, width=40, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def flat(value, height=24, width=40):
    return np.full((height, width, 3), value, np.uint8)


def marked(frame, header=HEADER, number=0, credential=CREDENTIAL):
    """A frame that holds the header; `number` is 0 or 1."""
    master = keys.derive_key(credential, SALTS[number])
    return metadata.embed_header(frame, frame, SALTS[number], master, header)


def stego(header=HEADER, credential=CREDENTIAL):
    """The first two frames of a stego."""
    return [marked(noise(seed=number), header, number, credential) for number in (0, 1)]


def opened(frames, credential=CREDENTIAL):
    return next(metadata.open_headers(frames, keys.Deriver(credential)), None)


def closed(frames, *args):
    assert opened(frames, *args) is None


def bits_of(frame):
    return low_bits.COMMON_TABLE[frame.ravel()]


def spoil(frame, index, table):
    """Turns the bit at an index over."""
    bad = frame.flatten()
    bad[index] = np.flatnonzero(table != table[bad[index]])[0]
    return bad.reshape(frame.shape)


# --- header --------------------------------------------------------------------------------------


@pytest.mark.parametrize("modulus", MODULI)
@pytest.mark.parametrize("frame", [noise(), flat(0), flat(255), flat(128)], ids=["noise", "0", "255", "128"])
def test_round_trip_and_how_far_samples_move(frame, modulus):
    """The receiver needs no D for it."""
    before, header = frame.copy(), HEADER._replace(modulus=modulus)
    with_header = marked(frame, header)
    np.testing.assert_array_equal(frame, before)
    assert with_header.dtype == np.uint8 and with_header.shape == frame.shape
    assert opened([with_header]) == header
    change = with_header.astype(int) - frame
    assert np.abs(change).max() <= 6 * modulus  # so nothing wrapped around at 0 or 255
    np.testing.assert_array_equal(with_header % modulus, frame % modulus)
    assert np.count_nonzero(change) < 80 + 170  # half of the salt's bits, one sample for 4 of the header's


@pytest.mark.parametrize(
    "facts",
    [
        {"width": 1, "height": 1, "frames": 1, "cover_frames": 1, "rate": Fraction(1)},
        {"width": 65_535, "height": 65_535, "frames": 2**32 - 1, "cover_frames": 2**32 - 1},
        {"rate": Fraction(2**32 - 1), "timed": True},
        {"rate": Fraction(1, 65_535), "turned": True},
        {"rate": Fraction(90_000), "timed": True, "turned": True},
        {"aspect": Fraction(255, 254)},
        {"aspect": Fraction(1, 255)},
    ],
)
def test_extreme_secrets(facts):
    header = HEADER._replace(secret=SECRET._replace(**facts))
    assert opened([marked(noise(), header)]) == header


@pytest.mark.parametrize(
    "facts",
    [
        {"packet_bytes": 65_535, "sound_start": -(2**31), "sound_bytes": 2**32 - 1},
        {"packet_bytes": 0, "sound_start": 2**31 - 1, "sound_bytes": 1},
        {"modulus": 32, "group": 255, "moves": "secret", "cipher": "blocks", "block_size": 65_535},
        {"modulus": 1, "group": 1, "moves": "nothing", "block_size": 1},
    ],
)
def test_extreme_headers(facts):
    header = HEADER._replace(**facts)
    assert opened([marked(noise(), header)]) == header


def test_fractions_are_rounded():
    secret = SECRET._replace(rate=Fraction(10**12 + 1, 10**11), aspect=Fraction(1000, 999))
    found = opened([marked(noise(), HEADER._replace(secret=secret))]).secret
    assert abs(float(found.rate) - 10) < 1e-4
    assert abs(float(found.aspect) - 1) < 2e-3


@pytest.mark.parametrize("aspect", [Fraction(300), Fraction(1, 600), Fraction(0)])
def test_aspects_beyond_reason_are_square(aspect):
    header = HEADER._replace(secret=SECRET._replace(aspect=aspect))
    assert opened([marked(noise(), header)]).secret.aspect == 1


@pytest.mark.parametrize("size", [(16, 16), (1, 256), (17, 16)])
def test_smallest_image(size):
    """With 768 samples for 768 bits, places that were not distinct would overwrite each other."""
    metadata.check_size(*size)
    for modulus in (1, 32):
        header = HEADER._replace(modulus=modulus)
        assert opened([marked(noise(*size), header)]) == header


@pytest.mark.parametrize(
    ("size", "word"), [((15, 17), "256 pixels"), ((1, 1), "small"), ((65_536, 16), "large")]
)
def test_sizes_that_are_refused(size, word):
    with pytest.raises(UserError, match=word) as caught:
        metadata.check_size(*size)
    assert "{}x{}".format(*size) in str(caught.value) and "\n" not in str(caught.value)


def test_the_header_fits_into_the_smallest_frame():
    assert metadata._HEADER_BITS <= 3 * metadata.SMALLEST_PIXELS


# --- what the receiver hears ----------------------------------------------------------------------


def test_wrong_credentials():
    for credential in (OTHER, CREDENTIAL[:-1] + b"\0", "a passphrase"):
        closed(stego(), credential)
    closed(stego(credential="four words"), "Four words")
    assert opened(stego(credential="four words"), "four words") == HEADER


@pytest.mark.parametrize("frame", [noise(), flat(0), flat(255)], ids=["noise", "0", "255"])
def test_nothing_hidden(frame):
    closed([frame])
    closed([frame, frame])


@pytest.mark.parametrize("size", [(1, 1), (15, 17)])
def test_frames_too_small(size):
    closed([noise(*size)] * 2)


def test_every_flipped_bit_is_noticed():
    frame = marked(noise())
    before = bits_of(frame)
    salt_indices, public, _ = metadata._public_indices(frame.size)
    key = keys.subkey(MASTER, "header indices")
    used = metadata._picked(key, 0, metadata._HEADER_BYTES, public)
    for index in [*salt_indices[::17], *used[:: len(used) // 23]]:
        bad = spoil(frame, index, low_bits.COMMON_TABLE)
        assert np.count_nonzero(bits_of(bad) != before) == 1
        closed([bad])
    other = noise(seed=9).flatten()  # and whatever happens elsewhere does no harm
    kept = np.concatenate([salt_indices, used])
    other[kept] = frame.ravel()[kept]
    assert opened([other.reshape(frame.shape)]) == HEADER


def test_recoded():
    """Noise of one level is enough."""
    noisy = [
        np.clip(frame + np.random.default_rng(5).integers(-1, 2, frame.shape), 0, 255) for frame in stego()
    ]
    closed([frame.astype(np.uint8) for frame in noisy])


def test_other_version(monkeypatch):
    monkeypatch.setattr(metadata, "VERSION", metadata.VERSION + 1)
    newer = stego()
    assert opened(newer) == HEADER
    monkeypatch.undo()
    closed(newer)
    assert opened(stego()) == HEADER


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
        {"frames": newer},
        {"frames": [noise(), noise(seed=1)]},
        {"frames": [flat(0), flat(255)]},
        {"frames": [spoil(f, metadata._public_indices(f.size)[0][0], low_bits.COMMON_TABLE) for f in whole]},
    ):
        calls.clear()
        closed(*attempt.values())
        assert len(calls) == 2
    for frames in ([noise()], [noise(15, 17)] * 2):  # one salt: too small frames are read as alike
        calls.clear()
        closed(frames)
        assert len(calls) == 1


# --- the second copy ------------------------------------------------------------------------------


def test_either_frame_is_enough():
    """The key of the video is that of the first frame's salt, wherever the header was found."""
    first, second = stego()
    lost = noise(seed=7)
    assert keys.derive_key(CREDENTIAL, SALTS[1]) != MASTER
    for frames in ([first, second], [first, lost], [first], [lost, second], [flat(0), second]):
        assert opened(frames) == HEADER and opened(frames).salt == SALTS[0]


def test_the_second_frame_may_stand_in_for_the_first():
    """As a player's repair of a damaged first frame leaves it."""
    second = stego()[1]
    assert opened([second, second]) == opened([second]) == HEADER


def test_a_first_frame_of_another_video_does_not_hide_the_second():
    foreign = HEADER._replace(fingerprint=b"8 other.")
    frames = [marked(noise(seed=3), foreign), stego()[1]]
    assert list(metadata.open_headers(frames, keys.Deriver(CREDENTIAL))) == [foreign, HEADER]


# --- looks ---------------------------------------------------------------------------------------


def read_bits(number, seed):
    """The salt and the sealed header as they lie in a frame of zeros, as bits."""
    master = keys.derive_key(bytes([seed]) * 32, SALTS[number])
    salt = np.random.default_rng([seed, number]).bytes(16)
    frame = metadata.embed_header(flat(0), flat(0), salt, master, HEADER)
    salt_indices, public, _ = metadata._public_indices(frame.size)
    found = low_bits.read(frame.ravel(), salt_indices, 16, low_bits.COMMON_TABLE)
    assert found == salt
    indices = metadata._picked(keys.subkey(master, "header indices"), 0, metadata._HEADER_BYTES, public)
    found += low_bits.read(frame.ravel(), indices, metadata._HEADER_BYTES, low_bits.COMMON_TABLE)
    return np.unpackbits(np.frombuffer(found, np.uint8))


def test_bits_look_random():
    """One header for all: ones, and equal neighbours, are half of all bits, whichever key or frame it is."""
    found = np.stack([read_bits(number, seed) for seed in range(20) for number in (0, 1)])
    for coins in (found, found[:, 1:] ^ found[:, :-1], found[1:] ^ found[:-1]):
        assert abs(coins.mean() - 0.5) < 4 * 0.5 / coins.size**0.5
        expected = len(coins) / 2
        chi_square = ((coins.sum(0) - expected) ** 2 / (expected / 2)).mean()  # of each bit, one degree each
        assert abs(chi_square - 1) < 4 * (2 / coins.shape[1]) ** 0.5


def test_equal_headers_are_sealed_differently():
    one, two = (read_bits(number, 1)[128:] for number in (0, 1))
    assert 0.4 < np.mean(one != two) < 0.6


def test_places_are_distinct_and_apart():
    for size in (768, 2688, 2689, 10_000):
        *parts, others = metadata._public_indices(size)
        parts.append(others[np.arange(len(others))])
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(size))
        assert len(parts[0]) == 128 and len(parts[1]) == min(2560, size - 128)


def test_places_of_two_keys_differ():
    _, room, others = metadata._public_indices(30_000)
    for among in (room, others):
        one, two = (metadata._picked(key, 0, 40, among) for key in (CREDENTIAL, OTHER))
        assert np.mean(one == two) < 0.05
        assert len(np.unique(one)) == len(one)
        chance = len(one) / len(among)
        assert np.mean(np.isin(one, two)) < chance + 4 * (chance * (1 - chance) / len(one)) ** 0.5


def test_salt_is_readable_without_the_key():
    for credential in (CREDENTIAL, OTHER):
        frame = marked(noise(), credential=credential)
        indices = metadata._public_indices(frame.size)[0]
        assert low_bits.read(frame.ravel(), indices, 16, low_bits.COMMON_TABLE) == SALTS[0]


# --- packets -------------------------------------------------------------------------------------

PACKET = Packet(77, 2**32 - 1, b"sound of fury")
CONTENT = metadata.PACKET_HEADER.size + len(PACKET.sound)


def big(seed=0):
    return noise(64, 64, seed)


@pytest.mark.parametrize("modulus", MODULI)
@pytest.mark.parametrize("frame", [big(), flat(0, 64, 64), flat(255, 64, 64)], ids=["noise", "0", "255"])
def test_packets_round_trip(frame, modulus):
    packets = Packets(MASTER, CONTENT, modulus)
    before = frame.copy()
    carried = packets.embed(frame, frame, 5, PACKET)
    np.testing.assert_array_equal(frame, before)
    assert packets.extract(carried, 5) == PACKET
    assert set(np.abs(carried.astype(int) - frame).ravel()) == {0, modulus}
    assert Packets(MASTER, CONTENT, modulus).extract(carried, 5) == PACKET


def test_short_sound_is_filled_up():
    packets = Packets(MASTER, 20, 3)
    carried = packets.embed(big(), big(), 1, Packet(0, 0, b"ab"))
    assert packets.extract(carried, 1) == Packet(0, 0, b"ab" + bytes(10))


@pytest.mark.parametrize("content", [8, 9, 500, 1184])
def test_packets_of_all_sizes(content):
    assert metadata.packet_capacity(big().size) == (64 * 64 * 3 - 2688) // 8 - 16 == 1184
    packets = Packets(MASTER, content, 3)
    packet = Packet(1, 2, np.random.default_rng(0).bytes(content - 8))
    assert packets.extract(packets.embed(big(), big(), 2**32, packet), 2**32) == packet


def test_packet_capacity():
    assert metadata.packet_capacity(768) == metadata.packet_capacity(2688) == 0
    assert metadata.packet_capacity(2688 + 8 * 24) == 8
    assert metadata.packet_capacity(2688 + 8 * 24 - 1) == 7
    assert metadata.packet_capacity(1920 * 1080 * 3) == 65_535  # more does not fit into the header
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
    for place in packets._indices(5, carried.size)[::199]:
        assert packets.extract(spoil(carried, place, low_bits.parity_table(3)), 5) is None


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


def test_header_and_packet_lie_side_by_side():
    packets = Packets(MASTER, metadata.packet_capacity(big().size), 3)
    for number in (0, 1):
        for header_first in (True, False):
            frame = big(number)
            for header in (header_first, not header_first):
                frame = (
                    marked(frame, number=number) if header else packets.embed(frame, frame, number, PACKET)
                )
            assert opened([frame]) == HEADER
            packet = packets.extract(frame, number)
            assert packet[:2] == PACKET[:2] and packet.sound.rstrip(b"\0") == PACKET.sound
