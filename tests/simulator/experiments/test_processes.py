"""Results of several processes: whoever stops reading them early is told nothing that is not theirs to mend."""

import time
import warnings

import pytest
from joblib import Parallel, delayed

from simulator.errors import SimulatorError
from simulator.experiments.processes import as_they_come, count_processes


def results_of(jobs):
    return Parallel(n_jobs=2, return_as="generator")(delayed(abs)(-job) for job in range(jobs))


def test_results_come_in_their_order():
    assert list(range(50)) == list(as_they_come(results_of(50)))


def test_stopping_early_warns_of_nothing():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        results = as_they_come(results_of(50))
        assert 0 == next(results)
        time.sleep(0.2)  # for results that nobody will read
        results.close()
    assert [] == [str(warning.message) for warning in seen]


@pytest.mark.parametrize("workers", [0, -2])
def test_a_number_of_processes_that_cannot_be_is_named(workers):
    with pytest.raises(SimulatorError, match=f"workers {workers}: give a number"):
        count_processes(workers, 4)
