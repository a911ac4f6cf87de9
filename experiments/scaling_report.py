"""The tables of docs/SCALING.md and docs/scaling.png, from what experiments/scaling.py found; nothing is run.

On paper every figure per example is linear in pixels, which the tables of measured ratios show.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from deepsteg_jax import costs  # noqa: E402

PIXELS = {"224x224": 224 * 224, "448x256": 448 * 256, "1920x1080": 1920 * 1080, "3840x2160": 3840 * 2160}
COUNTS = (1, 8, 64)
FRAMES_PER_DEVICE = 64  # of the weak scaling, as far as they fit
FRAMES_IN_ALL = 512  # of the strong scaling
USABLE = 0.9  # of the memory, XLA_PYTHON_CLIENT_MEM_FRACTION=0.9

# --- the model on paper --------------------------------------------------------------------------


class Memory(NamedTuple):
    """Bytes of a training step on a device: fixed, and for every example."""

    fixed: float
    example: float

    def largest_batch(self) -> int:
        """The largest batch on one H100."""
        return costs.largest_batch(self.example, self.fixed, USABLE * costs.H100_FLOAT32.memory)


def memory(model: dict, size: str, variant: str) -> Memory:
    """Memory of a model of the section `costs` at a size.

    An example is its two pictures and the larger of: what is kept between the passes and what remat computes
    again; and what the step as compiled for a CPU needs besides.
    """
    frame = memory_of_frame(model, size, variant)
    needed = max(frame["example"] + frame["again"], frame["temporary"])
    fixed = costs.state_bytes(model["parameters"]) + model["kept"]["448x256"][variant]["fixed"]
    return Memory(fixed, model["frames"] * (2 * 3 * PIXELS[size] + needed))


def memory_of_frame(model: dict, size: str, variant: str) -> dict[str, float]:
    """Bytes of a frame: kept, computed again, and of the compiled step; linear in pixels."""
    known = size if size in model["kept"] else "448x256"
    kept, ratio = model["kept"][known][variant], PIXELS[size] / PIXELS[known] / model["frames"]
    compiled = model["temporary"][variant] * PIXELS[size] / PIXELS["224x224"] / model["frames"]
    return {"example": ratio * kept["example"], "again": ratio * kept["again"], "temporary": compiled}


def step_costs(model: dict, size: str, batch: float, variant: str) -> tuple[costs.StepCost, costs.StepCost]:
    """The least that a step of `batch` examples can cost a device, and what the CPU's program would cost.

    The least moves every picture and every kept array once out and once in, and the state. Remat computes
    the forward pass, a third of all, again.
    """
    step, fixed = model["sizes"][size]["step"], model["fixed"]
    again = 4 / 3 if "remat" in variant else 1.0
    flops = again * batch * step["flops"] + fixed["flops"]
    kept = model["frames"] * (2 * 3 * PIXELS[size] + memory_of_frame(model, size, variant)["example"])
    needed = 2 * batch * kept + costs.state_traffic(model["parameters"])
    counted = again * batch * step["bytes"] + fixed["bytes"]
    common = model["rounds"], model["parameters"]
    return (
        costs.StepCost(flops, min(needed, counted), *common),
        costs.StepCost(flops, counted, *common),
    )


def device_of(name: str, variant: str) -> costs.Device:
    """Matrix units for convolutions; block_dct has next to none."""
    if name.startswith("block_dct"):
        return costs.H100_FLOAT32
    return costs.H100_BFLOAT16 if variant.startswith("bfloat16") else costs.H100_TF32


def plan(model: dict, size: str, frames: int, variant: str = "float32") -> tuple[int, str]:
    """(batch, variant): `frames` on a device as far as they fit, with remat where nothing fits without."""
    for choice in (variant, "remat" if variant == "float32" else f"{variant} remat"):
        batch = min(frames // model["frames"], memory(model, size, choice).largest_batch())
        if batch:
            return batch, choice
    return 0, variant


def seconds(name: str, model: dict, size: str, batch: float, variant: str, count: int) -> list:
    """`StepSeconds` at the least and with the bytes of the CPU's program."""
    device = device_of(name, variant)
    return [costs.step_seconds(c, device, count) for c in step_costs(model, size, batch, variant)]


# --- tables --------------------------------------------------------------------------------------


