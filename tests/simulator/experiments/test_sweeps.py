"""Sweeps: each cell is what `run` gives, in whatever process it ran and however often it was interrupted."""

import csv
import io
import json
from dataclasses import replace

import pytest

import simulator
from simulator.errors import SimulatorError
from simulator.experiments import batches
from simulator.experiments.sweeps import Sweep, SweepPlan, is_sweep_file, sweep

OVER = {"arrivals.rate_per_second": [2.0, 5.0], "application.workers": {"low": 1, "high": 3, "integer": True}}


@pytest.fixture
def platforms(make_profile):
    return [make_profile("quick"), make_profile("heavy", cpu_factor=1.5)]


@pytest.fixture
def count_runs(monkeypatch):
    """Gives the tasks that were simulated in this process, in a list that grows."""
    ran = []
    plain = batches.run_one

    def counted(task):
        ran.append(task)
        return plain(task)

    monkeypatch.setattr(batches, "run_one", counted)
    return ran


def test_each_cell_is_what_a_run_of_its_scenario_gives(make_scenario, platforms):
    swept = sweep(make_scenario(), platforms, over=OVER, seed=3)

    assert (6, 12) == (len(swept.points), len(swept.cells))
    for cell in swept.cells:
        point = swept.points[cell.point]
        tree = make_scenario().model_dump(exclude_unset=True)
        tree["arrivals"]["rate_per_second"] = point["arrivals.rate_per_second"]
        tree["application"]["workers"] = point["application.workers"]
        profile = next(profile for profile in platforms if profile.name == cell.platform)
        alone = simulator.run(simulator.Scenario.model_validate(tree), platform=profile, seed=3)
        assert alone.metrics == cell.result.metrics
        assert swept.result(cell.point, cell.platform).replications == tuple(
            replace(replication, episode=None) for replication in alone.replications
        )


def test_every_point_and_platform_meets_the_same_requests(make_scenario, platforms):
    swept = sweep(make_scenario(), platforms, over={"application.workers": [1, 2, 3]}, seed=3)
    arrivals = {tuple(each.arrivals for each in cell.result.replications) for cell in swept.cells}

    assert 1 == len(arrivals)
    # On fewer workers nothing is answered sooner, and that under common random numbers in every single replication.
    for platform in swept.platforms:
        means = [
            [each.metrics["mean_seconds"] for each in swept.result(point, platform).replications] for point in range(3)
        ]
        assert all(few >= many for few, many in zip(means[0], means[1], strict=True))


def test_several_processes_give_what_one_gives(make_scenario, platforms):
    seen = []
    serial = sweep(make_scenario(), platforms, over=OVER, seed=2)
    parallel = sweep(
        make_scenario(),
        platforms,
        over=OVER,
        seed=2,
        workers=2,
        progress=lambda done, total: seen.append((done, total)),
    )

    assert serial.to_json() == parallel.to_json()
    assert (24, 24) == seen[-1]
    assert sorted(seen) == seen


def test_how_tasks_are_grouped_changes_nothing(make_scenario, platforms, monkeypatch):
    expected = sweep(make_scenario(), platforms, over=OVER)

    for seconds in (0.0, 1e-4, 100.0):
        monkeypatch.setattr(batches, "BATCH_SECONDS", seconds)
        assert expected == sweep(make_scenario(), platforms, over=OVER)


def test_an_impossible_combination_is_refused_and_the_others_run(make_scenario, platforms):
    swept = sweep(make_scenario(), platforms, over={"application.workers": [1, 40]}, replications=1)

    assert [(1, "quick"), (1, "heavy")] == [(cell.point, cell.platform) for cell in swept.refused]
    assert "point 1 (application.workers=40): `application` needs 40 cores" in swept.refused[0].refusal
    assert "\n" not in swept.refused[0].refusal
    assert swept.result(0, "quick").metrics
    with pytest.raises(SimulatorError, match="needs 40 cores"):
        swept.result(1, "quick")


def test_what_only_the_model_refuses_is_that_cells_refusal(make_scenario, platforms, make_profile):
    fat = make_profile("fat", private_bytes=2.0**60)
    swept = sweep(make_scenario(), [platforms[0], fat], over={"application.workers": [1, 2]}, replications=2)

    assert [(0, "fat"), (1, "fat")] == [(cell.point, cell.platform) for cell in swept.refused]
    assert "on fat: " in swept.refused[0].refusal


def test_a_sweep_of_nothing_possible_or_of_a_typo_runs_nothing(make_scenario, platforms, count_runs):
    with pytest.raises(SimulatorError, match="no point of the sweep is possible; the first: point 0"):
        sweep(make_scenario(), platforms, over={"application.workers": [40, 41]})
    with pytest.raises(SimulatorError, match=r"unknown key `aplication\.workers`: did you mean `application\.workers`"):
        sweep(make_scenario(), platforms, over={"aplication.workers": [1, 2]})
    with pytest.raises(SimulatorError, match=r"did you mean `overhead\.cpu_factor`"):
        sweep(make_scenario(), platforms, over={"platform.overhead.cpu_facto": [1, 2]})

    assert [] == count_runs


