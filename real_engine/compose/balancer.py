"""A small TCP balancer in front of replicas on several daemons: one address, whoever is behind it.

It listens on the ports that the compose file publishes. Each new connection goes to the next healthy replica in turn
(round robin). A replica is healthy while connections to it can be made: one that can't be reached when a client comes
is left out, the client is given to the next, and from then on a check every two seconds decides. Both directions of a
connection end one after the other, as with TCP itself. It runs on one asyncio loop in a thread of its own.
"""

import asyncio
import contextlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from real_engine.errors import Conflict

_CHUNK = 1 << 16
_CONNECT_SECONDS = 2.0
_CHECK_SECONDS = 2.0
_START_SECONDS = 10.0


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Where a replica can be reached."""

    address: str
    port: int
    name: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Frontend:
    """Where clients come to. Port 0 is any that is free."""

    address: str
    port: int


class Balancer:
    """Listens from `start` to `stop`; `serve` says on what, and who is behind. Thread-safe."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="balancer", daemon=True)
        self._services: dict[Frontend, _Service] = {}
        self._ready = threading.Event()

    def start(self) -> "Balancer":
        """Begin."""
        self._thread.start()
        self._ready.wait(_START_SECONDS)
        return self

    def serve(self, wanted: Mapping[Frontend, Iterable[Backend]]) -> None:
        """Listen on exactly these frontends, each with these backends. Connections that there are go on.

        Raises:
            Conflict: a port is taken.
        """
        plain = {frontend: tuple(sorted(backends)) for frontend, backends in wanted.items()}
        asyncio.run_coroutine_threadsafe(self._serve(plain), self._loop).result(_START_SECONDS)

    def port(self, frontend: Frontend) -> int:
        """The port on which a frontend listens in truth."""
        return self._services[frontend].port

    def healthy(self, frontend: Frontend) -> list[Backend]:
        """The backends that can be reached, as far as is known."""
        return [
            backend for backend in self._services[frontend].backends if backend not in self._services[frontend].down
        ]

    def stop(self) -> None:
        """End: no connection is left."""
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._serve({}), self._loop).result(_START_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_SECONDS)

    def __enter__(self) -> "Balancer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._ready.set)
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, wanted: Mapping[Frontend, tuple[Backend, ...]]) -> None:
        for frontend in [one for one in self._services if one not in wanted]:
            await self._services.pop(frontend).close()
        for frontend, backends in wanted.items():
            service = self._services.get(frontend)
            if service is None:
                service = _Service(frontend)
                await service.open()
                self._services[frontend] = service
            service.change(backends)


class _Service:
    """One frontend and those behind it; all of it happens on the loop."""

    def __init__(self, frontend: Frontend) -> None:
        self.frontend = frontend
        self.port = frontend.port
        self.backends: tuple[Backend, ...] = ()
        self.down: set[Backend] = set()
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._checks: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        try:
            self._server = await asyncio.start_server(
                self._client, self.frontend.address, self.frontend.port, reuse_address=True
            )
        except OSError as error:
            raise Conflict(
                f"the balancer cannot listen on {self.frontend.address}:{self.frontend.port}: {error.strerror}"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        self._checks = asyncio.create_task(self._check())

    def change(self, backends: tuple[Backend, ...]) -> None:
        self.backends = backends
        self.down.intersection_update(backends)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in (*self._connections, self._checks):
            if task is not None:
                task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            found = await self._connect()
            if found is None:
                writer.transport.abort()  # a reset: nobody is there
                return
            await _join(reader, writer, *found)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._connections.discard(task)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """The next replica that can be reached, those that are known to be down last."""
        backends = self.backends
        self._turn += 1
        turned = [backends[(self._turn + index) % len(backends)] for index in range(len(backends))]
        for backend in sorted(turned, key=lambda one: one in self.down):
            try:
                found = await asyncio.wait_for(asyncio.open_connection(backend.address, backend.port), _CONNECT_SECONDS)
            except (OSError, TimeoutError):
                self.down.add(backend)
                continue
            self.down.discard(backend)
            return found
        return None

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            for backend in self.backends:
                try:
                    _, writer = await asyncio.wait_for(
                        asyncio.open_connection(backend.address, backend.port), _CONNECT_SECONDS
                    )
                except (OSError, TimeoutError):
                    self.down.add(backend)
                    continue
                self.down.discard(backend)
                writer.close()


async def _join(
    client_reader: asyncio.StreamReader,
    client_writer: asyncio.StreamWriter,
    backend_reader: asyncio.StreamReader,
    backend_writer: asyncio.StreamWriter,
) -> None:
    """Pass bytes both ways until both directions have ended."""
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(client_reader, backend_writer))
            both.create_task(_copy(backend_reader, client_writer))
    except* OSError:  # one side was reset: the other learns it the same way
        client_writer.transport.abort()
        backend_writer.transport.abort()
    finally:
        for writer in (client_writer, backend_writer):
            writer.close()
            with contextlib.suppress(OSError):  # reset meanwhile
                await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        with contextlib.suppress(OSError):  # it has ended already
            writer.write_eof()
