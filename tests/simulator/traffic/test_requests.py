"""The three data planes: the same requests, the same story."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment

from simulator.errors import SimulatorError
from simulator.evidence.theory import erlang_b
from simulator.statistics.intervals import t_interval
from simulator.traffic.balancing import BALANCERS
from simulator.traffic.processes import ProcessPlane
from simulator.traffic.requests import COMPLETED, FAILED, REJECTED, UNRESOLVED, Requests, WindowedPlane

SERVICE = {"workers": 2, "queue_limit": 5}


def make_requests(count: int, rate: float, seed: int = 0, *, kind: str = "exponential") -> Requests:
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / rate, count))
    demands = random.exponential(1.0, count) if kind == "exponential" else np.ones(count)
    return Requests(arrivals, demands, random.random(count))


def play(requests: Requests, kind: str, balancer: str, events: list[tuple[float, str, int]], **service: int) -> dict:
    """Run `events`, (seconds, what, slot), on one data plane, and record all that it says."""
    environment = Environment()
    service = {**SERVICE, **service}
    plane = (
        ProcessPlane(environment, requests, balancer=balancer, **service)
        if kind == "processes"
        else WindowedPlane(requests, balancer=balancer, **service, compiled=kind == "numba")
    )
    said: list[float | None] = []

    def control():
        for seconds, what, slot in events:
            yield environment.timeout(seconds - environment.now)
            now = environment.now
            plane.advance(now)
            arrived = int(np.searchsorted(requests.arrivals, now, side="right"))
            resolved = int((plane.outcomes().state != UNRESOLVED).sum())
            assert arrived == resolved + plane.in_flight(), "nothing is lost, at no instant"
            said.extend([plane.in_flight(), *plane.busy_seconds().tolist()])
            if what != "look":
                said.append(getattr(plane, what)(*([] if what == "add" else [slot])))

    environment.run(environment.process(control()))
    plane.advance(math.inf)
    return {"said": said, "outcomes": plane.outcomes(), "in_flight": plane.in_flight()}


EVENTS = [(0.0, "add", 0), (0.0, "add", 0), (20.0, "look", 0), (30.5, "add", 0), (50.0, "drain", 0), (61.0, "kill", 1),
          (61.0, "add", 0), (90.0, "look", 0), (91.0, "kill", 2), (91.0, "drain", 3), (95.0, "add", 0)]  # fmt: skip


@pytest.mark.parametrize("balancer", BALANCERS)
def test_compiled_and_plain_say_exactly_the_same(balancer):
    pytest.importorskip("numba")
    requests = make_requests(800, 6.0)
    plain, compiled = play(requests, "python", balancer, EVENTS), play(requests, "numba", balancer, EVENTS)

    assert plain["said"] == compiled["said"]
    for name in ("state", "finished", "instance"):
        np.testing.assert_array_equal(getattr(plain["outcomes"], name), getattr(compiled["outcomes"], name))
    assert {COMPLETED, REJECTED, FAILED} == set(plain["outcomes"].state)


@pytest.mark.parametrize("balancer", BALANCERS)
def test_one_process_per_request_tells_the_same_story(balancer):
    requests = make_requests(800, 6.0)
    plain, slow = play(requests, "python", balancer, EVENTS), play(requests, "processes", balancer, EVENTS)

    np.testing.assert_array_equal(plain["outcomes"].state, slow["outcomes"].state)
    np.testing.assert_array_equal(plain["outcomes"].instance, slow["outcomes"].instance)
    # SimPy adds up waits where the hot path uses the drawn arrival times, so the last bits may differ.
    np.testing.assert_allclose(plain["outcomes"].finished, slow["outcomes"].finished, rtol=1e-12)
    np.testing.assert_allclose(np.array(plain["said"], float), np.array(slow["said"], float), atol=1e-9)


event = st.tuples(st.floats(0, 60), st.sampled_from(["add", "add", "look", "drain", "kill"]), st.integers(0, 5))


@given(
    st.lists(event, max_size=12),
    st.integers(0, 2**32 - 1),
    st.sampled_from(sorted(BALANCERS)),
    st.integers(1, 3),
    st.integers(0, 4),
)
@settings(max_examples=80, deadline=None)
def test_whatever_happens_nothing_is_lost_and_all_planes_agree(events, seed, balancer, workers, queue_limit):
    timeline, added, killed = [], 0, set()
    for seconds, what, slot in sorted(events):
        if what == "add":
            added += 1
        elif what != "look" and (slot >= added or slot in killed):
            continue
        if what in ("kill", "drain"):
            killed.add(slot)
        timeline.append((seconds, what, slot))
    requests = make_requests(150, 3.0, seed)
    service = {"workers": workers, "queue_limit": queue_limit}
    plain = play(requests, "python", balancer, timeline, **service)
    slow = play(requests, "processes", balancer, timeline, **service)

    assert plain["in_flight"] == 0
    assert UNRESOLVED not in plain["outcomes"].state
    np.testing.assert_array_equal(plain["outcomes"].state, slow["outcomes"].state)
    np.testing.assert_allclose(plain["outcomes"].finished, slow["outcomes"].finished, rtol=1e-12)


def test_how_time_is_cut_into_windows_changes_nothing():
    requests = make_requests(500, 3.0)
    whole, cut = (WindowedPlane(requests, balancer="least-connections", **SERVICE) for _ in range(2))
    for plane in (whole, cut):
        plane.add()
    for now in np.arange(0.0, 200.0, 0.37):
        cut.advance(now)
    for plane in (whole, cut):
        plane.advance(math.inf)

    np.testing.assert_array_equal(whole.outcomes().finished, cut.outcomes().finished)


def test_a_draining_instance_finishes_exactly_when_it_said():
    requests = make_requests(200, 4.0)
    plane = WindowedPlane(requests, balancer="round-robin", **SERVICE)
    slot = plane.add()
    plane.advance(20.0)
    last = plane.drain(slot)
    plane.advance(np.nextafter(last, 0))
    before = plane.in_flight(slot)
    plane.advance(last)

    assert (1, 0) == (before, plane.in_flight(slot))
    assert last == np.nanmax(plane.outcomes().finished)


def test_an_instance_serves_first_come_first_served_on_its_workers():
    requests = Requests(np.array([0.0, 1.0, 2.0, 3.0]), np.array([10.0, 3.0, 3.0, 1.0]), np.zeros(4))
    plane = WindowedPlane(requests, balancer="round-robin", workers=2, queue_limit=2)
    plane.add()
    plane.advance(math.inf)

    assert [10.0, 4.0, 7.0, 8.0] == plane.outcomes().finished.tolist()
    assert 17.0 == plane.busy_seconds()[0]


def test_a_full_queue_and_no_instance_reject():
    requests = Requests(np.array([0.0, 1.0, 2.0, 3.0]), np.full(4, 10.0), np.zeros(4))
    plane = WindowedPlane(requests, balancer="round-robin", workers=1, queue_limit=1)
    plane.advance(0.5)
    plane.add()
    plane.advance(math.inf)

    assert [REJECTED, COMPLETED, COMPLETED, REJECTED] == plane.outcomes().state.tolist()


def test_without_a_queue_erlang_b_says_how_many_are_rejected():
    fractions = []
    for seed in range(20):
        plane = WindowedPlane(make_requests(20_000, 4.0, seed), balancer="random", workers=5, queue_limit=0)
        plane.add()
        plane.advance(math.inf)
        fractions.append((plane.outcomes().state[500:] == REJECTED).mean())
    _, low, high = t_interval(fractions, 0.99)

    assert low <= erlang_b(5, 4.0) <= high


def test_littles_law_holds():
    """L, seen at equally spaced moments, is the arrival rate times the mean time in the system."""
    differences = []
    for seed in range(20):
        requests = make_requests(10_000, 3.2, seed)
        plane = WindowedPlane(requests, balancer="least-connections", workers=2, queue_limit=10**6)
        for _ in range(2):
            plane.add()
        moments = np.arange(100.0, requests.arrivals[-1], 0.5)
        seen = []
        for now in moments:
            plane.advance(now)
            seen.append(plane.in_flight())
        plane.advance(math.inf)
        inside = (requests.arrivals >= moments[0]) & (requests.arrivals < moments[-1])
        rate = inside.sum() / (moments[-1] - moments[0])
        time_in_system = (plane.outcomes().finished - requests.arrivals)[inside].mean()
        differences.append(np.mean(seen) - rate * time_in_system)
    mean, low, high = t_interval(differences, 0.99)

    assert low <= 0 <= high
    assert abs(mean) < 0.02


@pytest.mark.parametrize(
    "wrong",
    [{"balancer": "fair"}, {"workers": 0}, {"queue_limit": -1}],
)
def test_a_service_that_cannot_be_is_refused(wrong):
    with pytest.raises(SimulatorError):
        WindowedPlane(make_requests(3, 1.0), **{"balancer": "random", **SERVICE, **wrong})


def test_time_cannot_run_back():
    plane = WindowedPlane(make_requests(3, 1.0), balancer="random", **SERVICE)
    plane.advance(2.0)
    with pytest.raises(SimulatorError):
        plane.advance(1.0)


@pytest.mark.parametrize(
    "columns",
    [([1.0, 0.0], [1.0, 1.0], [0.0, 0.0]), ([0.0], [-1.0], [0.0]), ([0.0], [math.inf], [0.0]), ([0.0], [1.0], [])],
)
def test_requests_that_cannot_be_are_refused(columns):
    with pytest.raises(SimulatorError):
        Requests(*(np.array(column) for column in columns))