def test_keys_of_the_platform_change_every_profile(make_scenario, platforms):
    swept = sweep(make_scenario(), platforms, over={"platform.overhead.cpu_factor": [1.0, 1.5]}, replications=1)

    assert swept.result(0, "heavy").metrics == swept.result(0, "quick").metrics
    assert (
        swept.result(0, "quick").metrics["mean_seconds"].value < swept.result(1, "quick").metrics["mean_seconds"].value
    )


def test_platforms_are_compared_at_each_point_with_paired_differences(make_scenario, platforms):
    swept = sweep(make_scenario(), platforms, over={"arrivals.rate_per_second": [2.0, 5.0]}, replications=5)

    assert "quick" == swept.comparison(1).difference("mean_seconds", "quick", "heavy").lower


def test_rows_have_the_keys_and_then_the_figures(make_scenario, platforms):
    swept = sweep(make_scenario(), platforms, over=OVER)
    rows = swept.rows()
    columns = [*OVER, "platform", "metric", "value", "low", "high", "unit", "kind"]

    assert columns == list(rows[0])
    assert {"simulated"} == {row["kind"] for row in rows}
    assert len(rows) == sum(len(cell.result.metrics) for cell in swept.cells)
    read = list(csv.DictReader(io.StringIO(swept.to_csv())))
    assert columns == list(read[0])
    assert [row["value"] for row in rows] == [float(row["value"]) for row in read]


def test_a_sweep_reads_back_what_it_wrote(make_scenario, platforms, tmp_path):
    over = {"application.workers": [2, 1, 40], "autoscaler": [{"kind": "fixed", "instances": 2}]}
    swept = sweep(make_scenario(), platforms, over=over)
    swept.save(tmp_path / "sweep.json")

    assert swept == Sweep.load(tmp_path / "sweep.json")
    assert list(over) == list(Sweep.load(tmp_path / "sweep.json").points[0])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "what": "sweep"}'])
def test_what_is_no_saved_sweep_is_refused(tmp_path, text):
    path = tmp_path / "sweep.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SimulatorError, match="sweep"):
        Sweep.load(path)


# The store


def test_a_sweep_goes_on_where_it_was_interrupted(make_scenario, platforms, tmp_path, monkeypatch, count_runs):
    expected = sweep(make_scenario(), platforms, over=OVER)
    monkeypatch.setattr(batches, "BATCH_SECONDS", 0.0)

    def stop(done, total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(make_scenario(), platforms, over=OVER, store=tmp_path / "store", progress=stop)
    count_runs.clear()
    resumed = sweep(make_scenario(), platforms, over=OVER, store=tmp_path / "store")

    assert 24 - 7 == len(count_runs)
    assert expected == resumed
    assert expected.to_json() == resumed.to_json()


def test_a_finished_sweep_is_not_simulated_again(make_scenario, platforms, tmp_path, count_runs):
    first = sweep(make_scenario(), platforms, over={"application.workers": [1, 40]}, store=tmp_path)
    count_runs.clear()

    assert first == sweep(make_scenario(), platforms, over={"application.workers": [1, 40]}, store=tmp_path)
    assert [] == count_runs


def test_more_replications_keep_those_that_are_there(make_scenario, platforms, tmp_path, count_runs):
    over = {"application.workers": [1, 2]}
    sweep(make_scenario(), platforms, over=over, replications=2, store=tmp_path)
    count_runs.clear()
    more = sweep(make_scenario(), platforms, over=over, replications=3, store=tmp_path)

    assert [2, 2, 2, 2] == [task.replication for task in count_runs]
    assert sweep(make_scenario(), platforms, over=over, replications=3) == more


@pytest.mark.parametrize("torn", [b'{"point":0,"plat', b"\x00\x00\x00", b"{}\n", b"\xff\xfe\n"])
def test_a_torn_last_line_is_dropped_and_simulated_again(make_scenario, platforms, tmp_path, torn):
    over = {"application.workers": [1, 2]}
    expected = sweep(make_scenario(), platforms, over=over, store=tmp_path)
    lines = (tmp_path / "replications.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "replications.jsonl").write_bytes(b"".join(lines[:-1]) + torn)

    assert expected == sweep(make_scenario(), platforms, over=over, store=tmp_path)
    assert sorted(lines) == sorted((tmp_path / "replications.jsonl").read_bytes().splitlines(keepends=True))


def test_a_line_that_is_damaged_in_the_middle_is_named(make_scenario, platforms, tmp_path):
    over = {"application.workers": [1, 2]}
    sweep(make_scenario(), platforms, over=over, store=tmp_path)
    path = tmp_path / "replications.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"?\n", *lines[1:]]))

    with pytest.raises(SimulatorError, match=r"replications\.jsonl:2: damaged"):
        sweep(make_scenario(), platforms, over=over, store=tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"over": {"application.workers": [1, 3]}}, "another points"),
        ({"platforms": "container"}, "another platforms"),
        ({"scenario": "other"}, "another scenario"),
    ],
)
def test_the_store_of_another_sweep_is_refused(make_scenario, platforms, tmp_path, change, named):
    asked = {"scenario": "test", "platforms": platforms, "over": {"application.workers": [1, 2]}, "seed": 0}
    for each in (asked, asked | change):
        tree = dict(each)
        scenario = make_scenario(name=tree.pop("scenario"))
        if each is asked:
            sweep(scenario, tree.pop("platforms"), **tree, store=tmp_path)
        else:
            with pytest.raises(SimulatorError, match=named):
                sweep(scenario, tree.pop("platforms"), **tree, store=tmp_path)


