"""What a balancer knows: the board.

Policies are functions over a board's columns and nothing else, so that plain Python runs them over lists and Numba
compiles the very same functions over arrays. A *slot* is the number of an instance at the data plane.
"""

from typing import Any, NamedTuple

ROUTABLE, FEWEST, TURN, LOT, TOTAL, CHOICES, POLICY, RING = range(8)
"""Places in `Board.counts`: how many instances are routable, the least requests that one of them holds, requests
balanced so far, lots used of `lots`, requests in all routable instances, how many lots a choice compares, which policy
it is, and how many points the hash ring has."""

DECAY_SECONDS, BOUND = range(2)
"""Places in `Board.settings`: time constant of the moving average, and how far above the mean a load may lie."""


class Board(NamedTuple):
    """Everything that a policy reads and writes; lists in plain Python, arrays in compiled code.

    Attributes:
        slots: the routable slots, in the order in which they became so; the first `counts[ROUTABLE]` count.
        position: of each slot, its place in `slots`, or -1 while it is not routable.
        load: of each slot, requests waiting or in service there.
        previous, following: rings of slots with equal load. Node `2 s` is slot s, node `2 c + 1` is the anchor of load
            c; a ring that holds only its anchor is empty.
        weight, credit: of each slot, its share under `weighted`, and what it has saved up.
        cost, seen: of each slot, moving average of its response time in seconds, and when it was last updated.
        ring, owner: the points of the hash ring, sorted in [0, 1), and the slot of each.
        counts, settings: see the constants of this module.
        lots: uniform numbers in [0, 1), used one after the other.
    """

    slots: Any
    position: Any
    load: Any
    previous: Any
    following: Any
    weight: Any
    credit: Any
    cost: Any
    seen: Any
    ring: Any
    owner: Any
    counts: Any
    settings: Any
    lots: Any


def next_lot(board: Board) -> float:
    """The next uniform number."""
    index = board.counts[LOT]
    board.counts[LOT] = index + 1
    return board.lots[index]  # type: ignore[no-any-return]


def unlink(board: Board, slot: int) -> None:
    """Take `slot` out of the ring that it is in."""
    node = 2 * slot
    before, after = board.previous[node], board.following[node]
    board.following[before] = after
    board.previous[after] = before


def append(board: Board, slot: int, load: int) -> None:
    """Put `slot` at the end of the ring of `load`."""
    node, anchor = 2 * slot, 2 * load + 1
    last = board.previous[anchor]
    board.following[last] = node
    board.previous[node] = last
    board.following[node] = anchor
    board.previous[anchor] = node
