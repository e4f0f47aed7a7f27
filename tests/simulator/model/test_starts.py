"""How instances come up: images, warmth, pools, failures, health checks."""

import pytest

from simulator.errors import SimulatorError

IMAGE = {
    "name": "web",
    "layers": [
        {"name": "base", "compressed_mib": 100, "unpacked_mib": 200},
        {"name": "app", "compressed_mib": 50, "unpacked_mib": 100},
    ],
    "unpack_cpu_seconds_per_mib": 0.01,
    "read_fraction": 0.0,
}
SPEC = {"cores": 4, "disk_mib_per_second": 1000, "disk_operation_seconds": 0.0, "link_mib_per_second": 100}
ONE_MORE = {"kind": "schedule", "times": [[0, 1], [20, 2]], "sync_seconds": 1.0}


@pytest.fixture
def scale_out(make_scenario, make_profile, run_logged):
    """When the instance that is asked for after about 20 seconds enters its states, counted from then."""

    def ask(profile=None, autoscaler=ONE_MORE, number=1, **changes):
        application = {"demand": {"kind": "exponential", "mean_seconds": 0.1}, **changes.pop("application", {})}
        machines = {"count": 2, "spec": SPEC, **changes.pop("machines", {})}
        scenario = make_scenario(machines=machines, application=application, autoscaler=autoscaler, **changes)
        ran = run_logged(scenario, profile or make_profile(fixed_seconds=1.0))
        asked = ran.times("scale-decision", desired=2)[0]
        return {
            event.kind.removeprefix("instance-"): event.seconds - asked
            for event in ran.events
            if event.facts.get("instance") == number and event.kind.startswith("instance-")
        }

    return ask


def test_a_cold_start_pulls_unpacks_and_starts(scale_out):
    """Both layers share the link of 100 MiB/s: 1.5 s for all; the upper one is unpacked after the lower."""
    came = scale_out(warmth="cold", application={"image": IMAGE})
    # The smaller is there after 1.0 s, the larger after 1.5 s; then 2 s of CPU for it and 1 s for the other, and 1 s
    # of start-up.
    assert 0.0 == came["pulling"]
    assert 4.5 == pytest.approx(came["starting"] - came["pulling"])
    assert 1.0 == pytest.approx(came["ready"] - came["starting"])


def test_an_image_that_is_there_is_not_pulled_again(scale_out):
    """With one machine, the first instance has brought the image."""
    came = scale_out(warmth="cold", application={"image": IMAGE}, machines={"count": 1})
    assert "pulling" not in came
    assert 1.0 == pytest.approx(came["ready"] - came["starting"])


def test_a_registry_that_is_away_delays_cold_starts_only(scale_out):
    outage = {"kind": "registry-outage", "at_seconds": 19.0, "duration_seconds": 31.0}
    waits = {"registry": {"during_outage": "wait"}, "warmth": "cold", "application": {"image": IMAGE}}
    at_once, came = scale_out(**waits), scale_out(faults=[outage], **waits)
    # It is asked for within a second after 20 s, and the registry is back at 50 s.
    assert 29.0 + at_once["ready"] <= came["ready"] <= 30.0 + at_once["ready"]


def test_from_a_pool_an_instance_is_handed_out_and_the_pool_filled_again(scale_out):
    pool = {"size": 1, "hand_out_seconds": 0.25}
    came = scale_out(pool=pool, number=1)
    assert 0.25 == pytest.approx(came["ready"] - came["starting"])
    refill = scale_out(pool=pool, number=2)
    assert 1.0 == pytest.approx(refill["pooled"] - refill["starting"])
    assert "ready" not in refill


def test_a_snapshot_starts_by_phases_of_its_own(scale_out, make_profile):
    plain = make_profile(fixed_seconds=5.0)
    snapshot = make_profile(fixed_seconds=0.5).startup
    came = scale_out(profile=plain.model_copy(update={"snapshot": snapshot}), warmth="snapshot")
    assert 0.5 == pytest.approx(came["ready"] - came["starting"])
    with pytest.raises(SimulatorError, match='`warmth` is "snapshot", but platform free has none'):
        scale_out(profile=plain, warmth="snapshot")


def test_a_start_that_fails_is_tried_again_after_a_back_off_and_given_up_after_most_attempts(scale_out):
    failures = {"probability": 1.0, "most_attempts": 3, "back_off": {"first_seconds": 2.0}}
    came = scale_out(start_failures=failures)
    # Three attempts of 1 s with 2 s and 4 s between them.
    assert 3 * 1.0 + 2.0 + 4.0 == pytest.approx(came["failed"])
    assert "ready" not in came


def test_how_often_starts_fail(make_scenario, make_profile, run_logged):
    """Each start fails with probability p, so an instance needs 1/(1-p) of them."""
    scenario = make_scenario(
        duration_seconds=2000.0,
        machines={"count": 50, "spec": {"cores": 16}},
        autoscaler={"kind": "schedule", "times": [[0, 1], [1, 601]]},
        start_failures={"probability": 0.25, "back_off": {"first_seconds": 1.0, "factor": 1.0}},
    )
    ran = run_logged(scenario, make_profile(fixed_seconds=1.0))
    attempts = sum(seconds > 0 for seconds in ran.times("instance-starting"))
    # 600 negative binomial variables: mean 800, standard deviation sqrt(600 p) / (1 - p) = 16.3.
    assert 800 == pytest.approx(attempts, abs=4 * 16.3)


