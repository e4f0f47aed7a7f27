import pytest

from simulator.datafiles import data_directory
from simulator.errors import SimulatorError
from simulator.scenario import Scenario

STEADY = (data_directory() / "scenarios" / "steady.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(path.stem for path in (data_directory() / "scenarios").glob("*.toml")))
def test_every_scenario_that_ships_is_valid_by_its_schema(name):
    schema = Scenario.json_schema()
    keys = Scenario.from_toml(name).model_dump().keys()

    assert set(schema["required"]) <= keys <= set(schema["properties"])


@pytest.mark.parametrize(
    ("right", "wrong", "named"),
    [
        ("rate_per_second = 30", "rate_per_second = -1", "rate_per_second"),
        ("rate_per_second = 30", "rate_per_second = nan", "rate_per_second"),
        ("rate_per_second = 30", "rate_per_second = 1e9", "`arrivals`"),
        ("workers = 4", "workers = 0", "workers"),
        ("workers = 4", "workers = 32", "`machines.spec.cores`"),
        ("workers = 4", "wrokers = 4", "did you mean `workers`"),
        ("warm_up_seconds = 100", "warm_up_seconds = 1200", "`warm_up_seconds`"),
        ("warm_up_seconds = 100", "warm_up_seconds = -1", "warm_up_seconds"),
        ("duration_seconds = 1200", "", "duration_seconds"),
        ("duration_seconds = 1200", "duration_seconds = inf", "duration_seconds"),
        ("mean_seconds = 0.1", "mean_seconds = 0", "mean_seconds"),
        ('kind = "poisson"', 'kind = "poison"', "`poisson`"),
        ("quantile = 0.95", "quantile = 95", "quantile"),
        ("replications = 10", "replications = 0", "replications"),
        ("instances = 1", "instances = 0", "instances"),
        ('name = "steady"', "name = ", "not TOML"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_names_it(tmp_path, right, wrong, named):
    path = tmp_path / "mine.toml"
    assert right in STEADY
    path.write_text(STEADY.replace(right, wrong), encoding="utf-8")
    with pytest.raises(SimulatorError) as refusal:
        Scenario.from_toml(path)

    assert str(path) in str(refusal.value)
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_missing_scenario_lists_those_that_ship():
    with pytest.raises(SimulatorError, match="compare"):
        Scenario.from_toml("no-such-scenario")


def test_a_machine_keeps_a_core_for_each_worker_even_if_less_is_reserved(make_scenario):
    application = {"demand": {"kind": "deterministic", "mean_seconds": 0.1}, "workers": 2, "cpu_cores": 0.5}

    assert (0.5, 2.0) == (
        make_scenario(application=application).application.reserved_cores,
        make_scenario(application=application).placed_cores,
    )
    assert 3.0 == make_scenario(application={**application, "cpu_cores": 3.0}).placed_cores
