"""The log of events: what is written is read again, and what is no log is named by its line."""

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import SimulatorError
from simulator.eventlog import KINDS, Event, FileLog, MemoryLog, NoLog, begin_log, join_log, read_events

GOOD = {"version": 1, "run_id": "a", "platform": "container", "replication": 0, "seconds": 1.0, "kind": "place"}


def test_events_are_read_as_they_were_written(tmp_path):
    path, memory = tmp_path / "events.jsonl", MemoryLog("abc", "container", 3)
    with FileLog(path, "abc", "container", 3) as log:
        for each in (log, memory):
            each.write("instance-pending", 0.0, instance=0)
            each.write("place", 0.5, instance=0, machine="machine-1", reason="most free cores, 옹기")
            each.write("scale-decision", 15.25, current=1, desired=4, utilisation_percent=None)

    read = list(read_events(path))
    assert memory.events == read
    assert Event("abc", "container", 3, 15.25, "scale-decision", {"current": 1, "desired": 4}) == read[2]


FACTS = st.dictionaries(
    st.sampled_from(["instance", "machine", "reason"]), st.integers() | st.text(max_size=8) | st.booleans(), max_size=2
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.floats(0, 1e9), FACTS), max_size=6))
def test_any_events_survive_the_way_through_a_file(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    events.sort(key=lambda event: event[1])
    with FileLog(path, "abc", "vm-kvm") as log:
        for kind, seconds, facts in events:
            log.write(kind, seconds, **facts)

    assert events == [(event.kind, event.seconds, event.facts) for event in read_events(path)]


def test_a_reader_sees_whole_events_while_the_run_goes_on(tmp_path):
    with FileLog(tmp_path / "events.jsonl", "abc", "container") as log:
        for count in range(1, 4):
            log.write("instance-ready", float(count), instance=count)
            assert count == len(list(read_events(tmp_path / "events.jsonl")))


def test_of_a_run_that_was_cut_off_the_whole_lines_are_left(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(GOOD)[:-5]}", encoding="utf-8")

    assert 1 == len(list(read_events(path, follow=True)))
    with pytest.raises(SimulatorError, match=r"events\.jsonl:2: .*no end"):
        list(read_events(path))


def test_several_replications_can_share_a_file(tmp_path):
    path = tmp_path / "events.jsonl"
    for replication in range(2):
        with FileLog(path, f"run-{replication}", "container", replication, append=replication > 0) as log:
            log.write("run-begun", 0.0)

    assert ["run-0", "run-1"] == [event.run_id for event in read_events(path)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "not JSON"),
        ("[]", "not an event"),
        (json.dumps({**GOOD, "version": 9}), "version 9"),
        (json.dumps({name: value for name, value in GOOD.items() if name != "seconds"}), "no `seconds`"),
        (json.dumps({**GOOD, "kind": "instance-raedy"}), "no kind `instance-raedy`"),
        (json.dumps({**GOOD, "seconds": "soon"}), "not an event"),
        ("x" * 100_000, "longer than an event"),
    ],
)
def test_a_line_that_is_no_event_is_named(tmp_path, line, said):
    path = tmp_path / "events.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{line}\n", encoding="utf-8")
    events = read_events(path)

    assert "place" == next(events).kind
    with pytest.raises(SimulatorError) as refused:
        next(events)
    assert f"{path}:2: " in str(refused.value)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_reading_ends_where_it_was_told(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n" * 3, encoding="utf-8")

    assert 3 == len(list(read_events(path, most=3)))
    with pytest.raises(SimulatorError, match="more than 2 events"):
        list(read_events(path, most=2))


@pytest.mark.parametrize(
    ("kind", "seconds", "facts", "said"),
    [
        ("instance-raedy", 2.0, {}, "no kind"),
        ("place", 0.5, {}, "comes after"),
        ("place", float("nan"), {}, "comes after"),
        ("place", 2.0, {"run_id": "other"}, "set by the log"),
    ],
)
def test_a_writer_that_is_wrong_is_told_at_once(kind, seconds, facts, said):
    log = MemoryLog("abc", "container")
    log.write("place", 1.0)

    with pytest.raises(SimulatorError, match=said):
        log.write(kind, seconds, **facts)
    assert 1 == len(log.events)


def test_no_log_takes_whatever_comes():
    NoLog().write("place", 1.0, instance=3)


@pytest.mark.parametrize(
    ("kind", "facts", "told"),
    [
        ("scale-decision", {"current": 2, "desired": 4, "reason": "too busy"}, "instances go from 2 to 4 – too busy"),
        ("scale-decision", {"what": "machines", "current": 3, "desired": 3}, "machines stay at 3"),
        (
            "place",
            {"instance": 7, "machine": "machine-1", "reason": "room"},
            "instance 7 is placed on machine-1 – room",
        ),
        ("route", {"policy": "random", "reason": "blindly"}, "requests are routed by random – blindly"),
        ("route", {"instance": 3, "reason": "unhealthy"}, "no request is routed to instance 3 – unhealthy"),
        ("fault", {"what": "kernel-crash", "target": "machine-0"}, "fault: kernel-crash of machine-0"),
        ("fault", {"what": "instance-crash", "reason": "1 lost"}, "fault: instance-crash – 1 lost"),
        ("burst-rejected", {"count": 12}, "burst-rejected: count 12"),
        ("place", {}, "place"),
    ],
)
def test_an_event_explains_itself(kind, facts, told):
    assert f"15.000 s  {told}" == Event("abc", "container", 0, 15.0, kind, facts).explain().strip()


def test_parts_are_joined_in_the_order_in_which_they_are_asked_for(tmp_path):
    whole, parts = tmp_path / "events.jsonl", [tmp_path / f"{number}.jsonl" for number in range(3)]
    for number, part in enumerate(parts):
        with FileLog(part, f"run-{number}", "container", number) as log:
            log.write("run-begun", 0.0)
    whole.write_text("what was there before", encoding="utf-8")
    begin_log(whole)
    for part in reversed(parts):
        join_log(whole, part)

    assert ["run-2", "run-1", "run-0"] == [event.run_id for event in read_events(whole)]
    assert [whole] == list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_can_be_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with FileLog(pipe, "abc", "container") as log:
            log.write("run-begun", 0.0)
        assert b'"run-begun"' in os.read(reader, 1000)
    finally:
        os.close(reader)


def test_a_file_that_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(SimulatorError, match="no-folder"):
        FileLog(tmp_path / "no-folder" / "events.jsonl", "abc", "container")
    with pytest.raises(SimulatorError, match="no-folder"):
        begin_log(tmp_path / "no-folder" / "events.jsonl")
    with pytest.raises(SimulatorError, match="whole"):
        join_log(tmp_path / "whole.jsonl", tmp_path / "none.jsonl")
    with pytest.raises(SimulatorError, match="none"):
        list(read_events(tmp_path / "none.jsonl"))
