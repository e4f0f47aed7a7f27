"""Instances come up, wait in a pool, take requests, drain and stop; and whatever is lost is replaced.

As a ReplicaSet of Kubernetes does: it is told how many there should be, and keeps so many.
"""

import math
from collections import deque
from collections.abc import Callable, Generator
from typing import Any

from simpy import Environment, Event, Interrupt, Process

from simulator.control.faults import Crash, draw_crash
from simulator.datacenter.failures import start_in_spite_of_failures
from simulator.datacenter.instance import Instance, State
from simulator.datacenter.machine import Machine
from simulator.datacenter.platforms import Phase, PlatformProfile
from simulator.datacenter.startup import UNPACK, start_up
from simulator.errors import SimulatorError
from simulator.eventlog import EventLog
from simulator.model.site import Site
from simulator.scenario import Scenario
from simulator.statistics.streams import RandomStreams
from simulator.traffic.plane import DataPlane

COMING = (State.PULLING, State.STARTING, State.BACKING_OFF)
"""States of an instance that is on its way to take requests and has a machine."""

WANTED = (State.PENDING, *COMING, State.READY)
"""States of an instance that serves or will serve, and that nobody is taking down. One in a pool does not."""

_SHORTEST_BACK_OFF = 1.0
"""Seconds. Without it, what is killed as soon as it starts would start for ever at one moment."""

_EVENTS: dict[State, Any] = {
    State.PENDING: "instance-pending",
    State.PULLING: "instance-pulling",
    State.STARTING: "instance-starting",
    State.READY: "instance-ready",
    State.DRAINING: "instance-draining",
    State.STOPPED: "instance-stopped",
    State.FAILED: "instance-failed",
    State.BACKING_OFF: "instance-backing-off",
    State.POOLED: "instance-pooled",
}


