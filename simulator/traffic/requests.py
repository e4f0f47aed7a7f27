"""The hot path: every request, advanced in one call between two control events.

SimPy keeps the clock and the control plane. Whatever changes the set of instances first lets the requests catch up, in
one call of the loop below over arrivals that were drawn a chunk at a time. The loop is plain Python over lists, and
Numba compiles the same loop over arrays where it is installed (`simulator.traffic.compiled`), with identical results.
`simulator.traffic.processes` is the same service as one SimPy process per request: slow, to read first.

A request in flight holds a *ticket*, a row of the columns in `Tickets`, which is used again after it: memory grows with
what is in flight and not with what has been.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, NamedTuple

from simulator.traffic.balancing.board import ROUTABLE, TOTAL, Board, next_lot
from simulator.traffic.plane import COMPLETED, FAILED, REJECTED, TIMED_OUT, NoticeKind
from simulator.traffic.shares import Cores, begin, finish, settle, touch

INSIDE, SERVED, ABANDONED, IN_VAIN, BACKED_OFF, HELD, LOST, WORK = range(8)
"""What a ticket stands for. The first two are told apart only where clients time out: a request at an instance, and one
in service. Then one that has left the queue but not yet its list, one that is served though its client has gone, one
that waits for its next attempt, one that waits for any instance, one whose instance was killed; and work that is no
request (a start-up)."""

NEW_REQUEST = -1
"""In the timers, in place of a ticket: a user of a closed loop has thought enough."""

(
    NEXT, CHUNK_SIZE, MORE, DEMAND, THINK, FILLED, FREE, BUDGET, SERIAL, OLDEST, NEWEST,
    HELD_FIRST, HELD_LAST, HELD_COUNT,
    ARRIVED, DONE_COUNT, REJECTED_COUNT, FAILED_COUNT, TIMED_OUT_COUNT, RETRIED, NOTICE, WHICH,
    SHARING, TIMING, RETRIES, KEYS, CLOSED, HOLDING, WAKES,
) = range(29)  # fmt: skip
"""Places in the state's integers. The first eight are positions in chunks and what is left of them: BUDGET is for how
many events there surely is enough of everything. The last seven are the service's settings."""

TOKENS, NOTICED_AT, TIMEOUT, BACKOFF, BACKOFF_FACTOR, BACKOFF_CAP, JITTER, BUDGET_FRACTION, BUDGET_BURST = range(9)
"""Places in the state's floats: saved-up retries, when the last notice was, and the service's settings."""

_DRAINED, _WORK_DONE, _ARRIVED_AT_NONE = (int(kind) for kind in NoticeKind)

CAUGHT_UP, WANTS_MORE, HAS_NOTICE = range(3)
"""Why the loop returned: all has happened until then; a chunk has run out; the control plane must know something."""


class Tickets(NamedTuple):
    """Requests in flight, by ticket.

    Attributes:
        arrived, offered: when it first arrived, and when this attempt began, seconds.
        demand: seconds of one core.
        key: in [0, 1), for a balancer that hashes.
        slot: the instance that it was given to.
        following: behind it in its instance's queue or in the list of those held; or -1.
        spare: a stack of the tickets that nobody holds, of height FREE.
        phase: see INSIDE and those beside it.
        attempt: how often it was tried before.
        deadline, older, newer: when its client gives up, and the list of all that may, in order.
    """

    arrived: Any
    offered: Any
    demand: Any
    key: Any
    slot: Any
    following: Any
    phase: Any
    attempt: Any
    deadline: Any
    older: Any
    newer: Any
    spare: Any


class Instances(NamedTuple):
    """Instances, by slot.

    Attributes:
        workers, limit: requests in service, and in the instance altogether, at most. A dead one has a limit of 0.
        draining: 1 if it gets no more requests and tells when it has none.
        dead: 1 if it was killed.
        head, tail: the first and last ticket in its queue; head is -1 when none waits.
        started: core seconds of the requests whose service has begun.
        slowness: time that a core second takes.
        group: its group on shared cores.
        completed: requests answered in time.
        inside: sum of the times that requests which have left it were in it, less the times at which they came.
    """

    workers: Any
    limit: Any
    draining: Any
    dead: Any
    head: Any
    tail: Any
    started: Any
    slowness: Any
    group: Any
    completed: Any
    inside: Any


