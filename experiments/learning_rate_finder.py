"""Learning-rate range test: one short training whose rate grows exponentially (Smith 2017, section 3.3).

    python -m experiments.learning_rate_finder --config configs/video.py --data FOLDER \\
        [--steps 100] [--low 1e-6] [--high 1] [--smoothing 0.9] [--set train.batch_size=16 ...] \\
        [--output runs/learning_rate]

"Cyclical Learning Rates for Training Neural Networks", WACV 2017. Step k of n has the rate
low (high / low)^(k / (n - 1)); all else is as in training: the config's model, data, losses and the rest of
its optimiser, without its schedule.

- Batches differ by more than a few steps of training bring, so what counts is the change: the loss minus
  that of the untouched first parameters on the same batch with the same keys and noise. (Smith plots the
  loss itself.) This doubles the work. The smoothed change is its bias-corrected exponential average with
  --smoothing.
- The test has diverged when the smoothed change is above best + 3 max(-best, deviation), or a loss is not
  finite. The deviation is the standard deviation of the untouched parameters' loss over the batches of the
  first tenth of the steps, at least 5. (The usual rule, four times the lowest loss, has no meaning where a
  loss with minus a PSNR in it is below zero.)
- The steepest descent is where a line through the changes of a tenth of the steps (at least 5, not smoothed:
  an average lags) over log10(rate) falls most, up to the best smoothed change. A slope of less than two of
  its standard errors counts as none.

Suggests two rates, neither of them where the test says nothing: that of the steepest descent, and a tenth of
that where it diverged. Both are for a constant rate or the peak of a schedule; where the curve is noisy take
more --steps or a larger batch. Writes OUTPUT/learning_rate.json and learning_rate.png.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from deepsteg_jax import data, models
from deepsteg_jax.plots import plt
from deepsteg_jax.training.objective import with_steganalyser
from deepsteg_jax.training.state import create_optimizer, create_state
from deepsteg_jax.training.step import make_train_step
from experiments import common
from experiments.sweep import read_config

SHARE, FEWEST = 10, 5  # a tenth of the steps, at least 5 of them
DIVERGED_RANGES, BELOW_DIVERGENCE, STANDARD_ERRORS = 3, 10, 2


def part_of(steps: int) -> int:
    """How many steps are a tenth of them, at least 5."""
    return max(steps // SHARE, FEWEST)


def rate_schedule(low: float, high: float, steps: int) -> optax.Schedule:
    """Exponential growth from `low` at step 0 to `high` at step `steps` - 1."""
    return optax.exponential_decay(low, steps - 1, high / low)


class Curve:
    """The changes of a range test so far; knows when it has diverged."""

    def __init__(self, steps: int, smoothing: float):
        self.first, self.smoothing = part_of(steps), smoothing
        self.rates, self.losses, self.untouched, self.changes, self.smoothed = [], [], [], [], []
        self._average = 0.0
        self.diverged = False

    def add(self, rate: float, loss: float, untouched: float) -> None:
        """Adds a step: its loss, and that of the first parameters on its batch; sets `diverged`."""
        for column, value in zip(
            (self.rates, self.losses, self.untouched), (rate, loss, untouched), strict=True
        ):
            column.append(value)
        self.changes.append(loss - untouched)
        self._average = self.smoothing * self._average + (1 - self.smoothing) * self.changes[-1]
        self.smoothed.append(self._average / (1 - self.smoothing ** len(self.changes)))
        self.diverged = not math.isfinite(self.changes[-1])
        if len(self.changes) > self.first and not self.diverged:
            self.diverged = self.smoothed[-1] > self.limit()

    def best(self) -> int:
        """The step with the lowest smoothed change."""
        return int(np.nanargmin([x if math.isfinite(x) else math.inf for x in self.smoothed]))

    def limit(self) -> float:
        """The smoothed change above which the test has diverged."""
        best = self.smoothed[self.best()]
        return best + DIVERGED_RANGES * max(-best, float(np.std(self.untouched[: self.first])))


def steepest(rates: list[float], changes: list[float], width: int) -> int | None:
    """The middle of the `width` steps where the change falls most per decade of rate; None if it does not."""
    x = np.log10(rates)
    best, found = 0.0, None
    for start in range(len(changes) - width + 1):
        window = slice(start, start + width)
        away = x[window] - x[window].mean()
        y = np.asarray(changes[window])
        slope = float(away @ y / (away @ away))
        rest = y - y.mean() - slope * away
        error = math.sqrt(float(rest @ rest) / (width - 2) / float(away @ away))
        if slope < best and -slope > STANDARD_ERRORS * error:
            best, found = slope, start + width // 2
    return found


def run_test(
    step: Callable, state, batches: Iterator, rates: list[float], smoothing: float, say=lambda line: None
) -> Curve:
    """Steps until the end or until the loss diverges; step k, whose rate is `rates[k]`, logs `loss`."""
    steps = len(rates)
    curve, first = Curve(steps, smoothing), state
    for number, batch in zip(range(steps), batches, strict=False):
        untouched = step(first.replace(step=state.step), batch)[1]  # the step's number decides its keys
        state, logs = step(state, batch)
        curve.add(rates[number], float(logs["loss"]), float(untouched["loss"]))
        if (number + 1) % part_of(steps) == 0 or curve.diverged:
            say(f"step {number + 1}: rate {curve.rates[-1]:.3g}, smoothed change {curve.smoothed[-1]:.4g}")
        if curve.diverged:
            break
    return curve


def suggest(curve: Curve) -> dict:
    """The two rates, null where the test says nothing."""
    last = curve.best() + 1
    middle = steepest(curve.rates[:last], curve.changes[:last], curve.first)
    return {
        "steepest_descent": None if middle is None else curve.rates[middle],
        "diverged_at": curve.rates[-1] if curve.diverged else None,
        "below_divergence": curve.rates[-1] / BELOW_DIVERGENCE if curve.diverged else None,
        "best_at": curve.rates[curve.best()],
    }


def range_test(config: ConfigDict, low: float, high: float, steps: int, smoothing: float) -> Curve:
    """Builds the config's training step with the growing rate and runs the test."""
    config.optimizer.schedule = "constant"  # no plateau beside the growing rate
    schedule = rate_schedule(low, high, steps)
    model = with_steganalyser(models.build(config.model), config)
    optimizer = create_optimizer(config.optimizer, schedule)
    key = jax.random.key(config.seed)
    state = create_state(model, optimizer, jax.random.fold_in(key, 0))
    step = jax.jit(make_train_step(model, optimizer, config, jax.random.fold_in(key, 1)))
    rates = [float(schedule(number)) for number in range(steps)]
    with closing(
        data.create_pairs(data.section(config), seed=config.seed, batch_size=config.train.batch_size)
    ) as pairs:
        return run_test(step, state, pairs, rates, smoothing, lambda line: print(line, flush=True))


