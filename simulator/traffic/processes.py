"""The same service as SimPy users write it: one process per request. Slow, and the one to read first.

It keeps to `simulator.traffic.plane.DataPlane` on an environment of its own, which `advance` runs, and its results are
identical to those of the hot path, which a test asserts. What instances share, a machine's cores, only the hot path
has.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simpy import Environment, Event, Interrupt, Process, Resource

from simulator.errors import SimulatorError
from simulator.traffic.balancing.board import CHOICES, LOT, POLICY, RING, ROUTABLE, TOTAL, Board, next_lot
from simulator.traffic.balancing.policies import POLICIES, ring_points
from simulator.traffic.plane import (
    CHUNK,
    COMPLETED,
    FAILED,
    REJECTED,
    TIMED_OUT,
    Counts,
    Notice,
    NoticeKind,
    Numbers,
    Outcomes,
    Service,
)

_RING_ROOM = 4096
"""Different loads that the board's rings have anchors for at first."""


@dataclass(eq=False)
class _Request:
    """One request: when it first arrived, its work, its key, and how often it was tried before."""

    arrived: float
    demand: float
    key: float
    attempt: int = 0


@dataclass(eq=False)
class _Attempt:
    """A request at an instance: since when, when its service ends, and whether its client still waits."""

    request: _Request
    slot: int
    offered: float
    ends: float | None = None
    client_waits: bool = True
    process: Process | None = None


@dataclass
class _Instance:
    """One instance: its workers, the attempts in it in the order in which they came, and what it has done."""

    workers: Resource
    limit: int
    inside: list[_Attempt] = field(default_factory=list)
    begun_seconds: float = 0.0
    inside_seconds: float = 0.0
    completed: int = 0
    draining: bool = False
    dead: bool = False


