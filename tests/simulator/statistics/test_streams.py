import numpy as np
import pytest

from simulator.errors import SimulatorError
from simulator.statistics.streams import RandomStreams


def test_a_stream_is_the_same_whoever_asks_and_whatever_was_asked_before():
    streams = RandomStreams(7, 3)
    streams.stream("something-added-later").random(100)

    np.testing.assert_array_equal(
        RandomStreams(7, 3).stream("arrivals").random(9), streams.stream("arrivals").random(9)
    )


@pytest.mark.parametrize("other", [(7, 4, "arrivals"), (8, 3, "arrivals"), (7, 3, "demands")])
def test_another_replication_seed_or_purpose_is_another_stream(other):
    seed, replication, purpose = other
    first = RandomStreams(7, 3).stream("arrivals").random(2000)
    second = RandomStreams(seed, replication).stream(purpose).random(2000)

    # Independent uniforms: a correlation beyond 4 standard errors has a chance below 1 in 10000.
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(2000)


@pytest.mark.parametrize("wrong", [(-1, 0), (0, -1)])
def test_negative_roots_are_refused(wrong):
    with pytest.raises(SimulatorError):
        RandomStreams(*wrong)
