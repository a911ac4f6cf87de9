"""Try every model that hides pictures on the devices of this machine, in under eight minutes on a GPU.

    python -m experiments.gpu_smoke [--only NAME ...] [--side 224] [--batch 8] [--output FILE]

For each model: two training steps by pmap over all devices with `--xla_gpu_deterministic_ops=true`, twice
from one state: are the parameters the same to the bit; hide and reveal of 8-bit pictures against the CPU's;
images/s of a step in float32, in bfloat16, with remat. Prints the table of docs/SCALING.md and keeps the
figures in FILE after each model; once --seconds are over it begins no other.
"""

import os
import time
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

from deepsteg_jax import models
from deepsteg_jax.commands.train import GPU_DETERMINISM
from deepsteg_jax.models.base import fingerprint
from deepsteg_jax.training.parallel import check_batch, describe_devices, parallelise
from experiments import common
from experiments.entries import Entry
from experiments.scaling import make_step, pictures

CASES = {
    "block_dct": Entry("video"),
    "invertible": Entry("invertible"),
    "invertible:identity": Entry("invertible", "identity"),
    "prep_hide_reveal": Entry("prep_hide_reveal"),
    "prep_hide_reveal:delta": Entry("prep_hide_reveal", "delta"),
    "prep_hide_reveal:small": Entry("prep_hide_reveal", "small"),
}
VARIANTS = {"float32": {}, "bfloat16": {"dtype": "bfloat16"}, "remat": {"remat": True}}
STEPS = 2  # of which the parameters are compared
TIMED = 5


def take_steps(config, data: dict, count: int) -> tuple[bytes, list[float]]:
    """A fingerprint of the parameters after `count` steps on all devices, and the seconds of each."""
    step, make_state = make_step(config)
    state, run, seconds = make_state(jax.random.key(0)), parallelise(step), []
    for _ in range(count):
        start = time.monotonic()
        state, logs = run(state, data)
        jax.block_until_ready((state, logs))
        seconds.append(time.monotonic() - start)
    if not np.isfinite(float(logs["loss"])):
        return b"", seconds  # equal to nothing that is finite
    return fingerprint(state.params), seconds


def on(device, function, *arguments) -> np.ndarray:
    """A function of arrays computed there, as 8-bit values."""
    found = jax.jit(function)(*jax.device_put(arguments, device))
    return np.round(255 * np.clip(np.asarray(found), 0, 1)).astype(np.int16)


def compare_with_cpu(config, data: dict) -> dict[str, dict[str, float]]:
    """How far hide and reveal of this device and the CPU lie apart, in 8-bit values."""
    model, cpu, here = models.build(config.model), jax.devices("cpu")[0], jax.devices()[0]
    with jax.default_device(cpu):
        params = jax.jit(model.init)(jax.random.key(0))
    cover, secret = (jnp.float32(data[name][:1]) / 255 for name in ("cover", "secret"))
    stego, other = (on(device, model.hide, params["hide"], cover, secret) for device in (cpu, here))
    received = np.float32(stego) / 255
    revealed = [on(device, model.reveal, params["reveal"], received) for device in (cpu, here)]
    pairs = {"hide": (stego, other), "reveal": revealed}
    return {
        side: {"equal": float(np.mean(a == b)), "farthest": int(np.max(np.abs(a - b)))}
        for side, (a, b) in pairs.items()
    }


def try_model(entry: Entry, batch: int, side: int) -> dict:
    """All figures of a model."""
    config = entry.load()
    data = pictures(config, batch, side, side)
    first, second = (take_steps(config, data, STEPS)[0] for _ in range(2))
    found = {"same_bits": first == second and first != b"", **compare_with_cpu(config, data)}
    for name, fields in VARIANTS.items():
        if all(field in config.model for field in fields):
            changed = config.copy_and_resolve_references()
            changed.model.update(fields)
            _, seconds = take_steps(changed, data, TIMED)
            images = batch * config.model.frames
            found[name] = {"images_per_s": images / median(seconds[2:]), "compile_s": seconds[0]}
    return found


def make_table(report: dict) -> str:
    """The figures as a table of Markdown."""
    rows = [
        "|  | same bits twice | hide, reveal equal to the CPU's | farthest | images/s, "
        + " / ".join(VARIANTS)
        + " |",
        "|---|---|---|---|---|",
    ]
    for name, x in report["models"].items():
        sides = [x[side] for side in ("hide", "reveal")]
        equal = ", ".join(f"{100 * side['equal']:.2f} %" for side in sides)
        farthest = ", ".join(str(side["farthest"]) for side in sides)
        speeds = " / ".join(f"{x[v]['images_per_s']:.3g}" if v in x else "-" for v in VARIANTS)
        rows.append(f"| `{name}` | {'yes' if x['same_bits'] else 'no'} | {equal} | {farthest} | {speeds} |")
    return "\n".join(rows)


def main() -> None:
    """Try what is asked for, and print the table."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=400)
    parser.add_argument("--output", type=Path, default=Path("runs/gpu_smoke.json"))
    arguments = parser.parse_args()
    # Read when the first array is made.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {GPU_DETERMINISM}"
    check_batch(arguments.batch, 1)
    start, report = time.monotonic(), {**describe_devices(), "models": {}}
    for name in arguments.only or CASES:
        if time.monotonic() - start > arguments.seconds:
            print(f"{name}: not tried, the time is over")
            continue
        report["models"][name] = try_model(CASES[name], arguments.batch, arguments.side)
        common.write_json(arguments.output, report)
    print(make_table(report))


if __name__ == "__main__":
    common.run(main)