def test_the_store_of_another_version_is_refused(make_scenario, platforms, tmp_path):
    sweep(make_scenario(), platforms, over={"application.workers": [1, 2]}, store=tmp_path)
    header = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    (tmp_path / "sweep.json").write_text(json.dumps(header | {"version": "onggi 0.0.1"}), encoding="utf-8")

    with pytest.raises(SimulatorError, match=r"another version: onggi 0\.0\.1 there"):
        sweep(make_scenario(), platforms, over={"application.workers": [1, 2]}, store=tmp_path)


def test_a_store_is_not_gone_on_with_unasked(make_scenario, platforms, tmp_path):
    over = {"application.workers": [1, 2]}
    sweep(make_scenario(), platforms, over=over, store=tmp_path, resume=False)

    with pytest.raises(SimulatorError, match="8 finished replications"):
        sweep(make_scenario(), platforms, over=over, store=tmp_path, resume=False)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9, "what": "sweep store"}'])
def test_a_directory_with_something_else_is_refused_and_left_alone(make_scenario, platforms, tmp_path, text):
    (tmp_path / "sweep.json").write_text(text, encoding="utf-8")
    with pytest.raises(SimulatorError, match="not the store of a sweep"):
        sweep(make_scenario(), platforms, over={"application.workers": [1, 2]}, store=tmp_path)

    assert text == (tmp_path / "sweep.json").read_text(encoding="utf-8")


def test_two_sweeps_do_not_write_to_one_store(make_scenario, platforms, tmp_path):
    pytest.importorskip("fcntl", reason="only where files can be locked")
    over = {"application.workers": [1, 2]}

    def another(done, total):
        with pytest.raises(SimulatorError, match="another sweep is writing"):
            sweep(make_scenario(), platforms, over=over, store=tmp_path)

    sweep(make_scenario(), platforms, over=over, store=tmp_path, progress=another)


def test_a_store_that_cannot_be_made_is_named(make_scenario, platforms, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(SimulatorError, match="name a directory"):
        sweep(make_scenario(), platforms, over={"application.workers": [1]}, store=tmp_path / "file" / "store")


# The plan in a file

PLAN = """
[sweep]
scenario = "mine.toml"
platforms = ["process", "container"]
design = "latin-hypercube"
points = 3
seed = 5
replications = 2

[sweep.over]
arrivals.rate_per_second = { low = 5, high = 30 }
"application.workers" = [4, 6]
"""


@pytest.fixture
def plan_file(tmp_path):
    from simulator.datafiles import named_file

    steady = named_file("scenarios", "steady").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(steady.replace("1200", "200"), encoding="utf-8")
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    return tmp_path / "plan.toml"


def test_a_plan_in_a_file_is_the_same_sweep(plan_file, tmp_path):
    swept = SweepPlan.from_toml(plan_file).run()
    scenario = simulator.Scenario.from_toml(tmp_path / "mine.toml")
    over = {"arrivals.rate_per_second": {"low": 5, "high": 30}, "application.workers": [4, 6]}

    assert swept == sweep(
        scenario, ["process", "container"], over=over, design="latin-hypercube", points=3, seed=5, replications=2
    )
    assert is_sweep_file(str(plan_file))
    assert not is_sweep_file(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("right", "wrong", "named"),
    [
        ("design =", "desing =", "did you mean `design`"),
        ("latin-hypercube", "latin", "design"),
        ("points = 3", "points = 0", "points"),
        ("[sweep.over]", "[sweep.ovre]", "over"),
        ('scenario = "mine.toml"', "", "scenario"),
    ],
)
def test_a_plan_is_read_strictly(plan_file, right, wrong, named):
    plan_file.write_text(PLAN.replace(right, wrong), encoding="utf-8")
    with pytest.raises(SimulatorError, match=named) as refused:
        SweepPlan.from_toml(plan_file)

    assert str(plan_file) in str(refused.value)
