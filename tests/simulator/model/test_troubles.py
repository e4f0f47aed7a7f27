"""Faults and their blast radius, health checks that notice late, and memory that runs out."""

import pytest

from simulator.metrics import summarise

FOUR = {"kind": "fixed", "instances": 4}
TWO_MACHINES = {"count": 2, "spec": {"cores": 4}, "zones": ["a", "b"], "placement": "zone-spread"}
MIB = 2**20


def container(make_profile, **changes):
    return make_profile(fixed_seconds=1.0, **changes).model_copy(update={"shares_host_kernel": True})


@pytest.fixture
def shot(make_scenario, make_profile, run_logged):
    """A run of four instances on two machines in which one fault comes after 50 seconds."""

    def shoot(fault, profile=None, **changes):
        scenario = make_scenario(
            **{"machines": TWO_MACHINES, "autoscaler": FOUR, "faults": [{"at_seconds": 50.0, **fault}], **changes}
        )
        return run_logged(scenario, profile or make_profile(fixed_seconds=1.0))

    return shoot


@pytest.mark.parametrize(
    ("kernel", "fault", "lost"),
    [
        ("shared", {"kind": "instance-crash"}, 1),
        ("shared", {"kind": "kernel-crash", "machine": "machine-1", "repair_seconds": 5.0}, 2),
        ("own", {"kind": "kernel-crash", "machine": "machine-1", "repair_seconds": 5.0}, 1),
        ("own", {"kind": "machine-loss", "repair_seconds": 20.0}, 2),
        ("own", {"kind": "zone-loss", "zone": "b", "repair_seconds": 20.0}, 2),
    ],
)
def test_what_a_fault_takes_is_what_isolation_means(shot, make_profile, kernel, fault, lost):
    profile = make_profile(fixed_seconds=1.0).model_copy(update={"shares_host_kernel": kernel == "shared"})
    ran = shot(fault, profile)
    (felt,) = ran.record.faults
    assert (50.0, lost, 4, lost) == (
        felt.blast.seconds, len(felt.blast.lost), felt.blast.ready_before, felt.blast.ready_lost,
    )  # fmt: skip
    assert [50.0] * lost == ran.times("instance-failed")
    metrics = summarise(ran.record).metrics
    assert (lost, lost / 4) == (metrics["lost_instances"], metrics["blast_radius_fraction"])
    assert 4 == sum(each.state == "ready" for each in ran.record.instances)


def test_what_is_lost_is_replaced_by_starts_of_the_usual_kind(shot):
    (felt,) = shot({"kind": "machine-loss", "repair_seconds": 60.0}).record.faults
    assert 1.0 == pytest.approx(felt.recovery.seconds)
    (felt,) = shot({"kind": "instance-crash", "repair_seconds": 7.0}).record.faults
    assert 7.0 + 1.0 == pytest.approx(felt.recovery.seconds)


def test_nothing_is_placed_on_a_machine_that_is_away(shot):
    """Each machine has room for two, so the two that are lost wait for the repair."""
    machines = {"count": 2, "spec": {"cores": 2}}
    ran = shot({"kind": "machine-loss", "machine": "machine-0", "repair_seconds": 30.0}, machines=machines)
    assert 30.0 + 1.0 == pytest.approx(ran.record.faults[0].recovery.seconds)
    assert {"none of 2 machines has room: 1 machine-loss, 1 short of cores"} == {
        each.why_pending for each in ran.record.instances if each.why_pending
    }


def test_until_the_balancer_notices_requests_go_to_the_dead_and_fail(shot):
    """The third probe in a row that fails is noticed: 20 to 30 s after the crash, and 1 s of waiting for its answer."""
    ran = shot({"kind": "instance-crash"}, health_check={}, balancer="round-robin",
               arrivals={"kind": "poisson", "rate_per_second": 20.0})  # fmt: skip
    (left_out,) = [seconds for seconds in ran.times("route") if seconds > 0]
    assert 21.0 <= left_out - 50.0 <= 31.0
    # A quarter of the requests went there meanwhile; 4 standard deviations.
    expected = 20.0 * (left_out - 50.0) / 4
    assert expected == pytest.approx(ran.record.counts.failed, abs=4 * expected**0.5)
    at_once = shot({"kind": "instance-crash"}, balancer="round-robin",
                   arrivals={"kind": "poisson", "rate_per_second": 20.0})  # fmt: skip
    assert at_once.record.counts.failed <= 30


