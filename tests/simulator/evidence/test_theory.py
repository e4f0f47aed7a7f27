import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize

from simulator.datacenter.links import max_min_rates
from simulator.datafiles import data_directory
from simulator.errors import SimulatorError
from simulator.evidence.theory import (
    bounded_pareto_coefficient_of_variation,
    bounded_pareto_moment,
    closed_loop,
    erlang_b,
    erlang_c,
    fair_shares,
    interactive_response_time,
    mdc_mean_wait,
    mean_number,
    mean_value_analysis,
    mg1_mean_wait,
    mmc_mean_wait,
    mmc_wait_quantile,
    mmck,
    ps_conditional_sojourn,
    ps_mean_sojourn,
    shared_cores_mean_sojourn,
    supermarket_mean_sojourn,
    supermarket_tail,
)

workers_and_load = st.integers(1, 60).flatmap(
    lambda workers: st.tuples(st.just(workers), st.floats(0.01, 0.99).map(lambda part: part * workers))
)
seconds = st.floats(0.01, 100.0)


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


@given(st.integers(1, 30), st.floats(0.01, 60), seconds)
def test_with_no_place_to_wait_a_finite_queue_blocks_as_erlang_b_says(workers, load, demand):
    queue = mmck(workers, workers, load / demand, demand)

    assert erlang_b(workers, load) == pytest.approx(queue.blocked, rel=1e-9)
    assert 0.0 == queue.mean_wait


@given(st.integers(1, 40), st.floats(0.05, 5.0))
def test_one_worker_with_k_places_blocks_as_its_closed_form_says(places, load):
    blocked = 1 / (places + 1) if load == 1 else (1 - load) * load**places / (1 - load ** (places + 1))

    assert blocked == pytest.approx(mmck(1, places, load, 1.0).blocked, rel=1e-6)


@given(workers_and_load)
@settings(max_examples=30)
def test_with_very_many_places_a_finite_queue_is_the_infinite_one(case):
    workers, load = case

    assert mmc_mean_wait(workers, load, 1.0) == pytest.approx(
        mmck(workers, workers + 5000, load, 1.0).mean_wait, rel=1e-6
    )


@given(st.integers(1, 8), st.integers(0, 30), st.floats(0.1, 20.0), seconds)
def test_a_finite_queue_keeps_littles_law(workers, more, load, demand):
    queue = mmck(workers, workers + more, load / demand, demand)

    assert queue.mean_number == pytest.approx(mean_number(queue.throughput, queue.mean_wait + demand), rel=1e-9)


def mean_wait_of_the_embedded_chain(workers, load):
    """M/D/c without a formula: who is here one demand later are those who were not in service, and those who came."""
    size = 400
    come = np.exp([n * math.log(load) - load - math.lgamma(n + 1) for n in range(size)])
    chain = np.zeros((size, size))
    for inside in range(size):
        left = max(inside - workers, 0)
        chain[inside, left:] = come[: size - left]
        chain[inside, -1] += 1 - chain[inside].sum()
    balance = np.vstack([chain.T - np.eye(size), np.ones(size)])
    chances = np.linalg.lstsq(balance, np.r_[np.zeros(size), 1.0], rcond=None)[0]
    return float(np.maximum(np.arange(size) - workers, 0) @ chances) / load


@pytest.mark.parametrize(("workers", "part"), [(1, 0.5), (2, 0.5), (2, 0.9), (4, 0.7), (10, 0.8), (25, 0.9)])
def test_mdc_waits_as_long_as_its_embedded_chain_says(workers, part):
    load = part * workers

    assert mean_wait_of_the_embedded_chain(workers, load) == pytest.approx(mdc_mean_wait(workers, load, 1.0), rel=1e-6)


@given(st.floats(0.0, 0.9999), seconds)
def test_md1_is_pollaczek_and_khinchines(load, demand):
    assert mg1_mean_wait(load / demand, demand, 0.0) == pytest.approx(mdc_mean_wait(1, load / demand, demand), rel=1e-9)


