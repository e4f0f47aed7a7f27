"""The traces that ship have the statistics that are published of those after which they are named."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simulator.datafiles import data_directory
from simulator.traffic.arrivals import TraceArrivals

CHECKOUT = Path(__file__).resolve().parents[3]

# Bin in seconds, mean and maximum of a bin: as published, see data/README.md.
PUBLISHED = {"nasa-http": (60, 0.68 * 60, 0.68 * 60 * 10), "twitter-2021": (1, 63.6, 388), "aws-elb": (300, 61.8, 656)}


def played(name):
    """Counts of each bin of the trace as it is played."""
    width = PUBLISHED[name][0]
    trace = TraceArrivals(kind="trace", path=name)
    duration = 60 * 86400.0
    times = trace.draw(np.random.default_rng(1), duration)
    assert trace.expected(duration) == len(times)
    # The last bins may be empty, but no more than a few.
    return np.bincount((times / width).astype(int))


@pytest.mark.parametrize("name", PUBLISHED)
def test_mean_and_peak_are_as_published(name):
    _, mean, peak = PUBLISHED[name]
    counts = played(name)

    assert mean == pytest.approx(counts.mean(), rel=0.005)
    assert peak == pytest.approx(counts.max(), rel=0.005)


def test_twitter_is_as_bursty_as_published():
    counts = played("twitter-2021")

    assert counts.var() / counts.mean() == pytest.approx(27, rel=0.02)


def test_nasa_has_days_and_nights():
    counts = played("nasa-http")
    hours = counts[: 7 * 1440].reshape(7, 24, 60).sum(axis=(0, 2))

    assert hours.max() > 3 * hours.min()
    # Any day resembles the next, as it would not if the bursts alone made it uneven.
    days = counts[: 7 * 1440].reshape(7, 24, 60).sum(axis=2)
    assert all(np.corrcoef(days[day], days[day + 1])[0, 1] > 0.5 for day in range(6))


def test_the_traces_that_ship_are_small_and_say_what_they_are():
    files = sorted((data_directory() / "traces").glob("*.csv"))

    assert sorted(PUBLISHED) == [path.stem for path in files]
    for path in files:
        assert path.stat().st_size < 200_000
        assert path.read_text(encoding="utf-8").startswith("# Synthetic: ")


def test_the_traces_that_ship_are_those_of_the_script():
    made = subprocess.run(
        [sys.executable, CHECKOUT / "tools" / "make_traces.py", "--check"], capture_output=True, text=True
    )

    assert (0, "") == (made.returncode, made.stderr)
