"""A container that runs, or is to."""

from collections.abc import Callable

from real_engine.container.grouping import MakeCgroup
from real_engine.container.launch import (
    CANNOT_EXECUTE,
    CANNOT_START,
    NOT_FOUND,
    SIGNALLED,
    Launch,
    Observer,
    StartError,
)
from real_engine.container.state import KeptDirectories, StateDirectory
from real_engine.container.steps import Instant, Phase
from real_engine.linux import cgroups
from real_engine.linux.cgroups import Hierarchy

__all__ = [
    "CANNOT_EXECUTE",
    "CANNOT_START",
    "NOT_FOUND",
    "SIGNALLED",
    "Container",
    "Observer",
    "StartError",
    "remove_cgroups",
]


class Container(Launch):
    """A container. As a context manager it is killed, if need be, and removed at the end.

    `plan` makes its plan; it is told whether a network namespace has been prepared.
    """

    def __init__(
        self,
        state: StateDirectory | KeptDirectories,
        plan: Callable[[bool], tuple[Phase, ...]],
        terminal: bool,
        hierarchies: tuple[Hierarchy, ...],
    ) -> None:
        super().__init__(state.id)
        self._plan = plan
        self._has_terminal = terminal
        self._state = state
        self._hierarchies = hierarchies
        self._begun = False

    def begin(
        self,
        stdio: tuple[int, int, int] | None = None,
        *,
        terminal_size: tuple[int, int] | None = None,
        network_namespace_fd: int | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Make its process, whose standard input and outputs are these descriptors; it goes on by itself.

        A container with a terminal needs none: its standard streams are a terminal of `terminal_size` (rows, columns).
        `observer` is called before each step, in the process that is about to do it; what it raises fails the step.

        Raises:
            StartError: a step of the engine's failed. Nothing of the container is left then.
            EngineError: see `Engine.plan`.
        """
        if stdio is None and not self._has_terminal:
            raise ValueError("a container without a terminal needs descriptors for its standard streams")
        self._requested = Instant.now()
        self.requested_seconds = self._requested.seconds
        phases = self._plan(network_namespace_fd is not None)
        self._begun = True
        try:
            self._begin(
                phases,
                stdio,
                terminal=self._has_terminal,
                terminal_size=terminal_size,
                observer=observer,
                network=network_namespace_fd,
            )
        except BaseException:
            self.remove()
            raise

    def _let_go(self) -> None:
        for hierarchy in self._hierarchies:
            group = hierarchy.parent / self.id
            if cgroups.is_frozen(group):
                cgroups.set_frozen(group, False)

    def _clean(self) -> None:
        if self._begun:
            self._begun = False
            steps = enumerate(operation for _, operation in self._operations)
            # Groups that were there before us are those of another container, which runs under our name.
            if any(isinstance(operation, MakeCgroup) and self._was_done(index) for index, operation in steps):
                remove_cgroups(self._hierarchies, self.id)
            self._state.remove()


def remove_cgroups(hierarchies: tuple[Hierarchy, ...], container_id: str) -> None:
    """Kill what runs in the cgroups of a container, and remove them."""
    cgroups.destroy([hierarchy.parent / container_id for hierarchy in hierarchies])
