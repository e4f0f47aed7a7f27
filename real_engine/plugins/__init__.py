"""Volume plugins: programs beside the engine that keep volumes, spoken to over their own socket.

The protocol is Docker's legacy plugin protocol (docs.docker.com/engine/extend/plugin_api): JSON by POST over a UNIX
socket or TCP. `discovery` finds plugins by their socket or spec file, `protocol` speaks, `volume_driver` makes a plugin
a driver of volumes, and `store` remembers which are installed and enabled.
"""
