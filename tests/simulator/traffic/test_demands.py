import numpy as np
import pytest
from pydantic import TypeAdapter

from simulator.statistics.intervals import t_interval
from simulator.traffic.demands import Demand

parse = TypeAdapter(Demand).validate_python


@pytest.mark.parametrize(
    ("tree", "coefficient"),
    [
        ({"kind": "exponential", "mean_seconds": 0.3}, 1.0),
        ({"kind": "lognormal", "mean_seconds": 0.3, "coefficient_of_variation": 0.5}, 0.5),
        ({"kind": "lognormal", "mean_seconds": 0.3, "coefficient_of_variation": 2.0}, 2.0),
        ({"kind": "deterministic", "mean_seconds": 0.3}, 0.0),
    ],
)
def test_mean_and_spread_are_as_asked(tree, coefficient):
    demands = parse(tree).draw(np.random.default_rng(3), 400_000)
    _, low, high = t_interval(demands, 0.999)

    assert low - 1e-12 <= 0.3 <= high + 1e-12
    assert coefficient == pytest.approx(demands.std() / demands.mean(), rel=0.05, abs=1e-12)
    assert (demands > 0).all()
