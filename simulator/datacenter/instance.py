"""One container or VM and its life: pending, pulling, starting, perhaps pooled, ready, draining, stopped, or failed."""

from dataclasses import dataclass, field
from enum import StrEnum

from simulator.datacenter.machine import Machine
from simulator.errors import SimulatorError


class State(StrEnum):
    """Where an instance is in its life."""

    PENDING = "pending"
    PULLING = "pulling"
    STARTING = "starting"
    BACKING_OFF = "backing-off"
    POOLED = "pooled"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


NEXT = {
    State.PENDING: {State.PULLING, State.STARTING, State.STOPPED},
    State.PULLING: {State.STARTING, State.BACKING_OFF, State.STOPPED, State.FAILED},
    State.STARTING: {State.READY, State.POOLED, State.BACKING_OFF, State.STOPPED, State.FAILED},
    State.BACKING_OFF: {State.PULLING, State.STARTING, State.STOPPED, State.FAILED},
    State.POOLED: {State.STARTING, State.STOPPED, State.FAILED},
    State.READY: {State.STARTING, State.DRAINING, State.FAILED},
    State.DRAINING: {State.STOPPED, State.FAILED},
    State.STOPPED: set[State](),
    State.FAILED: set[State](),
}
"""What may follow each state. Only a ready instance gets requests, so only that one must drain.

An instance pulls only where its image is not on the machine, and backs off only after a start that failed. It is
pooled if it has started before anybody needs it, and handing it out is a start, however short. A ready one starts again
where its program is killed inside a guest.
"""


@dataclass(eq=False, slots=True)
class Instance:
    """One instance of the application.

    Attributes:
        number: in the order in which instances were asked for.
        created_seconds: when it was asked for; one from a pool, when it was asked to serve.
        state: where it is in its life.
        history: every state with the moment at which it began, from `pending` on.
        machine: where it runs, or None while it is pending.
        slot: its number at the data plane, once it is ready.
        why_pending: why no machine had room, for a person; empty where one had.
        replaces: number of the lost instance in whose place it is, or None.
        failures: how many in a row have failed before it in that place.
    """

    number: int
    created_seconds: float
    state: State = State.PENDING
    history: list[tuple[float, State]] = field(default_factory=list)
    machine: Machine | None = None
    slot: int | None = None
    why_pending: str = ""
    replaces: int | None = None
    failures: int = 0

    def __post_init__(self) -> None:
        if not self.history:
            self.history.append((self.created_seconds, self.state))

    def enter(self, state: State, now: float) -> None:
        """Begin `state` at `now` seconds.

        Raises:
            SimulatorError: that state cannot follow the present one, or time would run backwards.
        """
        if state not in NEXT[self.state]:
            raise SimulatorError(f"instance {self.number}: {state} cannot follow {self.state}")
        if now < self.history[-1][0]:
            raise SimulatorError(f"instance {self.number}: {state} at {now} would come before {self.state}")
        self.state = state
        self.history.append((now, state))

    def since(self, state: State) -> float | None:
        """When it entered `state`, or None if it never has."""
        return next((seconds for seconds, entered in self.history if entered is state), None)

    def lifetime(self, end: float) -> tuple[float, float]:
        """(from, until) when it held resources: from the start of its start-up; both `end` if it was never placed."""
        start = next((seconds for seconds, state in self.history if state in (State.PULLING, State.STARTING)), None)
        if start is None:
            return end, end
        return start, max(self.history[-1][0], start) if self.is_over else max(end, start)

    @property
    def is_over(self) -> bool:
        """Whether it has stopped or failed."""
        return not NEXT[self.state]
