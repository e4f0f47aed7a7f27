import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.datacenter.instance import NEXT, Instance, State
from simulator.errors import SimulatorError


def test_a_life_is_remembered():
    instance = Instance(0, 1.0)
    for seconds, state in ((1.0, State.STARTING), (2.5, State.READY), (9.0, State.DRAINING), (9.5, State.STOPPED)):
        instance.enter(state, seconds)

    assert 2.5 == instance.since(State.READY)
    assert instance.since(State.FAILED) is None
    assert instance.is_over


@given(st.lists(st.sampled_from(list(State)), max_size=8))
def test_only_what_may_follow_follows(states):
    instance = Instance(0, 0.0)
    for state in states:
        before = instance.state
        if state in NEXT[before]:
            instance.enter(state, 1.0)
            assert state is instance.state
        else:
            with pytest.raises(SimulatorError, match="cannot follow"):
                instance.enter(state, 1.0)
            assert before is instance.state


def test_time_does_not_run_back():
    with pytest.raises(SimulatorError, match="before"):
        Instance(0, 5.0).enter(State.STARTING, 4.0)
