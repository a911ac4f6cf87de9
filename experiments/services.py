"""What messengers and sites leave of a post: imitated with FFmpeg, or measured on what one of them returned.

    python -m experiments.services --cover COVER.mp4 --secret SECRET.mp4 [--edits] [--only NAME ...]
                                   [--changes JSON] [--workdir runs/services]
    python -m experiments.services --received DOWNLOADED.mp4 --secret SECRET.mp4 --key-file KEY

The first hides with `deepsteg`, sends the stego through each of SERVICES, which imitate and are nobody's own,
and reveals; with --edits through each of EDITS, which strangers make before they code a video again. The
second reveals what a real service gave back. Each adds a row to WORKDIR/services.json: size of what arrived,
the notes of `reveal`, the secret's PSNR (8-bit RGB, at its own size and times; mid-grey where nothing
arrived; without the time that an edit cuts off), and by how much its sound comes late. JSON holds other
values for fields of the config, such as '{"sound_share": 0.6}'.
"""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
from scipy.signal import correlate

from deepsteg_jax import api, keys, media, metrics
from deepsteg_jax.errors import PartialError, UserError
from deepsteg_jax.schemes.base import GREY, NOTHING
from experiments import common
from experiments.entries import file_name

X264, VP9, AV1 = (["-c:v", name] for name in ("libx264", "libvpx-vp9", "libsvtav1"))
AAC, OPUS = ["-c:a", "aac", "-b:a", "96k"], ["-c:a", "libopus", "-b:a", "64k"]
LONG_848 = "scale=848:848:force_original_aspect_ratio=decrease:force_divisible_by=2"
SITE_480, SITE_720 = (
    ["-vf", f"scale='if(gt(iw,ih),-2,min(iw,{n}))':'if(gt(iw,ih),min(ih,{n}),-2)'"] for n in (480, 720)
)
SERVICES = {  # suffix and what FFmpeg is told
    "messenger": (
        ".mp4",
        ["-vf", f"{LONG_848},fps=30", *X264, "-b:v", "1200k", "-g", "60", *AAC],
    ),
    "social": (".mp4", [*SITE_720, *X264, "-b:v", "3500k", *AAC]),
    "site-480-vp9": (".webm", [*SITE_480, *VP9, "-b:v", "750k", "-cpu-used", "3", *OPUS]),
    "site-720-vp9": (".webm", [*SITE_720, *VP9, "-b:v", "1800k", "-cpu-used", "3", *OPUS]),
    "site-480-av1": (".mp4", [*SITE_480, *AV1, "-b:v", "500k", "-preset", "8", *AAC]),
    "site-720-av1": (".mp4", [*SITE_720, *AV1, "-b:v", "1200k", "-preset", "8", *AAC]),
}
CUT = 10  # seconds
HEARD_RATE, SILENT = 8000, 1e-3  # samples per second of sounds that are compared; they go from -1 to 1
CUT_OFF = f"first {CUT} s cut off"
_FILTERS = {
    "coded again": "null",
    "brightness +10 %": "eq=brightness=0.1",
    "brightness -10 %": "eq=brightness=-0.1",
    "contrast +10 %": "eq=contrast=1.1",
    "contrast -10 %": "eq=contrast=0.9",
    "saturation +10 %": "eq=saturation=1.1",
    "saturation -10 %": "eq=saturation=0.9",
    "logo over 5 %": "drawbox=iw*0.76:ih*0.76:iw*0.224:ih*0.224:white:fill,"
    "drawbox=iw*0.8:ih*0.8:iw*0.14:ih*0.14:navy:fill",
    "faded in, 2 s": "fade=in:d=2",
    CUT_OFF: f"trim=start={CUT},setpts=PTS-STARTPTS",
    "frame rate 5/6": "fps=source_fps*5/6",
    "frame rate 1/2": "fps=source_fps/2",
    "frame rate 5/4": "fps=source_fps*5/4",
    "letterbox": "pad='max(iw,ih*4/3)':'max(ih,iw*3/4)':-1:-1",
    "5 % of each side cut off": "crop=iw*0.9:ih*0.9",
    "rotated by 1 degree": "rotate=PI/180",
    "scaled to 5/4": "scale=trunc(iw*5/8)*2:trunc(ih*5/8)*2",
    "scaled to 3/4": "scale=trunc(iw*3/8)*2:trunc(ih*3/8)*2",
    "scaled to 2/3": "scale=trunc(iw/3)*2:trunc(ih/3)*2",
}
EDITS = {name: (".mp4", ["-vf", filters, *X264, "-crf", "23", "-an"]) for name, filters in _FILTERS.items()}


def imitate(stego: Path, name: str, folder: Path) -> Path:
    """Send a file through one of SERVICES or EDITS.

    Raises:
        UserError: there is no ffmpeg, or it fails.
    """
    if not shutil.which("ffmpeg"):
        raise UserError("this needs the program ffmpeg: install it")
    suffix, options = (SERVICES | EDITS)[name]
    received = folder / f"{file_name(name)}{suffix}"
    command = ["ffmpeg", "-nostdin", "-y", "-v", "error", "-i", stego, *options, "-pix_fmt", "yuv420p"]
    if subprocess.run([*command, received], stderr=subprocess.DEVNULL).returncode:
        raise UserError(f"ffmpeg fails for {name}: does this build have its encoder?")
    return received


