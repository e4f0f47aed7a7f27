"""What a run used: hours, energy, money."""

import pytest

from simulator.metrics import summarise

POWER = {"idle_watts": 100.0, "full_watts": 300.0}
MIB = 2**20


def figures(run_logged, make_profile, scenario, **profile):
    return summarise(run_logged(scenario, make_profile(**profile)).record).metrics


def test_energy_is_idle_power_and_the_rest_by_utilisation(make_scenario, make_profile, run_logged):
    """Two machines of 4 cores; one worker with a load of 1/2 keeps half a core busy: 1/16 of all."""
    scenario = make_scenario(
        duration_seconds=7200.0, warm_up_seconds=3600.0, machines={"count": 2, "spec": {"cores": 4, "power": POWER}}
    )
    metrics = figures(run_logged, make_profile, scenario)
    assert 2 * 100 + 200 * 0.5 / 4 == pytest.approx(metrics["mean_watts"], rel=0.02)
    assert metrics["mean_watts"] == pytest.approx(metrics["energy_watt_hours"])


@pytest.mark.parametrize("cores", ["dedicated", "shared"])
def test_start_ups_use_energy_too(make_scenario, make_profile, run_logged, cores):
    """A start of 360 CPU seconds on 1 of 4 cores: 0.1 h of 50 W more."""
    scenario = make_scenario(
        duration_seconds=3600.0,
        machines={"count": 1, "spec": {"cores": 4, "power": POWER}, "cores": cores},
        arrivals={"kind": "poisson", "rate_per_second": 1e-6},
        autoscaler={"kind": "schedule", "times": [[0, 1], [1000, 2]]},
    )
    metrics = figures(run_logged, make_profile, scenario, cpu_seconds=360.0)
    assert 100 + 5.0 == pytest.approx(metrics["energy_watt_hours"], rel=1e-3)


def test_without_power_no_energy_is_claimed(make_scenario, make_profile, run_logged):
    assert "energy_watt_hours" not in figures(run_logged, make_profile, make_scenario())


def test_hours_and_money(make_scenario, make_profile, run_logged):
    """Three instances of 512 MiB and nothing else for an hour on two machines."""
    scenario = make_scenario(
        duration_seconds=3600.0,
        autoscaler={"kind": "fixed", "instances": 3},
        application={"demand": {"kind": "exponential", "mean_seconds": 0.1}, "memory_mib": 500.0},
        costs={"currency": "EUR", "per_machine_hour": 2.0, "per_gb_hour": 0.1},
    )
    metrics = figures(run_logged, make_profile, scenario, private_bytes=12.0 * MIB)
    gb = 3 * 512 * MIB / 1e9
    assert (3.0, 2.0, pytest.approx(gb)) == (
        metrics["instance_hours"], metrics["machine_hours"], metrics["memory_gb_hours"],
    )  # fmt: skip
    assert 2 * 2.0 + 0.1 * gb == pytest.approx(metrics["cost"])


def test_memory_is_counted_while_it_is_held(make_scenario, make_profile, run_logged):
    scenario = make_scenario(
        duration_seconds=3600.0,
        application={"demand": {"kind": "exponential", "mean_seconds": 0.1}, "memory_mib": 1000.0},
        autoscaler={"kind": "schedule", "times": [[0, 1], [1800, 2]], "sync_seconds": 0.1},
    )
    metrics = figures(run_logged, make_profile, scenario, private_bytes=0.0)
    assert 1.5 * 1000 * MIB / 1e9 == pytest.approx(metrics["memory_gb_hours"], rel=1e-3)
