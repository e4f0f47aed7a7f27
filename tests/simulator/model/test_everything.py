"""All of it at once, in combinations that nobody would think of: nothing is lost, and all data planes agree."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.datacenter.guests import GuestMemory
from simulator.errors import SimulatorError
from simulator.metrics import summarise
from simulator.model import Model
from simulator.traffic.compiled import numba_works

MIB = 2**20
IMAGE = {
    "layers": [
        {"name": "base", "compressed_mib": 40, "unpacked_mib": 90},
        {"name": "app", "compressed_mib": 10, "unpacked_mib": 20},
    ]
}
ARRIVALS = st.sampled_from(
    [
        {"kind": "poisson", "rate_per_second": 40.0},
        {"kind": "steps", "steps": [[0, 5], [20, 80], [60, 0]]},
        {"kind": "flash-crowd", "base_rate": 5, "peak_rate": 60, "start_seconds": 20, "ramp_seconds": 5,
         "hold_seconds": 20, "fall_seconds": 5},
        {"kind": "closed", "users": 30, "think": {"kind": "exponential", "mean_seconds": 0.3}},
    ]
)  # fmt: skip
AUTOSCALERS = st.sampled_from(
    [
        {"kind": "fixed", "instances": 5},
        {"kind": "hpa", "min_instances": 1, "max_instances": 12, "sync_seconds": 5},
        {"kind": "schedule", "times": [[0, 3], [30, 9], [60, 2]], "sync_seconds": 2},
        {"kind": "kpa", "max_instances": 12, "target": 2.0},
        {"kind": "target-tracking", "max_instances": 10, "target": 50, "sync_seconds": 10},
    ]
)
FAULTS = st.lists(
    st.sampled_from(
        [
            {"kind": "instance-crash", "mean_seconds_between": 40.0},
            {"kind": "instance-crash", "at_seconds": 25.0, "repair_seconds": 3.0},
            {"kind": "kernel-crash", "mean_seconds_between": 60.0, "repair_seconds": 10.0},
            {"kind": "machine-loss", "at_seconds": 35.0, "repair_seconds": 20.0},
            {"kind": "zone-loss", "at_seconds": 45.0, "repair_seconds": 10.0},
        ]
    ),
    max_size=3,
)
BALANCERS = st.sampled_from(["random", "round-robin", "weighted", "least-connections", "power-of-choices", "peak-ewma",
                             "join-idle-queue", "bounded-hash"])  # fmt: skip


@st.composite
def scenarios(draw):
    """A scenario of some of everything, as its TOML would be."""
    shared = draw(st.booleans())
    machines = {
        "count": draw(st.integers(2, 4)),
        "zones": ["a", "b"],
        "placement": draw(st.sampled_from(["first-fit", "best-fit", "worst-fit", "zone-spread"])),
        "cores": "shared" if shared else "dedicated",
        "spec": {"cores": draw(st.integers(2, 6)), "memory_bytes": draw(st.integers(300, 2000)) * MIB,
                 "reserved_bytes": 0,
                 "memory": draw(st.sampled_from([{}, {"overcommit": 2.0, "ksm": {}, "balloon": {}}])),
                 "power": draw(st.none() | st.just({}))},
    }  # fmt: skip
    if shared and draw(st.booleans()):
        machines["neighbours"] = [{"threads": 3, "from_seconds": 10.0, "until_seconds": 50.0}]
    application = {
        "demand": {"kind": draw(st.sampled_from(["exponential", "deterministic"])), "mean_seconds": 0.05},
        "workers": draw(st.integers(1, 2)),
        "queue_limit": draw(st.sampled_from([0, 3, 50])),
        "discipline": draw(st.sampled_from(["first-come", "sharing"])),
        "cpu_cores": 0.5,
        "ready_seconds": draw(st.sampled_from([0.0, 1.5])),
        "memory_mib": 40.0,
        "working_set": draw(st.sampled_from([{}, {"mib_per_hour": 3600.0}, {"mib_per_request": 5.0}])),
        "memory_limit_mib": draw(st.none() | st.just(90.0)),
        "image": draw(st.none() | st.just(IMAGE)),
    }
    tree = {
        "duration_seconds": 90.0,
        "machines": machines,
        "application": application,
        "arrivals": draw(ARRIVALS),
        "autoscaler": draw(AUTOSCALERS),
        "balancer": draw(BALANCERS),
        "faults": draw(FAULTS),
        "client": draw(st.sampled_from([{}, {"timeout_seconds": 0.4, "retries": 2, "budget": {}}])),
        "health_check": draw(st.none() | st.just({"period_seconds": 4.0})),
        "draining_seconds": draw(st.none() | st.just(1.0)),
        "held_requests": draw(st.sampled_from([0, 20])),
        "pool": draw(st.sampled_from([{}, {"size": 2, "hand_out_seconds": 0.2}])),
        "start_failures": draw(st.sampled_from([{}, {"probability": 0.4, "back_off": {"first_seconds": 1.0}}])),
        "start_variation": draw(st.sampled_from([0.0, 0.7])),
        "machine_autoscaler": draw(st.none() | st.just(
            {"max_machines": 5, "provision": {"kind": "fixed", "seconds": 10.0}, "unneeded_seconds": 15.0,
             "delay_after_add_seconds": 0.0}
        )),
        "costs": draw(st.none() | st.just({"per_machine_hour": 1.0})),
    }  # fmt: skip
    if application["image"] is not None:
        tree["warmth"] = draw(st.sampled_from(["cold", "disk-warm", "memory-warm"]))
    return {name: value for name, value in tree.items() if value is not None}


def without_none(tree):
    return {
        name: without_none(value) if isinstance(value, dict) else value
        for name, value in tree.items()
        if value is not None
    }


@given(scenarios(), st.booleans(), st.integers(0, 10))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_nothing_is_lost_and_all_data_planes_agree(make_scenario, make_profile, tree, is_vm, seed):
    scenario = make_scenario(**without_none(tree))
    profile = make_profile(cpu_seconds=0.3, fixed_seconds=0.2, private_bytes=10.0 * MIB)
    profile = profile.model_copy(
        update={"guest": GuestMemory(vmm_mib=2, kernel_mib=4, page_cache_mib=5)}
        if is_vm
        else {"shares_host_kernel": True}
    )
    planes = ["python", *(["numba"] if numba_works() else [])]
    shares = scenario.machines.cores == "shared" or scenario.application.discipline == "sharing"
    planes += [] if shares else ["processes"]
    results = []
    for plane in planes:
        try:
            record = Model(scenario, profile, seed=seed, data_plane=plane).run()
        except SimulatorError as error:
            # The only thing that may be wrong with these: the machines are too small for the first instances.
            if not re.search("do not fit|not one instance fits", str(error)):
                raise
            results.append(str(error))
            continue
        counts = record.counts
        assert counts.arrived == counts.completed + counts.rejected + counts.failed + counts.timed_out
        assert (0, 0) == (counts.in_flight, counts.held)
        for instance in record.instances:
            assert [seconds for seconds, _ in instance.history] == sorted(seconds for seconds, _ in instance.history)
        replication = summarise(record, with_episode=True)
        assert all(value >= 0 for value in replication.metrics.values())
        assert all(replication.metrics.get(name, 0.0) <= 1 for name in replication.metrics if name.endswith("fraction"))
        results.append(replication)
    assert all(results[0] == other for other in results[1:])


def test_the_same_run_twice_is_the_same_and_another_seed_is_not(make_scenario, make_profile):
    scenario = make_scenario(faults=[{"kind": "instance-crash", "mean_seconds_between": 20.0}])
    one, same, other = (
        summarise(Model(scenario, make_profile(fixed_seconds=1.0), seed=seed).run()) for seed in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_a_run_leaves_no_reservations_it_should_not(make_scenario, make_profile, run_logged):
    """Every instance that is over has given back its place: as many are placed as are alive."""
    ran = run_logged(
        make_scenario(
            autoscaler={"kind": "schedule", "times": [[0, 6], [40, 1]], "sync_seconds": 1},
            faults=[{"kind": "machine-loss", "at_seconds": 20.0, "repair_seconds": 5.0}],
        ),
        make_profile(fixed_seconds=0.5),
    )
    alive = [instance for instance in ran.record.instances if not instance.is_over]
    assert 1 == len(alive)
    assert pytest.approx(alive[0].lifetime(120.0)[1]) == 120.0
