"""Make `data/traces/*.csv`: arrivals that were not recorded, but have the published statistics of traces that were.

python tools/make_traces.py [--check]

The public traces are too large to ship, and not all may be passed on. What their publications say of them is matched:
mean, maximum and, where it is known, the index of dispersion (variance over mean of the counts). Everything else, such
as how fast bursts come and go, is made up, and `SHAPES` says how.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from simulator.files import write_text

Floats = NDArray[np.float64]

FOLDER = Path(__file__).resolve().parents[1] / "data" / "traces"
SEED = 20210301


@dataclass(frozen=True)
class Shape:
    """A trace to make.

    Attributes:
        after: the trace whose statistics it has, and where they are published.
        bin_seconds, bins: how the arrivals are counted.
        mean, peak: arrivals of a bin on average and in the busiest.
        dispersion: index of dispersion of the counts, or None where it is not published.
        swing: how far the rate swings over a day, as a fraction of its mean; the day's peak is in the afternoon.
        burst: standard deviation of the logarithm of the rate beside that.
        memory_seconds: how long a burst lasts, roughly.
    """

    after: str
    bin_seconds: int
    bins: int
    mean: float
    peak: int
    dispersion: float | None
    swing: float
    burst: float
    memory_seconds: float


SHAPES = {
    "nasa-http": Shape(
        after="NASA-HTTP (Internet Traffic Archive): 0.68 requests a second on average, 10 times as many in the peak "
        "minute, and a strong daily cycle",
        bin_seconds=60, bins=7 * 1440, mean=40.8, peak=408, dispersion=None, swing=0.7, burst=0.25, memory_seconds=1200,
    ),
    "twitter-2021": Shape(
        after="the Twitter trace of 2021: 63.6 requests a second on average, 388 at most, index of dispersion 27",
        bin_seconds=1, bins=5 * 3600, mean=63.6, peak=388, dispersion=27.0, swing=0.0, burst=0.6, memory_seconds=20,
    ),
    "aws-elb": Shape(
        after="the request count of an AWS load balancer (Numenta Anomaly Benchmark): 61.8 in 5 minutes on average, "
        "656 at most, over two weeks",
        bin_seconds=300, bins=14 * 288, mean=61.8, peak=656, dispersion=None, swing=0.5, burst=0.5, memory_seconds=1200,
    ),
}  # fmt: skip


def counts(shape: Shape, random: np.random.Generator) -> NDArray[np.int64]:
    """Arrivals of each bin: Poisson numbers around a rate that swings with the day and wanders, and one crowd."""
    seconds = np.arange(shape.bins) * shape.bin_seconds
    day = 1 + shape.swing * np.cos(2 * np.pi * (seconds / 86400 - 15 / 24))
    # The rate's logarithm is an AR(1) process, which forgets a burst within `memory_seconds`.
    kept = np.exp(-shape.bin_seconds / shape.memory_seconds)
    noise = random.normal(0, 1, shape.bins)
    wander = lfilter([np.sqrt(1 - kept**2)], [1.0, -kept], noise)
    # One flash crowd, in which the peak falls: a steep rise and a slow fall.
    crowd = int(random.integers(shape.bins // 4, 3 * shape.bins // 4))
    since = (seconds - seconds[crowd]) / shape.memory_seconds
    height = np.where(since < 0, np.exp(np.minimum(8 * since, 0)), np.exp(-np.maximum(since, 0)))

    def rates(burst: float, bottom: float) -> Floats:
        """Rates of each bin, the crowd's highest the peak and the rest in proportion to `bottom`."""
        # Elsewhere the rate stays so far below the peak that its Poisson numbers do too.
        plain = np.minimum(bottom * day * np.exp(burst * wander - burst**2 / 2), 0.85 * shape.peak)
        return np.minimum(plain + (shape.peak - plain[crowd]) * height, shape.peak)

    def at_mean(burst: float) -> Floats:
        bottom = solve(lambda level: float(rates(burst, level).mean()), shape.mean, 0.0, 4 * shape.mean)
        return rates(burst, bottom)

    burst = shape.burst
    if shape.dispersion is not None:
        # Counts around a rate vary as Poisson numbers do, and with the rate as well.
        wanted = (shape.dispersion - 1) * shape.mean
        burst = solve(lambda trial: float(at_mean(trial).var()), wanted, 0.0, 1.0)
    drawn = np.minimum(random.poisson(at_mean(burst)), shape.peak)
    drawn[crowd] = shape.peak
    return drawn


def solve(rising: Callable[[float], float], wanted: float, low: float, high: float) -> float:
    """Where a rising function of one number has the wanted value, by bisection."""
    if not rising(low) <= wanted <= rising(high):
        raise ValueError(f"{wanted} is not between {rising(low)} and {rising(high)}")
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return (low + high) / 2


def trace(name: str) -> str:
    """The CSV file of one trace."""
    shape = SHAPES[name]
    # A stream for each, so that a change of one leaves the others as they are.
    random = np.random.default_rng([SEED, sorted(SHAPES).index(name)])
    lines = [
        "# Synthetic: nobody sent these requests. Made by tools/make_traces.py to match what is published of",
        f"# {shape.after}.",
        f"# `count` requests come within {shape.bin_seconds} s from `seconds` on.",
        "seconds,count",
    ]
    lines += [f"{number * shape.bin_seconds},{count}" for number, count in enumerate(counts(shape, random).tolist())]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the traces, or say which would differ."""
    different = 0
    for name in SHAPES:
        path = FOLDER / f"{name}.csv"
        text = trace(name)
        if "--check" in sys.argv[1:]:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                print(f"{path}: not what tools/make_traces.py makes; run it", file=sys.stderr)
                different += 1
        else:
            write_text(path, text)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
