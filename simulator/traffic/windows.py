"""The data plane that advances in windows, in plain Python or compiled: it holds the columns on which the loop runs.

Columns grow with the instances that there have been and with the requests in flight, never with the requests that there
have been.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from heapq import heapify
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.errors import SimulatorError
from simulator.traffic.balancing.board import BOUND, CHOICES, LOT, POLICY, RING, ROUTABLE, TOTAL, Board
from simulator.traffic.balancing.policies import POLICIES, ring_points
from simulator.traffic.columns import Columns, PlainColumns
from simulator.traffic.plane import FAILED, Counts, Notice, NoticeKind, Numbers, Outcomes, Service
from simulator.traffic.requests import (
    ABANDONED,
    ARRIVED,
    BACKED_OFF,
    BACKOFF,
    BACKOFF_CAP,
    BACKOFF_FACTOR,
    BUDGET,
    BUDGET_BURST,
    BUDGET_FRACTION,
    CAUGHT_UP,
    CHUNK_SIZE,
    CLOSED,
    DEMAND,
    DONE_COUNT,
    FAILED_COUNT,
    FILLED,
    FREE,
    HAS_NOTICE,
    HELD_COUNT,
    HELD_FIRST,
    HELD_LAST,
    HOLDING,
    IN_VAIN,
    JITTER,
    KEYS,
    LOST,
    MORE,
    NEW_REQUEST,
    NEWEST,
    NEXT,
    NOTICE,
    NOTICED_AT,
    OLDEST,
    REJECTED_COUNT,
    RETRIED,
    RETRIES,
    SERIAL,
    SHARING,
    THINK,
    TIMED_OUT_COUNT,
    TIMEOUT,
    TIMING,
    TOKENS,
    WAKES,
    WHICH,
    WORK,
    Ended,
    Instances,
    Tickets,
    expects_no_more,
)
from simulator.traffic.shares import MACHINE_BITS, STRIDE, Cores, add_thread, begin, remove_thread, touch

_FIRST_ROOM = 4096
"""Tickets that there is room for at first; doubled when it runs out."""

_LOTS_AN_EVENT = 2
"""Uniform numbers that one event uses at most, beside those that a choice compares: a key, and a retry's jitter."""