@given(workers_and_load)
def test_equal_demands_wait_less_than_exponential_ones_and_at_least_half_as_long(case):
    workers, load = case
    exponential = mmc_mean_wait(workers, load, 1.0)

    assert exponential / 2 * (1 - 1e-9) <= mdc_mean_wait(workers, load, 1.0) <= exponential


@pytest.mark.parametrize("workers", [1, 3, 10, 100])
def test_near_full_load_equal_demands_halve_the_wait(workers):
    load = workers * (1 - 1e-6)

    assert 0.5 == pytest.approx(mdc_mean_wait(workers, load, 1.0) / mmc_mean_wait(workers, load, 1.0), rel=1e-4)


@pytest.mark.parametrize("workers", [2, 7, 64])
def test_both_forms_of_mdc_agree_where_one_hands_over_to_the_other(workers):
    # The hand-over is somewhere in here, so a step would show in the second differences of a smooth curve.
    loads = workers * np.linspace(0.9, 0.999, 400)
    curve = np.log([mdc_mean_wait(workers, load, 1.0) * (workers - load) for load in loads])

    assert 1e-5 > np.abs(np.diff(curve, n=2)).max()


@given(st.floats(0.0, 0.99), seconds, seconds)
def test_sharing_slows_all_alike(load, mean_demand, demand):
    rate = load / mean_demand

    assert ps_mean_sojourn(rate, mean_demand) / mean_demand == pytest.approx(
        ps_conditional_sojourn(rate, mean_demand, demand) / demand
    )
    # With exponential demands, sharing and queueing take equally long on average.
    assert mmc_mean_wait(1, rate, mean_demand) + mean_demand == pytest.approx(ps_mean_sojourn(rate, mean_demand))
    assert ps_mean_sojourn(rate, mean_demand) == pytest.approx(shared_cores_mean_sojourn(1, rate, mean_demand))


@given(workers_and_load)
@settings(max_examples=30)
def test_shared_cores_are_a_chain_that_serves_at_most_as_fast_as_there_are_cores(case):
    cores, load = case
    rates = np.minimum(np.arange(1, 20001), cores)
    logs = np.concatenate([[0.0], np.cumsum(np.log(load / rates))])
    chances = np.exp(logs - logs.max())
    number = float(np.arange(20001) @ chances / chances.sum())

    assert number / load == pytest.approx(shared_cores_mean_sojourn(cores, load, 1.0), rel=1e-6)


def lexicographic_max_min(capacities, flows, limits):
    """Max-min fairness from its definition: raise the least rate as far as it goes, fix whom that binds, and go on."""
    fixed: dict[int, float] = {}
    count = len(flows)
    while len(fixed) < count:
        free = [flow for flow in range(count) if flow not in fixed]

        def best(objective, floor, fixed=fixed, free=free):
            """The most that `objective` can be when no free flow has less than `floor`; `floor` None: a variable."""
            rows, bounds = [], []
            for link, capacity in capacities.items():
                rows.append([float(link in flows[flow]) for flow in range(count)] + [0.0])
                bounds.append(capacity)
            for flow in free:
                if floor is None:
                    rows.append([-float(flow == other) for other in range(count)] + [1.0])
                    bounds.append(0.0)
            limits_of = [
                (fixed[flow], fixed[flow]) if flow in fixed else (floor or 0.0, limits[flow]) for flow in range(count)
            ]
            solved = optimize.linprog(-np.array(objective), rows, bounds, bounds=[*limits_of, (0, None)])
            return -solved.fun

        floor = best([0.0] * count + [1.0], None)
        for flow in free:
            alone = [float(flow == other) for other in range(count)] + [0.0]
            if best(alone, floor * (1 - 1e-9)) <= floor * (1 + 1e-6) + 1e-9:
                fixed[flow] = floor
    return [fixed[flow] for flow in range(count)]


@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=6), st.floats(0.1, 30.0))
@settings(max_examples=25, deadline=None)
def test_fair_shares_of_one_resource_are_max_min(limits, capacity):
    shares = lexicographic_max_min({"it": capacity}, [["it"]] * len(limits), limits)

    assert shares == pytest.approx(fair_shares(capacity, limits), rel=1e-4)


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_rates_over_several_links_are_max_min(data):
    links = {name: data.draw(st.floats(0.5, 10.0)) for name in "abc"}
    flows = data.draw(st.lists(st.sets(st.sampled_from("abc"), min_size=1), min_size=1, max_size=5))
    rates = lexicographic_max_min(links, flows, [100.0] * len(flows))

    assert rates == pytest.approx(max_min_rates(links, [sorted(flow) for flow in flows]), rel=1e-4)


