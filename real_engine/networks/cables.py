"""Cables between the host and containers: laid, given their routes, cut, and swept up behind containers that ended."""

import contextlib
import errno
import ipaddress
import logging
import threading
from collections.abc import Iterable

from real_engine.linux import netlink
from real_engine.linux.netlink import RouteSocket
from real_engine.networks import bridge, macvlan
from real_engine.networks.catalogue import Catalogue
from real_engine.networks.sandbox import Sandbox
from real_engine.networks.spec import Endpoint, Network
from real_engine.networks.steps import Observer, Operation, Site, run

_log = logging.getLogger("onggi")
_GONE_SECONDS = 2.0  # what the kernel has time for to take a cable away with its namespace


def cut(sandbox: Sandbox, endpoint: Endpoint) -> None:
    """Remove the container's interface, at whichever end it can be."""
    try:
        if endpoint.host_interface:
            with RouteSocket() as route:
                route.do(netlink.delete_link(endpoint.host_interface))
        else:
            with RouteSocket(sandbox.namespace) as inside:
                inside.do(netlink.delete_link(endpoint.interface))
    except OSError as error:
        if error.errno != errno.ENODEV:  # it went by itself, or had not come to be
            _log.error("interface %s: %s", endpoint.host_interface or endpoint.interface, error)


def attach(
    catalogue: Catalogue, network: Network, sandbox: Sandbox, endpoint: Endpoint, observer: Observer | None
) -> None:
    """Make a container's interface, and give it the default routes that it should have."""
    gateways = tuple(ipaddress.ip_address(each) for own, each in sandbox.routes_to_change() if own.id == endpoint.id)
    routes = (bridge.RouteBy(endpoint.interface, gateways),) if gateways else ()
    with RouteSocket() as host, RouteSocket(sandbox.namespace) as inside:
        site = Site(host, inside, sandbox.namespace)
        try:
            run((*_plan(catalogue, network, endpoint), *routes), site, observer)
        except OSError as error:
            if error.errno == errno.EXFULL:
                raise bridge.full_bridge(network, endpoint.host_interface) from error
            if network.driver != "bridge" or error.errno not in (errno.EINVAL, errno.ENODEV):
                raise
            catalogue.make_bridge(network)  # somebody has removed it
            run((*_plan(catalogue, network, endpoint), *routes), site, observer)
    sandbox.routed |= {gateway.version: network.id for gateway in gateways}


def _plan(catalogue: Catalogue, network: Network, endpoint: Endpoint) -> tuple[Operation, ...]:
    given = ((endpoint.ipv4, endpoint.ipv4_prefix), (endpoint.ipv6, endpoint.ipv6_prefix))
    addresses = [ipaddress.ip_interface(f"{address}/{prefix}") for address, prefix in given if address]
    if network.driver == "macvlan":
        return macvlan.attachment(network, endpoint.interface, endpoint.mac, addresses)
    index = catalogue.bridge_index(network)
    return bridge.attachment(network, index, endpoint.host_interface, endpoint.interface, endpoint.mac, addresses)


def reroute(sandbox: Sandbox, observer: Observer | None) -> None:
    """Give the default routes to the endpoints that should have them."""
    changed = sandbox.routes_to_change()
    if not changed:
        return
    with RouteSocket() as host, RouteSocket(sandbox.namespace) as inside:
        site = Site(host, inside, sandbox.namespace)
        for endpoint, gateway in changed:
            steps = (
                bridge.FindInterface(endpoint.interface),
                bridge.RouteBy(endpoint.interface, (ipaddress.ip_address(gateway),)),
            )
            run(steps, site, observer)
    sandbox.note_routes()


class CableSweeper:
    """Removes the host's ends of cables whose containers have ended, if the kernel hasn't yet.

    It takes them with the namespace in the background, at a hundredth of what it costs to ask for it; but a namespace
    lives on when another container shares it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._timer: threading.Timer | None = None

    def look_at(self, names: Iterable[str]) -> None:
        """Look in a while whether these interfaces have gone."""
        with self._lock:
            self._waiting += list(names)
            if self._waiting and self._timer is None:
                self._timer = threading.Timer(_GONE_SECONDS, self.sweep)
                self._timer.daemon = True
                self._timer.start()

    def sweep(self) -> None:
        """Look now."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        if waiting:
            with RouteSocket() as route:
                for name in waiting:
                    with contextlib.suppress(OSError):  # it has gone
                        route.do(netlink.delete_link(name))
