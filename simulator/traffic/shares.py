"""The cores of each machine, shared among the control groups on it by weight and quota. Exact, by virtual time.

A *group* is what one instance, one start-up or one noisy neighbour has running: threads that share its part equally.
A machine's cores go to its groups in proportion to their weights, but no group gets more than its quota or more than
one core a thread, and what one cannot use the others get (weighted max-min fairness, which is what the kernel's fair
scheduler with `cpu.weight` and `cpu.max` tends to over times longer than its period of 100 ms).

Each group keeps a *virtual clock*: CPU seconds that one of its threads has got. A piece of work ends at a virtual time
that is known when it begins, however often the rates change meanwhile (Parekh and Gallager, Generalized Processor
Sharing, IEEE/ACM ToN 1(3), 1993). Pieces wait for that time in a skew heap (Sleator and Tarjan, Self-Adjusting Heaps,
SIAM J. Comput. 15(1), 1986), which needs two columns and no room of its own.

Functions over columns, as in `simulator.traffic.balancing`: lists in plain Python, arrays in compiled code.
"""

from heapq import heappush
from typing import Any, NamedTuple

MACHINE_BITS = 20
"""A departure's code holds the machine in its lower bits and the version of the machine's rates above."""

STRIDE = 0
"""Place in `Cores.counts`: how many groups of one machine there is room for in `members`."""


class Cores(NamedTuple):
    """All machines, groups and pieces of work.

    Attributes:
        cores, speed, used: of each machine: how many, the speed of one (1 = as the demands mean it), and the core
            seconds that all groups have used there.
        clock, version, size, next_group: of each machine: when its groups' clocks were last moved, how often its rates
            have changed, how many groups have threads, and whose work ends next.
        members: groups with threads, machine by machine, `counts[STRIDE]` places each.
        machine, weight, quota, threads, place, virtual, rate, root, worked: of each group: where it runs, its weight,
            the most cores it may use, its threads, its place in `members` or -1, its virtual clock, what one thread
            gets (CPU seconds per second), the piece that ends first or -1, and the core seconds it has used.
        tag, low, high: of each piece of work: the virtual time of its end, and its children in the heap or -1.
        counts: see STRIDE.
    """

    cores: Any
    speed: Any
    used: Any
    clock: Any
    version: Any
    size: Any
    next_group: Any
    members: Any
    machine: Any
    weight: Any
    quota: Any
    threads: Any
    place: Any
    virtual: Any
    rate: Any
    root: Any
    worked: Any
    tag: Any
    low: Any
    high: Any
    counts: Any


def merge(cores: Cores, one: int, other: int) -> int:
    """Two heaps of pieces become one; gives its root. -1 is the empty heap."""
    if one < 0:
        return other
    if other < 0:
        return one
    tag, low, high = cores.tag, cores.low, cores.high
    if tag[other] < tag[one] or (tag[other] == tag[one] and other < one):
        one, other = other, one
    root = one
    while True:
        # Down the right spine, whose nodes swap their children on the way: that is what keeps it short on average.
        right = high[one]
        high[one] = low[one]
        if right < 0:
            low[one] = other
            return root
        if tag[other] < tag[right] or (tag[other] == tag[right] and other < right):
            low[one] = other
            one, other = other, right
        else:
            low[one] = right
            one = right


def touch(cores: Cores, machine: int, now: float) -> None:
    """Move the virtual clocks of a machine's groups to `now`. To be called before anything there changes."""
    elapsed = now - cores.clock[machine]
    cores.clock[machine] = now
    if elapsed > 0:
        first = machine * cores.counts[STRIDE]
        busy = 0.0
        for place in range(first, first + cores.size[machine]):
            group = cores.members[place]
            step = cores.rate[group] * elapsed
            cores.virtual[group] += step
            # A slow core is as busy as a fast one.
            taken = cores.threads[group] * step / cores.speed[machine]
            cores.worked[group] += taken
            busy += taken
        cores.used[machine] += busy


