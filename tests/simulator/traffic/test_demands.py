import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

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


KINDS = [
    {"kind": "exponential", "mean_seconds": 0.3},
    {"kind": "lognormal", "mean_seconds": 0.3, "coefficient_of_variation": 2.0},
    {"kind": "deterministic", "mean_seconds": 0.3},
    {"kind": "pareto", "shape": 4.5, "minimum_seconds": 0.1},
    {"kind": "bounded-pareto", "shape": 1.1, "minimum_seconds": 0.01, "maximum_seconds": 1.0},
    {"kind": "bounded-pareto", "shape": 1.0, "minimum_seconds": 0.01, "maximum_seconds": 1.0},
    {"kind": "bounded-pareto", "shape": 2.0, "minimum_seconds": 0.01, "maximum_seconds": 1.0},
    {"kind": "bounded-pareto", "shape": 1e-9, "minimum_seconds": 0.01, "maximum_seconds": 1.0},
    {"kind": "bounded-pareto", "shape": 50, "minimum_seconds": 1e-10, "maximum_seconds": 1.0},
    {"kind": "empirical", "path": "reference/startup", "platform": "container", "metric": "wall"},
    {"kind": "uniform", "low_seconds": 0.1, "high_seconds": 0.3},
]


@pytest.mark.parametrize("tree", KINDS, ids=lambda tree: f"{tree['kind']}-{tree.get('shape', '')}")
def test_every_kind_knows_its_mean_and_spread(tree):
    demand = parse(tree)
    demands = demand.draw(np.random.default_rng(3), 400_000)
    _, low, high = t_interval(demands, 0.999)

    assert low * (1 - 1e-12) <= demand.mean <= high * (1 + 1e-12)
    assert demand.variation == pytest.approx(demands.std() / demands.mean(), rel=0.05, abs=1e-12)


@pytest.mark.parametrize("tree", KINDS, ids=lambda tree: f"{tree['kind']}-{tree.get('shape', '')}")
def test_drawing_in_parts_gives_the_same_demands(tree):
    demand = parse(tree)
    random = np.random.default_rng(4)
    parts = np.concatenate([demand.draw(random, count) for count in (1, 7, 0, 992)])

    np.testing.assert_array_equal(demand.draw(np.random.default_rng(4), 1000), parts)


def test_samples_are_drawn_from_the_file_as_often_as_each_other(tmp_path):
    path = tmp_path / "numbers.csv"
    path.write_text("# by hand\n1\n2\n4\n")
    drawn = parse({"kind": "empirical", "path": str(path), "scale": 0.5}).draw(np.random.default_rng(5), 30_000)
    values, counts = np.unique(drawn, return_counts=True)

    assert [0.5, 1.0, 2.0] == values.tolist()
    assert (abs(counts - 10_000) < 4 * np.sqrt(30_000 * 2 / 9)).all()


@pytest.mark.parametrize(
    ("tree", "complaint"),
    [
        ({"kind": "pareto", "shape": 1.0, "minimum_seconds": 1}, "`shape` 1 of `pareto` has an infinite mean"),
        ({"kind": "pareto", "shape": 1 + 1e-15, "minimum_seconds": 1e300}, "`minimum_seconds`"),
        ({"kind": "bounded-pareto", "shape": 1, "minimum_seconds": 2, "maximum_seconds": 1}, "`maximum_seconds`"),
        ({"kind": "bounded-pareto", "shape": 1, "minimum_seconds": 1e-200, "maximum_seconds": 1}, "more than 1e"),
        ({"kind": "lognormal", "mean_seconds": 1, "coefficient_of_variation": 1e200}, "less than or equal"),
        ({"kind": "empirical", "path": "nowhere"}, "`path` nowhere"),
    ],
)
def test_impossible_demands_are_refused(tree, complaint):
    with pytest.raises(ValidationError, match=complaint):
        parse(tree)
