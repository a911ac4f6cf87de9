"""Reveals a stego with nothing of this project: an exported reveal and the key.

    python reveal_exported.py EXPORTED_FOLDER stego.mkv REVEALED_FOLDER [my.key] [--format onnx]

Without a key file the passphrase comes from DEEPSTEG_PASSPHRASE. EXPORTED_FOLDER is what `--mode export`
wrote for the checkpoint, the stego's size and all group lengths. Needs av, pillow, numpy, cryptography and
a runtime: jax (stablehlo), onnxruntime (onnx) or ai-edge-litert (tflite). Writes the pictures of the hidden
video as PNG, as they lie in the stego; sound, times and damaged files are the job of the project's pipeline.
"""

import argparse
import json
import math
import os
import struct
from itertools import islice
from pathlib import Path

import av
import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from PIL import Image

# The bit of each sample value, from which salt and header are read.
BITS = bytes.fromhex("a153f4e1702bc778b8e0f187642e0f38f38bd4a1d543c7e61c2ab0fb8f3c341e")
BITS = np.unpackbits(np.frombuffer(BITS, np.uint8)).astype(np.int64)


def keystream(key, frame, purpose, words):
    """Words of ChaCha20: RFC 8439, the nonce is (frame, purpose, 0)."""
    cipher = Cipher(algorithms.ChaCha20(key, struct.pack("<4I", 0, frame, purpose, 0)), None).encryptor()
    return np.frombuffer(cipher.update(bytes(4 * words)), "<u4").astype(np.int64)


def moved(key, frame, purpose, rows, columns, places):
    """Where places of a grid go when its rows and columns rotate in turn, three times."""
    row, column = np.divmod(places, columns)
    for words in keystream(key, frame, purpose, 3 * (rows + columns)).reshape(3, -1):
        column = (column + words[row]) % columns
        row = (row + words[rows + column]) % rows
    return row * columns + column


def chosen(key, count, size):
    """The first places of a permutation of range(size)."""
    columns = math.isqrt(size - 1) + 1
    places = moved(key, 0, 0, -(-size // columns), columns, np.arange(count))
    while (outside := places >= size).any():
        places[outside] = moved(key, 0, 0, -(-size // columns), columns, places[outside])
    return places


def open_header(frame, credential):
    """(key of the pictures, width, height, frames, turned) from the first frame of a stego."""
    bits = BITS[frame.ravel()]
    public = chosen(bytes(32), 128 + 2560, frame.size)  # 128 bits of salt, then samples for the sealed header
    salt = np.packbits(bits[public[:128]]).tobytes()
    if isinstance(credential, bytes):
        master = HKDF(SHA256(), 32, salt, b"deepsteg key file").derive(credential)
    else:
        argon = Argon2id(salt=salt, length=32, iterations=3, lanes=4, memory_cost=2**16)
        master = argon.derive(credential.encode())

    def subkey(purpose):
        return HKDFExpand(SHA256(), 32, b"deepsteg " + purpose).derive(master)

    groups = bits[public[128:][chosen(subkey(b"header indices"), 2400, 2560)]].reshape(-1, 15)
    message = np.bitwise_xor.reduce(groups * np.arange(1, 16), axis=1)  # Hamming code: 4 bits in 15 samples
    sealed = np.packbits(message[:, None] >> np.arange(4) & 1).tobytes()
    try:
        header = ChaCha20Poly1305(subkey(b"header")).decrypt(bytes(12), sealed, None)
    except InvalidTag:
        raise SystemExit("no hidden video for this passphrase or key") from None
    _, width, height, _, count, _, _, flags, *_ = struct.unpack("<BHHIIIHBBBIHiIBBH8s16s", header)
    return subkey(b"shuffle"), width, height, count, flags & 1


def table(key, first, t, h, w):
    """Where each sample comes from, and ~place where it is turned over: int32 [t, h * w * 3]."""
    size, rows = h * w * 3, []
    for frame in range(first, first + t):
        coins = keystream(key, frame, 2, -(-size // 32)).astype("<u4").view(np.uint8)
        coins = np.unpackbits(coins, bitorder="little")[:size]
        rows.append(moved(key, frame, 1, h, w * 3, np.arange(size)) ^ -coins.astype(np.int64))
    return np.array(rows, np.int32)


def load(path):
    """The exported reveal as a function (key, first, stego) -> revealed."""
    if path.suffix == ".stablehlo":  # has the cipher inside
        from jax import export

        run = export.deserialize(bytearray(path.read_bytes())).call
        words = lambda key: np.frombuffer(key, "<u4")  # noqa: E731
        return lambda key, first, stego: np.asarray(run(words(key), np.int32(first), stego)[0])
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)
        run = lambda inputs: session.run(None, inputs)[0]  # noqa: E731
    else:
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(path)).get_signature_runner()
        run = lambda inputs: runner(**inputs)["revealed"]  # noqa: E731
    tabled = lambda key, first, stego: {"stego": stego, "encipher": table(key, first, *stego.shape[:3])}  # noqa: E731
    return lambda key, first, stego: run(tabled(key, first, stego))


def main():
    """Reveals every frame of the hidden video."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("exported", type=Path)
    parser.add_argument("stego")
    parser.add_argument("revealed", type=Path)
    parser.add_argument("key_file", type=Path, nargs="?")
    parser.add_argument("--format", choices=("stablehlo", "onnx", "tflite"), default="stablehlo")
    arguments = parser.parse_args()
    facts = json.loads((arguments.exported / "export.json").read_text())
    credential = (
        arguments.key_file.read_bytes() if arguments.key_file else os.environ.get("DEEPSTEG_PASSPHRASE")
    )
    if not credential:
        parser.error("give a key file, or set DEEPSTEG_PASSPHRASE")
    with av.open(arguments.stego) as container:
        frames = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
        first = next(frames)
        key, width, height, count, turned = open_header(first, credential)
        arguments.revealed.mkdir(parents=True, exist_ok=True)
        graphs, done, stego = {}, 0, [first, *islice(frames, min(count, facts["group"]) - 1)]
        while stego:
            t, (h, w, _) = len(stego), first.shape
            name = f"reveal_{w}x{h}x{t}.{arguments.format}"
            graphs[t] = graphs.get(t) or load(arguments.exported / name)
            for picture in graphs[t](key, done, np.stack(stego)):
                picture = np.rot90(picture[:height, :width], -1) if turned else picture[:height, :width]
                Image.fromarray(np.ascontiguousarray(picture)).save(
                    arguments.revealed / f"frame_{done:05d}.png"
                )
                done += 1
            stego = list(islice(frames, min(count - done, facts["group"])))
    print(f"{done} frames in {arguments.revealed}")


if __name__ == "__main__":
    main()
