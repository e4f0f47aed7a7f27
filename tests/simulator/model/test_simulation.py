"""The whole model: against queueing theory, and one life-cycle rule at a time."""

import numpy as np
import pytest

from simulator.datacenter.instance import NEXT, State
from simulator.errors import SimulatorError
from simulator.evidence.theory import (
    mg1_mean_wait,
    mmc_mean_wait,
    mmc_wait_quantile,
    ps_mean_sojourn,
    supermarket_mean_sojourn,
)
from simulator.metrics import summarise
from simulator.model import Model, ScenarioNumbers
from simulator.statistics.intervals import t_interval
from simulator.statistics.streams import RandomStreams
from simulator.traffic.balancing.policies import POLICIES
from simulator.traffic.plane import COMPLETED, REJECTED

REPLICATIONS = 24
SERVICE = {"demand": {"kind": "exponential", "mean_seconds": 0.1}, "queue_limit": 50, "cpu_cores": 0.25}
"""Its workers may use four times what is reserved, so that the autoscaler sees a surge for what it is."""
ROOM = {"count": 4, "spec": {"cores": 8}}
SURGE = {
    "duration_seconds": 300.0,
    "application": SERVICE,
    "arrivals": {"kind": "steps", "steps": [[0, 8], [60, 60], [150, 8]]},
    "autoscaler": {"kind": "hpa", "max_instances": 30, "scale_down": {"stabilization_seconds": 30}},
}


class Witness:
    """Keeps what became of each request."""

    def __init__(self):
        self.arrived, self.seconds, self.state = (np.empty(0) for _ in range(3))

    def record(self, arrived, seconds, state):
        self.arrived = np.concatenate([self.arrived, arrived])
        self.seconds = np.concatenate([self.seconds, seconds])
        self.state = np.concatenate([self.state, state])


def waits(make_scenario, make_profile, *, demand, workers, load, seconds):
    """The wait of each counted request, an array a replication. Mean demand is 1/10 s.

    The queue never turns anyone away, so requests keep their order and the k-th has the k-th demand.
    """
    scenario = make_scenario(
        duration_seconds=seconds,
        warm_up_seconds=0.0,
        machines={"count": 1, "spec": {"cores": workers}},
        application={"demand": {"kind": demand, "mean_seconds": 0.1}, "workers": workers, "queue_limit": 10**6},
        arrivals={"kind": "poisson", "rate_per_second": load * workers / 0.1},
    )
    for replication in range(REPLICATIONS):
        witness = Witness()
        Model(scenario, make_profile(), seed=11, replication=replication, observer=witness).run()
        order = np.argsort(witness.arrived)
        numbers = ScenarioNumbers(scenario, RandomStreams(11, replication), 1.0)
        sojourns, demands = witness.seconds[order], numbers.demands(len(order))
        yield (sojourns - demands)[witness.arrived[order] > seconds / 10]


@pytest.mark.parametrize(("workers", "load"), [(1, 0.5), (1, 0.8), (4, 0.7), (10, 0.8), (4, 0.9)])
def test_mmc_waits_as_erlang_c_says(make_scenario, make_profile, workers, load):
    samples = list(
        waits(make_scenario, make_profile, demand="exponential", workers=workers, load=load, seconds=8000 / workers)
    )
    rate = load * workers / 0.1
    _, low, high = t_interval([sample.mean() for sample in samples], 0.99)
    assert low <= mmc_mean_wait(workers, rate, 0.1) <= high
    assert (high - low) / 2 < 0.15 * mmc_mean_wait(workers, rate, 0.1), "an interval that holds everything says nothing"

    _, low, high = t_interval([np.quantile(sample, 0.95) for sample in samples], 0.99)
    assert low <= mmc_wait_quantile(workers, rate, 0.1, 0.95) <= high


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_md1_waits_as_pollaczek_and_khinchine_say(make_scenario, make_profile, load):
    samples = waits(make_scenario, make_profile, demand="deterministic", workers=1, load=load, seconds=6000)
    _, low, high = t_interval([sample.mean() for sample in samples], 0.99)

    assert low <= mg1_mean_wait(load / 0.1, 0.1, 0.0) <= high
    assert (high - low) / 2 < 0.1 * mg1_mean_wait(load / 0.1, 0.1, 0.0)


