"""The log of a run of several replications: the same whatever the number of processes, and it changes no figure."""

import pytest

from simulator.errors import SimulatorError
from simulator.eventlog import read_events
from simulator.experiments import compare, run
from simulator.fingerprint import run_id

RISING = {
    "arrivals": {"kind": "steps", "steps": [[0, 4], [40, 20]]},
    "autoscaler": {"kind": "hpa", "max_instances": 6},
    "faults": [{"kind": "instance-crash", "at_seconds": 60.0}],
}


@pytest.fixture
def rising(make_scenario):
    return make_scenario(**RISING)


def test_it_holds_all_replications_in_order_and_each_in_order_of_time(rising, make_profile, tmp_path):
    profile = make_profile("quick", fixed_seconds=1.0)
    result = run(rising, platform=profile, seed=3, replications=3, log=tmp_path / "events.jsonl")
    events = list(read_events(tmp_path / "events.jsonl"))

    assert sorted(event.replication for event in events) == [event.replication for event in events]
    for replication in range(3):
        own = [event for event in events if event.replication == replication]
        assert {run_id(rising, profile, 3, replication)} == {event.run_id for event in own}
        assert ("run-begun", "run-ended") == (own[0].kind, own[-1].kind)
        assert sorted(event.seconds for event in own) == [event.seconds for event in own]
        assert result.replications[replication].arrivals == own[-1].facts["arrived"]


def test_every_decision_has_its_reason(rising, make_profile, tmp_path):
    result = run(rising, platform=make_profile(fixed_seconds=1.0), replications=1, log=str(tmp_path / "events.jsonl"))
    events = list(read_events(tmp_path / "events.jsonl"))
    by_kind = {kind: [event.facts for event in events if event.kind == kind] for kind in ("place", "scale-decision")}

    assert all(facts["reason"] and facts["machine"].startswith("machine-") for facts in by_kind["place"])
    assert [(each.current, each.desired, each.reason) for each in result.episode.decisions] == [
        (facts["current"], facts["desired"], facts["reason"]) for facts in by_kind["scale-decision"]
    ]
    assert {"route", "fault"} <= {event.kind for event in events if event.facts.get("reason")}


def test_it_is_the_same_with_several_processes_and_leaves_nothing_beside_it(rising, make_profile, tmp_path):
    platforms = [make_profile("quick", fixed_seconds=1.0), make_profile("slow", fixed_seconds=20.0)]
    logs = [tmp_path / "serial.jsonl", tmp_path / "parallel.jsonl"]
    serial = compare(rising, platforms, log=logs[0])
    parallel = compare(rising, platforms, log=logs[1], workers=2)

    assert serial == parallel == compare(rising, platforms)
    assert logs[0].read_bytes() == logs[1].read_bytes() != b""
    assert sorted(logs) == sorted(tmp_path.iterdir())


def test_a_log_of_before_is_written_over_and_one_that_cannot_be_is_refused(rising, make_profile, tmp_path):
    profile = make_profile()
    path = tmp_path / "events.jsonl"
    run(rising, platform=profile, replications=2, log=path)
    run(rising, platform=profile, replications=1, log=path)

    assert {0} == {event.replication for event in read_events(path)}
    for bad in (tmp_path, tmp_path / "none" / "events.jsonl"):
        with pytest.raises(SimulatorError, match="name a file that can be written"):
            run(rising, platform=profile, replications=1, log=bad)


def test_what_ran_before_a_refusal_or_an_interruption_is_kept(rising, make_profile, tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    path = tmp_path / "events.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(rising, platform=make_profile(), replications=5, log=path, progress=stop)

    assert [0, 1] == sorted({event.replication for event in read_events(path)})
