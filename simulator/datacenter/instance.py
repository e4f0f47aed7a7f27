"""One container or VM and its life: pending, pulling, starting, ready, draining, stopped, or failed."""

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
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


NEXT = {
    State.PENDING: {State.PULLING, State.STARTING, State.STOPPED},
    State.PULLING: {State.STARTING, State.BACKING_OFF, State.STOPPED, State.FAILED},
    State.STARTING: {State.READY, State.BACKING_OFF, State.STOPPED, State.FAILED},
    State.BACKING_OFF: {State.PULLING, State.STARTING, State.STOPPED, State.FAILED},
    State.READY: {State.DRAINING, State.FAILED},
    State.DRAINING: {State.STOPPED, State.FAILED},
    State.STOPPED: set[State](),
    State.FAILED: set[State](),
}
"""What may follow each state. Only a ready instance gets requests, so only that one must drain.

An instance pulls only where its image is not on the machine, and backs off only after a start that failed.
"""


@dataclass(eq=False)
class Instance:
    """One instance of the application.

    Attributes:
        number: in the order in which instances were asked for.
        created_seconds: when it was asked for.
        state: where it is in its life.
        history: every state with the moment at which it began, from `pending` on.
        machine: where it runs, or None while it is pending.
        slot: its number at the data plane, once it is ready.
        why_pending: why no machine had room, for a person; empty where one had.
    """

    number: int
    created_seconds: float
    state: State = State.PENDING
    history: list[tuple[float, State]] = field(default_factory=list)
    machine: Machine | None = None
    slot: int | None = None
    why_pending: str = ""

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

    @property
    def is_over(self) -> bool:
        """Whether it has stopped or failed."""
        return not NEXT[self.state]