@pytest.mark.parametrize("balancer", POLICIES)
def test_all_data_planes_give_the_same_run(make_scenario, make_profile, balancer):
    client = {"timeout_seconds": 1.0, "retries": 2, "budget": {}}
    scenario = make_scenario(**SURGE, machines=ROOM, balancer=balancer, client=client)
    profile = make_profile(cpu_seconds=2.0, fixed_seconds=1.0, cpu_factor=1.2)
    runs, seen = [], []
    for plane in ("python", "numba", "processes"):
        witness = Witness()
        runs.append(Model(scenario, profile, seed=3, data_plane=plane, observer=witness).run())
        seen.append((witness.arrived.tolist(), witness.seconds.tolist(), witness.state.tolist()))

    assert len(runs[0].instances) > 4
    for run, ended in zip(runs[1:], seen[1:], strict=True):
        assert seen[0] == ended
        assert runs[0].counts == run.counts
        assert runs[0].decisions == run.decisions
        assert [each.history for each in runs[0].instances] == [each.history for each in run.instances]
        assert summarise(runs[0], with_episode=True) == summarise(run, with_episode=True)


def test_a_platform_slows_each_request_as_its_profile_says(make_scenario, make_profile):
    scenario = make_scenario(
        application={"demand": {"kind": "deterministic", "mean_seconds": 0.1}},
        arrivals={"kind": "poisson", "rate_per_second": 0.05},
    )
    record = Model(scenario, make_profile(cpu_factor=1.5, network_seconds=0.01), seed=1).run()

    assert 0.16 == pytest.approx(record.tally.latencies.quantile(0.0))


def test_processor_sharing_is_insensitive_to_how_demands_vary(make_scenario, make_profile):
    """M/G/1-PS: the mean time in system is mean / (1 - load), whatever the distribution (Kleinrock, volume 2, 4.4)."""
    for demand in (
        {"kind": "exponential", "mean_seconds": 0.1},
        {"kind": "bounded-pareto", "shape": 1.5, "minimum_seconds": 0.04, "maximum_seconds": 4.0},
    ):
        scenario = make_scenario(
            duration_seconds=3000.0,
            warm_up_seconds=300.0,
            application={"demand": demand, "discipline": "sharing", "queue_limit": 10**6},
            arrivals={"kind": "poisson", "rate_per_second": 6.0},
        )
        mean = scenario.application.demand.mean
        runs = [Model(scenario, make_profile(), seed=7, replication=number).run() for number in range(12)]
        _, low, high = t_interval([run.tally.latencies.mean for run in runs], 0.99)

        assert low <= ps_mean_sojourn(6.0, mean) <= high
        assert (high - low) / 2 < 0.2 * ps_mean_sojourn(6.0, mean)


def test_two_choices_are_better_than_one_as_the_supermarket_model_says(make_scenario, make_profile):
    """Mitzenmacher, TPDS 2001: mean times in system at a load of 0.9 for one, two and three choices; many instances."""
    for choices in (1, 2, 3):
        scenario = make_scenario(
            duration_seconds=300.0,
            warm_up_seconds=100.0,
            machines={"count": 20, "spec": {"cores": 10}},
            application={"demand": {"kind": "exponential", "mean_seconds": 1.0}, "queue_limit": 10**6},
            arrivals={"kind": "poisson", "rate_per_second": 140.0},
            balancer={"kind": "power-of-choices", "choices": choices},
            autoscaler={"kind": "fixed", "instances": 200},
        )
        runs = [Model(scenario, make_profile(), seed=7, replication=number).run() for number in range(8)]
        interval = t_interval([run.tally.latencies.mean for run in runs], 0.999)
        theory = supermarket_mean_sojourn(choices, 0.7, 1.0)

        # With 200 instances rather than infinitely many, the mean is higher by the order of 1 / 200 (same source).
        assert interval.low - 0.01 * theory <= theory <= interval.high
        assert interval.half_width < 0.1 * theory