def table(header: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def short(value: float, digits: int = 3) -> str:
    """A few digits."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if rounded >= 10 ** (digits - 1) or not rounded else f"{rounded:.{digits}g}"


def between(low: float, high: float) -> str:
    """A range of figures on paper: two digits are plenty."""
    low, high = (short(x, 2) for x in sorted((low, high)))
    return low if low == high else f"{low} .. {high}"


def models_table(results: dict) -> str:
    """What does not grow with the frame."""
    header = ["", "parameters", "state MB", "with average MB", "fixed GB moved a step", "loop rounds a step"]
    rows = [
        [
            f"`{name}`",
            f"{m['parameters']:,}",
            short(costs.state_bytes(m["parameters"]) / 1e6),
            short(costs.state_bytes(m["parameters"], ema=True) / 1e6),
            short(m["fixed"]["bytes"] / 1e9),
            f"{m['rounds']:,}",
        ]
        for name, m in results["costs"].items()
    ]
    return table(header, rows)


def frames_table(results: dict) -> str:
    """Per frame, by model and size."""
    header = ["", "frame", "GMAC hide", "GMAC reveal", "GFLOP step", "GB moved, step", "MB kept"]
    header += ["with remat", "and again", "MB of the CPU's program"]
    rows = []
    for name, m in results["costs"].items():
        for size, found in m["sizes"].items():
            plain, remat = (memory_of_frame(m, size, variant) for variant in ("float32", "remat"))
            step = [found["step"][kind] / 1e9 / m["frames"] for kind in ("flops", "bytes")]
            figures = [found["gmac"]["hide"], found["gmac"]["reveal"], *step]
            figures += [plain["example"] / 1e6, remat["example"] / 1e6, remat["again"] / 1e6]
            figures.append(plain["temporary"] / 1e6)
            mark = "M" if size in m["kept"] else "D"
            rows.append([f"`{name}`", size, *map(short, figures[:4]), f"{short(figures[4])} {mark}"])
            rows[-1] += list(map(short, figures[5:]))
    return table(header, rows)


def pixels_table(results: dict) -> str:
    """Per pixel, relative to 224x224: 1.00 is linear."""
    header = ["", "of", *(size for size in PIXELS if size != "224x224")]
    rows = []
    for name, m in results["costs"].items():
        for kind in ("flops", "bytes"):
            each = {size: found["step"][kind] / PIXELS[size] for size, found in m["sizes"].items()}
            rows.append([f"`{name}`", kind, *(f"{each[s] / each['224x224']:.2f}" for s in header[2:])])
    return table(header, rows)


def growth_table(results: dict) -> str:
    """Whole steps, divided by what is changed, relative to the first value: 1.00 is linear."""
    rows = []
    for name, sweeps in results["growth"].items():
        for what, points in sweeps.items():
            first = next(iter(points))
            title = f"{what} = {', '.join(points)}"
            row = [f"`{name}`", title]
            for kind in ("flops", "bytes", "kept", "parameters"):
                ratios = {x: points[x][kind] / points[first][kind] for x in points}
                if kind != "parameters":
                    ratios = {x: ratio / (int(x) / int(first)) for x, ratio in ratios.items()}
                row.append(" ".join(f"{value:.2f}" for value in ratios.values()))
            rows.append(row)
    return table(["", "", "flops", "bytes", "kept", "parameters (as they are)"], rows)


def batch_table(results: dict) -> str:
    """The largest batches on one H100."""
    variants = ("float32", "remat", "bfloat16 remat")
    header = ["", "frames an example", *(f"{size}" for size in PIXELS)]
    rows = []
    for name, m in results["costs"].items():
        batches = [" / ".join(f"{memory(m, s, v).largest_batch():,}" for v in variants) for s in PIXELS]
        rows.append([f"`{name}`", m["frames"], *batches])
    return table(header, rows)


def gpus_table(results: dict) -> str:
    """Weak scaling at 224x224."""
    header = ["", "batch a GPU", "GPUs", "ms a step", "all-reduce", "images/s in bfloat16"]
    rows = []
    for name, m in results["costs"].items():
        batch, variant = plan(m, "224x224", FRAMES_PER_DEVICE)
        for count in COUNTS:
            steps = seconds(name, m, "224x224", batch, variant, count)
            share = between(*(100 * x.all_reduce / x.total for x in steps))
            milliseconds = between(*(1e3 * x.total for x in steps))
            rate = bfloat16_rate(name, m, count)
            rows.append([f"`{name}`", batch, count, milliseconds, f"{share} %", rate])
    return table(header, rows)


def bfloat16_rate(name: str, model: dict, count: int) -> str:
    """Images a second in bfloat16 at 224x224, at most: a CPU's program says nothing about its bytes."""
    if model["kept"]["224x224"]["bfloat16"] == model["kept"]["224x224"]["float32"]:
        return "-"
    batch, variant = plan(model, "224x224", FRAMES_PER_DEVICE, "bfloat16")
    step = seconds(name, model, "224x224", batch, variant, count)[0]
    return f"at most {short(count * batch * model['frames'] / step.total, 2)}"


def rates_table(results: dict) -> str:
    """Images a second by size and count."""
    header = ["", "GPUs", *PIXELS]
    rows = []
    for name, m in results["costs"].items():
        plans = {size: plan(m, size, FRAMES_PER_DEVICE) for size in PIXELS}
        for count in COUNTS:
            cells = []
            for size, (batch, variant) in plans.items():
                steps = seconds(name, m, size, batch, variant, count)
                rate = between(*(count * batch * m["frames"] / x.total for x in steps))
                mark = " (remat)" if "remat" in variant else ""
                cells.append(f"{rate}{mark}" if batch else "does not fit")
            rows.append([f"`{name}`", count, *cells])
    return table(header, rows)


def strong_table(results: dict) -> str:
    """One batch of FRAMES_IN_ALL frames of 224x224 on more and more GPUs."""
    header = ["", "batch", *(f"ms on {count}" for count in COUNTS), "efficiency on 8", "on 64"]
    rows = []
    for name, m in results["costs"].items():
        batch = FRAMES_IN_ALL // m["frames"]
        times = {n: seconds(name, m, "224x224", batch / n, "float32", n) for n in COUNTS}
        cells = [between(*(1e3 * x.total for x in times[n])) for n in COUNTS]
        efficiencies = [
            between(*(100 * one.total / n / many.total for one, many in zip(times[1], times[n], strict=True)))
            for n in COUNTS[1:]
        ]
        rows.append([f"`{name}`", batch, *cells, *(f"{x} %" for x in efficiencies)])
    return table(header, rows)


def feed_table(results: dict) -> str:
    """Cores that decode ImageNet for eight H100s at 224x224."""
    speed = results.get("input images per second and core")
    if not speed:
        return (
            "Absent: the input pipeline has not been measured yet (`python experiments/input_speed.py`, then "
            "`--input-speed FILE`)."
        )
    rows = []
    for name, m in results["costs"].items():
        if m["frames"] > 1:
            continue  # of clips, not of ImageNet
        batch, variant = plan(m, "224x224", FRAMES_PER_DEVICE)
        steps = seconds(name, m, "224x224", batch, variant, 8)
        rates = sorted(8 * batch / x.total for x in steps)
        cores = [2 * rate / speed for rate in rates]
        rows.append([f"`{name}`", between(*rates), between(*(2 * rate for rate in rates)), between(*cores)])
    header = ["8 H100s, 224x224", "images/s of the step", "pictures/s to read", "cores"]
    return f"One core delivers {short(speed)} pictures/s.\n\n" + table(header, rows)


def steps_table(results: dict) -> str:
    """Measured seconds of a step of block_dct."""
    found = results["steps"]
    batches = [
        [f"batch {b}, 128x128", f"{1e3 * s:.0f}", f"{4 * int(b) / s:.1f}"] for b, s in found["batch"].items()
    ]
    sizes = [[f"batch 1, {size}", f"{1e3 * s:.0f}", f"{4 / s:.1f}"] for size, s in found["size"].items()]
    return table(["`block_dct`, t = 4", "ms a step", "frames/s"], batches + sizes)


def devices_table(results: dict) -> str:
    """Measured: one device against eight simulated ones."""
    header = ["", "global batch, frame", "ms on 1", "ms on 8", "8 / 1"]
    rows = []
    for case, found in results["devices"].items():
        runs = {n: " ".join(f"{1e3 * x:.0f}" for x in found["medians"][n]) for n in ("1", "8")}
        ratio = found["seconds 8"] / found["seconds 1"]
        shape = f"{found['batch']}, {found['side']}x{found['side']}"
        rows.append([f"`{case}`", shape, runs["1"], runs["8"], f"{ratio:.2f}"])
    return table(header, rows)


def saving_table(results: dict) -> str:
    """Measured: how long saving holds up the loop."""
    run, saves = results["saving"]["run"], results["saving"]["saves"]
    rows = [["`block_dct`, the loop's own `save_wait`, one save in 100 steps", "", f"{run['save_wait']:.2%}"]]
    share = saves["block_dct"]["seconds"] / (100 * run["seconds per step"])
    for name, save in saves.items():
        cell = f"{share:.2%}" if name == "block_dct" else ""
        title = f"`{name}`, one call, {save['bytes'] / 1e6:.1f} MB"
        rows.append([title, f"{1e3 * save['seconds']:.0f}", cell])
    return table(["", "ms held up", "share of 100 steps"], rows)


TABLES = {
    "models": ("costs", models_table),
    "frames": ("costs", frames_table),
    "pixels": ("costs", pixels_table),
    "growth": ("growth", growth_table),
    "batch": ("costs", batch_table),
    "gpus": ("costs", gpus_table),
    "rates": ("costs", rates_table),
    "strong": ("costs", strong_table),
    "feed": ("costs", feed_table),
    "steps": ("steps", steps_table),
    "devices": ("devices", devices_table),
    "saving": ("saving", saving_table),
}


def write_tables(results: dict, path: Path) -> None:
    """Replaces what lies between `<!-- table NAME -->` and `<!-- end -->`, where its section is known."""
    text = path.read_text(encoding="utf-8")
    for name, (section, make) in TABLES.items():
        if results.get(section):
            block = f"<!-- table {name} -->\n{make(results)}\n<!-- end -->"
            text = re.sub(
                rf"<!-- table {name} -->.*?<!-- end -->", lambda _, b=block: b, text, flags=re.DOTALL
            )
    path.write_text(text, encoding="utf-8")


# --- plot ----------------------------------------------------------------------------------------


def draw(results: dict, path: Path) -> None:
    """Three panels: work against pixels, memory against pixels, speed against GPUs."""
    if not results.get("costs"):
        return
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    for i, (name, model) in enumerate(results["costs"].items()):
        _draw_model(axes, name, model, f"C{i}")
    capacity = costs.H100_FLOAT32.memory / 1e9
    axes[1].axhline(capacity, color="black", linewidth=1)
    axes[1].annotate("80 GB", (PIXELS["224x224"], capacity), xytext=(0, 3), textcoords="offset points")
    axes[0].set(title="arithmetic of a training step", xlabel="pixels of a frame", ylabel="GFLOP per frame")
    title = "memory of a training step: solid; with remat: dashed"
    axes[1].set(title=title, xlabel="pixels of a frame", ylabel="GB per frame")
    title = "224x224, 64 frames a GPU, H100 on paper\nfrom the CPU program's bytes to the fewest"
    axes[2].set(title=title, xlabel="GPUs", ylabel="images/s")
    for axis in axes:
        axis.set(xscale="log", yscale="log")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    ticks = [1, 2, 4, 8, 16, 32, 64]
    axes[2].set_xticks(ticks, list(map(str, ticks)))
    axes[2].minorticks_off()
    figure.savefig(path, dpi=75)
    plt.close(figure)


def _draw_model(axes, name: str, model: dict, color: str) -> None:
    pixels = list(PIXELS.values())
    work = [model["sizes"][size]["step"]["flops"] / 1e9 / model["frames"] for size in PIXELS]
    axes[0].plot(pixels, work, "o-", label=name, color=color)
    for variant, line in (("float32", "o-"), ("remat", "x--")):
        needed = [memory(model, size, variant).example / model["frames"] / 1e9 for size in PIXELS]
        axes[1].plot(pixels, needed, line, color=color)
    counts = [1, 2, 4, 8, 16, 32, 64]
    batch, variant = plan(model, "224x224", FRAMES_PER_DEVICE)
    times = [seconds(name, model, "224x224", batch, variant, n) for n in counts]
    rates = [
        [n * batch * model["frames"] / t[i].total for n, t in zip(counts, times, strict=True)]
        for i in range(2)
    ]
    axes[2].fill_between(counts, *rates, color=color, alpha=0.2)
    axes[2].plot(counts, rates[0], "-", color=color, linewidth=1)
    axes[2].plot(counts, rates[1], "-", color=color, linewidth=1)