class ReplicaSet:
    """The instances of a run.

    Args:
        env: the SimPy environment.
        scenario: what is asked.
        profile: of the platform.
        streams: of the replication.
        plane: carries the requests.
        site: the machines.
        log: is told of what happens.

    Attributes:
        instances: every one that ever was, by number.
        wishes: (when, how many there should be from then on), in order.
        ready: how many take requests.
        memory_changed: called with a machine on which an instance came or went.
        crashed: called with an instance at the end of its life, and how it ends, if it is to crash by a mean.
    """

    def __init__(
        self,
        env: Environment,
        scenario: Scenario,
        profile: PlatformProfile,
        streams: RandomStreams,
        plane: DataPlane,
        site: Site,
        log: EventLog,
    ) -> None:
        self._env = env
        self._scenario = scenario
        self._profile = profile
        self._streams = streams
        self._plane = plane
        self._site = site
        self._log = log
        self._failure_lots = streams.stream("start failures")
        self._without_room: deque[Instance] = deque()
        self._without_room_for_pool: deque[Instance] = deque()
        self._pool: deque[Instance] = deque()
        self._for_pool: set[Instance] = set()
        self._processes: dict[Instance, Process] = {}
        self._drained: dict[int, Event] = {}
        self._began: dict[Instance, float] = {}
        self._holds_image: set[Instance] = set()
        self.instances: list[Instance] = []
        self.wishes: list[tuple[float, int]] = []
        self.ready = 0
        self.memory_changed: Callable[[Machine], None] = lambda machine: None
        self.crashed: Callable[[Instance, Crash], None] = lambda instance, crash: None

    # -- how many there are

    def begin_with(self, count: int) -> None:
        """So many have been running since before the simulation begins, and so many wait in the pool as it holds.

        Raises:
            SimulatorError: they do not fit on the machines.
        """
        self.wishes.append((self._env.now, count))
        for number in range(count + self._scenario.pool.size):
            instance = self._create()
            machine, reason = self._site.place(instance)
            if machine is None:
                raise SimulatorError(
                    f"scenario {self._scenario.name} on {self._profile.name}: the first "
                    f"{count + self._scenario.pool.size} instances do not fit, {reason}; add machines or ask for fewer"
                )
            instance.machine = machine
            image = self._scenario.application.image
            if image is not None:
                # What runs on a machine has its image there, however cold later starts are elsewhere.
                machine.images.put(image, in_memory=True)
                machine.images.hold(image)
                self._holds_image.add(instance)
            self._enter(instance, State.STARTING)
            self._began[instance] = self._env.now
            self._site.running[machine.name] += 1
            self.memory_changed(machine)
            if number < count:
                self._become_ready(instance)
            else:
                self._enter(instance, State.POOLED)
                self._pool.append(instance)

    @property
    def wanted(self) -> list[Instance]:
        """Every instance that serves or will serve, by number."""
        return [instance for instance in self.instances if self._is_wanted(instance)]

    @property
    def without_room(self) -> int:
        """How many wait for a machine."""
        return len(self._without_room)

    def scale(self, desired: int) -> None:
        """From now on there should be `desired` of them."""
        self.wishes.append((self._env.now, desired))
        wanted = self.wanted
        for _ in range(desired - len(wanted)):
            self._one_more()
        self.place_those_without_room()
        # As a ReplicaSet chooses: first what is not placed, then what is not ready, then the youngest.
        order = sorted(wanted, key=lambda instance: (WANTED.index(instance.state), -instance.number))
        for instance in order[: max(len(wanted) - desired, 0)]:
            self.take_down(instance)

    def place_those_without_room(self) -> None:
        """First come, first placed; none overtakes another, since all need the same."""
        while self._without_room or self._without_room_for_pool:
            # Whoever is wanted comes before those that only fill the pool.
            waiting_line = self._without_room or self._without_room_for_pool
            instance = waiting_line[0]
            instance.machine, reason = self._site.place(instance)
            if instance.machine is None:
                # From the end: those before the first that has been told were told too.
                for waiting in reversed(waiting_line):
                    if waiting.why_pending:
                        break
                    waiting.why_pending = reason
                    self._tell(waiting, State.PENDING, reason)
                return
            waiting_line.popleft()
            instance.machine.memory.hold_program(instance.number, now=self._env.now)
            self._processes[instance] = self._env.process(self._bring_up(instance, instance.machine))
            self.memory_changed(instance.machine)

    def _is_wanted(self, instance: Instance) -> bool:
        return instance.state in WANTED and instance not in self._for_pool

    def _create(self) -> Instance:
        instance = Instance(len(self.instances), self._env.now)
        self.instances.append(instance)
        self._tell(instance, State.PENDING, "")
        return instance

    def _one_more(self) -> None:
        """One is asked for: from the pool if somebody waits there, else it starts."""
        if self._pool:
            self._hand_one_out()
        else:
            self._without_room.append(self._create())
            self._refill_pool()

    def _hand_one_out(self) -> Instance:
        """The one that has waited longest in the pool serves from now on, and another starts for the pool."""
        instance = self._pool.popleft()
        instance.created_seconds = self._env.now
        self._enter(instance, State.STARTING, "handed out from the pool")
        self._processes[instance] = self._env.process(self._hand_out(instance))
        self._refill_pool()
        return instance

    def _refill_pool(self) -> None:
        """Start as many for the pool as it lacks."""
        lacking = self._scenario.pool.size - len(self._pool) - len(self._for_pool)
        for _ in range(lacking):
            instance = self._create()
            self._for_pool.add(instance)
            self._without_room_for_pool.append(instance)

    def _hand_out(self, instance: Instance) -> Generator[Any, Any, None]:
        try:
            yield self._env.timeout(self._scenario.pool.hand_out_seconds)
            self._become_ready(instance)
        except Interrupt as interrupt:
            self._end(instance, _asked_for(interrupt))
        finally:
            self._processes.pop(instance, None)

    # -- one comes up

    def _bring_up(self, instance: Instance, machine: Machine) -> Generator[Any, Any, None]:
        """The platform starts, the application starts in it, and then it gets requests or waits in the pool."""
        settings = self._scenario.start_failures
        try:
            started = yield from start_in_spite_of_failures(
                self._env,
                lambda: self._start(instance, machine),
                settings,
                lambda: float(self._failure_lots.random()),
                failed=lambda count, wait: self._back_off(instance, machine, wait),
            )
            if not started:
                self._give_up(instance)
                return
            yield self._env.timeout(self._until_seen_ready(instance))
        except Interrupt as interrupt:
            self._end(instance, _asked_for(interrupt))
        else:
            self._site.running[machine.name] += 1
            if instance in self._for_pool and self._without_room:
                # Somebody waits for a machine: better this one serves than that it waits in the pool.
                self._for_pool.remove(instance)
                self._enter(self._without_room.popleft(), State.STOPPED, "one that had started for the pool serves")
                self._become_ready(instance)
                self._refill_pool()
            elif instance in self._for_pool:
                self._for_pool.remove(instance)
                self._enter(instance, State.POOLED)
                self._pool.append(instance)
            else:
                self._become_ready(instance)
        finally:
            self._processes.pop(instance, None)

    def _start(self, instance: Instance, machine: Machine) -> Generator[Any, Any, float]:
        """One attempt: the platform's phases, and then the program's own."""
        scenario, now = self._scenario, self._env.now
        image = scenario.application.image
        pulls = scenario.warmth == "cold" and image is not None and not machine.images.has(image)
        self._enter(instance, State.PULLING if pulls else State.STARTING)

        def observe(phase: Phase, began: float, ended: float) -> None:
            if phase is UNPACK and instance.state is State.PULLING:
                self._enter(instance, State.STARTING)

        yield from start_up(
            machine,
            self._profile,
            observe=observe,
            running=self._site.running[machine.name],
            image=image,
            warmth=scenario.warmth,
            registry=self._site.registry,
            factor=self._factor(instance),
        )
        if image is not None:
            self._holds_image.add(instance)
        self._program_begins(instance, machine)
        yield self._env.timeout(scenario.application.ready_seconds)
        return float(self._env.now - now)

    def _program_begins(self, instance: Instance, machine: Machine) -> None:
        """From now on its program uses memory as it runs, and health checks probe it."""
        self._began[instance] = self._env.now
        machine.memory.restart_program(instance.number, now=self._env.now)
        self.memory_changed(machine)

    def _factor(self, instance: Instance) -> float:
        """How many times as long as the median this start takes, lognormal; the same on every platform."""
        variation = self._scenario.start_variation
        if not variation:
            return 1.0
        sigma = math.sqrt(math.log1p(variation**2))
        return float(self._streams.stream(f"start {instance.number} {len(instance.history)}").lognormal(0.0, sigma))

    def _give_up(self, instance: Instance) -> None:
        """It has failed for good. Another is tried in its place after the longest wait."""
        for_pool = instance in self._for_pool
        self._for_pool.discard(instance)
        self._end(instance, State.FAILED, "its start failed too often")
        another = self._create()
        another.replaces = instance.number
        if for_pool:
            self._for_pool.add(another)
        wait = self._scenario.start_failures.back_off.cap_seconds
        self._env.process(self._replace(another, max(wait, _SHORTEST_BACK_OFF)))

    def _back_off(self, instance: Instance, machine: Machine, wait: float) -> None:
        self._let_image_go(instance, machine)
        self._enter(instance, State.BACKING_OFF, f"the start failed; again in {wait:g} s")

    def _until_seen_ready(self, instance: Instance) -> float:
        """How long until the balancer has learned that the instance takes requests."""
        checks = self._scenario.health_check
        if checks is None:
            return 0.0
        return checks.seconds_until_seen_ready(self._began[instance], self._env.now, self._phase(instance))

    def until_seen_gone(self, instance: Instance) -> float:
        """How long until the balancer has learned that a ready instance has gone just now."""
        checks = self._scenario.health_check
        if checks is None:
            return 0.0
        return checks.seconds_until_seen_gone(self._began[instance], self._env.now, self._phase(instance))

    def _phase(self, instance: Instance) -> float:
        """When in a period its probes come."""
        return float(self._streams.stream(f"health {instance.number}").random())

    def _become_ready(self, instance: Instance) -> None:
        if instance.machine is None:
            raise SimulatorError(f"instance {instance.number} is on no machine, so it cannot take requests")
        weights = getattr(self._scenario.balancer, "weights", (1.0,))
        instance.slot = self._site.add_to_plane(instance, instance.machine, weights[instance.number % len(weights)])
        self._enter(instance, State.READY)
        crash = draw_crash(self._scenario.faults, self._streams, instance.number)
        if math.isfinite(crash.age_seconds):
            self._env.process(self._crash(instance, instance.slot, crash))

    def _crash(self, instance: Instance, slot: int, crash: Crash) -> Generator[Any, Any, None]:
        yield self._env.timeout(crash.age_seconds)
        if instance.state is State.READY and instance.slot == slot:
            self.crashed(instance, crash)

    # -- one goes down as it should

    def take_down(self, instance: Instance) -> None:
        """A ready instance finishes its requests first; one that is not ready just ends."""
        if instance.state is State.PENDING:
            for line in (self._without_room, self._without_room_for_pool):
                if instance in line:
                    line.remove(instance)
            self._for_pool.discard(instance)
            self._enter(instance, State.STOPPED)
        elif instance in self._processes:
            self._processes[instance].interrupt(State.STOPPED)
        elif instance.state is State.POOLED:
            self._pool.remove(instance)
            self._end(instance, State.STOPPED)
        elif instance.slot is not None:
            empty = self._plane.drain(instance.slot)
            self._enter(instance, State.DRAINING)
            drained = self._env.event()
            if empty:
                drained.succeed()
            else:
                self._drained[instance.slot] = drained
            self._processes[instance] = self._env.process(self._drain(instance, instance.slot, drained))

    def move_away(self, instance: Instance) -> None:
        """Take it down where it is; if it was wanted, another starts elsewhere at the same time."""
        wanted = self._is_wanted(instance)
        if instance.is_over or instance.state is State.DRAINING:
            return
        self._for_pool.discard(instance)
        self.take_down(instance)
        if wanted:
            self._one_more()
        else:
            self._refill_pool()
        self.place_those_without_room()

    def drained(self, slot: int) -> None:
        """The data plane tells that an instance has served its last request."""
        drained = self._drained.pop(slot, None)
        if drained is not None:
            drained.succeed()

    def _drain(self, instance: Instance, slot: int, drained: Event) -> Generator[Any, Any, None]:
        """Until its last request is served, or until its time is over and what is left is cut off."""
        patience = self._scenario.draining_seconds
        try:
            if patience is None:
                yield drained
            else:
                yield drained | self._env.timeout(patience)
                if not drained.triggered:
                    del self._drained[slot]
                    self._plane.kill(slot)
        except Interrupt as interrupt:
            self._drained.pop(slot, None)
            self._end(instance, _asked_for(interrupt))
        else:
            self._end(instance, State.STOPPED)
        finally:
            self._processes.pop(instance, None)

    # -- one is lost

    def lose(self, instance: Instance, why: str, *, replaced_after: float = 0.0, back_off: bool = False) -> int:
        """An instance ends at once, with all that is in it; another takes its place, unless it was on its way out.

        Args:
            instance: one that has a machine.
            why: one sentence.
            replaced_after: seconds until another is asked for, or until the balancer has noticed if that is later.
            back_off: whether the one in its place also waits, longer each time, as after a start that failed.

        Returns:
            How many requests were lost with it.
        """
        failures = self._failures_in_a_row(instance) if back_off else 0
        if back_off:
            replaced_after = max(replaced_after, self._back_off_seconds(failures))
        wanted, slot, state = self._is_wanted(instance), instance.slot, instance.state
        lost, unnoticed = 0, 0.0
        if state in (State.READY, State.DRAINING) and slot is not None:
            unnoticed = self.until_seen_gone(instance) if state is State.READY else 0.0
            lost = self._plane.kill(slot, routable=unnoticed > 0)
            if unnoticed > 0:
                self._env.process(self._leave_out(instance, slot, unnoticed))
        for_pool = state is State.POOLED or instance in self._for_pool
        if state is State.POOLED:
            self._pool.remove(instance)
        self._for_pool.discard(instance)
        if instance in self._processes:
            self._processes[instance].interrupt(State.FAILED)
            # Whoever asks next must see that it is gone, and not only when the interrupt has arrived.
            self._enter(instance, State.FAILED, why)
        else:
            self._end(instance, State.FAILED, why)
        if wanted or for_pool:
            another = self._create()
            another.replaces, another.failures = instance.number, failures
            if for_pool:
                self._for_pool.add(another)
            self._env.process(self._replace(another, max(replaced_after, unnoticed)))
        return lost

    def _back_off_seconds(self, failures: int) -> float:
        """How long to wait after so many failures in a row; never nothing, or it would go on for ever at one moment."""
        return max(self._scenario.start_failures.back_off.seconds(failures), _SHORTEST_BACK_OFF)

    def _failures_in_a_row(self, instance: Instance) -> int:
        """How often what is in this place has failed by now, without a longer time of health between."""
        ready = next((seconds for seconds, state in reversed(instance.history) if state is State.READY), None)
        healthy = 0.0 if ready is None else self._env.now - ready
        return 1 + (0 if healthy >= self._scenario.start_failures.reset_after_seconds else instance.failures)

    def restart_program(self, instance: Instance, why: str) -> int:
        """The program in a ready instance ends and is started again where it is; gives the requests that it lost."""
        if instance.slot is None or instance.machine is None:
            return 0
        unnoticed = self.until_seen_gone(instance)
        lost = self._plane.kill(instance.slot, routable=unnoticed > 0)
        if unnoticed > 0:
            self._env.process(self._leave_out(instance, instance.slot, unnoticed))
        instance.failures = self._failures_in_a_row(instance)
        instance.slot = None
        self._enter(instance, State.STARTING, why)
        self._processes[instance] = self._env.process(self._begin_again(instance, instance.machine))
        return lost

    def _begin_again(self, instance: Instance, machine: Machine) -> Generator[Any, Any, None]:
        """The program waits, longer each time, as after a start that failed, and begins where it was."""
        machine.memory.hold_program(instance.number, now=self._env.now)
        self.memory_changed(machine)
        try:
            yield self._env.timeout(self._back_off_seconds(instance.failures))
            self._program_begins(instance, machine)
            yield self._env.timeout(self._scenario.application.ready_seconds)
            yield self._env.timeout(self._until_seen_ready(instance))
        except Interrupt as interrupt:
            self._end(instance, _asked_for(interrupt))
        else:
            self._become_ready(instance)
        finally:
            self._processes.pop(instance, None)

    def _replace(self, another: Instance, seconds: float) -> Generator[Any, Any, None]:
        """Another is wanted from now on, but nobody knows before some time has passed."""
        yield self._env.timeout(seconds)
        if another.state is not State.PENDING:
            return
        if another in self._for_pool:
            self._without_room_for_pool.append(another)
        elif self._pool:
            self._hand_one_out().replaces = another.replaces
            self._enter(another, State.STOPPED, "one from the pool serves in its place")
        else:
            self._without_room.append(another)
        self.place_those_without_room()

    def _leave_out(self, instance: Instance, slot: int, seconds: float) -> Generator[Any, Any, None]:
        yield self._env.timeout(seconds)
        self._plane.withdraw(slot)
        self._log.write("route", self._env.now, instance=instance.number, reason="its health checks failed: left out")

    def _end(self, instance: Instance, state: State, why: str = "") -> None:
        """Its machine has room again, which may be what another waits for."""
        machine = instance.machine
        if not instance.is_over:
            self._enter(instance, state, why)
        self._for_pool.discard(instance)
        if machine is None:
            return
        self._let_image_go(instance, machine)
        if any(entered in (State.READY, State.POOLED) for _, entered in instance.history):
            self._site.running[machine.name] -= 1
        self._site.release(instance)
        self._began.pop(instance, None)
        self.memory_changed(machine)
        self.place_those_without_room()

    def _let_image_go(self, instance: Instance, machine: Machine) -> None:
        image = self._scenario.application.image
        if image is not None and instance in self._holds_image:
            self._holds_image.remove(instance)
            machine.images.release(image)

    def _enter(self, instance: Instance, state: State, why: str = "") -> None:
        self.ready += (state is State.READY) - (instance.state is State.READY)
        instance.enter(state, self._env.now)
        self._tell(instance, state, why)

    def _tell(self, instance: Instance, state: State, why: str) -> None:
        machine = instance.machine
        self._log.write(
            _EVENTS[state],
            self._env.now,
            instance=instance.number,
            machine=None if machine is None else machine.name,
            reason=why or None,
        )


def _asked_for(interrupt: Interrupt) -> State:
    """The state that whoever interrupts wants the instance to end in."""
    return State(str(interrupt.cause))
