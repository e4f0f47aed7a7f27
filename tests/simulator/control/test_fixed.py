from simulator.control.autoscaler import PodMetrics
from simulator.control.fixed import FixedSettings


def test_a_fixed_number_stays():
    policy = FixedSettings(kind="fixed", instances=3).build()

    assert policy.sync_seconds is None
    assert 3 == policy.initial_instances
    assert 3 == policy.decide(1.0, [PodMetrics(0.0, 0.0, 5000, 1000)]).desired