def test_crashes_by_a_mean_come_as_often_as_it_says(make_scenario, make_profile, run_logged):
    scenario = make_scenario(
        duration_seconds=20_000.0,
        machines=TWO_MACHINES,
        autoscaler=FOUR,
        arrivals={"kind": "poisson", "rate_per_second": 0.1},
        faults=[{"kind": "instance-crash", "mean_seconds_between": 200.0}],
    )
    crashed = len(run_logged(scenario, make_profile()).record.faults)
    # Each of the four is replaced at once by one that lives as long on average: a Poisson process of mean 400.
    assert 400 == pytest.approx(crashed, abs=4 * 400**0.5)


def test_a_fault_that_nothing_survives_of_is_never_recovered_from(shot):
    ran = shot({"kind": "machine-loss", "repair_seconds": 1000.0}, machines={"count": 1, "spec": {"cores": 4}})
    assert ran.record.faults[0].recovery.seconds is None
    metrics = summarise(ran.record).metrics
    assert (1.0, 70.0) == (metrics["fault_unrecovered_fraction"], metrics["fault_recovery_seconds"])


def test_platforms_meet_the_same_faults(make_scenario, make_profile, run_logged):
    faults = [
        {"kind": "machine-loss", "mean_seconds_between": 100.0, "repair_seconds": 5.0},
        {"kind": "kernel-crash", "mean_seconds_between": 100.0, "repair_seconds": 5.0},
    ]
    scenario = make_scenario(duration_seconds=500.0, machines=TWO_MACHINES, autoscaler=FOUR, faults=faults)
    ran = [run_logged(scenario, profile) for profile in (container(make_profile), make_profile(fixed_seconds=30.0))]
    times = [[felt.blast.seconds for felt in each.record.faults] for each in ran]
    assert times[0] == times[1] != []


# Memory


def memory_run(make_scenario, run_logged, profile, *, mib=1000, instances=4, seconds=1000.0, **changes):
    application = {"demand": {"kind": "exponential", "mean_seconds": 0.1}, "memory_mib": 100.0,
                   **changes.pop("application", {})}  # fmt: skip
    spec = {"cores": 16, "memory_bytes": mib * MIB, "reserved_bytes": 0, **changes.pop("spec", {})}
    scenario = make_scenario(
        duration_seconds=seconds,
        machines={"count": 1, "spec": spec},
        application=application,
        autoscaler={"kind": "fixed", "instances": instances},
        **changes,
    )
    return run_logged(scenario, profile)


def test_a_leak_fills_the_machine_and_the_largest_is_killed(make_scenario, make_profile, run_logged):
    """Four instances of 100 MiB grow by 1 MiB/s each: 1,000 MiB are in use after 150 s."""
    ran = memory_run(
        make_scenario, run_logged, make_profile(private_bytes=0.0),
        application={"working_set": {"mib_per_hour": 3600.0}},
    )  # fmt: skip
    first = ran.record.faults[0].blast
    assert ("out-of-memory", (3,)) == (first.kind, first.lost)  # the youngest among equals
    assert 150.0 == pytest.approx(first.seconds, rel=1e-6)
    # What takes its place waits as after any failure, 10 s.
    assert first.seconds + 10.0 == pytest.approx(ran.times("instance-starting", instance=4)[0])


def test_a_limit_kills_in_one_container_and_nowhere_else(make_scenario, make_profile, run_logged):
    ran = memory_run(
        make_scenario, run_logged, make_profile(private_bytes=0.0), mib=100_000, instances=2,
        application={"working_set": {"mib_per_hour": 3600.0}, "memory_limit_mib": 400.0},
    )  # fmt: skip
    assert [300.0, 300.0] == [pytest.approx(felt.blast.seconds, rel=1e-6) for felt in ran.record.faults[:2]]
    assert "its memory limit, 400.0 MiB" in ran.record.faults[0].blast.reason


def test_a_guest_goes_on_when_the_program_in_it_is_killed(make_scenario, make_profile, run_logged):
    from simulator.datacenter.guests import GuestMemory

    vm = make_profile(private_bytes=50.0 * MIB, fixed_seconds=30.0)
    vm = vm.model_copy(update={"guest": GuestMemory(ram_mib=300.0)})
    ran = memory_run(
        make_scenario, run_logged, vm, mib=100_000, instances=1,
        application={"working_set": {"mib_per_hour": 3600.0}, "ready_seconds": 2.0},
    )  # fmt: skip
    # 300 MiB less 150 at the beginning, at 1 MiB/s.
    assert 150.0 == pytest.approx(ran.record.faults[0].blast.seconds, rel=1e-6)
    # The program begins again after 10 s, and 150 s later after 20 s.
    assert [0.0, pytest.approx(162.0), pytest.approx(332.0)] == ran.times("instance-ready")[:3]
    assert 1 == len(ran.record.instances)


