"""Which instance gets the next request: the policies.

Each is up to five functions over a `Board`: `choose` a slot among the routable ones, of which there is at least one;
`took` and `left`, after a slot's load has risen or fallen; `joined` and `gone`, when a slot becomes routable or ceases
to be. Plain arithmetic, since Numba compiles the first three (`simulator.traffic.compiled`). Adding a policy: its
functions, its row in `POLICIES`, its branch in `choose_any`, and its record in `settings.py`.
"""

import math
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from simulator.traffic.balancing.board import (
    BOUND,
    CHOICES,
    DECAY_SECONDS,
    FEWEST,
    POLICY,
    RING,
    ROUTABLE,
    TOTAL,
    TURN,
    Board,
    append,
    next_lot,
    unlink,
)

POINTS = 100
"""Points of each instance on the hash ring; with 100, the share of one varies by about a tenth."""


def choose_random(board: Board, key: float, now: float) -> int:
    """Any instance, all equally likely."""
    return board.slots[int(next_lot(board) * board.counts[ROUTABLE])]  # type: ignore[no-any-return]


def choose_round_robin(board: Board, key: float, now: float) -> int:
    """One after the other."""
    turn = board.counts[TURN]
    board.counts[TURN] = turn + 1
    return board.slots[turn % board.counts[ROUTABLE]]  # type: ignore[no-any-return]


def choose_weighted(board: Board, key: float, now: float) -> int:
    """Smooth weighted round robin, as in nginx: all save up their weight, the richest is chosen and pays for all."""
    best, total = -1, 0.0
    for place in range(board.counts[ROUTABLE]):
        slot = board.slots[place]
        board.credit[slot] += board.weight[slot]
        total += board.weight[slot]
        if best < 0 or board.credit[slot] > board.credit[best]:
            best = slot
    board.credit[best] -= total
    return best


def choose_least_connections(board: Board, key: float, now: float) -> int:
    """The instance with the fewest requests; among equals the one whose number has stood longest.

    As HAProxy's `leastconn` does, whose tree keeps equals in the order in which they were put there.
    """
    return board.following[2 * board.counts[FEWEST] + 1] >> 1  # type: ignore[no-any-return]


def took_least_connections(board: Board, slot: int, now: float) -> None:
    """The slot moves to the ring of one request more."""
    # `unlink` and `append` in place: calls are what this costs in plain Python, and every request pays it.
    previous, following, load = board.previous, board.following, board.load[slot]
    node, anchor, emptied = 2 * slot, 2 * load + 1, 2 * load - 1
    before, after = previous[node], following[node]
    following[before] = after
    previous[after] = before
    last = previous[anchor]
    following[last] = node
    previous[node] = last
    following[node] = anchor
    previous[anchor] = node
    if following[emptied] == emptied and board.counts[FEWEST] == load - 1:
        board.counts[FEWEST] = load


def left_least_connections(board: Board, slot: int, now: float, seconds: float) -> None:
    """The slot moves to the ring of one request less."""
    if board.position[slot] < 0:
        return
    previous, following, load = board.previous, board.following, board.load[slot]
    node, anchor = 2 * slot, 2 * load + 1
    before, after = previous[node], following[node]
    following[before] = after
    previous[after] = before
    last = previous[anchor]
    following[last] = node
    previous[node] = last
    following[node] = anchor
    previous[anchor] = node
    if load < board.counts[FEWEST]:
        board.counts[FEWEST] = load


def joined_least_connections(board: Board, slot: int) -> None:
    """The slot enters the ring of its load."""
    load = int(board.load[slot])
    append(board, slot, load)
    if board.counts[ROUTABLE] == 1 or load < board.counts[FEWEST]:
        board.counts[FEWEST] = load


def gone_least_connections(board: Board, slot: int) -> None:
    """The slot leaves its ring; the fewest may now be more."""
    unlink(board, slot)
    while board.counts[ROUTABLE] > 0:
        anchor = 2 * board.counts[FEWEST] + 1
        if board.following[anchor] != anchor:
            break
        board.counts[FEWEST] += 1


def choose_of_some(board: Board, key: float, now: float) -> int:
    """The power of d choices: draw d instances, with replacement, and take the least loaded; the first among equals.

    Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing, IEEE TPDS 12(10), 2001.
    """
    best = choose_random(board, key, now)
    for _ in range(1, board.counts[CHOICES]):
        other = choose_random(board, key, now)
        if board.load[other] < board.load[best]:
            best = other
    return best


def choose_peak_ewma(board: Board, key: float, now: float) -> int:
    """Of two instances drawn, the one with the lower expected wait: average response time times requests in it.

    An average that is not renewed fades, so that an instance that was slow is tried again. Source: Finagle's
    `p2cPeakEwma` balancer (twitter.github.io/finagle/guide/Clients.html#power-of-two-choices-p2c-peak-ewma).
    """
    best = choose_random(board, key, now)
    other = choose_random(board, key, now)
    decay = board.settings[DECAY_SECONDS]
    mine = board.cost[best] * math.exp((board.seen[best] - now) / decay) * (board.load[best] + 1)
    theirs = board.cost[other] * math.exp((board.seen[other] - now) / decay) * (board.load[other] + 1)
    if theirs < mine or (theirs == mine and board.load[other] < board.load[best]):
        return other
    return best


