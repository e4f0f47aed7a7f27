"""Links: max-min fair rates, and transfers that end when those rates say, to the moment."""

import math

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from simulator.datacenter.links import Links, max_min_rates
from simulator.errors import SimulatorError

capacities = st.dictionaries(st.sampled_from("abcde"), st.just(0.0) | st.floats(1e-3, 1e4), min_size=1)


@st.composite
def networks(draw):
    links = draw(capacities)
    flow = st.lists(st.sampled_from(sorted(links)), min_size=1, max_size=3, unique=True).map(tuple)
    return links, draw(st.lists(flow, min_size=1, max_size=12))


def test_the_textbook_example():
    # Bertsekas and Gallager's chain: one long flow, and short ones beside it; the tightest link is shared first.
    links = {"first": 1.0, "second": 1.0, "third": 2.0}
    flows = [("first",), ("first", "second"), ("second", "third"), ("third",), ("first",)]
    assert [1 / 3, 1 / 3, 2 / 3, 4 / 3, 1 / 3] == pytest.approx(max_min_rates(links, flows))


def used(flows, rates, link):
    return sum(rate for links, rate in zip(flows, rates, strict=True) if link in links)


@given(networks())
def test_no_link_carries_more_than_it_can(network):
    links, flows = network
    rates = max_min_rates(links, flows)
    for link, capacity in links.items():
        assert used(flows, rates, link) <= capacity * (1 + 1e-9)


@given(networks())
def test_each_flow_has_a_full_link_on_which_none_is_faster(network):
    """The bottleneck condition, which holds for the max-min fair rates and for no others."""
    links, flows = network
    rates = max_min_rates(links, flows)
    for mine, rate in zip(flows, rates, strict=True):
        assert any(
            used(flows, rates, link) >= links[link] * (1 - 1e-9)
            and all(other <= rate * (1 + 1e-9) for theirs, other in zip(flows, rates, strict=True) if link in theirs)
            for link in mine
        )


@given(networks(), st.randoms(use_true_random=False))
def test_the_order_of_the_flows_makes_no_difference(network, random):
    links, flows = network
    order = list(range(len(flows)))
    random.shuffle(order)
    shuffled = max_min_rates(links, [flows[index] for index in order])
    assert [max_min_rates(links, flows)[index] for index in order] == pytest.approx(shuffled)


@given(networks())
def test_counting_equal_flows_is_the_same_as_repeating_them(network):
    links, flows = network
    kinds = sorted(set(flows))
    counted = max_min_rates(links, kinds, [flows.count(kind) for kind in kinds])
    alone = dict(zip(flows, max_min_rates(links, flows), strict=True))
    assert [alone[kind] for kind in kinds] == pytest.approx(counted)


@given(networks())
def test_transfers_have_the_rates_that_the_definition_gives(network):
    links, flows = network
    env = simpy.Environment()
    net = Links(env)
    made = {name: net.link(name, capacity) for name, capacity in links.items()}
    running = [net.transfer(1e9, *(made[name] for name in names)) for names in flows]
    env.run(until=100)
    arrived = [(1e9 - net.left(transfer)) / 100 for transfer in running]
    assert max_min_rates(links, flows) == pytest.approx(arrived, rel=1e-6, abs=1e-6)


@given(networks(), st.integers(0, 11))
def test_who_gives_up_is_as_if_it_had_never_been(network, who):
    links, flows = network
    who %= len(flows)
    env = simpy.Environment()
    net = Links(env)
    made = {name: net.link(name, capacity) for name, capacity in links.items()}
    running = [net.transfer(1e9, *(made[name] for name in names)) for names in flows]
    env.run(until=1)
    net.cancel(running[who])
    before = [net.left(transfer) for transfer in running]
    env.run(until=101)
    rates = [(left - net.left(transfer)) / 100 for left, transfer in zip(before, running, strict=True)]
    assert rates.pop(who) == 0
    assert max_min_rates(links, flows[:who] + flows[who + 1 :]) == pytest.approx(rates, rel=1e-6, abs=1e-6)


def test_what_no_finite_link_limits_has_no_limit():
    assert [math.inf, 5.0] == max_min_rates({"wide": math.inf, "narrow": 5.0}, [("wide",), ("wide", "narrow")])


