"""The API's calls under /volumes."""

from typing import TYPE_CHECKING, Any

from real_engine.errors import InvalidParameter, Unavailable
from real_engine.filters import parse_filters
from real_engine.http.messages import Request, Response
from real_engine.http.router import Router
from real_engine.volumes.store import Volumes, check_text_map

if TYPE_CHECKING:
    from real_engine.daemon.app import Daemon

Json = dict[str, Any]

_PRUNES_ANONYMOUS_ONLY = (1, 42)  # since this version of the API; before, every unused volume went
_NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)


class VolumeRoutes:
    """What a request about volumes means, and how the answer looks."""

    def __init__(self, daemon: "Daemon") -> None:
        self._volumes: Volumes = daemon.volumes

    def list_all(self, request: Request) -> Response:
        """GET /volumes."""
        volumes, warnings = self._volumes.find(parse_filters(request.query.get("filters")))
        return Response.json({"Volumes": [volume.to_json() for volume in volumes], "Warnings": warnings or None})

    def create(self, request: Request) -> Response:
        """POST /volumes/create."""
        body = request.json(required=True)
        if not isinstance(body, dict):
            raise InvalidParameter("json: cannot unmarshal into Go value of type volume.CreateOptions")
        if body.get("ClusterVolumeSpec"):
            raise Unavailable(_NO_SWARM)
        name, driver = body.get("Name") or "", body.get("Driver") or ""
        if not isinstance(name, str) or not isinstance(driver, str):
            raise InvalidParameter("json: cannot unmarshal into Go struct field CreateOptions.Name of type string")
        options = check_text_map(body.get("DriverOpts"), "CreateOptions.DriverOpts")
        labels = check_text_map(body.get("Labels"), "CreateOptions.Labels")
        return Response.json(self._volumes.create(name, driver, options, labels).to_json(), status=201)

    def inspect(self, request: Request) -> Response:
        """GET /volumes/{name}."""
        return Response.json(self._volumes.get(request.match["name"]).to_json())

    def update(self, request: Request) -> Response:
        """PUT /volumes/{name}: only a swarm's cluster volumes can be changed."""
        raise Unavailable(_NO_SWARM)

    def remove(self, request: Request) -> Response:
        """DELETE /volumes/{name}."""
        self._volumes.remove(request.match["name"], force=request.query.flag("force"))
        return Response(status=204)

    def prune(self, request: Request) -> Response:
        """POST /volumes/prune."""
        filters = parse_filters(request.query.get("filters"))
        older = request.version is not None and request.version < _PRUNES_ANONYMOUS_ONLY
        if older and "all" in filters:
            raise InvalidParameter("invalid filter 'all'")
        names, reclaimed = self._volumes.prune(filters, everything=older)
        return Response.json({"VolumesDeleted": names, "SpaceReclaimed": reclaimed})

    def disk_usage(self) -> Json:
        """What GET /system/df tells of volumes."""
        return {"Volumes": self._volumes.disk_usage()}


def register(router: Router, daemon: "Daemon") -> None:
    """Add the calls to the router, and tell the daemon's listeners what happens to volumes."""
    routes = VolumeRoutes(daemon)
    volumes: Volumes = daemon.volumes
    volumes.on_event = lambda action, name, attributes: daemon.events.publish("volume", action, name, attributes)
    daemon.on_disk_usage("volume", routes.disk_usage)
    daemon.on_start(volumes.settle)
    router.add("GET", "/volumes", routes.list_all)
    router.add("POST", "/volumes/create", routes.create)
    router.add("POST", "/volumes/prune", routes.prune)
    router.add("GET", "/volumes/{name*}", routes.inspect)
    router.add("PUT", "/volumes/{name*}", routes.update)
    router.add("DELETE", "/volumes/{name*}", routes.remove)
