"""What a run decided, in words: each decision once, in order, and what was left out is counted."""

from hypothesis import given
from hypothesis import strategies as st

from simulator.eventlog import KINDS, Event
from simulator.explanation import EXPLAINED, explain


def made(kind, seconds=0.0, **facts):
    return Event("abc", "container", 0, seconds, kind, facts)


def test_each_decision_is_told_with_its_reason():
    events = [
        made("run-begun"),
        made("route", policy="random", reason="blindly"),
        made("place", instance=0, machine="machine-0", reason="most free cores"),
        made("instance-ready", 1.0, instance=0),
        made("scale-decision", 15.0, current=1, desired=2, reason="too busy"),
        made("fault", 20.0, what="instance-crash", reason="1 lost"),
    ]
    told = list(explain(events))

    assert ["blindly", "most free cores", "too busy", "1 lost"] == [line.partition(" – ")[2] for line in told]


@given(kinds=st.lists(st.sampled_from(KINDS), max_size=60), most=st.integers(1, 5))
def test_no_kind_fills_the_page_and_what_is_left_out_is_counted(kinds, most):
    told = list(explain([made(kind, float(at)) for at, kind in enumerate(kinds)], most))
    counts = {kind: kinds.count(kind) for kind in EXPLAINED}
    beyond = {kind: count - most for kind, count in counts.items() if count > most}

    shown = told[:-1] if beyond else told
    assert sum(min(count, most) for count in counts.values()) == len(shown)
    assert sorted(shown, key=lambda line: float(line.split()[0])) == shown
    assert all(f"{beyond[kind]} more {EXPLAINED[kind]}" in told[-1] for kind in beyond)
