"""A volume plugin of the standard library: directories beneath one of its own, served from a thread."""

import json
import os
import shutil
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class SamplePlugin:
    """Listens on `socket`. `calls` are (method, body); `answers` replace what a method answers: (status, bytes)."""

    def __init__(self, socket: Path, content: Path, implements: tuple[str, ...] = ("VolumeDriver",)) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.media_types: set[str] = set()
        self.volumes: dict[str, set[str]] = {}
        self._content, self._implements = content, implements
        self._server = socketserver.ThreadingUnixStreamServer(str(socket), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda request, address: None  # a client that hangs up early is part of the tests
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        os.unlink(self._server.server_address)

    def answer(self, method: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = body.get("Name", "")
        place = str(self._content / name)
        if method == "Plugin.Activate":
            return 200, {"Implements": list(self._implements)}
        if method == "VolumeDriver.Capabilities":
            return 200, {"Capabilities": {"Scope": "global"}}
        if method == "VolumeDriver.List":
            return 200, {"Volumes": [{"Name": one, "Mountpoint": str(self._content / one)} for one in self.volumes]}
        if method == "VolumeDriver.Create":
            os.makedirs(place, exist_ok=True)
            self.volumes.setdefault(name, set())
        elif name not in self.volumes:
            return 500, {"Err": f"no volume {name}"}
        elif method == "VolumeDriver.Get":
            return 200, {"Volume": {"Name": name, "Mountpoint": place, "Status": {"users": len(self.volumes[name])}}}
        elif method == "VolumeDriver.Remove":
            shutil.rmtree(place)
            del self.volumes[name]
        elif method in ("VolumeDriver.Mount", "VolumeDriver.Path"):
            if method == "VolumeDriver.Mount":
                self.volumes[name].add(body["ID"])
            return 200, {"Mountpoint": place}
        elif method == "VolumeDriver.Unmount":
            self.volumes[name].remove(body["ID"])
        return 200, {"Err": ""}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        plugin = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
                method = self.path.removeprefix("/")
                plugin.calls.append((method, body))
                plugin.media_types.add(self.headers["Accept"])
                if method in plugin.answers:
                    status, data = plugin.answers[method]
                else:
                    status, answer = plugin.answer(method, body)
                    data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def address_string(self) -> str:
                return "plugin"

            def log_message(self, *_: object) -> None:
                return None

        return Handler
