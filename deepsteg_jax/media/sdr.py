"""HDR and wide gamuts as a screen of BT.709 shows them.

White of SDR is the reference white of HDR, 203 cd/m2 (ITU-R BT.2408). What is brighter, up to 1,000 cd/m2, is
compressed into the upper fifth of the signal by the extended curve of Reinhard et al. 2002.
"""

from functools import cache

import numpy as np

from deepsteg_jax.media.codecs import Colour

PQ, HLG, SRGB = 16, 18, 13  # AVCOL_TRC: SMPTE ST 2084, ARIB STD-B67, IEC 61966-2-1
_BT709 = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))  # x, y of red, green and blue
_WIDE = {  # by AVCOL_PRI; their white is taken for that of BT.709, D65
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),  # BT.2020
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # DCI-P3
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
_D65 = (0.3127, 0.3290)
_WHITE, _PEAK = 203, 1000  # cd/m2
_GAMMA = 2.4  # of an SDR screen, BT.1886
_KNEE = 0.8  # of the signal: what is darker stays as it is
_LEVELS = 2**12  # of a signal, told apart
_STEPS = 2**13  # of the square root of light


def is_hdr(colour: Colour) -> bool:
    """Return whether numbers so tagged stand for HDR."""
    return colour.transfer in (PQ, HLG)


def needs_mapping(colour: Colour) -> bool:
    """Return whether an SDR screen shows other colours than numbers so tagged stand for."""
    return is_hdr(colour) or colour.primaries in _WIDE


def map_to_sdr(rgb: np.ndarray, colour: Colour) -> np.ndarray:
    """Map RGB, uint8 or uint16 over their whole range [h, w, 3], to BT.709, uint8."""
    levels = rgb.astype(np.uint16) * 257 if rgb.dtype == np.uint8 else rgb
    light = _light(colour.transfer)[levels >> 4]
    if colour.primaries in _WIDE:
        light = light @ _to_bt709(colour.primaries).T
    curve, most = _signal(is_hdr(colour), colour.transfer == SRGB)
    return curve[(np.sqrt(light.clip(0, most)) * (_STEPS / most**0.5)).astype(np.uint16)]


@cache
def _light(transfer: int) -> np.ndarray:
    """Return the light of each level, white of SDR being 1; float32 [_LEVELS]."""
    signal = np.arange(_LEVELS) / (_LEVELS - 1)
    if transfer == PQ:
        power = signal ** (32 / 2523)
        light = (
            10_000
            / _WHITE
            * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (8192 / 1305)
        )
    elif transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        # Each colour by itself, as zimg has it: BT.2100 takes the power of luminance, for more work.
        light = _PEAK / _WHITE * scene**1.2
    elif transfer == SRGB:
        light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    else:
        light = signal**_GAMMA
    return light.astype(np.float32)


@cache
def _to_bt709(primaries: int) -> np.ndarray:
    return (np.linalg.inv(_to_xyz(_BT709)) @ _to_xyz(_WIDE[primaries])).astype(np.float32)


def _to_xyz(primaries: tuple) -> np.ndarray:
    """Return the matrix from RGB of these primaries, white D65, to CIE XYZ."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in (*primaries, _D65)]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


@cache
def _signal(hdr: bool, srgb: bool) -> tuple[np.ndarray, float]:
    """Return the signal of light, uint8 [_STEPS + 1] by its square root, and the most light."""
    most = _PEAK / _WHITE if hdr else 1.0
    light = np.linspace(0, most**0.5, _STEPS + 1) ** 2
    signal = light ** (1 / _GAMMA)
    if srgb:
        signal = np.where(light <= 0.0031308, 12.92 * light, 1.055 * signal - 0.055)
    if hdr:
        room = 1 - _KNEE
        over, top = (np.maximum(x - _KNEE, 0) / room for x in (signal, most ** (1 / _GAMMA)))
        signal = np.where(over > 0, _KNEE + room * over * (1 + over / top**2) / (1 + over), signal)
    return np.round(255 * signal).astype(np.uint8), most
