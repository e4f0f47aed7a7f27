"""Kernel samepage merging: when how much of the guests' memory is merged, without a clock that ticks.

ksmd walks round and round through all memory that VMMs have offered, at a constant rate, and puts a new guest at the
end of its round (mm/ksm.c, `__ksm_enter`: behind the scanning cursor). In its first round with a guest it takes a
checksum of each page; in the second it merges the pages that have not changed since and that are the same as another
guest's (`cmp_and_merge_page`). So what a guest can save is saved evenly over the second round after it came, and a
round takes as long as all offered memory takes at ksmd's rate: the more guests, the longer.

Time is therefore counted in rounds. It runs at `bytes_per_second / offered bytes`, which changes only when a guest
comes or goes; in between, everything is a straight line.

Of guests of one image the first keeps its pages and the others share them; where more share than one copy may have
(`max_page_sharing`), the next begins another copy.
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from simulator.datacenter.memory.ramps import Ramp
from simulator.datacenter.memory.settings import KsmSettings

_CHECKSUM_ROUNDS = 1.0
"""Rounds after which the first page of a guest is merged."""
_MERGED_ROUNDS = 2.0
"""Rounds after which all are."""


@dataclass(frozen=True)
class _Guest:
    """What a guest has offered, what of it others have too, in bytes, and at which round it came."""

    offered: float
    mergeable: float
    came: float


class PageMerging:
    """ksmd on one machine.

    Args:
        settings: how fast, and how much of a guest is the same in others.
    """

    def __init__(self, settings: KsmSettings) -> None:
        self.settings = settings
        self._alike: dict[Hashable, dict[Hashable, _Guest]] = {}
        self._offered = 0.0
        self._rounds = 0.0
        self._cpu_seconds = 0.0
        self._changed_at = 0.0

    @property
    def rounds_per_second(self) -> float:
        """How fast ksmd goes round; 0 where there is nothing to look at."""
        return self.settings.bytes_per_second / self._offered if self._offered > 0 else 0.0

    def cpu_seconds(self, now: float) -> float:
        """What looking at pages has taken so far, of one core."""
        busy = self.settings.cores if self._offered > 0 else 0.0
        return self._cpu_seconds + busy * (now - self._changed_at)

    def add(self, image: Hashable, guest: Hashable, offered: float, mergeable: float, now: float) -> None:
        """A guest comes with `offered` bytes, of which `mergeable` are the same in all guests of `image`.

        Guests of one image must be equally large: those of another size are another image.
        """
        self._advance(now)
        # The size is part of the key, so that the earliest of a group is always the one that has merged most.
        self._alike.setdefault((image, mergeable), {})[guest] = _Guest(offered, mergeable, self._rounds)
        self._offered += offered

    def remove(self, image: Hashable, guest: Hashable, mergeable: float, now: float) -> None:
        """The guest goes; if others share its pages, they keep them."""
        self._advance(now)
        group = self._alike[image, mergeable]
        self._offered -= group.pop(guest).offered
        if not group:
            del self._alike[image, mergeable]
        if not self._alike:
            self._offered = 0.0  # whatever rounding left behind

    def saved(self, now: float) -> float:
        """Bytes that are saved at `now`."""
        rounds = self._rounds_at(now)
        return sum(
            guest.mergeable * min(max(rounds - guest.came - _CHECKSUM_ROUNDS, 0.0), 1.0) for guest in self._sharers()
        )

    def ramps(self, now: float) -> Iterator[Ramp]:
        """What each guest saves, over time, if none comes or goes."""
        speed = self.rounds_per_second
        for guest in self._sharers():
            left = guest.came + _MERGED_ROUNDS - self._rounds_at(now)
            if left <= 0 or not speed:
                yield Ramp(now, guest.mergeable if left <= 0 else 0.0)
            else:
                end = now + left / speed
                begin = end - (_MERGED_ROUNDS - _CHECKSUM_ROUNDS) / speed
                yield Ramp(begin, 0.0, ((end, guest.mergeable * speed),))

    def saved_in_the_end(self) -> float:
        """Bytes that will be saved if none comes or goes."""
        return sum(guest.mergeable for guest in self._sharers())

    def _sharers(self) -> Iterator[_Guest]:
        """The guests that share another's copy, in the order in which they came."""
        for group in self._alike.values():
            for place, guest in enumerate(group.values()):
                if place % self.settings.max_page_sharing:
                    yield guest

    def _rounds_at(self, now: float) -> float:
        return self._rounds + self.rounds_per_second * (now - self._changed_at)

    def _advance(self, now: float) -> None:
        self._cpu_seconds = self.cpu_seconds(now)
        self._rounds = self._rounds_at(now)
        self._changed_at = now


def copies(guests: int, max_page_sharing: int) -> int:
    """How many copies of a page are kept for so many guests that have it."""
    return -(-guests // max_page_sharing)
