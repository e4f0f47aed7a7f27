"""Watches the daemons of a project: when one is lost, its replicas are started on the others, and the balancer follows.

Every two seconds each daemon is asked for a ping, with three seconds to answer. One that doesn't is lost: from then on
nothing is asked of it, and the project converges on those that are left, which makes up for the missing replicas. One
that comes back may have its containers still running; the project converges again, which removes what is too much.
How many replicas a service is to have is how many it had before: `scale` may have changed that since.
"""

import threading
from collections.abc import Callable, Mapping, Sequence

from real_engine.compose.balancer import Backend, Balancer, Frontend
from real_engine.compose.convergence import Convergence
from real_engine.compose.fleet import Fleet
from real_engine.compose.host import HostLost
from real_engine.compose.placement import spread_services
from real_engine.compose.project import Project
from real_engine.errors import EngineError, InvalidParameter

_PERIOD_SECONDS = 2.0


def frontends(project: Project, fleet: Fleet) -> dict[Frontend, list[Backend]]:
    """Where the balancer has to listen for the services that are spread, and the replicas behind it.

    Raises:
        InvalidParameter: two services want one port, or a service a range of ports.
        EngineError: what a daemon says.
    """
    found: dict[Frontend, list[Backend]] = {}
    owners: dict[Frontend, str] = {}
    for name in sorted(spread_services(project, fleet)):
        if name not in project.services:
            continue
        for port in project.services[name].ports:
            if port.protocol != "tcp" or not port.published:
                continue
            if not port.published.isdigit():
                raise InvalidParameter(f"service {name}: the balancer needs one port, and not {port.published}")
            frontend = Frontend(port.host_ip or "0.0.0.0", int(port.published))  # noqa: S104 -- as Docker publishes
            if owners.setdefault(frontend, name) != name:
                raise InvalidParameter(f"services {owners[frontend]} and {name} both publish port {frontend.port}")
            found[frontend] = [
                Backend(host.address, int(binding["PublicPort"]), container.name)
                for host, container in fleet.containers(project.name, [name])
                for binding in container.ports
                if container.running and binding.get("PublicPort") and binding["PrivatePort"] == port.target
            ]
    return {frontend: list(dict.fromkeys(backends)) for frontend, backends in found.items()}


class Watch:
    """Checks, converges (unless told not to) and tells; `say` gets a sentence for each thing that happens."""

    def __init__(
        self,
        project: Project,
        fleet: Fleet,
        convergence: Convergence,
        say: Callable[[str], None],
        balancer: Balancer | None = None,
        changed: Callable[[], None] = lambda: None,
        *,
        services: Sequence[str] = (),
        converges: bool = True,
    ) -> None:
        self._project, self._fleet, self._convergence = project, fleet, convergence
        self._say, self._balancer, self._changed = say, balancer, changed
        self._services, self._converges = services, converges
        self._scales: dict[str, int] = {}
        self._complaint = ""
        self._behind: Mapping[Frontend, list[Backend]] = {}
        self._unsettled = False

    def run(self, stop: threading.Event, period_seconds: float = _PERIOD_SECONDS) -> None:
        """Go on until `stop` is set."""
        while not stop.wait(period_seconds):
            self.step()

    def step(self) -> None:
        """Look once, and do what there is to do. What fails is told, and tried again at the next step."""
        lost, back = self._fleet.check()
        for name in lost:
            self._say(f"host {name} is lost" + (": its replicas are started on the others" if self._converges else ""))
        for name in back:
            self._say(f"host {name} is back")
        try:
            if self._converges and (lost or back or self._unsettled):
                self._unsettled = True
                self._convergence.up(self._services, self._scales)
                self._unsettled = False
            elif self._converges:
                self._scales = self._counted()
            self._changed()
            self.balance()
        except HostLost as error:  # in the middle of it: the next look finds out which one
            self._unsettled = True
            self._complain(str(error))
        except EngineError as error:
            self._complain(f"cannot converge: {error}")
        else:
            self._complaint = ""

    def _counted(self) -> dict[str, int]:
        """How many containers each service has, those of which one is there now or was at the last look.

        Numbers are counted, since one that is just being made anew is there twice.
        """
        numbers: dict[str, set[int]] = {name: set() for name in self._scales}
        for _, container in self._fleet.containers(self._project.name):
            if container.service in self._project.document.services:
                numbers.setdefault(container.service, set()).add(container.number)
        return {name: len(found) for name, found in numbers.items()}

    def _complain(self, text: str) -> None:
        """Say what goes wrong, once as long as it is the same."""
        if text != self._complaint:
            self._say(text)
        self._complaint = text

    def balance(self) -> None:
        """Tell the balancer who is there."""
        if self._balancer is None:
            return
        behind = frontends(self._project, self._fleet)
        if behind == self._behind:
            return
        self._balancer.serve(behind)
        self._behind = behind
        for frontend, backends in behind.items():
            names = ", ".join(f"{backend.name} at {backend.address}:{backend.port}" for backend in backends)
            self._say(f"balancing {frontend.address}:{frontend.port} over {names or 'nobody yet'}")