@given(st.lists(st.tuples(st.floats(0.0, 10.0), st.floats(0.01, 100.0)), min_size=1, max_size=8), st.floats(0.0, 40.0))
def test_weighted_shares_use_all_and_leave_nobody_who_is_below_the_others(limited, capacity):
    limits, weights = zip(*limited, strict=True)
    shares = fair_shares(capacity, limits, weights)

    assert min(capacity, sum(limits)) == pytest.approx(sum(shares), abs=1e-9)
    levels = [share / weight for share, weight in zip(shares, weights, strict=True)]
    for share, limit, level in zip(shares, limits, levels, strict=True):
        assert share <= limit
        assert share == limit or level == pytest.approx(max(levels), rel=1e-9)


def test_a_weight_counts_only_while_both_want_more():
    assert [1.0, 3.0] == pytest.approx(fair_shares(4.0, [math.inf, math.inf], [1.0, 3.0]))
    assert [3.0, 1.0] == pytest.approx(fair_shares(4.0, [math.inf, 1.0], [1.0, 3.0]))


@given(st.floats(0.0, 0.999), seconds)
def test_one_choice_is_one_queue(load, demand):
    assert demand / (1 - load) == pytest.approx(supermarket_mean_sojourn(1, load / demand, demand))
    assert load**7 == pytest.approx(supermarket_tail(1, load, 7))


@pytest.mark.parametrize(("choices", "load"), list(product([2, 3, 5], [0.5, 0.9, 0.99])))
def test_the_supermarket_rests_where_its_differential_equations_do(choices, load):
    tail = np.array([supermarket_tail(choices, load, length) for length in range(60)])
    comes = load * (tail[:-1] ** choices - np.append(tail[1:], 0.0)[: len(tail) - 1] ** choices)
    leaves = tail[1:] - np.append(tail[2:], 0.0)

    assert 1.0 == tail[0]
    np.testing.assert_allclose(comes, leaves, atol=1e-12)
    assert tail[1:].sum() / load == pytest.approx(supermarket_mean_sojourn(choices, load, 1.0), rel=1e-12)


def test_the_supermarket_comes_to_rest_from_empty():
    # The equations run on until they stand still, without knowing the closed form.
    def change(_, tail):
        padded = np.concatenate([[1.0], tail, [0.0]])
        return 0.9 * (padded[:-2] ** 2 - padded[1:-1] ** 2) - (padded[1:-1] - padded[2:])

    end = integrate.solve_ivp(change, (0, 400), np.zeros(30), method="LSODA", rtol=1e-9, atol=1e-12).y[:, -1]

    assert end.sum() / 0.9 == pytest.approx(supermarket_mean_sojourn(2, 0.9, 1.0), rel=1e-5)


@given(st.integers(1, 60), seconds, seconds)
def test_a_loop_with_one_worker_is_mean_value_analysis(users, think, demand):
    expected = mean_value_analysis(users, think, [demand])

    assert expected == pytest.approx(closed_loop(users, think, 1, demand), rel=1e-6)


@given(st.integers(1, 60), st.integers(1, 20), seconds, seconds)
def test_a_loop_keeps_its_laws_and_bounds(users, workers, think, demand):
    loop = closed_loop(users, think, workers, demand)

    assert loop.response == pytest.approx(interactive_response_time(users, loop.throughput, think))
    assert loop.mean_number == pytest.approx(mean_number(loop.throughput, loop.response), rel=1e-6)
    assert loop.throughput <= min(users / (think + demand), workers / demand) * (1 + 1e-9)
    assert users > workers or loop.response == pytest.approx(demand, rel=1e-6)