def test_overcommitted_machines_kill_again_and_again_but_the_run_ends(make_scenario, make_profile, run_logged):
    """20 instances of 100 MiB on 1,000 MiB, promised twice."""
    ran = memory_run(
        make_scenario,
        run_logged,
        make_profile(private_bytes=0.0),
        instances=20,
        spec={"cores": 32, "memory": {"overcommit": 2.0}},
    )
    assert 10 <= sum(each.state == "ready" for each in ran.record.instances) <= 20
    ready = 20
    for felt in ran.record.faults:
        ready = min(ready, felt.blast.ready_before)
    assert ready >= 10
    assert len(ran.record.faults) < 500
    back_offs = [each.failures for each in ran.record.instances]
    assert max(back_offs) >= 3


def test_requests_need_memory(make_scenario, make_profile, run_logged):
    """A stuck service fills its memory with requests that wait: 10 a second, 1 MiB each, 400 MiB."""
    ran = memory_run(
        make_scenario, run_logged, make_profile(private_bytes=0.0), mib=500, instances=1,
        application={"working_set": {"mib_per_request": 1.0}, "queue_limit": 100_000,
                     "demand": {"kind": "deterministic", "mean_seconds": 1000.0}},
        arrivals={"kind": "poisson", "rate_per_second": 10.0},
    )  # fmt: skip
    first = ran.record.faults[0].blast
    assert 400 <= first.requests <= 430
    assert 40.0 == pytest.approx(first.seconds, abs=8.0)


def test_a_program_grows_from_its_own_start_on(make_scenario, make_profile, run_logged):
    """It boots for 100 s and then leaks 1 MiB/s: it serves 50 s before its limit of 150 MiB, however long it booted."""
    ran = memory_run(
        make_scenario, run_logged, make_profile(private_bytes=0.0, fixed_seconds=100.0), mib=100_000, instances=1,
        application={"working_set": {"mib_per_hour": 3600.0}, "memory_limit_mib": 150.0},
    )  # fmt: skip
    kills = [felt.blast.seconds for felt in ran.record.faults]
    # After the first, 10 s of back-off, 100 s of boot, 50 s of service; then 20 s, …
    assert [50.0, 50 + 10 + 150.0, 210 + 20 + 150.0] == [pytest.approx(each) for each in kills[:3]]


@pytest.mark.parametrize("never", [0, -1000])
def test_memory_that_runs_out_at_once_does_not_stop_time(make_scenario, make_profile, run_logged, never):
    ran = memory_run(
        make_scenario, run_logged, make_profile(private_bytes=0.0), instances=25, seconds=30.0,
        application={"oom_score_adj": never},
        spec={"cores": 32, "memory": {"overcommit": 3.0}},
        start_failures={"back_off": {"first_seconds": 0.0, "cap_seconds": 0.5}},
    )  # fmt: skip
    assert 30.0 == ran.events[-1].seconds


def test_a_limit_on_a_virtual_machine_restarts_its_program_only(make_scenario, make_profile, run_logged):
    from simulator.datacenter.guests import GuestMemory

    vm = make_profile(private_bytes=50.0 * MIB, fixed_seconds=40.0).model_copy(update={"guest": GuestMemory()})
    ran = memory_run(
        make_scenario, run_logged, vm, mib=100_000, instances=1,
        application={"working_set": {"mib_per_hour": 3600.0}, "memory_limit_mib": 200.0},
    )  # fmt: skip
    assert 1 == len(ran.record.instances)
    assert 110.0 == pytest.approx(ran.times("instance-ready")[1])


def test_faults_of_the_warm_up_are_not_counted(shot):
    metrics = summarise(shot({"kind": "machine-loss", "repair_seconds": 5.0}, warm_up_seconds=60.0).record).metrics
    assert "lost_instances" not in metrics


def test_a_zone_whose_machines_come_later_is_lost_too(make_scenario, make_profile, run_logged):
    scenario = make_scenario(
        duration_seconds=3000.0,
        machines={"count": 1, "spec": {"cores": 2}, "zones": ["a", "b"]},
        autoscaler={"kind": "fixed", "instances": 1},
        faults=[{"kind": "zone-loss", "mean_seconds_between": 100.0, "repair_seconds": 1.0}],
    )
    ran = run_logged(scenario, make_profile())
    assert {"a", ""} >= {felt.blast.target for felt in ran.record.faults}
    assert len(ran.record.faults) > 40


def test_faults_without_end_are_refused(make_scenario):
    with pytest.raises(ValueError, match="raise `mean_seconds_between`"):
        make_scenario(faults=[{"kind": "machine-loss", "mean_seconds_between": 1e-6, "repair_seconds": 0.0}])
