import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.datafiles import data_directory
from simulator.errors import SimulatorError
from simulator.evidence.theory import erlang_b, erlang_c, mg1_mean_wait, mmc_mean_wait, mmc_wait_quantile

workers_and_load = st.integers(1, 60).flatmap(
    lambda workers: st.tuples(st.just(workers), st.floats(0.01, 0.99).map(lambda part: part * workers))
)


@given(st.integers(1, 40), st.floats(0.01, 60))
def test_erlang_b_is_the_last_state_of_the_birth_and_death_process(workers, load):
    weights = np.array([load**n / math.factorial(n) for n in range(workers + 1)])

    assert weights[-1] / weights.sum() == pytest.approx(erlang_b(workers, load), rel=1e-9)


@given(workers_and_load)
def test_erlang_c_is_the_chance_of_finding_all_workers_busy(case):
    workers, load = case
    below = sum(load**n / math.factorial(n) for n in range(workers))
    full = load**workers / math.factorial(workers) * workers / (workers - load)

    assert full / (below + full) == pytest.approx(erlang_c(workers, load), rel=1e-9)


def test_the_published_mean_wait_of_ten_workers_at_eighty_percent():
    assert 0.204590 == pytest.approx(mmc_mean_wait(10, 8.0, 1.0), abs=5e-7)


@given(st.floats(0.01, 0.99))
def test_one_worker_waits_as_long_by_either_formula(load):
    assert mmc_mean_wait(1, load, 1.0) == pytest.approx(mg1_mean_wait(load, 1.0, 1.0))


@given(st.floats(0.01, 0.99))
def test_equal_demands_halve_the_wait(load):
    assert mg1_mean_wait(load, 1.0, 1.0) / 2 == pytest.approx(mg1_mean_wait(load, 1.0, 0.0))


@given(workers_and_load)
@settings(max_examples=20)
def test_the_mean_wait_is_the_integral_of_its_quantiles(case):
    workers, load = case
    quantiles = [mmc_wait_quantile(workers, load, 1.0, (k + 0.5) / 5000) for k in range(5000)]

    assert mmc_mean_wait(workers, load, 1.0) == pytest.approx(np.mean(quantiles), rel=5e-3, abs=1e-3 / (workers - load))


def test_the_comment_of_the_steady_scenario_quotes_the_theory():
    text = (data_directory() / "scenarios" / "steady.toml").read_text(encoding="utf-8")

    assert f"0.1 + {mmc_mean_wait(4, 30.0, 0.1):.4f} seconds" in text.replace("\n# ", " ")


def test_what_theory_cannot_answer_is_refused():
    for wrong in (
        lambda: erlang_c(2, 2.0),
        lambda: erlang_b(0, 1.0),
        lambda: erlang_b(1, -1.0),
        lambda: erlang_b(1, math.nan),
        lambda: mmc_wait_quantile(1, 0.5, 1.0, 1.0),
        lambda: mg1_mean_wait(0.5, 1.0, -1.0),
    ):
        with pytest.raises(SimulatorError):
            wrong()
