"""Starts that fail: how often, and the waits between attempts."""

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from simulator.datacenter.failures import BackOff, StartFailures, start_in_spite_of_failures
from simulator.errors import SimulatorError
from simulator.records import validate_record


def test_the_waits_of_kubernetes():
    """Pod Lifecycle: 10 s, 20 s, 40 s, … at most 300 s."""
    assert [0, 10, 20, 40, 80, 160, 300, 300] == [BackOff().seconds(failures) for failures in range(8)]


@given(st.floats(0, 1e3), st.floats(1, 10), st.floats(0, 1e4), st.integers(1, 5000))
def test_waits_never_shrink_and_never_exceed_the_cap(first, factor, cap, failures):
    back_off = BackOff(first_seconds=first, factor=factor, cap_seconds=cap)
    assert 0 <= back_off.seconds(failures) <= back_off.seconds(failures + 1) <= cap


def attempts(failures, draws):
    """Starts of 1 s each; gives whether it started, when, and what was waited."""
    env = simpy.Environment()
    waits = []

    def start():
        yield env.timeout(1)
        return 1.0

    process = env.process(
        start_in_spite_of_failures(
            env, start, failures, iter(draws).__next__, failed=lambda count, wait: waits.append((count, wait))
        )
    )
    return env.run(process), env.now, waits


def test_each_failure_costs_a_start_and_a_wait():
    started, now, waits = attempts(StartFailures(probability=0.5), [0.1, 0.49, 0.5])
    assert started
    assert [(1, 10), (2, 20)] == waits
    assert now == 1 + 10 + 1 + 20 + 1


def test_nothing_fails_by_default():
    assert (True, 1, []) == attempts(StartFailures(), [0.0])


def test_after_the_last_attempt_it_is_over():
    started, now, waits = attempts(StartFailures(probability=1, most_attempts=2), [0.9, 0.9])
    assert not started
    assert [(1, 10)] == waits
    assert now == 12


def test_a_start_that_always_fails_is_refused_unless_it_ends():
    with pytest.raises(SimulatorError, match="`probability` 1 lets no instance ever start"):
        validate_record(StartFailures, {"probability": 1.0}, "here")
