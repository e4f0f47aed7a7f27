"""The API's calls under /plugins, for volume plugins that run beside the engine and are spoken to over their socket.

A managed plugin, which the engine would pull from a registry and run, is not what `install` means here: it takes a
plugin's socket or spec by its name.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from real_engine.errors import InvalidParameter, NotImplementedHere
from real_engine.filters import parse_filters
from real_engine.http.messages import Request, Response, json_line
from real_engine.http.router import Router
from real_engine.plugins.store import VOLUME_DRIVER_TYPE, Plugin, Plugins, short_name
from real_engine.volumes.store import Volumes

if TYPE_CHECKING:
    from real_engine.daemon.app import Daemon

_MANAGED = "this engine runs no managed plugins: start the plugin beside it, and install it by its socket's name"
_LONGEST_TIMEOUT = 600  # seconds


class PluginRoutes:
    """What a request about plugins means, and how the answer looks."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._volumes: Volumes = daemon.volumes
        self._plugins: Plugins = self._volumes.plugins

    def list_all(self, request: Request) -> Response:
        """GET /plugins."""
        filters = parse_filters(request.query.get("filters"))
        filters.check(("enabled", "capability"))
        capabilities = (VOLUME_DRIVER_TYPE, VOLUME_DRIVER_TYPE.partition(".")[2].partition("/")[0])
        wanted = filters.flag("enabled") if filters.get("enabled") else None
        found = [
            self._plugins.to_json(plugin)
            for plugin in self._plugins.installed()
            if (wanted is None or plugin.enabled == wanted)
            and any(filters.exact("capability", capability) for capability in capabilities)
        ]
        return Response.json(found)

    def privileges(self, request: Request) -> Response:
        """GET /plugins/privileges: a program that somebody else has started needs none of us."""
        self._plugins.check_found(_required(request, "remote"))
        return Response.json([])

    def pull(self, request: Request) -> Response:
        """POST /plugins/pull."""
        remote = _required(request, "remote")
        plugin = self._plugins.install(remote, request.query.get("name"))
        self._publish(plugin, "pull")
        # The command line enables what this header names (moby api/server/router/plugin).
        return Response(body=_progress(plugin, remote), headers={"Docker-Plugin-Name": f"{plugin.name}:latest"})

    def inspect(self, request: Request) -> Response:
        """GET /plugins/{name}/json."""
        return Response.json(self._plugins.to_json(self._plugins.get(request.match["name"])))

    def enable(self, request: Request) -> Response:
        """POST /plugins/{name}/enable."""
        seconds = min(max(0, request.query.integer("timeout")), _LONGEST_TIMEOUT)
        self._publish(self._plugins.enable(request.match["name"], seconds), "enable")
        return Response(status=200)

    def disable(self, request: Request) -> Response:
        """POST /plugins/{name}/disable."""
        name = request.match["name"]
        plugin = self._plugins.disable(name, self._used(name), force=request.query.flag("force"))
        self._publish(plugin, "disable")
        return Response(status=200)

    def remove(self, request: Request) -> Response:
        """DELETE /plugins/{name}."""
        name = request.match["name"]
        plugin = self._plugins.remove(name, self._used(name), force=request.query.flag("force"))
        self._publish(plugin, "remove")
        return Response.json(self._plugins.to_json(plugin))

    def configure(self, request: Request) -> Response:
        """POST /plugins/{name}/set."""
        settings = request.json(required=True)
        if not isinstance(settings, list) or not all(isinstance(setting, str) for setting in settings):
            raise InvalidParameter("json: cannot unmarshal into Go value of type []string")
        self._plugins.configure(request.match["name"], settings)
        return Response(status=204)

    def refuse(self, request: Request) -> Response:
        """POST /plugins/create, and upgrade and push of one: for managed plugins."""
        if "name" in request.match:
            self._plugins.get(request.match["name"])
        raise NotImplementedHere(_MANAGED)

    def _used(self, name: str) -> list[str]:
        """The volumes of a plugin that containers use."""
        return self._volumes.used_of_driver(self._plugins.get(name).name)

    def _publish(self, plugin: Plugin, action: str) -> None:
        name = f"{plugin.name}:latest"
        self._daemon.events.publish("plugin", action, plugin.id, {"name": name})


def _required(request: Request, parameter: str) -> str:
    value = request.query.get(parameter)
    if not value:
        raise InvalidParameter(f'bad parameter: "{parameter}" cannot be empty')
    return value


def _progress(plugin: Plugin, remote: str) -> Iterator[bytes]:
    for line in (
        {"status": f"Pulling from {short_name(remote)}", "id": "latest"},
        {"status": f"Digest: sha256:{plugin.id}"},
        {"status": f"Status: Found the plugin {plugin.found_as} beside the engine"},
    ):
        yield json_line(line, b"\r\n")


def register(router: Router, daemon: "Daemon") -> None:
    """Add the calls to the router."""
    routes = PluginRoutes(daemon)
    router.add("GET", "/plugins", routes.list_all)
    router.add("GET", "/plugins/privileges", routes.privileges)
    router.add("POST", "/plugins/pull", routes.pull)
    router.add("POST", "/plugins/create", routes.refuse)
    router.add("GET", "/plugins/{name*}/json", routes.inspect)
    router.add("POST", "/plugins/{name*}/enable", routes.enable)
    router.add("POST", "/plugins/{name*}/disable", routes.disable)
    router.add("POST", "/plugins/{name*}/set", routes.configure)
    router.add("POST", "/plugins/{name*}/upgrade", routes.refuse)
    router.add("POST", "/plugins/{name*}/push", routes.refuse)
    router.add("DELETE", "/plugins/{name*}", routes.remove)
