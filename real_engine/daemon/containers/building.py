"""The steps of builds, run in containers: what a `RUN` instruction writes becomes the next layer."""

import contextlib
import select
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from real_engine.daemon.containers.create import create
from real_engine.errors import Conflict, NotFound
from real_engine.images.build.steps import Output, StepResult

if TYPE_CHECKING:
    from real_engine.daemon.containers.service import Containers
    from real_engine.images.store import Image

_HEADER = struct.Struct(">BxxxI")
_STREAMS = {1: "stdout", 2: "stderr"}
_LOOK_SECONDS = 0.2
_BUFFER = 1 << 16


class ContainerSteps:
    """Runs build steps as containers of the daemon (`real_engine.images.build.steps.StepRunner`)."""

    def __init__(self, containers: "Containers") -> None:
        self._containers = containers

    def create(self, image: "Image | None", config: dict[str, Any], host_config: dict[str, Any]) -> str:
        """Make a container; returns its id."""
        body = {**config, "HostConfig": host_config}
        record, _ = create(self._containers, body, "", image=image, from_nothing=image is None)
        return record.id

    def run(self, container_id: str, output: Output, cancelled: Callable[[], bool]) -> StepResult:
        """Start it, hand over what it writes, and wait for its end.

        Raises:
            EngineError: it could not be started.
        """
        containers = self._containers
        record = containers.get(container_id)
        ours, theirs = socket.socketpair()
        with ours, contextlib.closing(theirs), containers.waiting(record.id, "next-exit") as waiter:
            containers.supervisor.attach(record.id, theirs.fileno(), stdin=False, stdout=True, stderr=True, framed=True)
            theirs.close()
            containers.lifecycle.start(record.id)
            frames = _Frames(output)
            poll = select.poll()
            poll.register(ours, select.POLLIN)
            while True:
                if poll.poll(_LOOK_SECONDS * 1000):
                    data = ours.recv(_BUFFER)
                    if not data:
                        break
                    frames.take(data)
                if cancelled():
                    with contextlib.suppress(Conflict, NotFound):  # it has just ended by itself
                        containers.lifecycle.kill(record.id)
            ended = select.poll()
            ended.register(waiter, select.POLLIN)
            ended.poll()
        return StepResult(
            record.state.exit_code, containers.path(record) / "upper", tuple(containers.layers_below(record))
        )

    def remove(self, container_id: str) -> None:
        """Remove the container, and its anonymous volumes."""
        with contextlib.suppress(NotFound):
            self._containers.removal.remove(container_id, force=True, volumes=True)


class _Frames:
    """Takes a framed stream apart, however it is cut."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._waiting = bytearray()

    def take(self, data: bytes) -> None:
        """More of the stream."""
        self._waiting += data
        while len(self._waiting) >= _HEADER.size:
            number, length = _HEADER.unpack_from(self._waiting)
            end = _HEADER.size + length
            if len(self._waiting) < end:
                return
            self._output(_STREAMS.get(number, "stdout"), bytes(self._waiting[_HEADER.size : end]))
            del self._waiting[:end]
