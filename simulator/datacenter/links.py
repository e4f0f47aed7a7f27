"""Links that transfers share fairly: a registry's uplink, a machine's own link, a disk's bytes.

A transfer uses several links at once and has one rate. Rates are *max-min fair*: none can be raised without lowering
another that is no larger. They follow from *progressive filling* (Bertsekas and Gallager, Data Networks, 2nd edition,
section 6.5.2): all rates grow together until a link is full; its transfers are then fixed, and the others grow on.

Transfers over the same links have the same rate, so each such group keeps one virtual clock, as work on the cores does
(`simulator.datacenter.cores`): a transfer ends at a moment of that clock known when it begins, and nothing is
quantised. Rates are worked out again whenever a transfer begins or ends or a link's capacity changes.
"""

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import TypeVar

from simpy import Environment, Event
from simpy.events import EventPriority

from simulator.errors import SimulatorError

Name = TypeVar("Name", bound=Hashable)

_AFTER_ALL_ELSE = EventPriority(2)
"""Comes after SimPy's own priorities, so that whoever begins a transfer at this moment, because another ended, has."""


def max_min_rates(
    capacities: Mapping[Name, float], flows: Sequence[Collection[Name]], counts: Sequence[int] | None = None
) -> list[float]:
    """The max-min fair rate of each flow.

    Args:
        capacities: of each link, in units per second; 0 for one that is down, infinity for one that never is the limit.
        flows: the links that each flow uses.
        counts: how many flows there are like each; each of them gets the rate. Default: one.

    Returns:
        Units per second, in the order of `flows`; infinity for one that no finite link limits.
    """
    times = [1] * len(flows) if counts is None else counts
    crossing: dict[Name, list[int]] = {}
    for index, links in enumerate(flows):
        for link in dict.fromkeys(links):
            crossing.setdefault(link, []).append(index)
    left = {link: capacities[link] for link in crossing}
    load = {link: sum(times[index] for index in indices) for link, indices in crossing.items()}
    # Shares only grow while others are fixed, so an outdated entry comes too early and is put back; ties go by order.
    heap = [(left[link] / load[link], order, link) for order, link in enumerate(crossing) if load[link]]
    heapify(heap)
    rates = [math.inf] * len(flows)
    fixed = [False] * len(flows)
    while heap:
        expected, order, link = heappop(heap)
        if not load[link]:
            continue
        share = left[link] / load[link]
        if share > expected:
            heappush(heap, (share, order, link))
            continue
        if share == math.inf:
            break
        for index in crossing[link]:
            if fixed[index]:
                continue
            fixed[index], rates[index] = True, share
            for other in dict.fromkeys(flows[index]):
                left[other] = max(left[other] - share * times[index], 0.0)
                load[other] -= times[index]
    return rates


class Link:
    """Something with a capacity that transfers share. `Links.link` makes one.

    Attributes:
        name: for records and messages.
        capacity: units (bytes, device seconds) per second; change it with `Links.set_capacity`.
        carried: units that went over it so far in transfers that have ended, of cancelled ones what had arrived.
    """

    __slots__ = ("_groups", "_transfers", "capacity", "carried", "name")

    def __init__(self, name: str, capacity: float) -> None:
        self.name = name
        self.capacity = capacity
        self.carried = 0.0
        self._groups = 0
        self._transfers = 0


class Transfer(Event):
    """A transfer in progress. Triggers when all has arrived; its value is the seconds that it took."""

    def __init__(self, env: Environment, amount: float, group: "_Group | None" = None) -> None:
        super().__init__(env)
        self.amount = amount
        self.began: float = env.now
        self.cancelled = False
        self._group = group
        self._end = amount if group is None else group.clock + amount
        self._left = 0.0


class _Group:
    """The transfers over the same links: their rate, their virtual clock in units each, and their ends by that."""

    __slots__ = ("active", "clock", "heap", "links", "rate")

    def __init__(self, links: tuple[Link, ...]) -> None:
        self.links = links
        self.clock = 0.0
        self.rate = 0.0
        self.active = 0
        self.heap: list[tuple[float, int, Transfer]] = []

    def next_end(self) -> float:
        while self.heap[0][2].cancelled:
            heappop(self.heap)
        return self.heap[0][0]


