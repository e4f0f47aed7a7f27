"""The three data planes: the same requests, the same story, to the last bit."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import SimulatorError
from simulator.evidence.theory import erlang_b
from simulator.statistics.intervals import t_interval
from simulator.traffic.balancing.policies import POLICIES
from simulator.traffic.columns import PlainColumns
from simulator.traffic.compiled import CompiledColumns
from simulator.traffic.plane import COMPLETED, FAILED, REJECTED, TIMED_OUT, NoticeKind
from simulator.traffic.shares import MACHINE_BITS

_spec = importlib.util.spec_from_file_location("planes", Path(__file__).parent / "planes.py")
planes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(planes)
KINDS, Numbers, Witness, make_plane = planes.KINDS, planes.Numbers, planes.Witness, planes.make_plane


def story(kind, seed, *, count=1500, windows=1, **service):
    """Instances come, drain and are killed while requests run; everything that a plane says, at every change."""
    witness = Witness()
    plane = make_plane(kind, Numbers(rate=200, count=count, seed=seed), witness, closing=6.0, **service)
    chance = np.random.default_rng(seed + 99)
    said, notices = [], []

    def advance(until):
        while (notice := plane.advance(until)) is not None:
            notices.append(notice)

    live = [] if service.get("holding_limit") else [plane.add(weight=1.0 + number % 3) for number in range(6)]
    now = 0.0
    while now < 7.0:
        pause = chance.exponential(0.3)
        for part in range(1, windows):
            advance(now + pause * part / windows)
        now += pause
        advance(now)
        counts = plane.counts()
        ended = counts.completed + counts.rejected + counts.failed + counts.timed_out
        assert counts.arrived == ended + counts.in_flight, "nothing is lost, at no instant"
        said.append((counts, plane.busy_seconds().round(9).tolist(), plane.inside_seconds().round(9).tolist()))
        lot = chance.random()
        if lot < 0.4 or len(live) < 3:
            live.append(plane.add(weight=2.0))
            continue
        slot = live.pop(int(chance.random() * len(live)))
        if lot < 0.6:
            said.append(plane.drain(slot))
        else:
            said.append(plane.kill(slot, routable=lot > 0.8))
            if lot > 0.8:
                # A health check takes a while to notice.
                now += 0.2
                advance(now)
                plane.withdraw(slot)
    advance(math.inf)
    plane.hand_over()
    assert 0 == plane.counts().in_flight - plane.counts().held
    return {"ended": witness.ended, "said": said, "notices": notices, "completed": plane.completed().tolist()}


SERVICES = {
    **{name: {"balancer": name, "workers": 2, "queue_limit": 8} for name in POLICIES},
    "retries": {"retries": 3, "budget_fraction": 0.2, "queue_limit": 3, "workers": 2},
    "time-outs": {"timeout_seconds": 0.15, "queue_limit": 20, "balancer": "round-robin"},
    "both": {"timeout_seconds": 0.15, "retries": 2, "balancer": "power-of-choices", "choices": 3},
    "closed loop": {"users": 60, "timeout_seconds": 0.3, "retries": 1, "workers": 2},
    "held while there is none": {"holding_limit": 50, "timeout_seconds": 0.4, "retries": 1, "workers": 2},
}


@pytest.mark.parametrize("name", SERVICES)
def test_all_planes_tell_the_same_story(name):
    stories = {kind: story(kind, 1, **SERVICES[name]) for kind in KINDS}

    assert stories["python"] == stories["numba"]
    assert stories["python"] == stories["processes"]
    assert stories["python"]["ended"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(SERVICES)), st.integers(2, 5))
def test_what_happens_does_not_depend_on_the_windows(seed, name, windows):
    whole, cut = (story("python", seed, count=400, windows=number, **SERVICES[name]) for number in (1, windows))

    assert whole["ended"] == cut["ended"]
    assert whole["notices"] == cut["notices"]


@pytest.mark.parametrize("kind", ["python", "numba"])
@pytest.mark.parametrize("name", ["both", "closed loop", "bounded-hash", "peak-ewma"])
def test_what_happens_does_not_depend_on_how_much_is_drawn_at_a_time(kind, name, monkeypatch):
    whole = story(kind, 3, **SERVICES[name])
    for columns in (PlainColumns, CompiledColumns):
        monkeypatch.setattr(columns, "chunk", 192)

    assert whole == story(kind, 3, **SERVICES[name])


@pytest.mark.parametrize("kind", KINDS)
def test_who_was_held_and_failed_takes_no_room_from_who_comes_after(kind, monkeypatch):
    for columns in (PlainColumns, CompiledColumns):
        monkeypatch.setattr(columns, "chunk", 192)
    for until in (0.26, 0.27, 0.275, 0.28, 0.285):
        witness = Witness()
        plane = make_plane(kind, Numbers(rate=1000, count=800, mean=10.0), witness, holding_limit=1000, queue_limit=0)
        plane.add()
        plane.advance(0.1)
        plane.hand_over()
        plane.drain(0)
        while plane.advance(until) is not None:
            pass
        before, held = plane.counts().failed, plane.counts().held
        plane.fail_held(until)
        # Nearly all who come after are turned away: each arrival is an outcome.
        plane.add()
        while plane.advance(math.inf) is not None:
            pass
        plane.hand_over()

        assert (before + held, 0) == (plane.counts().failed, plane.counts().in_flight)
        assert held > 20
        assert 800 == len(witness.ended) == plane.counts().arrived


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_end_happens_and_is_told(kind):
    told = {state for service in SERVICES.values() for _, _, state in story(kind, 1, count=600, **service)["ended"]}

    assert {COMPLETED, REJECTED, FAILED, TIMED_OUT} == told


def test_the_last_request_of_a_draining_instance_is_told():
    plane = make_plane("python", Numbers(rate=10, count=5, mean=1.0), Witness(), workers=5)
    plane.add()
    plane.advance(0.5)

    assert not plane.drain(0)
    notice = plane.advance(100.0)
    assert (NoticeKind.DRAINED, 0) == (notice.kind, notice.which)
    assert 0 == plane.in_flight(0)


def test_without_an_instance_requests_are_rejected_or_held():
    rejecting = make_plane("python", Numbers(rate=10, count=20), Witness())
    assert rejecting.advance(math.inf) is None
    assert 20 == rejecting.counts().rejected

    holding = make_plane("python", Numbers(rate=10, count=20), Witness(), holding_limit=100)
    notice = holding.advance(math.inf)
    assert NoticeKind.ARRIVED_AT_NONE is notice.kind
    while holding.advance(math.inf) is not None:
        pass
    assert 20 == holding.counts().held
    holding.add()
    holding.advance(math.inf)
    assert 20 == holding.counts().completed


def test_retries_stay_within_their_budget():
    plane = make_plane(
        "python", Numbers(rate=1000, count=5000), Witness(),
        queue_limit=0, retries=5, budget_fraction=0.1, budget_burst=10.0,
    )  # fmt: skip
    plane.add()
    plane.advance(math.inf)

    assert 0 < plane.counts().retried <= 10 + 0.1 * 5000


@pytest.mark.parametrize("workers", [1, 4])
def test_a_loss_system_rejects_as_erlang_b_says(workers):
    fractions = []
    for seed in range(20):
        plane = make_plane(
            "python", Numbers(rate=10.0 * workers, count=4000, mean=0.1, seed=seed), Witness(),
            workers=workers, queue_limit=0,
        )  # fmt: skip
        plane.add()
        plane.advance(math.inf)
        fractions.append(plane.counts().rejected / 4000)
    _, low, high = t_interval(fractions, 0.99)

    assert low <= erlang_b(workers, float(workers)) <= high
    assert high - low < 0.05


def test_littles_law_holds_at_each_instance_and_for_all():
    plane = make_plane("python", Numbers(rate=100, count=2000), Witness(), workers=2, balancer="random")
    for _ in range(4):
        plane.add()
    areas, before, now = np.zeros(4), 0.0, 0.0
    while now < 10.0:
        now += 0.001
        areas += (now - before) * np.array([plane.in_flight(slot) for slot in range(4)])
        plane.advance(now)
        before = now

    assert plane.inside_seconds() == pytest.approx(areas, abs=0.35)


def shared(witness, *, cores, instances, compiled=False, rate=20.0, count=600, sharing=False, **group):
    from simulator.traffic.plane import Service
    from simulator.traffic.windows import WindowedPlane

    service = Service(workers=4, queue_limit=1000, balancer="random", sharing=sharing)
    plane = WindowedPlane(
        service, Numbers(rate=rate, count=count, mean=0.2), witness, machines=[cores], compiled=compiled
    )
    for _ in range(instances):
        plane.add(machine=0, **group)
    return plane


def test_shared_cores_are_the_workers_own_while_there_are_enough():
    own, common = Witness(), Witness()
    alone = make_plane(
        "python", Numbers(rate=20, count=600, mean=0.2), own, workers=4, queue_limit=1000, balancer="random"
    )
    for _ in range(3):
        alone.add()
    for plane in (alone, shared(common, cores=12.0, instances=3)):
        plane.advance(math.inf)
        plane.hand_over()

    assert np.array(own.ended) == pytest.approx(np.array(common.ended))


@pytest.mark.parametrize("sharing", [False, True])
def test_compiled_code_shares_cores_as_plain_python_does(sharing):
    seen = []
    for compiled in (False, True):
        witness = Witness()
        plane = shared(witness, cores=3.0, instances=3, compiled=compiled, rate=12.0, sharing=sharing, quota=1.5)
        for until in np.linspace(1.0, 40.0, 14):
            plane.advance(until)
        busy = plane.busy_seconds()
        plane.advance(math.inf)
        plane.hand_over()
        seen.append((witness.ended, busy.tolist()))

    assert seen[0] == seen[1]


def test_a_quota_slows_and_a_noisy_neighbour_slows_less_the_less_it_weighs():
    def mean_of(change, **group):
        witness = Witness()
        plane = shared(witness, cores=4.0, instances=1, rate=8.0, **group)
        change(plane)
        plane.advance(math.inf)
        plane.hand_over()
        return np.mean([seconds for _, seconds, _ in witness.ended])

    alone = mean_of(lambda plane: None)
    assert mean_of(lambda plane: None, quota=2.0) > alone
    loud = mean_of(lambda plane: plane.add_neighbour(0, threads=16))
    light = mean_of(lambda plane: plane.add_neighbour(0, threads=16, weight=0.1))
    limited = mean_of(lambda plane: plane.add_neighbour(0, threads=16, quota=1.0))
    assert alone < light < loud
    assert alone <= limited < loud


def test_work_that_is_no_request_takes_its_share_and_is_told():
    plane = shared(Witness(), cores=1.0, instances=1, count=1, rate=0.001)
    piece, other = plane.begin_work(0, 3.0), plane.begin_work(0, 1.0)
    first = plane.advance(50.0)
    assert (NoticeKind.WORK_DONE, 2.0, other) == tuple(first)
    plane.end_work(other)
    second = plane.advance(50.0)
    assert (4.0, piece) == (pytest.approx(second.seconds), second.which)
    plane.end_work(piece)

    cancelled = plane.begin_work(0, 5.0)
    plane.cancel_work(cancelled)
    assert plane.advance(50.0) is None


def test_what_cannot_be_is_refused():
    with pytest.raises(SimulatorError, match="balancer `magic`: unknown"):
        make_plane("python", Numbers(rate=1, count=1), Witness(), balancer="magic")
    with pytest.raises(SimulatorError, match="at least one"):
        make_plane("python", Numbers(rate=1, count=1), Witness(), workers=0)
    plane = make_plane("python", Numbers(rate=1, count=1), Witness())
    plane.advance(5.0)
    with pytest.raises(SimulatorError, match="time cannot run back"):
        plane.advance(4.0)
    assert MACHINE_BITS >= 14, "ten thousand machines"