def add_thread(cores: Cores, group: int) -> None:
    """One more thread of `group` wants to run. A group that had none joins its machine's."""
    cores.threads[group] += 1
    if cores.threads[group] == 1:
        machine = cores.machine[group]
        place = machine * cores.counts[STRIDE] + cores.size[machine]
        cores.members[place] = group
        cores.place[group] = place
        cores.size[machine] += 1
        # A clock that starts again at zero stays small, and so exact, however long the run is.
        cores.virtual[group] = 0.0


def remove_thread(cores: Cores, group: int) -> None:
    """One thread of `group` is done. A group without threads leaves its machine's, whose last takes its place."""
    cores.threads[group] -= 1
    if cores.threads[group] == 0:
        machine = cores.machine[group]
        cores.size[machine] -= 1
        place = cores.place[group]
        mover = cores.members[machine * cores.counts[STRIDE] + cores.size[machine]]
        cores.members[place] = mover
        cores.place[mover] = place
        cores.place[group] = -1


def begin(cores: Cores, group: int, piece: int, seconds: float) -> None:
    """A thread of `group` begins a piece of work of so many CPU seconds. `touch` before, `settle` after."""
    add_thread(cores, group)
    cores.tag[piece] = cores.virtual[group] + seconds
    cores.low[piece] = -1
    cores.high[piece] = -1
    cores.root[group] = merge(cores, cores.root[group], piece)


def finish(cores: Cores, code: int, now: float) -> int:
    """The piece of work that ends at the departure `code`, or -1 if the rates have changed since. `settle` after."""
    machine = code & ((1 << MACHINE_BITS) - 1)
    if cores.version[machine] != code >> MACHINE_BITS:
        return -1
    touch(cores, machine, now)
    group = cores.next_group[machine]
    piece = cores.root[group]
    # The clock was moved by a product and may be off by a rounding error; the end is exact.
    cores.virtual[group] = cores.tag[piece]
    cores.root[group] = merge(cores, cores.low[piece], cores.high[piece])
    remove_thread(cores, group)
    return piece  # type: ignore[no-any-return]


def share_out(cores: Cores, machine: int) -> None:
    """Set what a thread of each group gets: weighted max-min fair shares under the groups' caps (water filling)."""
    first = machine * cores.counts[STRIDE]
    last = first + cores.size[machine]
    speed = cores.speed[machine]
    wanted, weights = 0.0, 0.0
    for place in range(first, last):
        group = cores.members[place]
        wanted += min(float(cores.threads[group]), cores.quota[group])
        weights += cores.weight[group]
        cores.rate[group] = -1.0
    left = float(cores.cores[machine])
    if wanted <= left:
        for place in range(first, last):
            group = cores.members[place]
            cores.rate[group] = speed * min(1.0, cores.quota[group] / cores.threads[group])
        return
    capped = True
    while capped:
        # Whoever wants less than its share at this level gets what it wants, which raises the level for the rest.
        capped = False
        level = left / weights
        for place in range(first, last):
            group = cores.members[place]
            if cores.rate[group] < 0:
                cap = min(float(cores.threads[group]), cores.quota[group])
                if cap <= level * cores.weight[group]:
                    cores.rate[group] = speed * cap / cores.threads[group]
                    left -= cap
                    weights -= cores.weight[group]
                    capped = True
        if weights <= 0:
            break
    for place in range(first, last):
        group = cores.members[place]
        if cores.rate[group] < 0:
            cores.rate[group] = speed * max(left, 0.0) * cores.weight[group] / weights / cores.threads[group]


def settle(cores: Cores, machine: int, now: float, departures: Any) -> None:
    """Share the machine's cores anew, and note when the next piece of work there ends."""
    share_out(cores, machine)
    cores.version[machine] += 1
    soonest, whose = -1.0, -1
    first = machine * cores.counts[STRIDE]
    for place in range(first, first + cores.size[machine]):
        group = cores.members[place]
        if cores.root[group] >= 0 and cores.rate[group] > 0:
            after = (cores.tag[cores.root[group]] - cores.virtual[group]) / cores.rate[group]
            if whose < 0 or after < soonest:
                soonest, whose = after, group
    if whose >= 0:
        cores.next_group[machine] = whose
        heappush(departures, (now + max(soonest, 0.0), (cores.version[machine] << MACHINE_BITS) | machine))
