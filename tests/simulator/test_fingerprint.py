"""Names of simulations: the same for the same input, and another for any other."""

from hypothesis import given
from hypothesis import strategies as st

from simulator.datacenter.platforms import PlatformProfile
from simulator.fingerprint import fingerprint, model_version, run_id
from simulator.scenario import Scenario

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(JSON, JSON)
def test_only_what_is_equal_has_one_fingerprint(one, other):
    assert (fingerprint(one) == fingerprint(other)) == (repr(_sorted(one)) == repr(_sorted(other)))


def _sorted(value):
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def test_a_run_is_named_by_scenario_platform_seed_and_replication(make_scenario, make_profile):
    names = {
        run_id(scenario, profile, seed, replication)
        for scenario in (make_scenario(), make_scenario(duration_seconds=121.0))
        for profile in (make_profile(), make_profile(cpu_factor=1.1))
        for seed in (0, 1)
        for replication in (0, 1)
    }

    assert 16 == len(names)
    assert run_id(make_scenario(), make_profile(), 0, 0) in names


def test_a_record_that_was_read_again_has_the_same_fingerprint():
    assert fingerprint(Scenario.from_toml("compare")) == fingerprint(Scenario.from_toml("compare"))
    assert fingerprint(PlatformProfile.from_toml("container")) != fingerprint(PlatformProfile.from_toml("process"))


def test_the_version_names_package_sources_and_numpy():
    assert all(part in model_version() for part in ("onggi ", "sources ", "numpy "))