def test_a_closed_loop_keeps_the_interactive_response_time_law(make_scenario, make_profile):
    """R = N / X - Z (Denning and Buzen 1978): holds for any run, but for its ends."""
    scenario = make_scenario(
        duration_seconds=2000.0,
        warm_up_seconds=0.0,
        arrivals={"kind": "closed", "users": 20, "think": {"kind": "exponential", "mean_seconds": 1.0}},
    )
    run = Model(scenario, make_profile(), seed=7).run()
    throughput = run.counts.completed / 2000.0

    assert run.tally.latencies.mean == pytest.approx(20 / throughput - 1.0, rel=0.05)


def test_scaled_to_zero_the_first_request_wakes_an_instance(make_scenario, make_profile):
    scenario = make_scenario(
        duration_seconds=300.0,
        arrivals={"kind": "steps", "steps": [[0, 2], [20, 0], [200, 2]]},
        autoscaler={"kind": "kpa", "max_instances": 4},
        held_requests=100,
    )
    run = Model(scenario, make_profile(fixed_seconds=3.0), seed=7).run()
    ready_at_once = max(summarise(run, with_episode=True).episode.fleet, key=lambda step: step.ready).ready

    assert 0 < ready_at_once <= 4
    assert any(instance.state is State.STOPPED for instance in run.instances), "it went to zero in the pause"
    assert run.counts.arrived == run.counts.completed, "and nobody was turned away"
    assert run.tally.latencies.quantile(1.0) >= 3.0, "but one had to wait for the start"


def test_draining_ends_when_its_time_is_over(make_scenario, make_profile):
    slow = {**SERVICE, "demand": {"kind": "deterministic", "mean_seconds": 20.0}, "queue_limit": 10**6}
    changes = {**SURGE, "application": slow, "draining_seconds": 2.0, "duration_seconds": 400.0}
    changes["autoscaler"] = {"kind": "schedule", "times": [[0, 4], [100, 1]]}
    run = Model(make_scenario(**changes, machines=ROOM), make_profile(), seed=5).run()
    stopped = [instance for instance in run.instances if instance.since(State.STOPPED) is not None]

    assert 3 == len(stopped)
    for instance in stopped:
        assert 2.0 == pytest.approx(instance.since(State.STOPPED) - instance.since(State.DRAINING))
    assert run.counts.failed > 0


def test_every_life_is_one_that_may_be(make_scenario, make_profile):
    record = Model(make_scenario(**SURGE, machines=ROOM), make_profile(cpu_seconds=2.0), seed=5).run()

    assert len(record.instances) > 4
    for instance in record.instances:
        assert all(
            later >= sooner and next_state in NEXT[state]
            for (sooner, state), (later, next_state) in zip(instance.history, instance.history[1:], strict=False)
        )
        assert instance.history[0] == (instance.created_seconds, State.PENDING)
    assert {State.STOPPED, State.READY} == {instance.state for instance in record.instances}


def test_starting_takes_the_platform_and_then_the_application(make_scenario, make_profile):
    scenario = make_scenario(**{**SURGE, "machines": ROOM, "application": {**SERVICE, "ready_seconds": 4.0}})
    record = Model(scenario, make_profile(fixed_seconds=3.0), seed=5).run()
    started = [instance for instance in record.instances if instance.created_seconds and instance.since(State.READY)]

    assert started
    for instance in started:
        assert 7.0 == pytest.approx(instance.since(State.READY) - instance.created_seconds)


def test_start_ups_on_one_machine_wait_for_each_others_kernel_lock(make_scenario, make_profile):
    profile = make_profile(cpu_seconds=2.0)
    (phase,) = profile.startup.phases
    locked = phase.model_copy(update={"lock": "rtnl"})
    profile = profile.model_copy(update={"startup": profile.startup.model_copy(update={"phases": (locked,)})})
    record = Model(make_scenario(**SURGE, machines={"count": 1, "spec": {"cores": 16}}), profile, seed=5).run()
    moment = next(instance.created_seconds for instance in record.instances if instance.created_seconds)
    batch = [instance for instance in record.instances if instance.created_seconds == moment]

    assert len(batch) > 1
    assert [2.0 * turn for turn in range(1, len(batch) + 1)] == pytest.approx(
        [instance.since(State.READY) - moment for instance in batch]
    )