class Ended(NamedTuple):
    """Requests that have ended, until they are handed over: when they arrived, how long they took, and as what."""

    arrived: Any
    seconds: Any
    state: Any


Choose = Callable[[Board, float, float], int]
Took = Callable[[Board, int, float], None]
Left = Callable[[Board, int, float, float], None]


def expects(tickets: Tickets, n: Any, ticket: int, deadline: float) -> None:
    """The client of `ticket` gives up at `deadline`. All wait equally long, so it is the last to."""
    tickets.deadline[ticket] = deadline
    last = n[NEWEST]
    tickets.older[ticket] = last
    tickets.newer[ticket] = -1
    if last >= 0:
        tickets.newer[last] = ticket
    else:
        n[OLDEST] = ticket
    n[NEWEST] = ticket


def expects_no_more(tickets: Tickets, n: Any, ticket: int) -> None:
    """The client of `ticket` has its answer, or none will come."""
    before, after = tickets.older[ticket], tickets.newer[ticket]
    if before >= 0:
        tickets.newer[before] = after
    else:
        n[OLDEST] = after
    if after >= 0:
        tickets.older[after] = before
    else:
        n[NEWEST] = before


def make_kernel(choose: Choose, took: Took, left: Left) -> Callable[..., int]:
    """The loop over the requests of one window, for one balancer.

    A closure rather than parameters, because Numba compiles what a closure holds into the loop.
    """

    def run_window(
        now: float, closing: float, n: Any, x: Any, arrivals: Any, demands: Any, thinks: Any,
        departures: Any, timers: Any, tickets: Tickets, instances: Instances, board: Board, cores: Cores, ended: Ended,
    ) -> int:  # fmt: skip
        """All that happens until `now` happens; gives why it returned.

        Args:
            now: seconds.
            closing: after it, users of a closed loop send nothing more.
            n, x: the state's integers and floats, see the constants of this module.
            arrivals, demands, thinks: chunks of what was drawn.
            departures: heap of (time, ticket), or on shared cores (time, code of `shares`), with (inf, -1) in it so
                that it is never empty.
            timers: heap of (time, serial number, ticket or NEW_REQUEST), with one at inf as well.
        """
        arrived, offered, demand, slot_of = tickets.arrived, tickets.offered, tickets.demand, tickets.slot
        following, phase, spare = tickets.following, tickets.phase, tickets.spare
        load, head, tail, started, slowness = (
            board.load, instances.head, instances.tail, instances.started, instances.slowness,
        )  # fmt: skip
        limit, workers, draining, counts = instances.limit, instances.workers, instances.draining, board.counts
        completed, inside, position = instances.completed, instances.inside, board.position
        key, attempt = tickets.key, tickets.attempt
        ended_arrived, ended_seconds, ended_state = ended.arrived, ended.seconds, ended.state
        sharing, timing, closed, keys, retries = n[SHARING], n[TIMING], n[CLOSED], n[KEYS], n[RETRIES]
        upcoming, chunk_size, budget, filled, free = n[NEXT], n[CHUNK_SIZE], n[BUDGET], n[FILLED], n[FREE]
        drawn, newcomers, answered, routable = n[DEMAND], n[ARRIVED], n[DONE_COUNT], counts[ROUTABLE]
        endless = float("inf")
        arrival = arrivals[upcoming] if upcoming < chunk_size else endless
        expiry = tickets.deadline[n[OLDEST]] if n[OLDEST] >= 0 else endless
        why = CAUGHT_UP
        while True:
            if budget <= 0:
                why = WANTS_MORE
                break
            budget -= 1
            time = departures[0][0]
            rung = timers[0][0]
            if time <= arrival and time <= rung and time <= expiry:
                # Something ends at an instance.
                if time > now:
                    break
                code = heappop(departures)[1]
                ticket = finish(cores, code, time) if sharing else code
                if ticket < 0:
                    continue
                if phase[ticket] == WORK:
                    settle(cores, cores.machine[slot_of[ticket]], time, departures)
                    n[NOTICE], n[WHICH], x[NOTICED_AT] = _WORK_DONE, ticket, time
                    why = HAS_NOTICE
                    break
                slot = slot_of[ticket]
                load[slot] -= 1
                if keys and position[slot] >= 0:
                    counts[TOTAL] -= 1
                waiting = head[slot]
                if waiting >= 0:
                    while timing and waiting >= 0 and phase[waiting] == ABANDONED:
                        # Its client went while it waited.
                        gone = waiting
                        waiting = following[gone]
                        spare[free] = gone
                        free += 1
                    head[slot] = waiting
                    if waiting >= 0:
                        head[slot] = following[waiting]
                        if timing:
                            phase[waiting] = SERVED
                        if sharing:
                            begin(cores, instances.group[slot], waiting, demand[waiting])
                        else:
                            seconds = demand[waiting] * slowness[slot]
                            started[slot] += seconds
                            heappush(departures, (time + seconds, waiting))
                if sharing:
                    settle(cores, cores.machine[instances.group[slot]], time, departures)
                seconds = time - offered[ticket]
                left(board, slot, time, seconds)
                inside[slot] += seconds
                if draining[slot] and load[slot] == 0:
                    n[NOTICE], n[WHICH], x[NOTICED_AT] = _DRAINED, slot, time
                    why = HAS_NOTICE
                if phase[ticket] != IN_VAIN:
                    completed[slot] += 1
                    answered += 1
                    ended_arrived[filled] = arrived[ticket]
                    ended_seconds[filled] = time - arrived[ticket]
                    ended_state[filled] = COMPLETED
                    filled += 1
                    if timing:
                        expects_no_more(tickets, n, ticket)
                        expiry = tickets.deadline[n[OLDEST]] if n[OLDEST] >= 0 else endless
                    if closed and time < closing:
                        heappush(timers, (time + thinks[n[THINK]], n[SERIAL], NEW_REQUEST))
                        n[SERIAL] += 1
                        n[THINK] += 1
                spare[free] = ticket
                free += 1
                if why == HAS_NOTICE:
                    break
                continue
            outcome = 0
            if rung <= arrival and rung <= expiry:
                # A new request of a closed loop, another attempt, or a request whose instance was killed.
                if rung > now:
                    break
                time = rung
                ticket = heappop(timers)[2]
                if ticket >= 0:
                    if phase[ticket] == LOST:
                        outcome = FAILED
                elif time >= closing:
                    continue
            elif expiry <= arrival:
                # A client gives up.
                if expiry > now:
                    break
                time = expiry
                gone = n[OLDEST]
                expects_no_more(tickets, n, gone)
                expiry = tickets.deadline[n[OLDEST]] if n[OLDEST] >= 0 else endless
                outcome = TIMED_OUT
                ticket = gone
                if phase[gone] == HELD:
                    # Only the control plane's view of the list knows its place; it is skipped there.
                    phase[gone] = ABANDONED
                    n[HELD_COUNT] -= 1
                elif phase[gone] == SERVED:
                    phase[gone] = IN_VAIN
                else:
                    phase[gone] = ABANDONED
                    slot = slot_of[gone]
                    load[slot] -= 1
                    if keys and position[slot] >= 0:
                        counts[TOTAL] -= 1
                    left(board, slot, time, time - offered[gone])
                    inside[slot] += time - offered[gone]
                    if draining[slot] and load[slot] == 0:
                        n[NOTICE], n[WHICH], x[NOTICED_AT] = _DRAINED, slot, time
                        why = HAS_NOTICE
                # The row stays where it is until the instance has done with it, so what goes on needs another.
                free -= 1
                ticket = spare[free]
                arrived[ticket] = arrived[gone]
                demand[ticket] = demand[gone]
                key[ticket] = key[gone]
                attempt[ticket] = attempt[gone]
            else:
                if arrival > now:
                    break
                time = arrival
                ticket = NEW_REQUEST
                upcoming += 1
                if upcoming < chunk_size:
                    arrival = arrivals[upcoming]
                else:
                    arrival = endless
                    if n[MORE]:
                        budget = 0
            if ticket == NEW_REQUEST:
                free -= 1
                ticket = spare[free]
                arrived[ticket] = time
                demand[ticket] = demands[drawn]
                drawn += 1
                newcomers += 1
                if keys:
                    key[ticket] = (int(next_lot(board) * keys) + 0.5) / keys
                if retries:
                    attempt[ticket] = 0
                    x[TOKENS] = min(x[TOKENS] + x[BUDGET_FRACTION], x[BUDGET_BURST])
            if outcome == 0:
                offered[ticket] = time
                if routable == 0:
                    if n[HELD_COUNT] < n[HOLDING]:
                        phase[ticket] = HELD
                        following[ticket] = -1
                        if n[HELD_FIRST] < 0:
                            n[HELD_FIRST] = ticket
                        else:
                            following[n[HELD_LAST]] = ticket
                        n[HELD_LAST] = ticket
                        n[HELD_COUNT] += 1
                        if timing:
                            expects(tickets, n, ticket, time + x[TIMEOUT])
                            expiry = tickets.deadline[n[OLDEST]]
                        n[NOTICE], n[WHICH], x[NOTICED_AT] = _ARRIVED_AT_NONE, -1, time
                        why = HAS_NOTICE
                        break
                    outcome = REJECTED
                    if n[WAKES]:
                        n[NOTICE], n[WHICH], x[NOTICED_AT] = _ARRIVED_AT_NONE, -1, time
                        why = HAS_NOTICE
                else:
                    slot = choose(board, key[ticket], time)
                    present = load[slot]
                    if present < limit[slot]:
                        slot_of[ticket] = slot
                        load[slot] = present + 1
                        if keys:
                            counts[TOTAL] += 1
                        took(board, slot, time)
                        phase[ticket] = SERVED if present < workers[slot] else INSIDE
                        if timing:
                            expects(tickets, n, ticket, time + x[TIMEOUT])
                            expiry = tickets.deadline[n[OLDEST]]
                        if present < workers[slot]:
                            if sharing:
                                group = instances.group[slot]
                                touch(cores, cores.machine[group], time)
                                begin(cores, group, ticket, demand[ticket])
                                settle(cores, cores.machine[group], time, departures)
                            else:
                                seconds = demand[ticket] * slowness[slot]
                                started[slot] += seconds
                                heappush(departures, (time + seconds, ticket))
                        else:
                            following[ticket] = -1
                            if head[slot] < 0:
                                head[slot] = ticket
                            else:
                                following[tail[slot]] = ticket
                            tail[slot] = ticket
                        continue
                    outcome = FAILED if instances.dead[slot] else REJECTED
            # This attempt has failed. Another one, or the end.
            if retries and attempt[ticket] < retries and x[TOKENS] >= 1.0:
                x[TOKENS] -= 1.0
                wait = x[BACKOFF]
                for _ in range(attempt[ticket]):
                    wait *= x[BACKOFF_FACTOR]
                wait = min(wait, x[BACKOFF_CAP]) * (1.0 - x[JITTER] * next_lot(board))
                attempt[ticket] += 1
                n[RETRIED] += 1
                phase[ticket] = BACKED_OFF
                heappush(timers, (time + wait, n[SERIAL], ticket))
                n[SERIAL] += 1
            else:
                if outcome == REJECTED:
                    n[REJECTED_COUNT] += 1
                elif outcome == FAILED:
                    n[FAILED_COUNT] += 1
                else:
                    n[TIMED_OUT_COUNT] += 1
                ended_arrived[filled] = arrived[ticket]
                ended_seconds[filled] = time - arrived[ticket]
                ended_state[filled] = outcome
                filled += 1
                spare[free] = ticket
                free += 1
                if closed and time < closing:
                    heappush(timers, (time + thinks[n[THINK]], n[SERIAL], NEW_REQUEST))
                    n[SERIAL] += 1
                    n[THINK] += 1
            if why == HAS_NOTICE:
                break
        n[NEXT], n[BUDGET], n[FILLED], n[FREE], n[DEMAND] = upcoming, budget, filled, free, drawn
        n[ARRIVED], n[DONE_COUNT] = newcomers, answered
        return why

    return run_window
