"""Live hiding and revealing: frames per second and latency, and where the time goes.

    python -m experiments.live_speed [--seconds 8] [--output NAME]

For configs/image.py (groups of one frame) and configs/video.py (of four), at 224x224 and 448x256, a sample
clip that is played over and over goes through a session in memory:

- one by one: `Session.push`, as fast as possible;
- overlapped: `live.stream`, the sender on a thread of its own, as fast as possible;
- paced: as a camera with 25 frames per second, of which those that come too fast are dropped.

Latency is from a frame's arrival to its being revealed; while one by one and overlapped a frame waits for
nothing but its group. "hide" and "reveal" are the two halves of one by one, ms per frame of wall clock and
of processor time: with two cores, wall clock below processor time is work on both. Writes NAME,
experiments/results/live_speed.json if not given. Machines are noisy: compare figures of one run only.
"""

import os
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from configs import image, video
from deepsteg_jax import loading, sample_clips
from deepsteg_jax.live import Session, stream
from deepsteg_jax.media import camera
from deepsteg_jax.schemes.base import Scheme
from experiments import common, tables

SIZES = ((224, 224), (448, 256))  # width, height
CAMERA_FPS = 25
CLIP_FRAMES = 100


def looped(frames: list[np.ndarray], seconds: float, fps: float | None = None) -> Iterator[camera.Captured]:
    """Yield frames over and over for some seconds, at `fps` if given."""
    start = time.monotonic()
    for number, frame in enumerate(cycle(frames)):
        if fps:
            time.sleep(max(0.0, start + number / fps - time.monotonic()))
        if time.monotonic() > start + seconds:
            return
        yield camera.Captured(frame, time.monotonic())


def summary(moments: list[float], latencies: list[float], start: float) -> dict[str, float]:
    """Return frames per second and latency of frames that came out at these moments."""
    median, late = 1000 * np.percentile(latencies, (50, 95))
    return {"fps": len(moments) / (moments[-1] - start), "latency_ms": median, "latency_95_ms": late}


def one_by_one(session: Session, frames: list[np.ndarray], seconds: float) -> dict[str, float]:
    """Run both halves in turn, timed."""
    wall, cpu = {"hide": 0.0, "reveal": 0.0}, {"hide": 0.0, "reveal": 0.0}

    def timed(name, work, *arguments):
        before = time.monotonic(), time.process_time()
        result = work(*arguments)
        wall[name] += time.monotonic() - before[0]
        cpu[name] += time.process_time() - before[1]
        return result

    start, moments, latencies = time.monotonic(), [], []
    for frame, _ in looped(frames, seconds):
        if (group := timed("hide", session.hide, frame)) is None:
            continue
        timed("reveal", session.reveal, group)
        moments += [time.monotonic()] * session.group
        latencies += [moments[-1] - since for since in group.since]
    parts = {f"{name}_ms": 1000 * value / len(moments) for name, value in wall.items()}
    parts |= {f"{name}_processor_ms": 1000 * value / len(moments) for name, value in cpu.items()}
    return summary(moments, latencies, start) | parts


def streamed(session: Session, source, start: float) -> dict[str, float]:
    """Run through `live.stream`."""
    moments, latencies = [], []
    for group in stream(session, source):
        moments += [time.monotonic()] * len(group)
        latencies += [moments[-1] - at for _, at in group]
    return summary(moments, latencies, start)


def measure(scheme: Scheme, width: int, height: int, seconds: float) -> dict[str, dict[str, float]]:
    """Measure all ways of one scheme at one size."""
    clip = camera.read_clip(sample_clips.resolve("sample:bikes.mp4"), width, height, paced=False)
    frames = [captured.frame for captured in islice(clip, CLIP_FRAMES)]
    with Session(scheme, "sample:bigbuckbunny.mp4", width, height) as session:
        one_by_one(session, frames, 1)  # decodes the start of the secret
        report = {"one by one": one_by_one(session, frames, seconds)}
        report["overlapped"] = streamed(session, looped(frames, seconds), time.monotonic())
        newest = camera.Newest(looped(frames, seconds, CAMERA_FPS), session.group)
        report["paced"] = streamed(session, newest, time.monotonic()) | {"dropped": newest.dropped}
    return report


def main() -> None:
    """Measure every config at every size."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each way")
    parser.add_argument("--output", type=Path, default=common.RESULTS / "live_speed.json")
    arguments = parser.parse_args()
    report = {}
    for name, config in (("image", image.get_config()), ("video", video.get_config())):
        scheme = loading.load(config)
        for width, height in SIZES:
            report[f"{name}, {width}x{height}"] = measure(scheme, width, height, arguments.seconds)
    load = os.getloadavg()[0]  # of this script itself 1 to 2
    report = {"cores": os.cpu_count(), "load": load, "ways": report}
    common.write_json(arguments.output, report)
    print(tables.live_speed(report))


if __name__ == "__main__":
    common.run(main)