def transfers(capacities, jobs):
    """Run `jobs` of (begin, amount, links) and give when each ended."""
    env = simpy.Environment()
    network = Links(env)
    links = {name: network.link(name, capacity) for name, capacity in capacities.items()}

    def one(begin, amount, names):
        yield env.timeout(begin)
        yield network.transfer(amount, *(links[name] for name in names))
        return env.now

    ends = [env.process(one(*job)) for job in jobs]
    env.run()
    return [end.value for end in ends], links, network


def test_a_transfer_speeds_up_when_another_ends_and_slows_down_when_one_begins():
    # 10 a second: the first has it alone for 1 s, half of it for 2 s, and is then done; the second has it alone again.
    ends, links, network = transfers({"up": 10.0}, [(0, 20, ["up"]), (1, 30, ["up"])])
    assert [3.0, 5.0] == ends
    assert links["up"].carried == pytest.approx(50)
    assert network.active == 0


def test_an_uplink_and_the_machines_links_share_as_the_definition_says():
    # The slow machine can take 1 of its fair 5, so the other gets 9 of the uplink's 10.
    ends, _, _ = transfers({"up": 10, "slow": 1, "fast": 100}, [(0, 10, ["up", "slow"]), (0, 45, ["up", "fast"])])
    assert [10.0, 5.0] == ends


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 100), st.just(["up"])), min_size=1, max_size=8),
    st.floats(0.5, 20),
)
def test_one_link_is_never_idle_while_something_waits(jobs, capacity):
    ends, links, _ = transfers({"up": capacity}, jobs)
    # Work conservation: the last end is that of a single server that works without a pause while there is work.
    free = 0.0
    for begin, amount, _ in sorted(jobs):
        free = max(free, begin) + amount / capacity
    assert free == pytest.approx(max(ends), abs=1e-6)
    assert sum(amount for _, amount, _ in jobs) == pytest.approx(links["up"].carried, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 50)), min_size=1, max_size=8))
def test_those_that_began_together_end_in_order_of_size_and_alone_is_fastest(sizes):
    ends, _, _ = transfers({"up": 7.0, "other": 3.0}, [(begin, amount, ["up", "other"]) for begin, amount in sizes])
    for (begin, amount), end in zip(sizes, ends, strict=True):
        assert amount / 3.0 <= (end - begin) * (1 + 1e-9) + 1e-9


def test_an_outage_stops_all_and_the_rest_comes_when_it_ends():
    env = simpy.Environment()
    network = Links(env)
    up = network.link("up", 10.0)
    transfer = network.transfer(100, up)

    def outage():
        yield env.timeout(4)
        network.set_capacity(up, 0.0)
        yield env.timeout(100)
        assert network.left(transfer) == pytest.approx(60)
        network.set_capacity(up, 30.0)

    env.process(outage())
    env.run(transfer)
    assert env.now == pytest.approx(106)


def test_a_cancelled_transfer_leaves_its_share_to_the_others_and_remembers_what_was_left():
    env = simpy.Environment()
    network = Links(env)
    up = network.link("up", 10.0)
    given_up, kept = network.transfer(100, up), network.transfer(20, up)

    def cancel():
        yield env.timeout(2)
        network.cancel(given_up)

    env.process(cancel())
    env.run(kept)
    assert env.now == pytest.approx(3)
    assert network.left(given_up) == pytest.approx(90)
    env.run()
    assert not given_up.triggered
    assert network.active == 0


def test_nothing_to_transfer_is_done_at_once():
    env = simpy.Environment()
    network = Links(env)
    assert env.run(network.transfer(0, network.link("down", 0.0))) == 0


@pytest.mark.parametrize("amount", [-1.0, math.inf, math.nan])
def test_an_impossible_amount_is_refused(amount):
    network = Links(simpy.Environment())
    with pytest.raises(SimulatorError, match="finite and not negative"):
        network.transfer(amount, network.link("up", 1.0))


def test_an_impossible_capacity_is_refused():
    with pytest.raises(SimulatorError, match="link up: capacity -1"):
        Links(simpy.Environment()).link("up", -1)
