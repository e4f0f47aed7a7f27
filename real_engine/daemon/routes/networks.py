"""The API's calls under /networks."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from real_engine.errors import Forbidden, InvalidParameter, NotFound
from real_engine.explain.recorder import observer, span
from real_engine.filters import Filters, parse_filters
from real_engine.http.messages import Request, Response
from real_engine.http.router import Router
from real_engine.networks import Network, Networks, NetworkSpec
from real_engine.times import parse_moment

if TYPE_CHECKING:
    from real_engine.daemon.app import Daemon

Json = dict[str, Any]

_LIST_FILTERS = ("dangling", "driver", "id", "idOrName", "label", "name", "scope", "type")
_PRUNE_FILTERS = ("label", "label!", "until")
_SCOPE = "local"


class NetworkRoutes:
    """What a request about networks means, and how the answer looks."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    @property
    def _networks(self) -> Networks:
        networks: Networks = self._daemon.networks
        return networks

    def list_all(self, request: Request) -> Response:
        """GET /networks."""
        filters = parse_filters(request.query.get("filters"))
        filters.check(_LIST_FILTERS)
        kinds = filters.get("type")
        for kind in kinds:
            if kind not in ("builtin", "custom"):
                raise InvalidParameter(f"invalid filter: 'type'='{kind}'")
        found = [each for each in self._networks.list() if self._matches(each, filters)]
        return Response.json([self._shown(each, with_containers=False) for each in found])

    def _matches(self, network: Network, filters: Filters) -> bool:
        """Whether the filters let a network through (moby daemon/network/filter.go)."""
        if "dangling" in filters:
            dangling = not network.predefined and not self._networks.endpoints(network.id)
            if filters.flag("dangling") != dangling:
                return False
        return (
            filters.exact("driver", network.driver)
            and filters.search("name", network.name)
            and filters.search("id", network.id)
            and (
                "idOrName" not in filters
                or filters.exact("idOrName", network.id)
                or filters.exact("idOrName", network.name)
            )
            and filters.labels("label", network.labels)
            and filters.exact("scope", _SCOPE)
            and filters.exact("type", "builtin" if network.predefined else "custom")
        )

    def inspect(self, request: Request) -> Response:
        """GET /networks/{id}."""
        term = request.match["id"]
        scope = request.query.get("scope")
        try:
            if scope not in ("", _SCOPE):
                raise NotFound(f"network {term} not found")
            network = self._networks.get(term)
        except InvalidParameter as error:  # the daemon words it another way here than where it removes one
            ambiguous = re.fullmatch(r"network (.*) is ambiguous \((.*)\)", str(error), re.DOTALL)
            if ambiguous is None:
                raise
            raise InvalidParameter(f"{ambiguous[2]}: network {ambiguous[1]} is ambiguous") from None
        return Response.json(self._shown(network, with_containers=True, verbose=request.query.flag("verbose")))

    def _shown(self, network: Network, *, with_containers: bool, verbose: bool = False) -> Json:
        pools = [dict(pool) for pool in network.given_pools] or [pool.to_json() for pool in network.pools]
        pools.sort(key=lambda pool: ":" in str(pool.get("Subnet", "")))  # IPv4 first, however they were asked for
        shown: Json = {
            "Name": network.name,
            "Id": network.id,
            "Created": network.created,
            "Scope": _SCOPE,
            "Driver": network.driver,
            "EnableIPv6": network.enable_ipv6,
            "IPAM": {
                "Driver": "default",
                "Options": None if network.ipam_options is None else dict(network.ipam_options),
                "Config": pools,
            },
            "Internal": network.internal,
            "Attachable": network.attachable,
            "Ingress": False,
            "ConfigFrom": {"Network": network.config_from},
            "ConfigOnly": network.config_only,
            "Containers": {},
            "Options": dict(network.options),
            "Labels": dict(network.labels),
        }
        if with_containers:
            shown["Containers"] = {each.container_id: each.shown() for each in self._networks.endpoints(network.id)}
        if verbose:
            shown["Services"] = {}
        return shown

    def create(self, request: Request) -> Response:
        """POST /networks/create."""
        body = _object(request.json(required=True), "NetworkCreateRequest")
        with span("network", "MakeNetwork", "networks/<id>.json, then the kernel"):
            network = self._networks.create(network_spec(body), observer())
        return Response.json({"Id": network.id, "Warning": network.warning}, status=201)

    def remove(self, request: Request) -> Response:
        """DELETE /networks/{id}."""
        self._networks.remove(request.match["id"])
        return Response(status=204)

    def connect(self, request: Request) -> Response:
        """POST /networks/{id}/connect."""
        body = _object(request.json(required=True), "NetworkConnect")
        container = _text(body, "Container", "NetworkConnect")
        settings = body.get("EndpointConfig") or {}
        _object(settings, "NetworkConnect.EndpointConfig")
        self._check_named(container)
        self._daemon.containers.connect_network(container, request.match["id"], settings)
        return Response(status=200)

    def disconnect(self, request: Request) -> Response:
        """POST /networks/{id}/disconnect."""
        body = _object(request.json(required=True), "NetworkDisconnect")
        container = _text(body, "Container", "NetworkDisconnect")
        force = body.get("Force", False)
        if not isinstance(force, bool):
            raise _wrong_type(force, "NetworkDisconnect.Force", "bool")
        self._check_named(container)
        self._daemon.containers.disconnect_network(container, request.match["id"], force=force)
        return Response(status=200)

    @staticmethod
    def _check_named(container: str) -> None:
        if not container:
            raise InvalidParameter('invalid name or ID supplied: ""')

    def prune(self, request: Request) -> Response:
        """POST /networks/prune."""
        filters = parse_filters(request.query.get("filters"))
        filters.check(_PRUNE_FILTERS)
        until = [parse_moment(text) for text in filters.get("until")]
        if len(until) > 1:
            raise InvalidParameter("more than one until filter specified")

        def wanted(network: Network) -> bool:
            created = parse_moment(network.created)
            early = not until or created is None or until[0] is None or created <= until[0]
            return early and filters.match_labels(network.labels)

        names = self._networks.prune(wanted)
        if names:
            self._daemon.events.publish("network", "prune", "", {"reclaimed": "0"})
        return Response.json({"NetworksDeleted": list(names) or None})


