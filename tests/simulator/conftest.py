"""A platform and a scenario to run, small enough to read in a test."""

from collections.abc import Callable

import pytest

from simulator.datacenter.platforms import PlatformProfile
from simulator.scenario import Scenario


def _profile(
    name: str = "free", *, cpu_seconds: float = 0.0, fixed_seconds: float = 0.0, cpu_factor: float = 1.0,
    network_seconds: float = 0.0, private_bytes: float = 2.0**20,
) -> PlatformProfile:  # fmt: skip
    def quantity(value: float) -> dict[str, object]:
        return {"value": value, "low": value, "high": value, "kind": "simulated", "source": "made up for a test"}

    phase = {"name": "only", "cpu_seconds": cpu_seconds, "fixed_seconds": fixed_seconds, "kind": "simulated",
             "source": "made up for a test"}  # fmt: skip
    return PlatformProfile.model_validate(
        {
            "name": name,
            "label_en": name,
            "label_ko": name,
            "about": "",
            "startup": {"total_seconds": quantity(cpu_seconds + fixed_seconds), "phases": (phase,)},
            "memory": {
                "private_bytes": quantity(private_bytes),
                "shared_bytes": quantity(0.0),
                "kernel_bytes": quantity(0.0),
            },
            "overhead": {"cpu_factor": quantity(cpu_factor), "network_seconds": quantity(network_seconds)},
        }
    )


def _scenario(**changes: object) -> Scenario:
    tree: dict[str, object] = {
        "name": "test",
        "duration_seconds": 120.0,
        "replications": 2,
        "machines": {"count": 2, "spec": {"cores": 4}},
        "application": {"demand": {"kind": "exponential", "mean_seconds": 0.1}, "queue_limit": 1000},
        "arrivals": {"kind": "poisson", "rate_per_second": 5.0},
        "autoscaler": {"kind": "fixed", "instances": 1},
        "slo": {"latency_seconds": 0.5},
    }
    return Scenario.model_validate(tree | changes)


@pytest.fixture(scope="session")
def make_profile() -> Callable[..., PlatformProfile]:
    """Makes a platform; by default one that costs nothing."""
    return _profile


@pytest.fixture(scope="session")
def make_scenario() -> Callable[..., Scenario]:
    """Makes a scenario of one instance with one worker at half load, with the given top-level keys changed."""
    return _scenario