def test_where_no_machine_has_room_instances_wait_and_say_why(make_scenario, make_profile):
    scenario = make_scenario(**SURGE, machines={"count": 1, "spec": {"cores": 4}})
    record = Model(scenario, make_profile(), seed=5).run()
    waited = [instance for instance in record.instances if instance.why_pending]

    assert waited
    assert "none of 1 machines has room: 1 short of cores" == waited[0].why_pending
    most = max(
        sum(
            instance.since(State.STARTING) is not None
            and instance.since(State.STARTING) <= now
            and not (instance.is_over and instance.history[-1][0] <= now)
            for instance in record.instances
        )
        for now in np.arange(0.0, 300.0, 0.5)
    )
    assert 4 == most


def test_room_that_was_given_back_is_used_again(make_scenario, make_profile):
    arrivals = {"kind": "steps", "steps": [[0, 8], [60, 60], [120, 0.5], [220, 60]]}
    scenario = make_scenario(**{**SURGE, "arrivals": arrivals}, machines={"count": 1, "spec": {"cores": 4}})
    record = Model(scenario, make_profile(), seed=5).run()
    again = [instance for instance in record.instances if instance.created_seconds > 220]

    assert any(instance.state is State.READY for instance in again)


def test_first_instances_without_room_are_refused(make_scenario, make_profile):
    scenario = make_scenario(autoscaler={"kind": "fixed", "instances": 9})
    with pytest.raises(SimulatorError, match=r"do not fit.*short of cores"):
        Model(scenario, make_profile(), seed=0).run()


def test_the_youngest_go_first(make_scenario, make_profile):
    record = Model(make_scenario(**SURGE, machines=ROOM), make_profile(), seed=5).run()
    leaving = {instance.number: instance.since(State.DRAINING) for instance in record.instances}
    moment = min(seconds for seconds in leaving.values() if seconds is not None)
    gone = {number for number, seconds in leaving.items() if seconds == moment}
    there = {instance.number for instance in record.instances if instance.created_seconds < moment}

    assert 0 < len(gone) < len(there)
    assert gone == set(sorted(there)[-len(gone) :])


def test_the_autoscaler_looks_every_sync_from_a_moment_of_its_own(make_scenario, make_profile):
    scenario, profile = make_scenario(**SURGE, machines=ROOM), make_profile()
    runs = [Model(scenario, profile, seed=5, replication=number).run().decisions for number in range(3)]

    for decisions in runs:
        assert 0 <= decisions[0].seconds < 15
        assert [15.0] * (len(decisions) - 1) == pytest.approx(np.diff([decision.seconds for decision in decisions]))
        assert 300 - decisions[-1].seconds <= 15
    assert 3 == len({decisions[0].seconds for decisions in runs})


def test_scaling_in_loses_no_request(make_scenario, make_profile):
    witness = Witness()
    record = Model(make_scenario(**SURGE, machines=ROOM), make_profile(), seed=5, observer=witness).run()

    assert any(state is State.DRAINING for instance in record.instances for _, state in instance.history)
    assert set(witness.state) <= {COMPLETED, REJECTED}
    assert record.counts.arrived == len(witness.state)
    assert 0 == record.counts.in_flight


def test_requests_in_flight_at_the_end_are_still_served(make_scenario, make_profile):
    scenario = make_scenario(duration_seconds=10.0, arrivals={"kind": "poisson", "rate_per_second": 40.0})
    record = Model(scenario, make_profile(), seed=5).run()

    assert record.in_flight > 50
    assert record.counts.arrived == record.counts.completed


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            {"cores": 4, "memory_bytes": 2**26, "reserved_bytes": 0},
            r"65 MiB, and 64 MiB .*`machines\.spec\.memory_bytes`",
        ),
        ({"cores": 4, "pid_max": 301, "reserved_pids": 301}, r"1 process identifiers; raise `machines\.spec\.pid_max`"),
    ],
)
def test_an_instance_larger_than_any_machine_is_refused_and_the_key_named(make_scenario, make_profile, spec, told):
    with pytest.raises(SimulatorError, match=f"not one instance fits on an empty machine: it needs {told}"):
        Model(make_scenario(machines={"count": 3, "spec": spec}), make_profile(), seed=1)