def network_spec(body: Mapping[str, Any]) -> NetworkSpec:
    """What the body of a request for a network asks for.

    Raises:
        InvalidParameter: a field is of another type than the API says.
    """
    kind = "NetworkCreateRequest"
    if _flag(body, "Ingress", kind):
        raise Forbidden("Ingress network can only be global scope network")
    form = _object(body.get("ConfigFrom") or {}, f"{kind}.ConfigFrom")
    ipam = _object(body.get("IPAM") or {}, f"{kind}.IPAM")
    pools = ipam.get("Config") or []
    if not isinstance(pools, list):
        raise _wrong_type(pools, f"{kind}.IPAM.Config", "[]network.IPAMConfig")
    options = ipam.get("Options")
    return NetworkSpec(
        name=_text(body, "Name", kind),
        driver=_text(body, "Driver", kind) or "bridge",
        internal=_flag(body, "Internal", kind),
        attachable=_flag(body, "Attachable", kind),
        enable_ipv6=_flag(body, "EnableIPv6", kind),
        ipam_driver=_text(ipam, "Driver", f"{kind}.IPAM") or "default",
        ipam_options=None if options is None else _texts(ipam, "Options", f"{kind}.IPAM"),
        pools=tuple(_pool(pool, f"{kind}.IPAM.Config") for pool in pools),
        options=_texts(body, "Options", kind),
        labels=_texts(body, "Labels", kind),
        check_duplicate=_flag(body, "CheckDuplicate", kind),
        scope=_text(body, "Scope", kind),
        config_only=_flag(body, "ConfigOnly", kind),
        config_from=_text(form, "Network", f"{kind}.ConfigFrom"),
    )


def _pool(pool: object, where: str) -> Json:
    given = _object(pool, where)
    kept: Json = {name: _text(given, name, where) for name in ("Subnet", "IPRange", "Gateway") if given.get(name)}
    auxiliary = _texts(given, "AuxiliaryAddresses", where)
    return kept | ({"AuxiliaryAddresses": auxiliary} if auxiliary else {})


def _object(value: object, where: str) -> Json:
    if not isinstance(value, dict):
        raise _wrong_type(value, where, where)
    return value


def _text(body: Mapping[str, Any], name: str, where: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong_type(value, f"{where}.{name}", "string")
    return value


def _flag(body: Mapping[str, Any], name: str, where: str) -> bool:
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise _wrong_type(value, f"{where}.{name}", "bool")
    return value


def _texts(body: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    value = _object(body.get(name) or {}, f"{where}.{name}")
    for each in value.values():
        if not isinstance(each, str):
            raise _wrong_type(each, f"{where}.{name}", "string")
    return value


def _wrong_type(value: object, field: str, wanted: str) -> InvalidParameter:
    """The words of Go's encoding/json for a value of the wrong type."""
    kinds = ((bool, "bool"), (str, "string"), ((int, float), "number"), (list, "array"), (dict, "object"))
    found = next((name for kind, name in kinds if isinstance(value, kind)), "null")
    return InvalidParameter(f"json: cannot unmarshal {found} into Go struct field {field} of type {wanted}")


def register(router: Router, daemon: "Daemon") -> None:
    """Add the calls to the router, and tell the daemon's listeners what happens to networks."""
    routes = NetworkRoutes(daemon)
    networks: Networks = daemon.networks
    networks.publish_event = daemon.events.publish
    router.add("GET", "/networks", routes.list_all)
    router.add("POST", "/networks/create", routes.create)
    router.add("POST", "/networks/prune", routes.prune)
    router.add("GET", "/networks/{id}", routes.inspect)
    router.add("DELETE", "/networks/{id}", routes.remove)
    router.add("POST", "/networks/{id}/connect", routes.connect)
    router.add("POST", "/networks/{id}/disconnect", routes.disconnect)
