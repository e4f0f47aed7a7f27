"""A registry as a process of its own, in a network namespace of its own, whose large blobs come slowly for as long as
a file says so. `python slow_registry.py ROOT PORT SLOW_FILE` serves ROOT and tells of each blob that is asked for.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemons import ALONE

PORT = 5000
_PIECE_BYTES = 32 << 10
_PIECE_SECONDS = 0.02  # 1.6 MB a second
_LARGE_BYTES = 10_000  # configurations have less


@dataclass(frozen=True)
class SlowRegistry:
    """The registry while it runs; `namespace` are words that run a command in its network."""

    process: "subprocess.Popen[bytes]"
    host: str
    slow: Path
    log: Path

    @property
    def namespace(self) -> tuple[str, ...]:
        return ("nsenter", f"--net=/proc/{self.process.pid}/ns/net", "--")

    def be_quick(self) -> None:
        """From now on, blobs come as fast as they can."""
        self.slow.unlink()

    def asked(self) -> list[str]:
        """The `Range` of each large blob that was asked for, "all" where there was none."""
        return self.log.read_text().split()


@contextlib.contextmanager
def slow_registry(root: Path, directory: Path) -> Iterator[SlowRegistry]:
    """Serves the registry in `root`; it ends with the block. `directory` is for what it writes."""
    slow, log = directory / "slow", directory / "asked"
    slow.touch()
    command = [*ALONE, sys.executable, "-P", __file__, str(root), str(PORT), str(slow)]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(Path(__file__).parent)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, env=environment)
    assert process.stderr is not None
    try:
        assert b"ready\n" == process.stderr.readline(), process.stderr.read().decode()
        yield SlowRegistry(process, f"127.0.0.1:{PORT}", slow, log)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def _serve(root: Path, port: int, slow: Path) -> None:
    from real_engine.http import Request, Response, Server
    from real_engine.http.listeners import TcpListener
    from real_engine.registry.server import Registry
    from real_engine.registry.storage import Storage

    registry = Registry(Storage(root))

    def handle(request: Request) -> Response:
        response = registry(request)
        body: Any = response.body
        if request.method != "GET" or "/blobs/" not in request.path or not hasattr(body, "read"):
            return response
        if int(response.headers["Content-Length"]) < _LARGE_BYTES:
            return response
        print(request.headers.get("Range", "all"), flush=True)

        def pieces() -> Iterator[bytes]:
            with body:
                while piece := body.read(_PIECE_BYTES):
                    yield piece
                    if slow.exists():
                        time.sleep(_PIECE_SECONDS)

        return Response(response.status, pieces(), response.headers, response.content_type)

    server = Server(handle, [TcpListener("127.0.0.1", port)])
    server.start()
    print("ready", file=sys.stderr, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
