"""The plugin that these tests speak to."""

from plugin_fixtures import make_plugin, plugins, sample_plugin, sockets

__all__ = ["make_plugin", "plugins", "sample_plugin", "sockets"]