def measure(received: Path, secret: Path, key: bytes, output: Path, since: float = 0) -> dict:
    """Reveal a file and compare it with the secret from `since` on, seconds."""
    info = media.probe(received)
    row = {"received": f"{info.width}x{info.height}", "bytes": media.size_of(received), "revealed": "nothing"}
    output.unlink(missing_ok=True)
    try:
        report = api.reveal_file(received, output, key)
        row["revealed"] = "; ".join(report.notes)
    except PartialError as error:
        row["revealed"] = str(error).replace(f"{received.parent}/", "")
    except UserError as error:
        row["revealed"] = "nothing" if str(error) == NOTHING else str(error)
    late = sound_late(secret, output) if output.exists() and shutil.which("ffmpeg") else None
    return row | {"secret_psnr_db": _psnr(secret, output, since), "sound_late_s": late}


def sound_late(secret: Path, output: Path) -> float | None:
    """Seconds by which what is heard of a revealed file comes after the secret; None: one is silent."""
    sent, heard = (_sound(path) for path in (secret, output))
    audible = np.flatnonzero(np.abs(heard) > SILENT)
    if not (sent.any() and len(audible)):
        return None
    part = heard[audible[0] : audible[-1] + 1]
    energy = correlate(sent**2, np.ones_like(part))
    agreement = correlate(sent, part) / np.sqrt(np.maximum(energy, 1e-3 * energy.max()))
    return float(audible[0] + len(part) - 1 - np.argmax(agreement)) / HEARD_RATE


def _sound(path: Path) -> np.ndarray:
    """Samples at HEARD_RATE from the file's start on, mono."""
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-map", "0:a:0?", "-ac", "1", "-f", "f32le"]
    command += ["-af", f"aresample={HEARD_RATE}:async=1:first_pts=0", "-"]
    return np.frombuffer(subprocess.run(command, stdout=subprocess.PIPE).stdout, np.float32)


def _psnr(secret: Path, output: Path, since: float = 0) -> float:
    """Mean over the secret's frames of the PSNR of the revealed one that is shown at that time."""
    times, frames = _timed(secret)
    times, frames = times[times >= since], [frames[i] for i in np.flatnonzero(times >= since)]
    if output.exists():
        shown_times, shown = _timed(output)
        at = np.searchsorted(shown_times, times + 1e-3, side="right") - 1
        found = [media.resize(shown[i], *frames[0].shape[1::-1]) for i in np.maximum(at, 0)]
    else:
        found = [np.full_like(frame, GREY) for frame in frames]
    return metrics.mean_psnr(np.stack(frames), np.stack(found))


def _timed(path: Path) -> tuple[np.ndarray, list[np.ndarray]]:
    """Seconds from the first frame on, and frames, of a clip."""
    times, frames = zip(*((timed.time, timed.frame) for timed in media.read_timed(path)), strict=True)
    seconds = np.array(times, float) * float(media.probe(path).time_base)
    return seconds - seconds[0], list(frames)


def main() -> None:
    """Hides, sends, reveals and writes the figures."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--secret", type=Path, required=True)
    parser.add_argument("--workdir", type=Path, default=Path("runs/services"))
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--cover", type=Path)
    given.add_argument("--received", type=Path)
    parser.add_argument("--key-file", type=Path)
    parser.add_argument("--edits", action="store_true")
    parser.add_argument("--changes", type=json.loads, default={})
    parser.add_argument("--only", nargs="+", choices=[*SERVICES, *EDITS])
    arguments = parser.parse_args()
    folder, path = arguments.workdir, arguments.workdir / "services.json"
    folder.mkdir(parents=True, exist_ok=True)
    rows = common.read_json(path, {})
    if arguments.received:
        if not arguments.key_file:
            parser.error("--received needs --key-file")
        key = keys.read_key_file(arguments.key_file)
        rows[arguments.received.name] = measure(
            arguments.received, arguments.secret, key, folder / "revealed.mp4"
        )
        print(rows[arguments.received.name])
    else:
        key, stego = api.random_key(), folder / f"{arguments.cover.stem}.stego.mp4"
        paths = arguments.cover, arguments.secret, stego
        report = api.hide_file(*paths, key, changes=arguments.changes, loop_cover=True)
        print(report)
        usual = [*(EDITS if arguments.edits else SERVICES)]
        if arguments.edits and _timed(arguments.secret)[0][-1] <= CUT:
            usual.remove(CUT_OFF)  # nothing would be left
        for name in arguments.only or usual:
            received, since = imitate(stego, name, folder), CUT * (name == CUT_OFF)
            row = measure(received, arguments.secret, key, folder / "revealed.mp4", since)
            rows[f"{arguments.cover.name}, {name}"] = row
            print(name, row, flush=True)
            common.write_json(path, rows)
    common.write_json(path, rows)


if __name__ == "__main__":
    common.run(main)
