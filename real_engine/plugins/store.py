"""Which plugins are installed and enabled, kept in `plugins/plugins.json` of the data root.

A plugin that nobody has installed can be used all the same as soon as its socket is found, as with Docker; one that
has been installed can be disabled.
"""

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from real_engine.errors import Conflict, EngineError, InvalidParameter, NotFound
from real_engine.files import write_durably
from real_engine.plugins.discovery import Address, Discovery
from real_engine.plugins.protocol import VOLUME_DRIVER, PluginClient
from real_engine.plugins.volume_driver import PluginVolumeDriver
from real_engine.volumes.drivers import VolumeDriver

Json = dict[str, Any]

VOLUME_DRIVER_TYPE = "docker.volumedriver/1.0"
_TAG = ":latest"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin that was installed. `name` is what clients call it, `found_as` the name of its socket or spec."""

    name: str
    found_as: str
    enabled: bool

    @property
    def id(self) -> str:
        """64 hexadecimal digits, the same for as long as the names are."""
        return hashlib.sha256(f"{self.name}\0{self.found_as}".encode()).hexdigest()


class Plugins:
    """The plugins of a data root. Thread-safe."""

    def __init__(self, data_root: Path, directories: Sequence[Path] = ()) -> None:
        self._file = data_root / "plugins" / "plugins.json"
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.discovery = Discovery((*directories, self._file.parent))
        self._lock = threading.Lock()
        self._plugins = self._load()
        self._drivers: dict[tuple[str, Address], PluginVolumeDriver] = {}

    # --- for the API -------------------------------------------------------------------------------------------------

    def installed(self) -> list[Plugin]:
        """What is installed, by name."""
        with self._lock:
            return sorted(self._plugins.values(), key=lambda plugin: plugin.name)

    def get(self, name: str) -> Plugin:
        """By name, with or without `:latest`, by id, or by the beginning of an id.

        Raises:
            NotFound: it isn't installed.
        """
        with self._lock:
            found = self._plugins.get(short_name(name))
            if found is None and name:
                like = [plugin for plugin in self._plugins.values() if plugin.id.startswith(name)]
                found = like[0] if len(like) == 1 else None
        if found is None:
            raise NotFound(f'plugin "{name}" not found')
        return found

    def install(self, remote: str, name: str = "") -> Plugin:
        """Install the plugin whose socket or spec is called `remote`, as `name`; it is not enabled yet.

        Raises:
            NotFound: there is no such socket or spec.
            Conflict: the name is taken.
        """
        found_as = short_name(remote)
        self._discover(found_as)
        plugin = Plugin(short_name(name) if name else found_as, found_as, enabled=False)
        with self._lock:
            if plugin.name in self._plugins:
                raise Conflict(f"plugin {plugin.name}{_TAG} already exists")
            self._save({**self._plugins, plugin.name: plugin})
        return plugin

    def check_found(self, remote: str) -> None:
        """Whether there is anything to install under that name.

        Raises:
            NotFound: there is no such socket or spec.
        """
        self._discover(short_name(remote))

    def _discover(self, name: str) -> Address:
        try:
            return self.discovery.find(name)
        except NotFound as error:
            places = ", ".join(map(str, self.discovery.directories))
            raise NotFound(
                f'plugin "{name}" not found: this engine uses plugins that run beside it, '
                f"and there is no socket or spec of that name in {places}"
            ) from error

    def enable(self, name: str, seconds: float = 0) -> Plugin:
        """Enable a plugin, once it has answered that it keeps volumes.

        Raises:
            NotFound: it isn't installed, or its socket is gone.
            Conflict: it is enabled.
            EngineError: it doesn't answer, or keeps no volumes.
        """
        plugin = self.get(name)
        if plugin.enabled:
            raise Conflict(f"plugin {plugin.name}{_TAG} is already enabled")
        address = self._discover(plugin.found_as)
        client = PluginClient(plugin.found_as, address, *((seconds,) if seconds else ()))
        _check_keeps_volumes(client)
        return self._change(plugin, enabled=True)

    def disable(self, name: str, used_by: Sequence[str] = (), *, force: bool = False) -> Plugin:
        """Disable a plugin. `used_by` are the volumes of it that containers use.

        Raises:
            NotFound: it isn't installed.
            Conflict: it is disabled, or is in use and not forced.
        """
        plugin = self.get(name)
        if not plugin.enabled:
            raise Conflict(f"plugin {plugin.name}{_TAG} is already disabled")
        if used_by and not force:
            raise Conflict(f"plugin {plugin.name}{_TAG} is in use")
        return self._change(plugin, enabled=False)

    def remove(self, name: str, used_by: Sequence[str] = (), *, force: bool = False) -> Plugin:
        """Forget a plugin. The program itself, and its volumes, are not ours to end.

        Raises:
            NotFound: it isn't installed.
            Conflict: it is enabled, or is in use, and not forced.
        """
        plugin = self.get(name)
        if not force:
            if used_by:
                raise Conflict(f"plugin {plugin.name}{_TAG} is in use")
            if plugin.enabled:
                raise Conflict(f"plugin {plugin.name}{_TAG} is enabled")
        with self._lock:
            self._save({key: other for key, other in self._plugins.items() if key != plugin.name})
        return plugin

    def configure(self, name: str, settings: Sequence[str]) -> None:
        """Change a plugin's settings: one that runs beside the engine has none that the engine could change.

        Raises:
            NotFound: it isn't installed.
            Conflict: it is enabled.
            InvalidParameter: it has no such setting.
        """
        plugin = self.get(name)
        if plugin.enabled:
            raise Conflict("cannot set on an active plugin, disable plugin before setting")
        for setting in settings:
            key = setting.partition("=")[0]
            raise InvalidParameter(f'setting "{key}" not found in the plugin configuration')

    def to_json(self, plugin: Plugin) -> Json:
        """A plugin as the API describes it; a program of its own has none of a managed plugin's settings."""
        try:
            address = self.discovery.find(plugin.found_as).url
        except EngineError:
            address = ""
        return {
            "Id": plugin.id,
            "Name": plugin.name + _TAG,
            "Enabled": plugin.enabled,
            "PluginReference": plugin.found_as + _TAG,
            "Settings": {"Mounts": [], "Env": [], "Args": [], "Devices": []},
            "Config": {
                "Description": f"a volume plugin that runs beside the engine, at {address or 'a place that is gone'}",
                "Documentation": "https://docs.docker.com/engine/extend/plugins_volume/",
                "Interface": {
                    "Types": [VOLUME_DRIVER_TYPE],
                    "Socket": address,
                    "ProtocolScheme": "moby.plugins.http/v1",
                },
                "Entrypoint": [],
                "WorkDir": "",
                "User": {},
                "Network": {"Type": "host"},
                "Linux": {"Capabilities": [], "AllowAllDevices": False, "Devices": []},
                "PropagatedMount": "",
                "IpcHost": False,
                "PidHost": False,
                "Mounts": [],
                "Env": [],
                "Args": {"Name": "", "Description": "", "Settable": [], "Value": []},
            },
        }

    # --- for volumes -------------------------------------------------------------------------------------------------

    def volume_driver(self, name: str) -> VolumeDriver:
        """The plugin of that name as a volume driver.

        Raises:
            NotFound: there is no such plugin, or it is disabled.
            EngineError: it doesn't answer, or keeps no volumes.
        """
        plain = short_name(name)
        with self._lock:
            plugin = self._plugins.get(plain)
        if plugin is not None and not plugin.enabled:
            raise NotFound(f"plugin {plugin.name}{_TAG} found but disabled")
        found_as = plugin.found_as if plugin is not None else plain
        address = self.discovery.find(found_as)
        with self._lock:
            driver = self._drivers.get((plain, address))
        if driver is None:
            client = PluginClient(plain, address)
            _check_keeps_volumes(client)
            with self._lock:
                driver = self._drivers.setdefault((plain, address), PluginVolumeDriver(client))
        return driver

    def volume_driver_names(self) -> list[str]:
        """The names of all plugins that may be volume drivers: the enabled ones, and those whose socket is there."""
        with self._lock:
            installed = dict(self._plugins)
        taken = {plugin.found_as for plugin in installed.values()}
        found = {name for name in self.discovery.names() if name not in taken}
        return sorted(found | {name for name, plugin in installed.items() if plugin.enabled})

    def _change(self, plugin: Plugin, *, enabled: bool) -> Plugin:
        changed = Plugin(plugin.name, plugin.found_as, enabled)
        with self._lock:
            self._save({**self._plugins, plugin.name: changed})
        return changed

    def _save(self, installed: dict[str, Plugin]) -> None:
        """Write and then use `installed`; the lock is held."""
        data = json.dumps([asdict(plugin) for plugin in installed.values()], indent=1).encode()
        write_durably(self._file, data, mode=0o600)
        self._plugins = installed

    def _load(self) -> dict[str, Plugin]:
        try:
            entries = json.loads(self._file.read_bytes())
            return {entry["name"]: Plugin(**entry) for entry in entries}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError) as error:
            raise EngineError(f"{self._file} cannot be read: {error}; move it away to begin without plugins") from error


def short_name(name: str) -> str:
    """A plugin's name without `:latest`, and without the registry that the command line puts before it."""
    return name.removesuffix(_TAG).removeprefix("docker.io/").removeprefix("library/")


def _check_keeps_volumes(client: PluginClient) -> None:
    implements = client.activate()
    if VOLUME_DRIVER not in implements:
        said = ", ".join(implements) or "nothing"
        raise EngineError(f"plugin {client.name} does not implement {VOLUME_DRIVER}: it implements {said}")
