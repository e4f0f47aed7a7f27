from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from simulator.traffic.balancing import BALANCERS

loads = st.lists(st.integers(0, 5), min_size=1, max_size=20)


@given(loads, st.floats(0, 1, exclude_max=True), st.integers(0, 10**9))
def test_plain_and_array_versions_choose_the_same_existing_instance(load, draw, turn):
    for balancer in BALANCERS.values():
        chosen = balancer.plain(load, draw, turn)

        assert chosen == balancer.array(load, draw, turn)
        assert 0 <= chosen < len(load)


@given(loads, st.integers(0, 10**9))
def test_least_connections_takes_one_of_the_least_and_turns_among_equals(load, turn):
    choose = BALANCERS["least-connections"].plain

    assert min(load) == load[choose(load, 0.0, turn)]
    assert sorted(range(len(load))) == sorted(choose([3] * len(load), 0.0, turn + k) for k in range(len(load)))


@given(st.integers(1, 30), st.integers(0, 10**9))
def test_round_robin_visits_all_in_order(count, turn):
    choose = BALANCERS["round-robin"].plain
    visited = [choose([0] * count, 0.0, turn + k) for k in range(count + 1)]

    assert all((now + 1) % count == then for now, then in pairwise(visited))