class _Stream:
    """Numbers one after the other, drawn many at a time."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw
        self._numbers: list[float] = []

    def __next__(self) -> float:
        if not self._numbers:
            self._numbers = self._draw(CHUNK).tolist()[::-1]
        return self._numbers.pop()


class ProcessPlane:
    """A data plane with one SimPy process per attempt of a request.

    Args:
        service: how requests are balanced, served and tried again.
        numbers: where arrivals, demands and lots come from.
        outcomes: takes what became of the requests.
        closing_seconds: after it, users of a closed loop send nothing more.

    Raises:
        SimulatorError: the service shares cores, which this plane does not know.
    """

    def __init__(
        self, service: Service, numbers: Numbers, outcomes: Outcomes, *, closing_seconds: float = math.inf
    ) -> None:
        if service.sharing:
            raise SimulatorError("the data plane `processes` knows no shared cores; take `auto`, `python` or `numba`")
        self._service = service
        self._policy = POLICIES[service.balancer]
        self._numbers = numbers
        self._outcomes = outcomes
        self._closing = closing_seconds
        self._env = Environment()
        self._demands, self._thinks = _Stream(numbers.demands), _Stream(numbers.thinks)
        self._instances: list[_Instance] = []
        self._held: list[tuple[_Request, Event]] = []
        self._notices: list[Notice] = []
        self._tokens = service.budget_burst
        self._count = dict.fromkeys((COMPLETED, REJECTED, FAILED, TIMED_OUT), 0)
        self._arrived = self._retried = 0
        self._ended: list[tuple[float, float, int]] = []
        self._points: list[tuple[float, int]] = []
        anchors: list[int] = list(range(2 * _RING_ROOM))
        self._board = Board(
            slots=[], position=[], load=[], previous=anchors, following=list(anchors), weight=[], credit=[], cost=[],
            seen=[], ring=[], owner=[], counts=[0] * 8, settings=[service.decay_seconds, service.bound], lots=[],
        )  # fmt: skip
        self._board.counts[POLICY], self._board.counts[CHOICES] = self._policy.number, service.choices
        if service.users:
            for think in sorted(numbers.thinks(service.users).tolist()):
                self._env.process(self._user(think))
        else:
            self._env.process(self._clients())

    # -- a request's life

    def _clients(self) -> Generator[Any, Any, None]:
        """Requests arrive at their times, whether or not the service keeps up."""
        for chunk in self._numbers.arrivals():
            for arrival in chunk.tolist():
                yield _at(self._env, arrival)
                self._begin_request()

    def _user(self, think: float) -> Generator[Any, Any, None]:
        """A user of a closed loop thinks, and sends a request; its end begins the next thought."""
        yield self._env.timeout(think)
        if self._env.now < self._closing:
            self._begin_request()

    def _begin_request(self) -> None:
        self._arrived += 1
        keys = self._service.keys if self._policy.keyed else 0
        self._draw_lots()
        demand = next(self._demands)
        key = (int(next_lot(self._board) * keys) + 0.5) / keys if keys else 0.0
        self._tokens = min(self._tokens + self._service.budget_fraction, self._service.budget_burst)
        self._offer(_Request(self._env.now, demand, key))

    def _offer(self, request: _Request) -> None:
        """The balancer gives the request to an instance, which takes it or not."""
        board = self._board
        if not board.counts[ROUTABLE]:
            if len(self._held) < self._service.holding_limit:
                self._hold(request)
            else:
                if self._service.wakes:
                    self._notices.append(Notice(NoticeKind.ARRIVED_AT_NONE, self._env.now, -1))
                self._failed(request, REJECTED)
            return
        self._draw_lots()
        slot = self._policy.choose(board, request.key, self._env.now)
        instance = self._instances[slot]
        if board.load[slot] >= instance.limit:
            self._failed(request, FAILED if instance.dead else REJECTED)
            return
        while len(board.previous) < 2 * (board.load[slot] + 3):
            for ring in (board.previous, board.following):
                ring.append(len(ring))
        attempt = _Attempt(request, slot, self._env.now)
        instance.inside.append(attempt)
        board.load[slot] += 1
        board.counts[TOTAL] += 1
        self._policy.took(board, slot, self._env.now)
        attempt.process = self._env.process(self._serve(attempt, instance))
        if math.isfinite(self._service.timeout_seconds):
            self._env.process(self._give_up(attempt))

    def _serve(self, attempt: _Attempt, instance: _Instance) -> Generator[Any, Any, None]:
        """One attempt waits for a worker, is served, and leaves."""
        try:
            with instance.workers.request() as worker:
                yield worker
                attempt.ends = self._env.now + attempt.request.demand
                instance.begun_seconds += attempt.request.demand
                yield self._env.timeout(attempt.request.demand)
        except Interrupt as interrupt:
            # Its client went while it waited, or its instance was killed.
            cause: Any = interrupt.cause
            if cause == TIMED_OUT or attempt.client_waits:
                self._leave(attempt, instance, killed=cause == FAILED)
                self._failed(attempt.request, cause)
            return
        self._leave(attempt, instance)
        if attempt.client_waits:
            attempt.client_waits = False
            instance.completed += 1
            self._end(attempt.request, COMPLETED)

    def _give_up(self, attempt: _Attempt) -> Generator[Any, Any, None]:
        """The client waits only so long. What is in service by then is served in vain."""
        yield self._env.timeout(self._service.timeout_seconds)
        if attempt.client_waits and attempt in self._instances[attempt.slot].inside:
            attempt.client_waits = False
            if attempt.ends is None and attempt.process is not None:
                attempt.process.interrupt(TIMED_OUT)
            else:
                self._failed(attempt.request, TIMED_OUT)

    def _leave(self, attempt: _Attempt, instance: _Instance, *, killed: bool = False) -> None:
        """The attempt is no longer at its instance."""
        seconds = self._env.now - attempt.offered
        instance.inside_seconds += seconds
        if killed:
            return
        instance.inside.remove(attempt)
        self._board.load[attempt.slot] -= 1
        if self._board.position[attempt.slot] >= 0:
            self._board.counts[TOTAL] -= 1
        self._policy.left(self._board, attempt.slot, self._env.now, seconds)
        if instance.draining and not instance.inside:
            self._notices.append(Notice(NoticeKind.DRAINED, self._env.now, attempt.slot))

    def _failed(self, request: _Request, outcome: int) -> None:
        """An attempt has failed: another one after a while, if there may be one, or the end."""
        service = self._service
        if request.attempt >= service.retries or self._tokens < 1.0:
            self._end(request, outcome)
            return
        self._tokens -= 1.0
        wait = service.backoff_seconds
        for _ in range(request.attempt):
            wait *= service.backoff_factor
        self._draw_lots()
        wait = min(wait, service.backoff_cap_seconds) * (1.0 - service.jitter * next_lot(self._board))
        request.attempt += 1
        self._retried += 1
        self._env.process(self._try_again(request, wait))

    def _try_again(self, request: _Request, wait: float) -> Generator[Any, Any, None]:
        yield self._env.timeout(wait)
        self._offer(request)

    def _end(self, request: _Request, outcome: int) -> None:
        self._count[outcome] += 1
        self._ended.append((request.arrived, self._env.now - request.arrived, outcome))
        if len(self._ended) == CHUNK:
            self.hand_over()
        if self._service.users and self._env.now < self._closing:
            self._env.process(self._user(next(self._thinks)))

    def _hold(self, request: _Request) -> None:
        """The request waits for any instance, and the control plane is told."""
        offered = self._env.event()
        self._held.append((request, offered))
        self._notices.append(Notice(NoticeKind.ARRIVED_AT_NONE, self._env.now, -1))
        if math.isfinite(self._service.timeout_seconds):
            self._env.process(self._give_up_held(request, offered))

    def fail_held(self, now: float) -> None:
        """What waits for an instance at `now` fails: none will come any more."""
        held, self._held = self._held, []
        for request, _ in held:
            self._count[FAILED] += 1
            self._ended.append((request.arrived, now - request.arrived, FAILED))
            if len(self._ended) == CHUNK:
                self.hand_over()

    def _give_up_held(self, request: _Request, offered: Event) -> Generator[Any, Any, None]:
        yield self._env.timeout(self._service.timeout_seconds) | offered
        if (request, offered) in self._held:
            self._held.remove((request, offered))
            self._failed(request, TIMED_OUT)

    def _draw_lots(self) -> None:
        """Enough uniform numbers for what comes next."""
        board = self._board
        if len(board.lots) - board.counts[LOT] < 64:
            board.lots[:] = [*board.lots[board.counts[LOT] :], *self._numbers.lots(CHUNK).tolist()]
            board.counts[LOT] = 0

    # -- the data plane's face

    def advance(self, now: float) -> Notice | None:
        """Let everything happen that happens until `now` (inclusive), seconds; inf: until all are done.

        Raises:
            SimulatorError: `now` lies before the last call's.
        """
        env = self._env
        if now < env.now:
            raise SimulatorError(f"data plane: time cannot run back from {env.now} to {now}")
        while not self._notices and env.peek() <= min(now, np.finfo(np.float64).max):
            env.step()
        if self._notices:
            return self._notices.pop(0)
        if env.now < now < math.inf:
            env.run(until=now)
        return None

    def hand_over(self) -> None:
        """Give the outcomes what has ended since the last time."""
        if self._ended:
            arrived, seconds, state = (np.array(column) for column in zip(*self._ended, strict=True))
            self._outcomes.record(arrived, seconds, state.astype(np.int8))
            self._ended.clear()

    def add(self, weight: float = 1.0, machine: int = 0, cpu_weight: float = 1.0, quota: float = math.inf) -> int:
        """A new instance takes requests from now on; gives its slot."""
        board, slot = self._board, len(self._instances)
        self._instances.append(_Instance(Resource(self._env, capacity=self._service.workers), self._service.limit))
        for column, value in (
            (board.slots, 0), (board.position, -1), (board.load, 0), (board.weight, weight), (board.credit, 0.0),
            (board.cost, 0.0), (board.seen, self._env.now),
        ):  # fmt: skip
            column.append(value)
        for ring in (board.previous, board.following):
            ring.extend(range(len(ring), 2 * slot + 2))
        place = board.counts[ROUTABLE]
        board.slots[place], board.position[slot] = slot, place
        board.counts[ROUTABLE] += 1
        self._policy.joined(board, slot)
        if self._policy.keyed:
            self._points = sorted([*self._points, *ring_points(slot)])
            self._make_ring()
        held, self._held = self._held, []
        for request, offered in held:
            if not offered.triggered:
                offered.succeed()
            self._offer(request)
        return slot

    def _make_ring(self) -> None:
        self._board.ring[:] = [point for point, _ in self._points]
        self._board.owner[:] = [slot for _, slot in self._points]
        self._board.counts[RING] = len(self._points)

    def withdraw(self, slot: int) -> None:
        """The balancer does not see the instance any more."""
        board = self._board
        place = board.position[slot]
        if place < 0:
            return
        for later in range(place + 1, board.counts[ROUTABLE]):
            moved = board.slots[later]
            board.slots[later - 1], board.position[moved] = moved, later - 1
        board.counts[ROUTABLE] -= 1
        board.counts[TOTAL] -= board.load[slot]
        board.position[slot] = -1
        self._policy.gone(board, slot)
        if self._policy.keyed:
            self._points = [point for point in self._points if point[1] != slot]
            self._make_ring()

    def drain(self, slot: int) -> bool:
        """The instance gets no more requests but finishes those it has; whether it has none now. A notice follows."""
        self.withdraw(slot)
        self._instances[slot].draining = True
        return not self._instances[slot].inside

    def kill(self, slot: int, *, routable: bool = False) -> int:
        """The instance is gone; the requests in it have failed, to be tried again or not. Gives how many."""
        if not routable:
            self.withdraw(slot)
        instance, board = self._instances[slot], self._board
        instance.begun_seconds = float(self.busy_seconds()[slot])
        lost = [attempt for attempt in instance.inside if attempt.client_waits]
        for attempt in sorted(instance.inside, key=lambda attempt: (attempt.offered, attempt.request.arrived)):
            if attempt.process is not None:
                attempt.process.interrupt(FAILED)
        instance.inside.clear()
        instance.limit, instance.dead, instance.draining = 0, True, False
        if board.position[slot] >= 0:
            board.counts[ROUTABLE] -= 1
            self._policy.gone(board, slot)
            board.counts[TOTAL] -= board.load[slot]
            board.load[slot] = 0
            board.counts[ROUTABLE] += 1
            self._policy.joined(board, slot)
        board.load[slot] = 0
        return len(lost)

    def in_flight(self, slot: int | None = None) -> int:
        """Requests waiting or in service at one instance, or in flight at all."""
        return int(self._board.load[slot]) if slot is not None else self.counts().in_flight

    def counts(self) -> Counts:
        """Requests so far."""
        completed, rejected, failed, timed_out = (
            self._count[state] for state in (COMPLETED, REJECTED, FAILED, TIMED_OUT)
        )
        in_flight = self._arrived - completed - rejected - failed - timed_out
        return Counts(self._arrived, completed, rejected, failed, timed_out, in_flight, self._retried, len(self._held))

    def busy_seconds(self) -> NDArray[np.float64]:
        """Core seconds that each instance has spent on requests until now, by slot."""
        now = self._env.now
        return np.array(
            [
                instance.begun_seconds
                - math.fsum(attempt.ends - now for attempt in instance.inside if attempt.ends is not None)
                for instance in self._instances
            ]
        )

    def inside_seconds(self) -> NDArray[np.float64]:
        """Sum over the requests of the time that they have been in each instance until now, by slot."""
        now = self._env.now
        return np.array(
            [
                instance.inside_seconds + math.fsum(now - attempt.offered for attempt in instance.inside)
                for instance in self._instances
            ]
        )

    def completed(self) -> NDArray[np.int64]:
        """Requests that each instance has answered in time, by slot."""
        return np.array([instance.completed for instance in self._instances], dtype=np.int64)


def _at(env: Environment, moment: float) -> Event:
    """A time-out that rings at `moment` exactly: SimPy adds the delay to the clock, and the sum may be off by a bit."""
    delay = max(moment - env.now, 0.0)
    while env.now + delay < moment:
        delay = math.nextafter(delay, math.inf)
    while env.now + delay > moment and delay > 0:
        delay = math.nextafter(delay, 0.0)
    return env.timeout(delay)