def test_stations_in_a_row_share_users_as_their_product_form_says():
    demands, users = [0.2, 0.5, 0.3], 6

    def constant(count):
        """Of the product form: the sum of all ways in which `count` users can be at the stations."""
        return sum(
            math.prod(demand**number for demand, number in zip(demands, (one, two, count - one - two), strict=True))
            for one in range(count + 1)
            for two in range(count - one + 1)
        )

    loop = mean_value_analysis(users, 0.0, demands)
    assert constant(users - 1) / constant(users) == pytest.approx(loop.throughput, rel=1e-12)
    assert users == pytest.approx(loop.mean_number)


@given(st.floats(0.3, 4.0), st.floats(0.001, 1.0), st.floats(1.5, 1e4), st.sampled_from([1.0, 2.0]))
@settings(max_examples=40)
def test_moments_of_the_bounded_pareto_are_its_integrals(shape, minimum, ratio, order):
    maximum = minimum * ratio

    def of_log(log):  # in the logarithm of x, where the density is smooth
        return math.exp(log * (order - shape))

    ends = math.log(minimum), math.log(maximum)
    above = integrate.quad(of_log, *ends, epsrel=1e-11)[0]
    all_of_it = integrate.quad(lambda log: math.exp(-log * shape), *ends, epsrel=1e-11)[0]

    assert above / all_of_it == pytest.approx(bounded_pareto_moment(shape, minimum, maximum, order), rel=1e-7)


@pytest.mark.parametrize("order", [1.0, 2.0])
def test_the_bounded_pareto_passes_smoothly_through_its_special_case(order):
    near = [bounded_pareto_moment(order + shift, 1.0, 1000.0, order) for shift in (-1e-9, 0.0, 1e-9)]

    assert near[1] == pytest.approx(near[0], rel=1e-7)
    assert near[1] == pytest.approx(near[2], rel=1e-7)


def test_the_spread_of_the_bounded_pareto_is_that_of_its_samples():
    # By inversion at the middle of each of very many equal chances, which no seed decides.
    shape, minimum, maximum = 1.5, 0.01, 10.0
    chance = (np.arange(2_000_000) + 0.5) / 2_000_000
    values = minimum * (1 - chance * (1 - (minimum / maximum) ** shape)) ** (-1 / shape)

    assert values.std() / values.mean() == pytest.approx(
        bounded_pareto_coefficient_of_variation(shape, minimum, maximum), rel=1e-3
    )


def test_what_theory_cannot_answer_is_refused():
    for wrong in (
        lambda: erlang_c(2, 2.0),
        lambda: erlang_b(0, 1.0),
        lambda: erlang_b(1, -1.0),
        lambda: erlang_b(1, math.nan),
        lambda: mmc_wait_quantile(1, 0.5, 1.0, 1.0),
        lambda: mg1_mean_wait(0.5, 1.0, -1.0),
        lambda: mdc_mean_wait(2, 2.0, 1.0),
        lambda: mmck(2, 1, 1.0, 1.0),
        lambda: mmck(1, 1, 0.0, 1.0),
        lambda: ps_mean_sojourn(1.0, 1.0),
        lambda: ps_conditional_sojourn(0.5, 1.0, -1.0),
        lambda: shared_cores_mean_sojourn(2, 2.0, 1.0),
        lambda: fair_shares(-1.0, [1.0]),
        lambda: fair_shares(1.0, [1.0], [1.0, 2.0]),
        lambda: fair_shares(1.0, [1.0], [0.0]),
        lambda: supermarket_mean_sojourn(2, 1.0, 1.0),
        lambda: supermarket_mean_sojourn(0, 0.5, 1.0),
        lambda: supermarket_tail(2, 0.5, -1),
        lambda: closed_loop(0, 1.0, 1, 1.0),
        lambda: closed_loop(1, 0.0, 1, 1.0),
        lambda: mean_value_analysis(1, 1.0, []),
        lambda: mean_value_analysis(1, -1.0, [1.0]),
        lambda: bounded_pareto_moment(0.0, 1.0, 2.0),
        lambda: bounded_pareto_moment(1.0, 2.0, 1.0),
        lambda: mean_number(-1.0, 1.0),
        lambda: mean_number(1.0, -1.0),
        lambda: interactive_response_time(1, 0.0, 1.0),
    ):
        with pytest.raises(SimulatorError):
            wrong()