def draw(path: Path, curve: Curve, found: dict) -> None:
    """The change of every batch, the smoothed change and the two rates."""
    figure, axis = plt.subplots(figsize=(7.5, 4.5))
    axis.plot(curve.rates, curve.changes, color="0.8", linewidth=1, label="each batch")
    axis.plot(curve.rates, curve.smoothed, linewidth=2, label="smoothed")
    styles = {
        "steepest_descent": ("C2", "steepest descent"),
        "below_divergence": ("C1", f"divergence / {BELOW_DIVERGENCE}"),
        "diverged_at": ("C3", "diverged"),
    }
    for name, (colour, label) in styles.items():
        if found[name] is not None:
            axis.axvline(found[name], color=colour, linestyle="--", label=f"{label}: {found[name]:.2g}")
    known = [value for value in curve.changes[: curve.best() + 1] + curve.smoothed if math.isfinite(value)]
    if known:  # a last value that is thousands of times the others would make them a flat line
        low, high = min(known), max(known)
        axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low) or None)
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss - loss of the untouched parameters")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def say(found: dict, curve: Curve) -> str:
    """The suggestion in words."""
    descent, below = found["steepest_descent"], found["below_divergence"]
    lines = ["steepest descent: " + ("none found" if descent is None else f"{descent:.3g}")]
    if below is None:
        lines.append(f"did not diverge up to {curve.rates[-1]:.3g}")
    else:
        lines.append(
            f"diverged at {found['diverged_at']:.3g}; a factor {BELOW_DIVERGENCE} below: {below:.3g}"
        )
    return "\n".join(lines)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line; exits with 2 for a mistake in it."""
    parser = common.make_parser(__doc__)
    parser.add_argument("--config", required=True, help="for example configs/video.py; as for main.py")
    parser.add_argument("--data", help="config.data.path")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--low", type=float, default=1e-6, help="the first rate")
    parser.add_argument("--high", type=float, default=1.0, help="the last rate")
    parser.add_argument("--smoothing", type=float, default=0.9, help="weight of the past, from 0 to below 1")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE")
    parser.add_argument("--output", type=Path, default=Path("runs/learning_rate"))
    arguments = parser.parse_args(argv)
    if arguments.steps < 4 * FEWEST:
        parser.error(f"--steps is at least {4 * FEWEST}, not {arguments.steps}")
    if not 0 < arguments.low < arguments.high < math.inf:
        parser.error("--low and --high: it must be 0 < low < high")
    if not 0 <= arguments.smoothing < 1:
        parser.error("--smoothing is from 0 to below 1")
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Run the test and write what it found."""
    arguments = parse(argv)
    overrides = dict(text.partition("=")[::2] for text in arguments.set)
    overrides |= {"data.path": arguments.data} if arguments.data else {}
    config = read_config(arguments.config, overrides)
    curve = range_test(config, arguments.low, arguments.high, arguments.steps, arguments.smoothing)
    found = suggest(curve)
    columns = {
        name: [x if math.isfinite(x) else None for x in getattr(curve, name)]
        for name in ("rates", "losses", "untouched", "smoothed")
    }
    common.write_json(arguments.output / "learning_rate.json", found | columns)
    draw(arguments.output / "learning_rate.png", curve, found)
    print(say(found, curve))


if __name__ == "__main__":
    common.run(main)
