"""A plugin as a driver of volumes: VolumeDriver.Create, Remove, Mount, Unmount, Path, Get, List, Capabilities.

Source: docs.docker.com/engine/extend/plugins_volume; moby volume/drivers/proxy.go and adapter.go.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from real_engine.errors import EngineError, NotFound
from real_engine.plugins.protocol import LONG_SECONDS, SHORT_SECONDS, VOLUME_DRIVER, PluginClient
from real_engine.volumes.drivers import DriverVolume


class PluginVolumeDriver:
    """Volumes that the plugin behind `client` keeps. Thread-safe."""

    def __init__(self, client: PluginClient) -> None:
        self.name = client.name
        self._client = client
        self._scope = ""

    @property
    def scope(self) -> str:
        """What the plugin says of itself, `local` or `global`; `local` where it says nothing."""
        if not self._scope:
            try:
                capabilities = self._call("Capabilities", {}, SHORT_SECONDS).get("Capabilities") or {}
                said = str(capabilities.get("Scope") or "local").lower()
            except (EngineError, AttributeError):  # older plugins don't know the call
                said = "local"
            self._scope = said if said in ("local", "global") else "local"
        return self._scope

    def create(self, name: str, options: Mapping[str, str]) -> None:
        """Make a volume.

        Raises:
            EngineError: what the plugin says.
        """
        self._call("Create", {"Name": name, "Opts": dict(options)})

    def remove(self, name: str) -> None:
        """Remove a volume.

        Raises:
            EngineError: what the plugin says.
        """
        self._call("Remove", {"Name": name})

    def get(self, name: str) -> DriverVolume:
        """The volume of that name.

        Raises:
            NotFound: the plugin has none.
            EngineError: it doesn't answer.
        """
        try:
            found = self._call("Get", {"Name": name}, SHORT_SECONDS).get("Volume")
        except NotFound:
            raise
        except EngineError as error:
            if str(error).startswith(f"plugin {self.name}: dial"):
                raise
            raise NotFound(str(error)) from error
        if not isinstance(found, dict):
            raise NotFound("no such volume")
        return _volume(found, name)

    def list(self) -> Sequence[DriverVolume]:
        """Every volume that the plugin has.

        Raises:
            EngineError: it doesn't answer.
        """
        found = self._call("List", {}, SHORT_SECONDS).get("Volumes") or []
        if not isinstance(found, list):
            raise EngineError(f"VolumeDriver.List: plugin {self.name} answered no list")
        return [_volume(one, "") for one in found if isinstance(one, dict) and one.get("Name")]

    def mount(self, name: str, identifier: str) -> Path:
        """Make the content available; returns the directory that the plugin names.

        Raises:
            EngineError: what the plugin says, or that it names no absolute path.
        """
        answer = self._call("Mount", {"Name": name, "ID": identifier})
        place = str(
            answer.get("Mountpoint") or self._call("Path", {"Name": name}, SHORT_SECONDS).get("Mountpoint") or ""
        )
        if not place.startswith("/"):
            raise EngineError(f"VolumeDriver.Mount: plugin {self.name} names no directory for volume {name}")
        return Path(place)

    def unmount(self, name: str, identifier: str) -> None:
        """The user `identifier` needs the content no more.

        Raises:
            EngineError: what the plugin says.
        """
        self._call("Unmount", {"Name": name, "ID": identifier})

    def _call(self, method: str, body: dict[str, Any], seconds: float = LONG_SECONDS) -> dict[str, Any]:
        return self._client.call(f"{VOLUME_DRIVER}.{method}", body, seconds)


def _volume(told: Mapping[str, Any], name: str) -> DriverVolume:
    status = told.get("Status")
    return DriverVolume(
        name=str(told.get("Name") or name),
        mountpoint=str(told.get("Mountpoint") or ""),
        created_at=str(told.get("CreatedAt") or ""),
        status=status if isinstance(status, dict) else {},
    )
