"""The plugin protocol: a POST of JSON for each call, over the plugin's socket.

Source: docs.docker.com/engine/extend/plugin_api and plugins_volume; moby pkg/plugins/client.go.
"""

import contextlib
import http.client
import json
import random
import socket
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

from real_engine.errors import EngineError, NotFound
from real_engine.plugins.discovery import Address

MEDIA_TYPE = "application/vnd.docker.plugins.v1.2+json"
VOLUME_DRIVER = "VolumeDriver"

SHORT_SECONDS = 60.0  # to tell something (moby volume/drivers/extpoint.go: shortTimeout, longTimeout)
LONG_SECONDS = 120.0  # to create, mount, unmount or remove
_RETRY_SECONDS = 8.0  # how long a plugin that isn't there, because it is being started again, is waited for
_FIRST_PAUSE = 0.1
_LARGEST_ANSWER = 4 << 20

Json = dict[str, Any]


class PluginClient:
    """Speaks to the plugin `name` at `address`. Thread-safe: each call has its own connection."""

    def __init__(self, name: str, address: Address, retry_seconds: float = _RETRY_SECONDS) -> None:
        self.name = name
        self.address = address
        self._retry_seconds = retry_seconds

    def activate(self) -> list[str]:
        """The interfaces that the plugin implements, such as `VolumeDriver`.

        Raises:
            EngineError: it doesn't answer, or not as a plugin does.
        """
        answer = self.call("Plugin.Activate", {}, SHORT_SECONDS)
        implements = answer.get("Implements")
        if not isinstance(implements, list) or not all(isinstance(name, str) for name in implements):
            raise EngineError(f"plugin {self.name}: Plugin.Activate: the answer names no interfaces")
        return implements

    def call(self, method: str, body: Json, seconds: float = LONG_SECONDS) -> Json:
        """Call `method` and return the answer.

        A connection that can't be made is tried again for some seconds; a call that has been sent is not repeated.

        Raises:
            NotFound: the plugin says so by its status.
            EngineError: it isn't there, doesn't answer in time, answers too much, or reports an error.
        """
        connection = self._connect(seconds)
        with contextlib.closing(connection):
            try:
                headers = {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE}
                connection.request("POST", f"/{method}", json.dumps(body).encode(), headers)
                response = connection.getresponse()
                data = response.read(_LARGEST_ANSWER + 1)
            except TimeoutError as error:
                raise EngineError(f"{method}: plugin {self.name} gave no answer within {seconds:.0f} s") from error
            except (OSError, http.client.HTTPException) as error:
                raise EngineError(f"{method}: plugin {self.name}: {error or type(error).__name__}") from error
        if len(data) > _LARGEST_ANSWER:
            raise EngineError(f"{method}: plugin {self.name} answered with more than {_LARGEST_ANSWER} bytes")
        return self._answer(method, response.status, data)

    def _answer(self, method: str, status: int, data: bytes) -> Json:
        try:
            answer = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError) as error:
            if status == http.HTTPStatus.OK:
                raise EngineError(f"{method}: plugin {self.name} answered something else than JSON") from error
            answer = {}
        if not isinstance(answer, dict):
            raise EngineError(f"{method}: plugin {self.name} answered something else than an object")
        message = str(answer.get("Err") or "")
        if status != http.HTTPStatus.OK:
            kind = NotFound if status == http.HTTPStatus.NOT_FOUND else EngineError
            raise kind(f"{method}: {message or data[:1024].decode(errors='replace').strip() or f'status {status}'}")
        if message:
            raise EngineError(f"{method}: {message}")
        return answer

    def _connect(self, seconds: float) -> http.client.HTTPConnection:
        give_up = time.monotonic() + self._retry_seconds
        pause = _FIRST_PAUSE
        while True:
            connection = self._connection(seconds)
            try:
                connection.connect()
                return connection
            except OSError as error:
                connection.close()
                if time.monotonic() + pause > give_up or isinstance(error, (PermissionError, ssl.SSLError)):
                    shown = self.address.socket_path or self.address.url
                    reason = (error.strerror or str(error)).lower()
                    raise EngineError(f"plugin {self.name}: dial {shown}: connect: {reason}") from error
            time.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 -- so that not all who wait come at once
            pause *= 2

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        address = self.address
        if address.socket_path:
            return _UnixConnection(address.socket_path, seconds)
        host = urlsplit(address.url).netloc
        if not address.encrypted:
            return http.client.HTTPConnection(host, timeout=seconds)
        context = ssl.create_default_context(cafile=address.ca_file or None)
        if address.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if address.cert_file:
            context.load_cert_chain(address.cert_file, address.key_file or None)
        return http.client.HTTPSConnection(host, timeout=seconds, context=context)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("plugin", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(self.timeout)
        try:
            made.connect(self._path)
        except BaseException:
            made.close()
            raise
        self.sock = made
