"""Video clips, still images and sound, in and out of files: no other package knows PyAV.

Frames are uint8 RGB arrays [h, w, 3]. Each file here has one job; these are the names for the rest of the
package. A new file format is a row of `formats` and, if nothing codes it yet, a class of `codecs`.
"""

from deepsteg_jax.media.codecs import BT601, RGB, Colour, Lossy, has_encoder
from deepsteg_jax.media.coding import coded_size, compress, decompress, recompress
from deepsteg_jax.media.coefficients import (
    can_stay,
    check_coefficients,
    check_stego,
    coefficient_writer,
    read_coefficients,
)
from deepsteg_jax.media.container import existing as check_readable
from deepsteg_jax.media.fitting import code_to_size, likely_size
from deepsteg_jax.media.formats import is_exact, is_playable, is_training_image, is_video
from deepsteg_jax.media.images import (
    FOLDER_RATE,
    decode_image,
    encode_jpeg,
    encode_webp,
    is_folder,
    is_sequence,
    save_small,
)
from deepsteg_jax.media.jpeg import Coefficients, nonzero
from deepsteg_jax.media.outputs import (
    check_output,
    check_place,
    destination,
    keeps_samples,
    padded_size,
    safe_name,
    takes_rgb_only,
    writing,
)
from deepsteg_jax.media.planes import (
    Planes,
    TimedPlanes,
    from_rgb,
    has_planes,
    sample_bits,
    stack,
    subsampling,
    to_rgb,
    unstack,
)
from deepsteg_jax.media.routes import check_tracks, left_out, unsent
from deepsteg_jax.media.sdr import is_hdr
from deepsteg_jax.media.sound import Sound, encode_sound, is_sound
from deepsteg_jax.media.sound_packets import PACKET, PacketReader, PacketWriter, encode_packets, packet_bytes
from deepsteg_jax.media.source import (
    Info,
    Timed,
    Timing,
    count_frames,
    frame_times,
    probe,
    read_frames,
    read_planes,
    read_timed,
    resize,
    size_of,
    timing,
)
from deepsteg_jax.media.tracks import Loop
from deepsteg_jax.media.writer import Writer, write_frames

__all__ = [
    "BT601",
    "Coefficients",
    "Colour",
    "FOLDER_RATE",
    "Info",
    "Loop",
    "Lossy",
    "PACKET",
    "PacketReader",
    "PacketWriter",
    "Planes",
    "RGB",
    "Sound",
    "Timed",
    "Timing",
    "TimedPlanes",
    "Writer",
    "can_stay",
    "check_coefficients",
    "check_output",
    "check_place",
    "check_readable",
    "check_stego",
    "check_tracks",
    "code_to_size",
    "coded_size",
    "coefficient_writer",
    "compress",
    "count_frames",
    "decode_image",
    "decompress",
    "destination",
    "encode_jpeg",
    "encode_packets",
    "encode_sound",
    "encode_webp",
    "frame_times",
    "from_rgb",
    "has_encoder",
    "has_planes",
    "is_exact",
    "is_folder",
    "is_hdr",
    "is_playable",
    "is_sequence",
    "is_sound",
    "is_training_image",
    "is_video",
    "keeps_samples",
    "left_out",
    "likely_size",
    "nonzero",
    "packet_bytes",
    "padded_size",
    "probe",
    "read_coefficients",
    "read_frames",
    "read_planes",
    "read_timed",
    "recompress",
    "resize",
    "safe_name",
    "sample_bits",
    "save_small",
    "size_of",
    "stack",
    "subsampling",
    "takes_rgb_only",
    "timing",
    "to_rgb",
    "unsent",
    "unstack",
    "write_frames",
    "writing",
]