class WindowedPlane:
    """A data plane that advances in windows.

    Args:
        service: how requests are balanced, served and tried again.
        numbers: where arrivals, demands and lots come from.
        outcomes: takes what became of the requests.
        closing_seconds: after it, users of a closed loop send nothing more.
        machines: cores of each machine, where instances share them; None gives each worker a core of its own.
        compiled: whether Numba compiles the loop; it must be installed then.

    Raises:
        SimulatorError: no Numba, or a service that cannot be.
    """

    def __init__(
        self,
        service: Service,
        numbers: Numbers,
        outcomes: Outcomes,
        *,
        closing_seconds: float = math.inf,
        machines: Sequence[float] | None = None,
        compiled: bool = False,
    ) -> None:
        self._service = service
        self._policy = POLICIES[service.balancer]
        self._numbers = numbers
        self._outcomes = outcomes
        self._closing = closing_seconds
        self._sharing = service.sharing or machines is not None
        self._private_machines = machines is None
        self._now = 0.0
        self._slots = 0
        self._groups = 0
        self._free_groups: list[int] = []
        self._groups_on: list[int] = []
        self._points: list[tuple[float, int]] = []
        self._ring_is_old = False
        self._columns: Columns
        if compiled:
            from simulator.traffic.compiled import CompiledColumns

            self._columns = CompiledColumns()
        else:
            self._columns = PlainColumns()
        self._chunk = self._columns.chunk
        self._arrival_chunks = _pieces(numbers.arrivals(), self._chunk)
        self._run = self._columns.kernel(self._policy)
        self._make_columns()
        for cores in machines or ():
            self.add_machine(cores)
        self._n[MORE] = 1
        self._begin_closed_loop()

    # -- what the loop runs on

    def _make_columns(self) -> None:
        service = self._service
        self._n = self._columns.column(int, 29, 0)
        for place in (OLDEST, NEWEST, HELD_FIRST, HELD_LAST):
            self._n[place] = -1
        for place, value in (
            (SHARING, int(self._sharing)),
            (TIMING, int(math.isfinite(service.timeout_seconds))),
            (RETRIES, service.retries),
            (KEYS, service.keys if self._policy.keyed else 0),
            (CLOSED, int(service.users > 0)),
            (HOLDING, service.holding_limit),
            (WAKES, int(service.wakes)),
        ):
            self._n[place] = value
        self._x = self._columns.column(float, 9, 0.0)
        for place, number in (
            (TOKENS, service.budget_burst),
            (TIMEOUT, service.timeout_seconds),
            (BACKOFF, service.backoff_seconds),
            (BACKOFF_FACTOR, service.backoff_factor),
            (BACKOFF_CAP, service.backoff_cap_seconds),
            (JITTER, service.jitter),
            (BUDGET_FRACTION, service.budget_fraction),
            (BUDGET_BURST, service.budget_burst),
        ):
            self._x[place] = number
        integers = partial(self._columns.column, int, 0, 0)
        floats = partial(self._columns.column, float, 0, 0.0)
        self._arrivals, self._demands, self._thinks = floats(), floats(), floats()
        self._board = Board(
            slots=integers(), position=integers(), load=integers(), previous=integers(), following=integers(),
            weight=floats(), credit=floats(), cost=floats(), seen=floats(), ring=floats(), owner=integers(),
            counts=self._columns.column(int, 8, 0), settings=self._columns.column(float, 2, 0.0), lots=floats(),
        )  # fmt: skip
        self._board.counts[POLICY] = self._policy.number
        self._board.counts[CHOICES] = service.choices
        self._board.settings[0], self._board.settings[BOUND] = service.decay_seconds, service.bound
        self._tickets = Tickets(
            arrived=floats(), offered=floats(), demand=floats(), key=floats(), slot=integers(), following=integers(),
            phase=integers(), attempt=integers(), deadline=floats(), older=integers(), newer=integers(),
            spare=integers(),
        )  # fmt: skip
        self._instances = Instances(
            workers=integers(), limit=integers(), draining=integers(), dead=integers(), head=integers(),
            tail=integers(), started=floats(), slowness=floats(), group=integers(), completed=integers(),
            inside=floats(),
        )  # fmt: skip
        self._cores = Cores(
            cores=floats(), speed=floats(), used=floats(), clock=floats(), version=integers(), size=integers(),
            next_group=integers(), members=integers(), machine=integers(), weight=floats(), quota=floats(),
            threads=integers(), place=integers(), virtual=floats(), rate=floats(), root=integers(), worked=floats(),
            tag=floats(), low=integers(), high=integers(), counts=self._columns.column(int, 1, 4),
        )  # fmt: skip
        self._ended = Ended(
            self._columns.column(float, self._chunk, 0.0),
            self._columns.column(float, self._chunk, 0.0),
            self._columns.column(int, self._chunk, 0),
        )
        self._departures: Any = self._columns.heap([(math.inf, -1)])
        self._timers: Any = self._columns.heap([(math.inf, -1, NEW_REQUEST)])
        self._room_for_tickets(_FIRST_ROOM)

    def _widen(self, columns: Any, names: Sequence[str], count: int, values: Sequence[float]) -> Any:
        """A named tuple of columns with room for `count` in those named, which are equally long."""
        if count <= len(getattr(columns, names[0])):
            return columns
        return columns._replace(
            **{
                name: self._columns.longer(getattr(columns, name), count, value)
                for name, value in zip(names, values, strict=True)
            }
        )

    def _room_for_tickets(self, count: int) -> None:
        before, free = len(self._tickets.slot), int(self._n[FREE])
        self._tickets = self._widen(self._tickets, Tickets._fields, count, [0] * len(Tickets._fields))
        self._cores = self._widen(self._cores, ("tag", "low", "high"), count, (0.0, -1, -1))
        self._tickets.spare[free : free + count - before] = range(before, count)
        self._n[FREE] = free + count - before
        self._room_for_rings()

    def _room_for_rings(self) -> None:
        """Rings of slots: a node for each slot, and an anchor for each load that there can be."""
        before = len(self._board.previous)
        count = 2 * (max(len(self._board.load), len(self._tickets.slot) + 2) + 1)
        if count > before:
            self._board = self._widen(self._board, ("previous", "following"), count, (-1, -1))
            self._board.previous[before:] = self._board.following[before:] = range(before, count)

    def _begin_closed_loop(self) -> None:
        """Each user thinks first."""
        users = self._service.users
        if users:
            thinks = sorted(self._numbers.thinks(users).tolist())
            entries = [(think, turn, NEW_REQUEST) for turn, think in enumerate(thinks)]
            self._n[SERIAL] = users
            self._timers = self._columns.heap([*entries, (math.inf, -1, NEW_REQUEST)])

    # -- time goes on

    def advance(self, now: float) -> Notice | None:
        """Run the window from the last call to `now`, seconds, or to the first notice.

        Raises:
            SimulatorError: `now` lies before the last call's.
        """
        if now < self._now:
            raise SimulatorError(f"data plane: time cannot run back from {self._now} to {now}")
        # "Until all are done" is a moment before that of the sentinels in the heaps.
        until = min(float(now), np.finfo(np.float64).max.item())
        if self._ring_is_old:
            self._make_ring()
        while True:
            why = self._run(
                until, self._closing, self._n, self._x, self._arrivals, self._demands, self._thinks,
                self._departures, self._timers, self._tickets, self._instances, self._board, self._cores, self._ended,
            )  # fmt: skip
            if why == CAUGHT_UP:
                self._now = max(now, self._now) if now < math.inf else self._now
                return None
            if why == HAS_NOTICE:
                self._now = float(self._x[NOTICED_AT])
                return Notice(NoticeKind(int(self._n[NOTICE])), self._now, int(self._n[WHICH]))
            self._replenish()

    def _replenish(self) -> None:
        """Enough of everything for the next events, and for how many that surely is."""
        n, board = self._n, self._board
        enough = self._chunk // 8
        if n[FILLED] > self._chunk - enough:
            self.hand_over()
        if n[NEXT] == n[CHUNK_SIZE] and n[MORE]:
            chunk = next(self._arrival_chunks, None)
            n[NEXT] = 0
            n[CHUNK_SIZE] = 0 if chunk is None else len(chunk)
            n[MORE] = int(chunk is not None)
            self._arrivals = self._arrivals if chunk is None else self._columns.values(chunk)
        self._demands = self._refill(self._demands, DEMAND, self._numbers.demands, enough)
        limits = [self._chunk - int(n[FILLED]), len(self._demands) - int(n[DEMAND])]
        if self._service.users:
            self._thinks = self._refill(self._thinks, THINK, self._numbers.thinks, enough)
            limits.append(len(self._thinks) - int(n[THINK]))
        if len(board.lots) - board.counts[LOT] < enough:
            lots = self._columns.refilled(board.lots, int(board.counts[LOT]), self._numbers.lots(self._chunk))
            self._board = board._replace(lots=lots)
            board.counts[LOT] = 0
        lots_an_event = max(self._service.choices, 2) + _LOTS_AN_EVENT
        limits.append((len(self._board.lots) - int(board.counts[LOT])) // lots_an_event)
        if 4 * n[FREE] < len(self._tickets.slot):
            self._room_for_tickets(2 * len(self._tickets.slot))
        limits.append(int(n[FREE]))
        self._departures, room = self._columns.with_room(self._departures)
        self._timers, other_room = self._columns.with_room(self._timers)
        limits.append(int(min(room, other_room, 2 * self._chunk)) // 2)
        n[BUDGET] = min(limits)

    def _refill(self, column: Any, place: int, source: Callable[[int], NDArray[np.float64]], enough: int) -> Any:
        """The column with more numbers behind those not used yet, if these are few."""
        used = int(self._n[place])
        if len(column) - used >= enough:
            return column
        self._n[place] = 0
        return self._columns.refilled(column, used, source(self._chunk))

    def hand_over(self) -> None:
        """Give the outcomes what has ended since the last time."""
        count = int(self._n[FILLED])
        if count:
            self._outcomes.record(
                self._columns.first(self._ended.arrived, count, np.float64),
                self._columns.first(self._ended.seconds, count, np.float64),
                self._columns.first(self._ended.state, count, np.int8),
            )
            self._n[FILLED] = 0

    # -- the set of instances changes

    def add_machine(self, cores: float, speed: float = 1.0) -> int:
        """A machine whose cores instances share; gives its number.

        Raises:
            SimulatorError: more machines than there can be.
        """
        machine = len(self._groups_on)
        if machine >= 1 << MACHINE_BITS:
            raise SimulatorError(f"{machine} machines: no more than {1 << MACHINE_BITS} can share cores in one run")
        names = ("cores", "speed", "used", "clock", "version", "size", "next_group")
        room = _doubled(machine + 1, len(self._cores.cores))
        self._cores = self._widen(self._cores, names, room, (0.0, 1.0, 0.0, 0.0, 0, 0, -1))
        self._cores.cores[machine], self._cores.speed[machine] = cores, speed
        self._cores.clock[machine] = self._now
        self._groups_on.append(0)
        self._room_for_members(int(self._cores.counts[STRIDE]))
        return machine

    def set_speed(self, machine: int, speed: float) -> None:
        """The machine's cores run at `speed` from now on (1 = as the demands mean it)."""
        touch(self._cores, machine, self._now)
        self._cores.speed[machine] = speed
        self._columns.settle(self._cores, machine, self._now, self._departures)

    def begin_work(self, machine: int, cpu_seconds: float, weight: float = 1.0, quota: float = math.inf) -> int:
        """Work on the machine's cores that is no request, as of a start-up; a notice comes when it is done.

        Args:
            machine: which.
            cpu_seconds: of one thread, above 0.
            weight, quota: of its group.

        Returns:
            Its number, for `cancel_work` and for the notice.
        """
        if not self._n[FREE]:
            self._room_for_tickets(2 * len(self._tickets.slot))
        self._n[FREE] -= 1
        piece = int(self._tickets.spare[self._n[FREE]])
        # The loop must not count on a row that it no longer has.
        self._n[BUDGET] = 0
        group = self._add_group(machine, weight, quota)
        self._tickets.phase[piece], self._tickets.slot[piece] = WORK, group
        touch(self._cores, machine, self._now)
        begin(self._cores, group, piece, cpu_seconds)
        self._columns.settle(self._cores, machine, self._now, self._departures)
        return piece

    def end_work(self, piece: int) -> None:
        """Take up the news that the work is done: its number may be used again."""
        self._free_groups.append(int(self._tickets.slot[piece]))
        self._groups_on[int(self._cores.machine[self._tickets.slot[piece]])] -= 1
        self._release(piece)

    def cancel_work(self, piece: int) -> None:
        """Take unfinished work off the cores; the others speed up at once."""
        group = int(self._tickets.slot[piece])
        machine = int(self._cores.machine[group])
        touch(self._cores, machine, self._now)
        self._cores.root[group] = -1
        remove_thread(self._cores, group)
        self._columns.settle(self._cores, machine, self._now, self._departures)
        self.end_work(piece)

    def add_neighbour(self, machine: int, threads: int, weight: float = 1.0, quota: float = math.inf) -> int:
        """Threads that always want to run on `machine`; gives their group, for `remove_neighbour`."""
        group = self._add_group(machine, weight, quota)
        touch(self._cores, machine, self._now)
        for _ in range(threads):
            add_thread(self._cores, group)
        self._columns.settle(self._cores, machine, self._now, self._departures)
        return group

    def remove_neighbour(self, group: int) -> None:
        """The threads stop."""
        machine = int(self._cores.machine[group])
        touch(self._cores, machine, self._now)
        while self._cores.threads[group]:
            remove_thread(self._cores, group)
        self._columns.settle(self._cores, machine, self._now, self._departures)
        self._free_groups.append(group)
        self._groups_on[machine] -= 1

    def _add_group(self, machine: int, weight: float, quota: float) -> int:
        """A group of threads on `machine` that has none yet."""
        if self._free_groups:
            group = self._free_groups.pop()
        else:
            group, self._groups = self._groups, self._groups + 1
            names = ("machine", "weight", "quota", "threads", "place", "virtual", "rate", "root", "worked")
            room = _doubled(group + 1, len(self._cores.machine))
            self._cores = self._widen(self._cores, names, room, (0, 1.0, math.inf, 0, -1, 0.0, 0.0, -1, 0.0))
        cores = self._cores
        cores.machine[group], cores.weight[group], cores.quota[group] = machine, weight, quota
        cores.threads[group], cores.place[group], cores.root[group] = 0, -1, -1
        cores.virtual[group] = cores.rate[group] = cores.worked[group] = 0.0
        self._groups_on[machine] += 1
        if self._groups_on[machine] > cores.counts[STRIDE]:
            self._room_for_members(2 * int(cores.counts[STRIDE]))
        return group

    def _room_for_members(self, stride: int) -> None:
        """Room for `stride` groups on each machine, those that are there at their new places."""
        cores, before = self._cores, int(self._cores.counts[STRIDE])
        machines = len(cores.cores)
        if stride == before:
            self._cores = self._widen(cores, ("members",), machines * stride, (-1,))
            return
        members = self._columns.column(int, machines * stride, -1)
        for machine in range(machines):
            for turn in range(int(cores.size[machine])):
                group = cores.members[machine * before + turn]
                members[machine * stride + turn] = group
                cores.place[group] = machine * stride + turn
        self._cores = cores._replace(members=members)
        self._cores.counts[STRIDE] = stride

    def add(self, weight: float = 1.0, machine: int = 0, cpu_weight: float = 1.0, quota: float = math.inf) -> int:
        """A new instance takes requests from now on; gives its slot.

        Args:
            weight: its share of the requests, where the balancer weighs.
            machine: on whose cores it runs, where instances share them.
            cpu_weight, quota: its share of them, and the most that it may use.
        """
        service, slot = self._service, self._slots
        self._slots += 1
        room = _doubled(slot + 1, len(self._board.load))
        names = ("slots", "position", "load", "weight", "credit", "cost", "seen")
        self._board = self._widen(self._board, names, room, (0, -1, 0, 1.0, 0.0, 0.0, 0.0))
        self._instances = self._widen(
            self._instances, Instances._fields, room, (0, 0, 0, 0, -1, -1, 0.0, 1.0, -1, 0, 0.0)
        )
        self._room_for_rings()
        instances = self._instances
        instances.limit[slot] = service.limit
        instances.workers[slot] = service.limit if service.sharing else service.workers
        if self._sharing:
            if self._private_machines:
                machine = self.add_machine(service.workers)
            if service.sharing:
                quota = min(quota, float(service.workers))
            instances.group[slot] = self._add_group(machine, cpu_weight, quota)
        self._board.weight[slot] = weight
        self._board.seen[slot] = self._now
        self._route(slot)
        self._offer_held()
        return slot

    def _route(self, slot: int) -> None:
        board = self._board
        place = int(board.counts[ROUTABLE])
        board.slots[place], board.position[slot] = slot, place
        board.counts[ROUTABLE] = place + 1
        board.counts[TOTAL] += board.load[slot]
        self._policy.joined(board, slot)
        if self._policy.keyed:
            self._points += ring_points(slot)
            self._ring_is_old = True

    def withdraw(self, slot: int) -> None:
        """The balancer does not see the instance any more."""
        board = self._board
        place = int(board.position[slot])
        if place < 0:
            return
        self._columns.close_gap(board.slots, board.position, place, int(board.counts[ROUTABLE]))
        board.counts[ROUTABLE] -= 1
        board.counts[TOTAL] -= board.load[slot]
        board.position[slot] = -1
        self._policy.gone(board, slot)
        if self._policy.keyed:
            self._ring_is_old = True

    def _make_ring(self) -> None:
        """The hash ring of those who are routable now; made once for all who came and went at one moment."""
        position = self._board.position
        self._points = sorted(point for point in self._points if position[point[1]] >= 0)
        owners = self._columns.column(int, len(self._points), 0)
        owners[:] = [slot for _, slot in self._points]
        ring = self._columns.values(point for point, _ in self._points)
        self._board = self._board._replace(ring=ring, owner=owners)
        self._board.counts[RING] = len(self._points)
        self._ring_is_old = False

    def _offer_held(self) -> None:
        """Whatever waited for an instance is offered to the one that has come, first come first."""
        n, tickets = self._n, self._tickets
        if n[HELD_FIRST] < 0:
            return
        entries = self._columns.entries(self._timers)
        ticket = int(n[HELD_FIRST])
        while ticket >= 0:
            following = int(tickets.following[ticket])
            if tickets.phase[ticket] == ABANDONED:
                self._release(ticket)
            else:
                if n[TIMING]:
                    expects_no_more(tickets, n, ticket)
                tickets.phase[ticket] = BACKED_OFF
                entries.append((self._now, int(n[SERIAL]), ticket))
                n[SERIAL] += 1
            ticket = following
        n[HELD_FIRST] = n[HELD_LAST] = -1
        n[HELD_COUNT] = 0
        heapify(entries)
        self._timers = self._columns.heap(entries)
        # A new heap may have less room than the loop counts on.
        n[BUDGET] = 0

    def fail_held(self, now: float) -> None:
        """What waits for an instance at `now` fails: none will come any more."""
        n, tickets = self._n, self._tickets
        ticket = int(n[HELD_FIRST])
        n[HELD_FIRST] = n[HELD_LAST] = -1
        n[HELD_COUNT] = 0
        # The loop must not count on room for outcomes that is taken here.
        n[BUDGET] = 0
        while ticket >= 0:
            following = int(tickets.following[ticket])
            if tickets.phase[ticket] != ABANDONED:
                if n[FILLED] == self._columns.chunk:
                    self.hand_over()
                row = int(n[FILLED])
                self._ended.arrived[row] = tickets.arrived[ticket]
                self._ended.seconds[row] = now - tickets.arrived[ticket]
                self._ended.state[row] = FAILED
                n[FILLED] += 1
                n[FAILED_COUNT] += 1
                if n[TIMING]:
                    expects_no_more(tickets, n, ticket)
            self._release(ticket)
            ticket = following

    def drain(self, slot: int) -> bool:
        """The instance gets no more requests but finishes those it has; whether it has none now. A notice follows."""
        self.withdraw(slot)
        self._instances.draining[slot] = 1
        return not self._board.load[slot]

    def kill(self, slot: int, *, routable: bool = False) -> int:
        """The instance is gone, and with it the requests in it; gives how many were lost, to be tried again or not.

        Args:
            slot: which.
            routable: whether the balancer has yet to learn of it (`withdraw`); what it sends there meanwhile fails.
        """
        if not routable:
            self.withdraw(slot)
        instances, tickets, n = self._instances, self._tickets, self._n
        instances.started[slot] = float(self.busy_seconds()[slot])
        served = self._take_served(slot)
        waiting = self._waiting(slot)
        lost = []
        for ticket in (*served, *waiting):
            if tickets.phase[ticket] in (ABANDONED, IN_VAIN):
                self._release(ticket)
            else:
                lost.append(ticket)
        # Several can have come here at one moment, when an instance was found for those that waited for one.
        lost.sort(key=lambda ticket: (tickets.offered[ticket], tickets.arrived[ticket]))
        entries = self._columns.entries(self._timers)
        for ticket in lost:
            if n[TIMING]:
                expects_no_more(tickets, n, ticket)
            instances.inside[slot] += self._now - tickets.offered[ticket]
            tickets.phase[ticket] = LOST
            entries.append((self._now, int(n[SERIAL]), ticket))
            n[SERIAL] += 1
        heapify(entries)
        self._timers = self._columns.heap(entries)
        # A new heap may have less room than the loop counts on.
        n[BUDGET] = 0
        self._empty(slot)
        instances.limit[slot], instances.dead[slot], instances.draining[slot] = 0, 1, 0
        instances.head[slot] = -1
        return len(lost)

    def _empty(self, slot: int) -> None:
        """No request is at the instance any more."""
        board = self._board
        if board.position[slot] >= 0:
            # It goes and comes back, as an instance without load: a policy looks at the others meanwhile.
            board.counts[ROUTABLE] -= 1
            self._policy.gone(board, slot)
            board.counts[TOTAL] -= board.load[slot]
            board.load[slot] = 0
            board.counts[ROUTABLE] += 1
            self._policy.joined(board, slot)
        board.load[slot] = 0

    def _waiting(self, slot: int) -> list[int]:
        """Tickets in the instance's queue, the abandoned among them."""
        waiting, ticket = [], int(self._instances.head[slot])
        while ticket >= 0:
            waiting.append(ticket)
            ticket = int(self._tickets.following[ticket])
        return waiting

    def _take_served(self, slot: int) -> list[int]:
        """Take what is in service at the instance off the cores."""
        if not self._sharing:
            slots = self._tickets.slot
            entries = self._columns.entries(self._departures)
            served = [int(ticket) for *_, ticket in entries if ticket >= 0 and slots[ticket] == slot]
            kept = [entry for entry in entries if entry[-1] < 0 or slots[int(entry[-1])] != slot]
            heapify(kept)
            self._departures = self._columns.heap(kept)
            return served
        cores, group = self._cores, int(self._instances.group[slot])
        machine = int(cores.machine[group])
        touch(cores, machine, self._now)
        served = self._on_shared_cores(slot)
        for _ in served:
            remove_thread(cores, group)
        cores.root[group] = -1
        self._columns.settle(cores, machine, self._now, self._departures)
        return served

    def _release(self, ticket: int) -> None:
        """Nobody holds the ticket any more."""
        self._tickets.spare[self._n[FREE]] = ticket
        self._n[FREE] += 1

    # -- what the control plane asks

    def in_flight(self, slot: int | None = None) -> int:
        """Requests waiting or in service at one instance, or in flight at all."""
        return int(self._board.load[slot]) if slot is not None else self.counts().in_flight

    def counts(self) -> Counts:
        """Requests so far."""
        n = self._n
        arrived, completed, rejected, failed, timed_out, retried, held = (
            int(n[place])
            for place in (
                ARRIVED, DONE_COUNT, REJECTED_COUNT, FAILED_COUNT, TIMED_OUT_COUNT, RETRIED, HELD_COUNT,
            )
        )  # fmt: skip
        in_flight = arrived - completed - rejected - failed - timed_out
        return Counts(arrived, completed, rejected, failed, timed_out, in_flight, retried, held)

    def busy_seconds(self) -> NDArray[np.float64]:
        """Core seconds that each instance has spent on requests until now, by slot."""
        count = self._slots
        if self._sharing:
            cores = self._cores
            groups = np.array(self._instances.group[:count], dtype=np.int64)
            machines = np.array(cores.machine, dtype=np.int64)[groups]
            elapsed = np.maximum(self._now - np.array(cores.clock, dtype=np.float64)[machines], 0.0)
            threads, rate, worked = (
                np.array(column, dtype=np.float64)[groups] for column in (cores.threads, cores.rate, cores.worked)
            )
            speed = np.array(cores.speed, dtype=np.float64)[machines]
            used: NDArray[np.float64] = worked + threads * np.where(threads > 0, rate, 0.0) * elapsed / speed
            return used
        seconds = np.array(self._instances.started[:count], dtype=np.float64)
        still_to_do: defaultdict[int, list[float]] = defaultdict(list)
        for time, *_, ticket in self._columns.entries(self._departures):
            if ticket >= 0:
                still_to_do[int(self._tickets.slot[ticket])].append(time - self._now)
        for slot, parts in still_to_do.items():
            # A sum that does not depend on the order, so that every data plane has the same.
            seconds[slot] -= math.fsum(parts)
        return seconds

    def used_core_seconds(self, machine: int) -> float:
        """Core seconds that requests, other work and neighbours have used on a machine until now."""
        touch(self._cores, machine, self._now)
        return float(self._cores.used[machine])

    def inside_seconds(self) -> NDArray[np.float64]:
        """Sum over the requests of the time that they have been in each instance until now, by slot."""
        seconds = np.array(self._instances.inside[: self._slots], dtype=np.float64)
        parts: defaultdict[int, list[float]] = defaultdict(list)
        for slot in np.flatnonzero(np.array(self._board.load[: self._slots])).tolist():
            waiting = (ticket for ticket in self._waiting(slot) if self._tickets.phase[ticket] != ABANDONED)
            for ticket in (*waiting, *(self._on_shared_cores(slot) if self._sharing else ())):
                parts[slot].append(self._now - self._tickets.offered[ticket])
        if not self._sharing:
            for *_, ticket in self._columns.entries(self._departures):
                if ticket >= 0:
                    parts[int(self._tickets.slot[ticket])].append(self._now - self._tickets.offered[ticket])
        for slot, each in parts.items():
            seconds[slot] += math.fsum(each)
        return seconds

    def _on_shared_cores(self, slot: int) -> list[int]:
        """Tickets in service at the instance, in the order of its heap."""
        found, nodes = [], [int(self._cores.root[self._instances.group[slot]])]
        while nodes:
            piece = nodes.pop()
            if piece >= 0:
                found.append(piece)
                nodes += [int(self._cores.low[piece]), int(self._cores.high[piece])]
        return found

    def completed(self) -> NDArray[np.int64]:
        """Requests that each instance has answered in time, by slot."""
        return np.array(self._instances.completed[: self._slots], dtype=np.int64)


def _pieces(chunks: Iterator[NDArray[np.float64]], most: int) -> Iterator[NDArray[np.float64]]:
    """The same numbers, at most so many at a time."""
    for chunk in chunks:
        for first in range(0, len(chunk), most):
            yield chunk[first : first + most]


def _doubled(wanted: int, present: int) -> int:
    """Room for `wanted` rows: twice what there is, if that is not enough."""
    return present if wanted <= present else max(wanted, 2 * present, 8)