def left_peak_ewma(board: Board, slot: int, now: float, seconds: float) -> None:
    """A response renews the average; one that is slower than the average takes its place at once."""
    kept = math.exp((board.seen[slot] - now) / board.settings[DECAY_SECONDS])
    average = board.cost[slot] * kept + seconds * (1.0 - kept)
    board.cost[slot] = max(average, seconds)
    board.seen[slot] = now


def choose_idle(board: Board, key: float, now: float) -> int:
    """Join the idle queue: the instance that has been idle longest; any one where none is.

    Source: Lu et al., Join-Idle-Queue, Performance Evaluation 68(11), 2011.
    """
    node = board.following[1]
    if node != 1:
        return node >> 1  # type: ignore[no-any-return]
    return choose_random(board, key, now)


def took_idle(board: Board, slot: int, now: float) -> None:
    """A slot with its first request is idle no more."""
    if board.load[slot] == 1:
        unlink(board, slot)


def left_idle(board: Board, slot: int, now: float, seconds: float) -> None:
    """A slot without requests reports as idle."""
    if board.load[slot] == 0 and board.position[slot] >= 0:
        append(board, slot, 0)


def joined_idle(board: Board, slot: int) -> None:
    """An idle slot reports."""
    if board.load[slot] == 0:
        append(board, slot, 0)


def gone_idle(board: Board, slot: int) -> None:
    """An idle slot is forgotten."""
    if board.load[slot] == 0:
        unlink(board, slot)


def choose_bounded_hash(board: Board, key: float, now: float) -> int:
    """Consistent hashing with bounded loads: clockwise from the key, the first whose load is below the bound.

    The bound is `ceil(bound * (requests + 1) / instances)`. Source: Mirrokni, Thorup and Zadimoghaddam, Consistent
    Hashing with Bounded Loads, SODA 2018.
    """
    low, high = 0, board.counts[RING]
    while low < high:
        middle = (low + high) >> 1
        if board.ring[middle] <= key:
            low = middle + 1
        else:
            high = middle
    points = board.counts[RING]
    most = math.ceil(board.settings[BOUND] * (board.counts[TOTAL] + 1) / board.counts[ROUTABLE])
    for step in range(points):
        slot = board.owner[(low + step) % points]
        if board.load[slot] < most:
            return slot  # type: ignore[no-any-return]
    return board.owner[low % points]  # type: ignore[no-any-return]


def ring_points(slot: int) -> list[tuple[float, int]]:
    """Where the points of `slot` lie on the hash ring."""
    digests = (blake2b(f"{slot}/{point}".encode(), digest_size=8).digest() for point in range(POINTS))
    return [(int.from_bytes(digest) / 2**64, slot) for digest in digests]


def took_nothing(board: Board, slot: int, now: float) -> None:
    """This policy keeps no account of what it gave."""


def left_nothing(board: Board, slot: int, now: float, seconds: float) -> None:
    """This policy keeps no account of what was answered."""


def _no_change(board: Board, slot: int) -> None:
    """This policy asks only who is routable."""


class Policy(NamedTuple):
    """The functions of one policy, and what it needs.

    Attributes:
        number: in `choose_any`.
        lots: uniform numbers that a choice uses at most, apart from the number of choices.
        keyed: whether a request has a key.
        ringed: whether there is a hash ring.
    """

    number: int
    choose: Callable[[Board, float, float], int]
    took: Callable[[Board, int, float], None] = took_nothing
    left: Callable[[Board, int, float, float], None] = left_nothing
    joined: Callable[[Board, int], None] = _no_change
    gone: Callable[[Board, int], None] = _no_change
    keyed: bool = False


POLICIES = {
    "random": Policy(0, choose_random),
    "round-robin": Policy(1, choose_round_robin),
    "weighted": Policy(2, choose_weighted),
    "least-connections": Policy(
        3,
        choose_least_connections,
        took_least_connections,
        left_least_connections,
        joined_least_connections,
        gone_least_connections,
    ),
    "power-of-choices": Policy(4, choose_of_some),
    "peak-ewma": Policy(5, choose_peak_ewma, left=left_peak_ewma),
    "join-idle-queue": Policy(6, choose_idle, took_idle, left_idle, joined_idle, gone_idle),
    "bounded-hash": Policy(7, choose_bounded_hash, keyed=True),
}


def choose_any(board: Board, key: float, now: float) -> int:
    """`choose` of the board's policy: what is compiled, once for all policies."""
    policy = board.counts[POLICY]
    if policy == 3:
        return choose_least_connections(board, key, now)
    if policy == 0:
        return choose_random(board, key, now)
    if policy == 1:
        return choose_round_robin(board, key, now)
    if policy == 2:
        return choose_weighted(board, key, now)
    if policy == 4:
        return choose_of_some(board, key, now)
    if policy == 5:
        return choose_peak_ewma(board, key, now)
    if policy == 6:
        return choose_idle(board, key, now)
    return choose_bounded_hash(board, key, now)


def took_any(board: Board, slot: int, now: float) -> None:
    """`took` of the board's policy."""
    policy = board.counts[POLICY]
    if policy == 3:
        took_least_connections(board, slot, now)
    elif policy == 6:
        took_idle(board, slot, now)


def left_any(board: Board, slot: int, now: float, seconds: float) -> None:
    """`left` of the board's policy."""
    policy = board.counts[POLICY]
    if policy == 3:
        left_least_connections(board, slot, now, seconds)
    elif policy == 5:
        left_peak_ewma(board, slot, now, seconds)
    elif policy == 6:
        left_idle(board, slot, now, seconds)
