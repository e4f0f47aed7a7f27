"""What a run decided, in words: how requests are routed, where instances are placed, how it is scaled, what failed."""

from collections import Counter
from collections.abc import Iterable, Iterator

from simulator.eventlog import Event

EXPLAINED = {
    "route": "routing decisions",
    "place": "placements",
    "scale-decision": "scale decisions",
    "fault": "faults",
}
"""Kinds of events that are decisions, or the faults that they answer, and what many of them are called."""

MOST_OF_A_KIND = 60
"""Lines of one kind: ten thousand placements would bury the one decision that explains them."""


def explain(events: Iterable[Event], most: int = MOST_OF_A_KIND) -> Iterator[str]:
    """A line for each decision among the events of one replication, in order of time, and its reason.

    Args:
        events: in order; the rest of them is passed over.
        most: lines of each kind; how many there were beyond is said at the end.
    """
    seen: Counter[str] = Counter()
    for event in events:
        if event.kind in EXPLAINED:
            seen[event.kind] += 1
            if seen[event.kind] <= most:
                yield event.explain()
    left_out = [f"{seen[kind] - most} more {name}" for kind, name in EXPLAINED.items() if seen[kind] > most]
    if left_out:
        yield f"and {', '.join(left_out)}"
