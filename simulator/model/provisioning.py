"""The machine autoscaler at work: machines are ordered and come minutes later, or never; others are emptied and go."""

from collections.abc import Callable, Generator
from typing import Any

from simpy import Environment

from simulator.control.machines import MachineAutoscalerSettings, MachineDecision, MachineView
from simulator.datacenter.instance import Instance
from simulator.datacenter.machine import Machine
from simulator.eventlog import EventLog
from simulator.model.replica_set import ReplicaSet
from simulator.model.site import Site
from simulator.scenario import Scenario
from simulator.statistics.streams import RandomStreams

_LEAVING = "leaving"


class Provisioning:
    """Adds machines to a site and takes them away.

    Args:
        env: the SimPy environment.
        scenario: what is asked.
        settings: of the machine autoscaler.
        streams: of the replication.
        site: the machines.
        replicas: the instances on them.
        log: is told of what happens.

    Attributes:
        decisions: those that changed something, in order.
        came: called with each machine that comes.

    Raises:
        SimulatorError: not one instance fits on an empty machine.
    """

    def __init__(
        self,
        env: Environment,
        scenario: Scenario,
        settings: MachineAutoscalerSettings,
        streams: RandomStreams,
        site: Site,
        replicas: ReplicaSet,
        log: EventLog,
    ) -> None:
        self._env = env
        self._scenario = scenario
        self._settings = settings
        self._random = streams.stream("machine autoscaler")
        self._phase = float(streams.stream("machine autoscaler phase").random())
        self._site = site
        self._replicas = replicas
        self._log = log
        self._each = site.room_on_an_empty_machine()
        self._policy = settings.build(self._each)
        self._ordered: list[str] = []
        self._orders = 0
        self._leaving: set[str] = set()
        self.decisions: list[MachineDecision] = []
        self.came: Callable[[Machine], None] = lambda machine: None
        env.process(self._look_again_and_again())

    def _look_again_and_again(self) -> Generator[Any, Any, None]:
        """At moments that have nothing to do with the load's."""
        yield self._env.timeout(self._phase * self._policy.scan_seconds)
        while self._env.now < self._scenario.duration_seconds:
            self._decide()
            yield self._env.timeout(self._policy.scan_seconds)

    def _decide(self) -> None:
        now = self._env.now
        decision = self._policy.decide(now, self._replicas.without_room, self._views())
        if not decision.add and not decision.remove:
            return
        self.decisions.append(decision)
        after = decision.machines + decision.add - len(decision.remove)
        self._log.write(
            "scale-decision", now, what="machines", current=decision.machines, desired=after, reason=decision.reason
        )
        for _ in range(decision.add):
            self._env.process(self._order())
        for name in decision.remove:
            self._env.process(self._empty(self._site.machines[name]))

    def _views(self) -> list[MachineView]:
        placer, up = self._site.placer, self._site.up
        there = [
            MachineView(
                name,
                ready=True,
                instances=len(placer.instances_on(machine)),
                room=placer.room_on(machine),
                utilisation=placer.reserved_on(machine),
            )
            if name in up
            # One that is away for a while comes back: it counts, but has no room, and nobody takes it away meanwhile.
            else MachineView(name, ready=True, instances=0, room=0, utilisation=1.0)
            for name, machine in self._site.machines.items()
            if name not in self._leaving
        ]
        return there + [
            MachineView(name, ready=False, instances=0, room=self._each, utilisation=0.0) for name in self._ordered
        ]

    def _order(self) -> Generator[Any, Any, None]:
        """One machine is ordered; it comes, or it is given up."""
        name = f"order-{self._orders}"
        self._orders += 1
        self._ordered.append(name)
        fate = self._settings.draw(self._random)
        yield self._env.timeout(fate.seconds)
        self._ordered.remove(name)
        if not fate.succeeds:
            self._policy.provisioning_failed(self._env.now)
            self._log.write("fault", self._env.now, what="a machine that was ordered never came")
            return
        self._policy.provisioning_succeeded()
        self.came(self._site.add_machine())
        self._replicas.place_those_without_room()

    def _empty(self, machine: Machine) -> Generator[Any, Any, None]:
        """What runs there moves elsewhere; when nothing is left, the machine goes."""
        self._leaving.add(machine.name)
        self._site.close(machine, _LEAVING)
        for number in self._site.placer.instances_on(machine):
            self._replicas.move_away(self._instance(number))
        while self._site.placer.instances_on(machine):
            yield self._site.one_released()
        if machine.name in self._site.machines:
            self._site.remove_machine(machine)
        self._leaving.discard(machine.name)

    def _instance(self, number: int) -> Instance:
        return self._replicas.instances[number]