class Links:
    """Links and the transfers in progress over them. Links that a transfer may use together belong to one of these.

    Args:
        env: the SimPy environment whose clock is used, in seconds.
    """

    def __init__(self, env: Environment) -> None:
        self.env = env
        self._groups: dict[tuple[Link, ...], _Group] = {}
        self._used: dict[Link, None] = {}  # the links that have a transfer
        self._changed_at: float = env.now
        self._arrivals = 0
        self._generation = 0
        self._stale = False

    @property
    def active(self) -> int:
        """How many transfers are in progress, those that stand still included."""
        return sum(group.active for group in self._groups.values())

    def link(self, name: str, capacity: float) -> Link:
        """A new link.

        Raises:
            SimulatorError: the capacity is negative or not a number.
        """
        return Link(name, _capacity(name, capacity))

    def set_capacity(self, link: Link, capacity: float) -> None:
        """Change what `link` carries per second from now on; 0 lets all that use it stand still until it changes again.

        Raises:
            SimulatorError: the capacity is negative or not a number.
        """
        self._advance()
        link.capacity = _capacity(link.name, capacity)
        self._rates_changed()

    def transfer(self, amount: float, *links: Link) -> Transfer:
        """Begin to transfer `amount` units over all of `links` at once.

        A process that stops waiting must `cancel` it.

        Raises:
            SimulatorError: the amount is negative or not finite.
        """
        if not 0 <= amount < math.inf:
            raise SimulatorError(f"a transfer of {amount}: it must be finite and not negative")
        if amount == 0 or all(link.capacity == math.inf for link in links):
            transfer = Transfer(self.env, amount)
            for link in links:
                link.carried += amount
            transfer.succeed(0.0)
            return transfer
        self._advance()
        links = tuple(dict.fromkeys(links))
        group = self._groups.get(links)
        if group is None:
            group = self._groups[links] = _Group(links)
            for link in links:
                self._used[link] = None
                link._groups += 1
        transfer = Transfer(self.env, amount, group)
        group.active += 1
        for link in links:
            link._transfers += 1
        self._arrivals += 1  # ties end in order of arrival
        heappush(group.heap, (transfer._end, self._arrivals, transfer))
        self._rates_changed()
        return transfer

    def cancel(self, transfer: Transfer) -> None:
        """Take an unfinished transfer off its links; the others speed up at once. A finished one is left alone."""
        if transfer.triggered or transfer.cancelled:
            return
        transfer._left = self.left(transfer)
        transfer.cancelled = True
        if transfer._group is not None:
            self._leave(transfer._group, transfer.amount - transfer._left)
        self._rates_changed()

    def left(self, transfer: Transfer) -> float:
        """Units of `transfer` that have not arrived: what was left when it was cancelled, if it was."""
        if transfer.triggered or transfer.cancelled or transfer._group is None:
            return transfer._left
        self._advance()
        return max(transfer._end - transfer._group.clock, 0.0)

    def _leave(self, group: _Group, arrived: float) -> None:
        group.active -= 1
        for link in group.links:
            link.carried += arrived
            link._transfers -= 1
        if not group.active:
            # A group that comes back begins with a clock at zero, which keeps it small, and so exact.
            del self._groups[group.links]
            for link in group.links:
                link._groups -= 1
                if not link._groups:
                    del self._used[link]

    def _advance(self) -> None:
        """Let the virtual clocks run up to now."""
        elapsed = self.env.now - self._changed_at
        self._changed_at = self.env.now
        if elapsed <= 0:
            return
        for group in self._groups.values():
            group.clock += group.rate * elapsed

    def _rates_changed(self) -> None:
        """Work out the rates once for all that changes at this moment: a thousand pulls may begin together."""
        self._generation += 1
        if not self._stale:
            self._stale = True
            last = Event(self.env)
            last.callbacks.append(self._share_out)
            last._ok, last._value = True, None
            self.env.schedule(last, _AFTER_ALL_ELSE)

    def _share_out(self, _: Event) -> None:
        self._stale = False
        groups = list(self._groups.values())
        first = min(self._used, key=lambda link: link.capacity / link._transfers, default=None)
        if first is not None and first._groups == len(groups):
            # The first link to be full is that of all, as a registry's uplink mostly is: the others have no say.
            rates = [first.capacity / first._transfers] * len(groups)
        else:
            capacities = {link: link.capacity for link in self._used}
            rates = max_min_rates(capacities, [group.links for group in groups], [group.active for group in groups])
        for group, rate in zip(groups, rates, strict=True):
            group.rate = rate
        self._schedule_next_end()

    def _schedule_next_end(self) -> None:
        """Wake up when the next transfer ends, if nothing changes before; an earlier wake-up is then out of date."""
        self._generation += 1
        generation = self._generation
        first: tuple[float, _Group, float] | None = None
        for group in self._groups.values():
            if group.rate:
                end = group.next_end()
                delay = (end - group.clock) / group.rate
                if first is None or delay < first[0]:
                    first = (delay, group, end)
        if first is None:
            return
        delay, due, end = first

        def wake(_: Event) -> None:
            if generation == self._generation:
                self._advance()
                self._finish(due, end)

        self.env.timeout(max(delay, 0.0)).callbacks.append(wake)

    def _finish(self, group: _Group, end: float) -> None:
        """End all transfers of `group` that are due at virtual time `end`."""
        # The clock was advanced by a product and may be off by a rounding error; the end is exact.
        group.clock = end
        while group.active and group.next_end() <= end:
            _, _, transfer = heappop(group.heap)
            self._leave(group, transfer.amount)
            transfer.succeed(self.env.now - transfer.began)
        self._rates_changed()


def _capacity(name: str, capacity: float) -> float:
    if not capacity >= 0:
        raise SimulatorError(f"link {name}: capacity {capacity} must be at least 0")
    return capacity