def test_start_up_times_vary_as_asked_and_alike_on_all_platforms(make_scenario, make_profile, run_logged):
    scenario = make_scenario(
        duration_seconds=500.0,
        machines={"count": 50, "spec": {"cores": 16}},
        autoscaler={"kind": "schedule", "times": [[0, 1], [1, 601]]},
        start_variation=0.5,
    )
    took = []
    for seconds in (1.0, 30.0):
        ran = run_logged(scenario, make_profile(fixed_seconds=seconds))
        lives = [instance for instance in ran.record.instances if instance.created_seconds > 0]
        took.append([(each.history[2][0] - each.history[1][0]) / seconds for each in lives])
    assert took[0] == pytest.approx(took[1])
    mean = sum(took[0]) / 600
    deviation = (sum((each - mean) ** 2 for each in took[0]) / 599) ** 0.5
    assert 1.0 == pytest.approx(sorted(took[0])[300], rel=0.1)  # the median start is the profile's
    assert 0.5 == pytest.approx(deviation / mean, rel=0.2)


def test_an_instance_gets_requests_when_a_probe_has_found_it_ready(scale_out):
    checks = {"period_seconds": 10.0}
    came = scale_out(health_check=checks, application={"ready_seconds": 3.0})
    waited = came["ready"] - came["starting"] - 1.0
    assert 3.0 <= waited <= 13.0
    # Probes come every 10 s from the program's start on, the first after a part of that: on the platform's grid.
    assert waited == pytest.approx(scale_out(health_check=checks, application={"ready_seconds": waited})["ready"]
                                   - came["starting"] - 1.0)  # fmt: skip


def test_cold_needs_an_image(make_scenario):
    with pytest.raises(ValueError, match=r"`application\.image`"):
        make_scenario(warmth="cold")


def test_who_waits_for_a_machine_is_served_before_the_pool(make_scenario, make_profile, run_logged):
    """Four places; of a pool of two, what finds no place of its own gives up its place in the pool."""
    scenario = make_scenario(
        duration_seconds=200.0,
        machines={"count": 1, "spec": {"cores": 4}},
        autoscaler={"kind": "schedule", "times": [[0, 1], [20, 4]], "sync_seconds": 1.0},
        pool={"size": 2},
    )
    ran = run_logged(scenario, make_profile(fixed_seconds=5.0))
    assert 4 == sum(each.state == "ready" for each in ran.record.instances)


def test_what_is_lost_is_replaced_from_the_pool(make_scenario, make_profile, run_logged):
    scenario = make_scenario(
        autoscaler={"kind": "fixed", "instances": 2},
        pool={"size": 1, "hand_out_seconds": 0.5},
        faults=[{"kind": "instance-crash", "at_seconds": 50.0}],
    )
    ran = run_logged(scenario, make_profile(fixed_seconds=30.0))
    assert 0.5 == pytest.approx(ran.record.faults[0].recovery.seconds)
    assert 1 == sum(each.state == "pooled" for each in ran.record.instances)


def test_a_pool_whose_starts_fail_is_filled_in_the_end(make_scenario, make_profile, run_logged):
    scenario = make_scenario(
        duration_seconds=2000.0,
        autoscaler={"kind": "schedule", "times": [[0, 1], [10, 3]], "sync_seconds": 1.0},
        pool={"size": 2},
        start_failures={"probability": 0.6, "most_attempts": 1, "back_off": {"cap_seconds": 5.0}},
    )
    ran = run_logged(scenario, make_profile(fixed_seconds=1.0))
    states = [each.state for each in ran.record.instances]
    assert (3, 2) == (states.count("ready"), states.count("pooled"))


@pytest.mark.parametrize("held", [0, 50])
def test_a_service_scaled_to_zero_wakes_when_requests_come_back(make_scenario, make_profile, run_logged, held):
    scenario = make_scenario(
        duration_seconds=600.0,
        arrivals={"kind": "steps", "steps": [[0, 0], [300, 20]]},
        autoscaler={"kind": "kpa", "max_instances": 5},
        held_requests=held,
    )
    ran = run_logged(scenario, make_profile(fixed_seconds=2.0))
    counts = ran.record.counts
    assert counts.completed > 0.9 * counts.arrived
    # Who waits loses nothing; who is turned away, about as long as a start takes.
    assert (0 if held else 40) == pytest.approx(counts.rejected, abs=0 if held else 20)
    assert len(ran.record.decisions) < 600 / 2 + 10


def test_an_image_larger_than_the_cache_is_refused(make_scenario):
    with pytest.raises(ValueError, match=r"`machines\.spec\.image_cache_mib` 100"):
        make_scenario(
            application={"demand": {"kind": "exponential", "mean_seconds": 0.1}, "image": IMAGE},
            machines={"count": 1, "spec": {"cores": 4, "image_cache_mib": 100}},
        )
